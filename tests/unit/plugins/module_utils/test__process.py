# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _process


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "program"
    shutil.copy(shutil.which("sleep") or "", path)
    return path


@pytest.fixture
def pid(program: pathlib.Path) -> t.Iterator[int]:
    process = subprocess.Popen([str(program), "60"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_process_runs_the_file_at_its_path(program: pathlib.Path, pid: int) -> None:
    assert _process.runs_file(pid, str(program))
    assert _process.command_line(pid) == [str(program), "60"]


def test_a_replaced_file_is_not_the_one_that_runs(program: pathlib.Path, pid: int) -> None:
    shutil.copy(program, program.with_name("new"))
    os.rename(program.with_name("new"), program)
    assert not _process.runs_file(pid, str(program))
    with open(_process.executable(pid), "rb") as running:
        assert running.read() == program.read_bytes()


def test_a_link_to_the_file_is_the_file(program: pathlib.Path, pid: int) -> None:
    program.with_name("link").symlink_to(program)
    assert _process.runs_file(pid, str(program.with_name("link")))


def test_a_script_is_run_by_its_interpreter(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "exporter"
    script.write_text(f"#!{sys.executable}\nimport time\nprint('up', flush=True)\ntime.sleep(60)\n")
    script.chmod(0o755)
    time.sleep(0.05)  # a process's start is known to a hundredth of a second
    process = subprocess.Popen([str(script)], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()
        assert _process.runs_file(process.pid, str(script))
        assert not _process.runs_file(process.pid, str(tmp_path / "other"))
        os.utime(script)
        script.chmod(0o700)
        time.sleep(0.05)
        script.with_name("new").write_text(script.read_text())
        os.rename(script.with_name("new"), script)
        assert not _process.runs_file(process.pid, str(script))
    finally:
        process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None


def test_what_is_gone_runs_nothing(program: pathlib.Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert not _process.runs_file(process.pid, str(program))
    assert _process.command_line(process.pid) == []
    assert _process.started(process.pid) == 0.0
    assert _process.file_id("/nonexistent") is None


def test_a_process_is_known_by_when_it_started(pid: int) -> None:
    assert abs(_process.started(pid) - time.time()) < 5
    assert _process.started(pid) == _process.started(pid)
