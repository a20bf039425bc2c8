# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host in a directory, on which the same command is given again and again; and what is to hold of it.

The modules, the survey and the planner are real. So are the programs, and the service's process. Stand-ins are systemd,
and the role, whose tasks are gone through here in its order.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import select
import shutil
import signal
import subprocess
import tarfile
import time
import types
import typing as t

from ansible_collections.observability.stack.plugins.action.component_version import _READ_BY_THE_HOST
from ansible_collections.observability.stack.plugins.module_utils import (
    _files,
    _guard,
    _lease,
    _module,
    _process,
    _sandbox,
    _state,
    _store,
    _systemd,
)
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._errors import UpgradeError
from ansible_collections.observability.stack.plugins.modules import (
    component_version,
    health_probe,
    release_stage,
    safe_binary_swap,
    service_restart,
    upgrade_state,
)
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _planner, _rollback, _steps
from ansible_collections.observability.stack.tests.unit.crash import FAULTS, Fault, Point, Points, in_child
from ansible_collections.observability.stack.tests.unit.support import (
    CAP_NET_RAW,
    CAPABILITY,
    OWNER,
    Data,
    Systemd,
    later,
    sha256,
    snapshot,
)
from ansible_collections.observability.stack.tests.unit.surveys import shown, wished

COMPONENT = "prometheus"
PROGRAMS = ("prometheus", "promtool")
UNIT = "prometheus.service"
ATTRIBUTES = _files.Attributes(*OWNER, 0o755, {CAPABILITY: CAP_NET_RAW})

# A program is the tail of GNU with a line at its end: it can tell its own last line, and then wait for more of it. The
# file that a process of it runs is the program itself, which it isn't with a script.
TAIL = pathlib.Path(shutil.which("gnutail") or shutil.which("tail") or "tail")
LINE = 64
TELL = ["-c", str(LINE), "/proc/self/exe"]
SERVE = ["-f", *TELL]
QUIET = {"show", "status", "cat", "is-active", "is-enabled", "is-failed", "list-units", "list-timers"}


@functools.cache
def program(name: str, version: str, *, broken: bool = False) -> bytes:
    """A program that tells its version."""
    line = f"{name}, version {version} ({'broken' if broken else 'branch: HEAD'})"
    return TAIL.read_bytes() + line.ljust(LINE - 1).encode() + b"\n"


