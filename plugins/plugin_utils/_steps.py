# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. Steps: each holds all that is needed to carry it out. And what is known of taking them."""

from __future__ import annotations

import itertools
import posixpath
import typing as t

from ..module_utils import _version
from ..module_utils._state import Step, name_of
from . import _catalog, _instances, _versions

if t.TYPE_CHECKING:
    from ._subject import Subject

    Data = dict[str, t.Any]


def steps(
    subject: Subject, hops: list[str], stack: t.Mapping[str, Data] | None = None
) -> tuple[list[Data], list[Data]]:
    """One step for each version on the way, and what speaks for or against them.

    There are no steps at all where one of them has no release.

    :param stack: what component_version told of the hosts of its stack.
    """
    found: list[Data] = []
    findings: list[Data] = []
    here = subject.origin
    for version in hops:
        release = _release(subject, version)
        if release is None:
            return [], [*findings, _no_release(subject, version)]
        findings.extend([*_warnings(subject, here, version), *_cut_off(subject, here, version, stack or {})])
        findings.extend(finding for other in subject.shared for finding in _of_unit(other, here, version))
        found.append(step(subject, here, version, target=hops[-1], stage=release))
        here = version
    return found, findings


def made_again(subject: Subject, here: str, version: str, *, target: str) -> tuple[Data, Data]:
    """The step that a plan has for a version, from the catalog, the operator's variables and what was read of the host;
    and its release, which a step whose files are in place doesn't have.

    :param target: where the component goes in the end.
    :returns: two empty dictionaries where the version isn't released for the host.
    """
    release = _release(subject, version)
    return (step(subject, here, version, target=target, stage=release), release) if release else ({}, {})


def step(subject: Subject, here: str, version: str, *, target: str, stage: Data) -> Data:
    """One step, with all that carrying it out takes."""
    facts, entry = subject.facts, subject.entry
    in_place = facts["version"] == version and subject.unfinished in (None, "new")
    source = subject.record.get("restored_from") if subject.record.get("to_version") == version else None
    return {
        "key": Step(subject.name, version).key,
        "release": Step(subject.name, version).release,
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
        "rollback_floor": _floor(subject, here, version),
        "stopped_backup": _stopped_backup(subject, here, version),
        "target": probe_target(subject.name, facts, entry, version=version),
        "from_target": {**probe_target(subject.name, facts, entry, version=here), "proofs": []},
        "shared": _shared(subject, here, version),
        "rehearse": entry["rehearse"],
        "reload": entry["reload"],
        "probe_timeout": entry["probe_timeout"],
        "probe_window": entry["probe_window"],
    }


def _reason(subject: Subject, version: str, target: str) -> str:
    if subject.unfinished and subject.record.get("to_version") == version:
        return "an earlier run was cut off here"
    if subject.unclosed and subject.record["to_version"] == version:
        return "an earlier run was cut off after it"
    if subject.restart_pending and subject.facts["version"] == version:
        return "on disk already, but a restart was lost"
    return "wanted" if version == target else f"a stage on the way to {target}"


def _release(subject: Subject, version: str) -> Data | None:
    """Where a version's archive is, what to take out of it, and what to ask that, and be it what the host lacks."""
    entry = subject.entry
    era = _era(entry, version)
    token = era["architectures"].get(subject.facts["architecture"]) if era else None
    if era is None or token is None:
        return None
    values = {"version": version, "arch": token}
    main = entry["files"][0]["name"]
    trials = [
        {**trial, "program": trial["program"] or main}
        for trial in entry["trials"]
        if _versions.matches(version, trial["when"])
    ]
    wanted = {file["name"] for file in subject.facts["files"]} | {trial["program"] for trial in trials}
    return {
        "url": era["url"].format(**values),
        "checksums": (era["checksums"] or "").format(**values),
        "members": {name: path.format(**values) for name, path in era["members"].items() if name in wanted},
        "version_args": entry["version_args"],
        "architecture": subject.facts["architecture"],
        "trials": trials,
        "help_args": entry["help_args"],
        "removed_flags": [
            {name: removal[name] for name in ("flag", "since", "level", "use", "reference")}
            for removal in entry["removed_flags"]
        ],
        "facts": _paths(subject),
        "shared": [
            *({"component": each.name, "unit": each.facts["unit"], "facts": _paths(each)} for each in subject.shared),
            *({"component": key, "unit": unit, "facts": {}} for key, unit in _other_units(subject)),
        ],
    }


