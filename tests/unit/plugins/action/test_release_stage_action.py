# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible.errors import AnsibleError
from ansible_collections.observability.stack.plugins.plugin_utils import _manifest
from ansible_collections.observability.stack.tests.unit.signers import ssh_keys
from ansible_collections.observability.stack.tests.unit.support import (
    Answer,
    Data,
    Web,
    elf_program,
    sha256,
    write_archive,
)

NAME = "prometheus-2.53.3.linux-amd64"
PROMETHEUS = elf_program("prometheus, version 2.53.3 (branch: HEAD)\n")


class Release:
    """A release on a server, and the task that stages it."""

    def __init__(self, act: t.Any, web: Web, root: pathlib.Path) -> None:
        self.act, self.web, self.root = act, web, root
        archive = write_archive(root / f"{NAME}.tar.gz", prometheus=PROMETHEUS)
        self.sha256 = sha256(archive)
        web.answers[f"/{NAME}.tar.gz"] = Answer(archive.read_bytes())
        web.answers["/sums"] = Answer(f"{self.sha256}  {NAME}.tar.gz\n".encode())

    def stage(self, *, release: t.Any = None, **changes: t.Any) -> Data:
        wanted = {
            "component": "prometheus",
            "version": "2.53.3",
            "url": f"{self.web.url}/{NAME}.tar.gz",
            "checksums": f"{self.web.url}/sums",
            "release": {"cache_dir": str(self.root / "cache"), **(release or {})},
            "members": {"prometheus": f"{NAME}/prometheus"},
            "architecture": "amd64",
        }
        return t.cast("Data", self.act("release_stage", **{**wanted, **changes}))


