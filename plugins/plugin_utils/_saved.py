# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. A plan that was saved, and hosts that it may still be carried out on.

A file says which component of which host goes to which version, and in which order. All else of it, such as URLs,
paths, units, arguments and probes, decides what root runs on the hosts. So it is worked out again from the catalog,
from the operator's variables and from the hosts, and a file that says anything else is refused, whatever its digest is.
"""

from __future__ import annotations

import json
import re
import typing as t

from ..module_utils._errors import InputError
from ..module_utils._state import Step, name_of
from . import _steps, _subject, _versions, _way

if t.TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from ._wish import Wish

    Data = dict[str, t.Any]

_STATE = ("version", "running", "restart_pending")
_SETUP = ("unit", "binary", "architecture", "user", "flags", "environment", "config", "web_config", "data", "package")
_PARTS = {"kind": str, "phases": list, "hosts": dict, "expects": dict, "digest": str, "findings": list, "rows": list}
_HINT = "make a new plan, with the playbook plan"
_LIVE = ("target", "from_target", "shared", "keep", "reason")
"""Fields of a step that follow from what runs, which a step that was begun may have stopped."""
_ROW = {"installed": "version", "running": "running"}
_NONE = object()
_FINDING = ("key", "severity", "host", "message", "fix")


def expected(survey: Data, steps: Mapping[str, Data]) -> Data:
    """What a plan was made for: of each component with steps all that they follow from."""
    names = dict.fromkeys(name for step in steps.values() for name in _carried(step) if name in survey["components"])
    return {name: _seen(survey["components"][name], (*_STATE, *_SETUP)) for name in names}


def _carried(step: Data) -> list[str]:
    """The keys of all instances that a step is about."""
    return [step["component"], *(other["target"]["component"] for other in step.get("shared", ()))]


def _seen(facts: Data, fields: t.Iterable[str]) -> Data:
    return {field: facts.get(field) for field in fields}


def reopen(
    text: t.Any,
    surveys: Mapping[str, Data],
    wishes: Mapping[str, Wish],
    *,
    digest: t.Callable[[Data], str],
    name: str,
    today: dt.date,
    approved: str = "",
) -> Data:
    """A saved plan, without the steps that are done. Its links are those of the file: they must be made again.

    :param text: the document, as the playbook C(plan) saved it.
    :param name: the file that it comes from, for errors.
    :param approved: the digest that the operator approved, if any.
    :raises InputError: if it isn't a plan, was changed since, isn't the one that was approved, doesn't match the hosts
        any more, or has steps that the variables of this run don't make; with all that doesn't match.
    """
    plan = _loaded(text, name)
    try:
        intact = digest(plan) == plan["digest"]
        if intact:
            _check_shape(plan)
        differences = [line for host in plan["hosts"] for line in _differences(plan, host, surveys)] if intact else []
        strange = [] if differences or not intact else _strange(plan, surveys, wishes, today)
        rest = plan if differences or strange or not intact else _rest(plan, surveys)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as exc:
        raise InputError(f"upgrade_plan: {name} is damaged ({exc!r}): {_HINT}", key="plan.malformed") from exc
    if not intact:
        why = f"isn't what was saved: its steps have another digest than {plan['digest'][:12]!r}. Plans aren't edited"
        raise _refused(name, "changed", f"{why}; {_HINT}")
    if approved and approved != plan["digest"]:
        why = f"has the digest {plan['digest']}, but upgrade_approved is {approved}: look at the plan again"
        raise _refused(name, "not_approved", f"{why}, with the playbook plan, and approve it with its whole digest")
    if differences:
        raise _refused(name, "mismatch", f"doesn't match the hosts any more: {_cut(differences)}. {_HINT}")
    if strange:
        raise _refused(
            name,
            "strange",
            f"has what the variables of this run and the catalog don't make: {_cut(strange)}. Run it with the "
            f"variables that it was made with, or {_HINT}; if nobody changed those, somebody has changed the file",
        )
    return rest


def _loaded(text: t.Any, name: str) -> Data:
    try:
        plan = json.loads(text)
    except (TypeError, ValueError, RecursionError) as exc:
        raise _refused(name, "malformed", f"is no JSON ({exc}): {_HINT}") from exc
    if not isinstance(plan, dict) or not all(isinstance(plan.get(key), kind) for key, kind in _PARTS.items()):
        raise _refused(name, "malformed", f"is no plan that the playbook plan saved: {_HINT}")
    return plan


def _refused(name: str, key: str, why: str) -> InputError:
    return InputError(f"upgrade_plan: {name} {why}", key=f"plan.{key}")


def _cut(lines: list[str]) -> str:
    return "; ".join(lines[:10]) + (f"; and {len(lines) - 10} more" if len(lines) > 10 else "")


def _check_shape(plan: Data) -> None:
    """Whether phases, steps, rows and findings have the form that a plan has, and agree with each other.

    :raises ValueError: if not, as AttributeError, KeyError and TypeError are.
    """
    if plan["kind"] != "upgrade":
        raise ValueError(f"its kind is {plan['kind']!r}, and only upgrades are carried out from a file")
    for phase in plan["phases"]:
        _check_phase(phase, plan["hosts"])
    for host, steps in plan["hosts"].items():
        in_phases = [key for phase in plan["phases"] for key in phase["hosts"].get(host, [])]
        if sorted(in_phases) != sorted(steps) or not all(_versions.is_version(step["to"]) for step in steps.values()):
            raise ValueError(f"the steps of {host} aren't those of its phases")
    if {host for phase in plan["phases"] for host in phase["hosts"]} != set(plan["hosts"]):
        raise ValueError("a phase has a host without steps")
    if not all(isinstance(finding[field], str) for finding in plan["findings"] for field in _FINDING):
        raise TypeError("a finding is none")
    _check_rows(plan)


def _check_phase(phase: Data, hosts: Data) -> None:
    of = {hosts[host][key]["phase"] for host, keys in phase["hosts"].items() for key in keys}
    if len(of) != 1 or not re.fullmatch(rf"{re.escape(min(of))}(-\d+)?", phase["name"], re.ASCII):
        raise ValueError("a phase has steps of another")
    keys = {key for each in phase["hosts"].values() for key in each}
    texts = [phase["name"], *phase["sequence"]]
    texts += [text for field in ("because", "after") for each in phase[field].values() for text in each]
    if keys != set(phase["sequence"]) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a phase has other steps than its hosts")


def _check_rows(plan: Data) -> None:
    """Whether the table, which no digest covers, tells what the steps do."""
    shown = {(row["host"], row["component"]): row for row in plan["rows"]}
    told = sorted((host, f"{name}@{hop}") for (host, name), row in shown.items() for hop in row["hops"])
    if told != sorted((host, key) for host, steps in plan["hosts"].items() for key in steps):
        raise ValueError("its rows aren't those of its steps")
    for host, components in plan["expects"].items():
        for name, facts in components.items():
            if any(shown[host, name][cell] != facts[field] for cell, field in _ROW.items()):
                raise ValueError("its rows aren't those of what it was made for")


def _strange(plan: Data, surveys: Mapping[str, Data], wishes: Mapping[str, Wish], today: dt.date) -> list[str]:
    """In what the steps of a plan aren't those that the operator's variables, the catalog and the hosts make."""
    lines = []
    for host, steps in plan["hosts"].items():
        for name in dict.fromkeys(step["component"] for step in steps.values()):
            lines += [
                f"{host}: {line}" for line in _strange_steps(plan, host, name, surveys[host], wishes[host], today)
            ]
    return lines


def _strange_steps(plan: Data, host: str, name: str, survey: Data, wish: Wish, today: dt.date) -> list[str]:
    """The same for a component. What a step says of the service that runs is that of now from here on."""
    steps = plan["hosts"][host]
    in_order = (key for phase in plan["phases"] for key in phase["hosts"].get(host, []))
    keys = [key for key in in_order if steps[key]["component"] == name]
    if name_of(name) not in wish.catalog:
        return [f"{name} is no component that the catalog or upgrade_components describe"]
    subject = _subject.group(host, name, survey, wish.catalog)
    begun, versions = bool(_done(plan, host, name, survey)), [steps[key]["to"] for key in keys]
    here = steps[keys[0]]["from"] if begun else subject.origin
    impossible = None if begun else _subject.impossible(subject)
    if impossible:
        return [impossible["message"]]
    lines = [] if begun else _way.against(subject, wish, versions, today=today)
    for key, version in zip(keys, versions):
        made, release = json.loads(json.dumps(_steps.made_again(subject, here, version, target=versions[-1])))
        if not made:
            return [*lines, f"{name} {version} isn't released for {subject.facts['architecture']}"]
        also = {"stage": (None, release), "backup_id": (None,)} if begun else {}
        lines += [
            f"{field} of {key} is another"
            for field in sorted({*made, *steps[key]} - {*(_LIVE if begun else ())})
            if steps[key].get(field, _NONE) not in (made.get(field, _NONE), *also.get(field, ()))
        ]
        steps[key] = {**steps[key], **{field: made[field] for field in _LIVE}}
        here = version
    return lines


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
    steps = plan["hosts"][host]
    carrier = next((step["component"] for step in steps.values() if name in _carried(step)), name)
    reached = f"{carrier}@{state.get('components', {}).get(carrier, {}).get('to_version')}"
    in_order = [key for phase in plan["phases"] for key in phase["hosts"].get(host, [])]
    keys = [key for key in in_order if Step.of(key).component == carrier]
    version = survey["components"].get(carrier, {}).get("version")
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
    for name in dict.fromkeys(step["component"] for step in plan["hosts"][host].values()):
        begun = _done(plan, host, name, survey)
        record = (survey.get("state") or {}).get("components", {}).get(name, {})
        proven = record.get("state") == "success" and not survey.get("unfinished", {}).get(name)
        reached = bool(begun) and survey["components"][name].get("version") == plan["hosts"][host][begun[-1]]["to"]
        over.update(begun if proven and reached else begun[:-1])
    return over
