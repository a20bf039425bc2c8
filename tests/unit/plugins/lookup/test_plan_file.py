# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TEXT = "{\"kind\": \"{{ lookup('ansible.builtin.env', 'HOME') }}\"}\n"


def lookup(path: pathlib.Path, arguments: str = "", **variables: t.Any) -> t.Any:
    template = trust_as_template(f"{{{{ lookup('observability.stack.plan_file', path{arguments}) }}}}")
    return Templar(loader=DataLoader(), variables={"path": str(path), **variables}).template(template)


@pytest.fixture
def plan(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "plan.json"
    path.write_text(TEXT)
    return path


def test_the_text_of_a_plan_is_given_as_it_is(plan: pathlib.Path) -> None:
    assert lookup(plan) == lookup(plan, ", signers={}, approved=''") == TEXT


def test_a_plan_that_others_can_change_is_refused_in_one_line_unless_it_is_approved_or_shown(
    plan: pathlib.Path,
) -> None:
    os.chown(plan, 65534, 0)
    with pytest.raises(AnsibleError, match="belongs to user nobody, so that somebody else could have changed it"):
        lookup(plan)
    assert lookup(plan, ", approved=digest", digest="0" * 64) == lookup(plan, ", foreign=true") == TEXT


def test_signatures_are_demanded_by_a_variable(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    signers = tmp_path / "allowed_signers"
    signers.write_text("alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB5sY2Jo\n")
    with pytest.raises(AnsibleError, match=r"isn't signed: there is no .*plan\.json\.sig"):
        lookup(plan, ", signers=signers", signers={"allowed_signers": str(signers)})
    with pytest.raises(AnsibleError, match="upgrade_plan_signers is "):
        lookup(plan, ", signers=signers", signers={"keys": "x"})


@pytest.mark.parametrize("given", [json.loads(TEXT), TEXT, f"\n {TEXT}"], ids=["a dictionary", "text", "indented text"])
def test_a_plan_may_be_given_as_its_content(given: t.Any) -> None:
    """A file ends with the container of the job that made it."""
    path = "{{ lookup('observability.stack.plan_file', given) }}"
    text = Templar(loader=DataLoader(), variables={"given": given}).template(trust_as_template(path))
    assert json.loads(text) == json.loads(TEXT)


def test_content_can_not_be_signed(tmp_path: pathlib.Path) -> None:
    with pytest.raises(AnsibleError, match="which only a file has"):
        lookup(pathlib.Path(TEXT), ", signers=signers", signers={"allowed_signers": str(tmp_path / "signers")})


def test_a_path_is_relative_to_the_working_directory(plan: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plan.parent)
    assert lookup(pathlib.Path("plan.json")) == lookup(pathlib.Path("./plan.json")) == TEXT
