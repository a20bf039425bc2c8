# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rehearsals with real programs that really answer. systemd and its sandbox are not there in unit tests: a stage of our
own starts what systemd-run is asked to start."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _netns, _store
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.modules import release_rehearse
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Answer,
    Call,
    Data,
    Systemd,
    Web,
    message_of,
    sha256,
    snapshot,
)

UNIT = "shop.service"
BINARY = "/usr/local/bin/shop"
REHEARSAL = "observability-rehearsal-shop.service"
PAGE = 'shop_build_info{{version="{version}"}} 1\n' + "".join(f"shop_{number} 1\n" for number in range(9))
PROBES = [
    {"kind": "http", "path": "/metrics"},
    {"kind": "build_info", "path": "/metrics", "metrics": [{"metric": "shop_build_info", "label": "version"}]},
]
FLAGS = {"listen": "127.0.0.1:{port}"}
CANDIDATE = """#!{python}
import http.server, os, sys
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
{first}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = {page!r}.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(flags["listen"].split(":")[1])), Handler).serve_forever()
"""


class Stage(Systemd):
    """A systemd that really starts the one program that it is asked to start, as far as one can without a sandbox."""

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__(directory)
        self.on_run = self.start
        self.process: subprocess.Popen[bytes] | None = None
        self.said = directory / "said"
        self.network = _netns.name(_netns.OURS)

    def start(self, argv: list[str]) -> Completed:
        if argv[-1] == "/proc/self/ns/net":
            return Completed(0, self.network, "")
        binds = (re.fullmatch(r'--property=Bind(?:ReadOnly)?Paths="(.*)":"(.*)"', word) for word in argv)
        real = {bind.group(2): bind.group(1) for bind in binds if bind}
        command = argv[argv.index("--") + 2 :]
        for inside, outside in real.items():
            command = [word.replace(inside, outside) for word in command]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(command, stderr=said)
        self.units[REHEARSAL] = self.properties
        return Completed(0, "", "")

    def properties(self) -> Data:
        assert self.process
        status = self.process.poll()
        self.journal[REHEARSAL] = self.said.read_text().splitlines()
        if status is None:
            return {"ActiveState": "active", "SubState": "running", "MainPID": self.process.pid, "NRestarts": 0}
        return {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": status}

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def _systemctl(self, argv: list[str]) -> Completed:
        if argv[1] == "list-units":
            names = [name for name in self.units if name.startswith("observability-rehearsal-")]
            return Completed(0, "".join(f"{name} loaded active running x\n" for name in names), "")
        if argv[1] in ("stop", "kill"):
            self.end()
        if argv[1] == "reset-failed":
            del self.units[argv[-1]]
        return super()._systemctl(argv)


@pytest.fixture
def systemd(tmp_path: pathlib.Path) -> t.Iterator[Stage]:
    (tmp_path / "units").mkdir()
    stage = Stage(tmp_path / "units")
    stage.add(UNIT, BINARY, "--color=red", "--listen=:9999", "--config=/etc/shop", pid=0)
    yield stage
    stage.end()


@pytest.fixture
def rehearse(call: Call, web: Web, tmp_path: pathlib.Path) -> Call:
    """Rehearse version 2.0 of a shop whose version 1.0 runs."""
    web.answers["/metrics"] = Answer(PAGE.format(version="1.0").encode())

    def rehearse_once(*, first: str = "", version: str = "2.0", families: int = 10, **arguments: t.Any) -> Data:
        page = "".join(PAGE.format(version=version).splitlines(keepends=True)[:families])
        program = tmp_path / "shop"
        program.write_text(CANDIDATE.format(python=sys.executable, first=first, page=page))
        program.chmod(0o755)
        record = {"flags": FLAGS, "network": "host", "timeout": 20, **arguments.pop("rehearse", {})}
        given = {
            "component": "shop",
            "version": "2.0",
            "unit": "shop",
            "files": [{"name": "shop", "path": str(program), "sha256": sha256(program)}],
            "target": {"binary": BINARY, "url": web.url, "probes": PROBES},
            "window": 0,
            **arguments,
        }
        return call(release_rehearse, rehearse=record, **given)

    return rehearse_once


def nothing_is_left(systemd: Stage, state_dir: pathlib.Path) -> bool:
    running = systemd.process is not None and systemd.process.poll() is None
    return not running and REHEARSAL not in systemd.units and not (state_dir / "rehearsal").exists()


def keys(result: Data) -> list[tuple[str, str]]:
    return [(finding["key"], finding["severity"]) for finding in result["findings"]]


def test_a_good_candidate_passes_and_nothing_is_left(
    rehearse: Call, systemd: Stage, state_dir: pathlib.Path, web: Web
) -> None:
    result = rehearse()
    assert "failed" not in result, result
    assert (result["changed"], result["rehearsed"], result["findings"]) == (False, True, [])
    assert result["seen"].endswith("with 10 of the 10 metric families of the service")
    assert nothing_is_left(systemd, state_dir)
    assert web.asked == ["/metrics"]
    assert [argv[1] for argv in systemd.commands("systemctl") if UNIT in argv and argv[1] != "show"] == []


def test_it_has_the_unit_s_command_line_but_for_the_catalog_s_flags(rehearse: Call, systemd: Stage) -> None:
    rehearse()
    words = systemd.commands("systemd-run")[0]
    command = words[words.index("--") + 1 :]
    assert command[:4] == [
        "/usr/bin/env",
        "/run/observability-rehearsal-shop/shop",
        "--color=red",
        "--config=/etc/shop",
    ]
    assert re.fullmatch(r"--listen=127\.0\.0\.1:\d+", command[4])
    assert "--unit=observability-rehearsal-shop" in words


def test_a_candidate_that_dies_at_its_start_is_refused_with_its_own_reason(
    rehearse: Call, systemd: Stage, state_dir: pathlib.Path
) -> None:
    result = rehearse(first="sys.exit('error: no money, see http://me:hunter2@bank')")
    assert result["failed"]
    assert result["key"] == "rehearsal.failed"
    assert keys(result) == [("shop.rehearsal_failed", "blocker")]
    assert "the unit has stopped (failed); its own word: no money" in result["msg"]
    assert "hunter2" not in str(result)
    assert nothing_is_left(systemd, state_dir)


def test_a_candidate_that_never_answers_is_refused(rehearse: Call, systemd: Stage, state_dir: pathlib.Path) -> None:
    result = rehearse(first="import signal; signal.pause()", rehearse={"timeout": 1})
    assert "didn't answer (Connection refused)" in result["msg"]
    assert nothing_is_left(systemd, state_dir)


def test_a_candidate_that_tells_another_version_is_refused(rehearse: Call) -> None:
    result = rehearse(version="1.9", rehearse={"timeout": 1})
    assert "the service calls itself 1.9; wanted: version 2.0" in result["msg"]


def test_a_candidate_with_a_tenth_of_the_metrics_is_refused(
    rehearse: Call, systemd: Stage, state_dir: pathlib.Path
) -> None:
    result = rehearse(families=1)
    assert keys(result) == [("shop.rehearsal_families", "blocker")]
    assert "serves 1 of the 10 metric families" in result["msg"]
    assert result["findings"][0]["evidence"] == [f"shop_{number}" for number in range(9)]
    assert nothing_is_left(systemd, state_dir)


def test_what_is_accepted_is_a_warning(rehearse: Call) -> None:
    result = rehearse(families=1, accept=["shop.rehearsal_families"])
    assert "failed" not in result
    assert keys(result) == [("shop.rehearsal_families", "warning")]


def test_where_the_service_doesn_t_answer_nothing_is_compared(rehearse: Call, web: Web) -> None:
    web.answers["/metrics"] = Answer(b"wait", 503)
    assert rehearse(families=1)["findings"] == []


def test_it_logs_in_as_the_probes_do(rehearse: Call, web: Web, tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    target = {"binary": BINARY, "url": web.url, "probes": PROBES, "auth": {"token_file": str(tmp_path / "token")}}
    result = rehearse(target=target)
    assert web.logins == ["Bearer s3cret"]
    assert "s3cret" not in str(result)


def test_in_check_mode_nothing_is_started(rehearse: Call, systemd: Stage, state_dir: pathlib.Path) -> None:
    result = rehearse(check=True)
    assert (result["changed"], result["rehearsed"], result["findings"]) == (False, False, [])
    assert systemd.asked == []
    assert not state_dir.exists()


def test_it_gets_copies_of_the_configuration_and_of_small_state(
    rehearse: Call, tmp_path: pathlib.Path, systemd: Stage, state_dir: pathlib.Path
) -> None:
    etc, data = tmp_path / "etc", tmp_path / "data"
    (etc / "rules").mkdir(parents=True)
    (etc / "shop.yml").write_text("a: 1")
    (etc / "shop.yml").chmod(0o640)
    (etc / "rules" / "one.yml").write_text("b: 2")
    (etc / "outside").symlink_to(tmp_path)
    os.mkfifo(etc / "pipe")
    data.mkdir()
    (data / "silences").write_text("quiet")
    (data / "blocks").write_text("large")
    before = snapshot(etc, data)
    first = """
place = os.path.dirname(flags["config"])
seen = [open(flags["config"]).read(), open(place + "/rules/one.yml").read(), oct(os.stat(flags["config"]).st_mode)]
seen += [os.listdir(flags["data"]), os.readlink(place + "/outside"), os.path.lexists(place + "/pipe")]
open(flags["data"] + "/silences", "w").write("mine")
sys.exit("error: " + str(seen))
"""
    result = rehearse(
        first=first,
        rehearse={"flags": {**FLAGS, "config": "{config}", "data": "{data}"}, "data": "state"},
        facts={"config": str(etc / "shop.yml"), "data": str(data)},
        state=[str(data / "silences"), str(data / "nflog")],
    )
    assert f"['a: 1', 'b: 2', '0o100640', ['silences'], '{tmp_path}', False]" in result["msg"]
    assert snapshot(etc, data) == before
    assert nothing_is_left(systemd, state_dir)


def test_state_that_is_too_large_is_left_out_and_that_is_told(rehearse: Call, tmp_path: pathlib.Path) -> None:
    with (tmp_path / "silences").open("wb") as large:
        large.truncate(65 << 20)
    result = rehearse(
        rehearse={"flags": {**FLAGS, "data": "{data}"}, "data": "state"},
        facts={"data": str(tmp_path)},
        state=[str(tmp_path / "silences")],
    )
    assert keys(result) == [("shop.rehearsal_note", "info")]
    assert "too large for a copy" in result["findings"][0]["message"]


def test_what_an_earlier_rehearsal_left_is_removed_first(
    rehearse: Call, systemd: Stage, state_dir: pathlib.Path
) -> None:
    left = "observability-rehearsal-other.service"
    systemd.units[left] = {"ActiveState": "active"}
    (state_dir / "rehearsal" / "other").mkdir(parents=True)
    state_dir.chmod(0o700)
    rehearse()
    assert left not in systemd.units
    assert nothing_is_left(systemd, state_dir)
    assert ["systemctl", "stop", "--", left] in systemd.asked


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"rehearse": {"unless_flags": ["color"]}}, "it can't be started beside a service with --color"),
        ({"unit": "nobody"}, "what nobody.service runs isn't known"),
        ({"rehearse": {"network": "private"}}, "it must have a network of its own"),
    ],
)
def test_what_can_t_be_rehearsed_is_told_and_doesn_t_stand_in_the_way(
    rehearse: Call, systemd: Stage, arguments: Data, why: str
) -> None:
    result = rehearse(**arguments)
    assert "failed" not in result
    assert result["rehearsed"] is False
    assert keys(result) == [("shop.rehearsal_left_out", "warning")]
    assert why in result["seen"]
    assert systemd.process is None


