# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each row is laid out on a host, read, planned and, where the row expects it, upgraded and rolled back.

Many rows share a host and a run. Each test compares one row with what the runs of its batch reported.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest
from conftest import CHECKOUT, LAB, Run, Server

sys.path.insert(0, str(CHECKOUT / "molecule/layouts"))
import layouts

pytest_plugins = ["layouts"]
Data = dict[str, t.Any]
HOST_SIDE = (CHECKOUT / "molecule/layouts/host.py").read_text()
INVENTORY = json.loads((LAB / "inventory/hosts.json").read_text())["all"]
MIRROR = INVENTORY["vars"]["upgrade_release_mirror"]
ROWS = re.compile(os.environ.get("ROWS", ""))
"""A regular expression of names: for those who work on some rows, only these are laid out."""
PLACED = layouts.spread([row for row in layouts.rows() if ROWS.search(layouts.name(row))])
READ_ONLY = bool(os.environ.get("READ_ONLY"))
"""Whether rows are only read and planned: a minute instead of many, for whoever works on reading."""
QUICK = {"probe_window": 1, "probe_timeout": 20, "stages": []}


def container(host: str) -> str:
    """The name of a host's container: capabilities that its own root lacks are needed to make a file immutable."""
    address = INVENTORY["hosts"][host]["ansible_host"]
    form = "{{.Name}} {{.NetworkSettings.IPAddress}}"
    names = subprocess.check_output(["podman", "ps", "--quiet"], text=True).split()
    listed = subprocess.check_output(["podman", "inspect", f"--format={form}", *names], text=True)
    return next(
        name for name, _space, found in (line.partition(" ") for line in listed.splitlines()) if found == address
    )


CONTAINERS = {host: container(host) for host in layouts.HOSTS}


def on_host(host: str, action: str, rows: list[Data]) -> Data:
    """Call the program host.py on a host."""
    command = ["podman", "exec", "--interactive", "--privileged", CONTAINERS[host], "python3", "-c", HOST_SIDE]
    job = json.dumps({"action": action, "mirror": MIRROR, "rows": rows})
    done = subprocess.run(command, input=job, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return t.cast("Data", json.loads(done.stdout))


@functools.cache
def debian() -> Data:
    """The versions of Debian's programs, by suite."""
    server = Server("host1")
    return t.cast("Data", json.loads(server.get(f"{MIRROR}/programs.json"))["versions"])


def versions(row: Data) -> tuple[str, str]:
    """The versions of a row before and after."""
    old, new = row["old"], row["new"]
    if "project" in row["from_to"]:
        return old, new
    known = debian()[row["component"]]
    return known[old], known[new]


def artifact(row: Data, age: str) -> Data:
    """Where the mirror has a program."""
    name, program = row["component"], row["from_to"]
    if "project" not in program:
        return {"url": f"programs/{name}-{row[age]}"}
    version = versions(row)[age == "new"]
    file, project = program.get("file", name), program["project"].partition("/")[2]
    flat = project != name
    arch = INVENTORY["vars"]["lab_architecture"]
    archive = f"{project}_{version}_linux_{arch}" if flat else f"{name}-{version}.linux-{arch}"
    url = f"{program['project']}/releases/download/v{version}/{archive}.tar.gz"
    return {"url": url, "member": file if flat else f"{archive}/{file}"}


def for_host(row: Data) -> Data:
    """A row as host.py takes it."""
    sockets = [name for name in row["units"] if name.endswith(".socket")]
    paths = [name if name.startswith("/") else f"/etc/systemd/system/{name}" for name in row["units"]]
    return {
        **row,
        "old": artifact(row, "old"),
        "new": artifact(row, "new"),
        "watch": [*row["files"], *row["programs"], *paths, *row["watch"]],
        "watch_units": row["services"],
        "stop": [*row["services"], *sockets, *row["stop"]],
    }


class Batch:
    """The rows that are on the hosts at one time, and what came of them. Each part is done when it is first needed."""

    current: t.ClassVar[Batch | None] = None

    def __init__(self, number: int, directory: pathlib.Path) -> None:
        self.directory = directory
        self.rows = {
            host: [row for at, where, row in PLACED if (at, where) == (number, host)] for host in layouts.HOSTS
        }
        if Batch.current:
            Batch.current.everywhere("clean")
        Batch.current = self
        self.failed = self.everywhere("lay")

    def everywhere(self, action: str) -> dict[str, Data]:
        with concurrent.futures.ThreadPoolExecutor(len(self.rows)) as pool:
            work = {
                host: pool.submit(on_host, host, action, list(map(for_host, rows))) for host, rows in self.rows.items()
            }
            return {host: future.result() for host, future in work.items()}

    def run(self, playbook: str, *more: str, upgraded: bool = False, **variables: t.Any) -> str:
        """Run playbooks on all hosts, with the settings of the rows. Returns the output."""
        hosts = {host: self._settings(rows, upgraded=upgraded) for host, rows in self.rows.items()}
        inventory = self.directory / f"{playbook}.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        settings = {"ANSIBLE_INVENTORY": f"{LAB}/inventory,{inventory}", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false"}
        reports = self.directory / playbook
        arguments = [f"playbooks/{name}.yml" for name in more]
        variables = {"upgrade_report_dir": str(reports), "upgrade_on_failure": "continue", **variables}
        with Run(playbook, *arguments, settings=settings, **variables) as run:
            output = run.end().output
        (self.directory / f"{playbook}.log").write_text(output)
        return output

    def _settings(self, rows: list[Data], *, upgraded: bool) -> Data:
        meant = [row for row in rows if not upgraded or row["outcome"] == "upgraded"]
        return {
            "upgrade_versions": {row["component"]: versions(row)[1] for row in meant},
            "upgrade_only": [row["component"] for row in meant],
            "upgrade_overrides": {row["component"]: {**QUICK, **row["overrides"]} for row in rows},
        }

    def _json(self, pattern: str) -> Data:
        """What check, status and plan wrote."""
        assert self.output
        found = sorted(self.directory.glob(pattern))
        assert found, f"no {pattern} in {self.directory}; see the logs there"
        return t.cast("Data", json.loads(found[-1].read_text()))

    @functools.cached_property
    def before(self) -> dict[str, Data]:
        return self.everywhere("look")

    @functools.cached_property
    def output(self) -> str:
        """What check, status and plan show."""
        return self.run("check", "status", "plan")

    @property
    def checked(self) -> Data:
        return self._json("check/check.json")

    @property
    def surveys(self) -> Data:
        return self._json("check/status.json")

    @property
    def planned(self) -> Data:
        return self._json("check/plan-*.json")

    @functools.cached_property
    def upgraded(self) -> dict[str, Data]:
        """What there is after the upgrade of all rows that are upgraded."""
        assert self.before
        assert self.output
        self.upgrade = self.run("upgrade", upgraded=True, upgrade_waves=["100%"])
        return self.everywhere("look")

    @functools.cached_property
    def rolled_back(self) -> dict[str, Data]:
        assert self.upgraded
        self.rollback = self.run("rollback", upgraded=True, upgrade_waves=["100%"], upgrade_rollback_to="previous")
        return self.everywhere("look")


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> t.Callable[[int], Batch]:
    """Batches by number. One is on the hosts at a time: tests are in this order."""
    return functools.cache(lambda number: Batch(number, tmp_path_factory.mktemp(f"batch{number}-")))


