# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The order of versions, and ranges of them.

The order is that of SemVer (https://semver.org/#spec-item-11), with two differences that real releases ask for:

- What follows a C(+) counts, as the last thing: 10.0.0 < 10.0.0+security-01 < 10.0.1. Grafana releases fixes so.
  What a distribution appended (C(+ds), C(-1+b4)) is no version of the program and doesn't count.
- Numbers count as numbers wherever they stand: 5.0.0-beta2 < 5.0.0-beta10.

C(packaging) orders the numbers of a release. It can't order the rest: to PEP 440 1.0.0-1 is newer than 1.0.0,
C(-test.2) is no version at all, and C(<3.0.0) holds no pre-release of 3.0.0.
"""

from __future__ import annotations

import contextlib
import functools
import re
import typing as t

from ..module_utils import _version
from ..module_utils._errors import InputError

# ansible-core needs packaging itself, so it is there. Only ansible-test's sanity tests import plugins without it.
with contextlib.suppress(ImportError):
    from packaging.version import Version as Numbers

_NUMBERS = r"\d{1,9}(?:\.\d{1,9}){0,3}"
_VERSION = re.compile(
    rf"(?P<numbers>{_NUMBERS})(?:-(?P<pre>[0-9A-Za-z][0-9A-Za-z.-]*)|(?P<short>(?:a|b|rc|alpha|beta|pre|dev)\d*))?"
    r"(?:\+(?P<build>[0-9A-Za-z.-]+))?",
    re.ASCII,
)
_LONGEST = 100
_LINE = re.compile(r"(?P<numbers>\d{1,9}(?:\.\d{1,9}){0,2})?(?P<any>(?:(?:^|\.)[xX*])+)", re.ASCII)
_TERM = re.compile(r"(?P<operator>>=|<=|==|!=|[<>=~^])?\s*(?P<version>[^\s,<>=!~^|]+)")
_IDENTIFIER = re.compile(r"\d+|[A-Za-z]+", re.ASCII)
_RELEASED = ((2, 0, ""),)
"""Stands where a pre-release has its identifiers, and comes after all of them."""


class VersionError(InputError):
    """A text is no version, or no range of versions."""

    default_key = "input.not_a_version"


class Version(t.NamedTuple):
    """A version as a value that can be compared, sorted, and used as a key."""

    numbers: Numbers
    pre: tuple[tuple[int, int, str], ...]
    build: tuple[tuple[int, int, str], ...]


_Test = t.Callable[[Version], bool]


def parse(text: str) -> Version:
    """A version's place in the order.

    :param text: at least two numbers, as in C(2.55), C(v1.2.3), C(3.0.0-rc.1) or C(2024.10.1).
    :raises VersionError: if it is none.
    """
    version = _parse(_plain(text))
    if version is None or len(version.numbers.release) < 2:
        raise VersionError(f"{text!r} is not a version; write one like '1.9.1' or '3.0.0-rc.1', in quotes")
    return version


def is_version(text: object) -> bool:
    """Whether a text is one exact version."""
    version = _parse(_plain(text))
    return version is not None and len(version.numbers.release) > 1


def compare(one: str, other: str) -> int:
    """Below 0 if the one is older than the other, above 0 if it is newer, 0 if they are the same version."""
    first, second = parse(one), parse(other)
    return (first > second) - (first < second)


def is_prerelease(text: str) -> bool:
    """Whether a version comes before the release of its numbers, as 3.0.0-rc.1 does.

    :raises VersionError: if it is none.
    """
    return parse(text).pre != _RELEASED


def change(here: str, there: str, *, zero_minor: str = "minor") -> str:
    """What a step from one version to another changes, in either direction.

    The answer is C(major), C(minor), C(patch) (the third or fourth number), C(prerelease) (same numbers), C(build)
    (only what follows a C(+)), or C(none).

    :param zero_minor: what a change of y in 0.y.z counts as, C(minor) or C(major): SemVer promises nothing below 1.0.
    :raises VersionError: if one of them is none.
    """
    one, other = parse(here), parse(there)
    first, second = _padded(one), _padded(other)
    if first[0] != second[0]:
        return "major"
    if first[1] != second[1]:
        return "minor" if first[0] else zero_minor
    if first != second:
        return "patch"
    if one.pre != other.pre:
        return "prerelease"
    return "none" if one == other else "build"


def is_range(text: object) -> bool:
    """Whether a text is a range of versions. One exact version is a range, too."""
    try:
        _range(_plain(text))
    except VersionError:
        return False
    return True


def matches(version: str, wanted: str) -> bool:
    """Whether a version is in a range.

    A range is C(>=2.55,<3) (comma or space: all of them), C(2.9.x || >=3.1) (one of them), a line of releases
    (C(2.9.x), C(2.9.*); C(~1.7.0): 1.7.0 and newer of 1.7; C(^2.9): 2.9 and newer of 2), one exact version, or C(*).

    Numbers left out are zeros. Pre-releases count where they stand in the order: C(<3) holds 3.0.0-rc.1, which comes
    before 3.0.0 (C(<3.0.0-0) doesn't). A line of releases never holds the pre-releases of the next one.

    :raises VersionError: if one of them is none.
    """
    return _matches(_plain(version), _plain(wanted))


def names_prerelease(wanted: str) -> bool:
    """Whether a range asks for pre-releases by naming one, as C(>=3.0.0-rc.1) does, and C(<3.0.0-0) doesn't.

    :raises VersionError: if it is no range.
    """
    text = _plain(wanted)
    _range(text)
    bounds = (_parse(term["version"]) for term in _TERM.finditer(text) if term["operator"] not in ("<", "<=", "!="))
    return any(bound is not None and bound.pre != _RELEASED for bound in bounds)


@functools.lru_cache(maxsize=65536)
def _matches(version: str, wanted: str) -> bool:
    place = parse(version)
    return any(all(test(place) for test in tests) for tests in _range(wanted))


def newest(versions: t.Iterable[str], wanted: str) -> str | None:
    """The newest of some versions that is in a range; None if none of them is."""
    return max((version for version in versions if matches(version, wanted)), key=parse, default=None)


def _plain(text: object) -> str:
    """The text itself, free of Ansible's tags, so that the caches below keep no template's data alive."""
    return str.__str__(text) if isinstance(text, str) else ""


@functools.lru_cache(maxsize=8192)
def _parse(text: str) -> Version | None:
    """A version of one number or more; a bound like C(<3) may have one."""
    found = _VERSION.fullmatch(_version.normalize(text)) if len(text) <= _LONGEST else None
    if found is None:
        return None
    pre = found["pre"] or found["short"]
    return Version(
        Numbers(found["numbers"]), _identifiers(pre) if pre else _RELEASED, _identifiers(found["build"] or "")
    )


def _identifiers(text: str) -> tuple[tuple[int, int, str], ...]:
    """Its numbers and words: a number comes before a word, and fewer of them before more."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in _IDENTIFIER.findall(text))


@functools.lru_cache(maxsize=1024)
def _range(text: str) -> tuple[tuple[_Test, ...], ...]:
    """Alternatives, each of tests that must all hold."""
    return tuple(_alternative(part.strip(" \t,"), text) for part in text.split("||"))


def _alternative(part: str, whole: str) -> tuple[_Test, ...]:
    tests, end = [], 0
    for term in _TERM.finditer(part):
        between = part[end : term.start()]
        if between.strip(" \t,") or (end and not between):
            break
        tests.append(_test(term["operator"] or "=", term["version"], whole))
        end = term.end()
    if not tests or part[end:]:
        raise _no_range(whole)
    return tuple(tests)


def _test(operator: str, text: str, whole: str) -> _Test:
    line = _LINE.fullmatch(text)
    if line:
        numbers = Numbers(line["numbers"]).release if line["numbers"] else ()
        if operator in ("=", "=="):
            return lambda version: _starts(version, numbers)
        if operator == "!=":
            return lambda version: not _starts(version, numbers)
        raise _no_range(whole)
    bound = _parse(text)
    if bound is None:
        raise _no_range(whole)
    if operator in "~^":
        kept = _kept(bound.numbers.release, operator)
        return lambda version: version >= bound and _starts(version, kept)
    return _COMPARISONS[operator](bound)


_COMPARISONS: dict[str, t.Callable[[Version], _Test]] = {
    "=": lambda bound: lambda version: version == bound,
    "==": lambda bound: lambda version: version == bound,
    "!=": lambda bound: lambda version: version != bound,
    ">": lambda bound: lambda version: version > bound,
    ">=": lambda bound: lambda version: version >= bound,
    "<": lambda bound: lambda version: version < bound,
    "<=": lambda bound: lambda version: version <= bound,
}


def _kept(numbers: tuple[int, ...], operator: str) -> tuple[int, ...]:
    """The leading numbers that a line of releases shares: C(~) keeps two, C(^) all up to the first that isn't zero."""
    if operator == "~":
        return numbers[:2]
    first = next((position for position, number in enumerate(numbers) if number), len(numbers) - 1)
    return numbers[: first + 1]


def _starts(version: Version, numbers: tuple[int, ...]) -> bool:
    """Whether a version begins with these numbers; what it leaves out is zero."""
    return _padded(version)[: len(numbers)] == numbers


def _padded(version: Version) -> tuple[int, ...]:
    """Its four numbers; what it leaves out is zero."""
    return (*version.numbers.release, 0, 0, 0)[:4]


def _no_range(text: str) -> VersionError:
    return VersionError(
        f"{text!r} is not a range of versions; write one like '>=2.55,<3', '2.9.x', '~1.7.0', '^2.9', "
        "'2.53.5 || >=2.55', an exact version, or '*'"
    )
