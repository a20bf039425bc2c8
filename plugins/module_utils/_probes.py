# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What a probe is made of, and when a service has been good for long enough."""

from __future__ import annotations

import json
import re
import typing as t

from ._errors import InputError
from ._verdicts import PREDICATES, Verdict

if t.TYPE_CHECKING:
    from ._verdicts import Observation, Probe, Target

CRASH_LOOP_RESTARTS = 3
"""A crash loop shows within this many restarts by systemd; one alone may be an impatient start."""

ELSEWHERE = "listens at"
"""In the reason why a service is unhealthy: it is up, and was asked at another place than it listens at."""

WANTS_CERTIFICATE = "asks for a client certificate"
"""In the reason why a service is unhealthy: it refused TLS without a certificate."""

NEEDED = "needed"
"""Stands for a default where there is none."""

_LIMITS: dict[str, t.Any] = {"min": None, "max": None}

FIELDS: dict[str, dict[str, t.Any]] = {
    "systemd": {},
    "process": {},
    "http": {"path": NEEDED, "status": [200], "text": None, "json": {}},
    "http_kept": {"path": NEEDED, "method": "GET"},
    "build_info": {"path": NEEDED, "metrics": NEEDED},
    "tcp": {"address": None},
    "unix": {"socket": NEEDED},
    "metric": {"path": NEEDED, "metric": NEEDED, "labels": {}, "only_where": None, **_LIMITS},
    "metric_kept": {"path": NEEDED, "metric": NEEDED, "labels": {}, "least": 100},
    "samples": {"path": NEEDED, "least": 80},
    "json_kept": {"path": NEEDED, "items": NEEDED, "where": {}, "least": 100},
    "json_each": {"path": NEEDED, "items": "", "where": {}, "each": NEEDED, "json": NEEDED},
    "promql": {"query": NEEDED, "path": "/api/v1/query", "kept": False, **_LIMITS},
    "rule_metrics": {},
    "log": {"patterns": NEEDED, "allow": [], "most": 0},
    "resources": {"rss_most": None, "fds_most": None, "cpu_most": None},
    "command": {"argv": NEEDED, "status": [0], "text": None},
    "database": {
        "engine": NEEDED,
        "address": None,
        "socket": None,
        "path": None,
        "defaults_file": None,
        "user": None,
    },
    "container": {"engine": "docker", "container": NEEDED},
    "round_trip": {"send": NEEDED, "read": NEEDED, "text": NEEDED},
}
"""What each kind of probe is made of, besides C(kind) and C(name), and what holds where it isn't set."""

COMPARING = frozenset({"http_kept", "metric_kept", "samples", "json_kept", "promql", "rule_metrics", "resources"})
"""The kinds that compare with what they saw before the service was touched."""

_JUDGED_ONLY = frozenset({"kind", "name", "status", "least", "most", "min", "max", "kept"})
_CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "method": {"http_kept": ("GET", "POST")},
    "engine": {"database": ("postgresql", "mysql", "sqlite"), "container": ("docker", "podman")},
}


def complete(probe: Probe) -> Probe:
    """A probe with all fields of its kind.

    :raises InputError: if a field is missing, belongs to another kind, or can't be meant.
    """
    kind = probe.get("kind")
    if kind not in FIELDS:
        raise InputError(f"no kind of probe is called {kind}; there are {', '.join(FIELDS)}", key="probe.unknown")
    fields = FIELDS[kind]
    given = {name: value for name, value in probe.items() if value is not None and name not in ("kind", "name")}
    foreign = [name for name in given if name not in fields]
    if foreign:
        raise InputError(
            f"a probe of kind {kind} has no {' and no '.join(foreign)}; it has {', '.join(fields) or 'no fields'}",
            key="probe.field",
        )
    missing = [name for name, default in fields.items() if default == NEEDED and name not in given]
    if missing:
        raise InputError(f"a probe of kind {kind} needs {' and '.join(missing)}", key="probe.field")
    _check(kind, given)
    return {"kind": kind, "name": probe.get("name"), **fields, **given}


def _check(kind: str, given: Probe) -> None:
    for name, of_kind in _CHOICES.items():
        choices = of_kind.get(kind, ())
        if given.get(name) not in (None, *choices):
            raise InputError(f"{name} of a probe of kind {kind} must be one of {', '.join(choices)}", key="probe.field")
    for pattern in [*given.get("patterns", []), *given.get("allow", [])]:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError, TypeError) as exc:
            raise InputError(f"{pattern!r} of a probe of kind log is no pattern: {exc}", key="probe.field") from None
    for name, needed in (("send", ("path", "body")), ("read", ("path",))):
        missing = [field for field in needed if name in given and not given[name].get(field)]
        if missing:
            raise InputError(f"{name} of a probe of kind {kind} needs {' and '.join(missing)}", key="probe.field")


