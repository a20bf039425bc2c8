# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _baseline, _guard, _loaded_unit, _store
from ansible_collections.observability.stack.plugins.modules import safe_binary_swap
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Call,
    Data,
    Systemd,
    running,
    sha256,
    snapshot,
)

NAMES = ("prometheus", "promtool")
BACKUP = "u1.prometheus-2.42.0"


class Host:
    """A component of two programs, a candidate for each, and a configuration that holds a secret."""

    def __init__(self, call: Call, root: pathlib.Path, state: pathlib.Path) -> None:
        self.bin, self.staged, self.state = root / "bin", root / "staged", state
        self.config = root / "prometheus.yml"
        self._call = call
        for directory in (self.bin, self.staged):
            directory.mkdir()
        self.config.write_text("password: geheim\n")
        for name in NAMES:
            (self.bin / name).write_text(f"old {name}")
            (self.bin / name).chmod(0o755)
            (self.staged / name).write_text(f"new {name}")
        with _store.session(str(state), run=RUN, acquire=True) as session:
            session.document.begin(RUN, steps=["prometheus@2.53.3"], details={}, now=session.now)
            session.save()
        self.hashes = {name: (sha256(self.bin / name), sha256(self.staged / name)) for name in NAMES}

    def act(self, **arguments: t.Any) -> Data:
        return self._call(safe_binary_swap, **{"component": "prometheus", "run": RUN, **arguments})

    def swap(self, **changes: t.Any) -> Data:
        files = [{"src": str(self.staged / name), "dest": str(self.bin / name)} for name in NAMES]
        keep = {"config": [str(self.config)], "state": [str(self.config.parent / "not-written-yet")]}
        wanted = {"version": "2.53.3", "from_version": "2.42.0", "files": files, "keep": keep}
        return self.act(**{**wanted, **changes})

    def content(self) -> str:
        return " ".join((self.bin / name).read_text().split()[0] for name in NAMES)

    def record(self) -> Data:
        return t.cast("Data", json.loads((self.state / "state.json").read_text())["components"]["prometheus"])

    def files(self) -> dict[str, tuple[t.Any, ...]]:
        """All that is there but the lease, which every module of a run renews."""
        trees = snapshot(self.bin, self.staged, self.config, self.state)
        return {path: seen for path, seen in trees.items() if not path.endswith("upgrade.lock")}


@pytest.fixture
def host(call: Call, tmp_path: pathlib.Path, state_dir: pathlib.Path) -> Host:
    return Host(call, tmp_path, state_dir)


def test_a_declared_file_that_is_missing_keeps_the_swap_from_beginning(host: Host) -> None:
    result = host.swap(keep={"config": [str(host.config), "/nowhere/a.yml"], "unit": ["/nowhere/a.service"]})
    assert (result["failed"], result["key"]) == (True, "swap.incomplete_restore_point")
    assert "/nowhere/a.yml" in result["msg"]
    assert "/nowhere/a.service" in result["msg"]
    assert host.content() == "old old"


def test_all_files_are_put_in_place_with_a_way_back(host: Host) -> None:
    result = host.swap()
    paths = [str(host.bin / name) for name in NAMES]
    assert result["changed"] is True
    assert (result["version"], result["backup_id"]) == ("2.53.3", BACKUP)
    assert result["files"] == [
        {"path": path, "before": before, "after": after} for path, (before, after) in zip(paths, host.hashes.values())
    ]
    assert result["diff"] == {
        "before": {path: f"2.42.0 (sha256 {sha[:12]})" for path, (sha, _after) in zip(paths, host.hashes.values())},
        "after": {path: f"2.53.3 (sha256 {sha[:12]})" for path, (_before, sha) in zip(paths, host.hashes.values())},
    }
    assert host.content() == "new new"
    manifest = json.loads((host.state / "backups" / BACKUP / "manifest.json").read_text())
    assert [(entry["kind"], entry["path"]) for entry in manifest["entries"]] == [
        ("binary", paths[0]),
        ("binary", paths[1]),
        ("config", str(host.config)),
    ]
    assert (host.record()["state"], host.record()["backup_id"]) == ("activated", BACKUP)
    assert "geheim" not in json.dumps(result) + json.dumps(host.record())


