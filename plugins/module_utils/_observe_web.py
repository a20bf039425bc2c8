# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What probes see of a service over HTTP, and of its sockets."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import socket
import time
import typing as t
import urllib.parse

from . import _deadline, _json_path, _metrics, _netns, _scene

if t.TYPE_CHECKING:
    from ._scene import Observer, Scene
    from ._verdicts import Observation, Probe

_CONNECT_TIMEOUT = 5.0
_SOON = 10
"""Seconds from now that C({soon}) stands for, and after which what didn't come back is sent once more."""

_BAD_ENOUGH = 10
"""Items of a list that aren't as wanted, after which no more are asked for."""

_PROTOBUF = "application/x-protobuf"
_FORM = "application/x-www-form-urlencoded"
_RULES = "/api/v1/rules"
_QUERY = "/api/v1/query"


def _http(scene: Scene, probe: Probe) -> Observation:
    answer = scene.get(probe["path"])
    found = {}
    if probe["json"]:
        data, _error = scene.document(probe["path"])
        at = {path: _json_path.find(data, path) for path in probe["json"]}
        found = {
            path: {"value": _told(scene, value, probe["json"][path])} for path, (there, value) in at.items() if there
        }
    has_text = probe["text"] is None or probe["text"] in answer.body
    return {"status": answer.status, "error": answer.error, "text": has_text, "json": found}


def _told(scene: Scene, value: t.Any, wanted: t.Any) -> t.Any:
    """A value that a service tells: one that isn't wanted can have a secret in it."""
    if _json_path.same(value, wanted) or value is None or isinstance(value, (bool, int, float)):
        return value
    return scene.redact(value if isinstance(value, str) else json.dumps(value))


def _http_kept(scene: Scene, probe: Probe) -> Observation:
    """The status of a request. A POST has no content, so that nothing is changed by it."""
    post = probe["method"] == "POST"
    answer = scene.ask("POST", probe["path"], body="", content_type=_PROTOBUF) if post else scene.get(probe["path"])
    return {"status": answer.status, "error": answer.error}


def _build_info(scene: Scene, probe: Probe) -> Observation:
    answer = scene.get(probe["path"])
    version = _metrics.version_in(answer.body, probe["metrics"]) if answer.status == 200 else None
    return {"status": answer.status, "error": answer.error, "version": version}


def _metric(scene: Scene, probe: Probe) -> Observation:
    answer = scene.get(probe["path"])
    seen: Observation = {"status": answer.status, "error": answer.error, "value": None}
    if answer.status == 200:
        page, sign = scene.page(probe["path"]), probe.get("only_where")
        seen["value"] = page.total(probe["metric"], probe["labels"])
        seen["configured"] = sign is None or page.total(sign["metric"], sign.get("labels") or {}) is not None
    return seen


def _samples(scene: Scene, probe: Probe) -> Observation:
    answer = scene.get(probe["path"])
    if answer.status != 200:
        return {"status": answer.status, "error": answer.error}
    page = scene.page(probe["path"])
    return {"status": answer.status, "error": "", "count": page.count, "families": page.families()}


def _json_kept(scene: Scene, probe: Probe) -> Observation:
    seen, items = _items(scene, probe)
    return seen if items is None else {**seen, "count": len(items)}


def _json_each(scene: Scene, probe: Probe) -> Observation:
    seen, items = _items(scene, probe)
    if items is None:
        return seen
    told = (_unlike(scene, _filled(probe["each"], item), probe) for item in items)
    return {**seen, "count": len(items), "bad": list(itertools.islice(filter(None, told), _BAD_ENOUGH))}


def _filled(path: str, item: t.Any) -> str:
    """A path with values of an item in it, where their names stand in braces."""
    return re.sub(r"\{([\w.]+)\}", lambda name: urllib.parse.quote(str(_json_path.find(item, name[1]).value), ""), path)


