# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. A unit's command line: splitting, environment, flags, and the address it listens on."""

from __future__ import annotations

import re
import shlex
import typing as t

from ._redaction import HIDDEN, is_secret_name, parse_url, redact_text

_CONFIG_NAME = re.compile(r"\.(?:ya?ml|json|ini|conf|cnf|cfg|toml|env|hcl|river|alloy|properties|config)$")


_MOST_FILE_ARGUMENTS = 1000


class ListenAddress(t.NamedTuple):
    """Where a service answers, seen from its own host."""

    host: str
    port: int


def split_words(text: str) -> list[str]:
    """Words of a text in which quotes hold words together."""
    try:
        return shlex.split(text)
    except ValueError:  # an unbalanced quote
        return text.split()


def with_files(argv: list[str], read: t.Callable[[str], str]) -> list[str]:
    """A command line with each C(@file) replaced by the arguments in that file, one a line, as kingpin does. A file
    that can't be read stays as it is.

    :param read: reads a file by the path on the command line; an empty text for one that can't be read.
    """
    found: list[str] = argv[:1]
    waiting, room = argv[1:], _MOST_FILE_ARGUMENTS
    while waiting:
        word = waiting.pop(0)
        if word == "--" or room <= 0:
            return [*found, word, *waiting]
        lines = read(word[1:]).splitlines() if re.match("@.", word) else []
        arguments = [line for line in lines if line.strip() and not line.startswith("#")]
        room -= len(arguments) + 1 if lines else 0
        waiting[:0] = arguments
        found.extend([] if lines else [word])
    return found


def as_list(value: t.Any) -> list[str]:
    """A value of the catalog that is one text, several, or none."""
    return [value] if isinstance(value, str) else list(value or [])


def flag_values(argv: list[str], name: str) -> list[str]:
    """All values given to a flag, written C(--name=value), C(-name=value), C(--name value) or C(-name value)."""
    values = []
    for position, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag not in (f"--{name}", f"-{name}"):
            continue
        if equals:
            values.append(value)
        elif position + 1 < len(argv) and not argv[position + 1].startswith("-"):
            values.append(argv[position + 1])
        else:
            values.append("")
    return values


def config_files(argv: list[str]) -> list[str]:
    """The files on a command line that can be configurations: by the flag's name, or by their own."""
    found = []
    for flag, value in zip(argv, [*argv[1:], ""]):
        name, equals, own = flag.partition("=")
        named = flag.startswith("-") and re.search("config|cnf", name, re.IGNORECASE)
        path = own if equals else value if named else flag
        if path.startswith("/") and (named or _CONFIG_NAME.search(path)):
            found.append(path)
    return list(dict.fromkeys(found))


def flag_names(argv: list[str]) -> list[str]:
    """Names of all flags on the command line, without dashes and values, in order, each once."""
    names = (word.lstrip("-").partition("=")[0] for word in argv if re.match(r"--?\w", word))
    return list(dict.fromkeys(names))


def listen_address(text: str, *, port: int) -> ListenAddress:
    """C(:9090), C(0.0.0.0:9090), C([::]:9090), C(localhost:9090) or C(9090) as an address one can connect to.

    :param port: what to take when the text names none, or a name instead of a number.
    """
    host, _colon, port_text = text.rpartition(":")
    number = int(port_text) if port_text.isdigit() else port
    host = host.strip("[]")
    if host in ("", "0.0.0.0", "*"):
        return ListenAddress("127.0.0.1", number)
    return ListenAddress("::1" if host == "::" else host, number)


def redact(words: list[str]) -> list[str]:
    """The command line without secrets: values of flags that are named like one, and what looks like one in any word.

    Of a URL, its host, its path and the names in its query stay readable: such are addresses of the service itself.
    """
    shown: list[str] = []
    hide_next = False
    for word in words:
        flag, equals, _value = word.partition("=")
        secret_flag = word.startswith("-") and is_secret_name(flag.lstrip("-"))
        if hide_next and not word.startswith("-"):
            shown.append(HIDDEN)
        elif secret_flag and equals:
            shown.append(f"{flag}={HIDDEN}")
        else:
            shown.append(redact_text(word))
        hide_next = secret_flag and not equals
    return shown


def private_url(url: str) -> str:
    """A URL that C(redact_url) would change, as it is; empty for one that has nothing to hide. So a module gets the one
    for its messages, and the other as a secret."""
    return url if redact_url(url) != url else ""


def redact_url(url: str) -> str:
    """A URL for people: without who asks, without its query, which may hold a token, and on one line."""
    scheme, colon, rest = url.partition("://") if re.match(r"[\w+.-]{1,20}://", url) else ("", "", url)
    parts = parse_url(rest)
    text = f"{scheme}{colon}{f'{HIDDEN}@' if parts.login else ''}{parts.host}{parts.path}"
    return "".join(filter(str.isprintable, text))
