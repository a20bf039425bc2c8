# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError
from ansible_collections.observability.stack.plugins.plugin_utils import _fetch, _release_settings
from ansible_collections.observability.stack.tests.unit.support import Answer, Web, eventually, snapshot
from ansible_collections.observability.stack.tests.unit.web_faults import Hands, one_context

CONTENT = b"an archive" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ARCHIVE, LIST = "/prometheus/v1/x-1.linux-amd64.tar.gz", "/prometheus/v1/sha256sums.txt"
NAME = "x-1.linux-amd64.tar.gz"


class Releases:
    """A place for releases, and a cache."""

    def __init__(self, web: Web, cache: pathlib.Path) -> None:
        self.web, self.cache, self.hands = web, cache, Hands(wall=time.time())
        web.answers[ARCHIVE] = Answer(CONTENT)
        web.answers[LIST] = Answer(f"{'0' * 64}  other.tar.gz\n{SHA256}  {NAME}\n".encode())

    def fetch(self, *, archive: str = ARCHIVE, listing: str = LIST, **more: t.Any) -> _fetch.Archive:
        base = more.pop("base", self.web.url)
        more.setdefault("tools", self.hands.tools)
        return _fetch.fetch(f"{base}{archive}", checksums=f"{base}{listing}", cache_dir=str(self.cache), **more)

    def refused(self, **arguments: t.Any) -> ReleaseError:
        with pytest.raises(ReleaseError) as failure:
            self.fetch(**arguments)
        return failure.value

    def kept(self) -> list[str]:
        """All that is in the cache of archives."""
        return sorted(path.name for path in (self.cache / "sha256").iterdir())

    def has_another(self, content: bytes = b"other") -> str:
        """An archive of the same release. Returns its path."""
        other = ARCHIVE.replace(NAME, "other.tar.gz")
        self.web.answers[other] = Answer(content)
        digest = hashlib.sha256(content).hexdigest()
        self.web.answers[LIST] = Answer(f"{digest}  other.tar.gz\n{SHA256}  {NAME}\n".encode())
        return other

    def lists(self) -> list[pathlib.Path]:
        return list((self.cache / "lists").iterdir())


