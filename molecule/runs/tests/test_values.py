# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A variable means the same however its value is sent, and the outcome of a run is there for people and programs."""

from __future__ import annotations

import json
import re
import tempfile
import typing as t

import yaml
from conftest import SETTINGS, Run
from rows import QUICK, Fleet, way

pytest_plugins = ["rows"]

UPGRADED = "The hosts are upgraded"


def upgrades(fleet: Fleet, **variables: t.Any) -> str:
    """Upgrade the hosts, which must succeed."""
    played = fleet.play("upgrade", **variables)
    assert fleet.runs(fleet.newer), played.output
    return t.cast("str", played.output)


@way("All variables as JSON text, as `-e key=value` and a survey send them", UPGRADED)
def test_json_text(fleet: Fleet) -> None:
    upgrades(
        fleet,
        upgrade_versions=json.dumps({"node_exporter": fleet.newer}),
        upgrade_overrides=json.dumps(QUICK),
        upgrade_only='["node_exporter"]',
        upgrade_waves='[1, "100%"]',
    )


@way("All variables as YAML text, as a text field of a survey sends it", UPGRADED)
def test_yaml_text(fleet: Fleet) -> None:
    upgrades(
        fleet,
        upgrade_versions=f"node_exporter: {fleet.newer}\n",
        upgrade_overrides=yaml.safe_dump(QUICK),
        upgrade_only="- node_exporter\n",
        upgrade_windows="[]",
        upgrade_release_limits="attempts: 2\nsize: 1GB\n",
    )


@way("`upgrade_versions=node_exporter=1.9.0`, `upgrade_only=node_exporter`, `upgrade_waves=1,100%`", UPGRADED, hosts=2)
def test_pairs_and_commas(fleet: Fleet) -> None:
    output = upgrades(
        fleet,
        upgrade_versions=f"node_exporter={fleet.newer}",
        upgrade_only="node_exporter,prometheus",
        upgrade_waves="1,100%",
    )
    assert any(f"exporters, wave 2 of 2: {name}" in output for name in fleet.names)


INVENTORY = """
[all:vars]
upgrade_versions={{"node_exporter": "{version}"}}
upgrade_overrides={{"node_exporter": {{"probe_window": 1, "probe_timeout": 20}}}}
upgrade_only=node_exporter
upgrade_waves=1,100%
upgrade_rehearse=no
upgrade_download_only=off
upgrade_pins=
upgrade_backup_keep=2
"""


@way("All variables in `[all:vars]` of an INI inventory", f"{UPGRADED}; nothing is rehearsed")
def test_an_ini_inventory(fleet: Fleet) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as inventory:
        inventory.write(INVENTORY.format(version=fleet.newer))
        inventory.flush()
        settings = {"ANSIBLE_INVENTORY": f"{SETTINGS['ANSIBLE_INVENTORY']},{inventory.name}"}
        with Run("upgrade", "-l", fleet.server.name, settings=settings) as run:
            played = run.end()
    assert played.code == 0, played.output
    assert fleet.runs(fleet.newer)
    rehearsed = played.output.partition("Rehearse the new version beside the old one")[2].partition("TASK")[0]
    assert f"ok: [{fleet.server.name}]" not in rehearsed


@way("Switches as `no`, `False`, `0` and `off`; numbers as text", f"{UPGRADED}; nothing is rehearsed")
def test_switches_and_numbers(fleet: Fleet) -> None:
    output = upgrades(
        fleet,
        upgrade_rehearse="no",
        upgrade_download_only="False",
        upgrade_checks_required="0",
        upgrade_release_unverified="off",
        upgrade_backup_keep="2",
        upgrade_confirm_within="300",
        upgrade_history_days=" 30 ",
    )
    rehearsed = output.partition("Rehearse the new version beside the old one")[2].partition("TASK")[0]
    assert f"changed: [{fleet.server.name}]" not in rehearsed
    assert f"ok: [{fleet.server.name}]" not in rehearsed


@way("Empty answers of a survey", f"They are the defaults. {UPGRADED}")
def test_empty_values(fleet: Fleet) -> None:
    names = ("only", "phases", "waves", "accept", "mode", "pause", "rehearse", "download_only", "windows", "policy")
    empty = {f"upgrade_{name}": "" for name in (*names, "pins", "blacklist", "confirm_within", "fetch", "alertmanager")}
    upgrades(fleet, upgrade_versions={"node_exporter": fleet.newer, "prometheus": ""}, **empty)


@way("`upgrade_pause=1` and an approved plan in mode `safe`", UPGRADED)
def test_a_pause_as_text(fleet: Fleet) -> None:
    digest = re.search(r"Digest: ([0-9a-f]{64})", fleet.play("plan").output)
    assert digest
    upgrades(fleet, upgrade_mode="Safe", upgrade_pause="1", upgrade_approved=digest[1])


