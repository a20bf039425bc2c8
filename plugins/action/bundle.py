# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts all releases of a plan into one file on the controller. Nothing goes to a host."""

from __future__ import annotations

import os
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils import _files
from ..module_utils._errors import UpgradeError, shown
from ..plugin_utils import _bundle, _obtain, _publish


class ActionModule(ActionBase):
    """Obtains what a plan takes, tells how far it is, and writes the bundle."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        _ignored, arguments = self.validate_argument_spec(
            {
                "plan": {"type": "dict", "required": True},
                "index": {"type": "dict", "default": {}},
                "release": {"type": "dict"},
                "dest": {"type": "path", "required": True},
            }
        )
        if not arguments["dest"]:
            raise AnsibleActionFail("the bundle has no place: set upgrade_bundle_dest, or upgrade_report_dir")
        dest = os.path.abspath(os.path.expanduser(arguments["dest"]))
        try:
            return {**result, **self._make(arguments, dest)}
        except UpgradeError as exc:
            return {**result, "failed": True, "msg": str(exc), "key": exc.key}

    def _make(self, arguments: dict[str, t.Any], dest: str) -> dict[str, t.Any]:
        plan, index = arguments["plan"], arguments["index"]
        documents: dict[str, bytes] = {}
        archives = _obtained(_wanted(plan), _obtain.read(arguments["release"]), documents)
        releases = sorted(release for release, _path in archives)
        same = _bundle.is_same(dest, releases, plan=plan["digest"], index=index, documents=documents)
        if not same and not self._task.check_mode:
            made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            _bundle.write(dest, archives, made_at=made_at, plan=plan["digest"], index=index, documents=documents)
        sha256 = _files.sha256_or_none(dest)
        text = ""
        if not same and sha256:
            size = _megabytes(os.path.getsize(dest))
            text = f"{dest}: {len(releases)} releases, {size}; upgrade_bundle_sha256: {sha256}"
        told = [release._asdict() for release in releases]
        outcome = {
            "kind": "bundle",
            "digest": plan["digest"],
            "counts": {"releases": len(releases)},
            "failed_hosts": [],
            "bundle": dest,
            "sha256": sha256,
        }
        return {
            **_publish.publish(text, outcome=outcome),
            "changed": not same,
            "dest": dest,
            "sha256": sha256,
            "releases": told,
        }


def _wanted(plan: dict[str, t.Any]) -> list[_obtain.Wanted]:
    """The releases that a plan takes, each once for each architecture."""
    found = set()
    for step in (step for steps in plan["hosts"].values() for step in steps.values() if step["stage"]):
        stage = step["stage"]
        identity = (step["component"], step["to"], stage["architecture"])
        found.add(_obtain.Wanted(*identity, url=stage["url"], checksums=stage["checksums"]))
    return sorted(found)


def _obtained(
    wanted: list[_obtain.Wanted], settings: _obtain.Settings, documents: dict[str, bytes]
) -> list[tuple[_bundle.Release, str]]:
    """The releases with the paths of their archives. How far it is is told as it goes.

    :param documents: where to put what their signatures were verified with.
    """
    archives = []
    for number, each in enumerate(wanted, 1):
        got = _obtain.obtain(each, settings)
        documents.update(got.documents)
        path, size = str(got.path), os.path.getsize(str(got.path))
        release = _bundle.Release(*each[:4], sha256=got.sha256, size=size, verified=got.verified)
        archives.append((release, path))
        _publish.say(shown(f"{number} of {len(wanted)}: {release.told}, {_megabytes(size)}"))
    return archives


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB"
