# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _deadline
from ansible_collections.observability.stack.tests.unit.support import eventually


def exchanges() -> set[threading.Thread]:
    """Those under way. Of other tests there may be some that can't be ended."""
    return {each for each in threading.enumerate() if each.name == "exchange"}


def test_what_a_function_returns_or_raises_comes_back() -> None:
    assert _deadline.within(5, lambda: "answer") == "answer"
    with pytest.raises(ZeroDivisionError):
        _deadline.within(5, lambda: 1 // 0)


def flood() -> None:
    while True:
        pass


def drip() -> None:
    try:
        while True:
            time.sleep(0.01)
    except Exception:  # noqa: BLE001, S110  # as a library may do it with errors of its own
        pass


@pytest.mark.parametrize("endless", [flood, drip])
def test_what_takes_too_long_is_left_and_ended(endless: t.Callable[[], None]) -> None:
    others, began = exchanges(), time.monotonic()
    with pytest.raises(TimeoutError, match=r"timed out: it takes longer than 0\.2 s"):
        _deadline.within(0.2, endless)
    assert time.monotonic() - began < 2
    eventually(lambda: exchanges() <= others, within=5)


def test_a_deadline_within_a_deadline_leaves_nothing_behind() -> None:
    others = exchanges()
    with pytest.raises(TimeoutError):
        _deadline.within(0.2, lambda: _deadline.within(1, drip))
    eventually(lambda: exchanges() <= others, within=5)


def test_a_wait_that_cannot_be_interrupted_holds_nobody_up() -> None:
    over, began = threading.Event(), time.monotonic()
    with pytest.raises(TimeoutError):
        _deadline.within(0.1, over.wait)
    assert time.monotonic() - began < 2
    over.set()
