# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.tests.unit.surveys import (
    Data,
    drafted,
    facts,
    finding_keys,
    keys,
    survey,
)


@pytest.mark.parametrize(
    ("changes", "key", "severity", "says"),
    [
        ({"unit": None}, "no_unit", "blocker", "no unit runs it: neither node_exporter"),
        ({"version": "unknown"}, "unknown_version", "blocker", "is unknown: nothing tells it"),
        (
            {"version": "unknown", "version_unknown": "why"},
            "unknown_version",
            "blocker",
            "node_exporter is unknown: why",
        ),
        (
            {"package": {"manager": "apt", "name": "prometheus-node-exporter"}},
            "package_owned",
            "skipped",
            "belongs to the package prometheus-node-exporter",
        ),
        ({"architecture": "elf9999"}, "no_release", "blocker", "isn't released for elf9999"),
    ],
)
def test_what_stands_in_the_way_is_found_before_anything_is_touched(
    changes: Data, key: str, severity: str, says: str
) -> None:
    planned = drafted(survey({"node_exporter": facts("node_exporter", "1.5.0", **changes)}), {"node_exporter": "1.9.0"})
    assert keys(planned) == []
    (finding,) = planned["findings"]
    assert (finding["key"], finding["severity"]) == (f"node_exporter.{key}", severity)
    assert says in finding["message"]
    assert finding["fix"]


def test_a_package_is_told_with_the_command_that_upgrades_it() -> None:
    owned = facts("node_exporter", "1.5.0", package={"manager": "dnf", "name": "node_exporter"})
    planned = drafted(survey({"node_exporter": owned}), {"node_exporter": "1.9.0"})
    assert planned["findings"][0]["fix"] == "dnf upgrade node_exporter"


def test_a_tree_is_not_taken_for_a_set_of_files() -> None:
    planned = drafted(survey({"grafana": facts("grafana", "11.6.0")}), {"grafana": "11.6.1"})
    assert finding_keys(planned, "blocker") == ["grafana.not_files"]


def test_a_unit_whose_program_is_not_there_is_told() -> None:
    gone = {**facts("node_exporter", None), "unit": "node_exporter.service"}
    planned = drafted(survey({"node_exporter": gone}), {"node_exporter": "1.9.0"})
    assert [(each["key"], each["severity"]) for each in planned["findings"]] == [
        ("node_exporter.no_program", "blocker")
    ]


@pytest.mark.parametrize(
    ("changes", "key", "steps"),
    [
        ({"flags": ["web.config"]}, "removed.web.config", ["node_exporter@1.9.0"]),
        ({"unit": None}, "no_unit", []),
        ({"version": "unknown"}, "unknown_version", []),
        ({"architecture": "elf9999"}, "no_release", []),
    ],
)
def test_what_is_accepted_stands_in_nobodys_way_and_what_is_impossible_stays_so(
    changes: Data, key: str, steps: list[str]
) -> None:
    found = survey({"node_exporter": facts("node_exporter", "1.5.0", **changes)})
    planned = drafted(found, {"node_exporter": "1.9.0"}, accept=[f"node_exporter.{key}"])
    assert [(each["key"], each["severity"]) for each in planned["findings"]] == [(f"node_exporter.{key}", "accepted")]
    assert keys(planned) == steps


def test_whether_a_service_is_well_is_asked_on_its_host() -> None:
    down = {"active": "inactive", "sub": "dead", "n_restarts": 0}
    found = survey({"node_exporter": facts("node_exporter", "1.5.0", state=down, running=None)})
    planned = drafted(found, {"node_exporter": "1.9.0"})
    assert (planned["findings"], keys(planned)) == ([], ["node_exporter@1.9.0"])


def test_what_is_neither_running_nor_read_begins_where_its_disk_is() -> None:
    lost = facts("node_exporter", "1.9.0", running="unknown", restart_pending=True)
    (step,) = drafted(survey({"node_exporter": lost}), {"node_exporter": "1.9.0"})["steps"].values()
    assert step["from"] == "1.9.0"


