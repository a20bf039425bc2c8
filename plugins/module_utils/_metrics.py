# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. The little of Prometheus' text exposition format that a probe needs."""

from __future__ import annotations

import itertools
import math
import re
import typing as t

_SAMPLE = re.compile(
    r'^([A-Za-z_:][\w:]*)(?:[ \t]*\{([^"}\n]*(?:"(?:[^"\\\n]|\\.)*"[^"}\n]*)*)\})?[ \t]+([^ \t\r\n]+)', re.MULTILINE
)
_MOST_SAMPLES = 500_000
"""Samples of a page that are looked at. More cost memory and time, and no component of the catalog has as many."""

_TYPE = re.compile(r"^# TYPE ([A-Za-z_:][\w:]*) ", re.MULTILINE)
_LABEL = re.compile(r'(?<!\w)([A-Za-z_]\w*)[ \t]*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPE = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
_SUFFIX = re.compile(r"_(?:bucket|count|sum|total|created|info)$")


class Page:
    """A page of metrics, taken apart once."""

    def __init__(self, text: str) -> None:
        self.count = 0
        """How many samples it has."""
        self._values: dict[str, list[tuple[str, str]]] = {}
        self._typed = set(_TYPE.findall(text))
        for found in itertools.islice(_SAMPLE.finditer(text), _MOST_SAMPLES):
            name, labels, value = found.group(1, 2, 3)
            self.count += 1
            self._values.setdefault(name, []).append((labels or "", value))

    def families(self) -> list[str]:
        """The names of what is measured, sorted. The parts of a histogram or summary are one."""
        return sorted({self._family(name) for name in self._values})

    def total(self, metric: str, labels: dict[str, str]) -> float | None:
        """The sum of the samples of a metric that carry the labels; None if there are none, or none with a value."""
        wanted = {(name, str(value)) for name, value in labels.items()}
        values = [
            _number(value)
            for text, value in self._values.get(metric, [])
            if not wanted or wanted <= set(_labels(text).items())
        ]
        numbers = [value for value in values if value is not None]
        return sum(numbers) if numbers else None

    def _family(self, name: str) -> str:
        base = _SUFFIX.sub("", name)
        return base if name not in self._typed and base in self._typed else name


def _number(text: str) -> float | None:
    """A sample's value; None for one that is none, and for NaN."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _labels(text: str) -> dict[str, str]:
    return {
        label: re.sub(r'\\[\\"n]', lambda match: _ESCAPE[match.group(0)], value)
        for label, value in _LABEL.findall(text)
    }


def labels_of(text: str, metric: str) -> t.Iterator[dict[str, str]]:
    """The labels of each sample of a metric, in the page's order."""
    for found in re.finditer(rf"^{re.escape(metric)}(?:\{{(.*)\}})?[ \t]+\S", text, re.MULTILINE):
        yield _labels(found.group(1) or "")


def version_in(text: str, build_info: t.Iterable[dict[str, str]]) -> str | None:
    """The version that a page of metrics tells; None if it tells none.

    :param build_info: what to look for, in order: the ``metric``'s name and the ``label`` that carries the version.
    """
    for wanted in build_info:
        for labels in labels_of(text, wanted["metric"]):
            if labels.get(wanted["label"]):
                return labels[wanted["label"]]
    return None