def _paths(subject: Subject) -> Data:
    """The paths that candidate checks speak of."""
    return {name: subject.facts[name] for name in ("config", "web_config", "data")}


def _era(entry: Data, version: str) -> Data | None:
    return next((era for era in entry["releases"] if _versions.matches(version, era["when"])), None)


def _no_release(subject: Subject, version: str) -> Data:
    era = _era(subject.entry, version)
    known = ", ".join(sorted(era["architectures"])) if era else "no architecture"
    message = f"{subject.name} {version} isn't released for {subject.facts['architecture']}, only for {known}"
    return subject.finding("no_release", "blocker", message, "wish for another version")


def _keep(subject: Subject) -> Data:
    """What a restore point keeps beside the programs, of all units that run them."""
    kept: dict[str, dict[str, None]] = {"unit": {}, "config": {}, "state": {}}
    for each in (subject, *subject.shared):
        facts, data = each.facts, each.facts["data"]
        kept["unit"].update(dict.fromkeys(facts["unit_files"]))
        config = [facts["config"], facts["web_config"], *facts.get("config_files", [])]
        unread = [None, *facts.get("missing", [])]
        kept["config"].update(dict.fromkeys(path for path in config if path not in unread))
        kept["state"].update(dict.fromkeys(posixpath.join(data, path) for path in each.entry["state_paths"] if data))
    return {kind: list(paths) for kind, paths in kept.items()}


# -- others that run the same file --------------------------------------------------------------------------------


def _other_units(subject: Subject) -> list[tuple[str, str]]:
    """Services that run the file and that the survey doesn't know as instances: a key and the unit of each."""
    units = dict.fromkeys(other["unit"] for other in subject.outsiders if _instances.is_service(other))
    return [(_instances.key_of_unit(name_of(subject.name), unit), unit) for unit in units]


def _shared(subject: Subject, here: str, version: str) -> list[Data]:
    """Of each other unit that runs the file: how it is restarted, and how the new and the old version are verified.

    A unit that doesn't run now is not started.
    """
    found = []
    for each in filter(lambda each: each.is_running, subject.shared):
        target = probe_target(each.name, each.facts, each.entry, version=version)
        before = {**probe_target(each.name, each.facts, each.entry, version=here), "proofs": []}
        found.append((target, before))
    for key, unit in _other_units(subject):
        bare = {"component": key, "unit": unit, "binary": subject.facts["binary"], "url": ""}
        bare.update(probes=[{"kind": "systemd"}, {"kind": "process"}], proofs=[], auth=None, deadline_grows=None)
        found.append(({**bare, "version": version}, {**bare, "version": here}))
    return [
        {
            "restart": {"unit": target["unit"], "binary": target["binary"], "url": _ready(target)},
            "target": target,
            "from_target": before,
        }
        for target, before in found
    ]


def _ready(target: Data) -> str | None:
    """What a service answers once it is ready; none if that isn't known."""
    paths = [probe["path"] for probe in target["probes"] if probe["kind"] == "http"]
    return f"{target['url']}{paths[0] if paths else ''}" if target["url"] else None


def shared_by(subject: Subject) -> list[Data]:
    """Who else runs the file of a component: what a step restarts and verifies too, and what it can't."""
    binary, accept = subject.facts["binary"], f"accept {subject.name}.shared_file"
    units = [*(each.facts["unit"] for each in subject.shared), *(unit for _key, unit in _other_units(subject))]
    found = []
    if units:
        message = f"{binary} is also run by {', '.join(units)}: one step replaces it for all of them"
        fix = "nothing needs to be done: the step restarts and verifies all units that run now"
        found.append(subject.finding("shared_with", "info", message, fix))
    for other in subject.outsiders:
        if _instances.is_service(other):
            continue
        what, fix = "outside of any service of systemd", f"let a service run it, or stop it (kill {other['pid']})"
        if other["container"]:
            what, fix = "in a container", "let the container use a file of its own, or stop it"
        elif other["unit"]:
            what = f"in {other['unit']}"
        if other["obstacle"]:
            what = f"{what} ({other['obstacle']})"
        message = (
            f"{binary} is also run by process {other['pid']} ({other['program']}) {what}, which the step can't restart "
            "and verify"
        )
        found.append(subject.finding("shared_file", "blocker", message, f"{fix}; or {accept}, and restart it yourself"))
    return found


