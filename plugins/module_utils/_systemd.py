# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Units of systemd: what they are, restarting them, and what they last said."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import typing as t

from . import _argv, _files, _output, _process, _processes, _secrets, _unit_text
from ._errors import HostError

if t.TYPE_CHECKING:
    from ._command import Completed, Run

_PROPERTIES = (
    "LoadState,ActiveState,SubState,Result,MainPID,NRestarts,FragmentPath,DropInPaths,ExecStart,Environment,"
    "EnvironmentFiles,PassEnvironment,UnsetEnvironment,User,Group,DynamicUser,WorkingDirectory,RootDirectory,RootImage,"
    "ExecSearchPath,TriggeredBy,TimeoutStopUSec,SendSIGKILL,CanReload,NeedDaemonReload,Id,Names,"
    "UnitFileState,SourcePath,Type"
)
_SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where systemd looks for a program without a path (DEFAULT_PATH in its path-util.h)."""

_SET_BY_SYSTEMD = (
    *("HOME", "LOGNAME", "SHELL", "USER", "PATH", "LANG", "CREDENTIALS_DIRECTORY"),
    *("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY"),
)
"""Variables that a service has without a setting of its own; their values are those of the running process."""

_JOURNAL_LINES = 15

OWN_DROP_IN = "observability-upgrade-"
"""What the name of a drop-in begins with that isn't the operator's, but that of a guard; see C(_guard.py)."""

_AT_LEAST = 1.0
START_TIMEOUT = 120.0
"""Seconds to give systemd for a start, on top of the unit's own time for a stop."""


def in_unit_name(key: str) -> str:
    """The key of a component as a part of a unit's name, where C(@) would make the unit an instance of a template."""
    return key.replace("@", ".")


class Unit(t.NamedTuple):
    """One look at a unit. ``n_restarts`` counts systemd's own restarts since somebody last started it."""

    name: str
    load: str
    active: str
    sub: str
    result: str
    main_pid: int
    n_restarts: int
    properties: dict[str, str]

    @property
    def is_loaded(self) -> bool:
        return self.load == "loaded"

    @property
    def is_running(self) -> bool:
        return self.active == "active" and self.main_pid > 0

    @property
    def names(self) -> list[str]:
        """Its name and its aliases."""
        return list(dict.fromkeys([self.name, *self.properties.get("Names", "").split()]))

    @property
    def programs(self) -> list[str]:
        """The programs that its ExecStart names, with the directory that is their root before them."""
        root = self.properties.get("RootDirectory", "").rstrip("/")
        shown = _unit_text.shown_commands(self.properties.get("ExecStart", ""))
        search_path = self.properties.get("ExecSearchPath", "")
        return [f"{root}{_resolved(path, search_path)}" for path, _words in shown]

    @property
    def identity(self) -> str:
        """The name under which systemd and the journal know the unit: C(name) may be an alias of it."""
        return self.properties.get("Id") or self.name

    @property
    def needs_reload(self) -> bool:
        """Whether systemd says that the unit's files are others than those that it has loaded."""
        return self.properties.get("NeedDaemonReload") == "yes"

    def describe(self) -> str:
        return f"{self.active}/{self.sub}, main pid {self.main_pid}, {self.n_restarts} restarts by systemd"

    def files(self) -> list[str]:
        """The unit file and its drop-ins, but for the one that an upgrade under way has put there."""
        paths = [self.properties.get("FragmentPath", ""), *self.properties.get("DropInPaths", "").split()]
        return [path for path in paths if path and not os.path.basename(path).startswith(OWN_DROP_IN)]

    def environment_files(self) -> list[str]:
        """The environment files in the order they are read: C(/etc/default/x (ignore_errors=yes)), one a line."""
        lines = self.properties.get("EnvironmentFiles", "").splitlines()
        return [line.partition(" (ignore_errors=")[0] for line in lines if line]