@pytest.fixture
def release(act: t.Any, web: Web, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setenv("no_proxy", "*")
    return Release(act, web, tmp_path)


def test_an_archive_is_fetched_pushed_and_staged(release: Release, state_dir: pathlib.Path) -> None:
    result = release.stage()
    assert (result["changed"], result["fetched"], result["archive_sha256"]) == (True, True, release.sha256)
    assert [file["path"] for file in result["files"]] == [
        str(state_dir / "staging" / "prometheus@2.53.3" / "prometheus")
    ]
    assert "needs_archive" not in result
    (sent,) = release.act.sent
    assert sent["archive_sha256"] == release.sha256
    assert pathlib.Path(sent["archive"]).is_relative_to(release.act.remote_tmp)


def test_an_instance_has_the_releases_of_its_component(release: Release, state_dir: pathlib.Path) -> None:
    result = release.stage(component="prometheus@9091", release={"pins": {"prometheus/2.53.3/amd64": release.sha256}})
    assert result["files"][0]["path"] == str(state_dir / "staging" / "prometheus@2.53.3" / "prometheus")
    assert result["verified"][1:] == [f"pin of {NAME}.tar.gz in upgrade_release_pins"]


def test_the_next_host_costs_no_request(release: Release, tmp_path: pathlib.Path) -> None:
    release.stage()
    release.web.asked.clear()
    result = release.stage(state_dir=str(tmp_path / "other"))
    assert (result["changed"], result["fetched"]) == (True, False)
    assert release.web.asked == []
    assert len(release.act.sent) == 2


def test_what_is_known_to_be_staged_is_not_pushed(release: Release) -> None:
    release.stage()
    release.act.sent.clear()
    result = release.stage(staged_sha256=release.sha256)
    assert (result["changed"], result["archive_sha256"]) == (False, release.sha256)
    assert "needs_archive" not in result
    assert [sent.get("archive") for sent in release.act.sent] == [None]


def test_what_was_thought_to_be_staged_is_pushed_when_the_host_lacks_it(release: Release) -> None:
    result = release.stage(staged_sha256=release.sha256)
    assert (result["changed"], "needs_archive" in result) == (True, False)
    assert [bool(sent.get("archive")) for sent in release.act.sent] == [False, True]


def test_another_archive_that_is_staged_saves_nothing(release: Release) -> None:
    assert release.stage(staged_sha256="0" * 64)["changed"] is True
    assert [bool(sent.get("archive")) for sent in release.act.sent] == [True]


def test_check_mode_fetches_and_proves_and_leaves_the_host_alone(release: Release, state_dir: pathlib.Path) -> None:
    result = release.stage(check=True)
    assert (result["changed"], result["fetched"]) == (True, True)
    assert not state_dir.exists()
    assert release.stage()["fetched"] is False


def test_a_mirror_stands_in(release: Release) -> None:
    url = {"url": f"https://github.invalid/{NAME}.tar.gz", "checksums": "https://github.invalid/sums"}
    assert release.stage(**url, release={"mirror": release.web.url})["fetched"] is True


def test_of_several_mirrors_the_next_one_is_asked_and_the_operator_told(
    release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    url = {"url": f"https://github.invalid/{NAME}.tar.gz", "checksums": "https://github.invalid/sums"}
    assert release.stage(**url, release={"mirror": [f"{release.web.url}/none", release.web.url]})["fetched"] is True
    assert release.web.asked == ["/none/sums", "/sums", f"/none/{NAME}.tar.gz", f"/{NAME}.tar.gz"]
    assert "/none/sums answered 404" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("path", "answer", "key", "says"),
    [
        (f"/{NAME}.tar.gz", Answer(b"evil"), "release.checksum", "it is damaged or was tampered with, and is not used"),
        (f"/{NAME}.tar.gz", Answer(b"", 404), "release.not_found", "answered 404 Not Found: is there such a release"),
        (
            "/sums",
            Answer(b"nothing"),
            "release.checksum_list",
            "is no list of sha256 checksums: its line 1 is 'nothing'",
        ),
    ],
)
def test_what_cannot_be_had_never_reaches_the_host(
    release: Release, path: str, answer: Answer, key: str, says: str
) -> None:
    release.web.answers[path] = answer
    result = release.stage()
    assert (result["failed"], result["key"]) == (True, key)
    assert says in result["msg"]
    assert release.act.sent == []


def test_what_the_host_refuses_fails_the_task(release: Release) -> None:
    result = release.stage(version="2.54.0")
    assert (result["failed"], result["key"], result["fetched"]) == (True, "release.version", True)


def test_the_host_is_told_what_vouches_for_it_and_not_how_it_was_had(release: Release, state_dir: pathlib.Path) -> None:
    pin = {f"{NAME}.tar.gz": release.sha256}
    result = release.stage(release={"pins": pin, "mirror": release.web.url.replace("//", "//me:geheim@")})
    vouched = [f"pin of {NAME}.tar.gz in upgrade_release_pins"]
    assert result["verified"][1:] == vouched
    assert result["verified"][0].startswith("sha256 of http://")
    (sent,) = release.act.sent
    assert (sent["verified"], sent["manifest_number"], "release" in sent) == (result["verified"], None, False)
    assert "geheim" not in json.dumps([sent, result])
    record = json.loads((state_dir / "state.json").read_text())["components"]["prometheus"]
    assert record["verified"] == result["verified"]


def test_a_host_that_has_seen_a_newer_manifest_refuses_the_release(release: Release, tmp_path: pathlib.Path) -> None:
    keys = ssh_keys(tmp_path, "alice")
    (tmp_path / "signers").write_text("alice " + keys["alice"].with_suffix(".pub").read_text())
    manifest = tmp_path / "releases.json"
    size = (tmp_path / f"{NAME}.tar.gz").stat().st_size
    entry = _manifest.Release("prometheus", "2.53.3", "amd64", f"{release.web.url}/{NAME}.tar.gz", size, release.sha256)

    def stage(number: int) -> Data:
        manifest.write_bytes(_manifest.create([entry], number=number, expires="2999-12-31T00:00:00Z"))
        manifest.with_name("releases.json.sig").unlink(missing_ok=True)
        _manifest.sign(str(manifest), key=str(keys["alice"]))
        own = {"path": str(manifest), "allowed_signers": str(tmp_path / "signers")}
        return release.stage(release={"manifest": own}, checksums="")

    assert stage(9)["verified"] == ["manifest 9 signed by alice"]
    assert release.web.asked == [f"/{NAME}.tar.gz"]
    assert (stage(8)["failed"], stage(8)["key"]) == (True, "manifest.older")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"pins": {"x": "y"}}, "input.bad_pin"),
        ({"limits": {"attempts": 0}}, "input.release_settings"),
        ({"mirorr": []}, "input.release_settings"),
    ],
)
def test_settings_that_are_wrong_are_told_before_anything_is_asked(release: Release, settings: Data, key: str) -> None:
    result = release.stage(release=settings)
    assert (result["failed"], result["key"]) == (True, key)
    assert release.web.asked == []


@pytest.mark.parametrize("name", ["url", "checksums", "component", "version", "architecture"])
@pytest.mark.parametrize("value", [None, 7, ["x"]])
def test_what_the_release_is_and_where_must_be_said(release: Release, name: str, value: t.Any) -> None:
    with pytest.raises(AnsibleError, match=f"release_stage needs {name}: (where )?the"):
        release.stage(**{name: value})
    assert release.web.asked == []
