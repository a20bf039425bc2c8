# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _baseline, _store
from ansible_collections.observability.stack.plugins.module_utils._probes import FIELDS, key_of
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.modules import health_probe
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
PROBES = [
    {"kind": "systemd"},
    {"kind": "process"},
    {"kind": "http", "path": "/-/ready", "status": [200, 204]},
    {"kind": "build_info", "path": "/metrics", "metrics": [{"metric": "prometheus_build_info", "label": "version"}]},
]


class Service:
    """A service that runs, and whose pages are real."""

    def __init__(self, systemd: Systemd, web: Web, program: pathlib.Path, pid: int) -> None:
        self.systemd, self.web, self.program, self.pid = systemd, web, program, pid
        self.set()
        self.says("2.53.3")
        web.answers["/-/ready"] = Answer(b"ready", 204)

    def set(self, **properties: t.Any) -> None:
        self.systemd.add(UNIT, str(self.program), **{"pid": self.pid, **properties})

    def says(self, version: str) -> None:
        self.web.answers["/metrics"] = Answer(f'prometheus_build_info{{version="{version}"}} 1\n'.encode())

    def target(self, **changes: t.Any) -> Data:
        return {
            "component": "prometheus",
            "unit": "prometheus",
            "binary": str(self.program),
            "url": self.web.url,
            "version": "2.53.3",
            "probes": PROBES,
            **changes,
        }


@pytest.fixture
def service(systemd: Systemd, web: Web, tmp_path: pathlib.Path) -> t.Iterator[Service]:
    program = write_program(tmp_path / "bin" / "prometheus")
    with running(program) as pid:
        yield Service(systemd, web, program, pid)


@pytest.fixture
def probe(call: Call, service: Service) -> Call:
    """Probe the service, with one look."""

    def probe_once(**arguments: t.Any) -> Data:
        return call(health_probe, **{"targets": [service.target()], "timeout": 0, "window": 0, **arguments})

    return probe_once


def test_a_service_that_satisfies_all_is_healthy(probe: Call, state_dir: pathlib.Path) -> None:
    result = probe()
    service = result["services"][0]
    assert (result["changed"], service["healthy"], service["reason"], service["journal"]) == (False, True, "", [])
    assert service["ready_after"] >= 0
    assert [(verdict["probe"], verdict["ok"]) for verdict in service["verdicts"]] == [
        ("systemd", True),
        ("process", True),
        ("http", True),
        ("build_info", True),
    ]
    assert not state_dir.exists()


def test_it_stays_so_for_a_whole_window(probe: Call, service: Service) -> None:
    assert probe(window=1)["services"][0]["healthy"] is True
    assert len(service.systemd.commands("systemctl", "show")) > 1


def sicken(service: Service, case: str) -> None:
    actions: dict[str, t.Callable[[], t.Any]] = {
        "stopped": lambda: service.set(pid=0, active="failed", Result="exit-code"),
        "replaced": lambda: write_program(service.program.with_name("other")).rename(service.program),
        "not ready": lambda: service.web.answers.update({"/-/ready": Answer(b"no", 503)}),
        "old version": lambda: service.says("2.42.0"),
        "no metrics": lambda: service.web.answers.pop("/metrics"),
    }
    actions[case]()


@pytest.mark.parametrize(
    ("case", "failed", "says"),
    [
        (
            "stopped",
            "systemd",
            "prometheus isn't healthy: the unit has stopped (failed)",
        ),
        ("not ready", "http", "not steady within 0 s: http: {url}/-/ready answered 503; wanted: status 200 or 204"),
        ("old version", "build_info", "build_info: the service calls itself 2.42.0; wanted: version 2.53.3"),
        ("no metrics", "build_info", "build_info: status 404; wanted: version 2.53.3"),
    ],
)
def test_a_failure_says_what_was_seen_and_what_was_wanted(
    probe: Call, service: Service, case: str, failed: str, says: str
) -> None:
    sicken(service, case)
    service.systemd.journal[UNIT] = ["level=error err=boom", "push to http://u:geheim@h/ failed"]
    result = probe(since=1000)
    assert (result["failed"], result["key"]) == (True, "health.failed")
    assert result["msg"].startswith("prometheus isn't healthy: ")
    assert says.format(url=service.web.url) in result["msg"]
    told = result["services"][0]
    assert next(verdict["probe"] for verdict in told["verdicts"] if not verdict["ok"]) == failed
    assert told["journal"] == [f"{UNIT}: level=error err=boom", f"{UNIT}: push to http://u:********@h/ failed"]
    assert "geheim" not in json.dumps(result)
    assert "--since=@1000" in service.systemd.commands("journalctl")[0]


