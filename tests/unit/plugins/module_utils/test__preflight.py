# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _preflight
from ansible_collections.observability.stack.plugins.module_utils._obstacles import (
    NewerFile,
    Target,
    UnitChange,
    versioned_part,
)
from ansible_collections.observability.stack.plugins.module_utils._preflight import (
    Facts,
    Listener,
    Need,
    Place,
    Service,
)
from ansible_collections.observability.stack.plugins.module_utils._unit_changes import Difference

if t.TYPE_CHECKING:
    from ansible_collections.observability.stack.tests.unit.support import Data

MIB = 1 << 20
STATE = "/var/lib/upgrades"
PLACE = Place(device=1, mount="/var", free=1000 * MIB, inodes=100_000, noexec=False)
GOOD = Service(
    component="prometheus",
    unit="prometheus.service",
    binary="/usr/local/bin/prometheus",
    url="http://127.0.0.1:9090",
    start_limit=(5, "10s"),
    stop_timeout=90.0,
    rss=100 * MIB,
    architectures=("amd64", "amd64"),
    listeners=(Listener(42, "prometheus", own=True),),
)
HOST = Facts(
    services=(GOOD,),
    needs=(Need(STATE, 100 * MIB, "restore points"),),
    places={STATE: PLACE},
    executed_in=STATE,
    memory=500 * MIB,
    kernel="x86_64",
    now=(2026, 1_790_000_000.0),
    newest=("2026-09-21T14:13:20Z", 1_790_000_000.0),
    synchronised=True,
)


def of_host(**changes: t.Any) -> Facts:
    return HOST._replace(**changes)


def of_service(**changes: t.Any) -> Facts:
    return HOST._replace(services=(GOOD._replace(**changes),))


def place(**changes: t.Any) -> Facts:
    return of_host(places={STATE: PLACE._replace(**changes)})


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("http: 503", "see journalctl -u "),
        ("http: refused; but x.service is active and listens at :: port 9200", "see which address its unit"),
        ("http: it asks for a client certificate (X)", "set upgrade_overrides: {prometheus: {auth: {client_cert: FILE"),
    ],
)
def test_the_journal_is_named_only_where_the_question_was_right(reason: str, fix: str) -> None:
    found = _preflight.findings(of_service(unhealthy=reason))
    assert next(each["fix"] for each in found if each["key"] == "prometheus.unhealthy").startswith(fix)


def test_a_good_host_has_no_findings() -> None:
    assert _preflight.findings(HOST) == []


def test_nothing_known_is_nothing_found() -> None:
    unknown = Service("loki", "loki.service", "/usr/bin/loki", "http://127.0.0.1:3100")
    assert _preflight.findings(Facts()) == []
    assert _preflight.findings(Facts(services=(unknown,), needs=HOST.needs)) == []


def target(**changes: t.Any) -> Facts:
    path = "/opt/p/prometheus"
    return of_host(targets=(Target("prometheus", path, path)._replace(**changes),))


