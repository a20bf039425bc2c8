# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _setup
from ansible_collections.observability.stack.plugins.plugin_utils import _planner, _steps
from ansible_collections.observability.stack.tests.unit.surveys import (
    CATALOG,
    STACK,
    drafted,
    facts,
    finding_keys,
    keys,
    survey,
)

Data = dict[str, t.Any]


def test_a_step_holds_all_that_is_needed_to_carry_it_out() -> None:
    step = drafted(survey(STACK), {"prometheus": "2.53.3"})["steps"]["prometheus@2.53.3"]
    base = "https://github.com/prometheus/prometheus/releases/download/v2.53.3"
    assert step["stage"]["url"] == f"{base}/prometheus-2.53.3.linux-amd64.tar.gz"
    assert step["stage"]["checksums"] == f"{base}/sha256sums.txt"
    assert step["stage"]["members"]["promtool"] == "prometheus-2.53.3.linux-amd64/promtool"
    assert step["files"] == [
        {"name": "prometheus", "dest": "/usr/local/bin/prometheus"},
        {"name": "promtool", "dest": "/usr/local/bin/promtool"},
    ]
    assert step["keep"]["unit"] == ["/etc/systemd/system/prometheus.service"]
    assert step["keep"]["config"] == ["/etc/prometheus/prometheus.yml"]
    assert [probe["kind"] for probe in step["target"]["probes"]] == ["systemd", "process", "http", "build_info"]
    assert step["target"]["version"] == "2.53.3"
    assert step["probe_timeout"] == 300


def test_a_file_that_is_not_on_the_host_is_only_asked() -> None:
    alone = facts("prometheus", "2.42.0")
    alone["files"] = alone["files"][:1]
    step = drafted(survey({"prometheus": alone}), {"prometheus": "2.53.3"})["steps"]["prometheus@2.53.3"]
    assert step["files"] == [{"name": "prometheus", "dest": "/usr/local/bin/prometheus"}]
    assert list(step["stage"]["members"]) == ["prometheus", "promtool"]
    assert {trial["program"] for trial in step["stage"]["trials"]} == {"prometheus", "promtool"}


def test_flags_that_the_new_version_removed_block_with_their_replacement() -> None:
    old = facts("prometheus", "2.55.1", flags=["storage.tsdb.retention", "config.file"])
    planned = drafted(survey({"prometheus": old}), {"prometheus": "3.5.3"})
    (blocker,) = [finding for finding in planned["findings"] if finding["severity"] == "blocker"]
    assert blocker["key"] == "prometheus.removed.storage.tsdb.retention"
    assert "--storage.tsdb.retention, which was removed in 3.0.0" in blocker["message"]
    assert blocker["fix"] == "--storage.tsdb.retention.time"
    assert keys(planned) == []
    assert keys(drafted(survey({"prometheus": old}), {"prometheus": "2.55.2"})) == ["prometheus@2.55.2"]


LOKI_2 = """schema_config:
  configs:
    - from: 2023-01-01
      store: boltdb-shipper
      schema: v12
"""
SETTINGS = [
    ("loki", LOKI_2, ["a schema older than tsdb with v13"]),
    ("loki", LOKI_2.replace("v12", "v13"), []),
    ("loki", f"{LOKI_2}limits_config:\n  allow_structured_metadata: false\n", []),
    ("loki", "compactor:\n  shared_store: s3\n", ["shared_store"]),
    ("prometheus", "alerting:\n  alertmanagers:\n    - api_version: v1  # old\n", ["api_version: v1"]),
    ("prometheus", "alerting:\n  alertmanagers:\n    - api_version: v2\n", []),
    ("prometheus", "scrape_configs:\n  - scrape_classic_histograms: true\n", ["scrape_classic_histograms"]),
    ("prometheus", "  always_scrape_classic_histograms: true\n", []),
    ("grafana", "[alerting]\n;x = 1\nenabled = true\n[y]\n", ["[alerting] enabled = true"]),
    ("grafana", "[alerting]\nenabled = false\n[unified_alerting]\nenabled = true\n", []),
]


