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
import re
import typing as t

from . import _schema, _version
from ._errors import InputError, ReleaseError, StateError
from ._schema import OUTCOMES, SCHEMA_VERSION

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
    "failed": frozenset({"checking", "idle", "activated", "rolled_back"}),
}
TOUCHED = frozenset({"activated", "verifying"})
"""States in which the component's files may be other than they were: the line is crossed and nothing is proven yet."""

_OUTCOME_STATE = {"succeeded": "success", "aborted": "failed", "rolled_back": "rolled_back", "failed": "failed"}
_FINAL_STATE = {"succeeded": "COMPLETED", "aborted": "FAILED", "rolled_back": "ROLLED_BACK", "failed": "FAILED"}
_ATTEMPT = frozenset({"checking", "downloading", "staged", "activated", "verifying"})

_PHASE: dict[str, t.Any] = {"state": "pending", "steps": [], "started_at": None, "finished_at": None, "error": None}
_NO_HISTORY = {"head": None, "base": None}
_NAME = re.compile(_schema.NAME)
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FREE_TEXTS = ("user", "controller", "job", "origin", "boot")
_MAX_ERRORS = 50
_MAX_CHECKPOINTS = 50


class Step(t.NamedTuple):
    """What a step is known by: the component, and the version that the step leads to."""

    component: str
    to_version: str

    @property
    def key(self) -> str:
        return f"{self.component}@{self.to_version}"

    @classmethod
    def of(cls, key: str) -> Step:
        """The step of a key. The version has no C(@) in it; the component's own key may."""
        component, at, version = key.rpartition("@")
        return cls(component, version) if at else cls(key, "")

    @property
    def release(self) -> str:
        """The release that the step installs: one for all instances of a component."""
        return f"{name_of(self.component)}@{self.to_version}"


def name_of(key: str) -> str:
    """The component that a key stands for, as the catalog calls it: C(node_exporter) for C(node_exporter@9101)."""
    return key.partition("@")[0]


def is_accepted(finding: str, component: str | None, accept: t.Collection[str]) -> bool:
    """Whether the operator accepts a finding: by its own key, or by that of its component for all instances of it.

    :param finding: its key, such as C(node_exporter@9101.unhealthy).
    :param component: the key of the component that it is about; none if it is about the host.
    """
    if finding in accept:
        return True
    return component is not None and f"{name_of(component)}{finding[len(component) :]}" in accept


def check_key(key: t.Any) -> str:
    """The key of a component. Like a name, it may become that of a file.

    :raises InputError: as C(check_name).
    """
    name, at, suffix = key.partition("@") if isinstance(key, str) else (key, "", "")
    check_name("component", name)
    if at and not _SUFFIX.fullmatch(suffix):
        raise InputError(
            f"{_shortened(key)!r} can't be the key of a component: after the @ there must be the port or the unit of "
            "an instance",
            key="input.name",
        )
    if len(key) > _schema.MOST_KEY:
        raise InputError(
            f"{_shortened(key)!r} can't be the key of a component: it has {len(key)} characters, and may have "
            f"{_schema.MOST_KEY}",
            key="input.name",
        )
    return t.cast("str", key)


