# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._verdicts import NOT_CONFIGURED
from ansible_collections.observability.stack.plugins.plugin_utils import _outcome, _report
from ansible_collections.observability.stack.tests.unit.surveys import Data, facts, survey


def test_a_table_is_as_wide_as_its_cells_and_no_line_ends_in_spaces() -> None:
    lines = _report.table(("A", "LONGER"), [("wide cell", None), (1, "x")])
    assert lines == ["A          LONGER", "wide cell  -", "1          x"]


def test_a_table_of_nothing_is_its_header() -> None:
    assert _report.table(("A", "B"), []) == ["A  B"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [([], ""), (["a"], "a"), (["a", "b", "c"], "a, b, c"), (["a", "b", "c", "d", "e"], "a, b, c, +2 more")],
)
def test_a_long_list_of_hosts_is_cut(names: list[str], shown: str) -> None:
    assert _report.hosts(names) == shown


# -- the state of hosts -------------------------------------------------------------------------------------------


def status(
    record: Data | None = None,
    upgrade: Data | None = None,
    lease: Data | None = None,
    stale_lease: Data | None = None,
    **changes: t.Any,
) -> list[str]:
    found = survey({"loki": facts("loki", "2.9.1", **changes)})
    if record is not None or upgrade is not None:
        found["state"] = {"upgrade": upgrade or {"state": "IDLE"}, "components": {"loki": record} if record else {}}
    return _report.status({"h1": {**found, "lease": lease or {}, "stale_lease": stale_lease or {}}}).splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.mark.parametrize(
    ("record", "changes", "last"),
    [
        (None, {}, "-"),
        ({"state": "success", "to_version": "2.9.1", "attempts": 1}, {}, "success 2.9.1"),
        ({"state": "failed", "to_version": "3.0.0", "attempts": 3}, {}, "failed 3.0.0 (attempt 3)"),
        ({"state": "idle"}, {}, "idle"),
        ({"state": "success", "to_version": "2.9.1"}, {"restart_pending": True}, "restart pending"),
    ],
)
def test_a_component_s_last_step_is_told(record: Data | None, changes: Data, last: str) -> None:
    assert cells(status(record, **changes)[1]) == ["h1", "IDLE", "loki", "2.9.1", "2.9.1", last]


@pytest.mark.parametrize(
    ("upgrade", "lease", "shown"),
    [
        ({"state": "UPGRADING", "steps": {"a@1": "succeeded", "b@1": "pending"}}, {}, "UPGRADING 1/2"),
        ({"state": "COMPLETED", "steps": {"a@1": "succeeded"}}, {}, "COMPLETED"),
        ({"state": "PLANNING", "steps": {"a@1": "pending"}}, {"user": "ops"}, "PLANNING 0/1 (locked by ops)"),
    ],
)
def test_a_host_s_upgrade_is_told(upgrade: Data, lease: Data, shown: str) -> None:
    assert cells(status(upgrade=upgrade, lease=lease)[1])[1] == shown


def test_a_lock_that_was_left_behind_is_told() -> None:
    lines = status(upgrade={"state": "UPGRADING", "steps": {"a@1": "pending"}}, stale_lease={"user": "ops"})
    assert cells(lines[1])[1] == "UPGRADING 0/1 (stale lock of ops)"


@pytest.mark.parametrize(
    ("upgrade", "shown"),
    [
        (
            {
                "state": "UPGRADING",
                "steps": {"a@1": "succeeded", "b@1": "pending"},
                "phase": "metrics",
                "component": "b",
            },
            ["h1", "[##########----------] 50 %", "phase metrics, b"],
        ),
        ({"state": "PLANNING", "steps": {"a@1": "pending"}}, ["h1", "[--------------------] 0 %"]),
        ({"state": "VALIDATING", "steps": {"a@1": "failed"}}, ["h1", "[####################] 100 %"]),
        ({"state": "PLANNING"}, ["h1", "[--------------------] 0 %"]),
    ],
)
def test_how_far_an_upgrade_has_come_is_seen(upgrade: Data, shown: list[str]) -> None:
    lines = status(upgrade=upgrade)
    assert cells(lines[3]) == ["HOST", "PROGRESS", "AT"]
    assert cells(lines[4]) == shown