@way("`upgrade_rollback_kinds=binary` with `upgrade_rollback_to=previous`", "The hosts are rolled back")
def test_kinds_as_text(fleet: Fleet) -> None:
    upgrades(fleet)
    fleet.play("rollback", upgrade_rollback_to="previous", upgrade_rollback_kinds="binary")
    assert fleet.runs(fleet.older)


@way("A value that a variable does not take", "Refused in one message: the variable, and what it takes", hosts=3)
def test_wrong_values(fleet: Fleet) -> None:
    for name, value in (
        ("pause", "soon"),
        ("mode", "turbo"),
        ("waves", "half"),
        ("versions", "1.9.0"),
        ("rehearse", "?"),
    ):
        played = fleet.play("upgrade", code=2, **{f"upgrade_{name}": value})
        message = f"upgrade_{name} is '{value}'; it must be "
        assert played.output.count("FAILED! => {") == 1, played.output
        assert message in played.output
        assert "Traceback" not in played.output
        assert "Finalization" not in played.output
    assert fleet.untouched


@way("A value that a variable does not take, of one host", "That host fails, before any host is touched", hosts=2)
def test_a_wrong_value_of_one_host(fleet: Fleet) -> None:
    value = f"{{{{ 'soon' if inventory_hostname == '{fleet.names[1]}' else 5 }}}}"
    played = fleet.play("plan", code=2, upgrade_pause=value)
    assert "upgrade_pause is 'soon'; it must be a whole number of seconds" in played.output
    assert played.recap[fleet.names[1]]["failed"] == 1
    assert "Finalization" not in played.output


# -- what is there afterwards -----------------------------------------------------------------------------------------


def outcome(output: str) -> t.Any:
    """The outcome that set_stats has."""
    told = re.search(r"RUN: (\{.*\})", output.partition("CUSTOM STATS")[2], re.DOTALL)
    assert told, output
    return json.loads(told[1])["upgrade_outcome"]


STATS = {"ANSIBLE_SHOW_CUSTOM_STATS": "true"}


@way("`upgrade` with nothing to do, on three hosts", "Fewer than 20 lines of output", hosts=3)
def test_nothing_to_do(fleet: Fleet) -> None:
    played = fleet.play("upgrade", upgrade_versions={"node_exporter": fleet.older})
    assert len([line for line in played.output.splitlines() if line.strip()]) < 20, played.output
    assert fleet.untouched


@way(
    "`plan`, then `upgrade`, by a program",
    "`upgrade_outcome` in `set_stats` has the digest, counts, and the plan's file",
)
def test_the_outcome_for_programs(fleet: Fleet) -> None:
    planned = outcome(fleet.play("plan", settings=STATS).output)
    assert (planned["kind"], planned["counts"], planned["failed_hosts"]) == (
        "plan",
        {"hosts": 1, "steps": 1, "blockers": 0},
        [],
    )
    assert planned["report_file"].endswith(f"plan-{planned['digest'][:12]}.json")
    done = outcome(fleet.play("upgrade", settings=STATS, upgrade_approved=planned["digest"]).output)
    assert (done["kind"], done["digest"], done["failed_hosts"]) == ("upgrade", planned["digest"], [])
    assert done["hosts"][fleet.server.name]["steps"] == {f"node_exporter@{fleet.newer}": "succeeded"}
    verified = outcome(fleet.play("verify", settings=STATS, upgrade_only="node_exporter").output)
    assert (verified["kind"], verified["failed_hosts"]) == ("verify", [])


@way("`upgrade`, and a release that dies, by a program", "`upgrade_outcome` names the hosts that failed, and why")
def test_the_outcome_of_a_failure(fleet: Fleet) -> None:
    failed = outcome(fleet.play("upgrade", code=2, settings=STATS, upgrade_versions={"node_exporter": "1.99.1"}).output)
    assert failed["failed_hosts"] == fleet.names
    assert failed["counts"]["failed"] == 1
    host = failed["hosts"][fleet.server.name]
    assert (host["state"], host["steps"]) == ("failed", {"node_exporter@1.99.1": "rolled_back"})
    assert host["errors"]
    assert fleet.server.is_healthy("node_exporter", fleet.older)


@way("`plan` with a blocker, by a program", "`upgrade_outcome` has the problems")
def test_the_outcome_of_a_plan_with_a_blocker(fleet: Fleet) -> None:
    blocked = outcome(fleet.play("plan", code=2, settings=STATS, upgrade_versions={"node_exporter": "0.1.0"}).output)
    assert (blocked["blocked_hosts"], bool(blocked["problems"])) == (fleet.names, True)


@way("`upgrade --diff`", "Versions and paths, not the state of the host")
def test_diff(fleet: Fleet) -> None:
    output = fleet.play("upgrade", "--diff").output
    assert fleet.runs(fleet.newer)
    assert f'"/usr/local/bin/node_exporter": "{fleet.newer} (sha256 ' in output
    assert "schema_version" not in output
    assert len(output.splitlines()) < 300, output
