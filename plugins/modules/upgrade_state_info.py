#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_state_info
short_description: Read the record of upgrades on a host
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Tells what is being done to a host, what was done, and what can be gone back to. Changes nothing, and makes nothing.
options:
  component:
    description: Tell only of this component.
    type: str
  version:
    description: With O(component), tell in RV(is_upgraded) whether it has been upgraded to this version.
    type: str
  verify:
    description:
      - Also look for what is wrong with the record, in RV(problems).
      - It reads every restore point, which costs about a second per gigabyte.
    type: bool
    default: false
  limit:
    description: How many upgrades to tell in RV(history). V(0) is none.
    type: int
    default: 10
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.info_module
  - observability.stack._attributes.actiongroup_upgrade
seealso:
  - module: observability.stack.upgrade_state
"""

EXAMPLES = r"""
- name: Read the record
  observability.stack.upgrade_state_info:
  become: true
  register: record

- name: Tell how it stands
  ansible.builtin.debug:
    msg: "{{ record.summary.splitlines() }}"

- name: Look whether node_exporter has been upgraded to 1.9.0
  observability.stack.upgrade_state_info:
    component: node_exporter
    version: 1.9.0
  become: true
  register: node_exporter
"""

RETURN = r"""
document:
  description: The record as it is. See C(docs/state.schema.json).
  returned: success
  type: dict
in_progress:
  description: Whether an upgrade is under way.
  returned: success
  type: bool
can_resume:
  description: Whether a run that begins now, which is O(run) if that is given, would go on with it.
  returned: success
  type: bool
resume_point:
  description: Where the upgrade stands, and the C(steps) it has left. Empty if none is under way.
  returned: success
  type: dict
  contains:
    state:
      description: State of the upgrade.
      type: str
    phase:
      description: Its present phase.
      type: str
    component:
      description: What was worked on last.
      type: str
    steps:
      description: What is left to do, as C(component@version).
      type: list
      elements: str
next_phase:
  description: The first phase of the upgrade that has not begun; none if there is no such.
  returned: success
  type: str
progress_percent:
  description: How many of the planned steps have ended, in percent of all.
  returned: success
  type: int
summary:
  description: All this in a few lines.
  returned: success
  type: str
components:
  description:
    - How each component stands, by name. C(is_upgraded) is whether its last step has succeeded, as it is recorded.
    - With O(component), that one, even if nothing was ever done to it.
  returned: success
  type: dict
is_upgraded:
  description:
    - Whether O(component) has been upgraded to O(version), in whatever phase of whatever upgrade, and is so still. What
      is at its path must be the file that was proven.
  returned: with O(component) and O(version)
  type: bool
rollback_available:
  description: Whether there is a restore point.
  returned: success
  type: bool
restore_points:
  description: All restore points, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Its name.
      type: str
    component:
      description: What it is of.
      type: str
    version:
      description: Version of the program in it.
      type: str
    created_at:
      description: When it was made.
      type: str
    path:
      description: Where it is on the host.
      type: str
    marked:
      description:
        - Whether O(observability.stack.upgrade_state#module:action=mark) made it, of files that the operator named.
      type: bool
history:
  description: The upgrades that have ended, newest first.
  returned: success
  type: list
  elements: dict
  sample:
    - upgrade_id: run-3fa9c294d01c
      kind: upgrade
      state: COMPLETED
      outcome: succeeded
      started_at: "2026-11-21T03:15:02Z"
      finished_at: "2026-11-21T03:16:40Z"
lease:
  description: The lock of the host. Empty if nobody has taken it since it was given back last.
  returned: success
  type: dict
  contains:
    held:
      description: Whether a run has the host.
      type: bool
    stale:
      description: Whether a run had it, and has ended without giving it back.
      type: bool
    holder:
      description: Who that is, in a sentence.
      type: str
    upgrade_id:
      description:
        - The run. Beside it are C(user), C(controller) and C(job), and C(origin), C(pid), C(start_ticks) and C(boot)
          of its process.
      type: str
    acquired:
      description: When it took the host, in seconds since the epoch.
      type: float
    renewed:
      description: When a module of it came last.
      type: float
    expires:
      description: When the lease ends, if nothing renews it.
      type: float
    unreadable:
      description: Why the content of the lock file is no lease, if it isn't. The host counts as held then.
      type: str
problems:
  description: What is wrong with the record, and what to do. Empty if all is well.
  returned: with O(verify)
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _audit, _files, _history, _lease, _overview, _store
from ..module_utils._errors import InputError
from ..module_utils._module import arguments, run_module

if t.TYPE_CHECKING:
    from ..module_utils._state import Document


def read(module: AnsibleModule) -> dict[str, t.Any]:
    params, layout = module.params, _store.Layout(module.params["state_dir"])
    if params["limit"] < 0:
        raise InputError(f"limit is {params['limit']}: it must be 0 or more", key="input.number")
    document = _store.read_document(layout.root)
    lease = _told_lease(_store.read_lease(layout.root), params["run"])
    archives = _history.newest_first(_history.read_all(layout.history(), refused=[]))
    names = [params["component"]] if params["component"] else sorted(document.data["components"])
    held_by = lease["upgrade_id"] if lease.get("held") else None
    points = _overview.restore_points(document)
    result = {
        "changed": False,
        "document": document.data,
        "in_progress": document.is_active(),
        "can_resume": document.is_active() and held_by in (None, (params["run"] or {}).get("upgrade_id")),
        "resume_point": _overview.resume_point(document) or {},
        "next_phase": _overview.next_phase(document),
        "progress_percent": document.progress_percent(),
        "summary": _overview.summary(document, lease.get("holder", "")),
        "components": {name: _overview.component(document, name) for name in names},
        "rollback_available": bool(points),
        "restore_points": [{**point, "path": layout.backup(point["id"])} for point in points],
        "history": [_overview.history_entry(each.data) for each in archives[: params["limit"]]],
        "lease": lease,
    }
    if params["version"]:
        result["is_upgraded"] = _is_upgraded(document, params["component"], params["version"])
    if params["verify"]:
        result["problems"] = _audit.problems(layout)
    return result


def _told_lease(lease: dict[str, t.Any], run: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """The lease on file, and what it means now."""
    if not lease.get("upgrade_id"):
        return {}
    now = _store.present(lease)
    held = _lease.holder(lease, now=now, dead=(run or {}).get("dead") or ()) is not None
    return {**lease, "held": held, "stale": not held, "holder": _lease.told(lease, now=now, held=held)}


def _is_upgraded(document: Document, name: str, version: str) -> bool:
    """The record says so, and the file that was proven is there still."""
    inventory = document.component(name).get("inventory", {})
    paths, proven = inventory.get("paths"), inventory.get("sha256")
    if inventory.get("current_version") != version or not paths or not proven:
        return False
    return bool(_files.sha256_or_none(paths[0]) == proven)


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            component={"type": "str"},
            version={"type": "str"},
            verify={"type": "bool", "default": False},
            limit={"type": "int", "default": 10},
        ),
        required_by={"version": ("component",)},
        supports_check_mode=True,
    )
    run_module(module, read)


if __name__ == "__main__":
    main()
