# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What a plan costs: time, as far as the hosts' past tells; bytes; and room for restore points."""

from __future__ import annotations

import calendar
import statistics
import time
import typing as t

from ansible.utils.helpers import pct_to_int

from ..module_utils._state import name_of

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def seconds(phases: list[Data], surveys: Mapping[str, Data], sizes: t.Sequence[int | str]) -> int | None:
    """How long a plan takes: each step as long as the last successful ones of its component, in each wave of its phase.

    Steps of components that were never upgraded don't count. None if no step has a past.
    """
    known = _durations(surveys)
    total = [
        known[name_of(key)] * len(waves(list(phase["hosts"]), sizes))
        for phase in phases
        for key in phase["sequence"]
        if name_of(key) in known
    ]
    return round(sum(total)) if total else None


def _durations(surveys: Mapping[str, Data]) -> dict[str, float]:
    """Seconds that a step of a component took, by component: the median of all hosts' last ones that succeeded."""
    found: dict[str, list[float]] = {}
    for survey in surveys.values():
        for name, record in ((survey.get("state") or {}).get("components") or {}).items():
            took = _between(record.get("started_at"), record.get("finished_at"))
            if record.get("state") == "success" and took is not None:
                found.setdefault(name_of(name), []).append(took)
    return {name: statistics.median(each) for name, each in found.items()}


def _between(start: t.Any, end: t.Any) -> float | None:
    try:
        return calendar.timegm(time.strptime(end, _FORMAT)) - calendar.timegm(time.strptime(start, _FORMAT))
    except (TypeError, ValueError):
        return None


USUAL_WAVES = (1, "25%", "100%")
"""Waves where the operator does not set C(upgrade_waves)."""


def waves(hosts: t.Sequence[str], sizes: t.Sequence[int | str]) -> list[list[str]]:
    """The waves that hosts make, as C(serial) of a play counts them: the last size repeats.

    :param sizes: numbers of hosts, or parts of them such as C(25%). The usual ones if there are none.
    """
    found: list[list[str]] = []
    sizes, done = sizes or USUAL_WAVES, 0
    while done < len(hosts):
        size = int(pct_to_int(sizes[min(len(found), len(sizes) - 1)], len(hosts)))
        found.append(list(hosts[done : done + size]))
        done += size
    return found


def backups(hosts: Mapping[str, Data], surveys: Mapping[str, Data]) -> dict[str, int]:
    """Bytes that the restore points of a plan take on each host: one for each step, of what it replaces and keeps."""
    return {
        host: sum(
            surveys[host]["components"][step["component"]].get("restore_point_bytes", 0) for step in steps.values()
        )
        for host, steps in hosts.items()
    }


def urls(plan: Data) -> list[str]:
    """All archives that a plan needs, each once."""
    return sorted(
        {step["stage"]["url"] for steps in plan["hosts"].values() for step in steps.values() if step["stage"]}
    )


def with_sizes(plan: Data, sizes: Mapping[str, Data]) -> Data:
    """A plan with what is to be fetched for it. A release that isn't there stands in its way.

    :param sizes: by URL, C(bytes) and the C(status) that a server answered with, each none if it isn't known; and
        C(missing), why it can't be had, where that is known otherwise.
    """
    known = {url: size["bytes"] for url, size in sizes.items()}
    missing = {
        url: size.get("missing") or f"{url} answered 404"
        for url, size in sizes.items()
        if size["status"] == 404 or size.get("missing")
    }
    findings = [
        {
            "key": f"{step['component']}.no_release",
            "severity": "blocker",
            "component": step["component"],
            "host": host,
            "message": f"{missing[step['stage']['url']]}: {step['component']} {step['to']} can't be fetched",
            "fix": "wish for a version that was released, or put it on the mirror or into the bundle",
        }
        for host, steps in plan["hosts"].items()
        for step in steps.values()
        if step["stage"] and step["stage"]["url"] in missing
    ]
    download = {
        "bytes": sum(size for size in known.values() if size is not None),
        "unknown": sum(size is None for size in known.values()),
        "archives": known,
    }
    return {**plan, "download": download, "findings": [*plan["findings"], *findings]}
