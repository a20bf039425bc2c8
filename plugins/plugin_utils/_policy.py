# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What the operator allows: how far and how soon versions may change, and which are kept out.

What each variable means is told in docs/policy.md.
"""

from __future__ import annotations

import datetime as dt
import reprlib
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils import _version
from ..module_utils._errors import InputError
from ..module_utils._state import name_of
from . import _checks, _versions
from ._checks import Field

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = Mapping[str, t.Any]

POLICY, PINS, BLACKLIST, DOWNGRADE = "upgrade_policy", "upgrade_pins", "upgrade_blacklist", "upgrade_allow_downgrade"

STEPS: dict[str, tuple[str, ...]] = {
    "none": (),
    "patch": ("patch", "prerelease", "build"),
    "minor": ("minor", "patch", "prerelease", "build"),
    "any": ("major", "minor", "patch", "prerelease", "build"),
}
"""The changes of version that each step allows, as C(_versions.change) calls them."""

_LONGEST = 36500
_COMPONENT = "a component that the catalog knows"


class Policy(t.NamedTuple):
    """How far and how soon a component's version may change."""

    step: str = "any"
    min_age: int = 0
    """Days since a release before it is taken."""
    max_age: int = 0
    """Days after which an installed release is overdue; 0: never."""
    prereleases: bool = False
    zero_minor: str = "minor"
    """What a change of y in 0.y.z counts as."""


class Rules(t.NamedTuple):
    """All that the operator allows and doesn't."""

    policies: dict[str, Policy]
    default: Policy
    pins: dict[str, str]
    blacklist: list[dict[str, t.Any]]
    allow_downgrade: bool

    def policy(self, name: str) -> Policy:
        """The policy that holds for a component: that of the instance, of all its instances, or of all components."""
        return self.policies.get(of_key(name, self.policies), self.default)


def of_key(key: str, known: t.Container[str]) -> str:
    """What holds for a component: its own key where that is known, else that of all its instances."""
    return key if key in known else name_of(key)


class Refusal(t.NamedTuple):
    """Why a version isn't taken, and what to do about it."""

    key: str
    """Without the component before it."""
    message: str
    fix: str


class Choice(t.NamedTuple):
    """The version that a wish leads to; None if there is none.

    Then the first refusal says why, and may be of an older release, or of the version in use. Without any refusals, no
    release that the wish holds is known.
    """

    version: str | None
    refused: list[tuple[str, Refusal]]
    """Newer releases that weren't taken, newest first, each with its first reason."""


# -- what the operator writes -------------------------------------------------------------------------------------


def read(*, policy: t.Any, pins: t.Any, blacklist: t.Any, allow_downgrade: t.Any, known: t.Collection[str]) -> Rules:
    """The rules, checked. None stands for a variable that isn't set.

    :param known: the components that there are.
    :raises InputError: naming the variable, the key, and what is allowed.
    """
    names = _checks.Keys(sorted(known))
    policies = _variable(POLICY, _by_component(_checks.Keys([*names, "default"]), _checks.anything), policy, {})
    default = _variable(f"{POLICY}.default", _policy(Policy()), policies.pop("default", {}))
    return Rules(
        policies=_variable(POLICY, _by_component(names, _policy(default)), policies),
        default=default,
        pins=_variable(PINS, _by_component(names, _checks.range_text), pins, {}),
        blacklist=_variable(BLACKLIST, _checks.list_of(_blacklisted(names)), blacklist, []),
        allow_downgrade=_variable(DOWNGRADE, _boolean, allow_downgrade, False),
    )


def _variable(name: str, check: _checks.Check, value: t.Any, unset: t.Any = None) -> t.Any:
    return _checks.variable(name, check, value, unset=unset, key="input.policy")


def _by_component(names: _checks.Keys, check: _checks.Check) -> _checks.Check:
    return _checks.map_of(names, check, what="a dictionary with components as keys", key_is=_COMPONENT)