def key_of(probe: Probe) -> str:
    """What tells one observation from another: the kind, and all that decides what is seen, not how it is judged."""
    defaults = FIELDS.get(str(probe.get("kind")), {})
    asked = {
        name: value
        for name, value in probe.items()
        if name not in _JUDGED_ONLY and value is not None and value != defaults.get(name)
    }
    return f"{probe.get('kind')} {json.dumps(asked, sort_keys=True)}"


def judge(probe: Probe, target: Target, seen: Observation, before: Observation | None = None) -> Verdict:
    """What a probe says of what was seen. What nobody knows is never satisfied.

    :param before: what was seen before the service was touched; None if there is nothing to compare with.
    """
    if seen.get("refused"):
        return Verdict(str(probe.get("kind")), False, seen["refused"], "a probe that can be asked")
    full = complete(probe)
    verdict = PREDICATES[full["kind"]](target, full, seen, before or {})
    return verdict._replace(probe=full["name"]) if full["name"] else verdict


class Look(t.NamedTuple):
    """What one look at a service tells of its unit."""

    active: str
    main_pid: int
    n_restarts: int


class Watch:
    """Follows the looks at one service: until it has been good, and the same process, for a whole window, and has then
    proven each of its proofs once."""

    def __init__(self, *, timeout: float, window: float, proofs: int = 0) -> None:
        """
        :param timeout: seconds to become good, and again as many to prove what is to be proven after the window.
        :param proofs: how many there are.
        """
        self.verdicts: list[Verdict] = []
        self.proofs: dict[int, Verdict] = {}
        self.timeout = timeout
        self.ready_after: float | None = None
        self.hopeless = ""
        self._window = window
        self._count = proofs
        self._since: float | None = None
        self._steady_at: float | None = None
        self._identity: tuple[int, int] | None = None
        self._first_restarts: int | None = None

    def add(self, look: Look, verdicts: list[Verdict], *, elapsed: float) -> bool:
        """Take in a look. Whether the service has been good for the window by now.

        :param elapsed: seconds since the watch began.
        """
        self.verdicts = verdicts
        if self._first_restarts is None:
            self._first_restarts = look.n_restarts
        identity = (look.main_pid, look.n_restarts)
        if not all(verdict.ok for verdict in verdicts):
            self._begin_anew(None, None)
            self._give_up(look)
            return False
        if identity != self._identity:
            self._begin_anew(elapsed, identity)
            self.ready_after = elapsed
        steady = elapsed - t.cast("float", self._since) >= self._window
        if steady and self._steady_at is None:
            self._steady_at = elapsed
        return steady

    @property
    def main_pid(self) -> int:
        """The process that has been good since the last look at which something else was; 0 if there is none."""
        return self._identity[0] if self._identity else 0

    def unproven(self) -> list[int]:
        """The numbers of the proofs that are still to be good."""
        return [number for number in range(self._count) if number not in self.proofs or not self.proofs[number].ok]

    def may_wait(self, elapsed: float) -> bool:
        """Whether another look may help: until the time is over, or the window of a service that is good by then, or
        the time of the proofs."""
        return not self.hopeless and elapsed <= self.ends

    @property
    def ends(self) -> float:
        """When the time is over, in seconds since the watch began."""
        if self._steady_at is not None:
            return self._steady_at + self.timeout
        return self.timeout + (0 if self.failures() else self._window)

    def failures(self) -> list[Verdict]:
        return [verdict for verdict in self.told() if not verdict.ok]

    def told(self) -> list[Verdict]:
        """What the probes, and the proofs that were asked for, said last."""
        return [*self.verdicts, *(self.proofs[number] for number in sorted(self.proofs))]

    def why(self) -> str:
        """Why the service isn't proven to be healthy."""
        # The probes stand in causal order: what follows the first that failed is only its consequence.
        first = next(iter(self.failures()), "its process kept changing")
        state = "steady" if self._steady_at is None else "proven"
        return self.hopeless or f"not {state} within {self.timeout:g} s: {first}"

    def _begin_anew(self, since: float | None, identity: tuple[int, int] | None) -> None:
        self._since, self._steady_at, self._identity = since, None, identity
        self.proofs = {}

    def _give_up(self, look: Look) -> None:
        """Note that no time will help: the unit has stopped for good, or comes and goes."""
        restarts = look.n_restarts - t.cast("int", self._first_restarts)
        if look.active in ("failed", "inactive"):
            self.hopeless = f"the unit has stopped ({look.active})"
        elif restarts >= CRASH_LOOP_RESTARTS:
            self.hopeless = f"a crash loop: systemd has restarted it {restarts} times meanwhile"
