# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What the operator wants of a host: his variables, checked and in one place."""

from __future__ import annotations

import json
import reprlib
import typing as t
from collections.abc import Mapping

from ..module_utils._errors import InputError
from ..module_utils._state import is_accepted, name_of
from . import _catalog, _checks, _policy, _settings, _solver, _versions, _windows

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]

PHASES = _settings.PHASES
"""Phases in their usual order: what is watched before what watches it, and what stores before what shows."""

LATEST = "latest"
FIELDS = {
    "versions": {},
    "overrides": {},
    "components": {},
    "phases": PHASES,
    "only": [],
    "policy": {},
    "pins": {},
    "blacklist": [],
    "allow_downgrade": False,
    "accept": [],
    "windows": [],
    "rules": {},
    "stack": "",
}
"""What a wish is made of: the variables, without the C(upgrade_) before them, and what they are if nobody says."""


class Wish(t.NamedTuple):
    """What is wanted of one host, and what is allowed there."""

    versions: dict[str, str]
    phases: list[str]
    only: list[str]
    catalog: Data
    policy: _policy.Rules
    needs: list[_solver.Rule]
    accept: frozenset[str]
    windows: list[_windows.Window]
    stack: str

    def means(self, key: str) -> bool:
        """Whether a run that is narrowed so takes in a component, or an instance of one."""
        asked = not self.only or key in self.only or name_of(key) in self.only
        return asked and self.entry(key)["phase"] in self.phases

    def version(self, key: str) -> str | None:
        """The version that is requested for a component: by the key of the instance or, for all, by its name."""
        return self.versions.get(key, self.versions.get(name_of(key)))

    def entry(self, key: str) -> Data:
        """What the catalog and the operator say of a component."""
        return _catalog.entry_of(self.catalog, key)

    def accepts(self, finding: Data) -> bool:
        """Whether the operator accepts a finding."""
        return is_accepted(finding["key"], finding["component"], self.accept)

    def rank(self, name: str) -> tuple[int, int, str]:
        return rank(self.catalog[name], self.phases)


def rank(entry: Data, phases: t.Sequence[str]) -> tuple[int, int, str]:
    """A component's usual place: that of its phase, then its own in it."""
    place = phases.index(entry["phase"]) if entry["phase"] in phases else len(phases)
    return place, entry["order"], entry["name"]


class Wishes:
    """Reads the wishes of hosts. Many hosts wish for the same, so that each is read once."""

    def __init__(self) -> None:
        self._read: dict[str, Wish] = {}

    def read(self, host: str, data: Mapping[str, t.Any]) -> Wish:
        """The wish of a host.

        :param data: its variables, by the names of FIELDS.
        :raises InputError: naming the host, the variable, what is wrong with it, and the way out.
        """
        try:
            plain = _plain(data)
            if plain not in self._read:
                self._read[plain] = _read(json.loads(plain))
        except InputError as exc:
            raise InputError(f"{host}: {exc}", key=exc.key) from exc
        return self._read[plain]


def _plain(data: t.Any) -> str:
    """The variables as a text, free of what Ansible attaches to them."""
    if not isinstance(data, Mapping):
        raise InputError(f"what is wished is {reprlib.repr(data)}; it must be a dictionary of variables")
    try:
        return json.dumps(dict(data), default=str)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InputError(f"what is wished isn't data that JSON knows: {exc}") from exc


def _read(data: Data) -> Wish:
    given = {name: data.get(name) if data.get(name) is not None else default for name, default in FIELDS.items()}
    versions, only, accept, phases, stack = (_checked(name, given) for name in _CHECKS)
    catalog = _catalog.load(overrides=given["overrides"], components=given["components"])
    _check_names("upgrade_versions", versions, catalog)
    _check_names("upgrade_only", only, catalog)
    for name, wanted in versions.items():
        if wanted != LATEST and not (_versions.is_version(wanted) or _versions.is_range(wanted)):
            raise InputError(
                f"upgrade_versions.{name}: {reprlib.repr(wanted)} is neither a version ('1.9.1') nor a range "
                f"('>=2.53,<3') nor {LATEST}; put it in quotes",
                key="input.not_a_version",
            )
    _check_names("upgrade_accept", {key.partition(".")[0] for key in accept} - {"host"}, catalog)
    policy = _policy.read(
        policy=given["policy"],
        pins=given["pins"],
        blacklist=given["blacklist"],
        allow_downgrade=given["allow_downgrade"],
        known=catalog,
    )
    return Wish(
        versions=versions,
        phases=phases,
        only=only,
        catalog=catalog,
        policy=policy,
        needs=_needs(catalog, given["rules"]),
        accept=frozenset(accept),
        windows=_windows.read(given["windows"]),
        stack=stack,
    )


def _stack(value: t.Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _checks.must_be("a name", value)
    return str(value)


_NAMES = _checks.list_of(_checks.any_text, what="a list of names")
_CHECKS: dict[str, _checks.Check] = {
    "versions": _checks.map_of(None, _checks.anything, what="{component: version}"),
    "only": _NAMES,
    "accept": _NAMES,
    "phases": _NAMES,
    "stack": _stack,
}


def _checked(name: str, given: Data) -> t.Any:
    variable = f"upgrade_{name}"
    return _checks.variable(variable, _CHECKS[name], given[name], key=f"input.{variable}")


def _needs(catalog: Data, rules: t.Any) -> list[_solver.Rule]:
    """All rules of compatibility: those of the catalog, and the operator's."""
    told = {name: [(need, f"catalog/{name}.yml") for need in entry["needs"]] for name, entry in catalog.items()}
    for name, own in _catalog.needs(rules).items():
        told.setdefault(name, []).extend((need, f"upgrade_rules.{name}") for need in own)
    found = [
        _solver.Rule(
            component=name,
            when=need["when"],
            needs=need["component"],
            versions=need["versions"],
            throughout=need["hold"] == "throughout",
            reason=need["reason"] or "",
            source=source,
        )
        for name, needs in told.items()
        for need, source in needs
    ]
    _solver.check(found, {name: entry["depends_on"] for name, entry in catalog.items()}, catalog)
    return found


def _check_names(variable: str, names: t.Iterable[str], catalog: Data) -> None:
    known = _checks.Keys(catalog)
    unknown = sorted(name for name in set(names) if name not in known)
    if unknown:
        raise InputError(
            f"{variable} names {', '.join(map(_checks.shown, unknown))}, which no catalog entry describes. Known are "
            f"{', '.join(sorted(catalog))}. A component of your own goes into upgrade_components",
            key="input.unknown_component",
        )
