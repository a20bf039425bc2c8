# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError
from ansible_collections.observability.stack.plugins.plugin_utils import _manifest
from ansible_collections.observability.stack.tests.unit.signers import ssh_keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NOW = 1_795_000_000.0  # 2026-11-18
EXPIRES = "2026-12-31T00:00:00Z"
URL = "https://example.org/x-1.9.0.linux-amd64.tar.gz"
X = _manifest.Release("x", "1.9.0", "amd64", URL, 1000, "a" * 64, "1.5.0")
ARM = X._replace(architecture="arm64", sha256="b" * 64, rollback_floor=None)
NEWER = X._replace(version="2.0.0-rc.1", sha256="c" * 64)
NAMES = ("alice", "bob", "eve")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    return ssh_keys(tmp_path_factory.mktemp("keys"), *NAMES)


class Site:
    """A manifest, its signatures, and whose count: those of alice and bob."""

    def __init__(self, directory: pathlib.Path, keys: dict[str, pathlib.Path]) -> None:
        self.path = directory / "releases.json"
        self.signers = directory / "allowed_signers"
        self.keys = keys
        self.write(_manifest.create([X, ARM, NEWER], number=7, expires=EXPIRES))
        self.allow("alice", "bob")

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def change(self, **changes: t.Any) -> None:
        self.write(json.dumps({**json.loads(self.path.read_text()), **changes}).encode())

    def line(self, name: str, key: str = "", options: str = "") -> str:
        kind, public, _comment = self.keys[key or name].with_suffix(".pub").read_text().split()
        return f"{name} {options} {kind} {public} of a test\n"

    def allow(self, *names: str) -> None:
        self.signers.write_text("# who may\n\n" + "".join(self.line(name) for name in names))

    def sign(self, *names: str) -> None:
        for name in names:
            _manifest.sign(str(self.path), key=str(self.keys[name]))

    def load(self, **changes: t.Any) -> _manifest.Manifest:
        arguments = {"allowed_signers": str(self.signers), "now": NOW, **changes}
        return _manifest.load(str(self.path), **arguments)

    def refusal(self, **changes: t.Any) -> tuple[str, str]:
        with pytest.raises((ReleaseError, InputError)) as failure:
            self.load(**changes)
        assert "\n" not in str(failure.value)
        return failure.value.key, str(failure.value)


@pytest.fixture
def site(tmp_path: pathlib.Path, keys: dict[str, pathlib.Path]) -> Site:
    return Site(tmp_path, keys)


def test_a_signed_manifest_says_what_a_release_is(site: Site) -> None:
    site.sign("alice")
    manifest = site.load()
    assert (manifest.number, manifest.expires, manifest.signers) == (7, EXPIRES, ("alice",))
    assert manifest.release("x", "1.9.0", "amd64") == X
    assert manifest.release("x", "v1.9", "arm64") == ARM
    assert manifest.release("x", "2.0.0-rc1", "amd64") == NEWER


@pytest.mark.parametrize("wanted", [("y", "1.9.0", "amd64"), ("x", "1.9.1", "amd64"), ("x", "2.0.0-rc.1", "arm64")])
def test_what_is_not_in_it_is_refused(site: Site, wanted: tuple[str, str, str]) -> None:
    site.sign("alice")
    with pytest.raises(ReleaseError, match=f"has no {wanted[0]} {wanted[1]} for {wanted[2]}") as failure:
        site.load().release(*wanted)
    assert failure.value.key == "manifest.not_listed"


def test_how_far_one_can_go_back_is_what_the_version_in_place_says(site: Site) -> None:
    old = [X._replace(version=version, rollback_floor=None) for version in ("1.4.9", "1.5.0")]
    site.write(_manifest.create([X, NEWER._replace(rollback_floor=None), *old], number=7, expires=EXPIRES))
    site.sign("alice")
    manifest = site.load()
    assert manifest.release("x", "1.5.0", "amd64", "1.9.0") == old[1]
    assert manifest.release("x", "2.0.0-rc.1", "amd64", "1.9.0").version == "2.0.0-rc.1"
    for unbound in (None, "unknown", "2.0.0-rc.1", "1.8.0"):
        assert manifest.release("x", "1.4.9", "amd64", unbound) == old[0]
    with pytest.raises(ReleaseError, match=r"back from x 1\.9\.0 below 1\.5\.0: 1\.4\.9 is refused") as failure:
        manifest.release("x", "1.4.9", "amd64", "1.9.0")
    assert failure.value.key == "manifest.below_floor"


