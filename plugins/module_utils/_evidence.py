# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Which version a component's program is, and which one runs. Root runs nothing that it finds on a host.

In this order, until one of them knows:

1. sha256   the state, the restore points and the staged candidates have a version for the file's sha256
2. service  the process runs the very file, and the service reports its version with its metrics
3. program  an ELF program is run in a bare sandbox, as the unit's user or as nobody: C(_sandbox.bare)

Of a process that runs another file than the one on disk, that file is hashed, and the service is asked; it is not run.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import time
import typing as t

from . import _elf, _files, _http, _metrics, _netns, _process, _processes, _sandbox, _sockets, _version
from ._state import name_of

if t.TYPE_CHECKING:
    from ._command import Run

    Data = dict[str, t.Any]

Known = dict[str, dict[str, str]]
"""For each component the versions of its files, by sha256."""

NOT_IN_A_UNIT = r"[^\w-]"
_OK, _BAD_REQUEST = 200, 400
_STRANGERS_TIME = 2.0
"""Seconds for what listens at a usual port, and may be anything."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def known(state_dir: str, components: t.Any) -> Known:
    """What a host has recorded of versions and their files, by component, whichever instance they are of. Of a state
    directory that others own or may write, nothing.

    :param components: those of the state.
    """
    found: Known = {}
    if not _is_roots(state_dir):
        return found
    backups, staging = (os.path.join(state_dir, name) for name in ("backups", "staging"))
    claims = [*_of_restore_points(backups), *_of_candidates(staging), *_of_state(components)]
    for component, version, sha256 in claims:
        texts = all(isinstance(each, str) for each in (component, version, sha256))
        if texts and _SHA256.fullmatch(sha256) and _version.parse(version) != _version.UNKNOWN:
            found.setdefault(name_of(component), {})[sha256] = _version.parse(version)
    return found


def _is_roots(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _of_state(components: t.Any) -> t.Iterator[tuple[t.Any, t.Any, t.Any]]:
    for name, record in _items(components):
        inventory = _dict(_dict(record).get("inventory"))
        yield name, inventory.get("current_version"), inventory.get("sha256")


def _of_restore_points(directory: str) -> t.Iterator[tuple[t.Any, t.Any, t.Any]]:
    for name in _names(directory):
        manifest = _json(os.path.join(directory, name, "manifest.json"))
        entries = manifest.get("entries")
        for entry in entries if isinstance(entries, list) else []:
            if _dict(entry).get("kind") == "binary":
                yield manifest.get("component"), manifest.get("version"), entry.get("sha256")


def _of_candidates(directory: str) -> t.Iterator[tuple[t.Any, t.Any, t.Any]]:
    for name in _names(directory):
        component, _at, version = name.partition("@")
        for _file, sha256 in _items(_json(os.path.join(directory, name, "candidate.json")).get("files")):
            yield component, version, sha256


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _json(path: str) -> Data:
    try:
        return _dict(json.loads(_files.read_text(path)))
    except (ValueError, RecursionError):
        return {}


def _dict(value: t.Any) -> Data:
    return value if isinstance(value, dict) else {}


def _items(value: t.Any) -> t.Iterable[tuple[str, t.Any]]:
    return _dict(value).items()


# -- finding out --------------------------------------------------------------------------------------------------


class Found(t.NamedTuple):
    """A version and C(how) it is known: sha256, service or program. Of one that is unknown C(how) is empty, and C(why)
    says what was tried."""

    version: str
    how: str = ""
    why: str = ""

    @property
    def is_known(self) -> bool:
        return self.version != _version.UNKNOWN


class Versions:
    """Finds out the versions of one host's components, in several threads at once.

    :param timeout: seconds for all that is asked of services, and again for each program that is run.
    """

    def __init__(self, run: Run, *, timeout: float, recorded: Known, state_dir: str) -> None:
        self._run = run
        self._timeout = timeout
        self._known = recorded
        self._hidden = (state_dir,)
        self._deadline = time.monotonic() + timeout
        self._numbers = itertools.count(1)
        self._listeners: dict[int, set[int]] | None = None

    def of(
        self, name: str, spec: Data, facts: Data, properties: dict[str, str], *, names: t.Collection[str] = ()
    ) -> Data:
        """The version on disk, the version that runs, how they are known or why they are not, and whether a restart is
        pending; and which other project with the same name the program is of, if it is of one.

        :param facts: of the component, as the survey collects them.
        :param properties: of its unit; none if it has none.
        :param names: of the component's program, where its own name doesn't tell what it is. Its version is unknown
            then unless something shows that it is that program: its sha256 is on record, it serves the component's
            metrics at a socket of its own, or one of the names is in its version text.
        """
        if not facts["installed"]:
            return _told(None, None, pending=False)
        pid, on_disk = facts.get("main_pid", 0), Found(_version.UNKNOWN)
        is_program = _elf.header_of(facts["binary"]) is not None
        if is_program:  # a script stays what it is while what it starts becomes something else
            on_disk = self._recorded(name, facts["files"][0].get("sha256"))
        is_same = bool(pid) and _process.runs_file(pid, facts["binary"])
        asked = Found(_version.UNKNOWN)
        if pid and not (is_same and on_disk.is_known):
            asked = self._running(name, spec, facts, pid, is_same=is_same, strictly=bool(names))
        if is_same and not on_disk.is_known:
            on_disk = asked
        if not on_disk.is_known:
            no_program = f"{facts['binary']} is no ELF program, and no other is run to ask it"
            found = Found(_version.UNKNOWN, why=no_program)
            if is_program:
                found = self._on_record(name, facts["binary"])
                found = found if found.is_known else self._of_program(name, spec, facts["binary"], properties, names)
            on_disk = found if found.is_known else Found(_version.UNKNOWN, why="; ".join([*_why(on_disk), found.why]))
        told = _told(on_disk, (on_disk if is_same else asked) if pid else None, pending=bool(pid) and not is_same)
        unsure = is_program and on_disk.how != "sha256"
        other = self._lookalike(name, spec, facts["binary"], properties) if unsure else ""
        return {**told, "lookalike": other} if other else told

    def at_port(self, spec: Data) -> str:
        """The version that a component reports at its usual port, whoever runs it; empty if none does."""
        url, path = f"http://127.0.0.1:{spec['port']}", spec["metrics_path"]
        left = min(_STRANGERS_TIME, self._deadline - time.monotonic())
        answer = _http.get(url + path, timeout=max(0.1, left)) if spec.get("build_info") else None
        told = _metrics.version_in(answer.body, spec["build_info"]) if answer and answer.status == _OK else None
        version = _version.parse(told or "")
        return "" if version == _version.UNKNOWN else version

    def _running(self, name: str, spec: Data, facts: Data, pid: int, *, is_same: bool, strictly: bool) -> Found:
        """The version of the program that a process runs."""
        recorded = Found(_version.UNKNOWN)
        if not is_same and self._known.get(name) and not _process.is_starter(_process.program_name(pid)):
            recorded = self._recorded(name, _process.executable_sha256(pid))
        return recorded if recorded.is_known else self._of_service(spec, facts, pid, strictly=strictly)

    def _on_record(self, name: str, path: str) -> Found:
        """The version that is on record for a file. It takes as long as to read it, so a service is asked before; and
        where nothing is on record of a component it isn't read."""
        return self._recorded(name, _files.sha256_or_none(path) if self._known.get(name) else None)

    def _recorded(self, name: str, sha256: str | None) -> Found:
        version = self._known.get(name, {}).get(sha256 or "")
        return Found(version, "sha256") if version else Found(_version.UNKNOWN)

    def _of_service(self, spec: Data, facts: Data, pid: int, *, strictly: bool) -> Found:
        """What a service reports itself. It can report what it wants, but only of itself: what listens at the port must
        be of its user.

        :param strictly: the very process must listen there.
        """
        if not spec.get("build_info"):
            return Found(_version.UNKNOWN, why="its metrics carry no version")
        if not facts.get("url"):
            facts = {**facts, "url": f"http://127.0.0.1:{spec['port']}", "metrics_path": spec["metrics_path"]}
        own = self._is_its_own(facts, pid)
        if not own or (strictly and not _processes.has_listener(pid, _http.port_of(facts["url"]))):
            return Found(_version.UNKNOWN, why=f"nothing of its user alone listens at {facts['url']}")
        answer = self._metrics_of(spec, facts, pid)
        if answer.status == _BAD_REQUEST and facts["url"].startswith("http:"):  # how Go answers plain HTTP under TLS
            secure = facts["url"].replace("http:", "https:", 1)
            if _http.speaks_tls(secure, timeout=self._left(), network=_sockets.network_of(pid)):
                facts["url"] = secure
                answer = self._metrics_of(spec, facts, pid)
        if answer.status != _OK:
            return Found(_version.UNKNOWN, why=f"its metrics can't be read ({answer.status or answer.error})")
        told = _version.parse(_metrics.version_in(answer.body, spec["build_info"]) or "")
        return Found(told, "service") if told != _version.UNKNOWN else Found(told, why="its metrics tell no version")

    def _metrics_of(self, spec: Data, facts: Data, pid: int) -> _http.Answer:
        url = facts["url"] + facts["metrics_path"]
        return _http.get(url, timeout=self._left(), auth=spec.get("auth"), network=_sockets.network_of(pid))

    def _left(self) -> float:
        return max(0.1, self._deadline - time.monotonic())

    def _is_its_own(self, facts: Data, pid: int) -> bool:
        """Whether only root and the process's user listen at the port of a URL, as far as that can be seen."""
        port = _http.port_of(facts["url"])
        if not port or _netns.name(pid) not in ("", _netns.name(_netns.OURS)):  # a Unix socket, or a network of its own
            told = facts.get("listens") or []
            return any(_http.leads_to(facts["url"], port=each["port"], unix=each["unix"]) for each in told)
        if self._listeners is None:
            self._listeners = _process.listeners()
        users = self._listeners.get(port, set())
        return not self._listeners or (bool(users) and users <= {0, _process.effective_user(pid)})

    def _of_program(
        self, name: str, spec: Data, path: str, properties: dict[str, str], names: t.Collection[str]
    ) -> Found:
        """What a program on disk prints of itself.

        :param names: of which its text must have one, if there are any.
        """
        why = []
        for arguments, answer in self._answers(name, path, spec["version_args"], properties):
            version = _version.find_version(answer.text)
            is_named = not names or any(re.search(rf"\b{re.escape(each)}\b", answer.text) for each in names)
            if version != _version.UNKNOWN and not answer.trouble and is_named:
                return Found(version, "program")
            printed = "it printed no version" if is_named else f"it didn't print that it is {name}"
            why.append(f"{' '.join(arguments)}: {answer.trouble or printed}")
        return Found(_version.UNKNOWN, why=f"{path} was asked ({', '.join(why)})")

    def _lookalike(self, name: str, spec: Data, path: str, properties: dict[str, str]) -> str:
        """Which other project with the same name a program is of; empty if it is of none that is known."""
        others = spec.get("lookalikes", [])
        asked = self._answers(name, path, [other["args"] for other in others], properties)
        for other, (_arguments, answer) in zip(others, asked):
            if re.search(other["output"], answer.text, re.MULTILINE):
                return str(other["title"])
        return ""

    def _answers(
        self, name: str, path: str, commands: list[list[str]], properties: dict[str, str]
    ) -> t.Iterator[tuple[list[str], _sandbox.Answer]]:
        """What a program prints, for each list of arguments, as long as the time for it lasts. It runs in a sandbox."""
        sandbox = _sandbox.bare(properties, name="", programs={os.path.basename(path): path}, hidden=self._hidden)
        deadline = time.monotonic() + self._timeout
        for arguments in commands:
            unit = f"observability-version-{re.sub(NOT_IN_A_UNIT, '-', name)}-{os.getpid()}-{next(self._numbers)}"
            left, words = max(0.1, deadline - time.monotonic()), [os.path.basename(path), *arguments]
            yield arguments, _sandbox.once(self._run, sandbox._replace(name=unit), words, timeout=left)
            if time.monotonic() >= deadline:
                return


def _why(found: Found) -> list[str]:
    return [found.why] if found.why else []


def only_running(version: str) -> Data:
    """What C(Versions.of) says of a component that has no program on disk, but reports a version.

    :param version: empty if it reports none.
    """
    return _told(None, Found(version, "service") if version else None, pending=False)


def _told(on_disk: Found | None, running: Found | None, *, pending: bool) -> Data:
    return {
        "version": on_disk and on_disk.version,
        "running": running and running.version,
        "restart_pending": pending,
        "version_source": (on_disk and on_disk.how) or None,
        "version_unknown": (on_disk and on_disk.why) or None,
        "running_unknown": (running and running.why) or None,
    }
