# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program that a service user controls is never run as root, by no playbook.

The canary tells who runs it: it makes a file /canary/<uid>, where everybody may write. It is put where a service user
can put it: on disk, as the process that its service became, behind a script in the program's place; and where a bad
mirror can put it: into a release.
"""

from __future__ import annotations

import typing as t

import pytest
from conftest import STATE_DIR, Data, Run, Server

CANARY = "1.98.2"
KEPT = "/root/canary-test"
BIN = "/usr/local/bin"

# A service whose process is the canary, while its file is what it was; and a script that starts the real program.
EXCHANGED = f"""
cp {KEPT}/canary {BIN}/alertmanager.canary && mv {BIN}/alertmanager.canary {BIN}/alertmanager
systemctl restart alertmanager
cp -p {KEPT}/alertmanager {BIN}/alertmanager.old && mv {BIN}/alertmanager.old {BIN}/alertmanager
"""
WRAPPED = f"""
cp -p {KEPT}/prometheus {BIN}/prometheus.real
cat > {BIN}/prometheus.script <<'END'
#!/bin/sh
touch "/canary/$(id -u)"
exec {BIN}/prometheus.real "$@"
END
chmod 755 {BIN}/prometheus.script && chown prometheus {BIN}/prometheus.script
mv {BIN}/prometheus.script {BIN}/prometheus && systemctl restart prometheus
"""
ON_DISK = f"""
cp {KEPT}/canary {BIN}/node_exporter.canary && chown node-exp {BIN}/node_exporter.canary
mv {BIN}/node_exporter.canary {BIN}/node_exporter
"""
RESTORED = f"""
for name in node_exporter alertmanager prometheus; do
    cp -p {KEPT}/$name {BIN}/$name.old && mv {BIN}/$name.old {BIN}/$name
done
rm -rf {BIN}/prometheus.real {STATE_DIR} /canary
[ ! -e {KEPT}/state ] || mv {KEPT}/state {STATE_DIR}
rm -rf {KEPT} /etc/systemd/system/*.service.d/canary.conf
rmdir /etc/systemd/system/*.service.d 2>/dev/null
systemctl daemon-reload
systemctl restart node_exporter alertmanager prometheus
"""
FETCH = """
import io, os, sys, tarfile, urllib.request
archive = tarfile.open(fileobj=io.BytesIO(urllib.request.urlopen(sys.argv[1]).read()))
open(sys.argv[3], "wb").write(archive.extractfile(sys.argv[2]).read())
os.chmod(sys.argv[3], 0o755)
"""


@pytest.fixture(scope="module")
def server(servers: dict[str, Server], inventory: Data) -> t.Iterator[Server]:
    """A host with the canary in /root, and nothing put anywhere yet."""
    server = servers["host1"]
    top = f"node_exporter-{CANARY}.linux-{inventory['vars']['lab_architecture']}"
    base = f"{inventory['vars']['upgrade_release_mirror']}/prometheus/node_exporter/releases/download"
    server.out(f"rm -rf {KEPT} && mkdir -m 0700 {KEPT} && mkdir -p /canary && chmod 1777 /canary")
    server.out(f"cp -p {BIN}/node_exporter {BIN}/alertmanager {BIN}/prometheus {KEPT}")
    server.out(f"[ ! -e {STATE_DIR} ] || mv {STATE_DIR} {KEPT}/state")
    server.out(
        "python3 -c %s %s %s %s", FETCH, f"{base}/v{CANARY}/{top}.tar.gz", f"{top}/node_exporter", f"{KEPT}/canary"
    )
    yield server
    server.host.run(RESTORED)


@pytest.fixture(autouse=True)
def forgotten(server: Server) -> None:
    server.out("rm -f /canary/*")


def singers(server: Server) -> set[str]:
    """The users who ran a canary."""
    return set(server.out("ls /canary").split())


# The services that aren't what they should be never get well, and nobody needs to wait for that.
HURRIED = {name: {"probe_timeout": 8, "probe_window": 1} for name in ("node_exporter", "alertmanager", "prometheus")}

# In this order: those that change nothing come first, and what upgrades comes before what goes back.
PLAYBOOKS: dict[str, tuple[str, list[str], Data]] = {
    "check": ("check", [], {}),
    "plan": ("plan", [], {}),
    "status": ("status", [], {}),
    "verify": ("verify", [], {}),
    "unlock": ("unlock", [], {}),
    "bundle": ("bundle", [], {}),
    "upgrade --check": ("upgrade", ["--check"], {}),
    "upgrade, download only": ("upgrade", [], {"upgrade_download_only": True}),
    "upgrade": ("upgrade", [], {"upgrade_rehearse": True}),
    "restart": ("restart", [], {"upgrade_only": ["node_exporter", "alertmanager"]}),
    "rollback": ("rollback", [], {"upgrade_rollback_to": "previous"}),
}


@pytest.fixture(scope="module")
def infested(server: Server) -> Server:
    """The host with the canary in all places: on disk, as a process, and behind a script."""
    for attack in (ON_DISK, EXCHANGED, WRAPPED):
        server.out(attack)
    server.out("systemctl is-active alertmanager prometheus node_exporter")
    return server


def test_it_sings_when_root_runs_it(server: Server) -> None:
    server.out(f"{KEPT}/canary --version && cp {KEPT}/canary /canary/bird")
    server.out("setpriv --reuid=nobody --clear-groups /canary/bird --version; rm /canary/bird")
    assert singers(server) == {"0", server.out("id -u nobody")}


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_no_playbook_runs_what_a_service_user_or_a_mirror_controls_as_root(
    infested: Server, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    playbook, arguments, variables = PLAYBOOKS[name]
    wish: Data = {"upgrade_versions": {"node_exporter": CANARY}, "upgrade_overrides": HURRIED}
    if name == "bundle":
        wish["upgrade_bundle_dest"] = str(tmp_path_factory.mktemp("bundle") / "bundle.tar")
    with Run(playbook, "-l", infested.name, *arguments, **wish, **variables) as run:
        played = run.end()  # many of them rightly refuse what they find
    assert f"{infested.name} " in played.output
    assert "Traceback" not in played.output
    assert "0" not in singers(infested)


@pytest.mark.parametrize("playbook", ["check", "plan", "status", "verify"])
def test_what_root_s_own_unit_would_run_is_asked_as_nobody(infested: Server, playbook: str) -> None:
    """The services are down, so that nobody but a playbook runs their programs."""
    names = "node_exporter alertmanager prometheus"
    infested.out(
        f"for name in {names}; do mkdir -p /etc/systemd/system/$name.service.d; "
        "printf '[Service]\\nUser=root\\nGroup=root\\n' > /etc/systemd/system/$name.service.d/canary.conf; done; "
        f"systemctl daemon-reload; systemctl stop {names}; rm -f /canary/*"
    )
    with Run(playbook, "-l", infested.name, upgrade_versions={"node_exporter": CANARY}) as run:
        played = run.end()
    assert "Traceback" not in played.output
    assert "0" not in singers(infested)
    if playbook == "status":
        row = next(line for line in played.output.splitlines() if "prometheus" in line)
        assert "unknown" in row
