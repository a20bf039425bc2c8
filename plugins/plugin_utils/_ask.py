# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. One small question to a web server, and what it means if it doesn't answer it.

How it is asked, and how redirects are followed, is in C(module_utils/_web); each host gets its own token only.
"""

from __future__ import annotations

import functools
import re
import time
import typing as t

from ansible.module_utils.urls import open_url

from ..module_utils import _deadline, _web
from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import ReleaseError

LIMIT = 16 << 20
"""Bytes that an answer may have."""
DEADLINE = 120.0
"""Seconds that an exchange may take, whatever the caller grants it."""
SILENCE = 10.0
"""Seconds for which nothing may come."""

_REDIRECTS = 5
_CHUNK = 1 << 16

T = t.TypeVar("T")


class Answer(t.NamedTuple):
    """What a server said, whether it is what was asked for or not."""

    status: int
    headers: t.Mapping[str, str]
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
    timeout: float = 60,
) -> Answer:
    """What a server answers.

    :param tokens: by host, with its port if the URL has one: C(mirror.example:8443).
    :param timeout: seconds for the whole exchange, with all redirects.
    :raises ReleaseError: if there is no answer, or none of a bearable size. The status can be any.
    """
    secrets = functools.partial(_authorization, tokens or {})
    limit = min(timeout, DEADLINE)

    def exchange() -> Answer:
        with _web.answered(
            url,
            open_url=open_url,
            headers=headers,
            secrets=secrets,
            method=method,
            timeout=min(limit, SILENCE),
            redirects=_REDIRECTS,
        ) as response:
            host = _web.host_of(response.url)
            read = body(response) if method != "HEAD" and 200 <= response.status < 300 else b""
            return Answer(response.status, response.headers, read, host, bool(secrets(host)))

    try:
        return in_time(limit, exchange)
    except (_web.TransferError, OSError, ValueError) as exc:
        without = "Without internet, use upgrade_release_index or upgrade_release_mirror"
        fix = _web.FIX_PROXY if _web.proxy_of(url) else without
        raise ReleaseError(
            f"{shown(url)} can't be asked: {getattr(exc, 'why', exc)}. {fix}",
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


def _authorization(tokens: t.Mapping[str, str], host: str) -> dict[str, str]:
    """How a host knows who asks, if there is a token for it."""
    token = next((str(value).strip() for name, value in tokens.items() if name.lower() == host and value), "")
    if not re.fullmatch(r"[!-~]*", token):  # http.client would tell the whole of it in its error
        raise ValueError(f"the token for {host} has spaces or other characters in it that no token has")
    return {"Authorization": f"Bearer {token}"} if token else {}


def in_time(seconds: float, exchange: t.Callable[[], T], *, began: float | None = None) -> T:
    """What an exchange brings, from the look-up of the name to the last byte of the answer.

    :param began: when the time began, on the monotonic clock. None: now.
    :raises TimeoutError: if it takes longer.
    """
    passed = 0.0 if began is None else time.monotonic() - began
    try:
        return _deadline.within(seconds - passed, exchange)
    except TimeoutError as exc:
        raise TimeoutError(f"timed out: its answer takes longer than {seconds:g} seconds") from exc


def body(response: _web.Response) -> bytes:
    """The whole answer. A server that is silent, endless, or stops half-way is none that answers."""
    received = bytearray()
    while response.length is None or len(received) < response.length:
        piece = response.read(_CHUNK, within=SILENCE)
        received += piece
        if len(received) > LIMIT:
            raise ValueError(f"its answer is larger than {LIMIT >> 20} MiB")
        if not piece:
            break
    if response.length is not None and len(received) < response.length:
        raise OSError(f"its answer ended after {len(received)} of {response.length} bytes")
    return bytes(received)


def _is_rate_limit(answer: Answer) -> bool:
    """As GitHub (403 or 429) and GitLab (429) tell it."""
    left = answer.headers.get("X-RateLimit-Remaining") or answer.headers.get("RateLimit-Remaining")
    told = (left or "").strip() == "0" or answer.headers.get("Retry-After")
    return answer.status == 429 or (answer.status == 403 and bool(told))


def _limited_until(headers: t.Mapping[str, str]) -> str | None:
    """When one may ask again, in UTC; none if it isn't told."""
    now = time.time()
    after = _web.retry_after(headers.get("Retry-After"), now=now)
    reset = (headers.get("X-RateLimit-Reset") or headers.get("RateLimit-Reset") or "").strip()
    if after is None and not re.fullmatch("[0-9]{1,11}", reset):
        return None
    moment = int(reset) if after is None else round(now + after)
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