def test_plain_ssh_keygen_signs_as_the_documentation_says(site: Site) -> None:
    argv = ["ssh-keygen", "-Y", "sign", "-f", str(site.keys["bob"]), "-n", "observability-manifest", str(site.path)]
    subprocess.run(argv, check=True, capture_output=True)
    assert site.load().signers == ("bob",)
    site.sign("alice")
    assert sorted(path.name for path in site.path.parent.glob("*.sig")) == ["releases.json.2.sig", "releases.json.sig"]
    assert site.load(threshold=2).signers == ("alice", "bob")


# -- whose signatures count ------------------------------------------------------------------------------------------


def test_without_a_signature_it_is_refused(site: Site) -> None:
    assert site.refusal()[0] == "manifest.unsigned"
    site.path.with_name("releases.json.old.sig").write_text("no signature of it")
    site.path.with_name("releases.json5.sig").write_text("no signature of it")
    assert site.refusal()[0] == "manifest.unsigned"


def test_of_two_that_are_needed_one_is_not_enough(site: Site) -> None:
    site.sign("alice")
    key, message = site.refusal(threshold=2)
    assert key == "manifest.threshold"
    assert "is signed by 1 of the 2 signers" in message
    site.sign("alice")
    assert site.refusal(threshold=2)[0] == "manifest.threshold"
    site.sign("eve")
    key, message = site.refusal(threshold=2)
    assert key == "manifest.threshold"
    assert "releases.json.3.sig is of a key that" in message
    site.sign("bob")
    assert site.load(threshold=2).signers == ("alice", "bob")


def test_one_key_under_two_names_counts_once(site: Site) -> None:
    site.signers.write_text(site.line("alice") + site.line("carol", "alice") + site.line("bob"))
    site.sign("alice", "alice")
    assert site.refusal(threshold=2)[0] == "manifest.threshold"
    site.signers.write_text(site.line("alice").replace("alice", "alice,carol", 1) + site.line("bob"))
    assert site.refusal(threshold=2)[0] == "manifest.threshold"
    assert site.load().signers == ("alice", "carol")


def test_one_name_with_two_keys_counts_once(site: Site) -> None:
    site.signers.write_text(site.line("alice") + site.line("alice", "eve") + site.line("bob"))
    site.sign("alice", "eve")
    assert site.refusal(threshold=2)[0] == "manifest.threshold"
    site.sign("bob")
    assert site.load(threshold=2).signers == ("alice", "bob")


@pytest.mark.parametrize("threshold", [0, 3, -1, True, "1", 1.0, None])
def test_a_threshold_that_nobody_can_meet_or_that_is_none_is_refused(site: Site, threshold: t.Any) -> None:
    site.sign("alice")
    key, message = site.refusal(threshold=threshold)
    assert key == "input.manifest_threshold"
    assert "has 2 signers: want 1 to 2" in message


def test_an_unknown_key_is_refused(site: Site) -> None:
    site.sign("eve")
    assert site.refusal()[0] == "manifest.unknown_key"


def test_a_signature_of_something_else_is_refused(site: Site) -> None:
    argv = ["ssh-keygen", "-Y", "sign", "-f", str(site.keys["bob"]), "-n", "file", str(site.path)]
    subprocess.run(argv, check=True, capture_output=True)
    key, message = site.refusal()
    assert key == "manifest.bad_signature"
    assert "was made for namespace 'file'" in message
    signature = site.path.with_name("releases.json.sig")
    argv[-3:] = ["-n", "observability-manifest", str(site.signers)]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.move(f"{site.signers}.sig", signature)
    assert site.refusal()[0] == "manifest.bad_signature"


