# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import calendar
import concurrent.futures
import contextlib
import email.utils
import functools
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError, UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import _ask, _catalog, _releases
from ansible_collections.observability.stack.tests.unit.sites import Headers, Reply, Site, by_etag, json_reply
from ansible_collections.observability.stack.tests.unit.support import eventually, snapshot

Data = dict[str, t.Any]
SOURCE = "github:prometheus/prometheus"
PATH = "/repos/prometheus/prometheus/releases?per_page=100"
NOW = float(calendar.timegm((2026, 11, 21, 10, 0, 0)))
RESET = calendar.timegm((2026, 11, 21, 14, 5, 0))
PRIVATE = "ghp_verysecret"
FOUND = [
    {"version": "3.6.0-rc.0", "date": "2026-05-04", "prerelease": True},
    {"version": "3.5.3", "date": "2026-05-01", "prerelease": False},
]


def tagged(*tags: str) -> list[Data]:
    return [
        {"tag_name": tag, "draft": False, "prerelease": False, "published_at": "2026-05-01T09:30:00Z"} for tag in tags
    ]


GITHUB = [{**tagged("v3.6.0-rc.0")[0], "prerelease": True, "published_at": "2026-05-04T09:30:00Z"}, *tagged("v3.5.3")]


class Asker:
    """Asks a site as if it were GitHub and GitLab, at a time that the test sets."""

    def __init__(self, site: Site, cache: pathlib.Path) -> None:
        self.site, self.cache, self.now = site, cache, NOW
        site.replies[PATH] = json_reply(GITHUB)

    def __call__(self, source: str = SOURCE, **options: t.Any) -> Data:
        apis = {"github": self.site.url, "gitlab": f"{self.site.url}/api/v4"}
        plain = {"cache_dir": str(self.cache), "apis": apis, "clock": lambda: self.now}
        return _releases.available(source, **{**plain, **options})

    def refused(self, source: str = SOURCE, **options: t.Any) -> UpgradeError:
        with pytest.raises(UpgradeError) as failure:
            self(source, **options)
        assert "\n" not in str(failure.value)
        return failure.value

    def written(self) -> str:
        """All that is in the cache."""
        return "".join(str(path) + path.read_text() for path in self.cache.rglob("*") if path.is_file())


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> t.Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Site().serving() as server:
        yield server


@pytest.fixture
def ask(site: Site, tmp_path: pathlib.Path) -> Asker:
    return Asker(site, tmp_path / "cache")


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# -- answers --------------------------------------------------------------------------------------------------------


def test_what_github_lists(ask: Asker, site: Site) -> None:
    answer = {"source": SOURCE, "releases": FOUND, "as_of": "2026-11-21T10:00:00Z", "note": None}
    assert ask() == answer
    (request,) = site.asked
    assert (request.method, request.path) == ("GET", PATH)
    assert request.headers["accept"] == "application/vnd.github+json"
    assert request.headers["x-github-api-version"] == "2022-11-28"
    assert request.headers["user-agent"] == "observability.stack"
    assert not {"authorization", "if-none-match"} & set(request.headers)


def test_what_gitlab_lists(ask: Asker, site: Site) -> None:
    path = "/api/v4/projects/hectorjsmith%2Ffail2ban-prometheus-exporter/releases?per_page=100"
    site.replies[path] = json_reply([{"tag_name": "v0.10.3", "released_at": "2025-11-02T10:00:00.000Z"}])
    found = ask("gitlab:hectorjsmith/fail2ban-prometheus-exporter")["releases"]
    assert found == [{"version": "0.10.3", "date": "2025-11-02", "prerelease": False}]


def test_what_a_real_directory_lists(ask: Asker, tmp_path: pathlib.Path) -> None:
    for name in ("v3.5.3", "v2.55.1", "latest"):
        (tmp_path / "www" / "download" / name).mkdir(parents=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with Site().serving() as served:
        served.server.RequestHandlerClass = handler
        answer = ask(f"{served.url}/download/v{{version}}")
        assert [release["version"] for release in answer["releases"]] == ["3.5.3", "2.55.1"]
        missing = ask.refused(f"{served.url}/nowhere/v{{version}}")
    assert str(missing) == (f"{served.url}/nowhere/ answered 404: there is no such directory, or it needs a token")


def test_the_mirror_of_every_component_can_be_asked(ask: Asker, site: Site) -> None:
    for entry in filter(lambda each: each["releases"], _catalog.load().values()):
        source = _releases.source_of(entry, f"{site.url}/pub")
        folder, segment = source.removeprefix(site.url).rsplit("/", 1)
        name = segment.replace("{version}", "1.2.3").replace("{arch}", "amd64")
        site.replies[f"{folder}/"] = (200, {}, f'<a href="{name}/">'.encode())
        assert [release["version"] for release in ask(source)["releases"]] == ["1.2.3"]


# -- asking once ----------------------------------------------------------------------------------------------------


def waiting_for_locks(below: pathlib.Path) -> int:
    """How many wait for a lock on a file below a directory."""
    inodes = {str(path.stat().st_ino) for path in below.rglob("*.lock")}
    lines = [line.split() for line in pathlib.Path("/proc/locks").read_text().splitlines()]
    return sum(words[1] == "->" and words[6].rpartition(":")[2] in inodes for words in lines)


def test_of_many_threads_one_asks_and_the_others_wait(ask: Asker, site: Site) -> None:
    def slow(asked: Headers) -> Reply:
        eventually(lambda: waiting_for_locks(ask.cache) == 7)
        return json_reply(GITHUB)

    site.replies[PATH] = slow
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _number: ask(run="this", ttl=0), range(8)))
    assert [answer["releases"] for answer in found] == [FOUND] * 8
    assert len(site.asked) == 1


