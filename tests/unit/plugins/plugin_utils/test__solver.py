# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import re
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _solver, _versions
from ansible_collections.observability.stack.plugins.plugin_utils._solver import Part, Rule
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert conflict.change == "let 'loki 3.x needs promtail 3.x' hold at the end only: hold: at_end"
    assert conflict.parts == ("loki", "promtail")
    assert solution.steps == []


def test_a_rule_that_dependencies_alone_rule_out_is_to_blame_alone() -> None:
    names = {"loki": (), "promtail": ("loki",), "grafana": ("promtail",)}
    parts = [part(name, "2.9.8", "3.5.0", depends_on=depends_on) for name, depends_on in names.items()]
    rules = [Rule("loki", "3.x", "grafana", "3.x"), Rule("grafana", "3.x", "loki", "3.x")]
    (conflict,) = _solver.solve(parts, rules).conflicts
    assert conflict.rules == (rules[0],)
    assert conflict.message.endswith("as promtail depends on loki and grafana depends on promtail")


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


def test_hosts_at_different_versions_go_through_one_chain() -> None:
    parts = [
        part(
            "prometheus",
            {"host1": "2.42.0", "host2": "2.53.3", "host3": "3.5.3"},
            ways={"host1": ["2.53.3", "3.5.3"], "host2": ["3.5.3"]},
        ),
        part("alertmanager", {"host1": "0.27.0", "host2": "0.25.0"}, "0.28.1"),
    ]
    rules = [ALERTMANAGER_FIRST, Rule("alertmanager", ">=0.28", "prometheus", ">=2.53")]
    solution = _solver.solve(parts, rules)
    assert shown(solution) == ["prometheus 2.53.3", "alertmanager 0.28.1", "prometheus 3.5.3"]
    assert solution.steps[0].because == ("before alertmanager 0.28.1: alertmanager >=0.28 needs prometheus >=2.53",)
    (warning,) = solution.warnings
    assert warning == _solver.Violation(
        "prod",
        ALERTMANAGER_FIRST,
        "prometheus 3.5.3 needs alertmanager >=0.26 (upgrade_rules), but alertmanager is 0.25.0 on host2",
        "",
        lasts=False,
    )


def test_what_was_broken_before_is_told_and_left_if_nothing_of_it_moves() -> None:
    parts = [
        part("prometheus", "2.53.3"),
        part("alertmanager", "0.25.0", releases=("0.28.1", "0.26.0", "main")),
        part("grafana", "10.0.0", "11.0.0"),
    ]
    solution = _solver.solve(parts, [ALERTMANAGER_FIRST])
    assert shown(solution) == ["grafana 11.0.0"]
    assert solution.conflicts == []
    (warning,) = solution.warnings
    assert warning.lasts
    assert warning.change == "wish for alertmanager too: upgrade_versions: {alertmanager: '0.28.1'}"


def test_what_was_broken_before_must_hold_at_the_end_if_one_of_it_moves() -> None:
    parts = [part("prometheus", "2.53.3", "2.53.5"), part("alertmanager", "0.25.0")]
    solution = _solver.solve(parts, [ALERTMANAGER_FIRST])
    (conflict,) = solution.conflicts
    assert conflict.change == "leave out prometheus"
    assert solution.steps == []
    assert [warning.lasts for warning in solution.warnings] == [True]


def test_what_came_to_hold_is_not_broken_again() -> None:
    """Broken at first, so no step is barred; after alertmanager 0.28.1 prometheus may not go where it asks for 0.29."""
    rules = [Rule("prometheus", "2.42.0 || 2.53.3", "alertmanager", ">=0.28,<0.29")]
    parts = [part("prometheus", "2.42.0", "2.53.3", "3.5.3"), part("alertmanager", "0.25.0", "0.28.1", "0.29.0")]
    solution = _solver.solve(parts, rules)
    assert shown(solution) == ["alertmanager 0.28.1", "prometheus 2.53.3", "prometheus 3.5.3", "alertmanager 0.29.0"]


