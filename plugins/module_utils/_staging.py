# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Bringing a release onto a host and proving it there, before anything of the host is touched.

staging/<component>-<version>/candidate.json   which archive it came from, and the sha256 of each file
staging/<component>-<version>/<file>           the files; their directory is root's alone
"""

from __future__ import annotations

import json
import os
import typing as t

from . import _archive, _elf, _files, _json_file, _sandbox, _schema, _systemd, _version
from ._errors import HostError, ReleaseError

if t.TYPE_CHECKING:
    from ._command import Run


_TIMEOUT = 20
"""Seconds that a program has to print its version."""

# In a sandbox a file is run by the unit's user; its directory is root's alone.
_MODE = 0o755


class Release(t.NamedTuple):
    """An archive of a release, and what it must prove to be.

    ``unit`` is the service's; its user runs the program for the first time. ``hidden`` are paths that it must not see.
    """

    component: str
    version: str
    archive: str | None
    archive_name: str
    archive_sha256: str
    members: dict[str, str]
    version_args: list[list[str]]
    architecture: str
    unit: str | None = None
    hidden: tuple[str, ...] = ()


def read_candidate(directory: str, release: Release) -> dict[str, str] | None:
    """Names and sha256 of the files of a candidate that is there, and is what it was when it was proven."""
    try:
        data = _json_file.load(os.path.join(directory, "candidate.json"), _schema.CANDIDATE)
    except (HostError, OSError, ValueError):
        return None
    files: dict[str, str] = data["files"]
    if data["archive_sha256"] != release.archive_sha256 or set(files) != set(release.members):
        return None
    whole = all(_files.sha256_or_none(os.path.join(directory, name)) == sha256 for name, sha256 in files.items())
    return files if whole else None


def unpack(run: Run, release: Release, directory: str) -> dict[str, str]:
    """Take a release's files out of its archive into an empty directory, and prove them. Their sha256, by name.

    :raises ReleaseError: with what the release isn't.
    """
    archive = t.cast("str", release.archive)
    arrived = _files.sha256_file(archive)
    if arrived != release.archive_sha256:
        raise ReleaseError(
            f"{release.archive_name} arrived on the host with sha256 {arrived}, but {release.archive_sha256} was sent: "
            "the transfer damaged it; run again",
            key="release.transfer",
        )
    paths = _archive.extract(archive, name=release.archive_name, members=release.members, directory=directory)
    for path in paths.values():
        _files.set_mode(path, _MODE)
        _prove_architecture(path, release)
        _prove_glibc(path, release)
    _prove_version(run, next(iter(paths.values())), release)
    files = {name: _files.sha256_file(path) for name, path in paths.items()}
    text = json.dumps({"archive_sha256": release.archive_sha256, "files": files}, indent=2, sort_keys=True) + "\n"
    _files.write_durably(os.path.join(directory, "candidate.json"), text.encode())
    return files


def _prove_architecture(path: str, release: Release) -> None:
    elf = _elf.header_of(path)
    if elf and _elf.architecture(elf, os.uname().machine) != release.architecture:
        raise ReleaseError(
            f"{os.path.basename(path)} in {release.archive_name} is made for {elf.describe()}, "
            f"this host runs {release.architecture}: the release is mislabelled; don't use it",
            key="release.architecture",
        )


def _prove_glibc(path: str, release: Release) -> None:
    needed, here = _elf.glibc_needed(path), _elf.glibc_here()
    if needed and here and needed > here:
        raise ReleaseError(
            f"{os.path.basename(path)} in {release.archive_name} needs glibc {_elf.dotted(needed)}, this host has "
            f"{_elf.dotted(here)}: wish for an older version, or upgrade the host's system first",
            key="release.glibc",
        )


def _prove_version(run: Run, path: str, release: Release) -> None:
    """Run a release's program for the first time: in a bare sandbox, as the unit's user or as nobody, never as root."""
    program = os.path.basename(path)
    if _elf.header_of(path) is None:
        raise ReleaseError(
            f"{program} in {release.archive_name} is no ELF program: only such are run, in a sandbox, to see that they "
            "are the version that they are said to be; take a release that has one",
            key="release.no_program",
        )
    sandbox, answers = _sandbox.bare(_user(run, release), name="", programs={program: path}, hidden=release.hidden), []
    for number, arguments in enumerate(release.version_args):
        name = f"observability-first-run-{_systemd.in_unit_name(release.component)}-{os.getpid()}-{number}"
        answer = _sandbox.once(run, sandbox._replace(name=name), [program, *arguments], timeout=_TIMEOUT)
        found = _version.find_version(answer.text)
        if not answer.trouble and _version.same_version(found, release.version):
            return
        answers.append(f"{' '.join(arguments)}: {answer.trouble or found}")
    raise ReleaseError(
        f"{program} in {release.archive_name} doesn't say that it is version {release.version} "
        f"({'; '.join(answers)}): the release is mislabelled, or can't run on this host; don't use it",
        key="release.version",
    )


def _user(run: Run, release: Release) -> dict[str, str]:
    """The properties of the service's unit that name its user; none where it has no unit, or systemd doesn't answer."""
    if not release.unit:
        return {}
    try:
        unit = _systemd.show(run, [release.unit])[0]
    except HostError:
        return {}
    return unit.properties if unit.is_loaded else {}
