# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans the steps of all hosts on the controller. No host is contacted; the sources of releases may be."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Mapping

from ansible.plugins.action import ActionBase

from ..module_utils._errors import InputError, UpgradeError, shown
from ..plugin_utils import (
    _market,
    _outcome,
    _plan_file,
    _planner,
    _publish,
    _release_settings,
    _releases,
    _report_plan,
    _rollback,
    _settings,
)

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]

_CONTENT = "the plan in upgrade_plan"


class ActionModule(ActionBase):
    """Makes a plan, or reads one that was saved; and shows one that has nothing to do."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: Data | None = None) -> Data:
        result = super().run(tmp, task_vars)
        _ignored, arguments = self.validate_argument_spec(
            {
                "surveys": {"type": "dict", "required": True},
                "kind": {"type": "str", "choices": ["upgrade", "rollback"], "default": "upgrade"},
                "carry_out": {"type": "bool", "default": False},
                "left_out": {"type": "dict", "default": {}},
            }
        )
        try:
            settings = _settings.read(_settings.given(task_vars or {}, self._templar.template))
            plan = _made(settings, arguments)
            return {**result, "changed": False, "plan": plan, **self._shown(plan, settings, arguments)}
        except UpgradeError as exc:
            return {**result, "failed": True, "msg": str(exc), "key": exc.key}
        except (AttributeError, LookupError, TypeError, ValueError) as exc:
            what = f"the answers of the hosts cannot be planned with ({type(exc).__name__}: {shown(exc, most=500)})"
            return {**result, "failed": True, "msg": what, "key": "input.surveys"}

    def _shown(self, plan: Data, settings: Data, arguments: Data) -> Data:
        """The report of a plan that has no steps and no problems: there is nothing to prepare or to carry out."""
        approved = settings["approved"] if arguments["carry_out"] else ""
        if plan["hosts"] or _planner.problems(plan, settings["on_failure"], approved):
            return {"shown": False}
        directory = "" if self._task.check_mode else settings["report_dir"]
        told = _publish.publish(
            _report_plan.plan(plan),
            outcome=_outcome.plan(plan),
            left_out=arguments["left_out"],
            data=plan,
            dest=f"{directory}/plan-{plan['digest'][:12]}.json" if directory else None,
        )
        return {"shown": True, **told}


def _made(settings: Data, arguments: Data) -> Data:
    surveys = arguments["surveys"]
    wishes = {host: survey["wish"] for host, survey in surveys.items()}
    if arguments["kind"] == "rollback":
        to, kinds = settings["rollback_to"], settings["rollback_kinds"]
        return _rollback.plan_rollback(surveys, wishes, to=to, kinds=kinds)
    if settings["plan"]:
        return _saved(settings, arguments, wishes)
    index = settings["release_index"] or settings["bundle"]
    mirror = "" if index else settings["release_mirror"]
    answers = _releases.of_this_run(
        _market.sources(surveys, wishes, mirror=mirror, every=False),
        index=index or None,
        tokens=settings["release_tokens"],
        apis=settings["release_apis"],
        cache_dir=settings["cache_dir"] or _release_settings.default_cache_dir(),
    )
    plan = _planner.plan_upgrade(
        surveys,
        wishes,
        answers=answers,
        mirror=mirror,
        hold=arguments["carry_out"] and not settings["download_only"],
        waves=settings["waves"],
    )
    return {**plan, "backup_dir": f"{settings['state_dir']}/backups"}


def _saved(settings: Data, arguments: Data, wishes: Data) -> Data:
    """The plan of C(upgrade_plan): a file, or what is in one."""
    approved = settings["approved"] if arguments["carry_out"] else ""
    given = settings["plan"]
    content = json.dumps(given, default=str) if isinstance(given, Mapping) else given
    if not content.startswith("{"):
        name = given
        content = _plan_file.read(
            given, signers=settings["plan_signers"], approved=approved, foreign=not arguments["carry_out"]
        )
    elif settings["plan_signers"]:
        raise InputError(
            "upgrade_plan_signers asks for a signature, but upgrade_plan is a plan and not its file: set upgrade_plan "
            "to the file that is signed",
            key="input.upgrade_plan",
        )
    else:
        name = _CONTENT
    hold = not settings["download_only"]
    return _planner.reopen(content, arguments["surveys"], wishes, name=name, hold=hold, approved=approved)
