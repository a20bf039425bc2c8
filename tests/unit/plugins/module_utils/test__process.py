# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _process
from ansible_collections.observability.stack.tests.unit.support import eventually, outlive_the_tick


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "program"
    shutil.copy(shutil.which("sleep") or "", path)
    return path


@pytest.fixture
def pid(program: pathlib.Path) -> t.Iterator[int]:
    process = subprocess.Popen([str(program), "60"])
    # The kernel has a new program's file before it has its arguments.
    eventually(lambda: pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes())
    yield process.pid
    process.kill()
    process.wait()


def test_a_process_runs_the_file_at_its_path(program: pathlib.Path, pid: int) -> None:
    assert _process.runs_file(pid, str(program))
    assert _process.command_line(pid) == [str(program), "60"]


def test_a_replaced_file_is_not_the_one_that_runs(program: pathlib.Path, pid: int) -> None:
    shutil.copy(program, program.with_name("new"))
    assert _process.told_executable(pid) == str(program)
    os.rename(program.with_name("new"), program)
    assert not _process.runs_file(pid, str(program))
    assert _process.told_executable(pid) == f"{program} (deleted)"
    with open(_process.executable(pid), "rb") as running:
        assert running.read() == program.read_bytes()


def test_a_link_to_the_file_is_the_file(program: pathlib.Path, pid: int) -> None:
    program.with_name("link").symlink_to(program)
    assert _process.runs_file(pid, str(program.with_name("link")))


def test_a_script_is_run_by_its_interpreter(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "exporter"
    script.write_text(f"#!{sys.executable}\nimport time\nprint('up', flush=True)\ntime.sleep(60)\n")
    script.chmod(0o755)
    eventually(lambda: time.time() > script.stat().st_ctime + 4 * _process._TICK)
    process = subprocess.Popen([str(script)], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()
        assert _process.runs_file(process.pid, str(script))
        assert not _process.runs_file(process.pid, str(tmp_path / "other"))
        os.utime(script)
        script.chmod(0o700)
        outlive_the_tick(process.pid)
        script.with_name("new").write_text(script.read_text())
        os.rename(script.with_name("new"), script)
        assert not _process.runs_file(process.pid, str(script))
    finally:
        process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None


class Proc:
    """A /proc in which a process looks as it does in a container, or to a program that is quick."""

    PID = 42

    def __init__(self, root: pathlib.Path) -> None:
        self.file = root / "exporter"
        self.file.touch()
        self.root = root / "proc"
        self._own = self.root / str(self.PID)
        self._own.mkdir(parents=True)

    def show(self, exe: str | None, words: list[str], *, after: float) -> None:
        """A process that was started so many seconds after the file came to its path."""
        if exe is not None:
            target = self.file if exe == "the file" else self.file.with_name(exe)
            target.touch()
            (self._own / "exe").symlink_to(target)
        (self._own / "cmdline").write_text("".join(f"{word}\0" for word in words).replace("@", str(self.file)))
        since_boot = self.file.stat().st_ctime + after - time.time() + time.clock_gettime(time.CLOCK_BOOTTIME)
        fields = ["S", *["0"] * 18, str(round(since_boot / _process._TICK)), "0"]
        (self._own / "stat").write_text(f"{self.PID} (a) b) {' '.join(fields)}\n")


@pytest.mark.parametrize(
    ("exe", "words", "after", "runs"),
    [
        ("the file", ["@"], 1, True),
        ("the file", ["other"], -1, True),
        ("other", ["@"], 1, False),
        ("interpreter", ["interpreter", "@"], 1, True),
        ("interpreter", ["interpreter", "-u", "@"], 1, True),
        ("interpreter", ["interpreter", "-u", "-x", "@"], 1, False),
        ("interpreter", ["interpreter", "@"], -1, False),
        ("interpreter", ["interpreter", "other"], 1, False),
        (None, ["@", "--flag"], 1, True),
        (None, ["interpreter", "@"], 1, True),
        (None, ["@", "--flag"], -1, False),
        (None, ["other"], 1, False),
        (None, [], 1, False),
    ],
    ids=[
        "its executable",
        "its executable, called otherwise",
        "another executable that calls itself so",
        "a script",
        "a script, with an option",
        "an argument of a script",
        "a script that came there later",
        "another script",
        "hidden, called so",
        "hidden, a script",
        "hidden, but the file came there later",
        "hidden, called otherwise",
        "hidden altogether",
    ],
)
def test_which_file_a_process_runs_is_seen_or_follows_from_its_command_line_and_age(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, exe: str | None, words: list[str], after: float, runs: bool
) -> None:
    proc = Proc(tmp_path)
    proc.show(exe, words, after=after)
    monkeypatch.setattr(_process, "PROC", str(proc.root))
    assert _process.runs_file(Proc.PID, str(proc.file)) is runs
    proc.file.unlink()
    assert _process.runs_file(Proc.PID, str(proc.file)) is False


def test_the_program_of_a_process_has_its_name_even_when_it_is_deleted(program: pathlib.Path, pid: int) -> None:
    eventually(lambda: _process.program_name(pid) == "program")
    program.unlink()
    assert _process.program_name(pid) == "program"
    assert _process.program_name(0) == ""


def test_what_is_gone_runs_nothing(program: pathlib.Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert not _process.runs_file(process.pid, str(program))
    assert _process.command_line(process.pid) == []
    assert _process.file_id("/nonexistent") is None


def test_who_listens_is_known_by_port() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        assert os.geteuid() not in _process.listeners().get(port, set())
        listening.listen()
        assert _process.listeners()[port] == {os.geteuid()}
    assert _process.effective_user(os.getpid()) == os.geteuid()
    assert _process.effective_user(2**22 + 1) is None


def test_the_file_that_a_process_runs_is_read_even_when_it_is_gone(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "cat"
    shutil.copy(shutil.which("cat") or "", program)
    wanted = hashlib.sha256(program.read_bytes()).hexdigest()
    process = subprocess.Popen([program], stdin=subprocess.PIPE)
    try:
        program.unlink()
        assert _process.executable_sha256(process.pid) == wanted
    finally:
        process.kill()
        process.communicate()
    assert _process.executable_sha256(process.pid) is None
