# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _store
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.modules import release_stage, upgrade_state
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Call,
    Data,
    Systemd,
    elf_program,
    sha256,
    snapshot,
    without_sandbox,
    write_archive,
)

PROMETHEUS = elf_program("prometheus, version 2.53.3 (branch: HEAD)\n")
STEP = Step("prometheus", "2.53.3")
NAME = "prometheus-2.53.3.linux-amd64"


TOOL = """#!/bin/sh
grep old "$3" && { echo "  FAILED: it is old" >&2; exit 1; }
exit 0
"""


class Host:
    """A host on which an upgrade has begun, and a release that has arrived there."""

    def __init__(self, call: Call, root: pathlib.Path, state: pathlib.Path) -> None:
        self.state, self.temporary = state, root / "remote"
        self.archive = root / f"{NAME}.tar.gz"
        self.directory = state / "staging" / STEP.key
        self._call = call
        self.release(prometheus=PROMETHEUS, promtool="tool")
        with _store.session(str(state), run=RUN, acquire=True) as session:
            session.document.begin(RUN, steps=[STEP.key], details={}, now=session.now)
            session.save()

    def release(self, **files: str | bytes) -> None:
        write_archive(self.archive, **files)

    def stage(self, **changes: t.Any) -> Data:
        wanted = {
            "component": "prometheus",
            "version": "2.53.3",
            "from_version": "2.42.0",
            "url": f"https://releases.example/v2.53.3/{NAME}.tar.gz?token=geheim",
            "checksums": "https://releases.example/v2.53.3/sha256sums.txt",
            "members": {name: f"{NAME}/{name}" for name in ("prometheus", "promtool")},
            "version_args": [["version"], ["--version"]],
            "architecture": "amd64",
            "archive": str(self.archive),
            "archive_sha256": sha256(self.archive),
            "run": RUN,
        }
        return self._call(release_stage, **{**wanted, **changes})

    def record(self) -> Data:
        return t.cast("Data", json.loads((self.state / "state.json").read_text())["components"].get("prometheus", {}))

    def files(self) -> dict[str, tuple[t.Any, ...]]:
        """All that is there but the lease, which every module of a run renews."""
        return {path: seen for path, seen in snapshot(self.state).items() if not path.endswith("upgrade.lock")}


@pytest.fixture
def host(call: Call, tmp_path: pathlib.Path, state_dir: pathlib.Path) -> Host:
    return Host(call, tmp_path, state_dir)


HASHES = {
    "prometheus": hashlib.sha256(PROMETHEUS).hexdigest(),
    "promtool": hashlib.sha256(b"tool").hexdigest(),
}
SHOWN = {name: f"2.53.3 (sha256 {digest[:12]})" for name, digest in HASHES.items()}


def test_a_release_is_proven_and_waits_in_staging(host: Host) -> None:
    result = host.stage()
    assert (result["changed"], result["needs_archive"]) == (True, False)
    assert result["files"] == [
        {"name": name, "path": str(host.directory / name), "sha256": digest} for name, digest in HASHES.items()
    ]
    assert result["diff"] == {"before": {}, "after": SHOWN}
    assert {path.name: sha256(path) for path in host.directory.iterdir() if path.suffix != ".json"} == HASHES
    assert [path.name for path in host.directory.parent.iterdir()] == [STEP.key]
    record = host.record()
    assert (record["state"], record["from_version"], record["to_version"]) == ("staged", "2.42.0", "2.53.3")


def test_what_is_staged_is_known_again_with_or_without_the_archive(host: Host) -> None:
    first = host.stage()
    before = host.files()
    for archive in (str(host.archive), None):
        result = host.stage(archive=archive)
        assert (result["changed"], result["files"], result["needs_archive"]) == (False, first["files"], False)
        assert result["diff"]["before"] == result["diff"]["after"] == SHOWN
        assert host.files() == before


def test_an_archive_is_asked_for_where_nothing_is_staged(host: Host) -> None:
    before = host.files()
    result = host.stage(archive=None)
    assert (result["changed"], result["needs_archive"], result["files"]) == (False, True, [])
    assert host.files() == before


