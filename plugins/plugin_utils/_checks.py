# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What a value must be that an operator writes, or the catalog: checks that can be put together.

A check takes a value and gives it back as it is meant, free of what Ansible attaches to it.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import typing as t
from collections.abc import Mapping

from ..module_utils._errors import InputError
from ..module_utils._redaction import redact_value
from ..module_utils._state import check_key, name_of
from . import _versions

if t.TYPE_CHECKING:
    Check = t.Callable[[t.Any], t.Any]
    TextCheck = t.Callable[[t.Any], str]

_REQUIRED: t.Any = object()


class FieldError(Exception):
    """What is wrong with a value. The way to it is put together on the way out."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} {self.problem}".lstrip()

    def below(self, step: str) -> FieldError:
        dot = "." if self.path and not self.path.startswith("[") else ""
        return FieldError(self.problem, f"{step}{dot}{self.path}")


class Field(t.NamedTuple):
    """One field of a record: what it must be, and what it is where nobody says."""

    check: Check
    default: t.Any = _REQUIRED
    missing: str = "it has no default"
    """What to tell where nobody says, and there is no default."""

    def of(self, value: t.Any) -> t.Any:
        if value is _REQUIRED:
            raise FieldError(f"is missing; {self.missing}")
        return self.check(value)


def variable(name: str, check: Check, value: t.Any, *, unset: t.Any = None, key: str) -> t.Any:
    """What the operator wrote into a variable, checked.

    :param unset: what stands for None.
    :param key: of the error.
    :raises InputError: naming the variable, the way to the value, what is wrong with it, and what is allowed.
    """
    try:
        return check(unset if value is None else value)
    except FieldError as wrong:
        raise InputError(str(wrong.below(name)), key=key) from None


# -- kinds of values ----------------------------------------------------------------------------------------------


def must_be(what: str, value: t.Any) -> FieldError:
    return FieldError(f"is {reprlib.repr(redact_value(value))}; it must be {what}")


def unknown(name: t.Any, known: t.Collection[str], what: str) -> FieldError:
    near = difflib.get_close_matches(str(name), known, n=1) if isinstance(name, str) else []
    hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known) or 'texts only'}"
    return FieldError(f"is not {what}; {hint}")


def shown(name: t.Any) -> str:
    """A name as it is, unless that would spoil the line."""
    return name if isinstance(name, str) and name.isprintable() and len(name) <= 60 else reprlib.repr(name)


def anything(value: t.Any) -> t.Any:
    return value


def form(pattern: str, what: str) -> TextCheck:
    """A text of a certain form, as a whole."""
    matches = re.compile(pattern, re.ASCII).fullmatch
    return _such(lambda value: isinstance(value, str) and bool(matches(value)), what)


def one_of(*choices: str) -> TextCheck:
    return _such(lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}")


def whole(low: int, high: int, of: str = "") -> Check:
    """A whole number.

    :param of: what is counted.
    """

    def check(value: t.Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise must_be(f"a whole number {of and f'of {of} '}from {low} to {high}", value)
        return int(value)

    return check


def or_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def switch(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise must_be("true or false", value)
    return value


class Keys(tuple[str, ...]):
    """Names of components, among which the keys of their instances count: C(node_exporter@9101)."""

    __slots__ = ()

    def __contains__(self, key: object) -> bool:
        try:
            return super().__contains__(name_of(check_key(key)))
        except InputError:
            return False


def known(names: t.Iterable[str], what: str) -> TextCheck:
    """A text that is one of many."""
    among = names if isinstance(names, Keys) else sorted(names)

    def check(value: t.Any) -> str:
        if not isinstance(value, str) or value not in among:
            raise FieldError(f"is {reprlib.repr(redact_value(value))}, which {unknown(value, among, what)}")
        return str.__str__(value)

    return check


def list_of(check: Check, *, least: int = 0, what: str = "a list") -> Check:
    wanted = f"{what} of at least {least}" if least else what

    def checked(value: t.Any) -> list[t.Any]:
        if not isinstance(value, (list, tuple)) or len(value) < least:
            raise must_be(wanted, value)
        return [_at(f"[{position}]", check, item) for position, item in enumerate(value)]

    return checked


def map_of(
    keys: t.Collection[str] | None,
    check: Check,
    *,
    what: str = "a dictionary",
    key_is: str = "a key that is allowed here",
) -> Check:
    """A dictionary whose keys are some of those given; whose keys are any text if none are given."""

    def checked(value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, Mapping):
            raise must_be(what, value)
        for key in value:
            if not isinstance(key, str) or (keys is not None and key not in keys):
                raise unknown(key, keys or (), key_is).below(shown(key))
        return {str.__str__(key): _at(shown(key), check, item) for key, item in value.items()}

    return checked


def record(fields: Mapping[str, Field], *, what: str = "a dictionary") -> Check:
    """A dictionary of known fields. What is left out gets its default."""

    def checked(value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, Mapping):
            raise must_be(what, value)
        for name in value:
            if name not in fields:
                raise unknown(name, fields, "a field").below(shown(name))
        return {name: _at(name, field.of, value.get(name, field.default)) for name, field in fields.items()}

    return checked


def _at(step: str, check: Check, value: t.Any) -> t.Any:
    """A value that is a part of another, checked."""
    try:
        return check(value)
    except FieldError as wrong:
        raise wrong.below(step) from None


def _such(holds: t.Callable[[t.Any], bool], what: str) -> TextCheck:
    """A text for which something holds."""

    def check(value: t.Any) -> str:
        if not holds(value):
            raise must_be(what, value)
        return str.__str__(value)

    return check


any_text = _such(lambda value: isinstance(value, str) and bool(value.strip()), "a text that isn't empty")
version_text = _such(_versions.is_version, "a version in quotes, like '1.9.1'")
range_text = _such(_versions.is_range, "a version or a range of them, in quotes, like '1.9.1', '>=2.55,<3' or '2.9.x'")