# -- what is known of a step --------------------------------------------------------------------------------------


def _warnings(subject: Subject, here: str, version: str) -> list[Data]:
    """What is known, as data, of going from one version to another with the flags and variables that the unit sets."""
    return [
        *vulnerable(subject, version),
        *_of_unit(subject, here, version),
        *_crossed(subject, here, version),
        *_noted(subject, here, version),
    ]


def _of_unit(subject: Subject, here: str, version: str) -> list[Data]:
    """What is known of the arguments, the variables and the configuration of one unit."""
    return [
        *_removed(subject, version, "removed_flags", "flag", subject.facts["flags"]),
        *_removed(subject, version, "removed_environment", "variable", subject.facts["environment"]),
        *_removed(subject, version, "removed_settings", "setting", subject.facts["settings"]),
        *_values_removed(subject, here, version),
    ]


def vulnerable(subject: Subject, version: str) -> list[Data]:
    """Known vulnerabilities of a version. They are no blockers: the version in use may have more of them."""
    findings = []
    for advisory in subject.entry["advisories"]:
        if advisory["kind"] == "vulnerable" and _versions.matches(version, advisory["versions"]):
            message = f"{subject.name} {version} is known to be vulnerable: {advisory['reason']}"
            fix = f"wish for {advisory['fixed_in']} or newer" if advisory["fixed_in"] else "wish for another version"
            told = f"{fix} ({advisory['reference']})" if advisory["reference"] else fix
            findings.append(subject.finding("vulnerable_version", "warning", message, told))
    return findings


def _removed(subject: Subject, version: str, field: str, what: str, present: t.Collection[str]) -> list[Data]:
    """Flags or variables of the unit, or settings of the configuration, that the version doesn't take any more."""
    findings = []
    for removal in _removals(subject, version, field):
        name = removal[what]
        if name not in present:
            continue
        shown = f"--{name}" if what == "flag" else name
        where = subject.facts["config"] if what == "setting" else subject.facts["unit"]
        message = f"{where} sets {shown}, which was removed in {removal['since']}"
        findings.append(subject.finding(f"removed.{name}", removal["level"], message, removal["use"]))
    return findings


def _values_removed(subject: Subject, here: str, version: str) -> list[Data]:
    """Values of the unit's flags that lose their meaning on the way. Those that had lost it before are left alone."""
    findings = []
    for removal in _removals(subject, version, "removed_values"):
        name, value, since = removal["flag"], removal["value"], removal["since"]
        if value in subject.facts.get("flag_values", {}).get(name, []) and _versions.compare(here, since) < 0:
            message = f"{subject.facts['unit']} sets --{name}={value}, which was removed in {since}"
            findings.append(subject.finding(f"removed.{name}.{value}", removal["level"], message, removal["use"]))
    return findings


def _removals(subject: Subject, version: str, field: str) -> t.Iterator[Data]:
    """What a version doesn't take any more, where no other flag of the unit makes up for it."""
    for removal in subject.entry[field]:
        ended = removal["until"] and _versions.compare(version, removal["until"]) >= 0
        spared = any(flag in subject.facts["flags"] for flag in removal["unless_flags"])
        if not ended and not spared and _versions.compare(version, removal["since"]) >= 0:
            yield removal


def _cut_off(subject: Subject, here: str, version: str, stack: t.Mapping[str, Data]) -> list[Data]:
    """Settings of other components of the stack by which they can't speak to this one from that version on."""
    crossed = [
        cut
        for cut in subject.entry["cuts_off"]
        if _versions.compare(here, cut["since"]) < 0 <= _versions.compare(version, cut["since"])
    ]
    findings = []
    for cut, (host, survey) in itertools.product(crossed, stack.items()):
        for key in _instances.keys(survey, cut["component"]):
            other = survey["components"].get(key, {})
            if cut["setting"] in other.get("settings", ()):
                message = (
                    f"{other['config']} of {key} on {host} sets {cut['setting']}, which {subject.name} "
                    f"{cut['since']} doesn't answer any more"
                )
                findings.append(subject.finding(f"cuts_off.{cut['component']}", "blocker", message, cut["use"]))
    return findings