@pytest.mark.parametrize("here", ["unknown", "", "main"])
def test_an_unknown_version_is_not_what_a_rule_needs(here: str) -> None:
    solution = _solver.solve([METRICS[0], part("alertmanager", here)], [ALERTMANAGER_FIRST])
    (conflict,) = solution.conflicts
    assert conflict.message == (
        "prometheus 3.5.3 needs alertmanager >=0.26 (upgrade_rules), "
        "but the version of alertmanager on host1 isn't known"
    )
    assert conflict.change == "leave out prometheus"


def test_an_unknown_version_asks_for_nothing() -> None:
    solution = _solver.solve(
        [part("prometheus", "unknown"), part("alertmanager", "0.24.0", "0.25.0")], [ALERTMANAGER_FIRST]
    )
    assert shown(solution) == ["alertmanager 0.25.0"]
    assert solution.warnings == []


def test_a_component_that_is_not_there_is_no_obstacle() -> None:
    solution = _solver.solve(METRICS[:1], [ALERTMANAGER_FIRST])
    assert shown(solution) == ["prometheus 2.53.3", "prometheus 3.5.3"]


def test_a_rule_for_the_end_bars_no_step_on_the_way() -> None:
    rule = ALERTMANAGER_FIRST._replace(throughout=False)
    parts = [METRICS[0]._replace(rank=(0,)), METRICS[1]]
    assert shown(_solver.solve(parts, [rule])) == ["prometheus 2.53.3", "prometheus 3.5.3", "alertmanager 0.28.1"]
    (conflict,) = _solver.solve([METRICS[0], part("alertmanager", "0.25.0")], [rule]).conflicts
    assert conflict.rules == (rule,)


def test_stacks_have_their_own_order_and_do_alike_steps_together() -> None:
    """alertmanager, whose rank is higher here, comes first by a rule; then it does so in all stacks at once."""
    stacks = [part._replace(stack=stack) for stack in ("b", "a", "c") for part in METRICS]
    stacks = [each._replace(rank=(9,)) if each.component == "alertmanager" else each for each in stacks]
    stacks[4:] = [part("prometheus", "2.42.0", "2.53.3", "3.5.3", stack="c")]
    solution = _solver.solve(stacks, [ALERTMANAGER_FIRST])
    assert [(step.stack, step.component, step.version) for step in solution.steps] == [
        ("c", "prometheus", "2.53.3"),
        ("c", "prometheus", "3.5.3"),
        ("a", "alertmanager", "0.28.1"),
        ("b", "alertmanager", "0.28.1"),
        ("a", "prometheus", "2.53.3"),
        ("b", "prometheus", "2.53.3"),
        ("a", "prometheus", "3.5.3"),
        ("b", "prometheus", "3.5.3"),
    ]


def test_stacks_with_opposite_needs_go_opposite_ways() -> None:
    rules = [Rule("loki", "3.x", "promtail", "3.x"), Rule("promtail", "3.x", "grafana", "11.x")]
    first = [part("loki", "2.9.8", "3.5.0", stack="a"), part("promtail", "2.9.8", "3.5.0", stack="a")]
    second = [part("promtail", "2.9.8", "3.5.0", stack="b"), part("grafana", "10.0.0", "11.0.0", stack="b")]
    solution = _solver.solve([*first, *second], rules)
    assert [(step.stack, step.component) for step in solution.steps] == [
        ("a", "promtail"),
        ("a", "loki"),
        ("b", "grafana"),
        ("b", "promtail"),
    ]


def test_a_conflict_of_one_stack_leaves_the_others_alone() -> None:
    bad = [part("prometheus", "2.42.0", "3.5.3", stack="a"), part("alertmanager", "0.25.0", stack="a")]
    solution = _solver.solve([*bad, *(each._replace(stack="b") for each in METRICS)], [ALERTMANAGER_FIRST])
    assert [(conflict.stack, conflict.parts) for conflict in solution.conflicts] == [("a", ("prometheus",))]
    assert {step.stack for step in solution.steps} == {"b"}