@pytest.mark.parametrize("kind", ["unit", "config", "state"])
def test_a_restore_point_never_lacks_a_declared_file(host: Host, kind: str) -> None:
    """A file that is gone, one that is no regular file, and state whose directory is gone."""
    before = host.files()
    fifo = host.config.parent / "fifo"
    os.mkfifo(fifo)
    for path in ("/nowhere/file", str(fifo)):
        result = host.swap(keep={kind: [path]})
        assert (result["failed"], result["key"]) == (True, "swap.incomplete_restore_point")
        assert path in result["msg"]
    assert host.files() == before


def test_of_a_directory_all_files_are_kept(host: Host) -> None:
    (host.config.parent / "d" / "e").mkdir(parents=True)
    paths = [host.config.parent / "d" / name for name in ("a", "e/b")]
    for path in paths:
        path.touch()
    host.swap(keep={"config": [str(host.config.parent / "d")]})
    manifest = json.loads((host.state / "backups" / BACKUP / "manifest.json").read_text())
    assert [entry["path"] for entry in manifest["entries"] if entry["kind"] == "config"] == list(map(str, paths))


def test_what_is_in_place_is_left_alone(host: Host) -> None:
    host.swap()
    before = host.files()
    result = host.swap()
    assert (result["changed"], result["backup_id"]) == (False, BACKUP)
    assert result["diff"]["before"] == result["diff"]["after"]
    assert host.files() == before


def test_only_what_differs_is_renamed_but_all_of_it_is_kept(host: Host) -> None:
    shutil.copyfile(host.staged / "promtool", host.bin / "promtool")
    inode = (host.bin / "promtool").stat().st_ino
    assert host.swap()["changed"] is True
    assert host.content() == "new new"
    assert (host.bin / "promtool").stat().st_ino == inode
    assert len(list((host.state / "backups" / BACKUP).iterdir())) == 4


@pytest.mark.parametrize("step", ["swap", "restore", "swap from restore point"])
def test_check_mode_says_what_would_happen_and_does_nothing(host: Host, step: str) -> None:
    actions: dict[str, t.Callable[..., Data]] = {
        "swap": host.swap,
        "restore": lambda **check: host.act(state="restored", **check),
        "swap from restore point": lambda **check: host.swap(files=[], backup_id=BACKUP, version="2.42.0", **check),
    }
    if step != "swap":
        host.swap()
    before = snapshot(host.bin, host.state)
    foreseen = actions[step](check=True)
    assert snapshot(host.bin, host.state) == before
    assert foreseen["changed"] is True
    done = actions[step]()
    assert [foreseen[key] for key in ("files", "diff", "version")] == [
        done[key] for key in ("files", "diff", "version")
    ]
    assert host.content() == ("new new" if step == "swap" else "old old")


def test_an_attempt_is_undone_once(host: Host) -> None:
    host.swap()
    result = host.act(state="restored")
    assert (result["changed"], result["touched"], result["backup_id"]) == (True, True, BACKUP)
    assert result["version"] == "2.42.0"
    assert [(file["before"], file["after"]) for file in result["files"]] == [
        (after, before) for before, after in host.hashes.values()
    ]
    assert host.content() == "old old"
    assert json.loads((host.state / "state.json").read_text())["upgrade"]["state"] == "ROLLING_BACK"
    before = host.files()
    again = host.act(state="restored")
    assert (again["changed"], again["touched"], again["files"]) == (False, True, [])
    assert host.files() == before


def test_where_nothing_was_touched_there_is_nothing_to_undo(host: Host) -> None:
    before = host.files()
    result = host.act(state="restored")
    assert (result["changed"], result["touched"], result["backup_id"], result["files"]) == (False, False, None, [])
    assert host.files() == before


