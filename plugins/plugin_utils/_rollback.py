# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The way back: steps whose files come from restore points."""

from __future__ import annotations

import typing as t

from ..module_utils._errors import InputError
from ..module_utils._state import name_of
from . import _planner, _solver, _steps, _subject, _versions
from ._wish import Wish, Wishes

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]


def plan_rollback(surveys: Mapping[str, Data], wishes: Mapping[str, Data], *, to: str, kinds: list[str]) -> Data:
    """The plan of a fleet's way back. What is upgraded last goes back first, and no rule stands in the way of it.

    :param to: C(previous), or the id of a restore point, or that of an upgrade: then to where it began.
    :raises InputError: if no host has such a restore point.
    """
    reader = Wishes()
    drafts = [
        plan_host(host, survey, reader.read(host, wishes.get(host, {})), to=to, kinds=kinds)
        for host, survey in surveys.items()
    ]
    if not any(draft.rows for draft in drafts):
        raise InputError(
            f"upgrade_rollback_to: no host has a restore point {to!r}. The playbook rollback, without it, lists those "
            "that there are",
            key="input.no_restore_point",
        )
    return _planner.plan_fleet(drafts, _reversed(drafts), kind="rollback")


def _reversed(drafts: list[_planner.Draft]) -> list[_solver.Step]:
    """All steps, in the order opposite to that of an upgrade."""
    ranks = {
        (draft.wish.stack, name_of(step["component"]), step["to"]): (
            draft.wish.rank(name_of(step["component"])),
            step["to"],
        )
        for draft in drafts
        for step in draft.steps.values()
    }

    def place(item: tuple[tuple[str, str, str], tuple[t.Any, str]]) -> t.Any:
        (stack, _component, _to), (rank, version) = item
        return rank, _versions.parse(version), stack

    ordered = sorted(ranks.items(), key=place, reverse=True)
    return [_solver.Step(*names, extra=False, because=()) for names, _rank in ordered]


def plan_host(host: str, survey: Data, wish: Wish, *, to: str, kinds: list[str]) -> _planner.Draft:
    """The steps that bring a host back to restore points."""
    draft = _planner.Draft(host, wish, survey, {}, [], [])
    ranked = sorted(wish.catalog, key=wish.rank, reverse=True)
    for name in (key for each in ranked for key in reversed(_planner.leaders(survey, each))):
        subject = _subject.group(host, name, survey, wish.catalog)
        is_meant = any(wish.means(each.name) for each in (subject, *subject.shared))
        point = _restore_point(subject, to) if is_meant else None
        if point is None:
            continue
        impossible = _unknown(subject, point) or _subject.impossible(subject)
        found = [impossible] if impossible else [*_subject.not_running(subject), *_steps.shared_by(subject)]
        found = _planner.accepted(found, wish)
        hops = [] if point["version"] == subject.facts.get("version") and not subject.is_open else [point["version"]]
        if hops and not impossible and not _planner.is_blocked(found):
            step = _steps.step(subject, subject.origin, point["version"], target=point["version"], stage={})
            step.update(stage=None, backup_id=point["id"], kinds=kinds, reason=f"restore point {point['id']}")
            draft.steps[step["key"]] = step
            found.extend(_steps.below_floor(subject, point["version"]))
        draft.findings.extend(found)
        hops = hops if draft.hops(name) else []
        draft.rows.append(_planner.row(subject, hops, found))
        draft.rows.extend({**_planner.row(each, [], []), "with": name if hops else None} for each in subject.shared)
    return draft


def _unknown(subject: _subject.Subject, point: Data) -> Data | None:
    """That a restore point is of no version that could be put in order with others."""
    if _versions.is_version(point["version"]):
        return None
    message = f"the version of restore point {point['id']} is {point['version'] or 'unknown'}, which is no version"
    fix = f"copy its files back by hand, or set upgrade_only to leave {subject.name} out"
    return subject.finding("unknown_restore_point", "blocker", message, fix)


def restore_points(survey: Data) -> list[Data]:
    """All restore points of a host, newest first."""
    records = (survey.get("state") or {}).get("components", {})
    points = [
        {"component": name, **point}
        for name, record in records.items()
        for point in record.get("inventory", {}).get("restore_points", [])
    ]
    return sorted(points, key=lambda point: (point["created_at"], point["id"]), reverse=True)


def _restore_point(subject: _subject.Subject, to: str) -> Data | None:
    points = subject.record.get("inventory", {}).get("restore_points", [])
    # Those that somebody marked hold what he named, which need not be the program.
    points = [point for point in points if point["id"] == to or not point.get("marked")]
    if to == "previous":
        others = [point for point in points if point["version"] != subject.facts.get("version")]
        return others[-1] if others else None
    named = [point for point in points if point["id"] == to or point["id"].startswith(f"{to}.")]
    return named[0] if named else None
