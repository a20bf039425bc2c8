#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_restart
short_description: Restart a service so that it runs the file that is on disk
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Restarts a unit if its process doesn't run the file at O(binary); otherwise nothing is done, unless O(strategy) is
    V(reload).
  - There is one restart, by one job of systemd's, so a service is down for no longer than by C(systemctl restart). Its
    start limit doesn't stand in the way.
  - Success means that systemd has started it, or told it to read its configuration, no more. Whether it works, and has
    taken the configuration, is for M(observability.stack.health_probe) to prove.
options:
  unit:
    description: The unit.
    type: str
    required: true
  binary:
    description: The program that its process must run.
    type: path
    required: true
  force:
    description: Restart even if its process runs that file.
    type: bool
    default: false
  reload_units:
    description: Let systemd read the unit files anew first. Where it says that they have changed, it always does.
    type: bool
    default: false
  strategy:
    description:
      - V(graceful) gives the service the whole stop time-out of its unit (C(TimeoutStopSec=)), however long it is; then
        it is killed. With C(SendSIGKILL=no) systemd would start the new process beside one that doesn't stop, so it is
        killed shortly before the time is over.
      - V(fast) gives it 10 seconds, or its own time-out if that is shorter; then it is killed. What it hadn't written
        by then it reads again from its write-ahead log. That takes Prometheus and Loki minutes where it is large, and
        they don't answer meanwhile. Alertmanager can lose silences and what it notified of in the last 15 minutes.
      - V(reload) lets it read its configuration anew, each time, without a restart. That is enough where only the
        configuration has changed. Where its process doesn't run the file at O(binary), its unit files have changed,
        or it has no way to do it, it is restarted as with V(graceful), and RV(reason) says why.
    type: str
    choices: [graceful, fast, reload]
    default: graceful
  activate_changes:
    description:
      - Whether to restart a unit whose files are not what systemd has loaded. The restart activates the change.
      - With V(false) nothing is done then, and the task fails with the key V(service.unit_changed).
    type: bool
    default: true
  restore_point:
    description:
      - Id of the restore point that was put back, when a step is undone. The service is then started with the unit that
        systemd had loaded when the restore point was made.
      - Where the unit's files say something else, a drop-in below C(/run/systemd/system) sets what is kept, until the
        next boot. RV(restored_unit) names it.
    type: str
  url:
    description:
      - What the service answers when it is ready. With it the module ends when the answer is no error of the server,
        or after two seconds. Whatever works earlier only takes the processor from a service that is about to start.
    type: str
  also:
    description:
      - Further units whose processes run the same file. They are restarted after O(unit), in this order, in the same
        way.
      - All units are restarted even if one of them fails. The task fails then.
    type: list
    elements: dict
    default: []
    suboptions:
      unit:
        description: The unit.
        type: str
        required: true
      binary:
        description: The program that its process must run.
        type: path
        required: true
      url:
        description: As O(url).
        type: str
  reload_signal:
    description:
      - Whether SIGHUP lets it read its configuration anew. It is sent to the main process where the unit has no
        C(ExecReload=). A service that doesn't know it is ended by it.
    type: bool
    default: false
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
"""

EXAMPLES = r"""
- name: Let the service run what is on disk
  observability.stack.service_restart:
    unit: prometheus.service
    binary: /usr/local/bin/prometheus
  become: true

- name: Let it read its configuration anew
  observability.stack.service_restart:
    unit: prometheus.service
    binary: /usr/local/bin/prometheus
    strategy: reload
    reload_signal: true
  become: true
"""

RETURN = r"""
before:
  description: C(state), C(main_pid) and C(n_restarts) of the unit before.
  returned: success
  type: dict
after:
  description: C(state), C(main_pid) and C(n_restarts) of the unit afterwards. In check mode they are as before.
  returned: success
  type: dict
others:
  description: C(unit) of each of O(also), with its C(before) and C(after).
  returned: success, if O(also) isn't empty
  type: list
  elements: dict
restarted_at:
  description: When the first restart or reload was begun, in seconds since the epoch; none if there was no need of one.
  returned: success
  type: float
