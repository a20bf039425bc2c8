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


# -- what was edited, and given a digest that is right ------------------------------------------------------------

NODE, STOP, LAST = KEYS
COMMAND = {"kind": "command", "argv": ["/bin/sh", "-c", "id > /root/evil"]}


def edited(change: t.Callable[[Data], t.Any], plan: Data = PLAN) -> str:
    """A plan that somebody changed, who knows how a digest is made."""
    other = json.loads(json.dumps(plan))
    change(other)
    return json.dumps({**other, "digest": _planner.digest(other)})


def step(**fields: t.Any) -> t.Callable[[Data], t.Any]:
    return lambda plan: plan["hosts"]["h1"][NODE].update(fields)


def inside(field: str, **fields: t.Any) -> t.Callable[[Data], t.Any]:
    return lambda plan: plan["hosts"]["h1"][NODE][field].update(fields)


STRANGE: dict[str, t.Callable[[Data], t.Any]] = {
    "stage.url": inside("stage", url="https://evil.example/node_exporter-1.9.0.linux-amd64.tar.gz"),
    "stage.checksums": inside("stage", checksums="https://evil.example/sums"),
    "stage.members": inside("stage", members={"node_exporter": "../../bin/sh"}),
    "stage.version_args": inside("stage", version_args=[["-c", "evil"]]),
    "stage.help_args": inside("stage", help_args=["-c", "evil"]),
    "stage.trials": inside("stage", trials=[{"program": "/bin/sh", "args": ["-c", "evil"], "status": [0]}]),
    "stage.architecture": inside("stage", architecture="arm64"),
    "stage.facts": inside("stage", facts={"config": "/etc/shadow"}),
    "stage.more": inside("stage", more="x"),
    "no stage": step(stage=None),
    "files": step(files=[{"name": "node_exporter", "dest": "/usr/sbin/sshd"}]),
    "unit": step(unit="sshd.service"),
    "binary": step(binary="/usr/sbin/sshd"),
    "keep": inside("keep", config=["/etc/shadow"]),
    "stopped_backup": step(stopped_backup=["/root"]),
    "rollback_floor": step(rollback_floor={"versions": ">=0", "reason": "", "reversible": True}),
    "backup_id": step(backup_id="u1.node_exporter"),
    "kinds": step(kinds=["binary", "unit", "config"]),
    "from": step(**{"from": "1.4.0"}),
    "order": step(order=-1),
    "key": step(key="sshd@1.9.0"),
    "reason": step(reason="safe"),
    "rehearse": step(rehearse={"argv": ["/bin/sh"]}),
    "reload": step(reload={"command": ["/bin/sh"]}),
    "probe_timeout": step(probe_timeout=0),
    "probe_window": step(probe_window=0),
    "another field": step(hook="evil.yml"),
    "target.url": inside("target", url="http://169.254.169.254"),
    "target.auth": inside("target", auth={"token_file": "/etc/shadow"}),
    "target.unit": inside("target", unit="sshd.service"),
    "a command probe": lambda plan: plan["hosts"]["h1"][NODE]["target"]["probes"].append(COMMAND),
    "a command proof": lambda plan: plan["hosts"]["h1"][NODE]["target"]["proofs"].append(COMMAND),
    "no probes": inside("target", probes=[]),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_step_that_the_variables_do_not_make_is_refused_whatever_the_digest_is(what: str) -> None:
    error = refused(hosts(), edited(STRANGE[what]))
    assert error.key == "plan.strange"
    assert f"h1: {what.partition('.')[0]} of {NODE} is another" in str(error) or "." not in what
    assert "somebody has changed the file" in str(error)


MENDED = {what for what in STRANGE if what.startswith(("target.", "a command", "no ", "keep", "reason"))}
"""What may differ where a step was begun: what is so now counts, not what the file says."""


def half_done(digest: str) -> Data:
    found = begun(hosts(), "h1", at=NODE, state="activated", disk="1.5.0")
    found["h1"]["state"]["upgrade"]["plan_digest"] = digest
    found["h1"]["components"]["node_exporter"].update(url="http://127.0.0.1:9101")
    return found


@pytest.mark.parametrize("what", sorted(set(STRANGE) - MENDED))
def test_nor_is_it_taken_where_the_plan_was_begun(what: str) -> None:
    text = edited(STRANGE[what])
    assert refused(half_done(json.loads(text)["digest"]), text).key == "plan.strange"


@pytest.mark.parametrize("what", sorted(MENDED))
def test_of_a_step_that_was_begun_what_is_so_now_counts(what: str) -> None:
    text = edited(STRANGE[what])
    taken = reopened(half_done(json.loads(text)["digest"]), text)["hosts"]["h1"][NODE]
    mine = reopened(half_done(PLAN["digest"]))["hosts"]["h1"][NODE]
    assert mine["target"]["url"] == "http://127.0.0.1:9101"
    assert taken == {**mine, "stage": taken["stage"], "from": taken["from"]}
    assert taken["stage"] in (None, mine["stage"])


def renamed(old: str, new: str) -> t.Callable[[Data], None]:
    """A step for another one, wherever it stands."""

    def change(plan: Data) -> None:
        text = json.dumps({key: plan[key] for key in ("phases", "hosts", "rows", "expects")})
        name, version = new.split("@")
        was, old_version = old.split("@")
        text = text.replace(old, new).replace(
            f'"component": "{was}", "installed"', f'"component": "{name}", "installed"'
        )
        plan.update(json.loads(text))
        for host, steps in plan["hosts"].items():
            if new in steps:
                steps[new].update(component=name, to=version)
            for row in plan["rows"]:
                if (row["host"], row["component"]) == (host, name):
                    row["hops"] = [version if hop == old_version else hop for hop in row["hops"]]

    return change


def without(key: str) -> t.Callable[[Data], None]:
    def change(plan: Data) -> None:
        for phase in plan["phases"]:
            phase["sequence"] = [each for each in phase["sequence"] if each != key]
            phase["hosts"] = {host: [each for each in keys if each != key] for host, keys in phase["hosts"].items()}
        plan["phases"] = [phase for phase in plan["phases"] if phase["sequence"]]
        for steps in plan["hosts"].values():
            steps.pop(key)
        for row in plan["rows"]:
            row["hops"] = [hop for hop in row["hops"] if f"{row['component']}@{hop}" != key]

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (renamed(NODE, "node_exporter@1.4.0"), "1.4.0 is older than 1.5.0, which is in use"),
        (without(STOP), "prometheus doesn't stop at 2.5"),
    ],
)
def test_a_version_that_policy_or_a_required_stop_forbids_is_refused(change: t.Any, why: str) -> None:
    error = refused(hosts(), edited(change))
    assert error.key == "plan.strange"
    assert why in str(error)


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"pins": {"node_exporter": "<1.8"}}, "upgrade_pins.node_exporter is '<1.8'"),
        ({"blacklist": [{"component": "prometheus", "versions": "2.55.x", "reason": "no"}]}, "2.55.1 is in upgrade_bl"),
        ({"policy": {"prometheus": "minor"}}, "3.5.3 is a major step"),
        ({"overrides": {"node_exporter": {"version_args": [["-v"]]}}}, f"stage of {NODE} is another"),
    ],
)
def test_the_variables_of_the_run_that_carries_it_out_count(variables: Data, why: str) -> None:
    with pytest.raises(InputError) as failure:
        reopened(hosts(), **variables)
    assert failure.value.key == "plan.strange"
    assert why in str(failure.value)


