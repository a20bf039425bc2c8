# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The published schema of state.json says what the code writes."""

from __future__ import annotations

import json
import pathlib
import typing as t

import jsonschema
import pytest
from ansible_collections.observability.stack.plugins.module_utils import _schema, _state
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.module_utils._state import Document, Step
from hypothesis import given
from hypothesis import strategies as st

NOW = "2026-11-21T03:00:00Z"
RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "job": "17"}
STEP = Step("node_exporter", "1.9.0")
SCHEMA: dict[str, t.Any] = json.loads((pathlib.Path(__file__).parents[2] / "docs/state.schema.json").read_text())
UPGRADE: dict[str, t.Any] = SCHEMA["properties"]["upgrade"]["properties"]
COMPONENT: dict[str, t.Any] = SCHEMA["properties"]["components"]["additionalProperties"]["properties"]


def check(data: dict[str, t.Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(data)


def ended(outcome: str) -> Document:
    """A host on which one step was gone through, with all that is recorded on the way."""
    document = Document()
    document.begin(
        RUN, steps=[STEP.key], details={"kind": "upgrade", "mode": "standard", "phase": "exporters"}, now=NOW
    )
    document.start_step(STEP, from_version="1.5.0", now=NOW)
    document.see_manifest(7)
    document.set_component(STEP.component, "staged", now=NOW, verified=["manifest 7 signed by alice"])
    if outcome != "aborted":
        document.advance("UPGRADING", now=NOW)
        document.add_restore_point(STEP.component, backup_id="b1", version="1.5.0", now=NOW)
        files = [{"path": "/usr/local/bin/node_exporter", "before": "a" * 64, "after": "b" * 64}]
        document.set_component(STEP.component, "activated", now=NOW, backup_id="b1", files=files)
        check(document.data)
        document.set_component(STEP.component, "verifying", now=NOW)
    if outcome == "succeeded":
        document.installed(STEP.component, STEP.to_version, paths=["/x"], sha256="b" * 64, now=NOW)
    document.end_step(STEP, outcome, now=NOW, error=None if outcome == "succeeded" else "it broke")
    document.close(abandon=True, now=NOW)
    return document


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("outcome", _state.OUTCOMES)
def test_a_document_satisfies_it_however_a_step_ends(outcome: str) -> None:
    check(ended(outcome).data)


def test_a_new_document_satisfies_it() -> None:
    check(_state.new_document())


def without_texts(schema: t.Any) -> t.Any:
    """A schema without what is there for people."""
    if isinstance(schema, list):
        return [without_texts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    told = {"$schema", "$id", "title", "description"} if isinstance(schema.get("description", ""), str) else set()
    return {key: without_texts(each) for key, each in schema.items() if key not in told}


def test_it_is_what_the_code_accepts_to_the_last_field() -> None:
    assert without_texts(SCHEMA) == _schema.DOCUMENT


def test_it_knows_the_states_and_outcomes_of_the_code() -> None:
    assert list(_schema.UPGRADE_STATES) == list(_state.UPGRADE_TRANSITIONS)
    assert list(_schema.COMPONENT_STATES) == list(_state.COMPONENT_TRANSITIONS)
    assert UPGRADE["state"]["enum"] == list(_state.UPGRADE_TRANSITIONS)
    assert UPGRADE["outcome"]["enum"] == list(_state.OUTCOMES)
    assert SCHEMA["properties"]["schema_version"]["minimum"] == _state.SCHEMA_VERSION


def test_it_names_every_key_that_is_written() -> None:
    document = ended("succeeded").data
    assert set(document) <= set(SCHEMA["properties"])
    assert set(document["upgrade"]) <= set(UPGRADE)
    assert set(document["components"]["node_exporter"]) <= set(COMPONENT)


NAMES = st.from_regex(r"[A-Za-z0-9_.+~/ @ü-]{0,70}", fullmatch=True) | st.text(max_size=5)


@given(NAMES)
def test_it_and_the_door_take_the_same_names(name: str) -> None:
    try:
        _state.check_name("run", name)
    except InputError:
        taken = False
    else:
        taken = True
    assert (_schema.problem(name, _schema.UPGRADE["properties"]["upgrade_id"]) == "") == taken


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("upgrade", "state"), "DONE"),
        (("components", "node_exporter", "state"), "done"),
        (("components", "node_exporter", "attempts"), -1),
        (("upgrade", "steps"), {"node_exporter@1.9.0": "maybe"}),
        (("upgrade", "started_at"), "yesterday"),
    ],
)
def test_what_is_wrong_does_not_satisfy_it(path: tuple[str, ...], wrong: t.Any) -> None:
    data = ended("succeeded").data
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong
    with pytest.raises(jsonschema.ValidationError):
        check(data)
