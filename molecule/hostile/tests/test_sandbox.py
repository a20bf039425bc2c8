# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hostile program in the sandbox. tests/lab/standins/escape.c tries to get out in all ways that it knows; the sandbox
is made by the collection's own code, which is copied to the host for that."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tarfile
import typing as t

import pytest
from conftest import CHECKOUT, STATE_DIR, Data, Server, play

ESCAPER = "1.98.1"
PLACE = "/root/sandbox-test"
UNIT = "/etc/systemd/system/node_exporter.service"
ATTEMPTS = 19

# Seen as root: it makes sandboxes as the modules do, and prints what came of each program.
DRIVER = """
import json, sys
sys.path.insert(0, {place!r})
from ansible_collections.observability.stack.plugins.module_utils import _sandbox, _systemd
from ansible_collections.observability.stack.plugins.module_utils._command import run
case = json.load(sys.stdin)
properties = _systemd.show(run, ["node_exporter"], more=_sandbox.PROPERTIES)[0].properties
properties.update(case.get("properties", {{}}))
options = {{"name": "sandbox-test", "programs": case["programs"], "hidden": [{state!r}], **case.get("options", {{}})}}
make = _sandbox.bare if case.get("bare") else _sandbox.of_unit
sandbox = make(properties, **options)
sandbox = sandbox._replace(environment=tuple(case.get("environment", sandbox.environment)))
if case.get("start"):
    print(json.dumps([0, "", _sandbox.start(run, sandbox, case["argv"], timeout=60)]))
else:
    print(json.dumps(_sandbox.once(run, sandbox, case["argv"], timeout=60)))
"""


class Sandboxes:
    """Sandboxes on one host."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def run(self, **case: t.Any) -> tuple[int, str, str]:
        encoded = base64.b64encode(json.dumps(case).encode()).decode()
        answer = json.loads(self.server.out(f"echo {encoded} | base64 -d | python3 {PLACE}/driver.py"))
        return tuple(answer)

    def escape(self, **case: t.Any) -> tuple[set[str], str]:
        """What a program managed that tried all that it knows, and all that it said."""
        _status, text, trouble = self.run(programs={"escape": f"{PLACE}/escape"}, argv=["escape", "--version"], **case)
        assert not trouble
        lines = text.splitlines()
        assert sum(line.startswith(("held: ", "escaped: ")) for line in lines) == ATTEMPTS, text
        return {line.removeprefix("escaped: ") for line in lines if line.startswith("escaped: ")}, text


@pytest.fixture(scope="module")
def sandboxes(servers: dict[str, Server], inventory: Data) -> t.Iterator[Sandboxes]:
    """The first host, with the collection's own sandbox, and a program that wants to get out of it."""
    server = servers["host1"]
    package, packed = f"{PLACE}/ansible_collections/observability/stack/plugins", io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as bundle:
        bundle.add(CHECKOUT / "plugins/module_utils", "module_utils", filter=lambda one: one if _is_code(one) else None)
    content = base64.b64encode(packed.getvalue()).decode()
    top = f"node_exporter-{ESCAPER}.linux-{inventory['vars']['lab_architecture']}"
    mirror = inventory["vars"]["upgrade_release_mirror"]
    server.out("rm -rf %s && mkdir -p %s", PLACE, package)
    for start in range(0, len(content), 100_000):  # a command line has its limit
        server.out(f"echo {content[start : start + 100_000]} >> {PLACE}/packed")
    server.out(f"base64 -di {PLACE}/packed | tar -xz -C {package}")
    driver = base64.b64encode(DRIVER.format(place=PLACE, state=STATE_DIR).encode()).decode()
    server.out(f"echo {driver} | base64 -d > {PLACE}/driver.py")
    url = f"{mirror}/prometheus/node_exporter/releases/download/v{ESCAPER}/{top}.tar.gz"
    server.out("python3 -c %s %s %s %s", FETCH, url, f"{top}/node_exporter", f"{PLACE}/escape")
    server.out("mkdir -p -m 0700 %s && touch %s", STATE_DIR, f"{STATE_DIR}/.sandbox-test")
    yield Sandboxes(server)
    server.out(f"rm -rf {PLACE} {STATE_DIR}/.sandbox-test && rmdir {STATE_DIR} 2>/dev/null || true")


def _is_code(one: tarfile.TarInfo) -> bool:
    return "__pycache__" not in one.name


FETCH = """
import io, os, sys, tarfile, urllib.request
archive = tarfile.open(fileobj=io.BytesIO(urllib.request.urlopen(sys.argv[1]).read()))
open(sys.argv[3], "wb").write(archive.extractfile(sys.argv[2]).read())
os.chmod(sys.argv[3], 0o755)
"""

TELL = """
import json, os, sys
print(json.dumps([sys.argv[1:], {name: value for name, value in os.environ.items() if name[:4] in ("SHOP", "OBSE")}]))
"""

AS_ROOT = {"User": "", "Group": ""}
LIVE = {"network": "host", "sockets": True}
THE_NETWORK = "reach the host's network"


