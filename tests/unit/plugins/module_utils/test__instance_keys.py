# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _instance_keys
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.module_utils._state import (
    Step,
    check_backup_id,
    check_key,
    is_accepted,
    name_of,
)

Data = dict[str, t.Any]


def facts(unit: str | None, path: str, of: str = "") -> Data:
    return {"unit": unit, "files": [{"path": path}], **({"instance_of": of} if of else {})}


def record(unit: str = "", path: str = "") -> Data:
    return {"probe": {"unit": unit} if unit else None, "inventory": {"paths": [path] if path else []}}


A, B = facts("a.service", "/a/x"), facts("b.service", "/b/x", "x")
FIRST_B = facts("b.service", "/b/x")


@pytest.mark.parametrize(
    ("components", "records", "units"),
    [
        ({"x": A, "x@2": B}, {}, {"x": "a.service", "x@2": "b.service"}),
        ({"x": A}, {"x": record("old.service")}, {"x": "a.service"}),
        (
            {"x": A, "x@2": B},
            {"x": record("a.service"), "x@2": record("b.service")},
            {"x": "a.service", "x@2": "b.service"},
        ),
        # the first one is stopped: the second one keeps its key
        ({"x": FIRST_B}, {"x": record("a.service"), "x@2": record("b.service")}, {"x@2": "b.service"}),
        ({"x": FIRST_B}, {"x": record("a.service"), "x@2": record(path="/b/x")}, {"x@2": "b.service"}),
        # another port: it is the same unit
        (
            {"x": A, "x@3": B},
            {"x": record("a.service"), "x@2": record("b.service")},
            {"x": "a.service", "x@2": "b.service"},
        ),
        # one that the state doesn't know takes nobody's key
        (
            {"x": facts("c@1.service", "/c/x"), "x@2": B},
            {"x": record("a.service"), "x@2": record("b.service")},
            {"x@c-1": "c@1.service", "x@2": "b.service"},
        ),
        ({"x": A, "x@_b": B}, {}, {"x": "a.service", "x@b": "b.service"}),
        ({"x": A, "x@" + "b" * 200: B}, {}, {"x": "a.service", "x@" + "b" * 98: "b.service"}),
        ({"y": A, "x": FIRST_B}, {"x@2": record("b.service")}, {"y": "a.service", "x@2": "b.service"}),
    ],
)
def test_an_instance_keeps_the_key_that_the_state_knows_it_by(components: Data, records: Data, units: Data) -> None:
    found = _instance_keys.kept(components, records)
    assert {key: each["unit"] for key, each in found.items()} == units
    assert all(each.get("instance_of") == (name_of(key) if "@" in key else None) for key, each in found.items())


@pytest.mark.parametrize("step", [Step("a", "1.0"), Step("a@9101", "1.0"), Step("a@x.y", "1.0-rc.1+b")])
def test_a_step_is_found_by_its_key(step: Step) -> None:
    assert Step.of(step.key) == step
    assert step.release == f"a@{step.to_version}"
    assert check_key(step.component) == step.component
    assert check_backup_id(f"u1.{step.component}-1.0")


@pytest.mark.parametrize(
    "key", ["", "@", "a@", "@a", "a@b@c", "a@../b", "a@b/c", "a@.b", "a b", "a@" + "b" * 100, None, 1]
)
def test_what_is_no_key_is_refused(key: object) -> None:
    with pytest.raises(InputError, match=r"key of a component|name of a component"):
        check_key(key)


@pytest.mark.parametrize(
    ("finding", "component", "accept", "accepted"),
    [
        ("a.unhealthy", "a", ["a.unhealthy"], True),
        ("a@1.unhealthy", "a@1", ["a@1.unhealthy"], True),
        ("a@1.unhealthy", "a@1", ["a.unhealthy"], True),
        ("a@1.unhealthy", "a@1", ["a@2.unhealthy"], False),
        ("a.unhealthy", "a", ["a@1.unhealthy"], False),
        ("a@x.y.removed.b", "a@x.y", ["a.removed.b"], True),
        ("host.space", None, ["host.space"], True),
        ("host.space", None, [], False),
    ],
)
def test_a_finding_is_accepted_for_one_instance_or_for_all(
    finding: str, component: str | None, accept: list[str], accepted: bool
) -> None:
    assert is_accepted(finding, component, accept) is accepted