@pytest.mark.parametrize(("name", "config", "found"), SETTINGS)
def test_settings_that_the_new_version_removed_block(name: str, config: str, found: list[str]) -> None:
    assert _setup.settings(CATALOG[name], config) == found
    old = facts(name, "2.9.17", settings=found)
    planned = drafted(survey({name: old}), {name: "3.0.2"})
    removed = [f"{name}.removed.{setting}" for setting in found]
    assert finding_keys(planned, "blocker") == (["grafana.not_files"] if name == "grafana" else removed)


@pytest.mark.parametrize(
    ("here", "to", "settings", "stack", "blocked"),
    [
        ("0.25.0", "0.28.1", ["api_version: v1"], "same", True),
        ("0.25.0", "0.26.0", ["api_version: v1"], "same", False),
        ("0.27.0", "0.28.1", ["api_version: v1"], "same", False),  # it is cut off already
        ("0.25.0", "0.28.1", ["scrape_classic_histograms"], "same", False),
        ("0.25.0", "0.28.1", ["api_version: v1"], "other", False),
    ],
)
def test_what_another_component_says_to_it_and_it_does_not_answer_any_more_blocks(
    here: str, to: str, settings: list[str], stack: str, blocked: bool
) -> None:
    """Wherever in the stack that is; in another one it speaks to others."""
    surveys = {
        "host1": survey({"alertmanager": facts("alertmanager", here)}),
        "host2": survey({"prometheus": facts("prometheus", "2.42.0", settings=settings)}),
    }
    wishes: Data = {"host1": {"versions": {"alertmanager": to}, "stack": "same"}, "host2": {"stack": stack}}
    plan = _planner.plan_upgrade(surveys, wishes)
    found = [finding for finding in plan["findings"] if finding["severity"] == "blocker"]
    assert [(each["key"], each["host"]) for each in found] == (
        [("alertmanager.cuts_off.prometheus", "host1")] if blocked else []
    )
    assert all("prometheus.yml of prometheus on host2 sets api_version: v1" in each["message"] for each in found)
    assert list(plan["hosts"]) == ([] if blocked else ["host1"])
    accept = {**wishes["host1"], "accept": ["alertmanager.cuts_off.prometheus"]}
    assert list(_planner.plan_upgrade(surveys, {**wishes, "host1": accept})["hosts"]) == ["host1"]


@pytest.mark.parametrize(("flags", "blocked"), [([], True), (["config.my-cnf"], False)])
def test_variables_that_the_new_version_removed_block_unless_a_flag_replaces_them(
    flags: list[str], blocked: bool
) -> None:
    old = facts("mysqld_exporter", "0.14.0", environment=["DATA_SOURCE_NAME"], flags=flags)
    planned = drafted(survey({"mysqld_exporter": old}), {"mysqld_exporter": "0.17.2"})
    assert bool(finding_keys(planned, "blocker")) is blocked


def test_a_known_vulnerability_is_told_and_is_no_obstacle() -> None:
    planned = drafted(survey({"prometheus": facts("prometheus", "3.5.3")}), {"prometheus": "3.11.2"})
    assert "prometheus.vulnerable_version" in finding_keys(planned, "warning")
    assert keys(planned) == ["prometheus@3.11.2"]


def test_a_version_that_is_known_to_be_bad_is_refused_unless_it_is_accepted() -> None:
    found = survey({"prometheus": facts("prometheus", "3.5.3")})
    planned = drafted(found, {"prometheus": "3.9.0"})
    assert finding_keys(planned, "blocker") == ["prometheus.bad_version"]
    assert keys(planned) == []
    accepted = drafted(found, {"prometheus": "3.9.0"}, accept=["prometheus.bad_version"])
    assert finding_keys(accepted, "accepted") == ["prometheus.bad_version"]
    assert keys(accepted) == ["prometheus@3.9.0"]


