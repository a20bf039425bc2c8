#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: safe_binary_swap
short_description: Put all files of a component in place, or none, with a way back
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Replaces the files of one component on disk, or puts back those of a restore point. It doesn't touch the service.
  - All files of a component go together. Each successor is prepared beside its place, made durable, and checked, before
    the first of them is renamed. If a rename fails, those already done are undone.
  - Owner, mode, file capabilities, ACLs, the SELinux context and all other extended attributes are carried over from
    the file that is replaced, except setuid and setgid bits.
  - A symbolic link is replaced by a file. Undoing the step, and a step that puts the restore point back, brings the
    link back with its target. If the target has other content by then, the file that was kept takes its place.
  - If O(unit) was changed on disk and systemd has not loaded the change, the restart would activate it. Then nothing is
    replaced, and the task fails with the key V(swap.unit_changed). So it does if systemd has loaded another unit since
    M(observability.stack.upgrade_preflight) looked at it in this run.
  - The restore point keeps the unit as systemd has it loaded.
  - A directory on the way to a file that a user other than root can write is unsafe. Below it no link is followed, all
    changes are made in the directories that were opened first, and no attribute is carried over. A new program belongs
    to root and has mode 0755, another file belongs to the owner of its directory.
  - Before that a restore point is made, O(guard) is armed, and the host's record says which files may be other than
    they were. So a crash at any moment leaves a record that names it.
  - A second attempt after a crash keeps the restore point of the first, which holds the last version that was good.
