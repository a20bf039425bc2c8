# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. A site's own list of releases, signed with SSH keys.

    {
      "schema": 1,
      "number": 7,                              only ever grows; an older manifest than the last one seen is refused
      "expires": "2026-12-31T00:00:00Z",        UTC; a manifest that somebody keeps back is refused from then on
      "releases": [
        {"component": "node_exporter", "version": "1.9.0", "architecture": "amd64",
         "url": "https://example.org/node_exporter-1.9.0.linux-amd64.tar.gz",
         "size": 11834542, "sha256": "...", "rollback_floor": "1.5.0"}     the last one may be left out
      ]
    }

Signatures are files beside it, C(<manifest>.sig) and C(<manifest>.<number>.sig), as C(ssh-keygen -Y sign) makes them
with the namespace C(observability-manifest). Whose signatures count stands in a file of C(allowed_signers)
(ssh-keygen(1), "ALLOWED SIGNERS"), one line for each key: C(<name> <kind of key> <key>).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import glob
import json
import os
import re
import shutil
import struct
import tempfile
import typing as t
import urllib.parse

from ..module_utils import _command
from ..module_utils._command import Completed
from ..module_utils._errors import InputError, ReleaseError
from . import _regular, _versions

SCHEMA = 1

_TIMEOUT = 30
_LIMIT = 8 << 20
_SIGNATURE_LIMIT = 64 << 10
_MOST_SIGNATURES = 32
_LARGEST = 1 << 53
"""Numbers above it aren't exact everywhere where JSON is read."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_ARMOR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+?)-----END SSH SIGNATURE-----[\r\n]*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*", re.ASCII)

Run = t.Callable[..., Completed]
"""Called with the words of a command, ``stdin`` (bytes) and ``timeout`` (seconds)."""


class Kind(t.NamedTuple):
    """A kind of file that is signed: the namespace of its signatures, and what it is called in errors and their keys.
    A signature of one namespace is none of another."""

    namespace: str
    name: str


MANIFEST = Kind("observability-manifest", "manifest")
PLAN = Kind("observability-plan", "plan")


class Release(t.NamedTuple):
    """A release as the manifest has it. ``size`` is in bytes."""

    component: str
    version: str
    architecture: str
    url: str
    size: int
    sha256: str
    rollback_floor: str | None = None


class Manifest(t.NamedTuple):
    """A manifest that is signed as it must be. ``signers`` are the names that count, in order."""

    number: int
    expires: str
    releases: tuple[Release, ...]
    signers: tuple[str, ...]
    path: str

    def release(self, component: str, version: str, architecture: str, from_version: str | None = None) -> Release:
        """What it says of one release.

        :param from_version: what is in place now. It may say how far one can go back from there.
        :raises ReleaseError: if it says nothing of it, or that one can't go back so far.
        """
        here = self._find(component, from_version, architecture)
        floor = here.rollback_floor if here else None
        if floor and _versions.compare(version, floor) < 0:
            raise ReleaseError(
                f"{self.path} (number {self.number}) lets nobody go back from {component} {from_version} below "
                f"{floor}: {version} is refused; choose a newer version, or make a manifest that allows it",
                key="manifest.below_floor",
            )
        found = self._find(component, version, architecture)
        if found:
            return found
        raise ReleaseError(
            f"{self.path} (number {self.number}) has no {component} {version} for {architecture}: "
            "add it, sign the manifest again, or choose a version that it has",
            key="manifest.not_listed",
        )

    def _find(self, component: str, version: str | None, architecture: str) -> Release | None:
        if not _versions.is_version(version):
            return None
        wanted = _place(component, str(version), architecture)
        places = {_place(*release[:3]): release for release in self.releases}
        return places.get(wanted)


class _Signer(t.NamedTuple):
    name: str
    key: bytes


class _Wanted(t.NamedTuple):
    """Whose signatures count for a file of a kind: the file of allowed signers, and what stands in it."""

    kind: Kind
    file: str
    signers: list[_Signer]
    run: Run


class _Signature(t.NamedTuple):
    path: str
    key: bytes
    namespace: str


def run(argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = _TIMEOUT) -> Completed:
    """Run a program that reads something, without a shell, in the C locale.

    :param timeout: seconds; it is killed then.
    """
    return _command.run(argv, stdin=stdin, timeout=timeout, cwd=os.getcwd())


def load(path: str, *, allowed_signers: str, threshold: int = 1, now: float, run: Run = run) -> Manifest:
    """Read a manifest, if it is signed by enough of those who may, and hasn't expired.

    :param allowed_signers: file with the names and keys of those who may.
    :param threshold: how many of them must have signed. Names and keys that belong together count once.
    :param now: seconds since 1970, of the run's start.
    :raises ReleaseError: with a key for each reason: those of C(verify), manifest.missing, manifest.malformed,
        manifest.expired.
    :raises InputError: if the threshold or the file of signers can't be used.
    """
    content = _read(path)
    names = verify(path, content, kind=MANIFEST, allowed_signers=allowed_signers, threshold=threshold, run=run)
    number, expires, releases = _parsed(path, content)
    if _seconds(expires) <= now:
        raise ReleaseError(
            f"{path} (number {number}) expired at {expires}: get the current one, or sign it again with a later time",
            key="manifest.expired",
        )
    return Manifest(number, expires, releases, names, path)


def verify(
    path: str, content: bytes, *, kind: Kind, allowed_signers: str, threshold: int = 1, run: Run = run
) -> tuple[str, ...]:
    """The names of those who signed a file, if they are enough.

    :param path: the file; its signatures stand beside it.
    :param content: what was read from it, which is what must be signed.
    :param allowed_signers: file with the names and keys of those who may.
    :param threshold: how many of them must have signed. Names and keys that belong together count once.
    :raises ReleaseError: with a key for each reason, of a manifest manifest.unsigned, manifest.unknown_key,
        manifest.bad_signature, manifest.threshold and manifest.no_verifier.
    :raises InputError: if the threshold or the file of signers can't be used.
    """
    wanted = _Wanted(kind, allowed_signers, _signers(allowed_signers), run)
    possible = _people([(signer.name, signer.key) for signer in wanted.signers])
    if isinstance(threshold, bool) or not isinstance(threshold, int) or not 1 <= threshold <= possible:
        raise InputError(
            f"{threshold!r} signatures are wanted on a {kind.name}, but {allowed_signers} has {possible} signers: "
            f"want 1 to {possible}",
            key=f"input.{kind.name}_threshold",
        )
    return _verified(path, content, wanted, threshold)


def create(releases: t.Iterable[Release], *, number: int, expires: str) -> bytes:
    """A manifest's content, to be written to a file and signed.

    :param expires: as C(2026-12-31T00:00:00Z), in UTC.
    :raises ReleaseError: if C(load) would refuse it.
    """
    listed = [{key: value for key, value in entry._asdict().items() if value is not None} for entry in releases]
    document = {"schema": SCHEMA, "number": number, "expires": expires, "releases": listed}
    content = (json.dumps(document, indent=2) + "\n").encode()
    _parsed("the new manifest", content)
    return content


def sign(path: str, *, key: str, run: Run = run) -> str:
    """Sign a manifest with an SSH key. The signature's path: the next one beside it that is free.

    :param key: file of the private key, or of a public key whose private half an SSH agent holds.
    :raises ReleaseError: if it can't be signed.
    """
    content = _read(path)
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, "manifest")
        with open(copy, "wb") as sink:
            sink.write(content)
        done = run(["ssh-keygen", "-Y", "sign", "-f", key, "-n", MANIFEST.namespace, copy], timeout=_TIMEOUT)
        if done.rc != 0:
            raise ReleaseError(f"{path} can't be signed with {key}: {_told(done)}", key="manifest.not_signed")
        taken = set(_signature_paths(path))
        free = next((name for name in _signature_names(path) if name not in taken), None)
        if free is None:
            raise ReleaseError(
                f"{path} has {len(taken)} signatures: remove those of old content", key="manifest.not_signed"
            )
        try:
            shutil.copyfile(f"{copy}.sig", free)
        except OSError as exc:
            raise ReleaseError(f"{free} can't be written: {exc.strerror}", key="manifest.not_signed") from exc
    return free


# -- signatures ------------------------------------------------------------------------------------------------------


def _signature_names(path: str) -> t.Iterator[str]:
    yield f"{path}.sig"
    for number in range(2, _MOST_SIGNATURES + 2):
        yield f"{path}.{number}.sig"


def _signature_paths(path: str) -> list[str]:
    numbered = re.compile(re.escape(os.path.basename(path)) + r"(?:\.[0-9]{1,9})?\.sig", re.ASCII)
    return sorted(
        found for found in glob.glob(f"{glob.escape(path)}*.sig") if numbered.fullmatch(os.path.basename(found))
    )


def _verified(path: str, content: bytes, wanted: _Wanted, threshold: int) -> tuple[str, ...]:
    """The names of those who signed, if they are enough."""
    paths = _signature_paths(path)
    if not paths:
        raise ReleaseError(
            f"{path} isn't signed: there is no {path}.sig. Sign it with ssh-keygen -Y sign -n {wanted.kind.namespace}",
            key=f"{wanted.kind.name}.unsigned",
        )
    good: list[tuple[str, bytes]] = []
    problems: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as directory:
        for place in paths[:_MOST_SIGNATURES]:
            copy = os.path.join(directory, os.path.basename(place))  # what is looked at is what is verified
            try:
                shutil.copyfile(place, copy)
            except OSError as exc:
                problem: tuple[str, str] | None = ("bad_signature", f"{place} can't be read ({exc.strerror})")
            else:
                problem = _check(copy, content, wanted, good)
            if problem:
                problems.append(problem)
    count = _people(good)
    if count >= threshold:
        return tuple(sorted({name for name, _key in good}))
    raise _not_enough(path, count, threshold, problems, wanted.kind)


def _check(place: str, content: bytes, wanted: _Wanted, good: list[tuple[str, bytes]]) -> tuple[str, str] | None:
    """Add the signers of one signature to the good ones; or tell the end of the error's key, and why not."""
    shown = os.path.basename(place)
    signature = _signature(place)
    if signature is None:
        return "bad_signature", f"{shown} is no SSH signature"
    if signature.namespace != wanted.kind.namespace:
        return "bad_signature", f"{shown} was made for namespace {signature.namespace[:40]!r}"
    names = [signer.name for signer in wanted.signers if signer.key == signature.key]
    if not names:
        return "unknown_key", f"{shown} is of a key that {wanted.file} doesn't have"
    for name in names:
        argv = ["ssh-keygen", "-Y", "verify", "-f", wanted.file, "-I", name, "-n", wanted.kind.namespace, "-s", place]
        done = wanted.run(argv, stdin=content, timeout=_TIMEOUT)
        if done.rc is None or "unknown option" in done.err or "illegal option" in done.err:
            raise ReleaseError(
                f"signatures of a {wanted.kind.name} need ssh-keygen of OpenSSH 8.1 or newer on the controller: "
                f"{_told(done)}",
                key=f"{wanted.kind.name}.no_verifier",
            )
        if done.rc != 0:
            return "bad_signature", f"{shown} isn't {name}'s signature of this content, or not valid any more"
        good.append((name, signature.key))
    return None


