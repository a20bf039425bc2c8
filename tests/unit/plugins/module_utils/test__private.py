# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _private
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "file"
    path.write_text("content")
    path.chmod(0o600)
    return path


def test_a_private_file_is_read_and_one_that_is_not_there_is_empty(path: pathlib.Path) -> None:
    assert _private.read(str(path)) == b"content"
    assert _private.problem(str(path)) is None
    path.unlink()
    assert _private.read(str(path)) == b""


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700, 0o666])
def test_a_file_that_others_can_get_at_is_narrowed_only_where_that_is_told(path: pathlib.Path, mode: int) -> None:
    path.chmod(mode)
    assert _private.read(str(path)) == b"content"
    assert f"has mode {mode:04o}" in str(_private.problem(str(path)))
    narrowed: list[str] = []
    assert _private.read(str(path), narrowed=narrowed) == b"content"
    assert len(narrowed) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert _private.read(str(path), narrowed=narrowed) == b"content"
    assert len(narrowed) == 1


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "pipe", "stranger's"])
def test_what_is_no_file_of_ours_is_neither_read_nor_opened(path: pathlib.Path, kind: str) -> None:
    if kind == "stranger's" and os.geteuid() != 0:
        pytest.skip("only root may give files away")
    path.unlink()
    makes = {
        "link": lambda: path.symlink_to("/etc/passwd"),
        "dangling link": lambda: path.symlink_to(path.with_name("made")),
        "directory": path.mkdir,
        "pipe": lambda: os.mkfifo(path, 0o600),
        "stranger's": lambda: [path.touch(), os.chown(path, 12345, 12345)],
    }
    makes[kind]()
    with pytest.raises(HostError, match="must be a file that belongs to user") as failure:
        _private.read(str(path))
    assert failure.value.key == "files.not_private"
    with pytest.raises(HostError), _private.opened(str(path), os.O_RDWR | os.O_CREAT):
        pass
    assert _private.problem(str(path))
    assert not path.with_name("made").exists()


def test_a_file_that_is_opened_is_made_private(path: pathlib.Path) -> None:
    path.unlink()
    old = os.umask(0)
    try:
        with _private.opened(str(path), os.O_RDWR | os.O_CREAT) as descriptor:
            os.write(descriptor, b"x")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_directory_is_looked_at_as_one(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o700)
    assert _private.problem(str(tmp_path), mode=0o700) is None
    tmp_path.chmod(0o755)
    assert "has mode 0755" in str(_private.problem(str(tmp_path), mode=0o700))
