# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. From what is wanted and what is there to the steps that lead from one to the other.

A step holds all that is needed to carry it out: nothing after the plan looks into the catalog again.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import typing as t

from ..module_utils import _version
from ..module_utils._errors import InputError
from ..module_utils._state import ACTIVE, Step
from . import _versions

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]

PHASES = ("exporters", "alerting", "metrics", "logging", "visualization")
"""Phases in their usual order: what is watched before what watches it, and what stores before what shows."""

MAX_PHASES = 5
"""A phase is a play, and a playbook's plays are counted: playbooks/_phases.yml has as many."""


class Intent(t.NamedTuple):
    """What the operator wants of a host."""

    versions: dict[str, str]
    phases: list[str]
    only: list[str]


class Subject(t.NamedTuple):
    """One component of one host, as the plan sees it.

    ``unfinished`` tells where an attempt left the files that was cut off; ``unclosed``, that the component was proven,
    but its upgrade was cut off before it ended.
    """

    host: str
    name: str
    entry: Data
    facts: Data
    record: Data
    unfinished: str | None
    unclosed: bool

    @property
    def is_open(self) -> bool:
        """Whether something of an earlier run, or of a person's work, is left to be done, whatever is on disk."""
        return bool(self.unfinished or self.unclosed or self.facts.get("restart_pending"))

    def finding(self, key: str, severity: str, message: str, fix: str) -> Data:
        """Something the operator must know, with what to do about it. A C(blocker) stands in the way of the run."""
        return {
            "key": f"{self.name}.{key}",
            "severity": severity,
            "component": self.name,
            "host": self.host,
            "message": message,
            "fix": fix,
        }


# -- one host -----------------------------------------------------------------------------------------------------


def plan_host(host: str, survey: Data, catalog: Data, intent: Intent) -> Data:
    """The steps of one host, in order, by key; and the findings.

    What isn't named is left alone, except an attempt that was cut off after it touched files: it is finished.

    :raises InputError: if the intent names what doesn't exist.
    """
    _check(intent, catalog)
    steps: dict[str, Data] = {}
    findings: list[Data] = []
    rows: list[Data] = []
    for name in sorted(catalog, key=lambda name: _rank(catalog[name], intent)):
        subject = _subject(host, name, survey, catalog)
        if not _is_meant(subject, intent):
            continue
        found = _obstacles(subject)
        hops: list[str] = []
        if not found:
            target = _target(subject, intent.versions.get(name))
            found, hops = _way(subject, target)
        if hops and not _blocked(found):
            for step in _steps(subject, hops, found):
                steps[step["key"]] = step
        findings.extend(found)
        rows.append(_row(subject, hops, found))
    return {"host": host, "steps": steps, "findings": findings, "rows": rows}


def _check(intent: Intent, catalog: Data) -> None:
    for variable, names in (("upgrade_versions", intent.versions), ("upgrade_only", intent.only)):
        unknown = sorted(set(names) - set(catalog))
        if unknown:
            raise InputError(
                f"{variable} names {', '.join(unknown)}, which no catalog entry describes. Known are "
                f"{', '.join(sorted(catalog))}. A component of your own goes into upgrade_components",
                key="input.unknown_component",
            )
    for name, wanted in intent.versions.items():
        if not isinstance(wanted, str) or not (_versions.is_version(wanted) or _versions.is_range(wanted)):
            raise InputError(
                f"upgrade_versions.{name}: {wanted!r} is neither a version ('1.9.1') nor a range ('>=2.53,<3'); "
                "put it in quotes",
                key="input.not_a_version",
            )


def _rank(entry: Data, intent: Intent) -> tuple[int, int, str]:
    phases = intent.phases
    return (phases.index(entry["phase"]) if entry["phase"] in phases else len(phases), entry["order"], entry["name"])


