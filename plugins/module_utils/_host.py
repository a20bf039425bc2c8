# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Reads what a host and its services are before anything is done to them, for the checks of C(_preflight)."""

from __future__ import annotations

import calendar
import contextlib
import grp
import ipaddress
import os
import pwd
import re
import socket
import stat
import sys
import time
import typing as t
import urllib.parse

from . import (
    _argv,
    _elf,
    _files,
    _guard,
    _health,
    _http,
    _lease,
    _loaded_unit,
    _netns,
    _output,
    _packages,
    _preflight,
    _process,
    _processes,
    _restore_point,
    _scene,
    _sockets,
    _state,
    _store,
    _systemd,
    _targets,
    _unit_disk,
    _web,
)
from ._obstacles import NewerFile
from ._preflight import Facts, Listener, Place, Service, UnsafePath

if t.TYPE_CHECKING:
    from ._command import Run
    from ._systemd import Unit

    Data = dict[str, t.Any]

HEALTH_TIMEOUT = 3.0
URL_TIMEOUT = 10.0
_MORE = ("StartLimitBurst", "StartLimitIntervalUSec", *_unit_disk.PROPERTIES)
_LISTENS = "0A"
_RELOADED = re.compile(r"^\w*config_last_reload_success_timestamp_seconds(?:\{[^}\n]*\})? ([0-9.e+]+)$", re.MULTILINE)
"""How Prometheus, Alertmanager, the blackbox exporter and their kin tell when they last loaded their configuration."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Request(t.NamedTuple):
    """What is to be done to a host.

    :ivar sizes: bytes of archives, by the key of their step.
    :ivar urls: what the host must be able to fetch.
    :ivar temporary: the directory in which Ansible's own files arrive.
    :ivar passing: candidates are run in the temporary directory: check mode.
    :ivar watchdog: the steps arm the rollback watchdog.
    :ivar writing: whether it is tried to write into the state directory; nowhere else is, not even for a moment.
    """

    steps: list[Data]
    state_dir: str
    temporary: str
    sizes: t.Mapping[str, int]
    urls: t.Sequence[str] = ()
    run: Data | None = None
    passing: bool = False
    watchdog: bool = False
    writing: bool = True


def read(run: Run, request: Request, *, open_url: t.Callable[..., t.Any], clock: t.Callable[[], float]) -> Facts:
    """All that is checked of a host.

    :param open_url: that of C(ansible.module_utils.urls).
    :param clock: seconds since the epoch.
    :raises UpgradeError: where there is no systemd, or the record can't be read.
    """
    steps, state_dir = request.steps, request.state_dir
    document = _store.read_document(state_dir)
    measured = {path: _files.bytes_below(path) for step in steps for path in _preflight.kept(step)}
    needs = _preflight.needs(
        steps, request.sizes, measured, state_dir=state_dir, temporary=request.temporary, fetches=bool(request.urls)
    )
    executed_in = request.temporary if request.passing else state_dir
    directories = sorted({os.path.dirname(path) for step in steps for path in _preflight.places_of(step)})
    directories += [_guard.UNITS] if request.watchdog and steps else []
    own = [state_dir, os.path.join(state_dir, "backups")]
    replaced = {path: step["component"] for step in steps for path in _preflight.replaced(step)}
    now = clock()
    return Facts(
        services=tuple(services(run, steps, document.data["components"])),
        needs=tuple(needs),
        places=places([*(need.path for need in needs), executed_in]),
        unwritable={**unwritable(own, passing=not request.writing), **unwritable(directories, passing=True)},
        executed_in=executed_in,
        memory=_kilobytes(f"{_process.PROC}/meminfo", "MemAvailable"),
        kernel=os.uname().machine,
        now=(time.gmtime(now).tm_year, now),
        newest=newest(document.data),
        synchronised=synchronised(run),
        holder=holder(state_dir, request.run or {}),
        unreachable=unreachable(request.urls, open_url=open_url, now=now),
        unsafe_paths=tuple(unsafe_paths(path for step in steps for path in _preflight.replaced(step))),
        targets=tuple(_targets.read(run, steps, replaced)),
        selinux=_files.read_text("/sys/fs/selinux/enforce").strip() == "1",
    )


# -- the host -----------------------------------------------------------------------------------------------------


def places(paths: t.Iterable[str]) -> dict[str, Place]:
    """The file system of each path or, where it isn't there yet, of what it will be made in."""
    found = {}
    for path in set(filter(None, paths)):
        with contextlib.suppress(OSError):
            found[path] = _place(existing(path))
    return found


