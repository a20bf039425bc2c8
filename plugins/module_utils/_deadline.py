# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. One deadline over something that waits in many places: names, connections, handshakes, each read, a file."""

from __future__ import annotations

import ctypes
import threading
import typing as t

T = t.TypeVar("T")


def within(seconds: float, exchange: t.Callable[[], T]) -> T:
    """What a function returns, or raises.

    The time-out of a socket begins again with each byte that comes, so a peer that sends one now and then is waited for
    without end, and the look-up of a name has no time-out at all. So the function runs in a thread of its own. When the
    time is over, the thread is told to end, and nobody waits for it: it may share nothing with the caller, and its
    sockets need time-outs of their own.

    :param seconds: for the whole of it.
    :raises TimeoutError: if it takes longer.
    """
    outcome: list[tuple[bool, t.Any]] = []
    over = threading.Event()

    def work() -> None:
        try:
            outcome.append((True, exchange()))
        except SystemExit:
            pass
        except Exception as exc:  # noqa: BLE001  # pylint: disable=broad-exception-caught  # raised again below
            outcome.append((False, exc))
        finally:
            over.set()

    thread = threading.Thread(target=work, name="exchange", daemon=True)
    thread.start()
    try:
        if not over.wait(max(seconds, 0.0)):
            raise TimeoutError(f"timed out: it takes longer than {seconds:g} s")
    finally:
        if not over.is_set():
            # It ends before its next instruction: at the next byte of a drip, in the middle of a flood. Of SystemExit
            # alone Python prints nothing, wherever in a thread it is raised.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
    ended, value = outcome[0]
    if not ended:
        raise value
    return t.cast("T", value)
