# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import typing as t

import pytest
from ansible.module_utils.urls import open_url
from ansible_collections.observability.stack.plugins.module_utils import _web

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "http://mirror.example/x", None),
        ({"http_proxy": "http://proxy.example:3128"}, "http://mirror.example/x", ("http_proxy", "proxy.example:3128")),
        ({"http_proxy": "http://proxy.example:3128"}, "https://mirror.example/x", None),
        (
            {"HTTPS_PROXY": "http://u:hunter2@proxy.example:3128/"},
            "https://m.example",
            ("HTTPS_PROXY", "proxy.example:3128"),
        ),
        ({"http_proxy": "u:hunter2@proxy.example:1"}, "http://m.example", ("http_proxy", "proxy.example:1")),
        ({"http_proxy": "http://p.example:1", "no_proxy": "mirror.example"}, "http://a:b@mirror.example:8099/x", None),
        (
            {"http_proxy": "http://p.example:1", "no_proxy": "10.88.0.0/16"},
            "http://10.88.0.1/x",
            ("http_proxy", "p.example:1"),
        ),
    ],
)
def test_the_proxy_of_a_url_is_that_of_the_environment_without_its_login(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: t.Any
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _web.proxy_of(url) == proxy


@pytest.mark.parametrize("url", ["http://mirror.example/x", "https://mirror.example/x"])
def test_a_proxy_that_cannot_be_reached_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        variable = f"{url.partition(':')[0]}_proxy"
        monkeypatch.setenv(variable, f"http://user:hunter2@{address}")
        with pytest.raises(_web.TransferError) as failure, _web.answered(url, open_url=open_url, timeout=5):
            pass
    message = str(failure.value)
    assert f"(by way of the proxy {address}, which {variable} names). See whether that proxy can be reached" in message
    assert "hunter2" not in message
    assert "upgrade_release_mirror" not in message
