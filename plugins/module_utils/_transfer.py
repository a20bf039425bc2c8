# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. A file from one of several places, whole or not at all, whatever the line does.

<target>            only what has the wanted sha256 gets this name
<target>.part       what came so far
<target>.part.json  what that is: see About. Without it, or when it says something else, the transfer starts anew

One process at a time may have the same target: the caller sees to that.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import json
import os
import random
import shutil
import stat
import time
import typing as t
import zlib

from . import _files, _web
from ._argv import redact_url as shown
from ._errors import ReleaseError
from ._web import TransferError

_CHUNK = 1 << 20
_ABOUT_LIMIT = 1 << 16
_GAINED = 1 << 20
_AT_LEAST = 1.0
"""Seconds that are waited for an answer, or for a piece of one, even if the time is over."""

_TELL_SECONDS, _TELL_BYTES = 10, 100 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_GZIP = b"\x1f\x8b"
_WEB_PAGE = (b"<!doctype html", b"<html")

T = t.TypeVar("T")


class Limits(t.NamedTuple):
    """How long a transfer goes on, and how much it takes.

    :ivar attempts: how often each place is asked. An attempt that brought at least 1 MiB more doesn't count.
    :ivar size: most bytes that a file may have.
    :ivar connect: seconds until an answer begins, with all redirects.
    :ivar read: seconds for which nothing may come.
    :ivar slowest: bytes a second that have to come, on average over C(window) seconds.
    :ivar total: seconds for one place, with all attempts and waiting.
    :ivar pause: the first pause is a random part of these seconds; each further one may be twice as long, up to
        C(longest_pause).
    :ivar longest_wait: most seconds to wait because a server says so (C(Retry-After)).
    :ivar bandwidth: most bytes a second; 0 for as many as come.
    """

    attempts: int = 5
    size: int = 2 << 30
    connect: float = 30
    read: float = 30
    slowest: float = 1024
    window: float = 30
    total: float = 3600
    pause: float = 1
    longest_pause: float = 30
    longest_wait: float = 120
    bandwidth: int = 0


class Tools(t.NamedTuple):
    """What a transfer has from outside; tests bring their own.

    :ivar open_url: that of C(ansible.module_utils.urls).
    :ivar machine: what this machine is called in errors.
    :ivar setting: the variable that says where files are kept, if the operator may choose it.
    :ivar clock: seconds that only go forward.
    :ivar wall: seconds since 1970.
    :ivar chance: a random number from 0 up to 1.
    :ivar free: bytes that may still be written to a directory.
    """

    open_url: t.Callable[..., t.Any]
    machine: str
    setting: str
    say: t.Callable[[str], None]
    warn: t.Callable[[str], None]
    clock: t.Callable[[], float] = time.monotonic
    wall: t.Callable[[], float] = time.time
    sleep: t.Callable[[float], None] = time.sleep
    chance: t.Callable[[], float] = random.SystemRandom().random
    free: t.Callable[[str], int] = lambda directory: shutil.disk_usage(directory).free


LIMITS = Limits()


class About(t.NamedTuple):
    """What the file beside a partial one says of it.

    :ivar url: where it comes from, without secrets.
    :ivar size: bytes of the whole file; None if the server didn't say.
    :ivar etag: a strong one, or nothing. For C(If-Range).
    :ivar last_modified: the same, for servers without.
    :ivar bytes: how many were there when this was written. The file itself counts.
    """

    url: str
    size: int | None
    sha256: str
    etag: str
    last_modified: str
    bytes: int
    started: str
    updated: str

    @property
    def validator(self) -> str:
        return self.etag or self.last_modified


class There(t.NamedTuple):
    """What is there of a file: C(complete), or C(resume) at a byte, or C(restart)."""

    state: str
    at: int = 0


class Progress(t.NamedTuple):
    """How far a transfer is. Bytes, bytes of the whole file, bytes a second, and seconds left; None if not known."""

    done: int
    total: int | None
    rate: float
    eta: float | None


