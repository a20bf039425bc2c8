# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What a process is, read from /proc: the only witness of which file really runs."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import typing as t

from . import _files

PROC = "/proc"
_STARTERS = re.compile(
    r"(?:sh|bash|dash|ksh|zsh|busybox|env|python[\d.]*|nice|ionice|taskset|numactl|chrt|setpriv|start-stop-daemon|runuser"
    r"|sudo|su|doas|gosu|su-exec|setuidgid|chpst|chroot|daemonize|daemon|nohup|setsid|stdbuf|timeout|flock|prlimit"
    r"|cgexec|ip|nsenter|unshare|bwrap|firejail|tini|dumb-init|catatonit|systemd-cat|systemd-run|logger)"
)
_CHUNK = 1 << 20
_MOST_ENVIRONMENT = 4 << 20
LISTENS = "0A"
"""State TCP_LISTEN in /proc/net/tcp."""
_TICK = 1 / os.sysconf("SC_CLK_TCK")


class FileId(t.NamedTuple):
    """A file's identity, whatever name it has now, or none."""

    device: int
    inode: int


def file_id(path: str) -> FileId | None:
    """Identity of the file that a path leads to; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return FileId(status.st_dev, status.st_ino)


def executable(pid: int) -> str:
    """A path that leads to the very file a process runs, even if it has been replaced or deleted since."""
    return f"{PROC}/{pid}/exe"


def told_executable(pid: int) -> str | None:
    """What the kernel calls the file that a process runs: its path, with C( (deleted)) after it if that isn't there any
    more; none if it can't be seen."""
    try:
        return os.readlink(executable(pid))
    except OSError:
        return None


