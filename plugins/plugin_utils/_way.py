# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. The versions that one component of one host goes through, and what speaks against them."""

from __future__ import annotations

import re
import typing as t

from ..module_utils import _version
from ..module_utils._errors import InputError
from ..module_utils._state import is_accepted, name_of
from . import _policy, _versions
from ._wish import LATEST

if t.TYPE_CHECKING:
    import datetime as dt

    from ._market import Offer
    from ._subject import Subject
    from ._wish import Wish

    Data = dict[str, t.Any]


class Way(t.NamedTuple):
    """The versions to pass through, the target last; none if it is reached and proven already, or can't be reached."""

    hops: list[str]
    findings: list[Data]


def find(subject: Subject, wish: Wish, offer: Offer, *, today: dt.date, stops: t.Collection[str] = ()) -> Way:
    """The way of a component to what is wished for.

    :param stops: versions to stop at beside the component's stages, because other components need it.
    """
    wanted = wish.version(subject.name)
    if subject.unfinished and (wanted is None or _names(wanted, subject.record["to_version"])):
        return Way([subject.record["to_version"]], [])
    target, findings = _target(subject, wish, offer, today)
    if target is None:
        return Way([], findings)
    order = _versions.compare(target, subject.origin)
    if order == 0:
        return Way([target] if subject.is_open else [], findings)
    if order < 0:
        return Way([target], findings)
    hops, more = _stages(subject, target, offer.versions, stops)
    return Way(hops, findings + more)


def _names(wanted: str, version: str) -> bool:
    """Whether a wish is for this very version, or is content with it."""
    if wanted == LATEST:
        return False
    return _versions.matches(version, _version.normalize(wanted) if _versions.is_version(wanted) else wanted)


def _target(subject: Subject, wish: Wish, offer: Offer, today: dt.date) -> tuple[str | None, list[Data]]:
    """The version to end at. A range that the version in use is in asks for nothing."""
    name, here = subject.name, subject.origin
    wanted = t.cast("str", wish.version(name))
    rules: t.Any = {
        "rules": wish.policy,
        "advisories": subject.entry["advisories"],
        "last_release": subject.entry["last_release"],
        "today": today,
    }
    if _versions.is_version(wanted):
        target = _version.normalize(wanted)
        against = _policy.refusals(name, target, here=here, date=offer.date(target), exact=True, **rules)
        return target, [_refused(subject, refusal, "blocker") for refusal in against]
    if wanted != LATEST and _versions.matches(here, wanted):
        return here, []
    asked = (id(wish.policy), wish.accept, name, wanted, here)
    if asked not in offer.choices:
        owners = (f"{name}.", f"{name_of(name)}.")
        keys = [key.removeprefix(owner) for owner in owners for key in wish.accept if key.startswith(owner)]
        offer.choices[asked] = _policy.choose(name, wanted, here=here, releases=offer.releases, accepted=keys, **rules)
    choice = offer.choices[asked]
    passed_over = [_passed_over(subject, *refused) for refused in choice.refused[:1]]
    if choice.version is not None:
        return choice.version, passed_over + _nothing_newer(subject, wanted, offer)
    if wanted == LATEST:
        return here, passed_over + _nothing_newer(subject, wanted, offer)
    if choice.refused:
        return None, [_refused(subject, choice.refused[0][1], "blocker")]
    raise InputError(_no_release(subject, wanted, offer), key="input.no_release_in_range")


def _refused(subject: Subject, refusal: _policy.Refusal, severity: str) -> Data:
    return subject.finding(refusal.key, severity, refusal.message, refusal.fix)


def _passed_over(subject: Subject, version: str, refusal: _policy.Refusal) -> Data:
    """Why a newer release isn't taken."""
    message = f"{subject.name} {version} isn't taken: {refusal.message}"
    return subject.finding(refusal.key, "held", message, refusal.fix)