def test_what_was_confirmed_is_not_undone_unless_its_restore_point_is_named(host: Host) -> None:
    host.swap()
    with _store.session(str(host.state), run=RUN, acquire=True) as session:
        session.document.set_component("prometheus", "verifying", now=session.now)
        session.document.set_component("prometheus", "success", now=session.now)
        session.save()
    assert host.act(state="restored")["changed"] is False
    assert host.content() == "new new"
    assert host.act(state="restored", backup_id=BACKUP)["changed"] is True
    assert host.content() == "old old"


@pytest.mark.parametrize(
    ("kinds", "content", "config"), [(["binary"], "old old", "b: 2\n"), (["config"], "new new", "password: geheim\n")]
)
def test_only_the_kinds_that_are_asked_for_are_put_back(
    host: Host, kinds: list[str], content: str, config: str
) -> None:
    host.swap()
    host.config.write_text("b: 2\n")
    host.act(state="restored", kinds=kinds)
    assert (host.content(), host.config.read_text()) == (content, config)


def test_the_second_attempt_after_a_crash_keeps_the_first_s_restore_point_and_record(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(source: str, target: str, **directories: int) -> None:
        real(source, target, **directories)
        if target == "prometheus":
            raise KeyboardInterrupt

    real = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            host.swap()
    assert host.content() == "new old"
    assert host.swap()["backup_id"] == BACKUP
    assert host.content() == "new new"
    assert [(file["before"], file["after"]) for file in host.record()["files"]] == list(host.hashes.values())
    host.act(state="restored")
    assert host.content() == "old old"


def test_a_program_that_was_replaced_under_its_process_is_kept_from_the_process(host: Host, systemd: Systemd) -> None:
    """Somebody replaced the file by hand and didn't restart: only the process has the version that is known to work."""
    program = host.bin / "prometheus"
    shutil.copy(shutil.which("bash") or "", program)
    good = sha256(program)
    with running(program, "-c", "echo up; read -r line") as pid:
        program.unlink()
        shutil.copy(host.staged / "prometheus", program)
        shutil.copy(host.staged / "promtool", host.bin / "promtool")
        systemd.add("prometheus.service", str(program), pid=pid)
        foreseen = host.swap(unit="prometheus", check=True)
        result = host.swap(unit="prometheus")
        before = host.files()
        again = host.swap(unit="prometheus")
        assert host.files() == before
    assert (foreseen["changed"], result["changed"], again["changed"]) == (True, True, False)
    assert result["diff"]["before"] == result["diff"]["after"]  # only a restore point was made
    host.act(state="restored")
    assert sha256(program) == good


def failing(host: Host, case: str, tmp_path: pathlib.Path) -> Data:
    """Ask for what can't be done."""
    if case == "damaged":
        host.swap()
        stored = next((host.state / "backups" / BACKUP).glob("0-*"))
        stored.write_text("rot")
        return host.act(state="restored")
    one = {"src": str(host.staged / "prometheus"), "dest": str(host.bin / "prometheus")}
    arguments: dict[str, Data] = {
        "no version": {"version": None},
        "no files": {"files": []},
        "not installed": {"files": [{**one, "dest": str(tmp_path / "nothing")}]},
        "changed": {"files": [{**one, "sha256": "0" * 64}]},
        "no such restore point": {"backup_id": "u9.x", "files": []},
        "no candidate": {"files": [{**one, "src": str(tmp_path / "gone")}]},
        "another run": {"run": OTHER_RUN},
        "kind": {"kinds": ["soul"]},
    }
    return host.swap(**arguments[case])


@pytest.mark.parametrize(
    ("case", "key", "says"),
    [
        ("no version", "input.invalid", "state=swapped needs version"),
        ("no files", "swap.nothing_to_replace", "there is no regular file at any path to replace"),
        (
            "not installed",
            "swap.nothing_to_replace",
            "/nothing to replace: this module upgrades what is installed, install",
        ),
        ("changed", "files.checksum", f"but {'0' * 64} was expected: it was changed or damaged"),
        ("no such restore point", "restore_point.unreadable", "restore point u9.x can't be used"),
        ("no candidate", "host.os_error", "/gone: No such file or directory"),
        ("another run", "lock.lost", "upgrade u1 of ops on c1 has had it for 0 min"),
        ("kind", None, "soul"),
        ("damaged", "restore_point.damaged", "Nothing was restored; choose another restore point"),
    ],
)
def test_what_it_cannot_do_is_said_and_no_program_is_touched(
    host: Host, tmp_path: pathlib.Path, case: str, key: str | None, says: str
) -> None:
    content = "new new" if case == "damaged" else "old old"
    result = failing(host, case, tmp_path)
    assert (result["failed"], result.get("key")) == (True, key)
    assert says in result["msg"]
    assert host.content() == content
    assert sorted(path.name for path in host.bin.iterdir()) == list(NAMES)


def test_a_rename_that_fails_undoes_those_before_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str, **directories: int) -> None:
        if target == "promtool" and source.endswith("upgrade-new") and not refused:
            refused.append(target)
            raise OSError(28, "No space left on device", target)
        real(source, target, **directories)

    real, refused = os.rename, list[str]()
    monkeypatch.setattr(os, "rename", refuse)
    result = host.swap()
    assert (result["failed"], result["key"]) == (True, "swap.failed")
    assert result["msg"] == (
        f"{host.bin / 'promtool'}: No space left on device; free some space there and run again. "
        "All files are as they were before"
    )
    assert host.content() == "old old"


