#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_lock
short_description: Take or release the lock of a host
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - The lock of a host is a lease. It belongs to a run, each module of the run renews it, and it ends by itself. So it
    seldom needs a hand. A run takes it with M(observability.stack.upgrade_state) and gives it back.
  - A run whose lease is released or taken is refused from then on, even where one of its modules comes late. What it
    has left undone is finished by the next run.
  - That the run that has the lease already renews it is no change.
  - A lock file whose content is no lease counts as held by an unknown run, for it may have been one. Release it with
    O(force) after you have made sure that no upgrade of the host runs.
options:
  state:
    description:
      - V(held) takes the lease for O(run), unless another run has it.
      - V(released) gives it back. That of another run is released only if it has ended, or its run is known to be dead.
    type: str
    choices: [held, released]
    required: true
  force:
    description: Take the lease from a run that may be alive.
    type: bool
    default: false
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
seealso:
  - module: observability.stack.upgrade_state_info
"""

EXAMPLES = r"""
- name: Keep upgrades away from a host while something else is done to it
  observability.stack.upgrade_lock:
    state: held
    run: "{{ lookup('observability.stack.upgrade_run') }}"
  become: true

- name: Release what a run left behind
  observability.stack.upgrade_lock:
    state: released
  become: true
"""

RETURN = r"""
taken_from:
  description: The run that the lease was taken from, with C(upgrade_id), C(user) and C(controller). None if it was
    nobody's, or that of O(run).
  returned: success
  type: dict
holder:
  description: Who has the host after it. Empty if nobody has.
  returned: success
  type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _lease, _store
from ..module_utils._errors import LockedError
from ..module_utils._module import arguments, differences, run_module

if t.TYPE_CHECKING:
    Lease = dict[str, t.Any]

_SHOWN = ("upgrade_id", "user", "controller")


def hold(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    run, force = params["run"], params["force"]
    with _store.session(
        params["state_dir"], run=run, acquire=True, force=force, check_mode=module.check_mode
    ) as session:
        if force:
            session.take(run)
            _note(session, run)
        return _result(session, run, after=run)


def release(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    run = params["run"] or {}
    if not _store.read_lease(params["state_dir"]).get("upgrade_id"):  # nothing is made where nothing ever was
        return {**differences({}, {}), "taken_from": None, "holder": ""}
    with _store.session(params["state_dir"], force=True, check_mode=module.check_mode) as session:
        lease, now = session.lease_before, _store.present(session.lease_before)
        if _is_live(lease, run, now=now) and not params["force"]:
            raise LockedError(
                f"{_lease.describe(lease, now=now)}. To release it all the same, set force (upgrade_unlock_force for "
                "the playbook unlock): that run is refused here from then on"
            )
        session.release()
        _note(session, run)
        return _result(session, run, after={})


def _is_live(lease: Lease, run: Lease, *, now: float) -> bool:
    """Whether the lease is another run's that may be alive."""
    holder = _lease.holder(lease, now=now, dead=run.get("dead") or ())
    return holder not in (None, run.get("upgrade_id"))


def _note(session: _store.Session, run: Lease) -> None:
    """Let the record of an upgrade that may be alive tell who took the host from it."""
    lease, upgrade = session.lease_before, session.document.upgrade
    if _is_live(lease, run, now=_store.present(lease)) and upgrade.get("upgrade_id") == lease["upgrade_id"]:
        by = _lease.name(run) if run.get("upgrade_id") else "hand"
        session.document.add_error(f"its lock was taken from it by force, by {by}", now=session.now)
        upgrade["unlocked_by"] = by
        session.save()


def _result(session: _store.Session, run: Lease, *, after: Lease) -> dict[str, t.Any]:
    before, after = (
        {key: lease.get(key) for key in _SHOWN} if lease.get("upgrade_id") else {}
        for lease in (session.lease_before, after)
    )
    return {
        **differences(before, after),
        "taken_from": before if before.get("upgrade_id") not in (None, run.get("upgrade_id")) else None,
        "holder": _lease.name(after) if after else "",
        "warnings": session.warnings,
    }


_STATES = {"held": hold, "released": release}


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            state={"type": "str", "choices": list(_STATES), "required": True},
            force={"type": "bool", "default": False},
        ),
        required_if=[("state", "held", ("run",))],
        supports_check_mode=True,
    )
    run_module(module, _STATES[module.params["state"]])


if __name__ == "__main__":
    main()
