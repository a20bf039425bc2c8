#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_stage
short_description: Bring a release onto a host and prove it there, before anything is touched
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - On the controller, fetches a release's archive once for all hosts, into a cache, and checks it against the release's
    own list of checksums, and against all else that O(release) names. They must agree. A mismatch is an error; so is a
    list without the archive.
  - On the host, checks it again, takes only the wanted files out of it, and proves them. They must be made for the
    host's architecture, run there, and say that they are the wanted version.
  - An archive with names that lead out of it, links, devices, or a member twice is refused as a whole.
  - Then it asks the candidate itself, by O(trials), whether it takes the configuration and the arguments of O(unit). It
    runs in a sandbox, as the unit's user and with the unit's environment, and can write nowhere. What it refuses fails
    the task with the key V(candidate.refused), unless it is accepted. C(docs/trials.md) of the collection tells more.
  - With O(fetch=host), the controller only finds out which sha256 the archive must have, and the host fetches it.
  - The proven files wait in C(staging) of O(state_dir). Nothing outside of it is touched.
  - In check mode the same is done in a temporary directory that is gone afterwards; on the controller the cache is
    filled.
options:
  component:
    description: Name of the component.
    type: str
    required: true
  version:
    description: Version of the release.
    type: str
    required: true
  from_version:
    description: Version that is in place, for the record.
    type: str
  url:
    description: Where the archive is.
    type: str
    required: true
  checksums:
    description: Where the list with its sha256 is. A line for each file, or one bare checksum. Empty if there is none.
    type: str
    required: true
  release:
    description:
      - How the controller gets the release, and what it checks it against. It doesn't go to the host.
      - C(docs/trust.md) and C(docs/releases.md) of the collection tell more.
    type: dict
    suboptions:
      mirror:
        description:
          - Base URLs that stand in for the hosts of O(url) and O(checksums), with the same paths below them, tried in
            turn.
        type: list
        elements: str
      cache_dir:
        description:
          - Directory on the controller for what was fetched.
          - Defaults to C(observability-upgrades) in the user's cache directory.
        type: path
      limits:
        description: How long to try, and how much to take. By name, such as C(attempts), C(size) or C(bandwidth).
        type: dict
      pins:
        description: sha256 of archives, by file name or C(component/version/architecture).
        type: dict
      unverified:
        description: Whether to take a release that has no list of checksums, and that nothing else vouches for.
        type: bool
      signatures:
        description: Signatures that projects make, by component.
        type: dict
      manifest:
        description: The site's own list of releases. With C(path), C(allowed_signers) and C(threshold).
        type: dict
      bundle:
        description: A file that everything is taken from.
        type: path
      bundle_sha256:
        description: sha256 that O(release.bundle) must have.
        type: str
  fetch:
    description:
      - Who fetches the archive. V(controller) does it once for all hosts, and hands it to each; V(host) is each host by
        itself, from the mirrors of O(release) or from O(url).
      - What came until a transfer broke off stays on the host, and the next attempt goes on with it.
      - With a bundle it is always the controller.
    type: str
    choices: [controller, host]
    default: controller
  ahead:
    description:
      - Whether the upgrade is still to come. Then the files wait until an upgrade of the component has succeeded, and
        nothing is recorded of an upgrade.
      - The host's lease is taken for this task only.
    type: bool
    default: false
  members:
    description: For each file to take, by name, its path in the archive. The first is the program that the unit starts.
    type: dict
    required: true
  version_args:
    description: Arguments that make the program tell its version, tried in turn.
    type: list
    elements: list
    default: [[--version]]
  architecture:
    description: The host's architecture, named as releases do.
    type: str
    required: true
  unit:
    description: The unit whose program it is to become. Without it, nothing is asked.
    type: str
  trials:
    description:
      - What the candidate is asked. Each with C(about), C(program), C(args), C(status) and C(fix), as in
        C(docs/catalog.md).
      - All of them are carried out; what is meant for other versions must not be among them.
    type: list
    elements: dict
    default: []
  facts:
    description: Paths that O(trials) speak of, C(config), C(web_config) and C(data), as they are on the host.
    type: dict
    default: {}
  shared:
    description:
      - Other units that run the same file. The candidate is asked with the arguments of each of them, too.
    type: list
    elements: dict
    default: []
    suboptions:
      component:
        description: Key of the component that the unit runs. Findings are reported with it.
        type: str
        required: true
      unit:
        description: The unit.
        type: str
        required: true
      facts:
        description: As O(facts), for that unit.
        type: dict
        default: {}
  help_args:
    description: Arguments that make the program print its flags. Those of O(unit) are looked up there.
    type: list
    elements: str
    default: []
  removed_flags:
    description: What is known of flags that are gone. Each with C(flag), C(since) and C(use).
    type: list
    elements: dict
    default: []
  checks_required:
    description: Whether a check of the candidate that could not be run keeps it from being used.
    type: bool
    default: false
  accept:
    description: Keys of findings that don't keep the candidate from being used.
    type: list
    elements: str
    default: []
  staged_sha256:
    description: sha256 of the archive that is known to be staged on the host already. It saves a transfer.
    type: str
  archive:
    description: Set by the controller's half. The archive on the host.
    type: path
  archive_sha256:
    description: Set by the controller's half. What the archive must be.
    type: str
  urls:
    description: Set by the controller's half. Where the host fetches the archive, in turn.
    type: list
    elements: str
    default: []
  private_urls:
    description: Set by the controller's half. For each of O(urls) the URL with its login; an empty text if it has none.
    type: list
    elements: str
    default: []
  limits:
    description: Set by the controller's half. How long the host tries, and how much it takes.
    type: dict
  verified:
    description: Set by the controller's half. What vouches for the archive, for the record.
    type: list
    elements: str
    default: []
  manifest_number:
    description:
      - Set by the controller's half. The number of the manifest that the release is taken by. A host refuses one that
        is older than the last one it has seen.
    type: int
