# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. From what is wanted and what is there to the steps that lead from one to the other.

A step holds all that is needed to carry it out: nothing after the plan looks into the catalog again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import typing as t

from ..module_utils._state import name_of
from . import _estimate, _instances, _order, _report, _saved, _solver, _steps, _subject, _way, _windows
from ._market import Market
from ._wish import Wish, Wishes

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]

_LONGEST_SHOWN = 80


class Draft(t.NamedTuple):
    """The plan of one host by itself: its steps in their usual order, by key; what is to be known; a row each."""

    host: str
    wish: Wish
    survey: Data
    steps: dict[str, Data]
    findings: list[Data]
    rows: list[Data]

    def hops(self, name: str) -> list[str]:
        """The versions that a component goes through."""
        return [step["to"] for step in self.steps.values() if step["component"] == name]


# -- one host -----------------------------------------------------------------------------------------------------


def plan_host(
    host: str,
    survey: Data,
    wish: Wish,
    *,
    market: Market | None = None,
    today: dt.date | None = None,
    stops: Mapping[str, t.Collection[str]] | None = None,
    without: t.Collection[str] = (),
    stack: Mapping[str, Data] | None = None,
) -> Draft:
    """The steps of one host, in order, by key; and the findings.

    What isn't named is left alone, except an attempt that was cut off after it touched files: it is finished.

    :param stops: versions to stop at, by component, beside the stages.
    :param without: components to leave as they are, because no order of steps has a place for them.
    :param stack: what component_version told of the hosts of its stack; unless given, its stack is this host.
    :raises InputError: if no release is known in a range that is wished for.
    """
    market, today, stops = market or Market(), today or _today(), stops or {}
    draft = Draft(host, wish, survey, {}, [], [])
    named = {name_of(key) for key in (*wish.versions, *survey.get("unfinished", {}))} & set(wish.catalog)
    for key in (key for each in sorted(named, key=wish.rank) for key in leaders(survey, each)):
        name, subject = name_of(key), _subject.group(host, key, survey, wish.catalog)
        parts = [each for each in (subject, *subject.shared) if wish.means(each.name)]
        asked = [version for version in (wish.version(each.name) for each in parts) if version]
        if not parts or not (asked or subject.unfinished):
            continue
        if name in without and not subject.unfinished:
            draft.rows.extend({**row(each, [], []), "note": "no_order"} for each in (subject, *subject.shared))
            continue
        own = wish._replace(versions={**wish.versions, key: asked[0]}) if asked else wish
        found, steps = _component(
            subject, own, market, wish, today=today, stops=stops.get(name, ()), stack=stack or {host: survey}
        )
        draft.steps.update({step["key"]: step for step in steps})
        draft.findings.extend(found)
        own_row = row(subject, [step["to"] for step in steps], found)
        led = key if steps or own_row["note"] else None
        draft.rows.extend([own_row, *({**row(each, [], []), "with": led} for each in subject.shared)])
    _add_not_upgradable(draft)
    return draft


def leaders(survey: Data, name: str) -> list[str]:
    """The keys of a component's instances that steps are made for: one of all that run the same file."""
    found = _instances.keys(survey, name)
    return list(dict.fromkeys(_instances.leader(survey, key) for key in found))


def _add_not_upgradable(draft: Draft) -> None:
    """What the run is narrowed to by name, and can't be upgraded: nobody could tell it from what there is nothing to do
    for."""
    told = {row["component"] for row in draft.rows}
    for name in draft.wish.only:
        facts = draft.survey["components"].get(name, {})
        if name not in told and facts.get("not_upgradable") and draft.wish.means(name):
            subject = _subject.of_host(draft.host, name, draft.survey, draft.wish.entry(name))
            found = accepted([t.cast("Data", _subject.impossible(subject))], draft.wish)
            draft.findings.extend(found)
            draft.rows.append(row(subject, [], found))


def _component(
    subject: _subject.Subject,
    wish: Wish,
    market: Market,
    asked: Wish,
    *,
    today: dt.date,
    stops: t.Collection[str],
    stack: Mapping[str, Data],
) -> tuple[list[Data], list[Data]]:
    """What is to be known of a component, and its steps.

    :param asked: what the operator asks for; ``wish`` has the version of the group for its leader.
    """
    impossible = _subject.impossible(subject) or _subject.unknown_attempt(subject)
    if impossible:
        return accepted([impossible], wish), []
    way = _way.find(subject, wish, market.offer(subject.entry), today=today, stops=stops)
    if not way.hops:
        return accepted(way.findings, wish), []
    steps, more = _steps.steps(subject, way.hops, stack)
    found = [*_shared(subject, asked), *way.findings, *more, *_subject.incomplete(subject)]
    findings = accepted([*found, *_below_floor(subject, way.hops), *_subject.notes(subject)], wish)
    return findings, [] if is_blocked(findings) else steps


