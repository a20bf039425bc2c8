# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _argv
from ansible_collections.observability.stack.plugins.module_utils._argv import HIDDEN, ListenAddress

SHOWN = (
    "{ path=/usr/local/bin/prometheus ; argv[]=/usr/local/bin/prometheus --config.file=/etc/prometheus/prometheus.yml "
    "--storage.tsdb.path=/var/lib/prometheus ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; "
    "code=(null) ; status=0/0 }"
)


def test_exec_start_argv_reads_what_systemctl_shows() -> None:
    assert _argv.exec_start_argv(SHOWN) == [
        "/usr/local/bin/prometheus",
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path=/var/lib/prometheus",
    ]
    assert _argv.exec_start_argv("") == []


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ('ARGS="--a --b=c"\n', {"ARGS": "--a --b=c"}),
        ("# comment\n; comment\n\nA=1\nB='x y'\n", {"A": "1", "B": "x y"}),
        ("A=1\\\n2\n", {"A": "12"}),
        ('A="\n', {"A": '"'}),
        ("A = spaced \n", {"A": "spaced"}),
        ("no assignment\nexport A=1\n=x\n", {}),
        ("URL=http://h/?a=b\n", {"URL": "http://h/?a=b"}),
        ('A="--name=\\"x\\" \\$5 \\d"\n', {"A": '--name="x" $5 \\d'}),
        ("A='\\d \\\"'\n", {"A": '\\d \\"'}),
        ("A=a\\ b\\\\c\n", {"A": "a b\\c"}),
    ],
)
def test_parse_environment_as_systemd_does(text: str, environment: dict[str, str]) -> None:
    assert _argv.parse_environment(text) == environment


@pytest.mark.parametrize(
    ("argv", "environment", "expanded"),
    [
        (["/x", "$ARGS"], {"ARGS": "--a --b='c d'"}, ["/x", "--a", "--b=c d"]),
        (["/x", "${ARGS}"], {"ARGS": "--a --b"}, ["/x", "--a --b"]),
        (["/x", "--a=${A}/b"], {"A": "v"}, ["/x", "--a=v/b"]),
        (["/x", "$NONE", "--a"], {}, ["/x", "--a"]),
        (["/x", "$ODD"], {"ODD": "it's --b"}, ["/x", "it's", "--b"]),
    ],
)
def test_expand_as_systemd_does(argv: list[str], environment: dict[str, str], expanded: list[str]) -> None:
    assert _argv.expand(argv, environment) == expanded


ARGV = ["/x", "--a=1", "-b", "2", "--flag", "--c", "3", "--a=4", "-single=5", "--last", "subcommand", "-"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a", ["1", "4"]),
        ("b", ["2"]),
        ("c", ["3"]),
        ("flag", [""]),
        ("single", ["5"]),
        ("last", ["subcommand"]),
        ("x", []),
        ("singl", []),
    ],
)
def test_flag_values_in_every_spelling(name: str, values: list[str]) -> None:
    assert _argv.flag_values(ARGV, name) == values


def test_flag_at_the_end_has_no_value() -> None:
    assert _argv.flag_values(["/x", "--a"], "a") == [""]


def test_flag_names_come_once_and_without_values() -> None:
    assert _argv.flag_names(ARGV) == ["a", "b", "flag", "c", "single", "last"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9090", ("127.0.0.1", 9090)),
        ("0.0.0.0:9090", ("127.0.0.1", 9090)),
        ("*:9090", ("127.0.0.1", 9090)),
        ("[::]:9090", ("::1", 9090)),
        ("10.0.0.5:9090", ("10.0.0.5", 9090)),
        ("localhost:9090", ("localhost", 9090)),
        ("[fe80::1]:9090", ("fe80::1", 9090)),
        ("9091", ("127.0.0.1", 9091)),
        (":http", ("127.0.0.1", 1234)),
        ("", ("127.0.0.1", 1234)),
    ],
)
def test_listen_address_is_one_to_connect_to(text: str, address: tuple[str, int]) -> None:
    assert _argv.listen_address(text, port=1234) == ListenAddress(*address)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--web.listen-address=:9090"], ["--web.listen-address=:9090"]),
        (["--mysqld.password=geheim"], [f"--mysqld.password={HIDDEN}"]),
        (["--password", "geheim", "--x"], ["--password", HIDDEN, "--x"]),
        (["--auth-token=abc"], [f"--auth-token={HIDDEN}"]),
        (["--api-key", "abc"], ["--api-key", HIDDEN]),
        (["--password-file=/etc/x"], ["--password-file=/etc/x"]),
        (["--uri=http://u:geheim@h/x"], [f"--uri=http://u:{HIDDEN}@h/x"]),
        (["root:geheim@(localhost:3306)/"], [f"root:{HIDDEN}@(localhost:3306)/"]),
        (["--password", "--x"], ["--password", "--x"]),
    ],
)
def test_redact_hides_secrets_and_nothing_else(words: list[str], shown: list[str]) -> None:
    assert _argv.redact(words) == shown
    assert "geheim" not in " ".join(_argv.redact(words))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://me:secret@x.example/a?token=secret", "https://********@x.example/a"),
        ("https://me:se@cret@x.example/a#secret", "https://********@x.example/a"),
        ("https://ghp_secret@x.example/v{version}", "https://********@x.example/v{version}"),
        ("me:secret@x.example/a", "********@x.example/a"),
        ("https://x.example/\x1b[31ma@b\n", "https://x.example/[31ma@b"),
        ("github:a/b", "github:a/b"),
    ],
)
def test_of_a_url_nothing_secret_is_told(url: str, told: str) -> None:
    assert _argv.redact_url(url) == told