@pytest.fixture
def releases(web: Web, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    monkeypatch.setenv("no_proxy", "*")
    one_context(monkeypatch)
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


def test_two_archives_of_one_list_are_both_kept_and_the_list_is_asked_for_once(releases: Releases) -> None:
    other = releases.has_another()
    hosts = [releases.fetch(archive=path).fetched for path in (ARCHIVE, other) * 25]
    assert hosts == [True, True] + [False] * 48
    assert releases.web.asked == [LIST, ARCHIVE, other]


def test_a_list_that_is_older_than_an_hour_is_asked_for_again_for_what_is_not_there(releases: Releases) -> None:
    releases.fetch()
    releases.hands.now += 3601
    assert releases.fetch().fetched is False
    assert releases.web.asked == [LIST, ARCHIVE]
    other = releases.has_another()
    releases.fetch(archive=other)
    assert releases.web.asked == [LIST, ARCHIVE, LIST, other]


def test_a_release_that_was_made_anew_is_taken_with_its_new_list(releases: Releases) -> None:
    other = releases.has_another(b"first")
    releases.fetch()
    releases.has_another(b"second")
    assert pathlib.Path(releases.fetch(archive=other).path).read_bytes() == b"second"
    assert releases.web.asked == [LIST, ARCHIVE, other, LIST, other]


def test_a_list_that_led_to_wrong_bytes_is_not_kept(releases: Releases) -> None:
    releases.web.answers[ARCHIVE] = Answer(b"evil")
    releases.refused()
    assert releases.lists() == []
    assert releases.web.asked == [LIST, ARCHIVE]


@pytest.mark.parametrize("damage", ["archive changed", "archive gone", "list gone", "list changed"])
def test_a_cache_that_is_not_whole_is_mended(releases: Releases, damage: str) -> None:
    first = releases.fetch()
    path = pathlib.Path(first.path)
    if "list" in damage:
        (path,) = (releases.cache / "lists").iterdir()
    path.unlink() if "gone" in damage else path.write_bytes(b"rot")
    assert releases.fetch() == first._replace(fetched="archive" in damage)
    assert pathlib.Path(first.path).read_bytes() == CONTENT
    assert releases.fetch().fetched is False


# -- a cache that somebody else can write to ----------------------------------------------------------------------

EVIL = b"evil" * 1000
EVIL_SHA256 = hashlib.sha256(EVIL).hexdigest()
NOBODY = 65534


def planted(releases: Releases, content: object) -> None:
    """An archive, and a list that names it where that of the release is kept."""
    key = hashlib.sha256(f"{releases.web.url}{LIST}".encode()).hexdigest()
    for kind, name, data in (("sha256", EVIL_SHA256, EVIL), ("lists", key, json.dumps(content).encode())):
        (releases.cache / kind).mkdir(parents=True, exist_ok=True, mode=0o700)
        (releases.cache / kind / name).write_bytes(data)


def test_a_list_in_the_cache_counts_for_the_place_that_it_came_from_only(releases: Releases) -> None:
    listing = base64.b64encode(f"{EVIL_SHA256}  {NAME}\n".encode()).decode()
    for content in (
        {"url": "https://mirror.example/sha256sums.txt", "content": listing},
        {"url": None, "content": listing},
        {"content": listing},
        f"{EVIL_SHA256}  {NAME}\n",
        [],
    ):
        planted(releases, content)
        assert releases.fetch().sha256 == SHA256
    assert pathlib.Path(releases.fetch().path).read_bytes() == CONTENT


def test_of_a_list_that_was_kept_the_mirror_that_it_came_from_is_told(releases: Releases) -> None:
    releases.web.answers[f"/second{LIST}"] = releases.web.answers.pop(LIST)
    releases.web.answers[f"/second{ARCHIVE}"] = releases.web.answers[ARCHIVE]
    told: list[str] = []

    def says(listing: bytes, url: str, _asked: bool) -> str:
        told.append(url)
        return SHA256

    mirrors = [releases.web.url + path for path in ("/first", "/second")]
    for _run in range(2):
        cache = _fetch.Cache(str(releases.cache), mirror=mirrors, tools=releases.hands.tools)
        cache.listed(f"https://x.invalid{ARCHIVE}", f"https://x.invalid{LIST}", says)
    assert told == [f"{mirrors[1]}{LIST}"] * 2


@pytest.mark.parametrize("place", ["", "sha256", "lists", "locks"])
def test_a_cache_that_somebody_else_owns_is_refused_by_name(releases: Releases, place: str) -> None:
    releases.fetch()
    os.chown(releases.cache / place, NOBODY, 0)
    with pytest.raises(InputError, match="is not used as a cache") as failure:
        releases.fetch()
    assert failure.value.key == "input.cache_dir"
    assert f"{str(releases.cache / place).rstrip('/')} belongs to user nobody" in str(failure.value)
    with pytest.raises(InputError, match="is not used as a cache"):
        _fetch.prune(str(releases.cache), keep_bytes=1)


@pytest.mark.parametrize("kind", ["archive", "list", "lock"])
@pytest.mark.parametrize("how", ["link", "foreign"])
def test_a_file_in_the_cache_that_is_not_the_operators_own_is_refused(
    releases: Releases, kind: str, how: str, tmp_path: pathlib.Path
) -> None:
    archive = pathlib.Path(releases.fetch().path)
    path = {"archive": archive, "list": releases.lists()[0], "lock": releases.cache / "locks" / SHA256}[kind]
    if how == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.chown(path, NOBODY, 0)
    if kind == "lock":
        archive.unlink()
    with pytest.raises(InputError, match="Look at who put it there") as failure:
        releases.fetch()
    assert str(path) in str(failure.value)


# -- what is left over --------------------------------------------------------------------------------------------


def test_what_a_killed_run_left_does_not_stand_in_the_way(releases: Releases) -> None:
    (releases.cache / "sha256").mkdir(parents=True)
    (releases.cache / "sha256" / f"{SHA256}.part").write_bytes(b"half of another")
    assert pathlib.Path(releases.fetch().path).read_bytes() == CONTENT
    assert releases.kept() == [SHA256]


def test_the_archive_alone_is_not_fetched_again_when_its_list_is_new(releases: Releases) -> None:
    releases.fetch()
    releases.web.answers["/mirrored/sums"] = releases.web.answers[LIST]
    releases.web.asked.clear()
    releases.fetch(listing="/mirrored/sums")
    assert releases.web.asked == ["/mirrored/sums"]


# -- many at once -------------------------------------------------------------------------------------------------


FETCH = f"""
import json, sys
from {_fetch.__name__} import ReleaseError, fetch
print("ready", flush=True)
sys.stdin.readline()
try:
    found = fetch(sys.argv[1], checksums=sys.argv[2], cache_dir=sys.argv[3])
except ReleaseError as exc:
    found = [exc.key, str(exc)]
print(json.dumps(found), flush=True)
"""


@contextlib.contextmanager
def processes(releases: Releases, archives: list[str]) -> t.Iterator[list[subprocess.Popen[str]]]:
    """One for each archive, that fetches it as soon as it is told to go."""
    path = os.pathsep.join([str(pathlib.Path(_fetch.__file__).parents[5]), *sys.path])
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        FETCH,
                        *(f"{releases.web.url}{path}" for path in (archive, LIST)),
                        str(releases.cache),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": path},
                )
            )
            for archive in archives
        ]
        assert [worker.stdout.readline() for worker in workers if worker.stdout] == ["ready\n"] * len(archives)
        yield workers


