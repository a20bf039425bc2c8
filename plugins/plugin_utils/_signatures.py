# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Signatures that a project makes: of an archive, or of its checksum list.

Verified are OpenPGP signatures with C(gpgv), or C(gpg) where there is no gpgv, against a keyring that is made of
pinned key files and nothing else; and signatures of sigstore with C(cosign). No key of the user's own keyring counts,
no key is ever fetched, and no error shows one.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import string
import tempfile
import typing as t

from ..module_utils import _command
from ..module_utils._errors import InputError, ReleaseError
from . import _regular

_TIMEOUT = 60
_LIST_LIMIT = 4 << 20
_KEY_LIMIT = 1 << 20
_SIGNATURE_LIMIT = 1 << 20
_ARMOR = re.compile(
    rb"-----BEGIN PGP (?P<what>[A-Z ]+)-----[ \t]*\r?\n(?:[^\r\n]+: ?[^\r\n]*\r?\n)*[ \t]*\r?\n"
    rb"(?P<body>[A-Za-z0-9+/= \t\r\n]*?)(?:\n=[A-Za-z0-9+/]{4}[ \t]*)?\r?\n-----END PGP (?P=what)-----"
)
_PUBLIC_KEY_PACKET = 6
_SECRET_KEY_PACKETS = (5, 7)

_OPTIONS = ("--status-fd", "1", "--weak-digest", "SHA1", "--homedir", "{home}", "--keyring", "{keyring}")
_VERIFIERS = (
    (("gpgv", *_OPTIONS), ()),
    (("gpg", "--no-options", *_OPTIONS, "--no-default-keyring", "--no-auto-key-locate", "--batch"), ("--verify",)),
)
"""Options and command, in this order. The second is asked where the first can't be started."""

_STATES = (
    ("BADSIG", "signature.bad", "has a signature that isn't of this file: it is damaged or was tampered with"),
    (
        "REVKEYSIG",
        "signature.revoked_key",
        "is signed by a key that its owner revoked: ask the project for the new one",
    ),
    ("EXPKEYSIG", "signature.expired_key", "is signed by a key that has expired: pin the project's renewed key"),
    ("EXPSIG", "signature.expired", "has a signature that has expired: choose a newer release"),
    (
        "NO_PUBKEY",
        "signature.unknown_key",
        "is signed by a key that isn't pinned: pin it if it is really the project's",
    ),
    ("ERRSIG", "signature.unsupported", "has a signature that this host's GnuPG can't check, or that is too weak"),
    ("NODATA", "signature.missing", "has no signature"),
)
"""What GnuPG says in its status lines (doc/DETAILS), worst first."""


class Signed(t.NamedTuple):
    """A signature that holds. ``key`` is the fingerprint of the pinned key that it leads to."""

    key: str
    content: bytes


def verify_detached(
    path: str, signature: str, *, keys: t.Sequence[str], name: str = "", run: _command.Run = _command.run
) -> Signed:
    """Who signed a file, by a signature in a file of its own. Each signature in there must be of a pinned key.

    :param keys: files with public keys, armored (C(.asc)) or not (C(.gpg)).
    :param name: what to call the file in errors; by default its own name.
    :raises ReleaseError: if it isn't signed by a pinned key, with a key for each reason.
    :raises InputError: if a pinned key's file is none.
    """
    shown = name or os.path.basename(path)
    with tempfile.TemporaryDirectory() as home:
        given = _write(home, "signature", _read(signature, _SIGNATURE_LIMIT))
        found = _verify(run, home, keys, [given, os.path.abspath(path)], shown)
        return Signed(found, b"")


def verify_cleartext(path: str, *, keys: t.Sequence[str], name: str = "", run: _command.Run = _command.run) -> Signed:
    """Who signed a text, by a signature that it carries itself (C(sha256sums.txt.asc)); and exactly what was signed.

    What stands before or behind the signed part isn't in it.

    :raises ReleaseError: if it isn't signed by a pinned key.
    :raises InputError: if a pinned key's file is none.
    """
    shown = name or os.path.basename(path)
    with tempfile.TemporaryDirectory() as home:
        # A name without an ending: from one with .sig, GnuPG would go looking for a file without it.
        given = _write(home, "text", _read(path, _LIST_LIMIT))
        output = os.path.join(home, "signed")
        found = _verify(run, home, keys, [given], shown, output=("--output", output))
        if not os.path.exists(output):
            raise _refusal(shown, "NODATA")
        with open(output, "rb") as source:
            return Signed(found, source.read())


