# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The order of the steps of whole stacks, such that what must hold holds at every moment.

Each component of a stack has a I(chain): the versions that its hosts go through, ascending. One step takes a component
one place further in its chain, on all hosts that have to be there. So the state of a stack is how far each chain is,
and an order of steps is a way through a grid from all beginnings to all ends.

A rule, like a dependency, is about two chains only: it bars cells of the grid of these two. A rule that held once must
hold from then on. One that is broken before anything is done may stay so for a while, but must hold at the end if one
of its components moves.

To look at the cells alone, before and after each step, is enough. While a step is under way, each host has the
component either as before or as after it, and nothing else moves. A rule is about pairs of versions, of which the other
component's is the same before and after: a pair that occurs meanwhile occurs before or after, too.
"""

from __future__ import annotations

import bisect
import collections
import difflib
import functools
import heapq
import itertools
import typing as t

from ..module_utils._errors import InputError
from . import _versions

_MOST_STATES = 50_000
_MOST_CHANGES = 1_000
_MOST_STOPS = 3
_MOST_TRIES = 60
"""How far one search goes: states of a stack, sets of changes to it, versions added to it, and sets of these."""

UNKNOWN = "unknown"


class Rule(t.NamedTuple):
    """A component in one range of versions needs another one in another range.

    ``throughout``: at every moment on the way; else only at the end. ``source``: where the rule is written.
    A component that a stack doesn't have is no obstacle. A version that isn't known neither triggers a rule nor is what
    a rule needs.
    """

    component: str
    when: str
    needs: str
    versions: str
    throughout: bool = True
    reason: str = ""
    source: str = ""

    @property
    def text(self) -> str:
        return _line(f"{self.component} {self.when} needs {self.needs} {self.versions}")


class Part(t.NamedTuple):
    """One component of one stack.

    ``rank``: lower goes first, if nothing speaks against it. ``here``: the version installed on each host that has it;
    what is no version is taken as not known. ``ways``: the versions that a host passes through, ascending, the target
    last; a host with nothing to do isn't in it. ``releases``: what may be stopped at, or suggested. ``depends_on``:
    components of the same stack all steps of which come before this one's. ``wish``: how the target was wished.
    """

    stack: str
    component: str
    rank: tuple[t.Any, ...]
    here: dict[str, str]
    ways: dict[str, list[str]]
    releases: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    wish: str = ""


class Step(t.NamedTuple):
    """All hosts of a stack that have to be at a version of a component go there.

    ``extra``: nobody asked for it, the rules do; hosts below it that go beyond it stop there. ``because``: before and
    after which other steps it must come, and why.
    """

    stack: str
    component: str
    version: str
    extra: bool
    because: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.component}@{self.version}"


class Conflict(t.NamedTuple):
    """Why there is no order for all that was wished.

    ``rules`` can't hold together, but any fewer of them could. ``change``: the smallest that would make an order exist.
    ``parts``: components whose steps are left out of the solution because of this.
    """

    stack: str
    rules: tuple[Rule, ...]
    message: str
    change: str
    parts: tuple[str, ...]


class Violation(t.NamedTuple):
    """A rule that is broken before anything is done. ``lasts``: the solution doesn't change that.

    ``change``: what to wish for; empty if no release is known that would help.
    """

    stack: str
    rule: Rule
    message: str
    change: str
    lasts: bool


class Solution(t.NamedTuple):
    """Steps that are valid by themselves, what was left out of them, and what was wrong before."""

    steps: list[Step]
    conflicts: list[Conflict]
    warnings: list[Violation]


# -- what the operator wrote ----------------------------------------------------------------------------------------


def check(rules: t.Iterable[Rule], depends_on: t.Mapping[str, t.Sequence[str]], known: t.Collection[str]) -> None:
    """See that rules and dependencies can be meant.

    :raises InputError: naming the rule or the dependency: an unknown component, no range, a rule of a component about
        itself, or dependencies in a circle.
    """
    for rule in rules:
        where = f"{rule.source or 'upgrade_rules'}: {rule.text}"
        for name in (rule.component, rule.needs):
            _check_known(name, known, where)
        for wanted in (rule.when, rule.versions):
            if not _versions.is_range(wanted):
                raise InputError(
                    _line(f"{where}: {wanted!r} is not a range of versions; write one like '>=2.55,<3' or '2.9.x'"),
                    key="input.not_a_version",
                )
        if rule.component == rule.needs:
            raise InputError(
                _line(f"{where}: a rule is about two components; versions to stop at go into the component's stages"),
                key="input.rule",
            )
    for name, before in depends_on.items():
        for other in before:
            _check_known(other, known, f"depends_on of {name}")
    _check_circles(depends_on)


def _check_known(name: str, known: t.Collection[str], where: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"
    raise InputError(_line(f"{where}: no component {name!r} is known; {hint}"), key="input.unknown_component")


def _check_circles(depends_on: t.Mapping[str, t.Sequence[str]]) -> None:
    done: set[str] = set()
    for first in sorted(depends_on):
        trail = [(first, iter(sorted(depends_on[first])))]
        while trail:
            name, others = trail[-1]
            following = next((other for other in others if other not in done), None)
            if following is None:
                done.add(name)
                trail.pop()
                continue
            names = [name for name, others in trail]
            if following in names:
                circle = " -> ".join([*names[names.index(following) :], following])
                raise InputError(
                    _line(f"depends_on: {circle} is a cycle: none of them can come first; take one of these out"),
                    key="input.cycle",
                )
            trail.append((following, iter(sorted(depends_on.get(following, ())))))


def _line(text: str) -> str:
    return " ".join(text.split())


# -- chains ---------------------------------------------------------------------------------------------------------


class _Course(t.NamedTuple):
    """What hosts have in common: the version here, and the way. An empty C(here) is a host without the component."""

    here: str
    way: tuple[str, ...]

    @property
    def place(self) -> _versions.Version | None:
        return _place(self.here)


class _Chain:
    """The versions that one component goes through, and which are present in the stack after each of them."""

    def __init__(self, courses: frozenset[_Course]) -> None:
        self.courses = courses
        texts = {_parse(version): version for course in sorted(courses) for version in course.way}
        self.places = sorted(texts)
        self.versions = tuple(texts[place] for place in self.places)
        self.end = len(self.versions)
        present: list[set[str]] = [set() for _position in range(self.end + 1)]
        for course in courses:
            self._fill(present, course)
        self.present = [frozenset(versions - {""}) for versions in present]
        self._has: dict[str, tuple[bool, ...]] = {}
        self._lacks: dict[str, tuple[bool, ...]] = {}

    def _fill(self, present: list[set[str]], course: _Course) -> None:
        position = 0
        for version, upcoming in zip((course.here, *course.way), (*course.way, None)):
            last = self.end + 1 if upcoming is None else bisect.bisect_left(self.places, _parse(upcoming)) + 1
            for held in present[position:last]:
                held.add(version)
            position = last

    def has(self, wanted: str) -> tuple[bool, ...]:
        """At each place, whether any version is in a range."""
        if wanted not in self._has:
            self._has[wanted] = tuple(any(_within(version, wanted) for version in some) for some in self.present)
        return self._has[wanted]

    def lacks(self, wanted: str) -> tuple[bool, ...]:
        """At each place, whether any version isn't in a range."""
        if wanted not in self._lacks:
            self._lacks[wanted] = tuple(not all(_within(version, wanted) for version in some) for some in self.present)
        return self._lacks[wanted]

    def left_out(self) -> _Chain:
        """Without its steps."""
        return _Chain(frozenset(_Course(course.here, ()) for course in self.courses if course.here))

    def stopping_at(self, version: str) -> _Chain:
        """With a version that is on the way of some hosts."""
        place = _parse(version)
        return _Chain(
            frozenset(
                course._replace(way=tuple(sorted((*course.way, version), key=_versions.parse)))
                if _passes(course, place)
                else course
                for course in self.courses
            )
        )

    def to(self, version: str) -> _Chain:
        """With another target: hosts below it go there, by the stops that they had; no others go anywhere."""
        target = _parse(version)
        return _Chain(frozenset(_course_to(course, version, target) for course in self.courses if course.here))