def _not_enough(path: str, count: int, threshold: int, problems: list[tuple[str, str]], kind: Kind) -> ReleaseError:
    keys = [key for key, _why in problems]
    key = next((key for key in ("bad_signature", "unknown_key") if key in keys), "threshold")
    if count and key == "unknown_key":
        key = "threshold"
    why = "".join(f"; {why}" for _key, why in problems)
    return ReleaseError(
        f"{path} is signed by {count} of the {threshold} signers that it needs{why}. It is not used",
        key=f"{kind.name}.{key}",
    )


def _people(pairs: t.Sequence[tuple[str, bytes]]) -> int:
    """How many signers there are: a name with two keys is one, and so is a key with two names."""
    groups: list[tuple[set[str], set[bytes]]] = []
    for name, key in pairs:
        names, keys, others = {name}, {key}, []
        for group in groups:
            if group[0] & names or group[1] & keys:
                names |= group[0]
                keys |= group[1]
            else:
                others.append(group)
        groups = [*others, (names, keys)]
    return len(groups)


def _signature(place: str) -> _Signature | None:
    """Key and namespace of a signature (OpenSSH, PROTOCOL.sshsig); None if it is none."""
    try:
        with _regular.opened(place) as source:
            found = _ARMOR.fullmatch(source.read(_SIGNATURE_LIMIT))
        blob = base64.b64decode(b"".join(found[1].split()), validate=True) if found else b""
        if blob[:10] != b"SSHSIG\0\0\0\1":
            return None
        key, rest = _field(blob[10:])
        namespace, _rest = _field(rest)
        return _Signature(place, key, namespace.decode("utf-8", "replace"))
    except (binascii.Error, struct.error):
        return None


