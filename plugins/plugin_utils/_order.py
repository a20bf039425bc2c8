# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The order of all steps of a fleet, and its phases: what the solver says, in terms of hosts."""

from __future__ import annotations

import typing as t

from ..module_utils import _version
from ..module_utils._state import name_of
from . import _instances, _solver, _subject, _versions

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
            place = (draft.wish.stack, name_of(step["component"]), _versions.parse(step["to"]))
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
        for key, facts in draft.survey["components"].items():
            name = name_of(key)
            if not facts["installed"] or name not in wish.catalog:
                continue
            subject = _subject.of_host(host, key, draft.survey, wish.entry(key))
            part = found.get((wish.stack, name)) or _part(subject, draft, market)
            place = host if key == name else f"{host} ({key})"  # an instance is to the solver like a host of its own
            part.here[place] = subject.origin if facts["unit"] else facts["version"] or _version.UNKNOWN
            hops = draft.hops(_instances.leader(draft.survey, key))
            if hops:
                part.ways[place] = hops
            found[wish.stack, name] = part
    return list(found.values())


def _part(subject: _subject.Subject, draft: Draft, market: Market) -> _solver.Part:
    wish, name = draft.wish, name_of(subject.name)
    return _solver.Part(
        stack=wish.stack,
        component=name,
        rank=wish.rank(name),
        here={},
        ways={},
        releases=tuple(_sound(subject, draft, market)),
        depends_on=tuple(subject.entry["depends_on"]),
        wish=wish.version(subject.name) or "",
    )


def _sound(subject: _subject.Subject, draft: Draft, market: Market) -> t.Iterator[str]:
    """The releases that nobody would object to stopping at."""
    rules, entry = draft.wish.policy, subject.entry
    barred = [each["versions"] for each in entry["advisories"] if each["kind"] == "bad"]
    barred += [each["versions"] for each in rules.blacklist if each["component"] == name_of(subject.name)]
    pin = rules.pins.get(name_of(subject.name), "*")
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
        if draft.wish.stack == conflict.stack and any(_keys(draft, name) for name in conflict.parts)
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
    stacks: dict[str, dict[str, Draft]] = {}
    for draft in drafts:
        stacks.setdefault(draft.wish.stack, {})[draft.host] = draft
    found: list[_Phase] = []
    done: list[_Done] = []
    for step in steps:
        stack = stacks.get(step.stack, {})
        having = {host: _keys(draft, step.component, step.version) for host, draft in stack.items()}
        hosts = {host: keys for host, keys in having.items() if keys}
        if not hosts:
            continue
        now = _Done(step, hosts)
        host, keys = next(iter(hosts.items()))
        phase = stack[host].steps[keys[0]]["phase"]
        follows = [each for each in done if _must_follow(now, each, stack, needs)]
        if not found or not _fits(found[-1], now, phase, follows):
            found.append(_Phase(phase, [], {}, {}, {}, []))
        _add(found[-1], now, follows)
        done.append(now)
    return _named(found, [draft.host for draft in drafts])


class _Done(t.NamedTuple):
    """A step of the solver, and by host the keys of the steps that it stands for: one for each instance."""

    step: _solver.Step
    hosts: dict[str, list[str]]

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(key for keys in self.hosts.values() for key in keys))


def _keys(draft: Draft, component: str, version: str | None = None) -> list[str]:
    """The keys of a host's steps of a component, of all its instances."""
    return [
        key
        for key, step in draft.steps.items()
        if name_of(step["component"]) == component and version in (None, step["to"])
    ]


def _fits(last: _Phase, now: _Done, phase: str, follows: list[_Done]) -> bool:
    """Whether a step can go into the phase that the last one went into.

    A wave takes some hosts through a whole phase while others have not begun it. So what must come after another step
    on all hosts can't be in one phase with it, unless that is a matter of one host.
    """
    comes_again = any(each.key == now.step.key for each in last.steps) and last.steps[-1].key != now.step.key
    if last.phase != phase or comes_again:
        return False
    return not any(each.step in last.steps and len({*now.hosts, *each.hosts}) > 1 for each in follows)


def _must_follow(now: _Done, earlier: _Done, stack: dict[str, Draft], needs: list[_solver.Rule]) -> bool:
    """Whether a step must not be done while another one isn't done on all hosts."""
    step, other = now.step, earlier.step.component
    if step.component == other or step.stack != earlier.step.stack:
        return False
    entry = stack[next(iter(now.hosts))].wish.catalog[step.component]
    if other in entry["depends_on"]:
        return True
    before = {stack[host].steps[key]["from"] for host, keys in earlier.hosts.items() for key in keys}
    return any(rule.throughout and _breaks(rule, step, other, before) for rule in needs)


def _breaks(rule: _solver.Rule, step: _solver.Step, other: str, before: set[str]) -> bool:
    """Whether a rule doesn't hold between a step's version and an older version of another component."""
    if (rule.component, rule.needs) == (step.component, other) and _versions.matches(step.version, rule.when):
        return any(not _versions.matches(version, rule.versions) for version in before)
    if (rule.component, rule.needs) == (other, step.component) and not _versions.matches(step.version, rule.versions):
        return any(_versions.matches(version, rule.when) for version in before)
    return False


def _add(phase: _Phase, now: _Done, follows: list[_Done]) -> None:
    phase.sequence.extend(key for key in now.keys if key not in phase.sequence)
    for host, keys in now.hosts.items():
        phase.hosts.setdefault(host, []).extend(keys)
    after = [key for each in follows for key in each.keys]
    for key in now.keys:
        for told, more in ((phase.because, now.step.because), (phase.after, after)):
            told[key] = list(dict.fromkeys([*told.get(key, []), *more]))
    phase.steps.append(now.step)


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
