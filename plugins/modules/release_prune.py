#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_prune
short_description: Make the controller's cache of releases smaller
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Removes what was used least recently from the cache on the controller, until it is as small and as young as it
    should be. What somebody is fetching, or has used in the last hour, stays.
  - What can't be removed is a warning.
  - Everything happens on the controller; no host is contacted.
options:
  cache_dir:
    description:
      - The cache.
      - Defaults to C(observability-upgrades) in the user's cache directory.
    type: path
  size:
    description: How many bytes may be left, as a number or as a text like V(10GB). V(0) is any number.
    type: str
    default: "0"
  days:
    description: What wasn't used for as many days is removed. V(0) is never.
    type: int
    default: 0
extends_documentation_fragment:
  - observability.stack._attributes.controller
  - observability.stack._attributes
attributes:
  check_mode:
    support: none
seealso:
  - module: observability.stack.release_stage
"""

EXAMPLES = r"""
- name: Keep at most 5 GB, and nothing that wasn't used for a month
  observability.stack.release_prune:
    size: 5GB
    days: 30
  run_once: true
"""

RETURN = r"""
removed:
  description: Names of the files that were removed.
  returned: success
  type: list
  elements: str
freed:
  description: Bytes of what was removed.
  returned: success
  type: int
kept:
  description: Bytes of what is left; none if that isn't known.
  returned: success
  type: int
"""

# All of it is done by the action plugin of the same name.
