# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What component_version tells of hosts that are deployed in the usual way."""

from __future__ import annotations

import datetime as dt
import typing as t

from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _planner
from ansible_collections.observability.stack.plugins.plugin_utils._market import Market
from ansible_collections.observability.stack.plugins.plugin_utils._wish import Wish, Wishes

CATALOG = _catalog.load()
TODAY = dt.date(2026, 11, 21)
NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.timezone.utc)
"""A Saturday."""

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
        "settings": [],
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


STACK = {
    name: facts(name, version)
    for name, version in {"prometheus": "2.42.0", "alertmanager": "0.25.0", "node_exporter": "1.5.0"}.items()
}
"""A host that runs a small stack."""


def wished(**variables: t.Any) -> Wish:
    """The wish of host1, from variables without C(upgrade_) before their names."""
    return Wishes().read("host1", variables)


def listed(*releases: str | tuple[str, str | None], **more: t.Any) -> Data:
    """What a source answers: versions, some of them with their day."""
    pairs = [(each, None) if isinstance(each, str) else each for each in releases]
    found = [{"version": version, "date": date, "prerelease": "-" in version} for version, date in pairs]
    return {"releases": found, "as_of": "2026-11-21T10:00:00Z", "note": None, **more}


def shown(draft: _planner.Draft) -> Data:
    """The plan of one host as data."""
    return {"host": draft.host, "steps": draft.steps, "findings": draft.findings, "rows": draft.rows}


def drafted(
    found: Data,
    versions: Data,
    *,
    host: str = "host1",
    stops: Data | None = None,
    answers: Data | None = None,
    **wish: t.Any,
) -> Data:
    """The plan of one host by itself.

    :param stops: versions to stop at beside the stages.
    :param answers: what the sources of releases answered.
    :param wish: other variables, without C(upgrade_) before their names.
    """
    market = Market(answers)
    return shown(
        _planner.plan_host(host, found, wished(versions=versions, **wish), market=market, today=TODAY, stops=stops)
    )


def planned(surveys: Data, versions: Data, *, answers: Data | None = None, **wish: t.Any) -> Data:
    """The plan of a fleet whose hosts all wish for the same; on a Saturday at noon.

    :param wish: other variables, and arguments of plan_upgrade.
    """
    given = {name: wish.pop(name) for name in ("mirror", "hold", "waves") if name in wish}
    wishes = {host: {"versions": versions, **wish} for host in surveys}
    return _planner.plan_upgrade(surveys, wishes, answers=answers, now=NOW, **given)


def keys(plan: Data) -> list[str]:
    """The steps of a host's plan."""
    return list(plan["steps"])


def finding_keys(plan: Data, severity: str | None = None) -> list[str]:
    return [finding["key"] for finding in plan["findings"] if severity in (None, finding["severity"])]
