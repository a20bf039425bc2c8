# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. Who upgrades a host now.

A run is many short processes on a host, so no lock of the kernel can span it. A lease does: it names the run and ends
by itself. Every module of the run renews it; another run is refused until it ends, is released, or is known to be dead.
A lease without C(upgrade_id) is held by no run. Content that can't be read as a lease may have been one, so it counts
as held until somebody releases it by force.
"""

from __future__ import annotations

import json
import typing as t

from . import _schema
from ._errors import InputError, LockedError

LEASE_SECONDS = 900
"""How long a lease lasts after the last module of its run touched it."""

SIZE = 1024
"""Bytes of the lock file: always as many, so that one write replaces all of what was there."""

UNREADABLE = "unreadable"
"""The key of a lease that isn't one; its value tells why."""

_TEXTS = ("user", "controller", "job", "origin", "boot", "boot_id")
_CUT = 16  # characters by which a text is shortened at once; three come back as dots
_FROM_RUN = ("upgrade_id", "user", "controller", "job", "origin", "pid", "start_ticks", "boot")

if t.TYPE_CHECKING:
    Lease = dict[str, t.Any]


def decode(data: bytes) -> Lease:
    """The lease in a lock file; empty if the file is, or has nothing but padding. Anything else that is no lease is
    told under C(UNREADABLE), and counts as held."""
    text = data.strip(b"\0 \n")
    if not text:
        return {}
    try:
        lease = _schema.loads(text)
    except ValueError as exc:
        return _unreadable(str(exc))
    held = isinstance(lease, dict) and lease.get("upgrade_id") is not None
    problem = _schema.problem(lease, _schema.HELD_LEASE if held else _schema.LEASE)
    if not problem and lease.get(UNREADABLE) is not None:
        problem = "it says so itself"
    return _unreadable(problem) if problem else t.cast("Lease", lease)


def _unreadable(why: str) -> Lease:
    times = dict.fromkeys(("acquired", "renewed", "expires"), 0)
    return {"upgrade_id": UNREADABLE, "user": None, "controller": None, "token": 0, **times, UNREADABLE: why}


def encode(lease: Lease) -> bytes:
    """The lease as the lock file's whole content. Where it is too long, its longest texts are shortened.

    :raises InputError: if that isn't enough.
    """
    shown = dict(lease)
    while len(text := json.dumps(shown, sort_keys=True, ensure_ascii=False).encode()) >= SIZE:
        longest = max(_TEXTS, key=lambda name: len(shown.get(name) or ""))
        kept = (shown.get(longest) or "")[:-_CUT]
        if not kept:
            raise InputError("the run can't be written into the lock file: its upgrade_id is too long", key="input.run")
        shown[longest] = f"{kept}..."
    return text.ljust(SIZE - 1) + b"\n"


def released(lease: Lease) -> Lease:
    """A lease that no run holds. It still tells how often it was taken, and the last revision of the host's state."""
    return {"token": lease.get("token", 0), **{key: lease[key] for key in ("revision",) if key in lease}}


def present(lease: Lease, *, now: float, uptime: float, boot_id: str) -> float:
    """The time of day by which a lease is judged: when it was renewed, and what has passed since then.

    That is measured by the host's clock that never goes back nor jumps. After a reboot, it is the time since the boot:
    the lease may end later than it would have, never earlier.

    :param now: seconds since the epoch, for a lease that doesn't say when it was renewed by that other clock.
    :param uptime: seconds since the host's kernel started, also those in which it slept (``CLOCK_BOOTTIME``).
    :param boot_id: the host's present boot.
    """
    if lease.get("uptime") is None or lease.get("renewed") is None:
        return now
    begun = lease["uptime"] if lease.get("boot_id") == boot_id else 0.0
    return float(lease["renewed"]) + max(0.0, uptime - begun)


def holder(lease: Lease, *, now: float, dead: t.Collection[str] = ()) -> str | None:
    """The upgrade that has the host, unless its lease has ended or it is known to be dead."""
    upgrade_id = lease.get("upgrade_id")
    if UNREADABLE in lease:
        return UNREADABLE
    return None if upgrade_id in dead or lease.get("expires", 0) <= now else upgrade_id


