# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _lease, _store
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError, LockedError, StateError
from ansible_collections.observability.stack.plugins.module_utils._state import new_document
from ansible_collections.observability.stack.tests.unit.support import directory_of_a_stranger

RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "pid": 1, "started": 1.0, "dead": []}
OTHER = {**RUN, "upgrade_id": "u2", "controller": "c2"}


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


def saved(root: pathlib.Path) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads((root / "state.json").read_text()))


def write_document(root: pathlib.Path, content: str) -> None:
    (root / "state.json").write_text(content)
    (root / "state.json").chmod(0o600)


def test_a_session_makes_its_directories_private(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.save()
    assert sorted(path.name for path in root.iterdir()) == [
        "backups",
        "history",
        "pending",
        "staging",
        "state.json",
        "upgrade.lock",
    ]
    assert {path.stat().st_mode & 0o777 for path in [root, *(p for p in root.iterdir() if p.is_dir())]} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in root.iterdir() if path.is_file()} == {0o600}


def test_the_revision_only_grows_and_unknown_keys_stay(root: pathlib.Path) -> None:
    for expected in (1, 2, 3):
        with _store.session(str(root), run=RUN, acquire=True) as session:
            session.document.data["from_the_future"] = expected
            session.save()
            session.save()
        assert saved(root)["revision"] == expected
    assert saved(root)["from_the_future"] == 3


def test_a_document_that_is_on_disk_as_it_is_is_not_written_again(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.save()
    before = (root / "state.json").stat()
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.save()
    assert (root / "state.json").stat() == before
    assert saved(root)["revision"] == 1


def test_check_mode_writes_nothing_at_all(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True, check_mode=True) as session:
        session.document.begin(RUN, steps=["a@1"], details={}, now=session.now)
        session.save()
        session.archive()
        session.release()
        session.remove_tree(str(root))
    assert not root.exists()


def test_the_lease_keeps_another_run_out_until_it_is_given_back(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True):
        pass
    for check_mode in (False, True):
        with (
            pytest.raises(LockedError, match="ops on c1"),
            _store.session(str(root), run=OTHER, acquire=True, check_mode=check_mode),
        ):
            pass
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.release()
    with _store.session(str(root), run=OTHER, acquire=True) as session:
        assert session.warnings == []
    assert _store.read_lease(str(root))["upgrade_id"] == "u2"


def test_an_expired_lease_is_taken_over_with_a_warning(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True, clock=lambda: 1000.0):
        pass
    later = 1000.0 + _lease.LEASE_SECONDS + 1
    with _store.session(str(root), run=OTHER, acquire=True, clock=lambda: later) as session:
        assert session.warnings == ["took over from upgrade u1 of ops on c1, which ended without giving the host back"]
        assert session.took_over == {"upgrade_id": "u1", "user": "ops", "controller": "c1"}


def test_a_run_that_was_taken_over_or_released_is_fenced_off(root: pathlib.Path) -> None:
    with pytest.raises(LockedError, match="nobody has it now"), _store.session(str(root), run=RUN):
        pass
    with _store.session(str(root), run=RUN, acquire=True, clock=lambda: 1000.0):
        pass
    with _store.session(str(root), run=RUN, clock=lambda: 5000.0):
        pass
    with _store.session(str(root), run=OTHER, acquire=True, clock=lambda: 9000.0) as session:
        assert "took over from upgrade u1" in session.warnings[0]
    for last in (False, True):
        with pytest.raises(LockedError) as failure, _store.session(str(root), run=RUN, clock=lambda: 9001.0):
            pass
        assert failure.value.key == "lock.lost"
        with _store.session(str(root), run=OTHER if not last else None, clock=lambda: 9001.0) as session:
            session.release()


def test_force_asks_for_no_lease_and_leaves_it(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True):
        pass
    lease = (root / "upgrade.lock").read_bytes()
    for check_mode in (True, False):
        with _store.session(str(root), force=True, check_mode=check_mode) as session:
            session.save()
    assert (root / "upgrade.lock").read_bytes() == lease
    assert saved(root)["revision"] == 1


def _hold(root: str, ready: t.Any, done: t.Any) -> None:
    with _store.session(root, run=RUN, acquire=True):
        ready.set()
        done.wait(30)


def test_a_module_waits_for_one_that_is_in_the_middle(root: pathlib.Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(root), ready, done))
    holder.start()
    assert ready.wait(10)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        done.set()
        holder.join(10)

    with _store.session(str(root), run=RUN, acquire=True, sleep=sleep):
        pass
    assert len(waits) == 1


def test_one_try_for_the_kernels_lock_is_one_try(root: pathlib.Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(root), ready, done))
    holder.start()
    assert ready.wait(10)
    with (
        pytest.raises(LockedError, match="see it with 'fuser'") as failure,
        _store.session(str(root), force=True, wait=0, sleep=lambda _s: pytest.fail("one try")),
    ):
        pass
    assert failure.value.key == "lock.busy"
    done.set()
    holder.join(10)


def test_the_kernels_lock_ends_with_a_killed_holder(root: pathlib.Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(root), ready, done))
    holder.start()
    assert ready.wait(10)
    holder.kill()
    holder.join(10)
    with _store.session(str(root), run=RUN, acquire=True, sleep=lambda _s: pytest.fail("nobody holds it")) as session:
        session.save()


def _write_many(root: str, number: int) -> None:
    for turn in range(10):
        with _store.session(root, sleep=lambda _seconds: os.sched_yield()) as session:
            session.document.data.setdefault("seen", []).append([number, turn])
            session.save()


