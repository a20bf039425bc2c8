# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _output

CONFIG = """
global:
  password: "geheim # 1"   # a comment
remote_write:
  - url: https://user:hidden@example.org/push
    bearer_token: abcdef12345
    credentials_file: /etc/prometheus/token
    basic_auth: {username: ops, password: flowing}
  - password: ab
tsdb: 1
DATA_SOURCE_NAME=root:gehen@(localhost:3306)/
"""


def test_the_secrets_of_a_configuration_are_found_and_nothing_else() -> None:
    assert _output.secrets_of([CONFIG, "", "web.password=onaflag"]) == [
        "root:gehen@(localhost:3306)/",
        "root:gehen@(localhost:3306",
        "//example.org/push",
        "abcdef12345",
        "user:hidden",
        "geheim # 1",
        "flowing",
        "onaflag",
        "hidden",
        "gehen",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("couldn't log in with geheim1", "couldn't log in with ********"),
        ("cannot unmarshal !!str `abcdef1...` into int", "cannot unmarshal !!str `********` into int"),
        ("level=error password=xyz err=bad", "level=error password=******** err=bad"),
        ('{"api_key": "xyz", "err": "bad"}', '{"api_key": ********, "err": "bad"}'),
        ("smtp_auth_password: 'x y'", "smtp_auth_password: ********"),
        ("Authorization: Bearer xyz", "Authorization: ********"),
        ("sent bearer ab.cd1234 to it", "sent bearer ******** to it"),
        ("post https://hooks.slack.com/services/T0/B0/x: 404", "post https://hooks.slack.com/services/******** 404"),
        ("get http://ops:pw@example.org/: refused", "get http://ops:********@example.org/: refused"),
        ("get http://ops:p/w?x@example.org/: refused", "get http://ops:********@example.org/: refused"),
        ("get http://token@example.org/a?b=c&d#e", "get http://********@example.org/a?b=********&d#e"),
        ("get https://x.example/hook/9f8e7d6c5b4a/x", "get https://x.example/hook/********/x"),
        ('msg="got {\\"token\\": \\"x y\\"}" level=error', 'msg="got {\\"token\\": ********}" level=error'),
        ("map[Authorization:[Bearer xyz] Accept:[a]]", "map[Authorization:[********] Accept:[a]]"),
        ("exec: x --db-password geheim --y", "exec: x --db-password ******** --y"),
        ("open u:pw@tcp(db:3306)/x: refused", "open u:********@tcp(db:3306)/x: refused"),
        ("Server=x;User Id=y;Pwd=z;Port=1", "Server=x;User Id=y;Pwd=********;Port=1"),
        ("AccountName=a;AccountKey=b==;x", "AccountName=a;AccountKey=********;x"),
        ("  password: two words", "  password: ********"),
        ("pushed with glpat-zyxwvu123456", "pushed with ********"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n", "********"),
        (f"ops: $2y$10${'a' * 53}", "ops: ********"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert _output.redact(text, ["abcdef12345", "geheim1"]) == shown


@pytest.mark.parametrize(
    "text",
    [
        "open /etc/prometheus/token: permission denied",
        "line 5: field bearer_token not found in type config.plain",
        "password_file: /etc/x, credentials_file=/etc/y",
        "http://127.0.0.1:9090/api/v1/query answered 404, --web.external-url=https://x.example/prometheus",
        "git clone https://x.example/a/b@v1, at 12:30:45, image registry.example:5000/a@latest",
        "flag --auth-token is required, token_ttl: 5m, public_key=abc",
        "sha256 of https://x.example/download/v1.9.0/node_exporter-1.9.0.linux-amd64.tar.gz",
        "basic authentication failed",
        "found character that cannot start any token",
        "at most one of basic_auth, oauth2 & authorization must be configured",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert _output.redact(text, ["geheim1"]) == text


def test_the_last_lines_are_those_that_say_something() -> None:
    text = "".join(f"line {number}\n\n" for number in range(30)) + "\x1b[31mred\x1b[0m  \n" + "x" * 2000
    shown = _output.excerpt(text)
    assert len(shown) == 20
    assert (shown[0], shown[-2], len(shown[-1])) == ("line 12", "red", 1003)
    assert _output.excerpt("") == []


def test_the_reason_is_shown_however_much_is_said_after_it() -> None:
    shown = _output.excerpt("flag provided but not defined: -x\nUsage:\n" + "  -flag\n" * 500)
    assert (shown[:3], len(shown)) == (["flag provided but not defined: -x", "[...]", "  -flag"], 22)


# As the programs print it.
PROMTOOL = """Checking /etc/prometheus/prometheus.yml
  FAILED: parsing YAML file /etc/prometheus/prometheus.yml: yaml: unmarshal errors:
  line 5: field scrape_classic_histograms not found in type config.ScrapeConfig
  line 9: field x not found in type config.plain

"""
PROMETHEUS = """Error parsing command line arguments: unknown long flag '--storage.tsdb.retention'
prometheus: error: unknown long flag '--storage.tsdb.retention'
"""
BLACKBOX = """ts=2026-11-21T12:00:00Z caller=main.go:78 level=info msg="Starting blackbox_exporter" version=x
ts=2026-11-21T12:00:00Z caller=main.go:86 level=error msg="Error loading config" err="error parsing \\"x\\""
"""
LOKI = """failed parsing config: /etc/loki/config.yml: yaml: unmarshal errors:
  line 3: field shared_store not found in type boltdb.IndexCfg
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            PROMTOOL,
            "parsing YAML file /etc/prometheus/prometheus.yml: yaml: unmarshal errors: "
            "line 5: field scrape_classic_histograms not found in type config.ScrapeConfig "
            "line 9: field x not found in type config.plain",
        ),
        (PROMETHEUS, "Error parsing command line arguments: unknown long flag '--storage.tsdb.retention'"),
        (BLACKBOX, 'Error loading config: error parsing "x"'),
        (
            LOKI,
            "failed parsing config: /etc/loki/config.yml: yaml: unmarshal errors: "
            "line 3: field shared_store not found in type boltdb.IndexCfg",
        ),
        ('{"time":"x","level":"ERROR","msg":"no config","err":"gone"}\nUsage: x\n', "no config: gone"),
        ("amtool: error: failed to validate 1 file(s)\n", "failed to validate 1 file(s)"),
        ("Checking 'a.yml'  FAILED: yaml: unmarshal errors:\n  line 2: x\n", "yaml: unmarshal errors: line 2: x"),
        ("flag provided but not defined: -nope\nUsage of x:\n  -a\n", "flag provided but not defined: -nope"),
        ("hm\nthis and that\n", "this and that"),
        ("starting\ncan't open it\nbye\n", "can't open it"),
        ("\n", "it says nothing"),
        (f"error: {'x' * 500}", f"{'x' * 400}..."),
    ],
)
def test_the_reason_is_one_line(text: str, reason: str) -> None:
    assert _output.reason(text) == reason
