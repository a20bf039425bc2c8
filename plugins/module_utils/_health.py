# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Looking at services until they have proven that they are healthy, or can't."""

from __future__ import annotations

import time
import typing as t

from . import _http, _process, _systemd
from ._probes import Look, Watch, judge, paths

if t.TYPE_CHECKING:
    from ._command import Run
    from ._probes import Target

_INTERVAL = 0.5


class Health(t.NamedTuple):
    """What became of one service. ``ready_after`` is None if it never was."""

    component: str
    healthy: bool
    ready_after: float | None
    reason: str
    verdicts: list[dict[str, t.Any]]
    journal: list[str]


def wait(
    run: Run,
    targets: list[Target],
    *,
    timeout: float,
    window: float,
    since: float | None = None,
    clock: t.Callable[[], float] = time.monotonic,
    sleep: t.Callable[[float], None] = time.sleep,
) -> list[Health]:
    """Look at all services, together, until each has been healthy for the whole window or the time is over.

    :param timeout: seconds within which a service must become healthy; the window comes on top.
    :param window: seconds for which it must stay healthy, as one process. 0: one good look is enough.
    :param since: seconds since the epoch; the journal of an unhealthy service is shown from there.
    """
    start = clock()
    watches = [Watch(window=window) for _target in targets]
    open_ones, proven = list(range(len(targets))), set()
    while open_ones:
        for number, look in zip(open_ones, _look(run, [targets[number] for number in open_ones])):
            if watches[number].add(look, judge(look, targets[number]), elapsed=clock() - start):
                proven.add(number)
        over = clock() - start - timeout
        open_ones = [
            number for number in open_ones if number not in proven and _may_wait(watches[number], over, window)
        ]
        if open_ones:
            sleep(_INTERVAL)
    return [
        _health(run, target, watch, healthy=number in proven, timeout=timeout, since=since)
        for number, (target, watch) in enumerate(zip(targets, watches))
    ]


def _may_wait(watch: Watch, over: float, window: float) -> bool:
    """Whether another look may help: until the time is over, or the window of a service that is healthy by then.

    :param over: seconds that are over the time.
    """
    return not watch.hopeless and over <= (0 if watch.failures() else window)


def _look(run: Run, targets: list[Target]) -> list[Look]:
    looks = []
    for target, unit in zip(targets, _systemd.show(run, [target["unit"] for target in targets])):
        answers = {}
        if unit.main_pid:
            answers = {path: tuple(_http.get(target["url"] + path)) for path in paths(target)}
        looks.append(
            Look(
                active=unit.active,
                sub=unit.sub,
                result=unit.result,
                main_pid=unit.main_pid,
                n_restarts=unit.n_restarts,
                runs_binary=bool(unit.main_pid) and _process.runs_file(unit.main_pid, target["binary"]),
                answers=t.cast("dict[str, tuple[int | None, str, str]]", answers)
                or dict.fromkeys(paths(target), (None, "", "no process")),
            )
        )
    return looks


def _health(run: Run, target: Target, watch: Watch, *, healthy: bool, timeout: float, since: float | None) -> Health:
    reason = ""
    if not healthy:
        # The probes stand in causal order: what follows the first that failed is only its consequence.
        first = next(iter(watch.failures()), "its process kept changing")
        reason = watch.hopeless or f"not steady within {timeout:g} s: {first}"
    return Health(
        component=target["component"],
        healthy=healthy,
        ready_after=round(watch.ready_after, 2) if watch.ready_after is not None else None,
        reason=reason,
        verdicts=[verdict._asdict() for verdict in watch.verdicts],
        journal=[] if healthy else _systemd.journal_tail(run, target["unit"], since=since),
    )
