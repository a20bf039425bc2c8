# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Another user of the controller, or whoever carries files to it: edited plans and bundles, and a planted cache."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import typing as t

import pytest
from conftest import Data, Server, play

Versions = dict[str, list[str]]
NOBODY = 65534
CANARY = "/root/canary-of-a-plan"


@pytest.fixture
def wish(versions: Versions) -> Data:
    return {"upgrade_versions": {"node_exporter": versions["node_exporter"][1]}}


@pytest.fixture(scope="module")
def made(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a plan that the playbook has saved."""
    directory = tmp_path_factory.mktemp("made")
    wish = {"node_exporter": versions["node_exporter"][1]}
    play("plan", "-l", "host1", upgrade_report_dir=str(directory), upgrade_versions=wish)
    (path,) = directory.glob("plan-*.json")
    return path.read_text()


@pytest.fixture
def plan(made: str, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "plan.json"
    path.write_text(made)
    return path


@pytest.fixture(scope="module", autouse=True)
def _nothing_was_touched(servers: dict[str, Server]) -> t.Iterator[None]:
    before = servers["host1"].snapshot()
    yield
    assert servers["host1"].snapshot() == before


def edit(path: pathlib.Path, change: t.Callable[[Data], object]) -> str:
    """Change a plan and give it a digest that is right, as whoever knows the format can. Returns the old one."""
    plan = json.loads(path.read_text())
    before = str(plan["digest"])
    change(plan)
    decides = {key: plan[key] for key in ("kind", "phases", "hosts", "expects")}
    plan["digest"] = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(plan))
    return before


def refused(*says: str, **variables: t.Any) -> None:
    """A run that ends before anything is touched, and says why."""
    played = play("upgrade", "-l", "host1", code=2, **variables)
    for text in says:
        assert text in played.output
    assert played.changed == 0


def test_a_plan_that_was_edited_and_given_a_new_digest_runs_nothing_of_its_own(
    servers: dict[str, Server], plan: pathlib.Path
) -> None:
    probe = {"kind": "command", "argv": ["/bin/touch", CANARY], "status": [0]}

    def change(data: Data) -> None:
        (step,) = data["hosts"]["host1"].values()
        step["target"]["probes"].append(probe)
        step["stage"].update(version_args=[["--version", CANARY]], url="http://127.0.0.1:9/evil.tar.gz")

    edit(plan, change)
    refused("stage of node_exporter@", "target of node_exporter@", upgrade_plan=str(plan))
    assert servers["host1"].out(f"ls {CANARY} || true") == ""


def test_a_plan_is_carried_out_only_as_it_was_approved_or_signed(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    key, signers = tmp_path / "alice", tmp_path / "allowed_signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers.write_text(f"alice {key.with_suffix('.pub').read_text()}")
    sign = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "observability-plan", str(plan)]
    subprocess.run(sign, check=True, capture_output=True)
    signed = {"upgrade_plan": str(plan), "upgrade_plan_signers": {"allowed_signers": str(signers)}}
    os.chown(plan, NOBODY, 0)
    played = play("plan", "-l", "host1", **signed)
    before = edit(plan, lambda data: data["phases"][0]["because"].update(x=["an edit that changes no step"]))
    assert f"Digest: {before}" in played.output
    refused("isn't alice's signature of this content", **signed)
    refused(f"but upgrade_approved is {before}", upgrade_plan=str(plan), upgrade_approved=before)
    refused(f"{plan} is not used: {plan} belongs to user nobody", upgrade_plan=str(plan))


def test_a_cache_that_another_user_can_write_to_is_refused(wish: Data, tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    says = f"{cache} is not used as a cache: {cache} can be written by others (mode 0777)"
    refused(says, upgrade_cache_dir=str(cache), **wish)


def test_a_bundle_that_was_exchanged_is_refused_before_anything_is_touched(wish: Data, tmp_path: pathlib.Path) -> None:
    bundle = tmp_path / "bundle.tar"
    played = play("bundle", "-l", "host1", upgrade_bundle_dest=str(bundle), **wish)
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert f"upgrade_bundle_sha256: {digest}" in played.output
    bundle.write_bytes(bundle.read_bytes().replace(b'"sha256 of http', b'"signed by http'))
    says = f"and upgrade_bundle_sha256 is {digest}"
    refused(says, upgrade_bundle=str(bundle), upgrade_bundle_sha256=digest, **wish)
    os.chown(bundle, NOBODY, 0)
    refused("nothing is configured that what is in it", upgrade_bundle=str(bundle), **wish)