def download(
    sources: t.Sequence[str],
    target: str,
    *,
    sha256: str,
    listed: str,
    tools: Tools,
    limits: Limits = LIMITS,
    progress: t.Callable[[Progress], None] | None = None,
) -> str:
    """Get a file from the first of some places that has it. Returns which one that was.

    :param sources: URLs, tried in turn. One that has other bytes, or that fails, is told and left for the next.
    :param sha256: what the file must be. Nothing else gets the target's name. If it is empty, whatever comes is taken,
        as long as it comes as a whole.
    :param listed: where that was said, for the operator.
    :param progress: called for every piece that came. By default a line is shown each 10 s or 100 MiB of what takes
        longer than 10 s.
    :raises ReleaseError: if no place has it. What can be resumed stays, nothing else.
    """
    failures: list[ReleaseError] = []
    with _explained(target, tools), _Partial(target, sha256) as partial:
        for url in sources:
            watch = progress or Reporter(os.path.basename(shown(url)), tools)
            transfer = _Transfer(url, partial, listed=listed, limits=limits, tools=tools, progress=watch)
            try:
                persistently(transfer.attempt, limits=limits, tools=tools, reached=lambda: partial.done)
            except ReleaseError as exc:
                failures.append(exc)
                if exc.key == "release.no_space":
                    break
                if url != sources[-1]:
                    tools.warn(f"{exc}; the next mirror is tried")
            else:
                partial.finish()
                return url
    raise together(failures)


def read_small(url: str, *, most: int, tools: Tools, limits: Limits = LIMITS) -> bytes:
    """A small file from the network, with the same patience.

    :param most: bytes that it may have.
    :raises ReleaseError: if it can't be had.
    """

    end = tools.clock() + limits.total

    def attempt() -> bytes:
        data = bytearray()
        with _open(url, limits, tools, end=end) as response:
            meter = _Meter(limits, tools, url, end=end)
            while response.length is None or len(data) < response.length:
                piece = meter.read(response, most + 1 - len(data))
                data += piece
                if len(data) > most:
                    raise TransferError(_too_large(url, most))
                if not piece:
                    break
                meter.add(len(piece))
        if len(data) < (response.length or 0):
            raise TransferError(_cut_off(url, len(data), response.length), again=True)
        return _plain(bytes(data), most)

    return persistently(attempt, limits=limits, tools=tools)


def _plain(data: bytes, most: int) -> bytes:
    """A text that was compressed on the way although it must not; nothing if it is damaged."""
    if not data.startswith(_GZIP):
        return data
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(data, most)
    return b""


def persistently(
    attempt: t.Callable[[], T],
    *,
    limits: Limits,
    tools: Tools,
    reached: t.Callable[[], int] = lambda: 0,
) -> T:
    """Try until it goes well, or isn't worth another attempt. Between two is a pause of random length, so that many
    who failed together don't come back together.

    :param reached: how many bytes are there.
    :raises ReleaseError: what the last attempt failed for.
    """
    end, tried, counted, best = tools.clock() + limits.total, 0, 0, reached()
    while True:
        try:
            return attempt()
        except TransferError as exc:
            tried, counted = tried + 1, counted + 1
            if reached() >= best + _GAINED:
                counted, best = 0, reached()
            pause = _pause(counted, exc.after, limits, tools)
            if not exc.again or counted >= limits.attempts or tools.clock() + pause >= end:
                raise _tried(exc.error, tried) from exc
            tools.sleep(pause)


def _pause(failures: int, after: float | None, limits: Limits, tools: Tools) -> float:
    """Seconds until the next attempt: what the server says, or exponential backoff with full jitter."""
    if after is not None:
        return min(after, limits.longest_wait)
    longest: float = min(limits.longest_pause, limits.pause * 2 ** max(failures - 1, 0))
    return tools.chance() * longest


