# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils import _planner, _steps
from ansible_collections.observability.stack.tests.unit.surveys import (
    NOW,
    STACK,
    Data,
    drafted,
    facts,
    finding_keys,
    keys,
    planned,
    survey,
)

STAGE = {"prometheus": {"stages": ["2.53.3"]}}


def test_steps_come_in_the_order_of_phases_and_through_the_stage() -> None:
    planned = drafted(
        survey(STACK),
        {"prometheus": "3.5.3", "node_exporter": "1.9.0", "alertmanager": "0.28.1"},
        overrides=STAGE,
    )
    assert keys(planned) == ["node_exporter@1.9.0", "alertmanager@0.28.1", "prometheus@2.53.3", "prometheus@3.5.3"]
    first, second = planned["steps"]["prometheus@2.53.3"], planned["steps"]["prometheus@3.5.3"]
    assert (first["from"], first["to"], second["from"], second["to"]) == ("2.42.0", "2.53.3", "2.53.3", "3.5.3")
    assert first["reason"] == "a stage on the way to 3.5.3"
    assert second["reason"] == "wanted"


@pytest.mark.parametrize("wanted", ["1.5.0", "v1.5.0", "1.5.0+ds", ">=1,<2", "1.5.x"])
def test_what_is_there_already_needs_no_step(wanted: str) -> None:
    planned = drafted(survey(STACK), {"node_exporter": wanted})
    assert keys(planned) == []
    assert planned["findings"] == []


def test_what_is_not_named_is_not_touched() -> None:
    assert keys(drafted(survey(STACK), {})) == []
    assert keys(drafted(survey(STACK), {"node_exporter": "1.9.0"})) == ["node_exporter@1.9.0"]


def test_a_run_can_be_narrowed_and_reordered() -> None:
    versions = {"prometheus": "2.53.3", "node_exporter": "1.9.0"}
    assert keys(drafted(survey(STACK), versions, only=["prometheus"])) == ["prometheus@2.53.3"]
    assert keys(drafted(survey(STACK), versions, phases=["exporters"])) == ["node_exporter@1.9.0"]
    assert keys(drafted(survey(STACK), versions, phases=["metrics", "exporters"]))[0] == "prometheus@2.53.3"


def test_a_component_that_is_not_there_is_no_obstacle_for_the_others() -> None:
    found = survey({**STACK, "loki": facts("loki", None)})
    planned = drafted(found, {"loki": "2.9.17", "node_exporter": "1.9.0"})
    assert keys(planned) == ["node_exporter@1.9.0"]
    assert finding_keys(planned) == ["loki.not_installed"]


def test_a_blocked_component_does_not_take_the_steps_of_others() -> None:
    alone = facts("alertmanager", "0.25.0", unit=None)
    planned = drafted(survey({**STACK, "alertmanager": alone}), {"alertmanager": "0.28.1", "node_exporter": "1.9.0"})
    assert keys(planned) == ["node_exporter@1.9.0"]
    assert finding_keys(planned, "blocker") == ["alertmanager.no_unit"]


def test_a_downgrade_is_refused_with_the_way_back() -> None:
    planned = drafted(survey(STACK), {"node_exporter": "1.4.0"})
    assert finding_keys(planned, "blocker") == ["node_exporter.downgrade"]
    assert "rollback" in planned["findings"][0]["fix"]


def test_a_program_that_was_never_released_is_refused() -> None:
    planned = drafted(survey({"promtail": facts("promtail", "3.6.3")}), {"promtail": "3.7.1"})
    assert finding_keys(planned, "blocker") == ["promtail.end_of_life"]
    assert "3.6.11 is the last" in planned["findings"][0]["message"]


RECORD = {"state": "activated", "from_version": "1.5.0", "to_version": "1.9.0", "attempts": 1}


@pytest.mark.parametrize(
    ("evidence", "disk", "stages"),
    [("new", "1.9.0", False), ("mixed", "1.9.0", True), ("old", "1.5.0", True)],
)
def test_an_attempt_that_was_cut_off_goes_on_from_where_it_began(evidence: str, disk: str, stages: bool) -> None:
    found = survey(
        {"node_exporter": facts("node_exporter", disk)},
        records={"node_exporter": RECORD},
        unfinished={"node_exporter": evidence},
    )
    for versions in ({"node_exporter": "1.9.0"}, {}):
        step = drafted(found, versions)["steps"]["node_exporter@1.9.0"]
        assert (step["from"], step["to"], step["stage"] is not None) == ("1.5.0", "1.9.0", stages)
        assert step["reason"] == "an earlier run was cut off here"


