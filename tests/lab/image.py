# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image of the lab's hosts: a small Debian with systemd, sshd, Python, and what Debian's builds read."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import typing as t

from mirror import debian_mirror, run

SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "sudo"),
    *("iproute2", "ca-certificates", "libcap2-bin", "procps", "acl", "attr"),
)
SETUP = """
set -eu
useradd --create-home --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ops
printf '%s\\n' 'AuthorizedKeysFile /etc/ssh/lab_keys' 'UseDNS no' >/etc/ssh/sshd_config.d/lab.conf
systemctl enable ssh >/dev/null 2>&1
systemctl mask systemd-udevd systemd-logind getty.target apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /etc/machine-id
touch /etc/machine-id
"""

MORE = """
set -eu
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get -qq update
apt-get -qq install --no-install-recommends "$@" >/dev/null
rm /usr/sbin/policy-rc.d
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*
"""


def name(data: pathlib.Path) -> str:
    """The image's name. It tells by its tag what it was made of."""
    listing = sorted(str(path.relative_to(data)) for path in data.rglob("*"))
    recipe = repr((SUITE, PACKAGES, SETUP, listing))
    return f"localhost/observability-stack-lab:{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def build(data: pathlib.Path, work: pathlib.Path, packages: t.Sequence[str] = ()) -> str:
    """Make the image, unless it is there.

    :param data: what Debian's builds look for below /usr/share/prometheus: without it, Alertmanager crash-loops.
    :param packages: what the hosts have besides, as Debian has it. That is an image of its own, made from the other.
    """
    image = name(data)
    if not run("podman", "images", "--quiet", image):
        print(f"Making the hosts' image of {SUITE}", flush=True)
        root = _empty(work)
        run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root, debian_mirror())
        shutil.copytree(data, root / "usr/share/prometheus", symlinks=True)
        run("chroot", root, "sh", "-c", SETUP)
        _import(work, image)
    return _with_more(image, sorted(packages), work) if packages else image


def _with_more(image: str, packages: list[str], work: pathlib.Path) -> str:
    recipe = repr((image, packages, MORE)).encode()
    larger = f"localhost/observability-stack-lab:more-{hashlib.sha256(recipe).hexdigest()[:12]}"
    if not run("podman", "images", "--quiet", larger):
        print(f"Making a hosts' image with {', '.join(packages)}", flush=True)
        root = _empty(work)
        container = run("podman", "create", image).strip()
        run("podman", "export", f"--output={work / 'root.tar'}", container)
        run("podman", "rm", container)
        run("tar", "-C", root, "-xf", work / "root.tar")
        for file in ("etc/resolv.conf", "etc/hosts"):
            shutil.copyfile(f"/{file}", root / file)
        (root / "etc/apt/sources.list").write_text(f"deb {debian_mirror()} {SUITE} main\n")
        run("chroot", root, "sh", "-c", MORE, "sh", *packages)
        _import(work, larger)
    return larger


def _empty(work: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(work, ignore_errors=True)
    (work / "root").mkdir(parents=True)
    return work / "root"


def _import(work: pathlib.Path, image: str) -> None:
    run("tar", "-C", work / "root", "-cf", work / "root.tar", ".")
    changes = [f"--change={change}" for change in ('CMD ["/lib/systemd/systemd"]', "STOPSIGNAL SIGRTMIN+3")]
    run("podman", "import", *changes, work / "root.tar", image)
    shutil.rmtree(work)
