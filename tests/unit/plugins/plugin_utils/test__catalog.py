# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import pathlib
import re
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _metrics, _version
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _versions
from hypothesis import given, settings
from hypothesis import strategies as st

CATALOG = _catalog.load()
NAMES = sorted(CATALOG)
ERAS = [(name, position) for name in NAMES for position in range(len(CATALOG[name]["releases"]))]

# What a component's program prints when it is asked for its version. A component of the catalog needs at least one.
PROMU = "{name}, version {version} (branch: HEAD, revision: 0f2b3a1)\n  build user:  root@a3\n  go version:  go1.25.4\n"
VERSION_OUTPUTS = [
    *((name, PROMU.format(name=name, version="0.16.0"), "0.16.0") for name in NAMES if name.endswith("_exporter")),
    ("smokeping_prober", PROMU.format(name="smokeping_prober", version="0.11.0"), "0.11.0"),
    (
        "redis_exporter",
        "Redis Metrics Exporter v1.88.0    build date: 2026-07-23    sha1: ab    Go: go1.26\n",
        "1.88.0",
    ),
    ("redis_exporter", 'time="2026-11-28" level=info msg="Redis Metrics Exporter 1.45.0-2+b4    build"\n', "1.45.0"),
    ("mongodb_exporter", "mongodb_exporter - MongoDB Prometheus exporter\nVersion: v0.47.0\nCommit: 1\n", "0.47.0"),
    ("bird_exporter", "bird_exporter\nVersion: 1.4.5\nAuthor(s): Daniel Czerwonk\n", "1.4.5"),
    ("ping_exporter", "ping-exporter\nVersion: 1.2.3\nAuthor(s): Philip Berndroth\n", "1.2.3"),
    ("varnish_exporter", "prometheus_varnish_exporter 1.6.1 (2021-12-08) go1.17.4 x86_64\n", "1.6.1"),
    ("squid_exporter", "2026/11/28 15:38:47 squid_exporter, version 1.10.3+ds (branch: debian/sid)\n", "1.10.3"),
    ("domain_exporter", "domain_exporter version 1.13.0\n", "1.13.0"),
    ("cadvisor", "cAdvisor version v0.56.2 (1f0e5a1)\n", "0.56.2"),
    ("karma", "v0.132\n", "0.132"),
    ("victoriametrics", "victoria-metrics-20260720-101112-tags-v1.150.0-0-g0f2b3a1c5\n", "1.150.0"),
    ("vmagent", "vmagent-20250303-101112-tags-v1.112.0-0-g0f2b3a1c5\n", "1.112.0"),
    ("vmalert", "vmalert-20220722-101112-tags-v1.79.5-0-g0f2b3a1c5\n", "1.79.5"),
    ("thanos", PROMU.format(name="thanos", version="0.42.4"), "0.42.4"),
    ("mimir", "Mimir, version 2.15.0 (branch: release-2.15, revision: 6a57d8d)\n", "2.15.0"),
    ("tempo", PROMU.format(name="tempo", version="3.0.3"), "3.0.3"),
    ("alloy", PROMU.format(name="alloy", version="v1.18.1"), "1.18.1"),
    ("otelcol", "otelcol version 0.159.0\n", "0.159.0"),
    ("vector", "vector 0.57.0 (x86_64-unknown-linux-musl 7e8f6f2 2026-07-14 10:11:12)\n", "0.57.0"),
    ("grafana_agent", PROMU.format(name="agent", version="v0.44.8"), "0.44.8"),
    ("prometheus", PROMU.format(name="prometheus", version="3.0.0-rc.1"), "3.0.0-rc.1"),
    ("prometheus", PROMU.format(name="prometheus", version="2.42.0+ds"), "2.42.0"),
    ("alertmanager", PROMU.format(name="alertmanager", version="0.33.1"), "0.33.1"),
    ("pushgateway", PROMU.format(name="pushgateway", version="1.11.3"), "1.11.3"),
    ("loki", PROMU.format(name="loki", version="3.7.6"), "3.7.6"),
    ("promtail", PROMU.format(name="promtail", version="3.6.11"), "3.6.11"),
    ("nginx_exporter", "nginx_exporter, version 1.5.1 (branch: , revision: abc)\n", "1.5.1"),
    ("nginx_exporter", "NGINX Prometheus Exporter version=0.11.0 commit=e4a6810 date=2022-09-07\n", "0.11.0"),
    ("phpfpm_exporter", "php-fpm_exporter 2.2.0, commit 3e1ba5e, built at 2022-05-20T10:51:33Z\n", "2.2.0"),
    ("fail2ban_exporter", "0.10.3\n    build date:  2025-01-01\r\n    commit hash: abc\r\n", "0.10.3"),
    ("process_exporter", PROMU.format(name="process-exporter", version="0.8.7"), "0.8.7"),
    ("grafana", "grafana version 12.2.0+security-01\n", "12.2.0+security-01"),
    ("grafana", "Version 9.5.2 (commit: cfcea75916, branch: HEAD)\n", "9.5.2"),
]

# A page of metrics, and the version that it tells.
METRICS = [
    *(
        (name, f'{item["metric"]}{{branch="HEAD",goversion="go1.25",{item["label"]}="1.2.3"}} 1\n', "1.2.3")
        for name in NAMES
        for item in CATALOG[name]["build_info"]
    ),
    ("nginx_exporter", 'nginxexporter_build_info{arch="linux/amd64",commit="e4",version="0.11.0"} 1\n', "0.11.0"),
    ("fail2ban_exporter", 'f2b_version{exporter="0.10.3",fail2ban="1.0.2"} 1\n', "0.10.3"),
]

