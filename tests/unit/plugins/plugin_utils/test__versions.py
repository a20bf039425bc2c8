# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _version
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _versions
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version as PackagingVersion

# Each comes before the next one.
IN_ORDER = [
    "0.9.0",
    "0.10.0",
    "1.0.0-0",
    "1.0.0-1",
    "1.0.0-71127",
    "1.0.0-SNAPSHOT",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.0",
    "1.0.0-beta2",
    "1.0.0-beta.10",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.0.1",
    "1.0.1",
    "1.2.3-test.2",
    "1.2.3",
    "2.54.0",
    "2.54.0+dedupelabels",
    "2.54.1",
    "3.0.0-rc.1",
    "3.0.0-rc.10",
    "3.0.0",
    "10.0.0",
    "10.0.0+security-01",
    "10.0.0+security-02",
    "10.0.0+security-10",
    "10.0.1",
    "2024.10.1",
    "2024.11.0",
]

THE_SAME = [
    ("v1.2.3", "1.2.3"),
    ("V1.2.3", "1.2.3"),
    (" 1.2.3 ", "1.2.3"),
    ("1.2", "1.2.0"),
    ("2.42.0+ds", "2.42.0"),
    ("2.42.0+ds1", "2.42.0"),
    ("2.42.0+ds-5+deb12u1", "2.42.0"),
    ("0.25.0-1+b4", "0.25.0"),
    ("0.25.0-1ubuntu1", "0.25.0"),
    ("3.0.0-rc1", "3.0.0-rc.1"),
    ("3.0.0rc1", "3.0.0-rc.1"),
]

NO_VERSIONS: list[object] = [
    *(
        "banana",
        "",
        " ",
        "3",
        "v3",
        "1.",
        ".1",
        "1..2",
        "1.2.3.4.5",
        "1.2.3-",
        "1.2.3+",
        "1.2.3 4",
        "2.9.x",
        "1.2.3foo",
    ),
    *(
        "latest",
        "unknown",
        "*",
        ">=1.2",
        "1.2.3\n4",
        "\u0661.\u0662.\u0663",
        "0.25.0~rc1",
        "1." + "9" * 5000,
        "1.0.0-" + "9" * 5000,
    ),
    *(None, 1, 2.55, True, ["1.2.3"], {"1.2": 3}),
]

RANGES = [
    # wanted, versions in it, versions outside it
    ("2.55.1", ["2.55.1", "v2.55.1"], ["2.55.0", "2.55.1-rc.0", "2.55.1+security-01"]),
    ("=2.55.1", ["2.55.1"], ["2.55.0"]),
    ("==2.55.1", ["2.55.1"], ["2.55.0"]),
    ("!=2.55.1", ["2.55.0"], ["2.55.1"]),
    ("2.55", ["2.55.0"], ["2.55.1"]),
    (">2.55", ["2.55.1"], ["2.55.0"]),
    ("<=2.55.0", ["2.55.0", "2.55.0-rc.1"], ["2.55.0+security-01", "2.55.1"]),
    (">10.0.0", ["10.0.0+security-01"], ["10.0.0"]),
    (">=2.55,<3", ["2.55.0", "2.99.0", "3.0.0-rc.1"], ["2.54.1", "3.0.0", "2.55.0-rc.0"]),
    (">=2.55,<3.0.0-0", ["2.99.0"], ["3.0.0-rc.1", "3.0.0-beta.0"]),
    (">=2.55 <3", ["2.55.0"], ["3.0.0"]),
    (" >= 2.55 , < 3 ", ["2.55.0"], ["3.0.0"]),
    (">=2.49,!=2.51.0", ["2.49.0", "3.1.0"], ["2.51.0"]),
    ("2.53.5 || >=2.55", ["2.53.5", "2.55.0"], ["2.53.4", "2.54.1"]),
    (">=2.53.5,<2.54||>=2.55", ["2.53.6", "2.55.0"], ["2.54.0"]),
    ("2.9.x", ["2.9.0", "2.9.17", "2.9.0-rc.1"], ["2.10.0", "2.8.9", "2.10.0-rc.1"]),
    ("2.9.X", ["2.9.1"], ["2.10.0"]),
    ("2.49.*", ["2.49.1"], ["2.50.0"]),
    ("==2.49.*", ["2.49.1"], ["2.50.0"]),
    ("!=2.49.*", ["2.50.0"], ["2.49.1"]),
    ("3.x.x", ["3.0.0", "3.14.0"], ["2.55.1", "4.0.0"]),
    ("3.x", ["3.14.0"], ["4.0.0"]),
    ("~1.7.0", ["1.7.0", "1.7.9"], ["1.8.0", "1.8.0-rc.1", "1.6.9", "1.7.0-rc.1"]),
    ("~1.7", ["1.7.9"], ["1.8.0"]),
    ("~ 10.4", ["10.4.13"], ["10.5.0"]),
    ("~1", ["1.9.0"], ["2.0.0"]),
    ("^2.9", ["2.9.0", "2.55.1"], ["3.0.0", "3.0.0-rc.1", "2.8.9"]),
    ("^0.9.1", ["0.9.5"], ["0.10.0", "0.9.0"]),
    ("^0.0.3", ["0.0.3"], ["0.0.4"]),
    ("^0", ["0.27.0"], ["1.0.0"]),
    ("*", ["0.1.0", "3.0.0-rc.1"], []),
]

