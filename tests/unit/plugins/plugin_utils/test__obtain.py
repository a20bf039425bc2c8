# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import _manifest, _obtain
from ansible_collections.observability.stack.tests.unit.signers import Keys, keyring, ssh_keys
from ansible_collections.observability.stack.tests.unit.support import Answer, Web
from ansible_collections.observability.stack.tests.unit.web_faults import Hands, one_context

CONTENT = b"an archive" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = "0" * 64
NAME = "x-1.9.0.linux-amd64.tar.gz"
ARCHIVE, LIST = f"/{NAME}", "/sha256sums.txt"
LISTING = f"{SHA256}  {NAME}\n{OTHER}  other\n".encode()


class Release:
    """A release on a server, and what the inventory says of it."""

    def __init__(self, web: Web, root: pathlib.Path) -> None:
        self.web, self.root, self.hands = web, root, Hands()
        web.answers[ARCHIVE], web.answers[LIST] = Answer(CONTENT), Answer(LISTING)
        self.wanted = _obtain.Wanted("x", "1.9.0", "amd64", f"{web.url}{ARCHIVE}", f"{web.url}{LIST}")

    def obtain(self, *, archive: bool = True, wanted: t.Any = None, **release: t.Any) -> _obtain.Obtained:
        settings = _obtain.read({"cache_dir": str(self.root / "cache"), **release})
        return _obtain.obtain(wanted or self.wanted, settings, archive=archive, tools=self.hands.tools)

    def refused(self, **arguments: t.Any) -> tuple[str, str]:
        with pytest.raises(UpgradeError) as failure:
            self.obtain(**arguments)
        assert "\n" not in str(failure.value)
        return failure.value.key, str(failure.value)

    def asked(self) -> list[str]:
        """What was asked for since the last time."""
        asked = list(self.web.asked)
        self.web.asked.clear()
        return asked

    def put(self, path: str, content: bytes | pathlib.Path) -> None:
        self.web.answers[path] = Answer(content if isinstance(content, bytes) else content.read_bytes())

    @property
    def of_list(self) -> str:
        return f"sha256 of {self.web.url}{LIST}"