GITHUB = "https://github.com"
RELEASES = [
    # component, version, architecture, URL of the archive, URL of the checksums, members
    (
        *("prometheus", "3.8.1", "amd64"),
        f"{GITHUB}/prometheus/prometheus/releases/download/v3.8.1/prometheus-3.8.1.linux-amd64.tar.gz",
        f"{GITHUB}/prometheus/prometheus/releases/download/v3.8.1/sha256sums.txt",
        ["prometheus-3.8.1.linux-amd64/prometheus", "prometheus-3.8.1.linux-amd64/promtool"],
    ),
    (
        *("alertmanager", "0.33.1", "armv7"),
        f"{GITHUB}/prometheus/alertmanager/releases/download/v0.33.1/alertmanager-0.33.1.linux-armv7.tar.gz",
        f"{GITHUB}/prometheus/alertmanager/releases/download/v0.33.1/sha256sums.txt",
        ["alertmanager-0.33.1.linux-armv7/alertmanager", "alertmanager-0.33.1.linux-armv7/amtool"],
    ),
    (
        *("node_exporter", "1.9.1", "arm64"),
        f"{GITHUB}/prometheus/node_exporter/releases/download/v1.9.1/node_exporter-1.9.1.linux-arm64.tar.gz",
        f"{GITHUB}/prometheus/node_exporter/releases/download/v1.9.1/sha256sums.txt",
        ["node_exporter-1.9.1.linux-arm64/node_exporter"],
    ),
    (
        *("nginx_exporter", "1.5.1", "riscv64"),
        f"{GITHUB}/nginx/nginx-prometheus-exporter/releases/download/v1.5.1/"
        "nginx-prometheus-exporter_1.5.1_linux_riscv64.tar.gz",
        f"{GITHUB}/nginx/nginx-prometheus-exporter/releases/download/v1.5.1/"
        "nginx-prometheus-exporter_1.5.1_checksums.txt",
        ["nginx-prometheus-exporter"],
    ),
    (
        *("nginx_exporter", "0.11.0", "amd64"),
        f"{GITHUB}/nginx/nginx-prometheus-exporter/releases/download/v0.11.0/"
        "nginx-prometheus-exporter_0.11.0_linux_amd64.tar.gz",
        f"{GITHUB}/nginx/nginx-prometheus-exporter/releases/download/v0.11.0/sha256sums.txt",
        ["nginx-prometheus-exporter"],
    ),
    (
        *("phpfpm_exporter", "2.2.0", "arm64"),
        f"{GITHUB}/hipages/php-fpm_exporter/releases/download/v2.2.0/php-fpm_exporter_2.2.0_linux_arm64.tar.gz",
        f"{GITHUB}/hipages/php-fpm_exporter/releases/download/v2.2.0/php-fpm_exporter_2.2.0_checksums.txt",
        ["php-fpm_exporter"],
    ),
    (
        *("phpfpm_exporter", "2.0.4", "amd64"),
        f"{GITHUB}/hipages/php-fpm_exporter/releases/download/v2.0.4/php-fpm_exporter_2.0.4_linux_amd64",
        f"{GITHUB}/hipages/php-fpm_exporter/releases/download/v2.0.4/php-fpm_exporter_2.0.4_checksums.txt",
        ["php-fpm_exporter_2.0.4_linux_amd64"],
    ),
    (
        *("fail2ban_exporter", "0.10.3", "armv6"),
        "https://gitlab.com/hectorjsmith/fail2ban-prometheus-exporter/-/releases/v0.10.3/downloads/"
        "fail2ban_exporter_0.10.3_linux_armv6.tar.gz",
        "https://gitlab.com/hectorjsmith/fail2ban-prometheus-exporter/-/releases/v0.10.3/downloads/"
        "fail2ban_exporter_0.10.3_checksums.txt",
        ["fail2ban_exporter"],
    ),
    (
        *("loki", "3.7.6", "armv7"),
        f"{GITHUB}/grafana/loki/releases/download/v3.7.6/loki-linux-arm.zip",
        f"{GITHUB}/grafana/loki/releases/download/v3.7.6/SHA256SUMS",
        ["loki-linux-arm"],
    ),
    (
        *("promtail", "3.6.11", "amd64"),
        f"{GITHUB}/grafana/loki/releases/download/v3.6.11/promtail-linux-amd64.zip",
        f"{GITHUB}/grafana/loki/releases/download/v3.6.11/SHA256SUMS",
        ["promtail-linux-amd64"],
    ),
    (
        *("grafana", "11.6.0", "amd64"),
        "https://dl.grafana.com/oss/release/grafana-11.6.0.linux-amd64.tar.gz",
        "https://dl.grafana.com/oss/release/grafana-11.6.0.linux-amd64.tar.gz.sha256",
        [],
    ),
    (
        *("process_exporter", "0.8.7", "armv7"),
        f"{GITHUB}/ncabatoff/process-exporter/releases/download/v0.8.7/process-exporter-0.8.7.linux-armv7.tar.gz",
        f"{GITHUB}/ncabatoff/process-exporter/releases/download/v0.8.7/checksums.txt",
        ["process-exporter-0.8.7.linux-armv7/process-exporter"],
    ),
    (
        *("redis_exporter", "1.69.0", "armv7"),
        f"{GITHUB}/oliver006/redis_exporter/releases/download/v1.69.0/redis_exporter-v1.69.0.linux-arm.tar.gz",
        f"{GITHUB}/oliver006/redis_exporter/releases/download/v1.69.0/sha256sums.txt",
        ["redis_exporter-v1.69.0.linux-arm/redis_exporter"],
    ),
    (
        *("mongodb_exporter", "0.47.0", "arm64"),
        f"{GITHUB}/percona/mongodb_exporter/releases/download/v0.47.0/mongodb_exporter-0.47.0.linux-arm64.tar.gz",
        f"{GITHUB}/percona/mongodb_exporter/releases/download/v0.47.0/mongodb_exporter_0.47.0_checksums.txt",
        ["mongodb_exporter-0.47.0.linux-arm64/mongodb_exporter"],
    ),
    (
        *("cadvisor", "0.52.1", "amd64"),
        f"{GITHUB}/google/cadvisor/releases/download/v0.52.1/cadvisor-v0.52.1-linux-amd64",
        "",
        ["cadvisor-v0.52.1-linux-amd64"],
    ),
    (
        *("varnish_exporter", "1.6.1", "amd64"),
        f"{GITHUB}/jonnenauha/prometheus_varnish_exporter/releases/download/1.6.1/"
        "prometheus_varnish_exporter-1.6.1.linux-amd64.tar.gz",
        f"{GITHUB}/jonnenauha/prometheus_varnish_exporter/releases/download/1.6.1/sha256sums.txt",
        ["prometheus_varnish_exporter-1.6.1.linux-amd64/prometheus_varnish_exporter"],
    ),
    (
        *("varnish_exporter", "1.8.3", "amd64"),
        f"{GITHUB}/otto-de/prometheus_varnish_exporter/releases/download/v1.8.3/"
        "prometheus-varnish-exporter_Linux_x86_64.tar.gz",
        f"{GITHUB}/otto-de/prometheus_varnish_exporter/releases/download/v1.8.3/"
        "prometheus-varnish-exporter_1.8.3_checksums.txt",
        ["prometheus-varnish-exporter"],
    ),
    (
        *("bird_exporter", "1.4.5", "arm64"),
        f"{GITHUB}/czerwonk/bird_exporter/releases/download/v1.4.5/bird_exporter_1.4.5_linux_arm64.tar.gz",
        f"{GITHUB}/czerwonk/bird_exporter/releases/download/v1.4.5/bird_exporter_1.4.5_checksums.txt",
        ["bird_exporter"],
    ),
    (
        *("victoriametrics", "1.150.0", "amd64"),
        f"{GITHUB}/VictoriaMetrics/VictoriaMetrics/releases/download/v1.150.0/"
        "victoria-metrics-linux-amd64-v1.150.0.tar.gz",
        f"{GITHUB}/VictoriaMetrics/VictoriaMetrics/releases/download/v1.150.0/"
        "victoria-metrics-linux-amd64-v1.150.0_checksums.txt",
        ["victoria-metrics-prod"],
    ),
    (
        *("vmagent", "1.150.0", "armv7"),
        f"{GITHUB}/VictoriaMetrics/VictoriaMetrics/releases/download/v1.150.0/vmutils-linux-arm-v1.150.0.tar.gz",
        f"{GITHUB}/VictoriaMetrics/VictoriaMetrics/releases/download/v1.150.0/vmutils-linux-arm-v1.150.0_checksums.txt",
        ["vmagent-prod"],
    ),
    (
        *("mimir", "3.0.5", "amd64"),
        f"{GITHUB}/grafana/mimir/releases/download/mimir-3.0.5/mimir-linux-amd64",
        f"{GITHUB}/grafana/mimir/releases/download/mimir-3.0.5/mimir-linux-amd64-sha-256",
        ["mimir-linux-amd64"],
    ),
    (
        *("otelcol", "0.159.0", "amd64"),
        f"{GITHUB}/open-telemetry/opentelemetry-collector-releases/releases/download/v0.159.0/"
        "otelcol_0.159.0_linux_amd64.tar.gz",
        f"{GITHUB}/open-telemetry/opentelemetry-collector-releases/releases/download/v0.159.0/"
        "otelcol_0.159.0_linux_amd64.tar.gz.sha256",
        ["otelcol"],
    ),
    (
        *("otelcol", "0.116.0", "arm64"),
        f"{GITHUB}/open-telemetry/opentelemetry-collector-releases/releases/download/v0.116.0/"
        "otelcol_0.116.0_linux_arm64.tar.gz",
        f"{GITHUB}/open-telemetry/opentelemetry-collector-releases/releases/download/v0.116.0/"
        "opentelemetry-collector-releases_otelcol_checksums.txt",
        ["otelcol"],
    ),
    (
        *("vector", "0.57.0", "arm64"),
        f"{GITHUB}/vectordotdev/vector/releases/download/v0.57.0/vector-0.57.0-aarch64-unknown-linux-musl.tar.gz",
        f"{GITHUB}/vectordotdev/vector/releases/download/v0.57.0/vector-0.57.0-SHA256SUMS",
        ["vector-aarch64-unknown-linux-musl/bin/vector"],
    ),
    (
        *("grafana_agent", "0.44.8", "amd64"),
        f"{GITHUB}/grafana/agent/releases/download/v0.44.8/grafana-agent-linux-amd64.zip",
        f"{GITHUB}/grafana/agent/releases/download/v0.44.8/SHA256SUMS",
        ["grafana-agent-linux-amd64"],
    ),
]

