# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. The half of a module that runs on the controller: it passes on what a schema knows of a host's answer."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ..module_utils._errors import HostError, UpgradeError, shown
from . import _results
from ._schema import MalformedError

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]

_TAIL = 500


class HostAction(ActionBase):  # type: ignore[misc]  # Ansible's base classes of plugins have no types
    """Runs one module on a host, and reads its answer by C(_results.py)."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = True

    module: t.ClassVar[str]
    """The module's name."""

    _answer: Data | None = None

    def run(self, tmp: str | None = None, task_vars: Data | None = None) -> Data:
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        self._host = task_vars.get("inventory_hostname", "the host")
        foreign = _results.foreign_facts_text({self._host: task_vars.get("ansible_facts") or {}})
        if foreign:
            return {**result, "failed": True, "msg": foreign, "key": _results.FOREIGN_FACTS}
        try:
            return {**result, **self.act(dict(self._task.args), task_vars)}
        except UpgradeError as exc:
            return {**result, "failed": True, "msg": str(exc), "key": exc.key}
        except AnsibleActionFail:
            raise
        except AnsibleConnectionFailure as exc:  # its message has what the host printed
            raise AnsibleConnectionFailure(shown(exc, most=2000, lines=True)) from None
        except AnsibleError as exc:
            raise AnsibleError(shown(exc, most=2000, lines=True)) from None

    def act(self, arguments: Data, task_vars: Data) -> Data:
        """What the task does. An action that does more than to run its module has its own.

        :param arguments: the task's.
        :raises UpgradeError: it becomes a failed result.
        """
        return self.ask(arguments, task_vars)

    def ask(self, arguments: Data, task_vars: Data) -> Data:
        """Run the module on the host.

        :raises HostError: if the host answers something else than the module returns.
        """
        self._answer = None
        name = f"observability.stack.{self.module}"
        done = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        key = self._discovered_interpreter_key
        found = {"ansible_facts": {key: self._discovered_interpreter}} if key else {}
        if self._answer is None:  # an ansible-core that reads answers in another way
            own = {"_ansible_parsed", *(name for name, value in found.items() if done.get(name) == value)}
            try:
                self._answer = _results.take(self.module, {key: done[key] for key in done if key not in own})
            except MalformedError as exc:
                raise self.malformed(exc) from None
        return {**self._answer, **found}

    def malformed(self, exc: MalformedError) -> HostError:
        """The error of a host whose answer is not what the module returns."""
        return HostError(
            f"{self._host}: the answer of {self.module} is not what that module returns: {exc}. Nothing of it was "
            "used. See whether ansible_python_interpreter is that of the distribution, and who has root on this host",
            key=_results.MALFORMED,
        )

    def _parse_returned_data(self, res: Data, *profile: t.Any) -> t.Any:
        """Read what the host printed, in place of ansible-core, which shows parts of it, makes objects of whatever
        types it names, and passes keys on that change the inventory and the variables of hosts. It gets an empty answer
        in its place."""
        try:
            self._answer = _results.read(self.module, res.get("stdout", ""))
        except MalformedError as exc:
            error, said = self.malformed(exc), res.get("stderr", "").strip()[-_TAIL:]
            told = f"{error}. Exit status {res.get('rc')}, standard error: {shown(said) or 'empty'}"
            self._answer = {"failed": True, "msg": told, "key": error.key}
        empty = {"rc": 0, "stdout": "{}", "stdout_lines": ["{}"], "stderr": "", "stderr_lines": []}
        return super()._parse_returned_data(empty, *profile)
