# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The dead-man: how a host undoes a step by itself when nobody confirms it.

It stands on two legs, armed before the swap and taken away with the confirmation:

the timer  a transient timer of systemd. It outlives the run and its connection, but not a reboot
the start  a condition before each start of the service. It sees a reboot, and a service that starts again and again

Both run this very file, from an archive beside the marker, with nothing but Python and systemd. Both look at the record
under the host's lock before they touch anything: what was confirmed or undone meanwhile is left alone.

pending/<component>.json  the marker: what is to be undone and how the old version is proven
pending/<component>.pyz   the program
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import sys
import time
import typing as t
import zipfile

from . import (
    _candidates,
    _command,
    _files,
    _health,
    _json_file,
    _lease,
    _loaded_unit,
    _probes,
    _process,
    _processes,
    _restore_point,
    _schema,
    _store,
    _systemd,
)
from ._errors import HostError, LockedError, UpgradeError
from ._state import TOUCHED, Step

if t.TYPE_CHECKING:
    from ._command import Run
    from ._store import Layout, Session
    from ._verdicts import Target

    Marker = dict[str, t.Any]

START_LIMIT = 5
"""Starts of a service in vain, none of them by a run, after which its host undoes the step."""

_IDLE = 60.0
"""Seconds without a sign of life of a run before starts of the service are held against it."""

_PATIENCE = 3600.0
_RETRY = 30
_SYSTEMD_IS_HERE = "/run/systemd/system"  # sd_booted(3)
UNITS = "/etc/systemd/system"
"""Where the watchdog puts its drop-in."""

_NOT_LOADED = 5  # what systemctl stop says where there is no such unit
_HAS_CONDITIONS = 243  # the first systemd that knows ExecCondition=

_UNLESS_OWN = (
    'own() { read -r pid start <"$1" && read -r stat <"/proc/$pid/stat" && set -- "$start" ${stat##*)} '
    '&& test "$1" = "${21}"; }; own "$1" 2>/dev/null && exit; shift; exec "$@"'
)
"""Runs a command unless the file tells of a process that lives, C(_restart.announced): this start is that module's own.
C(start) would find the lock taken, and do nothing. To know that without another process, let alone one of Python, keeps
a restart by a run as short as any other."""


_IF_ROOTS_ALONE = (
    "import os,runpy,sys;del sys.argv[0];p=os.path.realpath(sys.argv[0]);"
    "bad=[d for i,c in enumerate(p+'/') if c=='/' for d in [p[:i] or '/'] for s in [os.stat(d)] "
    "if s.st_uid not in (0,os.geteuid()) or s.st_mode&18];"
    "bad and sys.exit(bad[0]+': a user other than root can write it, so nothing below it is run');"
    "runpy.run_path(p,run_name='__main__')"
)
"""Runs a program unless it, or a directory on the way to it, has another owner than root, or can be written by others.
The state directory was private when the program was put there; this sees to it that it still is when it is run."""


class Guard(t.NamedTuple):
    """What a host must know to undo a step by itself.

    ``target`` and the two times are how the old version is proven, see C(_health.wait). ``confirm_within`` is how many
    seconds the host waits after the last sign of life of a run. ``shared`` are the targets of other units that run the
    same file: they are restarted and verified after the component's own unit.
    """

    component: str
    unit: str
    kinds: list[str]
    target: Target
    confirm_within: float
    probe_timeout: float
    probe_window: float
    shared: t.Sequence[Target] = ()

    @property
    def units(self) -> list[str]:
        """All units that run the file, the component's own first."""
        return [self.unit, *(target["unit"] for target in self.shared)]


