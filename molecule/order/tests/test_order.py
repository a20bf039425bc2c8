# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stack that must not be upgraded in the order that the operator asked for: Prometheus first."""

from __future__ import annotations

import json
import typing as t

import pytest
from conftest import Data, Server, play

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


def test_the_alerts_of_a_host_are_silenced_while_its_services_restart_and_sent_again(
    servers: dict[str, Server], versions: Versions, inventory: Data
) -> None:
    server, wished = servers["host1"], {"node_exporter": versions["node_exporter"][1]}
    alertmanager = {"url": f"http://{inventory['hosts']['host1']['ansible_host']}:9093"}
    play("upgrade", "-l", "host1", upgrade_versions=wished, upgrade_alertmanager=alertmanager)
    (silence,) = json.loads(server.get("http://127.0.0.1:9093/api/v2/silences"))
    assert (silence["status"]["state"], silence["createdBy"]) == ("expired", "observability.stack")
    for told in (server.state()["upgrade"]["upgrade_id"], "host1", "node_exporter"):
        assert told in silence["comment"]
    (matcher,) = silence["matchers"]
    assert (matcher["name"], matcher["isRegex"]) == ("instance", True)
    assert "host1" in matcher["value"]


def test_all_services_are_restarted_in_the_order_of_their_phases(servers: dict[str, Server]) -> None:
    server, names = servers["host1"], ["node_exporter", "alertmanager", "prometheus"]
    before = {name: server.pid(name) for name in names}
    play("restart", "-l", "host1")
    assert all(server.pid(name) not in (0, pid) for name, pid in before.items())
    show = "systemctl show --property=ActiveEnterTimestampMonotonic --value %s"
    entered = [int(server.out(show, name)) for name in names]
    assert entered == sorted(entered)


def test_what_is_installed_is_healthy_and_works_together(servers: dict[str, Server]) -> None:
    played = play("verify", "-l", "host1")
    assert "prometheus -> alertmanager" in played.output
    assert "NOT HEALTHY" not in played.output
