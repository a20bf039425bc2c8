# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What one look at a service can ask for: each page once, however many probes want it."""

from __future__ import annotations

import functools
import json
import time
import typing as t

from . import _http, _output, _sockets, _systemd
from ._http import Answer
from ._metrics import Page

if t.TYPE_CHECKING:
    from ._command import Run
    from ._systemd import Unit
    from ._verdicts import Observation, Probe, Target

    Observer = t.Callable[["Scene", Probe], Observation]


_TIMEOUT = 5.0
"""Seconds for one request."""

_AT_LEAST = 0.1
_DIGITS = 400
"""Digits of a whole number in JSON, from which on it is a float: before 3.11, Python needs hours for a million."""


class Scene:
    """A service at one moment."""

    def __init__(
        self,
        run: Run,
        target: Target,
        unit: Unit,
        *,
        since: float | None = None,
        memory: dict[str, t.Any] | None = None,
        sleep: t.Callable[[float], None] = time.sleep,
        within: float | None = None,
    ) -> None:
        """
        :param since: seconds since the epoch: what was logged earlier isn't of interest. None: from now on.
        :param memory: what probes of this service keep from look to look.
        :param within: seconds for all requests and programs of this look. None: each has its own limit only.
        """
        self.run = run
        self.target = target
        self.unit = unit
        self.since = time.time() if since is None else since
        self.memory = {} if memory is None else memory
        self.sleep = sleep
        self._end = None if within is None else time.monotonic() + within
        self._answers: dict[str, Answer] = {}
        self._pages: dict[str, Page] = {}
        self._documents: dict[str, tuple[t.Any, str]] = {}

    def time_for(self, seconds: float) -> float:
        """The limit of a request or a program that may take so many seconds: less, if the look must end before."""
        left = seconds if self._end is None else self._end - time.monotonic()
        return max(min(seconds, left), _AT_LEAST)

    def get(self, path: str) -> Answer:
        """What a GET of a path of the service brings; the first one, if it is asked for again."""
        if path not in self._answers:
            self._answers[path] = self.ask("GET", path)
        return self._answers[path]

    def ask(self, method: str, path: str, *, body: str | None = None, content_type: str | None = None) -> Answer:
        """One request to the service, with the target's login. Where there is no process, nobody is asked."""
        if not self.unit.main_pid:
            return Answer(None, "", "no process")
        if self._end is not None and time.monotonic() >= self._end:
            return Answer(None, "", "timed out: earlier requests have taken all the time that this look has")
        return _http.ask(
            method,
            self.target["url"] + path,
            body=body,
            headers={"Content-Type": content_type} if content_type else None,
            auth=self.target.get("auth"),
            network=self.network,
            timeout=self.time_for(_TIMEOUT),
        )

    @functools.cached_property
    def network(self) -> int:
        """The process in whose network the service answers; 0 where that is the host's."""
        return _sockets.network_of(self.unit.main_pid)

    @functools.cached_property
    def _secrets(self) -> list[str]:
        return _systemd.secrets_of(self.unit)

    def redact(self, text: str) -> str:
        """What a service, or a program about it, says, without the service's secrets. Cut it afterwards, if at all."""
        return _output.redact(text, self._secrets) if text else ""

    def page(self, path: str) -> Page:
        """The metrics at a path."""
        if path not in self._pages:
            self._pages[path] = Page(self.get(path).body)
        return self._pages[path]

    def document(self, path: str) -> tuple[t.Any, str]:
        """The JSON at a path, and why there is none."""
        if path not in self._documents:
            self._documents[path] = parsed(self.get(path))
        return self._documents[path]


def parsed(answer: Answer) -> tuple[t.Any, str]:
    """The JSON of an answer, and why there is none."""
    if answer.status is None:
        return None, f"no answer ({answer.error})"
    try:
        return json.loads(answer.body, parse_int=_number), ""
    except (ValueError, RecursionError):
        return None, f"status {answer.status}, and no JSON{answer.error and f': {answer.error}'}"


def _number(text: str) -> int | float:
    return int(text) if len(text) < _DIGITS else float(text)
