# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Peers that are slow or never come to an end, at ports of this machine."""

from __future__ import annotations

import contextlib
import socketserver
import threading
import typing as t

_BEGUN = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _BEGUN + b"Transfer-Encoding: chunked\r\n\r\n"
_LARGE = _BEGUN + b"Content-Length: 1000000000\r\n\r\n"


class Peer(t.NamedTuple):
    """What a listener sends, whatever it is asked: C(first), and then C(again) every C(pause) seconds, without end."""

    first: bytes
    again: bytes
    pause: float = 0.05


PEERS = {
    "silence": Peer(b"", b""),
    "drip of the status line": Peer(b"HTTP/1.1 200 ", b"O"),
    "drip of a header": Peer(_BEGUN + b"X-Drip: ", b"x"),
    "drip of headers": Peer(_BEGUN, b"X-Drip: 1\r\n", 0.1),
    "flood of interim answers": Peer(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.0),
    "drip of interim answers": Peer(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "drip of the body": Peer(_LARGE, b"x"),
    "drip of a body without length": Peer(_BEGUN + b"\r\n", b"x"),
    "drip of chunks": Peer(_CHUNKED, b"1\r\nx\r\n"),
    "drip of a chunk's size": Peer(_CHUNKED, b"0"),
    "drip of a chunk's extension": Peer(_CHUNKED + b"5;", b"x"),
    "drip of trailers": Peer(_CHUNKED + b"0\r\n", b"X-Drip: 1\r\n", 0.02),
}
"""Answers over HTTP that are slow or endless, each in another place of it."""


@contextlib.contextmanager
def listening(peer: Peer) -> t.Iterator[int]:
    """A peer at a port of this machine."""
    over = threading.Event()

    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(peer.first)
                while not over.wait(peer.pause):
                    self.request.sendall(peer.again)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close, allow_reuse_address = True, False, True

    with Listener(("127.0.0.1", 0), Talk) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            over.set()
            server.shutdown()
