# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _solver
from ansible_collections.observability.stack.plugins.plugin_utils._solver import Part, Rule

ALERTMANAGER_FIRST = Rule("prometheus", ">=2.49", "alertmanager", ">=0.26", source="upgrade_rules")
RANKS = {"node_exporter": 0, "alertmanager": 1, "prometheus": 2, "loki": 3, "promtail": 4, "grafana": 5}
Hosts = dict[str, str]


def part(
    component: str, here: str | Hosts, *way: str, ways: dict[str, list[str]] | None = None, **fields: t.Any
) -> Part:
    """A component on host1, or on several."""
    hosts = {"host1": here} if isinstance(here, str) else here
    ways = ways if ways is not None else {host: list(way) for host in hosts if way}
    fields = {"stack": "prod", "rank": (RANKS.get(component, 9), component), **fields}
    return Part(component=component, here=hosts, ways=ways, **fields)


def shown(solution: _solver.Solution) -> list[str]:
    return [f"{step.component} {step.version}" + (" extra" if step.extra else "") for step in solution.steps]


METRICS = [
    part("prometheus", "2.42.0", "2.53.3", "3.5.3"),
    part("alertmanager", "0.25.0", "0.28.1"),
]


def test_lowest_rank_goes_first_if_nothing_speaks_against_it() -> None:
    solution = _solver.solve(METRICS, [])
    assert shown(solution) == ["alertmanager 0.28.1", "prometheus 2.53.3", "prometheus 3.5.3"]
    assert [step.because for step in solution.steps] == [(), (), ()]
    assert (solution.conflicts, solution.warnings) == ([], [])


@pytest.mark.parametrize("rank", [(0,), (9,)])
def test_a_rule_comes_before_the_rank(rank: tuple[int]) -> None:
    solution = _solver.solve([METRICS[0]._replace(rank=rank), METRICS[1]], [ALERTMANAGER_FIRST])
    assert shown(solution) == ["alertmanager 0.28.1", "prometheus 2.53.3", "prometheus 3.5.3"]
    assert [step.because for step in solution.steps] == [
        ("before prometheus 2.53.3: prometheus >=2.49 needs alertmanager >=0.26",),
        ("after alertmanager 0.28.1: prometheus >=2.49 needs alertmanager >=0.26",),
        (),
    ]


def test_what_cannot_hold_at_the_end_is_told_with_the_way_out() -> None:
    releases = ("0.25.0", "0.26.0", "0.28.1")
    parts = [METRICS[0], part("alertmanager", "0.25.0", releases=releases), part("node_exporter", "1.5.0", "1.9.1")]
    solution = _solver.solve(parts, [ALERTMANAGER_FIRST])
    (conflict,) = solution.conflicts
    assert shown(solution) == ["node_exporter 1.9.1"]
    assert conflict.rules == (ALERTMANAGER_FIRST,)
    assert conflict.parts == ("prometheus",)
    assert conflict.message == (
        "prometheus 3.5.3 needs alertmanager >=0.26 (upgrade_rules), but alertmanager stays at 0.25.0 on host1"
    )
    assert conflict.change == "wish for alertmanager too: upgrade_versions: {alertmanager: '0.28.1'}"


def test_two_that_need_each_other_have_no_order() -> None:
    rules = [Rule("loki", "3.x", "promtail", "3.x"), Rule("promtail", "3.x", "loki", "3.x")]
    solution = _solver.solve([part("loki", "2.9.8", "3.5.0"), part("promtail", "2.9.8", "3.5.0")], rules)
    (conflict,) = solution.conflicts
    assert conflict.rules == tuple(rules)
    assert conflict.message == (
        "no order of steps keeps 'loki 3.x needs promtail 3.x' and 'promtail 3.x needs loki 3.x'"
    )
    assert conflict.change == "let 'loki 3.x needs promtail 3.x' hold at the end only: throughout: false"
    assert conflict.parts == ("loki", "promtail")
    assert solution.steps == []


def test_a_stop_is_added_where_no_order_exists_without_one() -> None:
    releases = ("1.0.0", "2.0.0", "2.1.0", "3.0.0")
    parts = [part(name, "1.0.0", "3.0.0", releases=releases) for name in ("loki", "promtail")]
    rules = [Rule("loki", ">=2", "promtail", ">=2"), Rule("promtail", ">=3", "loki", ">=2")]
    solution = _solver.solve(parts, rules)
    assert shown(solution) == ["promtail 2.1.0 extra", "loki 3.0.0", "promtail 3.0.0"]
    assert solution.steps[0].because == ("before loki 3.0.0: loki >=2 needs promtail >=2",)


def test_dependencies_go_first() -> None:
    parts = [
        part("alertmanager", "0.25.0", "0.28.1", depends_on=("grafana",)),
        part("grafana", "10.0.0", "10.4.0", "11.0.0"),
    ]
    solution = _solver.solve(parts, [])
    assert shown(solution) == ["grafana 10.4.0", "grafana 11.0.0", "alertmanager 0.28.1"]
    assert solution.steps[2].because == ("after grafana 11.0.0: alertmanager depends on grafana",)


@pytest.mark.parametrize(
    "rules, depends_on, text",
    [
        ([], {"loki": ["promtail"], "promtail": ["loki"]}, "loki -> promtail -> loki is a cycle"),
        ([], {"loki": ["loki"]}, "loki -> loki is a cycle"),
        ([], {"loki": ["promtial"]}, "depends_on of loki: no component 'promtial' is known; did you mean promtail?"),
        ([Rule("loki", "3.x", "x", "3.x")], {}, "upgrade_rules: loki 3.x needs x 3.x: no component 'x' is known"),
        ([Rule("loki", "3.x", "promtail", "new", source="catalog/loki.yml")], {}, "catalog/loki.yml: .* 'new' is not"),
        ([Rule("loki", "3.x", "loki", "3.x")], {}, "a rule is about two components"),
    ],
)
def test_what_cannot_be_meant_is_refused(rules: list[Rule], depends_on: dict[str, list[str]], text: str) -> None:
    with pytest.raises(InputError, match=text):
        _solver.check(rules, depends_on, ["loki", "promtail"])
