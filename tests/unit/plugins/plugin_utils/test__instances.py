# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances of a component on one host: with files of their own, and with one file for several units."""

from __future__ import annotations

import json

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import (
    _check,
    _instances,
    _planner,
    _report,
    _report_plan,
    _rollback,
    _steps,
)
from ansible_collections.observability.stack.tests.unit.surveys import (
    Data,
    drafted,
    facts,
    finding_keys,
    keys,
    planned,
    shown,
    survey,
    wished,
)

OWN, OTHER = "node_exporter", "node_exporter@9101"
STRANGER = {"unit": None, "pid": 4711, "program": "/usr/local/bin/node_exporter", "container": False}


def second(version: str = "1.5.0", *, path: str = "/usr/local/bin/node_exporter", **changes: object) -> Data:
    """A further instance, by default of the same file."""
    return facts(
        OWN,
        version,
        instance_of=OWN,
        unit="node_exporter_ops.service",
        unit_files=["/etc/systemd/system/node_exporter_ops.service"],
        url="http://127.0.0.1:9101",
        binary=path,
        files=[{"name": OWN, "path": path, "size": 1}],
        **changes,
    )


def host(*, apart: bool = False, version: str = "1.5.0", records: Data | None = None, **changes: object) -> Data:
    """A host with two instances.

    :param apart: each has a file of its own.
    :param version: of the second one.
    """
    path = "/opt/ops/node_exporter" if apart else "/usr/local/bin/node_exporter"
    first = facts(OWN, "1.5.0", **({"shared_by": changes.pop("strangers")} if "strangers" in changes else {}))
    return survey({OWN: first, OTHER: second(version, path=path, **changes)}, records=records)


# -- which keys there are, and who leads ----------------------------------------------------------------------------


def test_the_component_comes_first_and_also_what_was_interrupted_has_a_key() -> None:
    found = survey({OTHER: second(), "prometheus": facts("prometheus", "2.42.0")}, unfinished={f"{OWN}@gone": "mixed"})
    assert _instances.keys(found, OWN) == [OWN, OTHER, f"{OWN}@gone"]
    assert _instances.keys(found, "prometheus") == ["prometheus"]


LINK = {"path": "/opt/current", "target": "node_exporter-1.5.0", "kind": "directory"}


@pytest.mark.parametrize(
    ("changes", "group"),
    [
        ({}, [OWN, OTHER]),
        ({"unit": None}, [OWN]),
        ({"not_upgradable": {"key": "container", "reason": "r", "fix": "f"}}, [OWN]),
        ({"path": "/opt/node_exporter"}, [OWN]),
    ],
)
def test_instances_of_the_same_path_form_a_group(changes: Data, group: list[str]) -> None:
    other = {**second(path=changes.pop("path", "/usr/local/bin/node_exporter")), **changes}
    assert _instances.members(survey({OWN: facts(OWN, "1.5.0"), OTHER: other}), OWN) == group


def test_a_link_to_a_directory_leads_to_the_same_file_and_a_link_to_a_file_does_not() -> None:
    first = second(path="/opt/current/node_exporter", links=[LINK])
    there = second(path="/opt/node_exporter-1.5.0/node_exporter")
    assert _instances.members(survey({OWN: first, OTHER: there}), OTHER) == [OWN, OTHER]
    link = {"path": "/usr/bin/node_exporter", "target": "/opt/node_exporter-1.5.0/node_exporter", "kind": "file"}
    first = second(path="/usr/bin/node_exporter", links=[link])
    assert _instances.members(survey({OWN: first, OTHER: there}), OTHER) == [OTHER]


# -- instances with files of their own ------------------------------------------------------------------------------


def test_a_request_for_a_component_is_one_for_all_its_instances() -> None:
    draft = drafted(host(apart=True), {OWN: "1.9.0"})
    assert keys(draft) == [f"{OWN}@1.9.0", f"{OTHER}@1.9.0"]
    steps = draft["steps"]
    assert {step["release"] for step in steps.values()} == {f"{OWN}@1.9.0"}
    assert [step["unit"] for step in steps.values()] == ["node_exporter.service", "node_exporter_ops.service"]
    assert [step["shared"] for step in steps.values()] == [[], []]


