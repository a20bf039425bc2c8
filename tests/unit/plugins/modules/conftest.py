# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import types

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _module


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules want root on a host. What they do here, in the test's own directory, any user may."""
    monkeypatch.setattr(_module, "os", types.SimpleNamespace(geteuid=lambda: 0))
