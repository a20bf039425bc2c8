#!/usr/bin/env python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run costs: as whole processes, beside a play with a single ping task on the same hosts, in turn.

Absolute times say more about the machine than about the collection, so each figure is a ratio of two runs that follow
each other; of several such pairs the median counts.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
HOSTS = 5
PAIRS = 7
NOTHING_TO_DO_LIMIT = 2.0
UPGRADE_AIM = 10.0
PING = ["tests/benchmarks/ping.yml"]


def play(*arguments: str) -> float:
    """Run a playbook to its end. Returns the seconds that the whole process took."""
    settings = {"ANSIBLE_CONFIG": "tests/lab/ansible.cfg", "ANSIBLE_NOCOLOR": "1"}
    start = time.perf_counter()
    done = subprocess.run(
        ["ansible-playbook", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"ansible-playbook {' '.join(arguments)} failed:\n{done.stdout}")
    return time.perf_counter() - start


def upgrade_to(**versions: str) -> list[str]:
    variables = {"upgrade_versions": versions, "upgrade_waves": ["100%"]}
    return ["playbooks/upgrade.yml", "--extra-vars", json.dumps(variables)]


def compare(title: str, runs: list[list[str]]) -> float:
    """Run each, and a ping before it. Returns the median of the ratios, and prints it."""
    pings, times = [], []
    for run in runs:
        pings.append(play(*PING))
        times.append(play(*run))
    ratios = [seconds / ping for seconds, ping in zip(times, pings, strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{title}: {ratio:.2f} times the ping (median of {len(runs)}; {min(ratios):.2f} to {max(ratios):.2f}; "
        f"{statistics.median(times):.2f} s beside {statistics.median(pings):.2f} s)",
        flush=True,
    )
    return ratio


def main() -> int:
    subprocess.run([sys.executable, CHECKOUT / "tests/lab/lab.py", "fresh", "--hosts", str(HOSTS)], check=True)
    play("tests/lab/deploy.yml", "--extra-vars", '{"lab_servers": []}')
    versions = json.loads((CHECKOUT / ".lab/inventory/hosts.json").read_text())["all"]["vars"]["lab_versions"]
    names = ("node_exporter", "alertmanager", "prometheus")
    nothing = upgrade_to(**{name: versions[name][0] for name in names})
    play(*PING), play(*nothing)  # a warm-up: SSH connections, caches
    ratio = compare(f"nothing to do, {HOSTS} hosts, {len(names)} components", [nothing] * PAIRS)
    upgrades = [upgrade_to(node_exporter=version) for version in (*versions["node_exporter"][1:], "1.99.12")]
    compare(f"an upgrade of one component, {HOSTS} hosts in one wave (aim: {UPGRADE_AIM:g})", upgrades)
    if ratio > NOTHING_TO_DO_LIMIT:
        print(f"A run with nothing to do must not take more than {NOTHING_TO_DO_LIMIT:g} times the ping.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
