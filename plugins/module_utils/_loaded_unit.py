# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The unit as systemd had it loaded before a step: kept in the restore point, and what undo brings back.

A step that is undone must leave what ran before it, and not the old program in a unit that changed meanwhile. So undo
compares the unit that it would start with the one that is kept. Where they differ, a drop-in in /run sets what is kept.
It is there until the next boot, as the unit in systemd's memory was; the unit's own files stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t

from . import _files, _systemd, _unit_changes, _unit_text
from ._errors import HostError

if t.TYPE_CHECKING:
    from ._command import Run

    Data = dict[str, t.Any]

DROP_IN = "zz-observability-restored.conf"
_DIRECTORY = "/run/systemd/system"

_COMMANDS = tuple(name for name in _unit_changes.COMMANDS if name != "ExecReload")
_LISTS = (
    *("CapabilityBoundingSet", "AmbientCapabilities", "SupplementaryGroups", "ReadWritePaths", "ReadOnlyPaths"),
    *("InaccessiblePaths", "SystemCallFilter", "RestrictAddressFamilies"),
)
_TIMES = {"TimeoutStartUSec": "TimeoutStartSec", "TimeoutStopUSec": "TimeoutStopSec"}
_LIMITS = tuple(name for name in _unit_changes.PLAIN if name.startswith("Limit"))
PROPERTIES = (
    *(*_unit_changes.PROPERTIES, *_LISTS, *_TIMES, "ExecStartEx", "ExecStartPreEx", "ExecStartPostEx"),
    *(f"{name}Soft" for name in _LIMITS),
)
"""What is kept of a unit."""

_PREFIXES = {"ignore-failure": "-", "no-env-expand": ":", "privileged": "+", "no-setuid": "!", "ambient": "!!"}
_FLAGS = re.compile(r" ; (?:flags=([\w -]*?)|ignore_errors=(\w+)) ;")


class BroughtBack(t.NamedTuple):
    """A drop-in that brings a unit back, and the settings in which its files say something else."""

    unit: str
    drop_in: str
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"the files of {self.unit} changed meanwhile ({', '.join(self.settings)}). It runs with the unit that it "
            f"had before, by {self.drop_in}, until the next boot. Repair the unit, remove that file, run systemctl "
            f"daemon-reload and restart {self.unit}"
        )


def read(run: Run, name: str) -> Data:
    """A unit as systemd has it loaded.

    :returns: C(unit), C(properties), and C(commands): for each kind of command a list of C({prefix, path, argv}).
    """
    unit = _systemd.show(run, [name], more=PROPERTIES)[0]
    kept = {key: unit.properties[key] for key in PROPERTIES if key in unit.properties}
    commands = {kind: _commands(run, unit, kind) for kind in _COMMANDS}
    return {"unit": unit.identity, "loaded": unit.is_loaded, "properties": kept, "commands": commands}


def _commands(run: Run, unit: _systemd.Unit, kind: str) -> list[Data]:
    """The commands of a unit, with the boundaries of their words, which C(systemctl show) has lost."""
    shown = unit.properties.get(f"{kind}Ex") or unit.properties.get(kind, "")
    lines = [line for line in shown.splitlines() if line.startswith("{ path=")]
    exact = _asked(run, unit.identity, kind) if lines else []
    found = []
    for position, line in enumerate(lines):
        _start, _path, rest = line.partition("{ path=")
        path, _argv, rest = rest.partition(" ; argv[]=")
        joined = re.split(r" ; (?:flags|ignore_errors)=", rest, maxsplit=1)[0]
        words = exact[position] if position < len(exact) else joined.split()
        flags = _FLAGS.search(line)
        names = (flags.group(1) or "").split() if flags else []
        prefix = "".join(_PREFIXES.get(name, "") for name in names)
        prefix = prefix or ("-" if flags and flags.group(2) == "yes" else "")
        found.append({"prefix": prefix, "path": path, "argv": words})
    return found


def _asked(run: Run, identity: str, kind: str) -> list[list[str]]:
    """The argument vectors of a unit's commands, as D-Bus has them; none where that can't be asked."""
    path = "".join(char if char.isalnum() and char.isascii() else f"_{ord(char):02x}" for char in identity)
    argv = ["busctl", "--json=short", "get-property", "org.freedesktop.systemd1"]
    done = run([*argv, f"/org/freedesktop/systemd1/unit/{path}", "org.freedesktop.systemd1.Service", kind], timeout=30)
    try:
        return [[str(word) for word in command[1]] for command in json.loads(done.out)["data"]] if done.rc == 0 else []
    except (ValueError, LookupError, TypeError):
        return []


def bring_back(run: Run, kept: t.Iterable[Data], *, own: str) -> list[BroughtBack]:
    """Let systemd load the files of units, and see to it that each is started as it was kept.

    :param kept: what C(read) gave of each before the step.
    :param own: what the command lines of the rollback watchdog have in them: they are not of the unit.
    :returns: what was needed for that; nothing of a unit that is started as before anyway.
    :raises HostError: if systemd does not take the drop-in.
    """
    known = [unit for unit in kept if unit["loaded"]]
    if known:
        run(["systemctl", "daemon-reload"], timeout=90)
    return [one for one in (_bring_back(run, unit, own) for unit in known) if one]


