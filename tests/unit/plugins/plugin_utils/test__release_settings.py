# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils._download import LIMITS, Limits
from ansible_collections.observability.stack.plugins.plugin_utils._release_settings import (
    ManifestSource,
    Settings,
    Signature,
    problems,
    read,
)
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st

HASH = "a" * 64


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"mirror": [], "cache_dir": "", "limits": {}, "pins": {}, "unverified": False, "signatures": {}, "bundle": ""},
        {"mirror": "", "cache_dir": None, "limits": None, "manifest": {}, "unverified": ""},
    ],
)
def test_what_is_not_said_has_its_default(given: t.Any) -> None:
    assert read(given) == Settings([], "", LIMITS, {}, False, {}, None, "")


def test_all_that_can_be_said_is_read() -> None:
    given = {
        "mirror": "https://mirror.example",
        "cache_dir": "/c",
        "limits": {"attempts": "3", "size": "500MB", "read": 1.5, "bandwidth": "0", "slowest": "1KB", "pause": 0},
        "pins": {"x.tar.gz": HASH},
        "unverified": "yes",
        "manifest": {"path": "/m.json", "allowed_signers": "/signers", "threshold": "2"},
        "bundle": "/b.tar",
        "bundle_sha256": HASH.upper(),
    }
    found = read(given)
    assert found.bundle_sha256 == HASH
    assert found.mirror == ["https://mirror.example"]
    assert found.limits == LIMITS._replace(attempts=3, size=500 << 20, read=1.5, bandwidth=0, slowest=1 << 10, pause=0)
    assert (found.cache_dir, found.pins, found.unverified, found.bundle) == ("/c", {"x.tar.gz": HASH}, True, "/b.tar")
    assert found.manifest == ManifestSource("/m.json", "/signers", 2)
    assert read({"mirror": ["a", "b"]}).mirror == ["a", "b"]
    assert read({"manifest": {"path": "/m", "allowed_signers": "/s"}}).manifest == ManifestSource("/m", "/s", 1)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"keys": "/k.asc"}, Signature("archive", "{url}.asc", ["/k.asc"], False, [])),
        ({"keys": ["/k"], "of": "checksums"}, Signature("checksums", "{checksums}.asc", ["/k"], False, [])),
        (
            {"keys": ["/k"], "of": "checksums", "cleartext": True, "signature": "{checksums}"},
            Signature("checksums", "{checksums}", ["/k"], True, []),
        ),
        (
            {"cosign": ["--key", "k", "--bundle={signature}"], "signature": "{url}.bundle"},
            Signature("archive", "{url}.bundle", [], False, ["--key", "k", "--bundle={signature}"]),
        ),
        (
            {"cosign": ["--key", "k", "--signature=/x"]},
            Signature("archive", "", [], False, ["--key", "k", "--signature=/x"]),
        ),
    ],
)
def test_a_signature_is_where_its_project_puts_it(entry: t.Any, found: Signature) -> None:
    assert read({"signatures": {"x": entry}}).signatures == {"x": found}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("x", "release is 'x': write a dictionary"),
        ({"mirorr": []}, "release has no 'mirorr': it has mirror, "),
        ({"mirror": 7}, "upgrade_release_mirror is 7: write a list of texts"),
        ({"mirror": [7]}, "upgrade_release_mirror is [7]: write a list of texts"),
        ({"cache_dir": 7}, "upgrade_cache_dir is 7: write the path of a file or directory on the controller"),
        ({"limits": []}, "upgrade_release_limits is []: write a dictionary"),
        ({"limits": {"sizes": 1}}, "upgrade_release_limits has 'sizes', which is no limit: it has attempts, size, "),
        (
            {"limits": {"size": "much"}},
            "upgrade_release_limits.size is 'much': write a number of bytes, or a text like",
        ),
        (
            {"limits": {"size": 0}},
            "upgrade_release_limits.size is 0: write a number of bytes, or a text like 10MB; more",
        ),
        (
            {"limits": {"attempts": 1.5}},
            "upgrade_release_limits.attempts is 1.5: write a number of attempts; more than 0",
        ),
        ({"limits": {"attempts": True}}, "upgrade_release_limits.attempts is True: write"),
        ({"limits": {"attempts": float("inf")}}, "upgrade_release_limits.attempts is inf: write"),
        ({"limits": {"read": "nan"}}, "upgrade_release_limits.read is 'nan': write a number of seconds; more than 0"),
        ({"limits": {"pause": -1}}, "upgrade_release_limits.pause is -1: write a number of seconds; 0 or more"),
        ({"limits": {"read": None}}, "upgrade_release_limits.read is None: write"),
        ({"pins": {"x": "y"}}, "upgrade_release_pins['x'] must be a sha256"),
        ({"unverified": "maybe"}, "upgrade_release_unverified is 'maybe': write true or false"),
        ({"signatures": {"x": {}}}, "upgrade_release_signatures.x is {}: write whose signatures count: either keys"),
        ({"signatures": {"x": {"key": 1}}}, "upgrade_release_signatures.x has 'key': it has of, signature, keys, "),
        (
            {"signatures": {"x": {"keys": ["/k"], "of": "me"}}},
            "upgrade_release_signatures.x.of is 'me': write archive or checksums",
        ),
        (
            {"signatures": {"x": {"keys": ["/k"], "cleartext": True}}},
            "upgrade_release_signatures.x.cleartext is True: write it only with of: checksums and keys",
        ),
        (
            {"signatures": {"x": {"keys": ["/k"], "signature": ""}}},
            "upgrade_release_signatures.x.signature is '': write where it is, such as '{url}.asc'",
        ),
        (
            {"signatures": {"x": {"cosign": ["--key=k"], "signature": "{url}.sig"}}},
            "upgrade_release_signatures.x.cosign is ['--key=k']: write {signature} where the file of",
        ),
        ({"manifest": {"path": "/m", "sha": 1}}, "upgrade_release_manifest has 'sha': it has path, allowed_signers, "),
        ({"manifest": {"path": "/m"}}, "upgrade_release_manifest.allowed_signers is None: write the path of a file on"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(given: t.Any, says: str) -> None:
    with pytest.raises(InputError) as failure:
        read(given)
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)


NAMES = (*Settings._fields, *Signature._fields, *ManifestSource._fields, *Limits._fields)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1GB", "checksums", HASH])
)
ANYTHING = st.recursive(
    LEAVES,
    lambda more: st.lists(more, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), more, max_size=4),
    max_leaves=8,
)


@given_any(st.dictionaries(st.sampled_from(Settings._fields), ANYTHING, max_size=3))
@settings(max_examples=100, deadline=None, database=None)
def test_whatever_is_given_is_read_or_told_in_one_line(given: t.Any) -> None:
    assert all("\n" not in line for line in problems(given))
