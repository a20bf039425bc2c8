#!/usr/bin/env python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gap that an upgrade makes: the longest time without an answer, beside that of a bare restart of the same unit.

A process of its own asks a service of the lab, over the lab's network, as long as something is done to it: a bare
``systemctl restart``, then an upgrade, again a bare restart, then the way back, and so on. Whoever asks sees the same
of all of them, so that the ratio of the medians tells what an upgrade adds to a restart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import select
import socket
import statistics
import subprocess
import sys
import time
import typing as t

from bench import play, upgrade_to

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
PAIRS = 6
LIMIT = 1.2
HOST = "host1"
PAUSE = 0.005
PATIENCE = 0.5
DEADLINE = 120.0


class Service(t.NamedTuple):
    """What is asked: a page that costs little, but is only answered by a service that has come up."""

    component: str
    port: int
    path: str


SERVICES = (Service("node_exporter", 9100, "/"), Service("prometheus", 9090, "/-/ready"))


def poll(address: str, port: int, path: str) -> None:
    """Ask until standard input ends and an answer has come after that, then print the longest time without one."""
    asked = f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode()
    last = longest = 0.0
    ended = 0.0
    while True:
        begun = time.monotonic()
        if _answers(address, port, asked):
            now = time.monotonic()
            if last:
                longest = max(longest, now - last)
            else:
                print("asking", flush=True)
            last = now
            if ended and begun > ended:
                print(longest)
                return
        if not ended and select.select([sys.stdin], [], [], 0)[0]:
            ended = time.monotonic()
        if ended and time.monotonic() > ended + DEADLINE:
            raise SystemExit(f"{address}:{port} doesn't answer any more")
        time.sleep(max(0.0, PAUSE - (time.monotonic() - begun)))


def _answers(address: str, port: int, asked: bytes) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=PATIENCE) as connection:
        connection.sendall(asked)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer.split(b" ", 2)[1:2] == [b"200"]
    return False


def gap(service: Service, act: t.Callable[[], object]) -> float:
    """The longest time without an answer while something is done to a service, in seconds."""
    address = json.loads((CHECKOUT / ".lab/inventory/hosts.json").read_text())["all"]["hosts"][HOST]["ansible_host"]
    before = _pid(service)
    command = [sys.executable, __file__, "--poll", address, str(service.port), service.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as poller:
        assert poller.stdin
        assert poller.stdout
        poller.stdout.readline()
        try:
            act()
        except BaseException:
            poller.kill()
            raise
        poller.stdin.close()
        seconds = float(poller.stdout.read())
    if _pid(service) == before:
        raise SystemExit(f"{service.component} wasn't restarted, so there is no gap to compare")
    return seconds


def _on_host(*command: str) -> str:
    ssh = ["ssh", "-F", str(CHECKOUT / ".lab/ssh_config"), HOST, "sudo", *command]
    return subprocess.run(ssh, check=True, capture_output=True, text=True).stdout


def _pid(service: Service) -> int:
    return int(_on_host("systemctl", "show", "--property=MainPID", "--value", service.component))


def _show(gaps: list[float]) -> str:
    return f"{statistics.median(gaps) * 1000:.0f} ms ({min(gaps) * 1000:.0f} to {max(gaps) * 1000:.0f})"


def compare(service: Service, versions: list[str], pairs: int) -> float:
    """Restart and upgrade in turn, there and back. Returns the ratio of the medians, and prints them."""
    restarts, upgrades = [], []
    only = ["--extra-vars", json.dumps({"upgrade_only": [service.component]})]
    there = [*upgrade_to(**{service.component: versions[1]}), *only]
    back = ["playbooks/rollback.yml", *only, "--extra-vars", '{"upgrade_rollback_to": "previous"}']
    for number in range(pairs):
        restarts.append(gap(service, lambda: _on_host("systemctl", "restart", service.component)))
        run = back if number % 2 else there
        upgrades.append(gap(service, lambda run=run: play(*run)))
    ratio = statistics.median(upgrades) / statistics.median(restarts)
    print(
        f"the gap of {service.component}: {ratio:.2f} times that of a bare restart (limit: {LIMIT:g}; medians of "
        f"{pairs}): {_show(upgrades)} beside {_show(restarts)}",
        flush=True,
    )
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poll", nargs=3, metavar=("ADDRESS", "PORT", "PATH"), help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help="how often each is done (%(default)s)")
    parser.add_argument("--as-it-is", action="store_true", help="on the lab as it is, freshly deployed")
    options = parser.parse_args()
    if options.poll:
        address, port, path = options.poll
        poll(address, int(port), path)
        return 0
    if not options.as_it_is:
        subprocess.run([sys.executable, CHECKOUT / "tests/lab/lab.py", "fresh", "--hosts", "1"], check=True)
        play("tests/lab/deploy.yml")
    versions = json.loads((CHECKOUT / ".lab/inventory/hosts.json").read_text())["all"]["vars"]["lab_versions"]
    ratios = [compare(service, versions[service.component], options.pairs) for service in SERVICES]
    if max(ratios) > LIMIT:
        print(f"An upgrade must not leave a longer gap than {LIMIT:g} times that of a bare restart.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