@pytest.mark.parametrize("state", ["IDLE", "COMPLETED", "FAILED", "ROLLED_BACK"])
def test_an_upgrade_that_has_ended_has_no_progress(state: str) -> None:
    assert len(status(upgrade={"state": state, "steps": {"a@1": "pending"}})) == 2


@pytest.mark.parametrize(("percent", "full"), [(0, 0), (4, 0), (5, 1), (45, 9), (99, 19), (100, 20)])
def test_a_bar_is_full_only_at_the_end(percent: int, full: int) -> None:
    assert _report.progress_bar(percent) == f"[{'#' * full}{'-' * (20 - full)}] {percent} %"


def test_locks_are_told_with_whom_they_were_taken_from() -> None:
    run = {"upgrade_id": "u1", "user": "ops", "controller": "c1"}
    results = {
        "h1": {"changed": True, "taken_from": run},
        "h2": {"changed": False, "taken_from": None},
    }
    assert [cells(line) for line in _report.locks(results).splitlines()] == [
        ["HOST", "LOCK", "OF UPGRADE", "USER", "CONTROLLER"],
        ["h1", "released", "u1", "ops", "c1"],
        ["h2", "free", "-", "-", "-"],
    ]


def test_what_is_wrong_with_records_is_told_by_host() -> None:
    results = {"h1": {"problems": ["one", "two"]}, "h2": {"problems": []}, "h3": {}}
    assert _report.record_problems(results) == ["h1: one", "h1: two"]


def test_a_host_is_named_once_and_what_is_only_on_record_is_shown_too() -> None:
    found = survey(
        {"loki": facts("loki", "2.9.1"), "grafana": facts("grafana", None)},
        records={
            "promtail": {"state": "failed", "to_version": "3.0.0", "last_error": "boom\nmore", "outcome": "aborted"}
        },
    )
    lines = _report.status({"h1": found, "h2": survey({})}).splitlines()
    assert [cells(line) for line in lines[1:4]] == [
        ["h1", "IDLE", "loki", "2.9.1", "2.9.1", "-"],
        ["promtail", "-", "-", "failed 3.0.0"],
        ["h2", "IDLE", "-", "-", "-", "-"],
    ]
    assert lines[4:] == ["", "h1 promtail: aborted", "  boom"]


# -- what was done ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "error", "journal"),
    [
        ({"msg": " no room\n"}, "no room", []),
        ({}, "no message", []),
        ({"msg": "x", "journal": ["a"]}, "x", ["a"]),
        ({"msg": "x", "services": [{"journal": ["b"]}], "journal": ["a"]}, "x", ["b"]),
        ({"msg": "x", "services": [], "journal": None}, "x", []),
    ],
)
def test_a_failure_is_noted_with_what_the_service_said(result: Data, error: str, journal: list[str]) -> None:
    noted = _report.failure({"component": "loki", "from": "2.9.1", "to": "3.0.0"}, "Swap", result)
    assert (noted["error"], noted["journal"]) == (error, journal)
    assert (noted["component"], noted["from"], noted["to"], noted["task"]) == ("loki", "2.9.1", "3.0.0", "Swap")


@pytest.mark.parametrize(
    ("outcome", "changes", "lines"),
    [
        ("aborted", {}, ["h1: loki 3.0.0 aborted at 'Swap'.", "boom", "This step touched nothing."]),
        (
            "rolled_back",
            {"journal": ["panic"]},
            [
                "h1: loki 3.0.0 rolled back at 'Swap'.",
                "boom",
                "The journal's last lines:",
                "    panic",
                "2.9.1 is back in place, and proven healthy.",
            ],
        ),
        (
            "failed",
            {"undo_error": "disk full"},
            [
                "h1: loki 3.0.0 failed at 'Swap'.",
                "boom",
                "It could not be undone: disk full. This host needs a person.",
            ],
        ),
    ],
)
def test_a_failure_tells_how_the_host_stands_now(outcome: str, changes: Data, lines: list[str]) -> None:
    noted = {"component": "loki", "from": "2.9.1", "to": "3.0.0", "task": "Swap", "error": "boom", "journal": []}
    assert _report.failures([{**noted, **changes, "outcome": outcome}], "h1").splitlines() == lines


