# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import pathlib
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _loaded_unit, _restore_point, _store
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.modules import service_restart
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Call,
    Data,
    Systemd,
    message_of,
    outlive_the_tick,
    running,
    snapshot,
    write_program,
)

UNIT = "prometheus.service"


class Service:
    """A service whose restart really starts its program again."""

    def __init__(self, systemd: Systemd, call: Call, program: pathlib.Path, stack: contextlib.ExitStack) -> None:
        self.systemd, self.program = systemd, program
        self._call, self._stack = call, stack
        self.start(restarts=2)
        systemd.on_restart = self._restart

    def start(self, restarts: int) -> None:
        pid = self._stack.enter_context(running(self.program))
        self.systemd.add(UNIT, str(self.program), pid=pid, NRestarts=restarts, TimeoutStopUSec="10min")

    @property
    def pid(self) -> int:
        return int(self.systemd.look(UNIT)["MainPID"])

    def replace(self) -> None:
        """Put another program at its path, while it runs."""
        outlive_the_tick(self.pid)
        write_program(self.program, "2.53.3")

    def restart(self, **changes: t.Any) -> Data:
        return self._call(service_restart, **{"unit": "prometheus", "binary": str(self.program), **changes})

    def _restart(self, unit: str) -> Completed:
        assert unit == UNIT
        self.start(restarts=0)
        return Completed(0, "", "")


@pytest.fixture
def service(systemd: Systemd, call: Call, tmp_path: pathlib.Path) -> t.Iterator[Service]:
    with contextlib.ExitStack() as stack:
        yield Service(systemd, call, write_program(tmp_path / "bin" / "prometheus"), stack)


def test_a_service_that_runs_what_is_on_disk_is_left_alone(service: Service, state_dir: pathlib.Path) -> None:
    result = service.restart()
    facts = {"state": "active/running", "main_pid": service.pid, "n_restarts": 2}
    nothing = {"restarted_at": None, "seconds": 0.0, "killed": False, "daemon_reload": False, "restored_unit": None}
    assert result == {"changed": False, "before": facts, "after": facts, "strategy": None, "reason": None, **nothing}
    assert service.systemd.commands("systemctl", "restart") == []
    assert not state_dir.exists()


def test_a_service_whose_program_was_replaced_is_restarted_once(service: Service) -> None:
    service.replace()
    old, begun = service.pid, time.time()
    result = service.restart()
    assert result["changed"] is True
    assert result["before"] == {"state": "active/running", "main_pid": old, "n_restarts": 2}
    assert result["after"] == {"state": "active/running", "main_pid": service.pid, "n_restarts": 0}
    assert result["diff"] == {"before": result["before"], "after": {**result["before"], "runs": str(service.program)}}
    assert begun <= result["restarted_at"] <= time.time()
    assert service.restart()["changed"] is False
    assert service.systemd.commands("systemctl", "restart") == [["systemctl", "restart", "--", UNIT]]


def test_a_service_that_does_not_run_is_started(service: Service) -> None:
    service.systemd.add(UNIT, str(service.program))
    result = service.restart()
    assert result["changed"] is True
    assert (result["before"]["state"], result["after"]["state"]) == ("inactive/dead", "active/running")


def test_check_mode_says_so_and_does_nothing(service: Service, tmp_path: pathlib.Path, state_dir: pathlib.Path) -> None:
    service.replace()
    before, pid = snapshot(tmp_path / "bin", state_dir), service.pid
    result = service.restart(check=True, run=RUN)
    assert result["changed"] is True
    assert result["after"] == result["before"]
    assert result["restarted_at"] is None
    assert result["diff"]["after"]["runs"] == str(service.program)
    assert snapshot(tmp_path / "bin", state_dir) == before
    assert (service.pid, service.systemd.commands("systemctl", "restart")) == (pid, [])


def test_force_restarts_what_runs_well(service: Service) -> None:
    old = service.pid
    result = service.restart(force=True)
    assert (result["changed"], result["before"]["main_pid"]) == (True, old)
    assert result["after"]["main_pid"] == service.pid != old