def existing(path: str) -> str:
    """The path, or the nearest directory above it that is there."""
    while not os.path.exists(path) and path not in ("", "/"):
        path = os.path.dirname(path)
    return path or "/"


def _place(path: str) -> Place:
    status, device = os.statvfs(path), os.stat(path).st_dev
    mount = os.path.realpath(path)
    while mount != "/" and os.stat(os.path.dirname(mount)).st_dev == device:
        mount = os.path.dirname(mount)
    return Place(
        device=device,
        mount=mount,
        free=status.f_bavail * status.f_frsize,
        inodes=status.f_favail if status.f_files else None,
        noexec=bool(status.f_flag & os.ST_NOEXEC),
    )


def unsafe_paths(paths: t.Iterable[str]) -> t.Iterator[UnsafePath]:
    """The directories on the way to files that users other than root can write: the first of each way."""
    found: dict[_files.Unsafe, list[str]] = {}
    for path in dict.fromkeys(paths):
        unsafe = _files.unsafe_directory(path)
        if unsafe:
            found.setdefault(unsafe, []).append(path)
    for unsafe, below in found.items():
        owner = f"owner {_name(pwd.getpwuid, unsafe.uid)}"
        if unsafe.mode & stat.S_IWGRP:
            owner += f", group {_name(grp.getgrgid, unsafe.gid)}"
        yield UnsafePath(unsafe.path, owner, unsafe.mode, unsafe.uid == 0, tuple(below))


def _name(look_up: t.Callable[[int], t.Any], number: int) -> str:
    """A user or a group with its name, if it has one."""
    try:
        return f"{look_up(number)[0]} ({number})"
    except KeyError:
        return str(number)


def unwritable(directories: t.Iterable[str], *, passing: bool) -> dict[str, str]:
    """Why directories can't be written to, of those that can't. It is really tried, unless it is only passing by.

    For one that isn't there yet, that which it will be made in is asked.
    """
    found: dict[str, str] = {}
    for directory in directories:
        there = existing(directory)
        try:
            if passing or there != directory or not os.path.isdir(there):
                if not os.access(there, os.W_OK):
                    read_only = os.statvfs(there).f_flag & os.ST_RDONLY
                    why = "its file system is mounted read-only" if read_only else "this user is not allowed to"
                    found.setdefault(there, why)
            else:
                _write(directory)
        except OSError as exc:
            found[directory] = exc.strerror or str(exc)
    return found


def _write(directory: str) -> None:
    with _files.located(os.path.join(directory, ".upgrade-preflight")) as place:
        try:
            with place.created(0o600) as descriptor:
                _files.write_all(descriptor, bytes(4096))
                os.fsync(descriptor)
        finally:
            place.remove()


def newest(data: t.Any) -> tuple[str, float] | None:
    """The newest time in a record, as it is told there and in seconds since the epoch."""
    found = max(_times(data), default=None)
    return (found, _seconds(found)) if found else None


def _times(data: t.Any) -> t.Iterator[str]:
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        for one in data:
            yield from _times(one)
    elif isinstance(data, str) and _TIME.fullmatch(data):
        with contextlib.suppress(ValueError):
            _seconds(data)
            yield data


def _seconds(told: str) -> float:
    return float(calendar.timegm(time.strptime(told, "%Y-%m-%dT%H:%M:%SZ")))


def synchronised(run: Run) -> bool | None:
    """Whether systemd says that the clock follows a time server; None if it doesn't say."""
    done = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"], timeout=10)
    return {"yes": True, "no": False}.get(done.out.strip()) if done.rc == 0 else None


def holder(state_dir: str, run: Data) -> str:
    """The other run that has this host, as a text; empty if none has."""
    lease = _store.read_lease(state_dir)
    now = _store.present(lease)
    who = _lease.holder(lease, now=now, dead=run.get("dead") or ())
    return _lease.told(lease, now=now, held=True) if who not in (None, run.get("upgrade_id")) else ""


def unreachable(urls: t.Iterable[str], *, open_url: t.Callable[..., t.Any], now: float) -> dict[str, str]:
    """Why URLs can't be had, of those that can't; without passwords. A server that doesn't answer is asked once."""
    found: dict[str, str] = {}
    silent: dict[str, str] = {}
    for url in dict.fromkeys(urls):
        server = urllib.parse.urlsplit(url).netloc
        why = silent.get(server, "")
        if not why:
            try:
                with _web.opened(url, open_url=open_url, now=now, connect=URL_TIMEOUT):
                    continue
            except _web.TransferError as exc:
                why = exc.why or (f"it answers with status {exc.status}" if exc.status else str(exc))
                if exc.status is None:
                    silent[server] = why
        found[_argv.redact_url(url)] = _output.redact(why, _output.secrets_of([url]))
    return found


