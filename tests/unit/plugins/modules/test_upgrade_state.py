# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _store
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.modules import upgrade_state
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Call,
    Data,
    message_of,
    snapshot,
)

NODE, BLACKBOX = Step("node_exporter", "1.9.0"), Step("blackbox_exporter", "0.26.0")
STEPS = [NODE.key, BLACKBOX.key]


class Host:
    """A host whose record the module keeps."""

    def __init__(self, call: Call, root: pathlib.Path) -> None:
        self.root = root
        self._call = call

    def act(self, action: str, **arguments: t.Any) -> Data:
        return self._call(upgrade_state, **{"action": action, "run": RUN, **arguments})

    def begin(self, **arguments: t.Any) -> Data:
        return self.act("begin", **{"steps": STEPS, "phase": "exporters", "plan_digest": "d1", **arguments})

    def end(self, step: Step, outcome: str, **arguments: t.Any) -> Data:
        named = {"component": step.component, "version": step.to_version, **arguments}
        if outcome == "succeeded":
            return self.act("confirm", **{"paths": ["/opt/x"], **named})
        return self.act("fail", **{"outcome": outcome, "error": "it broke", **named})

    def go(self, step: Step, state: str) -> None:
        """Bring a step as far as its modules would."""
        with _store.session(str(self.root), run=RUN, acquire=True) as session:
            document = session.document
            document.start_step(step, from_version="1.5.0", now=session.now)
            document.set_component(step.component, "staged", now=session.now)
            if state != "staged":
                backup_id = f"u1.{step.component}-1.5.0"
                (self.root / "backups" / backup_id).mkdir()
                document.advance("UPGRADING", now=session.now)
                document.set_component(step.component, "activated", now=session.now, backup_id=backup_id, sha256="5ha")
                document.add_restore_point(step.component, backup_id=backup_id, version="1.5.0", now=session.now)
            if state == "verifying":
                document.set_component(step.component, "verifying", now=session.now)
            (self.root / "staging" / step.key).mkdir(exist_ok=True)
            session.save()

    def saved(self) -> Data:
        return t.cast("Data", json.loads((self.root / "state.json").read_text()))

    def component(self, step: Step = NODE) -> Data:
        return t.cast("Data", self.saved()["components"][step.component])

    def files(self) -> dict[str, tuple[t.Any, ...]]:
        """All that is there but the lease, which every module of a run renews."""
        return {path: seen for path, seen in snapshot(self.root).items() if not path.endswith("upgrade.lock")}


@pytest.fixture
def host(call: Call, state_dir: pathlib.Path) -> Host:
    return Host(call, state_dir)


def test_a_host_without_a_record_has_an_idle_one_and_nothing_is_made(host: Host) -> None:
    result = host.act("get")
    assert result["document"]["upgrade"] == {"state": "IDLE"}
    assert (result["changed"], result["finished"], result["progress_percent"], result["lease"]) == (
        False,
        True,
        100,
        {},
    )
    assert not host.root.exists()


def test_get_tells_the_record_and_who_has_the_host(host: Host) -> None:
    begun = host.begin()
    before = snapshot(host.root)
    result = host.act("get", run=None)
    assert (result["changed"], result["document"]) == (False, begun["document"])
    assert (result["lease"]["upgrade_id"], result["lease"]["controller"]) == ("u1", "c1")
    assert snapshot(host.root) == before


def test_begin_plans_the_steps_and_takes_the_host(host: Host) -> None:
    result = host.begin(kind="rollback", mode="safe")
    upgrade = result["document"]["upgrade"]
    assert (result["changed"], result["finished"], result["progress_percent"]) == (True, False, 0)
    assert (upgrade["state"], upgrade["upgrade_id"], upgrade["kind"]) == ("PLANNING", "u1", "rollback")
    assert (upgrade["mode"], upgrade["phase"], upgrade["plan_digest"]) == ("safe", "exporters", "d1")
    assert upgrade["steps"] == dict.fromkeys(STEPS, "pending")
    assert upgrade["started_by"] == {"user": "ops", "controller": "c1"}
    assert result["diff"]["before"]["upgrade"] == {"state": "IDLE"}
    assert result["diff"]["after"] == result["document"] == host.saved()


def test_another_run_is_refused_and_told_by_whom(host: Host) -> None:
    host.begin()
    before = snapshot(host.root)
    for check in (True, False):
        result = host.begin(run=OTHER_RUN, check=check)
        assert (result["failed"], result["key"]) == (True, "lock.held")
        assert "being upgraded by ops on c1 (upgrade u1, since 0 min): wait for it to end" in result["msg"]
    assert snapshot(host.root) == before


