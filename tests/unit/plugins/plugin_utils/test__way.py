# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.tests.unit.surveys import (
    STACK,
    drafted,
    facts,
    finding_keys,
    keys,
    survey,
)


@pytest.mark.parametrize(
    ("here", "target", "stages", "hops"),
    [
        ("2.42.0", "3.5.3", [">=2.55,<3"], ["2.55.1", "3.5.3"]),
        ("2.55.0", "3.5.3", [">=2.55,<3"], ["3.5.3"]),
        ("2.42.0", "2.55.0", [">=2.55,<3"], ["2.55.0"]),
        ("2.42.0", "2.53.3", [">=2.55,<3"], ["2.53.3"]),
        ("3.1.0", "3.5.3", [">=2.55,<3"], ["3.5.3"]),
        ("2.42.0", "3.5.3", ["2.53.3"], ["2.53.3", "3.5.3"]),
        ("2.53.3", "3.5.3", ["2.53.3"], ["3.5.3"]),
        ("2.42.0", "3.5.3", [], ["3.5.3"]),
        ("2.30.0", "3.5.3", ["2.53.3", "2.42.0"], ["2.42.0", "2.53.3", "3.5.3"]),
    ],
)
def test_stages_lie_strictly_between(here: str, target: str, stages: list[str], hops: list[str]) -> None:
    found = survey({"prometheus": facts("prometheus", here)})
    planned = drafted(found, {"prometheus": target}, overrides={"prometheus": {"stages": stages}})
    assert keys(planned) == [f"prometheus@{hop}" for hop in hops]


def test_a_stage_that_nobody_knows_a_release_of_blocks() -> None:
    planned = drafted(survey(STACK), {"prometheus": "3.5.3"}, overrides={"prometheus": {"stages": [">=2.54,<2.55"]}})
    assert finding_keys(planned, "blocker") == ["prometheus.unknown_stage"]
    assert keys(planned) == []
