# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What people read before an upgrade and after it: plans, what could be, and what to do next."""

from __future__ import annotations

import typing as t

from ..module_utils._state import Step
from ._report import NOTHING, count, hosts, wrap, wrapped

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]

SEVERITIES = ("blocker", "accepted", "warning", "held", "skipped", "info")
"""In the order in which they are told. C(held): a newer release isn't taken. C(skipped): this run leaves it alone."""


def plan(document: Data) -> str:
    """What a plan does, on which hosts, in which order and why, what it costs, and what is to be known before."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in document["rows"]:
        groups.setdefault(_way(row), []).append(row["host"])
    number = sum(len(steps) for steps in document["hosts"].values())
    title = f"Plan {document['digest'][:12]}: {count(number, 'step')} on {count(len(document['hosts']), 'host')}"
    rows = [(*key, hosts(group)) for key, group in groups.items()]
    lines = [title, *_costs(document), "", *wrapped(("COMPONENT", "NOW", "TO", "HOSTS"), rows)]
    return "\n".join([*lines, *_order(document), *_findings(document["findings"])])


def _way(row: Data) -> tuple[str, str, str]:
    """Component, where it is, where it goes."""
    here, running = row["installed"], row["running"]
    if not row["proven"]:
        here = f"{here} (unproven)"
    elif running not in (None, here):
        here = f"{here} (runs {running})" if here else f"runs {running}"
    goal = " -> ".join(row["hops"]) or row["note"].replace("_", " ")
    goal = goal or (f"with {row['with']}" if row.get("with") else "nothing to do")
    return row["component"], here or NOTHING, goal


def _costs(document: Data) -> list[str]:
    """Time, bytes and room, as far as they are known."""
    told = []
    if document.get("seconds"):
        told.append(f"about {duration(document['seconds'])}, going by earlier upgrades")
    download = document.get("download")
    if download and download["archives"]:
        unknown = f" and {count(download['unknown'], 'archive')} of unknown size" if download["unknown"] else ""
        told.append(f"{size(download['bytes'])}{unknown} to download at most")
    room = max(document.get("backups", {}).values(), default=0)
    if room and document["hosts"]:
        place = document.get("backup_dir")
        told.append(f"restore points of up to {size(room)} on a host{f', in {place}' if place else ''}")
    return wrap("; ".join(told), "") if told else []


def duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(number: float) -> str:
    """Bytes, as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def _order(document: Data) -> list[str]:
    """Each step of each phase, on how many hosts, and why there."""
    rows = [
        (phase["name"] if position == 0 else "", key, sum(key in keys for keys in phase["hosts"].values()), why)
        for phase in document["phases"]
        for position, key in enumerate(phase["sequence"])
        for why in [_reasons(document, phase, key)]
    ]
    if len(rows) < 2 and all(why.startswith("wanted") for *_step, why in rows):
        return []  # the table above says it all
    return ["", *wrapped(("PHASE", "STEP", "HOSTS", "WHY"), rows)]


def _reasons(document: Data, phase: Data, key: str) -> str:
    steps = [document["hosts"][host][key] for host, keys in phase["hosts"].items() if key in keys]
    reasons = list(dict.fromkeys(step["reason"] for step in steps)) + phase["because"].get(key, [])
    floors = [step["rollback_floor"] for step in steps if step.get("rollback_floor")]
    if floors:
        reasons.append(f"no way back below {floors[0]['versions']}")
    if any(step.get("stopped_backup") for step in steps):
        reasons.append("copy its data while it is stopped first")
    return "; ".join(reasons)


def _findings(findings: list[Data]) -> list[str]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for finding in findings:
        if finding["key"].endswith(".not_installed"):
            continue
        told = (finding["severity"], finding["key"], finding["message"], finding["fix"])
        groups.setdefault(told, []).append(finding["host"])
    lines = []
    for (severity, key, message, fix), group in sorted(groups.items(), key=_by_severity):
        names = hosts(list(dict.fromkeys(group)))
        lines += ["", *wrap(f"{severity}: {key} ({names})", ""), *wrap(message), *wrap(f"-> {fix}")]
    return lines


def _by_severity(item: tuple[tuple[str, ...], list[str]]) -> tuple[int, str]:
    return SEVERITIES.index(item[0][0]), item[0][1]


# -- check --------------------------------------------------------------------------------------------------------


def check(checked: Data) -> str:
    """What is installed, what could be, and what keeps it from being."""
    groups: dict[tuple[t.Any, ...], list[str]] = {}
    for row in checked["rows"]:
        running = None if row["running"] == row["installed"] else row["running"] or "nothing"
        cells = (
            row["component"],
            row["installed"],
            running,
            row["available"] or ("?" if row["error"] else None),
            row["change"],
            row["released"],
            "yes" if row["vulnerable"] else None,
            ", ".join(key.partition(".")[2].replace("_", " ") for key in row["blocked_by"]) or None,
        )
        groups.setdefault(cells, []).append(row["host"])
    if not groups:
        return "Nothing is installed that the catalog knows."
    header = ("COMPONENT", "HOSTS", "INSTALLED", "RUNS", "AVAILABLE", "CHANGE", "RELEASED", "VULNERABLE", "BLOCKED BY")
    rows = [(key[0], len(group), *key[1:]) for key, group in groups.items()]
    told = [number for number in range(len(header)) if number < 3 or any(row[number] is not None for row in rows)]
    lines = wrapped([header[number] for number in told], [[row[number] for number in told] for row in rows])
    return "\n".join([*lines, *_findings(checked["findings"]), *_notes(checked["sources"])])


def _notes(sources: Mapping[str, Data]) -> list[str]:
    lines = []
    for source, answer in sources.items():
        for text in (answer.get("note"), answer.get("error")):
            if text:
                lines += ["", *wrap(text if source in text else f"{source}: {text}", "")]
    return lines


# -- afterwards ---------------------------------------------------------------------------------------------------


def bumps(documents: Mapping[str, Data], catalog: Mapping[str, Data]) -> str:
    """The inventory's lines to change, so that the roles that deployed a component don't go back at their next run."""
    groups: dict[tuple[str, str], list[str]] = {}
    for host, document in documents.items():
        for key, ended in document["upgrade"].get("steps", {}).items():
            name, version = Step.of(key)
            record = document["components"].get(name, {})
            # A further instance has no entry there: the variable is that of the first one.
            if ended == "succeeded" and record.get("to_version") == version:
                for variable in catalog.get(name, {}).get("version_variables", []):
                    groups.setdefault((variable, version), []).append(host)
    if not groups:
        return ""
    intro = (
        "What deployed these programs goes by versions of its own. So that it doesn't put the old ones back, "
        "set in its inventory:"
    )
    told = {variable: sum(variable == other for other, _version in groups) for variable, _version in groups}
    lines = [
        f"  {variable}: {version}" + (f"  # {hosts(group)}" if told[variable] > 1 else "")
        for (variable, version), group in sorted(groups.items())
    ]
    return "\n".join(["", "", *wrap(intro, ""), *lines])
