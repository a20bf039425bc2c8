# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What a web configuration of exporter-toolkit sets, in any spelling of YAML: hosts have no parser for it.

It is a fallback. Where the service runs, its socket is asked.
"""

from __future__ import annotations

import re

_COMMENT = re.compile(r"(?:(?<=\s)|^)#.*$", re.MULTILINE)
_PROPERTY = re.compile(r"\s*[&!][^\s,{}\[\]]*")


def names_users(text: str) -> bool:
    """Whether it names users who must log in."""
    return _has_content(text, "basic_auth_users")


def names_certificate(text: str) -> bool:
    """Whether it sets up TLS."""
    return _has_content(text, "tls_server_config")


def _has_content(text: str, key: str) -> bool:
    """Whether a key of the outermost mapping has a value that isn't empty."""
    plain = _COMMENT.sub("", text.replace("\r\n", "\n").removeprefix("\ufeff"))
    lines = [line for line in plain.split("\n") if line.strip() and not re.match(r"---|%|\.\.\.", line)]
    indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    is_flow = bool(lines) and lines[0].lstrip().startswith("{")
    start = r"[{,]\s*" if is_flow else rf"^(?:---)?[ ]{{{indent}}}"
    found = re.search(
        rf"{start}(?:\?[ ]+)?(?P<quote>[\"']?){key}(?P=quote)\s*:(?=\s|\Z|(?<=[\"']:)\S)", plain, re.MULTILINE
    )
    return found is not None and _is_filled(plain[found.end() :], indent)


def _is_filled(rest: str, indent: int) -> bool:
    """Whether what follows a key is a value, and not an empty one or the next key."""
    while True:
        found = _PROPERTY.match(rest)
        if not found or found.end() == 0:
            break
        rest = rest[found.end() :]
    value = re.match(r"([ \t]*)(\S)?", rest)
    if value and value.group(2):
        return not re.match(r"\s*(?:\{\s*\}|[,}]|null\b|~)", rest)
    following = re.search(r"^([ ]*)(\S.*)", rest.partition("\n")[2], re.MULTILINE)
    if following is None or len(following.group(1)) <= indent:
        return False
    return not re.match(r"\{\s*\}", following.group(2))
