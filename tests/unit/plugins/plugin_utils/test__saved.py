# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _planner, _saved
from ansible_collections.observability.stack.tests.unit.surveys import Data, facts, planned, survey

VERSIONS = {"prometheus": "3.5.3", "node_exporter": "1.9.0"}
KEYS = ["node_exporter@1.9.0", "prometheus@2.55.1", "prometheus@3.5.3"]


def hosts() -> Data:
    found = {"prometheus": facts("prometheus", "2.42.0"), "node_exporter": facts("node_exporter", "1.5.0")}
    return {"h1": survey(copy.deepcopy(found)), "h2": survey(copy.deepcopy(found))}


PLAN = planned(hosts(), VERSIONS)
TEXT = json.dumps(PLAN)


def reopened(found: Data, text: str = TEXT, **wish: t.Any) -> Data:
    return _planner.reopen(text, found, dict.fromkeys(found, wish), name="plan.json")


def refused(found: Data, text: str = TEXT) -> InputError:
    with pytest.raises(InputError) as failure:
        reopened(found, text)
    assert str(failure.value).startswith("upgrade_plan: plan.json ")
    assert "\n" not in str(failure.value)
    return failure.value


def begun(found: Data, host: str, *, at: str, state: str = "success", disk: str | None = None) -> Data:
    """A host on which the plan was carried out up to a step, which ended in a state."""
    name, _at, version = at.partition("@")
    done = [key for key in KEYS[: KEYS.index(at) + 1] if key.startswith(f"{name}@")]
    place = found[host]
    place["state"] = place["state"] or {"upgrade": {"plan_digest": PLAN["digest"]}, "components": {}}
    place["state"]["components"][name] = {"state": state, "to_version": done[-1].partition("@")[2]}
    place["components"][name].update(version=disk or version, running=disk or version)
    return found


# -- what was saved -----------------------------------------------------------------------------------------------


def test_a_saved_plan_is_the_plan_as_long_as_nothing_has_changed() -> None:
    assert reopened(hosts()) == json.loads(TEXT) == PLAN


def test_more_hosts_than_the_plan_has_are_no_obstacle() -> None:
    assert reopened({**hosts(), "h3": survey({})}) == PLAN


CHANGES: Data = {
    "version": "2.43.0",
    "running": "2.41.0",
    "restart_pending": True,
    "unit": "prom.service",
    "binary": "/opt/prometheus",
    "architecture": "arm64",
    "user": "root",
    "flags": ["config.file"],
    "environment": ["GOGC"],
    "config": "/etc/prom.yml",
    "web_config": "/etc/web.yml",
    "data": "/data",
    "package": {"manager": "apt", "name": "prometheus"},
}


@pytest.mark.parametrize("field", CHANGES)
def test_any_change_of_what_the_plan_was_made_for_is_told(field: str) -> None:
    found = hosts()
    found["h2"]["components"]["prometheus"][field] = CHANGES[field]
    error = refused(found)
    wanted = PLAN["expects"]["h2"]["prometheus"][field]
    assert f"h2: {field} of prometheus is {CHANGES[field]!r}, the plan was made for {wanted!r}. " in str(error)
    assert error.key == "plan.mismatch"


def test_all_that_a_plan_was_made_for_is_looked_at() -> None:
    assert set(PLAN["expects"]["h1"]["prometheus"]) == set(CHANGES)
    assert set(PLAN["expects"]["h1"]) == set(VERSIONS)


def test_a_component_that_is_gone_is_told() -> None:
    found = hosts()
    found["h1"]["components"]["node_exporter"] = facts("node_exporter", None)
    assert "h1: version of node_exporter is None, the plan was made for '1.5.0'" in str(refused(found))
    del found["h1"]["components"]["node_exporter"]
    assert "h1: version of node_exporter is None, the plan was made for '1.5.0'" in str(refused(found))


def test_a_host_that_is_missing_is_told() -> None:
    error = refused({"h1": hosts()["h1"]})
    assert "h2 isn't here: it can't be reached, or -l leaves it out" in str(error)


def test_many_differences_are_cut() -> None:
    found = hosts()
    for host in found.values():
        for each in host["components"].values():
            each.update(CHANGES)
    assert str(refused(found)).count(" of ") == 10
    assert "; and 42 more. make a new plan" in str(refused(found))


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["hosts"].pop("h2"),
        lambda plan: plan["hosts"]["h1"][KEYS[0]].update(to="1.9.1"),
        lambda plan: plan["hosts"]["h1"][KEYS[0]]["stage"].update(url="https://evil.example/x"),
        lambda plan: plan["phases"].reverse(),
        lambda plan: plan["phases"][0]["hosts"].pop("h1"),
        lambda plan: plan["expects"]["h1"]["prometheus"].update(version="2.43.0"),
        lambda plan: plan.update(kind="rollback"),
        lambda plan: plan.update(digest="0" * 64),
        lambda plan: plan.update(digest=""),
    ],
)
def test_an_edited_plan_is_refused(change: t.Callable[[Data], t.Any]) -> None:
    plan = json.loads(TEXT)
    change(plan)
    assert refused(hosts(), json.dumps(plan)).key == "plan.changed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        "7",
        "[" * 100_000,
        json.dumps({**PLAN, "digest": 5}),
        json.dumps({**PLAN, "hosts": None}),
        json.dumps({**PLAN, "findings": {}}),
        json.dumps({key: value for key, value in PLAN.items() if key != "rows"}),
        t.cast("str", None),
        t.cast("str", b"\xff\xfe"),
    ],
    ids=lambda text: str(text)[:12],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    error = refused(hosts(), text)
    assert error.key == "plan.malformed"
    assert str(error).endswith("make a new plan, with the playbook plan")


