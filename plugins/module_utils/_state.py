# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. The one document on a host that says what is being done to it and what was done.

Two lifecycles stand side by side, each as a table: the host's upgrade (upper case) and each component's step (lower
case). All operations take the time as an argument and change the document in memory; C(_store.py) writes it.
"""

from __future__ import annotations

import copy
import typing as t

from ._errors import StateError

SCHEMA_VERSION = 1

# Where the upgrade of a host may go from each state. The first five are its way forward.
UPGRADE_TRANSITIONS: dict[str, frozenset[str]] = {
    "IDLE": frozenset({"PLANNING"}),
    "PLANNING": frozenset({"BACKING_UP", "FAILED"}),
    "BACKING_UP": frozenset({"UPGRADING", "FAILED"}),
    "UPGRADING": frozenset({"VALIDATING", "ROLLING_BACK", "FAILED"}),
    "VALIDATING": frozenset({"COMPLETED", "ROLLING_BACK", "FAILED"}),
    "ROLLING_BACK": frozenset({"ROLLED_BACK", "FAILED"}),
    "COMPLETED": frozenset({"IDLE", "PLANNING"}),
    "ROLLED_BACK": frozenset({"IDLE", "PLANNING"}),
    "FAILED": frozenset({"IDLE", "PLANNING"}),
}
_UPGRADE_FORWARD = ("PLANNING", "BACKING_UP", "UPGRADING", "VALIDATING", "COMPLETED")
FINISHED = frozenset({"COMPLETED", "ROLLED_BACK", "FAILED"})
ACTIVE = frozenset(UPGRADE_TRANSITIONS) - FINISHED - {"IDLE"}

# Where a component may go. A new attempt begins with `checking`, from wherever an earlier one ended or was cut off
# before it touched anything; what was cut off after that goes on from where it stands.
COMPONENT_TRANSITIONS: dict[str, frozenset[str]] = {
    "idle": frozenset({"checking"}),
    "checking": frozenset({"checking", "downloading", "staged", "failed", "idle"}),
    "downloading": frozenset({"checking", "staged", "failed"}),
    "staged": frozenset({"checking", "activated", "failed", "idle"}),
    "activated": frozenset({"activated", "verifying", "rolled_back", "failed"}),
    "verifying": frozenset({"activated", "verifying", "success", "rolled_back", "failed"}),
    "success": frozenset({"checking", "idle"}),
    "rolled_back": frozenset({"checking", "idle"}),
    "failed": frozenset({"checking", "idle", "rolled_back"}),
}
TOUCHED = frozenset({"activated", "verifying"})
"""States in which the component's files may be other than they were: the line is crossed and nothing is proven yet."""

OUTCOMES = ("succeeded", "aborted", "rolled_back", "failed")
"""How a step ends, and an upgrade: the worst of its steps, in this order."""

_OUTCOME_STATE = {"succeeded": "success", "aborted": "failed", "rolled_back": "rolled_back", "failed": "failed"}
_FINAL_STATE = {"succeeded": "COMPLETED", "aborted": "FAILED", "rolled_back": "ROLLED_BACK", "failed": "FAILED"}
_MAX_ERRORS = 50


class Step(t.NamedTuple):
    """What a step is known by: the component, and the version that the step leads to."""

    component: str
    to_version: str

    @property
    def key(self) -> str:
        return f"{self.component}@{self.to_version}"


def new_document() -> dict[str, t.Any]:
    """The document of a host on which nothing was ever done."""
    return {"schema_version": SCHEMA_VERSION, "revision": 0, "upgrade": {"state": "IDLE"}, "components": {}}


def check_document(data: t.Any) -> dict[str, t.Any]:
    """The data, if it is a state document that this version understands.

    :raises StateError: with what is wrong. A document of a newer schema is told apart, for it isn't damaged.
    """
    if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
        raise StateError("it is no state document", key="state.damaged")
    if data["schema_version"] > SCHEMA_VERSION:
        raise StateError(
            f"its schema is version {data['schema_version']}, this collection knows up to {SCHEMA_VERSION}: "
            "use the newer collection that wrote it",
            key="state.newer_schema",
        )
    upgrade, components = data.get("upgrade"), data.get("components")
    if not isinstance(upgrade, dict) or upgrade.get("state") not in UPGRADE_TRANSITIONS:
        raise StateError("its upgrade has no known state", key="state.damaged")
    if not isinstance(components, dict) or not isinstance(data.get("revision"), int):
        raise StateError("its components or its revision are missing", key="state.damaged")
    for name, record in components.items():
        if not isinstance(record, dict) or record.get("state") not in COMPONENT_TRANSITIONS:
            raise StateError(f"its component {name} has no known state", key="state.damaged")
    return data