@pytest.mark.parametrize(
    "loki, promtail, change",
    [
        (
            part("loki", "2.9.8", "3.5.0", wish="latest", releases=("2.9.8", "2.9.17", "3.5.0")),
            part("promtail", "2.9.8"),
            "wish for loki 2.9.17 instead of latest: upgrade_versions: {loki: '2.9.17'}",
        ),
        (
            part("loki", "2.9.8", "3.5.0", wish="3.x"),
            part("promtail", "2.9.8", "2.9.17", wish="2.9.x", releases=("2.9.8", "2.9.17", "3.4.0", "3.5.0")),
            "wish for promtail 3.5.0 instead of 2.9.x: upgrade_versions: {promtail: '3.5.0'}",
        ),
        (part("loki", "2.9.8", "3.5.0"), part("promtail", "2.9.8", "2.9.17"), "leave out loki"),
    ],
)
def test_the_smallest_change_is_told(loki: Part, promtail: Part, change: str) -> None:
    (conflict,) = _solver.solve([loki, promtail], [Rule("loki", "3.x", "promtail", "3.x")]).conflicts
    assert conflict.change == change


def test_what_only_follows_from_a_conflict_is_not_told_as_another() -> None:
    rules = [Rule("prometheus", "3.x", "alertmanager", ">=0.28"), Rule("grafana", "11.x", "prometheus", "3.x")]
    parts = [
        part("alertmanager", "0.25.0", releases=("0.28.1",)),
        part("prometheus", "2.53.3", "3.5.3"),
        part("grafana", "10.0.0", "11.0.0"),
    ]
    (conflict,) = _solver.solve(parts, rules).conflicts
    assert conflict.rules == (rules[0],)
    assert conflict.parts == ("prometheus", "grafana")
    assert conflict.change == "wish for alertmanager too: upgrade_versions: {alertmanager: '0.28.1'}"


def test_a_conflict_with_dependencies_names_them() -> None:
    parts = [part("loki", "2.9.8", "3.5.0"), part("promtail", "2.9.8", "3.5.0", depends_on=("loki",))]
    (conflict,) = _solver.solve(parts, [Rule("loki", "3.x", "promtail", "3.x", source="upgrade_rules")]).conflicts
    assert conflict.message == (
        "no order of steps keeps 'loki 3.x needs promtail 3.x' (upgrade_rules), as promtail depends on loki"
    )


def test_a_way_back_is_a_way_too() -> None:
    parts = [part("prometheus", "3.5.3", "2.55.1"), part("alertmanager", "0.28.1", "0.25.0")]
    solution = _solver.solve(parts, [Rule("prometheus", "3.x", "alertmanager", ">=0.26")])
    assert shown(solution) == ["prometheus 2.55.1", "alertmanager 0.25.0"]


def test_many_hosts_are_told_in_one_line() -> None:
    hosts = {f"host{number}": "0.25.0" for number in range(1, 6)}
    (conflict,) = _solver.solve([METRICS[0], part("alertmanager", hosts)], [ALERTMANAGER_FIRST]).conflicts
    assert conflict.message.endswith("but alertmanager stays at 0.25.0 on host1, host2, host3 and 2 more")


def circle(*names: str) -> list[Rule]:
    return [Rule(one, ">=2", other, ">=2") for one, other in zip(names, (*names[1:], names[0]))]


def test_too_many_orders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part(name, "1.0.0", "2.0.0") for name in ("loki", "promtail", "grafana")]
    assert len(_solver.solve(parts, circle("loki", "promtail", "grafana")).conflicts) == 1
    monkeypatch.setattr(_solver, "_MOST_STATES", 0)
    with pytest.raises(InputError, match="too many orders"):
        _solver.solve(parts, circle("loki", "promtail", "grafana"))


