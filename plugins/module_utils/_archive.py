# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Taking single files out of a release archive.

Nothing is ever extracted: an archive is read as a stream by C(_archive_tar) and C(_archive_zip), and the wanted members
are written to new files with names and modes of our own. Members that nobody wants are read over. An archive that has
what no release has, is refused as a whole.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import typing as t

from . import _archive_tar, _archive_zip, _files
from ._archive_stream import CHUNK, Entry, Limits, MalformedError, RefusedError, UnreadableError, opened
from ._errors import InputError, ReleaseError

LIMITS = Limits()

_Entries = t.ContextManager[t.Iterator[Entry]]
_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip", b"PK\5\6": "zip"}
_OTHERS = {b"BZh": "bzip2", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar", b"!<arch>": "deb"}


def extract(
    archive: str,
    *,
    name: str,
    members: dict[str, str],
    directory: str,
    zstd: t.Sequence[str] = ("zstd", "-dcq", "--"),
) -> dict[str, str]:
    """Write members of an archive, or the one bare file that it is, into a directory. The paths written, by file name.

    :param name: what the release calls the archive; its ending doesn't matter, its content tells what it is.
    :param members: for each file name to write, the member's path in the archive. A file name is one name, no path.
    :param zstd: the program that writes what a file of zstd holds to its output. It is asked only where this Python is
        older than 3.14.
    :raises ReleaseError: if the archive is damaged, unsafe, or lacks a member; the directory then holds nothing of it.
    :raises InputError: if what is wanted has no place in the directory.
    """
    taker = _Taker(name, _targets(members, directory))
    with taker.undone_on_failure():
        with _entries(archive, name, zstd) as entries:
            for entry in entries:
                taker.look_at(entry)
        taker.all_there()
    return {file_name: os.path.join(directory, file_name) for file_name in members}


def _targets(members: dict[str, str], directory: str) -> dict[str, str]:
    """Where each wanted member goes, by its path without C(./)."""
    targets: dict[str, str] = {}
    for file_name, member in members.items():
        if file_name in ("", ".", "..") or "/" in file_name or "\0" in file_name:
            raise InputError(f"{file_name!r} in the catalog's releases.members is no name of a file: write one name")
        path = posixpath.normpath(member)
        if path in targets:
            raise InputError(f"the catalog's releases.members names {member!r} for two files: name it for one")
        targets[path] = os.path.join(directory, file_name)
    return targets


class _Taker:
    """Looks at each member of an archive, and writes down those that are wanted."""

    def __init__(self, archive: str, targets: dict[str, str]) -> None:
        self._archive = archive
        self._targets = targets
        self._seen: set[str] = set()
        self._found: set[str] = set()
        self._made: list[str] = []

    @contextlib.contextmanager
    def undone_on_failure(self) -> t.Iterator[None]:
        """Tell failures as an operator needs them. Files that were made are gone then; others are never touched."""
        try:
            yield
        except BaseException as exc:
            for path in self._made:
                _files.remove_if_there(path)
            error = _explained(self._archive, exc)
            if error is None:
                raise
            raise error from exc

    def look_at(self, entry: Entry) -> None:
        path = _checked_name(entry.name)
        if entry.kind == "special":
            raise RefusedError("it is a device, a pipe, or another special file", member=entry.name)
        if entry.kind == "file" and entry.mode & (stat.S_ISUID | stat.S_ISGID):
            raise RefusedError("it would run as another user (setuid or setgid)", member=entry.name)
        if path not in self._targets:
            return
        if path in self._seen:
            raise RefusedError("it is there twice", member=entry.name)
        self._seen.add(path)
        if entry.kind == "link":
            raise RefusedError("it is a link, not the file itself", member=entry.name)
        if entry.kind == "file":
            self._take(entry, self._targets[path])
            self._found.add(path)

    def _take(self, entry: Entry, target: str) -> None:
        if entry.size > LIMITS.member:
            raise RefusedError(f"it has {entry.size} bytes, more than {LIMITS.member}", member=entry.name)
        _take(entry.content, target, self._made)

    def all_there(self) -> None:
        missing = sorted(set(self._targets) - self._found)
        if missing:
            raise ReleaseError(
                f"{self._archive} has no member {', '.join(missing)}: this release is laid out in another way than the "
                "catalog says; set releases in upgrade_overrides",
                key="release.member_missing",
            )


def _take(content: t.Iterator[bytes], target: str, made: list[str]) -> None:
    """Write one member to a new file of our own. Its reader sees to it that it has as many bytes as announced."""
    with _files.naming(target):
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        made.append(target)
        with open(descriptor, "wb") as sink:
            sink.writelines(content)
            sink.flush()
            os.fsync(sink.fileno())


def _entries(archive: str, name: str, zstd: t.Sequence[str]) -> _Entries:
    """An archive's members, by what its first bytes tell of its kind."""
    with open(archive, "rb") as source:
        magic = source.read(8)
    kind = next((kind for start, kind in _MAGIC.items() if magic.startswith(start)), None)
    other = next((kind for start, kind in _OTHERS.items() if magic.startswith(start)), None)
    if other:
        raise UnreadableError(f"it is of kind {other}; read are tar.gz, tar.xz, tar.zst, zip, and a program as it is")
    if kind == "zip":
        return _of_zip(archive)
    return _of_tar(archive, kind, zstd) if kind else _of_bare(archive, name)


@contextlib.contextmanager
def _of_tar(archive: str, kind: str, zstd: t.Sequence[str]) -> t.Iterator[t.Iterator[Entry]]:
    with opened(archive, kind, limits=LIMITS, zstd=zstd) as stream:
        yield _archive_tar.entries(stream, members=LIMITS.members)


@contextlib.contextmanager
def _of_zip(archive: str) -> t.Iterator[t.Iterator[Entry]]:
    with open(archive, "rb") as source:
        yield _archive_zip.entries(source, limits=LIMITS)


@contextlib.contextmanager
def _of_bare(archive: str, name: str) -> t.Iterator[t.Iterator[Entry]]:
    """A program that is released as it is: its catalog entry names the release's own file name as the member."""
    with open(archive, "rb") as source:
        content = iter(lambda: source.read(CHUNK), b"")
        yield iter([Entry(name, "file", 0, os.fstat(source.fileno()).st_size, content)])


def _checked_name(member: str) -> str:
    """The member's path without C(./), if it stays below the archive's root."""
    unsafe = member.startswith("/") or ".." in member.split("/") or "\\" in member or member[1:2] == ":"
    if unsafe or "\0" in member:
        raise RefusedError("its name leads out of the archive", member=member)
    return posixpath.normpath(member)


def _explained(archive: str, exc: BaseException) -> ReleaseError | None:
    """What is wrong with an archive, and what to do about it."""
    if isinstance(exc, MalformedError):
        return ReleaseError(f"{archive} is truncated or damaged ({exc}): fetch it again", key="release.damaged_archive")
    if isinstance(exc, RefusedError):
        what = f" for its member {exc.member!r}" if exc.member is not None else ""
        return ReleaseError(
            f"{archive} is refused{what}: {exc}. No release has that; don't use this archive",
            key="release.unsafe_archive",
        )
    if isinstance(exc, UnreadableError):
        return ReleaseError(f"{archive} can't be read: {exc}", key="release.unknown_archive")
    return None
