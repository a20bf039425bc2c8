# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A web server that keeps what it was asked with, and answers as a test wants it."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import typing as t

Reply = tuple[int, dict[str, str], bytes]
Headers = dict[str, str]


class Request(t.NamedTuple):
    """One request; the names of its headers in small letters."""

    method: str
    path: str
    headers: Headers


class Site:
    """A real HTTP server on this machine. ``replies`` by path: an answer, or a function of the request's headers.

    ``url`` and ``other_url`` are two hosts to a client.
    """

    def __init__(self) -> None:
        self.replies: dict[str, Reply | t.Callable[[Headers], Reply]] = {}
        self.asked: list[Request] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                request = Request(self.command, self.path, {name.lower(): text for name, text in self.headers.items()})
                site.asked.append(request)
                reply = site.replies.get(self.path, (404, {}, b"no such page"))
                status, headers, body = reply(request.headers) if callable(reply) else reply
                self.send_response(status)
                for name, text in {"Content-Length": str(len(body)), **headers}.items():
                    if text:
                        self.send_header(name, text)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body if self.command == "GET" else b"")

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        port = self.server.server_address[1]
        self.url, self.other_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self.host, self.other_host = f"127.0.0.1:{port}", f"localhost:{port}"

    @contextlib.contextmanager
    def serving(self) -> t.Iterator[Site]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()


def json_reply(data: t.Any, **headers: str) -> Reply:
    return 200, {"Content-Type": "application/json", **headers}, json.dumps(data).encode()


def by_etag(reply: Reply, etag: str) -> t.Callable[[Headers], Reply]:
    """The reply, or a 304 to whoever has it."""
    status, headers, body = reply

    def answer(asked: Headers) -> Reply:
        if asked.get("if-none-match") == etag:
            return 304, {"Content-Length": "", "ETag": etag}, b""
        return status, {**headers, "ETag": etag}, body

    return answer
