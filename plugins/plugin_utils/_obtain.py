# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. A release, and all that vouches for it: docs/trust.md says what that can be.

All that are given must agree. With a manifest of the site's own the project's list isn't asked for, unless its
signature is wanted. With a bundle nobody is asked: signatures are verified with the documents that are in it. What the
bundle says of itself is told as its claim.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
import typing as t
import urllib.parse

from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import InputError, ReleaseError
from . import _bundle, _checksums, _fetch, _manifest, _signatures, _sources
from ._download import TOOLS, Tools
from ._release_settings import ManifestSource, Settings, Signature, read

__all__ = ["Obtained", "Settings", "Wanted", "obtain", "read"]

_PINS = "upgrade_release_pins"


class Wanted(t.NamedTuple):
    """One release for one architecture: where its archive and its list of checksums are, and which version is in place
    where it is wanted, if that is known."""

    component: str
    version: str
    architecture: str
    url: str
    checksums: str
    from_version: str | None = None


class Obtained(t.NamedTuple):
    """A release that is what it must be.

    :ivar path: the archive, in the cache; None if only its sha256 was asked for.
    :ivar size: bytes; None if they aren't known.
    :ivar verified: what vouches for it, a line each.
    :ivar manifest_number: that of the site's manifest; None without one.
    :ivar fetched: whether the archive had to be fetched.
    :ivar urls: where the archive is, in the order in which they are asked.
    :ivar url: where it would be without mirrors: the manifest's, if there is one.
    :ivar documents: the checksum lists and signatures that a signature was verified with, by their URL without mirrors.
    """

    path: str | None
    sha256: str
    size: int | None
    verified: list[str]
    manifest_number: int | None
    fetched: bool
    urls: list[str]
    url: str
    documents: dict[str, bytes]


def obtain(wanted: Wanted, settings: Settings, *, archive: bool = True, tools: Tools = TOOLS) -> Obtained:
    """A release, from the cache or from where it is.

    :param archive: whether it is fetched. Otherwise only what it must be is found out, and what vouches for that.
    :raises ReleaseError: if it can't be had, or isn't what it must be.
    :raises InputError: if the settings don't go together.
    """
    release = _Release(wanted, settings, tools)
    return release.whole() if archive else release.hash_only()


def is_known_by_hash(wanted: Wanted, settings: Settings) -> bool:
    """Whether it can be found out what a release must be without having its archive."""
    signature = settings.signatures.get(wanted.component)
    return signature is None or signature.of != "archive"


