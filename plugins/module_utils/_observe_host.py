# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What probes see of a service on its host: its unit, its process, its journal, and programs that they run."""

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t

from . import _files, _process, _processes
from ._systemd import message_of

if t.TYPE_CHECKING:
    from ._scene import Observer, Scene
    from ._verdicts import Observation, Probe

_MOST_LINES = 5000
"""Lines of the journal to look at, the newest ones. What is said more often than that is said at the end, too."""

_SHOWN_LINES = 3
_SHOWN_LENGTH = 200
_TIMEOUT = 30.0
_SPAN = 0.25
"""Seconds over which the use of the CPU is measured at the first look."""


def _systemd(scene: Scene, probe: Probe) -> Observation:
    unit = scene.unit
    return {
        "active": unit.active,
        "sub": unit.sub,
        "result": unit.result,
        "main_pid": unit.main_pid,
        "n_restarts": unit.n_restarts,
    }


def _runs(scene: Scene, probe: Probe) -> Observation:
    pid = _processes.of_program(scene.unit, scene.target["binary"])
    told = pid or scene.unit.main_pid
    return {"main_pid": told, "runs_binary": bool(pid), "runs": _process.told_executable(told)}


# -- the journal --------------------------------------------------------------------------------------------------


def _log(scene: Scene, probe: Probe) -> Observation:
    entries, error = _entries(scene)
    wanted = [re.compile(pattern) for pattern in probe["patterns"]]
    allowed = [re.compile(pattern) for pattern in probe["allow"]]
    lines = [
        line
        for line in map(message_of, entries)
        if any(pattern.search(line) for pattern in wanted) and not any(pattern.search(line) for pattern in allowed)
    ]
    shown = [scene.redact(line)[:_SHOWN_LENGTH] for line in lines[:_SHOWN_LINES]]
    return {"error": error, "count": len(lines), "lines": shown}


def _entries(scene: Scene) -> tuple[list[dict[str, t.Any]], str]:
    """What the unit's present process and its children have logged since the look's time, and why that can't be told.

    Of an earlier start of the unit nothing is taken: what a service complains of while it is stopped is no sign.
    """
    argv = ["journalctl", f"--unit={scene.unit.identity}", f"--since=@{int(scene.since)}", f"--lines={_MOST_LINES}"]
    argv += ["--reverse", "--no-pager", "--quiet", "--output=json"]
    done = scene.run([*argv, "--output-fields=MESSAGE,_PID,_SYSTEMD_INVOCATION_ID"], timeout=scene.time_for(_TIMEOUT))
    if done.rc != 0:
        return [], f"the journal can't be read: {done.err.strip() or 'journalctl failed'}"
    entries = [entry for entry in map(_entry, reversed(done.out.splitlines())) if _time(entry) >= scene.since]
    pid = str(scene.unit.main_pid)
    present = {entry.get("_SYSTEMD_INVOCATION_ID") for entry in entries if entry.get("_PID") == pid} - {None}
    return [entry for entry in entries if not present or entry.get("_SYSTEMD_INVOCATION_ID") in (None, *present)], ""


def _entry(line: str) -> dict[str, t.Any]:
    try:
        entry = json.loads(line)
    except ValueError:  # the last one, where there is too much
        return {}
    return entry if isinstance(entry, dict) else {}


def _time(entry: dict[str, t.Any]) -> float:
    """When it was logged, in seconds since the epoch; where that isn't told, journalctl's own choice counts."""
    told = str(entry.get("__REALTIME_TIMESTAMP", ""))
    return int(told) / 1e6 if told.isdigit() else float("inf")


# -- the process --------------------------------------------------------------------------------------------------


def _resources(scene: Scene, probe: Probe) -> Observation:
    pid = _processes.of_component(scene.unit, scene.target["binary"])
    try:
        seen = {
            "rss": _from_proc(pid, "status", r"^VmRSS:\s+(\d+) kB", 1024),
            "fds": len(os.listdir(f"{_process.PROC}/{pid}/fd")),
            "fds_limit": _from_proc(pid, "limits", r"^Max open files\s+(\d+)", 1),
        }
        return {**seen, "error": "", "cpu": None if probe["cpu_most"] is None else _cpu(scene, pid)}
    except OSError as exc:
        return {"error": f"process {pid} can't be looked at ({exc.strerror})"}


def _from_proc(pid: int, name: str, pattern: str, scale: int) -> int | None:
    with open(f"{_process.PROC}/{pid}/{name}", encoding="utf-8", errors="replace") as source:
        found = re.search(pattern, source.read(), re.MULTILINE)
    return int(found.group(1)) * scale if found else None


def _cpu(scene: Scene, pid: int) -> float | None:
    """Which share of one CPU the process has used since the last look, or within a moment if this is the first."""
    earlier = scene.memory.get("cpu")
    if not earlier or earlier[0] != pid:
        earlier = (pid, _process.cpu_seconds(pid), _process.uptime())
        scene.sleep(_SPAN)
    used, now = _process.cpu_seconds(pid), _process.uptime()
    scene.memory["cpu"] = (pid, used, now)
    span = now - earlier[2]
    return round((used - earlier[1]) / span, 3) if span > 0 else None


# -- programs -----------------------------------------------------------------------------------------------------


def _command(scene: Scene, probe: Probe) -> Observation:
    """What a program of the operator's says. It runs as root, so a program that another user can write isn't run."""
    chosen = _files.chosen_by_others(shutil.which(probe["argv"][0]) or probe["argv"][0])
    if chosen:
        return {"rc": None, "error": f"it isn't run: {chosen}", "text": False}
    done = scene.run(probe["argv"], timeout=scene.time_for(_TIMEOUT))
    last = next((line for line in reversed(done.text.splitlines()) if line.strip()), "")
    has_text = probe["text"] is None or probe["text"] in done.text
    return {"rc": done.rc, "error": scene.redact(last.strip())[:_SHOWN_LENGTH], "text": has_text}


def _container(scene: Scene, probe: Probe) -> Observation:
    engine, name = probe["engine"], probe["container"]
    argv = [engine, "inspect", "--type=container", "--format={{json .State}}", "--", name]
    done = scene.run(argv, timeout=scene.time_for(_TIMEOUT))
    nothing = {"status": None, "health": None}
    if done.rc != 0:
        return {**nothing, "error": f"{engine} doesn't know {name}: {scene.redact(done.err.strip())[:_SHOWN_LENGTH]}"}
    state = _entry(done.out)
    if not state:
        return {**nothing, "error": f"{engine} inspect says nothing of {name}'s state"}
    health = state.get("Health") or state.get("Healthcheck") or {}
    return {"status": state.get("Status"), "health": health.get("Status") or None, "error": ""}


OBSERVERS: dict[str, Observer] = {
    "systemd": _systemd,
    "process": _runs,
    "log": _log,
    "resources": _resources,
    "command": _command,
    "container": _container,
}
