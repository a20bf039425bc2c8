# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command lines as text. What they do is seen on a host that systemd has booted: molecule/gates."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _sandbox

# As systemd 252 shows them.
PROPERTIES = {
    "User": "prometheus",
    "Group": "prometheus",
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


def made(properties: dict[str, str] | None = None, **options: t.Any) -> _sandbox.Sandbox:
    return _sandbox.of_unit(properties or {}, name="trial-x", programs=PROGRAMS, **options)


def settings(argv: list[str]) -> list[str]:
    return [word.partition("=")[2] for word in argv if word.startswith("--property=")]


def test_a_program_is_who_it_would_be_in_its_unit() -> None:
    argv = _sandbox.once(made(PROPERTIES), ["promtool", "check"], timeout=30)
    assert {
        "User=prometheus",
        "Group=prometheus",
        "SupplementaryGroups=adm ssl-cert",
        "AmbientCapabilities=cap_net_raw",
        "CapabilityBoundingSet=cap_net_raw",
        "UMask=0022",
        "MemoryMax=infinity",
        "LimitNOFILE=1024:524288",
        "WorkingDirectory=-/srv",
        "EnvironmentFile=/etc/default/a",
        "EnvironmentFile=-/etc/default/b",
    } <= set(settings(argv))
    assert [word for word in argv if word.startswith("--setenv=")] == [
        "--setenv=GOMAXPROCS=2",
        "--setenv=NAME=two words and $HOME %n",
    ]


def test_a_unit_that_says_nothing_asks_for_nothing() -> None:
    asked = {setting.partition("=")[0] for setting in settings(_sandbox.once(made(), ["promtool"], timeout=30))}
    assert asked.isdisjoint(_sandbox.PROPERTIES)


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ({"DynamicUser": "yes", "User": "x"}, ["User=x", "DynamicUser=yes"]),
        ({"CapabilityBoundingSet": ""}, ["CapabilityBoundingSet="]),
        ({"WorkingDirectory": "~"}, ["WorkingDirectory=~"]),
        ({"LimitNOFILE": "5"}, []),
    ],
)
def test_what_is_shown_otherwise_than_it_is_written(properties: dict[str, str], wanted: list[str]) -> None:
    assert list(made(properties).settings) == wanted


def test_it_can_do_no_harm() -> None:
    argv = _sandbox.once(made(writable=["/srv/copy"]), ["promtool"], timeout=30)
    assert {
        "RuntimeMaxSec=30",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "NoNewPrivileges=yes",
        "PrivateNetwork=yes",
        "RuntimeDirectory=trial-x",
        'ReadWritePaths="/srv/copy"',
        'BindReadOnlyPaths="/var/lib/o/staging/x/prometheus":"/run/trial-x/prometheus"',
        'BindReadOnlyPaths="/a \\"b:c/promtool":"/run/trial-x/promtool"',
    } <= set(settings(argv))
    assert "PrivateNetwork=yes" not in settings(_sandbox.once(made(network="host"), ["promtool"], timeout=30))


def test_arguments_arrive_as_they_are() -> None:
    argv = _sandbox.once(made(), ["promtool", "^/(x|y)($|/)", "--a=${B}", "%n"], timeout=30)
    command = argv[argv.index("--") + 1 :]
    assert command == ["/usr/bin/env", "/run/trial-x/promtool", "^/(x|y)($$|/)", "--a=$${B}", "%n"]


def test_the_command_line_is_not_what_the_journal_calls_it() -> None:
    assert "--description=trial-x" in _sandbox.once(made(), ["promtool", "--token=geheim"], timeout=30)
    assert "--description=trial-x" in _sandbox.service(made(), ["promtool", "--token=geheim"], timeout=30)


def test_once_waits_and_a_service_does_not() -> None:
    once = _sandbox.once(made(), ["promtool"], timeout=30)
    service = _sandbox.service(made(), ["prometheus", "--x"], timeout=90)
    assert once[:5] == ["systemd-run", "--pipe", "--wait", "--collect", "--unit=trial-x"]
    assert service[:3] == ["systemd-run", "--quiet", "--unit=trial-x"]
    assert "RuntimeMaxSec=90" in settings(service)
    assert service[-2:] == ["/run/trial-x/prometheus", "--x"]


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
    ],
)
def test_a_program_that_never_ran_said_nothing(err: str, trouble: str) -> None:
    assert _sandbox.outcome(1, err) == _sandbox.Outcome(1, "", trouble)


def test_what_a_program_says_before_systemd_run_does_is_its_own() -> None:
    text = "at once\n" + ENDED.format(said="later\n", result="exit-code", status=1)
    assert _sandbox.outcome(1, text).err == "at once\nlater\n"
