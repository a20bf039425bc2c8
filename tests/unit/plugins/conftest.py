# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _systemd
from ansible_collections.observability.stack.tests.unit.support import Systemd, Web


@pytest.fixture
def systemd(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """A host's systemd, whose unit files are below the test's own directory."""
    directory = tmp_path / "units"
    directory.mkdir()
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", (str(directory),))
    return Systemd(directory)


@pytest.fixture
def web() -> t.Iterator[Web]:
    with Web().serving() as server:
        yield server