def _passes(course: _Course, place: _versions.Version) -> bool:
    """Whether hosts come by a version that they don't stop at yet."""
    here = course.place
    if here is None or not course.way:
        return False
    stops = [_parse(version) for version in course.way]
    return here < place < stops[-1] and place not in stops


def _course_to(course: _Course, version: str, target: _versions.Version) -> _Course:
    here = course.place
    if here is None or here >= target:
        return course._replace(way=())
    stops = (stop for stop in course.way[:-1] if here < _parse(stop) < target)
    return course._replace(way=(*stops, version))


@functools.lru_cache(maxsize=16384)
def _parse(version: str) -> _versions.Version:
    return _versions.parse(version)


@functools.lru_cache(maxsize=16384)
def _place(version: str) -> _versions.Version | None:
    return _versions.parse(version) if _versions.is_version(version) else None


def _within(version: str, wanted: str) -> bool:
    return version != UNKNOWN and _matches(str.__str__(version), str.__str__(wanted))


@functools.lru_cache(maxsize=16384)
def _matches(version: str, wanted: str) -> bool:
    return _versions.matches(version, wanted)


def _courses(part: Part) -> frozenset[_Course]:
    """A part's courses. Hosts that are alike count once, so a thousand of them cost no more than one.

    :raises InputError: if a way isn't one.
    """
    courses: dict[_Course, str] = {}
    for host in {**part.here, **part.ways}:
        here = str.__str__(part.here[host]) or UNKNOWN if host in part.here else ""
        courses.setdefault(_Course(here, tuple(map(str.__str__, part.ways.get(host, ())))), host)
    for course, host in courses.items():
        if not _ascends(course.way):
            raise InputError(
                _line(f"{part.component} on {host}: the versions {', '.join(course.way)} aren't in ascending order"),
                key="input.way",
            )
    return frozenset(
        course if not course.here or course.place else course._replace(here=UNKNOWN)
        for course in courses
        if course.here or course.way
    )