def _nothing_newer(subject: Subject, wanted: str, offer: Offer) -> list[Data]:
    """That nobody was asked, or that what was asked knows less than what is installed."""
    if wanted != LATEST:
        return []
    newest = offer.versions[0] if offer.versions else None
    if newest is not None and _versions.compare(newest, subject.origin) >= 0:
        return []
    told = f"the newest release that {offer.source} lists is {newest}" if newest else "no release is listed"
    message = f"{told}, and {subject.origin} is in use" if newest else f"{told} for {subject.name}"
    return [subject.finding("nothing_newer", "warning", message, "see whether the mirror or index is up to date")]


def _no_release(subject: Subject, wanted: str, offer: Offer) -> str:
    known = ", ".join(offer.versions[:5]) or "none"
    where = f"{offer.source} lists none" if offer.source else "none is known"
    return (
        f"upgrade_versions.{subject.name}: no release in {wanted!r}: {where}; name an exact version "
        f"(the newest known: {known})"
    )


def against(subject: Subject, wish: Wish, versions: list[str], *, today: dt.date) -> list[str]:
    """What the operator's policy and the required stops of a component have against versions that somebody else chose.

    When they were released isn't asked, so that C(min_age) says nothing.

    :param versions: those to go through, the target last.
    """
    name, here, target = subject.name, subject.origin, versions[-1]
    if subject.unfinished and versions == [subject.record.get("to_version")]:
        return []
    told = []
    for version in versions:
        for refusal in _policy.refusals(
            name,
            version,
            here=here,
            date=None,
            rules=wish.policy,
            advisories=subject.entry["advisories"],
            last_release=subject.entry["last_release"],
            today=today,
            exact=True,
        ):
            counts = version == target or refusal.key in ("bad_version", "blacklisted")
            if counts and refusal.key != "age_unknown" and not is_accepted(f"{name}.{refusal.key}", name, wish.accept):
                told.append(f"{refusal.message} ({refusal.fix})")
    path = [here, *versions]
    if len(versions) > 1 and any(_versions.compare(old, new) >= 0 for old, new in zip(path, versions)):
        told.append(f"{name} goes to and fro: {' -> '.join(path)}")
    if _versions.compare(here, target) < 0:
        hops, unknown = _stages(subject, target, versions, ())
        told += [f"{name} doesn't stop at {hop} on its way to {target}" for hop in hops if hop not in versions]
        told += [finding["message"] for finding in unknown]
    return told


def _stages(subject: Subject, target: str, known: list[str], stops: t.Collection[str]) -> tuple[list[str], list[Data]]:
    """The stages that lie strictly between two versions, and the target.

    :param known: the versions that there are, newest first.
    """
    here, hops = subject.origin, set(stops)
    for stage in subject.entry["stages"]:
        version = _release_of(stage, here, target, subject, known)
        if version is None and _reaches_over(stage, here, target):
            message = f"{subject.name} must stop at a release in {stage!r} first, and none is known"
            fix = f"name one: upgrade_overrides: {{{subject.name}: {{stages: ['...']}}}}"
            return [], [subject.finding("unknown_stage", "blocker", message, fix)]
        hops.add(version or target)
    between = [hop for hop in hops if _versions.compare(here, hop) < 0 < _versions.compare(target, hop)]
    return [*sorted(between, key=_versions.parse), target], []


def _release_of(stage: str, here: str, target: str, subject: Subject, known: list[str]) -> str | None:
    """The release to stop at for a stage; the target itself where there is nothing to stop for."""
    if _versions.is_version(stage):
        return _version.normalize(stage)
    if _versions.matches(here, stage) or _versions.matches(target, stage):
        return target
    bad = [advisory["versions"] for advisory in subject.entry["advisories"] if advisory["kind"] == "bad"]
    sound = [version for version in known if not any(_versions.matches(version, each) for each in bad)]
    return _versions.newest(sound, stage) or _versions.newest(subject.entry["known_releases"], stage)


def _reaches_over(stage: str, here: str, target: str) -> bool:
    """Whether two versions lie on either side of a range, as far as the versions that it names tell."""
    named = sorted(re.findall(r"\d+(?:\.\d+)+", stage), key=_versions.parse)
    return not named or (_versions.compare(here, named[0]) < 0 <= _versions.compare(target, named[-1]))