TEMPO_CONFIG = "server:\n  http_listen_address: 127.0.0.1\n  http_listen_port: 3201\ndistributor: {}\n"
LOKI_CONFIG = """\
auth_enabled: false

# server:
#   http_listen_port: 1
server:
  # http_listen_port: 2
  http_listen_port: 3100
  grpc_listen_port: 9096
  http_listen_address: "127.0.0.1"
"""
PROMTAIL_CONFIG = """\
scrape_configs:
  - job_name: push
    loki_push_api:
      server:
        http_listen_port: 3500
        http_listen_address: 10.0.0.1

server:  # its own
# the port
  log_level: warn

  http_listen_port: 9080  # as everybody
positions:
  filename: /tmp/positions.yaml
"""
GRAFANA_CONFIG = """\
[paths]
;data = /var/lib/grafana

[server]
# Protocol (http, https, h2, socket)
;protocol = http
protocol = https

;http_addr =
http_addr = 127.0.0.1
;http_port = 3000
http_port = 3001

[smtp]
http_port = 9
"""
CONFIG_VALUES = [
    ("tempo", TEMPO_CONFIG, {"port": "3201", "address": "127.0.0.1"}),
    ("loki", LOKI_CONFIG, {"port": "3100", "address": "127.0.0.1"}),
    (
        "loki",
        "server: {log_level: warn, http_listen_port: 3101, http_listen_address: ::1}\n",
        {"port": "3101", "address": "::1"},
    ),
    ("loki", 'server: {"http_listen_port": "3102"}\n', {"port": "3102"}),
    ("loki", "server:\r\n  http_listen_port: 3103\r\n", {"port": "3103"}),
    ("loki", "server:\n  http_listen_port: ${PORT}\n  http_listen_address: ${HOST:0.0.0.0}\n", {}),
    ("loki", "auth_enabled: false\nquerier:\n  http_listen_port: 1\n", {}),
    ("loki", "common:\n  # where\n  path_prefix: /loki # all\n  storage: {}\n", {"data": "/loki"}),
    ("loki", "common: {ring: {}, path_prefix: 'data'}\n", {"data": "data"}),
    ("loki", "common:\n  path_prefix: ${DIR}\nother:\n  path_prefix: /no\n", {}),
    ("loki", "", {}),
    ("promtail", PROMTAIL_CONFIG, {"port": "9080"}),
    ("grafana", GRAFANA_CONFIG, {"port": "3001", "address": "127.0.0.1", "protocol": "https"}),
    ("grafana", "[server]\n;http_port = 3000\n[smtp]\nhttp_port = 9\n", {}),
]

