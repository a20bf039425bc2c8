# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every way in which a line or a server goes wrong: what comes of it, which bytes are asked for, and what is left."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import json
import os
import pathlib
import random
import resource
import ssl
import subprocess
import sys
import threading
import typing as t

import pytest
from ansible.module_utils import urls
from ansible_collections.observability.stack.plugins.module_utils import _transfer, _web
from ansible_collections.observability.stack.plugins.module_utils._errors import ReleaseError
from ansible_collections.observability.stack.plugins.plugin_utils import _download
from ansible_collections.observability.stack.plugins.plugin_utils._download import Limits, There
from ansible_collections.observability.stack.tests.unit import web_faults
from ansible_collections.observability.stack.tests.unit.support import eventually
from ansible_collections.observability.stack.tests.unit.web_faults import Fault, File, Hands, Origin

CONTENT = os.urandom(1000) * 100
SIZE, HALF = len(CONTENT), len(CONTENT) // 2
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[:HALF] + bytes(HALF)
PATH = "/releases/x-1.tar.gz"
LISTED = "https://example.com/sha256sums.txt"


class Place:
    """A server with a file, and a directory that it is to come to."""

    def __init__(self, origin: Origin, directory: pathlib.Path) -> None:
        self.origin, self.directory, self.hands = origin, directory, Hands()
        self.url, self.target = f"{origin.url}{PATH}", directory / SHA256
        directory.mkdir()
        origin.files[PATH] = File(CONTENT)

    def download(self, *urls: str, tools: _download.Tools | None = None, **limits: t.Any) -> str:
        return _transfer.download(
            urls or [self.url],
            str(self.target),
            sha256=SHA256,
            listed=LISTED,
            limits=Limits(**{"read": 10, **limits}),
            tools=tools or self.hands.tools,
        )

    def refused(self, *urls: str, **limits: t.Any) -> ReleaseError:
        with pytest.raises(ReleaseError) as failure:
            self.download(*urls, **limits)
        assert "\n" not in str(failure.value)
        assert not self.target.exists()
        return failure.value

    @property
    def ranges(self) -> list[str]:
        return self.origin.ranges(PATH)

    @property
    def kept(self) -> list[str]:
        return sorted(path.name.removeprefix(SHA256) for path in self.directory.iterdir())

    def is_whole(self) -> bool:
        return self.kept == [""] and self.target.read_bytes() == CONTENT

    def leave(self, content: bytes, **changes: t.Any) -> None:
        """What a transfer that was killed left."""
        self.target.with_suffix(".part").write_bytes(content)
        about = {
            "url": self.url,
            "size": SIZE,
            "sha256": SHA256,
            "etag": '"one"',
            "last_modified": "",
            "bytes": 0,
            "started": "2026-11-21T00:00:00+00:00",
            "updated": "2026-11-21T00:00:00+00:00",
        }
        self.target.with_suffix(".part.json").write_text(json.dumps({**about, **changes}))


@pytest.fixture
def origin() -> t.Iterator[Origin]:
    with Origin().serving() as server:
        yield server


