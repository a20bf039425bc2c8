# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import socket
import struct
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _owned

NOBODY = 65534

Change = t.Callable[[pathlib.Path], object]


@pytest.fixture
def top(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "grandparent" / "parent" / "cache"
    directory.mkdir(parents=True, mode=0o700)
    return directory


def refused(path: pathlib.Path) -> str:
    with pytest.raises(InputError) as failure:
        _owned.private_directories(str(path), "sha256")
    assert failure.value.key == "input.cache_dir"
    return str(failure.value)


def test_directories_are_made_for_the_operator_alone(tmp_path: pathlib.Path) -> None:
    before = os.umask(0)
    try:
        made = _owned.private_directories(str(tmp_path / "cache"), "sha256", "locks")
    finally:
        os.umask(before)
    assert made == [str(tmp_path / "cache" / name) for name in ("sha256", "locks")]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "cache", *map(pathlib.Path, made))} == {0o700}


CHANGES: dict[str, Change] = {
    "belongs to user nobody": lambda path: os.chown(path, NOBODY, 0),
    "can be written by others (mode 0777)": lambda path: path.chmod(0o777),
    "can be written by others (mode 0770)": lambda path: (os.chown(path, 0, NOBODY), path.chmod(0o770)),
}


@pytest.mark.parametrize("up", [0, 1, 2])
@pytest.mark.parametrize("why", CHANGES)
def test_a_directory_that_somebody_else_can_change_is_refused_wherever_it_is_on_the_way(
    top: pathlib.Path, up: int, why: str
) -> None:
    place = [top, *top.parents][up]
    CHANGES[why](place)
    assert f"{place} {why}" in refused(top)
    assert list(top.iterdir()) == []  # nothing was made there


def test_a_directory_below_it_that_somebody_else_can_change_is_refused(top: pathlib.Path) -> None:
    (top / "sha256").mkdir(mode=0o700)
    os.chown(top / "sha256", NOBODY, 0)
    assert f"{top}/sha256 belongs to user nobody" in refused(top)


def test_whom_an_access_control_list_names_is_somebody_else(top: pathlib.Path) -> None:
    # As the kernel stores it: version 2, then user_obj, user nobody, group_obj, mask, other.
    unnamed = 0xFFFFFFFF
    entries = [(0x01, 7, unnamed), (0x02, 7, NOBODY), (0x04, 0, unnamed), (0x10, 7, unnamed), (0x20, 0, unnamed)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(top, "system.posix_acl_access", value)
    assert f"{top} can be written by others" in refused(top)


def test_a_sticky_directory_may_be_above_but_is_no_cache(top: pathlib.Path) -> None:
    top.parent.chmod(0o1777)
    _owned.private_directories(str(top), "sha256")
    top.chmod(0o1777)
    assert f"{top} can be written by others" in refused(top)


@pytest.mark.parametrize("link", ["cache", "sha256"])
def test_a_link_in_place_of_a_cache_is_refused(top: pathlib.Path, tmp_path: pathlib.Path, link: str) -> None:
    place = {"cache": tmp_path / "link", "sha256": top / "sha256"}[link]
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "elsewhere")
    assert f"{place} is a symbolic link" in refused(place if link == "cache" else top)


def test_a_link_above_is_followed_to_directories_that_are_looked_at_as_well(
    top: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "link").symlink_to("grandparent/../grandparent/parent")
    _owned.private_directories(str(tmp_path / "link" / "cache"), "sha256")
    os.chown(top.parent, NOBODY, 0)
    assert f"{top.parent} belongs to user nobody" in refused(tmp_path / "link" / "cache")


def test_a_link_of_somebody_else_is_refused(top: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(top.parent)
    os.chown(shared / "link", NOBODY, 0, follow_symlinks=False)
    assert f"{shared}/link belongs to user nobody" in refused(shared / "link" / "cache")


def test_links_in_a_circle_are_an_error_of_the_operating_system(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        _owned.private_directories(str(tmp_path / "a" / "cache"), "sha256")


# -- files --------------------------------------------------------------------------------------------------------


def fifo(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: pathlib.Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def directory(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


def listener(path: pathlib.Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "plant",
    [
        *(fifo, link, directory, listener),
        lambda path: os.chown(path, NOBODY, 0),
        lambda path: path.chmod(0o666),
        lambda path: (os.chown(path, 0, NOBODY), path.chmod(0o660)),
    ],
)
def test_a_file_that_is_not_the_operators_own_is_refused(tmp_path: pathlib.Path, plant: Change) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    assert (_owned.read(str(path)), len(_owned.sha256_or_none(str(path)) or "")) == (b"x", 64)
    plant(path)
    for do in (_owned.read, _owned.sha256_or_none):
        with pytest.raises(InputError, match="is not used: ") as failure:
            do(str(path))
        assert failure.value.key == "input.cache_dir"


def test_a_file_that_is_not_there_has_no_hash(tmp_path: pathlib.Path) -> None:
    assert _owned.sha256_or_none(str(tmp_path / "none")) is None
    with pytest.raises(FileNotFoundError):
        _owned.read(str(tmp_path / "none"))


def test_only_a_regular_file_is_opened_and_nothing_is_waited_for(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    with _owned.open_regular(str(tmp_path / "file")) as source:
        assert source.read() == b"x"
    for name in ("fifo", ""):
        with pytest.raises(OSError, match="it is no regular file"):
            _owned.open_regular(str(tmp_path / name))
    with pytest.raises(OSError, match="it is no regular file"):
        _owned.open_regular("/dev/zero")
