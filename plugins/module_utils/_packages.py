# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Which package of the distribution owns a file."""

from __future__ import annotations

import os
import re
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


def diversions(run: Run, paths: t.Sequence[str]) -> dict[str, str]:
    """The paths that dpkg-divert gives to somebody else than the package that has a file of that name, as texts."""
    if not paths or not shutil.which("dpkg-query"):
        return {}
    return {
        path: f"dpkg-divert moves the file of the package to {one.to}" + (f", for {one.by}" if one.by else "")
        for path, one in _dpkg_search(run, paths)[1].items()
        if one.path == path
    }


class _Diversion(t.NamedTuple):
    """A path whose file of a package is elsewhere. ``by`` is the package that has the path; empty for the operator."""

    path: str
    to: str
    by: str


def _dpkg(run: Run, names: list[str]) -> dict[str, dict[str, str]]:
    found, diverted = _dpkg_search(run, names)
    elsewhere = {one.path for name, one in diverted.items() if name == one.to}
    originals = _dpkg_search(run, sorted(elsewhere))[0] if elsewhere else {}
    for name, one in diverted.items():
        found.pop(name, None)
        owners = [one.by] if name == one.path else [other for other in originals.get(one.path, []) if other != one.by]
        if any(owners):
            found[name] = owners
    return {name: {"manager": "apt", "name": owners[0]} for name, owners in found.items()}


def _dpkg_search(run: Run, names: t.Sequence[str]) -> tuple[dict[str, list[str]], dict[str, _Diversion]]:
    """The packages that have each of the names, and the diversions that each is an end of."""
    done = run(["dpkg-query", "--search", *names], timeout=60)
    owners: dict[str, list[str]] = {}
    diverted: dict[str, _Diversion] = {}
    source = ""
    for line in done.out.splitlines():
        what, colon, path = line.rpartition(": ")
        diversion = re.fullmatch(r"(?:local diversion|diversion by (?P<by>\S+)) (?P<end>from|to)", what)
        if diversion and diversion["end"] == "from":
            source = path
        elif diversion:
            one = _Diversion(source, path, diversion["by"] or "")
            diverted.update({name: one for name in (source, path) if name in names})
        elif colon and path in names:
            owners[path] = [package.partition(":")[0] for package in what.split(", ")]
    return owners, diverted


def _rpm(run: Run, names: list[str]) -> dict[str, dict[str, str]]:
    found = {}
    for path in names:
        done = run(["rpm", "--query", "--file", "--queryformat", "%{NAME}", path], timeout=60)
        if done.rc == 0 and done.out:
            found[path] = {"manager": "dnf", "name": done.out.split()[0]}
    return found
