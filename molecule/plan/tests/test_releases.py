# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How releases come to hosts: ahead of the window, from one file without a network, or fetched by the hosts."""

from __future__ import annotations

import pathlib
import typing as t

from conftest import STATE_DIR, Server, play

Versions = dict[str, list[str]]
NOBODY = "http://127.0.0.1:9"


def later(server: Server) -> dict[str, str]:
    """A maintenance window that is closed now."""
    hour = int(server.out("date -u +%H"))
    return {"start": f"{(hour + 2) % 24:02}:00", "end": f"{(hour + 3) % 24:02}:00"}


def test_with_a_bundle_nobody_is_asked_and_what_came_ahead_is_not_sent_again(
    servers: dict[str, Server], versions: Versions, tmp_path: pathlib.Path
) -> None:
    server, newest = servers["host2"], versions["node_exporter"][2]
    before, bundle = (server.on_disk("node_exporter"), server.pid("node_exporter")), str(tmp_path / "bundle.tar")
    wish: dict[str, t.Any] = {"upgrade_versions": {"node_exporter": newest}}
    play("bundle", "-l", "host2", upgrade_bundle_dest=bundle, **wish)
    wish |= {"upgrade_bundle": bundle, "upgrade_release_mirror": NOBODY, "upgrade_cache_dir": str(tmp_path / "cache")}
    play("upgrade", "-l", "host2", upgrade_download_only=True, upgrade_windows=[later(server)], **wish)
    assert (server.on_disk("node_exporter"), server.pid("node_exporter")) == before
    assert f"node_exporter@{newest}" in server.out(f"ls {STATE_DIR}/staging")
    played = play("upgrade", "-l", "host2", **wish)
    assert server.is_healthy("node_exporter", newest)
    assert server.is_at_rest()
    assert played.recap["host2"]["failed"] == 0
    told = " ".join(server.component("node_exporter")["verified"])
    assert "bundle.tar" in told
    assert "sha256sums.txt" in told


def test_a_bundle_that_lacks_a_release_says_so_before_anything_is_touched(
    servers: dict[str, Server], versions: Versions, tmp_path: pathlib.Path
) -> None:
    server, bundle = servers["host1"], str(tmp_path / "bundle.tar")
    newest = {name: versions[name][2] for name in ("node_exporter", "alertmanager")}
    play(
        "bundle", "-l", "host1", upgrade_bundle_dest=bundle, upgrade_versions={"node_exporter": newest["node_exporter"]}
    )
    before = server.snapshot()
    played = play("upgrade", "-l", "host1", code=2, upgrade_bundle=bundle, upgrade_versions=newest)
    assert f"alertmanager {newest['alertmanager']}" in played.output
    assert "bundle" in played.output
    assert server.snapshot() == before


def test_a_host_fetches_by_itself_what_the_controller_has_proven(
    servers: dict[str, Server], versions: Versions, tmp_path: pathlib.Path
) -> None:
    server, newest = servers["host3"], versions["node_exporter"][2]
    cache = tmp_path / "cache"
    wish = {"upgrade_versions": {"node_exporter": newest}, "upgrade_fetch": "host", "upgrade_cache_dir": str(cache)}
    play("upgrade", "-l", "host3", **wish)
    assert server.is_healthy("node_exporter", newest)
    assert server.is_at_rest()
    assert list((cache / "sha256").iterdir()) == []  # the archive was never on the controller
