# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Of many threads, forks and runs that want the same, one does it and the others wait for it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import typing as t

from ..module_utils import _deadline
from . import _owned


@contextlib.contextmanager
def one_at_a_time(path: str, *, seconds: float = 7200) -> t.Iterator[None]:
    """Wait for the process that does the same. The kernel ends the lock with its holder, however that dies.

    :param path: a file of the lock's own, in a directory that is there. It is created, and never removed: two could
        hold it otherwise.
    :param seconds: to wait. A holder that is stopped, or isn't one of ours, keeps the lock without end.
    :raises InputError: if it belongs to somebody else, who could hold it for ever.
    :raises OSError: if another process still holds it then.
    """
    with _owned.opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        try:
            _deadline.within(seconds, lambda: fcntl.flock(descriptor, fcntl.LOCK_EX))
        except TimeoutError as exc:
            why = f"another process holds it for longer than {seconds:g} s: 'fuser' on this file tells which"
            raise OSError(errno.ETIMEDOUT, why, path) from exc
        yield
