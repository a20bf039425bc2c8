#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_rehearse
short_description: Start a staged release beside the service that runs, and see whether it is fit
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Starts the candidate that M(observability.stack.release_stage) has staged, as a transient unit on a spare port of
    the loopback address. It has the unit's own user, environment and command line, but for the flags that O(rehearse)
    replaces. It can write nothing but a directory of its own, and what would scrape, push or notify has a network of
    its own with nobody else in it.
  - The candidate must run, answer, tell its version, and stay so. Then its metric families are compared with those of
    the service that runs.
  - In every outcome all of it is thrown away. Where the module itself is killed systemd ends the candidate when its
    time is over, and the next rehearsal removes what is left.
  - The service that runs isn't touched. It is asked for its metrics once, as a Prometheus would.
  - In check mode nothing is started, for no candidate is staged then.
options:
  component:
    description: Name of the component.
    type: str
    required: true
  version:
    description: Version of the candidate.
    type: str
    required: true
  unit:
    description: Unit of the service that runs.
    type: str
    required: true
  files:
    description: The candidate's files, as M(observability.stack.release_stage) tells them, the program first.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the file.
        type: str
        required: true
      path:
        description: Where it is.
        type: path
        required: true
      sha256:
        description: Its sha256.
        type: str
        required: true
  rehearse:
    description: How the candidate can be started beside the service; the catalog's record.
    type: dict
    required: true
    suboptions:
      flags:
        description:
          - Flags that are other than the unit's, by name, with their values.
          - C({port}) is a spare port, C({data}) a directory that it may write, C({config}) a copy of the configuration.
            A flag whose word the host has nothing for stays as it is.
        type: dict
        required: true
      network:
        description: Whether it has a network of its own, or sees the host's.
        type: str
        choices: [private, host]
        default: private
      data:
        description: What C({data}) holds. Nothing is made, an empty directory, or a copy of O(state).
        type: str
        choices: [none, empty, state]
        default: none
      timeout:
        description: Seconds within which it must answer.
        type: int
        default: 30
      least:
        description: So many percent of the metric families of the service that runs must be there.
        type: int
        default: 80
      unless_flags:
        description: Flags of the unit with which it can't be rehearsed.
        type: list
        elements: str
        default: []
  target:
    description:
      - The service that runs, as a target of M(observability.stack.health_probe). C(binary) and C(url) must be there.
        Of C(probes), the kinds C(http) and C(build_info) are asked of the candidate.
    type: dict
    required: true
  facts:
    description: Paths of the service that runs. C(config) is its configuration, C(data) its data.
    type: dict
    default: {}
  state:
    description: Small files and directories below its data that the candidate is given copies of.
    type: list
    elements: path
    default: []
  window:
    description: Seconds for which the candidate must stay good.
    type: int
    default: 5
  accept:
    description: Keys of findings that aren't to stand in the way.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
attributes:
  diff_mode:
    support: none
    details:
      - A rehearsal changes nothing that could be shown.
seealso:
  - module: observability.stack.release_stage
  - module: observability.stack.health_probe
"""

EXAMPLES = r"""
- name: Rehearse what was staged
  observability.stack.release_rehearse:
    component: node_exporter
    version: 1.9.0
    unit: node_exporter.service
    files: "{{ candidate.files }}"
    rehearse:
      flags: {web.listen-address: "127.0.0.1:{port}"}
      network: host
    target:
      binary: /usr/local/bin/node_exporter
      url: http://127.0.0.1:9100
      version: 1.9.0
      probes:
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
rehearsed:
  description: Whether the candidate was started.
  returned: always
  type: bool
findings:
  description:
    - What speaks against the candidate, or is to be known of it. With C(key), C(severity), C(component), C(message),
      C(evidence) and C(fix).
    - Where one is a blocker that O(accept) doesn't name, the task fails.
  returned: always
  type: list
  elements: dict
seen:
  description: What was seen, in one line.
  returned: always
  type: str
  sample: node_exporter 1.9.0 answered as it must after 0.51 s, with 310 of the 312 metric families of the service
