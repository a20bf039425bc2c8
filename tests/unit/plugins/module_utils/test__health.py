# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _health
from ansible_collections.observability.stack.plugins.module_utils._probes import key_of
from ansible_collections.observability.stack.tests.unit.slow_peers import PEERS, listening
from ansible_collections.observability.stack.tests.unit.support import (
    Answer,
    Data,
    Systemd,
    Web,
    running,
    write_program,
)


class Fleet:
    """Services of one host, and a clock that only moves when somebody sleeps."""

    def __init__(self, systemd: Systemd, web: Web, program: pathlib.Path, pid: int) -> None:
        self.systemd, self.web, self.program, self.pid = systemd, web, program, pid
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def unit(self, name: str, says: t.Callable[[float], Data] = lambda _elapsed: {}) -> Data:
        """A service that runs, but for what it says at a time, in seconds after the beginning. Its target."""

        def properties() -> Data:
            runs = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "MainPID": self.pid}
            return {**runs, "NRestarts": 0, **says(self.now - 100.0)}

        self.systemd.units[f"{name}.service"] = properties
        self.systemd.journal[f"{name}.service"] = ["last words"]
        return {
            "component": name,
            "unit": f"{name}.service",
            "binary": str(self.program),
            "url": self.web.url,
            "probes": [{"kind": "systemd"}, {"kind": "process"}],
        }

    def wait(self, *targets: Data, timeout: float = 60, window: float = 10, **more: t.Any) -> list[_health.Health]:
        options = {"timeout": timeout, "window": window, "clock": lambda: self.now, "sleep": self.sleep, **more}
        return _health.wait(self.systemd, list(targets), **options)

    @property
    def looks(self) -> list[list[str]]:
        """The units that each look was at."""
        return [argv[argv.index("--") + 1 :] for argv in self.systemd.commands("systemctl", "show")]


@pytest.fixture
def fleet(systemd: Systemd, web: Web, tmp_path: pathlib.Path) -> t.Iterator[Fleet]:
    program = write_program(tmp_path / "prometheus")
    with running(program) as pid:
        yield Fleet(systemd, web, program, pid)


def test_without_a_window_one_good_look_is_enough(fleet: Fleet) -> None:
    (health,) = fleet.wait(fleet.unit("a"), window=0)
    assert (health.component, health.healthy, health.ready_after, health.reason) == ("a", True, 0.0, "")
    assert len(fleet.looks) == 1
    assert fleet.systemd.commands("journalctl") == []


def test_a_service_must_stay_healthy_for_the_whole_window(fleet: Fleet) -> None:
    (health,) = fleet.wait(fleet.unit("a"))
    assert (health.healthy, health.ready_after, fleet.now) == (True, 0.0, 110.0)


def starting(until: float) -> t.Callable[[float], Data]:
    return lambda elapsed: {"ActiveState": "activating", "SubState": "start", "MainPID": 0} if elapsed < until else {}


@pytest.mark.parametrize(
    ("ready", "healthy", "ends"),
    [(3, True, 113), (60, True, 170), (61, False, 160.5)],
    ids=["soon", "just", "too late"],
)
def test_the_time_limit_is_for_becoming_healthy_and_the_window_comes_on_top(
    fleet: Fleet, ready: float, healthy: bool, ends: float
) -> None:
    (health,) = fleet.wait(fleet.unit("a", starting(ready)))
    assert (health.healthy, health.ready_after) == (healthy, ready if healthy else None)
    assert fleet.now == ends


def test_the_journal_of_an_alias_is_that_of_its_unit(fleet: Fleet) -> None:
    fleet.systemd.journal["site.service"] = ["of the site"]
    target = fleet.unit("a", lambda _elapsed: {"Id": "site.service", "ActiveState": "failed"})
    (health,) = fleet.wait(target, timeout=1)
    assert health.journal == ["site.service: of the site"]