@pytest.mark.parametrize(
    "change",
    [
        {"hosts": {"h1": []}},
        {"expects": {"h1": 7, "h2": {}}},
        {"expects": {}},
        {"expects": {"h1": {"prometheus": {}}, "h2": {}}},
        {"phases": [7]},
    ],
)
def test_a_plan_that_is_damaged_in_a_way_that_its_digest_holds_is_refused(change: Data) -> None:
    plan = {**json.loads(TEXT), **change}
    found = begun(hosts(), "h1", at=KEYS[0])
    found["h1"]["state"]["upgrade"]["plan_digest"] = _planner.digest(plan)
    assert refused(found, json.dumps({**plan, "digest": _planner.digest(plan)})).key == "plan.malformed"


# -- what was done ------------------------------------------------------------------------------------------------


def left(plan: Data) -> dict[str, list[str]]:
    """The steps that are left on each host; the phases hold the same."""
    steps = {host: list(each) for host, each in plan["hosts"].items()}
    in_phases: dict[str, list[str]] = {}
    for phase in plan["phases"]:
        for host, keys in phase["hosts"].items():
            in_phases.setdefault(host, []).extend(keys)
        assert phase["sequence"] == [key for key in KEYS if any(key in keys for keys in phase["hosts"].values())]
    assert in_phases == steps
    return steps


def test_what_is_done_is_not_done_again() -> None:
    found = begun(hosts(), "h1", at=KEYS[0])
    assert left(reopened(found)) == {"h1": KEYS[1:], "h2": KEYS}
    assert left(reopened(begun(found, "h1", at=KEYS[1]))) == {"h1": KEYS[2:], "h2": KEYS}
    assert left(reopened(begun(found, "h1", at=KEYS[2]))) == {"h2": KEYS}


@pytest.mark.parametrize(
    ("state", "disk"), [("activated", "2.55.1"), ("rolled_back", "2.42.0"), ("failed", "2.55.1"), ("success", "2.42.0")]
)
def test_a_step_that_was_not_proven_is_done_again(state: str, disk: str) -> None:
    found = begun(begun(hosts(), "h1", at=KEYS[0]), "h1", at=KEYS[1], state=state, disk=disk)
    assert left(reopened(found)) == {"h1": KEYS[1:], "h2": KEYS}


def test_a_step_whose_files_are_in_between_is_done_again() -> None:
    found = begun(hosts(), "h1", at=KEYS[0])
    found["h1"]["unfinished"] = {"node_exporter": "mixed"}
    assert left(reopened(found)) == {"h1": KEYS, "h2": KEYS}


def test_of_a_plan_that_was_carried_out_nothing_is_left() -> None:
    found = hosts()
    for host in found:
        for key in (KEYS[0], KEYS[2]):
            begun(found, host, at=key)
    plan = reopened(found)
    assert (plan["hosts"], plan["phases"], plan["digest"]) == ({}, [], PLAN["digest"])
    assert _planner.problems(plan, approved=PLAN["digest"][:12]) == []


def test_a_version_that_somebody_changed_by_hand_in_between_is_refused() -> None:
    found = begun(hosts(), "h1", at=KEYS[1], disk="2.54.0")
    assert "h1: version of prometheus is '2.54.0', the plan was made for '2.42.0'" in str(refused(found))


def test_what_another_plan_has_done_is_a_mismatch() -> None:
    found = begun(hosts(), "h1", at=KEYS[0])
    found["h1"]["state"]["upgrade"]["plan_digest"] = "0" * 64
    assert "h1: version of node_exporter is '1.9.0', the plan was made for '1.5.0'" in str(refused(found))


def test_a_service_that_was_set_up_anew_in_between_is_refused() -> None:
    found = begun(hosts(), "h1", at=KEYS[1])
    found["h1"]["components"]["prometheus"]["flags"] = []
    assert "h1: flags of prometheus is []" in str(refused(found))


def test_outside_of_a_window_a_saved_plan_does_nothing() -> None:
    never = [{"start": "00:00", "end": "00:01", "days": ["mon"], "timezone": "UTC"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_planner._windows, "status", lambda *_now: _planner._windows.Status(False, None, None))
        held, accepted = reopened(hosts(), windows=never), reopened(hosts(), accept=["host.outside_window"])
    assert (held["hosts"], held["phases"]) == ({}, [])
    told = [(each["host"], each["key"], each["severity"]) for each in held["findings"]]
    assert told[-2:] == [(host, "host.outside_window", "skipped") for host in ("h1", "h2")]
    assert accepted == PLAN


# -- the digest ---------------------------------------------------------------------------------------------------


def shuffled(value: t.Any) -> t.Any:
    """The same data with its keys in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


def test_the_digest_knows_no_order_of_hosts_and_keys() -> None:
    assert list(shuffled(hosts())) == ["h2", "h1"]
    again = planned(shuffled(hosts()), shuffled(VERSIONS))
    assert again["digest"] == PLAN["digest"] == _planner.digest(shuffled(PLAN))


def test_the_digest_changes_with_each_step() -> None:
    digests = {PLAN["digest"]}
    for host, steps in PLAN["hosts"].items():
        for key, step in steps.items():
            for field in step:
                other = copy.deepcopy(PLAN)
                other["hosts"][host][key][field] = "other"
                digests.add(_planner.digest(other))
    assert len(digests) == 1 + sum(len(step) for steps in PLAN["hosts"].values() for step in steps.values())


def test_what_is_expected_is_that_of_components_with_steps() -> None:
    (found,) = [_saved.expected(hosts()["h1"], {"x": {"component": "prometheus"}})]
    assert list(found) == ["prometheus"]
