#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_preflight
short_description: See what stands in the way of an upgrade, before anything is touched
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Looks at a host and at the services that its steps are for, once, and tells what it finds as data. The checks are in
    C(docs/preflight.md).
  - What couldn't be read makes no finding.
  - It changes nothing of the host's services. To see whether a directory can be written to, it makes a small file there
    and removes it at once, except in check mode.
options:
  steps:
    description: The host's steps, as the plan has them.
    type: list
    elements: dict
    required: true
  sizes:
    description: Bytes of the steps' archives, by the keys of the steps, as far as they are known.
    type: dict
    default: {}
  urls:
    description: What the host must be able to fetch, where it fetches by itself.
    type: list
    elements: str
    default: []
  private_urls:
    description:
      - For each of O(urls) the URL with its login, which is kept out of logs and results.
      - An empty text, or none, if it has no login.
    type: list
    elements: str
    default: []
  accept:
    description: Keys of findings that are no reason to stop. A blocker of such a key is V(accepted).
    type: list
    elements: str
    default: []
  required:
    description: Whether a blocker fails the task. Otherwise RV(findings) tells it.
    type: bool
    default: true
  watchdog:
    description: Whether the steps arm the rollback watchdog, which needs a directory of unit files that can be written.
    type: bool
    default: false
  baseline:
    description:
      - Whether to keep, under O(state_dir), what probes see of the services now, for those probes of
        M(observability.stack.health_probe) that compare with before.
      - What was seen before this upgrade touched a component stays. Nothing is kept of one that another run left
        half done, nor in check mode, nor if a blocker stands in the way.
    type: bool
    default: false
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
attributes:
  diff_mode:
    support: none
    details:
      - It changes nothing that could be shown. A baseline is its own record, not the host's.
seealso:
  - module: observability.stack.health_probe
"""

EXAMPLES = r"""
- name: See what stands in the way on this host
  observability.stack.upgrade_preflight:
    steps:
      - key: node_exporter@1.9.0
        component: node_exporter
        from: 1.5.0
        to: 1.9.0
        unit: node_exporter.service
        binary: /usr/local/bin/node_exporter
        files:
          - name: node_exporter
            dest: /usr/local/bin/node_exporter
        keep:
          unit: [/etc/systemd/system/node_exporter.service]
        stage:
          url: https://mirror.example.org/node_exporter-1.9.0.linux-amd64.tar.gz
          architecture: amd64
        target:
          component: node_exporter
          unit: node_exporter.service
          binary: /usr/local/bin/node_exporter
          url: http://127.0.0.1:9100
          probes:
            - kind: systemd
            - kind: http
              path: /metrics
    required: false
  become: true
  register: preflight
"""

RETURN = r"""
findings:
  description: All that was found, the host's first.
  returned: always
  type: list
  elements: dict
  contains:
    key:
      description: What it is, as C(component.what) or C(host.what). The operator accepts it by this.
      type: str
    severity:
      description: V(blocker), V(accepted), V(warning) or V(info).
      type: str
    component:
      description: The component; none if it is about the host.
      type: str
    message:
      description: What was found.
      type: str
    evidence:
      description: What it was seen by.
      type: dict
    fix:
      description: What to do about it.
      type: str
facts:
  description: What the findings were made of, in short.
  returned: always
  type: dict
  contains:
    file_systems:
      description: Bytes that are C(free) and that are C(needed), by C(mount).
      type: list
      elements: dict
    memory:
      description: Bytes of memory that are available.
      type: int
    kernel:
      description: The machine that the kernel is for.
      type: str
    glibc:
      description: Version of the C library; none if it isn't glibc.
      type: str
baselines:
  description: The components of which a baseline was taken now.
  returned: success
  type: list
  elements: str
