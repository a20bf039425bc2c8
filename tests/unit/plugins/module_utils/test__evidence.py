# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host has recorded of versions. How they are used is in test__survey.py."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _evidence
from ansible_collections.observability.stack.tests.unit.support import directory_of_a_stranger

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def state(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def write(path: pathlib.Path, content: t.Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def manifest(**changes: t.Any) -> dict[str, t.Any]:
    entries = [{"kind": "binary", "sha256": B}, {"kind": "config", "sha256": C}]
    return {"component": "loki", "version": "2.9.0", "entries": entries, **changes}


def test_versions_are_known_from_the_state_restore_points_and_candidates(state: pathlib.Path) -> None:
    write(state / "backups" / "x" / "manifest.json", manifest())
    write(state / "staging" / "loki@3.0.0" / "candidate.json", {"files": {"loki": C}})
    components = {"loki": {"inventory": {"current_version": "2.8.0", "sha256": A}}, "new": {}}
    assert _evidence.known(str(state), components) == {"loki": {A: "2.8.0", B: "2.9.0", C: "3.0.0"}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100000,
        {"component": "loki"},
        manifest(entries={"sha256": A}),
        manifest(entries=[1, None, "x", {"kind": "binary"}]),
        manifest(version=None),
        manifest(version="unknown"),
        manifest(version="9.9 (evil)"),
        manifest(component=["loki"]),
        manifest(entries=[{"kind": "binary", "sha256": ["x"]}]),
        manifest(entries=[{"kind": "binary", "sha256": "b" * 63}]),
    ],
    ids=range(14),
)
def test_what_is_no_record_says_nothing(state: pathlib.Path, content: t.Any) -> None:
    write(state / "backups" / "x" / "manifest.json", content)
    write(state / "staging" / "loki@3.0.0" / "candidate.json", content)
    assert _evidence.known(str(state), {"loki": None}) == {}
    assert _evidence.known(str(state), {"loki": {"inventory": [1]}}) == {}
    assert _evidence.known(str(state), ["loki"]) == {}


def test_of_a_state_directory_that_others_own_or_write_nothing_is_believed(
    state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    components = {"loki": {"inventory": {"current_version": "2.8.0", "sha256": A}}}
    stranger = directory_of_a_stranger(tmp_path / "stranger")
    state.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(state)
    for path in (state, stranger, link, tmp_path / "nowhere"):
        assert _evidence.known(str(path), components) == {}
