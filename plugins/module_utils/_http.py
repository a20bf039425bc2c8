# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. One HTTP request to a service of this very host: no proxy, no redirect, no trust in certificates needed.

A Unix socket has the URL C(http+unix://%2Frun%2Fx.sock), with its path as the host.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import ssl
import typing as t
import urllib.parse

from . import _deadline, _files, _netns
from ._errors import HostError
from ._probes import WANTS_CERTIFICATE

_BODY_LIMIT = 32 << 20
_SECRET_LIMIT = 1 << 16
_UNIX = "+unix"

# What OpenSSL says where the peer speaks something else; and of alerts with which a server refuses a client without a
# certificate, the words in their names.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF")
_REFUSALS = ("CERTIFICATE", "HANDSHAKE_FAILURE", "UNKNOWN_CA")


class Answer(t.NamedTuple):
    """What came back. ``status`` is None if nothing did; ``error`` then says why, and also that ``body`` is cut."""

    status: int | None
    body: str
    error: str = ""


def get(
    url: str,
    *,
    timeout: float = 5,
    headers: dict[str, str] | None = None,
    auth: dict[str, t.Any] | None = None,
    network: int = 0,
) -> Answer:
    """GET a URL of this host; see C(ask)."""
    return ask("GET", url, timeout=timeout, headers=headers, auth=auth, network=network)


def ask(
    method: str,
    url: str,
    *,
    body: str | None = None,
    timeout: float = 5,
    headers: dict[str, str] | None = None,
    auth: dict[str, t.Any] | None = None,
    network: int = 0,
) -> Answer:
    """Send one request to a URL of this host.

    The certificate is checked only against the C(ca) of C(auth), and never its name: it names the service's public
    name, and one asks for it at the loopback address.

    :param timeout: seconds for the whole exchange, from the look-up of the name to the last byte of the answer.
    :param auth: the login and the client certificate; see C(login) and C(_context).
    :param network: a process in whose network the URL is asked for; 0: this process's own.
    """

    def exchange() -> Answer:
        _netns.join(network)
        with contextlib.closing(_connection(url, timeout, auth or {})) as connection:
            parts = urllib.parse.urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            content = None if body is None else body.encode()
            connection.request(
                method, target, body=content, headers={"Accept": "*/*", **login(auth), **(headers or {})}
            )
            response = connection.getresponse()
            received = response.read(_BODY_LIMIT + 1)
            error = f"its answer is cut after {_BODY_LIMIT >> 20} MiB" if len(received) > _BODY_LIMIT else ""
            return Answer(response.status, received[:_BODY_LIMIT].decode("utf-8", "replace"), error)

    def attempt() -> Answer:
        try:
            return exchange()
        except (ssl.SSLEOFError, ConnectionError):
            if url.startswith("https"):
                _raise_alert(url, timeout, auth or {})
            raise

    try:
        return _deadline.within(timeout, attempt)
    except ssl.SSLError as exc:
        return Answer(None, "", _why_no_tls(exc, auth or {}))
    except (OSError, ValueError, http.client.HTTPException, HostError) as exc:
        return Answer(None, "", getattr(exc, "strerror", None) or str(exc) or type(exc).__name__)


def _raise_alert(url: str, timeout: float, auth: dict[str, t.Any]) -> None:
    """Raise the alert with which a server refuses a client after the handshake, as TLS 1.3 does. A request that is on
    its way then can keep the alert from being seen, so nothing is sent here."""
    with contextlib.closing(_connection(url, timeout, auth)) as connection:
        connection.connect()
        connection.sock.recv(1)


def _why_no_tls(exc: ssl.SSLError, auth: dict[str, t.Any]) -> str:
    said = str(exc.reason or exc.strerror or exc)
    if "ALERT" in said and any(word in said for word in _REFUSALS):
        if auth.get("client_cert"):
            return f"it refuses the client certificate {auth['client_cert']} ({said})"
        return f"it {WANTS_CERTIFICATE} ({said})"
    return str(exc.strerror or exc)


def speaks_tls(url: str, *, timeout: float, network: int = 0) -> bool | None:
    """Whether what listens at a URL answers a TLS handshake, whatever the scheme of the URL is; None if it can't be
    connected to, or does not answer in time. A server that refuses the handshake with a TLS alert speaks TLS.

    :param network: see C(ask).
    """

    def exchange() -> bool:
        _netns.join(network)
        parts = urllib.parse.urlsplit(url)
        plain = url.replace(parts.scheme, f"http{_UNIX if parts.scheme.endswith(_UNIX) else ''}", 1)
        with contextlib.closing(_connection(plain, timeout, {})) as connection:
            connection.connect()
            try:
                _context({}).wrap_socket(connection.sock).close()
            except ssl.SSLError as exc:
                return not any(word in str(exc.reason or exc).upper().replace(" ", "_") for word in _NO_TLS)
            except ConnectionError:
                return False
            return True

    try:
        return _deadline.within(timeout, exchange)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def port_of(url: str) -> int:
    """The port that a URL leads to; 0 if it names none that there can be."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.port or (0 if parts.scheme.endswith(_UNIX) else {"https": 443}.get(parts.scheme, 80))
    except ValueError:
        return 0


def leads_to(url: str, *, port: int, unix: str) -> bool:
    """Whether a URL is that of a port, or of a Unix socket."""
    return (
        url.partition("://")[2].partition("/")[0] == urllib.parse.quote(unix, safe="") if unix else port_of(url) == port
    )


class _OnUnixSocket(http.client.HTTPConnection):
    """A connection to a Unix socket, with TLS over it if there is a context."""

    def __init__(self, path: str, timeout: float, context: ssl.SSLContext | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = f"\0{path[1:]}" if path.startswith("@") else path
        self._context = context

    def connect(self) -> None:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(self.timeout)
        try:
            client.connect(self._path)
            self.sock = self._context.wrap_socket(client) if self._context else client
        except BaseException:
            client.close()
            raise


def unix_url(path: str) -> str:
    """The URL of a Unix socket, whose path begins with C(@) if it is an abstract one."""
    return f"http{_UNIX}://{urllib.parse.quote(path, safe='')}"


def _connection(url: str, timeout: float, auth: dict[str, t.Any]) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(url)
    context = _context(auth) if parts.scheme.startswith("https") else None
    if parts.scheme.endswith(_UNIX):
        return _OnUnixSocket(urllib.parse.unquote(parts.netloc), timeout, context)
    if context:
        return http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=context)
    return http.client.HTTPConnection(parts.netloc, timeout=timeout)


def _context(auth: dict[str, t.Any]) -> ssl.SSLContext:
    """What TLS is spoken with.

    :param auth: C(client_cert), with its key in it or in C(client_key); and C(ca), which the server's certificate must
        be signed by. Each is a file of this host. None of them is needed.
    :raises HostError: if one of the files can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if auth.get("ca"):
        try:
            context.load_verify_locations(cadata=_file(auth["ca"]).decode())
        except (ssl.SSLError, ValueError):
            raise HostError(f"{auth['ca']} is no certificate of an authority", key="health.login") from None
        context.verify_mode = ssl.CERT_REQUIRED
    if auth.get("client_cert"):
        _load_certificate(context, auth["client_cert"], auth.get("client_key") or auth["client_cert"])
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Python takes certificates from paths only, and follows any link there. So each is read safely first."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        parts = dict.fromkeys((key, certificate))
        os.write(descriptor, b"\n".join(map(_file, parts)))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: b"")
    except (ssl.SSLError, ValueError) as exc:
        why = getattr(exc, "reason", None) or "it is no certificate with a key that has no password"
        raise HostError(f"the client certificate {certificate} can't be used: {why}", key="health.login") from None
    finally:
        os.close(descriptor)


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
        secret = _file(path).decode().rstrip("\r\n")
    except ValueError:
        raise HostError(f"the login can't be read from {path}: it is no text", key="health.login") from None
    if not secret.isprintable():
        raise HostError(f"the login can't be read from {path}: it must be one line of text", key="health.login")
    return secret


def _file(path: str) -> bytes:
    try:
        return _files.read_whole(path, most=_SECRET_LIMIT)
    except OSError as exc:
        raise HostError(f"the login can't be read from {path}: {exc.strerror}", key="health.login") from None
