# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each place that asks a server something, against servers that are slow or endless: it ends in its time, says so, and
leaves nothing running."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading
import time
import typing as t

import pytest
from ansible.module_utils.urls import open_url
from ansible_collections.observability.stack.plugins.module_utils import _host, _http, _transfer
from ansible_collections.observability.stack.plugins.module_utils._errors import UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import _download, _releases, _silences
from ansible_collections.observability.stack.tests.unit.sites import Site
from ansible_collections.observability.stack.tests.unit.slow_peers import PEERS, Peer, listening
from ansible_collections.observability.stack.tests.unit.support import eventually
from ansible_collections.observability.stack.tests.unit.web_faults import one_context

LIMIT = 0.4
LATER = 2.0
"""Seconds beyond the limit. The promise is 5; a machine that is busy may need some of them."""

LIMITS = _transfer.Limits(attempts=1, connect=LIMIT, read=LIMIT, window=LIMIT, total=LIMIT, size=1 << 40)


def service(url: str, directory: pathlib.Path) -> str:
    """A module asks a service of its host."""
    answer = _http.ask("POST", url, body="x" * 100_000, timeout=LIMIT)
    return answer.error if answer.status is None else f"{answer.status} {answer.error}"


def preflight(url: str, directory: pathlib.Path) -> str:
    """upgrade_preflight asks whether a release can be had."""
    return "".join(_host.unreachable([url], open_url=open_url, now=time.time()).values()) or "it is there"


def list_of_releases(url: str, directory: pathlib.Path) -> str:
    """The lookup of releases."""
    _releases.available(f"{url}/v{{version}}", cache_dir=str(directory), timeout=LIMIT)
    return "it was taken"


def sizes(url: str, directory: pathlib.Path) -> str:
    """The lookup of sizes."""
    found = _releases.sizes([f"{url}/x"], cache_dir=str(directory), timeout=LIMIT)
    return "timed out" if found[f"{url}/x"]["status"] is None else "it was told"


def archive(url: str, directory: pathlib.Path) -> str:
    """An archive on its way to the controller or a host."""
    return _download.download([f"{url}/x"], str(directory / "x"), sha256="0" * 64, listed="here", limits=LIMITS)


def checksums(url: str, directory: pathlib.Path) -> str:
    """A small file on its way to the controller or a host."""
    return str(_download.read_small(f"{url}/x", most=1 << 30, limits=LIMITS))


def alertmanager(url: str, directory: pathlib.Path) -> str:
    """A silence before a restart."""
    peer = _silences.Alertmanager(url, authorization="", open_url=open_url, timeout=LIMIT)
    return str(peer.alive(_silences.Owner("u1", "web1")))


SITES = [service, preflight, list_of_releases, sizes, archive, checksums, alertmanager]
HEADERS_ONLY = (preflight, sizes)
"""What leaves the body alone."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    one_context(monkeypatch)
    monkeypatch.setattr(_host, "URL_TIMEOUT", LIMIT)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("site", SITES)
def test_an_exchange_ends_in_its_time_and_says_so(
    site: t.Callable[[str, pathlib.Path], str], peer: str, tmp_path: pathlib.Path
) -> None:
    others, body = set(threading.enumerate()), "bod" in peer or "chunk" in peer or "trailers" in peer
    with listening(PEERS[peer]) as port:
        began = time.monotonic()
        try:
            told = site(f"http://127.0.0.1:{port}", tmp_path)
        except UpgradeError as exc:
            told = str(exc)
        assert time.monotonic() - began < LIMIT + LATER
        if not (body and site in HEADERS_ONLY):
            assert any(words in told for words in ("timed out", "takes longer than", "comes too slowly")), told
        eventually(
            lambda: not {each for each in threading.enumerate() if each.name == "exchange"} - others, within=LATER
        )


@pytest.mark.parametrize("peer", [Peer(b"", b""), Peer(b"\x16\x03\x03\x40\x00\x02", b"\x00")], ids=["silence", "drip"])
@pytest.mark.parametrize("site", SITES)
def test_a_handshake_counts(site: t.Callable[[str, pathlib.Path], str], peer: Peer, tmp_path: pathlib.Path) -> None:
    with listening(peer) as port:
        began = time.monotonic()
        with contextlib.suppress(UpgradeError):
            assert "timed out" in site(f"https://127.0.0.1:{port}", tmp_path)
        assert time.monotonic() - began < LIMIT + LATER


@pytest.mark.parametrize("site", SITES)
def test_the_look_up_of_a_name_counts(
    site: t.Callable[[str, pathlib.Path], str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()  # a name server that doesn't answer can't be had without changing the machine
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: over.wait(60))
    began = time.monotonic()
    with contextlib.suppress(UpgradeError):
        assert "timed out" in site("http://releases.invalid", tmp_path)
    assert time.monotonic() - began < LIMIT + LATER
    over.set()


def test_all_requests_to_one_alertmanager_share_its_time() -> None:
    """One that lists many silences could be slow at the removal of each."""

    def slow(asked: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.3)
        return 200, {}, b"[]"

    with Site().serving() as site:
        site.replies["/api/v2/silences"] = slow
        peer = _silences.Alertmanager(site.url, authorization="", open_url=open_url, timeout=1.0)
        owner, began = _silences.Owner("u1", "web1"), time.monotonic()
        with pytest.raises(_silences.SilenceError, match="timed out: its answer takes longer than 1 seconds"):
            assert [peer.alive(owner) for _number in range(20)] == []
        assert time.monotonic() - began < 1 + LATER


def test_a_server_that_does_not_answer_is_asked_for_few_sizes(tmp_path: pathlib.Path) -> None:
    with listening(PEERS["drip of a header"]) as port:
        urls = [f"http://127.0.0.1:{port}/{number}" for number in range(64)]
        began = time.monotonic()
        found = _releases.sizes(urls, cache_dir=str(tmp_path), timeout=LIMIT)
        assert time.monotonic() - began < 2 * LIMIT + LATER
    assert {size["bytes"] for size in found.values()} == {None}
