#!/usr/bin/env python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stops commands at every point where they change something, in each way there is, and writes docs/reliability.md.

Fails if a single point isn't survived, or if it doesn't find what careless code would leave.

Power cuts need root, loop devices and ext4. Without them this fails, unless RELIABILITY_WITHOUT_POWER_CUTS=1 says that
it may go on without; the table tells that, too. Directories are made below TMPDIR: the fastest is one in memory.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import os
import pathlib
import signal
import sys
import tempfile
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))  # this folder is no package: it is run from anywhere

from ansible_collections.observability.stack.plugins.module_utils import _files
from ansible_collections.observability.stack.tests.unit.crash import FAULTS, PLUGINS
from ansible_collections.observability.stack.tests.unit.crash_host import (
    SCENARIOS,
    Table,
    Testbed,
    guard_matrix,
    matrix,
)
from power import NoPowerError, PowerBed, power_cuts

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin of what make reliability writes -->", "<!-- end of what make reliability writes -->"
WITHOUT = "RELIABILITY_WITHOUT_POWER_CUTS"
LEAST = 5

KINDS = {
    **{name: fault.title for name, fault in FAULTS.items()},
    "left-alone": "killed, and then nobody comes: the host's guard decides",
    "guard": "the guard is killed while it undoes the step; then the command again",
    "guard-again": "the guard is killed while it undoes the step, and tries again",
    "power": "power cut: nothing is on the disk that wasn't synced",
    "power-committed": "power cut: names are on the disk, but no data that wasn't synced",
}


class Row(t.NamedTuple):
    """One row of the table."""

    kind: str
    scenario: str
    table: Table


def _private() -> pathlib.Path:
    """Where to work: a directory that root alone controls, as a state directory must be, which /tmp isn't."""
    place = pathlib.Path.home() / ".cache" / "obs-tests"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def attempt(kind: str, scenario: str) -> Row:
    """One kind of fault at each point of one scenario."""
    with tempfile.TemporaryDirectory(prefix="reliability-", dir=_private()) as work:
        return Row(kind, scenario, _tables(kind)(pathlib.Path(work), scenario))


def _tables(kind: str) -> t.Callable[[pathlib.Path, str], Table]:
    def cut(work: pathlib.Path, scenario: str) -> Table:
        return power_cuts(PowerBed(work, SCENARIOS[scenario], committed=kind == "power-committed"))

    def stop(work: pathlib.Path, scenario: str) -> Table:
        with Testbed(work, SCENARIOS[scenario]) as bed:
            if kind.startswith("guard"):
                return guard_matrix(bed, FAULTS["killed"], alone=kind == "guard-again")
            return matrix(bed, FAULTS["killed" if kind == "left-alone" else kind], alone=kind == "left-alone")

    return cut if kind.startswith("power") else stop


def careless(kind: str) -> bool:
    """Whether a writer that is careless in just the way that this kind of fault punishes is found out."""
    syncs = "" if kind.startswith("power") else "        os.fsync(sink.fileno())\n"
    target = "f'{path}.upgrade-new'" if kind.startswith("power") else "path"
    source = (
        f"def planted(path, data, **_mode):\n    with open({target}, 'wb') as sink:\n        sink.write(data)\n"
        f"        sink.flush()\n{syncs}    if {target} != path:\n        os.rename({target}, path)\n"
    )
    names: dict[str, t.Any] = {"os": os}
    exec(compile(source, PLUGINS + "planted.py", "exec"), names)  # noqa: S102  # as if it were the collection's own
    careful, _files.write_durably = _files.write_durably, names["planted"]
    try:
        return bool(attempt(kind, "upgrade").table.problems)
    finally:
        _files.write_durably = careful


# -- telling it ---------------------------------------------------------------------------------------------------

