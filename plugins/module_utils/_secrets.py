# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. The secrets in a service's own configuration: YAML, JSON, INI, environment files and command lines.

Hosts have no YAML parser, and a configuration that is refused has no syntax. So this looks for what announces a secret
and takes what can be its value, too much rather than too little:

- the values behind names that say so, in each of their spellings, and all values below such a name;
- all header values, but those of headers that never carry a secret, and what a probe of blackbox_exporter sends;
- of each URL all but its scheme and host: webhooks and push endpoints have their token in the path;
- passwords in data source names, and the lines of private keys.

A URL comes as C(//host/path?query): in it the host is no secret.
"""

from __future__ import annotations

import itertools
import json
import re
import typing as t

from . import _argv, _unit_text
from ._redaction import NAME, QUOTE, VALUE, is_secret_name, looks_random, parse_url

_ENTRY = re.compile(
    r"""(?:^[ \t]*(?:[-?][ \t]+)*(?:export[ \t]+)?|(?<=[{,\[ \t&?;]))(["']?)([\w./-]{1,200})\1[ \t]*[:=][ \t]*""",
    re.MULTILINE,
)
_ALL_BELOW = re.compile(r"(?:.*[-_.])?(?:headers?|basic_auth_users|send|body)", re.IGNORECASE)
_NO_SECRET_HEADER = re.compile(
    r"(?:host|accept(?:-.*)?|user-agent|content-(?:type|encoding|length)|origin|subject|from|to|reply-to)",
    re.IGNORECASE,
)
_URL_NAME = re.compile(r".*(?:ur[il]|webhook|endpoint)s?", re.IGNORECASE)
_INLINE = re.compile(r"""(?:[&!]\S*[ \t]+)*["']?([^\s"',\[\]{}|>&*][^\s"',\]}]*)?""")
_LOGIN = re.compile(r"(?:bearer|basic|token|apikey|digest)[ \t]+(\S.*)", re.IGNORECASE | re.DOTALL)
_ALIAS = re.compile(r"\*([\w-]+)")
_FLOW = re.compile(r"[,{}\[\]\n]")
_FLOW_ITEM = re.compile(r"[^\n,}\]]*")
_NEXT_ENTRY = re.compile(r"""\s*(?:-\s|[\w.\"'/-]+[ \t]*[:=])""")
_FILE = re.compile(r"""(?<![\w-])([\w-]{1,100})_files?["']?[ \t]*[:=][ \t]*["'\[]*([^\s"',}\]]+)""")
_ANCHOR = re.compile(r"(?:^|[:\[{,-])[ \t]+&([\w-]+)[ \t]+(?=\S)|(?<=:)[ \t]+&([\w-]+)[ \t]*$", re.MULTILINE)
_PREFIX = re.compile(r"(?:[&!][^\s,\[\]{}]*[ \t]+)*")
_QUOTED = re.compile(r"""\"\"\".*?\"\"\"|'''.*?'''|"(?:[^"\\]|\\.){0,65536}"|'(?:[^']|''){0,65536}'""", re.DOTALL)
_BLOCK = re.compile(r"[|>][-+\d]{0,2}[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_WORD = re.compile(
    r"""\s*(?:[-?][ \t]+)*(?:(["']?)([\w./-]{1,200})\1[ \t]*[:=](?:[ \t]+|$|(?=["'])))?(.*)""", re.DOTALL
)

_ASSIGNED = re.compile(rf"(?<![/\w.\\-]){QUOTE}{NAME}{QUOTE}[ \t]*[:=]>?[ \t]*({VALUE})", re.IGNORECASE)
_HEADER = re.compile(rf"(?:authorization|cookie){QUOTE}[ \t]*[:=][ \t]*{QUOTE}([^\n\"'\\]+)", re.IGNORECASE)
_FLAG = re.compile(rf"(?<!\S)-{NAME}[ \t]+(?!-)(\S+)", re.IGNORECASE)
_URL = re.compile(r"(?<=://)[^\s\"'`<>\\]+")
_DSN = re.compile(r"(?<![^\s\"'=,;({\[])[^\s:@/\"'=,;({\[]{1,64}:([^\s\"']{1,256})@(?=\w{0,10}\(|/)")
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)(?:-----END|\Z)", re.DOTALL)

_NOTHING = re.compile(
    r"(?:true|false|yes|no|on|off|null|none|~|public|bearer|basic|\d{1,5}|[\d.]+[smhd]|<\w+>|\**|x*|\$\{?\w+\}?"
    r"|/[\w./-]+\.(?:key|pem|crt|cer|p12|pfx|jks))",  # the path of a key
    re.IGNORECASE,
)
_SHORTEST = 4
_SHORTEST_PATH = 12
_SHORTEST_PART = 12


def in_configuration(text: str) -> set[str]:
    """The secrets in a configuration file or an environment file."""
    found, at, anchors = set(_anywhere(text)), 0, _anchors(text)
    while True:
        entry = _ENTRY.search(text, at)
        if not entry:
            return _counted(found)
        name, at = entry.group(2).rsplit("/", 1)[-1], entry.end()
        below = bool(_ALL_BELOW.fullmatch(name))
        if below or is_secret_name(name):
            values, at = _values(text, entry, anchors, headers=below)
            found.update(itertools.chain(values, *map(_of_header, values if below else ())))
        elif _URL_NAME.fullmatch(name):
            found.update(_of_url(_INLINE.match(text, at)[1] or ""))  # type: ignore[index]  # it matches an empty text


def in_arguments(argv: t.Sequence[str]) -> set[str]:
    """The secrets on a command line. The address of a service is none there: of a URL only its login, the values in its
    query, and what looks like a token."""
    found: set[str] = set()
    for flag, value in zip(argv, [*argv[1:], ""]):
        name, equals, own = flag.partition("=")
        if flag.startswith("-") and is_secret_name(name.lstrip("-")):
            found.add(own if equals else "" if value.startswith("-") else value)
        found.update(_assigned(flag))
        for url in _URL.findall(flag):
            found.update(_parts(url, looks_random))
    return _counted(found)


def in_environment(environment: t.Mapping[str, str]) -> set[str]:
    """The secrets in variables: what their names say, and values that look like a token."""
    found: set[str] = set()
    for name, value in environment.items():
        if value.startswith("-"):  # arguments for a command line
            found |= in_arguments(_argv.split_words(value))
        elif is_secret_name(name) or (looks_random(value) and not re.search(r"[\s/]", value)):
            found |= {value, *_anywhere(value)}
        else:
            found |= in_configuration(f"{name}={value}")
    return _counted(found)


def in_files(texts: t.Iterable[str]) -> set[str]:
    """The secrets in files that hold nothing else: the whole text, and its lines."""
    return _counted({each for text in texts for each in (*_joined(text.split("\n")), *_anywhere(text))})


def files_in(text: str) -> list[str]:
    """The files in which a configuration says that secrets are: C(password_file), C(key_file), C(url_file)."""
    named = _FILE.findall(text)
    return [path for name, path in named if is_secret_name(name) or _URL_NAME.fullmatch(name)]


def _counted(values: set[str]) -> set[str]:
    """The values that are long enough for a secret, and no usual word. Of a header's login, also the part behind its
    scheme."""
    logins = (_LOGIN.match(value) for value in values)
    found = {*values, *(login[1] for login in logins if login)}
    return {each for each in found if len(each) >= _SHORTEST and not _NOTHING.fullmatch(each)}


def _anywhere(text: str) -> t.Iterator[str]:
    """What is secret wherever it stands."""
    yield from _assigned(text)
    for url in _URL.findall(text):
        yield from _of_url(url.rstrip("]}),;."))
        if "," in url:
            yield from _of_url(url.split(",", 1)[0])
    for key in _KEY.findall(text):
        yield from (line for line in re.split(r"\s+|\\n", key) if len(line) >= 2 * _SHORTEST)


def _assigned(text: str, *, within: bool = True) -> t.Iterator[str]:
    """What stands behind a name, a flag or a header that says so.

    :param within: whether a value in quotes may have names of its own, as connection strings have.
    """
    for value in (*_ASSIGNED.findall(text), *_FLAG.findall(text)):
        yield value.strip("\\").strip("\"'`").rstrip("\\")
        yield from _spellings(value)
        if within and value[:1] in "\"'`\\":
            yield from _assigned(value.strip("\\").strip("\"'`"), within=False)
    for value in _HEADER.findall(text):
        yield from _of_header(value)
    yield from _DSN.findall(text)


def _of_header(value: str) -> t.Iterator[str]:
    """A header's value, and each part of it that is a secret by itself."""
    yield value.strip()
    yield from filter(_says, re.split(r"[;,=\s]+", value))


def _says(part: str) -> bool:
    """Whether a part of a secret is one by itself: it is no usual word."""
    return looks_random(part) or (len(part) >= _SHORTEST_PART and bool(re.search("[^a-z]", part)))


def _of_url(text: str) -> t.Iterator[str]:
    """What is secret in a URL of a configuration: all but its host."""
    url = parse_url(text.partition("://")[2] or text)
    rest = url.path + url.query
    if url.host and len(rest) > 1:
        yield f"//{url.host}{rest}"
    if len(url.path) >= _SHORTEST_PATH and url.path.count("/") > 1:
        yield url.path
    if len(url.query) > _SHORTEST:
        yield url.query
    yield from _parts(text, _says)


def _parts(text: str, is_secret: t.Callable[[str], bool]) -> t.Iterator[str]:
    """The password in a URL, and each part of it that is a secret by itself."""
    url = parse_url(text.partition("://")[2] or text)
    user, colon, password = url.login.partition(":")
    if colon:
        yield from (url.login, password, _decoded(password))
    parts = [user, *url.path.split("/")]
    for each in re.split("[?#&;]", url.query):
        name, equals, value = each.partition("=")
        if equals and is_secret_name(name):
            yield from (value, _decoded(value))
        parts.append(value if equals else each)
    for part in filter(is_secret, parts):
        yield from (part, _decoded(part))


def _decoded(text: str) -> str:
    """A text without percent signs."""
    parts = re.split("((?:%[0-9A-Fa-f]{2})+)", text)
    return "".join(
        bytes.fromhex(part.replace("%", "")).decode("utf-8", "replace") if number % 2 else part
        for number, part in enumerate(parts)
    )


# -- values ---------------------------------------------------------------------------------------------------------


def _anchors(text: str) -> dict[str, int]:
    """Where the values of YAML's anchors are."""
    return {found[1] or found[2]: found.end() for found in _ANCHOR.finditer(text)}


def _values(text: str, entry: re.Match[str], anchors: dict[str, int], *, headers: bool) -> tuple[list[str], int]:
    """What an entry's value can be, and where to look on. A value may be many: a block, a list, a mapping."""
    indent = len(entry.group(0)) - len(entry.group(0).lstrip(" "))
    is_line = entry.start() == 0 or text[entry.start() - 1] == "\n"
    at = _PREFIX.match(text, entry.end()).end()  # type: ignore[union-attr]  # it matches an empty text
    alias = _ALIAS.match(text, at)
    anchor = anchors.pop(alias[1], None) if alias else None
    if anchor is not None:  # its value is a secret for all
        return _value_at(text, anchor, 0, is_line=True, headers=headers)[0], at
    return _value_at(text, at, indent, is_line=is_line, headers=headers)


def _value_at(text: str, at: int, indent: int, *, is_line: bool, headers: bool) -> tuple[list[str], int]:
    quoted = _QUOTED.match(text, at)
    if quoted:
        return list(_spellings(quoted[0])), quoted.end()
    block = _BLOCK.match(text, at)
    if block:
        lines, end = _deeper(text, block.end(), indent)
        return [*_joined(lines), *itertools.chain.from_iterable(map(_anywhere, lines))], end
    if text[at : at + 1] in ("{", "["):
        end = _flow_end(text, at)
        return list(_scalars(_FLOW.split(text[at:end]), headers=headers)), end
    if not is_line:
        return [_FLOW_ITEM.match(text, at)[0].strip()], at  # type: ignore[index]  # it matches an empty text
    line_end = text.find("\n", at)
    line_end = len(text) if line_end < 0 else line_end
    plain = text[at:line_end]
    if not re.sub("#.*", "", plain).strip():
        lines, end = _deeper(text, line_end + 1, indent)
        return list(_scalars(lines, headers=headers)), end
    further, end = _deeper(text, line_end + 1, indent, until=_NEXT_ENTRY)
    return [*_plain(plain), *(_joined([plain, *further]) if further else [])], min(end, line_end)


def _plain(text: str) -> t.Iterator[str]:
    """What a value without quotes can be: with or without a comment, with or without what ends a mapping."""
    for each in dict.fromkeys((text, re.split(r"\s[#;]", text)[0])):
        yield each.strip()
        yield each.strip().rstrip(",}] \t")
    yield from _unit_text.environment(f"value={text}").values()


def _joined(lines: list[str]) -> list[str]:
    """Each line of a value, and the value: with its lines, and folded."""
    stripped = [line.strip() for line in lines]
    return [*stripped, "\n".join(stripped).strip(), " ".join(stripped).strip()]


def _spellings(quoted: str) -> t.Iterator[str]:
    """A value in quotes, as it is written and as it is meant."""
    mark = quoted[:3] if quoted[:3] in ('"""', "'''") else quoted[:1]
    is_quoted = mark[:1] in ('"', "'", "`") and quoted.endswith(mark) and len(quoted) > len(mark)
    inner = quoted[len(mark) : -len(mark)] if is_quoted else quoted
    yield inner
    if "\n" in inner:
        yield from _joined(inner.split("\n"))
    if mark == "'":
        yield inner.replace("''", "'")
    if "\\" in inner:
        yield re.sub(r"\\(.)", r"\1", inner)
        try:
            meant = json.loads(f'"{inner}"', strict=False)
        except ValueError:
            return
        yield meant
        yield from meant.split("\n")


def _deeper(text: str, at: int, indent: int, *, until: re.Pattern[str] | None = None) -> tuple[list[str], int]:
    """The lines from here on that are below an entry, and where they end: those with more indentation, empty ones, and
    items of a list with the same.

    :param until: what is no such line any more.
    """
    lines, end = [], at
    while at < len(text):
        line_end = text.find("\n", at)
        line_end = len(text) if line_end < 0 else line_end
        line = text[at:line_end]
        own = len(line) - len(line.lstrip(" \t"))
        if line.strip() and own <= indent and not (own == indent and line[own:].startswith("- ")):
            break
        if until and (not line.strip() or until.match(line)):
            break
        at = line_end + 1
        if line.strip():
            lines.append(line)
            end = at
    return lines, min(end, len(text))


def _flow_end(text: str, at: int) -> int:
    """Where a mapping or a list in braces ends; at the end of its line if it doesn't."""
    depth = 0
    for each in re.compile(r"""[{\[\]}]|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""").finditer(text, at):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(each[0], 0)
        if depth == 0:
            return each.end()
    return len(text)


def _scalars(parts: t.Iterable[str], *, headers: bool) -> t.Iterator[str]:
    """The values in lines or items: what comes behind a name, if there is one."""
    for part in parts:
        found = _WORD.match(part)
        name, value = (found[2], found[3].strip()) if found else (None, part.strip())
        if not value or (headers and name and _NO_SECRET_HEADER.fullmatch(name)):
            continue
        if value[0] in "[{" and value != part.strip():
            yield from _scalars(_FLOW.split(value), headers=headers)
        yield from _spellings(value) if value[0] in "\"'" else _plain(value)
        yield from _anywhere(value)