@pytest.mark.parametrize("reload_units", [True, False])
def test_unit_files_are_read_anew_before_the_restart_when_told(service: Service, reload_units: bool) -> None:
    service.restart(force=True, reload_units=reload_units)
    verbs = [argv[1] for argv in service.systemd.asked if argv[0] == "systemctl" and argv[1] != "show"]
    assert verbs == ["reset-failed", *(["daemon-reload"] if reload_units else []), "restart"]


def test_unit_files_that_systemd_has_not_read_are_read_first(service: Service) -> None:
    service.systemd.look(UNIT)["NeedDaemonReload"] = "yes"
    for check in (True, False):
        assert service.restart(force=True, check=check)["daemon_reload"] is True
    assert service.systemd.commands("systemctl", "daemon-reload") == [["systemctl", "daemon-reload"]]


@pytest.mark.parametrize(
    ("unit", "options", "told"),
    [
        ({"CanReload": "yes"}, {}, ["systemctl", "reload", "--", UNIT]),
        ({"CanReload": "yes"}, {"reload_signal": True}, ["systemctl", "reload", "--", UNIT]),
        ({}, {"reload_signal": True}, ["systemctl", "kill", "--kill-who=main", "--signal=SIGHUP", "--", UNIT]),
    ],
)
def test_a_reload_is_no_restart(service: Service, unit: Data, options: Data, told: list[str]) -> None:
    service.systemd.look(UNIT).update(unit)
    pid = service.pid
    assert service.restart(strategy="reload", check=True, **options)["strategy"] == "reload"
    assert service.systemd.commands(*told) == []
    result = service.restart(strategy="reload", **options)
    assert (result["changed"], result["strategy"], result["reason"]) == (True, "reload", None)
    assert (result["after"]["main_pid"], result["restarted_at"] is not None) == (pid, True)
    assert service.systemd.commands(*told) == [told]
    assert service.systemd.commands("systemctl", "restart") == []


def test_where_a_reload_is_not_enough_it_is_restarted_and_told_why(service: Service) -> None:
    service.systemd.look(UNIT)["CanReload"] = "yes"
    service.replace()
    result = service.restart(strategy="reload")
    assert (result["strategy"], result["reason"]) == ("graceful", "its process doesn't run the file on disk")
    assert service.systemd.commands("systemctl", "reload") == []
    assert len(service.systemd.commands("systemctl", "restart")) == 1


def test_a_service_that_a_reload_ends_is_started_again(service: Service) -> None:
    service.systemd.on_kill = lambda unit: service.systemd.add(UNIT, str(service.program), active="failed")
    result = service.restart(strategy="reload", reload_signal=True)
    assert (result["strategy"], result["reason"]) == (
        "graceful",
        "it ended when it was told to read its configuration anew",
    )
    assert result["after"]["state"] == "active/running"


def test_a_service_that_systemd_has_started_again_after_a_reload_is_not_restarted(service: Service) -> None:
    service.systemd.on_kill = lambda unit: service.start(restarts=3)
    old = service.pid
    result = service.restart(strategy="reload", reload_signal=True)
    assert (result["after"]["main_pid"] != old, result["reason"] is not None) == (True, True)
    assert service.systemd.commands("systemctl", "restart") == []


def test_a_reload_that_fails_leaves_the_service_alone(service: Service) -> None:
    service.systemd.look(UNIT)["CanReload"] = "yes"
    service.systemd.on_reload = lambda unit: Completed(1, "", "Job for prometheus.service failed.\n")
    result = service.restart(strategy="reload")
    assert (result["failed"], result["key"]) == (True, "service.reload_failed")
    assert result["msg"].endswith("couldn't read its configuration anew: Job for prometheus.service failed.")
    assert service.systemd.commands("systemctl", "restart") == []


