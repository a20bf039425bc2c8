# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a service's user can do to paths that root works on: nothing outside of its own directories is read, changed or
given away, at whatever moment it is tried. Files, links, devices and capabilities are real, so it takes root."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pathlib
import shutil
import stat
import subprocess
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import (
    _copies,
    _files,
    _guard,
    _host,
    _preflight,
    _rehearsal,
    _restore_point,
    _store,
    _swap,
)
from ansible_collections.observability.stack.plugins.module_utils._errors import UpgradeError
from ansible_collections.observability.stack.plugins.module_utils._state import Step
from ansible_collections.observability.stack.tests.unit.support import CAP_NET_RAW, Systemd, later

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and make devices")

RUN = {"upgrade_id": "u1", "user": "ops", "controller": "c1", "dead": []}
STEP = Step("prometheus", "2.53.3")
USER, OTHER = 12345, 23456
SECRET = "the root's own secret"  # noqa: S105
OLD, NEW = "old program", "new program"
SECONDS = 10.0

PLACES = ("file", "parent", "grandparent")
KINDS = ("link", "FIFO", "device", "foreign owner", "setuid", "capability")
TIMES = ("before survey", "between survey and swap", "between swap and undo", "during the watchdog")
ROUNDS = 100_000
RENAME_EXCHANGE = 2

Seen = dict[str, tuple[t.Any, ...]]


def seen(root: pathlib.Path) -> Seen:
    """All below a directory: owner, mode, inode, attributes and content."""
    found: Seen = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        names = os.listxattr(path, follow_symlinks=False)
        attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
        found[str(path)] = (status.st_uid, status.st_gid, status.st_mode, status.st_ino, content, attributes)
    return found


class Site:
    """A host: a service whose program is in directories of its user, x/app/bin/program, and what is root's, outside.

    ``outside`` has the same names below it, so that a link to it leads on.
    """

    def __init__(self, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.state = root, str(root / "state")
        self.home, self.outside, self.staged = root / "x", root / "outside", root / "staged"
        self.program = self.home / "app" / "bin" / "program"
        self.config = self.home / "app" / "config.yml"
        units = root / "etc"
        for directory in (self.program.parent, self.outside / "app" / "bin", self.staged, units):
            directory.mkdir(parents=True)
        for path in (self.outside / "app" / "bin" / "program", self.outside / "app" / "config.yml"):
            path.write_text(SECRET)
            path.chmod(0o600)
        self.program.write_text(OLD)
        self.program.chmod(0o755)
        self.config.write_text("listen: 9090\n")
        (self.staged / "program").write_text(NEW)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, USER, USER)
        monkeypatch.setattr(_guard, "UNITS", str(units))
        monkeypatch.setattr(_guard, "_SYSTEMD_IS_HERE", str(units))
        self.systemd = Systemd(units)
        with self.session() as session:
            session.document.begin(RUN, steps=[STEP.key], details={}, now=session.now)
            session.save()
        self.before = seen(self.outside)

    def session(self) -> contextlib.AbstractContextManager[_store.Session]:
        return _store.session(self.state, run=RUN, acquire=True)

    def place(self, name: str) -> pathlib.Path:
        return {"file": self.program, "parent": self.program.parent, "grandparent": self.program.parents[1]}[name]

    def survey(self) -> str | None:
        with contextlib.suppress(OSError):
            return _files.identity_of(str(self.program))
        return None

    def swap(self, identity: str | None = None) -> None:
        target = {"component": "prometheus", "version": "2.42.0", "unit": "prometheus", "binary": str(self.program)}
        target.update(url="http://127.0.0.1:1", probes=[])
        digest = hashlib.sha256(NEW.encode()).hexdigest()
        source = str(self.staged / "program")
        swap = _swap.Swap(
            STEP,
            "2.42.0",
            [_swap.Candidate(source, str(self.program), digest, identity=identity)],
            [_restore_point.Original("config", str(self.config))],
            0,
            guard=_guard.Guard("prometheus", "prometheus.service", ["binary", "config"], target, 0.1, 0.0, 0.0),
        )
        with self.session() as session:
            _swap.check_identities(session, swap)
            _swap.apply(self.systemd, session, swap, _swap.changes(swap))

    def undo(self) -> None:
        with self.session() as session:
            backup_id = session.document.component("prometheus").get("backup_id")
            if backup_id:
                _restore_point.restore(session, _restore_point.read(session, backup_id), ["binary", "config"])

    def watchdog(self) -> None:
        if os.path.lexists(_store.Layout(self.state).pending("prometheus")):
            _guard.fire(self.systemd, self.state, "prometheus", **later(10_000), sleep=lambda _seconds: None)

    def check(self) -> None:
        """Nothing outside was changed, nothing of it is anywhere else, and nobody was given more than he had."""
        assert seen(self.outside) == self.before
        for top in (self.home, pathlib.Path(self.state)):
            for path, (uid, _gid, mode, _inode, content, attributes) in seen(top).items():
                assert SECRET.encode() not in content, path
                if content == NEW.encode():
                    assert (uid, stat.S_IMODE(mode), attributes) in [(0, 0o755, []), (0, 0o600, [])], path


