# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts: a host on a real ext4, whose image is copied at each point, and mounted again as after a power cut.

What the kernel hasn't written to the device by then isn't in the copy. The mount replays the journal, as a boot does.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import typing as t

from ansible_collections.observability.stack.tests.unit.crash import Point, Points, in_child
from ansible_collections.observability.stack.tests.unit.crash_host import (
    Host,
    Scenario,
    Table,
    again,
    play,
    prepare,
    torn,
    undecided,
)

SIZE = 32 << 20
# ext4 guesses what careless writers mean, and brings their data to the disk. Other file systems don't.
OPTIONS = "loop,noauto_da_alloc"


class NoPowerError(Exception):
    """This machine can't make file systems on images, with the reason."""


def run(*argv: str | pathlib.Path) -> None:
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    except OSError as exc:
        raise NoPowerError(f"{argv[0]}: {exc.strerror}") from exc
    if done.returncode:
        raise NoPowerError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")


class PowerBed:
    """A scenario's host on a file system of its own.

    :param committed: the file system's journal is committed right before each cut, as it is every few seconds: names
        are on the disk then, but of the data only what was synced. Without it, nothing is that wasn't.
    """

    def __init__(self, work: pathlib.Path, scenario: Scenario, *, committed: bool) -> None:
        self.scenario = scenario
        self._work, self._committed = work, committed
        self._mount = work / "disk"
        self._mount.mkdir()
        self.host = Host(self._mount / "host", work / "memory")
        image = self._image("template")
        with image.open("wb") as file:
            file.truncate(SIZE)
        run("mkfs.ext4", "-q", "-F", image)
        with self._on("template"):
            prepare(self.host, scenario)

    def _image(self, name: str) -> pathlib.Path:
        return self._work / f"{name}.img"

    @contextlib.contextmanager
    def _on(self, name: str) -> t.Iterator[None]:
        """The host with its disk; afterwards it is off."""
        run("mount", "-o", OPTIONS, self._image(name), self._mount)
        try:
            yield
        finally:
            self.host.systemd.stop()
            run("umount", self._mount)

    def _copy(self, source: str, target: str) -> None:
        run("cp", "--sparse=always", "--", self._image(source), self._image(target))

    def _cut(self, number: int) -> None:
        if self._committed:
            with (self._mount / "something-else").open("w") as file:
                file.write(str(number))
                file.flush()
                os.fsync(file.fileno())
        self._copy("now", f"cut-{number}")

    def points(self) -> list[Point]:
        """Give the command once, and cut the power at each point. The points."""
        self._copy("template", "now")
        with self._on("now"):
            self.host.boot()
            points = Points(sync=True, passing=self._cut)
            ended = in_child(lambda: play(self.host, self.scenario.command, "run1", points))
        assert not ended.traceback, ended.traceback
        return [Point(*point) for point in ended.answer["points"]]

    def trial(self, number: int) -> list[str]:
        """Boot the host after a cut, and give the command again. What was wrong."""
        name = f"cut-{number}"
        with self._on(name):
            problems = [f"at once: {problem}" for problem in torn(self.host, self.scenario)]
            self.host.boot()
            problems += [f"after the boot: {problem}" for problem in undecided(self.host, self.scenario)]
            problems += again(self.host, self.scenario)
        self._image(name).unlink()
        return problems


def power_cuts(bed: PowerBed) -> Table:
    """Cut the power at each point, one after the other."""
    problems = {}
    points = bed.points()
    for number, point in enumerate(points, 1):
        found = bed.trial(number)
        if found:
            problems[f"power cut, at point {number}, {point}"] = found
    return Table(len(points), problems)
