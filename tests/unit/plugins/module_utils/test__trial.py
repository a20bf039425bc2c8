# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trials with real programs. The sandbox itself is not there in unit tests."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _systemd, _trial
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.tests.unit.support import Data, Systemd, elf_program, without_sandbox

# Takes some flags, as kingpin does, and a configuration without the word "old".
PROGRAM = """#!/bin/sh
for word; do
  case "$word" in
    --version) echo 'shop, version {version}'; exit ;;
    --help) echo 'usage: shop [<flags>]'; for flag in {flags}; do echo "  --$flag=x  A flag."; done; exit ;;
    --config.check) test -r "$SHOP_CONFIG" && exit ;;
    --*) name=${{word#--}}; case " {flags} " in *" ${{name%%=*}} "*) ;; *)
        echo "shop: error: unknown long flag '${{word%%=*}}', try --help" >&2; exit 1 ;; esac ;;
  esac
done
echo "no $SHOP_CONFIG" >&2
exit 1
"""
TOOL = """#!/bin/sh
echo "Checking $2"
grep -n {refuses} "$2" && { echo "  FAILED: line $(grep -n {refuses} "$2") is too old" >&2; exit 1; }
exit 0
"""
FLAGS = {"about": "flags", "program": "shop", "args": ["{arguments}", "--version"], "status": [0], "fix": None}
CONFIG = {"about": "config", "program": "shoptool", "args": ["check", "{config}"], "status": [0], "fix": None}
START = {"about": "start", "program": None, "args": ["{arguments}", "--config.check"], "status": [0]}
OLD, NEW = "listen old.flag", "listen new.flag"


class Host:
    """A host with version 1 of shop, and with version 2 as a candidate."""

    def __init__(self, systemd: Systemd, root: pathlib.Path) -> None:
        self.systemd, self.root = systemd, root
        systemd.on_run = without_sandbox
        self.config = root / "shop.yml"
        self.config.write_text("password: geheim\n")
        self.install("usr", "1.0.0", OLD, refuses="older")
        self.install("new", "2.0.0", NEW, refuses="old")
        self.unit("--listen=:80")

    def install(self, where: str, version: str, flags: str, *, refuses: str) -> None:
        directory = self.root / where
        directory.mkdir(exist_ok=True)
        (directory / "shop").write_text(PROGRAM.format(version=version, flags=flags))
        (directory / "shoptool").write_text(TOOL.replace("{refuses}", refuses))
        for path in directory.iterdir():
            path.chmod(0o755)

    def unit(self, *arguments: str, **properties: t.Any) -> None:
        user = {"User": "daemon", **properties}
        self.systemd.add("shop.service", str(self.root / "usr" / "shop"), *arguments, **user)

    def hold(self, *trials: Data, accept: t.Collection[str] = (), **changes: t.Any) -> list[Data]:
        case = _trial.Case(
            component="shop",
            version="2.0.0",
            unit="shop.service",
            programs={name: str(self.root / "new" / name) for name in ("shop", "shoptool")},
            trials=list(trials),
            facts={"config": str(self.config), "web_config": None, "data": None},
            help_args=[],
            removed_flags=[],
        )
        return _trial.hold(self.systemd, case._replace(**changes), accept=accept)

    def ran(self) -> list[list[str]]:
        return self.systemd.commands("systemd-run")


@pytest.fixture
def host(systemd: Systemd, tmp_path: pathlib.Path) -> Host:
    return Host(systemd, tmp_path)


def test_a_candidate_that_takes_it_all_is_told_nothing_against(host: Host) -> None:
    assert host.hold(CONFIG, FLAGS) == []
    first, second = host.ran()
    assert first[-2:] == ["--listen=:80", "--version"]  # flags first
    assert second[-2:] == ["check", str(host.config)]
    assert {"--property=User=daemon", "--property=PrivateNetwork=yes"} <= set(first)


