# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Which units and programs of a host are a component's, by evidence.

In this order:

1. The processes of the host: the program of each, and the unit whose control group has it.
2. What the units of the host start, whatever their names are.
3. The names that the catalog knows for units and programs.

Where the operator has named the units of a component, no others count.

A program is a component's if its file name says so. If it has another name, its version text, its sha256 or its own
metrics must: C(_evidence.py) finds that out. A shell, a container client or another starter never is a component's
program. What is found and can't be upgraded has an obstacle: the key, the reason, and what makes it upgradable.
"""

from __future__ import annotations

import os
import re
import typing as t

from . import _elf, _process, _processes, _systemd, _targets, _unit_text

if t.TYPE_CHECKING:
    from ._command import Run
    from ._processes import Process
    from ._systemd import Unit

    Spec = dict[str, t.Any]

_SUFFIX = re.compile(
    r"(?:[-_.]v?\d+(?:\.\d+)+[\w.+~-]*|[-_.]linux[-_]\w+|[-_.](?:amd64|arm64|armv\d|x86_64|bin|real|old|orig|bak))+$"
)
"""What file names have after a component's name: a version, an architecture, or what an administrator put there."""

_CLIENTS = re.compile(
    r"(?:docker|podman)(?:[-_]compose)?|nerdctl|ctr|crictl|runc|crun|conmon|lxc|incus|lxc-(?:start|attach|execute)"
    r"|systemd-nspawn|machinectl|apptainer|singularity|kubelet|snap|flatpak"
)
"""Programs that have another program run in a container, or below a file system of its own."""

_MOST_SHARED = 100

_SANDBOXES = ("snap", "flatpak")

_MANAGED = (
    ("/snap/", "snap", "a snap"),
    ("/var/lib/snapd/", "snap", "a snap"),
    ("/var/lib/flatpak/", "flatpak", "a flatpak"),
    ("/nix/store/", "nix", "the Nix store"),
    ("/gnu/store/", "package_manager", "the Guix store"),
    ("/home/linuxbrew/.linuxbrew/", "package_manager", "Homebrew"),
    ("/opt/homebrew/", "package_manager", "Homebrew"),
    ("/usr/local/Cellar/", "package_manager", "Homebrew"),
    ("/usr/pkg/", "package_manager", "pkgsrc"),
    ("/var/lib/portables/", "package_manager", "a portable service"),
    ("/var/lib/docker/", "container", "an image of Docker"),
    ("/var/lib/containers/", "container", "an image of Podman"),
    ("/var/lib/machines/", "container", "a machine of systemd-nspawn"),
)
"""Directories whose files only another tool may replace: how they begin, the key, and what they belong to."""


_SHELLS = re.compile(r"(?:ba|da|k|z)?sh|busybox")


class Obstacle(t.NamedTuple):
    """Why what was found can't be upgraded, and what would make it so. ``key`` names the kind."""

    key: str
    reason: str
    fix: str


class Candidate(t.NamedTuple):
    """One instance of a component.

    ``process`` is the component's own process, also where the unit's main process is a shell. ``program`` is the path
    of its file on the host; empty if it has none. Where it isn't ``certain``, evidence other than its name is needed.
    """

    unit: Unit | None
    process: Process | None
    program: str
    certain: bool
    obstacle: Obstacle | None