NO_RANGES: list[object] = [
    *("", " ", ",", "||", ">=1 ||", "|| >=1", ">", ">=", ">=banana", "banana", "latest", ">=2.55<3", ">=2.x", "~1.7.x"),
    *("^*", "1.2.3 - 2.0", "=>1.2", ">>1", "2.9.x.y", "x.2", "1.x.2", ">=1.2;<3", "(>=1)", ">= 1.2, oops"),
    *(None, 3, 2.9, True, [">=1"], {}),
]


@pytest.mark.parametrize("older, newer", list(itertools.combinations(IN_ORDER, 2)))
def test_order(older: str, newer: str) -> None:
    assert _versions.compare(older, newer) == -1
    assert _versions.compare(newer, older) == 1


@pytest.mark.parametrize("text", IN_ORDER)
def test_equal_to_itself(text: str) -> None:
    assert _versions.is_version(text)
    assert _versions.compare(text, text) == 0


@pytest.mark.parametrize("one, other", THE_SAME)
def test_the_same(one: str, other: str) -> None:
    assert _versions.compare(one, other) == 0
    assert hash(_versions.parse(one)) == hash(_versions.parse(other))


@pytest.mark.parametrize("text", NO_VERSIONS, ids=lambda text: repr(text)[:30])
def test_no_version(text: object) -> None:
    assert not _versions.is_version(text)
    with pytest.raises(_versions.VersionError, match=r"is not a version; write one like '1\.9\.1'") as caught:
        _versions.parse(text)  # type: ignore[arg-type]
    assert caught.value.key == "input.not_a_version"
    assert isinstance(caught.value, InputError)


def test_error_names_the_text() -> None:
    with pytest.raises(_versions.VersionError, match=r"'banana'.*'1\.9\.1'"):
        _versions.compare("1.0.0", "banana")


@pytest.mark.parametrize(
    "wanted, version, expected",
    [(wanted, version, True) for wanted, inside, _outside in RANGES for version in inside]
    + [(wanted, version, False) for wanted, _inside, outside in RANGES for version in outside],
)
def test_matches(wanted: str, version: str, expected: bool) -> None:
    assert _versions.is_range(wanted)
    assert _versions.matches(version, wanted) is expected


# Versions and ranges as projects, distributions and operators really write them.
REAL = [
    # text, is a version, is a pre-release, a version in it as a range
    ("2.42.0+ds", True, False, "2.42.0"),
    ("3.0.0-rc.1", True, True, "3.0.0-rc.1"),
    ("v1.2.3", True, False, "1.2.3"),
    ("10.0.0+security-01", True, False, "10.0.0+security-01"),
    ("2.9.x", False, None, "2.9.17"),
    (">=0.26.0,<1", False, None, "0.28.1"),
    ("3.x.x", False, None, "3.14.0"),
    ("2024.10.1", True, False, "2024.10.1"),
]


@pytest.mark.parametrize("text, version, prerelease, inside", REAL)
def test_real_texts(text: str, version: bool, prerelease: bool | None, inside: str) -> None:
    assert _versions.is_version(text) is version
    assert _versions.is_range(text)
    assert _versions.matches(inside, text)
    if version:
        assert _versions.is_prerelease(text) is prerelease
    else:
        with pytest.raises(_versions.VersionError):
            _versions.is_prerelease(text)