TEXT = """\
{begin}

## What is tried

{count} times a command was stopped, at each of its points, one after the other, and then given again.

A **point** is where the collection changes something, right before it does: each `write`, `fsync`, `rename`, `unlink`,
`mkdir`, `chmod`, `chown`, `setxattr`, `truncate` and the like, each file that is made, and each command to systemd that
changes something. Nobody lists them. They are counted where the collection makes the call, so that new code has its
points by being there. To stop right before a call is to stop right after the one before it. A write is also stopped in
its middle.

What must hold **at once**, at each point:

- each program is there and whole, old or new, with its owner, mode and capabilities;
- where they are a mixed set, or are new, the record says so; and the record can be read.

And **after the same command is given again**, once:

- the upgrade is recorded as completed, with the new version in place; or, with a release that doesn't start, as undone,
  with the old one in place. The service runs the file that is on disk, and is healthy;
- there is a restore point of the old version, with its content, and none that the record doesn't name;
- nobody holds the host, nothing is staged, no temporary file and nothing of the guard is left;
- the same command, given a third time, changes nothing, not one file, and not one inode; unless the release is a bad
  one, which would be tried again.

Where a fault is an error and not an end, the run tells which file it was about.

## Figures

| what happens at the point | scenario | points | survived |
|---|---|---:|---:|
{rows}

{lost}{missing}The modules, the survey, the planner, the guard, the programs and the service's process are real.
Systemd is a stand-in that really starts them, and the role's tasks are gone through in their order, by
`tests/unit/crash_host.py`.
Power cuts happen on a real ext4: its image is copied at the point, and mounted again (`tests/reliability/power.py`).

## How to run it

`make reliability`, as root. It fails if one point isn't survived, or if planted carelessness isn't found; its `--help`
tells more. A part of it runs with the unit tests: `tests/unit/test_crash_matrix.py`.

{end}
"""
FRAME = """\
# Reliability

{begin}
{end}

## On real hosts

Not measured yet.
"""


def write_page(rows: list[Row], *, without: bool) -> None:
    """Put the figures where they belong on the page; the rest of it stays."""
    order = {kind: number for number, kind in enumerate(KINDS)}
    ordered = sorted(rows, key=lambda row: (order[row.kind], list(SCENARIOS).index(row.scenario)))
    lines = [
        f"| {KINDS[row.kind]} | {SCENARIOS[row.scenario].title} | {row.table.tried} | {row.table.survived()} |"
        for row in ordered
    ]
    problems = (f"- {row.scenario}: {point}" for row in ordered for point in row.table.problems)
    lost = "Not survived:\n\n" + "\n".join(problems) + "\n\n" if any(row.table.problems for row in rows) else ""
    missing = "Power cuts were left out: there were no loop devices.\n\n" if without else ""
    count = f"{sum(row.table.tried for row in rows):,}"
    text = TEXT.format(begin=BEGIN, end=END, count=count, rows="\n".join(lines), lost=lost, missing=missing)
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else FRAME.format(begin=BEGIN, end=END)
    before, _begin, rest = page.partition(BEGIN)
    PAGE.write_text(before + text.rstrip("\n") + rest.partition(END)[2], encoding="utf-8")


def chosen_kinds(words: list[str]) -> list[str]:
    """The kinds to try. Ends with what is missing for them, unless somebody wants to go on without."""
    kinds = words or list(KINDS)
    if not any(kind.startswith("power") for kind in kinds):
        return kinds
    try:
        with tempfile.TemporaryDirectory(prefix="reliability-", dir=_private()) as work:
            PowerBed(pathlib.Path(work), SCENARIOS["upgrade"], committed=False)
    except NoPowerError as exc:
        if os.environ.get(WITHOUT) != "1":
            raise SystemExit(f"There can be no power cuts here: {exc}. {WITHOUT}=1 goes on without them.") from exc
        print(f"Left out: power cuts ({exc})", flush=True)
        return [kind for kind in kinds if not kind.startswith("power")]
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kind", action="append", choices=list(KINDS), default=[], help="only this; leaves the page alone"
    )
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), default=[], help="the same")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in workers, too: nothing is left mounted or running
    kinds, scenarios = chosen_kinds(arguments.kind), arguments.scenario or list(SCENARIOS)
    begun, rows = time.monotonic(), []
    blind = [kind for kind in ("killed", "power-committed") if kind in kinds and not careless(kind)]
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done in concurrent.futures.as_completed(
            pool.submit(attempt, *pair) for pair in itertools.product(kinds, scenarios)
        ):
            row = done.result()
            rows.append(row)
            print(f"{row.table.survived():4} of {row.table.tried:4}  {row.scenario:14}  {KINDS[row.kind]}", flush=True)
            print(row.table, end="", flush=True)
    if not arguments.kind and not arguments.scenario:
        write_page(rows, without=set(kinds) != set(KINDS))
    tried, survived = sum(row.table.tried for row in rows), sum(row.table.survived() for row in rows)
    print(f"{survived} of {tried} points survived, in {time.monotonic() - begun:.0f} s")
    for kind in blind:
        print(f"Careless code wasn't found: {KINDS[kind]}")
    return int(survived < tried or bool(blind) or any(row.table.tried < LEAST for row in rows))


if __name__ == "__main__":
    sys.exit(main())
