# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet after its upgrade, and what later runs do to it: nothing."""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing as t

import jsonschema
import pytest
from conftest import CHECKOUT, STATE_DIR, Run, Server, play

Versions = dict[str, list[str]]
WANTED = {"node_exporter": 1, "alertmanager": 1, "prometheus": 2}


@pytest.fixture(scope="module")
def wanted(versions: Versions) -> dict[str, str]:
    return {name: versions[name][number] for name, number in WANTED.items()}


def snapshots(servers: dict[str, Server]) -> dict[str, str]:
    return {name: server.snapshot() for name, server in servers.items()}


@pytest.mark.parametrize("host", ["host1", "host2", "host3"])
def test_every_component_runs_its_new_version_steadily(
    servers: dict[str, Server], wanted: dict[str, str], host: str
) -> None:
    server = servers[host]
    for name in WANTED if host == "host1" else ["node_exporter"]:
        assert server.is_healthy(name, wanted[name])
        assert server.out("systemctl show --property=NRestarts --value %s", name) == "0"


def test_the_tools_of_a_server_were_upgraded_with_it(servers: dict[str, Server], wanted: dict[str, str]) -> None:
    assert servers["host1"].on_disk("promtool") == wanted["prometheus"]
    assert servers["host1"].on_disk("amtool") == wanted["alertmanager"]


def test_files_keep_their_owner_and_mode(servers: dict[str, Server]) -> None:
    for name in ("node_exporter", "prometheus", "promtool", "alertmanager", "amtool"):
        assert servers["host1"].out(f"stat --format='%U %G %a %h' /usr/local/bin/{name}") == "root root 755 1"


def test_the_record_tells_what_was_done(servers: dict[str, Server], wanted: dict[str, str], versions: Versions) -> None:
    state = servers["host1"].state()
    assert (state["upgrade"]["state"], state["upgrade"]["outcome"]) == ("COMPLETED", "succeeded")
    for name, version in wanted.items():
        component = state["components"][name]
        assert (component["state"], component["health_check_passed"]) == ("success", True)
        assert component["inventory"]["current_version"] == version
    points = state["components"]["prometheus"]["inventory"]["restore_points"]
    assert [point["version"] for point in points] == versions["prometheus"][:2]
    assert state["components"]["prometheus"]["inventory"]["previous_version"] == versions["prometheus"][1]


def test_the_record_satisfies_its_published_schema(servers: dict[str, Server]) -> None:
    schema = json.loads((CHECKOUT / "docs/state.schema.json").read_text())
    for server in servers.values():
        jsonschema.Draft202012Validator(schema).validate(server.state())


def test_the_record_is_roots_alone_and_nothing_is_left_behind(servers: dict[str, Server]) -> None:
    server = servers["host1"]
    assert server.out(f"find {STATE_DIR} -type d ! -perm 0700 -o -type f ! -perm 0600 -o ! -user root") == ""
    assert server.out(f"ls {STATE_DIR}/staging") == ""
    assert len(server.out(f"ls {STATE_DIR}/history").splitlines()) == 1
    assert server.out("ls -A /usr/local/bin").split() == [
        "alertmanager",
        "amtool",
        "node_exporter",
        "prometheus",
        "promtool",
    ]


def test_a_second_run_changes_no_task_and_no_byte(servers: dict[str, Server], wanted: dict[str, str]) -> None:
    before = snapshots(servers)
    again = play("upgrade", upgrade_versions=wanted)
    assert again.changed == 0
    assert snapshots(servers) == before


