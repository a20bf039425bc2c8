# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Pure ring. What a document says, in the words of whoever asks for it."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from ._state import Document

    Data = dict[str, t.Any]

_TOLD = (
    "state",
    "from_version",
    "to_version",
    "attempts",
    "outcome",
    "last_error",
    "skip_reason",
    "health_check_passed",
    "started_at",
    "finished_at",
    "backup_id",
)


def component(document: Document, name: str) -> Data:
    """How a component stands. One that nothing was ever done to is idle."""
    record = document.component(name)
    inventory = record.get("inventory", {})
    return {
        **{key: record.get(key) for key in _TOLD},
        "current_version": inventory.get("current_version"),
        "previous_version": inventory.get("previous_version"),
        "is_upgraded": record["state"] == "success",
        "rollback_available": bool(inventory.get("restore_points")),
    }


def resume_point(document: Document) -> Data | None:
    """Where an upgrade that is under way stands, and the steps it has left; None if none is."""
    if not document.is_active():
        return None
    upgrade = document.upgrade
    return {
        "state": upgrade["state"],
        "phase": upgrade.get("phase"),
        "component": upgrade.get("component"),
        "steps": document.pending(),
    }


def next_phase(document: Document) -> str | None:
    """The first phase of the upgrade under way that has not begun."""
    phases = document.upgrade.get("phases", {}) if document.is_active() else {}
    return next((name for name, phase in phases.items() if phase["state"] == "pending"), None)


def restore_points(document: Document) -> list[Data]:
    """The restore points of all components, newest first."""
    points = [
        {"component": name, **point}
        for name, record in document.data["components"].items()
        for point in record.get("inventory", {}).get("restore_points", [])
    ]
    return sorted(points, key=lambda point: (point["created_at"], point["id"]), reverse=True)


def history_entry(archive: Data) -> Data:
    """An upgrade that has ended, in short."""
    upgrade = archive.get("upgrade", {})
    return {key: upgrade.get(key) for key in ("upgrade_id", "kind", "state", "outcome", "started_at", "finished_at")}


def summary(document: Document, holder: str) -> str:
    """A few lines for people.

    :param holder: who has the host, as a text; empty if nobody has.
    """
    upgrade = document.upgrade
    lines = [upgrade["state"] + (f", upgrade {upgrade['upgrade_id']}" if upgrade.get("upgrade_id") else "")]
    if document.is_active():
        lines[0] += f", {document.progress_percent()} % done"
        lines += [f"phase {name}: {phase['state']}" for name, phase in upgrade.get("phases", {}).items()]
    if holder:
        lines.append(f"lock: {holder}")
    for name in sorted(document.data["components"]):
        told = component(document, name)
        if told["state"] != "idle" or told["current_version"]:
            error = f": {told['last_error'].splitlines()[0]}" if told["last_error"] else ""
            lines.append(" ".join(filter(None, [name, told["state"], told["to_version"]])) + error)
    return "\n".join(lines)