def test_without_a_run_it_works_alone(call: Call, host: Host, tmp_path: pathlib.Path) -> None:
    host.state = tmp_path / "alone"
    result = host.swap(run=None, state_dir=str(host.state))
    assert (result["changed"], host.content()) == (True, "new new")
    assert host.act(state="restored", run=None, state_dir=str(host.state))["backup_id"] == result["backup_id"]
    assert host.content() == "old old"


# -- the guard ----------------------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where drop-ins go, on a host that systemd runs."""
    directory = tmp_path / "etc"
    directory.mkdir()
    monkeypatch.setattr(_guard, "UNITS", str(directory))
    monkeypatch.setattr(_guard, "_SYSTEMD_IS_HERE", str(directory))
    return directory


TARGET = {"component": "prometheus", "unit": "prometheus", "binary": "/bin/x", "url": "", "version": "2.42.0"}


def test_a_guard_is_armed_with_what_the_host_must_know(host: Host, systemd: Systemd, units: pathlib.Path) -> None:
    guard = {"confirm_within": 300, "target": TARGET, "probe_timeout": 7}
    host.swap(unit="prometheus", guard=guard)
    marker = json.loads((host.state / "pending" / "prometheus.json").read_text())
    wanted = {"unit": "prometheus.service", "kinds": ["binary"], "probe_window": 10, "starts": {}, "undone": None}
    assert {key: marker[key] for key in [*guard, *wanted]} == {**guard, **wanted}
    assert marker["record"] == {**host.record(), "updated_at": marker["record"]["updated_at"]}
    assert len(systemd.commands("systemd-run")) == 1
    assert [path.name for path in units.iterdir()] == ["prometheus.service.d"]


@pytest.mark.parametrize("unproven", [False, True], ids=["first", "again"])
def test_an_attempt_that_was_cut_off_is_guarded_anew(
    host: Host, systemd: Systemd, units: pathlib.Path, unproven: bool
) -> None:
    guard = {"confirm_within": 300, "target": TARGET}
    if unproven:
        host.swap(unit="prometheus", guard=guard)
    before = len(systemd.asked)
    result = host.swap(unit="prometheus", guard=guard)
    assert result["changed"] is not unproven
    assert [argv[0] for argv in systemd.asked[before:]].count("systemd-run") == 1


