# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.server
import socket
import threading
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _restart, _systemd


def unit(*, pid: int = 7, **properties: str) -> _systemd.Unit:
    return _systemd.Unit("a.service", "loaded", "active" if pid else "failed", "", "", pid, 0, properties)


SITUATION: dict[str, t.Any] = {"runs_it": True, "force": False, "signal": False, "reload_units": False}
NO_WAY = "its unit has no ExecReload=, and SIGHUP isn't known to do"
OTHER_UNIT = "its unit files have changed"


@pytest.mark.parametrize(
    ("wanted", "properties", "situation", "strategy", "reason"),
    [
        ("graceful", {"CanReload": "yes"}, {}, "graceful", None),
        ("graceful", {}, {"runs_it": False}, "graceful", None),
        ("fast", {"CanReload": "yes"}, {}, "fast", None),
        ("fast", {"NeedDaemonReload": "yes"}, {"signal": True}, "fast", None),
        ("reload", {"CanReload": "yes"}, {}, "reload", None),
        ("reload", {"CanReload": "no"}, {"signal": True}, "reload", None),
        ("reload", {}, {"signal": True}, "reload", None),
        ("reload", {"CanReload": "no"}, {}, "graceful", NO_WAY),
        ("reload", {"CanReload": "yes", "NeedDaemonReload": "yes"}, {}, "graceful", OTHER_UNIT),
        ("reload", {"CanReload": "yes"}, {"reload_units": True}, "graceful", OTHER_UNIT),
        ("reload", {"CanReload": "yes"}, {"force": True}, "graceful", "force asks for a restart"),
        ("reload", {"CanReload": "yes"}, {"runs_it": False}, "graceful", "its process doesn't run the file on disk"),
    ],
)
def test_the_choice(wanted: str, properties: t.Any, situation: t.Any, strategy: str, reason: str | None) -> None:
    choice = _restart.choose(wanted, unit(**properties), **{**SITUATION, **situation})
    assert choice == _restart.Choice(strategy, reason)


def test_what_does_not_run_is_not_reloaded() -> None:
    stopped = unit(pid=0, CanReload="yes")
    choice = _restart.choose("reload", stopped, **{**SITUATION, "runs_it": False})
    assert choice == _restart.Choice("graceful", "it doesn't run")


@pytest.mark.parametrize(
    ("strategy", "timeout", "sends_sigkill", "seconds"),
    [
        ("graceful", "10min", "yes", 610),
        ("graceful", "10min", "no", 595),
        ("fast", "10min", "yes", 10),
        ("fast", "10min", "no", 10),
        ("fast", "4s", "no", 3),
    ],
)
def test_how_long_a_stop_may_take(strategy: str, timeout: str, sends_sigkill: str, seconds: float) -> None:
    its = unit(TimeoutStopUSec=timeout, SendSIGKILL=sends_sigkill)
    assert _restart.stop_patience(its, strategy) == seconds
    assert _restart.time_limit(its, strategy) == seconds + _systemd.START_TIMEOUT


class Ready(http.server.BaseHTTPRequestHandler):
    """A service that takes connections, and asked for the third time has become ready."""

    asked: t.ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404 if self.path != "/-/ready" else 200 if len(self.asked) > 2 else 503)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.mark.parametrize(("path", "times"), [("/-/ready", 3), ("", 1), ("/nowhere", 1)])
def test_it_is_settled_once_the_service_answers(path: str, times: int) -> None:
    Ready.asked.clear()
    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever).start()
        assert _restart.settle(f"http://127.0.0.1:{server.server_port}{path}", within=60)
        server.shutdown()
    assert Ready.asked == [path or "/"] * times


def test_nobody_waits_longer_than_was_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"  # where nobody is any more
    times = iter([0.0, 0.5, 1.9, 2.0])
    slept: list[float] = []
    assert not _restart.settle(url, clock=lambda: next(times), sleep=slept.append)
    assert len(slept) == 2
