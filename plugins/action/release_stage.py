# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half of release_stage: fetch once, prove, and hand the archive to the host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail

from ..module_utils._argv import private_url, redact_url
from ..module_utils._state import name_of
from ..plugin_utils import _obtain
from ..plugin_utils._host_action import HostAction

_WHERE = "where the release's archive and checksums are"
_NEEDED = {  # in the order of _obtain.Wanted
    "component": "the component's name",
    "version": "the release's version",
    "architecture": "the host's architecture, named as releases do",
    "url": _WHERE,
    "checksums": _WHERE,
}


class ActionModule(HostAction):
    """Fetches the archive into the controller's cache and pushes it, unless the host has it staged already."""

    TRANSFERS_FILES = True
    module = "release_stage"

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        settings = arguments.pop("release", None)
        for name, what in _NEEDED.items():
            if not isinstance(arguments.get(name), str):
                raise AnsibleActionFail(f"release_stage needs {name}: {what}")
        wanted = _obtain.Wanted(*(arguments[name] for name in _NEEDED))
        wanted = wanted._replace(component=name_of(wanted.component))  # all instances have the same releases
        wanted = wanted._replace(from_version=arguments.get("from_version"))
        arguments["checksums"] = redact_url(wanted.checksums)  # the host logs its arguments
        return self._bring(arguments, wanted, _obtain.read(settings), task_vars)

    def _bring(
        self,
        arguments: dict[str, t.Any],
        wanted: _obtain.Wanted,
        settings: _obtain.Settings,
        task_vars: dict[str, t.Any],
    ) -> dict[str, t.Any]:
        """Let the host have the release. What it has staged isn't fetched, where it can be told without."""
        by_host = arguments.pop("fetch", None) == "host" and not settings.bundle
        staged = arguments.get("staged_sha256")
        by_hash = by_host or (bool(staged) and _obtain.is_known_by_hash(wanted, settings))
        release = _obtain.obtain(wanted, settings, archive=not by_hash)
        if by_host or staged == release.sha256:
            places = _places(settings, release) if by_host else {}
            outcome = self.ask({**arguments, **_told(release), **places}, task_vars)
            if not outcome.pop("needs_archive", False):
                return {"fetched": False, **outcome, **_outcome(release)}
        if release.path is None:
            release = _obtain.obtain(wanted, settings)
        archive = self._push(str(release.path))
        outcome = self.ask({**arguments, **_told(release), "archive": archive}, task_vars)
        outcome.pop("needs_archive", None)
        return {**outcome, **_outcome(release), "fetched": release.fetched}

    def _push(self, path: str) -> str:
        """Put a file into the task's temporary directory on the host; Ansible removes it with the task."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        remote = shell.join_path(shell.tmpdir, "release")
        self._transfer_file(path, remote)
        self._fixup_perms2((shell.tmpdir, remote))
        return t.cast("str", remote)


def _told(release: _obtain.Obtained) -> dict[str, t.Any]:
    """What the host is told of a release."""
    return {
        "url": redact_url(release.url),
        "archive_sha256": release.sha256,
        "verified": release.verified,
        "manifest_number": release.manifest_number,
    }


def _outcome(release: _obtain.Obtained) -> dict[str, t.Any]:
    return {"archive_sha256": release.sha256, "verified": release.verified}


def _places(settings: _obtain.Settings, release: _obtain.Obtained) -> dict[str, t.Any]:
    """Where a host fetches by itself, and how long it tries. Logins go there as secrets."""
    return {
        "urls": list(map(redact_url, release.urls)),
        "private_urls": list(map(private_url, release.urls)),
        "limits": _limits(settings, release),
    }


def _limits(settings: _obtain.Settings, release: _obtain.Obtained) -> dict[str, t.Any]:
    """The limits of a transfer; a size that is known is the most there may be."""
    limits = settings.limits
    return limits._replace(size=min(limits.size, release.size or limits.size))._asdict()
