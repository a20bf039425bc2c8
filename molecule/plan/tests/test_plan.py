# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known before an upgrade: what there is, a plan that was saved, one that was approved, when it may be done."""

from __future__ import annotations

import http.server
import json
import pathlib
import threading
import typing as t

import pytest
from conftest import Answering, Run, Server, play

Versions = dict[str, list[str]]


def saved(tmp_path: pathlib.Path, *arguments: str, **variables: object) -> pathlib.Path:
    """A plan, in the file that the playbook made of it."""
    play("plan", *arguments, upgrade_report_dir=str(tmp_path), **variables)
    (path,) = tmp_path.glob("plan-*.json")
    return path


@pytest.fixture
def newer(versions: Versions) -> dict[str, str]:
    return {"node_exporter": versions["node_exporter"][1]}


def test_check_tells_what_there_is_and_touches_nothing(
    servers: dict[str, Server], versions: Versions, tmp_path: pathlib.Path
) -> None:
    before = servers["host1"].snapshot()
    pins = {name: versions[name][-1] for name in ("node_exporter", "alertmanager", "prometheus")}
    found = {name: f"<={version}" for name, version in pins.items()}
    played = play("check", upgrade_pins=found, upgrade_report_dir=str(tmp_path))
    told = " ".join(played.output.split())
    assert f"node_exporter 3 {versions['node_exporter'][0]} {versions['node_exporter'][-1]} minor" in told
    assert f"prometheus 1 {versions['prometheus'][0]} {versions['prometheus'][-1]} major" in told
    assert played.changed == 0
    assert servers["host1"].snapshot() == before
    rows = json.loads((tmp_path / "check.json").read_text())["rows"]
    assert {(row["component"], row["available"]) for row in rows} == set(pins.items())


def test_what_check_found_is_enough_to_plan_by_without_asking_anybody(
    servers: dict[str, Server], versions: Versions, tmp_path: pathlib.Path
) -> None:
    play("check", upgrade_report_dir=str(tmp_path))
    pins = {"node_exporter": f"<={versions['node_exporter'][-1]}"}
    played = play(
        "plan",
        "-l",
        "host2",
        upgrade_versions={"node_exporter": "latest"},
        upgrade_pins=pins,
        upgrade_release_index=str(tmp_path / "check.json"),
    )
    assert f"node_exporter {versions['node_exporter'][0]} {versions['node_exporter'][-1]} host2" in " ".join(
        played.output.split()
    )


class Listing(http.server.BaseHTTPRequestHandler):
    """A mirror that lists nothing, and remembers what it was asked."""

    asked: t.ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)


def test_a_saved_plan_is_carried_out_without_asking_anybody_what_there_is(
    versions: Versions, tmp_path: pathlib.Path
) -> None:
    pins = {"node_exporter": f"<={versions['node_exporter'][-1]}"}
    wish: dict[str, t.Any] = {"upgrade_versions": {"node_exporter": "latest"}, "upgrade_pins": pins}
    plan = saved(tmp_path, "-l", "host2", **wish)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listing) as mirror:
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        wish["upgrade_release_mirror"] = f"http://127.0.0.1:{mirror.server_port}"
        played = play("plan", "-l", "host2", upgrade_plan=str(plan), **wish)
        assert Listing.asked == []
        play("plan", "-l", "host2", code=2, **wish)
        assert Listing.asked != []
        mirror.shutdown()
    assert "1 step on 1 host" in played.output


def test_a_saved_plan_is_refused_once_a_host_was_changed_by_hand(
    servers: dict[str, Server], versions: Versions, newer: dict[str, str], tmp_path: pathlib.Path
) -> None:
    plan = saved(tmp_path, upgrade_versions={"node_exporter": versions["node_exporter"][2]})
    play("tests/lab/deploy.yml", "-l", "host2", lab_deploy=newer)
    before = {name: server.snapshot() for name, server in servers.items()}
    played = play("upgrade", code=2, upgrade_plan=str(plan))
    here, was = newer["node_exporter"], versions["node_exporter"][0]
    assert f"host2: version of node_exporter is '{here}', the plan was made for '{was}'" in played.output
    assert "make a new plan, with the playbook plan" in played.output
    assert {name: server.snapshot() for name, server in servers.items()} == before


def test_a_saved_plan_that_was_edited_is_refused(
    servers: dict[str, Server], newer: dict[str, str], tmp_path: pathlib.Path
) -> None:
    plan = saved(tmp_path, "-l", "host1", upgrade_versions=newer)
    plan.write_text(plan.read_text().replace('"probe_timeout": 60', '"probe_timeout": 61'))
    played = play("upgrade", "-l", "host1", code=2, upgrade_plan=str(plan))
    assert "isn't what was saved" in played.output


