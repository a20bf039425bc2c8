# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Io ring. What is wrong with the record of a host: its document, history and restore points, and who can get at them.

Nothing is repaired here. A session does what can be done by itself, and the rest needs a person.
"""

from __future__ import annotations

import os
import time
import typing as t

from . import _guard, _history, _lease, _overview, _private, _restore_point, _store
from ._errors import UpgradeError

if t.TYPE_CHECKING:
    from ._state import Document
    from ._store import Layout

_DIRECTORY = 0o700


def problems(layout: Layout) -> list[str]:
    """What is wrong, and where. Empty if all is well, and where nothing was ever done."""
    if not os.path.lexists(layout.root):
        return []
    found = [*_permissions(layout), *_lock(layout), *_markers(layout)]
    try:
        document, problem = _store.examine(layout)
    except UpgradeError as exc:
        return [*found, str(exc)]
    if problem:
        found.append(f"{layout.document}: {problem}. The next upgrade sets it aside and goes on with what can be known")
    if document is None:
        return found
    refused: list[str] = []
    archives = _history.read_all(layout.history(), refused=refused)
    under_way = document.upgrade.get("upgrade_id") if document.is_active() else None
    chain = _history.problems(archives, document.history, under_way=under_way)
    return [*found, *refused, *chain, *_restore_points(layout, document)]


def _lock(layout: Layout) -> list[str]:
    try:
        lease = _store.read_lease(layout.root)
    except UpgradeError:
        return []  # told with the permissions
    return [_lease.describe(lease, now=time.time())] if _lease.UNREADABLE in lease else []


def _markers(layout: Layout) -> list[str]:
    """The markers with which the host couldn't undo a step by itself."""
    names = [name[: -len(".json")] for name in _listed(layout.pending()) if name.endswith(".json") and name[0] != "."]
    damaged = {layout.pending(name): _guard.marker_problem(layout, name) for name in names}
    return [f"{path} is damaged: {problem}" for path, problem in damaged.items() if problem]


def _permissions(layout: Layout) -> list[str]:
    """The directories and files that others can get at, or that aren't ours."""
    names = ("backups", "staging", "baseline", "history", "pending")
    directories = [layout.root, *(os.path.join(layout.root, name) for name in names)]
    files = [layout.document, layout.lock]
    for directory in directories[3:]:
        files += [os.path.join(directory, name) for name in _listed(directory) if name.endswith(".json")]
    for backup_id in _listed(layout.backup()):
        directories.append(layout.backup(backup_id))
        files += [os.path.join(layout.backup(backup_id), name) for name in _listed(layout.backup(backup_id))]
    looked_at = [(path, _DIRECTORY) for path in directories] + [(path, _private.MODE) for path in files]
    found = (_private.problem(path, mode=mode) for path, mode in looked_at if os.path.lexists(path))
    return [problem for problem in found if problem]


def _listed(directory: str) -> list[str]:
    return sorted(os.listdir(directory)) if os.path.isdir(directory) and not os.path.islink(directory) else []


def _restore_points(layout: Layout, document: Document) -> list[str]:
    """The restore points that can't be gone back to, and those that the inventory doesn't know."""
    session = _store.Session(layout, document, writable=False, clock=time.time)
    listed = [point["id"] for point in _overview.restore_points(document)]
    found = []
    for backup_id in listed:
        try:
            manifest = _restore_point.read(session, backup_id)
            _restore_point.verify(session, manifest, _restore_point.KINDS)
        except (UpgradeError, OSError) as exc:
            found.append(str(exc))
    unknown = [
        name for name in _listed(layout.backup()) if name not in listed and not name.endswith((".new", ".removed"))
    ]
    return found + [
        f"{layout.backup(name)}: the inventory doesn't list this restore point. Look at its manifest.json, and remove "
        "it with action=forget of the module upgrade_state"
        for name in unknown
    ]
