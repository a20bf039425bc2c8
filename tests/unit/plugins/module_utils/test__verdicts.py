# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._probes import judge

if t.TYPE_CHECKING:
    from ansible_collections.observability.stack.plugins.module_utils._verdicts import Verdict

Data = dict[str, t.Any]
TARGET = {"unit": "a.service", "binary": "/usr/bin/a", "url": "http://h", "version": "1.9.0"}
UNIT = {"active": "active", "sub": "running", "result": "success", "main_pid": 10, "n_restarts": 0}
METRIC = {"path": "/m", "metric": "up"}
WRITE = {"path": "/w", "method": "POST"}
PAGE = {"status": 200, "error": ""}
SAMPLES = {**PAGE, "count": 79, "families": ["a"]}
EACH = {"path": "/s", "where": {"type": "loki"}, "each": "/{uid}", "json": {"status": "OK"}}


def judged(kind: str, fields: Data, seen: Data, before: Data | None = None, **target: t.Any) -> Verdict:
    return judge({"kind": kind, **fields}, {**TARGET, **target}, seen, before)


@pytest.mark.parametrize(
    ("kind", "fields", "seen", "ok", "says"),
    [
        ("systemd", {}, UNIT, True, "a.service is active/running; wanted: active, with a main process"),
        ("systemd", {}, {**UNIT, "main_pid": 0}, False, "active/running"),
        (
            "systemd",
            {},
            {**UNIT, "active": "activating", "sub": "auto-restart", "result": "exit-code", "n_restarts": 2},
            False,
            "a.service is activating/auto-restart (exit-code), restarted 2 times by systemd",
        ),
        ("process", {}, {"main_pid": 10, "runs_binary": True}, True, "process 10 runs it"),
        (
            "process",
            {},
            {"main_pid": 10, "runs_binary": False, "runs": "/usr/bin/a (deleted)"},
            False,
            "process 10 runs /usr/bin/a (deleted); wanted: the file that is at",
        ),
        (
            "process",
            {},
            {"main_pid": 10, "runs_binary": False, "runs": None},
            False,
            "runs another file; wanted: the file that is at",
        ),
        (
            "http",
            {"path": "/r"},
            {**PAGE, "text": True, "json": {}},
            True,
            "http://h/r answered 200; wanted: status 200",
        ),
        (
            "http",
            {"path": "/r", "status": [200, 401]},
            {"status": None, "error": "refused"},
            False,
            "http://h/r didn't answer (refused); wanted: status 200 or 401",
        ),
        (
            "http",
            {"path": "/r", "text": "ready"},
            {**PAGE, "text": False, "json": {}},
            False,
            "http://h/r answered 200 without the text; wanted: status 200, with the text 'ready'",
        ),
        (
            "http",
            {"path": "/h", "json": {"database": "ok", "n": 1}},
            {**PAGE, "text": True, "json": {"database": {"value": "failing"}}},
            False,
            "http://h/h answered 200, database is failing, n is nothing; wanted: status 200, database ok, n 1",
        ),
        (
            "http",
            {"path": "/h", "json": {"a": "true"}},
            {**PAGE, "text": True, "json": {"a": {"value": True}}},
            True,
            "",
        ),
        ("tcp", {}, {"address": "h:1", "error": ""}, True, "h:1 takes a connection"),
        ("unix", {"socket": "/s"}, {"address": "/s", "error": "refuses (gone)"}, False, "unix: /s refuses (gone)"),
        ("metric", METRIC, {**PAGE, "value": 0.0}, True, "up is 0; wanted: it to be there"),
        ("metric", {**METRIC, "min": 1}, {**PAGE, "value": 0.0}, False, "up is 0; wanted: at least 1"),
        ("metric", {**METRIC, "min": 0, "max": 2}, {**PAGE, "value": 3.0}, False, "wanted: at least 0 and at most 2"),
        ("metric", {**METRIC, "labels": {"a": "b"}}, {**PAGE, "value": None}, False, 'up{a="b"} isn\'t there'),
        ("metric", METRIC, {"status": 404, "error": "", "value": None}, False, "http://h/m answered 404"),
        (
            "log",
            {"patterns": ["a", "b"]},
            {"error": "", "count": 0, "lines": []},
            True,
            "0 such lines; wanted: at most 0",
        ),
        ("log", {"patterns": ["a"]}, {"error": "", "count": 2, "lines": ["x", "y"]}, False, "2 such lines: x | y;"),
        ("log", {"patterns": ["a"], "most": 9}, {"error": "no journal", "count": 0, "lines": []}, False, "no journal"),
        (
            "promql",
            {"query": "up"},
            {"error": "", "results": 0, "value": None},
            True,
            "up gives nothing; wanted: an answer",
        ),
        (
            "promql",
            {"query": "up", "min": 1},
            {"error": "", "value": None},
            False,
            "up gives nothing; wanted: at least 1",
        ),
        ("promql", {"query": "up("}, {"error": "parse error"}, False, "promql: parse error"),
        ("command", {"argv": ["/x", "y"]}, {"rc": 2, "error": "bad", "text": True}, False, "/x ended with 2: bad"),
        ("command", {"argv": ["/x"]}, {"rc": None, "error": "/x: gone", "text": False}, False, "command: /x: gone;"),
        ("command", {"argv": ["/x"], "text": "a"}, {"rc": 0, "error": "", "text": False}, False, "0, without the text"),
        (
            "database",
            {"engine": "mysql"},
            {"error": "", "says": "11.4 greets"},
            True,
            "11.4 greets; wanted: mysql to answer",
        ),
        (
            "container",
            {"container": "c"},
            {"error": "", "status": "running", "health": "starting"},
            False,
            "c is running, its health check says starting",
        ),
        ("container", {"container": "c"}, {"error": "", "status": "running", "health": None}, True, ""),
        ("container", {"container": "c"}, {"error": "", "status": "exited", "health": None}, False, "c is exited"),
    ],
)
def test_a_verdict_says_what_was_seen_and_what_was_wanted(
    kind: str, fields: Data, seen: Data, ok: bool, says: str
) -> None:
    verdict = judged(kind, fields, seen)
    assert (verdict.ok, says in str(verdict)) == (ok, True), str(verdict)


