# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import itertools
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import StateError
from ansible_collections.observability.stack.plugins.module_utils._state import (
    ACTIVE,
    COMPONENT_TRANSITIONS,
    FINISHED,
    UPGRADE_TRANSITIONS,
    Document,
    Step,
    check_document,
    new_document,
)
from hypothesis import given
from hypothesis import strategies as st

NOW, LATER = "2026-11-21T03:00:00Z", "2026-11-21T03:05:00Z"
RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "job": ""}
OTHER_RUN = {"upgrade_id": "u2", "user": "ops", "controller": "c2", "job": "17"}
STEP = Step("node_exporter", "1.9.0")


def begun(*steps: Step, run: dict[str, str] | None = None) -> Document:
    document = Document()
    document.begin(run or RUN, steps=[step.key for step in steps or (STEP,)], details={"phase": "exporters"}, now=NOW)
    return document


def activated(step: Step = STEP) -> Document:
    document = begun(step)
    document.start_step(step, from_version="1.5.0", now=NOW)
    document.set_component(step.component, "staged", now=NOW)
    document.advance("UPGRADING", now=NOW)
    files = [{"path": "/x", "before": "a", "after": "b"}]
    document.set_component(step.component, "activated", now=NOW, backup_id="b1", files=files)
    return document


def verifying(step: Step = STEP) -> Document:
    document = activated(step)
    document.set_component(step.component, "verifying", now=NOW)
    return document


@pytest.mark.parametrize("table", [UPGRADE_TRANSITIONS, COMPONENT_TRANSITIONS])
def test_every_state_that_a_table_leads_to_is_in_it(table: dict[str, frozenset[str]]) -> None:
    assert set().union(*table.values()) <= set(table)


def test_failure_is_possible_from_every_active_state_and_rollback_from_validating() -> None:
    assert all("FAILED" in UPGRADE_TRANSITIONS[state] for state in ACTIVE)
    assert "ROLLING_BACK" in UPGRADE_TRANSITIONS["VALIDATING"]
    assert {"IDLE", "PLANNING"} == set().union(*(UPGRADE_TRANSITIONS[state] for state in FINISHED))


@pytest.mark.parametrize(
    ("here", "goal"),
    [
        (here, goal)
        for here, goal in itertools.product(COMPONENT_TRANSITIONS, repeat=2)
        if here != goal and goal not in COMPONENT_TRANSITIONS[here]
    ],
)
def test_an_illegal_transition_is_refused_with_both_states_named(here: str, goal: str) -> None:
    data = new_document()
    data["components"]["x"] = {"state": here, "attempts": 1}
    document = Document(data)
    with pytest.raises(StateError, match=f"from {here} to {goal}") as failure:
        document.set_component("x", goal, now=NOW)
    assert failure.value.key == "state.illegal_transition"
    assert document.component("x")["state"] == here


def test_begin_plans_the_steps_and_says_who_began_it() -> None:
    document = begun(STEP, Step("prometheus", "2.53.3"), run=OTHER_RUN)
    assert document.upgrade["state"] == "PLANNING"
    assert document.upgrade["steps"] == {"node_exporter@1.9.0": "pending", "prometheus@2.53.3": "pending"}
    assert document.upgrade["started_by"] == {"user": "ops", "controller": "c2", "job": "17"}
    assert document.progress_percent() == 0


def test_the_same_run_enters_its_upgrade_again_and_loses_nothing() -> None:
    document = verifying()
    document.end_step(STEP, "succeeded", now=NOW)
    steps = [STEP.key, "prometheus@2.53.3"]
    document.begin(RUN, steps=steps, details={"phase": "metrics"}, now=LATER)
    assert document.upgrade["state"] == "UPGRADING"
    assert document.upgrade["steps"] == {STEP.key: "succeeded", "prometheus@2.53.3": "pending"}
    assert document.upgrade["phase"] == "metrics"
    assert document.upgrade["started_at"] == NOW


