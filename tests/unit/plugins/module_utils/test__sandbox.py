# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command lines as text. What they do is seen on hosts with a systemd: molecule/gates and molecule/hostile."""

from __future__ import annotations

import os
import pathlib
import stat
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _sandbox
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.tests.unit.support import Systemd, as_systemd_sees

# As systemd 252 shows them.
PROPERTIES = {
    "User": "daemon",
    "Group": "daemon",
    "SupplementaryGroups": "adm ssl-cert",
    "DynamicUser": "no",
    "Environment": 'GOMAXPROCS=2 "NAME=two words and $HOME %n"',
    "EnvironmentFiles": "/etc/default/a (ignore_errors=no)\n/etc/default/b (ignore_errors=yes)",
    "WorkingDirectory": "!/srv",
    "AmbientCapabilities": "cap_net_raw",
    "CapabilityBoundingSet": "cap_net_raw",
    "UMask": "0022",
    "MemoryMax": "infinity",
    "LimitNOFILE": "524288",
    "LimitNOFILESoft": "1024",
}
PROGRAMS = {"prometheus": "/var/lib/o/staging/x/prometheus", "promtool": '/a "b:c/promtool'}
ALL = "cap_sys_admin cap_dac_override cap_net_raw cap_kill cap_sys_ptrace cap_mknod"


class Recorder:
    """A host whose systemd is of some version. It keeps each command line of systemd-run as it is, and as systemd
    sees it."""

    def __init__(self, version: str = "252.39-1~deb12u2", answer: Completed | None = None) -> None:
        self.version, self.answer = version, answer or Completed(0, "", "Finished with result: success\n")
        self.bare: list[str] = []
        self.argv: list[str] = []
        self.files: dict[str, tuple[int, int]] = {}

    def __call__(self, argv: t.Sequence[str], **options: t.Any) -> Completed:
        if argv[0] == "systemctl":
            return Completed(0, f"Version={self.version}\n", "")
        self.bare, self.argv, self.options = list(argv), as_systemd_sees(argv), options
        for word in argv:
            path = pathlib.Path(word.rpartition("=")[2])
            if "observability-sandbox-" in word:
                modes = (path.stat().st_mode, path.parent.stat().st_mode)
                self.files[str(path)] = (stat.S_IMODE(modes[0]), stat.S_IMODE(modes[1]))
        return self.answer

    @property
    def settings(self) -> list[str]:
        options = self.argv[: self.argv.index("--")]
        return [word.partition("=")[2] for word in options if word.startswith("--property=")]


def made(properties: dict[str, str] | None = None, **options: t.Any) -> _sandbox.Sandbox:
    return _sandbox.of_unit(properties or {}, name="trial-x", programs=PROGRAMS, **options)


def ran(sandbox: _sandbox.Sandbox, *words: str, version: str = "252.39-1~deb12u2") -> Recorder:
    run = Recorder(version)
    _sandbox.once(run, sandbox, words or ["promtool"], timeout=30)
    return run


def test_a_program_is_who_it_would_be_in_its_unit() -> None:
    run = ran(made(PROPERTIES), "promtool", "check")
    assert {
        "User=daemon",
        "Group=daemon",
        "SupplementaryGroups=adm ssl-cert",
        "AmbientCapabilities=cap_net_raw",
        "CapabilityBoundingSet=cap_net_raw",
        "UMask=0022",
        "MemoryMax=infinity",
        "LimitNOFILE=1024:524288",
        "WorkingDirectory=-/srv",
        "EnvironmentFile=/etc/default/a",
        "EnvironmentFile=-/etc/default/b",
    } <= set(run.settings)
    assert [word for word in run.argv if word.startswith("--setenv=")] == [
        "--setenv=GOMAXPROCS=2",
        "--setenv=NAME=two words and $HOME %n",
    ]


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ({"DynamicUser": "yes", "User": "x"}, ["User=x", "DynamicUser=yes"]),
        ({"WorkingDirectory": "~"}, ["WorkingDirectory=~"]),
        ({"LimitNOFILE": "5"}, []),
    ],
)
def test_what_is_shown_otherwise_than_it_is_written(properties: dict[str, str], wanted: list[str]) -> None:
    names = {setting.partition("=")[0] for setting in wanted}
    settings = made(properties).settings
    assert [setting for setting in settings if setting.partition("=")[0] in names] == wanted
    assert not any("LimitNOFILE" in setting for setting in settings)


