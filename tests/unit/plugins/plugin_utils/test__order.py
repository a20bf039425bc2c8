# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

from ansible_collections.observability.stack.plugins.plugin_utils import _planner, _versions
from ansible_collections.observability.stack.tests.unit.surveys import (
    NOW,
    Data,
    facts,
    finding_keys,
    listed,
    planned,
    survey,
)
from hypothesis import given, settings
from hypothesis import strategies as st

NEEDS = {"prometheus": [{"when": ">=2.49", "component": "alertmanager", "versions": ">=0.26", "reason": "our alerts"}]}
VERSIONS = {"prometheus": "3.5.3", "alertmanager": "0.28.1"}
AFTER = "after alertmanager 0.28.1: prometheus >=2.49 needs alertmanager >=0.26"


def stack(**versions: str) -> Data:
    return survey({name: facts(name, version) for name, version in versions.items()})


def sequences(plan: Data) -> list[tuple[str, list[str]]]:
    return [(phase["name"], phase["sequence"]) for phase in plan["phases"]]


METRICS = stack(prometheus="2.42.0", alertmanager="0.25.0")


def test_what_must_be_there_first_goes_first_although_the_phases_say_otherwise() -> None:
    phases = ["metrics", "alerting"]
    usual = planned({"h": METRICS}, VERSIONS, phases=phases)
    assert sequences(usual) == [
        ("metrics", ["prometheus@2.55.1", "prometheus@3.5.3"]),
        ("alerting", ["alertmanager@0.28.1"]),
    ]
    plan = planned({"h": METRICS}, VERSIONS, phases=phases, rules=NEEDS)
    assert sequences(plan) == [
        ("alerting", ["alertmanager@0.28.1"]),
        ("metrics", ["prometheus@2.55.1", "prometheus@3.5.3"]),
    ]
    assert plan["phases"][1]["because"] == {"prometheus@2.55.1": [AFTER]}
    assert plan["phases"][1]["after"] == {
        "prometheus@2.55.1": ["alertmanager@0.28.1"],
        "prometheus@3.5.3": ["alertmanager@0.28.1"],
    }


def test_a_rule_that_holds_at_the_end_only_moves_nothing() -> None:
    rules = {"prometheus": [{**NEEDS["prometheus"][0], "hold": "at_end"}]}
    plan = planned({"h": METRICS}, VERSIONS, phases=["metrics", "alerting"], rules=rules)
    assert [name for name, _sequence in sequences(plan)] == ["metrics", "alerting"]
    assert [phase["after"] for phase in plan["phases"]] == [{}, {}]


def test_rules_hold_within_a_stack_and_not_between_stacks() -> None:
    """Of one stack Prometheus alone is meant, of the other Alertmanager: together they would be a conflict."""
    found = {"p": stack(prometheus="2.42.0"), "a": stack(alertmanager="0.25.0")}
    versions = {"prometheus": "2.53.3"}
    apart = {host: {"versions": versions, "rules": NEEDS, "stack": host} for host in found}
    assert sequences(_planner.plan_upgrade(found, apart, now=NOW)) == [("metrics", ["prometheus@2.53.3"])]
    together = planned(found, versions, rules=NEEDS)
    assert (sequences(together), finding_keys(together)) == ([], ["prometheus.needs_alertmanager"])


def test_a_conflict_is_a_blocker_that_says_what_to_change() -> None:
    plan = planned({"h": METRICS, "i": METRICS}, {"prometheus": "3.5.3"}, rules=NEEDS)
    assert [(each["host"], each["severity"], each["key"]) for each in plan["findings"]] == [
        ("h", "blocker", "prometheus.needs_alertmanager"),
        ("i", "blocker", "prometheus.needs_alertmanager"),
    ]
    finding = plan["findings"][0]
    assert finding["message"].startswith("prometheus 3.5.3 needs alertmanager >=0.26 (upgrade_rules.prometheus)")
    assert finding["fix"] == "wish for alertmanager too: upgrade_versions: {alertmanager: '0.33.1'}"
    assert [row["note"] for row in plan["rows"]] == ["no_order", "no_order"]


def test_what_has_no_order_is_left_out_and_the_rest_is_planned() -> None:
    found = stack(prometheus="2.42.0", alertmanager="0.25.0", node_exporter="1.5.0")
    plan = planned({"h": found}, {"prometheus": "3.5.3", "node_exporter": "1.9.0"}, rules=NEEDS)
    assert sequences(plan) == [("exporters", ["node_exporter@1.9.0"])]
    assert list(plan["hosts"]["h"]) == ["node_exporter@1.9.0"]
    assert list(plan["expects"]["h"]) == ["node_exporter"]
    assert len(_planner.problems(plan)) == 1


