# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run does what its playbooks say, whatever Ansible's configuration sets and whichever playbooks ran before it."""

from __future__ import annotations

import pathlib
import tempfile

import rows
from conftest import CHECKOUT
from rows import Fleet, way

pytest_plugins = ["rows"]

DIES = "1.99.1"  # a release of node_exporter that exits at its start
SETTINGS = {"ANSIBLE_ANY_ERRORS_FATAL": "true", "ANSIBLE_STRATEGY": "free", "ANSIBLE_TASK_TIMEOUT": "3"}
ALL_AT_ONCE = ["100%"]


def playbook(text: str) -> str:
    """The path of a playbook of the operator's own, which is kept until the machine is restarted."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="runs-")) / "site.yml"
    path.write_text(text.replace("PLAYBOOKS", f"{CHECKOUT}/playbooks"))
    return str(path)


def test_the_documentation_has_this_table() -> None:
    assert rows.TABLE.read_text() == rows.table(), "python molecule/runs/tests/rows.py > docs/runs.md"


@way(
    "`any_errors_fatal`, `strategy: free` and `task_timeout: 3` in ansible.cfg; one of two hosts fails",
    "The host that failed is rolled back, its neighbour is upgraded",
    hosts=2,
)
def test_settings_of_ansible_do_not_switch_the_rollback_off(fleet: Fleet) -> None:
    bad, good = fleet.servers
    request = {"node_exporter": f"{{{{ '{DIES}' if inventory_hostname == '{bad.name}' else '{fleet.newer}' }}}}"}
    played = fleet.play(
        "upgrade",
        code=2,
        settings=SETTINGS,
        upgrade_versions=request,
        upgrade_waves=ALL_AT_ONCE,
        upgrade_overrides={"node_exporter": {"probe_window": 5}},
    )
    assert played.recap[bad.name]["rescued"] == 1
    assert bad.is_healthy("node_exporter", fleet.older)
    assert good.is_healthy("node_exporter", fleet.newer)
    assert bad.component("node_exporter")["state"] == "rolled_back"
    assert good.component("node_exporter")["state"] == "success"
    assert all(server.is_at_rest() for server in fleet.servers)


@way(
    "`plan` of two hosts, then `upgrade` with `upgrade_hosts` of one of them, in one run",
    "Only the host of `upgrade_hosts` is upgraded",
    hosts=2,
)
def test_a_playbook_leaves_hosts_alone_that_an_earlier_one_of_the_run_has_planned(fleet: Fleet) -> None:
    meant, other = fleet.servers
    before = other.snapshot()
    fleet.play(
        playbook(
            "- import_playbook: PLAYBOOKS/plan.yml\n"
            f"- import_playbook: PLAYBOOKS/upgrade.yml\n  vars: {{upgrade_hosts: {meant.name}}}\n"
        )
    )
    assert meant.is_healthy("node_exporter", fleet.newer)
    assert other.snapshot() == before


@way(
    "`upgrade`, and the controller's clock is stepped by 1 s and 2 s meanwhile",
    "The run stays the same run and ends; another run is refused, by name, while it lives",
)
def test_a_clock_that_is_stepped_does_not_lock_a_run_out(fleet: Fleet) -> None:
    """The kernel tells its own start by the time of day, so /proc/stat follows each step of a clock."""
    with tempfile.TemporaryDirectory() as directory:
        clock = Clock(pathlib.Path(directory))
        with fleet.run("upgrade", under=clock.under, upgrade_overrides={}) as first:
            fleet.server.await_state("node_exporter", "activated")
            clock.step(1)
            fleet.server.await_state("node_exporter", "verifying")
            clock.step(2)
            upgrade = fleet.server.state()["upgrade"]["upgrade_id"]
            first.stop()
            second = fleet.play("upgrade", code=2, under=clock.under)
            first.go_on()
            ended = first.end()
    assert f"upgrade {upgrade} of" in second.output
    assert ended.code == 0, ended.output
    assert fleet.runs(fleet.newer)
    assert fleet.server.component("node_exporter")["state"] == "success"


class Clock:
    """The start of the kernel, as /proc/stat tells it, for programs in a mount namespace of their own."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._file, self._lines = directory / "stat", pathlib.Path("/proc/stat").read_text().splitlines()
        self.step(0)

    @property
    def under(self) -> list[str]:
        mount = f'mount --bind {self._file} /proc/stat && exec "$@"'
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", mount, "sh"]

    def step(self, seconds: int) -> None:
        """Step the clock by so many seconds, since this was made."""
        lines = [
            f"btime {int(line.split()[1]) + seconds}" if line.startswith("btime ") else line for line in self._lines
        ]
        self._file.write_text("\n".join(lines) + "\n")
