# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.observability.stack.plugins.module_utils._command import run
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
