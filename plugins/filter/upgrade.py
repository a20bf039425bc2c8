# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters: from what was read on hosts to a plan, and to what people read."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _catalog, _planner, _report

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
                f"{name} can't use what it was given ({type(exc).__name__}: {exc}): "
                f"see ansible-doc -t filter observability.stack.{name}"
            ) from exc

    return wrapped


def _intent(versions: dict[str, str], phases: list[str] | None, only: list[str] | None) -> _planner.Intent:
    return _planner.Intent(dict(versions), list(phases or _planner.PHASES), list(only or []))


def plan_host(
    survey: Data,
    host: str,
    versions: dict[str, str],
    overrides: Data | None = None,
    components: Data | None = None,
    phases: list[str] | None = None,
    only: list[str] | None = None,
) -> Data:
    catalog = _catalog.load(overrides=overrides, components=components)
    return _planner.plan_host(host, survey, catalog, _intent(versions, phases, only))


def plan_rollback(
    survey: Data,
    host: str,
    to: str,
    kinds: list[str] | None = None,
    overrides: Data | None = None,
    components: Data | None = None,
    phases: list[str] | None = None,
    only: list[str] | None = None,
) -> Data:
    catalog, intent = _catalog.load(overrides=overrides, components=components), _intent({}, phases, only)
    return _planner.plan_rollback(host, survey, catalog, intent, to=to, kinds=list(kinds or ["binary"]))


def plan_fleet(plans: list[Data], phases: list[str] | None = None, kind: str = "upgrade", to: str = "") -> Data:
    return _planner.plan_fleet(list(plans), phases=list(phases or _planner.PHASES), kind=kind, to=to)


def probe_targets(
    survey: Data, overrides: Data | None = None, components: Data | None = None, only: list[str] | None = None
) -> list[Data]:
    catalog = _catalog.load(overrides=overrides, components=components)
    return [
        _planner.probe_target(name, facts, catalog[name], version=facts["version"])
        for name, facts in survey["components"].items()
        if facts["installed"] and facts["unit"] and (not only or name in only)
    ]


_FILTERS: dict[str, t.Callable[..., t.Any]] = {
    "plan_host": plan_host,
    "plan_rollback": plan_rollback,
    "plan_fleet": plan_fleet,
    "host_phases": _planner.host_phases,
    "plan_blockers": _planner.blockers,
    "swap_files": _planner.swap_files,
    "plan_table": _report.plan,
    "probe_targets": probe_targets,
    "restore_points": _planner.restore_points,
    "restore_point_table": _report.restore_points,
    "status_table": _report.status,
    "health_table": _report.health,
    "health_problems": _report.sick,
    "lock_table": _report.locks,
    "record_problems": _report.record_problems,
    "outcome_table": _report.outcome,
    "failure": _report.failure,
    "failure_text": _report.failures,
}


class FilterModule:
    """The filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {name: _explained(name, function) for name, function in _FILTERS.items()}
