# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _history, _lease, _store
from ansible_collections.observability.stack.plugins.module_utils._errors import (
    HostError,
    InputError,
    LockedError,
    StateError,
)
from ansible_collections.observability.stack.plugins.module_utils._state import (
    Document,
    Step,
    check_document,
    new_document,
)
from ansible_collections.observability.stack.tests.unit.support import at, directory_of_a_stranger, sha256

RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "pid": 1, "start_ticks": 100, "dead": []}
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
    with _store.session(str(root), run=RUN, acquire=True, **at(1000.0)):
        pass
    later = 1000.0 + _lease.LEASE_SECONDS + 1
    with _store.session(str(root), run=OTHER, acquire=True, **at(later)) as session:
        assert session.warnings == ["took over from upgrade u1 of ops on c1, which ended without giving the host back"]
        assert session.took_over == {"upgrade_id": "u1", "user": "ops", "controller": "c1"}


def test_a_run_that_was_taken_over_or_released_is_fenced_off(root: pathlib.Path) -> None:
    with pytest.raises(LockedError, match="nobody has it now"), _store.session(str(root), run=RUN):
        pass
    with _store.session(str(root), run=RUN, acquire=True, **at(1000.0)):
        pass
    with _store.session(str(root), run=RUN, **at(5000.0)):
        pass
    with _store.session(str(root), run=OTHER, acquire=True, **at(9000.0)) as session:
        assert "took over from upgrade u1" in session.warnings[0]
    for last in (False, True):
        with pytest.raises(LockedError) as failure, _store.session(str(root), run=RUN, **at(9001.0)):
            pass
        assert failure.value.key == "lock.lost"
        with _store.session(str(root), run=OTHER if not last else None, **at(9001.0)) as session:
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


# -- files that are not as they must be ---------------------------------------------------------------------------


def entered(root: pathlib.Path) -> _store.Session:
    """A host with a record, entered once more."""
    with _store.session(str(root), run=RUN, acquire=True) as session:
        return session


@pytest.fixture
def used(root: pathlib.Path) -> pathlib.Path:
    """The state directory of a host that has gone through some upgrades, and is in the middle of another."""
    for number, component in ((1, "loki"), (2, "loki"), (3, "node_exporter")):
        upgrade(root, number, component)
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.document.begin(RUN, steps=["loki@3.0.0"], details={}, now=session.now)
        session.save()
    return root


def upgrade(root: pathlib.Path, number: int, component: str, *, day: int = 1) -> None:
    """Let a host go through an upgrade, whose step is aborted."""
    run = {**RUN, "upgrade_id": f"r{number}"}
    seconds = 1763694000.0 + 86400 * day
    with _store.session(str(root), run=run, acquire=True, **at(seconds)) as session:
        step = Step(component, f"{number}.0.0")
        session.document.begin(run, steps=[step.key], details={"phase": "logging"}, now=session.now)
        session.document.start_step(step, from_version=None, now=session.now)
        session.document.end_step(step, "aborted", error="404", now=session.now)
        session.document.close(abandon=False, now=session.now)
        session.archive()
        session.save()
        session.release()


@pytest.mark.parametrize("name", ["state.json", "upgrade.lock", "history/r2.json"])
def test_a_file_that_others_can_get_at_is_narrowed_and_said_so(used: pathlib.Path, name: str) -> None:
    (used / name).chmod(0o644)
    _store.peek(str(used))
    assert (used / name).stat().st_mode & 0o777 == 0o644
    with _store.session(str(used), run=RUN, acquire=True) as session:
        session.prune_history(keep=9, days=0)
        assert session.warnings == [f"{used / name} had mode 0644, so that others could get at it. It has 0600 now"]
    assert (used / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["state.json", "upgrade.lock", "history/r2.json", "pending/loki.json"])