@pytest.fixture
def place(origin: Origin, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    web_faults.one_context(monkeypatch)
    return Place(origin, tmp_path / "cache")


# -- it comes -----------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_as_it_is(place: Place) -> None:
    assert place.download() == place.url
    assert place.is_whole()
    (asked,) = place.origin.asked
    assert (asked.headers["Accept-Encoding"], asked.range, asked.sent) == ("identity", "", SIZE)
    assert place.target.stat().st_mode & 0o777 == 0o600
    assert place.hands.slept == place.hands.said == place.hands.warned == []


@pytest.mark.parametrize(
    "fault",
    [
        web_faults.chunked,
        web_faults.header("Content-Length", None),
        web_faults.header("ETag", None),
        web_faults.header("Content-Encoding", "gzip"),
        web_faults.drips(100),
    ],
    ids=["chunked", "no length", "no ETag", "called compressed, as servers call every .gz", "drop by drop"],
)
def test_what_servers_may_do_is_no_fault(place: Place, fault: Fault) -> None:
    place.origin.faults = [fault]
    place.download()
    assert place.is_whole()
    assert len(place.origin.asked) == 1


@pytest.mark.parametrize("code", [202, 204])
def test_an_answer_without_a_file_is_told(place: Place, code: int) -> None:
    place.origin.faults = [web_faults.status(code)]
    failure = place.refused()
    assert failure.key == "release.unavailable"
    assert f"{place.url} answered {code}, which is no file" in str(failure)


def test_a_body_longer_than_announced_is_read_as_far_as_announced(place: Place) -> None:
    def longer(reply: web_faults.Reply) -> None:
        reply.body += b"more"

    place.origin.faults = [longer]
    place.download()
    assert place.is_whole()


def test_a_directory_may_be_a_mirror(place: Place, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x-1.tar.gz").write_bytes(CONTENT)
    place.download((tmp_path / "x-1.tar.gz").as_uri())
    assert place.is_whole()


def test_a_directory_without_it_is_told_at_once(place: Place, tmp_path: pathlib.Path) -> None:
    failure = place.refused((tmp_path / "missing").as_uri())
    assert (failure.key, place.hands.slept) == ("release.not_found", [])


def test_a_proxy_is_asked_as_the_environment_says(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", place.origin.url)
    place.origin.files["http://releases.invalid/x"] = File(CONTENT)
    place.download("http://releases.invalid/x")
    assert place.is_whole()


def test_a_netrc_that_cannot_be_read_is_told_at_once(place: Place, tmp_path: pathlib.Path) -> None:
    (tmp_path / "netrc").write_text("machine\n")
    failure = place.refused()
    assert (failure.key, place.hands.slept, place.origin.asked) == ("release.unavailable", [], [])
    assert "netrc" in str(failure)


# -- it breaks off, and goes on -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "validator"),
    [({}, '"one"'), ({"etag": ""}, web_faults.MODIFIED), ({"etag": 'W/"one"'}, web_faults.MODIFIED)],
    ids=["strong ETag", "date", "weak ETag"],
)
def test_what_broke_off_goes_on_where_it_did_and_no_byte_comes_twice(
    place: Place, changes: dict[str, str], validator: str
) -> None:
    for name, value in changes.items():
        setattr(place.origin.files[PATH], name, value)
    place.origin.faults = [web_faults.dies_after(HALF), web_faults.dies_after(1000)]
    place.download()
    assert place.is_whole()
    assert place.ranges == ["", f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert [asked.headers.get("If-Range") for asked in place.origin.asked] == [None, validator, validator]
    assert place.origin.sent(PATH) == SIZE
    assert place.hands.slept == [1, 2]


def test_a_chunked_body_that_broke_off_goes_on(place: Place) -> None:
    place.origin.faults = [web_faults.both(web_faults.chunked, web_faults.dies_after(HALF))]
    place.download()
    assert place.is_whole()
    assert (place.ranges, place.origin.sent(PATH)) == (["", f"bytes={HALF}-"], SIZE)


@pytest.mark.parametrize(
    "change",
    [
        {"etag": "", "modified": ""},
        {"etag": 'W/"one"', "modified": ""},
        {"etag": "", "modified": "no date"},
        {"etag": "", "modified": email.utils.formatdate(4_000_000_000, usegmt=True)},
    ],
    ids=["none", "weak", "no date", "changed in the second of the answer, or later"],
)
def test_without_a_mark_of_the_bytes_it_starts_anew(place: Place, change: dict[str, str]) -> None:
    for name, value in change.items():
        setattr(place.origin.files[PATH], name, value)
    place.origin.faults = [web_faults.dies_after(HALF)]
    place.download()
    assert place.is_whole()
    assert place.ranges == ["", ""]


def test_a_server_without_ranges_is_taken_from_the_start(place: Place) -> None:
    place.origin.files[PATH].ranges = False
    place.origin.faults = [web_faults.dies_after(HALF)]
    place.download()
    assert place.is_whole()
    assert place.ranges == ["", f"bytes={HALF}-"]
    assert place.origin.sent(PATH) == HALF + SIZE


@pytest.mark.parametrize("obeys", [True, False], ids=["says so", "ignores If-Range"])
def test_a_file_that_changes_between_two_halves_is_never_mixed(place: Place, obeys: bool) -> None:
    place.origin.files[PATH] = File(OTHER, etag='"old"')

    def change(reply: web_faults.Reply) -> None:
        reply.cut = HALF
        place.origin.files[PATH] = File(CONTENT, etag='"new"')

    def ignore(reply: web_faults.Reply) -> None:
        reply.status, reply.body = 206, CONTENT[HALF:]
        reply.headers["Content-Range"] = f"bytes {HALF}-{SIZE - 1}/{SIZE}"
        reply.headers["Content-Length"] = str(HALF)

    place.origin.faults = [change, None if obeys else ignore]
    place.download()
    assert place.is_whole()
    assert place.ranges == ["", f"bytes={HALF}-", *([] if obeys else [""])]


@pytest.mark.parametrize(
    "said",
    [
        f"bytes {HALF + 1}-{SIZE - 1}/{SIZE}",
        f"bytes 0-{SIZE - 1}/{SIZE}",
        f"bytes {HALF}-{SIZE - 2}/{SIZE}",
        f"bytes {HALF}-{SIZE}/{SIZE + 1}",
        f"bytes {HALF}-{SIZE}/{SIZE}",
        f"bytes {HALF}-{SIZE - 1}/{SIZE - 1}",
        f"bytes */{SIZE}",
        "lines 1-2/3",
        "",
        None,
    ],
)
def test_other_bytes_than_asked_for_are_not_taken(place: Place, said: str | None) -> None:
    place.origin.faults = [web_faults.dies_after(HALF), web_faults.header("Content-Range", said)]
    place.download()
    assert place.is_whole()
    assert place.ranges == ["", f"bytes={HALF}-", ""]


def test_a_part_that_nobody_asked_for_is_not_taken(place: Place) -> None:
    def part(reply: web_faults.Reply) -> None:
        reply.status = 206
        reply.headers["Content-Range"] = f"bytes 0-{SIZE - 1}/{SIZE}"

    place.origin.faults = [part]
    place.download()
    assert place.is_whole()
    assert place.ranges == ["", ""]


def test_when_the_rest_is_not_there_any_more_it_starts_anew(place: Place) -> None:
    place.origin.faults = [web_faults.dies_after(HALF), web_faults.status(416, Content_Range=f"bytes */{HALF - 1}")]
    place.download()
    assert place.is_whole()
    assert place.ranges == ["", f"bytes={HALF}-", ""]


def test_a_resumed_file_that_is_wrong_is_asked_for_once_more_from_the_start(place: Place) -> None:
    place.leave(b"rot" + CONTENT[3:HALF])
    place.download()
    assert place.is_whole()
    assert place.ranges == [f"bytes={HALF}-", ""]


# -- what is there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "changes", "found"),
    [
        (CONTENT, {}, There("complete", SIZE)),
        (CONTENT, {"size": None, "etag": ""}, There("complete", SIZE)),
        (CONTENT[:HALF], {}, There("resume", HALF)),
        (CONTENT[:HALF], {"size": None}, There("resume", HALF)),
        (CONTENT[:HALF], {"etag": "", "last_modified": web_faults.MODIFIED}, There("resume", HALF)),
        (CONTENT[:HALF], {"etag": ""}, There("restart")),
        (CONTENT[:HALF], {"url": "http://example.com/x"}, There("restart")),
        (CONTENT[:HALF], {"sha256": "0" * 64}, There("restart")),
        (CONTENT[:HALF], {"size": HALF}, There("restart")),
        (CONTENT[:HALF], {"size": "many"}, There("restart")),
        (CONTENT[:HALF], {"surplus": 1}, There("restart")),
        (OTHER, {}, There("restart")),
        (CONTENT + b"more", {}, There("restart")),
        (b"", {}, There("restart")),
    ],
)
def test_what_is_there_is_all_or_a_start_or_nothing(
    place: Place, content: bytes, changes: dict[str, t.Any], found: There
) -> None:
    place.leave(content, **changes)
    assert _download.there(str(place.target), sha256=SHA256, url=place.url) == found
    place.leave(content, **changes)
    place.download()
    assert place.is_whole()
    expected = {"complete": [], "resume": [f"bytes={HALF}-"], "restart": [""]}
    assert place.ranges == expected[found.state]


def test_nothing_is_a_start_and_what_has_its_name_is_complete(place: Place) -> None:
    assert _download.there(str(place.target), sha256=SHA256, url=place.url) == There("restart")
    assert place.kept == []
    place.download()
    assert _download.there(str(place.target), sha256=SHA256, url=place.url) == There("complete", SIZE)


@pytest.mark.parametrize("about", [None, "", "[]", "{", "{}"])
def test_a_start_that_says_nothing_of_itself_is_not_used(place: Place, about: str | None) -> None:
    place.target.with_suffix(".part").write_bytes(CONTENT[:HALF])
    if about is not None:
        place.target.with_suffix(".part.json").write_text(about)
    place.download()
    assert place.is_whole()
    assert place.ranges == [""]


def test_what_is_known_of_a_start_stands_beside_it(place: Place) -> None:
    place.origin.always = web_faults.dies_after(HALF)
    place.refused(f"{place.url}?token=geheim".replace("//", "//ops:geheim@"), attempts=1)
    assert place.kept == [".part", ".part.json"]
    assert json.loads(place.target.with_suffix(".part.json").read_text()) == {
        "url": place.url.replace("//", "//********@"),
        "size": SIZE,
        "sha256": SHA256,
        "etag": '"one"',
        "last_modified": web_faults.MODIFIED,
        "bytes": HALF,
        "started": "2026-11-18T11:06:40+00:00",
        "updated": "2026-11-18T11:06:40+00:00",
    }
    assert {path.stat().st_mode & 0o777 for path in place.directory.iterdir()} == {0o600}


DOWNLOAD = f"""
import sys
from {_download.__name__} import download
download([sys.argv[1]], sys.argv[2], sha256=sys.argv[3], listed="list")
"""


def test_after_a_kill_only_the_missing_bytes_come(place: Place) -> None:
    hold = threading.Event()
    place.origin.faults = [web_faults.stalls_after(HALF, hold)]
    argv = [sys.executable, "-c", DOWNLOAD, place.url, str(place.target), SHA256]
    path = os.pathsep.join([str(pathlib.Path(_download.__file__).parents[5]), *sys.path])
    partial = place.target.with_suffix(".part")
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}) as process:
        eventually(lambda: partial.exists() and partial.stat().st_size == HALF)
        process.kill()
    hold.set()
    place.download()
    assert place.is_whole()
    assert (place.ranges, place.origin.sent(PATH)) == (["", f"bytes={HALF}-"], SIZE)