class StandIn(Systemd):
    """A stand-in for systemd that outlives who talks to it: what it knows is on disk, and its service really runs.

    Of what it is told, restart, start and stop do something; transient units are remembered until somebody lets their
    time come. Anything else that changes something is taken as done.
    A program that calls itself broken is ended as soon as it has said so.
    """

    def __init__(self, units: pathlib.Path, memory: pathlib.Path, argv: list[str]) -> None:
        super().__init__(units)
        self._argv = argv
        self._memory = memory
        self._process = memory / "process.json"
        self._transient = memory / "transient.json"
        self.before_start: t.Callable[[], None] = lambda: None
        self.told = memory / "told"
        self.points: Points | None = None

    def __call__(self, argv: t.Sequence[str], **options: t.Any) -> Completed:
        name, verb = os.path.basename(argv[0]), next((word for word in argv[1:] if word[0] != "-"), "")
        asks = verb in QUIET if name == "systemctl" else "--pipe" in argv  # a program, in a sandbox
        if name not in ("systemctl", "systemd-run") or asks:
            return super().__call__(argv, **options)
        if self.points and self.points.command(argv):
            return Completed(1, "", "it failed because the test wanted it to")
        with self.told.open("a") as log:
            log.write(" ".join(argv) + "\n")
        if name == "systemd-run":
            self.remember(**{next(word[7:] for word in argv if word.startswith("--unit=")): True})
        if verb == "stop":
            self.remember(**{word.removesuffix(".timer"): False for word in argv if word.endswith(".timer")})
        if verb == "stop" and UNIT in argv:
            self.stop()
        if verb == "restart" and UNIT in argv:
            self.stop()
        return self.start() if verb in ("restart", "start") and UNIT in argv else Completed(0, "", "")

    def look(self, name: str) -> Data:
        known, pid = self._process.exists(), self.pid()
        self.add(UNIT, *self._argv, pid=pid, active="" if pid or not known else "failed")
        return super().look(name)

    def remember(self, **units: bool) -> list[str]:
        """Know of transient units, or know no more of them. Those that there are."""
        known = json.loads(self._transient.read_text()) if self._transient.exists() else {}
        known.update(units)
        self._transient.write_text(json.dumps(known))
        return [unit for unit, is_there in known.items() if is_there]

    def pid(self) -> int:
        """The service's process, if it runs."""
        with contextlib.suppress(OSError, ValueError):
            pid, since = json.loads(self._process.read_text())
            if _started(pid) == since:
                return t.cast("int", pid)
        return 0

    def start(self) -> Completed:
        """Start the service, if it doesn't run, and wait until it has said what it is."""
        if self.pid():
            return Completed(0, "", "")
        self.before_start()
        reading, writing = os.pipe()
        service = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[reading],  # tail ends when nobody can read any more what it says
        )
        self._process.write_text(json.dumps([service.pid, _started(service.pid)]))
        os.close(writing)
        said = os.read(reading, LINE)
        os.close(reading)
        if b"broken" in said or not said:
            self.stop()
        service.returncode = 0  # it isn't ours to wait for: it outlives this process
        return Completed(0, "", "")

    def stop(self) -> None:
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                process = os.pidfd_open(pid)
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [])
                os.close(process)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _started(pid: int) -> str:
    """When a process that isn't dead started, in ticks; empty if there is none."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19] if fields[0] not in "ZX" else ""


class Command(t.NamedTuple):
    """What an operator asks for, again and again: a version, or the way back to a restore point.

    :param broken: the release starts nowhere, though it tells its version.
    """

    version: str
    back_to: str = ""
    broken: bool = False
    keep: int = 3


class FailedTaskError(Exception):
    """A task failed. The role goes on with its rescue, or ends."""

    def __init__(self, task: str, result: Data) -> None:
        super().__init__(f"{task}: {result.get('msg')}")
        self.result = result


class Host:
    """A host with one component of two programs, its service, and the collection's state directory."""

    def __init__(self, disk: pathlib.Path, memory: pathlib.Path) -> None:
        self.disk, self.memory = disk, memory
        self.state = disk / "state"
        self.programs = [disk / "bin" / name for name in PROGRAMS]
        self.systemd = StandIn(disk / "units", memory, [str(self.programs[0]), *SERVE])
        self.systemd.before_start = self._condition
        overrides = {"version_args": [TELL], "probes": [], "proofs": [], "build_info": [], "probe_window": 0}
        overrides.update(stages=[], known_releases=[], advisories=[], rollback_floors=[])
        overrides.update(default_config=str(disk / "prometheus.yml"), default_data=None)
        overrides["releases"] = [
            {"url": "https://e/{version}.tar.gz", "checksums": "https://e/{version}.txt", "members": MEMBERS}
        ]
        self.catalog = {COMPONENT: _catalog.load(overrides={COMPONENT: overrides})[COMPONENT]}

    def install(self, version: str) -> None:
        """Deploy a version, as another role would."""
        for directory in ("bin", "units"):
            (self.disk / directory).mkdir(parents=True)
        (self.disk / "prometheus.yml").write_text("password: geheim\n")
        (self.disk / "units" / UNIT).write_text("[Service]\n")
        for path in self.programs:
            path.write_bytes(program(path.name, version))
            with path.open("rb") as file:
                _files.apply_attributes(file.fileno(), ATTRIBUTES)

    def boot(self) -> None:
        """Start the service from what is on disk. Systemd knows nothing of what was before."""
        self.memory.mkdir(exist_ok=True)
        for name in ("process.json", "transient.json", "told"):
            (self.memory / name).unlink(missing_ok=True)
        (self.memory / "boot").write_text(secrets.token_hex())
        in_child(self.systemd.start)
        wrong = self.time_passes()  # for what the guard has left to be done as soon as the service has started
        assert not wrong, wrong

    def _condition(self) -> None:
        """What the guard's drop-in runs before each start of the service."""
        if any((self.disk / "units" / f"{UNIT}.d").glob("*.conf")):
            self.take_over()
            _guard.start(self.systemd, str(self.state), COMPONENT, UNIT)

    def time_passes(self) -> str:
        """Let the time of transient units come, while no run gives a sign of life. What went wrong."""
        for unit in self.systemd.remember():
            self.systemd.remember(**{unit: False})
            ended = in_child(self.undo)
            if ended.traceback:
                return ended.traceback
        return ""

    def undo(self, points: Points | None = None) -> list[Point]:
        """What the guard's timer runs, in a process that was made for it. The points that it passed."""
        self.systemd.points = points
        self.take_over()
        if points:
            points.install()
        _guard.fire(
            self.systemd, str(self.state), COMPONENT, **later(10 * _lease.LEASE_SECONDS), sleep=lambda _seconds: None
        )
        return points.seen if points else []

    def archive(self, version: str, *, broken: bool) -> pathlib.Path:
        """A release's archive, as the controller has pushed it."""
        path = self.memory.parent / f"release-{version}{'-broken' if broken else ''}.tar.gz"
        if not path.exists():
            with tarfile.open(path, "w:gz", compresslevel=1) as bundle:
                for name, member in MEMBERS.items():
                    content = program(name, version, broken=broken)
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    bundle.addfile(info, io.BytesIO(content))
        return path

    def call(self, module: types.ModuleType, **arguments: t.Any) -> Data:
        """Call a module's main(), in a process that was made for it: arguments in, the result out."""
        given = {"state_dir": str(self.state), **arguments}
        module.AnsibleModule = functools.partial(Module, given)  # type: ignore[attr-defined]
        if hasattr(module, "run"):
            module.run = self.systemd  # type: ignore[attr-defined]
        self.take_over()
        try:
            module.main()
        except Result as result:
            return result.data
        raise AssertionError("the module ended without a result")

    def take_over(self) -> None:
        """Let the collection see this host, in a process that was made for it."""
        _module.os = types.SimpleNamespace(geteuid=lambda: 0)  # type: ignore[attr-defined]
        _systemd._UNIT_DIRECTORIES = (str(self.disk / "units"),)  # type: ignore[attr-defined]
        _guard.UNITS = str(self.disk / "units")
        _guard._SYSTEMD_IS_HERE = str(self.memory)
        _sandbox._PLACE = str(self.memory)  # otherwise it would sweep away what killed runs of other tests have left
        _guard._archive = lambda: b"a program that the stand-in doesn't need"
        _guard.boot_token = (self.memory / "boot").read_text


