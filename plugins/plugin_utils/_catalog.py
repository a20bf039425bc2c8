# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. All that is known about components: the shipped files, what the operator changes and adds, one schema.

What each field means is told in docs/catalog.md.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import reprlib
import string
import typing as t
from collections.abc import Mapping

import yaml

from ..module_utils._errors import InputError
from . import _sources, _versions

if t.TYPE_CHECKING:
    Entry = dict[str, t.Any]
    Check = t.Callable[[t.Any], t.Any]

DIRECTORY = os.path.join(os.path.dirname(__file__), "catalog")

ARCHITECTURES = (
    *("386", "amd64", "arm64", "armv5", "armv6", "armv7", "mips", "mips64", "mips64le", "mipsle"),
    *("ppc64", "ppc64le", "riscv64", "s390x"),
)
"""The names that a host's architecture can have: those of promu (prometheus/promu cmd/crossbuild.go)."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REQUIRED: t.Any = object()


class _FieldError(Exception):
    """What is wrong with a value. The way to it is put together on the way out."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path

    def below(self, step: str) -> _FieldError:
        dot = "." if self.path and not self.path.startswith("[") else ""
        return _FieldError(self.problem, f"{step}{dot}{self.path}")


class Field(t.NamedTuple):
    """One field of a record: what it must be, and what it is where nobody says."""

    check: Check
    default: t.Any = _REQUIRED


# -- kinds of values ----------------------------------------------------------------------------------------------


def _must_be(what: str, value: t.Any) -> _FieldError:
    return _FieldError(f"is {reprlib.repr(value)}; it must be {what}")


