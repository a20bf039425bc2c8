# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _command, _files, _restore_point, _store, _swap
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError
from ansible_collections.observability.stack.plugins.module_utils._restore_point import Original
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.tests.unit.support import CAP_NET_RAW, CAPABILITY, OWNER

RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "dead": []}
STEP = Step("prometheus", "2.53.3")


class Host:
    """A component of two programs in a directory of its own, and a candidate for each."""

    def __init__(self, root: pathlib.Path) -> None:
        self.state = str(root / "state")
        self.bin, self.staged = root / "bin", root / "staged"
        self.config = root / "prometheus.yml"
        self.bin.mkdir()
        self.staged.mkdir()
        self.config.write_text("global: {}\n")
        for name in ("prometheus", "promtool"):
            (self.bin / name).write_text(f"old {name}")
            (self.bin / name).chmod(0o755)
            (self.staged / name).write_text(f"new {name}")
        with _store.session(self.state, run=RUN, acquire=True) as session:
            session.document.begin(RUN, steps=[STEP.key], details={}, now=session.now)
            session.save()

    def swap(self, **changes: t.Any) -> _swap.Swap:
        candidates = [
            _swap.Candidate(str(path), str(self.bin / path.name), _files.sha256_file(str(path)))
            for path in sorted(self.staged.iterdir())
        ]
        keep = [Original("config", str(self.config))]
        return _swap.Swap(STEP, "2.42.0", candidates, keep, 0)._replace(**changes)

    def apply(self, swap: _swap.Swap | None = None) -> str:
        swap = swap or self.swap()
        with _store.session(self.state, run=RUN, acquire=True) as session:
            return _swap.apply(_command.run, session, swap, _swap.changes(swap))

    def restore(self, backup_id: str, kinds: tuple[str, ...] = ("binary",)) -> list[str]:
        with _store.session(self.state, run=RUN, acquire=True) as session:
            return _restore_point.restore(session, _restore_point.read(session, backup_id), kinds)

    def content(self) -> list[str]:
        return [(self.bin / name).read_text() for name in ("prometheus", "promtool")]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.bin.iterdir())

    def record(self) -> dict[str, t.Any]:
        document = json.loads(pathlib.Path(self.state, "state.json").read_text())
        return t.cast("dict[str, t.Any]", document["components"]["prometheus"])


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


OLD, NEW = ["old prometheus", "old promtool"], ["new prometheus", "new promtool"]


def test_all_files_go_into_place_and_the_record_names_them(host: Host) -> None:
    backup_id = host.apply()
    assert host.content() == NEW
    assert host.names() == ["prometheus", "promtool"]
    assert backup_id == "u1.prometheus-2.42.0"
    record = host.record()
    assert (record["state"], record["backup_id"], record["rollback_available"]) == ("activated", backup_id, True)
    assert [file["path"] for file in record["files"]] == [str(host.bin / "prometheus"), str(host.bin / "promtool")]
    assert record["inventory"]["restore_points"][0]["version"] == "2.42.0"


def test_a_restore_point_brings_everything_back(host: Host) -> None:
    program = host.bin / "prometheus"
    os.chown(program, *OWNER)
    program.chmod(0o4755)
    os.setxattr(program, CAPABILITY, CAP_NET_RAW)
    before = _files.read_attributes(str(program))
    assert before.mode == 0o755
    backup_id = host.apply()
    assert _files.read_attributes(str(program)) == before
    shutil.copyfile(host.staged / "promtool", host.bin / "promtool")
    program.chmod(0o700)
    assert sorted(host.restore(backup_id)) == [str(host.bin / "prometheus"), str(host.bin / "promtool")]
    assert host.content() == OLD
    assert _files.read_attributes(str(program)) == before
    assert host.restore(backup_id) == []


def test_a_restore_point_keeps_the_configuration_and_puts_it_back_only_when_asked(host: Host) -> None:
    backup_id = host.apply()
    host.config.write_text("changed: true\n")
    host.restore(backup_id)
    assert host.config.read_text() == "changed: true\n"
    assert host.restore(backup_id, ("config",)) == [str(host.config)]
    assert host.config.read_text() == "global: {}\n"


