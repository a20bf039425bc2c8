# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import (
    _argv,
    _files,
    _guard,
    _lease,
    _loaded_unit,
    _process,
    _restart,
    _restore_point,
    _store,
    _swap,
    _systemd,
)
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.tests.unit.support import Data, Systemd, snapshot

RUN: Data = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "dead": []}
STEP = Step("prometheus", "2.53.3")
UNIT = "prometheus.service"
NAMES = ("prometheus", "promtool")
WITHIN = 300.0
NOW = 1_800_000_000.0
CONDITION = "prometheus.service.d/observability-upgrade-prometheus.conf"


class Host:
    """A component of two programs whose service runs, and a swap of both with a guard."""

    def __init__(self, root: pathlib.Path, systemd: Systemd, units: pathlib.Path) -> None:
        self.root, self.systemd, self.units = root, systemd, units
        self.state, self.bin, self.staged = str(root / "state"), root / "bin", root / "staged"
        self.now = NOW
        self.slept: list[float] = []
        self.shared: list[Data] = []
        for directory in (self.bin, self.staged):
            directory.mkdir()
        for name in NAMES:
            (self.bin / name).write_text(f"old {name}")
            (self.staged / name).write_text(f"new {name}")
        systemd.add(UNIT, str(self.bin / "prometheus"), pid=os.getpid())
        with self.session(run=RUN, acquire=True) as session:
            session.document.begin(RUN, steps=[STEP.key], details={}, now=session.now)
            session.save()

    def session(self, **options: t.Any) -> t.ContextManager[_store.Session]:
        return _store.session(self.state, clock=self.clock, uptime=self.clock, **options)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def share(self, unit: str = "federate@a.service", **target: t.Any) -> None:
        """Let another unit run the same file."""
        self.systemd.add(unit, str(self.bin / "prometheus"), pid=os.getpid())
        bare = {"component": "prometheus@federate-a", "unit": unit, "binary": str(self.bin / "prometheus"), "url": ""}
        self.shared.append({**bare, "version": "2.42.0", "probes": [{"kind": "systemd"}], **target})

    def guard(self) -> _guard.Guard:
        target = {
            "component": "prometheus",
            "unit": UNIT,
            "binary": str(self.bin / "prometheus"),
            "url": "http://127.0.0.1:1",
            "version": "2.42.0",
            "probes": [{"kind": "systemd"}],
            "proofs": [{"kind": "http", "path": "/that-nobody-answers"}],
            "deadline_grows": {"path": str(self.bin), "seconds_per_gb": 1.0},
        }
        times: Data = {"probe_timeout": 0, "probe_window": 0}
        return _guard.Guard("prometheus", UNIT, ["binary"], target, WITHIN, **times, shared=self.shared)

    def swap(self, **changes: t.Any) -> None:
        candidates = [
            _swap.Candidate(str(self.staged / name), str(self.bin / name), _files.sha256_file(str(self.staged / name)))
            for name in NAMES
        ]
        swap = _swap.Swap(STEP, "2.42.0", candidates, [], 0, guard=self.guard())._replace(**changes)
        with self.session(run=RUN) as session:
            _swap.apply(self.systemd, session, swap, _swap.changes(swap))

    def confirm(self) -> None:
        with self.session(run=RUN) as session:
            session.document.set_component("prometheus", "verifying", now=session.now)
            session.document.end_step(STEP, "succeeded", now=session.now)
            session.save()
            _guard.disarm(self.systemd, session.layout, "prometheus")

    def fire(self) -> None:
        _guard.fire(self.systemd, self.state, "prometheus", clock=self.clock, uptime=self.clock, sleep=self.sleep)

    def start(self, unit: str = UNIT) -> None:
        _guard.start(self.systemd, self.state, "prometheus", unit, clock=self.clock, uptime=self.clock)

    def reboot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_guard, "boot_token", lambda: "another boot")

    def content(self) -> str:
        return " ".join((self.bin / name).read_text().split()[0] for name in NAMES)

    def document(self) -> Data:
        return t.cast("Data", json.loads(pathlib.Path(self.state, "state.json").read_text()))

    def record(self) -> Data:
        return t.cast("Data", self.document()["components"]["prometheus"])

    def lease(self) -> Data:
        return _store.read_lease(self.state)

    def armed(self) -> list[str]:
        """What there is of a guard."""
        pending = sorted(os.listdir(os.path.join(self.state, "pending")))
        return pending + [str(path.relative_to(self.units)) for path in sorted(self.units.rglob("*"))]


