# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import importlib
import json
import pathlib
import re
import typing as t

import pytest
import yaml
from ansible_collections.observability.stack.plugins.plugin_utils import _results
from ansible_collections.observability.stack.plugins.plugin_utils._schema import (
    Fields,
    Flag,
    Items,
    MalformedError,
    Maybe,
    Names,
    Number,
    Text,
    VersionText,
)

RECORDED = json.loads((pathlib.Path(__file__).parents[2] / "answers.json").read_text(encoding="utf-8"))
PLUGINS = pathlib.Path(_results.__file__).parents[1]
CONTROLLERS = {"component_version": {"wish"}, "release_stage": {"archive_sha256", "verified"}}
"""What the action of a module adds to what the host answers."""
INTERNAL = {"release_stage": {"needs_archive"}}
"""What the host says to the action alone."""
TYPES: dict[type, str] = {
    Text: "str",
    VersionText: "str",
    Flag: "bool",
    Items: "list",
    Names: "dict",
    Fields: "dict",
}
Data = dict[str, t.Any]


def documented(module: str) -> Data:
    plugin = importlib.import_module(f"ansible_collections.observability.stack.plugins.modules.{module}")
    return t.cast("Data", yaml.safe_load(plugin.RETURN))


def bare(kind: t.Any) -> t.Any:
    return kind.of if isinstance(kind, Maybe) else kind


def inner(kind: t.Any) -> t.Any:
    """The fields of what a list or a dictionary by names is made of."""
    kind = bare(kind)
    return inner(kind.of) if isinstance(kind, (Items, Names)) else kind


def differences(module: str, told: Data, fields: t.Mapping[str, t.Any], where: str = "") -> list[str]:
    """In what a documentation and a schema do not say the same."""
    beside = set() if where else INTERNAL.get(module, set())
    if where:  # what is told in the words of a neighbour
        beside = {name for each in told.values() for name in re.findall(r"C\((\w+)\)", text_of(each))}
    found = [f"{where}{name} is in one of them only" for name in set(told) ^ (set(fields) - (beside - set(told)))]
    for name in set(told) & set(fields):
        kind, described = bare(fields[name]), told[name]
        expected = TYPES.get(type(kind)) or ("int" if isinstance(kind, Number) and kind.whole else "float")
        if type(kind).__name__ != "Anything" and described["type"] != expected:
            found.append(f"{where}{name} is {described['type']} in the documentation, {expected} in the schema")
        below = inner(kind)
        if "contains" in described:
            found += differences(module, described["contains"], below.fields, f"{where}{name}.")
        elif isinstance(below, Fields) and not below.more:
            text = text_of(described)
            found += [f"{where}{name}.{each} is not documented" for each in below.fields if f"C({each})" not in text]
    return found


def text_of(described: Data) -> str:
    text = described["description"]
    return text if isinstance(text, str) else " ".join(text)


@pytest.mark.parametrize("module", sorted(_results.RESULTS))
def test_a_schema_and_the_documentation_of_a_module_say_the_same(module: str) -> None:
    told = {name: each for name, each in documented(module).items() if name not in CONTROLLERS.get(module, ())}
    assert differences(module, told, _results.RESULTS[module].fields) == []


def test_each_module_that_runs_on_a_host_has_a_half_on_the_controller_and_a_schema() -> None:
    modules = {path.stem for path in (PLUGINS / "modules").glob("*.py")} - {"__init__"}
    sources = {name: (PLUGINS / f"modules/{name}.py").read_text(encoding="utf-8") for name in modules}
    on_hosts = {name for name, source in sources.items() if "All of it is done by the action" not in source}
    assert on_hosts == set(_results.RESULTS)
    for name in on_hosts:
        action = importlib.import_module(f"ansible_collections.observability.stack.plugins.action.{name}")
        assert (action.ActionModule.module, action.ActionModule.__mro__[1].__name__) == (name, "HostAction")


def test_the_schema_of_the_state_knows_the_published_one() -> None:
    """What the controller uses of it is described alike. The rest passes as it is."""
    published = json.loads((PLUGINS.parent / "docs/state.schema.json").read_text(encoding="utf-8"))
    upgrade, components = (published["properties"][name] for name in ("upgrade", "components"))
    for shape, fields in ((upgrade, _results._UPGRADE), (components["additionalProperties"], _results._RECORD)):
        assert set(fields.fields) <= set(shape["properties"])
        assert set(fields.needed) <= set(shape["required"])


@pytest.mark.parametrize("module", sorted(RECORDED))
def test_what_hosts_really_answer_is_taken_as_it_is(module: str) -> None:
    for answer in RECORDED[module]:
        taken = _results.read(module, json.dumps(answer))
        assert taken == answer


def test_recorded_answers_are_of_all_modules() -> None:
    assert set(RECORDED) == set(_results.RESULTS)


def good() -> Data:
    return copy.deepcopy(RECORDED["component_version"][0])


@pytest.mark.parametrize(
    "key",
    [
        *("ansible_facts", "add_host", "add_group", "ansible_stats", "ansible_job_id", "results", "skipped"),
        *("unreachable", "_ansible_no_log", "_ansible_facts_cacheable", "wish", "stdout", "ansible_included_var_files"),
    ],
)
def test_a_key_that_steers_the_controller_is_refused(key: str) -> None:
    with pytest.raises(MalformedError, match=f"^{key} is not a key that this module returns"):
        _results.take("component_version", {**good(), key: {"upgrade_report_dir": "/"}})