OTHER = (Listener(7, "nc", own=False),)
CASES: dict[str, tuple[Facts, str, str, str]] = {
    "space": (place(free=119 * MIB), "host.space", "blocker", "/var has 119 MiB free, but 120 MiB are needed"),
    "inodes": (place(inodes=20), "host.inodes", "blocker", "room for 20 more files"),
    "noexec": (place(noexec=True), "host.noexec", "blocker", "/var is mounted noexec"),
    "read-only": (of_host(unwritable={STATE: "Read-only file system"}), "host.not_writable", "blocker", "Read-only"),
    "year": (of_host(now=(1970, 100.0)), "host.clock", "blocker", "in the year 1970"),
    "before": (of_host(now=(2026, 1_789_999_000.0)), "host.clock", "blocker", "before the newest entry"),
    "ntp": (of_host(synchronised=False), "host.clock_not_synchronised", "warning", "isn't synchronised"),
    "locked": (of_host(holder="upgrade u2 of eve"), "host.locked", "blocker", "held by upgrade u2 of eve"),
    "mirror": (of_host(unreachable={"http://m/a": "refused"}), "host.unreachable", "blocker", "can't be had"),
    "selinux": (of_host(selinux=True), "host.selinux", "info", "SELinux is enforcing"),
    "memory": (of_host(memory=99 * MIB), "prometheus.memory", "warning", "100 MiB of memory, and 99 MiB are available"),
    "foreign": (
        of_service(architectures=("arm64", "amd64")),
        "prometheus.architecture",
        "blocker",
        "made for arm64, which this kernel (x86_64) doesn't run",
    ),
    "other": (of_service(architectures=("386", "amd64")), "prometheus.architecture", "warning", "made for amd64"),
    "sick": (of_service(unhealthy="http: 503"), "prometheus.unhealthy", "blocker", "before anything was done to it"),
    "stopped": (of_service(unhealthy="x", stopped=True), "prometheus.not_running", "blocker", "is stopped"),
    "cut off": (of_service(unhealthy="x", unsettled=True), "prometheus.unhealthy", "info", "isn't healthy"),
    "restarts": (of_service(restarts=4), "prometheus.restarted", "warning", "4 times"),
    "limit hit": (of_service(result="start-limit-hit"), "prometheus.start_limit_hit", "warning", "too often"),
    "limit": (of_service(start_limit=(1, "10s")), "prometheus.start_limit", "info", "only once within 10s"),
    "slow stop": (of_service(stop_timeout=600.0), "prometheus.slow_stop", "info", "up to 600 s"),
    "package": (
        of_service(package={"manager": "apt", "name": "prometheus"}),
        "prometheus.package_owned",
        "blocker",
        "belongs to the package prometheus",
    ),
    "pending": (of_service(restart_pending=True), "prometheus.restart_pending", "warning", "a restart was lost"),
    "catch up": (
        of_service(restart_pending=True, restart_only=True),
        "prometheus.restart_pending",
        "info",
        "a restart was lost",
    ),
    "port": (of_service(listeners=OTHER), "prometheus.port_taken", "blocker", "process 7 (nc) listens at http://127"),
    "unit changed": (
        of_service(change=UnitChange("changed", (), (Difference("ExecStart", "", "--collector.not-there"),))),
        "prometheus.unit_changed",
        "blocker",
        "The upgrade would activate it: ExecStart: loaded (none), on disk --collector.not-there",
    ),
    "drop-in added": (
        of_service(change=UnitChange("changed", ("/etc/systemd/system/prometheus.service.d/a.conf was added",))),
        "prometheus.unit_changed",
        "blocker",
        "a.conf was added; no difference is seen in the settings that can be compared",
    ),
    "masked": (of_service(change=UnitChange("masked")), "prometheus.unit_changed", "blocker", "is masked, and its"),
    "gone": (of_service(change=UnitChange("gone")), "prometheus.unit_changed", "blocker", "its unit file was removed"),
    "generated": (
        of_service(change=UnitChange("changed", generated=True)),
        "prometheus.unit_changed",
        "warning",
        "no difference",
    ),
    "can't start": (
        of_service(cannot_start=("its user prom is not known",)),
        "prometheus.cannot_start",
        "blocker",
        "its user prom is not known",
    ),
    "unit newer": (of_service(newer=(NewerFile("unit", "/u"),)), "prometheus.unit_newer", "warning", "(/u)"),
    "started otherwise": (
        of_service(newer=(NewerFile("unit", "/u"),), started_otherwise=(Difference("ExecStart", "--a", ""),)),
        "prometheus.unit_newer",
        "blocker",
        "ExecStart: the process has --a, the unit (none)",
    ),
    "environment": (
        of_service(newer=(NewerFile("environment", "/etc/default/p"),)),
        "prometheus.environment_newer",
        "warning",
        "/etc/default/p was changed after the process",
    ),
    "config newer": (
        of_service(newer=(NewerFile("config", "/etc/p.yml"),)),
        "prometheus.config_newer",
        "warning",
        "/etc/p.yml was changed after prometheus last loaded it",
    ),
    "state not written": (
        of_service(unwritten=("/var/lib/p/nflog",)),
        "prometheus.state_unwritten",
        "info",
        "has not written /var/lib/p/nflog yet",
    ),
    "restored unit": (of_service(restored_unit="/run/x.conf"), "prometheus.unit_restored", "warning", "by /run/x.conf"),
    "immutable": (
        target(attributes=("immutable",)),
        "prometheus.protected",
        "blocker",
        "/opt/p/prometheus has the attribute immutable",
    ),
    "append-only directory": (
        target(directory_attributes=("append-only",)),
        "prometheus.protected",
        "blocker",
        "/opt/p has the attribute append-only",
    ),
    "bind mount": (target(mount="ext4 /dev/sda1, /x"), "prometheus.mounted", "blocker", "is a mount of its own"),
    "noexec target": (target(noexec="/opt"), "prometheus.noexec", "blocker", "/opt is mounted noexec"),
    "capabilities": (target(lost=("file capabilities",)), "prometheus.privileges_lost", "warning", "file capabilities"),
    "link": (target(link="/opt/x"), "prometheus.link_replaced", "info", "a symbolic link to /opt/x. The upgrade puts"),
    "hard links": (target(names=2), "prometheus.hard_links", "warning", "2 names (hard links)"),
    "diverted": (target(diverted="dpkg-divert moves it"), "prometheus.diverted", "info", "dpkg-divert moves it"),
    "versioned": (
        target(real="/opt/p-2.42.0.linux-amd64/prometheus", versions=("2.42.0", "2.53.3")),
        "prometheus.versioned_path",
        "warning",
        "/opt/p-2.42.0.linux-amd64/prometheus (behind /opt/p/prometheus) will hold version 2.53.3, though "
        "/opt/p-2.42.0.linux-amd64 is named after version 2.42.0",
    ),
    "nobody": (of_service(listeners=()), "prometheus.port", "info", "nothing is seen to listen"),
}


