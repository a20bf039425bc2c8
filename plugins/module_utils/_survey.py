# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Reading a host: which components it has, what is on disk, what runs, and how it is set up.

Nothing is assumed that can be read: the catalog only says under which names to look and which flag means what.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import typing as t

from . import _elf, _files, _packages, _process, _setup, _systemd

if t.TYPE_CHECKING:
    from ._command import Run
    from ._evidence import Versions

    Spec = dict[str, t.Any]

_USUAL_PLACES = ("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin")


class Reader:
    """Reads one host. What it can't read is unknown."""

    def __init__(self, run: Run, versions: Versions, *, checksum: bool) -> None:
        self._run = run
        self._versions = versions
        self._checksum = checksum

    def survey(self, components: dict[str, Spec]) -> dict[str, dict[str, t.Any]]:
        """The components that the host has, by name; what it has no trace of is left out."""
        units = self._units(components)
        located = {name: self._locate(spec, units[name]) for name, spec in components.items()}
        found = {name: facts for name, facts in located.items() if facts["installed"] or facts["unit"]}
        with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
            specs, properties = map(components.get, found), (_properties(units[name]) for name in found)
            versions = dict(zip(found, pool.map(self._versions.of, found, specs, found.values(), properties)))
        owners = _packages.owners(self._run, [path for facts in found.values() for path in _paths(facts)])
        for name, facts in found.items():
            facts.update(versions[name])
            facts["package"] = next((owners[path] for path in _paths(facts) if path in owners), None)
            facts.pop("main_pid", None)
        return found

    def _units(self, components: dict[str, Spec]) -> dict[str, _systemd.Unit | None]:
        """For each component the unit that runs it: of its candidates the running one, else the first that is there."""
        names = _systemd.existing(dict.fromkeys(unit for spec in components.values() for unit in spec["units"]))
        shown = dict(zip(names, _systemd.show(self._run, names)))
        chosen: dict[str, _systemd.Unit | None] = {}
        for name, spec in components.items():
            loaded = [shown[unit] for unit in spec["units"] if unit in shown and shown[unit].is_loaded]
            running = [unit for unit in loaded if unit.is_running]
            chosen[name] = next(iter(running or loaded), None)
        return chosen

    def _locate(self, spec: Spec, unit: _systemd.Unit | None) -> dict[str, t.Any]:
        """Where a component is, and how its unit runs it."""
        names = _names(spec)
        declared = _systemd.start_line(unit, _files.read_text, run=self._run, names=names) if unit else []
        binary = _binary(spec, unit, declared)
        if binary is None:
            return {"installed": False, "unit": unit.name if unit else None, "files": []}
        facts: dict[str, t.Any] = {
            "installed": True,
            "unit": unit.name if unit else None,
            "binary": binary,
            "files": self._files(spec, binary),
            "architecture": _architecture(binary),
        }
        if unit:
            argv = _systemd.command_line(unit, _files.read_text, run=self._run, names=names)
            facts.update(_setup.set_up(spec, unit, argv, run=self._run))
            facts["restore_point_bytes"] = sum(map(_files.bytes_below, _kept(spec, facts)))
        return facts

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


def _properties(unit: _systemd.Unit | None) -> dict[str, str]:
    return unit.properties if unit else {}


def _paths(facts: dict[str, t.Any]) -> list[str]:
    return [file["path"] for file in facts["files"]]


def _names(spec: Spec) -> list[str]:
    return [spec["files"][0]["name"], *spec["files"][0].get("aliases", [])]


def _binary(spec: Spec, unit: _systemd.Unit | None, argv: list[str]) -> str | None:
    """The program: what the unit starts, what its process runs if that is a wrapper, or what lies in a usual place."""
    names = _names(spec)
    if unit is None or not argv:
        places = [os.path.join(place, name) for name in names for place in (*_USUAL_PLACES, f"/opt/{name}")]
        return next((path for path in places if os.path.isfile(path)), None)
    if not _process.is_starter(argv[0]):
        path = _setup.on_host(unit, argv[0])
        return path if os.path.isfile(path) else None
    wrapped = [word for word in argv[1:] if os.path.basename(word) in names and os.path.isfile(word)]
    running = os.path.realpath(_process.executable(unit.main_pid)) if unit.main_pid else ""
    return next(iter([*wrapped, *([running] if os.path.basename(running) in names else [])]), None)


def _architecture(binary: str) -> str:
    elf = _elf.header_of(binary) or _elf.header_of(os.path.realpath("/proc/self/exe"))
    return _elf.architecture(elf, os.uname().machine) if elf else os.uname().machine


def _kept(spec: Spec, facts: dict[str, t.Any]) -> list[str]:
    """All that a restore point keeps of a component."""
    state = [os.path.join(facts["data"], path) for path in spec.get("state_paths", [])] if facts["data"] else []
    config = [path for path in (facts["config"], facts["web_config"], *facts.get("config_files", [])) if path]
    return list(dict.fromkeys([*_paths(facts), *facts["unit_files"], *config, *state]))
