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
from ._errors import HostError, InputError, UpgradeError
from ._state import check_backup_id, check_key, check_name, check_run

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

DEFAULT_STATE_DIR = "/var/lib/observability-upgrades"

_NAMES = {
    "version": "version",
    "from_version": "version",
    "name": "checkpoint or restore point",
    "phase": "phase",
    "upgrade_id": "run",
}
"""Options that are identifiers, whatever module they are of, and what they name."""

_OTHERWISE = frozenset({"error", "description", "run"})
"""Options that are looked at in another way: what went wrong is recorded, whatever bytes it brought along, and of a run
each field has its rule. Runs that are known to be dead are compared only: other hosts tell of them."""


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
                "start_ticks": {"type": "int"},
                "boot": {"type": "str"},
                "dead": {"type": "list", "elements": "str", "default": []},
            },
        },
    }


def run_module(module: AnsibleModule, body: t.Callable[[AnsibleModule], dict[str, t.Any]]) -> None:
    """Do a module's work. An UpgradeError, and an error of the operating system, end as a failed result with a key."""
    try:
        if os.geteuid() != 0:
            raise HostError("this needs root on the host: set become: true", key="host.not_root")
        _check(module.params)
        result = body(module)
    except UpgradeError as exc:
        module.fail_json(msg=str(exc), key=exc.key, **exc.details)
    except OSError as exc:
        module.fail_json(msg=_files.explain(exc), key="host.os_error")
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)


def _check(params: dict[str, t.Any]) -> None:
    """Refuse identifiers and names that can't be ones, and texts that can't be written down, before anything is done.

    :raises InputError: naming the option.
    """
    for option, what in _NAMES.items():
        if params.get(option) is not None:
            check_name(what, params[option])
    if params.get("component") is not None:
        check_key(params["component"])
    if params.get("backup_id") is not None:
        check_backup_id(params["backup_id"])
    if params.get("run"):
        check_run(params["run"])
    for option, value in params.items():
        if option not in _OTHERWISE and not _is_writable(value):
            raise InputError(
                f"{option} has a NUL byte, or half of a surrogate pair, in it: no name and no text may have that",
                key="input.text",
            )


def _is_writable(value: t.Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(_is_writable(each) for pair in value.items() for each in pair)
    return all(map(_is_writable, value)) if isinstance(value, list) else True


def differences(before: dict[str, t.Any], after: dict[str, t.Any]) -> dict[str, t.Any]:
    """What a module reports: whether anything changed, and for C(--diff) what."""
    return {"changed": before != after, "diff": {"before": before, "after": after}}


def of_version(version: str | None, sha256: str | None) -> str:
    """A file as C(--diff) shows it.

    :param sha256: None if there is no file.
    """
    return f"{version or 'unknown'} (sha256 {sha256[:12]})" if sha256 else "absent"
