# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Running a program that is not trusted, as a transient unit of systemd that can do no harm.

There are two kinds of sandbox. In that of a unit (C(of_unit)) a candidate has the unit's user, groups, limits,
environment and working directory, and of its capabilities the harmless ones. In a bare one (C(bare)) a program has a
user and nothing else. Both see the host as it is, but read-only, and have a /tmp of their own. What holds them is the
table C(_FENCE); what it does not hold is in docs/trials.md.

The candidate's files are seen in ``/run/<name of the sandbox>/``. Each is bound there by itself, since their own
directory is root's alone. systemd makes that directory and removes it.

Environment and arguments may hold secrets. They reach systemd in files that only root can read, never on a command
line, and so they stand neither in the process list nor in the transient unit's file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import tempfile
import time
import typing as t

from . import _files, _systemd, _unit_text

if t.TYPE_CHECKING:
    from ._command import Run

PROPERTIES = (
    *("User", "Group", "SupplementaryGroups", "DynamicUser", "Environment", "EnvironmentFiles", "WorkingDirectory"),
    *("AmbientCapabilities", "CapabilityBoundingSet", "UMask", "MemoryMax"),
    *("LimitAS", "LimitASSoft", "LimitMEMLOCK", "LimitMEMLOCKSoft", "LimitNOFILE", "LimitNOFILESoft"),
    *("LimitNPROC", "LimitNPROCSoft"),
)
"""What to ask systemd of a unit for C(of_unit)."""

NOBODY = "nobody"
"""Who runs what would run as root, or as a user that is not known."""

_AS_THEY_ARE = ("User", "Group", "SupplementaryGroups", "UMask", "MemoryMax")
_LIMITS = ("LimitAS", "LimitMEMLOCK", "LimitNOFILE", "LimitNPROC")

# System calls that the programs of the catalog can do without. They are refused with EPERM, so that a program that
# merely tries one goes on. Those of the second line act on other processes of the same user; no namespace hides these
# from the program before systemd 257.
_CALLS = (
    *("@cpu-emulation", "@debug", "@module", "@mount", "@obsolete", "@raw-io", "@reboot", "@resources"),
    *("@swap", "bpf", "open_by_handle_at", "process_vm_readv", "process_vm_writev", "kcmp", "userfaultfd"),
)
_SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
_PROCESSES_OF_ITS_OWN = 257

# ProtectClock isn't among them: it would also keep node_exporter from reading the clock's state. Nobody here has the
# capability to set the clock.
#
# Since which version of systemd (systemd.exec(5)), and what it sets. systemd-run refuses properties that it doesn't
# know; the oldest systemd beside a Python 3.9 is 239.
_FENCE = (
    (0, "Restart=no"),
    (0, "TimeoutStopSec=2"),
    (0, "NoNewPrivileges=yes"),
    (0, "ProtectSystem=strict"),
    (0, "ReadOnlyPaths=/run"),  # systemd 252 forgets it with ProtectProc
    (0, "PrivateTmp=yes"),
    (0, "PrivateDevices=yes"),
    (0, "ProtectKernelModules=yes"),
    (0, "ProtectKernelTunables=yes"),
    (0, "ProtectControlGroups=yes"),
    (0, "RestrictNamespaces=yes"),
    (0, "RestrictRealtime=yes"),
    (0, "LockPersonality=yes"),
    (0, "SystemCallErrorNumber=EPERM"),
    (0, f"SystemCallFilter=~{' '.join(_CALLS)}"),
    (0, "TemporaryFileSystem=/dev/shm:mode=1777"),
    (0, "TemporaryFileSystem=/run/systemd:ro"),
    (0, "BindReadOnlyPaths=-/run/systemd/resolve"),
    (0, "BindReadOnlyPaths=-/run/systemd/system"),
    (242, "ProtectHostname=yes"),
    (242, "RestrictSUIDSGID=yes"),
    (244, "ProtectKernelLogs=yes"),
    (247, "ProtectProc=invisible"),
    (248, "PrivateIPC=yes"),
    (_PROCESSES_OF_ITS_OWN, "PrivatePIDs=yes"),
)

