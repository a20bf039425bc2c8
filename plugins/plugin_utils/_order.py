# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The order of all steps of a fleet, and its phases: what the solver says, in terms of hosts."""

from __future__ import annotations

import typing as t

from ..module_utils import _version
from . import _solver, _subject, _versions

if t.TYPE_CHECKING:
    from ._market import Market
    from ._planner import Draft

    Data = dict[str, t.Any]


class Ordered(t.NamedTuple):
    """The plans of hosts, and all their steps in an order that keeps the rules."""

    drafts: dict[str, Draft]
    steps: list[_solver.Step]
    findings: list[Data]
    needs: list[_solver.Rule]


def order(drafts: dict[str, Draft], draft: t.Callable[..., Draft], market: Market) -> Ordered:
    """Put the steps of all hosts in order. What no order has a place for is left out, and told.

    :param draft: plans a host anew, with more versions to stop at (C(stops)) or without some components.
    """
    needs = _needs(drafts.values())
    solution = _solver.solve(_parts(drafts, market), needs)
    findings = [
        *(_conflict(conflict, host) for conflict in solution.conflicts for host in _concerned(conflict, drafts)),
        *(_warning(warning, drafts) for warning in solution.warnings),
    ]
    stops, without = _changes(solution)
    anew = {
        host: draft(host, stops=stops.get(each.wish.stack, {}), without=without.get(each.wish.stack, ()))
        for host, each in drafts.items()
        if each.wish.stack in stops or each.wish.stack in without
    }
    drafts = {**drafts, **anew}
    return Ordered(drafts, _as_planned(solution.steps, drafts), findings, needs)


def _as_planned(steps: list[_solver.Step], drafts: dict[str, Draft]) -> list[_solver.Step]:
    """The steps in order, as the hosts' plans write them: 1.9 and 1.9.0 are one to the solver.

    What was cut off is finished whatever the rules say, so it comes first where no order has a place for it.
    """
    written: dict[tuple[str, str, _versions.Version], dict[str, None]] = {}
    for draft in drafts.values():
        for step in draft.steps.values():
            place = (draft.wish.stack, step["component"], _versions.parse(step["to"]))
            written.setdefault(place, {})[step["to"]] = None
    ordered = {(step.stack, step.component, _versions.parse(step.version)): step for step in steps}
    left = {
        place: _solver.Step(place[0], place[1], "", extra=False, because=())
        for place in sorted(written.keys() - ordered.keys())
    }
    return [
        step._replace(version=version)
        for place, step in {**left, **ordered}.items()
        for version in written.get(place, ())
    ]


def _needs(drafts: t.Iterable[Draft]) -> list[_solver.Rule]:
    """The rules of all hosts, each once, but those that the operator accepts to be broken."""
    rules: dict[_solver.Rule, None] = {}
    accepted: set[str] = set()
    for draft in drafts:
        rules.update(dict.fromkeys(draft.wish.needs))
        accepted |= draft.wish.accept
    return [rule for rule in rules if _key(rule) not in accepted]


def _key(rule: _solver.Rule) -> str:
    return f"{rule.component}.needs_{rule.needs}"


def _parts(drafts: dict[str, Draft], market: Market) -> list[_solver.Part]:
    """Each component of each stack: where its hosts are, and through which versions they go."""
    found: dict[tuple[str, str], _solver.Part] = {}
    for host, draft in drafts.items():
        wish = draft.wish
        for name, facts in draft.survey["components"].items():
            if not facts["installed"] or name not in wish.catalog:
                continue
            subject = _subject.of_host(host, name, draft.survey, wish.catalog[name])
            part = found.get((wish.stack, name)) or _part(subject, draft, market)
            part.here[host] = subject.origin if facts["unit"] else facts["version"] or _version.UNKNOWN
            if draft.hops(name):
                part.ways[host] = draft.hops(name)
            found[wish.stack, name] = part
    return list(found.values())


def _part(subject: _subject.Subject, draft: Draft, market: Market) -> _solver.Part:
    wish, name = draft.wish, subject.name
    return _solver.Part(
        stack=wish.stack,
        component=name,
        rank=wish.rank(name),
        here={},
        ways={},
        releases=tuple(_sound(subject, draft, market)),
        depends_on=tuple(subject.entry["depends_on"]),
        wish=wish.versions.get(name, ""),
    )


def _sound(subject: _subject.Subject, draft: Draft, market: Market) -> t.Iterator[str]:
    """The releases that nobody would object to stopping at."""
    rules, entry = draft.wish.policy, subject.entry
    barred = [each["versions"] for each in entry["advisories"] if each["kind"] == "bad"]
    barred += [each["versions"] for each in rules.blacklist if each["component"] == subject.name]
    pin = rules.pins.get(subject.name, "*")
    for release in market.offer(entry).releases:
        version = release["version"]
        is_barred = release["prerelease"] or any(_versions.matches(version, each) for each in barred)
        if not is_barred and _versions.matches(version, pin):
            yield version


def _changes(solution: _solver.Solution) -> tuple[dict[str, dict[str, list[str]]], dict[str, set[str]]]:
    """By stack: versions to stop at beside the stages, and components to leave as they are."""
    stops: dict[str, dict[str, list[str]]] = {}
    without: dict[str, set[str]] = {}
    for step in solution.steps:
        if step.extra:
            stops.setdefault(step.stack, {}).setdefault(step.component, []).append(step.version)
    for conflict in solution.conflicts:
        without.setdefault(conflict.stack, set()).update(conflict.parts)
    return stops, without


