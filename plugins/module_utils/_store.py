# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. The state directory of a host: its lock, its document, its history.

state.json    the document, see C(_schema.DOCUMENT)
upgrade.lock  the lease; the kernel's lock on this file is held by a module for its whole action
backups/      restore points
staging/      proven candidates that are not in use yet
baseline/     what probes saw of a component before it was touched; see C(_baseline.py)
pending/      a marker for each component whose swap nobody has confirmed yet; see C(_rebuilt)
history/      an archive for each upgrade that has ended; see C(_history.py)

What is in a JSON file is believed only if all of it has the shape that C(_schema.py) tells, and the file isn't larger
than C(_json_file.py) says. All of it is private: a file that is not ours, or a link in its place, is refused, and one
that others can get at is narrowed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import typing as t

from . import _files, _history, _json_file, _lease, _private, _process, _rebuild, _schema
from ._errors import HostError, InputError, LockedError, StateError
from ._state import Document, Step, check_document, check_part, clean, is_unsettled, new_document, why_lost

_LOCK_WAIT = 120.0
_POLL = 0.1
_DAY = 86400
_MAX_REPAIRS = 20
_UNREADABLE = "unreadable"


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

    @property
    def restarting(self) -> str:
        return os.path.join(self.root, "restarting")

    def backup(self, backup_id: str | None = None) -> str:
        return self._under("backups", backup_id)

    def staging(self, key: str | None = None) -> str:
        return self._under("staging", key)

    def pending(self, component: str | None = None) -> str:
        return self._under("pending", component, ".json")

    def own_command(self, component: str) -> str:
        """What the command lines of a component's rollback watchdog have in them, and no command of its unit has."""
        return self.pending(component).removesuffix(".json")

    def baseline(self, component: str | None = None) -> str:
        return self._under("baseline", component, ".json")

    def history(self, upgrade_id: str | None = None) -> str:
        return self._under("history", upgrade_id, ".json")

    def _under(self, directory: str, name: str | None, suffix: str = "") -> str:
        """A place in a directory, or without a name the directory, with C(/) at its end.

        :raises InputError: if the name is empty, or would lead out of the directory.
        """
        if name is None:
            return os.path.join(self.root, directory, "")
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise InputError(f"{name!r} can't be the name of something in {directory}/", key="input.name")
        return os.path.join(self.root, directory, f"{name}{suffix}")


