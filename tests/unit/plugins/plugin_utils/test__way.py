# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _planner
from ansible_collections.observability.stack.plugins.plugin_utils._market import Market
from ansible_collections.observability.stack.tests.unit.surveys import (
    STACK,
    TODAY,
    Data,
    drafted,
    facts,
    finding_keys,
    keys,
    listed,
    survey,
    wished,
)


@pytest.mark.parametrize(
    ("here", "target", "stages", "hops"),
    [
        ("2.42.0", "3.5.3", [">=2.55,<3"], ["2.55.1", "3.5.3"]),
        ("2.55.0", "3.5.3", [">=2.55,<3"], ["3.5.3"]),
        ("2.42.0", "2.55.0", [">=2.55,<3"], ["2.55.0"]),
        ("2.42.0", "2.53.3", [">=2.55,<3"], ["2.53.3"]),
        ("3.1.0", "3.5.3", [">=2.55,<3"], ["3.5.3"]),
        ("2.42.0", "3.5.3", ["2.53.3"], ["2.53.3", "3.5.3"]),
        ("2.53.3", "3.5.3", ["2.53.3"], ["3.5.3"]),
        ("2.42.0", "3.5.3", [], ["3.5.3"]),
        ("2.30.0", "3.5.3", ["2.53.3", "2.42.0"], ["2.42.0", "2.53.3", "3.5.3"]),
    ],
)
def test_stages_lie_strictly_between(here: str, target: str, stages: list[str], hops: list[str]) -> None:
    found = survey({"prometheus": facts("prometheus", here)})
    planned = drafted(found, {"prometheus": target}, overrides={"prometheus": {"stages": stages}})
    assert keys(planned) == [f"prometheus@{hop}" for hop in hops]


def test_a_stage_that_nobody_knows_a_release_of_blocks() -> None:
    planned = drafted(survey(STACK), {"prometheus": "3.5.3"}, overrides={"prometheus": {"stages": [">=2.54,<2.55"]}})
    assert finding_keys(planned, "blocker") == ["prometheus.unknown_stage"]
    assert keys(planned) == []


# -- latest, and ranges -------------------------------------------------------------------------------------------

NODE, PROMETHEUS = "github:prometheus/node_exporter", "github:prometheus/prometheus"
LISTED = {
    NODE: listed(("1.11.1", "2026-11-19"), ("1.11.0", "2026-11-01"), ("1.9.1", "2025-04-01"), ("1.5.0", "2022-11-29")),
    PROMETHEUS: listed("3.14.0-rc.0", "3.13.2", "3.13.0", "3.5.3", "2.55.1", "2.53.5", "2.51.1", "2.51.0"),
}


def node(wanted: str, here: str = "1.5.0", answers: Data | None = None, **wish: t.Any) -> tuple[list[str], list[str]]:
    """The versions of node_exporter's way, and what is to be known, as C(severity: key)."""
    found = survey({"node_exporter": facts("node_exporter", here)})
    plan = drafted(found, {"node_exporter": wanted}, answers=LISTED if answers is None else answers, **wish)
    told = [f"{each['severity']}: {each['key'].partition('.')[2]}" for each in plan["findings"]]
    return [step["to"] for step in plan["steps"].values()], told


STEP, BLACK = "node_exporter.policy_step", "node_exporter.blacklisted"
BLACKLIST = [{"component": "node_exporter", "versions": "1.11.x", "reason": "no"}]


@pytest.mark.parametrize(
    ("wanted", "wish", "hops", "told"),
    [
        ("latest", {}, ["1.11.1"], []),
        (">=1.6", {}, ["1.11.1"], []),
        ("1.9.x", {}, ["1.9.1"], []),
        (">=1.5", {}, [], []),
        ("latest", {"policy": {"default": "patch"}}, [], ["held: policy_step"]),
        (">=1.6", {"policy": {"default": "patch"}}, [], ["blocker: policy_step"]),
        ("1.9.1", {"policy": {"default": "patch"}}, [], ["blocker: policy_step"]),
        (
            "1.9.1",
            {"policy": {"default": "patch"}, "accept": [STEP]},
            ["1.9.1"],
            ["accepted: policy_step"],
        ),
        ("latest", {"policy": {"default": "patch"}, "accept": [STEP]}, ["1.11.1"], []),
        ("latest", {"policy": {"node_exporter": {"min_age": 7}}}, ["1.11.0"], ["held: too_young"]),
        ("latest", {"policy": {"node_exporter": {"min_age": 30}}}, ["1.9.1"], ["held: too_young"]),
        ("1.11.1", {"policy": {"node_exporter": {"min_age": 7}}}, [], ["blocker: too_young"]),
        ("1.10.2", {"policy": {"node_exporter": {"min_age": 7}}}, [], ["blocker: age_unknown"]),
        ("1.9.1", {"policy": {"node_exporter": {"min_age": 7}}}, ["1.9.1"], []),
        ("latest", {"pins": {"node_exporter": "<1.10"}}, ["1.9.1"], ["held: pinned"]),
        ("1.11.1", {"pins": {"node_exporter": "<1.10"}}, [], ["blocker: pinned"]),
        ("latest", {"blacklist": BLACKLIST}, ["1.9.1"], ["held: blacklisted"]),
        ("1.11.0", {"blacklist": BLACKLIST}, [], ["blocker: blacklisted"]),
        (
            "1.11.0",
            {"blacklist": BLACKLIST, "accept": [BLACK]},
            ["1.11.0"],
            ["accepted: blacklisted"],
        ),
        ("1.11.0", {"blacklist": BLACKLIST, "accept": ["loki.blacklisted"]}, [], ["blocker: blacklisted"]),
        ("1.4.0", {}, [], ["blocker: downgrade"]),
        ("1.4.0", {"allow_downgrade": True}, ["1.4.0"], []),
        ("1.4.0", {"accept": ["node_exporter.downgrade"]}, ["1.4.0"], ["accepted: downgrade"]),
    ],
)
def test_the_newest_release_is_taken_that_nothing_speaks_against(
    wanted: str, wish: Data, hops: list[str], told: list[str]
) -> None:
    assert node(wanted, **wish) == (hops, told)


