# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many at once: what real processes do to one host's record and to its lock."""

from __future__ import annotations

import ast
import contextlib
import json
import multiprocessing
import os
import pathlib
import signal
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _history, _lease, _store
from ansible_collections.observability.stack.plugins.module_utils._errors import LockedError, StateError
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.tests.unit.support import OTHER_RUN, RUN, Data, later

FORK = multiprocessing.get_context("fork")
PATIENCE = 120.0
WRITERS = 200
ROUNDS = 60
CYCLES = 100

# What the test suites of the systems that this one follows call their tests, and where such a test is here.
PARENTS = {
    "State initialization": "plugins/module_utils/test__state.py::test_begin_plans_the_steps_and_says_who_began_it",
    "Valid state transitions": "test_acceptance.py::test_s0_1_from_planning_to_upgrading",
    "Invalid state transitions blocked": (
        "plugins/module_utils/test__state.py::test_an_illegal_transition_is_refused_with_both_states_named"
    ),
    "Phase management": "test_acceptance.py::test_s0_2_a_phase_that_starts_again_keeps_what_became_of_it",
    "Component tracking": "plugins/module_utils/test__state.py::test_attempts_count_the_starts_for_one_target",
    "Component failure tracking": "test_acceptance.py::test_s0_4_attempts_are_starts",
    "Idempotent component checks": "test_acceptance.py::test_s0_5_a_component_of_a_phase_that_has_ended_is_upgraded",
    "Crash recovery and resume": "test_acceptance.py::test_s1_1_a_component_in_the_middle_of_its_step_is_driven_on",
    "Rollback point tracking": (
        "plugins/modules/test_safe_binary_swap.py::test_all_files_are_put_in_place_with_a_way_back"
    ),
    "Lock acquisition and release": (
        "plugins/module_utils/test__lease.py::test_a_run_takes_renews_and_gives_back_its_lease"
    ),
    "Concurrent lock prevention": "test_concurrency.py::test_of_two_controllers_exactly_one_proceeds",
    "Stale lock detection and removal": "test_concurrency.py::test_a_lease_that_ended_is_taken_over_once",
    "Progress percentage calculation": "test_acceptance.py::test_s0_6_progress_counts_what_is_planned",
    "History tracking": "plugins/module_utils/test__store.py::test_a_finished_upgrade_is_archived_with_its_components",
    "Atomic state file writes": "test_concurrency.py::test_what_is_no_document_is_never_written",
    "Upgrade in-progress detection": "test_concurrency.py::test_an_upgrade_under_way_is_seen_by_everybody",
    "Concurrent lock acquisition": "test_concurrency.py::test_of_two_controllers_exactly_one_proceeds",
    "Multiple concurrent workers": "test_concurrency.py::test_of_five_workers_one_wins_and_four_are_refused",
    "Sequential lock acquisition": "test_concurrency.py::test_one_after_the_other_all_get_the_host",
    "Lock prevents state corruption": "test_concurrency.py::test_two_hundred_writers_lose_no_update",
    "Stale lock automatic cleanup": "test_concurrency.py::test_a_lease_that_ended_is_taken_over_once",
    "Lock ownership verification": "test_concurrency.py::test_a_module_that_comes_late_is_refused",
    "Lock held by long-running process": (
        "test_concurrency.py::test_a_long_step_of_another_process_is_not_waited_for_longer"
    ),
    "Rapid cycles": "test_concurrency.py::test_a_hundred_upgrades_in_a_row_leave_a_whole_history",
    "Lock persists across process crash": (
        "test_concurrency.py::test_the_host_stays_a_killed_run_s_until_it_is_known_dead"
    ),
}


@pytest.fixture
def root(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "state")


def run_of(number: int, **changes: t.Any) -> Data:
    return {"upgrade_id": f"u{number}", "user": "ops", "controller": f"c{number}", **changes}


def document_of(root: str) -> Data:
    return t.cast("Data", json.loads(pathlib.Path(root, "state.json").read_text()))