ASK = """
import json, sys
from ansible_collections.observability.stack.plugins.plugin_utils import _releases
source, api, cache = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
try:
    answer = _releases.available(source, cache_dir=cache, apis={"github": api}, run="this", ttl=0)
except _releases.ReleaseError as exc:
    answer = str(exc)
print(json.dumps(answer), flush=True)
"""


def in_processes(ask: Asker, number: int) -> list[t.Any]:
    """What as many processes of one run are answered, that all ask at once."""
    argv = [sys.executable, "-c", ASK, SOURCE, ask.site.url, str(ask.cache)]
    path = os.pathsep.join([str(pathlib.Path(_releases.__file__).parents[5]), *sys.path])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}, **pipes))
            for _worker in range(number)
        ]
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * number
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(worker.stdout.readline()) for worker in workers]


@pytest.mark.parametrize("status", [200, 503])
def test_of_many_processes_one_asks_also_if_that_fails(ask: Asker, site: Site, status: int) -> None:
    def slow(asked: Headers) -> Reply:
        eventually(lambda: waiting_for_locks(ask.cache) == 2)
        return (status, *json_reply(GITHUB)[1:])

    site.replies[PATH] = slow
    found = in_processes(ask, 3)
    assert len(site.asked) == 1
    if status == 200:
        assert [answer["releases"] for answer in found] == [FOUND] * 3
    else:
        says = f"{site.url}/repos/prometheus/prometheus/releases answered 503: try again later"
        assert {answer.partition(",")[0] for answer in found} == {says}


def test_an_answer_that_is_young_enough_is_taken_without_a_request(ask: Asker, site: Site) -> None:
    first, before = ask(), snapshot(ask.cache)
    ask.now += 899
    assert ask() == first
    assert len(site.asked) == 1
    assert snapshot(ask.cache) == before
    ask.now += 1
    assert ask()["as_of"] == "2026-11-21T10:15:00Z"
    assert len(site.asked) == 2


def test_an_answer_of_this_run_is_taken_however_old_it_is(ask: Asker, site: Site) -> None:
    first = ask(run="this")
    ask.now += 86400
    assert ask(run="this", ttl=0) == first
    assert len(site.asked) == 1
    assert ask(run="another", ttl=0)["as_of"] == "2026-11-22T10:00:00Z"
    assert len(site.asked) == 2


def test_an_answer_from_the_future_is_renewed(ask: Asker, site: Site) -> None:
    ask()
    ask.now -= 3600
    assert ask(run="a fourth")["as_of"] == "2026-11-21T09:00:00Z"
    assert len(site.asked) == 2


def test_what_has_not_changed_is_not_sent_again(ask: Asker, site: Site) -> None:
    site.replies[PATH] = by_etag(json_reply(GITHUB), '"one"')
    ask()
    ask.now += 3600
    assert ask() == {"source": SOURCE, "releases": FOUND, "as_of": "2026-11-21T11:00:00Z", "note": None}
    assert [request.headers.get("if-none-match") for request in site.asked] == [None, '"one"']
    ask.now += 899
    assert ask()["as_of"] == "2026-11-21T11:00:00Z"
    assert len(site.asked) == 2


def test_what_has_changed_is_sent_again(ask: Asker, site: Site) -> None:
    site.replies[PATH] = by_etag(json_reply(GITHUB), '"one"')
    ask()
    site.replies[PATH] = by_etag(json_reply(tagged("v3.5.4")), '"two"')
    assert [release["version"] for release in ask(ttl=0)["releases"]] == ["3.5.4"]
    ask(ttl=0)
    assert [request.headers.get("if-none-match") for request in site.asked] == [None, '"one"', '"two"']


