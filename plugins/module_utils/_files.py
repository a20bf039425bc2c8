# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The one place where files of a host are opened, written, renamed, given away and removed.

A path is walked one directory at a time, each opened from the one before, as systemd does (CHASE_SAFE). Up to the first
directory that a user other than root can write, a symbolic link is root's word, and is followed. Such a directory is
unsafe: below it no link is followed, and nothing of a file but its content is taken over. What is read is a regular
file, by the descriptor that was looked at; what is written is whole or not there.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import functools
import glob
import grp
import hashlib
import itertools
import os
import pwd
import shutil
import stat
import struct
import typing as t

from ._errors import HostError

_CHUNK = 1 << 20
_TEMPORARY = ".upgrade-new"
_LINKS = 40
_LARGEST = 4 << 30
"""Bytes of a file that are read at most: a sparse file of a service could be of any size."""

_MOST_ENTRIES = 200_000
_DEEPEST = 64
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EMLINK, errno.EFBIG)
_SETID = stat.S_ISUID | stat.S_ISGID
_PROTECTED = {0x10: "immutable", 0x20: "append-only"}
"""What of the flags of a file (ioctl_iflags(2)) keeps it, and the names in a directory, as they are."""

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Attributes(t.NamedTuple):
    """What a file has beside its content. Capabilities, ACLs and the SELinux context are extended attributes. Setuid
    and setgid bits are left out: they are never carried over."""

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
        return cls(int(data["uid"]), int(data["gid"]), int(data["mode"], 8) & ~_SETID, xattrs)


class Unsafe(t.NamedTuple):
    """The first directory on the way to a file that a user other than root can write."""

    path: str
    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"{self.path} (owner {self.uid}, group {self.gid}, mode {self.mode:04o})"


