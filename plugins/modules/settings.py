#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: settings
short_description: Check the variables of the collection
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Fails if facts of a host of the play have the name of a variable of this collection, or if a C(upgrade_*) variable
    has a value that it does not take. The message names each variable, what was given, and what the variable takes.
  - Fails if C(--tags) or C(--skip-tags) skip all work of the run.
  - It reads the variables of the host that it runs for. The playbooks of the collection run it once, before all else.
  - A variable whose name is nearly that of a variable of this collection is a warning.
  - Everything happens on the controller; no host is contacted.
options: {}
extends_documentation_fragment:
  - observability.stack._attributes.controller
  - observability.stack._attributes
"""

EXAMPLES = r"""
- name: Check the variables of the collection
  observability.stack.settings:
  run_once: true
"""

RETURN = r"""
key:
  description:
    - What is wrong, for programs. V(input.settings) for values, V(host.foreign_facts) for facts, V(input.tags) for
      tags.
  returned: on failure
  type: str
"""

# All of it is done by the action plugin of the same name.
