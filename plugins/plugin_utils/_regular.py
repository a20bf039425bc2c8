# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Reading a file that the operator names, and that may be something else: a FIFO, a device, a socket."""

from __future__ import annotations

import errno
import os
import stat
import typing as t


def opened(path: str) -> t.BinaryIO:
    """A regular file, to be read. Nothing else is waited for, and nothing is changed by opening it.

    :raises OSError: if it can't be read, or is no regular file. It names the path.
    """
    # O_NONBLOCK: to open a FIFO without it waits for somebody who writes. O_NOCTTY: a terminal must not become ours.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return open(descriptor, "rb")


def read(path: str, *, most: int) -> bytes:
    """The content of a regular file.

    :param most: bytes that it may have.
    :raises OSError: as C(opened) does, and if it is larger.
    """
    with opened(path) as source:
        content = source.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes", path)
    return content
