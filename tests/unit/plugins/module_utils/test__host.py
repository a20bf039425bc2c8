# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time
import typing as t

import pytest
from ansible.module_utils.urls import open_url
from ansible_collections.observability.stack.plugins.module_utils import _files, _host, _process, _store, _systemd
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Answer,
    Data,
    Systemd,
    Web,
    directory_of_a_stranger,
    outlive_the_tick,
    running,
    snapshot,
    write_program,
)

if t.TYPE_CHECKING:
    from ansible_collections.observability.stack.plugins.module_utils._preflight import Service

UNIT = "node_exporter.service"


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_program(tmp_path / "bin" / "node_exporter")


def step_of(program: pathlib.Path, web: Web, **changes: t.Any) -> Data:
    target = {
        "component": "node_exporter",
        "unit": UNIT,
        "binary": str(program),
        "url": web.url,
        "version": "1.9.0",
        "probes": [{"kind": "systemd"}, {"kind": "process"}, {"kind": "http", "path": "/metrics", "status": [200]}],
    }
    return {
        "key": "node_exporter@1.9.0",
        "component": "node_exporter",
        "from": "1.5.0",
        "to": "1.9.0",
        "unit": UNIT,
        "binary": str(program),
        "files": [{"name": "node_exporter", "dest": str(program)}],
        "keep": {"unit": [], "config": [], "state": []},
        "stage": {"url": "http://mirror/x.tar.gz", "architecture": "amd64"},
        "target": target,
        **changes,
    }


def only(systemd: Systemd, step: Data, records: Data | None = None) -> Service:
    (service,) = _host.services(systemd, [step, {**step, "key": "later"}], records or {})
    return service


# -- services -----------------------------------------------------------------------------------------------------


def test_a_service_is_read_as_it_is(systemd: Systemd, web: Web, program: pathlib.Path) -> None:
    web.answers["/metrics"] = Answer(b"up 1\n")
    with running(program) as pid:
        limits = {"StartLimitBurst": 1, "StartLimitIntervalUSec": "10s", "TimeoutStopUSec": "5min", "NRestarts": 2}
        systemd.add(UNIT, str(program), pid=pid, **limits)
        service = only(systemd, step_of(program, web))
    assert (service.unit, service.unhealthy, service.stopped, service.unsettled) == (UNIT, "", False, False)
    assert (service.restarts, service.start_limit, service.stop_timeout) == (2, (1, "10s"), 300.0)
    assert (service.restart_pending, service.restart_only, service.architectures) == (False, False, ("amd64", ""))
    assert service.rss
    assert service.package is None