class Host:
    """What a host runs and has units for, of some components. One command is run: systemctl.

    :param places: the directories in which a program is looked for that no unit and no process tells of.
    """

    def __init__(self, run: Run, components: dict[str, Spec], *, places: t.Sequence[str]) -> None:
        self._places = places
        self._components = components
        self._by_name = {name: each for each, spec in components.items() for name in program_names(spec)}
        self.processes = _processes.read()
        self._own: dict[str, list[Process]] = {}
        for process in self.processes:
            self._own.setdefault(self._component_of(process.path), []).append(process)
        files = _systemd.service_files()
        instances: dict[str, list[str]] = {}
        for unit in sorted(files):
            template, at, instance = unit.partition("@")
            if at and instance != ".service":
                instances.setdefault(template, []).append(unit)
        self._named = {name: _named_units(spec, files, instances) for name, spec in components.items()}
        self._mentioned = self._mentions(files)
        wanted = [*(unit for units in self._named.values() for unit in units), *self._of_processes()]
        wanted += [unit for units in self._mentioned.values() for unit in units]
        names = list(dict.fromkeys(wanted))
        self._shown = dict(zip(names, _systemd.show(run, names)))
        self._templates = {name for name in files if name.endswith("@.service")}

    def _component_of(self, path: str) -> str:
        """The component that the name of a program says it is of; empty if it is of none."""
        name = os.path.basename(path)
        return self._by_name.get(name) or self._by_name.get(_SUFFIX.sub("", name), "")

    def _of_processes(self) -> list[str]:
        return sorted(
            {each.unit for name, found in self._own.items() if name for each in found if each.unit is not None}
        )

    def _mentions(self, files: dict[str, list[str]]) -> dict[str, list[str]]:
        """The units that name a component's program in what they start, by component."""
        found: dict[str, list[str]] = {}
        for unit in sorted(files):
            if not unit.endswith("@.service"):
                words = (word for path in files[unit] for word in _systemd.started_words(path))
                for name in {self._component_of(word) for word in words} - {""}:
                    found.setdefault(name, []).append(unit)
        return found

    def candidates(self, name: str) -> list[Candidate]:
        """The instances of a component, the first one first. Without a unit, a program or a process there is none."""
        native = [each for each in self._own.get(name, []) if not each.contained]
        units = self._units_of(name, native)
        running = [(unit, process) for unit in units for process in [_process_in(unit, native)] if process]
        if running:
            return [self._with_process(name, unit, process) for unit, process in running]
        loaded = [unit for unit in units if unit.is_loaded]
        named = [unit for unit in loaded if self._is_named(name, unit)]
        for unit in sorted(named, key=lambda unit: not unit.is_running):
            return [self._of_unit(name, unit)]
        starting = (self._of_unit(name, unit) for unit in loaded if unit.properties.get("Type") != "oneshot")
        found = next((each for each in starting if each.program and each.certain), None)
        left = [found] if found else [self._without_unit(name)]
        return [each for each in left if each]

    def _units_of(self, name: str, native: list[Process]) -> list[Unit]:
        """The units that may be a component's, each once: in the order of the catalog's names, then by their own."""
        here = sorted({each.unit for each in native if each.unit and not each.interpreted})
        others = [] if self._components[name].get("only_units") else [*here, *self._mentioned.get(name, [])]
        wanted = [*self._named[name], *others]
        return list({self._shown[unit].name: self._shown[unit] for unit in wanted if unit in self._shown}.values())

    def _is_named(self, name: str, unit: Unit) -> bool:
        return bool({*unit.names} & {*self._named[name]})

    # -- with a unit --------------------------------------------------------------------------------------------------

    def _with_process(self, name: str, unit: Unit, process: Process) -> Candidate:
        """A unit that runs the component. What it starts by itself is its program, otherwise what its process runs."""
        start = self._started(name, unit)
        launched = [each for each in self._processes_of(unit) if each.parent == process.pid and not each.interpreted]
        if process.interpreted and launched and (not start or not _is_elf(start)):
            return Candidate(unit, None, "", certain=True, obstacle=self._no_program(name, unit))
        is_wrapper = bool(start) and not _is_elf(start) and not process.interpreted and not process.hidden
        if start and not is_wrapper:
            return self._complete(name, Candidate(unit, process, start, certain=True, obstacle=None))
        program = "" if process.hidden else on_host(process, root=unit.properties.get("RootDirectory", ""))
        program = program or self._worded(name, unit)
        if program:
            return self._complete(name, Candidate(unit, process, program, certain=True, obstacle=None))
        return Candidate(unit, process, "", certain=True, obstacle=_unreachable(name, unit.name, process))

    def _of_unit(self, name: str, unit: Unit) -> Candidate:
        """A unit in which no process has the name of the component's program."""
        program = self._started(name, unit)
        if program:
            return self._complete(name, Candidate(unit, None, program, certain=True, obstacle=None))
        inside = self._processes_of(unit)
        if not inside and not self._client_of(unit):
            program = self._worded(name, unit)
            if program:
                return self._complete(name, Candidate(unit, None, program, certain=True, obstacle=None))
        others = [each for each in inside if not (each.interpreted or each.contained or each.hidden)]
        others = [each for each in others if not _process.is_starter(each.program)]
        if len(others) == 1 and not self._client_of(unit):
            program = on_host(others[0], root=unit.properties.get("RootDirectory", ""))
            return self._complete(name, Candidate(unit, others[0], program, certain=False, obstacle=None))
        start = next(iter(unit.programs), "")
        if not inside and _is_elf(start) and not (_process.is_starter(start) or self._client_of(unit)):
            return self._complete(name, Candidate(unit, None, start, certain=False, obstacle=None))
        return Candidate(unit, None, "", certain=True, obstacle=self._no_program(name, unit))

    def _started(self, name: str, unit: Unit) -> str:
        """The program of the component that the unit starts itself; empty if it starts something else."""
        paths = [path for path in unit.programs if self._component_of(path) == name and os.path.isfile(path)]
        return next(iter(paths), "")

    def _worded(self, name: str, unit: Unit) -> str:
        """The program of the component that a starter is told to start, by its path; empty if it is told of none."""
        if not any(_process.is_starter(path) for path in unit.programs) or unit.properties.get("RootDirectory"):
            return ""
        if any(os.path.basename(path) == "chroot" for path in unit.programs):
            return ""
        words = (word for word in _start_words(unit)[1:] if word.startswith("/"))
        return next((word for word in words if self._component_of(word) == name and os.path.isfile(word)), "")

    def _processes_of(self, unit: Unit) -> list[Process]:
        return [each for each in self.processes if each.unit == unit.name or each.pid == (unit.main_pid or None)]

    def _client_of(self, unit: Unit) -> str:
        """The container client that a unit starts; empty if it starts none."""
        words = [*unit.programs, *_start_words(unit)]
        words += [each.program for each in self._processes_of(unit)]
        return next((word for word in words if _CLIENTS.fullmatch(os.path.basename(word))), "")

    def _complete(self, name: str, found: Candidate) -> Candidate:
        """What was found, with the obstacle that it has in spite of its program."""
        unit = t.cast("Unit", found.unit)
        obstacle = _managed(name, found.program)
        obstacle = obstacle or _mounted(name, found) or self._supervised(name, unit, found.process)
        if unit.load == "masked":
            obstacle = _masked(name, unit.name, found.process)
        elif not unit.main_pid and unit.properties.get("SourcePath", "").startswith(("/etc/init.d/", "/etc/rc.d/")):
            obstacle = obstacle or Obstacle(
                "init_script",
                f"systemd generated {unit.name} from the init script {unit.properties['SourcePath']}, and does not "
                "follow its main process: nothing would show that a new version fails to start",
                f"replace the init script by a unit whose ExecStart is {found.program}",
            )
        elif found.process and unit.active == "active" and not unit.main_pid:
            obstacle = obstacle or Obstacle(
                "no_main_process",
                f"systemd does not follow process {found.process.pid} of {unit.name} "
                f"(Type={unit.properties.get('Type') or 'unknown'}, MainPID=0): nothing would show that a new version "
                "fails to start",
                f"let {unit.name} start {found.program} itself with Type=simple, or set PIDFile= with Type=forking",
            )
        elif unit.properties.get("FragmentPath", "").startswith("/run/systemd/transient/"):
            obstacle = obstacle or Obstacle(
                "transient",
                f"{unit.name} is a transient unit of systemd-run: it is gone as soon as it stops",
                f"write a unit file for {name}, and start it by that",
            )
        return found._replace(obstacle=obstacle)

    def _supervised(self, name: str, unit: Unit, process: Process | None) -> Obstacle | None:
        """That the component's process is one of many that another program of the unit runs, such as supervisord or
        cron: a restart of the unit would restart them all, or none. A shell or another starter runs what its unit is
        for."""
        known = self._is_named(name, unit) or unit.name in self._mentioned.get(name, [])
        if known or process is None or process.pid == unit.main_pid:
            return None
        main = next((each for each in self.processes if each.pid == (unit.main_pid or None)), None)
        if main and (main.hidden or _SHELLS.fullmatch(os.path.basename(main.program))):
            return None
        if main and not main.interpreted and _process.is_starter(main.program):
            return None
        what = f"below {main.path} of {unit.name}" if main else f"in {unit.name}, which has no main process"
        return Obstacle(
            "supervisor",
            f"process {process.pid} runs {process.path} {what}: a restart of that unit would not restart {name} alone",
            f"run {name} by a unit of its own, or leave {name} out",
        )

    def _no_program(self, name: str, unit: Unit) -> Obstacle:
        """Why a unit shows no program of the component."""
        inside, client = self._processes_of(unit), self._client_of(unit)
        contained = [each for each in self._own.get(name, []) if each.contained and each.unit == unit.name]
        start = next(iter(unit.programs), "")
        sandboxed = "snap" if unit.name.startswith("snap.") else os.path.basename(client)
        if sandboxed in _SANDBOXES:
            return _sandboxed(name, f"{unit.name} starts {name} by {client or sandboxed}", sandboxed)
        if client or contained:
            what = f"{unit.name} runs {name} in a container"
            return _contained(f"{what}, by {client}" if client else f"{what} (process {contained[0].pid})", name)
        direct = f"let its ExecStart name the program of {name} itself"
        if any(each.hidden for each in inside):
            pid = next(each.pid for each in inside if each.hidden)
            return Obstacle("hidden", f"root may not see which program process {pid} of {unit.name} runs", _CAPABILITY)
        if inside:
            others = ", ".join(dict.fromkeys(each.path for each in inside[:4]))
            return Obstacle(
                "other_program", f"{unit.name} runs {others}, and no process of it is a program of {name}", direct
            )
        if not start or not os.path.isfile(start):
            there = f"{start}, which is not there" if start else "nothing that can be read"
            return Obstacle("no_program", f"{unit.name} starts {there}", f"install the program, or {direct}")
        return Obstacle(
            "wrapper",
            f"{unit.name} starts {start}, which is not the program of {name}, and no process of it runs to show which "
            "program that starts",
            f"start {unit.name}: the program is read from its process. Or {direct}",
        )

    # -- without a unit -----------------------------------------------------------------------------------------------

    def _without_unit(self, name: str) -> Candidate | None:
        """What else of a component is there: a process that no unit runs, a unit that can't be started, a program."""
        own = self._own.get(name, [])
        native = next((each for each in own if not each.contained and not each.interpreted), None)
        contained = next((each for each in own if each.contained), None)
        masked = [unit for unit in self._units_of(name, []) if unit.load == "masked"]
        templates = [f"{unit}@.service" for unit in self._components[name]["units"]]
        template = next((unit for unit in templates if unit in self._templates), "")
        if native and native.program and not on_host(native):
            return Candidate(None, native, "", certain=True, obstacle=_unreachable(name, "no unit", native))
        program = on_host(native) if native else usual_program(self._components[name], self._places)
        obstacle = None
        if not masked and self._components[name].get("only_units") and (native or program):
            obstacle = _other_units(self._components[name]["units"], program, native)
        elif masked:
            obstacle = _masked(name, masked[0].name, native)
        elif native:
            obstacle = _managed(name, program) or _unitless(name, native)
        elif template:
            obstacle = Obstacle(
                "template",
                f"{template} is a template, and no instance of it runs or is enabled",
                f"start an instance, or set upgrade_overrides: {{{name}: {{units: [...]}}}}",
            )
        elif contained:
            what = f"process {contained.pid} runs {name} in a container"
            return Candidate(None, contained, "", certain=True, obstacle=_contained(what, name))
        elif program:
            obstacle = _managed(name, program)
        if not (program or obstacle):
            return None
        return Candidate(None, native, program, certain=True, obstacle=obstacle)

    def shared_by(self, found: Candidate) -> list[dict[str, t.Any]]:
        """The other processes of the host that run the very file of a program, outside of the unit."""
        file, paths = _process.file_id(found.program), {found.program, os.path.realpath(found.program)}
        name = found.unit.name if found.unit else None
        shared = []
        for each in self.processes:
            inside = not each.contained and name is not None and each.unit == name
            same = each.file == file if each.file and not each.replaced else each.path in paths and not each.contained
            if same and not inside and each.pid != (found.process.pid if found.process else 0):
                unit = each.unit or each.user_unit or None
                shared.append({"unit": unit, "pid": each.pid, "program": each.path, "container": each.contained})
        return shared[:_MOST_SHARED]