def _subject(host: str, name: str, survey: Data, catalog: Data) -> Subject:
    state = survey.get("state") or {}
    upgrade, record = state.get("upgrade", {}), state.get("components", {}).get(name, {})
    steps = upgrade.get("steps", {})
    ended = steps.get(Step(name, record.get("to_version", "")).key) == "succeeded" and "pending" not in steps.values()
    return Subject(
        host=host,
        name=name,
        entry=catalog[name],
        facts=survey["components"].get(name, {"installed": False}),
        record=record,
        unfinished=survey.get("unfinished", {}).get(name),
        unclosed=ended and upgrade.get("state") in ACTIVE,
    )


def _is_meant(subject: Subject, intent: Intent) -> bool:
    if subject.name not in intent.versions and not subject.unfinished:
        return False
    return subject.entry["phase"] in intent.phases and (not intent.only or subject.name in intent.only)


def _blocked(findings: list[Data]) -> bool:
    return any(finding["severity"] == "blocker" for finding in findings)


def _obstacles(subject: Subject) -> list[Data]:
    """What keeps a component from being upgraded at all, first things first."""
    facts, name = subject.facts, subject.name
    if not facts["installed"]:
        units = ", ".join(subject.entry["units"])
        if facts.get("unit"):
            return [
                subject.finding(
                    "no_program",
                    "blocker",
                    f"{facts['unit']} starts a program that isn't there, or hides it behind a wrapper",
                    f"let its ExecStart name the program, or leave {name} out",
                )
            ]
        return [subject.finding("not_installed", "info", f"{name} isn't installed", f"looked for the units {units}")]
    if facts["package"]:
        package = facts["package"]
        command = {"apt": "apt-get install --only-upgrade", "dnf": "dnf upgrade"}[package["manager"]]
        message = f"{facts['binary']} belongs to the package {package['name']}, which would overwrite it"
        return [subject.finding("package_owned", "skipped", message, f"{command} {package['name']}")]
    if not facts["unit"]:
        return [
            subject.finding(
                "no_unit",
                "blocker",
                f"{facts['binary']} is there, but none of the units {', '.join(subject.entry['units'])} is",
                f"name its unit: upgrade_overrides: {{{name}: {{units: [...]}}}}",
            )
        ]
    if subject.entry["install"] != "files":
        return [
            subject.finding(
                "not_files",
                "blocker",
                f"{name} is installed as a {subject.entry['install']}, which this version can't swap safely",
                "install it from its package and upgrade that",
            )
        ]
    return _unready(subject)


def _unready(subject: Subject) -> list[Data]:
    """What is wrong with a component that could be upgraded otherwise."""
    facts = subject.facts
    if facts["version"] == _version.UNKNOWN:
        return [
            subject.finding(
                "unknown_version",
                "blocker",
                f"{facts['binary']} doesn't tell its version",
                f"see what it prints; set upgrade_overrides: {{{subject.name}: {{version_args: [[...]]}}}}",
            )
        ]
    if facts["state"]["active"] != "active" and not subject.unfinished:
        return [
            subject.finding(
                "not_running",
                "blocker",
                f"{facts['unit']} is {facts['state']['active']}/{facts['state']['sub']}: "
                "after an upgrade nobody could tell what broke it",
                f"start it, or leave {subject.name} out",
            )
        ]
    return []


def _target(subject: Subject, wanted: str | None) -> str:
    """The version to end at. A range that the installed version is in asks for nothing."""
    facts, known = subject.facts, subject.entry["known_releases"]
    if wanted is None:
        return t.cast("str", subject.record["to_version"])
    if _versions.is_version(wanted):
        return _version.normalize(wanted)
    if _versions.matches(facts["version"], wanted):
        return t.cast("str", facts["version"])
    newest = _versions.newest(known, wanted)
    if newest is None:
        raise InputError(
            f"upgrade_versions.{subject.name}: no release in {wanted!r} is known; name an exact version "
            f"(known: {', '.join(known) or 'none'})",
            key="input.no_release_in_range",
        )
    return newest