@pytest.mark.parametrize(
    ("case", "allowed", "user"),
    [
        ({"bare": True}, set(), "node-exp"),
        ({"bare": True, "properties": AS_ROOT}, set(), "nobody"),
        ({}, set(), "node-exp"),
        ({"properties": AS_ROOT}, set(), "root"),
        ({"options": LIVE}, {THE_NETWORK, "talk over D-Bus"}, "node-exp"),
        ({"options": LIVE, "properties": AS_ROOT}, {THE_NETWORK}, "root"),
    ],
    ids=[
        "asked for its version, of a user",
        "asked for its version, of root",
        "checks, of a user",
        "checks, of root",
        "rehearsal, of a user",
        "rehearsal, of root",
    ],
)
def test_a_program_gets_out_in_no_way_that_is_not_allowed(
    sandboxes: Sandboxes, case: Data, allowed: set[str], user: str
) -> None:
    server = sandboxes.server
    before = server.pid("node_exporter")
    escaped, text = sandboxes.escape(**case)
    assert escaped == allowed, text
    assert f"user: {server.out('id -u %s', user)})" in text
    assert server.out("find / -xdev -name 'observability-escape*' 2>/dev/null || true") == ""
    assert server.pid("node_exporter") == before


def test_outside_of_the_sandbox_it_is_no_prisoner(sandboxes: Sandboxes) -> None:
    """Otherwise its attempts would prove nothing."""
    text = sandboxes.server.out(f"{PLACE}/escape --version; rm -f $(find / -xdev -name 'observability-escape*')")
    for attempt in ("write outside", "signal", "look into processes", "talk to systemd", "read the state", THE_NETWORK):
        assert f"escaped: {attempt}" in text


def test_the_environment_and_the_arguments_arrive_as_they_are(sandboxes: Sandboxes) -> None:
    awkward = [
        " both ends ",
        "'single' \"double\"",
        "$HOME ${PATH} %n %%",
        "back\\slash \\n \\",
        "a\nb\n\n",
        "`id` # ;",
    ]
    environment = [f"SHOP_{number}={value}" for number, value in enumerate(awkward)]
    status, text, trouble = sandboxes.run(
        programs={"python3": "/usr/bin/python3"}, argv=["python3", "-c", TELL, *awkward], environment=environment
    )
    assert (status, trouble) == (0, "")
    assert json.loads(text) == [awkward, dict(line.split("=", 1) for line in environment)]


@pytest.fixture
def left_running(sandboxes: Sandboxes) -> t.Iterator[Sandboxes]:
    yield sandboxes
    sandboxes.server.out("systemctl stop sandbox-test; systemctl reset-failed sandbox-test 2>/dev/null || true")


def test_no_secret_is_seen_in_the_process_list_in_the_unit_or_in_the_journal(left_running: Sandboxes) -> None:
    server, secret = left_running.server, "geheim" + "4711"
    status, _text, trouble = left_running.run(
        programs={"sleep": "/usr/bin/sleep"}, argv=["sleep", "50"], environment=[f"PASSWORD={secret}"], start=True
    )
    assert (status, trouble) == (0, "")
    pid = server.pid("sandbox-test")
    server.out(f"timeout 60 sh -c 'until grep -q sleep /proc/{pid}/comm; do :; done'")  # until then it is systemd's
    assert secret in server.out("tr '\\0' '\\n' < /proc/%s/environ", str(pid))
    assert server.out(f"grep -la {secret[:6]}[4]711 /proc/[0-9]*/cmdline || true") == ""
    assert server.out(f"grep -rl {secret} /run /etc/systemd 2>/dev/null || true") == ""
    assert server.out("systemctl show sandbox-test | grep 4711 || true") == ""
    assert server.out(f"journalctl --no-pager | grep -v sudo | grep {secret} || true") == ""


@contextlib.contextmanager
def unit_of_root(server: Server) -> t.Iterator[None]:
    """The unit is said to be root's. Its process isn't restarted: it goes on as it was, which C(unit_newer) reports."""
    drop_in = f"{UNIT}.d/root.conf"
    server.out(f"mkdir -p {UNIT}.d && printf '[Service]\\nUser=root\\nGroup=root\\n' > {drop_in}")
    server.out("systemctl daemon-reload")
    try:
        yield
    finally:
        server.out(f"rm {drop_in} && rmdir {UNIT}.d; systemctl daemon-reload")


@pytest.mark.parametrize(
    ("root", "arguments"), [(False, []), (True, ["--check"])], ids=["of a user", "of root, in check mode"]
)
def test_a_release_that_tries_to_get_out_is_refused_and_got_nowhere(
    servers: dict[str, Server], root: bool, arguments: list[str]
) -> None:
    server = servers["host1"]
    before = server.pid("node_exporter")
    with unit_of_root(server) if root else contextlib.nullcontext():
        accepted = ["node_exporter.unit_newer"] if root else []
        wanted = {"upgrade_versions": {"node_exporter": ESCAPER}, "upgrade_accept": accepted}
        played = play("upgrade", "-l", "host1", *arguments, code=2, **wanted)
    assert "node_exporter.flags_refused" in played.output
    assert "held: trace" in played.output
    assert "escaped: " not in played.output
    assert "6.6.6" not in played.output
    assert server.out("find / -xdev -name 'observability-escape*' 2>/dev/null || true") == ""
    assert server.pid("node_exporter") == before
