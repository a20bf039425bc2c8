# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _planner
from ansible_collections.observability.stack.tests.unit.surveys import CATALOG, Data, facts, survey

PHASES = list(_planner.PHASES)


def plan(
    found: Data,
    versions: Data,
    *,
    overrides: Data | None = None,
    only: list[str] | None = None,
    phases: list[str] | None = None,
    host: str = "host1",
) -> Data:
    catalog = _catalog.load(overrides=overrides)
    intent = _planner.Intent(versions, phases or PHASES, only or [])
    return _planner.plan_host(host, found, catalog, intent)


def keys(planned: Data) -> list[str]:
    return list(planned["steps"])


def finding_keys(planned: Data, severity: str | None = None) -> list[str]:
    return [f["key"] for f in planned["findings"] if severity in (None, f["severity"])]


STACK = {
    name: facts(name, version)
    for name, version in {"prometheus": "2.42.0", "alertmanager": "0.25.0", "node_exporter": "1.5.0"}.items()
}
STAGE = {"prometheus": {"stages": ["2.53.3"]}}


def test_steps_come_in_the_order_of_phases_and_through_the_stage() -> None:
    planned = plan(
        survey(STACK),
        {"prometheus": "3.5.3", "node_exporter": "1.9.0", "alertmanager": "0.28.1"},
        overrides=STAGE,
    )
    assert keys(planned) == ["node_exporter@1.9.0", "alertmanager@0.28.1", "prometheus@2.53.3", "prometheus@3.5.3"]
    first, second = planned["steps"]["prometheus@2.53.3"], planned["steps"]["prometheus@3.5.3"]
    assert (first["from"], first["to"], second["from"], second["to"]) == ("2.42.0", "2.53.3", "2.53.3", "3.5.3")
    assert first["reason"] == "a stage on the way to 3.5.3"
    assert second["reason"] == "wanted"


def test_a_step_holds_all_that_is_needed_to_carry_it_out() -> None:
    step = plan(survey(STACK), {"prometheus": "2.53.3"})["steps"]["prometheus@2.53.3"]
    base = "https://github.com/prometheus/prometheus/releases/download/v2.53.3"
    assert step["stage"]["url"] == f"{base}/prometheus-2.53.3.linux-amd64.tar.gz"
    assert step["stage"]["checksums"] == f"{base}/sha256sums.txt"
    assert step["stage"]["members"]["promtool"] == "prometheus-2.53.3.linux-amd64/promtool"
    assert step["files"] == [
        {"name": "prometheus", "dest": "/usr/local/bin/prometheus"},
        {"name": "promtool", "dest": "/usr/local/bin/promtool"},
    ]
    assert step["keep"]["unit"] == ["/etc/systemd/system/prometheus.service"]
    assert step["keep"]["config"] == ["/etc/prometheus/prometheus.yml"]
    assert [probe["kind"] for probe in step["target"]["probes"]] == ["systemd", "process", "http", "build_info"]
    assert step["target"]["version"] == "2.53.3"
    assert step["probe_timeout"] == 300


def test_a_file_that_is_not_on_the_host_is_left_alone() -> None:
    alone = facts("prometheus", "2.42.0")
    alone["files"] = alone["files"][:1]
    step = plan(survey({"prometheus": alone}), {"prometheus": "2.53.3"})["steps"]["prometheus@2.53.3"]
    assert list(step["stage"]["members"]) == ["prometheus"]


@pytest.mark.parametrize("wanted", ["1.5.0", "v1.5.0", "1.5.0+ds", ">=1,<2", "1.5.x"])
def test_what_is_there_already_needs_no_step(wanted: str) -> None:
    planned = plan(survey(STACK), {"node_exporter": wanted})
    assert keys(planned) == []
    assert planned["findings"] == []


def test_what_is_not_named_is_not_touched() -> None:
    assert keys(plan(survey(STACK), {})) == []
    assert keys(plan(survey(STACK), {"node_exporter": "1.9.0"})) == ["node_exporter@1.9.0"]


