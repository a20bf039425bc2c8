# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import time
import typing as t

import pytest
from ansible.errors import AnsibleActionSkip, AnsibleError

DAY = 86400


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> pathlib.Path:
    """A cache with archives of 100 bytes that were used one and three days ago."""
    for kind in ("sha256", "lists", "locks"):
        (tmp_path / "cache" / kind).mkdir(parents=True)
    for name, days in (("a", 1), ("b", 3)):
        path = tmp_path / "cache" / "sha256" / (name * 64)
        path.write_bytes(b"x" * 100)
        os.utime(path, (time.time() - days * DAY,) * 2)
    return tmp_path / "cache"


def left(cache: pathlib.Path) -> str:
    return "".join(sorted(path.name[0] for path in (cache / "sha256").iterdir()))


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ({}, "ab"),
        ({"size": "0", "days": 0}, "ab"),
        ({"days": 2}, "a"),
        ({"days": "4"}, "ab"),
        ({"size": "150"}, "a"),
        ({"size": "1KB"}, "ab"),
        ({"size": 1}, ""),
    ],
)
def test_what_was_not_used_for_longest_goes(act: t.Any, cache: pathlib.Path, limits: t.Any, names: str) -> None:
    result = act("release_prune", cache_dir=str(cache), **limits)
    assert left(cache) == names
    assert (result["changed"], result["kept"], result["freed"]) == (
        names != "ab",
        100 * len(names),
        200 - 100 * len(names),
    )
    assert act.sent == []


def test_a_cache_that_is_not_there_is_small_enough(act: t.Any, tmp_path: pathlib.Path) -> None:
    assert act("release_prune", cache_dir=str(tmp_path / "none"), size="1")["changed"] is False


def test_what_can_not_be_removed_is_a_warning(act: t.Any, cache: pathlib.Path) -> None:
    (cache / "locks").rmdir()
    (cache / "locks").write_text("")
    result = act("release_prune", cache_dir=str(cache), size="1")
    assert (result["changed"], result.get("failed")) == (False, None)
    assert f"{cache}/locks/" in result["warnings"][0]
    assert left(cache) == "ab"


def test_in_check_mode_all_stays(act: t.Any, cache: pathlib.Path) -> None:
    with pytest.raises(AnsibleActionSkip):
        act("release_prune", cache_dir=str(cache), size="1", check=True)
    assert left(cache) == "ab"


def test_a_size_that_is_none_is_told(act: t.Any, cache: pathlib.Path) -> None:
    with pytest.raises(AnsibleError, match="'much' is no size: write a number of bytes, or a text like 10GB"):
        act("release_prune", cache_dir=str(cache), size="much")
    assert left(cache) == "ab"
