# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _netns
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError
from ansible_collections.observability.stack.tests.unit.support import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another network")


@pytest.fixture
def stranger() -> t.Iterator[int]:
    """A process with a network of its own, as a pid."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        eventually(lambda: process.poll() is not None or _netns.name(process.pid) != _netns.name(_netns.OURS))
        assert process.poll() is None
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_function_is_called_in_another_network_and_ours_stays(stranger: int) -> None:
    ours = _netns.name(_netns.OURS)
    assert _netns.within(stranger, lambda: _netns.name(_netns.OURS), seconds=9) == _netns.name(stranger)
    assert _netns.within(stranger, lambda: os.listdir("/proc/self/net/dev_snmp6"), seconds=9) == ["lo"]
    assert _netns.name(_netns.OURS) == ours


def fail() -> None:
    raise HostError("it broke")


def test_what_goes_wrong_there_is_told_here(stranger: int) -> None:
    with pytest.raises(HostError, match=f"the network of process {stranger} can't be used: it broke"):
        _netns.within(stranger, fail, seconds=9)


def test_a_process_that_is_gone_has_no_network() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert _netns.name(process.pid) == ""
    with pytest.raises(HostError, match="No such file"):
        _netns.within(process.pid, lambda: None, seconds=9)


def test_what_hangs_there_is_ended(stranger: int) -> None:
    began = time.monotonic()
    with pytest.raises(HostError, match=f"the network of process {stranger} can't be used: no answer within 0.3 s"):
        _netns.within(stranger, lambda: time.sleep(60), seconds=0.3)
    assert time.monotonic() - began < 3