class Result(BaseException):
    """What a module tells at its end."""

    def __init__(self, **data: t.Any) -> None:
        super().__init__()
        self.data = data


class Module:
    """Stands in for AnsibleModule, which takes longer than all that is to be looked at. It trusts its arguments."""

    check_mode = False

    def __init__(self, given: Data, argument_spec: Data, **_options: t.Any) -> None:
        self.params = _filled(argument_spec, given)

    def warn(self, warning: str) -> None:
        pass

    def exit_json(self, **result: t.Any) -> t.NoReturn:
        raise Result(**json.loads(json.dumps(result)))

    def fail_json(self, msg: str, **result: t.Any) -> t.NoReturn:
        raise Result(failed=True, msg=msg, **json.loads(json.dumps(result)))


def _filled(spec: Data, given: Data) -> Data:
    """Arguments with the defaults of those that weren't given."""
    unknown = given.keys() - spec.keys()
    assert not unknown, f"the module knows no {', '.join(unknown)}"
    filled = {}
    for name, option in spec.items():
        value = given.get(name, option.get("default"))
        if "options" in option and value is not None:
            many = isinstance(value, list)
            items = [_filled(option["options"], item) for item in (value if many else [value])]
            value = items if many else items[0]
        filled[name] = value
    return filled


GUARD = {"confirm_within": 300, "probe_timeout": 0, "probe_window": 0}
MEMBERS = {name: f"release/{name}" for name in PROGRAMS}