def attack(site: Site, kind: str, where: str) -> None:
    """Put something into a place, as the user who owns the directories could; or more, where only root could."""
    path, aside = site.place(where), site.home / f"aside-{time.monotonic_ns()}"
    if kind in ("link", "FIFO", "device"):
        path.rename(aside)
    if kind == "link":
        path.symlink_to(site.outside / path.relative_to(site.home))
    elif kind == "FIFO":
        os.mkfifo(path, 0o777)
    elif kind == "device":
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    elif kind == "foreign owner":
        os.chown(path, OTHER, OTHER)
    elif kind == "setuid":
        os.chown(path, 0, 0)
        path.chmod(0o6777)
    elif kind == "capability":
        target = path if path.is_file() else path / "tool"
        shutil.copyfile(shutil.which("true") or "", target)
        target.chmod(0o777)
        subprocess.run(["setcap", "cap_net_raw+ep", target], check=True)


@pytest.fixture
def site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def in_time(action: t.Callable[[], None]) -> BaseException | None:
    """Do something that may be refused, but doesn't wait, and has no other exception. What it ended with."""
    begun = time.monotonic()
    try:
        action()
    except (UpgradeError, OSError) as exc:
        return exc
    finally:
        assert time.monotonic() - begun < SECONDS
    return None


