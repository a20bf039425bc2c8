# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real processes, whose arguments, variables, directories and sockets are read."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _netns, _setup, _sockets, _systemd
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._sockets import Socket
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog

Data = dict[str, t.Any]
CATALOG = _catalog.load()
SERVICE = """
import http.server, json, os, socket, ssl, sys, threading
told = json.loads(os.environ["TOLD"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(told.get("status", 200))
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args): pass
class Unix(http.server.HTTPServer):
    address_family = socket.AF_UNIX
    def server_bind(self): self.socket.bind(self.server_address)
    def get_request(self): return self.socket.accept()[0], ("unix", 0)
class Six(http.server.HTTPServer):
    address_family = socket.AF_INET6
for place in told["places"]:
    kind = Unix if isinstance(place, str) else Six if ":" in place[0] else http.server.HTTPServer
    server = kind(place if isinstance(place, str) else tuple(place), Handler)
    if told.get("tls"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(told["tls"])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda *args: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps(server.server_address), flush=True)
sys.stdin.read()
"""


def unit(pid: int = 0, **properties: str) -> _systemd.Unit:
    return _systemd.Unit("x.service", "loaded", "active", "running", "success", pid, 0, properties)


def spec(name: str, **changes: t.Any) -> Data:
    return {**CATALOG[name], "default_config": [], "default_data": [], **changes}


def set_up(name: str, *flags: str, pid: int = 0, changes: Data | None = None, **properties: str) -> Data:
    return _setup.set_up(spec(name, **(changes or {})), unit(pid, **properties), ["/x", *flags])


@contextlib.contextmanager
def service(
    *places: t.Any, cwd: str = "/", prefix: t.Sequence[str] = (), **told: t.Any
) -> t.Iterator[tuple[int, list]]:
    """A process that listens, as its pid, and the ports that it got."""
    path = {"PATH": os.environ["PATH"]}
    variables = {**path, **told.pop("variables", {}), "TOLD": json.dumps({"places": places, **told})}
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd, env=variables
    )
    assert process.stdout
    assert process.stdin
    try:
        addresses = [json.loads(process.stdout.readline()) for _place in places]
        yield process.pid, [address[1] if isinstance(address, list) else 0 for address in addresses]
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


# -- where it listens ---------------------------------------------------------------------------------------------


def test_what_listens_counts_and_not_what_the_flag_says() -> None:
    with service(["127.0.0.1", 0]) as (pid, (port,)):
        found = set_up("node_exporter", "--web.listen-address=127.0.0.1:1", pid=pid)
        assert found["url"] == f"http://127.0.0.1:{port}"
        assert found["listens"] == [{"address": "127.0.0.1", "port": port, "unix": ""}]
        assert set_up("node_exporter", pid=pid)["url"] == f"http://127.0.0.1:{port}"


def test_of_several_sockets_the_flag_chooses() -> None:
    with service(["127.0.0.1", 0], ["127.0.0.2", 0], ["127.0.0.3", 0]) as (pid, ports):
        second = set_up("node_exporter", f"--web.listen-address=127.0.0.2:{ports[1]}", pid=pid)
        assert second["url"] == f"http://127.0.0.2:{ports[1]}"
        both = [f"--web.listen-address=127.0.0.9:{ports[0]}", f"--web.listen-address=127.0.0.3:{ports[2]}"]
        assert set_up("node_exporter", *both, pid=pid)["url"] == f"http://127.0.0.3:{ports[2]}"
        elsewhere = set_up("node_exporter", f"--web.listen-address=127.0.0.9:{ports[2]}", pid=pid)
        assert elsewhere["url"] == f"http://127.0.0.3:{ports[2]}"
        usual = set_up("node_exporter", pid=pid, changes={"port": ports[1]})
        assert usual["url"] == f"http://127.0.0.2:{ports[1]}"


