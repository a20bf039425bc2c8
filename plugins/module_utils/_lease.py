# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. Who upgrades a host now.

A run is many short processes on a host, so no lock of the kernel can span it. A lease does: a record that names the run
and ends by itself. Every module of the run renews it; another run is refused until it ends, is released, or is known to
be dead. A lease without C(upgrade_id) is nobody's.
"""

from __future__ import annotations

import json
import typing as t

from ._errors import LockedError

LEASE_SECONDS = 900
"""How long a lease lasts after the last module of its run touched it."""

SIZE = 1024
"""Bytes of the lock file: always as many, so that one write replaces all of what was there."""

_FROM_RUN = ("upgrade_id", "user", "controller", "job", "origin", "pid", "started")

if t.TYPE_CHECKING:
    Lease = dict[str, t.Any]


def decode(data: bytes) -> Lease:
    """The lease in a lock file. One that was torn by a power cut is nobody's: its run died too."""
    try:
        lease = json.loads(data)
    except ValueError:
        return {}
    return lease if isinstance(lease, dict) else {}


def encode(lease: Lease) -> bytes:
    """The lease as the lock file's whole content."""
    return json.dumps(lease, sort_keys=True).ljust(SIZE - 1).encode() + b"\n"


def released(lease: Lease) -> Lease:
    """Nobody's lease, that still knows how often it was taken."""
    return {"token": lease.get("token", 0)}


def holder(lease: Lease, *, now: float, dead: t.Collection[str] = ()) -> str | None:
    """The upgrade that has the host, unless its lease has ended or it is known to be dead."""
    upgrade_id = lease.get("upgrade_id")
    return None if upgrade_id in dead or lease.get("expires", 0) <= now else upgrade_id


def enter(lease: Lease, run: dict[str, t.Any] | None, *, now: float, seconds: float, boot_id: str) -> Lease:
    """The lease after a module has come in: renewed or taken for its run, or as it was if it belongs to none.

    :param run: ``upgrade_id``, ``user``, ``controller``, ... of the run; ``dead`` names runs that are known to be dead.
    :raises LockedError: naming who holds it, since when, and how to go on.
    """
    wanted = run["upgrade_id"] if run else None
    has_it = holder(lease, now=now, dead=(run or {}).get("dead") or ())
    if has_it not in (None, wanted):
        raise LockedError(describe(lease, now=now))
    if run is None:
        return lease
    taken = lease.get("upgrade_id") != wanted
    return {
        **{key: run.get(key) for key in _FROM_RUN},
        "token": lease.get("token", 0) + taken,
        "acquired": now if taken else lease["acquired"],
        "expires": now + seconds,
        "boot_id": boot_id,
    }


def describe(lease: Lease, *, now: float) -> str:
    """Who holds the lease, for whom it stands in the way."""
    since, left = max(0, now - lease.get("acquired", now)), max(0, lease.get("expires", now) - now)
    return (
        f"this host is being upgraded by {lease.get('user') or 'somebody'} on {lease.get('controller') or '?'} "
        f"(upgrade {lease['upgrade_id']}, since {since / 60:.0f} min): "
        f"wait for it to end; its lease ends in {left / 60:.0f} min if nothing renews it"
    )
