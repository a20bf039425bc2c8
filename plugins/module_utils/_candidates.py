# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What waits in staging/ of a host, and for how long.

staging/<component>@<version>/        a proven candidate; see C(_staging). It goes with the end of its upgrade
staging/<component>@<version>/ahead   says that it was brought ahead of its upgrade, and stays until that has succeeded
staging/<component>@<version>.fetch/  what came so far of an archive that the host fetches by itself; it stays as long
"""

from __future__ import annotations

import os
import typing as t

from . import _files, _json_file, _schema
from ._errors import HostError
from ._state import Step, name_of

if t.TYPE_CHECKING:
    from ._state import Document
    from ._store import Layout, Session

FETCH = ".fetch"
_AHEAD = "ahead"


def mark_ahead(directory: str) -> None:
    """Let a candidate outlive the end of upgrades that don't touch its component."""
    path = os.path.join(directory, _AHEAD)
    if not os.path.lexists(path):
        _files.write_durably(path, b"")


def archives(layout: Layout) -> dict[str, str]:
    """The sha256 of the archive that each candidate came from, by the key of its step. Whether a candidate still is
    what was proven is seen when it is used."""
    found = {}
    for key in _names(layout):
        try:
            path = os.path.join(layout.staging(key), "candidate.json")
            sha256 = _json_file.load(path, _schema.CANDIDATE)["archive_sha256"]
        except (HostError, OSError, ValueError):
            continue
        if "@" in key:
            found[key] = sha256
    return found


def sweep(session: Session) -> None:
    """Remove what no upgrade will use: all but what was brought ahead, or is half fetched, for components that this
    upgrade didn't bring to where they were meant to be."""
    if not session.writable:
        return
    over = _reached(session.document)
    for key in _names(session.layout):
        component, at, _version = key.rpartition("@")
        path = session.layout.staging(key)
        is_kept = (key.endswith(FETCH) or os.path.lexists(os.path.join(path, _AHEAD))) and not key.endswith(".removed")
        if not (at and is_kept and component not in over):
            session.remove_tree(path)


def _reached(document: Document) -> set[str]:
    """The components of which all steps of the upgrade have succeeded, on all their instances."""
    names = {key: name_of(Step.of(key).component) for key in document.upgrade.get("steps", {})}
    unlike = {names[key] for key, outcome in document.upgrade.get("steps", {}).items() if outcome != "succeeded"}
    return set(names.values()) - unlike


def _names(layout: Layout) -> list[str]:
    try:
        return sorted(os.listdir(layout.staging()))
    except FileNotFoundError:
        return []
