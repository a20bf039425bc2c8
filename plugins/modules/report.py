#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Show a report on the controller, and keep its data in a file
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Prints a text as it is, with its line breaks, and writes the data behind it as JSON.
  - Everything happens on the controller; no host is contacted.
options:
  text:
    description: What to print. Everything in it that is not printable is escaped.
    type: str
    required: true
  data:
    description: What to write to O(dest).
    type: raw
  dest:
    description: File on the controller for O(data). In check mode it isn't written.
    type: path
  left_out:
    description:
      - Hosts that the text says nothing of because they failed before, each with the reason. They are printed after it.
    type: dict
    default: {}
  problems:
    description: What is wrong with it, a line each. If there is any, the task fails with it after all else is done.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - observability.stack._attributes.controller
  - observability.stack._attributes
"""

EXAMPLES = r"""
- name: Show the plan and keep it
  observability.stack.report:
    text: "{{ plan | observability.stack.plan_table }}"
    data: "{{ plan }}"
    dest: "~/plan-{{ plan.digest[:12] }}.json"
  run_once: true
"""

RETURN = r"""
dest:
  description: The file that was written.
  returned: when one was written
  type: str
"""

# All of it is done by the action plugin of the same name.