seconds:
  description: How long systemd took, in seconds.
  returned: success
  type: float
strategy:
  description: What was done, of those of O(strategy); none if there was no need. In check mode what would be.
  returned: success
  type: str
reason:
  description: Why that isn't O(strategy); none if it is.
  returned: success
  type: str
killed:
  description: Whether it had to be killed, for it didn't stop in its time.
  returned: success
  type: bool
daemon_reload:
  description: Whether systemd was told to read the unit files anew. In check mode whether it would be.
  returned: success
  type: bool
restored_unit:
  description: That the unit's files changed meanwhile, in which settings, and by which file the service runs as before.
    None if that was not needed.
  returned: success
  type: str
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import (
    _lease,
    _loaded_unit,
    _obstacles,
    _processes,
    _restart,
    _restore_point,
    _store,
    _systemd,
    _unit_disk,
)
from ..module_utils._command import run
from ..module_utils._errors import HostError
from ..module_utils._module import arguments, run_module


class _Part(t.NamedTuple):
    """One unit of those that are restarted: how it is now, whether its process runs the file, and what is done."""

    unit: _systemd.Unit
    binary: str
    url: str | None
    runs_it: bool
    choice: _restart.Choice

    @property
    def limit(self) -> float:
        """Seconds that its restart may take."""
        return _restart.time_limit(self.unit, self.choice.strategy)


