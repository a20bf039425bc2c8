# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import io
import lzma
import os
import pathlib
import tarfile
import typing as t
import zipfile

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _archive
from ansible_collections.observability.stack.plugins.module_utils._errors import ReleaseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        member("x-1.0.linux-amd64/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("x-1.0.linux-amd64/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("x-1.0.linux-amd64/device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("x-1.0.linux-amd64/fifo", type=tarfile.FIFOTYPE),
        member(WANTED, PROGRAM),
    ],
    ids=["up", "up inside", "absolute", "drive", "backslash", "symlink", "hard link", "device", "fifo", "twice"],
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


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_wanted_member_that_is_no_file_is_refused(tmp_path: pathlib.Path, room: pathlib.Path, kind: bytes) -> None:
    with pytest.raises(ReleaseError, match="it is a link, a device"):
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
    monkeypatch.setattr(_archive, "MEMBER_LIMIT", 1000)
    with pytest.raises(ReleaseError, match="more than 1000"):
        extract(tar(tmp_path / "a", *GOOD), room)
    assert everything(room.parent) == ["room"]


_NAMES = st.sampled_from(["..", ".", "", "/", "x", "x-1.0.linux-amd64", "evil", "\\", "a" * 120, "ü", "C:"])
_MEMBERS = st.lists(
    st.tuples(
        st.lists(_NAMES, min_size=1, max_size=5).map("/".join),
        st.binary(max_size=40),
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"S"]),
        st.sampled_from(["", "../../evil", "/evil", "x"]),
    ),
    max_size=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(_MEMBERS, st.floats(0, 1))
def test_whatever_an_archive_holds_no_byte_leaves_the_directory(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, bytes, str]], keep: float
) -> None:
    base = tmp_path_factory.mktemp("fuzz")
    room = base / "outside" / "room"
    room.mkdir(parents=True)
    archive = tar(
        base / "a",
        *(
            member(name or "x", data if kind == tarfile.REGTYPE else b"", type=kind, linkname=link)
            for name, data, kind, link in members
        ),
    )
    if keep < 0.5:
        archive.write_bytes(archive.read_bytes()[: int(200 * keep)])
    try:
        extract(archive, room, wanted="x-1.0.linux-amd64/x")
    except ReleaseError:
        assert everything(base / "outside") == ["room"]
    assert set(everything(base)) <= {"a", "outside", "outside/room", "outside/room/x"}
