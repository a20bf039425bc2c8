# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. An instance keeps the key that the host's state knows it by.

The survey gives keys by what it sees: the first instance gets the component's own name. If that one is stopped, the
next one is the first. The state, its restore points and an interrupted step are still about the instance that had the
key before, so an instance that the state knows keeps its key.
"""

from __future__ import annotations

import re
import typing as t

from . import _schema
from ._state import name_of

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]

_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_.-]+")


def kept(components: Data, records: Data) -> Data:
    """The surveyed components by the keys that the state knows them by.

    :param components: facts by key, as the survey gives them.
    :param records: those of the state, by key.
    """
    components = {_valid(key): facts for key, facts in components.items()}
    several = {name_of(key) for key in records if key != name_of(key)}
    found = {key: facts for key, facts in components.items() if name_of(key) not in several}
    for name in sorted(several):
        known = {key: record for key, record in records.items() if name_of(key) == name}
        found.update(_of_component(name, {key: components[key] for key in components if name_of(key) == name}, known))
    return found


def _of_component(name: str, surveyed: Data, known: Data) -> Data:
    owners: dict[str, str] = {}
    for matches in (_same_unit, _same_file):
        for key, facts in surveyed.items():
            free = [each for each, record in known.items() if each not in owners.values() and matches(facts, record)]
            if key not in owners and free:
                owners[key] = key if key in free else free[0]
    taken = {*owners.values(), *known}
    found: Data = {}
    for key, facts in surveyed.items():
        new = owners.get(key) or (key if key not in taken else _by_unit(name, facts))
        bare = {field: value for field, value in facts.items() if field != "instance_of"}
        found[new] = bare if new == name else {**bare, "instance_of": name}
    return found


def _same_unit(facts: Data, record: Data) -> bool:
    unit = (record.get("probe") or {}).get("unit")
    return bool(unit) and facts.get("unit") == unit


def _same_file(facts: Data, record: Data) -> bool:
    """Whether the state says that a step has put a file of the component there, and no probe has told of its unit."""
    paths = [*record.get("inventory", {}).get("paths", []), *(file["path"] for file in record.get("files", []))]
    return not record.get("probe") and any(file["path"] in paths for file in facts["files"])


def _by_unit(name: str, facts: Data) -> str:
    """A key for an instance whose own is another's."""
    unit = _NOT_IN_A_KEY.sub("-", (facts.get("unit") or "").removesuffix(".service"))
    return _valid(f"{name}@{unit}")


def _valid(key: str) -> str:
    """A key that the state can have: units may have longer names, and names that begin with another character."""
    name, at, suffix = key.partition("@")
    return f"{name}@{suffix.lstrip('-._') or 'other'}"[: _schema.MOST_KEY] if at else key
