"""Rows that a program left in its trace directory: found after its end, read beneath its own place, sent in pieces.

`spans.jsonl`, `assets.jsonl`, `lineage.jsonl`, and `spans-*.jsonl` of several writers: plain files of the program's own
user alone, so much of each, a line of JSON a row. An unfinished last line is a row like another, and rejected as one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from coordinator.agent import beneath
from coordinator.agent.beneath import Unsafe
from coordinator.agent.grounds import Ground
from coordinator.agent.log import logger
from coordinator.wire_traces import Kind

FILES_MAX = 64
NAMES_MAX = 10_000
"""Of whatever lies there, looked at for files of these names."""
FILE_BYTES_MAX = 16 << 20
PIECE_BYTES = 1 << 20
KINDS: tuple[Kind, ...] = ("spans", "assets", "lineage")


class Piece(NamedTuple):
    """Whole lines of a file."""

    kind: Kind
    data: bytes


def is_empty(directory: str) -> bool:
    """Whether nothing lies there, or it is no directory any more. O(1): it is asked for every attempt."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    except OSError:
        return True
    finally:
        os.close(fd)


def left(ground: Ground, whose: str, user: int) -> Iterator[Piece]:
    """What there is, file by file. Nothing that lies there raises."""
    try:
        directory = ground.open()
    except (OSError, Unsafe) as error:
        logger.debug("the trace directory of %s is not read: %s", whose, error)
        return
    try:
        with os.scandir(directory) as entries:
            names = (entry.name for entry in islice(entries, NAMES_MAX))
            ours = sorted(islice((name for name in names if kind_of(name) is not None), FILES_MAX))
        for name in ours:
            kind = kind_of(name)
            if kind is not None:
                yield from _pieces(directory, name, kind, whose, user)
    except OSError as error:
        logger.debug("the trace directory of %s is not read: %s", whose, error)
    finally:
        os.close(directory)


def kind_of(name: str) -> Kind | None:
    """What rows a file of this name has."""
    stem, dot, ending = name.rpartition(".")
    if not dot or ending != "jsonl":
        return None
    first = stem.partition("-")[0]
    return next((kind for kind in KINDS if kind == first), None)


def _pieces(directory: int, name: str, kind: Kind, whose: str, user: int) -> Iterator[Piece]:
    try:
        fd = beneath.open_file(directory, name, user)
    except (OSError, Unsafe) as error:
        logger.warning("traces that %s left are not read: %s", whose, error)
        return
    with os.fdopen(fd, "rb") as file:
        room, rest = FILE_BYTES_MAX, b""
        while room > 0 and (data := file.read(min(PIECE_BYTES, room))):
            room -= len(data)
            data = rest + data
            end = data.rfind(b"\n") + 1
            if end:
                yield Piece(kind, data[:end])
            rest = data[end:]
            if len(rest) > PIECE_BYTES:
                logger.warning("%s of %s has a line that is no row: the rest of it is not read", name, whose)
                return
        if rest and room > 0:
            yield Piece(kind, rest + b"\n")
        elif file.read(1):
            logger.warning("%s of %s is longer than %d MiB: the rest is not read", name, whose, FILE_BYTES_MAX >> 20)
