# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import (
    _catalog,
    _check,
    _market,
    _planner,
    _rollback,
    _wish,
)
from ansible_collections.observability.stack.tests.unit.surveys import NOW, STACK, Data, drafted, facts, survey, wished
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"nod_exporter": "1.9.0"}, "nod_exporter, which no catalog entry describes. Known are alertmanager"),
        ({"node_exporter": "banana"}, "'banana' is neither a version"),
        ({"node_exporter": 1.9}, "1.9 is neither a version"),
        ({"node_exporter": None}, "None is neither"),
        ({"node_exporter": ">=7"}, "no release in '>=7': none is known; name an exact version"),
    ],
)
def test_a_wrong_wish_is_refused_by_name(versions: Data, says: str) -> None:
    with pytest.raises(InputError, match=says):
        drafted(survey(STACK), versions)


def test_an_unknown_component_to_narrow_to_is_refused() -> None:
    with pytest.raises(InputError, match="upgrade_only names promehteus"):
        drafted(survey(STACK), {}, only=["promehteus"])


WRONG: list[tuple[Data, str]] = [
    ({"versions": ["node_exporter"]}, "upgrade_versions is ['node_exporter']; it must be {component: version}"),
    ({"versions": {"node_exporter": True}}, "upgrade_versions.node_exporter: True is neither a version"),
    ({"versions": {"node_exporter": "newest"}}, "upgrade_versions.node_exporter: 'newest' is neither a version"),
    ({"versions": {1.9: "1.9.0", "loki": "3.0.0"}}, "upgrade_versions names 1.9, which no catalog entry describes"),
    ({"versions": {"a\nb": "1.9.0"}}, "upgrade_versions names 'a\\nb', which no catalog entry describes"),
    ({"overrides": {"node_exporter": {"prot": 1}}}, "upgrade_overrides: node_exporter.prot is not a field"),
    ({"components": {"mine": {}}}, "upgrade_components: mine.phase is missing"),
    ({"phases": "metrics"}, "upgrade_phases is 'metrics'; it must be a list of names"),
    ({"phases": [1]}, "upgrade_phases[0] is 1; it must be a text that isn't empty"),
    ({"only": {"loki": True}}, "upgrade_only is {'loki': True}; it must be a list of names"),
    ({"only": ["promehteus"]}, "upgrade_only names promehteus, which no catalog entry describes"),
    ({"policy": "patch"}, "upgrade_policy is 'patch'; it must be a dictionary"),
    ({"policy": {"loki": "huge"}}, "upgrade_policy.loki.step is 'huge'; it must be one of none, patch, minor, any"),
    ({"pins": {"lokki": "2.x"}}, "upgrade_pins.lokki is not a component that the catalog knows; did you mean loki?"),
    ({"pins": {"loki": 2}}, "upgrade_pins.loki is 2; it must be a version or a range"),
    ({"blacklist": [{"component": "loki"}]}, "upgrade_blacklist[0].versions is missing"),
    ({"allow_downgrade": "perhaps"}, "upgrade_allow_downgrade is 'perhaps'; it must be true or false"),
    ({"accept": "loki.pinned"}, "upgrade_accept is 'loki.pinned'; it must be a list of names"),
    ({"windows": {"start": "22:00"}}, "upgrade_windows is {'start': '22:00'}; it must be a list of windows"),
    ({"windows": [{"start": "22:00"}]}, "upgrade_windows[0].end is missing"),
    ({"rules": {"loki": {}}}, "upgrade_rules: loki is {}; it must be a list"),
    ({"rules": {"loki": [{"component": "lokki", "versions": "2.x"}]}}, "no component 'lokki' is known"),
    ({"rules": {"loki": [{"component": "loki", "versions": "2.x"}]}}, "a rule is about two components"),
    ({"overrides": {"loki": {"depends_on": ["promtail"]}}}, "depends_on: loki -> promtail -> loki is a cycle"),
    ({"stack": ["prod"]}, "upgrade_stack is ['prod']; it must be a name"),
    ({"stack": True}, "upgrade_stack is True; it must be a name"),
]


@pytest.mark.parametrize(("variables", "says"), WRONG, ids=[says[:50] for _variables, says in WRONG])
def test_each_variable_that_is_wrong_is_told_in_a_line_with_its_host(variables: Data, says: str) -> None:
    with pytest.raises(InputError) as failure:
        _planner.plan_upgrade({"web1": survey(STACK)}, {"web1": variables})
    message = str(failure.value)
    assert message.startswith("web1: ")
    assert says in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("data", [[], "loki", 7, None])
def test_a_wish_that_is_no_dictionary_is_told(data: t.Any) -> None:
    with pytest.raises(InputError, match=r"^web1: what is wished is "):
        _wish.Wishes().read("web1", data)


def test_what_json_has_no_form_for_is_told() -> None:
    with pytest.raises(InputError, match=r"^web1: what is wished isn't data that JSON knows"):
        _wish.Wishes().read("web1", {"versions": {("a", "b"): "1.0.0"}})
    deep: t.Any = []
    for _level in range(5000):
        deep = [deep]
    # How deep is too deep for JSON, differs between Pythons.
    with pytest.raises(InputError, match=r"^web1: (what is wished isn't data that JSON knows|upgrade_only\[0\] is \[)"):
        _wish.Wishes().read("web1", {"only": deep})


def test_what_is_not_set_is_as_it_usually_is() -> None:
    nothing, none = wished(), wished(**dict.fromkeys(_wish.FIELDS))
    assert nothing == none
    assert nothing.phases == list(_wish.PHASES)
    assert nothing.catalog == _catalog.load()
    assert (nothing.versions, nothing.only, nothing.windows, nothing.stack) == ({}, [], [], "")
    assert {rule.source for rule in nothing.needs} == {"catalog/prometheus.yml"}


