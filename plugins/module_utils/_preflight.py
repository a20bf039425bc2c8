# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What may stand in the way of a host's steps: a table of checks, each a short function from facts to
findings. What couldn't be read makes no finding."""

from __future__ import annotations

import typing as t

from . import _obstacles
from ._obstacles import BLOCKER, INFO, WARNING, NewerFile, Target, UnitChange, finding
from ._probes import ELSEWHERE, WANTS_CERTIFICATE
from ._state import is_accepted

if t.TYPE_CHECKING:
    from ._unit_changes import Difference

    Data = dict[str, t.Any]
    Measured = t.Mapping[str, int]

HEADROOM = 1.2
"""How much more space there must be than is counted."""

CANDIDATE_PER_ARCHIVE = 4
CANDIDATE_PER_FILE = 2
"""What a candidate takes when it is unpacked, as a multiple of its archive or, where that isn't known, of the files in
place."""

OLDEST_YEAR = 2024
CLOCK_TOLERANCE = 60.0
"""Seconds by which the clock may be behind the newest record: one may have been set right meanwhile."""

SLOW_STOP = 180.0
"""Seconds from which on it is worth knowing how long a unit may take to stop."""

_FILES_PER_NEED = 16
_INODES_LEFT = 64

# What programs a kernel (uname -m) runs, as releases name architectures.
_RUNS = {
    "x86_64": ("amd64", "386"),
    "i686": ("386",),
    "i586": ("386",),
    "aarch64": ("arm64", "armv7", "armv6", "armv5"),
    "armv8l": ("armv7", "armv6", "armv5"),
    "armv7l": ("armv7", "armv6", "armv5"),
    "armv6l": ("armv6", "armv5"),
    "ppc64le": ("ppc64le",),
    "ppc64": ("ppc64",),
    "s390x": ("s390x",),
    "riscv64": ("riscv64",),
}


class Need(t.NamedTuple):
    """Bytes that the steps take below a directory, and what for."""

    path: str
    size: int
    what: str


class Place(t.NamedTuple):
    """The file system of a directory. ``inodes`` are those that are free; None where it doesn't count them."""

    device: int
    mount: str
    free: int
    inodes: int | None
    noexec: bool


class Listener(t.NamedTuple):
    """Who listens where a service should. ``own`` is whether it belongs to the service's unit."""

    pid: int
    program: str
    own: bool


class Service(t.NamedTuple):
    """A component of the steps as it is now. What isn't known is None, or empty.

    :ivar unsettled: an earlier attempt was cut off after it had touched the component: the steps settle that.
    :ivar unhealthy: why it isn't healthy; empty if it is.
    :ivar stopped: its unit was stopped, or never started, and didn't fail.
    :ivar rss: bytes of memory that its main process has.
    :ivar another_program: what the main process of its unit runs, where that isn't the component's program at all, so
        that a restart of the unit would be one of another service; only looked at where the unit shares the file.
    :ivar restart_only: there is nothing to put in place for it, only a restart to catch up with.
    :ivar architectures: what the release is made for, and what the program in place is made for.
    :ivar change: how its unit's files differ from what systemd has loaded.
    :ivar newer: files that its process has not read as they are now.
    :ivar started_otherwise: in what it was started otherwise than its unit, which is newer, starts it.
    :ivar cannot_start: why systemd could not start it again.
    :ivar unwritten: state that it has not written yet.
    :ivar restored_unit: the drop-in by which its unit is as it was before an upgrade that was undone.
    """

    component: str
    unit: str
    binary: str
    url: str
    unsettled: bool = False
    unhealthy: str = ""
    stopped: bool = False
    journal: tuple[str, ...] = ()
    restarts: int = 0
    result: str = ""
    start_limit: tuple[int, str] | None = None
    stop_timeout: float | None = None
    rss: int | None = None
    package: t.Mapping[str, str] | None = None
    restart_pending: bool = False
    restart_only: bool = False
    another_program: str = ""
    architectures: tuple[str, str] = ("", "")
    listeners: tuple[Listener, ...] | None = None
    change: UnitChange | None = None
    newer: tuple[NewerFile, ...] = ()
    started_otherwise: tuple[Difference, ...] = ()
    cannot_start: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    restored_unit: str = ""


