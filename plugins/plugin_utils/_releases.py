# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Which releases there are: each source is asked once for all hosts, and once for many runs at a time.

<cache>/releases/<hash of URL>.json  what a source answered last, with its ETag, and what went wrong since
<cache>/releases/<hash of URL>.lock  one lock for each source
<cache>/releases/sizes.json          how large archives are, for a day

An answer is C({source, releases, as_of, note}): the releases newest first, each with C(version), C(date) and
C(prerelease); when they were listed, in UTC; and why they aren't those of today, if so. No token is kept anywhere.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import reprlib
import time
import typing as t
from collections.abc import Mapping

import yaml

from ..module_utils import _files
from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import InputError, ReleaseError, UpgradeError
from ..module_utils._redaction import redact_value
from . import _ask, _bundle, _owned, _regular, _run, _sources, _versions
from ._single_flight import one_at_a_time
from ._sources import path_of, source_of

if t.TYPE_CHECKING:
    from ._sources import Listing, Release

    Answer = dict[str, t.Any]

__all__ = ["answers", "available", "from_index", "sizes", "source_of"]

_AT_A_TIME = 8
_CLOCKS_APART = 60
_PATIENCE = _ask.DEADLINE
"""Seconds that the process may take that is asking already."""

_FILE_LIMIT = 64 << 20
"""Bytes that an index, or a file of the cache, may have."""

_SIZES_FOR = 86400
_ITEM = ("version", "date", "prerelease")
_ANSWER = ("source", "releases", "as_of", "note", "error")
_Item = t.TypeVar("_Item")
_Result = t.TypeVar("_Result")


class _Known(t.NamedTuple):
    """What is known of a source: its last answer, if it has ever given one, and its last failure. It is kept with the
    source's own URL, and believed of no other."""

    url: str = ""
    fetched: float = 0.0
    etag: str = ""
    releases: tuple[Release, ...] = ()
    failure: Mapping[str, t.Any] | None = None
    run: str | None = None
    """The run that got the last answer."""


def answers(
    sources: t.Iterable[str], *, cache_dir: str, index: str | None = None, tell: bool = False, **how: t.Any
) -> dict[str, Answer]:
    """What each of some sources lists, by source. They are asked side by side.

    :param index: path of a file that says it, so that nobody is asked.
    :param tell: give an answer with C(error) and without releases where there is none, rather than raise the error.
    :param how: the arguments of available().
    :raises InputError: if the index can't be used.
    """
    listed = from_index(index) if index else None

    def ask(source: str) -> Answer | UpgradeError:
        try:
            if listed is None:
                return available(source, cache_dir=cache_dir, **how)
            return _indexed(listed, source, str(index))
        except UpgradeError as exc:
            return exc

    wanted = list(dict.fromkeys(sources))
    found = dict(zip(wanted, _side_by_side(ask, wanted)))
    errors = [answer for answer in found.values() if isinstance(answer, UpgradeError)]
    if errors and not tell:
        more = f" (sources that can't be listed: {len(errors)})" if len(errors) > 1 else ""
        raise type(errors[0])(f"{errors[0]}{more}", key=errors[0].key)
    return {source: _told(source, answer) for source, answer in found.items()}


_TOKENS = {"api.github.com": "GITHUB_TOKEN", "gitlab.com": "GITLAB_TOKEN"}


def of_this_run(
    sources: t.Iterable[str], *, tokens: Mapping[str, str], cache_dir: str, **how: t.Any
) -> dict[str, Answer]:
    """The same, where an answer of this run is always taken as it is, with the tokens of the environment.

    :param tokens: by host. They take the place of those of the environment, C(GITHUB_TOKEN) and C(GITLAB_TOKEN).
    """
    environment = {host: os.environ[name] for host, name in _TOKENS.items() if os.environ.get(name)}
    run = _run.this_run()["upgrade_id"]
    return answers(sources, cache_dir=cache_dir, tokens={**environment, **tokens}, run=run, **how)


def _told(source: str, answer: Answer | UpgradeError) -> Answer:
    if isinstance(answer, UpgradeError):
        return {"source": shown(source), "releases": [], "as_of": None, "note": None, "error": str(answer)}
    return answer


