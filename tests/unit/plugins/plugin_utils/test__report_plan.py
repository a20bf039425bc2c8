# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils import _report_plan
from ansible_collections.observability.stack.tests.unit.surveys import CATALOG, Data, facts, planned, survey


def row(**changes: t.Any) -> Data:
    usual = {"host": "h1", "component": "loki", "installed": "2.9.1", "running": "2.9.1", "proven": True}
    return {**usual, "hops": ["3.0.0"], "note": "", **changes}


def finding(**changes: t.Any) -> Data:
    usual = {"host": "h1", "component": "loki", "severity": "warning", "key": "loki.note", "message": "m", "fix": "f"}
    return {**usual, **changes}


def plan(*rows: Data, findings: t.Sequence[Data] = (), hosts: Data | None = None, **more: t.Any) -> list[str]:
    hosts = {"h1": {"loki@3.0.0": {}}} if hosts is None else hosts
    document = {"digest": "0123456789abcdef", "rows": list(rows), "findings": list(findings), "hosts": hosts}
    return _report_plan.plan({**document, "phases": [], **more}).splitlines()


@pytest.mark.parametrize(
    ("changes", "here", "goal"),
    [
        ({}, "2.9.1", "3.0.0"),
        ({"hops": ["2.9.17", "3.0.0"]}, "2.9.1", "2.9.17 -> 3.0.0"),
        ({"hops": []}, "2.9.1", "nothing to do"),
        ({"hops": [], "note": "package_owned"}, "2.9.1", "package owned"),
        ({"running": "2.9.0"}, "2.9.1 (runs 2.9.0)", "3.0.0"),
        ({"running": None}, "2.9.1", "3.0.0"),
        ({"proven": False, "running": "2.9.0"}, "2.9.1 (unproven)", "3.0.0"),
        ({"installed": None, "running": None, "hops": [], "note": "not_installed"}, "-", "not installed"),
    ],
)
def test_a_plan_shows_what_is_there_and_where_it_goes(changes: Data, here: str, goal: str) -> None:
    lines = plan(row(**changes))
    assert lines[0] == "Plan 0123456789ab: 1 step on 1 host"
    assert [cell.strip() for cell in lines[3].split("  ") if cell.strip()] == ["loki", here, goal, "h1"]


@pytest.mark.parametrize(
    ("hosts", "title"),
    [
        ({}, "0 steps on 0 hosts"),
        ({"h1": {"a@1": {}, "b@1": {}}}, "2 steps on 1 host"),
        ({"h": {"a@1": {}}, "i": {"a@1": {}}}, "2 steps on 2 hosts"),
    ],
)
def test_a_plan_counts_its_steps_and_hosts(hosts: Data, title: str) -> None:
    assert plan(hosts=hosts)[0] == f"Plan 0123456789ab: {title}"


def test_hosts_for_which_the_same_is_planned_share_a_line() -> None:
    lines = plan(*(row(host=f"h{number}") for number in range(1, 6)), row(host="odd", hops=[]))
    assert [line.split()[3:] for line in lines[3:]] == [
        ["h1,", "h2,", "h3,", "+2", "more"],
        ["to", "do", "odd"],
    ]


def test_findings_come_worst_first_and_those_of_equal_hosts_once() -> None:
    found = [
        finding(severity="info", key="loki.note"),
        finding(severity="warning", key="loki.floor"),
        finding(severity="warning", key="loki.advisory"),
        finding(severity="skipped", key="loki.package_owned"),
        finding(severity="blocker", key="loki.no_release"),
        finding(severity="blocker", key="loki.no_release", host="h2"),
    ]
    heads = [line for line in plan(findings=found) if line.split(":")[0] in ("blocker", "warning", "skipped", "info")]
    assert heads == [
        "blocker: loki.no_release (h1, h2)",
        "warning: loki.advisory (h1)",
        "warning: loki.floor (h1)",
        "skipped: loki.package_owned (h1)",
        "info: loki.note (h1)",
    ]


def test_a_finding_says_what_to_do_within_the_terminal_s_width() -> None:
    lines = plan(findings=[finding(message="a long-winded word " * 20, fix="set --some-flag-with-dashes " * 9)])
    assert max(map(len, lines)) <= 80
    assert lines[lines.index("warning: loki.note (h1)") + 1].startswith("  a long-winded word")
    assert any(line.startswith("  -> set --some-flag-with-dashes") for line in lines)
    assert not any(line.endswith("-") for line in lines)