# -- again, or not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_waited_for_longer_each_time(place: Place, code: int) -> None:
    place.origin.faults = [web_faults.status(code)] * 4
    place.download()
    assert place.is_whole()
    assert place.hands.slept == [1, 2, 4, 8]


def test_a_pause_is_of_random_length_and_has_an_end() -> None:
    hands = Hands()
    pauses = [_transfer._pause(number, None, Limits(), hands.tools) for number in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    half = hands.tools._replace(chance=lambda: 0.5)
    assert _transfer._pause(3, None, Limits(), half) == 2
    assert all(0 <= _transfer._pause(3, None, Limits(), _download.TOOLS) <= 4 for _turn in range(100))


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("7", 7),
        ("0", 0),
        ("86400", 120),
        (email.utils.formatdate(1_795_000_009, usegmt=True), 9),
        (email.utils.formatdate(1_000_000_000, usegmt=True), 0),
        ("soon", 1),
        ("-1", 1),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_the_server_says_how_long_to_wait(place: Place, code: int, said: str, waited: float) -> None:
    place.origin.faults = [web_faults.status(code, Retry_After=said)]
    place.download()
    assert place.hands.slept == [waited]


@pytest.mark.parametrize(
    ("code", "key", "tries", "says"),
    [
        (400, "release.unavailable", 1, "answered 400 Bad Request: try again, or set upgrade_release_mirror"),
        (401, "release.forbidden", 1, "answered 401 Unauthorized: does it need a login? One can stand in ~/.netrc"),
        (403, "release.forbidden", 1, "answered 403 Forbidden: is access to it limited, or a rate limit reached?"),
        (404, "release.not_found", 1, "answered 404 Not Found: is there such a release, for this architecture?"),
        (410, "release.not_found", 1, "answered 410 Gone: it was taken away"),
        (416, "release.unavailable", 1, "answered 416 "),
        (429, "release.rate_limited", 5, "answered 429 Too Many Requests: too many requests; try again later"),
        (500, "release.unavailable", 5, "answered 500 Internal Server Error: try again, or set upgrade_release_mirror"),
        (503, "release.unavailable", 5, "answered 503 Service Unavailable: try again, or set upgrade_release_mirror"),
    ],
)
def test_what_is_refused_is_told_and_asked_for_again_only_if_that_may_help(
    place: Place, code: int, key: str, tries: int, says: str
) -> None:
    place.origin.always = web_faults.status(code)
    failure = place.refused()
    assert failure.key == key
    assert str(failure).startswith(f"{place.url} {says}")
    assert str(failure).endswith(" (tried 5 times)") == (tries == 5)
    assert len(place.ranges) == tries
    assert place.kept == []


def test_a_line_that_dies_forever_is_told_and_what_came_is_kept_for_the_next_run(place: Place) -> None:
    place.origin.always = web_faults.dies_after(1000)
    failure = place.refused()
    assert (failure.key, place.kept) == ("release.incomplete", [".part", ".part.json"])
    assert f"ended after 5000 of {SIZE} bytes; try again" in str(failure)
    place.origin.always = None
    place.download()
    assert place.is_whole()
    assert place.origin.sent(PATH) == SIZE


def test_attempts_that_bring_something_do_not_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transfer, "_GAINED", 1000)
    place.origin.always = web_faults.dies_after(5000)
    place.download()
    assert place.is_whole()
    assert (len(place.ranges), place.origin.sent(PATH)) == (20, SIZE)


