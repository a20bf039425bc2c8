# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQLite's files are real. Of MySQL and PostgreSQL there are stand-ins here, that say what those do say."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import sqlite3
import struct
import threading
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _command, _observe_database, _systemd
from ansible_collections.observability.stack.plugins.module_utils._observe import Scene, observe
from ansible_collections.observability.stack.tests.unit.slow_peers import Peer, listening
from ansible_collections.observability.stack.tests.unit.support import Data, snapshot


def seen(**probe: t.Any) -> Data:
    unit = _systemd.Unit("a.service", "loaded", "active", "running", "success", 1, 0, {})
    return observe(Scene(_command.run, {"url": "http://127.0.0.1:1"}, unit), {"kind": "database", **probe})


@contextlib.contextmanager
def speaking(listener: socket.socket, reply: bytes, heard: list[bytes] | None = None) -> t.Iterator[None]:
    """A server that hears who connects, if it is to, and says one thing."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _address = listener.accept()
            with client:
                if heard is not None:
                    heard.append(client.recv(1000))
                client.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    listener.close()
    thread.join(10)


def asked(reply: bytes, heard: list[bytes] | None = None, **probe: t.Any) -> Data:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with speaking(listener, reply, heard):
            return seen(address=address, **probe)


# -- SQLite -------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "grafana with 100% of?.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE a (b TEXT)")
        connection.executemany("INSERT INTO a VALUES (?)", [("x" * 500,)] * 200)
        connection.commit()
    return path


def test_a_sound_file_is_only_read(database: pathlib.Path) -> None:
    before = snapshot(database.parent)
    assert seen(engine="sqlite", path=str(database)) == {"error": "", "says": f"{database} is sound"}
    assert snapshot(database.parent) == before


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b"no database at all" * 100), "file is not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:8192] + bytes(90_000)), "damaged"),
        (lambda path: path.unlink(), "is no file"),
    ],
    ids=["another file", "damaged", "gone"],
)
def test_a_file_that_is_not_sound_is_told(
    database: pathlib.Path, damage: t.Callable[[pathlib.Path], t.Any], says: str
) -> None:
    damage(database)
    error = seen(engine="sqlite", path=str(database))["error"]
    assert error.startswith("sqlite doesn't answer as it must: ")
    assert says in error or "malformed" in error


# -- MySQL --------------------------------------------------------------------------------------------------------


def packet(payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + b"\0" + payload


GREETING = packet(b"\x0a11.4.2-MariaDB\0" + bytes(40))


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (GREETING, "", "11.4.2-MariaDB greets"),
        (packet(b"\xff\x10\x04Too many connections"), "error 1040: Too many connections", ""),
        (packet(b"\x09x"), "it doesn't speak MySQL's protocol", ""),
        (b"SSH-2.0-OpenSSH\r\n", "it ended the connection", ""),
        (b"", "it said nothing and ended the connection", ""),
    ],
)
def test_mysql_greets_or_says_why_not(reply: bytes, error: str, says: str) -> None:
    found = asked(reply, engine="mysql")
    assert found["says"] == says
    assert found["error"] == (f"mysql doesn't answer as it must: {error}" if error else "")


def test_a_file_of_client_options_says_where_mysql_is(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mysqld.sock"))
        listener.listen()
        options = f"!includedir /etc\n[client]\nuser = a\npassword = 100%\nsocket = {tmp_path}/mysqld.sock\nssl\n"
        (tmp_path / "my.cnf").write_text(options)
        with speaking(listener, GREETING):
            assert seen(engine="mysql", defaults_file=str(tmp_path / "my.cnf"))["says"] == "11.4.2-MariaDB greets"


def test_no_file_of_client_options_is_told_without_what_is_in_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "my.cnf").write_text("geheim\n")
    error = seen(engine="mysql", defaults_file=str(tmp_path / "my.cnf"))["error"]
    assert error == f"mysql doesn't answer as it must: {tmp_path}/my.cnf is no file of client options"


# -- PostgreSQL ---------------------------------------------------------------------------------------------------


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("!I", len(payload) + 4) + payload


def refusal(code: str, text: str) -> bytes:
    return message(b"E", f"SFATAL\0C{code}\0M{text}\0\0".encode())


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (message(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"), "", "it asks for a login"),
        (message(b"R", bytes(4)), "", "it lets in"),
        (refusal("28000", "no pg_hba.conf entry"), "", "it refuses this login, and so works (28000: no pg_hba.conf"),
        (refusal("57P03", "the database system is starting up"), "error 57P03: the database system is starting up", ""),
        (b"HTTP/1.1 400 Bad Request\r\n", "it doesn't speak PostgreSQL's protocol", ""),
        (b"", "it said nothing", ""),
    ],
)
def test_postgresql_asks_for_a_login_or_says_why_not(reply: bytes, error: str, says: str) -> None:
    heard: list[bytes] = []
    found = asked(reply, heard, engine="postgresql", user="probe")
    assert found["says"].startswith(says)
    assert (error in found["error"], bool(found["error"])) == (True, bool(error))
    assert heard[0][4:] == struct.pack("!I", 196608) + b"user\0probe\0database\0postgres\0\0"
    assert int.from_bytes(heard[0][:4], "big") == len(heard[0])


def test_where_no_database_is_nobody_answers(tmp_path: pathlib.Path) -> None:
    for engine in ("mysql", "postgresql"):
        error = seen(engine=engine, socket=str(tmp_path / "gone"))["error"]
        assert error == f"{engine} doesn't answer as it must: No such file or directory"


# -- peers that never come to an end ------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [Peer(b"", b""), Peer(b"", b"R")], ids=["silence", "drip"])
@pytest.mark.parametrize("engine", ["mysql", "postgresql"])
def test_a_database_that_drips_is_left_in_time(engine: str, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_observe_database, "_TIMEOUT", 0.4)
    with listening(peer) as port:
        began = time.monotonic()
        assert "timed out" in seen(engine=engine, address=f"127.0.0.1:{port}")["error"]
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_of_options_that_is_none_is_an_error_at_once(
    kind: t.Callable[[pathlib.Path], t.Any], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "my.cnf"
    kind(path)
    began = time.monotonic()
    assert "not a regular file" in seen(engine="mysql", defaults_file=str(path))["error"]
    assert time.monotonic() - began < 1


def test_a_database_file_that_is_none_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "grafana.db")
    assert f"{tmp_path}/grafana.db is no file" in seen(engine="sqlite", path=str(tmp_path / "grafana.db"))["error"]