def _below_floor(subject: _subject.Subject, hops: list[str]) -> list[Data]:
    return [] if subject.unfinished else _steps.below_floor(subject, hops[-1])


def _shared(subject: _subject.Subject, wish: Wish) -> list[Data]:
    """Who else runs the file that a step replaces; and what keeps a run from restarting and verifying all of them."""
    whole = [subject, *subject.shared]
    found = _steps.shared_by(subject)
    wanted = {each.name: wish.version(each.name) if wish.means(each.name) else None for each in whole}
    if len(set(wanted.values())) > 1 and not subject.unfinished:
        told = ", ".join(f"{key} {version or 'no version'}" for key, version in wanted.items())
        message = f"{' and '.join(wanted)} run the same file {subject.facts['binary']}, and different versions are "
        fix = f"request one version for all of them, as upgrade_versions: {{{name_of(subject.name)}: ...}}"
        found.append(subject.finding("shared_file", "blocker", f"{message}requested: {told}", fix))
    return found


def accepted(findings: list[Data], wish: Wish) -> list[Data]:
    """The findings, with those blockers that the operator accepts as what they are: no blockers any more."""
    return [
        {**each, "severity": "accepted"} if each["severity"] == "blocker" and wish.accepts(each) else each
        for each in findings
    ]


def is_blocked(findings: list[Data]) -> bool:
    return any(finding["severity"] == "blocker" for finding in findings)


def row(subject: _subject.Subject, hops: list[str], findings: list[Data]) -> Data:
    """One line of the plan's table."""
    facts = subject.facts
    obstacle = next((f for f in findings if f["severity"] in ("blocker", "skipped") or not facts["installed"]), None)
    return {
        "host": subject.host,
        "component": subject.name,
        "installed": facts.get("version"),
        "proven": not subject.unfinished,
        "running": facts.get("running"),
        "hops": hops,
        "note": obstacle["key"][len(obstacle["component"]) + 1 :] if obstacle and not hops else "",
    }


def _today() -> dt.date:
    return dt.datetime.now(tz=dt.timezone.utc).date()


# -- the fleet ----------------------------------------------------------------------------------------------------


def plan_upgrade(
    surveys: Mapping[str, Data],
    wishes: Mapping[str, Data],
    *,
    answers: Data | None = None,
    mirror: str | t.Sequence[str] | None = None,
    now: dt.datetime | None = None,
    hold: bool = False,
    waves: list[t.Any] | None = None,
) -> Data:
    """The plan of a fleet.

    :param surveys: what component_version told of each host.
    :param wishes: the variables of each host; see C(_wish.FIELDS).
    :param answers: what the sources of releases answered, by source.
    :param hold: whether hosts outside their maintenance windows keep what they have.
    :raises InputError: if the operator's data can't be meant.
    """
    now = now or dt.datetime.now(tz=dt.timezone.utc)
    reader, market = Wishes(), Market(answers, mirror=mirror)
    read = {host: reader.read(host, wishes.get(host, {})) for host in surveys}
    windows = {host: _outside_window(host, wish, now, hold=hold) for host, wish in read.items()}
    stacks: dict[str, dict[str, Data]] = {}
    for host, wish in read.items():
        stacks.setdefault(wish.stack, {})[host] = surveys[host]

    def drafted(host: str, **more: t.Any) -> Draft:
        held = hold and bool(windows[host])
        wish = read[host]._replace(versions={}) if held else read[host]
        stack = stacks[wish.stack]
        return plan_host(host, surveys[host], wish, market=market, today=now.date(), stack=stack, **more)

    drafts = {host: drafted(host) for host in surveys}
    ordered = _order.order(drafts, drafted, market)
    found = [*(finding for each in windows.values() for finding in each), *ordered.findings]
    return plan_fleet(list(ordered.drafts.values()), ordered.steps, findings=found, needs=ordered.needs, waves=waves)