class Play:
    """One run of a command on the host: a mirror of playbooks/upgrade.yml and rollback.yml, and of roles/upgrade."""

    def __init__(self, host: Host, command: Command, upgrade_id: str) -> None:
        self.host, self.command = host, command
        self.run = {"upgrade_id": upgrade_id, "user": "ops", "controller": "c1", "dead": []}
        self.steps: list[str] = []
        self.errors: list[str] = []
        self.survey: Data = {}

    def go(self) -> Data:
        """Survey, plan, and carry out the plan. What was to be done, and what failed."""
        with contextlib.suppress(FailedTaskError):
            specs = {COMPONENT: {field: self.host.catalog[COMPONENT][field] for field in _READ_BY_THE_HOST}}
            survey = self.survey = self._task("Survey", component_version, specs=specs)
            plan = self._plan(survey)
            self.steps = list(plan["steps"])
            self.errors += [finding["message"] for finding in plan["findings"] if finding["severity"] == "blocker"]
            if survey["lease"]:  # of a run on this machine that is gone: the lookup upgrade_run finds that out
                self.run["dead"] = [survey["lease"]["upgrade_id"]]
            if self.steps and not self.errors:
                self._phase(plan["steps"])
        return {"steps": self.steps, "errors": self.errors}

    def _plan(self, survey: Data) -> Data:
        command, wish = self.command, wished()._replace(catalog=self.host.catalog)
        if command.back_to:
            return shown(_rollback.plan_host("h", survey, wish, to=command.back_to, kinds=["binary"]))
        return shown(_planner.plan_host("h", survey, wish._replace(versions={COMPONENT: command.version})))

    def _phase(self, steps: Data) -> None:
        """roles/upgrade/tasks/phase.yml"""
        kind = "rollback" if self.command.back_to else "upgrade"
        self._state("begin", kind=kind, steps=list(steps))
        for step in steps.values():
            if not self.errors:
                self._step(step)
        self._state("close", abandon=bool(self.errors), keep=self.command.keep)

    def _step(self, step: Data) -> None:
        """roles/upgrade/tasks/step.yml"""
        known = {"component": step["component"], "version": step["to"]}
        try:
            staged = self._stage(step, known) if step["stage"] is not None else {}
            optional = {"backup_id": step["backup_id"]} if step["backup_id"] else {}
            self._task(
                "Swap the files",
                safe_binary_swap,
                **known,
                **optional,
                **{name: step[name] for name in ("unit", "kinds", "keep")},
                guard={**GUARD, "target": {**step["target"], "version": step["from"]}},
                from_version=step["from"],
                files=_steps.swap_files(step, staged, self.survey),
            )
            self._restart(step)
            self._prove(step["target"], component=step["component"])
            self._state("confirm", **known, paths=[file["dest"] for file in step["files"]])
        except FailedTaskError as failure:
            self._undo(step, known, failure)

    def _undo(self, step: Data, known: Data, failure: FailedTaskError) -> None:
        """roles/upgrade/tasks/undo.yml"""
        error = str(failure.result.get("msg"))
        try:
            restored = self._task(
                "Put the restore point back",
                safe_binary_swap,
                state="restored",
                component=step["component"],
                kinds=step["kinds"],
            )
            if restored["touched"]:
                self._restart(step)
                self._prove({**step["target"], "version": step["from"]})
            outcome = "rolled_back" if restored["touched"] else "aborted"
            self._state("fail", **known, outcome=outcome, error=error)
        except FailedTaskError as second:
            with contextlib.suppress(FailedTaskError):
                undo_error = f"{error}; it could not be undone: {second.result.get('msg')}"
                self._state("fail", **known, outcome="failed", error=undo_error)

    def _stage(self, step: Data, known: Data) -> Data:
        archive = self.host.archive(step["to"], broken=self.command.broken)
        return self._task(
            "Stage the release",
            release_stage,
            **known,
            **step["stage"],
            from_version=step["from"],
            archive=str(archive),
            archive_sha256=sha256(archive),
        )

    def _restart(self, step: Data) -> None:
        unit, binary = step["unit"], step["binary"]
        reload = "unit" in step["kinds"]
        self._task("Restart the service", service_restart, unit=unit, binary=binary, reload_units=reload)

    def _prove(self, target: Data, **options: t.Any) -> None:
        self._task("Prove the version", health_probe, targets=[target], timeout=0, window=0, **options)

    def _state(self, action: str, **arguments: t.Any) -> Data:
        return self._task(f"Record: {action}", upgrade_state, action=action, **arguments)

    def _task(self, name: str, module: types.ModuleType, **arguments: t.Any) -> Data:
        result = self.host.call(module, run=self.run, **arguments)
        if not result.get("failed"):
            return result
        self.errors.append(f"{name}: {result.get('msg')}")
        raise FailedTaskError(name, result)


# -- scenarios ----------------------------------------------------------------------------------------------------


class Scenario(t.NamedTuple):
    """A host on which some commands were given already, and the one that is stopped and given again."""

    name: str
    title: str
    earlier: tuple[Command, ...]
    command: Command
    installed: str = "2.42.0"

    @property
    def before(self) -> str:
        return self.earlier[-1].version if self.earlier else self.installed

    @property
    def good(self) -> bool:
        return not self.command.broken