def arm(run: Run, session: Session, guard: Guard) -> None:
    """Set up both legs for the step that the document is about to record. Until it does, they find nothing to undo.

    :raises HostError: if one of them can't be had; nothing is left of them then.
    """
    layout, name = session.layout, guard.component
    if not os.path.isdir(_SYSTEMD_IS_HERE):
        raise HostError(
            "this host isn't run by systemd, so it can't undo a step by itself when the run dies: set "
            "upgrade_confirm_within to 0 to upgrade without that",
            key="guard.no_systemd",
        )
    marker = {
        **guard._asdict(),
        "target": {"component": name, **guard.target},
        "shared": list(guard.shared),
        "record": session.document.component(name),
        "revision": session.document.data["revision"],
        "boot": boot_token(),
        "starts": {},
        "undone": None,
    }
    problem = _schema.problem(marker, _schema.MARKER)
    if problem:
        raise HostError(
            f"the host can't be made to undo the step by itself: in what it must know, {problem}. Give guard as the "
            "plan has it, or set upgrade_confirm_within to 0 to upgrade without that",
            key="guard.not_armed",
        )
    try:
        _write(layout, marker)
        _files.write_durably(_program(layout, name), _archive())
        _write_conditions(run, layout, guard)
        _stop(run, name, "timer", "service")
        _checked(
            run, _transient(layout, name, f"--on-active={guard.confirm_within:g}", "--timer-property=AccuracySec=1s")
        )
    except (OSError, HostError):
        with contextlib.suppress(OSError, HostError):
            disarm(run, layout, name)
        raise


def disarm(run: Run, layout: Layout, component: str, *, itself: bool = False) -> None:
    """Take away what is there of a component's guard; the marker goes last, so that it can always be found.

    :param itself: this is the guard's own process, which must not be stopped.
    """
    if not os.path.lexists(layout.pending(component)):
        return
    _stop(run, component, "timer", *([] if itself else ["service"]))
    conditions = glob.glob(os.path.join(glob.escape(UNITS), "*.d", _condition_name(component)))
    for unit in _units(read_marker(layout, component) or {}):  # an interrupted disarming may have left its directory
        conditions.append(os.path.join(UNITS, f"{unit}.d", _condition_name(component)))
    for condition in conditions:
        _files.remove_if_there(condition)
        _files.remove_directory_if_empty(os.path.dirname(condition))
    run(["systemctl", "daemon-reload"], timeout=90)
    _files.remove_if_there(_program(layout, component))
    _files.remove_if_there(layout.pending(component))
    _files.fsync_directory(layout.pending().rstrip("/"))


def disarm_finished(run: Run, session: Session) -> None:
    """Take away the guards of components that have nothing to undo: what a killed module may have left."""
    for entry in sorted(os.listdir(session.layout.pending())) if session.writable else []:
        name, suffix = os.path.splitext(entry)
        if suffix == ".json" and session.document.component(name)["state"] not in TOUCHED:
            disarm(run, session.layout, name)


def boot_token() -> str:
    """Which boot this is. A container that is restarted keeps the kernel's boot id, but gets another first process."""
    boot_id = _files.read_text("/proc/sys/kernel/random/boot_id").strip()
    return f"{boot_id} {_process.since_boot(1):.2f}"


# -- what the host runs by itself -------------------------------------------------------------------------------------


def fire(
    run: Run,
    state_dir: str,
    component: str,
    *,
    clock: t.Callable[[], float] = time.time,
    uptime: t.Callable[[], float] = _process.uptime,
    sleep: t.Callable[[float], None] = time.sleep,
) -> None:
    """Undo the step, unless it was confirmed or undone meanwhile. A run that still lives is waited for."""
    seen = None
    while os.path.lexists(_store.Layout(state_dir).pending(component)):
        with _store.session(state_dir, force=True, wait=_PATIENCE, clock=clock, uptime=uptime) as session:
            marker = _pending(session, component)
            if marker is None:
                _note_damage(session, component)
                disarm(run, session.layout, component, itself=True)
                return
            lease = _store.read_lease(state_dir)
            now = _store.present(lease, clock=clock, uptime=uptime)
            left = 0.0 if marker["undone"] else _alive_for(lease, marker["confirm_within"], now=now)
            if left <= 0 or lease == seen:  # no module has renewed it meanwhile
                late = f"nobody has confirmed it within {marker['confirm_within']:g} s: the run that did it is gone"
                _undo(run, session, marker, f"{marker['undone'] or late}. The host has undone it by itself")
                return
            seen = lease
        sleep(left)


