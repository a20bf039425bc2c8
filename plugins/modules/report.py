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
  - Prints a text as it is, with its line breaks, returns it, and writes the data behind it as JSON.
  - Where the stdout callback prints JSON or nothing, as P(ansible.posix.json#callback) does, it prints nothing.
  - Everything happens on the controller; no host is contacted.
options:
  text:
    description:
      - What to print. Everything in it that is not printable is escaped. Nothing is printed if it is empty.
      - One of O(text) and O(outcome) is required.
    type: str
    default: ""
  outcome:
    description:
      - The outcome for programs. It is returned, and is C(upgrade_outcome) of C(set_stats). Hosts in O(left_out) are
        added to its C(failed_hosts).
    type: dict
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
text:
  description: What was printed, with the hosts that were left out.
  returned: always
  type: str
outcome:
  description: The outcome. C(docs/results.md) of the collection lists its keys.
  returned: if it was given
  type: dict
report_file:
  description: The file that was written.
  returned: when one was written
  type: str
"""

# All of it is done by the action plugin of the same name.