@pytest.mark.parametrize("host", ["elsewhere.example", "192.0.2.1", "127.0.0.9"])
def test_a_process_can_not_send_a_login_elsewhere_by_its_arguments(host: str) -> None:
    with service(["127.0.0.1", 0]) as (pid, (port,)):
        found = set_up("node_exporter", f"--web.listen-address={host}:{port}", pid=pid)
        assert found["url"] == f"http://127.0.0.1:{port}"
    with service() as (pid, _ports):
        assert set_up("node_exporter", f"--web.listen-address={host}:80", pid=pid)["url"] == "http://127.0.0.1:9100"


def test_which_files_are_read_follows_from_the_unit_and_not_from_the_process(tmp_path: pathlib.Path) -> None:
    (tmp_path / "own.yml").touch()
    start = f"{{ path=/x ; argv[]=/x --config.file={tmp_path}/own.yml ; ignore_errors=no ; }}"
    found = set_up("prometheus", "--config.file=/etc/shadow", pid=os.getpid(), ExecStart=start)
    assert found["config"] == f"{tmp_path}/own.yml"


@pytest.mark.parametrize(
    ("place", "host"), [(["0.0.0.0", 0], "127.0.0.1"), (["::", 0], "127.0.0.1"), (["::1", 0], "[::1]")]
)
def test_a_socket_of_all_addresses_is_asked_at_the_loopback_address(place: list[t.Any], host: str) -> None:
    with service(place) as (pid, (port,)):
        assert set_up("node_exporter", pid=pid)["url"] == f"http://{host}:{port}"


def test_a_unix_socket_has_a_url(tmp_path: pathlib.Path) -> None:
    with service(str(tmp_path / "x.sock")) as (pid, _ports):
        told = Completed(0, f"{tmp_path}/x.sock (Stream)\n", "")
        looked = unit(pid, TriggeredBy="x.socket")
        found = _setup.set_up(spec("node_exporter"), looked, ["/x"], run=lambda argv, **_options: told)
        assert set_up("node_exporter", pid=pid)["url"] == "http://127.0.0.1:9100"
    assert found["url"] == f"http+unix://{str(tmp_path).replace('/', '%2F')}%2Fx.sock"
    assert found["listens"] == [{"address": "", "port": 0, "unix": str(tmp_path / "x.sock")}]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another network")
def test_sockets_are_those_of_the_network_of_the_process() -> None:
    with service(["0.0.0.0", 9100], prefix=["unshare", "--net"]) as (pid, _ports):
        assert _netns.name(pid) != _netns.name(_netns.OURS)
        assert _sockets.network_of(pid) == pid
        found = set_up("node_exporter", "--web.listen-address=:1", pid=pid)
    assert found["url"] == "http://127.0.0.1:9100"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another network")
def test_a_socket_of_the_host_that_a_service_in_another_network_was_passed_is_asked_on_the_host() -> None:
    """As with PrivateNetwork and a socket unit."""
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); print('up', flush=True); sys.stdin.read()"
    with socket.create_server(("127.0.0.1", 0)) as passed:
        words = ["unshare", "--net", sys.executable, "-c", code, str(passed.fileno())]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[passed.fileno()], cwd="/"
        )
        try:
            assert process.stdout
            assert process.stdout.readline()
            port = passed.getsockname()[1]
            assert _sockets.of_unit("x.service", process.pid) == [Socket("127.0.0.1", port, "")]
            assert _sockets.network_of(process.pid) == 0
        finally:
            process.communicate()


def test_the_program_s_variable_is_like_the_flag(tmp_path: pathlib.Path) -> None:
    assert set_up("nginx_exporter", Environment="LISTEN_ADDRESS=127.0.0.1:9114")["url"] == "http://127.0.0.1:9114"
    flagged = set_up("nginx_exporter", "--web.listen-address=:9115", Environment="LISTEN_ADDRESS=:9114")
    assert flagged["url"] == "http://127.0.0.1:9115"
    with service(["127.0.0.1", 0], ["127.0.0.1", 0], variables={"LISTEN_ADDRESS": "", "WANTED": "1"}) as (pid, _ports):
        assert "WANTED" in set_up("nginx_exporter", pid=pid)["environment"]
    assert set_up("redis_exporter", Environment="REDIS_EXPORTER_WEB_TELEMETRY_PATH=/m")["metrics_path"] == "/m"


