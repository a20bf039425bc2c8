# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. Maintenance windows: whether one is open, until when, and when the next one opens.

A window is a span of the local clock. A clock that is put forward skips what lies in the gap: a window that would start
there opens right after it. A clock that is put back shows an hour twice: the window is open both times.
docs/policy.md tells how windows are written.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
import typing as t
import zoneinfo

from ._checks import Field, FieldError, list_of, must_be, record, variable

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_BY_NAME = {name: number for number, day in enumerate(_DAYS) for name in (day, day[:3])}
_TIME = re.compile(r"(\d{1,2}):([0-5]\d)", re.ASCII)
_DAY = dt.timedelta(days=1)
_MINUTES = 24 * 60
_AHEAD = 15
"""Days that are looked ahead. A week isn't enough: a window may lie in the gap of a clock that is put forward."""
_STRIDE = dt.timedelta(hours=3)
"""Two changes of one zone's clock are never as close to each other as this."""


class Window(t.NamedTuple):
    """A span of the local clock on some days of the week. One that goes over midnight belongs to the day it starts."""

    days: frozenset[int]
    """0 is Monday."""
    start: int
    """Minutes since midnight."""
    length: int
    """Minutes of the local clock, at most a day."""
    zone: dt.tzinfo


class Status(t.NamedTuple):
    """Whether an upgrade may start. Times have the offset of the window in question."""

    open: bool
    until: dt.datetime | None
    """When it closes; None if it isn't open, or stays open for two weeks and longer."""
    opens: dt.datetime | None
    """When the next one opens; None if one is open."""


# -- what the operator writes -------------------------------------------------------------------------------------


def read(value: t.Any) -> list[Window]:
    """The windows of C(upgrade_windows), checked. None, like an empty list, is no limit at all.

    :raises InputError: naming the window, its key, and what is allowed.
    """
    return t.cast("list[Window]", variable("upgrade_windows", _WINDOWS, value, unset=[], key="input.windows"))


def _window(value: t.Any) -> Window:
    given = _FIELDS(value)
    start, end = given["start"], given["end"]
    return Window(given["days"], start, (end - start) % _MINUTES or _MINUTES, given["timezone"])


def _days(value: t.Any) -> frozenset[int]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names:
        raise must_be("a day or a list of days, like [sat, sun]; leave it out for all days", value)
    for name in names:
        if not isinstance(name, str) or name.lower() not in _BY_NAME:
            raise must_be(f"one of {', '.join(day[:3] for day in _DAYS)}, or the day's full name", name)
    return frozenset(_BY_NAME[name.lower()] for name in names)


def _time_of_day(latest: int) -> t.Callable[[t.Any], int]:
    """Minutes since midnight. YAML reads 22:00 without quotes as that number: 1320."""
    last = f"{latest // 60:02}:{latest % 60:02}"

    def check(value: t.Any) -> int:
        if isinstance(value, str):
            found = _TIME.fullmatch(value.strip())
            minutes = int(found[1]) * 60 + int(found[2]) if found else -1
        else:
            minutes = value if isinstance(value, int) and not isinstance(value, bool) else -1
        if not 0 <= minutes <= latest:
            raise must_be(f"a time from 00:00 to {last} in quotes, like '22:00'", value)
        return minutes

    return check


def _zone(value: t.Any) -> dt.tzinfo:
    """A time zone. UTC needs no data of the machine's."""
    if not isinstance(value, str):
        raise must_be("the name of a time zone, like Europe/Berlin", value)
    name = str.__str__(value)
    if name == "UTC":
        return dt.timezone.utc
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not allowed in a name, or a directory of zones
        pass
    known = zoneinfo.available_timezones()
    if not known:
        raise FieldError(f"is {name!r}, but this machine has no time zones: install tzdata, or leave it out for UTC")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise must_be(f"the name of a time zone, like Europe/Berlin{hint}", name)