def _unlike(scene: Scene, path: str, probe: Probe) -> str:
    """In what the answer from a path isn't what a probe wants; empty if in nothing."""
    data, error = scene.document(path)
    if error:
        return f"{scene.target['url']}{path}: {error}"
    for wanted_at, wanted in probe["json"].items():
        found = _json_path.find(data, wanted_at)
        if not (found.there and _json_path.same(found.value, wanted)):
            told = _json_path.shown(_told(scene, found.value, wanted)) if found.there else _json_path.MISSING
            return f"{scene.target['url']}{path}: {wanted_at} is {told}"
    return ""


def _items(scene: Scene, probe: Probe) -> tuple[Observation, list[t.Any] | None]:
    """What was answered, and of the list in it the items that are like the probe's; none if there is no list."""
    answer = scene.get(probe["path"])
    seen = {"status": answer.status, "error": answer.error}
    if answer.status != 200:
        return seen, None
    data, error = scene.document(probe["path"])
    found = _json_path.find(data, probe["items"])
    if not isinstance(found.value, list):
        what = probe["items"] or "the answer"
        return {**seen, "error": error or f"{what} of {scene.target['url']}{probe['path']} is no list"}, None
    return seen, [item for item in found.value if _matches(item, probe["where"])]


def _matches(item: t.Any, where: dict[str, t.Any]) -> bool:
    found = [(_json_path.find(item, path), wanted) for path, wanted in where.items()]
    return all(value.there and _json_path.same(value.value, wanted) for value, wanted in found)


# -- Prometheus ---------------------------------------------------------------------------------------------------


def _promql(scene: Scene, probe: Probe) -> Observation:
    result, error = _query(scene, probe["query"], probe["path"])
    if error:
        return {"error": error}
    values = [float(sample) for _labels, sample in result]
    return {"error": "", "results": len(values), "value": sum(values) if values else None}


def _query(scene: Scene, query: str, path: str) -> tuple[list[tuple[dict[str, str], str]], str]:
    """The labels and values that a query of this moment gives, and why there are none."""
    answer = scene.ask("POST", path, body=urllib.parse.urlencode({"query": query}), content_type=_FORM)
    data, error = _scene.parsed(answer)
    if error:
        return [], f"{scene.target['url']}{path}: {error}"
    if not isinstance(data, dict) or data.get("status") != "success":
        said = scene.redact(str(data.get("error") or "")) if isinstance(data, dict) else ""
        return [], f"{scene.target['url']}{path} answered {answer.status}: {said or 'no success'}"
    try:
        result = data["data"]["result"]
        if data["data"]["resultType"] == "scalar":
            return [({}, str(float(result[1])))], ""
        return [(item["metric"], str(float(item["value"][1]))) for item in result], ""
    except (KeyError, IndexError, TypeError, ValueError):
        return [], f"{scene.target['url']}{path} gives neither a vector nor a number"


def _rule_metrics(scene: Scene, probe: Probe) -> Observation:
    """The names that the expressions of loaded rules use, and which of them are of a series now.

    A name in an expression may be that of a function or a label. Those are no series, neither before nor after.
    """
    data, error = scene.document(_RULES)
    groups = _json_path.find(data, "data.groups").value
    if error or not isinstance(groups, list):
        return {"error": f"{scene.target['url']}{_RULES}: {error or 'no groups of rules'}"}
    rules = [rule for group in groups for rule in _json_path.find(group, "rules").value or []]
    used = sorted({name for rule in rules for name in names_in(str(rule.get("query", "")))})
    if not used:
        return {"error": "", "used": [], "there": []}
    result, error = _query(scene, f'count by (__name__) ({{__name__=~"{"|".join(used)}"}})', _QUERY)
    if error:
        return {"error": error}
    return {"error": "", "used": used, "there": sorted({labels.get("__name__", "") for labels, _value in result})}


def names_in(expression: str) -> set[str]:
    """All names in a PromQL expression but those within braces, brackets and quotes."""
    # No part of a pattern may be looked for again and again: what a service says can be long, and made for it.
    bare = re.sub(r'(?s)"(?:[^"\\]|\\.)*\\?(?:"|\Z)|\'(?:[^\'\\]|\\.)*\\?(?:\'|\Z)|`[^`]*(?:`|\Z)', '""', expression)
    bare = re.sub(r"#.*", "", bare)
    bare = re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]", " ", bare)
    return set(re.findall(r"(?<![\w:.])[A-Za-z_:][\w:]*", bare))