CHANGES = [
    ("2.42.0", "3.5.3", "major"),
    ("2.54.1", "2.55.0", "minor"),
    ("2.55.0", "2.55.1", "patch"),
    ("1.0.0", "1.0.0.1", "patch"),
    ("3.0.0-rc.1", "3.0.0", "prerelease"),
    ("3.0.0-rc.1", "3.0.0-rc.2", "prerelease"),
    ("3.0.0-rc.1+build.5", "3.0.0", "prerelease"),
    ("2.55.1", "3.0.0-rc.1", "major"),
    ("10.0.0", "10.0.0+security-01", "build"),
    ("2.42.0+ds", "2.42.0", "none"),
    ("v1.2", "1.2.0", "none"),
    ("0.26.0", "0.27.0", "minor"),
    ("0.26.0", "0.26.1", "patch"),
    ("0.26.0", "1.0.0", "major"),
    ("2024.10.1", "2024.11.0", "minor"),
]


@pytest.mark.parametrize("here, there, kind", CHANGES)
def test_change(here: str, there: str, kind: str) -> None:
    for pair in ((here, there), (there, here)):
        assert _versions.change(*pair) == kind


@pytest.mark.parametrize(
    "here, there, kind",
    [
        ("0.26.0", "0.27.0", "major"),
        ("0.26.0", "0.26.1", "patch"),
        ("0.26.0-rc.1", "0.26.0", "prerelease"),
        ("1.26.0", "1.27.0", "minor"),
    ],
)
def test_change_where_minors_below_1_0_break(here: str, there: str, kind: str) -> None:
    assert _versions.change(here, there, zero_minor="major") == kind


@pytest.mark.parametrize(
    "wanted, names",
    [
        (">=3.0.0-rc.1", True),
        ("3.0.0-rc.1", True),
        ("~1.7.0-rc.0", True),
        ("2.55.1 || ^3.0.0-beta.0", True),
        (">=2.55,<3.0.0-0", False),
        (">=2.55,!=3.0.0-rc.1", False),
        ("<=3.0.0-rc.1", False),
        (">=2.55,<3", False),
        ("2.9.x", False),
        ("10.0.0+security-01", False),
        ("*", False),
    ],
)
def test_names_prerelease(wanted: str, names: bool) -> None:
    assert _versions.names_prerelease(wanted) is names


@pytest.mark.parametrize("text", NO_RANGES, ids=repr)
def test_no_range(text: object) -> None:
    assert not _versions.is_range(text)
    with pytest.raises(_versions.VersionError, match=r"is not a range of versions; write one like '>=2\.55,<3'"):
        _versions.matches("1.2.3", text)  # type: ignore[arg-type]


def test_a_version_of_nobody_matches_nothing() -> None:
    with pytest.raises(_versions.VersionError, match="'unknown' is not a version"):
        _versions.matches("unknown", "*")


@pytest.mark.parametrize(
    "versions, wanted, expected",
    [
        (["2.53.5", "2.55.1", "3.1.0"], ">=2.55,<3", "2.55.1"),
        (["2.9.9", "2.9.17", "2.10.0"], "2.9.x", "2.9.17"),
        (["10.0.0+security-01", "10.0.0"], "<10.0.1", "10.0.0+security-01"),
        (["v1.2.3"], "*", "v1.2.3"),
        (["1.2.3"], ">2", None),
        ([], "*", None),
    ],
)
def test_newest(versions: list[str], wanted: str, expected: str | None) -> None:
    assert _versions.newest(versions, wanted) == expected


# -- properties ---------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.integers(0, 30), min_size=2, max_size=4).map(lambda numbers: ".".join(map(str, numbers)))
IDENTIFIERS = st.lists(
    st.sampled_from(["alpha", "beta", "rc", "rc1", "SNAPSHOT", "0", "1", "2", "10", "71127"]), min_size=1, max_size=3
).map(".".join)
BUILDS = st.sampled_from(["", "+security-01", "+security-2", "+build.5", "+dedupelabels", "+ds"])
VERSIONS = st.builds("{}{}{}".format, NUMBERS, st.one_of(st.just(""), IDENTIFIERS.map(lambda text: f"-{text}")), BUILDS)


@given(VERSIONS, VERSIONS)
def test_order_is_antisymmetric(one: str, other: str) -> None:
    assert _versions.compare(one, other) == -_versions.compare(*reversed([one, other]))


