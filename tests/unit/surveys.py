# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What component_version tells of hosts that are deployed in the usual way."""

from __future__ import annotations

import typing as t

from ansible_collections.observability.stack.plugins.plugin_utils import _catalog

CATALOG = _catalog.load()
Data = dict[str, t.Any]


def facts(name: str, version: str | None, /, **changes: t.Any) -> Data:
    """What component_version tells of a component as prometheus.prometheus deploys it."""
    if version is None:
        return {
            "installed": False,
            "unit": None,
            "files": [],
            "version": None,
            "running": None,
            "restart_pending": False,
        }
    names = [file["name"] for file in CATALOG[name]["files"]]
    return {
        "installed": True,
        "version": version,
        "running": version,
        "restart_pending": False,
        "unit": f"{name}.service",
        "state": {"active": "active", "sub": "running", "n_restarts": 0},
        "binary": f"/usr/local/bin/{names[0]}",
        "files": [{"name": file, "path": f"/usr/local/bin/{file}", "size": 1} for file in names],
        "package": None,
        "architecture": "amd64",
        "user": name,
        "unit_files": [f"/etc/systemd/system/{name}.service"],
        "flags": ["config.file", "web.listen-address"],
        "environment": [],
        "config": f"/etc/{name}/{name}.yml",
        "web_config": None,
        "data": f"/var/lib/{name}",
        "url": f"http://127.0.0.1:{CATALOG[name]['port']}",
        "metrics_path": "/metrics",
        "protected": False,
        **changes,
    }


def survey(components: Data, *, records: Data | None = None, unfinished: Data | None = None) -> Data:
    state = {"upgrade": {"state": "IDLE"}, "components": records} if records else None
    return {"components": components, "state": state, "unfinished": unfinished or {}, "lease": {}}