def _read(path: str, limit: int) -> bytes:
    try:
        with _regular.opened(path) as source:
            data = source.read(limit + 1)
    except OSError as exc:
        raise ReleaseError(f"the signature {path} can't be read: {exc.strerror}", key="signature.missing") from exc
    if len(data) > limit:
        raise ReleaseError(f"{path} has more than {limit} bytes, as no signature has", key="signature.too_large")
    return data


def _verify(
    run: _command.Run, home: str, keys: t.Sequence[str], files: list[str], shown: str, *, output: tuple[str, ...] = ()
) -> str:
    """The fingerprint of the key that signed."""
    keyring = _write(home, "pinned.gpg", _keyring(keys))
    for options, command in _VERIFIERS:
        filled = [word.format(home=home, keyring=keyring) for word in options]
        done = run([*filled, *output, *command, *files], timeout=_TIMEOUT)
        if done.rc is not None:
            return _signer(done, shown)
    raise InputError(
        f"{shown} can't be verified: this controller has neither gpgv nor gpg; install gpgv, or pin no OpenPGP keys",
        key="signature.no_verifier",
    )


def _signer(done: _command.Completed, shown: str) -> str:
    lines = done.out.split("\n")  # GnuPG escapes no other line end in what it repeats of a key or a signature
    said = [line.split(" ")[1:] for line in lines if line.startswith("[GNUPG:] ")]
    states = {words[0] for words in said}
    worst = next((state for state, _key, _why in _STATES if state in states), None)
    valid = [words for words in said if words[0] == "VALIDSIG" and len(words) > 10]
    if worst or done.rc != 0 or "GOODSIG" not in states or not valid:
        raise _refusal(shown, worst or ("ERRSIG" if "NEWSIG" in states else "NODATA"))
    return valid[0][10]


def _refusal(shown: str, state: str) -> ReleaseError:
    key, why = next((key, why) for name, key, why in _STATES if name == state)
    return ReleaseError(f"{shown} {why}. It is not used", key=key)


# -- pinned keys -----------------------------------------------------------------------------------------------------


def _keyring(paths: t.Sequence[str]) -> bytes:
    if not paths:
        raise InputError(
            "signatures are wanted, but no key is pinned: name the project's key files", key="signature.no_keys"
        )
    return b"".join(_public_key(path) for path in paths)


def _public_key(path: str) -> bytes:
    """A key file's content, without its armor."""
    try:
        with _regular.opened(path) as source:
            data = source.read(_KEY_LIMIT + 1)
    except OSError as exc:
        raise InputError(f"the pinned key {path} can't be read: {exc.strerror}", key="signature.bad_key") from exc
    if b"-----BEGIN PGP PRIVATE" in data:
        raise _secret(path)
    if b"-----BEGIN PGP" in data:
        data = b"".join(_unarmored(found) for found in _ARMOR.finditer(data) if found["what"] == b"PUBLIC KEY BLOCK")
    packet = _first_packet(data)
    if packet in _SECRET_KEY_PACKETS:
        raise _secret(path)
    if packet != _PUBLIC_KEY_PACKET or len(data) > _KEY_LIMIT:
        raise InputError(
            f"the pinned key {path} holds no OpenPGP public key: export it with gpg --armor --export <fingerprint>",
            key="signature.bad_key",
        )
    return data


def _unarmored(found: re.Match[bytes]) -> bytes:
    try:
        return base64.b64decode(b"".join(found["body"].split()), validate=True)
    except binascii.Error:
        return b""


def _first_packet(data: bytes) -> int:
    """The kind of the first packet (RFC 9580, 4.2); 0 if it is none."""
    first = data[0] if data else 0
    if not first & 0x80:
        return 0
    return first & 0x3F if first & 0x40 else (first & 0x3C) >> 2


def _secret(path: str) -> InputError:
    return InputError(
        f"the pinned key {path} holds a secret key, which doesn't belong on a controller: pin its public half, "
        "of gpg --armor --export",
        key="signature.bad_key",
    )


# -- sigstore --------------------------------------------------------------------------------------------------------

