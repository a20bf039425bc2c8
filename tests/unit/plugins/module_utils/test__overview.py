# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _overview
from ansible_collections.observability.stack.plugins.module_utils._state import Document, Step

NOW = "2026-11-21T03:00:00Z"
NODE, LOKI = Step("node_exporter", "1.9.0"), Step("loki", "3.0.0")


def begun(**phases: list[str]) -> Document:
    document = Document()
    run = {"upgrade_id": "u1", "user": "ops"}
    document.begin(run, phases=phases, details={"phase": next(iter(phases), None)}, now=NOW)
    return document


@pytest.fixture
def document() -> Document:
    document = begun(exporters=[NODE.key], logging=[LOKI.key])
    document.start_step(NODE, from_version="1.5.0", now=NOW)
    document.end_step(NODE, "aborted", now=NOW, error="404\nmore")
    return document


def test_a_component_is_told_with_what_is_known(document: Document) -> None:
    told = _overview.component(document, "node_exporter")
    assert (told["state"], told["outcome"], told["last_error"]) == ("failed", "aborted", "404\nmore")
    assert (told["is_upgraded"], told["rollback_available"], told["current_version"]) == (False, False, None)
    assert _overview.component(document, "grafana")["state"] == "idle"


def test_the_place_where_an_upgrade_stands(document: Document) -> None:
    assert _overview.resume_point(document) == {
        "state": "PLANNING",
        "phase": "exporters",
        "component": "node_exporter",
        "steps": [LOKI.key],
    }
    assert _overview.next_phase(document) == "logging"
    document.close(abandon=True, now=NOW)
    assert (_overview.resume_point(document), _overview.next_phase(document)) == (None, None)


def test_a_summary_says_it_all_in_a_few_lines(document: Document) -> None:
    assert _overview.summary(document, "upgrade u1 of ops").splitlines() == [
        "PLANNING, upgrade u1, 50 % done",
        "phase exporters: in_progress",
        "phase logging: pending",
        "lock: upgrade u1 of ops",
        "node_exporter failed 1.9.0: 404",
    ]
    assert _overview.summary(Document(), "") == "IDLE"


def test_restore_points_of_all_components_are_listed_newest_first(document: Document) -> None:
    points: list[tuple[str, str, str]] = [("loki", "b1", "1"), ("node_exporter", "b2", "3"), ("loki", "b3", "2")]
    for name, backup_id, second in points:
        document.add_restore_point(name, backup_id=backup_id, version="1", now=f"2026-11-21T03:00:0{second}Z")
    assert [point["id"] for point in _overview.restore_points(document)] == ["b2", "b3", "b1"]
