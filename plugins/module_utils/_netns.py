# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The network that a process has, which may be none of ours."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import typing as t

from ._errors import HostError, UpgradeError

_CLONE_NEWNET = 0x40000000
OURS = "self"


def name(pid: int | str) -> str:
    """A name of the network that a process has, the same for all that share it; empty if it can't be seen."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def join(pid: int) -> None:
    """Give the calling thread, and none but it, the network of a process for as long as the thread lives. Nothing is
    done where that is its own network already, or can't be seen.

    :param pid: 0 for none.
    :raises OSError: if that network can't be entered.
    """
    if pid and name(pid) not in ("", name("thread-self")):
        _enter(pid)


def within(pid: int, body: t.Callable[[], t.Any], *, seconds: float = 3600) -> t.Any:
    """What a function returns that is called in the network of another process; it must be JSON data.

    It is called in a child of this process, whose own network stays what it is.

    :param seconds: until the child is ended, whatever it waits for.
    :raises HostError: if that network can't be entered, or the function fails or takes longer.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        _in_child(pid, body, writing)
    os.close(writing)
    with open(reading, "rb") as source:
        content = source.read()
    _pid, status = os.waitpid(child, 0)
    late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    error = f"no answer within {seconds:g} s" if late else "it ended without a word"
    answer = {"error": error} if late or not content else json.loads(content)
    if "error" in answer:
        raise HostError(f"the network of process {pid} can't be used: {answer['error']}", key="host.network")
    return answer["value"]


def _in_child(pid: int, body: t.Callable[[], t.Any], writing: int) -> t.NoReturn:
    try:
        try:
            _enter(pid)
            answer = {"value": body()}
        except (OSError, UpgradeError) as exc:
            answer = {"error": str(exc)}
        with open(writing, "wb") as target:
            target.write(json.dumps(answer).encode())
    finally:
        os._exit(0)  # nothing of the parent's may run here: its handlers, its buffers


def _enter(pid: int) -> None:
    """Python 3.9 has no os.setns."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if library.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