# -- services -----------------------------------------------------------------------------------------------------


def services(run: Run, steps: list[Data], records: Data) -> t.Iterator[Service]:
    """What each component of the steps is now. The first of its steps tells what it is."""
    first: dict[str, tuple[Data, str]] = {}
    for step in steps:
        for part in _preflight.parts(step):
            first.setdefault(part["component"], (part, step["component"]))
    chosen = [part for part, _of in first.values()]
    if not chosen:
        return
    units = _systemd.show(run, [step["unit"] for step in chosen], more=_MORE)
    directories = _systemd.unit_path(run)
    states = _health.wait(run, [now_target(step) for step in chosen], timeout=HEALTH_TIMEOUT, window=0)
    owned = _packages.owners(run, [step["binary"] for step in chosen])
    listening = _listening()
    for step, unit, health in zip(chosen, units, states):
        owner = first[step["component"]][1]
        record = records.get(owner) or {"state": "idle"}
        yield Service(
            component=step["component"],
            unit=unit.name,
            binary=step["binary"],
            url=step["target"]["url"],
            unsettled=_state.is_unsettled(record),
            unhealthy="" if health.healthy else health.reason if unit.is_loaded else "systemd doesn't know its unit",
            stopped=unit.is_loaded and unit.active == "inactive" and unit.result in ("", "success"),
            journal=tuple(health.journal),
            package=owned.get(step["binary"]),
            restart_only=not step.get("stage"),
            architectures=((step.get("stage") or {}).get("architecture") or "", _architecture(step["binary"])),
            another_program=_another_program(unit, step["binary"]) if step["component"] != owner else "",
            listeners=_listeners(listening, step["target"]["url"], unit) if step["target"]["url"] else None,
            change=_unit_disk.change_of(unit, directories),
            newer=(*_unread(unit, directories), *_newer_config(run, step, unit)),
            started_otherwise=_unit_disk.started_otherwise(unit),
            unwritten=tuple(filter(_restore_point.is_unwritten, (step.get("keep") or {}).get("state") or ())),
            restored_unit=next((path for path in unit.files() if os.path.basename(path) == _loaded_unit.DROP_IN), ""),
            cannot_start=tuple(_unit_disk.cannot_start(_unit_disk.reloaded(unit, directories))),
            **_of_unit(unit, step["binary"]),
        )


def now_target(step: Data) -> Data:
    """What must hold of a component before its step: all but which version it is, and which file its process runs."""
    target = step.get("from_target") or step["target"]
    probes = [probe for probe in target.get("probes") or [] if probe.get("kind") != "process"]
    return {**target, "version": None, "probes": probes or [{"kind": "systemd"}], "proofs": []}


def _unread(unit: Unit, directories: t.Sequence[str]) -> list[NewerFile]:
    """What was changed since the process started. Of a unit that systemd has not loaded anyway, that says no more."""
    newer = _unit_disk.newer_files(unit, directories)
    changed = _unit_disk.change_of(unit, directories) is not None
    return [one for one in newer if not (changed and one.what == "unit")]


def _newer_config(run: Run, step: Data, unit: Unit) -> t.Iterator[NewerFile]:
    """The configuration, where it was changed after the service last loaded it: by its own metric, or at its start."""
    config = ((step.get("stage") or {}).get("facts") or {}).get("config")
    if not config or not unit.main_pid or not _unit_disk.is_newer(config, _process.started(unit.main_pid)):
        return
    paths = [probe["path"] for probe in step["target"].get("probes") or [] if probe.get("kind") == "build_info"]
    body = _scene.Scene(run, step["target"], unit).get(paths[0]).body if paths and step["target"].get("url") else ""
    loaded = [float(found) for found in _RELOADED.findall(body)]
    if not loaded or _unit_disk.is_newer(config, max(loaded)):
        yield NewerFile("config", config)


def _of_unit(unit: Unit, binary: str) -> Data:
    pid, burst = _processes.of_component(unit, binary), unit.properties.get("StartLimitBurst", "")
    return {
        "restarts": unit.n_restarts,
        "result": unit.result,
        "start_limit": (int(burst), unit.properties.get("StartLimitIntervalUSec", "")) if burst.isdigit() else None,
        "stop_timeout": _systemd.stop_timeout(unit) if unit.properties.get("TimeoutStopUSec") else None,
        "rss": _kilobytes(f"{_process.PROC}/{pid}/status", "VmRSS") if pid else None,
        "restart_pending": bool(pid) and os.path.exists(binary) and not _process.runs_file(pid, binary),
    }