@pytest.mark.parametrize(
    ("state", "outcome", "steps"),
    [
        ("VALIDATING", "succeeded", ["node_exporter@1.9.0"]),
        ("COMPLETED", "succeeded", []),
        ("VALIDATING", "pending", []),
    ],
)
def test_a_run_that_was_cut_off_after_its_last_step_is_closed_by_the_next(
    state: str, outcome: str, steps: list[str]
) -> None:
    record = {**RECORD, "state": "success"}
    found = survey({"node_exporter": facts("node_exporter", "1.9.0")}, records={"node_exporter": record})
    found["state"]["upgrade"] = {"state": state, "steps": {"node_exporter@1.9.0": outcome}}
    planned = drafted(found, {"node_exporter": "1.9.0"})
    assert keys(planned) == steps
    reasons = [(step["stage"], step["reason"]) for step in planned["steps"].values()]
    assert reasons == [(None, "an earlier run was cut off after it")] * len(steps)


def test_a_service_that_our_own_cut_off_attempt_broke_is_no_obstacle() -> None:
    down = {"active": "failed", "sub": "failed", "n_restarts": 5}
    found = survey(
        {"node_exporter": facts("node_exporter", "1.9.0", state=down, running=None)},
        records={"node_exporter": RECORD},
        unfinished={"node_exporter": "new"},
    )
    assert keys(drafted(found, {"node_exporter": "1.9.0"})) == ["node_exporter@1.9.0"]


# -- the fleet ----------------------------------------------------------------------------------------------------


def test_hosts_go_through_one_sequence_each_doing_its_own_steps() -> None:
    found = {
        "one": survey(STACK),
        "two": survey({"prometheus": facts("prometheus", "2.53.3")}),
        "three": survey({"node_exporter": facts("node_exporter", "1.9.0")}),
    }
    plan = planned(found, {"prometheus": "3.5.3", "node_exporter": "1.9.0"}, overrides=STAGE)
    assert [(phase["name"], phase["sequence"], phase["hosts"]) for phase in plan["phases"]] == [
        ("exporters", ["node_exporter@1.9.0"], {"one": ["node_exporter@1.9.0"]}),
        (
            "metrics",
            ["prometheus@2.53.3", "prometheus@3.5.3"],
            {"one": ["prometheus@2.53.3", "prometheus@3.5.3"], "two": ["prometheus@3.5.3"]},
        ),
    ]
    assert set(plan["hosts"]) == {"one", "two"}
    assert _planner.host_phases(plan, "two") == {"metrics": ["prometheus@3.5.3"]}
    assert list(_planner.host_phases(plan, "one")) == ["exporters", "metrics"]
    assert _planner.host_phases(plan, "three") == {}


def test_waves_go_in_the_order_of_the_inventory_whatever_hosts_go_to() -> None:
    """The first wave is the canary: a host isn't in it because its step comes first."""
    surveys = {name: survey({"node_exporter": facts("node_exporter", "1.5.0")}) for name in ("zeta", "alpha", "mid")}
    wishes = {"zeta": {"versions": {"node_exporter": "1.11.1"}}, "alpha": {"versions": {"node_exporter": "1.9.0"}}}
    plan = _planner.plan_upgrade(surveys, {**wishes, "mid": wishes["alpha"]}, now=NOW)
    (phase,) = plan["phases"]
    assert (phase["sequence"][0], list(phase["hosts"])) == ("node_exporter@1.9.0", ["zeta", "alpha", "mid"])
    saved = json.dumps(plan, sort_keys=True)
    again = _planner.reopen(saved, surveys, {name: {} for name in surveys}, name="plan.json")
    assert list(again["phases"][0]["hosts"]) == ["zeta", "alpha", "mid"]