@functools.lru_cache(maxsize=1024)
def _ascends(way: tuple[str, ...]) -> bool:
    places = [_parse(version) for version in way]
    return places == sorted(set(places))


# -- what bars a step -----------------------------------------------------------------------------------------------


_Bars = tuple[tuple[bool, ...], tuple[bool, ...], bool]
"""Two chains' places that can't be together; and whether that is so throughout, or at the end only."""


class _Limit(t.NamedTuple):
    """Broken where the one chain ``asks`` and the other ``lacks``."""

    one: str
    other: str
    asks: tuple[bool, ...]
    lacks: tuple[bool, ...]
    throughout: bool
    text: str

    def holds(self, here: int, there: int) -> bool:
        return not (self.asks[here] and self.lacks[there])

    def as_seen_from(self, name: str) -> t.Callable[[int, int], bool]:
        """Whether it holds, the place of the named chain first."""
        return self.holds if name == self.one else lambda place, place_of_one: self.holds(place_of_one, place)

    def bars(self, name: str) -> _Bars:
        """All that matters of it to the two chains, the named one first."""
        first, second = (self.asks, self.lacks) if name == self.one else (self.lacks, self.asks)
        return first, second, self.throughout


class _Case(t.NamedTuple):
    """What is to be ordered: chains by component, lowest rank first; rules; and pairs whose second goes first."""

    chains: dict[str, _Chain]
    rules: tuple[Rule, ...]
    after: tuple[tuple[str, str], ...]

    def changed(self, chains: t.Mapping[str, _Chain]) -> _Case:
        return self._replace(chains={**self.chains, **chains})

    def without(self, names: t.Iterable[str]) -> _Case:
        return self.changed({name: self.chains[name].left_out() for name in names})

    def ranges(self, name: str) -> tuple[str, ...]:
        """All ranges that a rule has for a component."""
        whens = {rule.when for rule in self.rules if rule.component == name}
        return tuple(sorted(whens | {rule.versions for rule in self.rules if rule.needs == name}))

    def limits(self) -> list[_Limit]:
        """Those that can be broken at all."""
        return [limit for limit in self._all_limits() if any(limit.asks) and any(limit.lacks)]

    def _all_limits(self) -> t.Iterator[_Limit]:
        for rule in self.rules:
            one, other = self.chains[rule.component], self.chains[rule.needs]
            asks, lacks = one.has(rule.when), other.lacks(rule.versions)
            yield _Limit(rule.component, rule.needs, asks, lacks, rule.throughout, rule.text)
        for later, earlier in self.after:
            asks = tuple(place > 0 for place in range(self.chains[later].end + 1))
            end = self.chains[earlier].end
            lacks = tuple(place < end for place in range(end + 1))
            yield _Limit(later, earlier, asks, lacks, True, f"{later} depends on {earlier}")

    def fails_at_end(self, rule: Rule) -> bool:
        """Whether no order can help a rule."""
        one, other = self.chains[rule.component], self.chains[rule.needs]
        broken = one.has(rule.when)[-1] and other.lacks(rule.versions)[-1]
        return broken and bool(one.end or other.end)


_Table = list[list[bool]]


class _Side(t.NamedTuple):
    """What another chain says to the next step of this one, by this one's place and the other's.

    ``may``: the step breaks nothing, and the end can still be reached as far as these two go. ``harmless``: to do it
    now is as good as at any later time, as all that the other one may do before it, it may do after it.
    """

    other: int
    may: _Table
    harmless: _Table


@functools.lru_cache(maxsize=4096)
def _sides(ends: tuple[int, int], bars: tuple[_Bars, ...]) -> tuple[bool, _Table, _Table, _Table, _Table]:
    """Whether there is a way for two chains by themselves; and the tables of both, each with its own place first."""
    last, other_last = ends
    rows, columns = range(last + 1), range(other_last + 1)
    enforced = [(first, second) for first, second, throughout in bars if throughout]
    fails = ends != (0, 0) and any(first[-1] and second[-1] for first, second, throughout in bars)

    def keeps(before: tuple[int, int], after: tuple[int, int]) -> bool:
        return not any(
            first[after[0]] and second[after[1]] and not (first[before[0]] and second[before[1]])
            for first, second in enforced
        )

    alive = [[False for there in columns] for here in rows]
    may = [[False for there in columns] for here in rows]
    may_other = [[False for here in rows] for there in columns]
    for place in itertools.product(reversed(rows), reversed(columns)):
        here, there = place
        if here < last and alive[here + 1][there]:
            may[here][there] = keeps(place, (here + 1, there))
        if there < other_last and alive[here][there + 1]:
            may_other[there][here] = keeps(place, (here, there + 1))
        alive[here][there] = may[here][there] or may_other[there][here] or (place == ends and not fails)
    return alive[0][0], may, may_other, _harmless(may, may_other), _harmless(may_other, may)


