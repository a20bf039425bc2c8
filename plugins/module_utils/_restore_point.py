# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Restore points: what a component was before it was touched, and the way back to it.

backups/<id>/manifest.json   what is in it: kind, path, sha256, owner, mode, extended attributes of each file
backups/<id>/0-prometheus    the files, named by their place in the manifest
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import typing as t

from . import _copies, _files, _json_file, _process, _schema
from ._errors import HostError
from ._state import is_unsettled

if t.TYPE_CHECKING:
    from ._store import Session

KINDS = _schema.KINDS
_UNFINISHED = (".new", ".removed")


class Entry(t.NamedTuple):
    """One file of a restore point. ``link`` is what it points to if it was a symbolic link."""

    kind: str
    path: str
    stored: str
    sha256: str
    attributes: dict[str, t.Any]
    link: str | None


class Manifest(t.NamedTuple):
    """What a restore point holds. ``version`` is that of the program in it; ``loaded_units`` are its units as systemd
    had them loaded, see C(_loaded_unit)."""

    id: str
    component: str
    version: str | None
    created_at: str
    entries: list[Entry]
    loaded_units: t.Sequence[dict[str, t.Any]] = ()


class Original(t.NamedTuple):
    """A file to keep. ``pid`` is of the process that alone still has its content, because the file was replaced. One
    that is ``optional`` is kept for the operator, as far as it can be read."""

    kind: str
    path: str
    pid: int = 0
    optional: bool = False


def is_unwritten(path: str) -> bool:
    """Whether a state file is one that its service has not written yet: its directory is there."""
    return not os.path.lexists(path) and os.path.isdir(os.path.dirname(path))


def create(
    session: Session,
    *,
    backup_id: str,
    component: str,
    version: str | None,
    files: list[Original],
    loaded_units: t.Sequence[dict[str, t.Any]] = (),
) -> Manifest:
    """Keep files as they are now. The restore point is there whole, or not at all; one that is there already is kept.

    :raises HostError: if one of the files can't be read or written; nothing is left behind then.
    """
    directory = session.layout.backup(backup_id)
    if os.path.isdir(directory):
        return read(session, backup_id)
    sweep(session)
    building = f"{directory}.new"
    _files.ensure_private_directory(building)
    entries = []
    for number, original in enumerate(files):
        try:
            entries.append(_keep(building, number, original))
        except PermissionError as exc:  # of a user in whose directory it is
            if not original.optional:
                raise
            session.warnings.append(f"restore point {backup_id} is without {original.path}: {exc.strerror}")
    manifest = Manifest(backup_id, component, version, session.now, entries, loaded_units)
    data = {**manifest._asdict(), "entries": [entry._asdict() for entry in entries]}
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    _files.write_durably(os.path.join(building, "manifest.json"), text.encode())
    _files.rename(building, directory)
    _files.fsync_directory(os.path.dirname(directory))
    return manifest


def sweep(session: Session) -> None:
    """Remove what is no restore point: what runs left that were cut off, before they had touched anything or while they
    removed one. What isn't a restore point at all stays. So does one of a component that is unresolved: it may be the
    only one."""
    named = {
        backup_id
        for record in session.document.data["components"].values()
        for backup_id in (
            record.get("backup_id"),
            *(point["id"] for point in record.get("inventory", {}).get("restore_points", [])),
        )
    }
    for left_over in sorted(set(os.listdir(session.layout.backup())) - named) if session.writable else []:
        if left_over.endswith(_UNFINISHED) or _is_superfluous(session, left_over):
            session.remove_tree(session.layout.backup(left_over))


def _is_superfluous(session: Session, backup_id: str) -> bool:
    """Whether no component can need it. Of one that is damaged it isn't known whose it is."""
    if not os.path.lexists(os.path.join(session.layout.backup(backup_id), "manifest.json")):
        return False
    unresolved = [name for name, record in session.document.data["components"].items() if is_unsettled(record)]
    try:
        return read(session, backup_id).component not in unresolved
    except HostError:
        return not unresolved


def _keep(directory: str, number: int, original: Original) -> Entry:
    stored = f"{number}-{os.path.basename(original.path)}"
    private = _files.Attributes(os.geteuid(), os.getegid(), 0o600, {})
    with (
        _files.located(original.path, follow=True) as place,
        _content_of(original, place) as content,
        _files.located(os.path.join(directory, stored)) as kept,
    ):
        sha256 = _files.write_copy(content, kept, attributes=private, source=original.path)
    attributes = _files.read_attributes(original.path, program=original.kind == "binary").to_dict()
    with _files.located(original.path) as place:
        return Entry(original.kind, original.path, stored, sha256, attributes, place.link())


