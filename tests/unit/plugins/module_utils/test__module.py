# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import importlib
import pathlib
import pkgutil
import types
import typing as t

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.observability.stack.plugins import modules as own_modules
from ansible_collections.observability.stack.plugins.doc_fragments._common import ModuleDocFragment
from ansible_collections.observability.stack.plugins.module_utils import _errors, _module
from ansible_collections.observability.stack.tests.unit.support import RUN, Call, Data, message_of

Body = t.Callable[[AnsibleModule], Data]


@pytest.fixture
def work(call: Call, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., Data]:
    """Let a module do something, and have its result."""

    def work_as(body: Body, *, uid: int = 0, **arguments: t.Any) -> Data:
        def main() -> None:
            module = AnsibleModule(_module.arguments(name={"type": "str"}), supports_check_mode=True)
            _module.run_module(module, body)

        monkeypatch.setattr(_module, "os", types.SimpleNamespace(geteuid=lambda: uid))
        return call(types.SimpleNamespace(main=main), **arguments)

    return work_as


def failing(error: Exception) -> Body:
    def body(_module: AnsibleModule) -> Data:
        raise error

    return body


def test_what_a_module_found_is_its_result(work: t.Callable[..., Data]) -> None:
    assert work(lambda module: {"changed": True, "name": module.params["name"]}, name="x") == {
        "changed": True,
        "name": "x",
    }


ERRORS = [error for error in vars(_errors).values() if isinstance(error, type) and issubclass(error, Exception)]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_of_the_collection_ends_as_a_failed_result_with_its_key(
    work: t.Callable[..., Data], error: type[_errors.UpgradeError]
) -> None:
    result = work(failing(error("no room in /x: free some")))
    assert (result["failed"], result["msg"], result["key"]) == (True, "no room in /x: free some", error.default_key)
    result = work(failing(error("no", key="own.key", details={"journal": ["a"], "services": []})))
    assert (result["key"], result["journal"], result["services"]) == ("own.key", ["a"], [])
    assert "Traceback" not in str(result.get("exception", ""))


def test_every_kind_of_error_has_a_key_of_its_own() -> None:
    assert len({error.default_key for error in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "/x: No space left on device; free some space there"),
        (errno.ENOENT, "/x: No such file or directory"),
    ],
)
def test_an_error_of_the_operating_system_names_the_file_and_what_helps(
    work: t.Callable[..., Data], number: int, says: str
) -> None:
    error = OSError(
        number, {errno.ENOSPC: "No space left on device", errno.ENOENT: "No such file or directory"}[number], "/x"
    )
    result = work(failing(error))
    assert (result["failed"], result["key"]) == (True, "host.os_error")
    assert result["msg"].startswith(says)


def test_what_nobody_foresaw_is_not_hidden(work: t.Callable[..., Data]) -> None:
    """Ansible shows it with its traceback, which a report of the mistake needs."""
    with pytest.raises(ZeroDivisionError):
        work(lambda module: {"changed": 1 // 0})


def test_without_root_nothing_is_tried(work: t.Callable[..., Data]) -> None:
    result = work(lambda module: pytest.fail("it was tried"), uid=1000)
    assert (result["failed"], result["key"]) == (True, "host.not_root")
    assert result["msg"] == "this needs root on the host: set become: true"


def test_warnings_are_shown_and_are_no_data_of_the_result(work: t.Callable[..., Data]) -> None:
    result = work(lambda module: {"changed": False, "warnings": ["took over from u1", "set aside"]})
    assert ["took over" in message_of(item) for item in result["warnings"]] == [True, False]
    assert "set aside" in message_of(result["warnings"][1])


@pytest.mark.parametrize(
    ("before", "after", "changed"), [({}, {}, False), ({"a": 1}, {"a": 1}, False), ({"a": 1}, {}, True)]
)
def test_changed_and_the_difference_follow_from_before_and_after(before: Data, after: Data, changed: bool) -> None:
    assert _module.differences(before, after) == {"changed": changed, "diff": {"before": before, "after": after}}


def test_a_run_is_an_argument_of_every_module_and_must_be_named(
    work: t.Callable[..., Data], tmp_path: pathlib.Path
) -> None:
    params: Data = work(lambda module: {"changed": False, "params": module.params}, run=RUN, state_dir=str(tmp_path))[
        "params"
    ]
    assert params["state_dir"] == str(tmp_path)
    assert params["run"] == {**dict.fromkeys(("job", "origin", "pid", "start_ticks", "boot")), "dead": [], **RUN}
    assert "upgrade_id" in work(lambda module: {}, run={"user": "ops"})["msg"]


def test_the_arguments_that_all_share_are_those_that_are_documented() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    arguments = _module.arguments()
    assert {name: option.get("default") for name, option in documented.items()} == {
        name: option.get("default") for name, option in arguments.items()
    }
    assert list(documented["run"]["suboptions"]) == list(arguments["run"]["options"])


def specification(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> Data:
    """The arguments that a module gives to Ansible."""

    def see(argument_spec: Data, **_more: t.Any) -> None:
        seen.update(argument_spec)
        raise SystemExit

    seen: Data = {}
    monkeypatch.setattr(module, "AnsibleModule", see)
    with pytest.raises(SystemExit):
        module.main()
    return seen


NAMES = {found.name for found in pkgutil.iter_modules(own_modules.__path__)}
ON_CONTROLLER = {"alert_silence", "bundle", "plan", "release_prune", "report", "settings"}
"""Modules that are all action: there is nothing in them but their documentation."""


@pytest.mark.parametrize("name", sorted(NAMES - ON_CONTROLLER))
def test_the_arguments_of_each_module_are_those_that_are_documented(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"{own_modules.__name__}.{name}")
    arguments = specification(module, monkeypatch)
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    common = _module.arguments()
    facts = ("type", "elements", "default", "choices", "required")
    assert {key: {fact: option.get(fact) for fact in facts} for key, option in documented.items()} == {
        key: {fact: option.get(fact) for fact in facts} for key, option in arguments.items() if key not in common
    }