def test_a_flag_that_nobody_knew_of_is_proven_to_be_gone(host: Host) -> None:
    host.unit("--old.flag=3", "--listen=:80", "--secret=geheim", "--old.flag", "4")
    found = host.hold(FLAGS, CONFIG)
    assert [(each["key"], each["severity"], each["message"]) for each in found] == [
        ("shop.flag_removed.old.flag", "blocker", "shop 2.0.0 doesn't know --old.flag, which shop.service sets"),
        ("shop.flag_removed.secret", "blocker", "shop 2.0.0 doesn't know --secret, which shop.service sets"),
    ]
    assert found[0]["evidence"] == ["shop: error: unknown long flag '--old.flag', try --help"]
    assert found[0]["fix"] == "take --old.flag out of shop.service, or put there what replaces it"
    assert found[0]["component"] == "shop"


@pytest.mark.parametrize(
    ("known", "fix"),
    [
        ({"use": "--new.flag", "since": "2.0.0"}, "--old.flag was removed in 2.0.0: use --new.flag"),
        ({"use": "leave it out"}, "--old.flag was removed: leave it out"),
    ],
)
def test_what_the_catalog_knows_of_a_flag_is_its_fix(host: Host, known: Data, fix: str) -> None:
    host.unit("--old.flag=3")
    (found,) = host.hold(FLAGS, removed_flags=[{"flag": "other", "use": "x"}, {"flag": "old.flag", **known}])
    assert found["fix"] == fix


def test_a_configuration_that_only_the_candidate_refuses(host: Host) -> None:
    host.config.write_text("password: geheim\nsetting: old geheim\n")
    (found,) = host.hold(CONFIG)
    assert (found["key"], found["severity"]) == ("shop.config_refused", "blocker")
    assert found["message"] == f"shop 2.0.0 refuses {host.config}: line 2:setting: old ******** is too old"
    assert found["evidence"] == [
        f"Checking {host.config}",
        "2:setting: old ********",
        "  FAILED: line 2:setting: old ******** is too old",
        "exit status 1",
    ]
    assert found["fix"] == f"change {host.config} so that both versions take it"
    assert host.hold({**CONFIG, "fix": "see the guide"})[0]["fix"] == "see the guide"


@pytest.mark.parametrize(
    ("user", "program", "asked"),
    [
        ("daemon", elf_program("too old\n", status=1), True),
        ("daemon", elf_program("fine\n"), False),
        ("daemon", b"#!/bin/sh\nexit 1\n", False),
        ("root", elf_program("too old\n", status=1), False),
        ("", elf_program("too old\n", status=1), False),
    ],
    ids=["it refuses, too", "it takes it", "a script", "of root", "of nobody in particular"],
)
def test_a_configuration_that_was_broken_before_is_told_as_such(
    host: Host, user: str, program: bytes, asked: bool
) -> None:
    """What is in place isn't proven: root doesn't run it, and no script is run at all."""
    host.config.write_text("setting: older\n")
    (host.root / "usr" / "shoptool").write_bytes(program)
    host.unit("--listen=:80", User=user)
    (found,) = host.hold(CONFIG)
    assert found["message"].endswith("is too old (so does the version in place)") == asked


def test_an_accepted_blocker_is_a_warning(host: Host) -> None:
    host.config.write_text("old\n")
    host.unit("--old.flag=1")
    found = host.hold(CONFIG, FLAGS, accept=["shop.config_refused", "shop.flag_removed.other"])
    assert {each["key"]: each["severity"] for each in found} == {
        "shop.config_refused": "accepted",
        "shop.flag_removed.old.flag": "blocker",
    }
    assert [each["key"] for each in _trial.refused(found)] == ["shop.flag_removed.old.flag"]
    assert _trial.in_words(_trial.refused(found)) == (
        "shop 2.0.0 doesn't know --old.flag, which shop.service sets. What to do: take --old.flag out of shop.service, "
        "or put there what replaces it. To go on all the same: accept shop.flag_removed.old.flag"
    )


def test_what_the_plan_was_told_to_accept_is_accepted_here(host: Host) -> None:
    host.unit("--old.flag=1")
    (found,) = host.hold(FLAGS, accept=["shop.removed.old.flag"])
    assert found["severity"] == "accepted"


def test_a_version_in_place_that_cannot_be_asked_says_nothing(host: Host) -> None:
    host.unit("--listen=:80", Environment="SHOP_CONFIG=/nowhere")
    text = (host.root / "usr" / "shop").read_text().replace("--config.check)", "--other.check)")
    (host.root / "usr" / "shop").write_text(text)
    (found,) = host.hold(START)
    assert found["message"] == "shop 2.0.0 can't work on this host: no /nowhere"


