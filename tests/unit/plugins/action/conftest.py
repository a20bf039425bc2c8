# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs actions as the strategy does, over a connection to this machine."""

from __future__ import annotations

import importlib
import json
import pathlib
import types
import typing as t

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugin_loader
from ansible.template import Templar
from ansible_collections.observability.stack.plugins.module_utils import _module

if t.TYPE_CHECKING:
    from ansible_collections.observability.stack.tests.unit.support import Call, Data

PLUGINS = "ansible_collections.observability.stack.plugins"


class Act:
    """Runs an action with arguments. The host's half runs in this process; ``sent`` keeps what each call of it got."""

    def __init__(self, call: Call, monkeypatch: pytest.MonkeyPatch, remote_tmp: pathlib.Path) -> None:
        self.sent: list[Data] = []
        self.remote_tmp = remote_tmp
        self._call, self._monkeypatch = call, monkeypatch

    def __call__(self, name: str, *, check: bool = False, variables: Data | None = None, **arguments: t.Any) -> Data:
        def execute_module(module_name: str, module_args: Data, task_vars: Data | None) -> Data:
            assert module_name == f"observability.stack.{name}"
            self.sent.append(module_args)
            result = self._call(importlib.import_module(f"{PLUGINS}.modules.{name}"), check=check, **module_args)
            action._parse_returned_data({"stdout": json.dumps(result), "rc": 0}, "legacy")
            return {}

        task = Task()
        task.action, task.args, task.check_mode, task.async_val = f"observability.stack.{name}", arguments, check, 0
        context = PlayContext()
        connection = plugin_loader.connection_loader.get("ansible.builtin.local", context)
        connection._shell.set_options(direct={"remote_tmp": str(self.remote_tmp)})
        action = plugin_loader.action_loader.get(
            task.action,
            task=task,
            connection=connection,
            play_context=context,
            loader=DataLoader(),
            templar=Templar(loader=DataLoader()),
            shared_loader_obj=plugin_loader,
        )
        self._monkeypatch.setattr(action, "_execute_module", execute_module)
        return t.cast("Data", action.run(task_vars=variables or {}))


@pytest.fixture
def act(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Act:
    monkeypatch.setattr(_module, "os", types.SimpleNamespace(geteuid=lambda: 0))
    (tmp_path / "pushed").mkdir()
    return Act(call, monkeypatch, tmp_path / "pushed")
