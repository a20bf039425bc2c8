# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. The text of units and environment files, read by the rules of systemd.

Each function follows one function of systemd 252: C(settings) follows config_parse of conf-parser.c, C(words)
extract_first_word of extract-word.c, C(commands) config_parse_exec of load-fragment.c, C(expand) replace_env_argv of
env-util.c, and C(environment) parse_env_file_internal of env-file.c.
"""

from __future__ import annotations

import re
import typing as t

_SPACE = " \t\n\r"
_COMMENT = "#;"
_LONGEST = 1 << 20
"""Characters of a logical line; systemd refuses longer ones."""

_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
_CODES = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3}))")
_SPECIFIER = re.compile(r"%(.)")
_MOST_SPECIFIERS = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHOWN = re.compile(r"\{ path=(.*?) ; argv\[\]=(.*?) ; ignore_errors=", re.DOTALL)

Unescape = t.Callable[[str, int], tuple[str, int]]


class Command(t.NamedTuple):
    """One command of C(ExecStart). ``prefixes`` are the characters before its path; ``path`` is empty in a command that
    systemd refuses."""

    path: str
    argv: list[str]
    prefixes: str = ""

    @property
    def line(self) -> list[str]:
        """The arguments behind the path of the program, whatever name it is started under."""
        return [self.path, *self.argv[1:]]


# -- unit files -----------------------------------------------------------------------------------------------------


def settings(texts: t.Iterable[str], section: str, name: str) -> list[str]:
    """The values of a setting in a unit file and its drop-ins. An empty value removes those before it.

    :param texts: the unit file first, then its drop-ins in the order in which systemd names them.
    """
    values: list[str] = []
    for text in texts:
        current = ""
        for line in logical_lines(text):
            if line.startswith("["):
                current = line.strip()
                continue
            key, equals, value = line.partition("=")
            if equals and current == f"[{section}]" and key.strip() == name:
                values = [*values, value.strip()] if value.strip() else []
    return values


def logical_lines(text: str) -> t.Iterator[str]:
    """The lines of a unit file, with continuations joined by a space. Comments within a continuation are left out."""
    joined: str | None = None
    for raw in text.splitlines():
        line = raw.lstrip(_SPACE)
        if line[:1] and line[0] in _COMMENT:
            continue
        whole = line if joined is None else joined + line
        if len(whole) > _LONGEST:
            return
        if (len(whole) - len(whole.rstrip("\\"))) % 2:
            joined = f"{whole[:-1]} "
            continue
        joined = None
        if whole.strip(_SPACE):
            yield whole
    if joined is not None and joined.strip(_SPACE):
        yield joined


# -- words ----------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """The words of a setting: quotes hold words together, also in the middle of one, and C escapes are resolved. An
    escape that systemd does not know stays as it is.

    :raises ValueError: if a quote is not closed.
    """
    return _all_words(text, _c_unescape)


def shown_words(text: str) -> list[str]:
    """The words of a list as C(systemctl show) prints them."""
    try:
        return _all_words(text, _shown_unescape)
    except ValueError:
        return text.split()


def split_value(text: str) -> list[str]:
    """The words that the value of a variable has where C($NAME) is a word of its own. A quote may be left open."""
    return _all_words(text, _plain_unescape, relaxed=True)


def _all_words(text: str, unescape: Unescape, *, relaxed: bool = False) -> list[str]:
    found: list[str] = []
    at = 0
    while True:
        word, at = _next_word(text, at, unescape, relaxed=relaxed)
        if word is None:
            return found
        found.append(word)


def _next_word(text: str, at: int, unescape: Unescape, *, relaxed: bool = False) -> tuple[str | None, int]:
    """The word from a position on, and the position after it and the space behind it."""
    at = _after_space(text, at)
    if at >= len(text):
        return None, at
    pieces, quote = [], ""
    while at < len(text):
        char = text[at]
        if char == "\\":
            piece, at = unescape(text, at)
            pieces.append(piece)
            continue
        at += 1
        if quote:
            quote = "" if char == quote else quote
            pieces.append(char if quote else "")
        elif char in "'\"":
            quote = char
        elif char in _SPACE:
            break
        else:
            pieces.append(char)
    if quote and not relaxed:
        raise ValueError(f"a quote is not closed: {quote}")
    # A character may be written as the escapes of its bytes.
    whole = "".join(pieces).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return whole, _after_space(text, at)


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _c_unescape(text: str, at: int) -> tuple[str, int]:
    following = text[at + 1 : at + 2]
    if following in _ESCAPES:
        return _ESCAPES[following], at + 2
    code = _CODES.match(text, at)
    if code:
        value, is_byte = int(next(filter(None, code.groups())), 8 if code.group(4) else 16), not (code[2] or code[3])
        if is_byte and 0 < value < 0x100:
            return bytes([value]).decode("utf-8", "surrogateescape"), code.end()
        if not is_byte and 0 < value < 0x110000 and not 0xD800 <= value < 0xE000:
            return chr(value), code.end()
    return text[at : at + 2], at + 2


def _plain_unescape(text: str, at: int) -> tuple[str, int]:
    return text[at + 1 : at + 2], at + 2


def _shown_unescape(text: str, at: int) -> tuple[str, int]:
    return (text[at + 1], at + 2) if text[at + 1 : at + 2] in tuple('"\\`$') else _c_unescape(text, at)


# -- commands -------------------------------------------------------------------------------------------------------


def commands(value: str) -> list[Command]:
    """The commands of one C(ExecStart=), which a semicolon of its own separates. Specifiers stay as they are.

    :raises ValueError: if systemd refuses it.
    """
    found: list[Command] = []
    at = 0
    while True:
        first, at = _next_word(value, at, _c_unescape)
        if first is None:
            return found
        argv: list[str] = []
        while at < len(value) and not re.match(r";(?:\s|\Z)", value[at:]):
            escaped = re.match(r"\\;(?:\s+|\Z)", value[at:])
            word, at = (";", at + escaped.end()) if escaped else _next_word(value, at, _c_unescape)
            argv.append(word or "")
        at = _after_space(value, at + 1)
        found.append(_command(first, argv))


def _command(first: str, rest: list[str]) -> Command:
    path = first.lstrip("-@:+!|")
    prefixes = first[: len(first) - len(path)]
    if "@" not in prefixes:
        return Command(path, [path, *rest], prefixes)
    return Command(path, rest, prefixes)


def shown_commands(shown: str) -> list[tuple[str, str]]:
    """The path and the joined arguments of each command in C(systemctl show --property=ExecStart)."""
    return [(found.group(1), found.group(2)) for found in _SHOWN.finditer(shown)]


def exact(shown: list[tuple[str, str]], declared: list[Command]) -> list[Command]:
    """The commands that C(systemctl show) prints, with the boundaries of their words.

    C(systemctl) has resolved the specifiers, and has lost the quotes; the text of the unit has the quotes. Where the
    two do not agree, such as in a unit that was changed and not reloaded, each space is a boundary.
    """
    found = []
    for position, (path, joined) in enumerate(shown):
        text = declared[position] if position < len(declared) else Command("", [])
        argv = _aligned(text.argv, joined)
        found.append(Command(path, joined.split(" ") if argv is None else argv, "" if argv is None else text.prefixes))
    return found


def _aligned(argv: list[str], joined: str) -> list[str] | None:
    """The words of a unit with their specifiers resolved, as C(joined) has them; None if it is another command."""
    if " ".join(argv) == joined:
        return argv
    if not argv or sum(word.count("%") for word in argv) > _MOST_SPECIFIERS:
        return None
    pattern = " ".join(f"({_with_specifiers(word)})" for word in argv)
    found = re.fullmatch(pattern, joined, re.DOTALL)
    return list(found.groups()) if found else None


def _with_specifiers(word: str) -> str:
    """A pattern of all that a word can become once its specifiers are resolved."""
    pieces, end = [], 0
    for found in _SPECIFIER.finditer(word):
        pieces.append(re.escape(word[end : found.start()]))
        pieces.append("%" if found.group(1) == "%" else ".*?")
        end = found.end()
    return "".join([*pieces, re.escape(word[end:])])


def references(command: Command) -> set[str]:
    """Names of the variables that a command needs."""
    if ":" in command.prefixes:
        return set()
    alone = {word[1:] for word in command.argv if _is_variable(word)}
    return alone | {name for word in command.argv for name in re.findall(r"(?<!\$)\$\{(\w+)\}", word)}


def expand(command: Command, environment: t.Mapping[str, str]) -> list[str]:
    """The arguments that systemd starts a command with. C($NAME) is replaced only as a word of its own, by the words of
    its value; C(${NAME}) anywhere, by the value as it is; C($$) is a dollar sign. With the prefix C(:) nothing is."""
    if ":" in command.prefixes:
        return command.line
    found = [command.path]
    for word in command.argv[1:]:
        if _is_variable(word):
            found.extend(split_value(environment.get(word[1:], "")))
        else:
            found.append(re.sub(r"\$\$|\$\{([^}:]*)\}", lambda ref: _value(ref, environment), word))
    return found


def _is_variable(word: str) -> bool:
    return word[:1] == "$" and word[1:2] not in ("{", "$")


def _value(reference: re.Match[str], environment: t.Mapping[str, str]) -> str:
    return "$" if reference.group(1) is None else environment.get(reference.group(1), "")


# -- environment files ----------------------------------------------------------------------------------------------


def environment(text: str) -> dict[str, str]:
    r"""The assignments of an environment file.

    Quoted values may have several lines. A backslash takes the next character as it is; within double quotes only
    before one of C(\"`$), within single quotes never. A line that begins with C(#) or C(;) is a comment.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
        elif text[at] in _COMMENT:
            at = _end_of_comment(text, at)
        else:
            end = next((position for position in range(at, len(text)) if text[position] in "=\n\r"), len(text))
            name = text[at:end].strip(_SPACE)
            if text[end : end + 1] != "=":
                at = end + 1
                continue
            value, at = _assigned(text, end + 1)
            if _NAME.fullmatch(name) and "\0" not in value:
                found[name] = value
    return found


def _end_of_comment(text: str, at: int) -> int:
    while at < len(text) and text[at] not in "\n\r":
        at += 2 if text[at] == "\\" else 1
    return at


def _assigned(text: str, at: int) -> tuple[str, int]:
    """The value that begins at a position, and the position behind it. Space around what is not quoted is left out."""
    pieces: list[str] = []
    spaces = 0  # at the end, so far
    begun = False
    while at < len(text) and text[at] not in "\n\r":
        char = text[at]
        if char == "\\":
            piece = text[at + 1 : at + 2]
            pieces.append("" if piece in ("\n", "\r") else piece)
            at, spaces, begun = at + 2, 0, True
        elif not begun and char in "'\"":
            quoted, at = _quoted(text, at)
            pieces.append(quoted)
        elif not begun and char in _SPACE:
            at += 1
        else:
            pieces.append(char)
            at, spaces, begun = at + 1, spaces + 1 if char in _SPACE else 0, True
    value = "".join(pieces)
    return value[: len(value) - spaces] if spaces else value, at + 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    """The content of the quotes that open at a position, and the position behind them."""
    quote, pieces = text[at], []
    at += 1
    while at < len(text) and text[at] != quote:
        if text[at] == "\\" and quote == '"':
            following = text[at + 1 : at + 2]
            pieces.append(
                following if following and following in '"\\`$' else "" if following == "\n" else f"\\{following}"
            )
            at += 2
        else:
            pieces.append(text[at])
            at += 1
    return "".join(pieces), at + 1
