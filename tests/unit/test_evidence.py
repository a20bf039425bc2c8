# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a host believes what the host shows: no caller, and no file that has another shape than it must."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import time
import types
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import (
    _audit,
    _baseline,
    _candidates,
    _guard,
    _history,
    _json_file,
    _lease,
    _module,
    _overview,
    _process,
    _restore_point,
    _schema,
    _store,
)
from ansible_collections.observability.stack.plugins.module_utils._errors import UpgradeError
from ansible_collections.observability.stack.plugins.module_utils._state import Document, Step, clean
from ansible_collections.observability.stack.plugins.modules import (
    health_probe,
    safe_binary_swap,
    service_restart,
    upgrade_lock,
    upgrade_state,
    upgrade_state_info,
)
from ansible_collections.observability.stack.tests.unit.plugins import conftest as fixtures
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Call,
    Data,
    Systemd,
    later,
    message_of,
    running,
    snapshot,
    write_program,
)

call, state_dir, systemd = fixtures.call, fixtures.state_dir, fixtures.systemd

NODE, LOKI = Step("node_exporter", "1.9.0"), Step("loki", "3.0.0")
NEXT_RUN = {**OTHER_RUN, "dead": ["u1"]}
UNIT = "node_exporter.service"


class Host:
    """A host with a program, its successor, and a process that its unit runs."""

    def __init__(self, call: Call, root: pathlib.Path, state: pathlib.Path, systemd: Systemd) -> None:
        self.state, self.systemd, self._call = state, systemd, call
        self.program, self.new = root / "bin" / "node_exporter", root / "new"
        self.program.parent.mkdir()
        self.program.write_text("old")
        self.new.write_text("new")
        self.runs(os.getpid())

    def runs(self, pid: int, **properties: t.Any) -> None:
        self.systemd.add(UNIT, str(self.program), pid=pid, **properties)

    def call(self, module: types.ModuleType, **arguments: t.Any) -> Data:
        return self._call(module, **{"run": RUN, **arguments})

    def act(self, action: str, step: Step | None = None, **arguments: t.Any) -> Data:
        named = {"component": step.component, "version": step.to_version} if step else {}
        return self.call(upgrade_state, action=action, **{**named, **arguments})

    def begin(self, *steps: Step, **arguments: t.Any) -> Data:
        return self.act("begin", **{"phase": "exporters", "steps": [step.key for step in steps or [NODE]], **arguments})

    def swap(self, **arguments: t.Any) -> Data:
        named = {"component": NODE.component, "version": NODE.to_version, "from_version": "1.5.0"}
        files = [{"src": str(self.new), "dest": str(self.program)}]
        return self.call(safe_binary_swap, **{**named, "files": files, **arguments})

    def restore(self) -> Data:
        return self.call(safe_binary_swap, component=NODE.component, state="restored")

    def probe(
        self, *, well: bool = True, component: str = NODE.component, run: Data | None = None, **changes: t.Any
    ) -> Data:
        self.systemd.add("sick.service", str(self.program), active="failed")
        target = {"component": component, "unit": UNIT if well else "sick.service", "binary": str(self.program)}
        target = {**target, "url": "http://127.0.0.1:1", "version": NODE.to_version, "probes": [{"kind": "systemd"}]}
        given = {"component": NODE.component, "targets": [{**target, **changes}], "timeout": 0, "window": 0}
        return self.call(health_probe, run=run or RUN, **given)

    def confirm(self, step: Step = NODE, **arguments: t.Any) -> Data:
        return self.act("confirm", step, **arguments)

    def fail(self, outcome: str, step: Step = NODE, **arguments: t.Any) -> Data:
        return self.act("fail", step, outcome=outcome, **{"error": "it broke", **arguments})

    def swapped(self) -> str:
        """Go to the middle of a step, whose new file is in place. Its restore point."""
        self.begin()
        return t.cast("str", self.swap()["backup_id"])

    def document(self) -> Data:
        return t.cast("Data", json.loads((self.state / "state.json").read_text()))

    def record(self) -> Data:
        return t.cast("Data", self.document()["components"][NODE.component])

    def content(self) -> dict[str, tuple[t.Any, ...]]:
        """All that is there but the lease."""
        return {path: seen for path, seen in snapshot(self.state).items() if not path.endswith("upgrade.lock")}