@given(VERSIONS, VERSIONS, VERSIONS)
def test_order_is_transitive(one: str, other: str, third: str) -> None:
    low, middle, high = sorted([one, other, third], key=_versions.parse)
    assert _versions.compare(low, middle) <= 0
    assert _versions.compare(middle, high) <= 0
    assert _versions.compare(low, high) <= 0


@given(VERSIONS)
def test_normalize_is_idempotent_and_keeps_the_order(text: str) -> None:
    normal = _version.normalize(text)
    assert _version.normalize(normal) == normal
    assert _versions.compare(text, normal) == 0


@given(NUMBERS, NUMBERS)
def test_agrees_with_packaging_on_releases(one: str, other: str) -> None:
    first, second = PackagingVersion(one), PackagingVersion(other)
    assert _versions.compare(one, other) == (first > second) - (first < second)


@given(NUMBERS, st.integers(0, 40))
def test_agrees_with_packaging_on_candidates(numbers: str, number: int) -> None:
    later = PackagingVersion(f"{numbers}rc{number + 1}")
    assert later > PackagingVersion(f"{numbers}rc{number}")
    assert _versions.compare(f"{numbers}-rc.{number + 1}", f"{numbers}-rc.{number}") == 1


@given(VERSIONS, VERSIONS)
def test_bounds_agree_with_the_order(version: str, bound: str) -> None:
    order = _versions.compare(version, bound)
    assert _versions.matches(version, f">={bound}") is (order >= 0)
    assert _versions.matches(version, f">{bound}") is (order > 0)
    assert _versions.matches(version, f"<={bound}") is (order <= 0)
    assert _versions.matches(version, f"<{bound}") is (order < 0)
    assert _versions.matches(version, f"={bound}") is (order == 0)
    assert _versions.matches(version, f"<{bound} || >={bound}")
    assert not _versions.matches(version, f"<{bound},>={bound}")


@given(VERSIONS, VERSIONS)
def test_order_is_total(one: str, other: str) -> None:
    first, second = _versions.parse(one), _versions.parse(other)
    assert (first < second) + (first == second) + (first > second) == 1


PLAIN_VERSIONS = st.builds(
    "{}{}".format,
    NUMBERS,
    st.sampled_from(["", "-rc.1", "-rc.2", "-rc.10", "-alpha.1", "-beta.1", "-beta.2"]),
)
"""Versions that packaging understands as well, without what it calls post-releases and local versions."""


@given(PLAIN_VERSIONS, PLAIN_VERSIONS)
def test_agrees_with_packaging_where_it_understands_both(one: str, other: str) -> None:
    first, second = PackagingVersion(one), PackagingVersion(other)
    assert _versions.compare(one, other) == (first > second) - (first < second)


@given(VERSIONS)
def test_repackaging_is_not_newer_and_a_security_build_is(version: str) -> None:
    plain = version.partition("+")[0]
    for suffix in ("+ds", "+ds1", "+dfsg2", "+ds-5+deb12u1"):
        assert _versions.compare(plain + suffix, plain) == 0
        assert _versions.change(plain, plain + suffix) == "none"
    assert _versions.compare(f"{plain}+security-01", plain) == 1
    assert _versions.change(plain, f"{plain}+security-01") == "build"


@given(VERSIONS, VERSIONS)
def test_change_is_none_where_the_order_is_equal(one: str, other: str) -> None:
    assert _versions.change(one, other) == _versions.change(other, one)
    assert (_versions.change(one, other) == "none") is (_versions.compare(one, other) == 0)


@given(st.lists(VERSIONS, max_size=8), VERSIONS)
def test_newest_is_the_newest(versions: list[str], bound: str) -> None:
    found = _versions.newest(versions, f"<={bound}")
    inside = [version for version in versions if _versions.compare(version, bound) <= 0]
    assert (found is None) is (not inside)
    assert all(_versions.compare(found, version) >= 0 for version in inside if found is not None)


@given(st.one_of(st.text(max_size=40), st.text(alphabet="0123456789.xX*-+<>=!~^|, vrc", max_size=40)))
def test_any_text_is_understood_or_refused(text: str) -> None:
    if _versions.is_version(text):
        assert _versions.compare(text, text) == 0
    else:
        with pytest.raises(_versions.VersionError):
            _versions.parse(text)
    if _versions.is_range(text):
        assert _versions.matches("1.2.3", text) in (True, False)
        assert _versions.names_prerelease(text) in (True, False)
    else:
        with pytest.raises(_versions.VersionError):
            _versions.matches("1.2.3", text)
