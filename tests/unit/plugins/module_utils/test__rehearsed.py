# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _rehearsed
from ansible_collections.observability.stack.plugins.module_utils._rehearsed import Seen

LISTEN = {"web.listen-address": "127.0.0.1:{port}"}
TEN = tuple(f"family_{number}" for number in range(10))


def test_words_of_flags_are_filled_in() -> None:
    flags = {**LISTEN, "storage.path": "{data}/a", "cluster.listen-address": ""}
    found = _rehearsed.filled_in(flags, {"port": "1234", "data": "/run/x/data", "config": None})
    assert found == {
        "web.listen-address": "127.0.0.1:1234",
        "storage.path": "/run/x/data/a",
        "cluster.listen-address": "",
    }


def test_a_flag_whose_word_the_host_has_nothing_for_stays_as_it_is() -> None:
    assert _rehearsed.filled_in({"config.file": "{config}"}, {"port": "1", "data": None, "config": None}) == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/b/x", "--a=1"),
        ("/b/x --a=2", "--a=1"),
        ("/b/x --a 2 --c", "--c --a=1"),
        ("/b/x -a 2 d", "d --a=1"),
        ("/b/x --a=2 --a=3 --ab=4", "--ab=4 --a=1"),
        ("/b/x --a --c 4", "--c 4 --a=1"),
        ("/b/x serve --c=4", "serve --c=4 --a=1"),
        ("/b/x --c -- d", "--c --a=1 -- d"),
        ("/bin/nice -n 5 /b/x --c", "--c --a=1"),
        ("/opt/y --c", "--c --a=1"),
    ],
)
def test_flags_of_a_command_line_are_replaced_or_added(line: str, expected: str) -> None:
    assert _rehearsed.command(line.split(), "/b/x", {"a": "1"}) == expected.split()


def test_the_candidate_answers_as_the_service_does_elsewhere() -> None:
    assert _rehearsed.url_at("https://[::1]:9093/alerts", 4321) == "https://127.0.0.1:4321/alerts"
    assert _rehearsed.url_at("http+unix://%2Frun%2Fx.sock/p", 4321) == "http://127.0.0.1:4321/p"


def test_of_the_probes_those_are_asked_that_need_nobody_else() -> None:
    known = [{"kind": "http", "path": "/-/ready"}, {"kind": "systemd"}, {"kind": "promql", "query": "up"}]
    kinds = [probe["kind"] for probe in _rehearsed.probes_of({"probes": known})]
    assert kinds == ["systemd", "process", "http"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ({"probes": [{"kind": "http", "path": "/ready"}, {"kind": "build_info", "path": "/m"}]}, "/m"),
        ({"probes": [{"kind": "http", "path": "/ready"}], "proofs": [{"kind": "samples", "path": "/s"}]}, "/s"),
        ({"probes": None}, "/metrics"),
    ],
)
def test_where_the_metrics_are(target: dict[str, t.Any], path: str) -> None:
    assert _rehearsed.metrics_path(target) == path


def findings(seen: Seen, accept: t.Collection[str] = ()) -> list[tuple[str, str]]:
    found = _rehearsed.findings("shop", "2.0", seen, least=80, accept=accept)
    return [(finding["key"], finding["severity"]) for finding in found]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(live=TEN, there=TEN), []),
        (Seen(live=TEN, there=(*TEN, "new")), []),
        (Seen(), []),
        (Seen(live=TEN, there=TEN[:8]), [("shop.rehearsal_families", "info")]),
        (Seen(live=TEN, there=TEN[:7]), [("shop.rehearsal_families", "blocker")]),
        (Seen(live=TEN, there=()), [("shop.rehearsal_families", "blocker")]),
        (Seen(reason="it died", live=TEN), [("shop.rehearsal_failed", "blocker")]),
        (Seen(trouble="no systemd-run", reason="x"), [("shop.rehearsal_left_out", "warning")]),
        (Seen(notes=("without a",)), [("shop.rehearsal_note", "info")]),
    ],
)
def test_what_speaks_against_a_candidate(seen: Seen, expected: list[tuple[str, str]]) -> None:
    assert findings(seen) == expected
    assert _rehearsed.summary("shop", "2.0", seen).startswith("shop 2.0")


def test_a_blocker_that_is_accepted_is_a_warning() -> None:
    seen = Seen(reason="it died")
    assert findings(seen, accept=["shop.rehearsal_failed"]) == [("shop.rehearsal_failed", "warning")]
    assert findings(seen, accept=["shop.rehearsal_families"]) == [("shop.rehearsal_failed", "blocker")]


def test_a_blocker_says_in_one_line_what_to_do() -> None:
    seen = Seen(live=tuple(f"f{number:02}" for number in range(20)))
    text = _rehearsed.in_words(_rehearsed.findings("shop", "2.0", seen, least=80, accept=()))
    assert "serves 0 of the 20 metric families" in text
    assert "f09 and 10 more" in text
    assert text.endswith("To go on all the same: accept shop.rehearsal_families")


def test_a_failure_tells_the_candidate_s_own_reason() -> None:
    journal = ["systemd: Started x", 'shop: level=error msg="no such table"', "systemd: x: Failed"]
    assert _rehearsed.in_its_own_words("it stopped", journal) == "it stopped; its own word: no such table"
    assert _rehearsed.in_its_own_words("it stopped", journal[:1]) == "it stopped"
