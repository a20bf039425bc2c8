# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The variables of the collection, and how each is read from what an operator can send.

C(-e key=value), a survey of AWX, an INI inventory and the environment send text. A variable takes the same value as
native data, as JSON text, as YAML text, and, where it is a list or a dictionary, as C(a,b) or C(key=value) pairs. An
empty value is the default.
"""

from __future__ import annotations

import difflib
import functools
import re
import reprlib
import typing as t
from collections.abc import Mapping

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.formatters import human_to_bytes

from ..module_utils._errors import InputError, shown
from ..module_utils._redaction import redact_text, redact_value

PHASES = ("exporters", "alerting", "metrics", "logging", "visualization")
"""Phases in their usual order: exporters before what scrapes them, and storage before dashboards."""

_LIMIT = 1 << 20
"""Characters that a text may have."""
_PAIR = r"[A-Za-z_][A-Za-z0-9_./@-]*\s*="
_TRUE = ("true", "yes", "on", "y", "t", "1")
_FALSE = ("false", "no", "off", "n", "f", "0")

Read = t.Callable[[t.Any], t.Any]


class Setting(t.NamedTuple):
    """One variable.

    :ivar read: makes the value of what was given. It raises ValueError for what it does not take.
    :ivar takes: what it takes, for the error.
    :ivar default: what an empty value stands for.
    :ivar secret: whether a value is never shown, as it may hold a login.
    :ivar keeps_empty_list: whether an empty list is a value of its own, as no hosts are.
    """

    read: Read
    takes: str
    default: t.Any
    secret: bool = False
    keeps_empty_list: bool = False


def value(variable: str, given: t.Any) -> t.Any:
    """The value of a variable.

    :param variable: its name, such as C(upgrade_delay).
    :param given: what was given: native data or text. None and empty text stand for the default.
    :raises InputError: naming the variable, what was given, and what it takes. Its key is C(input.<variable>).
    """
    setting = SETTINGS[variable]
    if setting.keeps_empty_list and isinstance(given, (list, tuple)) and not given:
        return []
    if _is_empty(given):
        return _copied(setting.default)
    try:
        read = setting.read(given)
    except (ValueError, TypeError, RecursionError, OverflowError):
        told = "has a value that is not shown and" if setting.secret else f"is {_told(given)}; it"
        raise InputError(f"{variable} {told} must be {setting.takes}", key=f"input.{variable}") from None
    return _copied(setting.default) if _is_empty(read) else read


def read(given: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """All variables, by their names without C(upgrade_).

    :param given: what was given, by variable. One that is missing has its default.
    :raises InputError: for the first that is wrong.
    """
    return {name.removeprefix("upgrade_"): value(name, given.get(name)) for name in SETTINGS}


def problems(given: Mapping[str, t.Any]) -> list[str]:
    """What is wrong with the variables that were given, a line each."""
    lines = []
    for name in SETTINGS.keys() & given.keys():
        try:
            value(name, given[name])
        except InputError as exc:
            lines.append(str(exc))
    return sorted(lines)


def misspelt(names: t.Iterable[str]) -> list[str]:
    """Names that are none of a variable of the collection, but nearly one: a line each."""
    near = {
        name: difflib.get_close_matches(name, SETTINGS, n=1, cutoff=_NEAR)
        for name in names
        if name.startswith("upgrade_") and name not in SETTINGS
    }
    return [f"{shown(name, most=80)} has no effect; did you mean {found[0]}?" for name, found in near.items() if found]


_NEAR = 0.9


def _told(given: t.Any) -> str:
    """What was given, escaped, cut, and without what looks like a secret."""
    return shown(redact_text(reprlib.repr(_plain(redact_value(given)))), most=200)


def _plain(given: t.Any) -> t.Any:
    """A value whose representation is that of its plain type: Ansible's tagged types have others."""
    for kind in (bool, int, float, str):
        if isinstance(given, kind):
            return given if kind is bool else kind(given)
    if isinstance(given, Mapping):
        return {_plain(key): _plain(item) for key, item in given.items()}
    return [_plain(item) for item in given] if isinstance(given, (list, tuple)) else given


def _copied(default: t.Any) -> t.Any:
    return list(default) if isinstance(default, (list, tuple)) else dict(default) if default == {} else default


def _is_empty(given: t.Any) -> bool:
    if isinstance(given, str):
        return given.strip() in ("", '""', "''")
    return given is None or (isinstance(given, (list, tuple, Mapping)) and not given)