@pytest.fixture
def release(web: Web, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setenv("no_proxy", "*")
    one_context(monkeypatch)
    return Release(web, tmp_path)


def test_the_list_vouches_for_a_release(release: Release) -> None:
    found = release.obtain()
    assert pathlib.Path(str(found.path)).read_bytes() == CONTENT
    assert (found.sha256, found.size, found.fetched) == (SHA256, len(CONTENT), True)
    assert (found.verified, found.manifest_number) == ([release.of_list], None)
    assert found.urls == [found.url] == [release.wanted.url]
    release.asked()
    assert release.obtain() == found._replace(fetched=False)
    assert release.asked() == []


def test_only_what_it_must_be_can_be_asked_for(release: Release) -> None:
    found = release.obtain(archive=False, mirror=[f"{release.web.url}/none", release.web.url])
    assert (found.path, found.sha256, found.size, found.fetched) == (None, SHA256, None, False)
    assert found.verified == [release.of_list]
    assert found.urls == [f"{release.web.url}/none{ARCHIVE}", f"{release.web.url}{ARCHIVE}"]
    assert release.asked() == [f"/none{LIST}", LIST]


# -- pins -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [NAME, "x/1.9.0/amd64"])
def test_a_pin_agrees_with_the_list(release: Release, key: str) -> None:
    assert release.obtain(pins={key: SHA256}).verified == [release.of_list, f"pin of {NAME} in upgrade_release_pins"]


@pytest.mark.parametrize("archive", [True, False])
def test_a_pin_and_a_list_that_disagree_are_told(release: Release, archive: bool) -> None:
    key, text = release.refused(pins={NAME: OTHER}, archive=archive)
    assert key == "release.checksum_disagreement"
    assert f"{release.web.url}{LIST}: {SHA256}; upgrade_release_pins: {OTHER}" in text
    assert release.asked() == [LIST]


def test_a_pin_disagrees_also_with_what_the_cache_has(release: Release) -> None:
    release.obtain()
    assert release.refused(pins={NAME: OTHER})[0] == "release.checksum_disagreement"


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_a_pin_is_enough_where_there_is_no_list(release: Release, archive: bool, listed: bool) -> None:
    del release.web.answers[LIST]
    wanted = release.wanted if listed else release.wanted._replace(checksums="")
    found = release.obtain(pins={NAME: SHA256}, archive=archive, wanted=wanted)
    assert (found.sha256, found.verified) == (SHA256, [f"pin of {NAME} in upgrade_release_pins"])
    assert bool(found.path) == archive


def test_a_pin_does_not_stand_in_for_a_list_that_lacks_the_file_or_can_not_be_had(release: Release) -> None:
    release.web.answers[LIST] = Answer(f"{OTHER}  a\n{OTHER}  b\n".encode())
    assert release.refused(pins={NAME: SHA256})[0] == "release.no_checksum"
    release.web.answers[LIST] = Answer(b"", 403)
    assert release.refused(pins={NAME: SHA256})[0] == "release.forbidden"


def test_what_is_not_as_pinned_is_refused(release: Release) -> None:
    del release.web.answers[LIST]
    key, text = release.refused(pins={NAME: OTHER})
    assert key == "release.checksum"
    assert f"but upgrade_release_pins says {OTHER}" in text


# -- nothing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_without_anything_that_vouches_for_it_nothing_is_fetched(release: Release, archive: bool, listed: bool) -> None:
    del release.web.answers[LIST]
    wanted = release.wanted if listed else release.wanted._replace(checksums="")
    key, text = release.refused(archive=archive, wanted=wanted)
    assert key == ("release.no_list" if listed else "release.no_checksum")
    assert "upgrade_release_pins" in text
    assert ARCHIVE not in release.asked()


def test_nothing_vouches_for_it_if_the_operator_says_so_and_is_warned(release: Release) -> None:
    del release.web.answers[LIST]
    found = release.obtain(unverified=True)
    assert pathlib.Path(str(found.path)).name == found.sha256 == SHA256
    assert found.verified == ["nothing: upgrade_release_unverified"]
    assert "used without any check of its hash, as upgrade_release_unverified says" in release.hands.warned[-1]
    assert release.asked() == [LIST, ARCHIVE]
    assert release.obtain(unverified=True) == found._replace(fetched=False)
    assert release.asked() == [LIST]


def test_what_was_taken_unverified_is_that_from_then_on(release: Release) -> None:
    wanted = release.wanted._replace(checksums="")
    found = release.obtain(unverified=True, wanted=wanted)
    release.put(ARCHIVE, b"another")
    os.unlink(str(found.path))
    assert release.refused(unverified=True, wanted=wanted)[0] == "release.checksum"
    release.put(ARCHIVE, CONTENT)
    assert release.obtain(unverified=True, wanted=wanted) == found


def test_what_does_not_come_whole_is_not_taken_unverified(release: Release) -> None:
    wanted = release.wanted._replace(checksums="")
    release.web.answers[ARCHIVE] = Answer(CONTENT, length=2 * len(CONTENT))
    assert release.refused(unverified=True, wanted=wanted, limits={"attempts": 1})[0] == "release.incomplete"
    release.web.answers[ARCHIVE] = Answer(CONTENT, headers={"Content-Length": "", "Transfer-Encoding": "identity"})
    key, text = release.refused(unverified=True, wanted=wanted)
    assert (key, "doesn't tell how large it is" in text) == ("release.unavailable", True)


def test_a_list_counts_also_where_none_is_needed(release: Release) -> None:
    release.put(ARCHIVE, b"evil")
    assert release.refused(unverified=True)[0] == "release.checksum"
    release.web.answers[LIST] = Answer(b"", 403)
    assert release.refused(unverified=True)[0] == "release.forbidden"


def test_what_nothing_vouches_for_is_not_for_hosts_to_fetch(release: Release) -> None:
    wanted = release.wanted._replace(checksums="")
    assert release.refused(unverified=True, archive=False, wanted=wanted)[0] == "release.no_checksum"


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Keys]:
    with keyring(tmp_path_factory.mktemp("keys")) as made:
        for name in ("ours", "other"):
            made.make(name)
        yield made