@pytest.mark.parametrize("damage", ["changed", "gone", "of another archive"])
def test_a_candidate_that_is_not_what_was_proven_is_staged_anew(host: Host, damage: str) -> None:
    host.stage()
    if damage == "changed":
        (host.directory / "promtool").write_text("evil")
    elif damage == "gone":
        (host.directory / "promtool").unlink()
    else:
        host.release(prometheus=PROMETHEUS, promtool="tool", extra="x")
    assert host.stage()["changed"] is True
    assert sha256(host.directory / "promtool") == HASHES["promtool"]
    assert host.stage()["changed"] is False


def test_check_mode_proves_it_and_leaves_nothing(host: Host) -> None:
    before = snapshot(host.state)
    foreseen = host.stage(check=True)
    assert snapshot(host.state) == before
    assert [path for path in host.temporary.rglob("*") if path.is_file()] == []
    done = host.stage()
    assert {key: foreseen[key] for key in ("changed", "diff", "files")} == {
        key: done[key] for key in ("changed", "diff", "files")
    }
    again = snapshot(host.state)
    assert host.stage(check=True)["changed"] is False
    assert snapshot(host.state) == again


def test_check_mode_refuses_what_would_be_refused(host: Host) -> None:
    host.release(prometheus=elf_program("prometheus, version 2.42.0\n"), promtool="tool")
    before = snapshot(host.state)
    assert host.stage(check=True)["key"] == "release.version"
    assert snapshot(host.state) == before


def test_what_an_attempt_that_was_cut_off_left_is_replaced(host: Host) -> None:
    building = host.directory.with_name(f"{STEP.key}.new")
    building.mkdir()
    (building / "promtool").write_text("half")
    assert host.stage()["changed"] is True
    assert [path.name for path in host.directory.parent.iterdir()] == [STEP.key]


@pytest.mark.parametrize("state", ["activated", "verifying"])
def test_a_component_beyond_the_line_stays_where_it_stands(host: Host, state: str) -> None:
    host.stage()
    with _store.session(str(host.state), run=RUN, acquire=True) as session:
        session.document.set_component("prometheus", "activated", now=session.now, backup_id="b1")
        session.document.set_component("prometheus", state, now=session.now)
        session.save()
    assert host.stage()["changed"] is False
    assert (host.record()["state"], host.record()["backup_id"]) == (state, "b1")


def test_what_vouched_for_it_is_on_record_until_the_next_attempt(host: Host) -> None:
    host.stage(verified=["sha256 of a list"])
    assert host.record()["verified"] == ["sha256 of a list"]
    host.stage(verified=["sha256 of a list", "a pin"])
    assert host.record()["verified"] == ["sha256 of a list", "a pin"]
    with _store.session(str(host.state), run=RUN) as session:
        session.document.end_step(STEP, "aborted", now=session.now)
        session.document.start_step(STEP, from_version=None, now=session.now)
        assert "verified" not in session.document.component(STEP.component)


def test_a_release_of_an_older_manifest_is_refused_by_the_host(host: Host) -> None:
    for number in (7, 9, 9):
        assert host.stage(manifest_number=number)["needs_archive"] is False
    before = host.files()
    for arguments in ({}, {"archive": None}, {"check": True}):
        result = host.stage(manifest_number=8, **arguments)
        assert (result["failed"], result["key"]) == (True, "manifest.older")
        assert "the manifest has number 8, but this host has seen number 9" in result["msg"]
    assert host.files() == before
    assert host.stage()["changed"] is False  # and without a manifest it is as before


def test_check_mode_does_not_remember_a_manifest(host: Host) -> None:
    host.stage(manifest_number=9, check=True)
    assert host.stage(manifest_number=8)["changed"] is True