NOTED = {"component": "loki", "from": "2.9.1", "to": "3.0.0", "task": "Confirm", "error": "boom", "journal": []}
WATCHDOG = "nobody has confirmed it within 3 s. The host has undone it by itself"


def closed_by_host(**changes: t.Any) -> Data:
    """What a host records whose rollback watchdog has undone a step and closed the upgrade."""
    upgrade = {"upgrade_id": "u1", "state": "ROLLED_BACK", "steps": {"loki@3.0.0": "rolled_back"}}
    component = {"state": "rolled_back", "last_error": WATCHDOG}
    return {"document": {"upgrade": {**upgrade, **changes}, "components": {"loki": component}}}


def test_a_step_that_the_host_has_undone_by_itself_is_told_so() -> None:
    ended = _report.undo_failure(NOTED, closed_by_host(), "u1", "u1 has lost the host")
    assert (ended["outcome"], ended["by_host"]) == ("rolled_back", True)
    assert _report.failures([ended], "h1").splitlines() == [
        "h1: loki 3.0.0 rolled back at 'Confirm'.",
        "boom",
        f"The rollback watchdog: {WATCHDOG}.",
        "This step was undone by the host itself. 2.9.1 is back in place, and proven healthy.",
    ]


@pytest.mark.parametrize(
    ("record", "outcome", "by_host", "says"),
    [
        (closed_by_host(steps={"loki@3.0.0": "failed"}, state="FAILED"), "failed", True, WATCHDOG),
        (closed_by_host(steps={"loki@3.0.0": "pending"}, state="FAILED"), "aborted", True, "touched nothing"),
        (closed_by_host(upgrade_id="u2"), "failed", False, "u1 has lost the host"),
        (closed_by_host(state="ROLLING_BACK"), "failed", False, "u1 has lost the host"),
        (closed_by_host(steps={}), "failed", False, "u1 has lost the host"),
        ({"failed": True, "msg": "unreachable"}, "failed", False, "u1 has lost the host"),
    ],
    ids=["failed there", "never begun", "another run", "under way", "another step", "unknown"],
)
def test_of_a_step_that_could_not_be_undone_only_the_hosts_word_on_it_counts(
    record: Data, outcome: str, by_host: bool, says: str
) -> None:
    ended = _report.undo_failure(NOTED, record, "u1", "u1 has lost the host")
    assert (ended["outcome"], ended["by_host"]) == (outcome, by_host)
    assert says in _report.failures([ended], "h1")


def test_what_is_no_steps_failure_is_told_without_more() -> None:
    """An upgrade that can't be begun or closed: what became of its steps isn't known here."""
    noted = _report.failure({}, "Begin", {"msg": "ops has the host"})
    assert _report.failures([noted], "h1").splitlines() == ["h1: the upgrade failed at 'Begin'.", "ops has the host"]


# -- what can't begin ---------------------------------------------------------------------------------------------

STEPS = [{"component": name, "from": "1", "to": "2"} for name in ("loki", "promtail")]
BLOCKED = {"component": "loki", "severity": "blocker", "message": "loki isn't healthy", "fix": "see its journal"}


def test_a_component_that_can_not_begin_leaves_the_others_alone() -> None:
    findings = [{**BLOCKED, "severity": "warning", "component": "promtail"}, BLOCKED, {**BLOCKED, "message": "other"}]
    (failure,) = _report.unready(STEPS, "Look", {"msg": "x", "findings": findings})
    assert (failure["component"], failure["to"], failure["outcome"]) == ("loki", "2", "aborted")
    assert failure["error"] == "loki isn't healthy. see its journal"
    assert "This step touched nothing." in _report.failures([failure], "h1")