MINE: dict[str, t.Any] = {
    "phase": "exporters",
    "units": ["mine"],
    "files": [{"name": "mine"}],
    "releases": [
        {
            "url": "https://releases.example.com/{version}/mine_{arch}.tar.gz",
            "checksums": "https://releases.example.com/{version}/sha256sums.txt",
            "members": {"mine": "mine-{version}/mine"},
        }
    ],
    "port": 9999,
}
ERA = MINE["releases"][0]

# What is overridden in prometheus, and what the error says.
REFUSED: list[tuple[t.Any, str]] = [
    ({"port": "9090"}, "upgrade_overrides: prometheus.port is '9090'; it must be a whole number from 1 to 65535"),
    ({"port": 0}, "prometheus.port is 0; it must be a whole number from 1 to 65535"),
    ({"port": True}, "prometheus.port is True; it must be a whole number"),
    ({"port": 9090.0}, "prometheus.port is 9090.0; it must be a whole number"),
    ({"port": None}, "prometheus.port is None"),
    ({"prot": 9090}, "upgrade_overrides: prometheus.prot is not a field; did you mean port?"),
    ({"zzz": 1}, "prometheus.zzz is not a field; allowed are name, title, phase, order"),
    ({3: 1}, "prometheus.3 is not a field; allowed are name"),
    ({"name": "prom"}, "prometheus.name is prom; it must be prometheus, as the component is called"),
    ({"phase": "Metrics 2"}, "prometheus.phase is 'Metrics 2'; it must be a name of small letters, digits and _"),
    ({"phase": ["metrics"]}, "prometheus.phase is ['metrics']; it must be a name"),
    ({"install": "package"}, "prometheus.install is 'package'; it must be one of files, tree"),
    ({"title": ""}, "prometheus.title is ''; it must be a text that isn't empty"),
    ({"units": []}, "prometheus.units is []; it must be a list of at least 1"),
    ({"units": "prom"}, "prometheus.units is 'prom'; it must be a list"),
    ({"units": ["prom", "a b"]}, "prometheus.units[1] is 'a b'; it must be the name of a unit"),
    ({"files": [{"name": "/usr/bin/prom"}]}, "prometheus.files[0].name is '/usr/bin/prom'; it must be a file's name"),
    ({"files": [{}]}, "prometheus.files[0].name is missing; it has no default"),
    ({"files": ["prometheus"]}, "prometheus.files[0] is 'prometheus'; it must be a dictionary"),
    (
        {"files": [{"name": "prometheus"}], "trials": []},
        "prometheus.releases[0].members.promtool is not a file of this component",
    ),
    ({"files": [{"name": "promtool"}] * 2}, "prometheus.files names one file twice: promtool, promtool"),
    ({"releases": [{**ERA, "members": {}}]}, "prometheus.releases[0].members says nothing of prometheus, promtool"),
    ({"releases": [{**ERA, "when": ">=x"}]}, "prometheus.releases[0].when is '>=x'; it must be a version or a range"),
    ({"releases": [{**ERA, "when": 3}]}, "prometheus.releases[0].when is 3; it must be a version or a range"),
    (
        {"releases": [{**ERA, "url": "http://x/{version}"}]},
        "prometheus.releases[0].url is 'http://x/{version}'; it must be a full https URL",
    ),
    (
        {"releases": [{**ERA, "url": "https://me:geheim@x/{version}"}]},
        "prometheus.releases[0].url has a login in it, which plans would show: put it in ~/.netrc or in",
    ),
    ({"releases": [{**ERA, "url": "https://x/y"}]}, "releases[0].url is 'https://x/y', the same for all versions"),
    (
        {"releases": [{**ERA, "url": "https://x/{version"}]},
        "releases[0].url is 'https://x/{version', which can't be filled in",
    ),
    (
        {"releases": [{**ERA, "url": "https://x/{version}/{os}"}]},
        "releases[0].url has {os} in it; only {version} and {arch}",
    ),
    ({"releases": [{**ERA, "url": "https://x/{version.__class__}"}]}, "url has {version.__class__} in it"),
    (
        {"releases": [{**ERA, "url": "https://x/{version!r}"}]},
        "url has {version} in it; only {version} and {arch} can be filled in, as they are",
    ),
    ({"releases": [{**ERA, "url": "https://x/{}"}]}, "url has {} in it"),
    (
        {"releases": [{**ERA, "members": {"prometheus": "../x"}}]},
        "members.prometheus is '../x'; it must be a relative path",
    ),
    (
        {"releases": [{**ERA, "members": {"prometheus": "/x"}}]},
        "members.prometheus is '/x'; it must be a relative path",
    ),
    (
        {"releases": [{**ERA, "checksum": "x"}]},
        "prometheus.releases[0].checksum is not a field; did you mean checksums?",
    ),
    ({"architectures": {"x86_64": "amd64"}}, "prometheus.architectures.x86_64 is not a key that is allowed here; "),
    ({"architectures": {"amd64": ""}}, "prometheus.architectures.amd64 is ''; it must be how the release names the"),
    ({"version_args": []}, "prometheus.version_args is []; it must be a list of at least 1"),
    ({"version_args": [[]]}, "prometheus.version_args[0] is []; it must be a list of at least 1"),
    ({"version_args": ["--version"]}, "prometheus.version_args[0] is '--version'; it must be a list of at least 1"),
    ({"metrics_path": "metrics"}, "prometheus.metrics_path is 'metrics'; it must be a path that begins with /"),
    ({"flags": {"lissten": "x"}}, "prometheus.flags.lissten is not a key that is allowed here; did you mean listen?"),
    (
        {"flags": {"listen": "--web.listen-address"}},
        "prometheus.flags.listen is '--web.listen-address'; it must be a flag's name, without dashes",
    ),
    ({"flags": []}, "prometheus.flags is []; it must be a dictionary"),
    ({"config_values": {"port": "port: ([0-9]+"}}, "prometheus.config_values.port is no regular expression: "),
    ({"config_values": {"port": "port: [0-9]+"}}, "prometheus.config_values.port has 0 groups; it must have one"),
    ({"config_values": {"port": "a{99999999999999}"}}, "prometheus.config_values.port is no regular expression: "),
    (
        {"default_data": ["data", "../x"]},
        "prometheus.default_data[1] is '../x'; it must be a relative path without '..'",
    ),
    ({"auth": {"client_key": "/k"}}, "prometheus.auth.client_cert is missing; client_key is the key of a client_cert"),
    ({"auth": {"client_cert": "k.pem"}}, "prometheus.auth.client_cert is 'k.pem'; it must be an absolute path"),
    ({"flag_variables": {"listen": "A"}}, "prometheus.flag_variables.listen is 'A'; it must be a list"),
    (
        {"build_info": [{"metric": "x", "lable": "y"}]},
        "prometheus.build_info[0].lable is not a field; did you mean label?",
    ),
    ({"build_info": ["1x"]}, "prometheus.build_info[0].metric is '1x'; it must be the name of a metric or label"),
    (
        {"probes": [{"kind": "htpp", "path": "/"}]},
        "prometheus.probes[0].kind is not a kind of probe; did you mean http?",
    ),
    (
        {"proofs": [{"kind": "tcp", "path": "/"}]},
        "prometheus.proofs[0].path is not a field; allowed are kind, name, login, addr",
    ),
    ({"proofs": [{"kind": "log"}]}, "prometheus.proofs[0].patterns is missing"),
    ({"proofs": [{"kind": "log", "patterns": ["("]}]}, "prometheus.proofs[0].patterns[0] is no regular expression"),
    ({"proofs": [{"path": "/", "json": {"a": []}}]}, "prometheus.proofs[0].json.a is []; it must be a text, a number"),
    (
        {"trials": [{"about": "config", "program": "prom", "args": ["x"]}]},
        "prometheus.trials[0].program is not a file of",
    ),
    ({"links": [{"to": "loki", "proofs": []}]}, "prometheus.links[0].proofs is []; it must be a list of at least 1"),
    (
        {"probes": [{"path": "/x", "status": [20]}]},
        "prometheus.probes[0].status[0] is 20; it must be a whole number from 100",
    ),
    ({"probe_timeout": 0}, "prometheus.probe_timeout is 0; it must be a whole number from 1 to 86400"),
    ({"probe_window": -1}, "prometheus.probe_window is -1; it must be a whole number from 0 to 3600"),
    ({"stages": ["latest"]}, "prometheus.stages[0] is 'latest'; it must be a version or a range of them, in quotes"),
    ({"stages": [2.53]}, "prometheus.stages[0] is 2.53; it must be a version or a range of them, in quotes"),
    (
        {"known_releases": ["3.x"]},
        "prometheus.known_releases[0] is '3.x'; it must be a version in quotes, like '1.9.1'",
    ),
    ({"last_release": {"version": "3.0.0"}}, "prometheus.last_release.reason is missing; it has no default"),
    (
        {"advisories": [{"versions": "3.0.0", "kind": "ugly"}]},
        "prometheus.advisories[0].kind is 'ugly'; it must be one of bad, vulnerable",
    ),
    (
        {"removed_flags": [{"flag": "x", "since": "*"}]},
        "prometheus.removed_flags[0].since is '*'; it must be a version",
    ),
    (
        {"state_paths": ["/etc/passwd"]},
        "prometheus.state_paths[0] is '/etc/passwd'; it must be a relative path without '..'",
    ),
    ({"notes": [{"since": "3.0.0", "message": "x"}]}, "prometheus.notes[0].reference is missing; it has no default"),
    ("9090", "upgrade_overrides: prometheus is '9090'; it must be a dictionary"),
    (None, "upgrade_overrides: prometheus is None; it must be a dictionary"),
]


