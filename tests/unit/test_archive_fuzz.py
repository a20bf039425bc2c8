# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever an archive is made of: exactly the wanted bytes come out of it, or an error that says why not.

No byte is ever written elsewhere. It takes some seconds; C(FUZZ_FACTOR=1000) makes a thousand times as many archives of
it, and C(--hypothesis-show-statistics) tells how many there were.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import pathlib
import posixpath
import tarfile
import tracemalloc
import typing as t
import zipfile

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _archive
from ansible_collections.observability.stack.plugins.module_utils._archive_stream import Limits
from ansible_collections.observability.stack.plugins.module_utils._errors import ReleaseError
from ansible_collections.observability.stack.tests.unit.archives import (
    TAR_END,
    ZipMember,
    gnu_long_name,
    pax,
    tar_header,
    tar_member,
    tar_number,
    zip_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
WANTED = "d/x"
PROGRAM = b"\x7fELF program " * 99
KEYS = {"release.damaged_archive", "release.unsafe_archive", "release.member_missing", "release.unknown_archive"}
LIMITS = Limits(member=1 << 16, total=1 << 20, small=1 << 20, members=40, streams=10)


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples * FACTOR,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class Sandbox:
    """A directory to write into, in one where nothing else may appear or change."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.room = base / "outside" / "room"
        self.archive = base / "a"
        self.room.mkdir(parents=True)
        (base / "cwd").mkdir()
        (base / "outside" / "canary").write_text("canary")

    def extract(self, content: bytes, name: str = "a.tar.gz", wanted: str = WANTED) -> bytes | None:
        """What comes out of an archive; None if it is refused."""
        self.archive.write_bytes(content)
        arguments = {"name": name, "members": {"out": wanted}, "directory": str(self.room)}
        refusal = None
        try:
            _archive.extract(str(self.archive), **arguments)
        except ReleaseError as exc:
            refusal = exc
        if refusal:
            assert refusal.key in KEYS
            assert "\n" not in str(refusal)
            self.check(set())
            return None
        self.check({"outside/room/out"})
        written = self.room / "out"
        status = written.lstat()
        assert (status.st_mode, status.st_nlink) == (0o100600, 1)
        found = written.read_bytes()
        written.unlink()
        return found

    def check(self, more: set[str]) -> None:
        there = {str(path.relative_to(self.base)) for path in self.base.rglob("*")}
        assert there == {"a", "cwd", "outside", "outside/room", "outside/canary"} | more
        assert (self.base / "outside" / "canary").read_text() == "canary"


@pytest.fixture
def sandbox(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    made = Sandbox(tmp_path / "sandbox")
    monkeypatch.chdir(made.base / "cwd")
    monkeypatch.setattr(_archive, "LIMITS", LIMITS)
    monkeypatch.setattr(_archive.os, "fsync", lambda descriptor: None)
    return made


# -- tar, of headers -------------------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from([b"d/x", b"./d/x", b"d//x", b"d/./x", b"d/x/", b"d/y", b"d", b".", b""]),
    st.sampled_from([b"../evil", b"d/../../evil", b"/tmp/evil", b"C:evil", b"d\\..\\evil", b"d/x\0y", b"canary"]),
    st.sampled_from([b"a" * 120 + b"/x", b"a" * 90 + b"/" + b"b" * 90, "ü".encode(), b"\xff\xfe", b"\n"]),
    st.binary(max_size=12),
)
GOOD_NAMES = st.sampled_from([b"d/x", b"./d/x", b"d//x", b"d/y", b"e/z", b"a" * 120 + b"/x", "ü".encode(), b"x"])
KINDS = st.sampled_from([bytes([kind]) for kind in b"000\x00712345678SLKxgVM"])
SIZES = st.one_of(
    st.integers(-(1 << 40), 1 << 70),
    st.sampled_from([0, 1, 511, 512, 513, 1 << 33, -512, (1 << 63) - 1, (1 << 95) - 1]),
    st.binary(min_size=12, max_size=12),
)
RECORDS = st.tuples(
    st.sampled_from([b"path", b"size", b"linkpath", b"GNU.sparse.major", b"GNU.sparse.name", b"mtime"]),
    st.one_of(NAMES, st.integers(-5, 1 << 70).map(lambda number: str(number).encode()), st.binary(max_size=9)),
)


def sized(size: int | bytes) -> bytes:
    return size if isinstance(size, bytes) else tar_number(size, 12)


ANY_PART = st.one_of(
    st.builds(tar_member, NAMES, st.binary(max_size=1100), kind=KINDS, mode=st.sampled_from([0o644, 0o4755, 0o2755])),
    st.builds(tar_member, NAMES, st.binary(max_size=700), kind=KINDS, size=SIZES.map(sized), prefix=NAMES, link=NAMES),
    st.builds(tar_header, NAMES, size=SIZES.map(sized), kind=KINDS, checksum=st.none() | st.integers(0, 99999)),
    st.builds(tar_member, NAMES, st.binary(max_size=99), magic=st.sampled_from([b"ustar  \0", b"", b"\xff" * 8])),
    st.builds(gnu_long_name, NAMES, st.sampled_from([b"L", b"K"])),
    st.lists(RECORDS, max_size=4).map(lambda records: pax(*records)),
    st.lists(RECORDS, max_size=2).map(lambda records: pax(*records, kind=b"g")),
    st.builds(tar_member, NAMES, st.binary(max_size=80), kind=st.sampled_from([b"x", b"g", b"L", b"K"])),
    st.just(bytes(512)),
    st.just(tar_member(b"d/x", PROGRAM)),
    st.binary(min_size=512, max_size=512),
)


class Honest(t.NamedTuple):
    """A member that is what it says, told in one of the formats."""

    name: bytes
    data: bytes
    form: str

    def parts(self) -> bytes:
        if self.form == "gnu":
            return gnu_long_name(self.name) + tar_member(b"cut", self.data, magic=b"ustar  \0")
        if self.form == "pax" or len(self.name) > 100:
            return pax((b"path", self.name), (b"mtime", b"1.5")) + tar_member(b"cut", self.data)
        if self.form == "prefix" and b"/" in self.name[1:]:
            prefix, _slash, rest = self.name.partition(b"/")
            return tar_member(rest, self.data, prefix=prefix)
        return tar_member(self.name, self.data, kind=b"\0" if self.form == "v7" else b"0")


HONEST = st.lists(
    st.builds(Honest, GOOD_NAMES, st.binary(max_size=2000), st.sampled_from(["gnu", "pax", "prefix", "v7", "ustar"])),
    max_size=6,
)
COMPRESS: dict[str, t.Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "two": lambda data: gzip.compress(data[:700], 1, mtime=0) + gzip.compress(data[700:], 1, mtime=0) + bytes(5),
    "xz": lambda data: lzma.compress(data, preset=0),
}


def is_wanted(name: str) -> bool:
    return posixpath.normpath(name) == WANTED


@fuzz(200)
@given(HONEST, st.sampled_from(sorted(COMPRESS)))
def test_the_wanted_member_comes_out_of_an_honest_tar(sandbox: Sandbox, members: list[Honest], how: str) -> None:
    plain = b"".join(member.parts() for member in members) + TAR_END
    wanted = [member.data for member in members if is_wanted(member.name.decode())]
    assert sandbox.extract(COMPRESS[how](plain)) == (wanted[0] if len(wanted) == 1 else None)


@fuzz(500)
@given(st.lists(ANY_PART, max_size=7), st.sampled_from([TAR_END, b"", bytes(512), bytes(5000)]))
def test_any_headers_give_a_part_of_the_tar_or_an_error(sandbox: Sandbox, parts: list[bytes], end: bytes) -> None:
    plain = b"".join(parts) + end
    agrees_with_the_standard_library(sandbox.extract(COMPRESS["gzip"](plain)), plain)


def agrees_with_the_standard_library(found: bytes | None, plain: bytes) -> None:
    """What is taken out of a tar is in it, and is what Python's own reader takes out, if that can read it."""
    if found is None:
        return
    assert found in plain
    readable = contextlib.suppress(tarfile.TarError, ValueError, OverflowError, EOFError)
    with readable, tarfile.open(fileobj=io.BytesIO(plain)) as bundle:
        same = [member for member in bundle if is_wanted(member.name)]  # at a header that it can't read, it just ends
        assert [t.cast("t.IO[bytes]", bundle.extractfile(member)).read() for member in same] in ([], [found])


# -- zip, of headers -------------------------------------------------------------------------------------------------

FIELDS = st.dictionaries(
    st.sampled_from(["crc", "packed", "size", "start", "flags", "method", "system"]),
    st.sampled_from([0, 1, 2, 3, 7, 8, 30, 255]),
    max_size=2,
)
ANY_ZIP_MEMBER = st.builds(
    ZipMember,
    NAMES,
    st.binary(max_size=900),
    method=st.sampled_from([8, 8, 8, 0, 12, 14]),
    flags=st.sampled_from([0, 0, 0x800, 8, 1, 0x40]),
    mode=st.sampled_from([0o100644, 0, 0o120777, 0o104755, 0o020644, 0o40755]),
    central=FIELDS | st.just({}),
    local=FIELDS | st.fixed_dictionaries({"name": NAMES}) | st.just({}),
    behind=st.binary(max_size=20),
    extra=st.binary(max_size=24),
)
ENDS = st.dictionaries(st.sampled_from(["disk", "count", "length", "start"]), st.integers(0, 0xFFFF), max_size=1)


@fuzz(200)
@given(st.lists(st.tuples(GOOD_NAMES, st.binary(max_size=2000), st.sampled_from([0, 8])), max_size=6))
def test_the_wanted_member_comes_out_of_an_honest_zip(
    sandbox: Sandbox, members: list[tuple[bytes, bytes, int]]
) -> None:
    content = zip_of(*(ZipMember(name, data, method, flags=0x800) for name, data, method in members))
    wanted = [data for name, data, _method in members if is_wanted(name.decode())]
    assert sandbox.extract(content, "a.zip") == (wanted[0] if len(wanted) == 1 else None)


@fuzz(500)
@given(st.lists(ANY_ZIP_MEMBER | st.just(ZipMember(b"d/x", PROGRAM)), max_size=5), ENDS, st.binary(max_size=30))
def test_any_zip_gives_a_member_or_an_error(
    sandbox: Sandbox, members: list[ZipMember], end: dict[str, int], comment: bytes
) -> None:
    content = zip_of(*members, comment=comment, **end)
    found = sandbox.extract(content, "a.zip")
    assert found is None or found in {member.data for member in members} | {b""}


# -- good archives that were changed ---------------------------------------------------------------------------------


def good_tar() -> bytes:
    return b"".join(
        (
            pax((b"comment", b"a commit"), kind=b"g"),
            tar_member(b"d/", kind=b"5", mode=0o755),
            pax((b"path", b"a" * 130 + b"/y"), (b"mtime", b"1.25")) + tar_member(b"y", b"y" * 600),
            gnu_long_name(b"b" * 130 + b"/y") + tar_member(b"y", b"z" * 10),
            tar_member(b"d/x", PROGRAM),
            tar_member(b"d/link", kind=b"2", link=b"x"),
            TAR_END,
        )
    )


def good_zip() -> bytes:
    return zip_of(
        ZipMember(b"d/", method=0, mode=0o40755),
        ZipMember(b"d/y", b"y" * 600),
        ZipMember(b"d/x", PROGRAM, flags=8, behind=b"PK\7\x08" + bytes(12)),
    )


GOOD = {
    "tar": good_tar(),
    "tar.gz": COMPRESS["gzip"](good_tar()),
    "tar.xz": COMPRESS["xz"](good_tar()),
    "zip": good_zip(),
}
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "repeat", "insert", "move"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)