def test_all_attempts_together_have_an_end(place: Place) -> None:
    place.origin.always = web_faults.status(503, Retry_After="100")
    failure = place.refused(total=250, attempts=99)
    assert str(failure).endswith("(tried 3 times)")
    assert place.hands.slept == [100, 100]


def test_a_connection_that_is_refused_is_tried_again_and_told(place: Place) -> None:
    place.origin.server.server_close()
    failure = place.refused()
    assert failure.key == "release.unavailable"
    assert f"{place.url} can't be fetched: " in str(failure)
    assert "Connection refused. Without internet, set upgrade_release_mirror (tried 5 times)" in str(failure)
    assert (place.hands.slept, place.kept) == ([1, 2, 4, 8], [])


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("nonsense", "release.address"),
        ("gopher://example.com/x", "release.address"),
        ("https:///x", "release.address"),
        ("http://[::1/x", "release.unavailable"),
        ("http://a b/x", "release.unavailable"),
    ],
)
def test_what_is_no_address_is_told_at_once(place: Place, url: str, key: str) -> None:
    failure = place.refused(url)
    assert (failure.key, place.hands.slept, place.kept) == (key, [], [])


# -- slow ---------------------------------------------------------------------------------------------------------


def test_a_server_that_falls_silent_is_left_and_asked_for_the_rest(place: Place) -> None:
    hold = threading.Event()
    place.origin.faults = [web_faults.stalls_after(HALF, hold)]
    place.download(read=0.1)
    hold.set()
    assert place.is_whole()
    assert (place.ranges, place.origin.sent(PATH)) == (["", f"bytes={HALF}-"], SIZE)


