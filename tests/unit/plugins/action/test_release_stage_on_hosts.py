# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""release_stage where hosts fetch by themselves, and ahead of upgrades."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _candidates, _store
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.plugins.plugin_utils import _bundle
from ansible_collections.observability.stack.tests.unit import web_faults
from ansible_collections.observability.stack.tests.unit.support import (
    OTHER_RUN,
    RUN,
    Data,
    elf_program,
    sha256,
    snapshot,
    write_archive,
)
from ansible_collections.observability.stack.tests.unit.web_faults import File, Origin

NAME = "prometheus-2.53.3.linux-amd64"
ARCHIVE = f"/{NAME}.tar.gz"
PROMETHEUS = elf_program("prometheus, version 2.53.3 (branch: HEAD)\n")
KEY = "prometheus@2.53.3"
QUICK = {"pause": 0, "longest_pause": 0}


class Site:
    """A server with a release, a host, and the task that stages it there."""

    def __init__(self, act: t.Any, origin: Origin, root: pathlib.Path, state: pathlib.Path) -> None:
        self.act, self.origin, self.root, self.state = act, origin, root, state
        self.archive = write_archive(root / f"{NAME}.tar.gz", prometheus=PROMETHEUS, notes="x" * 5000)
        self.sha256, self.cache = sha256(self.archive), root / "cache"
        origin.files[ARCHIVE] = File(self.archive.read_bytes())
        origin.files["/sums"] = File(f"{self.sha256}  {NAME}.tar.gz\n".encode())

    def stage(self, *, release: t.Any = None, **changes: t.Any) -> Data:
        wanted = {
            "component": "prometheus",
            "version": "2.53.3",
            "url": f"{self.origin.url}{ARCHIVE}",
            "checksums": f"{self.origin.url}/sums",
            "release": {"cache_dir": str(self.cache), "limits": QUICK, **(release or {})},
            "members": {"prometheus": f"{NAME}/prometheus"},
            "architecture": "amd64",
        }
        return t.cast("Data", self.act("release_stage", **{**wanted, **changes}))

    def by_host(self, **changes: t.Any) -> Data:
        return self.stage(fetch="host", **changes)

    def ahead(self, **changes: t.Any) -> Data:
        return self.stage(ahead=True, **{"run": RUN, **changes})

    @property
    def asked(self) -> list[str]:
        return [request.path for request in self.origin.asked]

    @property
    def waiting(self) -> list[str]:
        """What is in the staging directory of the host."""
        return sorted(path.name for path in (self.state / "staging").iterdir())