def go(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        if worker.stdin:
            worker.stdin.write("go\n")
            worker.stdin.flush()


def test_of_many_processes_one_fetches_and_the_others_wait(releases: Releases) -> None:
    other = releases.has_another()
    with processes(releases, [ARCHIVE, other] * 2) as workers:
        go(workers)
        found = [_fetch.Archive(*json.loads(worker.stdout.readline())) for worker in workers if worker.stdout]
    assert sorted(archive.fetched for archive in found) == [False] * 2 + [True] * 2
    assert {archive.path for archive in found} == {str(releases.cache / "sha256" / name) for name in releases.kept()}
    assert sorted(releases.web.asked) == sorted([LIST, ARCHIVE, other])


def test_who_waited_for_one_that_fails_is_told_the_same(releases: Releases) -> None:
    """Otherwise fifty hosts would find out one after the other, with all attempts."""
    meanwhile = threading.Event()

    def slowly() -> Answer:
        meanwhile.wait(30)
        return Answer(b"", 404)

    releases.web.answers[LIST] = slowly
    lock = releases.cache / "locks" / hashlib.sha256(f"{releases.web.url}{LIST}".encode()).hexdigest()
    with processes(releases, [ARCHIVE] * 3) as workers:
        go(workers)

        def all_wait() -> bool:
            """The kernel shows the holder, and below it who waits."""
            inode = lock.stat().st_ino if lock.exists() else 0
            return pathlib.Path("/proc/locks").read_text().count(f":{inode} ") == 3

        eventually(all_wait)
        meanwhile.set()
        said = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout]
    assert said == [["release.no_list", said[0][1]]] * 3
    assert releases.web.asked == [LIST]
    releases.web.answers[LIST] = Answer(f"{SHA256}  {NAME}\n".encode())
    assert releases.fetch().fetched is True


def test_a_killed_holder_keeps_nobody_waiting(releases: Releases) -> None:
    hold = threading.Event()

    def forever() -> Answer:
        hold.wait(30)
        return Answer(b"", 404)

    good, releases.web.answers[ARCHIVE] = releases.web.answers[ARCHIVE], forever
    with processes(releases, [ARCHIVE]) as (worker,):
        go([worker])
        eventually(lambda: ARCHIVE in releases.web.asked)
        worker.kill()
    hold.set()
    releases.web.answers[ARCHIVE] = good
    assert releases.fetch().fetched is True


def test_who_comes_after_one_that_failed_tries_for_itself(releases: Releases) -> None:
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


def test_of_several_mirrors_the_first_that_is_right_is_taken_and_the_others_are_told(releases: Releases) -> None:
    for path in (ARCHIVE, LIST):
        releases.web.answers[f"/good{path}"] = releases.web.answers.pop(path)
    releases.web.answers[f"/wrong{LIST}"] = Answer(b"<html>Welcome</html>")
    releases.web.answers[f"/wrong{ARCHIVE}"] = Answer(b"<html>Welcome</html>")
    mirrors = [f"{releases.web.url}/{name}" for name in ("wrong", "good", "never")]
    assert releases.fetch(base="https://github.invalid", mirror=mirrors).sha256 == SHA256
    assert releases.web.asked == [f"/{name}{path}" for path in (LIST, ARCHIVE) for name in ("wrong", "good")]
    told = releases.hands.warned
    assert len(told) == 2
    assert "/wrong/prometheus/v1/sha256sums.txt is no list of sha256 checksums: its line 1 is '<html>" in told[0]
    assert "It is a web page: does a login or a proxy stand in between?; the next mirror is tried" in told[1]


