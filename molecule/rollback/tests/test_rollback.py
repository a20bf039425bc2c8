# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Going back: because the operator says so, and because a release turned out to be bad in one way or another."""

from __future__ import annotations

import typing as t

import pytest
from conftest import STATE_DIR, Played, Run, Server, play

Versions = dict[str, list[str]]

IMPATIENT = {"node_exporter": {"probe_timeout": 20}}
REFUSED = "aborted"
UNDONE = "rolled_back"

# In one wave, each host gets a release that is bad in another way: the version, how it ends, what the operator reads.
ROUNDS: list[dict[str, tuple[str, str, list[str]]]] = [
    {
        "host1": ("1.99.1", UNDONE, ["crash loop", "this release can't start"]),
        "host2": ("1.99.2", UNDONE, ["not steady", "refused"]),
        "host3": ("1.99.3", UNDONE, ["not steady", "lost its will to live"]),
    },
    {
        "host1": ("1.99.4", REFUSED, ["1.98.0"]),
        "host2": ("1.99.13", UNDONE, ["build_info", "1.5.0", "1.99.13"]),
        "host3": ("1.99.11", REFUSED, ["linux-", "/node_exporter"]),
    },
    {
        "host1": ("1.99.5", REFUSED, ["sha256"]),
        "host2": ("1.99.6", REFUSED, ["node_exporter-1.99.6.linux-"]),
        "host3": ("1.99.7", REFUSED, ["../../../../usr/local/bin/climbed-out"]),
    },
    {
        "host1": ("1.99.8", REFUSED, ["/usr/local/bin/absolute"]),
        "host2": ("1.99.9", REFUSED, ["link"]),
        "host3": ("1.99.10", REFUSED, ["device"]),
    },
]


def each_its_own(versions: dict[str, str]) -> str:
    """A version of node_exporter for each host, in the way that an operator writes it."""
    return f"{{{{ {versions!r}[inventory_hostname] }}}}"


def failures(played: Played) -> dict[str, str]:
    """What the run says of each host that failed."""
    lines = [line for line in played.output.splitlines() if line.startswith("fatal: [")]
    return {line.split("[")[1].split("]")[0]: line for line in lines}


def stand(server: Server) -> str:
    """The program's file, to the inode and the last change: what is never touched stays the same in all of it."""
    return server.out("stat --format='%i %Z %s' /usr/local/bin/node_exporter") + f" {server.pid('node_exporter')}"


def test_a_rollback_brings_back_what_was_there_before(servers: dict[str, Server], versions: Versions) -> None:
    for server in servers.values():
        assert server.is_healthy("node_exporter", versions["node_exporter"][0])
        assert server.component("node_exporter")["inventory"]["current_version"] == versions["node_exporter"][0]
    assert servers["host1"].is_healthy("alertmanager", versions["alertmanager"][0])
    assert servers["host1"].on_disk("amtool") == versions["alertmanager"][0]


def test_restore_points_are_listed_and_one_can_be_named(servers: dict[str, Server], versions: Versions) -> None:
    newer = versions["node_exporter"][1]
    points = servers["host2"].component("node_exporter")["inventory"]["restore_points"]
    point = next(point["id"] for point in points if point["version"] == newer)
    assert point in play("rollback", "-l", "host2").output
    play("rollback", "-l", "host2", upgrade_rollback_to=point)
    assert servers["host2"].is_healthy("node_exporter", newer)
    play("rollback", "-l", "host2", upgrade_rollback_to="previous")
    assert servers["host2"].is_healthy("node_exporter", versions["node_exporter"][0])


@pytest.mark.parametrize("bad", ROUNDS, ids=lambda bad: "+".join(version for version, *_rest in bad.values()))
def test_a_bad_release_is_undone_or_refused_on_each_host_of_the_wave(
    servers: dict[str, Server], versions: Versions, bad: dict[str, tuple[str, str, list[str]]]
) -> None:
    before = {host: stand(server) for host, server in servers.items()}
    wish = each_its_own({host: version for host, (version, *_rest) in bad.items()})
    played = play(
        "upgrade",
        code=2,
        upgrade_versions={"node_exporter": wish},
        upgrade_overrides=IMPATIENT,
        upgrade_waves=["100%"],
    )
    told = failures(played)
    assert sorted(told) == sorted(bad)
    for host, (version, outcome, says) in bad.items():
        server, record = servers[host], servers[host].component("node_exporter")
        assert [word for word in ["node_exporter", version, *says] if word not in told[host]] == []
        assert server.is_healthy("node_exporter", versions["node_exporter"][0])
        assert (record["to_version"], record["outcome"]) == (version, outcome)
        assert record["last_error"]
        assert (stand(server) == before[host]) == (outcome == REFUSED)
        assert server.out(f"ls {STATE_DIR}/staging") == ""
        assert server.out("ls /usr/local/bin") == servers["host2"].out("ls /usr/local/bin") or host == "host1"


