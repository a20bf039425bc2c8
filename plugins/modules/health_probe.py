#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: health_probe
short_description: Prove that services run, are what they should be, and stay so
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Looks at one service or several, together, until each has satisfied all its probes for a whole O(window), as one
    process. A service that crash-loops behind an C(active) unit, or answers and dies a moment later, doesn't.
  - Then each of its O(targets[].proofs) must be satisfied once. They are tried again until they are, or the time is
    over; the service must go on satisfying its probes meanwhile.
  - Gives up early where no time will help, that is when the unit has stopped for good or is in a crash loop.
  - A failure says which probe isn't satisfied, what was seen and what was wanted, and shows the journal's last lines.
  - Some kinds compare with what they saw before the service was touched, as M(observability.stack.upgrade_preflight)
    has recorded it for the same upgrade. Where nothing is recorded, they ask nothing.
options:
  targets:
    description: The services.
    type: list
    elements: dict
    required: true
    suboptions:
      component:
        description: Name of the component.
        type: str
        required: true
      unit:
        description: Its unit.
        type: str
        required: true
      binary:
        description: The program that its process must run.
        type: path
        required: true
      url:
        description: Where it answers, with its path prefix. Certificates are not checked, for one asks at the loopback
          address.
        type: str
        required: true
      version:
        description: Version that it must call itself. Without it any version will do.
        type: str
      auth:
        description: The login and the client certificate for all that is asked over HTTP, from files on the host.
        type: dict
        suboptions:
          user:
            description: Name of the user, with O(targets[].auth.password_file).
            type: str
          password_file:
            description: File with the password.
            type: path
          token_file:
            description: File with a bearer token.
            type: path
          client_cert:
            description: Certificate for a service that asks its clients for one, as PEM.
            type: path
          client_key:
            description: Its key, as PEM and without a password. By default it is in O(targets[].auth.client_cert).
            type: path
          ca:
            description: Authorities, as PEM, one of which must have signed the certificate of the service.
            type: path
      deadline_grows:
        description: Gives the service more time, by what it must read before it is ready.
        type: dict
        suboptions:
          path:
            description: Directory of what it reads.
            type: path
            required: true
          seconds_per_gb:
            description: Seconds for each 10^9 bytes below it.
            type: float
            required: true
      probes:
        description:
          - What it must satisfy for the whole O(window), in causal order.
          - Each has a C(kind) and, if it is to be told by another word than that, a C(name). What else it has depends
            on its kind. A field that is none of its kind is refused.
          - V(systemd), active, with a main process. V(process), that runs the file that is at O(targets[].binary) now.
          - V(http), C(path) answers with one of C(status), by default 200, and if they are set with C(text) somewhere
            in it, and with the values of C(json), by their dotted paths.
          - V(http_kept), C(path) answers a request of C(method), by default V(GET), with a status like the one before;
            V(POST) sends nothing. A status of the same hundred is like another, but 404 only like itself.
          - V(build_info), one of C(metrics) at C(path) carries O(targets[].version) in its label. Each has C(metric)
            and C(label).
          - V(tcp), C(address), by default the target's own, takes connections. V(unix), the socket at C(socket) does.
          - V(metric), the sum of the samples of C(metric) with all C(labels) at C(path) is from C(min) to C(max).
          - V(metric_kept), it is at least C(least) percent of what it was, by default 100.
          - V(samples), C(path) has at least C(least) percent of the samples it had, by default 80.
          - V(json_kept), the list at C(items) of the JSON at C(path) has at least C(least) percent of the items it had
            in which each path of C(where) has its value.
          - V(json_each), there are such items, and for each the JSON at C(each), with the item's own values where their
            names stand in braces, has the values of C(json).
          - V(promql), the sum of what C(query) gives is from C(min) to C(max), and with C(kept) no less than it was.
          - V(rule_metrics), no metric that Prometheus' loaded rules use, and that was there, is gone.
          - V(log), at most C(most), by default 0, lines of the unit's journal match one of C(patterns) and none of
            C(allow).
          - V(resources), the process has at most C(rss_most) percent of the memory it had, C(fds_most) percent of its
            limit of open files, and uses at most C(cpu_most) percent of one CPU.
          - V(command), C(argv) ends with one of C(status), by default 0, and prints C(text) if that is set.
          - V(database), the database of C(engine) V(postgresql), V(mysql) or V(sqlite) answers. No login is tried.
          - V(container), C(container) of C(engine) V(docker) or V(podman) runs, and is healthy if it has a check.
          - V(round_trip), what C(send) posts comes back from C(read), with C(text) in it.
        type: list
        elements: dict
        default: [{kind: systemd}, {kind: process}]
        suboptions: &probe
          kind:
            description: Kind of the probe.
            type: str
            required: true
            choices:
              - systemd
              - process
              - http
              - http_kept
              - build_info
              - tcp
              - unix
              - metric
              - metric_kept
              - samples
              - json_kept
              - json_each
              - promql
              - rule_metrics
              - log
              - resources
              - command
              - database
              - container
              - round_trip
          name:
            description: What the probe is called in results.
            type: str
          path:
            description: Path of the request; the file of an SQLite database for V(database).
            type: str
          method:
            description: Method of the request, V(GET) or V(POST), for V(http_kept); by default V(GET).
            type: str
          status:
            description: Status codes of V(http), by default 200; exit codes of V(command), by default 0.
            type: list
            elements: int
          text:
            description: Text that must be in the answer, for V(http), V(command) and V(round_trip).
            type: str
          json:
            description: Wanted values by dotted paths like V(data.list[0].name), for V(http) and V(json_each).
            type: dict
          metrics:
            description: Metrics that tell the version, for V(build_info).
            type: list
            elements: dict
          address:
            description: Address with port, for V(tcp) and V(database).
            type: str
          socket:
            description: Path of a socket, for V(unix) and V(database).
            type: path
          metric:
            description: Name of a metric, for V(metric) and V(metric_kept).
            type: str
          labels:
            description: Labels that a sample must carry, for V(metric) and V(metric_kept).
            type: dict
          only_where:
            description:
              - A C(metric) and C(labels) that are at C(path) only where the service is configured for what V(metric)
                asks. Where they are missing, the probe fails as not configured.
            type: dict
          min:
            description: The least value, for V(metric) and V(promql).
            type: float
          max:
            description: The greatest value, for V(metric) and V(promql).
            type: float
          least:
            description: Percent of before, for V(metric_kept), V(samples) and V(json_kept).
            type: float
          items:
            description: Dotted path of a list, for V(json_kept) and V(json_each). Empty for the answer itself.
            type: str
          where:
            description: Values that an item must have, by their dotted paths, for V(json_kept) and V(json_each).
            type: dict
          each:
            description: Path to ask for each item, for V(json_each).
            type: str
          query:
            description: Expression of V(promql).
            type: str
          kept:
            description: Whether the result of V(promql) must be no less than before, by default not.
            type: bool
          patterns:
            description: Regular expressions of lines that V(log) counts.
            type: list
            elements: str
          allow:
            description: Regular expressions of lines that V(log) leaves out.
            type: list
            elements: str
          most:
            description: How many lines V(log) lets pass, by default none.
            type: int
          rss_most:
            description: Percent of its memory before, for V(resources).
            type: float
          fds_most:
            description: Percent of its limit of open files, for V(resources).
            type: float
          cpu_most:
            description: Percent of one CPU, for V(resources).
            type: float
          argv:
            description: The command line of V(command). No shell is involved.
            type: list
            elements: str
          engine:
            description: What V(database) speaks, or V(container) is run by.
            type: str
          defaults_file:
            description: File of client options in which V(database) with V(mysql) finds the address.
            type: path
          user:
            description: Name that V(database) with V(postgresql) begins a session with, by default V(postgres).
            type: str
          container:
            description: Name of a container.
            type: str
          send:
            description:
              - What V(round_trip) posts. In its texts, in O(targets[].probes[].read) and in
                O(targets[].probes[].text) V({id}) is a unique text, V({now}) and V({soon}) are now and ten seconds
                later (RFC 3339), and V({now_ns}) is now in nanoseconds.
            type: dict
            suboptions:
              path:
                description: Path of the request.
                type: str
                required: true
              body:
                description: What is sent.
                type: str
                required: true
              type:
                description: Its content type.
                type: str
                default: application/json
          read:
            description: Where V(round_trip) looks for it.
            type: dict
            suboptions:
              path:
                description: Path of the request.
                type: str
                required: true
      proofs:
        description: What it must satisfy once, after the window. Each is made as one of O(targets[].probes).
        type: list
        elements: dict
        default: []
        suboptions: *probe
  timeout:
    description: Seconds within which a service must satisfy all its probes, and after the window all its proofs.
    type: int
    default: 60
  window:
    description: Seconds for which it must go on doing so. V(0) makes one good look enough.
    type: int
    default: 10
  since:
    description: The journal is looked at, and shown, from here, in seconds since the epoch. Without it, V(log) looks
      from now on.
    type: float
  required:
    description: Whether a service that isn't healthy fails the task. Otherwise RV(services) tells it.
    type: bool
    default: true
  component:
    description:
      - The component whose step is being verified. It must be among O(targets). The host's state then tells whether the
        probe has passed, for which version, and which process it looked at. A step is confirmed only with that.
      - Without it nothing is recorded.
    type: str
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
attributes:
  diff_mode:
    support: none
    details:
      - A probe changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Prove that node_exporter 1.9.0 runs and serves
  observability.stack.health_probe:
    targets:
      - component: node_exporter
        unit: node_exporter.service
        binary: /usr/local/bin/node_exporter
        url: http://127.0.0.1:9100
        version: 1.9.0
        probes:
          - kind: systemd
          - kind: process
          - kind: http
            path: /metrics
          - kind: build_info
            path: /metrics
            metrics:
              - metric: node_exporter_build_info
                label: version
        proofs:
          - kind: samples
            path: /metrics
  become: true

