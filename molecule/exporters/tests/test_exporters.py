# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every component that there is a program for, upgraded twice, with what it works for: a database, a web server.

All are real but loki, promtail, phpfpm_exporter, fail2ban_exporter and grafana: these are stand-ins, of
tests/lab/standins/service.c.
"""

from __future__ import annotations

import fnmatch
import typing as t
import urllib.parse

import pytest
from conftest import STATE_DIR, Server, play

Versions = dict[str, list[str]]


class Kind(t.NamedTuple):
    """Where a component is, and what it says of itself."""

    host: str
    port: int
    file: str
    says: str
    """A line of its metrics, with * for anything; {version} is filled in."""
    ready: str = "/metrics"


REAL = {
    "node_exporter": Kind("host1", 9100, "node_exporter", 'node_exporter_build_info{*version="{version}*'),
    "blackbox_exporter": Kind("host1", 9115, "blackbox_exporter", 'blackbox_exporter_build_info{*version="{version}*'),
    "pushgateway": Kind("host1", 9091, "pushgateway", 'pushgateway_build_info{*version="{version}*'),
    "alertmanager": Kind("host1", 9093, "alertmanager", 'alertmanager_build_info{*version="{version}*', "/-/ready"),
    "prometheus": Kind("host1", 9090, "prometheus", 'prometheus_build_info{*version="{version}*', "/-/ready"),
    "mysqld_exporter": Kind("host2", 9104, "mysqld_exporter", "mysql_up 1"),
    "nginx_exporter": Kind("host2", 9113, "nginx-prometheus-exporter", "nginx_up 1"),
}
STAND_INS = {
    "loki": Kind("host1", 3100, "loki", 'loki_build_info{*version="{version}"*', "/ready"),
    "promtail": Kind("host2", 9080, "promtail", 'promtail_build_info{*version="{version}"*', "/ready"),
    "phpfpm_exporter": Kind("host2", 9253, "php-fpm_exporter", "phpfpm_up{*} 1"),
    "fail2ban_exporter": Kind("host2", 9191, "fail2ban_exporter", "f2b_up 1"),
}
KINDS = {**REAL, **STAND_INS}
MIRRORED = {"nginx_exporter": "nginx-prometheus-exporter", "phpfpm_exporter": "php-fpm_exporter"}
RUN = {"upgrade_waves": ["100%"]}
GRAFANA_LOGIN = "/root/grafana.login"

_GET = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=30).read().decode())"
_AWAIT_NINE = """
import sys, time, urllib.request
while '"9"]' not in urllib.request.urlopen(sys.argv[1], timeout=30).read().decode():
    time.sleep(0.5)
"""


def version_of(versions: Versions, name: str, number: int) -> str:
    """A component's version: the real ones have three; of stand-ins, the last that there is."""
    there = versions[MIRRORED.get(name, name)]
    return there[number] if name in REAL else there[0 if number == 0 else -1]


def overrides(versions: Versions) -> dict[str, dict[str, t.Any]]:
    """What keeps the run short; and the stage of Prometheus, which group_vars would set otherwise."""
    changes: dict[str, dict[str, t.Any]] = {name: {"probe_window": 2} for name in KINDS}
    changes["prometheus"]["stages"] = [versions["prometheus"][1]]
    changes["grafana"] = {"auth": {"user": "admin", "password_file": GRAFANA_LOGIN}}
    return changes


def ask(server: Server, port: int, path: str) -> str:
    return server.out("python3 -c %s %s", _GET, f"http://127.0.0.1:{port}{path}")


def says(server: Server, kind: Kind, version: str) -> bool:
    """Whether a line of a component's metrics is the one that is looked for."""
    lines = ask(server, kind.port, "/metrics").splitlines()
    return bool(fnmatch.filter(lines, kind.says.replace("{version}", version)))


def lines_from(server: Server, host: str) -> list[str]:
    query = urllib.parse.quote(f'{{job="promtail",host="{host}"}}')
    answer = ask(server, KINDS["loki"].port, f"/loki/api/v1/query_range?query={query}")
    return [part.split('"')[0] for part in answer.split('"stand-in ')[1:]]


@pytest.fixture(scope="module")
def first_lines(servers: dict[str, Server]) -> list[str]:
    return lines_from(servers["host1"], "host2")[:3]


