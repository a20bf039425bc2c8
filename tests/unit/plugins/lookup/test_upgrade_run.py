# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.observability.stack.plugins.lookup import upgrade_run
from ansible_collections.observability.stack.plugins.module_utils import _module
from ansible_collections.observability.stack.plugins.plugin_utils import _run

Data = dict[str, t.Any]
GONE = 2**22 + 1


def lookup(arguments: str = "", **variables: t.Any) -> Data:
    """What the lookup gives in a task."""
    template = trust_as_template(f"{{{{ lookup('observability.stack.upgrade_run'{arguments}) }}}}")
    return t.cast("Data", Templar(loader=DataLoader(), variables=variables).template(template))


def test_it_tells_which_run_this_is() -> None:
    assert lookup() == _run.this_run()


def test_what_it_tells_is_what_modules_take() -> None:
    options = _module.arguments()["run"]["options"]
    assert set(lookup()) == set(options)


@pytest.mark.parametrize(
    ("changes", "dead"), [({}, []), ({"pid": GONE}, ["u0"]), ({"pid": GONE, "origin": "elsewhere"}, [])]
)
def test_leases_of_runs_that_are_gone_are_named(changes: Data, dead: list[str]) -> None:
    lease = {**_run.this_run(), "upgrade_id": "u0", **changes}
    assert lookup(", leases=[lease]", lease=lease)["dead"] == dead


def test_the_leases_of_many_hosts_are_looked_at_one_by_one() -> None:
    mine = _run.this_run()
    hosts = {
        "h1": {"lease": {**mine, "upgrade_id": "u1", "pid": GONE}},
        "h2": {"lease": {}},
        "h3": {"lease": trust_as_template("{{ other }}")},
        "h4": {"lease": {**mine, "upgrade_id": "u4"}},
    }
    template = ", leases=['h1', 'h2', 'h3', 'h4'] | map('extract', hosts, 'lease')"
    other = {**mine, "upgrade_id": "u3", "pid": GONE}
    assert lookup(template, hosts=hosts, other=other)["dead"] == ["u1", "u3"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(", leases=[lease]", "'lease' is undefined"), (", leases=7", "Invalid value provided for 'list': 7")],
)
def test_what_cannot_be_meant_is_refused(arguments: str, says: str) -> None:
    with pytest.raises(AnsibleError) as failure:
        lookup(arguments)
    assert says in str(failure.value)


def test_all_that_is_returned_is_documented() -> None:
    documented = yaml.safe_load(upgrade_run.RETURN)["_raw"]["description"]
    assert all(f"C({key})" in documented for key in lookup())
