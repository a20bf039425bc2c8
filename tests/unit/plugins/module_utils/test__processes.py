# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _process, _processes, _systemd
from ansible_collections.observability.stack.tests.unit.support import running, write_elf

ID = "4f" * 32
NODE = "node_exporter.service"


@pytest.mark.parametrize(
    ("path", "top", "group"),
    [
        ("/system.slice/node_exporter.service", "", (NODE, "", False)),
        (
            "/system.slice/system-node_exporter.slice/node_exporter@a.service",
            "",
            ("node_exporter@a.service", "", False),
        ),
        ("/mon.slice/mon-deep.slice/node_exporter.service/worker", "", (NODE, "", False)),
        ("/system.slice/_special.service", "", ("special.service", "", False)),
        ("/machine.slice/x.scope/system.slice/node_exporter.service", "/machine.slice/x.scope", (NODE, "", False)),
        ("/user.slice/user-0.slice/session-3.scope", "", (None, "", False)),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/node_exporter.service",
            "",
            (None, NODE, False),
        ),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "", (None, "user@1000.service", False)),
        (f"/system.slice/docker-{ID}.scope", "", (None, "", True)),
        (f"/docker/{ID}", "", (None, "", True)),
        (f"/machine.slice/libpod-{ID}.scope/container", "", (None, "", True)),
        (f"/system.slice/node_exporter.service/libpod-payload-{ID}", "", (NODE, "", True)),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/x", "", (None, "", True)),
        ("/lxc.payload.web/system.slice/node_exporter.service", "", (None, "", True)),
        ("/machine.slice/systemd-nspawn@web.service/payload/system.slice/node_exporter.service", "", None),
        ("/system.slice/docker.service", "", ("docker.service", "", False)),
        ("/init.scope", "", (None, "", False)),
        ("/", "", (None, "", False)),
        ("", "", (None, "", False)),
    ],
)
def test_the_unit_of_a_process_is_what_its_control_group_says(
    path: str, top: str, group: tuple[str | None, str, bool] | None
) -> None:
    found = tuple(_processes.group_of(path, top))
    assert found == (group or ("systemd-nspawn@web.service", "", True))


def test_all_processes_are_read_and_threads_of_the_kernel_are_not(proc: t.Callable[..., None]) -> None:
    proc(1, "/sbin/init", exe="/usr/lib/systemd/systemd", group="0::/init.scope")
    proc(2, "")
    proc(30, "/opt/node_exporter --a", exe="/opt/node_exporter (deleted)", group=f"0::/system.slice/{NODE}", parent=7)
    found = {each.pid: each for each in _processes.read()}
    assert sorted(found) == [1, 30]
    assert found[30] == _processes.Process(
        pid=30,
        parent=7,
        program="/opt/node_exporter",
        replaced=True,
        file=None,
        argv=("/opt/node_exporter", "--a"),
        unit=NODE,
        user_unit="",
        contained=False,
    )


def test_a_host_that_is_a_container_has_units_of_its_own(proc: t.Callable[..., None]) -> None:
    top = f"/machine.slice/libpod-{ID}.scope"
    proc(1, "/sbin/init", group=f"0::{top}/init.scope")
    proc(30, "/opt/node_exporter", exe="/opt/node_exporter", group=f"0::{top}/system.slice/{NODE}")
    (_init, found) = _processes.read()
    assert (found.unit, found.contained) == (NODE, False)


def test_a_process_in_a_namespace_of_pids_below_ours_is_contained(proc: t.Callable[..., None]) -> None:
    proc(30, "/bin/node_exporter", exe="/bin/node_exporter", numbers="30\t1")
    assert _processes.read()[0].contained


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        (f"12:pids:/other\n1:name=systemd:/system.slice/{NODE}\n0::/", NODE),
        (f"0::/system.slice/{NODE}", NODE),
        ("nonsense", None),
    ],
    ids=["version 1", "version 2", "unreadable"],
)
def test_both_versions_of_control_groups_are_read(proc: t.Callable[..., None], lines: str, unit: str | None) -> None:
    proc(30, "/opt/x", exe="/opt/x", group=lines)
    assert _processes.read()[0].unit == unit


@pytest.mark.parametrize(
    ("argv", "exe", "path"),
    [
        ("/opt/node_exporter --a", "/opt/node_exporter", "/opt/node_exporter"),
        ("node_exporter --a", "/opt/node_exporter", "/opt/node_exporter"),
        ("/bin/sh /opt/start.sh x", "/bin/dash", "/opt/start.sh"),
        ("/bin/sh -c /opt/start.sh", "/bin/dash", "/bin/dash"),
        ("/usr/bin/python3 -u /opt/exporter.py", "/usr/bin/python3.11", "/opt/exporter.py"),
        ("/opt/node_exporter --a", "", "/opt/node_exporter"),
    ],
    ids=["native", "relative", "script", "shell command", "python", "hidden"],
)
def test_the_program_of_a_process(proc: t.Callable[..., None], argv: str, exe: str, path: str) -> None:
    proc(30, argv, exe=exe)
    (found,) = _processes.read()
    assert (found.path, found.hidden) == (path, not exe)