def test_a_step_that_only_all_rules_together_speak_against_is_not_taken() -> None:
    """loki 2 first is fine for each two of them. But then promtail waits for loki 3, and that for grafana."""
    parts = [
        part("loki", "1.0.0", "2.0.0", "3.0.0"),
        part("promtail", "1.0.0", "2.0.0", "3.0.0"),
        part("grafana", "1.0.0", "2.0.0"),
    ]
    rules = [
        Rule("promtail", "2.x", "loki", "!=2.0.0"),
        Rule("loki", "3.x", "grafana", "2.x"),
        Rule("grafana", "2.x", "promtail", "3.x"),
    ]
    order = ["promtail 2.0.0", "promtail 3.0.0", "loki 2.0.0", "grafana 2.0.0", "loki 3.0.0"]
    assert shown(_solver.solve(parts, rules)) == order


def test_as_many_stops_are_added_as_it_takes() -> None:
    releases, names = ("2.0.0",), ("loki", "promtail", "grafana", "prometheus")
    parts = [part(name, "1.0.0", "3.0.0", releases=releases) for name in names]
    rules = [Rule("loki", ">=2", "grafana", ">=1")]
    for one, other in (names[:2], names[2:]):
        rules += [Rule(one, ">=2", other, ">=2"), Rule(other, ">=3", one, ">=2")]
    solution = _solver.solve(parts, rules)
    assert [step.component for step in solution.steps if step.extra] == ["prometheus", "promtail"]
    assert len(solution.steps) == 6


def test_a_dependency_that_is_not_to_blame_is_not_named() -> None:
    parts = [part(name, "1.0.0", "2.0.0") for name in ("loki", "promtail", "grafana", "node_exporter")]
    parts[0] = parts[0]._replace(depends_on=("node_exporter",))
    (conflict,) = _solver.solve(parts, circle("loki", "promtail", "grafana")).conflicts
    assert len(conflict.rules) == 3
    assert "depends on" not in conflict.message


@pytest.mark.parametrize(
    "parts, text",
    [
        ([METRICS[0], METRICS[0]], "the stack prod has prometheus twice"),
        (
            [part("loki", "2.9.8", "3.5.0", "3.4.0")],
            "loki on host1: the versions 3.5.0, 3.4.0 aren't in ascending order",
        ),
        ([part("loki", "2.9.8", "new")], "'new' is not a version"),
        ([part("loki", "1.0.0", "2.0.0", depends_on=("loki",))], "loki -> loki is a cycle"),
    ],
)
def test_a_stack_that_cannot_be_is_refused(parts: list[Part], text: str) -> None:
    with pytest.raises(InputError, match=text):
        _solver.solve(parts, [])


TEXT = st.one_of(st.text(max_size=6), st.sampled_from(["1.0.0", "2.0.0", "3.0.0", ">=2", "<2", "a", "b"]))


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Part,
            stack=TEXT,
            component=TEXT,
            rank=st.tuples(st.integers(), TEXT),
            here=st.dictionaries(TEXT, TEXT, max_size=2),
            ways=st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=2),
            releases=st.lists(TEXT, max_size=3).map(tuple),
            depends_on=st.lists(TEXT, max_size=2).map(tuple),
            wish=TEXT,
        ),
        max_size=3,
    ),
    st.lists(st.builds(Rule, TEXT, TEXT, TEXT, TEXT, st.booleans(), TEXT, TEXT), max_size=3),
)
def test_any_texts_are_solved_or_refused_in_one_line(parts: list[Part], rules: list[Rule]) -> None:
    try:
        solution = _solver.solve(parts, rules)
        texts = [conflict.message for conflict in solution.conflicts] + [each.message for each in solution.warnings]
    except InputError as exc:
        texts = [str(exc)]
    assert all(len(text.splitlines()) == 1 for text in texts)


# -- beside a search that knows nothing but the definitions, and tries everything -----------------------------------

