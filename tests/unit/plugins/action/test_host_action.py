# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The half on the controller that all modules share, on the real way from what a host prints to a task's result."""

from __future__ import annotations

import json
import pathlib
import stat
import typing as t

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugin_loader
from ansible.template import Templar
from ansible.utils.display import Display
from ansible_collections.observability.stack.plugins.plugin_utils import _host_action, _results

ANSWERS = json.loads((pathlib.Path(__file__).parents[2] / "answers.json").read_text(encoding="utf-8"))
Data = dict[str, t.Any]


class Host:
    """This machine as a host whose Python prints what it likes."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory, self.interpreter = directory, directory / "python"
        self.action: t.Any = None

    def prints(self, text: str, *, status: int = 0, error: str = "") -> None:
        (self.directory / "out").write_text(text)
        (self.directory / "err").write_text(error)
        self.interpreter.write_text(
            f"#!/bin/sh\ncat {self.directory}/out\ncat {self.directory}/err >&2\nexit {status}\n"
        )
        self.interpreter.chmod(stat.S_IRWXU)

    def answers(self, module: str, **more: t.Any) -> None:
        self.prints(json.dumps({**ANSWERS[module][0], **more}))

    def do(self, module: str, *, facts: Data | None = None, **arguments: t.Any) -> Data:
        task = Task()
        task.action, task.args, task.async_val = f"observability.stack.{module}", arguments, 0
        context = PlayContext()
        connection = plugin_loader.connection_loader.get("ansible.builtin.local", context)
        connection._shell.set_options(direct={"remote_tmp": str(self.directory)})
        self.action = plugin_loader.action_loader.get(
            task.action,
            task=task,
            connection=connection,
            play_context=context,
            loader=DataLoader(),
            templar=Templar(loader=DataLoader()),
            shared_loader_obj=plugin_loader,
        )
        variables = {"ansible_facts": facts or {}, "ansible_python_interpreter": str(self.interpreter)}
        return t.cast("Data", self.action.run(task_vars={"inventory_hostname": "web1", **variables}))


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is displayed."""
    texts: list[str] = []
    monkeypatch.setattr(Display, "display", lambda _self, msg, *_args, **_kwargs: texts.append(str(msg)))
    return texts


@pytest.mark.parametrize("module", sorted({*ANSWERS} - {"release_stage"}))  # it fetches first
def test_a_valid_answer_is_the_result(host: Host, module: str) -> None:
    host.answers(module)
    result = host.do(module)
    assert {key: value for key, value in result.items() if key in ANSWERS[module][0]} == ANSWERS[module][0]
    assert set(result) - set(ANSWERS[module][0]) <= {"invocation", "_ansible_parsed"}


@pytest.mark.parametrize("key", ["ansible_facts", "add_host", "add_group", "ansible_stats", "_ansible_no_log"])
def test_an_answer_with_a_key_that_steers_the_controller_is_none(host: Host, key: str) -> None:
    host.answers("upgrade_lock", **{key: {"upgrade_waves": ["100%"]}})
    result = host.do("upgrade_lock", state="released")
    assert (result["failed"], result["key"]) == (True, "host.malformed_answer")
    assert f"web1: the answer of upgrade_lock is not what that module returns: {key} is not a key" in result["msg"]
    assert set(result) <= {"failed", "key", "msg", "invocation"}


@pytest.mark.parametrize(
    "text", ["", "no JSON\x1b[2J", '{"a": 1}\nJUNK\x1b]52;c;eA==\x07', "{" * 100, '{"changed": NaN}']
)
def test_what_a_host_prints_beside_an_answer_is_never_displayed(host: Host, shown: list[str], text: str) -> None:
    host.prints(text, status=3, error="ERR\x1b[31m\u202e\nforged")
    result = host.do("upgrade_lock", state="released")
    assert (result["failed"], result["key"]) == (True, "host.malformed_answer")
    assert result["msg"].isprintable()
    assert "Exit status 3, standard error: ERR\\x1b[31m\\u202e\\nforged" in result["msg"]
    assert [each for each in shown if "\x1b" in each or "JUNK" in each] == []


def test_the_interpreter_that_ansible_itself_found_stays_a_fact(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.answers("upgrade_lock")
    key = "_discovered_interpreter_key"
    monkeypatch.setattr(_host_action.HostAction, key, "discovered_interpreter_python", raising=False)
    init = _host_action.HostAction.__init__

    def found(self: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        init(self, *args, **kwargs)
        self._discovered_interpreter_key = "discovered_interpreter_python"
        self._discovered_interpreter = "/usr/bin/python3.11"

    monkeypatch.setattr(_host_action.HostAction, "__init__", found)
    result = host.do("upgrade_lock", state="released")
    assert result["ansible_facts"] == {"discovered_interpreter_python": "/usr/bin/python3.11"}


def test_texts_are_no_templates(host: Host) -> None:
    host.answers("upgrade_lock", holder="{{ lookup('pipe', 'id') }}")
    holder = host.do("upgrade_lock", state="released")["holder"]
    assert Templar(loader=DataLoader()).template(holder) == "{{ lookup('pipe', 'id') }}"


def test_a_host_whose_facts_set_variables_is_not_asked(host: Host) -> None:
    host.answers("upgrade_lock")
    result = host.do("upgrade_lock", state="released", facts={"upgrade_waves": ["100%"], "os_family": "Debian"})
    assert (result["failed"], result["key"]) == (True, _results.FOREIGN_FACTS)
    assert "web1 has upgrade_waves" in result["msg"]


def test_what_an_ansible_core_reads_in_another_way_passes_the_schema_too(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {**ANSWERS["upgrade_lock"][0], "_ansible_parsed": True}
    monkeypatch.setattr(_host_action.HostAction, "_execute_module", lambda *_args, **_kwargs: answer)
    assert host.do("upgrade_lock", state="released")["holder"] == answer["holder"]
    answer["ansible_facts"] = {"upgrade_waves": ["100%"]}
    result = host.do("upgrade_lock", state="released")
    assert (result["failed"], result["key"]) == (True, "host.malformed_answer")
    assert "ansible_facts" not in result


@pytest.mark.parametrize("kind", [AnsibleConnectionFailure, AnsibleError])
def test_errors_of_ansible_that_quote_a_host_are_escaped(
    host: Host, monkeypatch: pytest.MonkeyPatch, kind: type[AnsibleError]
) -> None:
    def fail(*_args: t.Any, **_kwargs: t.Any) -> None:
        raise kind("Failed to connect to the host via ssh: \x1b]52;c;eA==\x07")

    monkeypatch.setattr(_host_action.HostAction, "_execute_module", fail)
    with pytest.raises(kind) as failure:
        host.do("upgrade_lock", state="released")
    assert str(failure.value) == "Failed to connect to the host via ssh: \\x1b]52;c;eA==\\x07"


def test_a_survey_of_components_that_were_not_asked_for_is_none(host: Host) -> None:
    host.answers("component_version")
    result = host.do("component_version", only=["loki"], wish={"versions": {}})
    assert (result["failed"], result["key"]) == (True, "host.malformed_answer")
    assert "is a component that was not asked for" in result["msg"]