# -- the shipped files --------------------------------------------------------------------------------------------


def test_the_promised_components_are_there() -> None:
    promised = {"node_exporter", "nginx_exporter", "mysqld_exporter", "phpfpm_exporter", "fail2ban_exporter"}
    promised |= {"blackbox_exporter", "pushgateway", "prometheus", "alertmanager", "loki", "promtail", "grafana"}
    assert promised <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_entry_has_every_field(name: str) -> None:
    entry = CATALOG[name]
    assert entry["name"] == name
    assert list(entry) == list(_catalog.ENTRY)
    assert entry["phase"] in ("exporters", "alerting", "metrics", "logging", "visualization")
    assert all(era["architectures"] for era in entry["releases"])
    assert bool(entry["releases"]) is (entry["unreleased"] is None)
    assert all(item["metric"] and item["label"] for item in entry["build_info"])


def test_order_within_phases() -> None:
    assert CATALOG["loki"]["order"] < CATALOG["promtail"]["order"]


def test_no_unit_belongs_to_two_components() -> None:
    units = [unit for entry in CATALOG.values() for unit in entry["units"]]
    assert len(set(units)) == len(units)


@pytest.mark.parametrize("name", NAMES)
def test_every_reference_is_public(name: str) -> None:
    fields = ("rollback_floors", "advisories", "removed_flags", "removed_environment", "notes", "lookalikes")
    for field in (*fields, "removed_values"):
        for item in CATALOG[name][field]:
            assert item["reference"] is None or "https://" in item["reference"]