# Where unit files are (systemd.unit(5)), the directories of generators last: those make services of init scripts.
_UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/etc/systemd/system.attached",
    "/run/systemd/system.attached",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.early",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
)
_SERVICE = re.compile(r"[A-Za-z0-9:_.\\@-]{1,247}\.service")
"""Names that systemd takes (systemd.unit(5)). It refuses a command that has any other among them."""
_EXEC = re.compile(r"^[ \t]*Exec(?:Start|StartPre|StartPost)?[ \t]*=((?:.*\\\n)*.*)", re.MULTILINE)
_WORD = re.compile(r"[^\s\"'`;|&()<>=\\]+")
_MOST_OF_A_UNIT = 1 << 16


def service_files() -> dict[str, list[str]]:
    """The files of all services of the host, each with its drop-ins, by the service's name. A name without a file of
    its own is an instance of a template that some other unit wants.

    To ask systemd for a unit that has no file costs it a search of its own.
    """
    found: dict[str, list[str]] = {}
    for directory in _UNIT_DIRECTORIES:
        for name in _listed(directory):
            unit = name.removesuffix(".d")
            if name.endswith(".service") and _SERVICE.fullmatch(name):
                found.setdefault(name, []).append(f"{directory}/{name}")
            elif _SERVICE.fullmatch(unit):
                drop_ins = (f"{directory}/{name}/{each}" for each in _listed(f"{directory}/{name}"))
                found.setdefault(unit, []).extend(each for each in drop_ins if each.endswith(".conf"))
            elif name.endswith((".wants", ".requires")):
                wanted = (each for each in _listed(f"{directory}/{name}") if _SERVICE.fullmatch(each) and "@" in each)
                found.update((each, found.get(each, [])) for each in wanted if "@.service" not in each)
    return found


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def existing(names: t.Iterable[str], files: t.Collection[str] | None = None) -> list[str]:
    """Those of the names that have a unit file, or a template.

    :param files: the names of C(service_files), if they are known.
    """
    there = service_files() if files is None else files
    return [name for name in names if _full(name) in there or _template(_full(name)) in there]


def _template(name: str) -> str:
    return re.sub("@.*", "@.service", name)


def started_words(path: str) -> list[str]:
    """The words of what a unit file starts, without quotes; what is in a C(sh -c "...") counts as words, too."""
    text = _files.read_text(path, most=_MOST_OF_A_UNIT)
    return [word.lstrip("@-:+!") for line in _EXEC.findall(text) for word in _WORD.findall(line)]


def unit_path(run: Run) -> list[str]:
    """The directories in which systemd looks for unit files, in its order: the first that has a file wins."""
    done = run(["systemctl", "show", "--property=UnitPath"], timeout=30)
    name, _equals, value = done.out.strip().partition("=")
    return value.split() if name == "UnitPath" and value else list(_UNIT_DIRECTORIES)


def _full(name: str) -> str:
    return name if name.endswith(".service") else f"{name}.service"


def show(run: Run, names: t.Sequence[str], *, more: t.Sequence[str] = ()) -> list[Unit]:
    """Look at units, all in one call. A unit that doesn't exist comes back as not loaded.

    :param more: further properties to ask for.
    :raises HostError: where there is no systemd.
    """
    units = [_full(name) for name in names]
    done = run(["systemctl", "show", "--all", f"--property={','.join([_PROPERTIES, *more])}", "--", *units], timeout=30)
    if done.rc != 0:
        raise HostError(
            f"systemd doesn't answer on this host ({done.err.strip() or 'systemctl failed'}): "
            "only services that systemd runs can be upgraded",
            key="host.no_systemd",
        )
    blocks = done.out.strip("\n").split("\n\n")
    return [_unit(name, _parse(block)) for name, block in zip(units, blocks)]


def version(run: Run) -> int:
    """The main version of the host's systemd, such as 252; 0 if it can't be read."""
    done = run(["systemctl", "show", "--property=Version"], timeout=30)
    found = re.match(r"Version=\D{0,20}(\d{1,5})", done.out)
    return int(found.group(1)) if found else 0