@pytest.mark.parametrize(
    ("arguments", "check"),
    [
        ({"guard": {"confirm_within": 0, "target": TARGET}}, False),
        ({}, False),
        ({"guard": {"confirm_within": 300, "target": TARGET}}, True),
    ],
    ids=["the operator goes without", "not asked for", "check mode"],
)
def test_no_guard_is_armed(host: Host, systemd: Systemd, units: pathlib.Path, arguments: Data, check: bool) -> None:
    assert host.swap(unit="prometheus", check=check, **arguments)["changed"] is True
    assert systemd.commands("systemd-run") == []
    assert list(units.iterdir()) == []


def test_a_guard_needs_to_know_the_unit(host: Host, units: pathlib.Path) -> None:
    result = host.swap(guard={"confirm_within": 300, "target": TARGET})
    assert (result["failed"], result["key"]) == (True, "input.invalid")
    assert "needs unit" in result["msg"]
    assert host.content() == "old old"


# -- units that are not what runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [False, True])
def test_a_unit_that_changed_on_disk_is_not_activated(host: Host, systemd: Systemd, *, check: bool) -> None:
    systemd.add("prometheus.service", str(host.bin / "prometheus"), NeedDaemonReload="yes")
    (systemd.directory / "prometheus.service").write_text(
        f"[Service]\nExecStart={host.bin / 'prometheus'} --not-there\n"
    )
    before = host.files()
    result = host.swap(unit="prometheus", check=check)
    assert (result["failed"], result["key"]) == (True, "swap.unit_changed")
    assert "on disk --not-there" in result["msg"]
    assert "Nothing was replaced" in result["msg"]
    assert host.files() == before
    if not check:
        assert host.swap(unit="prometheus", accept=["prometheus.unit_changed"])["changed"] is True


def test_a_unit_that_was_loaded_since_the_preflight_is_not_started(host: Host, systemd: Systemd) -> None:
    systemd.add("prometheus.service", str(host.bin / "prometheus"), User="prometheus")
    with _store.session(str(host.state), run=RUN, acquire=True) as session:
        unit = _loaded_unit.read(systemd, "prometheus")
        marks = _loaded_unit.marks(unit, own=session.layout.own_command("prometheus"), salt="x")
        data = {"upgrade_id": RUN["upgrade_id"], "seen": {}, "unit": {"salt": "x", "marks": marks}}
        _baseline.write(session.layout, "prometheus", data)
    systemd.add("prometheus.service", str(host.bin / "prometheus"), User="other")
    result = host.swap(unit="prometheus")
    assert (result["failed"], result["key"]) == (True, "swap.unit_changed")
    assert "since this run looked at it" in result["msg"]
    assert "User" in result["msg"]
    assert host.content() == "old old"
    assert host.swap(unit="prometheus", accept=["prometheus.unit_changed"])["changed"] is True
    manifest = json.loads((host.state / "backups" / BACKUP / "manifest.json").read_text())
    assert manifest["loaded_units"][0]["properties"]["User"] == "other"


def test_a_step_that_puts_unit_files_back_may_change_the_unit(host: Host, systemd: Systemd) -> None:
    systemd.add("prometheus.service", str(host.bin / "prometheus"), NeedDaemonReload="yes")
    assert host.swap(unit="prometheus", kinds=["binary", "unit"])["changed"] is True


def test_a_link_comes_back_with_the_restore_point(host: Host) -> None:
    (host.bin / "prometheus").rename(host.bin / "prometheus-2.42.0")
    (host.bin / "prometheus").symlink_to("prometheus-2.42.0")
    host.swap()
    assert host.swap(files=[], backup_id=BACKUP, version="2.42.0", from_version="2.53.3")["changed"] is True
    assert os.readlink(host.bin / "prometheus") == "prometheus-2.42.0"