def _way(subject: Subject, target: str) -> tuple[list[Data], list[str]]:
    """The versions to pass through, the target last; none if it is reached and proven already."""
    name = subject.name
    if subject.unfinished and target == subject.record["to_version"]:
        return [], [target]
    here = _origin(subject)
    order = _versions.compare(target, here)
    if order < 0:
        message = f"{target} is older than {here}, which is in use"
        fix = "to go back, use the playbook rollback: it restores what was proven on this host"
        return [subject.finding("downgrade", "blocker", message, fix)], []
    if order == 0:
        return [], [target] if subject.is_open else []
    last = subject.entry["last_release"]
    if last and _versions.compare(target, last["version"]) > 0:
        message = f"{name} {target} was never released: {last['version']} is the last. {last['reason']}"
        return [subject.finding("end_of_life", "blocker", message, f"wish for {last['version']}")], []
    return _stages(subject, here, target)


def _origin(subject: Subject) -> str:
    """The version that the way begins at: what was last proven, or runs.

    What an attempt left on disk unproven is no place to begin at, and what was put on disk without a restart isn't what
    the service's data and configuration have met.
    """
    if subject.unfinished and subject.record.get("from_version"):
        return t.cast("str", subject.record["from_version"])
    facts = subject.facts
    if facts["restart_pending"] and facts["running"] not in (None, _version.UNKNOWN):
        return t.cast("str", facts["running"])
    return t.cast("str", facts["version"])


def _stages(subject: Subject, here: str, target: str) -> tuple[list[Data], list[str]]:
    """The stages that lie strictly between two versions, and the target."""
    hops = []
    for stage in subject.entry["stages"]:
        if _versions.is_version(stage):
            version: str | None = _version.normalize(stage)
        elif _versions.matches(here, stage) or _versions.matches(target, stage):
            continue
        else:
            version = _versions.newest(subject.entry["known_releases"], stage)
        if version is None and not _reaches_over(stage, here, target):
            continue
        if version is None:
            message = f"{subject.name} must stop at a release in {stage!r} first, and none is known"
            fix = f"name one: upgrade_overrides: {{{subject.name}: {{stages: ['...']}}}}"
            return [subject.finding("unknown_stage", "blocker", message, fix)], []
        if _versions.compare(here, version) < 0 < _versions.compare(target, version):
            hops.append(version)
    return [], [*sorted(hops, key=_versions.parse), target]


def _reaches_over(stage: str, here: str, target: str) -> bool:
    """Whether two versions lie on either side of a range, as far as the versions that it names tell."""
    named = sorted(re.findall(r"\d+(?:\.\d+)+", stage), key=_versions.parse)
    return not named or (_versions.compare(here, named[0]) < 0 <= _versions.compare(target, named[-1]))


# -- steps --------------------------------------------------------------------------------------------------------


def _steps(subject: Subject, hops: list[str], findings: list[Data]) -> list[Data]:
    """One step for each version on the way; what speaks for or against it goes into the findings."""
    steps = []
    here = _origin(subject)
    for version in hops:
        release = _release(subject, version, findings)
        if release is None:
            return []
        findings.extend(_warnings(subject, here, version))
        if _blocked(findings):
            return []
        steps.append(_step(subject, here, version, target=hops[-1], stage=release))
        here = version
    return steps


def _step(subject: Subject, here: str, version: str, *, target: str, stage: Data) -> Data:
    facts, entry = subject.facts, subject.entry
    in_place = facts["version"] == version and subject.unfinished in (None, "new")
    source = subject.record.get("restored_from") if subject.record.get("to_version") == version else None
    return {
        "key": Step(subject.name, version).key,
        "component": subject.name,
        "phase": entry["phase"],
        "order": entry["order"],
        "from": here,
        "to": version,
        "reason": _reason(subject, version, target),
        "unit": facts["unit"],
        "binary": facts["binary"],
        "stage": None if in_place or source else stage,
        "backup_id": source,
        "kinds": ["binary"],
        "files": [{"name": file["name"], "dest": file["path"]} for file in facts["files"]],
        "keep": _keep(subject),
        "target": probe_target(subject.name, facts, entry, version=version),
        "probe_timeout": entry["probe_timeout"],
        "probe_window": entry["probe_window"],
    }


