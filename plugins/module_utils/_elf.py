# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What an ELF file says of itself: which release architecture it belongs to, and which C library it needs."""

from __future__ import annotations

import mmap
import os
import re
import struct
import typing as t

HEADER_BYTES = 20

# e_machine of the ELF header (/usr/include/elf.h) -> the name that Go releases use.
_MACHINES = {3: "386", 8: "mips", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}

# Section .gnu.version_r (Linux Standard Base, "Symbol Versioning"): the symbol versions that a file needs of others.
_SHT_GNU_VERNEED = 0x6FFFFFFE
_VER_FLG_WEAK = 2
_GLIBC = re.compile(r"GLIBC_(\d+(?:\.\d+)+)")
_MOST_VERSIONS = 1000
# A file with packed relocations needs this of the C library, which has it since this version.
_RELATIVE_RELOCATIONS = ("GLIBC_ABI_DT_RELR", (2, 36))

Glibc = tuple[int, ...]


class Elf(t.NamedTuple):
    """What an ELF header says: word size, byte order, and the machine's number."""

    bits: int
    little_endian: bool
    machine: int

    def describe(self) -> str:
        return f"{_MACHINES.get(self.machine, f'ELF machine {self.machine}')}, {self.bits} bit"


def read_elf(header: bytes) -> Elf | None:
    """The ELF header at the start of a file, or None if the file isn't an ELF file."""
    if len(header) < HEADER_BYTES or header[:4] != b"\x7fELF":
        return None
    little = header[5] == 1
    return Elf(
        bits=64 if header[4] == 2 else 32,
        little_endian=little,
        machine=int.from_bytes(header[18:20], "little" if little else "big"),
    )


def architecture(elf: Elf, kernel: str) -> str:
    """The architecture as releases name it: amd64, arm64, armv7, ...

    :param elf: header of a program of the userland: a 32-bit userland on a 64-bit kernel needs 32-bit programs.
    :param kernel: C(uname -m), which tells ARM's generations apart.
    """
    name = _MACHINES.get(elf.machine, f"elf{elf.machine}")
    if name == "arm":
        return "armv6" if kernel.startswith("armv6") else "armv5" if kernel.startswith("armv5") else "armv7"
    if name in ("ppc64", "mips") and elf.little_endian:
        name = {"ppc64": "ppc64le", "mips": "mipsle"}[name]
    if name.startswith("mips") and elf.bits == 64:
        name = name.replace("mips", "mips64")
    return name


def glibc_needed(path: str) -> Glibc | None:
    """The oldest glibc that a program runs with, as C((2, 34)). None for what needs none, as most Go programs do, and
    for what isn't an ELF file, or a damaged one."""
    try:
        with open(path, "rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = list(_versions_needed(data))
    except (OSError, ValueError, OverflowError, struct.error):
        return None
    versions = [tuple(map(int, found.group(1).split("."))) for found in map(_GLIBC.fullmatch, names) if found]
    name, since = _RELATIVE_RELOCATIONS
    return max([*versions, *([since] if name in names else [])], default=None)


def glibc_here() -> Glibc | None:
    """The version of this host's glibc, as C((2, 36)); None if it has another C library."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    found = re.match(r"glibc (\d+(?:\.\d+)+)", told)
    return tuple(map(int, found.group(1).split("."))) if found else None


def dotted(version: Glibc) -> str:
    return ".".join(map(str, version))


def _versions_needed(data: mmap.mmap) -> t.Iterator[str]:
    """The names of the symbol versions that a file can't do without: C(GLIBC_2.34), C(GLIBCXX_3.4), ...

    :raises struct.error: if the file ends before what it announces.
    """
    elf = read_elf(data[:HEADER_BYTES])
    if elf is None:
        return
    order = "<" if elf.little_endian else ">"
    sections = list(_sections(data, order, elf.bits))
    for kind, offset, link in sections:
        if kind == _SHT_GNU_VERNEED and link < len(sections):  # there is one, if any
            yield from (_text(data, sections[link][1] + name) for name in _names_needed(data, order, offset))
            return


def _sections(data: mmap.mmap, order: str, bits: int) -> t.Iterator[tuple[int, int, int]]:
    """Type, offset in the file and linked section of each section (elf(5): Elf32_Shdr, Elf64_Shdr)."""
    (table,) = struct.unpack_from(f"{order}{'Q' if bits == 64 else 'I'}", data, 40 if bits == 64 else 32)
    size, count = struct.unpack_from(f"{order}HH", data, 58 if bits == 64 else 46)
    for number in range(count if table else 0):
        _name, kind, _flags, _address, offset, _size, link = struct.unpack_from(
            f"{order}IIQQQQI" if bits == 64 else f"{order}IIIIIII", data, table + number * size
        )
        yield kind, offset, link


def _names_needed(data: mmap.mmap, order: str, need: int) -> t.Iterator[int]:
    """Where in the table of names the versions are that a file needs (Elf64_Verneed, each with its Elf64_Vernaux)."""
    for _library in range(_MOST_VERSIONS):
        _version, count, _file, first, following = struct.unpack_from(f"{order}HHIII", data, need)
        one = need + first
        for _number in range(min(count, _MOST_VERSIONS)):
            _hash, flags, _other, name, another = struct.unpack_from(f"{order}IHHII", data, one)
            if not flags & _VER_FLG_WEAK:
                yield name
            one += another
        if not following:
            return
        need += following


def _text(data: mmap.mmap, start: int) -> str:
    end = data.find(b"\0", start)
    return data[start:end].decode("ascii", "replace") if 0 <= start < end else ""
