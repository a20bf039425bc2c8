# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What several tests need: a systemd that is scripted, an HTTP server that is real, and looking at whole trees."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import stat
import struct
import subprocess
import tarfile
import threading
import time
import types
import typing as t

from ansible_collections.observability.stack.plugins.module_utils import _command, _process, _processes
from ansible_collections.observability.stack.plugins.module_utils._command import Completed

Data = dict[str, t.Any]
Call = t.Callable[..., Data]
RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1"}
OTHER_RUN = {"upgrade_id": "u2", "user": "eve", "controller": "c2"}
# VFS_CAP_REVISION_2 with cap_net_raw permitted and effective, as setcap writes it (linux/capability.h).
CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
# Only root may give files away and give them capabilities. Tests of anybody else do it with what they may.
OWNER = (12, 34) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
CAPABILITY = "security.capability" if os.geteuid() == 0 else "user.capability"


class Systemd:
    """A host's systemd. Answers for systemctl, journalctl and the package manager; anything else really runs.

    ``units`` holds the properties of each unit, or a function that gives them anew at every look. ``asked`` keeps every
    command line that it answered, with what was in environment files filled in; C(as_systemd_sees). ``broken`` is what
    it says where there is none.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.units: dict[str, Data | t.Callable[[], Data]] = {}
        self.journal: dict[str, list[str]] = {}
        self.owned: dict[str, str] = {}
        self.asked: list[list[str]] = []
        self.broken = ""
        self.on_restart: t.Callable[[str], Completed] = lambda unit: Completed(0, "", "")
        self.on_reload: t.Callable[[str], Completed] = lambda unit: Completed(0, "", "")
        self.on_kill: t.Callable[[str], object] = lambda unit: None
        self.on_run: t.Callable[[list[str]], Completed] = _ran_alone

    def add(self, name: str, *argv: str, pid: int = 0, active: str = "", **properties: t.Any) -> None:
        """A unit with a file. It runs if it has a process."""
        words = " ".join(argv)
        (self.directory / name).write_text(f"[Service]\nExecStart={words}\n", encoding="utf-8")
        os.utime(self.directory / name, (1e9, 1e9))  # long before its process started
        self.units[name] = {
            "LoadState": "loaded",
            "ActiveState": active or ("active" if pid else "inactive"),
            "SubState": "running" if pid else "dead",
            "Result": "success",
            "MainPID": pid,
            "NRestarts": 0,
            "FragmentPath": self.directory / name,
            "ExecStart": f"{{ path={argv[0]} ; argv[]={words} ; ignore_errors=no ; start_time=[n/a] }}" if argv else "",
            **properties,
        }

    def look(self, name: str) -> Data:
        properties = self.units.get(name, {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"})
        return properties() if callable(properties) else properties

    def commands(self, *words: str) -> list[list[str]]:
        """What was asked, of command lines that begin so."""
        return [argv for argv in self.asked if argv[: len(words)] == list(words)]

    def __call__(self, argv: t.Sequence[str], **options: t.Any) -> Completed:
        answer = {
            "systemctl": self._systemctl,
            "systemd-run": self.on_run,
            "journalctl": self._journalctl,
            "dpkg-query": self._dpkg,
            "rpm": lambda words: Completed(1, "", "not owned"),
        }.get(os.path.basename(argv[0]))
        if answer is None:
            return _command.run(argv, **options)
        seen = as_systemd_sees(argv)
        self.asked.append(seen)
        return answer(seen)

    def _systemctl(self, argv: list[str]) -> Completed:
        if self.broken:
            return Completed(1, "", self.broken)
        names = argv[argv.index("--") + 1 :] if "--" in argv else []
        if argv[1] == "restart":
            return self.on_restart(names[0])
        if argv[1] == "reload":
            return self.on_reload(names[0])
        if argv[1] == "kill":
            self.on_kill(names[0])
        if argv[1] != "show":
            return Completed(0, "", "")
        blocks = ("".join(f"{key}={value}\n" for key, value in self.look(name).items()) for name in names)
        return Completed(0, "\n".join(blocks), "")

    def _journalctl(self, argv: list[str]) -> Completed:
        unit = next(word.partition("=")[2] for word in argv if word.startswith("--unit="))
        unit = unit if unit.endswith(".service") else f"{unit}.service"
        entries = [{"SYSLOG_IDENTIFIER": unit, "MESSAGE": line} for line in self.journal.get(unit, [])]
        if "--reverse" in argv:
            entries.reverse()
        return Completed(0, "\n".join(map(json.dumps, entries)), "")

    def _dpkg(self, argv: list[str]) -> Completed:
        found = [f"{self.owned[path]}: {path}" for path in argv if path in self.owned]
        return Completed(0 if found else 1, "\n".join(found), "")


def as_systemd_sees(argv: t.Sequence[str]) -> list[str]:
    """The command line of systemd-run as if it had no environment files of its own: their variables are C(--setenv),
    and what of the command only refers to them is filled in. All other command lines are what they are."""
    if "--" not in argv or os.path.basename(argv[0]) != "systemd-run":
        return list(argv)
    options, command = list(argv[: argv.index("--")]), argv[argv.index("--") + 1 :]
    own = [word for word in options if re.match(r"--property=EnvironmentFile=.*/observability-sandbox-", word)]
    environment: dict[str, str] = {}
    for word in own:
        environment.update(_assignments(pathlib.Path(word.partition("File=")[2]).read_text(encoding="utf-8")))
    referred = {word[2:-1] for word in command if word.startswith("${") and own}
    words = [environment.get(word[2:-1], word) for word in command if word not in {f"-u{name}" for name in referred}]
    shown = [f"--setenv={name}={value}" for name, value in environment.items() if name not in referred]
    return [*(word for word in options if word not in own), *shown, "--", *words]


def without_sandbox(argv: list[str]) -> Completed:
    """What systemd-run says of a program that it is to run to its end. The program runs for real, but in no sandbox:
    systemd isn't there in unit tests."""
    binds = (re.fullmatch(r'--property=BindReadOnlyPaths="(.*)":"(.*)"', word) for word in argv)
    real = {bind.group(2): bind.group(1) for bind in binds if bind}
    limit = next(float(word.rpartition("=")[2][:-1]) for word in argv if word.startswith("--property=RuntimeMaxSec="))
    command = argv[argv.index("--") + 2 :]
    settings = (word.partition("=")[2].partition("=") for word in argv if word.startswith("--setenv="))
    environment = {name: value for name, _equals, value in settings}
    done = _command.run([real.get(command[0], command[0]), *command[1:]], env=environment, timeout=limit)
    if done.rc is None and "no answer" in done.err:
        return Completed(1, "", "Running as unit: x.service\nFinished with result: timeout\n")
    status = 203 if done.rc is None else 255 if done.rc < 0 else done.rc
    result = "success" if not status else "exit-code" if status < 255 else "signal"
    return Completed(status, done.out, f"Running as unit: x.service\n{done.err}Finished with result: {result}\n")


