# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows a report on the controller and keeps its data in a file. Nothing goes to a host."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils import _files
from ..module_utils._errors import shown

_REASON = 500
"""Characters of the reason why a host is left out."""


class ActionModule(ActionBase):
    """Prints a text as it is, which no task of Ansible's own does, and writes JSON beside it."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        _ignored, arguments = self.validate_argument_spec(
            {
                "text": {"type": "str", "required": True},
                "data": {"type": "raw"},
                "dest": {"type": "path"},
                "left_out": {"type": "dict", "default": {}},
                "problems": {"type": "list", "elements": "str", "default": []},
            },
            required_by={"dest": ["data"]},
        )
        Display().display(f"\n{shown(arguments['text'], lines=True)}\n")
        if arguments["left_out"]:
            told = [f"  {shown(host)}: {shown(why, most=_REASON)}" for host, why in arguments["left_out"].items()]
            Display().display("\n".join(["\nLeft out, because they failed:", *told, ""]))
        result["changed"] = False
        if arguments["dest"] and not self._task.check_mode:
            result["dest"] = _keep(arguments["data"], os.path.abspath(os.path.expanduser(arguments["dest"])))
        if arguments["problems"]:
            result.update(failed=True, msg=shown("\n".join(arguments["problems"]), lines=True))
        return result


def _keep(data: t.Any, dest: str) -> str:
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    try:
        os.makedirs(os.path.dirname(dest), exist_ok=True)
        _files.write_durably(dest, text.encode(), mode=0o640)
    except OSError as exc:
        raise AnsibleActionFail(
            f"{dest} can't be written on the controller ({exc.strerror}: {exc.filename}): "
            "choose another place, with upgrade_report_dir in the collection's playbooks"
        ) from exc
    return dest
