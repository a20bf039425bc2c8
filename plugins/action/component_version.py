# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half of component_version: what the catalog says about reading components."""

from __future__ import annotations

import contextlib
import importlib
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils._errors import InputError, UpgradeError
from ..module_utils._state import name_of
from ..plugin_utils import _catalog, _results, _scope, _settings, _wish
from ..plugin_utils._host_action import HostAction
from ..plugin_utils._schema import MalformedError

_READ_BY_THE_HOST = (
    "units",
    "files",
    "version_args",
    "lookalikes",
    "flags",
    "former_flags",
    "flag_variables",
    "config_values",
    "default_config",
    "default_data",
    "port",
    "metrics_path",
    "build_info",
    "auth",
    "removed_settings",
    "removed_values",
    "state_paths",
)

# Ansible imports an action plugin before it forks a process for each host and task, but filters only in there, again
# and again. So this, the first action of all runs, imports and reads for all of them what they take.
importlib.import_module("..filter.upgrade", __package__)
with contextlib.suppress(NameError):  # in ansible-test's sanity tests, see _versions
    _catalog.load()


class ActionModule(HostAction):
    """Sends a host the part of the catalog that reading takes, and nothing of the rest."""

    module = "component_version"

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        unfit = _scope.unfit(self._task)
        if unfit:
            raise InputError(unfit, key="input.strategy")
        wish = {}
        if boolean(arguments.pop("settings", False)):
            settings = _settings.read(_settings.given(task_vars, self._templar.template))
            arguments.update({name: settings[name] for name in ("overrides", "components", "state_dir")})
            wish = {"wish": {name: settings[name] for name in _wish.FIELDS}}
            _wish.Wishes().read(self._host, wish["wish"])
        overrides = arguments.pop("overrides", None)
        try:
            catalog = _catalog.load(overrides=overrides, components=arguments.pop("components", None))
            _check_instances(overrides or {})
            catalog = _catalog.only(catalog, arguments.pop("only", None) or catalog)
        except UpgradeError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        arguments["specs"] = {
            name: {
                **{field: entry[field] for field in _READ_BY_THE_HOST},
                **({"only_units": True} if "units" in (overrides or {}).get(name, ()) else {}),
            }
            for name, entry in catalog.items()
        }
        survey = self.ask(arguments, task_vars)
        if not survey.get("failed"):
            try:
                _results.check_survey(survey, catalog)
            except MalformedError as exc:
                raise self.malformed(exc) from None
        return {**survey, **wish}


def _check_instances(overrides: t.Mapping[str, t.Any]) -> None:
    """Refuse for one instance what hosts are read by before it is known which instances they have.

    :raises InputError: naming the first field.
    """
    for key, changes in overrides.items():
        wrong = [field for field in _READ_BY_THE_HOST if key != name_of(key) and field in changes]
        if wrong:
            raise InputError(
                f"upgrade_overrides: {key}.{wrong[0]} can't be set for one instance, for hosts are read by it; set it "
                f"for {name_of(key)}, where it counts for all instances",
                key="input.catalog",
            )
