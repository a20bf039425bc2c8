# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Canaries: a secret in each field of each configuration, by the field's name, and all ways in which a program may
repeat it. ``@name@`` stands for one."""

from __future__ import annotations

import base64
import json
import re
import time
import typing as t
import urllib.parse

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _argv, _output

ALERTMANAGER = """
global:
  slack_api_url: https://hooks.slack.com/services/@slack_api_url@
  smtp_auth_username: mailer
  smtp_auth_password: "@smtp_auth_password@"
  smtp_auth_secret: '@smtp_auth_secret@'
  victorops_api_key: @victorops_api_key@
  opsgenie_api_key: &opsgenie @opsgenie_api_key@
  opsgenie_api_url: https://api.eu.opsgenie.com/@opsgenie_api_url@/
  wechat_api_secret: @wechat_api_secret@
  telegram_api_url: "https://telegram.example/@telegram_api_url@"
  http_config:
    proxy_url: http://proxy:@proxy_password@@proxy.example:3128
    proxy_connect_header:
      Proxy-Authorization: [Basic @proxy_header@]
    authorization: {type: Bearer, credentials: @global_credentials@}
    http_headers:
      X-Tenant: {values: [one], secrets: ["@header_flow_secret@"]}
      X-Other:
        secrets:
          - @header_block_secret@
          - |
            @header_block_scalar@