def test_an_upgrade_that_was_cut_off_is_closed_before_another_begins() -> None:
    document = activated()
    document.cut_off("upgrade u2 goes on", now=LATER)
    assert document.upgrade["state"] == "FAILED"
    assert "cut off in UPGRADING; upgrade u2 goes on" in document.upgrade["errors"][-1]["message"]
    document.begin(OTHER_RUN, steps=[STEP.key], details={}, now=LATER)
    assert document.upgrade["upgrade_id"] == "u2"
    assert document.component("node_exporter")["backup_id"] == "b1"


def test_attempts_count_the_starts_for_one_target() -> None:
    document = begun()
    document.start_step(STEP, from_version="1.5.0", now=NOW)
    document.start_step(STEP, from_version="1.5.0", now=NOW)
    assert document.component("node_exporter")["attempts"] == 1
    document.end_step(STEP, "aborted", error="404", now=NOW)
    document.start_step(STEP, from_version="1.5.0", now=LATER)
    assert document.component("node_exporter")["attempts"] == 2
    document.end_step(STEP, "aborted", error="404", now=NOW)
    document.start_step(Step("node_exporter", "1.11.1"), from_version="1.5.0", now=LATER)
    assert document.component("node_exporter")["attempts"] == 1


def test_a_cut_off_attempt_goes_on_with_its_pristine_restore_point() -> None:
    document = activated()
    document.cut_off("upgrade u2 goes on", now=LATER)
    document.begin(OTHER_RUN, steps=[STEP.key], details={}, now=LATER)
    document.start_step(STEP, from_version="1.9.0", now=LATER)
    record = document.component("node_exporter")
    assert (record["state"], record["backup_id"], record["from_version"]) == ("activated", "b1", "1.5.0")
    assert record["attempts"] == 2


def test_a_new_attempt_after_an_ended_one_starts_clean() -> None:
    document = verifying()
    document.end_step(STEP, "rolled_back", error="it died", now=NOW)
    record = document.component("node_exporter")
    assert (record["last_error"], record["health_check_passed"], record["files"]) == ("it died", False, [])
    document.start_step(STEP, from_version="1.5.0", now=LATER)
    assert (record["state"], record["backup_id"], record["started_at"]) == ("checking", None, LATER)
    assert record["last_error"] == "it died"


def test_a_new_attempt_is_not_restored_from_what_an_earlier_rollback_was() -> None:
    document = verifying()
    document.set_component(STEP.component, "verifying", now=NOW, restored_from="u0.node_exporter-1.9.0")
    document.end_step(STEP, "succeeded", now=NOW)
    document.start_step(Step(STEP.component, "1.9.1"), from_version="1.9.0", now=LATER)
    assert document.component(STEP.component)["restored_from"] is None


def test_success_clears_the_error_and_keeps_the_version_it_came_from() -> None:
    document = verifying()
    document.component("node_exporter")["last_error"] = "old"
    document.end_step(STEP, "succeeded", now=LATER)
    document.installed("node_exporter", "1.9.0", paths=["/x"], sha256="b", now=LATER)
    record = document.component("node_exporter")
    assert (record["state"], record["last_error"], record["health_check_passed"]) == ("success", None, True)
    inventory = record["inventory"]
    assert (inventory["current_version"], inventory["previous_version"]) == ("1.9.0", "1.5.0")
    document.installed("node_exporter", "1.9.0", paths=["/x"], sha256="b", now=LATER)
    assert inventory["previous_version"] == "1.5.0"


def test_only_what_was_probed_can_succeed() -> None:
    with pytest.raises(StateError, match="from activated to success"):
        activated().end_step(STEP, "succeeded", now=NOW)