def refused(host: Host, case: str) -> Data:
    """Stage what must be refused."""
    if case == "other version":
        host.release(prometheus=elf_program("prometheus, version 2.42.0\n"), promtool="tool")
    elif case == "does not run":
        host.release(prometheus="#!/nowhere/sh\n", promtool="tool")
    elif case == "other machine":
        elf = "\x7fELF\x02\x01" + "\0" * 12 + "\x28\0" + "\0" * 100  # little endian, machine 40: 32-bit ARM
        host.release(prometheus=elf, promtool="tool")
    elif case == "no member":
        host.release(prometheus=PROMETHEUS)
    elif case == "truncated":
        host.archive.write_bytes(host.archive.read_bytes()[:-20])
    elif case == "outside":
        host.release(**{"prometheus": PROMETHEUS, "promtool": "tool", "../../evil": "x"})
    arguments: dict[str, Data] = {
        "no half": {"archive_sha256": None},
        "transfer": {"archive_sha256": "0" * 64},
        "another run": {"run": OTHER_RUN},
        "no archive": {"archive": str(host.archive.with_name("gone"))},
    }
    return host.stage(**arguments.get(case, {}))


@pytest.mark.parametrize(
    ("case", "key", "says"),
    [
        ("no half", "input.invalid", "needs its half on the controller: call it as a task"),
        ("transfer", "release.transfer", f"but {'0' * 64} was sent: the transfer damaged it; run again"),
        ("another run", "lock.lost", "upgrade u1 of ops on c1 has had it for 0 min"),
        ("no archive", "host.os_error", "/gone: No such file or directory"),
        ("truncated", "release.damaged_archive", "is truncated or damaged"),
        ("no member", "release.member_missing", f"has no member {NAME}/promtool: "),
        ("outside", "release.unsafe_archive", "evil"),
        ("other machine", "release.architecture", "this host runs amd64: the release is mislabelled; don't use it"),
        (
            "other version",
            "release.version",
            "doesn't say that it is version 2.53.3 (version: 2.42.0; --version: 2.42.0)",
        ),
        ("does not run", "release.no_program", "is no ELF program: only such are run, in a sandbox"),
    ],
)
def test_what_is_not_the_release_is_refused_and_leaves_nothing(host: Host, case: str, key: str, says: str) -> None:
    result = refused(host, case)
    assert (result["failed"], result["key"]) == (True, key)
    assert says in result["msg"]
    assert "geheim" not in json.dumps(result)
    assert list((host.state / "staging").iterdir()) == []
    assert host.record().get("state") in (None, "downloading")
    assert not (host.state.parent / "evil").exists()


def test_a_release_that_was_refused_can_be_tried_again(host: Host) -> None:
    refused(host, "other version")
    host.release(prometheus=PROMETHEUS, promtool="tool")
    assert host.stage()["changed"] is True
    assert (host.record()["state"], host.record()["attempts"]) == ("staged", 1)


# -- the candidate's own word -------------------------------------------------------------------------------------


class Asking:
    """A host whose prometheus.service has a configuration, which the release's promtool judges."""

    def __init__(self, host: Host, systemd: Systemd, root: pathlib.Path) -> None:
        self.host, self.systemd = host, systemd
        self.config = root / "prometheus.yml"
        systemd.on_run = without_sandbox
        systemd.add("prometheus.service", str(root / "prometheus"), f"--config.file={self.config}", User="daemon")
        host.release(prometheus=PROMETHEUS, promtool=TOOL)

    def stage(self, **changes: t.Any) -> Data:
        check = {"about": "config", "program": "promtool", "args": ["check", "config", "{config}"], "status": [0]}
        wanted = {"unit": "prometheus.service", "trials": [check], "facts": {"config": str(self.config)}}
        return self.host.stage(**{**wanted, **changes})


@pytest.fixture
def asking(host: Host, systemd: Systemd, tmp_path: pathlib.Path) -> Asking:
    return Asking(host, systemd, tmp_path)


def test_a_candidate_that_refuses_the_configuration_is_refused(asking: Asking) -> None:
    asking.config.write_text("old\n")
    result = asking.stage()
    assert (result["failed"], result["key"]) == (True, "candidate.refused")
    assert result["msg"] == (
        f"prometheus 2.53.3 refuses {asking.config}: it is old. What to do: change {asking.config} so that both "
        "versions take it. To go on all the same: accept prometheus.config_refused"
    )
    (found,) = result["findings"]
    assert (found["key"], found["severity"]) == ("prometheus.config_refused", "blocker")
    assert found["evidence"] == ["old", "  FAILED: it is old", "exit status 1"]


