# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. One HTTP request to a service of this very host: no proxy, no redirect, no trust in certificates needed."""

from __future__ import annotations

import http.client
import ssl
import typing as t
import urllib.parse

_BODY_LIMIT = 32 << 20


class Answer(t.NamedTuple):
    """What came back. ``status`` is None if nothing did; ``error`` then says why."""

    status: int | None
    body: str
    error: str = ""


def get(url: str, *, timeout: float = 5, headers: dict[str, str] | None = None) -> Answer:
    """GET a URL of this host.

    The certificate isn't checked: it names the service's public name, and one asks for it at the loopback address.

    :param timeout: seconds for each of connecting, sending, and every read.
    """
    parts = urllib.parse.urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", target, headers={"Accept": "*/*", **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, response.read(_BODY_LIMIT).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException) as exc:
        return Answer(None, "", getattr(exc, "strerror", None) or str(exc) or type(exc).__name__)
    finally:
        connection.close()