def begin(root: str, run: Data | None = None, **options: t.Any) -> None:
    """Begin an upgrade, as the first module of a run does."""
    run = run or RUN
    with _store.session(root, run=run, acquire=True, **options) as session:
        if session.document.is_active() and session.document.upgrade["upgrade_id"] != run["upgrade_id"]:
            session.document.cut_off("another goes on", now=session.now)
            session.archive()
        session.document.begin(run, details={"phase": "exporters"}, now=session.now)
        session.save()


def end(root: str, run: Data | None = None) -> None:
    """Close it, as the last one does."""
    run = run or RUN
    with _store.session(root, run=run, acquire=True) as session:
        assert session.document.close(abandon=False, now=session.now)
        session.archive()
        session.save()
        session.release()


def tries(root: str, run: Data, **options: t.Any) -> str:
    """Begin an upgrade. An empty text, or why that was refused."""
    try:
        begin(root, run, **options)
    except LockedError as exc:
        return f"{exc.key}: {exc}"
    return ""


def soon(_seconds: float) -> None:
    """Instead of the pause between two looks at the lock."""
    time.sleep(0.005)


@contextlib.contextmanager
def processes(*targets: t.Callable[[], None]) -> t.Iterator[list[t.Any]]:
    """Forks of this process, that do something each. All have ended well when this ends."""
    started = [FORK.Process(target=target) for target in targets]
    try:
        for process in started:
            process.start()
        yield started
        for process in started:
            process.join(PATIENCE)
        assert {process.exitcode for process in started} <= {0}
    finally:
        for process in started:
            if process.is_alive():
                process.kill()
                process.join()


def at_once(count: int, action: t.Callable[[int], str]) -> list[str]:
    """What an action says in each of as many processes, that all begin with it at the same time."""
    ready, said = FORK.Barrier(count), [FORK.Pipe(duplex=False) for _number in range(count)]

    def act(number: int) -> None:
        ready.wait(PATIENCE)
        said[number][1].send(action(number))

    with processes(*[lambda number=number: act(number) for number in range(count)]):
        assert all(receiver.poll(PATIENCE) for receiver, _sender in said)
    return [receiver.recv() for receiver, _sender in said]


class Middle:
    """A process in the middle of a module. It may be killed, so nothing but pipes is between it and the test."""

    def __init__(self, root: str, run: Data) -> None:
        self.inside, self.over = FORK.Pipe(duplex=False), FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=self._act, args=(root, run))

    def _act(self, root: str, run: Data) -> None:
        with _store.session(root, run=run, acquire=True):
            self.inside[1].send(True)
            self.over[0].recv()

    def leave(self) -> None:
        if self.process.is_alive():
            self.over[1].send(True)
        self.process.join(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENCE)
        assert self.process.exitcode == -signal.SIGKILL


@contextlib.contextmanager
def in_the_middle(root: str, run: Data) -> t.Iterator[Middle]:
    """Another process is in the middle of a module of a run, as long as this lasts."""
    middle = Middle(root, run)
    middle.process.start()
    try:
        assert middle.inside[0].poll(PATIENCE)
        yield middle
    finally:
        middle.leave()


def test_two_hundred_writers_lose_no_update(root: str) -> None:
    begin(root)

    def write(number: int) -> str:
        step = Step(f"exporter_{number}", "1.0.0")
        with _store.session(root, run=RUN, sleep=lambda _seconds: time.sleep(0.05)) as session:
            session.document.plan_step(step)
            session.document.start_step(step, from_version="0.9.0", now=session.now)
            session.document.checkpoint(step.component, None, now=session.now)
            session.save()
            return str(session.document.data["revision"])

    revisions = at_once(WRITERS, write)
    document = document_of(root)
    names = {f"exporter_{number}" for number in range(WRITERS)}
    assert set(document["components"]) == names
    assert {key.partition("@")[0] for key in document["upgrade"]["steps"]} == names
    assert {key.partition("@")[0] for key in document["upgrade"]["phases"]["exporters"]["steps"]} == names
    assert sorted(map(int, revisions)) == list(range(2, WRITERS + 2))
    assert document["revision"] == WRITERS + 1