@pytest.mark.parametrize("strategy", ["graceful", "fast"])
def test_a_service_that_does_not_stop_is_killed_within_one_job(service: Service, strategy: str) -> None:
    def restart(unit: str) -> Completed:
        service.systemd.look(UNIT)["ActiveState"] = "deactivating"
        return Completed(None, "", "systemctl: no answer within 10 s, killed")

    service.systemd.on_restart = restart
    service.systemd.on_kill = lambda unit: service.start(restarts=0)
    old = service.pid
    result = service.restart(force=True, strategy=strategy)
    assert (result["killed"], result["strategy"], result["after"]["main_pid"] != old) == (True, strategy, True)
    assert "didn't stop in its time and was killed" in message_of(result["warnings"][0])
    verbs = [argv[1] for argv in service.systemd.asked if argv[0] == "systemctl" and argv[1] != "show"]
    assert verbs == ["reset-failed", "restart", "kill", "start"]


def test_a_service_that_starts_slowly_is_not_killed(service: Service) -> None:
    def restart(unit: str) -> Completed:
        service.systemd.look(UNIT)["ActiveState"] = "activating"
        return Completed(None, "", "systemctl: no answer within 10 s, killed")

    service.systemd.on_restart = restart
    assert service.restart(force=True)["killed"] is False
    assert service.systemd.commands("systemctl", "kill") == []


def test_the_lease_outlasts_the_unit_s_own_stop_time_out(service: Service, state_dir: pathlib.Path) -> None:
    begun = time.time()
    with _store.session(str(state_dir), run=RUN, acquire=True):
        pass
    meanwhile: list[Data] = []

    def restart(unit: str) -> Completed:
        meanwhile.append(_store.read_lease(str(state_dir)))
        return Completed(0, "", "")

    service.systemd.on_restart = restart
    service.restart(force=True, run=RUN)
    assert [lease["expires"] >= begun + 600 + 120 + 900 for lease in meanwhile] == [True]
    after = _store.read_lease(str(state_dir))
    assert (after["upgrade_id"], after["expires"] < begun + 600 + 900) == ("u1", True)


def test_a_unit_that_is_not_there_is_refused(call: Call, state_dir: pathlib.Path) -> None:
    result = call(service_restart, unit="prometheus", binary="/opt/prometheus")
    assert (result["failed"], result["key"]) == (True, "service.unknown_unit")
    assert (
        result["msg"] == "there is no unit prometheus.service on this host (not-found): set units in upgrade_overrides"
    )
    assert not state_dir.exists()


def test_a_restart_that_fails_tells_why_with_the_journal_and_without_secrets(service: Service) -> None:
    service.replace()
    service.systemd.on_restart = lambda unit: Completed(1, "", "Job for prometheus.service failed.\n")
    service.systemd.journal[UNIT] = ["loading", "can't write to http://ops:geheim@remote/"]
    result = service.restart()
    assert (result["failed"], result["key"]) == (True, "service.restart_failed")
    assert result["msg"] == "systemd couldn't restart prometheus.service: Job for prometheus.service failed."
    assert result["journal"] == [f"{UNIT}: loading", f"{UNIT}: can't write to http://ops:********@remote/"]
    assert "geheim" not in json.dumps(result)


@pytest.mark.parametrize(("check", "key"), [(True, "lock.held"), (False, "lock.lost")])
def test_a_host_of_another_run_is_left_alone(service: Service, state_dir: pathlib.Path, check: bool, key: str) -> None:
    with _store.session(str(state_dir), run=OTHER_RUN, acquire=True):
        pass
    result = service.restart(force=True, run=RUN, check=check)
    assert (result["failed"], result["key"]) == (True, key)
    assert "eve on c2" in result["msg"]
    assert service.systemd.commands("systemctl", "restart") == []


def test_what_ran_is_started_again_when_a_step_is_undone(
    service: Service, state_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loaded_unit, "_DIRECTORY", str(tmp_path / "run"))
    with _store.session(str(state_dir), run=RUN, acquire=True) as session:
        unit = {**_loaded_unit.read(service.systemd, UNIT)}
        unit["properties"] = {**unit["properties"], "User": "before"}
        _restore_point.create(
            session, backup_id="u1.p", component="prometheus", version="1.0.0", files=[], loaded_units=[unit]
        )
    service.replace()
    result = service.restart(restore_point="u1.p", run=RUN)
    path = tmp_path / "run" / f"{UNIT}.d" / _loaded_unit.DROP_IN
    assert "User=before\n" in path.read_text()
    assert "(User)" in result["restored_unit"]
    assert str(path) in result["restored_unit"]
    assert any(str(path) in message_of(warning) for warning in result["warnings"])
    assert result["after"]["main_pid"] == service.pid


