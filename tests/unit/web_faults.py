# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real HTTP server that knows ranges, as those of releases do, and goes wrong in all the ways that servers do."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import ssl
import threading
import typing as t

from ansible.module_utils import urls
from ansible_collections.observability.stack.plugins.plugin_utils import _download

if t.TYPE_CHECKING:
    import pytest

MODIFIED = "Thu, 01 Oct 2026 10:00:00 GMT"


@dataclasses.dataclass
class File:
    """What a server has at a path."""

    content: bytes
    etag: str = '"one"'
    modified: str = MODIFIED
    ranges: bool = True


@dataclasses.dataclass
class Asked:
    """A request, and how many bytes of a body were sent for it."""

    path: str
    headers: dict[str, str]
    sent: int = 0

    @property
    def range(self) -> str:
        return self.headers.get("Range", "")


@dataclasses.dataclass
class Reply:
    """An answer before it is sent. A fault changes it.

    ``cut`` is after how many bytes the connection is closed, ``hold`` what is waited for before it is, ``piece`` how
    many bytes are sent at once.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = None
    hold: threading.Event | None = None
    chunked: bool = False
    piece: int = 1 << 20


Fault = t.Callable[[Reply], t.Any]


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection to a server, for one request."""

    def do_GET(self) -> None:
        origin: Origin = self.server.origin
        request = Asked(self.path, dict(self.headers.items()))
        origin.asked.append(request)
        reply = origin.reply(request)
        fault = origin.faults.pop(0) if origin.faults else origin.always
        if fault:
            fault(reply)
        with contextlib.suppress(OSError):
            self._send(reply, request)
        self.close_connection = True

    def _send(self, reply: Reply, request: Asked) -> None:
        self.send_response(reply.status)
        if reply.chunked:
            reply.headers["Transfer-Encoding"] = "chunked"
            reply.headers.pop("Content-Length", None)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        body = reply.body[: reply.cut]
        for start in range(0, len(body), reply.piece):
            piece = body[start : start + reply.piece]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.chunked else piece)
            request.sent += len(piece)
        if reply.hold:
            reply.hold.wait(30)
        if reply.chunked and reply.cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args: t.Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128
    origin: Origin


class Origin:
    """The server. ``faults`` are of the requests in turn: one each, while there are any. None is no fault."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, File] = {}
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.asked: list[Asked] = []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.origin = self
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def reply(self, request: Asked) -> Reply:
        """The right answer."""
        file = self.files.get(request.path.partition("?")[0])
        if file is None:
            return Reply(404, {"Content-Length": "0"}, b"")
        headers = {"ETag": file.etag, "Last-Modified": file.modified}
        headers = {name: value for name, value in headers.items() if value}
        first, total = int(request.range[6:-1] or 0) if request.range else 0, len(file.content)
        condition = request.headers.get("If-Range", "")
        if not request.range or not file.ranges or (condition and condition not in headers.values()):
            return Reply(200, {**headers, "Content-Length": str(total)}, file.content)
        if first >= total:
            return Reply(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"}, b"")
        headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        return Reply(206, {**headers, "Content-Length": str(total - first)}, file.content[first:])

    def sent(self, path: str) -> int:
        """Bytes of bodies that were sent for a path."""
        return sum(request.sent for request in self.asked if request.path == path)

    def ranges(self, path: str) -> list[str]:
        """What was asked for of a path, in turn: C(bytes=N-), or nothing for all of it."""
        return [request.range for request in self.asked if request.path == path]

    @contextlib.contextmanager
    def serving(self) -> t.Iterator[Origin]:
        self._thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()


# -- faults -------------------------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """An answer without the file. C(Retry_After) stands for C(Retry-After)."""

    def change(reply: Reply) -> None:
        reply.status, reply.body = code, body
        reply.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        reply.headers["Content-Length"] = str(len(body))

    return change


def redirect(to: str, code: int = 302) -> Fault:
    return status(code, Location=to)


def page(reply: Reply) -> None:
    """A web page, with success."""
    status(200, b"<!DOCTYPE html><title>Please log in</title>", Content_Type="text/html")(reply)


def header(name: str, value: str | None) -> Fault:
    """A header is another, or isn't there."""

    def change(reply: Reply) -> None:
        reply.headers.pop(name, None)
        if value is not None:
            reply.headers[name] = value

    return change


def dies_after(count: int) -> Fault:
    """The connection ends in the middle of the body."""
    return lambda reply: setattr(reply, "cut", count)


def stalls_after(count: int, hold: threading.Event) -> Fault:
    """Nothing more comes, but the connection stays."""

    def change(reply: Reply) -> None:
        reply.cut, reply.hold = count, hold

    return change


def drips(piece: int) -> Fault:
    """A few bytes at once."""
    return lambda reply: setattr(reply, "piece", piece)


def chunked(reply: Reply) -> None:
    reply.chunked = True


def both(*faults: Fault) -> Fault:
    def change(reply: Reply) -> None:
        for fault in faults:
            fault(reply)

    return change


def one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ansible read the CA certificates once instead of for each request, which takes most of a test's time."""
    monkeypatch.setattr(urls, "make_context", functools.cache(urls.make_context))


class Hands:
    """Time and chance that a test has in its hands. ``tools`` is what a transfer gets.

    ``tick`` is how many seconds pass each time that somebody looks at the clock.
    """

    def __init__(self, wall: float = 1_795_000_000) -> None:
        self.now, self.began, self.tick, self.free = 100.0, wall, 0.0, 1 << 40
        self.slept: list[float] = []
        self.said: list[str] = []
        self.warned: list[str] = []
        self.tools = _download.TOOLS._replace(
            clock=self.clock,
            wall=lambda: self.began + self.now - 100,
            sleep=self.sleep,
            chance=lambda: 1.0,
            free=lambda directory: self.free,
            say=self.said.append,
            warn=self.warned.append,
        )

    def clock(self) -> float:
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