NAMES = ("alpha", "beta", "gamma")
VERSIONS = [f"{number}.0.0" for number in range(1, 6)]
RANGES = st.one_of(
    st.builds("{}{}".format, st.sampled_from([">=", "<", "!=", ""]), st.sampled_from(VERSIONS)),
    st.builds(">={},<{}".format, st.sampled_from(VERSIONS), st.sampled_from(VERSIONS)),
)
Progress = dict[str, int]


@st.composite
def any_rule(draw: st.DrawFn) -> Rule:
    component, needs = draw(st.permutations(NAMES))[:2]
    return Rule(component, draw(RANGES), needs, draw(RANGES), draw(st.sampled_from([True, True, True, False])))


@st.composite
def any_part(draw: st.DrawFn, name: str) -> Part:
    hosts = [f"host{number}" for number in range(draw(st.integers(1, 2)))]
    ways = st.lists(st.sampled_from(VERSIONS), max_size=3, unique=True).map(sorted)
    return Part(
        stack="prod",
        component=name,
        rank=(draw(st.integers(0, 2)), name),
        here={host: draw(st.sampled_from([*VERSIONS[:3], *VERSIONS[:3], VERSIONS[4], "unknown"])) for host in hosts},
        ways={host: way for host in hosts if (way := draw(ways))},
        releases=tuple(draw(st.lists(st.sampled_from(VERSIONS), max_size=3))),
    )


@st.composite
def tight_rule(draw: st.DrawFn) -> Rule:
    """One that holds at both ends of a tight part's way."""
    component, needs = draw(st.permutations(NAMES))[:2]
    low, high = draw(st.sampled_from(VERSIONS[1:])), draw(st.sampled_from(VERSIONS[1:]))
    when, versions = draw(st.sampled_from([(f">={low}", f">={high}"), (f"<{low}", f"<{high}"), (low, f"!={high}")]))
    return Rule(component, when, needs, versions)


@st.composite
def tight_part(draw: st.DrawFn, name: str) -> Part:
    """One whose order may matter: from the first version to the last."""
    here = {"host0": VERSIONS[0], "host1": draw(st.sampled_from(VERSIONS))}
    stops = draw(st.lists(st.sampled_from(VERSIONS[1:4]), max_size=1))
    ways = {host: [stop for stop in stops if stop > here[host]] + VERSIONS[4:] for host in here if here[host] < "5"}
    hosts = draw(st.sampled_from([["host0"], ["host0"], ["host0", "host1"]]))
    return Part(
        stack="prod",
        component=name,
        rank=(draw(st.integers(0, 2)), name),
        here={host: here[host] for host in hosts},
        ways={host: ways[host] for host in hosts if host in ways},
        releases=tuple(draw(st.sampled_from([VERSIONS, VERSIONS[1:3], VERSIONS[2:3]]))),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Part], list[Rule]]:
    """A stack and its rules; dependencies without a cycle."""
    part, rule, most = draw(st.sampled_from([(any_part, any_rule, 4), (tight_part, tight_rule, 6)]))
    parts = [draw(part(name)) for name in draw(st.permutations(NAMES))]
    ties = [draw(st.sampled_from([(), (), (), (other.component,)])) for other in parts[:2]]
    parts[1:] = [each._replace(depends_on=before) for each, before in zip(parts[1:], ties)]
    return parts, draw(st.lists(rule(), max_size=most, unique_by=lambda rule: rule.text))


