# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Release archives: fetched once for all hosts, proven, and kept in a cache by their content.

<cache>/sha256/<hash>         archives; their name is what they must be, and they are proven whenever they are used
<cache>/sha256/<hash>.part    what came of one so far: see _download
<cache>/lists/<hash of URLs>  checksum lists: used for an hour, and while the archive that they name is in the cache;
                              and signatures
<cache>/locks/<hash>          one lock for each archive and list: of many forks and runs one fetches, the others wait
<cache>/locks/<hash>.failed   why the last one who fetched it could not: who waited meanwhile is told the same

When an archive or a list was used last is its access time, which is set here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import typing as t
import urllib.parse

from ..module_utils import _files
from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import ReleaseError
from . import _checksums, _download, _sources
from ._download import LIMITS, TOOLS, Limits, Tools
from ._release_settings import default_cache_dir
from ._single_flight import one_at_a_time

_LIST_LIMIT = 4 << 20
_LIST_FRESH = 3600
_IN_USE = 3600
_DAY = 86400
_OWN_NAME = re.compile(r"\.?([0-9a-f]{64})(\.part|\.part\.json|\.part\.json\.upgrade-new|\.upgrade-new)?")


Says = t.Callable[[bytes, str, bool], str]
"""What a checksum list says that the archive's sha256 is. Called with the list, its URL, and whether it was asked for
just now. It raises a ReleaseError if the list isn't to be trusted, or doesn't have the archive."""


T = t.TypeVar("T")


class Archive(t.NamedTuple):
    """An archive in the cache."""

    path: str
    sha256: str
    fetched: bool


class Pruned(t.NamedTuple):
    """What was removed from a cache: names of files, and their bytes; and the bytes that are left."""

    removed: list[str]
    freed: int
    kept: int


class _Listed(t.NamedTuple):
    """What a checksum list says an archive is, which list that was, and whether it was one of an earlier time."""

    sha256: str
    url: str
    kept: bool


def fetch(
    url: str,
    *,
    checksums: str,
    mirror: str | t.Sequence[str] | None = None,
    cache_dir: str | None = None,
    limits: Limits = LIMITS,
    tools: Tools = TOOLS,
) -> Archive:
    """An archive that is what the release's checksum list says, from the cache if it is there.

    :param mirror: a base URL that stands in for the hosts of both, or several, tried in turn.
    :param limits: how long to try, and how much to take.
    :raises ReleaseError: if it can't be fetched, or isn't what it must be. What came of it stays only if the next
        attempt can go on with it.
    """
    return Cache(cache_dir, mirror=mirror, limits=limits, tools=tools).listed(url, checksums)


class Cache:
    """A cache of releases, and the way to what isn't in it yet.

    :param directory: by default the user's.
    :param mirror: a base URL that stands in for the hosts of all, or several, tried in turn.
    """

    def __init__(
        self,
        directory: str | None = None,
        *,
        mirror: str | t.Sequence[str] | None = None,
        limits: Limits = LIMITS,
        tools: Tools = TOOLS,
    ) -> None:
        self.directory, self.mirror = directory or default_cache_dir(), mirror
        self.limits, self.tools = limits, tools

    def listed(self, url: str, checksums: str, says: Says | None = None) -> Archive:
        """An archive that is what a checksum list says.

        :param says: what to read the list with, if it isn't enough to look the file's name up in it.
        :raises ReleaseError: if it can't be had, or isn't what it must be. C(release.no_list) if there is no list.
        """
        with self._release(url, checksums, says) as release:
            return release.cached(release.kept_list()) or release.get()

    def known(self, url: str, sha256: str, said_by: str) -> Archive:
        """An archive whose sha256 is known.

        :param said_by: who knows it, for the operator.
        :raises ReleaseError: if it can't be had, or isn't what it must be.
        """
        expected = _Listed(sha256, said_by, kept=False)
        with self._release(url, url) as release:
            return release.cached(expected) or release.archive(expected)

    def unknown(self, url: str) -> Archive:
        """An archive that nobody says anything of. As long as the cache has it, it must be what it was the first time.

        :raises ReleaseError: if it can't be had.
        """
        with self._release(url, f"{url}#first") as release:
            return release.cached(release.kept_list()) or release.first()

    def expected(self, url: str, checksums: str, says: Says | None = None) -> str:
        """The sha256 that a checksum list says an archive has; the archive isn't asked for.

        :raises ReleaseError: if the list can't be had, or doesn't say it.
        """
        with self._release(url, checksums, says) as release:
            kept = release.kept_list()
            if kept and os.path.exists(release.path(kept)):
                return kept.sha256
            return release.listed().sha256

    def small(self, url: str, *, anew: bool = False) -> bytes:
        """A small file that goes with a release, such as a signature. It is kept for an hour.

        :param anew: ask for it, even if it was kept.
        :raises ReleaseError: if it can't be had.
        """
        with self._release(url, url) as release:
            return release.small(anew=anew)

    @contextlib.contextmanager
    def _release(self, url: str, checksums: str, says: Says | None = None) -> t.Iterator[_Release]:
        try:
            release = _Release(self, url, checksums, says)
        except ValueError as exc:
            raise ReleaseError(f"{shown(url)} is no address of a file: {exc}", key="release.address") from exc
        with _told(self.directory):
            for kind in ("sha256", "lists", "locks"):
                os.makedirs(os.path.join(self.directory, kind), mode=0o700, exist_ok=True)
            yield release