def test_what_is_not_installed_is_no_finding_to_read() -> None:
    assert not any("info" in line for line in plan(findings=[finding(severity="info", key="loki.not_installed")]))


# -- order, costs, width ------------------------------------------------------------------------------------------

LONG = [f"prometheus-exporter-{number:03}.frankfurt.prod.example.com" for number in range(40)]


def whole(*names: str, **versions: str) -> Data:
    """A real plan of many hosts."""
    found = {host: survey({name: facts(name, "2.9.1") for name in names}) for host in LONG}
    return planned(found, versions)


def phase(**changes: t.Any) -> Data:
    usual = {"name": "logging", "sequence": ["loki@3.0.0"], "hosts": {"h1": ["loki@3.0.0"]}, "because": {}, "after": {}}
    return {**usual, **changes}


def test_no_line_of_a_plan_is_wider_than_a_terminal() -> None:
    shown = _report_plan.plan(whole("loki", "promtail", loki="3.0.0", promtail="3.0.0")).splitlines()
    assert max(map(len, shown)) <= 80
    assert sum("+37 more" in line for line in shown) > 2
    assert not any(line.endswith(" ") for line in shown)
    assert any(line.startswith("logging-2") for line in shown)


def test_each_step_is_told_with_its_phase_its_hosts_and_why_it_is_there() -> None:
    steps = {
        "loki@2.9.17": {"reason": "a stage on the way to 3.0.0", "rollback_floor": None},
        "loki@3.0.0": {"reason": "wanted", "rollback_floor": {"versions": ">=2.9"}},
    }
    sequence = list(steps)
    hosts = {"h1": sequence, "h2": ["loki@3.0.0"]}
    phases = [phase(sequence=sequence, hosts=hosts, because={"loki@3.0.0": ["before promtail 3.0.0: a rule"]})]
    lines = plan(row(), hosts={"h1": steps, "h2": {"loki@3.0.0": steps["loki@3.0.0"]}}, phases=phases)
    assert lines[5:] == [
        "PHASE    STEP         HOSTS  WHY",
        "logging  loki@2.9.17  1      a stage on the way to 3.0.0",
        "         loki@3.0.0   2      wanted; before promtail 3.0.0: a rule; no way back",
        "                             below >=2.9",
    ]


@pytest.mark.parametrize(("reason", "told"), [("wanted", False), ("on disk already, but a restart was lost", True)])
def test_a_single_step_is_told_once_more_only_if_there_is_another_reason_than_that_it_is_wanted(
    reason: str, told: bool
) -> None:
    steps = {"h1": {"loki@3.0.0": {"reason": reason}}}
    lines = plan(row(), hosts=steps, phases=[phase()])
    assert any("PHASE" in line for line in lines) is told
    assert any(reason in line for line in lines) is told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, None),
        ({"seconds": 59}, "about 59 s, going by earlier upgrades"),
        ({"seconds": 61}, "about 1 min 1 s, going by earlier upgrades"),
        ({"seconds": 3600}, "about 60 min, going by earlier upgrades"),
        ({"download": {"bytes": 0, "unknown": 0, "archives": {}}}, None),
        ({"download": {"bytes": 1500, "unknown": 0, "archives": {"u": 1500}}}, "1.5 kB to download at most"),
        (
            {"download": {"bytes": 2_500_000_000, "unknown": 2, "archives": {"u": None}}},
            "2.5 GB and 2 archives of unknown size to download at most",
        ),
        ({"backups": {"h1": 120_000_000, "h2": 5}}, "restore points of up to 120 MB on a host"),
        ({"backups": {"h1": 7}, "backup_dir": "/b"}, "restore points of up to 7 B on a host, in /b"),
        ({"backups": {"h1": 0}}, None),
        ({"seconds": 0, "backups": {}}, None),
    ],
)
def test_what_a_plan_costs_is_told_as_far_as_it_is_known(more: Data, told: str | None) -> None:
    assert plan(row(), **more)[1] == (told or "")


# -- check --------------------------------------------------------------------------------------------------------


def checked(*rows: Data, findings: t.Sequence[Data] = (), sources: Data | None = None) -> list[str]:
    return _report_plan.check({"rows": list(rows), "findings": list(findings), "sources": sources or {}}).splitlines()


def known(**changes: t.Any) -> Data:
    usual = {"component": "loki", "host": "h1", "installed": "2.9.1", "running": "2.9.1", "available": None}
    rest = {"change": None, "released": None, "behind": 0, "vulnerable": False, "blocked_by": [], "error": None}
    return {**usual, **rest, **changes}