def test_versions_of_a_sequence_are_ordered_as_versions() -> None:
    node = survey({"node_exporter": facts("node_exporter", "1.5.0")})
    wishes = {version: {"versions": {"node_exporter": version}} for version in ("1.11.1", "1.9.0", "1.10.2")}
    plan = _planner.plan_upgrade(dict.fromkeys(wishes, node), wishes, now=NOW)
    (phase,) = plan["phases"]
    assert phase["sequence"] == ["node_exporter@1.9.0", "node_exporter@1.10.2", "node_exporter@1.11.1"]


def test_the_digest_is_that_of_the_steps() -> None:
    found = {"host1": survey(STACK)}
    one, same = planned(found, {"node_exporter": "1.9.0"}), planned(found, {"node_exporter": "1.9.0"})
    other = planned(found, {"node_exporter": "1.9.1"})
    assert one["digest"] == same["digest"] != other["digest"]


def test_a_plan_is_one_list_of_waves_and_integration_checks() -> None:
    found = {f"host{number}": survey(STACK) for number in range(1, 6)}
    plan = planned(found, {"node_exporter": "1.9.0", "prometheus": "3.5.3"})
    parts = _planner.parts(plan, [1, "50%"])
    assert [(part["tasks"], part["phase"], len(part["hosts"])) for part in parts["parts"] if part["phase"] == 0] == [
        *(("phase", 0, 1), ("phase", 0, 2), ("phase", 0, 2)),
        *([("links", 0, 5)] if plan["phases"][0]["links"] else []),
    ]
    for place, phase in enumerate(plan["phases"]):
        waves = [part["hosts"] for part in parts["parts"] if (part["tasks"], part["phase"]) == ("phase", place)]
        assert [host for wave in waves for host in wave] == list(phase["hosts"])
    assert parts["hosts"] == list(found)
    assert [len(part["hosts"]) for part in _planner.parts(plan)["parts"][:3]] == [1, 1, 3]
    assert len(_planner.parts(plan, fast=True)["parts"][0]["hosts"]) == 5
    assert len(_planner.parts(plan, [2], fast=True)["parts"][0]["hosts"]) == 2


def test_problems_name_host_reason_and_way_out() -> None:
    plan = planned({"host1": survey(STACK)}, {"node_exporter": "1.4.0"})
    (line,) = _planner.problems(plan)
    assert line.startswith("host1: 1.4.0 is older than 1.5.0, which is in use. ")
    assert _planner.problems(plan, "continue") == []


def test_nothing_but_the_whole_digest_approves_a_plan() -> None:
    plan = planned({"host1": survey(STACK)}, {"node_exporter": "1.9.0"})
    digest = plan["digest"]
    for whole in (digest, digest.upper(), f" {digest}\n"):
        assert _planner.is_approved(plan, whole)
        assert _planner.problems(plan, approved=whole) == []
    for text in (
        "",
        digest[:12],
        digest[:63],
        f"{digest}0",
        f"{digest[:-1]}{'1' if digest[-1] == '0' else '0'}",
        "yes",
    ):
        assert not _planner.is_approved(plan, text)
    for text in (digest[:12], "0" * 64):
        (line,) = _planner.problems(plan, "continue", text)
        assert line.startswith(f"upgrade_approved is {text}, but the plan is {digest[:12]} now: see it with the ")
        assert line.endswith(f"upgrade_approved={digest}")
    nothing = planned({"host1": survey(STACK)}, {})
    assert _planner.problems(nothing, approved=digest) == []


# -- maintenance windows ------------------------------------------------------------------------------------------

SUNDAY = [{"days": "sun", "start": "02:00", "end": "04:00"}]
SATURDAY = [{"days": "sat", "start": "10:00", "end": "14:00"}]
CUT_OFF = survey(
    {"node_exporter": facts("node_exporter", "1.9.0")},
    records={"node_exporter": RECORD},
    unfinished={"node_exporter": "mixed"},
)


@pytest.mark.parametrize(
    ("windows", "more", "severity", "steps"),
    [
        ([], {"hold": True}, [], True),
        (SATURDAY, {"hold": True}, [], True),
        (SUNDAY, {"hold": True}, ["skipped"], False),
        (SUNDAY, {"hold": False}, ["info"], True),
        (SUNDAY, {"hold": True, "accept": ["host.outside_window"]}, [], True),
    ],
    ids=["none", "open", "closed", "closed, but only planned", "closed, and accepted"],
)
def test_a_host_outside_of_its_windows_keeps_what_it_has(
    windows: list[Data], more: Data, severity: list[str], steps: bool
) -> None:
    plan = planned({"host1": survey(STACK)}, {"node_exporter": "1.9.0"}, windows=windows, **more)
    assert [each["severity"] for each in plan["findings"] if each["key"] == "host.outside_window"] == severity
    assert bool(plan["hosts"]) is steps
    assert _planner.problems(plan) == []
    if severity:
        assert "opens Sun 2026-11-22 02:00 UTC" in plan["findings"][0]["message"]