def restart(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    parts = _parts(params)
    due = [part for part in parts if not part.runs_it or params["force"] or params["strategy"] == "reload"]
    result = _planned(params, parts, due)
    if not due:
        return result
    limit = sum(part.limit for part in due) + _lease.LEASE_SECONDS
    with _store.session(
        params["state_dir"], run=params["run"], check_mode=module.check_mode, lease_seconds=limit
    ) as session:
        if not session.writable:
            return result
        begun, start = time.time(), time.monotonic()
        restored = _bring_back(session, params)
        with _restart.announced(session.layout.restarting):
            done, problems = _carry_out(due, reload_units=params["reload_units"])
        after = [_facts(unit) for unit in _systemd.show(run, [part.unit.name for part in parts])]
        for part in due:
            session.document.forget_probes(part.unit.name, now=session.now)
        session.save()
        if params["run"]:
            session.renew()
        if problems:
            raise _together(problems)
        result["after"] = after[0]
        for other, each in zip(result.get("others", []), after[1:]):
            other["after"] = each
        warnings = [
            *session.warnings,
            *(text for name, each in done.items() for text in _warnings(name, each)),
            *filter(None, [restored]),
        ]
        told = {**_told(done[due[0].unit.name]), "killed": any(each.killed for each in done.values())}
        told.update(restarted_at=begun, seconds=round(time.monotonic() - start, 2), restored_unit=restored)
        return {**result, **told, "warnings": warnings}


def _refuse_changes(unit: _systemd.Unit) -> None:
    """
    :raises HostError: with the difference, if the unit's files are not what systemd has loaded.
    """
    change = _unit_disk.change_of(unit, _systemd.unit_path(run))
    told = [one for one in _obstacles.unit_changed(unit.name, unit.name, change) if one["severity"] == "blocker"]
    if told:
        message = told[0]["message"].replace("The upgrade would", "A restart would")
        raise HostError(
            f"{message}. Nothing was done. Check the change (systemctl cat {unit.name}) and run systemctl "
            "daemon-reload, or take it back",
            key="service.unit_changed",
        )


def _bring_back(session: _store.Session, params: dict[str, t.Any]) -> str | None:
    """Let systemd have the unit that it had when the restore point was made; what was needed for that, for people."""
    if not params["restore_point"]:
        return None
    manifest = _restore_point.read(session, params["restore_point"])
    own = session.layout.own_command(manifest.component)
    restored = _loaded_unit.bring_back(run, manifest.loaded_units, own=own)
    return "; ".join(map(str, restored)) or None


def _planned(params: dict[str, t.Any], parts: list[_Part], due: list[_Part]) -> dict[str, t.Any]:
    """What is returned in check mode: the units as they are, and what would be done."""
    seen = [(part.unit.name, _facts(part.unit)) for part in parts]
    before, rest = seen[0][1], [{"unit": name, "before": facts, "after": facts} for name, facts in seen[1:]]
    result: dict[str, t.Any] = {
        "before": before,
        "after": before,
        **({"others": rest} if rest else {}),
        "restarted_at": None,
        "seconds": 0.0,
        "restored_unit": None,
        "changed": bool(due),
        **_told(None),
    }
    if due:
        unit, choice = due[0].unit, due[0].choice
        anew = choice.strategy != "reload" and (params["reload_units"] or unit.needs_reload)
        restarted = {"units": ", ".join(part.unit.name for part in due)} if rest else {}
        result.update(_told(_restart.Done(choice, killed=False, daemon_reload=anew)))
        result["diff"] = {"before": before, "after": {**before, "runs": due[0].binary, **restarted}}
    return result


def _parts(params: dict[str, t.Any]) -> list[_Part]:
    """All units that are asked for, in order.

    :raises HostError: if one of them isn't there; nothing was restarted then.
    """
    asked = [{name: params[name] for name in ("unit", "binary", "url")}, *params["also"]]
    found = []
    for one, unit in zip(asked, _systemd.show(run, [one["unit"] for one in asked], more=_unit_disk.PROPERTIES)):
        if not unit.is_loaded:
            raise HostError(
                f"there is no unit {unit.name} on this host ({unit.load}): set units in upgrade_overrides",
                key="service.unknown_unit",
            )
        if not params["activate_changes"]:
            _refuse_changes(unit)
        runs_it = _processes.of_program(unit, one["binary"]) > 0
        choice = _restart.choose(
            params["strategy"],
            unit,
            runs_it=runs_it,
            force=params["force"],
            signal=params["reload_signal"],
            reload_units=params["reload_units"],
        )
        found.append(_Part(unit, one["binary"], one["url"], runs_it, choice))
    return found


def _carry_out(due: list[_Part], *, reload_units: bool) -> tuple[dict[str, _restart.Done], list[HostError]]:
    """Restart units one after another. One that fails doesn't keep the others from running what is on disk.

    :returns: what was done, by unit; and what failed.
    """
    done: dict[str, _restart.Done] = {}
    problems = []
    for part in due:
        try:
            done[part.unit.name] = _restart.act(run, part.unit, part.choice, reload_units=reload_units)
        except HostError as exc:
            problems.append(exc)
            continue
        if part.url:
            _restart.settle(part.url)
    return done, problems


def _together(problems: list[HostError]) -> HostError:
    """One error for all units that failed."""
    if len(problems) == 1:
        return problems[0]
    journal = [line for each in problems for line in each.details.get("journal", [])]
    return HostError("; ".join(map(str, problems)), key=problems[0].key, details={"journal": journal})


def _told(done: _restart.Done | None) -> dict[str, t.Any]:
    if done is None:
        return {"strategy": None, "reason": None, "killed": False, "daemon_reload": False}
    return {**done.choice._asdict(), "killed": done.killed, "daemon_reload": done.daemon_reload}


def _warnings(name: str, done: _restart.Done) -> list[str]:
    killed = (
        f"{name} didn't stop in its time and was killed: it may take longer to be ready, and have lost its last data"
    )
    return [killed] if done.killed else []


def _facts(unit: _systemd.Unit) -> dict[str, t.Any]:
    return {"state": f"{unit.active}/{unit.sub}", "main_pid": unit.main_pid, "n_restarts": unit.n_restarts}


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            unit={"type": "str", "required": True},
            binary={"type": "path", "required": True},
            force={"type": "bool", "default": False},
            reload_units={"type": "bool", "default": False},
            strategy={"type": "str", "choices": list(_restart.STRATEGIES), "default": "graceful"},
            activate_changes={"type": "bool", "default": True},
            restore_point={"type": "str"},
            url={"type": "str"},
            also={
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "unit": {"type": "str", "required": True},
                    "binary": {"type": "path", "required": True},
                    "url": {"type": "str"},
                },
            },
            reload_signal={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    run_module(module, restart)


if __name__ == "__main__":
    main()
