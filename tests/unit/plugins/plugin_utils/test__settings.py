# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each variable, in each form that an operator can send."""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.parsing.splitter import parse_kv
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _settings, _wish
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = pathlib.Path(__file__).parents[4]
DEFAULTS = yaml.safe_load((ROOT / "roles" / "settings" / "defaults" / "main.yml").read_text(encoding="utf-8"))
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}[a-z0-9]", fullmatch=True).filter(
    lambda name: name not in ("true", "false", "yes", "no", "on", "off", "null")
)
VERSIONS = st.from_regex(r"(>=|<|==)?[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?", fullmatch=True)
BY_NAME = st.dictionaries(NAMES, VERSIONS, min_size=1, max_size=4)
MAPPINGS = st.dictionaries(NAMES, st.one_of(VERSIONS, st.integers(0, 999), st.booleans()), min_size=1, max_size=4)
TEXTS = st.from_regex(r"[A-Za-z][A-Za-z0-9_./-]{0,20}", fullmatch=True)
URLS = st.lists(TEXTS.map("https://mirror.example/{}".format), min_size=1, max_size=3)
ALERTMANAGERS = st.fixed_dictionaries(
    {"url": URLS, "required": st.booleans(), "validate_certs": st.booleans(), "duration": st.integers(1, 9999)}
)


def of_kind(name: str) -> st.SearchStrategy[t.Any]:
    """Values of a variable, in their true type."""
    special: dict[str, st.SearchStrategy[t.Any]] = {
        "upgrade_versions": BY_NAME,
        "upgrade_pins": BY_NAME,
        "upgrade_release_pins": BY_NAME,
        "upgrade_waves": st.lists(st.one_of(st.integers(1, 999), st.integers(1, 100).map("{}%".format)), min_size=1),
        "upgrade_release_mirror": URLS,
        "upgrade_rollback_kinds": st.lists(st.sampled_from(["binary", "unit", "config"]), min_size=1),
        "upgrade_blacklist": st.lists(MAPPINGS, min_size=1, max_size=3),
        "upgrade_windows": st.lists(MAPPINGS, min_size=1, max_size=3),
        "upgrade_alertmanager": ALERTMANAGERS,
        "upgrade_mode": st.sampled_from(["safe", "standard", "fast"]),
        "upgrade_on_failure": st.sampled_from(["abort", "continue"]),
        "upgrade_fetch": st.sampled_from(["controller", "host"]),
        "upgrade_restart": st.sampled_from(["graceful", "fast", "reload"]),
        "upgrade_cache_size": st.integers(1, 999).map("{}GB".format),
        "upgrade_hosts": st.lists(NAMES, min_size=1, max_size=4),
    }
    if name in special:
        return special[name]
    default = _settings.SETTINGS[name].default
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(0, 1000)
    if isinstance(default, dict):
        return MAPPINGS
    return st.lists(NAMES, min_size=1, max_size=4) if isinstance(default, tuple) else TEXTS


def forms(value: t.Any) -> t.Iterator[tuple[str, t.Any]]:
    """How a value can be sent."""
    yield "native", value
    yield "JSON text", json.dumps(value)
    yield "JSON text with white space", f"\n  {json.dumps(value, indent=2)}\n"
    yield "YAML text", yaml.safe_dump(value, default_flow_style=False).removesuffix("...\n")
    yield "flow YAML text", yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n")
    if isinstance(value, bool):
        for text in ("yes", "True", "ON", "1", "y") if value else ("no", "FALSE", "Off", "0", "n"):
            yield text, text
        yield "number", int(value)
    elif isinstance(value, (int, str)):
        yield "text", str(value)
        yield "quoted text", f'"{value}"'
    elif isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        for separator in (",", ", ", "\n", ",\n"):
            yield f"separated by {separator!r}", separator.join(map(str, value))
        if len(value) == 1:
            yield "the only item", value[0]
    elif isinstance(value, dict) and not any(isinstance(item, (list, dict)) for item in value.values()):
        pairs = [f"{key}={json.dumps(item) if isinstance(item, bool) else item}" for key, item in value.items()]
        for separator in (",", ", ", " ", "\n"):
            yield f"pairs separated by {separator!r}", separator.join(pairs)


