# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils import _settings, _wish
from ansible_collections.observability.stack.tests.unit.surveys import facts, survey

POINT = {"id": "u1.node_exporter-1.4.0", "version": "1.4.0", "created_at": "2026-11-21T03:00:00Z"}
RECORD = {"state": "success", "to_version": "1.5.0", "inventory": {"restore_points": [POINT]}}


def surveys(version: str = "1.5.0", records: t.Any = None, **variables: t.Any) -> dict[str, t.Any]:
    settings = _settings.read({"upgrade_versions": "node_exporter=1.9.0", **variables})
    found = survey({"node_exporter": facts("node_exporter", version)}, records=records)
    return {"web1": {**found, "wish": {name: settings[name] for name in _wish.FIELDS}}}


def test_a_plan_with_steps_is_returned_and_not_shown(act: t.Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = act("plan", surveys=surveys(), carry_out=True, variables={"upgrade_state_dir": "/srv/x"})
    assert list(result["plan"]["hosts"]["web1"]) == ["node_exporter@1.9.0"]
    assert (result["shown"], result["plan"]["backup_dir"], capsys.readouterr().out) == (False, "/srv/x/backups", "")
    assert "ansible_stats" not in result


@pytest.mark.parametrize("check", [False, True])
def test_a_plan_without_steps_is_shown_with_its_outcome(
    act: t.Any, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, check: bool
) -> None:
    given = {"upgrade_report_dir": str(tmp_path / "reports")}
    result = act("plan", check=check, surveys=surveys("1.9.0"), left_out={"web2": "gone"}, variables=given)
    assert (result["shown"], result["outcome"]["failed_hosts"]) == (True, ["web2"])
    assert "node_exporter  1.9.0  nothing to do  web1" in capsys.readouterr().out
    assert result["ansible_stats"]["data"]["upgrade_outcome"] == result["outcome"]
    assert (tmp_path / "reports").exists() is not check
    if not check:
        assert json.loads(pathlib.Path(result["report_file"]).read_text())["digest"] == result["outcome"]["digest"]


def test_a_plan_without_steps_but_with_a_blocker_is_left_to_the_report(act: t.Any) -> None:
    assert act("plan", surveys=surveys("unknown"))["shown"] is False


@pytest.mark.parametrize("form", [json.dumps, json.loads, str])
def test_a_saved_plan_is_taken_up_from_its_content_or_its_file(act: t.Any, tmp_path: pathlib.Path, form: t.Any) -> None:
    plan = json.dumps(act("plan", surveys=surveys(), carry_out=True)["plan"])
    (tmp_path / "plan.json").write_text(plan)
    given = {json.dumps: plan, json.loads: json.loads(plan), str: str(tmp_path / "plan.json")}[form]
    taken_up = act("plan", surveys=surveys(), carry_out=True, variables={"upgrade_plan": given})
    assert taken_up["plan"]["digest"] == json.loads(plan)["digest"]
    other = act("plan", surveys=surveys("1.8.0"), carry_out=True, variables={"upgrade_plan": given})
    assert other["failed"]
    assert "doesn't match the hosts any more" in other["msg"]


def test_the_way_back_is_planned(act: t.Any) -> None:
    given = {"upgrade_rollback_to": "previous", "upgrade_rollback_kinds": "binary,config"}
    found = surveys(records={"node_exporter": RECORD})
    plan = act("plan", surveys=found, kind="rollback", variables=given)["plan"]
    step = plan["hosts"]["web1"]["node_exporter@1.4.0"]
    assert (plan["kind"], step["kinds"], step["backup_id"]) == ("rollback", ["binary", "config"], POINT["id"])


@pytest.mark.parametrize(
    ("variables", "more", "says"),
    [
        ({"upgrade_plan": "/nowhere/plan.json"}, {}, "upgrade_plan: /nowhere/plan.json: No such file or directory"),
        ({"upgrade_plan": "{}"}, {}, "is no plan that the playbook plan saved"),
        ({"upgrade_plan": "{}", "upgrade_plan_signers": "allowed_signers=x"}, {}, "asks for a signature"),
        ({"upgrade_rollback_to": "u9"}, {"kind": "rollback"}, "no host has a restore point 'u9'"),
        ({"upgrade_pause": "soon"}, {}, "upgrade_pause is 'soon'; it must be"),
    ],
)
def test_what_cannot_be_planned_is_one_message(
    act: t.Any, variables: dict[str, str], more: dict[str, str], says: str
) -> None:
    result = act("plan", surveys=surveys(), carry_out=True, variables=variables, **more)
    assert result["failed"]
    assert says in result["msg"]
    assert result["key"]


def test_an_answer_that_is_no_survey_is_one_message(act: t.Any) -> None:
    broken = surveys()
    del broken["web1"]["components"]
    result = act("plan", surveys=broken)
    assert (result["failed"], result["key"]) == (True, "input.surveys")
