# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What docs/state.md tells: its tables are those of the code, and each call and example in it does what it says."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import types
import typing as t

import pytest
import yaml
from ansible_collections.observability.stack.plugins.module_utils import _module, _state
from ansible_collections.observability.stack.tests.unit.plugins import conftest as fixtures
from ansible_collections.observability.stack.tests.unit.support import (
    RUN,
    Answer,
    Call,
    Data,
    Systemd,
    Web,
    running,
    write_program,
)
from jinja2.nativetypes import NativeEnvironment

call, state_dir, systemd, web = fixtures.call, fixtures.state_dir, fixtures.systemd, fixtures.web

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
MODULES = "ansible_collections.observability.stack.plugins.modules."
JINJA = NativeEnvironment()


def table(*header: str) -> list[list[str]]:
    """The rows of the table with this header."""
    _before, _header, rest = TEXT.partition(f"| {' | '.join(header)} |\n")
    lines = rest.splitlines()[1:]
    rows = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


CALLS = table("function", "call", "answer")
EXAMPLES = dict(re.findall(r"### (.+?)\n\n```yaml\n(.+?)```", TEXT, re.DOTALL))


def test_the_lifecycles_are_those_of_the_code() -> None:
    upgrade = {quoted(here)[0]: set(quoted(goals)) for here, goals in table("the upgrade is", "it may go to")}
    assert upgrade == {here: set(goals) for here, goals in _state.UPGRADE_TRANSITIONS.items()}
    rows = table("a component is", "it may go to", "which means")
    component = {quoted(here)[0]: set(quoted(goals)) for here, goals, _meaning in rows}
    assert component == {here: set(goals) for here, goals in _state.COMPONENT_TRANSITIONS.items()}


FUNCTIONS = """
    upgrade_state_init upgrade_state_init_dirs upgrade_state_load upgrade_state_save upgrade_state_write_atomic
    upgrade_state_get_current upgrade_state_set upgrade_state_validate_transition upgrade_generate_id
    upgrade_phase_start upgrade_phase_complete upgrade_phase_fail upgrade_phase_get_next
    upgrade_component_start upgrade_component_complete upgrade_component_fail upgrade_component_is_upgraded
    upgrade_component_get_status upgrade_can_resume upgrade_get_resume_point upgrade_resume
    upgrade_lock_acquire upgrade_lock_release upgrade_lock_is_held upgrade_lock_check_stale
    upgrade_mark_rollback_point upgrade_get_rollback_info upgrade_clear_rollback_point
    upgrade_is_in_progress upgrade_get_progress_percent upgrade_get_summary upgrade_list_history
    upgrade_save_to_history upgrade_cleanup create_checkpoint state_verify state_reset state_get_stats
"""


def test_every_function_of_the_parent_system_has_its_call() -> None:
    told = [name for function, _call, _answer in CALLS for name in quoted(function)]
    assert sorted(told) == sorted(FUNCTIONS.split())


class Host:
    """A host with node_exporter 1.5.0, and tasks that are done on it as a playbook would."""

    def __init__(self, call: Call, systemd: Systemd, web: Web, directory: pathlib.Path) -> None:
        self._call, self._systemd, self._web = call, systemd, web
        self.program = write_program(directory / "bin" / "node_exporter", "1.5.0")
        release = write_program(directory / "release" / "node_exporter", "1.9.0")
        target = {
            "component": "node_exporter",
            "unit": "node_exporter.service",
            "binary": str(self.program),
            "url": web.url,
            "version": "1.9.0",
            "probes": [{"kind": "http", "path": "/metrics"}],
        }
        web.answers["/metrics"] = Answer(b"up 1\n")
        self.variables: Data = {"program": str(self.program), "release": str(release), "target": target}

    def do(self, module: str, arguments: Data | None) -> Data:
        """One task. A failure is told, as with ignore_errors."""
        given = {"run": RUN, **self._templated(arguments or {})}
        result = self._call(importlib.import_module(MODULES + module), **given)
        return {"failed": False, **result}

    def play(self, tasks: list[Data]) -> int:
        """Tasks as they stand in a playbook. How many of them told that all is as it should be."""
        checked = 0
        for task in tasks:
            if not self.holds(task.get("when", "true")):
                continue
            if "ansible.builtin.assert" in task:
                for claim in task["ansible.builtin.assert"]["that"]:
                    assert self.holds(claim), claim
                    checked += 1
                continue
            (action,) = (key for key in task if key.startswith("observability.stack."))
            result = self.do(action.rpartition(".")[2], task[action])
            assert not result["failed"], result
            self.variables[task.get("register", "_")] = result
        return checked

    def holds(self, claim: str, **variables: t.Any) -> bool:
        return bool(JINJA.from_string(f"{{{{ {claim} }}}}").render(**self.variables, **variables))

    def _templated(self, value: t.Any) -> t.Any:
        if isinstance(value, dict):
            return {key: self._templated(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._templated(each) for each in value]
        if isinstance(value, str) and "{{" in value:
            return JINJA.from_string(value).render(**self.variables)
        return value


@pytest.fixture
def host(
    call: Call, systemd: Systemd, web: Web, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[Host]:
    monkeypatch.setattr(_module, "os", types.SimpleNamespace(geteuid=lambda: 0))
    host = Host(call, systemd, web, tmp_path)
    with running(host.program) as pid:
        systemd.add("node_exporter.service", str(host.program), pid=pid)
        yield host


def test_each_call_gives_its_answer(host: Host) -> None:
    for function, cell, answer in CALLS:
        ((module, arguments),) = yaml.safe_load(quoted(cell)[0]).items()
        result = host.do(module, arguments)
        claim = quoted(answer)[0]
        assert host.holds(claim, **result), (function, claim, result)
        if "backup_id" in result and module == "upgrade_state":
            host.variables["marked"] = result


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_comes_out_as_it_says(host: Host, name: str) -> None:
    assert host.play(yaml.safe_load(EXAMPLES[name])) > 0


def test_the_quick_start_of_the_parent_system_is_among_the_examples() -> None:
    assert list(EXAMPLES) == [
        "Basic use",
        "With idempotency",
        "With crash recovery",
        "With rollback",
        "Reset to a clean state",
    ]
    assert json.dumps(yaml.safe_load(EXAMPLES["Basic use"])).count("action") == 6