def test_the_first_failed_probe_is_the_reason_and_the_journal_is_told(fleet: Fleet) -> None:
    (health,) = fleet.wait(fleet.unit("a", starting(1000)), timeout=5, since=1000.4)
    assert health.reason == (
        "not steady within 5 s: systemd: a.service is activating/start; wanted: active, with a main process"
    )
    assert health.journal == ["a.service: last words"]
    assert "--since=@1000" in fleet.systemd.commands("journalctl")[0]
    assert [(verdict["probe"], verdict["ok"]) for verdict in health.verdicts] == [
        ("systemd", False),
        ("process", False),
    ]


def test_a_service_that_listens_elsewhere_than_it_is_asked_is_told_so(fleet: Fleet) -> None:
    """This very process has the socket of the web server."""
    fleet.systemd.units["a.service"] = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "MainPID": os.getpid(),
        "NRestarts": 0,
    }
    target = {"component": "a", "unit": "a.service", "binary": "/x", "probes": [{"kind": "http", "path": "/"}]}
    (health,) = fleet.wait({**target, "url": "http://127.0.0.1:1"}, timeout=0)
    assert "; but a.service is active and listens at " in health.reason
    assert f"127.0.0.1 port {fleet.web.port}" in health.reason
    (health,) = fleet.wait({**target, "url": fleet.web.url}, timeout=0)
    assert not health.healthy
    assert "listens at" not in health.reason


def test_a_service_that_fails_within_the_window_begins_it_anew(fleet: Fleet) -> None:
    (health,) = fleet.wait(fleet.unit("a", lambda elapsed: starting(1000)(0) if 4 <= elapsed < 6 else {}))
    assert (health.healthy, health.ready_after, fleet.now) == (True, 6.0, 116.0)


def test_a_service_that_systemd_restarted_begins_its_window_anew(fleet: Fleet) -> None:
    (health,) = fleet.wait(fleet.unit("a", lambda elapsed: {"NRestarts": int(elapsed >= 7)}))
    assert (health.healthy, health.ready_after) == (True, 7.0)


def test_a_process_that_keeps_changing_is_never_steady(fleet: Fleet) -> None:
    restarts = iter(range(1000))
    (health,) = fleet.wait(fleet.unit("a", lambda _elapsed: {"NRestarts": next(restarts)}), timeout=5)
    assert (health.healthy, health.reason) == (False, "not steady within 5 s: its process kept changing")
    assert fleet.now == 115.5


@pytest.mark.parametrize(
    ("says", "reason", "looks"),
    [
        (
            lambda _e: {"ActiveState": "failed", "SubState": "failed", "MainPID": 0},
            "the unit has stopped (failed)",
            1,
        ),
        (
            lambda _e: {"ActiveState": "inactive", "SubState": "dead", "MainPID": 0},
            "the unit has stopped (inactive)",
            1,
        ),
        (
            lambda elapsed: {"ActiveState": "activating", "MainPID": 0, "NRestarts": int(elapsed * 2)},
            "a crash loop: systemd has restarted it 3 times meanwhile",
            4,
        ),
    ],
    ids=["failed", "stopped", "crash loop"],
)
def test_what_no_time_will_help_is_given_up_at_once(
    fleet: Fleet, says: t.Callable[[float], Data], reason: str, looks: int
) -> None:
    (health,) = fleet.wait(fleet.unit("a", says), timeout=600)
    assert health.healthy is False
    assert health.reason == reason
    assert len(fleet.looks) == looks


def test_services_are_looked_at_together_and_each_only_as_long_as_it_is_open(fleet: Fleet) -> None:
    gone = fleet.unit("gone", lambda _elapsed: {"ActiveState": "failed", "MainPID": 0})
    found = fleet.wait(fleet.unit("good"), gone, fleet.unit("slow", starting(20)))
    assert [(health.component, health.healthy) for health in found] == [("good", True), ("gone", False), ("slow", True)]
    assert fleet.looks[:2] == [["good.service", "gone.service", "slow.service"], ["good.service", "slow.service"]]
    assert fleet.looks[-1] == ["slow.service"]