def test_a_server_that_stays_silent_is_told(place: Place) -> None:
    hold = threading.Event()
    place.origin.always = web_faults.stalls_after(0, hold)
    failure = place.refused(read=0.05, attempts=2)
    hold.set()
    assert failure.key == "release.stalled"
    assert f"{place.url} is silent: " in str(failure)


def test_a_slow_drip_is_a_stall(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transfer, "_CHUNK", 100)
    place.hands.tick = 1
    place.origin.always = web_faults.drips(100)
    failure = place.refused(slowest=1000, window=5, attempts=2)
    assert failure.key == "release.stalled"
    assert "comes too slowly, " in str(failure)
    assert place.ranges[1].startswith("bytes=")
    place.download(slowest=0, window=5)
    assert place.is_whole()


def test_what_takes_too_long_ends_and_the_next_run_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transfer, "_CHUNK", 100)
    place.hands.tick = 100
    failure = place.refused(total=1001, slowest=0)
    assert (failure.key, place.kept) == ("release.too_slow", [".part", ".part.json"])
    assert "takes longer than 1001 s; the next run goes on with what came" in str(failure)
    place.hands.tick = 0
    place.download()
    assert place.is_whole()
    assert place.ranges[1].startswith("bytes=")


def test_no_more_bytes_a_second_than_allowed(place: Place) -> None:
    place.download(bandwidth=10_000)
    assert place.is_whole()
    assert sum(place.hands.slept) == pytest.approx(SIZE / 10_000)
    assert max(place.hands.slept) <= 0.25 + 1e-6


# -- large --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, web_faults.chunked, web_faults.header("Content-Length", None)])
def test_a_file_that_is_too_large_ends_where_it_is(place: Place, fault: Fault | None) -> None:
    place.origin.faults = [fault]
    failure = place.refused(size=SIZE - 1)
    assert failure.key == "release.too_large"
    assert "is larger than the 100.0 kB that are taken" in str(failure)
    assert place.kept == []
    place.download(size=SIZE)
    assert place.is_whole()


def test_data_without_an_end_has_one(place: Place) -> None:
    def endless(reply: web_faults.Reply) -> None:
        reply.body = reply.body * 100
        reply.headers.pop("Content-Length")

    place.origin.faults = [endless]
    assert place.refused(size=SIZE).key == "release.too_large"
    assert place.kept == []


def test_without_space_nothing_is_begun(place: Place) -> None:
    place.hands.free = HALF
    failure = place.refused()
    assert failure.key == "release.no_space"
    says = f"{place.directory} has no space left on the controller: {place.url} needs 100.0 kB, 50.0 kB are free"
    assert says in str(failure)
    assert place.kept == []


FILL = f"""
import resource, sys
from {_download.__name__} import ReleaseError, download
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    download([sys.argv[1], sys.argv[1]], sys.argv[2], sha256=sys.argv[3], listed="list")
except ReleaseError as exc:
    print(exc.key, exc)
"""


