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
import re
import typing as t
import urllib.parse

from . import _argv, _elf, _files, _packages, _process, _systemd

if t.TYPE_CHECKING:
    from ._command import Run
    from ._evidence import Versions

    Spec = dict[str, t.Any]

_USUAL_PLACES = ("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin")
_TLS = re.compile(r"^tls_server_config:[ \t]*(?:\n[ \t]+\S|\{[ \t]*\w)", re.MULTILINE)
_BASIC_AUTH = re.compile(r"^basic_auth_users:[ \t]*(?:\n[ \t]+\S|\{[ \t]*\S+[ \t]*:)", re.MULTILINE)


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
        argv = _systemd.command_line(unit, _files.read_text) if unit else []
        binary = _binary(spec, unit, argv)
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
            facts.update(_set_up(spec, unit, argv))
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


def _binary(spec: Spec, unit: _systemd.Unit | None, argv: list[str]) -> str | None:
    """The program: what the unit starts, what its process runs if that is a wrapper, or what lies in a usual place."""
    names = [spec["files"][0]["name"], *spec["files"][0].get("aliases", [])]
    if unit is None or not argv:
        places = [os.path.join(place, name) for name in names for place in (*_USUAL_PLACES, f"/opt/{name}")]
        return next((path for path in places if os.path.isfile(path)), None)
    if not _process.is_starter(argv[0]):
        return argv[0] if os.path.isfile(argv[0]) else None
    wrapped = [word for word in argv[1:] if os.path.basename(word) in names and os.path.isfile(word)]
    running = os.path.realpath(_process.executable(unit.main_pid)) if unit.main_pid else ""
    return next(iter([*wrapped, *([running] if os.path.basename(running) in names else [])]), None)


def _architecture(binary: str) -> str:
    elf = _elf.header_of(binary) or _elf.header_of(os.path.realpath("/proc/self/exe"))
    return _elf.architecture(elf, os.uname().machine) if elf else os.uname().machine


def _set_up(spec: Spec, unit: _systemd.Unit, argv: list[str]) -> dict[str, t.Any]:
    """How a unit runs its component: flags, files, and where it answers."""
    flags = spec.get("flags", {})

    def flag(meaning: str) -> str | None:
        names = [*([flags[meaning]] if meaning in flags else []), *spec.get("former_flags", {}).get(meaning, [])]
        values = [value for name in names for value in _argv.flag_values(argv, name)]
        return values[-1] if values else None

    config = flag("config") or _if_there(spec.get("default_config"))
    config_text = _files.read_text(config) if config else ""
    web_config = flag("web_config")
    web_text = _files.read_text(web_config) if web_config else ""
    values = _config_values(spec, config_text)
    listen = flag("listen") or ":".join(values.get(key, "") for key in ("address", "port"))
    address = _argv.listen_address(listen, port=spec["port"])
    scheme = "https" if _TLS.search(web_text) else values.get("protocol", "http")
    host = f"[{address.host}]" if ":" in address.host else address.host
    return {
        "main_pid": unit.main_pid,
        "state": {"active": unit.active, "sub": unit.sub, "n_restarts": unit.n_restarts},
        "user": unit.properties.get("User") or "root",
        "unit_files": unit.files(),
        "command_line": _argv.redact(argv),
        "flags": _argv.flag_names(argv),
        **_flag_values(spec, argv),
        "settings": _settings(spec, config_text),
        "environment": sorted(_systemd.environment_of(unit, _files.read_text)),
        "config": config,
        "web_config": web_config,
        "data": flag("data") or _if_there(spec.get("default_data")),
        "url": f"{scheme}://{host}:{address.port}{_prefix(flag('route_prefix'), flag('external_url'))}",
        "metrics_path": flag("metrics_path") or spec["metrics_path"],
        "protected": bool(_BASIC_AUTH.search(web_text)),
    }


def _flag_values(spec: Spec, argv: list[str]) -> dict[str, t.Any]:
    """Those values of flags that some version doesn't take any more. Nothing else is told: a value may be a secret."""
    found: dict[str, list[str]] = {}
    for removal in spec.get("removed_values", []):
        given = ",".join(_argv.flag_values(argv, removal["flag"])).split(",")
        if removal["value"] in (value.strip() for value in given):
            found.setdefault(removal["flag"], []).append(removal["value"])
    return {"flag_values": found} if found else {}


def _kept(spec: Spec, facts: dict[str, t.Any]) -> list[str]:
    """All that a restore point keeps of a component."""
    state = [os.path.join(facts["data"], path) for path in spec.get("state_paths", [])] if facts["data"] else []
    config = [path for path in (facts["config"], facts["web_config"]) if path]
    return [*_paths(facts), *facts["unit_files"], *config, *state]


def _config_values(spec: Spec, text: str) -> dict[str, str]:
    """What the component's own configuration says, found by the catalog's expressions: hosts have no YAML parser."""
    values = {}
    for name, expression in spec.get("config_values", {}).items():
        found = re.search(expression, text, re.MULTILINE)
        if found:
            values[name] = found.group(1).strip("\"'")
    return values


def _settings(spec: Spec, text: str) -> list[str]:
    """Those settings of the configuration that some version doesn't take any more."""
    return [
        removal["setting"]
        for removal in spec.get("removed_settings", [])
        if re.search(removal["pattern"], text, re.MULTILINE)
        and not (removal["unless"] and re.search(removal["unless"], text, re.MULTILINE))
    ]


def _prefix(route_prefix: str | None, external_url: str | None) -> str:
    """The path below which a service answers: its route prefix, which defaults to the path of its external URL."""
    path = route_prefix if route_prefix is not None else urllib.parse.urlsplit(external_url or "").path
    return f"/{path.strip('/')}" if path.strip("/") else ""


def _if_there(path: str | None) -> str | None:
    return path if path and os.path.exists(path) else None