@pytest.fixture
def site(
    act: t.Any, tmp_path: pathlib.Path, state_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    web_faults.one_context(monkeypatch)
    with Origin().serving() as origin:
        yield Site(act, origin, tmp_path, state_dir)


# -- by each host itself ------------------------------------------------------------------------------------------


def test_a_host_fetches_what_the_controller_says_it_must_be(site: Site) -> None:
    result = site.by_host()
    assert (result["changed"], result["fetched"], result["archive_sha256"]) == (True, True, site.sha256)
    assert result["verified"] == [f"sha256 of {site.origin.url}/sums"]
    assert site.asked == ["/sums", ARCHIVE]
    assert site.waiting == [KEY]
    (sent,) = site.act.sent
    assert (sent.get("archive"), sent["urls"]) == (None, [f"{site.origin.url}{ARCHIVE}"])
    assert list((site.cache / "sha256").iterdir()) == []
    assert [path for path in site.act.remote_tmp.rglob("*") if path.is_file()] == []


def test_what_a_host_has_it_does_not_fetch_again(site: Site) -> None:
    site.by_host()
    site.origin.asked.clear()
    result = site.by_host()
    assert (result["changed"], result["fetched"], site.asked) == (False, False, [])


def test_a_host_goes_on_with_what_came_before_the_line_broke(site: Site) -> None:
    site.origin.faults = [None, web_faults.dies_after(100)]
    result = site.by_host(release={"limits": {**QUICK, "attempts": 1}})
    assert (result["failed"], result["key"]) == (True, "release.incomplete")
    assert site.waiting == [f"{KEY}{_candidates.FETCH}"]
    assert site.by_host()["fetched"] is True
    assert site.origin.ranges(ARCHIVE) == ["", "bytes=100-"]
    assert site.origin.sent(ARCHIVE) == len(site.archive.read_bytes())
    assert site.waiting == [KEY]


def test_a_host_asks_the_mirrors_in_turn_and_tells(site: Site) -> None:
    result = site.by_host(release={"mirror": [f"{site.origin.url}/none", site.origin.url]})
    assert result["changed"] is True
    assert site.asked == ["/none/sums", "/sums", f"/none{ARCHIVE}", ARCHIVE]
    assert "/none" in json.dumps(result["warnings"])


@pytest.mark.parametrize(
    ("fault", "key", "says"),
    [
        (web_faults.status(404), "release.not_found", "answered 404 Not Found: is there such a release"),
        (web_faults.status(403), "release.forbidden", "answered 403 Forbidden"),
        (web_faults.page, "release.checksum", "but the controller says"),
    ],
)
def test_what_a_host_cannot_have_is_told_and_nothing_of_it_stays(
    site: Site, fault: web_faults.Fault, key: str, says: str
) -> None:
    site.origin.faults = [None, fault]
    result = site.by_host()
    assert (result["failed"], result["key"]) == (True, key)
    assert says in result["msg"]
    assert [path for path in (site.state / "staging").rglob("*") if path.is_file()] == []
    assert site.by_host()["changed"] is True


def test_a_host_takes_no_more_than_the_limit(site: Site) -> None:
    result = site.by_host(release={"limits": {**QUICK, "size": 100}})
    assert (result["failed"], result["key"]) == (True, "release.too_large")


def test_a_full_host_is_told_without_advice_for_the_controller(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    result = site.by_host()
    assert (result["failed"], result["key"]) == (True, "release.no_space")
    assert f"{KEY}.fetch has no space left on the host: " in result["msg"]
    assert result["msg"].endswith("free some")


def test_check_mode_fetches_and_leaves_nothing_on_the_host(site: Site) -> None:
    result = site.by_host(check=True)
    assert (result["changed"], result["fetched"]) == (True, True)
    assert not site.state.exists()
    assert [path for path in (site.root / "remote").rglob("*") if path.is_file()] == []


def test_a_password_of_a_mirror_stays_out_of_results(site: Site) -> None:
    mirror = site.origin.url.replace("://", "://ops:gehe1m@")
    for limits in (QUICK, {**QUICK, "size": 100}):
        assert "gehe1m" not in json.dumps(site.by_host(release={"mirror": [mirror], "limits": limits}))
    sent = site.act.sent[-1]
    assert "gehe1m" not in json.dumps({**sent, "private_urls": []})
    assert sent["private_urls"] == [f"{mirror}{ARCHIVE}"]


def test_what_a_module_logs_of_its_arguments_has_no_login_of_a_url(site: Site) -> None:
    secret = f"{site.origin.url}{ARCHIVE}?token=gehe1m".replace("://", "://ops:gehe1m@")
    site.stage(url=secret, checksums=f"{site.origin.url}/sums?token=gehe1m")
    assert "gehe1m" not in json.dumps(site.act.sent)


def test_what_needs_the_archive_on_the_controller_does_not_go_together_with_it(site: Site) -> None:
    key = site.root / "key.gpg"
    key.touch()
    signatures = {"prometheus": {"keys": [str(key)], "signature": "{url}.asc", "of": "archive"}}
    result = site.by_host(release={"signatures": signatures})
    assert (result["failed"], result["key"]) == (True, "input.release_settings")
    assert "upgrade_fetch=host" in result["msg"]
    assert site.act.sent == []


def bundle(site: Site) -> str:
    """A bundle with the release in it."""
    size = site.archive.stat().st_size
    url = f"{site.origin.url}{ARCHIVE}"
    release = _bundle.Release("prometheus", "2.53.3", "amd64", url, site.sha256, size, ["sha256 of a list"])
    path = site.root / "b.tar"
    _bundle.write(str(path), [(release, str(site.archive))], made_at="2026-11-21T10:00:00Z", plan="d", index={})
    return str(path)


@pytest.mark.parametrize("fetch", ["controller", "host"])
def test_with_a_bundle_nobody_asks_the_network(site: Site, fetch: str) -> None:
    result = site.stage(fetch=fetch, release={"bundle": bundle(site), "mirror": ["http://127.0.0.1:1"]})
    assert (result["changed"], result["fetched"]) == (True, False)
    assert result["verified"] == [
        "nothing but bundle b.tar itself: set upgrade_bundle_sha256",
        "claim of bundle b.tar, not verified here: sha256 of a list",
    ]
    assert (site.asked, site.waiting) == ([], [KEY])


def test_a_release_that_a_bundle_lacks_fails_the_task(site: Site) -> None:
    result = site.stage(version="2.54.0", release={"bundle": bundle(site)})
    assert (result["failed"], result["key"]) == (True, "bundle.no_release")
    assert "b.tar doesn't have prometheus 2.54.0 for amd64" in result["msg"]
    assert (site.asked, site.act.sent) == ([], [])


# -- ahead of an upgrade ------------------------------------------------------------------------------------------


def test_ahead_of_an_upgrade_only_the_files_are_there(site: Site) -> None:
    result = site.ahead()
    assert (result["changed"], site.waiting) == (True, [KEY])
    assert _store.peek(str(site.state)) is None
    assert "upgrade_id" not in _store.read_lease(str(site.state))
    again = snapshot(site.state / "staging")
    assert site.ahead()["changed"] is False
    assert snapshot(site.state / "staging") == again
    assert _candidates.archives(_store.Layout(str(site.state))) == {KEY: site.sha256}


def test_ahead_of_an_upgrade_a_host_that_is_upgraded_is_left_alone(site: Site) -> None:
    with _store.session(str(site.state), run=OTHER_RUN, acquire=True):
        pass
    result = site.ahead()
    assert (result["failed"], result["key"]) == (True, "lock.held")
    assert site.waiting == []
    assert _store.read_lease(str(site.state))["upgrade_id"] == OTHER_RUN["upgrade_id"]


def test_ahead_of_an_upgrade_check_mode_leaves_nothing(site: Site) -> None:
    assert site.ahead(check=True)["changed"] is True
    assert not site.state.exists()


def upgrade(site: Site) -> None:
    """An upgrade begins on the host."""
    with _store.session(str(site.state), run=RUN, acquire=True) as session:
        step = Step("prometheus", "2.53.3")
        session.document.begin(RUN, steps=[step.key], details={}, now=session.now)
        session.save()


@pytest.mark.parametrize("cache", ["kept", "gone"])
def test_the_upgrade_then_transfers_nothing(site: Site, cache: str) -> None:
    site.ahead()
    upgrade(site)
    site.act.sent.clear()
    site.origin.asked.clear()
    if cache == "gone":
        shutil.rmtree(site.cache)
    result = site.stage(run=RUN, staged_sha256=site.sha256)
    assert (result["changed"], result["fetched"]) == (False, False)
    assert [sent.get("archive") for sent in site.act.sent] == [None]
    assert site.asked == ([] if cache == "kept" else ["/sums"])
    state = json.loads((site.state / "state.json").read_text())
    assert state["components"]["prometheus"]["state"] == "staged"


def test_what_was_staged_of_a_release_that_was_made_anew_is_staged_anew(site: Site) -> None:
    site.ahead()
    upgrade(site)
    shutil.rmtree(site.cache)
    old = site.sha256
    write_archive(site.archive, prometheus=PROMETHEUS, notes="other")
    site.origin.files[ARCHIVE] = File(site.archive.read_bytes())
    site.origin.files["/sums"] = File(f"{sha256(site.archive)}  {NAME}.tar.gz\n".encode())
    result = site.stage(run=RUN, staged_sha256=old)
    assert (result["changed"], result["archive_sha256"]) == (True, sha256(site.archive))


def test_by_each_host_itself_and_ahead_go_together(site: Site) -> None:
    assert site.by_host(ahead=True, run=RUN)["fetched"] is True
    assert site.waiting == [KEY]
    assert _store.peek(str(site.state)) is None
