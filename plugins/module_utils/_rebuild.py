# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. A state document in place of one that is damaged or gone, from all other evidence that there is on the host.

Evidence is taken in this order, so that what is later knows better:

1. the archives of the history, oldest first
2. what of the damaged document is whole: each component is a line of its own
3. the markers of the rollback watchdog, except of steps that are known to have ended
4. restore points that nothing of this names, and whose files aren't in place: a swap that nobody has confirmed

The revision is the highest that any file tells, the lock file and documents that were set aside before included.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import typing as t

from . import _files, _history, _json_file, _lease, _schema
from ._errors import HostError
from ._state import TOUCHED, is_unsettled, name_of, new_document

if t.TYPE_CHECKING:
    from ._store import Layout

    Data = dict[str, t.Any]

_REVISION = re.compile(rb'"revision"\s*:\s*(\d{1,12})(?!\d)')
_MANIFEST_NUMBER = re.compile(rb'"manifest_number"\s*:\s*(\d{1,15})(?!\d)')
_COMPONENT_LINE = re.compile(rb'^\s*("[A-Za-z0-9_.+~@-]{1,100}")\s*:\s*(\{.*\})\s*,?\s*$', re.MULTILINE)
_MOST_SET_ASIDE = 20
# Less than what is needed to use them is enough to know that they are there.
_MARKER = {**_schema.MARKER, "required": ["component", "record"]}
_COMPONENTS = _schema.DOCUMENT["properties"]["components"]
_MANIFEST = {**_schema.MANIFEST, "required": ["component", "version", "created_at"]}


def rebuilt(layout: Layout, damaged: bytes) -> Data:
    """The document as far as it can be known.

    :param damaged: what is in the file of the damaged one.
    """
    data = new_document()
    components: Data = data["components"]
    archives = _history.read_all(layout.history(), refused=[])
    if archives:
        data["history"] = _history.ends(archives)
    for each in reversed(_history.newest_first(archives)):
        components.update(each.data.get("components", {}))
    components.update(_whole_components(damaged))
    markers = list(_markers(layout))
    for marker in markers:
        known, record = components.get(marker["component"], {}), marker["record"]
        ended = known.get("backup_id") == record.get("backup_id") and known.get("state") not in TOUCHED
        if not ended:
            components[marker["component"]] = record
    manifests = dict(_manifests(layout))
    _list_restore_points(manifests, components)
    _find_unconfirmed(layout, manifests, components)
    told = [damaged, *_set_aside(layout)]
    revisions = [int(found) for text in told for found in _REVISION.findall(text)]
    revisions += [int(each.data.get("revision") or 0) for each in archives]
    revisions += [int(marker.get("revision") or 0) for marker in markers]
    lease = _lease.decode(_json_file.beginning(layout.lock, most=_json_file.MOST_BYTES_OF_LEASE))
    data["revision"] = min(max([0, *revisions, lease.get("revision", 0)]), _schema.MOST_REVISION - 1)
    numbers = [int(found) for text in told for found in _MANIFEST_NUMBER.findall(text)]
    if any(numbers):
        data["manifest_number"] = max(numbers)
    return data


def _whole_components(damaged: bytes) -> Data:
    """The components in a damaged document that are whole. Of two with one name, the one that isn't settled."""
    with contextlib.suppress(ValueError):
        data = _schema.loads(damaged) if len(damaged) < _json_file.MOST_BYTES else None
        found = data.get("components") if isinstance(data, dict) else None
        if isinstance(found, dict):
            return {name: each for name, each in found.items() if not _schema.problem({name: each}, _COMPONENTS)}
    components: Data = {}
    for name, text in _COMPONENT_LINE.findall(damaged):
        with contextlib.suppress(ValueError):
            (key, record), *_others = _json_file.parsed(b"{%s: %s}" % (name, text), _COMPONENTS).items()
            if not is_unsettled(components.get(key, {"state": "idle"})):
                components[key] = record
    return components


