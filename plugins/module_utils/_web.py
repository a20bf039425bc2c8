# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. One request: what it was answered, or why not, and whether it is worth asking again.

It is made by Ansible's C(open_url), which comes in as an argument: TLS, proxies, netrc and CA certificates are those of
Ansible's own modules. Redirects are followed here and not there, where a login of the first host goes on to the next
one, and https may lead to http. A login is a header of its one request: C(open_url) shares its handlers with the other
threads.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import io
import netrc
import os
import re
import ssl
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from . import _deadline, _output
from ._argv import redact_url as shown
from ._errors import ReleaseError

_AGENT = "observability.stack"
_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_REDIRECTED = (301, 302, 303, 307, 308)
_WORTH_A_RETRY = (408, 429, 500, 502, 503, 504)
_NEVER_WORTH_A_RETRY = (
    ValueError,
    http.client.InvalidURL,
    netrc.NetrcParseError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_CONTENT_RANGE = re.compile(r"bytes[ \t]+(\d+)-(\d+)/(\d+|\*)")

_REFUSALS = {
    401: ("release.forbidden", "does it need a login? One can stand in ~/.netrc"),
    403: ("release.forbidden", "is access to it limited, or a rate limit reached?"),
    404: ("release.not_found", "is there such a release, for this architecture?"),
    407: ("release.forbidden", "the proxy needs a login; it can stand in https_proxy"),
    410: ("release.not_found", "it was taken away"),
    429: ("release.rate_limited", "too many requests; try again later"),
}
"""For a status its key and what to look for."""


class TransferError(Exception):
    """A request or a transfer that failed.

    :ivar error: what to tell the operator.
    :ivar why: the reason alone, without who was asked and what to do.
    :ivar status: what was answered, if anything was.
    :ivar again: whether the same request may go well later.
    :ivar after: seconds to wait until then; None if it wasn't said.
    """

    def __init__(
        self,
        error: ReleaseError,
        *,
        why: str = "",
        status: int | None = None,
        again: bool = False,
        after: float | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error, self.why, self.status, self.again, self.after = error, why, status, again, after


class Part(t.NamedTuple):
    """The bytes that an answer has, by C(Content-Range): the first, the last, and of how many (None: not known)."""

    first: int
    last: int
    total: int | None


def content_range(text: str | None) -> Part | None:
    """What C(bytes 0-9/10) says; None if it says nothing that can be used."""
    found = _CONTENT_RANGE.fullmatch((text or "").strip())
    return Part(int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])) if found else None


def retry_after(text: str | None, *, now: float) -> float | None:
    """Seconds until the time that C(Retry-After) tells, as a number of seconds or as a date; None if it doesn't.

    :param now: seconds since 1970. A time before it is less than 0 seconds away.
    """
    text = (text or "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        date = email.utils.parsedate_tz(text)
        return email.utils.mktime_tz(date) - now if date else None
    except (ValueError, OverflowError):
        return None


def host_of(url: str) -> str:
    """The host in a URL, with its port, if that isn't the usual one."""
    parts = urllib.parse.urlsplit(url)
    return parts.netloc.rpartition("@")[2].lower().removesuffix(_DEFAULT_PORT.get(parts.scheme, ":"))


def strong_etag(headers: t.Mapping[str, str]) -> str:
    """The ETag, if it stands for exactly these bytes (RFC 9110, 8.8.3: C(W/) says that it doesn't)."""
    etag = (headers.get("ETag") or "").strip()
    return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 1 else ""


def strong_date(headers: t.Mapping[str, str]) -> str:
    """C(Last-Modified), if no change can have the same one: it is older than the answer (RFC 9110, 8.8.2.2)."""
    modified = (headers.get("Last-Modified") or "").strip()
    try:
        dates = [email.utils.parsedate_to_datetime(text) for text in (modified, headers.get("Date") or "")]
        return modified if (dates[1] - dates[0]).total_seconds() >= 1 else ""
    except (TypeError, ValueError):  # one of them isn't there, is no date, or has no time zone
        return ""


class Response:
    """An answer to a request, to be read piece by piece.

    :ivar asked: whom the request was for.
    :ivar url: where it came from at last; with its login, if it has one.
    :ivar length: bytes that it announces; None if it doesn't.
    """

    def __init__(self, raw: t.Any, *, asked: str, url: str) -> None:
        self.raw, self.asked = raw, asked
        self.url, self.status = url, int(getattr(raw, "status", None) or 200)
        self.headers: t.Mapping[str, str] = raw.headers
        announced = (self.headers.get("Content-Length") or "").strip()
        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "").lower()
        self.length = int(announced) if announced.isdigit() and not chunked else None
        self._timed: _Timed | None = None
        with contextlib.suppress(AttributeError):  # a file has no socket; Ansible itself takes this way to it
            self._timed = _Timed(raw.fp, raw.fp.raw._sock)
            raw.fp = io.BufferedReader(self._timed)

    def read(self, most: int, *, within: float = 30) -> bytes:
        """What has come by now, or else the next bytes that come; none at the end.

        :param within: seconds. Bytes that belong to no content, such as the frame of a chunk, don't make it longer.
        :raises TransferError: if the connection broke off, or nothing came in time.
        """
        with _told(self.asked, self.url):
            if self._timed:
                self._timed.until = time.monotonic() + within
            return t.cast("bytes", self.raw.read1(most))