def _harmless(may: _Table, against: _Table) -> _Table:
    """Where a step can be moved to the front of any order: each step that the other one may take before, it may take
    after. ``free`` tells it for all that the other one may do from its place on."""
    rows, columns = range(len(may)), range(len(may[0]))
    found = [[False for there in columns] for here in rows]
    for here in rows[:-1]:
        free = True
        for there in reversed(columns):
            free = not against[there][here] or (against[there][here + 1] and free)
            found[here][there] = may[here][there] and free
    return found


# -- the search -----------------------------------------------------------------------------------------------------

_State = tuple[int, ...]


class _Orders:
    """All orders of a case's steps."""

    def __init__(self, case: _Case) -> None:
        names = list(case.chains)
        self._ends: _State = tuple(chain.end for chain in case.chains.values())
        self._sides: list[list[_Side]] = [[] for _name in names]
        self._dead: set[_State] = set()
        self._good: set[_State] = {self._ends}
        between: dict[tuple[int, int], list[_Limit]] = {}
        for limit in case.limits():
            one, other = sorted((names.index(limit.one), names.index(limit.other)))
            between.setdefault((one, other), []).append(limit)
        for (one, other), limits in between.items():
            ends = (self._ends[one], self._ends[other])
            bars = tuple(limit.bars(names[one]) for limit in limits)
            alive, may, may_other, harmless, harmless_other = _sides(ends, bars)
            self._sides[one].append(_Side(other, may, harmless))
            self._sides[other].append(_Side(one, may_other, harmless_other))
            if not alive:
                self._good.clear()
                self._dead.add((0,) * len(names))
                return

    @property
    def exists(self) -> bool:
        return self._leads_to_the_end((0,) * len(self._ends))

    def first(self) -> list[int]:
        """The one that takes at each place the step of lowest rank that it may: which chain moves, step by step."""
        state, order = (0,) * len(self._ends), []
        while state != self._ends:
            moves = [move for move in range(len(state)) if self._may(state, move)]
            move = next(move for move in moves if self._is_harmless(state, move) or self._is_good(state, move))
            state = _after(state, move)
            order.append(move)
        return order

    def _may(self, state: _State, move: int) -> bool:
        place = state[move]
        return place < self._ends[move] and all(side.may[place][state[side.other]] for side in self._sides[move])

    def _is_harmless(self, state: _State, move: int) -> bool:
        place = state[move]
        return place < self._ends[move] and all(side.harmless[place][state[side.other]] for side in self._sides[move])

    def _is_good(self, state: _State, move: int) -> bool:
        return self._leads_to_the_end(_after(state, move))

    def _leads_to_the_end(self, state: _State) -> bool:
        """Depth first, without a second look at a state that leads nowhere.

        :raises InputError: if there are too many.
        """
        trail = [(state, self._following(state))]
        while trail:
            state, following = trail[-1]
            if state in self._good:
                self._good.update(state for state, following in trail)
                return True
            upcoming = next((after for after in following if after not in self._dead), None)
            if upcoming is None or state in self._dead:
                self._dead.add(state)
                trail.pop()
            else:
                trail.append((upcoming, self._following(upcoming)))
            if len(self._dead) > _MOST_STATES:
                raise InputError(
                    f"the rules leave too many orders to try: none was found in {_MOST_STATES} states of a stack; "
                    "narrow the run with upgrade_only, or let rules hold at the end only (hold: at_end)",
                    key="input.too_many_orders",
                )
        return False

    def _following(self, state: _State) -> t.Iterator[_State]:
        """States to go on with. Steps that are harmless are just done: no order is lost by that."""
        settled = self._settled(state)
        if settled != state:
            return iter([settled])
        return (_after(state, move) for move in range(len(state)) if self._may(state, move))

    def _settled(self, state: _State) -> _State:
        before = None
        while state != before:
            before = state
            for move in range(len(state)):
                while self._is_harmless(state, move):
                    state = _after(state, move)
        return state


def _after(state: _State, move: int) -> _State:
    return (*state[:move], state[move] + 1, *state[move + 1 :])


# -- changes to what was wished -------------------------------------------------------------------------------------


class _Change(t.NamedTuple):
    """Components left out, and stops added."""

    left: frozenset[str] = frozenset()
    stops: frozenset[tuple[str, str]] = frozenset()

    def of(self, case: _Case) -> _Case:
        chains = {name: case.chains[name].left_out() for name in self.left}
        for name, version in sorted(self.stops):
            chains[name] = chains.get(name, case.chains[name]).stopping_at(version)
        return case.changed(chains)

    @property
    def size(self) -> tuple[int, int]:
        return len(self.left), len(self.stops)


class _Blame(t.NamedTuple):
    """Rules that have no order together with all dependencies, though any fewer have; the dependencies that this takes;
    and the components that all these are about."""

    rules: tuple[Rule, ...]
    after: tuple[tuple[str, str], ...]
    names: tuple[str, ...]


_Releases = t.Mapping[str, tuple[str, ...]]


