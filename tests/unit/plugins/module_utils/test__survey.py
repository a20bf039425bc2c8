# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import (
    _command,
    _evidence,
    _process,
    _processes,
    _survey,
)
from ansible_collections.observability.stack.plugins.module_utils._command import Completed
from ansible_collections.observability.stack.plugins.module_utils._errors import HostError
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog
from ansible_collections.observability.stack.tests.unit.support import (
    Answer,
    Systemd,
    Web,
    elf_program,
    outlive_the_tick,
    running,
    sha256,
    write_elf,
    write_program,
)

Data = dict[str, t.Any]
CATALOG = _catalog.load()


@pytest.fixture
def bin_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "opt" / "bin"


@pytest.fixture(autouse=True)
def usual_place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The only usual place for programs: this machine may have some of its own."""
    place = tmp_path / "usual-bin"
    place.mkdir()
    monkeypatch.setattr(_survey, "_USUAL_PLACES", (str(place),))
    return place


def spec(name: str, **changes: t.Any) -> Data:
    """What the catalog says of a component, without the places that this machine may have something at."""
    return {**CATALOG[name], "default_config": None, "default_data": None, **changes}


def survey(
    systemd: Systemd,
    *specs: Data,
    timeout: float = 10,
    checksum: bool = False,
    recorded: _evidence.Known | None = None,
    **components: Data,
) -> dict[str, Data]:
    named = {each["name"]: each for each in specs} | components
    versions = _evidence.Versions(systemd, timeout=timeout, recorded=recorded or {}, state_dir="/nowhere")
    return _survey.Reader(systemd, versions, checksum=checksum).survey(named)


# -- which unit ---------------------------------------------------------------------------------------------------

RUNNING, STOPPED, MASKED = {"pid": 1}, {}, {"LoadState": "masked"}


@pytest.mark.parametrize(
    ("units", "chosen"),
    [
        ({}, None),
        ({"node-exporter": STOPPED}, "node-exporter.service"),
        ({"node-exporter": STOPPED, "node_exporter": STOPPED}, "node_exporter.service"),
        ({"node-exporter": RUNNING, "node_exporter": STOPPED}, "node-exporter.service"),
        ({"node-exporter": RUNNING, "node_exporter": RUNNING}, "node_exporter.service"),
        ({"node-exporter": STOPPED, "node_exporter": MASKED}, "node-exporter.service"),
        ({"node_exporter": MASKED}, None),
        ({"other": RUNNING}, "other.service"),
    ],
    ids=[
        "none",
        "one",
        "the catalog's first",
        "the running one",
        "the first that runs",
        "not masked",
        "masked",
        "other",
    ],
)
def test_of_the_units_a_component_may_have_the_running_one_is_taken(
    systemd: Systemd, bin_dir: pathlib.Path, units: dict[str, Data], chosen: str | None
) -> None:
    program = write_program(bin_dir / "node_exporter")
    for name, state in units.items():
        systemd.add(f"{name}.service", str(program), **state)
    found = survey(systemd, spec("node_exporter"))
    assert found.get("node_exporter", {}).get("unit") == chosen


def test_all_components_are_asked_for_in_one_call_and_only_by_units_that_have_a_file(
    systemd: Systemd, bin_dir: pathlib.Path
) -> None:
    for name in ("prometheus", "node_exporter"):
        systemd.add(f"{name}.service", str(write_program(bin_dir / name)))
    found = survey(systemd, *(spec(name) for name in ("prometheus", "node_exporter", "loki", "alertmanager")))
    assert sorted(found) == ["node_exporter", "prometheus"]
    assert [argv[-2:] for argv in systemd.commands("systemctl")] == [["prometheus.service", "node_exporter.service"]]


def test_an_instance_of_a_template_unit_is_found(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    program = write_program(bin_dir / "prometheus")
    systemd.add("prometheus@main.service", str(program))
    (systemd.directory / "prometheus@main.service").rename(systemd.directory / "prometheus@.service")
    found = survey(systemd, spec("prometheus", units=["prometheus@main"]))
    assert found["prometheus"]["binary"] == str(program)


def test_without_systemd_there_is_nothing_to_read(
    systemd: Systemd, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd.add("loki.service", "/opt/loki")
    monkeypatch.setenv("PATH", str(tmp_path))
    versions = _evidence.Versions(_command.run, timeout=1, recorded={}, state_dir="/nowhere")
    with pytest.raises(HostError) as failure:
        _survey.Reader(_command.run, versions, checksum=False).survey({"loki": spec("loki")})
    assert failure.value.key == "host.no_systemd"


# -- which program ------------------------------------------------------------------------------------------------


def test_a_program_anywhere_is_read_with_its_companions_beside_it(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    program, tool = write_elf(bin_dir / "prometheus"), write_program(bin_dir / "promtool")
    systemd.add("prometheus.service", str(program), User="prom")
    unit = systemd.directory / "prometheus.service"
    found = survey(systemd, spec("prometheus"), checksum=True)["prometheus"]
    assert all(file.pop("identity") for file in found["files"])
    assert found == {
        "installed": True,
        "version": "2.42.0",
        "running": None,
        "restart_pending": False,
        "version_source": "program",
        "version_unknown": None,
        "running_unknown": None,
        "unit": "prometheus.service",
        "state": {"active": "inactive", "sub": "dead", "n_restarts": 0, "enabled": None},
        "need_reload": False,
        "binary": str(program),
        "files": [
            {"name": "prometheus", "path": str(program), "size": program.stat().st_size, "sha256": sha256(program)},
            {"name": "promtool", "path": str(tool), "size": tool.stat().st_size, "sha256": sha256(tool)},
        ],
        "package": None,
        "architecture": survey(systemd, spec("prometheus"))["prometheus"]["architecture"],
        "user": "prom",
        "unit_files": [str(systemd.directory / "prometheus.service")],
        "command_line": [str(program)],
        "flags": [],
        "settings": [],
        "environment": [],
        "config": None,
        "web_config": None,
        "data": None,
        "url": "http://127.0.0.1:9090",
        "metrics_path": "/metrics",
        "protected": False,
        "restore_point_bytes": sum(path.stat().st_size for path in (program, tool, unit)),
    }


def test_a_companion_that_is_not_there_is_left_out_and_hashes_are_read_only_when_asked(
    systemd: Systemd, bin_dir: pathlib.Path
) -> None:
    systemd.add("prometheus.service", str(write_program(bin_dir / "prometheus")))
    files = survey(systemd, spec("prometheus"))["prometheus"]["files"]
    assert [(file["name"], set(file)) for file in files] == [("prometheus", {"name", "path", "size", "identity"})]


@pytest.mark.parametrize(
    "start",
    [
        "{program}",
        "{program} --config.file=/x",
        "/bin/sh {program}",
        "/usr/bin/env {program} --a",
        "/usr/bin/nice -n 5 {program}",
        "/usr/bin/python3.11 {program}",
    ],
)
def test_the_program_is_what_the_unit_starts_or_what_a_wrapper_names(
    systemd: Systemd, bin_dir: pathlib.Path, start: str
) -> None:
    program = write_program(bin_dir / "alertmanager")
    systemd.add("alertmanager.service", *start.format(program=program).split())
    assert survey(systemd, spec("alertmanager"))["alertmanager"]["binary"] == str(program)


def test_the_program_behind_a_script_is_what_its_process_runs(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    program = native(bin_dir / "prometheus")
    start = write_program(bin_dir / "start.sh")
    with running(program, "-c", "echo up; read -r line") as pid:
        systemd.add("prometheus.service", "/bin/sh", str(start), pid=pid)
        found = survey(systemd, spec("prometheus"))["prometheus"]
    assert (found["installed"], found["binary"], found["restart_pending"]) == (True, str(program), False)


@pytest.mark.parametrize(
    ("start", "key"),
    [
        ("/opt/nowhere/prometheus", "no_program"),
        ("/bin/sh {bin}/start.sh", "wrapper"),
        ("/bin/sh -c prometheus", "wrapper"),
    ],
)
def test_a_program_that_is_gone_or_hidden_is_not_installed_but_its_unit_is_told(
    systemd: Systemd, bin_dir: pathlib.Path, start: str, key: str
) -> None:
    write_program(bin_dir / "start.sh")
    systemd.add("prometheus.service", *start.format(bin=bin_dir).split())
    found = survey(systemd, spec("prometheus"))["prometheus"]
    told = found.pop("not_upgradable")
    assert (told["key"], bool(told["reason"]), bool(told["fix"])) == (key, True, True)
    assert found == {
        "installed": False,
        "unit": "prometheus.service",
        "files": [],
        "version": None,
        "running": None,
        "restart_pending": False,
        "version_source": None,
        "version_unknown": None,
        "running_unknown": None,
        "package": None,
    }


@pytest.mark.parametrize("name", ["node_exporter", "prometheus-node-exporter"])
def test_a_program_in_a_usual_place_is_found_without_a_unit(
    systemd: Systemd, usual_place: pathlib.Path, name: str
) -> None:
    program = write_elf(usual_place / name, "1.5.0")
    found = survey(systemd, spec("node_exporter"))["node_exporter"]
    assert (found["installed"], found["unit"], found["binary"]) == (True, None, str(program))
    assert (found["version"], found["running"], found["restart_pending"]) == ("1.5.0", None, False)
    assert "url" not in found


def test_a_host_that_has_nothing_says_nothing(systemd: Systemd) -> None:
    assert survey(systemd, *(spec(name) for name in CATALOG)) == {}


def test_a_file_that_a_package_owns_is_told_with_its_package(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    owners = {"prometheus": "prometheus", "node_exporter": None, "alertmanager": "prometheus-alertmanager"}
    for name, owner in owners.items():
        program = write_program(bin_dir / name)
        systemd.add(f"{name}.service", str(program))
        if owner:
            systemd.owned[str(program)] = owner
    found = survey(systemd, *(spec(name) for name in ("prometheus", "node_exporter", "alertmanager")))
    assert {name: facts["package"] for name, facts in found.items()} == {
        "prometheus": {"manager": "apt", "name": "prometheus"},
        "node_exporter": None,
        "alertmanager": {"manager": "apt", "name": "prometheus-alertmanager"},
    }
    assert len(systemd.commands("dpkg-query")) == 1


@pytest.mark.parametrize(("machine", "architecture"), [(183, "arm64"), (62, "amd64"), (22, "s390x")])
def test_the_architecture_is_that_of_the_program(
    systemd: Systemd, bin_dir: pathlib.Path, machine: int, architecture: str
) -> None:
    bin_dir.mkdir(parents=True)
    order: t.Literal["big", "little"] = "big" if machine == 22 else "little"
    header = (
        b"\x7fELF\x02" + (b"\x02" if order == "big" else b"\x01") + bytes(10) + b"\0\0" + machine.to_bytes(2, order)
    )
    (bin_dir / "loki").write_bytes(header + bytes(100))
    systemd.add("loki.service", str(bin_dir / "loki"))
    assert survey(systemd, spec("loki"))["loki"]["architecture"] == architecture


# -- evidence other than a name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prints", "key"),
    [
        ("node_exporter, version 1.5.0 (branch: HEAD)\n", None),
        ("Docker version 24.0.7, build afdd53b\n", "other_program"),
        ("start-stop-daemon 1.21.23 for Debian\n", "other_program"),
        ("prometheus, version 2.42.0\n", "other_program"),
    ],
)
def test_a_program_of_another_name_must_say_that_it_is_the_component_s(
    systemd: Systemd, bin_dir: pathlib.Path, prints: str, key: str | None
) -> None:
    bin_dir.mkdir(parents=True)
    (bin_dir / "agent").write_bytes(elf_program(prints))
    (bin_dir / "agent").chmod(0o755)
    systemd.add("node_exporter.service", str(bin_dir / "agent"), "--a")
    found = survey(systemd, spec("node_exporter"))["node_exporter"]
    assert found.get("not_upgradable", {}).get("key") == key
    assert (found["installed"], found["version"]) == ((True, "1.5.0") if key is None else (False, None))


@pytest.mark.parametrize(("own", "installed"), [(True, True), (False, False)])
def test_metrics_show_what_a_program_is_only_at_a_socket_of_its_own(
    systemd: Systemd, bin_dir: pathlib.Path, web: Web, monkeypatch: pytest.MonkeyPatch, own: bool, installed: bool
) -> None:
    web.answers["/metrics"] = page("2.42.0")
    monkeypatch.setattr(_processes, "has_listener", lambda pid, port: own and port == web.port)
    program = native(bin_dir / "agent")
    address = f"--web.listen-address=127.0.0.1:{web.port}"
    with running(program, "-c", "echo up; read -r line", address) as pid:
        systemd.add("prometheus.service", str(program), address, pid=pid)
        found = survey(systemd, spec("prometheus", version_args=[["-c", "echo no"]]))["prometheus"]
    assert (found["installed"], found["version"]) == (installed, "2.42.0" if installed else None)


def test_what_only_answers_is_told_with_its_process(systemd: Systemd, web: Web, proc: t.Callable[..., None]) -> None:
    """A component that nothing else shows: it is a blocker for a run that asks for it, and no news of nothing."""
    web.answers["/metrics"] = page("2.42.0")
    found = listened(systemd, web, spec("prometheus", port=web.port))
    assert (found["installed"], found["running"], found["version"]) == (False, "2.42.0", None)
    assert found["not_upgradable"]["key"] == "listener"
    assert f"answers at port {web.port} as prometheus 2.42.0" in found["not_upgradable"]["reason"]


def test_a_program_that_no_unit_runs_does_not_explain_what_answers(
    systemd: Systemd, usual_place: pathlib.Path, web: Web, proc: t.Callable[..., None]
) -> None:
    write_elf(usual_place / "prometheus", "1.0.0")
    web.answers["/metrics"] = page("2.42.0")
    found = listened(systemd, web, spec("prometheus", port=web.port))
    assert (found["installed"], found["version"], found["running"]) == (True, "1.0.0", "2.42.0")
    assert found["not_upgradable"]["key"] == "listener"


@pytest.mark.parametrize("answer", [Answer(b"other_build_info 1\n"), Answer(b"", 404)])
def test_another_service_at_a_component_s_port_is_nothing_of_it(systemd: Systemd, web: Web, answer: Answer) -> None:
    web.answers["/metrics"] = answer
    assert survey(systemd, spec("prometheus", port=web.port)) == {}


def test_a_port_that_is_explained_is_not_asked(systemd: Systemd, bin_dir: pathlib.Path, web: Web) -> None:
    web.answers["/metrics"] = page("2.42.0")
    address = f"--web.listen-address=127.0.0.1:{web.port}"
    systemd.add("alertmanager.service", str(write_elf(bin_dir / "alertmanager")), address)
    assert sorted(survey(systemd, spec("alertmanager"), spec("prometheus", port=web.port))) == ["alertmanager"]


def listened(systemd: Systemd, web: Web, entry: Data) -> Data:
    """A survey of a host on which something listens at a port, and no process can be seen that does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_process, "listeners", lambda: {web.port: {0}})
        return survey(systemd, entry)[entry["name"]]


