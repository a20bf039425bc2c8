# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils._schema import (
    ANY,
    LINE,
    Fields,
    Flag,
    Items,
    MalformedError,
    Maybe,
    Names,
    Number,
    Text,
    VersionText,
)

NAME = Text(most=8, pattern=r"[a-z]+", cut=False)


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        (Text(), "one", "one"),
        (Text(), "a\nb\x1b]52;c;eA==\x07", "a\\nb\\x1b]52;c;eA==\\x07"),
        (Text(), "\u202ex\u2028\ud800\x9b\u200b", "\\u202ex\\u2028\\ud800\\x9b\\u200b"),
        (Text(lines=True), "a\nb\rc", "a\nb\\rc"),
        (Text(most=3), "a" * 10, "aaa... (10 characters)"),
        (Text(one_of=("a", "b")), "b", "b"),
        (NAME, "abc", "abc"),
        (VersionText(), "1.2.3", "1.2.3"),
        (VersionText(), "(devel)", "unknown"),
        (Number(), 3, 3),
        (Number(whole=False), 0.5, 0.5),
        (Flag(), False, False),
        (Maybe(Flag()), None, None),
        (Items(Number()), [1, 2], [1, 2]),
        (Names(NAME, Number()), {"a": 1}, {"a": 1}),
        (Fields({"a": Number()}), {}, {}),
        (Fields({"a": Number()}, more=True), {"b": {"c": "\x07"}}, {"b": {"c": "\\x07"}}),
        (ANY, {"a": [None, True, 1.5, "x\ty"]}, {"a": [None, True, 1.5, "x\\ty"]}),
    ],
)
def test_a_value_of_its_kind_is_taken_without_anything_unprintable(kind: t.Any, value: t.Any, taken: t.Any) -> None:
    assert kind.take(value, "place") == taken


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (Text(), 1, "place is a number instead of a text"),
        (Text(), None, "place is nothing instead of a text"),
        (Text(one_of=("a", "b")), "c", "place is 'c' instead of one of a, b"),
        (NAME, "../x", "place is '../x', which cannot be meant"),
        (NAME, "ab\n", "place is 'ab\\\\n', which cannot be meant"),
        (NAME, "a" * 9, "place has 9 characters instead of at most 8"),
        (VersionText(), ["1.2.3"], "place is a list instead of a text"),
        (Number(), True, "place is true or false instead of a whole number"),
        (Number(), 1.5, "place is a number instead of a whole number"),
        (Number(), -1, "place is '-1', which is not between 0 and"),
        (Number(whole=False), float("nan"), "place is 'nan', which is not between"),
        (Number(whole=False), float("inf"), "place is 'inf', which is not between"),
        (Number(), 10**30, "which is not between 0 and"),
        (Flag(), 1, "place is a number instead of true or false"),
        (Items(Flag()), {}, "place is a dictionary instead of a list"),
        (Items(Flag(), most=1), [True, True], "place has 2 items instead of at most 1"),
        (Items(Flag()), [True, 0], "place[1] is a number"),
        (Names(NAME, Flag()), {"A": True}, "the name 'A' is 'A', which cannot be meant"),
        (Names(NAME, Flag(), most=0), {"a": True}, "place has 1 keys instead of at most 0"),
        (Fields({"a": Flag()}), {"b": True}, "place.b is not a key that this module returns"),
        (Fields({"a": Flag()}, needed=("a",)), {}, "place.a is missing"),
        (Fields({"a": Flag(), "b": Flag()}, needed_with=((("a",), ("b",)),)), {"a": True}, "place.b is missing"),
        (ANY, {"__ansible_type": "TrustedAsTemplate"}, "place has the key '__ansible_type', which is reserved"),
        (ANY, float("nan"), "place is 'nan'"),
        (ANY, (1,), "place is tuple instead of a dictionary"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_place(kind: t.Any, value: t.Any, says: str) -> None:
    with pytest.raises(MalformedError) as failure:
        kind.take(value, "place")
    assert says in str(failure.value)


def test_what_is_refused_is_named_in_short_and_escaped() -> None:
    with pytest.raises(MalformedError) as failure:
        Fields({}).take({"\x1b[2J" + "x" * 10_000: 1}, "")
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) < 400


def test_values_are_not_nested_without_end() -> None:
    value: t.Any = 1
    for _level in range(500):
        value = [value]
    with pytest.raises(MalformedError, match="is nested too deeply"):
        ANY.take(value, "place")


def test_a_text_of_50_megabytes_costs_no_more_than_a_line() -> None:
    taken = Text().take("\x1b" * 50_000_000, "place")
    assert len(taken) < 5 * LINE
    assert taken.isprintable()
