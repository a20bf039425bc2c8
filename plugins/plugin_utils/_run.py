# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Which run this is: the same answer in every task and on every fork, with nothing kept anywhere.

It follows from the ansible-playbook process itself: its machine, its pid, and when it started, in ticks since the boot.
No time of day is in it: clocks are set, also in the middle of a run.
"""

from __future__ import annotations

import calendar
import getpass
import hashlib
import multiprocessing
import os
import socket
import time
import typing as t

from ..module_utils import _command, _files, _process

_MACHINE_ID = "/etc/machine-id"


def this_run() -> dict[str, t.Any]:
    """Identity of the run: C(upgrade_id), and who runs it where."""
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent is not None and parent.pid else os.getpid()
    process, origin = identity(pid) or {"pid": pid, "start_ticks": 0, "boot": ""}, _origin()
    seed = f"{process['boot'] or origin} {origin.rpartition(' ')[2]} {pid} {process['start_ticks']}"
    return {
        "upgrade_id": f"run-{hashlib.sha256(seed.encode()).hexdigest()[:12]}",
        "user": _user(),
        "controller": socket.gethostname(),
        "job": os.environ.get("JOB_ID") or os.environ.get("AWX_JOB_ID") or "",
        "origin": origin,
        **process,
        "dead": [],
    }


def is_dead(lease: dict[str, t.Any], run: dict[str, t.Any]) -> bool:
    """Whether the run that holds a lease is known to be dead: it was a process of this machine, and is gone.

    A run on another machine, or in another container, is never known to be dead. Neither is one whose process is
    hidden from this user, as by C(hidepid).
    """
    if not lease.get("pid") or lease.get("origin") != run["origin"]:
        return False
    return lease.get("boot") != run["boot"] or not _lives(lease)


def _lives(lease: dict[str, t.Any]) -> bool:
    try:
        os.kill(lease["pid"], 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # there is one
    process = identity(lease["pid"])
    if process is None:
        return True
    if process["start_ticks"] != lease.get("start_ticks"):
        return False
    return not os.path.isdir(_process.PROC) or _process.is_alive(process)


def identity(pid: int) -> dict[str, t.Any] | None:
    """What tells a process from all others: C(pid), C(start_ticks), C(boot). None if it can't be seen."""
    if not os.path.isdir(_process.PROC):
        return _identity_by_ps(pid)
    try:
        return _process.identity(pid)
    except (OSError, ValueError, IndexError):
        return None


def _identity_by_ps(pid: int) -> dict[str, t.Any] | None:
    """The same where there is no /proc. Such a kernel keeps the time of day at which a process started, and doesn't
    change it when its clock is set."""
    environment = dict(os.environ, LC_ALL="C", TZ="UTC")
    shown = _command.run(["ps", "-o", "lstart=", "-p", str(pid)], env=environment).out.strip()
    return {"pid": pid, "start_ticks": calendar.timegm(time.strptime(shown)), "boot": ""} if shown else None


def _origin() -> str:
    """The machine, and on Linux the process namespace: pids mean something only within both.

    Where the machine has no id, its boot stands for it: machines of one name are not to be taken for each other.
    """
    machine = _files.read_text(_MACHINE_ID).strip() or _files.read_text("/proc/sys/kernel/random/boot_id").strip()
    name = hashlib.sha256(f"observability.stack {machine}".encode()).hexdigest()[:16]  # machine-id(5): never as it is
    try:
        return f"{socket.gethostname()} {name} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {name}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a uid that has no name
        return str(os.getuid())
