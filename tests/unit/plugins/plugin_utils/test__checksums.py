# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import hashlib

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError
from ansible_collections.observability.stack.plugins.plugin_utils import _checksums
from hypothesis import given
from hypothesis import strategies as st

A, B, C = "a" * 64, "b" * 64, "0123456789abcdef" * 4
NAME = "x-1.0.linux-amd64.tar.gz"
URL = "https://example.org/x/sha256sums.txt"
WHO = {"name": NAME, "component": "x", "version": "1.0", "architecture": "amd64"}
OTHER_NAMES = (f"{NAME}.sig", f"x{NAME}", NAME.upper(), f"dist/{NAME}", NAME.replace("amd64", "arm64"), f"../{NAME}")


@pytest.mark.parametrize(
    "listing",
    [
        f"{A}  {NAME}\n{B}  y\n",
        f"{B}  y\n{A} *{NAME}\n",
        f"{A.upper()}  ./{NAME}\r\n{B}  y\r\n",
        f"{A}\t{NAME}\n{B}\ty",
        f"\ufeff{A}  {NAME}\n\n# a comment\n{B}  y\n",
        f"SHA256 ({NAME}) = {A}\nSHA256 (y) = {B}\n",
        f"SHA256({NAME})= {A}\nSHA2-256(y)= {B}\n",
        f"MD5 ({NAME}) = {'c' * 32}\nSHA256 ({NAME}) = {A}\nSHA512 ({NAME}) = {'d' * 128}\nSHA256 (y) = {B}",
        f"{'c' * 128}  {NAME}\n{A}  {NAME}\n{B}  y\n",
        f"{A}  {NAME}\n{A}  {NAME}\n{B}  y\n",
        f"{B}  {NAME}.sig\n{A}  {NAME}\n{B}  dist/{NAME}\n",
        A,
        f"{A.upper()}\n",
        f"{A}  dist/grafana_12.4.3_1_linux_amd64.tar.gz\n",
        f"{A}  -\n",
    ],
)
def test_each_format_of_a_list_is_read(listing: str) -> None:
    assert _checksums.listed(listing, name=NAME, where=URL) == A


@pytest.mark.parametrize(
    "end", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r", "\0", "\ufeff"]
)
def test_a_line_ends_with_a_line_feed_and_with_nothing_else(end: str) -> None:
    """What another program takes for one line must not become two here, nor the other way round."""
    for listing in (
        f"{B}  y{end}{A}  {NAME}\n{B}  z\n",
        f"{B}  z\n{end}{A}  {NAME}\n",
        f"# {end}{A}  {NAME}\n{B}  z\n",
        f"{B}  z\n{A}  {NAME}{end}",
        f"{A}{end}",
        f"SHA256 (y{end}) = {B}\nSHA256 ({NAME}) = {A}\n",
    ):
        with pytest.raises(ReleaseError, match="a character that is not printable") as failure:
            _checksums.listed(listing, name=NAME, where=URL)
        assert failure.value.key == "release.checksum_list"


@pytest.mark.parametrize(
    "listing, key, why",
    [
        ("", "release.checksum_list", "is empty"),
        ("\n \n# nothing\n", "release.checksum_list", "is empty"),
        ("<!DOCTYPE html>\n<html>", "release.checksum_list", "its line 1 is '<!DOCTYPE html>'"),
        (f"{A}  {NAME}\nRate limit exceeded\n", "release.checksum_list", "its line 2"),
        (f"{'c' * 128}  {NAME}\n", "release.checksum_list", "no sha256"),
        (f"{'c' * 40}  {NAME}\n{'d' * 40}  y\n", "release.checksum_list", "no sha256"),
        (f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{A}  {NAME}\n", "release.checksum_list", "unverified"),
        (f"{A[:-1]}\n", "release.checksum_list", "its line 1"),
        (f"{A[:-1]}  {NAME}\n", "release.checksum_list", "its line 1"),
        (f"{A}0  {NAME}\n", "release.checksum_list", "its line 1"),
        (f"{A}g  {NAME}\n", "release.checksum_list", "its line 1"),
        (f"{A}  {NAME}\n{B}  {NAME}\n", "release.ambiguous_checksum", "2 different sha256"),
        (f"{A}  {NAME}\nSHA256 (./{NAME}) = {B}\n", "release.ambiguous_checksum", "2 different sha256"),
        (f"{A}\n{B}\n", "release.no_checksum", "has no sha256 for"),
        (f"{A}  y\n{B}  z\n", "release.no_checksum", "Is this version released for this architecture"),
        (hashlib.sha256().hexdigest(), "release.checksum_list", "of an empty file"),
    ],
)
def test_what_is_no_list_of_the_file_is_refused(listing: str, key: str, why: str) -> None:
    with pytest.raises(ReleaseError, match=why) as failure:
        _checksums.listed(listing, name=NAME, where=URL)
    assert failure.value.key == key
    assert str(failure.value).startswith(f"{URL} ")


@pytest.mark.parametrize("other", OTHER_NAMES)
def test_only_the_exact_name_counts(other: str) -> None:
    with pytest.raises(ReleaseError, match="has no sha256 for"):
        _checksums.listed(f"{A}  {other}\n{B}  y\n", name=NAME, where=URL)


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from([A, B, f"{A}  {NAME}", "x", "", "SHA256 (y) = ", C])).map("\n".join)
)
def test_any_text_gives_a_hash_that_is_in_it_or_an_error(text: str) -> None:
    try:
        found = _checksums.listed(text, name=NAME, where=URL)
    except ReleaseError:
        return
    assert found in text.lower()


def test_a_line_that_is_shown_is_short() -> None:
    with pytest.raises(ReleaseError) as failure:
        _checksums.listed("<" * 100_000, name=NAME, where=URL)
    assert len(str(failure.value)) < 300


# -- pins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pins, found",
    [
        ({}, None),
        ({NAME: A}, A),
        ({NAME: A.upper()}, A),
        ({"x/1.0/amd64": A}, A),
        ({NAME: A, "x/1.0/amd64": A.upper()}, A),
        ({"x/1.0/arm64": A, "y": B, "x/1.1/amd64": C}, None),
    ],
)
def test_a_pin_is_found_by_file_name_or_by_component(pins: dict[str, str], found: str | None) -> None:
    assert _checksums.pinned(pins, **WHO) == found


@pytest.mark.parametrize(
    "pins",
    [{NAME: A[:-1]}, {NAME: 5}, {NAME: None}, {NAME: f"sha256:{A}"}, {"x/1.0": A}, {"x/1.0/": A}, {"": A}, {1: A}],
)
def test_a_pin_that_is_none_is_refused_with_its_place(pins: dict[str, str]) -> None:
    with pytest.raises(InputError, match="upgrade_release_pins") as failure:
        _checksums.pinned(pins, **WHO)
    assert failure.value.key == "input.bad_pin"


def test_two_pins_of_one_file_must_be_the_same() -> None:
    with pytest.raises(InputError, match="keep the right one"):
        _checksums.pinned({NAME: A, "x/1.0/amd64": B}, **WHO)


def test_all_who_say_something_must_say_the_same() -> None:
    assert _checksums.agreed({URL: A, "upgrade_release_pins": A.upper(), "the manifest": None}, name=NAME) == A
    with pytest.raises(ReleaseError, match=f"{URL}: {A}; upgrade_release_pins: {B}") as failure:
        _checksums.agreed({URL: A, "upgrade_release_pins": B}, name=NAME)
    assert failure.value.key == "release.checksum_disagreement"
    with pytest.raises(ReleaseError, match="nothing says"):
        _checksums.agreed({URL: None}, name=NAME)