def prune(
    cache_dir: str, *, keep_bytes: int | None = None, keep_days: float | None = None, tools: Tools = TOOLS
) -> Pruned:
    """Make a cache smaller: what was used least recently goes first, archives and unfinished transfers alike.

    What somebody fetches now, or has used in the last hour, stays. Unfinished transfers go after a day. Locks stay.

    :param keep_bytes: how many may be left. By default any number.
    :param keep_days: what wasn't used for longer goes in any case. By default nothing does.
    :raises ReleaseError: if something can't be removed.
    """
    now, removed, freed = tools.wall(), [], 0
    with _told(cache_dir):
        entries = _entries(cache_dir)
        left = sum(entry.size for entry in entries)
        for entry in sorted(entries, key=lambda entry: entry.used):
            days = (now - entry.used) / _DAY
            old = keep_days is not None and days > keep_days
            dead = entry.unfinished and days > 1
            if not (old or dead or (keep_bytes is not None and left > keep_bytes)):
                continue
            if now - entry.used > _IN_USE and _removed(cache_dir, entry):
                removed.append(os.path.basename(entry.path))
                freed, left = freed + entry.size, left - entry.size
    return Pruned(removed, freed, left)


# -- one release --------------------------------------------------------------------------------------------------


class _Release:
    """An archive and its list: where they come from, and where they are kept."""

    def __init__(self, cache: Cache, url: str, checksums: str, says: Says | None) -> None:
        self.name = os.path.basename(urllib.parse.urlsplit(url).path)
        self.archives, self.lists = _sources.places(url, cache.mirror), _sources.places(checksums, cache.mirror)
        self.cache, self.limits, self.tools = cache.directory, cache.limits, cache.tools
        self.says = says or self._says
        self.list_key = hashlib.sha256("\n".join(self.lists).encode()).hexdigest()
        self.list_path = os.path.join(self.cache, "lists", self.list_key)

    def _says(self, listing: bytes, url: str, _asked: bool) -> str:
        return _checksums.listed(listing.decode("utf-8", "replace"), name=self.name, where=shown(url))

    def get(self) -> Archive:
        """From the network. A list of an earlier time may be of a release that was made anew: then it is asked for
        again, once."""
        listed = self.listed()
        try:
            return self.archive(listed)
        except ReleaseError as exc:
            if exc.key != "release.checksum":
                raise
            _files.remove_if_there(self.list_path)
            if not listed.kept:
                raise
        return self.archive(self.listed())

    def kept_list(self, *, fresh: bool = False) -> _Listed | None:
        """What a kept list says; None if there is none that names the archive.

        :param fresh: only of the last hour.
        """
        try:
            if fresh and not self._is_fresh():
                return None
            with open(self.list_path, "rb") as source:
                sha256 = self.says(source.read(), self.lists[0], False)
        except (OSError, ReleaseError):
            return None
        return _Listed(sha256, self.lists[0], kept=True)

    def _is_fresh(self) -> bool:
        return 0 <= self.tools.wall() - os.path.getmtime(self.list_path) < _LIST_FRESH

    def cached(self, listed: _Listed | None) -> Archive | None:
        """The archive, if it is there and still whole. That needs no lock: it comes and goes as a whole."""
        if listed is None:
            return None
        path = self.path(listed)
        _used(path, self.tools)
        if _files.sha256_or_none(path) != listed.sha256:
            return None
        _used(self.list_path, self.tools)
        return Archive(path, listed.sha256, fetched=False)

    def path(self, listed: _Listed) -> str:
        return os.path.join(self.cache, "sha256", listed.sha256)

    def listed(self) -> _Listed:
        """What the list says the archive is, asked for once for all archives of a release.

        :raises ReleaseError: if no place has one that names it.
        """
        with self.alone(self.list_key):
            return self.kept_list(fresh=True) or self._ask_for_list()

    def _ask_for_list(self) -> _Listed:
        def read(url: str) -> tuple[bytes, _Listed]:
            data = self._read(url)
            return data, _Listed(self.says(data, url, True), url, kept=False)

        try:
            data, listed = self._first_of(read)
        except ReleaseError as exc:
            if exc.key != "release.not_found":
                raise
            raise ReleaseError(
                f"nothing is fetched without a checksum; if the project has no list, set upgrade_release_pins: {exc}",
                key="release.no_list",
            ) from exc
        self._keep(data)
        return listed

    def small(self, *, anew: bool) -> bytes:
        """What is at the list's place, whatever it is."""
        with self.alone(self.list_key):
            with contextlib.suppress(FileNotFoundError):
                if not anew and self._is_fresh():
                    with open(self.list_path, "rb") as source:
                        return source.read()
            data = self._first_of(self._read)
            self._keep(data)
            return data

    def _read(self, url: str) -> bytes:
        return _download.read_small(url, most=_LIST_LIMIT, limits=self.limits, tools=self.tools)

    def _keep(self, data: bytes) -> None:
        _files.write_durably(self.list_path, data)
        os.utime(self.list_path, (self.tools.wall(), self.tools.wall()))

    def _first_of(self, read: t.Callable[[str], T]) -> T:
        """What is read from the first place that has it.

        :raises ReleaseError: if none has.
        """
        failures = []
        for url in self.lists:
            try:
                return read(url)
            except ReleaseError as exc:
                failures.append(exc)
                if url != self.lists[-1]:
                    self.tools.warn(f"{exc}; the next mirror is tried")
        raise _download.together(failures)

    def first(self) -> Archive:
        """The archive as it is, and a list that says from then on that it is this."""
        with self.alone(self.list_key):
            kept = self.kept_list()
            if kept:
                return self.cached(kept) or self.archive(kept)
            path = os.path.join(self.cache, "sha256", self.list_key)
            _download.download(self.archives, path, sha256="", listed="", limits=self.limits, tools=self.tools)
            listed = _Listed(_files.sha256_file(path), self.archives[0], kept=False)
            os.rename(path, self.path(listed))
            self._keep(f"{listed.sha256}  {self.name}\n".encode())
        return Archive(self.path(listed), listed.sha256, fetched=True)

    def archive(self, listed: _Listed) -> Archive:
        """The archive that a list names, from the cache or from the first place that has it.

        :raises ReleaseError: if none has.
        """
        with self.alone(listed.sha256):
            cached = self.cached(listed)
            if cached:
                return cached
            path = self.path(listed)
            _download.download(
                self.archives, path, sha256=listed.sha256, listed=listed.url, limits=self.limits, tools=self.tools
            )
        return Archive(path, listed.sha256, fetched=True)

    @contextlib.contextmanager
    def alone(self, key: str) -> t.Iterator[None]:
        """One at a time. Who waited while another failed is told the same: fifty hosts don't fail one after the other.

        :raises ReleaseError: what the other one failed for.
        """
        lock = os.path.join(self.cache, "locks", key)
        since = self.tools.wall()
        with one_at_a_time(lock):
            failure = _failure(f"{lock}.failed", since, self.tools.wall())
            if failure:
                raise failure
            try:
                yield
            except ReleaseError as exc:
                told = {"at": self.tools.wall(), "key": exc.key, "message": str(exc)}
                with contextlib.suppress(OSError):  # then the next one finds out for itself
                    _files.write_durably(f"{lock}.failed", json.dumps(told).encode())
                raise


