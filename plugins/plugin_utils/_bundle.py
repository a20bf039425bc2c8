# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. A bundle: one file with all releases that a plan takes, for runs without a network.

It is a tar archive without compression:

    bundle.json        what is in it, what the sources of releases listed, of which plan it was made, and when
    archives/<sha256>  an archive of a release, each once

Nothing in it is trusted but bundle.json: an archive is used only if it has the sha256 that stands there, whatever else
vouches for it. Two bundles of the same content and time are the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
import typing as t

from ..module_utils import _files
from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import InputError, ReleaseError
from . import _download
from ._single_flight import one_at_a_time

SCHEMA = 1
_FIRST = "bundle.json"
_MOST = 16 << 20
_CHUNK = 1 << 20
_NO_TAR = (tarfile.TarError, EOFError, KeyError, OverflowError, RecursionError, ValueError)


class Release(t.NamedTuple):
    """A release in a bundle. Size: bytes of its archive. Verified: what vouched for it when the bundle was made."""

    component: str
    version: str
    architecture: str
    url: str
    sha256: str
    size: int
    verified: list[str]

    @property
    def told(self) -> str:
        return f"{self.component} {self.version} for {self.architecture}"


class Bundle(t.NamedTuple):
    """What a bundle says of itself, and at which byte each archive begins, by its sha256.

    :ivar plan: digest of the plan that it was made of.
    :ivar listing: what the sources of releases listed, as upgrade_release_index takes it.
    """

    path: str
    made_at: str
    plan: str
    releases: tuple[Release, ...]
    listing: dict[str, t.Any]
    places: dict[str, int]

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


# -- making -------------------------------------------------------------------------------------------------------


def write(
    path: str,
    archives: t.Sequence[tuple[Release, str]],
    *,
    made_at: str,
    plan: str,
    index: t.Mapping[str, t.Any],
) -> None:
    """Write a bundle, whole or not at all.

    :param archives: the releases, each with the path of its archive.
    :param made_at: a time in UTC, C(2026-11-21T10:00:00Z).
    :raises ReleaseError: if an archive isn't what its release says, or the bundle can't be written.
    """
    content = [release._asdict() for release, _archive in sorted(archives)]
    about = {"schema": SCHEMA, "made_at": made_at, "plan": plan, "releases": content, "index": index}
    paths = {release.sha256: (archive, release) for release, archive in archives}
    temporary = _files.temporary_beside(path)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as sink, tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as bundle:
            text = (json.dumps(about, indent=2, sort_keys=True) + "\n").encode()
            bundle.addfile(_member(_FIRST, len(text)), io.BytesIO(text))
            for sha256 in sorted(paths):
                _add(bundle, *paths[sha256])
            bundle.close()
            sink.flush()
            os.fsync(sink.fileno())
        os.rename(temporary, path)
        _files.fsync_directory(os.path.dirname(path))
    except OSError as exc:
        raise ReleaseError(f"{path} can't be written: {_files.explain(exc)}", key="bundle.unwritable") from exc
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def is_same(path: str, releases: t.Sequence[Release], *, plan: str, index: t.Mapping[str, t.Any]) -> bool:
    """Whether a file is a bundle of the same content already, and whole."""
    try:
        there = read(path)
    except InputError:
        return False
    if (there.releases, there.plan, there.listing) != (tuple(releases), plan, json.loads(json.dumps(index))):
        return False
    with open(path, "rb") as source:
        return all(_digest(source, there, release) == release.sha256 for release in releases)


def _digest(source: t.BinaryIO, bundle: Bundle, release: Release) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(source, bundle, release):
        digest.update(piece)
    return digest.hexdigest()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _add(bundle: tarfile.TarFile, archive: str, release: Release) -> None:
    with open(archive, "rb") as source:
        proven = _Proven(source)
        bundle.addfile(_member(f"archives/{release.sha256}", release.size), t.cast("t.IO[bytes]", proven))
    if proven.digest.hexdigest() != release.sha256:
        raise ReleaseError(f"{archive} was changed while it was read: run again", key="release.checksum")


