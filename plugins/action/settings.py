# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the variables of the collection before anything else is done. Nothing goes to a host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ..plugin_utils import _scope

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]


class ActionModule(ActionBase):
    """Refuses tags that would skip the work."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: Data | None = None) -> Data:
        result = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        skipped = _scope.skips_all(self._task)
        if skipped:
            return {**result, "failed": True, "msg": skipped, "key": "input.tags"}
        return {**result, "changed": False}