def test_a_rule_can_be_accepted_to_be_broken() -> None:
    accepted = ["prometheus.needs_alertmanager"]
    plan = planned({"h": METRICS}, {"prometheus": "3.5.3"}, rules=NEEDS, accept=accepted)
    assert sequences(plan) == [("metrics", ["prometheus@2.55.1", "prometheus@3.5.3"])]
    assert finding_keys(plan, "blocker") == []


def test_a_rule_that_is_broken_before_anything_is_done_is_told() -> None:
    old = stack(prometheus="3.1.0", alertmanager="0.15.0")
    plan = planned({"h": old}, {})
    assert [(each["key"], each["severity"]) for each in plan["findings"]] == [
        ("prometheus.needs_alertmanager", "warning")
    ]
    assert plan["findings"][0]["fix"]


def test_a_version_to_stop_at_is_found_in_what_is_listed() -> None:
    rules = {
        "loki": [{"when": ">=3", "component": "promtail", "versions": ">=2.8"}],
        "promtail": [{"when": ">=3", "component": "loki", "versions": ">=3"}],
    }
    answers = {"github:grafana/loki": listed("2.7.0", "2.9.9", "3.0.0", "3.6.11")}
    found = {"h": stack(loki="2.7.0", promtail="2.7.0")}
    overrides = {"loki": {"stages": []}, "promtail": {"depends_on": []}}
    plan = planned(found, {"loki": "3.0.0", "promtail": "3.0.0"}, rules=rules, overrides=overrides, answers=answers)
    assert sequences(plan) == [("logging", ["promtail@2.9.9", "loki@3.0.0", "promtail@3.0.0"])]
    assert plan["hosts"]["h"]["promtail@3.0.0"]["from"] == "2.9.9"


LOGGING = stack(loki="2.9.1", promtail="2.9.1")
LOGGING_VERSIONS = {"loki": "2.9.17", "promtail": "2.9.17"}


def test_a_phase_is_cut_where_waves_would_break_a_rule() -> None:
    """In a wave, some hosts would have both, while others don't have the first."""
    plan = planned({"h": LOGGING, "i": LOGGING}, LOGGING_VERSIONS)
    assert sequences(plan) == [("logging", ["loki@2.9.17"]), ("logging-2", ["promtail@2.9.17"])]
    assert plan["phases"][1]["after"] == {"promtail@2.9.17": ["loki@2.9.17"]}
    failed = [{"component": "loki", "to": "2.9.17"}]
    assert _planner.missing_steps(plan, "promtail@2.9.17", [[], failed]) == ["loki@2.9.17"]
    assert _planner.missing_steps(plan, "promtail@2.9.17", [[{"component": None, "to": None}]]) == []
    assert _planner.missing_steps(plan, "loki@2.9.17", [failed]) == []


def test_a_phase_of_one_host_is_not_cut() -> None:
    plan = planned({"h": LOGGING}, LOGGING_VERSIONS)
    assert sequences(plan) == [("logging", ["loki@2.9.17", "promtail@2.9.17"])]
    assert plan["phases"][0]["after"] == {"promtail@2.9.17": ["loki@2.9.17"]}


def test_hosts_of_several_stacks_need_no_cut() -> None:
    wishes = {host: {"versions": LOGGING_VERSIONS, "stack": host} for host in ("h", "i")}
    plan = _planner.plan_upgrade({"h": LOGGING, "i": LOGGING}, wishes, now=NOW)
    assert sequences(plan) == [("logging", ["loki@2.9.17", "promtail@2.9.17"])]


def test_a_version_that_hosts_write_in_two_ways_is_planned_on_all_of_them() -> None:
    """1.9 and 1.9.0 are one version, but two archives."""
    node = stack(node_exporter="1.5.0")
    wishes = {host: {"versions": {"node_exporter": version}} for host, version in (("h", "1.9"), ("i", "1.9.0"))}
    plan = _planner.plan_upgrade({"h": node, "i": node}, wishes, now=NOW)
    assert sequences(plan) == [("exporters", ["node_exporter@1.9", "node_exporter@1.9.0"])]
    assert plan["phases"][0]["hosts"] == {"h": ["node_exporter@1.9"], "i": ["node_exporter@1.9.0"]}