def start(
    run: Run,
    state_dir: str,
    component: str,
    unit: str,
    *,
    clock: t.Callable[[], float] = time.time,
    uptime: t.Callable[[], float] = _process.uptime,
) -> None:
    """Before a start of one of its units: put its old files back if the host was rebooted, or if the unit has started
    in vain too often. Where a module is at work on the host, the start is its own."""
    if not os.path.lexists(_store.Layout(state_dir).pending(component)):
        return
    try:
        with _store.session(state_dir, force=True, wait=0, clock=clock, uptime=uptime) as session:
            marker = _pending(session, component)
            if marker is None or marker["undone"]:
                return
            lease = _store.read_lease(state_dir)
            marker["undone"] = _why(marker, unit, lease, now=_store.present(lease, clock=clock, uptime=uptime))
            _write(session.layout, marker)
            if not marker["undone"]:
                return
            _bring_back(session, marker)
    except LockedError:
        return
    except HostError as exc:  # nothing was restored; the settling process records it
        sys.stderr.write(f"{exc}\n")
    _checked(run, _transient(_store.Layout(state_dir), component, "--no-block", suffix="-settle"))


def _why(marker: Marker, unit: str, lease: dict[str, t.Any], *, now: float) -> str | None:
    """Why a service that is about to start must not start with the new version."""
    if marker["boot"] != boot_token():
        return "the host was rebooted before anybody had confirmed it"
    starts = marker["starts"].get(unit, 0) + 1
    marker["starts"][unit] = starts
    if starts < START_LIMIT or _alive_for(lease, _IDLE, now=now) > 0:
        return None
    return f"{unit} has started {starts} times, and nobody has confirmed it"


def _undo(run: Run, session: Session, marker: Marker, reason: str) -> None:
    """Bring the old version back, prove it, record what became of it, and leave nothing behind."""
    name, document = marker["component"], session.document
    outcome = "rolled_back"
    try:
        manifest = _bring_back(session, marker)
        own = session.layout.own_command(name)
        restored = _loaded_unit.bring_back(run, manifest.loaded_units, own=own)
        reason = "; ".join([reason, *map(str, restored)])
        _prove_old(run, marker, again=[one.unit for one in restored])
        _check_undone(document.component(name))
    except HostError as exc:
        outcome, reason = "failed", f"{reason}, but manual intervention is required: {exc}"
    step = Step(name, document.component(name).get("to_version", "unknown"))
    document.end_step(step, outcome, now=session.now, error=reason)
    settled = document.settle(name) if outcome == "rolled_back" else None
    document.close(abandon=True, now=session.now, ended_by="watchdog")
    session.archive()
    session.save()
    disarm(run, session.layout, name, itself=True)
    if settled:
        session.remove_tree(session.layout.backup(settled))
    _candidates.sweep(session)
    session.release()


def _check_undone(record: dict[str, t.Any]) -> None:
    present = _store.unlike(record, "before")
    if present:
        raise HostError(f"{', '.join(present)} isn't what it was before")


def _bring_back(session: Session, marker: Marker) -> _restore_point.Manifest:
    session.document.rolling_back(now=session.now)
    session.save()
    manifest = _restore_point.read(session, session.document.component(marker["component"]).get("backup_id") or "")
    _restore_point.restore(session, manifest, marker["kinds"])
    return manifest


def _prove_old(run: Run, marker: Marker, *, again: t.Collection[str]) -> None:
    """Let all units that run the file run what is on disk, in order, and verify them together.

    :param again: units that are restarted in any case: they have changed.
    :raises HostError: if one of them could not be restarted or isn't healthy; the others were restarted all the same.
    """
    targets = [{**target, "proofs": []} for target in _targets(marker)]  # those may need more than this host
    problems = []
    for unit, target in zip(_units(marker), targets):
        try:
            _run_what_is_on_disk(run, unit, target["binary"], reload="unit" in marker["kinds"], again=again)
        except HostError as exc:
            problems.append(str(exc))
    found = _health.wait(run, targets, timeout=marker["probe_timeout"], window=marker["probe_window"])
    back = f"{marker['target'].get('version') or 'the old version'} is back in place"
    for each in found:
        if not each.healthy:
            whose = "" if len(found) == 1 else f"{each.component} "
            problems.append(f"{back}, but {whose}isn't healthy: {each.reason}")
    if problems:
        raise HostError("; ".join(problems))