_UPGRADE = Command("2.53.3")
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("upgrade", "a good release", (), _UPGRADE),
        Scenario("bad-release", "a release that doesn't start, undone", (), Command("2.53.3", broken=True)),
        Scenario("rollback", "back to a restore point", (_UPGRADE,), Command("2.42.0", "earlier1.prometheus-2.42.0")),
        Scenario("second-upgrade", "an upgrade that drops a restore point", (_UPGRADE,), Command("2.55.1", keep=1)),
    )
}


def play(host: Host, command: Command, upgrade_id: str, points: Points | None = None) -> Data:
    """One run of a command, in a process that was made for it. What the run tells, and the points that it passed."""
    host.systemd.points = points
    if points:
        points.install()
    told = Play(host, command, upgrade_id).go()
    return {**told, "points": points.seen if points else []}


def prepare(host: Host, scenario: Scenario) -> None:
    """Make a host what it is before the scenario's command."""
    host.install(scenario.installed)
    host.boot()
    for number, command in enumerate(scenario.earlier, 1):
        ended = in_child(functools.partial(play, host, command, f"earlier{number}"))
        assert (ended.traceback, ended.answer["errors"]) == ("", []), f"{command}: {ended}"


class Testbed:
    """A place where a scenario's host is made once, and then as often as somebody wants to break it."""

    __test__ = False

    def __init__(self, work: pathlib.Path, scenario: Scenario) -> None:
        self.scenario = scenario
        self.host = Host(work / "disk", work / "memory")
        self._template = work / "template"
        prepare(self.host, scenario)
        self.host.systemd.stop()
        self.host.disk.rename(self._template)

    def fresh(self) -> Host:
        """The host as it was before the command."""
        self.host.systemd.stop()
        shutil.rmtree(self.host.disk, ignore_errors=True)
        subprocess.run(["cp", "-a", "--", str(self._template), str(self.host.disk)], check=True)
        self.host.boot()
        return self.host

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.host.systemd.stop()


# -- what is to hold ----------------------------------------------------------------------------------------------


@functools.cache
def _hashes(version: str, broken: bool = False) -> list[str]:
    return [hashlib.sha256(program(name, version, broken=broken)).hexdigest() for name in PROGRAMS]


def torn(host: Host, scenario: Scenario) -> list[str]:
    """What is wrong with a host right after it was stopped, wherever that was."""
    document, problems = _document(host)
    record = document["components"].get(COMPONENT, {"state": "idle"})
    new = _hashes(scenario.command.version, not scenario.good)
    known = dict(zip(_hashes(scenario.before), ["old"] * 2)) | dict(zip(new, ["new"] * 2))
    there = {str(path): _files.sha256_or_none(str(path)) for path in host.programs}
    found = [known.get(sha, "torn") if sha else "missing" for sha in there.values()]
    if not {*found} <= {"old", "new"}:
        problems.append(f"the programs are {', '.join(found)}")
    proven = record["state"] == "success" and record.get("to_version") == scenario.command.version
    if {*found} != {"old"} and not _state.is_unsettled(record) and not ({*found} == {"new"} and proven):
        problems.append(f"the programs are {', '.join(found)}, and the record says {record['state']}")
    return problems + _attributes(host)


def undecided(host: Host, scenario: Scenario) -> list[str]:
    """What is wrong with a host that was left to its guard: that nobody knows which version it has, or it has none."""
    document, problems = _document(host)
    record = document["components"].get(COMPONENT, {"state": "idle"})
    if _state.is_unsettled(record):
        problems.append(f"the component is recorded as {record['state']}")
    undone = "by itself" in (record.get("last_error") or "")
    if undone and document["upgrade"]["state"] != "ROLLED_BACK":
        problems.append(f"the upgrade is recorded as {document['upgrade']['state']}")
    found = [_files.sha256_or_none(str(path)) for path in host.programs]
    proven = record["state"] == "success" and record.get("to_version") == scenario.command.version
    if found != _hashes(scenario.command.version if proven else scenario.before):
        problems.append("the programs aren't those that were proven last")
    return problems + _attributes(host) + _service(host)


def _document(host: Host) -> tuple[Data, list[str]]:
    path = host.state / "state.json"
    try:
        return _state.check_document(json.loads(path.read_text())), []
    except FileNotFoundError:
        return _state.new_document(), []
    except (ValueError, UpgradeError) as exc:
        return _state.new_document(), [f"state.json: {exc}"]


