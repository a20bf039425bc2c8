# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import socket
import time
import types
import typing as t
import urllib.parse

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _metrics, _observe_web, _systemd, _verdicts
from ansible_collections.observability.stack.plugins.module_utils._command import run
from ansible_collections.observability.stack.plugins.module_utils._observe import Scene, observe
from ansible_collections.observability.stack.tests.unit.support import Answer, Data, Systemd, Web

PAGE = b"""\
# TYPE up gauge
up{job="a"} 1
up{job="b"} 0
# TYPE latency histogram
latency_bucket{le="1"} 3
latency_count 3
latency_sum 0.5
odd{text="} 1"} NaN
"""


@pytest.fixture
def target(web: Web) -> Data:
    web.answers["/metrics"] = Answer(PAGE)
    return {"component": "a", "unit": "a", "binary": "/usr/bin/a", "url": web.url}


def scene(target: Data, systemd: Systemd | None = None, *, pid: int = os.getpid(), **options: t.Any) -> Scene:
    unit = _systemd.Unit("a.service", "loaded", "active", "running", "success", pid, 0, {})
    return Scene(systemd or run, target, unit, **{"sleep": lambda _seconds: None, **options})


def test_a_probe_that_cannot_be_meant_is_not_asked(target: Data, web: Web) -> None:
    assert observe(scene(target), {"kind": "http"}) == {"refused": "a probe of kind http needs path"}
    assert web.asked == []


def test_a_page_is_asked_for_once_a_look(target: Data, web: Web) -> None:
    look = scene(target)
    up = {"kind": "metric", "path": "/metrics", "metric": "up"}
    assert observe(look, {"kind": "samples", "path": "/metrics"}) == {
        "status": 200,
        "error": "",
        "count": 6,
        "families": ["latency", "odd", "up"],
    }
    assert observe(look, up)["value"] == 1
    assert observe(look, {**up, "labels": {"job": "b"}})["value"] == 0
    assert observe(look, {**up, "labels": {"job": "c"}})["value"] is None
    assert observe(look, {**up, "kind": "metric_kept", "metric": "odd"})["value"] is None
    assert web.asked == ["/metrics"]


def test_without_a_process_nobody_is_asked(target: Data, web: Web) -> None:
    seen = observe(scene(target, pid=0), {"kind": "http", "path": "/metrics"})
    assert (seen["status"], seen["error"], web.asked) == (None, "no process", [])


def test_what_is_posted_to_see_whether_it_is_served_is_empty(target: Data, web: Web) -> None:
    web.answers["/api/v1/write"] = Answer(b"snappy: corrupt input", status=400)
    seen = observe(scene(target), {"kind": "http_kept", "path": "/api/v1/write", "method": "POST"})
    assert (seen, web.posted) == ({"status": 400, "error": ""}, [""])
    assert observe(scene(target), {"kind": "http_kept", "path": "/metrics"})["status"] == 200


def test_a_method_must_be_one_that_changes_nothing(target: Data, web: Web) -> None:
    refused = observe(scene(target), {"kind": "http_kept", "path": "/metrics", "method": "DELETE"})
    assert refused == {"refused": "method of a probe of kind http_kept must be one of GET, POST"}
    assert web.asked == []


def test_text_and_values_of_json_are_looked_for(target: Data, web: Web) -> None:
    web.answers["/h"] = Answer(b'{"database": "ok", "list": [{"up": true}], "nothing": null}')
    probe = {"kind": "http", "path": "/h", "text": "ok", "json": {"list[0].up": True, "list.1.up": 1, "nothing": None}}
    seen = observe(scene(target), probe)
    assert (seen["text"], seen["json"]) == (True, {"list[0].up": {"value": True}, "nothing": {"value": None}})
    assert observe(scene(target), {"kind": "http", "path": "/metrics", "json": {"a": 1}})["json"] == {}


@pytest.mark.parametrize(
    ("auth", "login"),
    [
        ({"user": "u", "password_file": "{secret}"}, "Basic dTpnZWhlaW0="),
        ({"token_file": "{secret}"}, "Bearer geheim"),
        ({"user": "u", "password_file": None, "token_file": None}, None),
    ],
)
def test_a_login_is_read_from_a_file(
    target: Data, web: Web, tmp_path: pathlib.Path, auth: Data, login: str | None
) -> None:
    (tmp_path / "secret").write_text("geheim\n")
    auth = {name: value and value.format(secret=tmp_path / "secret") for name, value in auth.items()}
    seen = observe(scene({**target, "auth": auth}), {"kind": "http", "path": "/metrics"})
    assert (seen["status"], web.logins) == (200, [login])
    assert "geheim" not in json.dumps(seen)


def test_a_login_that_cannot_be_read_is_told(target: Data, web: Web, tmp_path: pathlib.Path) -> None:
    look = scene({**target, "auth": {"token_file": str(tmp_path / "gone")}})
    seen = observe(look, {"kind": "http", "path": "/metrics"})
    assert seen["error"] == f"the login can't be read from {tmp_path}/gone: No such file or directory"
    assert web.asked == []


