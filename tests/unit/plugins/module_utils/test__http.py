# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.server
import os
import pathlib
import socket
import ssl
import subprocess
import threading
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _http
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError
from ansible_collections.observability.stack.tests.unit.slow_peers import Peer, listening


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
            return
        body = f"{self.path} {self.headers.get('Authorization', '')}".encode()
        self.send_response(200 if self.path.startswith("/ok") else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: t.Any) -> None:
        pass


@pytest.fixture
def server() -> t.Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def url(server: http.server.HTTPServer, path: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_address[1]}{path}"


def test_status_and_body_come_back(server: http.server.ThreadingHTTPServer) -> None:
    answer = _http.get(url(server, "/ok?a=b"), headers={"Authorization": "Bearer x"})
    assert answer == _http.Answer(200, "/ok?a=b Bearer x")
    assert _http.get(url(server, "/")).status == 503


def test_redirects_are_answers_and_not_followed(server: http.server.ThreadingHTTPServer) -> None:
    assert _http.get(url(server, "/moved")).status == 302


def test_proxies_are_not_asked(server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    assert _http.get(url(server, "/ok")).status == 200


def test_tls_works_with_a_certificate_nobody_knows(
    server: http.server.ThreadingHTTPServer, tmp_path: pathlib.Path
) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "cert")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=elsewhere.example"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    assert _http.get(url(server, "/ok", "https")).status == 200


def test_nobody_listening_is_an_answer_without_status() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    answer = _http.get(f"http://127.0.0.1:{port}/")
    assert answer.status is None
    assert "refused" in answer.error


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n"])
def test_a_listener_that_speaks_no_http_has_no_status(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _address = listener.accept()
            connection.recv(1000)
            connection.sendall(reply)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        got = _http.get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert got.status is None
    assert got.error


def test_a_listener_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        got = _http.get(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.2)
    assert got.status is None
    assert "timed out" in got.error


@pytest.mark.parametrize("login", [{"user": "ops", "password_file": "{path}"}, {"token_file": "{path}"}])
@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_login_that_is_no_file_is_an_error_at_once(
    login: dict[str, str], kind: t.Callable[[pathlib.Path], t.Any], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "secret"
    kind(path)
    began = time.monotonic()
    with pytest.raises(HostError, match=f"the login can't be read from {path}: "):
        _http.login({name: text.format(path=path) for name, text in login.items()})
    assert time.monotonic() - began < 1


def test_a_body_without_end_is_cut_and_says_so() -> None:
    endless = Peer(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (1 << 20), 0.0)
    with listening(endless) as port:
        answer = _http.get(f"http://127.0.0.1:{port}/", timeout=20)
    assert (answer.status, len(answer.body), answer.error) == (200, 32 << 20, "its answer is cut after 32 MiB")
