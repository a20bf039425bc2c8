# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several instances of a component on one host: units that run the same file, and units with files of their own."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from conftest import Run, Server, play

Versions = dict[str, list[str]]

USUAL, OTHER = "/usr/local/bin/node_exporter", "/opt/ops/node_exporter"
UNIT = """[Service]
User=node-exp
ExecStart={program} --web.listen-address=:9101 {flags}
Restart=always
RestartSec=1
"""
FLAG = "--collector.textfile.directory=/var/lib/node_exporter"
HURRIED = {"node_exporter": {"probe_timeout": 15, "probe_window": 5}}
SILENT = "1.99.2"  # it runs, and never listens
LACKS_THE_FLAG = "1.99.17"
KEY = "node_exporter@9101"


@pytest.fixture(scope="module")
def server(servers: dict[str, Server]) -> Server:
    """A host whose own unit doesn't set the flag that a bad release lacks."""
    found = servers["host1"]
    found.out("sed -i '/collector.textfile/d' /etc/systemd/system/node_exporter.service")
    found.out("systemctl daemon-reload && systemctl restart node_exporter")
    return found


@contextlib.contextmanager
def second(server: Server, unit: str = "node_exporter_ops", program: str = USUAL, flags: str = "") -> t.Iterator[None]:
    """A further unit on port 9101."""
    path = f"/etc/systemd/system/{unit}.service"
    server.out("mkdir -p /opt/ops && test -e %s || cp %s %s", program, USUAL, program)
    server.out("printf %%s %s > %s && systemctl daemon-reload", UNIT.format(program=program, flags=flags), path)
    server.out("systemctl start %s", unit)
    try:
        yield
    finally:
        server.out("systemctl stop %s; rm %s; systemctl daemon-reload; rm -rf /opt/ops", unit, path)


def runs(server: Server, unit: str, port: int, version: str, program: str = USUAL) -> bool:
    """Whether a unit runs the file that is there, in this version, and answers."""
    same = server.out("cmp /proc/%s/exe %s && echo same || true", str(server.pid(unit)), program)
    metrics = server.get(f"http://127.0.0.1:{port}/metrics")
    return (same, f'version="{version}"' in metrics) == ("same", True)


def stand(server: Server, unit: str = "node_exporter_ops") -> list[t.Any]:
    return [server.pid("node_exporter"), server.pid(unit), server.out("stat --format=%s %s", "%i %Z", USUAL)]


def upgrade(version: str, *, code: int = 0, **variables: t.Any) -> str:
    variables = {"upgrade_versions": {"node_exporter": version}, "upgrade_overrides": HURRIED, **variables}
    return play("upgrade", "-l", "host1", code=code, **variables).output


def both_run(server: Server, version: str) -> bool:
    return runs(server, "node_exporter", 9100, version) and runs(server, "node_exporter_ops", 9101, version)


def test_units_of_one_file_go_there_and_back_by_one_step(server: Server, versions: Versions) -> None:
    old, new, _newest = versions["node_exporter"]
    with second(server):
        output = upgrade(new)
        assert "with node_exporter" in output
        assert both_run(server, new)
        assert list(server.state()["upgrade"]["steps"]) == [f"node_exporter@{new}"]
        play("rollback", "-l", "host1", upgrade_rollback_to="previous", upgrade_only=[KEY])
        assert both_run(server, old)
        assert server.is_at_rest()


def test_a_bad_release_is_undone_for_all_units_of_a_file(server: Server, versions: Versions) -> None:
    with second(server):
        output = upgrade(SILENT, code=2)
        assert f"node_exporter {SILENT} rolled back" in output
        assert f"{KEY} isn't healthy" in output
        assert both_run(server, versions["node_exporter"][0])
        assert server.is_at_rest()


def test_a_flag_that_only_another_unit_sets_is_known_before_anything_is_touched(server: Server) -> None:
    with second(server, flags=FLAG):
        before = stand(server)
        output = upgrade(LACKS_THE_FLAG, code=2)
        assert f"{KEY}.flag_removed.collector.textfile.directory" in output
        assert "This step touched nothing" in output
        assert stand(server) == before


def test_the_host_alone_brings_all_units_back(server: Server, versions: Versions) -> None:
    with second(server):
        wish: dict[str, t.Any] = {"upgrade_versions": {"node_exporter": SILENT}, "upgrade_overrides": HURRIED}
        with Run("upgrade", "-l", "host1", upgrade_confirm_within=60, **wish) as run:
            server.await_state("node_exporter", "verifying")
            run.kill()
        server.await_state("node_exporter", "rolled_back")
        assert "The host has undone it by itself" in server.component("node_exporter")["last_error"]
        assert both_run(server, versions["node_exporter"][0])
        assert server.is_at_rest()


def test_a_process_that_no_unit_runs_is_a_blocker(server: Server) -> None:
    with second(server):
        server.out(
            "systemd-run --scope --quiet sh -c %s", f"setsid {USUAL} --web.listen-address=:9999 >/dev/null 2>&1 &"
        )
        try:
            before = stand(server)
            output = upgrade("1.9.0", code=2)
            assert "node_exporter.shared_file" in output
            assert stand(server) == before
        finally:
            server.out("pkill -f [w]eb.listen-address=:9999")


def test_units_with_files_of_their_own_are_instances(server: Server, versions: Versions) -> None:
    old, new, newest = versions["node_exporter"]
    with second(server, program=OTHER):
        upgrade(new)
        assert list(server.state()["upgrade"]["steps"]) == [f"node_exporter@{new}", f"{KEY}@{new}"]
        assert runs(server, "node_exporter", 9100, new)
        assert runs(server, "node_exporter_ops", 9101, new, OTHER)
        upgrade(newest, upgrade_versions={KEY: newest})
        assert runs(server, "node_exporter", 9100, new)
        assert runs(server, "node_exporter_ops", 9101, newest, OTHER)
        play("rollback", "-l", "host1", upgrade_rollback_to="previous", upgrade_only=["node_exporter"])
        assert runs(server, "node_exporter", 9100, old)
        assert runs(server, "node_exporter_ops", 9101, new, OTHER)
        output = play("status", "-l", "host1").output
        assert KEY in output
        assert server.is_at_rest()


def test_instances_of_a_template_are_upgraded_with_the_unit_that_runs_their_file(
    server: Server, versions: Versions
) -> None:
    old, new, _newest = versions["node_exporter"]
    with second(server, unit="node_exporter@a"):
        upgrade(new)
        assert runs(server, "node_exporter", 9100, new)
        assert runs(server, "node_exporter@a", 9101, new)
        play("rollback", "-l", "host1", upgrade_rollback_to="previous", upgrade_only=["node_exporter"])
        assert runs(server, "node_exporter@a", 9101, old)
