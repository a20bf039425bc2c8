# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _check, _market, _report_plan
from ansible_collections.observability.stack.tests.unit.surveys import NOW, Data, facts, finding_keys, listed, survey

NODE, PROMETHEUS = "github:prometheus/node_exporter", "github:prometheus/prometheus"
ANSWERS = {
    NODE: listed(("1.11.1", "2026-04-01"), ("1.9.1", "2025-04-01"), ("1.5.0", "2022-11-29")),
    PROMETHEUS: listed(("3.14.0-rc.0", "2026-11-20"), ("3.13.2", "2026-11-18"), ("3.5.3", "2026-05-01"), "2.55.1"),
}


def checked(found: Data, answers: Data | None = None, **wish: t.Any) -> Data:
    hosts = {"h1": survey(found)} if "components" not in next(iter(found.values()), {}) else found
    return _check.check(hosts, dict.fromkeys(hosts, wish), answers=ANSWERS if answers is None else answers, now=NOW)


def row(found: Data, answers: Data | None = None, **wish: t.Any) -> Data:
    (only,) = checked(found, answers, **wish)["rows"]
    return t.cast("Data", only)


def node(version: str | None = "1.5.0", **changes: t.Any) -> Data:
    return {"node_exporter": facts("node_exporter", version, **changes)}


def prometheus(version: str = "2.55.1", **changes: t.Any) -> Data:
    return {"prometheus": facts("prometheus", version, **changes)}


def test_a_component_s_row_tells_all_that_there_is_to_know() -> None:
    assert row(node()) == {
        "component": "node_exporter",
        "host": "h1",
        "installed": "1.5.0",
        "running": "1.5.0",
        "available": "1.11.1",
        "change": "minor",
        "released": "2026-04-01",
        "behind": 2,
        "vulnerable": False,
        "blocked_by": [],
        "error": None,
    }


@pytest.mark.parametrize(
    ("found", "wish", "told"),
    [
        (node("1.11.1"), {}, {"available": None, "change": None, "released": None, "behind": 0}),
        (node("1.12.0"), {}, {"available": None, "behind": 0}),
        (node(), {"versions": {"node_exporter": "1.9.x"}}, {"available": "1.9.1", "behind": 2, "blocked_by": []}),
        (node(), {"versions": {"node_exporter": "1.9.1"}}, {"available": "1.9.1", "change": "minor"}),
        (node(), {"policy": "patch"}, None),
        (node(), {"pins": {"node_exporter": "<1.10"}}, {"available": "1.9.1", "blocked_by": []}),
        (node(), {"pins": {"node_exporter": "1.5.0"}}, {"available": "1.11.1", "blocked_by": ["node_exporter.pinned"]}),
        (node("unknown", running=None), {}, {"available": None, "blocked_by": ["node_exporter.unknown_version"]}),
        (node(unit=None), {}, {"available": "1.11.1", "blocked_by": ["node_exporter.no_unit"]}),
        (
            node(package={"manager": "apt", "name": "x"}),
            {},
            {"available": "1.11.1", "blocked_by": ["node_exporter.package_owned"]},
        ),
        (prometheus(), {}, {"available": "3.13.2", "change": "major", "behind": 2, "vulnerable": False}),
        (prometheus("3.5.2"), {}, {"available": "3.13.2", "vulnerable": True}),
        (
            prometheus(flags=["storage.tsdb.retention"]),
            {},
            {"available": "3.13.2", "blocked_by": ["prometheus.removed.storage.tsdb.retention"]},
        ),
        (
            prometheus(),
            {"versions": {"prometheus": ">=9"}},
            {"available": "3.13.2", "blocked_by": ["prometheus.no_release_in_range"]},
        ),
    ],
)
def test_what_could_be_and_what_keeps_it_from_being(found: Data, wish: Data, told: Data | None) -> None:
    if told is None:
        with pytest.raises(InputError, match="upgrade_policy is 'patch'"):
            row(found, **wish)
        return
    assert {name: value for name, value in row(found, **wish).items() if name in told} == told


def test_the_login_of_a_mirror_is_not_told() -> None:
    mirror = "http://ops:geheim@mirror.example"
    source = f"{mirror}/prometheus/node_exporter/releases/download/v{{version}}"
    hosts = {"h1": survey(node())}
    found = _check.check(hosts, {"h1": {}}, answers={source: listed("1.5.0")}, mirror=mirror, now=NOW)
    assert list(found["sources"]) == [source.replace("ops:geheim@", "********@")]
    assert "geheim" not in str(found)


def test_what_is_not_installed_or_not_meant_has_no_row() -> None:
    assert checked({**node(None), "loki": facts("loki", "2.9.1")}, only=["node_exporter"])["rows"] == []
    assert checked({}) == {"rows": [], "findings": [], "sources": ANSWERS, "index": {}}
    assert checked({"stranger": facts("node_exporter", "1.0.0")})["rows"] == []


def test_what_was_cut_off_is_no_reason_to_tell_something_else() -> None:
    record = {"state": "activated", "from_version": "1.5.0", "to_version": "1.9.0"}
    found = survey(node(), records={"node_exporter": record}, unfinished={"node_exporter": "mixed"})
    (only,) = checked({"h1": found})["rows"]
    assert only["available"] == "1.11.1"


def test_a_service_whose_restart_was_lost_has_drifted() -> None:
    told = checked(node("1.9.1", running="1.5.0", restart_pending=True))
    assert finding_keys(told) == ["node_exporter.drift"]
    assert told["findings"][0]["message"] == "node_exporter 1.5.0 runs, but 1.9.1 is on disk"