@pytest.fixture
def host(
    call: Call, tmp_path: pathlib.Path, state_dir: pathlib.Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> Host:
    monkeypatch.setattr(_module, "os", types.SimpleNamespace(geteuid=lambda: 0))
    return Host(call, tmp_path, state_dir, systemd)


def refused(result: Data, key: str) -> bool:
    return (result.get("failed"), result.get("key")) == (True, key)


# -- a step that is undone ----------------------------------------------------------------------------------------

LEFT: dict[str, t.Callable[[pathlib.Path], t.Any]] = {
    "the new file": lambda path: None,
    "another file": lambda path: path.write_text("other"),
    "no file": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a link to the new file": lambda path: (path.unlink(), path.symlink_to(path.parent.parent / "new")),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("/nowhere/x")),
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("outcome", ["rolled_back", "aborted"])
@pytest.mark.parametrize("probed", [False, True])
def test_a_step_is_not_recorded_as_undone_while_its_old_file_is_not_back(
    host: Host, outcome: str, left: str, probed: bool
) -> None:
    backup_id = host.swapped()
    if probed:
        host.probe()
    LEFT[left](host.program)
    before = host.content()
    result = host.fail(outcome)
    assert refused(result, "state.not_undone")
    assert all(word in result["msg"] for word in (str(host.program), backup_id, "state=restored"))
    assert host.content() == before
    assert host.record()["files"][0]["path"] == str(host.program)


@pytest.mark.parametrize(("outcome", "state"), [("rolled_back", "rolled_back"), ("aborted", "failed")])
def test_a_step_whose_old_file_is_back_is_recorded_as_undone(host: Host, outcome: str, state: str) -> None:
    host.swapped()
    host.restore()
    assert "failed" not in host.fail(outcome)
    assert (host.record()["state"], host.program.read_text()) == (state, "old")


@pytest.mark.parametrize("state", ["activated", "verifying", "failed"])
def test_nothing_deletes_the_only_restore_point_of_what_is_unresolved(host: Host, state: str) -> None:
    backup_id = host.swapped()
    if state == "verifying":
        host.probe(well=False)
    if state == "failed":
        host.fail("failed")
    kept = host.state / "backups" / backup_id
    assert refused(host.act("forget", backup_id=backup_id), "state.restore_point_needed")
    assert refused(host.act("forget", component=NODE.component), "state.restore_point_needed")
    assert host.act("close", abandon=True, keep=0)["finished"] is True
    assert refused(host.act("forget", component=NODE.component), "state.restore_point_needed")
    assert NODE.component in message_of(host.act("reset", force=True)["warnings"])
    host.begin(LOKI, run=NEXT_RUN)
    assert host.act("close", abandon=True, keep=0, run=NEXT_RUN)["finished"] is True
    assert (kept / "manifest.json").is_file()
    assert (host.record()["backup_id"], host.record()["state"]) == (backup_id, state)
    assert host.record()["inventory"]["restore_points"][0]["id"] == backup_id


def test_a_restore_point_that_the_state_lost_is_kept_while_its_component_is_unresolved(host: Host) -> None:
    backup_id = host.swapped()
    shutil.copytree(host.state / "backups" / backup_id, host.state / "backups" / "lost")
    manifest = json.loads((host.state / "backups" / "lost" / "manifest.json").read_text())
    (host.state / "backups" / "lost" / "manifest.json").write_text(json.dumps({**manifest, "id": "lost"}))
    host.act("close", abandon=True)
    assert (host.state / "backups" / "lost").is_dir()


def test_a_failure_whose_file_is_gone_is_not_taken_for_repaired(host: Host) -> None:
    backup_id = host.swapped()
    host.fail("failed")
    host.program.unlink()
    host.act("close", abandon=True)
    host.begin(LOKI, run=NEXT_RUN)
    assert host.record()["backup_id"] == backup_id


def test_the_watchdog_does_not_record_a_step_as_undone_whose_file_is_not_back(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(_guard, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(_guard, "_SYSTEMD_IS_HERE", str(tmp_path))
    target = {"component": NODE.component, "unit": UNIT, "binary": str(host.program), "url": "http://127.0.0.1:1"}
    guard = {"confirm_within": 300, "target": {**target, "probes": [{"kind": "systemd"}], "proofs": []}}
    host.begin()
    backup_id = host.swap(unit=UNIT, kinds=["config"], guard={**guard, "probe_timeout": 0, "probe_window": 0})[
        "backup_id"
    ]
    monkeypatch.setattr(_process, "runs_file", lambda _pid, _path: True)
    _guard.fire(host.systemd, str(host.state), NODE.component, **later(1e6), sleep=lambda _s: None)
    assert (host.record()["state"], host.record()["outcome"], host.program.read_text()) == ("failed", "failed", "new")
    assert "isn't what it was before" in host.record()["last_error"]
    assert (host.state / "backups" / backup_id).is_dir()
    late = host.confirm()
    assert (late["key"], late["cause"]) == ("lock.lost", "watchdog")
    assert "the host's rollback watchdog has undone the step by itself" in late["msg"].lower()


# -- a step that is confirmed -------------------------------------------------------------------------------------


def test_a_step_is_confirmed_after_a_probe_that_passed(host: Host) -> None:
    host.swapped()
    host.probe()
    assert host.record()["probe"]["passed"] is True
    assert host.confirm()["document"]["components"][NODE.component]["state"] == "success"
    assert host.confirm()["changed"] is False


UNVERIFIED: dict[str, tuple[str, t.Callable[[Host], t.Any]]] = {
    "a probe that failed": ("did not pass", lambda host: host.probe(well=False)),
    "a probe that failed after one that passed": ("did not pass", lambda host: [host.probe(), host.probe(well=False)]),
    "a probe of another version": ("version 1.5.0", lambda host: host.probe(version="1.5.0")),
    "a probe of a process that has ended": ("has ended", lambda host: host.probe()),
    "a probe before the service read its configuration again": (
        "no probe has ended",
        lambda host: [host.probe(), reload(host)],
    ),
}


def reload(host: Host) -> None:
    host.runs(os.getpid(), CanReload="yes")
    program = os.path.realpath(f"/proc/{os.getpid()}/exe")
    host.call(service_restart, unit=UNIT, binary=program, strategy="reload")


@pytest.mark.parametrize("case", UNVERIFIED)
def test_a_step_is_not_confirmed_after(host: Host, case: str, tmp_path: pathlib.Path) -> None:
    says, act = UNVERIFIED[case]
    host.swapped()
    with running(write_program(tmp_path / "service")) as pid:
        if "ended" in case:
            host.runs(pid)
        act(host)
    before = host.content()
    result = host.confirm()
    assert refused(result, "state.not_verified")
    assert says in result["msg"]
    assert host.content() == before


def test_a_probe_of_another_component_verifies_nothing(host: Host) -> None:
    host.swapped()
    assert refused(host.probe(component="loki"), "probe.component")
    assert refused(host.confirm(), "state.illegal_transition")


def test_another_swap_takes_back_what_a_probe_has_shown(host: Host) -> None:
    host.swapped()
    host.probe()
    host.swap()
    assert refused(host.confirm(), "state.illegal_transition")
    host.probe(well=False)
    assert refused(host.confirm(), "state.not_verified")
    host.probe()
    assert host.confirm()["changed"] is True


@pytest.mark.parametrize("left", [left for left in LEFT if "new" not in left])
def test_a_step_is_not_confirmed_whose_file_is_not_in_place(host: Host, left: str) -> None:
    host.swapped()
    host.probe()
    LEFT[left](host.program)
    assert refused(host.confirm(), "state.not_in_place")
    assert host.record()["state"] == "verifying"


def test_the_next_run_confirms_what_was_verified_and_nothing_else(host: Host) -> None:
    host.swapped()
    host.probe()
    host.begin(Step(NODE.component, "2.0.0"), run=NEXT_RUN)
    assert refused(host.confirm(run=NEXT_RUN), "state.not_started")
    host.begin(NODE, run=NEXT_RUN)
    assert host.confirm(run=NEXT_RUN)["document"]["components"][NODE.component]["outcome"] == "succeeded"


@pytest.mark.parametrize("version", ["1.8.0", "2.0.0", "unknown"])
@pytest.mark.parametrize("reached", ["begun", "started", "swapped", "probed", "confirmed"])
def test_a_version_that_was_never_started_is_neither_confirmed_nor_failed(
    host: Host, reached: str, version: str
) -> None:
    go: dict[str, t.Callable[[], t.Any]] = {"begun": host.begin, "started": lambda: host.act("start", NODE)}
    go |= {"swapped": host.swap, "probed": host.probe, "confirmed": host.confirm}
    for name, act in go.items():
        act()
        if name == reached:
            break
    before = host.content()
    step = Step(NODE.component, version)
    assert host.confirm(step)["key"] in ("state.not_started", "state.illegal_transition")
    for outcome in ("aborted", "rolled_back", "failed"):
        assert refused(host.fail(outcome, step), "state.not_started")
    assert host.content() == before


def test_a_step_whose_file_is_in_place_already_is_verified_confirmed_and_says_so(host: Host) -> None:
    host.program.write_text("new")
    host.begin()
    assert host.swap()["changed"] is False
    assert refused(host.confirm(), "state.illegal_transition")
    host.probe()
    host.confirm()
    assert (host.record()["state"], host.record()["outcome"]) == ("success", "succeeded")
    assert host.record()["skip_reason"] == "its files were those of 1.9.0 already"
    told = host.call(upgrade_state_info)["components"][NODE.component]
    assert told["skip_reason"] == host.record()["skip_reason"]
    assert host.act("close")["document"]["upgrade"]["state"] == "COMPLETED"
    assert host.record().get("inventory", {}).get("restore_points", []) == []


@pytest.mark.parametrize("well", [True, False])
def test_a_step_that_an_earlier_run_has_confirmed_is_verified_again_and_keeps_its_way_back(
    host: Host, well: bool
) -> None:
    backup_id = host.swapped()
    host.probe()
    host.confirm()
    host.begin(run=NEXT_RUN)
    host.swap(run=NEXT_RUN)
    host.probe(well=well, run=NEXT_RUN)
    result = host.confirm(run=NEXT_RUN)
    assert (result.get("key") == "state.not_verified") is not well
    assert (host.record()["state"], host.record()["backup_id"]) == ("success", backup_id)


def test_a_step_whose_file_is_in_place_already_may_fail_and_leaves_nothing_to_undo(host: Host) -> None:
    host.program.write_text("new")
    host.begin()
    host.swap()
    assert host.restore()["touched"] is False
    host.fail("aborted")
    assert host.act("close")["document"]["upgrade"]["state"] == "FAILED"
    assert host.program.read_text() == "new"


# -- identifiers --------------------------------------------------------------------------------------------------

BAD = [
    "",
    ".",
    "..",
    "a/b",
    "/etc",
    "a\0b",
    "a\nb",
    "a b",
    "ü",
    "-x",
    "x" * 65,
    "x" * 250,
    "a\x1b[0m",
    "..a",
    "$(x)",
]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_identifier_is_refused_before_anything_is_written(host: Host, name: str) -> None:
    def of(action: str, **arguments: t.Any) -> t.Callable[[], Data]:
        return lambda: host.act(action, **arguments)

    for existing in (False, True):
        calls = [
            of("begin", run={**RUN, "upgrade_id": name}, steps=[NODE.key]),
            of("begin", steps=[f"{name}@1"]),
            of("begin", steps=[f"x@{name}"]),
            of("begin", phases={name: [NODE.key]}),
            of("begin", phase=name),
            of("start", component=name, version="1"),
            of("start", component="x", version=name),
            of("start", component="x", version="1", from_version=name),
            of("confirm", component=name, version="1"),
            of("fail", component=name, version="1", outcome="failed", error="e"),
            of("checkpoint", name=name),
            of("mark", component="x", name=name, paths=[str(host.program)]),
            of("forget", component=name),
            lambda: host.call(upgrade_lock, state="held", run={**RUN, "upgrade_id": name}),
            lambda: host.call(upgrade_lock, state="released", run={**RUN, "upgrade_id": name}),
            lambda: host.call(upgrade_state_info, component=name),
            lambda: host.swap(component=name),
            lambda: host.swap(from_version=name),
            lambda: host.probe(component=name),
            lambda: host.probe(version=name),
            lambda: host.call(service_restart, unit=UNIT, binary="/x", run={**RUN, "upgrade_id": name}),
        ]
        before = snapshot(host.state)
        for number, each in enumerate(calls):
            answer = each()
            # Before a module sees a null character, ansible-core 2.21 refuses it itself, without a key.
            assert answer["failed"], number
            assert answer.get("key", "input." if "\0" in name else "").startswith("input."), number
        for backup_id in {name, "x" * 241} - {"x" * 65}:
            assert (len(backup_id) == 250 or len(backup_id) < 241) or refused(
                host.act("forget", backup_id=backup_id), "input.name"
            )
        assert snapshot(host.state) == before
        if not existing:
            host.begin()


@pytest.mark.parametrize(
    "changes",
    [
        {"job": "a\nb"},
        {"user": "\x1b]52;c;x\x07"},
        {"origin": "a\0b"},
        {"job": "\u2028"},
        {"user": "x" * 5000},
        {"pid": -1},
        {"pid": 2**40},
        {"start_ticks": -1},
        {"start_ticks": 2**53},
    ],
    ids=str,
)
def test_a_run_that_cannot_be_written_down_is_refused(host: Host, changes: Data) -> None:
    assert host.begin(run={**RUN, **changes})["key"].startswith("input.")
    assert not host.state.exists()


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("close", {"keep": -1}),
        ("close", {"history_keep": -1}),
        ("close", {"history_days": -1}),
        ("close", {"history_days": 10**9}),
        ("mark", {"component": "x", "paths": []}),
        ("mark", {"component": "x", "paths": ["/nowhere"]}),
        ("forget", {"backup_id": ""}),
        ("forget", {"component": ""}),
        ("forget", {"component": "unheard_of"}),
        ("forget", {}),
        ("start", {"component": "", "version": ""}),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_and_leaves_all_as_it_is(host: Host, action: str, arguments: Data) -> None:
    backup_id = host.swapped()
    before = host.content()
    assert host.act(action, **arguments)["failed"] is True
    assert host.content() == before
    assert (host.state / "backups" / backup_id).is_dir()


def test_a_text_that_no_file_can_have_is_cleaned_and_recorded(host: Host) -> None:
    assert clean("x\0y\ud800z") == "x?y?z"
    host.begin()
    host.fail("aborted", error="x" + "y" * 10_000)
    assert host.record()["last_error"].startswith("xyyy")
    assert len(host.record()["last_error"]) == _schema.MOST_TEXT
    assert host.call(upgrade_state_info, verify=True)["problems"] == []


def test_all_restore_points_of_a_component_are_forgotten_at_once(host: Host) -> None:
    host.begin()
    for name in ("one", "two"):
        host.act("mark", component=NODE.component, version="1.5.0", name=name, paths=[str(host.program)])
    host.act("mark", component="loki", version="1.5.0", name="other", paths=[str(host.program)])
    assert host.act("forget", component=NODE.component, check=True)["changed"] is True
    assert host.act("forget", component=NODE.component)["changed"] is True
    assert [path.name for path in (host.state / "backups").iterdir()] == ["u1.loki-1.5.0.other"]
    assert host.record()["inventory"]["restore_points"] == []
    assert host.act("forget", component=NODE.component)["changed"] is False


# -- an upgrade that fails after its steps ------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [False, True])
def test_an_upgrade_whose_final_validation_fails_is_recorded_as_failed(host: Host, closed: bool) -> None:
    host.swapped()
    host.probe()
    host.confirm()
    if closed:
        assert host.act("close")["document"]["upgrade"]["state"] == "COMPLETED"
    result = host.act("close", error="no data in the dashboards")
    upgrade = result["document"]["upgrade"]
    assert (result["changed"], result["finished"], upgrade["state"], upgrade["outcome"]) == (
        True,
        True,
        "FAILED",
        "failed",
    )
    assert (upgrade["failure"], upgrade["ended_by"]) == ("no data in the dashboards", "run")
    assert (upgrade["phases"]["exporters"]["state"], upgrade["phases"]["exporters"]["error"]) == (
        "failed",
        "no data in the dashboards",
    )
    assert host.record()["state"] == "success"
    told = host.call(upgrade_state_info, verify=True)
    assert (told["history"][0]["state"], told["problems"], told["lease"]) == ("FAILED", [], {})
    assert host.act("close", error="no data in the dashboards")["changed"] is False


def test_the_failure_of_a_phase_ends_an_upgrade_with_steps_left(host: Host) -> None:
    host.begin(steps=[], phases={"exporters": [NODE.key], "logging": [LOKI.key]})
    upgrade = host.act("close", error="the network is down")["document"]["upgrade"]
    assert (upgrade["state"], upgrade["phases"]["exporters"]["error"]) == ("FAILED", "the network is down")
    assert upgrade["phases"]["logging"]["state"] == "pending"


def test_a_failure_that_is_recorded_late_survives_a_kill(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.swapped()
    host.probe()
    host.confirm()
    host.act("close")
    for name in ("archive", "release"):
        with monkeypatch.context() as patched:
            patched.setattr(_store.Session, name, lambda _session: pathlib.Path("/nowhere").rmdir())
            assert host.act("close", error="no data")["failed"] is True
    assert host.call(upgrade_state_info, verify=True)["problems"] == []
    host.begin(LOKI, run=NEXT_RUN)
    told = host.call(upgrade_state_info, verify=True)
    assert (told["history"][0]["upgrade_id"], told["history"][0]["state"], told["problems"]) == ("u1", "FAILED", [])


# -- a run that has lost its host ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        ("taken_over", "upgrade u2 took over the host"),
        ("unlocked", "its lock was taken from it by force, by upgrade u2 of eve on c2"),
        ("ended", "it has ended on this host as COMPLETED at 20"),
        ("not_begun", "it was never begun on this host"),
    ],
)
def test_a_run_that_has_lost_its_host_is_told_why(host: Host, cause: str, says: str) -> None:
    if cause != "not_begun":
        host.swapped()
        host.probe()
    if cause == "taken_over":
        host.begin(run=NEXT_RUN)
    if cause == "unlocked":
        host.call(upgrade_lock, state="released", force=True, run=OTHER_RUN)
    if cause == "ended":
        host.confirm()
        host.act("close")
    if cause == "not_begun":
        host.begin(run=OTHER_RUN)
    result = host.confirm()
    assert (result["key"], result["cause"]) == ("lock.lost", cause)
    assert says.lower() in result["msg"].lower()


# -- the lease ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x" * 4000, "ü" * 2000, "😀" * 1000, '"\\' * 2000])
@pytest.mark.parametrize("field", ["job", "user", "controller", "origin"])
def test_a_run_with_long_names_keeps_the_host(host: Host, field: str, text: str) -> None:
    run = {**RUN, field: text}
    assert "failed" not in host.begin(run=run)
    assert (host.state / "upgrade.lock").stat().st_size == _lease.SIZE
    assert refused(host.begin(run=OTHER_RUN), "lock.held")
    assert "failed" not in host.act("checkpoint", name="here", run=run)


@pytest.mark.parametrize(
    "content", [b"{", b"held by ops", b"x" * 2_000_000, b'{"upgrade_id": 7}', b"[" * 5000, b"\xff" * 10]
)
def test_a_lock_file_that_is_no_lease_is_held_until_it_is_released_by_force(host: Host, content: bytes) -> None:
    host.begin()
    host.act("close")
    (host.state / "upgrade.lock").write_bytes(content)
    for run in (RUN, OTHER_RUN, {**OTHER_RUN, "dead": ["unreadable"]}):
        assert refused(host.begin(run=run), "lock.held")
        assert refused(host.call(upgrade_lock, state="released", run=run), "lock.held")
    told = host.call(upgrade_state_info, verify=True)
    assert (told["lease"]["held"], len(told["problems"])) == (True, 1)
    assert host.call(upgrade_lock, state="released", force=True)["changed"] is True
    assert "failed" not in host.begin()
    assert (host.state / "upgrade.lock").stat().st_size == _lease.SIZE


def test_what_is_left_of_a_longer_lease_is_held_and_not_left_by_the_next(host: Host) -> None:
    host.begin()
    path = host.state / "upgrade.lock"
    lease = json.loads(path.read_bytes())
    path.write_bytes(json.dumps({**lease, "job": "x" * 3000}).encode())  # as no version of now would write it
    assert refused(host.begin(run=OTHER_RUN), "lock.held")
    assert "failed" not in host.begin()
    assert path.stat().st_size == _lease.SIZE
    path.write_bytes(path.read_bytes() + b"left over")
    assert refused(host.begin(run=NEXT_RUN), "lock.held")


# -- files of another shape ---------------------------------------------------------------------------------------

WRONG: list[t.Any] = [None, True, -1, 1.5, 10**30, "", "\0", "../x", "x" * 5000, [], [None], {}, {"": {}}, [[[{}]]]]


@pytest.fixture
def used(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Host:
    """A host with a history, in the middle of an upgrade that its watchdog would undo."""
    monkeypatch.setattr(_guard, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(_guard, "_SYSTEMD_IS_HERE", str(tmp_path))
    host.begin(LOKI, run=OTHER_RUN)
    host.act("checkpoint", name="half", description="way", run=OTHER_RUN)
    host.fail("aborted", LOKI, run=OTHER_RUN)
    host.act("close", run=OTHER_RUN)
    host.begin()
    target = {"component": NODE.component, "unit": UNIT, "binary": str(host.program), "url": "http://127.0.0.1:1"}
    guard = {"confirm_within": 300, "target": {**target, "probes": [{"kind": "systemd"}], "proofs": []}}
    host.swap(unit=UNIT, guard={**guard, "probe_timeout": 0, "probe_window": 0})
    host.probe()
    layout = _store.Layout(str(host.state))
    seen = {"samples {}": {"count": 2, "families": ["up"]}, "metric_kept {}": {"value": 2.0}}
    _baseline.write(layout, NODE.component, {"upgrade_id": "u1", "taken_at": "2026-11-21T03:00:00Z", "seen": seen})
    (host.state / "staging" / NODE.key).mkdir()
    candidate = {"archive_sha256": "a" * 64, "files": {"node_exporter": "b" * 64}}
    path = host.state / "staging" / NODE.key / "candidate.json"
    path.write_text(json.dumps(candidate))
    path.chmod(0o600)
    return host


def files_of(host: Host) -> list[str]:
    found = [path for path in host.state.rglob("*") if path.suffix in (".json", ".lock")]
    return sorted(str(path.relative_to(host.state)) for path in found)


def places(value: t.Any, path: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def replaced(value: t.Any, path: tuple[t.Any, ...], new: t.Any) -> t.Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def everything(host: Host) -> None:
    """What playbooks do with the files of the state directory, reading and writing. It ends, or fails with a key."""
    layout = _store.Layout(str(host.state))
    lease = _store.read_lease(layout.root)
    if lease.get("upgrade_id"):
        _lease.told(lease, now=1.0, held=True)
    state = _store.peek(layout.root)
    _store.unfinished((state or {}).get("components", {}))
    document = Document(state)
    _overview.summary(document, "")
    _overview.resume_point(document)
    _overview.next_phase(document)
    for point in _overview.restore_points(document):
        layout.backup(point["id"])
    for each in _history.newest_first(_history.read_all(layout.history(), refused=[])):
        _overview.history_entry(each.data)
    _candidates.archives(layout)
    _baseline.read(layout, NODE.component)
    assert isinstance(_audit.problems(layout), list)
    with _store.session(layout.root, force=True) as session:
        session.take(NEXT_RUN)
    params = {"run": NEXT_RUN, "steps": [NODE.key], "phases": None, "kind": "upgrade", "mode": "m", "phase": "p"}
    params |= {"plan_digest": None, "component": NODE.component, "version": NODE.to_version, "error": None}
    params |= {"outcome": "failed", "abandon": True, "keep": 3, "history_keep": 5, "history_days": 1}
    for action in ("begin", "fail", "close"):
        with _store.session(layout.root, run=NEXT_RUN, acquire=True) as session:
            upgrade_state.ACTIONS[action](params, session)
    with _store.session(layout.root, force=True) as session:
        _guard.read_marker(layout, NODE.component)
        point = session.document.component(NODE.component).get("backup_id")
        if point:
            manifest = _restore_point.read(session, point)
            _restore_point.differing(manifest, _restore_point.KINDS)


def key_of(act: t.Callable[[], t.Any]) -> str:
    """The key of the error that something ends with, if it does."""
    try:
        act()
    except UpgradeError as exc:
        return exc.key
    return "none"


def test_whatever_a_file_has_in_place_of_a_value_every_playbook_ends(
    used: Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade_state, "run", used.systemd)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    template, tried = tmp_path / "template", 0
    used.state.rename(template)
    shutil.copytree(template, used.state)
    names = files_of(used)
    assert len(names) == 7, names
    for name in names:
        original = json.loads((template / name).read_bytes())
        for path in places(original):
            new = WRONG[tried % len(WRONG)] if path else WRONG
            for wrong in new if isinstance(new, list) and not path else (new, WRONG[(tried * 5 + 3) % len(WRONG)]):
                shutil.rmtree(used.state)
                shutil.copytree(template, used.state)
                (used.state / name).write_text(json.dumps(replaced(original, path, wrong)))
                tried += 1
                key = key_of(lambda: everything(used))
                assert key not in ("", "upgrade.error"), (name, path, wrong)
                document = json.loads((used.state / "state.json").read_text())
                assert _schema.problem(document, _schema.DOCUMENT) == "", (name, path, wrong)
    assert tried > 300


TEXTS = [
    '{"schema_version": 1, "revision": 9, "upgrade": {"state": "IDLE"}, "components": {}, "revision": 3}',
    '{"schema_version": 1, "revision": NaN, "upgrade": {"state": "IDLE"}, "components": {}}',
    '{"schema_version": 1, "revision": 1e999, "upgrade": {"state": "IDLE"}, "components": {}}',
    '{"schema_version": 1, "revision": -1, "upgrade": {"state": "IDLE"}, "components": {}}',
    '{"schema_version": 1, "revision": true, "upgrade": {"state": "IDLE"}, "components": {}}',
    '{"schema_version": true, "revision": 1, "upgrade": {"state": "IDLE"}, "components": {}}',
    '{"schema_version": 1, "revision": 99999999999999, "upgrade": {"state": "IDLE"}, "components": {}}',
    '{"schema_version": 1, "revision": 1, "upgrade": {"state": "IDLE"}, "components": {}, "x": "\\ud800"}',
    '{"schema_version": 1, "revision": 1, "upgrade": {"state": "IDLE"}, "components": {}, "x": %s}'
    % ("[" * 900 + "]" * 900),
    '{"schema_version": 1, "revision": 1, "upgrade": {"state": "IDLE"}, "components": {"a/b": {"state": "idle"}}}',
    '{"schema_version": 1, "revision": 1, "upgrade": {"state": "IDLE", "steps": {"x": "pending"}}, "components": {}}',
]


@pytest.mark.parametrize("text", TEXTS, ids=[text[:90] for text in TEXTS])
def test_a_document_that_readers_could_take_in_two_ways_is_damaged(used: Host, text: str) -> None:
    before = used.document()
    (used.state / "state.json").write_text(text)
    result = used.act("checkpoint", name="x")
    assert (result["failed"], result["key"]) == (True, "state.no_upgrade")
    document = used.document()
    assert document["repairs"][-1]["problem"]
    assert pathlib.Path(document["repairs"][-1]["set_aside"]).read_text() == text
    assert before["revision"] <= document["revision"] < _schema.MOST_REVISION
    assert document["components"] == before["components"] | {NODE.component: document["components"][NODE.component]}
    assert document["components"][NODE.component]["state"] in ("activated", "verifying")


@pytest.mark.parametrize("kind", ["objects", "text", "zeros", "many components"])
def test_a_huge_document_is_told_at_once(used: Host, kind: str) -> None:
    contents = {
        "objects": b'{"x": [' + b"{}," * 17_000_000 + b"{}]}",
        "text": b'{"schema_version": 1, "revision": 7, "x": "' + b"x" * 50_000_000 + b'"}',
        "zeros": b"\0" * 50_000_000,
        "many components": b'{"components": {' + b'"x": {"state": "idle"}, ' * 2_000_000 + b"}}",
    }
    (used.state / "state.json").write_bytes(contents[kind])
    start = time.monotonic()
    (problem,) = used.call(upgrade_state_info, verify=True)["problems"]
    assert "more than the 4194304 that it may have" in problem
    assert "failed" not in used.begin(run=NEXT_RUN)
    assert time.monotonic() - start < 5
    assert used.document()["repairs"][-1]["set_aside"]
    assert used.record()["state"] in ("activated", "verifying")


def test_no_document_is_written_that_could_not_be_read(host: Host) -> None:
    host.begin()
    before = host.content()
    phases = {f"p{number}": [NODE.key] for number in range(20_000)}
    assert refused(host.begin(steps=[], phases=phases), "state.damaged")
    with _store.session(str(host.state), run=RUN) as session:
        session.document.data["of_tomorrow"] = "x" * _json_file.MOST_BYTES
        assert key_of(session.save) == "state.too_large"
    assert host.content() == before


def test_a_damaged_marker_leaves_its_step_to_the_next_run(used: Host) -> None:
    path = used.state / "pending" / "node_exporter.json"
    marker = json.loads(path.read_text())
    path.write_text(json.dumps({**marker, "kinds": "binary"}))
    assert "node_exporter.json is damaged: kinds is" in used.call(upgrade_state_info, verify=True)["problems"][0]
    _guard.fire(used.systemd, str(used.state), NODE.component, **later(1e6), sleep=lambda _s: None)
    assert [each.name for each in (used.state / "pending").iterdir()] == ["node_exporter.json.damaged"]
    assert "can't undo node_exporter by itself" in used.document()["upgrade"]["errors"][-1]["message"]
    assert used.record()["state"] == "verifying"
    assert (used.state / "backups" / used.record()["backup_id"]).is_dir()


# -- a document that is rebuilt -----------------------------------------------------------------------------------

DAMAGES: dict[str, t.Callable[[bytes], bytes | None]] = {
    "empty": lambda content: b"",
    "gone": lambda content: None,
    "zeros": lambda content: b"\0" * len(content),
    "cut off": lambda content: content[: len(content) // 2],
    "a line of text": lambda content: b"disk failure",
    "another state": lambda content: content.replace(b'"IDLE"', b'"DANCING"').replace(b'"PLANNING"', b'"DANCING"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("archived", [False, True])
def test_a_swap_that_no_watchdog_undoes_stays_unresolved_and_no_revision_is_lowered(
    host: Host, damage: str, archived: bool
) -> None:
    if archived:
        host.begin(LOKI, run=OTHER_RUN)
        host.fail("aborted", LOKI, run=OTHER_RUN)
        host.act("close", run=OTHER_RUN)
    backup_id = host.swapped()
    for number in range(3):
        host.act("checkpoint", name=f"c{number}")
    before = host.document()
    path = host.state / "state.json"
    content = DAMAGES[damage](path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    for _again in range(2):
        result = host.begin(run=NEXT_RUN)
        assert "failed" not in result
    record = host.record()
    assert host.document()["revision"] > before["revision"]
    assert (record["state"], record["backup_id"]) == ("activated", backup_id)
    assert record["files"][0] == {
        "path": str(host.program),
        **{k: before["components"][NODE.component]["files"][0][k] for k in ("before", "after")},
    }
    assert refused(host.act("forget", backup_id=backup_id, run=NEXT_RUN), "state.restore_point_needed")
    assert host.call(safe_binary_swap, state="restored", component=NODE.component, run=NEXT_RUN)["touched"] is True
    assert host.program.read_text() == "old"


def test_what_was_confirmed_is_not_unresolved_again_in_a_document_that_is_rebuilt(host: Host) -> None:
    host.swapped()
    host.probe()
    host.confirm()
    host.act("close")
    (host.state / "state.json").unlink()
    host.begin(LOKI, run=NEXT_RUN)
    assert (host.record()["state"], host.record()["outcome"]) == ("success", "succeeded")


def test_a_revision_is_not_lowered_by_a_second_damage(host: Host) -> None:
    host.begin()
    path = host.state / "state.json"
    path.write_text('{"revision": 5000, ')
    host.act("checkpoint", name="x")
    assert host.document()["revision"] == 5000
    (host.state / "upgrade.lock").unlink()
    path.write_bytes(b"")
    host.begin()
    assert host.document()["revision"] > 5000


# -- archives that are pruned -------------------------------------------------------------------------------------


def test_wherever_a_pruning_stops_the_history_is_a_chain(host: Host) -> None:
    for number in range(7):
        run = {**RUN, "upgrade_id": f"r{number}"}
        host.begin(run=run, steps=[])
        host.act("close", run=run, abandon=True)
    with _store.session(str(host.state)) as session:
        doomed = session.prune_history(keep=2, days=0)
        session.save()
        assert doomed == [f"r{number}.json" for number in range(5)]
        for number in range(len(doomed) + 1):
            session.remove_archives(doomed[:number])
            assert _audit.problems(session.layout) == []


def test_a_pruning_that_is_killed_leaves_a_chain(host: Host) -> None:
    """In a process of its own, which is killed after each removal."""
    for number in range(4):
        run = {**RUN, "upgrade_id": f"r{number}"}
        host.begin(run=run, steps=[])
        host.act("close", run=run, abandon=True)
    template = host.state.with_name("template")
    shutil.copytree(host.state, template)
    for point in range(1, 5):
        shutil.rmtree(host.state)
        shutil.copytree(template, host.state)
        pid = os.fork()
        if pid == 0:
            _die_at(point, host)
        assert os.waitpid(pid, 0)[1] in (0, 9)
        assert _audit.problems(_store.Layout(str(host.state))) == []


def _die_at(point: int, host: Host) -> t.NoReturn:
    unlink, calls = os.unlink, iter(range(1, 100))

    def dying(*arguments: t.Any, **options: t.Any) -> None:
        if next(calls) == point:
            os.kill(os.getpid(), 9)
        unlink(*arguments, **options)

    with _store.session(str(host.state)) as session:
        doomed = session.prune_history(keep=1, days=0)
        session.save()
        os.unlink = dying
        session.remove_archives(doomed)
    os._exit(0)


def test_a_dead_process_verifies_nothing() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        told = _process.identity(process.pid)
        assert _process.is_alive(told)
        assert not _process.is_alive({**told, "start_ticks": told["start_ticks"] + 1})
        assert not _process.is_alive({**told, "boot": "another"})
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not _process.is_alive(told)
    assert not _process.is_alive(told)