@pytest.mark.parametrize(
    ("here", "answers", "told"),
    [
        ("1.11.1", LISTED, []),
        ("1.12.0", LISTED, ["warning: nothing_newer"]),
        ("1.5.0", {NODE: listed()}, ["warning: nothing_newer"]),
        ("1.5.0", {}, ["warning: nothing_newer"]),
    ],
    ids=["the newest", "newer than what is listed", "an empty list", "nobody was asked"],
)
def test_latest_stays_where_nothing_newer_is_listed(here: str, answers: Data, told: list[str]) -> None:
    assert node("latest", here, answers, overrides={"node_exporter": {"known_releases": []}}) == ([], told)


def test_a_mirror_that_lists_less_than_is_installed_is_told() -> None:
    source = "https://mirror.example/prometheus/node_exporter/releases/download/v{version}"
    market = Market({source: listed("1.9.1")}, mirror="https://mirror.example")
    found = survey({"node_exporter": facts("node_exporter", "1.11.1")})
    draft = _planner.plan_host("host1", found, wished(versions={"node_exporter": "latest"}), market=market, today=TODAY)
    assert [each["message"] for each in draft.findings] == [
        f"the newest release that {source} lists is 1.9.1, and 1.11.1 is in use"
    ]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (LISTED, f"no release in '>=7': {NODE} lists none; name an exact version (the newest known: 1.11.1, 1.11.0, "),
        ({}, "no release in '>=7': none is known; name an exact version (the newest known: "),
    ],
)
def test_a_range_without_a_release_is_refused(answers: Data, says: str) -> None:
    with pytest.raises(InputError) as failure:
        node(">=7", answers=answers)
    assert says in str(failure.value)
    assert "upgrade_versions.node_exporter: " in str(failure.value)


def way(here: str, wanted: str, **more: t.Any) -> list[str]:
    found = survey({"prometheus": facts("prometheus", here)})
    return keys(drafted(found, {"prometheus": wanted}, answers=LISTED, **more))


@pytest.mark.parametrize(
    ("stages", "hops"),
    [
        ([">=2.55,<3"], ["prometheus@2.55.1", "prometheus@3.13.2"]),
        ([">=2.53,<2.54"], ["prometheus@2.53.5", "prometheus@3.13.2"]),
        ([">=2.51,<2.52"], ["prometheus@3.13.2"]),
        ([">=3,<3.13.1"], ["prometheus@3.5.3", "prometheus@3.13.2"]),
    ],
    ids=["the usual one", "what is listed", "a bad one is no stage", "the newest that isn't bad"],
)
def test_a_stage_is_the_newest_release_that_is_listed_and_not_bad(stages: list[str], hops: list[str]) -> None:
    overrides = {"prometheus": {"stages": stages}}
    if hops == ["prometheus@3.13.2"]:
        found = survey({"prometheus": facts("prometheus", "2.42.0")})
        plan = drafted(found, {"prometheus": "latest"}, answers=LISTED, overrides=overrides)
        assert finding_keys(plan, "blocker") == ["prometheus.unknown_stage"]
        return
    assert way("2.42.0", "latest", overrides=overrides) == hops


def test_other_components_can_ask_for_stops() -> None:
    stops = {"prometheus": ["2.53.5", "3.5.3", "9.0.0"], "loki": ["1.0.0"]}
    assert way("2.42.0", "3.13.2", stops=stops) == [
        f"prometheus@{version}" for version in ("2.53.5", "2.55.1", "3.5.3", "3.13.2")
    ]


def test_an_attempt_that_was_cut_off_is_left_for_another_version() -> None:
    record = {"state": "activated", "from_version": "1.5.0", "to_version": "1.9.0"}
    found = survey(
        {"node_exporter": facts("node_exporter", "1.9.0")},
        records={"node_exporter": record},
        unfinished={"node_exporter": "mixed"},
    )
    for wanted, hops in (("1.9.x", "1.9.0"), (">=1.5", "1.9.0"), ("latest", "1.11.1"), ("1.11.0", "1.11.0")):
        steps = drafted(found, {"node_exporter": wanted}, answers=LISTED)["steps"]
        assert [(step["from"], step["to"]) for step in steps.values()] == [("1.5.0", hops)]
