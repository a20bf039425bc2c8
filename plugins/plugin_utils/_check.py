# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What is installed and what could be: the answer of the playbook C(check)."""

from __future__ import annotations

import datetime as dt
import typing as t

from ..module_utils import _version
from ..module_utils._argv import redact_url
from ..module_utils._errors import InputError
from ..module_utils._state import name_of
from . import _planner, _policy, _steps, _subject, _versions
from ._market import Market
from ._wish import LATEST, Wish, Wishes

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]


def check(
    surveys: Mapping[str, Data],
    wishes: Mapping[str, Data],
    *,
    answers: Data,
    mirror: str | t.Sequence[str] | None = None,
    now: dt.datetime | None = None,
) -> Data:
    """All that there is to know of what is installed: C(rows), one for each component of each host; C(findings).

    C(index) is what was listed, as a release index: enough to plan by without asking anybody, also with a mirror.
    What isn't wished for by name is taken as if the newest release were.
    """
    now = now or dt.datetime.now(tz=dt.timezone.utc)
    reader, market = Wishes(), Market(answers, mirror=mirror)
    rows: list[Data] = []
    findings: list[Data] = []
    index: dict[str, list[Data]] = {}
    for host, survey in surveys.items():
        wish = reader.read(host, wishes.get(host, {}))
        installed = [
            key
            for key, facts in survey["components"].items()
            if (facts["installed"] or facts.get("not_upgradable")) and name_of(key) in wish.catalog
        ]
        for name in sorted(filter(wish.means, installed), key=lambda key: (wish.rank(name_of(key)), key)):
            subject = _subject.of_host(host, name, survey, wish.entry(name))
            row, found = _component(subject, wish, market, now.date())
            if row["error"] is None:
                index[redact_url(Market().source(subject.entry))] = market.offer(subject.entry).releases
            rows.append(row)
            findings.extend(found)
    told = {redact_url(source): answer for source, answer in answers.items()}
    return {"rows": rows, "findings": [*findings, *_drift(rows)], "sources": told, "index": index}


def _component(subject: _subject.Subject, wish: Wish, market: Market, today: dt.date) -> tuple[Data, list[Data]]:
    """A component's row, and what is to be known of it."""
    name, offer = subject.name, market.offer(subject.entry)
    here = subject.facts["version"]
    wished = wish._replace(versions={name: wish.version(name) or LATEST}, only=[name])
    draft = _draft(subject, wished, market, today)
    known = here not in (None, _version.UNKNOWN)
    newer = [v for v in offer.versions if known and not _versions.is_prerelease(v) and _versions.compare(v, here) > 0]
    target = draft.hops(name)[-1] if draft.hops(name) else None
    available = target or (newer[0] if newer else None)
    date = offer.date(here) if known else None
    late = _policy.overdue(date, wish.policy.policy(name), today)
    weak = _steps.vulnerable(subject, here) if known else []
    found = [*draft.findings, *(each for each in weak if each not in draft.findings)]
    if late:
        message = f"{name} {here} was released on {date}, {late} days longer ago than its policy allows"
        found.append(subject.finding("overdue", "warning", message, "upgrade it"))
    row = {
        "component": name,
        "host": subject.host,
        "installed": here,
        "running": subject.facts["running"],
        "available": available,
        "change": _versions.change(here, available) if known and available else None,
        "released": offer.date(available) if available else None,
        "behind": len(newer),
        "vulnerable": bool(weak),
        "blocked_by": _obstacles(draft.findings, target),
        "error": offer.error,
    }
    return row, [each for each in found if each["severity"] != "info"]


def _draft(subject: _subject.Subject, wish: Wish, market: Market, today: dt.date) -> _planner.Draft:
    """What a plan would do with a component. A wish that no known release fits is no reason to tell nothing else."""
    try:
        return _planner.plan_host(subject.host, _alone(subject), wish, market=market, today=today)
    except InputError as exc:
        told = subject.finding("no_release_in_range", "blocker", str(exc), f"change upgrade_versions.{subject.name}")
        return _planner.Draft(subject.host, wish, _alone(subject), {}, [told], [])


def _alone(subject: _subject.Subject) -> Data:
    """What was read of a host, as if it had nothing else, and nothing of an earlier run were left."""
    return {"components": {subject.name: subject.facts}, "state": None, "unfinished": {}}


def _obstacles(findings: list[Data], target: str | None) -> list[str]:
    """Why nothing newer is taken, or only something older than there is, by the keys that would be accepted."""
    hard = [finding["key"] for finding in findings if finding["severity"] in ("blocker", "skipped")]
    held = [finding["key"] for finding in findings if finding["severity"] == "held"]
    return list(dict.fromkeys(hard or ([] if target else held)))


def _drift(rows: list[Data]) -> list[Data]:
    """Where a host isn't as it should be: its disk isn't what runs, or it is behind the others of its component."""
    newest: dict[str, str] = {}
    for row in rows:
        if row["installed"] not in (None, _version.UNKNOWN):
            component = name_of(row["component"])
            known = newest.setdefault(component, row["installed"])
            newest[component] = max(known, row["installed"], key=_versions.parse)
    found = []
    for row in rows:
        host, name, here = row["host"], row["component"], row["installed"]
        if here is None:  # it has no program of its own on the host's disk
            continue
        if row["running"] not in (None, here):
            message = f"{name} {row['running']} runs, but {here} is on disk"
            fix = (
                f"upgrade it to {here}: the run proves it, and restarts it"
                if here != _version.UNKNOWN
                else "restart it"
            )
            found.append(_subject.finding(host, "drift", "warning", message, fix, component=name))
        if here != _version.UNKNOWN and _versions.compare(here, newest[name_of(name)]) < 0:
            message = f"{name} is {here}, and {newest[name_of(name)]} elsewhere"
            found.append(_subject.finding(host, "behind", "warning", message, "upgrade it, too", component=name))
    return found


def problems(checked: Data) -> list[str]:
    """What could not be looked up, a line each."""
    return [answer["error"] for answer in checked["sources"].values() if answer.get("error")]
