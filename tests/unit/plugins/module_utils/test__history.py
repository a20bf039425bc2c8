# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _history
from hypothesis import given
from hypothesis import strategies as st

Line = list[_history.Archive]


def line(number: int, *, base: str | None = None) -> Line:
    """A chain of archives, oldest first."""
    found: Line = []
    for each in range(number):
        previous = found[-1].sha256 if found else base
        data: dict[str, t.Any] = {"previous": previous, "upgrade": {"state": "COMPLETED", "upgrade_id": f"r{each}"}}
        data["upgrade"]["finished_at"] = f"2026-11-{each + 1:02}T03:00:00Z"
        found.append(_history.archive(f"r{each}.json", json.dumps(data).encode()))
    return found


def ends(found: Line, *, base: str | None = None) -> dict[str, t.Any]:
    return {"head": found[-1].sha256 if found else None, "base": base}


@pytest.mark.parametrize("number", [0, 1, 2, 7])
@pytest.mark.parametrize("base", [None, "f" * 64])
def test_a_whole_chain_has_no_problems_and_tells_its_own_ends(number: int, base: str | None) -> None:
    found = line(number, base=base)
    told = ends(found, base=base if found else None)
    assert _history.problems(found, told, under_way=None) == []
    assert _history.ends(found) == told
    assert _history.chain(found, told["head"], told["base"]) == found[::-1]


@given(st.data())
def test_whatever_is_done_to_one_archive_is_noticed(data: st.DataObject) -> None:
    found = line(data.draw(st.integers(1, 8)))
    told = ends(found)
    place = data.draw(st.integers(0, len(found) - 1))
    victim = found[place]
    other = _history.archive(victim.name, json.dumps({**victim.data, "note": "x"}).encode())
    done = data.draw(st.sampled_from(["changed", "removed", "damaged", "renamed", "added"]))
    found[place : place + 1] = {
        "changed": [other],
        "removed": [],
        "damaged": [_history.archive(victim.name, b"{")],
        "renamed": [victim._replace(name="r99.json")],
        "added": [victim, other._replace(name="r99.json")],
    }[done]
    assert _history.problems(found, told, under_way=None) != []


def test_what_a_killed_run_leaves_is_no_problem() -> None:
    found = line(5)
    pruned = {"head": found[3].sha256, "base": found[1].sha256}
    assert _history.problems(found, pruned, under_way="r4") == []  # the last archive, and two that were pruned
    assert _history.problems(found, pruned, under_way=None) != []


def test_a_ring_of_archives_is_walked_once() -> None:
    one = _history.Archive("a.json", "a", {"previous": "b"})
    other = _history.Archive("b.json", "b", {"previous": "a"})
    assert _history.chain([one, other], "a", None) == [one, other]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'"x"', b"\xff", b'{"upgrade": 1}'])
def test_a_damaged_archive_has_no_upgrade(content: bytes) -> None:
    found = _history.archive("x.json", content)
    assert (found.upgrade, found.previous, found.finished_at) == ({}, None, "")
    assert _history.newest_first([found]) == []


def test_only_archives_are_read(tmp_path: pathlib.Path) -> None:
    assert _history.read_all(str(tmp_path / "none")) == []
    for name in ("b.json", "a.json", ".a.json.upgrade-new", "note.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "c.json").symlink_to("a.json")
    refused: list[str] = []
    assert [each.name for each in _history.read_all(str(tmp_path), refused=refused)] == ["a.json", "b.json"]
    assert [f"{tmp_path}/c.json is a symbolic link" in text for text in refused] == [True]
