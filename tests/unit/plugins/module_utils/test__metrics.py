# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _metrics
from ansible_collections.observability.stack.plugins.module_utils._metrics import labels_of, version_in

PAGE = """\
# HELP node_exporter_build_info A metric with a constant '1' value labeled by version.
# TYPE node_exporter_build_info gauge
node_exporter_build_info{branch="HEAD",goarch="amd64",version="1.9.0"} 1
node_exporter_build_info_other{version="0.0.1"} 1
go_info{version="go1.24.1"} 1
quoted{path="C:\\\\dir",text="a \\"b\\" {c}",line="1\\n2"} 3
plain 1.5e+06
with_time{a="b"} 1 1700000000000
f2b_version{exporter="0.10.1",fail2ban="1.0.2"} 1
"""


def build_info(metric: str, label: str = "version") -> list[dict[str, str]]:
    return [{"metric": metric, "label": label}]


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        (build_info("node_exporter_build_info"), "1.9.0"),
        (build_info("f2b_version", "exporter"), "0.10.1"),
        (build_info("nginxexporter_build_info") + build_info("node_exporter_build_info"), "1.9.0"),
        (build_info("exporter_build_info"), None),
        (build_info("node_exporter_build"), None),
        (build_info("node_exporter_build_info", "revision"), None),
        ([], None),
    ],
)
def test_version_in_takes_the_first_metric_that_tells_it(wanted: list[dict[str, str]], version: str | None) -> None:
    assert version_in(PAGE, wanted) == version


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("quoted", [{"path": "C:\\dir", "text": 'a "b" {c}', "line": "1\n2"}]),
        ("plain", [{}]),
        ("with_time", [{"a": "b"}]),
        ("go", []),
        ("TYPE", []),
    ],
)
def test_labels_of_reads_the_exposition_format(metric: str, labels: list[dict[str, str]]) -> None:
    assert list(labels_of(PAGE, metric)) == labels


def test_a_page_that_is_no_metrics_has_none() -> None:
    assert version_in("<html>node_exporter_build_info</html>", build_info("node_exporter_build_info")) is None


MANY = 400_000
HOSTILE = {
    "labels without an end": "a{\n" * MANY,
    "strings without an end": 'a{b="' * MANY,
    "one long name": "a" * 5 * MANY,
    "one long label": "a{" + "x" * 5 * MANY + "} 1",
    "escapes": "a{" + 'x="\\"' * MANY + "} 1",
    "spaces": "a" + " " * 5 * MANY,
    "many samples": "a 1\n" * 2 * MANY,
}


@pytest.mark.parametrize("page", HOSTILE.values(), ids=HOSTILE)
def test_a_page_that_is_made_to_be_slow_is_read_in_a_few_seconds(page: str) -> None:
    """Megabytes of it. What looks at a part again and again would take hours."""
    began = time.process_time()
    read = _metrics.Page(page)
    assert read.count <= 500_000
    read.total("a", {"x": "1"})
    assert _metrics.version_in(page, [{"metric": "a", "label": "version"}]) is None
    assert time.process_time() - began < 10
