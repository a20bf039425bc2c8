# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import datetime as dt
import typing as t
import zoneinfo

import pytest
import yaml
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _windows
from hypothesis import example, given, settings
from hypothesis import strategies as st

BERLIN = {"days": ["sat", "sun"], "start": "22:00", "end": "04:00", "timezone": "Europe/Berlin"}
NIGHT = {"start": "22:00", "end": "04:00"}
MINUTE = dt.timedelta(minutes=1)


def berlin(days: t.Any, start: str, end: str) -> dict[str, t.Any]:
    return {"days": days, "start": start, "end": end, "timezone": "Europe/Berlin"}


def sydney(start: str, end: str) -> dict[str, t.Any]:
    return {"days": "sun", "start": start, "end": end, "timezone": "Australia/Sydney"}


def shown(moment: str, *windows: object) -> str:
    return _windows.shown(_windows.status(_windows.read(list(windows)), dt.datetime.fromisoformat(moment)))


CASES: list[tuple[str, list[dict[str, t.Any]], str]] = [
    # now, windows, what is told
    ("2026-11-21T12:00+00:00", [], "open"),
    # across midnight, a window belongs to the day it starts
    ("2026-11-21T12:00+00:00", [BERLIN], "opens Sat 2026-11-21 22:00 CET"),
    ("2026-11-21T20:59+00:00", [BERLIN], "opens Sat 2026-11-21 22:00 CET"),
    ("2026-11-21T21:00+00:00", [BERLIN], "open until Sun 2026-11-22 04:00 CET"),
    ("2026-11-21T22:00+01:00", [BERLIN], "open until Sun 2026-11-22 04:00 CET"),
    ("2026-11-22T02:59+00:00", [BERLIN], "open until Sun 2026-11-22 04:00 CET"),
    ("2026-11-22T03:00+00:00", [BERLIN], "opens Sun 2026-11-22 22:00 CET"),
    ("2026-11-23T02:59+00:00", [BERLIN], "open until Mon 2026-11-23 04:00 CET"),
    # the week begins again
    ("2026-11-23T03:00+00:00", [BERLIN], "opens Sat 2026-11-28 22:00 CET"),
    ("2026-11-22T23:30+00:00", [{"days": "sunday", **NIGHT}], "open until Mon 2026-11-23 04:00 UTC"),
    ("2026-11-23T04:00+00:00", [{"days": "SUN", **NIGHT}], "opens Sun 2026-11-29 22:00 UTC"),
    # all days, whole days
    ("2026-11-21T12:00+00:00", [NIGHT], "opens Sat 2026-11-21 22:00 UTC"),
    ("2026-11-21T12:00+00:00", [{"start": "09:00", "end": "09:00"}], "open"),
    ("2026-11-21T08:00+00:00", [{"days": "sat", "start": "09:00", "end": "09:00"}], "opens Sat 2026-11-21 09:00 UTC"),
    (
        "2026-11-22T08:00+00:00",
        [{"days": "sat", "start": "09:00", "end": "09:00"}],
        "open until Sun 2026-11-22 09:00 UTC",
    ),
    (
        "2026-11-21T08:00+00:00",
        [{"days": "sat", "start": "00:00", "end": "24:00"}],
        "open until Sun 2026-11-22 00:00 UTC",
    ),
    # several: the next one opens; those that adjoin or overlap are one span
    (
        "2026-11-21T12:00+00:00",
        [BERLIN, {"days": "sat", "start": "13:00", "end": "14:00"}],
        "opens Sat 2026-11-21 13:00 UTC",
    ),
    (
        "2026-11-21T13:30+00:00",
        [{"days": "sat", "start": "13:00", "end": "14:00"}, berlin("sat", "15:00", "16:00")],
        "open until Sat 2026-11-21 16:00 CET",
    ),
    (
        "2026-11-21T13:30+00:00",
        [{"days": "sat", "start": "13:00", "end": "15:00"}, {"days": "sat", "start": "14:00", "end": "18:00"}],
        "open until Sat 2026-11-21 18:00 UTC",
    ),
    (
        "2026-11-20T13:30+00:00",
        [{"days": ["fri", "sat"], "start": "00:00", "end": "00:00"}],
        "open until Sun 2026-11-22 00:00 UTC",
    ),
    # spring in Berlin: 02:00 CET is 03:00 CEST on 2027-03-28
    ("2027-03-28T00:59+00:00", [berlin("sun", "02:30", "04:00")], "opens Sun 2027-03-28 03:00 CEST"),
    ("2027-03-28T01:00+00:00", [berlin("sun", "02:30", "04:00")], "open until Sun 2027-03-28 04:00 CEST"),
    ("2027-03-28T00:00+00:00", [berlin("sat", "22:00", "02:30")], "open until Sun 2027-03-28 03:00 CEST"),
    ("2027-03-27T21:00+00:00", [berlin("sat", "22:00", "04:00")], "open until Sun 2027-03-28 04:00 CEST"),
    ("2027-03-28T00:00+00:00", [berlin("sun", "02:15", "02:45")], "opens Sun 2027-04-04 02:15 CEST"),
    ("2027-03-21T03:00+00:00", [berlin("sun", "02:15", "02:45")], "opens Sun 2027-04-04 02:15 CEST"),
    # autumn in Berlin: 03:00 CEST is 02:00 CET on 2026-10-25
    ("2026-10-25T00:00+00:00", [berlin("sun", "02:30", "02:45")], "opens Sun 2026-10-25 02:30 CEST"),
    ("2026-10-25T00:30+00:00", [berlin("sun", "02:30", "02:45")], "open until Sun 2026-10-25 02:45 CEST"),
    ("2026-10-25T00:45+00:00", [berlin("sun", "02:30", "02:45")], "opens Sun 2026-10-25 02:30 CET"),
    ("2026-10-25T01:30+00:00", [berlin("sun", "02:30", "02:45")], "open until Sun 2026-10-25 02:45 CET"),
    ("2026-10-25T00:30+00:00", [berlin("sun", "02:30", "03:00")], "open until Sun 2026-10-25 02:00 CET"),
    ("2026-10-25T00:00+00:00", [berlin("sat", "22:00", "02:30")], "open until Sun 2026-10-25 02:30 CEST"),
    ("2026-10-25T00:30+00:00", [berlin("sat", "22:00", "02:30")], "opens Sun 2026-10-25 02:00 CET"),
    ("2026-10-24T20:00+00:00", [berlin("sat", "22:00", "04:00")], "open until Sun 2026-10-25 04:00 CET"),
    # the other hemisphere: 02:00 AEST is 03:00 AEDT on 2026-10-04, 03:00 AEDT is 02:00 AEST on 2027-04-04
    ("2026-10-03T15:00+00:00", [sydney("02:30", "04:00")], "opens Sun 2026-10-04 03:00 AEDT"),
    ("2027-04-03T15:00+00:00", [sydney("02:30", "02:45")], "opens Sun 2027-04-04 02:30 AEDT"),
    ("2027-04-03T15:45+00:00", [sydney("02:30", "02:45")], "opens Sun 2027-04-04 02:30 AEST"),
    ("2027-04-03T14:00+00:00", [sydney("00:00", "06:00")], "open until Sun 2027-04-04 06:00 AEST"),
    # half an hour, and a clock that is put forward at midnight
    (
        "2026-10-03T15:00+00:00",
        [{"start": "02:10", "end": "03:00", "timezone": "Australia/Lord_Howe"}],
        "opens Sun 2026-10-04 02:30 +11",
    ),
    (
        "2026-09-06T02:00+00:00",
        [{"days": "sun", "start": "00:00", "end": "02:00", "timezone": "America/Santiago"}],
        "opens Sun 2026-09-06 01:00 -03",
    ),
]