class Session:
    """One module's time with the state of a host. In check mode nothing that it records reaches the disk."""

    def __init__(
        self,
        layout: Layout,
        document: Document,
        *,
        writable: bool,
        clock: t.Callable[[], float],
        uptime: t.Callable[[], float] = _process.uptime,
    ) -> None:
        self.layout = layout
        self.document = document
        self.writable = writable
        self.warnings: list[str] = []
        self.took_over: dict[str, t.Any] | None = None
        self.acquired = False
        self.lease_before: dict[str, t.Any] = {}
        self._clock, self._uptime = clock, uptime
        self._lock: int | None = None
        self._noting = False
        self._saved = _parts(document) if os.path.lexists(layout.document) else {}
        self._unwritten: list[_history.Archive] = []

    @property
    def now(self) -> str:
        return timestamp(self._clock())

    def note_takeover(self, before: dict[str, t.Any], lease: dict[str, t.Any]) -> None:
        """Tell from whom the lease was taken, if it was: that run has ended without giving it back."""
        if before.get("upgrade_id") in (None, lease.get("upgrade_id")):
            return
        self.took_over = {key: before.get(key) for key in ("upgrade_id", "user", "controller")}
        self.warnings.append(f"took over from {_lease.name(before)}, which ended without giving the host back")

    @property
    def lease(self) -> dict[str, t.Any]:
        """The lease as it is on file."""
        if self._lock is None:
            return read_lease(self.layout.root)
        return _lease_in(self._lock)

    def save(self) -> None:
        """Put the document on disk, durably, as its next revision, unless it is there as it is. The lock file tells the
        revision too, so that one who must rebuild the document doesn't go back behind it.

        :raises StateError: if it would be one that no reader understands.
        """
        parts = _parts(self.document) if self.writable else self._saved
        if parts == self._saved:
            return
        self._check(parts)
        self.document.data["revision"] += 1
        parts["revision",] = str(self.document.data["revision"])
        content = _joined(parts)
        if len(content) > _json_file.MOST_BYTES:
            self.document.data["revision"] -= 1
            raise StateError(
                f"{self.layout.document} would have {len(content)} bytes, and may have {_json_file.MOST_BYTES}: the "
                "upgrade has too many steps or phases; plan fewer of them",
                key="state.too_large",
            )
        _files.write_durably(self.layout.document, content)
        self._saved = parts
        if self._noting:
            self._note_revision()

    def _check(self, parts: dict[tuple[str, ...], str]) -> None:
        """Look at the parts that aren't those on disk, which were looked at when they were read or written."""
        if not self._saved or not {*_schema.DOCUMENT["required"]} <= self.document.data.keys():
            check_document(self.document.data)
        for place, text in parts.items():
            if self._saved.get(place) != text:
                check_part(self.document.data, *place)

    def _note_revision(self) -> None:
        """Without fsync: it is there for a document that was damaged, not for a power cut."""
        if self._lock is not None:
            content = _lease.encode({**self.lease, "revision": self.document.data["revision"]})
            with _files.naming(self.layout.lock):
                os.pwrite(self._lock, content, 0)

    def archive(self) -> None:
        """Keep the upgrade that has ended in the history, as the new head of its chain. Until the document that knows
        it is saved, it doesn't count: a run that dies in between leaves it to the next, which writes it again."""
        upgrade = self.document.upgrade
        if not upgrade.get("upgrade_id"):
            return
        names = sorted({Step.of(key).component for key in upgrade.get("steps", {})})
        data = {
            "schema_version": self.document.data["schema_version"],
            "revision": self.document.data["revision"] + 1,
            "previous": self.document.history["head"],
            "upgrade": upgrade,
            "components": {name: self.document.component(name) for name in names},
        }
        content = json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"
        if self.writable:
            _files.write_durably(self._place_of(upgrade["upgrade_id"]), content)
        else:
            self._unwritten.append(_history.archive("", content))
        head = hashlib.sha256(content).hexdigest()
        self.document.data["history"] = {**self.document.history, "head": head}

    def _place_of(self, upgrade_id: str) -> str:
        """Where an upgrade's archive goes: not to where one of the chain is, for a run may upgrade a host twice."""
        head, number = self.document.history["head"], 1
        while True:
            path = self.layout.history(upgrade_id if number == 1 else f"{upgrade_id}-{number}")
            if not os.path.lexists(path) or _history.read(path).previous == head:
                return path
            number += 1

    def prune_history(self, *, keep: int, days: int) -> list[str]:
        """Let the document's chain end before the archives that are too many or, if C(days) isn't 0, too old. The names
        of all that may be removed once the document is saved, oldest first: what is left of them, wherever a removal
        stops, is a chain still."""
        archives = [*_history.read_all(self.layout.history(), narrowed=self.warnings), *self._unwritten]
        head, base = self.document.history["head"], self.document.history["base"]
        oldest = timestamp(self._clock() - days * _DAY) if days else ""
        line = _history.chain(archives, head, base)
        doomed = next(
            (place for place, each in enumerate(line) if place >= keep or each.finished_at < oldest), len(line)
        )
        if line[doomed:]:
            self.document.data["history"] = {"head": head, "base": line[doomed].sha256}
        gone = [*line[doomed:], *_history.chain(archives, base, None)]
        return [each.name for each in reversed(gone) if each.name]

    def remove_archives(self, names: list[str]) -> None:
        """Remove pruned archives, in this order."""
        if self.writable and names:
            for name in names:
                _files.remove_if_there(os.path.join(self.layout.history(), name))
            _files.fsync_directory(self.layout.history().rstrip("/"))

    def renew(self) -> None:
        """Count the lease from now: what a module had announced to take long has come to its end."""
        if self._lock is not None:
            lease, uptime = self.lease, self._uptime()
            now = present(lease, clock=self._clock, uptime=self._uptime)
            renewed = {"renewed": now, "expires": now + _lease.LEASE_SECONDS, "uptime": uptime, "boot_id": _boot_id()}
            _write_lease(self.layout, self._lock, {**lease, **renewed})

    def take(self, run: dict[str, t.Any]) -> None:
        """Take the lease for a run, whoever has it."""
        if self._lock is not None:
            free, seconds = _lease.released(self.lease), _lease.LEASE_SECONDS
            when = {"now": self._clock(), "uptime": self._uptime()}
            lease = _lease.enter(free, run, **when, seconds=seconds, boot_id=_boot_id(), acquire=True)
            _write_lease(self.layout, self._lock, lease)

    def release(self) -> None:
        """Give the lease back, whoever's it is."""
        if self._lock is not None:
            _write_lease(self.layout, self._lock, _lease.released(self.lease))

    def remove_tree(self, path: str) -> None:
        """Remove a restore point or a candidate: renamed first, so that half of one is never taken for a whole."""
        if not self.writable or not os.path.lexists(path):
            return
        if os.path.dirname(os.path.dirname(path)) != self.layout.root.rstrip("/"):
            raise InputError(f"{path} is no restore point and no candidate: it is not removed", key="input.name")
        doomed = f"{path}.removed"
        _files.remove_tree(doomed, quietly=True)
        _files.rename(path, doomed)
        _files.remove_tree(doomed)


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
    uptime: t.Callable[[], float] = _process.uptime,
    sleep: t.Callable[[float], None] = time.sleep,
) -> t.Iterator[Session]:
    """Enter the state directory: under the kernel's lock, with the run's lease renewed, and the document read.

    A module that a dead run left behind still holds the kernel's lock: then this waits until it has ended.

    :param run: who acts, see C(_lease.enter). Without it no lease is taken, and a foreign one is respected.
    :param acquire: the run begins here, so it may take a lease that nobody has. In check mode no run has begun, and any
        module may.
    :param force: don't ask for the lease at all, nor renew it: for the host's own guard, and for releasing one.
    :param wait: seconds to wait for the kernel's lock; 0 is one try.
    :param clock: the time of day in seconds since the epoch, for what is written down.
    :param uptime: seconds since the host's kernel started, for how long a lease lasts.
    :raises LockedError: if another run has the host, or another process holds the kernel's lock.
    """
    layout, boot_id = Layout(state_dir), _boot_id()
    when = {"now": clock(), "uptime": uptime(), "seconds": lease_seconds}
    if check_mode:
        before = read_lease(state_dir)
        current = Session(layout, read_document(state_dir), writable=False, clock=clock, uptime=uptime)
        if not force:
            lease = _lease.enter(before, run, **when, boot_id=boot_id, acquire=True)
            current.note_takeover(before, lease)
        current.lease_before = before
        yield current
        return
    for path in (layout.root, layout.backup(), layout.staging(), layout.pending(), layout.history()):
        _files.ensure_private_directory(path.rstrip("/"))
    warnings: list[str] = []
    with _locked(layout.lock, sleep=sleep, wait=wait, narrowed=warnings) as descriptor:
        before = lease = _lease_in(descriptor)
        if not force:
            when.update(now=clock(), uptime=uptime())  # the kernel's lock may have been waited for
            with _saying_why(layout, before, run, now=present(before, clock=clock, uptime=uptime)):
                lease = _lease.enter(before, run, **when, boot_id=boot_id, acquire=acquire)
        document = _load(layout, warnings, now=timestamp(clock()))
        if lease != before:
            _write_lease(layout, descriptor, lease)
        current = Session(layout, document, writable=True, clock=clock, uptime=uptime)
        current.warnings.extend(warnings)
        current.note_takeover(before, lease)
        current.acquired = lease.get("upgrade_id") != before.get("upgrade_id")
        current.lease_before = before
        current._lock, current._noting = descriptor, not force
        try:
            yield current
        finally:
            current._lock = None  # its number may be another file's from here on


