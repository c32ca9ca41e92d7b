"""The index of one rank's log: what arrived when, as records of 32 bytes in the order of their arrival.

It is written behind the bytes that it tells of and synced by nobody: after a power cut it may lack its end, and is
mended from the lengths of the streams. So each record also says how long the other stream was.
"""

from __future__ import annotations

import zlib
from struct import Struct as Layout
from typing import NamedTuple

from coordinator.core.ids import Ms
from coordinator.ports.logs import LogMark

_LAYOUT = Layout("<qQQIBB")
_CHECK = Layout("<H")
RECORD_BYTES = _LAYOUT.size + _CHECK.size
LENGTH_MAX = 2**30
"""Of the bytes that one record tells of."""
Lengths = tuple[int, int]
"""Of stdout and stderr."""


class Arrival(NamedTuple):
    """`length` bytes of `stream` at `offset`, when the other stream had `other` bytes."""

    at_ms: Ms
    offset: int
    other: int
    length: int
    stream: int

    @property
    def lengths(self) -> Lengths:
        """Of both streams behind it."""
        end = self.offset + self.length
        return (end, self.other) if self.stream == 0 else (self.other, end)

    @property
    def mark(self) -> LogMark:
        return LogMark(self.at_ms, self.stream, self.offset, self.length)


def encoded(arrival: Arrival) -> bytes:
    body = _LAYOUT.pack(*arrival, 0)
    return body + _CHECK.pack(zlib.crc32(body) & 0xFFFF)


def decoded(record: bytes | memoryview) -> Arrival | None:
    """None for a record that is torn or damaged."""
    if len(record) != RECORD_BYTES or _CHECK.pack(zlib.crc32(record[: _LAYOUT.size]) & 0xFFFF) != record[-2:]:
        return None
    arrival = Arrival._make(_LAYOUT.unpack(record[: _LAYOUT.size])[:5])
    return arrival if arrival.stream < 2 else None


def arrivals(at_ms: Ms, before: Lengths, now: Lengths) -> list[Arrival]:
    """What leads from the one pair of lengths to the other, stdout first, each record within its bound."""
    found: list[Arrival] = []
    lengths = list(before)
    for stream in (0, 1):
        while lengths[stream] < now[stream]:
            length = min(LENGTH_MAX, now[stream] - lengths[stream])
            found.append(Arrival(at_ms, lengths[stream], lengths[1 - stream], length, stream))
            lengths[stream] += length
    return found


def kept_records(tail: bytes, lengths: Lengths) -> tuple[int, Arrival | None]:
    """(how many of the records in `tail` hold, the last of them): none behind the last that fits to `lengths`."""
    count = len(tail) // RECORD_BYTES
    while count:
        last = decoded(tail[(count - 1) * RECORD_BYTES : count * RECORD_BYTES])
        if last is not None and last.lengths[0] <= lengths[0] and last.lengths[1] <= lengths[1]:
            return count, last
        count -= 1
    return 0, None


def mended(index: bytes) -> bytes:
    """The same number of records, those that are damaged replaced by what their neighbours tell.

    A run of them stands for what the lengths before and behind it differ by: a single one for bytes of one stream,
    two or more for those of both; the ones left over stand for no bytes.
    """
    whole: list[Arrival] = []
    run = 0
    for place in range(0, len(index) - len(index) % RECORD_BYTES, RECORD_BYTES):
        arrival = decoded(index[place : place + RECORD_BYTES])
        if arrival is None:
            run += 1
            continue
        whole += _filled(run, whole[-1] if whole else None, arrival)
        whole.append(arrival)
        run = 0
    whole += _filled(run, whole[-1] if whole else None, None)
    return b"".join(map(encoded, whole))


def _filled(run: int, before: Arrival | None, behind: Arrival | None) -> list[Arrival]:
    if not run:
        return []
    at_ms = before.at_ms if before is not None else behind.at_ms if behind is not None else 0
    lengths = before.lengths if before is not None else (0, 0)
    if behind is None:
        upto = lengths
    else:
        upto = (behind.offset, behind.other) if behind.stream == 0 else (behind.other, behind.offset)
    found = arrivals(at_ms, lengths, upto)[:run]
    nothing = Arrival(at_ms, upto[0], upto[1], 0, 0)
    return found + [nothing] * (run - len(found))