@pytest.mark.parametrize("name", sorted(_settings.SETTINGS))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_value_is_the_same_in_each_form(name: str, data: st.DataObject) -> None:
    value = data.draw(of_kind(name))
    for form, sent in forms(value):
        read = _settings.value(name, sent)
        if name == "upgrade_hosts":  # one pattern, in whatever form
            read = [host.strip() for host in read.split(",")]
        elif form.startswith("pairs") and name not in ("upgrade_versions", "upgrade_pins", "upgrade_release_pins"):
            assert {key: str(item) for key, item in read.items()} == {
                key: str(yaml.safe_load(str(item)) if isinstance(item, str) and item[0] not in "<>=" else item)
                for key, item in value.items()
            }, form
            continue
        assert (read, type(read)) == (value, type(value)), form


@pytest.mark.parametrize("name", sorted(_settings.SETTINGS))
@pytest.mark.parametrize("empty", [None, "", "  ", "\n", '""'])
def test_an_empty_value_is_the_default(name: str, empty: t.Any) -> None:
    default = _settings.SETTINGS[name].default
    assert _settings.value(name, empty) == (list(default) if isinstance(default, tuple) else default)


def test_a_default_is_not_shared() -> None:
    _settings.value("upgrade_only", "").append("x")
    _settings.value("upgrade_versions", "")["x"] = "1"
    assert (_settings.value("upgrade_only", ""), _settings.value("upgrade_versions", "")) == ([], {})


@pytest.mark.parametrize(
    ("name", "sent", "value"),
    [
        ("upgrade_download_only", "false", False),
        ("upgrade_rehearse", "no", False),
        ("upgrade_rehearse", "False ", False),
        ("upgrade_pause", "5", 5),
        ("upgrade_pause", 5.0, 5),
        ("upgrade_rollback_kinds", "binary", ["binary"]),
        ("upgrade_waves", '[1,"100%"]', [1, "100%"]),
        ("upgrade_waves", "[1, 25%, 100%]", [1, "25%", "100%"]),
        ("upgrade_waves", "1,25%,100%", [1, "25%", "100%"]),
        ("upgrade_waves", "- 1\n- 25%\n", [1, "25%"]),
        ("upgrade_waves", 2, [2]),
        ("upgrade_waves", ["50 %", "3"], ["50%", 3]),
        ("upgrade_only", "node_exporter", ["node_exporter"]),
        ("upgrade_only", "node_exporter,\nloki\n", ["node_exporter", "loki"]),
        ("upgrade_only", "['a', 'b']", ["a", "b"]),
        ("upgrade_phases", [], list(_settings.PHASES)),
        ("upgrade_accept", "a.b,c.d", ["a.b", "c.d"]),
        ("upgrade_versions", '{"node_exporter": "1.9.0"}', {"node_exporter": "1.9.0"}),
        ("upgrade_versions", "node_exporter=1.10", {"node_exporter": "1.10"}),
        ("upgrade_versions", "node_exporter: 1.10", {"node_exporter": "1.10"}),
        ("upgrade_versions", "prometheus=>=2.53,<3,loki=latest", {"prometheus": ">=2.53,<3", "loki": "latest"}),
        ("upgrade_versions", "prometheus=>=2.53,<3 loki=3.5.*", {"prometheus": ">=2.53,<3", "loki": "3.5.*"}),
        ("upgrade_versions", {"node_exporter": "", "loki": "3.5.0"}, {"loki": "3.5.0"}),
        ("upgrade_versions", "node_exporter=,loki=3.5.0", {"loki": "3.5.0"}),
        ("upgrade_versions", "{}", {}),
        ("upgrade_pins", "prometheus: <3", {"prometheus": "<3"}),
        ("upgrade_policy", "default=minor", {"default": "minor"}),
        ("upgrade_policy", "prometheus: {step: any, min_age: 7}", {"prometheus": {"step": "any", "min_age": 7}}),
        ("upgrade_windows", "{days: [sat], start: '22:00'}", [{"days": ["sat"], "start": "22:00"}]),
        ("upgrade_windows", "[]", []),
        ("upgrade_release_limits", "attempts=5,size=500MB", {"attempts": 5, "size": "500MB"}),
        (
            "upgrade_release_mirror",
            "http://a.example/x,y, http://b.example\nhttp://c.example",
            ["http://a.example/x,y", "http://b.example", "http://c.example"],
        ),
        ("upgrade_mode", "SAFE", "safe"),
        ("upgrade_stack", 7, "7"),
        ("upgrade_hosts", "web[1:3]:!web2", "web[1:3]:!web2"),
        ("upgrade_hosts", '["web1", "web2"]', "web1,web2"),
        ("upgrade_hosts", "web1\nweb2\n", "web1,web2"),
        ("upgrade_hosts", [], []),
        ("upgrade_report_dir", "", ""),
        ("upgrade_plan", {"kind": "upgrade"}, {"kind": "upgrade"}),
        (
            "upgrade_alertmanager",
            "http://am.example:9093",
            {"url": ["http://am.example:9093"], "required": False, "validate_certs": True},
        ),
        (
            "upgrade_alertmanager",
            '{"url": "http://am.example", "required": "no", "validate_certs": "off"}',
            {"url": "http://am.example", "required": False, "validate_certs": False},
        ),
    ],
)
def test_what_people_send_is_what_they_mean(name: str, sent: t.Any, value: t.Any) -> None:
    assert _settings.value(name, sent) == value


