# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _process, _restore_point, _store
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.modules import upgrade_state
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Call,
    Data,
    message_of,
    sha256,
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
                document.set_component(
                    step.component, "activated", now=session.now, backup_id=backup_id, sha256="a" * 64
                )
                document.add_restore_point(step.component, backup_id=backup_id, version="1.5.0", now=session.now)
            if state == "verifying":
                probe = {"passed": True, "version": step.to_version, "unit": "x", **_process.identity(os.getpid())}
                document.set_component(step.component, "verifying", now=session.now, probe=probe)
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


def test_begin_plans_the_steps_and_takes_the_host(host: Host) -> None:
    result = host.begin(kind="rollback", mode="safe")
    upgrade = result["document"]["upgrade"]
    assert (result["changed"], result["finished"], result["progress_percent"]) == (True, False, 0)
    assert (upgrade["state"], upgrade["upgrade_id"], upgrade["kind"]) == ("PLANNING", "u1", "rollback")
    assert (upgrade["mode"], upgrade["phase"], upgrade["plan_digest"]) == ("safe", "exporters", "d1")
    assert upgrade["steps"] == dict.fromkeys(STEPS, "pending")
    assert upgrade["started_by"] == {"user": "ops", "controller": "c1"}
    assert result["diff"]["before"] == "IDLE\n"
    assert result["diff"]["after"].splitlines()[0] == "PLANNING, upgrade u1, 0 % done"
    assert len(result["diff"]["after"].splitlines()) < 10
    assert result["document"] == host.saved()


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


@pytest.mark.parametrize(("outcome", "state"), [("succeeded", "COMPLETED"), ("rolled_back", "ROLLED_BACK")])
def test_what_a_dead_run_had_done_but_not_closed_is_closed_as_it_ended(host: Host, outcome: str, state: str) -> None:
    host.begin(steps=[NODE.key])
    host.go(NODE, "verifying")
    host.end(NODE, outcome)
    result = host.begin(run={**OTHER_RUN, "dead": ["u1"]})
    assert "resumes" not in result["document"]["upgrade"]
    archived = json.loads((host.root / "history" / "u1.json").read_text())["upgrade"]
    assert (archived["state"], archived["outcome"], archived["phases"]["exporters"]["state"]) == (
        state,
        outcome,
        "completed" if outcome == "succeeded" else "failed",
    )
    assert f"with all its steps ended; it is closed as {state}" in " ".join(map(message_of, result["warnings"]))


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
        "sha256": "a" * 64,
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


def test_what_is_confirmed_is_not_aborted_by_what_failed_after_it(host: Host) -> None:
    host.begin(steps=[NODE.key])
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    result = host.end(NODE, "aborted")
    assert (result["changed"], host.component()["state"]) == (False, "success")
    assert "node_exporter@1.9.0 is confirmed already, and stays so" in message_of(result["warnings"][0])
    assert host.act("close", abandon=True)["document"]["upgrade"]["state"] == "COMPLETED"


def test_close_leaves_an_upgrade_open_whose_steps_are_for_a_later_phase(host: Host) -> None:
    host.begin()
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    result = host.act("close")
    assert (result["changed"], result["finished"], result["progress_percent"]) == (False, False, 50)
    assert "upgrade_id" not in _store.read_lease(str(host.root))
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
    assert "upgrade_id" not in _store.read_lease(str(host.root))


def test_close_leaves_what_was_brought_ahead_of_another_upgrade(host: Host) -> None:
    host.begin(steps=[NODE.key])
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    for key in ("other@2", "node_exporter@9"):
        (host.root / "staging" / key).mkdir(exist_ok=True)
        (host.root / "staging" / key / "ahead").touch()
    host.act("close")
    assert [path.name for path in (host.root / "staging").iterdir()] == ["other@2"]


