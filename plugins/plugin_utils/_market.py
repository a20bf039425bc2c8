# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. Which releases of a component one can have: those that were listed, or those that are known."""

from __future__ import annotations

import contextlib
import re
import reprlib
import typing as t
from collections.abc import Mapping

from ..module_utils import _version
from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import InputError
from ..module_utils._state import name_of
from . import _policy, _sources, _versions
from ._wish import LATEST, Wish, Wishes

if t.TYPE_CHECKING:
    Data = dict[str, t.Any]


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Offer(t.NamedTuple):
    """The releases of a component, newest first, each with C(version), C(date) and C(prerelease).

    ``source`` says where they are listed; it is none if nobody was asked.
    """

    releases: list[Data]
    source: str | None
    note: str | None
    error: str | None
    choices: dict[t.Any, _policy.Choice]
    """What was chosen of it already, so that a fleet of equal hosts chooses once."""

    @property
    def versions(self) -> list[str]:
        return [release["version"] for release in self.releases]

    def date(self, version: str) -> str | None:
        """The day of a release, as C(2026-11-21); none if it isn't known."""
        plain = (release["date"] for release in self.releases if _versions.compare(release["version"], version) == 0)
        return next(plain, None)


class Market:
    """What the sources answered. One that lists a directory knows all there is; others tell their newest releases."""

    def __init__(self, answers: Data | None = None, *, mirror: str | t.Sequence[str] | None = None) -> None:
        self._answers = _checked({} if answers is None else answers)
        self._mirror = mirror
        self._offers: dict[str, Offer] = {}

    def source(self, entry: Data) -> str:
        return _sources.source_of(entry, self._mirror)

    def offer(self, entry: Data) -> Offer:
        """What one can have of a component. Where its releases can't be listed, those that the catalog knows."""
        try:
            source, error = self.source(entry), None
        except InputError as exc:
            source, error = "", str(exc)
        key = f"{entry['name']} {source} {entry['known_releases']}"
        if key not in self._offers:
            self._offers[key] = self._offer(entry, source, error)
        return self._offers[key]

    def _offer(self, entry: Data, source: str, error: str | None) -> Offer:
        answer = self._answers.get(source)
        listed = [
            {"version": each["version"], "date": each.get("date"), "prerelease": bool(each.get("prerelease"))}
            for each in (answer["releases"] if answer else ())
        ]
        there = {release["version"] for release in listed}
        if not listed or not source.startswith("http"):
            listed += [
                {"version": version, "date": None, "prerelease": _versions.is_prerelease(version)}
                for version in entry["known_releases"]
                if version not in there
            ]
        listed.sort(key=lambda release: _versions.parse(release["version"]), reverse=True)
        answer = answer or {}
        return Offer(listed, shown(source) if answer else None, answer.get("note"), error or answer.get("error"), {})


def _checked(answers: t.Any) -> dict[str, Data]:
    """What the lookup of releases returned.

    :raises InputError: if it isn't that.
    """
    if not isinstance(answers, Mapping):
        raise _malformed(f"{reprlib.repr(answers)} isn't a dictionary of answers by source")
    for source, answer in answers.items():
        if not isinstance(answer, Mapping) or not isinstance(answer.get("releases"), (list, tuple)):
            raise _malformed(f"{shown(str(source))!r} has no list of releases")
        for release in answer["releases"]:
            if not _is_release(release):
                raise _malformed(f"{shown(str(source))!r} lists {reprlib.repr(release)}, which is no release")
        for name in ("note", "error"):
            if not isinstance(answer.get(name), (str, type(None))):
                raise _malformed(f"{name} of {shown(str(source))!r} is {reprlib.repr(answer[name])}; it must be a text")
    return dict(answers)


def _is_release(release: t.Any) -> bool:
    if not isinstance(release, Mapping) or not _versions.is_version(release.get("version")):
        return False
    date = release.get("date")
    return date is None or (isinstance(date, str) and bool(_DATE.fullmatch(date)))


def _malformed(what: str) -> InputError:
    return InputError(f"releases: {what}; give it what the lookup releases returned", key="input.releases")


# -- what must be asked for ---------------------------------------------------------------------------------------


def sources(
    surveys: Mapping[str, Data], wishes: Mapping[str, Data], *, mirror: str | t.Sequence[str] | None, every: bool
) -> list[str]:
    """Where releases must be looked up for a plan: only where it doesn't follow from what is known already.

    :param every: for all components that are installed, as C(check) wants to know.
    """
    market = Market(mirror=mirror)
    found: dict[str, None] = {}
    for entry in _listed(surveys, wishes, every=every):
        with contextlib.suppress(*([InputError] if every else [])):  # told in the row of the component
            found[market.source(entry)] = None
    return list(found)


def index(
    surveys: Mapping[str, Data],
    wishes: Mapping[str, Data],
    *,
    answers: Data,
    mirror: str | t.Sequence[str] | None = None,
) -> dict[str, list[Data]]:
    """What was listed for a plan, as a release index: enough to make it again without asking anybody or a mirror."""
    market = Market(answers, mirror=mirror)
    return {
        shown(Market().source(entry)): market.offer(entry).releases
        for entry in _listed(surveys, wishes, every=False)
        if market.offer(entry).releases
    }


def _listed(surveys: Mapping[str, Data], wishes: Mapping[str, Data], *, every: bool) -> t.Iterator[Data]:
    """The components that releases must be looked up of, as the catalog has them, once for each host."""
    reader = Wishes()
    for host, survey in surveys.items():
        wish = reader.read(host, wishes.get(host, {}))
        for name, facts in survey["components"].items():
            if (
                name_of(name) in wish.catalog
                and facts["installed"]
                and wish.means(name)
                and (every or _is_open(wish, name, facts))
            ):
                yield wish.entry(name)


def _is_open(wish: Wish, name: str, facts: Data) -> bool:
    """Whether only a list of releases tells what a wish comes to."""
    wanted = wish.version(name)
    if not wish.entry(name)["releases"]:
        return False
    if wanted is None or facts["package"] or not facts["unit"] or facts["version"] == _version.UNKNOWN:
        return False
    if _versions.is_version(wanted):
        return wish.policy.policy(name).min_age > 0 and _versions.compare(wanted, facts["version"]) != 0
    return wanted == LATEST or not _versions.matches(facts["version"], wanted)
