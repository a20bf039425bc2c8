# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. One look at a service, as each kind of probe takes it. What it sees is JSON; C(_verdicts.py) judges."""

from __future__ import annotations

import typing as t

from . import _observe_database, _observe_host, _observe_web
from ._errors import InputError
from ._probes import complete
from ._scene import Scene

if t.TYPE_CHECKING:
    from ._scene import Observer
    from ._verdicts import Observation, Probe

__all__ = ["OBSERVERS", "Scene", "observe"]

OBSERVERS: dict[str, Observer] = {
    **_observe_host.OBSERVERS,
    **_observe_web.OBSERVERS,
    **_observe_database.OBSERVERS,
}


def observe(scene: Scene, probe: Probe) -> Observation:
    """What a probe sees. One that can't be meant sees only why: C(refused)."""
    try:
        full = complete(probe)
    except InputError as exc:
        return {"refused": str(exc)}
    return OBSERVERS[full["kind"]](scene, full)
