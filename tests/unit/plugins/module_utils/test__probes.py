# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._probes import (
    PREDICATES,
    Look,
    Watch,
    judge,
    paths,
)

METRICS = [{"metric": "node_exporter_build_info", "label": "version"}]
TARGET = {
    "component": "node_exporter",
    "unit": "node_exporter.service",
    "binary": "/usr/local/bin/node_exporter",
    "url": "http://127.0.0.1:9100",
    "version": "1.9.0",
    "probes": [
        {"kind": "systemd"},
        {"kind": "process"},
        {"kind": "http", "path": "/metrics", "status": [200]},
        {"kind": "build_info", "path": "/metrics", "metrics": METRICS},
    ],
}
PAGE = 'node_exporter_build_info{version="1.9.0"} 1\n'


def look(**changes: t.Any) -> Look:
    good = Look("active", "running", "success", 10, 0, True, {"/metrics": (200, PAGE, "")})
    return good._replace(**changes)


def answers(status: int | None, body: str = "", error: str = "") -> dict[str, t.Any]:
    return {"answers": {"/metrics": (status, body, error)}}


@pytest.mark.parametrize(
    ("changes", "failing", "says"),
    [
        ({}, [], ""),
        (
            {"active": "activating", "sub": "auto-restart", "result": "exit-code", "n_restarts": 2, "main_pid": 0},
            ["systemd"],
            "node_exporter.service is activating/auto-restart (exit-code), restarted 2 times by systemd",
        ),
        ({"main_pid": 0}, ["systemd"], "active/running"),
        ({"runs_binary": False}, ["process"], "process 10 runs another file"),
        (answers(503, "starting"), ["http", "build_info"], "http://127.0.0.1:9100/metrics answered 503"),
        (answers(None, "", "refused"), ["http", "build_info"], "didn't answer (refused)"),
        (answers(200, PAGE.replace("1.9.0", "1.8.9")), ["build_info"], "the service calls itself 1.8.9"),
        (answers(200, "up 1\n"), ["build_info"], "/metrics has none of node_exporter_build_info"),
        (answers(200, PAGE.replace("1.9.0", "1.9.0+ds")), [], ""),
    ],
)
def test_judge_says_which_probe_failed_and_what_it_saw(
    changes: dict[str, t.Any], failing: list[str], says: str
) -> None:
    verdicts = judge(look(**changes), TARGET)
    failed = [verdict for verdict in verdicts if not verdict.ok]
    assert [verdict.probe for verdict in failed] == failing
    assert says in "".join(map(str, failed))


@pytest.mark.parametrize(("version", "ok"), [("1.9.0", True), ("1.5.0", False), (None, True)])
def test_build_info_without_a_wanted_version_takes_any(version: str | None, ok: bool) -> None:
    assert judge(look(), {**TARGET, "version": version})[3].ok is ok
    assert judge(look(**answers(200, "")), {**TARGET, "version": version})[3].ok is False


def test_a_protected_service_that_asks_for_a_password_serves() -> None:
    probe = {"kind": "http", "path": "/metrics", "status": [200, 401]}
    assert judge(look(**answers(401)), {**TARGET, "probes": [probe]})[0].ok
    assert not judge(look(**answers(401)), TARGET)[2].ok


def test_each_path_is_asked_for_once() -> None:
    assert paths(TARGET) == ["/metrics"]
    assert paths({"probes": [{"kind": "systemd", "path": None}]}) == []


def test_every_kind_has_a_predicate() -> None:
    assert set(PREDICATES) == {"systemd", "process", "http", "build_info"}


def watch(looks: list[tuple[float, Look]], *, window: float = 10) -> tuple[Watch, list[bool]]:
    watched = Watch(window=window)
    return watched, [watched.add(one, judge(one, TARGET), elapsed=at) for at, one in looks]


def test_a_service_is_proven_when_it_was_good_for_the_whole_window() -> None:
    watched, proven = watch([(0, look(active="activating")), (2, look()), (11, look()), (12, look())])
    assert proven == [False, False, False, True]
    assert watched.ready_after == 2


@pytest.mark.parametrize(
    "other",
    [look(main_pid=11), look(n_restarts=1), look(active="deactivating"), look(**answers(None))],
    ids=["another process", "a restart", "a moment down", "a moment deaf"],
)
def test_the_window_begins_anew_with(other: Look) -> None:
    _watched, proven = watch([(0, look()), (8, other), (10, look()), (19, look()), (20, look())])
    assert proven == [False, False, False, False, True]


def test_without_a_window_one_good_look_is_enough() -> None:
    assert watch([(0, look())], window=0)[1] == [True]


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        ([look(active="failed")], "the unit has stopped (failed)"),
        ([look(active="inactive", main_pid=0)], "the unit has stopped (inactive)"),
        (
            [look(active="activating", n_restarts=number) for number in range(4)],
            "a crash loop: systemd has restarted it 3 times meanwhile",
        ),
        ([look(active="activating", n_restarts=number) for number in (5, 6, 7)], ""),
        ([look(active="activating")] * 9, ""),
    ],
)
def test_a_watch_gives_up_where_no_time_will_help(looks: list[Look], reason: str) -> None:
    assert watch(list(enumerate(looks)))[0].hopeless == reason