@contextlib.contextmanager
def _content_of(original: Original, place: _files.Location) -> t.Iterator[t.Iterator[bytes]]:
    """What to keep of a file: what is at its path or, if that was replaced, what its process still runs."""
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(_process.replaced_program(original.pid, original.path)) if original.pid else None
        if program is None:
            yield stack.enter_context(_copies.content(place))
        else:
            yield _files.chunks(program, original.path)


def read(session: Session, backup_id: str) -> Manifest:
    """What a restore point holds.

    :raises HostError: if it isn't there or can't be read.
    """
    path = os.path.join(session.layout.backup(backup_id), "manifest.json")
    try:
        data = _json_file.load(path, _schema.MANIFEST, named=("id", backup_id))
        entries = [Entry(**{field: entry[field] for field in Entry._fields}) for entry in data["entries"]]
        for entry in entries:
            _files.Attributes.from_dict(entry.attributes)
        named = {field: data[field] for field in ("id", "component", "version", "created_at")}
        return Manifest(**named, entries=entries, loaded_units=data.get("loaded_units", []))
    except (OSError, ValueError) as exc:
        raise HostError(
            f"restore point {backup_id} can't be used: {path}: {exc}. "
            f"Those there are: {', '.join(sorted(os.listdir(session.layout.backup()))) or 'none'}",
            key="restore_point.unreadable",
        ) from exc


def verify(session: Session, manifest: Manifest, kinds: t.Collection[str]) -> None:
    """Check that the content of a restore point is what was put into it.

    :raises HostError: naming the first file that isn't.
    """
    for entry in manifest.entries:
        stored = os.path.join(session.layout.backup(manifest.id), entry.stored)
        if entry.kind in kinds and _files.sha256_or_none(stored) != entry.sha256:
            raise HostError(
                f"restore point {manifest.id} is damaged: {stored} isn't the file that was kept of {entry.path}. "
                "Nothing was restored; choose another restore point",
                key="restore_point.damaged",
            )


def differing(manifest: Manifest, kinds: t.Collection[str]) -> list[Entry]:
    """The files that aren't now what they were then, in content, owner, mode, attributes, or as a link."""
    return [entry for entry in manifest.entries if entry.kind in kinds and not _is_as_kept(entry)]


def _is_as_kept(entry: Entry) -> bool:
    program = entry.kind == "binary"
    try:
        with _files.located(entry.path) as place:
            same = place.link() == entry.link and _files.sha256_file(entry.path) == entry.sha256
            kept = place.carried(_files.Attributes.from_dict(entry.attributes), program=program)
            return same and _files.read_attributes(entry.path, program=program) == kept
    except OSError:
        return False


def restore(session: Session, manifest: Manifest, kinds: t.Collection[str]) -> list[str]:
    """Put back what differs: everything is prepared beside its place first, then renamed, in directories that are
    opened once. The paths put back.

    :raises HostError: if the restore point is damaged, or a path leads through a link that isn't followed; nothing was
        changed then.
    """
    verify(session, manifest, kinds)
    try:
        return _restore(session, manifest, kinds)
    except OSError as exc:
        if exc.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT):
            raise
        raise HostError(
            f"restore point {manifest.id} can't be put back: {_files.explain(exc)}. See who changed that directory, "
            "put it back, and run the playbook rollback",
            key="restore_point.unsafe_path",
        ) from exc


def _restore(session: Session, manifest: Manifest, kinds: t.Collection[str]) -> list[str]:
    differ = differing(manifest, kinds)
    with contextlib.ExitStack() as stack:
        places = {
            entry.path: stack.enter_context(_files.located(entry.path))
            for entry in manifest.entries
            if entry.kind in kinds
        }
        for path, place in places.items():
            if path not in [entry.path for entry in differ]:  # what a swap left that was cut off
                place.beside().remove()
        for entry in differ:
            _prepare(os.path.join(session.layout.backup(manifest.id), entry.stored), entry, places[entry.path])
        _files.put_in_place([places[entry.path] for entry in differ])
    return [entry.path for entry in differ]


def point_back(place: _files.Location, link: str | None, sha256: str) -> bool:
    """Make the link beside a place that was there before, if one was and it still leads to the same content. Otherwise
    a file has to take its place: what it led to was changed or removed meanwhile."""
    if link is None or place.unsafe:
        return False
    if _files.sha256_or_none(os.path.join(os.path.dirname(place.path), link)) != sha256:
        return False
    place.beside().point_to(link)
    return True


def _prepare(stored: str, entry: Entry, place: _files.Location) -> None:
    if point_back(place, entry.link, entry.sha256):
        return
    attributes = place.carried(_files.Attributes.from_dict(entry.attributes), program=entry.kind == "binary")
    _files.prepare_copy(stored, place, attributes=attributes, sha256=entry.sha256)
