# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _discovery, _process, _systemd
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog
from ansible_collections.observability.stack.tests.unit.support import Systemd, write_elf, write_program

Data = dict[str, t.Any]
Add = t.Callable[..., None]
CATALOG = _catalog.load()
ID = "4f" * 32
GROUP = "0::/system.slice/{}"


class Layout:
    """A host that is made row by row. ``{root}`` in a text is the directory of its files."""

    def __init__(self, root: pathlib.Path, systemd: Systemd, proc: Add) -> None:
        self.root, self.systemd, self._proc = root, systemd, proc

    def fill(self, text: str) -> str:
        return text.replace("{root}", str(self.root))

    def elf(self, *paths: str) -> None:
        for path in paths:
            write_elf(self.root / path)

    def script(self, path: str) -> None:
        write_program(self.root / path)

    def unit(self, name: str, start: str, *, pid: int = 0, text: str | None = None, **properties: t.Any) -> None:
        self.systemd.add(name, *self.fill(start).split(), pid=pid, **properties)
        (self.systemd.directory / name).write_text(f"[Service]\nExecStart={self.fill(text or start)}\n")

    def process(self, pid: int, argv: str, exe: str, unit: str = "", **more: t.Any) -> None:
        group = {"group": GROUP.format(unit)} if unit else {}
        self._proc(pid, self.fill(argv), exe=self.fill(exe), **{**group, **more})

    def found(self, name: str = "node_exporter", **changes: t.Any) -> list[Data]:
        """What is found of a component: unit, pid, program and the key of its obstacle, as far as there are any."""
        specs = {name: {**CATALOG[name], **changes}}
        host = _discovery.Host(self.systemd, specs, places=[f"{self.root}/usr/local/bin"])
        return [
            {
                "unit": each.unit and each.unit.name,
                "pid": each.process and each.process.pid,
                "program": each.program.replace(str(self.root), "{root}"),
                "obstacle": each.obstacle and each.obstacle.key,
                **({} if each.certain else {"certain": False}),
            }
            for each in host.candidates(name)
        ]


@pytest.fixture
def layout(tmp_path: pathlib.Path, systemd: Systemd, proc: Add) -> t.Callable[[], Layout]:
    root = tmp_path / "root"
    root.mkdir()
    return lambda: Layout(root, systemd, proc)


def one(unit: str | None, pid: int | None, program: str, obstacle: str | None = None, **more: t.Any) -> list[Data]:
    return [{"unit": unit, "pid": pid, "program": program, "obstacle": obstacle, **more}]


NE, UNIT = "{root}/bin/node_exporter", "node_exporter.service"