def _policy(default: Policy) -> _checks.Check:
    """A policy, or its step alone; what it leaves out is the default's."""
    what = f"one of {', '.join(STEPS)}, or a dictionary of {', '.join(Policy._fields)}"
    fields = _checks.record({name: Field(_FIELDS[name], known) for name, known in default._asdict().items()}, what=what)
    return lambda value: Policy(**fields({"step": value} if isinstance(value, str) else value))


def _boolean(value: t.Any) -> bool:
    """Also as a text, as C(--extra-vars) has it."""
    try:
        return bool(boolean(value))
    except TypeError:
        raise _checks.must_be("true or false", value) from None


_FIELDS: dict[str, _checks.Check] = {
    "step": _checks.one_of(*STEPS),
    "min_age": _checks.whole(0, _LONGEST, "days"),
    "max_age": _checks.whole(0, _LONGEST, "days"),
    "prereleases": _boolean,
    "zero_minor": _checks.one_of("minor", "major"),
}


def _blacklisted(names: _checks.Keys) -> _checks.Check:
    fields = {
        "component": Field(_checks.known(names, _COMPONENT)),
        "versions": Field(_checks.range_text),
        "reason": Field(_checks.any_text),
        "reference": Field(_checks.or_none(_checks.any_text), None),
    }
    return _checks.record(fields, what="a dictionary, like {component: prometheus, versions: '3.7.x', reason: ...}")


def _error(message: str) -> InputError:
    return InputError(message, key="input.policy")


# -- what speaks against a version --------------------------------------------------------------------------------


class _Move(t.NamedTuple):
    """A change of one component's version, with all that may speak against it."""

    name: str
    version: str
    here: str
    date: str | None
    rules: Rules
    advisories: t.Sequence[Data]
    last_release: Data | None
    today: dt.date
    exact: bool
    unasked: bool
    """Whether it is a pre-release, and neither what is in use nor the wish is one."""

    @property
    def policy(self) -> Policy:
        return self.rules.policy(self.name)

    @property
    def where(self) -> str:
        """Where its policy stands."""
        key = of_key(self.name, self.rules.policies)
        return f"{POLICY}.{key if key in self.rules.policies else 'default'}"

    def refusal(self, key: str, message: str, fix: str) -> Refusal:
        """A refusal, which the operator can always accept."""
        return Refusal(key, message, f"{fix}; or accept {self.name}.{key}")


def refusals(
    name: str,
    version: str,
    *,
    here: str,
    date: str | None,
    rules: Rules,
    advisories: t.Sequence[Data],
    last_release: Data | None,
    today: dt.date,
    exact: bool,
    prerelease: bool | None = None,
) -> list[Refusal]:
    """All that speaks against going from one version to another. Against staying, only a pin does.

    :param date: the day of the release, as C(2026-11-21); None where it isn't known.
    :param advisories: those of the component's catalog entry; C(vulnerable) ones don't refuse.
    :param exact: the operator named this very version: then its being a pre-release doesn't matter.
    :param prerelease: whether its project calls it one; without it, the version's text tells.
    :raises InputError: if a version or a date is none.
    """
    staying = _Move(name, here, here, None, rules, advisories, last_release, today, exact=exact, unasked=False)
    release = {"version": version, "date": date, "prerelease": prerelease}
    return list(_against(_towards(staying, release, asked=exact)))


def _follows(here: str, version: str) -> bool:
    """Whether what is in use is a pre-release of the same numbers."""
    return _versions.is_prerelease(here) and _versions.change(here, version) in ("prerelease", "build", "none")


def _against(move: _Move) -> t.Iterator[Refusal]:
    stays = _versions.compare(move.version, move.here) == 0
    for reason in (_pinned,) if stays else _REASONS:
        yield from reason(move)


def _pinned(move: _Move) -> t.Iterator[Refusal]:
    key = of_key(move.name, move.rules.pins)
    pin = move.rules.pins.get(key)
    if pin is None or _versions.matches(move.version, pin):
        return
    where = f"{PINS}.{key}"
    if move.exact:
        wish = f"upgrade_versions.{move.name}"
        message = f"{wish} is {move.version!r}, but {where} is {pin!r}"
        yield move.refusal("pinned", message, f"change {wish} or {where}")
    else:
        yield move.refusal("pinned", f"{move.version} isn't in {where}, which is {pin!r}", f"change {where}")