def test_equal_wishes_are_read_once() -> None:
    reader, wish = _wish.Wishes(), {"versions": {"loki": "3.0.0"}}
    assert reader.read("h1", wish) is reader.read("h2", {**wish})
    assert reader.read("h1", {}) is not reader.read("h1", wish)


def test_the_rules_of_the_operator_come_to_those_of_the_catalog() -> None:
    rules = {"loki": [{"when": ">=3", "component": "promtail", "versions": ">=2.9", "hold": "at_end"}]}
    (rule,) = [rule for rule in wished(rules=rules).needs if rule.component == "loki"]
    assert (rule.when, rule.needs, rule.versions, rule.throughout) == (">=3", "promtail", ">=2.9", False)
    assert rule.source == "upgrade_rules.loki"


# -- whatever they are given --------------------------------------------------------------------------------------

SURVEYS = {
    "h1": survey({**STACK, "loki": facts("loki", None)}),
    "h2": survey({"promtail": facts("promtail", "2.9.1"), "loki": facts("loki", "2.9.1")}),
}
POINT = {"id": "u1.loki", "version": "2.9.0", "created_at": "2026-11-21T03:00:00Z"}
BACK = {
    host: {**found, "state": {"components": {"loki": {"inventory": {"restore_points": [POINT]}}}}}
    for host, found in SURVEYS.items()
}
SOURCES = ["github:prometheus/node_exporter", "github:prometheus/prometheus", "github:grafana/loki", ""]
WORDS = st.sampled_from(
    [
        *("node_exporter", "prometheus", "alertmanager", "loki", "promtail", "default", "latest", "", "\n"),
        *("1.9.1", "1.9", "v3.5.3", ">=2,<3", "2.x", "*", "3.0.0-rc.1", "22:00", "2026-11-21", "metrics", "mon", "any"),
        *("component", "versions", "when", "reason", "step", "min_age", "start", "end", "known_releases", "stages"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.integers(0, 3), inner, max_size=4),
    max_leaves=12,
)
VERSIONS = st.dictionaries(st.sampled_from(sorted({*STACK, "loki", "promtail"})), WORDS, max_size=3)
RELEASE = st.fixed_dictionaries({"version": WORDS | JSON}, optional={"date": WORDS | JSON, "prerelease": JSON})
ANSWER = st.fixed_dictionaries({"releases": st.lists(RELEASE, max_size=3)}, optional={"note": JSON, "error": JSON})
ANSWERS = st.none() | JSON | st.dictionaries(st.sampled_from(SOURCES), ANSWER | JSON, max_size=3)
WISH = JSON | st.fixed_dictionaries({}, optional={**dict.fromkeys(_wish.FIELDS, JSON), "versions": VERSIONS | JSON})
LATEST = st.just(
    {"versions": dict.fromkeys([*STACK, "loki", "promtail"], "latest"), "policy": {"default": {"min_age": 3}}}
)


def told_in_a_line(call: t.Callable[[], t.Any]) -> None:
    """What a call raises, if it does, is for the operator."""
    lines = 1
    try:
        call()
    except UpgradeError as exc:
        lines = len(str(exc).splitlines())
    assert lines == 1


@given(WISH, WISH)
@settings(max_examples=200, deadline=None)
def test_whatever_is_wished_is_planned_or_refused_in_a_line(one: t.Any, two: t.Any) -> None:
    wishes = {"h1": one, "h2": two}
    told_in_a_line(lambda: _planner.plan_upgrade(SURVEYS, wishes, now=NOW))
    told_in_a_line(lambda: _rollback.plan_rollback(BACK, wishes, to="previous", kinds=["binary"]))
    told_in_a_line(lambda: _check.check(SURVEYS, wishes, answers={}, now=NOW))
    told_in_a_line(lambda: _market.sources(SURVEYS, wishes, mirror=None, every=False))


@given(ANSWERS, LATEST | st.fixed_dictionaries({"versions": VERSIONS}))
@settings(max_examples=200, deadline=None)
def test_whatever_is_listed_is_planned_by_or_refused_in_a_line(answers: t.Any, wish: Data) -> None:
    wishes = dict.fromkeys(SURVEYS, wish)
    told_in_a_line(lambda: _planner.plan_upgrade(SURVEYS, wishes, answers=answers, now=NOW))
    told_in_a_line(lambda: _check.check(SURVEYS, wishes, answers={} if answers is None else answers, now=NOW))


WANTED = {"versions": {"loki": "3.0.0", "node_exporter": "1.9.0"}}
PLAN = _planner.plan_upgrade(SURVEYS, dict.fromkeys(SURVEYS, WANTED))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A saved plan with something else at one place of it, whose digest holds all the same."""
    plan = json.loads(json.dumps(PLAN))
    place: t.Any = plan
    for _level in range(draw(st.integers(0, 5))):
        keys = [key for key, value in place.items() if isinstance(value, dict) and value]
        if not keys:
            break
        place = place[draw(st.sampled_from(keys))]
    place[draw(st.sampled_from(sorted(place)))] = draw(JSON)
    plan = json.loads(json.dumps(plan))  # whose keys are texts
    plan["digest"] = _planner.digest(plan)
    return json.dumps(plan)


@given(st.text() | JSON.map(json.dumps) | damaged())
@settings(max_examples=300, deadline=None)
def test_whatever_a_saved_plan_holds_it_is_taken_up_or_refused_in_a_line(text: str) -> None:
    found = {host: {**each, "state": {"upgrade": {}, "components": {}}} for host, each in SURVEYS.items()}
    told_in_a_line(lambda: _planner.reopen(text, found, {}, name="plan.json"))