def test_sources_and_apis_are_kept_apart(ask: Asker, site: Site) -> None:
    site.replies["/repos/a/b/releases?per_page=100"] = json_reply(tagged("v1.0.0"))
    site.replies[f"/v3{PATH}"] = json_reply(tagged("v2.0.0"))
    own = {"github": f"{site.url}/v3"}
    for _time in range(2):
        assert [ask(source)["releases"][0]["version"] for source in (SOURCE, "github:a/b")] == ["3.6.0-rc.0", "1.0.0"]
        assert ask(apis=own)["releases"][0]["version"] == "2.0.0"
    assert len(site.asked) == 3


DAMAGE: list[t.Callable[[Data], t.Any]] = [
    lambda data: None,
    lambda data: [],
    lambda data: "x" * 10,
    lambda data: {**data, "fetched": "soon"},
    lambda data: {**data, "releases": [{"version": "new"}]},
    lambda data: {**data, "releases": 7},
    lambda data: {**data, "releases": [{"version": "3.5.3", "date": "yesterday"}]},
    lambda data: {**data, "failure": 7},
    lambda data: {name: value for name, value in data.items() if name != "etag"},
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_answer_is_as_if_there_was_none(ask: Asker, site: Site, damage: t.Callable[[Data], t.Any]) -> None:
    first = ask()
    (kept,) = ask.cache.rglob("*.json")
    kept.write_text(json.dumps(damage(json.loads(kept.read_text()))))
    assert ask() == first
    assert len(site.asked) == 2
    assert ask() == first
    assert len(site.asked) == 2


@pytest.mark.parametrize("content", [b"", b'{"fetched": 1', b"\xff\xfe", b"[" * 100_000])
def test_a_torn_answer_is_as_if_there_was_none(ask: Asker, site: Site, content: bytes) -> None:
    first = ask()
    (kept,) = ask.cache.rglob("*.json")
    kept.write_bytes(content)
    assert ask() == first
    assert len(site.asked) == 2


def test_the_cache_is_the_users_own(ask: Asker) -> None:
    ask()
    assert {path.stat().st_mode & 0o777 for path in (ask.cache / "releases").iterdir()} == {0o600}
    assert (ask.cache / "releases").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("how", ["file", "directory", "mode"])
def test_an_index_that_somebody_else_can_change_is_refused(tmp_path: pathlib.Path, how: str) -> None:
    index = tmp_path / "index.json"
    index.write_text(json.dumps({SOURCE: ["3.5.3"]}))
    assert list(_releases.from_index(str(index))) == [SOURCE]
    if how == "mode":
        index.chmod(0o666)
    else:
        os.chown(index if how == "file" else tmp_path, 65534, 0)
    with pytest.raises(InputError, match=f"upgrade_release_index: {index} is not used: ") as failure:
        _releases.from_index(str(index))
    assert failure.value.key == "input.release_index"


def test_an_answer_in_the_cache_is_believed_of_its_own_source_only(ask: Asker, site: Site) -> None:
    ask()
    (kept,) = ask.cache.rglob("*.json")
    answer = json.loads(kept.read_text())
    planted = {
        **answer,
        "url": "https://elsewhere.example/",
        "releases": [{**answer["releases"][0], "version": "9.9.9"}],
    }
    kept.write_text(json.dumps(planted))
    assert ask()["releases"] == FOUND
    assert len(site.asked) == 2


@pytest.mark.parametrize("place", ["", "releases", "file", "lock"])
def test_answers_that_somebody_else_could_have_put_there_are_refused(ask: Asker, place: str) -> None:
    ask()
    (kept,) = ask.cache.rglob("*.json")
    path = {"file": kept, "lock": kept.with_suffix(".lock")}.get(place, ask.cache / place)
    os.chown(path, 65534, 0)
    failure = ask.refused()
    assert failure.key == "input.cache_dir"
    assert str(path) in str(failure)


def test_a_cache_that_cannot_be_written_is_told(ask: Asker, site: Site) -> None:
    ask.cache.write_text("a file")
    error = ask.refused()
    assert isinstance(error, InputError)
    assert str(error) == (
        f"{ask.cache}/releases: Not a directory; set upgrade_cache_dir to a directory that you can write to"
    )
    assert site.asked == []


# -- failures -------------------------------------------------------------------------------------------------------

UNTIL = "up until 2026-11-21 14:05 UTC"
LIMITED = "the rate limit of {host} is used {until}; set upgrade_release_tokens, or use upgrade_release_index"
LATER = "try again later, or use upgrade_release_index"
NEEDED = "it needs a token; set upgrade_release_tokens: {{{host}: ...}}"
REFUSALS: list[tuple[int, dict[str, str], str, str, str]] = [
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(RESET)}, "release.rate_limited", LIMITED, UNTIL),
    (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(RESET)}, "release.rate_limited", LIMITED, UNTIL),
    (429, {"RateLimit-Remaining": "0", "RateLimit-Reset": str(RESET)}, "release.rate_limited", LIMITED, UNTIL),
    (403, {"Retry-After": email.utils.formatdate(RESET, usegmt=True)}, "release.rate_limited", LIMITED, UNTIL),
    (429, {}, "release.rate_limited", LIMITED, "up"),
    (429, {"Retry-After": "soon"}, "release.rate_limited", LIMITED, "up"),
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9" * 30}, "release.rate_limited", LIMITED, "up"),
    (403, {"X-RateLimit-Remaining": "17", "X-RateLimit-Reset": str(RESET)}, "release.forbidden", NEEDED, ""),
    (401, {}, "release.forbidden", NEEDED, ""),
    (404, {}, "release.not_found", "there is no project prometheus/prometheus, or it needs a token", ""),
    (410, {}, "release.not_found", "there is no project prometheus/prometheus, or it needs a token", ""),
    (500, {}, "release.unavailable", LATER, ""),
    (503, {}, "release.unavailable", LATER, ""),
    (418, {}, "release.unavailable", LATER, ""),
    (204, {}, "release.unavailable", LATER, ""),
    (304, {"Content-Length": ""}, "release.unavailable", LATER, ""),
    (302, {}, "release.unavailable", LATER, ""),
]


