# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Of many threads, forks and runs that want the same, one does it and the others wait for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from . import _owned


@contextlib.contextmanager
def one_at_a_time(path: str) -> t.Iterator[None]:
    """Wait for whoever does the same. The kernel ends the lock with its holder, however that dies.

    :param path: a file of the lock's own, in a directory that is there. It is created, and never removed: two could
        hold it otherwise.
    :raises InputError: if it belongs to somebody else, who could hold it for ever.
    """
    with _owned.opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