@pytest.mark.parametrize("text", ["upgrade_waves=1,25%,100%", 'upgrade_versions=\'{"loki": "3.5.0"}\''])
def test_what_ansible_makes_of_key_value_is_taken(text: str) -> None:
    (name, sent) = next(iter(parse_kv(to_text(text)).items()))
    assert _settings.value(name, sent) in ([1, "25%", "100%"], {"loki": "3.5.0"})


@pytest.mark.parametrize(
    ("name", "sent", "message"),
    [
        ("upgrade_rehearse", "maybe", "upgrade_rehearse is 'maybe'; it must be true or false"),
        ("upgrade_rehearse", 2, "upgrade_rehearse is 2; it must be true or false"),
        ("upgrade_rehearse", [True], "upgrade_rehearse is [True]; it must be true or false"),
        ("upgrade_pause", "soon", "upgrade_pause is 'soon'; it must be a whole number of seconds from 0 to 86400"),
        ("upgrade_pause", "-1", "upgrade_pause is '-1'; it must be a whole number of seconds"),
        ("upgrade_pause", "5s", "upgrade_pause is '5s'; it must be a whole number of seconds"),
        ("upgrade_pause", 1.5, "upgrade_pause is 1.5; it must be a whole number of seconds"),
        ("upgrade_pause", True, "upgrade_pause is True; it must be a whole number of seconds"),
        ("upgrade_pause", "²", "upgrade_pause is "),
        ("upgrade_backup_keep", 10**7, "upgrade_backup_keep is 10000000; it must be a whole number of restore points"),
        ("upgrade_mode", "turbo", "upgrade_mode is 'turbo'; it must be one of safe, standard, fast"),
        ("upgrade_waves", 0, "upgrade_waves is 0; it must be numbers of hosts"),
        ("upgrade_waves", "[1, 0%]", "upgrade_waves is '[1, 0%]'; it must be numbers of hosts"),
        ("upgrade_waves", "101%", "upgrade_waves is '101%'"),
        ("upgrade_waves", "half", "upgrade_waves is 'half'"),
        ("upgrade_waves", {"a": 1}, "upgrade_waves is {'a': 1}"),
        ("upgrade_only", "[a, [b]]", "upgrade_only is '[a, [b]]'; it must be a list of names"),
        ("upgrade_only", "[a", "upgrade_only is '[a'; it must be a list of names"),
        ("upgrade_versions", "1.9.0", "upgrade_versions is '1.9.0'; it must be a dictionary"),
        ("upgrade_versions", "[a]", "upgrade_versions is '[a]'"),
        ("upgrade_versions", {1: "2"}, "upgrade_versions is {1: '2'}"),
        ("upgrade_versions", "{a: 1, a: 2}", "upgrade_versions is '{a: 1, a: 2}'"),
        ("upgrade_versions", "a=1,a=2", "upgrade_versions is 'a=1,a=2'"),
        ("upgrade_overrides", "{a: &x 1, b: *x}", "upgrade_overrides is "),
        ("upgrade_overrides", "!!python/object:os.system {}", "upgrade_overrides is "),
        ("upgrade_windows", "[1]", "upgrade_windows is '[1]'; it must be a list of dictionaries"),
        ("upgrade_rollback_kinds", "binary,data", "upgrade_rollback_kinds is 'binary,data'"),
        ("upgrade_state_dir", ["/x"], "upgrade_state_dir is ['/x']; it must be the path of a directory"),
        ("upgrade_state_dir", "/x\n/y", "upgrade_state_dir is '/x\\n/y'"),
        ("upgrade_cache_size", "large", "upgrade_cache_size is 'large'; it must be a number of bytes"),
        ("upgrade_stack", "\x1b[31m", "upgrade_stack is '\\x1b[31m'; it must be a name"),
        ("upgrade_alertmanager", {"user": "x"}, "upgrade_alertmanager has a value that is not shown"),
        ("upgrade_hosts", {"a": 1}, "upgrade_hosts is {'a': 1}"),
    ],
)
def test_a_wrong_value_is_one_message_with_what_is_taken(name: str, sent: t.Any, message: str) -> None:
    with pytest.raises(InputError) as failure:
        _settings.value(name, sent)
    assert str(failure.value).startswith(message)
    assert (failure.value.key, "\n" in str(failure.value)) == (f"input.{name}", False)
    assert _settings.problems({name: sent}) == [str(failure.value)]