@pytest.mark.parametrize(
    ("versions", "variables", "steps"),
    [
        ({OTHER: "1.9.0"}, {}, [f"{OTHER}@1.9.0"]),
        ({OWN: "1.9.0", OTHER: "1.7.0"}, {}, [f"{OWN}@1.9.0", f"{OTHER}@1.7.0"]),
        ({OWN: "1.9.0"}, {"only": [OTHER]}, [f"{OTHER}@1.9.0"]),
        ({OWN: "1.9.0"}, {"only": [OWN]}, [f"{OWN}@1.9.0", f"{OTHER}@1.9.0"]),
        ({OWN: "1.9.0"}, {"pins": {OTHER: "1.5.x"}}, [f"{OWN}@1.9.0"]),
        ({OWN: "1.9.0"}, {"pins": {OWN: "1.5.x", OTHER: "*"}}, [f"{OTHER}@1.9.0"]),
        ({OWN: "1.9.0"}, {"policy": {OTHER: "none"}}, [f"{OWN}@1.9.0"]),
        (
            {OWN: "1.9.0"},
            {"policy": {OWN: "none"}, "accept": [f"{OWN}.policy_step"]},
            [f"{OWN}@1.9.0", f"{OTHER}@1.9.0"],
        ),
        ({OWN: "1.9.0"}, {"policy": {OWN: "none"}, "accept": [f"{OTHER}.policy_step"]}, [f"{OTHER}@1.9.0"]),
        ({OWN: "1.9.0"}, {"blacklist": [{"component": OTHER, "versions": "1.9.x", "reason": "r"}]}, [f"{OWN}@1.9.0"]),
    ],
)
def test_a_variable_counts_for_all_instances_or_for_the_one_that_it_names(
    versions: Data, variables: Data, steps: list[str]
) -> None:
    assert keys(drafted(host(apart=True), versions, **variables)) == steps


def test_a_blocker_of_one_instance_is_accepted_by_its_key_or_by_that_of_the_component() -> None:
    found = host(apart=True, flags=["collector.gone"])
    removal = {"flag": "collector.gone", "since": "1.6.0", "use": "nothing"}
    for accept, severity in (
        ([], "blocker"),
        ([f"{OTHER}.removed.collector.gone"], "accepted"),
        ([f"{OWN}.removed.collector.gone"], "accepted"),
    ):
        draft = drafted(found, {OWN: "1.9.0"}, overrides={OWN: {"removed_flags": [removal]}}, accept=accept)
        assert finding_keys(draft, severity) == [f"{OTHER}.removed.collector.gone"]
        assert keys(draft) == [f"{OWN}@1.9.0", *([f"{OTHER}@1.9.0"] if accept else [])]


def test_what_is_overridden_for_one_instance_counts_there_on_top_of_what_counts_for_all() -> None:
    login = {"user": "ops", "password_file": "/etc/login"}
    overrides = {OWN: {"probe_timeout": 70, "probe_window": 7}, OTHER: {"probe_timeout": 90, "auth": login}}
    steps = drafted(host(apart=True), {OWN: "1.9.0"}, overrides=overrides)["steps"]
    first, other = steps[f"{OWN}@1.9.0"], steps[f"{OTHER}@1.9.0"]
    assert (first["probe_timeout"], first["probe_window"], first["target"]["auth"]) == (70, 7, None)
    assert (other["probe_timeout"], other["probe_window"]) == (90, 7)
    assert other["target"]["auth"]["user"] == "ops"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"versions": {"loki_x@1": "1.0.0"}}, "upgrade_versions names loki_x@1"),
        ({"versions": {f"{OWN}@": "1.0.0"}}, "upgrade_versions names node_exporter@"),
        ({"only": [f"{OWN}@../x"]}, "upgrade_only names"),
        ({"overrides": {"nope@1": {}}}, "nope@1 is not a component that the catalog knows"),
        ({"overrides": {OTHER: {"probe_timeout": "x"}}}, f"{OTHER}.probe_timeout"),
        ({"pins": {"nope@1": "1.x"}}, "upgrade_pins.nope@1"),
    ],
)
def test_a_key_of_no_component_is_refused(variables: Data, says: str) -> None:
    with pytest.raises(InputError) as failure:
        wished(**variables)
    assert says in str(failure.value)


def test_instances_of_several_hosts_share_the_phases_and_their_sequence() -> None:
    alone = survey({OWN: facts(OWN, "1.5.0")})
    plan = planned({"h1": alone, "h2": host(apart=True)}, {OWN: "1.9.0"})
    (phase,) = plan["phases"]
    assert phase["sequence"] == [f"{OWN}@1.9.0", f"{OTHER}@1.9.0"]
    assert phase["hosts"] == {"h1": [f"{OWN}@1.9.0"], "h2": [f"{OWN}@1.9.0", f"{OTHER}@1.9.0"]}