def _reason(subject: Subject, version: str, target: str) -> str:
    if subject.unfinished and subject.record.get("to_version") == version:
        return "an earlier run was cut off here"
    if subject.unclosed and subject.record["to_version"] == version:
        return "an earlier run was cut off after it"
    if subject.facts["restart_pending"] and subject.facts["version"] == version:
        return "on disk already, but a restart was lost"
    return "wanted" if version == target else f"a stage on the way to {target}"


def _release(subject: Subject, version: str, findings: list[Data]) -> Data | None:
    """Where a version's archive is, and what to take out of it."""
    entry, architecture = subject.entry, subject.facts["architecture"]
    era = next((era for era in entry["releases"] if _versions.matches(version, era["when"])), None)
    token = (era["architectures"] if era else {}).get(architecture)
    if era is None or token is None:
        known = ", ".join(sorted(era["architectures"])) if era else "no architecture"
        message = f"{subject.name} {version} isn't released for {architecture}, only for {known}"
        findings.append(subject.finding("no_release", "blocker", message, "wish for another version"))
        return None
    values = {"version": version, "arch": token}
    wanted = {file["name"] for file in subject.facts["files"]}
    return {
        "url": era["url"].format(**values),
        "checksums": era["checksums"].format(**values),
        "members": {name: path.format(**values) for name, path in era["members"].items() if name in wanted},
        "version_args": entry["version_args"],
        "architecture": architecture,
    }


def _keep(subject: Subject) -> Data:
    """What a restore point keeps beside the programs."""
    facts = subject.facts
    data = facts["data"]
    return {
        "unit": facts["unit_files"],
        "config": [path for path in (facts["config"], facts["web_config"]) if path],
        "state": [posixpath.join(data, path) for path in subject.entry["state_paths"]] if data else [],
    }


def _warnings(subject: Subject, here: str, version: str) -> list[Data]:
    """What is known, as data, of going from one version to another with the flags and variables that the unit sets."""
    return [
        *_advisories(subject, version),
        *_removed(subject, version, "removed_flags", "flag", subject.facts["flags"]),
        *_removed(subject, version, "removed_environment", "variable", subject.facts["environment"]),
        *_crossed(subject, here, version),
    ]


def _advisories(subject: Subject, version: str) -> list[Data]:
    findings = []
    for advisory in subject.entry["advisories"]:
        if _versions.matches(version, advisory["versions"]):
            message = f"{subject.name} {version} is known to be {advisory['kind']}: {advisory['reason']}"
            fixed_in = advisory.get("fixed_in")
            fix = f"wish for {fixed_in} or newer" if fixed_in else "wish for another version"
            findings.append(subject.finding(f"{advisory['kind']}_version", "warning", message, fix))
    return findings


def _removed(subject: Subject, version: str, field: str, what: str, present: t.Collection[str]) -> list[Data]:
    """Flags or variables of the unit that the version doesn't know any more."""
    findings = []
    for removal in subject.entry[field]:
        name = removal[what]
        ended = removal.get("until") and _versions.compare(version, removal["until"]) >= 0
        if name not in present or _versions.compare(version, removal["since"]) < 0 or ended:
            continue
        if any(flag in subject.facts["flags"] for flag in removal.get("unless_flags", [])):
            continue
        shown = f"--{name}" if what == "flag" else name
        message = f"{subject.facts['unit']} sets {shown}, which was removed in {removal['since']}"
        findings.append(subject.finding(f"removed.{name}", removal["level"], message, removal["use"]))
    return findings