@contextlib.contextmanager
def _saying_why(
    layout: Layout, lease: dict[str, t.Any], run: dict[str, t.Any] | None, *, now: float
) -> t.Iterator[None]:
    """Let the refusal of a run that has lost its host tell what became of that, as far as the host's state knows."""
    try:
        yield
    except LockedError as exc:
        document = None
        if run is not None and exc.key == "lock.lost":
            with contextlib.suppress(StateError, HostError):
                document = examine(layout)[0]
        if run is None or document is None:
            raise
        cause, told = why_lost(document, run["upgrade_id"])
        text = _lease.lost(lease, run, now=now, cause=told)
        raise LockedError(text, key=exc.key, details={"cause": cause}) from None


def peek(state_dir: str, *, wait: float = 0, sleep: t.Callable[[float], None] = time.sleep) -> dict[str, t.Any] | None:
    """The document as it is, without entering; None if the host has none. Of one that is damaged, what a session would
    make of it.

    :param wait: seconds to let a module that is in the middle of its action come to its end.
    """
    layout = Layout(state_dir)
    if wait and os.path.lexists(layout.lock):
        with _locked(layout.lock, sleep=sleep, wait=wait, shared=True):
            pass
    document, problem = examine(layout)
    return document.data if document and (document.data["components"] or not problem) else None