# Sockets and pipes in /run behind which root does what is asked for.
_ENGINES = ("docker.sock", "podman", "containerd", "crio", "lxd", "libvirt", "initctl", "incus")
_BUS = "InaccessiblePaths=-/run/dbus"
"""D-Bus. It obeys root; of any other user it only takes what it takes of the service, too."""

# Of root's capabilities those that remain; of a unit's ambient ones all but those below.
_ROOTS_CAPABILITIES = {"cap_dac_override", "cap_net_bind_service", "cap_net_raw", "cap_ipc_lock"}
_NEVER = {
    *("cap_sys_admin", "cap_sys_ptrace", "cap_sys_module", "cap_mknod", "cap_sys_rawio", "cap_sys_boot"),
    *("cap_sys_time", "cap_mac_admin", "cap_mac_override", "cap_bpf", "cap_perfmon", "cap_kill", "cap_setuid"),
    *("cap_setgid", "cap_setpcap", "cap_setfcap", "cap_sys_chroot", "cap_checkpoint_restore", "cap_syslog"),
    *("cap_audit_control", "cap_linux_immutable", "cap_chown", "cap_fowner", "cap_sys_resource", "cap_sys_nice"),
}

# systemd-run looks for the program outside of the sandbox, where it isn't. env is there, and becomes the program.
_STARTER = "/usr/bin/env"

_USER_NAMESPACES = "/proc/sys/user/max_user_namespaces"
_PLACE = "/run"
_PREFIX = "observability-sandbox-"
_ARGUMENT = "OBSERVABILITY_ARGUMENT_"
_FORGOTTEN = 3600
_SLACK = 4
"""Seconds that systemd has for the end of a program whose time is over."""

# Of a service's results those that are no word of its program; and statuses with which systemd ends what it couldn't
# start (both systemd.exec(5)).
_RESULTS = {
    "timeout": "it didn't end in time",
    "oom-kill": "it needed more memory than it may have",
    "resources": "the unit's environment can't be had: is each of its environment files there?",
}
_LONGEST_TROUBLE = 300
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
    """Where a program runs.

    ``name`` is that of the transient unit, without C(.service). ``programs`` are files on the host, by name.
    ``settings`` are further properties of the unit. ``environment`` has a C(NAME=value) each. ``network`` is private,
    or the host's. ``sockets`` tells whether it may connect to Unix sockets. ``hidden`` are paths that it must not see.
    """

    name: str
    programs: dict[str, str]
    settings: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    network: str = "private"
    sockets: bool = False
    hidden: tuple[str, ...] = ()

    def path(self, program: str) -> str:
        """Where a file of the program is, seen from within."""
        return f"/run/{self.name}/{program}"


def of_unit(
    properties: dict[str, str],
    *,
    name: str,
    programs: dict[str, str],
    network: str = "private",
    sockets: bool = False,
    hidden: t.Sequence[str] = (),
) -> Sandbox:
    """The sandbox in which a program is who it would be in a unit.

    :param properties: of the unit, as C(systemctl show) reports them: those of C(PROPERTIES).
    """
    environment = _unit_text.shown_words(properties.get("Environment", ""))
    return Sandbox(
        name=name,
        programs=programs,
        settings=tuple(_settings(properties)),
        environment=tuple(word for word in environment if "=" in word),
        network=network,
        sockets=sockets,
        hidden=tuple(hidden),
    )


def bare(properties: dict[str, str], *, name: str, programs: dict[str, str], hidden: t.Sequence[str] = ()) -> Sandbox:
    """The sandbox in which a program is only asked who it is: as the unit's user, never as root, with nothing else of
    the unit.

    :param properties: of the unit; none if there is no unit.
    """
    user = user_of(properties)
    settings = [f"User={user}", "CapabilityBoundingSet=", "ProtectHome=yes", "MemoryMax=1G", "TasksMax=1024"]
    group = properties.get("Group", "")
    if user != NOBODY and group and not _is_root(group):
        settings.append(f"Group={group}")
    if _may_have_users_of_its_own():
        settings.append("PrivateUsers=yes")
    return Sandbox(name=name, programs=programs, settings=tuple(settings), hidden=tuple(hidden))


def user_of(properties: dict[str, str]) -> str:
    """The user as whom an untrusted program of a unit may be run: the unit's, or C(nobody) in place of root, of a user
    that systemd makes up at the start, and of one that is not known."""
    user = properties.get("User", "")
    if runs_as_root(properties) or properties.get("DynamicUser") == "yes":
        return NOBODY
    try:
        return user if user.isdigit() or pwd.getpwnam(user) else NOBODY
    except KeyError:
        return NOBODY


