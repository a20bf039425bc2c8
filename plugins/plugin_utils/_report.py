# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What people read: tables that fit a terminal of 80 columns."""

from __future__ import annotations

import re
import textwrap
import typing as t

from ..module_utils._errors import shown
from ..module_utils._state import ACTIVE, TOUCHED, Step
from ..module_utils._verdicts import NOT_CONFIGURED
from . import _instances

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]

WIDTH = 80
_HOSTS_SHOWN = 3
NOTHING = "-"
_BAR = 20
_CELL = 200
"""Characters of a cell. More of it is cut."""


def table(header: t.Sequence[str], rows: t.Iterable[t.Sequence[t.Any]]) -> list[str]:
    """Rows under a header, each column as wide as its widest cell; what isn't known is a dash."""
    cells = [list(header), *[[NOTHING if cell is None else shown(cell, most=_CELL) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]


def wrapped(header: t.Sequence[str], rows: t.Sequence[t.Sequence[t.Any]]) -> list[str]:
    """A table whose last column is wrapped where the terminal ends, or is below the row where little room is left."""
    first = table(header[:-1], [row[:-1] for row in rows])
    width = max(map(len, first))
    below = WIDTH - width - 2 < _NARROW
    indent, room = (4, WIDTH - 4) if below else (width + 2, WIDTH - width - 2)
    lines = [first[0] if below else f"{first[0]:{width}}  {header[-1]}"]
    for line, row in zip(first[1:], rows):
        texts = textwrap.wrap(NOTHING if row[-1] is None else shown(row[-1]), room, break_on_hyphens=False) or [""]
        told = [f"{'':{indent}}{text}" for text in texts]
        lines += [line, *told] if below else [f"{line:{indent}}{texts[0]}".rstrip(), *told[1:]]
    return lines


_NARROW = 20


def hosts(names: t.Sequence[str]) -> str:
    """The first names of a long list, and how many more there are."""
    first = ", ".join(names[:_HOSTS_SHOWN])
    return first if len(names) <= _HOSTS_SHOWN else f"{first}, +{len(names) - _HOSTS_SHOWN} more"


def wrap(text: str, indent: str = "  ") -> list[str]:
    """A text in lines of a terminal, indented."""
    return textwrap.wrap(shown(text), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def status(surveys: dict[str, Data]) -> str:
    """The state of each host: its upgrade, and each component of it."""
    rows = []
    for host, survey in surveys.items():
        upgrade = (survey["state"] or {}).get("upgrade", {})
        records = (survey["state"] or {}).get("components", {})
        found = survey["components"].items()
        there = {name for name, facts in found if facts["installed"] or facts.get("not_upgradable")}
        state = _upgrade(upgrade, survey)
        for place, name in enumerate(sorted(there | set(records)) or [NOTHING]):
            facts, record = survey["components"].get(name, {}), records.get(name, {})
            once = (host, state) if place == 0 else ("", "")
            lead = _instances.leader(survey, name)
            last = f"with {lead}" if lead != name and not facts.get("restart_pending") else _last(record, facts)
            rows.append((*once, name, facts.get("version"), facts.get("running"), last))
    lines = table(("HOST", "UPGRADE", "COMPONENT", "DISK", "RUNS", "LAST STEP"), rows)
    return "\n".join([*lines, *_progress(surveys), *_errors(surveys), *_not_upgradable(surveys)])


def _upgrade(upgrade: Data, survey: Data) -> str:
    steps = upgrade.get("steps", {})
    done = sum(outcome != "pending" for outcome in steps.values())
    text = upgrade.get("state", "IDLE")
    if steps and done < len(steps):
        text += f" {done}/{len(steps)}"
    for key, told in (("lease", "locked by"), ("stale_lease", "stale lock of")):
        if survey.get(key):
            text += f" ({told} {survey[key].get('user')})"
    return t.cast("str", text)


def _not_upgradable(surveys: dict[str, Data]) -> list[str]:
    """What is there and can't be upgraded: why, and what would make it so."""
    lines = []
    for host, survey in surveys.items():
        for name, facts in survey["components"].items():
            told = facts.get("not_upgradable")
            if told:
                lines += ["", f"{host} {name}: not upgradable ({_words(told['key'])})", *wrap(told["reason"])]
                lines += wrap(f"-> {told['fix']}")
    return lines


def _words(key: str) -> str:
    return key.replace("_", " ")


def _progress(surveys: dict[str, Data]) -> list[str]:
    """How far the upgrades under way have come."""
    rows = []
    for host, survey in surveys.items():
        upgrade = (survey["state"] or {}).get("upgrade", {})
        if upgrade.get("state") in ACTIVE:
            place = [f"phase {upgrade['phase']}" if upgrade.get("phase") else "", upgrade.get("component") or ""]
            rows.append((host, progress_bar(_percent(upgrade.get("steps", {}))), ", ".join(filter(None, place))))
    return ["", *table(("HOST", "PROGRESS", "AT"), rows)] if rows else []


def _percent(steps: Data) -> int:
    ended = sum(outcome != "pending" for outcome in steps.values())
    return round(100 * ended / len(steps)) if steps else 0


def progress_bar(percent: int) -> str:
    """A percentage, as people see it at once."""
    full = _BAR * percent // 100
    return f"[{'#' * full}{'-' * (_BAR - full)}] {percent} %"


def _last(record: Data, facts: Data) -> str:
    if facts.get("not_upgradable"):
        return "not upgradable"
    if facts.get("restart_pending"):
        return "restart pending"
    if not record:
        return NOTHING
    text = f"{record['state']} {record.get('to_version') or ''}".rstrip()
    attempts = record.get("attempts", 0)
    return f"{text} (attempt {attempts})" if attempts > 1 else text


def _errors(surveys: dict[str, Data]) -> list[str]:
    lines = []
    for host, survey in surveys.items():
        for name, record in ((survey["state"] or {}).get("components", {})).items():
            if record.get("last_error"):
                lines += [
                    "",
                    f"{host} {name}: {record.get('outcome') or record['state']}",
                    *wrap(record["last_error"].partition("\n")[0]),
                ]
    return lines


def restore_points(points: dict[str, list[Data]]) -> str:
    """All restore points of all hosts."""
    rows = [
        (host, point["component"], point["version"], point["created_at"], point["id"])
        for host, found in points.items()
        for point in found
    ]
    if not rows:
        return "No restore points: nothing was upgraded on these hosts."
    return "\n".join(table(("HOST", "COMPONENT", "VERSION", "MADE AT", "RESTORE POINT"), rows))


def health(results: dict[str, list[Data]]) -> str:
    """What became of the services that were probed, on each host."""
    rows = [
        (host, service["component"], _health(service), _told(service))
        for host, services in results.items()
        for service in services
    ]
    return "\n".join(wrapped(("HOST", "COMPONENT", "HEALTH", "PROVEN BY"), rows)) if rows else "Nothing to verify."


def is_well(service: Data) -> bool:
    """Whether a service is healthy, or an integration check of something that is not configured: that is no fault."""
    return bool(service["healthy"]) or _is_not_configured(service)


def _is_not_configured(service: Data) -> bool:
    failed = [str(verdict.get("seen", "")) for verdict in service["verdicts"] if not verdict["ok"]]
    return " -> " in service["component"] and bool(failed) and all(text.startswith(NOT_CONFIGURED) for text in failed)


def _health(service: Data) -> str:
    return "healthy" if service["healthy"] else NOT_CONFIGURED if _is_not_configured(service) else "NOT HEALTHY"


def _told(service: Data) -> str | None:
    return ", ".join(verdict["probe"] for verdict in service["verdicts"] if verdict["ok"]) or None


def sick(results: dict[str, list[Data]]) -> list[str]:
    """The services that are unhealthy, each with its reason and what its journal tells of it."""
    return [
        "\n    ".join([shown(f"{host}: {service['component']} isn't healthy: {service['reason']}"), *telling(service)])
        for host, services in results.items()
        for service in services
        if not is_well(service)
    ]


_TELLING = re.compile(
    r"\b(?:level=(?:error|warn\w*|fatal|panic)|err(?:or)?s?|fail\w*|panic|fatal|denied|refused|cannot|can't|unable"
    r"|invalid|unknown|no such|not found|permission|exit\w*|killed|status=)",
    re.IGNORECASE,
)
_LINES = 5
_LINE = 2 * WIDTH


def telling(service: Data) -> list[str]:
    """The last lines of a service's journal that tell of an error, each cut. An integration check has none: what does
    not work between two components is not in the journal of one that is well."""
    if " -> " in service["component"]:
        return []
    lines = [line for line in service["journal"] if _TELLING.search(line)] or service["journal"][-1:]
    return [shown(line, most=_LINE) for line in lines[-_LINES:]]


def locks(results: dict[str, Data]) -> str:
    """What became of the lock of each host."""
    rows = []
    for host, result in results.items():
        holder = result.get("taken_from") or {}
        done = "released" if result.get("changed") else "free"
        rows.append((host, done, holder.get("upgrade_id"), holder.get("user"), holder.get("controller")))
    return "\n".join(table(("HOST", "LOCK", "OF UPGRADE", "USER", "CONTROLLER"), rows))


def record_problems(results: dict[str, Data]) -> list[str]:
    """What is wrong with the records of hosts."""
    return [shown(f"{host}: {problem}") for host, result in results.items() for problem in result.get("problems", [])]


def outcome(done: Data) -> str:
    """What a run has done: for each host the steps of its upgrade, and how they ended.

    :param done: as C(_outcome.of_run) returns it.
    """
    told = done["outcome"]
    rows = [
        (name, *Step.of(key), ended) for name, host in told["hosts"].items() for key, ended in host["steps"].items()
    ]
    if told["check_mode"]:
        rows = [
            row for row in rows if row[-1] not in ("pending", "succeeded")
        ]  # nothing was done, but something may fail
    lines = table(("HOST", "COMPONENT", "VERSION", "OUTCOME"), rows) if rows else ["Nothing was done."]
    for state, text in _ENDED.items():
        names = [name for name, host in told["hosts"].items() if host["state"] == state]
        if names and not (told["check_mode"] and state == "not_begun"):
            lines += ["", *wrap(text.format(hosts(names)), "")]
    return "\n".join([*lines, *_unasked(done["unasked"], told["upgrade_id"])])


_ENDED = {
    "lost": "{} cannot be reached any more. Run the same command again when it can: it finishes what was begun.",
    "waiting": "The maintenance window has closed on {} meanwhile: the next run goes on there.",
    "not_begun": "Not begun, because the run stopped before: {}.",
}


def _unasked(noted: dict[str, list[Data]], upgrade_id: str) -> list[str]:
    """The checks of candidates that could not be run, on each host.

    :param noted: what the hosts' runs have noted, also earlier ones.
    """
    rows = [
        (host, each["message"]) for host, found in noted.items() for each in found if each["upgrade_id"] == upgrade_id
    ]
    lines = [line for host, message in dict.fromkeys(rows) for line in wrap(f"{host}: {message}.")]
    return ["", "Candidates were not checked in full:", *lines] if lines else []


def restarts(told: Data) -> str:
    """On which hosts services were restarted.

    :param told: as C(_outcome.restart) returns it.
    """
    rows = [(host, how.replace("_", " ")) for host, how in told["hosts"].items()]
    return "\n".join(table(("HOST", "RESTART"), rows))


def failure(step: Data, task: str, result: Data) -> Data:
    """What went wrong with a step, or with the upgrade itself: the task, its message, and what the journal said."""
    journals = [service.get("journal") for service in result.get("services") or []]
    return {
        "component": step.get("component"),
        "from": step.get("from"),
        "to": step.get("to"),
        "task": task,
        "error": _told_error(str(result.get("msg") or "no message")),
        "journal": [shown(line) for line in next(filter(None, journals), result.get("journal") or [])],
    }


def _told_error(text: str) -> str:
    return shown(text.strip(), most=4000, lines=True)


def undo_failure(noted: Data, record: Data, upgrade_id: str, error: str) -> Data:
    """How a step ended that the run could not undo: as the state of the host says, if the host has closed this upgrade
    by itself meanwhile. Otherwise it has failed.

    :param noted: what C(failure) returned.
    :param record: the result of C(upgrade_state_info), even if it failed.
    :param error: why the run could not undo it.
    """
    document = record.get("document") or {"upgrade": {}, "components": {}}
    upgrade, component = document["upgrade"], document["components"].get(noted["component"]) or {"state": "idle"}
    if upgrade.get("upgrade_id") == upgrade_id and upgrade.get("state") not in ACTIVE:
        ended = (upgrade.get("steps") or {}).get(f"{noted['component']}@{noted['to']}")
        if ended == "pending" and component["state"] not in TOUCHED:
            ended = "aborted"
        if ended in _ENDINGS:
            told = _told_error(component.get("last_error") or error)
            return {**noted, "outcome": ended, "by_host": True, "undo_error": told}
    return {**noted, "outcome": "failed", "by_host": False, "undo_error": _told_error(error)}


def unready(steps: list[Data], task: str, result: Data) -> list[Data]:
    """Why a host, or some of its components, can't begin. A failure without a component is one of the whole host."""
    blockers = [finding for finding in result.get("findings") or [] if finding["severity"] == "blocker"]
    told = {finding["component"]: f"{finding['message']}. {finding['fix']}" for finding in reversed(blockers)}
    if not blockers or None in told:
        return [failure({}, task, result)]
    return [
        {**failure(step, task, {"msg": told[name]}), "outcome": "aborted"}
        for step in steps
        for name in [name for name in _parts(step) if name in told][:1]
    ]


def _parts(step: Data) -> list[str]:
    """The component of a step, and those of the other units that run its file."""
    return [step["component"], *(other["target"]["component"] for other in step.get("shared", ()))]


_BY_HOST = "The rollback watchdog: {undo_error}.\nThis step was undone by the host itself. "
_ENDINGS = {
    "aborted": "This step touched nothing.",
    "rolled_back": "{from} is back in place, and proven healthy.",
    "failed": "It could not be undone: {undo_error}. This host needs a person.",
}


def failures(found: list[Data], host: str) -> str:
    """Why a host's upgrade failed, and how it stands now."""
    lines = []
    for item in found:
        if item.get("stopped"):
            lines.append(f"{host}: {item['error']}.")
            continue
        if not item["component"]:
            lines += [f"{host}: the upgrade failed at '{item['task']}'.", item["error"]]
            continue
        lines.append(
            f"{host}: {item['component']} {item['to']} {item['outcome'].replace('_', ' ')} at '{item['task']}'."
        )
        lines.append(item["error"])
        if item["journal"]:
            lines += ["The journal's last lines:", *[f"    {line}" for line in item["journal"]]]
        undone_by_host = item["outcome"] == "rolled_back" and item.get("by_host")
        lines.append(f"{_BY_HOST if undone_by_host else ''}{_ENDINGS[item['outcome']]}".format(**item))
    return "\n".join(lines)


_REGISTERED = ("survey", "preflight", "linked", "health", "record", "unlocked")
"""What the roles register before a report, without C(__upgrade_)."""


def left_out(found: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, str]:
    """Why hosts failed, by host.

    :param found: the variables of each.
    """
    reasons = {}
    for variables in found:
        results = [variables.get(f"__upgrade_{name}") or {} for name in _REGISTERED]
        texts = [str(each.get("msg")) for each in results if each.get("failed") or each.get("unreachable")]
        host = str(variables["inventory_hostname"])
        reasons[host] = texts[-1].removeprefix(f"{host}: ") if texts else "it failed; see above"
    return reasons
