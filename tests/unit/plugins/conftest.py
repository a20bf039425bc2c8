# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import functools
import io
import json
import pathlib
import types
import typing as t

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args
from ansible_collections.observability.stack.plugins.module_utils import _process, _processes, _systemd
from ansible_collections.observability.stack.tests.unit.support import Call, Data, Systemd, Web, own_processes


@pytest.fixture
def systemd(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """A host's systemd, whose unit files are below the test's own directory, and whose processes are the test's own:
    those of this machine, and what listens on it, are none of them."""
    directory = tmp_path / "units"
    directory.mkdir()
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", (str(directory),))
    monkeypatch.setattr(_processes, "read", functools.partial(own_processes, _processes.read))
    return Systemd(directory)


REAL_READ = _processes.read


@pytest.fixture
def proc(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., None]:
    """A /proc of the test's own. Each call adds a process to it. Ask for it after C(systemd), if for both."""
    root = tmp_path / "proc"
    root.mkdir()
    monkeypatch.setattr(_process, "PROC", str(root))
    monkeypatch.setattr(_processes, "read", REAL_READ)

    def add(
        pid: int,
        argv: str,
        *,
        exe: str = "",
        group: str = "0::/system.slice/x.service",
        parent: int = 1,
        numbers: str | None = None,
    ) -> None:
        (root / str(pid)).mkdir()
        files = {
            "cmdline": argv.replace(" ", "\0") + "\0" * bool(argv),
            "cgroup": f"{group}\n",
            "status": f"Name:\tx\nPPid:\t{parent}\nNSpid:\t{numbers or pid}\n",
        }
        for name, text in files.items():
            (root / str(pid) / name).write_text(text)
        if exe:
            (root / str(pid) / "exe").symlink_to(exe)

    return add


@pytest.fixture
def web() -> t.Iterator[Web]:
    with Web().serving() as server:
        yield server


@pytest.fixture
def state_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


@pytest.fixture
def call(state_dir: pathlib.Path, systemd: Systemd, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a module as Ansible does: arguments in, JSON out, through its main(). ``check`` is check mode."""
    (tmp_path / "remote").mkdir()

    def call_module(module: types.ModuleType, *, check: bool = False, **arguments: t.Any) -> Data:
        if hasattr(module, "run"):
            monkeypatch.setattr(module, "run", systemd)
        monkeypatch.setattr(warnings, "_global_warnings", {})
        monkeypatch.setattr(_internal, "is_controller", False)
        own = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": str(tmp_path / "remote")}
        said = io.StringIO()
        with (
            patch_module_args({"state_dir": str(state_dir), **arguments, **own}),
            contextlib.redirect_stdout(said),
            pytest.raises(SystemExit),
        ):
            module.main()
        result = json.loads(said.getvalue())
        result.pop("invocation", None)
        return t.cast("Data", result)

    return call_module
