# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Which run this is: the same answer in every task and on every fork, with nothing kept anywhere.

It follows from the ansible-playbook process itself: its machine, its pid, and when it started.
"""

from __future__ import annotations

import getpass
import hashlib
import multiprocessing
import os
import socket
import time
import typing as t

from ..module_utils import _command, _process


def this_run() -> dict[str, t.Any]:
    """Identity of the run: C(upgrade_id), and who runs it where."""
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent is not None and parent.pid else os.getpid()
    begun, origin = started(pid), _origin()
    seed = hashlib.sha256(f"{origin} {pid} {begun}".encode()).hexdigest()
    return {
        "upgrade_id": f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(begun))}-{seed[:6]}",
        "user": _user(),
        "controller": socket.gethostname(),
        "job": os.environ.get("JOB_ID") or os.environ.get("AWX_JOB_ID") or "",
        "origin": origin,
        "pid": pid,
        "started": begun,
        "dead": [],
    }


def is_dead(lease: dict[str, t.Any], run: dict[str, t.Any]) -> bool:
    """Whether the run that holds a lease is known to be dead: it was a process of this machine, and is gone.

    A run on another machine, or in another container, is never known to be dead.
    """
    if not lease.get("pid") or lease.get("origin") != run["origin"]:
        return False
    return abs(started(lease["pid"]) - (lease.get("started") or 0)) > 1


def started(pid: int) -> float:
    """When a process started, in seconds since the epoch; 0 if there is none."""
    return _process.started(pid) if os.path.isdir(_process.PROC) else _started_by_ps(pid)


def _started_by_ps(pid: int) -> float:
    done = _command.run(["ps", "-o", "lstart=", "-p", str(pid)], env=dict(os.environ, LC_ALL="C"))
    return time.mktime(time.strptime(done.out.strip())) if done.out.strip() else 0.0


def _origin() -> str:
    """The machine, and on Linux the process namespace: pids mean something only within both."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a uid that has no name
        return str(os.getuid())
