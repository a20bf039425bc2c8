# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units that changed on disk, links, and files that can't be replaced: each is found before anything is touched, with
what to do about it, and the healthy service stays up."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from conftest import STATE_DIR, Run, Server, play

Versions = dict[str, list[str]]

NAME = "node_exporter"
UNIT = "/etc/systemd/system/node_exporter.service"
DROP_IN = f"{UNIT}.d/site.conf"
PROGRAM = "/usr/local/bin/node_exporter"
RESTORED = "/run/systemd/system/node_exporter.service.d/zz-observability-restored.conf"
BROKEN = f"sed -i s/--collector.systemd/--collector.not-there/ {UNIT}"
QUICK = {"upgrade_rehearse": False}


def stand(server: Server) -> str:
    """The program's file, to the inode and the last change, and the process that runs it."""
    return f"{server.out('stat --format=%s %s', '%i %Z %s', PROGRAM)} {server.pid(NAME)}"


@pytest.fixture
def server(servers: dict[str, Server], versions: Versions) -> t.Iterator[Server]:
    """A host whose unit and program are what they were afterwards."""
    server = servers["host2"]
    server.out(f"cp --preserve=all {UNIT} /root/unit && cp --preserve=all --no-dereference {PROGRAM} /root/program")
    yield server
    server.out(f"umount --quiet --recursive /usr/local/bin {PROGRAM} || true")
    server.out(f"rm -rf {UNIT}.d {RESTORED} {PROGRAM} /usr/local/bin/other /opt/node_exporter* /etc/default/site")
    server.out(f"rm -f {UNIT} && cp --preserve=all /root/unit {UNIT} && cp --preserve=all /root/program {PROGRAM}")
    server.out("systemctl daemon-reload && systemctl restart node_exporter")
    with contextlib.suppress(AssertionError):
        server.is_healthy(NAME, versions[NAME][0])


# What is done on the host; the key of the finding; its severity; what it says.
CASES: dict[str, tuple[str, str, str, str]] = {
    "unit edited": (BROKEN, "unit_changed", "blocker", "on disk --collector.not-there"),
    "first drop-in, which NeedDaemonReload misses": (
        f"mkdir {UNIT}.d && printf '[Service]\\nLimitNOFILE=64\\n' > {DROP_IN}",
        "unit_changed",
        "blocker",
        "site.conf was added",
    ),
    "drop-in removed": (
        f"mkdir {UNIT}.d && printf '[Service]\\nMemoryMax=1G\\n' > {DROP_IN} && systemctl daemon-reload && "
        f"rm {DROP_IN}",
        "unit_changed",
        "blocker",
        "site.conf was removed",
    ),
    "masked by hand": (f"rm {UNIT} && ln -s /dev/null {UNIT}", "unit_changed", "blocker", "is masked"),
    "shadowed": (
        "mkdir -p /etc/systemd/system.control && cp /root/unit /etc/systemd/system.control/node_exporter.service",
        "unit_changed",
        "blocker",
        "takes the place of",
    ),
    "reloaded, not restarted": (
        f"sed -i s/Restart=always/Restart=on-failure/ {UNIT} && touch -d '+1 hour' {UNIT} && systemctl daemon-reload",
        "unit_newer",
        "warning",
        "was changed after its process started",
    ),
    "environment file gone": (
        f"touch /etc/default/site && sed -i s,^User=,EnvironmentFile=/etc/default/site\\\\nUser=, {UNIT} && "
        "systemctl daemon-reload && systemctl restart node_exporter && rm /etc/default/site",
        "cannot_start",
        "blocker",
        "/etc/default/site is not there",
    ),
    "environment file changed": (
        f"touch /etc/default/site && sed -i s,^User=,EnvironmentFile=/etc/default/site\\\\nUser=, {UNIT} && "
        "systemctl daemon-reload && systemctl restart node_exporter && touch -d '+1 hour' /etc/default/site",
        "environment_newer",
        "warning",
        "/etc/default/site was changed",
    ),
    "bind mount": (f"mount --bind /root/program {PROGRAM}", "mounted", "blocker", "is a mount of its own"),
    "noexec": (
        "mount --bind /usr/local/bin /usr/local/bin && mount -o remount,bind,noexec /usr/local/bin",
        "noexec",
        "blocker",
        "is mounted noexec",
    ),
    "hard link": (f"ln {PROGRAM} /usr/local/bin/other", "hard_links", "warning", "2 names"),
    "setuid": (f"chmod u+s {PROGRAM}", "privileges_lost", "warning", "setuid"),
    "link": (f"mv {PROGRAM} /opt/ && ln -s /opt/node_exporter {PROGRAM}", "link_replaced", "info", "to /opt/node_exp"),
    "versioned directory behind a link": (
        f"mkdir /opt/node_exporter-1.5.0 && mv {PROGRAM} /opt/node_exporter-1.5.0/ && ln -s node_exporter-1.5.0 "
        f"/opt/node_exporter && sed -i s,{PROGRAM},/opt/node_exporter/node_exporter, {UNIT} && "
        "systemctl daemon-reload && systemctl restart node_exporter",
        "versioned_path",
        "warning",
        "is named after version 1.5.0",
    ),
}