@pytest.mark.parametrize(
    ("body", "where", "seen"),
    [
        (b'{"data": [{"health": "up"}, {"health": "down"}, {}]}', {"health": "up"}, {"count": 1}),
        (b'{"data": [{"health": "up"}, {"health": "down"}]}', {}, {"count": 2}),
        (b'{"data": {}}', {}, {"error": "data of {url}/t is no list"}),
        (b"<html>", {}, {"error": "status 200, and no JSON"}),
    ],
)
def test_items_of_a_list_are_counted(target: Data, web: Web, body: bytes, where: Data, seen: Data) -> None:
    web.answers["/t"] = Answer(body)
    expected = {name: value.format(url=web.url) if name == "error" else value for name, value in seen.items()}
    found = observe(scene(target), {"kind": "json_kept", "path": "/t", "items": "data", "where": where})
    assert found == {"status": 200, "error": "", **expected}


SOURCES = b'[{"uid": "a b", "type": "prometheus"}, {"uid": "c", "type": "prometheus"}, {"uid": "d", "type": "loki"}]'


def test_each_item_of_a_list_is_asked_for_itself(target: Data, web: Web) -> None:
    web.answers["/api/datasources"] = Answer(SOURCES)
    web.answers["/uid/a%20b/health"] = Answer(b'{"status": "OK"}')
    web.answers["/uid/c/health"] = Answer(b'{"status": "ERROR"}', status=400)
    probe = {"kind": "json_each", "path": "/api/datasources", "each": "/uid/{uid}/health", "json": {"status": "OK"}}
    seen = observe(scene(target), {**probe, "where": {"type": "prometheus"}})
    assert seen == {"status": 200, "error": "", "count": 2, "bad": [f"{web.url}/uid/c/health: status is ERROR"]}
    assert observe(scene(target), {**probe, "where": {"type": "loki"}})["bad"] != []
    assert observe(scene(target), {**probe, "where": {"type": "x"}}) == {
        "status": 200,
        "error": "",
        "count": 0,
        "bad": [],
    }
    assert observe(scene(target), {**probe, "path": "/none"}) == {"status": 404, "error": ""}


# -- Prometheus ---------------------------------------------------------------------------------------------------


def vector(*samples: tuple[Data, str]) -> Answer:
    result = [{"metric": labels, "value": [1, value]} for labels, value in samples]
    return Answer(json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode())


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (vector(({}, "1"), ({"a": "b"}, "2.5")), {"error": "", "results": 2, "value": 3.5}),
        (vector(), {"error": "", "results": 0, "value": None}),
        (
            Answer(b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "7"]}}'),
            {"error": "", "results": 1, "value": 7.0},
        ),
        (
            Answer(b'{"status": "error", "error": "parse error"}', 400),
            {"error": "{url}/api/v1/query answered 400: parse error"},
        ),
        (Answer(b"gone", 404), {"error": "{url}/api/v1/query: status 404, and no JSON"}),
        (Answer(b'{"status": "success"}'), {"error": "{url}/api/v1/query gives neither a vector nor a number"}),
    ],
)
def test_a_query_is_asked(target: Data, web: Web, answer: Answer, seen: Data) -> None:
    web.answers["/api/v1/query"] = answer
    expected = {**seen, "error": seen["error"].format(url=web.url)}
    assert observe(scene(target), {"kind": "promql", "query": "sum(up)"}) == expected
    assert web.posted == ["query=sum%28up%29"]


def test_names_that_rules_use_are_looked_up(target: Data, web: Web) -> None:
    rules = {"data": {"groups": [{"rules": [{"query": "rate(a_total[5m]) > 1"}, {"query": 'b{x="y"} == c'}]}, {}]}}
    web.answers["/api/v1/rules"] = Answer(json.dumps(rules).encode())
    web.answers["/api/v1/query"] = vector(({"__name__": "a_total"}, "3"), ({"__name__": "b"}, "1"))
    seen = observe(scene(target), {"kind": "rule_metrics"})
    assert seen == {"error": "", "used": ["a_total", "b", "c", "rate"], "there": ["a_total", "b"]}
    assert 'count by (__name__) ({__name__=~"a_total|b|c|rate"})' in urllib.parse.unquote_plus(web.posted[0])


def test_without_rules_no_names_are_looked_up(target: Data, web: Web) -> None:
    web.answers["/api/v1/rules"] = Answer(b'{"data": {"groups": []}}')
    assert observe(scene(target), {"kind": "rule_metrics"}) == {"error": "", "used": [], "there": []}
    assert "404" in observe(scene({**target, "url": web.url + "/no"}), {"kind": "rule_metrics"})["error"]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (job) (rate(http_requests_total{code=~"5..", job="x"}[5m])) / 2e3', {"sum", "by", "job", "rate"}),
        ("job:a:rate5m > 1 # and b", set()),
        ('label_replace(c, "d", "$1 e", "f", "(.*)")', {"label_replace", "c"}),
        ("topk(5, g offset 1h) @ 1609746000.5", {"topk", "g", "offset"}),
    ],
)
def test_names_in_an_expression(expression: str, names: set[str]) -> None:
    more = {"http_requests_total", "job:a:rate5m"} & _observe_web.names_in(expression)
    assert _observe_web.names_in(expression) == names | more