def _smallest_change(case: _Case, releases: _Releases, *, may_leave_out: bool) -> _Change | None:
    """What has to be changed so that there is an order: the fewest left out, then the fewest stops added.

    A case without an order is to blame on some rules; only what changes one of their components can help. So from each
    such case the search goes on with the changes to these components only, and misses none.
    """
    first = _with_forced(case, _Change()) if may_leave_out else _Change()
    queue, numbers, tries = [(first.size, 0, first)], itertools.count(1), collections.Counter[frozenset[str]]()
    stops = {name: _stops(chain.courses, releases[name], case.ranges(name)) for name, chain in case.chains.items()}
    seen = {first}
    while queue and len(seen) < _MOST_CHANGES:
        change = heapq.heappop(queue)[2]
        tries[change.left] += 1
        if change.stops and tries[change.left] > _MOST_TRIES:
            continue
        now = change.of(case)
        if _Orders(now).exists:
            return change
        if not may_leave_out and not any(stops.values()):
            break
        blame = _blame(now, _has_order_as_it_is)
        moving = [name for name in reversed(blame.names) if now.chains[name].end]
        further = [_with_forced(case, change._replace(left=change.left | {name})) for name in moving if may_leave_out]
        if len(change.stops) < _MOST_STOPS and not any(now.fails_at_end(rule) for rule in blame.rules):
            added = [(name, version) for name in reversed(moving) for version in stops[name]]
            further += [change._replace(stops=change.stops | {stop}) for stop in added]
        for upcoming in dict.fromkeys(further):
            if upcoming not in seen:
                seen.add(upcoming)
                heapq.heappush(queue, (upcoming.size, next(numbers), upcoming))
    return _Change(frozenset(name for name, chain in case.chains.items() if chain.end)) if may_leave_out else None


def _with_forced(case: _Case, change: _Change) -> _Change:
    """Leave out, too, what can't end well any more: a rule fails at the end, and one of its components stays anyway."""
    now, left = case.without(change.left), set(change.left)
    while True:
        forced = {
            name
            for rule in now.rules
            if now.fails_at_end(rule)
            for name, other in ((rule.component, rule.needs), (rule.needs, rule.component))
            if not now.chains[other].end
        }
        if not forced:
            return _Change(frozenset(left), frozenset(stop for stop in change.stops if stop[0] not in left))
        left |= forced
        now = now.without(forced)


def _has_order_as_it_is(case: _Case) -> bool:
    return _Orders(case).exists


def _has_order(case: _Case, releases: _Releases) -> bool:
    """Whether there is an order, with stops added if need be."""
    return _smallest_change(case, releases, may_leave_out=False) is not None


def _blame(case: _Case, has_order: t.Callable[[_Case], bool]) -> _Blame:
    """What a case without an order is to blame on, by leaving out one thing after the other.

    Most often a rule fails at the end, which no order changes; or two components are enough.
    """
    rules = next(((rule,) for rule in case.rules if case.fails_at_end(rule)), ())
    if rules:
        case = case._replace(rules=rules, after=())
    else:
        two = next((pair for pair in _pairs(case) if not has_order(pair)), case)
        case = case._replace(rules=two.rules)
        for rule in case.rules:  # with all dependencies, for those can't be let go
            fewer = case._replace(rules=tuple(other for other in case.rules if other != rule))
            case = case if has_order(fewer) else fewer
        fewer = case._replace(after=two.after)
        case = case if has_order(fewer) else fewer
        for pair in case.after:
            fewer = case._replace(after=tuple(other for other in case.after if other != pair))
            case = case if has_order(fewer) else fewer
    names = {name for rule in case.rules for name in (rule.component, rule.needs)}
    names |= {name for pair in case.after for name in pair}
    return _Blame(case.rules, case.after, tuple(name for name in case.chains if name in names))


def _blame_in_spite_of_stops(case: _Case, releases: _Releases) -> _Blame:
    """The same for a case that has no order with stops added either; most often they wouldn't have helped."""
    blame = _blame(case, _has_order_as_it_is)
    if not _has_order(case._replace(rules=blame.rules, after=blame.after), releases):
        return blame
    return _blame(case, lambda fewer: _has_order(fewer, releases))


def _pairs(case: _Case) -> t.Iterator[_Case]:
    """A case for each two components that rules are about."""
    for one, other in dict.fromkeys(tuple(sorted((rule.component, rule.needs))) for rule in case.rules):
        rules = tuple(rule for rule in case.rules if {rule.component, rule.needs} == {one, other})
        yield case._replace(rules=rules, after=tuple(pair for pair in case.after if set(pair) == {one, other}))


@functools.lru_cache(maxsize=1024)
def _stops(courses: frozenset[_Course], releases: tuple[str, ...], ranges: tuple[str, ...]) -> tuple[str, ...]:
    """Versions that some hosts could stop at: of neighbours that all rules treat alike, the newest.

    Not those that are to all rules what each of these hosts has before: to stop there would change nothing.
    """
    marks = sorted({_parse(version) for course in courses for version in course.way} | _places(courses))
    passed = [text for text in releases if any(_passes(course, _parse(text)) for course in courses)]
    stops = _newest_of_runs(passed, lambda text: (bisect.bisect_left(marks, _parse(text)), *_alike(text, ranges)))
    return tuple(text for text in stops if not _changes_nothing(courses, text, ranges))