def filled(row: Data, value: t.Any) -> t.Any:
    """An expected value with its versions."""
    old, new = versions(row)
    if isinstance(value, str):
        return re.sub(r"\b(OLD|NEW)\b", lambda found: old if found[0] == "OLD" else new, value)
    if isinstance(value, dict):
        return {key: filled(row, each) for key, each in value.items()}
    return [filled(row, each) for each in value] if isinstance(value, list) else value


def differences(expected: t.Any, found: t.Any, where: str) -> list[str]:
    """Where what was found isn't what is expected. Dictionaries may have more; lists must have as many."""
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [(value, found.get(key), f"{where}.{key}") for key, value in expected.items()]
        return [line for pair in pairs for line in differences(*pair)]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(value, found[i], f"{where}[{i}]") for i, value in enumerate(expected)]
        return [line for pair in pairs for line in differences(*pair)]
    if expected == "ANY" and found not in (None, "", [], {}):
        return []
    return [] if expected == found else [f"{where}: {found!r}, not {expected!r}"]


def read_wrong(row: Data, host: str, batch: Batch) -> list[str]:
    components = batch.surveys[host]["components"]
    facts = components.get(row["named"])
    if facts is None:
        return [f"survey: {row['named']} is not found; there are {', '.join(components)}"]
    if row["not_upgradable"]:
        usual: Data = {"not_upgradable": {"key": row["not_upgradable"], "reason": "ANY", "fix": "ANY"}}
    else:
        usual = {"version": "OLD", "running": "OLD", "binary": row["programs"][0], "not_upgradable": None}
        usual["unit"] = next(iter(row["services"]), None)
    wrong = differences(filled(row, {**usual, **row["reads"]}), facts, "survey")
    for key, expected in row["more"].items():
        wrong += differences(filled(row, expected), components.get(key), f"survey of {key}")
    # What shares a file or has a key of its own is told only where the row says so.
    further = [key for key, each in components.items() if each.get("instance_of") == row["component"]]
    if set(further) - {row["named"]} != set(row["more"]):
        wrong.append(f"survey: instances {sorted(further)}, not {sorted(row['more'])}")
    if facts.get("shared_by") and "shared_by" not in row["reads"]:
        wrong.append(f"survey: shared_by {facts['shared_by']}")
    return wrong


