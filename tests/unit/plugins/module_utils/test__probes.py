# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.module_utils._observe import OBSERVERS
from ansible_collections.observability.stack.plugins.module_utils._probes import (
    COMPARING,
    FIELDS,
    Look,
    Watch,
    complete,
    judge,
    key_of,
)
from ansible_collections.observability.stack.plugins.module_utils._verdicts import PREDICATES, Verdict

GOOD, BAD = Verdict("systemd", True, "", ""), Verdict("systemd", False, "sick", "well")


def test_every_kind_has_fields_an_observer_and_a_predicate() -> None:
    assert set(FIELDS) == set(PREDICATES) == set(OBSERVERS)
    assert set(FIELDS) >= COMPARING


def test_a_probe_is_completed_with_what_holds_where_nothing_is_set() -> None:
    assert complete({"kind": "samples", "path": "/metrics", "name": None, "least": None, "status": None}) == {
        "kind": "samples",
        "name": None,
        "path": "/metrics",
        "least": 80,
    }


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        ({"kind": "telepathy"}, "no kind of probe is called telepathy; there are systemd, process, http"),
        ({}, "no kind of probe is called None"),
        ({"kind": "metric", "path": "/metrics"}, "a probe of kind metric needs metric"),
        ({"kind": "systemd", "path": "/"}, "a probe of kind systemd has no path; it has no fields"),
        ({"kind": "database", "engine": "oracle"}, "must be one of postgresql, mysql, sqlite"),
        ({"kind": "container", "container": "a", "engine": "mysql"}, "must be one of docker, podman"),
        ({"kind": "log", "patterns": ["ok", "("]}, "'(' of a probe of kind log is no pattern: missing )"),
        (
            {"kind": "round_trip", "send": {"path": "/"}, "read": {"path": "/"}, "text": "a"},
            "send of a probe of kind round_trip needs body",
        ),
    ],
)
def test_a_probe_that_cannot_be_meant_is_refused(probe: dict[str, t.Any], says: str) -> None:
    with pytest.raises(InputError) as raised:
        complete(probe)
    assert says in str(raised.value)


def test_an_observation_is_known_by_what_decides_what_is_seen() -> None:
    metric = {"kind": "metric_kept", "path": "/metrics", "metric": "up"}
    assert key_of(metric) == key_of({**metric, "labels": {}, "least": 50, "name": "ups", "max": None})
    assert key_of(metric) != key_of({**metric, "labels": {"a": "b"}})
    assert key_of(metric) != key_of({**metric, "kind": "metric"})
    assert key_of(metric) == key_of(complete(metric))


def test_a_name_is_what_a_verdict_goes_by() -> None:
    seen = {"status": 500, "error": "", "text": True, "json": {}}
    probe = {"kind": "http", "path": "/ready", "name": "readiness"}
    told = str(judge(probe, {"url": "http://h"}, seen))
    assert told == "readiness: http://h/ready answered 500; wanted: status 200"


def test_what_was_refused_is_never_satisfied() -> None:
    verdict = judge({"kind": "telepathy"}, {}, {"refused": "no kind of probe is called telepathy"})
    assert (verdict.ok, verdict.probe, verdict.seen) == (False, "telepathy", "no kind of probe is called telepathy")


# -- the watch ----------------------------------------------------------------------------------------------------


def look(**changes: t.Any) -> Look:
    return Look("active", 10, 0)._replace(**changes)


def watch(looks: list[tuple[float, Look, Verdict]], *, window: float = 10) -> tuple[Watch, list[bool]]:
    watched = Watch(timeout=60, window=window)
    return watched, [watched.add(one, [verdict], elapsed=at) for at, one, verdict in looks]


def test_a_service_is_steady_when_it_was_good_for_the_whole_window() -> None:
    watched, steady = watch([(0, look(), BAD), (2, look(), GOOD), (11, look(), GOOD), (12, look(), GOOD)])
    assert steady == [False, False, False, True]
    assert watched.ready_after == 2


@pytest.mark.parametrize(
    ("other", "verdict"),
    [(look(main_pid=11), GOOD), (look(n_restarts=1), GOOD), (look(), BAD)],
    ids=["another process", "a restart", "a moment sick"],
)
def test_the_window_begins_anew_with(other: Look, verdict: Verdict) -> None:
    rest = [(10, look(), GOOD), (19, look(), GOOD), (20, look(), GOOD)]
    _watched, steady = watch([(0, look(), GOOD), (8, other, verdict), *rest])
    assert steady == [False, False, False, False, True]


def test_without_a_window_one_good_look_is_enough() -> None:
    assert watch([(0, look(), GOOD)], window=0)[1] == [True]


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        ([look(active="failed")], "the unit has stopped (failed)"),
        ([look(active="inactive", main_pid=0)], "the unit has stopped (inactive)"),
        (
            [look(active="activating", n_restarts=number) for number in range(4)],
            "a crash loop: systemd has restarted it 3 times meanwhile",
        ),
        ([look(active="activating", n_restarts=number) for number in (5, 6, 7)], ""),
        ([look(active="activating")] * 9, ""),
    ],
)
def test_a_watch_gives_up_where_no_time_will_help(looks: list[Look], reason: str) -> None:
    watched, _steady = watch([(at, one, BAD) for at, one in enumerate(looks)])
    assert watched.hopeless == reason
    assert watched.may_wait(5) is (not reason)


def test_proofs_have_their_own_time_and_begin_anew_with_the_window() -> None:
    watched = Watch(timeout=60, window=10, proofs=2)
    assert not watched.add(look(), [GOOD], elapsed=55)
    assert watched.add(look(), [GOOD], elapsed=65)
    assert watched.unproven() == [0, 1]
    watched.proofs = {0: GOOD, 1: BAD}
    assert (watched.unproven(), watched.may_wait(125), watched.may_wait(126)) == ([1], True, False)
    assert watched.why() == "not proven within 60 s: systemd: sick; wanted: well"
    assert not watched.add(look(main_pid=11), [GOOD], elapsed=66)
    assert (watched.unproven(), watched.told()) == ([0, 1], [GOOD])