def _tried(error: ReleaseError, times: int) -> ReleaseError:
    return ReleaseError(f"{error} (tried {times} times)", key=error.key) if times > 1 else error


def together(failures: t.Sequence[ReleaseError]) -> ReleaseError:
    """One error for all places that failed. Its key is theirs, if they agree; damage is never hidden."""
    keys = {failure.key for failure in failures}
    agreed = next((key for key in ("release.no_space", "release.checksum") if key in keys), None)
    key = keys.pop() if len(keys) == 1 else agreed or "release.unavailable"
    return ReleaseError("; ".join(dict.fromkeys(map(str, failures))), key=key)


def _open(
    url: str, limits: Limits, tools: Tools, headers: t.Mapping[str, str] | None = None, *, end: float
) -> contextlib.AbstractContextManager[_web.Response]:
    return _web.opened(
        url,
        open_url=tools.open_url,
        now=tools.wall(),
        headers=headers,
        connect=min(limits.connect, max(end - tools.clock(), _AT_LEAST)),
    )


# -- one place ----------------------------------------------------------------------------------------------------


class _Transfer:
    """Attempts to get a file from one place."""

    def __init__(
        self,
        url: str,
        partial: _Partial,
        *,
        listed: str,
        limits: Limits,
        tools: Tools,
        progress: t.Callable[[Progress], None],
    ) -> None:
        self.url, self.partial, self.listed = url, partial, listed
        self.limits, self.tools, self.progress = limits, tools, progress
        self.end = tools.clock() + limits.total

    def attempt(self) -> None:
        """Ask for what is missing, and take it until all is there.

        :raises TransferError: if it isn't.
        """
        there = self.partial.there(self.url)
        if there.state == "complete":
            return
        try:
            with _open(self.url, self.limits, self.tools, self._wanted(there), end=self.end) as response:
                missing = self._accept(response, there)
                self._receive(response, missing)
        except TransferError as exc:
            if there.at and exc.status == 416:
                raise self._anew(f"{shown(self.url)} has no byte {there.at} any more") from exc
            raise
        finally:
            self.partial.note(self.tools)
        self._prove(response, missing)

    def _wanted(self, there: There) -> dict[str, str]:
        if there.state != "resume":
            return {}
        return {"Range": f"bytes={there.at}-", "If-Range": self.partial.about.validator}

    def _accept(self, response: _web.Response, there: There) -> int | None:
        """Make sure of which bytes an answer has. Returns how many are to come, None if that isn't known."""
        missing: int | None
        if response.status == 206:
            missing = self._continued(response, there)
            self.partial.resumed = True
        elif response.status == 200:
            missing = response.length
            self.partial.clear()
        else:
            raise TransferError(_unusable(self.url, f"answered {response.status}, which is no file"))
        total = None if missing is None else self.partial.done + missing
        if total is not None and total > self.limits.size:
            self.partial.clear()
            raise TransferError(_too_large(self.url, self.limits.size))
        self._room(missing)
        self.partial.begin(self.url, total, response, self.tools)
        return missing

    def _continued(self, response: _web.Response, there: There) -> int:
        """How many bytes an answer of status 206 has, if they are the missing ones."""
        part, about = _web.content_range(response.headers.get("Content-Range")), self.partial.about
        etag = _web.strong_etag(response.headers)
        as_asked = (
            part is not None
            and there.at == part.first
            and part.last + 1 == (part.total or about.size)
            and about.size in (None, part.last + 1)
            and response.length in (None, part.last + 1 - part.first)
            and (not etag or not about.etag or etag == about.etag)
        )
        if not there.at or part is None or not as_asked:
            raise self._anew(f"{shown(self.url)} answered with other bytes than it was asked for")
        return part.last + 1 - part.first

    def _anew(self, why: str) -> TransferError:
        """Whole, and at once: these bytes don't go together with those that are there."""
        self.partial.clear()
        error = ReleaseError(f"{why}. Try again, or set upgrade_release_mirror", key="release.unavailable")
        return TransferError(error, again=True, after=0)

    def _room(self, missing: int | None) -> None:
        directory = os.path.dirname(self.partial.path)
        free = self.tools.free(directory)
        if missing is not None and free < missing:
            self.partial.clear()
            text = f"{shown(self.url)} needs {_size(missing)}, {_size(free)} are free"
            raise TransferError(_no_space(directory, text, self.tools))

    def _receive(self, response: _web.Response, missing: int | None) -> None:
        partial, limits = self.partial, self.limits
        meter = _Meter(limits, self.tools, self.url, end=self.end)
        while missing is None or meter.got < missing:
            left = (limits.size + 1 - partial.done) if missing is None else missing - meter.got
            piece = meter.read(response, min(left, meter.piece))
            if not piece:
                return
            partial.append(piece)
            if partial.done > limits.size:
                partial.clear()
                raise TransferError(_too_large(self.url, limits.size))
            rate = meter.add(len(piece))
            total = partial.about.size
            eta = (total - partial.done) / rate if total is not None and rate else None
            self.progress(Progress(partial.done, total, rate, eta))

    def _prove(self, response: _web.Response, missing: int | None) -> None:
        """Make sure that all came, and that it is what it must be.

        :raises TransferError: if not. Wrong bytes are gone then, and not asked for again, unless a part of them came
            earlier: that part may be what is wrong.
        """
        partial = self.partial
        if partial.is_wanted():
            return
        if missing is not None and partial.done < (partial.about.size or 0):
            raise TransferError(_cut_off(self.url, partial.done, partial.about.size), again=True)
        if not partial.sha256:
            if missing is None:
                raise TransferError(_unusable(self.url, "doesn't tell how large it is, and nothing else does"))
            return
        error = ReleaseError(
            f"{shown(self.url)} has sha256 {partial.hexdigest()}, but {shown(self.listed)} says {partial.sha256}: "
            f"it is damaged or was tampered with, and is not used{self._likely(response)}",
            key="release.checksum",
        )
        resumed = partial.resumed
        partial.clear()
        raise TransferError(error, again=resumed, after=0)

    def _likely(self, response: _web.Response) -> str:
        """What is known to send other bytes than wanted."""
        encoding = response.headers.get("Content-Encoding") or "identity"
        if self.partial.start().lstrip().lower().startswith(_WEB_PAGE):
            return ". It is a web page: does a login or a proxy stand in between?"
        return f". The server encoded it ({encoding}), although it must not" if encoding != "identity" else ""


