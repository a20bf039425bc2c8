# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _baseline, _host, _store
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.modules import upgrade_preflight
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Answer,
    Call,
    Data,
    Systemd,
    Web,
    running,
    snapshot,
    write_program,
)

UNIT = "prometheus.service"
KEY = Step("prometheus", "2.53.3").key


class Host:
    """A host with one service that runs and serves, and the step that is planned for it.

    The service is this very process, for it is what really listens.
    """

    def __init__(self, systemd: Systemd, web: Web, program: pathlib.Path, state_dir: pathlib.Path) -> None:
        self.systemd, self.web, self.program, self.state_dir = systemd, web, program, state_dir
        self.set()
        web.answers["/metrics"] = Answer(b"up 1\n")

    def set(self, **properties: t.Any) -> None:
        self.systemd.add(UNIT, sys.executable, **{"pid": os.getpid(), **properties})

    def step(self, **changes: t.Any) -> Data:
        target = {
            "component": "prometheus",
            "unit": UNIT,
            "binary": sys.executable,
            "url": self.web.url,
            "version": "2.53.3",
            "probes": [{"kind": "systemd"}, {"kind": "http", "path": "/metrics", "status": [200]}],
            "proofs": [{"kind": "samples", "path": "/metrics", "least": 80}],
        }
        return {
            "key": KEY,
            "component": "prometheus",
            "from": "2.42.0",
            "to": "2.53.3",
            "unit": UNIT,
            "binary": sys.executable,
            "files": [{"name": "prometheus", "dest": str(self.program)}],
            "keep": {"unit": [], "config": [], "state": []},
            "stage": {"url": "http://m/p.tar.gz"},
            "target": target,
            **changes,
        }

    def recorded(self, state: str = "", *, run: Data | None = None) -> None:
        """The record of an upgrade that has begun, and has brought the component to a state."""
        run = run or RUN
        with _store.session(str(self.state_dir), run=run, acquire=True) as session:
            document, step = session.document, Step("prometheus", "2.53.3")
            document.begin(run, steps=[KEY, "loki@3.0.0"], details={}, now=session.now)
            if state:
                document.start_step(step, from_version="2.42.0", now=session.now)
                document.set_component("prometheus", "staged", now=session.now)
                document.advance("UPGRADING", now=session.now)
                document.set_component("prometheus", "activated", now=session.now, files=[])
            if state == "success":
                document.set_component("prometheus", "verifying", now=session.now)
                document.end_step(step, "succeeded", now=session.now)
            session.save()

    def baseline(self) -> Data | None:
        path = self.state_dir / "baseline" / "prometheus.json"
        return t.cast("Data", json.loads(path.read_text())) if path.exists() else None