class _Proven:
    """A file whose sha256 is taken while it is read."""

    def __init__(self, source: t.IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


# -- reading ------------------------------------------------------------------------------------------------------


def is_bundle(path: str) -> bool:
    """Whether a file looks like one. It can be damaged all the same."""
    try:
        with open(path, "rb") as source:
            return source.read(len(_FIRST) + 1) == f"{_FIRST}\0".encode()
    except OSError:
        return False


def read(path: str) -> Bundle:
    """What a bundle says of itself. Its archives are proven when they are taken.

    :raises InputError: if it is none, is damaged, or has anything in it that bundle.json doesn't name; with the name.
    """
    try:
        with tarfile.open(path, mode="r:") as bundle:
            about = _about(path, bundle)
            releases = tuple(_release(path, item) for item in about["releases"])
            if len({release[:3] for release in releases}) < len(releases):
                raise _refused(path, "bundle.json", "names a release twice")
            places = _places(path, bundle, {f"archives/{release.sha256}": release for release in releases})
    except OSError as exc:
        raise InputError(f"upgrade_bundle: {path}: {exc.strerror or exc}", key="bundle.unreadable") from exc
    except _NO_TAR as exc:
        text = " ".join(str(exc).split())
        raise InputError(
            f"upgrade_bundle: {path} is no bundle, or damaged ({text}): make it with the playbook bundle",
            key="bundle.damaged",
        ) from exc
    return Bundle(path, about["made_at"], about["plan"], releases, about["index"], places)


def _about(path: str, bundle: tarfile.TarFile) -> dict[str, t.Any]:
    first = bundle.next()
    if first is None or first.name != _FIRST or not _is_plain(first) or first.size > _MOST:
        raise _refused(path, first.name if first else "", f"stands where {_FIRST} must be")
    about = json.loads(_bytes(bundle, first))
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        found = about.get("schema") if isinstance(about, dict) else about
        raise _refused(path, _FIRST, f"has schema {found!r}, this collection reads {SCHEMA}")
    kinds = {"made_at": str, "plan": str, "releases": list, "index": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(about.get(key), kind)]
    if wrong:
        raise _refused(path, _FIRST, f"has no proper {wrong[0]}")
    return about


def _bytes(bundle: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = bundle.extractfile(member)
    return source.read() if source else b""


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


def _release(path: str, item: t.Any) -> Release:
    texts = [key for key in Release._fields if key not in ("size", "verified")]
    usable = (
        isinstance(item, dict)
        and sorted(item) == sorted(Release._fields)
        and all(isinstance(item[key], str) for key in texts)
        and re.fullmatch("[0-9a-f]{64}", item["sha256"])
        and isinstance(item["size"], int)
        and not isinstance(item["size"], bool)
        and isinstance(item["verified"], list)
        and all(isinstance(line, str) for line in item["verified"])
    )
    if not usable:
        raise _refused(path, _FIRST, f"has a release that is none: {str(item)[:200]}")
    return Release(**item)


def _places(path: str, bundle: tarfile.TarFile, wanted: t.Mapping[str, Release]) -> dict[str, int]:
    """Where each archive begins. What isn't named, or named and not there, is refused."""
    found: dict[str, int] = {}
    while (member := bundle.next()) is not None:
        release = wanted.get(member.name)
        if release is None:
            raise _refused(path, member.name, f"isn't named in {_FIRST}")
        if release.sha256 in found:
            raise _refused(path, member.name, "is there twice")
        if not _is_plain(member) or member.size != release.size:
            raise _refused(path, member.name, f"isn't the file of {release.size} bytes that {_FIRST} names")
        found[release.sha256] = member.offset_data
    missing = [name for name, release in wanted.items() if release.sha256 not in found]
    if missing:
        raise _refused(path, missing[0], "isn't there: the bundle is cut off or damaged")
    return found


def _refused(path: str, member: str, what: str) -> InputError:
    name = "".join(character for character in member[:200] if character.isprintable())
    return InputError(
        f"upgrade_bundle: {path}: {name} {what}. Nothing of it is used; make it anew with the playbook bundle",
        key="bundle.damaged",
    )


# -- taking -------------------------------------------------------------------------------------------------------


def find(bundle: Bundle, *, component: str, version: str, architecture: str, url: str) -> Release:
    """A release in a bundle.

    :raises ReleaseError: if it isn't there, or comes from another place than the one that is wanted.
    """
    key = (component, version, architecture)
    release = next((each for each in bundle.releases if each[:3] == key), None)
    hint = "make one for this plan with the playbook bundle"
    if release is None:
        raise ReleaseError(
            f"{bundle.name} doesn't have {component} {version} for {architecture}: {hint}",
            key="bundle.no_release",
        )
    if release.url != url:
        raise ReleaseError(
            f"{bundle.name} has {release.told} from {shown(release.url)}, not from {shown(url)}: {hint}",
            key="bundle.no_release",
        )
    return release


def sizes(path: str, urls: t.Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """How large archives are, by URL, as the lookup release_sizes tells it; C(missing) says what isn't in the bundle.

    :raises InputError: if it is no bundle.
    """
    bundle = read(path)
    known = {release.url: release.size for release in bundle.releases}
    return {
        url: {"bytes": known[url], "status": 200}
        if url in known
        else {"bytes": None, "status": None, "missing": f"{bundle.name} doesn't have {shown(url)}"}
        for url in urls
    }


def take(bundle: Bundle, release: Release, *, cache_dir: str) -> str:
    """Put an archive of a bundle into the controller's cache, unless it is there, and return its path.

    :raises ReleaseError: if it isn't what bundle.json says, or the cache can't be written. Nothing of it is kept then.
    """
    path = os.path.join(cache_dir, "sha256", release.sha256)
    try:
        for kind in ("sha256", "locks"):
            os.makedirs(os.path.join(cache_dir, kind), mode=0o700, exist_ok=True)
        with one_at_a_time(os.path.join(cache_dir, "locks", release.sha256)):
            if _files.sha256_or_none(path) == release.sha256:
                os.utime(path)
            else:
                _copy(bundle, release, path)
    except OSError as exc:
        raise _download.not_kept(cache_dir, exc) from exc
    return path


def _copy(bundle: Bundle, release: Release, path: str) -> None:
    temporary, digest = _files.temporary_beside(path), hashlib.sha256()
    with contextlib.ExitStack() as stack:
        stack.callback(_files.remove_if_there, temporary)
        source = stack.enter_context(open(bundle.path, "rb"))
        sink = stack.enter_context(open(temporary, "wb", opener=_private))
        for piece in _pieces(source, bundle, release):
            digest.update(piece)
            sink.write(piece)
        if digest.hexdigest() != release.sha256:
            raise ReleaseError(
                f"{bundle.name}: archives/{release.sha256} ({release.told}) has sha256 {digest.hexdigest()}: it is "
                "damaged or was tampered with, and is not used; make the bundle anew",
                key="release.checksum",
            )
        sink.flush()
        os.fsync(sink.fileno())
        os.rename(temporary, path)


def _pieces(source: t.BinaryIO, bundle: Bundle, release: Release) -> t.Iterator[bytes]:
    """The content of an archive in a bundle."""
    source.seek(bundle.places[release.sha256])
    left = release.size
    while left and (piece := source.read(min(left, _CHUNK))):
        yield piece
        left -= len(piece)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