def test_a_start_is_tried_with_the_units_environment_and_the_hosts_network(host: Host) -> None:
    host.unit("--listen=:80", Environment=f'"SHOP_CONFIG={host.config}"')
    assert host.hold(START) == []
    assert "--property=PrivateNetwork=yes" not in host.ran()[0]
    host.unit("--listen=:80", Environment="SHOP_CONFIG=/nowhere")
    (found,) = host.hold(START)
    assert (found["key"], found["severity"]) == ("shop.start_refused", "blocker")
    assert "shop 2.0.0 can't work on this host: no /nowhere" in found["message"]


def test_a_trial_without_its_fact_is_left_out(host: Host) -> None:
    trial = {**CONFIG, "args": ["check", "{web_config}"]}
    assert host.hold(trial) == []
    assert host.ran() == []


def test_arguments_refused_for_another_reason(host: Host) -> None:
    trial = {**FLAGS, "args": ["{arguments}"]}
    (found,) = host.hold(trial)
    assert found["key"] == "shop.flags_refused"
    assert found["message"].startswith("shop 2.0.0 refuses the arguments of shop.service: no")


# -- what can't be asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Completed(None, "", "systemd-run: No such file or directory"), "systemd-run: No such file or directory"),
        (
            Completed(1, "", "Failed to start transient service unit: no\n"),
            "Failed to start transient service unit: no",
        ),
        (Completed(1, "up", "Running as unit: x\nFinished with result: timeout\n"), "it didn't end in time"),
        (Completed(217, "", "Finished with result: exit-code\n"), "the user isn't known"),
    ],
)
def test_a_trial_that_cannot_be_held_is_a_warning(host: Host, answer: Completed, why: str) -> None:
    host.systemd.on_run = lambda argv: answer
    (found,) = host.hold(FLAGS)
    assert (found["key"], found["severity"]) == ("shop.trial_not_run", "warning")
    assert found["message"].startswith("shop 2.0.0 could not be asked about the unit's flags: ")
    assert why in found["message"]


@pytest.mark.parametrize(("accept", "severity"), [((), "blocker"), (("shop.trial_not_run",), "accepted")])
def test_where_checks_are_required_one_that_cannot_be_held_is_a_blocker(
    host: Host, accept: tuple[str, ...], severity: str
) -> None:
    host.systemd.on_run = lambda argv: Completed(None, "", "systemd-run: No such file or directory")
    for changes in ({}, {"unit": "other.service"}):
        (found,) = host.hold(FLAGS, accept=accept, required=True, **changes)
        assert (found["key"], found["severity"]) == ("shop.trial_not_run", severity)
        assert bool(_trial.refused([found])) is (severity == "blocker")
        assert bool(_trial.not_run([found])) is (severity != "blocker")


def test_a_unit_that_is_not_there_or_no_systemd(host: Host) -> None:
    (found,) = host.hold(FLAGS, unit="other.service")
    assert "there is no unit other.service" in found["message"]
    host.systemd.broken = "no bus"
    (found,) = host.hold(FLAGS)
    assert (found["key"], found["severity"]) == ("shop.trial_not_run", "warning")
    assert "no bus" in found["message"]


def test_a_tool_that_was_not_taken_out_of_the_release(host: Host) -> None:
    (found,) = host.hold(CONFIG, programs={"shop": str(host.root / "new" / "shop")})
    assert "shoptool isn't among what was taken of the release" in found["message"]


def test_a_candidate_that_cannot_be_asked_so_is_not_refused(host: Host) -> None:
    (found,) = host.hold({**START, "args": ["{arguments}", "--dry-run"]})
    assert (found["key"], found["severity"]) == ("shop.trial_not_run", "warning")
    assert found["message"].endswith("about its start: it doesn't know --dry-run")


def test_each_reason_is_told_once(host: Host) -> None:
    host.systemd.on_run = lambda argv: Completed(None, "", "no")
    assert len(host.hold(FLAGS, FLAGS, CONFIG)) == 2


