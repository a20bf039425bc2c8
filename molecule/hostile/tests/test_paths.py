# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service's user who wants to be root exchanges files and directories for links, while root upgrades the service."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from conftest import STATE_DIR, Server, play

HOME = "/opt/node"
PROGRAM = f"{HOME}/bin/node_exporter"
DROP_IN = "/etc/systemd/system/node_exporter.service.d/50-home.conf"
LOOPS = "1.99.15"  # a crash loop: it is undone
ACCEPTED = {"upgrade_accept": ["host.unsafe_path"], "upgrade_overrides": {"node_exporter": {"probe_timeout": 12}}}

# Of its own user: it waits until the program is another file, or until a candidate is run, and does something then.
ATTACK = """
cd {home}
first=$(stat --format=%i bin/node_exporter)
while true; do
  if {condition}; then {action}; exit; fi
done
"""
CANDIDATE_RUNS = 'test -e "$(echo /run/observability-*)"'
PROGRAM_IS_NEW = '! test "$(stat --format=%i bin/node_exporter)" = "$first"'


@pytest.fixture
def server(servers: dict[str, Server]) -> t.Iterator[Server]:
    """A host with a state directory that is new. What was there comes back."""
    server = servers["host1"]
    server.out("if test -e %s; then mv %s %s.kept; fi", STATE_DIR, STATE_DIR, STATE_DIR)
    yield server
    server.out("rm -rf %s", STATE_DIR)
    server.out("if test -e %s.kept; then mv %s.kept %s; fi", STATE_DIR, STATE_DIR, STATE_DIR)


@pytest.fixture
def home(server: Server) -> t.Iterator[str]:
    """node_exporter runs from a directory of its own user, as many roles install it."""
    server.out(f"mkdir -p {HOME}/bin && cp /usr/local/bin/node_exporter {PROGRAM} && chown -R node-exp:node-exp {HOME}")
    line = server.out("systemctl show --property=ExecStart --value node_exporter")
    words = line.partition("argv[]=")[2].partition(" ; ")[0].split()
    text = f"[Service]\nExecStart=\nExecStart={' '.join([PROGRAM, *words[1:]])}\n"
    server.out(f"mkdir -p {DROP_IN.rpartition('/')[0]} && printf %s > {DROP_IN}", text)
    server.out("systemctl daemon-reload && systemctl restart node_exporter")
    yield HOME
    server.out("systemctl stop attack.service 2>/dev/null; systemctl reset-failed attack.service 2>/dev/null; true")
    server.out(f"rm -rf {DROP_IN.rpartition('/')[0]} {HOME}")
    server.out("systemctl daemon-reload && systemctl restart node_exporter")


def rights(server: Server) -> str:
    """Owner, mode and inode of what the attacks are after, and all that is setuid or has a capability."""
    listed = server.out("find /etc/shadow /etc/cron.daily /usr/bin/su | sort | xargs stat --format='%n %U:%G %a %i'")
    privileged = server.out("find / -xdev -path /proc -prune -o -type f -perm /6000 -print | sort")
    return f"{listed}\n{privileged}"


@contextlib.contextmanager
def attacked(server: Server, condition: str, action: str) -> t.Iterator[None]:
    """The service's user waits for a moment, and does something then. It must have come to that."""
    script = ATTACK.format(home=HOME, condition=condition, action=action)
    server.out("systemd-run --unit=attack --uid=node-exp --gid=node-exp sh -c %s", script.replace("$", "$$"))
    yield
    state = server.out("systemctl show --property=ActiveState --value attack.service")
    assert state == "inactive", "the moment never came"


def test_a_program_in_a_directory_of_its_user_is_a_blocker(
    server: Server, home: str, versions: dict[str, list[str]]
) -> None:
    newer, pid = versions["node_exporter"][1], server.pid("node_exporter")
    played = play("upgrade", "-l", server.name, code=2, upgrade_versions={"node_exporter": newer})
    assert "host.unsafe_path" in played.output
    assert f"can write {home} (owner node-exp" in played.output
    assert f"chown root:root {home} && chmod go-w {home}" in played.output
    assert server.pid("node_exporter") == pid


def test_where_that_is_accepted_nothing_is_carried_over(
    server: Server, home: str, versions: dict[str, list[str]]
) -> None:
    newer = versions["node_exporter"][1]
    server.out(f"chmod 6777 {PROGRAM}")
    before = rights(server).replace(f"\n{PROGRAM}", "")
    play("upgrade", "-l", server.name, upgrade_versions={"node_exporter": newer}, **ACCEPTED)
    assert server.serves("node_exporter") == newer
    assert server.out(f"stat --format='%U:%G %a' {PROGRAM}") == "root:root 755"
    assert rights(server) == before


def test_a_link_in_place_of_the_program_while_a_candidate_runs_makes_nothing_setuid(
    server: Server, home: str, versions: dict[str, list[str]]
) -> None:
    newer, before = versions["node_exporter"][1], rights(server)
    with attacked(server, CANDIDATE_RUNS, "mv bin/node_exporter bin/kept; ln -s /usr/bin/su bin/node_exporter"):
        played = play("upgrade", "-l", server.name, code=2, upgrade_versions={"node_exporter": newer}, **ACCEPTED)
    assert "there is no regular file at" in played.output, played.output
    assert rights(server) == before
    assert server.out(f"readlink {PROGRAM}") == "/usr/bin/su"


def test_a_directory_that_becomes_a_link_before_the_undoing_is_not_written_to(server: Server, home: str) -> None:
    before, listed = rights(server), server.out("ls -la /etc/cron.daily")
    with attacked(server, PROGRAM_IS_NEW, "mv bin bin.real; ln -s /etc/cron.daily bin"):
        played = play("upgrade", "-l", server.name, code=2, upgrade_versions={"node_exporter": LOOPS}, **ACCEPTED)
    assert "can't be put back" in played.output, played.output
    assert "symbolic link" in played.output
    assert rights(server) == before
    assert server.out("ls -la /etc/cron.daily") == listed
    assert server.component("node_exporter")["state"] == "failed"


def test_a_link_in_place_of_its_data_gives_a_service_nothing(server: Server, versions: dict[str, list[str]]) -> None:
    """Its rehearsal gets copies of the data, and they belong to its user. It ends with a flag that isn't known, so that
    the service itself is left alone."""
    newer, data = versions["alertmanager"][1], "/var/lib/alertmanager"
    flags = {"cluster.listen-address": "", "storage.path": "{data}", "config.file": "{config}", "no-such-flag": "x"}
    rehearse = {"flags": {**flags, "web.listen-address": "127.0.0.1:{port}"}, "data": "state", "network": "private"}
    server.out(f"cd {data} && rm -rf nflog silences && mkdir silences && ln -s /etc/shadow nflog")
    server.out(f"ln -s /etc/shadow {data}/silences/x")
    server.out(f"chown -h -R alertmanager: {data}")
    before, pid = rights(server), server.pid("alertmanager")
    try:
        played = play(
            "upgrade",
            "-l",
            server.name,
            code=2,
            upgrade_versions={"alertmanager": newer},
            upgrade_rehearse=True,
            upgrade_overrides={"alertmanager": {"rehearse": rehearse}},
        )
        assert "alertmanager.rehearsal_failed" in played.output, played.output
        assert rights(server) == before
        assert server.out(f'grep -rlF "$(head -1 /etc/shadow)" {STATE_DIR} || true') == ""
        assert server.pid("alertmanager") == pid
    finally:
        server.out(f"rm -rf {data}/nflog {data}/silences")