def test_neighbours_finish_and_later_waves_do_not_start(servers: dict[str, Server], versions: Versions) -> None:
    older, newer = versions["node_exporter"][:2]
    before = servers["host3"].snapshot()
    wish = each_its_own({"host1": "1.99.1", "host2": newer, "host3": newer})
    played = play("upgrade", code=2, upgrade_versions={"node_exporter": wish}, upgrade_waves=[2, "100%"])
    assert list(failures(played)) == ["host1"]
    assert servers["host1"].is_healthy("node_exporter", older)
    assert servers["host2"].is_healthy("node_exporter", newer)
    assert servers["host2"].state()["upgrade"]["state"] == "COMPLETED"
    assert servers["host3"].snapshot() == before


def test_a_failed_step_ends_the_hosts_run(servers: dict[str, Server], versions: Versions) -> None:
    wish: dict[str, t.Any] = {"node_exporter": "1.99.1", "alertmanager": versions["alertmanager"][1]}
    play("upgrade", "-l", "host1", code=2, upgrade_versions=wish)
    assert servers["host1"].is_healthy("alertmanager", versions["alertmanager"][0])


def test_a_run_that_is_told_to_go_on_leaves_out_what_builds_on_a_failed_step(
    servers: dict[str, Server], versions: Versions
) -> None:
    server, older = servers["host1"], versions["node_exporter"][0]
    play(
        "upgrade",
        "-l",
        "host1",
        code=2,
        upgrade_versions={"node_exporter": "1.99.12"},
        upgrade_overrides={"node_exporter": {"stages": ["1.99.1"]}},
        upgrade_on_failure="continue",
    )
    assert server.is_healthy("node_exporter", older)
    upgrade = server.state()["upgrade"]
    assert upgrade["steps"] == {"node_exporter@1.99.1": "rolled_back", "node_exporter@1.99.12": "pending"}
    assert upgrade["state"] == "ROLLED_BACK"


def test_a_server_that_dies_at_start_comes_back_with_its_tools(servers: dict[str, Server], versions: Versions) -> None:
    older, stage = versions["prometheus"][:2]
    server = servers["host1"]
    assert server.is_healthy("prometheus", older)
    accept = ["prometheus.config_refused"]  # its promtool is as bad, and would end it earlier
    played = play("upgrade", "-l", "host1", code=2, upgrade_versions={"prometheus": "3.99.1"}, upgrade_accept=accept)
    assert "this release can't start" in failures(played)["host1"]
    assert server.is_healthy("prometheus", stage)
    assert server.on_disk("promtool") == stage
    upgrade = server.state()["upgrade"]
    assert upgrade["steps"] == {f"prometheus@{stage}": "succeeded", "prometheus@3.99.1": "rolled_back"}


@pytest.mark.parametrize(("host", "record"), [("host2", "writable"), ("host3", "not writable")])
def test_what_cannot_be_undone_is_told_with_the_reason(servers: dict[str, Server], host: str, record: str) -> None:
    server = servers[host]
    wish = {"upgrade_versions": {"node_exporter": "1.99.2"}, "upgrade_overrides": IMPATIENT}
    spoil = f"mv {STATE_DIR}/backups {STATE_DIR}/kept && mkdir --mode=700 {STATE_DIR}/backups"
    if record == "not writable":
        spoil += f" && mount --bind {STATE_DIR} {STATE_DIR} && mount -o remount,ro,bind {STATE_DIR}"
    with Run("upgrade", "-l", host, **wish) as run:
        server.await_state("node_exporter", "verifying", then=spoil)
        played = run.end()
    server.out(f"umount {STATE_DIR} || true; rmdir {STATE_DIR}/backups; mv {STATE_DIR}/kept {STATE_DIR}/backups")
    assert played.code == 2
    told = failures(played)[host]
    assert "It could not be undone:" in told
    assert "This host needs a person." in told
    assert ("nor could that be recorded:" in told) == (record == "not writable")
    if record == "writable":
        assert server.component("node_exporter")["outcome"] == "failed"
