# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _loaded_unit, _schema, _unit_text
from ansible_collections.observability.stack.plugins.module_utils._command import Completed

if t.TYPE_CHECKING:
    from ansible_collections.observability.stack.tests.unit.support import Data

NAME = "node_exporter.service"
OWN = "/state/pending/node_exporter"
ARGV = ["/usr/bin/node_exporter", "--a=b c", '--quote="x"', "--percent=5%", "$OPTIONS", "", "--line=1\n2"]
SHOWN = {
    "Id": NAME,
    "LoadState": "loaded",
    "User": "node-exp",
    "Type": "simple",
    "NoNewPrivileges": "yes",
    "MemoryMax": "infinity",
    "Environment": 'GOGC=50 "TWO=a b"',
    "EnvironmentFiles": "/etc/default/one (ignore_errors=yes)",
    "LimitNOFILE": "1024",
    "LimitNOFILESoft": "512",
    "CapabilityBoundingSet": "cap_net_raw",
    "WorkingDirectory": "!/var/lib/x",
    "TimeoutStartUSec": "1min 30s",
}


class Manager:
    """Answers for systemctl and busctl as systemd 252 does, with one unit."""

    def __init__(self, **properties: str) -> None:
        self.properties = {**SHOWN, **properties}
        self.argv = ARGV
        self.after_reload: dict[str, str] = {}
        self.has_bus = True
        self.reloads = 0

    def __call__(self, argv: t.Sequence[str], **_options: t.Any) -> Completed:
        if argv[0] == "busctl":
            data = [["/usr/bin/node_exporter", self.argv, False, 0, 0, 0, 0, 0, 0, 0]]
            known = self.has_bus and argv[-1] == "ExecStart"
            assert argv[-3].endswith("/node_5fexporter_2eservice")
            return Completed(0, json.dumps({"type": "a(s)", "data": data}), "") if known else Completed(1, "", "no bus")
        if argv[1] == "daemon-reload":
            self.reloads += 1
            self.properties.update(self.after_reload)
            return Completed(0, "", "")
        line = f"{{ path={self.argv[0]} ; argv[]={' '.join(self.argv)} ; flags=ignore-failure ; start_time=[n/a] }}"
        shown = {**self.properties, "ExecStartEx": line.replace("\n", " ")}
        return Completed(0, "".join(f"{key}={value}\n" for key, value in shown.items()), "")


@pytest.fixture(autouse=True)
def run_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(_loaded_unit, "_DIRECTORY", str(tmp_path))
    return tmp_path


def kept(manager: Manager) -> Data:
    return t.cast("Data", json.loads(json.dumps(_loaded_unit.read(manager, NAME))))


def test_what_is_kept_has_the_words_of_the_command_as_they_are() -> None:
    manager = Manager()
    unit = kept(manager)
    assert unit["commands"]["ExecStart"] == [{"prefix": "-", "path": "/usr/bin/node_exporter", "argv": ARGV}]
    assert (unit["unit"], unit["loaded"], unit["properties"]["User"]) == (NAME, True, "node-exp")
    assert _schema.problem(unit, _schema._LOADED_UNIT) == ""
    manager.has_bus = False
    assert kept(manager)["commands"]["ExecStart"][0]["argv"] == " ".join(ARGV).split()


def test_a_unit_that_is_as_before_gets_no_drop_in(run_directory: pathlib.Path) -> None:
    manager = Manager()
    before = kept(manager)
    assert _loaded_unit.bring_back(manager, [before], own=OWN) == []
    assert list(run_directory.iterdir()) == []


@pytest.mark.parametrize("before", [[], [{"loaded": False}]])
def test_what_was_not_known_is_not_brought_back(before: list[Data]) -> None:
    manager = Manager()
    assert _loaded_unit.bring_back(manager, before, own=OWN) == []
    assert manager.reloads == 0


def test_what_differs_is_set_as_it_was(run_directory: pathlib.Path) -> None:
    manager = Manager()
    before = kept(manager)
    manager.after_reload = {
        "User": "other",
        "NoNewPrivileges": "no",
        "Environment": "",
        "EnvironmentFiles": "",
        "LimitNOFILESoft": "64",
        "CapabilityBoundingSet": "",
        "WorkingDirectory": "",
        "TimeoutStartUSec": "1s",
    }
    manager.argv = ["/usr/bin/node_exporter", "--not-there"]
    (back,) = _loaded_unit.bring_back(manager, [before], own=OWN)
    path = run_directory / f"{NAME}.d" / _loaded_unit.DROP_IN
    text = path.read_text()
    assert (back.drop_in, manager.reloads) == (str(path), 2)
    assert "ExecStart" in back.settings
    assert "User" in str(back)
    (command,) = _unit_text.commands(_unit_text.settings([text], "Service", "ExecStart")[0].replace("%%", "%"))
    assert (command.prefixes, command.argv) == ("-", ARGV)
    expected = {
        "User": ["node-exp"],
        "NoNewPrivileges": ["yes"],
        "Environment": ["GOGC=50", '"TWO=a b"'],
        "EnvironmentFile": ["-/etc/default/one"],
        "LimitNOFILE": ["512:1024"],
        "CapabilityBoundingSet": ["cap_net_raw"],
        "WorkingDirectory": ["-/var/lib/x"],
        "TimeoutStartSec": ["1min 30s"],
    }
    assert {name: _unit_text.settings([text], "Service", name) for name in expected} == expected
    assert "Type" not in text
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_value_cannot_add_a_line(run_directory: pathlib.Path) -> None:
    manager = Manager()
    manager.argv = ["/usr/bin/node_exporter", "x\nUser=root"]
    before = kept(manager)
    before["properties"]["Environment"] = "'A=b\nUser=root'"
    before["properties"]["WorkingDirectory"] = "/x\nUser=root"
    text = _loaded_unit.drop_in(before, ["ExecStart", "Environment", "WorkingDirectory"], own=OWN)
    assert _unit_text.settings([text], "Service", "User") == []


def test_commands_of_the_watchdog_are_not_of_the_unit() -> None:
    before, now = kept(Manager()), kept(Manager())
    now["commands"]["ExecStartPre"] = [{"prefix": "-+", "path": "/bin/sh", "argv": ["sh", f"{OWN}.pyz", "start"]}]
    assert _loaded_unit.differing(before, now, own=OWN) == []
    assert _loaded_unit.differing(before, now, own="/other") == ["ExecStartPre"]


def test_marks_tell_what_changed_and_not_what_it_is() -> None:
    manager = Manager(Environment="TOKEN=geheim")
    before = _loaded_unit.marks(kept(manager), own=OWN, salt="a")
    manager.properties["Environment"] = "TOKEN=other"
    after = _loaded_unit.marks(kept(manager), own=OWN, salt="a")
    assert [name for name in before if before[name] != after[name]] == ["Environment"]
    assert "geheim" not in json.dumps(before)
    assert before != _loaded_unit.marks(kept(Manager(Environment="TOKEN=geheim")), own=OWN, salt="b")
