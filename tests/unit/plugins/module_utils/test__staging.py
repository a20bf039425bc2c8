# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import io
import os
import pathlib
import tarfile
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _elf, _files, _staging
from ansible_collections.observability.stack.plugins.module_utils._command import Completed, run
from ansible_collections.observability.stack.plugins.module_utils._errors import ReleaseError
from ansible_collections.observability.stack.tests.unit.support import Systemd, elf_program


def told(version: str) -> bytes:
    """A program that tells a version."""
    return elf_program(f"x, version {version} (branch: HEAD)\n")


NAME = "x-1.0.0.linux-amd64.tar.gz"


def release(path: pathlib.Path, files: dict[str, bytes], **changes: t.Any) -> _staging.Release:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as bundle:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    archive = path / NAME
    archive.write_bytes(gzip.compress(plain.getvalue()))
    made = _staging.Release(
        component="x",
        version="1.0.0",
        archive=str(archive),
        archive_name=NAME,
        archive_sha256=_files.sha256_file(str(archive)),
        members={name: name for name in files},
        version_args=[["version"], ["--version"]],
        architecture="amd64",
    )
    return made._replace(**changes)


@pytest.fixture
def room(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "room"
    path.mkdir()
    return path


def test_a_release_proves_itself_and_is_known_again(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd
) -> None:
    good = release(tmp_path, {"x": told("1.0.0"), "xtool": b"tool"})
    assert _staging.read_candidate(str(room), good) is None
    files = _staging.unpack(systemd, good, str(room))
    assert set(files) == {"x", "xtool"}
    assert _staging.read_candidate(str(room), good) == files
    assert (room / "x").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("change", ["file", "missing", "archive", "members", "json"])
def test_a_candidate_that_was_changed_is_none(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd, change: str
) -> None:
    good = release(tmp_path, {"x": told("1.0.0")})
    _staging.unpack(systemd, good, str(room))
    if change == "file":
        (room / "x").write_text("tampered")
    elif change == "missing":
        (room / "x").unlink()
    elif change == "json":
        (room / "candidate.json").write_text("[]")
    wanted = {"archive": {"archive_sha256": "0"}, "members": {"members": {"x": "x", "y": "y"}}}.get(change, {})
    assert _staging.read_candidate(str(room), good._replace(**wanted)) is None


@pytest.mark.parametrize("other", ["1.0.1", "1.0", "unknown"])
def test_a_program_of_another_version_is_refused(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd, other: str
) -> None:
    with pytest.raises(ReleaseError, match=rf"doesn't say that it is version 1.0.0 .*{other}") as failure:
        _staging.unpack(systemd, release(tmp_path, {"x": told(other)}), str(room))
    assert failure.value.key == "release.version"


@pytest.mark.parametrize("content", [b"no program", b"", b"#!/bin/sh\ntouch {}\necho 'x, version 1.0.0'\n"])
def test_what_is_no_elf_program_is_refused_and_never_run(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd, content: bytes
) -> None:
    canary = tmp_path / "canary"
    content = content.replace(b"{}", str(canary).encode())
    with pytest.raises(ReleaseError, match=r"x in .* is no ELF program") as failure:
        _staging.unpack(systemd, release(tmp_path, {"x": content}), str(room))
    assert (failure.value.key, systemd.asked, canary.exists()) == ("release.no_program", [], False)


def test_a_program_that_cannot_run_is_refused_with_the_reason(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd
) -> None:
    cut_short = told("1.0.0")[:64]
    with pytest.raises(ReleaseError, match="the program can't be run") as failure:
        _staging.unpack(systemd, release(tmp_path, {"x": cut_short}), str(room))
    assert failure.value.key == "release.version"


@pytest.mark.parametrize(
    ("unit", "properties", "user"),
    [
        ("x.service", {"User": "daemon"}, "daemon"),
        ("x.service", {}, "nobody"),
        ("x.service", {"User": "root"}, "nobody"),
        ("other.service", {}, "nobody"),
        (None, {}, "nobody"),
    ],
)
def test_a_program_runs_for_the_first_time_in_a_sandbox_and_never_as_root(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd, unit: str | None, properties: t.Any, user: str
) -> None:
    systemd.add("x.service", "/opt/x", **properties)
    _staging.unpack(systemd, release(tmp_path, {"x": told("1.0.0")}, unit=unit, hidden=("/state",)), str(room))
    (argv,) = systemd.commands("systemd-run")
    assert {
        f"--property=User={user}",
        "--property=PrivateNetwork=yes",
        "--property=NoNewPrivileges=yes",
        '--property=InaccessiblePaths=-"/state"',
    } <= set(argv)


def own_program(path: pathlib.Path) -> _staging.Release:
    """A program of this machine as a release for its architecture."""
    program = pathlib.Path("/bin/true").read_bytes()
    elf = _elf.read_elf(program)
    assert elf
    return release(path, {"x": program}, architecture=_elf.architecture(elf, os.uname().machine))


def test_a_program_that_needs_a_newer_glibc_is_refused_before_it_runs(
    tmp_path: pathlib.Path, room: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_elf, "glibc_here", lambda: (2, 1))
    ran: list[t.Sequence[str]] = []

    def remember(argv: t.Sequence[str], **options: t.Any) -> Completed:
        ran.append(argv)
        return run(argv, **options)

    with pytest.raises(ReleaseError, match=r"x in .* needs glibc 2\.\d+, this host has 2\.1: ") as failure:
        _staging.unpack(remember, own_program(tmp_path), str(room))
    assert (failure.value.key, ran) == ("release.glibc", [])


def test_a_repackaged_version_is_the_version(tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd) -> None:
    assert _staging.unpack(systemd, release(tmp_path, {"x": told("1.0.0+ds1")}), str(room))


@pytest.mark.parametrize(("machine", "shown"), [(183, "arm64, 64 bit"), (40, "arm, 64 bit")])
def test_a_program_for_another_machine_is_refused(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd, machine: int, shown: str
) -> None:
    program = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine.to_bytes(2, "little") + bytes(64)
    with pytest.raises(ReleaseError, match=f"is made for {shown}, this host runs amd64") as failure:
        _staging.unpack(systemd, release(tmp_path, {"x": program}), str(room))
    assert failure.value.key == "release.architecture"


def test_this_machines_own_programs_pass_for_its_architecture(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd
) -> None:
    with pytest.raises(ReleaseError) as failure:  # it tells another version; the architecture was no reason
        _staging.unpack(systemd, own_program(tmp_path), str(room))
    assert failure.value.key == "release.version"


def test_an_archive_that_arrived_damaged_is_refused_before_it_is_opened(
    tmp_path: pathlib.Path, room: pathlib.Path, systemd: Systemd
) -> None:
    with pytest.raises(ReleaseError, match="the transfer damaged it") as failure:
        _staging.unpack(systemd, release(tmp_path, {"x": b""}, archive_sha256="0" * 64), str(room))
    assert failure.value.key == "release.transfer"
    assert list(room.iterdir()) == []