def _run_what_is_on_disk(run: Run, name: str, binary: str, *, reload: bool, again: t.Collection[str]) -> None:
    """Restart a unit, unless its process runs the file on disk and the unit has not changed. A start that is under way
    is waited for first."""
    limit = _systemd.stop_timeout(_systemd.show(run, [name])[0]) + _systemd.START_TIMEOUT
    run(["systemctl", "start", "--", name], timeout=limit)
    unit = _systemd.show(run, [name])[0]
    if unit.identity in again or not _processes.of_program(unit, binary):
        _systemd.restart(run, unit, timeout=limit, reload=reload)


def _targets(marker: Marker) -> list[Target]:
    """What is verified: the component, and the other units that run its file."""
    return [marker["target"], *marker.get("shared", ())]


def _units(marker: Marker) -> list[str]:
    """The units that run the file, the component's own first; none of an empty marker."""
    return [marker["unit"], *(target["unit"] for target in marker.get("shared", ()))] if marker else []


def _pending(session: Session, component: str) -> Marker | None:
    """The marker, if what it stands for is still neither confirmed nor undone."""
    marker = read_marker(session.layout, component)
    record = session.document.component(component)
    if marker is None or record["state"] not in TOUCHED:
        return None
    return marker if marker["record"].get("backup_id") == record.get("backup_id") else None


def read_marker(layout: Layout, component: str) -> Marker | None:
    """The marker of a watchdog; None if there is none that can be used."""
    try:
        return _load_marker(layout, component)
    except (OSError, ValueError, UpgradeError):
        return None


def marker_problem(layout: Layout, component: str) -> str:
    """Why the host can't use the marker that is there of a component; empty if it can, or there is none."""
    try:
        if os.path.lexists(layout.pending(component)):
            _load_marker(layout, component)
    except (OSError, ValueError, UpgradeError) as exc:
        return str(exc)
    return ""


def _load_marker(layout: Layout, component: str) -> Marker:
    marker = _json_file.load(layout.pending(component), _schema.MARKER, named=("component", component))
    for probe in (probe for target in _targets(marker) for probe in target.get("probes") or []):
        _probes.complete(probe)
    return marker


def _note_damage(session: Session, component: str) -> None:
    """Record that a step isn't undone by the host, for its marker can't be used, and keep that marker under another
    name. The step stays unresolved, with its restore point, and the next run finishes or undoes it."""
    problem = marker_problem(session.layout, component)
    if not problem or session.document.component(component)["state"] not in TOUCHED:
        return
    path = session.layout.pending(component)
    with contextlib.suppress(HostError):
        _files.write_durably(f"{path}.damaged", _json_file.beginning(path))
    session.document.add_error(
        f"the host can't undo {component} by itself: {path} is damaged: {problem}. Run the playbook upgrade, or the "
        "playbook rollback",
        now=session.now,
        component=component,
    )
    session.save()


def _alive_for(lease: dict[str, t.Any], within: float, *, now: float) -> float:
    """For how many seconds more a run counts as alive: from when its last module was to have ended."""
    if not lease.get("upgrade_id"):
        return 0.0
    if _lease.UNREADABLE in lease:
        return within
    renewed = float(lease["renewed"])
    busy = max(0.0, float(lease["expires"]) - renewed - _lease.LEASE_SECONDS)
    return busy + within - max(0.0, now - renewed)


def _write(layout: Layout, marker: Marker) -> None:
    text = json.dumps(marker, indent=2, sort_keys=True) + "\n"
    _files.write_durably(layout.pending(marker["component"]), text.encode())


# -- the legs ---------------------------------------------------------------------------------------------------------


def unit_name(component: str) -> str:
    """The name of the transient units, without what they are."""
    return f"observability-upgrade-{_systemd.in_unit_name(component)}"


def _program(layout: Layout, component: str) -> str:
    return layout.pending(component).removesuffix(".json") + ".pyz"