@pytest.mark.parametrize(("status", "headers", "key", "says", "until"), REFUSALS)
def test_refusals(
    ask: Asker, site: Site, status: int, headers: dict[str, str], key: str, says: str, until: str
) -> None:
    site.replies[PATH] = (status, headers, b"")
    error = ask.refused()
    where = f"{site.url}/repos/prometheus/prometheus/releases answered {status}: "
    assert str(error) == where + says.format(host=site.host, until=until)
    assert (type(error), error.key) == (ReleaseError, key)


def test_seconds_until_one_may_ask_again_count_from_now(ask: Asker, site: Site) -> None:
    site.replies[PATH] = (403, {"Retry-After": "3600"}, b"")
    found = re.search(r"used up until (\S+ \S+) UTC", str(ask.refused()))
    assert found
    left = calendar.timegm(time.strptime(found[1], "%Y-%m-%d %H:%M")) - time.time()
    assert 3500 < left <= 3600


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "answered 401: the token for {host} isn't good for this; set upgrade_release_tokens: {{{host}: ...}}"),
        (403, "answered 403: the token for {host} isn't good for this; set upgrade_release_tokens: {{{host}: ...}}"),
        (429, "answered 429: the rate limit of {host} is used up; use upgrade_release_index"),
    ],
)
def test_refusals_of_a_token(ask: Asker, site: Site, status: int, says: str) -> None:
    site.replies[PATH] = (status, {}, b"")
    error = str(ask.refused(tokens={site.host: PRIVATE}))
    assert says.format(host=site.host) in error
    assert PRIVATE not in error + ask.written()


def test_what_an_answer_cannot_be(ask: Asker, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.replies[PATH] = (200, {}, b"<html>please log in</html>")
    assert ask.refused().key == "release.malformed"
    site.replies[PATH] = json_reply([])
    assert str(ask.refused()).endswith("lists no release of prometheus/prometheus")
    monkeypatch.setattr(_ask, "LIMIT", 1 << 20)
    site.replies[PATH] = (200, {}, b" " * (1 << 20) + b"[]")
    assert "its answer is larger than 1 MiB" in str(ask.refused())
    site.replies[PATH] = (200, {"Content-Length": "1000"}, json.dumps(GITHUB).encode()[:-20])
    assert "bytes" in str(ask.refused())
    assert ask.refused().key == "release.unavailable"


def test_an_answer_without_a_length_is_read_to_its_end(ask: Asker, site: Site) -> None:
    site.replies[PATH] = (200, {"Content-Length": ""}, json.dumps(GITHUB).encode())
    assert ask()["releases"] == FOUND


def test_an_answer_in_chunks(ask: Asker, site: Site) -> None:
    text = json.dumps(GITHUB).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (text[:9], text[9:])) + b"0\r\n\r\n"
    site.replies[PATH] = (200, {"Content-Length": "", "Transfer-Encoding": "chunked"}, chunks)
    assert ask()["releases"] == FOUND
    site.replies[PATH] = (200, {"Content-Length": "", "Transfer-Encoding": "chunked"}, chunks[:40])
    assert ask.refused(ttl=0, cache_dir=f"{ask.cache}2").key == "release.unavailable"


