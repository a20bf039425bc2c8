# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What went wrong in the systems that this one follows, and must not go wrong here.

S0 and S1 are two state machines in shell, the letters are an agent in Go. Each test names the defect by its number, and
its docstring says what was seen there. The end of this file checks that none is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import time
import types
import typing as t

import pytest
import yaml
from ansible_collections.observability.stack.plugins.module_utils import (
    _files,
    _guard,
    _health,
    _history,
    _module,
    _process,
    _restore_point,
    _store,
)
from ansible_collections.observability.stack.plugins.module_utils._errors import StateError
from ansible_collections.observability.stack.plugins.module_utils._state import Document, Step
from ansible_collections.observability.stack.plugins.modules import (
    health_probe,
    safe_binary_swap,
    upgrade_state,
    upgrade_state_info,
)
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _run, _versions
from ansible_collections.observability.stack.tests.unit.plugins import conftest as fixtures
from ansible_collections.observability.stack.tests.unit.support import (
    CAP_NET_RAW,
    CAPABILITY,
    OTHER_RUN,
    RUN,
    Call,
    Data,
    Systemd,
    message_of,
    running,
    sha256,
    snapshot,
)
from ansible_collections.observability.stack.tests.unit.surveys import drafted, facts, survey

call, state_dir, systemd = fixtures.call, fixtures.state_dir, fixtures.systemd

ROOT = pathlib.Path(__file__).parents[2]
MODULES = "ansible_collections.observability.stack.plugins.modules"
NODE, LOKI = Step("node_exporter", "1.9.0"), Step("loki", "3.0.0")
NEXT_RUN = {**OTHER_RUN, "dead": ["u1"]}
"""A run that knows the first one to be dead."""


class Host:
    """A host with old programs and their new ones, on which modules are called."""

    def __init__(self, call: Call, root: pathlib.Path, state: pathlib.Path, systemd: Systemd) -> None:
        self.bin, self.staged, self.state, self.systemd = root / "bin", root / "staged", state, systemd
        self._call = call
        for directory, what in ((self.bin, "old"), (self.staged, "new")):
            directory.mkdir()
            for step in (NODE, LOKI):
                (directory / step.component).write_text(what)
                (directory / step.component).chmod(0o755)
        systemd.add("any.service", str(self.bin / "any"), pid=os.getpid())

    def call(self, module: types.ModuleType, **arguments: t.Any) -> Data:
        return self._call(module, **{"run": RUN, **arguments})

    def act(self, action: str, step: Step | None = None, **arguments: t.Any) -> Data:
        named = {"component": step.component, "version": step.to_version} if step else {}
        return self.call(upgrade_state, action=action, **{**named, **arguments})

    def begin(self, *steps: Step, **arguments: t.Any) -> Data:
        keys = [step.key for step in steps or (NODE,)]
        return self.act("begin", **{"phase": "exporters", "steps": keys, **arguments})

    def info(self, **arguments: t.Any) -> Data:
        return self.call(upgrade_state_info, **arguments)

    def swap(self, step: Step = NODE, **arguments: t.Any) -> Data:
        files = [{"src": str(self.staged / step.component), "dest": str(self.bin / step.component)}]
        named = {"component": step.component, "version": step.to_version, "from_version": "1.5.0"}
        return self.call(safe_binary_swap, **{**named, "files": files, **arguments})

    def prove(self, step: Step = NODE, *, probes: list[Data] | None = None, **arguments: t.Any) -> Data:
        target = {
            "component": step.component,
            "unit": "any.service",
            "binary": str(self.bin / step.component),
            "url": "http://127.0.0.1:1",
            "probes": [{"kind": "systemd"}] if probes is None else probes,
        }
        named = {"component": step.component, "targets": [target], "timeout": 0, "window": 0}
        return self.call(health_probe, **{**named, **arguments})

    def upgrade(self, step: Step = NODE, *, run: Data | None = None) -> None:
        """All of a step, from its start to its confirmation."""
        run = run or RUN
        paths = [str(self.bin / step.component)]
        done = [
            self.swap(step, run=run),
            self.prove(step, run=run),
            self.act("confirm", step, run=run, paths=paths),
        ]
        assert [result.get("msg") for result in done if "failed" in result] == []

    def fail(self, step: Step = NODE, outcome: str = "aborted", **arguments: t.Any) -> Data:
        return self.act("fail", step, **{"outcome": outcome, "error": "it broke", **arguments})

    def change(self, change: t.Callable[[Document], t.Any], *, run: Data | None = None) -> None:
        """What no module does alone."""
        with _store.session(str(self.state), run=run) as session:
            change(session.document)
            session.save()

    def document(self) -> Data:
        return t.cast("Data", json.loads((self.state / "state.json").read_text()))

    def record(self, step: Step = NODE) -> Data:
        return t.cast("Data", self.document()["components"][step.component])

    def content(self, step: Step = NODE) -> str:
        return (self.bin / step.component).read_text()

    def kept(self, backup_id: str) -> str:
        """The program in a restore point."""
        return next((self.state / "backups" / backup_id).glob("0-*")).read_text()

    def files(self) -> dict[str, tuple[t.Any, ...]]:
        """All that is there but the lease, which every module of a run renews."""
        seen = snapshot(self.state, self.bin)
        return {path: each for path, each in seen.items() if not path.endswith("upgrade.lock")}