def test_close_clears_up_what_runs_left_that_were_cut_off(host: Host) -> None:
    host.begin(steps=[NODE.key])
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    backups = host.root / "backups"
    for name in ("u0.node_exporter-1.5.0", "u0.x-1.new", "u0.x-1.removed", "by-hand"):
        (backups / name).mkdir()
    (backups / "u0.node_exporter-1.5.0" / "manifest.json").touch()
    host.act("close")
    assert sorted(path.name for path in backups.iterdir()) == ["by-hand", "u1.node_exporter-1.5.0"]


def test_close_records_last_that_the_upgrade_has_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is open for the next run as long as anything is left to be cleared up."""
    host.begin(steps=[NODE.key])
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    monkeypatch.setattr(_restore_point, "sweep", lambda session: pathlib.Path("/nowhere").rmdir())
    assert host.act("close")["failed"] is True
    assert host.saved()["upgrade"]["state"] == "UPGRADING"


def mark(host: Host, **arguments: t.Any) -> Data:
    kept = host.root.parent / "rules.yml"
    kept.write_text("rules")
    return host.act("mark", **{"component": "node_exporter", "paths": [str(kept)], "path_kind": "config", **arguments})


def forget(host: Host, **arguments: t.Any) -> Data:
    return host.act("forget", **{"backup_id": "u1.node_exporter-1.5.0", **arguments})


# What an action is for: how far a step has come before it, and the action.
ACTIONS: dict[str, tuple[str, t.Callable[..., Data]]] = {
    "begin": ("nothing", lambda host, **check: host.begin(**check)),
    "begin the next phase": (
        "staged",
        lambda host, **check: host.begin(phase="metrics", steps=["loki@3.0.0"], **check),
    ),
    "advance": ("nothing planned", lambda host, **check: host.act("advance", state="UPGRADING", **check)),
    "start": ("nothing planned", lambda host, **check: start(host, NODE, **check)),
    "start what isn't planned": ("nothing planned", lambda host, **check: start(host, Step("loki", "3.0.0"), **check)),
    "confirm": ("verifying", lambda host, **check: host.end(NODE, "succeeded", **check)),
    "abort": ("staged", lambda host, **check: host.end(NODE, "aborted", **check)),
    "roll back": ("activated", lambda host, **check: host.end(NODE, "rolled_back", **check)),
    "fail": ("verifying", lambda host, **check: host.end(NODE, "failed", **check)),
    "checkpoint": ("staged", lambda host, **check: host.act("checkpoint", name="half", description="way", **check)),
    "mark": ("staged", mark),
    "forget": ("ended", forget),
    "close": ("verifying", lambda host, **check: host.act("close", abandon=True, **check)),
    "reset": ("ended", lambda host, **check: host.act("reset", force=True, **check)),
}


def start(host: Host, step: Step = NODE, **arguments: t.Any) -> Data:
    return host.act("start", component=step.component, version=step.to_version, from_version="1.5.0", **arguments)


def prepared(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., Data]:
    """A host in the state that an action is for. Time goes on by a minute at every look."""
    state, action = ACTIONS[name]
    if state != "nothing":
        host.begin()
    if state == "ended":
        host.go(NODE, "verifying")
        host.end(NODE, "succeeded")
    elif not state.startswith("nothing"):
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
    assert foreseen["diff"] == done["diff"]


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
        ({}, "action"),
        ({"action": "get"}, "action"),
        ({"action": "begin", "steps": STEPS}, "run"),
        ({"action": "begin", "run": RUN, "phases": {"exporters": "node_exporter@1.9.0"}}, "exporters must be a list"),
        ({"action": "begin", "run": RUN, "steps": ["../x@1"]}, "'../x' can't be the name of a component"),
        ({"action": "begin", "run": RUN, "steps": ["x"]}, "'' can't be the name of a version"),
        ({"action": "begin", "run": RUN, "phase": "a b"}, "'a b' can't be the name of a phase"),
        ({"action": "advance"}, "state"),
        ({"action": "advance", "state": "COMPLETED"}, "state"),
        ({"action": "start", "component": "x"}, "version"),
        ({"action": "start", "component": "..", "version": "1"}, "'..' can't be the name of a component"),
        ({"action": "checkpoint"}, "name"),
        ({"action": "checkpoint", "name": "a/b"}, "'a/b' can't be the name of a checkpoint"),
        ({"action": "mark"}, "component"),
        ({"action": "begin", "steps": STEPS, "run": {"user": "ops"}}, "upgrade_id"),
        ({"action": "confirm", "component": "x"}, "version"),
        ({"action": "fail", "component": "x", "version": "1", "outcome": "failed"}, "error"),
        ({"action": "fail", "component": "x", "version": "1", "error": "x", "outcome": "lost"}, "outcome"),
        ({"action": "forget"}, "backup_id"),
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
    lease = (host.root / "upgrade.lock").read_bytes()
    result = host.begin(run={**OTHER_RUN, "dead": ["u1"]})
    assert (result["failed"], result["key"]) == (True, "state.newer_schema")
    assert "use the newer collection that wrote it" in result["msg"]
    assert (host.root / "upgrade.lock").read_bytes() == lease
    assert host.files() == before


PHASES = {"exporters": [NODE.key, BLACKBOX.key], "metrics": ["prometheus@3.5.3"]}


def phases_of(result: Data) -> dict[str, str]:
    return {name: phase["state"] for name, phase in result["document"]["upgrade"]["phases"].items()}


def test_the_files_that_were_swapped_are_those_of_the_inventory(host: Host) -> None:
    host.begin()
    host.go(NODE, "verifying")
    program = host.root.parent / "one"
    program.write_text("new")
    with _store.session(str(host.root), run=RUN) as session:
        files = [{"path": str(program), "before": None, "after": sha256(program)}]
        session.document.set_component(NODE.component, "verifying", now=session.now, files=files)
        session.save()
    host.end(NODE, "succeeded", paths=[])
    assert host.component()["inventory"]["paths"] == [str(program)]


def test_phases_are_planned_started_and_ended_in_order(host: Host) -> None:
    begun = host.begin(steps=[], phases=PHASES)
    assert begun["document"]["upgrade"]["steps"] == dict.fromkeys([*STEPS, "prometheus@3.5.3"], "pending")
    assert list(begun["document"]["upgrade"]["phases"]) == ["exporters", "metrics"]
    assert phases_of(begun) == {"exporters": "in_progress", "metrics": "pending"}
    for step in (NODE, BLACKBOX):
        host.go(step, "verifying")
        host.end(step, "succeeded")
    closed = host.act("close")
    assert (closed["changed"], closed["finished"], closed["progress_percent"]) == (True, False, 67)
    assert phases_of(closed) == {"exporters": "completed", "metrics": "pending"}
    assert list((host.root / "history").iterdir()) == []
    host.begin(steps=[], phases=PHASES, phase="metrics")
    host.end(Step("prometheus", "3.5.3"), "aborted")
    ended = host.act("close")
    assert (ended["finished"], phases_of(ended)) == (True, {"exporters": "completed", "metrics": "failed"})
    phase = ended["document"]["upgrade"]["phases"]["metrics"]
    assert (phase["error"], phase["started_at"], phase["finished_at"]) != (None, None, None)
    assert phase["error"] == "it broke"


def test_a_phase_that_is_started_again_loses_nothing(host: Host) -> None:
    host.begin(steps=[], phases=PHASES)
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    before = host.files()
    again = host.begin(steps=[], phases=PHASES)
    assert (again["changed"], again["document"]["upgrade"]["steps"][NODE.key]) == (False, "succeeded")
    assert host.files() == before


@pytest.mark.parametrize(
    ("here", "state", "passes"),
    [
        ("PLANNING", "UPGRADING", "UPGRADING"),
        ("PLANNING", "VALIDATING", "VALIDATING"),
        ("UPGRADING", "UPGRADING", "UPGRADING"),
        ("UPGRADING", "ROLLING_BACK", "ROLLING_BACK"),
        ("VALIDATING", "ROLLING_BACK", "ROLLING_BACK"),
        ("PLANNING", "ROLLING_BACK", None),
        ("VALIDATING", "UPGRADING", None),
        ("ROLLING_BACK", "UPGRADING", None),
    ],
)
def test_an_upgrade_advances_as_its_table_says(host: Host, here: str, state: str, passes: str | None) -> None:
    host.begin()
    if here == "ROLLING_BACK":
        host.act("advance", state="UPGRADING")
    host.act("advance", state=here)
    result = host.act("advance", state=state)
    if passes is None:
        assert (result["failed"], result["key"]) == (True, "state.illegal_transition")
        assert f"from {here} to {state}" in result["msg"]
    else:
        assert (result["changed"], result["document"]["upgrade"]["state"]) == (here != state, passes)


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("advance", {"state": "UPGRADING"}),
        ("start", {"component": "x", "version": "1"}),
        ("checkpoint", {"name": "x"}),
        ("mark", {"component": "x", "paths": ["/etc/hosts"]}),
    ],
)
def test_what_only_an_upgrade_can_do_is_refused_without_one(host: Host, action: str, arguments: Data) -> None:
    result = host.act(action, run=None, **arguments)
    assert (result["failed"], result["key"]) == (True, "state.no_upgrade")
    assert "no upgrade is under way on this host, it is IDLE. Begin one first" in result["msg"]


def test_each_start_is_an_attempt_and_the_first_restore_point_stays(host: Host) -> None:
    host.begin()
    assert [start(host)["changed"] for _turn in range(2)] == [True, False]
    assert host.component()["attempts"] == 1
    host.end(NODE, "aborted")
    assert start(host)["document"]["upgrade"]["steps"][NODE.key] == "pending"
    record = host.component()
    assert (record["attempts"], record["state"], record["last_error"]) == (2, "checking", "it broke")
    host.go(NODE, "activated")
    start(host)
    assert host.component()["backup_id"] == "u1.node_exporter-1.5.0"


def test_checkpoints_are_kept_with_the_revision_that_has_them_first(host: Host) -> None:
    host.begin()
    host.act("checkpoint", name="one", description="first")
    host.act("checkpoint", name="two")
    host.act("checkpoint", name="one", description="other")
    points = host.saved()["upgrade"]["checkpoints"]
    assert [(point["name"], point["description"]) for point in points] == [("two", None), ("one", "other")]
    assert points[-1]["revision"] == host.saved()["revision"]


def test_a_marked_restore_point_keeps_files_and_is_kept_as_it_is(host: Host) -> None:
    host.begin()
    host.go(NODE, "staged")
    first = mark(host)
    assert first["backup_id"] == "u1.node_exporter-unknown.marked"
    points = host.component()["inventory"]["restore_points"]
    assert [(point["id"], point["marked"]) for point in points] == [(first["backup_id"], True)]
    assert host.component()["backup_id"] is None
    kept = host.root / "backups" / first["backup_id"]
    assert (kept / "0-rules.yml").read_text() == "rules"
    (host.root.parent / "other").write_text("other")
    refused = mark(host, paths=[str(host.root.parent / "other")])
    assert (refused["failed"], refused["key"]) == (True, "state.restore_point_exists")
    named = mark(host, paths=[str(host.root.parent / "other")], name="other", version="1.5.0")
    assert (named["changed"], named["backup_id"]) == (True, "u1.node_exporter-1.5.0.other")
    missing = mark(host, paths=["/nowhere"], name="missing")
    assert (missing["failed"], missing["key"]) == (True, "restore_point.no_file")
    assert (kept / "0-rules.yml").read_text() == "rules"


@pytest.mark.parametrize("state", ["activated", "verifying", "failed"])
def test_the_restore_point_that_a_step_needs_is_not_forgotten(host: Host, state: str) -> None:
    host.begin()
    host.go(NODE, "verifying" if state == "failed" else state)
    if state == "failed":
        host.end(NODE, "failed")
    before = host.files()
    result = forget(host)
    assert (result["failed"], result["key"]) == (True, "state.restore_point_needed")
    assert f"is what node_exporter ({state}) would be brought back from" in result["msg"]
    assert host.files() == before


def test_a_restore_point_is_forgotten_by_the_record_first(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(host, "forget", monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(_store.Session, "remove_tree", lambda _session, path: pytest.fail("killed here"))
        with pytest.raises(pytest.fail.Exception):
            forget(host)
    assert host.component()["inventory"]["restore_points"] == []
    assert forget(host)["changed"] is True
    assert list((host.root / "backups").iterdir()) == []
    assert forget(host)["changed"] is False
    assert forget(host, backup_id="../state.json")["key"] == "input.name"


def test_an_upgrade_under_way_is_reset_by_force_only_and_what_was_touched_stays(host: Host) -> None:
    host.begin()
    host.go(NODE, "verifying")
    host.end(NODE, "succeeded")
    host.go(BLACKBOX, "activated")
    refused = host.act("reset")
    assert (refused["failed"], refused["key"]) == (True, "state.under_way")
    assert "upgrade u1 is in UPGRADING, and can't be acknowledged before it has ended" in refused["msg"]
    result = host.act("reset", force=True)
    assert result["document"]["upgrade"]["state"] == "IDLE"
    states = {name: record["state"] for name, record in result["document"]["components"].items()}
    assert states == {"node_exporter": "idle", "blackbox_exporter": "activated"}
    assert host.component()["inventory"]["current_version"] == "1.9.0"
    assert "blackbox_exporter can't be acknowledged" in " ".join(map(message_of, result["warnings"]))
    archived = json.loads((host.root / "history" / "u1.json").read_text())["upgrade"]
    assert (archived["state"], archived["errors"][-1]["message"]) == (
        "FAILED",
        "cut off in UPGRADING; it was reset by force",
    )


@pytest.mark.parametrize(("action", "arguments"), [("reset", {}), ("forget", {"backup_id": "x"})])
def test_an_action_outside_of_an_upgrade_leaves_no_lease(host: Host, action: str, arguments: Data) -> None:
    host.act(action, **arguments)
    assert "upgrade_id" not in _store.read_lease(str(host.root))
    host.begin()
    host.act(action, **arguments)
    assert _store.read_lease(str(host.root))["upgrade_id"] == "u1"


def test_a_run_does_not_close_what_another_has_begun_since(host: Host) -> None:
    host.begin()
    host.begin(run={**OTHER_RUN, "dead": ["u1"]})
    host.act("close", run=OTHER_RUN)
    before = host.files()
    result = host.act("close", abandon=True)
    assert (result["failed"], result["key"]) == (True, "lock.lost")
    assert "upgrade u2 has begun on this host since" in result["msg"]
    assert host.files() == before
    assert "upgrade_id" not in _store.read_lease(str(host.root))


def test_the_history_is_chained_and_kept_to_a_number(host: Host) -> None:
    for number in range(1, 6):
        run = {**RUN, "upgrade_id": f"r{number}"}
        host.begin(run=run, steps=[])
        host.act("close", run=run, history_keep=3)
    kept = sorted(path.name for path in (host.root / "history").iterdir())
    assert kept == ["r3.json", "r4.json", "r5.json"]
    before = sha256(host.root / "history" / "r4.json")
    assert json.loads((host.root / "history" / "r5.json").read_text())["previous"] == before
    oldest = json.loads((host.root / "history" / "r3.json").read_text())["previous"]
    assert host.saved()["history"] == {"head": sha256(host.root / "history" / "r5.json"), "base": oldest}


def test_a_rehearsal_after_an_upgrade_of_another_run_has_nothing_to_close(host: Host) -> None:
    """Its own upgrade was never begun on disk."""
    host.begin(run=OTHER_RUN)
    host.act("close", run=OTHER_RUN, abandon=True)
    before = snapshot(host.root)
    assert host.begin(check=True)["changed"] is True
    assert host.act("close", check=True)["changed"] is False
    assert snapshot(host.root) == before