def test_what_is_accepted_is_taken_all_the_same() -> None:
    assert reopened(hosts(), policy={"prometheus": "minor"}, accept=["prometheus.policy_step"]) == PLAN


def test_links_are_those_that_the_variables_make_whatever_the_file_says() -> None:
    evil = {"component": "x", "unit": "sshd.service", "probes": [COMMAND], "proofs": [COMMAND], "url": "http://evil"}

    def change(plan: Data) -> None:
        for phase in plan["phases"]:
            phase["links"] = {"h1": [evil]}

    again = reopened(hosts(), edited(change))
    assert [phase["links"] for phase in again["phases"]] == [phase["links"] for phase in PLAN["phases"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(kind="rollback"),
        lambda plan: plan["rows"].clear(),
        lambda plan: plan["rows"][0].update(hops=["9.9.9"]),
        lambda plan: plan["rows"][0].update(installed="1.8.0"),
        lambda plan: plan["rows"].append({**plan["rows"][0], "host": "h9"}),
        lambda plan: plan["findings"].append({}),
        lambda plan: plan["phases"][0]["hosts"].pop("h1"),
        lambda plan: plan["phases"].pop(),
        lambda plan: plan["phases"][0]["sequence"].append(LAST),
        lambda plan: plan["phases"][0]["hosts"].update(h7=[NODE]),
        lambda plan: plan["phases"][0]["because"].update({NODE: [7]}),
        lambda plan: plan["phases"][0].update(name=["x"]),
        lambda plan: plan["phases"][0].update(name="exporters/../x"),
        lambda plan: plan["hosts"]["h1"][NODE].update(phase="metrics"),
        lambda plan: plan["hosts"]["h1"].update({"x@1": plan["hosts"]["h1"][NODE]}),
        lambda plan: plan["hosts"]["h1"][NODE].update(to="latest"),
        lambda plan: plan["hosts"]["h1"][NODE].pop("component"),
    ],
)
def test_a_plan_whose_parts_do_not_agree_is_refused_whatever_its_digest_is(change: t.Any) -> None:
    assert refused(hosts(), edited(change)).key == "plan.malformed"


def test_a_component_that_nobody_describes_is_refused() -> None:
    def change(plan: Data) -> None:
        renamed(NODE, "evil@1.9.0")(plan)
        for host in plan["hosts"]:
            plan["expects"][host]["evil"] = plan["expects"][host].pop("node_exporter")

    found = hosts()
    for host in found.values():
        host["components"]["evil"] = host["components"]["node_exporter"]
    assert "h1: evil is no component that the catalog" in str(refused(found, edited(change)))


# -- what was approved --------------------------------------------------------------------------------------------


def approved(text: str, digest: str) -> Data:
    found = hosts()
    return _planner.reopen(text, found, {host: {} for host in found}, name="plan.json", approved=digest)


def test_a_plan_that_was_changed_and_given_a_new_digest_is_not_the_one_that_was_approved() -> None:
    assert approved(TEXT, PLAN["digest"].upper()) == PLAN
    harmless = edited(lambda plan: plan["phases"][0]["because"].update({NODE: ["so"]}))
    for text, digest in ((harmless, PLAN["digest"]), (TEXT, PLAN["digest"][:12]), (TEXT, "0" * 64)):
        with pytest.raises(InputError) as failure:
            approved(text, digest)
        assert failure.value.key == "plan.not_approved"
        assert f"has the digest {json.loads(text)['digest']}, but upgrade_approved is {digest}" in str(failure.value)


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
