# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What a program said, for people: without secrets, its last lines, and the reason that it gives."""

from __future__ import annotations

import json
import re
import typing as t

from ._argv import HIDDEN, redact_text

LAST_LINES = 20
_LONGEST_REASON = 400
_LONGEST_LINE = 1000
_SHORTEST_SECRET = 4

_NAME = r"[\w.-]*(?:pass(?:word|wd|phrase)?|secret|token|credentials?|api[-_.]?key|private[-_.]?key|dsn)"
_VALUE = r"""("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&}\]]+)"""
# A name that says file, path, ... after it is that of no secret; nor is one at the end of a path.
_ASSIGNED = re.compile(rf"""(?<![/\w.-])(["']?{_NAME}["']?[ \t]*[:=][ \t]*){_VALUE}""", re.IGNORECASE)
_SETTING = re.compile(
    rf"""^[ \t]*(?:-[ \t]+|export[ \t]+)?["']?(?:{_NAME}|DATA_SOURCE_NAME)["']?[ \t]*[:=][ \t]*(\S.*)$""",
    re.IGNORECASE | re.MULTILINE,
)
_URL = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_HIDDEN_WHOLE = (
    re.compile(r"(?<=authorization)([ \t]*[:=][ \t]*)[^\n\"']+", re.IGNORECASE),
    re.compile(r"(?<=bearer)([ \t]+)(?=\S*\d)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(?<=basic)([ \t]+)(?=\S*[\d=])[\w+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(?<=hooks.slack.com/services/)()\S+"),
    re.compile(r"()\$2[aby]\$\d\d\$[./\w]{53}"),
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)
_COLOURS = re.compile(r"\x1b\[[\d;]*[A-Za-z]")

_STRONG = re.compile(
    r"\bFAILED\b|\berror: |^error\b|level=\"?(?:error|fatal)|\"level\":\"(?:error|fatal)|\bpanic: |\bfatal\b"
    r"|flag provided but not defined|unknown (?:long |short |shorthand )?flag",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r"error|fail|invalid|unknown|refus|cannot|can't|could ?n[o']t|unable|denied|no such|not (?:found|defined)",
    re.IGNORECASE,
)
_LOGGED = re.compile(r'(?:^|\s)(msg|err|error)=("(?:[^"\\]|\\.)*"|\S+)')


def secrets_of(texts: t.Iterable[str]) -> list[str]:
    """The secrets in configuration files, environment files and command lines: what stands behind a name that says so,
    and passwords in URLs. The longest come first."""
    found: set[str] = set()
    for text in texts:
        for value in [*_SETTING.findall(text), *(value for _name, value in _ASSIGNED.findall(text))]:
            quoted = re.match(r"""(["'])(.*?)\1""", value)
            found.add(quoted.group(2) if quoted else re.split(r"\s#", value)[0].strip())
        found.update(_URL.findall(text))
    return sorted((each for each in found if len(each) >= _SHORTEST_SECRET), key=lambda each: (-len(each), each))


def redact(text: str, secrets: t.Sequence[str] = ()) -> str:
    """A text without secrets: those that are known, and what looks like one. All else stays readable."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
        if len(secret) > 10:  # as yaml.v2 and yaml.v3 shorten a value in an error
            text = text.replace(f"`{secret[:7]}...`", f"`{HIDDEN}`")
    for pattern in _HIDDEN_WHOLE:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    text = _ASSIGNED.sub(lambda found: f"{found.group(1)}{HIDDEN}", text)
    return "\n".join(map(redact_text, text.split("\n")))


def excerpt(text: str) -> list[str]:
    """The last lines of a text that say something, and before them the one with the reason; very long ones are cut."""
    found = _lines(text)
    reason_at, start = _telling(found), max(0, len(found) - LAST_LINES)
    before = [found[reason_at], "[...]"] if 0 <= reason_at < start else []
    lines = [*before, *found[start:]]
    return [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in lines]


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]


def _telling(lines: list[str]) -> int:
    """Which line gives the reason; the last one, if none does."""
    kinds = ([at for at, line in enumerate(lines) if pattern.search(line)] for pattern in (_STRONG, _WEAK))
    return next((places[0] for places in kinds if places), len(lines) - 1)


def reason(text: str) -> str:
    """The reason that a program gives for ending badly, in one line."""
    lines = list(map(str.strip, _lines(text)))
    if not lines:
        return "it says nothing"
    first = _telling(lines)
    told = _told(lines[first]) or " ".join([lines[first], *_continued(lines, first)])
    told = re.sub(r"^(?:(?:[\w./-]+: )?[Ee]rror|.*\bFAILED): ", "", told)
    told = re.sub(r"\s+", " ", told)
    return told if len(told) <= _LONGEST_REASON else f"{told[:_LONGEST_REASON]}..."


def _told(line: str) -> str:
    """What a line of a log says, in logfmt or JSON; nothing if it is none."""
    try:
        fields = json.loads(line) if line.startswith("{") else dict(_LOGGED.findall(line))
    except ValueError:
        return ""
    values = [_plain(fields.get(name)) for name in ("msg", "err", "error")]
    return ": ".join(filter(None, values))


def _plain(value: t.Any) -> str:
    text = "" if value is None else str(value)
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            return text.strip('"')
    return text


def _continued(lines: list[str], first: int) -> t.Iterator[str]:
    """The lines that go on with what one says: YAML's errors have a line for each mistake."""
    goes_on = lines[first].endswith(":")
    for line in lines[first + 1 : first + 4]:
        if not (goes_on or line.startswith("line ")) or re.match("usage", line, re.IGNORECASE):
            return
        yield line
        goes_on = line.endswith(":")