def test_a_server_that_is_silent_or_slow(ask: Asker, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def silent(asked: Headers) -> Reply:
        done.wait(20)
        return json_reply(GITHUB)

    site.replies[PATH] = silent
    error = ask.refused(timeout=0.2)
    done.set()
    assert "can't be asked: " in str(error)
    assert "timed out" in str(error)
    monkeypatch.setattr(_ask, "DEADLINE", -1)
    # Both the whole and its first part are over at once, and either may be told first.
    assert re.search("timed out: (its answer takes longer than -1 seconds|no answer within -1 s)", str(ask.refused()))


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("http://127.0.0.1:{port}", "Connection refused"),
        ("http://no-such-host.invalid", ""),
        ("https://127.0.0.1:{site}", "SSL"),
        ("http://127.0.0.1:{site}x", ""),
        ("http://[::1", ""),
    ],
)
def test_a_server_that_cannot_be_reached(ask: Asker, site: Site, base: str, says: str) -> None:
    url = base.format(port=closed_port(), site=site.host.partition(":")[2])
    error = ask.refused(apis={"github": url})
    assert error.key in ("release.unavailable", "input.release_source")
    assert says in str(error)
    assert "upgrade_release_index" in str(error) or "upgrade_release_apis" in str(error)


def test_what_was_known_is_used_with_a_note(ask: Asker, site: Site) -> None:
    ask()
    site.replies[PATH] = (503, {}, b"")
    ask.now += 86400
    assert ask() == {
        "source": SOURCE,
        "releases": FOUND,
        "as_of": "2026-11-21T10:00:00Z",
        "note": f"{site.url}/repos/prometheus/prometheus/releases answered 503: try again later, or use "
        "upgrade_release_index; using what was known on 2026-11-21T10:00:00Z",
    }
    site.replies[PATH] = by_etag(json_reply(GITHUB), '"one"')
    assert ask()["note"] is None


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_what_was_known_is_used_if_the_answer_is_nonsense(ask: Asker, site: Site, body: bytes) -> None:
    ask()
    site.replies[PATH] = (200, {}, body)
    answer = ask(ttl=0)
    assert answer["releases"] == FOUND
    assert "; using what was known on 2026-11-21T10:00:00Z" in answer["note"]


def test_a_failure_counts_for_the_whole_run_and_for_no_other(ask: Asker, site: Site) -> None:
    site.replies[PATH] = (503, {}, b"")
    errors = {str(ask.refused(run="this")) for _fork in range(3)}
    assert (len(errors), len(site.asked)) == (1, 1)
    ask.refused(run="another")
    ask.refused()
    assert len(site.asked) == 3
    site.replies[PATH] = json_reply(GITHUB)
    assert ask(run="a third")["note"] is None
    site.replies[PATH] = (503, {}, b"")
    ask.now += 3600
    notes = {ask(run="a fourth")["note"] for _fork in range(3)}
    assert (len(notes), len(site.asked)) == (1, 5)


# -- who asks -------------------------------------------------------------------------------------------------------


def authorizations(site: Site) -> list[str | None]:
    return [request.headers.get("authorization") for request in site.asked]


def test_a_token_goes_to_its_host(ask: Asker, site: Site) -> None:
    ask(tokens={"api.github.com": "other", site.host: f" {PRIVATE}\n", site.other_host: "other"})
    assert authorizations(site) == [f"Bearer {PRIVATE}"]
    assert PRIVATE not in ask.written()


