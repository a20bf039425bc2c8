# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Looking at services until they have proven that they are healthy, or can't."""

from __future__ import annotations

import time
import typing as t

from . import _deadline, _files, _http, _sockets, _systemd
from ._observe import Scene, observe
from ._probes import ELSEWHERE, Look, Watch, judge, key_of
from ._verdicts import Verdict

if t.TYPE_CHECKING:
    from ._command import Run
    from ._systemd import Unit
    from ._verdicts import Observation, Target

    Before = t.Optional[dict[str, Observation]]

_INTERVAL = 0.5
_FIRST_LOOK = 5.0
"""Seconds from the beginning in which services are looked at, even if they have less time to become healthy."""

_AT_LEAST = 1.0
_GB = 1e9
_MEASURING = 20.0
_MOST_GROWTH = 3600.0
_SHOWN_PLACES = 5


class Health(t.NamedTuple):
    """What became of one service. ``ready_after`` is None if it never was; ``main_pid`` is the process that was healthy
    for the window, 0 if there is none."""

    component: str
    healthy: bool
    ready_after: float | None
    reason: str
    verdicts: list[dict[str, t.Any]]
    journal: list[str]
    main_pid: int


class _Service:
    """One service that is watched: what is asked of it, what was seen before, and what was seen so far."""

    def __init__(self, target: Target, before: Before, *, timeout: float, window: float) -> None:
        self.target = target
        self.proofs = target.get("proofs") or []
        self.watch = Watch(timeout=timeout, window=window, proofs=len(self.proofs))
        self._before = before or {}
        self._memory: dict[str, t.Any] = {}
        self.unit: Unit | None = None

    def look(self, run: Run, unit: Unit, *, elapsed: float, since: float, sleep: t.Callable[[float], None]) -> bool:
        """Look once. Whether the service has proven all by now."""
        self.unit = unit
        within = max(self.watch.ends, _FIRST_LOOK) - elapsed
        scene = Scene(
            run, self.target, unit, since=since, memory=self._memory, sleep=sleep, within=max(within, _AT_LEAST)
        )
        probes = self.target.get("probes") or []
        verdicts = [self._verdict(scene, probe) for probe in probes]
        verdicts = verdicts or [Verdict("probes", False, "there are none", "one at least")]
        look = Look(unit.active, unit.main_pid, unit.n_restarts)
        if not self.watch.add(look, verdicts, elapsed=elapsed):
            return False
        for number in self.watch.unproven():
            self.watch.proofs[number] = self._verdict(scene, self.proofs[number])
        return not self.watch.unproven()

    def _verdict(self, scene: Scene, probe: dict[str, t.Any]) -> Verdict:
        return judge(probe, self.target, observe(scene, probe), self._before.get(key_of(probe)))


def wait(
    run: Run,
    targets: list[Target],
    *,
    timeout: float,
    window: float,
    since: float | None = None,
    before: t.Sequence[Before] = (),
    growth: t.Sequence[float] | None = None,
    clock: t.Callable[[], float] = time.monotonic,
    sleep: t.Callable[[float], None] = time.sleep,
) -> list[Health]:
    """Look at all services, together, until each has been healthy for the whole window, and has then proven each of its
    proofs once; or until the time is over.

    :param timeout: seconds within which a service must become healthy; the window comes on top, and after it as many
        seconds again for the proofs.
    :param window: seconds for which it must stay healthy, as one process. 0: one good look is enough.
    :param since: seconds since the epoch; the journal is looked at, and that of an unhealthy service shown, from there.
    :param before: what the probes of each target saw before, by their keys; see C(_baseline.py).
    :param growth: seconds to add to the time of each target, if C(grown_by) was asked already.
    """
    start, logged_since = clock(), time.time() if since is None else since
    more = [grown_by(target) for target in targets] if growth is None else growth
    earlier = [*before, *([None] * (len(targets) - len(before)))]
    services = [
        _Service(target, its, timeout=timeout + plus, window=window)
        for target, its, plus in zip(targets, earlier, more)
    ]
    open_ones, proven = list(range(len(services))), set()
    while open_ones:
        units = _systemd.show(run, [services[number].target["unit"] for number in open_ones])
        for number, unit in zip(open_ones, units):
            if services[number].look(run, unit, elapsed=clock() - start, since=logged_since, sleep=sleep):
                proven.add(number)
        elapsed = clock() - start
        open_ones = [
            number for number in open_ones if number not in proven and services[number].watch.may_wait(elapsed)
        ]
        if open_ones:
            sleep(_INTERVAL)
    return [_health(run, each, healthy=number in proven, since=since) for number, each in enumerate(services)]


def _elsewhere(service: _Service) -> str:
    """Where a service listens, if that isn't where it was asked; otherwise empty."""
    unit, url = service.unit, service.target.get("url") or ""
    if unit is None or not unit.is_running or not url:
        return ""
    places = [each for each in _sockets.of_unit(unit.name, unit.main_pid) or [] if each.port or each.unix]
    if not places or any(_http.leads_to(url, port=each.port, unix=each.unix) for each in places):
        return ""
    told = ", ".join(each.unix or f"{each.address} port {each.port}" for each in places[:_SHOWN_PLACES])
    return f"; but {unit.name} is active and {ELSEWHERE} {told}"


def grown_by(target: Target) -> float:
    """Seconds by which a service gets more time: it reads what is below a path before it is ready. An hour at most: the
    service's user decides what is there."""
    grows = target.get("deadline_grows")
    if not grows:
        return 0.0
    try:
        size = _deadline.within(_MEASURING, lambda: _files.bytes_below(grows["path"]))
    except TimeoutError:
        return _MOST_GROWTH
    return min(float(round(size / _GB * grows["seconds_per_gb"])), _MOST_GROWTH)


def longest(targets: list[Target], growth: t.Sequence[float], *, timeout: float, window: float) -> float:
    """Seconds that C(wait) may take."""
    times = [(timeout + more) * (2 if target.get("proofs") else 1) for target, more in zip(targets, growth)]
    return max(times, default=timeout) + window


def _health(run: Run, service: _Service, *, healthy: bool, since: float | None) -> Health:
    watch, journal = service.watch, []
    if service.unit and not healthy:
        secrets = _systemd.secrets_of(service.unit)
        journal = _systemd.journal_tail(run, service.unit.identity, since=since, secrets=secrets)
    return Health(
        component=service.target["component"],
        healthy=healthy,
        ready_after=round(watch.ready_after, 2) if watch.ready_after is not None else None,
        reason="" if healthy else watch.why() + _elsewhere(service),
        verdicts=[verdict._asdict() for verdict in watch.told()],
        journal=journal,
        main_pid=watch.main_pid if healthy else 0,
    )
