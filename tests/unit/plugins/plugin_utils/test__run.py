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
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run["upgrade_id"])
    assert (run["pid"], run["started"]) == (os.getpid(), _process.started(os.getpid()))
    assert (run["user"], run["controller"], run["dead"]) == (getpass.getuser(), socket.gethostname(), [])
    assert run["upgrade_id"].startswith(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(run["started"])))


def test_a_run_stays_the_same_and_another_process_is_another_run() -> None:
    assert _run.this_run() == _run.this_run()
    other = elsewhere()
    assert other["upgrade_id"] != _run.this_run()["upgrade_id"]
    assert other["origin"] == _run.this_run()["origin"]


def test_forks_belong_to_the_run_that_forked_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("/bin/sh", "-c", "echo up; read -r line") as pid:
        parent = multiprocessing.process._ParentProcess("main", pid, 0)
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
        run = _run.this_run()
        assert (run["pid"], run["started"]) == (pid, _process.started(pid))


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
        ({"started": 1.0}, True),
        ({"started": None}, True),
        ({"origin": "another machine", "pid": 2**22 + 1}, False),
        ({"origin": None}, False),
    ],
    ids=["it lives", "no pid", "gone", "its pid is another's now", "no start", "elsewhere", "unknown where"],
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
        lease = {**run, "pid": pid, "started": _run.started(pid)}
        assert _run.is_dead(lease, run) is False
    assert _run.is_dead(lease, run) is True


@pytest.mark.parametrize(
    ("says", "started"), [("Sat Nov 21 07:00:00 2026", 1795244400.0), ("", 0.0)], ids=["alive", "gone"]
)
def test_where_there_is_no_proc_ps_tells_when_a_process_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, says: str, started: float
) -> None:
    program = write_program(tmp_path / "ps")
    program.write_text(f'#!/bin/sh\n[ "$*" = "-o lstart= -p 7" ] && [ "$LC_ALL" = C ] && echo "{says}"\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(_process, "PROC", str(tmp_path / "nowhere"))
    time.tzset()
    try:
        assert _run.started(7) == started
    finally:
        monkeypatch.undo()
        time.tzset()