def test_a_sick_neighbour_does_not_cost_a_late_service_its_window(fleet: Fleet) -> None:
    late, sick = fleet.wait(fleet.unit("late", starting(58)), fleet.unit("sick", starting(1000)))
    assert (late.healthy, late.ready_after, late.reason) == (True, 58.0, "")
    assert sick.reason.startswith("not steady within 60 s: systemd: ")


def test_pages_are_asked_for_once_a_look_and_only_of_a_process(fleet: Fleet) -> None:
    fleet.web.answers["/p"] = Answer(b'x_build_info{version="1.0.0"} 1\n')
    probes = [
        {"kind": "http", "path": "/p"},
        {"kind": "build_info", "path": "/p", "metrics": [{"metric": "x_build_info", "label": "version"}]},
    ]
    target = {**fleet.unit("a", starting(1)), "probes": probes, "version": "1.0.0"}
    (health,) = fleet.wait(target, window=0)
    assert (health.healthy, health.ready_after) == (True, 1.0)
    assert fleet.web.asked == ["/p"]


def test_no_process_is_the_reason_why_a_page_is_missing(fleet: Fleet) -> None:
    target = {**fleet.unit("a", starting(1000)), "probes": [{"kind": "http", "path": "/p"}]}
    (health,) = fleet.wait(target, timeout=0)
    assert health.reason.endswith(f"http: {fleet.web.url}/p didn't answer (no process); wanted: status 200")


def test_nothing_to_look_at_is_healthy_at_once(fleet: Fleet) -> None:
    assert fleet.wait() == []
    assert fleet.looks == []


# -- proofs -------------------------------------------------------------------------------------------------------

SAMPLES = {"kind": "samples", "path": "/p"}


def page_of(fleet: Fleet, says: t.Callable[[float], int]) -> None:
    """A page with so many samples at a time, in seconds after the beginning."""
    fleet.web.answers["/p"] = lambda: Answer(b"up 1\n" * says(fleet.now - 100.0))


def before(count: int) -> list[Data | None]:
    return [{key_of(SAMPLES): {"status": 200, "count": count, "families": []}}]


def test_proofs_are_asked_for_when_the_window_is_over_and_once_if_they_are_good(fleet: Fleet) -> None:
    page_of(fleet, lambda _elapsed: 10)
    (health,) = fleet.wait({**fleet.unit("a"), "proofs": [SAMPLES]}, before=before(10))
    assert (health.healthy, fleet.now, fleet.web.asked) == (True, 110.0, ["/p"])
    assert [verdict["probe"] for verdict in health.verdicts] == ["systemd", "process", "samples"]


def test_a_proof_is_tried_again_until_it_is_good(fleet: Fleet) -> None:
    page_of(fleet, lambda elapsed: 10 if elapsed >= 30 else 1)
    proofs = [SAMPLES, {"kind": "http", "path": "/p"}]
    (health,) = fleet.wait({**fleet.unit("a"), "proofs": proofs}, before=before(10))
    assert (health.healthy, health.ready_after, fleet.now) == (True, 0.0, 130.0)


def test_a_proof_that_never_is_good_is_the_reason(fleet: Fleet) -> None:
    page_of(fleet, lambda _elapsed: 1)
    (health,) = fleet.wait({**fleet.unit("a"), "proofs": [SAMPLES]}, before=before(10), timeout=20)
    assert health.reason == (
        f"not proven within 20 s: samples: {fleet.web.url}/p has 1 samples; "
        "wanted: at least 8 samples, 80 % of 10 before"
    )
    assert (health.healthy, fleet.now, health.journal) == (False, 130.5, ["a.service: last words"])