def _concerned(conflict: _solver.Conflict, drafts: dict[str, Draft]) -> list[str]:
    """The hosts whose steps are left out for a conflict."""
    return [
        host
        for host, draft in drafts.items()
        if draft.wish.stack == conflict.stack and any(draft.hops(name) for name in conflict.parts)
    ]


def _conflict(conflict: _solver.Conflict, host: str) -> Data:
    key = _key(conflict.rules[0]).partition(".")[2] if conflict.rules else "no_order"
    component = conflict.rules[0].component if conflict.rules else conflict.parts[0]
    return _subject.finding(host, key, "blocker", conflict.message, conflict.change, component=component)


def _warning(found: _solver.Violation, drafts: dict[str, Draft]) -> Data:
    host = next(host for host, draft in drafts.items() if draft.wish.stack == found.stack)
    key = _key(found.rule).partition(".")[2]
    return _subject.finding(host, key, "warning", found.message, found.change, component=found.rule.component)


# -- phases -------------------------------------------------------------------------------------------------------


class _Phase(t.NamedTuple):
    """A run of steps of one phase. ``steps`` are those of the solver, with the hosts that have them."""

    phase: str
    sequence: list[str]
    hosts: dict[str, list[str]]
    because: dict[str, list[str]]
    after: dict[str, list[str]]
    steps: list[_solver.Step]


def phases(drafts: list[Draft], steps: list[_solver.Step], needs: list[_solver.Rule]) -> list[Data]:
    """The steps in order, cut into phases: a phase is a play, and its hosts go through all of it wave by wave."""
    stacks: dict[str, list[Draft]] = {}
    for draft in drafts:
        stacks.setdefault(draft.wish.stack, []).append(draft)
    found: list[_Phase] = []
    done: list[tuple[_solver.Step, list[str]]] = []
    for step in steps:
        having = [draft for draft in stacks.get(step.stack, []) if step.key in draft.steps]
        if not having:
            continue
        hosts, phase = [draft.host for draft in having], having[0].steps[step.key]["phase"]
        follows = [each for each in done if _must_follow(step, each[0], stacks[step.stack], needs)]
        if not found or not _fits(found[-1], step, hosts, phase, follows):
            found.append(_Phase(phase, [], {}, {}, {}, []))
        _add(found[-1], step, hosts, [earlier.key for earlier, _hosts in follows])
        done.append((step, hosts))
    return _named(found, [draft.host for draft in drafts])


def _fits(
    last: _Phase, step: _solver.Step, hosts: list[str], phase: str, follows: list[tuple[_solver.Step, list[str]]]
) -> bool:
    """Whether a step can go into the phase that the last one went into.

    A wave takes some hosts through a whole phase while others have not begun it. So what must come after another step
    on all hosts can't be in one phase with it, unless that is a matter of one host.
    """
    if last.phase != phase or (step.key in last.sequence and step.key != last.sequence[-1]):
        return False
    return not any(earlier in last.steps and len({*hosts, *others}) > 1 for earlier, others in follows)


def _must_follow(step: _solver.Step, earlier: _solver.Step, stack: list[Draft], needs: list[_solver.Rule]) -> bool:
    """Whether a step must not be done while another one isn't done on all hosts."""
    if step.component == earlier.component or step.stack != earlier.stack:
        return False
    entry = next(draft.wish.catalog[step.component] for draft in stack if step.key in draft.steps)
    if earlier.component in entry["depends_on"]:
        return True
    before = {draft.steps[earlier.key]["from"] for draft in stack if earlier.key in draft.steps}
    return any(rule.throughout and _breaks(rule, step, earlier.component, before) for rule in needs)


def _breaks(rule: _solver.Rule, step: _solver.Step, other: str, before: set[str]) -> bool:
    """Whether a rule doesn't hold between a step's version and an older version of another component."""
    if (rule.component, rule.needs) == (step.component, other) and _versions.matches(step.version, rule.when):
        return any(not _versions.matches(version, rule.versions) for version in before)
    if (rule.component, rule.needs) == (other, step.component) and not _versions.matches(step.version, rule.versions):
        return any(_versions.matches(version, rule.when) for version in before)
    return False


def _add(phase: _Phase, step: _solver.Step, hosts: list[str], after: list[str]) -> None:
    if step.key not in phase.sequence:
        phase.sequence.append(step.key)
    for host in hosts:
        phase.hosts.setdefault(host, []).append(step.key)
    for told, more in ((phase.because, step.because), (phase.after, after)):
        told[step.key] = list(dict.fromkeys([*told.get(step.key, []), *more]))
    phase.steps.append(step)


def _named(found: list[_Phase], order: list[str]) -> list[Data]:
    """The phases as a plan has them. One that comes again is numbered; waves go in the order of the inventory."""
    seen: dict[str, int] = {}
    named = []
    for phase in found:
        seen[phase.phase] = seen.get(phase.phase, 0) + 1
        name = phase.phase if seen[phase.phase] == 1 else f"{phase.phase}-{seen[phase.phase]}"
        named.append(
            {
                "name": name,
                "sequence": phase.sequence,
                "hosts": {host: phase.hosts[host] for host in order if host in phase.hosts},
                "because": {key: texts for key, texts in phase.because.items() if texts},
                "after": {key: keys for key, keys in phase.after.items() if keys},
            }
        )
    return named