def test_what_got_the_host_s_network_after_all_is_stopped_at_once(rehearse: Call, systemd: Stage) -> None:
    systemd.network = "net:[1]"
    result = rehearse(rehearse={"network": "private"})
    assert "it got no network of its own, and was stopped at once" in result["seen"]
    assert ["systemctl", "kill", "--signal=SIGKILL", "--", REHEARSAL] in systemd.asked


@pytest.mark.parametrize("status", [203, 226])
def test_what_systemd_couldn_t_set_up_is_no_word_of_the_candidate(rehearse: Call, status: int) -> None:
    result = rehearse(first=f"sys.exit({status})")
    assert f"systemd couldn't set it up (status {status}" in result["seen"]
    assert "failed" not in result


def test_a_systemd_that_starts_nothing_is_no_word_of_the_candidate(rehearse: Call, systemd: Stage) -> None:
    systemd.on_run = lambda argv: Completed(1, "", "no such property")
    assert "systemd couldn't start it: no such property" in rehearse()["seen"]


def test_a_candidate_that_isn_t_what_was_staged_is_not_started(rehearse: Call, systemd: Stage) -> None:
    result = rehearse(files=[{"name": "shop", "path": "/bin/true", "sha256": "0" * 64}])
    assert result["key"] == "rehearsal.candidate"
    assert systemd.process is None


@pytest.mark.parametrize(
    ("arguments", "message"), [({"files": []}, "files is empty"), ({"target": {"url": "x"}}, "target has no binary")]
)
def test_what_it_is_given_is_checked(rehearse: Call, arguments: Data, message: str) -> None:
    result = rehearse(**arguments)
    assert message in result["msg"]


def test_it_keeps_out_of_another_run_s_host(rehearse: Call, state_dir: pathlib.Path, systemd: Stage) -> None:
    with _store.session(str(state_dir), run=OTHER_RUN, acquire=True):
        pass
    result = rehearse(run=RUN)
    assert result["key"] == "lock.lost"
    assert systemd.process is None


def test_it_says_what_it_narrowed(rehearse: Call, state_dir: pathlib.Path) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "upgrade.lock").touch(mode=0o644)
    assert "0600 now" in message_of(rehearse()["warnings"][0])