# -- several instances --------------------------------------------------------------------------------------------


def test_further_instances_have_keys_with_their_port_or_their_unit(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    program = write_elf(bin_dir / "node_exporter", hangs=True)
    units = {"node_exporter": ":9100", "node_exporter_ops": ":9101", "node_exporter@a": ":9101", "site": ":9102"}
    with contextlib.ExitStack() as stack:
        for unit, address in units.items():
            pid = stack.enter_context(running(program, f"--web.listen-address={address}"))
            systemd.add(f"{unit}.service", str(program), f"--web.listen-address={address}", pid=pid)
            (systemd.directory / f"{unit}.service").write_text(f"[Service]\nExecStart={program}\n")
        recorded = {"node_exporter": {sha256(program): "1.5.0"}}
        found = survey(systemd, spec("node_exporter", build_info=[]), recorded=recorded)
    assert {key: (facts["unit"], facts.get("instance_of")) for key, facts in found.items()} == {
        "node_exporter": ("node_exporter.service", None),
        "node_exporter@9101": ("node_exporter@a.service", "node_exporter"),
        "node_exporter@node_exporter_ops": ("node_exporter_ops.service", "node_exporter"),
        "node_exporter@9102": ("site.service", "node_exporter"),
    }
    assert all(len(facts["shared_by"]) == 3 for facts in found.values())


def test_where_root_may_not_look_into_a_process_that_is_said_and_the_rest_is_read(
    systemd: Systemd, bin_dir: pathlib.Path, proc: t.Callable[..., None]
) -> None:
    program = write_elf(bin_dir / "node_exporter", "1.5.0")
    systemd.add("node_exporter.service", str(program), pid=9)
    proc(9, str(program), group="0::/system.slice/node_exporter.service")
    found = survey(systemd, spec("node_exporter", build_info=[]))["node_exporter"]
    assert (found["version"], found["binary"]) == ("1.5.0", str(program))
    assert "CAP_SYS_PTRACE is missing" in found["not_read"]


def test_a_container_tells_its_version_and_has_none_on_disk(
    systemd: Systemd, web: Web, proc: t.Callable[..., None]
) -> None:
    web.answers["/metrics"] = page("2.42.0")
    proc(9, "/bin/prometheus", exe="/bin/prometheus", numbers="9 1")
    found = survey(systemd, spec("prometheus", port=web.port))["prometheus"]
    assert (found["installed"], found["version"], found["running"]) == (False, None, "2.42.0")
    assert found["not_upgradable"]["key"] == "container"


# -- how it is set up ---------------------------------------------------------------------------------------------


@pytest.fixture
def set_up(systemd: Systemd, bin_dir: pathlib.Path, tmp_path: pathlib.Path) -> t.Callable[..., Data]:
    """Survey a component whose unit has some flags; ``@name`` in them is a file with the text given for it."""

    def survey_with(
        name: str, flags: str, *, changes: Data | None = None, unit: Data | None = None, **files: str
    ) -> Data:
        for file, text in files.items():
            (tmp_path / file).write_text(text)
            flags = flags.replace(f"@{file}", str(tmp_path / file))
        systemd.add(f"{name}.service", str(write_program(bin_dir / name)), *flags.split(), **(unit or {}))
        return survey(systemd, spec(name, **(changes or {})))[name]

    return survey_with


@pytest.mark.parametrize(
    ("environment", "file", "shown"),
    [
        ("", "", []),
        ("ARGS=--log.level=debug", "", ["--log.level=debug"]),
        ("ARGS=--a", "ARGS=--b --c\n", ["--b", "--c"]),
        ("", "# the port\nARGS='--web.listen-address=:9200 --b'\n", ["--web.listen-address=:9200", "--b"]),
        ("", 'ARGS="--name=\\"x y\\""\n', ["--name=x y"]),
        ('"ARGS=--a --b" PORT=1', "", ["--a", "--b"]),
    ],
)
def test_variables_on_the_command_line_are_filled_in_from_the_unit_and_its_environment_file(
    set_up: t.Callable[..., Data], environment: str, file: str, shown: list[str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "default").write_text(file)
    unit = {"Environment": environment, "EnvironmentFiles": f"{tmp_path}/default (ignore_errors=yes)"}
    found = set_up("node_exporter", "$ARGS", unit=unit)
    assert found["command_line"][1:] == shown
    assert set(found["environment"]) <= {"ARGS", "PORT"}


def test_an_environment_file_that_is_not_there_is_passed_over(set_up: t.Callable[..., Data]) -> None:
    unit = {"EnvironmentFiles": "/nowhere (ignore_errors=yes)", "Environment": "PORT=9300"}
    found = set_up("node_exporter", "--web.listen-address=:${PORT} $ARGS", unit=unit)
    assert found["url"] == "http://127.0.0.1:9300"
    assert found["environment"] == ["PORT"]


def test_secrets_are_hidden_and_of_the_environment_only_names_are_told(set_up: t.Callable[..., Data]) -> None:
    unit = {"Environment": "DATA_SOURCE_NAME=root:geheim@(db:3306)/ PASSWORD=geheim"}
    found = set_up("prometheus", "--api-token=geheim --password geheim --url=http://u:geheim@h/", unit=unit)
    assert found["environment"] == ["DATA_SOURCE_NAME", "PASSWORD"]
    assert found["flags"] == ["api-token", "password", "url"]
    assert "geheim" not in repr(found)


@pytest.mark.parametrize(
    ("flags", "default", "config"),
    [
        ("--config.file=@given", None, "given"),
        ("--config.file @given", None, "given"),
        ("-config.file=@given", "usual", "given"),
        ("", "usual", "usual"),
        ("", "missing", None),
        ("", None, None),
        ("--config.file=@usual --config.file=@given", None, "given"),
    ],
)
def test_the_configuration_is_the_flags_or_the_usual_one_if_it_is_there(
    set_up: t.Callable[..., Data], tmp_path: pathlib.Path, flags: str, default: str | None, config: str | None
) -> None:
    default_config = str(tmp_path / default) if default else None
    found = set_up("prometheus", flags, changes={"default_config": default_config}, given="a: 1", usual="a: 2")
    assert found["config"] == (str(tmp_path / config) if config else None)


@pytest.mark.parametrize(
    ("flags", "there", "data"), [("--storage.tsdb.path=/d", True, "/d"), ("", True, "usual"), ("", False, None)]
)
def test_the_data_is_the_flags_or_the_usual_one_if_it_is_there(
    set_up: t.Callable[..., Data], tmp_path: pathlib.Path, flags: str, there: bool, data: str | None
) -> None:
    usual = tmp_path / "usual-data"
    if there:
        usual.mkdir()
    found = set_up("prometheus", flags, changes={"default_data": str(usual)})
    assert found["data"] == (str(usual) if data == "usual" else data)


LOKI = """\
auth_enabled: false
ingester:
  lifecycler: {address: 10.9.9.9}
server:
  # http_listen_port: 1
  http_listen_port: 3200
  http_listen_address: 127.0.0.2
  grpc_listen_port: 9096
"""
PROMTAIL = "server: {http_listen_port: 9080, grpc_listen_port: 0}\nclients:\n  - url: http://loki:3100/push\n"
GRAFANA = """\
http_port = 1
[server]
;http_port = 2
protocol = https
http_addr = 10.0.0.5
http_port = 3001
[database]
http_port = 4
"""


@pytest.mark.parametrize(
    ("name", "flags", "config", "url"),
    [
        ("prometheus", "", "", "http://127.0.0.1:9090"),
        ("prometheus", "--web.listen-address=:9091", "", "http://127.0.0.1:9091"),
        ("prometheus", "--web.listen-address=0.0.0.0:9091", "", "http://127.0.0.1:9091"),
        ("prometheus", "--web.listen-address=10.0.0.5:9091", "", "http://10.0.0.5:9091"),
        ("prometheus", "--web.listen-address=[::]:9091", "", "http://[::1]:9091"),
        ("prometheus", "--web.listen-address=[fd00::5]:9091", "", "http://[fd00::5]:9091"),
        ("prometheus", "--web.listen-address localhost:9091", "", "http://localhost:9091"),
        ("loki", "-config.file=@config", LOKI, "http://127.0.0.2:3200"),
        ("loki", "-config.file=@config", "auth_enabled: false\n", "http://127.0.0.1:3100"),
        ("loki", "-config.file=@config -server.http-listen-port=3300", LOKI, "http://127.0.0.1:3300"),
        ("promtail", "-config.file=@config", PROMTAIL, "http://127.0.0.1:9080"),
        ("promtail", "-config.file=@config", "clients: []\n", "http://127.0.0.1:80"),
        ("grafana", "server --config=@config", GRAFANA, "https://10.0.0.5:3001"),
        ("grafana", "server --config=@config", "[server]\n;http_port = 3001\n", "http://127.0.0.1:3000"),
        ("grafana", "server --config=/nowhere", "", "http://127.0.0.1:3000"),
    ],
)
def test_the_address_comes_from_the_flag_or_the_configuration_or_is_the_usual_one(
    set_up: t.Callable[..., Data], name: str, flags: str, config: str, url: str
) -> None:
    assert set_up(name, flags, config=config)["url"] == url


@pytest.mark.parametrize(
    ("web_config", "scheme", "protected"),
    [
        ("", "http", False),
        ("tls_server_config:\n  cert_file: a\n  key_file: b\n", "https", False),
        ("tls_server_config: {cert_file: a}\n", "https", False),
        ("tls_server_config: {}\nbasic_auth_users: {}\n", "http", False),
        ("tls_server_config:\nbasic_auth_users:\n", "http", False),
        ("basic_auth_users:\n  prom: $2y$10$x\n", "http", True),
        ("basic_auth_users: {prom: x}\ntls_server_config:\n    cert_file: a\n", "https", True),
        ("http_server_config:\n  tls_server_config:\n    cert_file: a\n", "http", False),
        ("# tls_server_config:\n#   cert_file: a\n", "http", False),
    ],
)
def test_tls_and_passwords_are_seen_in_the_web_configuration(
    set_up: t.Callable[..., Data], tmp_path: pathlib.Path, web_config: str, scheme: str, protected: bool
) -> None:
    found = set_up("node_exporter", "--web.config.file=@web", web=web_config)
    assert (found["url"], found["protected"]) == (f"{scheme}://127.0.0.1:9100", protected)
    assert found["web_config"] == str(tmp_path / "web")


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        ("", ""),
        ("--web.external-url=https://mon.example.com/", ""),
        ("--web.external-url=https://mon.example.com/prom/", "/prom"),
        ("--web.external-url=/prom/x", "/prom/x"),
        ("--web.route-prefix=/inner", "/inner"),
        ("--web.external-url=https://mon.example.com/prom --web.route-prefix=/", ""),
        ("--web.route-prefix=inner/", "/inner"),
    ],
)
def test_the_path_prefix_is_the_route_prefix_or_that_of_the_external_url(
    set_up: t.Callable[..., Data], flags: str, path: str
) -> None:
    assert set_up("prometheus", flags)["url"] == f"http://127.0.0.1:9090{path}"