@pytest.mark.parametrize("moment, windows, told", CASES)
def test_status(moment: str, windows: list[dict[str, t.Any]], told: str) -> None:
    assert shown(moment, *windows) == told


def test_a_status_tells_what_can_be_told_further() -> None:
    (window,) = windows = _windows.read([BERLIN])
    before = _windows.status(windows, dt.datetime(2026, 11, 21, 12, tzinfo=dt.timezone.utc))
    assert before == (False, None, dt.datetime(2026, 11, 21, 21, tzinfo=dt.timezone.utc))
    assert before.opens is not None
    assert before.opens.tzname() == before.opens.astimezone(window.zone).tzname() == "CET"
    inside = _windows.status(windows, before.opens)
    assert inside == (True, dt.datetime(2026, 11, 22, 3, tzinfo=dt.timezone.utc), None)


# -- what the operator writes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, [], ()])
def test_no_windows_are_no_limit(value: object) -> None:
    assert _windows.read(value) == []


@pytest.mark.parametrize(
    "text",
    [
        "[{days: [sat, SUN], start: '22:00', end: '04:00', timezone: Europe/Berlin}]",
        "[{days: [Saturday, sunday], start: 22:00, end: 04:00, timezone: Europe/Berlin}]",
        "[{days: [sun, sat, sun], start: 1320, end: 240, timezone: Europe/Berlin}]",
        "[{days: [sat, sun], start: ' 22:00 ', end: '4:00', timezone: Europe/Berlin}]",
    ],
)
def test_ways_to_write_one(text: str) -> None:
    """YAML reads 22:00 as a number."""
    assert _windows.read(yaml.safe_load(text)) == [
        _windows.Window(frozenset({5, 6}), 22 * 60, 6 * 60, zoneinfo.ZoneInfo("Europe/Berlin"))
    ]


