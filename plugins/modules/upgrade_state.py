#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_state
short_description: Write the record of upgrades on a host
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - The record is one JSON document on the host. It is written durably, whole or not at all, under the host's lock.
  - It knows the upgrade of the host, in upper case, and each component, in lower case. What may follow what is a table;
    anything else is refused with both states named. Both tables are in C(docs/state.md).
  - A module of a run acts only while the host's lease is that run's. It is taken with O(action=begin) and given back
    with O(action=close); whoever lost it meanwhile is refused.
  - Each action can be repeated. What is on record already is no change.
options:
  action:
    description:
      - V(begin) takes the lease and starts the upgrade with O(phases) or O(steps), and its phase O(phase), or enters
        again what this run began. One that another run left is closed, as failed if steps of it were left to do, and
        this one goes on.
      - V(advance) brings the upgrade to O(state), forward through all that lie between.
      - V(start) begins an attempt at the step O(component), O(version). One that isn't planned joins the present phase.
      - V(confirm) ends this step as succeeded, and adds the version to the inventory. It is refused unless the files
        that were put in place are there, the last M(observability.stack.health_probe) of this attempt passed, for this
        version, and the process that it looked at still runs.
      - V(fail) ends it with O(outcome) and O(error). The step must be in the plan of the upgrade, or have been started.
        V(outcome=aborted) and V(outcome=rolled_back) are refused while a file of the step isn't what it was before.
      - V(checkpoint) notes that the upgrade has come to the point O(name).
      - V(mark) makes a restore point of O(paths) for O(component), beside those that the upgrade makes by itself. One
        that is there already is kept as it is.
      - V(forget) removes the restore point O(backup_id), or all restore points of O(component). It is refused if an
        unfinished step would be undone with one of them.
      - V(close) ends the phases that have no step left, and the upgrade if all its steps have ended. Then it archives
        it in the history, and removes restore points beyond O(keep), archives beyond O(history_keep) and
        O(history_days), and left-over candidates but those that were brought ahead of another upgrade. The lease is
        given back in any case. RV(finished) tells what came of it. With O(error), the upgrade and its present phase
        have failed, whatever became of the steps. The upgrade ends as C(FAILED), even if steps are left, or if it has
        ended as C(COMPLETED) before.
      - V(reset) acknowledges an upgrade that has ended. It and its components are idle again; what is installed stays
        known. A component whose files are those of an attempt that was neither verified nor undone stays as it is.
    type: str
    choices: [begin, advance, start, confirm, fail, checkpoint, mark, forget, close, reset]
    required: true
  phases:
    description:
      - For O(action=begin), the steps of each phase as C(component@version), in planned order.
      - What is on record already stays, with all that became of it.
    type: dict
  steps:
    description: For O(action=begin), steps as C(component@version). Without O(phases) they are those of O(phase).
    type: list
    elements: str
    default: []
  kind:
    description: What kind of upgrade it is, for O(action=begin).
    type: str
    choices: [upgrade, rollback]
    default: upgrade
  mode:
    description: The mode of the run, for the record.
    type: str
    default: standard
  phase:
    description: The phase that O(action=begin) starts.
    type: str
  plan_digest:
    description: Digest of the plan that is carried out, for the record.
    type: str
  state:
    description: Where O(action=advance) leads. How an upgrade ends is up to O(action=close).
    type: str
    choices: [PLANNING, BACKING_UP, UPGRADING, VALIDATING, ROLLING_BACK]
  component:
    description: The component of the step, or of the restore points.
    type: str
  version:
    description:
      - The version that the step leads to.
      - For O(action=mark), the version of what O(paths) are now. By default that of the inventory.
    type: str
  from_version:
    description: The version that is in place before, for O(action=start). By default that of the inventory.
    type: str
  paths:
    description:
      - Where the component's files are, for the inventory, with O(action=confirm). By default those that were swapped.
      - The files to keep, with O(action=mark).
    type: list
    elements: path
    default: []
  path_kind:
    description: What O(paths) are, for O(action=mark).
    type: str
    choices: [binary, unit, config, state]
    default: binary
  name:
    description: Name of the checkpoint, or of the restore point that O(action=mark) makes.
    type: str
  description:
    description: What the checkpoint is about.
    type: str
  backup_id:
    description: The restore point to forget.
    type: str
  outcome:
    description:
      - How the step ended, for O(action=fail).
      - V(aborted) means that nothing was touched, V(rolled_back) that the old version is back and verified, V(failed)
        that manual intervention is required.
    type: str
    choices: [aborted, rolled_back, failed]
  error:
    description:
      - What went wrong, for O(action=fail) and O(action=close).
      - It is recorded without what looks like a secret, and cut after 4096 characters.
    type: str
  abandon:
    description: End the upgrade even if steps are left, for O(action=close).
    type: bool
    default: false
  keep:
    description: Restore points to keep for each component, for O(action=close). From V(0) to V(1000000).
    type: int
    default: 3
  history_keep:
    description: Archives of upgrades to keep, for O(action=close). From V(0) to V(1000000).
    type: int
    default: 50
  history_days:
    description: Days after which an archive is removed, for O(action=close). V(0) is never. At most V(36500).
    type: int
    default: 0
  force:
    description: With O(action=reset), end an upgrade that is under way as failed.
    type: bool
    default: false
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
seealso:
  - module: observability.stack.upgrade_state_info
  - module: observability.stack.upgrade_lock