def test_a_process_that_runs_another_file_is_not_the_new_version(
    probe: Call, service: Service, tmp_path: pathlib.Path
) -> None:
    result = probe(targets=[service.target(binary=str(write_program(tmp_path / "bin" / "other")))])
    runs = os.readlink(f"/proc/{service.pid}/exe")
    assert f"process: process {service.pid} runs {runs}; wanted: the file that is at " in result["msg"]


def test_a_crash_loop_behind_an_active_unit_is_seen_at_once(probe: Call, service: Service) -> None:
    restarts = iter(range(100))

    def looping() -> Data:
        return {"ActiveState": "activating", "SubState": "auto-restart", "MainPID": 0, "NRestarts": next(restarts)}

    service.systemd.units[UNIT] = looping
    result = probe(timeout=600)
    assert "a crash loop: systemd has restarted it 3 times meanwhile" in result["msg"]


def test_a_failure_that_is_not_required_is_told_in_the_result(probe: Call, service: Service) -> None:
    service.says("2.42.0")
    result = probe(required=False)
    assert (result.get("failed"), result["changed"]) == (None, False)
    assert result["services"][0]["healthy"] is False


def test_several_services_are_looked_at_together(probe: Call, service: Service) -> None:
    targets = [
        service.target(),
        service.target(component="loki", unit="loki"),
        service.target(probes=[{"kind": "systemd"}]),
    ]
    result = probe(targets=targets)
    assert [told["healthy"] for told in result["services"]] == [True, False, True]
    assert result["msg"] == "loki isn't healthy: the unit has stopped (inactive)"
    assert len(service.systemd.commands("systemctl", "show")) == 1


def test_without_probes_the_unit_and_its_process_are_what_counts(probe: Call, service: Service) -> None:
    target = service.target()
    del target["probes"], target["version"]
    verdicts = probe(targets=[target])["services"][0]["verdicts"]
    assert [verdict["probe"] for verdict in verdicts] == ["systemd", "process"]
    assert service.web.asked == []


# -- what was before ----------------------------------------------------------------------------------------------

UP = {"kind": "metric_kept", "path": "/metrics", "metric": "up"}


def kept(state_dir: pathlib.Path, upgrade_id: str) -> None:
    state_dir.mkdir(mode=0o700)
    seen = {key_of(UP): {"status": 200, "value": 2.0}}
    _baseline.write(_store.Layout(str(state_dir)), "prometheus", {"upgrade_id": upgrade_id, "seen": seen})


@pytest.mark.parametrize(
    ("upgrade_id", "healthy"), [("u1", False), ("u2", True)], ids=["of this upgrade", "of another"]
)
def test_a_proof_compares_with_what_was_seen_before_the_upgrade(
    probe: Call, service: Service, state_dir: pathlib.Path, upgrade_id: str, healthy: bool
) -> None:
    kept(state_dir, upgrade_id)
    service.web.answers["/metrics"] = Answer(b'prometheus_build_info{version="2.53.3"} 1\nup 1\n')
    result = probe(targets=[service.target(proofs=[UP])], run=RUN, required=False)
    assert result["services"][0]["healthy"] is healthy
    assert result["services"][0]["verdicts"][-1]["probe"] == "metric_kept"


def test_a_probe_that_is_given_all_fields_is_the_same(probe: Call, service: Service) -> None:
    """As options arrive: what isn't set is there as nothing."""
    full = {**dict.fromkeys(FIELDS["http"]), "argv": None, "kind": "http", "name": "readiness", "path": "/-/ready"}
    verdict = probe(targets=[service.target(probes=[{**full, "status": ["204"]}])])["services"][0]["verdicts"][0]
    assert (verdict["probe"], verdict["ok"]) == ("readiness", True)


def test_a_login_stays_in_its_file(probe: Call, service: Service, tmp_path: pathlib.Path) -> None:
    (tmp_path / "password").write_text("geheim")
    auth = {"user": "u", "password_file": str(tmp_path / "password")}
    result = probe(targets=[service.target(auth=auth, version="9.9.9")])
    assert result["failed"] is True
    assert set(service.web.logins) == {"Basic dTpnZWhlaW0="}
    assert "geheim" not in json.dumps(result)


# -- the record ---------------------------------------------------------------------------------------------------