def _downgrade(move: _Move) -> t.Iterator[Refusal]:
    if not move.rules.allow_downgrade and _versions.compare(move.version, move.here) < 0:
        yield move.refusal(
            "downgrade",
            f"{move.version} is older than {move.here}, which is in use",
            "to go back, use the playbook rollback: it restores what was proven on this host; "
            f"or set {DOWNGRADE}: true",
        )


def _never_released(move: _Move) -> t.Iterator[Refusal]:
    last = move.last_release
    if last and _versions.compare(move.version, last["version"]) > 0:
        message = f"{move.name} {move.version} was never released: {last['version']} is the last. {last['reason']}"
        successor = f", or move to {last['successor']}" if last.get("successor") else ""
        yield move.refusal("end_of_life", message, f"wish for {last['version']}{successor}")


def _on_the_blacklist(move: _Move) -> t.Iterator[Refusal]:
    for position, entry in enumerate(move.rules.blacklist):
        if entry["component"] in (move.name, name_of(move.name)) and _versions.matches(move.version, entry["versions"]):
            where = f"{BLACKLIST}[{position}]"
            message = f"{move.version} is in {where}, {entry['versions']!r}: {entry['reason']}{_see(entry)}"
            yield move.refusal("blacklisted", message, f"wish for another version, or change {where}")


def _bad(move: _Move) -> t.Iterator[Refusal]:
    for advisory in move.advisories:
        if advisory["kind"] == "bad" and _versions.matches(move.version, advisory["versions"]):
            fixed_in = advisory.get("fixed_in")
            wish = f"wish for {fixed_in} or newer" if fixed_in else "wish for another version"
            message = f"{move.name} {move.version} is known to be bad: {advisory['reason']}"
            yield move.refusal("bad_version", message, f"{wish}{_see(advisory)}")


def _see(entry: Data) -> str:
    return f" (see {entry['reference']})" if entry.get("reference") else ""


def _too_far(move: _Move) -> t.Iterator[Refusal]:
    kind = _versions.change(move.here, move.version, zero_minor=move.policy.zero_minor)
    if kind not in STEPS[move.policy.step]:
        step = [step for step, kinds in STEPS.items() if kind in kinds][0]  # noqa: RUF015
        message = f"{move.version} is a {kind} step from {move.here}, and {move.where} allows {move.policy.step}"
        yield move.refusal("policy_step", message, f"allow it: {POLICY}: {{{move.name}: {step}}}")


def _too_early(move: _Move) -> t.Iterator[Refusal]:
    if move.unasked and not move.policy.prereleases:
        message = f"{move.version} is a pre-release, and {move.where} doesn't allow them"
        fix = f"name it in upgrade_versions, or allow them: {POLICY}: {{{move.name}: {{prereleases: true}}}}"
        yield move.refusal("prerelease", message, fix)


def _too_young(move: _Move) -> t.Iterator[Refusal]:
    wanted = move.policy.min_age
    if not wanted:
        return
    if move.date is None:
        message = f"nobody says when {move.version} was released, and {move.where} has min_age {wanted}"
        yield move.refusal("age_unknown", message, f"allow it: {POLICY}: {{{move.name}: {{min_age: 0}}}}")
        return
    released = _date(move.date, f"{move.name} {move.version}")
    age = (move.today - released).days
    if age < wanted:
        message = f"{move.version} was released on {released}, and {move.where} has min_age {wanted}"
        days = wanted - age
        yield move.refusal("too_young", message, f"wait {days} days" if days > 1 else "wait a day")


_REASONS = (_pinned, _downgrade, _never_released, _on_the_blacklist, _bad, _too_far, _too_early, _too_young)
"""What may speak against a version, what nothing else can change first."""


