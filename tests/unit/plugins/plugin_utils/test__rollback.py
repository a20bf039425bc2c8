# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils import _rollback
from ansible_collections.observability.stack.tests.unit.surveys import (
    Data,
    drafted,
    facts,
    finding_keys,
    shown,
    survey,
    wished,
)

RECORD = {"state": "activated", "from_version": "1.5.0", "to_version": "1.9.0", "attempts": 1}


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
    return shown(_rollback.plan_host("host1", upgraded(), wished(only=only), to=to, kinds=["binary"]))


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
    plan = _rollback.plan_rollback({"host1": upgraded()}, {}, to="previous", kinds=["binary"])
    assert [phase["name"] for phase in plan["phases"]] == ["metrics", "exporters"]
    assert plan["kind"] == "rollback"


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
    step = drafted(found, {})["steps"]["node_exporter@1.5.0"]
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
    planned = shown(_rollback.plan_host("host1", found, wished(), to="u2", kinds=["binary"]))
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
    planned = shown(_rollback.plan_host("host1", there, wished(), to=to, kinds=["binary"]))
    assert [step["backup_id"] for step in planned["steps"].values()] == ([found] if found else [])


def test_restore_points_are_listed_newest_first() -> None:
    found = _rollback.restore_points(upgraded())
    assert [point["version"] for point in found] == ["2.55.1", "2.53.3", "1.5.0", "2.42.0"]
    assert _rollback.restore_points(survey({})) == []
