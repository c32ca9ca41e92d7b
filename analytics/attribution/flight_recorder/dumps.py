"""The dumps of a job's ranks: found by a directory or a prefix, opened by whoever says what may be read, taken apart.

A file is `<prefix><rank>` as TORCH_FR_DUMP_TEMP_FILE makes it (or with `.json`); its content is JSON or a pickle
of plain data. Fields that are not asked for are never looked at.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from analytics.attribution.flight_recorder import plain_pickle
from coordinator.core.errors import Code, CoordError

FILES_MAX: Final = 8_192
NAMES_MAX: Final = 65_536
"""Entries of a directory that are looked at."""
BYTES_MAX: Final = 512 * 1024 * 1024
"""Of all dumps of a job."""
ENTRIES_MAX: Final = 65_536
"""Of one rank."""
ALL_ENTRIES_MAX: Final = 1_000_000
"""Of all of them: small ones take ten times the memory that they take in a file."""
MEMBERS_MAX: Final = 65_536
"""Of one group."""
RANK_MAX: Final = 1 << 20
PREFIX: Final = "_dump_"
Opener = Callable[[str], int]
"""Opens a path for reading, or raises CoordError or OSError: it decides what may be read."""


class Entry(Struct, frozen=True, gc=False):
    """One operation that a rank enqueued. Times are nanoseconds of its wall clock."""

    process_group: tuple[str, str]
    """Name and description."""
    pg_id: int = -1
    """Of the group, in this process."""
    collective_seq_id: int = 0
    profiling_name: str = ""
    time_created_ns: int = 0
    input_sizes: tuple[tuple[int, ...], ...] = ()
    input_dtypes: tuple[str, ...] = ()
    state: str = ""
    is_p2p: bool = False


class Status(Struct, frozen=True, gc=False):
    """How far a rank came in a group, by sequence numbers; -1: not at all."""

    last_enqueued_collective: int = -1
    last_completed_collective: int = -1


class Group(Struct, frozen=True, gc=False):
    desc: str = ""
    ranks: str | tuple[int, ...] = ""
    """As torch writes them: `[0, 1]`."""

    @property
    def members(self) -> tuple[int, ...]:
        if isinstance(self.ranks, tuple):
            return self.ranks[:MEMBERS_MAX]
        found = re.finditer(r"\d{1,7}", self.ranks)
        return tuple(int(one[0]) for one in islice(found, MEMBERS_MAX))


class Dump(Struct, frozen=True):
    """What one rank wrote."""

    entries: tuple[Entry, ...] = ()
    pg_config: dict[str, Group] = {}
    pg_status: dict[str, Status] = {}
    version: str = ""


class Found(Struct, frozen=True, kw_only=True):
    """The dumps of a job, and those that could not be taken."""

    by_rank: dict[int, Dump]
    refused: tuple[tuple[int, str], ...] = ()
    """Rank and why."""


def decode(data: bytes) -> Dump:
    """A dump from its bytes. Raises CoordError(BAD_REQUEST) for what is none."""
    looks_json = data.lstrip()[:1] in (b"{", b"[")
    try:
        if looks_json:
            made = msgspec.json.decode(data, type=Dump)
        else:
            made = msgspec.convert(_named(plain_pickle.read(data)), Dump)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CoordError(Code.BAD_REQUEST, f"this is no dump of a flight recorder: {error}") from None
    if len(made.entries) > ENTRIES_MAX:
        raise CoordError(Code.BAD_REQUEST, f"the dump has {len(made.entries)} entries, and {ENTRIES_MAX} may be read")
    return made


def _named(value: Any) -> Any:
    """Keys of what a pickle holds may be integers; those that are asked for are text."""
    if not isinstance(value, dict):
        raise CoordError(Code.BAD_REQUEST, "this is no dump of a flight recorder: it is no dict")
    return {key: value[key] for key in ("entries", "pg_config", "pg_status", "version") if key in value}


def load(where: str, opener: Opener) -> Found:
    """The dumps at `where`: a directory (its files `_dump_*`), a prefix, or one file. Raises CoordError(NOT_FOUND)."""
    by_rank: dict[int, Dump] = {}
    refused: list[tuple[int, str]] = []
    left, entries_left = BYTES_MAX, ALL_ENTRIES_MAX
    for path, rank in _files(where):
        try:
            data = _read(opener(path), min(left, plain_pickle.BYTES_MAX))
            left -= len(data)
            made = decode(data)
            entries_left -= len(made.entries)
            if entries_left < 0:
                raise CoordError(Code.BAD_REQUEST, f"the dumps have more than {ALL_ENTRIES_MAX} entries altogether")
            by_rank[rank] = made
        except CoordError as error:
            refused.append((rank, error.message))
        except OSError as error:
            refused.append((rank, error.strerror or "it cannot be read"))
    if not by_rank and not refused:
        raise CoordError(Code.NOT_FOUND, f"there is no dump at {where}", f"a file of a rank is {PREFIX}RANK")
    return Found(by_rank=by_rank, refused=tuple(refused))


def present(where: str) -> bool:
    """Whether there is at least one dump there."""
    return next(_files(where), None) is not None


def _files(where: str) -> Iterator[tuple[str, int]]:
    """Paths and their ranks, by rank."""
    directory, prefix = (where, PREFIX) if Path(where).is_dir() else os.path.split(where)
    found: dict[int, str] = {}
    try:
        with os.scandir(directory) as entries:
            for seen, entry in enumerate(entries):
                if seen >= NAMES_MAX or len(found) >= FILES_MAX:
                    break
                if entry.name.startswith(prefix) and (rank := _rank(entry.name)) is not None:
                    found.setdefault(rank, entry.path)
    except OSError:
        return
    for rank in sorted(found):
        yield found[rank], rank


def _rank(name: str) -> int | None:
    match = re.fullmatch(r".*?(\d{1,7})(?:\.json|\.pickle|\.pkl)?", name, re.DOTALL)
    return int(match[1]) if match is not None and int(match[1]) < RANK_MAX else None


def _read(descriptor: int, limit: int) -> bytes:
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CoordError(Code.BAD_REQUEST, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise CoordError(Code.BAD_REQUEST, f"the dump has more than {limit} bytes")
    return data
