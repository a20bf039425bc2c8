# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import re
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _command, _process, _systemd
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._observe import Scene, observe
from ansible_collections.observability.stack.tests.unit.support import Data, Systemd, running, write_program

LOG = {"kind": "log", "patterns": [r"level=error\b", r'"level":"ERROR"'], "allow": ["context canceled"]}


def scene(run: t.Callable[..., Completed], *, pid: int = 0, **options: t.Any) -> Scene:
    unit = _systemd.Unit("a.service", "loaded", "active", "running", "success", pid, 0, {})
    target = {"component": "a", "unit": "a", "binary": "/usr/bin/a", "url": "http://127.0.0.1:1"}
    return Scene(run, target, unit, **{"sleep": lambda _seconds: None, **options})


# -- the journal --------------------------------------------------------------------------------------------------


def test_lines_of_any_log_format_are_counted(systemd: Systemd) -> None:
    systemd.journal["a.service"] = [
        "ts=2026 caller=main.go level=info msg=started",
        "ts=2026 level=error err=boom url=http://u:geheim@h/",
        '{"time":"2026","level":"ERROR","msg":"slog"}',
        'ts=2026 level=error err="context canceled"',
    ]
    seen = observe(scene(systemd, since=1000.7), LOG)
    assert (seen["count"], seen["error"]) == (2, "")
    assert seen["lines"][0] == "ts=2026 level=error err=boom url=http://u:********@h/"
    assert {"--unit=a.service", "--since=@1000", "--output=json"} <= {*systemd.commands("journalctl")[0]}


def test_a_line_has_no_secret_of_the_unit_and_is_cut_after_that(systemd: Systemd) -> None:
    systemd.journal["a.service"] = [f"level=error {'x' * 180} canary-secret"]
    seen = scene(systemd, since=1000.7)
    seen.unit.properties["Environment"] = "DB_PASSWORD=canary-secret"
    (line,) = observe(seen, LOG)["lines"]
    assert line.endswith("x *******")


def entry(message: t.Any, *, pid: int = 7, start: str = "now", at: float = 1001.0) -> str:
    told = {"MESSAGE": message, "_PID": str(pid), "_SYSTEMD_INVOCATION_ID": start}
    return json.dumps({**told, "__REALTIME_TIMESTAMP": str(int(at * 1e6))})


def journal(*lines: str, rc: int = 0) -> t.Callable[..., Completed]:
    return lambda argv, **options: Completed(rc, "\n".join(lines), "no journal files" if rc else "")


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([entry("level=error")], 1),
        ([entry("level=error", at=1000.4)], 0),
        ([entry("level=error", pid=6, start="before"), entry("up")], 0),
        ([entry("level=error", pid=8), entry("up")], 1),
        ([entry("level=error", pid=6, start="before")], 1),
        ([entry(list(b"level=error \xff"))], 1),
        ([entry(None), "not json", "[]"], 0),
    ],
    ids=["its own", "before that time", "an earlier start", "a child", "nothing of its own yet", "no UTF-8", "nothing"],
)
def test_lines_of_the_present_start_count(lines: list[str], count: int) -> None:
    assert observe(scene(journal(*lines), pid=7, since=1000.5), LOG)["count"] == count


def test_a_journal_that_cannot_be_read_is_told() -> None:
    assert observe(scene(journal(rc=1)), LOG)["error"] == "the journal can't be read: no journal files"


# -- the process --------------------------------------------------------------------------------------------------


def test_what_a_process_uses_is_seen(tmp_path: pathlib.Path) -> None:
    memory: Data = {}
    with running(write_program(tmp_path / "program")) as pid:
        first = observe(scene(_command.run, pid=pid, memory=memory), {"kind": "resources", "cpu_most": 50})
        again = observe(scene(_command.run, pid=pid, memory=memory), {"kind": "resources", "cpu_most": 50})
        without = observe(scene(_command.run, pid=pid), {"kind": "resources"})
    assert first["rss"] > 100_000
    assert 3 <= first["fds"] < first["fds_limit"]
    assert again["cpu"] is None or 0 <= again["cpu"] <= 2
    assert (without["cpu"], without["error"]) == (None, "")


def test_a_busy_process_is_seen_to_be_busy() -> None:
    pid, now = os.getpid(), _process.uptime()
    memory: Data = {"cpu": (pid, _process.cpu_seconds(pid) - 5, now - 10)}
    seen = observe(scene(_command.run, pid=pid, memory=memory), {"kind": "resources", "cpu_most": 50})
    assert 0.3 < seen["cpu"] < 0.8
    assert memory["cpu"][2] >= now


def test_a_process_that_is_gone_is_told() -> None:
    seen = observe(scene(_command.run, pid=2**22 + 1), {"kind": "resources", "cpu_most": 1})
    assert seen["error"] == f"process {2**22 + 1} can't be looked at (No such file or directory)"


# -- programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "text", "seen"),
    [
        (["/bin/sh", "-c", "echo out; echo pw http://u:p@h >&2; exit 3"], None, (3, "pw http://u:********@h", True)),
        (["/bin/echo", "hello"], "ell", (0, "hello", True)),
        (["/bin/echo", "hello"], "bye", (0, "hello", False)),
        (["/nowhere/program"], None, (None, "/nowhere/program: No such file or directory", True)),
    ],
)
def test_a_program_is_run(argv: list[str], text: str | None, seen: tuple[t.Any, ...]) -> None:
    found = observe(scene(_command.run), {"kind": "command", "argv": argv, "text": text})
    assert (found["rc"], found["error"], found["text"]) == seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("owner", "mode", "where"), [(12, 0o755, ""), (0, 0o757, ""), (12, 0o755, "bin"), (0, 0o1777, "bin")]
)
def test_a_program_that_another_user_can_write_is_not_run(
    tmp_path: pathlib.Path, owner: int, mode: int, where: str
) -> None:
    program = tmp_path / "bin" / "probe"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    changed = tmp_path / where if where else program
    os.chown(changed, owner, 0)
    changed.chmod(mode)
    found = observe(scene(_command.run), {"kind": "command", "argv": [str(program)], "text": None})
    assert found["rc"] is None
    assert "it isn't run: a user other than root can write" in found["error"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ({"Status": "running", "Health": {"Status": "healthy"}}, ("running", "healthy", "")),
        ({"Status": "running", "Healthcheck": {"Status": "starting"}}, ("running", "starting", "")),
        ({"Status": "exited"}, ("exited", None, "")),
        (None, (None, None, "podman doesn't know c: no such container")),
    ],
    ids=["docker", "older podman", "no check", "unknown"],
)
def test_a_container_is_inspected(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, state: Data | None, seen: tuple[t.Any, ...]
) -> None:
    """By a stand-in for podman that says what podman and docker say."""
    says = "echo no such container >&2; exit 125" if state is None else f"echo '{json.dumps(state)}'"
    (tmp_path / "podman").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{says}\n')
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = observe(scene(_command.run), {"kind": "container", "engine": "podman", "container": "c"})
    assert (found["status"], found["health"], found["error"]) == seen
    assert re.fullmatch(r"inspect --type=container --format=.* -- c\n", (tmp_path / "asked").read_text())