options:
  state:
    description:
      - V(swapped) puts O(files) in place, or with O(backup_id) those of a restore point, as a new step with a way back.
      - V(restored) puts a restore point in place. Without O(backup_id) it is that of an attempt which was not
        confirmed; if there is none, nothing is done.
    type: str
    choices: [swapped, restored]
    default: swapped
  component:
    description: Name of the component.
    type: str
    required: true
  version:
    description: Version that O(files) are, for O(state=swapped).
    type: str
  from_version:
    description: Version that is in place, or runs, before.
    type: str
  files:
    description: The files to put in place. The first is the program that the unit starts.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description: The proven file on the host.
        type: path
        required: true
      dest:
        description: Where it belongs. A file must be there already.
        type: path
        required: true
      sha256:
        description: What its content must be. Without it, what it is now.
        type: str
      identity:
        description:
          - What M(observability.stack.component_version) reported of the file at C(dest), as C(identity) of a file.
          - A file that is another one since, or whose owner, mode, attributes or content were changed, or which is
            reached by another link, is not replaced. The task fails with the key V(swap.changed).
          - A file that an earlier step put in place is known by its content. Without this option nothing is compared.
        type: str
  unit:
    description:
      - Unit that runs the component.
      - If its process still runs a program that was replaced on disk before, the restore point keeps the program of the
        process, which is the only one known to be good.
    type: str
  accept:
    description:
      - Keys of findings of M(observability.stack.upgrade_preflight) that the operator accepts.
      - With C(<component>.unit_changed) a change of O(unit) does not stop the swap.
    type: list
    elements: str
    default: []
  keep:
    description:
      - Further files for the restore point, by kind. They are kept for the operator, and put back only if O(kinds) says
        so.
      - Of a directory, all files in it are kept. A file that is not there, or can't be read safely, is an error with
        the key V(swap.incomplete_restore_point), and nothing is replaced. State that is not written yet is left out.
      - A file in a directory of another user that this user may not read is left out with a warning.
    type: dict
    suboptions:
      unit:
        description: Unit file and drop-ins.
        type: list
        elements: path
        default: []
      config:
        description: Configuration files.
        type: list
        elements: path
        default: []
      state:
        description: Small files of the component's data that it can't do without.
        type: list
        elements: path
        default: []
  backup_id:
    description: The restore point to take files from.
    type: str
  kinds:
    description: Which files of the restore point to put back.
    type: list
    elements: str
    choices: [binary, unit, config, state]
    default: [binary]
  guard:
    description:
      - Let the host undo the swap by itself if nobody confirms it, for O(state=swapped). It needs O(unit), and a host
        that systemd runs. Without it nothing but a later task undoes a swap.
      - A transient timer of systemd survives the loss of the controller, of SSH and of Ansible. A condition before each
        start of the unit, a drop-in for as long as the step lasts, survives a reboot too.
      - Either puts the restore point back, restarts the unit, proves it, and records why.
        M(observability.stack.upgrade_state) takes both away when it records how the step ended.
    type: dict
    suboptions:
      confirm_within:
        description: Seconds that the host waits after the last module of the run. V(0) goes without a guard.
        type: int
        required: true
      target:
        description: How the old version is proven, like one of O(observability.stack.health_probe#module:targets).
        type: dict
        required: true
      shared:
        description:
          - Targets of other units that run the same file, like O(guard.target). The host restarts and verifies them
            after the component's own unit.
        type: list
        elements: dict
        default: []
      probe_timeout:
        description: Seconds within which the old version must be healthy.
        type: int
        default: 60
      probe_window:
        description: Seconds for which it must stay so.
        type: int
        default: 10
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
seealso:
  - module: observability.stack.release_stage
  - module: observability.stack.service_restart
"""

EXAMPLES = r"""
- name: Put a program in place that was proven before
  observability.stack.safe_binary_swap:
    component: node_exporter
    version: 1.9.0
    from_version: 1.5.0
    unit: node_exporter.service
    files:
      - src: /var/lib/observability-upgrades/staging/node_exporter-1.9.0/node_exporter
        dest: /usr/local/bin/node_exporter
        sha256: 8f1e2b2dd4d2bd38ab8bd1cd7b1ca0d3a6e6d6ef1d4d2b1cfb1ad5a5d8e5b9a1
  become: true

- name: Undo it, unless it has been confirmed
  observability.stack.safe_binary_swap:
    component: node_exporter
    state: restored
  become: true
"""

RETURN = r"""
files:
  description: For each path the sha256 before and after.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The path.
      type: str
    before:
      description: sha256 before; none if there was no file.
      type: str
    after:
      description: sha256 after.
      type: str
backup_id:
  description: The restore point that was made or used; none if there was no need of one.
  returned: success
  type: str
  sample: run-3fa9c294d01c.node_exporter-1.5.0
version:
  description: Version that is in place now, as far as it is known.
  returned: success
  type: str
touched:
  description: With O(state=restored), whether an attempt had crossed the line, so that the service must be proven
    again.
  returned: O(state=restored)
  type: bool
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _files, _guard, _processes, _restore_point, _store, _swap, _systemd, _unit_disk
from ..module_utils._command import run
from ..module_utils._errors import HostError, InputError
from ..module_utils._module import arguments, differences, of_version, run_module
from ..module_utils._state import TOUCHED, Step, is_unsettled

_MOST_KEPT = 1000
"""Files of a directory that a restore point keeps at most."""


def swap(params: dict[str, t.Any], session: _store.Session) -> dict[str, t.Any]:
    wanted = _wanted(params, session)
    planned = _swap.changes(wanted)
    result = _report(planned, wanted.from_version, version=wanted.step.to_version)
    record = session.document.component(wanted.step.component)
    backup_id = record.get("backup_id")
    unproven = record["state"] in TOUCHED
    if result["changed"]:
        _swap.check_identities(session, wanted)
    if not result["changed"] and not unproven and not _swap.lost_restart(wanted):
        _note_in_place(session, wanted, planned)
        return {**result, "backup_id": backup_id}
    if "unit" not in params["kinds"]:  # otherwise the step is there to change it
        _swap.check_unit(run, session, wanted, params["accept"])
    if session.writable:
        backup_id = _swap.apply(run, session, wanted, planned)
    return {**result, "changed": result["changed"] or not unproven, "backup_id": backup_id}


def _note_in_place(session: _store.Session, wanted: _swap.Swap, planned: list[_swap.Change]) -> None:
    """Let a step of the upgrade under way whose files are in place already be verified and confirmed as any other."""
    reason = f"its files were those of {wanted.step.to_version} already"
    files = [change._asdict() for change in planned]
    session.document.skip_step(wanted.step, files=files, reason=reason, now=session.now)
    session.save()


def restore(params: dict[str, t.Any], session: _store.Session) -> dict[str, t.Any]:
    record = session.document.component(params["component"])
    touched = is_unsettled(record)
    backup_id = params["backup_id"] or (record.get("backup_id") if touched else None)
    if backup_id is None:
        return {**_report([], None, version=None), "backup_id": None, "touched": False}
    manifest = _restore_point.read(session, backup_id)
    _restore_point.verify(session, manifest, params["kinds"])
    different = _restore_point.differing(manifest, params["kinds"])
    planned = [_swap.Change(entry.path, _files.sha256_or_none(entry.path), entry.sha256) for entry in different]
    if session.writable and different:
        session.document.rolling_back(now=session.now)
        session.save()
        _restore_point.restore(session, manifest, params["kinds"])
    result = _report(planned, record.get("to_version"), version=manifest.version)
    return {**result, "changed": bool(different), "backup_id": backup_id, "touched": touched}


def _wanted(params: dict[str, t.Any], session: _store.Session) -> _swap.Swap:
    """The swap that is asked for.

    :raises InputError: if it can't be meant so.
    """
    if not params["version"]:
        raise InputError("state=swapped needs version: what the files are")
    candidates = _from_restore_point(params, session) if params["backup_id"] else _from_files(params)
    missing = [item.path for item in candidates if not _files.is_file(item.path)]
    if missing or not candidates:
        raise InputError(
            f"there is no regular file at {', '.join(missing) or 'any path'} to replace: this module upgrades what is "
            "installed, install it first. Links in directories that a user other than root can write are not followed",
            key="swap.nothing_to_replace",
        )
    if params["guard"] and not params["unit"]:
        raise InputError("guard needs unit: what the host restarts when it undoes the step by itself")
    shared = [target["unit"] for target in (params["guard"] or {}).get("shared") or []]
    named = [params["unit"], *shared] if params["unit"] else []
    units = _systemd.show(run, named, more=_unit_disk.PROPERTIES) if named else []
    unit = units[0] if units else None
    return _swap.Swap(
        step=Step(params["component"], params["version"]),
        from_version=params["from_version"],
        candidates=candidates,
        keep=_kept(params["keep"] or {}),
        main_pid=_processes.of_component(unit, candidates[0].path) if unit and candidates else 0,
        restored_from=params["backup_id"],
        guard=_guard_of(params, units),
        units=tuple(units),
    )


def _kept(keep: dict[str, list[str] | None]) -> list[_restore_point.Original]:
    """The files beside the programs that the restore point keeps; of a directory, all that is in it.

    :raises HostError: if one can't be kept. State that the component hasn't written yet needn't be.
    """
    found: list[_restore_point.Original] = []
    missing: list[str] = []
    for kind, path in ((each, path) for each in ("unit", "config", "state") for path in keep.get(each) or []):
        paths = _files.files_below(path, most=_MOST_KEPT) if os.path.isdir(path) else [path]
        if kind != "state" or not _restore_point.is_unwritten(path):
            missing.extend(each for each in paths if not _files.is_file(each))
            found.extend(_restore_point.Original(kind, each, optional=True) for each in paths)
    if missing:
        raise HostError(
            f"the restore point would be without {', '.join(missing)}, which is not on the host or can't be read "
            "safely: nothing was replaced. Put it in place, or correct the unit, and run again",
            key="swap.incomplete_restore_point",
        )
    return found


def _guard_of(params: dict[str, t.Any], units: t.Sequence[_systemd.Unit]) -> _guard.Guard | None:
    """The guard of this step, unless the operator does without.

    :param units: those that run the files, the component's own first.
    """
    guard = params["guard"]
    if not guard or not guard["confirm_within"] or not units:
        return None
    shared = [{**target, "unit": each.name} for target, each in zip(guard["shared"], units[1:])]
    guard = {**guard, "shared": shared}
    return _guard.Guard(component=params["component"], unit=units[0].name, kinds=params["kinds"], **guard)


def _from_files(params: dict[str, t.Any]) -> list[_swap.Candidate]:
    return [
        _swap.Candidate(
            file["src"], file["dest"], file["sha256"] or _files.sha256_file(file["src"]), identity=file["identity"]
        )
        for file in params["files"]
    ]


def _from_restore_point(params: dict[str, t.Any], session: _store.Session) -> list[_swap.Candidate]:
    manifest = _restore_point.read(session, params["backup_id"])
    _restore_point.verify(session, manifest, params["kinds"])
    identities = {file["dest"]: file["identity"] for file in params["files"]}
    return [
        _swap.Candidate(
            source=os.path.join(session.layout.backup(manifest.id), entry.stored),
            path=entry.path,
            sha256=entry.sha256,
            kind=entry.kind,
            attributes=_files.Attributes.from_dict(entry.attributes),
            identity=identities.get(entry.path),
            link=entry.link,
        )
        for entry in manifest.entries
        if entry.kind in params["kinds"]
    ]


def _report(planned: list[_swap.Change], from_version: str | None, *, version: str | None) -> dict[str, t.Any]:
    before = {change.path: of_version(from_version, change.before) for change in planned}
    after = {
        change.path: of_version(version if change.before != change.after else from_version, change.after)
        for change in planned
    }
    return {**differences(before, after), "files": [change._asdict() for change in planned], "version": version}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    with _store.session(params["state_dir"], run=params["run"], check_mode=module.check_mode) as session:
        result = (swap if params["state"] == "swapped" else restore)(params, session)
        return {**result, "warnings": session.warnings}


def main() -> None:
    path_list = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec=arguments(
            state={"type": "str", "choices": ["swapped", "restored"], "default": "swapped"},
            component={"type": "str", "required": True},
            version={"type": "str"},
            from_version={"type": "str"},
            files={
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "src": {"type": "path", "required": True},
                    "dest": {"type": "path", "required": True},
                    "sha256": {"type": "str"},
                    "identity": {"type": "str"},
                },
            },
            unit={"type": "str"},
            accept={"type": "list", "elements": "str", "default": []},
            keep={"type": "dict", "options": {"unit": path_list, "config": path_list, "state": path_list}},
            backup_id={"type": "str"},
            kinds={
                "type": "list",
                "elements": "str",
                "choices": list(_restore_point.KINDS),
                "default": ["binary"],
            },
            guard={
                "type": "dict",
                "options": {
                    "confirm_within": {"type": "int", "required": True},
                    "target": {"type": "dict", "required": True},
                    "shared": {"type": "list", "elements": "dict", "default": []},
                    "probe_timeout": {"type": "int", "default": 60},
                    "probe_window": {"type": "int", "default": 10},
                },
            },
        ),
        supports_check_mode=True,
    )
    run_module(module, act)


if __name__ == "__main__":
    main()