@pytest.mark.parametrize(
    ("kind", "fields", "before", "seen", "ok", "says"),
    [
        (
            "http_kept",
            WRITE,
            {"status": 400},
            {"status": 415, "error": ""},
            True,
            "answered 415; wanted: an answer like 400",
        ),
        (
            "http_kept",
            WRITE,
            {"status": 400},
            {"status": 404, "error": ""},
            False,
            "POST http://h/w answered 404; wanted",
        ),
        ("http_kept", WRITE, {"status": 404}, {"status": 404, "error": ""}, True, "an answer like 404 before"),
        ("http_kept", WRITE, {"status": 404}, {"status": 400, "error": ""}, False, "an answer like 404 before"),
        ("http_kept", WRITE, {"status": 422}, {"status": 200, "error": ""}, False, "answered 200; wanted"),
        ("http_kept", WRITE, {"status": 204}, {"status": None, "error": "refused"}, False, "didn't answer (refused)"),
        ("http_kept", WRITE, None, {"status": 404, "error": ""}, True, "nothing to compare with"),
        ("http_kept", WRITE, {"status": None}, {"status": 404, "error": ""}, True, "nothing to compare with"),
        ("metric_kept", METRIC, {"value": 4.0}, {**PAGE, "value": 4.0}, True, "at least 4, 100 % of 4 before"),
        ("metric_kept", METRIC, {"value": 1.0}, {**PAGE, "value": 0.0}, False, "up is 0; wanted: at least 1"),
        ("metric_kept", METRIC, {"value": 1.0}, {**PAGE, "value": None}, False, "up isn't there"),
        ("metric_kept", METRIC, None, {**PAGE, "value": None}, True, "up isn't there, nothing to compare with"),
        ("metric_kept", METRIC, {"value": None}, {**PAGE, "value": 0.0}, True, "nothing to compare with"),
        ("samples", {"path": "/m"}, {"count": 98, "families": ["a"]}, SAMPLES, True, "has 79 samples"),
        (
            "samples",
            {"path": "/m"},
            {"count": 100, "families": ["a", "b", "c"]},
            SAMPLES,
            False,
            "has 79 samples, and no longer b, c; wanted: at least 80 samples, 80 % of 100 before",
        ),
        (
            "samples",
            {"path": "/m", "least": 79},
            {"count": 12345678, "families": []},
            SAMPLES,
            False,
            "wanted: at least 9753086 samples, 79 % of 12345678 before",
        ),
        ("metric_kept", {**METRIC, "least": 50}, {"value": 0.5}, {**PAGE, "value": 0.2}, False, "0.25, 50 % of 0.5"),
        ("samples", {"path": "/m"}, {"count": 1}, {"status": 503, "error": ""}, False, "http://h/m answered 503"),
        (
            "json_kept",
            {"path": "/t", "items": "data.targets", "where": {"health": "up"}},
            {"count": 3},
            {**PAGE, "count": 2},
            False,
            "2 of data.targets with health up; wanted: at least 3, 100 % of 3 before",
        ),
        (
            "json_each",
            EACH,
            None,
            {**PAGE, "count": 2, "bad": []},
            True,
            "2 items with type loki; wanted: one at least",
        ),
        (
            "json_each",
            EACH,
            None,
            {**PAGE, "count": 0, "bad": []},
            False,
            "0 items with type loki; wanted: one at least",
        ),
        (
            "json_each",
            EACH,
            None,
            {**PAGE, "count": 2, "bad": ["/c: status is ERROR"]},
            False,
            "/c: status is ERROR; wan",
        ),
        ("json_each", EACH, None, {"status": 401, "error": ""}, False, "http://h/s answered 401"),
        (
            "promql",
            {"query": "q", "kept": True},
            {"value": 2.0},
            {"error": "", "value": 1.0},
            False,
            "at least 2 as before",
        ),
        ("promql", {"query": "q", "kept": True}, None, {"error": "", "value": 1.0}, True, "nothing to compare with"),
        ("promql", {"query": "q"}, {"error": "an agent"}, {"error": "an agent"}, True, "an agent, nor did it before"),
        ("promql", {"query": "q"}, {"error": ""}, {"error": "gone"}, False, "promql: gone"),
        (
            "rule_metrics",
            {},
            {"error": "", "used": ["a", "b", "rate"], "there": ["a", "b"]},
            {"error": "", "used": ["a", "b", "rate"], "there": ["a"]},
            False,
            "rules use b, gone now; wanted: all metrics that loaded rules use and that were there before",
        ),
        (
            "rule_metrics",
            {},
            {"error": "", "used": ["a", "b"], "there": ["a", "b"]},
            {"error": "", "used": ["a"], "there": ["a"]},
            True,
            "1 metrics that rules use are there",
        ),
        ("rule_metrics", {}, {"error": "no answer"}, {"error": "no answer"}, True, "nothing to compare with"),
        ("rule_metrics", {}, {"error": "", "there": []}, {"error": "no answer"}, False, "rule_metrics: no answer"),
        ("resources", {"rss_most": 150}, {"rss": 100}, {"rss": 151}, False, "rss is 151 % of its memory before"),
        ("resources", {"rss_most": 150}, None, {"rss": 151}, True, "nothing to compare with"),
        ("resources", {"fds_most": 50}, None, {"fds": 10, "fds_limit": 100}, True, "fds is 10 % of its limit"),
        ("resources", {"cpu_most": 50}, None, {"cpu": 0.6}, False, "cpu is 60 % of one CPU; wanted: cpu at most 50 %"),
        ("resources", {"cpu_most": 50}, None, {"error": "gone"}, False, "resources: gone"),
    ],
)
def test_what_compares_needs_something_from_before(
    kind: str, fields: Data, before: Data | None, seen: Data, ok: bool, says: str
) -> None:
    verdict = judged(kind, fields, seen, before)
    assert (verdict.ok, says in str(verdict)) == (ok, True), str(verdict)


