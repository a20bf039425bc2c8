# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What makes one finding of the preflight, and the checks of units and of the files that are replaced."""

from __future__ import annotations

import re
import typing as t

if t.TYPE_CHECKING:
    from ._unit_changes import Difference

    Data = dict[str, t.Any]

BLOCKER, WARNING, INFO = "blocker", "warning", "info"

_MOST_SHOWN = 6


def finding(
    key: str, severity: str, message: str, fix: str, *, component: str | None = None, **evidence: t.Any
) -> Data:
    """Something the operator must know, what it is seen by, and what to do about it."""
    return {
        "key": f"{component or 'host'}.{key}",
        "severity": severity,
        "component": component,
        "message": message,
        "evidence": evidence,
        "fix": fix,
    }


# -- units ----------------------------------------------------------------------------------------------------------


class UnitChange(t.NamedTuple):
    """How the files of a unit differ from what systemd has loaded.

    :ivar kind: C(changed); C(masked), where the unit is a mask on disk or for systemd; C(gone), where it has no file.
    :ivar files: which files were added, removed or take the place of others, as texts. Empty if the same have changed.
    :ivar generated: a generator wrote the unit. C(NeedDaemonReload) then tells of what it was made from.
    """

    kind: str
    files: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    generated: bool = False


class NewerFile(t.NamedTuple):
    """A file that was changed after it was last read: C(unit), C(environment) or C(config)."""

    what: str
    path: str


_CHANGES = {
    "masked": (
        "{unit} is masked, and its process still runs: after a restart it could not be started again",
        "systemctl unmask {unit}, or stop the service and leave {component} out",
    ),
    "gone": (
        "{unit} runs, but its unit file was removed: after a restart it could not be started again",
        "put the unit file back and run systemctl daemon-reload, or stop the service and leave {component} out",
    ),
    "changed": (
        "{unit} was changed on disk, and systemd has not loaded the change. The upgrade would activate it",
        "check the change (systemctl cat {unit}) and run systemctl daemon-reload, or take the change back; to let the "
        "upgrade activate it, accept {component}.unit_changed",
    ),
}


def unit_changed(component: str, unit: str, change: UnitChange | None) -> list[Data]:
    """That a restart would start something else than what runs."""
    if change is None:
        return []
    message, fix = (text.format(unit=unit, component=component) for text in _CHANGES[change.kind])
    told = [*change.files, *map(str, change.differences)]
    severity = BLOCKER
    if change.kind == "changed" and not change.differences:
        told.append("no difference is seen in the settings that can be compared")
        severity = WARNING if change.generated and not change.files else BLOCKER
    more = [f"and {len(told) - _MOST_SHOWN} more"] if len(told) > _MOST_SHOWN else []
    message = f"{message}: {'; '.join([*told[:_MOST_SHOWN], *more])}" if told else message
    evidence = {"files": list(change.files), "differences": [one._asdict() for one in change.differences]}
    return [finding("unit_changed", severity, message, fix, component=component, kind=change.kind, **evidence)]


_NEWER = {
    "unit": (
        "unit_newer",
        "{unit} was changed after its process started ({paths}): the upgrade starts it with the changed unit, with "
        "which it has not run yet",
        "see that the change is meant; a restart before the upgrade shows whether the service takes it",
    ),
    "environment": (
        "environment_newer",
        "{paths} was changed after the process of {unit} started: the upgrade starts it with these variables, with "
        "which it has not run yet",
        "see that the change is meant; a restart before the upgrade shows whether the service takes it",
    ),
    "config": (
        "config_newer",
        "{paths} was changed after {component} last loaded it: the upgrade lets it load the change",
        "see that the change is meant; let {component} load it before the upgrade (reload or restart)",
    ),
}


def newer(
    component: str, unit: str, files: t.Sequence[NewerFile], differences: t.Sequence[Difference] = ()
) -> list[Data]:
    """Files that a restart reads, and that the process has not read.

    :param differences: in what the process was started otherwise than the newer unit starts it. Nobody knows whether
        the service takes that, and undo could not bring back what ran: systemd has forgotten it.
    """
    found = []
    for what, (key, message, fix) in _NEWER.items():
        paths = [file.path for file in files if file.what == what]
        if paths:
            words = {"unit": unit, "component": component, "paths": ", ".join(paths)}
            text, severity = message.format(**words), WARNING
            if what == "unit" and differences:
                text, severity = f"{text}. {'; '.join(map(_since_start, differences))}", BLOCKER
            found.append(finding(key, severity, text, fix.format(**words), component=component, paths=paths))
    return found


def _since_start(one: Difference) -> str:
    return f"{one.setting}: the process has {one.loaded or '(none)'}, the unit {one.on_disk or '(none)'}"


def cannot_start(component: str, unit: str, reasons: t.Sequence[str]) -> list[Data]:
    """That a service could not be started again, by anybody."""
    if not reasons:
        return []
    message = f"{unit} runs, but systemd could not start it again: {'; '.join(reasons)}"
    fix = f"put back what is missing, or change {unit}"
    return [finding("cannot_start", BLOCKER, message, fix, component=component, reasons=list(reasons))]


def restored_unit(component: str, unit: str, drop_in: str) -> list[Data]:
    """That a service runs by a drop-in which undo made, until the next boot."""
    if not drop_in:
        return []
    message = f"{unit} runs as it was before an upgrade that was undone, by {drop_in}. After a boot its own files count"
    fix = f"repair the files of {unit}, remove {drop_in}, run systemctl daemon-reload, and restart it"
    return [finding("unit_restored", WARNING, message, fix, component=component, drop_in=drop_in)]


