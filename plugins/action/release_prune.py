# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the controller's cache of releases smaller. Nothing goes to a host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible.plugins.action import ActionBase

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _fetch, _release_settings


class ActionModule(ActionBase):
    """Removes what was used least recently."""

    TRANSFERS_FILES = False
    _supports_check_mode = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        _ignored, arguments = self.validate_argument_spec(
            {
                "cache_dir": {"type": "path"},
                "size": {"type": "str", "default": "0"},
                "days": {"type": "int", "default": 0},
            }
        )
        try:
            pruned = _fetch.prune(
                arguments["cache_dir"] or _release_settings.default_cache_dir(),
                keep_bytes=_bytes(arguments["size"]) or None,
                keep_days=arguments["days"] or None,
            )
        except UpgradeError as exc:
            return {**result, "changed": False, "warnings": [str(exc)], "removed": [], "freed": 0, "kept": None}
        return {**result, "changed": bool(pruned.removed), **pruned._asdict()}


def _bytes(text: str) -> int:
    try:
        return int(human_to_bytes(text))
    except ValueError as exc:
        raise AnsibleActionFail(
            f"{text!r} is no size: write a number of bytes, or a text like 10GB (upgrade_cache_size in the "
            "collection's playbooks)"
        ) from exc
