# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. One predicate for each kind of probe: what it says of what was seen, and of what was seen before.

What was seen is JSON data, so that a baseline is simply what probes saw earlier; see C(_observe.py).
"""

from __future__ import annotations

import math
import typing as t

from ._json_path import MISSING, same, shown
from ._version import same_version

if t.TYPE_CHECKING:
    Probe = dict[str, t.Any]
    Target = dict[str, t.Any]
    Observation = dict[str, t.Any]
    Predicate = t.Callable[[Target, Probe, Observation, Observation], "Verdict"]

_NAMED = 8
_NOT_FOUND = 404
_NOTHING_BEFORE = "nothing to compare with"


NOT_CONFIGURED = "not configured"
"""What a probe sees that has nothing to ask, because the service is not configured for it."""


class Verdict(t.NamedTuple):
    """Whether one probe is satisfied, and by what."""

    probe: str
    ok: bool
    seen: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.probe}: {self.seen}; wanted: {self.wanted}"


# -- the unit and its process -------------------------------------------------------------------------------------


def _systemd(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    text = f"{target['unit']} is {seen['active']}/{seen['sub']}"
    if seen["result"] not in ("", "success"):
        text += f" ({seen['result']})"
    if seen["n_restarts"]:
        text += f", restarted {seen['n_restarts']} times by systemd"
    ok = seen["active"] == "active" and seen["main_pid"] > 0
    return Verdict("systemd", ok, text, "active, with a main process")


def _process(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    text = f"process {seen['main_pid']} runs {'it' if seen['runs_binary'] else seen.get('runs') or 'another file'}"
    return Verdict("process", seen["runs_binary"], text, f"the file that is at {target['binary']} now")


def _resources(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    measures = [
        ("rss", seen.get("rss"), before.get("rss"), "of its memory before"),
        ("fds", seen.get("fds"), seen.get("fds_limit"), "of its limit of open files"),
        ("cpu", seen.get("cpu"), 1.0, "of one CPU"),
    ]
    texts, wanted, ok = [], [], not seen.get("error")
    for name, value, whole, of_what in measures:
        most = probe[f"{name}_most"]
        if most is None or (name == "rss" and not whole):
            continue
        share = 100 * value / whole if value is not None and whole else None
        ok = ok and share is not None and share <= most
        texts.append(f"{name} is {'unknown' if share is None else f'{share:.0f} % {of_what}'}")
        wanted.append(f"{name} at most {most:g} %")
    return Verdict("resources", ok, seen.get("error") or _list(texts, _NOTHING_BEFORE), _list(wanted, "its process"))


def _log(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    lines = " | ".join(seen["lines"])
    text = seen["error"] or f"{seen['count']} such lines" + (f": {lines}" if lines else "")
    ok = not seen["error"] and seen["count"] <= probe["most"]
    return Verdict("log", ok, text, f"at most {probe['most']} lines like {' or '.join(probe['patterns'])}")


# -- what it answers ----------------------------------------------------------------------------------------------


def _url(target: Target, probe: Probe) -> str:
    return f"{target['url']}{probe['path']}"


def _unanswered(target: Target, probe: Probe, seen: Observation) -> str:
    """Why there is nothing to judge; empty if there is an answer."""
    if seen.get("status") == 200:
        return ""
    if seen.get("status"):
        return f"{_url(target, probe)} answered {seen['status']}"
    return f"{_url(target, probe)} didn't answer ({seen.get('error')})"


def _http(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    status = seen["status"]
    wanted = [f"status {' or '.join(map(str, probe['status']))}"]
    text = f"{_url(target, probe)} answered {status}" if status else f"{_url(target, probe)} didn't answer"
    if not status:
        return Verdict("http", False, f"{text} ({seen['error']})", wanted[0])
    ok = status in probe["status"]
    if probe["text"] is not None:
        ok = ok and seen["text"]
        text += "" if seen["text"] else " without the text"
        wanted.append(f"with the text {probe['text']!r}")
    for path, value in probe["json"].items():
        found = seen["json"].get(path)
        ok = ok and found is not None and same(found["value"], value)
        text += f", {path} is {MISSING if found is None else shown(found['value'])}"
        wanted.append(f"{path} {shown(value)}")
    return Verdict("http", ok, text, ", ".join(wanted))


def _http_kept(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    """That what was served is served. A refusal of the empty request is an answer as good as another; 404 isn't."""
    status, earlier = seen["status"], before.get("status")
    text = f"{probe['method']} {_url(target, probe)} " + (
        f"answered {status}" if status else f"didn't answer ({seen['error']})"
    )
    if not earlier:
        return Verdict(probe["kind"], True, f"{text}, {_NOTHING_BEFORE}", "as before")
    same_kind = status and (status // 100, status == _NOT_FOUND) == (
        earlier // 100,
        earlier == _NOT_FOUND,
    )
    return Verdict(probe["kind"], bool(same_kind), text, f"an answer like {earlier} before")