@pytest.fixture
def host(
    systemd: Systemd, web: Web, tmp_path: pathlib.Path, state_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Host:
    monkeypatch.setattr(_host, "HEALTH_TIMEOUT", 0)
    return Host(systemd, web, write_program(tmp_path / "bin" / "prometheus"), state_dir)


@pytest.fixture
def look(call: Call, host: Host, tmp_path: pathlib.Path) -> Call:
    def look_at_it(**arguments: t.Any) -> Data:
        return call(upgrade_preflight, **{"steps": [host.step()], "_ansible_tmpdir": str(tmp_path), **arguments})

    return look_at_it


def keys(result: Data, severity: str = "blocker") -> list[str]:
    return [one["key"] for one in result["findings"] if one["severity"] == severity]


@pytest.mark.parametrize("check", [True, False])
def test_a_good_host_may_be_upgraded(look: Call, host: Host, state_dir: pathlib.Path, check: bool) -> None:
    result = look(check=check)
    assert (result.get("failed"), result["changed"], result["baselines"]) == (None, False, [])
    assert [one for one in result["findings"] if one["component"]] == []
    assert keys(result) == []
    assert not state_dir.exists()
    assert result["facts"]["kernel"] == os.uname().machine
    (row,) = [row for row in result["facts"]["file_systems"] if row["needed"]][:1]
    assert row["free"] > row["needed"]


def test_all_blockers_are_told_in_one_line(look: Call, host: Host) -> None:
    host.set(pid=0, active="failed", Result="exit-code", NRestarts=3)
    host.systemd.owned[sys.executable] = "python3"
    host.systemd.journal[UNIT] = ["push to http://u:geheim@h/ failed"]
    result = look(urls=[f"{host.web.url}/none"])
    assert (result["failed"], result["key"]) == (True, "preflight.blocked")
    assert set(keys(result)) >= {"prometheus.unhealthy", "host.unreachable", "prometheus.package_owned"}
    assert keys(result, "warning")[-1:] == ["prometheus.restarted"]
    assert "\n" not in result["msg"]
    for one in result["findings"]:
        assert (f"{one['key']}: {one['message']} (to do: {one['fix']})" in result["msg"]) is (
            one["severity"] == "blocker"
        )
    assert "geheim" not in json.dumps(result)


def test_what_is_accepted_or_not_required_fails_nothing(look: Call, host: Host) -> None:
    host.web.answers["/metrics"] = Answer(b"", 503)
    assert look()["failed"] is True
    accepted = look(accept=["prometheus.unhealthy"])
    assert (accepted.get("failed"), keys(accepted)) == (None, [])
    assert "prometheus.unhealthy" in keys(accepted, "accepted")
    told = look(required=False)
    assert (told.get("failed"), keys(told)) == (None, ["prometheus.unhealthy"])


def test_too_little_space_is_told_with_what_is_needed(look: Call) -> None:
    result = look(sizes={KEY: 1 << 50})
    assert keys(result)[0] == "host.space"
    assert "4194304.0 GiB for the candidate of prometheus@2.53.3" in result["msg"]


def test_another_run_has_the_host(look: Call, host: Host) -> None:
    host.recorded(run=OTHER_RUN)
    assert keys(look(run=RUN)) == ["host.locked"]
    assert keys(look(run=OTHER_RUN)) == []


def test_a_port_that_somebody_else_has(look: Call, host: Host, tmp_path: pathlib.Path) -> None:
    program = write_program(tmp_path / "bin" / "other")
    with running(program) as pid:
        host.set(pid=pid)
        result = look()
    assert "prometheus.port_taken" in keys(result)
    assert f"process {os.getpid()} (" in result["msg"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unit": None, "binary": ""}, "steps: number 1 has no unit, binary: give the steps as the plan has them"),
        ({"target": {"unit": UNIT}}, "steps: number 1 has no target.binary, target.url"),
        ({"target": "x"}, "steps: number 1 has no target"),
        ({"component": "../x"}, "can't be the name of a component"),
    ],
)
def test_what_is_no_step_is_refused(look: Call, host: Host, changes: Data, says: str) -> None:
    result = look(steps=[host.step(**changes)])
    assert (result["failed"], says in result["msg"]) == (True, True)


def test_no_steps_are_fine(look: Call) -> None:
    assert look(steps=[], baseline=True)["baselines"] == []


# -- the baseline -------------------------------------------------------------------------------------------------


def test_what_is_seen_before_is_kept(look: Call, host: Host) -> None:
    host.recorded()
    later = host.step(key="prometheus@3.5.3", to="3.5.3")
    result = look(steps=[host.step(), later], run=RUN, baseline=True)
    assert (result["changed"], result["baselines"]) == (False, ["prometheus"])
    kept = host.baseline()
    assert kept is not None
    assert (kept["upgrade_id"], kept["version"]) == ("u1", "2.42.0")
    assert kept["seen"]


def test_until_it_is_touched_it_is_taken_anew(look: Call, host: Host) -> None:
    host.recorded()
    look(run=RUN, baseline=True)
    host.web.answers["/metrics"] = Answer(b"up 1\nmore 1\n")
    assert look(run=RUN, baseline=True)["baselines"] == ["prometheus"]


@pytest.mark.parametrize("state", ["activated", "success"])
def test_after_that_it_stays(look: Call, host: Host, state: str) -> None:
    host.recorded()
    look(run=RUN, baseline=True)
    before = host.baseline()
    host.recorded(state)
    assert look(run=RUN, baseline=True)["baselines"] == []
    assert host.baseline() == before


