# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible.template import trust_as_template


def variables(**own: t.Any) -> dict[str, t.Any]:
    hostvars = {"web1": {"ansible_facts": {"os_family": "Debian"}}, "web2": {}}
    return {"inventory_hostname": "web1", "ansible_play_hosts_all": ["web1", "web2"], "hostvars": hostvars, **own}


def test_values_in_all_forms_pass_and_nothing_goes_to_a_host(act: t.Any) -> None:
    given = variables(
        upgrade_versions="node_exporter=1.9.0", upgrade_rehearse="no", upgrade_waves="1,25%", upgrade_mine="anything"
    )
    result = act("settings", variables=given)
    assert (result.get("failed"), result["changed"], act.sent) == (None, False, [])


@pytest.mark.parametrize(
    ("own", "key", "says"),
    [
        ({"upgrade_pause": "soon"}, "input.settings", "upgrade_pause is 'soon'; it must be a whole number of seconds"),
        (
            {"upgrade_mode": "turbo", "upgrade_fetch": "me"},
            "input.settings",
            "upgrade_fetch is 'me'; it must be one of controller, host\nupgrade_mode is 'turbo'; it must be one of ",
        ),
        ({"upgrade_versions": "nobody=1.0"}, "input.unknown_component", "upgrade_versions names nobody"),
        ({"upgrade_pause": "{{ unheard_of }}"}, "input.upgrade_pause", "upgrade_pause cannot be evaluated: "),
    ],
)
def test_a_wrong_value_is_a_line_of_one_message(act: t.Any, own: dict[str, str], key: str, says: str) -> None:
    given = variables(**{name: trust_as_template(value) for name, value in own.items()})
    result = act("settings", variables=given)
    assert (result["failed"], result["key"], says in result["msg"]) == (True, key, True), result["msg"]


def test_facts_of_any_host_with_the_name_of_a_variable_are_refused(act: t.Any) -> None:
    given = variables()
    given["hostvars"]["web2"] = {"ansible_facts": {"upgrade_waves": ["100%"]}}
    result = act("settings", variables=given)
    assert (result["failed"], result["key"]) == (True, "host.sets_variables")
    assert "web2 has upgrade_waves" in result["msg"]