# Layouts of a unit with a catalog's name whose program is at bin/node_exporter: what it starts, its processes as
# (pid, argv, exe), its main process, and what is found.
STARTS: dict[str, tuple[str, list[tuple[int, str, str]], int, list[Data]]] = {
    "plain": (f"{NE} --a", [(9, f"{NE} --a", NE)], 9, one(UNIT, 9, NE)),
    "a script that execs": ("{root}/start.sh", [(9, "./node_exporter", NE)], 9, one(UNIT, 9, NE)),
    "a script that waits": (
        "{root}/start.sh",
        [(9, "/bin/sh {root}/start.sh", "/bin/dash"), (10, f"{NE} --a", NE)],
        9,
        one(UNIT, 10, NE),
    ),
    "sh -c": (
        f"/bin/sh -c umask 027 && {NE}",
        [(9, "/bin/sh -c x", "/bin/dash"), (10, f"{NE}", NE)],
        9,
        one(UNIT, 10, NE),
    ),
    "sh -c with logger": (
        f"/bin/sh -c {NE} | logger",
        [(9, "/bin/sh -c x", "/bin/dash"), (11, "logger", "/usr/bin/logger"), (10, NE, NE)],
        9,
        one(UNIT, 10, NE),
    ),
    "start-stop-daemon": (
        f"/sbin/start-stop-daemon --start --exec {NE} -- --a",
        [(9, f"{NE} --a", NE)],
        9,
        one(UNIT, 9, NE),
    ),
    "runuser that waits": (
        f"/sbin/runuser -u prom -- {NE}",
        [(9, "/sbin/runuser -u prom", "/usr/sbin/runuser"), (10, NE, NE)],
        9,
        one(UNIT, 10, NE),
    ),
    "the program replaced, and the script still runs the old one": (
        "{root}/start.sh",
        [(9, NE, f"{NE} (deleted)")],
        9,
        one(UNIT, 9, NE),
    ),
    "the old program moved aside": (f"{NE}", [(9, NE, f"{NE}.old")], 9, one(UNIT, 9, NE)),
    "another program": ("/usr/bin/sleep 9", [(9, "/usr/bin/sleep 9", "/usr/bin/sleep")], 9, None),
    "a docker client": (
        "/usr/bin/docker run --rm prom/node-exporter",
        [(9, "/usr/bin/docker run", "/usr/bin/docker")],
        9,
        one(UNIT, None, "", "container"),
    ),
    "a docker client in a shell": (
        "/bin/sh -c docker run prom/node-exporter",
        [(9, "/bin/sh -c x", "/bin/dash"), (10, "docker run", "/usr/bin/docker")],
        9,
        one(UNIT, None, "", "container"),
    ),
    "a docker client that does not run": (
        f"/usr/bin/podman run -v {NE}:{NE} img {NE}",
        [],
        0,
        one(UNIT, None, "", "container"),
    ),
    "docker-compose": (
        "/usr/local/bin/docker-compose up node_exporter",
        [(9, "docker-compose up", "/usr/local/bin/docker-compose")],
        9,
        one(UNIT, None, "", "container"),
    ),
    "a snap": (
        "/usr/bin/snap run node-exporter",
        [],
        0,
        one(UNIT, None, "", "snap"),
    ),
    "a stopped script": ("{root}/start.sh", [], 0, one(UNIT, None, "", "wrapper")),
    "a stopped shell that names it": (f"/bin/sh -c exec {NE} --a", [], 0, one(UNIT, None, NE)),
    "a stopped chroot": ("/usr/sbin/chroot /srv /bin/node_exporter", [], 0, one(UNIT, None, "", "wrapper")),
    "a program that is gone": ("{root}/gone/node_exporter", [], 0, one(UNIT, None, "", "no_program")),
    "a process that root may not look into": (f"{NE} --a", [(9, f"{NE} --a", "")], 9, one(UNIT, 9, NE)),
    "a script, and a process that root may not look into": (
        "{root}/start.sh",
        [(9, f"{NE} --a", "")],
        9,
        one(UNIT, 9, "", "hidden"),
    ),
}


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in STARTS.items()])
def test_of_a_unit_its_processes_tell_the_program(
    layout: t.Callable[[], Layout], row: tuple[str, list[tuple[int, str, str]], int, list[Data]]
) -> None:
    start, processes, main, expected = row
    host = layout()
    host.elf("bin/node_exporter", "bin/node_exporter.old")
    host.script("start.sh")
    for pid, argv, exe in processes:
        host.process(pid, argv, exe, UNIT)
    host.unit(UNIT, start, pid=main)
    found = host.found()
    # of another program only evidence other than its name can tell; see C(_evidence.py)
    assert found == (expected or one(UNIT, 9, "/usr/bin/sleep", certain=False))