receivers:
  - name: all
    webhook_configs:
      - url: 'https://alerts.example.org/hook/@webhook_path@?team=a&token=@webhook_query@'
        http_config: {basic_auth: {username: hook, password: @webhook_password@}, follow_redirects: true}
      - {url: "https://alerts.example.org/@webhook_flow@", send_resolved: true}
      - url: https://@webhook_login@@alerts.example.org/
    slack_configs:
      - api_url: >-
          https://hooks.slack.com/services/T0/@slack_folded@
        channel: '#alerts'
    pagerduty_configs:
      - routing_key: @routing_key@
      - service_key: !!str @service_key@
    opsgenie_configs: [{api_key: *opsgenie}, {"api_key": "@opsgenie_quoted@", message: x}]
    pushover_configs: [{user_key: @user_key@, token: @pushover_token@}]
    telegram_configs: [{bot_token: "@bot_token@", chat_id: -1}]
    victorops_configs:
      - api_key: |-
          @victorops_block@
        routing_key: @victorops_routing@
    sns_configs: [{sigv4: {access_key: @sigv4_access@, secret_key: @sigv4_secret@, region: eu}}]
    discord_configs: [{webhook_url: "https://discord.com/api/webhooks/1/@discord@"}]
    msteams_configs: [{webhook_url: https://acme.webhook.office.com/webhookb2/@msteams@}]
    webex_configs: [{room_id: r, http_config: {authorization: {credentials: @webex@}}}]
    email_configs:
      - to: ops@example.org
        auth_password: @email_password@
        auth_secret: @email_secret@
        headers: {Subject: 'down', X-Key: @email_header@}
"""

PROMETHEUS = """
remote_write:
  - url: https://push.example.org/tenants/@remote_write_path@/push?key=@remote_write_query@
    headers: {X-Scope-OrgID: @remote_write_header@}
    bearer_token: @bearer_token@
    sigv4: {access_key: AKIA, secret_key: @remote_write_sigv4@}
    azuread: {oauth: {client_id: x, client_secret: @azure_secret@, tenant_id: y}}
  - url: https://pusher:@remote_write_login@@push.example.org/api/v1/push
remote_read:
  - url: "http://reader:@remote_read_encoded@%2F@read.example.org/api/v1/read"
    oauth2:
      client_id: reader
      client_secret: "@client_secret@"
      token_url: https://idp.example.org/@token_url@/token
      endpoint_params: {password: @endpoint_password@}
scrape_configs:
  - job_name: web
    params: {token: ["@scrape_param@"]}
    basic_auth:
      username: scraper
      # a comment
      password:   @scrape_password@   # and one more
    tls_config:
      key: |
        -----BEGIN PRIVATE KEY-----
        @tls_key_line_one@
        @tls_key_line_two@
        -----END PRIVATE KEY-----
  - job_name: found
    consul_sd_configs: [{server: 'c:8500', token: '@consul_token@'}]
    ec2_sd_configs: [{access_key: @ec2_access@, secret_key: @ec2_secret@}]
    hetzner_sd_configs: [{role: robot, basic_auth: {username: u, password: '@it''s_quoted@'}}]
    static_configs: [{targets: ["https://web.example.org/health?api_key=@target_query@"]}]
alerting:
  alertmanagers:
    - scheme: https
      path_prefix: /
      authorization:
        type: Bearer
        credentials: @alerting_credentials@
"""

WEB_CONFIG = """
tls_server_config: {cert_file: /etc/x.crt, key_file: /etc/x.key}
basic_auth_users:
  admin: @web_hash@
  "second": '@web_hash_quoted@'
http_server_config:
  headers: {Strict-Transport-Security: @web_header@}
"""

BLACKBOX = """
modules:
  http_login:
    prober: http
    http:
      headers:
        Authorization: Bearer @blackbox_header@
        Cookie: "session=@blackbox_cookie@; x=y"
        Accept-Language: en-US
      body: '{"password": "@blackbox_body@"}'
      basic_auth: {username: probe, password: @blackbox_password@}
      bearer_token: @blackbox_bearer@
      proxy_url: "http://p:@blackbox_proxy@@proxy:80"
  tcp:
    tcp: {query_response: [{send: "PASS @blackbox_send@"}]}
"""

GRAFANA = """
[security]
admin_password = @grafana_admin@
secret_key = @grafana_secret_key@   ; a comment
cert_key = /etc/grafana/grafana.key
;old_password = @grafana_commented@
[database]
url = mysql://grafana:@grafana_database@@db:3306/grafana
password = \"\"\"@grafana_hash#;_password@\"\"\"
[auth.generic_oauth]
client_secret=@grafana_oauth@
[smtp]
password = '@grafana_smtp@'
"""

LOKI = """
common:
  storage:
    s3: {endpoint: s3.example.org, access_key_id: @loki_access@, secret_access_key: "@loki_secret@"}
    azure: {account_name: a, account_key: @loki_azure@, connection_string: "A=b;AccountKey=@loki_connection@;C=d"}
    swift: {username: u, password: @loki_swift@}
storage_config:
  aws: {s3: "s3://@loki_s3_key@:@loki_s3_secret@@eu-central-1/bucket"}
  gcs:
    bucket_name: b
    service_account: |-
      {"type": "x", "private_key": "-----BEGIN PRIVATE KEY-----\\n@gcs_key@\\n-----END PRIVATE KEY-----"}
"""

ENVIRONMENT = """
# for the service
export DATA_SOURCE_NAME="exporter:@dsn_password@@tcp(127.0.0.1:3306)/"
DATA_SOURCE_PASS=@data_source_pass@
DATABASE_DSN='host=db user=u password=@dsn_keyword@ dbname=x'
GF_SECURITY_ADMIN_PASSWORD=@gf_admin@
GF_DATABASE_URL=postgres://g:@gf_database@@db/grafana
REDIS_PASSWORD='@redis pass word@'
AWS_SECRET_ACCESS_KEY=@aws_secret@
ARGS="--db.password=@env_flag_equals@ --api-key @env_flag_word@ --web.listen-address=:9100"
"""

JSON = """
{"auths": {"v3": {"community": "@snmp_community@", "priv_password": "@snmp_priv@"}},
 "webhook": "https://x.example/@json_webhook@", "list": [{"apiKey": "@json_camel@"}],
 "secrets": ["@json_list_one@", "@json_list_two@"],
 "escaped": "{\\"token\\": \\"@json_escaped@\\"}"}
"""

RIVER = """
prometheus.remote_write "x" {
  endpoint {
    url = "https://push.example.org/@river_url@"
    basic_auth {
      username = "u"
      password = "@river_password@"
    }
    headers = { "X-Token" = "@river_header@" }
  }
}
"""

TEXTS = {
    "alertmanager.yml": ALERTMANAGER,
    "prometheus.yml": PROMETHEUS,
    "web.config": WEB_CONFIG,
    "blackbox.yml": BLACKBOX,
    "grafana.ini": GRAFANA,
    "loki.yml": LOKI,
    "environment": ENVIRONMENT,
    "json": JSON,
    "river": RIVER,
}
MARK = re.compile(r"@([a-z](?:[\w #;']|\.)*?)@")


def planted(name: str) -> str:
    """The canary of a field: no words, and nothing that looks like a token, so that only its place tells of it."""
    return f"canary-{name.replace('_', '-')}-end"


def filled(text: str) -> str:
    return MARK.sub(lambda found: planted(found[1]), text)


FIELDS = [
    pytest.param(filled(text), planted(name), id=f"{title}: {name}")
    for title, text in TEXTS.items()
    for name in MARK.findall(text)
]


def told(secret: str) -> list[str]:
    """How programs repeat a value."""
    quoted = json.dumps(secret)
    return [
        f"level=error msg={secret}",
        f"level=error msg={quoted}",
        json.dumps({"msg": f"cannot use {quoted} here"}),
        f"GET /?x={urllib.parse.quote(secret, safe='')} failed",
        f"sent {base64.b64encode(f'user:{secret}'.encode()).decode()} to it",
        f"sent {base64.urlsafe_b64encode(f'longer:{secret}'.encode()).decode()} to it",
        f"cannot unmarshal !!str `{secret}` into int",
        f"{secret}{secret}",
        f"x{secret}y",
    ]


@pytest.mark.parametrize(("text", "canary"), FIELDS)
def test_a_secret_is_hidden_however_a_program_repeats_it(text: str, canary: str) -> None:
    meant = canary.replace("''", "'")
    secrets = _output.secrets_of([text])
    for line in told(meant):
        shown = _output.redact(line, secrets)
        assert meant not in urllib.parse.unquote(shown)
        assert not any(meant in decoded for decoded in in_base64(shown)), shown


def in_base64(text: str) -> t.Iterator[str]:
    for word in re.findall(r"[\w+/=-]{12,}", text):
        padded = word.translate(str.maketrans("-_", "+/")) + "=="
        yield base64.b64decode(padded[: len(padded) // 4 * 4]).decode("utf-8", "replace")


@pytest.mark.parametrize("title", TEXTS)
def test_a_program_that_prints_its_configuration_tells_no_secret(title: str) -> None:
    text = filled(TEXTS[title])
    shown = _output.redact(text, _output.secrets_of([text]))
    canaries = {planted(name).replace("''", "'") for name in MARK.findall(TEXTS[title])}
    assert {canary for canary in canaries if canary in shown.replace("''", "'")} == set()


def test_what_is_no_secret_stays_readable() -> None:
    secrets = _output.secrets_of(list(map(filled, TEXTS.values())))
    for text in (
        'Loading configuration file file=/etc/prometheus/prometheus.yml path="/etc/x.key"',
        "/etc/alertmanager/alertmanager.yml: yaml: line 5: field routing_key not found in type config.plain",
        "open /etc/grafana/grafana.key: permission denied",
        "listening on 0.0.0.0:9093, external URL http://localhost:9093/, http://127.0.0.1:9090/api/v1/query",
        "lookup alerts.example.org: no such host; push.example.org:443 refused",
        "Post https://hooks.slack.com: dial tcp 10.0.0.5:443: i/o timeout",
        "user mailer, team a, region eu, role robot, en-US, Subject",
        'prometheus_build_info{version="2.45.0",goversion="go1.21"} is 1; sha256 ' + "ab12" * 16,
    ):
        assert _output.redact(text, secrets) == text


def test_of_a_url_the_host_stays_readable() -> None:
    secrets = _output.secrets_of([filled(ALERTMANAGER)])
    url = f"https://alerts.example.org/hook/{planted('webhook_path')}?team=a&token={planted('webhook_query')}"
    assert _output.redact(f'Post "{url}": EOF', secrets) == 'Post "https://alerts.example.org********": EOF'
    assert _output.redact("https://alerts.example.org/-/healthy is up", secrets) == (
        "https://alerts.example.org/-/healthy is up"
    )


# -- command lines and variables --------------------------------------------------------------------------------------

ARGV = [
    "/usr/local/bin/x",
    "--config.file=/etc/x.yml",
    "--web.listen-address=0.0.0.0:9090",
    "--web.external-url=https://x.example.org/prometheus",
    "--db.password=canary-equals",
    "-api-key",
    "canary-word",
    "--remote=https://u:canary-login@r.example/push?tenant=a&token=canary-query",
    "--hook=https://h.example/services/T0/9f8e7d6canary5c4b3a",
    "canary:canary-dsn@tcp(db:3306)/",
    "--header=Authorization: Bearer canary-bearer1",
    "sh -c 'exec x --password=canary-inner --token canary-deep'",
]


def test_a_command_line_is_shown_without_secrets() -> None:
    shown = _argv.redact(ARGV)
    assert shown[:4] == ARGV[:4]
    assert shown[7] == "--remote=https://u:********@r.example/push?tenant=********&token=********"
    assert not re.search("canary-(?:equals|word|login|query|dsn|bearer1|inner|deep)|canary5c", " ".join(shown)), shown


def test_the_secrets_of_a_command_line_are_known_and_its_addresses_are_none() -> None:
    secrets = _output.secrets_of([], argv=ARGV)
    for secret in ("equals", "word", "login", "query", "dsn", "bearer1", "inner", "deep"):
        assert f"canary-{secret}" not in _output.redact(f"it says canary-{secret} here", secrets)
    text = "serving /prometheus at https://x.example.org/prometheus, reading /etc/x.yml"
    assert _output.redact(text, secrets) == text


def test_the_secrets_of_variables_are_known() -> None:
    environment = {
        "DB_PASSWORD": "canary-password",
        "ARGS": "--token=canary-flag --x",
        "PUSH_URL": "https://push.example/canary-url",
        "ANY": "9f8e7d6canary5c4b3a",
        "PGDSN": "canary-dsn",
        "HOME": "/var/lib/prometheus",
        "GOMAXPROCS": "2",
        "LANG": "en_US.UTF-8",
    }
    secrets = _output.secrets_of([], environment=environment)
    shown = _output.redact(" ".join(environment.values()), secrets)
    assert "canary" not in shown
    assert "--x" in shown
    assert shown.endswith("/var/lib/prometheus 2 en_US.UTF-8")


# -- what is cut, what overlaps, and how long it takes ----------------------------------------------------------------


def test_half_a_secret_is_hidden_too() -> None:
    secret = "canary-that-is-long-enough-to-be-looked-for-in-pieces-" * 3
    secrets = [secret, "abcdefghijk"]
    assert _output.redact("!!str `abcdefg...` into int, abcdefg…", secrets) == "!!str `********` into int, ********"
    for cut in range(12, len(secret)):
        assert "canary" not in _output.redact(f"it says {secret[:cut]}", secrets)


def test_overlapping_secrets_are_hidden_both() -> None:
    assert _output.redact("1 abcdefgh 2", ["abcdef", "defgh"]) == "1 ******** 2"
    assert _output.redact("1 abcdefgh 2", ["abcdef", "abcdefgh"]) == "1 ******** 2"
    assert _output.redact("**** and ********", ["****"]) == "******** and ********"


def repeated(text: str, length: int) -> str:
    return (text * (length // len(text) + 1))[:length]


LONG = [
    *(
        "a",
        "a:",
        "://a:",
        "://a:a@",
        "password=",
        'password="',
        "password='",
        "-----BEGIN A PRIVATE KEY-----\n",
        "token: {",
    ),
    *(
        "--password ",
        "authorization: ",
        "bearer a",
        "=a=a:b",
        " a:b@(",
        "\\",
        '\\\\"',
        "http://h/?a=1&a=1&",
        "-_.",
        "  ",
    ),
    *(
        "- password:\n",
        "password: |\n a\n",
        "password: &a *a\n",
        "url:\n",
        "headers: {",
        "://a?b&",
        '"',
        "'",
        "token='",
        "eyJ",
    ),
]


@pytest.mark.parametrize("text", LONG)
def test_the_time_it_takes_grows_with_the_text_and_no_faster(text: str) -> None:
    def taken(length: int) -> float:
        subject = repeated(text, length)
        begun = time.process_time()
        _output.redact(subject, _output.secrets_of([subject]))
        return time.process_time() - begun

    assert taken(100_000) < 8 * max(taken(25_000), 0.05)


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("abcd", ["abcd", "bcda", "cdab", "dabc", "abcdabcd", "bcdabcda", "cdabcdab"]),
        ("*", ["****", "********", "*****"]),
        ("a", ["a" * length for length in range(4, 450)]),
        ("a", [f"{'a' * length}b" for length in range(4, 450)]),
        ("canary00001 ", [f"canary{number:05d}" for number in range(5000)]),
        ("canary", [f"{number}canary" for number in range(5000)]),
    ],
    ids=["many matches", "asterisks", "one in the other", "nearly", "many secrets", "many that do not match"],
)
def test_many_matches_of_many_secrets_take_less_than_a_second(text: str, secrets: list[str]) -> None:
    begun = time.process_time()
    _output.redact(repeated(text, 100_000), secrets)
    assert time.process_time() - begun < 1
