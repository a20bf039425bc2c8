# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Io ring. The history of a host: an archive for each upgrade that has ended.

Each archive holds the sha256 of the one before it, and the document that of the newest. So whoever changes, removes,
adds or moves one breaks this chain. Old archives are pruned from its far end; the document knows the last of these too.
"""

from __future__ import annotations

import hashlib
import os
import re
import typing as t

from . import _json_file, _schema
from ._errors import HostError


class Archive(t.NamedTuple):
    """One file of the history. One that is damaged, or isn't what an archive must be, has no data."""

    name: str
    sha256: str
    data: dict[str, t.Any]

    @property
    def previous(self) -> str | None:
        return self.data.get("previous")

    @property
    def upgrade(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.data.get("upgrade", {}))

    @property
    def finished_at(self) -> str:
        return self.upgrade.get("finished_at") or self.upgrade.get("updated_at") or ""


def archive(name: str, content: bytes) -> Archive:
    try:
        data = _json_file.parsed(content, _schema.ARCHIVE)
    except ValueError:
        data = {}
    return Archive(name, hashlib.sha256(content).hexdigest(), data)


def read(path: str, *, narrowed: list[str] | None = None) -> Archive:
    """The archive in a file; one that is too large to be one is damaged.

    :raises HostError: if it is no file of our own.
    """
    name = os.path.basename(path)
    try:
        return archive(name, _json_file.content(path, most=_json_file.MOST_BYTES_OF_HISTORY, narrowed=narrowed))
    except ValueError:
        return Archive(name, "", {})


def read_all(directory: str, *, narrowed: list[str] | None = None, refused: list[str] | None = None) -> list[Archive]:
    """All archives there are, in no order.

    :param refused: where to tell which of them can't be read. Without it that is an error.
    :raises HostError: if one is no file of our own.
    """
    found = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if not name.endswith(".json") or name.startswith("."):
            continue
        try:
            one = read(os.path.join(directory, name), narrowed=narrowed)
        except (HostError, OSError) as exc:
            if refused is None:
                raise
            refused.append(str(exc))
        else:
            found.append(one)
    return found


def chain(archives: t.Iterable[Archive], head: str | None, base: str | None) -> list[Archive]:
    """The archives that lead from C(head) to C(base), newest first, as far as they do."""
    known: dict[str, Archive] = {}
    for each in archives:
        known.setdefault(each.sha256, each)
    found: list[Archive] = []
    at = head
    while at is not None and at != base and at in known:
        found.append(known.pop(at))
        at = found[-1].previous
    return found


def newest_first(archives: t.Iterable[Archive]) -> list[Archive]:
    """The archives of upgrades, by the time these ended; whether they are in the chain or not."""
    upgrades = (each for each in archives if each.upgrade)
    in_order = sorted(upgrades, key=lambda each: (each.finished_at, each.data.get("revision", 0), each.name))
    return in_order[::-1]


def problems(archives: list[Archive], history: dict[str, t.Any], *, under_way: str | None) -> list[str]:
    """What is wrong with the chain.

    :param under_way: the upgrade that has not ended yet: a run may have died between its archive and the document.
    """
    head, base = history["head"], history["base"]
    line = chain(archives, head, base)
    end = line[-1].previous if line else head
    found = [
        f"history: {each.name} is the archive of upgrade {each.upgrade.get('upgrade_id')}: it was renamed"
        for each in line
        if not re.fullmatch(rf"{re.escape(str(each.upgrade.get('upgrade_id')))}(-\d+)?\.json", each.name)
    ]
    if end != base:
        found.append(f"history: the archive with sha256 {end} is missing, or was changed")
    expected = {each.name for each in (*line, *chain(archives, base, None))}
    others = [
        each.name
        for each in archives
        if each.name not in expected
        and not (each.previous == head and under_way and each.upgrade.get("upgrade_id") == under_way)
    ]
    if others:
        found.append(
            f"history: {', '.join(others)}: the chain from the newest archive doesn't lead there. It was changed or "
            "added, or one after it was changed or removed"
        )
    return found


def ends(archives: list[Archive]) -> dict[str, t.Any]:
    """The ends of the chain as the archives themselves tell them, for a document that lost them."""
    named = {each.previous for each in archives}
    newest = newest_first(each for each in archives if each.sha256 not in named)
    line = chain(archives, newest[0].sha256, None) if newest else []
    return {"head": line[0].sha256 if line else None, "base": line[-1].previous if line else None}
