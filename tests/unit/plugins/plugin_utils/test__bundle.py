# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import tarfile
import threading
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError
from ansible_collections.observability.stack.plugins.plugin_utils import _bundle, _obtain, _release_settings
from ansible_collections.observability.stack.tests.unit.signers import Keys, keyring
from ansible_collections.observability.stack.tests.unit.support import snapshot

MADE_AT = "2026-11-21T10:00:00Z"
INDEX = {"github:x/x": [{"version": "1.9.0", "date": "2026-05-01", "prerelease": False}]}
CONTENTS = {"amd64": b"an archive" * 1000, "arm64": b"another one"}


def release(architecture: str, **changes: t.Any) -> _bundle.Release:
    content = CONTENTS[architecture]
    url = f"https://example.org/x-1.9.0.linux-{architecture}.tar.gz"
    digest = hashlib.sha256(content).hexdigest()
    made = _bundle.Release("x", "1.9.0", architecture, url, digest, len(content), ["sha256 of https://example.org/s"])
    return made._replace(**changes)


AMD, ARM = release("amd64"), release("arm64")


class Made:
    """A bundle of two archives, and where it is used."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root, self.path, self.cache = root, root / "x.tar", root / "cache"
        self.archives = {name: root / name for name in CONTENTS}
        for name, content in CONTENTS.items():
            self.archives[name].write_bytes(content)
        self.write()

    def write(self, *releases: _bundle.Release, path: pathlib.Path | None = None) -> None:
        paired = [(each, str(self.archives[each.architecture])) for each in releases or (ARM, AMD)]
        _bundle.write(str(path or self.path), paired, made_at=MADE_AT, plan="d" * 64, index=INDEX)

    def read(self) -> _bundle.Bundle:
        return _bundle.read(str(self.path))

    def take(self, which: _bundle.Release = AMD) -> bytes:
        return pathlib.Path(_bundle.take(self.read(), which, cache_dir=str(self.cache))).read_bytes()

    def rewrite(self, *members: tuple[str, bytes] | tarfile.TarInfo) -> None:
        """Another file in its place, of these members."""
        with tarfile.open(self.path, "w") as sink:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    sink.addfile(member)
                else:
                    sink.addfile(_bundle._member(member[0], len(member[1])), io.BytesIO(member[1]))

    def members(self) -> list[tuple[str, bytes]]:
        with tarfile.open(self.path) as source:
            return [(member.name, source.extractfile(member).read()) for member in source]  # type: ignore[union-attr]

    def about(self, **changes: t.Any) -> bytes:
        return json.dumps({**json.loads(self.members()[0][1]), **changes}).encode()


@pytest.fixture
def made(tmp_path: pathlib.Path) -> Made:
    return Made(tmp_path)


def test_a_bundle_tells_what_it_was_made_of(made: Made) -> None:
    bundle = made.read()
    assert (bundle.name, bundle.made_at, bundle.plan) == ("x.tar", MADE_AT, "d" * 64)
    assert (bundle.releases, bundle.listing) == ((AMD, ARM), INDEX)
    assert _bundle.is_bundle(str(made.path))
    assert [name for name, _content in made.members()] == [
        "bundle.json",
        *sorted(f"archives/{each.sha256}" for each in (AMD, ARM)),
    ]
    assert sorted(path.name for path in made.root.iterdir()) == ["amd64", "arm64", "x.tar"]


def test_the_same_content_gives_the_same_bytes(made: Made) -> None:
    made.write(AMD, ARM, path=made.root / "y.tar")
    assert (made.root / "y.tar").read_bytes() == made.path.read_bytes()


def test_an_archive_of_two_releases_is_in_it_once(made: Made) -> None:
    twin = AMD._replace(component="y")
    made.write(AMD, twin)
    assert len(made.members()) == 2
    assert made.take(twin) == CONTENTS["amd64"]


def test_what_is_taken_is_kept_in_the_cache_by_its_content(made: Made) -> None:
    assert made.take() == CONTENTS["amd64"]
    before = snapshot(made.cache)
    assert made.take() == CONTENTS["amd64"]
    assert snapshot(made.cache) == before
    assert [path.name for path in (made.cache / "sha256").iterdir()] == [AMD.sha256]
    assert (made.cache / "sha256" / AMD.sha256).stat().st_mode & 0o777 == 0o600


def test_a_cached_archive_that_was_changed_is_replaced(made: Made) -> None:
    made.take()
    (made.cache / "sha256" / AMD.sha256).write_bytes(b"evil")
    assert made.take() == CONTENTS["amd64"]


def test_many_at_a_time_take_it_once(made: Made) -> None:
    taken: list[bytes] = []
    threads = [threading.Thread(target=lambda: taken.append(made.take())) for _turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [CONTENTS["amd64"]] * 8
    assert [path.name for path in (made.cache / "sha256").iterdir()] == [AMD.sha256]


def test_an_archive_that_was_tampered_with_is_refused_by_its_name_and_not_kept(made: Made) -> None:
    content = made.path.read_bytes().replace(b"an archivean archive", b"evilarchivean archiv", 1)
    made.path.write_bytes(content)
    with pytest.raises(
        ReleaseError, match=rf"x.tar: archives/{AMD.sha256} \(x 1.9.0 for amd64\) has sha256 "
    ) as failure:
        made.take()
    assert failure.value.key == "release.checksum"
    assert list((made.cache / "sha256").iterdir()) == []
    assert made.take(ARM) == CONTENTS["arm64"]


def link(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member


def tamper(made: Made, case: str) -> None:
    first, *others = made.members()
    cases: dict[str, list[t.Any]] = {
        "another file first": [others[0], first],
        "a file more": [first, *others, ("../../etc/evil", b"x")],
        "a file twice": [first, *others, others[0]],
        "a file less": [first, others[0]],
        "a link": [first, others[0], link(others[1][0])],
        "other bytes": [first, (others[0][0], b"short"), others[1]],
        "another schema": [("bundle.json", made.about(schema=2)), *others],
        "no index": [("bundle.json", made.about(index=None)), *others],
        "a name out of it": [("bundle.json", made.about(releases=[{**AMD._asdict(), "sha256": "../x"}])), *others],
        "a release twice": [("bundle.json", made.about(releases=[AMD._asdict()] * 2)), *others],
        "no JSON": [("bundle.json", b"{"), *others],
        "nothing": [],
    }
    made.rewrite(*cases[case])


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("another file first", f"archives/{min(AMD.sha256, ARM.sha256)} stands where bundle.json must be"),
        ("a file more", "../../etc/evil isn't named in bundle.json"),
        ("a file twice", "is there twice"),
        ("a file less", f"archives/{max(AMD.sha256, ARM.sha256)} isn't there: the bundle is cut off or damaged"),
        ("a link", f"archives/{max(AMD.sha256, ARM.sha256)} isn't the file of"),
        ("other bytes", f"archives/{min(AMD.sha256, ARM.sha256)} isn't the file of"),
        ("another schema", "bundle.json has schema 2, this collection reads 1"),
        ("no index", "bundle.json has no proper index"),
        ("a name out of it", "bundle.json has a release that is none: {'component': 'x'"),
        ("a release twice", "bundle.json names a release twice"),
        ("no JSON", "is no bundle, or damaged (Expecting property name"),
        ("nothing", " stands where bundle.json must be"),
    ],
)
def test_a_bundle_that_is_not_what_it_says_is_refused_as_a_whole(made: Made, case: str, says: str) -> None:
    tamper(made, case)
    with pytest.raises(InputError) as failure:
        made.read()
    assert str(failure.value).startswith(f"upgrade_bundle: {made.path}")
    assert says in str(failure.value)
    assert failure.value.key == "bundle.damaged"
    assert "\n" not in str(failure.value)


def test_a_bundle_that_was_cut_off_is_refused_wherever_that_was(made: Made) -> None:
    whole = made.path.read_bytes()
    last = max(made.read().places.values())
    for length in range(0, last, 512):
        made.path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            made.read()


@pytest.mark.parametrize(("content", "key"), [(None, "bundle.unreadable"), (b"", "bundle.damaged")])
def test_what_is_no_bundle_is_told(made: Made, content: bytes | None, key: str) -> None:
    made.path.unlink()
    if content is not None:
        made.path.write_bytes(content)
    with pytest.raises(InputError, match=f"upgrade_bundle: {made.path}") as failure:
        made.read()
    assert failure.value.key == key
    assert not _bundle.is_bundle(str(made.path))


def wanted(**changes: str) -> dict[str, str]:
    return {"component": "x", "version": "1.9.0", "architecture": "amd64", "url": AMD.url, **changes}


def test_a_release_is_found_by_what_it_is(made: Made) -> None:
    assert _bundle.find(made.read(), **wanted()) == AMD


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "2.0.0"}, "x.tar doesn't have x 2.0.0 for amd64: make one for this plan"),
        ({"architecture": "armv7"}, "x.tar doesn't have x 1.9.0 for armv7: "),
        (
            {"url": "https://ops:geheim@other.example/x.tgz?token=geheim"},
            f"x.tar has x 1.9.0 for amd64 from {AMD.url}, not from https://",
        ),
    ],
)
def test_a_release_that_is_not_there_is_told(made: Made, changes: dict[str, str], says: str) -> None:
    with pytest.raises(ReleaseError) as failure:
        _bundle.find(made.read(), **wanted(**changes))
    assert says in str(failure.value)
    assert failure.value.key == "bundle.no_release"
    assert "geheim" not in str(failure.value)


def test_sizes_are_told_without_asking_anybody(made: Made) -> None:
    assert _bundle.sizes(str(made.path), [AMD.url, "https://example.org/other.tar.gz"]) == {
        AMD.url: {"bytes": AMD.size, "status": 200},
        "https://example.org/other.tar.gz": {
            "bytes": None,
            "status": None,
            "missing": "x.tar doesn't have https://example.org/other.tar.gz",
        },
    }


@pytest.mark.parametrize("change", ["other", "shorter"])
def test_an_archive_that_changes_meanwhile_makes_no_bundle(made: Made, change: str) -> None:
    content = CONTENTS["amd64"]
    made.archives["amd64"].write_bytes(content.replace(b"an", b"no") if change == "other" else content[:-1])
    before = snapshot(made.root)
    with pytest.raises(ReleaseError):
        made.write()
    after = snapshot(made.root)
    assert {path: seen[-1] for path, seen in after.items()} == {path: seen[-1] for path, seen in before.items()}


def test_a_bundle_that_cannot_be_written_is_told(made: Made) -> None:
    with pytest.raises(ReleaseError, match="can't be written: ") as failure:
        made.write(path=made.archives["amd64"] / "y.tar")
    assert failure.value.key == "bundle.unwritable"


def test_a_cache_that_cannot_be_written_is_told(made: Made) -> None:
    made.cache.write_text("a file")
    with pytest.raises(ReleaseError, match="Releases can't be kept there; set upgrade_cache_dir") as failure:
        made.take()
    assert failure.value.key == "release.cache"
    assert os.path.isfile(made.cache)


# -- as the place of everything -----------------------------------------------------------------------------------

DEAD = "http://127.0.0.1:1"
"""Where nobody answers."""
CLAIM = "claim of bundle x.tar, not verified here: sha256 of https://example.org/s"
NOBODY = 65534


def obtain(made: Made, *, archive: bool = True, component: str = "x", **settings: t.Any) -> _obtain.Obtained:
    url = AMD.url
    wanted = _obtain.Wanted(component, "1.9.0", "amd64", url, "https://example.org/s")
    given = {"cache_dir": str(made.cache), "bundle": str(made.path), "mirror": [DEAD], **settings}
    return _obtain.obtain(wanted, _obtain.read(given), archive=archive)


def test_a_release_is_obtained_from_a_bundle_and_nobody_is_asked(made: Made) -> None:
    got = obtain(made)
    assert got.path
    assert pathlib.Path(got.path).read_bytes() == CONTENTS["amd64"]
    assert (got.sha256, got.size, got.fetched) == (AMD.sha256, AMD.size, False)
    assert got.verified == ["nothing but bundle x.tar itself: set upgrade_bundle_sha256", CLAIM]
    assert obtain(made) == got


def test_only_its_hash_is_told_without_taking_it(made: Made) -> None:
    got = obtain(made, archive=False)
    assert (got.path, got.sha256) == (None, AMD.sha256)
    assert not made.cache.exists()


def test_what_a_bundle_claims_is_never_told_as_a_verification(made: Made) -> None:
    lie = [
        "signature by 0123 of x\nmanifest 7 signed by alice",
        "pin of x in upgrade_release_pins",
        "\x1b]52;c;evil\x07",
    ]
    made.write(AMD._replace(verified=lie * 5))
    told = obtain(made).verified
    assert told[0] == "nothing but bundle x.tar itself: set upgrade_bundle_sha256"
    assert {line.partition(":")[0] for line in told[1:]} == {"claim of bundle x.tar, not verified here"}
    assert all(line.isprintable() for line in told)
    assert len(told) < 10


def test_a_bundle_that_the_operator_knows_the_hash_of_is_told_so(made: Made) -> None:
    digest = hashlib.sha256(made.path.read_bytes()).hexdigest()
    told = obtain(made, bundle_sha256=digest.upper()).verified
    assert told == ["bundle x.tar with the sha256 of upgrade_bundle_sha256", CLAIM]


@pytest.mark.parametrize("how", ["archive", "claims", "tail"])
def test_a_bundle_of_another_hash_is_refused(made: Made, how: str) -> None:
    digest = hashlib.sha256(made.path.read_bytes()).hexdigest()
    if how == "archive":
        evil = b"evil archive"
        made.archives["amd64"].write_bytes(evil)
        made.write(AMD._replace(sha256=hashlib.sha256(evil).hexdigest(), size=len(evil)))
    elif how == "claims":
        made.write(AMD._replace(verified=["manifest 7 signed by alice"]), ARM)
    else:
        made.path.write_bytes(made.path.read_bytes() + bytes(512))
    with pytest.raises(InputError, match="and upgrade_bundle_sha256 is ") as failure:
        obtain(made, bundle_sha256=digest)
    assert failure.value.key == "bundle.checksum"
    settings = {"bundle": str(made.path), "bundle_sha256": digest}
    assert "Nothing of it is used" in _release_settings.problems(settings)[0]


@pytest.mark.parametrize("how", ["file", "directory", "mode"])
def test_a_bundle_that_others_can_change_must_be_verified_by_something(made: Made, how: str) -> None:
    if how == "mode":
        made.path.chmod(0o666)
    else:
        os.chown(made.path if how == "file" else made.root, NOBODY, 0)
    with pytest.raises(InputError, match=r"nothing is configured that x 1\.9\.0 for amd64 is verified by") as failure:
        obtain(made, cache_dir="/nonexistent/cache")
    assert failure.value.key == "bundle.unverified"
    (problem,) = _release_settings.problems({"bundle": str(made.path)})
    assert "nothing is configured that what is in it is verified by" in problem
    digest = hashlib.sha256(made.path.read_bytes()).hexdigest()
    for verified in ({"bundle_sha256": digest}, {"pins": {"x/1.9.0/amd64": AMD.sha256}}):
        assert obtain(made, archive=False, **verified).sha256 == AMD.sha256


class SignedBundle:
    """A bundle of a release whose project signs, made with the signature."""

    def __init__(self, made: Made, keys: Keys) -> None:
        self.made, self.keys = made, keys
        self.archive = made.archives["amd64"]
        self.listing = made.root / "s"
        self.listing.write_text(f"{AMD.sha256}  x-1.9.0.linux-amd64.tar.gz\n{'0' * 64}  y\n")
        for name in ("ours", "theirs"):
            keys.make(name)
        self.names = {"archive": (AMD.url, self.archive), "checksums": ("https://example.org/s", self.listing)}

    def write(self, of: str, by: str = "ours", **changes: bytes) -> None:
        url, path = self.names[of]
        documents = {url: path.read_bytes()} if of == "checksums" else {}
        documents[f"{url}.asc"] = self.keys.sign(by, path).read_bytes()
        paired = [(AMD._replace(verified=["signature by ours"]), str(self.archive))]
        documents = {place: changes.get(place.rpartition(".")[2], data) for place, data in documents.items()}
        path = self.made.path
        _bundle.write(str(path), paired, made_at=MADE_AT, plan="d" * 64, index=INDEX, documents=documents)

    def obtain(self, of: str, **more: t.Any) -> _obtain.Obtained:
        return obtain(self.made, signatures={"x": {"keys": [self.keys.public("ours")], "of": of}}, **more)

    def refused(self, of: str) -> str:
        with pytest.raises(ReleaseError) as failure:
            self.obtain(of)
        return failure.value.key


@pytest.fixture
def signed(made: Made) -> t.Iterator[SignedBundle]:
    with keyring(made.root) as keys:
        yield SignedBundle(made, keys)


@pytest.mark.parametrize("of", ["archive", "checksums"])
def test_a_signature_travels_in_the_bundle_and_is_verified_where_it_is_used(signed: SignedBundle, of: str) -> None:
    signed.write(of)
    os.chown(signed.made.path, NOBODY, 0)  # whose file it is doesn't matter then
    got = signed.obtain(of)
    assert got.verified[0].startswith("signature by ")
    assert [line.partition(":")[0] for line in got.verified[1:]] == ["claim of bundle x.tar, not verified here"]
    if of == "checksums":
        assert signed.obtain(of, archive=False).verified == got.verified


@pytest.mark.parametrize("of", ["archive", "checksums"])
def test_a_bundle_without_the_signature_that_is_wanted_is_refused(signed: SignedBundle, of: str) -> None:
    signed.made.write(AMD._replace(verified=["signature by ours"]))
    assert signed.refused(of) == "signature.missing"
    signed.write(of, by="theirs")
    assert signed.refused(of) == "signature.unknown_key"
    signed.write(of, asc=b"no signature")
    assert signed.refused(of) == "signature.missing"


def test_a_bundle_with_another_archive_than_was_signed_is_refused(signed: SignedBundle) -> None:
    signed.write("checksums")
    documents = signed.made.read().documents
    evil = signed.made.root / "evil"
    evil.write_bytes(b"evil")
    release = AMD._replace(sha256=hashlib.sha256(b"evil").hexdigest(), size=4)
    _bundle.write(
        str(signed.made.path), [(release, str(evil))], made_at=MADE_AT, plan="", index=INDEX, documents=documents
    )
    assert signed.refused("checksums") == "release.checksum_disagreement"
    listing = f"{release.sha256}  x-1.9.0.linux-amd64.tar.gz\n".encode()
    documents = {url: listing if url.endswith("/s") else content for url, content in documents.items()}
    _bundle.write(
        str(signed.made.path), [(release, str(evil))], made_at=MADE_AT, plan="", index=INDEX, documents=documents
    )
    assert signed.refused("checksums") == "signature.bad"


def test_where_a_bundle_is_written_nothing_that_is_there_is_followed(made: Made) -> None:
    victim, dest = made.root / "victim", made.root / "dest.tar"
    victim.write_text("precious")
    for name in ("dest.tar", ".dest.tar.upgrade-new"):
        (made.root / name).symlink_to(victim)
    made.write(path=dest)
    assert victim.read_text() == "precious"
    assert not dest.is_symlink()
    assert dest.stat().st_mode & 0o777 == 0o600
    assert _bundle.is_same(str(dest), [AMD, ARM], plan="d" * 64, index=INDEX)
    os.chown(dest, NOBODY, 0)
    assert not _bundle.is_same(str(dest), [AMD, ARM], plan="d" * 64, index=INDEX)
    dest.unlink()
    dest.symlink_to(made.path)
    assert not _bundle.is_same(str(dest), [AMD, ARM], plan="d" * 64, index=INDEX)


def test_while_a_bundle_is_written_nobody_else_can_reach_it(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    rename = os.rename

    def looking(source: str, dest: str) -> None:
        seen.append(os.stat(os.path.dirname(source)).st_mode & 0o777)
        rename(source, dest)

    monkeypatch.setattr(os, "rename", looking)
    made.write()
    assert seen == [0o700]


@pytest.mark.parametrize("documents", [[], {"x": 1}, {"x": "no base64!"}, "x"])
def test_documents_that_are_none_are_refused(made: Made, documents: t.Any) -> None:
    first, *others = made.members()
    made.rewrite(("bundle.json", made.about(documents=documents)), *others)
    with pytest.raises(InputError, match="has a document that is none"):
        made.read()
    assert first[0] == "bundle.json"


def test_a_pin_must_agree_with_the_bundle(made: Made) -> None:
    name = AMD.url.rpartition("/")[2]
    assert obtain(made, pins={name: AMD.sha256}).verified == [f"pin of {name} in upgrade_release_pins", CLAIM]
    with pytest.raises(
        ReleaseError, match=r"it should have different sha256 \(upgrade_release_pins: 0+; x.tar: "
    ) as failure:
        obtain(made, pins={name: "0" * 64})
    assert failure.value.key == "release.checksum_disagreement"


def test_a_release_that_the_bundle_lacks_is_not_looked_for_elsewhere(made: Made) -> None:
    with pytest.raises(ReleaseError, match=r"x\.tar doesn't have y 1.9.0 for amd64: make one for this plan"):
        obtain(made, component="y")


def test_a_bundle_that_was_replaced_is_read_anew(made: Made) -> None:
    obtain(made)
    made.write(ARM)
    with pytest.raises(ReleaseError, match=r"x\.tar doesn't have x 1.9.0 for amd64"):
        obtain(made)
