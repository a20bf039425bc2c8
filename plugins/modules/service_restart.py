#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_restart
short_description: Restart a service so that it runs the file that is on disk
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Restarts a unit if its process doesn't run the file at O(binary); otherwise nothing is done.
  - The unit's own stop time-out is honoured, however long it is. Its start limit doesn't stand in the way.
  - Success means that systemd has started it, no more. Whether it works is for M(observability.stack.health_probe) to
    prove.
options:
  unit:
    description: The unit.
    type: str
    required: true
  binary:
    description: The program that its process must run.
    type: path
    required: true
  force:
    description: Restart even if its process runs that file.
    type: bool
    default: false
  reload_units:
    description: Let systemd read the unit files anew first.
    type: bool
    default: false
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
"""

EXAMPLES = r"""
- name: Let the service run what is on disk
  observability.stack.service_restart:
    unit: prometheus.service
    binary: /usr/local/bin/prometheus
  become: true
"""

RETURN = r"""
before:
  description: C(state), C(main_pid) and C(n_restarts) of the unit before.
  returned: success
  type: dict
after:
  description: The same afterwards. In check mode it is as before.
  returned: success
  type: dict
restarted_at:
  description: When the restart was begun, in seconds since the epoch; none if there was no need of one.
  returned: success
  type: float
seconds:
  description: How long systemd took, in seconds.
  returned: success
  type: float
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _lease, _process, _store, _systemd
from ..module_utils._command import run
from ..module_utils._errors import HostError
from ..module_utils._module import arguments, run_module


def restart(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    unit = _systemd.show(run, [params["unit"]])[0]
    if not unit.is_loaded:
        raise HostError(
            f"there is no unit {unit.name} on this host ({unit.load}): set units in upgrade_overrides",
            key="service.unknown_unit",
        )
    runs_it = unit.main_pid > 0 and _process.runs_file(unit.main_pid, params["binary"])
    before = _facts(unit)
    result = {"before": before, "after": before, "restarted_at": None, "seconds": 0.0}
    if runs_it and not params["force"]:
        return {**result, "changed": False}
    result.update(changed=True, diff={"before": before, "after": {**before, "runs": params["binary"]}})
    timeout = _systemd.stop_timeout(unit) + _systemd.START_TIMEOUT
    with _store.session(
        params["state_dir"],
        run=params["run"],
        check_mode=module.check_mode,
        lease_seconds=timeout + _lease.LEASE_SECONDS,
    ) as session:
        if not session.writable:
            return result
        begun, start = time.time(), time.monotonic()
        _systemd.restart(run, unit, timeout=timeout, reload=params["reload_units"])
        result["after"] = _facts(_systemd.show(run, [params["unit"]])[0])
        seconds = round(time.monotonic() - start, 2)
        if params["run"]:
            session.renew()
        return {**result, "restarted_at": begun, "seconds": seconds, "warnings": session.warnings}


def _facts(unit: _systemd.Unit) -> dict[str, t.Any]:
    return {"state": f"{unit.active}/{unit.sub}", "main_pid": unit.main_pid, "n_restarts": unit.n_restarts}


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            unit={"type": "str", "required": True},
            binary={"type": "path", "required": True},
            force={"type": "bool", "default": False},
            reload_units={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    run_module(module, restart)


if __name__ == "__main__":
    main()