def test_a_program_started_by_a_wrapper(host: Host) -> None:
    script = f"{host.root / 'usr' / 'shop'}"
    host.systemd.add("shop.service", "/usr/bin/env", "A=1", script, "--old.flag=1")
    assert [each["key"] for each in host.hold(FLAGS)] == ["shop.flag_removed.old.flag"]
    host.systemd.add("shop.service", "/bin/sh", "-c", "exec-something")
    (found,) = host.hold(FLAGS, help_args=["--help"])
    assert "it can't be told what shop.service starts it with" in found["message"]


# -- help ---------------------------------------------------------------------------------------------------------


def print_help(host: Host, where: str, flags: str) -> None:
    text = "usage: shop [<flags>]\n" + "".join(f"  --{flag}=x  A flag.\n" for flag in flags.split())
    (host.root / where / "shop").write_bytes(elf_program(text))


def test_flags_are_looked_up_in_the_help(host: Host) -> None:
    print_help(host, "usr", OLD)
    print_help(host, "new", NEW)
    host.unit("--listen=:80", "--old.flag", "--hidden", "--ignored")
    known = [{"flag": "ignored", "use": "leave it out", "level": "warning"}]
    found = host.hold(help_args=["--help"], removed_flags=known)
    assert [(each["key"], each["severity"]) for each in found] == [
        ("shop.flag_removed.old.flag", "blocker"),
        ("shop.flag_unlisted.hidden", "warning"),
    ]
    host.unit("--listen=:80", "--new.flag")
    assert host.hold(help_args=["--help"]) == []
    assert all("--property=CapabilityBoundingSet=" in argv for argv in host.ran())


def test_a_help_without_flags_tells_nothing(host: Host) -> None:
    (found,) = host.hold(help_args=["check"])
    assert (found["key"], found["severity"]) == ("shop.trial_not_run", "warning")


# -- pure ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("node_exporter: error: unknown long flag '--web.config', try --help", "--web.config"),
        ("x: error: unknown short flag '-c', try --help", "-c"),
        ("flag provided but not defined: -nope\nUsage", "-nope"),
        ("Error: unknown flag: --nope", "--nope"),
        ("Error: unknown shorthand flag: 'n' in -nope", "-nope"),
        ("x: error: unknown flag --nope, did you mean", "--nope"),
    ],
)
def test_how_programs_call_a_flag_that_they_do_not_know(text: str, flag: str) -> None:
    found = _trial._UNKNOWN_FLAG.search(text)
    assert found
    assert found.group(1) == flag


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--a=1", "--x", "2", "--b"], ["--a=1", "--b"]),
        (["--x=1", "-x=2", "--xy=3", "x"], ["--xy=3", "x"]),
        (["-x", "-y"], ["-y"]),
        (["--a", "--x"], ["--a"]),
        (["--a"], ["--a"]),
    ],
)
def test_a_flag_is_taken_out_with_its_value(arguments: list[str], left: list[str]) -> None:
    assert _trial.without_flag(arguments, "--x") == left


def test_behind_a_starter_the_arguments_are_those_of_the_process(
    proc: t.Callable[..., None], tmp_path: pathlib.Path
) -> None:
    """Which words between the program and its arguments are the starter's own, only that knows."""
    program = tmp_path / "shop"
    program.touch()
    proc(9, f"{program} --listen=:80", exe=str(program), group="0::/system.slice/shop.service")
    words = f"/sbin/start-stop-daemon --start --exec {program} --pidfile /run/shop.pid -- --listen=:80"
    shown = f"{{ path=/sbin/start-stop-daemon ; argv[]={words} ; ignore_errors=no }}"
    unit = _systemd.Unit("shop.service", "loaded", "active", "running", "success", 9, 0, {"ExecStart": shown})
    assert _trial.started_with(lambda *args, **more: Completed(1, "", ""), unit, ["shop"]) == [
        str(program),
        "--listen=:80",
    ]


def test_arguments_are_filled_in() -> None:
    words = _trial.filled(["a={config}", "{arguments}", "{x}", "-{arguments}"], {"config": "/c"}, ["--b", "{config}"])
    assert words == ["a=/c", "--b", "{config}", "{x}", "-{arguments}"]