"""

EXAMPLES = r"""
- name: Begin an upgrade of two phases with the first of them
  observability.stack.upgrade_state:
    action: begin
    run: "{{ lookup('observability.stack.upgrade_run') }}"
    phase: exporters
    phases:
      exporters: [node_exporter@1.9.0, blackbox_exporter@0.26.0]
      metrics: [prometheus@3.5.3]
  become: true

- name: Keep a file that the upgrade itself doesn't touch
  observability.stack.upgrade_state:
    action: mark
    run: "{{ lookup('observability.stack.upgrade_run') }}"
    component: prometheus
    name: rules
    path_kind: config
    paths: [/etc/prometheus/rules.yml]
  become: true

- name: End the phase, and the upgrade if it was the last one
  observability.stack.upgrade_state:
    action: close
    run: "{{ lookup('observability.stack.upgrade_run') }}"
  become: true
  register: closed

- name: Record that the final validation failed
  observability.stack.upgrade_state:
    action: close
    error: The dashboards show no data
    run: "{{ lookup('observability.stack.upgrade_run') }}"
  become: true
"""

RETURN = r"""
document:
  description: The record after the action. See C(docs/state.schema.json).
  returned: success
  type: dict
finished:
  description: Whether no upgrade is under way after the action.
  returned: success
  type: bool
progress_percent:
  description: How many of its steps have ended, in percent.
  returned: success
  type: int
backup_id:
  description: The restore point that was made, or was there.
  returned: O(action=mark)
  type: str
  sample: run-3fa9c294d01c.prometheus-2.53.3.rules