@pytest.fixture
def host(
    call: Call, tmp_path: pathlib.Path, state_dir: pathlib.Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> Host:
    monkeypatch.setattr(_module, "os", types.SimpleNamespace(geteuid=lambda: 0))
    return Host(call, tmp_path, state_dir, systemd)


def failed(result: Data, key: str) -> bool:
    return (result.get("failed"), result.get("key")) == (True, key)


# -- the first state machine ------------------------------------------------------------------------------------------


def test_s0_1_from_planning_to_upgrading(host: Host) -> None:
    """Its own quick start, PLANNING -> UPGRADING, was an invalid transition."""
    host.begin()
    seen = [host.document()["upgrade"]["state"]]
    for action in (
        lambda: host.act("advance", state="UPGRADING"),
        lambda: host.act("start", NODE, from_version="1.5.0"),
        host.swap,
        lambda: host.act("advance", state="VALIDATING"),
        host.prove,
        lambda: host.act("confirm", NODE),
        lambda: host.act("close"),
    ):
        assert "failed" not in action()
        seen.append(host.document()["upgrade"]["state"])
    assert list(dict.fromkeys(seen)) == ["PLANNING", "UPGRADING", "VALIDATING", "COMPLETED"]


@pytest.mark.parametrize("run", [RUN, NEXT_RUN], ids=["the same run", "the next run"])
def test_s0_2_a_phase_that_starts_again_keeps_what_became_of_it(host: Host, run: Data) -> None:
    """The second start of a phase wiped its components, so that what was upgraded was upgraded again."""
    host.begin(NODE, LOKI)
    host.upgrade()
    phase = host.document()["upgrade"]["phases"]["exporters"]
    again = host.begin(NODE, LOKI, run=run)["document"]
    assert (again["components"]["node_exporter"]["state"], again["components"]["node_exporter"]["attempts"]) == (
        "success",
        1,
    )
    assert host.info(component="node_exporter", version="1.9.0")["is_upgraded"] is True
    if run is RUN:
        assert again["upgrade"]["phases"]["exporters"] == phase
        assert again["upgrade"]["steps"] == {NODE.key: "succeeded", LOKI.key: "pending"}


def test_s0_3_a_retry_keeps_the_attempts_and_the_first_restore_point(host: Host) -> None:
    """The retry set attempts back and backup_path to null, so that the second backup was of the broken program."""
    host.begin()
    first = host.swap()["backup_id"]
    (host.bin / "node_exporter").write_text("half of the new one")
    for action in (
        lambda: host.begin(run=NEXT_RUN),
        lambda: host.act("start", NODE, run=NEXT_RUN),
        lambda: host.swap(run=NEXT_RUN),
    ):
        assert "failed" not in action()
        assert host.record()["backup_id"] == first
    assert (host.record()["attempts"], host.record()["from_version"]) == (2, "1.5.0")
    assert host.kept(first) == "old"


def test_s0_3_what_could_not_be_undone_keeps_its_restore_point_for_the_next_attempt(host: Host) -> None:
    """The same, after a failure that left the broken program in place."""
    host.begin()
    first = host.swap()["backup_id"]
    host.fail(outcome="failed")
    host.act("close", abandon=True, keep=0)
    host.begin(run=OTHER_RUN)
    assert host.swap(run=OTHER_RUN)["backup_id"] == first
    assert host.kept(first) == "old"
    assert host.call(safe_binary_swap, state="restored", component="node_exporter", run=OTHER_RUN)["changed"] is True
    assert host.content() == "old"


def test_s0_4_attempts_are_starts(host: Host) -> None:
    """The first failure made attempts 2."""
    host.begin()
    for expected in (1, 2, 3):
        host.act("start", NODE)
        assert host.record()["attempts"] == expected
        host.fail()
        assert host.record()["attempts"] == expected


def test_s0_5_a_component_of_a_phase_that_has_ended_is_upgraded(host: Host) -> None:
    """Only the current phase was looked at, and only its record."""
    host.begin(phases={"exporters": [NODE.key], "logging": [LOKI.key]}, steps=[])
    host.upgrade()
    host.act("close")
    host.begin(phase="logging", steps=[])
    assert host.document()["upgrade"]["phase"] == "logging"
    assert host.info(component="node_exporter", version="1.9.0")["is_upgraded"] is True
    assert host.info(component="node_exporter", version="1.5.0")["is_upgraded"] is False
    (host.bin / "node_exporter").write_text("another, put there by hand")
    assert host.info(component="node_exporter", version="1.9.0")["is_upgraded"] is False


def test_s0_6_progress_counts_what_is_planned(host: Host) -> None:
    """After the first of several components it was 100 %."""
    host.begin(NODE, LOKI, Step("grafana", "11.0.0"), Step("promtail", "3.0.0"))
    seen = [host.info()["progress_percent"]]
    for step in (NODE, LOKI):
        host.upgrade(step)
        seen.append(host.info()["progress_percent"])
    assert seen == [0, 25, 50]


def test_s0_7_the_end_of_an_upgrade_that_failed_is_on_record_and_can_be_gone_on_from(host: Host) -> None:
    """Clearing up after a failure swallowed its own error, told success, and left the state where it was."""
    host.begin(NODE, LOKI)
    host.act("start", NODE)
    host.fail()
    left = host.act("close")
    assert (left["finished"], left["document"]["upgrade"]["state"]) == (False, "PLANNING")
    host.begin(NODE, LOKI)
    closed = host.act("close", abandon=True)
    assert (closed["finished"], closed["document"]["upgrade"]["state"]) == (True, "FAILED")
    assert closed["document"]["upgrade"]["steps"] == {NODE.key: "aborted", LOKI.key: "pending"}
    assert host.info()["history"][0]["outcome"] == "aborted"
    host.begin(NODE, LOKI, run=OTHER_RUN)
    host.upgrade(run=OTHER_RUN)
    assert host.record()["attempts"] == 2


def test_s0_7_an_end_that_can_not_be_recorded_fails(host: Host) -> None:
    """The same, where the history can't be written."""
    host.begin()
    shutil.rmtree(host.state / "history")
    (host.state / "history").write_text("")
    assert failed(host.act("close", abandon=True), "files.not_private")
    assert host.document()["upgrade"]["state"] == "PLANNING"


@pytest.mark.parametrize(
    ("here", "goal"),
    [
        *[(state, "FAILED") for state in ("PLANNING", "BACKING_UP", "UPGRADING", "VALIDATING", "ROLLING_BACK")],
        ("UPGRADING", "ROLLING_BACK"),
        ("VALIDATING", "ROLLING_BACK"),
    ],
)
def test_s0_8_every_active_state_can_fail_and_what_was_changed_can_roll_back(host: Host, here: str, goal: str) -> None:
    """These transitions were documented, and impossible."""
    host.begin()
    for state in (["UPGRADING"] if here == "ROLLING_BACK" else []) + [here]:
        assert host.act("advance", state=state)["document"]["upgrade"]["state"] == state
    if goal == "ROLLING_BACK":
        assert host.act("advance", state=goal)["document"]["upgrade"]["state"] == goal
    host.act("start", NODE)
    host.fail(outcome="failed")
    assert host.act("close")["document"]["upgrade"]["state"] == "FAILED"


def test_s0_9_two_runs_of_the_same_second_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ids of the same second were equal, and the second upgrade overwrote the first one's history."""
    monkeypatch.setattr(_run, "identity", lambda pid: {"pid": pid, "start_ticks": 7, "boot": "b"})
    ids = []
    for pid in (4711, 4712):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        ids.append(_run.this_run()["upgrade_id"])
    assert len(set(ids)) == 2


def test_s0_9_an_archive_is_never_overwritten(host: Host) -> None:
    """The same, for a run that upgrades a host twice."""
    for outcome in ("aborted", "failed"):
        host.begin()
        host.act("start", NODE)
        host.fail(outcome=outcome)
        host.act("close")
    archives = _history.read_all(str(host.state / "history"))
    assert {each.upgrade["outcome"] for each in archives} == {"aborted", "failed"}


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"start_ticks": 5}, True),
        ({"origin": "another machine", "start_ticks": 5}, False),
        ({"pid": 2**22 + 1}, True),
    ],
    ids=["it lives, and is somebody else's", "its pid was given to another", "another machine's", "gone"],
)
def test_s0_10_a_holder_is_dead_only_if_that_is_known(changes: Data, dead: bool) -> None:
    """A process that may not be signalled was taken for dead, one with a reused pid for alive; no host was compared."""
    process = _process.identity(1)
    run = {"origin": "this machine", "boot": process["boot"]}
    lease = {**process, "origin": "this machine", **changes}
    assert _run.is_dead(lease, run) is dead


