# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Taking single files out of a release archive.

Nothing is ever extracted: an archive is read as a stream, the wanted members are written under names of our own, and an
archive that holds anything a release has no use for is refused as a whole. So it doesn't matter which filters the
host's C(tarfile) has.
"""

from __future__ import annotations

import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import typing as t
import zipfile
import zlib

from . import _files
from ._errors import ReleaseError

MEMBER_LIMIT = 2 << 30
"""Bytes that one member may have. The largest program of a release today has a twentieth of it."""

_CHUNK = 1 << 20
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def extract(archive: str, *, name: str, members: dict[str, str], directory: str) -> dict[str, str]:
    """Write members of an archive, or the one bare file that it is, into a directory. The paths written, by file name.

    :param name: what the release calls the archive; its ending doesn't matter, its content tells what it is.
    :param members: for each file name to write, the member's path in the archive.
    :raises ReleaseError: if the archive is damaged, unsafe, or lacks a member; the directory then holds nothing of it.
    """
    targets = {member: os.path.join(directory, file_name) for file_name, member in members.items()}
    try:
        found = _reader(archive)(archive, name, targets)
    except BaseException as exc:
        for path in targets.values():
            if os.path.lexists(path):
                os.unlink(path)
        if isinstance(exc, _BROKEN):
            raise ReleaseError(
                f"{name} is truncated or damaged ({exc}): fetch it again", key="release.damaged_archive"
            ) from exc
        raise
    missing = sorted(set(members.values()) - found)
    if missing:
        raise ReleaseError(
            f"{name} has no member {', '.join(missing)}: this release is laid out in another way than the catalog "
            "says; set releases in upgrade_overrides",
            key="release.member_missing",
        )
    return {file_name: targets[member] for file_name, member in members.items()}


_Reader = t.Callable[[str, str, "dict[str, str]"], "set[str]"]


def _reader(archive: str) -> _Reader:
    with open(archive, "rb") as source:
        magic = source.read(6)
    if magic[:4] == b"PK\x03\x04":
        return _from_zip
    for start, opener in _COMPRESSIONS.items():
        if magic.startswith(start):
            return lambda path, name, targets: _from_tar(path, name, targets, opener)
    return _from_bare


_COMPRESSIONS: dict[bytes, t.Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open}


def _from_tar(archive: str, name: str, targets: dict[str, str], opener: t.Any) -> set[str]:
    found: set[str] = set()
    with opener(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                path = _checked_name(name, member.name)
                if not (member.isdir() or (member.isreg() and not member.issparse())):
                    raise _unsafe(name, member.name, "it is a link, a device, or another special file")
                if path in targets and member.isreg():
                    content = t.cast("t.IO[bytes]", tar.extractfile(member))
                    _take(content, name, path, targets[path], member.size, found)
        while stream.read(_CHUNK):  # to the end: only there does the compression's own checksum tell
            pass
    return found


def _from_zip(archive: str, name: str, targets: dict[str, str]) -> set[str]:
    found: set[str] = set()
    with zipfile.ZipFile(archive) as bundle:
        for member in bundle.infolist():
            path = _checked_name(name, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(name, member.filename, "it is a link, a device, or another special file")
            if path in targets and not member.is_dir():
                with bundle.open(member) as content:
                    _take(content, name, path, targets[path], member.file_size, found)
    return found


def _from_bare(archive: str, name: str, targets: dict[str, str]) -> set[str]:
    """A program that is released as it is: its catalog entry names the release's own file name as the member."""
    found: set[str] = set()
    if name in targets:
        with open(archive, "rb") as content:
            _take(content, name, name, targets[name], os.path.getsize(archive), found)
    return found


def _take(content: t.IO[bytes], archive: str, member: str, target: str, size: int, found: set[str]) -> None:
    """Write one member to a new file of our own, never more of it than was announced."""
    if member in found:
        raise _unsafe(archive, member, "it is there twice")
    if size > MEMBER_LIMIT:
        raise _unsafe(archive, member, f"it has {size} bytes, more than {MEMBER_LIMIT}")
    found.add(member)
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with _files.naming(target), open(descriptor, "wb") as sink:
        written = 0
        for chunk in iter(lambda: content.read(_CHUNK), b""):
            written += len(chunk)
            if written > size:
                raise _unsafe(archive, member, f"it has more than the {size} bytes it announced")
            sink.write(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    if written != size:
        raise ReleaseError(
            f"{archive} is truncated: {member} has {written} bytes of {size}: fetch it again",
            key="release.damaged_archive",
        )


def _checked_name(archive: str, member: str) -> str:
    """The member's path without C(./), if it stays below the archive's root."""
    parts = member.split("/")
    if member.startswith("/") or ".." in parts or "\\" in member or "\0" in member or member[1:2] == ":":
        raise _unsafe(archive, member, "its name leads out of the archive")
    return posixpath.normpath(member)


def _unsafe(archive: str, member: str, why: str) -> ReleaseError:
    return ReleaseError(
        f"{archive} is refused for its member {member!r}: {why}. No release has that; don't use this archive",
        key="release.unsafe_archive",
    )
