# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _store, _survey
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.modules import component_version
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog
from ansible_collections.observability.stack.tests.unit.support import (
    RUN,
    Call,
    Data,
    Systemd,
    sha256,
    snapshot,
    write_elf,
)


@pytest.fixture
def program(systemd: Systemd, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A node_exporter that is installed; this machine's own programs are out of sight."""
    monkeypatch.setattr(_survey, "_USUAL_PLACES", (str(tmp_path / "usual"),))
    path = write_elf(tmp_path / "bin" / "node_exporter", "1.5.0")
    systemd.add("node_exporter.service", str(path), "--web.listen-address=:9200", "--api-token=geheim")
    return path


@pytest.fixture
def read(call: Call, program: pathlib.Path) -> Call:
    specs = {name: {**spec, "default_config": None, "default_data": None} for name, spec in _catalog.load().items()}
    return lambda **arguments: call(component_version, **{"specs": specs, **arguments})


def test_what_a_host_has_is_read_and_nothing_is_written(
    read: Call, program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    before = snapshot(tmp_path)
    result = read(run=RUN)
    assert result["changed"] is False
    assert list(result["components"]) == ["node_exporter"]
    facts = result["components"]["node_exporter"]
    assert (facts["installed"], facts["version"], facts["running"]) == (True, "1.5.0", None)
    assert facts["url"] == "http://127.0.0.1:9200"
    (file,) = facts["files"]
    identity = file.pop("identity")
    assert file == {
        "name": "node_exporter",
        "path": str(program),
        "size": program.stat().st_size,
        "sha256": sha256(program),
    }
    assert f"inode:{program.stat().st_ino} " in identity
    assert (result["state"], result["unfinished"], result["lease"], result["staged"]) == (None, {}, {}, {})
    assert "diff" not in result
    assert snapshot(tmp_path) == before


def test_a_host_tells_which_releases_wait_on_it(read: Call, state_dir: pathlib.Path) -> None:
    candidate = state_dir / "staging" / "node_exporter@1.9.0"
    candidate.mkdir(parents=True)
    (candidate / "candidate.json").write_text(json.dumps({"archive_sha256": "a" * 64, "files": {}}))
    assert read(run=RUN)["staged"] == {"node_exporter@1.9.0": "a" * 64}


@pytest.mark.parametrize("check", [False, True])
def test_it_answers_the_same_twice_and_in_check_mode(read: Call, tmp_path: pathlib.Path, check: bool) -> None:
    before = snapshot(tmp_path)
    assert read(check=check) == read()
    assert snapshot(tmp_path) == before


def test_every_field_that_is_returned_is_documented(read: Call) -> None:
    documented = component_version.RETURN
    result = read()
    assert all(f"\n{key}:" in documented for key in result if key != "changed")
    assert all(f"\n    {key}:" in documented for key in result["components"]["node_exporter"])


def test_secrets_on_the_command_line_are_hidden(read: Call) -> None:
    result = read()
    assert "--api-token=********" in result["components"]["node_exporter"]["command_line"]
    assert "geheim" not in json.dumps(result)


def test_without_checksums_no_file_is_read_for_them(read: Call) -> None:
    files = read(checksum=False)["components"]["node_exporter"]["files"]
    assert [sorted(file) for file in files] == [["identity", "name", "path", "size"]]


def test_a_program_that_tells_nothing_in_time_is_unknown(read: Call, program: pathlib.Path) -> None:
    write_elf(program, hangs=True)
    assert read(timeout=1)["components"]["node_exporter"]["version"] == "unknown"


@pytest.mark.parametrize(("content", "told"), [("old", "old"), ("new", "new"), ("other", "other")])
def test_an_attempt_that_was_cut_off_is_told_by_evidence(
    read: Call, state_dir: pathlib.Path, tmp_path: pathlib.Path, content: str, told: str
) -> None:
    file = tmp_path / "file"
    hashes: dict[str, t.Any] = {"path": str(file)}
    for moment, text in {"before": "old", "after": "new"}.items():
        file.write_text(text)
        hashes[moment] = sha256(file)
    file.write_text(content)
    step = Step("node_exporter", "1.9.0")
    with _store.session(str(state_dir), run=RUN, acquire=True) as session:
        session.document.begin(RUN, steps=[step.key], details={}, now=session.now)
        session.document.start_step(step, from_version="1.5.0", now=session.now)
        session.document.set_component("node_exporter", "staged", now=session.now)
        session.document.set_component("node_exporter", "activated", now=session.now, files=[hashes])
        session.save()
    before = snapshot(state_dir)
    result = read()
    assert result["unfinished"] == {"node_exporter": told}
    assert result["state"] == json.loads((state_dir / "state.json").read_text())
    assert (result["lease"]["upgrade_id"], result["lease"]["user"]) == ("u1", "ops")
    assert snapshot(state_dir) == before


@pytest.mark.parametrize("state", ["checking", "staged"])
def test_an_attempt_that_touched_nothing_is_not_unfinished(read: Call, state_dir: pathlib.Path, state: str) -> None:
    with _store.session(str(state_dir), run=RUN, acquire=True) as session:
        session.document.start_step(Step("node_exporter", "1.9.0"), from_version="1.5.0", now=session.now)
        session.document.set_component("node_exporter", state, now=session.now)
        session.save()
    result = read()
    assert (result["unfinished"], result["state"]["components"]["node_exporter"]["state"]) == ({}, state)


@pytest.mark.parametrize("ended", ["released", "expired"])
def test_a_lease_that_has_ended_is_nobody_s(read: Call, state_dir: pathlib.Path, ended: str) -> None:
    at_once = {"lease_seconds": 0.0} if ended == "expired" else {}
    with _store.session(str(state_dir), run=RUN, acquire=True, **at_once) as session:
        if ended == "released":
            session.release()
    assert read()["lease"] == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}'], ids=["no JSON", "no document", "half"])
def test_a_damaged_record_does_not_stop_the_reading(read: Call, state_dir: pathlib.Path, text: str) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "state.json").write_text(text)
    before = snapshot(state_dir)
    result = read()
    assert (result["state"], list(result["components"])) == (None, ["node_exporter"])
    assert snapshot(state_dir) == before


def failures(read: Call, state_dir: pathlib.Path, systemd: Systemd, case: str) -> Data:
    if case == "newer record":
        state_dir.mkdir(mode=0o700)
        (state_dir / "state.json").write_text('{"schema_version": 99}')
    if case == "no systemd":
        systemd.broken = "System has not been booted with systemd"
    return read(**({"specs": None} if case == "no half" else {}))


@pytest.mark.parametrize(
    ("case", "key", "says"),
    [
        ("no half", "input.invalid", "needs its half on the controller: call it as a task"),
        ("no systemd", "host.no_systemd", "(System has not been booted with systemd): only services that systemd runs"),
        (
            "newer record",
            "state.newer_schema",
            "state.json: its schema is version 99, this collection knows up to 1: use",
        ),
    ],
)
def test_what_it_cannot_do_is_said(
    read: Call, state_dir: pathlib.Path, systemd: Systemd, case: str, key: str, says: str
) -> None:
    result = failures(read, state_dir, systemd, case)
    assert (result["failed"], result["key"]) == (True, key)
    assert says in result["msg"]