def read_document(state_dir: str) -> Document:
    """The document without entering, for whoever only reads; an idle one if the host has none."""
    return Document(peek(state_dir))


def read_lease(state_dir: str) -> dict[str, t.Any]:
    """Who has the host now, without asking for it; see C(_lease)."""
    lease = _lease.decode(_json_file.beginning(Layout(state_dir).lock, most=_json_file.MOST_BYTES_OF_LEASE + 1))
    lease.pop("revision", None)  # it is there for one who rebuilds the document
    return lease


def present(
    lease: dict[str, t.Any],
    *,
    clock: t.Callable[[], float] = time.time,
    uptime: t.Callable[[], float] = _process.uptime,
) -> float:
    """The time of day by which a lease of this host is judged now; see C(_lease.present)."""
    return _lease.present(lease, now=clock(), uptime=uptime(), boot_id=_boot_id())


def _lease_in(descriptor: int) -> dict[str, t.Any]:
    return _lease.decode(os.pread(descriptor, _json_file.MOST_BYTES_OF_LEASE + 1, 0))


def _load(layout: Layout, warnings: list[str], *, now: str) -> Document:
    """The document. One that is damaged is set aside first, and what can be known in its stead is put in its place."""
    document, problem = examine(layout, narrowed=warnings)
    if document is None or not problem:
        return document or Document()
    aside = _set_aside(layout, now=now) if os.path.lexists(layout.document) else None
    repairs = document.data.get("repairs", [])
    document.data["repairs"] = [*repairs, {"at": now, "problem": clean(problem), "set_aside": aside}][-_MAX_REPAIRS:]
    _files.write_durably(layout.document, _joined(_parts(document)))
    where = f"Set aside as {aside}, and" if aside else "It was"
    warnings.append(
        f"{layout.document} was damaged: {problem}. {where} rebuilt from the history, the restore points and the "
        "markers there are"
    )
    return document


def examine(layout: Layout, *, narrowed: list[str] | None = None) -> tuple[Document | None, str]:
    """The document and what is wrong with it; if something is, it is the one that is rebuilt. None on a new host.

    :raises StateError: if a newer collection wrote it, or it can't be read.
    """
    try:
        content = _json_file.content(layout.document, narrowed=narrowed)
        value = _schema.loads(content) if content else None
        if value is not None:
            return Document(value), ""
        problem = "there is nothing in it" if os.path.lexists(layout.document) else ""
    except ValueError as exc:
        problem = f"it is no JSON that can be used ({exc})"
    except OSError as exc:
        raise StateError(
            f"{layout.document} can't be read: {_files.explain(exc)}. Without the host's state nothing is done on this "
            "host: see to its disk and permissions, and run again",
            key="state.unreadable",
        ) from exc
    except StateError as exc:
        if exc.key == "state.newer_schema":
            raise StateError(f"{layout.document}: {exc}", key=exc.key) from exc
        problem = str(exc)
    data = _rebuild.rebuilt(layout, _json_file.beginning(layout.document))
    if not problem and data == new_document():
        return None, ""
    return Document(data), problem or "it is gone"


