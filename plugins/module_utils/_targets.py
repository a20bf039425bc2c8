# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What keeps a file from being replaced, or from being what it was afterwards, read before it is touched."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import typing as t

from . import _files, _packages, _process
from ._obstacles import Target

if t.TYPE_CHECKING:
    from ._command import Run

    Data = dict[str, t.Any]

_CAPABILITY = "security.capability"


class Mount(t.NamedTuple):
    """A line of /proc/self/mountinfo: the directory or file below which something is mounted, and what."""

    point: str
    source: str
    options: tuple[str, ...]


def read(run: Run, steps: t.Sequence[Data], replaced: t.Mapping[str, str]) -> list[Target]:
    """The files that steps replace.

    :param replaced: the component of each path that is replaced, or put back by undo.
    """
    mounted, diverted = mounts(), _packages.diversions(run, list(replaced))
    versions = _versions(steps)
    programs = {file["dest"] for step in steps for file in step.get("files") or []}
    found = []
    for path, component in replaced.items():
        with contextlib.suppress(OSError):
            found.append(
                _target(path, component, mounted, is_program=path in programs)._replace(
                    diverted=diverted.get(path, ""),
                    versions=versions[component] if path in programs else ("", ""),
                )
            )
    return found


def _versions(steps: t.Sequence[Data]) -> dict[str, tuple[str, str]]:
    """Where each component begins, and where it goes."""
    found: dict[str, tuple[str, str]] = {}
    for step in steps:
        first = found.get(step["component"], (step.get("from") or "", ""))[0]
        found[step["component"]] = (first, step.get("to") or "")
    return found


def _target(path: str, component: str, mounted: t.Sequence[Mount], *, is_program: bool) -> Target:
    with _files.located(path) as place, _files.located(path, follow=True) as followed:
        own, directory = place.flags()
        status, link = followed.status(), place.link()
        below = mount_of(os.path.dirname(place.path), mounted)
        at = next((one for one in mounted if one.point == place.path), None)
        return Target(
            component=component,
            path=path,
            real=place.path,
            link=link,
            attributes=own,
            directory_attributes=directory,
            mount=f"{at.source}" if at else "",
            noexec=below.point if is_program and below and "noexec" in below.options else "",
            lost=_lost(followed, status),
            names=status.st_nlink if link is None else 1,
        )


def _lost(place: _files.Location, status: os.stat_result) -> tuple[str, ...]:
    """What a successor does not take over; see C(_files.Location.carried)."""
    bits = {"setuid": stat.S_ISUID, "setgid": stat.S_ISGID}
    lost = [name for name, bit in bits.items() if status.st_mode & bit]
    if place.unsafe is not None:
        with contextlib.suppress(OSError), place.opened() as descriptor:
            lost += ["file capabilities"] * (_CAPABILITY in os.listxattr(descriptor))
    return tuple(lost)


def mounts() -> list[Mount]:
    """All mounts, in order: of several at one point the last counts."""
    found = []
    for line in _files.read_text(f"{_process.PROC}/self/mountinfo").splitlines():
        words, _dash, rest = line.partition(" - ")
        fields, filesystem = words.split(), rest.split()
        if len(fields) > 5 and len(filesystem) > 1:
            options = (*fields[5].split(","), *(filesystem[2].split(",") if len(filesystem) > 2 else ()))
            source = f"{filesystem[0]} {_unescaped(filesystem[1])}, {_unescaped(fields[3])}"
            found.append(Mount(_unescaped(fields[4]), source, options))
    return found


def mount_of(path: str, mounted: t.Sequence[Mount]) -> Mount | None:
    """The mount that a path is in."""
    above = [one for one in mounted if path == one.point or path.startswith(f"{one.point.rstrip('/')}/")]
    deepest = max((len(one.point) for one in above), default=0)
    return next((one for one in reversed(above) if len(one.point) == deepest), None)


def _unescaped(word: str) -> str:
    """A path as mountinfo has it: space, tab, newline and backslash are octal."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), word)
