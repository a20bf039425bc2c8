# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Files and directories on the controller that nobody but root and the operator can change.

What another user can put into a directory, the controller does not read back: it would carry it to all hosts, as root.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import stat
import typing as t

from ..module_utils._errors import InputError

_CHUNK = 1 << 20
_MOST_LINKS = 40
_ACL = "system.posix_acl_access"


def private_directories(top: str, *names: str) -> list[str]:
    """Create directories of mode 0700 below a cache directory, or check those that are there: the operator's own.

    :raises InputError: if another user owns one of them, or can write to it or to a directory above it; or if it is a
        symbolic link. C(input.cache_dir).
    :raises OSError: if one can't be created.
    """
    top = os.path.abspath(top)
    paths = [os.path.join(top, name) for name in names]
    why = changeable(top)
    if why is None:
        with contextlib.suppress(FileExistsError):
            os.makedirs(top, mode=0o700)
        for path in paths:
            os.makedirs(path, mode=0o700, exist_ok=True)
        why = next(filter(None, (changeable(path) or _not_own_directory(path) for path in (top, *paths))), None)
    if why is not None:
        raise InputError(
            f"{top} is not used as a cache: {why}, so that somebody else could have put something into it. Find out "
            "who did, and remove it; or set upgrade_cache_dir to a directory that only you can write to",
            key="input.cache_dir",
        )
    return paths


def _not_own_directory(path: str) -> str | None:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        return f"{path} is a symbolic link, or no directory"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to user {_user(status.st_uid)}, not to {_user(os.geteuid())}"
    return f"{path} can be written by others" if _is_written_by_others(path, status) else None


def changeable(path: str) -> str | None:
    """Why somebody else than root and the operator could change what a path leads to; none if nobody else can.

    Each directory on the way is looked at, and each symbolic link with the directories on the way to where it leads.
    In a directory with the sticky bit, as /tmp, others can't replace what isn't theirs.
    """
    for entry, status in _way(os.path.abspath(path)):
        if status.st_uid not in (0, os.geteuid()):
            return f"{entry} belongs to user {_user(status.st_uid)}"
        if stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
            continue
        if _is_written_by_others(entry, status):
            return f"{entry} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _is_written_by_others(path: str, status: os.stat_result) -> bool:
    by_group = status.st_mode & stat.S_IWGRP and not _is_own_group(path, status.st_gid)
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _way(path: str) -> t.Iterator[tuple[str, os.stat_result]]:
    """The directories and links that a path leads through, as the kernel goes; it ends where something isn't there."""
    names, here, links = path.split("/")[::-1], "/", 0
    yield here, os.lstat(here)
    while names:
        name = names.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        entry = os.path.join(here, name)
        try:
            status = os.lstat(entry)
        except (FileNotFoundError, NotADirectoryError):
            return
        if any(names) and not (stat.S_ISLNK(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return
        yield entry, status
        if stat.S_ISLNK(status.st_mode):
            target, links = os.readlink(entry), links + 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            names.extend(target.split("/")[::-1])
            here = "/" if target.startswith("/") else here
        else:
            here = entry


def _is_own_group(path: str, gid: int) -> bool:
    """Whether nobody but root and the operator is in the group that may write: root's, or a user's private one."""
    with contextlib.suppress(OSError, AttributeError):  # only Linux has this call
        if os.getxattr(path, _ACL, follow_symlinks=False):
            return False  # the bits of the group are those of everybody whom the list names
    try:
        group, name = grp.getgrgid(gid), _user(os.geteuid())
        private = gid == 0 or (gid == pwd.getpwuid(os.geteuid()).pw_gid and group.gr_name == name)
    except KeyError:
        return False
    return private and set(group.gr_mem) <= {"root", name}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# -- files in such a directory ------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str, flags: int = os.O_RDONLY) -> t.Iterator[int]:
    """A descriptor of a file in the operator's own directory: a regular file, his own, and no symbolic link.

    :param flags: those of open(); with O_CREAT it is made with mode 0600.
    :raises InputError: if it is anything else. C(input.cache_dir).
    :raises OSError: if it isn't there or can't be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _foreign(path, "it is a symbolic link, or no regular file") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _foreign(path, "it is no regular file")
        if status.st_uid != os.geteuid():
            raise _foreign(path, f"it belongs to user {_user(status.st_uid)}")
        if _is_written_by_others(path, status):
            raise _foreign(path, f"others can write to it (mode {stat.S_IMODE(status.st_mode):04o})")
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: str) -> bytes:
    """The content of a file of the operator's own; errors as those of C(opened)."""
    with opened(path) as descriptor, open(descriptor, "rb", closefd=False) as source:
        return source.read()


def sha256_or_none(path: str) -> str | None:
    """The sha256 of a file of the operator's own; none if it isn't there. Errors as those of C(opened)."""
    digest = hashlib.sha256()
    try:
        with opened(path) as descriptor:
            while piece := os.read(descriptor, _CHUNK):
                digest.update(piece)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def _foreign(path: str, why: str) -> InputError:
    return InputError(
        f"{path} is not used: {why}. It must be a regular file that belongs to {_user(os.geteuid())}, and that nobody "
        "else can write to. Look at who put it there, remove it, and run again",
        key="input.cache_dir",
    )