def test_a_process_that_may_not_be_read_is_told_and_its_socket_unit_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sockets, "_inodes", lambda pid: None)

    def systemctl(argv: t.Sequence[str], **_options: t.Any) -> Completed:
        return Completed(0, "[::]:9200 (Stream)\n" if "--property=Listen" in argv else "", "")

    looked = unit(os.getpid(), TriggeredBy="x.socket")
    found = _setup.set_up(spec("node_exporter"), looked, ["/x", "--web.systemd-socket"], run=systemctl)
    assert "CAP_SYS_PTRACE" in found["unseen"]
    assert "listens" not in found
    assert found["url"].endswith(":9200")


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("0100007F:2395", ("127.0.0.1", 9109)),
        ("00000000:0050", ("0.0.0.0", 80)),
        ("00000000000000000000000000000000:238C", ("::", 9100)),
        ("00000000000000000000000001000000:238C", ("::1", 9100)),
        ("0000000000000000FFFF00000100007F:238C", ("127.0.0.1", 9100)),
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="written in the byte order of most machines")
def test_addresses_of_the_kernel(told: str, address: tuple[str, int]) -> None:
    assert _sockets.address(told) == address


def test_sockets_that_a_socket_unit_declares() -> None:
    text = "[::]:9200 (Stream)\n127.0.0.1:9201 (Stream)\n/run/x.sock (Stream)\n@abstract (Stream)\n[::]:1 (Datagram)\n"
    assert _sockets.declared(text) == [
        *(Socket("::", 9200, ""), Socket("127.0.0.1", 9201, "")),
        *(Socket("", 0, "/run/x.sock"), Socket("", 0, "@abstract")),
    ]


def test_a_process_that_has_ended_listens_nowhere() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert _sockets.of_unit("x.service", process.pid) == []


# -- TLS and logins -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", str(path)]
    subprocess.run([*words, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + pathlib.Path(f"{path}.crt").read_text())
    return str(path)


def test_the_socket_is_asked_whether_it_speaks_tls_and_wants_a_login(certificate: str, tmp_path: pathlib.Path) -> None:
    odd = tmp_path / "web.yml"
    odd.write_text("? tls_server_config\n: {cert_file: a}\n")
    with service(["127.0.0.1", 0], tls=certificate, status=401) as (pid, (port,)):
        found = set_up("node_exporter", f"--web.config.file={odd}", pid=pid)
    assert (found["url"], found["protected"]) == (f"https://127.0.0.1:{port}", True)
    odd.write_text("tls_server_config:\n  cert_file: a\nbasic_auth_users:\n  a: b\n")
    with service(["127.0.0.1", 0]) as (pid, (port,)):
        found = set_up("node_exporter", f"--web.config.file={odd}", pid=pid)
    assert (found["url"], found["protected"]) == (f"http://127.0.0.1:{port}", False)


@pytest.mark.parametrize("hint", [["-tls"], ["--tls-server-cert-file=/x"], ["--web.ssl-server-cert=/x"]])
def test_a_flag_that_suggests_tls_is_enough_to_ask(certificate: str, hint: list[str]) -> None:
    with service(["127.0.0.1", 0], tls=certificate) as (pid, (port,)):
        assert set_up("node_exporter", *hint, pid=pid)["url"] == f"https://127.0.0.1:{port}"


def test_without_any_hint_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_setup._http, "speaks_tls", lambda *args, **options: pytest.fail("it was asked"))
    monkeypatch.setattr(_setup._http, "get", lambda *args, **options: pytest.fail("it was asked"))
    trust = {"SSL_CERT_FILE": "/etc/ssl/cert.pem"}
    with service(["127.0.0.1", 0], variables=trust) as (pid, (port,)):
        assert set_up("node_exporter", pid=pid)["url"] == f"http://127.0.0.1:{port}"


# -- files --------------------------------------------------------------------------------------------------------