def changed(data: bytes, changes: list[tuple[str, float, float, bytes]]) -> bytes:
    for what, where, other, new in changes:
        place, second = int(where * len(data)), int(other * len(data))
        low, high = sorted((place, second))
        data = {
            "flip": data[:place] + bytes([data[place] ^ (1 << new[0] % 8)]) + data[place + 1 :] if data else data,
            "set": data[:place] + new + data[place + len(new) :],
            "cut": data[:place],
            "drop": data[:low] + data[high:],
            "repeat": data[:high] + data[low:],
            "insert": data[:place] + new + data[place:],
            "move": data[:place] + data[second : second + 512] + data[place:],
        }[what]
    return data


def with_checksums(plain: bytes) -> bytes:
    """A tar whose headers have right checksums again, as somebody would do who changes one on purpose."""
    made = bytearray(plain)
    for start in range(0, len(made) - 511, 512):
        if made[start + 257 : start + 262] == b"ustar":
            made[start + 148 : start + 156] = b" " * 8
            made[start + 148 : start + 156] = f"{sum(made[start : start + 512]):06o}".encode() + b"\0 "
    return bytes(made)


@fuzz(500)
@given(CHANGES, st.booleans())
def test_a_changed_tar_gives_a_part_of_it_or_an_error(
    sandbox: Sandbox, changes: list[tuple[str, float, float, bytes]], repaired: bool
) -> None:
    plain = changed(GOOD["tar"], changes)
    plain = with_checksums(plain) if repaired else plain
    agrees_with_the_standard_library(sandbox.extract(COMPRESS["gzip"](plain)), plain)