class Signed:
    """The release, signed."""

    def __init__(self, release: Release, keys: Keys) -> None:
        self.release, self.keys = release, keys

    def sign(self, path: str, name: str, *how: str, to: str = "") -> None:
        """Sign what the server has at a path, as it is now."""
        answer = self.release.web.answers[path]
        assert isinstance(answer, Answer)
        there = self.keys.directory / pathlib.Path(path).name
        there.write_bytes(answer.body)
        self.release.put(to or f"{path}.asc", self.keys.sign(name, there, *how))

    def obtain(self, **signature: t.Any) -> _obtain.Obtained:
        return self.release.obtain(signatures=self.settings(**signature))

    def refused(self, **signature: t.Any) -> tuple[str, str]:
        return self.release.refused(signatures=self.settings(**signature))

    def settings(self, **signature: t.Any) -> dict[str, t.Any]:
        return {"x": {"keys": [self.keys.public("ours")], **signature}}


@pytest.fixture
def signed(release: Release, keys: Keys) -> Signed:
    return Signed(release, keys)


def test_a_signature_of_the_archive_is_checked_each_time_and_asked_for_once(signed: Signed) -> None:
    signed.sign(ARCHIVE, "ours")
    found = signed.obtain()
    (by_list, by_key) = found.verified
    assert by_list == signed.release.of_list
    assert by_key.startswith("signature by ")
    assert by_key.endswith(f" of {NAME}")
    assert signed.release.asked() == [LIST, ARCHIVE, f"{ARCHIVE}.asc"]
    assert signed.obtain() == found._replace(fetched=False)
    assert signed.release.asked() == []


def test_a_signature_that_is_not_there_or_of_another_is_refused(signed: Signed) -> None:
    key, text = signed.refused()
    assert key == "signature.missing"
    assert f"{NAME} isn't signed as upgrade_release_signatures.x says: {signed.release.web.url}{ARCHIVE}.asc" in text
    signed.sign(ARCHIVE, "other")
    assert signed.refused()[0] == "signature.unknown_key"
    signed.release.put(f"{ARCHIVE}.asc", b"nothing")
    assert signed.refused()[0] == "signature.missing"
    signed.sign(ARCHIVE, "ours")
    assert len(signed.obtain().verified) == 2


def test_hosts_can_not_fetch_what_only_its_own_signature_proves(signed: Signed) -> None:
    key, text = signed.release.refused(archive=False, signatures=signed.settings())
    assert key == "input.release_settings"
    assert "upgrade_release_signatures.x is of the archive" in text
    assert "doesn't go together with upgrade_fetch=host" in text


@pytest.mark.parametrize("archive", [True, False])
def test_a_signature_of_the_list_is_checked_before_the_list_is_read(signed: Signed, archive: bool) -> None:
    signed.sign(LIST, "ours")
    settings = signed.settings(of="checksums")
    found = signed.release.obtain(signatures=settings, archive=archive)
    assert found.verified[0] == signed.release.of_list
    assert found.verified[1].endswith(f" of {signed.release.web.url}{LIST}")
    release = signed.release
    release.asked()
    assert release.obtain(signatures=settings, archive=archive) == found._replace(fetched=False)
    assert release.asked() == []


def test_a_list_that_was_changed_is_refused_and_nothing_fetched(signed: Signed) -> None:
    signed.sign(LIST, "ours")
    signed.release.put(LIST, LISTING.replace(OTHER.encode(), b"1" * 64))
    assert signed.refused(of="checksums")[0] == "signature.bad"
    assert ARCHIVE not in signed.release.asked()


