# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Running a program with limits on its time and its output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
import typing as t

_OUTPUT_LIMIT = 1 << 20
"""Bytes of each stream that are kept. The rest is read and dropped, so that the program is not held up by it."""

_CHUNK = 1 << 16
_LOOK = 0.05
_GRACE = 0.5
"""Seconds to read what a program left in its pipes after it has ended. A process that it left behind may hold them."""

_REAPED = 2.0
"""Seconds for the kernel to end a killed program."""


class Completed(t.NamedTuple):
    """How a program ended. ``rc`` is None if it could not be started or had to be killed; ``err`` then says why."""

    rc: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


Run = t.Callable[..., Completed]


def run(
    argv: t.Sequence[str], *, timeout: float = 10, env: dict[str, str] | None = None, stdin: bytes = b"", cwd: str = "/"
) -> Completed:
    """Run a program without a shell, in the C locale. When the time is over, it is killed with its process group.

    The call ends within a few seconds of C(timeout), even if the program can't be killed, or if a process that it left
    behind holds its output open. The first MiB of each stream is kept; C(err) says so where more came.

    :param timeout: seconds.
    :param stdin: what the program reads.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "SYSTEMD_COLORS": "0", **(env or {})}
    try:
        # What Ansible's modules have for this knows no time limit.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
    except OSError as exc:
        return Completed(None, "", f"{argv[0]}: {exc.strerror}")
    streams = _Streams(process, stdin)
    try:
        until = time.monotonic() + timeout
        closed = streams.follow(until)
        ended = _has_ended(process, until)
        if not (closed and ended):
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        gone = ended or _has_ended(process, time.monotonic() + _REAPED)
    finally:
        streams.close()
    if not ended:
        killed = "killed" if gone else "and it could not be killed: it hangs in the kernel"
        return Completed(None, "", f"{argv[0]}: no answer within {timeout:g} s, {killed}")
    out, err = streams.text()
    cut = f"{argv[0]}: its output was cut after {_OUTPUT_LIMIT >> 20} MiB\n" if streams.dropped else ""
    return Completed(process.returncode, out, err + cut)


def _has_ended(process: subprocess.Popen[bytes], until: float) -> bool:
    """Whether a program has ended by then."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(until - time.monotonic(), 0))
    return process.returncode is not None


class _Streams:
    """What goes into a program and what comes out of it."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes) -> None:
        self._process, self._left = process, memoryview(stdin)
        self._kept = {process.stdout: bytearray(), process.stderr: bytearray()}
        self.dropped = False

    def follow(self, until: float) -> bool:
        """Move bytes until the program has closed its streams, or has ended, or the time is over. Whether all are
        closed."""
        with selectors.DefaultSelector() as selector:
            for stream in self._kept:
                selector.register(t.cast("t.IO[bytes]", stream), selectors.EVENT_READ)
            if self._process.stdin:
                os.set_blocking(self._process.stdin.fileno(), False)
                selector.register(self._process.stdin, selectors.EVENT_WRITE)
            has_ended = False
            while selector.get_map() and (left := until - time.monotonic()) > 0:
                if not has_ended and self._process.poll() is not None:
                    has_ended, until = True, min(until, time.monotonic() + _GRACE)
                for key, _events in selector.select(min(_LOOK, left)):
                    stream = t.cast("t.IO[bytes]", key.fileobj)
                    if not (self._feed() if stream is self._process.stdin else self._take(stream)):
                        selector.unregister(stream)
                        stream.close()
            return not selector.get_map()

    def _take(self, stream: t.IO[bytes]) -> bool:
        """Read once. Whether there may be more."""
        data, kept = os.read(stream.fileno(), _CHUNK), self._kept[stream]
        room = _OUTPUT_LIMIT - len(kept)
        kept += data[:room]
        self.dropped = self.dropped or len(data) > room
        return bool(data)

    def _feed(self) -> bool:
        """Write once. Whether there is more. That a program doesn't read it all is no error of its own."""
        try:
            self._left = self._left[
                os.write(t.cast("t.IO[bytes]", self._process.stdin).fileno(), self._left[:_CHUNK]) :
            ]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(self._left)

    def text(self) -> list[str]:
        """What came, of each stream."""
        return [bytes(kept).decode("utf-8", "replace") for kept in self._kept.values()]

    def close(self) -> None:
        for stream in (self._process.stdin, *self._kept):
            if stream:
                stream.close()
