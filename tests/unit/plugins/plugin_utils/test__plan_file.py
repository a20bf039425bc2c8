# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, UpgradeError
from ansible_collections.observability.stack.plugins.plugin_utils import _plan_file
from ansible_collections.observability.stack.tests.unit.signers import ssh_keys

NOBODY = 65534
TEXT = '{"kind": "upgrade"}'


class Saved:
    """A plan in a file, and people who sign it: alice and bob, who may, and eve, who may not."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path, self.signers = directory / "plan.json", directory / "allowed_signers"
        self.path.write_text(TEXT)
        self.keys = ssh_keys(directory, "alice", "bob", "eve")
        lines = [f"{name} {self.keys[name].with_suffix('.pub').read_text()}" for name in ("alice", "bob")]
        self.signers.write_text("".join(lines))

    def sign(self, name: str, *, to: str = ".sig", namespace: str = "observability-plan") -> None:
        copy = self.path.with_name("copy")
        shutil.copy(self.path, copy)
        argv = ["ssh-keygen", "-Y", "sign", "-f", str(self.keys[name]), "-n", namespace, str(copy)]
        subprocess.run(argv, check=True, capture_output=True)
        copy.with_name("copy.sig").rename(f"{self.path}{to}")

    def read(self, **arguments: t.Any) -> str:
        return _plan_file.read(str(self.path), **arguments)

    def signed(self, **more: t.Any) -> str:
        return self.read(signers={"allowed_signers": str(self.signers), **more})

    def refused(self, **more: t.Any) -> str:
        with pytest.raises(UpgradeError) as failure:
            self.signed(**more)
        assert "\n" not in str(failure.value)
        return failure.value.key


@pytest.fixture
def saved(tmp_path: pathlib.Path) -> Saved:
    return Saved(tmp_path)


def test_a_plan_that_only_the_operator_can_change_is_read(saved: Saved) -> None:
    assert saved.read() == saved.read(signers={}) == saved.read(signers="") == TEXT


@pytest.mark.parametrize("how", ["file", "directory", "mode"])
def test_a_plan_that_others_can_change_is_read_if_it_was_approved_or_is_only_shown(saved: Saved, how: str) -> None:
    if how == "mode":
        saved.path.chmod(0o666)
    else:
        os.chown(saved.path if how == "file" else saved.path.parent, NOBODY, 0)
    with pytest.raises(InputError, match="Look at it with the playbook plan and approve it") as failure:
        saved.read()
    assert failure.value.key == "plan.foreign"
    assert saved.read(approved="0" * 64) == saved.read(foreign=True) == TEXT


def test_a_plan_that_is_signed_is_read_wherever_it_is(saved: Saved) -> None:
    saved.sign("alice")
    os.chown(saved.path, NOBODY, 0)
    assert saved.signed() == TEXT
    assert saved.refused(threshold=2) == "plan.threshold"
    saved.sign("bob", to=".2.sig")
    assert saved.signed(threshold="2") == TEXT


def test_a_plan_that_is_not_signed_as_it_must_be_is_refused_also_where_nobody_else_can_write(saved: Saved) -> None:
    assert saved.refused() == "plan.unsigned"
    saved.sign("eve")
    assert saved.refused() == "plan.unknown_key"
    saved.sign("alice", namespace="observability-manifest")
    assert saved.refused() == "plan.bad_signature"
    saved.sign("alice")
    saved.path.write_text(TEXT.replace("upgrade", "rollback"))
    assert saved.refused() == "plan.bad_signature"
    assert saved.refused(threshold=3) == "input.plan_threshold"


def test_the_digest_does_not_stand_in_for_a_signature_that_is_wanted(saved: Saved) -> None:
    with pytest.raises(UpgradeError) as failure:
        saved.read(signers={"allowed_signers": str(saved.signers)}, approved="0" * 64, foreign=True)
    assert failure.value.key == "plan.unsigned"


@pytest.mark.parametrize("signers", ["x", [], 7, {"threshold": 1}, {"allowed_signers": "/x", "keys": 1}, {"keys": []}])
def test_signers_that_are_none_are_told(saved: Saved, signers: t.Any) -> None:
    if signers == []:
        signers = [1]
    with pytest.raises(InputError, match="upgrade_plan_signers is ") as failure:
        saved.read(signers=signers)
    assert failure.value.key == "input.plan_signers"


def test_what_can_not_be_read_is_told(saved: Saved, tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("none", "fifo", "binary", ""):
        with pytest.raises(InputError, match=f"upgrade_plan: {tmp_path}") as failure:
            _plan_file.read(str(tmp_path / name))
        assert failure.value.key == "plan.unreadable"
