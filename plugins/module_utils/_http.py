# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. One HTTP request to a service of this very host: no proxy, no redirect, no trust in certificates needed."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ssl
import typing as t
import urllib.parse

from . import _deadline, _files
from ._errors import HostError

_BODY_LIMIT = 32 << 20
_SECRET_LIMIT = 1 << 16


class Answer(t.NamedTuple):
    """What came back. ``status`` is None if nothing did; ``error`` then says why, and also that ``body`` is cut."""

    status: int | None
    body: str
    error: str = ""


def get(url: str, *, timeout: float = 5, headers: dict[str, str] | None = None) -> Answer:
    """GET a URL of this host; see C(ask)."""
    return ask("GET", url, timeout=timeout, headers=headers)


def ask(
    method: str, url: str, *, body: str | None = None, timeout: float = 5, headers: dict[str, str] | None = None
) -> Answer:
    """Send one request to a URL of this host.

    The certificate isn't checked: it names the service's public name, and one asks for it at the loopback address.

    :param timeout: seconds for the whole exchange, from the look-up of the name to the last byte of the answer.
    """

    def exchange() -> Answer:
        parts = urllib.parse.urlsplit(url)
        with contextlib.closing(_connection(parts, timeout)) as connection:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            content = None if body is None else body.encode()
            connection.request(method, target, body=content, headers={"Accept": "*/*", **(headers or {})})
            response = connection.getresponse()
            received = response.read(_BODY_LIMIT + 1)
            error = f"its answer is cut after {_BODY_LIMIT >> 20} MiB" if len(received) > _BODY_LIMIT else ""
            return Answer(response.status, received[:_BODY_LIMIT].decode("utf-8", "replace"), error)

    try:
        return _deadline.within(timeout, exchange)
    except (OSError, ValueError, http.client.HTTPException) as exc:
        return Answer(None, "", getattr(exc, "strerror", None) or str(exc) or type(exc).__name__)


def port_of(url: str) -> int:
    """The port that a URL leads to; 0 if it names none that there can be."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError:
        return 0


def _connection(parts: urllib.parse.SplitResult, timeout: float) -> http.client.HTTPConnection:
    if parts.scheme != "https":
        return http.client.HTTPConnection(parts.netloc, timeout=timeout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=context)


def login(auth: dict[str, t.Any] | None) -> dict[str, str]:
    """The header of a login whose secret is in a file of this host: HTTP's basic one, or a bearer token.

    :param auth: C(user) with C(password_file), or C(token_file). None, or nothing in it: no login.
    :raises HostError: if the file can't be read.
    """
    given = auth or {}
    if given.get("token_file"):
        return {"Authorization": f"Bearer {_secret(given['token_file'])}"}
    if given.get("user") and given.get("password_file"):
        pair = f"{given['user']}:{_secret(given['password_file'])}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _secret(path: str) -> str:
    try:
        secret = _files.read_whole(path, most=_SECRET_LIMIT).decode().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or "it is no text"
        raise HostError(f"the login can't be read from {path}: {why}", key="health.login") from None
    if not secret.isprintable():
        raise HostError(f"the login can't be read from {path}: it must be one line of text", key="health.login")
    return secret