def test_s0_10_of_two_that_break_a_stale_lock_one_wins(host: Host) -> None:
    """Breaking it was a look and then an rm, so that both of two could."""
    host.begin()
    first, second = {**NEXT_RUN, "upgrade_id": "u2"}, {**NEXT_RUN, "upgrade_id": "u3"}
    assert "failed" not in host.begin(run=first)
    inode = (host.state / "upgrade.lock").stat().st_ino
    assert failed(host.begin(run=second), "lock.held")
    assert (host.state / "upgrade.lock").stat().st_ino == inode
    assert _store.read_lease(str(host.state))["upgrade_id"] == "u2"


def test_s0_11_a_write_is_private_beside_its_place_and_durable(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file was in another directory, got its mode after the rename, and nothing was synced."""
    host.begin()
    seen: list[t.Any] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        seen.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        mode = stat.S_IMODE(os.stat(source, dir_fd=src_dir_fd).st_mode)
        seen.append((os.path.sameopenfile(src_dir_fd, dst_dir_fd), mode, os.path.basename(target)))
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    with _store.session(str(host.state), run=RUN) as session:
        session.document.checkpoint("here", None, now=session.now)
        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(os, "rename", note_rename)
        session.save()
    assert seen == ["file", (True, 0o600, "state.json"), "directory"]


def test_s0_12_a_damaged_record_is_rebuilt_and_never_the_last_upgrade_s(host: Host) -> None:
    """The advice was to copy the newest history in its place: that is the upgrade before."""
    host.begin()
    host.upgrade()
    host.act("close")
    host.begin(LOKI, run=OTHER_RUN)
    (host.state / "state.json").write_text('{"upgrade": {"state": "UPGR')
    result = host.begin(LOKI, run=OTHER_RUN)
    document = result["document"]
    assert (document["upgrade"]["upgrade_id"], document["upgrade"]["state"]) == ("u2", "PLANNING")
    assert document["components"]["node_exporter"]["inventory"]["current_version"] == "1.9.0"
    assert len(document["components"]["node_exporter"]["inventory"]["restore_points"]) == 1
    assert pathlib.Path(document["repairs"][-1]["set_aside"]).read_text() == '{"upgrade": {"state": "UPGR'
    assert "was damaged" in " ".join(map(message_of, result["warnings"]))


MUTATORS: dict[str, t.Callable[[Host, Data], Data]] = {
    "advance": lambda host, run: host.act("advance", state="UPGRADING", run=run),
    "start": lambda host, run: host.act("start", LOKI, run=run),
    "confirm": lambda host, run: host.act("confirm", NODE, run=run),
    "fail": lambda host, run: host.fail(outcome="failed", run=run),
    "checkpoint": lambda host, run: host.act("checkpoint", name="here", run=run),
    "mark": lambda host, run: host.act(
        "mark", component="node_exporter", paths=[str(host.bin / "node_exporter")], run=run
    ),
    "begin": lambda host, run: host.begin(run=run),
    "close": lambda host, run: host.act("close", abandon=True, run=run),
    "forget": lambda host, run: host.act("forget", backup_id="u1.node_exporter-1.5.0", run=run),
    "reset": lambda host, run: host.act("reset", force=True, run=run),
    "swap": lambda host, run: host.swap(LOKI, run=run),
    "undo": lambda host, run: host.call(safe_binary_swap, state="restored", component="node_exporter", run=run),
    "probe": lambda host, run: host.prove(run=run),
}


@pytest.mark.parametrize("name", MUTATORS)
def test_s0_13_who_does_not_have_the_lock_changes_nothing(host: Host, name: str) -> None:
    """Everything could be written without the lock."""
    host.begin()
    host.swap()
    before = host.files()
    for run in (OTHER_RUN, None) if name != "begin" else (OTHER_RUN,):
        result = MUTATORS[name](host, t.cast("Data", run))
        assert result["failed"] is True
        assert result["key"] in ("lock.held", "lock.lost")
        assert host.files() == before


def test_s0_13_all_actions_are_among_them() -> None:
    """None may be added without."""
    assert set(upgrade_state.ACTIONS) <= set(MUTATORS)


# -- the second state machine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", ["started", "swapped", "proven"])
def test_s1_1_a_component_in_the_middle_of_its_step_is_driven_on(host: Host, reached: str) -> None:
    """After a crash, resuming skipped the component as upgraded already, and marked the upgrade completed."""
    host.begin()
    steps = {"started": lambda: host.act("start", NODE), "swapped": host.swap, "proven": host.prove}
    for name, step in steps.items():
        step()
        if name == reached:
            break
    assert host.begin(run=NEXT_RUN)["document"]["upgrade"]["steps"] == {NODE.key: "pending"}
    told = host.info(component="node_exporter", version="1.9.0", run=NEXT_RUN)
    assert (told["is_upgraded"], told["components"]["node_exporter"]["is_upgraded"]) == (False, False)
    assert failed(host.act("confirm", NODE, run=NEXT_RUN), "state.illegal_transition") is (reached != "proven")
    assert reached == "proven" or host.act("close", run=NEXT_RUN)["finished"] is False
    if reached != "proven":
        host.begin(run=NEXT_RUN)
        host.upgrade(run=NEXT_RUN)
    assert host.act("close", run=NEXT_RUN)["document"]["upgrade"]["state"] == "COMPLETED"
    assert (host.content(), host.record()["state"]) == ("new", "success")


@pytest.mark.parametrize("evidence", ["old", "new", "mixed"])
def test_s1_1_the_plan_goes_on_with_it_wherever_it_was_left(evidence: str) -> None:
    """The same, in the plan of the next run: whatever is on disk, it isn't done."""
    record = {"state": "activated", "attempts": 1, "from_version": "1.5.0", "to_version": "1.9.0", "backup_id": "b1"}
    found = survey(
        {"node_exporter": facts("node_exporter", "1.5.0" if evidence == "old" else "1.9.0")},
        records={"node_exporter": record},
        unfinished={"node_exporter": evidence},
    )
    planned = drafted(found, {"node_exporter": "1.9.0"})
    assert list(planned["steps"]) == [NODE.key]


def test_s1_1_what_could_not_be_undone_is_not_taken_for_done(tmp_path: pathlib.Path) -> None:
    """The same, for a step that failed and left the new program in place: nobody has proven that."""
    (tmp_path / "program").touch()
    files = [{"path": str(tmp_path / "program"), "before": "0", "after": hashlib.sha256(b"").hexdigest()}]
    versions = {"from_version": "1.5.0", "to_version": "1.9.0"}
    record = {"state": "failed", "outcome": "failed", "backup_id": "b1", "files": files, **versions}
    records = {"node_exporter": record}
    unfinished = _store.unfinished(records)
    found = survey({"node_exporter": facts("node_exporter", "1.9.0")}, records=records, unfinished=unfinished)
    planned = drafted(found, {"node_exporter": "1.9.0"})
    assert list(planned["steps"]) == [NODE.key]


def test_s1_2_a_started_attempt_keeps_its_restore_point(host: Host) -> None:
    """The retry set backup_path to null."""
    host.begin()
    first = host.swap()["backup_id"]
    for run in (RUN, NEXT_RUN):
        host.begin(run=run)
        host.act("start", NODE, run=run)
        assert host.record()["backup_id"] == first
    assert host.record()["attempts"] == 2


def test_s1_3_no_tests_are_no_success(tmp_path: pathlib.Path) -> None:
    """Its suite told "All tests passed!" where none had run."""
    shutil.copy(ROOT / "tests" / "unit" / "conftest.py", tmp_path)
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")

    def status(*options: str) -> int:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *options]
        environment = {name: os.environ[name] for name in ("HOME", "PATH")}  # ansible-test's own settings are left out
        return subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, check=False).returncode

    assert (status(), status("-k", "nothing_is_called_so")) == (0, 1)


