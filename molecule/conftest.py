# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at the lab's hosts from the outside, over SSH, and running playbooks against them as an operator does."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import typing as t

import pytest
import testinfra

if t.TYPE_CHECKING:
    from testinfra.host import Host

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
LAB = CHECKOUT / (os.environ.get("LAB") or ".lab")
STATE_DIR = "/var/lib/observability-upgrades"
PORTS = {
    "node_exporter": 9100,
    "alertmanager": 9093,
    "prometheus": 9090,
    "blackbox_exporter": 9115,
    "pushgateway": 9091,
    "mysqld_exporter": 9104,
}
QUESTION = "anything else ends the run here"
Data = dict[str, t.Any]

# Where colour is wanted of Molecule, it forces Ansible to it, whatever ANSIBLE_NOCOLOR says.
SETTINGS = {
    "ANSIBLE_CONFIG": str(CHECKOUT / "tests/lab/ansible.cfg"),
    "ANSIBLE_INVENTORY": str(LAB / "inventory"),
    "ANSIBLE_FORCE_COLOR": "0",
    "COLUMNS": "500",
}


class Played(t.NamedTuple):
    """What became of a run of ansible-playbook."""

    code: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The figures of each host: changed, failed, rescued, ..."""
        rows = re.findall(r"^(\S+) +: (ok=.*)$", self.output, re.MULTILINE)
        assert rows or "no hosts matched" in self.output, f"no recap:\n{self.output}"
        return {host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)} for host, row in rows}

    @property
    def changed(self) -> int:
        return sum(row["changed"] for row in self.recap.values())


class Run:
    """A run of ansible-playbook, in a process group of its own."""

    def __init__(
        self,
        playbook: str,
        *arguments: str,
        collections: pathlib.Path | None = None,
        settings: dict[str, str] | None = None,
        under: t.Sequence[str] = (),
        **variables: t.Any,
    ) -> None:
        """Start it.

        :param collections: where the collection is installed; otherwise it is the checkout's.
        :param settings: Ansible's own settings as environment variables, beside those of the lab.
        :param under: the command that runs C(ansible-playbook), if that isn't run directly.
        """
        path = playbook if "/" in playbook or playbook.count(".") > 1 else f"playbooks/{playbook}.yml"
        settings = {**SETTINGS, **(settings or {})}
        if collections:
            settings["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
        # Not a pipe: while nobody reads it, a full one holds the run up.
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  # until the end of the run
        self._process = subprocess.Popen(
            [*under, "ansible-playbook", path, *arguments, "--extra-vars", json.dumps(variables)],
            cwd=collections or CHECKOUT,
            env={**os.environ, **settings},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, *args: object) -> None:
        self.kill()
        if kind:  # pytest shows it beside the failure
            print(self._read())
        self._output.close()

    def kill(self) -> None:
        """End it and all its workers at once, as a machine's death does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Hold it and all its workers up, until C(go_on)."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> Played:
        return Played(self._process.wait(timeout=1800), self._read())

    def _read(self) -> str:
        self._output.seek(0)
        return self._output.read()