def _side_by_side(do: t.Callable[[_Item], _Result], items: t.Sequence[_Item]) -> list[_Result]:
    with concurrent.futures.ThreadPoolExecutor(max_workers=_AT_A_TIME) as pool:
        return list(pool.map(do, items))


# -- asking -------------------------------------------------------------------------------------------------------


def available(
    source: str,
    *,
    cache_dir: str,
    tokens: Mapping[str, str] | None = None,
    apis: Mapping[str, str] | None = None,
    run: str | None = None,
    ttl: float = 900,
    timeout: float = 60,
    clock: t.Callable[[], float] = time.time,
) -> Answer:
    """What a source lists.

    It is asked only if nobody has asked it since this run began, nor within the last C(ttl) seconds; and if it fails,
    not a second time by this run. What it said earlier is taken then, with a note.

    :param tokens: by host, with its port if the URL has one. A host gets its own only.
    :param apis: base URLs of C(github) and C(gitlab), if they aren't those of github.com and gitlab.com.
    :param run: the identity of this run.
    :param timeout: seconds for the whole exchange.
    :raises InputError: if it is no source, or the cache can't be written.
    :raises ReleaseError: if it can't be asked, or lists nothing.
    """
    listing = _sources.listing(source, apis)
    with _cache(cache_dir) as directory:
        path = os.path.join(directory, hashlib.sha256(shown(listing.url).encode()).hexdigest())
        with one_at_a_time(f"{path}.lock", seconds=2 * _PATIENCE):
            now, known = clock(), _read(f"{path}.json", shown(listing.url))
            if _is_fresh(known, now, run=run, ttl=ttl):
                return _answer(source, known)
            failed = _failure_of_run(known, run)
            if failed is None:
                try:
                    known = _asked(listing, known, now, tokens=tokens, timeout=timeout)._replace(run=run)
                except ReleaseError as exc:
                    failed = exc
                    known = known._replace(failure={"run": run, "text": str(exc), "key": exc.key})
                _files.write_durably(f"{path}.json", json.dumps(known._asdict()).encode())
    if failed is None:
        return _answer(source, known)
    if not known.releases:
        raise failed
    return _answer(source, known, note=f"{failed}; using what was known on {_utc(known.fetched)}")


def _asked(listing: Listing, known: _Known, now: float, *, tokens: Mapping[str, str] | None, timeout: float) -> _Known:
    """What a source says now. A 304 renews what it said before; on GitHub that counts for no rate limit."""
    etag = known.etag if known.releases else ""
    condition = {"If-None-Match": etag} if etag else {}
    answer = _ask.ask(listing.url, headers={**listing.headers, **condition}, tokens=tokens, timeout=timeout)
    if answer.status == 304 and etag:
        return known._replace(fetched=now, failure=None)
    if answer.status != 200:
        raise _ask.refusal(listing.url, answer, missing=listing.missing)
    return _Known(shown(listing.url), now, answer.headers.get("ETag") or "", tuple(listing.read(answer.body)))


def _is_fresh(known: _Known, now: float, *, run: str | None, ttl: float) -> bool:
    """Whether what is known can be used as it is. What is from the future was written by a wrong clock."""
    age = now - known.fetched
    of_this_run = run is not None and known.run == run
    return bool(known.releases) and (-_CLOCKS_APART < age < ttl or of_this_run)


def _failure_of_run(known: _Known, run: str | None) -> ReleaseError | None:
    """The error that another fork of this run got: the source isn't asked again."""
    if known.failure is None or run is None or known.failure["run"] != run:
        return None
    return ReleaseError(known.failure["text"], key=known.failure["key"])


def _answer(source: str, known: _Known, *, note: str | None = None) -> Answer:
    as_of = _utc(known.fetched)
    return {"source": shown(source), "releases": list(known.releases), "as_of": as_of, "note": note}


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


@contextlib.contextmanager
def _cache(cache_dir: str) -> t.Iterator[str]:
    """The directory of answers.

    :raises InputError: if something in it can't be read or written.
    """
    directory = os.path.join(cache_dir, "releases")
    try:
        _owned.private_directories(cache_dir, "releases")
        yield directory
    except OSError as exc:
        raise InputError(
            f"{exc.filename or directory}: {exc.strerror or exc}; set upgrade_cache_dir to a directory that you can "
            "write to",
            key="input.cache_dir",
        ) from exc


