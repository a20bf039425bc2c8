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
import sys
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


# -- TLS with certificates of clients -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate that signs itself, with its key, apart and in one file; and another one."""
    directory = tmp_path_factory.mktemp("certificates")
    files = {}
    for name in ("own", "other"):
        cert, key, both = (directory / f"{name}.{kind}" for kind in ("pem", "key", "both"))
        words = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            str(key),
        ]
        subprocess.run([*words, "-out", str(cert)], check=True, capture_output=True)
        both.write_text(cert.read_text() + key.read_text())
        files.update({name: str(cert), f"{name}_key": str(key), f"{name}_both": str(both)})
    return files


def served(context: ssl.SSLContext, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> http.server.HTTPServer:
    context.minimum_version = context.maximum_version = version
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.handle_error = lambda *_args: None  # type: ignore[method-assign]
    running.socket = context.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return running


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def demanding(certificates: dict[str, str], request: pytest.FixtureRequest) -> t.Iterator[http.server.HTTPServer]:
    """A server that asks its clients for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["own"], certificates["own_key"])
    context.load_verify_locations(certificates["own"])
    context.verify_mode = ssl.CERT_REQUIRED
    running = served(context, version=request.param)
    yield running
    running.shutdown()
    running.server_close()


def test_a_client_certificate_is_shown(demanding: http.server.HTTPServer, certificates: dict[str, str]) -> None:
    parts = {"client_cert": certificates["own"], "client_key": certificates["own_key"], "ca": certificates["own"]}
    for auth in (parts, {"client_cert": certificates["own_both"]}):
        assert _http.get(url(demanding, "/ok", "https"), auth=auth).status == 200


def test_a_server_that_asks_for_a_certificate_is_told_from_one_that_is_down(
    demanding: http.server.HTTPServer, certificates: dict[str, str]
) -> None:
    place = url(demanding, "/ok", "https")
    assert "it asks for a client certificate" in _http.get(place).error
    other = {"client_cert": certificates["other_both"]}
    assert f"it refuses the client certificate {other['client_cert']}" in _http.get(place, auth=other).error
    assert _http.speaks_tls(place, timeout=5) is True


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ({"client_cert": "/nowhere.pem"}, "the login can't be read from /nowhere.pem: No such file"),
        ({"client_cert": "{own}"}, "can't be used"),
        ({"client_cert": "{own}", "client_key": "{other_key}"}, "can't be used"),
        ({"ca": "{own_key}"}, "is no certificate of an authority"),
    ],
)
def test_a_certificate_that_can_not_be_used_is_named(
    certificates: dict[str, str], auth: dict[str, str], message: str
) -> None:
    filled = {name: path.format(**certificates) for name, path in auth.items()}
    answer = _http.get("https://127.0.0.1:1/", auth=filled)
    assert answer.status is None
    assert message in answer.error


def test_a_key_behind_a_link_of_another_user_is_not_read(certificates: dict[str, str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").symlink_to(certificates["own_key"])
    tmp_path.chmod(0o777)
    auth = {"client_cert": certificates["own"], "client_key": str(tmp_path / "key")}
    assert "isn't followed" in _http.get("https://127.0.0.1:1/", auth=auth).error


def test_the_authority_of_the_server_is_checked_where_it_is_given(certificates: dict[str, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["own"], certificates["own_key"])
    running = served(context)
    try:
        assert _http.get(url(running, "/ok", "https"), auth={"ca": certificates["own"]}).status == 200
        assert "verify failed" in _http.get(url(running, "/ok", "https"), auth={"ca": certificates["other"]}).error
    finally:
        running.shutdown()
        running.server_close()


# -- what listens -------------------------------------------------------------------------------------------------


def test_plain_http_and_tls_are_told_apart(server: http.server.ThreadingHTTPServer) -> None:
    assert _http.speaks_tls(url(server, "/", "https"), timeout=5) is False
    assert _http.speaks_tls("http://127.0.0.1:1", timeout=5) is None
    with listening(Peer(b"", b"")) as silent:
        assert _http.speaks_tls(f"http://127.0.0.1:{silent}", timeout=0.2) is None


class UnixServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[socket.socket, t.Any]:
        return self.socket.accept()[0], ("unix", 0)


def test_a_unix_socket_is_asked_by_its_path(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "x.sock")
    with UnixServer(path, Handler) as running:  # type: ignore[arg-type]
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        assert _http.get(f"{_http.unix_url(path)}/ok").status == 200
        assert _http.speaks_tls(_http.unix_url(path), timeout=5) is False
        running.shutdown()
    assert "Connection refused" in _http.get(f"{_http.unix_url(path)}/ok").error
    assert _http.leads_to(f"{_http.unix_url(path)}/ok", port=0, unix=path)
    assert not _http.leads_to("http://127.0.0.1:80/", port=0, unix=path)
    assert _http.leads_to("https://[::1]/", port=443, unix="")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another network")
def test_a_service_in_a_network_of_its_own_is_asked_there() -> None:
    code = (
        "import http.server, sys\n"
        "s = http.server.HTTPServer(('127.0.0.1', 9100), http.server.SimpleHTTPRequestHandler)\n"
        "print('up', flush=True)\n"
        "s.serve_forever()"
    )
    up = "import fcntl, socket, struct; s = socket.socket(); fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 1))\n"
    words = ["unshare", "--net", sys.executable, "-c", up + code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/") as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"up\n"
            place = "http://127.0.0.1:9100/nowhere"
            assert _http.get(place, network=process.pid).status == 404
            assert _http.speaks_tls(place, timeout=5, network=process.pid) is False
            assert _http.get(place).status != 404
        finally:
            process.kill()
