# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Reading a host: which components it has, what is on disk, what runs, and how it is set up.

Nothing is assumed that can be read: the catalog only says under which names to look and which flag means what. Which
unit and which program is a component's is found by evidence: C(_discovery.py).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import typing as t
import urllib.parse

from . import _discovery, _elf, _evidence, _files, _packages, _process, _processes, _setup, _systemd

if t.TYPE_CHECKING:
    from ._command import Run
    from ._discovery import Candidate
    from ._evidence import Versions

    Spec = dict[str, t.Any]
    Facts = dict[str, t.Any]

_USUAL_PLACES = ("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin")
_MOST_OF_A_UNIT = 35
_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_.-]+")


class Reader:
    """Reads one host. What it can't read is unknown."""

    def __init__(self, run: Run, versions: Versions, *, checksum: bool) -> None:
        self._run = run
        self._versions = versions
        self._checksum = checksum

    def survey(self, components: dict[str, Spec]) -> dict[str, Facts]:
        """The components that the host has, by name; what it has no trace of is left out. Further instances of one are
        C(component@suffix), each with C(instance_of)."""
        host = _discovery.Host(self._run, components, places=_USUAL_PLACES)
        found: dict[str, tuple[str, Candidate, Facts]] = {}
        for name, spec in components.items():
            for candidate in host.candidates(name):
                facts = self._locate(spec, candidate, host)
                key = name if name not in found else _instance(name, candidate, facts, found)
                found[key] = (name, candidate, facts if key == name else {**facts, "instance_of": name})
        with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
            asked = {
                key: pool.submit(self._versions_of, name, components[name], facts, candidate)
                for key, (name, candidate, facts) in found.items()
            }
        told = {
            key: self._told(name, candidate, facts, asked[key].result())
            for key, (name, candidate, facts) in found.items()
        }
        told.update(self._listeners(host, components, told))
        owners = _packages.owners(self._run, [path for facts in told.values() for path in _paths(facts)])
        for facts in told.values():
            facts["package"] = next((owners[path] for path in _paths(facts) if path in owners), None)
        return told

    def _locate(self, spec: Spec, found: Candidate, host: _discovery.Host) -> Facts:
        """Where an instance of a component is, and how its unit runs it."""
        unit, binary = found.unit, found.program
        more = {"not_upgradable": found.obstacle._asdict()} if found.obstacle else {}
        if not binary:
            return {"installed": False, "unit": unit.name if unit else None, "files": [], **more}
        facts: Facts = {
            "installed": True,
            "unit": unit.name if unit else None,
            "binary": binary,
            "files": self._files(spec, binary),
            "architecture": _architecture(binary),
            **more,
        }
        shared = host.shared_by(found)
        if shared:
            facts["shared_by"] = shared
        if found.process and found.process.hidden:
            facts["not_read"] = (
                f"root may not see which file process {found.process.pid} runs (CAP_SYS_PTRACE is missing): whether it "
                "runs the file on disk follows from its command line and its start"
            )
        if found.process:
            facts["main_pid"] = found.process.pid
        if unit:
            facts.update(self._set_up(spec, found))
            facts["restore_point_bytes"] = sum(map(_files.bytes_below, _kept(spec, facts)))
        return facts

    def _set_up(self, spec: Spec, found: Candidate) -> Facts:
        """How the unit runs the component: by the command line of the component's own process, also where that is not
        the unit's main process."""
        unit, names = t.cast("_systemd.Unit", found.unit), _discovery.program_names(spec)
        pid = found.process.pid if found.process else unit.main_pid
        argv = _systemd.command_line(unit, _files.read_text, run=self._run, pid=pid, names=names)
        facts = _setup.set_up(spec, unit, argv, pid=pid, run=self._run)
        facts["state"] = {**facts["state"], "enabled": unit.properties.get("UnitFileState") or None}
        facts["need_reload"] = unit.needs_reload
        return facts

    def _versions_of(self, name: str, spec: Spec, facts: Facts, found: Candidate) -> Facts:
        if found.obstacle and found.obstacle.key == "container":
            return _evidence.only_running(self._versions.at_port(spec))
        names = () if found.certain else _discovery.program_names(spec)
        properties = found.unit.properties if found.unit else {}
        return self._versions.of(name, spec, facts, properties, names=names)

    def _told(self, name: str, found: Candidate, facts: Facts, versions: Facts) -> Facts:
        """The facts with the versions. A program that nothing shows to be of the component isn't taken for it."""
        if found.certain or versions["version_source"]:
            facts.pop("main_pid", None)
            return {**facts, **versions}
        unit = t.cast("_systemd.Unit", found.unit)
        reason = (
            f"{unit.name} starts {found.program}, and neither its name, its version text, a recorded sha256 nor its "
            f"own metrics show that it is {name}"
        )
        fix = (
            f"let its ExecStart name the program of {name} itself, or add its file name to files.aliases by an override"
        )
        obstacle = _discovery.Obstacle("other_program", reason, fix)
        kept = {"instance_of": facts["instance_of"]} if "instance_of" in facts else {}
        missing = {"installed": False, "unit": unit.name, "files": [], "not_upgradable": obstacle._asdict(), **kept}
        return {**missing, **_evidence.only_running("")}

    def _listeners(
        self, host: _discovery.Host, components: dict[str, Spec], told: dict[str, Facts]
    ) -> dict[str, Facts]:
        """The components that only answer: something listens at the usual port and reports the component's version, and
        no unit and no process of the component was found."""
        explained = {urllib.parse.urlsplit(facts["url"]).port for facts in told.values() if facts.get("url")}
        ports, found = set(_process.listeners()) - explained, {}
        for name, spec in components.items():
            facts = told.get(name, {"installed": False, "unit": None, "files": []})
            is_known = facts["unit"] or facts.get("running")
            version = "" if is_known or spec["port"] not in ports else self._versions.at_port(spec)
            if version:
                who = _processes.listening(spec["port"], host.processes)
                obstacle = _discovery.listener(name, spec["port"], version, who)
                told_by_service = _evidence.only_running(version)
                versions = {**told_by_service, **{key: value for key, value in facts.items() if key != "running"}}
                found[name] = {**facts, **versions, "not_upgradable": obstacle._asdict()}
        return found

    def _files(self, spec: Spec, binary: str) -> list[dict[str, t.Any]]:
        """The component's files: its program, and those of its companions that are beside it."""
        files = [{"name": spec["files"][0]["name"], "path": binary}]
        for companion in spec["files"][1:]:
            path = os.path.join(os.path.dirname(binary), companion["name"])
            if _files.is_file(path):
                files.append({"name": companion["name"], "path": path})
        for file in files:
            file["size"] = _files.bytes_below(file["path"])
            with contextlib.suppress(OSError):  # a link, or no file, that somebody else than root put there
                file["identity"] = _files.identity_of(file["path"])
                if self._checksum:
                    file["sha256"] = _files.sha256_file(file["path"])
        return files