def _field(data: bytes) -> tuple[bytes, bytes]:
    """The first of some texts that have their length before them, and what is behind it."""
    (length,) = struct.unpack_from(">I", data)
    return data[4 : 4 + length], data[4 + length :]


def _signers(path: str) -> list[_Signer]:
    """Names and keys of those who may sign."""
    try:
        with _regular.opened(path) as source:
            lines = source.read(_LIMIT).decode("utf-8").split("\n")  # as ssh-keygen does
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"{path}, whose keys sign, can't be read: {getattr(exc, 'strerror', None) or 'it is no text'}",
            key="input.allowed_signers",
        ) from exc
    found = []
    for number, raw in enumerate(lines, 1):
        line = raw.strip(" \t\r")
        if line and not line.startswith("#"):
            found.extend(_signer_line(line, path, number))
    if not found:
        raise InputError(f"{path} has no key: write a line '<name> <kind of key> <key>'", key="input.allowed_signers")
    return found


def _signer_line(line: str, path: str, number: int) -> list[_Signer]:
    words = [word for word in re.split("[ \t]+", line) if word]
    names = words[0].split(",")
    kind = next((place for place, word in enumerate(words) if _is_kind(word)), 0)
    try:
        key = base64.b64decode(words[kind + 1], validate=True) if kind else b""
    except (binascii.Error, IndexError):
        key = b""
    if not key or any(not _NAME.fullmatch(name) for name in names) or "cert-authority" in " ".join(words[1:kind]):
        raise InputError(
            f"{path} line {number} isn't '<name> <kind of key> <key>': patterns and certificates can't be counted, "
            "so each signer has a line with a name and a key",
            key="input.allowed_signers",
        )
    return [_Signer(name, key) for name in names]


