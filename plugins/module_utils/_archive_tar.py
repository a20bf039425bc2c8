# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The members of a tar archive, one after the other.

Read are ustar, its forerunner of Unix 7, GNU's long names, and the names of pax (POSIX.1-2017, pax, "ustar
Interchange Format"; GNU tar manual, "Basic Tar Format"). Python's C(tarfile) isn't used: it reads headers of any length
into memory, goes on where a number is negative (CVE-2025-8194), and each Python of a host does it in another way.

Whatever two programs could read in two ways is refused: two names or two sizes for one member, links with content,
anything but zeros behind the end.
"""

from __future__ import annotations

import typing as t

from ._archive_stream import Entry, MalformedError, RefusedError, Stream

_BLOCK = 512
_HEADER_LIMIT = 1 << 20
"""Bytes of one extended header."""

_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"5": "directory",
    b"1": "link",
    b"2": "link",
    b"3": "special",
    b"4": "special",
    b"6": "special",
    b"S": "special",
}
_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL = b"L", b"K", b"x", b"g"


class _Header(t.NamedTuple):
    name: bytes
    mode: int
    size: int
    kind: bytes


class _Extended:
    """What the headers before a member say of it."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.size: int | None = None
        self.sparse = False
        self.seen: set[bytes] = set()

    def add(self, kind: bytes, data: bytes) -> None:
        if kind in self.seen:
            raise MalformedError("a member of it has two extended headers of one kind")
        self.seen.add(kind)
        if kind == _LONG_NAME:
            self._named(data[:-1] if data.endswith(b"\0") else data)
        elif kind == _PAX:
            for key, value in _records(data):
                self._record(key, value)

    def _record(self, key: bytes, value: bytes) -> None:
        if key == b"path":
            self._named(value)
        elif key == b"size":
            self.size = _decimal(value)
        elif key.startswith(b"GNU.sparse."):
            self.sparse = True

    def _named(self, name: bytes) -> None:
        if self.name is not None:
            raise MalformedError("a member of it has two names")
        self.name = name


def entries(stream: Stream, *, members: int) -> t.Iterator[Entry]:
    """The members of an archive. What isn't read of one is skipped; at the end the stream is read to its end.

    :param members: how many headers there may be.
    :raises MalformedError: if it is truncated or damaged, or can be read in two ways.
    :raises RefusedError: if it has too many members, or too large headers.
    """
    extended = _Extended()
    for _number in range(members):
        block = stream.exactly(_BLOCK)
        if not any(block):
            if extended.seen:
                raise MalformedError("an extended header of it has no member")
            return _only_zeros(stream)
        header = _header(block)
        if header.kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL):
            _extend(extended, header.kind, _extension(stream, header))
            continue
        entry = _entry(stream, header, extended)
        yield entry
        for _part in entry.content:
            pass
        stream.exactly(-entry.size % _BLOCK)
        extended = _Extended()
    raise RefusedError(f"it has more than {members} members")


def _extension(stream: Stream, header: _Header) -> bytes:
    if header.size > _HEADER_LIMIT:
        raise RefusedError(f"a header of it announces {header.size} bytes, more than {_HEADER_LIMIT}")
    return stream.exactly(header.size + -header.size % _BLOCK)[: header.size]


def _extend(extended: _Extended, kind: bytes, data: bytes) -> None:
    if kind != _PAX_FOR_ALL:
        extended.add(kind, data)
    elif any(key in (b"path", b"size") or key.startswith(b"GNU.sparse.") for key, value in _records(data)):
        raise RefusedError("it gives all its members one name or size")


def _entry(stream: Stream, header: _Header, extended: _Extended) -> Entry:
    raw = header.name if extended.name is None else extended.name
    name = raw.decode("utf-8", "surrogateescape")
    kind = _KINDS.get(header.kind, "special")
    if kind == "file" and extended.sparse:
        kind = "special"
    elif kind == "file" and header.kind != b"7" and name.endswith("/"):
        kind = "directory"  # as Unix 7 had it
    if extended.size not in (None, header.size):
        raise RefusedError("two sizes are told for it", member=name)
    if header.size and kind in ("directory", "link"):
        raise RefusedError("it is no file, but has content", member=name)
    return Entry(name, kind, header.mode, header.size, stream.parts(header.size))


def _header(block: bytes) -> _Header:
    told = _number(block[148:156])
    if told != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise MalformedError("a header of it has a wrong checksum")
    name = _text(block[0:100])
    if block[257:263] == b"ustar\0":
        prefix = _text(block[345:500])
        name = prefix + b"/" + name if prefix else name
    return _Header(name, _number(block[100:108]), _number(block[124:136]), block[156:157])


def _text(field: bytes) -> bytes:
    """A text up to its end; what stands behind it stays, so that the name's check sees the NUL."""
    return field.rstrip(b"\0")


def _number(field: bytes) -> int:
    """Octal digits, or with the first bit set a binary number (GNU)."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise MalformedError("a header of it has a negative number")
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise MalformedError("a header of it has no number where one must be")
    return int(digits or b"0", 8)


def _records(data: bytes) -> t.Iterator[tuple[bytes, bytes]]:
    """Keys and values of an extended header: C(<length of all> <key>=<value>) and a line feed."""
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + 12)
        end = start + _decimal(data[start:space]) if space > start else 0
        if not space < end <= len(data) or data[end - 1 : end] != b"\n":
            raise MalformedError("an extended header of it can't be read")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise MalformedError("an extended header of it can't be read")
        yield key, value
        start = end


def _decimal(digits: bytes) -> int:
    if not 0 < len(digits) <= 20 or digits.strip(b"0123456789"):
        raise MalformedError("an extended header of it has no number where one must be")
    return int(digits)


def _only_zeros(stream: Stream) -> None:
    """Read to the end: only there does the compression's own checksum tell."""
    for part in iter(lambda: stream.some(1 << 20), b""):
        if part.count(0) != len(part):
            raise RefusedError("something stands behind its end")