_CAPABILITY = "give the host CAP_SYS_PTRACE, or let the unit's ExecStart name the program itself"


def program_names(spec: Spec) -> list[str]:
    """The file names that a component's program has in releases and packages."""
    return [spec["files"][0]["name"], *spec["files"][0].get("aliases", [])]


def usual_program(spec: Spec, directories: t.Sequence[str]) -> str:
    """The component's program in a usual place; empty if there is none."""
    names = program_names(spec)
    places = (f"{place}/{name}" for name in names for place in (*directories, f"/opt/{name}"))
    return next((path for path in places if os.path.isfile(path)), "")


def on_host(process: Process, *, root: str = "") -> str:
    """The path at which the host has the file that a process runs: as it was called, so that a link stays one, or as
    the kernel reports it. Empty if the host has it nowhere, as with another root file system.

    :param root: the unit's RootDirectory.
    """
    called = [word for word in process.argv[:1] if word.startswith("/")]
    if process.interpreted:
        return process.script if process.script.startswith("/") and os.path.isfile(process.script) else ""
    paths = [*called, process.program, f"{root.rstrip('/')}{process.program}"]
    if process.file:
        same = next((path for path in paths if _process.file_id(path) == process.file), "")
        if same or not process.replaced:
            return same
    return next((path for path in paths if os.path.isfile(path)), process.program if process.replaced else "")


