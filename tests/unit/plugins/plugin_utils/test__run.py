# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _process
from ansible_collections.observability.stack.plugins.plugin_utils import _run
from ansible_collections.observability.stack.tests.unit.support import running, write_program

Data = dict[str, t.Any]


def elsewhere() -> Data:
    """The identity that another process of this machine finds."""
    path = os.pathsep.join([str(pathlib.Path(_run.__file__).parents[5]), *sys.path])
    code = f"import json; from {_run.__name__} import this_run; print(json.dumps(this_run()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return t.cast("Data", json.loads(done.stdout))


def test_a_run_is_its_process_on_its_machine() -> None:
    run = _run.this_run()
    assert re.fullmatch(r"run-[0-9a-f]{12}", run["upgrade_id"])
    assert {key: run[key] for key in ("pid", "start_ticks", "boot")} == _process.identity(os.getpid())
    assert (run["user"], run["controller"], run["dead"]) == (getpass.getuser(), socket.gethostname(), [])


def test_a_run_stays_the_same_and_another_process_is_another_run() -> None:
    assert _run.this_run() == _run.this_run()
    other = elsewhere()
    assert other["upgrade_id"] != _run.this_run()["upgrade_id"]
    assert other["origin"] == _run.this_run()["origin"]


@pytest.mark.parametrize("step", [1, -1, 2, 3600, -3600, 1e9], ids=lambda step: f"{step:+g} s")
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "right/UTC"])
def test_a_clock_that_is_set_and_a_time_zone_do_not_make_another_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, step: float, zone: str
) -> None:
    """The id came from the time of day at which the kernel says that it started, and that follows each step of a clock.
    A zone of right/ counts leap seconds."""
    before, real = _run.this_run(), time.time
    proc = tmp_path / "proc"
    shutil.copytree("/proc/sys/kernel/random", proc / "sys/kernel/random", copy_function=_copy)
    (proc / str(os.getpid())).mkdir()
    _copy(f"/proc/{os.getpid()}/stat", proc / str(os.getpid()) / "stat")
    (proc / "stat").write_text(f"btime {1_800_000_000 + int(step)}\n")
    monkeypatch.setattr(_process, "PROC", str(proc))
    monkeypatch.setattr(time, "time", lambda: real() + step)
    monkeypatch.setenv("TZ", zone)
    assert _run.this_run() == before
    assert _run.is_dead(before, _run.this_run()) is False


def _copy(source: str, target: str | pathlib.Path) -> None:
    pathlib.Path(target).write_text(pathlib.Path(source).read_text())


def test_another_host_name_does_not_make_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _run.this_run()
    monkeypatch.setattr(socket, "gethostname", lambda: "from-dhcp")
    assert _run.this_run()["upgrade_id"] == before["upgrade_id"]


def test_forks_belong_to_the_run_that_forked_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("/bin/sh", "-c", "echo up; read -r line") as pid:
        parent = multiprocessing.process._ParentProcess("main", pid, 0)
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
        run = _run.this_run()
        assert {key: run[key] for key in ("pid", "start_ticks", "boot")} == _process.identity(pid)


@pytest.mark.parametrize(
    ("environment", "job"),
    [({}, ""), ({"JOB_ID": "7"}, "7"), ({"AWX_JOB_ID": "8"}, "8"), ({"JOB_ID": "", "AWX_JOB_ID": "9"}, "9")],
)
def test_the_job_of_a_scheduler_is_told(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str) -> None:
    for name in ("JOB_ID", "AWX_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _run.this_run()["job"] == job


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert _run.this_run()["user"] == "987654"


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"pid": None}, False),
        ({"pid": 2**22 + 1}, True),
        ({"start_ticks": 1}, True),
        ({"start_ticks": None}, True),
        ({"boot": "an earlier one"}, True),
        ({"boot": "an earlier one", "origin": "another machine"}, False),
        ({"pid": 2**31}, False),
        ({"origin": "another machine", "pid": 2**22 + 1}, False),
        ({"origin": None}, False),
    ],
    ids=[
        "it lives",
        "no pid",
        "gone",
        "its pid is another's now",
        "no start",
        "this machine was rebooted",
        "another machine has another boot",
        "no pid of any process",
        "elsewhere",
        "unknown where",
    ],
)
def test_only_a_run_of_this_machine_that_is_gone_is_known_to_be_dead(changes: Data, dead: bool) -> None:
    run = _run.this_run()
    assert _run.is_dead({**run, **changes}, run) is dead


def test_nobody_s_lease_is_not_a_dead_run_s() -> None:
    assert _run.is_dead({}, _run.this_run()) is False
    assert _run.is_dead({"token": 7}, _run.this_run()) is False


def test_a_run_that_was_killed_is_known_to_be_dead() -> None:
    run = _run.this_run()
    with running("/bin/sh", "-c", "echo up; read -r line") as pid:
        lease = {**run, **_process.identity(pid)}
        assert _run.is_dead(lease, run) is False
    assert _run.is_dead(lease, run) is True


def test_a_process_that_is_hidden_is_not_known_to_be_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """With hidepid a user sees no processes of others in /proc: a colleague's live run was taken over."""
    run, proc = _run.this_run(), tmp_path / "proc"
    proc.mkdir()
    monkeypatch.setattr(_process, "PROC", str(proc))
    assert _run.is_dead({**run, "pid": 1}, run) is False
    assert _run.is_dead({**run, "pid": 2**22 + 1}, run) is True


def test_machines_of_one_name_are_told_apart_where_they_have_no_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    machine = tmp_path / "machine-id"
    monkeypatch.setattr(_run, "_MACHINE_ID", str(machine))
    origins = {_run.this_run()["origin"]}
    for name in ("one", "two"):
        machine.write_text(f"{name}\n")
        origins.add(_run.this_run()["origin"])
    assert len(origins) == 3
    assert not any("one" in origin.split()[1] for origin in origins)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin"])
@pytest.mark.parametrize(
    ("says", "ticks"),
    [
        ("Sat Nov 21 07:00:00 2026", 1795244400),
        ("Sun Oct 25 02:30:00 2026", 1792895400),
        ("Sat Dec 31 23:59:60 2016", 1483228800),
        ("", None),
    ],
    ids=["alive", "in the hour that comes twice", "in a leap second", "gone"],
)
def test_where_there_is_no_proc_ps_tells_when_a_process_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, says: str, ticks: int | None, zone: str
) -> None:
    program = write_program(tmp_path / "ps")
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "-o lstart= -p 7" ] && [ "$LC_ALL" = C ] && [ "$TZ" = UTC ] && echo "{says}"\n'
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TZ", zone)
    monkeypatch.setattr(_process, "PROC", str(tmp_path / "nowhere"))
    time.tzset()
    try:
        assert _run.identity(7) == (ticks and {"pid": 7, "start_ticks": ticks, "boot": ""})
    finally:
        monkeypatch.undo()
        time.tzset()