def check_name(what: str, name: t.Any, *, most: int = _schema.MOST_NAME) -> str:
    """An identifier or a name: of a run, a component, a version, a phase, a checkpoint, a restore point. It may become
    that of a file. C(docs/state.schema.json) states the same rule.

    :param most: characters that it may have.
    :raises InputError: if it could lead elsewhere, be read as something else, or be too long for a file's name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{_shortened(name)!r} can't be the name of a {what}: it must begin with a letter or a digit, and may have "
            "nothing but ASCII letters, digits and . _ + ~ - in it",
            key="input.name",
        )
    if len(name) > most:
        raise InputError(
            f"{_shortened(name)!r} can't be the name of a {what}: it has {len(name)} characters, and may have {most}",
            key="input.name",
        )
    return name


def check_backup_id(backup_id: t.Any) -> str:
    """The name of a restore point.

    :raises InputError: as C(check_name).
    """
    if not isinstance(backup_id, str):
        return check_name("restore point", backup_id)
    check_name("restore point", backup_id.replace("@", "."), most=_schema.MOST_BACKUP_ID)
    return backup_id


def check_run(run: dict[str, t.Any]) -> None:
    """Refuse a run whose identity can't be written down, before anything is.

    :raises InputError: naming the field.
    """
    check_name("run (run.upgrade_id)", run["upgrade_id"])
    for field in _FREE_TEXTS:
        check_text(f"run.{field}", run.get(field) or "")
    pid, ticks = run.get("pid"), run.get("start_ticks")
    if pid is not None and not 0 <= pid < 2**31:
        raise InputError(f"run.pid is {_shortened(pid)}, which is the number of no process", key="input.run")
    if ticks is not None and not 0 <= ticks < 2**53:
        raise InputError(f"run.start_ticks is {_shortened(ticks)}, which is no number of ticks", key="input.run")


def check_text(what: str, text: str) -> None:
    """Refuse a free text of one line that has something else in it.

    :raises InputError: naming it.
    """
    if len(text) > _schema.MOST_TEXT or _NOT_SHOWN.search(text):
        raise InputError(
            f"{what} is {_shortened(text)!r}: it may have {_schema.MOST_TEXT} characters, and none of them may be a "
            "control character or half of a surrogate pair",
            key="input.text",
        )


def clean(text: str | None) -> str | None:
    """A free text that can be kept: what no UTF-8 text can have is replaced, and what is too long is left out."""
    if text is None:
        return None
    kept = text.encode("utf-8", "replace").decode().replace("\0", "?")
    return kept if len(kept) <= _schema.MOST_TEXT else f"{kept[: _schema.MOST_TEXT - 3]}..."


def _shortened(value: t.Any) -> t.Any:
    return f"{value[: _schema.MOST_NAME]}..." if isinstance(value, str) and len(value) > _schema.MOST_NAME else value


def new_document() -> dict[str, t.Any]:
    """The document of a host on which nothing was ever done."""
    return {"schema_version": SCHEMA_VERSION, "revision": 0, "upgrade": {"state": "IDLE"}, "components": {}}


def check_document(data: t.Any) -> dict[str, t.Any]:
    """The data, if it is a state document that this version understands, down to its last field.

    :raises StateError: with what is wrong. A document of a newer schema is told apart, for it isn't damaged.
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise StateError("it is no state document", key="state.damaged")
    if version > SCHEMA_VERSION:
        raise StateError(
            f"its schema is version {_shortened(str(version))}, this collection knows up to {SCHEMA_VERSION}: "
            "use the newer collection that wrote it",
            key="state.newer_schema",
        )
    problem = _schema.problem(data, _schema.DOCUMENT)
    if problem:
        raise StateError(problem, key="state.damaged")
    return t.cast("dict[str, t.Any]", data)


def check_part(data: dict[str, t.Any], *place: str) -> None:
    """Check one part of a state document: a key of it, or a component.

    :raises StateError: with what is wrong.
    """
    shape, value = _schema.DOCUMENT, data
    for name in place:
        shape, value = shape.get("properties", {}).get(name, shape.get("additionalProperties", {})), value[name]
    names = {"propertyNames": _schema.DOCUMENT["properties"]["components"]["propertyNames"]} if len(place) > 1 else {}
    problem = _schema.problem({place[-1]: value}, {"type": "object", "properties": {place[-1]: shape}, **names})
    if problem:
        raise StateError(".".join([*place[:-1], problem]), key="state.damaged")


def is_unsettled(record: dict[str, t.Any]) -> bool:
    """Whether a component's files may be other than they were, and nobody has proven the new version or brought the old
    one back: an attempt was cut off, or could not be undone."""
    return record["state"] in TOUCHED or (record["state"] == "failed" and bool(record.get("files")))


