# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What a rehearsal starts, whom it asks, and what its outcome means."""

from __future__ import annotations

import functools
import re
import typing as t

from . import _output
from ._state import is_accepted

if t.TYPE_CHECKING:
    from ._verdicts import Probe

    Data = dict[str, t.Any]

_OTHER_VERSION = "change what it asks for, or wish for another version"
_SHOWN = 10
"""So many missing families are named in a message; the evidence names them all."""


class Seen(t.NamedTuple):
    """What came of a rehearsal.

    ``trouble`` says why there was none: that is no word against the candidate. ``reason`` says what the candidate did
    wrong, if anything. ``ready_after`` is in seconds. ``live`` and ``there`` are the metric families of the service
    that runs and of the candidate; none, where nothing could be compared. ``notes`` are for the operator.
    """

    trouble: str = ""
    reason: str = ""
    ready_after: float | None = None
    verdicts: tuple[Data, ...] = ()
    journal: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    there: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def filled_in(flags: dict[str, str], values: dict[str, str | None]) -> dict[str, str]:
    """The flags with their words filled in. One that wants a word which the host has nothing for is left out.

    :param values: by word: what stands for C({port}), C({data}) and C({config}).
    """
    known = {word: value for word, value in values.items() if value is not None}
    missing = [f"{{{word}}}" for word in values if word not in known]
    found = {}
    for flag, text in flags.items():
        if not any(word in text for word in missing):
            found[flag] = functools.reduce(lambda done, word: done.replace(f"{{{word}}}", known[word]), known, text)
    return found


def command(argv: list[str], binary: str, flags: dict[str, str]) -> list[str]:
    """The arguments of a unit's command line, with some flags replaced or added.

    :param argv: the unit's, which may begin with a wrapper.
    :param binary: the program in it.
    """
    kept, skip = [], False
    arguments = argv[argv.index(binary) + 1 :] if binary in argv else argv[1:]
    for position, word in enumerate(arguments):
        if skip:
            skip = False
            continue
        name, equals, _value = word.partition("=")
        if word.startswith("-") and name.lstrip("-") in flags:
            following = arguments[position + 1 : position + 2]
            skip = not equals and bool(following) and not following[0].startswith("-")
            continue
        kept.append(word)
    end = kept.index("--") if "--" in kept else len(kept)
    return [*kept[:end], *(f"--{name}={value}" for name, value in flags.items()), *kept[end:]]


def url_at(live: str, port: int) -> str:
    """Where the candidate answers: as the service that runs does, but for its address."""
    return re.sub(r"(?:\+unix)?://[^/]*", f"://127.0.0.1:{port}", live, count=1)


def probes_of(target: Data) -> list[Probe]:
    """What the candidate must satisfy: it runs, answers, and tells its version. What else the service proves it proves
    with its own data and neighbours, which the candidate doesn't have."""
    asked = [probe for probe in target.get("probes") or [] if probe.get("kind") in ("http", "build_info")]
    return [{"kind": "systemd"}, {"kind": "process"}, *asked]


def metrics_path(target: Data) -> str:
    """The path at which the service tells its metrics."""
    known = [*(target.get("probes") or []), *(target.get("proofs") or [])]
    kinds = ("build_info", "samples", "metric", "metric_kept")
    return next((probe["path"] for probe in known if probe.get("kind") in kinds and probe.get("path")), "/metrics")


def in_its_own_words(reason: str, journal: list[str]) -> str:
    """Why a candidate isn't fit, with the reason that it gives itself."""
    said = [line for line in journal if not line.startswith("systemd: ")]
    text = "\n".join(line.partition(": ")[2] for line in said)
    return f"{reason}; its own word: {_output.reason(text)}" if reason and said else reason


def findings(component: str, version: str, seen: Seen, *, least: int, accept: t.Collection[str]) -> list[Data]:
    """What speaks against the candidate. A blocker whose key is accepted is a warning.

    :param least: percent of the live service's metric families that the candidate must have.
    """
    subject = f"{component} {version}"
    found = [
        _finding(component, "rehearsal_note", "info", f"{subject}: {note}", fix="nothing needs to be done")
        for note in seen.notes
    ]
    if seen.trouble:
        fix = "nothing, if the other checks are enough; otherwise set this up on the host and run again"
        found.append(
            _finding(component, "rehearsal_left_out", "warning", f"{subject} isn't rehearsed: {seen.trouble}", fix=fix)
        )
    elif seen.reason:
        message = f"{subject} was started beside the service, and isn't fit: {seen.reason}"
        found.append(_finding(component, "rehearsal_failed", "blocker", message, evidence=list(seen.journal)))
    else:
        found.extend(_families(component, subject, seen, least))
    return [_as_accepted(each, accept) for each in found]


def _families(component: str, subject: str, seen: Seen, least: int) -> t.Iterator[Data]:
    """That families of the live service are missing; those that came are nobody's loss."""
    missing = sorted(set(seen.live) - set(seen.there))
    if not missing:
        return
    here = len(seen.live) - len(missing)
    percent = 100 * here // len(seen.live)
    names = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
    message = (
        f"{subject} serves {here} of the {len(seen.live)} metric families that the service serves now ({percent} %, "
        f"wanted: {least} %); missing: {names}"
    )
    fix = "see that nobody needs the missing ones"
    severity = "blocker" if percent < least else "info"
    yield _finding(component, "rehearsal_families", severity, message, evidence=missing, fix=fix)


def _finding(
    component: str, what: str, severity: str, message: str, *, evidence: t.Sequence[str] = (), fix: str = _OTHER_VERSION
) -> Data:
    key = f"{component}.{what}"
    return {
        "key": key,
        "severity": severity,
        "component": component,
        "message": message,
        "evidence": list(evidence),
        "fix": fix,
    }


def _as_accepted(finding: Data, accept: t.Collection[str]) -> Data:
    known = finding["severity"] == "blocker" and is_accepted(finding["key"], finding["component"], accept)
    return {**finding, "severity": "warning"} if known else finding


def in_words(blockers: t.Iterable[Data]) -> str:
    """In one line what speaks against a candidate, what to do, and how to go on all the same."""
    return "; ".join(
        f"{each['message']}. What to do: {each['fix']}. To go on all the same: accept {each['key']}"
        for each in blockers
    )


def summary(component: str, version: str, seen: Seen) -> str:
    """What was seen, in one line."""
    if seen.trouble:
        return f"{component} {version} isn't rehearsed: {seen.trouble}"
    if seen.reason:
        return f"{component} {version}: {seen.reason}"
    text = f"{component} {version} answered as it must after {seen.ready_after or 0:g} s"
    if not seen.live:
        return text
    both = len(set(seen.live) & set(seen.there))
    return f"{text}, with {both} of the {len(seen.live)} metric families of the service"
