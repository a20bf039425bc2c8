# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. All that is known about components: the shipped files, what the operator changes and adds, one schema.

What each field means is told in docs/catalog.md.
"""

from __future__ import annotations

import functools
import os
import re
import reprlib
import string
import typing as t
from collections.abc import Mapping

import yaml

from ..module_utils._errors import InputError
from ..module_utils._redaction import parse_url
from ..module_utils._state import name_of
from . import _sources
from ._checks import (
    Field,
    FieldError,
    any_text,
    form,
    list_of,
    map_of,
    must_be,
    one_of,
    or_none,
    range_text,
    record,
    shown,
    switch,
    unknown,
    version_text,
    whole,
)

if t.TYPE_CHECKING:
    Entry = dict[str, t.Any]

DIRECTORY = os.path.join(os.path.dirname(__file__), "catalog")

ARCHITECTURES = (
    *("386", "amd64", "arm64", "armv5", "armv6", "armv7", "mips", "mips64", "mips64le", "mipsle"),
    *("ppc64", "ppc64le", "riscv64", "s390x"),
)
"""The names that a host's architecture can have: those of promu (prometheus/promu cmd/crossbuild.go)."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# -- kinds of values ----------------------------------------------------------------------------------------------


def _expression(value: t.Any) -> str:
    try:
        groups = re.compile(any_text(value), re.MULTILINE).groups
    except (re.error, OverflowError, RecursionError) as exc:
        raise FieldError(f"is no regular expression: {exc}") from None
    if groups != 1:
        raise FieldError(f"has {groups} groups; it must have one, around the value")
    return str.__str__(value)


def _pattern(value: t.Any) -> str:
    try:
        re.compile(any_text(value))
    except (re.error, OverflowError, RecursionError) as exc:
        raise FieldError(f"is no regular expression: {exc}") from None
    return str.__str__(value)


def _scalar(value: t.Any) -> t.Any:
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise must_be("a text, a number, true, false or null", value)
    return str.__str__(value) if isinstance(value, str) else value


