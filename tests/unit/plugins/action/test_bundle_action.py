# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible_collections.observability.stack.plugins.modules import bundle
from ansible_collections.observability.stack.plugins.plugin_utils import _bundle
from ansible_collections.observability.stack.tests.unit import web_faults
from ansible_collections.observability.stack.tests.unit.support import Data, sha256, write_archive
from ansible_collections.observability.stack.tests.unit.web_faults import File, Origin

INDEX = {"github:x/x": [{"version": "1.9.0", "date": "2026-05-01", "prerelease": False}]}


class Fleet:
    """A plan of three hosts, two of which take the same release, and a server that has them."""

    def __init__(self, act: t.Any, origin: Origin, root: pathlib.Path) -> None:
        self.act, self.origin, self.root = act, origin, root
        self.dest, self.cache = root / "bundles" / "b.tar", root / "cache"
        sums = ""
        for architecture in ("amd64", "arm64"):
            archive = write_archive(root / f"x-{architecture}.tar.gz", x=architecture)
            origin.files[f"/{archive.name}"] = File(archive.read_bytes())
            sums += f"{sha256(archive)}  {archive.name}\n"
        origin.files["/sums"] = File(sums.encode())
        self.plan = {
            "digest": "d" * 64,
            "hosts": {
                "h1": {"x@1.9.0": self.step("amd64"), "y@2": {**self.step("amd64"), "component": "y", "stage": None}},
                "h2": {"x@1.9.0": self.step("amd64")},
                "h3": {"x@1.9.0": self.step("arm64")},
            },
        }

    def step(self, architecture: str) -> Data:
        url, checksums = f"{self.origin.url}/x-{architecture}.tar.gz", f"{self.origin.url}/sums"
        stage = {"url": url, "checksums": checksums, "architecture": architecture}
        return {"component": "x", "to": "1.9.0", "stage": stage}

    def bundle(self, *, check: bool = False, release: t.Any = None, **changes: t.Any) -> Data:
        given = {"cache_dir": str(self.cache), "limits": {"pause": 0, "longest_pause": 0}, **(release or {})}
        wanted = {"plan": self.plan, "index": INDEX, "dest": str(self.dest), "release": given}
        return t.cast("Data", self.act("bundle", check=check, **{**wanted, **changes}))


@pytest.fixture
def fleet(act: t.Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Fleet]:
    monkeypatch.setenv("no_proxy", "*")
    web_faults.one_context(monkeypatch)
    with Origin().serving() as origin:
        yield Fleet(act, origin, tmp_path)


def test_each_release_is_in_it_once_for_each_architecture(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    result = fleet.bundle()
    assert (result["changed"], result["dest"]) == (True, str(fleet.dest))
    made = _bundle.read(str(fleet.dest))
    assert [(each.component, each.version, each.architecture) for each in made.releases] == [
        ("x", "1.9.0", "amd64"),
        ("x", "1.9.0", "arm64"),
    ]
    assert [each._asdict() for each in made.releases] == result["releases"]
    assert made.releases[0].verified == [f"sha256 of {fleet.origin.url}/sums"]
    assert (made.plan, made.listing) == ("d" * 64, INDEX)
    asked = [request.path for request in fleet.origin.asked]
    assert sorted(asked) == ["/sums", "/x-amd64.tar.gz", "/x-arm64.tar.gz"]
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("1 of 2: x 1.9.0 for amd64, ")
    assert told[-1].startswith(f"{fleet.dest}: 2 releases, ")
    assert fleet.act.sent == []


def test_a_bundle_that_is_there_stays_unless_it_is_another(fleet: Fleet) -> None:
    fleet.bundle()
    before = fleet.dest.read_bytes()
    assert fleet.bundle()["changed"] is False
    assert fleet.dest.read_bytes() == before
    fleet.dest.write_bytes(before.replace(b"\x1f\x8b", b"\x00\x00", 1))
    assert fleet.bundle()["changed"] is True
    assert fleet.bundle(index={})["changed"] is True


def test_check_mode_proves_and_writes_nothing(fleet: Fleet) -> None:
    assert fleet.bundle(check=True)["changed"] is True
    assert not fleet.dest.parent.exists()


def test_a_bundle_is_made_of_a_bundle_without_asking_anybody(fleet: Fleet) -> None:
    fleet.bundle()
    fleet.origin.asked.clear()
    other = fleet.root / "other.tar"
    fleet.bundle(dest=str(other), release={"bundle": str(fleet.dest), "cache_dir": str(fleet.root / "empty")})
    assert fleet.origin.asked == []
    assert _bundle.read(str(other)).releases[0].verified == [
        "nothing but bundle b.tar itself: set upgrade_bundle_sha256",
        f"claim of bundle b.tar, not verified here: sha256 of {fleet.origin.url}/sums",
    ]


@pytest.mark.parametrize(
    ("path", "fault", "key"),
    [("/sums", web_faults.status(404), "release.no_list"), ("/x-amd64.tar.gz", web_faults.page, "release.checksum")],
)
def test_what_cannot_be_had_makes_no_bundle(fleet: Fleet, path: str, fault: web_faults.Fault, key: str) -> None:
    fleet.origin.faults = [None, fault] if path != "/sums" else [fault]
    result = fleet.bundle()
    assert (result["failed"], result["key"]) == (True, key)
    assert not fleet.dest.exists()


def test_a_bundle_without_a_place_is_told(fleet: Fleet) -> None:
    with pytest.raises(AnsibleError, match="the bundle has no place: set upgrade_bundle_dest, or upgrade_report_dir"):
        fleet.bundle(dest="")
    assert fleet.origin.asked == []


def test_wrong_settings_are_told_in_a_line(fleet: Fleet) -> None:
    result = fleet.bundle(release={"pins": {"x": "short"}})
    assert (result["failed"], result["key"]) == (True, "input.bad_pin")


def test_all_that_is_taken_is_documented() -> None:
    assert sorted(yaml.safe_load(bundle.DOCUMENTATION)["options"]) == ["dest", "index", "plan", "release"]