def test_without_anything_from_before_a_comparison_asks_nothing(fleet: Fleet) -> None:
    page_of(fleet, lambda _elapsed: 1)
    (health,) = fleet.wait({**fleet.unit("a"), "proofs": [SAMPLES]}, window=0)
    assert health.healthy
    assert health.verdicts[2]["seen"].endswith("has 1 samples, nothing to compare with")


def test_a_service_that_dies_of_a_proof_is_not_healthy(fleet: Fleet) -> None:
    page_of(fleet, lambda _elapsed: 1)
    gone = {"ActiveState": "failed", "MainPID": 0}
    target = fleet.unit("a", lambda elapsed: gone if elapsed > 12 else {})
    (health,) = fleet.wait({**target, "proofs": [SAMPLES]}, before=before(10))
    assert (health.healthy, health.reason) == (False, "the unit has stopped (failed)")


def test_proofs_begin_anew_with_another_process(fleet: Fleet) -> None:
    probes = [SAMPLES, {"kind": "metric", "path": "/p", "metric": "up", "min": 10}]
    target = fleet.unit("a", lambda elapsed: {"NRestarts": int(elapsed >= 11)})
    page_of(fleet, lambda elapsed: 9 if elapsed < 40 else 10)
    (health,) = fleet.wait({**target, "proofs": probes}, before=before(10))
    assert (health.healthy, health.ready_after, fleet.now) == (True, 11.0, 140.0)


def test_the_time_grows_with_what_a_service_must_read(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    (tmp_path / "wal" / "checkpoint").mkdir(parents=True)
    for name in ("0001", "checkpoint/0000"):
        with open(tmp_path / "wal" / name, "wb") as segment:
            segment.truncate(250_000_000)
    (tmp_path / "wal" / "loop").symlink_to(tmp_path / "wal")
    target = {
        **fleet.unit("a", starting(80)),
        "deadline_grows": {"path": str(tmp_path / "wal"), "seconds_per_gb": 60},
    }
    assert _health.grown_by(target) == 30
    (health,) = fleet.wait(target)
    assert (health.healthy, health.ready_after) == (True, 80.0)
    assert _health.grown_by({**target, "deadline_grows": {"path": "/nowhere", "seconds_per_gb": 60}}) == 0
    assert _health.longest([target], [30.0], timeout=60, window=10) == 100
    assert _health.longest([{**target, "proofs": [SAMPLES]}], [30.0], timeout=60, window=10) == 190


@pytest.mark.parametrize("peer", ["silence", "drip of a header", "drip of chunks"])
def test_a_service_that_drips_takes_no_longer_than_it_may(
    fleet: Fleet, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_health, "_FIRST_LOOK", 1.0)
    with listening(PEERS[peer]) as port:
        target = {**fleet.unit("a"), "url": f"http://127.0.0.1:{port}"}
        target["probes"] = [{"kind": "http", "path": f"/{number}"} for number in range(20)]
        began = time.monotonic()
        (health,) = _health.wait(fleet.systemd, [target], timeout=1, window=0)
    assert time.monotonic() - began < 1 + 2
    assert not health.healthy
    assert "/0 didn't answer (timed out" in health.reason


def test_a_list_that_a_service_makes_long_is_not_asked_for_without_end(fleet: Fleet, web: Web) -> None:
    web.answers["/list"] = Answer(json.dumps({"items": [{"name": number} for number in range(100_000)]}).encode())
    probe = {"kind": "json_each", "path": "/list", "items": "items", "each": "/{name}", "json": {"ok": True}}
    began = time.monotonic()
    (health,) = _health.wait(fleet.systemd, [{**fleet.unit("a"), "probes": [probe]}], timeout=0, window=0)
    assert time.monotonic() - began < 5 + 5
    assert not health.healthy


def test_a_service_makes_nobody_wait_longer_than_an_hour_for_its_files(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.truncate(1 << 42)
    assert _health.grown_by({"deadline_grows": {"path": str(tmp_path), "seconds_per_gb": 60}}) == 3600