def _set_aside(layout: Layout, *, now: str) -> str:
    """Give a damaged document a second name. It keeps the first until the new one takes that."""
    aside = _unused(f"{layout.document}.damaged-{now.replace(':', '')}")
    try:
        _files.add_name(layout.document, aside)
    except OSError:  # a file system without hard links
        _files.write_durably(aside, _json_file.beginning(layout.document))
    return aside


def _unused(path: str) -> str:
    number, name = 1, path
    while os.path.lexists(name):
        number += 1
        name = f"{path}-{number}"
    return name


def _parts(document: Document) -> dict[tuple[str, ...], str]:
    """The document as text: of each of its keys, and of each component by itself."""
    found: dict[tuple[str, ...], str] = {}
    for key, value in document.data.items():
        if key == "components" and value and isinstance(value, dict):
            found.update({(key, name): json.dumps(value[name]) for name in value})
        else:
            found[key,] = json.dumps(value)
    return found


def _joined(parts: dict[tuple[str, ...], str]) -> bytes:
    """The document as it is written: a line for each of its parts. Python's json is quick only where it doesn't have to
    indent."""
    lines, components = [], []
    for place, text in parts.items():
        if len(place) > 1:
            components.append(f"  {json.dumps(place[1])}: {text}")
        else:
            lines.append(f"{json.dumps(place[0])}: {text}")
    if components:
        lines.append('"components": {\n' + ",\n".join(components) + "\n}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


@contextlib.contextmanager
def _locked(
    path: str,
    *,
    sleep: t.Callable[[float], None],
    wait: float = _LOCK_WAIT,
    shared: bool = False,
    narrowed: list[str] | None = None,
) -> t.Iterator[int]:
    """The kernel's lock on a file that is never unlinked: it ends with its holder, however that dies."""
    with _private.opened(path, os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, narrowed=narrowed) as descriptor:
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


def _write_lease(layout: Layout, descriptor: int, lease: dict[str, t.Any]) -> None:
    with _files.naming(layout.lock):
        if os.fstat(descriptor).st_size > _lease.SIZE:
            os.ftruncate(descriptor, _lease.SIZE)
        os.pwrite(descriptor, _lease.encode(lease), 0)
        os.fsync(descriptor)


def _boot_id() -> str:
    return _files.read_text("/proc/sys/kernel/random/boot_id").strip()


def unfinished(records: dict[str, dict[str, t.Any]]) -> dict[str, str]:
    """The components whose last attempt was cut off, or could not be undone, and where it left their files: C(old),
    C(new), C(mixed), C(other), or C(unreadable). What a person has put there after a failure is no attempt's any more;
    a file that is gone, or can't be read, was put there by nobody."""
    found = {name: _evidence(record) for name, record in records.items() if is_unsettled(record)}
    return {name: where for name, where in found.items() if where != "other" or records[name]["state"] != "failed"}


def unlike(record: dict[str, t.Any], moment: str) -> list[str]:
    """The paths of an attempt at which there isn't now what its C(files) say.

    :param moment: C(before) it, or C(after) it.
    """
    return [file["path"] for file, now in _contents(record) if now != file.get(moment)]


def _contents(record: dict[str, t.Any]) -> list[tuple[dict[str, t.Any], str | None]]:
    """Each file of an attempt, with the sha256 of what is at its path now; None if nothing is."""
    found: list[tuple[dict[str, t.Any], str | None]] = []
    for file in record.get("files", []):
        try:
            found.append((file, _files.sha256_or_none(file["path"])))
        except (OSError, HostError):
            found.append((file, _UNREADABLE))
    return found


def _evidence(record: dict[str, t.Any]) -> str:
    files = _contents(record)
    if all(now == file.get("after") for file, now in files):
        return "new"
    if all(now == file.get("before") for file, now in files):
        return "old"
    if any(now == _UNREADABLE for _file, now in files):
        return _UNREADABLE
    known = any(now in (file.get("before"), file.get("after")) for file, now in files)
    return "mixed" if known or all(now is None for _file, now in files) else "other"