@pytest.mark.parametrize(
    ("changes", "header", "line"),
    [
        ({}, "COMPONENT  HOSTS  INSTALLED", "loki       1      2.9.1"),
        ({"running": "2.9.0"}, "COMPONENT  HOSTS  INSTALLED  RUNS", "loki       1      2.9.1      2.9.0"),
        ({"running": None}, "COMPONENT  HOSTS  INSTALLED  RUNS", "loki       1      2.9.1      nothing"),
        ({"error": "down"}, "COMPONENT  HOSTS  INSTALLED  AVAILABLE", "loki       1      2.9.1      ?"),
        (
            {"available": "3.0.0", "change": "major", "released": "2024-04-08"},
            "COMPONENT  HOSTS  INSTALLED  AVAILABLE  CHANGE  RELEASED",
            "loki       1      2.9.1      3.0.0      major   2024-04-08",
        ),
        ({"vulnerable": True}, "COMPONENT  HOSTS  INSTALLED  VULNERABLE", "loki       1      2.9.1      yes"),
        (
            {"blocked_by": ["loki.policy_step", "loki.pinned"]},
            "COMPONENT  HOSTS  INSTALLED  BLOCKED BY",
            "loki       1      2.9.1      policy step, pinned",
        ),
    ],
)
def test_a_check_shows_the_columns_that_say_something(changes: Data, header: str, line: str) -> None:
    assert checked(known(**changes)) == [header, line]


def test_hosts_that_are_alike_share_a_line_of_a_check() -> None:
    lines = checked(known(), known(host="h2"), known(host="h3", installed="2.9.0", running="2.9.0"))
    assert [line.split()[1:3] for line in lines[1:]] == [["2", "2.9.1"], ["1", "2.9.0"]]


def test_a_check_of_nothing_says_so() -> None:
    assert checked() == ["Nothing is installed that the catalog knows."]


def test_a_check_tells_findings_and_what_could_not_be_looked_up() -> None:
    sources = {
        "github:a/b": {"note": "as of yesterday", "error": None},
        "github:c/d": {"note": None, "error": "github:c/d: down"},
    }
    lines = checked(known(), findings=[finding(host=host) for host in LONG], sources=sources)
    assert max(map(len, lines)) <= 80
    assert lines[-3:] == ["github:a/b: as of yesterday", "", "github:c/d: down"]
    assert any("+37 more)" in line for line in lines)


def test_a_check_that_has_much_to_say_fits_a_terminal() -> None:
    much = known(
        component="elasticsearch_exporter", available="3.0.0", change="major", blocked_by=["x.policy_step"] * 3
    )
    lines = checked(much, known())
    assert max(map(len, lines)) <= 80
    assert len(lines) > 3


# -- afterwards ---------------------------------------------------------------------------------------------------


def document(component: str, version: str, *, ended: str = "succeeded", to: str | None = None) -> Data:
    steps = {f"{component}@{version}": ended}
    return {"upgrade": {"steps": steps}, "components": {component: {"to_version": to or version}}}


def bumps(documents: Data) -> list[str]:
    return _report_plan.bumps(documents, CATALOG).splitlines()[4:]


def test_variables_to_change_are_told_once() -> None:
    documents = {host: document("loki", "3.0.0") for host in ("h1", "h2")}
    assert bumps({**documents, "h3": document("node_exporter", "1.9.0")}) == [
        "  loki_version: 3.0.0",
        "  node_exporter_version: 1.9.0",
    ]


def test_variables_that_hosts_need_with_different_values_are_told_with_their_hosts() -> None:
    documents = {host: document("loki", version) for host, version in (("a", "3.0.0"), ("b", "2.9.17"), ("c", "3.0.0"))}
    assert bumps(documents) == ["  loki_version: 2.9.17  # b", "  loki_version: 3.0.0  # a, c"]


@pytest.mark.parametrize(
    "one",
    [
        document("loki", "3.0.0", ended="rolled_back"),
        document("loki", "2.9.17", to="3.0.0"),
        document("stranger", "1.0.0"),
        {"upgrade": {}, "components": {}},
    ],
    ids=["not done", "a stage", "unknown", "nothing"],
)
def test_what_was_not_reached_is_no_version_to_set(one: Data) -> None:
    assert _report_plan.bumps({"h1": one}, CATALOG) == ""
