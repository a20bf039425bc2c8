# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils._version import (
    UNKNOWN,
    find_version,
    normalize,
    same_version,
)

# What the programs really print; the source is each program, run.
OUTPUTS = [
    (
        "prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+deb12u1)\n"
        "  build user:       team+pkg-go@tracker.debian.org\n  go version:       go1.19.8\n",
        "2.42.0",
    ),
    ("prometheus, version 3.5.3+ds1 (branch: debian/sid, revision: 3.5.3+ds1-6)\n", "3.5.3"),
    ("prometheus, version 3.8.1 (branch: HEAD, revision: abc)\n  go version: go1.25.4\n", "3.8.1"),
    ("prometheus, version 3.0.0-rc.1 (branch: HEAD)", "3.0.0-rc.1"),
    ("NGINX Prometheus Exporter version=0.11.0-1+b4 commit= date=, dirty=false, go=go1.19.8\n", "0.11.0"),
    ("nginx_exporter, version 1.5.1 (branch: , revision: unknown)\n  go version: go1.22.1\n", "1.5.1"),
    ("php-fpm_exporter 2.2.0, commit 4b4d1b7, built at 2022-05-20T09:27:21Z\n", "2.2.0"),
    ("0.10.1\n    build date: 2023-10-01T00:00:00Z\r\n    commit hash: abc\n    go version: go1.20\n", "0.10.1"),
    ("grafana version 11.6.0\n", "11.6.0"),
    ("Version 11.6.0 (commit: d2fdff9, branch: HEAD)\n", "11.6.0"),
    ("Version 13.0.1+security-01 (commit: d2fdff9)\n", "13.0.1+security-01"),
    ("loki, version 3.6.3 (branch: release-3.6.x, revision: abc)\n", "3.6.3"),
    ("version: v1.2.3\n", "1.2.3"),
    ("exporter, version 2024.10.1 (branch: x)\n", "2024.10.1"),
    ("node_exporter, version (version=, branch=, revision=)\n  go version: go1.21\n", UNKNOWN),
    ("go version: go1.21.3\n", UNKNOWN),
    ("built 2022-05-20 on 10.0.0.1\n", UNKNOWN),
    ("loki, version 2.9.x (branch: main)\n", UNKNOWN),
    ("flag provided but not defined: -version\n", UNKNOWN),
    ("", UNKNOWN),
]


@pytest.mark.parametrize(("output", "version"), OUTPUTS)
def test_find_version_in_what_programs_print(output: str, version: str) -> None:
    assert find_version(output) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.2.3", "1.2.3"),
        ("2.42.0+ds", "2.42.0"),
        ("2.53.3+ds1", "2.53.3"),
        ("2.42.0+ds-5+deb12u1", "2.42.0"),
        ("0.25.0-1+b4", "0.25.0"),
        ("0.25.0-1ubuntu1", "0.25.0"),
        ("10.0.0+security-01", "10.0.0+security-01"),
        ("3.0.0-rc.1", "3.0.0-rc.1"),
        ("10.4.0-71127", "10.4.0-71127"),
        (" 1.0 ", "1.0"),
        ("version", "version"),
    ],
)
def test_normalize_drops_only_what_a_distribution_appended(text: str, version: str) -> None:
    assert normalize(text) == version
    assert normalize(normalize(text)) == version


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2.42.0+ds", "2.42.0", True),
        ("v1.9.0", "1.9.0", True),
        ("1.9.0", "1.9.1", False),
        ("3.5.1", "3.5.12", False),
        ("10.0.0+security-01", "10.0.0", False),
        (UNKNOWN, UNKNOWN, False),
        (None, None, False),
        ("", "", False),
    ],
)
def test_same_version_needs_two_known_ones(one: str | None, other: str | None, same: bool) -> None:
    assert same_version(one, other) is same
