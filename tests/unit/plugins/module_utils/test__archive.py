# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import io
import lzma
import os
import pathlib
import re
import struct
import subprocess
import tarfile
import typing as t
import zipfile

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _archive, _archive_stream, _archive_tar
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError
from ansible_collections.observability.stack.tests.unit.archives import (
    TAR_END,
    ZipMember,
    deflate,
    gnu_long_name,
    pax,
    tar_gz,
    tar_header,
    tar_member,
    zip_of,
)

PROGRAM = b"\x7fELF program " * 5000
WANTED = "x-1.0.linux-amd64/x"
NAME = "x-1.0.linux-amd64.tar.gz"


def member(name: str, data: bytes = b"", **changes: t.Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def tar(path: pathlib.Path, *members: tuple[tarfile.TarInfo, bytes]) -> pathlib.Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as bundle:
        for info, data in members:
            bundle.addfile(info, io.BytesIO(data))
    path.write_bytes(gzip.compress(plain.getvalue()))
    return path


GOOD = (
    member("x-1.0.linux-amd64", type=tarfile.DIRTYPE),
    member(WANTED, PROGRAM),
    member("x-1.0.linux-amd64/LICENSE", b"l"),
)


@pytest.fixture
def room(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory to write into, inside of one in which nothing else may appear."""
    path = tmp_path / "outside" / "room"
    path.mkdir(parents=True)
    return path


def extract(archive: pathlib.Path, room: pathlib.Path, *, wanted: str = WANTED, name: str = NAME) -> dict[str, str]:
    return _archive.extract(str(archive), name=name, members={"x": wanted}, directory=str(room))


def everything(path: pathlib.Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def test_only_the_wanted_member_is_written(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    paths = extract(tar(tmp_path / "a", *GOOD), room)
    assert paths == {"x": str(room / "x")}
    assert (room / "x").read_bytes() == PROGRAM
    assert (room / "x").stat().st_mode & 0o7777 == 0o600
    assert everything(room.parent) == ["room", "room/x"]


def test_a_tar_of_xz_a_zip_and_a_bare_program_are_told_by_their_content(
    tmp_path: pathlib.Path, room: pathlib.Path
) -> None:
    good = tar(tmp_path / "a", *GOOD)
    (tmp_path / "b").write_bytes(lzma.compress(gzip.decompress(good.read_bytes())))
    with zipfile.ZipFile(tmp_path / "c", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("loki-linux-amd64", PROGRAM)
    (tmp_path / "d").write_bytes(PROGRAM)
    for archive, wanted, name in (
        ("b", WANTED, NAME),
        ("c", "loki-linux-amd64", "loki-linux-amd64.zip"),
        ("d", "php-fpm_exporter_2.2.0_linux_amd64", "php-fpm_exporter_2.2.0_linux_amd64"),
    ):
        extract(tmp_path / archive, room, wanted=wanted, name=name)
        assert (room / "x").read_bytes() == PROGRAM
        (room / "x").unlink()


def test_names_with_a_leading_dot_are_the_same_member(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    extract(tar(tmp_path / "a", member(f"./{WANTED}", PROGRAM)), room)
    assert (room / "x").read_bytes() == PROGRAM


@pytest.mark.parametrize(
    "bad",
    [
        member("../../evil", b"evil"),
        member("x-1.0.linux-amd64/../../evil", b"evil"),
        member("/evil", b"evil"),
        member("C:\\evil", b"evil"),
        member("x\\..\\evil", b"evil"),
        member("x\0-1.0.linux-amd64/x"),
        member("x-1.0.linux-amd64/device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("x-1.0.linux-amd64/block", type=tarfile.BLKTYPE, devmajor=8),
        member("x-1.0.linux-amd64/fifo", type=tarfile.FIFOTYPE),
        member("x-1.0.linux-amd64/holes", type=tarfile.GNUTYPE_SPARSE),
        member("x-1.0.linux-amd64/volume", type=b"M"),
        member("x-1.0.linux-amd64/unknown", type=b"~"),
        member("x-1.0.linux-amd64/root", b"r", mode=0o4755),
        member("x-1.0.linux-amd64/group", b"r", mode=0o2755),
        member(WANTED, PROGRAM),
        member(WANTED, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member(WANTED, type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_an_unsafe_archive_is_refused_as_a_whole_with_the_members_name(
    tmp_path: pathlib.Path, room: pathlib.Path, bad: tuple[tarfile.TarInfo, bytes], first: bool
) -> None:
    archive = tar(tmp_path / "a", *((bad, *GOOD) if first else (*GOOD, bad)))
    with pytest.raises(ReleaseError) as failure:
        extract(archive, room)
    assert failure.value.key == "release.unsafe_archive"
    assert repr(bad[0].name) in str(failure.value)
    assert everything(room.parent) == ["room"]


@pytest.mark.parametrize(
    "kind, why",
    [(tarfile.SYMTYPE, "it is a link"), (tarfile.LNKTYPE, "it is a link"), (tarfile.CHRTYPE, "it is a device")],
)
def test_a_wanted_member_that_is_no_file_is_refused(
    tmp_path: pathlib.Path, room: pathlib.Path, kind: bytes, why: str
) -> None:
    with pytest.raises(ReleaseError, match=why):
        extract(tar(tmp_path / "a", member(WANTED, type=kind, linkname="LICENSE")), room)
    assert everything(room.parent) == ["room"]


def test_links_in_a_zip_are_refused(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    info = zipfile.ZipInfo("loki-linux-amd64")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a", "w") as bundle:
        bundle.writestr(info, "/etc/passwd")
    with pytest.raises(ReleaseError, match="it is a link"):
        extract(tmp_path / "a", room, wanted="loki-linux-amd64")
    with zipfile.ZipFile(tmp_path / "b", "w") as bundle:
        bundle.writestr("../evil", "x")
    with pytest.raises(ReleaseError, match="leads out of the archive"):
        extract(tmp_path / "b", room, wanted="loki-linux-amd64")
    assert everything(room.parent) == ["room"]


@pytest.mark.parametrize("keep", [0.2, 0.7, 0.999])
def test_a_truncated_archive_is_refused(tmp_path: pathlib.Path, room: pathlib.Path, keep: float) -> None:
    archive = tar(tmp_path / "a", member(WANTED, os.urandom(200_000)), member("LICENSE", os.urandom(1000)))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ReleaseError, match=r"truncated or damaged|is truncated") as failure:
        extract(archive, room)
    assert failure.value.key == "release.damaged_archive"
    assert everything(room.parent) == ["room"]


def test_a_flipped_bit_is_noticed_by_the_archive_itself(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    archive = tar(tmp_path / "a", *GOOD)
    data = bytearray(archive.read_bytes())
    data[-6] ^= 1
    archive.write_bytes(data)
    with pytest.raises(ReleaseError, match="damaged"):
        extract(archive, room)
    assert everything(room.parent) == ["room"]


def test_a_member_that_is_not_there_is_named(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    with pytest.raises(ReleaseError, match="has no member y/x: this release is laid out") as failure:
        extract(tar(tmp_path / "a", *GOOD), room, wanted="y/x")
    assert failure.value.key == "release.member_missing"
    with pytest.raises(ReleaseError, match="has no member"):
        extract(tar(tmp_path / "b", member(WANTED, type=tarfile.DIRTYPE)), room)


def test_a_member_larger_than_any_program_is_refused(
    tmp_path: pathlib.Path, room: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_archive, "LIMITS", _archive_stream.Limits(member=1000))
    with pytest.raises(ReleaseError, match="more than 1000"):
        extract(tar(tmp_path / "a", *GOOD), room)
    assert everything(room.parent) == ["room"]


def refused(archive: pathlib.Path, content: bytes, room: pathlib.Path, *, wanted: str = "x") -> tuple[str, str]:
    """The key and the message of the error that an archive gives. Nothing of it is left."""
    archive.write_bytes(content)
    with pytest.raises(ReleaseError) as failure:
        extract(archive, room, wanted=wanted)
    assert everything(room.parent) == ["room"]
    return failure.value.key, str(failure.value)


def taken(archive: pathlib.Path, content: bytes, room: pathlib.Path, *, wanted: str = "x") -> bytes:
    """What is written of the wanted member."""
    archive.write_bytes(content)
    path = pathlib.Path(extract(archive, room, wanted=wanted)["x"])
    assert everything(room.parent) == ["room", "room/x"]
    found = path.read_bytes()
    path.unlink()
    return found


def test_links_that_nobody_wants_are_read_over(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    links = (
        member("x-1.0.linux-amd64/old-name", type=tarfile.SYMTYPE, linkname="x"),
        member("x-1.0.linux-amd64/out", type=tarfile.SYMTYPE, linkname="../../../etc"),
        member("x-1.0.linux-amd64/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    )
    extract(tar(tmp_path / "a", *links, *GOOD), room)
    assert (room / "x").read_bytes() == PROGRAM
    assert everything(room.parent) == ["room", "room/x"]


def test_a_second_spelling_of_the_wanted_name_is_the_same_member(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    with pytest.raises(ReleaseError, match="it is there twice"):
        extract(tar(tmp_path / "a", *GOOD, member("./x-1.0.linux-amd64//./x", PROGRAM)), room)


def test_nobody_writes_through_a_link_of_the_archive(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    link = member("x-1.0.linux-amd64", type=tarfile.SYMTYPE, linkname=str(tmp_path / "elsewhere"))
    extract(tar(tmp_path / "a", link, member(WANTED, PROGRAM)), room)
    assert (room / "x").read_bytes() == PROGRAM
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("file_name", ["../x", "/x", "a/x", "..", ".", "", "x\0y"])
def test_a_file_name_that_is_a_path_is_refused(tmp_path: pathlib.Path, room: pathlib.Path, file_name: str) -> None:
    archive = tar(tmp_path / "a", *GOOD)
    with pytest.raises(InputError, match="is no name of a file"):
        _archive.extract(str(archive), name=NAME, members={file_name: WANTED}, directory=str(room))
    assert everything(room.parent) == ["room"]


def test_one_member_is_not_for_two_files(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    archive = tar(tmp_path / "a", *GOOD)
    with pytest.raises(InputError, match="for two files"):
        _archive.extract(str(archive), name=NAME, members={"x": WANTED, "y": f"./{WANTED}"}, directory=str(room))


def test_what_was_there_before_is_neither_written_nor_removed(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    outside = tmp_path / "outside" / "mine"
    outside.write_text("mine")
    (room / "x").symlink_to(outside)
    with pytest.raises(FileExistsError):
        extract(tar(tmp_path / "a", *GOOD), room)
    assert outside.read_text() == "mine"
    assert (room / "x").is_symlink()


@pytest.mark.parametrize("name", ["a.tar.bz2", "a.7z", "a.rar", "a.deb"])
def test_an_archive_of_another_kind_is_told_from_a_program(
    tmp_path: pathlib.Path, room: pathlib.Path, name: str
) -> None:
    starts = {"a.tar.bz2": b"BZh91AY", "a.7z": b"7z\xbc\xaf\x27\x1c", "a.rar": b"Rar!\x1a", "a.deb": b"!<arch>\n"}
    (tmp_path / name).write_bytes(starts[name])
    with pytest.raises(ReleaseError, match=r"read are tar\.gz") as failure:
        extract(tmp_path / name, room, name=name)
    assert failure.value.key == "release.unknown_archive"


# -- tar ---------------------------------------------------------------------------------------------------------------

LONG = b"a" * 90 + b"/" + b"b" * 90 + b"/x"


@pytest.mark.parametrize(
    "parts",
    [
        [gnu_long_name(LONG), tar_member(LONG, PROGRAM)],
        [gnu_long_name(b"far", b"K"), gnu_long_name(LONG), tar_member(LONG, PROGRAM, magic=b"ustar  \0")],
        [pax((b"path", LONG), (b"mtime", b"1.5"), (b"SCHILY.xattr.user.a", b"x\ny=z")), tar_member(b"x", PROGRAM)],
        [pax((b"comment", b"a commit"), kind=b"g"), pax((b"path", LONG)), tar_member(b"x", PROGRAM)],
        [tar_member(b"b" * 90 + b"/x", PROGRAM, prefix=b"a" * 90)],
        [pax((b"path", LONG), (b"size", str(len(PROGRAM)).encode())), tar_member(b"x", PROGRAM)],
    ],
    ids=["gnu", "gnu with a long link", "pax", "pax for all", "prefix", "pax with the same size"],
)
def test_long_names_are_read_in_each_format(tmp_path: pathlib.Path, room: pathlib.Path, parts: list[bytes]) -> None:
    assert taken(tmp_path / "a", tar_gz(*parts), room, wanted=LONG.decode()) == PROGRAM


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": b"", "kind": b"\0"},
        {"magic": b"ustar  \0"},
        {"kind": b"7"},
        {"size": b"\x80" + bytes(7) + len(PROGRAM).to_bytes(4, "big")},
        {"size": f"{len(PROGRAM):>10o} ".encode()},
        {"mode": 0o1777},
    ],
    ids=["Unix 7", "GNU", "contiguous", "binary size", "spaces", "sticky"],
)
def test_headers_of_other_programs_are_read(
    tmp_path: pathlib.Path, room: pathlib.Path, changes: dict[str, t.Any]
) -> None:
    assert taken(tmp_path / "a", tar_gz(tar_member(b"x", PROGRAM, **changes)), room) == PROGRAM


def test_every_format_of_the_standard_library_is_read(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a", "w:xz", format=form) as bundle:
            for info, data in (member("ü" * 20, b"y"), member(f"{'d' * 90}/{'ü' * 30}/x", PROGRAM)):
                bundle.addfile(info, io.BytesIO(data))
        extract(tmp_path / "a", room, wanted=f"{'d' * 90}/{'ü' * 30}/x")
        assert (room / "x").read_bytes() == PROGRAM
        (room / "x").unlink()


X = tar_member(b"x", PROGRAM)


@pytest.mark.parametrize(
    "content, why",
    [
        (tar_gz(X, end=b""), "ends too early"),
        (tar_gz(X, end=bytes(300)), "ends too early"),
        (tar_gz(X[:-512], end=b""), "ends too early"),
        (tar_gz(tar_header(b"x", size=10**9), PROGRAM), "ends too early"),
        (tar_gz(tar_header(b"x", size=-512), PROGRAM), "negative number"),
        (tar_gz(tar_header(b"x", size=b"12x"), PROGRAM), "no number"),
        (tar_gz(tar_header(b"x", checksum=1)), "wrong checksum"),
        (tar_gz(pax((b"size", b"-1")), X), "no number"),
        (tar_gz(pax((b"size", b"1" * 5000)), X), "no number"),
        (tar_gz(tar_member(b"p", b"99999 path=x\n", kind=b"x"), X), "can't be read"),
        (tar_gz(tar_member(b"p", b"0 path=x\n", kind=b"x"), X), "can't be read"),
        (tar_gz(tar_member(b"p", b"12 path-long\n", kind=b"x"), X), "can't be read"),
        (tar_gz(tar_member(b"p", b"no", kind=b"x"), X), "can't be read"),
        (tar_gz(pax((b"path", b"y")), pax((b"path", b"x")), X), "two extended headers"),
        (tar_gz(pax((b"path", b"y"), (b"path", b"x")), X), "two names"),
        (tar_gz(gnu_long_name(b"y"), pax((b"path", b"x")), X), "two names"),
        (tar_gz(X, pax((b"path", b"y"))), "has no member"),
        (gzip.compress(b"no tar at all" * 100, mtime=0), "damaged"),
        (tar_gz(X)[:-5], "ends too early"),
        (tar_gz(X)[:-8] + bytes(8), "can't be decompressed"),
        (tar_gz(X) + b"garbage behind it, longer than a header", "can't be decompressed"),
        (tar_gz(X) + b"\x1f", "ends too early"),
        (lzma.compress(X + TAR_END) + b"garbage", "can't be decompressed|too early"),
        (lzma.compress(X + TAR_END)[:-3], "ends too early"),
        (b"\x1f\x8b", "ends too early"),
    ],
)
def test_a_damaged_tar_is_told_as_damaged(tmp_path: pathlib.Path, room: pathlib.Path, content: bytes, why: str) -> None:
    key, message = refused(tmp_path / "a", content, room)
    assert key == "release.damaged_archive"
    assert re.search(why, message)


@pytest.mark.parametrize(
    "content, why",
    [
        (tar_gz(X, TAR_END, tar_member(b"y", b"hidden")), "behind its end"),
        (tar_gz(X, end=TAR_END + b"garbage"), "behind its end"),
        (tar_gz(X) + gzip.compress(b"garbage", mtime=0), "behind its end"),
        (tar_gz(pax((b"size", b"5")), X), "'x': two sizes"),
        (tar_gz(pax((b"path", b"x"), kind=b"g"), X), "one name or size"),
        (tar_gz(pax((b"size", b"5"), kind=b"g"), X), "one name or size"),
        (tar_gz(pax((b"GNU.sparse.major", b"1")), X), "'x': it is a device, a pipe, or another special"),
        (tar_gz(pax((b"path", b"x\0y")), X), "leads out"),
        (tar_gz(gnu_long_name(b"x\0y"), X), "leads out"),
        (tar_gz(pax((b"path", b"../x")), X), r"'\.\./x': its name leads out"),
        (tar_gz(tar_member(b"x", PROGRAM, prefix=b"..")), r"'\.\./x': its name leads out"),
        (tar_gz(tar_header(b"y", kind=b"2", size=512), X), "'y': it is no file, but has content"),
        (tar_gz(tar_header(b"y", kind=b"5", size=512), X), "'y': it is no file, but has content"),
        (tar_gz(tar_header(b"x", size=1 << 62)), "more than"),
        (tar_gz(tar_header(b"x", size=b"\xb2" + bytes(11)), PROGRAM), "more than"),
        (tar_gz(tar_header(b"p", kind=b"x", size=1 << 40)), "a header of it announces"),
        (tar_gz(tar_header(b"p", kind=b"L", size=1 << 40)), "a header of it announces"),
    ],
)
def test_a_tar_that_can_be_read_in_two_ways_or_never_ends_is_refused(
    tmp_path: pathlib.Path, room: pathlib.Path, content: bytes, why: str
) -> None:
    key, message = refused(tmp_path / "a", content, room)
    assert key == "release.unsafe_archive"
    assert re.search(why, message)


def test_zeros_may_fill_up_what_is_behind_the_end(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    for content in (
        tar_gz(X, end=bytes(512)),
        tar_gz(X, end=bytes(10240)) + bytes(100_000),
        gzip.compress(X, mtime=0) + gzip.compress(TAR_END, mtime=0),
        lzma.compress(X) + bytes(8) + lzma.compress(TAR_END) + bytes(4),
    ):
        assert taken(tmp_path / "a", content, room) == PROGRAM


def test_bombs_are_refused_before_they_cost_anything(
    tmp_path: pathlib.Path, room: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        _archive, "LIMITS", _archive_stream.Limits(small=2 << 20, total=20 << 20, members=50, streams=9)
    )
    zeros = bytes(3 << 20)
    bombs = {
        "a member nobody wants": tar_gz(tar_member(b"y", zeros), X),
        "in xz": lzma.compress(tar_member(b"y", zeros) + X + TAR_END),
        "behind the end": tar_gz(X, end=zeros),
        "announced only": tar_gz(tar_header(b"y", size=1 << 40), zeros),
        "more than ever": tar_gz(*(tar_member(b"y", os.urandom(1 << 20)) for number in range(22))),
    }
    for name, content in bombs.items():
        key, message = refused(tmp_path / "a", content, room)
        assert (name, key) == (name, "release.unsafe_archive")
        assert "as a bomb does" in message
    assert "more than 50 members" in refused(tmp_path / "a", tar_gz(*[tar_member(b"y")] * 60, X), room)[1]
    assert "more than 50 members" in refused(tmp_path / "a", tar_gz(*[pax(), tar_member(b"y")] * 30, X), room)[1]
    assert "more than 9 compressed parts" in refused(tmp_path / "a", gzip.compress(b"") * 9 + tar_gz(X), room)[1]
    zipped = zip_of(ZipMember(b"x", zeros))
    assert "as a bomb does" in refused(tmp_path / "a", zipped, room)[1]
    assert taken(tmp_path / "a", zip_of(ZipMember(b"y", zeros), ZipMember(b"x", PROGRAM)), room) == PROGRAM
    assert "it has 60 members" in refused(tmp_path / "a", zip_of(*[ZipMember(b"y")] * 60), room)[1]


def test_xz_gets_no_more_memory_than_a_release_needs(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    huge = lzma.compress(X + TAR_END, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}])
    assert "emory" in refused(tmp_path / "a", huge, room)[1]


def test_an_extended_header_that_is_read_over_costs_no_memory() -> None:
    limited = _archive_stream.Stream(iter([tar_header(b"p", kind=b"x", size=1 << 40)]), limit=1 << 50)
    with pytest.raises(_archive_stream.RefusedError, match="announces"):
        next(_archive_tar.entries(limited, members=5))


# -- zstd --------------------------------------------------------------------------------------------------------------


def stand_in(tmp_path: pathlib.Path, content: bytes, *, then: str = "") -> list[str]:
    """A stand-in for zstd: it writes what it is to have decompressed."""
    (tmp_path / "content").write_bytes(content)
    return ["sh", "-c", f"cat {tmp_path / 'content'}; {then}"]


@pytest.fixture
def old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Python 3.14."""
    monkeypatch.setitem(_archive_stream._DECOMPRESSORS, "zstd", lambda: None)


def extract_zstd(tmp_path: pathlib.Path, room: pathlib.Path, zstd: list[str]) -> bytes:
    (tmp_path / "a").write_bytes(b"\x28\xb5\x2f\xfd something")
    paths = _archive.extract(str(tmp_path / "a"), name=NAME, members={"x": "x"}, directory=str(room), zstd=zstd)
    return pathlib.Path(paths["x"]).read_bytes()


@pytest.mark.usefixtures("old_python")
def test_zstd_is_read_by_the_program_where_python_can_not(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    assert extract_zstd(tmp_path, room, stand_in(tmp_path, X + TAR_END)) == PROGRAM


@pytest.mark.usefixtures("old_python")
def test_a_zstd_that_fails_or_never_ends_leaves_nothing(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    for zstd, why in (
        (stand_in(tmp_path, X + TAR_END, then="exit 1"), "zstd ended with status 1"),
        (stand_in(tmp_path, X, then="exit 1"), "zstd ended with status 1"),
        (stand_in(tmp_path, X, then="exec cat /dev/zero"), "as a bomb does"),
        (stand_in(tmp_path, X, then="exec yes"), "wrong checksum|no number"),
        (["zstd-is-not-here"], "zstd-is-not-here can't be started on this host .*: install zstd"),
    ):
        with pytest.raises(ReleaseError, match=why):
            extract_zstd(tmp_path, room, zstd)
        assert everything(room.parent) == ["room"]


def test_the_real_zstd_does(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    (tmp_path / "plain").write_bytes(X + TAR_END)
    subprocess.run(["zstd", "-q", str(tmp_path / "plain"), "-o", str(tmp_path / "packed")], check=True)
    packed = (tmp_path / "packed").read_bytes()
    assert taken(tmp_path / "a", packed, room) == PROGRAM
    assert refused(tmp_path / "a", packed[:-9], room)[0] == "release.damaged_archive"
    assert refused(tmp_path / "a", packed + b"garbage", room)[0] == "release.damaged_archive"


# -- zip ---------------------------------------------------------------------------------------------------------------

Z = ZipMember(b"x", PROGRAM)
DESCRIPTOR = b"PK\7\x08" + bytes(12)
LONG_SIZES = struct.pack("<HHQQ", 1, 16, len(PROGRAM), len(deflate(PROGRAM)))


@pytest.mark.parametrize(
    "content",
    [
        zip_of(ZipMember(b"d/", method=0, mode=0o40755), ZipMember(b"d/y", b"y"), Z),
        zip_of(Z._replace(method=0), comment=b"a comment"),
        zip_of(Z._replace(flags=8, local={"crc": 0, "packed": 0, "size": 0}, behind=DESCRIPTOR)),
        zip_of(Z._replace(extra=LONG_SIZES, local={"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF})),
        zip_of(Z._replace(mode=0, central={"system": 0})),
        zip_of(Z._replace(flags=0x800)),
        zip_of(ZipMember(b"link", b"../../etc", mode=0o120777), Z),
        zip_of(ZipMember(b"y", b"y", method=14), Z),
    ],
    ids=["directories", "stored", "sizes behind", "zip64 sizes", "DOS", "UTF-8", "a link", "another method"],
)
def test_zips_of_other_programs_are_read(tmp_path: pathlib.Path, room: pathlib.Path, content: bytes) -> None:
    assert taken(tmp_path / "a", content, room) == PROGRAM


@pytest.mark.parametrize(
    "content, why",
    [
        (zip_of(Z._replace(mode=0o120777)), "'x': it is a link"),
        (zip_of(Z._replace(mode=0o104755)), "'x': it would run as another user"),
        (zip_of(ZipMember(b"y", mode=0o020644), Z), "'y': it is a device"),
        (zip_of(Z._replace(flags=1)), "'x': it is encrypted"),
        (zip_of(ZipMember(b"y", flags=0x40), Z), "'y': it is encrypted"),
        (zip_of(Z, Z), "'x': it is there twice"),
        (zip_of(Z, ZipMember(b"./x", b"")), "'./x': it is there twice"),
        (zip_of(ZipMember(b"x\0.txt", PROGRAM)), "leads out"),
        (zip_of(ZipMember(b"/x", PROGRAM)), "leads out"),
        (zip_of(Z._replace(local={"name": b"y"})), "'x': its own header says something else"),
        (zip_of(Z._replace(local={"size": 5})), "'x': its own header says something else"),
        (zip_of(Z._replace(local={"method": 0})), "'x': its own header says something else"),
        (zip_of(Z._replace(local={"flags": 1})), "'x': its own header says something else"),
        (zip_of(ZipMember(b"y", local={"name": b"z"}), Z), "'y': its own header says something else"),
        (zip_of(Z._replace(local={"size": 0xFFFFFFFF})), "'x': its own header says something else"),
        (zip_of(Z, ZipMember(b"y", central={"start": 0, "name": b"x"})), "lies over|twice|something else"),
        (zip_of(Z._replace(central={"packed": 10**6}, local={"packed": 10**6})), "'x': it lies over another one"),
        (zip_of(Z._replace(method=12)), "'x': it is compressed by method 12"),
        (zip_of(Z._replace(central={"size": 10}, local={"size": 10})), "more than the 10 bytes it announced"),
        (zip_of(Z._replace(central={"size": 0xFFFFFFFF})), "'x': it has more than 4 GiB"),
    ],
)
def test_an_unsafe_zip_is_refused(tmp_path: pathlib.Path, room: pathlib.Path, content: bytes, why: str) -> None:
    key, message = refused(tmp_path / "a", content, room)
    assert key == "release.unsafe_archive"
    assert re.search(why, message)


def test_a_zip64_is_told_from_a_damaged_zip(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    plain = zip_of(Z)
    locator = b"PK\6\6" + bytes(52) + b"PK\6\7" + bytes(16)
    for content in (zip_of(Z, count=0xFFFF), zip_of(Z, start=0xFFFFFFFF), plain[:-22] + locator + plain[-22:]):
        key, message = refused(tmp_path / "a", content, room)
        assert key == "release.unknown_archive"
        assert "it is a zip64" in message


def test_members_of_a_zip_that_share_their_data_are_refused(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    content = zip_of(ZipMember(b"x", PROGRAM), ZipMember(b"x", PROGRAM, central={"start": 0}))
    assert "'x': it lies over another one" in refused(tmp_path / "a", content, room)[1]


@pytest.mark.parametrize(
    "content, why",
    [
        (zip_of(Z)[:-1], "no directory|behind its end"),
        (zip_of(Z)[:-30], "no directory"),
        (zip_of(Z) + b"x", "behind its end"),
        (zip_of(Z, comment=b"PK\5\6 and more of this"), "damaged"),
        (zip_of(Z, count=2), "ends too early|disagree|isn't where"),
        (zip_of(Z, count=0), "longer than its members"),
        (zip_of(Z, start=1), "isn't where"),
        (zip_of(Z, disk=1), "isn't where"),
        (zip_of(Z, length=10, start=5), "isn't where"),
        (zip_of(Z._replace(central={"start": 10**6})), "isn't where"),
        (zip_of(Z._replace(central={"start": 7})), "isn't where"),
        (zip_of(Z._replace(central={"crc": 1}, local={"crc": 1})), "wrong checksum or length"),
        (zip_of(Z._replace(central={"size": 10**5}, local={"size": 10**5})), "wrong checksum or length"),
        (zip_of(ZipMember(b"x", PROGRAM, method=0, central={"method": 8}, local={"method": 8})), "can't be decompr"),
        (zip_of(ZipMember(b"x", deflate(b"y") + b"z", 0, central={"method": 8}, local={"method": 8})), "longer or"),
        (zip_of(ZipMember(b"x", deflate(b"y")[:-1], 0, central={"method": 8}, local={"method": 8})), "longer or"),
        (b"PK\3\4", "no directory"),
        (b"PK\5\6", "no directory"),
    ],
)
def test_a_damaged_zip_is_told_as_damaged(tmp_path: pathlib.Path, room: pathlib.Path, content: bytes, why: str) -> None:
    key, message = refused(tmp_path / "a", content, room)
    assert key == "release.damaged_archive"
    assert re.search(why, message)


def test_a_zip_of_the_standard_library_and_a_streamed_one_are_read(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    class Pipe(io.BytesIO):
        """Can't be sought, so that sizes come behind the data."""

        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    for sink in (io.BytesIO(), Pipe()):
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr("ü/y", b"y")
            with bundle.open("x", "w", force_zip64=True) as content:
                content.write(PROGRAM)
        assert taken(tmp_path / "a", sink.getvalue(), room) == PROGRAM
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    assert refused(tmp_path / "a", empty.getvalue(), room)[0] == "release.member_missing"
