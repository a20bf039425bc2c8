#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_state
short_description: Read and write the record of upgrades on a host
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - The record is one JSON document on the host. It is written durably, whole or not at all, under the host's lock.
  - It knows the upgrade of the host, in upper case, and each component, in lower case. What may follow what is a table;
    anything else is refused with both states named.
options:
  action:
    description:
      - V(get) reads the record and changes nothing.
      - V(begin) takes the lease and starts the upgrade with O(steps), or enters again the one that this run began. One
        that another run left unfinished is closed as failed, and this one goes on.
      - V(confirm) ends the step O(component), O(version) as succeeded, and takes the version into the inventory. Only a
        step whose component has been probed can be confirmed.
      - V(fail) ends the step with O(outcome) and O(error).
      - V(close) ends the upgrade if all its steps have ended, archives it in C(history), and removes restore points
        beyond O(keep) and left-over candidates. The lease is given back in any case.
    type: str
    choices: [get, begin, confirm, fail, close]
    default: get
  steps:
    description: All steps planned for the host, as C(component@version), for O(action=begin).
    type: list
    elements: str
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
    description: The phase of the run, for the record.
    type: str
  plan_digest:
    description: Digest of the plan that is carried out, for the record.
    type: str
  component:
    description: The component of the step, for O(action=confirm) and O(action=fail).
    type: str
  version:
    description: The version that the step leads to, for O(action=confirm) and O(action=fail).
    type: str
  paths:
    description: Where the component's files are, for the inventory, with O(action=confirm).
    type: list
    elements: path
    default: []
  outcome:
    description:
      - How the step ended, for O(action=fail).
      - V(aborted) is before anything was touched, V(rolled_back) is undone and the old version proven, V(failed) needs
        a person.
    type: str
    choices: [aborted, rolled_back, failed]
  error:
    description: What went wrong, for O(action=fail).
    type: str
  abandon:
    description: End the upgrade even if steps are left, for O(action=close).
    type: bool
    default: false
  keep:
    description: Restore points to keep for each component, for O(action=close).
    type: int
    default: 3
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
"""

EXAMPLES = r"""
- name: Read the record
  observability.stack.upgrade_state:
  become: true
  register: record

- name: Begin an upgrade of two components
  observability.stack.upgrade_state:
    action: begin
    run: "{{ lookup('observability.stack.upgrade_run') }}"
    phase: exporters
    steps:
      - node_exporter@1.9.0
      - blackbox_exporter@0.26.0
  become: true
"""

RETURN = r"""
document:
  description: The record after the action. See C(docs/state.schema.json).
  returned: success
  type: dict
finished:
  description: Whether the upgrade has ended.
  returned: success
  type: bool
progress_percent:
  description: How many of its steps have ended, in percent.
  returned: success
  type: int
lease:
  description: Who has the host now. Empty if nobody has.
  returned: O(action=get)
  type: dict
