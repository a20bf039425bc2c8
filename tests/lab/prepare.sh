#!/bin/sh
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Installs what the lab needs of the machine: containers, a Debian bootstrap, an SSH client, a C compiler for the stand-ins;
# what tests of signatures and archives need: GnuPG, OpenSSL, zstd; and a Python that can make a virtual environment.
# Does nothing where all is there. Without root or without apt, says what is missing.

set -eu

# What must be there, and the Debian package it comes in.
needed="podman:podman runc:runc debootstrap:debootstrap fuse-overlayfs:fuse-overlayfs iptables:iptables
ssh:openssh-client ssh-keygen:openssh-client tcc:tcc dpkg-deb:dpkg tar:tar
curl:curl gpg:gpg gpgv:gpgv openssl:openssl zstd:zstd readelf:binutils"
files="/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring /usr/include/stdio.h:libc6-dev
/usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns"

missing=""
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
for pair in $files; do
    [ -e "${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
"$(dirname "$0")/../tools/python" >/dev/null 2>&1 || missing="$missing python3 python3-venv"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "The lab needs these Debian packages:$missing" >&2
    echo "Install them, or run this as root on a Debian machine." >&2
    exit 1
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