def _text(value: t.Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _must_be("a text that isn't empty", value)
    return str.__str__(value)


def _form(pattern: str, what: str) -> Check:
    """A text of a certain form, as a whole."""
    form = re.compile(pattern, re.ASCII)

    def check(value: t.Any) -> str:
        if not isinstance(value, str) or not form.fullmatch(value):
            raise _must_be(what, value)
        return str.__str__(value)

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: t.Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _must_be(f"a whole number from {low} to {high}", value)
        return int(value)

    return check


def _one_of(*choices: str) -> Check:
    def check(value: t.Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _must_be(f"one of {', '.join(choices)}", value)
        return str.__str__(value)

    return check


def _or_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _switch(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise _must_be("true or false", value)
    return value


def _list(check: Check, *, least: int = 0) -> Check:
    def checked(value: t.Any) -> list[t.Any]:
        if not isinstance(value, (list, tuple)) or len(value) < least:
            raise _must_be("a list" if not least else f"a list of at least {least}", value)
        items = []
        for position, item in enumerate(value):
            try:
                items.append(check(item))
            except _FieldError as wrong:
                raise wrong.below(f"[{position}]") from None
        return items

    return checked


def _map(keys: t.Collection[str] | None, check: Check) -> Check:
    """A dictionary whose keys are some of those given; whose keys are any text if none are given."""

    def checked(value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, Mapping):
            raise _must_be("a dictionary", value)
        items = {}
        for key, item in value.items():
            if not isinstance(key, str) or (keys is not None and key not in keys):
                raise _unknown(key, keys or (), "a key that is allowed here").below(_shown(key))
            try:
                items[str.__str__(key)] = check(item)
            except _FieldError as wrong:
                raise wrong.below(key) from None
        return items

    return checked


def _record(fields: Mapping[str, Field]) -> Check:
    """A dictionary of known fields. What is left out gets its default."""

    def checked(value: t.Any) -> Entry:
        if not isinstance(value, Mapping):
            raise _must_be("a dictionary", value)
        for name in value:
            if name not in fields:
                raise _unknown(name, fields, "a field").below(_shown(name))
        record = {}
        for name, field in fields.items():
            given = value.get(name, field.default)
            if given is _REQUIRED:
                raise _FieldError("is missing; it has no default", name)
            try:
                record[name] = field.check(given)
            except _FieldError as wrong:
                raise wrong.below(name) from None
        return record

    return checked


def _unknown(name: t.Any, known: t.Collection[str], what: str) -> _FieldError:
    near = difflib.get_close_matches(str(name), known, n=1) if isinstance(name, str) else []
    hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known) or 'texts only'}"
    return _FieldError(f"is not {what}; {hint}")


def _shown(name: t.Any) -> str:
    return name if isinstance(name, str) and len(name) <= 60 else reprlib.repr(name)


def _version(value: t.Any) -> str:
    if not _versions.is_version(value):
        raise _must_be("a version in quotes, like '1.9.1'", value)
    return str.__str__(value)


def _range(value: t.Any) -> str:
    if not _versions.is_range(value):
        raise _must_be("a version or a range of them, in quotes, like '1.9.1', '>=2.55,<3' or '2.9.x'", value)
    return str.__str__(value)


def _expression(value: t.Any) -> str:
    try:
        groups = re.compile(_text(value), re.MULTILINE).groups
    except (re.error, OverflowError, RecursionError) as exc:
        raise _FieldError(f"is no regular expression: {exc}") from None
    if groups != 1:
        raise _FieldError(f"has {groups} groups; it must have one, around the value")
    return str.__str__(value)


def _template(value: t.Any) -> str:
    """A text with C({version}) and C({arch}) in it, and nothing else to fill in."""
    text = _text(value)
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as exc:
        raise _FieldError(f"is {reprlib.repr(value)}, which can't be filled in: {exc}") from None
    for _literal, name, form, conversion in parts:
        if name is not None and (name not in ("version", "arch") or form or conversion):
            raise _FieldError(f"has {{{name}}} in it; only {{version}} and {{arch}} can be filled in, as they are")
    return text


def _url(value: t.Any) -> str:
    text = _template(value)
    if not re.fullmatch(r"https://[^/\s]+/\S+", text):
        raise _must_be("a full https URL", value)
    if "{version}" not in text:
        raise _FieldError(f"is {reprlib.repr(value)}, the same for all versions; it must have {{version}} in it")
    return text


def _path_below(value: t.Any) -> str:
    text = _text(value)
    if text.startswith("/") or ".." in text.split("/"):
        raise _must_be("a relative path without '..'", value)
    return text


def _member(value: t.Any) -> str:
    return _template(_path_below(value))


def _source(value: t.Any) -> str:
    if not _sources.is_source(value):
        raise _must_be(_sources.WANTED, value)
    return str.__str__(value)


def _build_info(value: t.Any) -> dict[str, str]:
    """A metric's name, or that with the label that carries the version."""
    labelled = {"metric": value} if isinstance(value, str) else value
    return t.cast("dict[str, str]", _BUILD_INFO(labelled))


def _unit(value: t.Any) -> str:
    return t.cast("str", _UNIT(value)).removesuffix(".service")


_NAME = _form(r"[a-z][a-z0-9_]{0,59}", "a name of small letters, digits and _")
_FILE = _form(r"[A-Za-z0-9][\w.+-]*", "a file's name, without a path")
_FLAG = _form(r"[A-Za-z0-9][\w.-]*", "a flag's name, without dashes before it and without a value")
_UNIT = _form(r"[A-Za-z0-9][\w:.@\\-]*", "the name of a unit")
_METRIC = _form(r"[A-Za-z_:][\w:]*", "the name of a metric or label")
_VARIABLE = _form(r"[A-Za-z_]\w*", "the name of a variable")
_WEB_PATH = _form(r"/[!-~]*", "a path that begins with /")
_PATH = _form(r"/[^\0]*", "an absolute path")
_TOKEN = _form(r"[\w.-]+", "how the release names the architecture")
_DATE = _form(r"\d{4}-\d{2}-\d{2}", "a date in quotes, like '2026-03-02'")
_COMPONENTS = _map(None, lambda data: data)
_BUILD_INFO = _record({"metric": Field(_METRIC), "label": Field(_METRIC, "version")})
_REFERENCE = Field(_or_none(_text), None)

# -- the schema ---------------------------------------------------------------------------------------------------

_FILE_OF_SET = {"name": Field(_FILE), "aliases": Field(_list(_FILE), [])}

_ERA = {
    "when": Field(_range, "*"),
    "url": Field(_url),
    "checksums": Field(_or_none(_url), None),
    "members": Field(_map(None, _member), {}),
    "architectures": Field(_or_none(_map(ARCHITECTURES, _TOKEN)), None),
}

_PROBE = {
    "kind": Field(_one_of("http"), "http"),
    "path": Field(_WEB_PATH),
    "status": Field(_list(_whole(100, 599), least=1), [200]),
}

_LAST_RELEASE = {
    "version": Field(_version),
    "reason": Field(_text),
    "date": Field(_or_none(_DATE), None),
    "successor": Field(_or_none(_text), None),
    "reference": _REFERENCE,
}

_ROLLBACK_FLOOR = {"from": Field(_range), "floor": Field(_range), "reason": Field(_text), "reference": _REFERENCE}

_ADVISORY = {
    "versions": Field(_range),
    "kind": Field(_one_of("bad", "vulnerable")),
    "fixed_in": Field(_or_none(_version), None),
    "reason": Field(_text),
    "reference": _REFERENCE,
}

_REMOVAL = {
    "since": Field(_version),
    "until": Field(_or_none(_version), None),
    "use": Field(_text),
    "level": Field(_one_of("blocker", "warning"), "blocker"),
    "unless_flags": Field(_list(_FLAG), []),
    "reference": _REFERENCE,
}

_NEED = {
    "when": Field(_range, "*"),
    "component": Field(_NAME),
    "versions": Field(_range),
    "hold": Field(_one_of("throughout", "at_end"), "throughout"),
    "reason": Field(_or_none(_text), None),
    "reference": _REFERENCE,
}

_NOTE = {"since": Field(_version), "message": Field(_text), "reference": Field(_text)}

ENTRY: dict[str, Field] = {
    "name": Field(_NAME),
    "title": Field(_or_none(_text), None),
    "phase": Field(_NAME),
    "order": Field(_whole(0, 1000), 50),
    "install": Field(_one_of("files", "tree"), "files"),
    "units": Field(_list(_unit, least=1)),
    "files": Field(_list(_record(_FILE_OF_SET), least=1)),
    "releases": Field(_list(_record(_ERA), least=1)),
    "versions_from": Field(_or_none(_source), None),
    "version_variables": Field(_list(_VARIABLE), []),
    "architectures": Field(_map(ARCHITECTURES, _TOKEN), {name: name for name in ARCHITECTURES}),
    "version_args": Field(_list(_list(_text, least=1), least=1), [["--version"]]),
    "port": Field(_whole(1, 65535)),
    "metrics_path": Field(_WEB_PATH, "/metrics"),
    "flags": Field(
        _map(("config", "data", "external_url", "listen", "metrics_path", "route_prefix", "web_config"), _FLAG), {}
    ),
    "config_values": Field(_map(("address", "port", "protocol"), _expression), {}),
    "default_config": Field(_or_none(_PATH), None),
    "default_data": Field(_or_none(_PATH), None),
    "build_info": Field(_list(_build_info), []),
    "probes": Field(_or_none(_list(_record(_PROBE))), None),
    "probe_timeout": Field(_whole(1, 86400), 60),
    "probe_window": Field(_whole(0, 3600), 10),
    "stages": Field(_list(_range), []),
    "known_releases": Field(_list(_version), []),
    "last_release": Field(_or_none(_record(_LAST_RELEASE)), None),
    "depends_on": Field(_list(_NAME), []),
    "needs": Field(_list(_record(_NEED)), []),
    "rollback_floors": Field(_list(_record(_ROLLBACK_FLOOR)), []),
    "advisories": Field(_list(_record(_ADVISORY)), []),
    "removed_flags": Field(_list(_record({"flag": Field(_FLAG), **_REMOVAL})), []),
    "removed_environment": Field(_list(_record({"variable": Field(_METRIC), **_REMOVAL})), []),
    "state_paths": Field(_list(_path_below), []),
    "stopped_state": Field(_switch, False),
    "notes": Field(_list(_record(_NOTE)), []),
}
"""All fields of a component, in the order of docs/catalog.md."""

_ENTRY = _record(ENTRY)


def _checked(name: str, data: t.Any) -> Entry:
    """A component with all its defaults, some of which follow from other fields."""
    entry: Entry = _ENTRY(data)
    if entry["name"] != name:
        raise _FieldError(f"is {entry['name']}; it must be {name}, as the component is called", "name")
    entry["title"] = entry["title"] or name
    if entry["probes"] is None:
        entry["probes"] = [{"kind": "http", "path": entry["metrics_path"], "status": [200]}]
    files = [file["name"] for file in entry["files"]]
    if len(set(files)) < len(files):
        raise _FieldError(f"names one file twice: {', '.join(files)}", "files")
    for position, era in enumerate(entry["releases"]):
        path = f"releases[{position}].members"
        if era["architectures"] is None:
            era["architectures"] = dict(entry["architectures"])
        for member in era["members"]:
            if member not in files:
                raise _unknown(member, files, "a file of this component").below(f"{path}.{member}")
        missing = [file for file in files if file not in era["members"]]
        if missing and entry["install"] == "files":
            raise _FieldError(f"says nothing of {', '.join(missing)}; it must name the member for each of files", path)
    return entry


def needs(value: t.Any) -> dict[str, list[Entry]]:
    """What the operator knows of components that need others: C(upgrade_rules), by component.

    :raises InputError: naming the component, the field, what is wrong, and what is allowed.
    """
    try:
        return t.cast("dict[str, list[Entry]]", _map(None, _list(_record(_NEED)))({} if value is None else value))
    except _FieldError as wrong:
        raise _input_error("upgrade_rules", wrong) from None


# -- where entries come from --------------------------------------------------------------------------------------


def load(*, overrides: t.Any = None, components: t.Any = None) -> dict[str, Entry]:
    """All components, checked, with all defaults filled in. To be read, not to be changed.

    :param overrides: what the operator knows better: C({component: {field: value}}). A value replaces the shipped one;
        of a dictionary, only the keys that it names.
    :param components: whole components of the operator's own. One that is called like a shipped one takes its place.
    :raises InputError: naming the component, the field, what is wrong, and what is allowed.
    """
    catalog, raw = dict(_shipped()), _raw()
    added = _components(components, "upgrade_components")
    for name, data in added.items():
        catalog[name] = _explained("upgrade_components", name, _named(data, name))
    for name, changes in _components(overrides, "upgrade_overrides").items():
        if name not in catalog:
            wrong = _unknown(name, sorted(catalog), "a component that the catalog knows").below(name)
            raise _input_error("upgrade_overrides", wrong, "; a component of your own goes into upgrade_components")
        base = _named(added[name], name) if name in added else raw[name]
        catalog[name] = _explained("upgrade_overrides", name, _merged(base, changes))
    return catalog


def only(catalog: dict[str, Entry], names: t.Iterable[str]) -> dict[str, Entry]:
    """Some components of the catalog.

    :raises InputError: for one that it doesn't know.
    """
    some = {}
    for name in names:
        if not isinstance(name, str) or name not in catalog:
            raise _input_error(_shown(name), _unknown(name, sorted(catalog), "a component that the catalog knows"))
        some[name] = catalog[name]
    return some


@functools.lru_cache(maxsize=1)
def _raw() -> dict[str, t.Any]:
    """The shipped files as they are, by component."""
    raw = {}
    for file_name in sorted(os.listdir(DIRECTORY)):
        if file_name.endswith(".yml"):
            with open(os.path.join(DIRECTORY, file_name), encoding="utf-8") as source:
                data = yaml.load(source.read(), Loader=_Loader)
            raw[file_name.removesuffix(".yml")] = data
    return raw


@functools.lru_cache(maxsize=1)
def _shipped() -> dict[str, Entry]:
    return {name: _explained(f"catalog/{name}.yml", name, data) for name, data in _raw().items()}


def _components(value: t.Any, source: str) -> dict[str, t.Any]:
    """The operator's dictionary of components; nothing is an empty one."""
    try:
        return t.cast("dict[str, t.Any]", _COMPONENTS({} if value is None else value))
    except _FieldError as wrong:
        raise _input_error(source, wrong, ", {component: {field: value}}") from None


def _named(data: t.Any, name: str) -> t.Any:
    """The operator's components needn't repeat the name that they stand under."""
    return {"name": name, **data} if isinstance(data, Mapping) else data


def _merged(base: Mapping[str, t.Any], changes: t.Any) -> t.Any:
    """An entry with some of its fields replaced; of fields that are dictionaries, some of their keys."""
    if not isinstance(changes, Mapping):
        return changes
    merged = dict(base)
    for field, value in changes.items():
        before = base.get(field, ENTRY[field].default if field in ENTRY else None)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[field] = {**before, **value} if both else value
    return merged


def _explained(source: str, name: str, data: t.Any) -> Entry:
    try:
        return _checked(name, data)
    except _FieldError as wrong:
        raise _input_error(source, wrong if source.startswith("catalog/") else wrong.below(name)) from None


def _input_error(source: str, wrong: _FieldError, hint: str = "") -> InputError:
    where = f"{source}: {wrong.path}" if wrong.path else source
    return InputError(f"{where} {wrong.problem}{hint}", key="input.catalog")