def test_metrics_are_where_the_flag_says(set_up: t.Callable[..., Data]) -> None:
    assert set_up("node_exporter", "--web.telemetry-path=/m")["metrics_path"] == "/m"


# -- which version ------------------------------------------------------------------------------------------------


def ran(systemd: Systemd) -> list[list[str]]:
    return systemd.commands("systemd-run")


@pytest.mark.parametrize(
    ("text", "status", "version"),
    [
        ("loki, version 2.9.17 (branch: HEAD, revision: 1)\n", 0, "2.9.17"),
        ("2.9.17\n", 0, "2.9.17"),
        ("loki, version 2.9.17+ds (branch: debian/sid)\n", 1, "2.9.17"),
        ("flag provided but not defined\n", 2, "unknown"),
        ("go1.21.3\n", 0, "unknown"),
        ("", 0, "unknown"),
    ],
)
def test_the_version_on_disk_is_what_the_program_prints(
    systemd: Systemd, bin_dir: pathlib.Path, text: str, status: int, version: str
) -> None:
    bin_dir.mkdir(parents=True)
    (bin_dir / "loki").write_bytes(elf_program(text, status=status))
    (bin_dir / "loki").chmod(0o755)
    systemd.add("loki.service", str(bin_dir / "loki"))
    found = survey(systemd, spec("loki"))["loki"]
    assert (found["version"], found["running"], found["restart_pending"]) == (version, None, False)
    assert found["version_source"] == (None if version == "unknown" else "program")
    assert ("it printed no version" in (found["version_unknown"] or "")) == (version == "unknown")


