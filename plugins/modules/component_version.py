#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: component_version
short_description: Read which components a host has, and which version of each is on disk and running
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Reads all components of a host in one call, without changing anything.
  - The version B(on disk) is that of the program at its path. The version B(running) is that of the file that the
    process really runs, even if it has been replaced or deleted since. Where the two differ, a restart is pending.
  - Root runs no program that it finds on a host. A version is taken from what the host has recorded for the file's
    sha256 (the state, restore points, staged candidates), otherwise from the metrics of the service that runs the
    file. Only where neither knows it, an ELF program is run with the arguments that print its version, in a sandbox
    without network, as the unit's user, or as C(nobody) where that is root. Scripts are never run.
  - How a component is set up is read from its process, that is its arguments, variables, working directory and
    sockets. Where none runs, C(ExecStart) and the environment files are read by the rules of systemd.
  - Where a web configuration or a flag suggests it, the service is asked whether it speaks TLS and wants a login.
  - What can't be read is V(unknown), never a number.
  - Secrets on command lines are hidden. Of the environment only names are returned.
options:
  only:
    description: The components to look for. All that the catalog knows if none is named.
    type: list
    elements: str
    default: []
  overrides:
    description: What is other on this host than the catalog says, by component and field; see C(docs/catalog.md).
    type: dict
    default: {}
  components:
    description: Whole components of your own, by name, in the catalog's format.
    type: dict
    default: {}
  settings:
    description:
      - The request of the host is returned beside what it has, so that a plan for many hosts takes no other task.
        all of these variables first.
      - The request of the host is returned beside what the host has, so that a plan for many hosts takes no other task.
    type: bool
    default: false
  specs:
    description: Set by the controller's half. What the catalog says about reading each component.
    type: dict
  checksum:
    description: Whether to read the sha256 of each file. It costs about a second per gigabyte.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that the services have for their metrics, all together, and that each program has which is run for its
        version. The version is V(unknown) then.
    type: int
    default: 10
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.info_module
  - observability.stack._attributes.actiongroup_upgrade
"""

EXAMPLES = r"""
- name: Read all components that the catalog knows
  observability.stack.component_version:
  become: true
  register: survey

- name: Read Prometheus, whose unit has another name here
  observability.stack.component_version:
    only: [prometheus]
    overrides:
      prometheus:
        units: [prom]
  become: true

- name: Tell what runs
  ansible.builtin.debug:
    msg: "{{ survey.components }}"
"""

RETURN = r"""
wish:
  description: The request of the host, as its C(upgrade_*) variables make it. It is not sent to the host.
  returned: with O(settings)
  type: dict