def test_a_program_of_another_project_is_left_alone() -> None:
    other = facts("phpfpm_exporter", "unknown", lookalike="Lusitaniae/phpfpm_exporter")
    planned = drafted(survey({"phpfpm_exporter": other}), {"phpfpm_exporter": "2.2.0"})
    assert keys(planned) == []
    (finding,) = planned["findings"]
    assert (finding["key"], finding["severity"]) == ("phpfpm_exporter.lookalike", "skipped")
    assert "of another project with the same name: Lusitaniae/phpfpm_exporter" in finding["message"]


def test_a_component_without_releases_is_shown_with_the_reason() -> None:
    planned = drafted(survey({"dnsmasq_exporter": facts("dnsmasq_exporter", "unknown")}), {"dnsmasq_exporter": "0.3.0"})
    assert keys(planned) == []
    (finding,) = planned["findings"]
    assert (finding["key"], finding["severity"]) == ("dnsmasq_exporter.unreleased", "skipped")
    assert "no flag that tells its version" in finding["message"]


CONTAINER = {"key": "container", "reason": "node_exporter.service runs it in a container", "fix": "upgrade the image"}


def held(**changes: Data) -> Data:
    """A component that was found, and that the host says can't be upgraded."""
    return {**facts("node_exporter", None), "unit": "node_exporter.service", "not_upgradable": CONTAINER, **changes}


def test_what_is_found_and_cannot_be_upgraded_is_a_blocker_with_its_reason_and_the_way_out() -> None:
    planned = drafted(survey({"node_exporter": held()}), {"node_exporter": "1.9.0"})
    (finding,) = planned["findings"]
    assert (finding["key"], finding["severity"]) == ("node_exporter.container", "blocker")
    assert (finding["message"], finding["fix"]) == (CONTAINER["reason"], CONTAINER["fix"])
    assert [(row["installed"], row["note"]) for row in planned["rows"]] == [(None, "container")]


def test_what_cannot_be_upgraded_is_left_out_where_that_is_accepted() -> None:
    planned = drafted(survey({"node_exporter": held()}), {"node_exporter": "1.9.0"}, accept=["node_exporter.container"])
    assert (keys(planned), finding_keys(planned, "blocker")) == ([], [])


@pytest.mark.parametrize(
    ("only", "told"),
    [(["node_exporter"], ["node_exporter.container"]), (["loki"], []), ([], [])],
)
def test_what_a_run_is_narrowed_to_and_cannot_be_upgraded_is_a_blocker(only: list[str], told: list[str]) -> None:
    planned = drafted(survey({"node_exporter": held()}), {"loki": "3.0.0"}, only=only)
    assert [key for key in finding_keys(planned, "blocker") if key.startswith("node")] == told


def test_a_program_of_a_package_is_the_package_s_whatever_else_keeps_it() -> None:
    owned = facts("node_exporter", "1.5.0", package={"manager": "apt", "name": "x"}, not_upgradable=CONTAINER)
    planned = drafted(survey({"node_exporter": owned}), {"node_exporter": "1.9.0"})
    assert [each["key"] for each in planned["findings"]] == ["node_exporter.package_owned"]


@pytest.mark.parametrize(
    ("changes", "key", "severity"),
    [
        ({"not_read": "CAP_SYS_PTRACE is missing"}, "node_exporter.not_read", "warning"),
        (
            {"state": {"active": "active", "sub": "running", "n_restarts": 0, "enabled": "disabled"}},
            "node_exporter.disabled",
            "info",
        ),
        ({"state": {"active": "failed", "sub": "failed", "n_restarts": 9}}, "node_exporter.unit_failed", "warning"),
    ],
)
def test_what_is_to_be_known_of_a_unit_is_told_beside_its_step(changes: Data, key: str, severity: str) -> None:
    found = survey({"node_exporter": facts("node_exporter", "1.5.0", **changes)})
    planned = drafted(found, {"node_exporter": "1.9.0"})
    assert keys(planned) == ["node_exporter@1.9.0"]
    assert [(each["key"], each["severity"]) for each in planned["findings"]] == [(key, severity)]
