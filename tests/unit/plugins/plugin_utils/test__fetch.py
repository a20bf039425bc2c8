# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import ReleaseError
from ansible_collections.observability.stack.plugins.plugin_utils import _fetch
from ansible_collections.observability.stack.tests.unit.support import Answer, Web, snapshot

CONTENT = b"an archive" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ARCHIVE, LIST = "/prometheus/v1/x-1.linux-amd64.tar.gz", "/prometheus/v1/sha256sums.txt"
NAME = "x-1.linux-amd64.tar.gz"


class Releases:
    """A place for releases, and a cache."""

    def __init__(self, web: Web, cache: pathlib.Path) -> None:
        self.web, self.cache = web, cache
        web.answers[ARCHIVE] = Answer(CONTENT)
        web.answers[LIST] = Answer(f"{'0' * 64}  other.tar.gz\n{SHA256}  {NAME}\n".encode())

    def fetch(self, *, archive: str = ARCHIVE, listing: str = LIST, **more: t.Any) -> _fetch.Archive:
        base = more.pop("base", self.web.url)
        return _fetch.fetch(f"{base}{archive}", checksums=f"{base}{listing}", cache_dir=str(self.cache), **more)

    def refused(self, **arguments: t.Any) -> ReleaseError:
        with pytest.raises(ReleaseError) as failure:
            self.fetch(**arguments)
        return failure.value

    def kept(self) -> list[str]:
        """All files in the cache but the locks."""
        return sorted(path.name for path in self.cache.rglob("*") if path.is_file() and path.parent.name != "locks")


@pytest.fixture
def releases(web: Web, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    monkeypatch.setenv("no_proxy", "*")
    return Releases(web, tmp_path / "cache")


def test_an_archive_is_fetched_and_kept_by_its_content(releases: Releases) -> None:
    archive = releases.fetch()
    assert archive == _fetch.Archive(str(releases.cache / "sha256" / SHA256), SHA256, fetched=True)
    assert pathlib.Path(archive.path).read_bytes() == CONTENT
    assert releases.web.asked == [LIST, ARCHIVE]
    assert {path.stat().st_mode & 0o777 for path in releases.cache.iterdir()} == {0o700}


def test_what_is_in_the_cache_costs_no_request_and_changes_nothing(releases: Releases) -> None:
    first = releases.fetch()
    releases.web.asked.clear()
    before = snapshot(releases.cache)
    assert releases.fetch() == first._replace(fetched=False)
    assert releases.web.asked == []
    assert snapshot(releases.cache) == before


def test_two_archives_of_one_list_are_both_kept(releases: Releases) -> None:
    other = ARCHIVE.replace(NAME, "other.tar.gz")
    releases.web.answers[other] = Answer(b"other")
    digest = hashlib.sha256(b"other").hexdigest()
    releases.web.answers[LIST] = Answer(f"{digest}  other.tar.gz\n{SHA256}  {NAME}\n".encode())
    assert [releases.fetch(archive=path).fetched for path in (ARCHIVE, other, ARCHIVE, other)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("damage", ["archive changed", "archive gone", "list gone", "list changed"])
def test_a_cache_that_is_not_whole_is_mended(releases: Releases, damage: str) -> None:
    first = releases.fetch()
    path = pathlib.Path(first.path)
    if "list" in damage:
        (path,) = (releases.cache / "lists").iterdir()
    path.unlink() if "gone" in damage else path.write_bytes(b"rot")
    assert releases.fetch() == first
    assert pathlib.Path(first.path).read_bytes() == CONTENT
    assert releases.fetch().fetched is False


def test_what_a_killed_run_left_does_not_stand_in_the_way(releases: Releases) -> None:
    (releases.cache / "sha256").mkdir(parents=True)
    (releases.cache / "sha256" / f"{SHA256}.part").write_bytes(b"half of another")
    assert pathlib.Path(releases.fetch().path).read_bytes() == CONTENT
    assert len(releases.kept()) == 2


def test_the_archive_alone_is_not_fetched_again_when_its_list_is_new(releases: Releases) -> None:
    releases.fetch()
    releases.web.answers["/mirrored/sums"] = releases.web.answers[LIST]
    releases.web.asked.clear()
    releases.fetch(listing="/mirrored/sums")
    assert releases.web.asked == ["/mirrored/sums"]


# -- many at once -------------------------------------------------------------------------------------------------


FETCH = f"""
import json, sys
from {_fetch.__name__} import fetch
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(fetch(sys.argv[1], checksums=sys.argv[2], cache_dir=sys.argv[3])), flush=True)
"""


def test_of_many_processes_one_fetches_and_the_others_wait(releases: Releases) -> None:
    argv = [
        sys.executable,
        "-c",
        FETCH,
        *(f"{releases.web.url}{path}" for path in (ARCHIVE, LIST)),
        str(releases.cache),
    ]
    path = os.pathsep.join([str(pathlib.Path(_fetch.__file__).parents[5]), *sys.path])
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": path},
                )
            )
            for _worker in range(3)
        ]
        assert [worker.stdout.readline() for worker in workers if worker.stdout] == ["ready\n"] * 3
        for worker in workers:
            if worker.stdin:
                worker.stdin.write("go\n")
                worker.stdin.flush()
        found = [_fetch.Archive(*json.loads(worker.stdout.readline())) for worker in workers if worker.stdout]
    assert sorted(archive.fetched for archive in found) == [False, False, True]
    assert {archive.path for archive in found} == {str(releases.cache / "sha256" / SHA256)}
    assert releases.web.asked == [LIST, ARCHIVE]


