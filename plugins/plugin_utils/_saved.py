# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. A plan that was saved, and hosts that it may still be carried out on."""

from __future__ import annotations

import json
import typing as t

from ..module_utils._errors import InputError

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]

_STATE = ("version", "running", "restart_pending")
_SETUP = ("unit", "binary", "architecture", "user", "flags", "environment", "config", "web_config", "data", "package")
_PARTS = {"kind": str, "phases": list, "hosts": dict, "expects": dict, "digest": str, "findings": list, "rows": list}
_HINT = "make a new plan, with the playbook plan"


def expected(survey: Data, steps: Mapping[str, Data]) -> Data:
    """What a plan was made for: of each component with steps all that they follow from."""
    names = dict.fromkeys(step["component"] for step in steps.values())
    return {name: _seen(survey["components"][name], (*_STATE, *_SETUP)) for name in names}


def _seen(facts: Data, fields: t.Iterable[str]) -> Data:
    return {field: facts.get(field) for field in fields}


def reopen(text: t.Any, surveys: Mapping[str, Data], *, digest: t.Callable[[Data], str], name: str) -> Data:
    """A saved plan, without the steps that are done.

    :param text: the document, as the playbook C(plan) saved it.
    :param name: the file that it comes from, for errors.
    :raises InputError: if it isn't a plan, was changed since, or doesn't match the hosts any more; with all that
        doesn't match.
    """
    try:
        plan = json.loads(text)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InputError(f"upgrade_plan: {name} is no JSON ({exc}): {_HINT}", key="plan.malformed") from exc
    if not isinstance(plan, dict) or not all(isinstance(plan.get(key), kind) for key, kind in _PARTS.items()):
        raise InputError(f"upgrade_plan: {name} is no plan that the playbook plan saved: {_HINT}", key="plan.malformed")
    try:
        intact = digest(plan) == plan["digest"]
        differences = [line for host in plan["hosts"] for line in _differences(plan, host, surveys)] if intact else []
        rest = _rest(plan, surveys) if intact and not differences else plan
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as exc:
        raise InputError(f"upgrade_plan: {name} is damaged ({exc!r}): {_HINT}", key="plan.malformed") from exc
    if not intact:
        raise InputError(
            f"upgrade_plan: {name} isn't what was saved: its steps have another digest than {plan['digest'][:12]!r}. "
            f"Plans aren't edited; {_HINT}",
            key="plan.changed",
        )
    if differences:
        told = "; ".join(differences[:10]) + (f"; and {len(differences) - 10} more" if len(differences) > 10 else "")
        raise InputError(f"upgrade_plan: {name} doesn't match the hosts any more: {told}. {_HINT}", key="plan.mismatch")
    return rest


def _differences(plan: Data, host: str, surveys: Mapping[str, Data]) -> list[str]:
    """In what a host isn't what the plan was made for. What this very plan has done to it doesn't count."""
    if host not in surveys:
        return [f"{host} isn't here: it can't be reached, or -l leaves it out"]
    lines = []
    for name, wanted in plan["expects"][host].items():
        facts = surveys[host]["components"].get(name, {})
        fields = _SETUP if _done(plan, host, name, surveys[host]) else (*_STATE, *_SETUP)
        now = _seen(facts, fields)
        lines += [
            f"{host}: {field} of {name} is {now[field]!r}, the plan was made for {wanted[field]!r}"
            for field in fields
            if now[field] != wanted[field]
        ]
    return lines


def _done(plan: Data, host: str, name: str, survey: Data) -> list[str]:
    """The keys of a component's steps that this plan has begun on a host, in order; the last may be unfinished."""
    state = survey.get("state") or {}
    if state.get("upgrade", {}).get("plan_digest") != plan["digest"]:
        return []
    reached = f"{name}@{state.get('components', {}).get(name, {}).get('to_version')}"
    keys = [key for phase in plan["phases"] for key in phase["hosts"].get(host, []) if key.startswith(f"{name}@")]
    version, steps = survey["components"].get(name, {}).get("version"), plan["hosts"][host]
    if reached not in keys or version not in (steps[reached]["from"], steps[reached]["to"]):
        return []
    return keys[: keys.index(reached) + 1]


def _rest(plan: Data, surveys: Mapping[str, Data]) -> Data:
    """The plan without the steps that were proven."""
    over = {host: _proven(plan, host, surveys[host]) for host in plan["hosts"]}
    hosts = {
        host: {key: step for key, step in steps.items() if key not in over[host]}
        for host, steps in plan["hosts"].items()
    }
    phases = []
    for phase in plan["phases"]:
        left = {
            host: [key for key in phase["hosts"][host] if key not in over[host]]
            for host in surveys  # which are in the order of the inventory; a file may not be
            if host in phase["hosts"]
        }
        left = {host: keys for host, keys in left.items() if keys}
        sequence = [key for key in phase["sequence"] if any(key in keys for keys in left.values())]
        if sequence:
            phases.append({**phase, "sequence": sequence, "hosts": left})
    return {
        **plan,
        "phases": phases,
        "hosts": {host: steps for host, steps in hosts.items() if steps},
        "rows": [_row(row, hosts) for row in plan["rows"]],
        "findings": [each for each in plan["findings"] if _is_left(each, hosts)],
    }


def _row(row: Data, hosts: Mapping[str, Data]) -> Data:
    """A row with what is left of its steps."""
    left = [hop for hop in row["hops"] if f"{row['component']}@{hop}" in hosts.get(row["host"], {})]
    return {**row, "hops": left, "note": row["note"] if left == row["hops"] else "done" if not left else ""}


def _is_left(finding: Data, hosts: Mapping[str, Data]) -> bool:
    """Whether a finding is about something that is still to be done, or was never meant to be."""
    steps = hosts.get(finding["host"])
    return steps is None or any(step["component"] == finding["component"] for step in steps.values())


def _proven(plan: Data, host: str, survey: Data) -> set[str]:
    over: set[str] = set()
    for name in plan["expects"][host]:
        begun = _done(plan, host, name, survey)
        record = (survey.get("state") or {}).get("components", {}).get(name, {})
        proven = record.get("state") == "success" and not survey.get("unfinished", {}).get(name)
        reached = bool(begun) and survey["components"][name].get("version") == plan["hosts"][host][begun[-1]]["to"]
        over.update(begun if proven and reached else begun[:-1])
    return over