@pytest.mark.parametrize(
    ("playbook", "variables", "says"),
    [
        ("plan", {}, "node_exporter {1} {2} host1, host2, host3"),
        ("upgrade", {}, "node_exporter {1} {2} host1, host2, host3"),
        ("rollback", {"upgrade_rollback_to": "previous"}, "node_exporter {1} {0} host1, host2, host3"),
        ("verify", {}, "host2 node_exporter healthy"),
        ("status", {}, "host2 COMPLETED node_exporter {1} {1}"),
    ],
)
def test_a_rehearsal_says_what_would_happen_and_changes_nothing(
    servers: dict[str, Server], versions: Versions, playbook: str, variables: dict[str, t.Any], says: str
) -> None:
    before = snapshots(servers)
    newest = {"node_exporter": versions["node_exporter"][2]}
    played = play(playbook, "--check", "--diff", upgrade_versions=newest, **variables)
    assert says.format(*versions["node_exporter"]) in " ".join(played.output.split())
    assert snapshots(servers) == before


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"upgrade_versions": {"nod_exporter": "1.9.0"}}, ["nod_exporter", "node_exporter"]),
        ({"upgrade_versions": {"node_exporter": "one"}}, ["node_exporter", "'one'"]),
        ({"upgrade_versions": {"node_exporter": "9.9.9"}}, ["9.9.9", "404"]),
        (
            {"upgrade_overrides": {"node_exporter": {"units": ["absent.service"]}}},
            ["none of the units that are named for it: absent"],
        ),
        ({"upgrade_overrides": {"node_exporter": {"unit": "x"}}}, ["node_exporter", "unit", "units"]),
        ({"upgrade_rollback_to": "no-such-point"}, ["no-such-point"]),
    ],
    ids=["component", "version", "release", "unit", "field", "restore point"],
)
def test_a_wrong_wish_is_refused_by_its_name_before_anything_is_touched(
    servers: dict[str, Server], wanted: dict[str, str], variables: dict[str, t.Any], says: list[str]
) -> None:
    before = {name: server.out("sha256sum /usr/local/bin/*") for name, server in servers.items()}
    playbook = "rollback" if "upgrade_rollback_to" in variables else "upgrade"
    played = play(playbook, code=2, **{"upgrade_versions": {**wanted, "node_exporter": "1.11.1"}, **variables})
    assert [word for word in says if word not in played.output] == []
    assert {name: server.out("sha256sum /usr/local/bin/*") for name, server in servers.items()} == before


def test_other_exporters_are_found_as_they_are_set_up_and_upgraded(
    servers: dict[str, Server], versions: Versions
) -> None:
    server, names = servers["host3"], ["blackbox_exporter", "pushgateway"]
    play("tests/lab/deploy.yml", "-l", "host3", lab_deploy={name: versions[name][0] for name in names})
    play("upgrade", "-l", "host3", upgrade_versions={name: versions[name][2] for name in names})
    for name in names:
        assert server.is_healthy(name, versions[name][2])


def test_what_the_unit_sets_and_the_new_version_has_not_stands_in_the_way(
    servers: dict[str, Server], versions: Versions
) -> None:
    older, newer = versions["mysqld_exporter"][:2]
    play("tests/lab/deploy.yml", "-l", "host3", lab_deploy={"mysqld_exporter": older})
    played = play("upgrade", "-l", "host3", code=2, upgrade_versions={"mysqld_exporter": newer})
    assert "DATA_SOURCE_NAME, which was removed in 0.15.0" in played.output
    assert "not-a-secret" not in played.output
    assert servers["host3"].is_healthy("mysqld_exporter", older)


def test_the_installed_collection_works_by_its_name(
    servers: dict[str, Server], wanted: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Built, installed and run from somewhere else, with nothing of the checkout but the lab's inventory."""
    galaxy = ["ansible-galaxy", "collection"]
    subprocess.run([*galaxy, "build", "--output-path", tmp_path, CHECKOUT], check=True)
    (artifact,) = tmp_path.glob("*.tar.gz")
    subprocess.run([*galaxy, "install", "--offline", "--force", "-p", tmp_path, artifact], check=True)
    before = snapshots(servers)
    for playbook in ("plan", "upgrade", "status", "verify", "rollback"):
        with Run(f"observability.stack.{playbook}", collections=tmp_path, upgrade_versions=wanted) as run:
            played = run.end()
        assert played.code == 0, played.output
        assert played.changed == 0
    assert snapshots(servers) == before


def test_roles_work_in_a_playbook_of_ones_own(servers: dict[str, Server], wanted: dict[str, str]) -> None:
    before = snapshots(servers)
    played = play("molecule/upgrade/own.yml", upgrade_versions=wanted)
    assert played.changed == 0
    assert snapshots(servers) == before