def test_who_waits_for_one_that_fails_tries_for_itself(releases: Releases) -> None:
    good = releases.web.answers[ARCHIVE]
    releases.web.answers[ARCHIVE] = Answer(b"", 500)
    assert "answered 500" in str(releases.refused())
    releases.web.answers[ARCHIVE] = good
    assert releases.fetch().fetched is True


# -- from elsewhere -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["/mirror", "/mirror/"])
def test_a_mirror_stands_in_for_the_release_hosts(releases: Releases, base: str) -> None:
    for path in (ARCHIVE, LIST):
        releases.web.answers[f"/mirror{path}"] = releases.web.answers.pop(path)
    archive = releases.fetch(base="https://github.invalid", mirror=f"{releases.web.url}{base}")
    assert (archive.sha256, releases.web.asked) == (SHA256, [f"/mirror{LIST}", f"/mirror{ARCHIVE}"])


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_redirects_are_followed(releases: Releases, status: int) -> None:
    releases.web.answers["/storage/1"] = releases.web.answers[ARCHIVE]
    releases.web.answers[ARCHIVE] = Answer(b"", status, {"Location": f"{releases.web.url}/storage/1"})
    assert releases.fetch().sha256 == SHA256
    assert releases.web.asked == [LIST, ARCHIVE, "/storage/1"]


def test_the_cache_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _fetch.default_cache_dir() == str(tmp_path / ".cache" / "observability-upgrades")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _fetch.default_cache_dir() == str(tmp_path / "xdg" / "observability-upgrades")


# -- what isn't used ----------------------------------------------------------------------------------------------


