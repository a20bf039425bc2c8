# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller reads from its disk, where it is no file or is held by another process: an error names it."""

from __future__ import annotations

import fcntl
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import _download, _manifest, _single_flight

AT_ONCE = 2.0
KINDS: dict[str, t.Callable[[pathlib.Path], t.Any]] = {
    "FIFO": os.mkfifo,
    "directory": os.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
}


def archive_on_disk(path: str) -> t.Any:
    limits = _download.LIMITS._replace(attempts=1, connect=0.5, read=0.5, total=0.5)
    return _download.download([f"file://{path}"], f"{path}.copy", sha256="0" * 64, listed="here", limits=limits)


def unfinished_archive(path: str) -> t.Any:
    """What a killed run left in the cache has the name that it must, but is something else."""
    os.rename(path, f"{path}.part")
    return _download.download([f"file://{_text(path)}"], path, sha256="0" * 64, listed="here")


def _text(path: str) -> str:
    """A file beside it that is one."""
    beside = pathlib.Path(f"{path}.text")
    beside.write_text("{}")
    return str(beside)


FILES: dict[str, t.Callable[[str], t.Any]] = {
    "archive by file://": archive_on_disk,
    "unfinished archive": unfinished_archive,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file_is_refused_at_once_by_name(file: str, kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "given"
    KINDS[kind](path)
    began = time.monotonic()
    with pytest.raises(UpgradeError, match=str(path)):
        FILES[file](str(path))
    assert time.monotonic() - began < AT_ONCE


def test_a_lock_that_is_never_given_back_is_waited_for_in_vain_only_so_long(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        began = time.monotonic()
        told = f"another process holds it for longer than 0.3 s.*{path}"
        with pytest.raises(OSError, match=told), _single_flight.one_at_a_time(str(path), seconds=0.3):
            pass
        assert time.monotonic() - began < AT_ONCE
    with _single_flight.one_at_a_time(str(path), seconds=0.3):
        pass


def test_a_program_that_verifies_is_not_waited_for_without_end(tmp_path: pathlib.Path) -> None:
    """One that leaves a process behind which holds its output open, and one that ignores SIGTERM."""
    began = time.monotonic()
    done = _manifest.run(["sh", "-c", "cat >&2; (exec setsid sleep 20) & exit 7"], stdin=b"manifest", timeout=10)
    assert (done.rc, done.err) == (7, "manifest")
    done = _manifest.run(["sh", "-c", "trap '' TERM; while :; do sleep 20; done"], stdin=b"manifest", timeout=0.3)
    assert (done.rc, done.err) == (None, "sh: no answer within 0.3 s, killed")
    assert time.monotonic() - began < 10
