# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible_collections.observability.stack.plugins.lookup import catalog
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog


def lookup(*terms: t.Any, **options: t.Any) -> list[dict[str, t.Any]]:
    """Run the lookup with the defaults that its documentation has."""
    documented = yaml.safe_load(catalog.DOCUMENTATION)["options"]
    values = {name: option.get("default") for name, option in documented.items()}
    plugin = catalog.LookupModule()
    plugin.set_options = lambda **kwargs: values.update(kwargs["direct"])
    plugin.get_option = values.__getitem__
    return plugin.run(list(terms), {}, **options)


def test_returns_one_dictionary_of_all_components() -> None:
    assert lookup() == [_catalog.load()]


def test_returns_the_components_that_are_named() -> None:
    assert [list(found) for found in lookup("loki", "promtail")] == [["loki", "promtail"]]


def test_merges_overrides_and_components() -> None:
    mine = {**_catalog._raw()["node_exporter"], "name": "mine", "units": ["mine"]}
    found = lookup(overrides={"mine": {"port": 9999}, "loki": {"order": 1}}, components={"mine": mine})[0]
    assert found["mine"]["port"] == 9999
    assert found["loki"]["order"] == 1


@pytest.mark.parametrize(
    "terms, options, message",
    [
        (["lokki"], {}, "lokki is not a component that the catalog knows; did you mean loki?"),
        ([], {"overrides": {"loki": {"prot": 1}}}, "upgrade_overrides: loki.prot is not a field; did you mean port?"),
        ([], {"components": {"mine": {}}}, "upgrade_components: mine.phase is missing; it has no default"),
    ],
)
def test_errors_are_one_line(terms: list[str], options: dict[str, t.Any], message: str) -> None:
    with pytest.raises(AnsibleError) as caught:
        lookup(*terms, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_examples_are_valid() -> None:
    tasks = yaml.safe_load(catalog.EXAMPLES)
    own = next(task["vars"]["upgrade_components"] for task in tasks if "upgrade_components" in task.get("vars", {}))
    assert lookup(*own, components=own)[0].keys() == own.keys()
    assert yaml.safe_load(catalog.RETURN)["_raw"]["type"] == "list"