def test_an_archive_that_is_not_what_the_list_says_is_not_used(releases: Releases) -> None:
    releases.web.answers[ARCHIVE] = Answer(b"evil")
    failure = releases.refused()
    assert failure.key == "release.checksum"
    assert str(failure) == (
        f"{releases.web.url}{ARCHIVE} has sha256 {hashlib.sha256(b'evil').hexdigest()}, "
        f"but {releases.web.url}{LIST} says {SHA256}: it is damaged or was tampered with, and is not used"
    )
    assert releases.kept() == []


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        (Answer(CONTENT[:100], length=len(CONTENT)), "release.checksum"),
        (Answer(b"2710\r\nhalf", headers={"Transfer-Encoding": "chunked"}), "release.unavailable"),
        (Answer(b"\r\nno length", headers={"Transfer-Encoding": "chunked"}), "release.unavailable"),
    ],
    ids=["shorter than announced", "in the middle of a chunk", "no chunk at all"],
)
def test_an_archive_that_was_cut_off_is_not_used(releases: Releases, answer: Answer, key: str) -> None:
    releases.web.answers[ARCHIVE] = answer
    failure = releases.refused()
    assert failure.key == key
    assert f"{releases.web.url}{ARCHIVE}" in str(failure)
    assert releases.kept() == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "answered 404 Not Found: is there such a release, for this architecture?"),
        (403, "answered 403 Forbidden: is access to it limited, or a rate limit reached?"),
        (429, "answered 429 Too Many Requests: too many requests; try again later"),
        (500, "answered 500 Internal Server Error: try again, or set upgrade_release_mirror"),
    ],
)
@pytest.mark.parametrize("path", [ARCHIVE, LIST])
def test_a_server_that_refuses_is_named_with_what_to_do(releases: Releases, path: str, status: int, says: str) -> None:
    releases.web.answers[path] = Answer(b"no", status)
    failure = releases.refused()
    assert (str(failure), failure.key) == (f"{releases.web.url}{path} {says}", "release.unavailable")
    assert releases.kept() == []


def test_a_server_that_does_not_answer_is_named_with_what_to_do(releases: Releases) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{unused.getsockname()[1]}"
        failure = releases.refused(base=base)
    assert failure.key == "release.unavailable"
    assert str(failure).startswith(f"{base}{LIST} can't be fetched: ")
    assert str(failure).endswith("Without internet, set upgrade_release_mirror")


def test_an_archive_that_is_not_listed_is_not_even_fetched(releases: Releases) -> None:
    releases.web.answers[LIST] = Answer(f"{SHA256}  {NAME}.asc\n{'0' * 64}  other\n".encode())
    failure = releases.refused()
    assert failure.key == "release.no_checksum"
    assert f"{LIST} has no sha256 for {NAME}: nothing is fetched without one" in str(failure)
    assert releases.web.asked == [LIST]


@pytest.mark.parametrize("path", [f"{ARCHIVE}?token=geheim", ARCHIVE])
@pytest.mark.parametrize("case", ["checksum", "missing", "not listed"])
def test_secrets_in_an_address_are_not_told(releases: Releases, path: str, case: str) -> None:
    releases.web.answers[f"{ARCHIVE}?token=geheim"] = releases.web.answers[ARCHIVE] = Answer(b"evil")
    releases.web.answers[f"{LIST}?token=geheim"] = releases.web.answers[LIST]
    if case == "missing":
        releases.web.answers.clear()
    if case == "not listed":
        releases.web.answers[f"{LIST}?token=geheim"] = Answer(b"nothing\n")
    base = releases.web.url.replace("//", "//ops:geheim@")
    failure = releases.refused(base=base, archive=path, listing=f"{LIST}?token=geheim")
    assert "geheim" not in str(failure)
    assert LIST in str(failure)


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (f"{SHA256}  {NAME}\n", SHA256),
        (f"{SHA256} *{NAME}\n", SHA256),
        (f"{SHA256}\n", SHA256),
        (f"{SHA256.upper()}  {NAME}\n", SHA256),
        (f"{SHA256}  another-name.tar.gz\n", SHA256),
        (f"{'0' * 64}  a\n{SHA256}  ./{NAME}\n", SHA256),
        (f"{'0' * 64}  {NAME}.sig\n{SHA256}  {NAME}\n", SHA256),
        (f"{'0' * 64}  a\n{'1' * 64}  b\n", None),
        (f"{'0' * 64}  a\n{SHA256}  dir/{NAME}\n", None),
        (f"{SHA256[:-1]}  {NAME}\n", None),
        ("<html>not found</html>", None),
        ("", None),
    ],
)
def test_a_list_of_checksums_is_read_as_they_are_written(listing: str, found: str | None) -> None:
    if found:
        assert _fetch.expected_sha256(listing, name=NAME, url="u") == found
    else:
        with pytest.raises(ReleaseError, match="u has no sha256 for x-1"):
            _fetch.expected_sha256(listing, name=NAME, url="u")