def needs_restore_point(record: dict[str, t.Any]) -> str | None:
    """The restore point that a component can't do without: its step isn't proven yet, or could not be undone."""
    needed = is_unsettled(record) or record.get("outcome") == "failed"
    return record.get("backup_id") if needed else None


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

    @property
    def history(self) -> dict[str, t.Any]:
        """The sha256 of the newest archive, C(head), and of the last one that was pruned, C(base)."""
        return {**_NO_HISTORY, **self.data.get("history", {})}

    @property
    def manifest_number(self) -> int:
        """The highest number of a manifest of releases that this host has seen; 0 if it has seen none."""
        return t.cast("int", self.data.get("manifest_number", 0))

    def see_manifest(self, number: int | None) -> None:
        """Remember the number of the manifest that a release is taken by; None is none.

        :raises ReleaseError: if it is older than one that this host has seen.
        """
        if number is None:
            return
        if number < self.manifest_number:
            raise ReleaseError(
                f"the manifest has number {number}, but this host has seen number {self.manifest_number}: it is an old "
                "one that somebody brings back, or was numbered wrongly; get the current one",
                key="manifest.older",
            )
        self.data["manifest_number"] = number

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
        if not steps:
            return 0 if self.is_active() else 100
        return round(100 * (len(steps) - len(self.pending())) / len(steps))

    # -- the upgrade ----------------------------------------------------------------------------------------------

    def cut_off(self, by: str, *, now: str, ended_by: str = "next_run") -> None:
        """Close an upgrade that was left in the middle: C(by) says what becomes of what is left to do."""
        self.add_error(f"cut off in {self.upgrade['state']}; {by}", now=now)
        self._end_phases(abandon=True, now=now)
        self._set_upgrade("FAILED", now=now)
        self.upgrade.update(outcome="failed", finished_at=now, ended_by=ended_by)

    def begin(
        self,
        run: dict[str, t.Any],
        *,
        steps: t.Sequence[str] = (),
        phases: dict[str, list[str]] | None = None,
        details: dict[str, t.Any],
        now: str,
    ) -> None:
        """Start an upgrade and the phase C(details["phase"]) of it, or enter again what this run has begun.

        What is there stays: a step that has ended, a phase with all that became of it.

        :param phases: keys of the steps of each phase, in planned order. C(steps) alone are those of the phase.
        """
        phase = details.get("phase")
        planned = phases or ({phase: list(steps)} if phase else {})
        if self.is_active() and self.upgrade.get("upgrade_id") == run["upgrade_id"]:
            before = copy.deepcopy(self.upgrade)
            self._plan(steps, planned)
            self._start_phase(phase, now=now)
            if self.upgrade != before:
                self.upgrade["updated_at"] = now
            return
        self.data["upgrade"] = {
            "state": self.upgrade["state"],
            "upgrade_id": run["upgrade_id"],
            **details,
            "started_by": {key: clean(run[key]) for key in ("user", "controller", "job") if run.get(key)},
            "started_at": now,
            "finished_at": None,
            "component": None,
            "steps": {},
            "phases": {},
            "errors": [],
            "checkpoints": [],
        }
        self._plan(steps, planned)
        self._start_phase(phase, now=now)
        self._set_upgrade("PLANNING", now=now)

    def _plan(self, steps: t.Iterable[str], phases: dict[str, list[str]]) -> None:
        """Take steps and phases into the plan that aren't in it yet."""
        for name, keys in phases.items():
            elsewhere = {key for phase in self._phases().values() for key in phase["steps"]}
            phase = self._phases().setdefault(name, copy.deepcopy(_PHASE))
            phase["steps"] += [key for key in dict.fromkeys(keys) if key not in elsewhere]
        for key in (*steps, *(key for phase in self._phases().values() for key in phase["steps"])):
            self.upgrade["steps"].setdefault(key, "pending")

    def _phases(self) -> dict[str, dict[str, t.Any]]:
        return t.cast("dict[str, dict[str, t.Any]]", self.upgrade.setdefault("phases", {}))

    def _start_phase(self, name: str | None, *, now: str) -> None:
        if not name:
            return
        self.upgrade["phase"] = name
        phase = self._phases().setdefault(name, copy.deepcopy(_PHASE))
        done = phase["state"] == "completed" and not set(phase["steps"]) & set(self.pending())
        if phase["state"] != "in_progress" and not done:
            phase.update(state="in_progress", started_at=phase["started_at"] or now, finished_at=None, error=None)

    def _end_phases(self, *, abandon: bool, now: str) -> None:
        """End the phases that are under way, unless steps of them are left to do."""
        for phase in self._phases().values():
            outcomes = {key: self.upgrade["steps"].get(key) for key in phase["steps"]}
            left = [key for key, outcome in outcomes.items() if outcome == "pending"]
            if phase["state"] != "in_progress" or (left and not abandon):
                continue
            bad = [key for key, outcome in outcomes.items() if outcome not in ("pending", "succeeded")]
            error = f"it ended before {', '.join(left)}" if left else None
            if bad:
                error = self.component(Step.of(bad[0]).component).get("last_error") or f"{bad[0]}: {outcomes[bad[0]]}"
            phase.update(state="failed" if error else "completed", finished_at=now, error=error)

    def checkpoint(self, name: str, description: str | None, *, now: str) -> None:
        """Note that the upgrade has come to a point that somebody may look for. C(revision) is the document's that has
        it first."""
        self.check_active(f"checkpoint {name}")
        description = clean(description)
        points = self.upgrade.get("checkpoints", [])
        if any((point["name"], point.get("description")) == (name, description) for point in points):
            return
        point = {"name": name, "description": description, "at": now, "revision": self.data["revision"] + 1}
        others = [each for each in points if each["name"] != name]
        self.upgrade.update(checkpoints=[*others, point][-_MAX_CHECKPOINTS:], updated_at=now)

    def check_active(self, what: str) -> None:
        """Refuse what only an upgrade can have done to it.

        :raises StateError: if none is under way.
        """
        if not self.is_active():
            raise StateError(
                f"{what}: no upgrade is under way on this host, it is {self.upgrade['state']}. Begin one first, with "
                "action=begin of the module upgrade_state",
                key="state.no_upgrade",
            )

    def go_to(self, state: str, *, now: str) -> None:
        """Bring the upgrade to a state, forward through all that lie between.

        :raises StateError: if there is no way from where it is.
        """
        self.check_active(f"the upgrade can't go from {self.upgrade['state']} to {state}")
        here = self.upgrade["state"]
        if all(each in _UPGRADE_FORWARD for each in (here, state)):
            for following in _UPGRADE_FORWARD[_UPGRADE_FORWARD.index(here) + 1 : _UPGRADE_FORWARD.index(state)]:
                self._set_upgrade(following, now=now)
        if self.upgrade["state"] != state:
            self._set_upgrade(state, now=now)

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

    def fail_upgrade(self, error: str, *, now: str) -> None:
        """Note that the upgrade has failed, and its present phase, whatever became of its steps: C(close) ends it as
        C(FAILED). One that has ended as C(COMPLETED) is open again until then: a validation may come after its end."""
        if self.upgrade["state"] == "COMPLETED":
            self.upgrade.pop("outcome", None)
            self.upgrade.update(state="VALIDATING", finished_at=None)
        if not self.is_active():
            return
        error = clean(error) or "it failed"
        self.upgrade.update(failure=error, updated_at=now)
        self.add_error(error, now=now)
        phase = self._phases().get(self.upgrade.get("phase") or "")
        if phase is not None:
            phase.update(state="failed", finished_at=now, error=error)

    def close(self, *, abandon: bool, now: str, ended_by: str = "run") -> bool:
        """End the upgrade, unless steps are left to do. Whether it has ended by this.

        :param abandon: end it all the same; what was not done stays recorded as pending.
        """
        if not self.is_active():
            return False
        self._end_phases(abandon=abandon, now=now)
        if self.pending() and not abandon:
            return False
        outcome = self.outcome() if not self.pending() else max("aborted", self.outcome(), key=OUTCOMES.index)
        if self.upgrade["state"] == "ROLLING_BACK":
            outcome = max("rolled_back", outcome, key=OUTCOMES.index)
        if self.upgrade.get("failure"):
            outcome = "failed"
        final = _FINAL_STATE[outcome]
        if final == "COMPLETED":
            self.advance("VALIDATING", now=now)
        elif final == "ROLLED_BACK":
            self.advance("UPGRADING", now=now)  # what an earlier run had left was undone before this one came to it
            self.rolling_back(now=now)
        self._set_upgrade(final, now=now)
        self.upgrade.update(outcome=outcome, finished_at=now, component=None, ended_by=ended_by)
        return True

    def reset(self, *, now: str, unfinished: t.Collection[str] = ()) -> list[str]:
        """Acknowledge how the upgrade and its components have ended: all of them are idle again, and what is installed
        stays known. The components that can't be, for their files were touched and nothing is verified yet.

        :param unfinished: the components whose files are still those of an attempt.
        """
        if self.upgrade["state"] != "IDLE":
            self._set_upgrade("IDLE", now=now)
            self.data["upgrade"] = {"state": "IDLE", "updated_at": now}
        records = {name: record for name, record in self.data["components"].items() if record["state"] != "idle"}
        left = [name for name, record in records.items() if record["state"] in TOUCHED or name in unfinished]
        for name, record in records.items():
            if name in left:
                continue
            if "idle" not in COMPONENT_TRANSITIONS[record["state"]]:
                self._set_component(name, "failed", now=now)
            self._set_component(name, "idle", now=now)
            if record.get("files"):  # what could not be undone is taken as it is now
                record.update(files=[], backup_id=None)
            record.update(attempts=0, last_error=None, outcome=None)
        return left

    def add_error(self, message: str, *, now: str, component: str | None = None) -> None:
        entry = {"at": now, "message": clean(message), **({"component": component} if component else {})}
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

    def plan_step(self, step: Step) -> None:
        """Take a step into the plan of the upgrade, and of its present phase, unless it is in it.

        :raises StateError: if no upgrade is under way.
        """
        self.check_active(f"{step.key} can't be started")
        phase = self.upgrade.get("phase")
        self._plan([step.key], {phase: [step.key]} if phase else {})

    def start_step(self, step: Step, *, from_version: str | None, now: str) -> None:
        """Begin an attempt at a step, or go on with the one that this upgrade has begun.

        An attempt that crossed the line, and was cut off or could not be undone, goes on from where it stands, with its
        restore point and the version it came from: what is on disk now may be the broken one.
        """
        record = self.data["components"].setdefault(step.component, {"state": "idle", "attempts": 0})
        upgrade_id = self.upgrade.get("upgrade_id")
        same_target = record.get("to_version") == step.to_version and record["state"] not in ("idle", "success")
        unfinished = record["state"] not in ("idle", "success", "rolled_back", "failed")
        if same_target and unfinished and record.get("upgrade_id") == upgrade_id:
            return
        record["attempts"] = record.get("attempts", 0) + 1 if same_target else 1
        if is_unsettled(record):
            self.set_component(step.component, record["state"] if record["state"] in TOUCHED else "activated", now=now)
        else:
            was = record.get("from_version") if same_target else record.get("inventory", {}).get("current_version")
            self._set_component(step.component, "checking", now=now)
            record.update(from_version=from_version or was, started_at=now, files=[], backup_id=None)
            record.update(rollback_available=False, health_check_passed=None, outcome=None, skip_reason=None)
            record.update(restored_from=None)  # of an earlier rollback: this step is to another version
            record.pop("verified", None)
        record.update(to_version=step.to_version, upgrade_id=upgrade_id, finished_at=None, probe=None)
        self.upgrade["component"] = step.component
        if step.key in self.upgrade.get("steps", {}):
            self.upgrade["steps"][step.key] = "pending"

    def set_component(self, name: str, state: str, *, now: str, **fields: t.Any) -> None:
        """Bring a component to a state; its present one is no change. Fields go into its record with it."""
        if self.component(name)["state"] != state:
            self._set_component(name, state, now=now)
        record = self.data["components"][name]
        if state == "activated" and record.get("probe"):
            fields = {**fields, "probe": None}  # what it saw was before this
        if any(key not in record or record[key] != value for key, value in fields.items()):
            record.update(fields, updated_at=now)

    def check_begun(self, step: Step, *, well: bool) -> None:
        """Refuse to end a step that was never begun. One that an earlier upgrade has begun may be ended by the upgrade
        that has it in its plan.

        :param well: it is to end as succeeded. For a failure it is enough that it stands in the plan.
        :raises StateError: naming the version that the component is at.
        """
        record = self.component(step.component)
        is_at_it = record.get("to_version") == step.to_version
        is_planned = step.key in self.upgrade.get("steps", {})
        is_own = record.get("upgrade_id") == self.upgrade.get("upgrade_id")
        if is_at_it and (not well or is_own or (is_planned and record["state"] in (*TOUCHED, "success"))):
            return
        if is_planned and not well:
            return
        last = f"its last attempt is at {record['to_version']}" if record.get("to_version") else "it has no attempt"
        raise StateError(
            f"{step.key} can't be ended: it was never started in this upgrade; {last} ({record['state']}). Start it "
            "with action=start, or name the version that was started",
            key="state.not_started",
        )

    def is_confirmed_again(self, name: str) -> bool:
        """Whether a component is at a step of this upgrade that an earlier one has confirmed already."""
        record = self.component(name)
        key = Step(name, record.get("to_version", "")).key
        return bool(record["state"] == "success" and self.upgrade.get("steps", {}).get(key) == "pending")

    def skip_step(self, step: Step, *, files: list[dict[str, t.Any]], reason: str, now: str) -> None:
        """Note that the files of a step of this upgrade are in place already, unless its attempt has come further. Its
        process must be verified all the same; there is nothing to undo. A step that an earlier upgrade has confirmed
        stays so, with its restore point."""
        record = self.component(step.component)
        if self.is_confirmed_again(step.component) and record.get("to_version") == step.to_version:
            self.set_component(step.component, "success", now=now, skip_reason=reason)
            return
        if not self.is_active() or self.upgrade.get("steps", {}).get(step.key) != "pending" or is_unsettled(record):
            return
        self.start_step(step, from_version=None, now=now)
        if self.component(step.component)["state"] != "staged":
            self.set_component(step.component, "staged", now=now)
        sha256 = files[0]["after"] if files else None
        self.set_component(step.component, "activated", now=now, files=files, sha256=sha256, skip_reason=reason)

    def forget_probes(self, unit: str, *, now: str) -> None:
        """Note that a service was restarted, or has read its configuration again: what probes saw was before that."""
        for name, record in self.data["components"].items():
            if record.get("probe") and f"{record['probe'].get('unit', '').removesuffix('.service')}.service" == unit:
                self.set_component(name, record["state"], now=now, probe=None)

    def has_ended(self, step: Step, outcome: str, *, error: str | None = None) -> bool:
        """Whether the last attempt at a step is on record as ended so, in this upgrade."""
        record = self.component(step.component)
        recorded = [record.get(key) for key in ("state", "outcome", "to_version", "last_error", "upgrade_id")]
        wanted = [_OUTCOME_STATE[outcome], outcome, step.to_version, clean(error), self.upgrade.get("upgrade_id")]
        return recorded == wanted and self.upgrade.get("steps", {}).get(step.key, outcome) == outcome

    def end_step(self, step: Step, outcome: str, *, now: str, error: str | None = None, **fields: t.Any) -> None:
        """Record how a step ended. The error of the last attempt stays until one succeeds."""
        error = clean(error)
        passed = {"succeeded": True, "aborted": None}.get(outcome, False)
        self.set_component(step.component, _OUTCOME_STATE[outcome], now=now)
        record = self.data["components"][step.component]
        record.update(outcome=outcome, finished_at=now, last_error=None if outcome == "succeeded" else error)
        record.update(health_check_passed=passed, **fields)
        if outcome != "failed":
            record["files"] = []
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

    def add_restore_point(self, name: str, *, backup_id: str, version: str | None, now: str, **fields: t.Any) -> None:
        record = self.data["components"].setdefault(name, {"state": "idle", "attempts": 0})
        inventory = record.setdefault("inventory", {})
        points = [point for point in inventory.get("restore_points", []) if point["id"] != backup_id]
        inventory["restore_points"] = [*points, {"id": backup_id, "version": version, "created_at": now, **fields}]

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

    def forget_restore_point(self, backup_id: str) -> None:
        """Take a restore point out of the inventory.

        :raises StateError: if a component can't do without it.
        """
        for name, record in self.data["components"].items():
            if needs_restore_point(record) == backup_id:
                raise StateError(
                    f"restore point {backup_id} is what {name} ({record['state']}) would be brought back from: it is "
                    "kept until its upgrade is proven or undone. Run the playbook upgrade or rollback first",
                    key="state.restore_point_needed",
                )
        for record in self.data["components"].values():
            points = record.get("inventory", {}).get("restore_points", [])
            kept = [point for point in points if point["id"] != backup_id]
            if kept != points:
                record["inventory"]["restore_points"] = kept
                record["rollback_available"] = bool(kept)

    def forget_restore_points_of(self, name: str) -> list[str]:
        """Take all restore points of a component out of the inventory. Their ids.

        :raises StateError: if nothing is known of the component, or it can't do without one of them; none is taken out
            then.
        """
        record = self.data["components"].get(name)
        if record is None:
            raise StateError(f"nothing is known of {name} on this host: it has no restore points", key="state.unknown")
        ids = [point["id"] for point in record.get("inventory", {}).get("restore_points", [])]
        needed = {needs_restore_point(record) for record in self.data["components"].values()}
        for backup_id in sorted(ids, key=lambda each: each not in needed):  # one that is needed is refused first
            self.forget_restore_point(backup_id)
        return ids

    def settle_repaired(self, unfinished: t.Collection[str]) -> None:
        """Take failures for settled whose files somebody has replaced since: the next attempt begins at what is there.

        :param unfinished: the components whose files are still those of an attempt.
        """
        for name, record in self.data["components"].items():
            if is_unsettled(record) and name not in unfinished:
                record.update(files=[], backup_id=None)

    def prune_restore_points(self, keep: int) -> list[str]:
        """Forget all but the newest restore points of each component. The ids of those that may be deleted."""
        dropped = []
        for record in self.data["components"].values():
            points = record.get("inventory", {}).get("restore_points", [])
            needed = needs_restore_point(record)
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


