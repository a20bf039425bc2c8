# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What probes saw before a service was touched, for those that compare: baseline/<component>.json."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import typing as t

from . import _files, _json_file, _observe, _schema, _systemd
from ._errors import HostError
from ._probes import COMPARING, key_of
from ._state import is_unsettled

if t.TYPE_CHECKING:
    from ._command import Run
    from ._store import Layout, Session
    from ._verdicts import Target

    Baseline = dict[str, t.Any]


def capture(run: Run, target: Target) -> dict[str, t.Any]:
    """One look at a service by those of its probes and proofs that compare with before: what each saw, by its key.

    A service that doesn't answer is no error: there is nothing to compare with then. Nothing is sent to the service
    that it would keep.
    """
    unit = _systemd.show(run, [target["unit"]])[0]
    scene = _observe.Scene(run, target, unit)
    probes = [*(target.get("probes") or []), *(target.get("proofs") or [])]
    asked = {key_of(probe): probe for probe in probes if probe.get("kind") in COMPARING}
    return {key: _observe.observe(scene, probe) for key, probe in asked.items()}


def write(layout: Layout, component: str, data: Baseline) -> None:
    """Keep a baseline, durably, and for root only.

    :param data: C(upgrade_id), C(taken_at), C(version), and C(seen), as C(capture) gives it.
    """
    directory = layout.baseline().rstrip("/")
    _files.ensure_private_directory(directory)
    text = json.dumps(_finite(data), indent=1, sort_keys=True) + "\n"
    _files.write_durably(layout.baseline(component), text.encode())


def _finite(value: t.Any) -> t.Any:
    """The same without numbers that JSON doesn't know, such as that of a metric that is NaN: nothing is compared with
    them."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(layout: Layout, component: str, *, upgrade_id: str | None = None) -> Baseline | None:
    """A component's baseline; None if there is none that can be used.

    :param upgrade_id: the upgrade whose baseline it must be. Without it, any will do.
    """
    with contextlib.suppress(ValueError, OSError, HostError):
        path, most = layout.baseline(component), _json_file.MOST_BYTES_OF_HISTORY
        data = _json_file.load(path, _schema.BASELINE, most=most)
        return data if upgrade_id in (None, data["upgrade_id"]) else None
    return None


def sweep(session: Session) -> None:
    """Forget the baselines of components whose attempts are settled: the next upgrade begins with another "before"."""
    for path in glob.glob(os.path.join(glob.escape(session.layout.baseline()), "*.json")):
        name = os.path.basename(path)[: -len(".json")]
        if session.writable and not is_unsettled(session.document.component(name)):
            clear(session.layout, name)


def clear(layout: Layout, component: str) -> None:
    """Forget a component's baseline, if there is one."""
    _files.remove_if_there(layout.baseline(component))
