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

import json
import os
import typing as t

from . import _files, _json_file, _schema
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
    """What a restore point holds. ``version`` is that of the program in it."""

    id: str
    component: str
    version: str | None
    created_at: str
    entries: list[Entry]


class Original(t.NamedTuple):
    """A file to keep. ``source`` is where its content is, if that isn't the path itself."""

    kind: str
    path: str
    source: str | None = None


def create(session: Session, *, backup_id: str, component: str, version: str | None, files: list[Original]) -> Manifest:
    """Keep files as they are now. The restore point is there whole, or not at all; one that is there already is kept.

    :raises HostError: if one of the files can't be read or written; nothing is left behind then.
    """
    directory = session.layout.backup(backup_id)
    if os.path.isdir(directory):
        return read(session, backup_id)
    sweep(session)
    building = f"{directory}.new"
    os.mkdir(building, 0o700)
    entries = [_keep(building, number, original) for number, original in enumerate(files)]
    manifest = Manifest(backup_id, component, version, session.now, entries)
    data = {**manifest._asdict(), "entries": [entry._asdict() for entry in entries]}
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    _files.write_durably(os.path.join(building, "manifest.json"), text.encode())
    os.rename(building, directory)
    _files.fsync_directory(os.path.dirname(directory))
    return manifest


def sweep(session: Session) -> None:
    """Remove what is no restore point: what runs left that were cut off, before they had touched anything or while they
    removed one. What isn't a restore point at all is left to people. So is one of a component that is unresolved: it
    may be the only one."""
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
    source = original.source or original.path
    sha256 = _files.prepare_copy(source, os.path.join(directory, stored), attributes=private)
    link = os.readlink(original.path) if os.path.islink(original.path) else None
    return Entry(original.kind, original.path, stored, sha256, _files.read_attributes(original.path).to_dict(), link)


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
        return Manifest(**{field: data[field] for field in Manifest._fields[:-1]}, entries=entries)
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
    link = os.readlink(entry.path) if os.path.islink(entry.path) else None
    try:
        same = _files.sha256_file(entry.path) == entry.sha256
        return same and link == entry.link and _files.read_attributes(entry.path).to_dict() == entry.attributes
    except OSError:
        return False


def restore(session: Session, manifest: Manifest, kinds: t.Collection[str]) -> list[str]:
    """Put back what differs: everything is prepared beside its place first, then renamed. The paths put back.

    :raises HostError: if the restore point is damaged; nothing was changed then.
    """
    verify(session, manifest, kinds)
    entries = differing(manifest, kinds)
    for entry in manifest.entries:
        if entry.kind in kinds and entry not in entries:
            _files.remove_if_there(_files.temporary_beside(entry.path))  # of a swap that was cut off
    for entry in entries:
        _prepare(os.path.join(session.layout.backup(manifest.id), entry.stored), entry)
    for entry in entries:
        os.rename(_files.temporary_beside(entry.path), entry.path)
    for directory in sorted({os.path.dirname(entry.path) for entry in entries}):
        _files.fsync_directory(directory)
    return [entry.path for entry in entries]


def _prepare(stored: str, entry: Entry) -> None:
    temporary = _files.temporary_beside(entry.path)
    if entry.link is not None:
        _files.remove_if_there(temporary)
        os.symlink(entry.link, temporary)
        return
    attributes = _files.Attributes.from_dict(entry.attributes)
    _files.prepare_copy(stored, temporary, attributes=attributes, sha256=entry.sha256)