def test_a_rule_holds_for_every_instance_that_another_component_needs() -> None:
    """As the solver sees it, an instance that stays behind is like a host that does."""
    rule = {"when": "*", "component": OWN, "versions": ">=1.9", "hold": "throughout", "reason": "r"}
    found = survey({**host(apart=True)["components"], "prometheus": facts("prometheus", "2.42.0")})
    versions = {"prometheus": "2.53.3", OWN: "1.9.0"}
    good = planned({"h1": found}, versions, rules={"prometheus": [rule]})
    assert [key for phase in good["phases"] for key in phase["sequence"]][:2] == [f"{OWN}@1.9.0", f"{OTHER}@1.9.0"]
    left = planned(
        {"h1": found}, {"prometheus": "2.53.3", OWN: "1.9.0"}, rules={"prometheus": [rule]}, pins={OTHER: "1.5.x"}
    )
    assert any(
        OTHER in finding["message"] for finding in left["findings"] if finding["key"] == f"prometheus.needs_{OWN}"
    )


# -- one file for several units -------------------------------------------------------------------------------------


def test_one_step_replaces_a_file_and_restarts_and_verifies_all_units_that_run_it() -> None:
    draft = drafted(host(config="/etc/ops.yml"), {OWN: "1.9.0"})
    assert keys(draft) == [f"{OWN}@1.9.0"]
    step = draft["steps"][f"{OWN}@1.9.0"]
    (other,) = step["shared"]
    assert other["restart"] == {
        "unit": "node_exporter_ops.service",
        "binary": "/usr/local/bin/node_exporter",
        "url": "http://127.0.0.1:9101/metrics",
    }
    assert (other["target"]["component"], other["target"]["version"]) == (OTHER, "1.9.0")
    assert (other["from_target"]["version"], other["from_target"]["proofs"]) == ("1.5.0", [])
    assert [each["unit"] for each in step["stage"]["shared"]] == ["node_exporter_ops.service"]
    assert step["stage"]["shared"][0]["facts"]["config"] == "/etc/ops.yml"
    assert "/etc/systemd/system/node_exporter_ops.service" in step["keep"]["unit"]
    assert "/etc/ops.yml" in step["keep"]["config"]
    assert _steps.swap_guard(step, 300)["shared"] == [other["from_target"]]


def test_the_plan_shows_who_else_runs_the_file() -> None:
    plan = planned({"h1": host()}, {OWN: "1.9.0"})
    assert finding_keys(plan, "info") == [f"{OWN}.shared_with"]
    text = _report_plan.plan(plan)
    assert "with node_exporter" in next(line for line in text.splitlines() if line.startswith(OTHER))
    assert "node_exporter_ops.service" in text


def test_a_unit_that_is_stopped_is_asked_and_not_started() -> None:
    step = drafted(host(state={"active": "inactive", "sub": "dead", "n_restarts": 0}), {OWN: "1.9.0"})["steps"][
        f"{OWN}@1.9.0"
    ]
    assert step["shared"] == []
    assert [each["unit"] for each in step["stage"]["shared"]] == ["node_exporter_ops.service"]


@pytest.mark.parametrize(
    ("versions", "variables"),
    [({OTHER: "1.9.0"}, {}), ({OWN: "1.9.0", OTHER: "1.7.0"}, {}), ({OWN: "1.9.0"}, {"only": [OTHER]})],
)
def test_different_requests_for_one_file_are_a_blocker_that_can_be_accepted(versions: Data, variables: Data) -> None:
    draft = drafted(host(), versions, **variables)
    assert (keys(draft), finding_keys(draft, "blocker")) == ([], [f"{OWN}.shared_file"])
    accepted = drafted(host(), versions, accept=[f"{OWN}.shared_file"], **variables)
    assert keys(accepted) == [f"{OWN}@1.9.0"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "process 4711 (/usr/local/bin/node_exporter) outside of any service of systemd"),
        ({"unit": "session-3.scope"}, "in session-3.scope"),
        ({"unit": "user@1000.service"}, "in user@1000.service"),
        ({"unit": "docker-1.scope", "container": True}, "in a container"),
        ({"unit": "node_exporter_ops.service", "container": True}, "in a container"),
    ],
)
def test_a_process_that_no_step_can_restart_is_a_blocker(changes: Data, says: str) -> None:
    found = host(strangers=[{**STRANGER, **changes}])
    draft = drafted(found, {OWN: "1.9.0"})
    assert (keys(draft), finding_keys(draft, "blocker")) == ([], [f"{OWN}.shared_file"])
    finding = next(each for each in draft["findings"] if each["key"] == f"{OWN}.shared_file")
    assert says in finding["message"]
    assert finding["fix"]
    accepted = drafted(found, {OWN: "1.9.0"}, accept=[f"{OWN}.shared_file"])
    assert keys(accepted) == [f"{OWN}@1.9.0"]
    assert len(accepted["steps"][f"{OWN}@1.9.0"]["shared"]) == 1


