# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Putting a component's files in place, all of them or none, with a way back."""

from __future__ import annotations

import contextlib
import typing as t

from . import (
    _baseline,
    _files,
    _guard,
    _loaded_unit,
    _obstacles,
    _process,
    _restore_point,
    _systemd,
    _unit_disk,
)
from ._errors import HostError
from ._restore_point import Original
from ._state import is_unsettled

if t.TYPE_CHECKING:
    from ._command import Run
    from ._state import Step
    from ._store import Session
    from ._systemd import Unit


class Candidate(t.NamedTuple):
    """A verified file and the path it is for. Without attributes of its own it takes over those of the file there.

    ``identity`` is what C(_files.identity_of) told of the file there when the host was surveyed, if that is known.
    ``link`` is what it was a symbolic link to, if it comes from a restore point and was one.
    """

    source: str
    path: str
    sha256: str
    kind: str = "binary"
    attributes: _files.Attributes | None = None
    identity: str | None = None
    link: str | None = None


class Change(t.NamedTuple):
    """What is at a path before, and after."""

    path: str
    before: str | None
    after: str


class Swap(t.NamedTuple):
    """A set of files that go into place together. ``guard`` undoes it on the host if nobody confirms it. ``units`` run
    them, the component's own first."""

    step: Step
    from_version: str | None
    candidates: list[Candidate]
    keep: list[Original]
    main_pid: int
    restored_from: str | None = None
    guard: _guard.Guard | None = None
    units: tuple[Unit, ...] = ()


def changes(swap: Swap) -> list[Change]:
    """What each path holds, and what it is to hold."""
    return [Change(item.path, _files.sha256_or_none(item.path), item.sha256) for item in swap.candidates]


def lost_restart(swap: Swap) -> bool:
    """Whether the service still runs a file that was replaced under it. Then only the process has the old program."""
    path, pid = swap.candidates[0].path, swap.main_pid
    if not pid or _process.runs_file(pid, path):
        return False
    with _process.replaced_program(pid, path) as program:
        return program is not None


def check_identities(session: Session, swap: Swap) -> None:
    """Refuse to replace a file that isn't the one which was surveyed. One that a step of this tool put in place since
    is known by its content.

    :raises HostError: naming the first file that was changed, and nothing was touched: C(swap.changed).
    """
    placed = session.document.component(swap.step.component).get("placed") or {}
    for item in swap.candidates:
        if item.identity is None:
            continue
        now = _files.identity_of(item.path)
        if now == item.identity or _files.sha256_or_none(item.path) in (placed.get(item.path), item.sha256):
            continue
        before = dict(word.partition(":")[::2] for word in item.identity.split())
        after = dict(word.partition(":")[::2] for word in now.split())
        changed = [name for name in after if after[name] != before.get(name)]
        raise HostError(
            f"{item.path} was changed since this run surveyed it ({', '.join(changed)}). Nothing was replaced: see who "
            "changed it, and run again",
            key="swap.changed",
        )


def check_unit(run: Run, session: Session, swap: Swap, accept: t.Collection[str]) -> None:
    """Refuse a swap whose restart would start the service otherwise than it runs: with a change of its unit that
    systemd has not loaded, or that it has loaded since the preflight of this run.

    :param accept: keys of findings that the operator accepts.
    :raises HostError: with the difference, and nothing was touched: C(swap.unit_changed).
    """
    name = swap.step.component
    if not swap.units or f"{name}.unit_changed" in accept:
        return
    directories = _systemd.unit_path(run)
    changes = [(unit.name, _unit_disk.change_of(unit, directories)) for unit in swap.units]
    found = [one for unit, change in changes for one in _obstacles.unit_changed(name, unit, change)]
    told = [f"{one['message']}. {one['fix']}" for one in found if one["severity"] == _obstacles.BLOCKER]
    if not told and not is_unsettled(session.document.component(name)):
        told = _loaded_since(run, session, name, swap.units[0])
    if told:
        raise HostError(f"{told[0]}. Nothing was replaced", key="swap.unit_changed")