def _crossed(subject: Subject, here: str, version: str) -> list[Data]:
    """What changes for good, or in behaviour, between two versions."""
    findings = []
    for floor in subject.entry["rollback_floors"]:
        if _versions.matches(version, floor["from"]) and not _versions.matches(here, floor["from"]):
            message = f"from {version} the way back ends at {floor['floor']}: {floor['reason']}"
            severity = "info" if _versions.matches(here, floor["floor"]) else "warning"
            fix = f"nothing, if {here} may be the oldest version to go back to"
            findings.append(subject.finding("rollback_floor", severity, message, fix))
    findings += [
        subject.finding("note", "info", f"{note['since']}: {note['message']}", note["reference"])
        for note in subject.entry["notes"]
        if _versions.compare(here, note["since"]) < 0 <= _versions.compare(version, note["since"])
    ]
    return findings


def probe_target(name: str, facts: Data, entry: Data, *, version: str | None) -> Data:
    """What must hold of a component that is healthy, for health_probe."""
    probes: list[Data] = [{"kind": "systemd"}, {"kind": "process"}]
    for probe in entry["probes"]:
        path = facts["metrics_path"] if probe["path"] == entry["metrics_path"] else probe["path"]
        status = [*probe["status"], 401] if facts["protected"] else probe["status"]
        probes.append({"kind": "http", "path": path, "status": status})
    if entry["build_info"] and not facts["protected"]:
        probes.append({"kind": "build_info", "path": facts["metrics_path"], "metrics": entry["build_info"]})
    return {
        "component": name,
        "unit": facts["unit"],
        "binary": facts["binary"],
        "url": facts["url"],
        "version": version,
        "probes": probes,
    }


def _row(subject: Subject, hops: list[str], findings: list[Data]) -> Data:
    """One line of the plan's table."""
    facts = subject.facts
    obstacle = next((f for f in findings if f["severity"] in ("blocker", "skipped") or not facts["installed"]), None)
    return {
        "host": subject.host,
        "component": subject.name,
        "installed": facts.get("version"),
        "proven": not subject.unfinished,
        "running": facts.get("running"),
        "hops": [] if obstacle else hops,
        "note": obstacle["key"].partition(".")[2] if obstacle else "",
    }


# -- the way back -------------------------------------------------------------------------------------------------


def plan_rollback(host: str, survey: Data, catalog: Data, intent: Intent, *, to: str, kinds: list[str]) -> Data:
    """The steps that bring a host back to restore points.

    :param to: C(previous), or the id of a restore point, or that of an upgrade: then to where it began.
    """
    steps: dict[str, Data] = {}
    findings: list[Data] = []
    rows: list[Data] = []
    for name in sorted(catalog, key=lambda name: _rank(catalog[name], intent), reverse=True):
        subject = _subject(host, name, survey, catalog)
        if subject.entry["phase"] not in intent.phases or (intent.only and name not in intent.only):
            continue
        point = _restore_point(subject, to)
        if point is None:
            continue
        found = _obstacles(subject)
        reached = point["version"] == subject.facts.get("version") and not subject.is_open
        hops = [] if reached else [point["version"]]
        if hops and not _blocked(found):
            step = _step(subject, _origin(subject), point["version"], target=point["version"], stage={})
            step.update(stage=None, backup_id=point["id"], kinds=kinds, reason=f"restore point {point['id']}")
            steps[step["key"]] = step
            found.extend(_floors(subject, point["version"]))
        findings.extend(found)
        rows.append(_row(subject, hops, found))
    return {"host": host, "steps": steps, "findings": findings, "rows": rows}


def restore_points(survey: Data) -> list[Data]:
    """All restore points of a host, newest first."""
    records = (survey.get("state") or {}).get("components", {})
    points = [
        {"component": name, **point}
        for name, record in records.items()
        for point in record.get("inventory", {}).get("restore_points", [])
    ]
    return sorted(points, key=lambda point: (point["created_at"], point["id"]), reverse=True)


def _restore_point(subject: Subject, to: str) -> Data | None:
    points = subject.record.get("inventory", {}).get("restore_points", [])
    # Those that somebody marked hold what he named, which need not be the program.
    points = [point for point in points if point["id"] == to or not point.get("marked")]
    if to == "previous":
        others = [point for point in points if point["version"] != subject.facts.get("version")]
        return others[-1] if others else None
    named = [point for point in points if point["id"] == to or point["id"].startswith(f"{to}.")]
    return named[0] if named else None


