# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The state directory of a host: its lock, its document, its history.

state.json    the document
upgrade.lock  the lease; the kernel's lock on this file is held by a module for its whole action
backups/      restore points
staging/      proven candidates that are not in use yet
pending/      a marker for each component whose swap nobody has confirmed yet; see C(_rebuilt)
history/      one document per finished upgrade
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
import typing as t

from . import _files, _lease
from ._errors import LockedError, StateError
from ._state import Document, new_document

_LOCK_WAIT = 120.0
_POLL = 0.1


def timestamp(seconds: float) -> str:
    """A time as the document has it: UTC, ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Layout(t.NamedTuple):
    """Where things are in a state directory."""

    root: str

    @property
    def document(self) -> str:
        return os.path.join(self.root, "state.json")

    @property
    def lock(self) -> str:
        return os.path.join(self.root, "upgrade.lock")

    def backup(self, backup_id: str = "") -> str:
        return os.path.join(self.root, "backups", backup_id)

    def staging(self, key: str = "") -> str:
        return os.path.join(self.root, "staging", key)

    def pending(self, component: str = "") -> str:
        return os.path.join(self.root, "pending", f"{component}.json" if component else "")

    def history(self, upgrade_id: str = "") -> str:
        return os.path.join(self.root, "history", f"{upgrade_id}.json" if upgrade_id else "")


class Session:
    """One module's time with the state of a host. In check mode nothing that it records reaches the disk."""

    def __init__(self, layout: Layout, document: Document, *, writable: bool, clock: t.Callable[[], float]) -> None:
        self.layout = layout
        self.document = document
        self.writable = writable
        self.warnings: list[str] = []
        self.took_over: dict[str, t.Any] | None = None
        self._clock = clock
        self._lock: int | None = None

    @property
    def now(self) -> str:
        return timestamp(self._clock())

    def note_takeover(self, before: dict[str, t.Any], lease: dict[str, t.Any]) -> None:
        """Tell from whom the lease was taken, if it was: that run has ended without giving it back."""
        if before.get("upgrade_id") in (None, lease.get("upgrade_id")):
            return
        self.took_over = {key: before.get(key) for key in ("upgrade_id", "user", "controller")}
        self.warnings.append(f"took over from {_lease.name(before)}, which ended without giving the host back")

    def save(self) -> None:
        """Put the document on disk, durably, as its next revision, unless it is there as it is."""
        if not self.writable or _read(self.layout.document) == _serialized(self.document):
            return
        self.document.data["revision"] += 1
        _files.write_durably(self.layout.document, _serialized(self.document))

    def archive(self) -> None:
        """Keep the upgrade that has ended in the history."""
        upgrade = self.document.upgrade
        if not self.writable or not upgrade.get("upgrade_id"):
            return
        names = {key.partition("@")[0] for key in upgrade.get("steps", {})}
        components = {name: self.document.component(name) for name in sorted(names)}
        text = json.dumps({"schema_version": 1, "upgrade": upgrade, "components": components}, indent=2, sort_keys=True)
        _files.write_durably(self.layout.history(upgrade["upgrade_id"]), text.encode() + b"\n")

    def renew(self) -> None:
        """Count the lease from now: what a module had announced to take long has come to its end."""
        if self._lock is not None:
            lease, now = _lease.decode(os.pread(self._lock, _lease.SIZE, 0)), self._clock()
            _write_lease(self._lock, {**lease, "renewed": now, "expires": now + _lease.LEASE_SECONDS})

    def release(self) -> None:
        """Give the lease back."""
        if self._lock is not None:
            _write_lease(self._lock, _lease.released(_lease.decode(os.pread(self._lock, _lease.SIZE, 0))))

    def remove_tree(self, path: str) -> None:
        """Remove a restore point or a candidate: renamed first, so that half of one is never taken for a whole."""
        if not self.writable or not os.path.lexists(path):
            return
        doomed = f"{path}.removed"
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(path, doomed)
        shutil.rmtree(doomed)


@contextlib.contextmanager
def session(
    state_dir: str,
    *,
    run: dict[str, t.Any] | None = None,
    acquire: bool = False,
    force: bool = False,
    check_mode: bool = False,
    wait: float = _LOCK_WAIT,
    lease_seconds: float = _lease.LEASE_SECONDS,
    clock: t.Callable[[], float] = time.time,
    sleep: t.Callable[[float], None] = time.sleep,
) -> t.Iterator[Session]:
    """Enter the state directory: under the kernel's lock, with the run's lease renewed, and the document read.

    A module that a dead run left behind still holds the kernel's lock: then this waits until it has ended.

    :param run: who acts, see C(_lease.enter). Without it no lease is taken, and a foreign one is respected.
    :param acquire: the run begins here, so it may take a lease that nobody has. In check mode no run has begun, and any
        module may.
    :param force: don't ask for the lease at all, nor renew it: for the host's own guard, and for releasing one.
    :param wait: seconds to wait for the kernel's lock; 0 is one try.
    :raises LockedError: if another run has the host, or another process holds the kernel's lock.
    """
    layout = Layout(state_dir)
    if check_mode:
        before = read_lease(state_dir)
        current = Session(layout, Document(peek(state_dir)), writable=False, clock=clock)
        if not force:
            lease = _lease.enter(before, run, now=clock(), seconds=lease_seconds, boot_id="", acquire=True)
            current.note_takeover(before, lease)
        yield current
        return
    for path in (layout.root, layout.backup(), layout.staging(), layout.pending(), layout.history()):
        _files.ensure_private_directory(path.rstrip("/"))
    with _locked(layout.lock, sleep=sleep, wait=wait) as descriptor:
        before = lease = _lease.decode(os.pread(descriptor, _lease.SIZE, 0))
        if not force:
            now, boot_id = clock(), _boot_id()
            lease = _lease.enter(before, run, now=now, seconds=lease_seconds, boot_id=boot_id, acquire=acquire)
        if lease != before:
            _write_lease(descriptor, lease)
        document, warnings = _load(layout, now=timestamp(clock()))
        current = Session(layout, document, writable=True, clock=clock)
        current.warnings.extend(warnings)
        current.note_takeover(before, lease)
        current._lock = descriptor
        yield current


