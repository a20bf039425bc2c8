# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. How a candidate is run as a service would run it, where it can do no harm: command lines of systemd-run.

It has the unit's user, groups, capabilities, limits, environment and working directory. It sees the host as it is, but
can write nowhere but in a /tmp of its own, and where it is let; and, unless it must, it reaches nobody: its network has
a loopback interface and nothing else.

The candidate's files are seen in ``/run/<name of the sandbox>/``, each bound there by itself, since their own directory
is root's alone. systemd makes that directory and removes it.
"""

from __future__ import annotations

import re
import typing as t

from . import _argv

PROPERTIES = (
    *("User", "Group", "SupplementaryGroups", "DynamicUser", "Environment", "EnvironmentFiles", "WorkingDirectory"),
    *("AmbientCapabilities", "CapabilityBoundingSet", "UMask", "MemoryMax"),
    *("LimitAS", "LimitASSoft", "LimitMEMLOCK", "LimitMEMLOCKSoft", "LimitNOFILE", "LimitNOFILESoft"),
    *("LimitNPROC", "LimitNPROCSoft"),
)
"""What to ask systemd of a unit for C(of_unit)."""

_AS_THEY_ARE = (
    *("User", "Group", "SupplementaryGroups", "AmbientCapabilities", "CapabilityBoundingSet", "UMask", "MemoryMax"),
)
_LIMITS = ("LimitAS", "LimitMEMLOCK", "LimitNOFILE", "LimitNPROC")
_CAN_BE_EMPTY = ("CapabilityBoundingSet",)  # no capability at all; of all others that is what they are without it

# systemd-run looks for the program outside of the sandbox, where it isn't. env is there, and becomes the program.
_STARTER = "/usr/bin/env"

# Of a service's results those that are no word of its program; and statuses with which systemd ends what it couldn't
# start (both systemd.exec(5)).
_RESULTS = {
    "timeout": "it didn't end in time",
    "oom-kill": "it needed more memory than it may have",
    "resources": "the unit's environment can't be had: is each of its environment files there?",
}
_SYSTEMDS_OWN = 200
_STATUSES = {
    200: "the working directory isn't there",
    203: "the program can't be run",
    205: "a limit can't be set",
    216: "the group isn't known",
    217: "the user isn't known",
    218: "its capabilities can't be set",
    225: "it can have no network of its own",
    226: "a path in it isn't there, or mounts of its own are not allowed here",
    233: "its directory can't be made",
}


class Sandbox(t.NamedTuple):
    """Where a candidate runs.

    ``name`` is that of the transient unit, without C(.service). ``programs`` are the candidate's files on the host, by
    name. ``settings`` are the unit's own, as properties. ``environment`` has a C(NAME=value) each. ``writable`` are
    paths that exist. ``network`` is private, or the host's.
    """

    name: str
    programs: dict[str, str]
    settings: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    network: str = "private"

    def path(self, program: str) -> str:
        """Where a file of the candidate is, seen from within."""
        return f"/run/{self.name}/{program}"


def of_unit(
    properties: dict[str, str],
    *,
    name: str,
    programs: dict[str, str],
    writable: t.Sequence[str] = (),
    network: str = "private",
) -> Sandbox:
    """The sandbox in which a program is who it would be in a unit.

    :param properties: of the unit, as C(systemctl show) tells them: those of C(PROPERTIES).
    """
    environment = _argv.split_words(properties.get("Environment", ""))
    return Sandbox(
        name=name,
        programs=programs,
        settings=tuple(_settings(properties)),
        environment=tuple(word for word in environment if "=" in word),
        writable=tuple(writable),
        network=network,
    )


def _settings(properties: dict[str, str]) -> t.Iterator[str]:
    for name in _AS_THEY_ARE:
        value = properties.get(name, "")
        if value or (name in _CAN_BE_EMPTY and name in properties):
            yield f"{name}={value}"
    if properties.get("DynamicUser") == "yes":
        yield "DynamicUser=yes"
    for name in _LIMITS:
        soft, hard = properties.get(f"{name}Soft"), properties.get(name)
        if soft and hard:
            yield f"{name}={soft}:{hard}"
    directory = properties.get("WorkingDirectory", "")
    if directory:  # what may be missing is shown with another sign than it is written
        yield f"WorkingDirectory={re.sub('^!', '-', directory)}"
    for line in filter(None, properties.get("EnvironmentFiles", "").splitlines()):
        path, _shown, ignored = line.partition(" (ignore_errors=")
        yield f"EnvironmentFile={'-' if ignored.startswith('yes') else ''}{path}"


def once(sandbox: Sandbox, argv: t.Sequence[str], *, timeout: int) -> list[str]:
    """The command line that runs a program of the candidate to its end; C(outcome) reads what it comes to.

    :param argv: the name of a file of the candidate, and its arguments.
    :param timeout: seconds after which systemd ends it.
    """
    return ["systemd-run", "--pipe", "--wait", "--collect", *_transient(sandbox, timeout), *_command(sandbox, argv)]


class Outcome(t.NamedTuple):
    """How a program ended. ``trouble`` says why it is no word of the program; otherwise it is empty.

    ``err`` is what the program said there, without systemd's own words.
    """

    status: int
    err: str
    trouble: str


def outcome(status: int, err: str) -> Outcome:
    """Tell the end of a program from troubles of the sandbox.

    :param status: of systemd-run; it is the program's, where there was one.
    :param err: what came on its standard error.
    """
    said, finished, after = err.rpartition("Finished with result: ")
    if not finished:
        return Outcome(status, "", after.strip() or "systemd-run failed")
    said = re.sub("^Running as unit: .*\\n", "", said, count=1, flags=re.MULTILINE)
    result = after.split("\n", 1)[0].strip()
    return Outcome(status, said, _trouble(result, status, said))


def _trouble(result: str, status: int, said: str) -> str:
    if result in ("signal", "core-dump", "success"):
        return ""
    if result != "exit-code":
        return _RESULTS.get(result, f"systemd says {result}")
    if status >= _SYSTEMDS_OWN:
        return f"systemd couldn't set it up: {_STATUSES.get(status, 'see systemd.exec(5)')} (status {status})"
    if status in (126, 127) and said.startswith(f"{_STARTER}: "):
        return said.strip()
    return ""


def service(sandbox: Sandbox, argv: t.Sequence[str], *, timeout: int) -> list[str]:
    """The command line that starts a program of the candidate as a unit called like the sandbox, without waiting.

    The unit stays until it is stopped, or has failed and C(systemctl reset-failed) was said of it.

    :param timeout: seconds after which systemd ends it, whoever started it is there or not.
    """
    return ["systemd-run", "--quiet", *_transient(sandbox, timeout), *_command(sandbox, argv)]


def _transient(sandbox: Sandbox, timeout: int) -> t.Iterator[str]:
    yield f"--unit={sandbox.name}"
    yield f"--description={sandbox.name}"  # otherwise the journal gets the command line, and what is secret in it
    for setting in (*_fence(sandbox, timeout), *sandbox.settings):
        yield f"--property={setting}"
    for word in sandbox.environment:
        yield f"--setenv={word}"


def _fence(sandbox: Sandbox, timeout: int) -> t.Iterator[str]:
    yield from (f"RuntimeMaxSec={timeout}", "TimeoutStopSec=2", "Restart=no")
    yield from ("ProtectSystem=strict", "ProtectHome=read-only", "PrivateTmp=yes", "NoNewPrivileges=yes")
    if sandbox.network == "private":
        yield "PrivateNetwork=yes"
    yield f"RuntimeDirectory={sandbox.name}"
    for name, path in sandbox.programs.items():
        yield f"BindReadOnlyPaths={_quoted(path)}:{_quoted(sandbox.path(name))}"
    for path in sandbox.writable:
        yield f"ReadWritePaths={_quoted(path)}"


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _command(sandbox: Sandbox, argv: t.Sequence[str]) -> list[str]:
    """What the unit runs. systemd fills in variables; what is written here has them filled in already."""
    words = [sandbox.path(argv[0]), *argv[1:]]
    return ["--", _STARTER, *(word.replace("$", "$$") for word in words)]
