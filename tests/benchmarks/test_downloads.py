# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a download into the controller's cache costs, beside curl and sha256sum, and how often a fleet downloads.

Both take the same file from a server on this machine, in turn in the same run; a figure is the median of the pairs'
ratios.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.plugin_utils import _fetch

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
NAME = "prometheus-3.5.0.linux-amd64.tar.gz"
SIZE = 128 << 20
PAIRS = 9
AIM, LEAST = 0.7, 0.5
"""Of the throughput of curl and sha256sum: what is aimed at, and below what something has become slower."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a directory, and keeps what was asked for."""

    asked: t.ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: t.Any) -> None:
        pass


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[pathlib.Path]:
    """A directory on a disk: that for temporary files may be in memory."""
    directory = CHECKOUT / ".cache" / "bench" / tmp_path_factory.mktemp("downloads").name
    directory.mkdir(parents=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[str]:
    """A server with a release, as a URL."""
    monkeypatch.setenv("no_proxy", "*")
    (root / "served").mkdir()
    content = os.urandom(1 << 20) * (SIZE >> 20)
    (root / "served" / NAME).write_bytes(content)
    (root / "served" / "sha256sums.txt").write_text(f"{hashlib.sha256(content).hexdigest()}  {NAME}\n")
    Handler.asked.clear()
    with serving(root / "served") as url:
        yield url


@contextlib.contextmanager
def serving(directory: pathlib.Path) -> t.Iterator[str]:
    def handler(*words: t.Any) -> Handler:
        return Handler(*words, directory=str(directory))

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_address[1]}"
    finally:
        web.shutdown()
        web.server_close()


def timed(action: t.Callable[[], t.Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def ours(server: str, cache: pathlib.Path) -> float:
    """List, archive, proof, and both kept."""
    shutil.rmtree(cache, ignore_errors=True)
    took = timed(lambda: _fetch.fetch(f"{server}/{NAME}", checksums=f"{server}/sha256sums.txt", cache_dir=str(cache)))
    shutil.rmtree(cache)
    return took


def theirs(server: str, path: pathlib.Path) -> tuple[float, float]:
    """The same with curl and sha256sum; and then also kept as durably."""
    (path.parent / "sums").write_bytes((path.parent / "served" / "sha256sums.txt").read_bytes())

    def both() -> None:
        subprocess.run(["curl", "-sf", "--noproxy", "*", "-o", str(path), f"{server}/{NAME}"], check=True)
        subprocess.run(["sha256sum", "--quiet", "-c", "sums"], cwd=path.parent, check=True)

    took = timed(both)
    durable = took + timed(lambda: subprocess.run(["sync", str(path)], check=True))
    path.unlink()
    return took, durable


def test_a_download_is_nearly_as_fast_as_curl_and_sha256sum(
    server: str, root: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    for number in range(PAIRS):
        if number % 2:  # neither is always the one that comes after the other
            curl, mine = theirs(server, root / NAME), ours(server, root / "cache")
        else:
            mine, curl = ours(server, root / "cache"), theirs(server, root / NAME)
        seen.append((mine, *curl))
    rates = [SIZE / 1e6 / statistics.median(times) for times in zip(*seen)]
    ratio, durable = (statistics.median(times[place] / times[0] for times in seen) for place in (1, 2))
    with capsys.disabled():
        print(
            f"\na download of {SIZE / 1e6:.0f} MB: {rates[0]:.0f} MB/s beside {rates[1]:.0f} MB/s with curl and "
            f"sha256sum: {ratio:.2f} times as fast\n(median of {PAIRS} pairs; aim: {AIM:g}); "
            f"{durable:.2f} times, if that is also synced to the disk, as a download is"
        )
    assert ratio >= LEAST


FETCH = f"""
import sys
from {_fetch.__name__} import fetch
for host in range(int(sys.argv[4])):
    fetch(sys.argv[1], checksums=sys.argv[2], cache_dir=sys.argv[3])
"""


@pytest.mark.parametrize("hosts", [1, 10, 50])
def test_a_fleet_of_any_size_downloads_once(
    server: str, root: pathlib.Path, hosts: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many processes at once as Ansible has forks by default."""
    forks = min(5, hosts)
    urls = [f"{server}/{NAME}", f"{server}/sha256sums.txt"]
    argv = [sys.executable, "-c", FETCH, *urls, str(root / "cache"), str(hosts // forks)]
    path = os.pathsep.join([str(pathlib.Path(_fetch.__file__).parents[5]), *sys.path])

    def run() -> None:
        workers = [subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}) for _worker in range(forks)]
        assert [worker.wait() for worker in workers] == [0] * forks

    took = timed(run)
    with capsys.disabled():
        print(f"\n{hosts} hosts: {len(Handler.asked)} requests, {SIZE / 1e6:.0f} MB, {took:.1f} s")
    assert sorted(Handler.asked) == [f"/{NAME}", "/sha256sums.txt"]