def enter(
    lease: Lease,
    run: dict[str, t.Any] | None,
    *,
    now: float,
    uptime: float,
    seconds: float,
    boot_id: str,
    acquire: bool = False,
) -> Lease:
    """The lease after a module has come in: renewed or taken for its run, or as it was if it belongs to none.

    :param run: ``upgrade_id``, ``user``, ``controller``, ... of the run; ``dead`` names runs that are known to be dead.
    :param now: seconds since the epoch; ``uptime`` and ``boot_id`` as for C(present).
    :param acquire: take a lease that nobody has. Otherwise only the run's own is renewed, even one that has ended: a
        module that comes late, after another run or the host itself went on, is refused.
    :raises LockedError: naming who holds it, since when, and how to go on.
    """
    seen = present(lease, now=now, uptime=uptime, boot_id=boot_id)
    if run is None or (acquire and not is_of(lease, run)):
        if holder(lease, now=seen, dead=(run or {}).get("dead") or ()) is not None:
            raise LockedError(describe(lease, now=seen))
    elif not is_of(lease, run):
        raise LockedError(lost(lease, run, now=seen), key="lock.lost")
    if run is None:
        return lease
    taken = not is_of(lease, run)
    renewed = now if taken else seen
    return {
        **{key: run.get(key) for key in _FROM_RUN},
        **{key: lease[key] for key in ("revision",) if key in lease},
        "token": lease.get("token", 0) + taken,
        "acquired": now if taken else lease["acquired"],
        "renewed": renewed,
        "expires": renewed + seconds,
        "uptime": uptime,
        "boot_id": boot_id,
    }


def is_of(lease: Lease, run: dict[str, t.Any]) -> bool:
    """Whether a lease is that of a run, still or once."""
    return bool(lease.get("upgrade_id") == run["upgrade_id"]) and UNREADABLE not in lease


def name(lease: Lease) -> str:
    """A lease's run, as people know it."""
    if UNREADABLE in lease:
        return f"a run that can't be told: the lock file is no lease ({lease[UNREADABLE]})"
    user, controller = lease.get("user") or "somebody", lease.get("controller") or "?"
    return f"upgrade {lease['upgrade_id']} of {user} on {controller}"


def told(lease: Lease, *, now: float, held: bool) -> str:
    """Who has the host or, if it isn't held any more, has left it so."""
    if UNREADABLE in lease:
        return name(lease)
    if not held:
        ended = max(0, now - lease.get("renewed", now)) / 60
        return f"{name(lease)}, which ended without giving the host back (seen last {ended:.0f} min ago)"
    since, left = max(0, now - lease.get("acquired", now)), max(0, lease.get("expires", now) - now)
    return f"{name(lease)}, since {since / 60:.0f} min; it ends in {left / 60:.0f} min if nothing renews it"


def lost(lease: Lease, run: dict[str, t.Any], *, now: float, cause: str = "") -> str:
    """Why a run that had the host, or never began on it, must not go on.

    :param cause: what the host's state tells of it, as a sentence without its end.
    """
    since = max(0, now - lease.get("acquired", now)) / 60
    who = "nobody has it now"
    if lease.get("upgrade_id"):
        who = name(lease) if UNREADABLE in lease else f"{name(lease)} has had it for {since:.0f} min"
    known = cause or (
        "It was taken over, released, or undone by the host's rollback watchdog meanwhile, or never begun"
    )
    return (
        f"upgrade {run['upgrade_id']} doesn't have this host, or not any more: {who}. {known[:1].upper()}{known[1:]}. "
        "This run must not go on here; run again when the host is free, which works out from what is there now what is "
        "left to do"
    )


def describe(lease: Lease, *, now: float) -> str:
    """Who holds the lease, for whom it stands in the way."""
    if UNREADABLE in lease:
        return (
            f"this host may be upgraded by {name(lease)}. See that no upgrade of this host runs, and release it with "
            "the playbook unlock and upgrade_unlock_force"
        )
    since, left = max(0, now - lease.get("acquired", now)), max(0, lease.get("expires", now) - now)
    return (
        f"this host is being upgraded by {lease.get('user') or 'somebody'} on {lease.get('controller') or '?'} "
        f"(upgrade {lease['upgrade_id']}, since {since / 60:.0f} min): "
        f"wait for it to end; its lease ends in {left / 60:.0f} min if nothing renews it"
    )
