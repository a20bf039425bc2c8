# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of the Molecule scenario layouts, against the document that shows them."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
import typing as t

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LEAST = {"upgraded": 20, "": 60}
"""How many rows there are at least, by how their outcome begins."""


def load() -> t.Any:
    """The scenario's own module: it is in no package."""
    spec = importlib.util.spec_from_file_location("layouts", ROOT / "molecule/layouts/layouts.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["layouts"] = module
    spec.loader.exec_module(module)
    return module


layouts = load()
ROWS = layouts.rows()


def test_the_document_shows_the_rows() -> None:
    text = layouts.DOCUMENT.read_text(encoding="utf-8")
    assert text == layouts.document(text), "run molecule/layouts/layouts.py"


@pytest.mark.parametrize(("outcome", "least"), LEAST.items())
def test_there_are_as_many_rows_as_promised(outcome: str, least: int) -> None:
    assert sum(row["outcome"].startswith(outcome) for row in ROWS) >= least


@pytest.mark.parametrize("key", sorted({row["not_upgradable"] for row in ROWS} - {""}))
def test_each_key_is_explained(key: str) -> None:
    assert f"`{key}`" in (ROOT / "docs/discovery.md").read_text(encoding="utf-8")


def test_no_host_has_a_component_twice_at_a_time() -> None:
    placed = [(batch, host, row["component"]) for batch, host, row in layouts.spread(ROWS)]
    assert len(placed) == len(set(placed)) == len(ROWS)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"layout": "x", "component": "node_exporter", "outcome": "planned"}, "source missing"),
        ({"layout": "x", "component": "node_exporter", "source": "y", "outcome": "planned", "unti": ""}, "unti is no"),
    ],
)
def test_a_row_with_a_mistake_is_refused(row: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        layouts.complete({"kind": "kind", **row}, {"node_exporter": {}})
