# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. How releases are to be had and what they are checked against, as the operator's variables say it."""

from __future__ import annotations

import os
import typing as t

from ansible.module_utils.common.text.formatters import human_to_bytes

from ..module_utils._errors import InputError
from ..module_utils._redaction import redact_value
from ..module_utils._transfer import LIMITS, Limits
from . import _bundle, _checksums, _signatures

_PLACEHOLDERS = ("{url}", "{checksums}")
_SIGNATURE = "{signature}"


def default_cache_dir() -> str:
    """The user's cache directory, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "observability-upgrades")


class Signature(t.NamedTuple):
    """A signature that the project of a component makes.

    :ivar of: what is signed: C(archive) or C(checksums).
    :ivar signature: where it is, with C({url}) and C({checksums}) in it.
    :ivar keys: files of OpenPGP keys whose signatures count.
    :ivar cleartext: the signature has the signed list in it.
    :ivar cosign: arguments of C(cosign verify-blob) in place of keys, with C({signature}) for the signature's file.
    """

    of: str
    signature: str
    keys: list[str]
    cleartext: bool
    cosign: list[str]


class ManifestSource(t.NamedTuple):
    """The site's own manifest, and how many of whom must have signed it."""

    path: str
    allowed_signers: str
    threshold: int


class Settings(t.NamedTuple):
    """How releases are to be had and what they are checked against.

    ``bundle`` is a file, and ``cache_dir`` another directory than the user's own, if they aren't empty.
    ``bundle_sha256`` is what the bundle must have, if the operator says it.
    """

    mirror: list[str]
    cache_dir: str
    limits: Limits
    pins: dict[str, str]
    unverified: bool
    signatures: dict[str, Signature]
    manifest: ManifestSource | None
    bundle: str
    bundle_sha256: str = ""


def read(data: t.Any) -> Settings:
    """The settings that the variables C(upgrade_release_<key>), C(upgrade_cache_dir), C(upgrade_bundle) and
    C(upgrade_bundle_sha256) make.

    What is none, empty or not there has its default.

    :raises InputError: naming the variable and the key that is wrong.
    """
    given = _mapping("release", data)
    unknown = sorted(set(given) - set(_VARIABLES))
    if unknown:
        raise InputError(f"release has no {unknown[0]!r}: it has {', '.join(_VARIABLES)}", key="input.release_settings")
    values = {key: given.get(key) for key in _VARIABLES}
    pins = _mapping("upgrade_release_pins", values["pins"])
    _checksums.check_pins(pins)
    signatures = _mapping("upgrade_release_signatures", values["signatures"])
    return Settings(
        mirror=_texts("upgrade_release_mirror", values["mirror"] or []),
        cache_dir=_path("upgrade_cache_dir", values["cache_dir"]),
        limits=_limits(_mapping("upgrade_release_limits", values["limits"])),
        pins=pins,
        unverified=_truth("upgrade_release_unverified", values["unverified"]),
        signatures={name: _signature(name, entry) for name, entry in signatures.items()},
        manifest=_manifest(_mapping("upgrade_release_manifest", values["manifest"])),
        bundle=_path("upgrade_bundle", values["bundle"]),
        bundle_sha256=_checksums.sha256("upgrade_bundle_sha256", values["bundle_sha256"]),
    )


def problems(data: t.Mapping[str, t.Any]) -> list[str]:
    """What is wrong with the settings, or with the bundle that they name: a line, or none."""
    try:
        settings = read(dict(data))
        if settings.bundle:
            _bundle.read(settings.bundle, sha256=settings.bundle_sha256)
            if not (settings.bundle_sha256 or settings.pins or settings.signatures or settings.manifest):
                _bundle.refuse_foreign(settings.bundle, "what is in it")
    except InputError as exc:
        return [str(exc)]
    return []


_VARIABLES = (
    *("mirror", "cache_dir", "limits", "pins", "unverified", "signatures", "manifest"),
    *("bundle", "bundle_sha256"),
)


def _wrong(where: str, value: t.Any, wanted: str) -> InputError:
    return InputError(f"{where} is {redact_value(value)!r}: write {wanted}", key="input.release_settings")


def _mapping(where: str, value: t.Any) -> dict[str, t.Any]:
    if value is None or value == "":
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong(where, value, "a dictionary")
    return dict(value)


