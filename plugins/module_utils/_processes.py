# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. All processes of a host, read once: the program of each, and the systemd unit whose control group has it."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from . import _elf, _process

if t.TYPE_CHECKING:
    from ._process import FileId
    from ._systemd import Unit

_DELETED = " (deleted)"
_INTERPRETERS = re.compile(
    r"(?:sh|bash|dash|ksh|zsh|busybox|python[\d.]*|pypy[\d.]*|perl[\d.]*|ruby[\d.]*|node|nodejs)"
)
_CONTAINER = re.compile(
    r"[-/][0-9a-f]{32,}(?:\.scope)?(?:/|$)"  # docker-ID.scope, docker/ID, libpod-ID.scope, cri-containerd-ID.scope
    r"|/kubepods|/lxc[./]|/machine-[^/]+\.scope|/payload(?:/|$)"
)
_MOST_BYTES = 1 << 16


class Group(t.NamedTuple):
    """What a control group says of its processes.

    ``unit``: the service of the system's manager, such as C(node_exporter.service); None for a session or a slice.
    ``user_unit``: the service of a user's manager, or that manager's own name; empty if it is of none.
    """

    unit: str | None
    user_unit: str
    contained: bool


class Process(t.NamedTuple):
    """One process.

    ``program``: the path of its executable as the kernel reports it, in the mount namespace of the process; empty if
    root may not read it. ``replaced``: there is another file, or none, at that path since. ``file``: the identity of
    the executable, also of one that was replaced. ``contained``: it is in a container, or in another machine.
    """

    pid: int
    parent: int
    program: str
    replaced: bool
    file: FileId | None
    argv: tuple[str, ...]
    unit: str | None
    user_unit: str
    contained: bool

    @property
    def hidden(self) -> bool:
        """Whether root may not see which program it runs, as in a container without CAP_SYS_PTRACE."""
        return not self.program

    @property
    def interpreted(self) -> bool:
        return bool(_INTERPRETERS.fullmatch(os.path.basename(self.program)))

    @property
    def path(self) -> str:
        """The program as its author knows it: the executable, the script that an interpreter runs, or, where the
        executable is hidden, the first word of the command line."""
        if self.hidden:
            return self.argv[0]
        return self.script or self.program

    @property
    def script(self) -> str:
        """The file that an interpreter runs; empty for a native program, and for C(sh -c)."""
        if not self.interpreted or "-c" in self.argv[1:3]:
            return ""
        return next((word for word in self.argv[1:4] if not word.startswith("-")), "")


def read() -> list[Process]:
    """All processes that have a command line, so no threads of the kernel, and none that has ended. A process that ends
    meanwhile is left out."""
    manager = _group_of("1")
    top = manager.removesuffix("/init.scope") if manager.endswith("/init.scope") else ""
    found = []
    for name in os.listdir(_process.PROC):
        if name.isdigit():
            process = _read(name, top)
            if process:
                found.append(process)
    return sorted(found)


def _read(name: str, top: str) -> Process | None:
    argv = _words(name)
    if not argv:
        return None
    status = _text(f"{name}/status")
    parent = re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)
    numbers = re.search(r"^NSpid:\s+(.*)", status, re.MULTILINE)  # one for each nested namespace of pids
    group = group_of(_group_of(name), top)
    program, file = _executable(int(name))
    return Process(
        pid=int(name),
        parent=int(parent.group(1)) if parent else 0,
        program=program.removesuffix(_DELETED),
        replaced=program.endswith(_DELETED),
        file=file,
        argv=argv,
        unit=group.unit,
        user_unit=group.user_unit,
        contained=group.contained or bool(numbers and len(numbers.group(1).split()) > 1),
    )


def _text(name: str) -> str:
    """A file below /proc; empty if it can't be read."""
    with contextlib.suppress(OSError), open(f"{_process.PROC}/{name}", "rb") as source:
        return source.read(_MOST_BYTES).decode("utf-8", "surrogateescape")
    return ""


def _words(name: str) -> tuple[str, ...]:
    text = _text(f"{name}/cmdline")
    return tuple(text.removesuffix("\0").split("\0")) if text.strip("\0") else ()