# -- there and back -----------------------------------------------------------------------------------------------


def _round_trip(scene: Scene, probe: Probe) -> Observation:
    """Send something and look whether it comes back. At later looks, only look again, until it is too old for that."""
    send, read = probe["send"], probe["read"]
    memory = scene.memory.setdefault(f"round_trip {send['path']} {send['body']}", {})
    if time.monotonic() >= memory.get("until", 0):
        memory.clear()
        filled = _placeholders()
        answer = scene.ask(
            "POST",
            _fill(send["path"], filled),
            body=_fill(send["body"], filled),
            content_type=send.get("type") or "application/json",
        )
        if answer.status is None or not 200 <= answer.status < 300:
            why = f"answered {answer.status}" if answer.status else f"didn't answer ({answer.error})"
            return {"sent": answer.status, "found": False, "error": f"{scene.target['url']}{send['path']} {why}"}
        memory.update(filled=filled, sent=answer.status, until=time.monotonic() + _SOON)
    path = _fill(read["path"], memory["filled"])
    answer = scene.ask("GET", path)
    found = answer.status == 200 and _fill(probe["text"], memory["filled"]) in answer.body
    why = "without what was sent" if answer.status == 200 else answer.error
    error = "" if found else f"{scene.target['url']}{path} answered {answer.status} ({why})"
    return {"sent": memory["sent"], "found": found, "error": error}


def _placeholders() -> dict[str, str]:
    now = time.time_ns()
    return {
        "{id}": secrets.token_hex(8),
        "{now}": _rfc3339(now / 1e9),
        "{soon}": _rfc3339(now / 1e9 + _SOON),
        "{now_ns}": str(now),
    }


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _fill(text: str, values: dict[str, str]) -> str:
    """Fill in the placeholders; other braces are those of JSON."""
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


# -- sockets ------------------------------------------------------------------------------------------------------


def _tcp(scene: Scene, probe: Probe) -> Observation:
    address = probe["address"] or urllib.parse.urlsplit(scene.target["url"]).netloc
    if not probe["address"] and scene.target["url"].partition(":")[0].endswith("+unix"):
        return _unix(scene, {"socket": urllib.parse.unquote(address)})
    try:
        host, port = split_address(address)
        seconds = scene.time_for(_CONNECT_TIMEOUT)
        network = scene.unit.main_pid if probe["address"] else scene.network
        _deadline.within(seconds, lambda: _connect(host, port, seconds, network=network))
    except (OSError, ValueError) as exc:
        return {"address": address, "error": f"refuses ({scene.redact(_why(exc))})"}
    return {"address": address, "error": ""}


def _connect(host: str, port: int, seconds: float, *, network: int) -> None:
    _netns.join(network)
    socket.create_connection((host, port), timeout=seconds).close()


def split_address(text: str, *, port: int | None = None) -> tuple[str, int]:
    """The host and the port of C(host:port) or C([::1]:port).

    :param port: what to take when the text names none.
    :raises ValueError: if there is no port.
    """
    parts = urllib.parse.urlsplit(f"//{text}")
    number = parts.port or port
    if not number or not parts.hostname:
        raise ValueError(f"{text} has no port")
    return parts.hostname, number


def _unix(scene: Scene, probe: Probe) -> Observation:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(scene.time_for(_CONNECT_TIMEOUT))
        try:
            client.connect(probe["socket"])
        except OSError as exc:
            return {"address": probe["socket"], "error": f"refuses ({scene.redact(_why(exc))})"}
    return {"address": probe["socket"], "error": ""}


def _why(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)


OBSERVERS: dict[str, Observer] = {
    "http": _http,
    "http_kept": _http_kept,
    "build_info": _build_info,
    "metric": _metric,
    "metric_kept": _metric,
    "samples": _samples,
    "json_kept": _json_kept,
    "json_each": _json_each,
    "promql": _promql,
    "rule_metrics": _rule_metrics,
    "round_trip": _round_trip,
    "tcp": _tcp,
    "unix": _unix,
}