def test_outside_its_window_a_host_is_left_alone_which_is_no_failure(
    servers: dict[str, Server], newer: dict[str, str]
) -> None:
    before = servers["host1"].snapshot()
    hour = int(servers["host1"].out("date -u +%H"))
    window = {"start": f"{(hour + 2) % 24:02}:00", "end": f"{(hour + 3) % 24:02}:00"}
    played = play("upgrade", "-l", "host1", upgrade_versions=newer, upgrade_windows=[window])
    assert "host.outside_window" in played.output
    assert played.recap["host1"]["failed"] == 0
    assert servers["host1"].snapshot() == before
    planned = play("plan", "-l", "host1", upgrade_versions=newer, upgrade_windows=[window])
    assert "1 step on 1 host" in planned.output


def test_a_window_that_closes_meanwhile_leaves_the_rest_for_the_next_run(
    servers: dict[str, Server], versions: Versions
) -> None:
    """It closes while the operator is asked: nothing is begun, and that is no failure."""
    server, wanted = servers["host2"], {"node_exporter": versions["node_exporter"][2]}
    before = server.snapshot()
    # A window ends with a minute. Before that the plan is made, which gets more than one.
    moment = int(server.out("date -d '2 minutes' +%s")) // 60 * 60
    end = server.out(f"date -u -d @{moment} +%H:%M")
    window = {"start": server.out("date -u -d '-2 hours' +%H:%M"), "end": end}
    arguments = {"upgrade_versions": wanted, "upgrade_windows": [window], "upgrade_mode": "safe", "upgrade_pause": 0}

    def closed() -> str:
        server.out(f"until [ $(date +%s) -ge {moment} ]; do sleep 0.2; done")
        return "yes"

    with Answering("upgrade", "-l", "host2", answers=[closed], **arguments) as run:
        played = run.end()
    assert played.code == 0, played.output
    assert "The maintenance window has closed on host2 meanwhile" in played.output
    assert server.snapshot() == before


def test_where_nobody_can_answer_the_mode_safe_wants_the_plan_s_digest(
    servers: dict[str, Server], newer: dict[str, str], tmp_path: pathlib.Path
) -> None:
    before = servers["host3"].snapshot()
    wish = {"upgrade_versions": newer, "upgrade_mode": "safe", "upgrade_pause": 1}
    digest = json.loads(saved(tmp_path, "-l", "host3", upgrade_versions=newer).read_text())["digest"]
    refused = play("upgrade", "-l", "host3", code=2, **wish)
    assert f"say upgrade_approved={digest}" in refused.output
    other = play("upgrade", "-l", "host3", code=2, upgrade_approved=digest[:12], **wish)
    assert f"with its whole digest, upgrade_approved={digest}" in other.output
    assert servers["host3"].snapshot() == before
    done = play("upgrade", "-l", "host3", upgrade_approved=digest, **wish)
    assert servers["host3"].is_healthy("node_exporter", newer["node_exporter"])
    assert f"node_exporter_version: {newer['node_exporter']}" in done.output


def test_a_no_ends_the_run_in_good_order(servers: dict[str, Server], versions: Versions) -> None:
    wanted = {name: versions[name][1] for name in ("node_exporter", "alertmanager")}
    arguments = {"upgrade_versions": wanted, "upgrade_mode": "safe", "upgrade_pause": 0}
    with Answering("upgrade", "-l", "host1", answers=["yes", "yes", "no"], **arguments) as run:
        played = run.end()
    assert played.code == 2, played.output
    assert "nobody said yes to alertmanager@" in played.output
    server = servers["host1"]
    assert server.is_healthy("node_exporter", wanted["node_exporter"])
    assert server.is_healthy("alertmanager", versions["alertmanager"][0])
    assert server.is_at_rest()


def test_a_saved_plan_that_was_cut_off_is_ended_by_the_same_command(
    servers: dict[str, Server], versions: Versions, tmp_path: pathlib.Path
) -> None:
    server, wanted = servers["host1"], {name: versions[name][1] for name in ("alertmanager", "prometheus")}
    plan = saved(tmp_path, "-l", "host1", upgrade_versions=wanted)
    with Run("upgrade", "-l", "host1", upgrade_plan=str(plan)) as run:
        server.await_state("prometheus", "activated")
        run.kill()
    play("upgrade", "-l", "host1", upgrade_plan=str(plan))
    assert all(server.is_healthy(name, version) for name, version in wanted.items())
    assert server.is_at_rest()
    before = server.snapshot()
    again = play("upgrade", "-l", "host1", upgrade_plan=str(plan))
    assert again.changed == 0
    assert server.snapshot() == before
