# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Release archives: fetched once for all hosts, proven, and kept in a cache by their content.

<cache>/sha256/<hash>        archives; their name is what they must be
<cache>/lists/<hash of URL>  checksum lists, used only while the archive that they name is in the cache
<cache>/locks/<hash of URL>  one lock for each archive: of many forks and runs one fetches, the others wait
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import open_url

from ..module_utils import _argv, _files
from ..module_utils._errors import ReleaseError

_CHUNK = 1 << 20
_LIST_LIMIT = 4 << 20
_TIMEOUT = 60
_AGENT = "observability.stack"
_LINE = re.compile(r"^([0-9a-fA-F]{64})(?:[ \t]+[*]?(\S+))?[ \t]*$")


class Archive(t.NamedTuple):
    """An archive in the cache."""

    path: str
    sha256: str
    fetched: bool


def default_cache_dir() -> str:
    """The user's cache directory, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "observability-upgrades")


def via_mirror(url: str, mirror: str | None) -> str:
    """The URL at the mirror that stands in for its host: the same path below the mirror's base."""
    return mirror.rstrip("/") + urllib.parse.urlsplit(url).path if mirror else url


def shown(url: str) -> str:
    """A URL for people: without its password and its query, which may hold a token."""
    return _argv.redact_text(urllib.parse.urlsplit(url)._replace(query="", fragment="").geturl())


def expected_sha256(listing: str, *, name: str, url: str) -> str:
    """The sha256 that a checksum list gives for a file.

    Understood are lines of C(sha256sum), with the file's exact name, and a list that is one line: then its hash is the
    file's, whatever name stands beside it (C(<url>.sha256) of Grafana names another file since 12.4.3, grafana#124709).

    :raises ReleaseError: if the file isn't in it.
    """
    found = [match.groups() for match in map(_LINE.match, listing.splitlines()) if match]
    if len(found) == 1 and len(listing.split()) <= 2:
        return str(found[0][0]).lower()
    for digest, listed in found:
        if listed and listed.removeprefix("./") == name:
            return str(digest).lower()
    raise ReleaseError(
        f"{shown(url)} has no sha256 for {name}: nothing is fetched without one. "
        "Is this version released for this architecture?",
        key="release.no_checksum",
    )


def fetch(url: str, *, checksums: str, mirror: str | None = None, cache_dir: str | None = None) -> Archive:
    """An archive that is what the release's checksum list says, from the cache if it is there.

    :raises ReleaseError: if it can't be fetched, or isn't what it must be; nothing of it stays then.
    """
    cache, name = cache_dir or default_cache_dir(), os.path.basename(urllib.parse.urlsplit(url).path)
    source, list_url = via_mirror(url, mirror), via_mirror(checksums, mirror)
    for kind in ("sha256", "lists", "locks"):
        os.makedirs(os.path.join(cache, kind), mode=0o700, exist_ok=True)
    list_path = os.path.join(cache, "lists", _hash(list_url))
    with _one_at_a_time(os.path.join(cache, "locks", _hash(source))):
        cached = _from_cache(cache, list_path, name=name, url=list_url)
        if cached:
            return cached
        listing = _read_url(list_url)
        sha256 = expected_sha256(listing, name=name, url=list_url)
        target = os.path.join(cache, "sha256", sha256)
        if _files.sha256_or_none(target) != sha256:
            _download(source, target, sha256=sha256, list_url=list_url)
        _files.write_durably(list_path, listing.encode())
        return Archive(target, sha256, fetched=True)


def _from_cache(cache: str, list_path: str, *, name: str, url: str) -> Archive | None:
    """The archive that a kept list names, if it is there and still whole."""
    try:
        with open(list_path, encoding="utf-8") as source:
            sha256 = expected_sha256(source.read(), name=name, url=url)
    except (OSError, ReleaseError):
        return None
    path = os.path.join(cache, "sha256", sha256)
    return Archive(path, sha256, fetched=False) if _files.sha256_or_none(path) == sha256 else None


@contextlib.contextmanager
def _one_at_a_time(path: str) -> t.Iterator[None]:
    """Wait for whoever does the same. The kernel ends the lock with its holder, however that dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _download(url: str, target: str, *, sha256: str, list_url: str) -> None:
    digest, partial = hashlib.sha256(), f"{target}.part"
    try:
        with _open(url) as response, open(partial, "wb") as sink:
            for chunk in iter(lambda: response.read(_CHUNK), b""):
                digest.update(chunk)
                sink.write(chunk)
            sink.flush()
            os.fsync(sink.fileno())
        if digest.hexdigest() != sha256:
            raise ReleaseError(
                f"{shown(url)} has sha256 {digest.hexdigest()}, but {shown(list_url)} says {sha256}: "
                "it is damaged or was tampered with, and is not used",
                key="release.checksum",
            )
        os.replace(partial, target)
    finally:
        _files.remove_if_there(partial)


def _read_url(url: str) -> str:
    with _open(url) as response:
        return t.cast("str", response.read(_LIST_LIMIT).decode("utf-8", "replace"))


@contextlib.contextmanager
def _open(url: str) -> t.Iterator[t.Any]:
    """A response, with TLS, proxies, netrc and CA bundle as Ansible's own modules have them.

    :raises ReleaseError: naming the URL, and what to look for.
    """
    try:
        with open_url(url, timeout=_TIMEOUT, http_agent=_AGENT, follow_redirects="safe") as response:
            yield response
    except urllib.error.HTTPError as exc:
        hint = {
            404: "is there such a release, for this architecture?",
            403: "is access to it limited, or a rate limit reached?",
            429: "too many requests; try again later",
        }.get(exc.code, "try again, or set upgrade_release_mirror")
        raise ReleaseError(f"{shown(url)} answered {exc.code} {exc.reason}: {hint}", key="release.unavailable") from exc
    except (OSError, ValueError, http.client.HTTPException) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise ReleaseError(
            f"{shown(url)} can't be fetched: {reason}. Without internet, set upgrade_release_mirror",
            key="release.unavailable",
        ) from exc


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
