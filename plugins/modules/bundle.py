#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle
short_description: Put all releases of a plan into one file on the controller
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Gets each release of a plan once for each architecture, proves it as M(observability.stack.release_stage) does, and
    writes them into one file, with the checksum lists and signatures that they were verified with.
  - M(observability.stack.release_stage) takes releases from that file, without a network. It verifies them again then.
  - Everything happens on the controller; no host is contacted.
options:
  plan:
    description: The plan, as M(observability.stack.plan) returns it.
    type: dict
    required: true
  index:
    description:
      - What the sources of releases listed, a release index. With it the plan
        can be made again without a network.
    type: dict
    default: {}
  release:
    description:
      - How releases are had, and what they are checked against, as M(observability.stack.release_stage) takes it.
      - C(docs/trust.md) and C(docs/releases.md) of the collection tell more.
    type: dict
  dest:
    description:
      - The file to write. A bundle of the same releases that is there already stays as it is.
      - In check mode the releases are had and proven, and the file isn't written.
    type: path
    required: true
extends_documentation_fragment:
  - observability.stack._attributes.controller
  - observability.stack._attributes
seealso:
  - module: observability.stack.release_stage
"""

EXAMPLES = r"""
- name: Put the releases of a plan into one file
  observability.stack.bundle:
    plan: "{{ lookup('ansible.builtin.file', 'plan.json') | ansible.builtin.from_json }}"
    dest: releases.tar
  run_once: true
"""

RETURN = r"""
dest:
  description: The bundle.
  returned: success
  type: str
outcome:
  description: The outcome for programs, which is C(upgrade_outcome) of C(set_stats), too.
  returned: success
  type: dict
sha256:
  description: sha256 of the bundle, for C(upgrade_bundle_sha256). None in check mode, where there is no bundle yet.
  returned: success
  type: str
releases:
  description: What is in it.
  returned: success
  type: list
  elements: dict
  sample:
    - component: node_exporter
      version: 1.9.0
      architecture: amd64
      url: https://github.com/prometheus/node_exporter/releases/download/v1.9.0/node_exporter-1.9.0.linux-amd64.tar.gz
      sha256: 1ab3
      size: 11834542
      verified:
        - sha256 of https://github.com/prometheus/node_exporter/releases/download/v1.9.0/sha256sums.txt
"""

# All of it is done by the action plugin of the same name.