# -- from text --------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML, of which JSON is a part, that refuses what a reader would not expect."""

    def construct_mapping(self, node: t.Any, deep: bool = False) -> dict[t.Any, t.Any]:
        keys = [key.value for key, _value in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise ValueError("a key is there twice")
        return t.cast("dict[t.Any, t.Any]", super().construct_mapping(node, deep=deep))

    def compose_node(self, parent: t.Any, index: t.Any) -> t.Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("an alias")
        return super().compose_node(parent, index)


class _TextLoader(_Loader):
    """The same, with all scalars as the text they are: C(1.10) is a version, not a number."""


_Loader.yaml_constructors = dict(yaml.SafeLoader.yaml_constructors)
_TextLoader.yaml_constructors = dict(yaml.SafeLoader.yaml_constructors)
for _tag in ("bool", "int", "float", "timestamp"):
    _TextLoader.yaml_constructors[f"tag:yaml.org,2002:{_tag}"] = yaml.SafeLoader.construct_yaml_str


def _loaded(text: str, loader: t.Any = _Loader) -> t.Any:
    if len(text) > _LIMIT:
        raise ValueError("too long")
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506  # both are safe loaders
    except yaml.YAMLError:
        raise ValueError("neither JSON nor YAML") from None


def _unquoted(given: t.Any) -> str:
    """Text without the white space around it, and without quotes around all of it."""
    text = str(given).strip()
    quoted = re.fullmatch(r"(['\"])(.*)\1", text, re.DOTALL)
    return quoted[2].strip() if quoted and quoted[1] not in quoted[2] else text


def _looks_like_a_list(text: str) -> bool:
    return text.startswith("[") or bool(re.match(r"-(\s|$)", text))


# -- kinds of values --------------------------------------------------------------------------------------------------


def _truth(given: t.Any) -> bool:
    text = _unquoted(given).lower() if isinstance(given, (str, int, float)) else ""
    if isinstance(given, float) and given in (0, 1):
        return bool(given)
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(text)
    return text in _TRUE


def _whole(given: t.Any) -> int:
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        raise TypeError
    number = re.fullmatch(r"([+-]?[0-9]{1,18})(\.0*)?", _unquoted(given), re.ASCII)
    if not number:
        raise ValueError
    return int(number[1])


def _number(low: int, high: int, given: t.Any) -> int:
    number = _whole(given)
    if not low <= number <= high:
        raise ValueError
    return number


def _text(given: t.Any) -> str:
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        raise TypeError
    text = _unquoted(given)
    if not text.isprintable():
        raise ValueError
    return text


def _as_it_is(given: t.Any) -> t.Any:
    """Text, or a dictionary that stands for its text."""
    if isinstance(given, str) and given.strip().startswith("{"):
        return str(given)
    return given if isinstance(given, Mapping) else _text(given)


def _choice(choices: tuple[str, ...], given: t.Any) -> str:
    text = _text(given).lower()
    if text not in choices:
        raise ValueError
    return text


def _size(given: t.Any) -> str:
    text = _text(given)
    if human_to_bytes(text) < 0:
        raise ValueError
    return text


def _items(given: t.Any, separator: str = r"[,\s]+") -> list[t.Any]:
    """The items of a list, a text of items, or a single one."""
    if isinstance(given, str):
        text = _unquoted(given)
        given = (
            _loaded(text, _TextLoader) if _looks_like_a_list(text) else list(filter(None, re.split(separator, text)))
        )
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise TypeError
    return list(given)


def _names(given: t.Any) -> list[str]:
    found = [_text(item) for item in _items(given)]
    if not all(found):
        raise ValueError
    return found


def _some_of(choices: tuple[str, ...], given: t.Any) -> list[str]:
    return [_choice(choices, name) for name in _names(given)]


def _urls(given: t.Any) -> list[str]:
    """URLs, of which a comma may be a part."""
    return [_text(item) for item in _items(given, r"\s+|\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")]


def _waves(given: t.Any) -> list[int | str]:
    return [_wave(item) for item in _items(given)]


def _wave(given: t.Any) -> int | str:
    part = re.fullmatch(r"([0-9]{1,3})\s*%", _unquoted(given), re.ASCII)
    if not part:
        return _number(1, _MANY, given)
    if not 0 < int(part[1]) <= 100:
        raise ValueError
    return f"{int(part[1])}%"


def _pattern(given: t.Any) -> str:
    """Hosts, as one of Ansible's patterns, which may have commas and brackets of its own."""
    text = _unquoted(given) if isinstance(given, str) else ""
    if not isinstance(given, str) or (_looks_like_a_list(text) and text.endswith("]")) or text.startswith("- "):
        return ",".join(_names(given))
    return ",".join(filter(None, (line.strip(" ,") for line in text.splitlines())))


def _mapping(given: t.Any, loader: t.Any = _Loader) -> Mapping[str, t.Any]:
    """A dictionary, as it is; or text of one: JSON, YAML, or pairs."""
    if isinstance(given, str):
        text = _unquoted(given)
        given = _pairs(text, loader) if re.match(_PAIR, text, re.ASCII) else _loaded(text, loader)
        if _is_empty(given):
            return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise TypeError
    return given


def _pairs(text: str, loader: t.Any) -> dict[str, t.Any]:
    """C(key=value) pairs. A value may have commas, as C(>=2.53,<3) has: a pair begins where a key and C(=) are."""
    found: dict[str, t.Any] = {}
    for pair in re.split(rf"[,\s]+(?={_PAIR})", text, flags=re.ASCII):
        key, _equals, told = pair.partition("=")
        if key.strip() in found:
            raise ValueError
        told = _unquoted(told.strip().rstrip(","))
        found[key.strip()] = told if loader is _TextLoader or re.match(r"[<>=!~%@&*|]", told) else _loaded(told, loader)
    return found


def _versions(given: t.Any) -> dict[str, t.Any]:
    """By component. One that has nothing is not listed, as where an answer of a survey was left empty."""
    return {name: told for name, told in _mapping(given, _TextLoader).items() if not _is_empty(told)}


_ALERTMANAGER = ("url", "username", "password", "token", "ca_path", "instances", "matchers", "duration")


def _alertmanager(given: t.Any) -> dict[str, t.Any]:
    """Where alerts are silenced, and how. Text that is a URL stands for a dictionary with that URL."""
    if isinstance(given, (list, tuple)) or (isinstance(given, str) and re.match("[A-Za-z]+://", given.strip())):
        given = {"url": _urls(given)}
    found = dict(_mapping(given))
    if found and (_is_empty(found.get("url")) or set(found) - {*_ALERTMANAGER, "required", "validate_certs"}):
        raise ValueError
    if "duration" in found:
        found["duration"] = _number(1, _MANY, found["duration"])
    switches = {"required": False, "validate_certs": True}
    return {**found, **{name: _truth(found.get(name, usual)) for name, usual in switches.items()}} if found else {}


def _mappings(given: t.Any) -> list[t.Any]:
    """A list of dictionaries, or a single one."""
    if isinstance(given, str):
        given = _loaded(_unquoted(given))
    if given is None:
        return []
    found = [given] if isinstance(given, Mapping) else given
    if not isinstance(found, (list, tuple)) or not all(isinstance(item, Mapping) for item in found):
        raise TypeError
    return list(found)


# -- the table --------------------------------------------------------------------------------------------------------

_DICTIONARY = "a dictionary, JSON or YAML text of one, or key=value pairs"
_LIST = "a list of names, JSON or YAML text of one, or names with commas between them"
_LISTED = "a list of dictionaries, or JSON or YAML text of one"


def _bool(default: bool = False) -> Setting:
    return Setting(_truth, "true or false (yes, no, on, off, 1 and 0 are taken too)", default)


def _int(default: int, unit: str, high: int) -> Setting:
    return Setting(functools.partial(_number, 0, high), f"a whole number of {unit} from 0 to {high}", default)


def _str(what: str, *, default: str = "") -> Setting:
    return Setting(_text, what, default)


def _one_of(*choices: str, default: str) -> Setting:
    return Setting(functools.partial(_choice, choices), f"one of {', '.join(choices)}", default)


def _dict(takes: str = _DICTIONARY, *, read: Read = _mapping, secret: bool = False) -> Setting:
    return Setting(read, takes, {}, secret)


def _list(*, read: Read = _names, takes: str = _LIST, default: t.Sequence[t.Any] = (), secret: bool = False) -> Setting:
    return Setting(read, takes, tuple(default), secret)


_DAY, _MONTH, _CENTURY, _MANY = 86_400, 2_678_400, 36_500, 1_000_000
"""Bounds: a day and a month in seconds, a century in days, and pieces. Modules accept no more either."""
_KINDS = ("binary", "unit", "config", "state")
_FILE, _DIRECTORY = "the path of a file on the controller", "the path of a directory"
_BY_COMPONENT = f"{_DICTIONARY}, by component, such as node_exporter=1.9.1"

SETTINGS: dict[str, Setting] = {
    "upgrade_hosts": Setting(
        _pattern, "a pattern of hosts as -l takes it, or a list of hosts and groups", "all", keeps_empty_list=True
    ),
    "upgrade_versions": _dict(_BY_COMPONENT, read=_versions),
    "upgrade_overrides": _dict(),
    "upgrade_components": _dict(),
    "upgrade_only": _list(),
    "upgrade_phases": _list(default=PHASES),
    "upgrade_waves": _list(
        read=_waves, takes="numbers of hosts, or parts of them from 1% to 100%, such as [1, 25%, 100%] or 1,25%,100%"
    ),
    "upgrade_policy": _dict(),
    "upgrade_pins": _dict(_BY_COMPONENT, read=_versions),
    "upgrade_blacklist": _list(read=_mappings, takes=_LISTED),
    "upgrade_allow_downgrade": _bool(),
    "upgrade_accept": _list(),
    "upgrade_windows": _list(read=_mappings, takes=_LISTED),
    "upgrade_rules": _dict(),
    "upgrade_stack": _str("a name"),
    "upgrade_mode": _one_of("safe", "standard", "fast", default="standard"),
    "upgrade_pause": _int(30, "seconds", _DAY),
    "upgrade_approved": _str("the digest of a plan"),
    "upgrade_plan": Setting(_as_it_is, "a plan that the playbook plan saved: its file, or what is in it", ""),
    "upgrade_plan_signers": _dict(),
    "upgrade_release_index": _str(_FILE),
    "upgrade_release_tokens": _dict(secret=True),
    "upgrade_release_apis": _dict(secret=True),
    "upgrade_on_failure": _one_of("abort", "continue", default="abort"),
    "upgrade_release_mirror": _list(
        read=_urls, takes="a URL, or a list of URLs, or URLs with commas between them", secret=True
    ),
    "upgrade_release_limits": _dict(),
    "upgrade_release_pins": _dict(read=_versions),
    "upgrade_release_unverified": _bool(),
    "upgrade_release_signatures": _dict(),
    "upgrade_release_manifest": _dict(),
    "upgrade_fetch": _one_of("controller", "host", default="controller"),
    "upgrade_bundle": _str(_FILE),
    "upgrade_bundle_sha256": _str("a sha256"),
    "upgrade_bundle_dest": _str(_FILE),
    "upgrade_download_only": _bool(),
    "upgrade_cache_dir": _str(_DIRECTORY),
    "upgrade_cache_size": Setting(_size, "a number of bytes, or a text like 10GB", "10GB"),
    "upgrade_cache_days": _int(90, "days", _CENTURY),
    "upgrade_state_dir": _str(_DIRECTORY, default="/var/lib/observability-upgrades"),
    "upgrade_checks_required": _bool(),
    "upgrade_rehearse": _bool(),
    "upgrade_restart": _one_of("graceful", "fast", "reload", default="graceful"),
    "upgrade_alertmanager": _dict(
        f"the URL of an Alertmanager, or a dictionary (or text of one) with url, and {', '.join(_ALERTMANAGER[1:])}, "
        "required, validate_certs where needed",
        read=_alertmanager,
        secret=True,
    ),
    "upgrade_confirm_within": _int(300, "seconds", _MONTH),
    "upgrade_backup_keep": _int(3, "restore points", _MANY),
    "upgrade_history_keep": _int(50, "upgrades", _MANY),
    "upgrade_history_days": _int(0, "days", _CENTURY),
    "upgrade_unlock_force": _bool(),
    "upgrade_rollback_to": _str("the id of a restore point or of an upgrade, or previous"),
    "upgrade_rollback_kinds": Setting(
        functools.partial(_some_of, _KINDS), f"a list of {', '.join(_KINDS)}", ("binary",)
    ),
    "upgrade_report_dir": _str("the path of a directory on the controller, or empty for none"),
}
"""All variables of the collection that an operator sets."""


def given(variables: Mapping[str, t.Any], evaluate: t.Callable[[t.Any], t.Any]) -> dict[str, t.Any]:
    """The variables that are set for a host.

    :param variables: all variables of the host, as Ansible has them.
    :param evaluate: evaluates the templates in a value.
    :raises InputError: naming the variable that cannot be evaluated.
    """
    found = {}
    for name in SETTINGS:
        if name in variables:
            try:
                found[name] = evaluate(variables[name])
            except AnsibleError as exc:
                raise InputError(
                    f"{name} cannot be evaluated: {shown(redact_text(str(exc)), most=500)}", key=f"input.{name}"
                ) from None
    return found