BUILD_INFO = {"path": "/m", "metrics": [{"metric": "a_build_info", "label": "version"}]}


@pytest.mark.parametrize(
    ("wanted", "seen", "ok", "says"),
    [
        ("1.9.0", {**PAGE, "version": "1.9.0+ds"}, True, "the service calls itself 1.9.0+ds"),
        ("1.9.0", {**PAGE, "version": "1.8.9"}, False, "the service calls itself 1.8.9; wanted: version 1.9.0"),
        (None, {**PAGE, "version": "1.5.0"}, True, "wanted: a version"),
        (None, {**PAGE, "version": None}, False, "http://h/m has none of a_build_info"),
        ("1.9.0", {"status": 404, "error": "", "version": None}, False, "status 404"),
        ("1.9.0", {"status": None, "error": "refused", "version": None}, False, "build_info: refused"),
    ],
)
def test_build_info_without_a_wanted_version_takes_any(wanted: str | None, seen: Data, ok: bool, says: str) -> None:
    verdict = judged("build_info", BUILD_INFO, seen, version=wanted)
    assert (verdict.ok, says in str(verdict)) == (ok, True), str(verdict)


@pytest.mark.parametrize(
    ("seen", "auth", "ok", "says"),
    [
        ({"sent": 200, "found": True, "error": ""}, None, True, "what was sent came back"),
        ({"sent": 200, "found": False, "error": "not there"}, None, False, "round_trip: not there; wanted: what was"),
        (
            {"sent": 401, "found": False, "error": "x"},
            None,
            True,
            "asks for a login, and none is set: nothing was sent",
        ),
        ({"sent": 401, "found": False, "error": "answered 401"}, {"token_file": "/t"}, False, "answered 401"),
    ],
)
def test_nobody_is_held_to_a_round_trip_that_needs_a_login(seen: Data, auth: Data | None, ok: bool, says: str) -> None:
    fields = {"send": {"path": "/s", "body": "{}"}, "read": {"path": "/r"}, "text": "{id}"}
    verdict = judged("round_trip", fields, seen, auth=auth)
    assert (verdict.ok, says in str(verdict)) == (ok, True), str(verdict)
