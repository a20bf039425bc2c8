# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run does what its playbooks say, whatever ansible.cfg sets and whichever playbooks ran before in the same run."""

from __future__ import annotations

import pathlib

from conftest import CHECKOUT, Server, play

DIES = "1.99.1"  # a release of node_exporter that exits at its start
SETTINGS = {"ANSIBLE_ANY_ERRORS_FATAL": "true", "ANSIBLE_STRATEGY": "free", "ANSIBLE_TASK_TIMEOUT": "3"}


def test_settings_of_ansible_do_not_switch_the_rollback_off(
    servers: dict[str, Server], versions: dict[str, list[str]]
) -> None:
    """With any_errors_fatal a failed host ended the run of its whole wave before the rollback. A task_timeout ended the
    probe window, and another strategy broke the survey."""
    older, newer = versions["node_exporter"][:2]
    request = {"node_exporter": f"{{{{ '{DIES}' if inventory_hostname == 'host2' else '{newer}' }}}}"}
    played = play(
        "upgrade", "-l", "host2,host3", code=2, settings=SETTINGS, upgrade_versions=request, upgrade_waves=["100%"]
    )
    assert played.recap["host2"]["rescued"] == 1
    assert servers["host2"].is_healthy("node_exporter", older)
    assert servers["host3"].is_healthy("node_exporter", newer)
    assert servers["host2"].component("node_exporter")["state"] == "rolled_back"
    assert servers["host3"].component("node_exporter")["state"] == "success"
    assert all(servers[name].is_at_rest() for name in ("host2", "host3"))


def test_a_playbook_leaves_hosts_alone_that_an_earlier_one_of_the_run_has_planned(
    servers: dict[str, Server], versions: dict[str, list[str]], tmp_path: pathlib.Path
) -> None:
    """The hosts of a plan stay in a group for the rest of the run."""
    newer, newest = versions["node_exporter"][1:3]
    both = tmp_path / "both.yml"
    both.write_text(
        f"- import_playbook: {CHECKOUT}/playbooks/plan.yml\n"
        f"- import_playbook: {CHECKOUT}/playbooks/upgrade.yml\n  vars: {{upgrade_hosts: host2}}\n"
    )
    before = servers["host3"].snapshot()
    play(str(both), "-l", "host2,host3", upgrade_versions={"node_exporter": newest})
    assert servers["host2"].is_healthy("node_exporter", newest)
    assert servers["host3"].is_healthy("node_exporter", newer)
    assert servers["host3"].snapshot() == before