"""

import copy
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _guard, _lease, _store
from ..module_utils._command import run
from ..module_utils._errors import LockedError
from ..module_utils._module import arguments, differences, run_module
from ..module_utils._state import ACTIVE, Document, Step


def begin(params: dict[str, t.Any], session: _store.Session) -> None:
    document = session.document
    run_id = params["run"]["upgrade_id"]
    details = {key: params[key] for key in ("kind", "mode", "phase", "plan_digest")}
    left = document.upgrade.get("upgrade_id")
    if document.is_active() and left != run_id:
        session.warnings.append(f"upgrade {left} was left in {document.upgrade['state']}; this run goes on with it")
        document.cut_off(f"upgrade {run_id} goes on", now=session.now)
        session.archive()
        details["resumes"] = left
    document.begin(params["run"], steps=params["steps"], details=details, now=session.now)
    if session.took_over:
        document.upgrade["took_over"] = session.took_over
    session.save()


def confirm(params: dict[str, t.Any], session: _store.Session) -> None:
    step = Step(params["component"], params["version"])
    document = session.document
    if not document.has_ended(step, "succeeded"):
        sha256 = document.component(step.component).get("sha256")
        document.end_step(step, "succeeded", now=session.now)
        document.installed(step.component, step.to_version, paths=params["paths"], sha256=sha256, now=session.now)
        session.save()
    _guard.disarm_finished(run, session)
    session.remove_tree(session.layout.staging(step.key))


def fail(params: dict[str, t.Any], session: _store.Session) -> None:
    step = Step(params["component"], params["version"])
    document = session.document
    if document.has_ended(step, params["outcome"], error=params["error"]):
        return
    if document.component(step.component)["state"] in ("idle", "success", "rolled_back", "failed"):
        document.start_step(step, from_version=None, now=session.now)
    document.end_step(step, params["outcome"], now=session.now, error=params["error"])
    settled = document.settle(step.component) if params["outcome"] == "rolled_back" else None
    session.save()
    _guard.disarm_finished(run, session)
    if settled:
        session.remove_tree(session.layout.backup(settled))


def close(params: dict[str, t.Any], session: _store.Session) -> None:
    document = session.document
    _check_own(params["run"], document)
    _guard.disarm_finished(run, session)
    if document.close(abandon=params["abandon"], now=session.now):
        doomed = document.prune_restore_points(params["keep"])
        session.save()
        session.archive()
        for backup_id in doomed:
            session.remove_tree(session.layout.backup(backup_id))
        for left_over in os.listdir(session.layout.staging()) if session.writable else []:
            session.remove_tree(session.layout.staging(left_over))
    session.release()


def _check_own(run: dict[str, t.Any] | None, document: Document) -> None:
    """A run ends its own upgrade only, even where its lease was released before it came to that."""
    there = document.upgrade.get("upgrade_id")
    if run is not None and there not in (None, run["upgrade_id"]):
        raise LockedError(
            f"upgrade {run['upgrade_id']} can't be closed: upgrade {there} has begun on this host since, and goes on "
            "with what was left. This run must not go on here; see the playbook status",
            key="lock.lost",
        )


ACTIONS = {"begin": begin, "confirm": confirm, "fail": fail, "close": close}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if params["action"] == "get":
        lease = _store.read_lease(params["state_dir"])
        document = Document(_store.peek(params["state_dir"]))
        held = lease if _lease.holder(lease, now=time.time()) else {}
        return {"changed": False, **_facts(document), "lease": held}
    with _store.session(
        params["state_dir"],
        run=params["run"],
        acquire=params["action"] in ("begin", "close"),
        check_mode=module.check_mode,
    ) as session:
        before = copy.deepcopy(session.document.data)
        ACTIONS[params["action"]](params, session)
        result = differences(before, session.document.data)
        return {**result, **_facts(session.document), "warnings": session.warnings}


def _facts(document: Document) -> dict[str, t.Any]:
    return {
        "document": document.data,
        "finished": document.upgrade["state"] not in ACTIVE,
        "progress_percent": document.progress_percent(),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            action={"type": "str", "choices": ["get", *ACTIONS], "default": "get"},
            steps={"type": "list", "elements": "str"},
            kind={"type": "str", "choices": ["upgrade", "rollback"], "default": "upgrade"},
            mode={"type": "str", "default": "standard"},
            phase={"type": "str"},
            plan_digest={"type": "str"},
            component={"type": "str"},
            version={"type": "str"},
            paths={"type": "list", "elements": "path", "default": []},
            outcome={"type": "str", "choices": ["aborted", "rolled_back", "failed"]},
            error={"type": "str"},
            abandon={"type": "bool", "default": False},
            keep={"type": "int", "default": 3},
        ),
        required_if=[
            ("action", "begin", ("run", "steps")),
            ("action", "confirm", ("component", "version")),
            ("action", "fail", ("component", "version", "outcome", "error")),
        ],
        supports_check_mode=True,
    )
    run_module(module, act)


if __name__ == "__main__":
    main()
