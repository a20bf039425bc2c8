# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The catalog beside the programs it speaks of: each row of vars.yml is run, and upgraded where it can be."""

from __future__ import annotations

import fnmatch
import json
import pathlib
import re
import sys
import typing as t

import pytest
import yaml
from conftest import CHECKOUT, LAB, Server, play

sys.path.insert(0, str(CHECKOUT / "playbooks/collections"))
from ansible_collections.observability.stack.plugins.module_utils import _metrics, _version
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _versions

Data = dict[str, t.Any]
ROWS: dict[str, Data] = yaml.safe_load((pathlib.Path(__file__).parents[1] / "vars.yml").read_text())
UPGRADED = [name for name, row in ROWS.items() if "to" in row]
CATALOG = _catalog.load()
MIRROR = json.loads((LAB / "inventory/hosts.json").read_text())["all"]["vars"]["upgrade_release_mirror"]
_NOT_FOUND = 404
_POST = """
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://127.0.0.1:9090/api/v1/write", data=b"", timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
_SHA256 = "import hashlib, sys, urllib.request as u; print(hashlib.sha256(u.urlopen(sys.argv[1]).read()).hexdigest())"

# Runs on the host. What each program says of itself, and what its service answers, of all of them at once.
_LOOK = """
import json, subprocess, sys, time, urllib.error, urllib.request

def said(words):
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(words, stdin=subprocess.DEVNULL, **both, text=True, timeout=20).stdout

def answer(url, lines):
    end = time.monotonic() + 60
    while True:
        try:
            body = urllib.request.urlopen(url, timeout=30).read().decode()
            if all(any(line.startswith(begin) for line in body.splitlines()) for begin in lines):
                return body
        except urllib.error.HTTPError as error:
            return f"status {error.code}"
        except OSError as error:
            body = str(error)
        if time.monotonic() > end:
            return body
        time.sleep(0.2)

told = {}
for name, wanted in json.loads(sys.argv[1]).items():
    told[name] = {
        "version": [said([wanted["program"], *words]) for words in wanted["version_args"]],
        "help": said([wanted["program"], "--help"]),
        "page": answer(wanted["url"], wanted["settles"]),
        "other": said([wanted["program"], *wanted["other"]]) if wanted["other"] else "",
    }
print(json.dumps(told))
"""


def file_of(name: str) -> str:
    return str(CATALOG[name]["files"][0]["name"])


def looked(server: Server, names: t.Iterable[str]) -> dict[str, Data]:
    asked = {
        name: {
            "program": f"/usr/local/bin/{file_of(name)}",
            "version_args": CATALOG[name]["version_args"],
            "url": f"http://127.0.0.1:{ROWS[name].get('port', CATALOG[name]['port'])}"
            + ROWS[name].get("path", CATALOG[name]["metrics_path"]),
            "settles": [line.partition("{")[0].partition(" ")[0] for line in ROWS[name].get("settles", [])],
            "other": next((other["args"] for other in CATALOG[name]["lookalikes"]), []),
        }
        for name in names
    }
    told: dict[str, Data] = json.loads(server.out("python3 -c %s %s", _LOOK, json.dumps(asked)))
    return told


@pytest.fixture(scope="module")
def host(servers: dict[str, Server]) -> Server:
    return servers["host1"]


@pytest.fixture(scope="module")
def debian(host: Server) -> dict[str, dict[str, str]]:
    """The versions of each program, by suite."""
    told: dict[str, dict[str, str]] = json.loads(host.get(f"{MIRROR}/programs.json"))["versions"]
    return told


@pytest.fixture(scope="module")
def before(host: Server) -> dict[str, Data]:
    return looked(host, ROWS)


@pytest.fixture(scope="module")
def planned(before: dict[str, Data]) -> str:
    """What a plan says where something else is wished of those programs that can't be upgraded."""
    names = [name for name, row in ROWS.items() if "finding" in row]
    return play("plan", code=2, upgrade_versions=dict.fromkeys(names, "99.0.0"), upgrade_only=names).output


@pytest.fixture(scope="module")
def after(planned: str, host: Server, debian: dict[str, dict[str, str]]) -> dict[str, Data]:
    """All programs after one upgrade of those that can be."""
    squid = f"/boynux/squid-exporter/releases/download/v{debian['squid_exporter']['forky']}/squid-exporter-linux-amd64"
    play(
        "upgrade",
        upgrade_versions={name: debian[name][ROWS[name]["to"]] for name in UPGRADED},
        upgrade_overrides={name: {"probe_window": 1, "stages": []} for name in UPGRADED},
        upgrade_release_pins={"squid-exporter-linux-amd64": host.out("python3 -c %s %s", _SHA256, f"{MIRROR}{squid}")},
        upgrade_checks_required=True,
    )
    return looked(host, UPGRADED)


def fits(page: str, patterns: t.Iterable[str]) -> bool:
    """Whether a page of metrics has a line for each pattern."""
    lines = page.splitlines()
    return all(fnmatch.filter(lines, pattern) for pattern in patterns)


def flags_in(help_text: str) -> set[str]:
    return set(re.findall(r"(?:^|[\s,])--?(?:\[no-\])?([A-Za-z][\w.-]*)", help_text))