def test_the_run_that_finishes_what_another_left_compares_with_what_that_has_seen(look: Call, host: Host) -> None:
    host.recorded()
    look(run=RUN, baseline=True)
    kept = host.baseline()
    assert kept is not None
    host.recorded("activated")
    _baseline.write(_store.Layout(str(host.state_dir)), "prometheus", {**kept, "upgrade_id": "20261121T000000Z-dead"})
    assert look(run=RUN, baseline=True)["baselines"] == []
    assert host.baseline() == kept


def test_of_what_was_left_half_done_there_is_none(look: Call, host: Host) -> None:
    host.recorded("activated")
    assert look(run=RUN, baseline=True)["baselines"] == []
    assert host.baseline() is None


@pytest.mark.parametrize("arguments", [{"check": True, "baseline": True}, {"baseline": False}])
def test_nothing_is_kept(look: Call, host: Host, state_dir: pathlib.Path, arguments: Data) -> None:
    host.recorded()
    before = snapshot(state_dir)
    assert look(run=RUN, **arguments)["baselines"] == []
    assert snapshot(state_dir) == before


def test_nothing_is_kept_where_a_blocker_stands(look: Call, host: Host) -> None:
    host.recorded()
    host.set(pid=0)
    result = look(run=RUN, baseline=True, required=False)
    assert (keys(result)[0], result["baselines"]) == ("prometheus.not_running", [])


def test_a_run_that_lost_the_host_keeps_nothing(look: Call, host: Host) -> None:
    result = look(run=RUN, baseline=True)
    assert (result["failed"], result["key"]) == (True, "lock.lost")


# -- other units that run the file ------------------------------------------------------------------------------------


def shared(host: Host, unit: str = "federate@a.service", **target: t.Any) -> Data:
    """A step whose file another unit runs, too."""
    step = host.step()
    found = {"component": "prometheus@federate-a", "unit": unit, "binary": step["binary"], "url": ""}
    found.update(probes=[{"kind": "systemd"}], proofs=[], version="2.42.0", **target)
    return {**step, "shared": [{"target": found, "from_target": found, "restart": {}}]}


def test_another_unit_must_be_healthy_before_the_step(look: Call, host: Host) -> None:
    host.systemd.add("federate@a.service", sys.executable, pid=0, active="failed", Result="exit-code")
    result = look(steps=[shared(host)], required=False)
    assert keys(result) == ["prometheus@federate-a.unhealthy"]
    accepted = look(steps=[shared(host)], required=False, accept=["prometheus.unhealthy"])
    assert (keys(accepted), keys(accepted, "accepted")) == ([], ["prometheus@federate-a.unhealthy"])


def test_a_process_below_another_service_is_a_blocker(look: Call, host: Host, tmp_path: pathlib.Path) -> None:
    """Such as one that somebody started over SSH, where logins have no session: ssh.service must not be restarted."""
    shutil.copy("/bin/cat", tmp_path / "sshd")  # a program that isn't known to start others
    (tmp_path / "text").write_text("ready\n")
    with running(tmp_path / "sshd", tmp_path / "text", "-") as pid:
        host.systemd.add("ssh.service", str(tmp_path / "sshd"), pid=pid)
        result = look(steps=[shared(host, "ssh.service")], required=False)
    assert "prometheus@federate-a.another_service" in keys(result)
    (found,) = (one for one in result["findings"] if one["key"].endswith(".another_service"))
    assert found["message"].startswith(f"ssh.service is another service: its main process runs {tmp_path / 'sshd'}")


def test_what_another_unit_shows_before_is_kept_too(look: Call, host: Host, state_dir: pathlib.Path) -> None:
    step = shared(host)
    host.systemd.add("federate@a.service", step["binary"], pid=os.getpid())
    host.recorded()
    result = look(steps=[step], baseline=True, run=RUN)
    assert result["baselines"] == ["prometheus", "prometheus@federate-a"]
    assert (state_dir / "baseline" / "prometheus@federate-a.json").exists()
