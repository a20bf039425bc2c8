# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Putting a component's files in place, all of them or none, with a way back."""

from __future__ import annotations

import os
import typing as t

from . import _files, _guard, _process, _restore_point
from ._errors import HostError
from ._restore_point import Original

if t.TYPE_CHECKING:
    from ._command import Run
    from ._state import Step
    from ._store import Session


class Candidate(t.NamedTuple):
    """A proven file and the path it is for. Without attributes of its own it takes over those of the file there."""

    source: str
    path: str
    sha256: str
    kind: str = "binary"
    attributes: _files.Attributes | None = None


class Change(t.NamedTuple):
    """What is at a path before, and after."""

    path: str
    before: str | None
    after: str


class Swap(t.NamedTuple):
    """A set of files that go into place together. ``guard`` undoes it on the host if nobody confirms it."""

    step: Step
    from_version: str | None
    candidates: list[Candidate]
    keep: list[Original]
    main_pid: int
    restored_from: str | None = None
    guard: _guard.Guard | None = None


def changes(swap: Swap) -> list[Change]:
    """What each path holds, and what it is to hold."""
    return [Change(item.path, _files.sha256_or_none(item.path), item.sha256) for item in swap.candidates]


def lost_restart(swap: Swap) -> bool:
    """Whether the service still runs a file that was replaced under it. Then only the process has the old program."""
    return _replaced_program(swap) is not None


def apply(run: Run, session: Session, swap: Swap, planned: list[Change]) -> str:
    """Make the restore point, arm the guard, record what is about to happen, then rename. The restore point's id.

    :raises HostError: if something failed; what was renamed already is back in its old place then.
    """
    document = session.document
    document.start_step(swap.step, from_version=swap.from_version, now=session.now)
    document.advance("BACKING_UP", now=session.now)
    manifest = _restore_point_of(session, swap)
    moving = [item for item, change in zip(swap.candidates, planned) if change.before != change.after]
    for item in swap.candidates:
        temporary = _files.temporary_beside(item.path)
        if item not in moving:
            _files.remove_if_there(temporary)  # of an undoing that was cut off
            continue
        attributes = item.attributes or _files.read_attributes(item.path)
        _files.prepare_copy(item.source, temporary, attributes=attributes, sha256=item.sha256)
    _record(session, swap, manifest.id, planned)
    if swap.guard:
        _guard.arm(run, session, swap.guard)
    session.save()
    try:
        for item in moving:
            os.rename(_files.temporary_beside(item.path), item.path)
        for directory in sorted({os.path.dirname(item.path) for item in moving}):
            _files.fsync_directory(directory)
    except OSError as exc:
        _restore_point.restore(session, manifest, {item.kind for item in swap.candidates})
        raise HostError(f"{_files.explain(exc)}. All files are as they were before", key="swap.failed") from exc
    return manifest.id


def _restore_point_of(session: Session, swap: Swap) -> _restore_point.Manifest:
    """The restore point of this step. One that an attempt made before it was cut off is the pristine one: it stays."""
    record = session.document.component(swap.step.component)
    if record.get("backup_id"):
        return _restore_point.read(session, record["backup_id"])
    upgrade_id = session.document.upgrade.get("upgrade_id") or session.now.replace(":", "")
    program = _replaced_program(swap)
    originals = [
        Original(item.kind, item.path, program if position == 0 else None)
        for position, item in enumerate(swap.candidates)
    ]
    replaced = {original.path for original in originals}
    manifest = _restore_point.create(
        session,
        backup_id=f"{upgrade_id}.{swap.step.component}-{swap.from_version or 'unknown'}",
        component=swap.step.component,
        version=swap.from_version,
        files=originals + [original for original in swap.keep if original.path not in replaced],
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
        files=[{**change._asdict(), "before": pristine.get(change.path, change.before)} for change in planned],
    )


def _replaced_program(swap: Swap) -> str | None:
    """Where the content of the running program is, if it isn't at its path any more."""
    path = swap.candidates[0].path
    if not swap.main_pid or _process.runs_file(swap.main_pid, path):
        return None
    program = _process.executable(swap.main_pid)
    try:
        name = os.readlink(program)
    except OSError:
        return None
    return program if name in (f"{path} (deleted)", f"{os.path.realpath(path)} (deleted)") else None
