#!/usr/bin/env python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real hosts to test on: Debian with booted systemd and sshd in podman's containers, and a release mirror over HTTP.

    lab.py up [--hosts N] [--with PACKAGE]   make what isn't there, and write its inventory; with --programs TABLE,
                                             the mirror has the programs of molecule/programs/vars.yml, too
    lab.py fresh [--hosts N] [--with ...]    the same, with new hosts: nothing is installed on them
    lab.py restart HOST                      stop a host as a power cut does, and boot it again
    lab.py down [--all]                      remove all hosts; what was downloaded and built stays in the cache

Names are those of this checkout, so that two checkouts can have their labs on one machine. One checkout can have more
than one, too: with LAB=.lab-b in the environment, the hosts are others, and what is known of them is in the directory
.lab-b instead of .lab. C(down --all) removes the hosts of all.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import typing as t

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import image  # noqa: E402  # this folder is no package: it is run from anywhere
import programs  # noqa: E402
from mirror import Mirror, run  # noqa: E402

CHECKOUT = HERE.parents[1]
NAME = os.environ.get("LAB") or ".lab"
LAB = CHECKOUT / NAME
LABS = f"obslab-{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]}"
PREFIX = LABS + NAME.removeprefix(".lab")
WATCHES = 1024
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "observability-stack-lab"
LIMIT = 16384

# SYS_ADMIN: systemd's hardening really applies. SYS_PTRACE: root may look into processes, and NET_RAW:
# programs may be allowed to ping, as on any host.
OPTIONS = (
    "--systemd=always",
    "--cap-add=SYS_ADMIN,SYS_PTRACE,NET_ADMIN,NET_RAW,AUDIT_WRITE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("up", "fresh"):
        making = commands.add_parser(command)
        making.add_argument("--hosts", type=int, default=3, metavar="N")
        making.add_argument("--with", action="append", default=[], metavar="PACKAGE", dest="packages")
        making.add_argument("--programs", type=pathlib.Path, metavar="TABLE")
    commands.add_parser("restart").add_argument("host")
    commands.add_parser("down").add_argument("--all", action="store_true")
    options = parser.parse_args()
    if not re.fullmatch(r"\.lab(-[a-z0-9]+)?", NAME):
        raise SystemExit(f"LAB={NAME}: a lab's directory is called .lab, or .lab-b with anything small for the b")
    if options.command == "down":
        down(everywhere=options.all)
    elif options.command == "restart":
        restart(options.host)
    else:
        up(options.hosts, fresh=options.command == "fresh", packages=options.packages, table=options.programs)


def up(count: int, *, fresh: bool, packages: t.Sequence[str] = (), table: pathlib.Path | None = None) -> None:
    if os.geteuid() != 0:
        raise SystemExit("The lab boots containers with systemd and bootstraps Debian: run it as root.")
    with _cache_lock():
        subprocess.run([HERE / "prepare.sh"], check=True)
        mirror = _mirror()
        mirror.build()
        if table:
            programs.build(mirror, table)
        used = image.build(mirror.directory / "share", CACHE / "image.work", packages)
    _allow_watches()
    names = [f"host{number}" for number in range(1, count + 1)]
    wanted = {_container(name): used for name in [*names, "mirror"]}
    there = _containers()
    _remove([name for name in there if (fresh and not name.endswith("-mirror")) or there[name] != wanted.get(name)])
    _make_key()
    runtime = _runtime(used)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: _start_host(runtime, used, name), names))
        _start_mirror(runtime, used, mirror.directory)
    _describe(names)
    print(f"{count} hosts, in {(LAB / 'inventory').relative_to(CHECKOUT)}")


def _allow_watches() -> None:
    """Let many hosts boot: each systemd has about 20 inotify instances, and a user may have 128 (inotify(7))."""
    limit = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
    with contextlib.suppress(OSError):  # where that can't be changed, fewer hosts must do
        if int(limit.read_text()) < WATCHES:
            limit.write_text(str(WATCHES))


def restart(host: str) -> None:
    run("podman", "kill", "--signal=KILL", _container(host))
    run("podman", "wait", _container(host))
    run("podman", "start", _container(host))
    _describe(sorted(name.removeprefix(f"{PREFIX}-") for name in _containers() if not name.endswith("-mirror")))


def down(*, everywhere: bool = False) -> None:
    """Remove the hosts of this lab, or of all that the checkout has."""
    if everywhere:
        _remove(run("podman", "ps", "--all", f"--filter=name=^{LABS}-", "--format={{.Names}}").split())
    else:
        _remove(_containers())


def _container(name: str) -> str:
    return f"{PREFIX}-{name}"


def _containers() -> dict[str, str]:
    """This lab's containers, and the image of each. One that doesn't run counts as one without."""
    listed = run("podman", "ps", "--all", f"--filter=label=lab={PREFIX}", "--format={{.Names}} {{.Image}} {{.Status}}")
    rows = (line.split(maxsplit=2) for line in listed.splitlines())
    return {name: used if status.startswith("Up") else "" for name, used, status in rows}


def _remove(names: t.Iterable[str]) -> None:
    if names := list(names):
        run("podman", "rm", "--force", "--time=0", *names)


