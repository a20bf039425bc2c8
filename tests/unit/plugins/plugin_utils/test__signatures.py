# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _command
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError, UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import _signatures
from ansible_collections.observability.stack.tests.unit.signers import Keys, keyring

LISTING = "a" * 64 + "  x-1.0.linux-amd64.tar.gz\n" + "- dashes are escaped in signed texts\n"
LONG_AGO = "20200101T000000"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Keys]:
    with keyring(tmp_path_factory.mktemp("keys")) as made:
        for name in ("ours", "other", "revoked"):
            fingerprint = made.make(name, at=LONG_AGO)
        made.make("expired", expires="20200201T000000", at=LONG_AGO)
        (made.directory / "list").write_text(LISTING)
        made.sign("revoked", made.directory / "list").rename(made.directory / "list.revoked.asc")
        made.revoke(fingerprint)
        yield made


@pytest.fixture
def listing(keys: Keys) -> pathlib.Path:
    return keys.directory / "list"


def refused(verify: t.Callable[[], t.Any]) -> str:
    """The key of the error. It shows neither a key nor a signature, and is one line."""
    with pytest.raises(UpgradeError) as failure:
        verify()
    text = str(failure.value)
    assert "PGP" not in text.replace("OpenPGP", "")
    assert "\n" not in text
    assert len(text) < 300
    return failure.value.key


@pytest.mark.parametrize("armor", [True, False])
def test_a_file_that_a_pinned_key_signed_is_taken(keys: Keys, listing: pathlib.Path, armor: bool) -> None:
    pinned = [keys.public("other", armor=not armor), keys.public("ours", armor=armor)]
    signature = keys.sign("ours", listing)
    signed = _signatures.verify_detached(str(listing), str(signature), keys=pinned)
    assert f"fpr:::::::::{signed.key}:" in keys.gpg("--with-colons", "--list-keys", "=ours")
    binary = keys.sign("ours", listing, "--detach-sign")
    assert _signatures.verify_detached(str(listing), str(binary), keys=pinned) == signed


def test_a_signed_text_is_taken_without_what_stands_around_it(keys: Keys, listing: pathlib.Path) -> None:
    pinned = [keys.public("ours")]
    for how in (("--clearsign",), ("--armor", "--sign")):
        signed = keys.sign("ours", listing, *how)
        assert _signatures.verify_cleartext(str(signed), keys=pinned).content.decode() == LISTING
    signed = keys.sign("ours", listing, "--clearsign")
    signed.write_text(f"{'b' * 64}  x-1.0.linux-amd64.tar.gz\n\n{signed.read_text()}\n{'c' * 64}  y\n")
    assert _signatures.verify_cleartext(str(signed), keys=pinned).content.decode() == LISTING


@pytest.mark.parametrize(
    "signer, pinned, key",
    [
        ("other", ["ours"], "signature.unknown_key"),
        ("expired", ["ours", "expired"], "signature.expired_key"),
        ("revoked", ["ours", "revoked"], "signature.revoked_key"),
    ],
)
def test_a_signature_of_any_other_key_is_refused(
    keys: Keys, listing: pathlib.Path, signer: str, pinned: list[str], key: str
) -> None:
    at = LONG_AGO if signer == "expired" else ""
    # What a key signed before it was revoked is refused as well: whoever has the key can date it back.
    signature = listing.with_name("list.revoked.asc") if signer == "revoked" else keys.sign(signer, listing, at=at)
    public = [keys.public(name) for name in pinned]
    assert refused(lambda: _signatures.verify_detached(str(listing), str(signature), keys=public)) == key