def _parse(block: str) -> dict[str, str]:
    properties: dict[str, str] = {}
    for line in block.splitlines():
        name, _equals, value = line.partition("=")
        properties[name] = f"{properties[name]}\n{value}" if name in properties else value
    return properties


def _unit(name: str, properties: dict[str, str]) -> Unit:
    return Unit(
        name=properties.get("Id") or name,  # the journal knows a unit by this name only, not by an alias
        load=properties.get("LoadState", "not-found"),
        active=properties.get("ActiveState", "inactive"),
        sub=properties.get("SubState", "dead"),
        result=properties.get("Result", ""),
        main_pid=_number(properties.get("MainPID")),
        n_restarts=_number(properties.get("NRestarts")),
        properties=properties,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def environment_of(unit: Unit, read: t.Callable[[str], str], run: Run | None = None) -> dict[str, str]:
    """The environment that the unit's command line is expanded with: its settings, then its environment files, without
    what it unsets.

    :param read: reads a file, and gives an empty text for one that can't be read.
    :param run: to ask systemd for its own environment, where the unit's settings are not enough.
    """
    environment = {}
    for word in _unit_text.shown_words(unit.properties.get("Environment", "")):
        name, equals, value = word.partition("=")
        if equals:
            environment[name] = value
    for pattern in unit.environment_files():
        for path in _files.matching(pattern):
            environment.update(_unit_text.environment(read(path)))
    passed = unit.properties.get("PassEnvironment", "").split()
    if run and (passed or _needed(unit, read) - set(environment)):
        environment = {**_inherited(run, unit, passed), **environment}
    for word in _unit_text.shown_words(unit.properties.get("UnsetEnvironment", "")):
        name, equals, value = word.partition("=")
        if not equals or environment.get(name) == value:
            environment.pop(name, None)
    return environment


def _needed(unit: Unit, read: t.Callable[[str], str]) -> set[str]:
    return {name for command in commands(unit, read) for name in _unit_text.references(command)}


def _inherited(run: Run, unit: Unit, passed: list[str]) -> dict[str, str]:
    """What a service's environment has that is none of the unit's settings."""
    shown = run(["systemctl", "show-environment"], timeout=30)
    words = _unit_text.shown_words(shown.out.replace("=$'", "='")) if shown.rc == 0 else []
    system = {name: value for name, equals, value in (word.partition("=") for word in words) if equals}
    managers, own = _process.environment(1), _process.environment(unit.main_pid) if unit.main_pid else {}
    return {
        **{name: own[name] for name in _SET_BY_SYSTEMD if name in own},
        **system,
        **{name: managers[name] for name in passed if name in managers},
    }


def commands(unit: Unit, read: t.Callable[[str], str]) -> list[_unit_text.Command]:
    """The commands of the unit's C(ExecStart), as systemd has loaded them, before variables are filled in."""
    shown = _unit_text.shown_commands(unit.properties.get("ExecStart", ""))
    declared: list[_unit_text.Command] = []
    with contextlib.suppress(ValueError):  # a quote that isn't closed: systemd refuses it, too
        for value in _unit_text.settings(map(read, unit.files()), "Service", "ExecStart"):
            declared.extend(_unit_text.commands(value))
    found = _unit_text.exact(shown, declared)
    return [each._replace(path=_resolved(each.path, unit.properties.get("ExecSearchPath", ""))) for each in found]


def _resolved(program: str, search_path: str) -> str:
    """The path of a program that a unit names without one. Systemd looks for it when it starts it."""
    directories = search_path.split() or _SEARCH_PATH
    places = [os.path.join(directory, program) for directory in directories]
    return next(filter(os.path.isfile, places), program) if program and "/" not in program else program


def start_line(
    unit: Unit, read: t.Callable[[str], str], *, run: Run | None = None, names: t.Collection[str] = ()
) -> list[str]:
    """What systemd starts the unit with, now: the program's path and its arguments, with the environment filled in, and
    with those in files of arguments.

    :param run: see C(environment_of).
    :param names: of the program that matters, where the unit has several commands. Otherwise it is the first one.
    """
    declared = commands(unit, read)
    chosen = [each for each in declared if os.path.basename(each.path) in names] or declared
    if not chosen:
        return []
    base = unit.properties.get("WorkingDirectory", "").lstrip("!-") or "/"
    line = _unit_text.expand(chosen[0], environment_of(unit, read, run))
    return _argv.with_files(line, lambda path: read(os.path.join(base, path)))


def command_line(
    unit: Unit, read: t.Callable[[str], str], *, run: Run | None = None, pid: int = 0, names: t.Collection[str] = ()
) -> list[str]:
    """The command line of the unit's process; where none runs or it can't be read, what systemd starts the unit with.

    The first word is the path of the program, also where the process was given another name.

    :param pid: the component's process. By default the unit's main process.
    """
    declared = start_line(unit, read, run=run, names=names)
    process = pid or unit.main_pid
    actual = _process.command_line(process) if process else []
    if not actual:
        return declared
    if not actual[0].startswith("/"):
        told = (_process.told_executable(process) or "").removesuffix(" (deleted)")
        same = declared and os.path.basename(told) in ("", os.path.basename(os.path.realpath(declared[0])))
        actual[0] = declared[0] if same else told or actual[0]
    return actual


def secrets_of(unit: Unit, *, files: t.Iterable[str | None] = ()) -> list[str]:
    """The secrets that a unit's program was given, and may repeat: in its environment, on its command line, in the
    configuration files that this names, and in the files that those name for secrets.

    :param files: further configuration files.
    """
    argv = [*command_line(unit, _files.read_text), *_processes.arguments(unit, ())]
    paths = dict.fromkeys(path for path in (*files, *_argv.config_files(argv), *unit.environment_files()) if path)
    texts = {path: _files.read_text(path) for path in paths}
    named = [
        os.path.join(os.path.dirname(path), name) for path, text in texts.items() for name in _secrets.files_in(text)
    ]
    return _output.secrets_of(
        texts.values(),
        argv=argv,
        environment=environment_of(unit, _files.read_text),
        files=[_files.read_text(path, most=_SECRET_FILE) for path in named[:_SECRET_FILES]],
    )


_SECRET_FILE = 1 << 16
_SECRET_FILES = 100


def restart(
    run: Run,
    unit: Unit,
    *,
    timeout: float,
    reload: bool = False,
    patience: float | None = None,
    clock: t.Callable[[], float] = time.monotonic,
) -> bool:
    """Restart a unit, whatever its start limit says, and wait until systemd calls it done.

    It is one job of systemd's, and the only one: where the unit doesn't stop, its processes are killed, and the same
    job goes on with the start.

    :param timeout: seconds for all of it; more than the unit's own stop time-out, or a long, clean stop is cut short.
    :param reload: read the unit files anew first.
    :param patience: seconds until a unit that is still stopping is killed; C(stop_patience) unless given.
    :returns: whether it was killed.
    :raises HostError: if systemd couldn't start it.
    """
    end = clock() + timeout

    def systemctl(*words: str, most: float) -> Completed:
        return run(["systemctl", *words], timeout=max(min(most, end - clock()), _AT_LEAST))

    systemctl("reset-failed", "--", unit.name, most=30)
    if reload:
        systemctl("daemon-reload", most=90)
    wait = stop_patience(unit) if patience is None else patience
    done, killed = systemctl("restart", "--", unit.name, most=wait), False
    if done.rc is None:
        killed = show(run, [unit.name])[0].active == "deactivating"
        if killed:
            systemctl("kill", "--kill-who=all", "--signal=SIGKILL", "--", unit.name, most=30)
        # It joins the job that is under way, and is none of its own where that has ended well.
        done = systemctl("start", "--", unit.name, most=timeout)
    if done.rc != 0:
        raise HostError(
            f"systemd couldn't restart {unit.name}: {done.err.strip() or f'exit code {done.rc}'}",
            key="service.restart_failed",
            details={"journal": journal_tail(run, unit.identity, secrets=secrets_of(unit))},
        )
    return killed


def read_anew(run: Run, unit: Unit, *, signal: bool) -> None:
    """Let a service read its configuration anew, and wait until systemd calls it done.

    :param signal: send SIGHUP to its main process, instead of what the unit says.
    :raises HostError: if it couldn't; the service goes on with what it has read before.
    """
    hang_up = ["systemctl", "kill", "--kill-who=main", "--signal=SIGHUP", "--", unit.name]
    done = run(hang_up if signal else ["systemctl", "reload", "--", unit.name], timeout=reload_timeout(unit))
    if done.rc != 0:
        raise HostError(
            f"{unit.name} couldn't read its configuration anew: {done.err.strip() or f'exit code {done.rc}'}",
            key="service.reload_failed",
            details={"journal": journal_tail(run, unit.identity, secrets=secrets_of(unit))},
        )


def quote(word: str) -> str:
    """A word of a command line, as a unit file has it (systemd.service(5), systemd.syntax(7))."""
    escaped = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{escaped}"' if re.search(r"[\s'\"]", word) else escaped


def stop_timeout(unit: Unit) -> float:
    """How long systemd waits for the unit to stop, in seconds. C(infinity) is taken as an hour."""
    return _seconds(unit.properties.get("TimeoutStopUSec", ""), default=90.0)


def reload_timeout(unit: Unit) -> float:
    """How long to wait for a unit to read its configuration anew, in seconds."""
    return stop_timeout(unit) + 30


def stop_patience(unit: Unit) -> float:
    """How long to wait for a unit to stop before its processes are killed, in seconds.

    Systemd does that itself after the unit's own time-out. It is waited for, and a little longer: systemd may have
    begun late. With C(SendSIGKILL=no) systemd doesn't, and starts the new process beside the old one; so it has to be
    done shortly before.
    """
    seconds = stop_timeout(unit)
    if unit.properties.get("SendSIGKILL") == "no":
        return seconds - min(_BEFOREHAND, seconds / 4)
    return seconds + _AFTERWARDS


_BEFOREHAND = 5.0
_AFTERWARDS = 10.0
_UNITS_OF_TIME = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _seconds(text: str, *, default: float) -> float:
    """A time span as systemctl shows it: C(1min 30s)."""
    if text == "infinity":
        return 3600.0
    total, found = 0.0, False
    for word in text.split():
        digits = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        scale = _UNITS_OF_TIME.get(word[len(digits) :])
        if scale and digits.replace(".", "", 1).isdigit():
            total, found = total + float(digits) * scale, True
    return total if found else default


def journal_tail(
    run: Run, unit: str, *, since: float | None = None, lines: int = _JOURNAL_LINES, secrets: t.Sequence[str] = ()
) -> list[str]:
    """The last lines that a unit, or systemd about it, wrote; without its secrets, and what looks like one.

    :param unit: its C(identity): the journal knows no alias.
    :param secrets: of the unit, as C(secrets_of) gives them.
    :param since: seconds since the epoch; older lines are left out.
    """
    # Newest first: systemd 252 takes --lines from the wrong end when --since is there too.
    argv = ["journalctl", f"--unit={unit}", f"--lines={lines}", "--reverse", "--no-pager", "--output=json", "--quiet"]
    if since is not None:
        argv.append(f"--since=@{int(since)}")
    done = run(argv, timeout=20)
    text = "\n".join(filter(None, map(_message, reversed(done.out.splitlines()))))
    # As one text: a key has many lines, and each is an entry.
    return _output.redact(text, secrets).split("\n") if text else []


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    return f"{entry.get('SYSLOG_IDENTIFIER', '?')}: {message_of(entry)}"


def message_of(entry: dict[str, t.Any]) -> str:
    """The text of an entry of the journal, as journalctl's JSON has it."""
    message = entry.get("MESSAGE") or ""
    if isinstance(message, list):  # journald gives text that isn't UTF-8 as a list of byte values
        message = bytes(message).decode("utf-8", "replace")
    return str(message)