def test_a_link_is_replaced_and_comes_back_as_a_link(host: Host) -> None:
    elsewhere = host.bin / "prometheus-2.42.0"
    (host.bin / "prometheus").rename(elsewhere)
    (host.bin / "prometheus").symlink_to("prometheus-2.42.0")
    backup_id = host.apply()
    assert not (host.bin / "prometheus").is_symlink()
    assert elsewhere.read_text() == "old prometheus"
    host.restore(backup_id)
    assert os.readlink(host.bin / "prometheus") == "prometheus-2.42.0"
    assert host.content() == OLD


def test_a_running_program_can_be_replaced(host: Host) -> None:
    sleep = shutil.which("sleep")
    assert sleep
    shutil.copy(sleep, host.bin / "prometheus")
    process = subprocess.Popen([str(host.bin / "prometheus"), "60"])
    try:
        host.apply()
        assert host.content() == NEW
        assert os.readlink(f"/proc/{process.pid}/exe").endswith("(deleted)")
    finally:
        process.kill()
        process.wait()


def test_a_lost_restart_keeps_the_program_that_runs(host: Host) -> None:
    """The files were replaced by somebody who didn't restart: the process alone still has the program that works."""
    sleep = shutil.which("sleep")
    assert sleep
    shutil.copy(sleep, host.bin / "prometheus")
    process = subprocess.Popen([str(host.bin / "prometheus"), "60"])
    try:
        for name in ("prometheus", "promtool"):
            shutil.copy(host.staged / name, host.bin / f"{name}.new")
            os.rename(host.bin / f"{name}.new", host.bin / name)
        swap = host.swap(main_pid=process.pid)
        assert all(change.before == change.after for change in _swap.changes(swap))
        assert _swap.lost_restart(swap)
        inode = (host.bin / "prometheus").stat().st_ino
        backup_id = host.apply(swap)
        assert (host.bin / "prometheus").stat().st_ino == inode
        host.restore(backup_id)
        assert (host.bin / "prometheus").read_bytes() == pathlib.Path(sleep).read_bytes()
    finally:
        process.kill()
        process.wait()


def test_a_second_attempt_keeps_the_pristine_restore_point(host: Host) -> None:
    first = host.apply()
    (host.bin / "promtool").write_text("half way")
    assert host.apply(host.swap(from_version="2.53.3")) == first
    host.restore(first)
    assert host.content() == OLD


def test_a_candidate_that_is_not_what_was_proven_stays_out(host: Host) -> None:
    swap = host.swap()
    (host.staged / "promtool").write_text("tampered")
    with pytest.raises(HostError, match="was expected"):
        host.apply(swap)
    assert host.content() == OLD
    assert "prometheus" not in json.loads(pathlib.Path(host.state, "state.json").read_text())["components"]


def test_a_rename_that_fails_half_way_is_undone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = os.rename, []

    def second_fails(source: str, target: str, **directories: int) -> None:
        if target == "promtool" and not calls:
            calls.append(target)
            raise OSError(5, "Input/output error", target)
        rename(source, target, **directories)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(HostError, match="All files are as they were before") as failure:
        host.apply()
    assert failure.value.key == "swap.failed"
    assert calls
    assert host.content() == OLD


@pytest.mark.parametrize("damage", ["content", "manifest", "missing"])
def test_a_damaged_restore_point_restores_nothing(host: Host, damage: str) -> None:
    backup_id = host.apply()
    directory = pathlib.Path(host.state, "backups", backup_id)
    if damage == "content":
        (directory / "1-promtool").write_text("x")
    elif damage == "manifest":
        (directory / "manifest.json").write_text("{")
    else:
        shutil.rmtree(directory)
    with pytest.raises(HostError, match=r"restore point u1\.prometheus-2\.42\.0") as failure:
        host.restore(backup_id)
    assert failure.value.key.startswith("restore_point.")
    assert host.content() == NEW


