# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collections are found as Ansible finds them, so that templates in tests know the collection's own filters. Temporary
directories are where nobody else can write."""

from __future__ import annotations

import os
import pathlib
import pwd
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


def pytest_configure() -> None:
    """Below /tmp, which anybody can write, the collection follows no link, and has no state directory. So the tests'
    own directories, tmp_path, are below the home of the user who runs them."""
    private = pathlib.Path(pwd.getpwuid(os.geteuid()).pw_dir, ".cache", "obs-tests")
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(private))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No tests are no success. ansible-test would take the status that pytest has for it as one."""
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