def test_a_process_that_ends_meanwhile_is_left_out(proc: t.Callable[..., None], tmp_path: pathlib.Path) -> None:
    (tmp_path / "proc" / "77").mkdir()
    (tmp_path / "proc" / "self").mkdir()
    assert _processes.read() == []


def test_this_process_is_among_all(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "node_exporter"
    shutil.copy(shutil.which("sleep") or "", program)
    with running("/bin/sh", "-c", f"echo up; exec {program} 60") as pid:
        found = {each.pid: each for each in _processes.read()}
    assert {os.getpid(), pid} <= set(found)
    assert found[os.getpid()].file == _process.file_id("/proc/self/exe")
    assert found[pid].parent == os.getpid()


def test_who_listens_is_found_by_the_socket() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        found = _processes.listening(port, _processes.read())
        assert found is not None
        assert found.pid == os.getpid()
    assert _processes.listening(port, _processes.read()) is None


# -- the component's process in a unit -----------------------------------------------------------------------------


def unit(pid: int, start: str = "/bin/sh") -> _systemd.Unit:
    shown = {"ExecStart": f"{{ path={start} ; argv[]={start} -c x ; ignore_errors=no ; pid=0 }}"}
    return _systemd.Unit(NODE, "loaded", "active", "running", "success", pid, 0, shown)


@pytest.fixture
def started_by_a_shell(proc: t.Callable[..., None], tmp_path: pathlib.Path) -> pathlib.Path:
    """A program whose unit's main process, 9, is a shell that has started it as process 10."""
    program, shell = (tmp_path / name for name in ("node_exporter", "dash"))
    for path in (program, shell):
        path.touch()
    group = f"0::/system.slice/{NODE}"
    proc(9, f"/bin/sh -c {program}", exe=str(shell), group=group)
    proc(10, f"{program} --a", exe=str(program), group=group, parent=9)
    proc(11, f"{program} --b", exe=str(program), group="0::/system.slice/other.service")
    return program


def test_what_a_shell_has_started_is_the_component_s_process(started_by_a_shell: pathlib.Path) -> None:
    path = str(started_by_a_shell)
    assert (_processes.of_program(unit(9), path), _processes.of_component(unit(9), path)) == (10, 10)
    assert _processes.arguments(unit(9), ["node_exporter"]) == [path, "--a"]
    assert _processes.of_program(unit(0), path) == 0


def test_after_a_swap_no_process_runs_the_file_and_the_old_one_is_still_known(
    started_by_a_shell: pathlib.Path, proc: t.Callable[..., None], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "proc/10/exe").unlink()
    (tmp_path / "proc/10/exe").symlink_to(f"{started_by_a_shell} (deleted)")
    path = str(started_by_a_shell)
    assert (_processes.of_program(unit(9), path), _processes.of_component(unit(9), path)) == (0, 10)


@pytest.mark.parametrize(
    ("start", "names", "found"),
    [
        ("/sbin/start-stop-daemon", ["node_exporter"], True),
        ("{directory}/start.sh", ["node_exporter"], True),
        ("/bin/sh", ["prometheus-node-exporter"], True),
        ("{directory}/elf", ["node_exporter"], False),
    ],
    ids=["a starter that is gone", "a script", "another name", "the unit starts a program"],
)
def test_arguments_are_those_of_the_process_where_the_unit_starts_something_else(
    started_by_a_shell: pathlib.Path, start: str, names: list[str], found: bool
) -> None:
    """start-stop-daemon has words of its own before those of the program, and a -- between them."""
    (started_by_a_shell.parent / "start.sh").write_text("#!/bin/sh\n")
    write_elf(started_by_a_shell.parent / "elf")
    main = unit(10, start.format(directory=started_by_a_shell.parent))
    assert _processes.of_program(main, str(started_by_a_shell)) == 10
    assert _processes.arguments(main, names) == ([str(started_by_a_shell), "--a"] if found else [])


def test_secrets_on_the_command_line_of_what_a_shell_starts_are_known(
    proc: t.Callable[..., None], tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "node_exporter"
    program.touch()
    proc(9, "/bin/sh /opt/start.sh", exe="/bin/sh", group=f"0::/system.slice/{NODE}")
    proc(10, f"{program} --api-token=not-to-be-told", exe=str(program), group=f"0::/system.slice/{NODE}", parent=9)
    assert "not-to-be-told" in _systemd.secrets_of(unit(9))