def test_a_unit_that_changed_on_disk_is_not_restarted_unless_that_is_meant(service: Service) -> None:
    service.systemd.add(UNIT, str(service.program), pid=service.pid, NeedDaemonReload="yes")
    (service.systemd.directory / UNIT).write_text(f"[Service]\nExecStart={service.program} --not-there\n")
    result = service.restart(force=True, activate_changes=False)
    assert (result["failed"], result["key"]) == (True, "service.unit_changed")
    assert "A restart would activate it: ExecStart: loaded (none), on disk --not-there" in result["msg"]
    assert service.systemd.commands("systemctl", "restart") == []
    assert service.restart(force=True)["daemon_reload"] is True


# -- several units that run one file ----------------------------------------------------------------------------------

OTHER_UNIT = "federate@a.service"


def share(service: Service) -> Data:
    """Let another unit run the same file; the option for it."""
    pid = int(service.systemd.look(UNIT)["MainPID"])
    service.systemd.add(OTHER_UNIT, str(service.program), pid=pid, TimeoutStopUSec="1min")
    return {"unit": OTHER_UNIT, "binary": str(service.program)}


def test_units_that_run_one_file_are_restarted_in_order(service: Service) -> None:
    also = [share(service)]
    service.replace()
    service.systemd.on_restart = lambda unit: Completed(0, "", "")
    result = service.restart(also=also)
    assert [argv[-1] for argv in service.systemd.commands("systemctl", "restart")] == [UNIT, OTHER_UNIT]
    assert (result["changed"], [each["unit"] for each in result["others"]]) == (True, [OTHER_UNIT])


def test_a_unit_that_runs_what_is_on_disk_already_is_left_alone(service: Service) -> None:
    service.replace()
    service.start(restarts=0)
    old = service.systemd.look(UNIT)
    also = [share(service)]
    service.systemd.units[OTHER_UNIT] = {**service.systemd.look(OTHER_UNIT), "MainPID": 1}
    service.systemd.on_restart = lambda unit: Completed(0, "", "")
    service.restart(also=also)
    assert [argv[-1] for argv in service.systemd.commands("systemctl", "restart")] == [OTHER_UNIT]
    assert service.systemd.look(UNIT) == old


def test_a_unit_that_can_not_be_restarted_does_not_keep_the_others_from_it(service: Service) -> None:
    also = [share(service)]
    service.replace()
    service.systemd.on_restart = lambda unit: Completed(int(unit == UNIT), "", "Job failed.")
    service.systemd.journal[UNIT] = ["loading"]
    result = service.restart(also=also)
    assert (result["failed"], result["key"]) == (True, "service.restart_failed")
    assert f"couldn't restart {UNIT}" in result["msg"]
    assert [argv[-1] for argv in service.systemd.commands("systemctl", "restart")] == [UNIT, OTHER_UNIT]
    service.systemd.on_restart = lambda unit: Completed(1, "", "Job failed.")
    result = service.restart(also=also)
    assert f"couldn't restart {OTHER_UNIT}" in result["msg"]


def test_no_unit_is_restarted_where_one_of_them_is_not_there(service: Service) -> None:
    service.replace()
    result = service.restart(also=[{"unit": "gone.service", "binary": str(service.program)}])
    assert (result["failed"], result["key"]) == (True, "service.unknown_unit")
    assert service.systemd.commands("systemctl", "restart") == []


def test_the_lease_lasts_for_all_units(service: Service, state_dir: pathlib.Path) -> None:
    also = [share(service)]
    with _store.session(str(state_dir), run=RUN, acquire=True):
        pass
    meanwhile: list[Data] = []

    def restart(unit: str) -> Completed:
        meanwhile.append(_store.read_lease(str(state_dir)))
        return Completed(0, "", "")

    service.systemd.on_restart = restart
    begun = time.time()
    service.restart(force=True, run=RUN, also=also)
    assert all(lease["expires"] >= begun + 600 + 120 + 60 + 120 + 900 - 1 for lease in meanwhile)