@pytest.mark.parametrize("when", TIMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", PLACES)
def test_whatever_is_in_a_place_at_whatever_moment_nothing_outside_is_touched(
    site: Site, where: str, kind: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if when == "before survey":
        attack(site, kind, where)
    identity = site.survey()
    if when == "between survey and swap":
        attack(site, kind, where)
    refused = in_time(lambda: site.swap(identity))
    site.check()
    if when == "between swap and undo":
        assert refused is None
        attack(site, kind, where)
        in_time(site.undo)
        site.check()
    if when == "during the watchdog":
        verify = _restore_point.verify

        def verify_and_attack(*arguments: t.Any) -> None:
            verify(*arguments)
            attack(site, kind, where)

        monkeypatch.setattr(_restore_point, "verify", verify_and_attack)
    in_time(site.watchdog)
    site.check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_changed_since_the_survey_is_not_replaced(site: Site, kind: str) -> None:
    identity = site.survey()
    assert identity
    attack(site, kind, "file")
    before = seen(site.home)
    refused = in_time(lambda: site.swap(identity))
    assert refused
    if kind not in ("link", "FIFO", "device"):
        assert isinstance(refused, UpgradeError)
        assert refused.key == "swap.changed"
    assert seen(site.home) == before


def test_content_that_was_changed_back_in_size_and_time_is_not_replaced(site: Site) -> None:
    identity, status = site.survey(), site.program.stat()
    site.program.write_text(OLD.upper())
    os.utime(site.program, ns=(status.st_atime_ns, status.st_mtime_ns))
    refused = in_time(lambda: site.swap(identity))
    assert isinstance(refused, UpgradeError)
    assert (refused.key, "changed" in str(refused)) == ("swap.changed", True)


def test_a_link_of_roots_that_leads_elsewhere_since_the_survey_is_refused(site: Site) -> None:
    for name in ("one", "two"):
        (site.root / name).mkdir()
    os.link(site.staged / "program", site.root / "one" / "program")
    os.link(site.staged / "program", site.root / "two" / "program")
    link = site.root / "current"
    link.symlink_to("one")
    before = _files.identity_of(str(link / "program"))
    assert _files.identity_of(str(link / "program")) == before
    link.unlink()
    link.symlink_to("two")
    assert _files.identity_of(str(link / "program")) != before


def test_a_file_that_an_earlier_step_put_in_place_is_known(site: Site) -> None:
    """2.42 -> 2.53.3 -> 3.5.3 in one run: what was surveyed is gone, and what is there was put there by the first."""
    identity = site.survey()
    site.swap(identity)
    with site.session() as session:
        session.document.set_component("prometheus", "verifying", now=session.now)
        session.document.end_step(STEP, "succeeded", now=session.now)
        session.save()
    assert in_time(lambda: site.swap(identity)) is None
    site.program.write_text("something else")
    refused = in_time(lambda: site.swap(identity))
    assert isinstance(refused, UpgradeError)
    assert refused.key == "swap.changed"


def test_an_accepted_unsafe_directory_gets_a_file_of_roots_with_nothing_carried_over(site: Site) -> None:
    site.program.chmod(0o6777)
    os.setxattr(site.program, "security.capability", CAP_NET_RAW)
    site.swap(site.survey())
    status = site.program.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o755)
    assert os.listxattr(site.program) == []
    assert site.program.read_text() == NEW
    site.config.write_text("another: one\n")
    site.undo()
    assert (site.program.read_text(), site.config.read_text()) == (OLD, "listen: 9090\n")
    assert (site.program.stat().st_uid, site.config.stat().st_uid) == (0, USER)
    assert stat.S_IMODE(site.program.stat().st_mode) == 0o755


def test_a_file_of_the_directory_s_owner_keeps_the_permissions_of_its_own(site: Site) -> None:
    site.config.chmod(0o4640)
    site.swap()
    site.config.write_text("another: one\n")
    site.undo()
    assert (site.config.stat().st_uid, stat.S_IMODE(site.config.stat().st_mode)) == (USER, 0o640)


@pytest.mark.parametrize(
    ("change", "unsafe", "says"),
    [
        ({"home": (USER, 0o755)}, "home", "chown root:root"),
        ({"app": (0, 0o775, USER)}, "app", "chmod go-w"),
        ({"app": (0, 0o775, 54_321)}, "app", "chmod go-w"),  # a group without a name
        ({"app": (0, 0o775)}, "", ""),  # the group root has no other member
        ({"app": (0, 0o2775, 50)}, "", ""),  # staff on Debian, which has no member
        ({"app": (0, 0o1777)}, "app", "chmod go-w"),
        ({"bin": (0, 0o757)}, "bin", "chmod go-w"),
        ({"bin": (USER, 0o700)}, "bin", "chown root:root"),
        ({}, "", ""),
    ],
)
def test_the_first_directory_that_is_unsafe_is_a_blocker(
    site: Site, change: dict[str, tuple[int, ...]], unsafe: str, says: str
) -> None:
    directories = {"home": site.home, "app": site.home / "app", "bin": site.program.parent}
    for name, path in directories.items():
        uid, mode, *gid = change.get(name, (0, 0o755))
        os.chown(path, uid, *(gid or [0]))
        path.chmod(mode)
    found = tuple(_host.unsafe_paths([str(site.program)]))
    findings = [one for one in _preflight.findings(_preflight.Facts(unsafe_paths=found), []) if "unsafe" in one["key"]]
    assert [one["evidence"]["directory"] for one in findings] == ([str(directories[unsafe])] if unsafe else [])
    for one in findings:
        assert (one["key"], one["severity"]) == ("host.unsafe_path", "blocker")
        assert says in one["fix"]
        assert str(site.program) in one["message"]


def test_a_list_that_lets_a_user_write_makes_a_directory_unsafe(site: Site) -> None:
    entries = [(0x01, 7, -1), (0x02, 7, USER), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1)]
    acl = b"".join(tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + (who % (1 << 32)).to_bytes(4, "little")
                   for tag, perm, who in entries)  # fmt: skip
    os.chown(site.home, 0, 0)
    assert _files.unsafe_directory(str(site.home / "x")) is None
    os.setxattr(site.home, "system.posix_acl_access", (2).to_bytes(4, "little") + acl)
    assert _files.unsafe_directory(str(site.home / "x"))