def test_s1_3_a_stage_that_fails_and_no_stage_at_all_are_no_success(tmp_path: pathlib.Path) -> None:
    """The same, for what runs all the checks."""
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text('#!/bin/sh\nfor stage; do :; done\n[ "$stage" = good ]\n')
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{make.parent}:{os.environ['PATH']}"}

    def stages(*names: str) -> tuple[int, str]:
        command = [str(ROOT / "tests" / "tools" / "stages"), *names]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()[-1]

    assert stages("good") == (0, "1 passed, 0 failed")
    assert stages("good", "bad", "good") == (1, "2 passed, 1 failed")
    assert stages() == (1, "0 passed, 0 failed")


def test_s1_3_every_module_can_be_given_another_place() -> None:
    """The same suite wrote to the real /var/lib."""
    for path in sorted((ROOT / "plugins" / "modules").glob("*.py")):
        module = importlib.import_module(f"{MODULES}.{path.stem}")
        code = path.read_text(encoding="utf-8").replace(module.DOCUMENTATION, "").replace(module.EXAMPLES, "")
        fragments = yaml.safe_load(module.DOCUMENTATION).get("extends_documentation_fragment", [])
        assert ("observability.stack._common" in fragments) == ("arguments(" in code), path
        assert "/var/lib" not in code.replace(module.RETURN, ""), path
    assert "state_dir" in _module.arguments()