extends_documentation_fragment:
  - observability.stack._common
  - observability.stack._attributes
  - observability.stack._attributes.actiongroup_upgrade
seealso:
  - module: observability.stack.safe_binary_swap
"""

EXAMPLES = r"""
- name: Stage node_exporter 1.9.0
  observability.stack.release_stage:
    component: node_exporter
    version: 1.9.0
    url: https://github.com/prometheus/node_exporter/releases/download/v1.9.0/node_exporter-1.9.0.linux-amd64.tar.gz
    checksums: https://github.com/prometheus/node_exporter/releases/download/v1.9.0/sha256sums.txt
    members:
      node_exporter: node_exporter-1.9.0.linux-amd64/node_exporter
    architecture: amd64
  become: true
  register: candidate
"""

RETURN = r"""
files:
  description: The proven files, the program first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the file.
      type: str
    path:
      description: Where it waits on the host. In check mode it isn't there any more.
      type: str
    sha256:
      description: Its sha256.
      type: str
archive_sha256:
  description: sha256 of the archive they came from.
  returned: success
  type: str
findings:
  description: What the candidate says against this host.
  returned: always
  type: list
  elements: dict
  contains:
    key:
      description: Its name, by which it can be accepted.
      type: str
      sample: prometheus.config_refused
    severity:
      description:
        - V(blocker), V(accepted), or V(warning).
        - What could not be asked is V(warning), or V(blocker) with O(checks_required).
      type: str
    component:
      description: Name of the component.
      type: str
    message:
      description: What was found, with the program's own reason.
      type: str
    evidence:
      description: The last lines that the program said, without secrets.
      type: list
      elements: str
    fix:
      description: What to do.
      type: str
verified:
  description: What vouches for the archive, a line each.
  returned: success
  type: list
  elements: str
  sample:
    - sha256 of https://github.com/prometheus/node_exporter/releases/download/v1.9.0/sha256sums.txt
    - manifest 7 signed by alice, bob
fetched:
  description: Whether the archive had to be fetched. Otherwise it was in the cache, or on the host.
  returned: success
  type: bool