_IDENTITY, _ISSUER, _REGEXP = "--certificate-identity", "--certificate-oidc-issuer", "-regexp"
_TRUSTED = (
    *("--key", "--ca-roots", "--ca-intermediates", "--certificate-chain", "--trusted-root"),
    "--timestamp-certificate-chain",
)
"""Options that name what the operator trusts: files on the controller."""
_VALUES = (
    *(_IDENTITY, f"{_IDENTITY}{_REGEXP}", _ISSUER, f"{_ISSUER}{_REGEXP}", *_TRUSTED),
    *(f"--certificate-github-workflow-{name}" for name in ("name", "ref", "repository", "sha", "trigger")),
    *("--bundle", "--certificate", "--rfc3161-timestamp", "--sct", "--signature"),
)
_SWITCHES = ("--new-bundle-format", "--offline", "--use-signed-timestamps")
_NO_LOG = ("--insecure-ignore-tlog", "--private-infrastructure")
"""Allowed with a pinned key only: without it the transparency log is what tells when a certificate was valid."""
_FETCHED = "{signature}"
_KEY_STORES = ("awskms://", "azurekms://", "gcpkms://", "hashivault://", "k8s://")
_STRANGERS = {
    _IDENTITY: (
        "https://github.com/{0}/{0}/.github/workflows/{0}.yml@refs/heads/{0}",
        "https://github.com/{0}/{0}/.github/workflows/release.yml@refs/tags/v1.0.0",
        "https://gitlab.com/{0}/{0}//.gitlab-ci.yml@refs/heads/main",
        *("https://{0}.example/{0}", "spiffe://{0}.example/{0}", "{0}@gmail.com", "{0}@{0}.example"),
        "{0}@users.noreply.github.com",
        *("{0}", "{0} {0}", ""),
    ),
    _ISSUER: ("https://{0}.example", "https://{0}.example/{0}", "http://{0}", "https://{0}", "{0}", "{0}.{0}", ""),
}
"""Identities and issuers that no operator can mean: C({0}) is random."""
_ALPHABETS = (string.ascii_lowercase, string.ascii_lowercase + string.digits, string.digits)
_LITERAL = re.compile(
    r"\^(?:(?:[\w/:.~@-]|\\[./_@-])(?![*+?{]))*(?:\[[^\]/]+\][*+]?@(?:[\w-]+\\?\.)+\w+)?\$?", re.ASCII
)
_BEGINS = {
    _IDENTITY: (r"\^https://[\w.\\-]+/[\w.\\~-]+/", r"\^[^/]+@[^/]+\$$"),
    _ISSUER: (r"\^https://[\w.\\-]+(/|\$$)",),
}
"""How an expression must begin: a host and an owner there; an address of a domain; an issuer's host."""
_OWN = {
    _IDENTITY: r"'^https://github\.com/<owner>/', or '^[a-z.]+@<domain>$'",
    _ISSUER: r"'^https://token\.actions\.githubusercontent\.com$'",
}
_LONG = re.compile(r"[A-Za-z0-9+/=_-]{40,}")


def verify_cosign(path: str, *, arguments: t.Sequence[str], name: str = "", run: _command.Run = _command.run) -> None:
    """Check a file's signature with C(cosign verify-blob), which must be installed on the controller.

    :param arguments: how to check it: C(--key) with a pinned key, or C(--certificate-identity) and
        C(--certificate-oidc-issuer) of who must have signed it; and C(--bundle) or C(--signature).
    :raises ReleaseError: if cosign doesn't take it.
    :raises InputError: if the arguments take anybody's signature, or there is no cosign.
    """
    shown = name or os.path.basename(path)
    check_cosign(arguments)
    done = run(["cosign", "verify-blob", *arguments, os.path.abspath(path)], timeout=_TIMEOUT)
    if done.rc is None:
        raise InputError(
            f"{shown} can't be verified: {_told(done.err)}. Install cosign on the controller",
            key="signature.no_verifier",
        )
    if done.rc != 0:
        raise ReleaseError(
            f"{shown} isn't signed as it must be: cosign says {_told(done.text)!r}. It is not used", key="signature.bad"
        )