def _attributes(host: Host) -> list[str]:
    there = [path for path in host.programs if path.exists()]
    return [
        f"{path.name} has other attributes than it had"
        for path in there
        if _files.read_attributes(str(path)) != ATTRIBUTES
    ]


def settled(host: Host, scenario: Scenario) -> list[str]:
    """What is wrong with a host on which the command has come to its end."""
    document, problems = _document(host)
    version = scenario.command.version if scenario.good else scenario.before
    wanted = {"COMPLETED"} if scenario.good else {"ROLLED_BACK", "FAILED"}
    upgrade = document["upgrade"]
    if upgrade["state"] not in wanted:
        problems.append(f"the upgrade is recorded as {upgrade['state']}")
    if [_files.sha256_or_none(str(path)) for path in host.programs] != _hashes(version):
        problems.append(f"the programs aren't those of {version}")
    problems += _attributes(host) + _service(host) + _guards(host) + _component(host, scenario, document)
    if _lease.holder(_store.read_lease(str(host.state)), now=time.time()):
        problems.append("the lease is held")
    if not (host.state / "history" / f"{upgrade.get('upgrade_id')}.json").is_file():
        problems.append(f"upgrade {upgrade.get('upgrade_id')} isn't in the history")
    litter = [path for path in host.disk.rglob("*") if path.name.endswith(LITTER) or path.parent.name == "staging"]
    problems += [f"left behind: {path.relative_to(host.disk)}" for path in litter]
    return problems


NO_FILE = re.compile(r": (operating system|\d+): ")
LITTER = (".upgrade-new", ".new", ".removed")


def _guards(host: Host) -> list[str]:
    """What is left of a guard."""
    there = [*(host.state / "pending").glob("*"), *(host.disk / "units").glob("*.d"), *host.systemd.remember()]
    return [f"a guard is left: {each}" for each in there]


def _service(host: Host) -> list[str]:
    pid = host.systemd.pid()
    if not pid:
        return ["the service doesn't run"]
    return [] if _process.runs_file(pid, str(host.programs[0])) else ["the service runs another file"]


def _component(host: Host, scenario: Scenario, document: Data) -> list[str]:
    """What is wrong with the component's record and its restore points."""
    problems = []
    record = document["components"].get(COMPONENT, {"state": "idle"})
    inventory = record.get("inventory", {})
    told = (record["state"], inventory.get("current_version"))
    earlier = [scenario.before] if scenario.earlier else [None]
    wanted = [("success", scenario.command.version)]
    wanted = wanted if scenario.good else [(state, *earlier) for state in ("rolled_back", "failed")]
    if told not in wanted:
        problems.append(f"the component is recorded as {told[0]}, in version {told[1]}")
    points = {point["id"]: point["version"] for point in inventory.get("restore_points", [])}
    there = sorted(path.name for path in (host.state / "backups").glob("*"))
    if sorted(points) != there:
        problems.append(f"restore points are {', '.join(there)}, and the record names {', '.join(sorted(points))}")
    for backup_id, version in points.items():
        problems += _restore_point(host.state / "backups" / backup_id, version)
    if scenario.good and points.get(record.get("backup_id")) != scenario.before:
        problems.append(f"there is no way back to {scenario.before}")
    return problems


def _restore_point(path: pathlib.Path, version: str) -> list[str]:
    """What is wrong with a restore point: it holds the programs of its version, and no others."""
    try:
        entries = json.loads((path / "manifest.json").read_text())["entries"]
        found = [sha256(path / entry["stored"]) for entry in entries if entry["kind"] == "binary"]
    except (OSError, ValueError, KeyError) as exc:
        return [f"{path.name}: {exc}"]
    return [] if found == _hashes(version) else [f"{path.name} doesn't hold {version}"]


# -- trying it ----------------------------------------------------------------------------------------------------


def trial(bed: Testbed, fault: Fault, number: int, *, alone: bool = False) -> list[str]:
    """Stop the command at a point, then give it again until there is nothing left to do. What was wrong.

    :param alone: first the host is left alone, until its guard has done what it does.
    """
    scenario, host = bed.scenario, bed.fresh()
    first = in_child(lambda: play(host, scenario.command, "run1", Points(fault, number)))
    problems = first.traceback.splitlines()[-1:]
    if not first.killed and not fault.error:
        problems.append("it wasn't stopped")
    if first.answer:
        problems += [f"tells no file: {error}" for error in first.answer["errors"] if NO_FILE.search(error)]
    problems += [f"at once: {problem}" for problem in torn(host, scenario)]
    if alone:
        problems += host.time_passes().splitlines()[-1:]
        problems += [f"left alone: {problem}" for problem in undecided(host, scenario)]
    return problems + again(host, scenario)