def _instance(name: str, found: Candidate, facts: Facts, taken: dict[str, tuple[str, Candidate, Facts]]) -> str:
    """The key of a further instance: with its port, or with its unit's name where another has that port."""
    port = urllib.parse.urlsplit(facts.get("url", "")).port
    ports = {urllib.parse.urlsplit(each[2].get("url", "")).port for each in taken.values() if each[0] == name}
    if port and port not in ports:
        return f"{name}@{port}"
    unit = _NOT_IN_A_KEY.sub("-", (found.unit.name if found.unit else "").removesuffix(".service")).lstrip("_.-")
    keys = (f"{name}@{unit[:_MOST_OF_A_UNIT]}{number}" for number in ("", *range(2, 1000)))
    return next(key for key in keys if key not in taken)


def _paths(facts: dict[str, t.Any]) -> list[str]:
    return [file["path"] for file in facts["files"]]


def _architecture(binary: str) -> str:
    elf = _elf.header_of(binary) or _elf.header_of(os.path.realpath("/proc/self/exe"))
    return _elf.architecture(elf, os.uname().machine) if elf else os.uname().machine


def _kept(spec: Spec, facts: dict[str, t.Any]) -> list[str]:
    """All that a restore point keeps of a component."""
    state = [os.path.join(facts["data"], path) for path in spec.get("state_paths", [])] if facts["data"] else []
    config = [path for path in (facts["config"], facts["web_config"], *facts.get("config_files", [])) if path]
    return list(dict.fromkeys([*_paths(facts), *facts["unit_files"], *config, *state]))