class _Meter:
    """Looks at the time: whether bytes come fast enough, not too fast, and not for too long."""

    def __init__(self, limits: Limits, tools: Tools, url: str, *, end: float) -> None:
        self._limits, self._tools, self._url, self._end = limits, tools, url, end
        self.got, self._began = 0, tools.clock()
        self._window = (self._began, 0)
        self.piece = min(_CHUNK, max(limits.bandwidth // 4, 1)) if limits.bandwidth else _CHUNK
        self._slowest = min(limits.slowest, limits.bandwidth / 2) if limits.bandwidth else limits.slowest

    def read(self, response: _web.Response, most: int) -> bytes:
        """The next bytes of an answer. They are waited for until it is too late for any of the limits.

        :raises TransferError: if none come.
        """
        now = self._tools.clock()
        left = min(self._limits.read, self._end - now, self._window[0] + self._limits.window - now)
        try:
            return response.read(most, within=max(left, _AT_LEAST))
        except TransferError:
            self.add(0)
            raise

    def add(self, count: int) -> float:
        """Count bytes. Returns how many came a second.

        :raises TransferError: if they come too slowly, or for too long.
        """
        self.got += count
        now = self._tools.clock()
        if self._limits.bandwidth:
            early = self._began + self.got / self._limits.bandwidth - now
            if early > 0:
                self._tools.sleep(early)
                now = self._tools.clock()
        if now >= self._end:
            text = f"{shown(self._url)} takes longer than {self._limits.total:g} s; the next run goes on with what came"
            raise TransferError(ReleaseError(text, key="release.too_slow"))
        since, before = self._window
        if now - since >= self._limits.window:
            rate = (self.got - before) / (now - since)
            if rate < self._slowest:
                raise TransferError(_stalled(self._url, rate), again=True)
            self._window = (now, self.got)
        return self.got / (now - self._began) if now > self._began else 0.0


class Reporter:
    """Shows how far a transfer is, if it takes long: a line each 10 s or 100 MiB, none in the first 10 s."""

    def __init__(self, name: str, tools: Tools) -> None:
        self._name, self._tools = name, tools
        self._began = self._last = tools.clock()
        self._shown = 0

    def __call__(self, progress: Progress) -> None:
        now = self._tools.clock()
        enough = now - self._last >= _TELL_SECONDS or progress.done - self._shown >= _TELL_BYTES
        if now - self._began >= _TELL_SECONDS and enough:
            self._last, self._shown = now, progress.done
            self._tools.say(f"{self._name}: {_progress_text(progress)}")


def _progress_text(progress: Progress) -> str:
    """C(42.0 MB of 93.1 MB (45 %), 2.1 MB/s, 25 s left)"""
    text = _size(progress.done)
    if progress.total:
        text += f" of {_size(progress.total)} ({100 * progress.done // progress.total} %)"
    text += f", {_size(progress.rate)}/s"
    return text if progress.eta is None else f"{text}, {progress.eta:.0f} s left"


# -- what is there ------------------------------------------------------------------------------------------------


class _Partial:
    """The first bytes of a file, their sha256, and what is known of them."""

    def __init__(self, target: str, sha256: str) -> None:
        self.target, self.sha256 = target, sha256
        self.path = f"{target}.part"
        self.resumed = False
        self.about = _read_about(f"{self.path}.json")

    def __enter__(self) -> _Partial:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            os.close(self._file)
            raise OSError(errno.EINVAL, "it is no regular file: move it away", self.path)
        self._digest, self.done = hashlib.sha256(), 0
        while piece := os.read(self._file, _CHUNK):
            self._digest.update(piece)
            self.done += len(piece)
        return self

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        """What can't be resumed goes."""
        full = isinstance(exc, OSError) and exc.errno in _FULL
        os.close(self._file)
        if full or self.done == 0 or not self.about.validator or self.about.sha256 != self.sha256:
            _files.remove_if_there(self.path)
            _files.remove_if_there(f"{self.path}.json")

    def there(self, url: str) -> There:
        """What is there of what a place has. What came from another place isn't gone on with."""
        if self.is_wanted():
            return There("complete", self.done)
        about = self.about
        same = (about.url, about.sha256) == (shown(url), self.sha256) and about.validator
        if not same or not 0 < self.done < (about.size or self.done + 1):
            return There("restart")
        return There("resume", self.done)

    def is_wanted(self) -> bool:
        return self.hexdigest() == self.sha256

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def start(self) -> bytes:
        return os.pread(self._file, 64, 0)

    def clear(self) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._digest, self.done, self.resumed, self.about = hashlib.sha256(), 0, False, _NOTHING

    def begin(self, url: str, size: int | None, response: _web.Response, tools: Tools) -> None:
        """Note where the bytes that come now are from."""
        now = _time(tools)
        etag, date = _web.strong_etag(response.headers), _web.strong_date(response.headers)
        if self.done and not etag:  # an answer of status 206 may leave out what is known (RFC 9110, 15.3.7)
            etag, date = self.about.etag, date or self.about.last_modified
        self.about = About(shown(url), size, self.sha256, etag, date, self.done, self.about.started or now, now)
        self._save()

    def note(self, tools: Tools) -> None:
        """Note how far it came."""
        if self.about is not _NOTHING and self.done != self.about.bytes:
            self.about = self.about._replace(bytes=self.done, updated=_time(tools))
            self._save()

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._digest.update(data)
        self.done += len(data)

    def finish(self) -> None:
        """Give it its name."""
        os.fsync(self._file)
        os.rename(self.path, self.target)
        _files.remove_if_there(f"{self.path}.json")

    def _save(self) -> None:
        """Whole or not at all; after a power cut it may be torn, and then the transfer starts anew."""
        temporary = _files.temporary_beside(f"{self.path}.json")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as sink:
                json.dump(self.about._asdict(), sink)
            os.rename(temporary, f"{self.path}.json")
        except OSError:
            _files.remove_if_there(temporary)
            raise


_NOTHING = About("", None, "", "", "", 0, "", "")


def _read_about(path: str) -> About:
    try:
        about = About(**json.loads(_files.read_whole(path, most=_ABOUT_LIMIT)))
    except (OSError, ValueError, TypeError, RecursionError):
        return _NOTHING
    texts = (about.url, about.sha256, about.etag, about.last_modified, about.started, about.updated)
    usable = all(isinstance(text, str) for text in texts) and isinstance(about.size, (int, type(None)))
    return about if usable else _NOTHING


def there(target: str, *, sha256: str, url: str) -> There:
    """What is there of a file that a place has, without asking it. What can't be gone on with is removed.

    Complete is also what only lacks its name, because the process was killed before it gave it.
    """
    if _files.sha256_or_none(target) == sha256:
        return There("complete", os.path.getsize(target))
    if not os.path.exists(f"{target}.part"):
        return There("restart")
    with _Partial(target, sha256) as partial:
        return partial.there(url)


def _time(tools: Tools) -> str:
    return dt.datetime.fromtimestamp(tools.wall(), dt.timezone.utc).isoformat(timespec="seconds")


# -- errors -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(target: str, tools: Tools) -> t.Iterator[None]:
    """Tell what keeps a file from being written."""
    try:
        yield
    except OSError as exc:
        raise not_kept(os.path.dirname(target), exc, tools) from exc


def not_kept(directory: str, exc: OSError, tools: Tools) -> ReleaseError:
    """What an error of the operating system means for a directory of releases."""
    text = exc.strerror or str(exc)
    if exc.errno in _FULL:
        return _no_space(directory, text, tools)
    place = exc.filename if isinstance(exc.filename, str) else directory
    instead = f"; set {tools.setting} to a directory of your own" if tools.setting else ""
    return ReleaseError(f"{place}: {text}. Releases can't be kept there{instead}", key="release.cache")


def _no_space(directory: str, text: str, tools: Tools) -> ReleaseError:
    instead = f", or set {tools.setting}" if tools.setting else ""
    return ReleaseError(
        f"{directory} has no space left on the {tools.machine}: {text}; free some{instead}", key="release.no_space"
    )


def _too_large(url: str, most: int) -> ReleaseError:
    return ReleaseError(
        f"{shown(url)} is larger than the {_size(most)} that are taken: is this the right file?",
        key="release.too_large",
    )


def _cut_off(url: str, done: int, total: int | None) -> ReleaseError:
    return ReleaseError(
        f"{shown(url)} ended after {done} of {total} bytes; try again, or set upgrade_release_mirror",
        key="release.incomplete",
    )


def _stalled(url: str, rate: float) -> ReleaseError:
    return ReleaseError(
        f"{shown(url)} comes too slowly, {rate:.0f} bytes a second; try again, or set upgrade_release_mirror",
        key="release.stalled",
    )


def _unusable(url: str, what: str) -> ReleaseError:
    return ReleaseError(f"{shown(url)} {what}; set upgrade_release_mirror", key="release.unavailable")


def _size(count: float) -> str:
    """C(93.1 MB)"""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
