# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host whose Python is a wrapper that changes what modules answer: it harms itself alone, whatever playbook runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import typing as t

import pytest
from conftest import CHECKOUT, LAB, Data, Played, Server, play

LIAR, OTHERS = "host1", ["host2", "host3"]
WRAPPER = """#!/usr/bin/python3
import json, subprocess, sys
done = subprocess.run(["/usr/bin/python3", *sys.argv[1:]], stdout=subprocess.PIPE)
text = done.stdout.decode()
try:
    answer = json.loads(text)
except ValueError:
    answer = None
if answer is not None:
    scope = {"answer": answer, "text": text, "json": json}
    exec(open("/root/lie").read(), scope)
    text = scope["text"] if scope["text"] != text else json.dumps(answer)
sys.stdout.write(text)
sys.exit(done.returncode)
"""
OSC = "\x1b]52;c;ZXZpbA==\x07"
HASH = "0123456789abcdef" * 4
EXPORTER = {"node_exporter": "1.9.0"}
QUICK: Data = {"upgrade_overrides": {"node_exporter": {"probe_window": 3, "probe_timeout": 30}}}

LIES = {
    "a host in the inventory": "answer['add_host'] = {'host_name': 'evil', 'groups': ['upgrade_planned']}",
    "50 megabytes": "answer['components'] = 'x' * 50_000_000",
    "no JSON": f"text = 'no JSON' + {OSC!r}",
    "junk after it": f"answer['rc'] = '0'; text = json.dumps(answer) + chr(10) + {OSC!r} + chr(10)",
    "no number": "text = text[:-1].rstrip().rstrip('}') + ', \"rc\": NaN}'",
    "a name of a component": f"answer['components'][{OSC!r}] = answer['components']['node_exporter']",
    "a failure": f"answer.update(failed=True, msg='evil' + {OSC!r} + chr(10) + 'host9: all is well')",
}


@pytest.fixture(scope="module")
def liar(servers: dict[str, Server]) -> t.Iterator[Server]:
    server = servers[LIAR]
    server.out("printf '%%s' %s > /usr/local/sbin/liar && chmod 755 /usr/local/sbin/liar", WRAPPER)
    yield server
    server.out("rm -f /usr/local/sbin/liar /root/lie")


@pytest.fixture
def victims(tmp_path: pathlib.Path) -> pathlib.Path:
    """Files of the operator, which a host would like to change."""
    for path in ("bundle.tar", f"cache/sha256/{HASH}", "reports/status.json", "reports/check.json"):
        (tmp_path / "victims" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "victims" / path).write_text(path)
    return tmp_path / "victims"


def facts(victims: pathlib.Path) -> Data:
    return {
        "upgrade_bundle_dest": str(victims / "bundle.tar"),
        "upgrade_report_dir": str(victims / "reports"),
        "upgrade_cache_dir": str(victims / "cache"),
        "upgrade_cache_size": "1",
        "upgrade_waves": ["100%"],
        "upgrade_alertmanager": {"url": ["http://127.0.0.1:9"], "required": True},
        "__upgrade_carry_out": True,
    }


