# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What a program said, for people: without secrets, its last lines, and the reason that it gives."""

from __future__ import annotations

import base64
import bisect
import functools
import json
import re
import typing as t

from . import _secrets
from ._redaction import HIDDEN, redact_text

LAST_LINES = 20
_LONGEST_REASON = 400
_LONGEST_LINE = 1000
_GRAM = 4
_PIECE = 24
_CUT = 7
"""So many characters yaml.v2 and yaml.v3 leave of a value in an error, before three dots."""

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


def secrets_of(
    texts: t.Iterable[str],
    *,
    argv: t.Sequence[str] = (),
    environment: t.Mapping[str, str] | None = None,
    files: t.Iterable[str] = (),
) -> list[str]:
    """The secrets that a program was given, the longest first; see C(_secrets.py).

    :param texts: configuration files and environment files.
    :param argv: its command line.
    :param environment: its variables.
    :param files: texts of files that hold nothing but a secret, as a C(password_file) does.
    """
    found = _secrets.in_arguments(argv) | _secrets.in_environment(environment or {}) | _secrets.in_files(files)
    for text in texts:
        found |= _secrets.in_configuration(text)
    return sorted(found, key=lambda each: (-len(each), each))


def redact(text: str, secrets: t.Sequence[str] = ()) -> str:
    """A text without secrets: those that are known, in each of their spellings, and what looks like one. All else stays
    readable. Of a text that is to be cut, all is redacted first: half a secret is not found.

    :param secrets: as C(secrets_of) gives them.
    """
    return redact_text(_known(tuple(secrets)).hidden(text) if secrets else text)


def _spelled(secret: str) -> t.Iterator[tuple[str, int]]:
    """How a program may write a secret, each with how many characters of it, from its end, are secret."""
    url = re.fullmatch("//([^/?#]+)(.*)", secret, re.DOTALL)
    host, own = (url[1], url[2]) if url else ("", secret)
    for each in {own} if _PLAIN.fullmatch(own) else {own, *_escaped(own)}:
        yield host + each, len(each)
    for each in () if url else _in_base64(own):
        yield each, len(each)


_PLAIN = re.compile(r"[\w.~-]*", re.ASCII)
_ESCAPED_BY_GO = re.compile("[<>&\u2028\u2029]")


def _escaped(secret: str) -> t.Iterator[str]:
    """A secret as it stands in JSON, in JSON within JSON, in quotes of YAML, and in URLs."""
    quoted = json.dumps(secret, ensure_ascii=False)[1:-1]
    yield from (quoted, json.dumps(secret)[1:-1], json.dumps(quoted, ensure_ascii=False)[1:-1])
    yield _ESCAPED_BY_GO.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    yield from (secret.replace("'", "''"), secret.replace("/", "\\/"))
    percent = _percent(secret, "")
    yield from (percent, percent.lower(), percent.replace("%20", "+"), _percent(secret, "/:@&=+$,;?"))


def _percent(text: str, safe: str) -> str:
    """A text with percent signs for all but letters, digits and some others."""
    return re.sub(
        rf"[^\w.~{re.escape(safe)}-]",
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "replace")),
        text,
        flags=re.ASCII,
    )


def _in_base64(secret: str) -> t.Iterator[str]:
    """What base64 makes of a secret, whatever stands before and after it: C(user:password) for one."""
    data = secret.encode("utf-8", "replace")
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).decode()
        inner = encoded[-(-8 * before // 6) : (8 * (before + len(data))) // 6]
        if len(inner) >= _SHORTEST_BASE64:
            yield from {inner, inner.translate(_URL_SAFE)}


_SHORTEST_BASE64 = 8
_URL_SAFE = str.maketrans("+/", "-_")


class _Known:
    """Secrets to be found in texts. How often they are there does not matter, and how many they are hardly: at each
    place of a text one look tells whether one begins like that, and one for each length whether it is there.

    Long ones are looked for in pieces, so that a part of one is found, too.
    """

    def __init__(self, secrets: t.Iterable[str]) -> None:
        self._pieces: dict[str, int] = {}
        lengths: dict[str, set[int]] = {}
        for secret in secrets:
            for spelling, own in _spelled(secret):
                for piece, hidden in _pieces(spelling, own):
                    self._pieces[piece] = max(hidden, self._pieces.get(piece, 0))
                    lengths.setdefault(piece[:_GRAM], set()).add(len(piece))
        self._lengths = {gram: sorted(known, reverse=True) for gram, known in lengths.items()}
        self._sorted = sorted(piece for piece, hidden in self._pieces.items() if hidden == len(piece) > _CUT)

    def hidden(self, text: str) -> str:
        """A text without them. Where they overlap, all are hidden."""
        mask = bytearray(len(text))
        for start, end in (*self._whole(text), *self._cut_off(text)):
            mask[start:end] = b"x" * (end - start)
        shown, at = [], 0
        for found in re.finditer(b"x+", mask):
            shown += [text[at : found.start()], HIDDEN]
            at = found.end()
        return "".join([*shown, text[at:]])

    def _whole(self, text: str) -> t.Iterator[tuple[int, int]]:
        for at in range(len(text) - _GRAM + 1):
            for length in self._lengths.get(text[at : at + _GRAM], ()):
                hidden = self._pieces.get(text[at : at + length])
                if hidden and at + length <= len(text):
                    yield at + length - hidden, at + length
                    if hidden == length:
                        break

    def _cut_off(self, text: str) -> t.Iterator[tuple[int, int]]:
        """Where one begins and its rest is missing: before three dots, and at the end."""
        for dots in re.finditer(r"\.\.\.|\u2026|\Z", text):
            for at in range(max(0, dots.start() - _PIECE), dots.start() - _CUT + 1):
                if text[at : at + _GRAM] in self._lengths and self._begins(text[at : dots.start()]):
                    yield at, dots.end()
                    break

    def _begins(self, text: str) -> bool:
        place = bisect.bisect_left(self._sorted, text)
        return place < len(self._sorted) and self._sorted[place].startswith(text)


_known = functools.lru_cache(maxsize=4)(_Known)


def _pieces(spelling: str, own: int) -> t.Iterator[tuple[str, int]]:
    """A secret in pieces, each with how many characters of it, from its end, are secret.

    :param own: that number for the whole.
    """
    ends = [*range(_PIECE, len(spelling), _PIECE), len(spelling)]
    for end in ends:
        hidden = min(end - (len(spelling) - own), end, _PIECE)
        if hidden >= _GRAM or (hidden > 0 and end == len(spelling)):
            yield spelling[max(0, end - _PIECE) : end], hidden


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