@pytest.mark.parametrize("name", [name for name, each in _settings.SETTINGS.items() if each.secret])
def test_a_secret_is_never_shown(name: str) -> None:
    for sent in ("{token: hunter2", ["hunter2", ["hunter2"]], {"hunter2": 1, 2: "hunter2"}, 'x: "hunter2" y'):
        for line in _settings.problems({name: sent}):
            assert "hunter2" not in line


def test_a_long_value_is_cut_and_what_looks_like_a_secret_is_hidden() -> None:
    (line,) = _settings.problems({"upgrade_pause": "x" * 10_000_000})
    assert len(line) < 400
    (line,) = _settings.problems({"upgrade_fetch": "https://user:hunter2@mirror.example"})
    assert "hunter2" not in line


def test_a_template_that_cannot_be_evaluated_is_named() -> None:
    def evaluate(value: t.Any) -> t.Any:
        raise AnsibleError(f"no {value}")

    with pytest.raises(InputError, match="upgrade_pause cannot be evaluated: no x"):
        _settings.given({"upgrade_pause": "x", "other": "y"}, evaluate)
    assert _settings.given({"upgrade_pause": "x", "other": "y"}, str.upper) == {"upgrade_pause": "X"}


def test_a_name_that_is_nearly_one_is_told() -> None:
    names = ["upgrade_version", "upgrade_overides", "upgrade_report", "upgrade_outcome", "upgrade_mine", "version"]
    assert _settings.misspelt([*names, *_settings.SETTINGS]) == [
        "upgrade_version has no effect; did you mean upgrade_versions?",
        "upgrade_overides has no effect; did you mean upgrade_overrides?",
    ]


# -- the table and the roles ------------------------------------------------------------------------------------------


def test_the_table_has_the_variables_and_the_defaults_of_the_roles() -> None:
    assert set(_settings.SETTINGS) - {"upgrade_hosts"} == set(DEFAULTS)
    for name, default in DEFAULTS.items():
        if name != "upgrade_report_dir":  # a template
            assert _settings.value(name, None) == default, name
            assert _settings.value(name, default) == default, name


def test_the_roles_read_each_variable_by_its_own_name() -> None:
    values = yaml.safe_load((ROOT / "roles" / "settings" / "vars" / "main.yml").read_text(encoding="utf-8"))
    made = values["__upgrade"]
    assert {f"upgrade_{name}" for name in made} == set(_settings.SETTINGS) - {"upgrade_hosts"}
    for name, template in made.items():
        wanted = f"upgrade_{name}"
        assert template.startswith(f"{{{{ {wanted} |"), name
        assert template.endswith(f"| observability.stack._setting('{wanted}') }}}}"), name


def test_no_task_reads_a_variable_as_it_was_given() -> None:
    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if (
                not line.lstrip().startswith("#")
                and "_setting('upgrade_" not in line
                and ".hosts', upgrade" not in line
            ):
                told = set(re.findall(r"(?<![\w.'/])upgrade_[a-z_]+\b(?!=)", line)) & set(_settings.SETTINGS)
                assert not told, f"{path}:{number}: {line}"


def test_a_request_is_made_of_variables() -> None:
    assert {f"upgrade_{name}" for name in _wish.FIELDS} <= set(_settings.SETTINGS)
    assert _wish.PHASES == _settings.PHASES


def test_no_argument_spec_refuses_the_text_of_a_value() -> None:
    """Ansible checks the arguments of a role before its tasks do. What takes more than text is raw there."""
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for spec in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            for name, option in spec["options"].items():
                is_text = _settings.SETTINGS[name].read is _settings._text
                assert option["type"] in (("str", "path", "raw") if is_text else ("raw", "str")), f"{path}: {name}"
                assert not {"choices", "elements"} & set(option), f"{path}: {name}"
                assert is_text or option["type"] == "raw" or name in {"upgrade_plan", "upgrade_cache_size"}