def _another_program(unit: Unit, binary: str) -> str:
    """The program of the unit's main process, if it is neither the binary, nor what was there before it, nor what
    starts other programs; empty also where it can't be seen."""
    running = (_process.told_executable(unit.main_pid) or "").removesuffix(" (deleted)") if unit.main_pid else ""
    directory, name = os.path.split(binary)
    places = {binary, os.path.realpath(binary), os.path.join(os.path.realpath(directory), name)}
    return "" if running in ("", *places) or _process.is_starter(running) else running


def _architecture(binary: str) -> str:
    """What a program is made for; empty for a script, or where there is none."""
    elf = _elf.read_elf(_files.read_start(binary, _elf.HEADER_BYTES))
    return _elf.architecture(elf, os.uname().machine) if elf else ""


# -- who listens --------------------------------------------------------------------------------------------------


class Socket(t.NamedTuple):
    """A TCP socket that listens, in the network namespace of this process."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    inode: str


def _listening() -> list[Socket] | None:
    """All that listens; None if it can't be seen."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in _files.read_text(f"{_process.PROC}/net/{name}").splitlines()
    ]
    if not lines:
        return None
    found = []
    for words in lines:
        if len(words) > 9 and words[3] == _LISTENS:
            address, _colon, port = words[1].partition(":")
            with contextlib.suppress(ValueError):
                found.append(Socket(_address(address), int(port, 16), words[9]))
    return found


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as /proc/net/tcp has it: words of the machine's own byte order."""
    words = [int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)]
    return ipaddress.ip_address(b"".join(words))


def _listeners(listening: list[Socket] | None, url: str, unit: Unit) -> tuple[Listener, ...] | None:
    """Who listens where a URL leads to; None if that can't be seen. What systemd holds for a unit is the unit's."""
    if _listens_apart(url, unit):
        return (Listener(unit.main_pid, _process.program_name(unit.main_pid), True),)
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    wanted = _resolved(parts.hostname or "")
    if listening is None:
        return None
    inodes = {one.inode for one in listening if one.port == port and _is_at(one, wanted)}
    pids = _holders(inodes)
    if inodes and not pids:  # in a container, root may not look into processes of others
        return None
    return tuple(Listener(pid, _process.program_name(pid), _is_own(pid, unit)) for pid in pids)


def _listens_apart(url: str, unit: Unit) -> bool:
    """Whether a URL is that of a unit's own socket which none but the unit can have: a Unix socket, or one in a network
    namespace of its own."""
    if _http.port_of(url) and _netns.name(unit.main_pid) in ("", _netns.name(_netns.OURS)):
        return False
    own = _sockets.of_unit(unit.name, unit.main_pid) or []
    return any(_http.leads_to(url, port=each.port, unix=each.unix) for each in own)


def _resolved(name: str) -> set[str]:
    """The addresses of a name; none if they can't be known."""
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def _is_at(one: Socket, wanted: set[str]) -> bool:
    mapped = getattr(one.address, "ipv4_mapped", None) or one.address
    return not wanted or mapped.is_unspecified or str(mapped) in wanted


def _holders(inodes: set[str]) -> list[int]:
    """The processes that have one of the sockets."""
    links, found = {f"socket:[{inode}]" for inode in inodes}, []
    for name in os.listdir(_process.PROC) if links else []:
        if name.isdigit():
            with contextlib.suppress(OSError):
                directory = f"{_process.PROC}/{name}/fd"
                if any(_link(f"{directory}/{number}") in links for number in os.listdir(directory)):
                    found.append(int(name))
    return sorted(found)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _is_own(pid: int, unit: Unit) -> bool:
    """Whether a process is of the unit's control group, or systemd itself, that holds a socket for it."""
    groups = [
        line.rpartition(":")[2].split("/") for line in _files.read_text(f"{_process.PROC}/{pid}/cgroup").splitlines()
    ]
    return pid in (1, unit.main_pid) or any(unit.name in group for group in groups)


# -- small files --------------------------------------------------------------------------------------------------


def _kilobytes(path: str, name: str) -> int | None:
    """Bytes of a line such as C(MemAvailable: 1234 kB)."""
    found = re.search(rf"^{name}:\s+(\d+) kB", _files.read_text(path), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None
