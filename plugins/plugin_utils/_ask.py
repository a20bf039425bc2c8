# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. One small question to a web server, and what it means if it doesn't answer it.

TLS, proxies, CA bundle and netrc are as Ansible's own modules have them. Redirects are followed here, because each host
gets its own token only.
"""

from __future__ import annotations

import contextlib
import email.message
import email.utils
import http.client
import netrc
import re
import time
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import open_url

from ..module_utils._errors import ReleaseError
from ._sources import shown

LIMIT = 16 << 20
"""Bytes that an answer may have."""
DEADLINE = 120
"""Seconds that an answer may take from its first byte to its last."""

if t.TYPE_CHECKING:
    Headers = t.Union[t.Mapping[str, str], email.message.Message]

_AGENT = "observability.stack"
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 5
_CHUNK = 1 << 16
_DEFAULT_PORT = {"http": ":80", "https": ":443"}


class Answer(t.NamedTuple):
    """What a server said, whether it is what was asked for or not."""

    status: int
    headers: Headers
    body: bytes
    host: str
    """Who answered, after all redirects; with its port, if that isn't the usual one."""
    signed: bool
    """Whether a token was sent to it."""


def ask(
    url: str,
    *,
    headers: t.Mapping[str, str] | None = None,
    tokens: t.Mapping[str, str] | None = None,
    method: str = "GET",
    timeout: float = 10,
) -> Answer:
    """What a server answers.

    :param tokens: by host, with its port if the URL has one: C(mirror.example:8443).
    :param timeout: seconds to wait for the connection, and for each piece of the answer.
    :raises ReleaseError: if there is no answer, or none of a bearable size. The status can be any.
    """
    try:
        return _follow(url, dict(headers or {}), tokens or {}, method, timeout)
    except (OSError, ValueError, http.client.HTTPException, netrc.NetrcParseError) as exc:
        reason = " ".join(str(getattr(exc, "reason", None) or exc).split()) or type(exc).__name__
        raise ReleaseError(
            f"{shown(url)} can't be asked: {reason}. Without internet, use upgrade_release_index or "
            "upgrade_release_mirror",
            key="release.unavailable",
        ) from exc


def refusal(url: str, answer: Answer, *, missing: str) -> ReleaseError:
    """What an answer that isn't the one asked for means, and the way out.

    :param missing: what it means if there is no such page.
    """
    says = f"{shown(url)} answered {answer.status}"
    if _is_rate_limit(answer):
        until = _limited_until(answer.headers)
        over = f"used up until {until}" if until else "used up"
        token = "" if answer.signed else "set upgrade_release_tokens, or "
        text = f"the rate limit of {answer.host} is {over}; {token}use upgrade_release_index"
        return ReleaseError(f"{says}: {text}", key="release.rate_limited")
    if answer.status in (401, 403):
        text = f"the token for {answer.host} isn't good for this" if answer.signed else "it needs a token"
        text += f"; set upgrade_release_tokens: {{{answer.host}: ...}}"
        return ReleaseError(f"{says}: {text}", key="release.forbidden")
    if answer.status in (404, 410):
        return ReleaseError(f"{says}: {missing}", key="release.not_found")
    return ReleaseError(f"{says}: try again later, or use upgrade_release_index", key="release.unavailable")


def _follow(url: str, headers: dict[str, str], tokens: t.Mapping[str, str], method: str, timeout: float) -> Answer:
    login = {_host(url): urllib.parse.urlsplit(url).netloc.rpartition("@")[0]}
    for _hop in range(_HOPS + 1):
        host = _host(url)
        options = _signature(host, tokens, login)
        more = options.pop("headers", {})
        try:
            with open_url(
                _without_login(url),
                headers={**headers, **more},
                method=method,
                timeout=timeout,
                http_agent=_AGENT,
                follow_redirects="none",
                decompress=False,
                **options,
            ) as response:
                return Answer(response.status, response.headers, _body(response, method), host, bool(more))
        except urllib.error.HTTPError as exc:
            with contextlib.closing(exc):
                if exc.code not in _REDIRECTS or not exc.headers.get("Location"):
                    return Answer(exc.code, exc.headers, b"", host, bool(more))
                url = _next(url, exc.headers["Location"])
    raise ValueError(f"it redirects more than {_HOPS} times")


def _signature(host: str, tokens: t.Mapping[str, str], login: t.Mapping[str, str]) -> dict[str, t.Any]:
    """Options of open_url by which a host knows who asks: a token, a login in the URL, or what netrc says.

    All of them are headers of this one request: open_url shares its handlers with the other threads.
    """
    token = next((str(value).strip() for name, value in tokens.items() if name.lower() == host and value), "")
    if token:
        if not re.fullmatch(r"[!-~]+", token):  # http.client would tell the whole of it in its error
            raise ValueError(f"the token for {host} has spaces or other characters in it that no token has")
        return {"headers": {"Authorization": f"Bearer {token}"}, "use_netrc": False}
    if login.get(host):
        user, _colon, password = map(urllib.parse.unquote, login[host].partition(":"))
        return {"url_username": user, "url_password": password, "force_basic_auth": True}
    return {}


def _host(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts.netloc.rpartition("@")[2].lower().removesuffix(_DEFAULT_PORT.get(parts.scheme, ":"))


def _without_login(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _next(url: str, location: str) -> str:
    """Where a redirect leads. What was asked in secret isn't asked in the open."""
    target = urllib.parse.urljoin(_without_login(url), location.strip().replace(" ", "%20"))
    scheme = urllib.parse.urlsplit(target).scheme
    if scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
        raise ValueError(f"it redirects to {shown(target)}, which is refused: it isn't https")
    return target


def _body(response: t.Any, method: str) -> bytes:
    """The whole answer. A server that is slow, endless, or stops half-way is none that answers."""
    if method == "HEAD":
        return b""
    length = response.headers.get("Content-Length", "")
    announced = int(length) if length.isdigit() and not response.headers.get("Transfer-Encoding") else None
    body, until = bytearray(), time.monotonic() + DEADLINE
    while announced is None or len(body) < announced:
        piece = response.read1(_CHUNK)
        body += piece
        if len(body) > LIMIT:
            raise ValueError(f"its answer is larger than {LIMIT >> 20} MiB")
        if time.monotonic() > until:
            raise TimeoutError(f"its answer takes longer than {DEADLINE} seconds")
        if not piece:
            break
    if announced is not None and len(body) < announced:
        raise OSError(f"its answer ended after {len(body)} of {announced} bytes")
    return bytes(body)


def _is_rate_limit(answer: Answer) -> bool:
    """As GitHub (403 or 429) and GitLab (429) tell it."""
    left = answer.headers.get("X-RateLimit-Remaining") or answer.headers.get("RateLimit-Remaining")
    told = (left or "").strip() == "0" or answer.headers.get("Retry-After")
    return answer.status == 429 or (answer.status == 403 and bool(told))


def _limited_until(headers: Headers) -> str | None:
    """When one may ask again, in UTC; none if it isn't told."""
    after = (headers.get("Retry-After") or "").strip()
    reset = (headers.get("X-RateLimit-Reset") or headers.get("RateLimit-Reset") or "").strip()
    if re.fullmatch(r"\d{1,9}", after):
        moment = time.time() + int(after)
    elif after and (date := email.utils.parsedate_tz(after)):
        moment = email.utils.mktime_tz(date)
    elif re.fullmatch(r"\d{1,11}", reset):
        moment = int(reset)
    else:
        return None
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
