# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. How a unit runs its component: its flags and files, and where the component answers."""

from __future__ import annotations

import os
import re
import typing as t
import urllib.parse

from . import _argv, _files, _systemd

if t.TYPE_CHECKING:
    Spec = dict[str, t.Any]

_TLS = re.compile(r"^tls_server_config:[ \t]*(?:\n[ \t]+\S|\{[ \t]*\w)", re.MULTILINE)
_BASIC_AUTH = re.compile(r"^basic_auth_users:[ \t]*(?:\n[ \t]+\S|\{[ \t]*\S+[ \t]*:)", re.MULTILINE)


def set_up(spec: Spec, unit: _systemd.Unit, argv: list[str], *, pid: int | None = None) -> dict[str, t.Any]:
    """How a unit runs its component: flags, files, and where it answers.

    :param pid: the component's own process, where that is not the unit's main process.
    """
    flags = spec.get("flags", {})

    def flag(meaning: str) -> str | None:
        names = [*([flags[meaning]] if meaning in flags else []), *spec.get("former_flags", {}).get(meaning, [])]
        values = [value for name in names for value in _argv.flag_values(argv, name)]
        return values[-1] if values else None

    config = flag("config") or if_there(spec.get("default_config"))
    config_text = _files.read_text(config) if config else ""
    web_config = flag("web_config")
    web_text = _files.read_text(web_config) if web_config else ""
    values = _config_values(spec, config_text)
    listen = flag("listen") or ":".join(values.get(key, "") for key in ("address", "port"))
    address = _argv.listen_address(listen, port=spec["port"])
    scheme = "https" if _TLS.search(web_text) else values.get("protocol", "http")
    host = f"[{address.host}]" if ":" in address.host else address.host
    return {
        "main_pid": unit.main_pid if pid is None else pid,
        "state": {"active": unit.active, "sub": unit.sub, "n_restarts": unit.n_restarts},
        "user": unit.properties.get("User") or "root",
        "unit_files": unit.files(),
        "command_line": _argv.redact(argv),
        "flags": _argv.flag_names(argv),
        **_flag_values(spec, argv),
        "settings": settings(spec, config_text),
        "environment": sorted(_systemd.environment_of(unit, _files.read_text)),
        "config": config,
        "web_config": web_config,
        "data": flag("data") or if_there(spec.get("default_data")),
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


def _config_values(spec: Spec, text: str) -> dict[str, str]:
    """What the component's own configuration says, found by the catalog's expressions: hosts have no YAML parser."""
    values = {}
    for name, expression in spec.get("config_values", {}).items():
        found = re.search(expression, text, re.MULTILINE)
        if found:
            values[name] = found.group(1).strip("\"'")
    return values


def settings(spec: Spec, text: str) -> list[str]:
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


def if_there(path: str | None) -> str | None:
    return path if path and os.path.exists(path) else None