def test_a_component_that_one_host_alone_knows_is_planned() -> None:
    own = {
        "phase": "exporters",
        "units": ["mine"],
        "files": [{"name": "mine"}],
        "port": 1,
        "releases": [
            {
                "url": "https://x.example/get?version={version}",
                "checksums": "https://x.example/sums?version={version}",
                "members": {"mine": "mine"},
            }
        ],
    }
    mine = {**facts("node_exporter", "1.0.0"), "unit": "mine.service", "files": [{"name": "mine", "path": "/m"}]}
    found = {
        "h": stack(node_exporter="1.5.0"),
        "i": survey({"node_exporter": facts("node_exporter", "1.5.0"), "mine": mine}),
    }
    versions = {"node_exporter": "1.9.0"}
    wishes = {
        "h": {"versions": versions},
        "i": {"versions": {**versions, "mine": "1.1.0"}, "components": {"mine": own}},
    }
    plan = _planner.plan_upgrade(found, wishes, now=NOW)
    assert sequences(plan) == [("exporters", ["mine@1.1.0", "node_exporter@1.9.0"])]


def test_what_was_cut_off_is_finished_although_a_rule_has_no_place_for_it() -> None:
    record = {"state": "activated", "from_version": "2.42.0", "to_version": "2.53.3", "attempts": 1}
    found = survey(
        {"prometheus": facts("prometheus", "2.53.3"), "alertmanager": facts("alertmanager", "0.25.0")},
        records={"prometheus": record},
        unfinished={"prometheus": "mixed"},
    )
    plan = planned({"h": found}, {}, rules=NEEDS)
    assert sequences(plan) == [("metrics", ["prometheus@2.53.3"])]
    assert list(plan["hosts"]["h"]) == ["prometheus@2.53.3"]


# -- of any fleet -------------------------------------------------------------------------------------------------

SOME = {
    "prometheus": ["2.42.0", "2.53.5", "2.55.1", "3.5.3", "3.13.2"],
    "alertmanager": ["0.15.0", "0.25.0", "0.28.1", "0.33.1"],
    "loki": ["2.9.1", "2.9.17", "3.0.0"],
    "promtail": ["2.9.1", "2.9.17", "3.0.0"],
    "node_exporter": ["1.5.0", "1.9", "1.9.0", "1.11.1"],
}
COMPONENTS = st.fixed_dictionaries({}, optional={name: st.sampled_from(each) for name, each in SOME.items()})
WISHES = st.fixed_dictionaries(
    {"versions": COMPONENTS, "stack": st.sampled_from(["", "b"]), "allow_downgrade": st.booleans()},
    optional={"rules": st.just(NEEDS), "phases": st.permutations(["metrics", "alerting", "logging", "exporters"])},
)
CUT_OFF = st.sampled_from([*SOME, None])
HOSTS = st.dictionaries(st.sampled_from(["h1", "h2", "h3"]), st.tuples(COMPONENTS, WISHES, CUT_OFF), min_size=1)


@given(HOSTS)
@settings(max_examples=150, deadline=None)
def test_each_step_of_each_host_is_in_one_phase_and_versions_ascend(
    hosts: dict[str, tuple[Data, Data, str | None]],
) -> None:
    found = {host: fleet_host(versions, name) for host, (versions, _wish, name) in hosts.items()}
    plan = _planner.plan_upgrade(found, {host: each[1] for host, each in hosts.items()}, now=NOW)
    for host, steps in plan["hosts"].items():
        order = [key for phase in plan["phases"] for key in phase["hosts"].get(host, [])]
        assert sorted(order) == sorted(steps)
        for name, group in itertools.groupby(sorted(order, key=component), key=component):
            versions = [steps[key]["to"] for key in group]
            assert len(versions) == 1 or versions == sorted(versions, key=_versions.parse), name
    for phase in plan["phases"]:
        assert sorted(phase["sequence"]) == sorted({key for keys in phase["hosts"].values() for key in keys})
        for keys in phase["hosts"].values():
            assert keys == [key for key in phase["sequence"] if key in keys]
    assert {host for phase in plan["phases"] for host in phase["hosts"]} == set(plan["hosts"]) == set(plan["expects"])


def fleet_host(versions: Data, name: str | None) -> Data:
    """A host, on which an upgrade of one component may have been cut off."""
    if name not in versions:
        return stack(**versions)
    record = {"state": "activated", "from_version": versions[name], "to_version": SOME[name][-1], "attempts": 1}
    components = {each: facts(each, version) for each, version in versions.items()}
    return survey(components, records={name: record}, unfinished={name: "mixed"})


def component(key: str) -> str:
    return key.partition("@")[0]