def _is_kind(word: str) -> bool:
    return word.startswith(("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"))


def _told(done: Completed) -> str:
    """A program's last line."""
    lines = [line.strip() for line in done.text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"it ended with status {done.rc}"


# -- content ---------------------------------------------------------------------------------------------------------


def _read(path: str) -> bytes:
    try:
        with _regular.opened(path) as source:
            content = source.read(_LIMIT + 1)
    except OSError as exc:
        raise ReleaseError(f"the manifest {path} can't be read: {exc.strerror}", key="manifest.missing") from exc
    if len(content) > _LIMIT:
        raise _malformed(path, f"it has more than {_LIMIT} bytes")
    return content


def _parsed(path: str, content: bytes) -> tuple[int, str, tuple[Release, ...]]:
    """Number, time of expiry and releases. Nothing that isn't known is read over: it might be a condition."""
    try:
        document = json.loads(content.decode(), object_pairs_hook=_without_twins, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise _malformed(path, f"it can't be read as JSON ({exc})") from exc
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or isinstance(document["schema"], bool):
        raise _malformed(path, f"its schema isn't {SCHEMA}, which is what this collection reads")
    _has(path, "it", document, _DOCUMENT, {})
    entries = document["releases"]
    releases = tuple(_release(path, f"releases[{place}]", entry) for place, entry in enumerate(entries))
    places: set[t.Any] = set()
    for place, release in enumerate(releases):
        key = _place(release.component, release.version, release.architecture)
        if key in places:
            raise _malformed(path, f"releases[{place}] is there twice: {' '.join(release[:3])}")
        places.add(key)
    return document["number"], document["expires"], releases


def _place(component: str, version: str, architecture: str) -> tuple[t.Any, ...]:
    return component, _versions.parse(version), architecture


def _release(path: str, where: str, entry: t.Any) -> Release:
    if not isinstance(entry, dict):
        raise _malformed(path, f"{where} is no object")
    _has(path, where, entry, _RELEASE, _MAY)
    return Release(**entry)


def _has(path: str, where: str, data: dict[str, t.Any], must: _Checks, may: _Checks) -> None:
    for name, (check, what) in {**must, **may}.items():
        if (name in must or name in data) and not check(data.get(name)):
            raise _malformed(path, f"{where} has no {name} that is {what}")
    unknown = sorted(set(data) - set(must) - set(may))
    if unknown:
        raise _malformed(path, f"{where} has {unknown[0][:40]!r}, which this version of the collection doesn't know")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value) == 20 and _seconds(value) > 0
    except ValueError:
        return False


def _is_url(value: object) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts = urllib.parse.urlsplit(value)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _matches(pattern: str) -> t.Callable[[object], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII))


_Checks = t.Mapping[str, "tuple[t.Callable[[object], bool], str]"]

_DOCUMENT: _Checks = {
    "schema": (_is_number, f"{SCHEMA}"),
    "number": (_is_number, "a whole number from 1 on"),
    "expires": (_is_time, "a time in UTC like 2026-12-31T00:00:00Z"),
    "releases": (lambda value: isinstance(value, list) and bool(value), "a list of releases"),
}
_RELEASE: _Checks = {
    "component": (_matches(r"[a-z0-9][a-z0-9_-]{0,63}"), "a component's name"),
    "version": (_versions.is_version, "a version"),
    "architecture": (_matches(r"[a-z0-9][a-z0-9_.-]{0,31}"), "an architecture, as releases name it"),
    "url": (_is_url, "an https URL without a password"),
    "size": (_is_number, "a number of bytes"),
    "sha256": (_matches(r"[0-9a-f]{64}"), "a sha256 in lower case"),
}
_MAY: _Checks = {"rollback_floor": (_versions.is_version, "a version")}


def _seconds(moment: str) -> float:
    return dt.datetime.strptime(moment, _TIME).replace(tzinfo=dt.timezone.utc).timestamp()


def _without_twins(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    """An object; one that has a key twice would be read by each program in its own way."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has a key twice")
    return made


def _no_number(text: str) -> t.NoReturn:
    raise ValueError(f"{text} is no number")


def _malformed(path: str, why: str) -> ReleaseError:
    return ReleaseError(f"{path} is no manifest: {why}. Make it anew and sign it again", key="manifest.malformed")