def _executable(pid: int) -> tuple[str, FileId | None]:
    path = _process.told_executable(pid) or ""
    return path, _process.file_id(_process.executable(pid)) if path else None


def _group_of(name: str) -> str:
    """The control group in systemd's own hierarchy: C(0::) where there is only one, else C(name=systemd)."""
    text = _text(f"{name}/cgroup")
    lines = dict(line.split(":", 2)[1:] for line in text.splitlines() if line.count(":") >= 2)
    return lines.get("name=systemd") or lines.get("", "")


def group_of(path: str, top: str = "") -> Group:
    """What the path of a control group says, as systemd builds it (sd_pid_get_unit(3)): slices, then one unit.

    :param top: the control group below which the host's systemd has all of its own. A host can be a container itself.
    """
    path = path.removeprefix(top)
    contained = bool(_CONTAINER.search(path))
    words = [word.removeprefix("_") for word in path.split("/") if word and not word.endswith(".slice")]
    unit = words[0] if words else ""
    if unit.startswith("user@") and unit.endswith(".service"):
        inner = words[1] if len(words) > 1 else ""
        return Group(None, inner if inner.endswith(".service") else unit, contained)
    return Group(unit if unit.endswith(".service") else None, "", contained)


def of_program(unit: Unit, path: str) -> int:
    """The process of a unit that runs the file at a path now: its main process, or what that has started, where it is a
    shell or another starter. 0 if none does.

    :param path: of the program.
    """
    if not unit.main_pid or _process.runs_file(unit.main_pid, path):
        return unit.main_pid
    file = _process.file_id(path)
    started = (each for each in _beside_main(unit) if (each.path == path if each.hidden else each.file == file))
    return next((each.pid for each in started if _process.runs_file(each.pid, path)), 0)


def of_component(unit: Unit, path: str) -> int:
    """The process of a unit that runs a program, be it the file at its path now or the one that was there before; the
    main process where none does, and 0 where the unit doesn't run.

    :param path: of the program.
    """
    names = {path, os.path.realpath(path)}
    before = (each.pid for each in _beside_main(unit) if each.path in names) if unit.main_pid else iter(())
    return of_program(unit, path) or next(before, unit.main_pid)


def arguments(unit: Unit, names: t.Collection[str]) -> list[str]:
    """The command line of the component's process, where the unit starts that by a shell, start-stop-daemon or another
    starter; empty if the unit starts the program itself, or nothing of it runs.

    :param names: of the program. Under another name it is known if it is the only program that runs in the unit.
    """
    if not unit.programs or (not _process.is_starter(unit.programs[0]) and not _is_script(unit.programs[0])):
        return []
    inside = [each for each in read() if each.unit == unit.name or each.pid == (unit.main_pid or None)]
    native = [
        each
        for each in inside
        if not (each.interpreted or each.contained or each.hidden or _process.is_starter(each.program))
    ]
    named = [each for each in native if os.path.basename(each.path) in names]
    chosen = named or (native if len(native) == 1 else [])
    return list(chosen[0].argv) if chosen else []


def _is_script(path: str) -> bool:
    return _elf.header_of(path) is None


def _beside_main(unit: Unit) -> list[Process]:
    return [each for each in read() if each.unit == unit.name and each.pid != unit.main_pid and not each.contained]


def listening(port: int, processes: t.Iterable[Process]) -> Process | None:
    """The process that has a socket which listens at a TCP port; None if there is none, or it can't be seen."""
    inodes = _listening_at(port)
    return next((each for each in processes if inodes and inodes & _sockets(each.pid)), None)


def has_listener(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens at a TCP port."""
    return bool(_listening_at(port) & _sockets(pid))


def _listening_at(port: int) -> set[str]:
    rows = (line.split() for name in ("tcp", "tcp6") for line in _text(f"net/{name}").splitlines())
    return {
        f"socket:[{row[9]}]"
        for row in rows
        if len(row) > 9 and row[3] == _process.LISTENS and int(row[1].rpartition(":")[2], 16) == port
    }


def _sockets(pid: int) -> set[str]:
    found, directory = set(), f"{_process.PROC}/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"{directory}/{name}"))
    return found
