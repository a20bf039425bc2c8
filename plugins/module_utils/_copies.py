# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Copies of what belongs to a service: files that root keeps, without being led to others.

What is below a directory that a user other than root can write is read by a process of that user, which has no
privileges, and sends it through a pipe. So whatever the user exchanges meanwhile, only what that user can read anyway
is copied. Links are never followed, and of all else only directories and regular files are read.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import pwd
import select
import signal
import stat
import struct
import time
import typing as t

from . import _files

if t.TYPE_CHECKING:
    from ._files import Location, Unsafe

    Item = dict[str, t.Any]

_NOBODY = 65534
_SECONDS = 300.0
"""For all of one copy. Its reader could be stopped by its own user."""

_CHUNK = 1 << 18
_LONGEST_HEADER = 1 << 16
_LENGTH = struct.Struct("!I")


class Owner(t.NamedTuple):
    """Who gets a copy. Without a user, whose number isn't known yet, all may write it."""

    uid: int | None
    gid: int | None


class _Identity(t.NamedTuple):
    uid: int
    gid: int
    groups: list[int]


@contextlib.contextmanager
def content(place: Location) -> t.Iterator[t.Iterator[bytes]]:
    """The content of a regular file, by pieces.

    :raises OSError: if it can't be read, by root or by the user who could have put it there.
    """
    if place.unsafe is None:
        with place.opened() as descriptor:
            yield _files.chunks(descriptor, place.path)
        return
    with _items(place) as items:
        for item, chunks in items:
            if item["kind"] != "file":
                raise OSError(errno.EINVAL, "it is not a regular file", place.path)
            yield chunks
            return
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), place.path)


def copy(path: str, to: str, *, most: int, owner: Owner | None = None, links: bool = False) -> None:
    """Copy a file, or a directory with the directories and files in it, to a directory of root's own.

    :param to: where the copy goes. There is nothing yet.
    :param most: bytes.
    :param owner: who gets it; otherwise each file keeps its owner and its mode.
    :param links: also copy links, as links.
    :raises OSError: if it can't be read, or is larger: EFBIG.
    """
    left = most
    with _files.located(path, follow=True) as place, _items(place) as items:
        top = os.path.dirname(place.path)
        for item, chunks in items:
            target = os.path.join(to, item["path"]) if item["path"] else to
            if item["kind"] == "link":
                if links:
                    _files.make_link(target, _outward(item, top, place.path))
                continue
            uid, gid, mode = _given(item, owner)
            if item["kind"] == "directory":
                _files.make_directory_of(target, uid, gid, mode)
                continue
            left = _copied(chunks, target, path, left, _files.Attributes(uid, gid, mode, {}))


def make_directory(path: str, owner: Owner) -> None:
    """Make a directory for who gets a copy, and those above it, unless they are there."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path), owner)
        uid, gid, mode = _given({"kind": "directory", "mode": 0o700}, owner)
        _files.make_directory_of(path, uid, gid, mode)


def _copied(chunks: t.Iterator[bytes], target: str, path: str, left: int, attributes: _files.Attributes) -> int:
    """Write one file of a copy. How many bytes are left for further ones."""

    def counted() -> t.Iterator[bytes]:
        nonlocal left
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                raise OSError(errno.EFBIG, "it is larger than what is copied of it", path)
            yield chunk

    with _files.located(target) as place:
        _files.write_copy(counted(), place, attributes=attributes, source=path)
    return left


def _given(item: Item, owner: Owner | None) -> tuple[int, int, int]:
    """Owner, group and mode of a copy."""
    mode = item["mode"] & 0o777
    if owner is None:
        return item["uid"], item["gid"], mode
    if owner.uid is None or owner.gid is None:
        return os.geteuid(), os.getegid(), 0o777 if item["kind"] == "directory" else 0o666
    return owner.uid, owner.gid, mode


def _outward(item: Item, top: str, source: str) -> str:
    """Where a copied link leads: as the original within what is copied; otherwise to where that led."""
    target = str(item["target"])
    here = os.path.dirname(os.path.join(source, item["path"]) if item["path"] else os.path.join(top, "x"))
    there = os.path.normpath(os.path.join(here, target))
    return target if there.startswith(f"{source}/") else there


# -- the process that reads -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _items(place: Location) -> t.Iterator[t.Iterator[tuple[Item, t.Iterator[bytes]]]]:
    """What a process reads of a file, or of all below a directory: each with its content."""
    directory = _top_of(place)
    identity = _identity(directory) if directory and os.geteuid() == 0 else None
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(place, writing, identity)
    os.close(writing)
    try:
        yield _received(reading, place.path, time.monotonic() + _SECONDS)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _top_of(place: Location) -> Unsafe | None:
    """The first directory that somebody else can write, the one to be copied included."""
    return place.unsafe or _files.unsafe_directory(os.path.join(place.path, "x"))


def _identity(directory: Unsafe) -> _Identity:
    """Somebody with the rights of those who can write a directory, and no more: never root, nor root's group."""
    if directory.uid:
        try:
            entry = pwd.getpwuid(directory.uid)
            groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        except KeyError:
            groups = [directory.gid]
        return _Identity(directory.uid, directory.gid or _NOBODY, [group for group in groups if group])
    gid = directory.gid if directory.mode & stat.S_IWGRP else 0
    return _Identity(_NOBODY, gid or _NOBODY, [])