@pytest.mark.parametrize("name, position", ERAS)
def test_every_era_renders_for_every_architecture(name: str, position: int) -> None:
    era = CATALOG[name]["releases"][position]
    for token in era["architectures"].values():
        values = {"version": "1.2.3", "arch": token}
        url, checksums = era["url"].format(**values), (era["checksums"] or "").format(**values)
        assert url != checksums
        assert token in url
        for text in (url, checksums, *(member.format(**values) for member in era["members"].values())):
            assert not re.search(r"[{}\s]", text)
        assert "1.2.3" in url
        assert not checksums or "1.2.3" in checksums


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: " ".join(release[:3]))
def test_release(release: tuple[t.Any, ...]) -> None:
    name, version, architecture, url, checksums, members = release
    era = next(era for era in CATALOG[name]["releases"] if _versions.matches(version, era["when"]))
    values = {"version": version, "arch": era["architectures"][architecture]}
    assert era["url"].format(**values) == url
    assert (era["checksums"] or "").format(**values) == checksums
    assert [member.format(**values) for member in era["members"].values()] == members


@pytest.mark.parametrize(
    "name, version, architecture",
    [
        ("nginx_exporter", "1.3.0", "riscv64"),
        ("phpfpm_exporter", "2.0.4", "arm64"),
        ("phpfpm_exporter", "2.2.0", "armv7"),
        ("loki", "3.7.6", "s390x"),
    ],
)
def test_not_released_for(name: str, version: str, architecture: str) -> None:
    era = next(era for era in CATALOG[name]["releases"] if _versions.matches(version, era["when"]))
    assert architecture not in era["architectures"]


@pytest.mark.parametrize("name, text, version", VERSION_OUTPUTS)
def test_version_output_is_understood(name: str, text: str, version: str) -> None:
    assert _version.find_version(text) == version
    assert _versions.is_version(version)


def test_every_component_has_a_version_output() -> None:
    assert {name for name, _text, _found in VERSION_OUTPUTS} == set(NAMES)


@pytest.mark.parametrize("name, page, version", METRICS)
def test_metrics_tell_the_version(name: str, page: str, version: str) -> None:
    assert _metrics.version_in(page, CATALOG[name]["build_info"]) == version


@pytest.mark.parametrize("name, text, values", CONFIG_VALUES)
def test_config_values(name: str, text: str, values: dict[str, str]) -> None:
    found = {
        key: match.group(1)
        for key, expression in CATALOG[name]["config_values"].items()
        if (match := re.search(expression, text, re.MULTILINE))
    }
    assert found == values


def test_config_values_of_a_large_file_take_no_time() -> None:
    text = "server:\n" + "  log_level: warn\n\n# comment\n" * 20_000
    began = time.perf_counter()
    for expression in (CATALOG["loki"]["config_values"] | CATALOG["grafana"]["config_values"]).values():
        re.search(expression, text, re.MULTILINE)
    assert time.perf_counter() - began < 2


def test_every_component_with_config_values_has_a_sample() -> None:
    assert {name for name, _text, _values in CONFIG_VALUES} == {n for n in NAMES if CATALOG[n]["config_values"]}


@pytest.mark.parametrize("name", NAMES)
def test_versions_fit_together(name: str) -> None:
    entry = CATALOG[name]
    for stage in entry["stages"]:
        assert _versions.newest(entry["known_releases"], stage), f"no known release in the stage {stage}"
    for version in entry["known_releases"]:
        assert any(_versions.matches(version, era["when"]) for era in entry["releases"]) or name == "pushgateway"
    for advisory in entry["advisories"]:
        assert not _versions.matches(advisory["fixed_in"], advisory["versions"])
    for removal in (*entry["removed_flags"], *entry["removed_environment"], *entry["removed_values"]):
        assert removal["until"] is None or _versions.compare(removal["since"], removal["until"]) < 0
    for cut in entry["cuts_off"]:
        assert cut["setting"] in [removal["setting"] for removal in CATALOG[cut["component"]]["removed_settings"]]