components:
  description: What was found, by component. A component that the host has no trace of is left out.
  returned: success
  type: dict
  contains:
    installed:
      description:
        - Whether its program is a file of this host. If it isn't, RV(components.unit) and RV(components.not_upgradable)
          tell what was found.
      type: bool
    instance_of:
      description:
        - The component that this is a further instance of. Its key is that component's, C(@), and its port; or its
          unit's name where another instance has that port.
      returned: for further instances
      type: str
      sample: node_exporter
    shared_by:
      description:
        - The other processes of the host that run the very same file, outside of RV(components.unit).
        - C(unit) that has the process, none if no unit has it; C(pid); C(program) as the process calls it; and
          C(container), whether it is in one.
      returned: if there are any
      type: list
      elements: dict
    not_upgradable:
      description:
        - Why the component was found and cannot be upgraded. C(docs/discovery.md) lists the keys.
        - C(key), such as V(container), V(wrapper), V(masked) or V(no_unit); the C(reason); and C(fix),
          which makes it upgradable.
      returned: if it cannot be upgraded
      type: dict
    not_read:
      description: What could not be read of its process, and why.
      returned: if something could not be read
      type: str
    version:
      description: Version of the program on disk; V(unknown) if it can't be read; none if it isn't installed.
      type: str
      sample: 2.42.0
    running:
      description: Version of the program that runs; none if none does.
      type: str
      sample: 2.42.0
    restart_pending:
      description: Whether the process runs another file than the one on disk.
      type: bool
    version_source:
      description:
        - How RV(components.version) is known. V(sha256), from what the host has recorded; V(service), from the metrics
          of the service that runs this file; V(program), from the program, which was run in a sandbox.
        - None if it is unknown.
      type: str
      choices: [sha256, service, program]
    version_unknown:
      description: Why RV(components.version) is V(unknown); otherwise none.
      type: str
      sample: /opt/x/start is no ELF program, and no other is run to ask it
    running_unknown:
      description: Why RV(components.running) is V(unknown); otherwise none.
      type: str
    unit:
      description: The unit that runs it; none if it has none.
      type: str
      sample: prometheus.service
    state:
      description:
        - C(active) and C(sub) state of the unit, and C(n_restarts), how often systemd restarted it by itself.
        - C(enabled) is the state of its unit file, such as V(enabled), V(disabled) or V(static).
      type: dict
    need_reload:
      description: Whether the unit's files have changed since systemd read them.
      type: bool
    binary:
      description: Path of the program that the unit starts.
      type: str
    files:
      description:
        - C(name), C(path), C(size), C(sha256) and C(identity) of the program and its companions beside it.
        - C(identity) is a text that differs as soon as the file, its owner, mode, attributes or content, or a link on
          the way to it, was changed. A file that can't be read safely, such as one behind a link in a directory that a
          user other than root can write, has neither C(identity) nor C(sha256).
      type: list
      elements: dict
    package:
      description: C(manager) and C(name) of the package that owns the files; none if none does.
      type: dict
    architecture:
      description: Architecture of the program, named as releases do.
      type: str
      sample: amd64
    user:
      description: User that the unit runs as.
      type: str
    unit_files:
      description: The unit file and its drop-ins.
      type: list
      elements: str
    command_line:
      description:
        - The command line of the process, without secrets. If none runs, what systemd starts the unit with.
        - The arguments in a C(@file) of kingpin are among them.
      type: list
      elements: str
    flags:
      description: Names of the flags on it.
      type: list
      elements: str
    environment:
      description: Names of the variables that the unit sets, and of those that its process was started with.
      type: list
      elements: str
    flag_values:
      description: Those values of the unit's flags, by flag, that some version doesn't take any more; no others.
      returned: if there are any
      type: dict
      sample: {enable-feature: [remote-write-receiver]}
    lookalike:
      description: The other project that the program is of, where several have programs of the same name.
      returned: if it is of another
      type: str
    settings:
      description: Those settings of the configuration that some version doesn't take any more.
      type: list
      elements: str
    config:
      description:
        - Path of the configuration file, on the host. A relative path is joined with the working directory of the
          process, and one of a unit with C(RootDirectory) begins there.
      type: str
    config_files:
      description: All files of the configuration.
      returned: if it is a directory, has wildcards, or is made up of several files
      type: list
      elements: str
    missing:
      description:
        - Files that the unit declares, and that are not on the host or can't be read safely. A restore point would lack
          them.
      returned: if there are any
      type: list
      elements: str
    listens:
      description:
        - Where the processes of the unit listen, by C(address) and C(port), or by the path C(unix) of a Unix socket.
        - RV(components.url) is one of them, if any is known.
      returned: if a process runs, and its sockets can be read
      type: list
      elements: dict
    unseen:
      description: Why the process can't be read, and what was taken from the unit in its place.
      returned: if the process can't be read
      type: str
    web_config:
      description: Path of the file that sets TLS and authentication of its HTTP interface.
      type: str
    data:
      description: Path of the data.
      type: str
    restore_point_bytes:
      description: Bytes of all that a restore point would keep of it; its programs, unit, configuration and state.
      type: int
      sample: 198234112
    url:
      description:
        - Where the component answers on its own host, with its path prefix. It follows from the sockets of the process;
          of several sockets, the flags choose.
        - A Unix socket is a URL such as C(http+unix://%2Frun%2Fx.sock).
      type: str
      sample: http://127.0.0.1:9090
    metrics_path:
      description: Path of its own metrics below RV(components.url).
      type: str
    protected:
      description: Whether its HTTP interface asks for a password.
      type: bool
state:
  description: The host's record of upgrades; none if there is none. See C(docs/state.schema.json).
  returned: success
  type: dict
unfinished:
  description:
    - For each component whose upgrade was cut off after its files were touched, or could not be undone, what its files
      are now.
    - V(old), V(new), V(mixed) or V(other), by their sha256.
  returned: success
  type: dict
  sample: {prometheus: mixed}
staged:
  description: For each step whose release waits on the host already, proven, the sha256 of the archive it came from.
  returned: success
  type: dict
  sample: {prometheus@3.5.3: 1ab3}
lease:
  description: Who has the host now. Empty if nobody has.
  returned: success
  type: dict
stale_lease:
  description: Who had it, and has ended without giving it back. Empty if nobody has left it so.
  returned: success
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _candidates, _evidence, _instance_keys, _lease, _store, _survey
from ..module_utils._command import run
from ..module_utils._errors import InputError
from ..module_utils._module import arguments, run_module

_WAIT_FOR_A_MODULE = 120.0


def read_host(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if params["specs"] is None:
        raise InputError("this module needs its half on the controller: call it as a task of a playbook")
    state = _store.peek(params["state_dir"], wait=_WAIT_FOR_A_MODULE)
    lease = _store.read_lease(params["state_dir"])
    held = _lease.holder(lease, now=_store.present(lease)) is not None
    records = (state or {}).get("components", {})
    versions = _evidence.Versions(
        run,
        timeout=params["timeout"],
        recorded=_evidence.known(params["state_dir"], records),
        state_dir=params["state_dir"],
    )
    reader = _survey.Reader(run, versions, checksum=params["checksum"])
    return {
        "changed": False,
        "components": _instance_keys.kept(reader.survey(params["specs"]), records),
        "state": state,
        "unfinished": _store.unfinished(records),
        "staged": _candidates.archives(_store.Layout(params["state_dir"])),
        "lease": lease if held else {},
        "stale_lease": lease if lease.get("upgrade_id") and not held else {},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            only={"type": "list", "elements": "str", "default": []},
            overrides={"type": "dict", "default": {}},
            components={"type": "dict", "default": {}},
            settings={"type": "bool", "default": False},
            specs={"type": "dict"},
            checksum={"type": "bool", "default": True},
            timeout={"type": "int", "default": 10},
        ),
        supports_check_mode=True,
    )
    run_module(module, read_host)


if __name__ == "__main__":
    main()
