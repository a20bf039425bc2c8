# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Silences the alerts of a host in an Alertmanager while its services are restarted. Nothing goes to a host."""

from __future__ import annotations

import functools
import os
import typing as t

from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase

from ..module_utils._errors import InputError, UpgradeError
from ..plugin_utils import _silences

_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "url": {"type": "list", "elements": "str", "required": True},
    "upgrade_id": {"type": "str", "required": True},
    "host": {"type": "str"},
    "component": {"type": "str", "default": ""},
    "instances": {"type": "list", "elements": "str"},
    "matchers": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "value": {"type": "str", "required": True},
            "isRegex": {"type": "bool", "default": False},
        },
    },
    "duration": {"type": "int", "default": 900},
    "required": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 10},
    "url_username": {"type": "str"},
    "url_password": {"type": "str", "no_log": True},
    "token": {"type": "str", "no_log": True},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path"},
}


class ActionModule(ActionBase):
    """Makes a silence, makes it longer, or ends all that an upgrade of a host has made."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        _ignored, arguments = self.validate_argument_spec(
            _ARGUMENTS,
            mutually_exclusive=[("token", "url_username"), ("matchers", "instances")],
            required_together=[("url_username", "url_password")],
        )
        result.update(changed=False, url=None, silences=[])
        try:
            done = self._do(arguments, (task_vars or {}).get("inventory_hostname", ""))
        except _silences.SilenceError as exc:
            if arguments["required"]:
                return {**result, "failed": True, "msg": str(exc), "key": exc.key}
            return {**result, "warnings": [f"alerts of this upgrade are not silenced or unsilenced: {exc}"]}
        except UpgradeError as exc:
            return {**result, "failed": True, "msg": str(exc), "key": exc.key}
        return {**result, **done._asdict()}

    def _do(self, arguments: dict[str, t.Any], inventory_hostname: str) -> _silences.Outcome:
        host = arguments["host"] or inventory_hostname
        if not host or not arguments["upgrade_id"]:
            raise InputError("host or upgrade_id is empty: without both, a silence couldn't be found again")
        if not arguments["url"] or arguments["duration"] < 1 or arguments["timeout"] < 1:
            raise InputError("url is empty, or duration or timeout is less than 1 second")
        peers, owner = _peers(arguments), _silences.Owner(arguments["upgrade_id"], host)
        check = bool(self._task.check_mode)
        if arguments["state"] == "absent":
            return _silences.unsilence(peers, owner, check=check)
        if arguments["matchers"] is not None:
            wanted = _silences.matchers(arguments["matchers"])
        else:
            wanted = _silences.of_instances([host] if arguments["instances"] is None else arguments["instances"])
        return _silences.silence(
            peers, owner, wanted, component=arguments["component"], duration=arguments["duration"], check=check
        )


def _peers(arguments: dict[str, t.Any]) -> list[_silences.Alertmanager]:
    for name in ("ca_path", "client_cert", "client_key"):
        if arguments[name] and not os.path.isfile(arguments[name]):
            raise InputError(f"{name}: {arguments[name]} is missing or is no regular file: name a file in PEM format")
    opened = functools.partial(
        open_url,
        validate_certs=arguments["validate_certs"],
        ca_path=arguments["ca_path"],
        client_cert=arguments["client_cert"],
        client_key=arguments["client_key"],
    )
    return [
        _silences.Alertmanager(
            url, authorization=_authorization(arguments), open_url=opened, timeout=arguments["timeout"]
        )
        for url in arguments["url"]
    ]


def _authorization(arguments: dict[str, t.Any]) -> str:
    if arguments["token"] is not None:
        return _silences.bearer(arguments["token"])
    if arguments["url_username"] is None:
        return ""
    return _silences.basic(arguments["url_username"], arguments["url_password"])