def unverified(record: dict[str, t.Any]) -> str:
    """Why no probe has verified what a component's attempt has put in place; empty if one has. Whether the process that
    it looked at still runs is for others to see."""
    probe, wanted = record.get("probe"), record.get("to_version")
    if not probe:
        return "no probe has ended since its files were put in place"
    if not probe["passed"]:
        return "its last probe did not pass"
    if probe["version"] not in (None, wanted) and not _version.same_version(probe["version"], wanted):
        return f"its last probe asked for version {probe['version']}"
    return ""


def why_lost(document: Document, upgrade_id: str) -> tuple[str, str]:
    """Why a run has lost its host, as far as the host's state tells: a word for it, and a sentence."""
    upgrade = document.upgrade
    if upgrade.get("upgrade_id") != upgrade_id:
        if upgrade.get("resumes") == upgrade_id or upgrade.get("took_over", {}).get("upgrade_id") == upgrade_id:
            return "taken_over", f"upgrade {upgrade['upgrade_id']} took over the host"
        return "not_begun", "it was never begun on this host, or another upgrade has begun here since"
    at = f" at {upgrade['finished_at']}" if upgrade.get("finished_at") else ""
    if upgrade.get("ended_by") == "watchdog":
        errors = [error["message"] for error in upgrade.get("errors", [])]
        return "watchdog", f"the host's rollback watchdog has undone the step by itself{at}: {(errors or ['?'])[-1]}"
    if upgrade.get("unlocked_by"):
        return "unlocked", f"its lock was taken from it by force, by {upgrade['unlocked_by']}"
    if not document.is_active():
        return "ended", f"it has ended on this host as {upgrade['state']}{at}"
    return "released", "its lease was given back or taken since"
