# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _unit_changes

LOADED = {
    "ExecStart": (
        "{ path=/usr/local/bin/node_exporter ; argv[]=/usr/local/bin/node_exporter --collector.x --name=a b ; "
        "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
    ),
    "Environment": 'GOGC=50 "TWO=a b" API_TOKEN=geheim',
    "EnvironmentFiles": "/etc/default/one (ignore_errors=yes)",
    "Type": "simple",
    "User": "node-exp",
    "UMask": "0022",
    "WorkingDirectory": "/var/lib/x",
    "NoNewPrivileges": "yes",
    "ProtectHome": "no",
    "MemoryMax": "1073741824",
    "TasksMax": "28909",
    "DynamicUser": "no",
}
TEXT = """\
# a comment
[Unit]
Description=User=nobody
[Service]
Type=simple
User=node-exp
ExecStart=/usr/local/bin/node_exporter \\
    # a comment within
    --collector.x \\
    '--name=a b'
Environment=GOGC=50 "TWO=a b"
Environment=API_TOKEN=geheim
EnvironmentFile=-/etc/default/one
WorkingDirectory=-/var/lib/x/
NoNewPrivileges=true
MemoryMax=1G
UMask=022
"""


def told(*texts: str, **loaded: str) -> list[str]:
    return [str(one) for one in _unit_changes.differences({**LOADED, **loaded}, texts)]


def test_the_text_that_was_loaded_has_no_difference() -> None:
    assert told(TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("--collector.x", "--collector.y", "ExecStart: loaded --collector.x, on disk --collector.y"),
        ("    --collector.x \\\n", "", "ExecStart: loaded --collector.x, on disk (none)"),
        ("--collector.x", "--collector.x --password=geheim", "ExecStart: loaded (none), on disk --password=********"),
        ("ExecStart=", "ExecStart=-", ""),
        ("'--name=a b'", '"--name=a b', "ExecStart: loaded"),
        ("GOGC=50", "GOGC=100", "Environment: loaded GOGC=50, on disk GOGC=100"),
        ("=API_TOKEN=geheim", "=API_TOKEN=other", "Environment: loaded API_TOKEN=********, on disk API_TOKEN=********"),
        ("-/etc/default/one", "/etc/default/two", "EnvironmentFile: loaded /etc/default/one, on disk /etc/default/two"),
        ("User=node-exp\n", "", "User: loaded node-exp, on disk (none)"),
        ("NoNewPrivileges=true", "NoNewPrivileges=0", "NoNewPrivileges: loaded yes, on disk 0"),
        ("MemoryMax=1G", "MemoryMax=1024M", ""),
        ("MemoryMax=1G", "MemoryMax=64M", "MemoryMax: loaded 1073741824, on disk 64M"),
        ("MemoryMax=1G", "MemoryMax=50%", ""),
        ("UMask=022", "UMask=0077", "UMask: loaded 0022, on disk 0077"),
        ("UMask=022\n", "", ""),
        ("[Unit]\n", "[Unit]\nUser=root\n", ""),
    ],
)
def test_a_changed_text_is_told_by_what_it_means(old: str, new: str, expected: str) -> None:
    assert old in TEXT
    found = told(TEXT.replace(old, new))
    assert [one.startswith(expected) for one in found] == [True] * bool(expected)
    assert "geheim" not in str(found)


def test_drop_ins_come_after_the_unit_and_an_empty_value_resets() -> None:
    reset = "[Service]\nExecStart=\nExecStart=/usr/local/bin/node_exporter --collector.x\n"
    assert told(TEXT, reset) == ["ExecStart: loaded --name=a b, on disk (none)"]
    assert told(TEXT, "[Service]\nUser=other\n") == ["User: loaded node-exp, on disk other"]


def test_specifiers_can_be_what_is_loaded() -> None:
    unit = TEXT.replace("--collector.x", "--collector.%p").replace("GOGC=50", "GOGC=5%%")
    assert told(unit, Environment=LOADED["Environment"].replace("GOGC=50", "GOGC=5%")) == []


def test_a_bare_name_is_the_path_that_was_found_for_it() -> None:
    assert told(TEXT.replace("/usr/local/bin/node_exporter", "node_exporter")) == []


def test_what_a_dynamic_user_implies_is_no_difference() -> None:
    text = TEXT.replace("NoNewPrivileges=true", "DynamicUser=yes")
    assert told(text, DynamicUser="yes") == []


def test_lists_that_are_empty_are_not_shown() -> None:
    loaded = {name: value for name, value in LOADED.items() if name not in ("EnvironmentFiles", "Environment")}
    found = [str(one) for one in _unit_changes.differences(loaded, [TEXT])]
    assert [one.partition(":")[0] for one in found] == ["Environment", "EnvironmentFile"]
