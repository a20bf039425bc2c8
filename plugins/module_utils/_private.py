# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Io ring. Files of our own that nobody else may write or read. They are looked at before they are believed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

from . import _files
from ._errors import HostError

MODE = 0o600
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read(path: str, *, narrowed: list[str] | None = None) -> bytes:
    """A file's content; empty if there is none.

    :param narrowed: where to tell that others could read or write it, which is put an end to. Without it nothing is
        changed.
    :raises HostError: if it is no file, or somebody else's, or somebody else could put another in its place.
    """
    try:
        with opened(path, os.O_RDONLY, narrowed=narrowed) as descriptor:
            return b"".join(_files.chunks(descriptor, path))
    except FileNotFoundError:
        return b""


@contextlib.contextmanager
def opened(path: str, flags: int, *, narrowed: list[str] | None = None) -> t.Iterator[int]:
    """A descriptor of a file, that is made if C(flags) says so. Errors and warnings as those of C(read)."""
    with _files.located(path) as place:
        if place.unsafe:
            raise _refused(path, f"is below {place.unsafe}, which a user other than root can write")
        with _explained(path):
            descriptor = os.open(place.name, flags | _FLAGS, MODE, dir_fd=place.descriptor)
        try:
            _check(path, descriptor, narrowed)
            yield descriptor
        finally:
            os.close(descriptor)


def problem(path: str, *, mode: int = MODE) -> str | None:
    """What is wrong with a file or a directory of ours, if anything; it is left as it is."""
    status = os.lstat(path)
    kind = stat.S_ISDIR if mode & stat.S_IXUSR else stat.S_ISREG
    if not kind(status.st_mode):
        return f"{path} is a symbolic link, or of another kind than it must be"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to user {status.st_uid}"
    if stat.S_IMODE(status.st_mode) & ~mode:
        return f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so that others can get at it"
    return None


def _check(path: str, descriptor: int, narrowed: list[str] | None) -> None:
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is no file")
    if status.st_uid != os.geteuid():
        raise _refused(path, f"belongs to user {status.st_uid}")
    if mode & ~MODE and narrowed is not None:
        os.fchmod(descriptor, MODE)
        narrowed.append(f"{path} had mode {mode:04o}, so that others could get at it. It has {MODE:04o} now")


@contextlib.contextmanager
def _explained(path: str) -> t.Iterator[None]:
    try:
        yield
    except OSError as exc:
        exc.filename = path
        refusals = {errno.ELOOP: "is a symbolic link", errno.EISDIR: "is a directory", errno.ENXIO: "is no file"}
        if exc.errno not in refusals:
            raise
        raise _refused(path, refusals[exc.errno]) from exc


def _refused(path: str, why: str) -> HostError:
    return HostError(
        f"{path} {why}: it must be a file that belongs to user {os.geteuid()}. Nothing was read from it; look at who "
        "put it there, move it away, and run again",
        key="files.not_private",
    )
