# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The kinds of values that a host's answer is made of, each with its limits.

C(take) of a kind returns the value as the controller may use it: plain types, texts without anything that is not
printable. It raises C(MalformedError) for a value that is of another kind, or larger than it may be.
"""

from __future__ import annotations

import math
import re
import typing as t

from ..module_utils import _version
from ..module_utils._errors import shown
from . import _versions

if t.TYPE_CHECKING:
    from collections.abc import Mapping

LINE = 2000
"""Characters of a text that is shown. A longer one is cut."""

LONGEST_INTEGER = 2**63
_DEEPEST = 20
_RESERVED = "__ansible"
"""How keys begin by which Ansible marks values of its own types on the wire."""


class MalformedError(ValueError):
    """A value is not what a schema says. ``where`` is its place, as in C(components.loki.unit)."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{shown(where, most=200)} {what}")


class Kind(t.Protocol):
    """A kind of values."""

    def take(self, value: t.Any, where: str) -> t.Any: ...


class Text(t.NamedTuple):
    """A text. One that is longer than ``most`` is cut, or refused if it is a name that something is found by.

    ``pattern`` is what the whole text must match, ``one_of`` the only texts there are, ``lines`` whether it may have
    newlines.
    """

    most: int = LINE
    pattern: str = ""
    one_of: tuple[str, ...] = ()
    lines: bool = False
    cut: bool = True

    def take(self, value: t.Any, where: str) -> str:
        if not isinstance(value, str):
            raise MalformedError(where, f"is {_kind(value)} instead of a text")
        if self.one_of and value not in self.one_of:
            raise MalformedError(where, f"is {_brief(value)} instead of one of {', '.join(self.one_of)}")
        if not self.cut and len(value) > self.most:
            raise MalformedError(where, f"has {len(value)} characters instead of at most {self.most}")
        if self.pattern and not re.fullmatch(self.pattern, value, re.ASCII):
            raise MalformedError(where, f"is {_brief(value)}, which cannot be meant")
        return shown(value, most=self.most, lines=self.lines)


class VersionText(t.NamedTuple):
    """A version of a program. What cannot be ordered among versions is unknown."""

    def take(self, value: t.Any, where: str) -> str:
        text = Text().take(value, where)
        return text if _versions.is_version(text) else _version.UNKNOWN


class Number(t.NamedTuple):
    """A finite number, no boolean. ``whole`` numbers are integers."""

    least: float = 0
    most: float = LONGEST_INTEGER
    whole: bool = True

    def take(self, value: t.Any, where: str) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            raise MalformedError(where, f"is {_kind(value)} instead of a {'whole ' if self.whole else ''}number")
        if not self.least <= value <= self.most:  # NaN is not, either
            raise MalformedError(where, f"is {_brief(value)}, which is not between {self.least:g} and {self.most:g}")
        return value


class Flag(t.NamedTuple):
    """True or false."""

    def take(self, value: t.Any, where: str) -> bool:
        if not isinstance(value, bool):
            raise MalformedError(where, f"is {_kind(value)} instead of true or false")
        return value


class Maybe(t.NamedTuple):
    """None, or a value of a kind."""

    of: Kind

    def take(self, value: t.Any, where: str) -> t.Any:
        return None if value is None else self.of.take(value, where)


class Items(t.NamedTuple):
    """A list of values of a kind."""

    of: Kind
    most: int = 2000

    def take(self, value: t.Any, where: str) -> list[t.Any]:
        if not isinstance(value, list):
            raise MalformedError(where, f"is {_kind(value)} instead of a list")
        if len(value) > self.most:
            raise MalformedError(where, f"has {len(value)} items instead of at most {self.most}")
        return [self.of.take(item, f"{where}[{number}]") for number, item in enumerate(value)]


class Names(t.NamedTuple):
    """A dictionary of values of a kind, by names that are not known beforehand, but must look like ``name``."""

    name: Text
    of: Kind
    most: int = 2000

    def take(self, value: t.Any, where: str) -> dict[str, t.Any]:
        _check_dictionary(value, where, self.most)
        return {
            self.name.take(name, f"{where}: the name {_brief(name)}"): self.of.take(item, f"{where}.{shown(name)}")
            for name, item in value.items()
        }


class Fields(t.NamedTuple):
    """A dictionary with known keys.

    ``needed`` are those that must be there; ``needed_with`` those that must be where others are there and not empty.
    With ``more``, unknown keys are values of any kind; otherwise they are refused.
    """

    fields: Mapping[str, Kind]
    needed: tuple[str, ...] = ()
    needed_with: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    more: bool = False

    def take(self, value: t.Any, where: str) -> dict[str, t.Any]:
        _check_dictionary(value, where, 2000)
        for others, names in (((), self.needed), *self.needed_with):
            for name in names if all(value.get(other) for other in others) else ():
                if name not in value:
                    raise MalformedError(_below(where, name), "is missing")
        taken = {}
        for name, item in value.items():
            if name not in self.fields and not self.more:
                raise MalformedError(_below(where, name), "is not a key that this module returns")
            key = name if name in self.fields else _KEY.take(name, where)
            taken[key] = self.fields.get(name, ANY).take(item, _below(where, name))
        return taken


class Anything(t.NamedTuple):
    """A value of any plain type, at most ``deep`` levels of it. It is for what the controller only shows."""

    deep: int = _DEEPEST

    def take(self, value: t.Any, where: str) -> t.Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return Text(most=4 * LINE, lines=True).take(value, where)
        if isinstance(value, (int, float)):
            return Number(least=-LONGEST_INTEGER, whole=False).take(value, where)
        if self.deep < 1:
            raise MalformedError(where, "is nested too deeply")
        inner = Anything(self.deep - 1)
        if isinstance(value, list):
            return Items(inner).take(value, where)
        return Names(_KEY, inner).take(value, where)


ANY = Anything()
_KEY = Text(most=4096, cut=False)


def _check_dictionary(value: t.Any, where: str, most: int) -> None:
    if not isinstance(value, dict):
        raise MalformedError(where, f"is {_kind(value)} instead of a dictionary")
    if len(value) > most:
        raise MalformedError(where, f"has {len(value)} keys instead of at most {most}")
    for name in value:
        if not isinstance(name, str) or name.startswith(_RESERVED):
            raise MalformedError(where, f"has the key {_brief(name)}, which is reserved")


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


_KINDS = {str: "a text", bool: "true or false", int: "a number", list: "a list", dict: "a dictionary"}


def _kind(value: t.Any) -> str:
    """What a value is instead, in words."""
    if isinstance(value, float):
        return "a number" if math.isfinite(value) else "no finite number"
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)


def _brief(value: t.Any) -> str:
    return repr(shown(value, most=60))
