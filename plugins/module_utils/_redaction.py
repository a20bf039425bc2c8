# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. Secrets by their looks: names that announce one, URLs that carry one, tokens and keys of known forms.

Nothing here knows a secret: what a service's configuration says is in C(_secrets.py), and C(_output.redact) takes both.

All expressions take time that grows with the text and no faster: a repetition is bounded, or begins only where no
other match can begin. A program chooses the text.
"""

from __future__ import annotations

import re
import typing as t

HIDDEN = "********"

_KEYS = (
    "api|access|account|secret|private|routing|service|user|auth|shared|license|encryption|signing|master|integration"
)
_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)|(?:(?<=[-_.])|(?<![a-z\d]))pass|pwd|secret|token|credential|bearer|cookie|dsn"
    r"|connection[-_.]?string|data[-_]source[-_]name"
    rf"|(?:{_KEYS})[-_.]?key)(?:s|[-_.]?(?:\d{{1,4}}|id|hash|value))?"
)
NAME = rf"[\w.-]*{_WORDS}"
"""A name that announces a secret. With C(_file), C(_path) or C(_ttl) after it, it announces none."""

_SECRET_NAME = re.compile(NAME, re.IGNORECASE)
_OTHER_NAME = re.compile(r"(?:.*[-_.])?(?:authorization|community)", re.IGNORECASE)
_OTHER_KEY = re.compile(r"(?:.*[-_.])?key", re.IGNORECASE)
_NO_SECRET_KEY = re.compile(r".*(?:public|group|dedup|sort|label|primary|host|hash|partition)[-_.]?key", re.IGNORECASE)

VALUE = (
    r"(?:\\{1,3}[\"'][^\n]*?\\{1,3}[\"']"  # as JSON within a string has it
    r"|\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?|`[^`\n]*`?"
    r"|\[[^\]\n]*\]?|\{[^}\n]*\}?|[^\s,;&}\])>\"'`]+)"
)
"""A value as it stands in logs, JSON, Go's maps and connection strings, with its quotes."""

QUOTE = r"\\{0,3}[\"']?"
"""A quote that may be there, as JSON within a string has it."""

_PROSE = (
    r"(?!(?:is|was|are|has|needs|not|and|or|must|cannot|can|flag|option|in|for|from|to|with|which|that|requires?)\b)"
)
_ASSIGNED = re.compile(rf"(?<![/\w.\\-])({QUOTE}{NAME}{QUOTE}[ \t]*[:=]>?[ \t]*){VALUE}", re.IGNORECASE)
_LINE = re.compile(rf"^([ \t]*(?:-[ \t]+)?{NAME}:[ \t]+)(?![\"'\s])[^\n]+", re.IGNORECASE | re.MULTILINE)
_FLAG = re.compile(rf"(?<!\S)(-{NAME}[ \t]+){_PROSE}(?![-|&;])\S+", re.IGNORECASE)
_DSN = re.compile(r"(?<![^\s\"'=,;({\[])([^\s:@/\"'=,;({\[]{1,64}):([^\s\"']{1,256})@(?=\w{0,10}\(|/)")
_KNOWN_FORMS = (
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(rf"((?:authorization|cookie){QUOTE}[ \t]*[:=][ \t]*[\[({{]?{QUOTE})[^\n\"'\]\\]+", re.IGNORECASE),
    re.compile(r"(?<=bearer)([ \t]+)(?=\S*\d)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(?<=basic)([ \t]+)(?=\S*[\d=])[\w+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(?<=hooks.slack.com/services/)()[^\s\"'`\\]+"),
    re.compile(r"(?<=/api/webhooks/)()[^\s\"'`\\]+"),
    re.compile(r"()\$2[aby]\$\d\d\$[./\w]{53}"),
    re.compile(r"\b()(?:gh[pousr]_|github_pat_|glpat-|glsa_|xox[a-z]-|xapp-)[\w-]{10,}"),
    re.compile(r"\b()eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
    re.compile(r"\b()(?:AKIA|ASIA)[A-Z\d]{16}\b"),
)
_URL = re.compile(r"(?<=://)[^\s\"'`<>\\]+")
_RUN = re.compile(r"[A-Za-z\d]{8,}")


class Url(t.NamedTuple):
    """A URL without its scheme. ``login`` is what stands before the C(@); ``query`` begins with C(?) or C(#)."""

    login: str
    host: str
    path: str
    query: str


def parse_url(text: str) -> Url:
    """The parts of what comes after C(://).

    A password may have a slash, a question mark or an at sign that should have been encoded. So a name and a colon,
    with no port after it, begin a login that goes on to the last C(@).
    """
    authority = re.split("[/?#]", text, maxsplit=1)[0]
    at = authority.rfind("@")
    if at < 0 and re.search(r":(?!\d*$)", authority) and not authority.startswith("["):
        at = text.rfind("@")
    login, rest = (text[:at], text[at + 1 :]) if at >= 0 else ("", text)
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    path = re.split("[?#]", rest[len(host) :], maxsplit=1)[0]
    return Url(login, host, path, rest[len(host) + len(path) :])


def is_secret_name(name: str) -> bool:
    """Whether a setting, a variable or a flag of this name holds a secret."""
    if _SECRET_NAME.fullmatch(name) or _OTHER_NAME.fullmatch(name):
        return True
    return bool(_OTHER_KEY.fullmatch(name)) and not _NO_SECRET_KEY.fullmatch(name)


def looks_random(text: str) -> bool:
    """Whether a word looks like a token: letters and digits mixed as in no word, no version and no address."""
    return any(map(_is_random, _RUN.findall(text)))


def _is_random(run: str) -> bool:
    has_digit = re.search(r"\d", run)
    mixed = re.search(r"\d[A-Za-z]", run) or (re.search("[a-z]", run) and re.search("[A-Z]", run))
    return len(run) >= 32 or bool(has_digit and (mixed or len(run) >= 16))


def redact_text(text: str) -> str:
    """A text without what looks like a secret: values behind names that say so, logins, queries and tokens in URLs,
    keys and tokens of well-known forms. All else stays readable."""
    for pattern in _KNOWN_FORMS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    text = _URL.sub(lambda found: _redacted(parse_url(found[0])), text)
    text = _DSN.sub(rf"\g<1>:{HIDDEN}@", text)
    text = _LINE.sub(rf"\g<1>{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\g<1>{HIDDEN}", text)
    return _FLAG.sub(rf"\g<1>{HIDDEN}", text)


def redact_value(value: t.Any) -> t.Any:
    """An operator's value, for a message that quotes it and may cut it."""
    return redact_text(value) if isinstance(value, str) else value


def _redacted(url: Url) -> str:
    """Scheme, user, host, path and the names in the query stay; what looks like a token in the path does not."""
    user, colon, _password = url.login.partition(":")
    login = f"{user}:{HIDDEN}@" if colon else f"{HIDDEN}@" if url.login else ""
    path = "/".join(HIDDEN if looks_random(part) else part for part in url.path.split("/"))
    return f"{login}{url.host}{path}{_redacted_query(url.query)}"


def _redacted_query(query: str) -> str:
    parts = re.split("([?#&;])", query)
    return "".join(_redacted_part(part) for part in parts)


def _redacted_part(part: str) -> str:
    name, equals, value = part.partition("=")
    if equals and value:
        return f"{name}={HIDDEN}"
    return HIDDEN if looks_random(part) else part