def test_without_a_mirror_that_has_it_the_release_host_is_not_asked(releases: Releases) -> None:
    failure = releases.refused(mirror=[f"{releases.web.url}/one", f"{releases.web.url}/two"])
    assert failure.key == "release.no_list"
    assert "/one/" in str(failure)
    assert "/two/" in str(failure)
    assert releases.web.asked == [f"/one{LIST}", f"/two{LIST}"]


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_redirects_are_followed(releases: Releases, status: int) -> None:
    releases.web.answers["/storage/1"] = releases.web.answers[ARCHIVE]
    releases.web.answers[ARCHIVE] = Answer(b"", status, {"Location": f"{releases.web.url}/storage/1"})
    assert releases.fetch().sha256 == SHA256
    assert releases.web.asked == [LIST, ARCHIVE, "/storage/1"]


def test_the_cache_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _release_settings.default_cache_dir() == str(tmp_path / ".cache" / "observability-upgrades")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _release_settings.default_cache_dir() == str(tmp_path / "xdg" / "observability-upgrades")


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
        (Answer(CONTENT[:100], length=len(CONTENT)), "release.incomplete"),
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
    ("status", "key", "says"),
    [
        (404, "release.not_found", "answered 404 Not Found: is there such a release, for this architecture?"),
        (403, "release.forbidden", "answered 403 Forbidden: is access to it limited, or a rate limit reached?"),
        (429, "release.rate_limited", "answered 429 Too Many Requests: too many requests; try again later"),
        (500, "release.unavailable", "answered 500 Internal Server Error: try again, or set upgrade_release_mirror"),
    ],
)
@pytest.mark.parametrize("path", [ARCHIVE, LIST])
def test_a_server_that_refuses_is_named_with_what_to_do(
    releases: Releases, path: str, status: int, key: str, says: str
) -> None:
    releases.web.answers[path] = Answer(b"no", status)
    failure = releases.refused()
    assert failure.key == ("release.no_list" if (path, status) == (LIST, 404) else key)
    assert f"{releases.web.url}{path} {says}" in str(failure)
    assert releases.kept() == []


def test_a_server_that_does_not_answer_is_named_with_what_to_do(releases: Releases) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{unused.getsockname()[1]}"
        failure = releases.refused(base=base)
    assert failure.key == "release.unavailable"
    assert str(failure).startswith(f"{base}{LIST} can't be fetched: ")
    assert str(failure).endswith("Without internet, set upgrade_release_mirror (tried 5 times)")


def test_an_archive_that_is_not_listed_is_not_even_fetched(releases: Releases) -> None:
    releases.web.answers[LIST] = Answer(f"{SHA256}  {NAME}.asc\n{'0' * 64}  other\n".encode())
    failure = releases.refused()
    assert failure.key == "release.no_checksum"
    assert f"{LIST} has no sha256 for {NAME}: nothing is fetched without one" in str(failure)
    assert releases.web.asked == [LIST]


@pytest.mark.parametrize("url", ["http://[", "nonsense", "ftp://example.com/x"])
def test_what_is_no_address_is_told(releases: Releases, url: str) -> None:
    with pytest.raises(ReleaseError, match="is no address of a file") as failure:
        _fetch.fetch(url, checksums=url, cache_dir=str(releases.cache))
    assert failure.value.key == "release.address"


def test_a_cache_that_cannot_be_is_told(releases: Releases) -> None:
    releases.cache.write_text("a file")
    failure = releases.refused()
    assert failure.key == "release.cache"
    assert str(failure) == (
        f"{releases.cache}/sha256: Not a directory. Releases can't be kept there; "
        "set upgrade_cache_dir to a directory of your own"
    )


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


@pytest.mark.parametrize("login", ["ops:ge/heim", "ops:ge?heim", "ops:ge#heim", "ops:ge@heim"])
def test_a_password_with_other_characters_is_not_told_in_part(releases: Releases, login: str) -> None:
    failure = releases.refused(base=releases.web.url.replace("//", f"//{login}@").replace("127.0.0.1", "127.0.0.1.x"))
    assert "ge" not in str(failure).replace("address", "").replace("release", "").replace("get", "")
    assert "heim" not in str(failure)


# -- pruning ------------------------------------------------------------------------------------------------------


