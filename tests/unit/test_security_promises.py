# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/security.md names a test for each promise: these tests are there."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
ROWS = re.findall(r"^\| .+ \| .+ \| (.*`.*) \|$", (ROOT / "docs/security.md").read_text(encoding="utf-8"), re.MULTILINE)


def named(cell: str) -> list[tuple[str, str]]:
    """The files and functions that a cell names; a name without a file is one of the file before it."""
    found, file = [], ""
    for place, function in re.findall(r"`([\w/*.]*)(?:::(\w+))?`", cell):
        file = place or file
        found.append((file, function))
    return found


def sources(file: str) -> list[pathlib.Path]:
    on_hosts = file.startswith("hostile/")
    folder = ROOT / ("molecule/hostile/tests" if on_hosts else "tests/unit")
    return sorted(folder.rglob(file.removeprefix("hostile/")))


def test_each_test_that_a_promise_names_is_there() -> None:
    missing = [
        f"{file}::{function}"
        for cell in ROWS
        for file, function in named(cell)
        if not any(f"def {function or 'test_'}" in path.read_text(encoding="utf-8") for path in sources(file))
    ]
    assert missing == []


def test_promises_are_found() -> None:
    """Guards the test above against looking at nothing."""
    assert len(ROWS) > 40
    assert ("hostile/test_canary.py", "test_what_root_s_own_unit_would_run_is_asked_as_nobody") in [
        each for cell in ROWS for each in named(cell)
    ]