"""

import contextlib
import itertools
import os
import tempfile
import typing as t
import urllib.parse

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..module_utils import _candidates, _files, _lease, _staging, _store, _transfer, _trial
from ..module_utils._command import run
from ..module_utils._errors import InputError
from ..module_utils._module import arguments, differences, of_version, run_module
from ..module_utils._state import TOUCHED, Step

RELEASE = {
    "mirror": {"type": "list", "elements": "str"},
    "cache_dir": {"type": "path"},
    "limits": {"type": "dict"},
    "pins": {"type": "dict"},
    "unverified": {"type": "bool"},
    "signatures": {"type": "dict"},
    "manifest": {"type": "dict"},
    "bundle": {"type": "path"},
    "bundle_sha256": {"type": "str"},
}


def stage(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if not params["archive_sha256"]:
        raise InputError("this module needs its half on the controller: call it as a task of a playbook")
    release = _staging.Release(
        component=params["component"],
        version=params["version"],
        archive=params["archive"],
        archive_name=os.path.basename(urllib.parse.urlsplit(params["url"]).path),
        archive_sha256=params["archive_sha256"],
        members=params["members"],
        version_args=params["version_args"],
        architecture=params["architecture"],
        unit=params["unit"],
        hidden=(params["state_dir"],),
    )
    ahead, limits = params["ahead"], _transfer.Limits(**(params["limits"] or {}))
    with _store.session(
        params["state_dir"],
        run=params["run"],
        acquire=ahead,
        check_mode=module.check_mode,
        lease_seconds=_lease.LEASE_SECONDS + limits.total * len(params["urls"]),
    ) as session:
        try:
            result = _staged(module, session, release, limits)
        finally:
            if ahead and session.acquired:
                session.release()
    refused = _trial.refused(result["findings"])
    if refused:
        for warning in result.pop("warnings"):
            module.warn(warning)
        module.fail_json(msg=_trial.in_words(refused), key="candidate.refused", **result)
    return result


def _staged(
    module: AnsibleModule, session: _store.Session, release: _staging.Release, limits: _transfer.Limits
) -> dict[str, t.Any]:
    params, step = module.params, Step(release.component, release.version)
    session.document.see_manifest(params["manifest_number"])
    directory = session.layout.staging(step.release)
    with _candidate(module, session, release, limits) as candidate:
        if candidate is None:
            return {"changed": False, "needs_archive": True, "files": [], "findings": []}
        _record(session, step, params, "staged", verified=params["verified"])
        if params["ahead"] and session.writable:
            _candidates.mark_ahead(directory)
        findings = _heard(params, candidate)
    files = candidate.files
    shown = {name: of_version(params["version"], sha) for name, sha in files.items()}
    result = differences(shown if candidate.was_there else {}, shown)
    listed = [{"name": name, "path": os.path.join(directory, name), "sha256": sha} for name, sha in files.items()]
    told = {"files": listed, "fetched": candidate.fetched, "findings": findings}
    unasked = [f"{each['message']}. What to do: {each['fix']}" for each in _trial.not_run(findings)]
    return {**result, **told, "needs_archive": False, "warnings": [*session.warnings, *unasked]}


class _Candidate(t.NamedTuple):
    """A proven candidate: the sha256 of its files by name, and the directory they are in."""

    files: dict[str, str]
    place: str
    was_there: bool
    fetched: bool


@contextlib.contextmanager
def _candidate(
    module: AnsibleModule, session: _store.Session, release: _staging.Release, limits: _transfer.Limits
) -> t.Iterator[_Candidate | None]:
    """The candidate: as it is staged already, or out of the archive; None if that must be had first."""
    step = Step(release.component, release.version)
    directory = session.layout.staging(step.release)
    there = _staging.read_candidate(directory, release)
    if there is not None:
        yield _Candidate(there, directory, was_there=True, fetched=False)
        return
    if not (release.archive or module.params["urls"]):
        yield None
        return
    if session.writable:
        _record(session, step, module.params, "downloading")
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(_archive(module, session, release, limits))
        proven = _proven(module, session, release._replace(archive=archive), directory)
        files, place = stack.enter_context(proven)
        yield _Candidate(files, place, was_there=False, fetched=release.archive is None)


def _heard(params: dict[str, t.Any], candidate: _Candidate) -> list[dict[str, t.Any]]:
    """What the candidate itself says of this host: of each unit that would start it, with that unit's arguments."""
    own = {name: params[name] for name in ("component", "unit", "facts")}
    parts = [own, *params["shared"]] if params["unit"] else []
    return [finding for part in parts for finding in _heard_of(part, params, candidate)]


def _heard_of(part: dict[str, t.Any], params: dict[str, t.Any], candidate: _Candidate) -> list[dict[str, t.Any]]:
    case = _trial.Case(
        component=part["component"],
        version=params["version"],
        unit=part["unit"],
        programs={name: os.path.join(candidate.place, name) for name in params["members"]},
        trials=params["trials"],
        facts=part["facts"],
        help_args=params["help_args"] or [],
        removed_flags=params["removed_flags"],
        hidden=(params["state_dir"],),
        required=params["checks_required"],
    )
    return _trial.hold(run, case, accept=params["accept"])


