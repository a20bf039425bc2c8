# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup: the hosts of a playbook."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts
short_description: The hosts of a playbook, at least one
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Returns the names of the hosts that a pattern matches within C(--limit), for C(hosts) of a play.
  - Fails if there are none. Ansible itself skips such a play, and the run ends with 0.
  - Fails if C(--start-at-task) names a task of this collection, as that would skip what the task depends on.
  - Used by the playbooks of this collection; it can change at any time.
options:
  _terms:
    description: The pattern, as C(-l) takes it. Several of them match the hosts of all.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Look at the hosts that are meant
  hosts: "{{ query('observability.stack.hosts', upgrade_hosts | default('all')) }}"
  tasks: []
"""

RETURN = r"""
_raw:
  description: Names of hosts, in the order of the inventory.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _scope, _settings


class LookupModule(LookupBase):
    """Names of hosts."""

    def run(self, terms: list[t.Any], variables: t.Any = None, **kwargs: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            given = _settings.value("upgrade_hosts", terms[0] if len(terms) == 1 else terms)
        except UpgradeError as exc:
            raise AnsibleError(str(exc)) from None
        pattern: list[str] = self._flatten([given])
        if _scope.is_listing():  # also without an inventory
            return pattern
        problem = _scope.starts_within()
        if problem:
            raise AnsibleError(problem)
        known = variables or {}
        try:
            return _scope.hosts(pattern, known.get("groups", {}), limit=known.get("ansible_limit"))
        except UpgradeError as exc:
            raise AnsibleError(str(exc)) from None