def _floor(subject: Subject, here: str, version: str) -> Data | None:
    """The floor that a step crosses: how far one can go back after it, and whether that is as far as before it."""
    for floor in subject.entry["rollback_floors"]:
        if _versions.matches(version, floor["from"]) and not _versions.matches(here, floor["from"]):
            reversible = _versions.matches(here, floor["floor"])
            return {"versions": floor["floor"], "reason": floor["reason"], "reversible": reversible}
    return None


def _stopped_backup(subject: Subject, here: str, version: str) -> list[str]:
    """What must be copied while the service is stopped, before a step that there is no other way back from."""
    floor = _floor(subject, here, version)
    needed = floor is not None and not floor["reversible"] and subject.entry["stopped_state"]
    return t.cast("list[str]", _keep(subject)["state"]) if needed else []


def _crossed(subject: Subject, here: str, version: str) -> list[Data]:
    """That there is no way back, or that it ends earlier; and the copy to make before, where one helps."""
    floor = _floor(subject, here, version)
    if floor is None:
        return []
    message = f"from {version} the way back ends at {floor['versions']}: {floor['reason']}"
    if floor["reversible"]:
        fix = f"nothing, if {here} may be the oldest version to go back to"
        return [subject.finding("rollback_floor", "info", message, fix)]
    paths = _stopped_backup(subject, here, version)
    if not paths:
        return [subject.finding("rollback_floor", "warning", message, "keep a copy of its data first")]
    unit = subject.facts["unit"]
    fix = f"before it: systemctl stop {unit}; copy {', '.join(paths)}; systemctl start {unit}"
    return [subject.finding("stopped_backup", "warning", f"{message}. Only a copy made while it is stopped helps", fix)]


def _noted(subject: Subject, here: str, version: str) -> list[Data]:
    return [
        subject.finding("note", "info", f"{note['since']}: {note['message']}", note["reference"])
        for note in subject.entry["notes"]
        if _versions.compare(here, note["since"]) < 0 <= _versions.compare(version, note["since"])
    ]


def below_floor(subject: Subject, version: str) -> list[Data]:
    """That an older version can't read what the one in use has written."""
    findings = []
    here = subject.facts["version"]
    for floor in subject.entry["rollback_floors"]:
        if _versions.matches(here, floor["from"]) and not _versions.matches(version, floor["floor"]):
            message = f"{version} is below {floor['floor']}, where the way back ends: {floor['reason']}"
            findings.append(subject.finding("below_floor", "warning", message, "keep a copy of its data first"))
    return findings


# -- what proves it -----------------------------------------------------------------------------------------------


_READS = (
    *(
        "http",
        "http_kept",
        "build_info",
        "metric",
        "metric_kept",
        "samples",
        "json_kept",
        "json_each",
        "promql",
        "rule_metrics",
    ),
    "round_trip",
)
"""Kinds of probes that read what a service answers, which one that asks for a login keeps to itself."""


_NOT_ASKED = ("login", "when")
"""Fields that say whether a probe is asked at all, and that a host doesn't get."""


def probe_target(name: str, facts: Data, entry: Data, *, version: str | None) -> Data:
    """What must hold of a component that is healthy, for health_probe.

    :param version: the version that must run, whose metrics and paths count; with None any version, of which only what
        holds of all of them is asked.
    """
    metrics = _of_version(entry["build_info"], version)
    build_info = [{"kind": "build_info", "path": facts["metrics_path"], "metrics": metrics}]
    probes = [*_of_version(entry["probes"], version), *(build_info if metrics else [])]
    growth, data = entry["deadline_grows"], facts["data"]
    return {
        "component": name,
        "unit": facts["unit"],
        "binary": facts["binary"],
        "url": facts["url"],
        "version": version,
        "probes": [{"kind": "systemd"}, {"kind": "process"}, *_asked(probes, facts, entry)],
        "proofs": _asked(_of_version(entry["proofs"], version), facts, entry),
        "auth": entry["auth"],
        "deadline_grows": {**growth, "path": posixpath.join(data, growth["path"])} if growth and data else None,
    }