def test_state_that_is_not_written_yet_is_reported(
    systemd: Systemd, web: Web, program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    systemd.add(UNIT, str(program))
    (tmp_path / "silences").write_text("x")
    state = [str(tmp_path / name) for name in ("silences", "nflog", "no/such/directory")]
    service = only(systemd, step_of(program, web, keep={"unit": [], "config": [], "state": state}))
    assert service.unwritten == (str(tmp_path / "nflog"),)


@pytest.mark.parametrize(
    ("properties", "stopped", "says"),
    [
        ({"active": "inactive"}, True, "the unit has stopped (inactive)"),
        ({"active": "failed", "Result": "exit-code"}, False, "the unit has stopped (failed)"),
        ({"active": "inactive", "LoadState": "not-found"}, False, "systemd doesn't know its unit"),
    ],
)
def test_a_service_that_is_down(
    systemd: Systemd, web: Web, program: pathlib.Path, properties: Data, stopped: bool, says: str
) -> None:
    systemd.add(UNIT, str(program), **properties)
    systemd.journal[UNIT] = ["bad"]
    service = only(systemd, step_of(program, web))
    assert (service.stopped, service.unhealthy, service.rss) == (stopped, says, None)
    assert service.journal == (f"{UNIT}: bad",)


def test_a_service_that_runs_and_does_not_serve(
    systemd: Systemd, web: Web, program: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "HEALTH_TIMEOUT", 0)
    with running(program) as pid:
        systemd.add(UNIT, str(program), pid=pid)
        service = only(systemd, step_of(program, web))
    assert "/metrics answered 404" in service.unhealthy


def test_a_lost_restart_is_not_sickness(systemd: Systemd, web: Web, program: pathlib.Path) -> None:
    web.answers["/metrics"] = Answer(b"up 1\n")
    with running(program) as pid:
        systemd.add(UNIT, str(program), pid=pid)
        systemd.owned[str(program)] = "node-exporter"
        outlive_the_tick(pid)
        write_program(program.with_name("new")).rename(program)
        service = only(systemd, step_of(program, web, stage=None))
    assert (service.unhealthy, service.restart_pending, service.restart_only) == ("", True, True)
    assert service.package == {"manager": "apt", "name": "node-exporter"}


def test_what_an_earlier_run_left_is_known(systemd: Systemd, web: Web, program: pathlib.Path) -> None:
    systemd.add(UNIT, str(program))
    assert only(systemd, step_of(program, web), {"node_exporter": {"state": "activated"}}).unsettled is True


def test_a_program_tells_what_it_is_made_for(systemd: Systemd, web: Web) -> None:
    kernel = os.uname().machine
    service = only(systemd, step_of(pathlib.Path(sys.executable).resolve(), web))
    assert service.architectures[1] == {"x86_64": "amd64", "aarch64": "arm64"}.get(kernel, kernel)


# -- who listens --------------------------------------------------------------------------------------------------


def unit(pid: int) -> _systemd.Unit:
    return _systemd.Unit(UNIT, "loaded", "active", "running", "success", pid, 0, {})


def listeners(url: str, pid: int) -> list[tuple[int, bool]] | None:
    found = _host._listeners(_host._listening(), url, unit(pid))
    return None if found is None else [(one.pid, one.own) for one in found]


@pytest.mark.parametrize(
    ("family", "address", "host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::1", "[::1]"),
        (socket.AF_INET6, "::", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "localhost"),
        (socket.AF_INET, "127.0.0.1", "no.such.name.invalid"),
    ],
)
def test_the_process_behind_a_port_is_found(family: socket.AddressFamily, address: str, host: str) -> None:
    with socket.create_server((address, 0), family=family) as server:
        url = f"http://{host}:{server.getsockname()[1]}"
        assert listeners(url, os.getpid()) == [(os.getpid(), True)]
        assert listeners(url, 4_000_000) == [(os.getpid(), False)]


def test_another_address_is_another_place() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        assert listeners(f"http://127.0.0.1:{server.getsockname()[1]}", os.getpid()) == []


def test_a_control_group_tells_whose_a_process_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "PROC", str(tmp_path))
    for pid, group in (
        (7, f"0::/system.slice/{UNIT}/sub"),
        (8, "0::/system.slice/other.service"),
        (1, "0::/init.scope"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(f"{group}\n")
    assert [_host._is_own(pid, unit(99)) for pid in (7, 8, 1, 99, 100)] == [True, False, True, True, False]


def test_without_proc_nobody_knows(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "PROC", str(tmp_path))
    assert listeners("http://127.0.0.1:1", 5) is None
    assert _host._kilobytes(str(tmp_path / "meminfo"), "MemAvailable") is None


# -- the host -----------------------------------------------------------------------------------------------------


def test_a_directory_that_is_not_there_yet_is_where_it_will_be(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a" / "b")
    place = _host.places([path, ""])[path]
    assert (place.device, place.noexec) == (tmp_path.stat().st_dev, False)
    assert os.path.ismount(place.mount)
    assert place.free > 0


def test_bytes_are_those_of_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(10))
    (tmp_path / "c").write_bytes(bytes(5))
    assert [_files.bytes_below(str(path)) for path in (tmp_path, tmp_path / "c", tmp_path / "x")] == [15, 5, 0]


@pytest.mark.parametrize("passing", [True, False])
def test_a_directory_that_can_be_written_to(tmp_path: pathlib.Path, passing: bool) -> None:
    before = snapshot(tmp_path)
    assert _host.unwritable([str(tmp_path), str(tmp_path / "later" / "on")], passing=passing) == {}
    assert snapshot(tmp_path) == before


def test_one_that_cannot_is_told(tmp_path: pathlib.Path) -> None:
    assert list(_host.unwritable(["/proc/self"], passing=False)) == ["/proc/self"]
    if os.geteuid() != 0:
        stranger = str(directory_of_a_stranger(tmp_path / "strange"))
        assert _host.unwritable([stranger], passing=True) == {stranger: "read-only, or not allowed"}


def test_the_newest_time_of_a_record() -> None:
    data = {"a": [{"at": "2026-01-02T03:04:05Z"}, "2025-12-31T23:59:59Z"], "b": "9999", "c": "2026-99-99T99:99:99Z"}
    assert _host.newest(data) == ("2026-01-02T03:04:05Z", 1767323045.0)
    assert _host.newest({"a": 1}) is None


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Completed(0, "yes\n", ""), True),
        (Completed(0, "no\n", ""), False),
        (Completed(0, "", ""), None),
        (Completed(1, "", "Failed to connect to bus"), None),
        (Completed(None, "", "no such program"), None),
    ],
)
def test_whether_the_clock_is_synchronised(answer: Completed, told: bool | None) -> None:
    assert _host.synchronised(lambda argv, timeout: answer) is told


