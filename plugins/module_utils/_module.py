# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Glue. What every module of the collection shares: its common arguments, and one place where errors become results."""

from __future__ import annotations

import os
import typing as t

from . import _files
from ._errors import HostError, UpgradeError

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

DEFAULT_STATE_DIR = "/var/lib/observability-upgrades"


def arguments(**own: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """A module's arguments: its own, and those of the fragment C(common)."""
    return {
        **own,
        "state_dir": {"type": "path", "default": DEFAULT_STATE_DIR},
        "run": {
            "type": "dict",
            "options": {
                "upgrade_id": {"type": "str", "required": True},
                "user": {"type": "str"},
                "controller": {"type": "str"},
                "job": {"type": "str"},
                "origin": {"type": "str"},
                "pid": {"type": "int"},
                "started": {"type": "float"},
                "dead": {"type": "list", "elements": "str", "default": []},
            },
        },
    }


def run_module(module: AnsibleModule, body: t.Callable[[AnsibleModule], dict[str, t.Any]]) -> None:
    """Do a module's work. An UpgradeError, and an error of the operating system, end as a failed result with a key."""
    try:
        if os.geteuid() != 0:
            raise HostError("this needs root on the host: set become: true", key="host.not_root")
        result = body(module)
    except UpgradeError as exc:
        module.fail_json(msg=str(exc), key=exc.key, **exc.details)
    except OSError as exc:
        module.fail_json(msg=_files.explain(exc), key="host.os_error")
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)


def differences(before: dict[str, t.Any], after: dict[str, t.Any]) -> dict[str, t.Any]:
    """What a module reports: whether anything changed, and for C(--diff) what."""
    return {"changed": before != after, "diff": {"before": before, "after": after}}
