#!/usr/bin/env python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of this scenario: read and checked, spread over hosts, and shown as a table.

layouts.py    write the table of rows into docs/adoption.md
"""

from __future__ import annotations

import pathlib
import re
import typing as t

import yaml

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "docs/adoption.md"
HOSTS = ("host1", "host2", "host3")
BEGIN, END = "<!-- rows of molecule/layouts: written by layouts.py -->", "<!-- end of the rows -->"
Data = dict[str, t.Any]

FIELDS = {
    "layout": "what is laid out; its name",
    "kind": "part of the table it is shown in; that of the file unless given",
    "component": "the component",
    "source": "where the layout was seen",
    "program": "path or paths of the program; below /usr/local/bin unless given",
    "files": "files by path: their text, or text, mode and owner",
    "unit": "unit of the component's name: its text, or that of its section Service",
    "units": "units by name or path, in place of it",
    "before": "shell: what is done before it is started",
    "start": "shell: how it is started, in place of systemctl start",
    "ready": "URLs that answer then, in place of the component's usual port",
    "after": "shell: what is done after it was started",
    "clean": "shell: what removes what is left",
    "remove": "paths that are removed at the end, beside those above",
    "stop": "units that are stopped at the end, beside those above",
    "runs_in": "units whose processes run the program, in place of the services above",
    "runs": "how many processes of these units run the program, if not one",
    "watch": "paths that must be as before after a rollback, beside those above",
    "old": "version before the upgrade, in place of that of programs.yml",
    "new": "version after it",
    "overrides": "upgrade_overrides of the component",
    "named": "its key in the survey, if that is not the component",
    "reads": "what is read of it; OLD and NEW stand for versions, ANY for anything that is there",
    "more": "what is read of further instances, by their keys",
    "not_upgradable": "the key for which it can't be upgraded",
    "outcome": "upgraded, planned, or blocker or skipped with the finding's key; follows from not_upgradable",
    "findings": "further findings of the plan, with their severities",
    "text": "texts that the findings of the plan have",
    "alone": "whether other rows must not be on its host",
}
REQUIRED = ("layout", "component", "source", "outcome")


def rows() -> list[Data]:
    """All rows, in the order of the files, with every field filled in.

    :raises ValueError: if a row isn't one.
    """
    programs = yaml.safe_load((HERE / "programs.yml").read_text())
    found = []
    for path in sorted((HERE / "rows").glob("*.yml")):
        document = yaml.safe_load(path.read_text())
        found.extend(complete({"kind": document["kind"], **row}, programs) for row in document["rows"])
    names = [row["layout"] for row in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two rows have one name: {', '.join(sorted(twice))}")
    return found


def complete(row: Data, programs: Data) -> Data:
    name = row.get("layout", row)
    if row.get("not_upgradable"):
        row = {"outcome": f"blocker {row['not_upgradable']}", **row}
    if missing := [field for field in REQUIRED if field not in row]:
        raise ValueError(f"{name}: {', '.join(missing)} missing")
    if unknown := set(row) - set(FIELDS):
        raise ValueError(f"{name}: {', '.join(sorted(unknown))} is no field")
    component = row["component"]
    program = programs[component]
    paths = row.get("program", f"/usr/local/bin/{program.get('file', component)}")
    units = row.get("units", {f"{component}.service": row["unit"]} if "unit" in row else {})
    services = [unit for unit in units if unit.endswith(".service") and "@." not in unit and "/" not in unit]
    return {
        "start": f"systemctl start {' '.join(services)}" if services else "true",
        "ready": [f"http://127.0.0.1:{program['port']}/metrics"],
        "runs_in": services,
        "runs": 1,
        "named": component,
        **dict.fromkeys(("before", "after", "clean", "not_upgradable"), ""),
        **{field: [] for field in ("remove", "stop", "watch", "text")},
        **{field: {} for field in ("files", "overrides", "reads", "more", "findings")},
        "old": program["old"],
        "new": program["new"],
        "alone": False,
        **row,
        "programs": [paths] if isinstance(paths, str) else paths,
        "units": units,
        "services": services,
        "from_to": program,
    }


def spread(found: t.Sequence[Data]) -> list[tuple[int, str, Data]]:
    """A batch and a host for each row, so that no host has one component twice at a time. Rows that are upgraded come
    first, so that few batches have any."""
    taken: dict[tuple[int, str], set[str]] = {}
    placed = []
    for row in sorted(found, key=lambda row: (row["outcome"] != "upgraded", row["alone"])):
        batch, host = next(slot for slot in _slots() if _fits(row, taken.get(slot, set())))
        taken.setdefault((batch, host), set()).add("*" if row["alone"] else row["component"])
        placed.append((batch, host, row))
    return sorted(placed, key=lambda each: each[:2])


def _slots() -> t.Iterator[tuple[int, str]]:
    for batch in range(100):
        for host in HOSTS:
            yield batch, host


def _fits(row: Data, taken: set[str]) -> bool:
    return not taken if row["alone"] else not taken & {row["component"], "*"}


def table(found: t.Iterable[Data]) -> str:
    """The rows as Markdown."""
    lines = []
    kind = None
    for row in found:
        if row["kind"] != kind:
            kind = row["kind"]
            lines += ["", f"### {kind}", "", "| layout | component | result | seen in |", "|---|---|---|---|"]
        cells = (row["layout"], f"`{row['component']}`", result(row), row["source"])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines).lstrip("\n")


def result(row: Data) -> str:
    """What comes of a row, in words."""
    outcome, _space, key = row["outcome"].partition(" ")
    words = {"upgraded": "upgraded, rolled back", "blocker": "blocker", "skipped": "skipped", "planned": "planned"}
    told = f"{words[outcome]} `{key}`" if key else words[outcome]
    if row["not_upgradable"]:
        told = f"not upgradable: `{row['not_upgradable']}`"
    further = ", ".join(f"{severity} `{finding}`" for finding, severity in row["findings"].items())
    return f"{told}; {further}" if further else told


def pytest_terminal_summary(terminalreporter: t.Any) -> None:
    """Show the rows that were tested: what each expects, and whether that came."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    told = {report.nodeid.partition("[")[2].rstrip("]"): report.outcome for report in reports if report.when == "call"}
    terminalreporter.section("layouts")
    for row in rows():
        if name(row) in told:
            terminalreporter.write_line(f"{told[name(row)]:7} {name(row):85} {result(row)}")


def name(row: Data) -> str:
    """The name of a row's test."""
    return f"{row['component']}: {row['layout']}"


def document(text: str) -> str:
    """The document with the rows as they are now."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table(rows())}\n\n{END}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