class UnsafePath(t.NamedTuple):
    """A directory on the way to files that are replaced, which a user other than root can write.

    :ivar owner: its owner, and the group if that can write it, as a text.
    :ivar is_roots: its owner is root: others can write it by its mode, or an ACL.
    """

    directory: str
    owner: str
    mode: int
    is_roots: bool
    paths: tuple[str, ...]


class Facts(t.NamedTuple):
    """A host and its services before the steps. What isn't known is None, or empty.

    :ivar places: by path, of each that is needed.
    :ivar unwritable: why, by directory.
    :ivar executed_in: the directory in which candidates are run.
    :ivar now: year, and seconds since the epoch.
    :ivar newest: the newest record, as it tells its time, and in seconds since the epoch.
    :ivar holder: the other run that has this host.
    :ivar unreachable: why, by URL.
    :ivar unsafe_paths: directories that users other than root can write, on the way to what is replaced.
    :ivar targets: the files that are replaced.
    """

    services: tuple[Service, ...] = ()
    needs: tuple[Need, ...] = ()
    places: t.Mapping[str, Place] = {}
    unwritable: t.Mapping[str, str] = {}
    executed_in: str = ""
    memory: int | None = None
    kernel: str = ""
    now: tuple[int, float] | None = None
    newest: tuple[str, float] | None = None
    synchronised: bool | None = None
    holder: str = ""
    unreachable: t.Mapping[str, str] = {}
    unsafe_paths: tuple[UnsafePath, ...] = ()
    targets: tuple[Target, ...] = ()
    selinux: bool = False


def findings(facts: Facts, accept: t.Collection[str] = ()) -> list[Data]:
    """What all checks find, the host's first. A blocker whose key is accepted is none any more."""
    found = [one for check in HOST_CHECKS for one in check(facts)]
    found += [one for service in facts.services for look in SERVICE_CHECKS for one in look(service)]
    return [
        {**one, "severity": "accepted"}
        if one["severity"] == BLOCKER and is_accepted(one["key"], one["component"], accept)
        else one
        for one in found
    ]


def blockers(found: t.Sequence[Data]) -> list[Data]:
    return [one for one in found if one["severity"] == BLOCKER]


def refusal(found: t.Sequence[Data]) -> str:
    """All blockers in one line, each with what to do."""
    return "; ".join(f"{one['key']}: {one['message']} (to do: {one['fix']})" for one in blockers(found))


# -- what the steps take ------------------------------------------------------------------------------------------


def kept(step: Data) -> list[str]:
    """What a restore point keeps of a step: its programs, and what else the plan says."""
    keep = step.get("keep") or {}
    return [*places_of(step), *(path for paths in keep.values() for path in paths or [])]


def parts(step: Data) -> list[Data]:
    """The services of a step: the component, and the other units that run its file, each with the fields of a step."""
    shared = [
        {
            **step,
            "component": other["target"]["component"],
            "unit": other["target"]["unit"],
            "binary": other["target"]["binary"],
            "target": other["target"],
            "from_target": other["from_target"],
        }
        for other in step.get("shared") or []
    ]
    return [step, *shared]


def places_of(step: Data) -> list[str]:
    """Where a step's files go."""
    return [file["dest"] for file in step.get("files") or []]


def replaced(step: Data) -> list[str]:
    """What a step replaces, and its undoing puts back: its programs, and what else its kinds say."""
    keep = step.get("keep") or {}
    return [*places_of(step), *(path for kind in step.get("kinds") or [] for path in keep.get(kind) or [])]


