# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _lease
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, LockedError
from hypothesis import given
from hypothesis import strategies as st

RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "pid": 7, "start_ticks": 100, "dead": []}
OTHER = {**RUN, "upgrade_id": "u2", "controller": "c2"}


def enter(lease: dict[str, t.Any], run: dict[str, t.Any] | None, *, now: float) -> dict[str, t.Any]:
    return _lease.enter(lease, run, now=now, uptime=now + 1e6, seconds=900, boot_id="b", acquire=True)


def renew(lease: dict[str, t.Any], run: dict[str, t.Any] | None, *, now: float) -> dict[str, t.Any]:
    return _lease.enter(lease, run, now=now, uptime=now + 1e6, seconds=900, boot_id="b")


def test_a_run_takes_renews_and_gives_back_its_lease() -> None:
    taken = enter({}, RUN, now=100)
    assert (taken["upgrade_id"], taken["token"], taken["acquired"], taken["expires"]) == ("u1", 1, 100, 1000)
    renewed = enter(taken, RUN, now=200)
    assert (renewed["token"], renewed["acquired"], renewed["expires"]) == (1, 100, 1100)
    assert (taken["renewed"], renewed["renewed"]) == (100, 200)
    free = _lease.released(renewed)
    assert _lease.holder(free, now=201) is None
    assert enter(free, OTHER, now=202)["token"] == 2


def test_another_run_is_refused_with_who_holds_it_and_since_when() -> None:
    taken = enter({}, RUN, now=0)
    with pytest.raises(LockedError, match=r"ops on c1 \(upgrade u1, since 5 min\).*ends in 10 min") as failure:
        enter(taken, OTHER, now=300)
    assert failure.value.key == "lock.held"


def test_a_module_of_no_run_respects_a_lease_and_takes_none() -> None:
    taken = enter({}, RUN, now=0)
    with pytest.raises(LockedError):
        enter(taken, None, now=300)
    assert enter({}, None, now=0) == {}


@pytest.mark.parametrize(
    ("now", "dead"), [(901, []), (10, ["u1"])], ids=["a lease that ended", "a run that is known to be dead"]
)
def test_a_lease_is_taken_over_from(now: float, dead: list[str]) -> None:
    taken = enter({}, RUN, now=0)
    over = enter(taken, {**OTHER, "dead": dead}, now=now)
    assert (over["upgrade_id"], over["token"], over["acquired"]) == ("u2", 2, now)


def test_a_run_that_has_the_host_renews_its_lease_even_if_that_has_ended() -> None:
    taken = enter({}, RUN, now=0)
    assert renew(taken, RUN, now=5000)["expires"] == 5900


@pytest.mark.parametrize("step", [0, 1, -1, 3600, -3600, 1e8, -1e8], ids=lambda step: f"{step:+g} s")
@pytest.mark.parametrize(("passed", "held"), [(899, True), (901, False)], ids=["lasts", "has ended"])
def test_a_lease_lasts_as_long_as_it_should_whatever_is_done_to_the_clock(
    step: float, passed: float, held: bool
) -> None:
    """A host whose clock was set forward by an hour was taken from a run that lived; set back, it stayed locked."""
    taken = _lease.enter({}, RUN, now=1e9, uptime=50, seconds=900, boot_id="b", acquire=True)
    seen = _lease.present(taken, now=1e9 + step + passed, uptime=50 + passed, boot_id="b")
    assert (_lease.holder(taken, now=seen) == "u1") is held
    assert f"since {passed / 60:.0f} min" in _lease.describe(taken, now=seen)
    renewed = _lease.enter(taken, RUN, now=1e9 + step, uptime=50 + passed, seconds=900, boot_id="b")
    assert renewed["renewed"] - renewed["acquired"] == passed


@pytest.mark.parametrize(("uptime", "held"), [(5, True), (899, True), (901, False)])
def test_after_a_reboot_a_lease_lasts_at_most_as_long_again(uptime: float, held: bool) -> None:
    """A machine without a battery may start in another year."""
    taken = _lease.enter({}, RUN, now=1e9, uptime=1e6, seconds=900, boot_id="b", acquire=True)
    for year in (0.0, 1e9, 2e9):
        seen = _lease.present(taken, now=year, uptime=uptime, boot_id="c")
        assert (_lease.holder(taken, now=seen) == "u1") is held


@pytest.mark.parametrize("lease", [{}, {"token": 3}, {**RUN, "acquired": 1, "renewed": 1, "expires": 2}])
def test_a_lease_that_has_no_time_since_the_boot_is_judged_by_the_time_of_day(lease: dict[str, t.Any]) -> None:
    assert _lease.present(lease, now=7, uptime=5, boot_id="b") == 7


