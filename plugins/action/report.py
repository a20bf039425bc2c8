# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows a report on the controller, to people and to programs, and keeps its data in a file. Nothing goes to a host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._errors import UpgradeError, shown
from ..plugin_utils import _publish


class ActionModule(ActionBase):
    """Prints a text as it is, which no task of Ansible's own does, returns it with its outcome, and writes JSON."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        _ignored, arguments = self.validate_argument_spec(
            {
                "text": {"type": "str", "default": ""},
                "data": {"type": "raw"},
                "dest": {"type": "path"},
                "outcome": {"type": "dict"},
                "left_out": {"type": "dict", "default": {}},
                "problems": {"type": "list", "elements": "str", "default": []},
            },
            required_by={"dest": ["data"]},
            required_one_of=[("text", "outcome")],
        )
        problems = arguments.pop("problems")
        if self._task.check_mode:
            arguments["dest"] = None
        try:
            result.update(changed=False, **_publish.publish(**arguments))
        except UpgradeError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        if problems:
            result.update(failed=True, msg=shown("\n".join(problems), lines=True))
        return result