class Answering:
    """A run of ansible-playbook at a terminal, where somebody answers what it asks."""

    def __init__(
        self,
        playbook: str,
        *arguments: str,
        answers: t.Sequence[str | t.Callable[[], str]],
        settings: dict[str, str] | None = None,
        **variables: t.Any,
    ) -> None:
        """Start it.

        :param answers: what is answered, or what gives the answer.
        :param settings: as for C(Run).
        """
        self._answers = answers
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(CHECKOUT)
            os.environ.update({**SETTINGS, **(settings or {})})
            command = [
                "ansible-playbook",
                f"playbooks/{playbook}.yml",
                *arguments,
                "--extra-vars",
                json.dumps(variables),
            ]
            os.execvp(command[0], command)  # noqa: S606  # the shell is what is left out

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *args: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.close(self._terminal)

    def end(self) -> Played:
        output, asked, ended = "", 0, (0, 0)
        while not ended[0]:
            ready = select.select([self._terminal], [], [], 2)[0]
            if ready:
                try:
                    output += os.read(self._terminal, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    ended = os.waitpid(self._pid, 0)
            else:  # connections that are kept open have the terminal, too, so that its end isn't that of the run
                ended = os.waitpid(self._pid, os.WNOHANG)
            asked = self._answer(output, asked, waited=not ready)
        return Played(os.waitstatus_to_exitcode(ended[1]), output.replace("\r\n", "\n"))

    def _answer(self, output: str, asked: int, *, waited: bool) -> int:
        """Answer the next question; the last one again if nothing came of it: Ansible drops what is typed too early.

        Returns how many were answered.
        """
        questions = output.count(QUESTION)
        lost = waited and questions == asked and "[host" not in output.rpartition(QUESTION)[2]
        if 0 < questions <= len(self._answers) and (questions > asked or lost):
            answer = self._answers[questions - 1]
            os.write(self._terminal, f"{answer() if callable(answer) else answer}\r".encode())
        return questions


def play(playbook: str, *arguments: str, code: int = 0, **variables: t.Any) -> Played:
    """Run a playbook to its end.

    :param playbook: the name of one of the collection's, a path, or a name with dots.
    :param code: the exit code that it must have.
    """
    with Run(playbook, *arguments, **variables) as run:
        played = run.end()
    assert played.code == code, f"exit code {played.code}:\n{played.output}"
    return played


class Server:
    """One host of the lab."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host: Host = testinfra.get_host(f"ssh://{name}?ssh_config={LAB}/ssh_config&sudo=true")

    def out(self, command: str, *arguments: str) -> str:
        return str(self.host.check_output(command, *arguments))

    def await_state(self, name: str, state: str, *, then: str = "true", within: int = 300) -> None:
        """Wait until the host's record says that a component is in a state. It looks a hundred times a second.

        :param then: a command of the shell that runs there at once. From here it could be too late on a busy machine.
        :param within: seconds. It is long, because a machine may be busy: where all is well, nobody waits for its end.
        """
        path = f"{STATE_DIR}/state.json"
        awaited = self.host.run(f"timeout {within} python3 -c %s %s %s %s && {{\n{then}\n}}", _AWAIT, path, name, state)
        if awaited.rc == _TIMED_OUT:
            found = self.host.run("date --utc; cat %s", path).stdout
            pytest.fail(f"{name} isn't {state} on {self.name} after {within} s: {found}")
        assert awaited.rc == 0, awaited.stderr or awaited.command

    def state(self) -> Data:
        return t.cast("Data", json.loads(self.out("cat %s", f"{STATE_DIR}/state.json")))

    def component(self, name: str) -> Data:
        return t.cast("Data", self.state()["components"][name])

    def get(self, url: str) -> str:
        """What the host gets from a URL."""
        return self.out("python3 -c %s %s", _GET, url)

    def serves(self, name: str) -> str:
        """The version that a component's metrics tell."""
        metrics = self.get(f"http://127.0.0.1:{PORTS[name]}/metrics")
        found = re.search(rf'^{name}_build_info\{{.*\bversion="([^"+]+)', metrics, re.MULTILINE)
        assert found, metrics[:2000]
        return found[1]

    def on_disk(self, name: str) -> str:
        """The version that the file tells."""
        found = re.search(r"version (\d+\.\d+\.\d+)", self.out(f"/usr/local/bin/{name} --version 2>&1"))
        assert found
        return found[1]

    def pid(self, name: str) -> int:
        return int(self.out("systemctl show --property=MainPID --value %s", name))

    def is_healthy(self, name: str, version: str) -> bool:
        """Whether a component runs the file that is there, in this version, and answers."""
        shown = self.out("systemctl is-active %s || true", name)
        same = self.out(f"cmp /proc/{self.pid(name)}/exe /usr/local/bin/{name} && echo same || true")
        return (shown, same, self.on_disk(name), self.serves(name)) == ("active", "same", version, version)

    def is_at_rest(self) -> bool:
        """Whether nothing is under way: no lease, nothing staged, nothing left of a guard."""
        lease = self.out(f"cat {STATE_DIR}/upgrade.lock")
        units = self.out("systemctl list-units --all --plain --no-legend 'observability-upgrade-*'")
        files = self.out(
            f"find {STATE_DIR}/staging/* {STATE_DIR}/pending/* /etc/systemd/system/*.d/observability-* || true"
        )
        return '"upgrade_id"' not in lease and (units, files) == ("", "")

    def snapshot(self) -> str:
        """All that an upgrade may touch: files with owner, mode, time, inode and content, and the processes."""
        files = f"find /usr/local/bin /etc/systemd/system /etc/prometheus /etc/alertmanager {STATE_DIR} 2>/dev/null"
        listing = self.out(f"{files} | sort | xargs stat --format='%n %A %U %G %Y %i %s'")
        content = self.out(f"{files} -type f | sort | xargs sha256sum")
        pids = [f"{name} {self.pid(name)}" for name in PORTS]
        return "\n".join([listing, content, *pids])


_GET = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=30).read().decode())"

_TIMED_OUT = 124  # what timeout ends with
_AWAIT = """
import json, sys, time
path, name, state = sys.argv[1:]
while True:
    try:
        if json.load(open(path))["components"][name]["state"] == state:
            break
    except (OSError, KeyError):
        pass
    time.sleep(0.01)
"""


@pytest.fixture(scope="session")
def inventory() -> Data:
    return t.cast("Data", json.loads((LAB / "inventory/hosts.json").read_text())["all"])


@pytest.fixture(scope="session")
def servers(inventory: Data) -> dict[str, Server]:
    return {name: Server(name) for name in inventory["hosts"]}


@pytest.fixture(scope="session")
def versions(inventory: Data) -> dict[str, list[str]]:
    """The versions of each program that the mirror has, oldest first."""
    return t.cast("dict[str, list[str]]", inventory["vars"]["lab_versions"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the tests that are rows of a table: what each expects, and whether that came."""
    rows = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(report.user_properties)
            if report.when == "call" and "result" in properties:
                rows.append((report.nodeid.partition("[")[2].rstrip("]"), properties["result"], outcome))
    if rows:
        terminalreporter.section("table")
    width = max((len(row[0]) for row in rows), default=0)
    for name, result, outcome in rows:
        terminalreporter.write_line(f"{name:{width}}  {result:50}  {outcome}")