def _places(courses: frozenset[_Course]) -> set[_versions.Version]:
    return {course.place for course in courses if course.place}


def _changes_nothing(courses: frozenset[_Course], version: str, ranges: tuple[str, ...]) -> bool:
    place, alike = _parse(version), _alike(version, ranges)
    return all(
        _alike([text for text in (course.here, *course.way) if _parse(text) < place][-1], ranges) == alike
        for course in courses
        if _passes(course, place)
    )


def _alike(version: str, ranges: tuple[str, ...]) -> tuple[bool, ...]:
    return tuple(_within(version, wanted) for wanted in ranges)


def _newest_of_runs(ascending: t.Sequence[str], key: t.Callable[[str], t.Hashable]) -> list[str]:
    """Of neighbours with the same key the last; newest first."""
    return [list(run)[-1] for _key, run in itertools.groupby(ascending, key)][::-1]


# -- one group of components that have to do with each other --------------------------------------------------------


class _Found(t.NamedTuple):
    """A conflict, whatever the stack and its hosts are called. ``left``: what was left out before it was found."""

    blame: _Blame
    left: frozenset[str]
    parts: tuple[str, ...]
    change: str


class _Move(t.NamedTuple):
    """A step, whatever the stack is called."""

    component: str
    version: str
    extra: bool
    because: tuple[str, ...]


class _Settled(t.NamedTuple):
    """What became of a group. ``wished`` is the case as it was asked for, ``case`` as it can be done."""

    wished: _Case
    case: _Case
    moves: list[_Move]
    found: list[_Found]


class _Group(t.NamedTuple):
    """Components of a stack that rules and dependencies connect, and all that decides about their order.

    Most stacks of a fleet are alike: what is found for one group holds for all that are equal to it.
    """

    names: tuple[str, ...]
    courses: tuple[frozenset[_Course], ...]
    releases: tuple[tuple[str, ...], ...]
    wishes: tuple[str, ...]
    rules: tuple[Rule, ...]
    after: tuple[tuple[str, str], ...]


def _settle(group: _Group) -> _Settled:
    chains = {name: _Chain(courses) for name, courses in zip(group.names, group.courses)}
    case = _Case(chains, group.rules, group.after)
    _check_circles({name: [second for first, second in group.after if first == name] for name in group.names})
    releases = {name: _ascending(known) for name, known in zip(group.names, group.releases)}
    change = _smallest_change(case, releases, may_leave_out=True) or _Change()
    found: list[_Found] = []
    if change.left:
        found = list(_conflicts(case, releases, dict(zip(group.names, group.wishes)), change.left))
        rest = case.without({name for conflict in found for name in conflict.parts})
        change = _smallest_change(rest, releases, may_leave_out=False) or _Change()
        final = change.of(rest)
    else:
        final = change.of(case)
    return _Settled(case, final, list(_moves(final, change)), found)


def _conflicts(
    case: _Case, releases: _Releases, wishes: t.Mapping[str, str], left: frozenset[str]
) -> t.Iterator[_Found]:
    """What is left out, by why it is."""
    reasons: list[tuple[_Blame, frozenset[str], set[str]]] = []
    before: frozenset[str] = frozenset()
    while not _has_order(case.without(before), releases):
        blame = _blame_in_spite_of_stops(case.without(before), releases)
        due = (left - before).intersection(blame.names) or left - before
        cause = next((parts for _blame, _before, parts in reasons if parts.intersection(blame.names)), None)
        if cause is None or not _has_order(case._replace(rules=blame.rules, after=blame.after), releases):
            reasons.append((blame, before, set(due)))
        else:
            cause |= due  # nothing is wrong with these but that others are left out
        before |= due
    for blame, earlier, parts in reasons:
        rest, names = case.without(left - parts), tuple(name for name in case.chains if name in parts)
        changes = _changes(rest, releases, wishes, blame, left - parts)
        fits = (change for change, changed in changes if _has_order(changed, releases))
        yield _Found(blame, earlier, names, next(fits, f"leave out {_listed(names)}"))


def _changes(
    case: _Case, releases: _Releases, wishes: t.Mapping[str, str], blame: _Blame, gone: frozenset[str]
) -> t.Iterator[tuple[str, _Case]]:
    """Single changes that an operator can write, and what they would make of the case; the best first."""
    targets = [
        (name, version, case.chains[name].to(version))
        for name in blame.names
        if name not in gone
        for version in _newest_of_runs(releases[name], functools.partial(_alike, ranges=case.ranges(name)))
    ]
    for name, version, chain in sorted(targets, key=lambda target: _effort(case.chains[target[0]], target[1])):
        if chain.end and chain.courses != case.chains[name].courses:
            yield _wish(name, version, wishes[name]), case.changed({name: chain})
    for rule in blame.rules:
        if rule.throughout:
            rules = tuple(other._replace(throughout=False) if other == rule else other for other in case.rules)
            yield f"let '{rule.text}' hold at the end only: hold: at_end", case._replace(rules=rules)


