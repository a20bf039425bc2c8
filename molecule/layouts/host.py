# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a lab host: lays out rows, looks at them, and removes them. It reads one JSON document and prints one.

lay    write files, programs and units of all rows, start them, and wait until they answer
look   what the files of each row are, and which programs run
clean  stop and remove all of it
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request

CACHE = pathlib.Path("/var/cache/layouts")
UNITS = "/etc/systemd/system/"
WAIT = 30


def sh(script, name="", check=True):
    """Run a shell script. Returns what it printed."""
    done = subprocess.run(
        ["sh", "-euc", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    if check and done.returncode:
        raise RuntimeError(f"{name}: exit code {done.returncode}: {script}\n{done.stdout}")
    return done.stdout


def fetch(mirror, program):
    """A program of a release, out of the cache or the mirror. Returns its path in the cache."""
    kept = CACHE / program["url"].replace("/", "_")
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(kept.name + ".part")
        urllib.request.urlretrieve(f"{mirror}/{program['url']}", part)  # noqa: S310  # the lab's mirror
        if program.get("member"):
            archive, part = part, kept.with_name(kept.name + ".member")
            with tarfile.open(archive) as tar:
                part.write_bytes(tar.extractfile(program["member"]).read())
        part.rename(kept)
    return kept


def write(path, file):
    """Write a file: text, or text, mode and owner."""
    file = file if isinstance(file, dict) else {"text": file}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file["text"])
    path.chmod(int(file.get("mode", "0644"), 8))
    if "owner" in file:
        shutil.chown(path, file["owner"], file["owner"])


def unit_path(name):
    return name if name.startswith("/") else UNITS + name


def prepare(mirror, row):
    """Everything of a row but the start of its service."""
    source = fetch(mirror, row["old"])
    for path in row["programs"]:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        os.chmod(path, 0o755)  # noqa: S103  # a program
    for path, file in row["files"].items():
        write(path, file)
    for name, text in row["units"].items():
        write(unit_path(name), text if text.startswith("[") else f"[Service]\n{text}")
    if row["before"]:
        sh(row["before"], row["layout"])


def start(row):
    sh(row["start"], row["layout"])
    for url in row["ready"]:
        await_answer(url)
    if row["after"]:
        sh(row["after"], row["layout"])


def await_answer(url):
    """Wait until something answers at a URL, whatever it answers; ``unix:`` and ``tcp:`` are asked for a connection."""
    end = time.monotonic() + WAIT
    while True:
        try:
            return answers(url)
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(f"{url} does not answer: {error}") from error
            time.sleep(0.1)


def answers(url):
    kind, _colon, rest = url.partition(":")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(rest)
    elif kind == "tcp":
        host, _colon, port = rest.rpartition(":")
        socket.create_connection((host, int(port)), 5).close()
    else:
        context = ssl._create_unverified_context()  # noqa: S323  # whether it answers is asked, not who
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(url, timeout=10, context=context).close()  # noqa: S310


def lay(job):
    """Lay all rows out. A row that fails is told; it doesn't keep the others from being tried."""
    add = "useradd --system --user-group --home-dir / --shell /usr/sbin/nologin metrics"
    sh(f"getent passwd metrics >/dev/null || {add}")
    failed = each(job["rows"], lambda row: prepare(job["mirror"], row))
    sh("systemctl daemon-reload")
    failed.update(each([row for row in job["rows"] if row["layout"] not in failed], start))
    for row in job["rows"]:
        if row["layout"] in failed:
            names = " ".join(f"--unit={name}" for name in row["units"])
            failed[row["layout"]] += sh(f"journalctl --no-pager --lines=20 {names}", check=False)
    return failed


def each(rows, work):
    failed = {}

    def tried(row):
        try:
            work(row)
        except Exception as error:  # noqa: BLE001  # the test of the row shows it
            failed[row["layout"]] = f"{type(error).__name__}: {error}"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(tried, rows))
    return failed


def look(job):
    """What the files of each row are, whether its units are active and enabled, and which programs its units run."""
    known = {kept_digest(fetch(job["mirror"], row[age])): age for row in job["rows"] for age in ("old", "new")}
    processes = running(known)
    return {row["layout"]: seen(row, processes) for row in job["rows"]}


def seen(row, processes):
    units = row["watch_units"]
    return {
        "files": {path: facts(path) for path in sorted(row["watch"])},
        "units": {name: sh(f"systemctl is-active {name}; systemctl is-enabled {name}", check=False) for name in units},
        "runs": sorted(age for unit, age in processes if unit in row["runs_in"]),
    }


def running(known):
    """The units and ages of all processes whose program is a known one."""
    found = []
    for process in glob.glob("/proc/[0-9]*"):
        try:
            age = known.get(digest(pathlib.Path(process, "exe")))
            group = pathlib.Path(process, "cgroup").read_text().splitlines()[-1]
        except OSError:
            continue
        if age:
            names = [part for part in group.split("/") if re.search(r"\.(service|scope)$", part)]
            found.append((names[-1] if names else "", age))
    return found


DIGESTS = {}


def digest(path):
    status = os.stat(path)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in DIGESTS:
        DIGESTS[key] = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    return DIGESTS[key]


def kept_digest(path):
    """The digest of a file in the cache, which is computed once."""
    kept = path.with_name(path.name + ".sha256")
    if not kept.exists():
        kept.write_text(digest(path))
    return kept.read_text()


def facts(path):
    """What a path is: its kind, mode, owner, and target or content."""
    try:
        status = os.lstat(path)
    except OSError as error:
        return type(error).__name__
    if os.path.islink(path):
        return ["link", os.readlink(path)]
    owner = [oct(status.st_mode), status.st_uid, status.st_gid]
    if os.path.isdir(path):
        return ["directory", *owner]
    return ["file", *owner, digest(path)] if os.path.isfile(path) else ["other", *owner]


def clean(job):
    """Remove what was laid out, and the record of upgrades."""
    for row in job["rows"]:
        if row["clean"]:
            sh(row["clean"], row["layout"], check=False)
    units = {name for row in job["rows"] for name in row["stop"]}
    sh(f"systemctl stop {' '.join(sorted(units))} 2>/dev/null || true")
    for row in job["rows"]:
        paths = [*row["files"], *row["programs"], *row["remove"], *map(unit_path, row["units"])]
        for path in paths:
            remove(path)
    sh("rm -rf /var/lib/observability-upgrades; systemctl daemon-reload; systemctl reset-failed")
    return {}


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


if __name__ == "__main__":
    document = json.load(sys.stdin)
    print(json.dumps({"lay": lay, "look": look, "clean": clean}[document["action"]](document)))