def test_relative_paths_begin_at_the_directory_of_the_process(tmp_path: pathlib.Path) -> None:
    for name in ("prometheus.yml", "web.yml"):
        (tmp_path / name).write_text("a: 1\n")
    (tmp_path / "data").mkdir()
    flags = ["--config.file=prometheus.yml", "--web.config.file=./web.yml", "--storage.tsdb.path=data/"]
    with service(["127.0.0.1", 0], cwd=str(tmp_path)) as (pid, _ports):
        found = set_up("prometheus", *flags, pid=pid, WorkingDirectory="/elsewhere")
        usual = _setup.set_up(CATALOG["prometheus"], unit(pid), ["/x"])
    at = {name: str(tmp_path / name) for name in ("prometheus.yml", "web.yml", "data")}
    assert (found["config"], found["web_config"], found["data"]) == tuple(at.values())
    assert (usual["config"], usual["data"]) == (at["prometheus.yml"], at["data"])
    assert "missing" not in found


def test_where_nothing_runs_they_begin_at_the_working_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "am.yml").touch()
    flags = ["--config.file=am.yml", "--storage.path=am-data"]
    found = set_up("alertmanager", *flags, WorkingDirectory=f"!{tmp_path}")
    assert (found["config"], found["data"]) == (str(tmp_path / "am.yml"), str(tmp_path / "am-data"))
    assert set_up("alertmanager", *flags, WorkingDirectory="~", User="root")["data"] == "/root/am-data"
    assert set_up("alertmanager", *flags)["data"] == "/am-data"


def test_a_unit_with_a_root_of_its_own_has_its_files_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "p.yml").touch()
    flags = ["--config.file=/etc/p.yml", "--storage.tsdb.path=data"]
    found = set_up("prometheus", *flags, RootDirectory=str(tmp_path), WorkingDirectory="/var")
    assert (found["config"], found["data"]) == (f"{tmp_path}/etc/p.yml", f"{tmp_path}/var/data")


def test_a_declared_file_that_can_not_be_kept_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "web.yml").touch()
    flags = [f"--config.file={tmp_path}/gone.yml", f"--web.config.file={tmp_path}/web.yml"]
    assert set_up("prometheus", *flags)["missing"] == [f"{tmp_path}/gone.yml"]
    assert "missing" not in set_up("prometheus", *flags[1:])


def test_a_configuration_of_several_files_is_named_whole(tmp_path: pathlib.Path) -> None:
    for name in ("a.yml", "b.yml", "d/c.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = set_up("snmp_exporter", f"--config.file={tmp_path}/[ab].yml", f"--config.file={tmp_path}/d")
    assert found["config_files"] == [f"{tmp_path}/{name}" for name in ("a.yml", "b.yml", "d/c.yml")]
    assert "missing" not in found


def test_loki_s_data_is_where_its_configuration_says(tmp_path: pathlib.Path) -> None:
    (tmp_path / "loki.yml").write_text("common:\n  path_prefix: data/loki\n")
    found = set_up("loki", f"-config.file={tmp_path}/none.yml,{tmp_path}/loki.yml", WorkingDirectory="/srv")
    assert (found["config"], found["data"]) == (f"{tmp_path}/loki.yml", "/srv/data/loki")


def test_arguments_in_a_file_count_like_others(tmp_path: pathlib.Path) -> None:
    (tmp_path / "args").write_text("--web.listen-address=:9446\n--api-token=geheim\n")
    found = set_up("node_exporter", "@args", WorkingDirectory=str(tmp_path))
    assert found["url"] == "http://127.0.0.1:9446"
    assert found["flags"] == ["web.listen-address", "api-token"]
    assert "geheim" not in repr(found)


def test_of_the_variables_of_a_process_only_names_are_told() -> None:
    with service(["127.0.0.1", 0], variables={"DATA_SOURCE_NAME": "geheim", "INVOCATION_ID": "1"}) as (pid, _ports):
        found = set_up("node_exporter", pid=pid)
    assert "DATA_SOURCE_NAME" in found["environment"]
    assert "INVOCATION_ID" not in found["environment"]
    assert "geheim" not in repr(found)