def test_a_run_can_be_narrowed_and_reordered() -> None:
    versions = {"prometheus": "2.53.3", "node_exporter": "1.9.0"}
    assert keys(plan(survey(STACK), versions, only=["prometheus"])) == ["prometheus@2.53.3"]
    assert keys(plan(survey(STACK), versions, phases=["exporters"])) == ["node_exporter@1.9.0"]
    assert keys(plan(survey(STACK), versions, phases=["metrics", "exporters"]))[0] == "prometheus@2.53.3"


@pytest.mark.parametrize(
    ("here", "target", "stages", "hops"),
    [
        ("2.42.0", "3.5.3", [">=2.55,<3"], ["2.55.1", "3.5.3"]),
        ("2.55.0", "3.5.3", [">=2.55,<3"], ["3.5.3"]),
        ("2.42.0", "2.55.0", [">=2.55,<3"], ["2.55.0"]),
        ("2.42.0", "2.53.3", [">=2.55,<3"], ["2.53.3"]),
        ("3.1.0", "3.5.3", [">=2.55,<3"], ["3.5.3"]),
        ("2.42.0", "3.5.3", ["2.53.3"], ["2.53.3", "3.5.3"]),
        ("2.53.3", "3.5.3", ["2.53.3"], ["3.5.3"]),
        ("2.42.0", "3.5.3", [], ["3.5.3"]),
        ("2.30.0", "3.5.3", ["2.53.3", "2.42.0"], ["2.42.0", "2.53.3", "3.5.3"]),
    ],
)
def test_stages_lie_strictly_between(here: str, target: str, stages: list[str], hops: list[str]) -> None:
    found = survey({"prometheus": facts("prometheus", here)})
    planned = plan(found, {"prometheus": target}, overrides={"prometheus": {"stages": stages}})
    assert keys(planned) == [f"prometheus@{hop}" for hop in hops]


