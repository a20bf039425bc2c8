# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways in which upgrades of such stacks fail: each is caught at the earliest gate that can know of it, is called by
its name, and leaves the old version serving.

Where a gate before the line catches it, the service isn't touched at all: it is the same process of the same file.
"""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from conftest import STATE_DIR, Data, Played, Run, Server, play

Versions = dict[str, list[str]]

IMPATIENT = {"node_exporter": {"probe_timeout": 12, "probe_window": 5}}
UNIT = "/etc/systemd/system/{}.service"
REPLACE = "cd /usr/local/bin && cp node_exporter .other && mv .other node_exporter"

LOOPS = "1.99.15"  # a crash loop that looks active whenever one looks
LACKS_A_FLAG = "1.99.17"  # it doesn't know --collector.textfile.directory, which the unit sets
QUIET = "1.99.14"  # a tenth of the metrics, and all else is well


def stand(server: Server, name: str) -> str:
    """The program's file, to the inode and the last change, and the process that runs it: what was never touched, and
    never stopped serving, stays the same in all of it."""
    restarts = server.out("systemctl show --property=NRestarts --value %s", name)
    return f"{server.out('stat --format=%s /usr/local/bin/%s', '%i %Z %s', name)} {server.pid(name)} {restarts}"


def told(played: Played, host: str) -> str:
    """What the run says of a host that failed."""
    lines = [line for line in played.output.splitlines() if line.startswith(f"fatal: [{host}]")]
    assert lines, played.output
    return "\n".join(lines)


def record(server: Server, name: str) -> Data:
    return server.component(name)


def is_at_rest(server: Server) -> bool:
    """Whether nothing is under way. What the plan refuses never gets to the host, which keeps no record then."""
    return server.out(f"test -e {STATE_DIR}/upgrade.lock || echo none") == "none" or server.is_at_rest()


@contextlib.contextmanager
def changed(server: Server, name: str, path: str, old: str, new: str) -> t.Iterator[None]:
    """A service whose file says something else, and which has been restarted with that."""
    server.out("cp --preserve %s /root/kept", path)
    server.out("sed -i %s %s", f"s|{old}|{new}|", path)
    server.out("systemctl daemon-reload && systemctl restart %s", name)
    try:
        yield
    finally:
        server.out("cp --preserve /root/kept %s", path)
        server.out("systemctl daemon-reload && systemctl restart %s", name)


def refused(server: Server, name: str, **variables: t.Any) -> Played:
    """A run that must fail, and leave the service untouched."""
    before = stand(server, name)
    played = play("upgrade", "-l", server.name, code=2, **variables)
    assert stand(server, name) == before
    assert is_at_rest(server)
    return played


def on_disk_by_hand(server: Server, version: str, inventory: Data) -> None:
    """Put a version of node_exporter on disk as other tools do, without a restart."""
    architecture, mirror = inventory["vars"]["lab_architecture"], inventory["vars"]["upgrade_release_mirror"]
    top = f"node_exporter-{version}.linux-{architecture}"
    url = f"{mirror}/prometheus/node_exporter/releases/download/v{version}/{top}.tar.gz"
    server.out("python3 -c %s %s %s", _FETCH, url, f"{top}/node_exporter")
    server.out("install --mode=755 /root/by-hand /usr/local/bin/.by-hand")
    server.out("mv /usr/local/bin/.by-hand /usr/local/bin/node_exporter")


_FETCH = """
import io, shutil, sys, tarfile, urllib.request
archive = tarfile.open(fileobj=io.BytesIO(urllib.request.urlopen(sys.argv[1]).read()))
shutil.copyfileobj(archive.extractfile(sys.argv[2]), open("/root/by-hand", "wb"))
"""


# -- removed flags ----------------------------------------------------------------------------------------------------


def test_a_flag_that_is_known_to_be_gone_is_refused_by_the_plan(servers: dict[str, Server], versions: Versions) -> None:
    server, wish = servers["host1"], {"prometheus": versions["prometheus"][2]}
    with changed(
        server, "prometheus", UNIT.format("prometheus"), "--storage.tsdb.retention.time", "--storage.tsdb.retention"
    ):
        played = refused(server, "prometheus", upgrade_versions=wish)
    assert "prometheus.removed.storage.tsdb.retention" in played.output
    assert "--storage.tsdb.retention.time" in played.output


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["for real", "in check mode"])
def test_a_flag_that_nobody_knew_to_be_gone_is_refused_by_the_candidate(
    servers: dict[str, Server], arguments: list[str]
) -> None:
    server = servers["host2"]
    before = stand(server, "node_exporter")
    played = play("upgrade", "-l", "host2", *arguments, code=2, upgrade_versions={"node_exporter": LACKS_A_FLAG})
    said = told(played, "host2")
    assert "node_exporter.flag_removed.collector.textfile.directory" in said
    assert LACKS_A_FLAG in said
    assert stand(server, "node_exporter") == before
    assert is_at_rest(server)
    if not arguments:
        assert record(server, "node_exporter")["outcome"] == "aborted"


# -- configuration that the new version refuses -----------------------------------------------------------------------


def test_a_setting_that_is_known_to_be_gone_is_refused_by_the_plan(
    servers: dict[str, Server], versions: Versions
) -> None:
    server, wish = servers["host1"], {"prometheus": versions["prometheus"][2]}
    config = "/etc/prometheus/prometheus.yml"
    with changed(server, "prometheus", config, "alertmanagers:", "alertmanagers:\\n    - api_version: v1"):
        played = refused(server, "prometheus", upgrade_versions=wish)
    assert "prometheus.removed.api_version: v1" in played.output


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["for real", "in check mode"])
def test_a_rule_that_the_new_version_refuses_is_found_by_its_own_promtool(
    servers: dict[str, Server], versions: Versions, arguments: list[str]
) -> None:
    server, newer = servers["host1"], versions["prometheus"][2]
    rules = "/etc/prometheus/rules/watchdog.yml"
    with changed(server, "prometheus", rules, "vector(1)", "holt_winters(node_load1[5m], 0.5, 0.5)"):
        before = stand(server, "prometheus")
        played = play("upgrade", "-l", "host1", *arguments, code=2, upgrade_versions={"prometheus": newer})
        assert stand(server, "prometheus") == before
        assert is_at_rest(server)
    said = told(played, "host1")
    assert "prometheus.config_refused" in said
    assert "holt_winters" in said


# -- new versions that start, and do not do their work ----------------------------------------------------------------


def test_what_rehearses_badly_never_takes_the_place_of_what_works(servers: dict[str, Server]) -> None:
    """The crash loop behind C(active), and metrics that are silently fewer: known before the line."""
    bad = {"host2": LOOPS, "host3": QUIET}
    before = {host: stand(servers[host], "node_exporter") for host in bad}
    wish = {"node_exporter": f"{{{{ {bad!r}[inventory_hostname] }}}}"}
    played = play(
        "upgrade", "-l", "host2,host3", code=2, upgrade_versions=wish, upgrade_rehearse=True, upgrade_waves=["100%"]
    )
    for host, version in bad.items():
        assert "node_exporter.rehearsal" in told(played, host)
        assert version in told(played, host)
        assert stand(servers[host], "node_exporter") == before[host]
        assert record(servers[host], "node_exporter")["outcome"] == "aborted"
        assert is_at_rest(servers[host])


def test_without_a_rehearsal_they_are_undone(servers: dict[str, Server], versions: Versions) -> None:
    bad = {"host2": LOOPS, "host3": QUIET}
    wish = {"node_exporter": f"{{{{ {bad!r}[inventory_hostname] }}}}"}
    played = play(
        "upgrade",
        "-l",
        "host2,host3",
        code=2,
        upgrade_versions=wish,
        upgrade_overrides=IMPATIENT,
        upgrade_waves=["100%"],
    )
    assert "crash loop" in told(played, "host2")
    assert "samples" in told(played, "host3")
    for host in bad:
        assert servers[host].is_healthy("node_exporter", versions["node_exporter"][0])
        assert record(servers[host], "node_exporter")["outcome"] == "rolled_back"
        assert is_at_rest(servers[host])


# -- restarts ---------------------------------------------------------------------------------------------------------


def test_a_lost_restart_is_made_up_for_and_proven(
    servers: dict[str, Server], versions: Versions, inventory: Data
) -> None:
    """Other tools put the new version on disk, and fail before they restart the service. To them all is well then."""
    server, (older, newer) = servers["host2"], versions["node_exporter"][:2]
    on_disk_by_hand(server, newer, inventory)
    assert (server.on_disk("node_exporter"), server.serves("node_exporter")) == (newer, older)
    played = play("upgrade", "-l", "host2", upgrade_versions={"node_exporter": newer})
    assert "node_exporter.restart_pending" in played.output
    assert server.is_healthy("node_exporter", newer)
    assert record(server, "node_exporter")["outcome"] == "succeeded"
    play("rollback", "-l", "host2", upgrade_rollback_to="previous")
    assert server.is_healthy("node_exporter", older)


def test_a_program_that_is_replaced_under_its_process_is_not_taken_for_the_new_version(
    servers: dict[str, Server], versions: Versions
) -> None:
    """Another tool puts its own file there while the new version is being proven: what runs is deleted by then."""
    server, (older, newer) = servers["host3"], versions["node_exporter"][:2]
    with Run("upgrade", "-l", "host3", upgrade_versions={"node_exporter": newer}, upgrade_overrides=IMPATIENT) as run:
        server.await_state("node_exporter", "verifying", then=REPLACE)
        played = run.end()
    assert played.code == 2
    assert "runs /usr/local/bin/node_exporter (deleted)" in told(played, "host3")
    assert server.is_healthy("node_exporter", older)
    assert record(server, "node_exporter")["outcome"] == "rolled_back"


def test_a_deleted_program_that_still_runs_is_told_by_verify_and_repaired(
    servers: dict[str, Server], versions: Versions
) -> None:
    server, older = servers["host3"], versions["node_exporter"][0]
    server.out(REPLACE)
    before = server.pid("node_exporter")
    assert "runs /usr/local/bin/node_exporter (deleted)" in play("verify", "-l", "host3", code=2).output
    play("upgrade", "-l", "host3", upgrade_versions={"node_exporter": older})
    assert server.pid("node_exporter") != before
    assert server.is_healthy("node_exporter", older)
    play("verify", "-l", "host3")


# -- the port ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def squatter(servers: dict[str, Server]) -> t.Iterator[str]:
    """A host where another process has got hold of node_exporter's port."""
    server = servers["host2"]
    server.out("systemctl stop node_exporter")
    server.out("systemd-run --quiet --collect --unit=squatter python3 -m http.server 9100")
    server.out("timeout 30 sh -c 'until ss -Hltn sport = :9100 | grep -q .; do sleep 0.1; done'")
    server.out("systemctl start node_exporter")
    try:
        yield "host2"
    finally:
        server.out("systemctl stop squatter; systemctl restart node_exporter")


