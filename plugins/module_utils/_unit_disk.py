# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. A unit in its three forms: what its process was started with, what systemd has loaded, and its files.

A restart by a run begins with a daemon-reload, so the files decide what is started. C(NeedDaemonReload) alone does not
say whether they changed: it misses a unit file of higher precedence, a mask, and the first drop-in of a unit.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import typing as t

from . import _files, _process, _systemd, _unit_changes, _unit_text
from ._obstacles import NewerFile, UnitChange

if t.TYPE_CHECKING:
    from ._command import Run
    from ._systemd import Unit
    from ._unit_changes import Difference

PROPERTIES = ("Names", *_unit_changes.PROPERTIES)
"""What to ask systemd of a unit, beside what C(_systemd.show) asks."""

_GENERATED = "/run/systemd/generator"
_LATER = 1.0
"""Seconds by which a file must be newer than a process: the start of that is known to a second."""


class OnDisk(t.NamedTuple):
    """The files that systemd would load now. ``fragment`` is None where there is none; ``masked`` is whether that is a
    mask."""

    fragment: str | None
    drop_ins: tuple[str, ...]
    masked: bool


def find(unit: Unit, directories: t.Sequence[str]) -> OnDisk:
    """The unit file and the drop-ins that are there of a unit, but for the drop-in of an upgrade under way."""
    names = list(dict.fromkeys([unit.identity, *unit.properties.get("Names", "").split()]))
    fragment = _first(_with_template(unit.identity), directories) or unit.properties.get("FragmentPath") or None
    if fragment and not os.path.lexists(fragment):
        fragment = None
    drop_ins: dict[str, str] = {}
    for directory in (f"{above}/{name}" for each in names for above in directories for name in _drop_in_names(each)):
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                if name.endswith(".conf") and not name.startswith(_systemd.OWN_DROP_IN):
                    drop_ins.setdefault(name, os.path.join(directory, name))
    ordered = tuple(drop_ins[name] for name in sorted(drop_ins) if not is_mask(drop_ins[name]))
    return OnDisk(fragment, ordered, fragment is not None and is_mask(fragment))


def is_mask(path: str) -> bool:
    """Whether a file hides those of the same name in later directories: a link to /dev/null, or an empty file."""
    try:
        return os.path.realpath(path) == "/dev/null" or os.path.getsize(path) == 0
    except OSError:
        return False


def _with_template(name: str) -> list[str]:
    stem, at, _instance = name.partition("@")
    return [name, f"{stem}@.service"] if at else [name]


def _first(names: t.Sequence[str], directories: t.Sequence[str]) -> str | None:
    places = (os.path.join(directory, name) for name in names for directory in directories)
    return next((place for place in places if os.path.lexists(place)), None)


def _drop_in_names(name: str) -> list[str]:
    """The drop-in directories of a unit: its own, its template's, those of the beginnings of its name, all units'."""
    stem = name.removesuffix(".service")
    parts = stem.partition("@")[0].split("-")
    prefixes = [f"{'-'.join(parts[:count])}-.service.d" for count in range(len(parts) - 1, 0, -1)]
    return [*(f"{each}.d" for each in _with_template(name)), *prefixes, "service.d"]


def change_of(unit: Unit, directories: t.Sequence[str]) -> UnitChange | None:
    """How the files of a unit differ from what systemd has loaded; None if they do not.

    :param unit: as C(_systemd.show) gives it with C(PROPERTIES).
    """
    there = find(unit, directories)
    fragment = unit.properties.get("FragmentPath", "")
    what = {
        "masked": unit.load == "masked" or there.masked,
        "gone": (unit.load == "not-found" and unit.is_running) or (unit.is_loaded and there.fragment is None),
    }
    kind = next((name for name, holds in what.items() if holds), "changed")
    files = _unlike(unit, there)
    if kind == "changed" and (not unit.is_loaded or not (files or unit.needs_reload)):
        return None
    if kind == "changed":
        texts = [_files.read_text(path) for path in (str(there.fragment), *there.drop_ins)]
        found = tuple(_unit_changes.differences(unit.properties, texts))
        if not (files or found) and _has_own_drop_in(unit, directories):
            return None
        return UnitChange(kind, files, found, generated=fragment.startswith(_GENERATED))
    return UnitChange(kind, files or ((f"{there.fragment} is a mask",) if there.masked else ()))


def _has_own_drop_in(unit: Unit, directories: t.Sequence[str]) -> bool:
    """Whether the drop-in of an upgrade that was interrupted is what systemd has loaded, or has not loaded yet."""
    names = [os.path.basename(path) for path in unit.properties.get("DropInPaths", "").split()]
    for directory in directories:
        with contextlib.suppress(OSError):
            names += os.listdir(os.path.join(directory, f"{unit.name}.d"))
    return any(name.startswith(_systemd.OWN_DROP_IN) for name in names)


def _unlike(unit: Unit, there: OnDisk) -> tuple[str, ...]:
    """Which files are others than those that are loaded, as texts."""
    if not unit.is_loaded:
        return ()
    loaded = unit.properties.get("FragmentPath", "")
    told = []
    if loaded and there.fragment is None:
        told.append(f"{loaded} was removed")
    elif there.fragment and loaded and os.path.realpath(there.fragment) != os.path.realpath(loaded):
        told.append(f"{there.fragment} takes the place of {loaded}")
    before = {os.path.realpath(path): path for path in unit.files() if path != loaded and not is_mask(path)}
    after = {os.path.realpath(path): path for path in there.drop_ins}
    told.extend(f"{path} was added" for real, path in after.items() if real not in before)
    told.extend(f"{path} was removed" for real, path in before.items() if real not in after)
    return tuple(told)