def expected_findings(row: Data) -> Data:
    severity, _space, key = row["outcome"].partition(" ")
    return {**row["findings"], **({key: severity} if key else {})}


def plan_wrong(row: Data, host: str, batch: Batch) -> list[str]:
    """What the plan says: blockers and skips exactly, other findings that the row names."""
    here = [each for each in batch.planned["findings"] if each["host"] == host]
    mine = [each for each in here if (each["component"] or "").partition("@")[0] == row["component"]]
    own = {os.path.dirname(path) for path in row["programs"]} - {"/usr/local/bin"}
    mine += [each for each in here if not each["component"] and any(path in each["message"] for path in own)]
    told = {each["key"].partition(".")[2]: each["severity"] for each in mine}
    expected = expected_findings(row)
    decisive = {key: value for key, value in told.items() if value in ("blocker", "skipped", "warning")}
    infos = {key for key, value in expected.items() if value == "info"}
    wrong = []
    if decisive != {key: value for key, value in expected.items() if key not in infos} or infos - set(told):
        wrong.append(f"plan: {told}, not {expected}")
        wrong += [f"  {each['severity']} {each['key']}: {each['message']}; {each['fix']}" for each in mine]
    messages = " ".join(f"{each['message']} {each['fix']}" for each in mine)
    wrong += [f"plan: {text!r} is not in: {messages}" for text in row["text"] if text not in messages]
    if row["outcome"] in ("planned", "upgraded"):
        steps = [key for key in batch.planned["hosts"].get(host, {}) if key.rpartition("@")[0].startswith(row["named"])]
        if f"{row['named']}@{versions(row)[1]}" not in steps:
            wrong.append(f"plan: steps {steps}")
    return wrong


def check_wrong(row: Data, host: str, batch: Batch) -> list[str]:
    """Playbook check has a row for each, also for what can't be upgraded."""
    shown = [each for each in batch.checked["rows"] if (each["host"], each["component"]) == (host, row["named"])]
    if not shown:
        return ["check: no row"]
    severity, _space, key = row["outcome"].partition(" ")
    by_survey = bool(row["not_upgradable"]) or severity == "skipped"
    wanted = f"{row['component']}.{key}"
    if by_survey and wanted not in shown[0]["blocked_by"]:
        return [f"check: blocked by {shown[0]['blocked_by']}, not {wanted}"]
    return []


def status_wrong(row: Data, host: str, batch: Batch) -> list[str]:
    """Playbook status names the reason for what can't be upgraded."""
    told = f"{host} {row['named']}: not upgradable ({row['not_upgradable'].replace('_', ' ')})"
    return [f"status: no line {told!r}"] if row["not_upgradable"] and told not in batch.output else []


def upgrade_wrong(row: Data, host: str, batch: Batch) -> list[str]:
    before, after, back = (each[host][row["layout"]] for each in (batch.before, batch.upgraded, batch.rolled_back))
    wrong = []
    for found, age, output in ((after, "new", batch.upgrade), (back, "old", batch.rollback)):
        if found["runs"] != [age] * row["runs"]:
            wrong.append(f"after: runs {found['runs']}, not {age}: {_told(output, row, host)}")
    for path, facts in before["files"].items():
        if back["files"][path] != facts:
            wrong.append(f"rollback: {path} is {back['files'][path]}, was {facts}")
        if path not in [*row["programs"], *row["watch"]] and after["files"][path] != facts:
            wrong.append(f"upgrade: {path} is {after['files'][path]}, was {facts}")
    for name in before["units"]:
        for kind, found in (("upgrade", after), ("rollback", back)):
            if found["units"][name] != before["units"][name]:
                wrong.append(f"{kind}: {name} is {found['units'][name]!r}, was {before['units'][name]!r}")
    return wrong


def _told(output: str, row: Data, host: str) -> str:
    """The lines of a run that concern a row."""
    lines = [line for line in output.splitlines() if row["component"] in line and host in line]
    return "\n".join(lines[-6:])


@pytest.mark.parametrize(("number", "host", "row"), PLACED, ids=[layouts.name(each[2]) for each in PLACED])
def test_layout(
    batches: t.Callable[[int], Batch],
    number: int,
    host: str,
    row: Data,
) -> None:
    batch = batches(number)
    failed = batch.failed[host].get(row["layout"])
    wrong = [f"laying out: {failed}"] if failed else []
    if not failed:
        runs = batch.before[host][row["layout"]]["runs"]
        wrong += [] if runs == ["old"] * row["runs"] else [f"before: runs {runs}"]
        for compare in (read_wrong, check_wrong, status_wrong, plan_wrong):
            wrong += compare(row, host, batch)
        if row["outcome"] == "upgraded" and not READ_ONLY:
            wrong += upgrade_wrong(row, host, batch)
    assert not wrong, "\n".join(["", f"[{host}, {batch.directory}]", *wrong])
