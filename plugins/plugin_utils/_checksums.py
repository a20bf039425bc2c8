# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What a release's list of checksums says of one file, and what the inventory pins.

Lists that releases have today:

    <hash>  <file>              sha256sum, promu, goreleaser; C(*) before the name says that it was read as binary
    <hash>                      one bare hash (Grafana up to 12.4.2)
    <hash>  dist/<other file>   one line with another name (Grafana from 12.4.3, grafana/grafana#124709)
    SHA256 (<file>) = <hash>    BSD, and C(sha256sum --tag); C(openssl dgst) leaves out the spaces

A line ends with C(\\n) or C(\\r\\n), as for the programs that make and check such lists. A list with any other control
character, or with a character that is not printable, is refused.

Pins are the operator's own: C({"node_exporter-1.9.0.linux-amd64.tar.gz": <hash>}) by file name, or
C({"node_exporter/1.9.0/amd64": <hash>}).
"""

from __future__ import annotations

import re
import typing as t

from ..module_utils._errors import InputError, ReleaseError

_HASH = "[0-9a-fA-F]{64}"
_LINES = (
    re.compile(rf"(?P<hash>{_HASH})"),
    re.compile(rf"(?P<hash>{_HASH})[ \t]+[*]?(?P<name>\S.*)"),
    re.compile(rf"SHA(?:2-)?256 ?\((?P<name>.+)\) ?= ?(?P<hash>{_HASH})"),
)
_OTHER_HASH = "(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{56}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128})"
_OTHER_ALGORITHM = re.compile(rf"{_OTHER_HASH}[ \t]+[*]?\S.*|[A-Za-z0-9/-]+ ?\(.+\) ?= ?(?:{_OTHER_HASH}|{_HASH})")
_SIGNED = "-----BEGIN PGP SIGNED MESSAGE-----"
_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_SHOWN = 60


class _Line(t.NamedTuple):
    hash: str
    name: str | None


def listed(listing: str, *, name: str, where: str) -> str:
    """The sha256 that a checksum list gives for a file, in lower case.

    A list that is one line is of that file, whatever name stands in it. In any other the name must be the file's exact
    name; C(./) may stand before it.

    :param where: the list's URL, as it may be shown.
    :raises ReleaseError: if it is no such list, doesn't have the file, or says two things of it.
    """
    lines = _lines(listing, where)
    if len(lines) == 1:
        found = {lines[0].hash}
    else:
        found = {line.hash for line in lines if line.name is not None and line.name.removeprefix("./") == name}
    if not found:
        raise ReleaseError(
            f"{where} has no sha256 for {name}: nothing is fetched without one. "
            "Is this version released for this architecture?",
            key="release.no_checksum",
        )
    if len(found) > 1:
        raise ReleaseError(
            f"{where} has {len(found)} different sha256 for {name}: none of them is trusted. "
            "Pin the right one in upgrade_release_pins, and tell the project",
            key="release.ambiguous_checksum",
        )
    return _not_of_nothing(found.pop(), name, where)


def _lines(listing: str, where: str) -> list[_Line]:
    """What a list says, line by line; those of other algorithms are left out."""
    found, others = [], 0
    for number, raw in enumerate(listing.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), 1):
        line = raw.strip(" \t")
        if not line.replace("\t", " ").isprintable():
            raise ReleaseError(
                f"{where} is refused: its line {number} has a character that is not printable, so that programs could "
                "read it in different ways. Pin the right sha256 in upgrade_release_pins, and tell the project",
                key="release.checksum_list",
            )
        match = next(filter(None, (pattern.fullmatch(line) for pattern in _LINES)), None)
        if match:
            found.append(_Line(match["hash"].lower(), match.groupdict().get("name")))
        elif _OTHER_ALGORITHM.fullmatch(line):
            others += 1
        elif line == _SIGNED:
            raise ReleaseError(
                f"{where} is a signed list, and is not used unverified: name the keys that sign it",
                key="release.checksum_list",
            )
        elif line and not line.startswith("#"):
            raise ReleaseError(
                f"{where} is no list of sha256 checksums: its line {number} is {_short(line)!r}. "
                "Does the URL lead to a page?",
                key="release.checksum_list",
            )
    if not found:
        what = "checksums of another kind only, no sha256" if others else "empty"
        raise ReleaseError(f"{where} is {what}: nothing is fetched without a sha256", key="release.checksum_list")
    return found


def _not_of_nothing(digest: str, name: str, where: str) -> str:
    if digest == _OF_NOTHING:
        raise ReleaseError(
            f"{where} has for {name} the sha256 of an empty file: its release went wrong; choose another version",
            key="release.checksum_list",
        )
    return digest


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def sha256(variable: str, value: t.Any) -> str:
    """A sha256 that an operator gives, in lower case; empty if none is given.

    :raises InputError: naming the variable, if it is anything else.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not re.fullmatch(_HASH, value):
        raise InputError(f"{variable} must be a sha256: 64 hexadecimal digits, in quotes", key="input.release_settings")
    return value.lower()


def check_pins(pins: t.Mapping[t.Any, t.Any], *, variable: str = "upgrade_release_pins") -> None:
    """Whether pins are what they must be.

    :raises InputError: naming the variable and the first key that is wrong.
    """
    for key, value in pins.items():
        parts = key.split("/") if isinstance(key, str) else []
        if len(parts) not in (1, 3) or not all(parts):
            raise InputError(
                f"{variable} has the key {key!r}: write the archive's file name, or component/version/architecture",
                key="input.bad_pin",
            )
        if not isinstance(value, str) or not re.fullmatch(_HASH, value):
            raise InputError(
                f"{variable}[{key!r}] must be a sha256: 64 hexadecimal digits, in quotes", key="input.bad_pin"
            )


def pinned(
    pins: t.Mapping[str, str],
    *,
    name: str,
    component: str,
    version: str,
    architecture: str,
    variable: str = "upgrade_release_pins",
) -> str | None:
    """The sha256 that is pinned for a file, in lower case; None if none is.

    :raises InputError: if the file's name and its component are pinned to different ones, or a pin is none.
    """
    check_pins(pins, variable=variable)
    keys = [key for key in (name, f"{component}/{version}/{architecture}") if key in pins]
    found = {pins[key].lower() for key in keys}
    if len(found) > 1:
        raise InputError(
            f"{variable} pins {keys[0]!r} and {keys[1]!r}, which are one file, to different sha256: keep the right one",
            key="input.bad_pin",
        )
    return found.pop() if found else None


def agreed(said: t.Mapping[str, str | None], *, name: str) -> str:
    """The sha256 that all say who say one.

    :param said: by who says it (a URL, a variable, a manifest), as it may be shown. None says nothing.
    :raises ReleaseError: if nobody says one, or two say different ones.
    """
    found = {who: digest.lower() for who, digest in said.items() if digest}
    if not found:
        raise ReleaseError(f"nothing says what sha256 {name} has: it is not fetched", key="release.no_checksum")
    if len(set(found.values())) > 1:
        told = "; ".join(f"{who}: {digest}" for who, digest in found.items())
        raise ReleaseError(
            f"{name} is not used, for it should have different sha256 ({told}): find out which is right",
            key="release.checksum_disagreement",
        )
    return next(iter(found.values()))
