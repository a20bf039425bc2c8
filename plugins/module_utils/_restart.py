# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. How a service comes to run what is on disk: restarted with patience, or fast, or told to read it anew."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from . import _files, _http, _private, _process, _systemd
from ._errors import HostError

if t.TYPE_CHECKING:
    from ._command import Run

STRATEGIES = ("graceful", "fast", "reload")
FAST = 10.0
"""Seconds that a stop may take with C(fast)."""

_STEADY = 1.0  # seconds for which a service must outlive a reload
_PAUSE = 0.1
_INTERVAL = 0.02
_SERVER_ERRORS = 500


class Choice(t.NamedTuple):
    """What is done: one of C(STRATEGIES), and why it isn't what was wanted."""

    strategy: str
    reason: str | None = None


class Done(t.NamedTuple):
    """What was done. ``killed`` tells whether the service had to be."""

    choice: Choice
    killed: bool
    daemon_reload: bool


def choose(wanted: str, unit: _systemd.Unit, *, runs_it: bool, signal: bool, force: bool, reload_units: bool) -> Choice:
    """What can be done of what is wanted. A reload is enough only where nothing but the configuration is another.

    :param runs_it: whether its process runs the file that it must.
    :param force: whether it must be another process in any case.
    :param signal: whether SIGHUP lets it read its configuration anew.
    :param reload_units: whether its unit files may be others.
    """
    obstacles = {
        "it doesn't run": not unit.is_running,
        "its process doesn't run the file on disk": not runs_it,
        "force asks for a restart": force,
        "its unit files have changed": unit.needs_reload or reload_units,
        "its unit has no ExecReload=, and SIGHUP isn't known to do": not (_can_reload(unit) or signal),
    }
    reason = next((words for words, there in obstacles.items() if there), None)
    return Choice("graceful", reason) if wanted == "reload" and reason else Choice(wanted)


def stop_patience(unit: _systemd.Unit, strategy: str) -> float:
    """How long the unit may take to stop before it is killed, in seconds."""
    patience = _systemd.stop_patience(unit)
    return min(FAST, patience) if strategy == "fast" else patience


def time_limit(unit: _systemd.Unit, strategy: str) -> float:
    """How long it all may take, in seconds. A reload may end in a restart."""
    reload = _systemd.reload_timeout(unit) if strategy == "reload" else 0.0
    return reload + stop_patience(unit, strategy) + _systemd.START_TIMEOUT


def act(
    run: Run,
    unit: _systemd.Unit,
    choice: Choice,
    *,
    reload_units: bool,
    sleep: t.Callable[[float], None] = time.sleep,
) -> Done:
    """Do what was chosen. A service that a reload has ended is started again.

    :raises HostError: if it couldn't be done.
    """
    if choice.strategy == "reload":
        _systemd.read_anew(run, unit, signal=not _can_reload(unit))
        now = _looked_after(run, unit, sleep)
        if now.main_pid == unit.main_pid:
            return Done(choice, killed=False, daemon_reload=False)
        choice = Choice("graceful", "it ended when it was told to read its configuration anew")
        if now.is_running:  # systemd has restarted it itself
            return Done(choice, killed=False, daemon_reload=False)
    anew = reload_units or unit.needs_reload
    patience = stop_patience(unit, choice.strategy)
    limit = time_limit(unit, choice.strategy)
    return Done(choice, _systemd.restart(run, unit, timeout=limit, reload=anew, patience=patience), daemon_reload=anew)


@contextlib.contextmanager
def announced(path: str) -> t.Iterator[None]:
    """Tell the host's guard, see C(_guard), that a start of the service is this process's own, as long as it lives.

    Where that can't be written, on a full disk for one, the guard finds the lock taken, which only takes longer.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with contextlib.suppress(OSError, HostError), _private.opened(path, flags) as marker:
        _files.write_all(marker, f"{os.getpid()} {_process.start_ticks(os.getpid())}\n".encode())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _files.remove_if_there(path)


def settle(
    url: str,
    *,
    within: float = 2.0,
    clock: t.Callable[[], float] = time.monotonic,
    sleep: t.Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until a service answers, and not with an error of its own. Whether it did in time; if not, it is for others
    to tell why.

    :param url: what is asked.
    :param within: seconds.
    """
    until = clock() + within
    while (left := until - clock()) > 0:
        status = _http.get(url, timeout=left).status
        if status is not None and status < _SERVER_ERRORS:
            return True
        sleep(_INTERVAL)
    return False


def _can_reload(unit: _systemd.Unit) -> bool:
    return unit.properties.get("CanReload") == "yes"


def _looked_after(run: Run, unit: _systemd.Unit, sleep: t.Callable[[float], None]) -> _systemd.Unit:
    """The unit after a moment, or once its process has ended: one that doesn't know SIGHUP is ended by it."""
    for _number in range(round(_STEADY / _PAUSE)):
        now = _systemd.show(run, [unit.name])[0]
        if now.main_pid != unit.main_pid:
            break
        sleep(_PAUSE)
    return now