@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "stranger's"])
def test_what_is_no_file_of_ours_is_refused_with_what_to_do(used: pathlib.Path, name: str, kind: str) -> None:
    path = used / name
    path.touch()
    path.unlink()
    if kind == "stranger's" and os.geteuid() != 0:
        pytest.skip("only root may give files away")
    makes: dict[str, t.Callable[[], t.Any]] = {
        "link": lambda: path.symlink_to("/etc/passwd"),
        "directory": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "stranger's": lambda: [path.write_text("{}"), os.chown(path, 12345, 12345)],
    }
    makes[kind]()
    if name == "pending/loki.json":
        write_document(used, "{")
    with (
        pytest.raises(HostError, match="must be a file that belongs to user") as failure,
        _store.session(str(used), run=RUN, acquire=True) as session,
    ):
        session.prune_history(keep=9, days=0)
    assert (failure.value.key, str(path) in str(failure.value)) == ("files.not_private", True)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_record_that_cannot_be_read_stops_everything(
    used: pathlib.Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.open

    def failing(path: str, *arguments: t.Any, **options: t.Any) -> int:
        if str(path).endswith("state.json"):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", failing)
    for act in (lambda: _store.peek(str(used)), lambda: entered(used)):
        with pytest.raises(StateError, match=f"state.json can't be read: .*{os.strerror(number)}") as failure:
            act()
        assert failure.value.key == "state.unreadable"


def test_a_record_with_an_unknown_state_is_not_written(root: pathlib.Path) -> None:
    with _store.session(str(root), run=RUN, acquire=True) as session:
        session.save()
        session.document.upgrade["state"] = "DANCING"
        with pytest.raises(StateError, match=r"upgrade\.state is 'DANCING'"):
            session.save()
    assert saved(root)["upgrade"]["state"] == "IDLE"


# -- a damaged record is rebuilt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "\0" * 10, "[" * 100_000, '{"schema_version": 1, "revision": 77, ', None])
def test_a_damaged_record_is_rebuilt_from_all_that_is_there(used: pathlib.Path, content: str | None) -> None:
    before = saved(used)
    if content is None:
        (used / "state.json").unlink()
    else:
        write_document(used, content)
    peeked = _store.peek(str(used))
    with _store.session(str(used), run=RUN, acquire=True) as session:
        data = session.document.data
        assert any("rebuilt from the history" in warning for warning in session.warnings)
    assert saved(used) == data  # at once, whatever the module does
    assert peeked
    assert data["components"] == before["components"] == peeked["components"]
    assert data["history"] == before["history"]
    assert data["revision"] == (77 if "77" in (content or "") else before["revision"])
    assert len(data["repairs"]) == 1
    aside = data["repairs"][0]["set_aside"]
    assert (aside and pathlib.Path(aside).read_text()) == content
    check_document(data)


def test_the_number_of_a_manifest_outlives_a_damaged_record(used: pathlib.Path) -> None:
    write_document(used, '{"revision": 5, "manifest_number": 12, "components"')
    with _store.session(str(used), run=RUN, acquire=True) as session:
        assert session.document.manifest_number == 12


def test_two_damaged_records_of_one_second_are_both_kept(used: pathlib.Path) -> None:
    for content in ("{1", "{2"):
        write_document(used, content)
        with _store.session(str(used), run=RUN, acquire=True, **at(1763694000.0)):
            pass
    assert sorted(path.read_text() for path in used.glob("state.json.damaged-*")) == ["{1", "{2"]
    assert saved(used)["repairs"][0]["set_aside"].endswith("-2")


def test_a_rebuilt_inventory_lists_the_restore_points_that_are_there(used: pathlib.Path) -> None:
    with _store.session(str(used), run=RUN) as session:
        session.document.add_restore_point("loki", backup_id="gone", version="1", now=session.now)
        session.document.cut_off("the test goes on", now=session.now)
        session.archive()
        session.save()
    for name in ("b2", "b1"):
        (used / "backups" / name).mkdir()
        manifest = {"component": "loki", "version": "2.9.1", "created_at": f"2026-11-21T03:00:0{name[1]}Z"}
        (used / "backups" / name / "manifest.json").write_text(json.dumps(manifest))
    write_document(used, "{")
    points = entered(used).document.component("loki")["inventory"]["restore_points"]
    assert [point["id"] for point in points] == ["b1", "b2"]


# -- the history --------------------------------------------------------------------------------------------------


def archives(root: pathlib.Path) -> list[str]:
    return sorted(path.name for path in (root / "history").iterdir())


def problems(root: pathlib.Path) -> list[str]:
    document = Document(_store.peek(str(root)))
    under_way = document.upgrade.get("upgrade_id") if document.is_active() else None
    return _history.problems(_history.read_all(str(root / "history")), document.history, under_way=under_way)


def test_a_run_that_dies_between_the_archive_and_the_record_leaves_what_the_next_repairs(used: pathlib.Path) -> None:
    with _store.session(str(used), run=RUN) as session:
        session.document.cut_off("killed", now=session.now)
        session.archive()
    assert archives(used) == ["r1.json", "r2.json", "r3.json", "u1.json"]
    assert problems(used) == []
    with _store.session(str(used), run=RUN) as session:
        session.document.cut_off("again", now=session.now)
        session.archive()
        session.save()
    assert archives(used) == ["r1.json", "r2.json", "r3.json", "u1.json"]
    assert problems(used) == []
    assert "again" in (used / "history" / "u1.json").read_text()


def test_an_upgrade_of_the_same_run_gets_an_archive_of_its_own(root: pathlib.Path) -> None:
    for _turn in range(3):
        upgrade(root, 1, "loki")
    assert archives(root) == ["r1-2.json", "r1-3.json", "r1.json"]
    assert problems(root) == []


@pytest.mark.parametrize(
    ("keep", "days", "left"),
    [(50, 0, 6), (3, 0, 3), (1, 0, 1), (0, 0, 0), (50, 3, 3), (2, 3, 2), (50, 100, 6)],
)
def test_old_archives_are_pruned_by_number_and_age(root: pathlib.Path, keep: int, days: int, left: int) -> None:
    for number in range(6):
        upgrade(root, number, "loki", day=number)
    now = 1763694000.0 + 86400 * 5 + 60
    with _store.session(str(root), run=RUN, acquire=True, **at(now)) as session:
        doomed = session.prune_history(keep=keep, days=days)
        session.save()
    assert problems(root) == []  # killed before they are removed
    with _store.session(str(root), run=RUN, **at(now)) as session:
        assert sorted(session.prune_history(keep=keep, days=days)) == sorted(doomed)
        session.remove_archives(doomed)
    assert archives(root) == [f"r{number}.json" for number in range(6 - left, 6)]
    assert problems(root) == []
    upgrade(root, 9, "loki", day=9)
    assert problems(root) == []


@pytest.mark.parametrize("name", ["..", "a/b", "/etc", "a\0b"])
@pytest.mark.parametrize("place", ["backup", "staging", "pending", "history"])
def test_no_name_leads_out_of_the_state_directory(root: pathlib.Path, place: str, name: str) -> None:
    if place in ("pending", "history") and name == "..":
        return  # it becomes "...json"
    with pytest.raises(InputError):
        getattr(_store.Layout(str(root)), place)(name)


# -- what an attempt left that was cut off, or could not be undone ------------------------------------------------


@pytest.mark.parametrize("state", ["activated", "failed"])
@pytest.mark.parametrize(
    ("now", "told"),
    [
        (["old", "old"], "old"),
        (["new", "new"], "new"),
        (["new", "old"], "mixed"),
        (["old", "neither"], "mixed"),
        (["new", None], "mixed"),
        (["neither", None], "other"),
    ],
)
def test_what_was_left_is_what_is_at_the_paths_not_what_the_record_hopes(
    tmp_path: pathlib.Path, state: str, now: list[str | None], told: str
) -> None:
    files = []
    for number, content in enumerate(now):
        path = tmp_path / str(number)
        record = {"path": str(path)}
        for moment, text in {"before": "old", "after": "new"}.items():
            path.write_text(text)
            record[moment] = sha256(path)
        path.unlink() if content is None else path.write_text(content)
        files.append(record)
    repaired = (state, told) == ("failed", "other")
    assert _store.unfinished({"x": {"state": state, "files": files}}) == ({} if repaired else {"x": told})


def test_a_file_that_was_not_there_before_is_old_when_it_is_not_there(tmp_path: pathlib.Path) -> None:
    files = [{"path": str(tmp_path / "x"), "before": None, "after": "0" * 64}]
    assert _store.unfinished({"x": {"state": "verifying", "files": files}}) == {"x": "old"}


@pytest.mark.parametrize(("state", "files"), [("success", []), ("failed", []), ("rolled_back", []), ("staged", [])])
def test_what_has_ended_or_touched_nothing_is_not_unfinished(state: str, files: list[t.Any]) -> None:
    assert _store.unfinished({"x": {"state": state, "files": files}}) == {}
