# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _store
from ansible_collections.observability.stack.plugins.modules import upgrade_lock, upgrade_state
from ansible_collections.observability.stack.tests.unit.support import OTHER_RUN, RUN, Call, Data, snapshot

OPS = {"upgrade_id": "u1", "user": "ops", "controller": "c1"}


class Host:
    """A host whose lock the module takes and releases."""

    def __init__(self, call: Call, root: pathlib.Path) -> None:
        self.root = root
        self._call = call

    def lock(self, state: str, **arguments: t.Any) -> Data:
        return self._call(upgrade_lock, state=state, **arguments)

    def begin(self) -> None:
        self._call(upgrade_state, action="begin", run=RUN)

    def lease(self) -> Data:
        return _store.read_lease(str(self.root))

    def expire(self) -> None:
        lease = {**self.lease(), "expires": 1}
        (self.root / "upgrade.lock").write_text(json.dumps(lease))


@pytest.fixture
def host(call: Call, state_dir: pathlib.Path) -> Host:
    return Host(call, state_dir)


def test_a_free_lock_is_taken_and_held_and_given_back(host: Host) -> None:
    taken = host.lock("held", run=RUN)
    assert (taken["changed"], taken["taken_from"], taken["holder"]) == (True, None, "upgrade u1 of ops on c1")
    assert taken["diff"] == {"before": {}, "after": OPS}
    assert host.lock("held", run=RUN)["changed"] is False
    assert host.lease()["token"] == 1
    released = host.lock("released", run=RUN)
    assert (released["changed"], released["taken_from"], released["holder"]) == (True, None, "")
    assert released["diff"] == {"before": OPS, "after": {}}
    before = snapshot(host.root)
    assert host.lock("released", run=RUN)["changed"] is False
    assert snapshot(host.root) == before


@pytest.mark.parametrize("run", [None, RUN])
def test_where_there_is_no_lock_nothing_is_made(host: Host, run: Data | None) -> None:
    assert host.lock("released", run=run)["changed"] is False
    assert not host.root.exists()


@pytest.mark.parametrize("state", ["held", "released"])
def test_that_of_a_run_that_may_be_alive_is_left_to_it(host: Host, state: str) -> None:
    host.begin()
    before = snapshot(host.root)
    for check in (True, False):
        result = host.lock(state, run=OTHER_RUN, check=check)
        assert (result["failed"], result["key"]) == (True, "lock.held")
        assert "being upgraded by ops on c1 (upgrade u1, since 0 min): wait for it to end" in result["msg"]
    assert snapshot(host.root) == before
    assert "set force" in host.lock("released")["msg"]


@pytest.mark.parametrize("state", ["held", "released"])
@pytest.mark.parametrize("why", ["force", "dead", "ended"])
def test_that_of_another_is_taken_if_it_has_ended_or_by_force(host: Host, state: str, why: str) -> None:
    host.begin()
    if why == "ended":
        host.expire()
    run = {**OTHER_RUN, "dead": ["u1"] if why == "dead" else []}
    before = snapshot(host.root)
    foreseen = host.lock(state, run=run, force=why == "force", check=True)
    assert snapshot(host.root) == before
    result = host.lock(state, run=run, force=why == "force")
    told = ("changed", "taken_from", "holder", "diff")
    assert [foreseen[key] for key in told] == [result[key] for key in told]
    assert (result["changed"], result["taken_from"]) == (True, OPS)
    assert host.lease().get("upgrade_id") == ("u2" if state == "held" else None)
    errors = json.loads((host.root / "state.json").read_text())["upgrade"]["errors"]
    expected = ["its lock was taken from it by force, by upgrade u2 of eve on c2"] if why == "force" else []
    assert [error["message"] for error in errors] == expected


def test_the_run_whose_lock_was_taken_is_refused_from_then_on(host: Host, call: Call) -> None:
    host.begin()
    host.lock("released", force=True)
    result = call(upgrade_state, action="advance", state="UPGRADING", run=RUN)
    assert (result["failed"], result["key"]) == (True, "lock.lost")
    assert call(upgrade_state, action="close", run=RUN)["finished"] is True


def test_to_hold_it_is_for_a_run(host: Host) -> None:
    assert "run" in host.lock("held")["msg"]
    assert not host.root.exists()


def test_a_hundred_turns_leave_no_trace(host: Host) -> None:
    for _turn in range(100):
        with _store.session(str(host.root), run=RUN, acquire=True) as session:
            session.release()
    assert host.lease() == {"token": 100}