def test_when_the_space_ends_nothing_is_left(place: Place) -> None:
    argv = [sys.executable, "-c", FILL, place.url, str(place.target), SHA256]
    path = os.pathsep.join([str(pathlib.Path(_download.__file__).parents[5]), *sys.path])
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"release.no_space {place.directory} has no space left on the controller: File too large; "
        "free some, or set upgrade_cache_dir\n"
    )
    assert place.kept == []
    assert len(place.ranges) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_full_disk_is_told_and_nothing_is_left_on_it(place: Place) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place.directory)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        failure = place.refused()
        assert (failure.key, place.kept) == ("release.no_space", [])
        assert "No space left on device" in str(failure)
    finally:
        subprocess.run(["umount", str(place.directory)], check=True)


def test_a_directory_that_cannot_be_written_to_is_told(place: Place) -> None:
    place.target.with_suffix(".part").symlink_to("/etc/passwd")
    failure = place.refused()
    assert failure.key == "release.cache"
    assert str(failure) == (
        f"{place.target}.part: Too many levels of symbolic links. Releases can't be kept there; "
        "set upgrade_cache_dir to a directory of your own"
    )


# -- wrong --------------------------------------------------------------------------------------------------------


def test_wrong_bytes_are_asked_for_once_and_gone(place: Place) -> None:
    place.origin.files[PATH] = File(OTHER)
    failure = place.refused()
    assert failure.key == "release.checksum"
    assert str(failure) == (
        f"{place.url} has sha256 {hashlib.sha256(OTHER).hexdigest()}, but {LISTED} says {SHA256}: "
        "it is damaged or was tampered with, and is not used"
    )
    assert (place.ranges, place.kept) == ([""], [])


def test_a_web_page_with_success_is_told_as_one(place: Place) -> None:
    place.origin.faults = [web_faults.page]
    failure = place.refused()
    assert failure.key == "release.checksum"
    assert str(failure).endswith("It is a web page: does a login or a proxy stand in between?")
    assert (place.ranges, place.kept) == ([""], [])


def test_what_is_really_compressed_on_the_way_is_told(place: Place) -> None:
    def compressed(reply: web_faults.Reply) -> None:
        reply.body = b"\x1f\x8b" + reply.body[2:]
        reply.headers["Content-Encoding"] = "gzip"

    place.origin.faults = [compressed]
    failure = place.refused()
    assert failure.key == "release.checksum"
    assert str(failure).endswith("The server encoded it (gzip), although it must not")


# -- several places -----------------------------------------------------------------------------------------------


def test_a_place_with_wrong_bytes_is_told_and_the_next_one_asked(place: Place) -> None:
    place.origin.files["/wrong"] = File(OTHER)
    wrong, missing = f"{place.origin.url}/wrong", f"{place.origin.url}/missing"
    assert place.download(wrong, missing, place.url, f"{place.origin.url}/never") == place.url
    assert place.is_whole()
    assert [asked.path for asked in place.origin.asked] == ["/wrong", "/missing", PATH]
    first, second = place.hands.warned
    assert first.startswith(f"{wrong} has sha256 ")
    assert first.endswith("and is not used; the next mirror is tried")
    assert second.startswith(f"{missing} answered 404 ")


def test_when_all_places_fail_all_are_told(place: Place) -> None:
    place.origin.files[PATH] = File(OTHER)
    missing = f"{place.origin.url}/missing"
    failure = place.refused(missing, place.url)
    assert failure.key == "release.checksum"
    assert f"{missing} answered 404" in str(failure)
    assert f"; {place.url} has sha256" in str(failure)
    assert place.refused(missing, f"{missing}2").key == "release.not_found"
    place.origin.faults = [web_faults.status(403)]
    assert place.refused(missing, f"{missing}2").key == "release.unavailable"


def test_what_came_from_one_place_is_not_gone_on_with_from_another(place: Place) -> None:
    place.origin.files["/second"] = File(CONTENT)
    place.origin.always = web_faults.dies_after(1000)
    first = f"{place.origin.url}/second"
    place.refused(first, attempts=1)
    place.origin.always = None
    place.download()
    assert place.is_whole()
    assert place.ranges == [""]


def test_a_place_that_is_gone_leaves_what_came_from_another(place: Place) -> None:
    place.leave(CONTENT[:HALF])
    place.download(f"{place.origin.url}/missing", place.url)
    assert place.ranges == [f"bytes={HALF}-"]


# -- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_anew_for_each_request(place: Place, code: int) -> None:
    start = f"{place.origin.url}/start"
    redirect = web_faults.redirect(PATH, code)
    place.origin.faults = [redirect, web_faults.dies_after(HALF), redirect]
    place.download(start)
    assert place.is_whole()
    assert place.ranges == ["", f"bytes={HALF}-"]
    assert len(place.origin.ranges("/start")) == 2


