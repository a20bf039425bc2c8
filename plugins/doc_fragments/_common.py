# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Options that all modules of the collection share."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the state is, and for which run a module acts."""

    DOCUMENTATION = r"""
options:
  state_dir:
    description:
      - Directory on the host for the record of upgrades, the lock, restore points and candidates.
      - It is created with mode C(0700), for root.
    type: path
    default: /var/lib/observability-upgrades
  run:
    description:
      - The run that this module acts for, as the P(observability.stack.upgrade_run#lookup) lookup gives it.
      - The run takes a lease on the host, and each of its modules renews it. Another run is refused meanwhile, and so
        is a module of a run that has lost its lease.
      - Without it no lease is taken, and that of another run is respected.
    type: dict
    suboptions:
      upgrade_id:
        description:
          - Name of the upgrade, the same on all its hosts. It begins with a letter or a digit, has nothing but ASCII
            letters, digits and C(. _ + ~ -) in it, and at most 64 characters.
          - Names of components, versions, phases, checkpoints and restore points follow the same rule.
        type: str
        required: true
      user:
        description: Who started the run. As O(run.controller), O(run.job) and O(run.origin), a text of one line.
        type: str
      controller:
        description: Name of the machine that runs it.
        type: str
      job:
        description: Number of the job in AWX or another scheduler.
        type: str
      origin:
        description: The machine and process namespace that O(run.pid) belongs to.
        type: str
      pid:
        description: Process on the controller.
        type: int
      start_ticks:
        description:
          - When that process started, in ticks since the controller's boot. No change of a clock changes it. With
            O(run.pid) and O(run.boot), it tells whether the process lives.
        type: int
      boot:
        description: Boot of the controller that O(run.start_ticks) counts from.
        type: str
      dead:
        description: Upgrades that are known to be dead. Their lease doesn't stand in the way.
        type: list
        elements: str
        default: []
requirements:
  - Python 3.9 or later
  - systemd
  - root
"""