def test_a_token_for_a_host_is_none_for_its_other_ports(ask: Asker, site: Site) -> None:
    ask(tokens={"127.0.0.1": PRIVATE, "127.0.0.1:1": PRIVATE, "localhost": PRIVATE})
    assert authorizations(site) == [None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_does_not_follow_a_redirect_to_another_host(ask: Asker, site: Site, status: int) -> None:
    site.replies[PATH] = (status, {"Location": f"{site.other_url}/elsewhere"}, b"")
    site.replies["/elsewhere"] = json_reply(GITHUB)
    assert ask(tokens={site.host: PRIVATE})["releases"] == FOUND
    assert authorizations(site) == [f"Bearer {PRIVATE}", None]


def test_a_token_does_not_follow_a_redirect_to_another_port(ask: Asker, site: Site) -> None:
    with Site().serving() as other:
        site.replies[PATH] = (302, {"Location": f"{other.url}/elsewhere"}, b"")
        other.replies["/elsewhere"] = json_reply(GITHUB)
        assert ask(tokens={site.host: PRIVATE})["releases"] == FOUND
        assert authorizations(site) + authorizations(other) == [f"Bearer {PRIVATE}", None]


def test_each_host_of_a_redirect_gets_its_own_token(ask: Asker, site: Site) -> None:
    site.replies[PATH] = (301, {"Location": "/repositories/1"}, b"")
    site.replies["/repositories/1"] = (302, {"Location": f"{site.other_url}/elsewhere"}, b"")
    site.replies["/elsewhere"] = json_reply(GITHUB)
    ask(tokens={site.host: PRIVATE, site.other_host.upper(): "another"})
    assert authorizations(site) == [f"Bearer {PRIVATE}", f"Bearer {PRIVATE}", "Bearer another"]


def test_a_login_in_the_url_goes_to_its_host_and_is_never_shown(ask: Asker, site: Site) -> None:
    signed = site.url.replace("//", f"//me:{PRIVATE}%40@")
    site.replies["/pub/"] = (302, {"Location": f"{site.other_url}/pub2/"}, b"")
    site.replies["/pub2/"] = (200, {}, b'<a href="v1.2.3/">')
    answer = ask(f"{signed}/pub/v{{version}}")
    assert answer["source"] == f"http://********@{site.host}/pub/v{{version}}"
    assert [str(text).partition(" ")[0] for text in authorizations(site)] == ["Basic", "None"]
    site.replies["/pub/"] = (404, {}, b"")
    note = ask(f"{signed}/pub/v{{version}}", ttl=0)["note"]
    assert PRIVATE not in note + ask.written() + str(answer)
    assert PRIVATE not in str(ask.refused(f"{signed}/none/v{{version}}"))


def test_a_login_of_netrc_is_used_where_there_is_no_token(ask: Asker, site: Site, tmp_path: pathlib.Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    ask()
    ask(ttl=0, tokens={site.host: PRIVATE})
    assert [str(text).partition(" ")[0] for text in authorizations(site)] == ["Basic", "Bearer"]
    netrc.write_text("machine\n\n7 7 7")
    assert ask(ttl=0)["note"].startswith(f"{site.url}/repos/prometheus/prometheus/releases can't be asked: ")


@pytest.mark.parametrize("token", [f"{PRIVATE} x", f"{PRIVATE}\nX-Other: 1", f"{PRIVATE}\u20ac"])
def test_a_token_that_can_be_none_is_told_without_it(ask: Asker, site: Site, token: str) -> None:
    error = str(ask.refused(tokens={site.host: token}))
    assert f"the token for {site.host} has spaces or other characters in it that no token has" in error
    assert PRIVATE not in error + ask.written()
    assert site.asked == []


@pytest.mark.parametrize(
    ("location", "says"),
    [
        (PATH, "it leads in a circle, or further than 5 times"),
        ("ftp://127.0.0.1/x", "it leads to ftp, which no release comes by"),
        ("file:///etc/passwd", "it leads to file, which no release comes by"),
        ("http://[::1", "Invalid IPv6 URL"),
    ],
)
def test_redirects_that_lead_nowhere(ask: Asker, site: Site, location: str, says: str) -> None:
    site.replies[PATH] = (302, {"Location": location}, b"")
    error = str(ask.refused())
    assert says in error
    assert "root:" not in error


def test_redirects_have_an_end(ask: Asker, site: Site) -> None:
    site.replies[PATH] = (302, {"Location": "/0"}, b"")
    site.replies.update({f"/{hop}": (302, {"Location": f"/{hop + 1}"}, b"") for hop in range(9)})
    assert "it leads in a circle, or further than 5 times" in str(ask.refused())
    assert len(site.asked) == 6


# -- several at once ------------------------------------------------------------------------------------------------


def options(ask: Asker, **more: t.Any) -> Data:
    return {"cache_dir": str(ask.cache), "apis": {"github": ask.site.url}, **more}


def test_sources_are_asked_side_by_side_but_not_too_many(ask: Asker, site: Site) -> None:
    barrier, at_once, most = threading.Barrier(8), [0], [0]
    guard = threading.Lock()

    def together(asked: Headers) -> Reply:
        with guard:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        barrier.wait(20)
        with guard:
            at_once[0] -= 1
        return json_reply(tagged("v1.0.0"))

    sources = [f"github:a/b{number}" for number in range(16)]
    for source in sources:
        site.replies[f"/repos/{source.partition(':')[2]}/releases?per_page=100"] = together
    found = _releases.answers([*sources, sources[0]], **options(ask))
    assert list(found) == sources
    assert (len(site.asked), most[0]) == (16, 8)


def test_an_error_is_raised_or_told(ask: Asker) -> None:
    sources = [SOURCE, "github:a/b", "github:a/c", "nonsense"]
    with pytest.raises(ReleaseError) as failure:
        _releases.answers(sources, **options(ask))
    assert "/repos/a/b/releases answered 404: there is no project a/b, or it needs a token" in str(failure.value)
    assert str(failure.value).endswith(" (sources that can't be listed: 3)")
    assert failure.value.key == "release.not_found"
    found = _releases.answers(sources, tell=True, **options(ask))
    assert found[SOURCE]["releases"] == FOUND
    assert found["github:a/b"].pop("error").endswith("answered 404: there is no project a/b, or it needs a token")
    assert found["github:a/b"] == {"source": "github:a/b", "releases": [], "as_of": None, "note": None}
    assert found["nonsense"]["error"].startswith("'nonsense' is not a source of releases")


# -- the index ------------------------------------------------------------------------------------------------------


def index(tmp_path: pathlib.Path, text: str) -> str:
    path = tmp_path / "releases.yml"
    path.write_text(text)
    return str(path)


YAML = """
github:prometheus/prometheus:
  - "3.5.3"
  - {version: 3.6.0-rc.0, date: 2026-05-04}
  - version: v2.55.1
    date: "2024-11-04"
    prerelease: true
  - 3.5.3
gitlab:a/b/c:
  releases: [{version: 1.2.3, date: 2026-05-04T10:00:00Z}]
  as_of: 2026-11-21T12:00:00+02:00
  note: as of today
https://mirror.example/x/v{version}: ["1.0.0"]
"""


def test_an_index(tmp_path: pathlib.Path) -> None:
    found = _releases.from_index(index(tmp_path, YAML))
    assert found == {
        SOURCE: {
            "source": SOURCE,
            "releases": [
                {"version": "3.6.0-rc.0", "date": "2026-05-04", "prerelease": True},
                {"version": "3.5.3", "date": None, "prerelease": False},
                {"version": "2.55.1", "date": "2024-11-04", "prerelease": True},
            ],
            "as_of": None,
            "note": None,
        },
        "gitlab:a/b/c": {
            "source": "gitlab:a/b/c",
            "releases": [{"version": "1.2.3", "date": "2026-05-04", "prerelease": False}],
            "as_of": "2026-11-21T10:00:00Z",
            "note": "as of today",
        },
        "https://mirror.example/x/v{version}": {
            "source": "https://mirror.example/x/v{version}",
            "releases": [{"version": "1.0.0", "date": None, "prerelease": False}],
            "as_of": None,
            "note": None,
        },
    }


def test_answers_can_be_kept_and_used_as_an_index(ask: Asker, site: Site, tmp_path: pathlib.Path) -> None:
    found = _releases.answers([SOURCE, "github:a/b"], tell=True, **options(ask))
    path = index(tmp_path, json.dumps(found, indent="\t"))
    site.asked.clear()
    assert _releases.answers([SOURCE], index=path, **options(ask)) == {SOURCE: found[SOURCE]}
    with pytest.raises(InputError) as failure:
        _releases.answers(["github:a/b"], index=path, **options(ask))
    assert (
        str(failure.value) == f"{path} says nothing of github:a/b; add it there, or run without upgrade_release_index"
    )
    assert site.asked == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "{path} is None; it must be a dictionary of sources"),
        ("[]", "{path} is []; it must be a dictionary of sources"),
        ("prometheus: ['1.0.0']", "{path}: a key is 'prometheus'; it must be github:<owner>/<repository>, gitlab:"),
        ("7: ['1.0.0']", "{path}: a key is 7; it must be github:<owner>/<repository>"),
        ("github:a/b: []", "{path}: github:a/b is []; it must be a list of at least one version"),
        ("github:a/b: 1.0.0", "{path}: github:a/b is '1.0.0'; it must be a list of at least one version"),
        ("github:a/b: {releases: 7}", "{path}: github:a/b: releases is 7; it must be a list of at least one version"),
        ("github:a/b: {versions: []}", "{path}: github:a/b: a key is 'versions'; it must be one of source, releases"),
        ("github:a/b: [3.5]", "{path}: github:a/b[0] is 3.5; it must be a version in quotes, like '3.5.3'"),
        ("github:a/b: ['1.0.0', new]", "{path}: github:a/b[1] is 'new'; it must be a version in quotes"),
        ("github:a/b: [{date: 2026-01-01}]", "{path}: github:a/b[0] is None; it must be a version in quotes"),
        (
            "github:a/b: [{version: 1.0.0, when: 1}]",
            "{path}: github:a/b[0]: a key is 'when'; it must be one of version, date, prerelease",
        ),
        (
            "github:a/b: [{version: 1.0.0, date: May}]",
            "{path}: github:a/b[0].date is 'May'; it must be a date like 2026-05-01",
        ),
        ("github:a/b: [{version: 1.0.0, date: 7}]", "{path}: github:a/b[0].date is 7; it must be a date"),
        (
            "github:a/b: [{version: 1.0.0, prerelease: 1}]",
            "{path}: github:a/b[0].prerelease is 1; it must be true or false",
        ),
        (
            "github:a/b: {releases: ['1.0.0'], as_of: today}",
            "{path}: github:a/b: as_of is 'today'; it must be a time like 2026-11-21T10:00:00Z",
        ),
        ("github:a/b: ['1.0.0'\nx: y: z", "{path}, line 2: is neither YAML nor JSON: "),
        ("a: !!python/object:x {}", "{path}, line 1: is neither YAML nor JSON: "),
        ("https://me:secret@x.example/v{version}: 7", "{path}: https://********@x.example/v{{version}} is 7; it"),
    ],
)
def test_errors_of_an_index_name_the_file_and_the_place(tmp_path: pathlib.Path, text: str, says: str) -> None:
    path = index(tmp_path, text)
    with pytest.raises(InputError) as failure:
        _releases.from_index(path)
    assert str(failure.value).startswith(says.format(path=path))
    assert failure.value.key == "input.release_index"
    assert "\n" not in str(failure.value)