@pytest.mark.parametrize("part", ['"', "'", "`", '\\"', "{", "[", "a", ":", '"\\'])
def test_an_expression_that_is_made_to_be_slow_is_read_in_a_few_seconds(part: str) -> None:
    began = time.process_time()
    _observe_web.names_in(part * 500_000)
    _observe_web.names_in(f'"{part * 500_001}')
    assert time.process_time() - began < 5


# -- there and back -----------------------------------------------------------------------------------------------

ROUND_TRIP = {
    "kind": "round_trip",
    "send": {"path": "/push", "body": '{"id": "{id}", "at": "{now}", "until": "{soon}", "ns": "{now_ns}"}'},
    "read": {"path": "/read"},
    "text": '"{id}"',
}


def test_what_is_sent_is_sent_once_and_looked_for_until_it_comes(target: Data, web: Web) -> None:
    web.answers["/push"] = Answer(b"", 204)
    web.answers["/read"] = Answer(b"nothing yet")
    memory: Data = {}
    first = observe(scene(target, memory=memory), ROUND_TRIP)
    assert (first["sent"], first["found"]) == (204, False)
    assert first["error"] == f"{web.url}/read answered 200 (without what was sent)"
    sent = json.loads(web.posted[0])
    assert time.strptime(sent["at"], "%Y-%m-%dT%H:%M:%SZ") < time.strptime(sent["until"], "%Y-%m-%dT%H:%M:%SZ")
    assert abs(int(sent["ns"]) / 1e9 - time.time()) < 60
    web.answers["/read"] = Answer(json.dumps([sent["id"]]).encode())
    assert observe(scene(target, memory=memory), ROUND_TRIP) == {"sent": 204, "found": True, "error": ""}
    assert len(web.posted) == 1


def test_what_never_comes_is_sent_once_more_in_time(target: Data, web: Web) -> None:
    web.answers["/push"] = web.answers["/read"] = Answer(b"")
    memory: Data = {}
    observe(scene(target, memory=memory), ROUND_TRIP)
    next(iter(memory.values()))["until"] = time.monotonic()
    observe(scene(target, memory=memory), ROUND_TRIP)
    assert len({json.loads(sent)["id"] for sent in web.posted}) == 2


def test_what_could_not_be_sent_is_sent_again(target: Data, web: Web) -> None:
    web.answers["/push"] = Answer(b"", 500)
    memory: Data = {}
    seen = observe(scene(target, memory=memory), ROUND_TRIP)
    assert seen == {"sent": 500, "found": False, "error": f"{web.url}/push answered 500"}
    observe(scene(target, memory=memory), ROUND_TRIP)
    assert len(web.posted) == 2


# -- sockets ------------------------------------------------------------------------------------------------------


def test_who_listens_takes_a_connection(target: Data, tmp_path: pathlib.Path) -> None:
    assert observe(scene(target), {"kind": "tcp"})["error"] == ""
    path = str(tmp_path / "socket")
    assert observe(scene(target), {"kind": "unix", "socket": path})["error"] == "refuses (No such file or directory)"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert observe(scene(target), {"kind": "unix", "socket": path}) == {"address": path, "error": ""}


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1"])
def test_where_nobody_listens_there_is_no_connection(target: Data, address: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        seen = observe(scene(target), {"kind": "tcp", "address": address.format(port=unused.getsockname()[1])})
    assert "refuses (" in seen["error"]


@pytest.mark.parametrize(
    ("page", "ok", "seen"),
    [
        ('linked 1\nsd{name="notify",config="0"} 0\n', True, "linked is 1"),
        ('linked 0\nsd{name="notify",config="0"} 0\n', False, "linked is 0"),
        ('linked 0\nsd{name="scrape",config="node"} 1\n', False, "not configured: sd isn't there"),
    ],
)
def test_a_metric_of_what_is_not_configured_says_so(page: str, ok: bool, seen: str) -> None:
    answer = types.SimpleNamespace(status=200, error="", body=page)
    scene = types.SimpleNamespace(get=lambda _path: answer, page=lambda _path: _metrics.Page(page))
    probe = {
        "kind": "metric",
        "name": None,
        "path": "/metrics",
        "metric": "linked",
        "labels": {},
        "min": 1,
        "max": None,
        "only_where": {"metric": "sd", "labels": {"name": "notify"}},
    }
    found = _observe_web._metric(scene, probe)  # type: ignore[arg-type]
    verdict = _verdicts.PREDICATES["metric"]({"url": "http://x"}, probe, found, {})
    assert (verdict.ok, verdict.seen) == (ok, seen)