def test_the_end_of_the_way_back_is_told_when_it_is_crossed() -> None:
    planned = drafted(
        survey({"prometheus": facts("prometheus", "2.42.0")}),
        {"prometheus": "3.5.3"},
        overrides={"prometheus": {"stages": []}},
    )
    floors = [finding for finding in planned["findings"] if finding["key"] == "prometheus.rollback_floor"]
    assert [floor["severity"] for floor in floors] == ["warning"]
    upward = drafted(survey({"prometheus": facts("prometheus", "2.55.1")}), {"prometheus": "3.5.3"})
    assert [f["severity"] for f in upward["findings"] if f["key"] == "prometheus.rollback_floor"] == ["info"]


def test_a_lost_restart_is_a_step_from_what_runs() -> None:
    drifted = facts("prometheus", "3.5.3", running="2.55.1", restart_pending=True)
    step = drafted(survey({"prometheus": drifted}), {"prometheus": "3.5.3"})["steps"]["prometheus@3.5.3"]
    assert (step["from"], step["to"], step["stage"]) == ("2.55.1", "3.5.3", None)
    assert step["reason"] == "on disk already, but a restart was lost"


def test_a_protected_service_is_asked_without_a_password() -> None:
    guarded = facts("node_exporter", "1.5.0", protected=True, metrics_path="/secret")
    step = drafted(survey({"node_exporter": guarded}), {"node_exporter": "1.9.0"})["steps"]["node_exporter@1.9.0"]
    assert step["target"]["probes"][2:] == [{"kind": "http", "path": "/secret", "status": [200, 401]}]


def test_a_declared_file_that_is_missing_blocks_unless_that_is_accepted() -> None:
    gone = facts("prometheus", "2.42.0", missing=["/etc/prometheus/web.yml"], web_config="/etc/prometheus/web.yml")
    planned = drafted(survey({"prometheus": gone}), {"prometheus": "2.53.3"})
    assert finding_keys(planned, "blocker") == ["prometheus.missing_file"]
    planned = drafted(survey({"prometheus": gone}), {"prometheus": "2.53.3"}, accept=["prometheus.missing_file"])
    assert planned["steps"]["prometheus@2.53.3"]["keep"]["config"] == ["/etc/prometheus/prometheus.yml"]


def test_a_configuration_of_several_files_is_kept_whole() -> None:
    several = facts("prometheus", "2.42.0", config_files=["/etc/prometheus/prometheus.yml", "/etc/prometheus/b.yml"])
    step = drafted(survey({"prometheus": several}), {"prometheus": "2.53.3"})["steps"]["prometheus@2.53.3"]
    assert step["keep"]["config"] == ["/etc/prometheus/prometheus.yml", "/etc/prometheus/b.yml"]


def test_a_process_that_could_not_be_read_is_told() -> None:
    unseen = facts("prometheus", "2.42.0", unseen="its process can't be read")
    planned = drafted(survey({"prometheus": unseen}), {"prometheus": "2.53.3"})
    assert "prometheus.unseen" in finding_keys(planned, "warning")


def test_a_client_certificate_goes_to_the_probes() -> None:
    auth = {"client_cert": "/c.pem", "client_key": "/c.key"}
    found = survey({"node_exporter": facts("node_exporter", "1.5.0")})
    planned = drafted(found, {"node_exporter": "1.9.0"}, overrides={"node_exporter": {"auth": auth}})
    asked = planned["steps"]["node_exporter@1.9.0"]["target"]["auth"]
    assert {name: path for name, path in asked.items() if path} == auth


def test_staged_files_go_where_they_belong_and_what_is_in_place_stays() -> None:
    step = drafted(survey(STACK), {"prometheus": "2.53.3"})["steps"]["prometheus@2.53.3"]
    staged = {
        "files": [
            {"name": "prometheus", "path": "/s/prometheus", "sha256": "a"},
            {"name": "promtool", "path": "/s/promtool", "sha256": "b"},
        ]
    }
    assert _steps.swap_files(step, staged) == [
        {"src": "/s/prometheus", "dest": "/usr/local/bin/prometheus", "sha256": "a"},
        {"src": "/s/promtool", "dest": "/usr/local/bin/promtool", "sha256": "b"},
    ]
    files = [{"path": "/usr/local/bin/promtool", "identity": "inode:1"}, {"path": "/usr/local/bin/prometheus"}]
    told = {"components": {"prometheus": {"files": files}}}
    named = {**step, "component": "prometheus"}
    assert [file.get("identity") for file in _steps.swap_files(named, staged, told)] == [None, "inode:1"]
    in_place = {**step, "stage": None}
    assert _steps.swap_files(in_place, {"skipped": True})[0] == {
        "src": "/usr/local/bin/prometheus",
        "dest": "/usr/local/bin/prometheus",
    }