def needs(
    steps: t.Sequence[Data], sizes: Measured, measured: Measured, *, state_dir: str, temporary: str, fetches: bool
) -> list[Need]:
    """What the steps take, and where.

    The steps of a host follow each other, and each takes its candidate away: the largest counts. Restore points stay,
    so all of them count.

    :param sizes: bytes of the archives, by the keys of the steps, as far as they are known.
    :param measured: bytes of what is in place, by path.
    :param temporary: where an archive arrives that is sent to the host.
    :param fetches: the host fetches archives by itself; they arrive in the state directory then.
    """
    largest: dict[tuple[str, str], Need] = {}
    total = 0
    for step in steps:
        total += sum(measured.get(path, 0) for path in kept(step))
        for need in _of_candidate(step, sizes, measured, state_dir, state_dir if fetches else temporary):
            kind = (need.path, need.what.partition(" of ")[0])
            largest[kind] = max(largest.get(kind, need), need, key=lambda one: one.size)
    return [*largest.values(), Need(state_dir, total, "restore points")] if steps else []


def _of_candidate(step: Data, sizes: Measured, measured: Measured, state_dir: str, arrives_in: str) -> t.Iterator[Need]:
    """What one release takes: its archive, its files unpacked, and these again beside those in place."""
    if not step.get("stage"):
        return
    paths = places_of(step)
    in_place = sum(measured.get(path, 0) for path in paths)
    archive = sizes.get(step["key"]) or 0
    candidate = CANDIDATE_PER_ARCHIVE * archive or CANDIDATE_PER_FILE * in_place
    yield Need(arrives_in, archive or candidate // CANDIDATE_PER_ARCHIVE, f"the archive of {step['key']}")
    yield Need(state_dir, candidate, f"the candidate of {step['key']}")
    for directory in sorted({_directory(path) for path in paths}):
        here = sum(measured.get(path, 0) for path in paths if _directory(path) == directory)
        share = candidate * here // in_place if in_place else candidate
        yield Need(directory, share, f"the new files of {step['key']}")


def _directory(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _by_file_system(facts: Facts) -> dict[int, tuple[Place, list[Need]]]:
    found: dict[int, tuple[Place, list[Need]]] = {}
    for need in facts.needs:
        place = facts.places.get(need.path)
        if place:
            known, needed = found.get(place.device, (place, []))
            # A quota of a directory is told as the size of its file system: the least that is free counts.
            found[place.device] = (min(known, place, key=lambda one: one.free), [*needed, need])
    return found


def budget(facts: Facts) -> list[Data]:
    """Bytes that are free and that are needed, of each file system that the steps write to."""
    return [
        {"mount": place.mount, "free": place.free, "needed": int(HEADROOM * sum(need.size for need in needed))}
        for place, needed in _by_file_system(facts).values()
    ]


def shown(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


# -- checks of the host -------------------------------------------------------------------------------------------


def _space(facts: Facts) -> list[Data]:
    found = []
    for row, (place, needed) in zip(budget(facts), _by_file_system(facts).values()):
        if row["needed"] <= place.free:
            continue
        parts = [f"{shown(need.size)} for {need.what} in {need.path}" for need in needed if need.size]
        message = (
            f"the file system at {place.mount} has {shown(place.free)} free, but {shown(row['needed'])} are needed: "
            f"{', '.join(parts)}, and a fifth more"
        )
        fix = f"free {shown(row['needed'] - place.free)} at {place.mount}, or keep fewer restore points"
        found.append(finding("space", BLOCKER, message, fix, **row, parts=parts))
    return found


def _inodes(facts: Facts) -> list[Data]:
    return [
        finding(
            "inodes",
            BLOCKER,
            f"the file system at {place.mount} has room for {place.inodes} more files only",
            f"remove files that nobody needs at {place.mount}",
            mount=place.mount,
            free=place.inodes,
        )
        for place, needed in _by_file_system(facts).values()
        if place.inodes is not None and place.inodes < _INODES_LEFT + _FILES_PER_NEED * len(needed)
    ]


def _writable(facts: Facts) -> list[Data]:
    return [
        finding(
            "not_writable",
            BLOCKER,
            f"{directory} can't be written to: {why}",
            "mount its file system read-write, or see to its attributes and to the disk",
            path=directory,
            reason=why,
        )
        for directory, why in sorted(facts.unwritable.items())
    ]


def _unsafe_path(facts: Facts) -> list[Data]:
    found = []
    for unsafe in facts.unsafe_paths:
        message = (
            f"a user other than root can write {unsafe.directory} ({unsafe.owner}, mode {unsafe.mode:04o}), and so put "
            f"another file or link in the place of {', '.join(unsafe.paths)} while root replaces it"
        )
        command = f"chmod go-w {unsafe.directory}"
        fix = command if unsafe.is_roots else f"chown root:root {unsafe.directory} && {command}"
        evidence = {"directory": unsafe.directory, "owner": unsafe.owner, "mode": f"{unsafe.mode:04o}"}
        found.append(finding("unsafe_path", BLOCKER, message, fix, **evidence, paths=list(unsafe.paths)))
    return found


def _noexec(facts: Facts) -> list[Data]:
    place = facts.places.get(facts.executed_in)
    if place is None or not place.noexec:
        return []
    message = f"{place.mount} is mounted noexec: no candidate can be proven in {facts.executed_in}"
    fix = f"mount {place.mount} with exec, or choose another directory (upgrade_state_dir; in check mode, remote_tmp)"
    return [finding("noexec", BLOCKER, message, fix, path=facts.executed_in, mount=place.mount)]


def _clock(facts: Facts) -> list[Data]:
    if facts.now is None:
        return []
    year, seconds = facts.now
    fix = "set the clock, and let it be kept right (timedatectl set-ntp true)"
    if year < OLDEST_YEAR:
        return [finding("clock", BLOCKER, f"the clock of this host is in the year {year}", fix, year=year)]
    if facts.newest and seconds + CLOCK_TOLERANCE < facts.newest[1]:
        message = f"the clock of this host is before the newest entry of its record, {facts.newest[0]}"
        return [finding("clock", BLOCKER, message, fix, newest=facts.newest[0])]
    return []


def _synchronised(facts: Facts) -> list[Data]:
    if facts.synchronised is not False:
        return []
    message = "the clock of this host isn't synchronised, so times in records and metrics may be wrong"
    return [
        finding(
            "clock_not_synchronised", WARNING, message, "timedatectl set-ntp true, or start chrony", synchronised=False
        )
    ]


def _free(facts: Facts) -> list[Data]:
    if not facts.holder:
        return []
    fix = "wait for it to end; if it is dead, run the playbook unlock"
    return [finding("locked", BLOCKER, f"this host is held by {facts.holder}", fix, holder=facts.holder)]


def _reachable(facts: Facts) -> list[Data]:
    return [
        finding(
            "unreachable",
            BLOCKER,
            f"{url} can't be had from this host: {why}",
            "let the host reach it, or let the controller fetch (upgrade_fetch: controller)",
            url=url,
            reason=why,
        )
        for url, why in facts.unreachable.items()
    ]


def _selinux(facts: Facts) -> list[Data]:
    message = "SELinux is enforcing; new files take over the contexts of those that they replace"
    return [finding("selinux", INFO, message, "nothing; after a refusal see ausearch -m avc")] if facts.selinux else []


def _memory(facts: Facts) -> list[Data]:
    found = []
    for service in facts.services:
        if service.rss is None or facts.memory is None or service.rss <= facts.memory:
            continue
        message = (
            f"{service.component} has {shown(service.rss)} of memory, and {shown(facts.memory)} are available: a "
            "second one beside it, or one that needs more while it starts, wouldn't fit"
        )
        fix = "free memory, or don't rehearse (upgrade_rehearse: false)"
        evidence = {"rss": service.rss, "available": facts.memory}
        found.append(finding("memory", WARNING, message, fix, component=service.component, **evidence))
    return found


def _architecture(facts: Facts) -> list[Data]:
    found = []
    for service in facts.services:
        name, (wanted, there) = service.component, service.architectures
        evidence = {"release": wanted, "in_place": there, "kernel": facts.kernel}
        if wanted and wanted not in _RUNS.get(facts.kernel, (wanted,)):
            message = f"the release of {name} is made for {wanted}, which this kernel ({facts.kernel}) doesn't run"
            fix = "plan this host anew: it was planned for another machine"
            found.append(finding("architecture", BLOCKER, message, fix, component=name, **evidence))
        elif wanted and there and wanted != there:
            message = f"{service.binary} is made for {there}, and its release for {wanted}"
            fix = "see that what it is linked with is there for both"
            found.append(finding("architecture", WARNING, message, fix, component=name, **evidence))
    return found


# -- checks of a service ------------------------------------------------------------------------------------------


def _healthy(service: Service) -> list[Data]:
    """A service that is broken already: after an upgrade nobody could tell what broke it."""
    if not service.unhealthy:
        return []
    severity = INFO if service.unsettled else BLOCKER
    evidence = {"reason": service.unhealthy, "journal": list(service.journal)}
    if service.stopped:
        message = f"{service.unit} is stopped: after an upgrade nobody could tell what broke it"
        fix = f"start it, leave {service.component} out, or accept {service.component}.not_running"
        return [finding("not_running", severity, message, fix, component=service.component, **evidence)]
    message = f"{service.component} isn't healthy before anything was done to it: {service.unhealthy}"
    fix = "the steps settle what an earlier run left" if service.unsettled else _where_to_look(service)
    return [finding("unhealthy", severity, message, fix, component=service.component, **evidence)]


def _where_to_look(service: Service) -> str:
    """What to do about an unhealthy service: the journal tells nothing where the question was wrong."""
    if ELSEWHERE in service.unhealthy:
        return "see which address its unit, its socket unit, its variables and its configuration name"
    if WANTS_CERTIFICATE in service.unhealthy:
        auth = "{auth: {client_cert: FILE, client_key: FILE}}"
        return f"set upgrade_overrides: {{{service.component}: {auth}}}, with files on the host"
    return f"see journalctl -u {service.unit}"


def _restarts(service: Service) -> list[Data]:
    if service.restarts <= 0:
        return []
    message = f"systemd had to restart {service.unit} by itself, {service.restarts} times since it was last started"
    fix = f"see why it ended: journalctl -u {service.unit}"
    return [finding("restarted", WARNING, message, fix, component=service.component, restarts=service.restarts)]


def _start_limit(service: Service) -> list[Data]:
    name, fix = service.component, "nothing: a restart here begins with reset-failed"
    if service.result == "start-limit-hit":
        message = f"{service.unit} was started too often in a short time, and systemd refuses to start it"
        return [finding("start_limit_hit", WARNING, message, fix, component=name, result=service.result)]
    burst, interval = service.start_limit or (0, "0")
    if burst != 1 or interval in ("0", ""):
        return []
    message = f"systemd starts {service.unit} only once within {interval}; a second start by hand would be refused"
    return [finding("start_limit", INFO, message, fix, component=name, burst=burst, interval=interval)]


def _stop_timeout(service: Service) -> list[Data]:
    if service.stop_timeout is None or service.stop_timeout < SLOW_STOP:
        return []
    message = f"{service.unit} may take up to {service.stop_timeout:.0f} s to stop (TimeoutStopSec)"
    fix = "nothing; a graceful restart waits that long"
    return [finding("slow_stop", INFO, message, fix, component=service.component, seconds=service.stop_timeout)]


def _package(service: Service) -> list[Data]:
    if not service.package:
        return []
    package = service.package
    command = {"apt": "apt-get install --only-upgrade", "dnf": "dnf upgrade"}.get(package["manager"], "upgrade")
    message = f"{service.binary} belongs to the package {package['name']}, which would overwrite it"
    fix = f"{command} {package['name']}"
    return [finding("package_owned", BLOCKER, message, fix, component=service.component, **package)]


def _restart_pending(service: Service) -> list[Data]:
    if not service.restart_pending:
        return []
    message = f"the process of {service.unit} doesn't run the file that is at {service.binary}: a restart was lost"
    severity, fix = WARNING, "know that the step leads from what runs, not from what is on disk"
    if service.restart_only:
        severity, fix = INFO, "nothing: the step restarts it"
    return [finding("restart_pending", severity, message, fix, component=service.component, binary=service.binary)]


def _another_program(service: Service) -> list[Data]:
    """A process that runs the shared file below a unit that is another service, such as that of a login."""
    if not service.another_program:
        return []
    name, unit = service.component, service.unit
    message = (
        f"{unit} is another service: its main process runs {service.another_program}, not {service.binary}. A process "
        "that somebody started there runs this file, and a restart of the unit would not restart it"
    )
    fix = f"stop that process, or run it by a unit of its own. Don't accept this: {unit} would be restarted"
    return [finding("another_service", BLOCKER, message, fix, component=name, program=service.another_program)]


def _port(service: Service) -> list[Data]:
    """Who has the service's port, if it isn't the service. One that is stopped frees a port that others may take."""
    if service.listeners is None or any(listener.own for listener in service.listeners):
        return []
    name = service.component
    if not service.listeners:
        if service.unhealthy:
            return []
        message = f"nothing is seen to listen at {service.url}, though {service.unit} runs"
        return [finding("port", INFO, message, "see whether it listens elsewhere", component=name, url=service.url)]
    other = service.listeners[0]
    message = f"process {other.pid} ({other.program}) listens at {service.url}, and isn't of {service.unit}"
    fix = f"stop it, or let {name} listen elsewhere"
    evidence = {"url": service.url, "pid": other.pid, "program": other.program}
    return [finding("port_taken", BLOCKER, message, fix, component=name, **evidence)]


def _targets(facts: Facts) -> list[Data]:
    return _obstacles.of_targets(facts.targets)


def _unit_changed(service: Service) -> list[Data]:
    return _obstacles.unit_changed(service.component, service.unit, service.change)


def _newer(service: Service) -> list[Data]:
    return _obstacles.newer(service.component, service.unit, service.newer, service.started_otherwise)


def _cannot_start(service: Service) -> list[Data]:
    return _obstacles.cannot_start(service.component, service.unit, service.cannot_start)


def _unwritten(service: Service) -> list[Data]:
    if not service.unwritten:
        return []
    message = (
        f"{service.component} has not written {', '.join(service.unwritten)} yet: a restore point is made without it"
    )
    fix = f"nothing; or see whether {service.unit} keeps its state elsewhere"
    paths = [*service.unwritten]
    return [finding("state_unwritten", INFO, message, fix, component=service.component, paths=paths)]


def _restored_unit(service: Service) -> list[Data]:
    return _obstacles.restored_unit(service.component, service.unit, service.restored_unit)


HOST_CHECKS: tuple[t.Callable[[Facts], list[Data]], ...] = (
    _free,
    _clock,
    _synchronised,
    _writable,
    _unsafe_path,
    _targets,
    _noexec,
    _space,
    _inodes,
    _reachable,
    _architecture,
    _memory,
    _selinux,
)
SERVICE_CHECKS: tuple[t.Callable[[Service], list[Data]], ...] = (
    _package,
    _healthy,
    _unit_changed,
    _cannot_start,
    _newer,
    _restored_unit,
    _unwritten,
    _port,
    _another_program,
    _restart_pending,
    _restarts,
    _start_limit,
    _stop_timeout,
)
