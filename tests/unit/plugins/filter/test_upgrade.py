# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters as playbooks use them: in templates of Ansible's own, on variables that are templates themselves."""

from __future__ import annotations

import inspect
import json
import pathlib
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.observability.stack.plugins.filter import upgrade
from ansible_collections.observability.stack.tests.unit.surveys import Data, facts, survey

NODE = {"node_exporter": facts("node_exporter", "1.5.0")}
POINT = {"id": "u1.node_exporter-1.4.0", "version": "1.4.0", "created_at": "2026-11-21T03:00:00Z"}
RECORD = {"state": "success", "to_version": "1.5.0", "inventory": {"restore_points": [POINT]}}


def trusted(value: t.Any) -> t.Any:
    """Data as Ansible has it after reading a playbook: its texts may be templates."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(each) for key, each in value.items()}
    return [trusted(each) for each in value] if isinstance(value, list) else value


def render(expression: str, **variables: t.Any) -> t.Any:
    """What an expression gives in a task."""
    templar = Templar(loader=DataLoader(), variables=trusted(variables))
    template = expression.replace("| ", "| observability.stack.")
    return templar.template(trust_as_template(f"{{{{ {template} }}}}"))


def plain(value: t.Any) -> t.Any:
    """A value without what Ansible attaches to it."""
    return json.loads(json.dumps(value))


def plan_of(**variables: t.Any) -> Data:
    values = {"survey": survey(NODE), "host": "h1", "versions": {"node_exporter": "1.9.0"}, **variables}
    return t.cast(
        "Data",
        render(
            "survey | plan_host(host, versions, overrides, components, phases, only)",
            **{**dict.fromkeys(("overrides", "components", "phases", "only")), **values},
        ),
    )


def fleet_of(*plans: Data, **more: t.Any) -> Data:
    return t.cast("Data", render("plans | plan_fleet", plans=list(plans), **more))


# -- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"host": "{{ name }}", "name": "h1"},
        {"versions": {"node_exporter": "{{ wanted }}"}, "wanted": "1.9.0"},
        {"versions": "{{ all_versions }}", "all_versions": {"node_exporter": "{{ wanted }}"}, "wanted": "1.9.0"},
        {"versions": "{{ {'node_exporter': wanted} }}", "wanted": "1.9.0"},
        {"survey": "{{ found }}", "found": survey(NODE)},
        {
            "survey": survey({"node_exporter": facts("node_exporter", "{{ here }}", running="{{ here }}")}),
            "here": "1.5.0",
        },
        {"only": ["{{ one }}"], "one": "node_exporter", "phases": ["{{ phase }}"], "phase": "exporters"},
        {"overrides": {"node_exporter": {"probe_window": "{{ seconds | int }}"}}, "seconds": "10"},
        {"overrides": "{{ own | default({}) }}", "components": "{{ {} }}"},
    ],
    ids=[
        "plain",
        "host",
        "a version",
        "versions, twice",
        "versions, made on the spot",
        "survey",
        "deep in the survey",
        "lists",
        "overrides",
        "no overrides",
    ],
)
def test_a_plan_is_the_same_whether_its_input_is_plain_or_templates(variables: Data) -> None:
    planned = plan_of(**variables)
    assert planned["host"] == "h1"
    assert list(planned["steps"]) == ["node_exporter@1.9.0"]
    step = planned["steps"]["node_exporter@1.9.0"]
    assert (step["from"], step["to"], step["binary"]) == ("1.5.0", "1.9.0", "/usr/local/bin/node_exporter")
    assert "{{" not in json.dumps(planned)


def test_overrides_and_components_reach_the_plan() -> None:
    planned = plan_of(overrides={"node_exporter": {"probe_window": "{{ 7 }}"}})
    assert planned["steps"]["node_exporter@1.9.0"]["probe_window"] == 7
    only = plan_of(only=["loki"], versions={"node_exporter": "1.9.0", "loki": "3.0.0"})
    assert list(only["steps"]) == []


def test_a_fleet_s_plan_holds_all_hosts_and_has_a_digest_of_its_own() -> None:
    one, two = plan_of(), plan_of(host="h2", versions={"node_exporter": "1.8.2"})
    fleet = fleet_of(one, two)
    assert list(fleet["hosts"]) == ["h1", "h2"]
    assert [phase["name"] for phase in fleet["phases"]] == ["exporters"]
    assert fleet["phases"][0]["sequence"] == ["node_exporter@1.8.2", "node_exporter@1.9.0"]
    assert fleet["kind"] == "upgrade"
    assert plain(fleet) == plain(fleet_of(one, two))
    assert fleet["digest"] != fleet_of(one)["digest"]


def test_a_fleet_s_plan_is_made_from_what_hosts_hold_as_templates() -> None:
    hosts = {"h1": {"plan": "{{ given }}"}, "h2": {"plan": plan_of(host="h2", versions={})}}
    fleet = render(
        "['h1', 'h2'] | map('extract', hosts, 'plan') | plan_fleet(phases=order, kind=kind)".replace("| map", "|map"),
        hosts=hosts,
        given=plan_of(),
        order=["{{ 'exporters' }}"],
        kind="{{ 'rollback' }}",
    )
    assert (list(fleet["hosts"]), fleet["kind"]) == (["h1"], "rollback")
    assert fleet["digest"] == fleet_of(plan_of())["digest"]


def test_blockers_are_lines_and_nothing_stands_in_the_way_of_nothing() -> None:
    blocked = plan_of(survey=survey({"node_exporter": facts("node_exporter", "unknown")}))
    (line,) = render("plan | plan_blockers", plan=fleet_of(blocked))
    assert line.startswith("h1: /usr/local/bin/node_exporter doesn't tell its version. see what it prints")
    assert render("plan | plan_blockers", plan=fleet_of(plan_of())) == []


def test_a_plan_is_shown_as_a_table() -> None:
    shown = render("plan | plan_table", plan=fleet_of(plan_of(), plan_of(host="h2"))).splitlines()
    assert shown[0].startswith("Plan ")
    assert shown[0].endswith(": 2 steps on 2 hosts")
    assert [line.split() for line in shown[2:4]] == [
        ["COMPONENT", "NOW", "TO", "HOSTS"],
        ["node_exporter", "1.5.0", "1.9.0", "h1,", "h2"],
    ]


# -- the way back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["previous", "u1.node_exporter-1.4.0", "u1", "{{ point.id }}"])
def test_the_way_back_is_planned_from_restore_points(to: str) -> None:
    planned = render(
        "survey | plan_rollback('h1', to, kinds)",
        survey=survey(NODE, records={"node_exporter": RECORD}),
        to=to,
        kinds=["binary", "{{ 'config' }}"],
        point=POINT,
    )
    step = planned["steps"]["node_exporter@1.4.0"]
    assert (step["backup_id"], step["kinds"], step["stage"]) == (POINT["id"], ["binary", "config"], None)


def test_a_rollback_to_what_no_host_has_is_refused() -> None:
    planned = render("survey | plan_rollback('h1', 'u9')", survey=survey(NODE))
    with pytest.raises(AnsibleError, match="no host has a restore point 'u9'"):
        render("plans | plan_fleet(kind='rollback', to=to)", plans=[planned], to="{{ 'u9' }}")


def test_restore_points_are_listed_and_shown() -> None:
    records = {"node_exporter": RECORD}
    points = render("survey | restore_points", survey="{{ found }}", found=survey(NODE, records=records))
    assert plain(points) == [{"component": "node_exporter", **POINT}]
    shown = render("points | restore_point_table", points={"h1": points}).splitlines()
    assert shown[1].split() == ["h1", "node_exporter", "1.4.0", POINT["created_at"], POINT["id"]]
    assert render("points | restore_point_table", points={}).startswith("No restore points")


@pytest.mark.parametrize(
    ("stage", "staged", "src"),
    [
        ({"url": "u"}, {"files": [{"name": "x", "path": "{{ where }}", "sha256": "5ha"}]}, "/staged/x"),
        (None, {}, "/opt/x"),
    ],
    ids=["staged", "in place already"],
)
def test_the_files_to_swap_are_those_that_were_staged(stage: Data | None, staged: Data, src: str) -> None:
    step = {"stage": stage, "files": [{"name": "x", "dest": "{{ '/opt/' ~ 'x' }}"}]}
    found = render("step | swap_files(staged)", step=step, staged=staged, where="/staged/x")
    assert [(file["src"], file["dest"], file.get("sha256")) for file in found] == [
        (src, "/opt/x", "5ha" if staged else None)
    ]


# -- probes and reports -------------------------------------------------------------------------------------------


def test_what_is_installed_and_has_a_unit_can_be_probed() -> None:
    found = survey({**NODE, "loki": facts("loki", None), "prometheus": facts("prometheus", "2.42.0", unit=None)})
    (target,) = render("survey | probe_targets", survey=found)
    assert (target["component"], target["unit"], target["version"]) == (
        "node_exporter",
        "node_exporter.service",
        "1.5.0",
    )
    assert render("survey | probe_targets(only=names)", survey=found, names=["{{ 'loki' }}"]) == []


SICK = {
    "component": "loki",
    "healthy": False,
    "reason": "{{ why }}",
    "journal": ["panic"],
    "verdicts": [{"probe": "systemd", "ok": True}, {"probe": "process", "ok": False}],
}


def test_health_is_shown_and_what_is_sick_is_a_problem() -> None:
    results = {"h1": [SICK], "h2": [{**SICK, "healthy": True}]}
    shown = render("results | health_table", results=results, why="it broke").splitlines()
    assert [line.split(maxsplit=2)[2] for line in shown[1:]] == ["NOT HEALTHY  systemd", "healthy      systemd"]
    assert render("results | health_problems", results=results, why="it broke") == [
        "h1: loki isn't healthy: it broke\n    panic"
    ]
    assert render("results | health_table", results={}) == "Nothing to verify."


def test_the_state_of_hosts_is_shown() -> None:
    shown = render("surveys | status_table", surveys={"h1": survey(NODE, records={"node_exporter": RECORD})})
    assert [line.split() for line in shown.splitlines()] == [
        ["HOST", "UPGRADE", "COMPONENT", "DISK", "RUNS", "LAST", "STEP"],
        ["h1", "IDLE", "node_exporter", "1.5.0", "1.5.0", "success", "1.5.0"],
    ]


def test_what_was_done_is_shown() -> None:
    documents = {"h1": {"upgrade": {"steps": {"node_exporter@1.9.0": "{{ ended }}"}}}}
    shown = render("documents | outcome_table", documents=documents, ended="succeeded")
    assert shown.splitlines()[1].split() == ["h1", "node_exporter", "1.9.0", "succeeded"]


def test_a_failure_is_noted_and_told() -> None:
    step = {"component": "loki", "from": "2.9.1", "to": "{{ goal }}"}
    result = {"msg": "it broke\n", "services": [SICK]}
    noted = render("step | failure(task, result)", step=step, goal="3.0.0", task="Step | Swap", result=result, why="x")
    assert plain(noted) == {
        "component": "loki",
        "from": "2.9.1",
        "to": "3.0.0",
        "task": "Step | Swap",
        "error": "it broke",
        "journal": ["panic"],
    }
    told = render("found | failure_text(host)", found=[{**noted, "outcome": "rolled_back"}], host="{{ 'h1' }}")
    assert told.splitlines() == [
        "h1: loki 3.0.0 rolled back at 'Step | Swap'.",
        "it broke",
        "The journal's last lines:",
        "    panic",
        "2.9.1 is back in place, and proven healthy.",
    ]


def test_what_services_print_is_never_a_template(tmp_path: pathlib.Path) -> None:
    """Only what an operator wrote is trusted; a journal may say anything."""
    evil = "{{ lookup('file', '/etc/hostname') }}"
    templar = Templar(loader=DataLoader(), variables={"r": {"msg": evil, "journal": [evil]}})
    noted = templar.template(trust_as_template("{{ {} | observability.stack.failure('t', r) }}"))
    assert (noted["error"], noted["journal"]) == (evil, [evil])


# -- what can't be meant ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"versions": {"nood_exporter": "1.9.0"}},
            "upgrade_versions names nood_exporter, which no catalog entry describes",
        ),
        ({"only": ["nobody"]}, "upgrade_only names nobody"),
        ({"versions": {"node_exporter": 1.9}}, "upgrade_versions.node_exporter: 1.9 is neither a version"),
        ({"versions": {"node_exporter": ">=900"}}, "no release in '>=900' is known; name an exact version"),
        ({"overrides": {"node_exporter": {"prot": 1}}}, "node_exporter.prot is not a field; did you mean port?"),
        ({"components": {"mine": {}}}, "upgrade_components: mine.phase is missing"),
        ({"versions": {"node_exporter": "{{ nobody_said }}"}}, "'nobody_said' is undefined"),
        ({"survey": "{{ nobody_looked }}"}, "'nobody_looked' is undefined"),
        (
            {"survey": {"failed": True, "msg": "unreachable"}},
            "plan_host can't use what it was given (KeyError: 'components')",
        ),
        ({"survey": "none"}, "plan_host can't use what it was given (AttributeError: "),
        ({"versions": "1.9.0"}, "plan_host can't use what it was given (ValueError: "),
    ],
)
def test_what_cannot_be_meant_is_said_in_words(variables: Data, says: str) -> None:
    with pytest.raises(AnsibleError) as failure:
        plan_of(**variables)
    assert says in str(failure.value)


CALLS = {name: f"value | {name}" for name in upgrade._FILTERS} | {
    "plan_host": "value | plan_host('h', {})",
    "plan_rollback": "value | plan_rollback('h', 'previous')",
    "host_phases": "value | host_phases('h')",
    "swap_files": "value | swap_files({})",
    "failure": "value | failure('t', {})",
    "failure_text": "value | failure_text('h')",
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("value", "says"), [(7, "{name} can't use what it was given ("), ("{{ nothing }}", "'nothing' is undefined")]
)
def test_every_filter_tells_what_it_was_not_given(name: str, value: t.Any, says: str) -> None:
    with pytest.raises(AnsibleError) as failure:
        render(CALLS[name], value=value)
    assert says.format(name=name) in str(failure.value)


@pytest.mark.parametrize("name", upgrade._FILTERS)
def test_every_filter_is_documented_as_it_is(name: str) -> None:
    documented = yaml.safe_load(pathlib.Path(upgrade.__file__).with_name(f"{name}.yml").read_text())["DOCUMENTATION"]
    assert documented["name"] == name
    parameters = list(inspect.signature(upgrade._FILTERS[name]).parameters.values())[1:]
    assert {option: about.get("required", False) for option, about in documented["options"].items()} == {
        "_input": True,
        **{parameter.name: parameter.default is parameter.empty for parameter in parameters},
    }
    by_position = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert documented.get("positional", "").split(", ") == (by_position or [""])
