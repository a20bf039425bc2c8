# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives made byte by byte, so that each header can say what no well-behaved program would write."""

from __future__ import annotations

import gzip
import struct
import typing as t
import zlib

TAR_END = bytes(1024)


def tar_number(value: int, width: int) -> bytes:
    """As tar has it: octal digits, or binary with the first bit set (GNU), also negative."""
    if 0 <= value < 8 ** (width - 1):
        return f"{value:0{width - 1}o}".encode() + b"\0"
    data = bytearray((value % (1 << (8 * width))).to_bytes(width, "big"))
    data[0] |= 0x80
    return bytes(data)


def tar_header(
    name: bytes,
    *,
    size: int | bytes = 0,
    kind: bytes = b"0",
    mode: int = 0o644,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    link: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    """A header of 512 bytes, with the right checksum if none is given. A size in bytes stands there as it is."""
    sized = size if isinstance(size, bytes) else tar_number(size, 12)
    start = name[:100].ljust(100, b"\0") + tar_number(mode, 8) + tar_number(0, 8) * 2 + sized.ljust(12, b"\0")[:12]
    behind = kind[:1].ljust(1, b"0") + link[:100].ljust(100, b"\0") + magic[:8].ljust(8, b"\0") + bytes(80)
    start, behind = start + tar_number(0, 12), behind + prefix[:155].ljust(155, b"\0") + bytes(12)
    total = sum(start) + sum(behind) + 8 * 32 if checksum is None else checksum
    return start + f"{total % 8**6:06o}".encode() + b"\0 " + behind


def tar_member(name: bytes, data: bytes = b"", **changes: t.Any) -> bytes:
    """A header, and its data filled up to whole blocks."""
    return tar_header(name, **{"size": len(data), **changes}) + data + bytes(-len(data) % 512)


def gnu_long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return tar_member(b"././@LongLink", name + b"\0", kind=kind)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header with these records."""
    return tar_member(b"PaxHeaders/x", b"".join(pax_record(key, value) for key, value in records), kind=kind)


def pax_record(key: bytes, value: bytes) -> bytes:
    """A record begins with its own length in digits, which count, too."""
    text = b" " + key + b"=" + value + b"\n"
    length = len(text) + len(str(len(text)))
    length = len(text) + len(str(length))  # it may have got one more digit
    return str(length).encode() + text


def tar_gz(*parts: bytes, end: bytes = TAR_END) -> bytes:
    return gzip.compress(b"".join(parts) + end, compresslevel=1, mtime=0)


class ZipMember(t.NamedTuple):
    """A member of a zip. ``central`` and ``local`` are what one of its headers says in another way."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = 0o100644
    central: t.Mapping[str, t.Any] = {}
    local: t.Mapping[str, t.Any] = {}
    behind: bytes = b""
    extra: bytes = b""


def zip_of(*members: ZipMember, before: bytes = b"", comment: bytes = b"", **end: int) -> bytes:
    """A zip. ``end`` is what its last header says in another way: count, length, start, disk, comment."""
    body, directory = before, b""
    for member in members:
        told = _told(member, len(body))
        body += _local(**{**told, **member.local}) + told["packed_data"] + member.behind
        directory += _central(**{**told, **member.central})
    fields = {"disk": 0, "count": len(members), "length": len(directory), "start": len(body), "comment": len(comment)}
    fields.update(end)
    return body + directory + _end(**fields) + comment


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def _told(member: ZipMember, start: int) -> dict[str, t.Any]:
    packed = deflate(member.data) if member.method == 8 else member.data
    return {
        "name": member.name,
        "flags": member.flags,
        "method": member.method,
        "crc": zlib.crc32(member.data),
        "packed": len(packed),
        "size": len(member.data),
        "mode": member.mode,
        "start": start,
        "packed_data": packed,
        "extra": member.extra,
        "system": 3,
    }


def _local(**told: t.Any) -> bytes:
    sizes = (told["crc"], told["packed"], told["size"], len(told["name"]), len(told["extra"]))
    head = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, told["flags"], told["method"], 0, 0, *sizes)
    return head + bytes(told["name"]) + bytes(told["extra"])


def _central(**told: t.Any) -> bytes:
    first = struct.pack("<4sBBHHHHH", b"PK\1\2", 20, told["system"], 20, told["flags"], told["method"], 0, 0)
    sizes = struct.pack("<IIIHHHHH", told["crc"], told["packed"], told["size"], len(told["name"]), 0, 0, 0, 0)
    return first + sizes + struct.pack("<II", (told["mode"] << 16) & 0xFFFFFFFF, told["start"]) + bytes(told["name"])


def _end(*, disk: int, count: int, length: int, start: int, comment: int) -> bytes:
    return struct.pack("<4sHHHHIIH", b"PK\5\6", disk, disk, count, count, length, start, comment)