def _process_in(unit: Unit, native: list[Process]) -> Process | None:
    """The component's process in a unit: a program rather than a script, the main process, else the first of all."""
    inside = [each for each in native if each.unit == unit.name or each.pid == (unit.main_pid or None)]
    pids = {each.pid for each in inside}
    rank = sorted(inside, key=lambda p: (p.interpreted, p.pid != unit.main_pid, p.parent in pids, p.pid))
    return next(iter(rank), None)


def _named_units(spec: Spec, files: t.Collection[str], instances: dict[str, list[str]]) -> list[str]:
    """The units that have a name which the catalog knows: of each the unit itself, then instances of its template.

    :param instances: of all templates, by the template's name without C(@.service).
    """
    found = []
    for name in spec["units"]:
        found += [f"{name}.service"] * bool(_systemd.existing([name], files))
        found += instances.get(name, [])
    return found


def _start_words(unit: Unit) -> list[str]:
    shown = _unit_text.shown_commands(unit.properties.get("ExecStart", ""))
    return shown[0][1].split() if shown else []


def _is_elf(path: str) -> bool:
    return _elf.header_of(path) is not None


def _contained(what: str, name: str) -> Obstacle:
    fix = f"upgrade the image where the container is defined, or leave {name} out"
    return Obstacle("container", f"{what}: its program is not a file of this host", fix)