class Naive:
    """One stack, by the definitions: each host's version, all pairs of hosts, all states."""

    def __init__(self, parts: list[Part], rules: list[Rule]) -> None:
        self.parts = {part.component: part for part in sorted(parts, key=lambda part: part.rank)}
        self.rules = [rule for rule in rules if {rule.component, rule.needs} <= set(self.parts)]
        self.chains = {
            part.component: sorted({version for way in part.ways.values() for version in way}) for part in parts
        }
        self.start = dict.fromkeys(self.parts, 0)
        self.ends = {name: len(chain) for name, chain in self.chains.items()}
        self.dead: set[tuple[int, ...]] = set()

    def present(self, name: str, place: int) -> set[str]:
        part, passed = self.parts[name], set(self.chains[name][:place])
        return {
            [part.here[host], *(version for version in part.ways.get(host, []) if version in passed)][-1]
            for host in part.here
        }

    def broken(self, *states: Progress) -> set[Rule]:
        """By the versions that are present in any of these states."""
        versions = {name: {v for state in states for v in self.present(name, state[name])} for name in self.parts}
        return {
            rule
            for rule in self.rules
            for one in versions[rule.component]
            for other in versions[rule.needs]
            if one != "unknown" and _versions.matches(one, rule.when)
            if other == "unknown" or not _versions.matches(other, rule.versions)
        }

    def may(self, state: Progress, name: str) -> bool:
        if state[name] == self.ends[name]:
            return False
        if any(other in self.ends and state[other] < self.ends[other] for other in self.parts[name].depends_on):
            return False
        meanwhile = self.broken(state, {**state, name: state[name] + 1})
        return not any(rule.throughout for rule in meanwhile - self.broken(state))

    def steps(self, state: Progress) -> list[tuple[str, Progress]]:
        return [(name, {**state, name: state[name] + 1}) for name in self.parts if self.may(state, name)]

    def ends_well(self, state: Progress | None = None) -> bool:
        state = state or self.start
        if tuple(state.values()) in self.dead:
            return False
        if state == self.ends:
            return all(self.ends[rule.component] == self.ends[rule.needs] == 0 for rule in self.broken(state))
        found = any(self.ends_well(after) for name, after in self.steps(state))
        if not found:
            self.dead.add(tuple(state.values()))
        return found

    def order(self) -> list[tuple[str, str]]:
        state, order = self.start, []
        while state != self.ends:
            name, after = next((name, after) for name, after in self.steps(state) if self.ends_well(after))
            order.append((name, self.chains[name][state[name]]))
            state = after
        return order


def stopping(part: Part, version: str) -> Part:
    """With a stop for all hosts that come by. Versions of these tests are ordered like their texts."""
    passing = [host for host, way in part.ways.items() if part.here[host] < version < way[-1]]
    ways = {host: sorted({*way, version}) if host in passing else way for host, way in part.ways.items()}
    return part._replace(ways=ways)


def fewest_stops(parts: list[Part], rules: list[Rule]) -> int | None:
    """How many versions must be added to have an order; None if three don't do."""
    added = [(part.component, version) for part in parts for version in sorted(set(part.releases))]
    useful = [
        (name, version)
        for name, version in added
        if any(part.component == name and stopping(part, version) != part for part in parts)
    ]
    for number in range(4):
        for some in itertools.combinations(useful, number):
            changed = {part.component: part for part in parts}
            for name, version in some:
                changed[name] = stopping(changed[name], version)
            if Naive(list(changed.values()), rules).ends_well():
                return number
    return None


def left_out(parts: list[Part], names: t.Collection[str]) -> list[Part]:
    return [part._replace(ways={}) if part.component in names else part for part in parts]


def to(part: Part, version: str) -> Part:
    below = [host for host, here in part.here.items() if here < version]
    stops = {
        host: [stop for stop in part.ways.get(host, [])[:-1] if part.here[host] < stop < version] for host in below
    }
    return part._replace(ways={host: [*stops[host], version] for host in below})


def after_change(parts: list[Part], rules: list[Rule], change: str) -> tuple[list[Part], list[Rule]]:
    """What comes of doing what a conflict's C(change) says."""
    wish = re.search(r"^wish for .*: upgrade_versions: \{(\w+): '(.*)'\}$", change)
    if wish:
        name, version = wish.groups()
        return [to(part, version) if part.component == name else part for part in parts], rules
    rule = re.search(r"^let '(.*)' hold at the end only: hold: at_end$", change)
    if rule:
        return parts, [each._replace(throughout=False) if each.text == rule[1] else each for each in rules]
    return left_out(parts, re.findall(r"alpha|beta|gamma", change)), rules