ready_after:
  description: Seconds until it first satisfied all its probes; none if it never did.
  returned: always
  type: float
verdicts:
  description: For each C(probe), whether it holds (C(ok)), what it has C(seen) last, and what is C(wanted).
  returned: always
  type: list
  elements: dict
journal:
  description: The last lines that a candidate which isn't fit wrote, without secrets.
  returned: always
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _lease, _rehearsal, _rehearsed, _store
from ..module_utils._command import run
from ..module_utils._errors import HostError, InputError
from ..module_utils._module import arguments, run_module
from ..module_utils._rehearsed import Seen

REHEARSAL = {
    "flags": {"type": "dict", "required": True},
    "network": {"type": "str", "choices": ["private", "host"], "default": "private"},
    "data": {"type": "str", "choices": ["none", "empty", "state"], "default": "none"},
    "timeout": {"type": "int", "default": 30},
    "least": {"type": "int", "default": 80},
    "unless_flags": {"type": "list", "elements": "str", "default": []},
}

FILE = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "sha256": {"type": "str", "required": True},
}


def rehearse(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if not params["files"]:
        raise InputError("files is empty: give it what release_stage has staged", key="input.no_candidate")
    missing = [name for name in ("binary", "url") if not params["target"].get(name)]
    if missing:
        raise InputError(f"target has no {' and no '.join(missing)}", key="input.target")
    if module.check_mode:
        seen = Seen(trouble="nothing is started in check mode")
        return {**_result(params, seen), "findings": [], "rehearsed": False}
    wanted = _wanted(params)
    with _store.session(
        params["state_dir"], run=params["run"], lease_seconds=wanted.seconds + _lease.LEASE_SECONDS
    ) as session:
        _prove(params)
        seen = _rehearsal.rehearse(run, wanted, state_dir=params["state_dir"])
        if params["run"]:
            session.renew()
        warnings = session.warnings
    result = _result(params, seen)
    blockers = [finding for finding in result["findings"] if finding["severity"] == "blocker"]
    if blockers:
        raise HostError(_rehearsed.in_words(blockers), key="rehearsal.failed", details=result)
    return {**result, "warnings": warnings}


def _wanted(params: dict[str, t.Any]) -> _rehearsal.Wanted:
    return _rehearsal.Wanted(
        component=params["component"],
        unit=params["unit"],
        programs={file["name"]: file["path"] for file in params["files"]},
        rehearse=params["rehearse"],
        target={**params["target"], "component": params["component"], "version": params["version"]},
        config=params["facts"].get("config"),
        data=params["facts"].get("data"),
        state=tuple(params["state"]),
        window=params["window"],
    )


def _prove(params: dict[str, t.Any]) -> None:
    changed = _rehearsal.changed(params["files"])
    if changed:
        raise HostError(
            f"{changed} isn't what was staged: nothing was started; run release_stage again",
            key="rehearsal.candidate",
        )


def _result(params: dict[str, t.Any], seen: Seen) -> dict[str, t.Any]:
    component, version = params["component"], params["version"]
    return {
        "changed": False,
        "rehearsed": not seen.trouble,
        "findings": _rehearsed.findings(
            component, version, seen, least=params["rehearse"]["least"], accept=params["accept"]
        ),
        "seen": _rehearsed.summary(component, version, seen),
        "ready_after": seen.ready_after,
        "verdicts": list(seen.verdicts),
        "journal": list(seen.journal),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            component={"type": "str", "required": True},
            version={"type": "str", "required": True},
            unit={"type": "str", "required": True},
            files={"type": "list", "elements": "dict", "required": True, "options": FILE},
            rehearse={"type": "dict", "required": True, "options": REHEARSAL},
            target={"type": "dict", "required": True},
            facts={"type": "dict", "default": {}},
            state={"type": "list", "elements": "path", "default": []},
            window={"type": "int", "default": 5},
            accept={"type": "list", "elements": "str", "default": []},
        ),
        supports_check_mode=True,
    )
    run_module(module, rehearse)


if __name__ == "__main__":
    main()