def _read(path: str, url: str) -> _Known:
    """What a file of the cache says of a source; nothing if it isn't there, is damaged, or is of another source."""
    nothing = _Known(url)
    try:
        data = json.loads(_owned.read(path))
        failure = data["failure"]
        if failure is not None:
            failure = {"run": failure["run"], "text": str(failure["text"]), "key": str(failure["key"])}
        releases = [_release(path, item) for item in data["releases"]]
        if data["url"] != url:
            return nothing
        found = tuple(_sources.in_order(releases))
        return _Known(url, float(data["fetched"]), str(data["etag"]), found, failure, data["run"])
    except InputError as exc:
        if exc.key == "input.cache_dir":
            raise
        return nothing
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return nothing


# -- the index ----------------------------------------------------------------------------------------------------


def from_index(path: str) -> dict[str, Answer]:
    """The answers that a file has in store, by source.

    It is a bundle, or YAML or JSON: for each source a list of versions, or of dictionaries with C(version), C(date) and
    C(prerelease), or an answer as it was given here. What the playbook C(check) keeps has one in it, as C(index).

    :raises InputError: naming the file, the place in it, and what must stand there.
    """
    data = _bundle.read(path).listing if _bundle.is_bundle(path) else _load(path)
    if isinstance(data, Mapping) and "index" in data:  # what the playbook check keeps
        data = data["index"]
    if not isinstance(data, Mapping):
        raise _must_be(path, data, "a dictionary of sources, {'github:prometheus/prometheus': ['3.5.3']}")
    index = {}
    for source, value in data.items():
        if not _sources.is_source(source):
            raise _must_be(f"{path}: a key", source, _sources.WANTED)
        answer = _stored(f"{path}: {shown(source)}", source, value)
        if answer is not None:
            index[str.__str__(source)] = answer
    return index


def _indexed(index: Mapping[str, Answer], source: str, path: str) -> Answer:
    answer = index.get(source) or index.get(shown(source))
    if answer is None:
        fix = "add it there, or run without upgrade_release_index"
        if _bundle.is_bundle(path):
            fix = "make a bundle for what is wished for now, or wish for a version by its number"
        raise InputError(f"{path} says nothing of {shown(source)}; {fix}", key="input.release_index")
    return answer


def _load(path: str) -> t.Any:
    why = _owned.changeable(path)
    if why is not None:
        raise InputError(
            f"upgrade_release_index: {path} is not used: {why}, so that somebody else could have changed it. Look at "
            "it, and copy it to a directory of your own",
            key="input.release_index",
        )
    try:
        text = _regular.read(path, most=_FILE_LIMIT).decode()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "is no text"
        raise InputError(f"upgrade_release_index: {path}: {reason}", key="input.release_index") from exc
    with contextlib.suppress(ValueError):
        return json.loads(text)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(exc, "problem", None) or exc).split())
        raise InputError(f"{path}{line}: is neither YAML nor JSON: {problem}", key="input.release_index") from exc


def _stored(where: str, source: str, value: t.Any) -> Answer | None:
    """One source of an index; none if it is the answer of a source that couldn't be asked."""
    whole = value if isinstance(value, Mapping) else {"releases": value}
    unknown = [key for key in whole if key not in _ANSWER]
    if unknown:
        raise _must_be(f"{where}: a key", unknown[0], f"one of {', '.join(_ANSWER)}")
    items = whole.get("releases")
    if not items and whole.get("error"):
        return None
    if not isinstance(items, list) or not items:
        raise _must_be(f"{where}: releases" if whole is value else where, items, "a list of at least one version")
    releases = [_release(f"{where}[{position}]", item) for position, item in enumerate(items)]
    as_of, note = whole.get("as_of"), whole.get("note")
    return {
        "source": shown(source),
        "releases": _sources.in_order(releases),
        "as_of": _moment(f"{where}: as_of", as_of),
        "note": None if note is None else str(note),
    }