def test_who_has_the_host(state_dir: pathlib.Path) -> None:
    assert _host.holder(str(state_dir), RUN) == ""
    with _store.session(str(state_dir), run=OTHER_RUN, acquire=True):
        pass
    assert _host.holder(str(state_dir), RUN).startswith("upgrade u2 of eve on c2, since 0 min")
    assert _host.holder(str(state_dir), OTHER_RUN) == ""
    assert _host.holder(str(state_dir), {**RUN, "dead": ["u2"]}) == ""


def test_what_the_host_cannot_fetch(web: Web) -> None:
    web.answers["/a"] = Answer(b"archive")
    web.answers["/c"] = Answer(b"no", 403)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    urls = [
        f"{web.url}/a",
        f"{web.url}/b?token=geheim",
        f"{web.url}/c",
        *(f"http://127.0.0.1:{port}/{n}" for n in "xy"),
    ]
    found = _host.unreachable(urls, open_url=open_url, now=time.time())
    assert list(found) == [f"{web.url}/b", f"{web.url}/c", *urls[3:]]
    assert "404" in found[f"{web.url}/b"]
    assert "403" in found[f"{web.url}/c"]
    assert "refused" in found[urls[3]]
    assert "geheim" not in str(found)


def test_all_of_a_host(systemd: Systemd, web: Web, program: pathlib.Path, state_dir: pathlib.Path) -> None:
    web.answers["/metrics"] = Answer(b"up 1\n")
    with _store.session(str(state_dir), run=RUN, acquire=True) as session:
        key = Step("node_exporter", "1.9.0").key
        session.document.begin(RUN, steps=[key], details={}, now="2026-11-21T10:00:00Z")
        session.save()
    with running(program) as pid:
        systemd.add(UNIT, str(program), pid=pid)
        request = _host.Request([step_of(program, web)], str(state_dir), "/", {key: 1000}, run=RUN)
        facts = _host.read(systemd, request, open_url=open_url, clock=time.time)
    assert {need.path: need.size for need in facts.needs if "candidate" in need.what} == {str(state_dir): 4000}
    assert set(facts.places) == {"/", str(state_dir), str(program.parent)}
    assert facts.newest == ("2026-11-21T10:00:00Z", 1795255200.0)
    assert facts.now is not None
    assert (facts.unwritable, facts.holder, facts.unreachable) == ({}, "", {})
    assert facts.memory
    assert [service.component for service in facts.services] == ["node_exporter"]