def test_a_key_that_is_not_for_manifests_or_not_valid_any_more_is_refused(site: Site) -> None:
    site.sign("alice")
    for options in ('namespaces="git"', 'valid-before="20200101"'):
        site.signers.write_text(site.line("alice", options=options))
        assert site.refusal()[0] == "manifest.bad_signature"
    site.signers.write_text(site.line("alice", options='namespaces="observability-manifest"'))
    assert site.load().signers == ("alice",)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# nobody\n",
        "alice\n",
        "alice ssh-ed25519\n",
        "alice ssh-ed25519 no!key\n",
        "* ssh-ed25519 AAAA\n",
        "*@example.org ssh-ed25519 AAAA\n",
        "alice,!bob ssh-ed25519 AAAA\n",
        "alice cert-authority ssh-ed25519 AAAA\n",
        "-oops ssh-ed25519 AAAA\n",
        "ssh-ed25519 AAAA\n",
    ],
)
def test_signers_that_can_not_be_counted_are_refused(site: Site, content: str) -> None:
    site.sign("alice")
    site.signers.write_text(content)
    assert site.refusal()[0] == "input.allowed_signers"
    site.signers.unlink()
    assert site.refusal()[0] == "input.allowed_signers"


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"])
def test_a_signer_stands_in_a_line_of_its_own(site: Site, end: str) -> None:
    """ssh-keygen ends a line with a line feed only: what it takes for a comment is no signer here either."""
    site.sign("eve")
    site.signers.write_text(f"{site.line('alice')}# {end}{site.line('eve')}", newline="")
    assert site.refusal()[0] == "manifest.unknown_key"
    site.sign("alice")
    with pytest.raises(InputError, match="has 1 signers"):
        site.load(threshold=2)


# -- what was done to it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new", [(b"1.9.0", b"1.8.0"), (b"a" * 64, b"d" * 64), (b"7,", b"8,"), (b"12-31", b"12-30")]
)
def test_each_kind_of_change_is_seen(site: Site, old: bytes, new: bytes) -> None:
    site.sign("alice")
    content = site.path.read_bytes()
    assert old in content
    site.write(content.replace(old, new, 1))
    assert site.refusal()[0] == "manifest.bad_signature"
    site.write(content)
    assert site.load()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None, database=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_one_changed_byte_is_enough(site: Site, where: float, change: int, of_signature: bool) -> None:
    signature = site.path.with_name("releases.json.sig")
    if not signature.exists():
        site.sign("alice")
    path = signature if of_signature else site.path
    content = path.read_bytes()
    place = int(where * len(content))
    path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
    try:
        site.load()
        key = ""
    except ReleaseError as exc:
        key = exc.key
    path.write_bytes(content)
    # Armor has white space, and letters that end in bits that nobody reads: not each change of it is one.
    assert key in ("manifest.bad_signature", "manifest.unknown_key", *([""] if of_signature else []))


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"]
)
def test_what_is_no_signature_is_refused(site: Site, content: bytes) -> None:
    site.path.with_name("releases.json.sig").write_bytes(content)
    key, message = site.refusal()
    assert key == "manifest.bad_signature"
    assert "releases.json.sig is no SSH signature" in message


def test_a_signature_that_can_not_be_read_is_told(site: Site) -> None:
    site.path.with_name("releases.json.sig").mkdir()
    key, message = site.refusal()
    assert key == "manifest.bad_signature"
    assert "releases.json.sig can't be read (Is a directory)" in message
    site.sign("alice")
    assert site.load().signers == ("alice",)


def test_a_manifest_that_was_kept_back_is_refused_when_it_has_expired(site: Site) -> None:
    site.sign("alice")
    expires = _manifest._seconds(EXPIRES)
    assert site.load(now=expires - 1).number == 7
    for now in (expires, expires + 1e9):
        key, message = site.refusal(now=now)
        assert key == "manifest.expired"
        assert f"expired at {EXPIRES}" in message


# -- its content -----------------------------------------------------------------------------------------------------

ENTRY: dict[str, t.Any] = json.loads(_manifest.create([X], number=1, expires=EXPIRES))["releases"][0]