def _command_line(layout: Layout, component: str, action: str, *more: str) -> list[str]:
    program = _program(layout, component)
    return [sys.executable, "-I", "-c", _IF_ROOTS_ALONE, program, action, layout.root, component, *more]


def _transient(layout: Layout, component: str, *options: str, suffix: str = "") -> list[str]:
    """Have systemd run C(fire), now or later, until it ends well."""
    unit = [f"--unit={unit_name(component)}{suffix}", f"--description=Undo the upgrade of {component}"]
    again = ["--property=Restart=on-failure", f"--property=RestartSec={_RETRY}"]
    command = _command_line(layout, component, "fire")
    return ["systemd-run", "--quiet", "--collect", *unit, *again, *options, "--", *command]


def _condition_name(component: str) -> str:
    return f"{_systemd.OWN_DROP_IN}{component}.conf"


def _write_conditions(run: Run, layout: Layout, guard: Guard) -> None:
    """For each unit the drop-in that runs C(start), with all privileges, whatever the unit's hardening; its failure
    stops nothing."""
    version = run(["systemctl", "show", "--property=Version"], timeout=30).out.partition("=")[2].split(".")[0].split()
    known = version and version[0].isdigit() and int(version[0]) >= _HAS_CONDITIONS
    setting = "ExecCondition" if known else "ExecStartPre"
    for unit in guard.units:
        program = _command_line(layout, guard.component, "start", unit)
        command = " ".join(map(_systemd.quote, ["/bin/sh", "-c", _UNLESS_OWN, "sh", layout.restarting, *program]))
        directory = os.path.join(UNITS, f"{unit}.d")
        _files.make_directory(directory)
        text = (
            "# Written by observability.stack for the time of an upgrade; removed when the new version is confirmed.\n"
            f"[Service]\n{setting}=-+{command}\n"
        )
        _files.write_durably(os.path.join(directory, _condition_name(guard.component)), text.encode(), mode=0o644)
    _checked(run, ["systemctl", "daemon-reload"])


def _stop(run: Run, component: str, *kinds: str) -> None:
    """Stop transient units that may be there. While they are, what they need must be, too."""
    units = [f"{unit_name(component)}.{kind}" for kind in kinds]
    done = run(["systemctl", "stop", "--", *units], timeout=90)
    if done.rc not in (0, _NOT_LOADED):
        raise HostError(f"{', '.join(units)} can't be stopped: {done.err.strip()}", key="guard.not_stopped")


def _checked(run: Run, argv: list[str]) -> None:
    done = run(argv, timeout=90)
    if done.rc != 0:
        raise HostError(
            f"the host can't be made to undo the step by itself: {' '.join(argv[:2])}: {done.err.strip()}. Set "
            "upgrade_confirm_within to 0 to upgrade without that",
            key="guard.not_armed",
        )


def _archive() -> bytes:
    """This file and all that it needs of the collection, as a program of its own: the modules' code doesn't stay on a
    host. What is needed has been imported by now, for all imports are at the top of their file."""
    package = __name__.rpartition(".")[0]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("__main__.py", "import sys\nfrom guard import _guard\nsys.exit(_guard.main(sys.argv[1:]))\n")
        bundle.writestr("guard/__init__.py", "")
        for name, module in sorted(sys.modules.items()):
            if name.startswith(f"{package}._"):
                bundle.writestr(
                    f"guard/{name.rpartition('.')[2]}.py", t.cast("t.Any", module.__loader__).get_source(name)
                )
    return buffer.getvalue()


_ACTIONS: dict[str, t.Callable[..., None]] = {"fire": fire, "start": start}


def main(argv: list[str]) -> int:
    """The program: C(fire STATE_DIR COMPONENT) or C(start STATE_DIR COMPONENT UNIT)."""
    action, state_dir, component, *more = argv
    try:
        _ACTIONS[action](_command.run, state_dir, component, *more)
    except (UpgradeError, OSError) as exc:
        sys.stderr.write(f"{component}: {_files.explain(exc) if isinstance(exc, OSError) else exc}\n")
        return 1
    return 0
