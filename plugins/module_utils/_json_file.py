# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Io ring. The JSON files of the state directory: read up to a size, and accepted only in the shape they must have."""

from __future__ import annotations

import os
import typing as t

from . import _private, _schema

MOST_BYTES = 4 << 20
"""Bytes of state.json, of a marker, of a manifest and of a candidate.json."""

MOST_BYTES_OF_HISTORY = 16 << 20
"""Bytes of an archive and of a baseline: an archive is indented, and a baseline names all metrics of a service."""

MOST_BYTES_OF_LEASE = 64 << 10


def content(path: str, *, most: int = MOST_BYTES, narrowed: list[str] | None = None) -> bytes:
    """A private file's content, see C(_private); empty if there is none.

    :param most: bytes that it may have. The size is looked at before anything is read.
    :raises ValueError: if it has more.
    :raises HostError: if it is no file of our own.
    """
    try:
        with _private.opened(path, os.O_RDONLY, narrowed=narrowed) as descriptor:
            size = os.fstat(descriptor).st_size
            if size > most:
                raise ValueError(f"it has {size} bytes, more than the {most} that it may have")
            return _read(descriptor, most)
    except FileNotFoundError:
        return b""


def beginning(path: str, *, most: int = MOST_BYTES) -> bytes:
    """The first bytes of a private file, however large it is; empty if there is none.

    :raises HostError: if it is no file of our own.
    """
    try:
        with _private.opened(path, os.O_RDONLY) as descriptor:
            return _read(descriptor, most)
    except FileNotFoundError:
        return b""


def load(
    path: str, shape: _schema.Shape, *, most: int = MOST_BYTES, named: tuple[str, str] | None = None
) -> dict[str, t.Any]:
    """What is in a private JSON file.

    :param named: a field that must have a value, because the file is named by it.
    :raises ValueError: if there is none, or it doesn't have the shape.
    :raises HostError: if it is no file of our own.
    """
    found = content(path, most=most)
    if not found:
        raise ValueError("there is none, or it is empty")
    data = parsed(found, shape)
    if named and data[named[0]] != named[1]:
        raise ValueError(f"its {named[0]} is {data[named[0]]}")
    return data


def parsed(found: bytes, shape: _schema.Shape) -> dict[str, t.Any]:
    """What a JSON text of a shape says.

    :raises ValueError: if it doesn't have the shape.
    """
    data = _schema.loads(found)
    problem = _schema.problem(data, shape)
    if problem:
        raise ValueError(problem)
    return t.cast("dict[str, t.Any]", data)


def _read(descriptor: int, most: int) -> bytes:
    found = bytearray()
    while len(found) < most:
        piece = os.read(descriptor, min(1 << 20, most - len(found)))
        if not piece:
            break
        found += piece
    return bytes(found)
