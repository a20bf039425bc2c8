# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import json
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _process, _store
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.modules import upgrade_lock, upgrade_state, upgrade_state_info
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Call,
    Data,
    sha256,
    snapshot,
)

NODE, LOKI = Step("node_exporter", "1.9.0"), Step("loki", "3.0.0")
PHASES = {"exporters": [NODE.key], "logging": [LOKI.key]}


class Host:
    """A host on which an upgrade of two phases has begun, and the program that it is about."""

    def __init__(self, call: Call, root: pathlib.Path) -> None:
        self.root, self.program = root, root.parent / "node_exporter"
        self.program.write_text("new")
        self._call = call

    def act(self, action: str, **arguments: t.Any) -> Data:
        return self._call(upgrade_state, **{"action": action, "run": RUN, **arguments})

    def read(self, **arguments: t.Any) -> Data:
        """What is told, with the promise that nothing changes."""
        before = snapshot(self.root)
        result = self._call(upgrade_state_info, **arguments)
        assert snapshot(self.root) == before
        assert result["changed"] is False
        return result

    def lock(self, **arguments: t.Any) -> Data:
        return self._call(upgrade_lock, **{"run": RUN, **arguments})

    def begin(self) -> None:
        self.act("begin", phases=PHASES, phase="exporters")

    def swap(self) -> None:
        """Bring the first step as far as its modules would, before its confirmation."""
        self.act("start", component=NODE.component, version=NODE.to_version, from_version="1.5.0")
        self.act("mark", component=NODE.component, version="1.5.0", paths=[str(self.program)])
        with _store.session(str(self.root), run=RUN) as session:
            session.document.advance("UPGRADING", now=session.now)
            for state in ("staged", "activated", "verifying"):
                session.document.set_component(NODE.component, state, now=session.now, sha256=sha256(self.program))
            probe = {"passed": True, "version": NODE.to_version, "unit": "x", **_process.identity(os.getpid())}
            session.document.set_component(NODE.component, "verifying", now=session.now, probe=probe)
            session.save()

    def confirm(self) -> None:
        self.swap()
        self.act("confirm", component=NODE.component, version=NODE.to_version, paths=[str(self.program)])


@pytest.fixture
def host(call: Call, state_dir: pathlib.Path) -> Host:
    return Host(call, state_dir)


def test_a_host_without_a_record_is_idle_and_nothing_is_made(host: Host) -> None:
    told = host.read(verify=True)
    assert told["document"] == {"schema_version": 1, "revision": 0, "upgrade": {"state": "IDLE"}, "components": {}}
    assert (told["in_progress"], told["can_resume"], told["resume_point"], told["next_phase"]) == (
        False,
        False,
        {},
        None,
    )
    assert (told["components"], told["restore_points"], told["history"], told["lease"]) == ({}, [], [], {})
    assert (told["problems"], told["summary"], told["rollback_available"]) == ([], "IDLE", False)
    assert not host.root.exists()


def test_an_upgrade_under_way_is_told(host: Host) -> None:
    host.begin()
    host.confirm()
    told = host.read(run=RUN)
    assert (told["in_progress"], told["can_resume"], told["progress_percent"]) == (True, True, 50)
    point = {"state": "UPGRADING", "phase": "exporters", "component": "node_exporter", "steps": [LOKI.key]}
    assert (told["resume_point"], told["next_phase"]) == (point, "logging")
    node = told["components"]["node_exporter"]
    assert (node["state"], node["is_upgraded"], node["current_version"]) == ("success", True, "1.9.0")
    assert (node["from_version"], node["attempts"], node["rollback_available"]) == ("1.5.0", 1, True)
    assert [(each["component"], each["version"]) for each in told["restore_points"]] == [("node_exporter", "1.5.0")]
    assert pathlib.Path(told["restore_points"][0]["path"], "manifest.json").is_file()
    assert told["summary"].splitlines()[:3] == [
        "UPGRADING, upgrade u1, 50 % done",
        "phase exporters: in_progress",
        "phase logging: pending",
    ]
    assert told["summary"].splitlines()[-1] == "node_exporter success 1.9.0"


@pytest.mark.parametrize(
    ("run", "expected"),
    [(RUN, True), (OTHER_RUN, False), (None, False), ({**OTHER_RUN, "dead": ["u1"]}, True)],
    ids=["its own", "another", "none", "another that knows it to be dead"],
)
def test_whether_an_upgrade_can_be_resumed_depends_on_who_has_the_host(
    host: Host, run: Data | None, expected: bool
) -> None:
    host.begin()
    assert host.read(run=run)["can_resume"] is expected
    host.act("close")
    told = host.read(run=run)
    assert (told["in_progress"], told["can_resume"], told["lease"]) == (True, True, {})