@contextlib.contextmanager
def _archive(
    module: AnsibleModule, session: _store.Session, release: _staging.Release, limits: _transfer.Limits
) -> t.Iterator[str]:
    """The archive: as it was pushed, or fetched by the host itself. Of what it can't fetch as a whole, a part stays
    for the next attempt."""
    if release.archive:
        yield release.archive
        return
    if not session.writable:
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as temporary:
            yield _fetch(module, session, temporary, limits)
        return
    place = session.layout.staging(f"{Step(release.component, release.version).release}{_candidates.FETCH}")
    _files.ensure_private_directory(place)
    archive = _fetch(module, session, place, limits)
    session.renew()
    try:
        yield archive
    finally:
        session.remove_tree(place)


def _fetch(module: AnsibleModule, session: _store.Session, place: str, limits: _transfer.Limits) -> str:
    """Fetch the archive from the first place that has it. A password in a URL is kept out of all results."""
    sha256 = module.params["archive_sha256"]
    urls = [own or url for url, own in itertools.zip_longest(module.params["urls"], module.params["private_urls"])]
    passwords = filter(None, (urllib.parse.urlsplit(url).password for url in urls))
    module.no_log_values.update(passwords)
    tools = _transfer.Tools(
        open_url=open_url, machine="host", setting="", say=lambda _text: None, warn=session.warnings.append
    )
    target = os.path.join(place, "archive")
    if _files.sha256_or_none(target) != sha256:
        _transfer.download(urls, target, sha256=sha256, listed="the controller", limits=limits, tools=tools)
    return target


@contextlib.contextmanager
def _proven(
    module: AnsibleModule, session: _store.Session, release: _staging.Release, directory: str
) -> t.Iterator[tuple[dict[str, str], str]]:
    """Unpack and prove in a directory that gets its name only when all is proven. In check mode it is a temporary one,
    which is there within the context only."""
    if not session.writable:
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as temporary:
            yield _staging.unpack(run, release, temporary), temporary
        return
    building = f"{directory}.new"
    session.remove_tree(building)
    _files.ensure_private_directory(building)
    try:
        files = _staging.unpack(run, release, building)
    except BaseException:
        _files.remove_tree(building)
        raise
    session.remove_tree(directory)
    _files.rename(building, directory)
    yield files, directory


def _record(session: _store.Session, step: Step, params: dict[str, t.Any], state: str, **fields: t.Any) -> None:
    """Record the candidate's way. A component that crossed the line in an earlier attempt stays where it stands; one
    whose candidate isn't what was proven any more begins anew. Ahead of an upgrade there is nothing to record but the
    manifest that was seen."""
    document = session.document
    if params["ahead"]:
        if params["manifest_number"] is not None:
            session.save()
        return
    document.start_step(step, from_version=params["from_version"], now=session.now)
    here = document.component(step.component)["state"]
    if (here, state) == ("staged", "downloading"):
        document.set_component(step.component, "checking", now=session.now)
    if here not in TOUCHED:
        document.set_component(step.component, state, now=session.now, **fields)
    session.save()


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            component={"type": "str", "required": True},
            version={"type": "str", "required": True},
            from_version={"type": "str"},
            url={"type": "str", "required": True},
            checksums={"type": "str", "required": True},
            release={"type": "dict", "options": RELEASE},
            fetch={"type": "str", "choices": ["controller", "host"], "default": "controller"},
            ahead={"type": "bool", "default": False},
            members={"type": "dict", "required": True},
            version_args={"type": "list", "elements": "list", "default": [["--version"]]},
            architecture={"type": "str", "required": True},
            unit={"type": "str"},
            trials={"type": "list", "elements": "dict", "default": []},
            facts={"type": "dict", "default": {}},
            shared={
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "component": {"type": "str", "required": True},
                    "unit": {"type": "str", "required": True},
                    "facts": {"type": "dict", "default": {}},
                },
            },
            help_args={"type": "list", "elements": "str", "default": []},
            removed_flags={"type": "list", "elements": "dict", "default": []},
            checks_required={"type": "bool", "default": False},
            accept={"type": "list", "elements": "str", "default": []},
            staged_sha256={"type": "str"},
            archive={"type": "path"},
            archive_sha256={"type": "str"},
            urls={"type": "list", "elements": "str", "default": []},
            private_urls={"type": "list", "elements": "str", "default": [], "no_log": True},
            limits={"type": "dict"},
            verified={"type": "list", "elements": "str", "default": []},
            manifest_number={"type": "int"},
        ),
        supports_check_mode=True,
    )
    run_module(module, stage)


if __name__ == "__main__":
    main()