def _effort(chain: _Chain, version: str) -> int:
    """What isn't in the plan comes in before a target is changed; and a target goes up before it goes down."""
    if not chain.end:
        return 0
    return 1 if _parse(version) > chain.places[-1] else 2


def _wish(name: str, version: str, wish: str) -> str:
    written = f"upgrade_versions: {{{name}: '{version}'}}"
    if not wish:
        return f"wish for {name} too: {written}"
    return _line(f"wish for {name} {version} instead of {wish}: {written}")


@functools.lru_cache(maxsize=1024)
def _ascending(releases: tuple[str, ...]) -> tuple[str, ...]:
    """Each release once. What is no version is nothing to go to."""
    places = {_parse(text): str.__str__(text) for text in sorted(releases) if _versions.is_version(text)}
    return tuple(places[place] for place in sorted(places))


def _moves(case: _Case, change: _Change) -> t.Iterator[_Move]:
    """The steps of a case that was changed. A stop that was added may be one that other hosts make anyway."""
    added = {(name, _parse(version)) for name, version in change.stops}
    names, places = list(case.chains), dict.fromkeys(case.chains, 0)
    limits = [limit for limit in case.limits() if limit.throughout]
    for position in _Orders(case).first():
        name = names[position]
        chain, place = case.chains[name], places[name]
        extra = (name, chain.places[place]) in added
        because = tuple(dict.fromkeys(_reasons(name, places, limits, case)))
        yield _Move(name, chain.versions[place], extra, because)
        places[name] += 1


def _reasons(name: str, places: t.Mapping[str, int], limits: list[_Limit], case: _Case) -> t.Iterator[str]:
    """The last step that the next one of a component has to come after, and the first that it has to come before."""
    for limit in limits:
        if name not in (limit.one, limit.other):
            continue
        other = limit.other if name == limit.one else limit.one
        holds, place, there = limit.as_seen_from(name), places[name], places[other]
        for earlier in reversed(range(there)):
            if holds(place, earlier) and not holds(place + 1, earlier):
                yield f"after {other} {case.chains[other].versions[earlier]}: {limit.text}"
                break
        for later in range(there, case.chains[other].end):
            if holds(place, later) and not holds(place, later + 1):
                yield f"before {other} {case.chains[other].versions[later]}: {limit.text}"
                break


# -- the whole fleet ------------------------------------------------------------------------------------------------


def solve(parts: list[Part], rules: list[Rule]) -> Solution:
    """The order of all steps of all stacks: no more steps than needed, and of these the lowest rank first.

    Steps of the same component and version in several stacks come next to each other where the rules let them.

    :raises InputError: if rules, dependencies or ways aren't what they must be, or the rules leave too many orders.
    """
    names = {name for part in parts for name in (part.component, *part.depends_on)}
    check(rules, {}, names | {name for rule in rules for name in (rule.component, rule.needs)})
    known: dict[_Group, _Settled] = {}
    sequences: list[list[tuple[_Key, Step]]] = []
    conflicts: list[Conflict] = []
    warnings: list[Violation] = []
    for members in _groups(parts, rules):
        group = _group(members, rules)
        if group not in known:
            known[group] = _settle(group)
        settled = known[group]
        conflicts += [_conflict(found, members) for found in settled.found]
        warnings += _violations(settled, members)
        sequences.append([_placed(move, members[move.component]) for move in settled.moves])
    return Solution(_merged(sequences), conflicts, warnings)


def _groups(parts: list[Part], rules: list[Rule]) -> t.Iterator[dict[str, Part]]:
    """The parts of each stack that have to do with each other, lowest rank first."""
    stacks: dict[str, dict[str, Part]] = {}
    for part in sorted(parts, key=lambda part: (part.stack, part.rank, part.component)):
        stack = stacks.setdefault(part.stack, {})
        if part.component in stack:
            raise InputError(_line(f"the stack {part.stack} has {part.component} twice"), key="input.twice")
        stack[part.component] = part
    for _name, stack in sorted(stacks.items()):
        groups = {component: {component} for component in stack}
        ties = [(rule.component, rule.needs) for rule in rules]
        ties += [(part.component, other) for part in stack.values() for other in part.depends_on]
        for one, other in ties:
            if one in stack and other in stack and groups[one] is not groups[other]:
                groups[one] |= groups[other]
                groups.update(dict.fromkeys(groups[other], groups[one]))
        for group in {id(group): group for group in groups.values()}.values():
            yield {component: part for component, part in stack.items() if component in group}


