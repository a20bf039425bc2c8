# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles say of the variables that an operator sets, against what they are."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml

ROLES = pathlib.Path(__file__).parents[2] / "roles"
DEFAULTS = yaml.safe_load((ROLES / "settings" / "defaults" / "main.yml").read_text(encoding="utf-8"))
OF_PLAYBOOKS = {"upgrade_hosts"}
"""Variables that no role reads. They are checked in time all the same."""

LONGEST_FILE = 100
"""Lines of a file of tasks."""


def entry_points() -> list[t.Any]:
    points = []
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        points += [
            pytest.param(path.parents[1], name, spec, id=f"{path.parts[-3]}.{name}") for name, spec in specs.items()
        ]
    return points


def task_files() -> list[t.Any]:
    return [pytest.param(path, id=f"{path.parts[-3]}/{path.name}") for path in sorted(ROLES.glob("*/tasks/*.yml"))]


@pytest.mark.parametrize(("role", "name", "spec"), entry_points())
def test_an_entry_point_is_a_file_of_tasks_and_its_defaults_are_true(
    role: pathlib.Path, name: str, spec: t.Any
) -> None:
    assert (role / "tasks" / f"{name}.yml").is_file()
    assert set(spec["options"]) <= set(DEFAULTS) | OF_PLAYBOOKS
    told = {option: facts["default"] for option, facts in spec["options"].items() if "default" in facts}
    assert told == {option: DEFAULTS[option] for option in told}


def test_a_variable_is_described_alike_everywhere() -> None:
    described: dict[str, list[t.Any]] = {}
    for point in entry_points():
        for option, facts in point.values[2]["options"].items():
            described.setdefault(option, []).append(facts)
    assert {
        option for option, all_facts in described.items() if any(facts != all_facts[0] for facts in all_facts)
    } == set()
    assert set(described) == set(DEFAULTS) | OF_PLAYBOOKS


@pytest.mark.parametrize("path", sorted(ROLES.parent.glob("playbooks/*.yml")), ids=lambda path: path.name)
def test_a_playbook_is_one_play_that_checks_its_variables_first_and_once(path: pathlib.Path) -> None:
    """The check comes before the role, whose own one would print its whole specification for each host."""
    (play,) = yaml.safe_load(path.read_text(encoding="utf-8"))
    (first,) = play["pre_tasks"]
    assert first["ansible.builtin.import_role"] == {"name": "observability.stack.settings", "tasks_from": "facts"}
    (task,) = play["tasks"]
    assert task["ansible.builtin.import_role"] == {
        "name": f"observability.stack.{path.stem}",
        "rolespec_validate": False,
    }
    assert "serial" not in play
    assert "max_fail_percentage" not in play


@pytest.mark.parametrize("path", task_files())
def test_a_role_within_a_role_does_not_check_again(path: pathlib.Path) -> None:
    for task in _tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
        action = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role")
        if action:
            specs = ROLES / action["name"].rpartition(".")[2] / "meta" / "argument_specs.yml"
            checks = (
                action.get("tasks_from", "main") in yaml.safe_load(specs.read_text(encoding="utf-8"))["argument_specs"]
            )
            assert not checks or action.get("rolespec_validate") is False


def _tasks(tasks: list[t.Any]) -> t.Iterator[t.Any]:
    for task in tasks or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from _tasks(task.get(part, []))


@pytest.mark.parametrize("path", task_files())
def test_files_of_tasks_are_short(path: pathlib.Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
