# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import datetime as dt
import typing as t

import pytest
import yaml
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _policy, _versions
from hypothesis import given, settings
from hypothesis import strategies as st

TODAY = dt.date(2026, 11, 21)
KNOWN = ("alertmanager", "grafana", "node_exporter", "prometheus", "promtail")

PROMETHEUS = [
    {"version": version, "date": date, "prerelease": early}
    for version, date, early in [
        ("2.53.5", "2025-06-30", False),
        ("2.55.1", "2024-11-04", False),
        ("3.0.0-rc.1", "2024-11-01", True),
        ("3.0.0", "2024-11-14", False),
        ("3.0.1", "2024-11-28", False),
        ("3.5.3", "2026-05-01", False),
        ("3.9.0", "2026-01-06", False),
        ("3.9.1", "2026-01-07", False),
        ("3.13.0", "2026-11-02", False),
        ("3.13.1", "2026-11-12", False),
        ("3.13.2", "2026-11-18", False),
        ("3.14.0-rc.0", "2026-11-20", True),
    ]
]


def rules(**variables: t.Any) -> _policy.Rules:
    unset = dict.fromkeys(("policy", "pins", "blacklist", "allow_downgrade"))
    return _policy.read(**{**unset, **variables}, known=KNOWN)


def about(name: str) -> dict[str, t.Any]:
    entry = _catalog.load()[name]
    return {"advisories": entry["advisories"], "last_release": entry["last_release"], "today": TODAY}


def against(
    version: str,
    here: str,
    *,
    name: str = "prometheus",
    date: str | None = "2026-01-01",
    exact: bool = True,
    prerelease: bool | None = None,
    **variables: t.Any,
) -> list[_policy.Refusal]:
    return _policy.refusals(
        name,
        version,
        here=here,
        date=date,
        rules=rules(**variables),
        exact=exact,
        prerelease=prerelease,
        **about(name),
    )


def keys(*arguments: str, **variables: t.Any) -> list[str]:
    return [refusal.key for refusal in against(*arguments, **variables)]


def choose(
    wanted: str,
    here: str,
    *,
    name: str = "prometheus",
    releases: list[dict[str, t.Any]] = PROMETHEUS,
    accepted: t.Collection[str] = (),
    **variables: t.Any,
) -> _policy.Choice:
    ruled = rules(**variables)
    return _policy.choose(name, wanted, here=here, releases=releases, rules=ruled, accepted=accepted, **about(name))


def versions(*texts: str) -> list[dict[str, t.Any]]:
    return [{"version": text, "date": None, "prerelease": False} for text in texts]


# -- what the operator writes -------------------------------------------------------------------------------------


def test_nothing_said_allows_everything() -> None:
    assert rules() == _policy.Rules({}, _policy.Policy("any", 0, 0, False, "minor"), {}, [], False)


def test_a_policy_inherits_from_the_default_one() -> None:
    ruled = rules(
        policy=yaml.safe_load("""
            default: {step: minor, min_age: 7}
            prometheus: any
            node_exporter: {max_age: 90, prereleases: yes, zero_minor: major}
            alertmanager: none
        """)
    )
    assert ruled.policy("prometheus") == _policy.Policy("any", 7, 0, False, "minor")
    assert ruled.policy("node_exporter") == _policy.Policy("minor", 7, 90, True, "major")
    assert ruled.policy("alertmanager").step == "none"
    assert ruled.policy("promtail") == _policy.Policy("minor", 7, 0, False, "minor")
    assert rules(policy={"default": "patch"}).policy("promtail").step == "patch"


@pytest.mark.parametrize("value, allowed", [(True, True), ("true", True), ("no", False), (None, False), (0, False)])
def test_downgrades_are_allowed_as_extra_vars_say_it(value: object, allowed: bool) -> None:
    assert rules(allow_downgrade=value).allow_downgrade is allowed


