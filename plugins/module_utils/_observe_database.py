# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What probes see of a database: whether it takes part in its own protocol. A login is no part of that."""

from __future__ import annotations

import configparser
import os
import socket
import sqlite3
import struct
import time
import typing as t
import urllib.parse

from . import _deadline, _files, _netns
from ._observe_web import split_address

if t.TYPE_CHECKING:
    from ._scene import Observer, Scene
    from ._verdicts import Observation, Probe

_TIMEOUT = 5.0
"""Seconds for the whole exchange."""

_CHECK_TIME = 60.0
"""Seconds for the check of an SQLite file. A check that takes longer proves nothing."""

_PACKET_LIMIT = _FILE_LIMIT = 1 << 16
_MYSQL_PORT, _POSTGRES_PORT = 3306, 5432
_POSTGRES_VERSION = 3 << 16  # of its protocol: 3.0
_POSTGRES_LOGIN_ERRORS = ("28", "3D")
"""Classes of SQLSTATE with which a server that works refuses who asks: authorization, and a database's name."""


class _RefusedError(Exception):
    """The database answered, and said no."""


def _sqlite(probe: Probe) -> str:
    path = probe["path"] or ""
    if not os.path.isfile(path):
        raise _RefusedError(f"{path or 'path'} is no file")
    over = time.monotonic() + _CHECK_TIME
    database = sqlite3.connect(f"file:{urllib.parse.quote(path)}?mode=ro", uri=True, timeout=_TIMEOUT)
    try:
        database.set_progress_handler(lambda: int(time.monotonic() > over), 10000)
        found = [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")]
    finally:
        database.close()
    if found != ["ok"]:
        raise _RefusedError(f"{path} is damaged: {' '.join(found)}")
    return f"{path} is sound"


def _mysql(probe: Probe) -> str:
    """What MySQL and MariaDB say first (protocol 10), before anybody logs in."""
    with _connected(probe, *_mysql_place(probe)) as client:
        length = int.from_bytes(_exactly(client, 4)[:3], "little")
        packet = _exactly(client, min(length, _PACKET_LIMIT))
    if packet[:1] == b"\xff":
        code = int.from_bytes(packet[1:3], "little")
        raise _RefusedError(f"error {code}: {packet[3:].decode('utf-8', 'replace').lstrip('#')}")
    if packet[:1] != b"\x0a":
        raise _RefusedError("it doesn't speak MySQL's protocol")
    return f"{packet[1:].split(bytes(1), 1)[0].decode('utf-8', 'replace')} greets"


def _mysql_place(probe: Probe) -> tuple[str | None, str]:
    """The socket, or the address, as the probe or its file of client options says."""
    options: dict[str, str | None] = {}
    if probe["defaults_file"]:
        parser = configparser.ConfigParser(allow_no_value=True, strict=False, interpolation=None)
        content = _files.read_whole(probe["defaults_file"], most=_FILE_LIMIT).decode()
        lines = [line for line in content.splitlines() if not line.startswith("!")]
        try:
            parser.read_string("\n".join(lines))
        except configparser.Error:  # its message may show a line with a password
            raise _RefusedError(f"{probe['defaults_file']} is no file of client options") from None
        options = dict(parser["client"]) if parser.has_section("client") else {}
    named = f"{options.get('host') or '127.0.0.1'}:{options.get('port') or _MYSQL_PORT}"
    asked_socket = probe["socket"] or (None if probe["address"] else options.get("socket"))
    return asked_socket, probe["address"] or named


def _postgresql(probe: Probe) -> str:
    """What PostgreSQL answers to who begins a session: how to log in, or why not."""
    user = (probe["user"] or "postgres").encode()
    words = b"\0".join([b"user", user, b"database", b"postgres", b"", b""])
    body = struct.pack("!I", _POSTGRES_VERSION) + words
    with _connected(probe, probe["socket"], probe["address"] or "127.0.0.1", port=_POSTGRES_PORT) as client:
        client.sendall(struct.pack("!I", len(body) + 4) + body)
        kind, length = struct.unpack("!cI", _exactly(client, 5))
        known = kind in (b"R", b"E")
        packet = _exactly(client, min(max(length - 4, 0), _PACKET_LIMIT)) if known else b""
    if kind == b"R":
        return "it asks for a login" if packet[:4] != bytes(4) else "it lets in"
    if not known:
        raise _RefusedError("it doesn't speak PostgreSQL's protocol")
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in packet.split(b"\0") if part}
    code, said = fields.get(b"C", "?"), fields.get(b"M", "")
    if code.startswith(_POSTGRES_LOGIN_ERRORS):
        return f"it refuses this login, and so works ({code}: {said})"
    raise _RefusedError(f"error {code}: {said}")


def _connected(probe: Probe, path: str | None, address: str, *, port: int = _MYSQL_PORT) -> socket.socket:
    if not path:
        return socket.create_connection(split_address(address, port=port), timeout=_TIMEOUT)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(_TIMEOUT)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def _exactly(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = client.recv(length - len(data))
        if not chunk:
            raise _RefusedError("it ended the connection" if data else "it said nothing and ended the connection")
        data += chunk
    return data


_ENGINES: dict[str, t.Callable[[Probe], str]] = {"sqlite": _sqlite, "mysql": _mysql, "postgresql": _postgresql}


def _database(scene: Scene, probe: Probe) -> Observation:
    limit = scene.time_for(_CHECK_TIME if probe["engine"] == "sqlite" else _TIMEOUT)
    try:
        return {"error": "", "says": _deadline.within(limit, lambda: _say(probe, network=scene.unit.main_pid))}
    except (_RefusedError, OSError, ValueError, sqlite3.Error) as exc:
        why = scene.redact(getattr(exc, "strerror", None) or str(exc))
        return {"error": f"{probe['engine']} doesn't answer as it must: {why}", "says": ""}


def _say(probe: Probe, *, network: int) -> str:
    _netns.join(network)
    return _ENGINES[probe["engine"]](probe)


OBSERVERS: dict[str, Observer] = {"database": _database}