def _release(where: str, item: t.Any) -> Release:
    data = item if isinstance(item, Mapping) else {"version": item}
    unknown = [key for key in data if key not in _ITEM]
    if unknown:
        raise _must_be(f"{where}: a key", unknown[0], f"one of {', '.join(_ITEM)}")
    version, prerelease = data.get("version"), data.get("prerelease", False)
    if not _versions.is_version(version):
        raise _must_be(where, version, "a version in quotes, like '3.5.3'")
    if not isinstance(prerelease, bool):
        raise _must_be(f"{where}.prerelease", prerelease, "true or false")
    return _sources.release(
        str.__str__(version).strip().lstrip("vV"), _day(f"{where}.date", data.get("date")), prerelease=prerelease
    )


def _day(where: str, value: t.Any) -> str | None:
    if value is None:
        return None
    text = value.isoformat()[:10] if isinstance(value, dt.date) else value
    try:
        return dt.date.fromisoformat(text).isoformat()
    except (TypeError, ValueError):
        raise _must_be(where, value, "a date like 2026-05-01") from None


def _moment(where: str, value: t.Any) -> str | None:
    """A time in UTC. YAML reads one that isn't in quotes as a time of its own kind."""
    if isinstance(value, dt.datetime):
        utc = value.astimezone(dt.timezone.utc) if value.tzinfo else value
        return utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}T[\d:]{8}Z", value)):
        raise _must_be(where, value, "a time like 2026-11-21T10:00:00Z")
    return None if value is None else str.__str__(value)


def _must_be(where: str, value: t.Any, what: str) -> InputError:
    return InputError(f"{where} is {reprlib.repr(redact_value(value))}; it must be {what}", key="input.release_index")


# -- sizes --------------------------------------------------------------------------------------------------------


def sizes(
    urls: t.Iterable[str],
    *,
    cache_dir: str,
    mirror: str | t.Sequence[str] | None = None,
    timeout: float = 10,
    clock: t.Callable[[], float] = time.time,
) -> dict[str, dict[str, int | None]]:
    """How large archives are, by URL: C(bytes), and the C(status) of the answer. Both are none if that can't be told.

    A plan without sizes is one, too, so it fails only for a cache that isn't the operator's own. What was told is
    believed for a day.

    :param mirror: base URL that stands in for the release hosts. Of several, the first that has the archive counts.
    :param timeout: seconds for each exchange. A server that didn't answer isn't asked again.
    :raises InputError: if somebody else owns the cache or can write to it.
    """
    silent: set[str] = set()
    places, now = {url: _places(url, mirror) for url in urls}, clock()
    path = os.path.join(cache_dir, "releases", "sizes.json")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            _owned.private_directories(cache_dir, "releases")
            stack.enter_context(one_at_a_time(f"{path}.lock", seconds=_PATIENCE))
        kept = _kept_sizes(path, now)
        missing = [url for url in places if shown(places[url][0]) not in kept]
        found = dict(zip(missing, _side_by_side(lambda url: _size(places[url], timeout, silent), missing)))
        new = {shown(places[url][0]): [size["bytes"], now] for url, size in found.items() if size["bytes"] is not None}
        if new:
            with contextlib.suppress(OSError):
                _files.write_durably(path, json.dumps({**kept, **new}).encode())
    return {url: found.get(url) or {"bytes": kept[shown(places[url][0])][0], "status": 200} for url in places}


def _places(url: str, mirror: str | t.Sequence[str] | None) -> list[str]:
    """Where an archive is looked for, in order."""
    bases = [mirror] if isinstance(mirror, str) else list(mirror or [])
    return [f"{base.rstrip('/')}{path_of(url)}" for base in bases if base] or [url]


def _size(places: list[str], timeout: float, silent: set[str]) -> dict[str, int | None]:
    told: dict[str, int | None] = {"bytes": None, "status": None}
    for place in places:
        server = place.partition("//")[2].partition("/")[0]
        if server in silent:
            continue
        try:
            answer = _ask.ask(place, method="HEAD", timeout=timeout)
        except ReleaseError:
            silent.add(server)
            continue
        length = answer.headers.get("Content-Length") or ""
        known = answer.status == 200 and length.isdigit()
        told = {"bytes": int(length) if known else None, "status": answer.status}
        if known:
            break
    return told


def _kept_sizes(path: str, now: float) -> dict[str, list[t.Any]]:
    """Sizes that were told within a day, each with its time."""
    try:
        data = json.loads(_owned.read(path))
        return {url: [int(size), float(told)] for url, (size, told) in data.items() if 0 <= now - told < _SIZES_FOR}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
