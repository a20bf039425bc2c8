# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Pure ring. What can go wrong, by who has to act on it. Each error carries a stable C(key)."""

from __future__ import annotations

import typing as t


def shown(text: object, *, most: int = 0, lines: bool = False) -> str:
    """A text from a host, a service, a mirror or a file, as a terminal or a report may have it.

    Everything that is not printable is escaped: control characters (C0, C1, DEL), newlines, bidirectional controls,
    zero-width characters, line separators, lone surrogates. What is escaped already stays as it is.

    :param most: a longer text is cut after so many characters, and its length is added. 0 is no limit.
    :param lines: newlines stay.
    """
    text = str(text)
    if most and len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or (lines and one == "\n") else repr(one)[1:-1] for one in text)


class UpgradeError(Exception):
    """Something refused or failed. The message says what, where, and what to do next, in one line: what isn't
    printable in it, as a user's data or a server may have brought along, is escaped.

    ``key`` names the kind of failure and is never reused; ``details`` goes into the module's result as it is.
    """

    default_key = "upgrade.error"

    def __init__(self, message: str, *, key: str | None = None, details: dict[str, t.Any] | None = None) -> None:
        super().__init__(shown(message))
        self.key = key or self.default_key
        self.details = details or {}


class InputError(UpgradeError):
    """The operator's data is wrong: nothing was touched."""

    default_key = "input.invalid"


class HostError(UpgradeError):
    """The host is not as it must be, or an operation on it failed."""

    default_key = "host.failed"


class ReleaseError(UpgradeError):
    """A release can't be had, or isn't what it must be."""

    default_key = "release.refused"


class StateError(UpgradeError):
    """The record on the host is damaged, or the request contradicts it."""

    default_key = "state.invalid"


class LockedError(UpgradeError):
    """Somebody else upgrades this host now."""

    default_key = "lock.held"