def test_a_reader_sees_whole_documents_and_never_an_older_one(root: str) -> None:
    begin(root)

    def write(number: int) -> None:
        for turn in range(25):
            with _store.session(root, run=RUN, sleep=soon) as session:
                session.document.checkpoint(f"{number}-{turn}", "x" * 500, now=session.now)
                session.save()

    seen = []
    with processes(*[lambda number=number: write(number) for number in range(4)]) as writers:
        while any(process.is_alive() for process in writers):
            document = _store.peek(root)
            assert document
            seen.append(document["revision"])
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    assert document_of(root)["revision"] == 101
    assert [path for path in os.listdir(root) if "damaged" in path] == []


def test_of_two_controllers_exactly_one_proceeds(root: str) -> None:
    turn = FORK.Barrier(2)

    def play(number: int) -> str:
        won = []
        for _round in range(ROUNDS):
            turn.wait(PATIENCE)
            refused = tries(root, run_of(number), sleep=soon)
            won.append("0" if refused else "1")
            assert not refused or refused.startswith(f"lock.held: this host is being upgraded by ops on c{1 - number} ")
            turn.wait(PATIENCE)
            if not refused:
                end(root, run_of(number))
        return "".join(won)

    first, second = at_once(2, play)
    assert [int(one) + int(other) for one, other in zip(first, second)] == [1] * ROUNDS
    assert _store.read_lease(root) == {"token": ROUNDS}
    assert len(os.listdir(os.path.join(root, "history"))) == ROUNDS


def test_of_five_workers_one_wins_and_four_are_refused(root: str) -> None:
    refusals = at_once(5, lambda number: tries(root, run_of(number), sleep=soon))
    winner = refusals.index("")
    assert refusals.count("") == 1
    assert _store.read_lease(root)["upgrade_id"] == document_of(root)["upgrade"]["upgrade_id"] == f"u{winner}"
    for refusal in filter(None, refusals):
        assert refusal.startswith(f"lock.held: this host is being upgraded by ops on c{winner} (upgrade u{winner}, ")


def test_one_after_the_other_all_get_the_host(root: str) -> None:
    for number in range(3):
        begin(root, run_of(number))
        assert tries(root, run_of(9)).startswith("lock.held")
        end(root, run_of(number))
    assert _store.read_lease(root) == {"token": 3}


def test_an_upgrade_under_way_is_seen_by_everybody(root: str) -> None:
    assert not _store.read_document(root).is_active()
    begin(root)
    with in_the_middle(root, RUN):
        assert _store.read_document(root).is_active()
        assert _lease.holder(_store.read_lease(root), now=time.time()) == "u1"
    end(root)
    assert not _store.read_document(root).is_active()
    assert _lease.holder(_store.read_lease(root), now=time.time()) is None


def test_a_long_step_of_another_process_is_not_waited_for_longer(root: str) -> None:
    with in_the_middle(root, RUN) as middle:
        started = time.monotonic()
        refusal = tries(root, OTHER_RUN, wait=1)
        assert 1 <= time.monotonic() - started < 2
        assert refusal.startswith("lock.busy: another process on this host holds ")
        assert middle.process.is_alive()


def test_the_host_stays_a_killed_run_s_until_it_is_known_dead(root: str) -> None:
    begin(root)
    with in_the_middle(root, RUN) as middle:
        middle.kill()
    assert tries(root, OTHER_RUN, wait=0).startswith("lock.held: this host is being upgraded by ops on c1 ")
    with _store.session(root, run={**OTHER_RUN, "dead": ["u1"]}, acquire=True, wait=0) as session:
        assert session.took_over == {"upgrade_id": "u1", "user": "ops", "controller": "c1"}
    assert tries(root, RUN, wait=0).startswith("lock.held: this host is being upgraded by eve on c2 ")


def test_a_run_that_was_killed_goes_on_itself_at_once(root: str) -> None:
    begin(root)
    with in_the_middle(root, RUN) as middle:
        middle.kill()
    with _store.session(root, run=RUN, wait=0) as session:
        assert session.warnings == []


def test_a_lease_that_ended_is_taken_over_once(root: str) -> None:
    begin(root, RUN)
    late = later(_lease.LEASE_SECONDS + 1)
    refusals = at_once(5, lambda number: tries(root, run_of(10 + number), **late, sleep=soon))
    winner = 10 + refusals.index("")
    assert refusals.count("") == 1
    assert all(f"(upgrade u{winner}, " in refusal for refusal in refusals if refusal)
    lease = _store.read_lease(root)
    assert (lease["upgrade_id"], lease["token"]) == (f"u{winner}", 2)
    assert os.listdir(os.path.join(root, "history")) == ["u1.json"]