def test_no_steps_are_nothing_to_look_at(systemd: Systemd, state_dir: pathlib.Path) -> None:
    facts = _host.read(systemd, _host.Request([], str(state_dir), "/", {}), open_url=open_url, clock=time.time)
    assert (facts.services, facts.needs, systemd.commands("systemctl")) == ((), (), [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_mount_is_seen(tmp_path: pathlib.Path) -> None:
    options = "size=64k,nr_inodes=10,noexec"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(tmp_path)], check=True)
    try:
        place = _host.places([str(tmp_path / "x")])[str(tmp_path / "x")]
        assert (place.mount, place.noexec) == (str(tmp_path), True)
        assert place.free == 64 << 10
        assert place.inodes is not None
        assert place.inodes < 10
        (tmp_path / "full").write_bytes(bytes(place.free))
        assert _host.unwritable([str(tmp_path)], passing=False) == {str(tmp_path): "No space left on device"}
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        for passing in (True, False):
            assert list(_host.unwritable([str(tmp_path), f"{tmp_path}/x"], passing=passing)) == [str(tmp_path)]
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


# -- what its process has not read ----------------------------------------------------------------------------------

LATER = 4e9
RELOADED = "prometheus_config_last_reload_success_timestamp_seconds"


@pytest.mark.parametrize(
    ("changed", "loaded", "found"),
    [
        (1e9, None, []),
        (LATER, None, ["config"]),
        (LATER, f"{RELOADED} 1.7e+09", ["config"]),
        (LATER, f"{RELOADED} {LATER + 1:.0f}", []),
        (LATER, f'other_config_last_reload_success_timestamp_seconds{{a="b"}} {LATER + 1:.0f}', []),
        (LATER, "prometheus_config_last_reload_successful 1", ["config"]),
    ],
)
def test_configuration_that_was_not_loaded_is_known_by_the_metric_or_the_start(
    systemd: Systemd, web: Web, program: pathlib.Path, changed: float, loaded: str | None, found: list[str]
) -> None:
    config = program.parent / "prometheus.yml"
    config.write_text("x: 1\n")
    os.utime(config, (changed, changed))
    web.answers["/metrics"] = Answer(f"up 1\n{loaded or ''}\n".encode())
    step = step_of(program, web, stage={"url": "http://m/x", "facts": {"config": str(config)}})
    metrics = [{"metric": "x", "label": "version"}]
    step["target"]["probes"].append({"kind": "build_info", "path": "/metrics", "metrics": metrics})
    with running(program) as pid:
        systemd.add(UNIT, str(program), pid=pid)
        assert [one.what for one in only(systemd, step).newer] == found


def test_units_are_compared_and_what_they_need_is_looked_for(systemd: Systemd, web: Web, program: pathlib.Path) -> None:
    with running(program) as pid:
        systemd.add(UNIT, str(program), pid=pid, NeedDaemonReload="yes", User="root")
        (systemd.directory / UNIT).write_text(f"[Service]\nExecStart={program}\nUser=nobody-knows\n")
        service = only(systemd, step_of(program, web))
    assert service.change is not None
    assert [str(one) for one in service.change.differences] == ["User: loaded root, on disk nobody-knows"]
    assert service.cannot_start == ("its user nobody-knows is not known",)
    assert service.newer == ()  # the change says it all


def test_a_unit_that_undo_brought_back_is_told(systemd: Systemd, web: Web, program: pathlib.Path) -> None:
    drop_in = systemd.directory / f"{UNIT}.d" / "zz-observability-restored.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nUser=root\n")
    systemd.add(UNIT, str(program), DropInPaths=drop_in)
    assert only(systemd, step_of(program, web)).restored_unit == str(drop_in)


def test_the_watchdog_needs_a_place_for_its_drop_in(
    systemd: Systemd, web: Web, program: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = tmp_path / "system"
    units.mkdir()
    monkeypatch.setattr(_host._guard, "UNITS", str(units))
    monkeypatch.setattr(_host.os, "access", lambda path, mode: path != str(units))
    request = _host.Request([step_of(program, web)], str(tmp_path / "state"), str(tmp_path), {}, passing=True)
    for watchdog, why in ((True, {str(units): "this user is not allowed to"}), (False, {})):
        facts = _host.read(systemd, request._replace(watchdog=watchdog), open_url=open_url, clock=time.time)
        assert facts.unwritable == why