def _start_host(runtime: str, used: str, name: str) -> None:
    if _container(name) in _containers():
        return
    _create(runtime, used, name, *OPTIONS)
    run("podman", "cp", LAB / "key.pub", f"{_container(name)}:/etc/ssh/lab_keys")
    run("podman", "start", _container(name))


def _start_mirror(runtime: str, used: str, directory: pathlib.Path) -> None:
    if _container("mirror") in _containers():
        mounted = run("podman", "inspect", "--format={{range .Mounts}}{{.Source}}{{end}}", _container("mirror"))
        if mounted.strip() == str(directory):
            return
        _remove([_container("mirror")])  # its programs are older than mirror.py
    server = ("python3", "-m", "http.server", "--directory=/mirror", "80")
    _create(runtime, used, "mirror", f"--volume={directory}:/mirror:ro", command=server)
    run("podman", "start", _container("mirror"))


def _create(runtime: str, used: str, name: str, *options: str, command: t.Sequence[str] = ()) -> None:
    names = (f"--name={_container(name)}", f"--hostname={name}", f"--label=lab={PREFIX}")
    run("podman", f"--runtime={runtime}", "create", *names, *_limits(), *options, used, *command)


def _limits() -> t.Iterator[str]:
    """Limits that may be set here: podman's own defaults can lie above the hard limits of this machine."""
    for kind, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(number)[1]
        limit = min(LIMIT, hard) if hard != resource.RLIM_INFINITY else LIMIT
        yield f"--ulimit={kind}={limit}:{limit}"


def _runtime(used: str) -> str:
    """The container runtime: runc, or podman's own choice where it doesn't work.

    Not the other way round: where cgroups of both versions are mounted, crun starts containers now and then.
    """
    known = LAB / "runtime"
    if not known.exists():
        chosen = run("podman", "info", "--format={{.Host.OCIRuntime.Name}}").strip()
        for runtime in dict.fromkeys(("runc", chosen)):
            probe = ["podman", f"--runtime={runtime}", "run", "--rm", *_limits(), *OPTIONS, used, "true"]
            tried = subprocess.run(probe, capture_output=True, text=True, check=False)
            if tried.returncode == 0:
                known.write_text(runtime)
                break
        else:
            raise SystemExit(f"podman can't run a container with systemd here: {tried.stderr.strip()}")
    return known.read_text()


def _address(name: str) -> str:
    return run("podman", "inspect", "--format={{.NetworkSettings.IPAddress}}", _container(name)).strip()


def _await_host(name: str) -> str:
    """Wait until a host has booted and takes SSH connections. Returns its address."""
    address = _address(name)
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, 22), timeout=2) as connection:
            if connection.recv(4) == b"SSH-":
                return address
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} didn't boot within 90 s; see: podman logs {_container(name)}")
        time.sleep(0.1)


def _make_key() -> None:
    LAB.mkdir(exist_ok=True)
    if not (LAB / "key").exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", LAB / "key")


def _describe(names: list[str]) -> None:
    """Wait for the hosts, and write down how they are reached. Their addresses are new after each start."""
    addresses = {name: _await_host(name) for name in names}
    _write_known_hosts(addresses)
    _write_inventory(addresses)


def _write_known_hosts(addresses: dict[str, str]) -> None:
    lines = [
        f"{name},{address} {run('podman', 'exec', _container(name), 'cat', '/etc/ssh/ssh_host_ed25519_key.pub')}"
        for name, address in addresses.items()
    ]
    (LAB / "known_hosts").write_text("".join(lines))
    (LAB / "ssh_config").write_text(
        "".join(f"Host {name}\n  HostName {address}\n" for name, address in addresses.items())
        + f"Host *\n  User ops\n  IdentityFile {LAB}/key\n  UserKnownHostsFile {LAB}/known_hosts\n"
        + f"  ControlMaster auto\n  ControlPath {tempfile.gettempdir()}/{PREFIX}-%C\n  ControlPersist 60\n"
        + "  ConnectionAttempts 60\n"
    )


def _write_inventory(addresses: dict[str, str]) -> None:
    mirror = _mirror()
    variables = {
        "ansible_user": "ops",
        "ansible_ssh_private_key_file": str(LAB / "key"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={LAB}/known_hosts",
        "ansible_python_interpreter": "/usr/bin/python3",
        "upgrade_release_mirror": f"http://{_address('mirror')}",
        "upgrade_cache_dir": str(LAB / "cache"),
        "upgrade_report_dir": str(LAB / "reports"),
        "lab_versions": mirror.versions(),
        "lab_architecture": mirror.architecture,
    }
    hosts = {name: {"ansible_host": address} for name, address in addresses.items()}
    first = {next(iter(addresses)): {}}
    inventory = {"all": {"vars": variables, "hosts": hosts, "children": {"monitoring": {"hosts": first}}}}
    directory = LAB / "inventory"
    directory.mkdir(exist_ok=True)
    (directory / "hosts.json").write_text(json.dumps(inventory, indent=2) + "\n")
    if not (directory / "group_vars").exists():
        (directory / "group_vars").symlink_to(HERE / "group_vars")


def _mirror() -> Mirror:
    """The mirror, in a directory that tells by its name what it was made by."""
    parts = (HERE / "mirror.py", *sorted((HERE / "standins").glob("*.c")))
    recipe = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:12]
    return Mirror(CACHE / f"mirror-{recipe}")


@contextlib.contextmanager
def _cache_lock() -> t.Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