def _group(members: t.Mapping[str, Part], rules: list[Rule]) -> _Group:
    return _Group(
        tuple(members),
        tuple(_courses(part) for part in members.values()),
        tuple(tuple(part.releases) for part in members.values()),
        tuple(part.wish for part in members.values()),
        tuple(dict.fromkeys(rule for rule in rules if {rule.component, rule.needs} <= set(members))),
        tuple((name, other) for name, part in members.items() for other in part.depends_on if other in members),
    )


_Key = tuple[t.Any, ...]


def _placed(move: _Move, part: Part) -> tuple[_Key, Step]:
    return (part.rank, move.component, _parse(move.version)), Step(part.stack, *move)


def _merged(sequences: list[list[tuple[_Key, Step]]]) -> list[Step]:
    """All sequences as one: of what they begin with the lowest rank, then the older version; in all stacks at once."""
    left = [iter(sequence) for sequence in sequences]
    queue: list[_Key] = []
    heads: dict[_Key, list[tuple[str, int, Step]]] = {}

    def wait(number: int) -> None:
        for key, step in itertools.islice(left[number], 1):
            if key not in heads:
                heapq.heappush(queue, key)
            heads.setdefault(key, []).append((step.stack, number, step))

    for number in range(len(left)):
        wait(number)
    steps: list[Step] = []
    while queue:
        for _stack, number, step in sorted(heads.pop(heapq.heappop(queue))):
            steps.append(step)
            wait(number)
    return steps


# -- what is told ---------------------------------------------------------------------------------------------------


def _conflict(found: _Found, members: t.Mapping[str, Part]) -> Conflict:
    blame, stack = found.blame, next(iter(members.values())).stack
    targets = {name: _versions_at_end(part, moves=name not in found.left) for name, part in members.items()}
    broken = _broken(blame.rules[0], members, targets) if len(blame.rules) == 1 else None
    message = broken or f"no order of steps keeps {_listed([_quoted(rule) for rule in blame.rules])}"
    if not broken and blame.after:
        message += f", as {_listed([f'{one} depends on {other}' for one, other in blame.after])}"
    return Conflict(stack, blame.rules, _line(message), found.change, found.parts)


def _violations(settled: _Settled, members: t.Mapping[str, Part]) -> t.Iterator[Violation]:
    for rule in settled.wished.rules:
        one, other = rule.component, rule.needs
        if settled.wished.chains[one].has(rule.when)[0] and settled.wished.chains[other].lacks(rule.versions)[0]:
            message = _broken(rule, members, {name: part.here for name, part in members.items()}) or rule.text
            one_end, other_end = settled.case.chains[one], settled.case.chains[other]
            lasts = one_end.has(rule.when)[-1] and other_end.lacks(rule.versions)[-1]
            change = _remedy(rule, members[other]) if lasts else ""
            yield Violation(members[one].stack, rule, message, change, lasts)


def _remedy(rule: Rule, part: Part) -> str:
    here = [_parse(version) for version in part.here.values() if _versions.is_version(version)]
    for version in reversed(_ascending(tuple(part.releases))):
        if _within(version, rule.versions) and all(place < _parse(version) for place in here):
            return _wish(part.component, version, part.wish)
    return ""


def _versions_at_end(part: Part, *, moves: bool) -> dict[str, str]:
    return {**part.here, **({host: way[-1] for host, way in part.ways.items() if way} if moves else {})}


def _broken(rule: Rule, members: t.Mapping[str, Part], versions: t.Mapping[str, t.Mapping[str, str]]) -> str | None:
    """How these versions break a rule, if they do: the newest that asks, and of those that lack the oldest."""
    one, other = members[rule.component], members[rule.needs]
    asking = [text for text in versions[rule.component].values() if _is_within(text, rule.when)]
    lacking = {host: text for host, text in versions[rule.needs].items() if not _is_within(text, rule.versions)}
    if not asking or not lacking:
        return None
    oldest = min(lacking.values(), key=_age)
    hosts = sorted(host for host, text in lacking.items() if text == oldest)
    source = f" ({rule.source})" if rule.source else ""
    needs = f"{one.component} {max(asking, key=_age)} needs {other.component} {rule.versions}{source}"
    if not _versions.is_version(oldest):
        return _line(f"{needs}, but the version of {other.component} on {_some(hosts)} isn't known")
    verb = "is"
    if versions[rule.needs] is not other.here:
        verb = "stays at" if all(other.here.get(host) == oldest for host in hosts) else "goes to"
    return _line(f"{needs}, but {other.component} {verb} {oldest} on {_some(hosts)}")


def _is_within(version: str, wanted: str) -> bool:
    return _versions.is_version(version) and _within(version, wanted)


def _age(version: str) -> tuple[bool, t.Any, str]:
    """A key: what isn't known first, then the older."""
    place = _place(version)
    return (place is not None, place or (), version)


def _quoted(rule: Rule) -> str:
    return f"'{rule.text}'" + (f" ({_line(rule.source)})" if rule.source else "")


def _listed(texts: t.Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def _some(hosts: list[str]) -> str:
    return _listed(hosts) if len(hosts) <= 3 else f"{', '.join(hosts[:3])} and {len(hosts) - 3} more"