_FIELDS = record(
    {
        "days": Field(_days, _DAYS),
        "start": Field(_time_of_day(_MINUTES - 1), missing="write a time, like start: '22:00'"),
        "end": Field(_time_of_day(_MINUTES), missing="write a time, like end: '22:00'"),
        "timezone": Field(_zone, "UTC"),
    },
    what="a window, like {days: sat, start: '22:00', end: '04:00'}",
)
_WINDOWS = list_of(_window, what="a list of windows, like [{days: sat, start: '22:00', end: '04:00'}]")


# -- what the clock says ------------------------------------------------------------------------------------------


def status(windows: t.Sequence[Window], now: dt.datetime) -> Status:
    """Whether a window is open, and when that changes. Windows that overlap or adjoin are one span.

    :param now: with its time zone.
    """
    if not windows:
        return Status(open=True, until=None, opens=None)
    here = now.astimezone(dt.timezone.utc)
    opened = _open(windows, here)
    for moment in sorted({m for window in windows for m in _moments(window, here) if m > here}):
        after = _open(windows, moment)
        if opened and not after:
            last = _open(windows, moment - dt.timedelta(microseconds=1))
            return Status(open=True, until=_local(moment, last[0].zone), opens=None)
        if after and not opened:
            return Status(open=False, until=None, opens=_local(moment, after[0].zone))
    return Status(open=bool(opened), until=None, opens=None)


def _local(moment: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """A moment as a zone's clock shows it. Its offset is fixed, so that it equals itself in other zones (PEP 495)."""
    local = moment.astimezone(zone)
    return local.replace(tzinfo=dt.timezone(local.utcoffset() or dt.timedelta(), local.tzname() or ""), fold=0)


def shown(found: Status) -> str:
    """A status for people: C(open until Sun 2026-11-22 04:00 CET), C(opens Sat 2026-11-21 22:00 CET)."""
    if found.open:
        return f"open until {_time(found.until)}" if found.until else "open"
    return f"opens {_time(found.opens)}" if found.opens else f"doesn't open in the next {_AHEAD} days"


def _time(moment: dt.datetime) -> str:
    """A time with its day, in English whatever the locale, and its zone."""
    return f"{_DAYS[moment.weekday()][:3].capitalize()} {moment:%Y-%m-%d %H:%M %Z}"


def _open(windows: t.Sequence[Window], moment: dt.datetime) -> list[Window]:
    """The windows that are open at a moment."""
    return [window for window in windows if _holds(window, moment.astimezone(window.zone).replace(tzinfo=None))]


def _holds(window: Window, wall: dt.datetime) -> bool:
    """Whether a window is open when a clock on the wall shows this time: it started today or yesterday."""
    for day in (wall.date(), wall.date() - _DAY):
        start, end = _span(window, day)
        if day.weekday() in window.days and start <= wall < end:
            return True
    return False


def _span(window: Window, day: dt.date) -> tuple[dt.datetime, dt.datetime]:
    """Start and end of a window on the wall, on a day that it may be open."""
    start = dt.datetime.combine(day, dt.time()) + dt.timedelta(minutes=window.start)
    return start, start + dt.timedelta(minutes=window.length)


def _moments(window: Window, here: dt.datetime) -> t.Iterator[dt.datetime]:
    """All moments at which a window may open or close, in UTC: the clock shows its start or end, or is put."""
    today = here.astimezone(window.zone).date()
    for ahead in range(-1, _AHEAD + 1):
        for wall in _span(window, today + ahead * _DAY):
            for fold in (0, 1):  # what a clock shows twice are two moments
                yield wall.replace(tzinfo=window.zone, fold=fold).astimezone(dt.timezone.utc)
    start = here.replace(microsecond=0)
    for count in range(_AHEAD * _DAY // _STRIDE):
        yield from _clock_change(window.zone, start + count * _STRIDE, start + (count + 1) * _STRIDE)


def _clock_change(zone: dt.tzinfo, low: dt.datetime, high: dt.datetime) -> t.Iterator[dt.datetime]:
    """The second at which a zone's clock is put, if that is between two moments in UTC."""
    before = low.astimezone(zone).utcoffset()
    if before == high.astimezone(zone).utcoffset():
        return
    while high - low > dt.timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    yield high