def _date(text: str, what: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except (TypeError, ValueError):
        raise _error(
            f"{what} was released on {reprlib.repr(text)}, which is no date; write it like '2026-11-21'"
        ) from None


def overdue(here_date: str | None, policy: Policy, today: dt.date) -> int | None:
    """For how many days an installed release has been older than the policy's max_age; None if it isn't.

    :param here_date: the day of its release, as C(2026-11-21). One that isn't known is never overdue.
    :raises InputError: if that is no date.
    """
    if not policy.max_age or here_date is None:
        return None
    beyond = (today - _date(here_date, "what is installed")).days - policy.max_age
    return beyond if beyond > 0 else None


# -- which version to take ----------------------------------------------------------------------------------------


def choose(
    name: str,
    wanted: str,
    *,
    here: str,
    releases: t.Sequence[Data],
    rules: Rules,
    advisories: t.Sequence[Data],
    last_release: Data | None,
    today: dt.date,
    accepted: t.Collection[str] = (),
) -> Choice:
    """The newest release that a wish holds, and that nothing speaks against; what is in use, if nothing newer is.

    An older one is taken only where what is in use isn't in the wish or the pin, and downgrades are allowed.

    :param wanted: C(latest), or a range.
    :param releases: what there is, in any order: C({version, date, prerelease}).
    :param accepted: keys of refusals that the operator accepts.
    :raises InputError: if a version, a range or a date is none.
    """
    text = "*" if wanted == "latest" else wanted
    pin = rules.pins.get(of_key(name, rules.pins))
    staying = _Move(name, here, here, None, rules, advisories, last_release, today, exact=False, unasked=False)
    asked = any(_versions.names_prerelease(wish) for wish in (text, pin or "*"))

    def first(release: Data) -> Refusal | None:
        """The first thing that speaks against a release."""
        move = _towards(staying, release, asked=asked)
        return next((refusal for refusal in _against(move) if refusal.key not in accepted), None)

    newer, older = _around(here, [release for release in releases if _versions.matches(release["version"], text)])
    found, refused = _first_free(newer, first)
    if found:
        return Choice(found, refused)
    stuck = first({"version": here})
    if stuck is None and _versions.matches(here, text):
        return Choice(here, refused)
    found, too_old = _first_free(older, first)
    if found:
        return Choice(found, refused)
    if stuck and {reason.key for version, reason in refused} <= {"pinned"}:
        return Choice(None, [(here, _nothing_in(staying, t.cast("str", pin))), *refused])
    return Choice(None, refused or too_old[:1])


def _first_free(
    releases: t.Iterable[Data], first: t.Callable[[Data], Refusal | None]
) -> tuple[str | None, list[tuple[str, Refusal]]]:
    """The first of some releases that nothing speaks against, and what speaks against those before it."""
    refused: list[tuple[str, Refusal]] = []
    for release in releases:
        version, refusal = _version.normalize(release["version"]), first(release)
        if refusal is None:
            return version, refused
        refused.append((version, refusal))
    return None, refused


def _towards(staying: _Move, release: Data, *, asked: bool) -> _Move:
    """A move to a release, from where a component is."""
    version = release["version"]
    early = _versions.is_prerelease(version) or bool(release.get("prerelease"))
    unasked = early and not asked and not _follows(staying.here, version)
    return staying._replace(version=version, date=release.get("date"), unasked=unasked)


def _around(here: str, releases: t.Iterable[Data]) -> tuple[list[Data], list[Data]]:
    """What is newer than the version in use, and what is older; the newest first, each version once."""
    by_place = {_versions.parse(release["version"]): release for release in releases}
    places = sorted(by_place, reverse=True)
    place = _versions.parse(here)
    return [by_place[p] for p in places if p > place], [by_place[p] for p in places if p < place]


def _nothing_in(staying: _Move, pin: str) -> Refusal:
    """The refusal of a pin that leads nowhere."""
    where = f"{PINS}.{of_key(staying.name, staying.rules.pins)}"
    message = f"{where} is {pin!r}, and no known release in it is {staying.here}, which is in use, or newer"
    return staying.refusal("pinned", message, f"change {where}")
