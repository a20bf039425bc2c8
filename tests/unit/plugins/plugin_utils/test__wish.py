# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.tests.unit.surveys import STACK, Data, drafted, survey


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"nod_exporter": "1.9.0"}, "nod_exporter, which no catalog entry describes. Known are alertmanager"),
        ({"node_exporter": "banana"}, "'banana' is neither a version"),
        ({"node_exporter": 1.9}, "1.9 is neither a version"),
        ({"node_exporter": None}, "None is neither"),
        ({"node_exporter": ">=7"}, "no release in '>=7': none is known; name an exact version"),
    ],
)
def test_a_wrong_wish_is_refused_by_name(versions: Data, says: str) -> None:
    with pytest.raises(InputError, match=says):
        drafted(survey(STACK), versions)


def test_an_unknown_component_to_narrow_to_is_refused() -> None:
    with pytest.raises(InputError, match="upgrade_only names promehteus"):
        drafted(survey(STACK), {}, only=["promehteus"])
