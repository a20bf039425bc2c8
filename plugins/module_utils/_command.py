# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Running a program with a time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import typing as t

_OUTPUT_LIMIT = 1 << 20


class Completed(t.NamedTuple):
    """How a program ended. ``rc`` is None if it could not be started or had to be killed; ``err`` then says why."""

    rc: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


Run = t.Callable[..., Completed]


def run(argv: t.Sequence[str], *, timeout: float = 10, env: dict[str, str] | None = None) -> Completed:
    """Run a program without a shell, in the C locale, and kill it with all its children when the time is over.

    :param timeout: seconds.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "SYSTEMD_COLORS": "0", **(env or {})}
    try:
        # What Ansible's modules have for this knows no time limit.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError as exc:
        return Completed(None, "", f"{argv[0]}: {exc.strerror}")
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Completed(None, "", f"{argv[0]}: no answer within {timeout:g} s, killed")
    return Completed(process.returncode, _decode(out), _decode(err))


def _decode(data: bytes) -> str:
    return data[:_OUTPUT_LIMIT].decode("utf-8", "replace")