def _texts(where: str, value: t.Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
        raise _wrong(where, value, "a list of texts")
    return [str(item) for item in found]


def _truth(where: str, value: t.Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no", ""):
        return value.lower() in ("true", "yes")
    if value is not None and not isinstance(value, bool):
        raise _wrong(where, value, "true or false")
    return bool(value)


def _path(where: str, value: t.Any) -> str:
    if value is not None and not isinstance(value, str):
        raise _wrong(where, value, "the path of a file or directory on the controller")
    return os.path.abspath(os.path.expanduser(value)) if value else ""


# -- limits -----------------------------------------------------------------------------------------------------------

_SECONDS, _BYTES, _TIMES = "seconds", "bytes, or a text like 10MB", "attempts"
_UNITS = {"attempts": _TIMES, "size": _BYTES, "slowest": _BYTES, "bandwidth": _BYTES}
_MAY_BE_ZERO = ("pause", "longest_pause", "longest_wait", "slowest", "bandwidth")


def _limits(given: dict[str, t.Any]) -> Limits:
    unknown = sorted(set(given) - set(Limits._fields))
    if unknown:
        raise InputError(
            f"upgrade_release_limits has {unknown[0]!r}, which is no limit: it has {', '.join(Limits._fields)}",
            key="input.release_settings",
        )
    return LIMITS._replace(**{name: _limit(name, value) for name, value in given.items()})


def _limit(name: str, value: t.Any) -> t.Any:
    unit, least = _UNITS.get(name, _SECONDS), "0 or more" if name in _MAY_BE_ZERO else "more than 0"
    try:
        number = _number(value, unit)
    except (ValueError, TypeError, OverflowError):
        number = -1
    if not 0 <= number < float("inf") or (number == 0 and name not in _MAY_BE_ZERO):
        raise _wrong(f"upgrade_release_limits.{name}", value, f"a number of {unit}; {least}")
    return number


def _number(value: t.Any, unit: str) -> float:
    if isinstance(value, bool):
        raise TypeError
    if unit == _SECONDS:
        return float(value)
    if unit == _BYTES and isinstance(value, str):
        return int(human_to_bytes(value))
    if int(value) != float(value):
        raise ValueError
    return int(value)


# -- signatures and manifest ------------------------------------------------------------------------------------------


def _signature(component: str, entry: t.Any) -> Signature:
    where = f"upgrade_release_signatures.{component}"
    given = _mapping(where, entry)
    unknown = sorted(set(given) - set(Signature._fields))
    if unknown:
        raise InputError(
            f"{where} has {unknown[0]!r}: it has {', '.join(Signature._fields)}", key="input.release_settings"
        )
    keys, cosign = (_texts(f"{where}.{name}", given.get(name) or []) for name in ("keys", "cosign"))
    if bool(keys) == bool(cosign):
        raise _wrong(where, entry, "whose signatures count: either keys (files), or cosign (arguments)")
    of, cleartext = given.get("of", "archive"), _truth(f"{where}.cleartext", given.get("cleartext"))
    if of not in ("archive", "checksums"):
        raise _wrong(f"{where}.of", of, "archive or checksums")
    if cleartext and (of != "checksums" or cosign):
        raise _wrong(f"{where}.cleartext", cleartext, "it only with of: checksums and keys")
    default = f"{_PLACEHOLDERS[of == 'checksums']}.asc" if keys else ""
    template = given.get("signature", default)
    if not isinstance(template, str) or (keys and not template):
        raise _wrong(f"{where}.signature", template, "where it is, such as '{url}.asc' or '{checksums}.asc'")
    if bool(template) != any(_SIGNATURE in word for word in cosign) and cosign:
        raise _wrong(f"{where}.cosign", cosign, f"{_SIGNATURE} where the file of {where}.signature belongs")
    if cosign:
        _signatures.check_cosign(cosign)
    return Signature(of, template, [_path(where, key) for key in keys], cleartext, cosign)


def _manifest(given: dict[str, t.Any]) -> ManifestSource | None:
    if not given:
        return None
    unknown = sorted(set(given) - set(ManifestSource._fields))
    if unknown:
        raise InputError(
            f"upgrade_release_manifest has {unknown[0]!r}: it has {', '.join(ManifestSource._fields)}",
            key="input.release_settings",
        )
    paths = {}
    for name in ("path", "allowed_signers"):
        paths[name] = _path(f"upgrade_release_manifest.{name}", given.get(name))
        if not paths[name]:
            raise _wrong(f"upgrade_release_manifest.{name}", given.get(name), "the path of a file on the controller")
    threshold = given.get("threshold", 1)
    if isinstance(threshold, str) and threshold.isdigit():
        threshold = int(threshold)
    return ManifestSource(paths["path"], paths["allowed_signers"], threshold)