def test_a_list_that_was_made_anew_is_asked_for_with_its_signature(signed: Signed) -> None:
    signed.sign(LIST, "ours")
    signed.obtain(of="checksums")
    other = b"made anew"
    signed.release.put(ARCHIVE, other)
    signed.release.put(LIST, f"{hashlib.sha256(other).hexdigest()}  {NAME}\n".encode())
    signed.sign(LIST, "ours")
    for path in (signed.release.root / "cache" / "sha256").iterdir():
        path.unlink()
    assert signed.obtain(of="checksums").sha256 == hashlib.sha256(other).hexdigest()


def test_without_its_list_a_signed_release_is_refused_though_it_is_pinned(signed: Signed) -> None:
    signed.sign(LIST, "ours")
    del signed.release.web.answers[LIST]
    settings = signed.settings(of="checksums")
    pins = {NAME: SHA256}
    assert signed.release.refused(signatures=settings, pins=pins, unverified=True)[0] == "release.no_list"
    wanted = signed.release.wanted._replace(checksums="")
    assert signed.release.refused(signatures=settings, pins=pins, wanted=wanted)[0] == "release.address"


@pytest.mark.parametrize("place", ["{checksums}.asc", "{checksums}"])
def test_a_list_may_carry_its_signature(signed: Signed, place: str) -> None:
    signed.sign(LIST, "ours", "--clearsign", to=LIST if place == "{checksums}" else f"{LIST}.asc")
    found = signed.obtain(of="checksums", cleartext=True, signature=place)
    assert [line.split()[0] for line in found.verified] == ["sha256", "signature"]
    assert signed.release.asked() == [place.replace("{checksums}", LIST), ARCHIVE]


def test_a_list_is_no_signature_of_itself(signed: Signed) -> None:
    key, text = signed.refused(of="checksums", signature="{checksums}")
    assert (key, "is the list itself: set cleartext" in text) == ("input.release_settings", True)