def test_a_module_that_comes_late_is_refused(root: str) -> None:
    """It waits for the kernel's lock while another run takes the host over."""
    begin(root)
    before = document_of(root)
    with (
        in_the_middle(root, {**OTHER_RUN, "dead": ["u1"]}) as middle,
        pytest.raises(LockedError) as failure,
        _store.session(root, run=RUN, sleep=lambda _seconds: middle.leave()),
    ):
        pytest.fail("it must not come in")
    assert failure.value.key == "lock.lost"
    assert "upgrade u2 of eve on c2 has had it for 0 min" in str(failure.value)
    assert document_of(root) == before


def test_a_hundred_upgrades_in_a_row_leave_a_whole_history(root: str) -> None:
    for number in range(CYCLES):
        begin(root, run_of(number))
        end(root, run_of(number))
    archives = _history.read_all(os.path.join(root, "history"))
    assert sorted(each.name for each in archives) == sorted(f"u{number}.json" for number in range(CYCLES))
    assert _history.problems(archives, _store.read_document(root).history, under_way=None) == []
    assert (_store.read_lease(root), document_of(root)["revision"]) == ({"token": CYCLES}, 2 * CYCLES)


def test_what_is_no_document_is_never_written(root: str) -> None:
    begin(root)
    before = pathlib.Path(root, "state.json").read_bytes()
    wrong: dict[str, t.Callable[[Data], t.Any]] = {
        "unknown state": lambda data: data["upgrade"].update(state="DONE"),
        "unknown state of a component": lambda data: data["components"].update(loki={"state": "broken"}),
        "no components": lambda data: data.pop("components"),
        "no JSON": lambda data: data.update(x=object()),
    }
    for change in wrong.values():
        with _store.session(root, run=RUN) as session:
            change(session.document.data)
            with pytest.raises((StateError, TypeError)):
                session.save()
    assert pathlib.Path(root, "state.json").read_bytes() == before
    assert sorted(os.listdir(root)) == ["backups", "history", "pending", "staging", "state.json", "upgrade.lock"]


def record_of_many(root: str, *, inventory: bool) -> float:
    """Kilobytes of the record of an upgrade of 101 components, all of which have succeeded."""
    steps = [Step(f"exporter_{number}", "1.10.2") for number in range(101)]
    with _store.session(root, run=RUN, acquire=True) as session:
        document, now = session.document, session.now
        document.begin(RUN, steps=[step.key for step in steps], details={"phase": "exporters"}, now=now)
        for step in steps:
            backup_id = f"20261121T031500Z-3fa9c2.{step.component}-1.9.0"
            document.start_step(step, from_version="1.9.0", now=now)
            document.set_component(step.component, "staged", now=now)
            document.set_component(step.component, "activated", now=now, backup_id=backup_id, sha256="a" * 64)
            document.set_component(step.component, "verifying", now=now)
            document.end_step(step, "succeeded", now=now)
            if inventory:
                document.add_restore_point(step.component, backup_id=backup_id, version="1.9.0", now=now)
                paths = [f"/usr/local/bin/{step.component}"]
                document.installed(step.component, step.to_version, paths=paths, sha256="a" * 64, now=now)
        session.save()
    assert len(document_of(root)["components"]) == len(steps)
    return pathlib.Path(root, "state.json").stat().st_size / 1000


def test_the_record_of_a_hundred_components_is_small(root: str) -> None:
    """What the parents have on record takes no more here. The inventory of what is installed is beyond that."""
    assert record_of_many(root, inventory=False) < 100
    assert record_of_many(root, inventory=True) < 150


@pytest.mark.parametrize("name", PARENTS)
def test_each_test_of_the_parents_has_one_here(name: str) -> None:
    path, _colons, function = PARENTS[name].partition("::")
    tree = ast.parse((pathlib.Path(__file__).parent / path).read_text(encoding="utf-8"))
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_parents_tests_are_all_named() -> None:
    assert len(PARENTS) == 16 + 9
