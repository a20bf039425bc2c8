# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""More real programs for the mirror: those of a table, as each of Debian's suites has them.

Each lies there bare, as ``programs/<component>-<suite>``, and as the release that the catalog says it comes from. As
Debian hasn't upstream's archives, their names and layouts are the catalog's own.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import shutil
import sys
import typing as t
import urllib.parse

import mirror
import yaml

Data = dict[str, t.Any]
_KEYS = ("package", "file", "from", "to", "says")
COLLECTIONS = pathlib.Path(__file__).resolve().parents[2] / "playbooks/collections"


def build(there: mirror.Mirror, table: pathlib.Path) -> None:
    """Add to a mirror what it lacks of the programs of a table. ``programs.json`` tells their versions.

    :param table: YAML: by component, ``package``, the suites ``from`` and ``to``, and ``file`` and ``says`` where these
        are otherwise than usual.
    """
    rows: Data = yaml.safe_load(table.read_text())
    known = there.directory / "programs.json"
    told: Data = json.loads(known.read_text()) if known.exists() else {"rows": {}, "versions": {}}
    wanted = {name: {key: row[key] for key in _KEYS if key in row} for name, row in rows.items()}
    missing = {name: row for name, row in wanted.items() if told["rows"].get(name) != row}
    work = there.directory.with_name(f"{there.directory.name}.programs")
    for suite in mirror.SUITES:
        here = {name: row for name, row in missing.items() if suite in (row["from"], row.get("to"))}
        if not here:
            continue
        there.fetch(suite, work / suite / "root", {row["package"] for row in here.values()})
        for name, row in here.items():
            (package,) = (work / suite).glob(f"{row['package']}_*.deb")
            program = (work / suite / "root/usr/bin" / row.get("file", row["package"])).read_bytes()
            version = row.get("says", {}).get(suite) or _version(package)
            told["versions"].setdefault(name, {})[suite] = version
            bare = there.directory / f"programs/{name}-{suite}"
            bare.parent.mkdir(exist_ok=True)
            bare.write_bytes(program)
            _release(there, name, version, program)
    if missing:
        known.write_text(json.dumps({"rows": wanted, "versions": told["versions"]}))
        shutil.rmtree(work)


def _version(package: pathlib.Path) -> str:
    """Upstream's version, without Debian's epoch, repackaging and revision."""
    full = mirror.run("dpkg-deb", "--field", package, "Version").strip()
    return re.sub(r"^\d+:|\+.*|-[^-]*$", "", full)


def _release(there: mirror.Mirror, name: str, version: str, program: bytes) -> None:
    """The release of a version, where the catalog knows one for this machine's architecture."""
    era, entry = _era(name, version)
    token = era["architectures"].get(there.architecture) if era else None
    if token is None:
        return
    words = {"version": version, "arch": token}
    archive = there.directory / urllib.parse.urlsplit(era["url"].format(**words)).path.lstrip("/")
    if archive.exists():
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    mirror.wrap(archive, era["members"][entry["files"][0]["name"]].format(**words), program)
    if era["checksums"]:
        listing = archive.parent / urllib.parse.urlsplit(era["checksums"].format(**words)).path.rpartition("/")[2]
        listing.write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")


def _era(name: str, version: str) -> tuple[Data, Data]:
    sys.path.insert(0, str(COLLECTIONS))
    # Only with programs does the lab need the collection, which has to be found first.
    from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _versions  # noqa: PLC0415

    entry = _catalog.load()[name]
    return next((era for era in entry["releases"] if _versions.matches(version, era["when"])), {}), entry