def check_cosign(arguments: t.Sequence[str]) -> None:
    """Whether arguments of C(cosign verify-blob) say whose signature counts, and weaken nothing.

    Known options only, each once: an option of another release of cosign may switch off a check.

    :raises InputError: naming the option.
    """
    given = _options(arguments)
    for name in (_IDENTITY, _ISSUER):
        if name in given and f"{name}{_REGEXP}" in given:
            raise _weak(f"{name} and {name}{_REGEXP} are both given, and cosign checks one of them: give one")
        pattern = given.get(f"{name}{_REGEXP}")
        if pattern is not None:
            _check_pattern(name, pattern)
    by_identity = all(name in given or f"{name}{_REGEXP}" in given for name in (_IDENTITY, _ISSUER))
    if "--key" not in given and not by_identity:
        raise _weak(
            "cosign needs to know whose signature to take: give --key, or --certificate-identity and "
            "--certificate-oidc-issuer"
        )
    if "--key" not in given and any(option in given for option in _NO_LOG):
        raise _weak(f"cosign is told not to check a certificate ({', '.join(_NO_LOG)}): leave that out, or pin a --key")
    for option in _TRUSTED:
        remote = "://" in given.get(option, "") and not (option == "--key" and given[option].startswith(_KEY_STORES))
        if remote or _FETCHED in given.get(option, ""):
            raise _weak(f"{option} must be a file on the controller: what is fetched cannot say what to trust")


def _options(arguments: t.Sequence[str]) -> dict[str, str]:
    """Options with their values, as cosign reads them: C(--option=value), or C(--option value)."""
    given: dict[str, str] = {}
    words = list(arguments)
    while words:
        option, joined, value = words.pop(0).partition("=")
        if option in _VALUES and not joined:
            value = words.pop(0) if words else ""
        elif option in (*_SWITCHES, *_NO_LOG):
            value = value if joined else "true"
        elif option not in _VALUES:
            raise _weak(
                f"cosign is given {option[:60]!r}, which is none of the options that are allowed: "
                f"{', '.join((*_VALUES, *_SWITCHES))}"
            )
        if option in given or not value or value.startswith("-"):
            raise _weak(f"cosign is given {option} twice, or without a value: give it once, with its value")
        given[option] = value
    return given


def _check_pattern(option: str, pattern: str) -> None:
    """Refuse a regular expression that somebody unknown can satisfy.

    Its form is narrow, so that it means the same to Go, which cosign is written in, as to Python.
    """
    whole = pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$")
    plain = pattern.isascii() and "(?" not in pattern.replace("(?:", "") and "[:" not in pattern
    try:
        expression = re.compile(pattern) if whole and plain and not _has_bare_alternative(pattern) else None
    except re.error:
        expression = None
    if expression is None:
        raise _weak(
            f"{option}{_REGEXP} {pattern[:100]!r} is not one whole expression: write '^...$' around it, put "
            "alternatives into (?:...), and use no flags and no classes by name"
        )
    tail = pattern[:-1].replace("\\", "").rpartition("@")[2]  # a branch can be called like the end of an address
    names = ["".join(secrets.choice(characters) for _place in range(12)) for characters in _ALPHABETS]
    strangers = [each.format(name) for each in _STRANGERS[option] for name in names]
    strangers += [f"{each}@{tail}" for each in strangers if "/" in each]
    stranger = next((each for each in strangers if expression.search(each)), None)
    literal = t.cast("re.Match[str]", _LITERAL.match(pattern))[0]
    if stranger is not None or not any(re.match(begin, literal) for begin in _BEGINS[option]):
        such = f", such as that of {stranger!r}" if stranger else ""
        raise _weak(
            f"{option}{_REGEXP} {pattern[:100]!r} takes signatures of people who are not named{such}: begin with the "
            f"project's own {_OWN[option]}"
        )


def _has_bare_alternative(pattern: str) -> bool:
    """Whether an expression has alternatives outside of all groups, where C(^) and C($) hold for one of them only."""
    depth = 0
    for part in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|]", pattern):
        depth += {"(": 1, ")": -1}.get(part, 0)
        if part == "|" and depth == 0:
            return True
    return False


def _weak(why: str) -> InputError:
    return InputError(why, key="signature.no_keys")


def _told(text: str) -> str:
    """A program's last line, for people: without what could be a key."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _LONG.sub("...", lines[-1])[:200] if lines else "nothing"


def _write(directory: str, name: str, data: bytes) -> str:
    path = os.path.join(directory, name)
    with open(path, "wb") as sink:
        sink.write(data)
    return path
