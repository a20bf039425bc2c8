# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _elf
from ansible_collections.observability.stack.plugins.module_utils._elf import (
    HEADER_BYTES,
    Elf,
    architecture,
    dotted,
    glibc_here,
    glibc_needed,
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


# -- the C library ------------------------------------------------------------------------------------------------


def program(needs: t.Sequence[tuple[str, int]], *, bits: int = 64, little: bool = True) -> bytes:
    """An ELF file with nothing but its header and two sections: what it needs, with flags, and the names of that."""
    order, wide = "<" if little else ">", bits == 64
    names, places = b"\0libc.so.6\0", []
    for name, _flags in needs:
        places.append(len(names))
        names += name.encode() + b"\0"
    need = struct.pack(f"{order}HHIII", 1, len(needs), 1, 16, 0)
    for place, (_name, flags) in zip(places, needs):
        need += struct.pack(f"{order}IHHII", 0, flags, 2, place, 16)
    start = 64 if wide else 52
    table = start + len(need) + len(names)
    shape = f"{order}IIQQQQIIQQ" if wide else f"{order}IIIIIIIIII"
    rows = [(0,) * 10]
    rows.append((0, 0x6FFFFFFE, 0, 0, start, len(need), 2, 1, 0, 0))
    rows.append((0, 3, 0, 0, start + len(need), len(names), 0, 0, 0, 0))
    head = header(bits=bits, little=little, machine=62) + struct.pack(f"{order}I", 1)
    head += struct.pack(f"{order}QQQ" if wide else f"{order}III", 0, 0, table)
    size = struct.calcsize(shape)
    head += struct.pack(f"{order}IHHHHHH", 0, start, 0, 0, size, len(rows), 0)
    return head + need + names + b"".join(struct.pack(shape, *row) for row in rows)


@pytest.mark.parametrize(("bits", "little"), [(64, True), (64, False), (32, True), (32, False)])
def test_the_newest_version_that_a_program_names_is_the_oldest_it_runs_with(
    tmp_path: pathlib.Path, bits: int, little: bool
) -> None:
    needs = [("GLIBC_2.9", 0), ("GLIBC_2.34", 0), ("GLIBC_2.2.5", 0), ("GLIBCXX_3.4.30", 0), ("GLIBC_PRIVATE", 0)]
    path = tmp_path / "program"
    path.write_bytes(program(needs, bits=bits, little=little))
    assert glibc_needed(str(path)) == (2, 34)


def test_what_a_program_can_do_without_is_not_needed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(program([("GLIBC_2.17", 0), ("GLIBC_2.38", 2)]))
    assert glibc_needed(str(path)) == (2, 17)


def test_packed_relocations_need_a_glibc_that_knows_them(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(program([("GLIBC_2.17", 0), ("GLIBC_ABI_DT_RELR", 0)]))
    assert glibc_needed(str(path)) == (2, 36)


def test_a_damaged_program_is_no_traceback(tmp_path: pathlib.Path) -> None:
    whole = program([("GLIBC_2.17", 0), ("GLIBC_2.34", 0)])
    path = tmp_path / "program"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert glibc_needed(str(path)) in (None, (2, 17), (2, 34))
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        glibc_needed(str(path))


def test_what_needs_no_glibc_needs_none(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho a text that is long enough\n")
    assert [glibc_needed(path) for path in (str(script), str(tmp_path), str(tmp_path / "missing"))] == [None] * 3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this machine has another C library")
def test_this_machine_runs_its_own_programs() -> None:
    needed, here = glibc_needed(shutil.which("sh") or ""), glibc_here()
    assert needed is not None
    assert here is not None
    assert needed <= here
    assert dotted(here) == platform.libc_ver()[1]


@pytest.mark.parametrize("name", ["sh", "ls", "tar", "gzip"])
def test_it_reads_what_readelf_reads(name: str) -> None:
    path = shutil.which(name) or ""
    told = subprocess.run(["readelf", "--version-info", "--wide", path], check=True, capture_output=True, text=True)
    _before, _start, needs = told.stdout.partition(".gnu.version_r")
    versions = [word.removeprefix("GLIBC_") for word in needs.split() if word.startswith("GLIBC_2.")]
    assert glibc_needed(path) == max((tuple(map(int, version.split("."))) for version in versions), default=None)


def test_the_header_of_a_file_is_read_without_waiting_for_what_is_none(tmp_path: pathlib.Path) -> None:
    program, fifo, script = (tmp_path / name for name in ("program", "fifo", "script"))
    program.write_bytes(pathlib.Path("/bin/true").read_bytes())
    script.write_text("#!/bin/sh\n")
    os.mkfifo(fifo)
    assert _elf.header_of(str(program)) == _elf.read_elf(program.read_bytes()[: _elf.HEADER_BYTES])
    for path in (fifo, script, tmp_path, tmp_path / "nowhere", "/dev/zero"):
        assert _elf.header_of(str(path)) is None
