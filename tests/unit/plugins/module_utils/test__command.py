# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import signal
import time
import tracemalloc
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._command import Completed, run
from ansible_collections.observability.stack.tests.unit.support import eventually


def test_stdout_stderr_and_the_exit_code_are_told_apart() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.rc, done.out, done.err, done.text) == (3, "out\n", "err\n", "out\nerr\n")


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: pathlib.Path) -> None:
    child = tmp_path / "child"
    done = run(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], timeout=1)
    assert (done.rc, done.out) == (None, "")
    assert "no answer within 1 s, killed" in done.err
    status = pathlib.Path("/proc", child.read_text().strip(), "status")
    eventually(lambda: not status.exists() or "State:\tZ" in status.read_text())


@pytest.mark.parametrize(("program", "says"), [("/nonexistent", "No such file"), ("/etc/hostname", "/etc/hostname: ")])
def test_a_program_that_cannot_start_is_no_exception(program: str, says: str) -> None:
    done = run([program, "--version"])
    assert done.rc is None
    assert says in done.err


def test_programs_run_in_the_c_locale_and_read_nothing() -> None:
    assert run(["sh", "-c", "echo $LC_ALL; cat; pwd"]).out == "C\n/\n"


def test_output_that_is_no_text_is_read_all_the_same() -> None:
    assert run(["printf", r"\377ok"]).out == "\ufffdok"


def took(seconds: float, *argv: str, **options: t.Any) -> Completed:
    """How a program ended that must have been left within so many seconds."""
    began = time.monotonic()
    done = run(argv, **options)
    assert time.monotonic() - began < seconds
    return done


def test_a_process_that_leaves_the_session_and_holds_the_output_blocks_nothing(tmp_path: pathlib.Path) -> None:
    pid = tmp_path / "pid"
    leaves = f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & until test -s {pid}; do :; done"
    try:
        assert took(3, "sh", "-c", f"{leaves}; echo out; exit 3", timeout=20) == Completed(3, "out\n", "")
        assert "no answer within 1 s, killed" in took(4, "sh", "-c", f"{leaves}; exec sleep 60", timeout=1).err
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "program",
    [
        "trap '' TERM HUP INT; while :; do sleep 60; done",
        "kill -STOP $$",
        "exec >&- 2>&-; exec sleep 60",
        "while :; do printf x; sleep 0.1; done",
        "exec yes",
    ],
    ids=["ignores SIGTERM", "is stopped", "closes its output", "drips", "writes without end"],
)
def test_a_program_that_does_not_end_is_killed_in_time(program: str) -> None:
    done = took(4, "sh", "-c", program, timeout=0.5)
    assert (done.rc, done.out, done.err) == (None, "", "sh: no answer within 0.5 s, killed")


def test_endless_output_costs_no_memory_and_is_said_to_be_cut() -> None:
    tracemalloc.start()
    try:
        done = took(20, "sh", "-c", "head -c 100000000 /dev/zero; echo err >&2", timeout=20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (done.rc, len(done.out)) == (0, 1 << 20)
    assert done.err == "err\nsh: its output was cut after 1 MiB\n"
    assert peak < 10 << 20


def test_input_is_given_to_a_program_whether_it_reads_it_or_not() -> None:
    content = b"line\n" * 200_000
    assert run(["wc", "-c"], stdin=content).out == "1000000\n"
    assert run(["true"], stdin=content).rc == 0
    assert "killed" in took(4, "sleep", "60", stdin=content, timeout=0.5).err