def check(name: str, told: Data, version: str) -> None:
    """What holds of each program that can be upgraded, before and after: what it says, and what it serves."""
    row, entry = ROWS[name], CATALOG[name]
    assert version in [_version.find_version(text) for text in told["version"]]
    assert fits(told["page"], [*row.get("lines", []), *row.get("settles", [])])
    metrics = [item for item in entry["build_info"] if _versions.matches(version, item.get("when", "*"))]
    serves = _metrics.version_in(told["page"], entry["build_info"])
    assert (_version.normalize(serves) if serves else None) == (version if metrics else None)


@pytest.mark.parametrize("name", [name for name in ROWS if "finding" not in ROWS[name]])
def test_it_is_what_the_catalog_says(before: dict[str, Data], debian: dict[str, dict[str, str]], name: str) -> None:
    check(name, before[name], debian[name][ROWS[name]["from"]])


@pytest.mark.parametrize("name", [name for name in ROWS if "finding" in ROWS[name]])
def test_one_that_cannot_be_upgraded_runs_and_the_plan_tells_why(
    before: dict[str, Data], planned: str, name: str
) -> None:
    row, told = ROWS[name], before[name]
    assert fits(told["page"], [*row.get("lines", []), *row.get("settles", [])])
    if row["finding"] in ("unknown_version", "unreleased"):
        assert {_version.find_version(text) for text in told["version"]} == {_version.UNKNOWN}
    severity = "blocker" if row["finding"] == "unknown_version" else "skipped"
    assert f"{severity}: {name}.{row['finding']} (host1)" in planned.splitlines()


@pytest.mark.parametrize("name", [name for name in ROWS if CATALOG[name]["lookalikes"]])
def test_projects_of_one_name_are_told_apart(before: dict[str, Data], name: str) -> None:
    (other,) = CATALOG[name]["lookalikes"]
    found = bool(re.search(other["output"], before[name]["other"], re.MULTILINE))
    assert found is (ROWS[name].get("finding") == "lookalike")


@pytest.fixture
def with_a_feature(host: Server) -> t.Iterator[None]:
    """Prometheus with its write receiver turned on as 2.x could, too."""
    path = "/etc/systemd/system/prometheus.service.d"
    again = "systemctl daemon-reload && systemctl restart prometheus"
    start = "/usr/local/bin/prometheus --config.file=/etc/programs/prometheus.yml"
    flags = "--storage.tsdb.path=/var/lib/programs/prometheus --enable-feature=remote-write-receiver"
    host.out(
        f"mkdir {path} && printf %s > {path}/feature.conf && {again}",
        f"[Service]\nExecStart=\nExecStart={start} {flags}\n",
    )
    yield
    host.out(f"rm -r {path} && {again}")


def test_a_value_that_would_lose_its_meaning_blocks_the_plan(
    before: dict[str, Data], with_a_feature: None, debian: dict[str, dict[str, str]]
) -> None:
    output = play(
        "plan",
        code=2,
        upgrade_versions={"prometheus": debian["prometheus"]["forky"]},
        upgrade_overrides={"prometheus": {"stages": []}},
        upgrade_only=["prometheus"],
    ).output
    assert "blocker: prometheus.removed.enable-feature.remote-write-receiver (host1)" in output.splitlines()
    assert "--web.enable-remote-write-receiver" in output


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].get("finding") != "lookalike"])
def test_the_newest_version_has_the_flags_of_the_catalog(
    before: dict[str, Data], after: dict[str, Data], name: str
) -> None:
    flags = set(CATALOG[name]["flags"].values())
    assert flags <= flags_in({**before, **after}[name]["help"])


def test_prometheus_serves_after_what_it_served_before(host: Server, after: dict[str, Data]) -> None:
    assert int(host.out("python3 -c %s", _POST)) != _NOT_FOUND


@pytest.mark.parametrize("name", UPGRADED)
def test_it_is_upgraded_and_does_its_work(
    host: Server, after: dict[str, Data], debian: dict[str, dict[str, str]], name: str
) -> None:
    version = debian[name][ROWS[name]["to"]]
    check(name, after[name], version)
    pid = host.out("systemctl show --property=MainPID --value %s", name)
    assert host.out(f"cmp /proc/{pid}/exe /usr/local/bin/{file_of(name)} && echo same") == "same"
    component = host.component(name)
    assert (component["state"], component["inventory"]["current_version"]) == ("success", version)


def test_an_older_version_is_proven_by_what_it_has_itself(
    host: Server, after: dict[str, Data], debian: dict[str, dict[str, str]]
) -> None:
    """ipmi_exporter has told its version since 1.10 only."""
    play("rollback", upgrade_rollback_to="previous", upgrade_only=["ipmi_exporter"])
    check("ipmi_exporter", looked(host, ["ipmi_exporter"])["ipmi_exporter"], debian["ipmi_exporter"]["bookworm"])
    assert host.component("ipmi_exporter")["inventory"]["current_version"] == debian["ipmi_exporter"]["bookworm"]


def test_what_could_not_be_upgraded_runs_as_before(
    host: Server, before: dict[str, Data], after: dict[str, Data]
) -> None:
    units = [name for name in ROWS if name not in UPGRADED]
    assert set(host.out(f"systemctl is-active {' '.join(units)}").split()) == {"active"}
    assert host.is_at_rest()