@pytest.mark.parametrize("name", ["my-exporter", "a.b", "x[0]", "$(id)", '"]|.x'])
def test_s1_4_names_are_data(host: Host, name: str) -> None:
    """A - in a component's name broke the expression that read its record."""
    step = Step(name, "1.0.0")
    result = host.begin(step)
    if name in ("my-exporter", "a.b"):
        host.act("start", step)
        host.fail(step)
        assert (host.record(step)["outcome"], host.info(component=name)["components"][name]["attempts"]) == (
            "aborted",
            1,
        )
        validate_schema(host.document())
    else:
        assert failed(result, "input.name")
        assert not (host.state / "state.json").exists()


def validate_schema(document: Data) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs" / "state.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)


def test_s1_5_numbers_in_versions_are_numbers() -> None:
    """3.0.0-rc.2 was newer than 3.0.0-rc.10."""
    in_order = ["3.0.0-beta.2", "3.0.0-rc.2", "3.0.0-rc.10", "3.0.0", "3.0.10", "3.10.0"]
    for versions in itertools.permutations(in_order, 2):
        assert (_versions.compare(*versions) < 0) == (in_order.index(versions[0]) < in_order.index(versions[1]))
    assert _versions.compare("3.0.0-rc.2", "3.0.0-rc.10") < 0


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        ("2.49.x", ["2.49.0", "2.49.1"], ["2.48.1", "2.50.0", "3.49.0"]),
        ("3.x.x", ["3.0.0", "3.5.3"], ["2.55.1", "4.0.0", "4.0.0-rc.1"]),
        ("~1.7.0", ["1.7.0", "1.7.9"], ["1.8.0", "1.6.9"]),
        (">=2.48.0 <4.0.0", ["2.48.0", "3.5.3"], ["2.47.9", "4.0.0"]),
    ],
)
def test_s1_6_constraints_are_understood_and_refuse(wanted: str, inside: list[str], outside: list[str]) -> None:
    """2.49.x and 3.x.x were rejected as constraints, and every version counted as compatible."""
    assert _versions.is_range(wanted)
    assert [version for version in inside + outside if _versions.matches(version, wanted)] == inside