def newer_files(unit: Unit, directories: t.Sequence[str]) -> list[NewerFile]:
    """The unit's files and environment files that were changed after its process started."""
    if not unit.main_pid:
        return []
    there, since = find(unit, directories), _process.started(unit.main_pid)
    named = [("unit", path) for path in (there.fragment, *there.drop_ins) if path and not path.startswith("/run/")]
    named += [("environment", path) for path, _optional in environment_files(unit)]
    return [NewerFile(what, path) for what, path in named if is_newer(path, since)]


def started_otherwise(unit: Unit) -> tuple[Difference, ...]:
    """In what the process of a unit was started otherwise than the unit, as it is loaded, starts it: its arguments, and
    its user. Nothing is said of a process of another program, such as one that a wrapper has started."""
    expected = _systemd.start_line(unit, _files.read_text)
    actual = _process.command_line(unit.main_pid) if unit.main_pid else []
    if not expected or not actual or _process.program_name(unit.main_pid) != os.path.basename(expected[0]):
        return ()
    found = [_unit_changes.of_process(expected, actual)]
    user, uid = unit.properties.get("User") or "root", _process.effective_user(unit.main_pid)
    with contextlib.suppress(KeyError):
        wanted = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        if uid not in (None, wanted) and unit.properties.get("DynamicUser") != "yes":
            found.append(_unit_changes.Difference("User", str(uid), user))
    return tuple(one for one in found if one)


def is_newer(path: str, since: float) -> bool:
    """Whether a file was changed after a moment, in seconds since the epoch; not where either is unknown."""
    with contextlib.suppress(OSError):
        return since > 0 and os.stat(path).st_mtime > since + _LATER
    return False


def environment_files(unit: Unit) -> list[tuple[str, bool]]:
    """The environment files, with patterns resolved, and whether each may be missing."""
    found: list[tuple[str, bool]] = []
    for line in filter(None, unit.properties.get("EnvironmentFiles", "").splitlines()):
        path, _shown, ignored = line.partition(" (ignore_errors=")
        optional = ignored.startswith("yes")
        found.extend((each, optional) for each in (sorted(glob.glob(path)) or [path]))
    return found


def cannot_start(unit: Unit) -> list[str]:
    """Why systemd could not start the unit again, though its process runs: what it needs was taken away meanwhile."""
    properties, why = unit.properties, []
    if not unit.is_running or properties.get("RootDirectory") or properties.get("RootImage"):
        return []
    for path, optional in environment_files(unit):
        if not optional and not os.path.exists(path):
            why.append(f"its environment file {path} is not there")
    directory = properties.get("WorkingDirectory", "")
    if directory.startswith("/") and not os.path.isdir(directory):
        why.append(f"its working directory {directory} is not there")
    user = properties.get("User", "")
    if user and not user.isdigit() and properties.get("DynamicUser") != "yes":
        try:
            pwd.getpwnam(user)
        except KeyError:
            why.append(f"its user {user} is not known")
    return why


def next_start(run: Run, name: str, *, more: t.Sequence[str] = ()) -> Unit:
    """A unit as the next restart by a run starts it: as its files say, where they are not what is loaded. It has no
    process where that one was started otherwise: its arguments are not those to come.

    :param more: further properties to ask for.
    """
    unit = _systemd.show(run, [name], more=tuple(dict.fromkeys((*PROPERTIES, *more))))[0]
    directories = _systemd.unit_path(run)
    after = reloaded(unit, directories)
    return after._replace(main_pid=0) if after is not unit or newer_files(unit, directories) else unit


def reloaded(unit: Unit, directories: t.Sequence[str]) -> Unit:
    """A unit as systemd will have it loaded after a daemon-reload; the same one if that changes nothing."""
    change = change_of(unit, directories)
    if change is None or change.kind != "changed":
        return unit
    there = find(unit, directories)
    texts = [_files.read_text(path) for path in (str(there.fragment), *there.drop_ins)]
    changed = {one.setting for one in change.differences}
    return unit._replace(properties={**unit.properties, **_on_disk(changed, texts)})


def _on_disk(changed: set[str], texts: list[str]) -> dict[str, str]:
    """The properties that C(systemctl show) would print of those settings that changed."""

    def values(name: str) -> list[str]:
        return _unit_text.settings(texts, "Service", name)

    found = {name: (values(name) or [_unit_changes.PLAIN[name] or ""])[-1] for name in changed & {*_unit_changes.PLAIN}}
    if "ExecStart" in changed:
        with contextlib.suppress(ValueError):
            commands = [one for value in values("ExecStart") for one in _unit_text.commands(value)]
            found["ExecStart"] = "\n".join(
                f"{{ path={one.path} ; argv[]={' '.join(one.argv)} ; ignore_errors=no ; }}" for one in commands
            )
    if "Environment" in changed:
        found["Environment"] = " ".join(values("Environment"))
    if "EnvironmentFile" in changed:
        found["EnvironmentFiles"] = "\n".join(
            f"{each.removeprefix('-')} (ignore_errors={'yes' if each.startswith('-') else 'no'})"
            for each in values("EnvironmentFile")
        )
    return found