def guard_trial(bed: Testbed, fault: Fault, number: int, reached: int, *, alone: bool) -> list[str]:
    """Stop the command after its swap, let a fault happen to the guard that undoes it, and then give the command again.

    :param reached: the point that the command has reached.
    :param alone: first systemd lets the guard try again.
    """
    scenario, host = bed.scenario, bed.fresh()
    in_child(lambda: play(host, scenario.command, "run1", Points(FAULTS["killed"], reached)))
    ended = in_child(lambda: host.undo(Points(fault, number)))
    problems = [] if ended.killed or fault.error else ["it wasn't stopped"]
    problems += [f"at once: {problem}" for problem in torn(host, scenario)]
    if alone:
        ended = in_child(host.undo)
        problems += ended.traceback.splitlines()[-1:]
        problems += [f"left alone: {problem}" for problem in undecided(host, scenario)]
    return problems + again(host, scenario)


def again(host: Host, scenario: Scenario) -> list[str]:
    """Give the command again, to the end; and once more, if there is nothing left to do then. What was wrong."""
    second = in_child(lambda: play(host, scenario.command, "run2"))
    problems = [f"the next run: {line}" for line in second.traceback.splitlines()[-1:]]
    if scenario.good and second.answer and second.answer["errors"]:
        problems.append(f"the next run failed: {second.answer['errors']}")
    problems += [f"after the next run: {problem}" for problem in settled(host, scenario)]
    if not scenario.good:  # it would be tried once more
        return problems
    before = snapshot(host.disk)
    third = in_child(lambda: play(host, scenario.command, "run3"))
    problems += [f"the third run: {line}" for line in third.traceback.splitlines()[-1:]]
    after = snapshot(host.disk)
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return problems + [f"the third run changed {os.path.relpath(path, host.disk)}" for path in changed]


class Table(t.NamedTuple):
    """What became of a scenario with a fault at each point that it can happen at. Problems are by point."""

    tried: int
    problems: dict[str, list[str]]

    def survived(self) -> int:
        return self.tried - len(self.problems)

    def __str__(self) -> str:
        lines = (f"{point}\n" + "".join(f"    {line}\n" for line in found) for point, found in self.problems.items())
        return "".join(lines)


def points_of(bed: Testbed) -> list[Point]:
    """The points that the command passes if nothing stops it."""
    host = bed.fresh()
    whole = in_child(lambda: play(host, bed.scenario.command, "run1", Points()))
    assert not whole.traceback, whole.traceback
    return [Point(*point) for point in whole.answer["points"]]


def matrix(bed: Testbed, fault: Fault, only: str = "", *, alone: bool = False) -> Table:
    """Let a fault happen at each point, one after the other.

    :param only: at points that this text is in.
    :param alone: the host is left to its guard before the command is given again.
    """
    return _table(points_of(bed), fault, only, lambda number: trial(bed, fault, number, alone=alone))


def guard_matrix(bed: Testbed, fault: Fault, only: str = "", *, alone: bool = False) -> Table:
    """The same at each point that the guard passes when it undoes a step whose service has been restarted.

    :param alone: systemd lets the guard try again before the command is given again.
    """
    restart = next(n for n, point in enumerate(points_of(bed), 1) if point.what.startswith("systemctl restart"))
    host = bed.fresh()
    in_child(lambda: play(host, bed.scenario.command, "run1", Points(FAULTS["killed"], restart + 1)))
    whole = in_child(lambda: host.undo(Points()))
    assert not whole.traceback, whole.traceback
    points = [Point(*point) for point in whole.answer]
    return _table(points, fault, only, lambda number: guard_trial(bed, fault, number, restart + 1, alone=alone))


def _table(points: list[Point], fault: Fault, only: str, attempt: t.Callable[[int], list[str]]) -> Table:
    chosen = {n: point for n, point in enumerate(points, 1) if fault.hits(point) and only in str(point)}
    found = {f"{fault.title}, at point {number}, {point}": attempt(number) for number, point in chosen.items()}
    return Table(len(chosen), {point: problems for point, problems in found.items() if problems})