def _floors(subject: Subject, version: str) -> list[Data]:
    findings = []
    for floor in subject.entry["rollback_floors"]:
        here = subject.facts["version"]
        if _versions.matches(here, floor["from"]) and not _versions.matches(version, floor["floor"]):
            message = f"{version} is below {floor['floor']}, where the way back ends: {floor['reason']}"
            findings.append(subject.finding("below_floor", "warning", message, "keep a copy of its data first"))
    return findings


# -- the fleet ----------------------------------------------------------------------------------------------------


def plan_fleet(plans: list[Data], *, phases: list[str], kind: str = "upgrade", to: str = "") -> Data:
    """One plan for all hosts: for each phase its hosts, and the sequence of steps that all of them go through.

    Every host goes through the whole sequence and does its own steps of it, so that equal steps of many hosts run side
    by side, and no host does its steps in another order.

    :param kind: C(upgrade), or C(rollback): there what was upgraded last goes first.
    :param to: where a rollback is to go.
    :raises InputError: if there are more phases than a run has, or a rollback's restore point is on no host.
    """
    reverse = kind == "rollback"
    if reverse and not any(plan["rows"] for plan in plans):
        raise InputError(
            f"upgrade_rollback_to: no host has a restore point {to!r}. The playbook rollback, without it, lists those "
            "that there are",
            key="input.no_restore_point",
        )
    by_phase: dict[str, list[Data]] = {}
    for step in (step for plan in plans for step in plan["steps"].values()):
        by_phase.setdefault(step["phase"], []).append(step)
    ordered = [phase for phase in (reversed(phases) if reverse else phases) if phase in by_phase]
    if len(ordered) > MAX_PHASES:
        raise InputError(f"{len(ordered)} phases have steps, but a run has {MAX_PHASES} at most: narrow upgrade_phases")
    hosts = {plan["host"]: plan["steps"] for plan in plans if plan["steps"]}
    text = json.dumps(hosts, sort_keys=True)
    return {
        "kind": kind,
        "phases": [
            {
                "name": phase,
                "sequence": _sequence(by_phase[phase], reverse=reverse),
                "hosts": [host for host, steps in hosts.items() if any(s["phase"] == phase for s in steps.values())],
            }
            for phase in ordered
        ],
        "hosts": hosts,
        "findings": [finding for plan in plans for finding in plan["findings"]],
        "rows": [row for plan in plans for row in plan["rows"]],
        "digest": hashlib.sha256(text.encode()).hexdigest(),
    }


def host_phases(plan: Data, host: str) -> dict[str, list[str]]:
    """The keys of a host's own steps, by phase, in the order in which they are done."""
    steps = plan["hosts"].get(host, {})
    phases = {phase["name"]: [key for key in phase["sequence"] if key in steps] for phase in plan["phases"]}
    return {name: keys for name, keys in phases.items() if keys}


def _sequence(steps: list[Data], *, reverse: bool) -> list[str]:
    def rank(step: Data) -> tuple[int, str]:
        return step["order"], step["component"]

    versions = sorted({step["key"]: step for step in steps}.values(), key=lambda step: _versions.parse(step["to"]))
    return [step["key"] for step in sorted(versions, key=rank, reverse=reverse)]


def swap_files(step: Data, staged: Data) -> list[Data]:
    """The files to put in place: those that were staged, or what is in place already."""
    proven = {file["name"]: file for file in staged.get("files") or []} if step["stage"] else {}
    return [
        {"src": proven[file["name"]]["path"], "dest": file["dest"], "sha256": proven[file["name"]]["sha256"]}
        if file["name"] in proven
        else {"src": file["dest"], "dest": file["dest"]}
        for file in step["files"]
    ]


def blockers(plan: Data) -> list[str]:
    """What stands in the way of the run, a line each."""
    return [
        f"{finding['host']}: {finding['message']}. {finding['fix']}"
        for finding in plan["findings"]
        if finding["severity"] == "blocker"
    ]