def test_what_is_swapped_back_beside_programs_is_looked_at_too() -> None:
    step = {"files": [{"dest": "/usr/local/bin/x"}], "keep": {"unit": ["/u/x.service"], "config": ["/c/x.yml"]}}
    assert _preflight.replaced({**step, "kinds": ["binary", "unit"]}) == ["/usr/local/bin/x", "/u/x.service"]
    assert _preflight.replaced({**step, "kinds": ["binary"]}) == ["/usr/local/bin/x"]


# -- the state directory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, "stranger", "link"])
def test_a_state_directory_below_what_others_can_write_is_refused(tmp_path: pathlib.Path, mode: t.Any) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    if mode == "stranger":
        os.chown(parent, USER, USER)
    elif mode == "link":
        os.chown(parent, USER, USER)
        (parent / "deep").symlink_to(tmp_path)
    else:
        parent.chmod(mode)
    below = parent / "deep" / "state"
    for act in (lambda: _files.ensure_private_directory(str(below)), lambda: _store.session(str(below)).__enter__()):
        with pytest.raises(UpgradeError, match=str(parent)) as failure:
            act()
        assert failure.value.key == "files.not_private"
    assert not below.exists()


def test_a_document_below_what_others_can_write_is_not_read(site: Site) -> None:
    site.root.chmod(0o777)
    with pytest.raises(UpgradeError) as failure:
        _store.peek(site.state)
    assert failure.value.key == "files.not_private"


# -- copies ---------------------------------------------------------------------------------------------------------


def copied(source: pathlib.Path, to: pathlib.Path, **options: t.Any) -> BaseException | None:
    return in_time(lambda: _copies.copy(str(source), str(to), most=1 << 20, **options))


