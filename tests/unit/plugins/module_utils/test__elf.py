# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys

import pytest
from ansible_collections.observability.stack.plugins.module_utils._elf import (
    HEADER_BYTES,
    Elf,
    architecture,
    read_elf,
)


def header(*, bits: int, little: bool, machine: int) -> bytes:
    order = "little" if little else "big"
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1 if little else 2, 1]) + bytes(9)
    return ident + (2).to_bytes(2, order) + machine.to_bytes(2, order)


@pytest.mark.parametrize(
    ("bits", "little", "machine", "kernel", "name"),
    [
        (64, True, 62, "x86_64", "amd64"),
        (32, True, 3, "x86_64", "386"),
        (64, True, 183, "aarch64", "arm64"),
        (32, True, 40, "armv7l", "armv7"),
        (32, True, 40, "aarch64", "armv7"),
        (32, True, 40, "armv8l", "armv7"),
        (32, True, 40, "armv6l", "armv6"),
        (32, True, 40, "armv5tel", "armv5"),
        (64, True, 21, "ppc64le", "ppc64le"),
        (64, False, 21, "ppc64", "ppc64"),
        (64, False, 22, "s390x", "s390x"),
        (64, True, 243, "riscv64", "riscv64"),
        (64, True, 8, "mips64", "mips64le"),
        (32, False, 8, "mips", "mips"),
        (64, True, 9999, "new", "elf9999"),
    ],
)
def test_architecture_is_that_of_the_userland(bits: int, little: bool, machine: int, kernel: str, name: str) -> None:
    elf = read_elf(header(bits=bits, little=little, machine=machine))
    assert elf is not None
    assert architecture(elf, kernel) == name


def test_this_python_is_an_elf_file() -> None:
    with open(sys.executable, "rb") as source:
        elf = read_elf(source.read(HEADER_BYTES))
    assert elf is not None
    assert elf.bits == 64
    assert "64 bit" in elf.describe()


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\necho a long enough text", b"\x7fELF", b"\x7fELX" + bytes(30)])
def test_what_is_no_elf_file_is_none(data: bytes) -> None:
    assert read_elf(data) is None


def test_describe_names_an_unknown_machine() -> None:
    assert Elf(64, True, 9999).describe() == "ELF machine 9999, 64 bit"
