# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Which package of the distribution owns a file."""

from __future__ import annotations

import os
import shutil
import typing as t

if t.TYPE_CHECKING:
    from ._command import Run


def owners(run: Run, paths: t.Sequence[str]) -> dict[str, dict[str, str]]:
    """The package that owns each of the paths: C({path: {manager, name}}). A path that none owns is left out.

    The path is asked for as it is and as it is without symbolic links. dpkg knows one name of a file, the one in its
    package: with a merged /usr it is asked for all that lead to the file.
    """
    plain = {name: path for path in paths for name in (os.path.realpath(path), path)}
    if not plain:
        return {}
    found = {}
    wanted = {**{other: path for name, path in plain.items() for other in _merged_names(name)}, **plain}
    if shutil.which("dpkg-query"):
        found = _dpkg(run, list(wanted))
    if shutil.which("rpm"):
        found = {**_rpm(run, list(plain)), **found}
    return {wanted[name]: package for name, package in found.items()}


_MERGED = ("/bin", "/sbin", "/lib", "/lib64", "/usr/sbin", "/usr/bin", "/usr/lib", "/usr/lib64")
"""Directories that are one with another of them where /usr, or bin and sbin, are merged: /bin is a link to usr/bin."""


def _merged_names(path: str) -> list[str]:
    """The other names that a path has through directories that are links to its own."""
    own = next((top for top in _MERGED if path.startswith(f"{top}/")), None)
    if own is None:
        return []
    real = os.path.realpath(own)
    return [f"{top}{path[len(own) :]}" for top in _MERGED if top != own and os.path.realpath(top) == real]


def _dpkg(run: Run, names: list[str]) -> dict[str, dict[str, str]]:
    done = run(["dpkg-query", "--search", *names], timeout=60)
    found = {}
    for line in done.out.splitlines():
        package, colon, path = line.rpartition(": ")
        if colon and path in names and not package.startswith("diversion by"):
            found[path] = {"manager": "apt", "name": package.split(",")[0].split(":")[0]}
    return found


def _rpm(run: Run, names: list[str]) -> dict[str, dict[str, str]]:
    found = {}
    for path in names:
        done = run(["rpm", "--query", "--file", "--queryformat", "%{NAME}", path], timeout=60)
        if done.rc == 0 and done.out:
            found[path] = {"manager": "dnf", "name": done.out.split()[0]}
    return found