def _sandboxed(name: str, what: str, key: str) -> Obstacle:
    return Obstacle(key, what, f"upgrade it by {key}, or leave {name} out")


def _unreachable(name: str, where: str, process: Process) -> Obstacle:
    """Why the host has no file that a process runs."""
    if process.hidden:
        reason = f"root may not see which program process {process.pid} of {where} runs; it calls itself {process.path}"
        return Obstacle("hidden", reason, _CAPABILITY)
    for beginning, key, owner in _MANAGED:
        if process.program.startswith(beginning):
            return _sandboxed(name, f"process {process.pid} of {where} runs {process.program}, of {owner}", key)
    what = f"process {process.pid} of {where} runs {process.program} in another root file system"
    return _contained(what, name)


def _managed(name: str, program: str) -> Obstacle | None:
    """That a program is in a directory of another package manager; none if it isn't."""
    real = os.path.realpath(program) if program else ""
    for beginning, key, owner in _MANAGED:
        if real.startswith(beginning):
            what = f"{program} is of {owner}, which would not keep another file there"
            return Obstacle(key, what, f"upgrade it with that tool, or leave {name} out")
    return None


def _mounted(name: str, found: Candidate) -> Obstacle | None:
    """That the process runs a file which only its mount namespace has at the program's path, as with BindPaths=. What
    the host itself has mounted there is for the preflight."""
    process = found.process
    if not (process and process.file) or process.replaced or process.program != os.path.realpath(found.program):
        return None
    own = os.path.realpath(found.program)
    if _process.file_id(found.program) == process.file or any(one.point == own for one in _targets.mounts()):
        return None
    return Obstacle(
        "mounted",
        f"process {process.pid} runs a file that is mounted at {found.program} for its unit alone (BindPaths= and the "
        "like): the file that the host has there is another",
        f"let the unit start the file itself that is mounted, or leave {name} out",
    )


