# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible.errors import AnsibleError
from ansible_collections.observability.stack.plugins.action import component_version
from ansible_collections.observability.stack.plugins.module_utils import _survey
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _wish
from ansible_collections.observability.stack.tests.unit.support import Systemd, write_elf

CATALOG = _catalog.load()


@pytest.fixture(autouse=True)
def usual_place(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """This machine's own programs are out of sight."""
    monkeypatch.setattr(_survey, "_USUAL_PLACES", (str(tmp_path / "usual"),))


def specs(act: t.Any, **arguments: t.Any) -> dict[str, dict[str, t.Any]]:
    """What the host is told about components."""
    act("component_version", **arguments)
    return t.cast("dict[str, dict[str, t.Any]]", act.sent[-1]["specs"])


def test_the_host_is_told_of_all_components_what_reading_takes_and_no_more(act: t.Any) -> None:
    sent = specs(act)
    assert list(sent) == list(CATALOG)
    assert {tuple(spec) for spec in sent.values()} == {component_version._READ_BY_THE_HOST}
    assert all(spec[field] == CATALOG[name][field] for name, spec in sent.items() for field in spec)


def test_the_host_reads_with_what_it_is_told(act: t.Any, systemd: Systemd, tmp_path: pathlib.Path) -> None:
    program = write_elf(tmp_path / "bin" / "prometheus", "2.42.0").rename(tmp_path / "bin" / "prom")
    systemd.add("prom.service", str(program), "--web.listen-address=:9999")
    for check in (False, True):
        result = act(
            "component_version", check=check, overrides={"prometheus": {"units": ["prom"]}}, only=["prometheus"]
        )
        assert (result["changed"], list(result["components"])) == (False, ["prometheus"])
        assert result["components"]["prometheus"]["version"] == "2.42.0"


def test_a_run_can_be_narrowed(act: t.Any) -> None:
    assert list(specs(act, only=["loki", "promtail"])) == ["loki", "promtail"]
    assert list(specs(act, only=[])) == list(CATALOG)


def test_the_variables_of_the_host_are_checked_and_its_request_is_returned_and_stays_on_the_controller(
    act: t.Any, tmp_path: pathlib.Path
) -> None:
    variables = {
        "upgrade_versions": "loki=3.0.0",
        "upgrade_only": "loki",
        "upgrade_overrides": '{"loki": {"port": 3111}}',
        "upgrade_state_dir": f" {tmp_path}/s ",
        "upgrade_release_tokens": {"api.github.com": "hunter2"},
    }
    result = act("component_version", variables=variables, settings="yes")
    assert (result["wish"]["versions"], result["wish"]["only"]) == ({"loki": "3.0.0"}, ["loki"])
    assert set(result["wish"]) == set(_wish.FIELDS)
    assert "hunter2" not in str(result)
    (sent,) = act.sent
    assert (sent["specs"]["loki"]["port"], sent["state_dir"]) == (3111, f"{tmp_path}/s")
    assert not {"wish", "settings", "overrides"} & set(sent)
    assert "wish" not in act("component_version", only=["loki"], variables={"upgrade_pause": "soon"})


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"upgrade_pause": "soon"}, "upgrade_pause is 'soon'; it must be a whole number of seconds from 0 to 86400"),
        ({"upgrade_versions": "nobody=1.0.0"}, "upgrade_versions names nobody, which no catalog entry describes"),
        ({"upgrade_windows": "[{days: [someday]}]"}, "upgrade_windows"),
    ],
)
def test_a_wrong_variable_is_one_message_before_the_host_is_asked(
    act: t.Any, variables: dict[str, t.Any], says: str
) -> None:
    result = act("component_version", variables=variables, settings=True)
    assert result["failed"]
    assert says in result["msg"]
    assert "\n" not in result["msg"]
    assert act.sent == []


def test_components_of_one_s_own_are_read_too(act: t.Any) -> None:
    mine = {**_catalog._raw()["node_exporter"], "name": "mine", "units": ["mine"]}
    sent = specs(act, components={"mine": mine}, overrides={"mine": {"port": 9999}})
    assert (sent["mine"]["units"], sent["mine"]["port"]) == (["mine"], 9999)


def test_what_is_for_the_controller_stays_there_and_all_else_is_passed_on(act: t.Any, tmp_path: pathlib.Path) -> None:
    specs(act, only=["loki"], overrides={}, components={}, timeout=3, checksum=False, state_dir=str(tmp_path / "s"))
    assert {key: value for key, value in act.sent[-1].items() if key != "specs"} == {
        "timeout": 3,
        "checksum": False,
        "state_dir": str(tmp_path / "s"),
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"only": ["lokki"]}, "lokki is not a component that the catalog knows; did you mean loki?"),
        ({"overrides": {"loki": {"prot": 1}}}, "upgrade_overrides: loki.prot is not a field; did you mean port?"),
        ({"overrides": {"loki@1": {"port": 1}}}, "upgrade_overrides: loki@1.port can't be set for one instance"),
        ({"overrides": {"loki@1": {"prot": 1}}}, "upgrade_overrides: loki@1.prot is not a field; did you mean port?"),
        ({"components": {"mine": {}}}, "upgrade_components: mine.phase is missing; it has no default"),
    ],
)
def test_what_the_catalog_refuses_never_reaches_the_host(act: t.Any, arguments: dict[str, t.Any], says: str) -> None:
    with pytest.raises(AnsibleError) as failure:
        act("component_version", **arguments)
    assert says in str(failure.value)
    assert act.sent == []


def test_a_host_that_cannot_be_read_fails_the_task(act: t.Any, systemd: Systemd) -> None:
    systemd.add("loki.service", "/opt/loki")
    systemd.broken = "no bus"
    result = act("component_version")
    assert (result["failed"], result["key"]) == (True, "host.no_systemd")
