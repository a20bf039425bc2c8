# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils import _report_plan

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]


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