def test_all_ways_to_ask_for_the_version_are_tried_in_turn(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    systemd.add("loki.service", str(write_elf(bin_dir / "loki", "")))
    survey(systemd, spec("loki", version_args=[["--version"], ["version"], ["-V"]]))
    assert [argv[-1] for argv in ran(systemd)] == ["--version", "version", "-V"]


def test_a_program_that_hangs_is_unknown_within_the_time_limit(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    hangs = write_elf(bin_dir / "loki", hangs=True)
    systemd.on_run = lambda argv: Completed(1, "", "Running as unit: x\nFinished with result: timeout\n")
    systemd.add("loki.service", str(hangs))
    found = survey(systemd, spec("loki", version_args=[["--version"]]), timeout=0.3)["loki"]
    assert (found["version"], "it didn't end in time" in found["version_unknown"]) == ("unknown", True)
    assert 0 < limit(ran(systemd)[0]) <= 0.3


def limit(argv: list[str]) -> float:
    return next(float(word.rpartition("=")[2][:-1]) for word in argv if word.startswith("--property=RuntimeMaxSec="))


@pytest.mark.parametrize("kind", ["script", "wrapper", "directory", "empty"])
def test_what_is_no_elf_program_is_never_run(systemd: Systemd, bin_dir: pathlib.Path, kind: str) -> None:
    canary, program = bin_dir / "canary", bin_dir / "loki"
    write_program(program, prints=f"touch {canary}; echo 'loki, version 1.0.0'")
    if kind == "empty":
        program.write_bytes(b"")
    start = ["/bin/sh", str(program)] if kind == "wrapper" else [str(program)]
    systemd.add("loki.service", *start)
    if kind == "directory":
        found = {"version": "unknown"} | survey_of_a_directory(systemd, program)
    else:
        found = survey(systemd, spec("loki"))["loki"]
    assert found["version"] == "unknown"
    assert f"{program} is no ELF program" in found["version_unknown"]
    assert not canary.exists()
    assert ran(systemd) == []


def survey_of_a_directory(systemd: Systemd, program: pathlib.Path) -> Data:
    """As a race would have it: it was a file when it was located, and is a directory when it is asked."""
    program.unlink()
    program.mkdir()
    versions = _evidence.Versions(systemd, timeout=1, recorded={}, state_dir="/nowhere")
    facts = {"installed": True, "binary": str(program), "files": [{}]}
    return versions.of("loki", spec("loki"), facts, {})


@pytest.mark.parametrize(
    ("properties", "user"),
    [
        ({"User": "daemon"}, "daemon"),
        ({"User": "1234"}, "1234"),
        ({}, "nobody"),
        ({"User": "root"}, "nobody"),
        ({"User": "0"}, "nobody"),
        ({"User": "00"}, "nobody"),
        ({"User": "nobody-knows-her"}, "nobody"),
        ({"User": "daemon", "DynamicUser": "yes"}, "nobody"),
    ],
)
def test_a_program_is_run_as_the_units_user_and_never_as_root(
    systemd: Systemd, bin_dir: pathlib.Path, properties: Data, user: str
) -> None:
    systemd.add("loki.service", str(write_elf(bin_dir / "loki")), Environment="SECRET=geheim", **properties)
    assert survey(systemd, spec("loki"))["loki"]["version"] == "2.42.0"
    (argv,) = ran(systemd)
    assert [word for word in argv if word.startswith("--property=User=")] == [f"--property=User={user}"]
    assert {"--property=CapabilityBoundingSet=", "--property=PrivateNetwork=yes"} <= set(argv)
    assert "geheim" not in repr(argv)


def test_a_program_without_a_unit_is_run_as_nobody(systemd: Systemd, usual_place: pathlib.Path) -> None:
    write_elf(usual_place / "node_exporter", "1.5.0")
    assert survey(systemd, spec("node_exporter"))["node_exporter"]["version"] == "1.5.0"
    assert "--property=User=nobody" in ran(systemd)[0]


def test_a_sandbox_that_systemd_cannot_make_leaves_the_version_unknown(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    systemd.add("loki.service", str(write_elf(bin_dir / "loki")))
    systemd.on_run = lambda argv: Completed(1, "loki, version 9.9.9", "Failed to start transient service unit: no")
    found = survey(systemd, spec("loki"))["loki"]
    assert found["version"] == "unknown"
    assert "Failed to start transient service unit: no" in found["version_unknown"]


def page(version: str) -> Answer:
    return Answer(f'prometheus_build_info{{branch="HEAD",version="{version}"}} 1\n'.encode())


def listens_at(web: Web) -> str:
    return f"--web.listen-address=127.0.0.1:{web.port}"


def test_a_service_that_runs_its_file_tells_the_version_of_both_and_nothing_is_run(
    systemd: Systemd, bin_dir: pathlib.Path, web: Web
) -> None:
    program, web.answers["/metrics"] = write_elf(bin_dir / "prometheus", "6.6.6"), page("2.42.0+ds")
    with running(program) as pid:
        systemd.add("prometheus.service", str(program), pid=pid)
        found = survey(systemd, spec("prometheus", port=web.port))["prometheus"]
    assert (found["version"], found["running"], found["version_source"]) == ("2.42.0", "2.42.0", "service")
    assert ran(systemd) == []
    assert web.asked == ["/metrics"]


@pytest.mark.parametrize("version", ["", "latest", "1.2.3 (evil)", "1.2.3\\n9", "1." + "2" * 100])
def test_what_a_service_calls_its_version_must_be_one(
    systemd: Systemd, bin_dir: pathlib.Path, web: Web, version: str
) -> None:
    program, web.answers["/metrics"] = write_elf(bin_dir / "prometheus"), page(version)
    with running(program) as pid:
        systemd.add("prometheus.service", str(program), pid=pid)
        found = survey(systemd, spec("prometheus", port=web.port))["prometheus"]
    assert (found["version"], found["version_source"]) == ("2.42.0", "program")


def test_another_users_service_at_the_same_port_is_not_asked(
    systemd: Systemd, bin_dir: pathlib.Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, web.answers["/metrics"] = write_elf(bin_dir / "prometheus"), page("6.6.6")
    monkeypatch.setattr(_process, "listeners", lambda: {web.port: {12345}})
    with running(program) as pid:
        systemd.add("prometheus.service", str(program), pid=pid)
        found = survey(systemd, spec("prometheus", port=web.port))["prometheus"]
    assert (found["version"], found["running"], web.asked) == ("2.42.0", "2.42.0", [])


def native(path: pathlib.Path) -> pathlib.Path:
    """A program of machine code: a copy of bash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("bash") or "", path)
    return path


@pytest.mark.parametrize(
    ("answer", "version", "why"),
    [
        (page("2.42.0+ds"), "2.42.0", None),
        (Answer(page("2.42.0").body, 503), "unknown", "its metrics can't be read (503)"),
        (Answer(b"up 1\n"), "unknown", "its metrics tell no version"),
        (None, "unknown", "nothing of its user alone listens at http://127.0.0.1:1"),
    ],
    ids=["it tells", "not ready", "no build info", "no answer"],
)
def test_of_a_replaced_program_only_the_service_itself_can_tell_what_runs(
    systemd: Systemd, bin_dir: pathlib.Path, web: Web, answer: Answer | None, version: str, why: str | None
) -> None:
    program = write_elf(bin_dir / "prometheus")
    if answer:
        web.answers["/metrics"] = answer
    with running(program) as pid:
        write_elf(program, "9.9.9")
        systemd.add("prometheus.service", str(program), pid=pid)
        found = survey(systemd, spec("prometheus", port=web.port if answer else 1))["prometheus"]
        assert os.readlink(f"/proc/{pid}/exe").endswith("(deleted)")
    assert (found["version"], found["running"], found["restart_pending"]) == ("9.9.9", version, True)
    assert found["running_unknown"] == why
    assert [argv[-2] for argv in ran(systemd)] == [argv[-2] for argv in ran(systemd) if "/run/" in argv[-2]]


def test_the_file_that_a_process_runs_is_never_run_again(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    """What a service became by exec is its own affair: its file is hashed, and compared with what is recorded."""
    program, other = write_elf(bin_dir / "prometheus"), native(bin_dir / "other")
    systemd.add("prometheus.service", str(program))
    with running(other, "-c", "echo up; read -r line") as pid:
        systemd.add("prometheus.service", str(program), "-c", "x", pid=pid)
        recorded = {"prometheus": {sha256(other): "1.2.3"}}
        found = survey(systemd, spec("prometheus", port=1), recorded=recorded)["prometheus"]
        unknown = survey(systemd, spec("prometheus", port=1))["prometheus"]
    assert (found["version"], found["running"], found["restart_pending"]) == ("2.42.0", "1.2.3", True)
    assert unknown["running"] == "unknown"
    assert {argv[-2].rpartition("/")[2] for argv in ran(systemd)} == {"prometheus"}
    assert not any(str(other) in word or "/proc/" in word for argv in ran(systemd) for word in argv)


def test_a_file_that_is_on_record_is_not_run_also_where_nothing_asked_for_its_hash(
    systemd: Systemd, bin_dir: pathlib.Path
) -> None:
    program = write_elf(bin_dir / "prometheus", "9.9.9")
    systemd.add("prometheus.service", str(program))
    recorded = {"prometheus": {sha256(program): "2.42.0"}}
    found = survey(systemd, spec("prometheus"), recorded=recorded)["prometheus"]
    assert (found["version"], found["version_source"]) == ("2.42.0", "sha256")
    assert not systemd.commands("systemd-run")


def test_what_is_recorded_for_the_sha256_comes_before_all_else(
    systemd: Systemd, bin_dir: pathlib.Path, web: Web
) -> None:
    program, web.answers["/metrics"] = write_elf(bin_dir / "prometheus", "6.6.6"), page("7.7.7")
    recorded = {"prometheus": {sha256(program): "2.42.0"}}
    with running(program) as pid:
        systemd.add("prometheus.service", str(program), pid=pid)
        found = survey(systemd, spec("prometheus", port=web.port), checksum=True, recorded=recorded)["prometheus"]
    assert (found["version"], found["running"], found["version_source"]) == ("2.42.0", "2.42.0", "sha256")
    assert (ran(systemd), web.asked) == ([], [])


def test_of_a_script_nothing_is_believed_that_is_recorded(systemd: Systemd, bin_dir: pathlib.Path) -> None:
    """What it starts may have become another version meanwhile."""
    program = write_program(bin_dir / "prometheus")
    systemd.add("prometheus.service", str(program))
    recorded = {"prometheus": {sha256(program): "2.42.0"}}
    assert survey(systemd, spec("prometheus"), checksum=True, recorded=recorded)["prometheus"]["version"] == "unknown"


def test_a_component_that_tells_nothing_about_itself_runs_an_unknown_version(
    systemd: Systemd, bin_dir: pathlib.Path, web: Web
) -> None:
    program = write_program(bin_dir / "prometheus")
    with running(program) as pid:
        outlive_the_tick(pid)
        write_elf(program, "9.9.9")
        systemd.add("prometheus.service", str(program), pid=pid)
        found = survey(systemd, spec("prometheus", build_info=[], port=web.port))["prometheus"]
    assert (found["running"], found["restart_pending"]) == ("unknown", True)
    assert found["running_unknown"] == "its metrics carry no version"
    assert web.asked == []


# -- what differs by version ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "url"),
    [
        (["-telemetry.address=127.0.0.1:9118"], "http://127.0.0.1:9118"),
        (["--web.listen-address=127.0.0.1:9119"], "http://127.0.0.1:9119"),
        ([], "http://127.0.0.1:9117"),
    ],
)
def test_a_flag_counts_under_the_name_that_the_version_has(
    systemd: Systemd, bin_dir: pathlib.Path, flags: list[str], url: str
) -> None:
    systemd.add("apache_exporter.service", str(write_program(bin_dir / "apache_exporter")), *flags)
    assert survey(systemd, spec("apache_exporter"))["apache_exporter"]["url"] == url


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--enable-feature=exemplar-storage,remote-write-receiver"], {"enable-feature": ["remote-write-receiver"]}),
        (
            ["--enable-feature", "agent", "--enable-feature=auto-gomaxprocs"],
            {"enable-feature": ["agent", "auto-gomaxprocs"]},
        ),
        (["--enable-feature=exemplar-storage", "--web.external-url=http://ops:not-told@a.example/agent"], None),
        ([], None),
    ],
)
def test_of_the_values_of_flags_only_those_are_told_that_some_version_removed(
    systemd: Systemd, bin_dir: pathlib.Path, flags: list[str], told: Data | None
) -> None:
    systemd.add("prometheus.service", str(write_program(bin_dir / "prometheus")), *flags)
    found = survey(systemd, spec("prometheus"))["prometheus"]
    assert found.get("flag_values") == told
    assert "not-told" not in str(found.get("flag_values"))


@pytest.mark.parametrize(
    ("name", "file", "prints", "other"),
    [
        (
            "phpfpm_exporter",
            "php-fpm_exporter",
            "phpfpm_exporter, version 0.6.0 (branch: , revision: a)\n",
            "Lusitaniae",
        ),
        ("mongodb_exporter", "mongodb_exporter", "mongodb_exporter version: 1.0.0+git20180522\n", "dcu/mongodb"),
        ("mongodb_exporter", "mongodb_exporter", "Version: v0.47.0\n", None),
    ],
)
def test_a_program_of_another_project_is_told_apart(
    systemd: Systemd, bin_dir: pathlib.Path, name: str, file: str, prints: str, other: str | None
) -> None:
    program = bin_dir / file
    program.parent.mkdir(parents=True)
    program.write_bytes(elf_program(prints))
    program.chmod(0o755)
    systemd.add(f"{name}.service", str(program))
    told = survey(systemd, spec(name))[name].get("lookalike")
    assert told is None if other is None else other in told