def _markers(layout: Layout) -> t.Iterator[Data]:
    for name in _names(layout.pending()):
        if name.endswith(".json") and not name.startswith("."):
            with contextlib.suppress(ValueError, OSError):
                marker = _json_file.load(os.path.join(layout.pending(), name), _MARKER)
                if name == f"{marker['component']}.json":
                    yield marker


def _manifests(layout: Layout) -> t.Iterator[tuple[str, Data]]:
    for backup_id in _names(layout.backup()):
        with contextlib.suppress(ValueError, OSError, HostError):
            manifest = _json_file.load(os.path.join(layout.backup(backup_id), "manifest.json"), _MANIFEST)
            if manifest.get("id", backup_id) == backup_id:
                yield backup_id, manifest


def _list_restore_points(manifests: Data, components: Data) -> None:
    """Let each component's inventory list the restore points that are there, and no others."""
    there: dict[str, list[Data]] = {}
    for backup_id, manifest in manifests.items():
        point = {"id": backup_id, "version": manifest["version"], "created_at": manifest["created_at"]}
        there.setdefault(manifest["component"], []).append(point)
    for name in {*there, *components}:
        record = components.setdefault(name, {"state": "idle", "attempts": 0})
        points = {point["id"]: point for point in record.get("inventory", {}).get("restore_points", [])}
        record["_named"] = [*points, record.get("backup_id")]
        points = {point["id"]: points.get(point["id"], point) for point in there.get(name, [])}
        if points or "inventory" in record:
            in_order = sorted(points.values(), key=lambda point: point["created_at"])
            record.setdefault("inventory", {})["restore_points"] = in_order


def _find_unconfirmed(layout: Layout, manifests: Data, components: Data) -> None:
    """Keep as unresolved what was put in place of a restore point that no evidence names: the document that told of the
    swap is lost, and no watchdog is there to undo it."""
    for record in components.values():
        record.setdefault("_named", [])
    newest_first = sorted(manifests.items(), key=lambda item: item[1]["created_at"], reverse=True)
    for backup_id, manifest in newest_first:
        record = components[manifest["component"]]
        if backup_id in record["_named"] or is_unsettled(record):
            continue
        files = [
            {"path": entry["path"], "before": entry["sha256"], "after": _sha256(entry["path"])}
            for entry in manifest.get("entries", [])
            if entry["kind"] == "binary"
        ]
        if all(file["before"] == file["after"] for file in files):
            continue
        record.update(
            state="activated",
            attempts=max(1, record.get("attempts", 0)),
            from_version=manifest["version"],
            to_version=_staged_version(layout, manifest["component"], files),
            upgrade_id=None,
            backup_id=backup_id,
            rollback_available=True,
            outcome=None,
            files=files,
            probe=None,
        )
    for record in components.values():
        record.pop("_named")


def _staged_version(layout: Layout, component: str, files: list[Data]) -> str:
    """The version of the candidate whose file is in place now; C(unknown) if there is none."""
    there = {file["after"] for file in files} - {None}
    for key in _names(layout.staging()):
        name, _at, version = key.rpartition("@")
        with contextlib.suppress(ValueError, OSError, HostError):
            candidate = _json_file.load(os.path.join(layout.staging(key), "candidate.json"), _schema.CANDIDATE)
            if name == name_of(component) and there & {*candidate["files"].values()}:
                return version
    return "unknown"


def _sha256(path: str) -> str | None:
    with contextlib.suppress(OSError, HostError):
        return _files.sha256_or_none(path)
    return None


def _set_aside(layout: Layout) -> t.Iterator[bytes]:
    """The beginnings of the documents that were set aside last."""
    found = sorted(glob.glob(f"{glob.escape(layout.document)}.damaged-*"))
    for path in found[-_MOST_SET_ASIDE:]:
        with contextlib.suppress(OSError, HostError):
            yield _json_file.beginning(path, most=_json_file.MOST_BYTES)


def _names(directory: str) -> list[str]:
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
