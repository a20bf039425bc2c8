# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _systemd, _unit_disk
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._systemd import Unit
from ansible_collections.observability.stack.tests.unit.support import running

NAME = "node_exporter.service"
TEXT = "[Service]\nExecStart=/usr/bin/node_exporter --a\nUser=root\n"


class Place:
    """Directories of unit files, and a unit that systemd has loaded from the second."""

    def __init__(self, root: pathlib.Path) -> None:
        self.etc, self.lib = root / "etc", root / "lib"
        for directory in (self.etc, self.lib):
            directory.mkdir()
        self.write("lib", NAME, TEXT)

    def write(self, where: str, name: str, text: str) -> pathlib.Path:
        path = getattr(self, where) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return t.cast("pathlib.Path", path)

    def unit(self, *, name: str = NAME, load: str = "loaded", active: str = "active", **properties: str) -> Unit:
        shown = {
            "Id": name,
            "Names": name,
            "FragmentPath": str(self.lib / NAME),
            "DropInPaths": "",
            "NeedDaemonReload": "no",
            "ExecStart": "{ path=/usr/bin/node_exporter ; argv[]=/usr/bin/node_exporter --a ; ignore_errors=no ; }",
            "User": "root",
            **properties,
        }
        return Unit(name, load, active, "running", "", os.getpid(), 0, shown)

    @property
    def directories(self) -> list[str]:
        return [str(self.etc), str(self.lib)]

    def change(self, **properties: t.Any) -> t.Any:
        return _unit_disk.change_of(self.unit(**properties), self.directories)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


def test_a_unit_whose_files_are_loaded_is_unchanged(place: Place) -> None:
    drop_in = place.write("etc", f"{NAME}.d/a.conf", "[Service]\nUser=root\n")
    assert place.change(DropInPaths=str(drop_in)) is None
    assert place.change(load="not-found", active="inactive") is None


def test_a_change_is_shown(place: Place) -> None:
    place.write("lib", NAME, TEXT.replace("--a", "--b"))
    change = place.change(NeedDaemonReload="yes")
    assert (change.kind, change.files, change.generated) == ("changed", (), False)
    assert [str(one) for one in change.differences] == ["ExecStart: loaded --a, on disk --b"]


def test_a_drop_in_that_systemd_has_not_noticed_is_a_change(place: Place) -> None:
    path = place.write("etc", f"{NAME}.d/a.conf", "[Service]\nUser=nobody\n")
    change = place.change()
    assert change.files == (f"{path} was added",)
    assert [str(one) for one in change.differences] == ["User: loaded root, on disk nobody"]


@pytest.mark.parametrize("name", ["service.d", "node_exporter@.service.d", "node-.service.d", "alias.service.d"])
def test_drop_ins_are_found_where_systemd_looks(place: Place, name: str) -> None:
    place.write("etc", f"{name}/a.conf", "[Service]\nUser=nobody\n")
    unit = {"node_exporter@.service.d": "node_exporter@x.service", "node-.service.d": "node-exporter.service"}
    shown = unit.get(name, NAME)
    place.write("lib", shown, TEXT)
    found = place.change(name=shown, Names=f"{shown} alias.service", FragmentPath=str(place.lib / shown))
    assert found.files == (f"{place.etc / name}/a.conf was added",)


def test_a_drop_in_of_the_same_name_hides_the_one_in_a_later_directory(place: Place) -> None:
    first = place.write("etc", f"{NAME}.d/a.conf", "[Service]\nUser=root\n")
    place.write("lib", f"{NAME}.d/a.conf", "[Service]\nUser=nobody\n")
    assert place.change(DropInPaths=str(first)) is None
    first.write_text("")  # a mask
    assert place.change(DropInPaths=str(first)) is None


def test_a_drop_in_that_is_gone_is_a_change(place: Place) -> None:
    gone = f"{place.etc}/{NAME}.d/a.conf"
    assert place.change(DropInPaths=gone).files == (f"{gone} was removed",)


def test_a_unit_file_of_higher_precedence_is_a_change(place: Place) -> None:
    path = place.write("etc", NAME, TEXT)
    assert place.change().files == (f"{path} takes the place of {place.lib / NAME}",)


def test_a_link_to_the_loaded_file_is_none(place: Place) -> None:
    (place.etc / NAME).symlink_to(place.lib / NAME)
    assert place.change() is None


def test_masks_and_removed_files(place: Place) -> None:
    (place.etc / NAME).symlink_to("/dev/null")
    assert place.change().kind == "masked"
    (place.etc / NAME).unlink()
    assert place.change(load="masked").kind == "masked"
    (place.lib / NAME).unlink()
    assert place.change().kind == "gone"
    assert place.change(load="not-found").kind == "gone"