def test_a_login_does_not_go_on_to_another_host(place: Place, tmp_path: pathlib.Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ops password geheim\n")
    (tmp_path / "netrc").chmod(0o600)
    other = place.url.replace("127.0.0.1", "localhost")
    place.origin.faults = [web_faults.redirect("/here"), web_faults.redirect(other)]
    place.download(f"{place.origin.url}/start")
    assert place.is_whole()
    assert [(asked.path, "Authorization" in asked.headers) for asked in place.origin.asked] == [
        ("/start", True),
        ("/here", True),
        (PATH, False),
    ]


@pytest.mark.parametrize(
    ("to", "leads_to"),
    [
        ("/x", "http://ops:geheim@127.0.0.1:8080/x"),
        ("b c", "http://ops:geheim@127.0.0.1:8080/a/b%20c"),
        ("http://127.0.0.1:8080/x", "http://ops:geheim@127.0.0.1:8080/x"),
        ("http://eve:other@127.0.0.1:8080/x", "http://ops:geheim@127.0.0.1:8080/x"),
        ("http://eve:other@127.0.0.1:8081/x", "http://127.0.0.1:8081/x"),
        ("http://localhost:8080/x", "http://localhost:8080/x"),
        ("https://127.0.0.1:8080/x", "https://127.0.0.1:8080/x"),
    ],
)
def test_a_login_in_the_address_stays_with_its_host(to: str, leads_to: str) -> None:
    assert _web._next("http://ops:geheim@127.0.0.1:8080/a/", to, asked="http://127.0.0.1:8080/a/") == leads_to


def test_https_is_never_left() -> None:
    with pytest.raises(_web.TransferError, match=r"leads from https to http \(http://x\.example/b\), where") as failure:
        _web._next("https://x.example/a", "http://x.example/b?token=1", asked="https://x.example/a")
    assert failure.value.error.key == "release.redirect"


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("/start", "leads in a circle, or further than 10 times"),
        ("ftp://example.com/x", "leads to ftp, which no release comes by"),
        ("file:///etc/passwd", "leads to file, which no release comes by"),
        ("", "leads nowhere"),
    ],
)
def test_a_redirect_that_leads_astray_is_not_followed(place: Place, to: str, says: str) -> None:
    place.origin.always = web_faults.redirect(to)
    failure = place.refused(f"{place.origin.url}/start")
    assert failure.key == "release.redirect"
    assert says in str(failure)
    assert (len(place.origin.asked), place.kept) == (1, [])


def test_redirects_have_an_end(place: Place) -> None:
    place.origin.faults = [web_faults.redirect(f"/{number}") for number in range(50)]
    assert place.refused().key == "release.redirect"
    assert len(place.origin.asked) == 11


def test_who_refuses_after_a_redirect_is_named(place: Place) -> None:
    place.origin.faults = [web_faults.redirect(f"{place.origin.url.replace('127.0.0.1', 'localhost')}/gone?sig=geheim")]
    failure = place.refused()
    assert f"{place.url} (by way of localhost) answered 404" in str(failure)
    assert "geheim" not in str(failure)


