# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. The little of Prometheus' text exposition format that a probe needs."""

from __future__ import annotations

import re
import typing as t

_LABEL = re.compile(r'([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPE = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def labels_of(text: str, metric: str) -> t.Iterator[dict[str, str]]:
    """The labels of each sample of a metric, in the page's order."""
    for found in re.finditer(rf"^{re.escape(metric)}(?:\{{(.*)\}})?[ \t]+\S", text, re.MULTILINE):
        yield {
            label: re.sub(r'\\[\\"n]', lambda match: _ESCAPE[match.group(0)], value)
            for label, value in _LABEL.findall(found.group(1) or "")
        }


def version_in(text: str, build_info: t.Iterable[dict[str, str]]) -> str | None:
    """The version that a page of metrics tells; None if it tells none.

    :param build_info: what to look for, in order: the ``metric``'s name and the ``label`` that carries the version.
    """
    for wanted in build_info:
        for labels in labels_of(text, wanted["metric"]):
            if labels.get(wanted["label"]):
                return labels[wanted["label"]]
    return None
