# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. A bundle: one file with all releases that a plan takes, for runs without a network.

It is a tar archive without compression:

    bundle.json        what is in it, what the sources of releases listed, of which plan it was made, and when; and the
                       documents that signatures are verified with: checksum lists and signatures, by their URL
    archives/<sha256>  an archive of a release, each once

An archive is used only if it has the sha256 that stands in bundle.json, which anybody can write: it proves that the
bundle is whole, not where it comes from. What C(verified) says there is a claim. C(_obtain) verifies a release again,
with the documents of the bundle and with what the operator has. Two bundles of the same content and time are the same
bytes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import stat
import tarfile
import tempfile
import typing as t

from ..module_utils import _files
from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import InputError, ReleaseError
from . import _download, _owned, _regular
from ._single_flight import one_at_a_time

SCHEMA = 1
_FIRST = "bundle.json"
_MOST = 16 << 20
_CHUNK = 1 << 20
_NO_TAR = (tarfile.TarError, EOFError, KeyError, OverflowError, RecursionError, ValueError)


class Release(t.NamedTuple):
    """A release in a bundle. Size: bytes of its archive. Verified: how it was verified, as the bundle claims."""

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
    :ivar documents: checksum lists and signatures, by the URL that they were fetched from.
    """

    path: str
    made_at: str
    plan: str
    releases: tuple[Release, ...]
    listing: dict[str, t.Any]
    places: dict[str, int]
    documents: dict[str, bytes]

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
    documents: t.Mapping[str, bytes] | None = None,
) -> None:
    """Write a bundle, whole or not at all. A file, or a symbolic link, that is there is replaced.

    :param archives: the releases, each with the path of its archive.
    :param made_at: a time in UTC, C(2026-11-21T10:00:00Z).
    :param documents: checksum lists and signatures that the releases are verified with, by their URL.
    :raises ReleaseError: if an archive isn't what its release says, or the bundle can't be written.
    """
    about = {
        "schema": SCHEMA,
        "made_at": made_at,
        "plan": plan,
        "releases": [release._asdict() for release, _archive in sorted(archives)],
        "index": index,
        "documents": {url: base64.b64encode(content).decode() for url, content in (documents or {}).items()},
    }
    text = (json.dumps(about, indent=2, sort_keys=True) + "\n").encode()
    if len(text) > _MOST:
        raise ReleaseError(f"{path}: {_FIRST} would have more than {_MOST} bytes", key="bundle.unwritable")
    paths = {release.sha256: (archive, release) for release, archive in archives}
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # In a directory of its own, mode 0700: beside the file, others could put something under a name that they know.
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=os.path.dirname(path)) as directory:
            temporary = os.path.join(directory, "bundle")
            with open(temporary, "xb", opener=_private) as sink:
                _write(sink, text, [paths[sha256] for sha256 in sorted(paths)])
            os.rename(temporary, path)
        _files.fsync_directory(os.path.dirname(path))
    except OSError as exc:
        raise ReleaseError(f"{path} can't be written: {_files.explain(exc)}", key="bundle.unwritable") from exc


def _write(sink: t.IO[bytes], text: bytes, archives: list[tuple[str, Release]]) -> None:
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as bundle:
        bundle.addfile(_member(_FIRST, len(text)), io.BytesIO(text))
        for archive, release in archives:
            _add(bundle, archive, release)
    sink.flush()
    os.fsync(sink.fileno())


def is_same(
    path: str,
    releases: t.Sequence[Release],
    *,
    plan: str,
    index: t.Mapping[str, t.Any],
    documents: t.Mapping[str, bytes] | None = None,
) -> bool:
    """Whether a file of the operator's own is a bundle of the same content already, and whole."""
    try:
        status = os.lstat(path)
        there = read(path)
    except (InputError, OSError):
        return False
    content = (tuple(releases), plan, json.loads(json.dumps(index)), dict(documents or {}))
    if (there.releases, there.plan, there.listing, there.documents) != content:
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return False
    with _regular.opened(path) as source:
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
        with _regular.opened(path) as source:
            return source.read(len(_FIRST) + 1) == f"{_FIRST}\0".encode()
    except OSError:
        return False