@pytest.mark.parametrize(
    ("outcomes", "abandon", "state", "outcome"),
    [
        (["succeeded", "succeeded"], False, "COMPLETED", "succeeded"),
        (["succeeded", "rolled_back"], False, "ROLLED_BACK", "rolled_back"),
        (["aborted", "succeeded"], False, "FAILED", "aborted"),
        (["rolled_back", "failed"], False, "FAILED", "failed"),
        (["rolled_back", "pending"], True, "ROLLED_BACK", "rolled_back"),
        (["succeeded", "pending"], False, "UPGRADING", None),
        (["rolled_back", "pending"], False, "UPGRADING", None),
    ],
)
def test_close_ends_an_upgrade_as_its_worst_step(
    outcomes: list[str], abandon: bool, state: str, outcome: str | None
) -> None:
    document = begun(Step("a", "1"), Step("b", "1"))
    document.advance("UPGRADING", now=NOW)
    document.upgrade["steps"] = dict(zip(("a@1", "b@1"), outcomes))
    assert document.close(abandon=abandon, now=LATER) is (outcome is not None)
    assert document.upgrade["state"] == state
    assert document.upgrade.get("outcome") == outcome


def test_close_of_nothing_is_nothing() -> None:
    document = Document()
    assert document.close(abandon=True, now=NOW) is False
    assert document.data == new_document()


def test_progress_counts_the_planned_steps() -> None:
    document = begun(Step("a", "1"), Step("b", "1"), Step("c", "1"))
    document.upgrade["steps"]["a@1"] = "succeeded"
    assert document.progress_percent() == 33
    assert document.pending() == ["b@1", "c@1"]
    assert Document().progress_percent() == 100


def test_advance_never_goes_back_and_rolling_back_only_from_the_middle() -> None:
    document = begun()
    document.advance("VALIDATING", now=NOW)
    document.advance("UPGRADING", now=NOW)
    assert document.upgrade["state"] == "VALIDATING"
    document.rolling_back(now=NOW)
    assert document.upgrade["state"] == "ROLLING_BACK"
    document.advance("UPGRADING", now=NOW)
    assert document.upgrade["state"] == "ROLLING_BACK"
    planning = begun()
    planning.rolling_back(now=NOW)
    assert planning.upgrade["state"] == "PLANNING"


def test_restore_points_are_kept_up_to_a_number_and_never_the_one_in_use() -> None:
    document = activated()
    for number in range(1, 6):
        document.add_restore_point("node_exporter", backup_id=f"b{number}", version=f"1.{number}.0", now=NOW)
    assert document.prune_restore_points(2) == ["b2", "b3"]
    kept = [point["id"] for point in document.component("node_exporter")["inventory"]["restore_points"]]
    assert kept == ["b1", "b4", "b5"]
    document.add_restore_point("node_exporter", backup_id="b5", version="1.5.0", now=LATER)
    assert [p["id"] for p in document.component("node_exporter")["inventory"]["restore_points"]] == kept


def settled(*backup_ids: str, backup_id: str | None) -> tuple[str | None, list[str], bool]:
    """Settle an attempt whose restore point is one of some: what it gives, what is left, whether one can go back."""
    document = activated()
    for each in backup_ids:
        document.add_restore_point("node_exporter", backup_id=each, version="1.5.0", now=NOW)
    document.set_component("node_exporter", "activated", now=NOW, backup_id=backup_id)
    forgotten = document.settle("node_exporter")
    record = document.component("node_exporter")
    left = [point["id"] for point in record.get("inventory", {}).get("restore_points", [])]
    return forgotten, left, bool(record.get("rollback_available"))


@pytest.mark.parametrize(
    ("backup_ids", "backup_id", "forgotten", "left"),
    [
        (["b1"], "b1", "b1", []),
        (["b0", "b1"], "b1", "b1", ["b0"]),
        (["b1", "b2"], "b1", "b1", ["b2"]),
        (["b0"], "b1", None, ["b0"]),
        (["b0"], None, None, ["b0"]),
        ([], "b1", None, []),
    ],
)
def test_settle_forgets_the_restore_point_of_what_was_undone_and_no_other(
    backup_ids: list[str], backup_id: str | None, forgotten: str | None, left: list[str]
) -> None:
    found = settled(*backup_ids, backup_id=backup_id)
    assert found[:2] == (forgotten, left)
    assert found[2] is (forgotten is not None and bool(left))


