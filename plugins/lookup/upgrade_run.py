# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup: which run this is."""

from __future__ import annotations

DOCUMENTATION = r"""
name: upgrade_run
short_description: Which run this is, and who runs it
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Returns the identity of this run of C(ansible-playbook), for the O(observability.stack.upgrade_state#module:run)
    option of the modules. It is the same in all tasks and on all forks of a run, and another in every other run.
    It is that of the process, so a clock that is set meanwhile doesn't change it.
options:
  _terms:
    description: None.
  leases:
    description:
      - The leases that were found on the hosts.
      - Those of runs that were processes of this machine and are gone are named in the result's C(dead), so that a run
        goes on at once where one of its predecessors was killed.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Begin an upgrade
  observability.stack.upgrade_state:
    action: begin
    run: "{{ lookup('observability.stack.upgrade_run', leases=[survey.lease]) }}"
    steps: ["node_exporter@1.9.0"]
"""

RETURN = r"""
_raw:
  description: One dictionary with C(upgrade_id), C(user), C(controller), C(job), C(origin), C(pid),
    C(start_ticks), C(boot), C(dead).
  type: list
  elements: dict
"""

import typing as t

from ansible.plugins.lookup import LookupBase

from ..plugin_utils._run import is_dead, this_run


class LookupModule(LookupBase):
    """The run's identity."""

    def run(self, terms: list[t.Any], variables: t.Any = None, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        run = this_run()
        leases = [lease for lease in self.get_option("leases") if lease and lease.get("upgrade_id")]
        dead = [lease["upgrade_id"] for lease in leases if is_dead(lease, run)]
        return [{**run, "dead": dead}]
