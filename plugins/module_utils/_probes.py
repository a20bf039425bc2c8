# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What makes a service healthy: one predicate for each kind of probe, on one look at the service."""

from __future__ import annotations

import typing as t

from ._metrics import version_in
from ._version import same_version

CRASH_LOOP_RESTARTS = 3
"""A crash loop shows within this many restarts by systemd; one alone may be an impatient start."""


class Look(t.NamedTuple):
    """One look at a service, and what of it was asked for. C(status) is None where nothing answered."""

    active: str
    sub: str
    result: str
    main_pid: int
    n_restarts: int
    runs_binary: bool
    answers: dict[str, tuple[int | None, str, str]]
    """By path: status, body, and the error if nothing answered."""


class Verdict(t.NamedTuple):
    """Whether one probe is satisfied, and by what."""

    probe: str
    ok: bool
    seen: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.probe}: {self.seen}; wanted: {self.wanted}"


if t.TYPE_CHECKING:
    Probe = dict[str, t.Any]
    Target = dict[str, t.Any]


def _systemd(look: Look, target: Target, probe: Probe) -> Verdict:
    seen = f"{target['unit']} is {look.active}/{look.sub}"
    if look.result not in ("", "success"):
        seen += f" ({look.result})"
    if look.n_restarts:
        seen += f", restarted {look.n_restarts} times by systemd"
    return Verdict("systemd", look.active == "active" and look.main_pid > 0, seen, "active, with a main process")


def _process(look: Look, target: Target, probe: Probe) -> Verdict:
    seen = f"process {look.main_pid} runs {'it' if look.runs_binary else 'another file'}"
    return Verdict("process", look.runs_binary, seen, f"the file that is at {target['binary']} now")


def _http(look: Look, target: Target, probe: Probe) -> Verdict:
    status, _body, error = look.answers[probe["path"]]
    wanted = probe.get("status") or [200]
    url = f"{target['url']}{probe['path']}"
    seen = f"{url} answered {status}" if status else f"{url} didn't answer ({error})"
    return Verdict("http", status in wanted, seen, f"status {' or '.join(map(str, wanted))}")


def _build_info(look: Look, target: Target, probe: Probe) -> Verdict:
    status, body, error = look.answers[probe["path"]]
    found = version_in(body, probe["metrics"]) if status == 200 else None
    names = ", ".join(item["metric"] for item in probe["metrics"])
    if found:
        seen = f"the service calls itself {found}"
    else:
        seen = f"{target['url']}{probe['path']} has none of {names}" if status == 200 else error or f"status {status}"
    wanted = target.get("version")
    ok = same_version(found, wanted) if wanted else found is not None
    return Verdict("build_info", ok, seen, f"version {wanted}" if wanted else "a version")


PREDICATES: dict[str, t.Callable[[Look, Target, Probe], Verdict]] = {
    "systemd": _systemd,
    "process": _process,
    "http": _http,
    "build_info": _build_info,
}


def _unknown(look: Look, target: Target, probe: Probe) -> Verdict:
    return Verdict(str(probe.get("kind")), False, "no such probe is known", f"one of {', '.join(PREDICATES)}")


def judge(look: Look, target: Target) -> list[Verdict]:
    """What each of the target's probes says of a look at it. What nobody asks for, or knows, is never satisfied."""
    verdicts = [PREDICATES.get(probe.get("kind", ""), _unknown)(look, target, probe) for probe in target["probes"]]
    return verdicts or [Verdict("probes", False, "there are none", "one at least")]


def paths(target: Target) -> list[str]:
    """The HTTP paths that the target's probes ask for, each once."""
    return list(dict.fromkeys(probe["path"] for probe in target["probes"] if probe.get("path")))


class Watch:
    """Follows the looks at one service until it has been good, and the same process, for a whole window."""

    def __init__(self, *, window: float) -> None:
        self.verdicts: list[Verdict] = []
        self.ready_after: float | None = None
        self.hopeless = ""
        self._window = window
        self._since: float | None = None
        self._identity: tuple[int, int] | None = None
        self._first_restarts: int | None = None

    def add(self, look: Look, verdicts: list[Verdict], *, elapsed: float) -> bool:
        """Take in a look. Whether the service is now proven healthy.

        :param elapsed: seconds since the watch began.
        """
        self.verdicts = verdicts
        if self._first_restarts is None:
            self._first_restarts = look.n_restarts
        identity = (look.main_pid, look.n_restarts)
        if not all(verdict.ok for verdict in verdicts):
            self._since, self._identity = None, None
            self._give_up(look)
            return False
        if identity != self._identity:
            self._since, self._identity = elapsed, identity
            self.ready_after = elapsed
        return elapsed - t.cast("float", self._since) >= self._window

    def failures(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if not verdict.ok]

    def _give_up(self, look: Look) -> None:
        """Note that no time will help: the unit has stopped for good, or comes and goes."""
        restarts = look.n_restarts - t.cast("int", self._first_restarts)
        if look.active in ("failed", "inactive"):
            self.hopeless = f"the unit has stopped ({look.active})"
        elif restarts >= CRASH_LOOP_RESTARTS:
            self.hopeless = f"a crash loop: systemd has restarted it {restarts} times meanwhile"
