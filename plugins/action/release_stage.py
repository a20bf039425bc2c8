# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half of release_stage: fetch once, prove, and hand the archive to the host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _obtain

_WHERE = "where the release's archive and checksums are"
_NEEDED = {
    "component": "the component's name",
    "version": "the release's version",
    "architecture": "the host's architecture, named as releases do",
    "url": _WHERE,
    "checksums": _WHERE,
}


class ActionModule(ActionBase):
    """Fetches the archive into the controller's cache and pushes it, unless the host has it staged already."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        settings = arguments.pop("release", None)
        for name in _obtain.Wanted._fields:
            if not isinstance(arguments.get(name), str):
                raise AnsibleActionFail(f"release_stage needs {name}: {_NEEDED[name]}")
        try:
            wanted = _obtain.Wanted(*(arguments[name] for name in _obtain.Wanted._fields))
            release = _obtain.obtain(wanted, _obtain.read(settings))
        except UpgradeError as exc:
            return {**result, "failed": True, "msg": str(exc), "key": exc.key}
        arguments.update(url=release.url, archive_sha256=release.sha256, verified=release.verified)
        arguments["manifest_number"] = release.manifest_number
        outcome: dict[str, t.Any] = {"needs_archive": True}
        if arguments.get("staged_sha256") == release.sha256:
            outcome = self._stage(arguments, task_vars)
        if outcome.pop("needs_archive", False):
            outcome = self._stage({**arguments, "archive": self._push(str(release.path))}, task_vars)
            outcome.pop("needs_archive", None)
        result.update(outcome)
        result.update(fetched=release.fetched, archive_sha256=release.sha256, verified=release.verified)
        return result

    def _stage(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        """The host's half."""
        name = "observability.stack.release_stage"
        return t.cast(
            "dict[str, t.Any]", self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        )

    def _push(self, path: str) -> str:
        """Put a file into the task's temporary directory on the host; Ansible removes it with the task."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        remote = shell.join_path(shell.tmpdir, "release")
        self._transfer_file(path, remote)
        self._fixup_perms2((shell.tmpdir, remote))
        return t.cast("str", remote)
