# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. What a compressed file holds, as a stream that has an end.

Every decompressor is asked for one piece at a time, so neither memory nor time depends on what a file makes of itself.
"""

from __future__ import annotations

import contextlib
import importlib
import lzma
import os
import subprocess
import typing as t
import zlib

CHUNK = 1 << 20
"""Bytes that are in memory at a time."""

_FEED = 1 << 16
_XZ_MEMORY = 256 << 20
"""Bytes that a decompressor of xz may take. C(xz -9) asks for 65 MiB."""


class Limits(t.NamedTuple):
    """What an archive may cost. Sizes are in bytes."""

    member: int = 1 << 30
    """Of one wanted member. The largest program of a release today has a tenth of it."""
    total: int = 4 << 30
    """Of all members, wanted or not. Grafana, the largest release, has a quarter of it."""
    ratio: int = 200
    """How many times as large as the file its content may be. Programs reach 5, and a gzip bomb 1000."""
    small: int = 64 << 20
    """Up to here the ratio doesn't count."""
    members: int = 200_000
    """Headers in an archive. Grafana has about 15 000."""
    streams: int = 10_000
    """Compressed streams one after the other in one file. Releases have one."""

    def content(self, compressed: int) -> int:
        """How much a file of this size may hold."""
        return min(self.total, max(self.small, self.ratio * compressed))


class MalformedError(Exception):
    """A file isn't what its kind must be: it is truncated or damaged. The message begins with 'it'."""


class RefusedError(Exception):
    """A file has what no release has. The message begins with 'it' or names what that is."""

    def __init__(self, why: str, *, member: str | None = None) -> None:
        super().__init__(why)
        self.member = member


class UnreadableError(Exception):
    """This host has nothing that reads such a file. The message says what is needed."""


class Entry(t.NamedTuple):
    """One member of an archive, as the archive tells it. ``content`` is read before the next entry, or not at all."""

    name: str
    kind: str
    """C(file), C(directory), C(link), or C(special): a device, a pipe, a file with holes."""
    mode: int
    size: int
    content: t.Iterator[bytes]


class Stream:
    """The content of a compressed file, read once, from its beginning to its end."""

    def __init__(self, pieces: t.Iterator[bytes], *, limit: int) -> None:
        self._pieces = pieces
        self._left = limit
        self._limit = limit
        self._piece = memoryview(b"")

    def some(self, count: int) -> bytes:
        """Up to so many bytes; none at the end."""
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
            self._left -= len(self._piece)
            if self._left < 0:
                raise RefusedError(f"it holds more than {self._limit} bytes, as a bomb does")
        found, self._piece = self._piece[:count], self._piece[count:]
        return found.tobytes()

    def parts(self, count: int) -> t.Iterator[bytes]:
        """Exactly so many bytes, in parts.

        :raises MalformedError: if there are less.
        """
        while count:
            part = self.some(min(count, CHUNK))
            if not part:
                raise MalformedError("it ends too early")
            count -= len(part)
            yield part

    def exactly(self, count: int) -> bytes:
        """So many bytes, at once."""
        return b"".join(self.parts(count))


@contextlib.contextmanager
def opened(path: str, kind: str, *, limits: Limits, zstd: t.Sequence[str]) -> t.Iterator[Stream]:
    """The content of a file that is compressed as C(gzip), C(xz) or C(zstd).

    :param zstd: the program that writes what a file of zstd holds to its output, where this Python can't read it.
    """
    limit = limits.content(os.path.getsize(path))
    decompressor = _DECOMPRESSORS[kind]()
    if decompressor is None:
        with _program([*zstd, os.path.abspath(path)]) as pieces:
            yield Stream(pieces, limit=limit)
    else:
        with open(path, "rb") as source:
            yield Stream(_inflated(source, *decompressor, limits.streams), limit=limit)


def _inflated(
    source: t.IO[bytes], make: t.Callable[[], t.Any], failure: type[Exception], streams: int
) -> t.Iterator[bytes]:
    """The streams of a file, one after the other. Zeros may fill up its end, and nothing else."""
    data = source.read(_FEED)
    for _number in range(streams):
        decompressor = make()
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                data = source.read(_FEED)
                if not data:
                    raise MalformedError("it ends too early")
            try:
                piece, data = decompressor.decompress(data, CHUNK), b""
            except failure as exc:
                raise MalformedError(f"it can't be decompressed: {exc}") from exc
            if piece:
                yield piece
        data = decompressor.unused_data.lstrip(b"\0") or _behind_zeros(source)
        if not data:
            return
    raise RefusedError(f"it has more than {streams} compressed parts")


def _behind_zeros(source: t.IO[bytes]) -> bytes:
    """What comes next that isn't zero; nothing at the end."""
    while True:
        data = source.read(_FEED)
        found = data.lstrip(b"\0")
        if found or not data:
            return found


class _Gunzip:
    """zlib's decompressor, in the shape of those of xz and zstd. It checks gzip's own checksum and length."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, limit: int) -> bytes:
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, limit)
        self.needs_input = not self._inner.unconsumed_tail and len(piece) < limit
        return piece


_Made = t.Optional[tuple[t.Callable[[], t.Any], type[Exception]]]


def _zstd() -> _Made:
    """Python's own decompressor, from 3.14 on; None before."""
    try:
        module = importlib.import_module("compression.zstd")
    except ImportError:
        return None
    return module.ZstdDecompressor, module.ZstdError


_DECOMPRESSORS: dict[str, t.Callable[[], _Made]] = {
    "gzip": lambda: (_Gunzip, zlib.error),
    "xz": lambda: (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), lzma.LZMAError),
    "zstd": _zstd,
}


@contextlib.contextmanager
def _program(argv: t.Sequence[str]) -> t.Iterator[t.Iterator[bytes]]:
    """What a program writes. It is killed if nobody reads it to the end."""
    try:
        # Its output is far larger than what Ansible's modules have for this can take.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
        )
    except OSError as exc:
        raise UnreadableError(
            f"it is compressed with zstd, and {argv[0]} can't be started on this host ({exc.strerror}): install zstd"
        ) from exc
    with process:
        try:
            yield _output(process)
        finally:
            process.kill()


def _output(process: subprocess.Popen[bytes]) -> t.Iterator[bytes]:
    output = t.cast("t.IO[bytes]", process.stdout)
    yield from iter(lambda: output.read(CHUNK), b"")
    if process.wait() != 0:
        raise MalformedError(f"it can't be decompressed: zstd ended with status {process.returncode}")