def test_it_can_do_no_harm() -> None:
    assert {
        "RuntimeMaxSec=30s",
        "ProtectSystem=strict",
        "ReadOnlyPaths=/run",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "NoNewPrivileges=yes",
        "PrivateNetwork=yes",
        "IPAddressDeny=any",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK",
        "RestrictNamespaces=yes",
        "ProtectProc=invisible",
        "TemporaryFileSystem=/run/systemd:ro",
        'InaccessiblePaths=-"/state"',
        "InaccessiblePaths=-/run/docker.sock",
        "RuntimeDirectory=trial-x",
        'BindReadOnlyPaths="/var/lib/o/staging/x/prometheus":"/run/trial-x/prometheus"',
        'BindReadOnlyPaths="/a \\"b:c/promtool":"/run/trial-x/promtool"',
    } <= set(ran(made(hidden=["/state"])).settings)
    settings = ran(made(network="host", sockets=True)).settings
    assert not {"PrivateNetwork=yes", "IPAddressDeny=any"} & set(settings)
    assert not any(setting.startswith("RestrictAddressFamilies=") for setting in settings)


@pytest.mark.parametrize("user", ["", "root", "0"])
def test_root_keeps_no_capability_that_leads_out_and_no_bus(user: str) -> None:
    properties = {"User": user, "CapabilityBoundingSet": ALL, "AmbientCapabilities": "cap_sys_admin cap_sys_ptrace"}
    settings = ran(made(properties, network="host", sockets=True)).settings
    assert {"CapabilityBoundingSet=cap_dac_override cap_net_raw", "InaccessiblePaths=-/run/dbus"} <= set(settings)
    assert not any(setting.startswith("AmbientCapabilities=") for setting in settings)


def test_a_user_keeps_ambient_capabilities_but_those_that_lead_out() -> None:
    ambient = "cap_net_admin cap_sys_admin cap_dac_read_search cap_kill"
    settings = made({"User": "daemon", "CapabilityBoundingSet": f"{ALL} {ambient}", "AmbientCapabilities": ambient})
    assert "AmbientCapabilities=cap_dac_read_search cap_net_admin" in settings.settings
    assert "CapabilityBoundingSet=cap_dac_read_search cap_net_admin" in settings.settings
    assert "CapabilityBoundingSet=" in made({"User": "daemon", "CapabilityBoundingSet": ALL}).settings


@pytest.mark.parametrize(("most", "own"), [("96365", True), ("0", False), (None, False)])
def test_it_has_users_of_its_own_where_the_kernel_gives_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, most: str | None, own: bool
) -> None:
    limit = tmp_path / "max_user_namespaces"
    if most:
        limit.write_text(f"{most}\n")
    monkeypatch.setattr(_sandbox, "_USER_NAMESPACES", str(limit))
    for sandbox in (made(), made({"User": "daemon"}), bare({"User": "daemon"})):
        assert ("PrivateUsers=yes" in sandbox.settings) == own


def test_the_kernel_is_asked_rightly() -> None:
    most = int(pathlib.Path("/proc/sys/user/max_user_namespaces").read_text())
    assert ("PrivateUsers=yes" in made().settings) == (most > 0)


@pytest.mark.parametrize(
    ("version", "there", "missing"),
    [
        ("", [], ["ProtectHostname", "ProtectProc", "PrivateIPC", "PrivatePIDs"]),
        ("241 (241)", ["NoNewPrivileges"], ["ProtectHostname", "RestrictSUIDSGID", "ProtectKernelLogs"]),
        ("v246", ["ProtectHostname", "RestrictSUIDSGID", "ProtectKernelLogs"], ["ProtectProc", "PrivateIPC"]),
        ("252.39-1~deb12u2", ["ProtectProc", "PrivateIPC"], ["PrivatePIDs"]),
        ("257.9-1", ["ProtectProc", "PrivatePIDs"], []),
    ],
)
def test_systemd_is_asked_for_nothing_that_it_does_not_know(version: str, there: list[str], missing: list[str]) -> None:
    settings = ran(made(), version=version).settings
    names = {setting.partition("=")[0] for setting in settings}
    assert set(there) <= names
    assert names.isdisjoint(missing)
    signals = any("tgkill" in setting for setting in settings)
    assert signals == ("PrivatePIDs" not in names)


