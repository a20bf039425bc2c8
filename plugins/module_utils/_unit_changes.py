# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. In which settings the files of a unit differ from the unit that systemd has loaded.

systemd does not keep the text that it loaded, so the properties that C(systemctl show) prints are compared with what
the text means. Only settings whose property has the same meaning, whatever the version of systemd, are compared.
"""

from __future__ import annotations

import re
import typing as t

from . import _argv, _unit_text
from ._redaction import HIDDEN, is_secret_name, redact_text

if t.TYPE_CHECKING:
    Properties = t.Mapping[str, str]

COMMANDS = ("ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload")

_ANY = None
PLAIN: dict[str, str | None] = {
    "Type": "simple",
    **dict.fromkeys(("User", "Group", "WorkingDirectory", "RootDirectory"), ""),
    **dict.fromkeys(("NetworkNamespacePath", "PIDFile"), ""),
    **dict.fromkeys(("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "PrivateNetwork"), "no"),
    **dict.fromkeys(("PrivateUsers", "ProtectSystem", "ProtectHome", "MemoryDenyWriteExecute"), "no"),
    **dict.fromkeys(("RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "ProtectKernelTunables"), "no"),
    "Restart": "no",
    "MemoryMax": "infinity",
    **dict.fromkeys(("UMask", "LimitNOFILE", "LimitNPROC", "LimitAS", "TasksMax", "KillMode"), _ANY),
}
"""Settings of one value, and what each is in a unit that does not have it; None where the manager chooses that."""

PROPERTIES = (*COMMANDS, *PLAIN, "Environment", "EnvironmentFiles")
"""What C(differences) needs of a unit."""

_IMPLIED_BY_DYNAMIC_USER = ("NoNewPrivileges", "PrivateTmp", "ProtectSystem", "ProtectHome", "RestrictSUIDSGID")
_WORDS = {"yes": "yes", "true": "yes", "on": "yes", "1": "yes", "no": "no", "false": "no", "off": "no", "0": "no"}
_SIZES = {"K": 1, "M": 2, "G": 3, "T": 4}
_LONGEST = 300


class Difference(t.NamedTuple):
    """One setting that is not on disk as it is loaded. Both values are for people, without secrets; of a command line
    and of the environment only the words that differ. A value that is empty is not set there."""

    setting: str
    loaded: str
    on_disk: str

    def __str__(self) -> str:
        return f"{self.setting}: loaded {self.loaded or '(none)'}, on disk {self.on_disk or '(none)'}"


def differences(properties: Properties, texts: t.Sequence[str]) -> list[Difference]:
    """The settings in which a unit's files are not what is loaded.

    :param properties: the unit as it is loaded, those of C(PROPERTIES) that this systemd has. It leaves out lists that
        are empty.
    :param texts: the unit file, then its drop-ins in order.
    """
    found = [_commands(name, properties, texts) for name in COMMANDS]
    found.extend((_environment(properties, texts), _environment_files(properties, texts)))
    found.extend(_plain(name, properties, texts) for name in PLAIN if name in properties)
    return [one for one in found if one]


def of_process(expected: list[str], actual: list[str]) -> Difference | None:
    """How a command line that would be started differs from that of a process; None if it does not.

    :param expected: of the unit as it is loaded, with its environment filled in. C(systemctl) has lost its quotes.
    """
    before, after = " ".join(actual[1:]).split(), " ".join(expected[1:]).split()
    if before == after:
        return None
    removed, added = ([word for word in one if word not in other] for one, other in ((before, after), (after, before)))
    return Difference("ExecStart", _shown([removed or before]), _shown([added or after]))


def _values(texts: t.Sequence[str], name: str) -> list[str]:
    return _unit_text.settings(texts, "Service", name)


def _commands(name: str, properties: Properties, texts: t.Sequence[str]) -> Difference | None:
    loaded = [joined.split() for _path, joined in _unit_text.shown_commands(properties.get(name, ""))]
    try:
        on_disk = [" ".join(one.argv).split() for value in _values(texts, name) for one in _unit_text.commands(value)]
    except ValueError as exc:
        return Difference(name, _shown(loaded), f"a line that systemd refuses ({exc})")
    if len(loaded) == len(on_disk) and all(map(_is_same_command, on_disk, loaded)):
        return None
    before, after = [word for argv in loaded for word in argv], [word for argv in on_disk for word in argv]
    removed = [word for word in before if not any(_becomes(other, word) for other in after)]
    added = [word for word in after if not any(_becomes(word, other) for other in before)]
    if not (added or removed):  # another order, or a word twice
        removed, added = before, after
    return Difference(name, _shown([removed]), _shown([added]))


def _is_same_command(on_disk: list[str], loaded: list[str]) -> bool:
    if len(on_disk) != len(loaded):
        return False
    first = not on_disk or _becomes(on_disk[0], loaded[0]) or loaded[0].endswith(f"/{on_disk[0]}")
    return first and all(map(_becomes, on_disk[1:], loaded[1:]))


def _becomes(word: str, loaded: str) -> bool:
    """Whether a word of a unit file can be a loaded one: what its specifiers stand for is not known here."""
    if "%" not in word:
        return word == loaded
    pieces = re.split(r"(%.)", word)
    pattern = "".join(
        "%" if piece == "%%" else ".*" if re.fullmatch("%.", piece) else re.escape(piece) for piece in pieces
    )
    return re.fullmatch(pattern, loaded, re.DOTALL) is not None


def _shown(commands: list[list[str]]) -> str:
    return _short("; ".join(" ".join(_argv.redact(argv)) for argv in commands))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _environment(properties: Properties, texts: t.Sequence[str]) -> Difference | None:
    loaded = _assignments(_unit_text.shown_words(properties.get("Environment", "")))
    words: list[str] = []
    for value in _values(texts, "Environment"):
        try:
            words.extend(_unit_text.words(value))
        except ValueError:
            words.extend(value.split())
    on_disk = _assignments(words)
    names = sorted({*loaded, *on_disk})
    unlike = [
        name for name in names if name not in loaded or name not in on_disk or not _becomes(on_disk[name], loaded[name])
    ]
    if not unlike:
        return None
    return Difference("Environment", *(_variables(each, unlike) for each in (loaded, on_disk)))


def _assignments(words: list[str]) -> dict[str, str]:
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def _variables(environment: dict[str, str], names: list[str]) -> str:
    told = (
        f"{name}={HIDDEN if is_secret_name(name) else redact_text(environment[name])}"
        for name in names
        if name in environment
    )
    return _short(" ".join(told))


def _environment_files(properties: Properties, texts: t.Sequence[str]) -> Difference | None:
    lines = filter(None, properties.get("EnvironmentFiles", "").splitlines())
    loaded = [line.partition(" (ignore_errors=")[0] for line in lines]
    on_disk = [value.removeprefix("-") for value in _values(texts, "EnvironmentFile")]
    if len(loaded) == len(on_disk) and all(map(_becomes, on_disk, loaded)):
        return None
    return Difference("EnvironmentFile", _short(" ".join(loaded)), _short(" ".join(on_disk)))


def _plain(name: str, properties: Properties, texts: t.Sequence[str]) -> Difference | None:
    loaded, values = properties[name], _values(texts, name)
    if not values and (PLAIN[name] is None or (name in _IMPLIED_BY_DYNAMIC_USER and _is_dynamic(properties))):
        return None
    on_disk = values[-1] if values else str(PLAIN[name])
    if _becomes(_meaning(on_disk), _meaning(loaded)) or on_disk.endswith("%"):
        return None
    return Difference(name, _short(loaded), _short(on_disk))


def _is_dynamic(properties: Properties) -> bool:
    return properties.get("DynamicUser") == "yes"


def _meaning(value: str) -> str:
    """A value in the form that systemd prints it in: truth, sizes, numbers with leading zeros, paths."""
    text = value.strip().lstrip("-!") if value.strip().startswith(("-/", "!/", "-~")) else value.strip()
    size = re.fullmatch(r"(\d+)([KMGT])(?:i?B)?", text)
    if size:
        return str(int(size[1]) * 1024 ** _SIZES[size[2]])
    if re.fullmatch(r"0[0-7]+", text):
        return text.lstrip("0") or "0"
    if re.fullmatch(r"(\w+):\1", text):  # a limit whose two values are one
        text = text.partition(":")[0]
    text = text.rstrip("/") if text.startswith("/") and len(text) > 1 else text
    return _WORDS.get(text.lower(), text)
