# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are cut off at their worst moments, and the same command once more."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import CHECKOUT, Run, Server, play

Versions = dict[str, list[str]]
ALL_AT_ONCE = ["100%"]
_GO_AWAY = "systemd-run --quiet sh -c 'sleep 1; systemctl stop ssh; pkill -KILL sshd; sleep 25; systemctl start ssh'"


# Each begins where the one before it ended. 1.99.12 is a stand-in with which all is well.
@pytest.mark.parametrize(
    ("state", "older", "newer"),
    [("staged", 0, 1), ("activated", 1, 2), ("verifying", 2, "1.99.12")],
    ids=["staged", "activated", "verifying"],
)
def test_a_controller_that_dies_leaves_what_the_next_run_finishes(
    servers: dict[str, Server], versions: Versions, state: str, older: int, newer: int | str
) -> None:
    before = versions["node_exporter"][older]
    after = newer if isinstance(newer, str) else versions["node_exporter"][newer]
    wish = {"node_exporter": after}
    with Run("upgrade", upgrade_versions=wish, upgrade_waves=ALL_AT_ONCE) as run:
        servers["host1"].await_state("node_exporter", state)
        run.kill()
    assert servers["host1"].state()["upgrade"]["state"] != "COMPLETED"
    if state == "staged":
        assert servers["host1"].is_healthy("node_exporter", before)
    play("upgrade", upgrade_versions=wish, upgrade_waves=ALL_AT_ONCE)
    for server in servers.values():
        assert server.is_healthy("node_exporter", after)
        assert server.state()["upgrade"]["state"] == "COMPLETED"
        assert server.component("node_exporter")["inventory"]["previous_version"] == before
        assert server.is_at_rest()
    assert play("upgrade", upgrade_versions=wish).changed == 0


def test_a_power_cut_between_the_swap_and_the_proof_is_undone_by_the_host_and_made_up_for_by_the_next_run(
    servers: dict[str, Server], versions: Versions
) -> None:
    server, (before, after) = servers["host1"], versions["alertmanager"][:2]
    wish = {"alertmanager": after}
    with Run("upgrade", "-l", "host1", upgrade_versions=wish) as run:
        server.await_state("alertmanager", "verifying")
        run.stop()
        subprocess.run([sys.executable, CHECKOUT / "tests/lab/lab.py", "restart", "host1"], check=True)
        run.kill()
    server.await_state("alertmanager", "rolled_back")
    assert server.is_healthy("alertmanager", before)
    assert server.on_disk("amtool") == before
    assert "rebooted" in server.component("alertmanager")["last_error"]
    assert server.is_at_rest()
    play("upgrade", "-l", "host1", upgrade_versions=wish)
    assert server.is_healthy("alertmanager", after)
    assert server.on_disk("amtool") == after
    assert server.component("alertmanager")["state"] == "success"
    assert server.is_at_rest()


def test_a_run_beside_a_live_one_is_refused_by_name_and_harms_nothing(
    servers: dict[str, Server], versions: Versions
) -> None:
    server, after = servers["host1"], versions["alertmanager"][2]
    wish = {"alertmanager": after}
    with Run("upgrade", "-l", "host1", upgrade_versions=wish) as first:
        server.await_state("alertmanager", "verifying")
        upgrade = server.state()["upgrade"]["upgrade_id"]
        first.stop()
        second = play("upgrade", "-l", "host1", code=2, upgrade_versions=wish)
        first.go_on()
        assert first.end().code == 0
    assert upgrade in second.output
    assert server.is_healthy("alertmanager", after)
    assert server.state()["upgrade"]["upgrade_id"] == upgrade
    assert server.is_at_rest()


def test_a_bad_release_that_was_cut_off_is_left_behind_by_wishing_for_a_good_one(
    servers: dict[str, Server], versions: Versions
) -> None:
    server = servers["host2"]
    play("rollback", "-l", "host2", upgrade_rollback_to="previous")
    before = versions["node_exporter"][2]
    assert server.is_healthy("node_exporter", before)
    with Run("upgrade", "-l", "host2", upgrade_versions={"node_exporter": "1.99.2"}) as run:
        server.await_state("node_exporter", "verifying")
        run.kill()
    assert server.on_disk("node_exporter") == "1.99.2"
    play("upgrade", "-l", "host2", upgrade_versions={"node_exporter": "1.99.12"})
    assert server.is_healthy("node_exporter", "1.99.12")
    assert server.component("node_exporter")["inventory"]["previous_version"] == before
    play("rollback", "-l", "host2", upgrade_rollback_to="previous")
    assert server.is_healthy("node_exporter", before)


def test_a_host_that_is_lost_stops_what_comes_after_it_and_is_finished_by_the_next_run(
    servers: dict[str, Server], versions: Versions
) -> None:
    play("rollback", "-l", "host1,host3", upgrade_rollback_to="previous", upgrade_only=["node_exporter"])
    before, after = versions["node_exporter"][2], "1.99.12"
    prometheus = versions["prometheus"][:2]
    wish = {"node_exporter": after, "prometheus": prometheus[1]}
    with Run("upgrade", upgrade_versions=wish, upgrade_waves=[2, "100%"]) as run:
        servers["host2"].await_state("node_exporter", "verifying", then=_GO_AWAY)
        played = run.end()
    assert played.code != 0
    assert "host2 cannot be reached any more. Run the same command again" in " ".join(played.output.split())
    assert "Not begun, because the run stopped before: host3." in played.output
    assert servers["host1"].is_healthy("node_exporter", after)
    assert servers["host1"].is_healthy("prometheus", prometheus[0])
    assert servers["host3"].is_healthy("node_exporter", before)
    assert servers["host2"].component("node_exporter")["state"] == "verifying"
    play("upgrade", upgrade_versions=wish, upgrade_waves=ALL_AT_ONCE)
    for server in servers.values():
        assert server.is_healthy("node_exporter", after)
        assert server.is_at_rest()