def _is_root(name: str) -> bool:
    return name in ("", "root") or (name.isdigit() and int(name) == 0)


def _may_have_users_of_its_own() -> bool:
    """Whether the kernel gives out user namespaces. In one of its own a program has no capability over anything
    outside, and can't trace or look into processes of the same user. Root needs that, too: even without capabilities it
    may do all to services that have namespaces of their own, since systemd made these as root."""
    most = _files.read_text(_USER_NAMESPACES, most=100).strip()  # of more than there can be the kernel has no memory
    return most.isdigit() and int(most) > 0


def _settings(properties: dict[str, str]) -> t.Iterator[str]:
    for name in _AS_THEY_ARE:
        if properties.get(name):
            yield f"{name}={properties[name]}"
    yield from _privileges(properties)
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


def _privileges(properties: dict[str, str]) -> t.Iterator[str]:
    """Capabilities: those that the unit gives it, but for those that would lead out; of root's only a few."""
    is_root = runs_as_root(properties)
    ambient = set(properties.get("AmbientCapabilities", "").lower().split()) - _NEVER
    bounding = properties.get("CapabilityBoundingSet")
    kept = ambient | (_ROOTS_CAPABILITIES if is_root else set())
    if bounding is not None:
        kept &= set(bounding.lower().split())
        ambient &= kept
    yield f"CapabilityBoundingSet={' '.join(sorted(kept))}"
    if ambient:
        yield f"AmbientCapabilities={' '.join(sorted(ambient))}"
    elif _may_have_users_of_its_own():
        yield "PrivateUsers=yes"
    if is_root:
        yield _BUS


def runs_as_root(properties: dict[str, str]) -> bool:
    """Whether a unit's processes are root's."""
    user = properties.get("User", "")
    if properties.get("DynamicUser") == "yes" or user.isdigit():
        return properties.get("DynamicUser") != "yes" and int(user) == 0
    try:
        return _is_root(user) or pwd.getpwnam(user).pw_uid == 0
    except KeyError:
        return False


# -- running ------------------------------------------------------------------------------------------------------


class Answer(t.NamedTuple):
    """What a program said until its end, and its exit status. ``trouble`` says why it could not be asked; otherwise it
    is empty."""

    status: int
    text: str
    trouble: str


def once(run: Run, sandbox: Sandbox, argv: t.Sequence[str], *, timeout: float) -> Answer:
    """Run a program to its end.

    :param argv: the name of a file of the sandbox, and its arguments.
    :param timeout: seconds after which systemd ends it.
    """
    words = ["systemd-run", "--pipe", "--wait", "--collect"]
    with _secrets(sandbox, argv) as files:
        done = run([*words, *_line(run, sandbox, argv, timeout, files)], timeout=timeout + _SLACK)
    if done.rc is None:
        return Answer(-1, "", done.err)
    ended = outcome(done.rc, done.err)
    return Answer(ended.status, (done.out + ended.err).replace(f"/run/{sandbox.name}/", ""), ended.trouble)


def start(run: Run, sandbox: Sandbox, argv: t.Sequence[str], *, timeout: float) -> str:
    """Start a program as a unit called like the sandbox, without waiting. Why that failed, if so.

    The unit stays until it is stopped, or has failed and C(systemctl reset-failed) was said of it.

    :param timeout: seconds after which systemd ends it, whether its starter is still there or not.
    """
    with _secrets(sandbox, argv) as files:
        done = run(["systemd-run", "--quiet", *_line(run, sandbox, argv, timeout, files)], timeout=30)
    return "" if done.rc == 0 else f"systemd couldn't start it: {done.err.strip() or 'systemd-run failed'}"