class _Release:
    """One release, and what is to be said of it."""

    def __init__(self, wanted: Wanted, settings: Settings, tools: Tools) -> None:
        self.settings, self.tools = settings, tools
        self.manifest = _the_manifest(settings.manifest) if settings.manifest else None
        entry = self.manifest.release(*wanted[:3], wanted.from_version) if self.manifest else None
        self.wanted = wanted._replace(url=entry.url) if entry else wanted
        self.size = entry.size if entry else None
        self.name = os.path.basename(urllib.parse.urlsplit(self.wanted.url).path)
        self.pin = _checksums.pinned(settings.pins, name=self.name, **_identity(wanted))
        self.said: dict[str, str | None] = {_PINS: self.pin}
        if entry and settings.manifest:
            self.said[settings.manifest.path] = entry.sha256
        self.signature = settings.signatures.get(wanted.component)
        self.of_list = self.signature if self.signature and self.signature.of == "checksums" else None
        self.vouched: list[str] = []
        self.documents: dict[str, bytes] = {}
        self.bundled = self._bundled(wanted) if settings.bundle else None
        limits = settings.limits._replace(size=min(settings.limits.size, self.size or settings.limits.size))
        self.cache = _fetch.Cache(settings.cache_dir, mirror=settings.mirror, limits=limits, tools=tools)

    def _bundled(self, wanted: Wanted) -> tuple[_bundle.Bundle, _bundle.Release]:
        """The release in the bundle.

        :raises InputError: if nothing is configured that it is verified by, and others can change the bundle.
        """
        bundle = _the_bundle(self.settings.bundle, self.settings.bundle_sha256)
        release = _bundle.find(bundle, url=wanted.url, **_identity(wanted))
        self.said[bundle.name] = release.sha256
        if not self._is_verified():
            _bundle.refuse_foreign(bundle.path, release.told)
        return bundle, release

    def _is_verified(self) -> bool:
        """Whether the operator says what a release of a bundle is verified by."""
        return bool(self.pin or self.manifest or self.signature or self.settings.bundle_sha256)

    def whole(self) -> Obtained:
        """With its archive."""
        found = self._archive()
        size = os.path.getsize(found.path)
        if self.size not in (None, size):
            raise ReleaseError(
                f"{self.name} has {size} bytes, but {self.settings.manifest and self.settings.manifest.path} says "
                f"{self.size}: correct the manifest and sign it again",
                key="manifest.malformed",
            )
        if self.signature and self.signature.of == "archive":
            self._verify_archive(self.signature, found.path)
        return self._obtained(found.path, found.sha256, size, fetched=found.fetched)

    def hash_only(self) -> Obtained:
        """Without."""
        if self.signature and self.signature.of == "archive":
            raise InputError(
                f"upgrade_release_signatures.{self.wanted.component} is of the archive, which has to be on the "
                "controller for that: it doesn't go together with upgrade_fetch=host",
                key="input.release_settings",
            )
        sha256 = self._known()
        if self.bundled and self.of_list:
            self._says(self._document(self._checksums()), self._checksums(), False)
        if self._asks_for_list():
            try:
                sha256 = self.cache.expected(self.wanted.url, self._checksums(), self._says)
            except ReleaseError as exc:
                if not self._does_without_list(exc) or sha256 is None:
                    raise
        if sha256 is None:
            _refuse_unknown(self.name)
        return self._obtained(None, sha256, self.size, fetched=False)

    def _obtained(self, path: str | None, sha256: str, size: int | None, *, fetched: bool) -> Obtained:
        return Obtained(
            path=path,
            sha256=sha256,
            size=size,
            verified=list(dict.fromkeys([*self.vouched, *self._agreeing(), *self._of_bundle()]))
            or ["nothing: upgrade_release_unverified"],
            manifest_number=self.manifest.number if self.manifest else None,
            fetched=fetched,
            urls=_sources.places(self.wanted.url, self.settings.mirror),
            url=self.wanted.url,
            documents=self.documents,
        )

    def _of_bundle(self) -> list[str]:
        """What the bundle adds: whether the operator vouches for it as a whole; and what it claims, told as that."""
        if not self.bundled:
            return []
        bundle, release = self.bundled
        known = [f"bundle {bundle.name} with the sha256 of upgrade_bundle_sha256"] * bool(self.settings.bundle_sha256)
        alone = [f"nothing but bundle {bundle.name} itself: set upgrade_bundle_sha256"] * (not self._is_verified())
        claims = [f"claim of bundle {bundle.name}, not verified here: {_shown(line)}" for line in release.verified[:8]]
        return [*known, *alone, *claims]

    def _agreeing(self) -> list[str]:
        """What vouches for it beside the project."""
        lines = [f"pin of {self.name} in {_PINS}"] if self.pin else []
        if self.manifest:
            lines.append(f"manifest {self.manifest.number} signed by {', '.join(self.manifest.signers)}")
        return lines

    def _known(self) -> str | None:
        """What is known without asking anybody."""
        return _checksums.agreed(self.said, name=self.name) if any(self.said.values()) else None

    def _asks_for_list(self) -> bool:
        if self.bundled:
            return False
        return self.of_list is not None or (bool(self.wanted.checksums) and self.manifest is None)

    def _does_without_list(self, exc: ReleaseError) -> bool:
        """Whether it is enough that there is none."""
        return exc.key == "release.no_list" and self.of_list is None

    # -- the archive ----------------------------------------------------------------------------------------------

    def _archive(self) -> _fetch.Archive:
        known = self._known()
        if self.bundled:
            if self.of_list:
                self._says(self._document(self._checksums()), self._checksums(), False)
            path = _bundle.take(*self.bundled, cache_dir=self.cache.directory)
            return _fetch.Archive(path, self.bundled[1].sha256, fetched=False)
        if self._asks_for_list():
            try:
                return self.cache.listed(self.wanted.url, self._checksums(), self._says)
            except ReleaseError as exc:
                if not self._does_without_list(exc) or not (known or self.settings.unverified):
                    raise
        if known:
            return self.cache.known(self.wanted.url, known, next(who for who, digest in self.said.items() if digest))
        if not self.settings.unverified:
            _refuse_unknown(self.name)
        self.tools.warn(
            f"{shown(self.wanted.url)} is used without any check of its hash, as upgrade_release_unverified says: "
            "nobody would notice if it was damaged or tampered with. Pin it in upgrade_release_pins"
        )
        return self.cache.unknown(self.wanted.url)

    def _checksums(self) -> str:
        """Where the list is. One that carries its signature stands in for the plain one."""
        return self._place(self.of_list) if self.of_list and self.of_list.cleartext else self.wanted.checksums

    def _document(self, url: str) -> bytes:
        """A checksum list or a signature that is in the bundle.

        :raises ReleaseError: if it isn't there.
        """
        bundle, release = t.cast("tuple[_bundle.Bundle, _bundle.Release]", self.bundled)
        if url not in bundle.documents:
            raise ReleaseError(
                f"{bundle.name} doesn't have {shown(url)}, which upgrade_release_signatures.{release.component} is "
                "verified with: make the bundle again, with the same upgrade_release_signatures",
                key="signature.missing",
            )
        self.documents[url] = bundle.documents[url]
        return self.documents[url]

    def _says(self, listing: bytes, url: str, asked: bool) -> str:
        """What a list says, once its signature holds."""
        vouched = [] if self.bundled else [f"sha256 of {shown(url)}"]
        if self.of_list:
            self.documents[self._checksums()] = listing
            with tempfile.TemporaryDirectory() as directory:
                path = _written(directory, "list", listing)
                signer, listing = self._verify_list(self.of_list, path, listing, url, asked)
                vouched.append(f"signature by {signer} of {shown(url)}")
        text = listing.decode("utf-8", "replace")
        found = _checksums.listed(text, name=self.name, where=shown(url))
        digest = _checksums.agreed({shown(url): found, **self.said}, name=self.name)
        self.vouched = vouched
        return digest

    # -- signatures -----------------------------------------------------------------------------------------------

    def _place(self, signature: Signature) -> str:
        return signature.signature.replace("{url}", self.wanted.url).replace("{checksums}", self.wanted.checksums)

    def _verify_list(self, signature: Signature, path: str, listing: bytes, url: str, asked: bool) -> tuple[str, bytes]:
        """Who signed a list, and what was signed."""
        name = shown(url)
        if signature.cleartext:
            signed = _signatures.verify_cleartext(path, keys=signature.keys, name=name)
            return signed.key, signed.content
        return self._verify(signature, path, name, anew=asked), listing

    def _verify_archive(self, signature: Signature, path: str) -> None:
        """A signature that was kept may be of a release that was made anew: then it is asked for again, once."""
        try:
            signer = self._verify(signature, path, self.name, anew=False)
        except ReleaseError as exc:
            if not exc.key.startswith("signature.") or not signature.signature:
                raise
            signer = self._verify(signature, path, self.name, anew=True)
        self.vouched.append(f"signature by {signer} of {self.name}")

    def _verify(self, signature: Signature, path: str, name: str, *, anew: bool) -> str:
        """Who signed a file."""
        with tempfile.TemporaryDirectory() as directory:
            given = ""
            if signature.signature:
                given = _written(directory, "signature", self._fetched(signature, anew=anew))
            if signature.cosign:
                arguments = [word.replace("{signature}", given) for word in signature.cosign]
                _signatures.verify_cosign(path, arguments=arguments, name=name)
                return "cosign"
            return _signatures.verify_detached(path, given, keys=signature.keys, name=name).key

    def _fetched(self, signature: Signature, *, anew: bool) -> bytes:
        place = self._place(signature)
        if self.bundled:
            return self._document(place)
        mirror = self.settings.mirror
        if _sources.places(place, mirror) == _sources.places(self.wanted.checksums, mirror):
            raise InputError(
                f"upgrade_release_signatures.{self.wanted.component}.signature is the list itself: set cleartext, if "
                "it carries its signature",
                key="input.release_settings",
            )
        try:
            self.documents[place] = self.cache.small(place, anew=anew)
            return self.documents[place]
        except ReleaseError as exc:
            if exc.key != "release.not_found":
                raise
            raise ReleaseError(
                f"{self.name} isn't signed as upgrade_release_signatures.{self.wanted.component} says: {exc}",
                key="signature.missing",
            ) from exc