def assert_valid(solution: _solver.Solution, parts: list[Part], rules: list[Rule]) -> None:
    """Step by step, whatever hosts have done theirs already; all that was wished is reached."""
    wished = {part.component: part for part in parts}
    for step in solution.steps:
        wished[step.component] = (
            stopping(wished[step.component], step.version) if step.extra else wished[step.component]
        )
    naive = Naive(list(wished.values()), rules)
    state = naive.start
    for step in solution.steps:
        assert naive.may(state, step.component)
        assert naive.chains[step.component][state[step.component]] == step.version
        state = {**state, step.component: state[step.component] + 1}
    assert state == naive.ends
    assert naive.ends_well(state)


@settings(max_examples=250, deadline=None)
@given(cases())
def test_an_order_is_found_exactly_where_there_is_one(case: tuple[list[Part], list[Rule]]) -> None:
    parts, rules = case
    solution = _solver.solve(parts, rules)
    stops = fewest_stops(parts, rules)
    assert (solution.conflicts == []) is (stops is not None)
    gone = {name for conflict in solution.conflicts for name in conflict.parts}
    assert_valid(solution, left_out(parts, gone), rules)
    assert {warning.rule for warning in solution.warnings} == Naive(parts, rules).broken(Naive(parts, rules).start)
    if stops is not None:
        assert sum(step.extra for step in solution.steps) == stops
    if stops == 0:
        assert [(step.component, step.version) for step in solution.steps] == Naive(parts, rules).order()


def test_a_stop_of_one_host_is_added_for_another_that_would_pass_it() -> None:
    """What one host stops at anyway the other must be told to stop at, too."""
    ways = {"host0": ["1.0.0", "4.0.0"], "host1": ["5.0.0"]}
    alpha = Part("prod", "alpha", (0, "alpha"), dict.fromkeys(ways, "1.0.0"), ways, releases=("4.0.0",))
    beta = Part("prod", "beta", (0, "beta"), {"host0": "1.0.0"}, {"host0": ["2.0.0", "3.0.0"]})
    rule = Rule("beta", ">=2.0.0,<3.0.0", "alpha", ">=2.0.0,<5.0.0")
    solution = _solver.solve([beta, alpha], [rule])
    assert [(step.component, step.version) for step in solution.steps if step.extra] == [("alpha", "4.0.0")]
    assert_valid(solution, [beta, alpha], [rule])


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_conflict_is_minimal_and_its_change_helps(case: tuple[list[Part], list[Rule]]) -> None:
    parts, rules = case
    conflicts = _solver.solve(parts, rules).conflicts
    gone: set[str] = set()
    everything = {name for conflict in conflicts for name in conflict.parts}
    for conflict in conflicts:
        before, others = left_out(parts, gone), left_out(parts, everything - set(conflict.parts))
        assert fewest_stops(before, list(conflict.rules)) is None
        for rule in conflict.rules:
            assert fewest_stops(before, [other for other in conflict.rules if other != rule]) is not None
        assert fewest_stops(*after_change(others, rules, conflict.change)) is not None
        gone |= set(conflict.parts)
    for number in range(len(everything)):
        for fewer in itertools.combinations(NAMES, number):
            assert fewest_stops(left_out(parts, fewer), rules) is None


@settings(deadline=None)
@given(cases(), cases())
def test_a_stack_goes_its_way_whatever_the_others_do(
    case: tuple[list[Part], list[Rule]], other: tuple[list[Part], list[Rule]]
) -> None:
    parts, rules = case
    others = [part._replace(stack="other") for part in other[0]]
    alone, together = _solver.solve(parts, rules), _solver.solve([*others, *reversed(parts)], rules)
    assert [step for step in together.steps if step.stack == "prod"] == alone.steps
    assert [conflict for conflict in together.conflicts if conflict.stack == "prod"] == alone.conflicts
    assert [warning for warning in together.warnings if warning.stack == "prod"] == alone.warnings
