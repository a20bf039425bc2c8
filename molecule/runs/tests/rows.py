# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table of ways to start a run. Each row is a test that has hosts for itself; rows run side by side.

As a program it writes the table into the documentation: C(python molecule/runs/tests/rows.py).
PYTEST_DONT_REWRITE: tests import it before it is a plugin of pytest.
"""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import sys
import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])] if __name__ == "__main__" else []

from conftest import STATE_DIR, Answering, Played, Run, Server  # noqa: E402  # the program finds it by the line above

DOCUMENT = HERE.parents[2] / "docs/adoption.md"
BEGIN, END = "<!-- rows of molecule/runs: written by rows.py -->", "<!-- end of the ways -->"
HEAD = "| way to start a run | what happens |\n|---|---|\n"
QUICK = {"node_exporter": {"probe_window": 1, "probe_timeout": 20}}
"""Overrides for a run whose probes have nothing to find out."""


class Fleet:
    """The hosts that a row has for itself. Each runs the oldest node_exporter, and has no state of upgrades."""

    def __init__(self, servers: list[Server], versions: list[str]) -> None:
        self.servers, self.versions = servers, versions
        self.older, self.newer, self.newest = versions[:3]

    @property
    def names(self) -> list[str]:
        return [server.name for server in self.servers]

    @property
    def server(self) -> Server:
        """The host of a row that has only one."""
        (server,) = self.servers
        return server

    def run(self, playbook: str, *arguments: str, **variables: t.Any) -> Run:
        """Start a playbook on these hosts. By default node_exporter is upgraded by one version."""
        return Run(playbook, "-l", ",".join(self.names), *arguments, **{**self.request, **variables})

    def at_a_terminal(self, playbook: str, *arguments: str, answers: t.Sequence[str], **variables: t.Any) -> Played:
        """The same at a terminal, to the end."""
        options = ("-l", ",".join(self.names), *arguments)
        with Answering(playbook, *options, answers=answers, **{**self.request, **variables}) as run:
            return run.end()

    @property
    def request(self) -> dict[str, t.Any]:
        """The variables of a run by default."""
        return {"upgrade_versions": {"node_exporter": self.newer}, "upgrade_overrides": QUICK}

    def refused(self, playbook: str, *arguments: str, says: str, code: int = 2, **variables: t.Any) -> None:
        """Run a playbook, which must be refused with a text before anything is touched."""
        played = self.play(playbook, *arguments, code=code, **variables)
        assert says in " ".join(played.output.split()), played.output
        assert self.untouched

    def play(self, playbook: str, *arguments: str, code: int = 0, **variables: t.Any) -> Played:
        """Run a playbook on these hosts to its end, which must have this exit code."""
        with self.run(playbook, *arguments, **variables) as run:
            played = run.end()
        assert played.code == code, f"exit code {played.code}:\n{played.output}"
        return played

    def reset(self) -> None:
        """Put the oldest version back, without any trace of an upgrade."""
        for server in self.servers:
            server.out(_RESET, f"/usr/local/bin/.node_exporter-{self.older}", STATE_DIR, _ANSWERS)

    def runs(self, version: str) -> bool:
        """Whether all hosts run a version of node_exporter, and nothing is under way."""
        return all(server.is_healthy("node_exporter", version) and server.is_at_rest() for server in self.servers)

    @property
    def untouched(self) -> bool:
        """Whether no upgrade has begun on any of the hosts."""
        kept = [server.out(f"ls -A {STATE_DIR} 2>/dev/null || true") for server in self.servers]
        return not any(kept) and all(server.is_healthy("node_exporter", self.older) for server in self.servers)


# The first row that has a host keeps the oldest version there for those that come after it.
_RESET = """
set -e
kept=%s; state=%s
units=$(systemctl list-units --all --plain --no-legend 'observability-upgrade-*' | cut -d' ' -f1)
[ -z "$units" ] || systemctl stop $units
[ -e "$kept" ] || cp --preserve /usr/local/bin/node_exporter "$kept"
rm -rf "$state" /etc/systemd/system/*.d/observability-*
systemctl daemon-reload
cmp --silent "$kept" /usr/local/bin/node_exporter || {
    cp --preserve "$kept" /usr/local/bin/.node_exporter.new
    mv /usr/local/bin/.node_exporter.new /usr/local/bin/node_exporter
    systemctl reset-failed node_exporter
    systemctl restart node_exporter
}
systemctl start node_exporter
timeout 60 python3 -c %s
"""
_ANSWERS = """
import socket
while True:
    try:
        socket.create_connection(("127.0.0.1", 9100))
        break
    except OSError:
        pass
"""


class Way(t.NamedTuple):
    """One row."""

    start: str
    """How the run is started."""

    happens: str
    """What is true afterwards."""

    hosts: int
    act: t.Callable[[Fleet], None]

    @property
    def line(self) -> str:
        return f"| {self.start} | {self.happens} |"


WAYS: list[Way] = []


def way(start: str, happens: str, *, hosts: int = 1) -> t.Callable[[t.Callable[[Fleet], None]], t.Callable[..., None]]:
    """Make a row of the table out of a function that gets a fleet, and a test out of the row.

    :param start: the way to start a run, in Markdown.
    :param happens: what happens, in Markdown.
    :param hosts: how many hosts the row needs for itself.
    """

    def decorate(act: t.Callable[[Fleet], None]) -> t.Callable[..., None]:
        row = Way(start, happens, hosts, act)
        WAYS.append(row)

        def test(outcomes: t.Callable[[Way], None]) -> None:
            outcomes(row)

        test.__name__, test.row = act.__name__, row  # type: ignore[attr-defined]
        return test

    return decorate


class Pool:
    """The hosts of the lab, given to rows."""

    def __init__(self, servers: t.Iterable[Server]) -> None:
        self._free, self._changed = list(servers), threading.Condition()
        self._turn = threading.Lock()  # of the row that waits: one that needs few hosts does not overtake it

    @contextlib.contextmanager
    def take(self, count: int) -> t.Iterator[list[Server]]:
        with self._turn, self._changed:
            self._changed.wait_for(lambda: len(self._free) >= count)
            taken, self._free = self._free[:count], self._free[count:]
        try:
            yield taken
        finally:
            with self._changed:
                self._free = [*taken, *self._free]
                self._changed.notify_all()


@pytest.fixture(scope="session")
def outcomes(
    request: pytest.FixtureRequest, servers: dict[str, Server], versions: dict[str, list[str]]
) -> t.Iterator[t.Callable[[Way], None]]:
    """Start all rows that were selected, and wait for one of them."""
    pool = Pool(servers.values())

    def work(row: Way) -> None:
        with pool.take(row.hosts) as taken:
            fleet = Fleet(taken, versions["node_exporter"])
            fleet.reset()
            row.act(fleet)

    rows = [item.function.row for item in request.session.items if hasattr(getattr(item, "function", None), "row")]
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as executor:
        begun: dict[str, Future[None]] = {row.line: executor.submit(work, row) for row in rows}
        yield lambda row: begun[row.line].result()
        executor.shutdown(cancel_futures=True)


def pytest_terminal_summary(terminalreporter: t.Any) -> None:
    """Show the table of what was run."""
    ended = {
        report.nodeid.rpartition("::")[2]: report.outcome
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
    }
    terminalreporter.section("ways to start a run")
    for row in WAYS:
        if row.act.__name__ in ended:
            terminalreporter.write_line(f"{ended[row.act.__name__]:7} {row.line}")


def document() -> str:
    """The document with the whole table, of all files of tests in this directory."""
    for path in sorted(HERE.glob("test_*.py")):
        importlib.import_module(path.stem)
    rows = importlib.import_module("rows").WAYS
    table = HEAD + "".join(f"{row.line}\n" for row in rows)
    before, _begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
