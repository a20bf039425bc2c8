# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. The first bytes of an ELF file, and which release architecture they belong to."""

from __future__ import annotations

import typing as t

HEADER_BYTES = 20

# e_machine of the ELF header (/usr/include/elf.h) -> the name that Go releases use.
_MACHINES = {3: "386", 8: "mips", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}


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
