# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What version a text speaks of. Order and ranges are the controller's: plugin_utils/_versions.py."""

from __future__ import annotations

import re

UNKNOWN = "unknown"
"""A version that could not be read. Never a number, so that it can't be compared by accident."""

_VERSION = r"v?(\d+\.\d+(?:\.\d+){0,2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)(?![0-9A-Za-z.+])"

_LONGEST = 64

# In order: the first that finds something decides. A Go version or a build date never stands at these places.
_PATTERNS = tuple(
    re.compile(pattern, re.MULTILINE | re.IGNORECASE)
    for pattern in (
        r"\bversion[ =:]+" + _VERSION,  # prometheus, version 3.5.3 (branch: ...); Version 11.6.0 (commit: ...)
        r"exporter\s+" + _VERSION + r"(?=[\s,]|\Z)",  # Redis Metrics Exporter v1.88.0    build date: ...
        r"-tags-v(\d+\.\d+\.\d+)(?=-)",  # victoria-metrics-20250303-101112-tags-v1.112.0-0-g0f2b3a1
        r"\A\s*[A-Za-z][\w.-]*\s+" + _VERSION + r"(?=[\s,]|\Z)",  # php-fpm_exporter 2.2.0, commit ...
        r"\A\s*" + _VERSION + r"\s*$",  # 0.10.1
    )
)

# What distributions append to a version whose source they repackaged (+ds, +ds1, +dfsg2, +really...), and Debian's
# own revision (-1, -1+b4, -5+deb12u1). Neither makes it another version of the program.
_REPACKAGED = re.compile(r"\+(?:ds|dfsg|repack|git)[0-9A-Za-z.]*(?:-.*)?$")
_DEBIAN_REVISION = re.compile(r"-\d+(?:\+(?:b|deb\d+u)\d+|ubuntu[0-9.]+)+$")


def find_version(text: str) -> str:
    """The version that a program's C(--version) output tells, or "unknown".

    :param text: stdout and stderr together: half of the exporters print to one, half to the other.
    """
    for pattern in _PATTERNS:
        found = pattern.search(text)
        if found:
            version = normalize(found.group(1))
            return version if len(version) <= _LONGEST else UNKNOWN
    return UNKNOWN


def normalize(text: str) -> str:
    """A version without a leading ``v`` and without what a distribution appended.

    ``2.42.0+ds`` becomes ``2.42.0``; ``10.0.0+security-01``, a release of its own, stays.
    """
    text = text.strip()
    if text[:1] in "vV" and text[1:2].isdigit():
        text = text[1:]
    return _DEBIAN_REVISION.sub("", _REPACKAGED.sub("", text))


def parse(text: str) -> str:
    """The version that a text is, as a whole; "unknown" if it is something else."""
    version = normalize(text)
    return version if len(version) <= _LONGEST and re.fullmatch(_VERSION, version) else UNKNOWN


def same_version(one: str | None, other: str | None) -> bool:
    """Whether both are known and name the same version of the program."""
    if not one or not other or UNKNOWN in (one, other):
        return False
    return normalize(one) == normalize(other)