def test_what_a_dead_run_left_is_closed_archived_and_gone_on_with(host: Host) -> None:
    host.begin()
    host.go(NODE, "activated")
    result = host.begin(run={**OTHER_RUN, "dead": ["u1"]})
    upgrade = result["document"]["upgrade"]
    assert (upgrade["upgrade_id"], upgrade["resumes"], upgrade["state"]) == ("u2", "u1", "PLANNING")
    assert result["document"]["components"]["node_exporter"]["state"] == "activated"
    archived = json.loads((host.root / "history" / "u1.json").read_text())["upgrade"]
    assert (archived["state"], archived["outcome"]) == ("FAILED", "failed")
    assert archived["errors"][-1]["message"] == "cut off in UPGRADING; upgrade u2 goes on"
    warnings = " ".join(map(message_of, result["warnings"]))
    assert "upgrade u1 was left in UPGRADING; this run goes on with it" in warnings
    assert "took over from upgrade u1 of ops on c1, which ended without giving the host back" in warnings
    assert upgrade["took_over"] == {"upgrade_id": "u1", "user": "ops", "controller": "c1"}


def test_confirm_ends_the_step_and_takes_the_version_into_the_inventory(host: Host) -> None:
    host.begin()
    host.go(NODE, "verifying")
    result = host.end(NODE, "succeeded")
    record = host.component()
    assert (result["changed"], result["finished"], result["progress_percent"]) == (True, False, 50)
    assert (record["state"], record["outcome"], record["health_check_passed"]) == ("success", "succeeded", True)
    inventory = {key: record["inventory"][key] for key in ("current_version", "previous_version", "paths", "sha256")}
    assert inventory == {
        "current_version": "1.9.0",
        "previous_version": "1.5.0",
        "paths": ["/opt/x"],
        "sha256": "5ha",
    }
    assert not (host.root / "staging" / NODE.key).exists()
    assert (host.root / "backups" / "u1.node_exporter-1.5.0").exists()


@pytest.mark.parametrize(
    ("state", "outcome", "ends", "restore_points"),
    [
        ("staged", "aborted", "failed", []),
        ("activated", "rolled_back", "rolled_back", []),
        ("verifying", "rolled_back", "rolled_back", []),
        ("verifying", "failed", "failed", ["u1.node_exporter-1.5.0"]),
        ("nothing", "aborted", "failed", []),
    ],
)
def test_fail_ends_the_step_and_keeps_the_restore_point_only_while_it_is_needed(
    host: Host, state: str, outcome: str, ends: str, restore_points: list[str]
) -> None:
    host.begin()
    if state != "nothing":
        host.go(NODE, state)
    host.end(NODE, outcome)
    record = host.component()
    assert (record["state"], record["outcome"], record["last_error"]) == (ends, outcome, "it broke")
    assert record["attempts"] == 1
    assert host.saved()["upgrade"]["steps"][NODE.key] == outcome
    assert [error["message"] for error in host.saved()["upgrade"]["errors"]] == ["it broke"]
    assert [path.name for path in (host.root / "backups").iterdir()] == restore_points


def test_close_leaves_an_upgrade_open_whose_steps_are_for_a_later_phase(host: Host) -> None:
    host.begin()
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    result = host.act("close")
    assert (result["changed"], result["finished"], result["progress_percent"]) == (False, False, 50)
    assert host.act("get")["lease"] == {}
    assert list((host.root / "history").iterdir()) == []


@pytest.mark.parametrize(
    ("abandon", "outcome", "state"), [(False, "succeeded", "COMPLETED"), (True, "aborted", "FAILED")]
)
def test_close_ends_archives_and_clears_up(host: Host, abandon: bool, outcome: str, state: str) -> None:
    host.begin(steps=STEPS if abandon else [NODE.key])
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    (host.root / "staging" / "left@1").mkdir()
    result = host.act("close", abandon=abandon, keep=0)
    assert (result["changed"], result["finished"]) == (True, True)
    assert (result["document"]["upgrade"]["state"], result["document"]["upgrade"]["outcome"]) == (state, outcome)
    archived = json.loads((host.root / "history" / "u1.json").read_text())
    assert archived["upgrade"] == result["document"]["upgrade"]
    assert [list((host.root / name).iterdir()) for name in ("staging", "backups")] == [[], []]
    assert result["document"]["components"]["node_exporter"]["inventory"]["restore_points"] == []
    assert host.act("get")["lease"] == {}


