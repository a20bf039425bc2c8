# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import pathlib
import subprocess

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _files
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError
from ansible_collections.observability.stack.tests.unit.support import (
    CAP_NET_RAW,
    CAPABILITY,
    OWNER,
    directory_of_a_stranger,
)

CONTENT = b"program\n" * 1000


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "program"
    path.write_bytes(CONTENT)
    path.chmod(0o755)
    return path


def replace(program: pathlib.Path, source: pathlib.Path, attributes: _files.Attributes, sha256: str = "") -> None:
    with _files.located(str(program)) as place:
        digest = sha256 or _files.sha256_file(str(source))
        _files.prepare_copy(str(source), place, attributes=attributes, sha256=digest)
        _files.put_in_place([place])


def names(path: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_sha256_is_that_of_sha256sum(program: pathlib.Path) -> None:
    told = subprocess.run(["sha256sum", program], capture_output=True, text=True, check=True).stdout.split()[0]
    assert _files.sha256_file(str(program)) == told
    assert _files.sha256_or_none(str(program)) == told
    assert _files.sha256_or_none(str(program) + "x") is None


def test_write_durably_replaces_the_whole_and_leaves_nothing_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state.json"
    _files.write_durably(str(path), b"one")
    _files.write_durably(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert names(tmp_path) == ["state.json"]


def test_write_durably_survives_what_a_killed_run_left(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state.json"
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    os.symlink(victim, _files.temporary_beside(str(path)))
    _files.write_durably(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert victim.read_bytes() == b"untouched"


def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    _files.write_durably(str(path), b"old")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_files.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        _files.write_durably(str(path), b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state.json"]


def test_prepare_copy_carries_owner_mode_capabilities_and_attributes(program: pathlib.Path) -> None:
    os.chown(program, *OWNER)
    program.chmod(0o4750)
    os.setxattr(program, "user.note", b"mine")
    os.setxattr(program, CAPABILITY, CAP_NET_RAW)
    attributes = _files.read_attributes(str(program))
    source = program.with_name("candidate")
    source.write_bytes(b"new program")
    replace(program, source, attributes)
    assert program.read_bytes() == b"new program"
    assert _files.read_attributes(str(program)) == attributes
    assert os.getxattr(program, CAPABILITY) == CAP_NET_RAW
    assert (attributes.uid, attributes.gid, attributes.mode) == (*OWNER, 0o750), "setuid is never carried over"
    assert program.stat().st_mode & 0o7777 == 0o750


def test_prepare_copy_carries_access_control_lists(program: pathlib.Path) -> None:
    # A POSIX ACL as the kernel stores it: version 2, then user_obj, user 12, group_obj, mask, other.
    entries = [
        (0x01, 7, 0xFFFFFFFF),
        (0x02, 5, 12),
        (0x04, 5, 0xFFFFFFFF),
        (0x10, 5, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    ]
    value = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, perm, who in entries
    )
    os.setxattr(program, "system.posix_acl_access", value)
    attributes = _files.read_attributes(str(program))
    copy = str(program.with_name("copy"))
    replace(pathlib.Path(copy), program, attributes)
    assert os.getxattr(copy, "system.posix_acl_access") == value


def test_attributes_survive_their_way_through_json(program: pathlib.Path) -> None:
    os.setxattr(program, CAPABILITY, CAP_NET_RAW)
    attributes = _files.read_attributes(str(program))
    assert _files.Attributes.from_dict(attributes.to_dict()) == attributes
    assert attributes.to_dict()["mode"] == "0755"


def test_prepare_copy_refuses_what_is_not_what_was_proven(program: pathlib.Path) -> None:
    attributes = _files.read_attributes(str(program))
    with pytest.raises(HostError, match="was expected: it was changed or damaged") as failure:
        replace(program, program, attributes, sha256="0" * 64)
    assert failure.value.key == "files.checksum"
    assert names(program.parent) == ["program"]


def test_a_private_directory_is_made_checked_and_mended(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a" / "b"
    _files.ensure_private_directory(str(path))
    assert path.stat().st_mode & 0o7777 == 0o700
    path.chmod(0o755)
    _files.ensure_private_directory(str(path))
    assert path.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("kind", ["link", "file", "stranger"])
def test_a_private_directory_that_is_something_else_is_refused(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "state"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        path.write_text("x")
    else:
        path = directory_of_a_stranger(path)
    with pytest.raises(HostError, match=f"must be a directory that belongs to user {os.geteuid()}") as failure:
        _files.ensure_private_directory(str(path))
    assert failure.value.key == "files.not_private"


def test_remove_if_there_removes_and_forgives(program: pathlib.Path) -> None:
    _files.remove_if_there(str(program))
    _files.remove_if_there(str(program))
    assert names(program.parent) == []


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "become: true"),
        (errno.EIO, "/x: "),
    ],
)
def test_explain_says_where_and_what_next(number: int, says: str) -> None:
    assert says in _files.explain(OSError(number, os.strerror(number), "/x"))


def test_a_write_without_space_left_tells_which_file_it_was() -> None:
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="'/state/x'") as failure,
        _files.naming("/state/x"),
    ):
        full.write(b"x")
    assert _files.explain(failure.value).startswith("/state/x: No space left on device; free some space there")


def test_a_descriptors_number_is_not_taken_for_a_name(program: pathlib.Path) -> None:
    with program.open("rb") as file, pytest.raises(OSError, match="'/state/x'"), _files.naming("/state/x"):
        os.setxattr(file.fileno(), "no.namespace", b"x")


def test_a_directory_that_cannot_be_synced_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=str(tmp_path)):
        _files.fsync_directory(str(tmp_path))


def test_an_attribute_that_is_there_already_is_not_set(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is mounted with one SELinux context for all files gives it to each, and refuses to set it."""
    context, said = b"system_u:object_r:nfs_t:s0", []

    def refuse(*told: object) -> None:
        said.append(told)
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(_files.os, "getxattr", lambda descriptor, name: context)
    monkeypatch.setattr(_files.os, "setxattr", refuse)
    path = tmp_path / "x"
    path.write_text("x")
    with path.open("rb") as file:
        same = _files.Attributes(os.getuid(), os.getgid(), 0o644, {"security.selinux": context})
        _files.apply_attributes(file.fileno(), same)
        assert said == []
        with pytest.raises(OSError, match="not supported"):
            _files.apply_attributes(file.fileno(), same._replace(xattrs={"security.selinux": b"other"}))
