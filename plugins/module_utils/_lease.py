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


def enter(
    lease: Lease, run: dict[str, t.Any] | None, *, now: float, seconds: float, boot_id: str, acquire: bool = False
) -> Lease:
    """The lease after a module has come in: renewed or taken for its run, or as it was if it belongs to none.

    :param run: ``upgrade_id``, ``user``, ``controller``, ... of the run; ``dead`` names runs that are known to be dead.
    :param acquire: take a lease that nobody has. Otherwise only the run's own is renewed, even one that has ended: a
        module that comes late, after another run or the host itself went on, is refused.
    :raises LockedError: naming who holds it, since when, and how to go on.
    """
    if run is None or (acquire and not is_of(lease, run)):
        if holder(lease, now=now, dead=(run or {}).get("dead") or ()) is not None:
            raise LockedError(describe(lease, now=now))
    elif not is_of(lease, run):
        raise LockedError(_lost(lease, run, now=now), key="lock.lost")
    if run is None:
        return lease
    taken = not is_of(lease, run)
    return {
        **{key: run.get(key) for key in _FROM_RUN},
        "token": lease.get("token", 0) + taken,
        "acquired": now if taken else lease["acquired"],
        "renewed": now,
        "expires": now + seconds,
        "boot_id": boot_id,
    }


def is_of(lease: Lease, run: dict[str, t.Any]) -> bool:
    """Whether a lease is that of a run, still or once."""
    return bool(lease.get("upgrade_id") == run["upgrade_id"])


def name(lease: Lease) -> str:
    """A lease's run, as people know it."""
    user, controller = lease.get("user") or "somebody", lease.get("controller") or "?"
    return f"upgrade {lease['upgrade_id']} of {user} on {controller}"


def told(lease: Lease, *, now: float, held: bool) -> str:
    """Who has the host or, if it isn't held any more, has left it so."""
    if not held:
        ended = max(0, now - lease.get("renewed", now)) / 60
        return f"{name(lease)}, which ended without giving the host back (seen last {ended:.0f} min ago)"
    since, left = max(0, now - lease.get("acquired", now)), max(0, lease.get("expires", now) - now)
    return f"{name(lease)}, since {since / 60:.0f} min; it ends in {left / 60:.0f} min if nothing renews it"


def _lost(lease: Lease, run: dict[str, t.Any], *, now: float) -> str:
    """Why a run that had the host, or never began on it, must not go on."""
    since = max(0, now - lease.get("acquired", now)) / 60
    who = f"{name(lease)} has had it for {since:.0f} min" if lease.get("upgrade_id") else "nobody has it now"
    return (
        f"upgrade {run['upgrade_id']} doesn't have this host, or not any more: {who}. It was taken over, released, or "
        "undone by the host itself meanwhile, or never begun. This run must not go on here; run again when the host "
        "is free, which works out from what is there now what is left to do"
    )


def describe(lease: Lease, *, now: float) -> str:
    """Who holds the lease, for whom it stands in the way."""
    since, left = max(0, now - lease.get("acquired", now)), max(0, lease.get("expires", now) - now)
    return (
        f"this host is being upgraded by {lease.get('user') or 'somebody'} on {lease.get('controller') or '?'} "
        f"(upgrade {lease['upgrade_id']}, since {since / 60:.0f} min): "
        f"wait for it to end; its lease ends in {left / 60:.0f} min if nothing renews it"
    )
