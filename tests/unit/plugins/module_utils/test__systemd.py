# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _files, _process, _systemd
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError
from ansible_collections.observability.stack.tests.unit.support import eventually

# As systemd 252 prints it.
SHOWN = """\
NRestarts=2
MainPID=0
Result=exit-code
ExecStart={ path=/usr/bin/prometheus-node-exporter ; argv[]=/usr/bin/prometheus-node-exporter $ARGS ; ignore_errors=no \
; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
Environment=GOMAXPROCS=2 "WITH=a space"
EnvironmentFiles=/etc/default/one (ignore_errors=yes)
EnvironmentFiles=/etc/default/two (ignore_errors=no)
TimeoutStopUSec=1min 30s
User=prometheus
LoadState=loaded
ActiveState=activating
SubState=auto-restart
FragmentPath=/lib/systemd/system/prometheus-node-exporter.service
DropInPaths=/etc/systemd/system/a.conf /etc/systemd/system/b.conf

NRestarts=0
MainPID=0
ExecStart=
LoadState=not-found
ActiveState=inactive
SubState=dead
FragmentPath=
DropInPaths=
"""


class Systemctl:
    """Answers as systemctl would, and keeps what was asked."""

    def __init__(self, *answers: Completed) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def __call__(self, argv: t.Sequence[str], **_options: t.Any) -> Completed:
        self.asked.append(list(argv))
        return self.answers.pop(0) if self.answers else Completed(0, "", "")