def peek(state_dir: str, *, wait: float = 0, sleep: t.Callable[[float], None] = time.sleep) -> dict[str, t.Any] | None:
    """The document as it is, without entering; None if the host has none, or it is damaged.

    :param wait: seconds to let a module that is in the middle of its action come to its end.
    """
    layout = Layout(state_dir)
    try:
        if wait and os.path.lexists(layout.lock):
            with _locked(layout.lock, sleep=sleep, wait=wait, shared=True):
                pass
        data = json.loads(_read(layout.document) or "null")
        return Document(data).data if data is not None else None
    except StateError as exc:
        if exc.key == "state.newer_schema":
            raise StateError(f"{layout.document}: {exc}", key=exc.key) from exc
        return None
    except (OSError, ValueError):
        return None


def read_lease(state_dir: str) -> dict[str, t.Any]:
    """Who has the host now, without asking for it; see C(_lease)."""
    return _lease.decode(_read(Layout(state_dir).lock))


def _load(layout: Layout, *, now: str) -> tuple[Document, list[str]]:
    """The document. A damaged one is set aside, and a new one knows the restore points that are there."""
    text = _read(layout.document)
    if not text:
        if not os.path.lexists(layout.document):
            return Document(), []
        problem = "it is empty"
    else:
        try:
            return Document(json.loads(text)), []
        except ValueError as exc:
            problem = f"it is no JSON ({exc})"
        except StateError as exc:
            if exc.key == "state.newer_schema":
                raise StateError(f"{layout.document}: {exc}", key=exc.key) from exc
            problem = str(exc)
    aside = f"{layout.document}.damaged-{now.replace(':', '')}"
    os.rename(layout.document, aside)
    return _rebuilt(layout), [f"{layout.document} was damaged: {problem}. Set aside as {aside}, begun anew"]


def _rebuilt(layout: Layout) -> Document:
    """A document from what else is there: the restore points, and the markers of swaps that nobody has confirmed. Their
    components are recorded as they were when their files were touched, so that the next run finishes or undoes that."""
    data = new_document()
    for marker in _json_files(layout.pending()):
        if isinstance(marker.get("component"), str) and isinstance(marker.get("record"), dict):
            data["components"][marker["component"]] = marker["record"]
    for backup_id in sorted(os.listdir(layout.backup())):
        try:
            manifest = json.loads(_read(os.path.join(layout.backup(backup_id), "manifest.json")))
            name, version, created = manifest["component"], manifest["version"], manifest["created_at"]
        except (ValueError, KeyError, TypeError):
            continue
        record = data["components"].setdefault(name, {"state": "idle", "attempts": 0})
        points = record.setdefault("inventory", {}).setdefault("restore_points", [])
        if backup_id not in [point["id"] for point in points]:
            points.append({"id": backup_id, "version": version, "created_at": created})
        points.sort(key=lambda point: point["created_at"])
    return Document(data)


def _json_files(directory: str) -> t.Iterator[dict[str, t.Any]]:
    """What is in the JSON files of a directory; one that is damaged, or isn't finished, is left out."""
    for name in sorted(os.listdir(directory)):
        if name.endswith(".json") and not name.startswith("."):
            with contextlib.suppress(ValueError, OSError):
                data = json.loads(_read(os.path.join(directory, name)))
                if isinstance(data, dict):
                    yield data


def _serialized(document: Document) -> bytes:
    return (json.dumps(document.data, indent=2) + "\n").encode()


def _read(path: str) -> bytes:
    """A file's content; empty if there is none. A symbolic link in its place isn't followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as source:
        return source.read()


@contextlib.contextmanager
def _locked(
    path: str, *, sleep: t.Callable[[float], None], wait: float = _LOCK_WAIT, shared: bool = False
) -> t.Iterator[int]:
    """The kernel's lock on a file that is never unlinked: it ends with its holder, however that dies."""
    flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockedError(
                        f"another process on this host holds {path}, after {wait:.0f} s still: it is in the middle of "
                        "a step; see it with 'fuser' on that file and run again when it has ended",
                        key="lock.busy",
                    ) from None
                sleep(_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_lease(descriptor: int, lease: dict[str, t.Any]) -> None:
    os.pwrite(descriptor, _lease.encode(lease), 0)
    os.fsync(descriptor)


def _boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()