def seen(directory: pathlib.Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lying(server: Server, lie: str, tmp_path: pathlib.Path) -> list[str]:
    """Let the host lie. Returns what ansible-playbook must be given for it."""
    server.out("printf '%%s' %s > /root/lie", lie)
    interpreter = {"ansible_python_interpreter": "/usr/local/sbin/liar"}
    (tmp_path / "lying.json").write_text(json.dumps({"all": {"hosts": {LIAR: interpreter}}}))
    return ["-i", f"{LAB}/inventory", "-i", str(tmp_path / "lying.json")]


def lied(server: Server, playbook: str, lie: str, tmp_path: pathlib.Path, **variables: t.Any) -> Played:
    """A playbook with a host that lies. It must fail, name that host, and send no control character."""
    played = play(playbook, *lying(server, lie, tmp_path), code=2, **{**QUICK, **variables})
    control = {character for character in played.output if not character.isprintable() and character != "\n"}
    assert control == set()
    assert "host9: all is well" not in played.output.splitlines()
    assert played.recap[LIAR]["failed"] == 1
    assert "evil" not in played.recap
    return played


def is_named(played: Played) -> bool:
    """Whether the host's failure is told as that of a malformed answer."""
    return any("host.malformed_answer" in line for line in played.output.splitlines() if f"fatal: [{LIAR}]" in line)


@contextlib.contextmanager
def untouched(directory: pathlib.Path) -> t.Iterator[None]:
    before = seen(directory)
    yield
    assert seen(directory) == before


@pytest.mark.parametrize("what", LIES)
def test_an_answer_of_another_shape_fails_its_host_alone(liar: Server, tmp_path: pathlib.Path, what: str) -> None:
    played = lied(liar, "status", LIES[what], tmp_path)
    assert is_named(played) or what == "a failure"
    assert f"Left out, because they failed:\n  {LIAR}: " in played.output
    assert [row for row in played.output.splitlines() if row.startswith("host3 ") and "node_exporter" in row]
    assert all(played.recap[host]["failed"] == 0 for host in OTHERS)
    assert len(played.output) < 100_000


@pytest.mark.parametrize("playbook", ["check", "plan", "status", "verify", "unlock", "bundle"])
def test_facts_in_an_answer_set_no_variable(
    liar: Server, tmp_path: pathlib.Path, victims: pathlib.Path, playbook: str
) -> None:
    variables = {"upgrade_versions": EXPORTER} if playbook in ("plan", "bundle") else {}
    with untouched(victims):
        played = lied(liar, playbook, f"answer['ansible_facts'] = {facts(victims)!r}", tmp_path, **variables)
    assert is_named(played)
    assert all(played.recap[host]["failed"] == 0 for host in OTHERS)


def test_strings_of_a_valid_answer_are_escaped(liar: Server, tmp_path: pathlib.Path) -> None:
    lie = f"""
if 'services' in answer:
    for service in answer['services']:
        service.update(healthy=False, reason='bad' + {OSC!r} + chr(10) + 'host9: all is well')
        service.update(journal=[{OSC!r}, chr(0x202e)])
"""
    played = lied(liar, "verify", lie, tmp_path)
    assert "bad\\x1b]52;c;ZXZpbA==\\x07\\nhost9: all is well" in played.output
    assert "\\u202e" in played.output


def test_the_others_are_upgraded_restarted_and_rolled_back(
    liar: Server, servers: dict[str, Server], tmp_path: pathlib.Path, victims: pathlib.Path
) -> None:
    """The host answers well at first, and lies when it is asked whether it is ready, or when it restarts."""
    before = {host: servers[host].serves("node_exporter") for host in (LIAR, *OTHERS)}
    steered = f"answer['ansible_facts'] = {facts(victims)!r}"
    with untouched(victims):
        played = lied(liar, "upgrade", f"if 'baselines' in answer: {steered}", tmp_path, upgrade_versions=EXPORTER)
        assert is_named(played)
        assert [servers[host].serves("node_exporter") for host in OTHERS] == [EXPORTER["node_exporter"]] * 2
        assert servers[LIAR].serves("node_exporter") == before[LIAR]
        pids = {host: servers[host].pid("node_exporter") for host in OTHERS}
        assert is_named(lied(liar, "restart", steered, tmp_path, upgrade_only=["node_exporter"]))
        assert all(servers[host].pid("node_exporter") != pids[host] for host in OTHERS)
        assert is_named(lied(liar, "rollback", steered, tmp_path, upgrade_rollback_to="previous"))
    assert {host: servers[host].serves("node_exporter") for host in before} == before
    assert all(servers[host].is_at_rest() for host in OTHERS)


GATHER = """
- name: Read facts
  hosts: all
  gather_facts: true
  become: true
"""
GO_ON = """
- name: Go on
  ansible.builtin.import_playbook: {playbook}
"""


@pytest.fixture
def lying_facts(liar: Server, tmp_path: pathlib.Path, victims: pathlib.Path) -> list[str]:
    """A host whose facts set variables, as arguments of ansible-playbook."""
    lie = f"if 'ansible_facts' in answer: answer['ansible_facts'].update({facts(victims)!r})"
    return lying(liar, lie, tmp_path)


def is_stopped(played: Played) -> bool:
    """Whether the run ended before any host was read, and said why."""
    told = f"facts of hosts set variables of this collection: {LIAR} has __upgrade_carry_out, upgrade_"
    return told in played.output and "Read what is installed" not in played.output


@pytest.mark.parametrize(("playbook", "injected"), [("bundle", True), ("restart", True), ("status", False)])
def test_facts_from_an_earlier_play_stop_the_run(
    lying_facts: list[str],
    tmp_path: pathlib.Path,
    victims: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    playbook: str,
    injected: bool,
) -> None:
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", str(injected))
    site = tmp_path / "site.yml"
    site.write_text(GATHER + GO_ON.format(playbook=CHECKOUT / f"playbooks/{playbook}.yml"))
    with untouched(victims):
        assert is_stopped(play(str(site), *lying_facts, code=2, upgrade_versions=EXPORTER))


def test_facts_from_an_earlier_run_stop_the_run(
    lying_facts: list[str], tmp_path: pathlib.Path, victims: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN", "ansible.builtin.jsonfile")
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN_CONNECTION", str(tmp_path / "facts"))
    (tmp_path / "gather.yml").write_text(GATHER)
    play(str(tmp_path / "gather.yml"), *lying_facts)
    with untouched(victims):
        assert is_stopped(play("status", code=2))
