# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Starting a candidate beside the service that runs, looking at it, and leaving nothing of it.

<state directory>/rehearsal/<component>/config   a copy of the configuration's directory
<state directory>/rehearsal/<component>/data     what the candidate may write: empty, or a copy of small state

Only root gets there; the candidate sees both as /run/observability-rehearsal-<component>/config and /data.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import time
import typing as t

from . import (
    _argv,
    _copies,
    _files,
    _health,
    _http,
    _metrics,
    _netns,
    _output,
    _process,
    _rehearsed,
    _sandbox,
    _sockets,
    _systemd,
    _trial,
    _unit_disk,
)
from ._rehearsed import Seen

if t.TYPE_CHECKING:
    from ._command import Run
    from ._systemd import Unit

    Data = dict[str, t.Any]

PREFIX = "observability-rehearsal-"
DIRECTORY = "rehearsal"

_SLACK = 60
"""Seconds that a rehearsal may take beside those that it waits: for its start, its copies, and its end."""

_STATE_LIMIT = 64 << 20
_CONFIG_LIMIT = 16 << 20
_SHARED = {"/", "/etc", "/opt", "/srv", "/usr/local/etc", "/var/lib", "/root", "/home"}
"""Directories that hold more than one program's configuration: of these only the file itself is copied."""

_ROOTS = ("RootDirectory", "RootImage")
_POLL = 0.05
_START_TIMEOUT = 10.0
_LATER = 60.0  # seconds for the last look and the journal
_SCRAPE_TIMEOUT = 15.0
_SYSTEMDS_OWN = 200
"""Statuses from here on are systemd's own word, about what it couldn't set up (systemd.exec(5))."""


class Wanted(t.NamedTuple):
    """What to rehearse.

    ``programs`` are the candidate's files on the host, by name, the program first. ``rehearse`` is the catalog's
    record. ``target`` is how the service that runs is probed. ``config`` and ``data`` are paths of that service, and
    ``state`` those of its data to copy. ``window`` is how long the candidate must stay good, in seconds.
    """

    component: str
    unit: str
    programs: dict[str, str]
    rehearse: Data
    target: Data
    config: str | None
    data: str | None
    state: tuple[str, ...]
    window: float

    @property
    def name(self) -> str:
        return f"{PREFIX}{_systemd.in_unit_name(self.component)}"

    @property
    def seconds(self) -> int:
        """How long all of it may take."""
        return int(self.rehearse["timeout"] + self.window + _SLACK)


def rehearse(run: Run, wanted: Wanted, *, state_dir: str) -> Seen:
    """Start the candidate, see what becomes of it, and throw it away, in every outcome.

    :param state_dir: below which copies go, for as long as it takes.
    """
    root = os.path.join(state_dir, DIRECTORY)
    throw_away(run, root)
    try:
        return _Stage(run, wanted, os.path.join(root, wanted.component)).play()
    finally:
        throw_away(run, root)


def throw_away(run: Run, root: str) -> None:
    """Leave nothing of any rehearsal on the host, also of one that was cut off."""
    words = ["--all", "--plain", "--no-legend", "--full"]
    listed = run(["systemctl", "list-units", *words, f"{PREFIX}*.service"], timeout=30)
    names = [line.split()[0] for line in listed.out.splitlines() if line.startswith(PREFIX)]
    for name in names:
        run(["systemctl", "stop", "--", name], timeout=30)
        run(["systemctl", "reset-failed", "--", name], timeout=30)
    _files.remove_tree(root, quietly=True)