def test_s1_7_a_program_belongs_to_one_component_in_one_place() -> None:
    """Scripts disagreed on the name and path of a component's program."""
    catalog = _catalog.load()
    names = [name for entry in catalog.values() for file in entry["files"] for name in (file["name"], *file["aliases"])]
    assert sorted(set(names)) == sorted(names)
    files = sorted((ROOT / "plugins" / "plugin_utils" / "catalog").iterdir())
    assert [path.stem for path in files] == sorted(catalog)
    elsewhere = [
        path
        for directory in ("roles", "playbooks/group_vars", "plugins/modules", "plugins/module_utils")
        for path in (ROOT / directory).rglob("*")
        if path.suffix in (".py", ".yml") and "releases/download" in path.read_text(encoding="utf-8")
    ]
    assert [path for path in elsewhere if "EXAMPLES" not in path.read_text(encoding="utf-8")] == []
    for name in ("nginx-prometheus-exporter", "php-fpm_exporter", "fail2ban-prometheus-exporter"):
        assert sum(name in (file["name"], *file["aliases"]) for e in catalog.values() for file in e["files"]) <= 1


def test_s1_8_without_a_restore_point_nothing_is_swapped(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a backup that failed it went on: "continuing anyway"."""
    host.begin()

    def full(*args: t.Any) -> t.NoReturn:
        raise OSError(28, "No space left")

    monkeypatch.setattr(_restore_point, "_keep", full)
    result = host.swap()
    assert failed(result, "host.os_error")
    assert (host.content(), sorted(path.name for path in host.bin.iterdir())) == ("old", ["loki", "node_exporter"])
    assert "node_exporter" not in host.document()["components"]
    assert [name for name in os.listdir(host.state / "backups") if not name.endswith(".new")] == []


def test_s1_8_what_is_not_installed_is_not_upgraded(host: Host) -> None:
    """What was not installed was taken for upgradeable, and then there was no way back."""
    host.begin()
    (host.bin / "node_exporter").unlink()
    assert failed(host.swap(), "swap.nothing_to_replace")
    assert not (host.bin / "node_exporter").exists()
    planned = drafted(survey({"node_exporter": facts("node_exporter", None)}), {"node_exporter": "1.9.0"})
    assert (planned["steps"], [finding["key"] for finding in planned["findings"]]) == (
        {},
        ["node_exporter.not_installed"],
    )


def test_s1_9_a_program_that_runs_is_restored_with_its_capabilities(host: Host) -> None:
    """Restoring copied onto the file that ran (text file busy), and lost its capabilities."""
    program, shell = host.bin / "node_exporter", shutil.which("bash") or ""
    shutil.copy(shell, program)
    os.setxattr(program, CAPABILITY, CAP_NET_RAW)
    before, old = _files.read_attributes(str(program)), sha256(program)
    shutil.copy(shell, host.staged / "node_exporter")
    with (host.staged / "node_exporter").open("ab") as candidate:
        candidate.write(b"new")
    host.begin()
    host.swap()
    assert sha256(program) != old
    with running(program, "-c", "echo up; read -r line"):
        assert host.call(safe_binary_swap, state="restored", component="node_exporter")["changed"] is True
    assert (sha256(program), _files.read_attributes(str(program))) == (old, before)


@pytest.mark.parametrize("probes", [[{"kind": "telepathy"}], []], ids=["unknown", "none"])
def test_s1_10_a_probe_that_nobody_knows_and_none_at_all_prove_nothing(host: Host, probes: list[Data]) -> None:
    """An unknown kind of check, and one without an endpoint, passed."""
    host.begin()
    host.swap()
    assert host.prove(probes=probes)["failed"] is True
    host.systemd.add("x.service", "/x", pid=os.getpid())
    target = {"component": "x", "unit": "x", "binary": "/x", "url": "", "probes": probes}
    (health,) = _health.wait(host.systemd, [target], timeout=0, window=0)
    assert health.healthy is False
    assert [verdict["ok"] for verdict in health.verdicts] == [False]


def test_s1_11_the_timer_has_one_trigger_and_asks_nothing_of_other_units(
    host: Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer had two triggers, so it fired each 15 minutes; its unit was required, and wanted absent directories."""
    units = tmp_path / "etc"
    units.mkdir()
    monkeypatch.setattr(_guard, "UNITS", str(units))
    monkeypatch.setattr(_guard, "_SYSTEMD_IS_HERE", str(tmp_path))
    monkeypatch.setattr(_guard, "run", host.systemd, raising=False)
    host.begin()
    target = {"component": "node_exporter", "unit": "any.service", "binary": "/x", "url": "", "probes": []}
    armed = host.swap(unit="any.service", guard={"confirm_within": 300, "target": target})
    assert "failed" not in armed, armed
    (command,) = host.systemd.commands("systemd-run")
    options = list(itertools.takewhile(lambda word: word != "--", command))
    assert [word for word in options if word.startswith("--on-")] == ["--on-active=300"]
    assert [word for word in options if re.search("OnCalendar|OnUnit|Requires|ReadWritePaths|Persistent", word)] == []
    (condition,) = units.rglob("*.conf")
    settings = [line.partition("=")[0] for line in condition.read_text().splitlines() if "=" in line]
    assert settings in (["ExecCondition"], ["ExecStartPre"])


def test_s1_12_the_lock_is_the_kernel_s(host: Host) -> None:
    """The lock was a file that was looked for and then written; the space was counted by a shell that can't."""
    host.begin()
    path = host.state / "upgrade.lock"
    inode = path.stat().st_ino
    with _store.session(str(host.state), run=RUN), path.open("rb") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    host.act("close", abandon=True)
    assert path.stat().st_ino == inode


def test_s1_12_no_task_runs_a_shell() -> None:
    """The same: nothing is computed in a shell."""
    tasks = [*(ROOT / "roles").rglob("tasks/*.yml"), *(ROOT / "playbooks").glob("*.yml")]
    assert len(tasks) > 10
    with_shell = [path for path in tasks if re.search(r"(shell|command|raw|script):", path.read_text(encoding="utf-8"))]
    assert with_shell == []


# -- the agent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "state"), [("aborted", "failed"), ("rolled_back", "rolled_back")])
def test_go_a_attempt_increments_on_retry_from_failed(host: Host, outcome: str, state: str) -> None:
    """A retry from failed or rolled_back was not counted, and kept the start of the first one."""
    host.begin()
    host.swap()
    assert failed(host.fail(outcome=outcome), "state.not_undone")
    host.call(safe_binary_swap, state="restored", component="node_exporter")
    host.fail(outcome=outcome)
    assert (host.record()["state"], host.record()["attempts"]) == (state, 1)
    host.change(lambda document: document.component("node_exporter").update(started_at="2020-01-01T00:00:00Z"), run=RUN)
    host.act("start", NODE)
    assert host.record()["attempts"] == 2
    assert host.record()["started_at"] > "2026"


def test_go_a_transition_sets_started_at(host: Host) -> None:
    """The same for the first."""
    before = _store.timestamp(time.time())
    host.begin()
    host.act("start", NODE)
    assert before <= host.record()["started_at"] <= _store.timestamp(time.time())


def test_go_b_attempt_resets_on_new_target(host: Host) -> None:
    """The comment said that attempts begin at 1 with a new target, the code set 0."""
    host.begin()
    host.act("start", NODE)
    host.fail()
    host.act("start", NODE)
    host.fail()
    host.act("start", Step("node_exporter", "1.9.1"))
    assert (host.record()["attempts"], host.record()["to_version"]) == (1, "1.9.1")


def test_go_c_a_success_ends_the_count(host: Host) -> None:
    """The count was to be reset on success, and was not."""
    host.begin()
    host.act("start", NODE)
    host.fail()
    host.upgrade()
    assert host.record()["attempts"] == 2
    host.act("start", NODE)
    assert host.record()["attempts"] == 1


def test_go_d_error_kept_on_failed_and_rolled_back(host: Host) -> None:
    """When an error is cleared was told otherwise than done."""
    host.begin()
    host.act("start", NODE)
    host.fail(error="first")
    assert (host.record()["state"], host.record()["last_error"]) == ("failed", "first")
    host.swap()
    assert host.record()["last_error"] == "first"  # it tells why there is another attempt
    host.call(safe_binary_swap, state="restored", component="node_exporter")
    host.fail(outcome="rolled_back", error="second")
    assert (host.record()["state"], host.record()["last_error"]) == ("rolled_back", "second")


def test_go_d_error_cleared_on_success_and_idle(host: Host) -> None:
    """The same."""
    for ended in ("success", "idle"):
        host.begin(NODE, LOKI)
        host.act("start", NODE)
        host.fail()
        if ended == "success":
            host.upgrade()
        host.act("close", abandon=True)
        if ended == "idle":
            host.act("reset")
        assert (host.record()["state"], host.record()["last_error"]) == (ended, None)


def test_go_e_from_version_updates_next_attempt(host: Host) -> None:
    """The version of the first upgrade was told as the one that the second came from."""
    host.begin()
    host.upgrade()
    assert host.record()["from_version"] == "1.5.0"
    host.act("start", Step("node_exporter", "1.10.0"))
    assert host.record()["from_version"] == "1.9.0"


def test_go_f_a_time_that_is_not_known_is_none(host: Host) -> None:
    """A time that was not set was written as the year 1."""
    host.begin()
    host.act("start", NODE)
    upgrade, record = host.document()["upgrade"], host.record()
    assert (upgrade["finished_at"], record["finished_at"], "updated_at" in upgrade) == (None, None, True)
    host.fail()
    host.act("close")
    times = re.findall(r'_at": "(\d+)-', (host.state / "state.json").read_text())
    assert len(times) > 5
    assert {year for year in times if int(year) < 2020} == set()


def test_go_g_load_missing_is_idle(host: Host) -> None:
    """The first run, without a file, is idle and no error."""
    told = host.info()
    assert (told["document"]["upgrade"], told["components"], told["in_progress"]) == ({"state": "IDLE"}, {}, False)
    assert not host.state.exists()


def test_go_g_a_record_that_is_none_is_not_believed(host: Host) -> None:
    """Any text was taken for a phase, and a damaged file was the end."""
    host.begin()
    dancing = host.document()
    dancing["upgrade"]["state"] = "DANCING"
    for content in (json.dumps(dancing), "", "{", "null"):
        (host.state / "state.json").write_text(content)
        result = host.begin()
        assert result["document"]["upgrade"]["state"] == "PLANNING"
        assert "was damaged" in " ".join(map(message_of, result["warnings"]))
    aside = [path.read_text() for path in host.state.iterdir() if ".damaged-" in path.name]
    assert sorted(aside) == sorted([json.dumps(dancing), "", "{", "null"])


def test_go_g_save_rejects_unknown_phase(host: Host) -> None:
    """The same, on the way to the disk."""
    host.begin()
    before = host.files()
    with pytest.raises(StateError):
        host.change(lambda document: document.upgrade.update(state="DANCING"), run=RUN)
    assert host.files() == before


def _save_for_ever(root: str) -> None:
    for number in itertools.count():
        with _store.session(root, run=RUN) as session:
            session.document.checkpoint("here", f"{number} " + "x" * 5000, now=session.now)
            session.save()


def test_go_h_save_is_atomic_under_kill(host: Host) -> None:
    """One name for all temporary files, no fsync, no lock, readable by all."""
    host.begin()
    for _round in range(10):
        writer = multiprocessing.get_context("fork").Process(target=_save_for_ever, args=(str(host.state),))
        revision = host.document()["revision"]
        writer.start()
        while host.document()["revision"] < revision + 5:
            assert writer.is_alive()
        writer.kill()
        writer.join()
        with _store.session(str(host.state), run=RUN, wait=0) as session:
            assert session.warnings == []
            session.document.checkpoint("after", str(_round), now=session.now)
            session.save()
    assert stat.S_IMODE((host.state / "state.json").stat().st_mode) == 0o600
    assert not [path for path in host.state.iterdir() if "damaged" in path.name or "new" in path.name]


def test_go_i_unknown_fields_survive_round_trip(host: Host) -> None:
    """An older version dropped what a newer one had written."""
    host.begin()
    newer = host.document()
    newer["x_new"], newer["upgrade"]["x_new"], newer["components"]["loki"] = [1], {"a": 1}, {"state": "idle", "x": 1}
    (host.state / "state.json").write_text(json.dumps(newer))
    host.act("checkpoint", name="here")
    host.act("start", LOKI)
    after = host.document()
    assert (after["x_new"], after["upgrade"]["x_new"], after["components"]["loki"]["x"]) == ([1], {"a": 1}, 1)


def test_go_j_what_the_table_does_not_have_is_refused(host: Host) -> None:
    """Anything could follow anything."""
    host.begin()
    host.act("start", NODE)
    before = host.files()
    for here, goal in (("checking", "success"), ("checking", "verifying"), ("checking", "rolled_back")):
        with pytest.raises(StateError, match=f"node_exporter can't go from {here} to {goal}; from {here} it may go to"):
            host.change(lambda document, goal=goal: document.set_component("node_exporter", goal, now="x"), run=RUN)
    assert failed(host.act("confirm", NODE), "state.illegal_transition")
    host.act("advance", state="VALIDATING")
    before = host.files()
    assert failed(host.act("advance", state="PLANNING"), "state.illegal_transition")
    assert host.files() == before


def test_go_status_json_is_raw_state(host: Host) -> None:
    """What is told as JSON is what is on disk."""
    host.begin()
    assert host.info()["document"] == host.document()


# -- all of them ------------------------------------------------------------------------------------------------------

NUMBERS = [
    *[f"s0_{number}" for number in range(1, 14)],
    *[f"s1_{number}" for number in range(1, 13)],
    *[f"go_{letter}" for letter in "abcdefghij"],
]
OF_THE_AGENT = [
    "load_missing_is_idle",
    "save_rejects_unknown_phase",
    "save_is_atomic_under_kill",
    "transition_sets_started_at",
    "attempt_resets_on_new_target",
    "attempt_increments_on_retry_from_failed",
    "error_kept_on_failed_and_rolled_back",
    "error_cleared_on_success_and_idle",
    "from_version_updates_next_attempt",
    "unknown_fields_survive_round_trip",
    "status_json_is_raw_state",
]
COLLECTED = [name for name in globals() if name.startswith("test_")]


@pytest.mark.parametrize("number", NUMBERS)
def test_each_number_has_a_test(number: str) -> None:
    assert [name for name in COLLECTED if name.startswith(f"test_{number}_")] != []


@pytest.mark.parametrize("name", OF_THE_AGENT)
def test_each_name_of_the_agent_s_tests_has_one(name: str) -> None:
    assert [each for each in COLLECTED if each.endswith(f"_{name}")] != []


def test_no_test_has_a_number_that_is_none() -> None:
    given = {match.group(1) for match in (re.match(r"test_(s\d_\d+|go_[a-z])_", name) for name in COLLECTED) if match}
    assert given == set(NUMBERS)
