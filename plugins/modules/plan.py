#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Plan the steps of all hosts
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Plans from the surveys of hosts and the C(upgrade_*) variables of the host that it runs for. It is private to the
    roles of the collection and may change at any time.
  - A plan without steps is shown, as M(observability.stack.report) does.
  - Everything happens on the controller; no host is contacted.
options:
  surveys:
    description:
      - By host, what M(observability.stack.component_version) returned, with its option C(settings).
    type: dict
    required: true
  kind:
    description: Whether to plan an upgrade, or the way back to a restore point.
    type: str
    choices: [upgrade, rollback]
    default: upgrade
  carry_out:
    description: Whether the plan is to be carried out. Otherwise it is only shown.
    type: bool
    default: false
  left_out:
    description: Hosts that failed before, each with the reason.
    type: dict
    default: {}
extends_documentation_fragment:
  - observability.stack._attributes.controller
  - observability.stack._attributes
"""

EXAMPLES = r"""
- name: Plan the steps of all hosts
  observability.stack.plan:
    surveys: "{{ surveys }}"
  run_once: true
  register: planned
"""

RETURN = r"""
plan:
  description: The plan.
  returned: success
  type: dict
shown:
  description:
    - Whether the plan has no steps and was shown. C(text), C(outcome) and C(report_file) are those of the report then.
  returned: success
  type: bool
"""

# All of it is done by the action plugin of the same name.
