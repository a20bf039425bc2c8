# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Files that are whole or not there: hashing, durable writing, and replacing with everything carried over."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import stat
import typing as t

from ._errors import HostError

_CHUNK = 1 << 20
_TEMPORARY = ".upgrade-new"


class Attributes(t.NamedTuple):
    """What a file has beside its content. Capabilities, ACLs and the SELinux context are extended attributes."""

    uid: int
    gid: int
    mode: int
    xattrs: dict[str, bytes]

    def to_dict(self) -> dict[str, t.Any]:
        xattrs = {name: base64.b64encode(value).decode() for name, value in sorted(self.xattrs.items())}
        return {"uid": self.uid, "gid": self.gid, "mode": f"{self.mode:04o}", "xattrs": xattrs}

    @classmethod
    def from_dict(cls, data: dict[str, t.Any]) -> Attributes:
        xattrs = {name: base64.b64decode(value) for name, value in data["xattrs"].items()}
        return cls(int(data["uid"]), int(data["gid"]), int(data["mode"], 8), xattrs)


def sha256_file(path: str) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        for chunk in iter(lambda: source.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_or_none(path: str) -> str | None:
    """The sha256 of a file, or None if there is none."""
    try:
        return sha256_file(path)
    except FileNotFoundError:
        return None


def read_attributes(path: str) -> Attributes:
    """Owner, mode and extended attributes of the file that a path leads to."""
    status = os.stat(path)
    xattrs: dict[str, bytes] = {}
    with contextlib.suppress(OSError):  # a file system without extended attributes has none to carry over
        xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return Attributes(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), xattrs)


def apply_attributes(descriptor: int, attributes: Attributes) -> None:
    """Owner first, then mode, then extended attributes: a change of owner drops capabilities and setuid bits."""
    os.fchown(descriptor, attributes.uid, attributes.gid)
    os.fchmod(descriptor, attributes.mode)
    for name, value in attributes.xattrs.items():
        os.setxattr(descriptor, name, value)


def fsync_directory(path: str) -> None:
    """Make names in a directory durable: without it a renamed file may come back as the old one after a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_private_directory(path: str) -> None:
    """Create a directory of mode 0700, or check that the one there is ours: a real directory, of our own user."""
    try:
        os.makedirs(path, mode=0o700)
        os.chmod(path, 0o700)
    except FileExistsError:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise HostError(
                f"{path} must be a directory that belongs to user {os.geteuid()}, and no symbolic link: "
                "move away what is there",
                key="files.not_private",
            ) from None
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.chmod(path, 0o700)


def temporary_beside(path: str) -> str:
    """The name under which a file's successor is prepared: beside it, so that a rename is enough, and always the same,
    so that what a killed run left is replaced by the next. The host's lock keeps two runs apart."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}{_TEMPORARY}")


def write_durably(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Write a whole file or none: a reader, and the next boot, see the old content or the new."""
    temporary = temporary_beside(path)
    with _create(temporary, mode) as descriptor:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    os.rename(temporary, path)
    fsync_directory(os.path.dirname(path))


def prepare_copy(source: str, temporary: str, *, attributes: Attributes, sha256: str | None = None) -> str:
    """Copy a file to a temporary name with the given attributes, durable but not in place yet. Returns its sha256.

    :param sha256: what the content must be. It is checked on the bytes that were written.
    :raises HostError: if the content is something else; the temporary file is gone then.
    """
    digest = hashlib.sha256()
    with _create(temporary, 0o600) as descriptor:
        with open(source, "rb") as original:
            for chunk in iter(lambda: original.read(_CHUNK), b""):
                digest.update(chunk)
                _write_all(descriptor, chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise HostError(
                f"{source} has sha256 {digest.hexdigest()}, but {sha256} was expected: it was changed or damaged",
                key="files.checksum",
            )
        apply_attributes(descriptor, attributes)
        os.fsync(descriptor)
    return digest.hexdigest()


def remove_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@contextlib.contextmanager
def naming(path: str) -> t.Iterator[None]:
    """Let an error of the operating system tell which file it is about: of a descriptor it tells a number, or none."""
    try:
        yield
    except OSError as exc:
        if not isinstance(exc.filename, (str, bytes)):
            exc.filename = path
        raise


@contextlib.contextmanager
def _create(path: str, mode: int) -> t.Iterator[int]:
    """A new file of our own, never one that is there or a link; gone again if what is done with it fails."""
    remove_if_there(path)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with naming(path):
            os.fchmod(descriptor, mode)
            yield descriptor
    except BaseException:
        remove_if_there(path)
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_text(path: str, *, most: int = 4 << 20) -> str:
    """The text in a file, as far as it can be read; empty if it can't be.

    :param most: characters; what comes after them is left out.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read(most)
    except OSError:
        return ""


def bytes_below(path: str) -> int:
    """Bytes of a file, or of all files below a directory; nothing of what isn't there, or is on its way out."""
    if os.path.isdir(path):
        return sum(_size(os.path.join(top, name)) for top, _names, files in os.walk(path) for name in files)
    return _size(path)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def explain(exc: OSError) -> str:
    """What an operating system error means to an operator, with the file's name."""
    hint = {
        errno.ENOSPC: "; free some space there and run again",
        errno.EROFS: "; the file system is mounted read-only",
        errno.EACCES: "; run as root (become: true)",
        errno.EPERM: "; run as root (become: true)",
    }.get(exc.errno or 0, "")
    return f"{exc.filename or 'operating system'}: {exc.strerror or exc}{hint}"