def test_a_unit_of_the_same_file_that_can_not_be_upgraded_is_a_blocker() -> None:
    reason = "systemd made it of an init script"
    found = host(not_upgradable={"key": "init_script", "reason": reason, "fix": "f"})
    found["components"][OWN]["shared_by"] = [{**STRANGER, "unit": "node_exporter_ops.service"}]
    draft = drafted(found, {OWN: "1.9.0"}, only=[OWN])
    (finding,) = (each for each in draft["findings"] if each["key"] == f"{OWN}.shared_file")
    assert reason in finding["message"]
    assert keys(draft) == []


def test_an_instance_that_can_not_be_upgraded_has_a_blocker_of_its_own() -> None:
    obstacle = {"key": "masked", "reason": "it is masked", "fix": "unmask it"}
    draft = drafted(host(not_upgradable=obstacle), {OWN: "1.9.0"})
    assert f"{OTHER}.masked" in finding_keys(draft, "blocker")


def test_a_service_that_the_survey_does_not_know_is_restarted_and_looked_at_by_systemd_and_its_process() -> None:
    draft = drafted(host(strangers=[{**STRANGER, "unit": "federate@a.service"}]), {OWN: "1.9.0"})
    shared = draft["steps"][f"{OWN}@1.9.0"]["shared"]
    assert [each["restart"]["unit"] for each in shared] == ["node_exporter_ops.service", "federate@a.service"]
    target = shared[1]["target"]
    assert (target["component"], [probe["kind"] for probe in target["probes"]]) == (
        f"{OWN}@federate-a",
        ["systemd", "process"],
    )
    assert shared[1]["restart"]["url"] is None


def test_a_removed_flag_of_any_of_the_units_is_a_blocker() -> None:
    removal = {"flag": "collector.gone", "since": "1.6.0", "use": "nothing"}
    draft = drafted(host(flags=["collector.gone"]), {OWN: "1.9.0"}, overrides={OWN: {"removed_flags": [removal]}})
    assert (keys(draft), finding_keys(draft, "blocker")) == ([], [f"{OTHER}.removed.collector.gone"])


def test_a_restart_that_one_of_the_units_lost_is_caught_up_with() -> None:
    draft = drafted(host(restart_pending=True, running="1.4.0"), {OWN: "1.5.0"})
    assert keys(draft) == [f"{OWN}@1.5.0"]
    assert draft["steps"][f"{OWN}@1.5.0"]["reason"] == "on disk already, but a restart was lost"


def test_what_was_interrupted_is_finished_for_all_units_without_a_request() -> None:
    record = {"state": "activated", "from_version": "1.5.0", "to_version": "1.9.0", "attempts": 1}
    found = {**host(records={OWN: record}), "unfinished": {OWN: "mixed"}}
    draft = drafted(found, {})
    assert keys(draft) == [f"{OWN}@1.9.0"]
    assert len(draft["steps"][f"{OWN}@1.9.0"]["shared"]) == 1


def test_a_rollback_takes_all_units_with_it() -> None:
    point = {"id": "u1.node_exporter-1.4.0", "version": "1.4.0", "created_at": "2026-11-20T01:00:00Z"}
    found = host(records={OWN: {"state": "success", "inventory": {"restore_points": [point]}}})
    for only in ([], [OTHER], [OWN]):
        draft = shown(_rollback.plan_host("h1", found, wished(only=only), to="previous", kinds=["binary"]))
        assert keys(draft) == [f"{OWN}@1.4.0"]
        assert [each["target"]["version"] for each in draft["steps"][f"{OWN}@1.4.0"]["shared"]] == ["1.4.0"]
        assert [(row["component"], row.get("with")) for row in draft["rows"]] == [(OWN, None), (OTHER, OWN)]