# -- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def secure(
    place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[tuple[Origin, pathlib.Path]]:
    """A server with a certificate of its own."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setattr(urls, "make_context", urls.make_context.__wrapped__)
    with Origin(context).serving() as origin:
        yield origin, certificate


def test_a_certificate_that_nobody_knows_is_refused_at_once(
    place: Place, secure: tuple[Origin, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, certificate = secure
    origin.files[PATH] = File(CONTENT)
    failure = place.refused(f"{origin.url}{PATH}")
    assert (failure.key, place.hands.slept, origin.asked) == ("release.untrusted", [], [])
    assert "does this machine know the authority that signed its certificate (SSL_CERT_FILE)?" in str(failure)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    place.download(f"{origin.url}{PATH}")
    assert place.is_whole()


def test_https_never_leads_to_http(
    place: Place, secure: tuple[Origin, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    origin.always = web_faults.redirect(place.url)
    failure = place.refused(f"{origin.url}/start")
    assert failure.key == "release.redirect"
    assert f"leads from https to http ({place.url}), where anybody on the way can change it" in str(failure)
    assert place.origin.asked == []


# -- all of it together -------------------------------------------------------------------------------------------


def some_fault(chance: random.Random, place: Place) -> Fault | None:
    """One of the ways in which a line goes wrong."""
    count = chance.randrange(SIZE)
    etag = f'"{chance.randrange(2)}"'

    def other_file(reply: web_faults.Reply) -> None:
        reply.cut = count
        reply.body = bytes(byte ^ 1 for byte in reply.body)

    def changed(reply: web_faults.Reply) -> None:
        place.origin.files[PATH].etag = etag

    return chance.choice(
        [
            None,
            web_faults.dies_after(count),
            web_faults.dies_after(count),
            web_faults.both(web_faults.chunked, web_faults.dies_after(count)),
            web_faults.both(changed, web_faults.dies_after(count)),
            web_faults.status(chance.choice([404, 416, 429, 500, 503])),
            web_faults.header("Content-Range", f"bytes {count}-{SIZE - 1}/{SIZE}"),
            web_faults.header("Content-Length", str(count)),
            web_faults.header("Content-Length", None),
            web_faults.page,
            web_faults.redirect(PATH),
            other_file,
        ]
    )


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_it_is_whole_or_not_there_and_in_the_end_it_comes(place: Place, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (no secret is made of it)
    for _run in range(6):
        place.origin.faults = [some_fault(chance, place) for _request in range(chance.randrange(6))]
        try:
            place.download(attempts=3)
        except ReleaseError:
            assert not place.target.exists()
            assert set(place.kept) <= {".part", ".part.json"}
        else:
            assert place.is_whole()
            place.target.unlink()
    place.origin.faults = []
    place.download(attempts=3)
    assert place.is_whole()


# -- progress -----------------------------------------------------------------------------------------------------


def test_what_is_soon_there_is_not_talked_about(place: Place) -> None:
    place.origin.faults = [web_faults.drips(1000)]
    place.download()
    assert place.hands.said == []


def test_what_takes_long_is_told_each_ten_seconds_or_100_mebibytes() -> None:
    hands = Hands()
    report = _download.Reporter("x.tar.gz", hands.tools)
    for second in range(41):
        report(_download.Progress(second * 1_000_000, 93_100_000, 1_000_000, 93.1 - second))
        hands.now += 1
    assert hands.said == [
        "x.tar.gz: 10.0 MB of 93.1 MB (10 %), 1.0 MB/s, 83 s left",
        "x.tar.gz: 20.0 MB of 93.1 MB (21 %), 1.0 MB/s, 73 s left",
        "x.tar.gz: 30.0 MB of 93.1 MB (32 %), 1.0 MB/s, 63 s left",
        "x.tar.gz: 40.0 MB of 93.1 MB (42 %), 1.0 MB/s, 53 s left",
    ]
    report(_download.Progress(40_000_000 + (100 << 20), None, 105_000_000, None))
    assert hands.said[4:] == ["x.tar.gz: 144.9 MB, 105.0 MB/s"]


def test_progress_counts_what_was_there(place: Place) -> None:
    seen: list[_download.Progress] = []
    place.leave(CONTENT[:HALF])
    place.hands.tick = 0.001
    _transfer.download(
        [place.url], str(place.target), sha256=SHA256, listed=LISTED, tools=place.hands.tools, progress=seen.append
    )
    assert seen[0].done > HALF
    assert (seen[-1].done, seen[-1].total, seen[-1].eta) == (SIZE, SIZE, 0)
    assert seen[-1].rate > 0


# -- texts --------------------------------------------------------------------------------------------------------


def test_a_text_is_asked_for_again_until_it_is_whole(place: Place) -> None:
    place.origin.files["/list"] = File(b"a list")
    place.origin.faults = [web_faults.status(503), web_faults.dies_after(3)]
    text = _transfer.read_small(f"{place.origin.url}/list", most=6, tools=place.hands.tools)
    assert (text, len(place.origin.asked)) == (b"a list", 3)


@pytest.mark.parametrize(("data", "text"), [(gzip.compress(b"a list", mtime=0), b"a list"), (b"\x1f\x8brot", b"")])
def test_a_text_that_was_compressed_on_the_way_is_read(place: Place, data: bytes, text: bytes) -> None:
    place.origin.files["/list"] = File(data)
    assert _transfer.read_small(f"{place.origin.url}/list", most=100, tools=place.hands.tools) == text


@pytest.mark.parametrize("fault", [None, web_faults.chunked])
def test_a_text_has_a_limit(place: Place, fault: Fault | None) -> None:
    place.origin.files["/list"] = File(b"a list")
    place.origin.faults = [fault]
    with pytest.raises(ReleaseError, match="is larger than the 5 bytes that are taken") as failure:
        _transfer.read_small(f"{place.origin.url}/list", most=5, tools=place.hands.tools)
    assert failure.value.key == "release.too_large"
