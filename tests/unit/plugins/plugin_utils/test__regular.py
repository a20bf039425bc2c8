# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import socket
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils import _regular


def test_a_file_is_read_also_by_way_of_a_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("file")
    assert _regular.read(str(tmp_path / "link"), most=6) == b"secret"
    with pytest.raises(OSError, match=f"it is larger than 5 bytes: '{tmp_path}/link'"):
        _regular.read(str(tmp_path / "link"), most=5)


def socket_at(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


KINDS: dict[str, t.Callable[[pathlib.Path], t.Any]] = {
    "FIFO": os.mkfifo,
    "directory": os.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "endless": lambda path: path.symlink_to("/dev/urandom"),
    "socket": socket_at,
    "link to itself": lambda path: path.symlink_to(path),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_an_error_that_names_it_at_once(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "password"
    KINDS[kind](path)
    began = time.monotonic()
    with pytest.raises(OSError, match=str(path)) as refused:
        _regular.read(str(path), most=100)
    assert refused.value.strerror
    assert time.monotonic() - began < 1