# -- values of flags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "here", "to", "values", "severities"),
    [
        ("prometheus", "2.55.1", "3.5.3", ["remote-write-receiver"], ["blocker"]),
        ("prometheus", "2.55.1", "3.5.3", ["otlp-write-receiver", "agent"], ["blocker", "blocker"]),
        ("prometheus", "2.55.1", "3.5.3", ["auto-gomaxprocs"], ["warning"]),
        ("prometheus", "3.0.1", "3.5.3", ["remote-write-receiver"], []),
        ("prometheus", "2.53.5", "2.55.1", ["remote-write-receiver"], []),
        ("alertmanager", "0.32.3", "0.33.1", ["auto-gomaxprocs"], ["blocker"]),
        ("alertmanager", "0.28.1", "0.32.3", ["auto-gomaxprocs"], []),
    ],
)
def test_values_that_lose_their_meaning_on_the_way(
    name: str, here: str, to: str, values: list[str], severities: list[str]
) -> None:
    old = facts(name, here, flag_values={"enable-feature": values})
    found = [f for f in drafted(survey({name: old}), {name: to})["findings"] if ".removed.enable-feature." in f["key"]]
    assert [finding["severity"] for finding in found] == severities
    assert {finding["key"] for finding in found} == (
        {f"{name}.removed.enable-feature.{value}" for value in values} if found else set()
    )
    assert all(f"--enable-feature={value}" in str(found) for value in values if found)


def test_a_value_that_another_flag_makes_up_for_is_no_obstacle() -> None:
    flags = ["enable-feature", "web.enable-remote-write-receiver"]
    old = facts("prometheus", "2.55.1", flags=flags, flag_values={"enable-feature": ["remote-write-receiver"]})
    assert keys(drafted(survey({"prometheus": old}), {"prometheus": "3.5.3"})) == ["prometheus@3.5.3"]


# -- what a version is asked --------------------------------------------------------------------------------------


def kinds(target: Data) -> list[str]:
    return [probe["kind"] for probe in target["probes"]]


@pytest.mark.parametrize(
    ("name", "older", "newer"),
    [
        ("ipmi_exporter", "1.9.0", "1.10.0"),
        ("smartctl_exporter", "0.13.0", "0.14.0"),
        ("memcached_exporter", "0.7.0", "0.8.0"),
        ("process_exporter", "0.7.4", "0.7.5"),
    ],
)
def test_an_old_version_is_asked_only_what_it_can_answer(name: str, older: str, newer: str) -> None:
    planned = drafted(survey({name: facts(name, older)}), {name: newer})
    step = planned["steps"][f"{name}@{newer}"]
    assert "build_info" not in kinds(step["from_target"])
    assert kinds(step["target"])[-1] == "build_info"
    assert (step["from_target"]["version"], step["from_target"]["proofs"]) == (older, [])
    assert step["target"]["probes"][-1]["metrics"] == [{"metric": f"{name}_build_info", "label": "version"}]


@pytest.mark.parametrize(("version", "asked"), [("unknown", False), (None, False), ("1.9.0", False), ("1.10.1", True)])
def test_what_only_some_versions_have_is_asked_of_these(version: str | None, asked: bool) -> None:
    target = _steps.probe_target(
        "ipmi_exporter", facts("ipmi_exporter", "1.9.0"), CATALOG["ipmi_exporter"], version=version
    )
    assert ("build_info" in kinds(target)) is asked