@pytest.mark.parametrize("findings", [None, [], [BLOCKED, {**BLOCKED, "component": None}]])
def test_a_host_that_can_not_begin_has_one_failure(findings: t.Any) -> None:
    (failure,) = _report.unready(STEPS, "Look", {"msg": "no room", "findings": findings})
    assert (failure["component"], failure["error"]) == (None, "no room")


FORGED = "1.5.0\nhost9  IDLE  all is well\x1b]52;c;ZXZpbA==\x07"
ESCAPED = "1.5.0\\nhost9  IDLE  all is well\\x1b]52;c;ZXZpbA==\\x07"


def test_a_cell_cannot_forge_a_row_and_is_cut() -> None:
    assert _report.table(("A",), [(FORGED,)]) == ["A", ESCAPED]
    assert _report.table(("A",), [("x" * 50_000_000,)])[1] == "x" * 200 + "... (50000000 characters)"


def test_what_a_service_says_of_itself_is_escaped_line_by_line() -> None:
    service = {"component": "loki", "healthy": False, "reason": FORGED, "verdicts": [], "journal": [FORGED, "b\u202e"]}
    told = f"web1: loki isn't healthy: {ESCAPED}\n    b\\u202e"
    assert _report.sick({"web1": [service]}) == [told]
    assert _report.record_problems({"web1": {"problems": [FORGED]}}) == [f"web1: {ESCAPED}"]


def test_a_failure_has_the_journal_escaped_and_its_error_cut() -> None:
    failure = _report.failure({}, "task", {"msg": "\x9b" * 100_000, "services": [{"journal": [FORGED]}]})
    assert failure["journal"] == [ESCAPED]
    assert failure["error"].isprintable()
    assert len(failure["error"]) < 20_000


def test_a_status_tells_what_cannot_be_upgraded_and_why() -> None:
    obstacle = {"key": "other_program", "reason": "node_exporter.service runs /usr/bin/x", "fix": "name its program"}
    found = {"installed": False, "unit": "node_exporter.service", "version": None, "running": None}
    survey = {"components": {"node_exporter": {**found, "not_upgradable": obstacle}}, "state": None}
    lines = _report.status({"h1": survey}).splitlines()
    assert lines[1].split() == ["h1", "IDLE", "node_exporter", "-", "-", "not", "upgradable"]
    assert lines[2:] == [
        "",
        "h1 node_exporter: not upgradable (other program)",
        "  node_exporter.service runs /usr/bin/x",
        "  -> name its program",
    ]


def unhealthy(component: str = "loki", journal: t.Sequence[str] = (), **changes: t.Any) -> t.Any:
    verdict = {"probe": "http", "ok": False, "seen": "answered 500", "wanted": "200"}
    service = {
        "component": component,
        "healthy": False,
        "reason": "it broke",
        "verdicts": [verdict],
        "journal": journal,
    }
    return {**service, **changes}


def test_only_the_lines_of_a_journal_that_tell_of_an_error_are_shown_and_few() -> None:
    journal = [f'level=info msg="request {number}"' for number in range(9)]
    journal += [f"level=error err={'x' * 9000} {number}" for number in range(7)]
    (told,) = _report.sick({"web1": [unhealthy(journal=journal)]})
    lines = told.splitlines()
    assert (len(lines), max(map(len, lines)) < 220, "level=info" in told) == (6, True, False)
    (told,) = _report.sick({"web1": [unhealthy(journal=journal[:9])]})
    assert told.splitlines()[1:] == ['    level=info msg="request 8"']


def test_an_integration_check_that_fails_shows_no_journal() -> None:
    (told,) = _report.sick({"web1": [unhealthy("prometheus -> alertmanager", ["level=error err=other"])]})
    assert told == "web1: prometheus -> alertmanager isn't healthy: it broke"