class _Stage:
    """One rehearsal."""

    def __init__(self, run: Run, wanted: Wanted, directory: str) -> None:
        self.run = run
        self.wanted = wanted
        self.directory = directory
        self.notes: list[str] = []
        self.secrets: list[str] = []
        self.is_private = wanted.rehearse["network"] == "private"

    def play(self) -> Seen:
        unit = _unit_disk.next_start(self.run, self.wanted.unit, more=(*_sandbox.PROPERTIES, *_ROOTS))
        argv = _trial.started_with(self.run, unit, self.wanted.programs)
        trouble = self._hindrance(unit, argv)
        if trouble:
            return Seen(trouble=trouble)
        self.secrets = _systemd.secrets_of(unit, files=[self.wanted.config])
        live = self._families(self.wanted.target["url"], network=_sockets.network_of(unit.main_pid))
        begun, port = time.time(), _spare_port()
        trouble = self._start(unit.properties, argv, port)
        seen = Seen(trouble=trouble) if trouble else self._watch(port, live, begun)
        return seen._replace(notes=tuple(self.notes))

    def _hindrance(self, unit: Unit, argv: list[str]) -> str:
        """Why the candidate can't be started beside the service, if so."""
        if _trial.program_position(argv, self.wanted.programs) is None:
            return f"what {unit.name} runs isn't known"
        if any(unit.properties.get(name) for name in _ROOTS):
            return f"{unit.name} has a file system of its own"
        names = set(_argv.flag_names(argv)) & set(self.wanted.rehearse.get("unless_flags") or [])
        if names:
            return f"it can't be started beside a service with --{', --'.join(sorted(names))}"
        if self.is_private and not _may_have_networks(self.run):
            return "it must have a network of its own, which systemd can't give it on this host"
        return ""

    def _start(self, properties: dict[str, str], argv: list[str], port: int) -> str:
        """Start the candidate. Why it couldn't be, if so."""
        wanted, inside = self.wanted, f"/run/{self.wanted.name}"
        config, data = self._copied_config(), self._made_data(properties)
        values = {
            "port": str(port),
            "data": f"{inside}/data" if data else None,
            "config": f"{inside}/config/{os.path.basename(wanted.config or '')}" if config else None,
        }
        flags = _rehearsed.filled_in(wanted.rehearse["flags"], values)
        words = [next(iter(wanted.programs)), *_rehearsed.command(argv, wanted.target["binary"], flags)]
        sandbox = _sandbox.of_unit(
            properties,
            name=wanted.name,
            programs=wanted.programs,
            network=wanted.rehearse["network"],
            sockets=True,
            hidden=(os.path.dirname(os.path.dirname(self.directory)),),
        )
        own = [f"SyslogIdentifier={wanted.component}"]
        own += [f'BindReadOnlyPaths="{config}":"{inside}/config"'] if config else []
        own += [f'BindPaths="{data}":"{inside}/data"'] if data else []
        sandbox = sandbox._replace(settings=(*sandbox.settings, *own))
        # systemd-run quotes its own arguments in an error.
        return _output.redact(_sandbox.start(self.run, sandbox, words, timeout=wanted.seconds), self.secrets)

    # -- what it sees ---------------------------------------------------------------------------------------------

    def _copied_config(self) -> str | None:
        """A copy of the directory that the configuration is in, if the candidate is to have one."""
        path = self.wanted.config
        if not path or not _files.is_file(path) or not self._uses("{config}"):
            return None
        with _files.located(path, follow=True) as there:
            source, name = os.path.split(there.path)
        place = os.path.join(self.directory, "config")
        _files.ensure_private_directory(os.path.dirname(self.directory))
        _files.ensure_private_directory(self.directory)
        if source in _SHARED or _files.bytes_below(source) > _CONFIG_LIMIT:
            _files.make_directory(place)
            _copies.copy(path, os.path.join(place, os.path.basename(path)), most=_CONFIG_LIMIT)
            return place
        _copies.copy(source, place, most=_CONFIG_LIMIT, links=True)
        alias = os.path.join(place, os.path.basename(path))
        if not os.path.lexists(alias):  # the configuration is reached by a link of another name
            _files.make_link(alias, name)
        return place

    def _made_data(self, properties: dict[str, str]) -> str | None:
        """A directory that the candidate may write, with copies of small state if it is to have them."""
        kind, base = self.wanted.rehearse["data"], self.wanted.data
        if kind == "none" or not self._uses("{data}"):
            return None
        place, owner = os.path.join(self.directory, "data"), _owner(properties)
        _files.ensure_private_directory(os.path.dirname(self.directory))
        _files.ensure_private_directory(self.directory)
        _copies.make_directory(place, owner)
        for path in self.wanted.state if kind == "state" and base else ():
            size = _files.bytes_below(path)
            if size > _STATE_LIMIT:
                self.notes.append(f"rehearsed without {path}, which is too large for a copy")
            elif size or _files.is_file(path):
                self._copy_state(path, os.path.join(place, os.path.relpath(path, base)), owner)
            elif os.path.islink(path):
                self.notes.append(f"rehearsed without {path}, which leads through a link that is not followed")
        return place

    def _copy_state(self, path: str, copy: str, owner: _copies.Owner) -> None:
        """Copy a file or a directory of the service's data, as far as its user may read it."""
        try:
            _copies.make_directory(os.path.dirname(copy), owner)
            _copies.copy(path, copy, most=_STATE_LIMIT, owner=owner)
        except OSError as exc:
            self.notes.append(f"rehearsed without {path}, which can't be copied: {_files.explain(exc)}")

    def _uses(self, word: str) -> bool:
        return any(word in text for text in self.wanted.rehearse["flags"].values())

    # -- what becomes of it ---------------------------------------------------------------------------------------

    def _watch(self, port: int, live: list[str], begun: float) -> Seen:
        """Look at the candidate until it has been good for the whole window, or can't be any more."""
        program = next(iter(self.wanted.programs.values()))
        url = _rehearsed.url_at(self.wanted.target["url"], port)
        target = {**self.wanted.target, "unit": f"{self.wanted.name}.service", "binary": program, "url": url}
        target = {**target, "probes": _rehearsed.probes_of(self.wanted.target), "proofs": [], "deadline_grows": None}

        def look() -> Data:
            health = _health.wait(
                self.run, [target], timeout=self.wanted.rehearse["timeout"], window=self.wanted.window, since=begun
            )[0]
            return {**health._asdict(), "there": self._families(url) if health.healthy else []}

        pid = self._own_network() if self.is_private else 0
        if pid is None:
            return Seen(trouble="it got no network of its own, and was stopped at once")
        longest = 2 * self.wanted.rehearse["timeout"] + self.wanted.window + _LATER
        found = _netns.within(pid, look, seconds=longest) if pid else look()
        trouble = "" if found["healthy"] else self._trouble()
        journal = _output.redact("\n".join(found["journal"]), self.secrets).split("\n")
        reason = _output.redact(found["reason"], self.secrets)
        return Seen(
            trouble=trouble,
            reason=_rehearsed.in_its_own_words(reason, journal),
            ready_after=found["ready_after"],
            verdicts=tuple({**each, "seen": _output.redact(each["seen"], self.secrets)} for each in found["verdicts"]),
            journal=tuple(journal),
            live=tuple(live),
            there=tuple(found["there"]),
        )

    def _own_network(self) -> int | None:
        """The candidate's process, as soon as it has its own network; 0 if it ended before. None: it has ours."""
        deadline, ours = time.monotonic() + _START_TIMEOUT, _netns.name(_netns.OURS)
        while time.monotonic() < deadline:
            unit = _systemd.show(self.run, [self.wanted.name])[0]
            if not unit.main_pid and unit.active in ("failed", "inactive"):
                return 0
            network = _netns.name(unit.main_pid) if unit.main_pid else ""
            if network and network != ours:
                return unit.main_pid
            if network and _process.runs_file(unit.main_pid, next(iter(self.wanted.programs.values()))):
                break
            time.sleep(_POLL)
        self.run(["systemctl", "kill", "--signal=SIGKILL", "--", f"{self.wanted.name}.service"], timeout=30)
        return None

    def _trouble(self) -> str:
        """Why it was systemd that failed, and not the candidate, if so."""
        unit = _systemd.show(self.run, [self.wanted.name], more=["ExecMainStatus"])[0]
        status = int(unit.properties.get("ExecMainStatus") or 0)
        if unit.result == "exit-code" and status >= _SYSTEMDS_OWN:
            return f"systemd couldn't set it up (status {status}, see systemd.exec(5))"
        return ""

    def _families(self, url: str, *, network: int = 0) -> list[str]:
        """The metric families that a service tells; none if it doesn't answer."""
        target = self.wanted.target
        path = _rehearsed.metrics_path(target)
        answer = _http.get(url + path, timeout=_SCRAPE_TIMEOUT, auth=target.get("auth"), network=network)
        return _metrics.Page(answer.body).families() if answer.status == 200 else []


def _spare_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as spare:
        spare.bind(("127.0.0.1", 0))
        return int(spare.getsockname()[1])


def _may_have_networks(run: Run) -> bool:
    """Whether systemd can give a unit a network of its own. Where it can't it only logs that, and gives the
    host's."""
    words = ["--pipe", "--wait", "--collect", "--quiet", "--property=PrivateNetwork=yes"]
    done = run(["systemd-run", *words, "--", "readlink", "/proc/self/ns/net"], timeout=30)
    return done.rc == 0 and done.out.strip() not in ("", _netns.name(_netns.OURS))


def _owner(properties: dict[str, str]) -> _copies.Owner:
    """The unit's user. One whom systemd makes up at the start isn't known yet."""
    user, group = properties.get("User") or "root", properties.get("Group")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        gid = grp.getgrnam(group).gr_gid if group and not group.isdigit() else int(group or entry.pw_gid)
    except KeyError:
        return _copies.Owner(None, None)
    return _copies.Owner(entry.pw_uid, gid)


def changed(programs: t.Iterable[Data]) -> str | None:
    """The first of the candidate's files that isn't what was staged, if any."""
    return next((file["path"] for file in programs if _files.sha256_or_none(file["path"]) != file["sha256"]), None)