def _bring_back(run: Run, kept: Data, own: str) -> BroughtBack | None:
    now = read(run, kept["unit"])
    settings = differing(kept, now, own=own)
    if not settings or not now["loaded"]:
        return None
    directory = os.path.join(_DIRECTORY, f"{now['unit']}.d")
    path = os.path.join(directory, DROP_IN)
    _files.make_directory(directory)
    _files.write_durably(path, drop_in(kept, settings, own=own).encode())
    done = run(["systemctl", "daemon-reload"], timeout=90)
    if done.rc != 0:
        raise HostError(f"systemd does not load {path}: {done.err.strip()}", key="unit.not_restored")
    return BroughtBack(now["unit"], path, tuple(settings))


def differing(kept: Data, now: Data, *, own: str) -> list[str]:
    """The settings in which a unit is not as it was kept, by their names in unit files."""
    before, after = _settings(kept, own), _settings(now, own)
    return [name for name in before if before[name] != after[name]]


def marks(unit: Data, *, own: str, salt: str) -> dict[str, str]:
    """What tells whether a setting of a unit is still the same, without what it is: it may hold a secret.

    :param salt: what only the holder of the marks knows.
    """
    return {
        name: hashlib.sha256(f"{salt} {name} {json.dumps(value)}".encode()).hexdigest()
        for name, value in _settings(unit, own).items()
    }


def _settings(unit: Data, own: str) -> dict[str, t.Any]:
    """All that is kept of a unit, by the names of unit files."""
    properties = unit["properties"]
    found: dict[str, t.Any] = {kind: _without(unit, kind, own) for kind in _COMMANDS}
    for name in (*_unit_changes.PLAIN, *_LISTS, "Environment"):
        found[name] = [properties.get(name, ""), properties.get(f"{name}Soft", "")]
    found.update({setting: properties.get(name, "") for name, setting in _TIMES.items()})
    found["EnvironmentFile"] = properties.get("EnvironmentFiles", "")
    return found


def _without(unit: Data, kind: str, own: str) -> list[Data]:
    return [command for command in unit["commands"].get(kind, []) if not any(own in word for word in command["argv"])]


def drop_in(kept: Data, settings: t.Sequence[str], *, own: str) -> str:
    """The text of the drop-in that sets what was kept."""
    properties, lines = kept["properties"], []
    times = {setting: name for name, setting in _TIMES.items()}
    for name in settings:
        value = properties.get(times.get(name, name), "")
        if name in _COMMANDS:
            lines += [f"{name}=", *(f"{name}={_command(each)}" for each in _without(kept, name, own))]
        elif name == "Environment":
            lines += [f"{name}=", *(f"{name}={_word(word)}" for word in _unit_text.shown_words(value))]
        elif name == "EnvironmentFile":
            lines += [f"{name}=", *(f"{name}={each}" for each in _environment_files(properties))]
        elif name in _LIMITS:
            lines.append(f"{name}={properties.get(f'{name}Soft') or value}:{value}" if value else f"{name}=")
        elif name in _LISTS:
            lines += [f"{name}=", *([f"{name}={_plain(value)}"] if value else [])]
        else:
            lines.append(f"{name}={_plain(re.sub('^!', '-', value) if name == 'WorkingDirectory' else value)}")
    head = (
        "# Written by observability.stack when it undid an upgrade: the unit changed meanwhile, and this brings back\n"
        "# what ran before. Once the unit is repaired, remove this file, and run systemctl daemon-reload.\n[Service]\n"
    )
    return head + "\n".join(lines) + "\n"


def _environment_files(properties: Data) -> t.Iterator[str]:
    for line in filter(None, properties.get("EnvironmentFiles", "").splitlines()):
        path, _shown, ignored = line.partition(" (ignore_errors=")
        yield f"{'-' if ignored.startswith('yes') else ''}{_plain(path)}"


def _command(command: Data) -> str:
    words = [_word(word) for word in command["argv"][1:]]
    first = command["argv"][0] if command["argv"] else command["path"]
    renamed = os.path.basename(first) != os.path.basename(command["path"])
    at = ("@", [_word(first)]) if renamed else ("", [])
    return " ".join([f"{at[0]}{command['prefix']}{_word(command['path'])}", *at[1], *words])


def _word(word: str) -> str:
    """A word as a unit file has it. A variable stays one: systemd keeps command lines before they are expanded."""
    escaped = "".join(_ESCAPED.get(char) or (char if char.isprintable() else _codes(char)) for char in word)
    return f'"{escaped}"' if not word or word == ";" or re.search(r"[\s'\"]", word) else escaped


_ESCAPED = {"\\": "\\\\", '"': '\\"', "%": "%%"}


def _codes(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _plain(value: str) -> str:
    """A value of one line."""
    return "".join(filter(str.isprintable, value)).replace("%", "%%")