ACTIONS: dict[str, tuple[str, t.Callable[..., Data]]] = {
    "begin": ("nothing", lambda host, **check: host.begin(**check)),
    "confirm": ("verifying", lambda host, **check: host.end(NODE, "succeeded", **check)),
    "abort": ("staged", lambda host, **check: host.end(NODE, "aborted", **check)),
    "roll back": ("activated", lambda host, **check: host.end(NODE, "rolled_back", **check)),
    "fail": ("verifying", lambda host, **check: host.end(NODE, "failed", **check)),
    "close": ("verifying", lambda host, **check: host.act("close", abandon=True, **check)),
}


def prepared(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., Data]:
    """A host in the state that an action is for. Time goes on by a minute at every look."""
    state, action = ACTIONS[name]
    if state != "nothing":
        host.begin()
        host.go(NODE, state)
    real, looks = time.time, iter(range(10**6))
    monkeypatch.setitem(_store.session.__wrapped__.__kwdefaults__, "clock", lambda: real() + 60 * next(looks))
    return lambda **check: action(host, **check)


@pytest.mark.parametrize("name", ACTIONS)
def test_check_mode_says_what_would_be_recorded_and_records_nothing(
    host: Host, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = prepared(host, name, monkeypatch)
    before = snapshot(host.root)
    foreseen = action(check=True)
    assert snapshot(host.root) == before
    assert foreseen["changed"] is True
    done = action()
    assert [foreseen[key] for key in ("changed", "finished", "progress_percent")] == [
        done[key] for key in ("changed", "finished", "progress_percent")
    ]
    assert [foreseen["document"]["upgrade"].get(key) for key in ("state", "steps")] == [
        done["document"]["upgrade"].get(key) for key in ("state", "steps")
    ]
    assert foreseen["diff"]["before"] == done["diff"]["before"] != done["diff"]["after"]


@pytest.mark.parametrize("name", ACTIONS)
def test_the_same_again_changes_nothing(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action = prepared(host, name, monkeypatch)
    assert action()["changed"] is True
    before = host.files()
    result = action()
    assert (result["changed"], result["diff"]["before"]) == (False, result["diff"]["after"])
    assert host.files() == before


@pytest.mark.parametrize("state", ["nothing", "staged", "activated"])
def test_only_what_was_probed_can_be_confirmed(host: Host, state: str) -> None:
    host.begin()
    if state != "nothing":
        host.go(NODE, state)
    before = host.files()
    result = host.end(NODE, "succeeded")
    assert (result["failed"], result["key"]) == (True, "state.illegal_transition")
    assert f"node_exporter can't go from {state if state != 'nothing' else 'idle'} to success; from " in result["msg"]
    assert host.files() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"action": "begin", "run": RUN}, "steps"),
        ({"action": "begin", "steps": STEPS}, "run"),
        ({"action": "begin", "steps": STEPS, "run": {"user": "ops"}}, "upgrade_id"),
        ({"action": "confirm", "component": "x"}, "version"),
        ({"action": "fail", "component": "x", "version": "1", "outcome": "failed"}, "error"),
        ({"action": "fail", "component": "x", "version": "1", "error": "x", "outcome": "lost"}, "outcome"),
        ({"action": "forget"}, "action"),
    ],
)
def test_arguments_that_are_missing_or_wrong_are_named(
    call: Call, state_dir: pathlib.Path, arguments: Data, says: str
) -> None:
    result = call(upgrade_state, **arguments)
    assert result["failed"] is True
    assert says in result["msg"]
    assert not state_dir.exists()


def test_a_damaged_record_is_set_aside_and_said_so(host: Host) -> None:
    host.begin()
    (host.root / "state.json").write_text("{")
    result = host.begin()
    aside = [path for path in host.root.iterdir() if ".damaged-" in path.name]
    assert [path.read_text() for path in aside] == ["{"]
    assert f"Set aside as {aside[0]}" in " ".join(map(message_of, result["warnings"]))
    assert result["document"]["upgrade"]["state"] == "PLANNING"


def test_a_record_of_a_newer_collection_is_left_alone(host: Host) -> None:
    host.begin()
    (host.root / "state.json").write_text('{"schema_version": 99}')
    before = host.files()
    for action in (host.begin, lambda: host.act("get")):
        result = action()
        assert (result["failed"], result["key"]) == (True, "state.newer_schema")
        assert "use the newer collection that wrote it" in result["msg"]
    assert host.files() == before