@pytest.fixture
def host(tmp_path: pathlib.Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> Host:
    units = tmp_path / "etc"
    units.mkdir()
    monkeypatch.setattr(_guard, "UNITS", str(units))
    monkeypatch.setattr(_guard, "_SYSTEMD_IS_HERE", str(tmp_path))
    return Host(tmp_path, systemd, units)


ARMED = ["prometheus.json", "prometheus.pyz", "prometheus.service.d", CONDITION]


def test_both_legs_stand_before_the_files_are_touched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[t.Any] = []
    rename = os.rename

    def watch(source: str, target: str, **directories: int) -> None:
        if target in NAMES:
            seen.append((host.armed(), host.record()["state"], bool(host.systemd.commands("systemd-run"))))
        rename(source, target, **directories)

    monkeypatch.setattr(os, "rename", watch)
    host.swap()
    assert seen == [(ARMED, "activated", True)] * 2


def test_the_timer_is_that_of_systemd_and_tries_until_it_ends_well(host: Host) -> None:
    host.swap()
    (timer,) = host.systemd.commands("systemd-run")
    program = os.path.join(host.state, "pending", "prometheus.pyz")
    wrapped = [sys.executable, "-I", "-c", _guard._IF_ROOTS_ALONE]
    assert timer[-8:] == [*wrapped, program, "fire", host.state, "prometheus"]
    wanted = {
        "--collect",
        "--on-active=300",
        "--unit=observability-upgrade-prometheus",
        "--property=Restart=on-failure",
    }
    assert wanted <= set(timer)


@pytest.mark.parametrize(
    ("version", "setting"), [("252.39-1", "ExecCondition"), ("239", "ExecStartPre"), ("", "ExecStartPre")]
)
def test_the_condition_runs_before_all_else_that_the_systemd_knows(host: Host, version: str, setting: str) -> None:
    shown = host.systemd.look

    def look(name: str) -> Data:
        return shown(name)

    def answer(argv: t.Sequence[str], **options: t.Any) -> Completed:
        if list(argv) == ["systemctl", "show", "--property=Version"]:
            return Completed(0, f"Version={version}\n", "")
        return Systemd.__call__(host.systemd, argv, **options)

    with host.session(run=RUN) as session:
        _guard.arm(answer, session, host.guard())
    program = os.path.join(host.state, "pending", "prometheus.pyz")
    line = (host.units / CONDITION).read_text().splitlines()[-1]
    setting_of, _equals, command = line.partition("=")
    own = os.path.join(host.state, "restarting")
    argv = [sys.executable, "-I", "-c", _guard._IF_ROOTS_ALONE, program, "start", host.state, "prometheus", UNIT]
    assert setting_of == setting
    assert command.startswith("-+/bin/sh -c ")
    assert command.endswith(" ".join(["", "sh", own, *map(_systemd.quote, argv)]))
    assert _argv.split_words(command.replace("$$", "$"))[2] == _guard._UNLESS_OWN
    assert (host.units / CONDITION).stat().st_mode & 0o777 == 0o644


def program_starts(host: Host) -> bool:
    """Whether the condition of a start runs the program."""
    own = os.path.join(host.state, "restarting")
    condition = ["/bin/sh", "-c", _guard._UNLESS_OWN, "sh", own, "/bin/echo", "it runs"]
    done = subprocess.run(condition, capture_output=True, text=True, check=False, env={"PATH": "/nowhere"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("", "it runs\n")
    return done.stdout != ""


def test_the_program_is_not_even_started_while_a_module_restarts_the_service(host: Host) -> None:
    own = os.path.join(host.state, "restarting")
    assert program_starts(host)
    with _restart.announced(own):
        assert not program_starts(host)
        os.utime(own, (0, 0))  # however long it takes
        assert not program_starts(host)
    assert program_starts(host)
    assert not os.path.exists(own)
    with pytest.raises(ZeroDivisionError), _restart.announced(own):
        1 / 0  # noqa: B018
    assert program_starts(host)


def test_a_restart_does_not_depend_on_telling_of_it(host: Host) -> None:
    own = os.path.join(host.state, "restarting")
    os.mkdir(own)
    with _restart.announced(own):
        assert program_starts(host)
    with _restart.announced(os.path.join(host.state, "nowhere", "restarting")):
        assert program_starts(host)


@pytest.mark.parametrize(
    "text", ["", "{pid}\n", "{pid} 1\n", "1 {start}\n", "{gone} {start}\n", "* *\n", "\0\0", "../self 1\n"]
)
def test_what_a_module_has_left_that_was_killed_keeps_no_program_from_starting(host: Host, text: str) -> None:
    """Its pid may be another process's by now: that one has not started when it did."""
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    told = {"pid": os.getpid(), "start": _process.start_ticks(os.getpid()), "gone": gone.pid}
    with open(os.path.join(host.state, "restarting"), "w", encoding="ascii") as marker:
        marker.write(text.format(**told))
    assert program_starts(host)


def test_the_program_runs_with_nothing_but_python(host: Host) -> None:
    """Without a marker there is nothing to do, and the host stays as it is. All that it imports must be in it."""
    host.swap()
    program = os.path.join(host.state, "pending", "prometheus.pyz")
    before = snapshot(host.state)
    for action, more in (("start", [UNIT]), ("fire", [])):
        given = [program, action, host.state, "node_exporter", *more]
        argv = [sys.executable, "-I", "-S", "-c", _guard._IF_ROOTS_ALONE, *given]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(host.state) == before


@pytest.mark.parametrize("case", ["parent", "program", "stranger"])
def test_the_program_is_not_run_where_somebody_else_could_have_put_it(host: Host, case: str) -> None:
    """Whatever happened to the directories since the state directory was entered."""
    host.swap()
    program = os.path.join(host.state, "pending", "prometheus.pyz")
    pathlib.Path(program).write_text("raise SystemExit('it was run')")
    if case == "stranger" and os.geteuid() == 0:
        os.chown(os.path.dirname(program), 12345, 12345)
    else:
        os.chmod(os.path.dirname(host.state) if case == "parent" else program, 0o777)  # noqa: S103
    argv = [sys.executable, "-I", "-S", "-c", _guard._IF_ROOTS_ALONE, program, "fire", host.state, "prometheus"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a user other than root can write it, so nothing below it is run" in done.stderr
    assert "it was run" not in done.stderr


def test_the_program_tells_what_went_wrong(host: Host) -> None:
    host.swap()
    program = os.path.join(host.state, "pending", "prometheus.pyz")
    os.unlink(os.path.join(host.state, "upgrade.lock"))
    os.mkdir(os.path.join(host.state, "upgrade.lock"))
    argv = [sys.executable, "-I", "-S", program, "fire", host.state, "prometheus"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "upgrade.lock" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_confirmed_step_leaves_nothing_of_the_guard(host: Host) -> None:
    host.swap()
    host.confirm()
    assert host.armed() == []
    assert host.systemd.commands("systemctl", "stop")[-1][-2:] == [
        "observability-upgrade-prometheus.timer",
        "observability-upgrade-prometheus.service",
    ]
    assert host.systemd.asked[-1] == ["systemctl", "daemon-reload"]


@pytest.mark.parametrize(("code", "stays"), [(5, False), (1, True)])
def test_it_stays_whole_while_its_timer_cannot_be_stopped(
    host: Host, code: int, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer whose program is gone would fail again and again. With code 5 there is none."""
    host.swap()
    answer, refused = host.systemd._systemctl, Completed(code, "", "no bus")
    monkeypatch.setattr(host.systemd, "_systemctl", lambda argv: refused if argv[1] == "stop" else answer(argv))
    with pytest.raises(HostError, match="can't be stopped: no bus") if stays else contextlib.nullcontext():
        host.confirm()
    assert (host.armed() != []) == stays


def test_a_drop_in_of_others_stays(host: Host) -> None:
    others = host.units / "prometheus.service.d" / "limits.conf"
    others.parent.mkdir()
    others.write_text("[Service]\n")
    host.swap()
    host.confirm()
    assert host.armed() == ["prometheus.service.d", "prometheus.service.d/limits.conf"]


def test_without_systemd_the_step_is_refused_before_anything_is_recorded(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "_SYSTEMD_IS_HERE", str(host.root / "nowhere"))
    with pytest.raises(HostError, match="upgrade_confirm_within to 0"):
        host.swap()
    assert host.content() == "old old"
    assert host.armed() == []
    assert host.document()["components"] == {}


@pytest.mark.parametrize("refuses", ["systemd-run", "daemon-reload"])
def test_where_a_leg_can_not_be_had_the_step_is_refused_and_nothing_is_left(host: Host, refuses: str) -> None:
    def answer(argv: t.Sequence[str], **options: t.Any) -> Completed:
        return Completed(1, "", "no way") if refuses in argv else host.systemd(argv, **options)

    with host.session(run=RUN) as session, pytest.raises(HostError, match="no way"):
        _guard.arm(answer, session, host.guard())
    assert host.armed() == []


# -- the timer --------------------------------------------------------------------------------------------------------


def test_what_nobody_confirms_is_undone_and_nothing_is_left(host: Host) -> None:
    host.swap()
    host.now += 2000
    host.fire()
    assert host.content() == "old old"
    record, upgrade = host.record(), host.document()["upgrade"]
    assert (record["state"], record["outcome"], upgrade["state"]) == ("rolled_back", "rolled_back", "ROLLED_BACK")
    assert "nobody has confirmed it within 300 s" in record["last_error"]
    assert host.armed() == []
    assert "upgrade_id" not in host.lease()
    assert os.listdir(os.path.join(host.state, "backups")) == []
    assert host.systemd.commands("systemctl", "restart") == [["systemctl", "restart", "--", UNIT]]
    assert [path.name for path in pathlib.Path(host.state, "history").iterdir()] == ["u1.json"]


def test_the_unit_that_ran_is_brought_back(host: Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody broke the unit after the swap; the old program never ran in that unit."""
    monkeypatch.setattr(_loaded_unit, "_DIRECTORY", str(tmp_path / "run"))
    properties = {"pid": os.getpid(), "User": "before"}
    host.systemd.add(UNIT, str(host.bin / "prometheus"), **properties)
    host.swap(units=(_systemd.show(host.systemd, [UNIT])[0],))
    host.systemd.add(UNIT, str(host.bin / "prometheus"), **{**properties, "User": "broken"})
    monkeypatch.setattr(_guard._process, "runs_file", lambda pid, path: True)  # it would not be restarted otherwise
    host.now += 2000
    host.fire()
    drop_in = tmp_path / "run" / f"{UNIT}.d" / _loaded_unit.DROP_IN
    assert "User=before\n" in drop_in.read_text()
    assert host.systemd.commands("systemctl", "restart") == [["systemctl", "restart", "--", UNIT]]
    assert host.record()["outcome"] == "rolled_back"
    assert str(drop_in) in host.record()["last_error"]


def test_its_own_process_is_not_stopped_by_it(host: Host) -> None:
    host.swap()
    before = len(host.systemd.asked)
    host.now += 2000
    host.fire()
    stopped = [argv for argv in host.systemd.asked[before:] if argv[:2] == ["systemctl", "stop"]]
    assert stopped == [["systemctl", "stop", "--", "observability-upgrade-prometheus.timer"]]


def test_it_fires_once(host: Host) -> None:
    host.swap()
    host.now += 2000
    host.fire()
    before = snapshot(host.state, host.bin)
    host.fire()
    assert snapshot(host.state, host.bin) == before


def test_what_was_confirmed_stays(host: Host) -> None:
    host.swap()
    marker = pathlib.Path(host.state, "pending", "prometheus.json")
    kept = marker.read_bytes()
    host.confirm()
    marker.write_bytes(kept)  # the run died before it could take the guard away
    host.now += 2000
    host.fire()
    assert host.content() == "new new"
    assert host.record()["state"] == "success"
    assert host.armed() == []


def test_a_run_that_still_lives_is_waited_for(host: Host) -> None:
    host.swap()
    host.now += WITHIN - 100
    with host.session(run=RUN, lease_seconds=_lease.LEASE_SECONDS):
        pass
    host.now += 100
    host.fire()
    assert host.slept == [pytest.approx(WITHIN - 100)]
    assert host.record()["state"] == "rolled_back"


@pytest.mark.parametrize("step", [1, -1, 3600, -3600, 1e8], ids=lambda step: f"{step:+g} s")
def test_a_clock_that_is_set_neither_hurries_nor_delays_the_watchdog(host: Host, step: float) -> None:
    """Set forward, it undid what a live run was about to confirm."""
    host.swap()
    host.now += 100
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        host.now += seconds

    _guard.fire(host.systemd, host.state, "prometheus", clock=lambda: host.now + step, uptime=host.clock, sleep=sleep)
    assert waited == [pytest.approx(WITHIN - 100)]
    assert host.record()["state"] == "rolled_back"


def test_a_run_that_confirms_while_it_is_waited_for_has_the_last_word(host: Host) -> None:
    host.swap()

    def confirmed_meanwhile(seconds: float) -> None:
        host.now += seconds - 1
        host.confirm()
        host.now += 1

    _guard.fire(host.systemd, host.state, "prometheus", clock=host.clock, uptime=host.clock, sleep=confirmed_meanwhile)
    assert host.content() == "new new"
    assert host.record()["state"] == "success"


def test_an_old_version_that_is_not_healthy_needs_a_person(host: Host) -> None:
    host.swap()
    host.systemd.add(UNIT, str(host.bin / "prometheus"), active="failed")
    host.now += 2000
    host.fire()
    record = host.record()
    assert (record["state"], record["outcome"]) == ("failed", "failed")
    assert "2.42.0 is back in place, but isn't healthy" in record["last_error"]
    assert host.content() == "old old"
    assert os.listdir(os.path.join(host.state, "backups")) == [record["backup_id"]]


def test_a_damaged_restore_point_is_not_put_back(host: Host) -> None:
    host.swap()
    pathlib.Path(host.state, "backups", "u1.prometheus-2.42.0", "0-prometheus").write_text("damaged")
    host.now += 2000
    host.fire()
    record = host.record()
    assert record["outcome"] == "failed"
    assert "is damaged" in record["last_error"]
    assert host.content() == "new new"
    assert host.armed() == []


def test_an_error_of_the_disk_leaves_it_armed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends badly then, and systemd runs it again."""
    host.swap()

    def full(*args: t.Any) -> t.NoReturn:
        raise OSError(28, "No space left on device")

    host.now += 2000
    with monkeypatch.context() as patch:
        patch.setattr(_restore_point, "restore", full)
        with pytest.raises(OSError, match="No space"):
            host.fire()
    assert host.record()["state"] == "activated"
    assert host.armed() == ARMED
    host.fire()
    assert host.record()["state"] == "rolled_back"


# -- the start --------------------------------------------------------------------------------------------------------


def test_after_a_reboot_the_old_version_starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.swap()
    host.reboot(monkeypatch)
    host.start()
    assert host.content() == "old old"
    settling = host.systemd.commands("systemd-run")[-1]
    assert "--unit=observability-upgrade-prometheus-settle" in settling
    host.fire()
    record = host.record()
    assert (record["state"], host.slept, host.armed()) == ("rolled_back", [], [])
    assert "rebooted" in record["last_error"]


def test_a_start_in_the_same_boot_is_counted_and_lets_the_service_go(host: Host) -> None:
    host.swap()
    host.now += 2000
    for _start in range(_guard.START_LIMIT - 1):
        host.start()
    assert host.content() == "new new"
    host.start()
    assert host.content() == "old old"
    host.fire()
    assert "started 5 times" in host.record()["last_error"]


def test_starts_are_not_held_against_a_run_that_lives(host: Host) -> None:
    host.swap()
    for _start in range(3 * _guard.START_LIMIT):
        host.start()
    assert host.content() == "new new"


def test_a_start_by_a_module_is_its_own(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.swap()
    host.reboot(monkeypatch)
    with host.session(run=RUN):
        host.start()
    assert host.content() == "new new"


def test_a_confirmed_version_starts_after_a_reboot(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.swap()
    marker = pathlib.Path(host.state, "pending", "prometheus.json")
    kept = marker.read_bytes()
    host.confirm()
    marker.write_bytes(kept)
    host.reboot(monkeypatch)
    host.start()
    assert host.content() == "new new"


def test_a_damaged_marker_lets_the_service_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.swap()
    pathlib.Path(host.state, "pending", "prometheus.json").write_text("{")
    host.reboot(monkeypatch)
    host.start()
    assert host.content() == "new new"


def test_a_damaged_record_is_known_from_the_marker(host: Host) -> None:
    host.swap()
    pathlib.Path(host.state, "state.json").write_text("")
    host.now += 2000
    host.fire()
    assert host.content() == "old old"
    assert host.record()["state"] == "rolled_back"


# -- the race ---------------------------------------------------------------------------------------------------------


TURNS = 1000 if sys.version_info >= (3, 10) else 200
"""The race is one for locks and files, not for Pythons: the oldest of a host need not run it as often."""


def test_confirming_and_firing_never_both_win(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 times at once, in processes of their own, each a little later than the other by chance."""
    monkeypatch.setattr(_store, "_POLL", 0.0005)
    host.swap()
    kept = {path: path.read_bytes() for path in pathlib.Path(host.state).rglob("*") if path.is_file()}
    ended = {"success": 0, "rolled_back": 0}
    chance = random.Random(3)  # noqa: S311
    for _turn in range(TURNS):
        for name in NAMES:
            (host.bin / name).write_text(f"new {name}")
        for path, content in kept.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        host.now = NOW + 2000
        for pid in [_forked(action, chance.random() * 0.004) for action in chance.sample((host.confirm, host.fire), 2)]:
            os.waitpid(pid, 0)
        state = host.record()["state"]
        ended[state] += 1
        assert host.content() == {"success": "new new", "rolled_back": "old old"}[state]
    assert min(ended.values()) > 10, ended


def _forked(action: t.Callable[[], None], delay: float) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            time.sleep(delay)
            action()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    return pid


@pytest.mark.parametrize("changes", [{"binary": "relative"}, {"url": None}, {"probes": "all"}, {"unit": "../x"}])
def test_a_watchdog_that_could_not_be_used_is_not_armed(host: Host, changes: Data) -> None:
    guard = host.guard()
    with host.session(run=RUN) as session, pytest.raises(HostError, match="in what it must know, target") as failure:
        _guard.arm(host.systemd, session, guard._replace(target={**guard.target, **changes}))
    assert failure.value.key == "guard.not_armed"
    assert host.armed() == []


# -- other units that run the file ------------------------------------------------------------------------------------


def restarted(host: Host) -> list[str]:
    return [argv[-1] for argv in host.systemd.commands("systemctl", "restart")]


def test_all_units_that_run_the_file_are_watched_and_nothing_of_that_is_left(host: Host) -> None:
    host.share()
    host.swap()
    name = "observability-upgrade-prometheus.conf"
    conditions = [f"{unit}.d/{name}" for unit in (UNIT, "federate@a.service")]
    texts = [(host.units / path).read_text() for path in conditions]
    assert [text.rstrip().endswith(f"prometheus {unit}") for text, unit in zip(texts, (UNIT, "federate@a.service"))]
    assert all(text.count("start") for text in texts)
    host.now += 2000
    host.fire()
    assert host.content() == "old old"
    assert restarted(host) == [UNIT, "federate@a.service"]
    assert (host.record()["state"], host.armed()) == ("rolled_back", [])


@pytest.mark.parametrize("fails", [UNIT, "federate@a.service"])
def test_a_unit_that_can_not_be_restarted_does_not_keep_the_others_from_the_old_version(host: Host, fails: str) -> None:
    host.share()
    host.swap()
    host.systemd.on_restart = lambda unit: Completed(int(unit == fails), "", "Job failed.")
    host.now += 2000
    host.fire()
    assert restarted(host) == [UNIT, "federate@a.service"]
    record = host.record()
    assert (record["state"], host.content()) == ("failed", "old old")
    assert f"couldn't restart {fails}" in record["last_error"]


def test_all_units_must_be_healthy_again(host: Host) -> None:
    host.share()
    host.swap()
    look = host.systemd.units["federate@a.service"]
    host.systemd.units["federate@a.service"] = {**t.cast("Data", look), "ActiveState": "failed", "MainPID": 0}
    host.now += 2000
    host.fire()
    assert host.record()["state"] == "failed"
    assert "2.42.0 is back in place, but prometheus@federate-a isn't healthy" in host.record()["last_error"]


def test_starts_are_counted_for_each_unit(host: Host) -> None:
    """Starts of several units, each a few times, are no crash loop of one of them."""
    host.share()
    host.swap()
    host.now += 2000
    for _start in range(_guard.START_LIMIT - 1):
        host.start()
        host.start("federate@a.service")
    assert host.content() == "new new"
    host.start("federate@a.service")
    assert host.content() == "old old"
    host.fire()
    assert "federate@a.service has started 5 times" in host.record()["last_error"]
    assert restarted(host) == [UNIT, "federate@a.service"]


def test_the_units_of_an_instance_have_names_without_a_template() -> None:
    assert _guard.unit_name("node_exporter@9101") == "observability-upgrade-node_exporter.9101"
