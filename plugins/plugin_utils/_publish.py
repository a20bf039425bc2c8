# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. A report: for people on the terminal, for programs in the task's result and set_stats, and in a file."""

from __future__ import annotations

import json
import os
import typing as t

from ansible import constants
from ansible.utils.display import Display

from ..module_utils import _files
from ..module_utils._errors import InputError, shown

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]

_REASON = 500
"""Characters of the reason why a host is left out."""
STATISTIC = "upgrade_outcome"
"""The name under which set_stats has the outcome."""


def publish(
    text: str,
    *,
    outcome: Mapping[str, t.Any] | None = None,
    left_out: Mapping[str, t.Any] | None = None,
    data: t.Any = None,
    dest: str | None = None,
) -> Data:
    """Show a report, and keep its data.

    :param outcome: what it says, for programs.
    :param left_out: hosts that failed before, each with the reason.
    :param data: what is written to C(dest), if that is given.
    :returns: C(text), C(outcome), C(report_file) and C(ansible_stats) of the task's result.
    :raises InputError: if the file can't be written.
    """
    text = shown(text, lines=True)
    if left_out:
        told = [f"  {shown(host)}: {shown(why, most=_REASON)}" for host, why in left_out.items()]
        text = "\n".join([text, "", "Left out, because they failed:", *told])
    if text:
        say(f"\n{text}\n")
    result: Data = {"text": text}
    if dest:
        result["report_file"] = _kept(data, os.path.abspath(os.path.expanduser(dest)))
    if outcome is not None:
        failed = sorted({*outcome.get("failed_hosts", []), *(left_out or {})})
        told_file = {"report_file": result["report_file"]} if dest else {}
        result["outcome"] = {**outcome, "failed_hosts": failed, **told_file}
        result["ansible_stats"] = {"data": {STATISTIC: result["outcome"]}, "per_host": False, "aggregate": False}
    return result


def say(text: str) -> None:
    """Print lines beside those of the stdout callback, where it leaves room for them."""
    if takes_text(_stdout_callback()):
        Display().display(text)


def takes_text(callback: str) -> bool:
    """Whether a stdout callback leaves room for lines of others: one that prints JSON, or nothing, does not."""
    name = callback.rpartition(".")[2]
    return "json" not in name and name != "null"


def _stdout_callback() -> str:
    return str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK"))


def _kept(data: t.Any, dest: str) -> str:
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    try:
        os.makedirs(os.path.dirname(dest), exist_ok=True)
        _files.write_durably(dest, text.encode(), mode=0o640)
    except OSError as exc:
        raise InputError(
            f"{dest} can't be written on the controller ({exc.strerror}: {exc.filename}): "
            "choose another place, with upgrade_report_dir in the collection's playbooks",
            key="input.report_dir",
        ) from exc
    return dest