def test_the_lease_is_told_with_what_it_means(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.begin()
    lease = host.read()["lease"]
    assert (lease["held"], lease["stale"], lease["upgrade_id"]) == (True, False, "u1")
    assert lease["holder"] == "upgrade u1 of ops on c1, since 0 min; it ends in 15 min if nothing renews it"
    hour = {"uptime": lambda: lease["uptime"] + 3600}
    monkeypatch.setattr(upgrade_state_info._store, "present", functools.partial(_store.present, **hour))
    lease = host.read()["lease"]
    assert (lease["held"], lease["stale"]) == (False, True)
    assert lease["holder"] == (
        "upgrade u1 of ops on c1, which ended without giving the host back (seen last 60 min ago)"
    )


@pytest.mark.parametrize(
    ("content", "version", "expected"),
    [("new", "1.9.0", True), ("new", "1.8.0", False), ("tampered", "1.9.0", False), (None, "1.9.0", False)],
)
def test_a_component_is_upgraded_if_the_record_says_so_and_the_file_is_there(
    host: Host, content: str | None, version: str, expected: bool
) -> None:
    host.begin()
    assert host.read(component="node_exporter", version="1.9.0")["is_upgraded"] is False
    host.confirm()
    host.act("close")
    host.act("begin", phases=PHASES, phase="logging")  # whatever the present phase is
    if content is None:
        host.program.unlink()
    else:
        host.program.write_text(content)
    assert host.read(component="node_exporter", version=version)["is_upgraded"] is expected


def test_one_component_is_told_even_if_nothing_was_ever_done_to_it(host: Host) -> None:
    host.begin()
    host.confirm()
    assert list(host.read(component="loki")["components"]) == ["loki"]
    assert host.read(component="loki")["components"]["loki"]["state"] == "idle"
    assert "missing parameter(s) required by 'version': component" in str(host._call(upgrade_state_info, version="1"))


def test_the_history_is_told_newest_first_up_to_a_limit(host: Host) -> None:
    for number in range(12):
        run = {**RUN, "upgrade_id": f"r{number:02}"}
        host.act("begin", run=run)
        host.act("close", run=run)
    told = host.read()["history"]
    assert [each["upgrade_id"] for each in told] == [f"r{number:02}" for number in range(11, 1, -1)]
    assert (told[0]["state"], told[0]["outcome"]) == ("COMPLETED", "succeeded")
    assert len(host.read(limit=3)["history"]) == 3


def test_a_healthy_record_has_no_problems(host: Host) -> None:
    host.begin()
    host.confirm()
    assert host.read(verify=True)["problems"] == []
    host.act("close", abandon=True)
    host.begin()
    assert host.read(verify=True)["problems"] == []


def exchange(one: pathlib.Path, other: pathlib.Path) -> None:
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


def spoil(host: Host, what: str) -> None:
    history, backup = host.root / "history", next(iter((host.root / "backups").iterdir()))
    text = (history / "r1.json").read_text()
    document = json.loads((host.root / "state.json").read_text())
    document["upgrade"]["steps"]["x@1"] = "maybe"
    actions: dict[str, t.Callable[[], t.Any]] = {
        "changed": lambda: (history / "r1.json").write_text(text.replace("COMPLETED", "FAILED")),
        "removed": (history / "r1.json").unlink,
        "newest removed": (history / "r2.json").unlink,
        "added": lambda: (history / "r9.json").write_text(text),
        "link": lambda: (history / "r9.json").symlink_to(history / "r1.json"),
        "renamed": lambda: exchange(history / "r1.json", history / "r2.json"),
        "mode": lambda: (host.root / "state.json").chmod(0o644),
        "directory": lambda: history.chmod(0o755),
        "content": lambda: (backup / "0-node_exporter").write_text("other"),
        "manifest": lambda: (backup / "manifest.json").write_text("{"),
        "gone": lambda: backup.rename(host.root / "elsewhere"),
        "unknown": (host.root / "backups" / "stray").mkdir,
        "damaged": lambda: (host.root / "state.json").write_text("{"),
        "value": lambda: (host.root / "state.json").write_text(json.dumps(document)),
        "newer": lambda: (host.root / "state.json").write_text('{"schema_version": 99}'),
    }
    actions[what]()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("changed", "is missing, or was changed"),
        ("removed", "is missing, or was changed"),
        ("newest removed", "is missing, or was changed"),
        ("added", "r9.json: the chain from the newest archive doesn't lead there"),
        ("link", "r9.json is a symbolic link"),
        ("renamed", "r1.json is the archive of upgrade r2: it was renamed"),
        ("mode", "state.json has mode 0644, so that others can get at it"),
        ("directory", "history has mode 0755"),
        ("content", "0-node_exporter isn't the file that was kept of"),
        ("manifest", "can't be used"),
        ("gone", "can't be used"),
        ("unknown", "stray: the inventory doesn't list this restore point"),
        ("damaged", "it is no JSON"),
        ("value", "upgrade.steps.x@1 is 'maybe', which is none of pending, "),
        ("newer", "use the newer collection that wrote it"),
    ],
)
def test_what_is_wrong_with_a_record_is_told(host: Host, what: str, says: str) -> None:
    for number in range(3):
        run = {**RUN, "upgrade_id": f"r{number}"}
        host.act("begin", run=run)
        host.act("close", run=run)
    host.begin()
    host.confirm()
    spoil(host, what)
    if what == "newer":
        before = snapshot(host.root)
        assert says in host._call(upgrade_state_info, verify=True)["msg"]
        assert snapshot(host.root) == before
        return
    problems = "\n".join(host.read(verify=True)["problems"])
    assert says in problems


def test_a_record_of_a_hundred_components_is_small_and_quickly_written(host: Host) -> None:
    steps = [Step(f"component{number}", "1.0.0") for number in range(100)]
    taken = []
    with _store.session(str(host.root), run=RUN, acquire=True) as session:
        session.document.begin(RUN, steps=[step.key for step in steps], details={}, now=session.now)
        for step in steps:
            session.document.start_step(step, from_version="0.9.0", now=session.now)
            started = time.perf_counter()
            session.save()
            taken.append(time.perf_counter() - started)
    assert (host.root / "state.json").stat().st_size < 100_000
    assert min(taken) < 0.05
    started = time.perf_counter()
    assert len(host.read()["resume_point"]["steps"]) == 100
    assert time.perf_counter() - started < 1
