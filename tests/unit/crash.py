# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stops code of the collection at every point where it changes something.

A point is a call of the operating system that changes something, or a command that does, if it is the collection that
makes it, also by way of Python's library. Nobody lists them: they are counted where they happen, so that new code has
its points by being there. What is done at a point is a fault; what is to hold afterwards, C(crash_host.py) knows.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import gc
import io
import json
import os
import signal
import stat
import sys
import traceback
import typing as t

from ansible_collections.observability.stack.plugins.module_utils import _files

PLUGINS = os.path.dirname(os.path.dirname(_files.__file__)) + os.sep
LIBRARY = os.path.dirname(os.__file__) + os.sep
PACKAGES = (os.path.join(LIBRARY, "site-packages"), os.path.join(LIBRARY, "dist-packages"))

_WRITES = ("write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range")
_TWO_NAMES = ("rename", "replace", "link", "symlink")
_SYNCS = ("fsync", "fdatasync", "sync")
_NEEDS_SPACE = {"create", "mkdir", "setxattr", "posix_fallocate", *_WRITES, *_TWO_NAMES}
_IDEMPOTENT = ("mkdir", "unlink", "remove", "rmdir", "chmod", "fchmod", "chown", "fchown")
_CHANGES = (
    *(*_WRITES, *_TWO_NAMES, *_SYNCS, "unlink", "remove", "rmdir", "mkdir", "mkfifo", "mknod"),
    *("chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "setxattr", "removexattr"),
    *("truncate", "ftruncate", "posix_fallocate", "utime"),
)
# The kernel's errors of these tell no file, for they know a descriptor only.
_NAMELESS = {*_WRITES, *_SYNCS, "fchmod", "fchown", "ftruncate", "posix_fallocate"}


class Point(t.NamedTuple):
    """Where something is changed: the call or the command, what it changes, and the function that does it."""

    operation: str
    what: str
    caller: str

    def __str__(self) -> str:
        return f"{self.caller}: {self.operation} {self.what}"


class Fault(t.NamedTuple):
    """What happens at a point: an error, or without one the end of the process, right before the call.

    :param half: the call is a write, and has written half of it.
    :param lasts: from there on it happens at every point that it can happen at.
    """

    title: str
    error: int = 0
    half: bool = False
    lasts: bool = False

    def hits(self, point: Point) -> bool:
        """Whether it can happen there, and isn't the same as at the next point."""
        if self.half:
            return point.operation in _WRITES
        if not self.error:
            return point.operation not in _SYNCS  # the next one finds the same, unless the power is cut
        if not self.lasts:
            return True
        return point.operation in _NEEDS_SPACE if self.error == errno.ENOSPC else point.operation != "run"


FAULTS = {
    "killed": Fault("killed"),
    "torn": Fault("killed in the middle of a write", half=True),
    "no-space": Fault("no space, once", errno.ENOSPC),
    "full": Fault("no space from there on", errno.ENOSPC, lasts=True),
    "read-only": Fault("read-only from there on", errno.EROFS, lasts=True),
    "io-error": Fault("input/output error, once", errno.EIO),
}


class Points:
    """Counts the points that the process passes, and lets a fault happen at one of them.

    :param at: the number of that point; the first one is 1.
    :param sync: whether data is really brought to the disk. It makes no difference to who doesn't cut the power.
    :param passing: is called with the number of each point, before it.
    """

    def __init__(
        self,
        fault: Fault | None = None,
        at: int = 0,
        *,
        sync: bool = False,
        passing: t.Callable[[int], None] = lambda number: None,
    ) -> None:
        self.seen: list[Point] = []
        self._fault = fault
        self._at = at
        self._sync = sync
        self._passing = passing

    def install(self) -> None:
        """Watch this process, which is one that was made for it, to its end."""
        for name in _CHANGES:
            if hasattr(os, name):
                setattr(os, name, self._watched(name, getattr(os, name)))
        os.open = self._watched_open(os.open)
        builtins.open = io.open = self._watched_file(io.open)

    def command(self, argv: t.Sequence[str]) -> bool:
        """Pass the point that a command is. Whether it is to fail."""
        return self._pass(Point("run", " ".join(argv), _caller(beyond=True) or "?"), lambda: None)

    def _pass(self, point: Point, do_half: t.Callable[[], t.Any]) -> bool:
        """Whether the call is to fail with the fault's error."""
        self.seen.append(point)
        number = len(self.seen)
        self._passing(number)
        fault = self._fault
        if fault is None or number < self._at or (number > self._at and not (fault.lasts and fault.hits(point))):
            return False
        if fault.error:
            return True
        if fault.half:
            do_half()
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    def _error(self, name: t.Any = None, second: t.Any = None) -> OSError:
        number = self._fault.error if self._fault else 0
        return OSError(number, os.strerror(number), name, None, second)

    def _watched(self, name: str, real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(*args: t.Any, **options: t.Any) -> t.Any:
            caller = _caller()
            what = args[1] if name in _TWO_NAMES else args[0] if args else ""
            directory = options.get("dir_fd", options.get("dst_dir_fd"))
            if caller is None or _has_its_way(name, what, directory, *args[1:]):
                return real(*args, **options)
            point = Point(name, _shown(what, directory), caller)
            if self._pass(point, lambda: real(*_half(name, args), **options)):
                raise self._error(*(() if name in _NAMELESS else args[: 2 if name in _TWO_NAMES else 1]))
            if name in _SYNCS and not self._sync:
                return None
            return real(*args, **options)

        return call

    def _watched_open(self, real: t.Callable[..., int]) -> t.Callable[..., int]:
        def call(path: t.Any, flags: int, *args: t.Any, **options: t.Any) -> int:
            there = _has_its_way("mkdir", path, options.get("dir_fd"))
            caller = _caller() if flags & os.O_TRUNC or (flags & os.O_CREAT and not there) else None
            if caller and self._pass(Point("create", _shown(path, options.get("dir_fd")), caller), lambda: None):
                raise self._error(path)
            return real(path, flags, *args, **options)

        return call

    def _watched_file(self, real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(file: t.Any, mode: str = "r", buffering: int = -1, *args: t.Any, **options: t.Any) -> t.Any:
            caller = _caller() if set(mode) & set("wax+") else None
            if caller is None:
                return real(file, mode, buffering, *args, **options)
            if not isinstance(file, int) and self._pass(Point("create", _shown(file), caller), lambda: None):
                raise self._error(file)
            raw = _WatchedFile(self, file, mode)
            if buffering == 0:
                return raw
            buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

        return call


class _WatchedFile(io.FileIO):
    """A file that was opened for writing: each of its writes is a point."""

    def __init__(self, points: Points, file: t.Any, mode: str) -> None:
        super().__init__(file, mode.replace("b", "").replace("t", ""))
        self._points = points

    def write(self, data: t.Any) -> int:
        point = Point("write", _shown(self.fileno()), _caller() or "?")
        if self._points._pass(point, lambda: super(_WatchedFile, self).write(bytes(data)[: len(data) // 2])):
            raise self._points._error()
        return super().write(data)


def _has_its_way(name: str, file: t.Any, directory: int | None, *wanted: t.Any) -> bool:
    """Whether all is as it is to be. Then the call changes nothing, and the disk has no say in it."""
    if name not in _IDEMPOTENT:
        return False
    try:
        status = os.stat(file, dir_fd=directory, follow_symlinks="ch" in name)
    except FileNotFoundError:
        return name in ("unlink", "remove", "rmdir")
    if name in ("chmod", "fchmod"):
        return [stat.S_IMODE(status.st_mode)] == list(wanted)
    if name in ("chown", "fchown"):
        return [status.st_uid, status.st_gid] == list(wanted)
    return name == "mkdir"


def _caller(*, beyond: bool = False) -> str | None:
    """The function of the collection that a call comes from, maybe by way of Python's library; none if it doesn't.

    :param beyond: by whatever way.
    """
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PLUGINS):
            return f"{os.path.basename(path)[:-3]}.{frame.f_code.co_name}"
        between = path == __file__ or path.startswith(("<frozen", LIBRARY))
        if not beyond and (not between or path.startswith(PACKAGES)):
            return None
        frame = frame.f_back
    return None


def _shown(file: t.Any, directory: int | None = None) -> str:
    """A file's last two names. Those of a run and of a time are left out, for they are others each time."""
    if isinstance(file, int):
        file = os.readlink(f"/proc/self/fd/{file}")
    elif directory is not None:
        file = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), os.fspath(file))
    return "/".join(os.fspath(file).rstrip("/").split("/")[-2:])


def _half(name: str, args: tuple[t.Any, ...]) -> tuple[t.Any, ...]:
    """The arguments of a write, for half of what it writes."""
    if name in ("sendfile", "copy_file_range"):
        return args
    data = args[1] if isinstance(args[1], (bytes, bytearray, memoryview)) else b"".join(args[1])
    half = bytes(data)[: len(data) // 2]
    return (args[0], half if name in ("write", "pwrite") else [half], *args[2:])


# -- processes ----------------------------------------------------------------------------------------------------


class Ended(t.NamedTuple):
    """How a child ended: by the signal that was sent, with an answer, or with an exception that nobody expected."""

    killed: bool
    answer: t.Any
    traceback: str


def in_child(function: t.Callable[[], t.Any]) -> Ended:
    """Call a function in a process of its own, which may be changed, and killed, at will."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        gc.disable()  # it would look at all that is its parent's, and so make a copy of it
        os.close(reading)
        _answer(function, writing)
    os.close(writing)
    with open(reading, "rb") as source:
        text = source.read()
    _pid, status = os.waitpid(pid, 0)
    answer = json.loads(text) if text else {}
    return Ended(os.WIFSIGNALED(status), answer.get("answer"), answer.get("traceback", ""))


def _answer(function: t.Callable[[], t.Any], writing: int) -> t.NoReturn:
    """The child's whole life. It ends without what a process does at its end: that is its parent's."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = {"answer": function()}
    except BaseException:  # noqa: BLE001  # its parent tells of it
        answer = {"traceback": traceback.format_exc()}
    with contextlib.suppress(OSError):
        io.FileIO(writing, "w").write(json.dumps(answer).encode())
    os._exit(0)