"""

import copy
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _baseline, _candidates, _guard, _overview, _process, _restore_point, _store
from ..module_utils._command import run
from ..module_utils._errors import HostError, InputError, LockedError, StateError
from ..module_utils._module import arguments, run_module
from ..module_utils._redaction import redact_text
from ..module_utils._state import (
    ACTIVE,
    Document,
    Step,
    check_backup_id,
    check_key,
    check_name,
    is_unsettled,
    unverified,
)

if t.TYPE_CHECKING:
    Action = t.Callable[[dict[str, t.Any], _store.Session], t.Optional[dict[str, t.Any]]]


def begin(params: dict[str, t.Any], session: _store.Session) -> None:
    document = session.document
    run_id = params["run"]["upgrade_id"]
    details = {key: params[key] for key in ("kind", "mode", "phase", "plan_digest")}
    left = document.upgrade.get("upgrade_id")
    if document.is_active() and left != run_id:
        there = f"upgrade {left} was left in {document.upgrade['state']}"
        if document.upgrade.get("steps") and document.close(abandon=False, now=session.now):
            session.warnings.append(f"{there}, with all its steps ended; it is closed as {document.upgrade['state']}")
        else:
            session.warnings.append(f"{there}; this run goes on with it")
            document.cut_off(f"upgrade {run_id} goes on", now=session.now)
            details["resumes"] = left
        session.archive()
    document.settle_repaired(_store.unfinished(document.data["components"]))
    document.begin(params["run"], steps=params["steps"], phases=params["phases"], details=details, now=session.now)
    if session.took_over:
        document.upgrade["took_over"] = session.took_over
    session.save()


def _check_plan(params: dict[str, t.Any]) -> None:
    """Refuse phases, steps and numbers that are none.

    :raises InputError: naming the first.
    """
    for option, most in _MOST.items():
        if not 0 <= params[option] <= most:
            raise InputError(f"{option} is {params[option]}: it must be from 0 to {most}", key="input.number")
    phases = params["phases"] or {}
    for name in phases:
        check_name("phase", name)
    wrong = [name for name, keys in phases.items() if not isinstance(keys, list)]
    if wrong:
        raise InputError(f"phases: {', '.join(wrong)} must be a list of steps, each as component@version")
    keys = [*params["steps"], *(key for found in phases.values() for key in found)]
    for key in keys:
        step = Step.of(str(key))
        check_key(step.component)
        check_name("version", step.to_version)


def advance(params: dict[str, t.Any], session: _store.Session) -> None:
    session.document.go_to(params["state"], now=session.now)
    session.save()


def start(params: dict[str, t.Any], session: _store.Session) -> None:
    step = Step(params["component"], params["version"])
    session.document.plan_step(step)
    session.document.start_step(step, from_version=params["from_version"], now=session.now)
    session.save()


def confirm(params: dict[str, t.Any], session: _store.Session) -> None:
    step = Step(params["component"], params["version"])
    document = session.document
    if not document.has_ended(step, "succeeded"):
        record = document.component(step.component)
        if record["state"] in ("verifying", "success"):  # of the others the table of transitions tells what is wrong
            document.check_begun(step, well=True)
            _check_verified(step, record)
        sha256, swapped = record.get("sha256"), [file["path"] for file in record.get("files", [])]
        document.end_step(step, "succeeded", now=session.now, upgrade_id=document.upgrade.get("upgrade_id"))
        paths = params["paths"] or swapped
        document.installed(step.component, step.to_version, paths=paths, sha256=sha256, now=session.now)
        session.save()
    _guard.disarm_finished(run, session)
    if step.release not in {Step.of(key).release for key in document.pending()}:
        session.remove_tree(session.layout.staging(step.release))


def _check_verified(step: Step, record: dict[str, t.Any]) -> None:
    """Refuse to end a step as succeeded without evidence: its files are in place, and the process that runs now is the
    one that a probe has found healthy.

    :raises StateError: saying what is missing.
    """
    missing = _store.unlike(record, "after")
    if missing:
        raise StateError(
            f"{step.key} can't be confirmed: {', '.join(missing)} isn't the file that was put in place. Put it there "
            "again with safe_binary_swap, or undo the step",
            key="state.not_in_place",
        )
    why = unverified(record)
    if not why and not _process.is_alive(record["probe"]):
        why = "the process that its probe looked at has ended: the service was restarted or the host rebooted since"
    if why:
        raise StateError(
            f"{step.key} can't be confirmed: {why}. Run health_probe with component={step.component} and confirm it "
            "when that has passed",
            key="state.not_verified",
        )


def _error(params: dict[str, t.Any]) -> str | None:
    """The reason of a failure, without what looks like a secret."""
    return params["error"] and redact_text(params["error"])


def fail(params: dict[str, t.Any], session: _store.Session) -> None:
    step, error = Step(params["component"], params["version"]), _error(params)
    document = session.document
    if document.has_ended(step, params["outcome"], error=error):
        return
    if document.has_ended(step, "succeeded"):
        session.warnings.append(f"{step.key} is confirmed already, and stays so: what failed came after it")
        return
    document.check_begun(step, well=False)
    record = document.component(step.component)
    if record["state"] in _ENDED or record.get("to_version") != step.to_version:
        document.start_step(step, from_version=None, now=session.now)
    if session.writable:
        _check_undone(step, document.component(step.component), params["outcome"])
    document.end_step(step, params["outcome"], now=session.now, error=error)
    settled = document.settle(step.component) if params["outcome"] == "rolled_back" else None
    session.save()
    _guard.disarm_finished(run, session)
    if settled:
        session.remove_tree(session.layout.backup(settled))


def _check_undone(step: Step, record: dict[str, t.Any], outcome: str) -> None:
    """Refuse to record that a step is undone, or never touched anything, against what is at the paths of its files.

    :raises StateError: naming the files.
    """
    if outcome == "failed" or not is_unsettled(record):
        return
    present = _store.unlike(record, "before")
    if present:
        point = record.get("backup_id") or "(there is none)"
        raise StateError(
            f"{step.key} can't be recorded as {outcome}: {', '.join(present)} isn't what it was before. Nothing was "
            f"recorded, and its restore point {point} is kept. Put the old files back with safe_binary_swap and "
            "state=restored, and then give outcome=rolled_back; or give outcome=failed",
            key="state.not_undone",
        )


def checkpoint(params: dict[str, t.Any], session: _store.Session) -> None:
    session.document.checkpoint(params["name"], params["description"], now=session.now)
    session.save()


def mark(params: dict[str, t.Any], session: _store.Session) -> dict[str, t.Any]:
    document, name = session.document, params["component"]
    document.check_active(f"a restore point of {name} can't be made")
    version = params["version"] or document.component(name).get("inventory", {}).get("current_version")
    label = f"{name}-{version or 'unknown'}.{params['name'] or 'marked'}"
    backup_id = check_backup_id(f"{document.upgrade['upgrade_id']}.{label}")
    missing = [path for path in params["paths"] if not os.path.isfile(path)]
    if missing or not params["paths"]:
        raise HostError(
            f"no restore point of {name} was made: there is no file at {', '.join(missing) or 'any path'}",
            key="restore_point.no_file",
        )
    if session.writable or os.path.isdir(session.layout.backup(backup_id)):
        files = [_restore_point.Original(params["path_kind"], path) for path in params["paths"]]
        manifest = _restore_point.create(session, backup_id=backup_id, component=name, version=version, files=files)
        if [(entry.kind, entry.path) for entry in manifest.entries] != [(file.kind, file.path) for file in files]:
            raise StateError(
                f"restore point {backup_id} is there, and holds other files: "
                f"{', '.join(entry.path for entry in manifest.entries)}. Give the new one another name",
                key="state.restore_point_exists",
            )
    listed = document.component(name).get("inventory", {}).get("restore_points", [])
    if backup_id not in [point["id"] for point in listed]:
        document.add_restore_point(name, backup_id=backup_id, version=version, now=session.now, marked=True)
        document.set_component(name, document.component(name)["state"], now=session.now, rollback_available=True)
    session.save()
    return {"backup_id": backup_id}


def forget(params: dict[str, t.Any], session: _store.Session) -> dict[str, t.Any] | None:
    if params["component"]:
        backup_ids = session.document.forget_restore_points_of(params["component"])
    else:
        backup_ids = [params["backup_id"]]
        session.document.forget_restore_point(params["backup_id"])
    directories = [session.layout.backup(backup_id) for backup_id in backup_ids]
    there = [os.path.lexists(directory) for directory in directories]
    session.save()
    for directory in directories:
        session.remove_tree(directory)
    _leave(session)
    return {"changed": True} if any(there) else None


def close(params: dict[str, t.Any], session: _store.Session) -> None:
    document = session.document
    _check_own(params["run"], session)
    _guard.disarm_finished(run, session)
    error = _error(params)
    if error:
        document.fail_upgrade(error, now=session.now)
        session.save()  # an upgrade that had ended is closed by the next run, if this one dies before it is archived
    archives: list[str] = []
    if document.close(abandon=params["abandon"] or bool(error), now=session.now):
        doomed = document.prune_restore_points(params["keep"])
        session.archive()
        archives = session.prune_history(keep=params["history_keep"], days=params["history_days"])
        for backup_id in doomed:
            session.remove_tree(session.layout.backup(backup_id))
        _restore_point.sweep(session)
        _candidates.sweep(session)
        _baseline.sweep(session)
    # The record goes last: whoever is cut off before leaves an upgrade that isn't closed, and the next run closes it.
    session.release()
    session.save()
    session.remove_archives(archives)


def reset(params: dict[str, t.Any], session: _store.Session) -> None:
    document = session.document
    if document.is_active():
        if not params["force"]:
            raise StateError(
                f"upgrade {document.upgrade['upgrade_id']} is in {document.upgrade['state']}, and can't be "
                "acknowledged before it has ended. Run the playbook upgrade or rollback, which finish it, or set force "
                "to leave it",
                key="state.under_way",
            )
        document.cut_off("it was reset by force", now=session.now, ended_by="reset")
        session.archive()
    left = document.reset(now=session.now, unfinished=_store.unfinished(document.data["components"]))
    if left:
        session.warnings.append(
            f"{', '.join(left)} can't be acknowledged: its files were touched, and neither the new version is proven "
            "nor the old one back. Run the playbook upgrade or rollback to settle it"
        )
    session.save()
    _leave(session)


def _leave(session: _store.Session) -> None:
    """Give the lease back, if it was taken for this one action."""
    if session.acquired:
        session.release()


def _check_own(run: dict[str, t.Any] | None, session: _store.Session) -> None:
    """A run ends its own upgrade only, even where its lease was released before it came to that. One in check mode has
    none to end."""
    there = session.document.upgrade.get("upgrade_id")
    if session.writable and run is not None and there not in (None, run["upgrade_id"]):
        _leave(session)
        raise LockedError(
            f"upgrade {run['upgrade_id']} can't be closed: upgrade {there} has begun on this host since, and goes on "
            "with what was left. This run must not go on here; see the playbook status",
            key="lock.lost",
        )


ACTIONS: dict[str, Action] = {
    "begin": begin,
    "advance": advance,
    "start": start,
    "confirm": confirm,
    "fail": fail,
    "checkpoint": checkpoint,
    "mark": mark,
    "forget": forget,
    "close": close,
    "reset": reset,
}
_ACQUIRE = frozenset({"begin", "close", "forget", "reset"})
_ENDED = frozenset({"idle", "success", "rolled_back", "failed"})
_MOST = {"keep": 1_000_000, "history_keep": 1_000_000, "history_days": 36_500}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    _check_plan(params)
    with _store.session(
        params["state_dir"],
        run=params["run"],
        acquire=params["action"] in _ACQUIRE,
        check_mode=module.check_mode,
    ) as session:
        before, shown = copy.deepcopy(session.document.data), _overview.summary(session.document, "")
        told = ACTIONS[params["action"]](params, session) or {}
        diff = {"before": f"{shown}\n", "after": f"{_overview.summary(session.document, '')}\n"}
        result = {"changed": before != session.document.data, "diff": diff}
        return {**result, **_facts(session.document), **told, "warnings": session.warnings}


def _facts(document: Document) -> dict[str, t.Any]:
    return {
        "document": document.data,
        "finished": document.upgrade["state"] not in ACTIVE,
        "progress_percent": document.progress_percent(),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            action={"type": "str", "choices": list(ACTIONS), "required": True},
            phases={"type": "dict"},
            steps={"type": "list", "elements": "str", "default": []},
            kind={"type": "str", "choices": ["upgrade", "rollback"], "default": "upgrade"},
            mode={"type": "str", "default": "standard"},
            phase={"type": "str"},
            plan_digest={"type": "str"},
            state={"type": "str", "choices": ["PLANNING", "BACKING_UP", "UPGRADING", "VALIDATING", "ROLLING_BACK"]},
            component={"type": "str"},
            version={"type": "str"},
            from_version={"type": "str"},
            paths={"type": "list", "elements": "path", "default": []},
            path_kind={"type": "str", "choices": list(_restore_point.KINDS), "default": "binary"},
            name={"type": "str"},
            description={"type": "str"},
            backup_id={"type": "str"},
            outcome={"type": "str", "choices": ["aborted", "rolled_back", "failed"]},
            error={"type": "str"},
            abandon={"type": "bool", "default": False},
            keep={"type": "int", "default": 3},
            history_keep={"type": "int", "default": 50},
            history_days={"type": "int", "default": 0},
            force={"type": "bool", "default": False},
        ),
        required_if=[
            ("action", "begin", ("run",)),
            ("action", "advance", ("state",)),
            ("action", "start", ("component", "version")),
            ("action", "confirm", ("component", "version")),
            ("action", "fail", ("component", "version", "outcome", "error")),
            ("action", "checkpoint", ("name",)),
            ("action", "mark", ("component",)),
            ("action", "forget", ("backup_id", "component"), True),
        ],
        supports_check_mode=True,
    )
    run_module(module, act)


if __name__ == "__main__":
    main()
