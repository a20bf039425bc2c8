# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog
from ansible_collections.observability.stack.plugins.plugin_utils._market import Market
from ansible_collections.observability.stack.tests.unit.surveys import CATALOG, Data, listed

NODE = "github:prometheus/node_exporter"
MIRROR = "https://mirror.example/prometheus/node_exporter/releases/download/v{version}"
KNOWN = _catalog.load(overrides={"node_exporter": {"known_releases": ["1.8.2", "1.5.0"]}})["node_exporter"]


def test_what_is_listed_and_what_is_known_is_offered_newest_first() -> None:
    offer = Market({NODE: listed(("1.9.1", "2025-04-01"), "1.11.1", "1.8.2")}).offer(KNOWN)
    assert offer.versions == ["1.11.1", "1.9.1", "1.8.2", "1.5.0"]
    assert (offer.source, offer.note, offer.error) == (NODE, None, None)
    assert (offer.date("1.9.1"), offer.date("v1.9.1"), offer.date("1.11.1"), offer.date("9.9.9")) == (
        "2025-04-01",
        "2025-04-01",
        None,
        None,
    )


def test_a_mirror_has_what_it_lists_and_nothing_else() -> None:
    market = Market({MIRROR: listed("1.9.1"), NODE: listed("1.11.1")}, mirror="https://mirror.example")
    assert market.offer(KNOWN).versions == ["1.9.1"]


@pytest.mark.parametrize("answers", [None, {}, {"github:grafana/loki": listed("3.0.0")}])
def test_without_an_answer_what_the_catalog_knows_is_offered(answers: Data | None) -> None:
    offer = Market(answers).offer(KNOWN)
    assert (offer.versions, offer.source) == (["1.8.2", "1.5.0"], None)


def test_a_lookup_that_failed_offers_what_is_known_and_says_why() -> None:
    offer = Market({MIRROR: listed(error="down", note="old")}, mirror="https://mirror.example").offer(KNOWN)
    assert (offer.versions, offer.error, offer.note) == (["1.8.2", "1.5.0"], "down", "old")


def test_one_offer_is_made_for_all_hosts() -> None:
    market = Market({NODE: listed("1.11.1")})
    assert market.offer(KNOWN) is market.offer({**KNOWN})
    assert market.offer(KNOWN) is not market.offer(CATALOG["node_exporter"])


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([], "releases: [] isn't a dictionary of answers by source"),
        ({NODE: None}, f"releases: {NODE!r} has no list of releases"),
        ({NODE: {}}, f"releases: {NODE!r} has no list of releases"),
        ({NODE: {"releases": "1.9.1"}}, f"releases: {NODE!r} has no list of releases"),
        ({NODE: {"releases": ["1.9.1"]}}, f"releases: {NODE!r} lists '1.9.1', which is no release"),
        ({NODE: {"releases": [{"version": 1.9}]}}, "lists {'version': 1.9}, which is no release"),
        ({NODE: {"releases": [{"version": "1.9.1", "date": 2026}]}}, "which is no release"),
        ({NODE: {"releases": [{"version": "1.9.1", "date": "yesterday"}]}}, "which is no release"),
        ({NODE: {"releases": [], "error": {}}}, f"releases: error of {NODE!r} is {{}}; it must be a text"),
    ],
)
def test_what_no_lookup_returns_is_refused(answers: t.Any, says: str) -> None:
    with pytest.raises(InputError) as failure:
        Market(answers)
    assert says in str(failure.value)
    assert str(failure.value).endswith("; give it what the lookup releases returned")
