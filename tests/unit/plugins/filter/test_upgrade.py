# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters as playbooks use them: in templates of Ansible's own, on variables that are templates themselves."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import re
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.observability.stack.plugins.filter import upgrade
from ansible_collections.observability.stack.plugins.module_utils._errors import UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import _planner
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
    template = expression.replace("| ", "| observability.stack._")
    return templar.template(trust_as_template(f"{{{{ {template} }}}}"))


def plain(value: t.Any) -> t.Any:
    """A value without what Ansible attaches to it."""
    return json.loads(json.dumps(value))


def planned(expression: str | None = None, **variables: t.Any) -> t.Any:
    """The plan of the host h1, which requests node_exporter 1.9.0; or what an expression makes of the same."""
    wish = {"versions": variables.pop("versions", {"node_exporter": "1.9.0"})}
    wish |= {name: variables.pop(name) for name in ("overrides", "components", "phases", "only") if name in variables}
    values = {"surveys": {"h1": survey(NODE)}, "wishes": {"h1": wish}, **variables}
    if expression:
        return render(expression, **values)
    surveys, wishes = (render(name, **values) for name in ("surveys", "wishes"))
    return _planner.plan_upgrade(surveys, wishes)


def test_wrong_settings_for_releases_are_told_in_a_line() -> None:
    settings = {"mirror": "{{ base }}/x", "limits": {"size": "1GB"}, "pins": {"x.tar.gz": "{{ pin }}"}}
    values = {"base": "https://mirror.example", "settings": settings}
    assert render("settings | release_problems", pin="a" * 64, **values) == []
    (line,) = render("settings | release_problems", pin="short", **values)
    assert "upgrade_release_pins['x.tar.gz'] must be a sha256: 64 hexadecimal digits" in line


