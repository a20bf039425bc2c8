# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import types
import typing as t

import pytest
from ansible import constants, context
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.utils.context_objects import CLIArgs
from ansible.vars.manager import VariableManager
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _scope

GROUPS = {
    "all": ["web1", "web2", "db1", "fd00::12", "node_3.example"],
    "ungrouped": ["fd00::12"],
    "web": ["web1", "web2"],
    "db": ["db1"],
    "empty": [],
}
OPTIONS = {"args": (), "tags": ("all",), "skip_tags": (), "start_at_task": None}


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., None]:
    def given(**options: t.Any) -> None:
        monkeypatch.setattr(context, "CLIARGS", CLIArgs({**OPTIONS, **options}))

    given()
    return given


@pytest.mark.parametrize(
    ("pattern", "limit", "expected"),
    [
        ("all", None, ["web1", "web2", "db1", "fd00::12", "node_3.example"]),
        ("", None, ["web1", "web2", "db1", "fd00::12", "node_3.example"]),
        ("web", None, ["web1", "web2"]),
        ("web:db", None, ["web1", "web2", "db1"]),
        ("web,db", None, ["web1", "web2", "db1"]),
        ("all:!web", None, ["db1", "fd00::12", "node_3.example"]),
        ("web:&all", None, ["web1", "web2"]),
        ("w*", None, ["web1", "web2"]),
        ("~w.b[2]", None, ["web2"]),
        ("web[0]", None, ["web1"]),
        (["db", "web1"], None, ["db1", "web1"]),
        ("fd00::12", None, ["fd00::12"]),
        ("node_3.example", None, ["node_3.example"]),
        ("all", "web1:db", ["web1", "db1"]),
        ("web", "web2,typo", ["web2"]),
    ],
)
def test_the_hosts_of_a_pattern_are_those_that_ansible_takes(
    pattern: t.Any, limit: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HOST_PATTERN_MISMATCH", "warning")  # its default, which ansible-test changes
    assert sorted(_scope.hosts(pattern, GROUPS, limit=limit)) == sorted(expected)


@pytest.mark.parametrize(
    ("pattern", "limit", "says"),
    [
        ("prdo", None, "upgrade_hosts is 'prdo', which matches no host of the inventory"),
        ("empty", None, "matches no host of the inventory"),
        ("all:!all", None, "matches no host of the inventory"),
        ("web:&db", None, "matches no host of the inventory"),
        (["x", "y"], None, r"upgrade_hosts is 'x,y', which matches no host of the inventory"),
        ("web", "db", "upgrade_hosts is 'web', which matches no host within --limit 'db'"),
        ("all", "empty", "within --limit 'empty'"),
        ("\x1b[31mred", None, r"upgrade_hosts is '\\x1b\[31mred'"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_that_names_it(pattern: t.Any, limit: str | None, says: str) -> None:
    """The run ended with 0, and nothing was done."""
    with pytest.raises(InputError, match=says) as failure:
        _scope.hosts(pattern, GROUPS, limit=limit)
    assert failure.value.key == "input.hosts"


def test_a_pattern_that_ansible_is_set_to_refuse_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HOST_PATTERN_MISMATCH", "error")
    with pytest.raises(InputError, match="matches no host within --limit 'web2,typo'"):
        _scope.hosts("web", GROUPS, limit="web2,typo")


@pytest.mark.parametrize(
    "start",
    [
        "Show | Show the plan, and stop if something stands in its way",
        "Step | *",
        "Survey*",
        "*",
        "Carry out the plan",
        "observability.stack.plan : Show | Show the plan*",
    ],
)
def test_a_run_does_not_start_in_the_middle_of_the_collection(cli: t.Callable[..., None], start: str) -> None:
    cli(start_at_task=start)
    assert "would skip checks and the survey" in _scope.starts_within()


@pytest.mark.parametrize("start", [None, "", "Run the smoke tests", "Show | show"])
def test_a_run_may_start_at_a_task_of_somebody_else(cli: t.Callable[..., None], start: str | None) -> None:
    cli(start_at_task=start)
    assert _scope.starts_within() == ""


@pytest.mark.parametrize(
    ("tags", "only", "skip", "expected"),
    [
        ([], ["all"], [], True),
        ([], ["x"], [], False),
        (["x"], ["x"], [], True),
        (["x", "y"], ["x"], ["y"], False),
        (["x"], ["tagged"], [], True),
        ([], ["tagged"], [], False),
        ([], ["untagged"], [], True),
        (["x"], ["untagged"], [], False),
        (["never"], ["all"], [], False),
        (["never", "x"], ["x"], [], True),
        (["never"], ["never"], [], True),
        (["never", "x"], ["tagged"], [], False),
        ([], ["all"], ["all"], False),
        ([], ["all"], ["x"], True),
        ([], ["all"], ["untagged"], False),
        ([], ["all"], ["tagged"], True),
        (["x"], ["all"], ["tagged"], False),
    ],
)
def test_tags_select_what_they_select_for_ansible(
    tags: list[str], only: list[str], skip: list[str], expected: bool
) -> None:
    assert _scope.selected(tags, only, skip) is expected
    task = play({"name": "t", "ansible.builtin.debug": {}, "tags": tags}, only=only, skip=skip)
    assert task.evaluate_tags(only, skip, {}) is expected


def play(task: t.Any, *, only: t.Sequence[str] = (), skip: t.Sequence[str] = (), **keywords: t.Any) -> t.Any:
    """The task of a play of one task."""
    loader = DataLoader()
    made = Play.load({"hosts": "all", "tasks": [task], **keywords}, VariableManager(loader=loader), loader)
    made.only_tags, made.skip_tags = set(only), set(skip)
    return made.tasks[0].block[0]


OURS = {"name": "ours", "ansible.builtin.debug": {}, "tags": ["always"]}
WORK = {"name": "work", "ansible.builtin.debug": {}}


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, False),
        ({"tags": ["node_exporter"]}, True),
        ({"tags": ["always"]}, True),
        ({"tags": ["tagged"]}, True),
        ({"tags": ["untagged"]}, False),
        ({"tags": ["never"]}, True),
        ({"skip_tags": ["x"]}, False),
        ({"skip_tags": ["all"]}, True),
        ({"skip_tags": ["untagged"]}, True),
        ({"skip_tags": ["tagged"]}, False),
    ],
    ids=str,
)
def test_tags_that_select_nothing_are_refused(
    cli: t.Callable[..., None], tmp_path: pathlib.Path, options: dict[str, t.Any], refused: bool
) -> None:
    """The run ended with 0, and nothing was done."""
    cli(args=(site(tmp_path, [OURS, WORK]),), **options)
    task = play(OURS, only=options.get("tags", ["all"]), skip=options.get("skip_tags", []))
    told = "" if _scope.is_selected(task) else _scope.skips_all()
    assert bool(told) is refused
    assert not refused or (told.startswith("--") and "upgrade_only" in told)


@pytest.mark.parametrize(
    ("other", "given", "refused"),
    [
        ([{**WORK, "tags": ["config"]}], "config", False),
        ([{**WORK, "tags": ["config"]}], "confg", True),
        ([{"name": "b", "tags": ["config"], "block": [WORK]}], "config", False),
        ([{"name": "b", "block": [WORK], "rescue": [{**WORK, "tags": ["config"]}]}], "config", False),
        ([{**WORK, "tags": ["always"]}], "config", True),
        ([{"name": "i", "ansible.builtin.include_tasks": "other.yml", "tags": ["always"]}], "config", False),
    ],
    ids=["a task's", "nobody's", "a block's", "in a rescue", "always only", "perhaps of what is included"],
)
def test_tags_of_the_operator_s_own_plays_go_on_working(
    cli: t.Callable[..., None], tmp_path: pathlib.Path, other: t.Any, given: str, refused: bool
) -> None:
    cli(args=(site(tmp_path, [OURS, WORK], other),), tags=(given,))
    assert not _scope.is_selected(play(OURS, only=[given]))
    assert bool(_scope.skips_all()) is refused


@pytest.mark.parametrize("keywords", [{"tags": ["obs"]}, {"tags": "obs,x"}], ids=["a list", "a text"])
def test_a_tag_of_the_play_that_uses_the_collection_selects_it(
    cli: t.Callable[..., None], keywords: dict[str, t.Any]
) -> None:
    cli(args=("nowhere.yml",), tags=("obs",))
    assert _scope.is_selected(play(OURS, only=["obs"], **keywords))


def site(directory: pathlib.Path, *plays: t.Any) -> str:
    path = directory / "site.yml"
    path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks} for tasks in plays]))
    return str(path)


@pytest.mark.parametrize(
    ("strategy", "fits"),
    [
        ("linear", True),
        ("ansible.builtin.linear", True),
        ("debug", True),
        ("ansible.builtin.debug", True),
        ("mitogen_linear", True),
        ("free", False),
        ("ansible.builtin.free", False),
        ("host_pinned", False),
        ("ansible.builtin.host_pinned", False),
    ],
)
def test_only_a_play_that_keeps_hosts_together_fits(strategy: str, fits: bool) -> None:
    """It crashed, in a template: other strategies have no hosts that wait for each other."""
    task = play(WORK, strategy=strategy)
    assert _scope.unfit(task) == ""  # a module on its own is at home in any play
    task._role = types.SimpleNamespace(get_name=lambda: "observability.stack.survey")
    told = _scope.unfit(task)
    assert (told == "") is fits
    assert fits or "strategy: linear" in told