@pytest.mark.parametrize(
    "name, version, kinds",
    [
        ("prometheus", "3.8.1", ["vulnerable", "vulnerable"]),
        ("prometheus", "3.5.3", []),
        ("prometheus", "3.9.0", ["vulnerable", "vulnerable", "bad"]),
        ("prometheus", "3.13.2", []),
        ("prometheus", "2.55.1", []),
        ("alertmanager", "0.32.2", ["bad"]),
        ("alertmanager", "0.33.1", []),
        ("node_exporter", "1.10.1", ["bad"]),
        ("node_exporter", "1.10.2", []),
        ("nginx_exporter", "1.5.2", ["bad"]),
        ("grafana", "8.2.1", ["bad"]),
    ],
)
def test_advisories(name: str, version: str, kinds: list[str]) -> None:
    found = [item["kind"] for item in CATALOG[name]["advisories"] if _versions.matches(version, item["versions"])]
    assert found == kinds


@pytest.mark.parametrize(
    "name, written_by, to, allowed",
    [
        ("prometheus", "3.1.0", "2.55.1", True),
        ("prometheus", "3.1.0", "2.53.5", True),
        ("prometheus", "3.1.0", "2.54.1", False),
        ("prometheus", "3.1.0", "2.48.1", False),
        ("alertmanager", "0.33.0", "0.32.3", True),
        ("alertmanager", "0.33.0", "0.31.1", False),
        ("alertmanager", "0.33.1", "0.31.1", True),
        ("grafana", "13.0.0", "12.4.3", False),
    ],
)
def test_rollback_floors(name: str, written_by: str, to: str, allowed: bool) -> None:
    floors = [item for item in CATALOG[name]["rollback_floors"] if _versions.matches(written_by, item["from"])]
    assert all(_versions.matches(to, item["floor"]) for item in floors) is allowed


def test_promtail_has_ended() -> None:
    last = CATALOG["promtail"]["last_release"]
    assert last["version"] == "3.6.11"
    assert "Alloy" in last["successor"]


# -- what the operator changes and adds ---------------------------------------------------------------------------


def test_an_override_replaces_a_value_and_nothing_else() -> None:
    changed = _catalog.load(overrides={"prometheus": {"port": 9191, "stages": ["2.53.5"], "default_config": None}})
    expected = {**CATALOG["prometheus"], "port": 9191, "stages": ["2.53.5"], "default_config": []}
    assert changed["prometheus"] == expected
    assert {**changed, "prometheus": CATALOG["prometheus"]} == CATALOG


def test_an_override_replaces_lists_as_a_whole() -> None:
    changed = _catalog.load(overrides={"prometheus": {"units": ["prom"], "stages": []}})["prometheus"]
    assert changed["units"] == ["prom"]
    assert changed["stages"] == []


def test_an_override_of_a_dictionary_keeps_its_other_keys() -> None:
    changed = _catalog.load(overrides={"prometheus": {"flags": {"data": "storage.agent.path"}}})["prometheus"]
    assert changed["flags"] == {**CATALOG["prometheus"]["flags"], "data": "storage.agent.path"}


def test_an_override_of_a_dictionary_keeps_the_keys_of_its_default() -> None:
    changed = _catalog.load(overrides={"prometheus": {"architectures": {"armv7": "arm"}}})["prometheus"]
    assert changed["architectures"] == {**CATALOG["prometheus"]["architectures"], "armv7": "arm"}
    assert changed["releases"][0]["architectures"]["armv7"] == "arm"


def test_defaults_follow_from_overridden_fields() -> None:
    changed = _catalog.load(overrides={"node_exporter": {"metrics_path": "/node"}})["node_exporter"]
    assert changed["probes"] == [
        {"kind": "http", "name": None, "login": False, "path": "/node", "status": [200], "text": None, "json": {}}
    ]


def test_nothing_shipped_is_changed() -> None:
    before = copy.deepcopy(CATALOG)
    overrides = {"prometheus": {"flags": {"listen": "x"}, "architectures": {"amd64": "x"}}}
    kept = copy.deepcopy(overrides)
    _catalog.load(overrides=overrides, components={"mine": MINE})
    assert _catalog.load() == before
    assert overrides == kept


def test_a_unit_may_be_written_with_its_ending() -> None:
    changed = _catalog.load(overrides={"loki": {"units": ["loki@main.service", "loki"]}})
    assert changed["loki"]["units"] == ["loki@main", "loki"]


def test_a_component_of_ones_own() -> None:
    mine = _catalog.load(components={"mine": MINE})["mine"]
    assert list(mine) == list(_catalog.ENTRY)
    assert mine["title"] == mine["name"] == "mine"
    assert mine["version_args"] == [["--version"]]
    assert mine["probes"] == [
        {"kind": "http", "name": None, "login": False, "path": "/metrics", "status": [200], "text": None, "json": {}}
    ]
    assert mine["releases"][0]["when"] == "*"
    assert mine["releases"][0]["architectures"]["amd64"] == "amd64"


def test_a_phase_of_ones_own() -> None:
    assert _catalog.load(components={"mine": {**MINE, "phase": "edge_2"}})["mine"]["phase"] == "edge_2"


def test_a_tree_needs_no_members() -> None:
    tree = {**MINE, "install": "tree", "releases": [{**ERA, "members": {}}]}
    assert _catalog.load(components={"mine": tree})["mine"]["releases"][0]["members"] == {}


def test_a_component_of_ones_own_can_be_overridden() -> None:
    loaded = _catalog.load(components={"mine": MINE}, overrides={"mine": {"port": 1}})
    assert loaded["mine"]["port"] == 1


def test_a_component_of_ones_own_takes_the_place_of_a_shipped_one() -> None:
    loaded = _catalog.load(components={"loki": MINE}, overrides={"loki": {"order": 7}})
    assert loaded["loki"]["units"] == ["mine"]
    assert loaded["loki"]["order"] == 7
    assert loaded["loki"]["stages"] == []


@pytest.mark.parametrize("nothing", [None, {}])
def test_nothing_to_change(nothing: t.Any) -> None:
    assert _catalog.load(overrides=nothing, components=nothing) == CATALOG