def shown() -> list[_systemd.Unit]:
    return _systemd.show(Systemctl(Completed(0, SHOWN, "")), ["prometheus-node-exporter", "node_exporter.service"])


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("prometheus", True),
        ("prometheus.service", True),
        ("loki.service", True),
        ("grafana", False),
        ("instance@main", True),
        ("instance@main.service", True),
        ("instance", False),
        ("other@main", False),
        ("prometheus@main", False),
    ],
)
def test_a_unit_exists_if_one_of_the_directories_has_its_file_or_its_template(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, there: bool
) -> None:
    for file in ("etc/prometheus.service", "etc/instance@.service", "lib/loki.service", "lib/grafana.socket"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    directories = (str(tmp_path / "nowhere"), str(tmp_path / "etc"), str(tmp_path / "lib"))
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", directories)
    assert _systemd.existing([name]) == [name] * there


def test_units_that_exist_keep_their_order(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.service").touch()
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", (str(tmp_path),))
    assert _systemd.existing(iter(["c", "x", "a"])) == ["c", "a"]


def test_show_asks_once_for_all_units() -> None:
    systemctl = Systemctl(Completed(0, SHOWN, ""))
    units = _systemd.show(systemctl, ["a", "b.service"])
    assert [unit.name for unit in units] == ["a.service", "b.service"]
    assert len(systemctl.asked) == 1
    assert systemctl.asked[0][-3:] == ["--", "a.service", "b.service"]


def test_show_reads_what_systemctl_prints() -> None:
    crashing, unknown = shown()
    assert crashing.is_loaded
    assert not crashing.is_running
    assert crashing.describe() == "activating/auto-restart, main pid 0, 2 restarts by systemd"
    assert crashing.environment_files() == ["/etc/default/one", "/etc/default/two"]
    assert crashing.files() == [
        "/lib/systemd/system/prometheus-node-exporter.service",
        "/etc/systemd/system/a.conf",
        "/etc/systemd/system/b.conf",
    ]
    assert not unknown.is_loaded
    assert unknown.files() == unknown.environment_files() == []


def test_a_host_without_systemd_is_refused_with_a_reason() -> None:
    with pytest.raises(HostError, match="only services that systemd runs can be upgraded") as failure:
        _systemd.show(Systemctl(Completed(None, "", "systemctl: No such file or directory")), ["a"])
    assert failure.value.key == "host.no_systemd"


def test_the_command_line_is_filled_in_from_settings_and_files_in_order() -> None:
    files = {
        "/etc/default/one": "ARGS='--one'\n",
        "/etc/default/two": 'ARGS="--web.listen-address=:9200 --b=${WITH}"\n',
    }
    unit = shown()[0]
    assert _systemd.environment_of(unit, lambda path: files[path]) == {
        "GOMAXPROCS": "2",
        "WITH": "a space",
        "ARGS": "--web.listen-address=:9200 --b=${WITH}",
    }
    assert _systemd.command_line(unit, lambda path: files.get(path, "")) == [
        "/usr/bin/prometheus-node-exporter",
        "--web.listen-address=:9200",
        "--b=${WITH}",
    ]


def test_what_runs_is_what_the_process_was_started_with() -> None:
    process = subprocess.Popen(["sleep", "60", "00"], stderr=subprocess.DEVNULL)
    try:
        path = shutil.which("sleep") or ""
        start = f"{{ path={path} ; argv[]={path} 61 0 ; ignore_errors=no ; }}"
        unit = shown()[0]._replace(main_pid=process.pid, properties={"ExecStart": start})
        eventually(lambda: _process.program_name(process.pid) == os.path.basename(os.path.realpath(path)))
        assert _systemd.command_line(unit, lambda _path: "") == [path, "60", "00"]
        assert _systemd.start_line(unit, lambda _path: "") == [path, "61", "0"]
    finally:
        process.kill()
        process.wait()
    assert _systemd.command_line(unit, lambda _path: "") == [path, "61", "0"]


UNIT_TEXT = """
[Service]
ExecStart=/bin/false
ExecStart=
ExecStart=@/opt/ne node_exporter --re=^/(sys|proc)($$|/) "--fs=^(tmpfs|my fs)$$" \\
  # the port
  --web.listen-address=${HOST}:9100 $MORE --name="%i x"
"""
STARTED = (
    "{ path=/opt/ne ; argv[]=node_exporter --re=^/(sys|proc)($$|/) --fs=^(tmpfs|my fs)$$ "
    "--web.listen-address=${HOST}:9100 $MORE --name=main x ; ignore_errors=no ; start_time=[n/a] }"
)


def test_what_will_be_started_has_the_words_of_the_text_and_the_specifiers_of_systemd() -> None:
    unit = shown()[0]._replace(
        main_pid=0, properties={"ExecStart": STARTED, "Environment": "HOST=::1 \"MORE=--a '--b c'\""}
    )
    unit.properties["FragmentPath"] = "/unit"
    assert _systemd.start_line(unit, {"/unit": UNIT_TEXT}.__getitem__) == [
        *("/opt/ne", "--re=^/(sys|proc)($|/)", "--fs=^(tmpfs|my fs)$", "--web.listen-address=::1:9100"),
        *("--a", "--b c", "--name=main x"),
    ]


def test_a_unit_that_was_changed_and_not_reloaded_is_started_as_systemd_has_it() -> None:
    unit = shown()[0]._replace(main_pid=0, properties={"ExecStart": STARTED, "FragmentPath": "/unit"})
    text = UNIT_TEXT.replace("9100", "9200")
    assert _systemd.start_line(unit, lambda _path: text)[3] == "fs)$"


def test_a_program_without_a_path_is_found_where_systemd_looks_for_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ne").touch()
    start = "{ path=ne ; argv[]=ne --a ; ignore_errors=no ; }"
    unit = shown()[0]._replace(main_pid=0, properties={"ExecStart": start, "ExecSearchPath": f"/nowhere {tmp_path}"})
    assert _systemd.start_line(unit, lambda _path: "") == [f"{tmp_path}/ne", "--a"]
    gone = unit._replace(properties={"ExecStart": start})
    assert _systemd.start_line(gone, lambda _path: "") == ["ne", "--a"]


def test_what_will_be_started_has_the_arguments_of_files() -> None:
    start = "{ path=/x ; argv[]=/x @args --b ; ignore_errors=no ; }"
    unit = shown()[0]._replace(main_pid=0, properties={"ExecStart": start, "WorkingDirectory": "!/srv"})
    assert _systemd.start_line(unit, lambda path: {"/srv/args": "--a\n"}.get(path, "")) == ["/x", "--a", "--b"]


def test_of_several_commands_the_one_of_the_program_counts() -> None:
    start = "\n".join(
        f"{{ path={path} ; argv[]={path} --a ; ignore_errors=no ; }}" for path in ("/bin/mkdir", "/opt/ne")
    )
    unit = shown()[0]._replace(main_pid=0, properties={"ExecStart": start})
    assert _systemd.start_line(unit, lambda _path: "", names=["ne"]) == ["/opt/ne", "--a"]
    assert _systemd.start_line(unit, lambda _path: "") == ["/bin/mkdir", "--a"]


def test_variables_come_from_files_of_a_pattern_and_from_systemd_and_may_be_unset(tmp_path: pathlib.Path) -> None:
    (tmp_path / "1.env").write_text("A=1\nB=1\n")
    (tmp_path / "2.env").write_text("B='two\nlines'\n")
    properties = {
        "ExecStart": "{ path=/x ; argv[]=/x ${A} ${B} ${D} ; ignore_errors=no ; }",
        "EnvironmentFiles": f"{tmp_path}/*.env (ignore_errors=yes)\n/nowhere.env (ignore_errors=yes)",
        "UnsetEnvironment": "C E=other",
        "Environment": "C=3 E=5",
    }
    unit = shown()[0]._replace(main_pid=0, properties=properties)
    read = _files.read_text
    assert _systemd.environment_of(unit, read) == {"A": "1", "B": "two\nlines", "E": "5"}
    systemctl = Systemctl(Completed(0, "D=$'4'\nA=9\n", ""))
    assert _systemd.start_line(unit, read, run=systemctl) == ["/x", "1", "two\nlines", "4"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1min 30s", 90),
        ("10min", 600),
        ("500ms", 0.5),
        ("1h 1min 1.5s", 3661.5),
        ("infinity", 3600),
        ("", 90),
        ("soon", 90),
        ("1d", 86400),
    ],
)
def test_the_stop_timeout_is_read_as_systemctl_shows_it(text: str, seconds: float) -> None:
    unit = shown()[0]._replace(properties={"TimeoutStopUSec": text})
    assert _systemd.stop_timeout(unit) == seconds


@pytest.mark.parametrize(
    ("timeout", "sends_sigkill", "seconds"),
    [("1min 30s", "yes", 100), ("1min 30s", "no", 85), ("2s", "no", 1.5), ("infinity", "no", 3595), ("2s", None, 12)],
)
def test_what_does_not_stop_is_killed_before_systemd_starts_another_beside_it(
    timeout: str, sends_sigkill: str | None, seconds: float
) -> None:
    unit = shown()[0]._replace(properties={"TimeoutStopUSec": timeout, "SendSIGKILL": sends_sigkill or ""})
    assert _systemd.stop_patience(unit) == seconds


def test_a_job_that_takes_long_is_joined_and_not_begun_anew() -> None:
    stopping = Completed(0, SHOWN.replace("ActiveState=activating", "ActiveState=deactivating"), "")
    systemctl = Systemctl(Completed(0, "", ""), Completed(None, "", "no answer"), stopping)
    assert _systemd.restart(systemctl, shown()[0], timeout=10, patience=1) is True
    assert systemctl.asked[1:2] + systemctl.asked[3:] == [
        ["systemctl", "restart", "--", "prometheus-node-exporter.service"],
        ["systemctl", "kill", "--kill-who=all", "--signal=SIGKILL", "--", "prometheus-node-exporter.service"],
        ["systemctl", "start", "--", "prometheus-node-exporter.service"],
    ]


def test_restart_is_not_stopped_by_a_start_limit_and_reloads_only_when_told() -> None:
    systemctl = Systemctl()
    _systemd.restart(systemctl, shown()[0], timeout=10)
    assert [argv[1] for argv in systemctl.asked] == ["reset-failed", "restart"]
    systemctl = Systemctl()
    _systemd.restart(systemctl, shown()[0], timeout=10, reload=True)
    assert [argv[1] for argv in systemctl.asked] == ["reset-failed", "daemon-reload", "restart"]


def test_a_restart_that_fails_shows_the_journal() -> None:
    line = json.dumps({"MESSAGE": "bad flag", "SYSLOG_IDENTIFIER": "node_exporter"})
    systemctl = Systemctl(Completed(0, "", ""), Completed(1, "", "Job failed.\n"), Completed(0, line, ""))
    with pytest.raises(HostError, match=r"couldn't restart prometheus-node-exporter.service: Job failed\.") as failure:
        _systemd.restart(systemctl, shown()[0], timeout=10)
    assert failure.value.details == {"journal": ["node_exporter: bad flag"]}


def test_the_journal_is_read_without_secrets_and_with_bytes() -> None:
    lines = [
        {"MESSAGE": "scraping http://u:geheim@h/", "SYSLOG_IDENTIFIER": "x"},
        {"MESSAGE": list("ünder".encode()), "SYSLOG_IDENTIFIER": "x"},
        {"MESSAGE": "no name"},
    ]
    asked: list[str] = []

    def journalctl(argv: list[str], **_options: t.Any) -> Completed:
        asked.extend(argv)
        shown = [*map(json.dumps, lines), "no json"]
        return Completed(0, "\n".join(reversed(shown) if "--reverse" in argv else shown) + "\n", "")

    tail = _systemd.journal_tail(journalctl, "x.service", since=1000.4)
    assert tail == ["x: scraping http://u:********@h/", "x: ünder", "?: no name"]
    assert "--since=@1000" in asked


def test_a_unit_s_secrets_are_known_from_all_that_it_was_given(tmp_path: pathlib.Path) -> None:
    files = {
        "x.yml": "basic_auth: {username: u, password_file: own.password}\nurl: https://h.example/canary-url\n",
        "own.password": "canary-file\n",
        "more.ini": "admin_password = canary-ini\n",
        "x.env": "DB_PASSWORD=canary-environment\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    shown = (
        f"ExecStart={{ path=/usr/bin/x ; argv[]=/usr/bin/x --config.file={tmp_path}/x.yml --token=canary-flag $ARGS "
        f"; ignore_errors=no ; pid=0 }}\nEnvironment=ARGS=--api-key=canary-args API_TOKEN=canary-variable\n"
        f"EnvironmentFiles={tmp_path}/x.env (ignore_errors=no)\nLoadState=loaded\n"
    )
    (unit,) = _systemd.show(Systemctl(Completed(0, shown, "")), ["x"])
    secrets = _systemd.secrets_of(unit, files=[f"{tmp_path}/more.ini", None])
    assert {
        *("//h.example/canary-url", "canary-file", "canary-ini", "canary-environment", "canary-flag", "canary-args"),
        "canary-variable",
    } <= {*secrets}

    messages = ["-----BEGIN PRIVATE KEY-----", "aGVsbG8=", "-----END PRIVATE KEY-----", "it says canary-file, and ends"]
    lines = [json.dumps({"MESSAGE": each, "SYSLOG_IDENTIFIER": "x"}) for each in reversed(messages)]
    tail = _systemd.journal_tail(Systemctl(Completed(0, "\n".join(lines), "")), "x", secrets=secrets)
    assert tail == ["x: ********", "x: it says ********, and ends"]


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/var/lib/x", "/var/lib/x"),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ("a b", '"a b"'),
        ("it's", '"it\'s"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\\b", "a\\\\b"),
    ],
)
def test_a_word_is_quoted_as_unit_files_want_it(word: str, quoted: str) -> None:
    assert _systemd.quote(word) == quoted


@pytest.mark.parametrize(
    ("shown", "version"),
    [
        ("Version=252.39-1~deb12u2\n", 252),
        ("Version=v255\n", 255),
        ("Version=systemd 241\n", 241),
        ("Version=\n", 0),
        ("", 0),
        ("Version=" + "9" * 99, 99999),
    ],
)
def test_the_version_of_systemd(shown: str, version: int) -> None:
    assert _systemd.version(lambda argv, **options: Completed(0, shown, "")) == version