@pytest.mark.parametrize(("facts", "key", "severity", "says"), CASES.values(), ids=CASES)
def test_a_check_finds(facts: Facts, key: str, severity: str, says: str) -> None:
    (found,) = _preflight.findings(facts)
    assert (found["key"], found["severity"]) == (key, severity)
    assert says in found["message"]
    assert found["fix"]
    assert found["component"] == (None if key.startswith("host.") else "prometheus")
    assert set(found) == {"key", "severity", "component", "message", "evidence", "fix"}


def test_every_check_is_tried_above() -> None:
    tried = {one["key"].partition(".")[2] for facts, *_rest in CASES.values() for one in _preflight.findings(facts)}
    assert len(tried) >= len(_preflight.HOST_CHECKS) + len(_preflight.SERVICE_CHECKS)


@pytest.mark.parametrize(
    "facts",
    [
        of_service(listeners=(*OTHER, Listener(42, "prometheus", own=True))),
        of_service(start_limit=(1, "0")),
        of_service(start_limit=(0, "10s")),
        of_host(now=(2026, 1_789_999_950.0)),
        of_host(newest=None),
        of_host(kernel="novel"),
        place(inodes=None),
        of_host(memory=100 * MIB),
        place(free=120 * MIB),
    ],
)
def test_what_is_good_enough(facts: Facts) -> None:
    assert _preflight.findings(facts) == []


def test_an_accepted_blocker_is_a_warning() -> None:
    facts = of_host(unreachable={"http://m/a": "refused"}, selinux=True)
    found = _preflight.findings(facts, ["host.unreachable", "host.selinux"])
    assert [one["severity"] for one in found] == ["accepted", "info"]
    assert _preflight.blockers(found) == []


def test_one_line_names_each_blocker_with_its_fix() -> None:
    found = _preflight.findings(of_service(unhealthy="http: 503", restarts=2)._replace(holder="upgrade u2"))
    assert _preflight.refusal(found) == (
        "host.locked: this host is held by upgrade u2 (to do: wait for it to end; if it is dead, run the playbook "
        "unlock); prometheus.unhealthy: prometheus isn't healthy before anything was done to it: http: 503 (to do: see "
        "journalctl -u prometheus.service)"
    )


# -- what the steps take ------------------------------------------------------------------------------------------


def step(key: str = "prometheus@3.5.3", **changes: t.Any) -> Data:
    return {
        "key": key,
        "component": key.partition("@")[0],
        "stage": {"url": "http://m/x"},
        "files": [
            {"name": "prometheus", "dest": "/usr/local/bin/prometheus"},
            {"name": "promtool", "dest": "/usr/local/bin/promtool"},
        ],
        "keep": {"unit": ["/etc/p.service"], "config": [], "state": ["/data/p.db"]},
        **changes,
    }


MEASURED = {"/usr/local/bin/prometheus": 60, "/usr/local/bin/promtool": 40, "/etc/p.service": 1, "/data/p.db": 500}


def needed(*steps: Data, sizes: t.Mapping[str, int] | None = None, fetches: bool = False) -> dict[tuple[str, str], int]:
    found = _preflight.needs(steps, sizes or {}, MEASURED, state_dir=STATE, temporary="/remote", fetches=fetches)
    return {(need.path, need.what.partition(" of ")[0]): need.size for need in found}