def _failure(path: str, since: float, now: float) -> ReleaseError | None:
    """A failure of another process, if it was between two times. A clock that was set back keeps none alive."""
    try:
        with open(path, encoding="utf-8") as source:
            told = json.load(source)
        return ReleaseError(str(told["message"]), key=str(told["key"])) if since < told["at"] <= now else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _used(path: str, tools: Tools) -> None:
    """Set when a file was used. A cache that can't be written to isn't pruned either."""
    with contextlib.suppress(OSError):
        os.utime(path, (tools.wall(), os.path.getmtime(path)))


# -- pruning ------------------------------------------------------------------------------------------------------


class _Entry(t.NamedTuple):
    """A file of a cache, with what belongs to it counted in. Used: seconds since 1970."""

    path: str
    key: str
    size: int
    used: float
    unfinished: bool


def _entries(cache: str) -> list[_Entry]:
    """All that may go. Files that aren't ours are left alone."""
    found = []
    for kind in ("sha256", "lists"):
        with contextlib.suppress(FileNotFoundError):
            for item in os.scandir(os.path.join(cache, kind)):
                name = _OWN_NAME.fullmatch(item.name)
                if name and item.is_file(follow_symlinks=False):
                    found.append(_entry(item.path, name[1], unfinished=bool(name[2])))
    return [entry for entry in found if entry]


def _entry(path: str, key: str, *, unfinished: bool) -> _Entry | None:
    """None if it is gone by now. What is being written was used when it was written to last."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    used = status.st_mtime if unfinished else max(status.st_atime, status.st_mtime)
    return _Entry(path, key, status.st_size, used, unfinished)


def _removed(cache: str, entry: _Entry) -> bool:
    """Remove an entry, unless somebody has its lock, or has used it since it was looked at."""
    lock = os.open(os.path.join(cache, "locks", entry.key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _entry(entry.path, entry.key, unfinished=entry.unfinished) != entry:
            return False
        os.unlink(entry.path)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


@contextlib.contextmanager
def _told(cache: str) -> t.Iterator[None]:
    """Tell what keeps the cache from being used."""
    try:
        yield
    except OSError as exc:
        raise _download.not_kept(cache, exc) from exc
