# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import stat

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _baseline, _store
from ansible_collections.observability.stack.plugins.module_utils._probes import key_of
from ansible_collections.observability.stack.tests.unit.support import Answer, Data, Systemd, Web

SAMPLES = {"kind": "samples", "path": "/metrics"}
DATA = {"upgrade_id": "u1", "taken_at": "2026-11-21T10:00:00Z", "version": "1.0.0", "seen": {"samples": {"count": 1}}}


@pytest.fixture
def layout(state_dir: pathlib.Path) -> _store.Layout:
    return _store.Layout(str(state_dir))


@pytest.fixture
def target(systemd: Systemd, web: Web) -> Data:
    systemd.add("a.service", "/usr/bin/a", pid=os.getpid())
    web.answers["/metrics"] = Answer(b"up 1\n")
    probes = [{"kind": "systemd"}, {"kind": "http", "path": "/metrics"}]
    push = {"kind": "round_trip", "send": {"path": "/push", "body": ""}, "read": {"path": "/"}, "text": ""}
    return {"component": "a", "unit": "a", "url": web.url, "probes": probes, "proofs": [SAMPLES, push]}


def test_only_what_compares_is_captured_and_nothing_is_sent(systemd: Systemd, web: Web, target: Data) -> None:
    seen = _baseline.capture(systemd, target)
    assert seen == {key_of(SAMPLES): {"status": 200, "error": "", "count": 1, "families": ["up"]}}
    assert (web.asked, web.posted) == (["/metrics"], [])


def test_a_service_that_does_not_answer_is_no_error(systemd: Systemd, target: Data) -> None:
    systemd.add("a.service", "/usr/bin/a")
    assert _baseline.capture(systemd, target) == {key_of(SAMPLES): {"status": None, "error": "no process"}}


def test_what_is_written_is_read_and_for_root_only(layout: _store.Layout) -> None:
    assert _baseline.read(layout, "a") is None
    _baseline.write(layout, "a", DATA)
    assert _baseline.read(layout, "a") == DATA
    assert _baseline.read(layout, "a", upgrade_id="u1") == DATA
    assert _baseline.read(layout, "a", upgrade_id="u2") is None
    assert stat.S_IMODE(os.stat(layout.baseline("a")).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(layout.baseline("a"))).st_mode) == 0o700
    _baseline.clear(layout, "a")
    _baseline.clear(layout, "a")
    assert _baseline.read(layout, "a") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"seen": 1}'])
def test_what_cannot_be_read_is_nothing_to_compare_with(layout: _store.Layout, content: str) -> None:
    _baseline.write(layout, "a", DATA)
    pathlib.Path(layout.baseline("a")).write_text(content)
    assert _baseline.read(layout, "a") is None


def test_a_baseline_is_kept_for_an_attempt_that_is_not_settled_only(layout: _store.Layout) -> None:
    for name in ("done", "open"):
        _baseline.write(layout, name, DATA)
    document = _store.read_document(layout.root)
    for name, state in (("done", "success"), ("open", "activated")):
        document.data["components"][name] = {"state": state}
    _baseline.sweep(_store.Session(layout, document, writable=False, clock=lambda: 0.0))
    assert _baseline.read(layout, "done") is not None
    _baseline.sweep(_store.Session(layout, document, writable=True, clock=lambda: 0.0))
    assert (_baseline.read(layout, "done"), _baseline.read(layout, "open")) == (None, DATA)
