# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. The file of a plan: who wrote it, as far as that can be known.

A plan's digest is no key: who changes the file makes a new one. So the file is signed; or its digest was approved by
the operator; or it is a file that nobody else could change.
"""

from __future__ import annotations

import os
import typing as t

from ..module_utils._errors import InputError
from . import _manifest, _owned, _regular

_LIMIT = 64 << 20
_FIELDS = ("allowed_signers", "threshold")


class Signers(t.NamedTuple):
    """Who must have signed a plan: a file of allowed signers, and how many of them."""

    file: str
    threshold: int


def read(path: str, *, signers: t.Any = None, approved: str = "", foreign: bool = False) -> str:
    """The text of a plan's file.

    :param signers: the variable C(upgrade_plan_signers): a dictionary, or nothing.
    :param approved: the digest that the operator approved. Whoever takes the plan up compares it.
    :param foreign: whether others may have written the file: the plan is only shown then.
    :raises InputError: if it can't be read; or if others could have changed it, and neither its signature nor its
        digest is wanted. C(plan.unreadable), C(plan.foreign).
    :raises ReleaseError: if it isn't signed as it must be, with the keys of C(_manifest.verify).
    """
    path = os.path.abspath(os.path.expanduser(path))
    wanted = _signers(signers)
    if not (wanted or approved or foreign):
        why = _owned.changeable(path)
        if why is not None:
            raise InputError(
                f"upgrade_plan: {path} is not used: {why}, so that somebody else could have changed it. Look at it "
                "with the playbook plan and approve it by its digest (upgrade_approved), have it signed "
                "(upgrade_plan_signers), or make a plan of your own",
                key="plan.foreign",
            )
    content = _content(path)
    if wanted:
        _manifest.verify(path, content, kind=_manifest.PLAN, allowed_signers=wanted.file, threshold=wanted.threshold)
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise InputError(f"upgrade_plan: {path} is no text: {exc.reason}", key="plan.unreadable") from None


def _content(path: str) -> bytes:
    try:
        with _regular.opened(path) as source:
            content = source.read(_LIMIT + 1)
    except OSError as exc:
        raise InputError(f"upgrade_plan: {path}: {exc.strerror or exc}", key="plan.unreadable") from None
    if len(content) > _LIMIT:
        raise InputError(f"upgrade_plan: {path} is larger than any plan", key="plan.unreadable")
    return content


def _signers(value: t.Any) -> Signers | None:
    """Who must have signed a plan, as the operator says it; none if nobody has to.

    :raises InputError: naming what is wrong with the variable.
    """
    if value is None or value in ("", {}):
        return None
    file = value.get("allowed_signers") if isinstance(value, dict) else None
    unknown = [key for key in value if key not in _FIELDS] if isinstance(value, dict) else []
    threshold = value.get("threshold", 1) if isinstance(value, dict) else 1
    if unknown or not isinstance(file, str) or not file:
        raise InputError(
            f"upgrade_plan_signers is {value!r}: write {{allowed_signers: <file on the controller>, threshold: 1}}",
            key="input.plan_signers",
        )
    if isinstance(threshold, str) and threshold.isdigit():
        threshold = int(threshold)
    return Signers(os.path.abspath(os.path.expanduser(file)), threshold)