def test_cosign_is_given_the_file_of_its_signature(
    release: Release, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "cosign"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$(cat "${4#--bundle=}")" = good ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    entry = {"cosign": ["--key", "k", "--bundle={signature}"], "signature": "{checksums}.json", "of": "checksums"}
    release.put(f"{LIST}.json", b"bad")
    assert release.refused(signatures={"x": entry})[0] == "signature.bad"
    release.put(f"{LIST}.json", b"good")
    found = release.obtain(signatures={"x": entry})
    assert found.verified == [release.of_list, f"signature by cosign of {release.web.url}{LIST}"]


def test_another_components_signatures_are_nothing_to_it(release: Release) -> None:
    assert release.obtain(signatures={"y": {"keys": ["/none"]}}).verified == [release.of_list]


# -- the site's own manifest ------------------------------------------------------------------------------------------


class Site:
    """A manifest, signed by alice."""

    def __init__(self, release: Release, directory: pathlib.Path) -> None:
        self.release, self.path, self.signers = release, directory / "releases.json", directory / "allowed_signers"
        self.keys = ssh_keys(directory, "alice")
        self.signers.write_text("alice " + self.keys["alice"].with_suffix(".pub").read_text())
        self.entry = _manifest.Release("x", "1.9.0", "amd64", release.wanted.url, len(CONTENT), SHA256)
        self.write()

    def write(self, *, number: int = 7, expires: str = "2999-12-31T00:00:00Z", **changes: t.Any) -> None:
        self.write_all([self.entry._replace(**changes)], number=number, expires=expires)

    def write_all(
        self, entries: list[_manifest.Release], *, number: int = 7, expires: str = "2999-12-31T00:00:00Z"
    ) -> None:
        self.path.write_bytes(_manifest.create(entries, number=number, expires=expires))
        self.path.with_name("releases.json.sig").unlink(missing_ok=True)
        _manifest.sign(str(self.path), key=str(self.keys["alice"]))

    @property
    def settings(self) -> dict[str, str]:
        return {"path": str(self.path), "allowed_signers": str(self.signers)}

    def obtain(self, **arguments: t.Any) -> _obtain.Obtained:
        return self.release.obtain(manifest=self.settings, **arguments)

    def refused(self, **arguments: t.Any) -> tuple[str, str]:
        return self.release.refused(manifest=self.settings, **arguments)


@pytest.fixture
def site(release: Release, tmp_path: pathlib.Path) -> Site:
    return Site(release, tmp_path)


@pytest.mark.parametrize("archive", [True, False])
def test_a_manifest_is_enough_and_the_list_is_not_asked_for(site: Site, archive: bool) -> None:
    found = site.obtain(archive=archive)
    assert (found.sha256, found.size, found.manifest_number) == (SHA256, len(CONTENT), 7)
    assert found.verified == ["manifest 7 signed by alice"]
    assert site.release.asked() == ([ARCHIVE] if archive else [])


def test_the_manifest_says_where_the_release_is(site: Site) -> None:
    site.release.put("/own/x.tar.gz", CONTENT)
    site.write(url=f"{site.release.web.url}/own/x.tar.gz")
    found = site.obtain(pins={"x.tar.gz": SHA256})
    assert found.url == f"{site.release.web.url}/own/x.tar.gz"
    assert found.verified == ["pin of x.tar.gz in upgrade_release_pins", "manifest 7 signed by alice"]
    assert site.release.asked() == ["/own/x.tar.gz"]


def test_what_the_manifest_does_not_have_is_refused(site: Site) -> None:
    assert site.refused(wanted=site.release.wanted._replace(version="1.9.1"))[0] == "manifest.not_listed"
    assert site.release.asked() == []


def test_below_the_floor_of_what_is_in_place_nothing_is_fetched(site: Site) -> None:
    entries = [site.entry._replace(version="2.0.0", rollback_floor="1.9.1"), site.entry]
    site.write_all(entries)
    wanted = site.release.wanted._replace(from_version="2.0.0")
    assert site.refused(wanted=wanted)[0] == "manifest.below_floor"
    assert site.release.asked() == []


def test_a_pin_must_agree_with_the_manifest(site: Site) -> None:
    key, text = site.refused(pins={NAME: OTHER})
    assert (key, f"{site.path}: {SHA256}" in text) == ("release.checksum_disagreement", True)


def test_no_byte_more_is_taken_than_the_manifest_says(site: Site) -> None:
    site.write(size=len(CONTENT) - 1)
    assert site.refused()[0] == "release.too_large"
    site.write(size=len(CONTENT) + 1)
    key, text = site.refused()
    assert (key, f"{NAME} has {len(CONTENT)} bytes, but {site.path} says {len(CONTENT) + 1}" in text) == (
        "manifest.malformed",
        True,
    )


def test_a_manifest_is_read_again_when_it_was_changed(site: Site) -> None:
    site.obtain()
    site.write(number=8)
    assert site.obtain().manifest_number == 8
    site.write(number=9, expires="2020-01-01T00:00:00Z")
    assert site.refused()[0] == "manifest.expired"
    site.path.unlink()
    assert site.refused()[0] == "manifest.missing"


def test_the_projects_signature_is_checked_beside_the_manifest(site: Site, keys: Keys) -> None:
    signed = Signed(site.release, keys)
    signed.sign(LIST, "ours")
    signed.sign(ARCHIVE, "ours")
    of_archive = site.obtain(signatures=signed.settings())
    assert [line.split()[0] for line in of_archive.verified] == ["signature", "manifest"]
    assert LIST not in site.release.asked()
    of_list = site.obtain(signatures=signed.settings(of="checksums"))
    assert [line.split()[0] for line in of_list.verified] == ["sha256", "signature", "manifest"]