def test_the_wrong_file_is_refused(keys: Keys, listing: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pinned, signature = [keys.public("ours")], keys.sign("ours", listing)
    other = tmp_path / "other"
    for content in (LISTING + " ", "", LISTING.upper()):
        other.write_text(content)
        assert refused(lambda: _signatures.verify_detached(str(other), str(signature), keys=pinned)) == "signature.bad"
    signed = keys.sign("ours", listing, "--clearsign")
    signed.write_text(signed.read_text().replace("amd64", "arm64"))
    assert refused(lambda: _signatures.verify_cleartext(str(signed), keys=pinned)) == "signature.bad"


def test_what_is_no_signature_is_refused(keys: Keys, listing: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pinned, nothing = [keys.public("ours")], tmp_path / "nothing.sig"
    for content in (b"", b"<!DOCTYPE html>", b"\x00" * 99, pathlib.Path(pinned[0]).read_bytes()):
        nothing.write_bytes(content)
        key = refused(lambda: _signatures.verify_detached(str(listing), str(nothing), keys=pinned))
        assert (content[:9], key) == (content[:9], "signature.missing")
        assert refused(lambda: _signatures.verify_cleartext(str(nothing), keys=pinned)) == "signature.missing"
    # A text that carries a good signature of itself says nothing about another file.
    signed = keys.sign("ours", listing, "--clearsign")
    with pytest.raises(ReleaseError):
        _signatures.verify_detached(str(tmp_path / "nothing.sig"), str(signed), keys=pinned)
    # Nor is a detached signature a signed text, even with the file that it is of beside it.
    beside = tmp_path / "list.sig"
    shutil.copy(keys.sign("ours", listing, "--detach-sign"), beside)
    shutil.copy(listing, tmp_path / "list")
    with pytest.raises(ReleaseError):
        _signatures.verify_cleartext(str(beside), keys=pinned)


def test_each_signature_must_be_of_a_pinned_key(keys: Keys, listing: pathlib.Path) -> None:
    both = keys.directory / "both"
    both.write_bytes(b"".join(keys.sign(name, listing, "--detach-sign").read_bytes() for name in ("ours", "other")))
    one, two = [keys.public("ours")], [keys.public("ours"), keys.public("other")]
    assert refused(lambda: _signatures.verify_detached(str(listing), str(both), keys=one)) == "signature.unknown_key"
    assert _signatures.verify_detached(str(listing), str(both), keys=two).key


def test_an_expired_signature_is_refused(keys: Keys, listing: pathlib.Path) -> None:
    signature = keys.sign("ours", listing, "--default-sig-expire", "1d", "--detach-sign", at=LONG_AGO)
    pinned = [keys.public("ours")]
    assert (
        refused(lambda: _signatures.verify_detached(str(listing), str(signature), keys=pinned)) == "signature.expired"
    )


def test_a_sha1_signature_is_too_weak(keys: Keys, listing: pathlib.Path) -> None:
    signature = keys.sign("ours", listing, "--digest-algo", "SHA1", "--detach-sign")
    with pytest.raises(ReleaseError) as failure:
        _signatures.verify_detached(str(listing), str(signature), keys=[keys.public("ours")])
    assert failure.value.key in ("signature.unsupported", "signature.missing")


def test_gpg_does_where_there_is_no_gpgv(keys: Keys, listing: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNUPGHOME", str(keys.home))  # it has all keys, and none of them counts

    def without_gpgv(argv: t.Sequence[str], **options: t.Any) -> Completed:
        return Completed(None, "", "gpgv: not there") if argv[0] == "gpgv" else _command.run(argv, **options)

    ours, other = [keys.public("ours")], [keys.public("other")]
    signature, text = str(keys.sign("ours", listing)), str(keys.sign("ours", listing, "--clearsign"))
    by_gpg = _signatures.verify_detached(str(listing), signature, keys=ours, run=without_gpgv)
    assert by_gpg == _signatures.verify_detached(str(listing), signature, keys=ours)
    by_gpg = _signatures.verify_cleartext(text, keys=ours, run=without_gpgv)
    assert by_gpg == _signatures.verify_cleartext(text, keys=ours)
    assert by_gpg.content.decode() == LISTING
    for verify in (
        lambda: _signatures.verify_detached(str(listing), signature, keys=other, run=without_gpgv),
        lambda: _signatures.verify_cleartext(text, keys=other, run=without_gpgv),
    ):
        assert refused(verify) == "signature.unknown_key"


def nowhere(argv: t.Sequence[str], **options: t.Any) -> Completed:
    return Completed(None, "", f"{argv[0]}: No such file or directory")


def test_without_gnupg_the_error_says_what_to_install(keys: Keys, listing: pathlib.Path) -> None:
    with pytest.raises(InputError, match="install gpgv") as failure:
        _signatures.verify_detached(str(listing), str(listing), keys=[keys.public("ours")], run=nowhere)
    assert failure.value.key == "signature.no_verifier"


# -- pinned keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("armor", [True, False])
def test_a_secret_key_is_never_pinned(keys: Keys, listing: pathlib.Path, armor: bool) -> None:
    with pytest.raises(InputError, match="pin its public half") as failure:
        _signatures.verify_detached(str(listing), str(listing), keys=[keys.public("ours", armor=armor, secret=True)])
    assert failure.value.key == "signature.bad_key"


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"\x00\x00\x00 a keybox", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx"]
)
def test_what_is_no_key_is_refused_with_its_path(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path}/key holds no OpenPGP public key"):
        _signatures.verify_detached(str(tmp_path / "key"), str(tmp_path / "key"), keys=[str(tmp_path / "key")])


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0b", "\x1c", "\r"])
def test_what_gnupg_repeats_of_a_signature_is_no_line_of_its_own(tmp_path: pathlib.Path, keys: Keys, end: str) -> None:
    """A notation, a file's name or a user's name is the signer's text, and GnuPG escapes no line end but its own."""
    keys.make("forger")
    valid = " ".join(["VALIDSIG", *["A" * 40] * 10])
    said = f"[GNUPG:] NEWSIG\n[GNUPG:] NOTATION_DATA x{end}[GNUPG:] GOODSIG 0 x{end}[GNUPG:] {valid}\n"
    (tmp_path / "x").touch()
    with pytest.raises(ReleaseError) as failure:
        _signatures.verify_detached(
            str(tmp_path / "x"),
            str(tmp_path / "x"),
            keys=[keys.public("forger")],
            run=lambda *_words, **_how: Completed(0, said, ""),
        )
    assert failure.value.key == "signature.unsupported"


def test_no_key_and_no_key_file_are_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="no key is pinned"):
        _signatures.verify_detached(str(tmp_path / "x"), str(tmp_path / "x"), keys=[])
    with pytest.raises(InputError, match="can't be read: No such file"):
        _signatures.verify_detached(str(tmp_path / "x"), str(tmp_path / "x"), keys=[str(tmp_path / "y")])


def test_a_signature_that_is_not_there_or_too_large_is_told(tmp_path: pathlib.Path) -> None:
    path, large = str(tmp_path / "x"), tmp_path / "large"
    assert refused(lambda: _signatures.verify_detached(path, path, keys=[path])) == "signature.missing"
    assert refused(lambda: _signatures.verify_cleartext(path, keys=[path])) == "signature.missing"
    large.write_bytes(bytes(5 << 20))
    assert refused(lambda: _signatures.verify_detached(path, str(large), keys=[path])) == "signature.too_large"
    assert refused(lambda: _signatures.verify_cleartext(str(large), keys=[path])) == "signature.too_large"


# -- sigstore --------------------------------------------------------------------------------------------------------

IDENTITY = [
    "--certificate-identity=https://github.com/x/y/.github/workflows/build.yml@refs/tags/v1",
    "--certificate-oidc-issuer=https://token.actions.githubusercontent.com",
    "--bundle=/x.bundle",
]


@pytest.fixture
def cosign(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[str], pathlib.Path]:
    """A stand-in for cosign, which isn't installed here: it keeps what it was asked, and answers as it is told."""

    def make(answer: str) -> pathlib.Path:
        program = tmp_path / "bin" / "cosign"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/asked\n{answer}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        return tmp_path / "asked"

    return make


def test_cosign_is_asked_as_it_is_told(tmp_path: pathlib.Path, cosign: t.Callable[[str], pathlib.Path]) -> None:
    asked = cosign("echo 'Verified OK' >&2")
    for arguments in (IDENTITY, ["--key", "cosign.pub", "--signature", "x.sig", "--insecure-ignore-tlog"]):
        _signatures.verify_cosign(str(tmp_path / "list"), arguments=arguments)
        assert asked.read_text().splitlines() == ["verify-blob", *arguments, str(tmp_path / "list")]


def test_what_cosign_refuses_is_refused_without_its_keys(
    tmp_path: pathlib.Path, cosign: t.Callable[[str], pathlib.Path]
) -> None:
    cosign(f"echo 'error: no matching signatures: {'MFkwEwYH' * 12}==' >&2; exit 1")
    with pytest.raises(ReleaseError, match=r"no matching signatures: \.\.\.") as failure:
        _signatures.verify_cosign(str(tmp_path / "list"), arguments=IDENTITY)
    assert failure.value.key == "signature.bad"
    assert "MFkw" not in str(failure.value)


@pytest.mark.parametrize("arguments", [[], IDENTITY[:1], IDENTITY[1:], [*IDENTITY, "--insecure-ignore-tlog"]])
def test_anybodys_signature_is_none(tmp_path: pathlib.Path, arguments: list[str]) -> None:
    with pytest.raises(InputError) as failure:
        _signatures.verify_cosign(str(tmp_path / "list"), arguments=arguments)
    assert failure.value.key == "signature.no_keys"


ISSUER = ["--certificate-oidc-issuer=https://token.actions.githubusercontent.com"]
ANYBODY = [
    *(".*", ".+", "^.*$", "^.+$", "^$", "^(.)*$", "^[\\s\\S]*$", "^[^x]*$", "^[[:print:]]*$", "^a|.*$", "^(?:a|.*)$"),
    *("github.com/prometheus", "^https://github.com/prometheus/", "https://github.com/prometheus/.*$", "^.*\\$"),
    *("^https://.*$", "^https://github.com/.*$", "^https?://github.com/o/.*$", "^https://github.com/prometheus.*$"),
    *("^https://github.com/[^/]+/prometheus/.*$", "^https://github.com/o/?.*$", "^https://github.com/o/.*$|^.*$"),
    *("^.*@prometheus\\.io$", "^[a-z]+@gmail.com$", "^[0-9]+@users.noreply.github.com$", "(?i)^https://x/y/.*$"),
    *(
        "(?m)^https://github.com/o/r/.*$",
        "^\\Qx|.*\\E$",
        "^\\pL*$",
        "^.*prometheus.*$",
        "(",
        "^https://github.com/\u043e/.*$",
    ),
]


@pytest.mark.parametrize("pattern", ANYBODY)
@pytest.mark.parametrize("joined", [True, False])
def test_an_identity_that_strangers_can_have_is_refused(pattern: str, joined: bool) -> None:
    option = "--certificate-identity-regexp"
    with pytest.raises(InputError, match="certificate-identity-regexp") as failure:
        _signatures.check_cosign([*([f"{option}={pattern}"] if joined else [option, pattern]), *ISSUER])
    assert failure.value.key == "signature.no_keys"


@pytest.mark.parametrize(
    "pattern",
    [
        "^https://github\\.com/prometheus/.*$",
        "^https://github.com/prometheus/prometheus/\\.github/workflows/[a-z]+\\.yml@refs/tags/v(?:2|3)\\..*$",
        "^[a-z.]+@prometheus\\.io$",
        "^release@prometheus\\.io$",
    ],
)
def test_an_expression_that_names_an_owner_or_a_domain_is_taken(pattern: str) -> None:
    _signatures.check_cosign([f"--certificate-identity-regexp={pattern}", *ISSUER])


@pytest.mark.parametrize(
    "pattern", [".*", "^https://.*$", "^https://accounts\\.google\\.com.*$", "^.*googleapis.com/.*$"]
)
def test_an_issuer_that_anybody_can_run_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="certificate-oidc-issuer-regexp"):
        _signatures.check_cosign(["--certificate-identity", "a@b.example", "--certificate-oidc-issuer-regexp", pattern])
    _signatures.check_cosign([IDENTITY[0], "--certificate-oidc-issuer-regexp", "^https://accounts\\.google\\.com$"])


