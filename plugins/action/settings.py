# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the variables of the collection before anything else is done. Nothing goes to a host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _results, _scope, _settings, _wish

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]


class ActionModule(ActionBase):
    """Refuses tags that skip all work, facts of hosts in place of variables, and values that are not taken."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: Data | None = None) -> Data:
        result = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        if not _scope.is_selected(self._task):
            skipped = _scope.skips_all()
            return {**result, "failed": True, "msg": skipped, "key": "input.tags"} if skipped else result
        variables = task_vars or {}
        hosts, hostvars = variables.get("ansible_play_hosts_all", []), variables.get("hostvars", {})
        foreign = _results.foreign_facts_text({host: hostvars[host].get("ansible_facts") or {} for host in hosts})
        if foreign:
            return {**result, "failed": True, "msg": foreign, "key": _results.FOREIGN_FACTS}
        try:
            given = _settings.given(variables, self._templar.template)
            wrong = _settings.problems(given)
            if not wrong:
                settings = _settings.read(given)
                _wish.Wishes().read(variables["inventory_hostname"], {name: settings[name] for name in _wish.FIELDS})
        except UpgradeError as exc:
            return {**result, "failed": True, "msg": str(exc), "key": exc.key}
        if wrong:
            return {**result, "failed": True, "msg": "\n".join(wrong), "key": "input.settings"}
        return {**result, "changed": False, "warnings": _settings.misspelt(variables)}
