#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: health_probe
short_description: Prove that services run, are what they should be, and stay so
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Looks at one service or several, together, until each has satisfied all its probes for a whole O(window), as one
    process. A service that crash-loops behind an C(active) unit, or answers and dies a moment later, doesn't.
  - Gives up early where no time will help, that is when the unit has stopped for good or is in a crash loop.
  - A failure says which probe isn't satisfied, what was seen and what was wanted, and shows the journal's last lines.
options:
  targets:
    description: The services.
    type: list
    elements: dict
    required: true
    suboptions:
      component:
        description: Name of the component.
        type: str
        required: true
      unit:
        description: Its unit.
        type: str
        required: true
      binary:
        description: The program that its process must run.
        type: path
        required: true
      url:
        description: Where it answers, with its path prefix. Certificates are not checked, for one asks at the loopback
          address.
        type: str
        required: true
      version:
        description: Version that it must call itself. Without it any version will do.
        type: str
      probes:
        description:
          - What it must satisfy.
          - V(systemd), active, with a main process.
          - V(process), its process runs the file that is at O(targets[].binary) now.
          - V(http), C(path) answers with one of C(status), by default 200.
          - V(build_info), one of C(metrics) at C(path) carries O(targets[].version) in its label. Each has C(metric)
            and C(label).
        type: list
        elements: dict
        default: [{kind: systemd}, {kind: process}]
        suboptions:
          kind:
            description: Kind of the probe.
            type: str
            required: true
            choices: [systemd, process, http, build_info]
          path:
            description: Path of the request, for V(http) and V(build_info).
            type: str
          status:
            description: Status codes that satisfy V(http).
            type: list
            elements: int
            default: [200]
          metrics:
            description: Metrics that tell the version, for V(build_info).
            type: list
            elements: dict
  timeout:
    description: Seconds within which a service must satisfy all its probes.
    type: int
    default: 60
  window:
    description: Seconds for which it must go on doing so. V(0) makes one good look enough.
    type: int
    default: 10
  since:
    description: The journal is shown from here, in seconds since the epoch.
    type: float
  required:
    description: Whether a service that isn't healthy fails the task. Otherwise RV(services) tells it.
    type: bool
    default: true
  component:
    description: The component whose step is being proven, for the record. Without it nothing is recorded.
    type: str
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
attributes:
  diff_mode:
    support: none
    details:
      - A probe changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Prove that node_exporter 1.9.0 runs and serves
  observability.stack.health_probe:
    targets:
      - component: node_exporter
        unit: node_exporter.service
        binary: /usr/local/bin/node_exporter
        url: http://127.0.0.1:9100
        version: 1.9.0
        probes:
          - kind: systemd
          - kind: process
          - kind: http
            path: /metrics
          - kind: build_info
            path: /metrics
            metrics:
              - metric: node_exporter_build_info
                label: version
  become: true
"""

RETURN = r"""
services:
  description: What became of each service.
  returned: always
  type: list
  elements: dict
  contains:
    component:
      description: Name of the component.
      type: str
    healthy:
      description: Whether it has proven to be healthy.
      type: bool
    ready_after:
      description: Seconds until it first satisfied all its probes; none if it never did.
      type: float
    reason:
      description: Why it isn't healthy.
      type: str
    verdicts:
      description: What each C(probe) saw at the last look, and wanted.
      type: list
      elements: dict
    journal:
      description: The last lines of the journal of a service that isn't healthy, without secrets.
      type: list
      elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _health, _lease, _store
from ..module_utils._command import run
from ..module_utils._errors import HostError
from ..module_utils._module import arguments, run_module
from ..module_utils._probes import PREDICATES
from ..module_utils._state import TOUCHED


def probe(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    _record(module, seconds=params["timeout"] + params["window"])
    found = _health.wait(
        run, params["targets"], timeout=params["timeout"], window=params["window"], since=params["since"]
    )
    _record(module, seconds=0)
    services = [health._asdict() for health in found]
    sick = [health for health in found if not health.healthy]
    if sick and params["required"]:
        raise HostError(
            "; ".join(f"{health.component} isn't healthy: {health.reason}" for health in sick),
            key="health.failed",
            details={"services": services},
        )
    return {"changed": False, "services": services}


def _record(module: AnsibleModule, *, seconds: float) -> None:
    """Note that the component is being proven, and renew the lease.

    :param seconds: how long the proof may take from now.
    """
    params = module.params
    if not params["component"] or module.check_mode:
        return
    lease_seconds = seconds + _lease.LEASE_SECONDS
    with _store.session(params["state_dir"], run=params["run"], lease_seconds=lease_seconds) as session:
        document = session.document
        if document.component(params["component"])["state"] not in TOUCHED:
            return
        document.set_component(params["component"], "verifying", now=session.now)
        if len(document.pending()) == 1:
            document.advance("VALIDATING", now=session.now)
        session.save()


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            targets={
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "component": {"type": "str", "required": True},
                    "unit": {"type": "str", "required": True},
                    "binary": {"type": "path", "required": True},
                    "url": {"type": "str", "required": True},
                    "version": {"type": "str"},
                    "probes": {
                        "type": "list",
                        "elements": "dict",
                        "default": [{"kind": "systemd"}, {"kind": "process"}],
                        "options": {
                            "kind": {"type": "str", "required": True, "choices": list(PREDICATES)},
                            "path": {"type": "str"},
                            "status": {"type": "list", "elements": "int", "default": [200]},
                            "metrics": {"type": "list", "elements": "dict"},
                        },
                        "required_if": [("kind", "http", ("path",)), ("kind", "build_info", ("path", "metrics"))],
                    },
                },
            },
            timeout={"type": "int", "default": 60},
            window={"type": "int", "default": 10},
            since={"type": "float"},
            required={"type": "bool", "default": True},
            component={"type": "str"},
        ),
        supports_check_mode=True,
    )
    run_module(module, probe)


if __name__ == "__main__":
    main()
