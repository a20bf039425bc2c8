# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collections are found as Ansible finds them, so that templates in tests know the collection's own filters."""

from __future__ import annotations

import pathlib
import sys

import pytest

try:
    from ansible.plugins.loader import init_plugin_loader
    from ansible.utils.collection_loader import AnsibleCollectionConfig
except ModuleNotFoundError:
    # For tests of what runs on hosts, ansible-test hides all that hosts don't have. They need no plugins.
    finder_is_there = True
else:
    finder_is_there = AnsibleCollectionConfig.collection_finder is not None  # so it is for ansible-test's other tests

if not finder_is_there:
    # The one that is under test comes before one that is installed.
    init_plugin_loader(
        [path for path in sys.path if pathlib.Path(path, "ansible_collections", "observability").is_dir()]
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No tests are no success. ansible-test would take the status that pytest has for it as one."""
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