def test_an_index_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"^upgrade_release_index: /none/x\.yml: No such file or directory$"):
        _releases.from_index("/none/x.yml")
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"/x: is no text$"):
        _releases.from_index(str(tmp_path / "x"))


# -- sizes ----------------------------------------------------------------------------------------------------------


def test_sizes(site: Site, tmp_path: pathlib.Path) -> None:
    site.replies["/a.tgz"] = (302, {"Location": f"{site.other_url}/signed?token=1"}, b"")
    site.replies["/signed?token=1"] = (200, {"Content-Length": "123456789"}, b"")
    site.replies["/b.tgz"] = (200, {"Content-Length": ""}, b"")
    site.replies["/c.tgz"] = (405, {}, b"")
    gone = f"http://127.0.0.1:{closed_port()}/d.tgz"
    urls = [f"{site.url}/{name}.tgz" for name in ("a", "b", "c", "none")] + [gone, "nonsense", "http://[::1"]
    expected = {
        urls[0]: {"bytes": 123456789, "status": 200},
        urls[1]: {"bytes": None, "status": 200},
        urls[2]: {"bytes": None, "status": 405},
        urls[3]: {"bytes": None, "status": 404},
        gone: {"bytes": None, "status": None},
        "nonsense": {"bytes": None, "status": None},
        "http://[::1": {"bytes": None, "status": None},
    }
    assert _releases.sizes([*urls, urls[0]], cache_dir=str(tmp_path)) == expected
    assert {request.method for request in site.asked} == {"HEAD"}
    assert len(site.asked) == 5


