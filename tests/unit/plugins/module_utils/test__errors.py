# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import (
    HostError,
    InputError,
    UpgradeError,
    shown,
)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("upgrade_pins: 'café' is no component", "upgrade_pins: 'café' is no component"),
        ("upgrade_overrides.\n: no dictionary", r"upgrade_overrides.\n: no dictionary"),
        ("a\r\n\x1b[31mb\u2028c", r"a\r\n\x1b[31mb\u2028c"),
        ("half of \udc80 a character", r"half of \udc80 a character"),
    ],
)
def test_an_error_is_one_line_that_a_terminal_can_show(message: str, told: str) -> None:
    assert str(UpgradeError(message)) == told
    assert str(InputError(f"h1: {InputError(message)}")) == f"h1: {told}"


def test_an_error_has_a_key_of_its_kind_unless_it_has_its_own() -> None:
    assert (HostError("x").key, HostError("x", key="unit.failed").key) == ("host.failed", "unit.failed")
    assert HostError("x", details={"rc": 1}).details == {"rc": 1}


@pytest.mark.parametrize(
    "character",
    [
        *map(chr, range(0x20)),
        *map(chr, range(0x7F, 0xA1)),
        *"\u200e\u200f\u061c\u200b\ufeff\u2028\u2029\u202a\u202e\u2066\u2069\ud800\U000e0001",
    ],
)
def test_what_is_not_printable_is_escaped(character: str) -> None:
    told = shown(f"a{character}b")
    assert told == f"a{repr(character)[1:-1]}b"
    assert told.isprintable()
    assert shown(told) == told


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert shown("\x00" * 10, most=2) == "\\x00\\x00... (10 characters)"
    assert shown("a\nb\r", lines=True) == "a\nb\\r"