@pytest.fixture(scope="module", params=[1, 2], ids=["first", "second"])
def upgraded(
    request: pytest.FixtureRequest, servers: dict[str, Server], versions: Versions, first_lines: list[str]
) -> dict[str, str]:
    """The versions after an upgrade of all components. What comes before and between is looked at, too."""
    servers["host1"].out("umask 077; echo not-a-secret > %s", GRAFANA_LOGIN)
    before = {name: version_of(versions, name, request.param - 1) for name in KINDS}
    for name, kind in KINDS.items():
        assert says(servers[kind.host], kind, before[name]), f"{name} wasn't well before the upgrade"
    wanted = {name: version_of(versions, name, request.param) for name in KINDS}
    play("upgrade", upgrade_versions=wanted, upgrade_overrides=overrides(versions), **RUN)
    return wanted


@pytest.mark.parametrize("name", KINDS)
def test_it_runs_its_new_version_and_does_its_work(
    servers: dict[str, Server], upgraded: dict[str, str], name: str
) -> None:
    kind = KINDS[name]
    server = servers[kind.host]
    unit = server.out("systemctl show --property=ActiveState,NRestarts,MainPID %s", name).splitlines()
    fields = dict(line.split("=", 1) for line in unit)
    assert (fields["ActiveState"], fields["NRestarts"]) == ("active", "0")
    assert server.out(f"cmp /proc/{fields['MainPID']}/exe /usr/local/bin/{kind.file} && echo same") == "same"
    assert says(server, kind, upgraded[name])
    ask(server, kind.port, kind.ready)
    component = server.component(name)
    assert (component["state"], component["inventory"]["current_version"]) == ("success", upgraded[name])


def test_both_hosts_are_at_rest_and_verified(servers: dict[str, Server], upgraded: dict[str, str]) -> None:
    play("verify")
    assert [name for name, server in servers.items() if not server.is_at_rest()] == []
    assert servers["host2"].component("node_exporter")["inventory"]["current_version"] == upgraded["node_exporter"]


def test_grafana_is_asked_for_its_data_sources_with_its_password_and_not_without_one(
    servers: dict[str, Server], upgraded: dict[str, str], versions: Versions
) -> None:
    links = ["grafana -> loki", "grafana -> prometheus"]
    told = play("verify", upgrade_overrides=overrides(versions)).output
    assert [link for link in links if any(link in line and " healthy " in line for line in told.splitlines())] == links
    assert not any(link in play("verify").output for link in links)
    servers["host1"].out("umask 077; echo another > %s", GRAFANA_LOGIN)
    refused = play("verify", upgrade_overrides=overrides(versions), code=2).output
    assert "grafana -> loki isn't healthy" in refused
    assert "401" in refused
    assert "another" not in refused


def test_the_capability_of_a_file_survives_and_is_of_use(servers: dict[str, Server], upgraded: dict[str, str]) -> None:
    server = servers["host1"]
    assert server.out("getcap /usr/local/bin/blackbox_exporter").endswith(" cap_net_raw=ep")
    assert "probe_success 1" in ask(server, 9115, "/probe?module=icmp&target=127.0.0.1").splitlines()


def test_prometheus_scrapes_all_and_has_its_alertmanager(servers: dict[str, Server], upgraded: dict[str, str]) -> None:
    server = servers["host1"]
    query = urllib.parse.quote("count(up == 1)")
    server.out("timeout 180 python3 -c %s %s", _AWAIT_NINE, f"http://127.0.0.1:9090/api/v1/query?query={query}")
    assert ":9093/api/v2/alerts" in ask(server, 9090, "/api/v1/alertmanagers").partition("droppedAlertmanagers")[0]


def test_no_pushed_line_is_lost_and_more_arrive(
    servers: dict[str, Server], upgraded: dict[str, str], first_lines: list[str]
) -> None:
    now = lines_from(servers["host1"], "host2")
    assert first_lines
    assert now[: len(first_lines)] == first_lines
    positions = "import time\nread = lambda: open('/var/lib/promtail/positions.yaml').read()\nbefore = read()\n"
    servers["host2"].out("timeout 120 python3 -c %s", f"{positions}while read() == before: time.sleep(0.1)")
    assert len(lines_from(servers["host1"], "host2")) > len(now)


def test_all_versions_that_were_there_can_be_gone_back_to(
    servers: dict[str, Server], upgraded: dict[str, str], versions: Versions
) -> None:
    done = versions["pushgateway"].index(upgraded["pushgateway"])
    for name in REAL:
        points = servers[REAL[name].host].component(name)["inventory"]["restore_points"]
        assert [point["version"] for point in points] == versions[MIRRORED.get(name, name)][:done]
    points = servers["host1"].component("loki")["inventory"]["restore_points"]
    assert [point["version"] for point in points] == versions["loki"][:2]
    assert servers["host1"].out(f"ls {STATE_DIR}/staging") == ""
