# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The outcome of a playbook as data, for programs: what its report says to people.

Each has C(kind), C(counts) and C(failed_hosts). It becomes C(upgrade_outcome) of C(set_stats), so that it holds no
secret and stays small.
"""

from __future__ import annotations

import collections
import typing as t

from ..module_utils._errors import shown
from . import _report

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Data = dict[str, t.Any]

_LIMIT = 2000
"""Characters of a text that comes from a host."""


def plan(document: Data, problems: t.Sequence[str] = ()) -> Data:
    """The outcome of planning.

    :param problems: why the plan is not carried out.
    """
    steps = sum(len(steps) for steps in document["hosts"].values())
    blockers = [finding for finding in document["findings"] if finding["severity"] == "blocker"]
    return {
        "kind": "plan",
        "digest": document["digest"],
        "counts": {"hosts": len(document["hosts"]), "steps": steps, "blockers": len(blockers)},
        "failed_hosts": [],
        "blocked_hosts": sorted({finding["host"] for finding in blockers}),
        "problems": [_text(problem) for problem in problems],
    }


def of_run(
    found: Iterable[Mapping[str, t.Any]], document: Data, alive: t.Collection[str], upgrade_id: str, check: bool
) -> Data:
    """What a run has done, from the variables that it left on its hosts: C(outcome), and what the report shows beside.

    :param found: the variables of each host of the play.
    :param document: the plan.
    :param alive: the hosts that can be reached.
    :param check: whether it was a rehearsal without changes.
    """
    states: dict[str, Data] = {}
    hosts: dict[str, Data] = {}
    unasked: dict[str, list[Data]] = {}
    for variables in found:
        name = str(variables["inventory_hostname"])
        unasked[name] = variables.get("__upgrade_unasked") or []
        if name in document["hosts"] or variables.get("__upgrade_failures"):
            state = (variables.get("__upgrade_closed") or {}).get("document")
            hosts[name] = _host(variables, state, alive=name in alive)
            if state:
                states[name] = state
    steps = collections.Counter(ended for host in hosts.values() for ended in host["steps"].values())
    ended = collections.Counter(host["state"] for host in hosts.values())
    return {
        "states": states,
        "unasked": unasked,
        "outcome": {
            "kind": document["kind"],
            "upgrade_id": upgrade_id,
            "digest": document["digest"],
            "check_mode": check,
            "counts": {
                "hosts": len(hosts),
                **{name: ended[name] for name in STATES},
                "steps": {name: steps[name] for name in ENDINGS},
            },
            "failed_hosts": sorted(name for name, host in hosts.items() if host["state"] in ("failed", "lost")),
            "hosts": hosts,
        },
    }


STATES = ("succeeded", "failed", "lost", "declined", "waiting", "not_begun")
"""How a run ended on a host. C(lost): it cannot be reached any more. C(waiting): its maintenance window is closed."""
ENDINGS = ("succeeded", "rolled_back", "aborted", "failed", "pending")
"""How a step ended."""


def _host(variables: Mapping[str, t.Any], state: Data | None, *, alive: bool) -> Data:
    failures = variables.get("__upgrade_failures") or []
    steps = dict(state["upgrade"].get("steps", {})) if state else {}
    for failure in failures:
        if failure.get("component") and failure.get("outcome"):
            steps[f"{failure['component']}@{failure['to']}"] = failure["outcome"]
    real = [failure for failure in failures if not failure.get("stopped")]
    ended = {
        "lost": not alive,
        "failed": bool(real),
        "declined": bool(failures),
        "waiting": bool(variables.get("__upgrade_held")),
        "not_begun": state is None,
    }
    errors = [_text(failure["error"]) for failure in real]
    return {
        "state": next((name for name, holds in ended.items() if holds), "succeeded"),
        "steps": steps,
        "errors": errors,
    }


def check(checked: Data) -> Data:
    """The outcome of looking for newer releases."""
    rows = checked["rows"]
    newer = [row for row in rows if row["available"]]
    wrong = [answer["error"] for answer in checked["sources"].values() if answer.get("error")]
    return {
        "kind": "check",
        "counts": {
            "hosts": len({row["host"] for row in rows}),
            "components": len(rows),
            "upgradable": len([row for row in newer if not row["blocked_by"]]),
            "vulnerable": len([row for row in rows if row["vulnerable"]]),
        },
        "failed_hosts": [],
        "problems": [_text(problem) for problem in wrong],
    }


def status(surveys: Mapping[str, Data]) -> Data:
    """The outcome of reading the state of hosts: how many have each, and which were left in the middle."""
    states = {
        host: ((survey["state"] or {}).get("upgrade") or {}).get("state", "IDLE") for host, survey in surveys.items()
    }
    return {
        "kind": "status",
        "counts": {"hosts": len(states), **collections.Counter(states.values())},
        "failed_hosts": sorted(host for host, state in states.items() if state == "FAILED"),
        "locked_hosts": sorted(host for host, survey in surveys.items() if survey.get("lease")),
    }


def verify(found: Mapping[str, Mapping[str, t.Any]]) -> Data:
    """The outcome of verifying hosts.

    :param found: C(services) of each host, as health_probe returns them, and its C(states), as upgrade_state_info does.
    """
    services, states = found["services"], found["states"]
    unhealthy = {
        host: [service["component"] for service in each if not _report.is_well(service)]
        for host, each in services.items()
    }
    return {
        "kind": "verify",
        "counts": {
            "hosts": len(services),
            "healthy": sum(service["healthy"] for each in services.values() for service in each),
            "unhealthy": sum(map(len, unhealthy.values())),
        },
        "failed_hosts": sorted(host for host in services if unhealthy[host] or states[host].get("problems")),
        "unhealthy": {host: names for host, names in unhealthy.items() if names},
    }


def restart(asked: Data) -> Data:
    """The outcome of restarting services.

    :param asked: C(hosts) that were surveyed, those that were C(begun), and those that are still C(alive).
    """
    ended = {
        host: "not_begun" if host not in asked["begun"] else "succeeded" if host in asked["alive"] else "failed"
        for host in asked["hosts"]
    }
    count = collections.Counter(ended.values())
    return {
        "kind": "restart",
        "counts": {"hosts": len(ended), **{name: count[name] for name in ("succeeded", "failed", "not_begun")}},
        "failed_hosts": [host for host, how in ended.items() if how == "failed"],
        "hosts": ended,
    }


def restore_points(points: Mapping[str, list[Data]]) -> Data:
    """The outcome of listing restore points."""
    return {
        "kind": "restore_points",
        "counts": {"hosts": len(points), "restore_points": sum(map(len, points.values()))},
        "failed_hosts": [],
        "hosts": {host: [point["id"] for point in found] for host, found in points.items()},
    }


def locks(results: Mapping[str, Data]) -> Data:
    """The outcome of releasing locks."""
    released = sorted(host for host, result in results.items() if result.get("changed"))
    return {
        "kind": "unlock",
        "counts": {"hosts": len(results), "released": len(released)},
        "failed_hosts": [],
        "released": released,
    }


def _text(text: t.Any) -> str:
    return shown(str(text), most=_LIMIT, lines=True)


KINDS: dict[str, t.Callable[[t.Any], Data]] = {
    "check": check,
    "status": status,
    "verify": verify,
    "restart": restart,
    "restore_points": restore_points,
    "unlock": locks,
}
