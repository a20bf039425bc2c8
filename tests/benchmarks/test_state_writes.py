# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the record on a host costs: a write of it, beside the least that a durable write can be.

Both are done in turn in the same run, so that what the disk does meanwhile meets both alike; a figure is the median of
the pairs' ratios.
"""

from __future__ import annotations

import gc
import os
import pathlib
import statistics
import time
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _store
from ansible_collections.observability.stack.plugins.module_utils._state import Step

if t.TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
RUN = {"upgrade_id": "20261121T031500Z-3fa9c2", "user": "ops", "controller": "c1"}
COMPONENTS = 12
PAIRS = 600
AIM, LEAST = 0.8, 0.5
"""Of as many writes a second as the bare ones: what is aimed at, and below what something has become slower."""


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[pathlib.Path]:
    """A directory on a disk: that for temporary files may be in memory, where nothing needs to be waited for."""
    place = CHECKOUT / ".cache" / "bench"
    place.mkdir(parents=True, exist_ok=True)
    directory = place / tmp_path_factory.mktemp("state").name
    directory.mkdir()
    yield directory
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()


def go_through_upgrade(session: _store.Session) -> None:
    """Have the record of an upgrade of all components, as it is at its end."""
    document, now = session.document, session.now
    steps = [Step(f"component_{number}", "1.10.2") for number in range(COMPONENTS)]
    document.begin(RUN, steps=[step.key for step in steps], details={"phase": "exporters"}, now=now)
    for step in steps:
        backup_id = f"{RUN['upgrade_id']}.{step.component}-1.9.0"
        document.start_step(step, from_version="1.9.0", now=now)
        document.set_component(step.component, "staged", now=now)
        document.set_component(step.component, "activated", now=now, backup_id=backup_id, sha256="a" * 64)
        document.set_component(step.component, "verifying", now=now)
        document.add_restore_point(step.component, backup_id=backup_id, version="1.9.0", now=now)
        paths = [f"/usr/local/bin/{step.component}"]
        document.installed(step.component, step.to_version, paths=paths, sha256="a" * 64, now=now)
        document.end_step(step, "succeeded", now=now)
    session.save()


def write_bare(path: str, data: bytes) -> None:
    """The least that a durable write of a whole file can be."""
    descriptor = os.open(f"{path}.new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(f"{path}.new", path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def timed(action: t.Callable[[], t.Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def test_a_write_of_the_record_costs_little_more_than_a_bare_one(
    root: pathlib.Path, benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also shows what pytest-benchmark measures of the write alone."""
    bare = str(root / "bare.json")
    with _store.session(str(root / "state"), run=RUN, acquire=True) as session:
        go_through_upgrade(session)
        data = pathlib.Path(session.layout.document).read_bytes()

        def change() -> None:
            session.document.upgrade["plan_digest"] = f"{session.document.data['revision']:064}"

        pairs = []
        gc.disable()
        for number in range(PAIRS):
            change()
            both = [lambda: timed(session.save), lambda: timed(lambda: write_bare(bare, data))]
            if number % 2:  # neither is always the one that comes after the other
                second, first = both[1](), both[0]()
            else:
                first, second = both[0](), both[1]()
            pairs.append((first, second))
        gc.enable()
        benchmark.pedantic(session.save, setup=change, rounds=100)
    ours, theirs = (statistics.median(each) for each in zip(*pairs))
    ratio = statistics.median(bare_time / save for save, bare_time in pairs)
    with capsys.disabled():
        print(
            f"\nstate.json of {COMPONENTS} components, {len(data) / 1000:.1f} kB: {1 / ours:.0f} writes a second "
            f"beside {1 / theirs:.0f} bare ones\n(write, fsync, rename, fsync of the directory): "
            f"{ratio:.2f} times as many (median of {PAIRS} pairs; aim: {AIM:g})"
        )
    assert session.document.data["revision"] == PAIRS + 101
    assert ratio >= LEAST


@pytest.mark.parametrize(
    ("what", "milliseconds"), [("lock", 10), ("save", 50), ("resume check", 100)], ids=["lock", "save", "resume check"]
)
def test_what_the_parent_system_promises_is_kept(
    root: pathlib.Path, benchmark: BenchmarkFixture, what: str, milliseconds: float
) -> None:
    """Its figures for a lock, a write, and a look at what is left to do."""
    state = str(root / "state")
    with _store.session(state, run=RUN, acquire=True) as session:
        go_through_upgrade(session)

    def lock() -> None:
        with _store.session(state, run=RUN):
            pass

    def save() -> None:
        session.document.upgrade["plan_digest"] = f"{session.document.data['revision']:064}"
        session.save()

    actions: dict[str, t.Callable[[], t.Any]] = {
        "lock": lock,
        "save": save,
        "resume check": lambda: _store.read_document(state).pending(),
    }
    benchmark.pedantic(actions[what], rounds=100, warmup_rounds=5)
    assert benchmark.stats.stats.median * 1000 < milliseconds
