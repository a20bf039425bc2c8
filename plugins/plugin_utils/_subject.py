# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. One component of one host, as a plan sees it, and what keeps it from being upgraded at all."""

from __future__ import annotations

import typing as t

from ..module_utils import _version
from ..module_utils._state import ACTIVE, Step, name_of
from . import _catalog, _instances, _versions

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]


class Subject(t.NamedTuple):
    """One component of one host.

    ``unfinished`` tells where an attempt left the files that was cut off; ``unclosed``, that the component was proven,
    but its upgrade was cut off before it ended. ``name`` is the key of the instance. ``shared`` are the other instances
    that run the same file, and ``outsiders`` the processes that do and are no instances.
    """

    host: str
    name: str
    entry: Data
    facts: Data
    record: Data
    unfinished: str | None
    unclosed: bool
    shared: tuple[Subject, ...] = ()
    outsiders: tuple[Data, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether something of an earlier run, or of a person's work, is left to be done, whatever is on disk."""
        return bool(self.unfinished or self.unclosed or self.restart_pending)

    @property
    def restart_pending(self) -> bool:
        """Whether a unit that runs its file does not run what is on disk."""
        return any(each.facts.get("restart_pending") for each in (self, *self.shared))

    @property
    def is_running(self) -> bool:
        return bool(self.facts.get("state", {}).get("active") == "active")

    @property
    def origin(self) -> str:
        """The version that the way begins at: what was last proven, or runs.

        What an attempt left on disk unproven is no place to begin at, and what was put on disk without a restart isn't
        what the service's data and configuration have met.
        """
        if self.unfinished and _versions.is_version(self.record.get("from_version")):
            return t.cast("str", self.record["from_version"])
        if self.facts["restart_pending"] and self.facts["running"] not in (None, _version.UNKNOWN):
            return t.cast("str", self.facts["running"])
        return t.cast("str", self.facts["version"])

    def finding(self, key: str, severity: str, message: str, fix: str) -> Data:
        """Something the operator must know, with what to do about it. A C(blocker) stands in the way of the run."""
        return finding(self.host, key, severity, message, fix, component=self.name)


def finding(host: str, key: str, severity: str, message: str, fix: str, *, component: str | None = None) -> Data:
    return {
        "key": f"{component or 'host'}.{key}",
        "severity": severity,
        "component": component,
        "host": host,
        "message": message,
        "fix": fix,
    }


def group(host: str, key: str, survey: Data, catalog: t.Mapping[str, Data]) -> Subject:
    """The leader of all instances that run the same file, with the others, and with what else runs it.

    :param key: that of the leader; see C(_instances.leader).
    """
    others = [other for other in _instances.members(survey, key) if other != key]
    return of_host(host, key, survey, _catalog.entry_of(catalog, key))._replace(
        shared=tuple(of_host(host, other, survey, _catalog.entry_of(catalog, other)) for other in others),
        outsiders=tuple(_instances.outsiders(survey, key)),
    )


def of_host(host: str, name: str, survey: Data, entry: Data) -> Subject:
    """What was read of one instance of a component, and what is on record of it."""
    state = survey.get("state") or {}
    upgrade, record = state.get("upgrade", {}), state.get("components", {}).get(name, {})
    steps = upgrade.get("steps", {})
    ended = steps.get(Step(name, record.get("to_version", "")).key) == "succeeded" and "pending" not in steps.values()
    return Subject(
        host=host,
        name=name,
        entry=entry,
        facts=survey["components"].get(name, {"installed": False}),
        record=record,
        unfinished=survey.get("unfinished", {}).get(name),
        unclosed=ended and upgrade.get("state") in ACTIVE,
    )


def impossible(subject: Subject) -> Data | None:
    """What keeps a component from being upgraded whatever anybody accepts; none if nothing does."""
    facts, name = subject.facts, subject.name
    foreign = _foreign(subject) if facts["installed"] else _not_there(subject)
    if foreign:
        return foreign
    if not facts["unit"]:
        return subject.finding(
            "no_unit",
            "blocker",
            f"{facts['binary']} is there, but no unit runs it: neither {', nor '.join(subject.entry['units'][:3])}",
            f"name its unit: upgrade_overrides: {{{name_of(name)}: {{units: [...]}}}}",
        )
    if subject.entry["install"] != "files":
        return subject.finding(
            "not_files",
            "blocker",
            f"{name} is installed as a {subject.entry['install']}, which this version can't swap safely",
            "install it from its package and upgrade that",
        )
    if facts["version"] == _version.UNKNOWN:
        return subject.finding(
            "unknown_version",
            "blocker",
            f"the version of {facts['binary']} is unknown: {facts.get('version_unknown') or 'nothing tells it'}",
            "start its service, which reports it; or set upgrade_overrides: "
            f"{{{name_of(name)}: {{version_args: [[...]]}}}}",
        )
    return None


def _obstacle(subject: Subject) -> Data | None:
    """What the host says of a component that it has and that can't be upgraded."""
    told = subject.facts.get("not_upgradable")
    return subject.finding(told["key"], "blocker", told["reason"], told["fix"]) if told else None


def incomplete(subject: Subject) -> list[Data]:
    """What could not be read of how a component is set up. A restore point without a declared file is no way back."""
    facts, unit = subject.facts, subject.facts["unit"]
    found = []
    if facts.get("missing"):
        message = (
            f"{unit} names {', '.join(facts['missing'])}, which is not on the host or can't be read safely: "
            "a restore point would lack it, and the next start may fail"
        )
        fix = "put the file in place, or correct the unit"
        found.append(subject.finding("missing_file", "blocker", message, fix))
    if facts.get("unseen"):
        fix = "give the host CAP_SYS_PTRACE, or see in the plan whether flags, address and paths are right"
        found.append(subject.finding("unseen", "warning", f"{unit}: {facts['unseen']}", fix))
    return found


def notes(subject: Subject) -> list[Data]:
    """What the operator must know of the unit and of what could be read of it."""
    facts, found = subject.facts, []
    if facts.get("not_read") and not facts.get("unseen"):  # which says the same, and more
        fix = "compare what the plan says of it, or give the host CAP_SYS_PTRACE"
        found.append(subject.finding("not_read", "warning", facts["not_read"], fix))
    if facts.get("state", {}).get("active") == "failed":
        fix = f"see journalctl --unit={facts['unit']}, and start it"
        found.append(subject.finding("unit_failed", "warning", f"{facts['unit']} has failed, and does not run", fix))
    if facts.get("state", {}).get("enabled") == "disabled":
        message = f"{facts['unit']} is disabled: it runs, but does not start when the host does"
        found.append(subject.finding("disabled", "info", message, f"systemctl enable {facts['unit']}"))
    return found


def unknown_attempt(subject: Subject) -> Data | None:
    """What keeps an interrupted upgrade from being finished: its version could not be put in order with others."""
    if not subject.unfinished or _versions.is_version(subject.record["to_version"]):
        return None
    return subject.finding(
        "unknown_attempt",
        "blocker",
        f"an interrupted upgrade of {subject.name} went to {subject.record['to_version']!r}, which is no version",
        "bring the old version back with the playbook rollback, or install a known version by hand",
    )


def _foreign(subject: Subject) -> Data | None:
    """That no release of the component can take the program's place: it is a package's or another project's, there are
    no releases, or the host says so."""
    facts, name = subject.facts, subject.name
    if facts["package"]:
        package = facts["package"]
        command = {"apt": "apt-get install --only-upgrade", "dnf": "dnf upgrade"}[package["manager"]]
        message = f"{facts['binary']} belongs to the package {package['name']}, which would overwrite it"
        return subject.finding("package_owned", "skipped", message, f"{command} {package['name']}")
    by_hand = f"upgrade it by hand, or leave {name} out"
    if facts.get("lookalike"):
        message = f"{facts['binary']} is a program of another project with the same name: {facts['lookalike']}"
        return subject.finding("lookalike", "skipped", message, by_hand)
    if not subject.entry["releases"]:
        message = f"{name} can't be upgraded: {subject.entry['unreleased']}"
        return subject.finding("unreleased", "skipped", message, by_hand)
    return _obstacle(subject)


def _not_there(subject: Subject) -> Data:
    unit, obstacle = subject.facts.get("unit"), _obstacle(subject)
    if obstacle:
        return obstacle
    if unit:
        return subject.finding(
            "no_program",
            "blocker",
            f"{unit} starts a program that isn't there, or hides it behind a wrapper",
            f"let its ExecStart name the program, or leave {subject.name} out",
        )
    units = ", ".join(subject.entry["units"])
    return subject.finding("not_installed", "info", f"{subject.name} isn't installed", f"looked for the units {units}")


def not_running(subject: Subject) -> list[Data]:
    """That a service is down already, which nobody could tell from one that the upgrade broke."""
    facts = subject.facts
    if facts["state"]["active"] == "active" or subject.unfinished:
        return []
    return [
        subject.finding(
            "not_running",
            "blocker",
            f"{facts['unit']} is {facts['state']['active']}/{facts['state']['sub']}: "
            "after an upgrade nobody could tell what broke it",
            f"start it, or leave {subject.name} out",
        )
    ]