@pytest.mark.parametrize(
    ("lease", "says"),
    [
        ({}, "nobody has it now"),
        ({"token": 3}, "nobody has it now"),
        (enter({}, OTHER, now=0), "upgrade u2 of ops on c2 has had it for 5 min"),
        (enter({}, {**OTHER, "upgrade_id": "u0"}, now=-600), "upgrade u0 of ops on c2 has had it for 15 min"),
    ],
    ids=["never begun", "released", "taken over", "taken over by one that has ended"],
)
def test_a_module_that_comes_late_is_fenced_off_and_told_why(lease: dict[str, t.Any], says: str) -> None:
    for dead in ([], [lease.get("upgrade_id")]):
        with pytest.raises(LockedError, match=says) as failure:
            renew(lease, {**RUN, "dead": dead}, now=300)
        assert failure.value.key == "lock.lost"
        assert "upgrade u1 doesn't have this host, or not any more" in str(failure.value)
        assert "This run must not go on here; run again when the host is free" in str(failure.value)


@pytest.mark.parametrize("data", [b"", b"\0" * 50, b" " * 1023 + b"\n"], ids=["empty", "zeros", "padding"])
def test_a_lock_file_without_content_is_a_free_lease(data: bytes) -> None:
    assert _lease.decode(data) == {}
    assert _lease.holder(_lease.decode(data), now=0) is None


HELD = {"upgrade_id": "u1", "acquired": 1, "renewed": 1, "expires": 2}
TEXT = _lease.encode(HELD)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"null",
        b"held",
        TEXT[:30],
        TEXT + b"left over",
        TEXT + TEXT,
        b"x" * 100_000,
        b"\xff\xfe",
        json.dumps({**HELD, "expires": "soon"}).encode(),
        json.dumps({**HELD, "upgrade_id": "a/b"}).encode(),
        json.dumps({**HELD, "upgrade_id": 7}).encode(),
        b'{"upgrade_id": "u1", "acquired": NaN, "renewed": 1, "expires": 2}',
        b'{"upgrade_id": "u1", "acquired": 1, "renewed": 1, "expires": 1e999}',
        b'{"upgrade_id": "u1", "upgrade_id": null}',
        b'{"upgrade_id": "u1"}',
        b'{"token": true}',
        b'{"unreadable": "x"}',
    ],
)
def test_what_cannot_be_read_as_a_lease_is_held_by_a_run_that_nobody_knows(data: bytes) -> None:
    lease = _lease.decode(data)
    assert _lease.holder(lease, now=1e10, dead=["u1", _lease.UNREADABLE]) == _lease.UNREADABLE
    for run in (RUN, {**RUN, "upgrade_id": _lease.UNREADABLE}):
        with pytest.raises(LockedError, match="playbook unlock and upgrade_unlock_force"):
            enter(lease, run, now=1e10)
        with pytest.raises(LockedError) as failure:
            renew(lease, run, now=1e10)
        assert failure.value.key == "lock.lost"
    assert _lease.decode(_lease.encode(_lease.released(lease))) == {"token": 0}


@pytest.mark.parametrize("field", ["user", "controller", "job", "origin"])
@pytest.mark.parametrize("text", ["x" * 4000, "ü" * 4000, "😀" * 4000, '"' * 4000, "x" * 700 + "ü" * 300])
def test_a_lease_that_is_too_long_is_shortened_and_is_one_still(field: str, text: str) -> None:
    run = {**RUN, "user": "ü" * 4000, field: text}
    content = _lease.encode(enter({}, run, now=100))
    assert len(content) == _lease.SIZE
    lease = _lease.decode(content)
    assert _lease.holder(lease, now=101) == "u1"
    assert text.startswith(lease[field].removesuffix("..."))
    with pytest.raises(LockedError, match="upgrade u1"):
        enter(lease, OTHER, now=101)
    assert renew(lease, run, now=102)["expires"] == 1002


def test_a_run_that_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(InputError):
        _lease.encode({"upgrade_id": "u" * 2000})


def test_every_lease_fills_the_whole_file() -> None:
    taken = enter({}, {**RUN, "user": "ü" * 100}, now=0)
    assert len(_lease.encode(taken)) == len(_lease.encode({})) == _lease.SIZE
    assert _lease.decode(_lease.encode(taken)) == taken


@given(st.lists(st.tuples(st.sampled_from([RUN, OTHER, None]), st.floats(0, 1000)), max_size=40))
def test_two_runs_never_hold_it_at_once(calls: list[tuple[dict[str, t.Any] | None, float]]) -> None:
    lease: dict[str, t.Any] = {}
    now = 0.0
    for run, pause in calls:
        now += pause
        before = _lease.holder(lease, now=now)
        try:
            lease = enter(lease, run, now=now)
        except LockedError:
            assert before is not None
            assert run is None or before != run["upgrade_id"]
        else:
            assert run is None or before in (None, run["upgrade_id"])