@pytest.mark.parametrize(
    ("properties", "words", "home"),
    [
        ({}, ["--config=/etc/x"], "yes"),
        ({}, ["--config=/home/shop/x.yml"], "read-only"),
        ({"WorkingDirectory": "/root"}, [], "read-only"),
        ({"WorkingDirectory": "~"}, [], "read-only"),
        ({"EnvironmentFiles": "/root/env (ignore_errors=no)"}, [], "yes"),
    ],
)
def test_homes_are_hidden_unless_something_in_them_is_named(
    properties: dict[str, str], words: list[str], home: str
) -> None:
    """systemd reads environment files itself."""
    assert f"ProtectHome={home}" in ran(made(properties), "promtool", *words).settings


def bare(properties: dict[str, str]) -> _sandbox.Sandbox:
    return _sandbox.bare(properties, name="trial-x", programs=PROGRAMS)


def test_a_bare_sandbox_has_nothing_of_the_unit_but_its_user() -> None:
    settings = ran(bare(PROPERTIES)).settings
    assert {"User=daemon", "Group=daemon", "CapabilityBoundingSet=", "ProtectHome=yes"} <= set(settings)
    assert not any(
        setting.startswith(
            ("AmbientCapabilities", "EnvironmentFile", "WorkingDirectory", "SupplementaryGroups", "Limit")
        )
        for setting in settings
    )
    as_root = ran(bare({"User": "root", "Group": "root"})).settings
    assert "User=nobody" in as_root
    assert not any(setting.startswith("Group=") for setting in as_root)


AWKWARD = [
    "",
    " both ends ",
    "\ttab",
    "#no comment",
    ";",
    "'single'",
    '"double"',
    "$HOME ${PATH} $$",
    "%n %%",
    "back\\slash \\n \\",
    "a\nb\n",
    "`id`",
    "=x=",
    "ü€",
    "very " * 5000,
]


@pytest.mark.parametrize("value", AWKWARD, ids=range(len(AWKWARD)))
def test_arguments_arrive_as_they_are(value: str) -> None:
    run = ran(made(), "promtool", value, f"--a={value}")
    assert run.argv[run.argv.index("--") + 1 :] == ["/usr/bin/env", "/run/trial-x/promtool", value, f"--a={value}"]


@pytest.mark.parametrize("value", AWKWARD, ids=range(len(AWKWARD)))
def test_the_environment_arrives_as_it_is(value: str) -> None:
    run = ran(made()._replace(environment=(f"NAME={value}", "OTHER=1")))
    assert [word for word in run.argv if word.startswith("--setenv=")] == [f"--setenv=NAME={value}", "--setenv=OTHER=1"]


def test_a_line_of_an_environment_file_is_quoted_as_systemd_unquotes_it() -> None:
    assert _sandbox.environment_line('A= x"y\\z`$q% ') == 'A=" x\\"y\\\\z\\`\\$q% "\n'
    assert _sandbox.environment_line("A=1\n2") == 'A="1\n2"\n'


@pytest.mark.parametrize("starts", [False, True])
def test_no_secret_stands_on_a_command_line_and_nothing_is_left_of_it(starts: bool) -> None:
    sandbox, run = made({"Environment": "PASSWORD=geheim"}), Recorder()
    if starts:
        assert _sandbox.start(run, sandbox, ["promtool", "--token=geheim"], timeout=30) == ""
    else:
        _sandbox.once(run, sandbox, ["promtool", "--token=geheim"], timeout=30)
    assert "geheim" not in repr(run.bare)
    assert "geheim" in repr(run.argv)
    assert "--description=trial-x" in run.bare
    assert set(run.files.values()) == {(0o600, 0o700)}
    assert [path for path in run.files if os.path.lexists(os.path.dirname(path))] == []


