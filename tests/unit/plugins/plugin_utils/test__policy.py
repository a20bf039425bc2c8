# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime as dt
import typing as t

from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _policy

TODAY = dt.date(2026, 11, 21)
KNOWN = ("alertmanager", "node_exporter", "prometheus", "promtail")


def rules(**variables: t.Any) -> _policy.Rules:
    return _policy.read(
        **{"policy": None, "pins": None, "blacklist": None, "allow_downgrade": None, **variables}, known=KNOWN
    )


def against(
    version: str,
    here: str,
    *,
    name: str = "prometheus",
    date: str | None = None,
    exact: bool = True,
    **variables: t.Any,
) -> list[_policy.Refusal]:
    entry = _catalog.load()[name]
    return _policy.refusals(
        name,
        version,
        here=here,
        date=date,
        rules=rules(**variables),
        advisories=entry["advisories"],
        last_release=entry["last_release"],
        today=TODAY,
        exact=exact,
    )


def test_step() -> None:
    (found,) = against("3.5.3", "2.42.0", policy={"prometheus": "minor"})
    assert found == _policy.Refusal(
        "policy_step",
        "3.5.3 is a major step from 2.42.0, and upgrade_policy.prometheus allows minor",
        "allow it: upgrade_policy: {prometheus: any}; or accept prometheus.policy_step",
    )
    assert against("3.5.3", "2.42.0") == []