def test_the_table_of_health_keeps_to_the_terminal_and_names_links_that_are_not_configured() -> None:
    many = [
        {"probe": f"a long name of a probe {number}", "ok": True, "seen": "x", "wanted": "y"} for number in range(9)
    ]
    absent = {"probe": "has one", "ok": False, "seen": f"{NOT_CONFIGURED}: m isn't there", "wanted": "y"}
    healthy = [
        unhealthy("prometheus", healthy=True, verdicts=many),
        unhealthy("prometheus -> alertmanager", verdicts=[many[0], absent]),
    ]
    text = _report.health({"monitoring-host-1.example": healthy})
    assert max(map(len, text.splitlines())) <= _report.WIDTH
    assert "prometheus -> alertmanager  not configured\n    a long name" in text
    assert "has one" not in text
    assert _report.sick({"h": healthy}) == []
    verified = _outcome.verify({"services": {"h": healthy}, "states": {"h": {"problems": []}}})
    assert (verified["failed_hosts"], verified["unhealthy"]) == ([], {})
    other = {**absent, "seen": "answered 500"}
    for service in (unhealthy("grafana -> loki", verdicts=[absent, other]), unhealthy("grafana", verdicts=[absent])):
        assert len(_report.sick({"h": [service]})) == 1


def of_run(check: bool = False, alive: t.Sequence[str] = ("h1", "h2", "h3", "h4", "h5")) -> t.Any:
    """A run of six hosts, each of which ended in another way."""
    plan = {"kind": "upgrade", "digest": "d" * 64, "hosts": {key: {} for key in ("h1", "h2", "h3", "h4", "h5", "h6")}}
    done = {"document": {"upgrade": {"steps": {"loki@2": "succeeded"}}, "components": {}}}
    failed = {"component": "loki", "to": "2", "outcome": "rolled_back", "error": "it broke"}
    hosts = [
        {"inventory_hostname": "h1", "__upgrade_closed": done, "__upgrade_failures": []},
        {"inventory_hostname": "h2", "__upgrade_closed": {}, "__upgrade_failures": [failed]},
        {"inventory_hostname": "h3", "__upgrade_held": True},
        {"inventory_hostname": "h4"},
        {"inventory_hostname": "h5", "__upgrade_failures": [{"component": None, "error": "no", "stopped": True}]},
        {"inventory_hostname": "h6", "__upgrade_unasked": [{"upgrade_id": "u1", "message": "not asked"}]},
        {"inventory_hostname": "bystander", "__upgrade_unasked": [{"upgrade_id": "u0", "message": "earlier"}]},
    ]
    return _outcome.of_run(hosts, plan, alive, "u1", check)


def test_the_outcome_of_a_run_is_that_of_each_of_its_hosts() -> None:
    outcome = of_run()["outcome"]
    assert {host: each["state"] for host, each in outcome["hosts"].items()} == {
        "h1": "succeeded",
        "h2": "failed",
        "h3": "waiting",
        "h4": "not_begun",
        "h5": "declined",
        "h6": "lost",
    }
    assert outcome["failed_hosts"] == ["h2", "h6"]
    assert outcome["counts"]["hosts"] == 6
    assert {name: outcome["counts"][name] for name in _outcome.STATES} == dict.fromkeys(_outcome.STATES, 1)
    assert outcome["counts"]["steps"] == {"succeeded": 1, "rolled_back": 1, "aborted": 0, "failed": 0, "pending": 0}
    assert outcome["hosts"]["h2"] == {"state": "failed", "steps": {"loki@2": "rolled_back"}, "errors": ["it broke"]}


def test_what_was_done_is_shown_with_the_hosts_that_were_not_and_what_was_not_asked() -> None:
    assert _report.outcome(of_run()).splitlines() == [
        "HOST  COMPONENT  VERSION  OUTCOME",
        "h1    loki       2        succeeded",
        "h2    loki       2        rolled_back",
        "",
        "h6 cannot be reached any more. Run the same command again when it can: it",
        "finishes what was begun.",
        "",
        "The maintenance window has closed on h3 meanwhile: the next run goes on there.",
        "",
        "Not begun, because the run stopped before: h4.",
        "",
        "Candidates were not checked in full:",
        "  h6: not asked.",
    ]