def test_its_files_go_whatever_happens() -> None:
    run = Recorder()
    run.answer = None  # type: ignore[assignment]  # what comes of it is an error
    with pytest.raises(AttributeError):
        _sandbox.once(run, made({"Environment": "A=1"}), ["promtool"], timeout=30)
    assert run.files
    assert [path for path in run.files if os.path.lexists(os.path.dirname(path))] == []


def test_what_a_killed_module_left_goes_with_the_next(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sandbox, "_PLACE", str(tmp_path))
    for name, age in {"observability-sandbox-old": 7200, "observability-sandbox-new": 0, "other": 7200}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "environment").touch()
        os.utime(tmp_path / name, times=(time.time() - age, time.time() - age))
    ran(made())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["observability-sandbox-new", "other"]


def test_an_environment_file_of_the_unit_cannot_replace_arguments() -> None:
    run = ran(made(PROPERTIES))
    files = [word for word in run.bare if word.startswith("--property=EnvironmentFile=")]
    assert [os.path.basename(word) for word in files] == ["environment", "a", "b", "arguments"]


def test_once_waits_and_a_service_does_not() -> None:
    once, service = Recorder(), Recorder()
    answer = _sandbox.once(once, made(), ["promtool"], timeout=30)
    assert once.bare[:5] == ["systemd-run", "--pipe", "--wait", "--collect", "--unit=trial-x"]
    assert (answer, once.options["timeout"]) == (_sandbox.Answer(0, "", ""), 34)
    assert _sandbox.start(service, made(), ["prometheus", "--x"], timeout=90) == ""
    assert service.bare[:3] == ["systemd-run", "--quiet", "--unit=trial-x"]
    assert "RuntimeMaxSec=90s" in service.settings
    assert service.argv[-2:] == ["/run/trial-x/prometheus", "--x"]


def test_a_program_that_cannot_be_started_is_told_with_the_reason(systemd: Systemd) -> None:
    systemd.on_run = lambda argv: Completed(1, "", "Unknown assignment: X=1\n")
    assert _sandbox.start(systemd, made(), ["x"], timeout=9) == "systemd couldn't start it: Unknown assignment: X=1"
    assert _sandbox.once(systemd, made(), ["x"], timeout=9).trouble == "Unknown assignment: X=1"


# Standard error of systemd-run 252, as seen on a host.
ENDED = """Running as unit: trial-x.service
{said}Finished with result: {result}
Main processes terminated with: code=exited/status={status}
Service runtime: 30ms
"""


@pytest.mark.parametrize(
    ("result", "status", "said", "trouble"),
    [
        ("success", 0, "", ""),
        ("exit-code", 1, "bad config\nFinished with result: no\n", ""),
        ("signal", 255, "panic\n", ""),
        ("exit-code", 127, "sh: x: not found\n", ""),
        ("exit-code", 127, "/usr/bin/env: x: not found\n", "/usr/bin/env: x: not found"),
        ("exit-code", 217, "", "systemd couldn't set it up: the user isn't known (status 217)"),
        ("exit-code", 240, "", "systemd couldn't set it up: see systemd.exec(5) (status 240)"),
        ("timeout", 1, "starting\n", "it didn't end in time"),
        ("resources", 1, "", "the unit's environment can't be had: is each of its environment files there?"),
        ("something new", 1, "", "systemd says something new"),
    ],
)
def test_the_word_of_a_program_is_told_from_trouble(result: str, status: int, said: str, trouble: str) -> None:
    text = ENDED.format(said=said, result=result, status=status)
    assert _sandbox.outcome(status, text) == _sandbox.Outcome(status, said, trouble)


@pytest.mark.parametrize(
    ("err", "trouble"),
    [
        ("Failed to start transient service unit: exists.\n", "Failed to start transient service unit: exists."),
        ("", "systemd-run failed"),
        ("Running as unit: x.service\n" + "y\n" * 9000, "it printed more than is read"),
        ("x" * 9000, "x" * 300),
    ],
)
def test_a_program_that_never_ran_said_nothing(err: str, trouble: str) -> None:
    assert _sandbox.outcome(1, err) == _sandbox.Outcome(1, "", trouble)


def test_what_a_program_says_before_systemd_run_does_is_its_own() -> None:
    text = "at once\n" + ENDED.format(said="later\n", result="exit-code", status=1)
    assert _sandbox.outcome(1, text).err == "at once\nlater\n"