def reopen(
    text: str,
    surveys: Mapping[str, Data],
    wishes: Mapping[str, Data],
    *,
    name: str,
    hold: bool = True,
    approved: str = "",
) -> Data:
    """A plan that was saved, without the steps that are done; without any, if one of its hosts isn't to be touched now.

    :param hold: whether hosts outside their maintenance windows aren't to be touched.
    :param approved: the digest that the operator approved, if any.
    :raises InputError: if it isn't what was saved, isn't the one that was approved, doesn't match the hosts any more,
        or has steps that the variables of this run don't make.
    """
    reader, now = Wishes(), dt.datetime.now(tz=dt.timezone.utc)
    read = {host: reader.read(host, wishes.get(host, {})) for host in surveys}
    plan = _saved.reopen(
        text, surveys, read, digest=digest, name=name, today=now.date(), approved=approved.strip().lower()
    )
    drafts = [Draft(host, wish, surveys[host], {}, [], []) for host, wish in read.items()]
    phases = [{**phase, "links": _links(drafts, phase)} for phase in plan["phases"]]
    held = [finding for host in plan["hosts"] for finding in _outside_window(host, read[host], now, hold=hold)]
    if held and hold:
        return {**plan, "hosts": {}, "phases": [], "findings": [*plan["findings"], *held]}
    return {**plan, "phases": phases}


def _outside_window(host: str, wish: Wish, now: dt.datetime, *, hold: bool) -> list[Data]:
    """That a host isn't to be touched now. What was cut off there is finished all the same."""
    status = _windows.status(wish.windows, now)
    if status.open or "host.outside_window" in wish.accept:
        return []
    message = f"it is outside its maintenance windows: {_windows.shown(status)}"
    fix = "run it again then, or accept host.outside_window"
    return [_subject.finding(host, "outside_window", "skipped" if hold else "info", message, fix)]


def plan_fleet(
    drafts: list[Draft],
    order: list[_solver.Step],
    *,
    findings: list[Data] | None = None,
    needs: list[_solver.Rule] | None = None,
    kind: str = "upgrade",
    waves: list[t.Any] | None = None,
) -> Data:
    """One plan for all hosts: phases, each with the sequence of steps that all of its hosts go through.

    Every host goes through the whole sequence and does its own steps of it, so that equal steps of many hosts run side
    by side, and no host does its steps in another order.

    :param order: the steps of all stacks, in the order in which they are to be done.
    """
    phases = _order.phases(drafts, order, needs or [])
    hosts = {draft.host: draft.steps for draft in drafts if draft.steps}
    for phase in phases:
        phase["links"] = _links(drafts, phase)
    plan = {
        "kind": kind,
        "phases": phases,
        "hosts": hosts,
        "expects": {draft.host: _saved.expected(draft.survey, draft.steps) for draft in drafts if draft.steps},
    }
    surveys = {draft.host: draft.survey for draft in drafts}
    return {
        **plan,
        "digest": digest(plan),
        "findings": [*(findings or []), *(finding for draft in drafts for finding in draft.findings)],
        "rows": [row for draft in drafts for row in draft.rows],
        "seconds": _estimate.seconds(phases, surveys, waves or []),
        "backups": _estimate.backups(hosts, surveys),
    }


def _links(drafts: list[Draft], phase: Data) -> Data:
    """What a phase may have cut: for each host, with steps or without, the links of its components with those that the
    phase touches in its stack."""
    stacks: dict[str, dict[str, Draft]] = {}
    for draft in drafts:
        stacks.setdefault(draft.wish.stack, {})[draft.host] = draft
    found = {}
    for stack in stacks.values():
        touched = {name_of(key) for host, keys in phase["hosts"].items() if host in stack for key in keys}
        surveys = {host: draft.survey for host, draft in stack.items()}
        for host, draft in stack.items() if touched else ():
            targets = _steps.link_targets(surveys, host, draft.wish.catalog, touched=touched)
            if targets:
                found[host] = targets
    return found


def host_links(plan: Data, host: str, phase: str | None = None) -> list[Data]:
    """The links of a host that a phase may cut, or any phase of the plan; each once."""
    found: list[Data] = []
    for each in plan["phases"]:
        if phase in (None, each["name"]):
            found.extend(target for target in each["links"].get(host, []) if target not in found)
    return found