def test_it_is_asked_again_when_it_is_staged_already(asking: Asking) -> None:
    asking.config.write_text("new\n")
    assert asking.stage()["findings"] == []
    asking.config.write_text("old\n")
    for changes in ({}, {"archive": None}, {"check": True}):
        assert asking.stage(**changes)["key"] == "candidate.refused"
    asking.config.write_text("new\n")
    assert asking.stage()["changed"] is False


def test_a_refusal_that_is_accepted_is_told_and_no_more(asking: Asking) -> None:
    asking.config.write_text("old\n")
    result = asking.stage(accept=["prometheus.config_refused"])
    assert "failed" not in result
    assert [each["severity"] for each in result["findings"]] == ["accepted"]
    assert asking.host.record()["state"] == "staged"


@pytest.mark.parametrize("text", ["old\n", "new\n"])
def test_check_mode_asks_too_and_leaves_nothing(asking: Asking, text: str) -> None:
    asking.config.write_text(text)
    before = snapshot(asking.host.state)
    result = asking.stage(check=True)
    assert result.get("key") == ("candidate.refused" if text == "old\n" else None)
    first, second = asking.systemd.commands("systemd-run")
    assert {"--property=User=daemon", "--property=CapabilityBoundingSet="} <= set(first)
    assert "check" in second
    assert snapshot(asking.host.state) == before
    assert [path for path in asking.host.temporary.rglob("*") if path.is_file()] == []


def test_nothing_is_asked_ahead_of_the_proof_or_without_a_unit(asking: Asking) -> None:
    assert asking.stage(unit=None)["findings"] == []
    asking.host.release(prometheus=elf_program("prometheus, version 2.42.0\n"), promtool=TOOL)
    assert asking.stage()["key"] == "release.version"
    assert [argv for argv in asking.systemd.commands("systemd-run") if "check" in argv] == []


# -- instances --------------------------------------------------------------------------------------------------------


def test_each_unit_that_runs_the_file_is_asked_with_what_it_has(asking: Asking, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other.yml"
    asking.config.write_text("new\n")
    other.write_text("old\n")
    asking.systemd.add("federate@a.service", str(tmp_path / "prometheus"), f"--config.file={other}", User="daemon")
    shared = [{"component": "prometheus@9091", "unit": "federate@a.service", "facts": {"config": str(other)}}]
    result = asking.stage(shared=shared)
    assert (result["failed"], result["key"]) == (True, "candidate.refused")
    assert [each["key"] for each in result["findings"]] == ["prometheus@9091.config_refused"]
    for accept in ("prometheus@9091.config_refused", "prometheus.config_refused"):
        assert "failed" not in asking.stage(shared=shared, accept=[accept])


def test_a_release_is_staged_once_for_all_instances_and_kept_for_the_last_of_them(host: Host, call: Call) -> None:
    other = Step("prometheus@9091", STEP.to_version)
    with _store.session(str(host.state), run=RUN) as session:
        session.document.plan_step(other)
        session.save()
    assert host.stage()["changed"] is True
    again = host.stage(component=other.component, archive=None)
    assert (again["changed"], again["needs_archive"]) == (False, False)
    assert [file["path"] for file in again["files"]] == [str(host.directory / name) for name in sorted(HASHES)]
    for step, is_kept in ((STEP, True), (other, False)):
        with _store.session(str(host.state), run=RUN) as session:
            document = session.document
            for state in ("activated", "verifying"):
                document.set_component(step.component, state, now=session.now)
            document.end_step(step, "succeeded", now=session.now)
            session.save()
        result = call(upgrade_state, action="confirm", component=step.component, version=step.to_version, run=RUN)
        assert "failed" not in result
        assert host.directory.exists() is is_kept
