# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image of the lab's hosts: a small Debian with systemd, sshd, Python, and what Debian's builds read."""

from __future__ import annotations

import hashlib
import pathlib
import shutil

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


def name(data: pathlib.Path) -> str:
    """The image's name. It tells by its tag what it was made of."""
    listing = sorted(str(path.relative_to(data)) for path in data.rglob("*"))
    recipe = repr((SUITE, PACKAGES, SETUP, listing))
    return f"localhost/observability-stack-lab:{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def build(data: pathlib.Path, work: pathlib.Path) -> str:
    """Make the image, unless it is there.

    :param data: what Debian's builds look for below /usr/share/prometheus: without it, Alertmanager crash-loops.
    """
    image = name(data)
    if run("podman", "images", "--quiet", image):
        return image
    print(f"Making the hosts' image of {SUITE}", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    root = work / "root"
    work.mkdir(parents=True)
    run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root, debian_mirror())
    shutil.copytree(data, root / "usr/share/prometheus", symlinks=True)
    run("chroot", root, "sh", "-c", SETUP)
    run("tar", "-C", root, "-cf", work / "root.tar", ".")
    changes = [f"--change={change}" for change in ('CMD ["/lib/systemd/systemd"]', "STOPSIGNAL SIGRTMIN+3")]
    run("podman", "import", *changes, work / "root.tar", image)
    shutil.rmtree(work)
    return image
