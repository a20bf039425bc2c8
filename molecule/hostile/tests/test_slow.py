# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services, servers, programs and files that never come to an end. A run ends in its time, leaves the old version
serving, and reports what is true."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
import time
import typing as t

import pytest
from conftest import Played, Run, Server, play

DRIPS = "1.99.18"
"""A release that answers with a header that never ends, a byte at a time, and that ignores SIGTERM."""

GOOD = "1.99.12"
HASTY = {"node_exporter": {"probe_timeout": 10, "probe_window": 3}}
DROP_IN = "/run/systemd/system/node_exporter.service.d/slow.conf"


@pytest.fixture
def server(servers: dict[str, Server]) -> t.Iterator[Server]:
    """A host whose node_exporter may take five seconds to stop, and that has its old version again afterwards."""
    server = servers["host1"]
    before = server.on_disk("node_exporter")
    server.out("mkdir -p %s && printf '[Service]\\nTimeoutStopSec=5\\n' >%s", DROP_IN.rpartition("/")[0], DROP_IN)
    server.out("systemctl daemon-reload")
    yield server
    server.out("rm %s && systemctl daemon-reload", DROP_IN)
    assert server.is_healthy("node_exporter", before)
    assert server.is_at_rest()


@contextlib.contextmanager
def dripping() -> t.Iterator[str]:
    """A server on the controller that answers with a header that never ends, as a URL."""
    over = threading.Event()

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                while not over.wait(0.2):
                    self.request.sendall(b"x")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), t.cast("t.Any", Drip)) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        over.set()
        listener.shutdown()


def timed(within: float, playbook: str, **options: t.Any) -> Played:
    """A run on host1 that must end within so many seconds: its limits, and what a busy machine needs beside them."""
    began = time.monotonic()
    played = play(playbook, "-l", "host1", **options)
    assert time.monotonic() - began < within, played.output
    return played


def test_a_version_that_drips_and_does_not_stop_is_rolled_back(server: Server) -> None:
    """The probe has 10 s and the stop 5 s; Alertmanager, which drips too, has 10 s for each of its two requests."""
    with dripping() as alertmanager:
        played = timed(
            240,
            "upgrade",
            code=2,
            upgrade_versions={"node_exporter": DRIPS},
            upgrade_overrides=HASTY,
            upgrade_alertmanager={"url": [alertmanager]},
        )
    assert "alerts of this upgrade are not silenced" in played.output
    assert "didn't answer (timed out" in played.output
    assert "is back in place, and proven healthy" in played.output
    assert server.component("node_exporter")["outcome"] == "rolled_back"


def test_a_step_that_the_host_has_undone_meanwhile_is_reported_so(server: Server) -> None:
    """The run is held up for longer than the host waits for it."""
    with Run(
        "upgrade",
        "-l",
        "host1",
        upgrade_versions={"node_exporter": DRIPS},
        upgrade_overrides=HASTY,
        upgrade_confirm_within=3,
    ) as run:
        server.await_state("node_exporter", "activated")
        run.stop()
        server.await_state("node_exporter", "rolled_back")
        run.go_on()
        played = run.end()
    told = " ".join(played.output.split())
    assert played.code == 2
    assert f"node_exporter {DRIPS} rolled back at" in told
    assert "This step was undone by the host itself." in told
    assert "nobody has confirmed it within 3 s" in told
    assert "needs a person" not in told
    assert "the upgrade failed at" not in told


def test_a_mirror_that_drips_is_left_before_anything_is_touched(server: Server) -> None:
    pid = server.pid("node_exporter")
    with dripping() as mirror:
        played = timed(
            120,
            "upgrade",
            code=2,
            upgrade_versions={"node_exporter": GOOD},
            upgrade_release_mirror=mirror,
            upgrade_release_limits={"attempts": 1, "connect": 3},
        )
    assert "timed out: no answer within 3 s" in played.output
    assert server.pid("node_exporter") == pid


def test_a_program_that_ignores_sigterm_and_leaves_another_behind_ends_in_time(server: Server) -> None:
    argv = ["/bin/sh", "-c", "trap '' TERM; setsid sleep 30 & while :; do sleep 30; done"]
    overrides = {"node_exporter": {"probes": [{"kind": "command", "argv": argv}]}}
    played = timed(120, "verify", code=2, upgrade_only=["node_exporter"], upgrade_overrides=overrides)
    assert "no answer within" in played.output
    assert "killed" in played.output


def test_a_configuration_that_is_no_file_is_not_waited_for(server: Server) -> None:
    path = "/etc/alertmanager/alertmanager.yml"
    server.out("mv %s /root/alertmanager.yml", path)
    try:
        for made in ("mkfifo %s", "mkdir %s", "ln -s /dev/zero %s"):
            server.out(made, path)
            timed(120, "status")
            server.out("rm -rf %s", path)
    finally:
        server.out("rm -rf %s && mv /root/alertmanager.yml %s", path, path)