@contextlib.contextmanager
def opened_executable(pid: int) -> t.Iterator[int | None]:
    """The file that a process runs, for reading, even if it has been replaced or deleted since; None if it can't be
    read. It is never run."""
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(executable(pid), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor if descriptor >= 0 and stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def executable_sha256(pid: int) -> str | None:
    """The sha256 of the file that a process runs; None if it can't be read."""
    with contextlib.suppress(OSError), opened_executable(pid) as descriptor:
        return None if descriptor is None else _files.sha256_of(descriptor, executable(pid))
    return None


@contextlib.contextmanager
def replaced_program(pid: int, path: str) -> t.Iterator[int | None]:
    """The program that a process runs, for reading, if it was at a path and was replaced there; otherwise None.

    In a user namespace of its own a process can pretend to any path, but not that a file is root's: there it must be.
    """
    with opened_executable(pid) as descriptor:
        yield descriptor if descriptor is not None and _was_at(descriptor, path, pid) else None


def _was_at(descriptor: int, path: str, pid: int) -> bool:
    status, name = os.fstat(descriptor), os.readlink(f"{PROC}/self/fd/{descriptor}")
    ours, its = file_id(f"{PROC}/self/ns/user"), file_id(f"{PROC}/{pid}/ns/user")
    is_told_truly = status.st_uid in (0, os.geteuid()) or (ours is not None and ours == its)
    return is_told_truly and name in (f"{path} (deleted)", f"{os.path.realpath(path)} (deleted)")


def is_starter(program: str) -> bool:
    """Whether a program starts another, and so tells nothing of that: a shell, or a tool that changes how it runs."""
    return bool(_STARTERS.fullmatch(os.path.basename(program)))


def program_name(pid: int) -> str:
    """The name, without directory, of the file that a process runs; empty if it can't be seen."""
    return os.path.basename(told_executable(pid) or "").removesuffix(" (deleted)")


def runs_file(pid: int, path: str) -> bool:
    """Whether a process runs the file that is at the path now.

    It does if its executable is that very file. Where that can't be seen (a script's process runs an interpreter; in a
    container root may not look into processes of others), it does if it was started from that path, and not before the
    file came there: a rename sets a file's ctime, and nobody can set it back. That is exact to a tick only, so it
    decides nothing where the executable is seen: a script's path never is its process's first word, that of a program
    is.
    """
    there, running = file_id(path), file_id(executable(pid))
    if there is None or running == there:
        return there is not None
    words = command_line(pid)[:3] if running is None else command_line(pid)[1:3]
    return path in words and started(pid) + _TICK >= os.stat(path).st_ctime


def command_line(pid: int) -> list[str]:
    """The process's arguments, exactly; empty if it is gone."""
    try:
        with open(f"{PROC}/{pid}/cmdline", "rb") as source:
            return source.read().decode("utf-8", "surrogateescape").split("\0")[:-1]
    except OSError:
        return []


def environment(pid: int) -> dict[str, str]:
    """The variables that a process was started with; empty if they can't be read. Their values may be secrets."""
    try:
        with open(f"{PROC}/{pid}/environ", "rb") as source:
            words = source.read(_MOST_ENVIRONMENT).decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return {}
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def directory(pid: int) -> str | None:
    """The working directory of a process, as the kernel calls it; none if it can't be seen or is gone."""
    try:
        told = os.readlink(f"{PROC}/{pid}/cwd")
    except OSError:
        return None
    return told if told.startswith("/") and not told.endswith(" (deleted)") else None


def effective_user(pid: int) -> int | None:
    """The user whose rights a process has; none if it is gone."""
    found = re.search(r"^Uid:\s+\d+\s+(\d+)", _files.read_text(f"{PROC}/{pid}/status"), re.MULTILINE)
    return int(found.group(1)) if found else None


def listeners() -> dict[int, set[int]]:
    """The users whose sockets listen at each TCP port of this host's network; empty if that can't be seen. The kernel
    lists sockets that listen first (proc_net_tcp in its documentation)."""
    found: dict[int, set[int]] = {}
    for name in ("tcp", "tcp6"):
        for line in _files.read_text(f"{PROC}/net/{name}").splitlines():
            words = line.split()
            if len(words) > 9 and words[3] == LISTENS:
                found.setdefault(int(words[1].rpartition(":")[2], 16), set()).add(int(words[7]))
    return found


def started(pid: int) -> float:
    """When a process started, in seconds since the epoch, by the clock as it is set now; 0 if it is gone. It is for
    comparison with the times of files alone: C(identity) names a process."""
    try:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot(pid)
    except (OSError, ValueError, IndexError):
        return 0.0


def since_boot(pid: int) -> float:
    """When a process started, in seconds after the kernel."""
    return start_ticks(pid) * _TICK


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc(5)): when the process started, in ticks after the kernel."""
    with open(f"{PROC}/{pid}/stat", encoding="utf-8", errors="replace") as source:
        return int(source.read().rpartition(")")[2].split()[19])


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used, fields 14 and 15 of /proc/PID/stat (proc(5)), in seconds."""
    with open(f"{PROC}/{pid}/stat", encoding="utf-8", errors="replace") as source:
        user, system = source.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) * _TICK


def uptime() -> float:
    """Seconds since the kernel started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identity(pid: int) -> dict[str, t.Any]:
    """What tells a process from all others, also from a later one with its number: C(pid), C(start_ticks), C(boot).

    :raises OSError: if there is no such process.
    """
    with open(f"{PROC}/sys/kernel/random/boot_id", encoding="utf-8") as source:
        boot = source.read().strip()
    return {"pid": pid, "start_ticks": start_ticks(pid), "boot": boot}


def is_alive(told: dict[str, t.Any]) -> bool:
    """Whether the very process runs that C(identity) told of. One that nobody could tell, C(pid) 0, may."""
    if not told.get("pid"):
        return True
    try:
        now = identity(told["pid"])
        return all(now[key] == told.get(key) for key in now) and not _is_dead(told["pid"])
    except (OSError, ValueError, IndexError):
        return False


def _is_dead(pid: int) -> bool:
    """Whether a process has ended, and only its parent hasn't heard of it yet."""
    with open(f"{PROC}/{pid}/stat", encoding="utf-8", errors="replace") as source:
        return source.read().rpartition(")")[2].split()[0] in "ZX"