def test_what_an_interrupted_upgrade_left_is_no_change_of_the_operator(place: Place) -> None:
    place.write("etc", f"{NAME}.d/{_systemd.OWN_DROP_IN}x.conf", "[Service]\nExecCondition=/bin/true\n")
    assert place.change(NeedDaemonReload="yes") is None
    place.write("lib", NAME, TEXT.replace("--a", "--b"))
    assert place.change(NeedDaemonReload="yes").differences


def test_a_touched_unit_file_has_no_difference(place: Place) -> None:
    change = place.change(NeedDaemonReload="yes")
    assert (change.kind, change.files, change.differences) == ("changed", (), ())


def test_the_next_start_is_that_of_the_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT.replace("--a", "--b") + "Environment=A=b\nEnvironmentFile=-/etc/x\nUser=nobody\n"
    place.write("lib", NAME, text)
    shown = "".join(f"{key}={value}\n" for key, value in place.unit(NeedDaemonReload="yes").properties.items())
    shown += f"LoadState=loaded\nActiveState=active\nMainPID={os.getpid()}\n"

    def systemctl(argv: t.Sequence[str], **_options: t.Any) -> Completed:
        return Completed(0, f"UnitPath={' '.join(place.directories)}\n" if "--" not in argv else shown, "")

    unit = _unit_disk.next_start(systemctl, NAME)
    assert _systemd.command_line(unit, lambda path: "") == ["/usr/bin/node_exporter", "--b"]
    assert (unit.main_pid, unit.properties["User"]) == (0, "nobody")
    assert unit.environment_files() == ["/etc/x"]
    assert _systemd.environment_of(unit, lambda path: "") == {"A": "b"}


def test_files_that_are_newer_than_the_process(place: Place, tmp_path: pathlib.Path) -> None:
    environment = tmp_path / "one.env"
    environment.write_text("A=b\n")
    unit = place.unit(EnvironmentFiles=f"{tmp_path}/*.env (ignore_errors=yes)")
    for path in (environment, place.lib / NAME):
        os.utime(path, (1e9, 1e9))
    assert _unit_disk.newer_files(unit, place.directories) == []
    for path in (environment, place.lib / NAME):
        os.utime(path, (4e9, 4e9))
    found = _unit_disk.newer_files(unit, place.directories)
    assert [(one.what, one.path) for one in found] == [
        ("unit", str(place.lib / NAME)),
        ("environment", str(environment)),
    ]
    assert _unit_disk.newer_files(unit._replace(main_pid=0), place.directories) == []


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ({"EnvironmentFiles": "/nowhere/x (ignore_errors=no)"}, "its environment file /nowhere/x is not there"),
        ({"EnvironmentFiles": "/nowhere/x (ignore_errors=yes)"}, ""),
        ({"WorkingDirectory": "/nowhere"}, "its working directory /nowhere is not there"),
        ({"WorkingDirectory": "!/nowhere"}, ""),
        ({"WorkingDirectory": "/nowhere", "RootDirectory": "/srv"}, ""),
        ({"User": "nobody-knows"}, "its user nobody-knows is not known"),
        ({"User": "nobody-knows", "DynamicUser": "yes"}, ""),
        ({"User": "12345"}, ""),
    ],
)
def test_what_a_start_would_lack(place: Place, properties: dict[str, str], why: str) -> None:
    assert _unit_disk.cannot_start(place.unit(**properties)) == [why] * bool(why)
    assert _unit_disk.cannot_start(place.unit(active="inactive", **properties)) == []


def test_what_the_process_was_started_with(place: Place, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program"
    shutil.copy(shutil.which("bash") or "", program)
    user = pwd.getpwuid(os.geteuid()).pw_name

    def look(argv: str, **properties: str) -> list[str]:
        shown = f"{{ path={program} ; argv[]={program}{argv} ; ignore_errors=no ; }}"
        unit = place.unit(ExecStart=shown, **{"User": user, **properties})._replace(main_pid=pid)
        return [str(one) for one in _unit_disk.started_otherwise(unit)]

    with running(program, "-c", "echo up; read -r line60") as pid:
        assert look(" -c echo up; read -r line60") == []
        assert look(" -c echo up; read -r $LINE", Environment="LINE=line60") == []
        assert look(" -c echo up; read -r line90") == ["ExecStart: loaded line60, on disk line90"]
        assert look(" -c echo up; read -r line60", User="daemon") == [f"User: loaded {os.geteuid()}, on disk daemon"]
        assert look(" -c echo up; read -r line60", User="daemon", DynamicUser="yes") == []
        assert look(" -c echo up; read -r line60", User="nobody-knows") == []
        wrapped = place.unit(ExecStart="{ path=/bin/wrapper ; argv[]=/bin/wrapper --x ; ignore_errors=no ; }")
        assert _unit_disk.started_otherwise(wrapped._replace(main_pid=pid)) == ()