@pytest.mark.parametrize(
    ("outcomes", "abandon", "state", "outcome"),
    [
        (["succeeded", "succeeded"], False, "ROLLED_BACK", "rolled_back"),
        (["aborted", "succeeded"], False, "ROLLED_BACK", "rolled_back"),
        (["failed", "rolled_back"], False, "FAILED", "failed"),
        (["rolled_back", "pending"], False, "ROLLING_BACK", None),
        (["rolled_back", "pending"], True, "ROLLED_BACK", "rolled_back"),
        (["failed", "pending"], True, "FAILED", "failed"),
    ],
)
def test_an_upgrade_of_which_something_was_undone_never_ends_as_completed(
    outcomes: list[str], abandon: bool, state: str, outcome: str | None
) -> None:
    document = begun(Step("a", "1"), Step("b", "1"))
    document.advance("UPGRADING", now=NOW)
    document.rolling_back(now=NOW)
    document.upgrade["steps"] = dict(zip(("a@1", "b@1"), outcomes))
    assert document.close(abandon=abandon, now=LATER) is (outcome is not None)
    assert document.upgrade["state"] == state
    assert document.upgrade.get("outcome") == outcome
    assert document.pending() == [key for key, ended in document.upgrade["steps"].items() if ended == "pending"]


def test_the_next_phase_of_an_upgrade_that_rolls_back_goes_on_and_it_stays_so() -> None:
    document = begun(STEP, Step("loki", "3.0.0"))
    document.advance("UPGRADING", now=NOW)
    document.rolling_back(now=NOW)
    document.begin(RUN, steps=["loki@3.0.0"], details={"phase": "logging"}, now=LATER)
    document.advance("UPGRADING", now=LATER)
    assert (document.upgrade["state"], document.upgrade["phase"]) == ("ROLLING_BACK", "logging")
    assert document.pending() == [STEP.key, "loki@3.0.0"]


@pytest.mark.parametrize(
    ("step", "outcome", "error", "expected"),
    [
        (STEP, "rolled_back", "boom", True),
        (STEP, "rolled_back", "other", False),
        (STEP, "failed", "boom", False),
        (Step("node_exporter", "1.8.0"), "rolled_back", "boom", False),
        (Step("loki", "3.0.0"), "rolled_back", "boom", False),
    ],
    ids=["so", "another error", "another outcome", "another version", "another component"],
)
def test_how_a_step_has_ended_is_on_record(step: Step, outcome: str, error: str, expected: bool) -> None:
    document = activated()
    assert not document.has_ended(STEP, "rolled_back", error="boom")
    document.end_step(STEP, "rolled_back", now=LATER, error="boom")
    assert document.has_ended(step, outcome, error=error) is expected


def test_a_step_that_ended_so_in_an_earlier_upgrade_has_not_ended_in_this_one() -> None:
    document = verifying()
    document.end_step(STEP, "succeeded", now=NOW)
    document.close(abandon=False, now=NOW)
    assert document.has_ended(STEP, "succeeded")
    document.begin(OTHER_RUN, steps=[STEP.key], details={}, now=LATER)
    assert not document.has_ended(STEP, "succeeded")


def test_what_is_on_record_already_leaves_no_trace() -> None:
    document = activated()
    before = copy.deepcopy(document.data)
    document.set_component("node_exporter", "activated", now=LATER, backup_id="b1")
    document.begin(RUN, steps=[STEP.key], details={"phase": "exporters"}, now=LATER)
    assert document.data == before
    document.set_component("node_exporter", "activated", now=LATER, backup_id="b2")
    assert document.component("node_exporter")["updated_at"] == LATER


def test_names_are_data_and_never_expressions() -> None:
    step = Step("process-exporter.d/x@y", "1.0.0")
    document = verifying(step)
    document.end_step(step, "succeeded", now=NOW)
    assert document.component("process-exporter.d/x@y")["state"] == "success"