def test_a_stage_that_nobody_knows_a_release_of_blocks() -> None:
    planned = plan(survey(STACK), {"prometheus": "3.5.3"}, overrides={"prometheus": {"stages": [">=2.54,<2.55"]}})
    assert finding_keys(planned, "blocker") == ["prometheus.unknown_stage"]
    assert keys(planned) == []


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"nod_exporter": "1.9.0"}, "nod_exporter, which no catalog entry describes. Known are alertmanager"),
        ({"node_exporter": "banana"}, "'banana' is neither a version"),
        ({"node_exporter": 1.9}, "1.9 is neither a version"),
        ({"node_exporter": None}, "None is neither"),
        ({"node_exporter": ">=7"}, "no release in '>=7' is known; name an exact version"),
    ],
)
def test_a_wrong_wish_is_refused_by_name(versions: Data, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan(survey(STACK), versions)


def test_an_unknown_component_to_narrow_to_is_refused() -> None:
    with pytest.raises(InputError, match="upgrade_only names promehteus"):
        plan(survey(STACK), {}, only=["promehteus"])


@pytest.mark.parametrize(
    ("changes", "key", "severity", "says"),
    [
        ({"unit": None}, "no_unit", "blocker", "none of the units node_exporter"),
        ({"version": "unknown"}, "unknown_version", "blocker", "doesn't tell its version"),
        (
            {"package": {"manager": "apt", "name": "prometheus-node-exporter"}},
            "package_owned",
            "skipped",
            "belongs to the package prometheus-node-exporter",
        ),
        (
            {"state": {"active": "activating", "sub": "auto-restart", "n_restarts": 9}},
            "not_running",
            "blocker",
            "activating/auto-restart",
        ),
        ({"architecture": "elf9999"}, "no_release", "blocker", "isn't released for elf9999"),
    ],
)
def test_what_stands_in_the_way_is_found_before_anything_is_touched(
    changes: Data, key: str, severity: str, says: str
) -> None:
    planned = plan(survey({"node_exporter": facts("node_exporter", "1.5.0", **changes)}), {"node_exporter": "1.9.0"})
    assert keys(planned) == []
    (finding,) = planned["findings"]
    assert (finding["key"], finding["severity"]) == (f"node_exporter.{key}", severity)
    assert says in finding["message"]
    assert finding["fix"]


def test_a_package_is_told_with_the_command_that_upgrades_it() -> None:
    owned = facts("node_exporter", "1.5.0", package={"manager": "dnf", "name": "node_exporter"})
    planned = plan(survey({"node_exporter": owned}), {"node_exporter": "1.9.0"})
    assert planned["findings"][0]["fix"] == "dnf upgrade node_exporter"


def test_a_component_that_is_not_there_is_no_obstacle_for_the_others() -> None:
    found = survey({**STACK, "loki": facts("loki", None)})
    planned = plan(found, {"loki": "2.9.17", "node_exporter": "1.9.0"})
    assert keys(planned) == ["node_exporter@1.9.0"]
    assert finding_keys(planned) == ["loki.not_installed"]


def test_a_blocked_component_does_not_take_the_steps_of_others() -> None:
    stopped = facts("alertmanager", "0.25.0", state={"active": "inactive", "sub": "dead", "n_restarts": 0})
    planned = plan(survey({**STACK, "alertmanager": stopped}), {"alertmanager": "0.28.1", "node_exporter": "1.9.0"})
    assert keys(planned) == ["node_exporter@1.9.0"]
    assert finding_keys(planned, "blocker") == ["alertmanager.not_running"]


def test_a_downgrade_is_refused_with_the_way_back() -> None:
    planned = plan(survey(STACK), {"node_exporter": "1.4.0"})
    assert finding_keys(planned, "blocker") == ["node_exporter.downgrade"]
    assert "rollback" in planned["findings"][0]["fix"]


def test_a_program_that_was_never_released_is_refused() -> None:
    planned = plan(survey({"promtail": facts("promtail", "3.6.3")}), {"promtail": "3.7.1"})
    assert finding_keys(planned, "blocker") == ["promtail.end_of_life"]
    assert "3.6.11 is the last" in planned["findings"][0]["message"]


def test_flags_that_the_new_version_removed_block_with_their_replacement() -> None:
    old = facts("prometheus", "2.55.1", flags=["storage.tsdb.retention", "config.file"])
    planned = plan(survey({"prometheus": old}), {"prometheus": "3.5.3"})
    (blocker,) = [finding for finding in planned["findings"] if finding["severity"] == "blocker"]
    assert blocker["key"] == "prometheus.removed.storage.tsdb.retention"
    assert "--storage.tsdb.retention, which was removed in 3.0.0" in blocker["message"]
    assert blocker["fix"] == "--storage.tsdb.retention.time"
    assert keys(planned) == []
    assert keys(plan(survey({"prometheus": old}), {"prometheus": "2.55.2"})) == ["prometheus@2.55.2"]


@pytest.mark.parametrize(("flags", "blocked"), [([], True), (["config.my-cnf"], False)])
def test_variables_that_the_new_version_removed_block_unless_a_flag_replaces_them(
    flags: list[str], blocked: bool
) -> None:
    old = facts("mysqld_exporter", "0.14.0", environment=["DATA_SOURCE_NAME"], flags=flags)
    planned = plan(survey({"mysqld_exporter": old}), {"mysqld_exporter": "0.17.2"})
    assert bool(finding_keys(planned, "blocker")) is blocked


def test_known_bad_and_vulnerable_versions_are_told() -> None:
    planned = plan(survey({"prometheus": facts("prometheus", "3.5.3")}), {"prometheus": "3.9.0"})
    told = finding_keys(planned, "warning")
    assert "prometheus.bad_version" in told
    assert "prometheus.vulnerable_version" in told
    assert keys(planned) == ["prometheus@3.9.0"]


def test_the_end_of_the_way_back_is_told_when_it_is_crossed() -> None:
    planned = plan(
        survey({"prometheus": facts("prometheus", "2.42.0")}),
        {"prometheus": "3.5.3"},
        overrides={"prometheus": {"stages": []}},
    )
    floors = [finding for finding in planned["findings"] if finding["key"] == "prometheus.rollback_floor"]
    assert [floor["severity"] for floor in floors] == ["warning"]
    upward = plan(survey({"prometheus": facts("prometheus", "2.55.1")}), {"prometheus": "3.5.3"})
    assert [f["severity"] for f in upward["findings"] if f["key"] == "prometheus.rollback_floor"] == ["info"]


def test_a_lost_restart_is_a_step_from_what_runs() -> None:
    drifted = facts("prometheus", "3.5.3", running="2.55.1", restart_pending=True)
    step = plan(survey({"prometheus": drifted}), {"prometheus": "3.5.3"})["steps"]["prometheus@3.5.3"]
    assert (step["from"], step["to"], step["stage"]) == ("2.55.1", "3.5.3", None)
    assert step["reason"] == "on disk already, but a restart was lost"


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
        step = plan(found, versions)["steps"]["node_exporter@1.9.0"]
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
    planned = plan(found, {"node_exporter": "1.9.0"})
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
    assert keys(plan(found, {"node_exporter": "1.9.0"})) == ["node_exporter@1.9.0"]


def test_a_protected_service_is_asked_without_a_password() -> None:
    guarded = facts("node_exporter", "1.5.0", protected=True, metrics_path="/secret")
    step = plan(survey({"node_exporter": guarded}), {"node_exporter": "1.9.0"})["steps"]["node_exporter@1.9.0"]
    assert step["target"]["probes"][2:] == [{"kind": "http", "path": "/secret", "status": [200, 401]}]


def test_a_tree_is_not_taken_for_a_set_of_files() -> None:
    planned = plan(survey({"grafana": facts("grafana", "11.6.0")}), {"grafana": "11.6.1"})
    assert finding_keys(planned, "blocker") == ["grafana.not_files"]


# -- the fleet ----------------------------------------------------------------------------------------------------


def fleet(plans: list[Data], kind: str = "upgrade") -> Data:
    return _planner.plan_fleet(plans, phases=PHASES, kind=kind)


def test_hosts_go_through_one_sequence_each_doing_its_own_steps() -> None:
    versions = {"prometheus": "3.5.3", "node_exporter": "1.9.0"}
    one = plan(survey(STACK), versions, overrides=STAGE, host="one")
    two = plan(survey({"prometheus": facts("prometheus", "2.53.3")}), versions, overrides=STAGE, host="two")
    three = plan(survey({"node_exporter": facts("node_exporter", "1.9.0")}), versions, host="three")
    merged = fleet([one, two, three])
    assert [(phase["name"], phase["sequence"], phase["hosts"]) for phase in merged["phases"]] == [
        ("exporters", ["node_exporter@1.9.0"], ["one"]),
        ("metrics", ["prometheus@2.53.3", "prometheus@3.5.3"], ["one", "two"]),
    ]
    assert set(merged["hosts"]) == {"one", "two"}
    assert _planner.host_phases(merged, "two") == {"metrics": ["prometheus@3.5.3"]}
    assert list(_planner.host_phases(merged, "one")) == ["exporters", "metrics"]
    assert _planner.host_phases(merged, "three") == {}


def test_versions_of_a_sequence_are_ordered_as_versions() -> None:
    plans = [
        plan(survey({"node_exporter": facts("node_exporter", "1.5.0")}), {"node_exporter": wanted}, host=wanted)
        for wanted in ("1.11.1", "1.9.0", "1.10.2")
    ]
    sequence = fleet(plans)["phases"][0]["sequence"]
    assert sequence == ["node_exporter@1.9.0", "node_exporter@1.10.2", "node_exporter@1.11.1"]


def test_the_digest_is_that_of_the_steps() -> None:
    found = survey(STACK)
    one, same = fleet([plan(found, {"node_exporter": "1.9.0"})]), fleet([plan(found, {"node_exporter": "1.9.0"})])
    other = fleet([plan(found, {"node_exporter": "1.9.1"})])
    assert one["digest"] == same["digest"] != other["digest"]


def test_more_phases_than_a_playbook_has_are_refused() -> None:
    step = plan(survey(STACK), {"node_exporter": "1.9.0"})["steps"]["node_exporter@1.9.0"]
    steps = {str(number): {**step, "phase": str(number)} for number in range(6)}
    with pytest.raises(InputError, match="6 phases have steps"):
        _planner.plan_fleet([{"host": "h", "steps": steps, "findings": [], "rows": []}], phases=list(steps))


def test_blockers_name_host_reason_and_way_out() -> None:
    merged = fleet([plan(survey(STACK), {"node_exporter": "1.4.0"})])
    (line,) = _planner.blockers(merged)
    assert line.startswith("host1: 1.4.0 is older than 1.5.0, which is in use. ")


# -- the way back -------------------------------------------------------------------------------------------------

POINTS = [
    {"id": "u1.prometheus-2.42.0", "version": "2.42.0", "created_at": "2026-11-20T01:00:00Z"},
    {"id": "u2.prometheus-2.53.3", "version": "2.53.3", "created_at": "2026-11-21T01:00:00Z"},
    {"id": "u2.prometheus-2.55.1", "version": "2.55.1", "created_at": "2026-11-21T01:01:00Z"},
]


def upgraded() -> Data:
    records = {
        "prometheus": {"state": "success", "inventory": {"restore_points": copy.deepcopy(POINTS)}},
        "node_exporter": {
            "state": "success",
            "inventory": {"restore_points": [{**POINTS[0], "id": "u2.node_exporter-1.5.0", "version": "1.5.0"}]},
        },
    }
    return survey(
        {"prometheus": facts("prometheus", "3.5.3"), "node_exporter": facts("node_exporter", "1.9.0")}, records=records
    )


def back(to: str, only: list[str] | None = None) -> Data:
    intent = _planner.Intent({}, PHASES, only or [])
    return _planner.plan_rollback("host1", upgraded(), CATALOG, intent, to=to, kinds=["binary"])


@pytest.mark.parametrize(
    ("to", "only", "steps"),
    [
        (
            "previous",
            None,
            {"prometheus@2.55.1": "u2.prometheus-2.55.1", "node_exporter@1.5.0": "u2.node_exporter-1.5.0"},
        ),
        ("previous", ["node_exporter"], {"node_exporter@1.5.0": "u2.node_exporter-1.5.0"}),
        ("u2", None, {"prometheus@2.53.3": "u2.prometheus-2.53.3", "node_exporter@1.5.0": "u2.node_exporter-1.5.0"}),
        ("u1.prometheus-2.42.0", None, {"prometheus@2.42.0": "u1.prometheus-2.42.0"}),
        ("u9", None, {}),
    ],
)
def test_rollback_goes_to_a_restore_point_or_to_where_an_upgrade_began(
    to: str, only: list[str] | None, steps: dict[str, str]
) -> None:
    planned = back(to, only)
    assert {key: step["backup_id"] for key, step in planned["steps"].items()} == steps
    assert all(step["stage"] is None for step in planned["steps"].values())


def test_what_was_upgraded_last_goes_back_first() -> None:
    merged = fleet([back("previous")], kind="rollback")
    assert [phase["name"] for phase in merged["phases"]] == ["metrics", "exporters"]


def test_going_below_the_floor_is_told() -> None:
    planned = back("u1.prometheus-2.42.0")
    assert "prometheus.below_floor" in finding_keys(planned, "warning")
    assert finding_keys(back("previous"), "warning") == []


def test_a_rollback_that_was_cut_off_goes_on_from_its_restore_point() -> None:
    record = {**RECORD, "from_version": "1.9.0", "to_version": "1.5.0", "restored_from": "u2.node_exporter-1.5.0"}
    found = survey(
        {"node_exporter": facts("node_exporter", "1.9.0")},
        records={"node_exporter": record},
        unfinished={"node_exporter": "mixed"},
    )
    intent = _planner.Intent({}, PHASES, [])
    step = _planner.plan_host("host1", found, CATALOG, intent)["steps"]["node_exporter@1.5.0"]
    assert (step["backup_id"], step["stage"]) == ("u2.node_exporter-1.5.0", None)


@pytest.mark.parametrize(
    ("changes", "unfinished"),
    [({}, {"node_exporter": "mixed"}), ({}, {"node_exporter": "new"}), ({"restart_pending": True}, {})],
)
def test_a_rollback_isnt_taken_for_done_because_its_program_is_in_place(changes: Data, unfinished: Data) -> None:
    """The tool beside the program may not be, and the service may still run the newer one."""
    point = {"id": "u2.node_exporter-1.5.0", "version": "1.5.0", "created_at": "2026-11-21T00:00:00Z"}
    record = {**RECORD, "from_version": "1.9.0", "to_version": "1.5.0", "restored_from": point["id"]}
    record["inventory"] = {"restore_points": [point]}
    there = facts("node_exporter", "1.5.0", running="1.9.0", **changes)
    found = survey({"node_exporter": there}, records={"node_exporter": record}, unfinished=unfinished)
    intent = _planner.Intent({}, PHASES, [])
    planned = _planner.plan_rollback("host1", found, CATALOG, intent, to="u2", kinds=["binary"])
    assert [(step["from"], step["to"], step["backup_id"]) for step in planned["steps"].values()] == [
        ("1.9.0", "1.5.0", point["id"])
    ]


@pytest.mark.parametrize(("to", "found"), [("previous", "u1.x"), ("u2", None), ("u2.x.marked", "u2.x.marked")])
def test_a_restore_point_that_somebody_marked_is_gone_back_to_by_its_name_only(to: str, found: str | None) -> None:
    points = [
        {"id": "u1.x", "version": "1.0.0", "created_at": "2026-11-20T01:00:00Z"},
        {"id": "u2.x.marked", "version": "1.0.0", "created_at": "2026-11-21T01:00:00Z", "marked": True},
    ]
    record = {**RECORD, "inventory": {"restore_points": points}}
    there = survey({"node_exporter": facts("node_exporter", "1.9.0")}, records={"node_exporter": record})
    intent = _planner.Intent({}, PHASES, [])
    planned = _planner.plan_rollback("host1", there, CATALOG, intent, to=to, kinds=["binary"])
    assert [step["backup_id"] for step in planned["steps"].values()] == ([found] if found else [])


def test_restore_points_are_listed_newest_first() -> None:
    found = _planner.restore_points(upgraded())
    assert [point["version"] for point in found] == ["2.55.1", "2.53.3", "1.5.0", "2.42.0"]
    assert _planner.restore_points(survey({})) == []


def test_staged_files_go_where_they_belong_and_what_is_in_place_stays() -> None:
    step = plan(survey(STACK), {"prometheus": "2.53.3"})["steps"]["prometheus@2.53.3"]
    staged = {
        "files": [
            {"name": "prometheus", "path": "/s/prometheus", "sha256": "a"},
            {"name": "promtool", "path": "/s/promtool", "sha256": "b"},
        ]
    }
    assert _planner.swap_files(step, staged) == [
        {"src": "/s/prometheus", "dest": "/usr/local/bin/prometheus", "sha256": "a"},
        {"src": "/s/promtool", "dest": "/usr/local/bin/promtool", "sha256": "b"},
    ]
    in_place = {**step, "stage": None}
    assert _planner.swap_files(in_place, {"skipped": True})[0] == {
        "src": "/usr/local/bin/prometheus",
        "dest": "/usr/local/bin/prometheus",
    }