def recorded(state_dir: pathlib.Path, state: str, *, steps: int = 1) -> None:
    """The record of a host whose prometheus has come to a state, and that has so many steps to do."""
    step = Step("prometheus", "2.53.3")
    with _store.session(str(state_dir), run=RUN, acquire=True) as session:
        document = session.document
        document.begin(RUN, steps=[step.key, "loki@3.0.0"][:steps], details={}, now=session.now)
        document.start_step(step, from_version="2.42.0", now=session.now)
        document.set_component("prometheus", "staged", now=session.now)
        document.advance("UPGRADING", now=session.now)
        if state != "staged":
            document.set_component("prometheus", state, now=session.now)
        session.save()


def document_of(state_dir: pathlib.Path) -> tuple[str, str]:
    document = json.loads((state_dir / "state.json").read_text())
    return document["upgrade"]["state"], document["components"]["prometheus"]["state"]


@pytest.mark.parametrize(
    ("state", "steps", "ends"),
    [
        ("activated", 1, ("VALIDATING", "verifying")),
        ("activated", 2, ("UPGRADING", "verifying")),
        ("staged", 1, ("UPGRADING", "staged")),
    ],
    ids=["the last step", "not the last", "nothing was touched"],
)
def test_the_record_says_that_a_step_is_being_proven(
    probe: Call, state_dir: pathlib.Path, state: str, steps: int, ends: tuple[str, str]
) -> None:
    recorded(state_dir, state, steps=steps)
    assert probe(component="prometheus", run=RUN)["changed"] is False
    assert document_of(state_dir) == ends


def test_the_lease_lasts_as_long_as_the_proof_may_and_no_longer(
    probe: Call, service: Service, state_dir: pathlib.Path
) -> None:
    recorded(state_dir, "activated")
    begun, meanwhile, shown = time.time(), [], service.systemd.look(UNIT)

    def look() -> Data:
        meanwhile.append(_store.read_lease(str(state_dir))["expires"] >= begun + 5000 + 900)
        return shown

    service.systemd.units[UNIT] = look
    probe(component="prometheus", run=RUN, timeout=5000)
    assert meanwhile == [True]
    assert _store.read_lease(str(state_dir))["expires"] < begun + 5000


@pytest.mark.parametrize("arguments", [{"check": True, "component": "prometheus"}, {}], ids=["check mode", "no step"])
def test_nothing_is_recorded(probe: Call, state_dir: pathlib.Path, arguments: Data) -> None:
    recorded(state_dir, "activated")
    before = snapshot(state_dir)
    assert probe(run=RUN, **arguments)["services"][0]["healthy"] is True
    assert snapshot(state_dir) == before


def test_the_same_again_writes_nothing_but_the_lease(probe: Call, state_dir: pathlib.Path) -> None:
    recorded(state_dir, "activated")
    probe(component="prometheus", run=RUN)
    before = snapshot(state_dir)
    again = probe(component="prometheus", run=RUN)
    assert again["services"][0]["healthy"] is True
    assert {path for path, seen in snapshot(state_dir).items() if before[path] != seen} <= {
        str(state_dir / "upgrade.lock")
    }


def test_another_run_is_refused(probe: Call, state_dir: pathlib.Path) -> None:
    recorded(state_dir, "activated")
    result = probe(component="prometheus", run=OTHER_RUN)
    assert (result["failed"], result["key"]) == (True, "lock.lost")
    assert document_of(state_dir) == ("UPGRADING", "activated")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probes": [{"kind": "telepathy"}]}, "value of kind must be one of: systemd, process, http"),
        ({"binary": ...}, "missing required arguments: binary found in targets"),
        ({"probes": [{"kind": "http"}]}, "prometheus: a probe of kind http needs path"),
        (
            {"probes": [{"kind": "build_info", "path": "/metrics"}]},
            "prometheus: a probe of kind build_info needs metrics",
        ),
        (
            {"proofs": [{"kind": "http", "path": "/", "argv": ["a"]}]},
            "prometheus: a probe of kind http has no argv; it has path, status, text, json",
        ),
        ({"proofs": [{"kind": "log", "patterns": ["("]}]}, "'(' of a probe of kind log is no pattern"),
    ],
    ids=[
        "unknown kind",
        "no program",
        "http without a path",
        "build_info without metrics",
        "a field of another kind",
        "no pattern",
    ],
)
def test_targets_that_cannot_be_meant_are_refused(probe: Call, service: Service, changes: Data, says: str) -> None:
    target = {key: value for key, value in service.target(**changes).items() if value is not ...}
    result = probe(targets=[target])
    assert result["failed"] is True
    assert says in result["msg"]
    assert service.systemd.asked == []