class _Timed(io.RawIOBase):
    """What comes from a socket until a certain time.

    :ivar until: on the monotonic clock.
    """

    def __init__(self, source: io.BufferedReader, connection: t.Any) -> None:
        self._source, self._connection, self.until = source, connection, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        data = self._source.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()


@contextlib.contextmanager
def opened(
    url: str,
    *,
    open_url: t.Callable[..., t.Any],
    now: float,
    headers: t.Mapping[str, str] | None = None,
    connect: float = 30,
) -> t.Iterator[Response]:
    """The answer to a request for a file as it is: not compressed for the way.

    :param open_url: that of C(ansible.module_utils.urls).
    :param now: seconds since 1970.
    :param connect: seconds until an answer begins, with all redirects.
    :raises TransferError: if there is none, or one that isn't a success. C(file:///path) is answered, too.
    """
    if not re.match("https?://[^/]|file:///", url):
        raise TransferError(
            ReleaseError(f"{shown(url)} is no address of a file: write https://host/path", key="release.address")
        )
    wanted = {"Accept-Encoding": "identity", **(headers or {})}
    with contextlib.ExitStack() as stack:
        response = stack.enter_context(answered(url, open_url=open_url, headers=wanted, timeout=connect))
        if response.status in _REDIRECTED:
            raise _misled(url, "nowhere")
        if not 200 <= response.status < 300:
            raise _refusal(response, now=now)
        yield response


@contextlib.contextmanager
def answered(
    url: str,
    *,
    open_url: t.Callable[..., t.Any],
    headers: t.Mapping[str, str] | None = None,
    secrets: t.Callable[[str], dict[str, str]] = lambda _host: {},
    method: str = "GET",
    timeout: float = 30,
    redirects: int = 10,
) -> t.Iterator[Response]:
    """The answer to a request, whatever its status, once it leads nowhere else.

    :param secrets: headers for one host only: for its name, with its port, if that isn't the usual one. They are used
        instead of a login in the URL or in netrc. A ValueError is told as what keeps it from being asked.
    :param timeout: seconds until the answer begins: for names, connections, and all headers of all redirects.
    :param redirects: how many are followed.
    :raises TransferError: if there is none.
    """
    here, seen, end = url, [url], time.monotonic() + timeout
    while True:
        with _told(url, here):
            own = secrets(host_of(here))
            given = {**(headers or {}), **own}
            ask = functools.partial(_sent, here, open_url, given, own=bool(own), method=method, timeout=timeout)
            raw = _until(end, ask, timeout)
        with contextlib.closing(raw):
            response = Response(raw, asked=url, url=here)
            location = (response.headers.get("Location") or "").strip()
            if response.status not in _REDIRECTED or not location:
                yield response
                return
            with _told(url, here):
                here = _next(here, location, asked=url)
        if here in seen or len(seen) > redirects:
            raise _misled(url, f"in a circle, or further than {redirects} times")
        seen.append(here)


def _until(end: float, ask: t.Callable[[], t.Any], timeout: float) -> t.Any:
    try:
        return _deadline.within(end - time.monotonic(), ask)
    except TimeoutError as exc:
        raise TimeoutError(f"timed out: no answer within {timeout:g} s") from exc


def _sent(
    url: str, open_url: t.Callable[..., t.Any], headers: dict[str, str], *, own: bool, method: str, timeout: float
) -> t.Any:
    """An answer of one host, whatever its status.

    :param own: whether the headers tell this host who asks; otherwise the URL or netrc may.
    """
    login, at, _host = urllib.parse.urlsplit(url).netloc.rpartition("@")
    signature: dict[str, t.Any] = {"use_netrc": not own}
    if at and not own:
        user, _colon, password = map(urllib.parse.unquote, login.partition(":"))
        signature = {"url_username": user, "url_password": password, "force_basic_auth": True}
    try:
        return open_url(
            url.replace(login + at, "", 1),
            headers=headers,
            method=method,
            timeout=timeout,
            http_agent=_AGENT,
            follow_redirects="none",
            decompress=False,
            **signature,
        )
    except urllib.error.HTTPError as exc:
        return exc