def test_unknown_keys_survive() -> None:
    data = new_document()
    data["from_the_future"] = {"a": 1}
    data["upgrade"]["x"] = 1
    data["components"]["node_exporter"] = {"state": "idle", "attempts": 0, "y": 2}
    document = Document(data)
    document.begin(RUN, steps=[STEP.key], details={}, now=NOW)
    document.start_step(STEP, from_version=None, now=NOW)
    assert document.data["from_the_future"] == {"a": 1}
    assert document.component("node_exporter")["y"] == 2


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (None, "state.damaged"),
        ([], "state.damaged"),
        ({}, "state.damaged"),
        ({**new_document(), "schema_version": "1"}, "state.damaged"),
        ({**new_document(), "schema_version": 99}, "state.newer_schema"),
        ({**new_document(), "upgrade": {"state": "DANCING"}}, "state.damaged"),
        ({**new_document(), "components": {"x": {"state": "dancing"}}}, "state.damaged"),
        ({**new_document(), "components": []}, "state.damaged"),
        ({**new_document(), "revision": None}, "state.damaged"),
    ],
)
def test_what_is_no_document_is_told_apart(data: t.Any, key: str) -> None:
    with pytest.raises(StateError) as failure:
        check_document(data)
    assert failure.value.key == key


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "start", "stage", "activate", "verify", "end", "undo", "close", "cut"]),
        st.sampled_from([STEP, Step("prometheus", "2.53.3"), Step("prometheus", "3.5.3")]),
        st.sampled_from(["succeeded", "aborted", "rolled_back", "failed"]),
    ),
    max_size=30,
)


@given(ACTIONS)
def test_whatever_is_done_in_whatever_order_the_document_stays_legal(
    actions: list[tuple[str, Step, str]],
) -> None:
    document = Document()
    calls: dict[str, t.Callable[[Step, str], t.Any]] = {
        "begin": lambda step, _outcome: document.begin(RUN, steps=[step.key], details={}, now=NOW),
        "start": lambda step, _outcome: document.start_step(step, from_version="1", now=NOW),
        "stage": lambda step, _outcome: document.set_component(step.component, "staged", now=NOW),
        "activate": lambda step, _outcome: document.set_component(step.component, "activated", now=NOW),
        "verify": lambda step, _outcome: document.set_component(step.component, "verifying", now=NOW),
        "end": lambda step, outcome: document.end_step(step, outcome, now=NOW),
        "undo": lambda _step, _outcome: document.rolling_back(now=NOW),
        "close": lambda _step, _outcome: document.close(abandon=True, now=NOW),
        "cut": lambda _step, _outcome: document.cut_off("u9", now=NOW),
    }
    for name, step, outcome in actions:
        before = {key: record["state"] for key, record in document.data["components"].items()}
        try:
            calls[name](step, outcome)
        except StateError as exc:
            if exc.key != "state.illegal_transition":
                raise
        check_document(document.data)
        for key, record in document.data["components"].items():
            here = before.get(key, "idle")
            assert record["state"] == here or record["state"] in COMPONENT_TRANSITIONS[here]


def test_what_could_not_be_undone_goes_on_from_where_it_stands_unless_somebody_has_replaced_it() -> None:
    kept = []
    for repaired in (False, True):
        document, step = Document(), Step("loki", "3.0.0")
        document.begin(RUN, steps=[step.key], details={}, now="t0")
        document.start_step(step, from_version="2.9.1", now="t1")
        document.set_component("loki", "staged", now="t2")
        files = [{"path": "/x", "before": "0", "after": "1"}]
        document.set_component("loki", "activated", now="t3", backup_id="b", files=files)
        document.end_step(step, "failed", now="t4", error="it broke")
        document.settle_repaired([] if repaired else ["loki"])
        document.start_step(step, from_version="3.0.0", now="t5")
        record = document.component("loki")
        kept.append((record["state"], record["backup_id"], record["from_version"], record["attempts"]))
    assert kept == [("activated", "b", "2.9.1", 2), ("checking", None, "3.0.0", 2)]
