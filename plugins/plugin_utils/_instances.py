# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The instances of a component on a host, and which of them run the same file.

Instances that run the same file form a group. The first key of a group leads it: the step, the state and the restore
points of the whole group carry this key.
"""

from __future__ import annotations

import posixpath
import re
import typing as t

from ..module_utils._state import name_of

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]

_SERVICE = re.compile(r"(?!user@)[^/\s]+\.service")


def keys(survey: Data, name: str) -> list[str]:
    """The keys of all instances of a component on a host, the component's own name first, installed or not.

    :param survey: the result of component_version.
    """
    known = {*survey["components"], *survey.get("unfinished", {})}
    return [name, *sorted(key for key in known if key != name and name_of(key) == name)]


def members(survey: Data, key: str) -> list[str]:
    """The keys of all instances that run the same file as this one, the leader first; this one alone if none does."""
    here = survey["components"].get(key, {})
    if not here.get("installed") or here.get("not_upgradable"):
        return [key]
    place = _place(here)
    return [
        other
        for other in keys(survey, name_of(key))
        if other == key or (_is_managed(survey, other) and _place(survey["components"][other]) == place)
    ]


def leader(survey: Data, key: str) -> str:
    """The key that the steps of an instance carry."""
    return members(survey, key)[0]


def outsiders(survey: Data, key: str) -> list[Data]:
    """The processes that run the same file and belong to no instance that steps can be made for, each once, as
    C(shared_by) has them; with C(obstacle), where the survey says why its unit can't be upgraded."""
    units = {facts["unit"] for other, facts in survey["components"].items() if _is_managed(survey, other)}
    obstacles = {
        facts["unit"]: facts["not_upgradable"]["reason"]
        for facts in survey["components"].values()
        if facts.get("unit") and facts.get("not_upgradable")
    }
    found: dict[int, Data] = {}
    for member in members(survey, key):
        for other in survey["components"].get(member, {}).get("shared_by", []):
            if other["container"] or other["unit"] not in units:
                found.setdefault(other["pid"], {**other, "obstacle": obstacles.get(other["unit"], "")})
    return list(found.values())


def is_service(other: Data) -> bool:
    """Whether systemd can restart an outsider as a service of its own."""
    return not (other["container"] or other["obstacle"]) and bool(_SERVICE.fullmatch(other["unit"] or ""))


def key_of_unit(name: str, unit: str) -> str:
    """A key for a unit that the survey has no key for."""
    return f"{name}@{re.sub(r'[^A-Za-z0-9_.-]', '-', unit.removesuffix('.service')).lstrip('-._') or 'unit'}"[:100]


def _is_managed(survey: Data, key: str) -> bool:
    """Whether an instance is installed and run by a unit that a step can restart."""
    facts = survey["components"].get(key, {})
    return bool(facts.get("installed") and facts.get("unit") and not facts.get("not_upgradable"))


def _place(facts: Data) -> str:
    """Where the file really is that a step replaces: the path of the program, without links to directories on the way.

    A link to the file itself, or a hard link, is a place of its own: to replace it leaves the other one as it is.
    """
    path: str = facts["files"][0]["path"]
    for link in facts.get("links", []):
        if link["kind"] == "directory" and path.startswith(f"{link['path']}/"):
            target = posixpath.join(posixpath.dirname(link["path"]), link["target"])
            path = posixpath.normpath(target + path[len(link["path"]) :])
    return path
