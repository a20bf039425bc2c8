# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is done to a host's record, in whatever order: what is on disk stays legal, and means what it says.

Each rule is one module's session. A model that knows nothing but the tables and a few sentences stands beside it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import pathlib
import tempfile
import typing as t

import jsonschema
import pytest
from ansible_collections.observability.stack.plugins.module_utils import _store
from ansible_collections.observability.stack.plugins.module_utils._errors import StateError
from ansible_collections.observability.stack.plugins.module_utils._state import (
    ACTIVE,
    COMPONENT_TRANSITIONS,
    FINISHED,
    OUTCOMES,
    TOUCHED,
    UPGRADE_TRANSITIONS,
    Document,
    Step,
    new_document,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

Data = dict[str, t.Any]
SCHEMA = json.loads((pathlib.Path(__file__).parents[2] / "docs/state.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FORWARD = ("PLANNING", "BACKING_UP", "UPGRADING", "VALIDATING", "COMPLETED")
ENDS = {"succeeded": "success", "aborted": "failed", "rolled_back": "rolled_back", "failed": "failed"}
CLOSES = {"succeeded": "COMPLETED", "aborted": "FAILED", "rolled_back": "ROLLED_BACK", "failed": "FAILED"}
LOOSE = ("idle", "success")
"""States after which an attempt counts as the first one."""

NAMES = st.sampled_from(["loki", "node_exporter"])
VERSIONS = st.sampled_from(["1.9.0", "2.0.0"])
STEPS = st.builds(Step, NAMES, VERSIONS)
RUNS = st.sampled_from(["u1", "u2"])
PHASES = st.sampled_from(["exporters", "logging", None])


class Machine(RuleBasedStateMachine):
    """A host's record on disk, and what it must say of the upgrade and of each component."""

    @initialize()
    def arrive(self) -> None:
        self.directory = tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
        self.root = pathlib.Path(self.directory.name, "state")
        self.seconds = 1_800_000_000.0
        self.upgrade_state, self.upgrade_id = "IDLE", None
        self.revision = 0
        self.components: dict[str, Data] = {}
        self.strange: list[tuple[tuple[str, ...], str, int]] = []
        self.written = self.validated = b""

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.directory.cleanup()

    # -- one session ----------------------------------------------------------------------------------------------

    @property
    def now(self) -> str:
        return _store.timestamp(self.seconds)

    def content(self) -> bytes:
        path = self.root / "state.json"
        return path.read_bytes() if path.exists() else b""

    def document(self) -> Data:
        return t.cast("Data", json.loads(self.content() or json.dumps(new_document())))

    def session(self) -> t.ContextManager[_store.Session]:
        self.seconds += 1
        return _store.session(str(self.root), clock=lambda: self.seconds)

    def act(
        self, change: t.Callable[[Document], t.Any], *, legal: bool = True, names: tuple[str, str] = ("", "")
    ) -> t.Any:
        """Make a change in a session of its own, and save it twice. What is not legal must be refused with both states
        named, and leave the disk as it was."""
        if not legal:
            with self.session() as session, pytest.raises(StateError) as failure:
                change(session.document)
            assert all(f" {name}" in f" {failure.value}" for name in names)
            return None
        before = self.document()
        with self.session() as session:
            told = change(session.document)
            changed = session.document.data != before or not self.written
            session.save()
            session.save()
        self.revision += changed
        self.written = self.content()
        return told

    # -- the upgrade ----------------------------------------------------------------------------------------------

    def goes_to(self, state: str) -> None:
        self.upgrade_state = state

    @rule(upgrade_id=RUNS, steps=st.lists(STEPS, max_size=3, unique=True), phase=PHASES)
    def begin(self, upgrade_id: str, steps: list[Step], phase: str | None) -> None:
        again = self.upgrade_state in ACTIVE and self.upgrade_id == upgrade_id
        legal = again or "PLANNING" in UPGRADE_TRANSITIONS[self.upgrade_state]
        run = {"upgrade_id": upgrade_id, "user": "ops", "controller": "c1"}
        self.act(
            lambda document: document.begin(
                run, steps=[step.key for step in steps], details={"phase": phase}, now=self.now
            ),
            legal=legal,
            names=(self.upgrade_state, "PLANNING"),
        )
        if legal and not again:
            # What a version of tomorrow wrote into an upgrade is in its archive; the next one begins without.
            self.strange = [item for item in self.strange if item[0][:1] != ("upgrade",)]
            self.upgrade_id = upgrade_id
            self.goes_to("PLANNING")

    @rule(state=st.sampled_from(sorted(UPGRADE_TRANSITIONS)))
    def go_to(self, state: str) -> None:
        here = self.upgrade_state
        onward = here in FORWARD and state in FORWARD and FORWARD.index(state) > FORWARD.index(here)
        legal = here in ACTIVE and (state == here or onward or state in UPGRADE_TRANSITIONS[here])
        self.act(lambda document: document.go_to(state, now=self.now), legal=legal, names=(here, state))
        if legal:
            self.goes_to(state)

    @rule(state=st.sampled_from(FORWARD[:-1]))
    def advance(self, state: str) -> None:
        self.act(lambda document: document.advance(state, now=self.now))
        here = self.upgrade_state
        if here in FORWARD[:-1] and FORWARD.index(state) > FORWARD.index(here):
            self.goes_to(state)

    @rule()
    def roll_back(self) -> None:
        self.act(lambda document: document.rolling_back(now=self.now))
        if self.upgrade_state in ("UPGRADING", "VALIDATING"):
            self.goes_to("ROLLING_BACK")

    @rule()
    def cut_off(self) -> None:
        legal = self.upgrade_state in ACTIVE
        self.act(
            lambda document: document.cut_off("another goes on", now=self.now),
            legal=legal,
            names=(self.upgrade_state, "FAILED"),
        )
        if legal:
            self.goes_to("FAILED")
            assert self.document()["upgrade"]["outcome"] == "failed"

    @rule(abandon=st.booleans())
    def close(self, abandon: bool) -> None:
        outcomes = list(self.document()["upgrade"].get("steps", {}).values())
        has_ended = self.act(lambda document: document.close(abandon=abandon, now=self.now))
        assert has_ended == (self.upgrade_state in ACTIVE and (abandon or "pending" not in outcomes))
        if has_ended:
            least = ["aborted"] * ("pending" in outcomes) + ["rolled_back"] * (self.upgrade_state == "ROLLING_BACK")
            known = [outcome for outcome in outcomes if outcome != "pending"]
            worst = max([*known, *least, "succeeded"], key=OUTCOMES.index)
            upgrade = self.document()["upgrade"]
            assert (upgrade["outcome"], upgrade["finished_at"]) == (worst, self.now)
            assert all(phase["state"] != "in_progress" for phase in upgrade["phases"].values())
            self.goes_to(CLOSES[worst])

    @rule(name=st.sampled_from(["before", "after"]), description=st.sampled_from([None, "half way"]))
    def checkpoint(self, name: str, description: str | None) -> None:
        legal = self.upgrade_state in ACTIVE
        self.act(
            lambda document: document.checkpoint(name, description, now=self.now),
            legal=legal,
            names=(self.upgrade_state, ""),
        )
        if legal:
            points = self.document()["upgrade"]["checkpoints"]
            assert [point["description"] for point in points if point["name"] == name] == [description]
            assert all(point["revision"] <= self.revision for point in points)

    @rule()
    def reset(self) -> None:
        legal = self.upgrade_state not in ACTIVE
        left = self.act(lambda document: document.reset(now=self.now), legal=legal, names=(self.upgrade_state, "IDLE"))
        if not legal:
            return
        if self.upgrade_state != "IDLE":
            self.strange = [item for item in self.strange if item[0][:1] != ("upgrade",)]
            self.upgrade_id = None
        self.goes_to("IDLE")
        assert set(left) == {name for name, model in self.components.items() if model["state"] in TOUCHED}
        for name, model in self.components.items():
            if name not in left and model["state"] != "idle":
                model.update(state="idle", attempts=0, last_error=None, outcome=None)

    # -- a component ----------------------------------------------------------------------------------------------

    def model(self, name: str) -> Data:
        return self.components.setdefault(name, {"state": "idle", "attempts": 0, "points": []})

    @rule(step=STEPS, from_version=st.sampled_from([None, "1.0.0"]))
    def start(self, step: Step, from_version: str | None) -> None:
        model = self.model(step.component)
        self.act(lambda document: document.start_step(step, from_version=from_version, now=self.now))
        aims_at = model.get("to_version") == step.to_version and model["state"] not in LOOSE
        ended = model["state"] in {*LOOSE, *ENDS.values()}
        if aims_at and not ended and model["upgrade_id"] == self.upgrade_id:
            return  # it goes on
        model["attempts"] = model["attempts"] + 1 if aims_at else 1
        if model["state"] not in TOUCHED:
            was = model.get("from_version") if aims_at else model.get("current_version")
            model.update(state="checking", started_at=self.now, from_version=from_version or was)
            model.update(backup_id=None, outcome=None)
        model.update(to_version=step.to_version, upgrade_id=self.upgrade_id)

    @rule(step=STEPS)
    def plan(self, step: Step) -> None:
        legal = self.upgrade_state in ACTIVE
        self.act(lambda document: document.plan_step(step), legal=legal, names=(self.upgrade_state, ""))
        assert not legal or step.key in self.document()["upgrade"]["steps"]

    @rule(name=NAMES, state=st.sampled_from(sorted(COMPONENT_TRANSITIONS)))
    def set_component(self, name: str, state: str) -> None:
        self.move(name, state)

    @rule(name=NAMES, choice=st.integers(0, 9))
    def follow_the_table(self, name: str, choice: int) -> None:
        """As C(set_component), but only where the table leads, so that far ends of it are reached."""
        onward = sorted(COMPONENT_TRANSITIONS[self.model(name)["state"]])
        self.move(name, onward[choice % len(onward)])

    def move(self, name: str, state: str) -> None:
        model = self.model(name)
        known = name in self.document()["components"]
        legal = state in COMPONENT_TRANSITIONS[model["state"]] or (known and state == model["state"])
        if not legal and state == model["state"]:
            return  # nothing was ever done to it
        backup_id = (
            {"backup_id": f"{name}-{self.seconds:.0f}"} if state == "activated" and model["state"] == "staged" else {}
        )
        self.act(
            lambda document: document.set_component(name, state, now=self.now, **backup_id),
            legal=legal,
            names=(model["state"], state),
        )
        if legal:
            model.update(state=state, **backup_id)

    @rule(step=STEPS, outcome=st.sampled_from(OUTCOMES))
    def end(self, step: Step, outcome: str) -> None:
        model, state = self.model(step.component), ENDS[outcome]
        legal = state == model["state"] or state in COMPONENT_TRANSITIONS[model["state"]]
        error = None if outcome == "succeeded" else f"it broke at {self.seconds:.0f}"
        self.act(
            lambda document: document.end_step(step, outcome, now=self.now, error=error),
            legal=legal,
            names=(model["state"], state),
        )
        if legal:
            model.update(state=state, last_error=error, outcome=outcome)

    @rule(step=STEPS, far=st.integers(0, 4), outcome=st.sampled_from(OUTCOMES))
    def go_through(self, step: Step, far: int, outcome: str) -> None:
        """A step as its modules go through it, cut off somewhere or ended."""
        self.start(step, None)
        for state in ("staged", "activated", "verifying")[:far]:
            self.move(step.component, state)
        if far > 3:
            self.end(step, outcome)

    @rule(step=STEPS, state=st.sampled_from(FORWARD[:-1]), outcome=st.sampled_from(OUTCOMES), abandon=st.booleans())
    def come_and_go(self, step: Step, state: str, outcome: str, abandon: bool) -> None:
        """A whole run, that ends what an earlier one may have left."""
        if self.upgrade_state in ACTIVE:
            self.cut_off()
        self.begin("u3", [step], "exporters")
        self.advance(state)
        self.go_through(step, 4, outcome)
        self.close(abandon)

    @rule(name=NAMES, version=VERSIONS)
    def install(self, name: str, version: str) -> None:
        if name not in self.document()["components"]:
            return
        self.act(lambda document: document.installed(name, version, paths=["/x"], sha256="a" * 64, now=self.now))
        self.model(name)["current_version"] = version

    # -- restore points -------------------------------------------------------------------------------------------

    def needed(self, model: Data) -> str | None:
        in_doubt = model["state"] in TOUCHED or model.get("outcome") == "failed"
        return model.get("backup_id") if in_doubt else None

    @rule(name=NAMES)
    def mark(self, name: str) -> None:
        model = self.model(name)
        unlisted = model.get("backup_id") not in [None, *model["points"]]
        backup_id = model["backup_id"] if unlisted else f"{name}-{self.seconds:.0f}-marked"
        self.act(lambda document: document.add_restore_point(name, backup_id=backup_id, version="1.0.0", now=self.now))
        model["points"].append(backup_id)

    @rule(name=NAMES)
    def settle(self, name: str) -> None:
        if name not in self.document()["components"]:
            return
        model = self.model(name)
        own = model.get("backup_id") if model.get("backup_id") in model["points"] else None
        assert self.act(lambda document: document.settle(name)) == own
        model["points"] = [point for point in model["points"] if point != own]

    @rule(keep=st.integers(0, 2))
    def prune(self, keep: int) -> None:
        dropped = self.act(lambda document: document.prune_restore_points(keep))
        for model in self.components.values():
            old = model["points"][: max(0, len(model["points"]) - keep)]
            doomed = [point for point in old if point != self.needed(model)]
            model["points"] = [point for point in model["points"] if point not in doomed]
            assert set(doomed) <= set(dropped)
        assert not set(dropped) & {self.needed(model) for model in self.components.values()}

    @precondition(lambda self: any(model["points"] for model in self.components.values()))
    @rule(choice=st.integers(0, 99))
    def forget(self, choice: int) -> None:
        points = [point for model in self.components.values() for point in model["points"]]
        point = points[choice % len(points)]
        legal = point not in [self.needed(model) for model in self.components.values()]
        self.act(lambda document: document.forget_restore_point(point), legal=legal, names=(point, ""))
        for model in self.components.values():
            model["points"] = [each for each in model["points"] if each != point or not legal]

    # -- the store ------------------------------------------------------------------------------------------------

    @rule(place=st.sampled_from([(), ("upgrade",), ("components", "loki")]), value=st.integers())
    def write_of_tomorrow(self, place: tuple[str, ...], value: int) -> None:
        """A newer collection adds a key that this one doesn't know."""
        if place[:1] == ("components",) and "loki" not in self.document()["components"]:
            return
        key = f"of_tomorrow_{self.seconds:.0f}"

        def add(document: Document) -> None:
            functools.reduce(operator.getitem, place, document.data)[key] = value

        self.act(add)
        self.strange.append((place, key, value))

    @rule()
    def look(self) -> None:
        """A module that changes nothing writes nothing, and one that dies before it saves leaves nothing behind."""
        self.act(lambda document: None)
        with contextlib.suppress(KeyboardInterrupt), self.session() as session:
            session.document.data["lost"] = True
            raise KeyboardInterrupt

    # -- what holds at any time -----------------------------------------------------------------------------------

    @invariant()
    def all_is_as_it_must_be(self) -> None:
        if not hasattr(self, "root"):
            return
        assert self.content() == self.written
        document = self.document()
        if self.written != self.validated:
            VALIDATOR.validate(document)
            self.validated = self.written
        assert document["revision"] == self.revision
        assert not list(self.root.glob("*damaged*"))
        self.check_upgrade(document["upgrade"])
        for name, model in self.components.items():
            self.check_component(name, document["components"].get(name, {"state": "idle", "attempts": 0}), model)
        for place, key, value in self.strange:
            assert functools.reduce(operator.getitem, place, document)[key] == value

    def check_upgrade(self, upgrade: Data) -> None:
        assert (upgrade["state"], upgrade.get("upgrade_id")) == (self.upgrade_state, self.upgrade_id)
        assert upgrade["state"] not in FINISHED or set(upgrade) >= {"steps", "phases", "errors"}

    def check_component(self, name: str, record: Data, model: Data) -> None:
        for key in ("state", "attempts", "to_version", "from_version", "started_at", "last_error", "backup_id"):
            assert record.get(key) == model.get(key), (name, key)
        listed = [point["id"] for point in record.get("inventory", {}).get("restore_points", [])]
        assert listed == model["points"]


Machine.TestCase.settings = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
TestWhateverIsDone = Machine.TestCase


@pytest.mark.parametrize("abandon", [True, False])
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("state", FORWARD[:-1])
def test_a_run_whose_steps_have_ended_can_be_closed(state: str, outcome: str, abandon: bool) -> None:
    """Also one that found a component in the middle, and came no further than its plan before that was undone."""
    machine = Machine()
    machine.arrive()
    try:
        for _again in range(2):
            machine.come_and_go(Step("loki", "2.0.0"), state, outcome, abandon)
            machine.all_is_as_it_must_be()
            assert machine.upgrade_state in FINISHED
    finally:
        machine.teardown()
