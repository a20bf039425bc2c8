# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _files, _packages, _targets
from ansible_collections.observability.stack.plugins.module_utils._targets import Mount
from ansible_collections.observability.stack.tests.unit.support import CAP_NET_RAW, CAPABILITY, directory_of_a_stranger

if t.TYPE_CHECKING:
    from ansible_collections.observability.stack.plugins.module_utils._obstacles import Target
    from ansible_collections.observability.stack.tests.unit.support import Data

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:5 / /proc rw,nosuid,nodev,noexec - proc proc rw
30 22 254:0 /x /opt/a\\040b/node_exporter ro,noexec - ext4 /dev/vda rw,data=ordered
31 22 254:1 / /opt rw - xfs /dev/vdb rw
"""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packages, "diversions", lambda run, paths: {})
    monkeypatch.setattr(_targets, "mounts", list)


def look(path: pathlib.Path, **changes: t.Any) -> Target:
    step: Data = {"component": "c", "from": "1.0.0", "to": "2.0.0", "files": [{"dest": str(path)}], **changes}
    last = {**step, "from": "2.0.0", "to": "3.0.0"}
    (found,) = _targets.read(lambda *_a, **_k: None, [step, last], {str(path): "c"})  # type: ignore[arg-type,return-value]
    return found


def program(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    path.chmod(0o755)
    return path


def test_an_ordinary_file_has_nothing(tmp_path: pathlib.Path) -> None:
    path = program(tmp_path / "bin" / "x")
    found = look(path)
    assert found == type(found)("c", str(path), str(path), versions=("1.0.0", "3.0.0"))
    assert _targets.read(lambda *_a, **_k: None, [], {"/nowhere/x": "c"}) == []  # type: ignore[arg-type,return-value]


def test_links_and_hard_links(tmp_path: pathlib.Path) -> None:
    path = program(tmp_path / "bin" / "x")
    os.link(path, tmp_path / "bin" / "y")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "current").symlink_to("bin")
    assert (look(path).names, look(tmp_path / "link").names) == (2, 1)
    assert look(tmp_path / "link").link == str(path)
    assert look(tmp_path / "current" / "x").real == str(path)


def test_what_the_new_file_does_not_get(tmp_path: pathlib.Path) -> None:
    path = program(tmp_path / "bin" / "x")
    path.chmod(0o4755)
    assert look(path).lost == ("setuid",)
    os.setxattr(path, CAPABILITY, CAP_NET_RAW)
    assert look(path).lost == ("setuid",)
    theirs = program(directory_of_a_stranger(tmp_path / "theirs") / "x")
    os.setxattr(theirs, CAPABILITY, CAP_NET_RAW)
    assert look(theirs).lost == ("file capabilities",)


def test_mounts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(_files, "read_text", lambda path: MOUNTINFO)
    mounted = _targets.mounts()
    assert [one.point for one in mounted] == ["/", "/proc", "/opt/a b/node_exporter", "/opt"]
    assert mounted[2] == Mount("/opt/a b/node_exporter", "ext4 /dev/vda, /x", ("ro", "noexec", "rw", "data=ordered"))
    assert _targets.mount_of("/opt/x", mounted) == mounted[3]
    assert _targets.mount_of("/optical", mounted) == mounted[0]
    assert _targets.mount_of("/", mounted) == mounted[0]


def test_a_file_that_is_mounted_and_one_that_could_not_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path / "bin" / "x")
    mounted = [Mount("/", "ext4 /dev/vda, /", ("rw",)), Mount(str(tmp_path), "tmpfs x, /", ("rw", "noexec"))]
    monkeypatch.setattr(_targets, "mounts", lambda: [*mounted, Mount(str(path), "ext4 /dev/vda, /y", ("rw",))])
    found = look(path)
    assert (found.mount, found.noexec) == ("ext4 /dev/vda, /y", str(tmp_path))
    assert look(path, files=[]).noexec == ""


def test_flags_of_files_are_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "bin" / "x")
    asked = []

    def ioctl(descriptor: int, request: int, answer: bytes) -> bytes:
        asked.append(request)
        flags = 0x20 if os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path / "bin") else 0x10 | 0x80000
        return flags.to_bytes(len(answer), "little")

    monkeypatch.setattr(_files.fcntl, "ioctl", ioctl)
    monkeypatch.setattr(_files.os, "uname", lambda: type("U", (), {"machine": "x86_64"}))
    found = look(path)
    assert (found.attributes, found.directory_attributes) == (("immutable",), ("append-only",))
    assert set(asked) == {0x80086601}
