# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Canaries: a text of its own in each place of a host and of an operator's variables that holds a secret. Programs
repeat them: in what a candidate says against its configuration, and in the log of a release that is undone. Then they
are looked for in all that the collection shows, writes, logs and starts.

A canary is called like its place, so a failure tells where it was planted and where it was found.
"""

from __future__ import annotations

import contextlib
import glob
import http.server
import json
import os
import pathlib
import re
import subprocess
import threading
import typing as t

import pytest
from conftest import LAB, STATE_DIR, Data, Server, play

Versions = dict[str, list[str]]

MARK = re.compile(r"@([a-z0-9_]+)@")

ALERTMANAGER = """
global:
  slack_api_url: https://hooks.slack.com/services/@slack_api_url@
  smtp_smarthost: 127.0.0.1:9
  smtp_from: x@example.org
  smtp_auth_username: mailer
  smtp_auth_password: "@smtp_auth_password@"
  victorops_api_key: '@victorops_api_key@'
  opsgenie_api_key: &key @opsgenie_api_key@
  wechat_api_secret: @wechat_api_secret@
  wechat_api_corp_id: corp
route:
  receiver: all
receivers:
  - name: all
    slack_configs:
      - api_url: https://hooks.slack.com/services/T0/@slack_receiver@
        channel: '#x'
        http_config: {authorization: {type: Bearer, credentials: @http_credentials@}}
    webhook_configs:
      - url: http://127.0.0.1:9/hook/@webhook_path@?token=@webhook_query@
        http_config:
          basic_auth: {username: hook, password: @webhook_password@}
          proxy_url: http://proxy:@proxy_password@@127.0.0.1:9
      - url: http://login:@webhook_login@@127.0.0.1:9/
        http_config:
          oauth2: {client_id: x, client_secret: "@client_secret@", token_url: http://127.0.0.1:9/@token_url@}
    pagerduty_configs:
      - routing_key: @routing_key@
      - service_key: |-
          @service_key@
    opsgenie_configs: [{api_key: *key}, {"api_key": "@opsgenie_receiver@"}]
    pushover_configs: [{user_key: @user_key@, token: @pushover_token@}]
    telegram_configs: [{bot_token: @bot_token@, chat_id: 1}]
    victorops_configs: [{api_key: @victorops_receiver@, routing_key: @victorops_routing@}]
    sns_configs:
      - topic_arn: arn:aws:sns:eu-west-1:1:x
        sigv4: {access_key: @sns_access@, secret_key: @sns_secret@, region: eu-west-1}
    discord_configs: [{webhook_url: https://discord.com/api/webhooks/1/@discord@}]
    webex_configs: [{room_id: x, http_config: {authorization: {credentials: @webex@}}}]
    email_configs: [{to: y@example.org, auth_password: @email_password@, headers: {X-Key: @email_header@}}]
"""

PROMETHEUS = """
global: {scrape_interval: 1s}
rule_files: [/etc/prometheus/rules/*.yml]
alerting:
  alertmanagers:
    - static_configs: [{targets: ["127.0.0.1:9093"]}]
remote_write:
  - url: http://127.0.0.1:9/tenant/@write_path@/push?key=@write_query@
    headers: {X-Scope-OrgID: @write_header@}
    basic_auth: {username: writer, password: @write_password@}
    queue_config: {batch_send_deadline: 1s, min_backoff: 1s}
  - url: http://pusher:@write_login@@127.0.0.1:9/
    sigv4: {region: eu-1, access_key: @write_access@, secret_key: @write_secret@}
    queue_config: {batch_send_deadline: 1s, min_backoff: 1s}
remote_read:
  - url: http://127.0.0.1:9/read/@read_path@
    oauth2: {client_id: x, client_secret: @read_secret@, token_url: http://127.0.0.1:9/@read_token_url@}
scrape_configs:
  - job_name: node
    static_configs: [{targets: ["127.0.0.1:9100"]}]
    authorization: {credentials: @scrape_credentials@}
    params: {token: [@scrape_param@]}
  - job_name: file
    scrape_interval: 5s
    basic_auth: {username: x, password_file: /etc/prometheus/canary.password}
    static_configs: [{targets: ["127.0.0.1:9"]}]
"""

WEB = """
basic_auth_users:
  admin: $2y$10$@web_hash@........................................
"""

FILES = {
    "/etc/alertmanager/alertmanager.yml": ALERTMANAGER,
    "/etc/prometheus/prometheus.yml": PROMETHEUS,
    "/etc/prometheus/canary.password": "@password_file@\n",
    "/etc/prometheus/canary.env": "PUSH_TOKEN=@environment_file@\nOTHER_URL=http://x.example/@environment_url@\n",
    "/etc/alertmanager/web.yml": WEB,
    "/etc/systemd/system/prometheus.service.d/zz-canary.conf": (
        '[Service]\nEnvironment="DB_PASSWORD=@environment@" DSN=u:@environment_dsn@@tcp(127.0.0.1:3306)/\n'
        "EnvironmentFile=/etc/prometheus/canary.env\nExecStart=\n"
        "ExecStart=/usr/local/bin/prometheus --config.file=/etc/prometheus/prometheus.yml "
        "--storage.tsdb.path=/var/lib/prometheus --storage.remote.flush-deadline=1s "
        "--web.external-url=http://ops:@flag@@localhost:9090/\n"
    ),
    "/etc/systemd/system/alertmanager.service.d/zz-canary.conf": (
        "[Service]\nEnvironment=WEBHOOK_SECRET=@alertmanager_environment@\nExecStart=\n"
        "ExecStart=/usr/local/bin/alertmanager --cluster.listen-address= --storage.path=/var/lib/alertmanager "
        "--config.file=/etc/alertmanager/alertmanager.yml --web.config.file=/etc/alertmanager/web.yml\n"
    ),
}
PLACES = [
    *MARK.findall("".join(FILES.values())),
    "mirror_login",
    "mirror_query",
    "silence_token",
    "silence_password",
]

CANARY = r"canary\.[a-z0-9.]+\.end|canarywebhash"

BROKEN = {
    "alertmanager": ("/etc/alertmanager/alertmanager.yml", "webhook_path@", "webhook_path@%zz"),
    "prometheus": ("/etc/prometheus/prometheus.yml", "write_path@", "write_path@%zz"),
}
"""A URL that no version takes, and that each shows in its error."""

SAMPLER = """
import glob, time
seen = set()
with open("/root/sampled.processes", "w", buffering=1) as out:
    while True:
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                line = open(path, "rb").read().replace(b"\\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if line not in seen:
                seen.add(line)
                out.write(line.replace("\\n", " ") + "\\n")
        time.sleep(0.02)
"""


def canary(place: str) -> str:
    return f"canary.{place.replace('_', '.')}.end" if place != "web_hash" else "canarywebhash"


def filled(text: str) -> str:
    return MARK.sub(lambda found: canary(found[1]), text)


def none(found: dict[str, set[str]]) -> None:
    """Fail with the places whose canaries were found, and where.

    :param found: by where it was looked.
    """
    lines = [f"{where[:300]}: {', '.join(sorted(places))}" for where, places in found.items() if places]
    assert not lines, "\n".join(["found, by where they were planted:", *lines])


def found_in(text: str) -> set[str]:
    """The places whose canaries are in a text."""
    return {place for place in PLACES if canary(place) in text}


class Echo(http.server.BaseHTTPRequestHandler):
    """An Alertmanager that refuses, and says what it was sent."""

    def do_GET(self) -> None:
        said = json.dumps({"message": "refused", "headers": dict(self.headers)}).encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_POST = do_DELETE = do_GET  # noqa: N815  # http.server's names

    def log_message(self, *_arguments: t.Any) -> None:
        """It logs nothing."""


@contextlib.contextmanager
def echo() -> t.Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def watched(seen: set[str]) -> t.Iterator[None]:
    """Collect the command lines of all processes of the controller."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(pathlib.Path(path).read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def put(server: Server, path: str, text: str) -> None:
    """Write a file by way of standard input: command lines are looked at."""
    server.out("mkdir -p %s", os.path.dirname(path))
    remote = ["ssh", "-F", str(LAB / "ssh_config"), server.name, "sudo", "tee", path]
    subprocess.run(remote, input=text.encode(), stdout=subprocess.DEVNULL, check=True)


def restart(server: Server) -> None:
    server.out("systemctl daemon-reload && systemctl restart alertmanager prometheus")


@pytest.fixture(scope="module")
def planted(servers: dict[str, Server]) -> t.Iterator[Server]:
    """A host with canaries in its files, whose services run with them. It gets its own files back."""
    server = servers["host1"]
    kept = ["/etc/alertmanager/alertmanager.yml", "/etc/prometheus/prometheus.yml"]
    for path in kept:
        server.out("cp --preserve %s %s.kept", path, path)
    server.out(f"test ! -e {STATE_DIR} || mv {STATE_DIR} {STATE_DIR}.kept")
    try:
        for path, text in FILES.items():
            put(server, path, filled(text))
        restart(server)
        for name in ("alertmanager", "prometheus"):
            server.out("systemctl is-active %s || { journalctl -n 5 -u %s; false; }", name, name)
        server.out("systemd-run --quiet --collect --unit=processes-sampler python3 -c %s", SAMPLER)
        yield server
    finally:
        server.out("systemctl stop processes-sampler || true; rm -f /root/sampled.processes")
        server.out(f"rm -rf {STATE_DIR}; test ! -e {STATE_DIR}.kept || mv {STATE_DIR}.kept {STATE_DIR}")
        for path in kept:
            server.out("mv %s.kept %s", path, path)
        for path in FILES:
            if path not in kept:
                server.out("rm -f %s; rmdir --ignore-fail-on-non-empty %s", path, os.path.dirname(path))
        restart(server)


class Runs:
    """What some runs have shown, and left on the controller."""

    def __init__(self, directory: pathlib.Path, variables: Data) -> None:
        self.directory, self.variables = directory, variables
        self.outputs: dict[str, str] = {}
        self.processes: set[str] = set()

    def play(self, name: str, playbook: str, *arguments: str, code: int = 0, **variables: t.Any) -> str:
        """Run a playbook as loud as may be. Its variables are in a file, for the command line is everybody's."""
        path = self.directory / f"{name}.variables"
        path.write_text(json.dumps({**self.variables, **variables}))
        try:
            with watched(self.processes):
                played = play(playbook, "-l", "host1", "-vvv", "--diff", "-e", f"@{path}", *arguments, code=code)
        finally:
            path.unlink()
        self.outputs[name] = played.output
        (self.directory / f"{name}.output").write_text(played.output)
        return played.output


def with_login(url: str, login: str) -> str:
    return url.replace("://", f"://{login}@")


@pytest.fixture(scope="module")
def runs(planted: Server, versions: Versions, inventory: Data, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All playbooks that read, plan, fetch, refuse and undo."""
    directory, newer = tmp_path_factory.mktemp("canaries"), {name: each[-1] for name, each in versions.items()}
    mirror, stages = inventory["vars"]["upgrade_release_mirror"], [versions["prometheus"][1]]
    variables = {
        "upgrade_report_dir": str(directory / "reports"),
        "upgrade_cache_dir": str(directory / "cache"),
        "upgrade_release_mirror": with_login(mirror, f"ops:{canary('mirror_login')}"),
        "upgrade_bundle_dest": str(directory / "bundle.tar"),
        "upgrade_fetch": "host",
    }
    runs = Runs(directory, variables)
    runs.play("check", "check")
    runs.play("plan", "plan", upgrade_versions={name: newer[name] for name in ("alertmanager", "prometheus")})
    runs.play("bundle", "bundle", upgrade_versions={"alertmanager": newer["alertmanager"]})
    asked = f"{variables['upgrade_release_mirror']}/none?token={canary('mirror_query')}"
    runs.play(
        "mirror", "plan", code=2, upgrade_versions={"prometheus": newer["prometheus"]}, upgrade_release_mirror=asked
    )
    for name, (path, old, new) in BROKEN.items():
        put(planted, path, filled(FILES[path].replace(f"@{old}", f"@{new}")))
        runs.play(f"refused {name}", "upgrade", code=2, upgrade_versions={name: newer[name]}, upgrade_rehearse=True)
        put(planted, path, filled(FILES[path]))
    with echo() as url:
        runs.play(
            "undone",
            "upgrade",
            code=2,
            upgrade_versions={"prometheus": newer["prometheus"]},
            upgrade_alertmanager={
                "url": [with_login(url, f"ops:{canary('silence_password')}"), url],
                "token": canary("silence_token"),
            },
            upgrade_overrides={"prometheus": {"stages": stages, **UNDONE}},
        )
    runs.play("status", "status")
    return runs


UNDONE = {
    "probe_timeout": 20,
    "probe_window": 15,
    "probes": [
        # As the new version says it, and the old one does not: its URL is one with canaries.
        {"kind": "log", "patterns": ["^time=.*(?:Failed to send batch|non-recoverable error)"], "most": 0},
    ],
}


def test_what_runs_show_has_no_secret(runs: Runs) -> None:
    none({name: found_in(output) for name, output in runs.outputs.items()})


def test_the_programs_have_repeated_what_was_planted(runs: Runs, planted: Server) -> None:
    """Else there was nothing to hide."""
    said = planted.out("journalctl --quiet --no-pager --output=cat --unit=prometheus --since=-20min")
    assert {"write_path", "write_query"} <= found_in(said)
    for name in BROKEN:
        assert f"{name}.config_refused" in runs.outputs[f"refused {name}"]
        assert "%zz" in runs.outputs[f"refused {name}"], "the error shows the URL"
    assert "such lines: time=" in runs.outputs["undone"]
    assert "answered 400: " in runs.outputs["undone"]


def test_the_state_of_the_host_has_no_secret_but_in_restore_points(runs: Runs, planted: Server) -> None:
    listing = planted.out(f"cd {STATE_DIR} && grep -rEo --exclude-dir=backups %s . || true", CANARY)
    assert listing == ""
    assert planted.out(f"find {STATE_DIR} -not -user root -o -perm /077") == ""


def test_the_journal_has_no_secret_but_of_the_services_themselves(runs: Runs, planted: Server) -> None:
    lines = planted.out("journalctl --quiet --no-pager --output=json --since=-20min").splitlines()
    entries = [json.loads(line) for line in lines if "canary" in line]
    own = ("prometheus.service", "alertmanager.service")
    others = [entry for entry in entries if entry.get("_SYSTEMD_UNIT", entry.get("UNIT")) not in own]
    found = {str(entry.get("SYSLOG_IDENTIFIER")): found_in(str(entry.get("MESSAGE"))) for entry in others}
    none(found)


def test_no_command_line_has_a_secret(runs: Runs, planted: Server) -> None:
    lines = planted.out("cat /root/sampled.processes").splitlines()
    assert any("systemd-run" in line for line in lines), "nothing was sampled"
    own = {"flag"}  # what a unit has on its command line, its candidate gets there, too: docs/adr/0017
    told = [line for line in lines if "grep -r" not in line]
    none({line: found_in(line) - own for line in told})
    assert any("ansible-playbook" in line for line in runs.processes), "nothing was sampled"
    none({line: found_in(line) - own for line in runs.processes})  # those of the lab's hosts are seen from here, too


def test_the_files_of_the_controller_have_no_secret(runs: Runs) -> None:
    names = {path.name.split("-")[0] for path in (runs.directory / "reports").rglob("*") if path.is_file()}
    assert {"plan", "check.json"} <= names, names
    ansible = pathlib.Path("~/.ansible/tmp").expanduser()
    files = [path for path in (*runs.directory.rglob("*"), *ansible.rglob("*")) if path.is_file()]
    none({str(path): found_in(path.read_bytes().decode("latin-1")) for path in files})


def test_the_host_keeps_no_temporary_file_with_a_secret(runs: Runs, planted: Server) -> None:
    places = "/tmp /var/tmp /root/.ansible /home/*/.ansible /run/observability-* /run/systemd/transient"  # noqa: S108
    assert planted.out(f"grep -rlE %s {places} 2>/dev/null || true", CANARY) == ""