def test_a_port_that_another_process_has_is_seen_before_anything_is_touched(
    servers: dict[str, Server], versions: Versions, squatter: str
) -> None:
    server, (older, newer) = servers[squatter], versions["node_exporter"][:2]
    file = server.out("stat --format='%i %Z %s' /usr/local/bin/node_exporter")
    played = play("upgrade", "-l", squatter, code=2, upgrade_versions={"node_exporter": newer})
    assert "node_exporter.port_taken" in played.output
    assert "python3" in played.output
    assert server.out("stat --format='%i %Z %s' /usr/local/bin/node_exporter") == file
    server.out("systemctl stop squatter")
    server.out("timeout 30 sh -c 'until ss -Hltnp sport = :9100 | grep -q node_exporter; do sleep 0.1; done'")
    assert server.is_healthy("node_exporter", older)


def test_a_port_that_is_lost_in_the_restart_is_named_and_the_old_version_comes_back(
    servers: dict[str, Server], versions: Versions
) -> None:
    server, older = servers["host3"], versions["node_exporter"][0]
    played = play(
        "upgrade",
        "-l",
        "host3",
        code=2,
        upgrade_versions={"node_exporter": "1.99.16"},  # another process has just taken its port
        upgrade_overrides=IMPATIENT,
    )
    assert "address already in use" in told(played, "host3").lower()
    assert server.is_healthy("node_exporter", older)
    assert record(server, "node_exporter")["outcome"] == "rolled_back"