def test_a_size_is_asked_for_once_a_day(site: Site, tmp_path: pathlib.Path) -> None:
    site.replies["/a.tgz"] = (200, {"Content-Length": "7"}, b"")
    urls = [f"{site.url}/a.tgz", f"{site.url}/none.tgz"]

    def ask(now: float) -> list[str]:
        site.asked.clear()
        sizes = _releases.sizes(urls, cache_dir=str(tmp_path), clock=lambda: now)
        assert [sizes[url]["bytes"] for url in urls] == [7, None]
        return sorted(request.path for request in site.asked)

    assert ask(NOW) == ["/a.tgz", "/none.tgz"]
    assert ask(NOW + 86399) == ["/none.tgz"]
    assert ask(NOW + 86400) == ["/a.tgz", "/none.tgz"]
    (tmp_path / "releases" / "sizes.json").write_text('{"x": 7}')
    assert ask(NOW + 86401) == ["/a.tgz", "/none.tgz"]


def test_sizes_at_mirrors(site: Site, tmp_path: pathlib.Path) -> None:
    site.replies["/two/x/a.tgz"] = (200, {"Content-Length": "7"}, b"")
    url = "https://dl.example/x/a.tgz"
    cache = str(tmp_path)
    mirrors = [f"{site.url}/one/", f"{site.url}/two"]
    assert _releases.sizes([url], cache_dir=cache, mirror=mirrors[0]) == {url: {"bytes": None, "status": 404}}
    assert _releases.sizes([url], cache_dir=cache, mirror=mirrors) == {url: {"bytes": 7, "status": 200}}
    assert [request.path for request in site.asked] == ["/one/x/a.tgz", "/one/x/a.tgz", "/two/x/a.tgz"]


def test_sizes_need_no_cache(site: Site, tmp_path: pathlib.Path) -> None:
    site.replies["/a.tgz"] = (200, {"Content-Length": "7"}, b"")
    (tmp_path / "cache").write_text("a file")
    url = f"{site.url}/a.tgz"
    assert _releases.sizes([url], cache_dir=str(tmp_path / "cache")) == {url: {"bytes": 7, "status": 200}}
    assert _releases.sizes([], cache_dir=str(tmp_path)) == {}
