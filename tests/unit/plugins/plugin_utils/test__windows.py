# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime as dt

from ansible_collections.observability.stack.plugins.plugin_utils import _windows

BERLIN = {"days": ["sat", "sun"], "start": "22:00", "end": "04:00", "timezone": "Europe/Berlin"}


def shown(moment: str, *windows: object) -> str:
    return _windows.shown(_windows.status(_windows.read(list(windows)), dt.datetime.fromisoformat(moment)))


def test_across_midnight() -> None:
    assert shown("2026-11-21T12:00:00+00:00", BERLIN) == "opens Sat 2026-11-21 22:00 CET"
    assert shown("2026-11-21T21:00:00+00:00", BERLIN) == "open until Sun 2026-11-22 04:00 CET"
    assert shown("2026-11-23T02:59:00+00:00", BERLIN) == "open until Mon 2026-11-23 04:00 CET"
    assert shown("2026-11-23T03:00:00+00:00", BERLIN) == "opens Sat 2026-11-28 22:00 CET"