- name: Prove that Prometheus scrapes what it scraped before, with a login
  observability.stack.health_probe:
    targets:
      - component: prometheus
        unit: prometheus.service
        binary: /usr/local/bin/prometheus
        url: https://127.0.0.1:9090
        auth:
          user: probe
          password_file: /etc/prometheus/probe.password
        deadline_grows:
          path: /var/lib/prometheus/wal
          seconds_per_gb: 60
        proofs:
          - kind: json_kept
            path: /api/v1/targets?state=active
            items: data.activeTargets
            where:
              health: up
  become: true
"""

RETURN = r"""
services:
  description: What became of each service.
  returned: always
  type: list
  elements: dict
  contains:
    component:
      description: Name of the component.
      type: str
    healthy:
      description: Whether it has proven to be healthy.
      type: bool
    ready_after:
      description: Seconds until it first satisfied all its probes; none if it never did.
      type: float
    reason:
      description: Why it isn't healthy.
      type: str
    verdicts:
      description: For each C(probe), whether it holds (C(ok)), what it has C(seen) last, and what is C(wanted).
      type: list
      elements: dict
    journal:
      description: The last lines of the journal of a service that isn't healthy, without secrets.
      type: list
      elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _baseline, _health, _lease, _process, _store
from ..module_utils._command import run
from ..module_utils._errors import HostError, InputError
from ..module_utils._module import arguments, run_module
from ..module_utils._probes import FIELDS, complete
from ..module_utils._state import TOUCHED, check_key, check_name