def test_instances_with_files_of_their_own_go_back_each_to_its_own_restore_point() -> None:
    def record(name: str, version: str) -> Data:
        point = {"id": f"u1.{name}-{version}", "version": version, "created_at": "2026-11-20T01:00:00Z"}
        return {"state": "success", "inventory": {"restore_points": [point]}}

    found = host(apart=True, records={OWN: record(OWN, "1.4.0"), OTHER: record(OTHER, "1.3.0")})
    draft = shown(_rollback.plan_host("h1", found, wished(), to="previous", kinds=["binary"]))
    assert {step["component"]: step["backup_id"] for step in draft["steps"].values()} == {
        OTHER: f"u1.{OTHER}-1.3.0",
        OWN: f"u1.{OWN}-1.4.0",
    }
    plan = _rollback.plan_rollback({"h1": found}, {}, to="previous", kinds=["binary"])
    assert sorted(plan["phases"][0]["sequence"]) == sorted(plan["hosts"]["h1"])


# -- saved plans, reports -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
def test_a_saved_plan_is_carried_out_for_all_instances(apart: bool) -> None:
    found = {"h1": host(apart=apart)}
    plan = planned(found, {OWN: "1.9.0"})
    wishes = {"h1": {"versions": {OWN: "1.9.0"}}}
    again = _planner.reopen(json.dumps(plan), found, wishes, name="plan.json", hold=False)
    assert again["hosts"] == plan["hosts"]
    found["h1"]["components"][OTHER]["flags"] = ["another"]
    with pytest.raises(InputError, match=r"flags of node_exporter@9101 is"):
        _planner.reopen(json.dumps(plan), found, wishes, name="plan.json", hold=False)


def test_a_saved_plan_goes_on_with_the_instance_that_is_left() -> None:
    plan = planned({"h1": host(apart=True)}, {OWN: "1.9.0"})
    record = {"state": "success", "from_version": "1.5.0", "to_version": "1.9.0", "attempts": 1}
    found = host(apart=True, records={OWN: record})
    found["state"]["upgrade"]["plan_digest"] = plan["digest"]
    found["components"][OWN].update(version="1.9.0", running="1.9.0")
    wishes = {"h1": {"versions": {OWN: "1.9.0"}}}
    rest = _planner.reopen(json.dumps(plan), {"h1": found}, wishes, name="plan.json", hold=False)
    assert list(rest["hosts"]["h1"]) == [f"{OTHER}@1.9.0"]


def test_check_has_a_row_for_each_instance() -> None:
    found = _check.check({"h1": host(apart=True, version="1.4.0")}, {}, answers={})
    assert [(row["component"], row["installed"]) for row in found["rows"]] == [(OWN, "1.5.0"), (OTHER, "1.4.0")]
    assert [each["key"] for each in found["findings"] if each["key"].endswith(".behind")] == [f"{OTHER}.behind"]


def test_status_tells_which_step_an_instance_went_with() -> None:
    record = {"state": "success", "to_version": "1.9.0", "attempts": 1}
    lines = _report.status({"h1": host(records={OWN: record})}).splitlines()
    assert lines[1].endswith("success 1.9.0")
    assert lines[2].endswith("with node_exporter")


def test_a_failure_of_another_unit_is_told_with_its_step() -> None:
    step = drafted(host(), {OWN: "1.9.0"})["steps"][f"{OWN}@1.9.0"]
    finding = {"severity": "blocker", "component": OTHER, "message": "it is down", "fix": "start it"}
    (failure,) = _report.unready([step], "Preflight", {"findings": [finding]})
    assert (failure["component"], failure["error"]) == (OWN, "it is down. start it")


def test_the_version_variable_of_a_role_is_that_of_the_first_instance() -> None:
    def bumps(*names: str) -> str:
        steps = {f"{name}@1.9.0": "succeeded" for name in names}
        document = {"upgrade": {"steps": steps}, "components": {name: {"to_version": "1.9.0"} for name in names}}
        return _report_plan.bumps({"h1": document}, {OWN: {"version_variables": ["node_exporter_version"]}})

    assert "node_exporter_version: 1.9.0" in bumps(OWN, OTHER)
    assert bumps(OTHER) == ""


def test_keys_of_steps_are_split_at_the_version() -> None:
    host = {"state": "succeeded", "steps": {f"{OTHER}@1.9.0": "succeeded"}, "errors": []}
    done = {"outcome": {"hosts": {"h1": host}, "check_mode": False, "upgrade_id": "u1"}, "unasked": {}}
    assert _report.outcome(done).splitlines()[1].split() == ["h1", OTHER, "1.9.0", "succeeded"]