def test_a_directory_is_copied_with_owners_modes_and_links(site: Site, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "conf"
    (source / "rules").mkdir(parents=True)
    (source / "rules" / "a.yml").write_text("a")
    os.chown(source / "rules" / "a.yml", USER, OTHER)
    (source / "rules" / "a.yml").chmod(0o4640)
    (source / "inside").symlink_to("rules/a.yml")
    (source / "outward").symlink_to("../outside/app")
    os.mkfifo(source / "pipe")
    assert copied(source, tmp_path / "copy", links=True) is None
    copy = tmp_path / "copy"
    status = (copy / "rules" / "a.yml").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (USER, OTHER, 0o640)
    assert (os.readlink(copy / "inside"), os.readlink(copy / "outward")) == ("rules/a.yml", str(site.outside / "app"))
    assert sorted(path.name for path in copy.iterdir()) == ["inside", "outward", "rules"]


def test_what_a_user_cannot_read_is_not_copied_for_that_user(site: Site, tmp_path: pathlib.Path) -> None:
    """A user can move directories and files of root's that are in its own ones, but doesn't get to see them."""
    hidden = site.home / "hidden"
    (hidden / "deep").mkdir(parents=True)
    (hidden / "deep" / "secret").write_text(SECRET)
    (hidden / "deep").chmod(0o700)
    (hidden / "key").write_text(SECRET)
    (hidden / "key").chmod(0o600)
    (hidden / "own").write_text("own")
    assert copied(hidden, tmp_path / "copy", owner=_copies.Owner(USER, USER)) is None
    assert [path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()] == ["own"]
    refused = copied(hidden / "key", tmp_path / "key", owner=_copies.Owner(USER, USER))
    assert isinstance(refused, PermissionError)
    assert not (tmp_path / "key").exists()


def test_what_a_user_cannot_read_is_left_out_of_a_restore_point(site: Site) -> None:
    os.chown(site.config, 0, 0)
    site.config.chmod(0o600)
    with site.session() as session:
        originals = [_restore_point.Original("binary", str(site.program))]
        kept = _restore_point.Original("config", str(site.config))
        with pytest.raises(PermissionError, match="as the user of its directory"):
            _restore_point.create(
                session, backup_id="a", component="x", version="1", files=[*originals, kept._replace(optional=False)]
            )
        manifest = _restore_point.create(
            session, backup_id="b", component="x", version="1", files=[*originals, kept._replace(optional=True)]
        )
        assert [entry.path for entry in manifest.entries] == [str(site.program)]
        assert str(site.config) in session.warnings[-1]


def test_a_hard_link_to_what_is_roots_is_not_copied(site: Site, tmp_path: pathlib.Path) -> None:
    os.link(site.outside / "app" / "config.yml", site.home / "config.yml")
    assert _files.read_text(str(site.home / "config.yml")) == ""
    assert copied(site.home / "config.yml", tmp_path / "copy")
    assert copied(site.home, tmp_path / "tree")
    os.unlink(site.home / "config.yml")
    site.check()


def test_a_copy_is_no_larger_than_it_may_be(site: Site, tmp_path: pathlib.Path) -> None:
    with (site.home / "large").open("wb") as large:
        large.truncate(1 << 30)
    refused = copied(site.home / "large", tmp_path / "copy")
    assert isinstance(refused, OSError)
    assert not (tmp_path / "copy").exists()


def test_who_reads_is_stopped_and_the_lock_is_free(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own user may stop the process that reads. Then the copy fails in time, and nobody holds the host's lock."""
    monkeypatch.setattr(_copies, "_SECONDS", 0.5)
    monkeypatch.setattr(_copies, "_send", lambda _place, _writing: time.sleep(60))
    with site.session():
        refused = copied(site.config, site.root / "copy")
    assert isinstance(refused, TimeoutError)
    with site.session():
        pass


def test_a_rehearsal_gives_nothing_away_that_a_link_leads_to(site: Site) -> None:
    """A link in place of data/silences made /etc/shadow the service's own."""
    data = site.home / "data"
    data.mkdir()
    os.chown(data, USER, USER)
    (data / "silences").symlink_to(site.outside / "app" / "config.yml")
    (data / "nflog").mkdir()
    (data / "nflog" / "own").write_text("own")
    (data / "nflog" / "log").symlink_to(site.outside / "app" / "config.yml")
    rehearse = {"data": "state", "network": "host", "flags": {"d": "{data}"}}
    state = (str(data / "silences"), str(data / "nflog"))
    wanted = _rehearsal.Wanted("alertmanager", "a.service", {}, rehearse, {}, None, str(data), state, 1.0)
    stage = _rehearsal._Stage(site.systemd, wanted, os.path.join(site.state, "rehearsal", "alertmanager"))
    place = stage._made_data({"User": "nobody"})
    assert place
    assert sorted(path.name for path in pathlib.Path(place).rglob("*")) == ["nflog", "own"]
    assert pathlib.Path(place).stat().st_uid == 65534
    assert any("silences" in note for note in stage.notes)
    site.check()


# -- races ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def flipping(one: pathlib.Path, other: pathlib.Path) -> t.Iterator[t.Callable[[], bool]]:
    """Exchange two names until the context ends. Gives whether it has been done often enough."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        names, rounds = (os.fsencode(one), os.fsencode(other)), 0
        while True:
            libc.renameat2(-100, names[0], -100, names[1], RENAME_EXCHANGE)
            rounds += 1
            if rounds == ROUNDS:
                os.write(writing, b"x")
    os.close(writing)
    os.set_blocking(reading, False)
    enough = []

    def often_enough() -> bool:
        with contextlib.suppress(BlockingIOError):
            enough.append(os.read(reading, 1))
        return bool(enough)

    try:
        yield often_enough
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reading)


@pytest.mark.parametrize("where", PLACES)
def test_a_link_that_flips_all_the_time_leads_nobody_out(site: Site, where: str, tmp_path: pathlib.Path) -> None:
    path = site.place(where)
    link = site.home / "link"
    link.symlink_to(site.outside / path.relative_to(site.home))
    with site.session() as session:
        manifest = _restore_point.create(
            session,
            backup_id="b",
            component="prometheus",
            version="2.42.0",
            files=[_restore_point.Original("binary", str(site.program))],
        )
    digests, tries, deadline = set(), 0, time.monotonic() + 60
    with flipping(path, link) as often_enough, site.session() as session:
        while (not often_enough() or tries < 50) and time.monotonic() < deadline:
            tries += 1
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
            for act in (
                lambda: digests.add(_files.sha256_file(str(site.program))),
                lambda: digests.add(_files.read_text(str(site.program))),
                lambda: _copies.copy(str(site.program.parents[1]), str(tmp_path / "copy"), most=1 << 20),
                lambda: _restore_point.restore(session, manifest, ["binary"]),
                lambda: _files.write_durably(str(site.program), NEW.encode(), mode=0o755),
                lambda: _files.bytes_below(str(site.program)),
            ):
                with contextlib.suppress(OSError, UpgradeError):
                    act()
            for found in (tmp_path / "copy").rglob("*"):
                assert not found.is_file() or SECRET not in found.read_text()
        assert often_enough(), "the machine is too slow"
    allowed = {hashlib.sha256(text.encode()).hexdigest() for text in (OLD, NEW)} | {OLD, NEW, ""}
    assert digests <= allowed
    assert tries >= 50
    site.check()


# -- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["FIFO", "device", "socket", "directory", "link"])
def test_what_is_no_file_is_neither_read_nor_waited_for(site: Site, kind: str) -> None:
    site.program.unlink()
    if kind == "socket":
        os.mknod(site.program, 0o666 | stat.S_IFSOCK)
    elif kind == "directory":
        site.program.mkdir()
    elif kind == "link":
        site.program.symlink_to(site.outside / "app" / "config.yml")
    else:
        {"FIFO": os.mkfifo, "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))}[kind](
            site.program
        )
    path = str(site.program)
    for act in (_files.sha256_file, _files.identity_of, _files.read_attributes, _files.read_bytes):
        assert isinstance(in_time(lambda act=act: act(path)), OSError)  # type: ignore[misc]
    assert _files.read_text(path) == ""
    assert _files.bytes_below(path) == 0
    assert not _files.is_file(path)


def test_links_of_roots_are_followed_as_far_as_root_controls_them(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "file").write_text("x")
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/deep/../deep")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("absolute/deep/file", "relative/file", "relative/../deep/./file"):
        assert _files.read_text(str(tmp_path / name)) == "x"
    with _files.located(str(tmp_path / "relative" / "file")) as place:
        assert place.path == str(tmp_path / "real" / "deep" / "file")
    with pytest.raises(OSError, match="loop"):
        _files.sha256_file(str(tmp_path / "loop" / "file"))


def test_counting_a_directory_ends(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / f"{number}").write_text("12345")
    (tmp_path / "up").symlink_to(tmp_path)
    assert _files.bytes_below(str(tmp_path)) == 150
    monkeypatch.setattr(_files, "_MOST_ENTRIES", 10)
    assert _files.bytes_below(str(tmp_path)) <= 50
