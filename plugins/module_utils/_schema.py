# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What the files of a state directory look like, as data, and the reader that accepts nothing else.

The shapes are written in a subset of JSON Schema. C(docs/state.schema.json) is C(DOCUMENT) with descriptions; a test
compares the two. Keys that no shape names are allowed, for a newer collection may have written them.
"""

from __future__ import annotations

import functools
import json
import math
import re
import typing as t

Shape = dict[str, t.Any]

MOST_NAME = 64
"""Characters of an identifier or a name."""

MOST_KEY = 100
"""Characters of the key of a component: C(node_exporter), or C(node_exporter@9101) for a further instance of it."""

MOST_BACKUP_ID = 240
"""Characters of the name of a restore point: with C(.removed) behind it, it is still the name of a file."""

MOST_TEXT = 4096
"""Characters of a free text, such as the reason of a failure. What comes after them is left out."""

MOST_REVISION = 10**12
MOST_DEPTH = 32
"""How deep lists and objects of a file may stand in each other."""

_MOST_DIGITS = 1000
_MOST_ENTRIES = 10_000
_MOST_SECONDS = 1e11  # of a time since the epoch

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+~-]*$"
KEY = r"^[A-Za-z0-9][A-Za-z0-9_.+~-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?$"
STEP_KEY = r"^[A-Za-z0-9][A-Za-z0-9_.+~-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?@[A-Za-z0-9][A-Za-z0-9_.+~-]*$"
BACKUP_ID = r"^[A-Za-z0-9][A-Za-z0-9_.+~@-]*$"
_SHA256 = r"^[0-9a-f]{64}$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
_PATH = r"^/[^\u0000-\u001f\u007f]*$"
_UNIT = r"^[^/\u0000-\u0020\u007f-]([^/\u0000-\u0020\u007f])*$"
_STORED = r"^[0-9]+-[^/\u0000-\u001f\u007f]+$"

UPGRADE_STATES = (
    "IDLE",
    "PLANNING",
    "BACKING_UP",
    "UPGRADING",
    "VALIDATING",
    "ROLLING_BACK",
    "COMPLETED",
    "ROLLED_BACK",
    "FAILED",
)
COMPONENT_STATES = (
    "idle",
    "checking",
    "downloading",
    "staged",
    "activated",
    "verifying",
    "success",
    "rolled_back",
    "failed",
)
SCHEMA_VERSION = 1
OUTCOMES = ("succeeded", "aborted", "rolled_back", "failed")
"""How a step ends, and an upgrade: the worst of its steps, in this order."""

PHASE_STATES = ("pending", "in_progress", "completed", "failed")
KINDS = ("binary", "unit", "config", "state")
"""What a file of a component is."""


def _text(pattern: str | None = None, most: int = MOST_TEXT) -> Shape:
    return {"type": "string", "maxLength": most, **({"pattern": pattern} if pattern else {})}


def _number(kind: str, least: float, most: float) -> Shape:
    return {"type": kind, "minimum": least, "maximum": most}


def _or_null(shape: Shape) -> Shape:
    if "enum" in shape:
        return {"enum": [*shape["enum"], None]}
    return {**shape, "type": [shape["type"], "null"]}


def _list(items: Shape, most: int = _MOST_ENTRIES) -> Shape:
    return {"type": "array", "maxItems": most, "items": items}


def _named(values: Shape, pattern: str = NAME, most: int = MOST_NAME) -> Shape:
    """An object that has a value for each of any number of names."""
    names = {"pattern": pattern, "maxLength": most}
    return {
        "type": "object",
        "maxProperties": _MOST_ENTRIES,
        "propertyNames": names,
        "additionalProperties": values,
    }


def _object(required: dict[str, Shape], optional: dict[str, Shape] | None = None) -> Shape:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


_NAME_OR_NULL = _or_null(_text(NAME, MOST_NAME))
_KEY = _text(KEY, MOST_KEY)
_TEXT_OR_NULL = _or_null(_text())
_MOST_STEP = MOST_KEY + 1 + MOST_NAME
_STEP = _text(STEP_KEY, _MOST_STEP)
_AT = _text(_TIME, 20)
_AT_OR_NULL = _or_null(_AT)
_HASH = _text(_SHA256, 64)
_HASH_OR_NULL = _or_null(_HASH)
_FILE = _text(_PATH)
_BACKUP_ID = _text(BACKUP_ID, MOST_BACKUP_ID)
_REVISION = _number("integer", 0, MOST_REVISION)
_WHO = {"user": _TEXT_OR_NULL, "controller": _TEXT_OR_NULL}

_PHASE = _object(
    {"state": {"enum": list(PHASE_STATES)}, "steps": _list(_STEP)},
    {"started_at": _AT_OR_NULL, "finished_at": _AT_OR_NULL, "error": _TEXT_OR_NULL},
)
UPGRADE = _object(
    {"state": {"enum": list(UPGRADE_STATES)}},
    {
        "upgrade_id": _text(NAME, MOST_NAME),
        "kind": {"enum": ["upgrade", "rollback"]},
        "mode": _text(),
        "phase": _NAME_OR_NULL,
        "plan_digest": _TEXT_OR_NULL,
        "resumes": _text(NAME, MOST_NAME),
        "took_over": _object({}, {"upgrade_id": _text(), **_WHO}),
        "started_by": _object({}, {"user": _text(), "controller": _text(), "job": _text()}),
        "started_at": _AT,
        "updated_at": _AT,
        "finished_at": _AT_OR_NULL,
        "component": _or_null(_KEY),
        "steps": _named({"enum": ["pending", *OUTCOMES]}, STEP_KEY, _MOST_STEP),
        "phases": _named(_PHASE),
        "outcome": {"enum": list(OUTCOMES)},
        "failure": _text(),
        "ended_by": {"enum": ["run", "watchdog", "next_run", "reset"]},
        "unlocked_by": _text(),
        "errors": _list(_object({"at": _AT, "message": _text()}, {"component": _KEY}), 50),
        "checkpoints": _list(
            _object(
                {
                    "name": _text(NAME, MOST_NAME),
                    "at": _AT,
                    "revision": _number("integer", 1, MOST_REVISION),
                },
                {"description": _TEXT_OR_NULL},
            ),
            50,
        ),
    },
)
_INVENTORY = _object(
    {},
    {
        "current_version": _text(NAME, MOST_NAME),
        "previous_version": _NAME_OR_NULL,
        "installed_at": _AT,
        "upgraded_at": _AT,
        "paths": _list(_FILE),
        "sha256": _HASH_OR_NULL,
        "restore_points": _list(
            _object(
                {"id": _BACKUP_ID, "version": _NAME_OR_NULL, "created_at": _AT},
                {"marked": {"type": "boolean"}},
            )
        ),
    },
)
_PROBE = _object(
    {"passed": {"type": "boolean"}, "version": _NAME_OR_NULL},
    {
        "at": _AT,
        "unit": _text(),
        "pid": _number("integer", 0, 2**31),
        "start_ticks": _number("integer", 0, 2**63),
        "boot": _text(),
    },
)
COMPONENT = _object(
    {"state": {"enum": list(COMPONENT_STATES)}},
    {
        "attempts": _number("integer", 0, MOST_REVISION),
        "from_version": _NAME_OR_NULL,
        "to_version": _text(NAME, MOST_NAME),
        "upgrade_id": _NAME_OR_NULL,
        "started_at": _AT,
        "updated_at": _AT,
        "finished_at": _AT_OR_NULL,
        "outcome": _or_null({"enum": list(OUTCOMES)}),
        "last_error": _TEXT_OR_NULL,
        "skip_reason": _TEXT_OR_NULL,
        "health_check_passed": _or_null({"type": "boolean"}),
        "probe": _or_null(_PROBE),
        "verified": _list(_text()),
        "rollback_available": {"type": "boolean"},
        "backup_id": _or_null(_BACKUP_ID),
        "restored_from": _or_null(_BACKUP_ID),
        "placed": _or_null(_named(_HASH_OR_NULL, _PATH, MOST_TEXT)),
        "sha256": _HASH_OR_NULL,
        "files": _list(_object({"path": _FILE}, {"before": _HASH_OR_NULL, "after": _HASH_OR_NULL})),
        "inventory": _INVENTORY,
    },
)
_COMPONENTS = _named(COMPONENT, KEY, MOST_KEY)
_HISTORY = _object({"head": _HASH_OR_NULL, "base": _HASH_OR_NULL})
DOCUMENT = _object(
    {
        "schema_version": _number("integer", 1, SCHEMA_VERSION),
        "revision": _REVISION,
        "upgrade": UPGRADE,
        "components": _COMPONENTS,
    },
    {
        "history": _HISTORY,
        "manifest_number": _number("integer", 1, 2**53),
        "repairs": _list(_object({"at": _AT, "problem": _text()}, {"set_aside": _TEXT_OR_NULL}), 20),
    },
)
ARCHIVE = _object({"previous": _HASH_OR_NULL, "upgrade": UPGRADE}, {"components": _COMPONENTS, "revision": _REVISION})
"""What a file of history/ is."""

_SECONDS = _number("number", 0, _MOST_SECONDS)
LEASE = _object(
    {},
    {
        "token": _REVISION,
        "revision": _REVISION,
        "upgrade_id": _NAME_OR_NULL,
        **_WHO,
        "job": _TEXT_OR_NULL,
        "origin": _TEXT_OR_NULL,
        "pid": _or_null(_number("integer", 0, 2**31)),
        "start_ticks": _or_null(_number("integer", 0, 2**53)),
        "boot": _TEXT_OR_NULL,
        "acquired": _SECONDS,
        "renewed": _SECONDS,
        "expires": _SECONDS,
        "uptime": _SECONDS,
        "boot_id": _text(),
    },
)
HELD_LEASE = {**LEASE, "required": ["upgrade_id", "acquired", "renewed", "expires"]}
"""A lease that names a run."""

_TARGET = _object(
    {"component": _KEY, "unit": _text(_UNIT, 255), "binary": _FILE, "url": _text()},
    {
        "version": _NAME_OR_NULL,
        "probes": _or_null(_list(_object({"kind": _text()}))),
        "proofs": _or_null(_list(_object({"kind": _text()}))),
    },
)
MARKER = _object(
    {
        "component": _KEY,
        "unit": _text(_UNIT, 255),
        "kinds": _list({"enum": list(KINDS)}),
        "target": _TARGET,
        "confirm_within": _number("number", 0, _MOST_SECONDS),
        "probe_timeout": _number("number", 0, _MOST_SECONDS),
        "probe_window": _number("number", 0, _MOST_SECONDS),
        "record": COMPONENT,
        "boot": _text(),
        "starts": _named(_number("integer", 0, MOST_REVISION), _UNIT, 255),
        "undone": _TEXT_OR_NULL,
    },
    {"revision": _REVISION, "shared": _list(_TARGET, 100)},
)
"""What the marker of a rollback watchdog is, pending/<component>.json."""

_COMMAND = _object({"prefix": _text(r"^[-+:!]*$", 5), "path": _text(most=1 << 16), "argv": _list(_text(most=1 << 20))})
_LOADED_UNIT = _object(
    {
        "unit": _text(_UNIT, 255),
        "loaded": {"type": "boolean"},
        "properties": _named(_text(most=1 << 20)),
        "commands": _named(_list(_COMMAND)),
    }
)
_ATTRIBUTES = _object(
    {
        "uid": _number("integer", 0, 2**32),
        "gid": _number("integer", 0, 2**32),
        "mode": _text(r"^[0-7]{3,5}$", 5),
        "xattrs": {"type": "object", "additionalProperties": _text(r"^[A-Za-z0-9+/]*={0,2}$", 1 << 20)},
    }
)
MANIFEST = _object(
    {
        "id": _BACKUP_ID,
        "component": _KEY,
        "version": _NAME_OR_NULL,
        "created_at": _AT,
        "entries": _list(
            _object(
                {
                    "kind": {"enum": list(KINDS)},
                    "path": _FILE,
                    "stored": _text(_STORED, 255),
                    "sha256": _HASH,
                    "attributes": _ATTRIBUTES,
                    "link": _or_null(_text(r"^[^\u0000]+$")),
                }
            )
        ),
    },
    {"loaded_units": _list(_LOADED_UNIT)},
)
"""What the manifest of a restore point is."""

CANDIDATE = _object(
    {
        "archive_sha256": _text(),
        "files": {"type": "object", "maxProperties": _MOST_ENTRIES, "additionalProperties": _HASH},
    }
)
"""What staging/<step>/candidate.json is."""

_UNIT_MARKS = _object({"salt": _text(most=MOST_NAME), "marks": _named(_HASH)})
_COUNT = _or_null({"type": "number"})
BASELINE = _object(
    {
        "upgrade_id": _NAME_OR_NULL,
        "seen": {
            "type": "object",
            "additionalProperties": _object(
                {},
                {
                    "rss": _COUNT,
                    "value": _COUNT,
                    "count": _COUNT,
                    "families": _list({"type": "string"}, 1_000_000),
                    "there": _list({"type": "string"}, 1_000_000),
                },
            ),
        },
    },
    {"taken_at": _AT, "version": _NAME_OR_NULL, "unit": _UNIT_MARKS},
)
"""What baseline/<component>.json is."""


def loads(content: bytes) -> t.Any:
    """The value in a JSON text that is read the same by every reader.

    :raises ValueError: if it is no JSON in UTF-8, or has a key twice, a number that is none or is too large, half of a
        surrogate pair, or more than C(MOST_DEPTH) levels.
    """
    try:
        value = json.loads(
            content.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refused,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError(f"it has more than {MOST_DEPTH} levels") from None
    if b"\\ud" in content.lower():
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _value in pairs]
        raise ValueError(f"it has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _refused(text: str) -> t.NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:MOST_NAME]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"the number {text[:MOST_NAME]}... is too large")
    return int(text)


def _check_depth(value: t.Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH + 1:
            raise ValueError(f"it has more than {MOST_DEPTH} levels")
        inner = [each for each in level if isinstance(each, (dict, list))]
        level = [child for each in inner for child in (each.values() if isinstance(each, dict) else each)]


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def problem(value: t.Any, shape: Shape) -> str:
    """What keeps a value from having a shape, and where; empty if nothing does."""
    found = _problem(value, shape)
    return f"{found[0].lstrip('.') or 'it'} {found[1]}" if found else ""


def _problem(value: t.Any, shape: Shape) -> tuple[str, str] | None:
    """The place of the first problem, from here, and the problem."""
    if "enum" in shape:
        if (value is None or isinstance(value, str)) and value in shape["enum"]:
            return None
        return "", f"is {_shown(value)}, which is none of {', '.join(map(str, shape['enum']))}"
    kinds = shape.get("type", [])
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if type(value) not in _accepted(kinds):
        return "", f"is {_shown(value)}, and must be of type {' or '.join(kinds)}"
    inner = _INNER.get(type(value))
    return inner(value, shape) if inner else None


def _number_problem(value: float, shape: Shape) -> tuple[str, str] | None:
    if "minimum" in shape and not shape["minimum"] <= value <= shape["maximum"]:
        return "", f"is {_shown(value)}, which isn't from {shape['minimum']} to {shape['maximum']}"
    return None


def _text_problem(value: str, shape: Shape) -> tuple[str, str] | None:
    most, pattern = shape.get("maxLength"), shape.get("pattern")
    if most is not None and len(value) > most:
        return "", f"is longer than {most} characters"
    if pattern is not None and not _compiled(pattern).fullmatch(value):
        return "", f"is {_shown(value)}, which doesn't match {pattern}"
    return None


def _list_problem(value: list[t.Any], shape: Shape) -> tuple[str, str] | None:
    if len(value) > shape["maxItems"]:
        return "", f"has more than {shape['maxItems']} entries"
    items = shape["items"]
    for number, each in enumerate(value):
        found = _problem(each, items)
        if found:
            return f"[{number}]{found[0]}", found[1]
    return None


def _object_problem(value: dict[str, t.Any], shape: Shape) -> tuple[str, str] | None:
    most, names, inner = shape.get("maxProperties"), shape.get("propertyNames"), shape.get("properties", {})
    if most is not None and len(value) > most:
        return "", f"has more than {most} entries"
    for name in shape.get("required", ()):
        if name not in value:
            return "", f"has no {name}"
    other = shape.get("additionalProperties")
    for name, each in value.items():
        found = _text_problem(name, names) if names else None
        if found:
            return "", f"has a name that {found[1]}"
        its = inner.get(name, other)
        found = _problem(each, its) if its else None
        if found:
            return f".{name}{found[0]}", found[1]
    return None


_INNER: dict[type, t.Callable[[t.Any, Shape], tuple[str, str] | None]] = {
    str: _text_problem,
    dict: _object_problem,
    list: _list_problem,
    int: _number_problem,
    float: _number_problem,
}


@functools.cache
def _accepted(kinds: tuple[str, ...]) -> frozenset[type]:
    """The types of values that a shape's C(type) stands for. A boolean is no number."""
    return frozenset(each for kind in kinds for each in _TYPES[kind])


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _shown(value: t.Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_NAME else f"{text[:MOST_NAME]}..."