_LATER = 30.0
"""Seconds for a look that begins just in time, and for reading the journal."""


def probe(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    targets, times = params["targets"], {"timeout": params["timeout"], "window": params["window"]}
    for target in targets:
        _check(target)
    if params["component"] and params["component"] not in [target["component"] for target in targets]:
        raise InputError(
            f"component is {params['component']}, which is none of the targets: a probe of another component doesn't "
            "verify its step. Name it among the targets, or leave component out",
            key="probe.component",
        )
    growth = [_health.grown_by(target) for target in targets]
    _record(module, seconds=_health.longest(targets, growth, **times) + _LATER)
    found = _health.wait(run, targets, since=params["since"], before=_before(module), growth=growth, **times)
    _record(module, seconds=0, found=found)
    services = [{key: value for key, value in health._asdict().items() if key != "main_pid"} for health in found]
    sick = [health for health in found if not health.healthy]
    if sick and params["required"]:
        raise HostError(
            "; ".join(f"{health.component} isn't healthy: {health.reason}" for health in sick),
            key="health.failed",
            details={"services": services},
        )
    return {"changed": False, "services": services}


def _check(target: dict[str, t.Any]) -> None:
    """Refuse names and probes that can't be meant, before anything is asked."""
    for name in target["component"].split(" -> "):  # that of an integration check names both of its components
        check_key(name)
    if target["version"] is not None:
        check_name("version", target["version"])
    for one in [*target["probes"], *target["proofs"]]:
        try:
            complete(one)
        except InputError as exc:
            raise InputError(f"{target['component']}: {exc}", key=exc.key) from None


def _before(module: AnsibleModule) -> list[dict[str, t.Any] | None]:
    """What the probes of each target saw before this upgrade touched it, if that is known."""
    layout = _store.Layout(module.params["state_dir"])
    upgrade_id = (module.params["run"] or {}).get("upgrade_id", "")
    kept = [_baseline.read(layout, target["component"], upgrade_id=upgrade_id) for target in module.params["targets"]]
    return [each["seen"] if each else None for each in kept]


def _record(module: AnsibleModule, *, seconds: float, found: t.Sequence[_health.Health] = ()) -> None:
    """Note that the component is being verified or, with what was found, whether it is, and by which process; and renew
    the lease.

    :param seconds: how long the probes may take from now.
    """
    params = module.params
    if not params["component"] or module.check_mode:
        return
    lease_seconds = seconds + _lease.LEASE_SECONDS
    with _store.session(params["state_dir"], run=params["run"], lease_seconds=lease_seconds) as session:
        document = session.document
        if document.component(params["component"])["state"] in TOUCHED:
            document.set_component(params["component"], "verifying", now=session.now)
        elif not document.is_confirmed_again(params["component"]):
            return
        if found:
            _note_result(params, session, found)
        if len(document.pending()) == 1:
            document.advance("VALIDATING", now=session.now)
        session.save()


def _note_result(params: dict[str, t.Any], session: _store.Session, found: t.Sequence[_health.Health]) -> None:
    """Record what the probe has shown of the component: it passes only if all targets are healthy, and the process that
    was healthy runs still. That the last one has shown the same is no change."""
    name = params["component"]
    target, health = next(pair for pair in zip(params["targets"], found) if pair[0]["component"] == name)
    result: dict[str, t.Any] = {"passed": all(each.healthy for each in found), "version": target["version"]}
    if result["passed"] and health.main_pid:
        try:
            result.update(_process.identity(health.main_pid))
        except OSError:
            result["passed"] = False
    last = session.document.component(name).get("probe") or {}
    if {**last, "at": None} != {**result, "unit": target["unit"], "at": None}:
        probe = {**result, "unit": target["unit"], "at": session.now}
        session.document.set_component(name, session.document.component(name)["state"], now=session.now, probe=probe)


_REQUEST = {"path": {"type": "str", "required": True}}
_PROBE: dict[str, t.Any] = {
    "kind": {"type": "str", "required": True, "choices": list(FIELDS)},
    "name": {"type": "str"},
    "path": {"type": "str"},
    "status": {"type": "list", "elements": "int"},
    "text": {"type": "str"},
    "json": {"type": "dict"},
    "metrics": {"type": "list", "elements": "dict"},
    "address": {"type": "str"},
    "socket": {"type": "path"},
    "metric": {"type": "str"},
    "labels": {"type": "dict"},
    "only_where": {"type": "dict"},
    "method": {"type": "str"},
    "min": {"type": "float"},
    "max": {"type": "float"},
    "least": {"type": "float"},
    "items": {"type": "str"},
    "where": {"type": "dict"},
    "each": {"type": "str"},
    "query": {"type": "str"},
    "kept": {"type": "bool"},
    "patterns": {"type": "list", "elements": "str"},
    "allow": {"type": "list", "elements": "str"},
    "most": {"type": "int"},
    "rss_most": {"type": "float"},
    "fds_most": {"type": "float"},
    "cpu_most": {"type": "float"},
    "argv": {"type": "list", "elements": "str"},
    "engine": {"type": "str"},
    "defaults_file": {"type": "path"},
    "user": {"type": "str"},
    "container": {"type": "str"},
    "send": {
        "type": "dict",
        "options": {
            **_REQUEST,
            "body": {"type": "str", "required": True},
            "type": {"type": "str", "default": "application/json"},
        },
    },
    "read": {"type": "dict", "options": _REQUEST},
}
"""What a probe may have. Which of it a kind needs, C(complete) knows."""

_TARGET: dict[str, t.Any] = {
    "component": {"type": "str", "required": True},
    "unit": {"type": "str", "required": True},
    "binary": {"type": "path", "required": True},
    "url": {"type": "str", "required": True},
    "version": {"type": "str"},
    "auth": {
        "type": "dict",
        "options": {
            "user": {"type": "str"},
            "password_file": {"type": "path", "no_log": False},
            "token_file": {"type": "path", "no_log": False},
            "client_cert": {"type": "path"},
            "client_key": {"type": "path", "no_log": False},
            "ca": {"type": "path"},
        },
    },
    "deadline_grows": {
        "type": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "seconds_per_gb": {"type": "float", "required": True},
        },
    },
    "probes": {
        "type": "list",
        "elements": "dict",
        "default": [{"kind": "systemd"}, {"kind": "process"}],
        "options": _PROBE,
    },
    "proofs": {"type": "list", "elements": "dict", "default": [], "options": _PROBE},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            targets={"type": "list", "elements": "dict", "required": True, "options": _TARGET},
            timeout={"type": "int", "default": 60},
            window={"type": "int", "default": 10},
            since={"type": "float"},
            required={"type": "bool", "default": True},
            component={"type": "str"},
        ),
        supports_check_mode=True,
    )
    run_module(module, probe)


if __name__ == "__main__":
    main()
