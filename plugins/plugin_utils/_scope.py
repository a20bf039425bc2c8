# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. What a run of C(ansible-playbook) covers: its hosts, its tasks by tags, and the order of its play."""

from __future__ import annotations

import fnmatch
import pathlib
import typing as t

import yaml
from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.utils.collection_loader._collection_finder import _get_collection_playbook_path
from ansible.vars.manager import VariableManager

from ..module_utils._errors import InputError, shown

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ansible.playbook.block import Block
    from ansible.playbook.task import Task

COLLECTION = "observability.stack"
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ALWAYS = "always"
_UNTAGGED = frozenset(["untagged"])
_INCLUDES = ("include_tasks", "include_role")
_MOST = 200


# -- hosts ------------------------------------------------------------------------------------------------------------


def hosts(pattern: str | list[str], groups: Mapping[str, Iterable[str]], *, limit: str | None) -> list[str]:
    """The names of the hosts that a pattern matches, in the order of the inventory.

    :param pattern: as C(-l) takes it, or a list of such.
    :param groups: the inventory: the hosts of each group, C(all) among them.
    :param limit: what C(-l) was given, if anything.
    :raises InputError: if it matches none. An answer without hosts would end the run with 0, as if all was well.
    """
    manager = InventoryManager(DataLoader(), parse=False)
    for group, names in groups.items():
        manager.add_group(group)
        for name in names:
            manager.add_host(name, group=group)
    given = pattern if isinstance(pattern, str) else ",".join(map(str, pattern))
    told = f"upgrade_hosts is '{shown(given, most=_MOST)}', which matches no host"
    if not _matched(manager, pattern):
        raise InputError(f"{told} of the inventory. ansible-inventory --graph shows its groups", key="input.hosts")
    manager.subset(limit)
    found = _matched(manager, pattern)
    if not found:
        raise InputError(f"{told} within --limit '{shown(limit, most=_MOST)}'", key="input.hosts")
    return found


def _matched(manager: InventoryManager, pattern: str | list[str]) -> list[str]:
    try:
        return [host.name for host in manager.get_hosts(pattern=pattern)]
    except AnsibleError:  # HOST_PATTERN_MISMATCH=error
        return []


def is_listing() -> bool:
    """Whether nothing is run: C(--syntax-check), C(--list-tasks) or C(--list-tags)."""
    return any(context.CLIARGS.get(name) for name in ("syntax", "listtasks", "listtags"))


# -- tasks ------------------------------------------------------------------------------------------------------------


def starts_within() -> str:
    """Why C(--start-at-task) must not be obeyed; empty if it is not given, or names a task of somebody else."""
    start = context.CLIARGS.get("start_at_task")
    if not start or not any(fnmatch.fnmatch(name, start) for name in _names()):
        return ""
    return (
        f"--start-at-task {shown(start, most=_MOST)!r} would skip checks and the survey that the tasks of {COLLECTION} "
        "depend on: leave it out. A run that was interrupted is finished by the same command"
    )


def _names() -> t.Iterator[str]:
    """The names of all tasks of the collection, each as it is and as Ansible shows it."""
    for path in sorted([*_ROOT.glob("roles/*/tasks/*.yml"), *_ROOT.glob("playbooks/*.yml")]):
        role = f"{COLLECTION}.{path.parent.parent.name} : "
        for name in _named(yaml.safe_load(path.read_text(encoding="utf-8"))):
            yield from (name, role + name)


def _named(part: t.Any) -> t.Iterator[str]:
    for item in part if isinstance(part, list) else []:
        if "hosts" not in item and "name" in item:
            yield item["name"]
        for key in ("pre_tasks", "tasks", "block", "rescue", "always"):
            yield from _named(item.get(key))


def is_selected(task: Task) -> bool:
    """Whether the tags of the run select the tasks beside one that has the tag C(always).

    :param task: of the collection. Beside C(always) it has the tags that its play, import or role was given.
    """
    return selected(set(task.tags) - {_ALWAYS}, *_tags())


def skips_all() -> str:
    """Why a run must not go on whose tags select no task of the collection; empty if they select another play's."""
    only, skip = _tags()
    if _work_of_others(only, skip):
        return ""
    given = [f"--{option} {','.join(map(str, tags))}" for option, tags in (("tags", only), ("skip-tags", skip)) if tags]
    return (
        f"{shown(' '.join(given), most=_MOST)} would skip all of the work: the tasks of {COLLECTION} have no tags. "
        "upgrade_only and upgrade_phases say which components are meant, upgrade_hosts and -l which hosts"
    )


def _tags() -> tuple[t.Sequence[str], t.Sequence[str]]:
    return context.CLIARGS.get("tags") or ("all",), context.CLIARGS.get("skip_tags") or ()


def selected(tags: Iterable[str], only: Iterable[str], skip: Iterable[str]) -> bool:
    """Whether Ansible runs a task with such tags, C(always) apart (see C(Taggable.evaluate_tags))."""
    own, wanted, unwanted = frozenset(tags) or _UNTAGGED, frozenset(only), frozenset(skip)
    tagged, never = own != _UNTAGGED, "never" in own
    runs = bool(own & wanted) or (not never and ("all" in wanted or ("tagged" in wanted and tagged)))
    return runs and "all" not in unwanted and not own & unwanted and not (tagged and "tagged" in unwanted)


def _work_of_others(only: Iterable[str], skip: Iterable[str]) -> bool:
    """Whether tags select anything of the playbooks of this run.

    What is always run is no work, unless it includes more: the tags of that are not known before.
    """
    for task in _tasks_of_run():
        tags = set(task.tags)
        includes = task.action.rpartition(".")[2] in _INCLUDES
        if includes if _ALWAYS in tags else selected(tags, only, skip):
            return True
    return False


def _tasks_of_run() -> t.Iterator[Task]:
    loader = DataLoader()
    for name in context.CLIARGS.get("args") or ():
        resource = _get_collection_playbook_path(name)
        book = Playbook.load(resource[1] if resource else name, VariableManager(loader=loader), loader)
        for play in book.get_plays():
            for block in play.compile():
                yield from _tasks(block)


def _tasks(block: Block) -> t.Iterator[Task]:
    for item in (*block.block, *block.rescue, *block.always):
        if hasattr(item, "block"):
            yield from _tasks(item)
        else:
            yield item


# -- the play ---------------------------------------------------------------------------------------------------------


def unfit(task: Task) -> str:
    """Why the play that has a task does not fit the role of the collection that the task is of; empty if it does."""
    if task._role is None or not task._role.get_name().startswith(f"{COLLECTION}."):
        return ""
    strategy = str(task.play.strategy)
    if strategy.rpartition(".")[2] != "debug" and not strategy.endswith("linear"):
        return (
            f"the strategy of this play is {shown(strategy, most=_MOST)!r}, but hosts are upgraded in an order that "
            f"only the strategy linear keeps: set 'strategy: linear' in the play that uses a role of {COLLECTION}"
        )
    return ""
