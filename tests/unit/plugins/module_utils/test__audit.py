# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _audit, _store

RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1"}


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "state"
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.document.begin(RUN, phases={"logging": ["loki@3.0.0"]}, details={"phase": "logging"}, now=session.now)
        session.save()
    return root


def problems(root: pathlib.Path) -> list[str]:
    return _audit.problems(_store.Layout(str(root)))


def change(root: pathlib.Path, **changes: t.Any) -> None:
    path = root / "state.json"
    data = json.loads(path.read_text())
    data["upgrade"].update(changes)
    path.write_text(json.dumps(data))


def test_a_record_as_it_is_written_has_no_problems(root: pathlib.Path) -> None:
    assert problems(root) == []
    assert problems(root / "nothing") == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": {"loki@3.0.0": "maybe"}}, "upgrade.steps.loki@3.0.0 is 'maybe'"),
        ({"phases": {"logging": {"state": "done", "steps": []}}}, "upgrade.phases.logging.state is 'done'"),
        ({"phases": {"logging": "done"}}, "upgrade.phases.logging is 'done', and must be of type object"),
        ({"started_at": "0001-01-01T00:00:00"}, "upgrade.started_at is '0001-01-01T00:00:00', which doesn't match"),
        ({"state": "DANCING"}, "upgrade.state is 'DANCING', which is none of IDLE, "),
        ({"steps": []}, "upgrade.steps is [], and must be of type object. The next upgrade sets it aside"),
    ],
)
def test_what_nothing_of_the_collection_would_have_written_is_told(
    root: pathlib.Path, changes: dict[str, t.Any], says: str
) -> None:
    change(root, **changes)
    (found,) = problems(root)
    assert says in found


@pytest.mark.parametrize("name", ["", "backups", "history", "pending", "staging"])
def test_directories_that_others_can_enter_are_told(root: pathlib.Path, name: str) -> None:
    (root / name).chmod(0o750)
    (found,) = problems(root)
    assert f"{(root / name)} has mode 0750".rstrip("/") in found.replace(f"{root}/ ", f"{root} ")


def test_restore_points_that_are_being_made_or_removed_are_none(root: pathlib.Path) -> None:
    for name in ("b1.new", "b2.removed"):
        (root / "backups" / name).mkdir(mode=0o700)
    assert problems(root) == []