def parts(plan: Data, sizes: t.Sequence[int | str] = (), fast: bool = False) -> Data:
    """A plan as one list of parts, in order: the waves of each phase, then the integration checks of that phase.

    :param sizes: of the waves, as C(_estimate.waves) takes them.
    :param fast: whether all hosts are one wave where there are no sizes.
    :returns: C(parts), each with C(tasks) (C(phase) or C(links)), the place of its C(phase), C(hosts), and C(name) for
        the log; and C(hosts), those of all parts.
    """
    sizes = sizes or (["100%"] if fast else [])
    found: list[Data] = []
    for place, phase in enumerate(plan["phases"]):
        waves = _estimate.waves(list(phase["hosts"]), sizes)
        for number, hosts in enumerate(waves, 1):
            name = f"{phase['name']}, wave {number} of {len(waves)}: {_report.hosts(hosts)}"
            found.append({"name": name, "tasks": "phase", "phase": place, "hosts": hosts})
        if phase["links"]:
            name = f"integration checks of {phase['name']}"
            found.append({"name": name, "tasks": "links", "phase": place, "hosts": list(phase["links"])})
    return {"parts": found, "hosts": list(dict.fromkeys(host for part in found for host in part["hosts"]))}


def with_findings(plan: Data, findings: Mapping[str, list[Data]], gone: t.Collection[str] = ()) -> Data:
    """The plan, with what was found on hosts beside it, and without the steps of hosts that failed meanwhile.

    The digest stays: it is that of what was approved, and what is left of that is carried out.

    :param findings: by host.
    :param gone: the hosts that failed or became unreachable.
    """
    more = [{"component": None, **each, "host": host} for host, found in findings.items() for each in found]
    plan = {**plan, "findings": [*plan["findings"], *more]}
    return _without(plan, gone) if gone else plan


def _without(plan: Data, gone: t.Collection[str]) -> Data:
    def left(hosts: Mapping[str, t.Any]) -> Data:
        return {host: value for host, value in hosts.items() if host not in gone}

    phases = []
    for phase in plan["phases"]:
        hosts = left(phase["hosts"])
        sequence = [key for key in phase["sequence"] if any(key in keys for keys in hosts.values())]
        if sequence:
            phases.append({**phase, "sequence": sequence, "hosts": hosts, "links": left(phase["links"])})
    return {
        **plan,
        "phases": phases,
        "hosts": left(plan["hosts"]),
        "rows": [row for row in plan["rows"] if row["host"] not in gone],
    }


def digest(plan: Data) -> str:
    """What a plan is approved by: the SHA-256 of all that decides what is done."""
    decides = {key: plan[key] for key in ("kind", "phases", "hosts", "expects")}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def host_phases(plan: Data, host: str) -> dict[str, list[str]]:
    """The keys of a host's own steps, by phase, in the order in which they are done."""
    return {phase["name"]: list(phase["hosts"][host]) for phase in plan["phases"] if host in phase["hosts"]}


def problems(plan: Data, on_failure: str = "abort", approved: str = "") -> list[str]:
    """What stands in the way of carrying a plan out, a line each.

    :param on_failure: with C(continue) nothing that concerns single components does.
    :param approved: the digest that was approved.
    """
    groups: dict[str, list[str]] = {}
    for finding in plan["findings"]:
        if finding["severity"] == "blocker" and on_failure == "abort":
            groups.setdefault(f"{finding['message']}. {finding['fix']}", []).append(finding["host"])
    blockers = [f"{_report.hosts(list(dict.fromkeys(hosts)))}: {told}" for told, hosts in groups.items()]
    if approved and plan["hosts"] and not is_approved(plan, approved):
        blockers.append(
            f"upgrade_approved is {approved[:_LONGEST_SHOWN]}, but the plan is {plan['digest'][:12]} now: see it with "
            f"the playbook plan, and approve that one with its whole digest, upgrade_approved={plan['digest']}"
        )
    return blockers


def is_approved(plan: Data, approved: str) -> bool:
    """Whether a text approves this very plan: its whole digest. Somebody can make another plan that begins alike."""
    return bool(approved.strip().lower() == plan["digest"])


def missing_steps(plan: Data, key: str, failures: list[list[Data]]) -> list[str]:
    """The steps that failed on some host, and that a step must follow on all hosts.

    :param failures: those of all hosts, for each the list of what failed there.
    """
    failed = {f"{each['component']}@{each['to']}" for found in failures for each in found if each.get("component")}
    return sorted(failed & {each for phase in plan["phases"] for each in phase["after"].get(key, [])})