def _next(here: str, location: str, *, asked: str) -> str:
    """Where a redirect leads. A login in the address stays with its host, and none comes from elsewhere."""
    old, new = (urllib.parse.urlsplit(url) for url in (here, urllib.parse.urljoin(here, location.replace(" ", "%20"))))
    if new.scheme not in ("http", "https"):
        raise _misled(asked, f"to {new.scheme}, which no release comes by")
    if old.scheme == "https" and new.scheme == "http":
        raise _misled(asked, f"from https to http ({shown(new.geturl())}), where anybody on the way can change it")
    login, at, _host = old.netloc.rpartition("@")
    same = (old.scheme, host_of(here)) == (new.scheme, host_of(new.geturl()))
    return new._replace(netloc=(login + at if same else "") + new.netloc.rpartition("@")[2]).geturl()


def _misled(url: str, where: str) -> TransferError:
    return TransferError(
        ReleaseError(
            f"{shown(url)} leads {where}: it is not followed. Set upgrade_release_mirror to a place that has the file",
            key="release.redirect",
        ),
        why=f"it leads {where}",
    )


_OF_PROXIES = (407, 502, 503, 504)
"""Answers that a proxy gives of its own."""


def _refusal(response: Response, *, now: float) -> TransferError:
    status, after = response.status, retry_after(response.headers.get("Retry-After"), now=now)
    key, hint = _REFUSALS.get(status, ("release.unavailable", "try again, or set upgrade_release_mirror"))
    says = f"{_named(response.asked, response.url)} answered {status} {http.client.responses.get(status, '')}".rstrip()
    if status in _OF_PROXIES:
        says += _by_proxy(response.url)
    return TransferError(
        ReleaseError(f"{says}: {hint}", key=key),
        status=status,
        again=status in _WORTH_A_RETRY,
        after=None if after is None else max(0.0, after),
    )


def _named(asked: str, url: str) -> str:
    return shown(asked) if url == asked else f"{shown(asked)} (by way of {urllib.parse.urlsplit(url).hostname})"


@contextlib.contextmanager
def _told(asked: str, url: str) -> t.Iterator[None]:
    """Tell what kept a request from an answer as what it means."""
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException, netrc.NetrcParseError) as exc:
        reason = getattr(exc, "reason", None) or exc
        reason = reason if isinstance(reason, Exception) else exc
        text = " ".join(str(getattr(exc, "reason", None) or exc).split()) or type(reason).__name__
        if isinstance(reason, http.client.InvalidURL):  # it quotes what it takes for the port: a part of a password
            text = "it is no address; special characters in a login must be percent-encoded"
        text = _output.redact(text, _output.secrets_of([asked, url]))
        raise _no_answer(_named(asked, url), text + _by_proxy(url), reason, proxied=bool(proxy_of(url))) from exc


class Proxy(t.NamedTuple):
    """The proxy that a URL is asked by: the variable of the environment that names it, and its host and port."""

    variable: str
    address: str


def proxy_of(url: str) -> Proxy | None:
    """The proxy that the environment names for a URL; None if it is asked directly."""
    try:
        there = urllib.parse.urlsplit(url)
    except ValueError:  # it is no URL, which the request itself tells
        return None
    named = urllib.request.getproxies_environment().get(there.scheme, "")
    if not named or urllib.request.proxy_bypass_environment(there.netloc.rpartition("@")[2]):  # type: ignore[attr-defined]
        return None
    variables = [name for name in (f"{there.scheme}_proxy", f"{there.scheme}_PROXY".upper()) if os.environ.get(name)]
    address = named.rpartition("://")[2].rpartition("@")[2].partition("/")[0]
    return Proxy(variables[0] if variables else f"{there.scheme}_proxy", shown(address))


def _by_proxy(url: str) -> str:
    """What to say of the proxy that stands between; without its login."""
    proxy = proxy_of(url)
    return f" (by way of the proxy {proxy.address}, which {proxy.variable} names)" if proxy else ""


FIX_PROXY = (
    "See whether that proxy can be reached, or name the host in no_proxy (names and addresses; a network such as "
    "10.0.0.0/8 has no effect there)"
)
"""What to do about a proxy that keeps a server from answering."""


def _no_answer(name: str, text: str, reason: Exception, *, proxied: bool = False) -> TransferError:
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = "does this machine know the authority that signed its certificate (SSL_CERT_FILE)?"
        return TransferError(
            ReleaseError(f"{name} can't be trusted: {text}: {hint}", key="release.untrusted"), why=text
        )
    if isinstance(reason, TimeoutError):
        error = ReleaseError(
            f"{name} is silent: {text}. {FIX_PROXY if proxied else 'Try again, or set upgrade_release_mirror'}",
            key="release.stalled",
        )
        return TransferError(error, why=text, again=True)
    error = ReleaseError(
        f"{name} can't be fetched: {text}. {FIX_PROXY if proxied else 'Without internet, set upgrade_release_mirror'}",
        key="release.not_found" if isinstance(reason, FileNotFoundError) else "release.unavailable",
    )
    return TransferError(error, why=text, again=not isinstance(reason, _NEVER_WORTH_A_RETRY))