def _loaded_since(run: Run, session: Session, component: str, unit: Unit) -> list[str]:
    """That systemd has loaded another unit since the preflight of this run, as a text."""
    upgrade_id = session.document.upgrade.get("upgrade_id")
    kept = _baseline.read(session.layout, component, upgrade_id=upgrade_id) if upgrade_id else None
    before = (kept or {}).get("unit")
    if not before:
        return []
    own = session.layout.own_command(component)
    now = _loaded_unit.marks(_loaded_unit.read(run, unit.name), own=own, salt=before["salt"])
    unlike = [name for name, mark in now.items() if before["marks"].get(name, mark) != mark]
    if not unlike:
        return []
    return [
        f"{unit.name} was changed since this run looked at it, and systemd has loaded the change: {', '.join(unlike)}. "
        "See who changed it, and run again"
    ]


def apply(run: Run, session: Session, swap: Swap, planned: list[Change]) -> str:
    """Make the restore point, arm the guard, record what is about to happen, then rename. The restore point's id.

    :raises HostError: if something failed; what was renamed already is back in its old place then.
    """
    document = session.document
    document.start_step(swap.step, from_version=swap.from_version, now=session.now)
    document.advance("BACKING_UP", now=session.now)
    manifest = _restore_point_of(run, session, swap)
    with contextlib.ExitStack() as stack:
        moving = []
        for item, change in zip(swap.candidates, planned):
            place = stack.enter_context(_files.located(item.path))
            if change.before == change.after:
                place.beside().remove()  # of an undoing that was cut off
                continue
            _prepare(item, place)
            moving.append(place)
        _record(session, swap, manifest.id, planned)
        if swap.guard:
            _guard.arm(run, session, swap.guard)
        session.save()
        try:
            _files.put_in_place(moving)
        except OSError as exc:
            _restore_point.restore(session, manifest, {item.kind for item in swap.candidates})
            raise HostError(f"{_files.explain(exc)}. All files are as they were before", key="swap.failed") from exc
    return manifest.id


def _prepare(item: Candidate, place: _files.Location) -> None:
    """Write a file's successor beside it, or make the link that it was."""
    if _restore_point.point_back(place, item.link, item.sha256):
        return
    program = item.kind == "binary"
    attributes = item.attributes or _files.read_attributes(item.path, program=program)
    attributes = place.carried(attributes, program=program)
    _files.prepare_copy(item.source, place, attributes=attributes, sha256=item.sha256)


def _restore_point_of(run: Run, session: Session, swap: Swap) -> _restore_point.Manifest:
    """The restore point of this step. One that an attempt made before it was cut off is the pristine one: it stays."""
    record = session.document.component(swap.step.component)
    if record.get("backup_id"):
        return _restore_point.read(session, record["backup_id"])
    upgrade_id = session.document.upgrade.get("upgrade_id") or session.now.replace(":", "")
    pid = swap.main_pid if lost_restart(swap) else 0
    originals = [
        Original(item.kind, item.path, pid if position == 0 else 0) for position, item in enumerate(swap.candidates)
    ]
    replaced = {original.path for original in originals}
    manifest = _restore_point.create(
        session,
        backup_id=f"{upgrade_id}.{swap.step.component}-{swap.from_version or 'unknown'}",
        component=swap.step.component,
        version=swap.from_version,
        files=originals + [original for original in swap.keep if original.path not in replaced],
        loaded_units=[_loaded_unit.read(run, unit.name) for unit in swap.units],
    )
    session.document.add_restore_point(
        swap.step.component, backup_id=manifest.id, version=swap.from_version, now=session.now
    )
    return manifest


def _record(session: Session, swap: Swap, backup_id: str, planned: list[Change]) -> None:
    """Note that the files may be other than they were. What an attempt found that was cut off, stays: its restore point
    holds that, and what is there now may be half of each."""
    document, name = session.document, swap.step.component
    pristine = {file["path"]: file["before"] for file in document.component(name).get("files", [])}
    document.advance("UPGRADING", now=session.now)
    if document.component(name)["state"] in ("checking", "downloading"):
        document.set_component(name, "staged", now=session.now)
    document.set_component(
        name,
        "activated",
        now=session.now,
        backup_id=backup_id,
        rollback_available=True,
        restored_from=swap.restored_from,
        sha256=planned[0].after,
        placed={change.path: change.after for change in planned},
        files=[{**change._asdict(), "before": pristine.get(change.path, change.before)} for change in planned],
    )