def _assignments(text: str) -> dict[str, str]:
    """Of an environment file in which all values are quoted, as C(_sandbox) writes it."""
    quoted = re.findall(r'^(\w+)="((?:[^"\\]|\\.)*)"$', text, re.MULTILINE)
    return {name: re.sub(r'\\(["\\`$])', r"\1", value) for name, value in quoted}


def _ran_alone(argv: list[str]) -> Completed:
    """A program that is asked something really runs. Of what is started and left alone it is only said that it was."""
    return without_sandbox(argv) if "--pipe" in argv else Completed(0, "", "")


class Answer(t.NamedTuple):
    """What a server says. ``length`` is what it announces, if that isn't what it sends."""

    body: bytes = b""
    status: int = 200
    headers: t.Mapping[str, str] = types.MappingProxyType({})
    length: int | None = None


class Web:
    """A real HTTP server on this machine. ``answers`` by path, also as a function; ``asked`` is what came in,
    ``posted`` what came with it, and ``logins`` who asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | t.Callable[[], Answer]] = {}
        self.asked: list[str] = []
        self.posted: list[str] = []
        self.logins: list[str | None] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                web.logins.append(self.headers.get("Authorization"))
                answer = web.answers.get(self.path, Answer(b"no such page", 404))
                answer = answer() if callable(answer) else answer
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "Transfer-Encoding" not in answer.headers:
                    self.send_header("Content-Length", str(answer.length or len(answer.body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(answer.body)

            def do_POST(self) -> None:
                web.posted.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.do_GET()

            def log_message(self, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @contextlib.contextmanager
    def serving(self) -> t.Iterator[Web]:
        self._thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()


def write_program(path: pathlib.Path, version: str = "2.42.0", *, prints: str | None = None) -> pathlib.Path:
    """A program that tells a version when it is asked for it, and otherwise runs until its input ends.

    :param prints: the shell command that tells it, if it is to be told in another way.
    """
    tells = prints or f"echo '{path.name}, version {version} (branch: HEAD)'"
    path.parent.mkdir(parents=True, exist_ok=True)
    replaced = path.with_name(f".{path.name}.new")
    replaced.write_text(f'#!/bin/sh\ncase "$*" in -version | --version) {tells}; exit ;; esac\necho up\nread -r line\n')
    replaced.chmod(0o755)
    replaced.rename(path)
    return path


def elf_program(text: str, *, status: int = 0, hangs: bool = False) -> bytes:
    """The smallest ELF program for this machine that prints a text when it has an argument, and otherwise says C(up)
    and reads a line; with C(hangs) it does that with an argument, too.

    It is one segment: header, code, texts. The code is that of x86-64, as it is on all machines that run these tests.
    """
    assert os.uname().machine == "x86_64", "write its code for this machine"
    said = text.encode()
    write = b"\xb8\x01\0\0\0\xbf\x01\0\0\0\x48\x8d\x35%s\xba%s\x0f\x05"  # write(1, rip + %s, %s)
    leave = b"\xbf%s\xb8\x3c\0\0\0\x0f\x05"  # exit(%s)
    read = b"\x31\xc0\x31\xff\x48\x89\xe6\xba\x01\0\0\0\x0f\x05"  # read(0, rsp, 1)
    none = bytes(4)
    idle_length = len(write % (none, none)) + len(read) + len(leave % none)
    least = b"\x7f" if hangs else b"\x02"
    jump = b"\x48\x8b\x04\x24\x48\x83\xf8" + least + b"\x7d" + bytes([idle_length])  # if argc >= least
    print_at, start = len(jump) + idle_length, 64 + 56
    code_length = print_at + len(write % (none, none)) + len(leave % none)
    up = code_length - len(jump) - 17  # where the text is, seen from behind the instruction that names it
    out = code_length + 3 - print_at - 17
    code = jump + write % (up.to_bytes(4, "little"), (3).to_bytes(4, "little")) + read + leave % none
    code += write % (out.to_bytes(4, "little"), len(said).to_bytes(4, "little"))
    code += leave % status.to_bytes(4, "little")
    content = code + b"up\n" + said
    base, size = 0x400000, start + len(content)
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + content


def write_elf(path: pathlib.Path, version: str = "2.42.0", **options: t.Any) -> pathlib.Path:
    """An ELF program that tells a version when it has an argument; see C(elf_program)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replaced = path.with_name(f".{path.name}.new")
    replaced.write_bytes(elf_program(f"{path.name}, version {version} (branch: HEAD)\n", **options))
    replaced.chmod(0o755)
    replaced.rename(path)
    return path


