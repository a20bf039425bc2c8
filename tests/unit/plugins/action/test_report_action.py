# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from ansible_collections.observability.stack.plugins.modules import report
from ansible_collections.observability.stack.plugins.plugin_utils import _publish
from ansible_collections.observability.stack.tests.unit.support import snapshot

TEXT = "HOST  STATE\nh1    IDLE {{ untouched }}"
DATA = {"hosts": {"h1": {"state": "IDLE", "umlaut": "ä"}}, "count": 1}


def test_a_text_is_shown_as_it_is_and_nothing_else_happens(
    act: t.Any, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    before = snapshot(tmp_path)
    result = act("report", text=TEXT)
    assert capsys.readouterr().out == f"\n{TEXT}\n"
    assert (result["changed"], result.get("failed"), result.get("report_file")) == (False, None, None)
    assert snapshot(tmp_path) == before
    assert act.sent == []


def test_the_data_is_kept_in_a_file_whose_directory_is_made(act: t.Any, tmp_path: pathlib.Path) -> None:
    dest = tmp_path / "reports" / "today" / "plan.json"
    result = act("report", text=TEXT, data=DATA, dest=str(dest))
    assert (result["changed"], result["report_file"]) == (False, str(dest))
    assert json.loads(dest.read_text()) == DATA
    assert dest.read_text().endswith("}\n")
    assert dest.stat().st_mode & 0o777 == 0o640


def test_the_same_data_gives_the_same_file_and_other_data_replaces_it(act: t.Any, tmp_path: pathlib.Path) -> None:
    dest = tmp_path / "plan.json"
    act("report", text=TEXT, data={"b": 1, "a": 2}, dest=str(dest))
    first = dest.read_bytes()
    act("report", text=TEXT, data={"a": 2, "b": 1}, dest=str(dest))
    assert dest.read_bytes() == first
    act("report", text=TEXT, data=[], dest=str(dest))
    assert dest.read_text() == "[]\n"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["plan.json"]


def test_a_home_directory_is_meant_by_its_sign(
    act: t.Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert act("report", text=TEXT, data=DATA, dest="~/plan.json")["report_file"] == str(tmp_path / "plan.json")


def test_a_name_alone_is_meant_from_where_ansible_was_started(
    act: t.Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert act("report", text=TEXT, data=DATA, dest="plan.json")["report_file"] == str(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == DATA


def test_data_with_ansible_s_marks_on_it_is_plain_json(act: t.Any, tmp_path: pathlib.Path) -> None:
    dest = tmp_path / "plan.json"
    act("report", text=TEXT, data={"version": trust_as_template("1.9.0")}, dest=str(dest))
    assert json.loads(dest.read_text()) == {"version": "1.9.0"}


def test_check_mode_shows_it_and_writes_nothing(
    act: t.Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = act("report", check=True, text=TEXT, data=DATA, dest=str(tmp_path / "reports" / "plan.json"))
    assert (result["changed"], result.get("report_file")) == (False, None)
    assert TEXT in capsys.readouterr().out
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("check", [False, True])
def test_problems_fail_the_task_after_all_else_is_done(
    act: t.Any, tmp_path: pathlib.Path, check: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "plan.json"
    result = act("report", check=check, text=TEXT, data=DATA, dest=str(dest), problems=["h1: no room", "h2: no unit"])
    assert (result["failed"], result["msg"]) == (True, "h1: no room\nh2: no unit")
    assert dest.exists() is not check
    assert TEXT in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text": "x", "dest": "/nowhere/x"}, "data"),
        ({"text": "x", "nonsense": 1}, "nonsense"),
    ],
)
def test_arguments_that_are_missing_or_wrong_are_named(
    act: t.Any, arguments: dict[str, t.Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AnsibleError) as failure:
        act("report", **arguments)
    assert says in str(failure.value)
    assert capsys.readouterr().out == ""


def test_a_place_that_cannot_be_written_is_named(act: t.Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AnsibleError) as failure:
        act("report", text=TEXT, data=DATA, dest=str(tmp_path / "file" / "plan.json"))
    assert f"{tmp_path}/file/plan.json can't be written on the controller (" in str(failure.value)
    assert "choose another place" in str(failure.value)


def test_all_that_is_taken_is_documented() -> None:
    assert sorted(yaml.safe_load(report.DOCUMENTATION)["options"]) == [
        *("data", "dest", "left_out", "outcome", "problems", "text")
    ]


def test_a_report_sends_nothing_but_printable_lines(act: t.Any, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]52;c;ZXZpbA==\x07b\x9b\u202e\r"
    result = act("report", text=f"one\n{evil}", left_out={"web1": f"{evil}\nforged"}, problems=[evil])
    shown = "a\\x1b]52;c;ZXZpbA==\\x07b\\x9b\\u202e\\r"
    left_out = f"\nLeft out, because they failed:\n  web1: {shown}\\nforged\n"
    assert capsys.readouterr().out == f"\none\n{shown}\n{left_out}"
    assert (result["failed"], result["msg"]) == (True, shown)


def test_the_reason_why_a_host_is_left_out_is_cut(act: t.Any, capsys: pytest.CaptureFixture[str]) -> None:
    act("report", text="one", left_out={"web1": "x" * 50_000_000})
    assert "x" * 500 + "... (50000000 characters)\n" in capsys.readouterr().out


OUTCOME = {"kind": "plan", "digest": "0" * 64, "failed_hosts": ["web2"]}


def test_the_outcome_is_in_the_result_and_in_set_stats(act: t.Any, tmp_path: pathlib.Path) -> None:
    dest = tmp_path / "plan.json"
    result = act("report", text=TEXT, data=DATA, dest=str(dest), outcome=OUTCOME, left_out={"web1": "gone"})
    outcome = {**OUTCOME, "failed_hosts": ["web1", "web2"], "report_file": str(dest)}
    assert result["outcome"] == outcome
    assert result["ansible_stats"] == {"data": {"upgrade_outcome": outcome}, "per_host": False, "aggregate": False}
    assert result["text"] == f"{TEXT}\n\nLeft out, because they failed:\n  web1: gone"


@pytest.mark.parametrize(
    ("callback", "shown"),
    [
        *(("default", True), ("ansible.builtin.minimal", True), ("oneline", True), ("awx_display", True)),
        *(("json", False), ("ansible.posix.json", False), ("ansible.posix.jsonl", False), ("null", False)),
    ],
)
def test_a_callback_that_prints_json_has_the_terminal_for_itself(
    act: t.Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, callback: str, shown: bool
) -> None:
    monkeypatch.setattr(_publish, "_stdout_callback", lambda: callback)
    result = act("report", text=TEXT)
    assert (TEXT in capsys.readouterr().out, result["text"]) == (shown, TEXT)