def test_twenty_writers_lose_no_update(root: pathlib.Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(str(root), number)) for number in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert {writer.exitcode for writer in writers} == {0}
    assert sorted(saved(root)["seen"]) == [[number, turn] for number in range(20) for turn in range(10)]
    assert saved(root)["revision"] == 200


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"schema_version": 1}', json.dumps({**new_document(), "upgrade": {"state": "X"}}), "\0" * 100],
)
def test_a_damaged_document_is_set_aside_and_begun_anew_with_its_restore_points(
    root: pathlib.Path, content: str
) -> None:
    with _store.session(str(root), run=RUN, acquire=True):
        pass
    manifest = {"component": "prometheus", "version": "2.42.0", "created_at": "2026-11-21T03:00:00Z"}
    backup = root / "backups" / "u0.prometheus-2.42.0"
    backup.mkdir()
    (backup / "manifest.json").write_text(json.dumps(manifest))
    (root / "backups" / "half").mkdir()
    write_document(root, content)
    with _store.session(str(root), run=RUN, acquire=True) as session:
        assert len(session.warnings) == 1
        assert "was damaged" in session.warnings[0]
        points = session.document.component("prometheus")["inventory"]["restore_points"]
        assert points == [{"id": "u0.prometheus-2.42.0", "version": "2.42.0", "created_at": "2026-11-21T03:00:00Z"}]
    aside = [path for path in root.iterdir() if path.name.startswith("state.json.damaged-")]
    assert [path.read_text() for path in aside] == [content]


ACTIVATED = {
    "state": "activated",
    "attempts": 1,
    "to_version": "3.0.0",
    "backup_id": "u1.loki-2.9.1",
    "inventory": {
        "restore_points": [{"id": "u1.loki-2.9.1", "version": "2.9.1", "created_at": "2026-11-21T03:00:00Z"}]
    },
}


def test_a_swap_that_nobody_confirmed_is_not_forgotten_with_a_damaged_document(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.save()
    (root / "pending" / "loki.json").write_text(json.dumps({"component": "loki", "record": ACTIVATED, "unit": "x"}))
    (root / "pending" / ".half.json").write_text(json.dumps({"component": "half", "record": ACTIVATED}))
    for name, content in {"torn": "{", "list": "[]", "other": '{"component": 1, "record": 2}'}.items():
        (root / "pending" / f"{name}.json").write_text(content)
    backup = root / "backups" / "u1.loki-2.9.1"
    backup.mkdir()
    (backup / "manifest.json").write_text(
        json.dumps({"component": "loki", "version": "2.9.1", "created_at": "2026-11-21T03:00:00Z"})
    )
    (root / "state.json").write_text("{")
    with _store.session(str(root), run=RUN) as session:
        assert session.document.data["components"] == {"loki": ACTIVATED}


def test_a_document_of_a_newer_schema_is_left_alone(root: pathlib.Path) -> None:
    root.mkdir(mode=0o700)
    newer = json.dumps({**new_document(), "schema_version": 99})
    (root / "state.json").write_text(newer)
    with pytest.raises(StateError, match="use the newer collection"), _store.session(str(root), run=RUN, acquire=True):
        pass
    with pytest.raises(StateError, match="use the newer collection"):
        _store.peek(str(root))
    assert (root / "state.json").read_text() == newer


@pytest.mark.parametrize("name", ["state.json", "upgrade.lock"])
def test_a_link_in_place_of_a_file_is_refused(root: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    root.mkdir(mode=0o700)
    (tmp_path / "elsewhere").write_text("{}")
    (root / name).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(HostError, match=f"{name} is a symbolic link: it must be a file that belongs") as failure,
        _store.session(str(root), run=RUN, acquire=True),
    ):
        pass
    assert failure.value.key == "files.not_private"
    assert (tmp_path / "elsewhere").read_text() == "{}"


def test_a_directory_of_a_stranger_is_refused(root: pathlib.Path) -> None:
    state = str(directory_of_a_stranger(root))
    with pytest.raises(HostError, match="must be a directory"), _store.session(state, run=RUN, acquire=True):
        pass


def test_peek_reads_without_a_trace(root: pathlib.Path) -> None:
    assert _store.peek(str(root), wait=1) is None
    assert not root.exists()
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.save()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in root.iterdir())
    assert _store.peek(str(root), wait=1) == saved(root)
    (root / "state.json").write_text("{")
    assert _store.peek(str(root)) is None
    assert [name for name, _time in before] == sorted(path.name for path in root.iterdir())


def test_peek_reads_a_document_that_was_brought_here_without_its_lock(root: pathlib.Path) -> None:
    root.mkdir(mode=0o700)
    (root / "state.json").write_text(json.dumps(new_document()))
    assert _store.peek(str(root), wait=1) == new_document()
    assert [path.name for path in root.iterdir()] == ["state.json"]


def test_a_finished_upgrade_is_archived_with_its_components(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.archive()
        session.document.begin(RUN, steps=["a@1"], details={}, now=session.now)
        session.archive()
    archived = json.loads((root / "history" / "u1.json").read_text())
    assert archived["upgrade"]["upgrade_id"] == "u1"
    assert archived["components"] == {"a": {"state": "idle", "attempts": 0}}
    assert [path.name for path in (root / "history").iterdir()] == ["u1.json"]


def test_remove_tree_never_leaves_half_a_tree_under_its_name(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True) as session:
        doomed = root / "backups" / "b1"
        doomed.mkdir()
        (doomed / "file").write_text("x")
        (root / "backups" / "b1.removed").mkdir()
        session.remove_tree(str(doomed))
        session.remove_tree(str(doomed))
    assert list((root / "backups").iterdir()) == []


def test_times_are_utc_to_the_second() -> None:
    assert _store.timestamp(1763694000.9) == "2025-11-21T03:00:00Z"
