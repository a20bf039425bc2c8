#!/usr/bin/env python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it takes to plan: the order of synthetic stacks, from plain ones to those without an order; and whole fleets.

Each line tells what was solved, the seconds it took, and the seconds it may take. Exits with 1 if one takes longer.
"""

from __future__ import annotations

import json
import sys
import time
import typing as t

from ansible_collections.observability.stack.plugins.plugin_utils import _planner, _solver, _sources
from ansible_collections.observability.stack.plugins.plugin_utils._solver import Part, Rule
from ansible_collections.observability.stack.tests.unit.surveys import CATALOG, Data, facts, survey

COMPONENTS, RULES = 30, 20
RELEASES = tuple(f"{major}.{minor}.0" for major in range(1, 5) for minor in range(10))
NAMES = [f"component{number:02d}" for number in range(COMPONENTS)]
MINORS = ("1.2.0", "1.5.0", "1.9.0")


def stack(name: str, hosts: t.Sequence[str], *, reverse: bool = False, varied: bool = False) -> list[Part]:
    """All components on all hosts, from 1.x to 4.0.0 with a stop; ``reverse``: the rank speaks against rules."""
    parts = []
    for number, component in enumerate(NAMES):
        here = {host: MINORS[position % 3] if varied else "1.2.0" for position, host in enumerate(hosts)}
        ways = {host: ["3.0.0", "4.0.0"] for host in hosts}
        rank = (-number if reverse else number, component)
        parts.append(Part(name, component, rank, here, ways, RELEASES))
    return parts


def rules(*, circle: bool = False) -> list[Rule]:
    """Each needs the one before it. ``circle``: the first needs the last of them, too."""
    pairs = [(NAMES[number + 1], NAMES[number]) for number in range(RULES - 1)]
    pairs.append((NAMES[0], NAMES[RULES - 1]) if circle else (NAMES[RULES], NAMES[0]))
    return [Rule(one, ">=3", other, ">=3", source="upgrade_rules") for one, other in pairs]


def stops() -> list[Rule]:
    """Ten pairs, of which three have an order only with a version in between."""
    found = []
    for number in range(0, RULES, 2):
        one, other = NAMES[number : number + 2]
        found.append(Rule(one, ">=2", other, ">=2"))
        found.append(Rule(other, ">=2.5" if number < 6 else ">=4", one, ">=2"))
    return found


def cases() -> t.Iterator[tuple[str, float, list[Part], list[Rule]]]:
    one, thousand = ["host1"], [f"host{number}" for number in range(1000)]
    yield "30 components, 20 rules", 1, stack("prod", one), rules()
    yield "the rank against all rules", 1, stack("prod", one, reverse=True), rules()
    yield "3 stops to be added", 1, stack("prod", one), stops()
    yield "no order: all in a circle", 1, stack("prod", one), rules(circle=True)
    still = [part._replace(ways={}) if part.component == NAMES[0] else part for part in stack("prod", one)]
    yield "no order: the first of all stays", 1, still, rules()
    yield "1000 hosts in one stack", 5, stack("prod", thousand, varied=True), rules()
    each = [part for number in range(1000) for part in stack(f"stack{number}", [thousand[number]], reverse=True)]
    yield "1000 stacks of one host", 5, each, rules()
    different = [part for number in range(50) for part in stack(f"stack{number}", thousand[: 20 + number], varied=True)]
    yield "50 stacks of 20 to 69 hosts", 5, different, rules()


def fleet(hosts: int) -> tuple[Data, Data, Data]:
    """What was read of hosts with five components each, what is wished of them, and what lists of releases say."""
    here = {"node_exporter": "1.5.0", "blackbox_exporter": "0.23.0", "alertmanager": "0.25.0", "loki": "2.9.1"}
    components = {name: facts(name, version) for name, version in {**here, "prometheus": "2.42.0"}.items()}
    wish = {
        "versions": {"node_exporter": "latest", "alertmanager": "0.28.1", "prometheus": "3.5.3", "loki": ">=3,<4"},
        "rules": {"prometheus": [{"when": ">=2.49", "component": "alertmanager", "versions": ">=0.26"}]},
        "policy": {"default": {"step": "any", "min_age": 7}},
    }
    releases = [{"version": f"{3 - number // 40}.{number % 40}.0", "date": "2026-01-01"} for number in range(100)]
    sources = [_sources.source_of(CATALOG[name]) for name in (*here, "prometheus")]
    answers = {source: {"releases": releases, "as_of": "2026-11-21T10:00:00Z", "note": None} for source in sources}
    exact = [{"version": version, "date": "2026-01-01"} for version in ("3.5.3", "0.28.1", "2.55.1")]
    for source in sources:
        answers[source] = {**answers[source], "releases": [*releases, *exact]}
    names = [f"host{number}" for number in range(hosts)]
    # As from a host: what was read of each is an object of its own.
    return {name: json.loads(json.dumps(survey(components))) for name in names}, dict.fromkeys(names, wish), answers


def main() -> int:
    slow = 0
    for name, limit, parts, needed in cases():
        start = time.perf_counter()
        solution = _solver.solve(parts, needed)
        seconds = time.perf_counter() - start
        slow += seconds > limit
        found = f"{len(solution.steps)} steps, {len(solution.conflicts)} conflicts"
        print(f"{name:34}{seconds:8.3f} s of {limit} s   {found}")
    for hosts, limit in ((10, 1), (100, 1), (1000, 5)):
        surveys, wishes, answers = fleet(hosts)
        start = time.perf_counter()
        plan = _planner.plan_upgrade(surveys, wishes, answers=answers)
        seconds = time.perf_counter() - start
        slow += seconds > limit
        steps = sum(len(steps) for steps in plan["hosts"].values())
        print(f"{f'a whole plan, {hosts} hosts':34}{seconds:8.3f} s of {limit} s   {steps} steps")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