"""

import itertools
import secrets
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..module_utils import _baseline, _elf, _host, _loaded_unit, _preflight, _state, _store
from ..module_utils._command import run
from ..module_utils._errors import HostError, InputError
from ..module_utils._module import arguments, run_module

_FIELDS = ("key", "component", "unit", "binary", "target")


def look(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    _check_steps(params["steps"])
    request = _host.Request(
        steps=params["steps"],
        state_dir=params["state_dir"],
        temporary=module.tmpdir,
        sizes={key: int(size) for key, size in params["sizes"].items() if str(size).isdigit()},
        urls=[own or url for url, own in itertools.zip_longest(params["urls"], params["private_urls"])],
        run=params["run"],
        passing=module.check_mode,
        watchdog=params["watchdog"],
        writing=params["baseline"] and not module.check_mode,
    )
    facts = _host.read(run, request, open_url=open_url, clock=time.time)
    found = _preflight.findings(facts, params["accept"])
    told = {"findings": found, "facts": _told(facts)}
    blocked = bool(_preflight.blockers(found))
    if blocked and params["required"]:
        raise HostError(
            f"this host can't be upgraded as it is: {_preflight.refusal(found)}", key="preflight.blocked", details=told
        )
    taken = [] if blocked or module.check_mode or not params["baseline"] else _baselines(params)
    return {"changed": False, **told, "baselines": taken}


def _check_steps(steps: list[dict[str, t.Any]]) -> None:
    """Refuse what is no step of a plan.

    :raises InputError: naming what it lacks.
    """
    for number, step in enumerate(steps, 1):
        missing = [name for name in _FIELDS if not step.get(name)]
        if not missing and not isinstance(step["target"], dict):
            missing = ["target"]
        missing = missing or [f"target.{name}" for name in ("unit", "binary", "url") if not step["target"].get(name)]
        if missing:
            raise InputError(f"steps: number {number} has no {', '.join(missing)}: give the steps as the plan has them")
        _state.check_key(step["component"])


def _told(facts: _preflight.Facts) -> dict[str, t.Any]:
    glibc = _elf.glibc_here()
    return {
        "file_systems": _preflight.budget(facts),
        "memory": facts.memory,
        "kernel": facts.kernel,
        "glibc": _elf.dotted(glibc) if glibc else None,
    }


def _baselines(params: dict[str, t.Any]) -> list[str]:
    """Keep what probes see now, of each component that this upgrade, or one that was cut off, hasn't touched."""
    taken = []
    with _store.session(params["state_dir"], run=params["run"]) as session:
        upgrade_id = (params["run"] or {}).get("upgrade_id") or session.document.upgrade.get("upgrade_id")
        parts = [(step, part) for step in params["steps"] for part in _preflight.parts(step)]
        for step, part in parts:
            name = part["component"]
            if name in taken:
                continue
            if _is_touched(session, step["component"], upgrade_id):
                _adopt(session, name, upgrade_id)
                continue
            data = {
                "upgrade_id": upgrade_id,
                "taken_at": session.now,
                "version": step.get("from"),
                "seen": _baseline.capture(run, {**part["target"], "version": step.get("from")}),
                "unit": _marks(session, name, part["target"]["unit"]),
            }
            _baseline.write(session.layout, name, data)
            taken.append(name)
    return taken


def _marks(session: _store.Session, component: str, unit: str) -> dict[str, t.Any]:
    """What tells the swap whether systemd has loaded another unit since."""
    salt, own = secrets.token_hex(16), session.layout.own_command(component)
    return {"salt": salt, "marks": _loaded_unit.marks(_loaded_unit.read(run, unit), own=own, salt=salt)}


def _adopt(session: _store.Session, name: str, upgrade_id: str | None) -> None:
    """Let what a run that was cut off has seen before it touched a component be what this one compares with."""
    kept = _baseline.read(session.layout, name)
    if kept is not None and kept.get("upgrade_id") != upgrade_id:
        _baseline.write(session.layout, name, {**kept, "upgrade_id": upgrade_id})


def _is_touched(session: _store.Session, name: str, upgrade_id: str | None) -> bool:
    """Whether what is there now isn't what was there before: then the baseline that is kept, if any, stays."""
    if _state.is_unsettled(session.document.component(name)):
        return True
    kept = _baseline.read(session.layout, name)
    steps = session.document.upgrade.get("steps", {})
    ended = any(outcome != "pending" for key, outcome in steps.items() if _state.Step.of(key).component == name)
    return kept is not None and kept.get("upgrade_id") == upgrade_id and ended


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            steps={"type": "list", "elements": "dict", "required": True},
            sizes={"type": "dict", "default": {}},
            urls={"type": "list", "elements": "str", "default": []},
            private_urls={"type": "list", "elements": "str", "default": [], "no_log": True},
            accept={"type": "list", "elements": "str", "default": []},
            required={"type": "bool", "default": True},
            watchdog={"type": "bool", "default": False},
            baseline={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    run_module(module, look)


if __name__ == "__main__":
    main()
