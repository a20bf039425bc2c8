# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host does by itself when no run can, and what it bears. These run after test_resume.py, on the same hosts."""

from __future__ import annotations

import concurrent.futures
import typing as t

import pytest
from conftest import STATE_DIR, Run, Server, play

Versions = dict[str, list[str]]
GOOD = "1.99.12"
ALL_AT_ONCE = ["100%"]
HURRIED = {"node_exporter": {"probe_timeout": 5, "probe_window": 8}}
SILENT = 20
"""Seconds for which a host drops all packets to the controller."""

_RUNS_GOOD = f"/usr/local/bin/node_exporter --version 2>&1 | grep 'version {GOOD}'"
_FALL_SILENT = f"""route="$(ip -4 route show default | cut -d ' ' -f 3)"
systemd-run --quiet sh -c "sleep 1; ip route add blackhole $route && sleep {SILENT}; ip route del blackhole $route"
"""


@pytest.fixture(scope="module", autouse=True)
def before(servers: dict[str, Server], versions: Versions) -> str:
    """The version that all hosts have again."""
    play("rollback", upgrade_rollback_to="previous", upgrade_only=["node_exporter"], upgrade_waves=ALL_AT_ONCE)
    version = versions["node_exporter"][2]
    for server in servers.values():
        assert server.is_healthy("node_exporter", version)
    return version


@pytest.fixture(scope="module", autouse=True)
def left_in_vain(servers: dict[str, Server], before: str) -> None:
    """A run that dies after it has put a release in place that can't start. The last test looks what became of it."""
    wish: dict[str, t.Any] = {"upgrade_versions": {"node_exporter": "1.99.1"}, "upgrade_overrides": HURRIED}
    with Run("upgrade", "-l", "host3", **wish) as run:
        servers["host3"].await_state("node_exporter", "verifying")
        run.kill()


def is_undone(server: Server, reason: str, before: str) -> None:
    """Wait until a host has brought its old version back by itself."""
    server.await_state("node_exporter", "rolled_back")
    record = server.component("node_exporter")
    assert reason in record["last_error"]
    assert "The host has undone it by itself" in record["last_error"]
    assert server.state()["upgrade"]["state"] == "ROLLED_BACK"
    assert server.is_healthy("node_exporter", before)
    assert server.is_at_rest()


def test_what_nobody_confirms_is_undone_by_the_hosts_alone(servers: dict[str, Server], before: str) -> None:
    """One whose controller died, and one that can't be reached either."""
    wish: dict[str, t.Any] = {"upgrade_versions": {"node_exporter": GOOD}, "upgrade_overrides": HURRIED}
    hosts = [(servers["host1"], _RUNS_GOOD), (servers["host2"], _FALL_SILENT)]
    with Run("upgrade", "-l", "host1,host2", upgrade_waves=ALL_AT_ONCE, upgrade_confirm_within=20, **wish) as run:
        with concurrent.futures.ThreadPoolExecutor() as pool:  # one after the other, the second could be missed
            waits = [pool.submit(server.await_state, "node_exporter", "verifying", then=then) for server, then in hosts]
            for wait in waits:
                wait.result()
        run.kill()
    for server, _then in hosts:
        is_undone(server, "nobody has confirmed it within 20 s", before)


def test_a_run_that_was_undone_by_the_host_is_told_so(servers: dict[str, Server], before: str) -> None:
    """A run that was only held up, not dead: it comes back to a host that has gone on without it."""
    server = servers["host1"]
    wish = {"upgrade_versions": {"node_exporter": "1.99.13"}, "upgrade_confirm_within": 3}
    with Run("upgrade", "-l", "host1", **wish) as run:
        server.await_state("node_exporter", "activated")
        run.stop()
        server.await_state("node_exporter", "rolled_back")
        run.go_on()
        played = run.end()
    assert played.code == 2
    assert "undone by the host itself" in played.output
    assert server.is_healthy("node_exporter", before)
    assert server.is_at_rest()


def test_a_module_that_is_killed_is_a_failed_step(servers: dict[str, Server], before: str) -> None:
    server = servers["host2"]
    with Run("upgrade", "-l", "host2", upgrade_versions={"node_exporter": GOOD}) as run:
        server.await_state("node_exporter", "verifying", then="pkill -KILL -x python3")
        played = run.end()
    assert played.code == 2
    assert f"{before} is back in place, and proven healthy" in played.output
    assert server.component("node_exporter")["outcome"] == "rolled_back"
    assert server.is_healthy("node_exporter", before)
    assert server.is_at_rest()


def test_a_full_disk_is_told_before_anything_is_touched(servers: dict[str, Server], before: str) -> None:
    server = servers["host2"]
    pid = server.pid("node_exporter")
    server.out(f"mount -t tmpfs -o size=400k,mode=700 tmpfs {STATE_DIR}")
    played = play("upgrade", "-l", "host2", code=2, upgrade_versions={"node_exporter": GOOD})
    server.out(f"umount {STATE_DIR}")
    told = " ".join(played.output.split())
    assert f"the file system at {STATE_DIR} has" in told
    assert "are needed" in told
    assert (server.on_disk("node_exporter"), server.pid("node_exporter")) == (before, pid)
    play("upgrade", "-l", "host2", upgrade_versions={"node_exporter": GOOD})
    assert server.is_healthy("node_exporter", GOOD)
    assert server.is_at_rest()


def test_a_run_waits_for_the_module_that_a_dead_one_left_behind(servers: dict[str, Server]) -> None:
    """The module is in the middle of a stop that takes its time; the next run begins meanwhile."""
    server = servers["host1"]
    server.out("mkdir -p /run/systemd/system/node_exporter.service.d")
    server.out("printf '[Service]\\nExecStop=/bin/sleep 10\\n' >/run/systemd/system/node_exporter.service.d/slow.conf")
    server.out("systemctl daemon-reload")
    wish = {"upgrade_versions": {"node_exporter": GOOD}}
    with Run("upgrade", "-l", "host1", **wish) as run:
        server.out(
            "timeout 300 sh -c 'until systemctl is-active node_exporter | grep -q deactivating; do sleep 0.05; done'"
        )
        run.kill()
    assert server.out("systemctl is-active node_exporter || true") == "deactivating"
    play("upgrade", "-l", "host1", **wish)
    assert server.is_healthy("node_exporter", GOOD)
    assert server.component("node_exporter")["attempts"] == 2
    assert server.is_at_rest()
    assert play("upgrade", "-l", "host1", **wish).changed == 0


def test_a_service_that_starts_in_vain_is_undone_by_its_host(servers: dict[str, Server], before: str) -> None:
    is_undone(servers["host3"], "times, and nobody has confirmed it", before)