class Kept:
    """A cache with archives of 100 bytes; ``use`` is how many days ago each was used."""

    def __init__(self, cache: pathlib.Path) -> None:
        self.cache, self.hands = cache, Hands()
        self.archives, self.lists = cache / "sha256", cache / "lists"
        for kind in ("sha256", "lists", "locks"):
            (cache / kind).mkdir(parents=True)

    def add(self, letter: str, *, days: float, ending: str = "", kind: str = "sha256") -> pathlib.Path:
        path = self.cache / kind / f"{letter * 64}{ending}"
        path.write_bytes(b"x" * 100)
        used = self.hands.tools.wall() - days * 86400
        os.utime(path, (used, used))
        return path

    def prune(self, **limits: t.Any) -> _fetch.Pruned:
        return _fetch.prune(str(self.cache), tools=self.hands.tools, **limits)

    def left(self) -> str:
        """First letters."""
        return "".join(
            sorted(path.name.lstrip(".")[0] for kind in ("sha256", "lists") for path in self.cache.glob(f"{kind}/*"))
        )


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> Kept:
    cache = Kept(tmp_path / "cache")
    for letter, days in [("a", 1), ("b", 30), ("c", 2), ("d", 10)]:
        cache.add(letter, days=days)
    return cache


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, "abcd"),
        ({"keep_bytes": 400}, "abcd"),
        ({"keep_bytes": 399}, "acd"),
        ({"keep_bytes": 200}, "ac"),
        ({"keep_bytes": 0}, ""),
        ({"keep_days": 30}, "abcd"),
        ({"keep_days": 29}, "acd"),
        ({"keep_days": 5}, "ac"),
        ({"keep_days": 5, "keep_bytes": 100}, "a"),
    ],
)
def test_what_was_used_least_recently_goes_first(kept: Kept, limits: dict[str, int], left: str) -> None:
    found = kept.prune(**limits)
    assert kept.left() == left
    assert (found.freed, found.kept) == (400 - 100 * len(left), 100 * len(left))
    assert sorted(name[0] for name in found.removed) == sorted(set("abcd") - set(left))


def test_a_look_at_an_archive_is_a_use_of_it(releases: Releases) -> None:
    first = releases.fetch()
    for path in (pathlib.Path(first.path), *releases.lists()):
        os.utime(path, (1000, 1000))
    assert releases.fetch().fetched is False
    assert _fetch.prune(str(releases.cache), keep_days=1, tools=releases.hands.tools).removed == []
    releases.hands.now += 2 * 86400
    assert len(_fetch.prune(str(releases.cache), keep_days=1, tools=releases.hands.tools).removed) == 2
    assert releases.fetch().fetched is True


def test_what_was_used_just_now_or_is_fetched_now_stays(kept: Kept) -> None:
    kept.add("e", days=0.04)
    kept.add("f", days=5, ending=".part")
    with _fetch.one_at_a_time(str(kept.cache / "locks" / ("f" * 64))):
        kept.prune(keep_bytes=0, keep_days=0)
        assert kept.left() == "ef"
    kept.prune(keep_bytes=0, keep_days=0)
    assert kept.left() == "e"


def test_what_dead_transfers_left_goes_after_a_day(kept: Kept) -> None:
    for ending in (".part", ".part.json"):
        kept.add("e", days=1.1, ending=ending)
        kept.add("f", days=0.9, ending=ending)
    left_by_a_kill = kept.add("g", days=2)
    left_by_a_kill.rename(left_by_a_kill.with_name(f".{'1' * 64}.part.json.upgrade-new"))
    left_by_a_kill = kept.add("g", days=2, kind="lists")
    left_by_a_kill.rename(left_by_a_kill.with_name(f".{'1' * 64}.upgrade-new"))
    assert kept.prune().freed == 400
    assert kept.left() == "abcdff"


def test_what_is_not_of_the_cache_stays(kept: Kept) -> None:
    (kept.archives / "README").write_text("mine")
    (kept.archives / ("e" * 64)).mkdir()
    (kept.archives / ("f" * 64)).symlink_to("/etc/passwd")
    kept.prune(keep_bytes=0, keep_days=0)
    assert kept.left() == "Ref"
    assert pathlib.Path("/etc/passwd").exists()


def test_a_cache_that_is_not_there_has_nothing_to_prune(tmp_path: pathlib.Path) -> None:
    assert _fetch.prune(str(tmp_path / "none"), keep_bytes=0) == _fetch.Pruned([], 0, 0)
    assert not (tmp_path / "none").exists()