def test_only() -> None:
    assert list(_catalog.only(CATALOG, ["loki", "grafana"])) == ["loki", "grafana"]
    with pytest.raises(InputError, match="lokki is not a component that the catalog knows; did you mean loki"):
        _catalog.only(CATALOG, ["lokki"])
    with pytest.raises(InputError, match="is not a component"):
        _catalog.only(CATALOG, [["loki"]])  # type: ignore[list-item]


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, message", REFUSED, ids=lambda value: str(value)[:60])
def test_refused(changes: t.Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        _catalog.load(overrides={"prometheus": changes})
    assert message in str(caught.value)
    assert str(caught.value).startswith("upgrade_overrides: prometheus")
    assert caught.value.key == "input.catalog"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"overrides": {"prometeus": {"port": 1}}},
            "upgrade_overrides: prometeus is not a component that the catalog knows; did you mean prometheus?; "
            "a component of your own goes into upgrade_components",
        ),
        ({"overrides": {"zzz": {}}}, "upgrade_overrides: zzz is not a component that the catalog knows; allowed are"),
        ({"overrides": {1: {}}}, "upgrade_overrides: 1 is not a key that is allowed here; allowed are texts only"),
        ({"overrides": ["prometheus"]}, "upgrade_overrides is ['prometheus']; it must be a dictionary, {component: "),
        ({"overrides": ""}, "upgrade_overrides is ''; it must be a dictionary, {component: {field: value}}"),
        ({"components": 5}, "upgrade_components is 5; it must be a dictionary, {component: {field: value}}"),
        ({"components": {"mine": None}}, "upgrade_components: mine is None; it must be a dictionary"),
        ({"components": {"mine": {}}}, "upgrade_components: mine.phase is missing; it has no default"),
        ({"components": {"My Own": MINE}}, "upgrade_components: My Own.name is 'My Own'; it must be a name of small"),
        ({"components": {"mine": {**MINE, "ports": 1}}}, "upgrade_components: mine.ports is not a field; did you mean"),
        ({"components": {"mine": {**MINE, "name": "x"}}}, "upgrade_components: mine.name is x; it must be mine"),
    ],
)
def test_refused_arguments(arguments: dict[str, t.Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _catalog.load(**arguments)
    assert str(caught.value).startswith(message)


def test_an_error_in_a_shipped_file_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_catalog, "_raw", lambda: {"mine": {**MINE, "name": "mine", "port": 0}})
    _catalog._shipped.cache_clear()
    try:
        with pytest.raises(InputError, match=r"catalog/mine\.yml: port is 0; it must be a whole number"):
            _catalog.load()
    finally:
        _catalog._shipped.cache_clear()


# -- any junk is refused, never anything else ---------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.dates(),
    st.sampled_from([">=2.55,<3", "1.2.3", "{version}", "{", "}", "(", "https://x/{version}", "/", "..", "*", "3.x"]),
)
KEYS = st.one_of(st.sampled_from(sorted(_catalog.ENTRY)), st.text(max_size=8), st.integers(), st.none())
INNER_KEYS = st.sampled_from(
    *[["name", "aliases", "when", "url", "checksums", "members", "architectures", "path", "status", "flag", "since"]]
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(KEYS, INNER_KEYS), inner, max_size=4),
        st.sets(st.integers(), max_size=2),
    ),
    max_leaves=12,
)


def refused_or_whole(**arguments: t.Any) -> None:
    try:
        loaded = _catalog.load(**arguments)
    except InputError as exc:
        if not str(exc).startswith("upgrade_"):
            raise
    else:
        assert all(list(entry) == list(_catalog.ENTRY) for entry in loaded.values())


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.dictionaries(KEYS, JUNK, max_size=4))
def test_junk_in_fields(name: str, changes: dict[t.Any, t.Any]) -> None:
    refused_or_whole(overrides={name: changes})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(_catalog.ENTRY)), JUNK)
def test_junk_in_a_component(field: str, value: t.Any) -> None:
    refused_or_whole(components={"mine": {**MINE, field: value}})


@settings(max_examples=100, deadline=None)
@given(JUNK, JUNK)
def test_junk_instead_of_components(overrides: t.Any, components: t.Any) -> None:
    refused_or_whole(overrides=overrides, components=components)


def test_a_dictionary_that_holds_itself() -> None:
    endless: dict[str, t.Any] = {}
    endless["flags"] = endless
    endless["units"] = [endless]
    refused_or_whole(overrides={"prometheus": endless, "loki": {"units": [endless]}})


# -- cost and documentation ---------------------------------------------------------------------------------------


def test_loading_again_is_fast() -> None:
    """It is evaluated for every host."""
    overrides = {name: {"order": 1} for name in NAMES[:5]}
    times = []
    for _round in range(20):
        began = time.perf_counter()
        _catalog.load(overrides=overrides, components={"mine": MINE})
        times.append(time.perf_counter() - began)
    assert min(times) < 0.005


def test_every_field_and_component_is_documented() -> None:
    text = pathlib.Path(__file__).parents[4].joinpath("docs", "catalog.md").read_text(encoding="utf-8")
    records = [_catalog.ENTRY, _catalog._FILE_OF_SET, _catalog._ERA, _catalog._LAST_RELEASE, _catalog._TRIAL]
    records += [_catalog._REHEARSAL, _catalog._LINK, _catalog._SETTING]
    records += [_catalog._ROLLBACK_FLOOR, _catalog._ADVISORY, _catalog._REMOVAL, _catalog._NOTE]
    for field in ("flag", "variable", *(field for record in records for field in record)):
        assert f"| `{field}` |" in text, f"docs/catalog.md doesn't tell of {field}"
    for name in NAMES:
        assert f"`{name}`" in text, f"docs/catalog.md doesn't list {name}"