class Document:
    """The state document and every change it can undergo. Keys that this version doesn't know stay where they are."""

    def __init__(self, data: dict[str, t.Any] | None = None) -> None:
        self.data = check_document(copy.deepcopy(data)) if data is not None else new_document()

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def upgrade(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.data["upgrade"])

    def component(self, name: str) -> dict[str, t.Any]:
        """A component's record; an idle one if nothing was ever done to it."""
        record = self.data["components"].get(name)
        return record if record is not None else {"state": "idle", "attempts": 0}

    def is_active(self) -> bool:
        return self.upgrade["state"] in ACTIVE

    def pending(self) -> list[str]:
        """Keys of the steps of this upgrade that have not ended yet."""
        return [key for key, outcome in self.upgrade.get("steps", {}).items() if outcome == "pending"]

    def outcome(self) -> str:
        """The worst outcome of the steps that have ended."""
        ended = [outcome for outcome in self.upgrade.get("steps", {}).values() if outcome in OUTCOMES]
        return max(ended, key=OUTCOMES.index, default="succeeded")

    def progress_percent(self) -> int:
        """How many of the planned steps have ended, in percent of all."""
        steps = self.upgrade.get("steps", {})
        return 100 if not steps else round(100 * (len(steps) - len(self.pending())) / len(steps))

    # -- the upgrade ----------------------------------------------------------------------------------------------

    def cut_off(self, by: str, *, now: str) -> None:
        """Close an upgrade that another run left in the middle: the run C(by) takes over what is left to do."""
        self.add_error(f"cut off in {self.upgrade['state']}; upgrade {by} goes on", now=now)
        self._set_upgrade("FAILED", now=now)
        self.upgrade.update(outcome="failed", finished_at=now)

    def begin(self, run: dict[str, t.Any], *, steps: list[str], details: dict[str, t.Any], now: str) -> None:
        """Start an upgrade, or enter again the one that this run has begun."""
        if self.is_active() and self.upgrade.get("upgrade_id") == run["upgrade_id"]:
            planned = {**self.upgrade["steps"], **{key: "pending" for key in steps if key not in self.upgrade["steps"]}}
            if (planned, details.get("phase")) != (self.upgrade["steps"], self.upgrade.get("phase")):
                self.upgrade.update(steps=planned, phase=details.get("phase"), updated_at=now)
            return
        self.data["upgrade"] = {
            "state": self.upgrade["state"],
            "upgrade_id": run["upgrade_id"],
            **details,
            "started_by": {key: run[key] for key in ("user", "controller", "job") if run.get(key)},
            "started_at": now,
            "finished_at": None,
            "component": None,
            "steps": dict.fromkeys(steps, "pending"),
            "errors": [],
            "checkpoints": [],
        }
        self._set_upgrade("PLANNING", now=now)

    def advance(self, state: str, *, now: str) -> None:
        """Bring the upgrade forward to a state, through all that lie between. One that is past it already stays."""
        goal, here = _UPGRADE_FORWARD.index(state), self.upgrade["state"]
        if here in _UPGRADE_FORWARD:
            for following in _UPGRADE_FORWARD[_UPGRADE_FORWARD.index(here) + 1 : goal + 1]:
                self._set_upgrade(following, now=now)

    def rolling_back(self, *, now: str) -> None:
        """Note that something of this upgrade is being undone."""
        if self.upgrade["state"] in ("UPGRADING", "VALIDATING"):
            self._set_upgrade("ROLLING_BACK", now=now)

    def close(self, *, abandon: bool, now: str) -> bool:
        """End the upgrade, unless steps are left to do. Whether it has ended.

        :param abandon: end it all the same; what was not done stays recorded as pending.
        """
        if not self.is_active() or (self.pending() and not abandon):
            return False
        outcome = self.outcome() if not self.pending() else max("aborted", self.outcome(), key=OUTCOMES.index)
        if self.upgrade["state"] == "ROLLING_BACK":
            outcome = max("rolled_back", outcome, key=OUTCOMES.index)
        final = _FINAL_STATE[outcome]
        if final == "COMPLETED":
            self.advance("VALIDATING", now=now)
        elif final == "ROLLED_BACK":
            self.rolling_back(now=now)
        self._set_upgrade(final, now=now)
        self.upgrade.update(outcome=outcome, finished_at=now, component=None)
        return True

    def add_error(self, message: str, *, now: str, component: str | None = None) -> None:
        entry = {"at": now, "message": message, **({"component": component} if component else {})}
        self.upgrade["errors"] = [*self.upgrade.get("errors", []), entry][-_MAX_ERRORS:]

    def _set_upgrade(self, state: str, *, now: str) -> None:
        here = self.upgrade["state"]
        if state not in UPGRADE_TRANSITIONS[here]:
            raise StateError(
                f"the upgrade can't go from {here} to {state}; from {here} it may go to "
                f"{', '.join(sorted(UPGRADE_TRANSITIONS[here]))}",
                key="state.illegal_transition",
            )
        self.upgrade.update(state=state, updated_at=now)

    # -- a component ----------------------------------------------------------------------------------------------

    def start_step(self, step: Step, *, from_version: str | None, now: str) -> None:
        """Begin an attempt at a step, or go on with the one that this upgrade has begun.

        An attempt that crossed the line and was cut off goes on from where it stands, with its restore point and the
        version it came from: what is on disk now may be the broken one.
        """
        record = self.data["components"].setdefault(step.component, {"state": "idle", "attempts": 0})
        upgrade_id = self.upgrade.get("upgrade_id")
        same_target = record.get("to_version") == step.to_version
        unfinished = record["state"] not in ("idle", "success", "rolled_back", "failed")
        if same_target and unfinished and record.get("upgrade_id") == upgrade_id:
            return
        record["attempts"] = record.get("attempts", 0) + 1 if same_target else 1
        if record["state"] not in TOUCHED:
            self._set_component(step.component, "checking", now=now)
            record.update(from_version=from_version, started_at=now, files=[], backup_id=None)
            record.update(rollback_available=False, health_check_passed=None, outcome=None, skip_reason=None)
        record.update(to_version=step.to_version, upgrade_id=upgrade_id, finished_at=None)
        self.upgrade["component"] = step.component

    def set_component(self, name: str, state: str, *, now: str, **fields: t.Any) -> None:
        """Bring a component to a state; its present one is no change. Fields go into its record with it."""
        if self.component(name)["state"] != state:
            self._set_component(name, state, now=now)
        record = self.data["components"][name]
        if any(key not in record or record[key] != value for key, value in fields.items()):
            record.update(fields, updated_at=now)

    def has_ended(self, step: Step, outcome: str, *, error: str | None = None) -> bool:
        """Whether the last attempt at a step is on record as ended so, in this upgrade."""
        record = self.component(step.component)
        recorded = [record.get(key) for key in ("state", "outcome", "to_version", "last_error", "upgrade_id")]
        wanted = [_OUTCOME_STATE[outcome], outcome, step.to_version, error, self.upgrade.get("upgrade_id")]
        return recorded == wanted and self.upgrade.get("steps", {}).get(step.key, outcome) == outcome

    def end_step(self, step: Step, outcome: str, *, now: str, error: str | None = None, **fields: t.Any) -> None:
        """Record how a step ended. The error of the last attempt stays until one succeeds."""
        passed = {"succeeded": True, "aborted": None}.get(outcome, False)
        self.set_component(step.component, _OUTCOME_STATE[outcome], now=now)
        record = self.data["components"][step.component]
        record.update(outcome=outcome, finished_at=now, last_error=None if outcome == "succeeded" else error)
        record.update(health_check_passed=passed, files=[], **fields)
        if "steps" in self.upgrade:
            self.upgrade["steps"][step.key] = outcome
        if error:
            self.add_error(error, now=now, component=step.component)

    def installed(self, name: str, version: str, *, paths: list[str], sha256: str | None, now: str) -> None:
        """Take a proven version into the component's inventory."""
        inventory = self.data["components"][name].setdefault("inventory", {})
        if inventory.get("current_version") != version:
            inventory["previous_version"] = inventory.get("current_version") or self.component(name).get("from_version")
        inventory.setdefault("installed_at", now)
        inventory.update(current_version=version, upgraded_at=now, paths=paths, sha256=sha256)

    def add_restore_point(self, name: str, *, backup_id: str, version: str | None, now: str) -> None:
        inventory = self.data["components"][name].setdefault("inventory", {})
        points = [point for point in inventory.get("restore_points", []) if point["id"] != backup_id]
        inventory["restore_points"] = [*points, {"id": backup_id, "version": version, "created_at": now}]

    def settle(self, name: str) -> str | None:
        """Forget the restore point of an attempt that was undone: what it held is in place again, and it must not push
        out those of older versions. Its id, if there is one."""
        record = self.data["components"][name]
        points = record.get("inventory", {}).get("restore_points", [])
        if not any(point["id"] == record.get("backup_id") for point in points):
            return None
        record["inventory"]["restore_points"] = [point for point in points if point["id"] != record["backup_id"]]
        record["rollback_available"] = bool(record["inventory"]["restore_points"])
        return t.cast("str", record["backup_id"])

    def prune_restore_points(self, keep: int) -> list[str]:
        """Forget all but the newest restore points of each component. The ids of those that may be deleted."""
        dropped = []
        for record in self.data["components"].values():
            points = record.get("inventory", {}).get("restore_points", [])
            needed = record.get("backup_id") if record["state"] in TOUCHED else None
            old = [point["id"] for point in points[: max(0, len(points) - keep)] if point["id"] != needed]
            if old:
                record["inventory"]["restore_points"] = [point for point in points if point["id"] not in old]
                dropped.extend(old)
        return dropped

    def _set_component(self, name: str, state: str, *, now: str) -> None:
        record = self.data["components"].setdefault(name, {"state": "idle", "attempts": 0})
        here = record["state"]
        if state not in COMPONENT_TRANSITIONS[here]:
            raise StateError(
                f"{name} can't go from {here} to {state}; from {here} it may go to "
                f"{', '.join(sorted(COMPONENT_TRANSITIONS[here]))}",
                key="state.illegal_transition",
            )
        record.update(state=state, updated_at=now)
