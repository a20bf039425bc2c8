# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _web_config

USERS = [
    "basic_auth_users:\n  prom: $2y$10$x\n",
    "basic_auth_users: # who may read\n  prom: x\n",
    "basic_auth_users:\n\n  # a comment\n\n  prom: x\n",
    "basic_auth_users:\r\n  prom: x\r\n",
    "basic_auth_users: {prom: x}\n",
    "basic_auth_users:\n  {prom: x}\n",
    "basic_auth_users: {\n  prom: x\n}\n",
    "'basic_auth_users':\n  prom: x\n",
    '"basic_auth_users" : {"prom": "x"}\n',
    "basic_auth_users: &users\n  prom: x\n",
    "basic_auth_users: !!map\n  prom: x\n",
    "basic_auth_users: *users\n",
    "---\n  basic_auth_users:\n    prom: x\n",
    "{tls_server_config: {cert_file: a}, basic_auth_users: {prom: x}}\n",
    "{\n  basic_auth_users: {prom: x}\n}\n",
    "\ufeffbasic_auth_users:\n  prom: x\n",
]
NOBODY = [
    "",
    "basic_auth_users:\n",
    "basic_auth_users: {}\n",
    "basic_auth_users: { } # none\n",
    "basic_auth_users: # none\ntls_server_config:\n  cert_file: a\n",
    "basic_auth_users: ~\n",
    "basic_auth_users: null\n",
    "# basic_auth_users:\n#   prom: x\n",
    "other:\n  basic_auth_users:\n    prom: x\n",
    "my_basic_auth_users:\n  prom: x\n",
    "{basic_auth_users: {}, x: {a: b}}\n",
    "basic_auth_users:\n  {}\n",
]


@pytest.mark.parametrize("text", USERS)
def test_users_are_seen_in_every_spelling(text: str) -> None:
    assert _web_config.names_users(text)
    assert _web_config.names_certificate(
        text.replace("tls_server", "x").replace("basic_auth_users", "tls_server_config")
    )


@pytest.mark.parametrize("text", NOBODY)
def test_no_users_are_seen_where_none_are_named(text: str) -> None:
    assert not _web_config.names_users(text)