def test_a_restore_point_is_whole_or_not_there(host: Host) -> None:
    host.config.unlink()
    with pytest.raises(FileNotFoundError):
        host.apply()
    backups = pathlib.Path(host.state, "backups")
    assert [path.name for path in backups.iterdir()] == ["u1.prometheus-2.42.0.new"]
    host.config.write_text("x")
    host.apply()
    assert [path.name for path in backups.iterdir()] == ["u1.prometheus-2.42.0"]


def test_restore_points_are_private(host: Host) -> None:
    directory = pathlib.Path(host.state, "backups", host.apply())
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it."""


def test_killed_at_any_call_each_file_is_whole_and_a_mixed_set_is_on_record(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every point where the io ring changes something, enumerated by running, not by hand."""
    points = _points(Host(_fresh(tmp_path, "count")), monkeypatch, die_at=None)
    assert points > 30
    for number in range(points):
        host = Host(_fresh(tmp_path, str(number)))
        _points(host, monkeypatch, die_at=number)
        contents = host.content()
        assert set(contents) <= {*OLD, *NEW}, number
        if contents not in (OLD, NEW) or contents == NEW:
            assert host.record()["state"] == "activated", number
        host.apply()
        assert host.content() == NEW
        host.restore(host.record()["backup_id"])
        assert host.content() == OLD, f"the pristine files are lost after a kill at point {number}"


def _fresh(tmp_path: pathlib.Path, name: str) -> pathlib.Path:
    path = tmp_path / name
    path.mkdir()
    return path


_CHANGING = ("write", "fsync", "rename", "mkdir", "unlink", "fchmod", "fchown", "pwrite", "symlink")


def _points(host: Host, monkeypatch: pytest.MonkeyPatch, *, die_at: int | None) -> int:
    """Swap, dying before the n-th call that changes something. How many calls there were."""
    count = 0

    def dying(call: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def wrapped(*args: t.Any, **kwargs: t.Any) -> t.Any:
            nonlocal count
            if count == die_at:
                raise Killed
            count += 1
            return call(*args, **kwargs)

        return wrapped

    def opening(call: t.Callable[..., int]) -> t.Callable[..., int]:
        """Of all that is opened, what is made is a change."""
        making = dying(call)

        def wrapped(path: str, flags: int, *args: t.Any, **kwargs: t.Any) -> int:
            return (making if flags & os.O_CREAT else call)(path, flags, *args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for name in _CHANGING:
            patch.setattr(os, name, dying(getattr(os, name)))
        patch.setattr(os, "open", opening(os.open))
        if die_at is not None:  # a killed program cleans nothing up
            remove = _files.Location.remove
            patch.setattr(_files.Location, "remove", lambda place: None if count >= die_at else remove(place))
        with contextlib.suppress(Killed):
            host.apply()
    return count


# -- links ----------------------------------------------------------------------------------------------------------


def linked(host: Host) -> pathlib.Path:
    """The first program is behind a link now."""
    program = host.bin / "prometheus"
    program.rename(host.bin / "prometheus-2.42.0")
    program.symlink_to("prometheus-2.42.0")
    return program


def test_a_step_that_puts_a_restore_point_back_makes_the_link_again(host: Host) -> None:
    program = linked(host)
    backup_id = host.apply()
    with _store.session(host.state, run=RUN, acquire=True) as session:
        kept = _restore_point.read(session, backup_id).entries[0]
        source = os.path.join(session.layout.backup(backup_id), kept.stored)
        candidate = _swap.Candidate(source, kept.path, kept.sha256, link=kept.link)
        swap = host.swap(step=Step("prometheus", "2.42.0"), candidates=[candidate])
        _swap.apply(_command.run, session, swap, _swap.changes(swap))
    assert os.readlink(program) == "prometheus-2.42.0"
    assert program.read_text() == "old prometheus"


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_a_link_whose_target_is_not_what_it_was_comes_back_as_the_file(host: Host, change: str) -> None:
    program = linked(host)
    backup_id = host.apply()
    target = host.bin / "prometheus-2.42.0"
    target.write_text("other") if change == "changed" else target.unlink()
    host.restore(backup_id)
    assert not program.is_symlink()
    assert program.read_text() == "old prometheus"
    assert target.exists() == (change == "changed")
