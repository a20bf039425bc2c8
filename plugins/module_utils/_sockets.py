# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. Where the processes of a unit listen, read from /proc: their descriptors, and their network's sockets."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import typing as t

from . import _files, _netns, _process
from ._netns import OURS

_LISTENS = "0A"
"""State TCP_LISTEN in /proc/net/tcp."""
_ACCEPTS = 0x10000
"""Flag __SO_ACCEPTCON in /proc/net/unix."""
_MAPPED = "::ffff:"
_MOST = 50


class Socket(t.NamedTuple):
    """One socket that listens: at an address and a port, or at a path of the host. An abstract Unix socket has a path
    that begins with C(@)."""

    address: str
    port: int
    unix: str


def of_unit(unit: str, pid: int) -> list[Socket] | None:
    """The sockets at which a process listens; if it has none, those of the other processes of its unit. A socket that
    systemd passed to the process is among them.

    :param unit: the unit's name.
    :returns: None if the descriptors of the process can't be read: only its user may, or a process that has the
        capability CAP_SYS_PTRACE.
    """
    inodes = _inodes(pid)
    if inodes is None:
        return None
    found = _listening(pid, inodes) or _listening(OURS, inodes)
    for other in [] if found else _others(unit, pid):
        found.extend(_listening(other, _inodes(other) or set()))
    return sorted(set(found))[:_MOST]


def network_of(pid: int) -> int:
    """The process in whose network the sockets of a process are: itself, or 0 where they are of this process's network.
    Systemd passes sockets of the host's network also to a service with C(PrivateNetwork)."""
    if not pid or _netns.name(pid) in ("", _netns.name(OURS)):
        return 0
    inodes = _inodes(pid) or set()
    return 0 if _listening(OURS, inodes) and not _listening(pid, inodes) else pid


def _inodes(pid: int) -> set[str] | None:
    """The sockets that a process has open; none if it is gone, and None if that can't be read."""
    directory = f"{_process.PROC}/{pid}/fd"
    found = set()
    try:
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                target = os.readlink(f"{directory}/{name}")
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    except PermissionError:
        return None
    except OSError:  # it has ended
        return set()
    return found


def _others(unit: str, pid: int) -> list[int]:
    """The other processes of a unit's control group."""
    group = _group(pid)
    if unit not in group.replace("\n", "/").split("/"):
        return []
    pids = [int(name) for name in os.listdir(_process.PROC) if name.isdigit()]
    return [other for other in pids if other != pid and _group(other) == group]


def _group(pid: int | str) -> str:
    return _files.read_text(f"{_process.PROC}/{pid}/cgroup")


def _listening(pid: int | str, inodes: set[str]) -> list[Socket]:
    """Those of some sockets that listen, as the network of a process lists them."""
    if not inodes:
        return []
    lines = {
        name: _files.read_text(f"{_process.PROC}/{pid}/net/{name}").splitlines() for name in ("tcp", "tcp6", "unix")
    }
    internet = [words for name in ("tcp", "tcp6") for words in map(str.split, lines[name]) if len(words) > 9]
    local = [line.split(None, 7) for line in lines["unix"]]
    return [
        *(Socket(*address(words[1]), "") for words in internet if words[3] == _LISTENS and words[9] in inodes),
        *(Socket("", 0, words[7]) for words in local if len(words) > 7 and words[6] in inodes and _accepts(words[3])),
    ]


def _accepts(flags: str) -> bool:
    return bool(re.fullmatch(r"[0-9A-Fa-f]{1,8}", flags)) and bool(int(flags, 16) & _ACCEPTS)


def address(told: str) -> tuple[str, int]:
    """An address of /proc/net/tcp or tcp6, whose words are in the byte order of the machine. One of IPv4 that is mapped
    into IPv6 is that of IPv4."""
    digits, _colon, port = told.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    text = socket.inet_ntop(socket.AF_INET6 if len(words) > 1 else socket.AF_INET, packed)
    return (text[len(_MAPPED) :] if text.startswith(_MAPPED) and "." in text else text), int(port, 16)


def declared(shown: str) -> list[Socket]:
    """The sockets of a socket unit, out of its property C(Listen): C([::]:9200 (Stream)), C(/run/x.sock (Stream))."""
    found = []
    for line in shown.splitlines():
        place, _space, kind = line.rpartition(" ")
        host, _colon, port = place.rpartition(":")
        if kind != "(Stream)":
            continue
        if place.startswith(("/", "@")):
            found.append(Socket("", 0, place))
        elif port.isdigit():
            found.append(Socket(host.strip("[]") or "::", int(port), ""))
    return found
