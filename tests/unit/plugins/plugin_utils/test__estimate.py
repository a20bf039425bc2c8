# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import types
import typing as t

import pytest
from ansible.executor.playbook_executor import PlaybookExecutor
from ansible_collections.observability.stack.plugins.plugin_utils import _estimate
from ansible_collections.observability.stack.tests.unit.surveys import Data, facts, planned, survey


def batches(hosts: int, waves: list[t.Any]) -> int:
    """How many batches Ansible itself makes of so many hosts."""
    inventory = types.SimpleNamespace(get_hosts=lambda *_pattern, **_order: list(range(hosts)))
    play = types.SimpleNamespace(hosts="all", order=None, serial=waves)
    executor = types.SimpleNamespace(_inventory=inventory)
    made = PlaybookExecutor._get_serialized_batches(t.cast("PlaybookExecutor", executor), t.cast("t.Any", play))
    return len(t.cast("list[t.Any]", made))


@pytest.mark.parametrize(
    "waves",
    [
        [1, "25%", "100%"],
        [1],
        [2, 3],
        ["10%"],
        ["33%"],
        [5, "1%"],
        [100],
        [1, 2, 4, 8, 16],
    ],
    ids=str,
)
def test_waves_are_counted_as_ansible_makes_them(waves: list[t.Any]) -> None:
    sizes = [*range(1, 30), 99, 100, 101, 250]
    assert [len(_estimate.waves([str(number) for number in range(hosts)], waves)) for hosts in sizes] == [
        batches(hosts, waves) for hosts in sizes
    ]


def past(component: str, seconds: int | None, *, version: str = "1.5.0", **changes: t.Any) -> Data:
    """A host whose last step took so long."""
    finished = None if seconds is None else f"2026-11-20T01:{seconds // 60:02}:{seconds % 60:02}Z"
    record = {"state": "success", "started_at": "2026-11-20T01:00:00Z", "finished_at": finished, **changes}
    return survey({component: facts(component, version)}, records={component: record})


@pytest.mark.parametrize(
    ("hosts", "waves", "seconds"),
    [
        ({"a": past("node_exporter", 40)}, [1], 40),
        ({"a": past("node_exporter", 40), "b": past("node_exporter", 20)}, [1], 60),
        ({"a": past("node_exporter", 40), "b": past("node_exporter", 20)}, ["100%"], 30),
        ({"a": past("node_exporter", 40), "b": past("node_exporter", None)}, [1], 80),
        ({"a": past("node_exporter", 40), "b": past("node_exporter", 9, state="rolled_back")}, [1], 80),
        ({"a": past("node_exporter", 40, started_at="yesterday")}, [1], None),
        ({"a": survey({"node_exporter": facts("node_exporter", "1.5.0")})}, [1], None),
    ],
    ids=["one", "two, one by one", "two at once", "no end", "rolled back", "no time", "no past"],
)
def test_a_plan_takes_as_long_as_the_last_steps_did_in_each_wave(
    hosts: Data, waves: list[t.Any], seconds: int | None
) -> None:
    assert planned(hosts, {"node_exporter": "1.9.0"}, waves=waves)["seconds"] == seconds


def test_steps_of_what_was_never_upgraded_do_not_count() -> None:
    hosts = {"a": past("node_exporter", 40), "b": survey({"loki": facts("loki", "2.9.1")})}
    assert planned(hosts, {"node_exporter": "1.9.0", "loki": "2.9.17"}, waves=[1])["seconds"] == 40


def test_restore_points_take_room_for_each_step() -> None:
    found = survey(
        {
            "prometheus": facts("prometheus", "2.42.0", restore_point_bytes=200),
            "node_exporter": facts("node_exporter", "1.5.0"),
        }
    )
    plan = planned({"a": found, "b": survey({})}, {"prometheus": "3.5.3", "node_exporter": "1.9.0"})
    assert plan["backups"] == {"a": 400}


NODE = {host: survey({"node_exporter": facts("node_exporter", "1.5.0")}) for host in ("a", "b")}


def test_each_archive_is_fetched_once_and_its_size_is_told() -> None:
    plan = planned(NODE, {"node_exporter": "1.9.0"})
    (url,) = _estimate.urls(plan)
    sized = _estimate.with_sizes(plan, {url: {"bytes": 7, "status": 200}})
    assert sized["download"] == {"bytes": 7, "unknown": 0, "archives": {url: 7}}
    assert (sized["findings"], sized["digest"]) == (plan["findings"], plan["digest"])
    unknown = _estimate.with_sizes(plan, {url: {"bytes": None, "status": None}})
    assert unknown["download"] == {"bytes": 0, "unknown": 1, "archives": {url: None}}
    assert unknown["findings"] == plan["findings"]


def test_an_archive_that_is_not_there_stands_in_the_way_on_each_host() -> None:
    plan = planned(NODE, {"node_exporter": "1.9.0"})
    (url,) = _estimate.urls(plan)
    gone = _estimate.with_sizes(plan, {url: {"bytes": None, "status": 404}})
    assert [(each["host"], each["key"], each["severity"]) for each in gone["findings"]] == [
        ("a", "node_exporter.no_release", "blocker"),
        ("b", "node_exporter.no_release", "blocker"),
    ]
    assert gone["findings"][0]["message"] == f"{url} answered 404: node_exporter 1.9.0 can't be fetched"


def test_what_is_on_disk_already_is_not_fetched() -> None:
    there = facts("node_exporter", "1.9.0", running="1.5.0", restart_pending=True)
    plan = planned({"a": survey({"node_exporter": there})}, {"node_exporter": "1.9.0"})
    assert list(plan["hosts"]["a"]) == ["node_exporter@1.9.0"]
    assert _estimate.urls(plan) == []