def _build_info(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    found, wanted = seen["version"], target.get("version")
    if found:
        text = f"the service calls itself {found}"
    elif seen["status"] == 200:
        text = f"{_url(target, probe)} has none of {', '.join(item['metric'] for item in probe['metrics'])}"
    else:
        text = seen["error"] or f"status {seen['status']}"
    ok = same_version(found, wanted) if wanted else found is not None
    return Verdict("build_info", ok, text, f"version {wanted}" if wanted else "a version")


def _reachable(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    text = f"{seen['address']} {'takes a connection' if not seen['error'] else seen['error']}"
    return Verdict(probe["kind"], not seen["error"], text, "a connection")


def _series(probe: Probe) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in probe["labels"].items())
    return f"{probe['metric']}{{{labels}}}" if labels else str(probe["metric"])


def _metric(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    name, value = _series(probe), seen.get("value")
    wanted = _limits(probe) or "it to be there"
    if not seen.get("configured", True):
        return Verdict("metric", False, f"{NOT_CONFIGURED}: {probe['only_where']['metric']} isn't there", wanted)
    text = _unanswered(target, probe, seen) or (
        f"{name} isn't there" if value is None else f"{name} is {_shown(value)}"
    )
    return Verdict("metric", value is not None and _within(probe, value), text, wanted)


def _metric_kept(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    name, value, earlier = _series(probe), seen.get("value"), before.get("value")
    text = _unanswered(target, probe, seen) or (
        f"{name} isn't there" if value is None else f"{name} is {_shown(value)}"
    )
    return _kept(probe, text, value, earlier)


def _samples(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    count, earlier = seen.get("count"), before.get("count")
    text = _unanswered(target, probe, seen) or f"{_url(target, probe)} has {count} samples"
    gone = sorted({*before.get("families", [])} - {*seen.get("families", [])})
    if gone and count is not None:
        text += f", and no longer {_names(gone)}"
    return _kept(probe, text, count, earlier, " samples")


def _json_kept(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    count, earlier = seen.get("count"), before.get("count")
    like = _list([f"{name} {shown(value)}" for name, value in probe["where"].items()], "")
    text = _unanswered(target, probe, seen) or seen.get("error", "")
    text = text or f"{count} of {probe['items']}{f' with {like}' if like else ''}"
    return _kept(probe, text, count, earlier)


def _json_each(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    like = _list([f"{name} {shown(value)}" for name, value in probe["where"].items()], "")
    text = _unanswered(target, probe, seen) or seen.get("error", "")
    bad = seen.get("bad", [])
    none = "" if seen.get("count") else f"{NOT_CONFIGURED}: "
    text = text or "; ".join(bad) or f"{none}{seen['count']} items{f' with {like}' if like else ''}"
    wanted = _list([f"{path} {shown(value)}" for path, value in probe["json"].items()], "an answer")
    ok = bool(seen.get("count")) and not bad
    return Verdict(probe["kind"], ok, text, f"one at least, and of each {wanted}")


def _kept(probe: Probe, text: str, value: float | None, earlier: float | None, unit: str = "") -> Verdict:
    """That a number is at least so many percent of what it was."""
    if earlier is None:
        return Verdict(probe["kind"], True, f"{text}, {_NOTHING_BEFORE}", "as before")
    least = probe["least"] * earlier / 100
    least = math.ceil(least) if isinstance(earlier, int) else least
    wanted = f"at least {_shown(least)}{unit}, {probe['least']:g} % of {_shown(earlier)} before"
    return Verdict(probe["kind"], value is not None and value >= least, text, wanted)


def _promql(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    value, error = seen.get("value"), seen.get("error")
    if error and before.get("error"):
        return Verdict("promql", True, f"{error}, nor did it before", "as before")
    wanted = [_limits(probe)] if _limits(probe) else []
    ok = not error and (not wanted or (value is not None and _within(probe, value)))
    earlier = before.get("value") if probe["kept"] else None
    if earlier is not None:
        ok = ok and value is not None and value >= earlier
        wanted.append(f"at least {_shown(earlier)} as before")
    text = error or f"{probe['query']} gives {'nothing' if value is None else f'{_shown(value)}'}"
    if probe["kept"] and earlier is None:
        text += f", {_NOTHING_BEFORE}"
    return Verdict("promql", ok, text, _list(wanted, "an answer"))


def _rule_metrics(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    wanted = "all metrics that loaded rules use and that were there before"
    if "there" not in before:
        return Verdict("rule_metrics", True, _NOTHING_BEFORE, wanted)
    if seen["error"]:
        return Verdict("rule_metrics", False, seen["error"], wanted)
    gone = sorted(({*before["there"]} & {*seen["used"]}) - {*seen["there"]})
    text = f"rules use {_names(gone)}, gone now" if gone else f"{len(seen['there'])} metrics that rules use are there"
    return Verdict("rule_metrics", not gone, text, wanted)


def _round_trip(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    where = f"{target['url']}{probe['send']['path']}"
    wanted = "what was sent to come back"
    if seen["sent"] in (401, 403) and not (target.get("auth") or {}):
        return Verdict("round_trip", True, f"{where} asks for a login, and none is set: nothing was sent", wanted)
    text = "what was sent came back" if seen["found"] else seen["error"]
    return Verdict("round_trip", seen["found"], text, wanted)


# -- what it needs ------------------------------------------------------------------------------------------------


def _command(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    wanted = [f"exit code {' or '.join(map(str, probe['status']))}"]
    ok = seen["rc"] in probe["status"]
    text = seen["error"] if seen["rc"] is None else f"{probe['argv'][0]} ended with {seen['rc']}"
    if seen["rc"] is not None and not ok and seen["error"]:
        text += f": {seen['error']}"
    if probe["text"] is not None:
        wanted.append(f"with the text {probe['text']!r}")
        text += "" if seen["text"] else ", without the text"
        ok = ok and seen["text"]
    return Verdict("command", ok, text, ", ".join(wanted))


def _database(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    return Verdict("database", not seen["error"], seen["error"] or seen["says"], f"{probe['engine']} to answer")


def _container(target: Target, probe: Probe, seen: Observation, before: Observation) -> Verdict:
    health = seen["health"] or "none"
    text = seen["error"] or f"{probe['container']} is {seen['status']}, its health check says {health}"
    ok = not seen["error"] and seen["status"] == "running" and health in ("none", "healthy")
    return Verdict("container", ok, text, "running, and healthy where it has a health check")


# -- words --------------------------------------------------------------------------------------------------------


def _within(probe: Probe, value: float) -> bool:
    return (probe["min"] is None or value >= probe["min"]) and (probe["max"] is None or value <= probe["max"])


def _limits(probe: Probe) -> str:
    texts = [
        f"at {word} {_shown(probe[name])}"
        for name, word in (("min", "least"), ("max", "most"))
        if probe[name] is not None
    ]
    return " and ".join(texts)


def _list(texts: list[str], otherwise: str) -> str:
    return ", ".join(texts) or otherwise


def _shown(number: float) -> str:
    """A number without an exponent where it is a whole one."""
    return str(int(number)) if math.isfinite(number) and number == int(number) else f"{number:g}"


def _names(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


PREDICATES: dict[str, Predicate] = {
    "systemd": _systemd,
    "process": _process,
    "http": _http,
    "http_kept": _http_kept,
    "build_info": _build_info,
    "tcp": _reachable,
    "unix": _reachable,
    "metric": _metric,
    "metric_kept": _metric_kept,
    "samples": _samples,
    "json_kept": _json_kept,
    "json_each": _json_each,
    "promql": _promql,
    "rule_metrics": _rule_metrics,
    "log": _log,
    "resources": _resources,
    "command": _command,
    "database": _database,
    "container": _container,
    "round_trip": _round_trip,
}