# -- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"versions": {"node_exporter": "{{ wanted }}"}, "wanted": "1.9.0"},
        {"versions": "{{ all_versions }}", "all_versions": {"node_exporter": "{{ wanted }}"}, "wanted": "1.9.0"},
        {"versions": "{{ {'node_exporter': wanted} }}", "wanted": "1.9.0"},
        {"surveys": "{{ {name: found} }}", "name": "{{ 'h1' }}", "found": survey(NODE)},
        {
            "surveys": {
                "h1": survey({"node_exporter": facts("node_exporter", "{{ here }}", running="{{ here }}")}),
            },
            "here": "1.5.0",
        },
        {"only": ["{{ one }}"], "one": "node_exporter", "phases": ["{{ phase }}"], "phase": "exporters"},
        {"overrides": {"node_exporter": {"probe_window": "{{ seconds | int }}"}}, "seconds": "10"},
        {"overrides": "{{ own | default({}) }}", "components": "{{ {} }}"},
    ],
    ids=[
        "plain",
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
    plan = planned(**variables)
    assert list(plan["hosts"]) == ["h1"]
    assert list(plan["hosts"]["h1"]) == ["node_exporter@1.9.0"]
    step = plan["hosts"]["h1"]["node_exporter@1.9.0"]
    assert (step["from"], step["to"], step["binary"]) == ("1.5.0", "1.9.0", "/usr/local/bin/node_exporter")
    assert "{{" not in json.dumps(plan)


def test_overrides_and_components_reach_the_plan() -> None:
    plan = planned(overrides={"node_exporter": {"probe_window": "{{ 7 }}"}})
    assert plan["hosts"]["h1"]["node_exporter@1.9.0"]["probe_window"] == 7
    only = planned(only=["loki"], versions={"node_exporter": "1.9.0", "loki": "3.0.0"})
    assert only["hosts"] == {}


TWO = {"h1": survey(NODE), "h2": survey(NODE)}


def test_a_plan_holds_all_hosts_and_has_a_digest_of_its_own() -> None:
    wishes = {host: {"versions": {"node_exporter": to}} for host, to in (("h1", "1.9.0"), ("h2", "1.8.2"))}
    plan = planned(surveys=TWO, wishes=wishes)
    assert list(plan["hosts"]) == ["h1", "h2"]
    assert [phase["name"] for phase in plan["phases"]] == ["exporters"]
    assert plan["phases"][0]["sequence"] == ["node_exporter@1.8.2", "node_exporter@1.9.0"]
    assert plan["kind"] == "upgrade"
    assert plain(plan) == plain(planned(surveys=TWO, wishes=wishes))
    assert plan["digest"] != planned()["digest"]


def test_what_stands_in_the_way_is_told_in_lines_and_of_nothing_nothing() -> None:
    unknown = {"h1": survey({"node_exporter": facts("node_exporter", "unknown")})}
    (line,) = render("plan | plan_problems", plan=planned(surveys=unknown))
    assert line.startswith("h1: the version of /usr/local/bin/node_exporter is unknown: nothing tells it. start its")
    assert render("plan | plan_problems('continue')", plan=planned(surveys=unknown)) == []
    plan = planned()
    assert render("plan | plan_problems", plan=plan) == []
    assert render("plan | plan_problems(approved=digest)", plan=plan, digest=plan["digest"]) == []
    (line,) = render("plan | plan_problems(approved=digest)", plan=plan, digest="0123456789ab")
    assert line.startswith(f"upgrade_approved is 0123456789ab, but the plan is {plan['digest'][:12]} now")


def test_a_plan_is_shown_as_a_table() -> None:
    wishes = {host: {"versions": {"node_exporter": "1.9.0"}} for host in TWO}
    shown = render("plan | plan_table", plan=planned(surveys=TWO, wishes=wishes)).splitlines()
    assert shown[0].startswith("Plan ")
    assert shown[0].endswith(": 2 steps on 2 hosts")
    assert [line.split() for line in shown[2:4]] == [
        ["COMPONENT", "NOW", "TO", "HOSTS"],
        ["node_exporter", "1.5.0", "1.9.0", "h1,", "h2"],
    ]


def test_what_is_to_be_fetched_is_known_by_its_size() -> None:
    plan = planned()
    (url,) = render("plan | plan_urls", plan=plan)
    assert url.endswith("/v1.9.0/node_exporter-1.9.0.linux-amd64.tar.gz")
    sizes = {url: {"bytes": "{{ 11000000 }}", "status": 200}}
    sized = render("plan | plan_sizes(sizes)", plan=plan, sizes=sizes)
    assert plain(sized["download"]) == {"bytes": 11000000, "unknown": 0, "archives": {url: 11000000}}
    gone = render("plan | plan_sizes(sizes)", plan=plan, sizes={url: {"bytes": None, "status": 404}})
    assert [finding["key"] for finding in gone["findings"]] == ["node_exporter.no_release"]
    assert sized["digest"] == gone["digest"] == plan["digest"]


def test_what_a_bundle_lacks_stands_in_the_way() -> None:
    plan = planned()
    (url,) = render("plan | plan_urls", plan=plan)
    sizes = {url: {"bytes": None, "status": None, "missing": "b.tar doesn't have it"}}
    gone = render("plan | plan_sizes(sizes)", plan=plan, sizes=sizes)
    (problem,) = render("plan | plan_problems", plan=gone)
    assert "b.tar doesn't have it: node_exporter 1.9.0 can't be fetched. " in problem
    assert problem.endswith("or put it on the mirror or into the bundle")


def test_a_host_knows_its_phases_and_what_must_come_first() -> None:
    hosts = {f"h{number}": survey({name: facts(name, "2.9.1") for name in ("loki", "promtail")}) for number in (1, 2)}
    wishes = {host: {"versions": {"loki": "2.9.17", "promtail": "2.9.17"}} for host in hosts}
    plan = planned(surveys=hosts, wishes=wishes)
    assert plain(render("plan | host_phases('{{ name }}')".replace("'{{ name }}'", "name"), plan=plan, name="h2")) == {
        "logging": ["loki@2.9.17"],
        "logging-2": ["promtail@2.9.17"],
    }
    missing = "plan | missing_steps('promtail@2.9.17', failures)"
    failed = [[{"component": "loki", "to": "{{ '2.9.17' }}"}]]
    assert render(missing, plan=plan, failures=failed) == ["loki@2.9.17"]
    assert render(missing, plan=plan, failures=[]) == []


# -- what there is ------------------------------------------------------------------------------------------------


def test_only_where_a_wish_is_open_releases_are_looked_up() -> None:
    sources = "surveys | release_sources(wishes, mirror=mirror, every=every)"
    node = "github:prometheus/node_exporter"
    assert planned(sources, mirror=None, every=False) == []
    assert planned(sources, mirror=None, every=True) == [node]
    assert planned(sources, mirror=None, every=False, versions={"node_exporter": "{{ 'latest' }}"}) == [node]
    (url,) = planned(sources, mirror="https://{{ 'mirror' }}.example", every=True)
    assert url == "https://mirror.example/prometheus/node_exporter/releases/download/v{version}"


def test_what_was_looked_up_for_a_plan_is_an_index_also_with_a_mirror() -> None:
    wish = {"versions": {"node_exporter": "latest"}}
    for mirror in (None, "https://mirror.example"):
        (source,) = planned("surveys | release_sources(wishes, mirror=mirror)", mirror=mirror, **wish)
        listed = {source: {"source": source, "releases": [{"version": "1.9.0", "date": None, "prerelease": False}]}}
        index = planned("surveys | release_index(wishes, listed, mirror=mirror)", mirror=mirror, listed=listed, **wish)
        assert list(index) == ["github:prometheus/node_exporter"]
        assert "1.9.0" in [release["version"] for release in index["github:prometheus/node_exporter"]]
    assert planned("surveys | release_index(wishes, {})") == {}


def test_what_could_be_is_told_with_what_could_not_be_looked_up() -> None:
    source = "github:prometheus/node_exporter"
    answer = {source: {"releases": [], "note": None, "error": "{{ why }}"}}
    checked = planned("surveys | check(wishes, found)", found=answer, why=f"{source}: rate limit", versions={})
    assert [(row["component"], row["installed"], row["error"]) for row in checked["rows"]] == [
        ("node_exporter", "1.5.0", f"{source}: rate limit")
    ]
    assert render("checked | check_problems", checked=checked) == [f"{source}: rate limit"]
    assert render("checked | check_table", checked=checked).splitlines()[1].split()[:3] == [
        "node_exporter",
        "1",
        "1.5.0",
    ]


NEVER = [
    {
        "start": "00:00",
        "end": "00:01",
        "days": (dt.datetime.now(tz=dt.timezone.utc) + dt.timedelta(days=3)).strftime("%A"),
    }
]
"""A window that is days away."""


def test_a_window_is_told_to_be_open_or_not() -> None:
    assert plain(render("windows | window_status", windows=[])) == {"open": True, "text": "open"}
    status = render("windows | window_status", windows="{{ never }}", never=NEVER)
    assert status["open"] is False
    assert status["text"].startswith("opens ")


def test_the_inventory_s_versions_to_change_are_told() -> None:
    document = {
        "upgrade": {"steps": {"node_exporter@1.9.0": "{{ ended }}"}},
        "components": {"node_exporter": {"to_version": "1.9.0"}},
    }
    own = {"node_exporter": {"version_variables": ["{{ 'my' }}_version"]}}
    for call, line in (("", "  node_exporter_version: 1.9.0"), ("(overrides=own)", "  my_version: 1.9.0")):
        done = "hosts | run_outcome(plan, ['h1'], 'u1', false)"
        hosts = [{"inventory_hostname": "h1", "__upgrade_closed": {"document": document}}]
        text = render(f"{done} | outcome_table{call}", hosts=hosts, plan=planned(), ended="succeeded", own=own)
        assert text.splitlines()[1].split() == ["h1", "node_exporter", "1.9.0", "succeeded"]
        assert text.splitlines()[-1] == line


# -- the way back -------------------------------------------------------------------------------------------------


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
    noted = templar.template(trust_as_template("{{ {} | observability.stack._failure('t', r) }}"))
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
        ({"versions": {"node_exporter": ">=900"}}, "no release in '>=900': none is known; name an exact version"),
        ({"overrides": {"node_exporter": {"prot": 1}}}, "node_exporter.prot is not a field; did you mean port?"),
        ({"components": {"mine": {}}}, "upgrade_components: mine.phase is missing"),
        ({"versions": {"node_exporter": "{{ nobody_said }}"}}, "'nobody_said' is undefined"),
        ({"surveys": "{{ nobody_looked }}"}, "'nobody_looked' is undefined"),
        ({"versions": "1.9.0"}, "h1: upgrade_versions is '1.9.0'; it must be {component: version}"),
    ],
)
def test_what_cannot_be_meant_is_said_in_words(variables: Data, says: str) -> None:
    with pytest.raises((AnsibleError, UpgradeError)) as failure:
        planned(**variables)
    assert says in str(failure.value)