def write_archive(path: pathlib.Path, **files: str | bytes) -> pathlib.Path:
    """A gzipped tar archive as releases are: files in one directory, that is named like the archive."""
    with tarfile.open(path, mode="w:gz") as bundle:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            content = text.encode() if isinstance(text, str) else text
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return path


@contextlib.contextmanager
def running(*argv: str | pathlib.Path) -> t.Iterator[int]:
    """The process of a program that says something as soon as it runs, as a pid."""
    process = subprocess.Popen(list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def own_processes(read: t.Callable[[], list[_processes.Process]]) -> list[_processes.Process]:
    """Of all processes those that this one has started, and what they have started."""
    found, own = read(), {os.getpid()}
    while more := {each.pid for each in found if each.parent in own} - own:
        own |= more
    return [each for each in found if each.pid in own - {os.getpid()}]


def directory_of_a_stranger(path: pathlib.Path) -> pathlib.Path:
    """A directory that belongs to somebody else."""
    if os.geteuid() != 0:
        return pathlib.Path("/usr")
    path.mkdir()
    os.chown(path, 12345, 12345)
    return path


def eventually(condition: t.Callable[[], t.Any], *, within: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.005)


def outlive_the_tick(pid: int) -> None:
    """Wait until a file that is written now is seen to be younger than a process: the kernel's clocks have ticks."""
    eventually(lambda: time.time() > _process.started(pid) + 4 * _process._TICK)


def at(seconds: float) -> dict[str, t.Any]:
    """Both clocks of a session of the state, or of a watchdog, that stand at a time."""
    return {"clock": lambda: seconds, "uptime": lambda: seconds}


def later(seconds: float) -> dict[str, t.Any]:
    """The same, so many seconds from now."""
    now, uptime = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    return {"clock": lambda: now + seconds, "uptime": lambda: uptime + seconds}


def snapshot(*roots: pathlib.Path | str) -> dict[str, tuple[t.Any, ...]]:
    """All that is in some trees: kind, mode, owner, inode and content of each path."""
    seen = {}
    for root in map(pathlib.Path, roots):
        for path in sorted([root, *root.rglob("*")]) if root.exists() else []:
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else ""
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            seen[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, content)
    return seen


def message_of(warning: t.Any) -> str:
    """A module's warning: a text, or since ansible-core 2.20 an event with one."""
    return warning if isinstance(warning, str) else json.dumps(warning)


def sha256(path: pathlib.Path | str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