def _child(place: Location, writing: int, identity: _Identity | None) -> t.NoReturn:
    """The whole life of the process that reads. It has no file of the host open but the directory, so that no lock
    lasts as long as it does."""
    status = 1
    try:
        gc.disable()
        for descriptor in {int(name) for name in os.listdir("/proc/self/fd")} - {place.descriptor, writing}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if identity:
            os.setgroups(identity.groups)
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
        try:
            _send(place, writing)
            _header(writing, {"kind": "end"})
        except OSError as exc:
            _header(writing, {"kind": "error", "number": exc.errno, "why": exc.strerror, "file": exc.filename})
        status = 0
    finally:
        os._exit(status)


def _send(place: Location, writing: int) -> None:
    """Send a file, or a directory and all below it. Of the latter, what this user can't read is left out."""
    status = place.status()
    if not stat.S_ISDIR(status.st_mode):
        with place.opened() as descriptor:
            _send_file(writing, "", os.fstat(descriptor), descriptor)
        return
    _header(writing, _item("directory", "", status))
    for found in _files.entries_below(place):
        kind = stat.S_IFMT(found.status.st_mode)
        inside = place.within(found)
        if kind == stat.S_IFDIR:
            _header(writing, _item("directory", found.path, found.status))
        elif kind == stat.S_IFLNK:
            _header(writing, {**_item("link", found.path, found.status), "target": inside.link() or ""})
        elif kind == stat.S_IFREG:
            with contextlib.suppress(PermissionError, FileNotFoundError), inside.opened() as descriptor:
                _send_file(writing, found.path, os.fstat(descriptor), descriptor)


def _item(kind: str, path: str, status: os.stat_result) -> Item:
    return {"kind": kind, "path": path, "uid": status.st_uid, "gid": status.st_gid, "mode": status.st_mode & 0o777}


def _header(writing: int, item: Item) -> None:
    text = json.dumps(item).encode("utf-8", "surrogateescape")
    _files.write_all(writing, _LENGTH.pack(len(text)) + text)


def _send_file(writing: int, path: str, status: os.stat_result, descriptor: int) -> None:
    _header(writing, _item("file", path, status))
    for chunk in _files.chunks(descriptor, path):
        _files.write_all(writing, _LENGTH.pack(len(chunk)) + chunk)
    _files.write_all(writing, _LENGTH.pack(0))


# -- what comes from it ---------------------------------------------------------------------------------------------


def _received(reading: int, path: str, deadline: float) -> t.Iterator[tuple[Item, t.Iterator[bytes]]]:
    """Each file, directory and link that the process sends; the content of a file is read before the next comes.

    :raises OSError: what it couldn't read, or that it ended early, or that it takes too long.
    """
    while True:
        length = _length(reading, path, deadline, _LONGEST_HEADER)
        item = json.loads(_exactly(reading, length, path, deadline))
        if item["kind"] == "end":
            return
        if item["kind"] == "error":
            raise OSError(item["number"], f"{item['why']}, as the user of its directory", item["file"] or path)
        if ".." in item["path"].split("/") or item["path"].startswith("/"):
            raise OSError(errno.EINVAL, "it was told another path than one below it", path)
        chunks = _chunks(reading, path, deadline) if item["kind"] == "file" else iter(())
        yield item, chunks
        for _rest in chunks:
            pass


def _chunks(reading: int, path: str, deadline: float) -> t.Iterator[bytes]:
    while True:
        length = _length(reading, path, deadline, 1 << 20)
        if not length:
            return
        yield _exactly(reading, length, path, deadline)


def _length(reading: int, path: str, deadline: float, most: int) -> int:
    length = int(_LENGTH.unpack(_exactly(reading, _LENGTH.size, path, deadline))[0])
    if length > most:
        raise OSError(errno.EIO, "the process that read it sent nonsense", path)
    return length


def _exactly(reading: int, length: int, path: str, deadline: float) -> bytes:
    parts = []
    while length:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            raise OSError(errno.ETIMEDOUT, f"it couldn't be read within {_SECONDS:.0f} s", path)
        part = os.read(reading, min(length, _CHUNK))
        if not part:
            raise OSError(errno.EIO, "the process that read it was ended", path)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