ARGUMENTS = {
    "plan_sizes": "{}",
    "run_outcome": "{'hosts': {}}, [], 'u1', false",
    "outcome": "'check'",
    "setting": "'upgrade_versions'",
    "release_sources": "{}",
    "check": "{}, {}",
    "missing_steps": "'a@1', [[]]",
    "host_phases": "'h'",
    "swap_files": "{}",
    "swap_guard": "300",
    "failure": "'t', {}",
    "undo_failure": "{}, 'u1', 'why'",
    "failure_text": "'h'",
}
CALLS = {name: f"value | {name}({ARGUMENTS.get(name, '')})" for name in upgrade._FILTERS}


SAYS = {
    "setting": "upgrade_versions is 7; it must be a dictionary",
    "window_status": "upgrade_windows is 7; it must be a list of windows",
}


@pytest.mark.parametrize("name", CALLS)
def test_every_filter_tells_what_it_was_not_given(name: str) -> None:
    with pytest.raises(AnsibleError, match="'nothing' is undefined"):
        render(CALLS[name], value="{{ nothing }}")
    with pytest.raises(AnsibleError) as failure:
        render(CALLS[name], value=7)
    assert SAYS.get(name, f"{name} can't use what it was given (") in str(failure.value)


def test_every_filter_is_private_and_explains_itself() -> None:
    """No filter is for others: its name, which begins with an underscore, and its documentation say so."""
    filters = upgrade.FilterModule().filters()
    pages = {path.stem: path.read_text() for path in pathlib.Path(upgrade.__file__).parent.glob("*.yml")}
    assert {name[:1] for name in filters} == {"_"}
    assert [name for name, function in upgrade._FILTERS.items() if not (function.__doc__ or "").strip()] == []
    assert set(pages) == set(filters)
    for name, page in pages.items():
        documented = yaml.safe_load(page)["DOCUMENTATION"]
        assert (documented["name"], documented["description"][0].partition(" ")[0]) == (name, "Private")