class Location:
    """A name in a directory that is open: what is done to it is done in that very directory, whatever the directory's
    own name leads to meanwhile.

    :ivar descriptor: of the directory. It was opened with O_PATH.
    :ivar path: the path, without the links that were followed.
    :ivar unsafe: the first directory on the way that a user other than root can write; None if root controls them all.
    :ivar links: each link that was followed, with its target.
    """

    def __init__(self, descriptor: int, name: str, path: str, unsafe: Unsafe | None, links: tuple[str, ...]) -> None:
        self.descriptor = descriptor
        self.name = name
        self.path = path
        self.unsafe = unsafe
        self.links = links

    def sibling(self, path: str) -> Location:
        """Another name in the same directory.

        :param path: whose last part is the name.
        """
        name = os.path.basename(path)
        return Location(self.descriptor, name, os.path.join(os.path.dirname(self.path), name), self.unsafe, self.links)

    def beside(self) -> Location:
        """Where the successor of this file is prepared; see C(temporary_beside)."""
        return self.sibling(temporary_beside(self.path))

    def within(self, found: Found) -> Location:
        """The name of something below this directory, in the directory that C(entries_below) has open for it."""
        unsafe = self.unsafe or _unsafe(self.path, found.directory)
        return Location(found.directory, found.name, os.path.join(self.path, found.path), unsafe, self.links)

    def status(self) -> os.stat_result:
        """What is there, a link as itself."""
        with _about(self.path):
            return os.stat(self.name, dir_fd=self.descriptor, follow_symlinks=False)

    def link(self) -> str | None:
        """What a symbolic link leads to; None if it is something else, or nothing."""
        try:
            return os.readlink(self.name, dir_fd=self.descriptor)
        except OSError:
            return None

    @contextlib.contextmanager
    def opened(self) -> t.Iterator[int]:
        """The regular file there, for reading. Nothing else is opened, and nothing waits.

        :raises OSError: if it is something else. In an unsafe directory a file must also have one name only: it could
            be somebody else's secret, or what is written to.
        """
        self._check(self.status())
        with _about(self.path):
            descriptor = os.open(self.name, os.O_RDONLY | _FILE, dir_fd=self.descriptor)
        try:
            self._check(os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)

    def _check(self, status: os.stat_result) -> None:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind:
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", self.path)
        if self.unsafe and status.st_nlink > 1:
            why = f"it has {status.st_nlink} names (hard links), and users other than root can write {self.unsafe}"
            raise OSError(errno.EMLINK, why, self.path)

    @contextlib.contextmanager
    def created(self, mode: int) -> t.Iterator[int]:
        """A new file, never one that is there or a link; removed again if what is done with it fails."""
        self.remove()
        with _about(self.path):
            descriptor = os.open(self.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _FILE, mode, dir_fd=self.descriptor)
        try:
            with naming(self.path):
                os.fchmod(descriptor, mode)
                yield descriptor
        except BaseException:
            self.remove()
            raise
        finally:
            os.close(descriptor)

    def flags(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Which of C(immutable) and C(append-only) the file is, and its directory. A link has no flags."""
        own: tuple[str, ...] = ()
        with contextlib.suppress(OSError), self.opened() as descriptor:
            own = _flags(descriptor)
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            return own, _flags(directory)
        finally:
            os.close(directory)

    def remove(self) -> None:
        """Remove the file or the link there, if there is one."""
        with _about(self.path), contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.descriptor)

    def rename(self, other: Location) -> None:
        """Give it another name, in place of what has that now."""
        with _about(other.path):
            os.rename(self.name, other.name, src_dir_fd=self.descriptor, dst_dir_fd=other.descriptor)

    def point_to(self, target: str) -> None:
        """Make a symbolic link here."""
        self.remove()
        with _about(self.path):
            os.symlink(target, self.name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Make the names in the directory durable: without it a renamed file may be the old one after a power cut."""
        with _about(os.path.dirname(self.path)):
            descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def carried(self, attributes: Attributes, *, program: bool = True) -> Attributes:
        """What a new file here gets of the attributes of another one. In an unsafe directory that is nothing: a program
        is root's, and any other file belongs to the owner of its directory, and has no more than its permissions.

        :param program: the file is one that is run.
        """
        if self.unsafe is None:
            return attributes
        if program:
            return Attributes(os.geteuid(), os.getegid(), 0o755, {})
        owner = os.fstat(self.descriptor)
        return Attributes(owner.st_uid, owner.st_gid, attributes.mode & 0o666, {})


def _flags(descriptor: int) -> tuple[str, ...]:
    """Which of C(_PROTECTED) a file has; none where its file system knows no flags."""
    # FS_IOC_GETFLAGS: a few architectures have other bits for reading.
    reading = 1 << 30 if os.uname().machine.startswith(("ppc", "mips", "sparc", "alpha")) else 1 << 31
    request = reading | struct.calcsize("l") << 16 | ord("f") << 8 | 1
    try:
        answer = fcntl.ioctl(descriptor, request, bytes(struct.calcsize("l")))
    except OSError:
        return ()
    value = struct.unpack("i", answer[: struct.calcsize("i")])[0]
    return tuple(name for bit, name in _PROTECTED.items() if value & bit)


@contextlib.contextmanager
def located(path: str, *, follow: bool = False, make: bool = False) -> t.Iterator[Location]:
    """Walk to the directory of a file, and keep it open.

    :param follow: also follow a link that is the last part of the path, where root controls its directory.
    :param make: make directories on the way that aren't there, root's and of mode 0755.
    :raises OSError: if a directory isn't there, or if a link stands in an unsafe one: ELOOP.
    """
    walk = _Walk(path, follow=follow, make=make)
    try:
        while walk.rest:
            walk.go_on()
        yield Location(walk.descriptor, walk.name, walk.path(walk.name), walk.unsafe, tuple(walk.links))
    finally:
        os.close(walk.descriptor)


class _Walk:
    """How far the way to a file has been walked."""

    def __init__(self, path: str, *, follow: bool, make: bool, strict: bool = False) -> None:
        if "\0" in path:
            raise OSError(errno.EINVAL, "it has a null character in its path", path.replace("\0", "\\0"))
        self.asked = path
        self.follow = follow
        self.make = make
        self.strict = strict
        self.rest = _parts(path if path.startswith("/") else os.path.join(os.getcwd(), path))
        self.name = "."
        self.links: list[str] = []
        self.descriptor = -1
        self._begin()

    def _begin(self) -> None:
        """Start at the root of the file system: at the beginning, and for a link that leads there."""
        before, self.descriptor = self.descriptor, os.open("/", _WAY)
        if before >= 0:
            os.close(before)
        self.names: list[str] = []
        self.unsafe = _unsafe("/", self.descriptor, strict=self.strict)

    def path(self, name: str) -> str:
        return "/" + "/".join([*self.names, *([name] if name != "." else [])])

    def go_on(self) -> None:
        """Take the next part: enter the directory, or turn to where the link leads."""
        name = self.rest.pop(0)
        is_last = not self.rest
        target = self._link(name) if self.follow or not is_last else None
        if target is not None:
            self.rest[:0] = _parts(target)
            if target.startswith("/"):
                self._begin()
        elif is_last and name != "..":
            self.name = name
        else:
            self._enter(name)

    def _link(self, name: str) -> str | None:
        """Where a link leads; None if it is none.

        :raises OSError: if somebody else could have put it there.
        """
        try:
            status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, self.path(name)) from exc
        if not stat.S_ISLNK(status.st_mode):
            return None
        if self.unsafe:
            raise OSError(
                errno.ELOOP,
                f"it is a symbolic link, which isn't followed, for a user other than root can write {self.unsafe}",
                self.path(name),
            )
        if len(self.links) == _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.asked)
        target = os.readlink(name, dir_fd=self.descriptor)
        self.links.append(f"{self.path(name)} -> {target}")
        return target

    def _enter(self, name: str) -> None:
        with _about(self.path(name)):
            try:
                descriptor = os.open(name, _WAY, dir_fd=self.descriptor)
            except FileNotFoundError:
                if not self.make or self.unsafe:
                    raise
                os.mkdir(name, 0o755, dir_fd=self.descriptor)
                descriptor = os.open(name, _WAY, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = descriptor
        self.names = self.names[:-1] if name == ".." else [*self.names, name]
        self.unsafe = self.unsafe or _unsafe(self.path("."), descriptor, strict=self.strict)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _unsafe(path: str, descriptor: int, *, strict: bool = False) -> Unsafe | None:
    """Whether somebody else can write what is open. A sticky directory is no exception: anybody may put links there.

    Of a user who isn't root, the controller's, the user's own group is the user: most distributions make one for each.

    :param strict: whoever is in its group. Otherwise one without members is nobody, as C(staff) is, whose is
        C(/usr/local) on Debian up to 11.
    """
    status = os.fstat(descriptor)
    others = status.st_mode & stat.S_IWOTH
    if status.st_mode & stat.S_IWGRP and not (os.geteuid() != 0 and status.st_gid == os.getegid()):
        others |= stat.S_IWGRP if strict or _has_members(status.st_gid) or _has_list(descriptor) else 0
    if status.st_uid in (0, os.geteuid()) and not others:
        return None
    return Unsafe(path, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


@functools.lru_cache(maxsize=64)
def _has_members(gid: int) -> bool:
    """Whether a user other than root is in a group, as far as is known here. One without a name may be anybody's."""
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return True
    return bool(members - {"root"}) or any(user.pw_gid == gid and user.pw_uid != 0 for user in pwd.getpwall())


def _has_list(descriptor: int) -> bool:
    """Whether an access control list names further users: the group's permissions are its mask then."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{descriptor}", "system.posix_acl_access"))
    except OSError as exc:
        return exc.errno not in (errno.ENODATA, errno.ENOTSUP)


@contextlib.contextmanager
def _about(path: str) -> t.Iterator[None]:
    """Let an error tell the whole path: the kernel was given a name in a directory only."""
    try:
        yield
    except OSError as exc:
        exc.filename, exc.filename2 = path, None
        raise


@contextlib.contextmanager
def naming(path: str) -> t.Iterator[None]:
    """Let an error of the operating system tell which file it is about: of a descriptor it tells a number, or none."""
    try:
        yield
    except OSError as exc:
        if not isinstance(exc.filename, (str, bytes)):
            exc.filename = path
        raise


def unsafe_directory(path: str, *, strict: bool = False) -> Unsafe | None:
    """The first directory on the way to a file that a user other than root can write, as far as the way goes.

    :param strict: one that its group can write is one, whoever is in the group.
    """
    walk = _Walk(path, follow=True, make=False, strict=strict)
    try:
        with contextlib.suppress(OSError):
            while walk.rest and not walk.unsafe:
                walk.go_on()
        return walk.unsafe
    finally:
        os.close(walk.descriptor)


def chosen_by_others(path: str) -> str:
    """Why a user other than root could decide what a program is; empty if none could, or there is no program."""
    unsafe = unsafe_directory(path)
    if unsafe:
        return f"a user other than root can write {unsafe}"
    try:
        with opened(path) as descriptor:
            own = _unsafe(path, descriptor)
    except FileNotFoundError:
        return ""
    except OSError as exc:
        return explain(exc)
    return f"a user other than root can write {own}" if own else ""


# -- reading --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str) -> t.Iterator[int]:
    """A regular file, for reading. Links are followed as far as root controls their directories."""
    with located(path, follow=True) as place, place.opened() as descriptor:
        yield descriptor


def chunks(descriptor: int, path: str) -> t.Iterator[bytes]:
    """The content of an open file, by pieces.

    :param path: for errors.
    :raises OSError: if it is larger than anything that is upgraded: EFBIG.
    """
    total = 0
    with naming(path):
        for chunk in iter(lambda: os.read(descriptor, _CHUNK), b""):
            total += len(chunk)
            if total > _LARGEST:
                raise OSError(errno.EFBIG, f"it is larger than {_LARGEST >> 30} GiB", path)
            yield chunk


def sha256_file(path: str) -> str:
    """The sha256 of a file's content, in hexadecimal.

    :raises OSError: if there is none, or what is there is no regular file.
    """
    with opened(path) as descriptor:
        return sha256_of(descriptor, path)


def sha256_of(descriptor: int, path: str) -> str:
    """The sha256 of an open file's content, from where it is read on.

    :param path: for errors.
    """
    digest = hashlib.sha256()
    for chunk in chunks(descriptor, path):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_or_none(path: str) -> str | None:
    """The sha256 of a file, or None if there is no regular file that the path safely leads to."""
    try:
        return sha256_file(path)
    except OSError as exc:
        if exc.errno not in _NO_FILE:
            raise
        return None


def is_file(path: str) -> bool:
    """Whether there is a regular file that may be read."""
    try:
        with opened(path):
            return True
    except OSError:
        return False


def matching(pattern: str) -> list[str]:
    """The paths that a pattern of the shell matches, in order; a path without wildcards is itself, whether it is there
    or not."""
    return sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]


def read_bytes(path: str, *, most: int = 4 << 20) -> bytes:
    """The first bytes of a file.

    :param most: bytes; what comes after them is left out.
    :raises OSError: if there is none, or what is there is no regular file.
    """
    with opened(path) as descriptor, naming(path), open(os.dup(descriptor), "rb") as source:
        return source.read(most)


def read_whole(path: str, *, most: int) -> bytes:
    """The content of a file that is refused if it is large.

    :param most: bytes that it may have.
    :raises OSError: if there is none, what is there is no regular file, or it is larger.
    """
    content = read_bytes(path, most=most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes", path)
    return content


def read_start(path: str, size: int) -> bytes:
    """The first bytes of a file; none if it can't be read."""
    try:
        return read_bytes(path, most=size)
    except OSError:
        return b""


def read_text(path: str, *, most: int = 4 << 20) -> str:
    """The text in a file, as far as it can be read; empty if it can't be.

    :param most: bytes; what comes after them is left out.
    """
    return read_start(path, most).decode("utf-8", "replace")


def identity_of(path: str) -> str:
    """What tells the file that a path leads to from any other. It differs as soon as the file, its owner, its mode, its
    attributes, its content or a link on the way to it isn't the same any more.

    :raises OSError: if there is none, or what is there is no regular file.
    """
    with located(path, follow=True) as place, place.opened() as descriptor:
        status = os.fstat(descriptor)
        words = (
            f"device:{status.st_dev} inode:{status.st_ino} owner:{status.st_uid}:{status.st_gid}",
            f"mode:{stat.S_IMODE(status.st_mode):04o} size:{status.st_size}",
            f"modified:{status.st_mtime_ns} changed:{status.st_ctime_ns}",
            f"links:{hashlib.sha256(repr(place.links).encode()).hexdigest()[:16] if place.links else '-'}",
        )
        return " ".join(words)


def _attributes(descriptor: int, status: os.stat_result) -> Attributes:
    xattrs: dict[str, bytes] = {}
    with contextlib.suppress(OSError):  # a file system without extended attributes has none to carry over
        xattrs = {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor)}
    return Attributes(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & ~_SETID, xattrs)


def read_attributes(path: str, *, program: bool = True) -> Attributes:
    """Owner, mode and extended attributes that a file passes on to its successor; see C(Location.carried)."""
    with located(path, follow=True) as place, place.opened() as descriptor:
        return place.carried(_attributes(descriptor, os.fstat(descriptor)), program=program)


def bytes_below(path: str) -> int:
    """Bytes of a file, or of the files below a directory, without links; nothing of what isn't there.

    It ends at as many files, and as deep, as the data of a service goes: a user could make more of them without end.
    """
    total, left = 0, _MOST_ENTRIES
    with contextlib.suppress(OSError), located(path, follow=True) as place:
        status = place.status()
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size if stat.S_ISREG(status.st_mode) else 0
        for found in entries_below(place):
            left -= 1
            total += found.status.st_size if stat.S_ISREG(found.status.st_mode) else 0
            if not left:
                break
    return total


class Found(t.NamedTuple):
    """Something below a directory: where, seen from there, its status, and the open directory it is in."""

    path: str
    status: os.stat_result
    directory: int
    name: str


def entries_below(place: Location) -> t.Iterator[Found]:
    """All that is below a directory, a directory before what is in it. Links are told, and not followed."""
    with _about(place.path):
        top = os.open(place.name, _LIST, dir_fd=place.descriptor)
    yield from _entries(top, "", _DEEPEST)


def files_below(path: str, *, most: int) -> list[str]:
    """The regular files below a directory, in order; none if it can't be read.

    :param most: so many at most.
    """
    try:
        with located(path, follow=True) as place:
            names = (found.path for found in entries_below(place) if stat.S_ISREG(found.status.st_mode))
            return sorted(os.path.join(path, name) for name in itertools.islice(names, most))
    except OSError:
        return []


def _entries(directory: int, prefix: str, levels: int) -> t.Iterator[Found]:
    """:param directory: is closed at the end."""
    try:
        with os.scandir(directory) as entries:
            for name in (entry.name for entry in entries):
                with contextlib.suppress(OSError):  # on its way out, or closed to this user
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    yield Found(prefix + name, status, directory, name)
                    if stat.S_ISDIR(status.st_mode) and levels:
                        below = os.open(name, _LIST, dir_fd=directory)
                        yield from _entries(below, f"{prefix}{name}/", levels - 1)
    finally:
        os.close(directory)


# -- writing --------------------------------------------------------------------------------------------------------


def apply_attributes(descriptor: int, attributes: Attributes) -> None:
    """Owner first, then mode, then extended attributes: a change of owner drops capabilities."""
    os.fchown(descriptor, attributes.uid, attributes.gid)
    os.fchmod(descriptor, attributes.mode & ~_SETID)
    for name, value in attributes.xattrs.items():
        # A file system that is mounted with one SELinux context for all files refuses to set even that.
        if not _has_xattr(descriptor, name, value):
            os.setxattr(descriptor, name, value)


def _has_xattr(descriptor: int, name: str, value: bytes) -> bool:
    try:
        return os.getxattr(descriptor, name) == value
    except OSError:
        return False


def fsync_directory(path: str) -> None:
    """Make names in a directory durable; see C(Location.sync)."""
    with located(os.path.join(path, "x")) as place:
        place.sync()


def ensure_private_directory(path: str) -> None:
    """Create a directory of mode 0700, or check that the one there is ours: a real directory, of our own user, which
    nobody else can put another one in place of.

    :raises HostError: if it isn't, with what to do: C(files.not_private).
    """
    unsafe = unsafe_directory(path, strict=True)  # as the rollback watchdog looks at it, too
    if unsafe:
        raise HostError(
            f"{path} can't be private: a user other than root can write {unsafe}, and put something else in its place. "
            f"Nothing there was used: let root alone write {unsafe.path} (chown root:root, chmod go-w), or choose "
            "another directory",
            key="files.not_private",
        )
    with located(path, make=True) as place, _about(path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(place.name, 0o700, dir_fd=place.descriptor)
        _narrow(place, path)


def _narrow(place: Location, path: str) -> None:
    """Give a directory of our own the mode 0700.

    :raises HostError: if it isn't one.
    """
    status = place.status()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise HostError(
            f"{path} must be a directory that belongs to user {os.geteuid()}, and no symbolic link: "
            "move away what is there",
            key="files.not_private",
        )
    descriptor = os.open(place.name, _LIST, dir_fd=place.descriptor)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def temporary_beside(path: str) -> str:
    """The name under which a file's successor is prepared: beside it, so that a rename is enough, and always the same,
    so that what a killed run left is replaced by the next. The host's lock keeps two runs apart."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}{_TEMPORARY}")


def write_durably(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Write a whole file or none: a reader, and the next boot, see the old content or the new."""
    with located(path) as place:
        temporary = place.beside()
        with temporary.created(mode) as descriptor:
            write_all(descriptor, data)
            os.fsync(descriptor)
        temporary.rename(place)
        place.sync()


def write_copy(
    content: t.Iterable[bytes], place: Location, *, attributes: Attributes, sha256: str | None = None, source: str
) -> str:
    """Write content to a new file with the given attributes, durably. Returns its sha256.

    :param sha256: what the content must be. It is checked on the bytes that were written.
    :param source: where the content comes from, for errors.
    :raises HostError: if the content is something else; the new file is gone then.
    """
    digest = hashlib.sha256()
    with place.created(0o600) as descriptor:
        for chunk in content:
            digest.update(chunk)
            write_all(descriptor, chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise HostError(
                f"{source} has sha256 {digest.hexdigest()}, but {sha256} was expected: it was changed or damaged",
                key="files.checksum",
            )
        apply_attributes(descriptor, attributes)
        os.fsync(descriptor)
    return digest.hexdigest()


def prepare_copy(source: str, place: Location, *, attributes: Attributes, sha256: str) -> None:
    """Copy a file of our own to beside the one that it is to replace, durably; see C(write_copy)."""
    with opened(source) as original:
        content = chunks(original, source)
        write_copy(content, place.beside(), attributes=attributes, sha256=sha256, source=source)


def put_in_place(places: list[Location]) -> None:
    """Rename what was prepared beside each place, and make that durable."""
    for place in places:
        place.beside().rename(place)
    for place in {os.path.dirname(place.path): place for place in places}.values():
        place.sync()


def remove_if_there(path: str) -> None:
    """Remove a file or a link, if there is one."""
    with contextlib.suppress(FileNotFoundError), located(path) as place:
        place.remove()


def rename(path: str, to: str) -> None:
    """Give a file or a directory another name, without making that durable."""
    with located(path) as place, located(to) as other:
        place.rename(other)


def add_name(path: str, other: str) -> None:
    """Give a file a second name in its directory.

    :raises OSError: if the file system has no hard links.
    """
    with located(path) as place, _about(path):
        ends = {"src_dir_fd": place.descriptor, "dst_dir_fd": place.descriptor}
        os.link(place.name, os.path.basename(other), follow_symlinks=False, **ends)


def set_mode(path: str, mode: int) -> None:
    """Change the permissions of a regular file."""
    with opened(path) as descriptor, naming(path):
        os.fchmod(descriptor, mode)


def make_directory(path: str) -> None:
    """Make a directory of mode 0755, and those above it, unless it is there."""
    with located(os.path.join(path, "x"), make=True):
        pass


def make_directory_of(path: str, uid: int, gid: int, mode: int) -> None:
    """Make a new directory for somebody, in one of our own."""
    with located(path) as place, _about(path):
        os.mkdir(place.name, 0o700, dir_fd=place.descriptor)
        descriptor = os.open(place.name, _LIST, dir_fd=place.descriptor)
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def make_link(path: str, target: str) -> None:
    """Make a symbolic link. It is never followed."""
    with located(path) as place:
        place.point_to(target)


def remove_directory_if_empty(path: str) -> None:
    """Remove a directory that is there and has nothing in it."""
    try:
        with located(path) as place, _about(path):
            os.rmdir(place.name, dir_fd=place.descriptor)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise


def remove_tree(path: str, *, quietly: bool = False) -> None:
    """Remove a directory of our own with all that is in it, as far as it is there. No link is followed.

    :param quietly: what can't be removed stays.
    """
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path, ignore_errors=quietly)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: the kernel may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def explain(exc: OSError) -> str:
    """What an operating system error means to an operator, with the file's name."""
    hint = {
        errno.ENOSPC: "; free some space there and run again",
        errno.EROFS: "; the file system is mounted read-only",
        errno.EDQUOT: "; a quota is used up: free some space there, or raise the quota, and run again",
        errno.EACCES: "; run as root (become: true)",
        errno.EPERM: "; run as root (become: true), and look for an immutable or append-only attribute (lsattr)",
        errno.EBUSY: "; something is mounted there (findmnt): it can't be replaced before that is unmounted",
    }.get(exc.errno or 0, "")
    return f"{exc.filename or 'operating system'}: {exc.strerror or exc}{hint}"
