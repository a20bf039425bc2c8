# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters: from what was read on hosts to a plan, and to what people read.

They are private to the roles and playbooks of the collection, as their names say, which begin with an underscore: they
may change at any time.
"""

from __future__ import annotations

import datetime as dt
import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils._argv import private_url, redact_url
from ..module_utils._errors import UpgradeError, shown
from ..module_utils._state import name_of
from ..plugin_utils import (
    _catalog,
    _check,
    _estimate,
    _market,
    _outcome,
    _planner,
    _release_settings,
    _report,
    _report_plan,
    _rollback,
    _settings,
    _sources,
    _steps,
    _windows,
    _wish,
)

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]


def _explained(name: str, function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """An error in the operator's data ends as one line, not as a traceback."""

    def wrapped(*args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return function(*args, **kwargs)
        except UpgradeError as exc:
            raise AnsibleFilterError(str(exc)) from exc
        except (AttributeError, LookupError, TypeError, ValueError) as exc:
            raise AnsibleFilterError(
                f"{name} can't use what it was given ({type(exc).__name__}: {shown(exc, most=500)})"
            ) from exc

    return wrapped


def release_sources(
    surveys: Data, wishes: Data, mirror: str | t.Sequence[str] | None = None, every: bool = False
) -> list[str]:
    """Where the releases of what is requested are listed."""
    return _market.sources(surveys, wishes, mirror=mirror, every=every)


def release_index(
    surveys: Data, wishes: Data, releases: Data, mirror: str | list[str] | None = None
) -> dict[str, list[Data]]:
    """The releases that were listed for a plan, as a release index."""
    return _market.index(surveys, wishes, answers=releases, mirror=mirror)


def check(surveys: Data, wishes: Data, releases: Data, mirror: str | t.Sequence[str] | None = None) -> Data:
    """What is installed, what is available, and what blocks an upgrade."""
    return _check.check(surveys, wishes, answers=releases, mirror=mirror)


def window_status(windows: list[Data]) -> Data:
    """Whether a maintenance window is open, and when the next one opens."""
    status = _windows.status(_windows.read(windows), dt.datetime.now(tz=dt.timezone.utc))
    return {"open": status.open, "text": _windows.shown(status)}


def probe_targets(
    survey: Data,
    overrides: Data | None = None,
    components: Data | None = None,
    only: list[str] | None = None,
    phases: list[str] | None = None,
) -> list[Data]:
    """The components of a host that can be probed, for health_probe."""
    catalog = _catalog.load(overrides=overrides, components=components)
    found = {
        name: facts
        for name, facts in survey["components"].items()
        if facts["installed"] and facts["unit"] and (not only or name in only or name_of(name) in only)
    }
    entries = {name: _catalog.entry_of(catalog, name) for name in found}
    return [
        _steps.probe_target(name, found[name], entries[name], version=found[name]["version"])
        for name in sorted(found, key=lambda name: (_wish.rank(entries[name], phases or _wish.PHASES), name))
    ]


def link_targets(
    surveys: Data,
    host: str,
    overrides: Data | None = None,
    components: Data | None = None,
    only: list[str] | None = None,
) -> list[Data]:
    """The integration checks of a host, for health_probe."""
    catalog = _catalog.load(overrides=overrides, components=components)
    return _steps.link_targets(surveys, host, catalog, touched=only or catalog)


def fetch_urls(steps: list[Data], mirror: str | t.Sequence[str] | None = None, *, private: bool = False) -> list[str]:
    """Where a host fetches releases by itself; without logins, unless they are asked for."""
    found = [_sources.places(step["stage"]["url"], mirror) for step in steps if step["stage"]]
    urls = [places[0] for places in found if len(places) == 1]
    return list(map(private_url if private else redact_url, urls))


def setting(given: t.Any, variable: str) -> t.Any:
    """The value of an C(upgrade_*) variable, in whatever form it was given."""
    return _settings.value(variable, given)


def plan_parts(plan: Data, waves: list[t.Any] | None = None, fast: bool = False) -> Data:
    """A plan as one list of waves and integration checks."""
    return _planner.parts(plan, waves or [], fast)


def host_waves(hosts: list[str], waves: list[t.Any] | None = None) -> list[list[str]]:
    """The waves that hosts make."""
    return _estimate.waves(hosts, waves or [])


def outcome(data: Data, kind: str) -> Data:
    """The outcome of a playbook, for programs."""
    return _outcome.KINDS[kind](data)


def outcome_table(done: Data, overrides: Data | None = None, components: Data | None = None) -> str:
    """What a run has done, and the versions that an inventory should name now."""
    catalog = _catalog.load(overrides=overrides, components=components)
    return _report.outcome(done) + _report_plan.bumps(done["states"], catalog)


# By their names without the underscore.
_FILTERS: dict[str, t.Callable[..., t.Any]] = {
    "release_sources": release_sources,
    "release_index": release_index,
    "check": check,
    "check_table": _report_plan.check,
    "check_problems": _check.problems,
    "plan_urls": _estimate.urls,
    "plan_sizes": _estimate.with_sizes,
    "host_links": _planner.host_links,
    "plan_findings": _planner.with_findings,
    "plan_problems": _planner.problems,
    "plan_table": _report_plan.plan,
    "release_problems": _release_settings.problems,
    "host_phases": _planner.host_phases,
    "missing_steps": _planner.missing_steps,
    "window_status": window_status,
    "swap_files": _steps.swap_files,
    "swap_guard": _steps.swap_guard,
    "probe_targets": probe_targets,
    "link_targets": link_targets,
    "held_targets": _steps.held,
    "fetch_urls": fetch_urls,
    "restore_points": _rollback.restore_points,
    "restore_point_table": _report.restore_points,
    "status_table": _report.status,
    "health_table": _report.health,
    "health_problems": _report.sick,
    "lock_table": _report.locks,
    "record_problems": _report.record_problems,
    "plan_parts": plan_parts,
    "host_waves": host_waves,
    "plan_outcome": _outcome.plan,
    "run_outcome": _outcome.of_run,
    "outcome": outcome,
    "outcome_table": outcome_table,
    "restart_table": _report.restarts,
    "failure": _report.failure,
    "undo_failure": _report.undo_failure,
    "unready": _report.unready,
    "failure_text": _report.failures,
    "left_out": _report.left_out,
    "setting": setting,
}


class FilterModule:
    """The filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {f"_{name}": _explained(name, function) for name, function in _FILTERS.items()}