@pytest.mark.parametrize(
    "more",
    [
        *(["--insecure-ignore-tlog=true"], ["--insecure-ignore-sct"], ["--private-infrastructure"], ["-t", "1s"]),
        *(["--rekor-url=https://rekor.example"], ["--certificate-identity=x"], ["--", "x"], ["other-blob"], ["--sk"]),
        *(["--certificate-identity-regexp=^https://github.com/x/.*$"], ["--certificate-chain={signature}"]),
        *(["--trusted-root", "https://mirror.example/root.json"], ["--signature="], ["--signature"]),
        *(["--signature", "--insecure-ignore-tlog"],),
    ],
)
def test_an_option_that_weakens_cosign_or_that_is_not_known_is_refused(more: list[str]) -> None:
    with pytest.raises(InputError) as failure:
        _signatures.check_cosign([*IDENTITY, *more])
    assert failure.value.key == "signature.no_keys"


@pytest.mark.parametrize("key", ["{signature}", "https://mirror.example/cosign.pub", "env://KEY", ""])
def test_a_key_of_cosign_is_a_file_of_the_operator(key: str) -> None:
    for arguments in ([f"--key={key}"], ["--key", key]):
        with pytest.raises(InputError):
            _signatures.check_cosign(arguments)


def test_without_cosign_the_error_says_so(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="Install cosign") as failure:
        _signatures.verify_cosign(str(tmp_path / "list"), arguments=IDENTITY, run=nowhere)
    assert failure.value.key == "signature.no_verifier"