def _masked(name: str, unit: str, process: Process | None) -> Obstacle:
    runs = f", and process {process.pid} runs {process.path}" if process else ""
    fix = f"systemctl unmask {unit}, and start {name} by it; or leave {name} out"
    return Obstacle("masked", f"{unit} is masked, so systemd does not start it{runs}", fix)


def listener(name: str, port: int, version: str, process: Process | None) -> Obstacle:
    """That something answers as a component, and nothing else of the component was found."""
    unit = (process.unit or "") if process else ""
    who = f"process {process.pid} ({process.path}, {unit or 'no unit'})" if process else "something"
    named = unit.removesuffix(".service") or "..."
    return Obstacle(
        "listener",
        f"{who} answers at port {port} as {name} {version}, and no process, unit or program with a name of {name} does",
        f"name its unit: upgrade_overrides: {{{name}: {{units: [{named}]}}}}, or leave {name} out",
    )


def _other_units(units: list[str], program: str, process: Process | None) -> Obstacle:
    """That the host has none of the units that the operator has named."""
    where = f"process {process.pid} of {process.unit or 'no unit'} runs" if process else "there is"
    reason = f"{where} {program}, but the host has none of the units that are named for it: {', '.join(units)}"
    return Obstacle("no_unit", reason, "correct units in upgrade_overrides, or leave them out")


def _unitless(name: str, process: Process) -> Obstacle:
    if process.user_unit:
        return Obstacle(
            "user_unit",
            f"process {process.pid} runs {process.path} in {process.user_unit} of a user's own systemd",
            f"run {name} by a unit of the system, or leave {name} out",
        )
    return Obstacle(
        "no_unit",
        f"process {process.pid} runs {process.path}, and no unit of systemd does",
        f"run {name} by a unit of systemd, or leave {name} out",
    )