def _number(value: t.Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise must_be("a number", value)
    return value


def _template(value: t.Any) -> str:
    """A text with C({version}) and C({arch}) in it, and nothing else to fill in."""
    text = any_text(value)
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as exc:
        raise FieldError(f"is {reprlib.repr(value)}, which can't be filled in: {exc}") from None
    for _literal, name, spec, conversion in parts:
        if name is not None and (name not in ("version", "arch") or spec or conversion):
            raise FieldError(f"has {{{name}}} in it; only {{version}} and {{arch}} can be filled in, as they are")
    return text


def _url(value: t.Any) -> str:
    if isinstance(value, str) and parse_url(value.partition("://")[2]).login:  # not shown: neither here nor in a plan
        raise FieldError("has a login in it, which plans would show: put it in ~/.netrc or in upgrade_release_mirror")
    text = _template(value)
    if not re.fullmatch(r"https://[^/\s]+/\S+", text):
        raise must_be("a full https URL", value)
    if "{version}" not in text:
        raise FieldError(f"is {reprlib.repr(value)}, the same for all versions; it must have {{version}} in it")
    return text


def _path_below(value: t.Any) -> str:
    text = any_text(value)
    if text.startswith("/") or ".." in text.split("/"):
        raise must_be("a relative path without '..'", value)
    return text


def _member(value: t.Any) -> str:
    return _template(_path_below(value))


def _source(value: t.Any) -> str:
    if not _sources.is_source(value):
        raise must_be(_sources.WANTED, value)
    return str.__str__(value)


def _build_info(value: t.Any) -> dict[str, str]:
    """A metric's name, or that with the label that carries the version and the versions that have the metric."""
    labelled = {"metric": value} if isinstance(value, str) else value
    return _always(_BUILD_INFO(labelled))


def _always(item: dict[str, t.Any]) -> dict[str, t.Any]:
    """What may hold of some versions only, without the field C(when) where it holds of all."""
    return {name: value for name, value in item.items() if (name, value) != ("when", "*")}


def _paths(value: t.Any) -> list[str]:
    """No path, one, or several; each absolute, or below the working directory of the program."""
    given = [] if value is None else [value] if isinstance(value, str) else value
    return t.cast(
        "list[str]", list_of(lambda path: _PATH(path) if str(path).startswith("/") else _path_below(path))(given)
    )


def _unit(value: t.Any) -> str:
    return _UNIT(value).removesuffix(".service")


_NAME = form(r"[a-z][a-z0-9_]{0,59}", "a name of small letters, digits and _")
_FILE = form(r"[A-Za-z0-9][\w.+-]*", "a file's name, without a path")
_FLAG = form(r"[A-Za-z0-9][\w.-]*", "a flag's name, without dashes before it and without a value")
_UNIT = form(r"[A-Za-z0-9][\w:.@\\-]*", "the name of a unit")
_METRIC = form(r"[A-Za-z_:][\w:]*", "the name of a metric or label")
_VARIABLE = form(r"[A-Za-z_]\w*", "the name of a variable")
_WEB_PATH = form(r"/[!-~]*", "a path that begins with /")
_PATH = form(r"/[^\0]*", "an absolute path")
_TOKEN = form(r"[\w.-]+", "how the release names the architecture")
_DATE = form(r"\d{4}-\d{2}-\d{2}", "a date in quotes, like '2026-03-02'")
_COMPONENTS = map_of(None, lambda data: data)
_BUILD_INFO = record({"metric": Field(_METRIC), "label": Field(_METRIC, "version"), "when": Field(range_text, "*")})
_FLAG_MEANINGS = ("config", "data", "external_url", "listen", "metrics_path", "route_prefix", "web_config")
_REFERENCE = Field(or_none(any_text), None)

# -- the schema ---------------------------------------------------------------------------------------------------

_FILE_OF_SET = {"name": Field(_FILE), "aliases": Field(list_of(_FILE), [])}

_ERA = {
    "when": Field(range_text, "*"),
    "url": Field(_url),
    "checksums": Field(or_none(_url), None),
    "members": Field(map_of(None, _member), {}),
    "architectures": Field(or_none(map_of(ARCHITECTURES, _TOKEN)), None),
}

_PERCENT = whole(0, 100_000)
_LABELS = map_of(None, any_text)
_KEPT = Field(whole(0, 100), 100)
_PATTERNS = list_of(_pattern)

_PROBES: dict[str, dict[str, Field]] = {
    "http": {
        "path": Field(_WEB_PATH),
        "status": Field(list_of(whole(100, 599), least=1), [200]),
        "text": Field(or_none(any_text), None),
        "json": Field(map_of(None, _scalar), {}),
    },
    "http_kept": {"path": Field(_WEB_PATH), "method": Field(one_of("GET", "POST"), "GET")},
    "tcp": {"address": Field(or_none(any_text), None)},
    "unix": {"socket": Field(_PATH)},
    "metric": {
        "path": Field(_WEB_PATH),
        "metric": Field(_METRIC),
        "labels": Field(_LABELS, {}),
        "only_where": Field(or_none(record({"metric": Field(_METRIC), "labels": Field(_LABELS, {})})), None),
        "min": Field(or_none(_number), None),
        "max": Field(or_none(_number), None),
    },
    "metric_kept": {"path": Field(_WEB_PATH), "metric": Field(_METRIC), "labels": Field(_LABELS, {}), "least": _KEPT},
    "samples": {"path": Field(_WEB_PATH), "least": Field(whole(0, 100), 80)},
    "json_kept": {
        "path": Field(_WEB_PATH),
        "items": Field(any_text),
        "where": Field(map_of(None, _scalar), {}),
        "least": _KEPT,
    },
    "json_each": {
        "path": Field(_WEB_PATH),
        "items": Field(lambda value: value if value == "" else any_text(value), ""),
        "where": Field(map_of(None, _scalar), {}),
        "each": Field(_WEB_PATH),
        "json": Field(map_of(None, _scalar)),
    },
    "promql": {
        "query": Field(any_text),
        "path": Field(_WEB_PATH, "/api/v1/query"),
        "min": Field(or_none(_number), None),
        "max": Field(or_none(_number), None),
        "kept": Field(switch, False),
    },
    "rule_metrics": {},
    "log": {"patterns": Field(_PATTERNS), "allow": Field(_PATTERNS, []), "most": Field(whole(0, 100_000), 0)},
    "resources": {
        "rss_most": Field(or_none(_PERCENT), None),
        "fds_most": Field(or_none(_PERCENT), None),
        "cpu_most": Field(or_none(_PERCENT), None),
    },
    "command": {
        "argv": Field(list_of(any_text, least=1)),
        "status": Field(list_of(whole(0, 255), least=1), [0]),
        "text": Field(or_none(any_text), None),
    },
    "database": {
        "engine": Field(one_of("postgresql", "mysql", "sqlite")),
        "address": Field(or_none(any_text), None),
        "socket": Field(or_none(_PATH), None),
        "path": Field(or_none(_PATH), None),
        "defaults_file": Field(or_none(_PATH), None),
        "user": Field(or_none(any_text), None),
    },
    "container": {"engine": Field(one_of("docker", "podman"), "docker"), "container": Field(any_text)},
    "round_trip": {
        "send": Field(
            record({"path": Field(_WEB_PATH), "body": Field(any_text), "type": Field(any_text, "application/json")})
        ),
        "read": Field(record({"path": Field(_WEB_PATH)})),
        "text": Field(any_text),
    },
}
"""What each kind of probe is made of. Those that hold of any service, and C(build_info), needn't be named."""


def _probe(value: t.Any) -> dict[str, t.Any]:
    kind = value.get("kind", "http") if isinstance(value, Mapping) else "http"
    if not isinstance(kind, str) or kind not in _PROBES:
        raise unknown(kind, _PROBES, "a kind of probe").below("kind")
    common = {
        "kind": Field(any_text, "http"),
        "name": Field(or_none(any_text), None),
        "login": Field(switch, False),
    }
    return _always(record({**common, **_PROBES[kind], "when": Field(range_text, "*")})(value))


_TRIAL = {
    "about": Field(one_of("config", "web_config", "flags", "start")),
    "program": Field(or_none(_FILE), None),
    "args": Field(list_of(any_text, least=1)),
    "when": Field(range_text, "*"),
    "status": Field(list_of(whole(0, 255), least=1), [0]),
    "fix": Field(or_none(any_text), None),
}

_REHEARSAL = {
    "flags": Field(map_of(None, lambda value: value if value == "" else any_text(value))),
    "network": Field(one_of("private", "host"), "private"),
    "data": Field(one_of("none", "empty", "state"), "none"),
    "timeout": Field(whole(1, 3600), 30),
    "least": Field(whole(0, 100), 80),
    "unless_flags": Field(list_of(_FLAG), []),
}

_AUTH = {
    "user": Field(or_none(any_text), None),
    "password_file": Field(or_none(_PATH), None),
    "token_file": Field(or_none(_PATH), None),
    "client_cert": Field(or_none(_PATH), None),
    "client_key": Field(or_none(_PATH), None),
    "ca": Field(or_none(_PATH), None),
}


def _auth(value: t.Any) -> dict[str, t.Any]:
    """A login, a client certificate, or both."""
    given = t.cast("dict[str, t.Any]", record(_AUTH)(value))
    if given["client_key"] and not given["client_cert"]:
        raise FieldError("is missing; client_key is the key of a client_cert", "client_cert")
    return given


_LINK = {"to": Field(_NAME), "proofs": Field(list_of(_probe, least=1))}

_GROWTH = {"path": Field(_path_below), "seconds_per_gb": Field(whole(1, 86400))}

_LAST_RELEASE = {
    "version": Field(version_text),
    "reason": Field(any_text),
    "date": Field(or_none(_DATE), None),
    "successor": Field(or_none(any_text), None),
    "reference": _REFERENCE,
}

_ROLLBACK_FLOOR = {
    "from": Field(range_text),
    "floor": Field(range_text),
    "reason": Field(any_text),
    "reference": _REFERENCE,
}

_ADVISORY = {
    "versions": Field(range_text),
    "kind": Field(one_of("bad", "vulnerable")),
    "fixed_in": Field(or_none(version_text), None),
    "reason": Field(any_text),
    "reference": _REFERENCE,
}

_REMOVAL = {
    "since": Field(version_text),
    "until": Field(or_none(version_text), None),
    "use": Field(any_text),
    "level": Field(one_of("blocker", "warning"), "blocker"),
    "unless_flags": Field(list_of(_FLAG), []),
    "reference": _REFERENCE,
}

_VALUE = {"flag": Field(_FLAG), "value": Field(any_text)}

_LOOKALIKE = {
    "args": Field(list_of(any_text, least=1)),
    "output": Field(_pattern),
    "title": Field(any_text),
    "reference": _REFERENCE,
}

_SETTING = {"setting": Field(any_text), "pattern": Field(_pattern), "unless": Field(or_none(_pattern), None)}

_CUT = {
    "since": Field(version_text),
    "component": Field(_NAME),
    "setting": Field(any_text),
    "use": Field(any_text),
    "reference": _REFERENCE,
}

_NEED = {
    "when": Field(range_text, "*"),
    "component": Field(_NAME),
    "versions": Field(range_text),
    "hold": Field(one_of("throughout", "at_end"), "throughout"),
    "reason": Field(or_none(any_text), None),
    "reference": _REFERENCE,
}

_NOTE = {"since": Field(version_text), "message": Field(any_text), "reference": Field(any_text)}

ENTRY: dict[str, Field] = {
    "name": Field(_NAME),
    "title": Field(or_none(any_text), None),
    "phase": Field(_NAME),
    "order": Field(whole(0, 1000), 50),
    "install": Field(one_of("files", "tree"), "files"),
    "units": Field(list_of(_unit, least=1)),
    "files": Field(list_of(record(_FILE_OF_SET), least=1)),
    "releases": Field(list_of(record(_ERA))),
    "unreleased": Field(or_none(any_text), None),
    "versions_from": Field(or_none(_source), None),
    "version_variables": Field(list_of(_VARIABLE), []),
    "architectures": Field(map_of(ARCHITECTURES, _TOKEN), {name: name for name in ARCHITECTURES}),
    "version_args": Field(list_of(list_of(any_text, least=1), least=1), [["--version"]]),
    "port": Field(whole(1, 65535)),
    "metrics_path": Field(_WEB_PATH, "/metrics"),
    "lookalikes": Field(list_of(record(_LOOKALIKE)), []),
    "flags": Field(map_of(_FLAG_MEANINGS, _FLAG), {}),
    "former_flags": Field(map_of(_FLAG_MEANINGS, list_of(_FLAG)), {}),
    "flag_variables": Field(map_of(_FLAG_MEANINGS, list_of(_VARIABLE)), {}),
    "config_values": Field(map_of(("address", "port", "protocol", "data"), _expression), {}),
    "default_config": Field(_paths, []),
    "default_data": Field(_paths, []),
    "build_info": Field(list_of(_build_info), []),
    "probes": Field(or_none(list_of(_probe)), None),
    "proofs": Field(list_of(_probe), []),
    "links": Field(list_of(record(_LINK)), []),
    "auth": Field(or_none(_auth), None),
    "probe_timeout": Field(whole(1, 86400), 60),
    "probe_window": Field(whole(0, 3600), 10),
    "deadline_grows": Field(or_none(record(_GROWTH)), None),
    "trials": Field(list_of(record(_TRIAL)), []),
    "help_args": Field(or_none(list_of(any_text, least=1)), None),
    "rehearse": Field(or_none(record(_REHEARSAL)), None),
    "reload": Field(or_none(one_of("signal")), None),
    "stages": Field(list_of(range_text), []),
    "known_releases": Field(list_of(version_text), []),
    "last_release": Field(or_none(record(_LAST_RELEASE)), None),
    "depends_on": Field(list_of(_NAME), []),
    "needs": Field(list_of(record(_NEED)), []),
    "rollback_floors": Field(list_of(record(_ROLLBACK_FLOOR)), []),
    "advisories": Field(list_of(record(_ADVISORY)), []),
    "removed_flags": Field(list_of(record({"flag": Field(_FLAG), **_REMOVAL})), []),
    "removed_values": Field(list_of(record({**_VALUE, **_REMOVAL})), []),
    "removed_environment": Field(list_of(record({"variable": Field(_METRIC), **_REMOVAL})), []),
    "removed_settings": Field(list_of(record({**_SETTING, **_REMOVAL})), []),
    "cuts_off": Field(list_of(record(_CUT)), []),
    "state_paths": Field(list_of(_path_below), []),
    "stopped_state": Field(switch, False),
    "notes": Field(list_of(record(_NOTE)), []),
}
"""All fields of a component, in the order of docs/catalog.md."""

_ENTRY = record(ENTRY)


def _checked(name: str, data: t.Any) -> Entry:
    """A component with all its defaults, some of which follow from other fields."""
    entry: Entry = _ENTRY(data)
    if entry["name"] != name:
        raise FieldError(f"is {entry['name']}; it must be {name}, as the component is called", "name")
    entry["title"] = entry["title"] or name
    if entry["probes"] is None:
        entry["probes"] = [_probe({"path": entry["metrics_path"]})]
    _check_files(entry)
    return entry


def _check_files(entry: Entry) -> None:
    """Whatever speaks of files means those of the component, and the eras speak of each."""
    files = [file["name"] for file in entry["files"]]
    if len(set(files)) < len(files):
        raise FieldError(f"names one file twice: {', '.join(files)}", "files")
    for position, trial in enumerate(entry["trials"]):
        if trial["program"] not in (None, *files):
            raise unknown(trial["program"], files, "a file of this component").below(f"trials[{position}].program")
    if not entry["releases"] and not entry["unreleased"]:
        raise FieldError("is empty; unreleased must then tell why there are none", "releases")
    for position, era in enumerate(entry["releases"]):
        path = f"releases[{position}].members"
        if era["architectures"] is None:
            era["architectures"] = dict(entry["architectures"])
        for member in era["members"]:
            if member not in files:
                raise unknown(member, files, "a file of this component").below(f"{path}.{member}")
        missing = [file for file in files if file not in era["members"]]
        if missing and entry["install"] == "files":
            raise FieldError(f"says nothing of {', '.join(missing)}; it must name the member for each of files", path)


def needs(value: t.Any) -> dict[str, list[Entry]]:
    """What the operator knows of components that need others: C(upgrade_rules), by component.

    :raises InputError: naming the component, the field, what is wrong, and what is allowed.
    """
    try:
        return t.cast("dict[str, list[Entry]]", map_of(None, list_of(record(_NEED)))({} if value is None else value))
    except FieldError as wrong:
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
    changed = _components(overrides, "upgrade_overrides")
    for key in sorted(changed, key=lambda key: "@" in str(key)):  # an instance has what its component has
        name, changes = name_of(key), changed[key]
        if name not in catalog:
            wrong = unknown(name, sorted(catalog), "a component that the catalog knows").below(key)
            raise _input_error("upgrade_overrides", wrong, "; a component of your own goes into upgrade_components")
        base = _named(added[name], name) if name in added else raw[name]
        if key == name:
            catalog[name] = _explained("upgrade_overrides", name, _merged(base, changes))
            continue
        both = _merged(_merged(base, changed.get(name, {})), changes)
        instances = {**catalog[name].get("instances", {}), key: _explained("upgrade_overrides", name, both, key)}
        catalog[name] = {**catalog[name], "instances": instances}
    return catalog


def entry_of(catalog: Mapping[str, Entry], key: str) -> Entry:
    """What the catalog and the operator say of a component, or of one instance of it.

    :param key: C(node_exporter), or C(node_exporter@9101) for a further instance.
    :raises KeyError: if the catalog has no such component.
    """
    entry = catalog[name_of(key)]
    return t.cast("Entry", entry.get("instances", {}).get(key, entry))


def only(catalog: dict[str, Entry], names: t.Iterable[str]) -> dict[str, Entry]:
    """Some components of the catalog.

    :raises InputError: for one that it doesn't know.
    """
    some = {}
    for name in names:
        if not isinstance(name, str) or name not in catalog:
            raise _input_error(shown(name), unknown(name, sorted(catalog), "a component that the catalog knows"))
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
    except FieldError as wrong:
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


def _explained(source: str, name: str, data: t.Any, key: str = "") -> Entry:
    """:param key: what the operator wrote it under, if that isn't the name."""
    try:
        return _checked(name, data)
    except FieldError as wrong:
        raise _input_error(source, wrong if source.startswith("catalog/") else wrong.below(key or name)) from None


def _input_error(source: str, wrong: FieldError, hint: str = "") -> InputError:
    where = f"{source}: {wrong.path}" if wrong.path else source
    return InputError(f"{where} {wrong.problem}{hint}", key="input.catalog")
