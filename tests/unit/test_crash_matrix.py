# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever a command is stopped at: the host is whole at once, and the same command, given again, ends it.

`make reliability` tries all faults with all scenarios, and power cuts.
"""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _files, _swap
from ansible_collections.observability.stack.tests.unit.crash import FAULTS, PLUGINS
from ansible_collections.observability.stack.tests.unit.crash_host import (
    SCENARIOS,
    Testbed,
    guard_matrix,
    matrix,
    points_of,
)

LEAST = {"killed": 60, "torn": 15}
"""Points that there are at least. With fewer, it is the counting that is broken."""


@pytest.mark.parametrize(("scenario", "fault"), [*((name, "killed") for name in SCENARIOS), ("upgrade", "torn")])
def test_a_run_that_is_cut_off_is_ended_by_the_next(scenario: str, fault: str, tmp_path: pathlib.Path) -> None:
    with Testbed(tmp_path, SCENARIOS[scenario]) as bed:
        table = matrix(bed, FAULTS[fault])
    assert str(table) == ""
    assert table.tried >= LEAST[fault]


def test_an_undoing_by_the_host_itself_that_is_cut_off_is_ended(tmp_path: pathlib.Path) -> None:
    with Testbed(tmp_path, SCENARIOS["upgrade"]) as bed:
        table = guard_matrix(bed, FAULTS["killed"], alone=True)
    assert str(table) == ""
    assert table.tried >= 20


def test_a_host_that_is_left_alone_decides_by_itself(tmp_path: pathlib.Path) -> None:
    with Testbed(tmp_path, SCENARIOS["bad-release"]) as bed:
        table = matrix(bed, FAULTS["killed"], only="_guard", alone=True)
    assert str(table) == ""
    assert table.tried >= 5


def test_each_kind_of_change_is_a_point(tmp_path: pathlib.Path) -> None:
    with Testbed(tmp_path, SCENARIOS["upgrade"]) as bed:
        points = points_of(bed)
    operations = {
        "create",
        "write",
        "pwrite",
        "fsync",
        "rename",
        "unlink",
        "rmdir",
        "mkdir",
        "fchmod",
        "fchown",
    }
    assert operations | {"setxattr", "run"} <= {point.operation for point in points}
    assert {"_archive._take", "_files.remove_tree", "_systemd.systemctl"} <= {point.caller for point in points}
    assert "state/state.json" in {point.what for point in points if point.operation == "rename"}


# -- the matrix finds what it is there to find --------------------------------------------------------------------


def planted(source: str, **names: t.Any) -> t.Any:
    """A function as if it were the collection's own, so that what it does has its points."""
    exec(compile(source, PLUGINS + "planted.py", "exec"), names)  # noqa: S102
    return names["planted"]


def test_it_finds_a_record_that_is_written_in_place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def planted(path, data, **_mode):\n    with open(path, 'wb') as sink:\n        sink.write(data)\n"
    monkeypatch.setattr(_files, "write_durably", planted(source))
    with Testbed(tmp_path, SCENARIOS["upgrade"]) as bed:
        table = matrix(bed, FAULTS["killed"], only="write state/state.json")
    assert table.tried
    assert "at once: state.json: Expecting value" in str(table)


def test_it_finds_a_record_that_comes_after_the_act(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, apply, late = _swap._record, _swap.apply, []
    monkeypatch.setattr(_swap, "_record", lambda *arguments: late.append(arguments))

    def apply_and_record(*arguments: t.Any) -> str:
        backup_id = apply(*arguments)
        record(*late[0])
        return backup_id

    monkeypatch.setattr(_swap, "apply", apply_and_record)
    with Testbed(tmp_path, SCENARIOS["upgrade"]) as bed:
        table = matrix(bed, FAULTS["killed"], only="rename bin/promtool")
    assert table.tried == 1
    assert "at once: the programs are new, old, and the record says staged" in str(table)


def test_it_finds_what_is_left_behind(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def planted(path):\n    return f'{path}.{os.getpid()}.upgrade-new'\n"
    monkeypatch.setattr(_files, "temporary_beside", planted(source, os=os))
    with Testbed(tmp_path, SCENARIOS["upgrade"]) as bed:
        table = matrix(bed, FAULTS["killed"], only="write bin/")
    assert table.tried == 2
    assert "after the next run: left behind: bin/" in str(table)