def test_what_was_cut_off_is_finished_outside_of_windows_too() -> None:
    found = {"host1": CUT_OFF, "host2": survey(STACK)}
    plan = planned(found, {"node_exporter": "1.9.0", "prometheus": "2.53.5"}, windows=SUNDAY, hold=True)
    assert {host: list(steps) for host, steps in plan["hosts"].items()} == {"host1": ["node_exporter@1.9.0"]}
    assert [each["host"] for each in plan["findings"]] == ["host1", "host2"]


# -- what is between components -----------------------------------------------------------------------------------

ALERTING = {"alertmanager": facts("alertmanager", "0.25.0")}
METRICS = {"prometheus": facts("prometheus", "2.42.0"), "node_exporter": facts("node_exporter", "1.5.0")}


def test_a_link_is_proven_where_one_of_its_ends_is_touched_also_on_a_host_without_steps() -> None:
    surveys = {"alerts": survey(ALERTING), "metrics": survey(METRICS)}
    plan = planned(surveys, {"alertmanager": "0.27.0"})
    assert list(plan["hosts"]) == ["alerts"]
    (link,) = _planner.host_links(plan, "metrics")
    assert (link["component"], link["unit"]) == ("prometheus -> alertmanager", "prometheus.service")
    assert [probe["kind"] for probe in (*link["probes"], *link["proofs"])] == ["systemd", "metric"]
    assert _planner.host_links(plan, "metrics", "exporters") == _planner.host_links(plan, "alerts") == []
    assert _planner.host_links(planned(surveys, {"node_exporter": "1.9.0"}), "metrics") == []


def test_a_link_without_its_other_end_or_into_another_stack_is_left_out() -> None:
    assert _planner.host_links(planned({"metrics": survey(METRICS)}, {"prometheus": "2.53.3"}), "metrics") == []
    wishes = {"alerts": {"versions": {"alertmanager": "0.27.0"}, "stack": "a"}, "metrics": {"stack": "b"}}
    plan = _planner.plan_upgrade({"alerts": survey(ALERTING), "metrics": survey(METRICS)}, wishes, now=NOW)
    assert _planner.host_links(plan, "metrics") == []


def test_only_links_that_held_before_must_hold_after() -> None:
    links: list[Data] = [{"component": name} for name in ("a", "b", "c")]
    services = [{"component": name, "healthy": name != "b"} for name in ("a", "b", "c")]
    assert _steps.held(links[1:], links, services) == [links[2]]


def test_what_was_found_on_hosts_stands_beside_the_plan_and_in_its_way() -> None:
    plan = planned({"one": survey(STACK)}, {"node_exporter": "1.9.0"})
    space = {"key": "host.space", "severity": "blocker", "message": "/var has 1 MB", "fix": "make room"}
    full = _planner.with_findings(plan, {"one": [space]})
    assert full["digest"] == plan["digest"] == _planner.digest(full)
    assert full["findings"][-1] == {**space, "component": None, "host": "one"}
    assert _planner.problems(full) == ["one: /var has 1 MB. make room"]


def test_a_host_that_failed_meanwhile_is_left_out_and_the_plan_keeps_its_digest() -> None:
    stack = survey(STACK)
    plan = planned({"one": stack, "two": stack}, {"node_exporter": "1.9.0", "alertmanager": "0.28.1"})
    left = _planner.with_findings(plan, {}, ["one"])
    alone = planned({"two": stack}, {"node_exporter": "1.9.0", "alertmanager": "0.28.1"})
    assert left["digest"] == plan["digest"]
    assert {key: left[key] for key in ("hosts", "phases", "rows")} == {
        key: alone[key] for key in ("hosts", "phases", "rows")
    }
    assert _planner.with_findings(plan, {}, ["one", "two"])["phases"] == []
    assert _planner.with_findings(plan, {}) == plan