def test_what_ansible_adds_on_the_host_is_left_out_or_shown_as_text() -> None:
    event = {"__ansible_type": "Event", "msg": "old\x1b[2J", "chain": {"event": {"msg": "cause\n"}}}
    warning = {"__ansible_type": "WarningSummary", "event": event}
    answer = {"invocation": {"module_args": {}}, "warnings": ["plain\x07", warning], "deprecations": [{"msg": "gone"}]}
    taken = _results.take("component_version", {**good(), **answer})
    assert taken["warnings"] == ["plain\\x07", "old\\x1b[2J: cause\\n", "gone"]
    assert not {"invocation", "deprecations"} & set(taken)


def test_a_module_that_crashed_says_what_its_exception_was() -> None:
    crash = {
        "__ansible_type": "ErrorSummary",
        "event": {"msg": "Module failed", "chain": {"event": {"msg": "boom\x9b"}}},
    }
    taken = _results.take("upgrade_state", {"failed": True, "exception": crash})
    assert taken == {"failed": True, "msg": "Module failed: boom\\x9b"}
    assert _results.take("upgrade_state", {"failed": True})["msg"] == "upgrade_state failed, and did not say why"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no JSON"),
        ("Segmentation fault", "is no JSON"),
        ('{"changed": NaN}', "is no JSON (NaN is no number)"),
        ('{"changed": Infinity}', "is no JSON"),
        ('{"changed": false', "is no JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "is no JSON"),
        ('{"changed": ' + "9" * 10_000 + "}", "is no JSON"),
        ('{"x": "' + "a" * (50 << 20) + '"}', "characters long, and may be at most"),
        ("[1]\n", "is no JSON"),
    ],
    ids=range(9),
)
def test_an_answer_that_cannot_be_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(MalformedError) as failure:
        _results.read("component_version", text)
    assert says in str(failure.value)
    assert str(failure.value).isprintable()


def test_what_a_login_shell_says_around_an_answer_is_left_out() -> None:
    assert _results.read("component_version", f"Welcome\x1b[2J\n{json.dumps(good())}\nbye\n") == good()


def changed(path: str, value: t.Any) -> Data:
    survey = good()
    *above, key = path.split("/")
    place = survey
    for name in above:
        place = place[name]
    place[key] = value
    return survey


@pytest.mark.parametrize(
    ("survey", "says"),
    [
        (changed("components/evil", {}), "components.evil.installed is missing"),
        (changed("components/a@b@c", good()["components"]["node_exporter"]), "which cannot be meant"),
        (changed("components/node_exporter/version", 1), "components.node_exporter.version is a number"),
        (changed("components/node_exporter/package", {"manager": "pacman", "name": "x"}), "instead of one of apt, dnf"),
        (changed("staged", {"../../x": "1"}), "which cannot be meant"),
        (changed("lease", {"pid": "../1"}), "lease.pid is a text"),
        (changed("state", {"upgrade": {}, "components": {}}), "state.upgrade.state is missing"),
        (changed("unfinished", {"node_exporter": "maybe"}), "instead of one of old"),
    ],
    ids=range(8),
)
def test_a_survey_of_another_shape_is_refused_with_the_place(survey: Data, says: str) -> None:
    with pytest.raises(MalformedError, match=re.escape(says)):
        _results.take("component_version", survey)


@pytest.mark.parametrize(
    ("survey", "says"),
    [
        (changed("components/other", good()["components"]["node_exporter"]), "was not asked for"),
        (changed("components/other@9101", good()["components"]["node_exporter"]), "was not asked for"),
        (changed("components/node_exporter@1", good()["components"]["node_exporter"]), "instance_of is not node_exp"),
        (changed("components/node_exporter/version", None), "has no version or no files"),
        (changed("components/node_exporter/files", []), "has no version or no files"),
        (changed("unfinished", {"loki": "new"}), "unfinished.loki is no attempt"),
    ],
    ids=range(6),
)
def test_a_survey_whose_parts_do_not_fit_is_refused(survey: Data, says: str) -> None:
    taken = _results.take("component_version", survey)
    with pytest.raises(MalformedError, match=re.escape(says)):
        _results.check_survey(taken, ["node_exporter", "prometheus", "alertmanager"])


@pytest.mark.parametrize("name", ["upgrade_bundle_dest", "__upgrade_plan", "upgrade_\x1b]52;c;eA==\x07"])
def test_facts_that_set_variables_are_told_with_their_host(name: str) -> None:
    text = _results.foreign_facts_text({"web1": {"os_family": "Debian"}, "web2": {name: "/etc/passwd", "upgraded": 1}})
    assert text.startswith("facts of hosts set variables of this collection: web2 has ")
    assert text.isprintable()
    assert "web1" not in text
    assert "upgraded" not in text


def test_facts_of_other_names_are_nobody_s_business() -> None:
    assert (
        _results.foreign_facts_text({"web1": {"local": {"upgrade_waves": 1}, "discovered_interpreter_python": "x"}})
        == ""
    )