def link_targets(surveys: t.Mapping[str, Data], host: str, catalog: Data, *, touched: t.Container[str]) -> list[Data]:
    """What must hold between the components of a host and others of its stack, for health_probe: a target for each.

    :param surveys: what component_version told of the hosts of the stack.
    :param touched: the components that matter: a link counts if one of its ends is among them.
    """
    there = {
        name_of(key) for each in surveys.values() for key, facts in each["components"].items() if facts["installed"]
    }
    targets: list[Data] = []
    for name, facts in surveys[host]["components"].items():
        if not (facts["installed"] and facts["unit"]):
            continue
        entry = _catalog.entry_of(catalog, name)
        target = {**probe_target(name, facts, entry, version=None), "probes": [{"kind": "systemd"}]}
        for link in entry["links"]:
            if link["to"] in there and (name in touched or name_of(name) in touched or link["to"] in touched):
                told = {**target, "component": f"{name} -> {link['to']}"}
                targets.extend({**told, "proofs": [proof]} for proof in _asked(link["proofs"], facts, entry))
    return targets


def held(targets: list[Data], asked: list[Data], services: list[Data]) -> list[Data]:
    """The targets that were healthy when they were asked before. What wasn't then can't have been broken since.

    :param asked: the targets of before.
    :param services: what health_probe found of them.
    """
    healthy = [target for target, service in zip(asked, services) if service["healthy"]]
    return [target for target in targets if target in healthy]


def _of_version(items: list[Data], version: str | None) -> list[Data]:
    """Those of some probes or metrics that a version has."""
    known = version if version != _version.UNKNOWN else None
    return [
        {name: value for name, value in item.items() if name != "when"}
        for item in items
        if "when" not in item or (known and _versions.matches(known, item["when"]))
    ]


def _asked(probes: list[Data], facts: Data, entry: Data) -> list[Data]:
    """Probes as they are asked on a host: of the paths that it has, and of a service that wants a login which nobody
    gave only whether it answers."""
    locked = facts["protected"] and not entry["auth"]
    found = []
    for probe in probes:
        asked = {field: value for field, value in probe.items() if value is not None and field not in _NOT_ASKED}
        if probe.get("login") and not entry["auth"]:
            continue
        if asked.get("path") == entry["metrics_path"]:
            asked["path"] = facts["metrics_path"]
        if not locked:
            found.append(asked)
        elif asked["kind"] == "http":
            found.append({"kind": "http", "path": asked["path"], "status": [*asked["status"], 401]})
        elif asked["kind"] not in _READS:
            found.append(asked)
    return found


def swap_files(step: Data, staged: Data, survey: Data | None = None) -> list[Data]:
    """The files to put in place: those that were staged, or what is in place already.

    :param survey: what component_version told of the host. Each file gets the identity that it had then.
    """
    proven = {file["name"]: file for file in staged.get("files") or []} if step["stage"] else {}
    facts = (survey or {}).get("components", {}).get(step.get("component"), {})
    surveyed = {file["path"]: file["identity"] for file in facts.get("files", []) if file.get("identity")}
    return [
        {
            "src": file["dest"],
            "dest": file["dest"],
            **({"src": proven[name]["path"], "sha256": proven[name]["sha256"]} if name in proven else {}),
            **({"identity": surveyed[file["dest"]]} if file["dest"] in surveyed else {}),
        }
        for name, file in ((file["name"], file) for file in step["files"])
    ]


def swap_guard(step: Data, confirm_within: float) -> Data:
    """What a host must know to undo a step by itself, for safe_binary_swap: how all units verify the old version.

    :param confirm_within: seconds that the host waits for the run; 0 goes without a watchdog.
    """
    return {
        "confirm_within": confirm_within,
        "target": step["from_target"],
        "shared": [other["from_target"] for other in step["shared"]],
        "probe_timeout": step["probe_timeout"],
        "probe_window": step["probe_window"],
    }