def test_defaults() -> None:
    assert _windows.read([NIGHT]) == [_windows.Window(frozenset(range(7)), 22 * 60, 6 * 60, dt.timezone.utc)]


@pytest.mark.parametrize(
    "value, message",
    [
        ("sat", "upgrade_windows is 'sat'; it must be a list of windows"),
        (BERLIN, "upgrade_windows is {'days': .*; it must be a list of windows"),
        (["sat"], r"upgrade_windows\[0\] is 'sat'; it must be a window, like {days: sat"),
        (
            [NIGHT, {**NIGHT, "day": "sat"}],
            r"upgrade_windows\[1\]\.day is not a field; did you mean days\?",
        ),
        ([{**NIGHT, "from": 1}], r"upgrade_windows\[0\]\.from is not a field; allowed are days, start, end, timezone"),
        ([{"start": "22:00"}], r"upgrade_windows\[0\]\.end is missing; write a time, like end: '22:00'"),
        ([{"end": "22:00"}], r"upgrade_windows\[0\]\.start is missing"),
        ([{**NIGHT, "days": []}], r"upgrade_windows\[0\]\.days is \[\]; .* leave it out for all days"),
        ([{**NIGHT, "days": None}], r"upgrade_windows\[0\]\.days is None; .* leave it out for all days"),
        ([{**NIGHT, "days": "samstag"}], r"upgrade_windows\[0\]\.days is 'samstag'; it must be one of mon, tue, wed"),
        ([{**NIGHT, "days": [6]}], r"upgrade_windows\[0\]\.days is 6; it must be one of mon"),
        ([{**NIGHT, "start": "25:00"}], r"upgrade_windows\[0\]\.start is '25:00'; .* from 00:00 to 23:59 in quotes"),
        ([{**NIGHT, "start": "24:00"}], r"upgrade_windows\[0\]\.start is '24:00'"),
        ([{**NIGHT, "end": "24:01"}], r"upgrade_windows\[0\]\.end is '24:01'; .* from 00:00 to 24:00 in quotes"),
        ([{**NIGHT, "start": 1440}], r"upgrade_windows\[0\]\.start is 1440"),
        ([{**NIGHT, "start": -1}], r"upgrade_windows\[0\]\.start is -1"),
        ([{**NIGHT, "start": True}], r"upgrade_windows\[0\]\.start is True"),
        ([{**NIGHT, "start": 22.5}], r"upgrade_windows\[0\]\.start is 22\.5"),
        ([{**NIGHT, "start": "22:00:00"}], r"upgrade_windows\[0\]\.start is '22:00:00'"),
        ([{**NIGHT, "end": None}], r"upgrade_windows\[0\]\.end is None"),
        (
            [{**NIGHT, "timezone": "Europe/Berlni"}],
            r"\[0\]\.timezone is 'Europe/Berlni'; .*did you mean Europe/Berlin\?",
        ),
        ([{**NIGHT, "timezone": "Europe"}], r"upgrade_windows\[0\]\.timezone is 'Europe'; .*like Europe/Berlin"),
        ([{**NIGHT, "timezone": "../../etc/passwd"}], r"upgrade_windows\[0\]\.timezone is '\.\./\.\./etc/passwd'"),
        ([{**NIGHT, "timezone": ""}], r"upgrade_windows\[0\]\.timezone is ''"),
        ([{**NIGHT, "timezone": 1}], r"upgrade_windows\[0\]\.timezone is 1; it must be the name of a time zone"),
    ],
)
def test_refused(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _windows.read(value)
    assert caught.value.key == "input.windows"
    assert "\n" not in str(caught.value)


def test_a_machine_without_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(InputError, match="this machine has no time zones: install tzdata, or leave it out for UTC"):
        _windows.read([{**NIGHT, "timezone": "Nowhere/Atlantis"}])
    assert _windows.read([NIGHT])


# -- properties ---------------------------------------------------------------------------------------------------

ZONES = st.sampled_from(
    [
        *("UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Kolkata"),
        *("Australia/Sydney", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"),
    ]
)
TIMES = st.integers(0, 24 * 4 - 1).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
DAYS = st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1)
WINDOWS = st.lists(
    st.fixed_dictionaries({"days": DAYS, "start": TIMES, "end": TIMES, "timezone": ZONES}), min_size=1, max_size=3
)
# Days around which clocks are put, and an ordinary one.
BEGINNINGS = st.sampled_from(
    [dt.datetime(*day, tzinfo=dt.timezone.utc) for day in [(2026, 10, 24), (2027, 3, 27), (2026, 10, 3), (2026, 4, 4)]]
    + [dt.datetime(*day, tzinfo=dt.timezone.utc) for day in [(2026, 9, 5), (2026, 3, 7), (2026, 11, 21)]]
)
NOWS = st.builds(lambda day, seconds: day + dt.timedelta(seconds=seconds), BEGINNINGS, st.integers(0, 2 * 86400))


def walk(windows: list[dict[str, t.Any]], now: dt.datetime, days: int) -> tuple[bool, dt.datetime | None]:
    """Whether a window is open, and the minute at which that changes, by looking at the clock each minute."""
    week = 7 * 24 * 60
    sets = []
    for window in windows:
        start, end = (int(text[:2]) * 60 + int(text[3:]) for text in (window["start"], window["end"]))
        length = end - start if end > start else end - start + 24 * 60
        first = [
            ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].index(day) * 24 * 60 + start for day in window["days"]
        ]
        minutes = {(minute + after) % week for minute in first for after in range(length)}
        sets.append((zoneinfo.ZoneInfo(window["timezone"]), minutes))

    def is_open(moment: dt.datetime) -> bool:
        walls = [(moment.astimezone(zone), minutes) for zone, minutes in sets]
        return any(wall.weekday() * 1440 + wall.hour * 60 + wall.minute in minutes for wall, minutes in walls)

    here = is_open(now)
    moment = now.replace(second=0)
    while moment < now + dt.timedelta(days=days):
        moment += MINUTE
        if is_open(moment) is not here:
            return here, moment
    return here, None


@settings(deadline=None, max_examples=60)
@given(WINDOWS, NOWS)
@example([berlin(["sun"], "02:15", "02:45")], dt.datetime(2026, 10, 24, 12, tzinfo=dt.timezone.utc))
@example([berlin(["sat"], "22:00", "02:30")], dt.datetime(2027, 3, 27, 22, tzinfo=dt.timezone.utc))
def test_agrees_with_a_look_at_the_clock(windows: list[dict[str, t.Any]], now: dt.datetime) -> None:
    found = _windows.status(_windows.read(windows), now)
    is_open, changes = walk(windows, now, days=3)
    assert found.open is is_open
    told = found.until if is_open else found.opens
    if changes:
        assert told == changes
    else:
        assert told is None or told > now + dt.timedelta(days=3)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["sat", "22:00", "UTC"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["days", "start", "end", "timezone"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(ANYTHING | st.lists(ANYTHING, max_size=2))
def test_any_data_is_understood_or_refused(value: object) -> None:
    now = dt.datetime(2026, 11, 21, tzinfo=dt.timezone.utc)
    with contextlib.suppress(InputError):
        assert _windows.shown(_windows.status(_windows.read(value), now))