@pytest.mark.parametrize(("command", "key", "severity", "says"), CASES.values(), ids=CASES)
def test_it_is_found_before_anything_is_touched(
    server: Server, versions: Versions, command: str, key: str, severity: str, says: str
) -> None:
    server.out(command)
    pid = server.pid(NAME)
    code = 2 if severity == "blocker" else 0
    try:
        played = play("plan", "-l", server.name, code=code, upgrade_versions={NAME: versions[NAME][1]})
    finally:
        server.out("rm -rf /etc/systemd/system.control/node_exporter.service")
    assert f"{severity}: {NAME}.{key} ({server.name})" in played.output
    assert says in " ".join(played.output.split())
    assert server.pid(NAME) == pid


def test_a_unit_that_nobody_reloaded_stops_the_upgrade(server: Server, versions: Versions) -> None:
    server.out(BROKEN)
    before = stand(server)
    played = play("upgrade", "-l", server.name, code=2, upgrade_versions={NAME: versions[NAME][1]}, **QUICK)
    assert f"accept {NAME}.unit_changed" in " ".join(played.output.split())
    assert stand(server) == before


def test_the_candidate_is_asked_about_the_unit_that_will_be_started(server: Server, versions: Versions) -> None:
    server.out(BROKEN)
    before, accept = stand(server), [f"{NAME}.unit_changed"]
    wish = {NAME: versions[NAME][1]}
    played = play("upgrade", "-l", server.name, code=2, upgrade_versions=wish, upgrade_accept=accept, **QUICK)
    assert f"{NAME}.flag_removed.collector.not-there" in played.output
    assert stand(server) == before


def test_what_ran_is_brought_back_where_the_unit_is_broken(server: Server, versions: Versions) -> None:
    """A user that is not known is nothing that the candidate could be asked about."""
    server.out(f"sed -i s/^User=.*/User=nobody-knows/ {UNIT}")
    accept = [f"{NAME}.unit_changed", f"{NAME}.cannot_start"]
    wish = {NAME: versions[NAME][1]}
    played = play("upgrade", "-l", server.name, code=2, upgrade_versions=wish, upgrade_accept=accept, **QUICK)
    assert "changed meanwhile (User)" in played.output
    assert server.component(NAME)["outcome"] == "rolled_back"
    assert server.is_healthy(NAME, versions[NAME][0])
    assert "User=node-exp" in server.out("cat %s", RESTORED)
    again = play("plan", "-l", server.name, upgrade_versions=wish)
    assert f"warning: {NAME}.unit_restored" in again.output


def test_a_unit_that_was_changed_and_reloaded_meanwhile_stops_the_swap(server: Server, versions: Versions) -> None:
    before, newer = stand(server), versions[NAME][1]
    candidate = f"{STATE_DIR}/staging/{NAME}@{newer}/candidate.json"
    with Run("upgrade", "-l", server.name, upgrade_versions={NAME: newer}, upgrade_rehearse=False) as run:
        server.out(f"timeout 300 sh -c 'until test -e {candidate}; do sleep 0.02; done'")
        server.out(f"{BROKEN} && systemctl daemon-reload")
        played = run.end()
    assert "swap.unit_changed" in played.output or "flag_removed" in played.output
    assert stand(server) == before


def test_a_link_is_a_link_again_after_undo_and_after_rollback(server: Server, versions: Versions) -> None:
    older, newer = versions[NAME][:2]
    server.out(f"mkdir /opt/node_exporter-{older} && mv {PROGRAM} /opt/node_exporter-{older}/")
    target = f"/opt/node_exporter-{older}/node_exporter"
    server.out(f"ln -s {target} {PROGRAM} && systemctl restart node_exporter")
    play("upgrade", "-l", server.name, upgrade_versions={NAME: newer}, **QUICK)
    assert server.is_healthy(NAME, newer)
    play("rollback", "-l", server.name, upgrade_rollback_to="previous", upgrade_mode="standard")
    assert server.out("readlink %s", PROGRAM) == target
    assert server.is_healthy(NAME, older)


def test_the_journal_of_a_unit_is_read_by_its_own_name(server: Server, versions: Versions) -> None:
    """The component is known by an alias, under which the journal has nothing."""
    site = "/etc/systemd/system/ne-site.service"
    server.out(f"systemctl disable --now node_exporter && mv {UNIT} {site} && ln -s ne-site.service {UNIT}")
    try:
        server.out("systemctl daemon-reload && systemctl start ne-site")
        loops = {NAME: {"probe_timeout": 12, "probe_window": 5}}
        wish: t.Any = {"upgrade_versions": {NAME: "1.99.15"}, "upgrade_overrides": loops}
        played = play("upgrade", "-l", server.name, code=2, **wish, **QUICK)
        assert "The journal's last lines" in played.output
        assert server.is_healthy(NAME, versions[NAME][0])
    finally:
        server.out(f"systemctl stop ne-site; rm -f {site} {UNIT}")
