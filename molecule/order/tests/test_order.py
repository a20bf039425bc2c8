# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stack that must not be upgraded in the order that the operator asked for: Prometheus first."""

from __future__ import annotations

import typing as t

import pytest
from conftest import Server, play

Versions = dict[str, list[str]]
RULE = {"prometheus": [{"when": ">=2.49", "component": "alertmanager", "versions": ">=0.26"}]}
PHASES = ["metrics", "alerting", "exporters"]


@pytest.fixture
def wanted(versions: Versions) -> dict[str, str]:
    return {"prometheus": versions["prometheus"][2], "alertmanager": versions["alertmanager"][1]}


def order_of(output: str) -> list[str]:
    """The phases of a plan, in the order in which it shows them."""
    words = [line.split()[0] for line in output.splitlines() if line.strip()]
    return [word for word in words if word in PHASES]


def test_without_the_rule_the_phases_are_as_the_operator_has_them(servers: dict[str, Server], wanted: t.Any) -> None:
    played = play("plan", "-l", "host1", upgrade_versions=wanted, upgrade_phases=PHASES)
    assert order_of(played.output) == ["metrics", "alerting"]


def test_prometheus_alone_is_refused_with_the_smallest_change_that_helps(
    servers: dict[str, Server], wanted: dict[str, str]
) -> None:
    before = servers["host1"].snapshot()
    alone = {"prometheus": wanted["prometheus"]}
    played = play("upgrade", "-l", "host1", code=2, upgrade_versions=alone, upgrade_rules=RULE)
    told = " ".join(played.output.split())
    assert "prometheus.needs_alertmanager" in told
    assert "needs alertmanager >=0.26 (upgrade_rules.prometheus), but alertmanager stays at 0.25.0 on host1" in told
    assert "wish for alertmanager too: upgrade_versions: {alertmanager: " in told
    assert servers["host1"].snapshot() == before


def test_alertmanager_is_upgraded_before_prometheus_although_it_was_asked_for_after_it(
    servers: dict[str, Server], wanted: dict[str, str]
) -> None:
    played = play("upgrade", "-l", "host1", upgrade_versions=wanted, upgrade_rules=RULE, upgrade_phases=PHASES)
    assert order_of(played.output)[:2] == ["alerting", "metrics"]
    assert "prometheus >=2.49 needs alertmanager >=0.26" in " ".join(played.output.split())
    server = servers["host1"]
    assert all(server.is_healthy(name, version) for name, version in wanted.items())
    state = server.state()
    assert list(state["upgrade"]["phases"]) == ["alerting", "metrics"]
    first, then = (state["upgrade"]["phases"][name] for name in ("alerting", "metrics"))
    assert first["finished_at"] <= then["started_at"]
    assert server.is_at_rest()