@fuzz(500)
@given(CHANGES, st.sampled_from(["tar.gz", "tar.xz", "zip"]))
def test_a_changed_archive_gives_the_same_bytes_or_an_error(
    sandbox: Sandbox, changes: list[tuple[str, float, float, bytes]], kind: str
) -> None:
    content = changed(GOOD[kind], changes)
    found = sandbox.extract(content, f"a.{kind}")
    assert found in (None, PROGRAM)
    readable = contextlib.suppress(zipfile.BadZipFile, NotImplementedError, ValueError)
    if found and kind == "zip":
        with readable, zipfile.ZipFile(sandbox.archive) as bundle:
            assert bundle.read(WANTED) == found


@fuzz(200)
@given(st.binary(max_size=2000), st.sampled_from([b"", b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"PK\3\4", b"PK\5\6", b"BZh"]))
def test_any_bytes_give_themselves_or_an_error(sandbox: Sandbox, content: bytes, magic: bytes) -> None:
    assert sandbox.extract(magic + content, "x", wanted="x") in (None, magic + content)


# -- what it costs ---------------------------------------------------------------------------------------------------

HUGE = st.sampled_from([1 << 30, 1 << 34, 1 << 62])


@fuzz(30)
@given(st.sampled_from([b"x", b"L", b"K", b"g", b"0", b"5", b"2", b"S"]), HUGE, st.sampled_from([b"d/x", b"d/y"]))
def test_what_is_announced_takes_no_memory(sandbox: Sandbox, kind: bytes, size: int, name: bytes) -> None:
    plain = tar_member(b"d/z", b"z") + tar_header(name, size=sized(size), kind=kind) + bytes(8 << 20)
    content = COMPRESS["gzip"](plain)
    tracemalloc.start()
    try:
        assert sandbox.extract(content) is None
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()