# -- files ----------------------------------------------------------------------------------------------------------


class Target(t.NamedTuple):
    """A file that a step replaces.

    :ivar path: as the step names it; ``real`` is where that is, without the links to directories.
    :ivar link: what the file itself points to if it is a symbolic link.
    :ivar attributes: C(immutable) or C(append-only), of the file, and of its directory.
    :ivar mount: what is mounted at the very file, if anything is.
    :ivar noexec: where the file system is mounted noexec; empty if it is not.
    :ivar lost: what the successor can't have of the file: C(file capabilities), C(setuid), C(setgid).
    :ivar names: how many names (hard links) the file has.
    :ivar diverted: the diversion of the distribution's package manager, as a text.
    """

    component: str
    path: str
    real: str
    link: str | None = None
    attributes: tuple[str, ...] = ()
    directory_attributes: tuple[str, ...] = ()
    mount: str = ""
    noexec: str = ""
    lost: tuple[str, ...] = ()
    names: int = 1
    diverted: str = ""
    versions: tuple[str, str] = ("", "")


def _attributes(target: Target) -> list[Data]:
    found = []
    directory = target.real.rpartition("/")[0] or "/"
    for path, attributes in ((target.real, target.attributes), (directory, target.directory_attributes)):
        if attributes:
            letters = "".join({"immutable": "i", "append-only": "a"}[name] for name in attributes)
            message = (
                f"{path} has the attribute {' and '.join(attributes)} (lsattr): it can't be replaced, even by root"
            )
            fix = f"find out who protects it; chattr -{letters} {path}"
            evidence = {"path": path, "attributes": list(attributes)}
            found.append(finding("protected", BLOCKER, message, fix, component=target.component, **evidence))
    return found


def _mounted(target: Target) -> list[Data]:
    if not target.mount:
        return []
    message = f"{target.real} is a mount of its own ({target.mount}): the kernel does not let it be replaced"
    fix = f"upgrade the file where it is mounted from, or umount {target.real}"
    return [finding("mounted", BLOCKER, message, fix, component=target.component, path=target.real, mount=target.mount)]


def _executable(target: Target) -> list[Data]:
    if not target.noexec:
        return []
    message = f"{target.noexec} is mounted noexec: {target.real} could not be started again"
    fix = f"mount -o remount,exec {target.noexec}"
    return [finding("noexec", BLOCKER, message, fix, component=target.component, path=target.real)]


def _lost(target: Target) -> list[Data]:
    if not target.lost:
        return []
    message = f"{target.path} has {', '.join(target.lost)}, which the new file does not get"
    fix = "give the unit what it needs instead (AmbientCapabilities=)"
    return [finding("privileges_lost", WARNING, message, fix, component=target.component, lost=list(target.lost))]


def _linked(target: Target) -> list[Data]:
    if target.link is None:
        return []
    message = (
        f"{target.path} is a symbolic link to {target.link}. The upgrade puts a file in the place of the link, and "
        f"leaves {target.link} as it is; undo and rollback bring the link back"
    )
    fix = "nothing; what looks for the version behind the link (update-alternatives, a role) must know"
    return [finding("link_replaced", INFO, message, fix, component=target.component, link=target.link)]


def _hard_links(target: Target) -> list[Data]:
    if target.names < 2:
        return []
    message = f"{target.path} has {target.names} names (hard links): only this one gets the new version"
    fix = f"see who uses the others: find / -xdev -samefile {target.real}"
    return [finding("hard_links", WARNING, message, fix, component=target.component, names=target.names)]


def _diverted(target: Target) -> list[Data]:
    if not target.diverted:
        return []
    message = f"{target.path} is in the place of a file of a package: {target.diverted}"
    fix = "nothing: the package manager leaves the file alone as long as the diversion is there"
    return [finding("diverted", INFO, message, fix, component=target.component, diversion=target.diverted)]


def _versioned(target: Target) -> list[Data]:
    """That a path says one version and will hold another one."""
    before, after = target.versions
    place = target.path if target.link is not None else target.real
    name = versioned_part(place, before)
    if not name or versioned_part(place, after):
        return []
    way = "" if place == target.path else f" (behind {target.path})"
    message = f"{place}{way} will hold version {after}, though {name} is named after version {before}"
    fix = (
        f"nothing, if nobody relies on the name. Otherwise let {target.component} run from a path without a version, "
        f"or install {after} in a directory of its own and point the link there"
    )
    evidence = {"path": place, "name": name, "version": after}
    return [finding("versioned_path", WARNING, message, fix, component=target.component, **evidence)]


def versioned_part(path: str, version: str) -> str:
    """The path down to the last part that names a version; empty if none does."""
    parts = path.split("/")
    pattern = re.compile(rf"(?<![0-9.]){re.escape(version)}(?![0-9]|\.[0-9])")
    at = next((number for number in range(len(parts), 0, -1) if version and pattern.search(parts[number - 1])), 0)
    return "/".join(parts[:at])


_FILE_CHECKS: tuple[t.Callable[[Target], list[Data]], ...] = (
    _attributes,
    _mounted,
    _executable,
    _lost,
    _linked,
    _versioned,
    _hard_links,
    _diverted,
)


def of_targets(targets: t.Sequence[Target]) -> list[Data]:
    """What is found of the files that are replaced; what is the same of several files, once."""
    found: dict[tuple[str, str], Data] = {}
    for target in targets:
        for one in (each for check in _FILE_CHECKS for each in check(target)):
            found.setdefault((one["key"], one["message"]), one)
    return list(found.values())