def test_a_script_with_the_name_of_the_program_is_not_the_program(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.script("bin/node_exporter")
    host.elf("lib/node_exporter")
    host.unit(UNIT, "{root}/bin/node_exporter --a", pid=9)
    host.process(9, "{root}/bin/node_exporter --a", "{root}/lib/node_exporter", UNIT)
    assert host.found() == one(UNIT, 9, "{root}/lib/node_exporter")


def test_a_script_with_the_name_of_the_program_that_starts_a_container_is_one(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.script("bin/node_exporter")
    host.unit(UNIT, "{root}/bin/node_exporter", pid=9)
    host.process(9, "/bin/sh {root}/bin/node_exporter", "/bin/dash", UNIT)
    host.process(10, "/usr/bin/docker run x", "/usr/bin/docker", UNIT, parent=9)
    assert host.found() == one(UNIT, None, "", "container")


def test_an_interpreted_program_is_its_script(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.script("bin/node_exporter")
    host.unit(UNIT, "{root}/bin/node_exporter", pid=9)
    host.process(9, "/usr/bin/python3 {root}/bin/node_exporter", "/usr/bin/python3.11", UNIT)
    assert host.found() == one(UNIT, 9, NE)


def test_a_link_that_the_process_was_called_by_stays_one(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("opt/node_exporter-1.5.0/node_exporter")
    (host.root / "bin").mkdir()
    (host.root / "bin/node_exporter").symlink_to(host.root / "opt/node_exporter-1.5.0/node_exporter")
    host.script("start.sh")
    host.unit(UNIT, "{root}/start.sh", pid=9)
    host.process(9, NE, "{root}/opt/node_exporter-1.5.0/node_exporter", UNIT)
    assert host.found() == one(UNIT, 9, NE)


def test_what_a_process_calls_itself_is_no_evidence_of_its_file(layout: t.Callable[[], Layout]) -> None:
    """A service can give its process any command line. Which file it runs, the kernel says."""
    host = layout()
    host.elf("bin/node_exporter", "srv/node_exporter")
    host.script("start.sh")
    host.unit(UNIT, "{root}/start.sh", pid=9)
    host.process(9, NE, "{root}/srv/node_exporter", UNIT)
    assert host.found() == one(UNIT, 9, "{root}/srv/node_exporter")


@pytest.mark.parametrize(
    "name", ["node_exporter-1.5.0", "node_exporter-1.5.0.linux-amd64", "node_exporter_v1.5.0", "node_exporter.bin"]
)
def test_a_program_may_have_a_version_in_its_name(layout: t.Callable[[], Layout], name: str) -> None:
    host = layout()
    host.elf(f"bin/{name}")
    host.unit("mon.service", f"{{root}}/bin/{name}")
    assert host.found() == one("mon.service", None, f"{{root}}/bin/{name}")


@pytest.mark.parametrize("name", ["node_exporter_wrapper", "node_exporter-textfile", "my_node_exporter"])
def test_a_longer_name_is_another_one(layout: t.Callable[[], Layout], name: str) -> None:
    host = layout()
    host.elf(f"bin/{name}")
    host.unit("mon.service", f"{{root}}/bin/{name}", pid=9)
    host.process(9, f"{{root}}/bin/{name}", f"{{root}}/bin/{name}", "mon.service")
    assert host.found() == []


# -- which unit -----------------------------------------------------------------------------------------------------


def test_a_unit_of_any_name_is_found_by_its_process(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("srv/prom/prometheus")
    host.script("run")
    host.unit("prometheus-server.service", "{root}/run", pid=9)
    host.process(9, "./prometheus --x", "{root}/srv/prom/prometheus", "prometheus-server.service")
    assert host.found("prometheus", units=["prometheus"]) == one(
        "prometheus-server.service", 9, "{root}/srv/prom/prometheus"
    )


@pytest.mark.parametrize(
    "text",
    [
        NE,
        f"-{NE} --a",
        f"@{NE} node_exporter",
        f'/bin/sh -c "exec {NE} >>/x 2>&1"',
        f"/usr/bin/env A=b \\\n  {NE} \\\n  --a",
        f"/sbin/start-stop-daemon --start --exec={NE}",
    ],
)
def test_a_stopped_unit_of_any_name_is_found_by_what_it_starts(layout: t.Callable[[], Layout], text: str) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    plain = text.lstrip("-@") if text[0] in "-@{" else text.replace('"', "").replace("\\\n", "").replace("=", " ")
    host.unit("mon.service", plain, text=text)
    host.unit("other.service", "/usr/bin/rsync /var/lib/x")
    assert host.found() == one("mon.service", None, NE)


@pytest.mark.parametrize(
    ("start", "properties"),
    [
        ("/usr/bin/rsync /var/lib/node_exporter /backup", {}),
        ("/sbin/runuser -u node_exporter -- /usr/bin/true", {}),
        (f"{NE} --version", {"Type": "oneshot"}),
        ("/usr/bin/docker run node_exporter", {}),
    ],
)
def test_a_unit_that_only_mentions_a_program_is_not_the_component_s(
    layout: t.Callable[[], Layout], start: str, properties: Data
) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit("other.service", start, **properties)
    assert host.found() == []


def test_a_program_without_a_path_is_where_systemd_finds_it(
    layout: t.Callable[[], Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    monkeypatch.setattr(_systemd, "_SEARCH_PATH", ("/nowhere", str(host.root / "bin")))
    host.unit("mon.service", "node_exporter --a")
    assert host.found() == one("mon.service", None, NE)


def test_a_drop_in_counts(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit("mon.service", NE, text="/usr/bin/true")
    (host.systemd.directory / "mon.service.d").mkdir()
    (host.systemd.directory / "mon.service.d/start.conf").write_text(
        host.fill(f"[Service]\nExecStart=\nExecStart={NE}\n")
    )
    assert host.found() == one("mon.service", None, NE)


def test_an_alias_is_the_unit_that_it_stands_for(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    names = {"Id": "ne-site.service", "Names": "ne-site.service node_exporter.service"}
    for name in (UNIT, "ne-site.service"):
        host.unit(name, NE, pid=9, **names)
    host.process(9, NE, NE, "ne-site.service")
    assert host.found() == one("ne-site.service", 9, NE)


def test_units_with_processes_of_the_component_are_its_instances(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    for pid, unit in ((7, "a-second.service"), (8, "node_exporter@b.service"), (9, UNIT)):
        host.unit(unit, NE, pid=pid)
        host.process(pid, NE, NE, unit)
    host.unit("stopped.service", NE)
    found = host.found()
    assert [each["unit"] for each in found] == [UNIT, "node_exporter@b.service", "a-second.service"]


def test_instances_that_are_enabled_are_found_by_the_links_to_their_template(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit("node_exporter@a.service", NE)
    directory = host.systemd.directory
    (directory / "multi-user.target.wants").mkdir()
    (directory / "node_exporter@a.service").rename(directory / "node_exporter@.service")
    (directory / "multi-user.target.wants/node_exporter@a.service").symlink_to(directory / "node_exporter@.service")
    assert host.found() == one("node_exporter@a.service", None, NE)


def test_a_template_without_an_instance_is_told(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    (host.systemd.directory / "node_exporter@.service").touch()
    assert host.found() == one(None, None, "", "template")


@pytest.mark.parametrize(
    ("group", "numbers", "key"),
    [
        ("0::/user.slice/user-0.slice/session-1.scope", None, "no_unit"),
        ("0::/user.slice/user-9.slice/user@9.service/app.slice/node_exporter.service", None, "user_unit"),
        (f"0::/system.slice/docker-{ID}.scope", None, "container"),
        ("0::/elsewhere", "9\t1", "container"),
    ],
)
def test_a_process_that_no_unit_runs_is_told_for_what_it_is(
    layout: t.Callable[[], Layout], group: str, numbers: str | None, key: str
) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.process(9, NE, NE, group=group, numbers=numbers)
    assert host.found() == one(None, 9, "" if key == "container" else NE, key)


def test_a_process_with_another_root_file_system_is_in_a_container(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("other")
    host.process(9, "/bin/node_exporter", "/nowhere/bin/node_exporter", group="0::/x")
    assert host.found() == one(None, 9, "", "container")


def test_the_program_below_a_root_directory_is_where_the_host_has_it(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("srv/ne/usr/bin/node_exporter")
    root = str(host.root / "srv/ne")
    host.unit(UNIT, "/usr/bin/node_exporter --a", RootDirectory=root)
    assert host.found() == one(UNIT, None, "{root}/srv/ne/usr/bin/node_exporter")


def test_a_quadlet_s_container_is_one(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.unit(UNIT, "/usr/bin/podman run --cgroups=split img", pid=9)
    host.process(9, "/usr/bin/conmon", "/usr/bin/conmon", UNIT)
    host.process(10, "/bin/node_exporter", "/bin/node_exporter", f"{UNIT}/libpod-payload-{ID}", numbers="10 1")
    assert host.found() == one(UNIT, None, "", "container")


@pytest.mark.parametrize(
    ("unit", "main", "key"),
    [
        ("supervisor.service", ("/usr/bin/python3 /usr/bin/supervisord -n", "/usr/bin/python3.11"), "supervisor"),
        ("cron.service", ("/usr/sbin/cron -f", "/usr/sbin/cron"), "supervisor"),
        ("runit.service", ("runsvdir -P /etc/service", "/usr/bin/runsvdir"), "supervisor"),
        ("rc-local.service", None, "supervisor"),
        ("mon.service", ("/bin/sh /opt/run.sh", "/bin/dash"), None),
        ("mon.service", ("/sbin/runuser -u x", "/usr/sbin/runuser"), None),
        ("mon.service", ("/bin/sh", ""), None),
        (UNIT, ("/usr/bin/python3 /opt/start.py", "/usr/bin/python3.11"), None),
    ],
)
def test_what_a_supervisor_runs_is_not_that_unit_s_to_restart(
    layout: t.Callable[[], Layout], unit: str, main: tuple[str, str] | None, key: str | None
) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit(unit, "/opt/run.sh", pid=8 if main else 0, active="active")
    if main:
        host.process(8, main[0], main[1], unit)
    host.process(9, NE, NE, unit, parent=8)
    assert host.found() == one(unit, 9, NE, key)


def test_a_script_of_another_project_with_a_component_s_name_is_not_the_component(
    layout: t.Callable[[], Layout],
) -> None:
    """Such as karma, which is a runner of tests, too."""
    host = layout()
    host.script("lib/karma")
    host.unit("ci.service", "/usr/bin/node {root}/x start", pid=9)
    host.process(9, "/usr/bin/node {root}/lib/karma start", "/usr/bin/node", "ci.service")
    assert host.found("karma") == []


def test_a_transient_unit_is_told(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit(UNIT, NE, pid=9, FragmentPath=f"/run/systemd/transient/{UNIT}")
    host.process(9, NE, NE, UNIT)
    assert host.found() == one(UNIT, 9, NE, "transient")


def test_a_unit_of_an_init_script_whose_main_process_is_known_is_one_as_others(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit(UNIT, "/etc/init.d/node_exporter start", pid=9, SourcePath="/etc/init.d/node_exporter")
    host.process(9, NE, NE, UNIT)
    assert host.found() == one(UNIT, 9, NE)


def test_a_flatpak_is_one_though_it_is_contained(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.unit(UNIT, "/usr/bin/flatpak run org.x.node_exporter", pid=8)
    host.process(8, "/usr/bin/flatpak run", "/usr/bin/flatpak", UNIT)
    host.process(9, "/app/bin/node_exporter", "/app/bin/node_exporter", UNIT, numbers="9 2")
    assert host.found() == one(UNIT, None, "", "flatpak")


def test_a_file_that_is_mounted_for_a_unit_alone_is_not_the_host_s(
    layout: t.Callable[[], Layout], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = layout()
    host.elf("bin/node_exporter", "other")
    host.unit(UNIT, NE, pid=9)
    host.process(9, NE, NE, UNIT)
    file_id = _process.file_id
    other = file_id(str(host.root / "other"))
    monkeypatch.setattr(_process, "file_id", lambda path: other if path.endswith("/9/exe") else file_id(path))
    assert host.found() == one(UNIT, 9, NE, "mounted")


def test_a_file_with_a_name_that_systemd_refuses_is_passed_over(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    for name in ("a b.service", "-.service.d", "mon;x.service"):
        (host.systemd.directory / name).write_text(host.fill(f"ExecStart={NE}\n"))
    assert host.found() == []
    assert host.systemd.asked[0][-1] == "--"


@pytest.mark.parametrize("running", [True, False])
def test_a_masked_unit_is_told_with_who_runs_the_program_all_the_same(
    layout: t.Callable[[], Layout], running: bool
) -> None:
    host = layout()
    host.elf("usr/local/bin/node_exporter")
    host.unit(UNIT, "x", LoadState="masked")
    path = "{root}/usr/local/bin/node_exporter"
    if running:
        host.process(9, path, path, group="0::/user.slice/user-0.slice/session-1.scope")
    assert host.found() == one(None, 9 if running else None, path, "masked")


def test_a_masked_unit_that_still_runs_is_told(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit(UNIT, NE, pid=9, LoadState="masked")
    host.process(9, NE, NE, UNIT)
    assert host.found() == one(UNIT, 9, NE, "masked")


def test_a_unit_made_of_an_init_script_is_told(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit(UNIT, "/etc/init.d/node_exporter start", active="active", SourcePath="/etc/init.d/node_exporter")
    host.process(9, NE, NE, UNIT)
    assert host.found() == one(UNIT, 9, NE, "init_script")


@pytest.mark.parametrize("kind", ["oneshot", "forking"])
def test_a_unit_whose_process_systemd_does_not_follow_is_reported(layout: t.Callable[[], Layout], kind: str) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit(UNIT, NE, active="active", Type=kind)
    assert host.found() == one(UNIT, None, NE)  # nothing runs yet, so nothing is missing
    host.process(9, NE, NE, UNIT)
    assert host.found() == one(UNIT, 9, NE, "no_main_process")


@pytest.mark.parametrize(
    ("place", "key"),
    [("/nix/store/abc-node/bin", "nix"), ("/snap/x/1", "snap"), ("/opt/homebrew/bin", "package_manager")],
)
def test_a_program_of_another_package_manager_is_told(
    layout: t.Callable[[], Layout], monkeypatch: pytest.MonkeyPatch, place: str, key: str
) -> None:
    host = layout()
    path = f"{place}/node_exporter".lstrip("/")
    host.elf(path)
    managed = [(str(host.root) + each[0], *each[1:]) for each in _discovery._MANAGED]
    monkeypatch.setattr(_discovery, "_MANAGED", managed)
    (host.root / "bin").mkdir()
    (host.root / "bin/node_exporter").symlink_to(host.root / path)
    host.unit(UNIT, NE, pid=9)
    host.process(9, NE, f"{{root}}/{path}", UNIT)
    assert host.found() == one(UNIT, 9, NE, key)


def test_where_the_operator_names_the_units_no_others_count(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit(UNIT, NE, pid=9)
    host.process(9, NE, NE, UNIT)
    host.unit("site.service", NE)
    assert host.found(units=["absent"], only_units=True) == one(None, 9, NE, "no_unit")
    assert host.found(units=["site"], only_units=True) == one("site.service", None, NE)
    assert host.found(units=["site"]) == one(UNIT, 9, NE)


# -- who else runs the file -----------------------------------------------------------------------------------------


def test_all_others_that_run_the_file_are_told(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter", "opt/node_exporter")
    host.unit(UNIT, NE, pid=7)
    host.process(7, NE, NE, UNIT)
    host.process(8, NE, NE, UNIT, parent=7)
    host.process(9, NE, NE, "ops.service")
    host.process(10, "/bin/ne", NE, group=f"0::/system.slice/docker-{ID}.scope")
    host.process(11, NE, f"{NE} (deleted)", group="0::/x")
    host.process(12, "/opt/node_exporter", "{root}/opt/node_exporter", group="0::/x")
    spec = {"node_exporter": CATALOG["node_exporter"]}
    read = _discovery.Host(host.systemd, spec, places=[])
    shared = read.shared_by(read.candidates("node_exporter")[0])
    assert [(each["unit"], each["pid"], each["container"]) for each in shared] == [
        ("ops.service", 9, False),
        (None, 10, True),
        (None, 11, False),
    ]


def test_one_command_is_run_for_all(layout: t.Callable[[], Layout]) -> None:
    host = layout()
    host.elf("bin/node_exporter")
    host.unit("mon.service", NE)
    _discovery.Host(host.systemd, CATALOG, places=[])
    assert [argv[:2] for argv in host.systemd.asked] == [["systemctl", "show"]]
    assert host.systemd.asked[0][-1] == "mon.service"


def test_no_two_components_have_a_program_of_one_name() -> None:
    names = [name for spec in CATALOG.values() for name in _discovery.program_names(spec)]
    assert len(set(names)) == len(names)


def test_unit_files_are_read_with_their_drop_ins_and_enabled_instances(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (
        "a.service",
        "a.service.d/x.conf",
        "a.service.d/notes",
        "b.timer",
        "t.wants/c@1.service",
        "c@.service",
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", (str(tmp_path), str(tmp_path / "nowhere")))
    assert _systemd.service_files() == {
        "a.service": [f"{tmp_path}/a.service", f"{tmp_path}/a.service.d/x.conf"],
        "c@.service": [f"{tmp_path}/c@.service"],
        "c@1.service": [],
    }
