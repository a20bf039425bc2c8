# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _candidates, _store
from ansible_collections.observability.stack.tests.unit.support import RUN, snapshot


class Staging:
    """A host's staging directory."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.layout = _store.Layout(str(root))
        with _store.session(str(root), run=RUN, acquire=True):
            pass

    def add(self, key: str, *, ahead: bool = False, text: str | None = None) -> pathlib.Path:
        directory = self.root / "staging" / key
        directory.mkdir()
        told = json.dumps({"archive_sha256": f"sha256 of {key}", "files": {}}) if text is None else text
        (directory / "candidate.json").write_text(told)
        if ahead:
            _candidates.mark_ahead(str(directory))
        return directory

    def sweep(self, *, check_mode: bool = False, **steps: str) -> list[str]:
        """End an upgrade with the outcomes of its steps. The names of all that is left."""
        with _store.session(str(self.root), run=RUN, check_mode=check_mode) as session:
            session.document.upgrade["steps"] = {key.replace("__", "@"): outcome for key, outcome in steps.items()}
            _candidates.sweep(session)
        return sorted(path.name for path in (self.root / "staging").iterdir())


@pytest.fixture
def staging(tmp_path: pathlib.Path) -> Staging:
    return Staging(tmp_path / "state")


def test_candidates_tell_which_archive_they_came_from(staging: Staging) -> None:
    staging.add("x@1", ahead=True)
    staging.add("x@2")
    before = snapshot(staging.root)
    assert _candidates.archives(staging.layout) == {"x@1": "sha256 of x@1", "x@2": "sha256 of x@2"}
    assert snapshot(staging.root) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"archive_sha256": 7}', "\0"])
def test_what_is_no_candidate_is_none(staging: Staging, text: str) -> None:
    staging.add("x@1", text=text)
    staging.add("by-hand")
    (staging.root / "staging" / "a file").touch()
    assert _candidates.archives(staging.layout) == {}


def test_a_host_without_a_record_has_no_candidates(tmp_path: pathlib.Path) -> None:
    assert _candidates.archives(_store.Layout(str(tmp_path / "none"))) == {}


def test_the_end_of_an_upgrade_removes_what_it_left(staging: Staging) -> None:
    for key in ("x@1", "y@1", "x@1.new", "x@1.removed", "by-hand"):
        staging.add(key)
    assert staging.sweep(x__1="failed") == []


CASES: list[t.Any] = [
    ({"y__1": "succeeded"}, ["x@1", "x@2", "x@3.fetch"]),
    ({"x__1": "rolled_back"}, ["x@1", "x@2", "x@3.fetch"]),
    ({"x__1": "succeeded", "x__2": "failed"}, ["x@1", "x@2", "x@3.fetch"]),
    ({"x__1": "succeeded", "x__2": "pending"}, ["x@1", "x@2", "x@3.fetch"]),
    ({"x__2": "succeeded"}, []),
    ({}, ["x@1", "x@2", "x@3.fetch"]),
]


@pytest.mark.parametrize(("steps", "left"), CASES)
def test_what_was_brought_ahead_stays_until_its_component_is_where_it_was_meant_to_be(
    staging: Staging, steps: dict[str, str], left: list[str]
) -> None:
    staging.add("x@1", ahead=True)
    staging.add("x@2", ahead=True)
    (staging.root / "staging" / "x@3.fetch").mkdir()
    assert staging.sweep(**steps) == left


def test_half_of_what_was_brought_ahead_does_not_stay(staging: Staging) -> None:
    staging.add("x@1.removed", ahead=True)
    assert staging.sweep(y__1="succeeded") == []


def test_check_mode_removes_nothing(staging: Staging) -> None:
    staging.add("x@1")
    assert staging.sweep(check_mode=True, x__1="succeeded") == ["x@1"]


def test_a_candidate_is_marked_once(staging: Staging) -> None:
    directory = staging.add("x@1", ahead=True)
    before = snapshot(directory)
    _candidates.mark_ahead(str(directory))
    assert snapshot(directory) == before