def test_the_roles_name_filters_that_there_are() -> None:
    root, filters = pathlib.Path(upgrade.__file__).parents[2], set(upgrade.FilterModule().filters())
    for path in [*root.glob("roles/**/*.yml"), *root.glob("playbooks/*.yml")]:
        named = re.findall(r"(?:\||map\(')\s*'?observability\.stack\.(\w+)", path.read_text())
        assert set(named) <= filters, path


def test_a_host_that_failed_is_told_with_the_last_reason() -> None:
    filters = upgrade.FilterModule().filters()
    survey, preflight = {"components": {}}, {"failed": True, "msg": "web2: no space"}
    assert filters["_left_out"](
        [
            {"inventory_hostname": "web1", "__upgrade_survey": {"unreachable": True, "msg": "timed out"}},
            {"inventory_hostname": "web2", "__upgrade_survey": survey, "__upgrade_preflight": preflight},
            {"inventory_hostname": "web3"},
        ]
    ) == {"web1": "timed out", "web2": "no space", "web3": "it failed; see above"}


def test_what_an_error_quotes_is_escaped() -> None:
    with pytest.raises(AnsibleFilterError) as failure:
        upgrade.FilterModule().filters()["_status_table"]({"web1": {"state": None, "components": {"\x1b[2J": 1}}})
    assert "\x1b" not in str(failure.value)