BAD = {"component": "prometheus", "versions": "3.7.x", "reason": "broken here"}


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"policy": "minor"}, "upgrade_policy is 'minor'; it must be a dictionary with components as keys"),
        ({"policy": {"promtehus": "any"}}, "upgrade_policy.promtehus is not a component .*; did you mean prometheus?"),
        ({"policy": {"zzz": "any"}}, "upgrade_policy.zzz is not a component .*; allowed are alertmanager, grafana, "),
        ({"policy": {3: "any"}}, "upgrade_policy.3 is not a component"),
        ({"policy": {"prometheus": "minr"}}, "upgrade_policy.prometheus.step is 'minr'; .* one of none, patch, minor"),
        ({"policy": {"prometheus": None}}, "upgrade_policy.prometheus is None; .*none, patch, minor, any, or a dict"),
        ({"policy": {"default": 3}}, "upgrade_policy.default is 3; it must be one of none"),
        (
            {"policy": {"prometheus": {"stpe": "any"}}},
            "upgrade_policy.prometheus.stpe is not a field; did you mean step?",
        ),
        ({"policy": {"default": {"step": None}}}, "upgrade_policy.default.step is None"),
        ({"policy": {"default": {"min_age": "7d"}}}, "upgrade_policy.default.min_age is '7d'; .* number of days"),
        ({"policy": {"default": {"min_age": -1}}}, "upgrade_policy.default.min_age is -1"),
        ({"policy": {"default": {"max_age": True}}}, "upgrade_policy.default.max_age is True"),
        (
            {"policy": {"default": {"prereleases": "some"}}},
            "upgrade_policy.default.prereleases is 'some'; .*true or fal",
        ),
        ({"policy": {"default": {"zero_minor": "any"}}}, "upgrade_policy.default.zero_minor is 'any'; .*minor, major"),
        ({"pins": ["prometheus"]}, r"upgrade_pins is \['prometheus'\]; it must be a dictionary"),
        ({"pins": {"prometheu": "2.x"}}, "upgrade_pins.prometheu is not a component .*; did you mean prometheus?"),
        ({"pins": {"prometheus": 2.55}}, "upgrade_pins.prometheus is 2.55; .* in quotes"),
        ({"pins": {"prometheus": "latest"}}, "upgrade_pins.prometheus is 'latest'"),
        ({"blacklist": BAD}, "upgrade_blacklist is {.*; it must be a list"),
        ({"blacklist": ["3.7.0"]}, r"upgrade_blacklist\[0\] is '3.7.0'; it must be a dictionary, like"),
        ({"blacklist": [BAD, {**BAD, "version": "1"}]}, r"upgrade_blacklist\[1\].version is not a field; .* versions?"),
        ({"blacklist": [{"component": "prometheus"}]}, r"upgrade_blacklist\[0\].versions is missing"),
        (
            {"blacklist": [{**BAD, "component": "prom"}]},
            r"upgrade_blacklist\[0\].component is 'prom', which is not a comp",
        ),
        ({"blacklist": [{**BAD, "versions": 3}]}, r"upgrade_blacklist\[0\].versions is 3; it must be a version"),
        ({"blacklist": [{**BAD, "reason": " "}]}, r"upgrade_blacklist\[0\].reason is ' '; it must be a text"),
        ({"blacklist": [{**BAD, "reference": 1}]}, r"upgrade_blacklist\[0\].reference is 1"),
        ({"allow_downgrade": "perhaps"}, "upgrade_allow_downgrade is 'perhaps'; it must be true or false"),
        ({"allow_downgrade": []}, r"upgrade_allow_downgrade is \[\]"),
    ],
)
def test_refused_data(variables: dict[str, t.Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rules(**variables)
    assert caught.value.key == "input.policy"
    assert "\n" not in str(caught.value)


# -- what speaks against a version --------------------------------------------------------------------------------

STEPS = [
    # step allowed, here, version, what refuses
    ("none", "2.55.0", "2.55.1", ["policy_step"]),
    ("none", "2.55.0", "2.55.0", []),
    ("none", "2.42.0+ds", "2.42.0", []),
    ("patch", "2.55.0", "2.55.1", []),
    ("patch", "3.14.0-rc.0", "3.14.0", []),
    ("patch", "10.0.0", "10.0.0+security-01", []),
    ("patch", "2.54.1", "2.55.1", ["policy_step"]),
    ("minor", "2.54.1", "2.55.1", []),
    ("minor", "2.55.1", "3.5.3", ["policy_step"]),
    ("any", "2.55.1", "3.5.3", []),
]


@pytest.mark.parametrize("step, here, version, refused", STEPS)
def test_step(step: str, here: str, version: str, refused: list[str]) -> None:
    assert keys(version, here, policy={"prometheus": step}) == refused


@pytest.mark.parametrize("zero_minor, refused", [("minor", []), ("major", ["policy_step"])])
def test_minor_steps_below_1_0(zero_minor: str, refused: list[str]) -> None:
    policy = {"default": "minor", "alertmanager": {"zero_minor": zero_minor}}
    assert keys("0.27.0", "0.26.0", name="alertmanager", policy=policy) == refused
    assert keys("0.26.1", "0.26.0", name="alertmanager", policy=policy) == []


@pytest.mark.parametrize(
    "version, here, variables, message, fix",
    [
        (
            *("3.5.3", "2.42.0", {"policy": {"prometheus": "minor"}}),
            "3.5.3 is a major step from 2.42.0, and upgrade_policy.prometheus allows minor",
            "allow it: upgrade_policy: {prometheus: any}; or accept prometheus.policy_step",
        ),
        (
            *("2.55.1", "2.54.1", {"policy": {"default": "none"}}),
            "2.55.1 is a minor step from 2.54.1, and upgrade_policy.default allows none",
            "allow it: upgrade_policy: {prometheus: minor}; or accept prometheus.policy_step",
        ),
        (
            *("3.13.2", "3.13.1", {"policy": {"default": {"min_age": 7}}, "date": "2026-11-18"}),
            "3.13.2 was released on 2026-11-18, and upgrade_policy.default has min_age 7",
            "wait 4 days; or accept prometheus.too_young",
        ),
        (
            *("3.13.2", "3.13.1", {"policy": {"default": {"min_age": 4}}, "date": "2026-11-18"}),
            "3.13.2 was released on 2026-11-18, and upgrade_policy.default has min_age 4",
            "wait a day; or accept prometheus.too_young",
        ),
        (
            *("3.13.2", "3.13.1", {"policy": {"prometheus": {"min_age": 7}}, "date": None}),
            "nobody says when 3.13.2 was released, and upgrade_policy.prometheus has min_age 7",
            "allow it: upgrade_policy: {prometheus: {min_age: 0}}; or accept prometheus.age_unknown",
        ),
        (
            *("3.5.3", "2.55.1", {"pins": {"prometheus": "2.x"}}),
            "upgrade_versions.prometheus is '3.5.3', but upgrade_pins.prometheus is '2.x'",
            "change upgrade_versions.prometheus or upgrade_pins.prometheus; or accept prometheus.pinned",
        ),
        (
            *("3.5.3", "2.55.1", {"pins": {"prometheus": "2.x"}, "exact": False}),
            "3.5.3 isn't in upgrade_pins.prometheus, which is '2.x'",
            "change upgrade_pins.prometheus; or accept prometheus.pinned",
        ),
        (
            *("3.5.3", "3.5.0", {"blacklist": [{**BAD, "versions": ">=3.5,<3.6", "reference": "OPS-17"}]}),
            "3.5.3 is in upgrade_blacklist[0], '>=3.5,<3.6': broken here (see OPS-17)",
            "wish for another version, or change upgrade_blacklist[0]; or accept prometheus.blacklisted",
        ),
        (
            *("3.13.0", "3.9.1", {}),
            "prometheus 3.13.0 is known to be bad: range queries can get samples of the wrong chunk",
            "wish for 3.13.1 or newer (see https://github.com/prometheus/prometheus/pull/19134); "
            "or accept prometheus.bad_version",
        ),
        (
            *("2.53.5", "2.55.1", {}),
            "2.53.5 is older than 2.55.1, which is in use",
            "to go back, use the playbook rollback: it restores what was proven on this host; "
            "or set upgrade_allow_downgrade: true; or accept prometheus.downgrade",
        ),
        (
            *("3.14.0-rc.0", "3.13.2", {"exact": False}),
            "3.14.0-rc.0 is a pre-release, and upgrade_policy.default doesn't allow them",
            "name it in upgrade_versions, or allow them: upgrade_policy: {prometheus: {prereleases: true}}; "
            "or accept prometheus.prerelease",
        ),
    ],
)
def test_messages(version: str, here: str, variables: dict[str, t.Any], message: str, fix: str) -> None:
    (refusal,) = against(version, here, **variables)
    assert (refusal.message, refusal.fix) == (message, fix)


def test_after_the_last_release() -> None:
    (refusal,) = against("3.7.0", "3.6.11", name="promtail")
    assert refusal.key == "end_of_life"
    assert refusal.message.startswith("promtail 3.7.0 was never released: 3.6.11 is the last. Promtail has reached")
    assert refusal.fix.startswith("wish for 3.6.11, or move to Grafana Alloy; ")
    assert keys("3.6.11", "3.5.0", name="promtail") == []


# component, bad, fixed in: what the shipped catalog must refuse, and what it must not
KNOWN_BAD = [
    ("prometheus", ["3.9.0"], "3.9.1"),
    ("prometheus", ["3.7.0", "3.7.1", "3.7.2"], "3.7.3"),
    ("prometheus", ["3.13.0"], "3.13.1"),
    ("prometheus", ["3.11.0"], "3.11.1"),
    ("prometheus", ["3.0.0"], "3.0.1"),
    ("prometheus", ["2.53.0"], "2.53.1"),
    ("prometheus", ["2.51.0", "2.51.1"], "2.51.2"),
    ("alertmanager", ["0.32.0", "0.32.1", "0.32.2"], "0.32.3"),
    ("alertmanager", ["0.33.0"], "0.33.1"),
    ("node_exporter", ["1.10.0", "1.10.1"], "1.10.2"),
    ("node_exporter", ["1.8.0"], "1.8.1"),
    ("grafana", ["8.2.0", "8.2.1"], "8.3.0"),
]


@pytest.mark.parametrize("name, bad, fixed_in", KNOWN_BAD)
def test_known_bad_versions(name: str, bad: list[str], fixed_in: str) -> None:
    for version in bad:
        assert keys(version, "0.1.0", name=name) == ["bad_version"]
    assert keys(fixed_in, "0.1.0", name=name) == []


def test_a_vulnerable_version_is_told_elsewhere() -> None:
    assert keys("3.8.1", "3.5.3") == []


def test_all_that_speaks_against_a_version_is_told() -> None:
    assert keys(
        "3.9.0",
        "2.55.1",
        policy={"prometheus": {"step": "minor", "min_age": 365}},
        pins={"prometheus": "2.x"},
        blacklist=[{**BAD, "versions": "3.9.x"}, {**BAD, "component": "grafana", "versions": "*"}],
    ) == ["pinned", "blacklisted", "bad_version", "policy_step", "too_young"]


@pytest.mark.parametrize(
    "version, here, variables, refused",
    [
        ("3.14.0-rc.0", "3.13.2", {"exact": True}, []),
        ("3.14.0-rc.0", "3.13.2", {"policy": {"prometheus": {"prereleases": True}}}, []),
        ("3.14.0-rc.1", "3.14.0-rc.0", {}, []),
        ("3.14.0-rc.0", "3.13.0-rc.0", {}, ["prerelease"]),
        ("3.14.0", "3.13.2", {"prerelease": True}, ["prerelease"]),
        ("3.14.0", "3.13.2", {"prerelease": False}, []),
        ("3.14.0-rc.0", "3.13.2", {"prerelease": False}, ["prerelease"]),
    ],
)
def test_prereleases(version: str, here: str, variables: dict[str, t.Any], refused: list[str]) -> None:
    assert keys(version, here, **{"exact": False, **variables}) == refused


def test_only_a_pin_speaks_against_staying() -> None:
    blacklist = [{**BAD, "versions": "*"}]
    assert keys("3.9.0", "3.9.0", blacklist=blacklist, policy={"default": "none"}) == []
    assert keys("3.9.0", "3.9.0", pins={"prometheus": "2.x"}) == ["pinned"]


def test_an_allowed_downgrade_keeps_to_the_other_rules() -> None:
    assert keys("2.55.1", "2.55.3", allow_downgrade=True) == []
    assert keys("2.53.0", "3.5.3", allow_downgrade=True, policy={"default": "minor"}) == ["bad_version", "policy_step"]


def test_a_date_that_is_none() -> None:
    with pytest.raises(InputError, match=r"prometheus 3\.5\.3 was released on 'soon', which is no date"):
        against("3.5.3", "3.5.0", date="soon", policy={"default": {"min_age": 1}})


@pytest.mark.parametrize(
    "date, max_age, days",
    [
        ("2026-08-01", 90, 22),
        ("2026-08-23", 90, None),
        ("2026-08-22", 90, 1),
        ("2026-08-01", 0, None),
        (None, 90, None),
        ("2027-01-01", 90, None),
    ],
)
def test_overdue(date: str | None, max_age: int, days: int | None) -> None:
    assert _policy.overdue(date, _policy.Policy(max_age=max_age), TODAY) == days


# -- which version to take ----------------------------------------------------------------------------------------

CHOICES = [
    # wanted, here, variables, version, refused
    ("latest", "3.5.3", {}, "3.13.2", ["3.14.0-rc.0 prerelease"]),
    (
        *("latest", "3.5.3", {"policy": {"default": {"min_age": 7}}}, "3.13.1"),
        ["3.14.0-rc.0 prerelease", "3.13.2 too_young"],
    ),
    (
        *("latest", "3.5.3", {"policy": {"default": {"min_age": 10}}}, "3.9.1"),
        ["3.14.0-rc.0 prerelease", "3.13.2 too_young", "3.13.1 too_young", "3.13.0 bad_version"],
    ),
    ("<=3.13.0", "3.5.3", {}, "3.9.1", ["3.13.0 bad_version"]),
    ("latest", "3.13.2", {}, "3.13.2", ["3.14.0-rc.0 prerelease"]),
    ("latest", "3.13.3", {}, "3.13.3", ["3.14.0-rc.0 prerelease"]),
    ("latest", "3.14.0-alpha.0", {}, "3.14.0-rc.0", []),
    ("latest", "3.13.2", {"policy": {"prometheus": {"prereleases": True}}}, "3.14.0-rc.0", []),
    (">=3.14.0-rc.0", "3.13.2", {}, "3.14.0-rc.0", []),
    ("3.x", "3.13.2", {}, "3.13.2", ["3.14.0-rc.0 prerelease"]),
    ("3.0.x", "2.55.1", {}, "3.0.1", []),
    ("2.x", "2.55.1", {}, "2.55.1", []),
    ("2.x", "2.55.1+ds", {}, "2.55.1+ds", []),
    ("2.x", "2.42.0+ds", {}, "2.55.1", []),
    ("<3", "2.55.1", {}, "2.55.1", ["3.0.0-rc.1 prerelease"]),
    ("latest", "2.55.1", {"policy": {"default": "minor"}}, "2.55.1", None),
    ("latest", "2.42.0", {"pins": {"prometheus": "2.53.x"}}, "2.53.5", None),
    ("latest", "2.53.5", {"pins": {"prometheus": "2.53.5"}}, "2.53.5", None),
    ("latest", "3.13.1", {"pins": {"prometheus": "3.14.0-rc.0"}}, "3.14.0-rc.0", []),
    # what is in use isn't in the wish, and all that is there is older
    ("2.x", "3.5.3", {}, None, ["2.55.1 downgrade"]),
    ("2.x", "3.5.3", {"allow_downgrade": True}, "2.55.1", []),
    ("2.x", "3.5.3", {"accepted": ["downgrade"]}, "2.55.1", []),
    ("<=3.13.0", "3.13.1", {"allow_downgrade": True}, "3.9.1", []),
    # an allowed downgrade isn't made without need
    ("latest", "3.13.3", {"allow_downgrade": True}, "3.13.3", ["3.14.0-rc.0 prerelease"]),
    # a pin that leads nowhere
    ("latest", "3.13.2", {"pins": {"prometheus": "2.x"}}, None, ["3.13.2 pinned", "3.14.0-rc.0 pinned"]),
    ("2.x", "3.13.2", {"pins": {"prometheus": "2.53.x"}}, None, ["3.13.2 pinned"]),
    ("latest", "3.13.2", {"pins": {"prometheus": "2.x"}, "allow_downgrade": True}, "2.55.1", None),
    ("latest", "3.13.2", {"pins": {"prometheus": "2.x"}, "accepted": ["pinned"]}, "3.13.2", None),
    # the wish and the pin don't overlap, though what is in use is in the pin
    ("3.13.x", "2.55.1", {"pins": {"prometheus": "2.x"}}, None, ["3.13.2 pinned", "3.13.1 pinned", "3.13.0 pinned"]),
    ("3.0.0-rc.1 || 2.51.0", "3.5.3", {"allow_downgrade": True, "pins": {"prometheus": "3.x"}}, "3.0.0-rc.1", []),
    ("3.13.0", "3.13.1", {"allow_downgrade": True}, None, ["3.13.0 bad_version"]),
    # nothing there
    ("4.x", "3.13.2", {}, None, []),
    # what the operator accepts
    ("<=3.13.0", "3.5.3", {"accepted": ["bad_version"]}, "3.13.0", []),
]


@pytest.mark.parametrize("wanted, here, variables, version, refused", CHOICES)
def test_choose(
    wanted: str, here: str, variables: dict[str, t.Any], version: str | None, refused: list[str] | None
) -> None:
    choice = choose(wanted, here, **variables)
    assert choice.version == version
    if refused is not None:
        assert [f"{candidate} {refusal.key}" for candidate, refusal in choice.refused] == refused


def test_a_pin_that_leads_nowhere_says_so_first() -> None:
    (_here, reason), *_others = choose("latest", "3.13.2", pins={"prometheus": "2.x"}).refused
    assert reason == _policy.Refusal(
        "pinned",
        "upgrade_pins.prometheus is '2.x', and no known release in it is 3.13.2, which is in use, or newer",
        "change upgrade_pins.prometheus; or accept prometheus.pinned",
    )


def test_a_security_build_is_taken_and_a_repackaging_is_none() -> None:
    releases = versions("10.0.0", "10.0.0+security-01")
    assert choose("10.x", "10.0.0", name="grafana", releases=releases, policy={"default": "patch"}) == (
        "10.0.0+security-01",
        [],
    )
    assert choose("latest", "2.42.0+ds", releases=versions("2.42.0")) == ("2.42.0+ds", [])


def test_the_last_release_is_the_newest() -> None:
    choice = choose("latest", "3.5.0", name="promtail", releases=versions("3.6.11", "3.7.3"))
    assert choice.version == "3.6.11"
    assert [refusal.key for _version, refusal in choice.refused] == ["end_of_life"]


# -- properties ---------------------------------------------------------------------------------------------------

VERSIONS = st.builds(
    "{}.{}.{}{}".format,
    *(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from(["", "", "", "-rc.1", "-rc.2", "+security-01"]),
)
RANGES = st.one_of(
    VERSIONS,
    st.sampled_from(["*", "0.x", "1.x", "2.1.x", "^1.1", "~1.2.0", "<3.0.0-0", ">=2.0.0-rc.1"]),
    VERSIONS.map(lambda version: f">={version}"),
    VERSIONS.map(lambda version: f"<={version}"),
)
DATES = st.none() | st.dates(dt.date(2026, 10, 1), dt.date(2026, 12, 1)).map(str)
RELEASES = st.lists(
    st.fixed_dictionaries({"version": VERSIONS, "date": DATES, "prerelease": st.booleans()}),
    max_size=8,
    unique_by=lambda release: _versions.parse(release["version"]),
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "step": st.sampled_from(list(_policy.STEPS)),
        "min_age": st.sampled_from([0, 1, 7, 30]),
        "prereleases": st.booleans(),
        "zero_minor": st.sampled_from(["minor", "major"]),
    },
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "policy": st.fixed_dictionaries({}, optional={"default": POLICIES, "prometheus": POLICIES}),
        "pins": st.fixed_dictionaries({}, optional={"prometheus": RANGES}),
        "blacklist": st.lists(RANGES.map(lambda wanted: {**BAD, "versions": wanted}), max_size=2),
        "allow_downgrade": st.booleans(),
    },
)
ADVISORIES = st.lists(
    st.fixed_dictionaries({"versions": RANGES, "kind": st.sampled_from(["bad", "vulnerable"]), "reason": st.just("x")}),
    max_size=2,
)


@settings(deadline=None, max_examples=300)
@given(st.just("latest") | RANGES, VERSIONS, RELEASES, RULES, ADVISORIES)
def test_the_choice_keeps_all_rules_and_is_the_newest_that_does(
    wanted: str, here: str, releases: list[dict[str, t.Any]], variables: dict[str, t.Any], advisories: list[t.Any]
) -> None:
    ruled = rules(**variables)
    fixed: dict[str, t.Any] = {"rules": ruled, "advisories": advisories, "last_release": None, "today": TODAY}
    text = "*" if wanted == "latest" else wanted
    choice = _policy.choose("prometheus", wanted, here=here, releases=releases, **fixed)
    asked = any(_versions.names_prerelease(wish) for wish in (text, ruled.pins.get("prometheus", "*")))

    def passes(release: dict[str, t.Any]) -> bool:
        found = _policy.refusals("prometheus", **release, here=here, exact=False, **fixed)
        return all(asked and refusal.key == "prerelease" for refusal in found)

    passing = [
        release["version"]
        for release in [{"version": here, "date": None, "prerelease": None}, *releases]
        if _versions.matches(release["version"], text) and passes(release)
    ]
    newer = [version for version in passing if _versions.compare(version, here) >= 0]
    best = _versions.newest(newer, "*") or _versions.newest(passing, "*")
    assert (choice.version is None) is (best is None)
    assert choice.version is None or _versions.compare(choice.version, best or "") == 0
    for version, _refusal in choice.refused if choice.version else []:
        assert _versions.compare(version, choice.version) > 0
    if choice.version is None and any(_versions.matches(release["version"], text) for release in releases):
        assert choice.refused


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | VERSIONS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["default", "prometheus", "step", "min_age", "component", "versions", "reason"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING, st.text() | RANGES, st.text() | VERSIONS, st.text() | DATES)
def test_any_data_is_understood_or_refused(
    policy: object, pins: object, blacklist: object, downgrade: object, wanted: str, version: str, date: str | None
) -> None:
    for given_ in ({"policy": policy}, {"pins": pins}, {"blacklist": blacklist}, {"allow_downgrade": downgrade}):
        with contextlib.suppress(InputError):
            rules(**given_)
    releases = [{"version": version, "date": date, "prerelease": False}]
    with contextlib.suppress(InputError):
        choose(wanted, "0.0.1", releases=releases, policy={"default": {"min_age": 36500}})
    with contextlib.suppress(InputError):
        choose("latest", version, releases=PROMETHEUS)
