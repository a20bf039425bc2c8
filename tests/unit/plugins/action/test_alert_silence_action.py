# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Against a stand-in that speaks the part of Alertmanager's API v2 that is used."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import email.utils
import http.server
import json
import os
import pathlib
import ssl
import subprocess
import threading
import time
import typing as t

import pytest
from ansible.errors import AnsibleError

COMMENT = "observability.stack: upgrade u1, host web1, component prometheus"
PRESENT = {"upgrade_id": "u1", "host": "web1", "component": "prometheus"}
ABSENT = {"state": "absent", "upgrade_id": "u1", "host": "web1"}


class Alertmanager:
    """A stand-in for one, below a prefix. ``asked`` keeps method, path, login and body of each request."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.silences: dict[str, t.Any] = {}
        self.asked: list[tuple[str, str, str | None, t.Any]] = []
        self.login: str | None = None
        self.refuses: tuple[int, str] | None = None
        self.leads = ""
        self.ahead = 0.0
        standin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                given = json.loads(body) if body else None
                standin.asked.append((self.command, self.path, self.headers.get("Authorization"), given))
                status, text = standin.answer(self.command, self.path, self.headers.get("Authorization"), given)
                self.send_response(status)
                if standin.leads:
                    self.send_header("Location", standin.leads + self.path)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def do_DELETE(self) -> None:
                self.answer()

            def date_time_string(self, *args: t.Any) -> str:  # noqa: ARG002
                return email.utils.formatdate(standin.now(), usegmt=True)

            def log_message(self, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}{prefix}"

    @contextlib.contextmanager
    def serving(self) -> t.Iterator[Alertmanager]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()

    def now(self) -> float:
        return time.time() + self.ahead

    def answer(self, method: str, path: str, login: str | None, given: t.Any) -> tuple[int, bytes]:
        if self.leads:
            return 307, b""
        if self.login and login != self.login:
            return 401, b"Unauthorized"
        if self.refuses and method != "GET":
            return self.refuses[0], json.dumps(self.refuses[1]).encode()
        if path == f"{self.prefix}/api/v2/silences":
            answer = list(self.silences.values()) if method == "GET" else {"silenceID": self.put(**given)}
            return 200, json.dumps(answer).encode()
        identity = path.rpartition("/")[2]
        if method == "DELETE" and path == f"{self.prefix}/api/v2/silence/{identity}" and identity in self.silences:
            self.silences[identity]["status"]["state"] = "expired"
            return 200, b""
        return 404, b"404 page not found"

    def put(self, **silence: t.Any) -> str:
        assert silence["matchers"]
        assert seconds(silence["endsAt"]) > self.now()
        if "id" in silence:
            self.silences[silence["id"]]["status"]["state"] = "expired"
        silence["id"] = f"s{len(self.silences) + 1}"
        state = "active" if seconds(silence["startsAt"]) <= self.now() else "pending"
        self.silences[silence["id"]] = {**silence, "status": {"state": state}}
        return str(silence["id"])

    def states(self) -> dict[str, str]:
        return {key: silence["status"]["state"] for key, silence in self.silences.items()}

    def methods(self) -> list[str]:
        return [asked[0] for asked in self.asked]


def seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def moment(ahead: float) -> str:
    return dt.datetime.fromtimestamp(time.time() + ahead, tz=dt.timezone.utc).isoformat()


@pytest.fixture
def alerts() -> t.Iterator[Alertmanager]:
    with Alertmanager("/alertmanager").serving() as standin:
        yield standin


def other(alerts: Alertmanager, comment: str, created_by: str = "observability.stack") -> str:
    matchers = [{"name": "instance", "value": "web2", "isRegex": False, "isEqual": True}]
    return alerts.put(matchers=matchers, startsAt=moment(-5), endsAt=moment(600), createdBy=created_by, comment=comment)


def test_a_silence_is_made_for_the_instances_of_a_host(act: t.Any, alerts: Alertmanager) -> None:
    result = act("alert_silence", url=f"{alerts.url}/", **PRESENT, instances=["web1", "10.0.0.7", "fe80::1"])
    made = alerts.silences["s1"]
    assert result["changed"] is True
    assert result["url"] == alerts.url
    assert result["silences"] == [{"id": "s1", "ends_at": made["endsAt"], "comment": COMMENT}]
    assert (made["createdBy"], made["comment"], made["status"]["state"]) == ("observability.stack", COMMENT, "active")
    value = r"^(?:web1|10\.0\.0\.7|\[?fe80::1\]?)(?::[0-9]+)?$"
    assert made["matchers"] == [{"name": "instance", "value": value, "isRegex": True}]
    assert seconds(made["endsAt"]) - seconds(made["startsAt"]) == pytest.approx(900, abs=0.01)
    assert act.sent == []


def test_the_same_again_changes_nothing(act: t.Any, alerts: Alertmanager) -> None:
    for changed in (True, False):
        result = act("alert_silence", url=[alerts.url], **PRESENT)
        assert (result["changed"], result["silences"][0]["id"]) == (changed, "s1")
    assert alerts.methods() == ["GET", "POST", "GET"]


@pytest.mark.parametrize(
    "change", [{"duration": 2000}, {"instances": ["other"]}, {"matchers": [{"name": "job", "value": "node"}]}]
)
def test_a_silence_that_is_too_short_or_for_others_is_replaced(act: t.Any, alerts: Alertmanager, change: t.Any) -> None:
    act("alert_silence", url=alerts.url, **PRESENT)
    result = act("alert_silence", url=alerts.url, **PRESENT, **change)
    assert (result["changed"], result["silences"][0]["id"]) == (True, "s2")
    assert alerts.states() == {"s1": "expired", "s2": "active"}
    assert alerts.silences["s2"]["startsAt"] == alerts.silences["s1"]["startsAt"]


def test_absent_ends_all_of_the_host_s_and_no_others(act: t.Any, alerts: Alertmanager) -> None:
    for component in ("prometheus", "node_exporter"):
        act("alert_silence", url=alerts.url, **{**PRESENT, "component": component})
    other(alerts, COMMENT.replace("u1", "u10"))
    other(alerts, COMMENT.replace("web1", "web10"))
    other(alerts, COMMENT, created_by="alice")
    result = act("alert_silence", url=alerts.url, **ABSENT)
    assert (result["changed"], {each["id"] for each in result["silences"]}) == (True, {"s1", "s2"})
    assert list(alerts.states().values()) == ["expired", "expired", "active", "active", "active"]
    assert act("alert_silence", url=alerts.url, **ABSENT)["changed"] is False


def test_a_silence_that_begins_later_is_ended_as_well(act: t.Any, alerts: Alertmanager) -> None:
    act("alert_silence", url=alerts.url, **PRESENT)
    alerts.silences["s1"]["status"]["state"] = "pending"
    assert act("alert_silence", url=alerts.url, **ABSENT)["changed"] is True
    assert alerts.states() == {"s1": "expired"}


@pytest.mark.parametrize("refusal", [(404, "silence not found"), (500, "silence s1 already expired")])
def test_a_silence_that_ended_meanwhile_is_ended(act: t.Any, alerts: Alertmanager, refusal: t.Any) -> None:
    act("alert_silence", url=alerts.url, **PRESENT)
    alerts.refuses = refusal
    result = act("alert_silence", url=alerts.url, **ABSENT, required=True)
    assert result.get("failed") is None


def test_check_mode_says_what_it_would_do(act: t.Any, alerts: Alertmanager) -> None:
    result = act("alert_silence", url=alerts.url, **PRESENT, check=True)
    assert (result["changed"], result["silences"][0]["id"], alerts.silences) == (True, None, {})
    act("alert_silence", url=alerts.url, **PRESENT)
    assert act("alert_silence", url=alerts.url, **PRESENT, check=True)["changed"] is False
    assert act("alert_silence", url=alerts.url, **ABSENT, check=True)["changed"] is True
    assert alerts.states() == {"s1": "active"}


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_time_is_that_of_the_alertmanager(act: t.Any, alerts: Alertmanager, ahead: float) -> None:
    alerts.ahead = ahead
    act("alert_silence", url=alerts.url, **PRESENT)
    assert alerts.states() == {"s1": "active"}
    assert seconds(alerts.silences["s1"]["endsAt"]) == pytest.approx(alerts.now() + 900, abs=5)
    assert act("alert_silence", url=alerts.url, **PRESENT)["changed"] is False


def test_peers_are_tried_in_turn_and_all_are_told_the_end(act: t.Any, alerts: Alertmanager) -> None:
    with Alertmanager().serving() as second:
        peers = ["http://127.0.0.1:1", second.url, alerts.url]
        result = act("alert_silence", url=peers, **PRESENT)
        assert (result["url"], second.states(), alerts.states()) == (second.url, {"s1": "active"}, {})
        assert "http://127.0.0.1:1/api/v2/silences can't be asked" in result["warnings"][0]
        act("alert_silence", url=alerts.url, **PRESENT)
        result = act("alert_silence", url=peers, **ABSENT)
        assert (result["changed"], second.states(), alerts.states()) == (True, {"s1": "expired"}, {"s1": "expired"})
        assert len(result["warnings"]) == 1


@pytest.mark.parametrize("arguments", [PRESENT, ABSENT])
def test_an_alertmanager_that_does_not_answer_is_a_warning(act: t.Any, arguments: t.Any) -> None:
    result = act("alert_silence", url="http://ops:geheim@127.0.0.1:1/x", **arguments)
    assert (result["changed"], result.get("failed"), result["url"], result["silences"]) == (False, None, None, [])
    assert "http://********@127.0.0.1:1/x/api/v2/silences can't be asked" in result["warnings"][0]
    result = act("alert_silence", url="http://ops:geheim@127.0.0.1:1/x", **arguments, required=True)
    assert (result["failed"], result["key"]) == (True, "silence.unavailable")
    assert "geheim" not in json.dumps(result)


def test_what_it_refuses_is_told(act: t.Any, alerts: Alertmanager) -> None:
    alerts.refuses = (400, "bad matcher format:\nsee ops:geheim@db")
    result = act("alert_silence", url=alerts.url, **PRESENT, required=True)
    assert (result["failed"], result["key"]) == (True, "silence.refused")
    assert result["msg"].startswith(f'{alerts.url}/api/v2/silences answered 400: "bad matcher format:')


@pytest.mark.parametrize("login", [{"token": "canary-token"}, {"url_username": "u", "url_password": "canary-password"}])
def test_what_it_sends_back_of_a_login_is_not_told(act: t.Any, alerts: Alertmanager, login: t.Any) -> None:
    sent = login.get("token") or base64.b64encode(b"u:canary-password").decode()
    alerts.refuses = (400, f"your login {sent} for u, {next(reversed(login.values()))}, isn't good")
    result = act("alert_silence", url=alerts.url, **PRESENT, **login, required=True)
    assert "your login ********" in result["msg"]
    assert not any(secret in result["msg"] for secret in (sent, "canary-password"))


def test_what_is_no_alertmanager_is_told(act: t.Any, alerts: Alertmanager) -> None:
    for url in (alerts.url.removesuffix("/alertmanager"), f"{alerts.url}/elsewhere"):
        result = act("alert_silence", url=url, **PRESENT, required=True)
        assert (result["failed"], result["key"]) == (True, "silence.not_alertmanager")


LOGINS = [
    ({"url_username": "ops", "url_password": "ge:heim"}, "Basic " + base64.b64encode(b"ops:ge:heim").decode()),
    ({"token": "geheim"}, "Bearer geheim"),
]


@pytest.mark.parametrize(("options", "login"), LOGINS)
def test_a_login_is_sent_and_never_told(act: t.Any, alerts: Alertmanager, options: t.Any, login: str) -> None:
    alerts.login = login
    assert act("alert_silence", url=alerts.url, **PRESENT, **options)["changed"] is True
    alerts.login = "Bearer other"
    result = act("alert_silence", url=alerts.url, **PRESENT, **options, required=True)
    assert (result["failed"], result["key"]) == (True, "silence.forbidden")
    assert "heim" not in json.dumps(result)


def test_a_login_in_the_url_is_used(act: t.Any, alerts: Alertmanager) -> None:
    alerts.login = "Basic " + base64.b64encode(b"ops:geheim").decode()
    result = act("alert_silence", url=f"http://ops:geheim@{alerts.host}{alerts.prefix}", **PRESENT)
    assert (result["changed"], "geheim" in json.dumps(result)) == (True, False)


@pytest.mark.parametrize(("options", "login"), LOGINS)
def test_a_login_goes_to_no_other_host(act: t.Any, alerts: Alertmanager, options: t.Any, login: str) -> None:
    with Alertmanager(alerts.prefix).serving() as elsewhere:
        alerts.leads = f"http://{elsewhere.host}"
        assert act("alert_silence", url=alerts.url, **PRESENT, **options)["changed"] is True
        assert {asked[2] for asked in alerts.asked} == {login}
        assert {asked[2] for asked in elsewhere.asked} == {None}
        assert elsewhere.methods() == ["GET", "POST"]


WORDS = [
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
    *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
]


def test_https_is_believed_only_by_its_authority(act: t.Any, alerts: Alertmanager, tmp_path: pathlib.Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [*WORDS, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Alertmanager().serving() as standin:
        standin.server.socket = context.wrap_socket(standin.server.socket, server_side=True)
        url = f"https://{standin.host}"
        result = act("alert_silence", url=url, **PRESENT, required=True)
        assert (result["failed"], result["key"]) == (True, "silence.unavailable")
        assert act("alert_silence", url=url, **PRESENT, ca_path=str(certificate))["changed"] is True
        assert act("alert_silence", url=url, **ABSENT, validate_certs=False)["changed"] is True


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "alerts:9093"}, "'alerts:9093' is no address of an Alertmanager: write http://host:9093"),
        ({"url": "http://a:9093/?x=1"}, "is no address of an Alertmanager"),
        ({"url": []}, "url is empty"),
        ({"duration": 0}, "less than 1 second"),
        ({"host": ""}, "host or upgrade_id is empty"),
        ({"matchers": []}, "matchers is empty"),
        ({"matchers": [{"name": "job", "value": ""}]}, "has no name or no value"),
        ({"instances": []}, "instances has no name"),
        ({"token": "ge heim"}, "token has spaces"),
    ],
)
def test_what_can_not_be_meant_is_refused(act: t.Any, change: t.Any, says: str) -> None:
    result = act("alert_silence", **{"url": "http://127.0.0.1:1", **PRESENT, **change})
    assert (result["failed"], result["key"]) == (True, "input.invalid")
    assert says in result["msg"]
    assert "heim" not in json.dumps(result)


@pytest.mark.parametrize(
    "change",
    [{"token": "a", "url_username": "b", "url_password": "c"}, {"url_username": "b"}, {"state": "gone"}],
)
def test_options_that_contradict_are_refused(act: t.Any, change: t.Any) -> None:
    with pytest.raises(AnsibleError):
        act("alert_silence", url="http://127.0.0.1:1", **PRESENT, **change)


@pytest.mark.parametrize("name", ["ca_path", "client_cert", "client_key"])
@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir, lambda path: None], ids=["FIFO", "directory", "nothing"])
def test_a_certificate_that_is_no_file_is_refused_at_once(
    act: t.Any, name: str, kind: t.Callable[[pathlib.Path], t.Any], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "ca.pem"
    kind(path)
    began = time.monotonic()
    result = act("alert_silence", url="https://127.0.0.1:1", **PRESENT, **{name: str(path)})
    assert time.monotonic() - began < 5
    assert (result["failed"], result["key"]) == (True, "input.invalid")
    assert f"{name}: {path} is missing or is no regular file" in result["msg"]