def without(name: str) -> dict[str, t.Any]:
    return {key: value for key, value in ENTRY.items() if key != name}


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"schema": 2}, "its schema isn't 1"),
        ({"schema": True}, "its schema isn't 1"),
        ({"number": 0}, "no number that is a whole number"),
        ({"number": True}, "no number that is a whole number"),
        ({"number": 1.5}, "no number that is a whole number"),
        ({"number": 1 << 60}, "no number that is a whole number"),
        ({"expires": "2026-12-31"}, "no expires that is a time in UTC"),
        ({"expires": "2026-12-31T00:00:00+02:00"}, "no expires that is a time in UTC"),
        ({"expires": "2026-13-31T00:00:00Z"}, "no expires that is a time in UTC"),
        ({"expires": None}, "no expires that is a time in UTC"),
        ({"releases": []}, "no releases that is a list"),
        ({"releases": {}}, "no releases that is a list"),
        ({"releases": ["x"]}, r"releases\[0\] is no object"),
        ({"blacklist": []}, "'blacklist', which this version"),
        ({"releases": [without("sha256")]}, r"releases\[0\] has no sha256"),
        ({"releases": [without("size")]}, r"releases\[0\] has no size"),
        ({"releases": [{**ENTRY, "sha256": "A" * 64}]}, "in lower case"),
        ({"releases": [{**ENTRY, "size": 0}]}, "no size"),
        ({"releases": [{**ENTRY, "size": "5"}]}, "no size"),
        ({"releases": [{**ENTRY, "version": "latest"}]}, "no version"),
        ({"releases": [{**ENTRY, "version": 1.9}]}, "no version"),
        ({"releases": [{**ENTRY, "rollback_floor": "x"}]}, "no rollback_floor"),
        ({"releases": [{**ENTRY, "min_from": "1.0.0"}]}, "'min_from', which this version"),
        ({"releases": [{**ENTRY, "component": "../x"}]}, "no component"),
        ({"releases": [{**ENTRY, "architecture": ""}]}, "no architecture"),
        ({"releases": [{**ENTRY, "url": "file:///etc/passwd"}]}, "no url"),
        ({"releases": [{**ENTRY, "url": "https://user:pass@example.org/x"}]}, "no url"),
        ({"releases": [{**ENTRY, "url": "https://example.org/a b"}]}, "no url"),
        ({"releases": [{**ENTRY, "url": "https://[::1/x"}]}, "no url"),
        ({"releases": [ENTRY, {**ENTRY, "version": "v1.9", "sha256": "d" * 64}]}, r"releases\[1\] is there twice"),
        ({"releases": [ENTRY, ENTRY]}, r"releases\[1\] is there twice"),
    ],
)
def test_content_that_is_not_what_it_must_be_is_refused_though_signed(
    site: Site, changes: dict[str, t.Any], why: str
) -> None:
    site.change(**changes)
    site.sign("alice")
    with pytest.raises(ReleaseError, match=why) as failure:
        site.load()
    assert failure.value.key == "manifest.malformed"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"schema": 1, "schema": 1}',
        b'{"schema": NaN}',
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_what_is_no_json_object_is_refused_though_signed(site: Site, content: bytes) -> None:
    site.write(content)
    site.sign("alice")
    assert site.refusal()[0] == "manifest.malformed"


def test_one_that_is_too_large_or_not_there_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.sign("alice")
    monkeypatch.setattr(_manifest, "_LIMIT", 400)
    assert site.refusal()[0] == "manifest.malformed"
    site.path.unlink()
    assert site.refusal()[0] == "manifest.missing"


def test_nothing_is_made_that_would_not_be_read(site: Site) -> None:
    with pytest.raises(ReleaseError, match="is there twice"):
        _manifest.create([X, X], number=1, expires=EXPIRES)
    with pytest.raises(ReleaseError, match="no expires"):
        _manifest.create([X], number=1, expires="tomorrow")


# -- ssh-keygen ------------------------------------------------------------------------------------------------------


def test_without_ssh_keygen_the_error_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.sign("alice")
    monkeypatch.setenv("PATH", "/nowhere")
    key, message = site.refusal()
    assert key == "manifest.no_verifier"
    assert "need ssh-keygen of OpenSSH 8.1 or newer on the controller" in message
    with pytest.raises(ReleaseError, match="can't be signed with"):
        site.sign("bob")


def test_an_ssh_keygen_that_is_too_old_is_told(site: Site) -> None:
    site.sign("alice")

    def old(argv: t.Sequence[str], **options: t.Any) -> Completed:
        return Completed(1, "", "unknown option -- Y\nusage: ssh-keygen [-q] ...")

    assert site.refusal(run=old)[0] == "manifest.no_verifier"


def test_a_key_that_can_not_sign_is_told(site: Site, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ReleaseError, match=r"can't be signed with .*No such file") as failure:
        _manifest.sign(str(site.path), key=str(tmp_path / "nokey"))
    assert failure.value.key == "manifest.not_signed"
    assert not list(tmp_path.glob("*.sig"))