def test_a_host_that_is_behind_the_others_is_told() -> None:
    hosts = {"h1": survey(node("1.9.1")), "h2": survey(node("1.10.2")), "h3": survey(node("unknown", running=None))}
    behind = [each for each in checked(hosts)["findings"] if each["key"] == "node_exporter.behind"]
    assert [(each["host"], each["message"]) for each in behind] == [
        ("h1", "node_exporter is 1.9.1, and 1.10.2 elsewhere")
    ]


def test_what_is_overdue_by_its_policy_is_told() -> None:
    told = checked(node(), policy={"default": {"max_age": 365}})
    (finding,) = [each for each in told["findings"] if each["key"] == "node_exporter.overdue"]
    assert finding["message"].startswith("node_exporter 1.5.0 was released on 2022-11-29, ")
    assert finding_keys(checked(node("1.11.1"), policy={"default": {"max_age": 365}})) == []


def test_what_is_vulnerable_now_is_told_once() -> None:
    assert finding_keys(checked(prometheus("3.5.2"))).count("prometheus.vulnerable_version") == 1


def test_a_lookup_that_failed_is_told_and_hides_nothing_else() -> None:
    answers = {**ANSWERS, PROMETHEUS: listed(error=f"{PROMETHEUS}: rate limit exceeded")}
    told = checked({**prometheus("3.5.3"), **node()}, answers, versions={"prometheus": ">=3.6"})
    rows = {each["component"]: each for each in told["rows"]}
    assert rows["prometheus"]["error"] == f"{PROMETHEUS}: rate limit exceeded"
    assert rows["prometheus"]["available"] is None
    assert rows["node_exporter"]["available"] == "1.11.1"
    assert _check.problems(told) == [f"{PROMETHEUS}: rate limit exceeded"]
    assert _report_plan.check(told).splitlines()[1].split()[3] == "1.11.1"


OWN = {
    "phase": "exporters",
    "units": ["mine"],
    "files": [{"name": "mine"}],
    "port": 1,
    "known_releases": ["1.0.0"],
    "releases": [
        {
            "url": "https://x.example/get?version={version}",
            "checksums": "https://x.example/sums?version={version}",
            "members": {"mine": "mine"},
        }
    ],
}


def test_a_component_whose_releases_nobody_lists_is_told() -> None:
    found = {"h1": survey({"mine": facts("node_exporter", "1.0.0")})}
    wishes: Data = {"h1": {"components": {"mine": OWN}}}
    assert _market.sources(found, wishes, mirror=None, every=True) == []
    told = _check.check(found, wishes, answers={}, now=NOW)
    assert told["rows"][0]["error"].startswith("mine: releases can't be listed at https://x.example/get")
    with pytest.raises(InputError, match="mine: releases can't be listed"):
        _market.sources(
            found, {"h1": {"components": {"mine": OWN}, "versions": {"mine": "latest"}}}, mirror=None, every=False
        )


@pytest.mark.parametrize(
    ("found", "wish", "asked"),
    [
        (node(), {"node_exporter": "latest"}, True),
        (node(), {"node_exporter": ">=1.9"}, True),
        (node(), {"node_exporter": ">=1.5"}, False),
        (node(), {"node_exporter": "1.9.0"}, False),
        (node(), {}, False),
        (node(None), {"node_exporter": "latest"}, False),
        (node("unknown"), {"node_exporter": "latest"}, False),
        (node(unit=None), {"node_exporter": "latest"}, False),
        (node(package={"manager": "apt", "name": "x"}), {"node_exporter": "latest"}, False),
    ],
)
def test_nobody_is_asked_in_vain(found: Data, wish: Data, asked: bool) -> None:
    hosts = {"h1": survey(found), "h2": survey(found)}
    wishes, installed = {host: {"versions": wish} for host in hosts}, found["node_exporter"]["installed"]
    assert _market.sources(hosts, wishes, mirror=None, every=False) == ([NODE] if asked else [])
    assert _market.sources(hosts, wishes, mirror=None, every=True) == ([NODE] if installed else [])


def test_the_age_of_a_version_that_is_named_is_asked_for() -> None:
    wish = {"versions": {"node_exporter": "1.9.0"}, "policy": {"node_exporter": {"min_age": 3}}}
    assert _market.sources({"h1": survey(node())}, {"h1": wish}, mirror=None, every=False) == [NODE]
    assert _market.sources({"h1": survey(node("1.9.0"))}, {"h1": wish}, mirror=None, every=False) == []


def test_what_was_listed_is_an_index_to_plan_by_later_also_where_a_mirror_was_asked() -> None:
    hosts = {"h1": survey({**node(), **prometheus()})}
    mirror = "https://mirror.example/prometheus/node_exporter/releases/download/v{version}"
    answers = {mirror: listed("1.9.1"), PROMETHEUS: listed(error="no")}
    told = _check.check(hosts, {}, answers=answers, mirror="https://mirror.example", now=NOW)
    assert [each["version"] for each in told["index"][NODE]] == ["1.9.1"]
    told = _check.check(hosts, {}, answers=answers, now=NOW)
    assert PROMETHEUS not in told["index"]


def test_what_is_found_and_cannot_be_upgraded_has_a_row_and_its_reason() -> None:
    obstacle = {"key": "container", "reason": "it runs in a container", "fix": "upgrade the image"}
    held = {**facts("node_exporter", None), "running": "1.5.0", "not_upgradable": obstacle}
    told = checked({"h1": survey({"node_exporter": held}), "h2": survey(node())})
    rows = {each["host"]: each for each in told["rows"]}
    assert (rows["h1"]["installed"], rows["h1"]["running"], rows["h1"]["available"]) == (None, "1.5.0", None)
    assert rows["h1"]["blocked_by"] == ["node_exporter.container"]
    text = _report_plan.check(told)
    assert "it runs in a container" in text
    assert "-> upgrade the image" in text
    assert "Nothing is installed" not in text
