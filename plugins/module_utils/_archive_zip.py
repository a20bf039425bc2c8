# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The members of a zip archive, by its central directory, checked against each member's own header.

The format is that of PKWARE's APPNOTE 6.3.10, without what no release has: archives in several parts, encryption,
zip64, other compressions than deflate. Python's C(zipfile) isn't used: it reads a directory of any length into memory,
cuts names at a NUL, and takes members that lie over each other.
"""

from __future__ import annotations

import os
import stat
import struct
import typing as t
import zlib

from ._archive_stream import CHUNK, Entry, Limits, MalformedError, RefusedError, UnreadableError

_END = struct.Struct("<4sHHHHIIH")
_CENTRAL = struct.Struct("<4sBBHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_LOCATOR = 20
"""Bytes of what stands before the end of a zip64."""
_LONGEST_COMMENT = 0xFFFF
_DIRECTORY_LIMIT = 32 << 20
_UNIX = 3
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_BEHIND, _UTF8 = 0x2041, 0x0008, 0x0800
_IN_EXTRA = 0xFFFFFFFF
_KINDS = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


class _Member(t.NamedTuple):
    """A member, as the central directory tells it."""

    raw: bytes
    name: str
    mode: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    start: int


def entries(source: t.IO[bytes], *, limits: Limits) -> t.Iterator[Entry]:
    """The members of an archive. The content of one can be read as long as the file is open.

    :raises MalformedError: if it is truncated or damaged, or its two directories disagree.
    :raises RefusedError: if it has what no release has.
    :raises UnreadableError: if it is a zip64.
    """
    members, end = _directory(source, limits)
    begins = [_data_start(source, member) for member in members]
    before = 0
    for member, begin in sorted(zip(members, begins), key=lambda pair: pair[0].start):
        if member.start < before or begin + member.packed > end:
            raise RefusedError("it lies over another one", member=member.name)
        before = begin + member.packed
    for member, begin in zip(members, begins):
        yield Entry(member.name, _kind(member), member.mode, member.size, _content(source, member, begin, limits))


def _kind(member: _Member) -> str:
    kind = _KINDS.get(stat.S_IFMT(member.mode), "special")
    return "directory" if kind == "file" and member.name.endswith("/") else kind


def _directory(source: t.IO[bytes], limits: Limits) -> tuple[list[_Member], int]:
    """The members, and where the central directory begins."""
    size = source.seek(0, os.SEEK_END)
    tail_start = max(0, size - _END.size - _LONGEST_COMMENT)
    source.seek(tail_start)
    tail = source.read(_END.size + _LONGEST_COMMENT)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < _END.size:
        raise MalformedError("it has no directory at its end")
    _magic, disk, first_disk, here, count, length, start, comment = _END.unpack_from(tail, place)
    end = tail_start + place
    if end + _END.size + comment != size:
        raise MalformedError("something stands behind its end, or its end is missing")
    if count == 0xFFFF or start == _IN_EXTRA or tail[place - _LOCATOR : place].startswith(b"PK\6\7"):
        raise UnreadableError("it is a zip64, made for more than 65 535 members or 4 GiB; a plain zip is read")
    if (disk, first_disk, here) != (0, 0, count) or start + length != end:
        raise MalformedError("its directory isn't where its end says")
    if length > _DIRECTORY_LIMIT or count > limits.members:
        raise RefusedError(f"it has {count} members, in a directory of {length} bytes")
    source.seek(start)
    return _members(source.read(length), count), start


def _members(data: bytes, count: int) -> list[_Member]:
    found, place = [], 0
    for _number in range(count):
        if len(data) - place < _CENTRAL.size:
            raise MalformedError("its directory ends too early")
        fields = _CENTRAL.unpack_from(data, place)
        magic, _version, system, _needed, flags, method, _time, _date, crc, packed, size = fields[:11]
        name_length, extra_length, comment_length, disk, _internal, attributes, start = fields[11:]
        name_start = place + _CENTRAL.size
        place = name_start + name_length + extra_length + comment_length
        if magic != b"PK\1\2" or place > len(data) or disk:
            raise MalformedError("its directory is damaged")
        raw = data[name_start : name_start + name_length]
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437", "surrogateescape")
        if flags & _ENCRYPTED:
            raise RefusedError("it is encrypted", member=name)
        if _IN_EXTRA in (packed, size, start):
            raise RefusedError("it has more than 4 GiB", member=name)
        mode = attributes >> 16 if system == _UNIX else 0
        found.append(_Member(raw, name, mode, flags, method, crc, packed, size, start))
    if place != len(data):
        raise MalformedError("its directory is longer than its members")
    return found


def _data_start(source: t.IO[bytes], member: _Member) -> int:
    """Where a member's data begin. Its own header must say of it what the central directory says."""
    source.seek(member.start)
    head = source.read(_LOCAL.size)
    if len(head) < _LOCAL.size:
        raise MalformedError(f"its member {member.name!r} isn't where its directory says")
    magic, _needed, flags, method, _time, _date, crc, packed, size, name_length, extra_length = _LOCAL.unpack(head)
    raw, extra = source.read(name_length), source.read(extra_length)
    if magic != b"PK\3\4" or len(extra) < extra_length:
        raise MalformedError(f"its member {member.name!r} isn't where its directory says")
    if _IN_EXTRA in (packed, size):
        packed, size = _long_sizes(extra)
    told = (raw, flags, method, *(() if flags & _SIZES_BEHIND else (crc, packed, size)))
    wanted = (member.raw, member.flags, member.method, member.crc, member.packed, member.size)
    if told != wanted[: len(told)]:
        raise RefusedError("its own header says something else of it than the archive's directory", member=member.name)
    return member.start + _LOCAL.size + len(raw) + len(extra)