def _line(run: Run, sandbox: Sandbox, argv: t.Sequence[str], timeout: float, files: tuple[str, str]) -> t.Iterator[str]:
    yield f"--unit={sandbox.name}"
    yield f"--description={sandbox.name}"  # otherwise the journal gets the command line
    environment, arguments = files
    # Later files win: those of the unit over its settings, and over none of the arguments.
    settings = [f"EnvironmentFile={environment}", *sandbox.settings, f"EnvironmentFile={arguments}"]
    for setting in (f"RuntimeMaxSec={timeout:g}s", *_fence(sandbox, argv, version_of(run)), *settings):
        yield f"--property={setting}"
    yield from ("--", _STARTER)
    yield from (f"-u{_ARGUMENT}{number}" for number in range(len(argv)))
    yield from (f"${{{_ARGUMENT}{number}}}" for number in range(len(argv)))


def _fence(sandbox: Sandbox, argv: t.Sequence[str], version: int) -> t.Iterator[str]:
    yield from (setting for since, setting in _FENCE if version >= since)
    if version < _PROCESSES_OF_ITS_OWN:
        yield f"SystemCallFilter=~{' '.join(_SIGNALS)}"
    if not any(setting.startswith("ProtectHome=") for setting in sandbox.settings):
        yield f"ProtectHome={'read-only' if _names_homes(argv, sandbox.settings) else 'yes'}"
    if sandbox.network == "private":
        yield from ("PrivateNetwork=yes", "IPAddressDeny=any", "IPAddressAllow=localhost")
    if not sandbox.sockets:
        yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK"
    yield from (f"InaccessiblePaths=-/run/{name}" for name in _ENGINES)
    yield from (f"InaccessiblePaths=-{_quoted(path)}" for path in sandbox.hidden)
    yield f"RuntimeDirectory={sandbox.name}"
    for name, path in sandbox.programs.items():
        yield f"BindReadOnlyPaths={_quoted(path)}:{_quoted(sandbox.path(name))}"


def _names_homes(argv: t.Iterable[str], settings: t.Iterable[str]) -> bool:
    """Whether something that the program needs is in a home: a configuration may be anywhere."""
    directories = (
        f"{each.partition('=')[2].lstrip('-')}/" for each in settings if each.startswith("WorkingDirectory=")
    )
    return any(re.search(r"/(?:home|root|run/user)/|^~", word) for word in (*argv, *directories))


@functools.lru_cache(maxsize=4)
def version_of(run: Run) -> int:
    """The version of the host's systemd; 0 if it is not known."""
    return _systemd.version(run)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@contextlib.contextmanager
def _secrets(sandbox: Sandbox, argv: t.Sequence[str]) -> t.Iterator[tuple[str, str]]:
    """The environment and the arguments as environment files, in a directory that is root's alone and in memory. They
    are there within the context only; systemd reads them before it starts a program."""
    _sweep()
    words = [sandbox.path(argv[0]), *argv[1:]]
    numbered = [f"{_ARGUMENT}{number}={word}" for number, word in enumerate(words)]
    place = _PLACE if os.access(_PLACE, os.W_OK) else None
    directory = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
    try:
        for name, lines in (("environment", sandbox.environment), ("arguments", numbered)):
            content = "".join(map(environment_line, lines)).encode("utf-8", "surrogateescape")
            _files.write_durably(os.path.join(directory, name), content)
        yield os.path.join(directory, "environment"), os.path.join(directory, "arguments")
    finally:
        _files.remove_tree(directory, quietly=True)


def environment_line(assignment: str) -> str:
    r"""An assignment C(NAME=value) as a line of an environment file (systemd.exec(5)). Within double quotes a backslash
    takes one of C(\"`$) as it is; all else, newlines too, stands for itself."""
    name, _equals, value = assignment.partition("=")
    return f'{name}="{_QUOTED.sub(_ESCAPED, value)}"\n'


_QUOTED = re.compile(r'(["\\`$])')
_ESCAPED = r"\\\1"


def _sweep() -> None:
    """Remove what a module left that was killed meanwhile."""
    for name in os.listdir(_PLACE):
        path = os.path.join(_PLACE, name)
        with contextlib.suppress(OSError):
            if name.startswith(_PREFIX) and os.lstat(path).st_mtime < time.time() - _FORGOTTEN:
                _files.remove_tree(path)


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
        lines = after.strip().splitlines() or ["systemd-run failed"]
        is_cut = any(line.startswith("Running as unit: ") for line in lines)
        return Outcome(status, "", "it printed more than is read" if is_cut else lines[-1][:_LONGEST_TROUBLE])
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
        return said.strip()[:_LONGEST_TROUBLE]
    return ""