def refuse_foreign(path: str, what: str) -> None:
    """Refuse a bundle that others can change, for what the operator has nothing else to verify by.

    :param what: what is to be verified, for the error.
    :raises InputError: C(bundle.unverified).
    """
    why = _owned.changeable(path)
    if why is not None:
        raise InputError(
            f"upgrade_bundle: {path} is not used: {why}, and nothing is configured that {what} is verified by. Set "
            "upgrade_bundle_sha256, or upgrade_release_signatures, _pins or _manifest; or copy the bundle to a "
            "directory of your own, once you know that it is the right one",
            key="bundle.unverified",
        )


def read(path: str, *, sha256: str = "") -> Bundle:
    """What a bundle says of itself. Its archives are proven when they are taken.

    :param sha256: that the whole file must have, if the operator knows it.
    :raises InputError: if it is none, is damaged, or has anything in it that bundle.json doesn't name; with the name.
        C(bundle.checksum) if it has another sha256.
    """
    try:
        with _regular.opened(path) as source, tarfile.open(fileobj=source, mode="r:") as bundle:
            content = _first(path, bundle)
            if sha256:
                _check_whole(path, source, content, sha256)
            about = _about(path, content)
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
    return Bundle(path, about["made_at"], about["plan"], releases, about["index"], places, _documents(path, about))


def _first(path: str, bundle: tarfile.TarFile) -> bytes:
    """The content of bundle.json."""
    first = bundle.next()
    if first is None or first.name != _FIRST or not _is_plain(first) or first.size > _MOST:
        raise _refused(path, first.name if first else "", f"stands where {_FIRST} must be")
    return _bytes(bundle, first)


def _check_whole(path: str, source: t.BinaryIO, text: bytes, sha256: str) -> None:
    """Whether the file has a sha256, with this very content of bundle.json, that says what all else in it must be."""
    here = source.tell()
    source.seek(0)
    begin = source.read(tarfile.BLOCKSIZE + len(text))
    digest = hashlib.sha256(begin)
    while piece := source.read(_CHUNK):
        digest.update(piece)
    source.seek(here)
    if digest.hexdigest() != sha256 or begin[tarfile.BLOCKSIZE :] != text:
        raise InputError(
            f"upgrade_bundle: {path} has sha256 {digest.hexdigest()}, and upgrade_bundle_sha256 is {sha256}: it is "
            "another bundle, is damaged or was tampered with. Nothing of it is used",
            key="bundle.checksum",
        )


def _documents(path: str, about: dict[str, t.Any]) -> dict[str, bytes]:
    documents = about.get("documents", {})
    try:
        return {url: base64.b64decode(content, validate=True) for url, content in documents.items()}
    except (AttributeError, TypeError, ValueError):
        raise _refused(path, _FIRST, "has a document that is none") from None


def _about(path: str, text: bytes) -> dict[str, t.Any]:
    about = json.loads(text)
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

    :raises InputError: if somebody else owns the cache or can write to it.
    :raises ReleaseError: if it isn't what bundle.json says, or the cache can't be written. Nothing of it is kept then.
    """
    path = os.path.join(cache_dir, "sha256", release.sha256)
    try:
        _owned.private_directories(cache_dir, "sha256", "locks")
        with one_at_a_time(os.path.join(cache_dir, "locks", release.sha256)):
            if _owned.sha256_or_none(path) == release.sha256:
                os.utime(path)
            else:
                _copy(bundle, release, path)
    except OSError as exc:
        raise _download.not_kept(cache_dir, exc) from exc
    return path


def _copy(bundle: Bundle, release: Release, path: str) -> None:
    temporary, digest = _files.temporary_beside(path), hashlib.sha256()
    _files.remove_if_there(temporary)
    with contextlib.ExitStack() as stack:
        stack.callback(_files.remove_if_there, temporary)
        source = stack.enter_context(_regular.opened(bundle.path))
        sink = stack.enter_context(open(temporary, "xb", opener=_private))
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