def _long_sizes(extra: bytes) -> tuple[int, int]:
    """Packed and unpacked size in the extra field of zip64, as writers have it that don't know the size before."""
    place = 0
    while len(extra) - place >= 4:
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1 and 16 <= length <= len(extra) - place - 4:
            size, packed = struct.unpack_from("<QQ", extra, place + 4)
            return packed, size
        place += 4 + length
    return -1, -1


def _content(source: t.IO[bytes], member: _Member, begin: int, limits: Limits) -> t.Iterator[bytes]:
    """A member's bytes, of which there are as many as announced, with the checksum that was announced."""
    if member.size > limits.content(member.packed):
        raise RefusedError(f"it makes {member.size} bytes of {member.packed}, as a bomb does", member=member.name)
    unpack = _UNPACKERS.get(member.method)
    if unpack is None:
        raise RefusedError(f"it is compressed by method {member.method}; only deflate is read", member=member.name)
    source.seek(begin)
    crc = written = 0
    for piece in unpack(source, member):
        crc, written = zlib.crc32(piece, crc), written + len(piece)
        if written > member.size:
            raise RefusedError(f"it has more than the {member.size} bytes it announced", member=member.name)
        yield piece
    if (crc, written) != (member.crc, member.size):
        raise MalformedError(f"its member {member.name!r} has a wrong checksum or length")


def _stored(source: t.IO[bytes], member: _Member) -> t.Iterator[bytes]:
    left = member.packed
    while left:
        piece = source.read(min(left, CHUNK))
        if not piece:
            raise MalformedError("it ends too early")
        left -= len(piece)
        yield piece


def _deflated(source: t.IO[bytes], member: _Member) -> t.Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=-15)
    try:
        for packed in _stored(source, member):
            if inflater.eof:
                raise MalformedError(f"its member {member.name!r} has something behind its end")
            piece = inflater.decompress(packed, CHUNK)
            while piece:
                yield piece
                piece = inflater.decompress(inflater.unconsumed_tail, CHUNK)
    except zlib.error as exc:
        raise MalformedError(f"its member {member.name!r} can't be decompressed: {exc}") from exc
    if not inflater.eof or inflater.unused_data:
        raise MalformedError(f"its member {member.name!r} is longer or shorter than its data")


_UNPACKERS: dict[int, t.Callable[[t.IO[bytes], _Member], t.Iterator[bytes]]] = {
    _STORED: _stored,
    _DEFLATED: _deflated,
}