def test_an_archive_of_known_size_tells_what_its_candidate_takes() -> None:
    assert needed(step(), sizes={"prometheus@3.5.3": 70}) == {
        ("/remote", "the archive"): 70,
        (STATE, "the candidate"): 280,
        ("/usr/local/bin", "the new files"): 280,
        (STATE, "restore points"): 601,
    }


def test_otherwise_the_files_in_place_tell_it() -> None:
    assert needed(step(), fetches=True) == {
        (STATE, "the archive"): 50,
        (STATE, "the candidate"): 200,
        ("/usr/local/bin", "the new files"): 200,
        (STATE, "restore points"): 601,
    }


def test_candidates_follow_each_other_and_restore_points_stay() -> None:
    sizes = {"prometheus@2.53.3": 10, "prometheus@3.5.3": 20}
    found = needed(step("prometheus@2.53.3"), step("prometheus@3.5.3"), sizes=sizes)
    assert (found[STATE, "the candidate"], found[STATE, "restore points"]) == (80, 1202)


def test_each_directory_gets_its_share() -> None:
    files = [{"name": "prometheus", "dest": "/usr/local/bin/prometheus"}, {"name": "p.db", "dest": "/data/p.db"}]
    found = needed(step(files=files, keep={}), sizes={"prometheus@3.5.3": 140})
    assert (found["/usr/local/bin", "the new files"], found["/data", "the new files"]) == (60, 500)


def test_a_restart_takes_a_restore_point_only() -> None:
    assert needed(step(stage=None)) == {(STATE, "restore points"): 601}
    assert needed() == {}


def test_what_is_on_one_file_system_is_added_up() -> None:
    needs = (Need(STATE, 50 * MIB, "a"), Need("/usr/local/bin", 40 * MIB, "b"), Need("/remote", 30 * MIB, "c"))
    root = PLACE._replace(free=100 * MIB)
    facts = of_host(needs=needs, places={STATE: root, "/usr/local/bin": root, "/remote": PLACE._replace(device=2)})
    (found,) = _preflight.findings(facts)
    assert found["evidence"]["needed"] == 108 * MIB
    assert "50 MiB for a in /var/lib/upgrades, 40 MiB for b in /usr/local/bin, and a fifth more" in found["message"]
    assert found["fix"].startswith("free 8 MiB at /var")


@pytest.mark.parametrize(
    ("size", "text"), [(5, "5 B"), (2048, "2 KiB"), (3 * MIB, "3 MiB"), (5 << 29, "2.5 GiB"), (5 << 40, "5120.0 GiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert _preflight.shown(size) == text


@pytest.mark.parametrize(
    ("path", "version", "part"),
    [
        ("/opt/p-2.42.0/bin/prometheus", "2.42.0", "/opt/p-2.42.0"),
        ("/opt/p-2.42.0/bin-2.42.0/prometheus", "2.42.0", "/opt/p-2.42.0/bin-2.42.0"),
        ("/usr/local/bin/prometheus-2.42.0", "2.42.0", "/usr/local/bin/prometheus-2.42.0"),
        ("/opt/v2.42.0/prometheus", "2.42.0", "/opt/v2.42.0"),
        ("/opt/p-2.42.0.linux-amd64/prometheus", "2.42.0", "/opt/p-2.42.0.linux-amd64"),
        ("/opt/p-12.42.0/prometheus", "2.42.0", ""),
        ("/opt/p-2.42.0.1/prometheus", "2.42.0", ""),
        ("/opt/p-2.42.01/prometheus", "2.42.0", ""),
        ("/opt/prometheus/prometheus", "2.42.0", ""),
        ("/opt/p-2.42.0/prometheus", "", ""),
    ],
)
def test_the_part_of_a_path_that_names_a_version(path: str, version: str, part: str) -> None:
    assert versioned_part(path, version) == part


def test_a_path_that_names_the_new_version_is_no_finding() -> None:
    versions = ("2.42.0", "2.53.3")
    assert _preflight.findings(target(real="/opt/p-2.42.0-to-2.53.3/prometheus", versions=versions)) == []
    linked = target(link="/opt/p-2.42.0/prometheus", real="/usr/bin/prometheus", versions=versions)
    assert [one["key"] for one in _preflight.findings(linked)] == ["prometheus.link_replaced"]
