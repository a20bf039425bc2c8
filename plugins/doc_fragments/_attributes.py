# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Attributes that modules of the collection share."""

from __future__ import annotations


class ModuleDocFragment:
    """Standard attributes, those of modules that only read, and of those that run on the controller only."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: linux
    support: full
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
"""

    CONTROLLER = r"""
options: {}
attributes:
  diff_mode:
    support: none
  platform:
    platforms: posix
"""

    ACTIONGROUP_UPGRADE = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/observability.stack.upgrade) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - observability.stack.upgrade
"""