def _shown(claim: str) -> str:
    """What a bundle claims, as one line that can't be taken for anything else."""
    return "".join(character if character.isprintable() else "?" for character in claim[:200])


def _identity(wanted: Wanted) -> dict[str, str]:
    return {"component": wanted.component, "version": wanted.version, "architecture": wanted.architecture}


def _refuse_unknown(name: str) -> t.NoReturn:
    raise ReleaseError(
        f"nothing says what sha256 {name} has, and nothing is fetched without one: pin it in upgrade_release_pins",
        key="release.no_checksum",
    )


def _written(directory: str, name: str, content: bytes) -> str:
    path = os.path.join(directory, name)
    with open(path, "wb") as sink:
        sink.write(content)
    return path


def _the_manifest(source: ManifestSource) -> _manifest.Manifest:
    """The site's manifest; it is looked at once, as long as its files stay as they are."""
    return _manifest_as_of(source, _stamp(source.path), _stamp(source.allowed_signers))


@functools.lru_cache(maxsize=4)
def _manifest_as_of(source: ManifestSource, *_stamps: t.Any) -> _manifest.Manifest:
    return _manifest.load(
        source.path, allowed_signers=source.allowed_signers, threshold=source.threshold, now=time.time()
    )


def _the_bundle(path: str, sha256: str) -> _bundle.Bundle:
    """What a bundle says of itself; it is read once, as long as it stays as it is."""
    return _bundle_as_of(path, sha256, _stamp(path))


@functools.lru_cache(maxsize=1)
def _bundle_as_of(path: str, sha256: str, _stamps: tuple[int, ...]) -> _bundle.Bundle:
    return _bundle.read(path, sha256=sha256)


def _stamp(path: str) -> tuple[int, ...]:
    """What changes whenever a file does. One that isn't there is told by whoever reads it."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
