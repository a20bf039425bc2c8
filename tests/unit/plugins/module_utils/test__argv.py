# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _argv
from ansible_collections.observability.stack.plugins.module_utils._argv import HIDDEN, ListenAddress

FILES = {"args": "--a=1\n# a comment\n\n--b=two words\n@more", "more": "--c\n", "loop": "@loop\n--x"}


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["/x", "@args", "--d"], ["/x", "--a=1", "--b=two words", "--c", "--d"]),
        (["/x", "@gone", "@"], ["/x", "@gone", "@"]),
        (["/x", "--", "@args"], ["/x", "--", "@args"]),
        (["@args"], ["@args"]),
        ([], []),
    ],
)
def test_a_file_of_arguments_is_read_as_kingpin_does(argv: list[str], found: list[str]) -> None:
    assert _argv.with_files(argv, lambda path: FILES.get(path, "")) == found


def test_a_file_of_arguments_that_names_itself_comes_to_an_end() -> None:
    assert len(_argv.with_files(["/x", "@loop"], lambda path: FILES.get(path, ""))) < 3000


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
