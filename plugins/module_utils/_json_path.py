# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. Finding a value in JSON data by a dotted path: C(data.activeTargets[0].health)."""

from __future__ import annotations

import json
import re
import typing as t

MISSING = "nothing"
"""What C(shown) says of a value that isn't there."""


class Found(t.NamedTuple):
    """What is at a path. ``there`` tells a value that is missing from one that is null."""

    there: bool
    value: t.Any


def find(data: t.Any, path: str) -> Found:
    """The value at a path of names and, for lists, indexes: C(a.b[0].c) or C(a.b.0.c). The empty path is all of it."""
    for step in filter(None, re.split(r"[.\[\]]+", path)):
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            return Found(False, None)
    return Found(True, data)


def same(found: t.Any, wanted: t.Any) -> bool:
    """Whether a value is the wanted one, however the operator's YAML has typed it: true and C("true") are the same."""
    return bool(found == wanted) or shown(found) == shown(wanted)


def shown(value: t.Any) -> str:
    """A value as people read it: a text as it is, all else as JSON, cut where it gets long."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
