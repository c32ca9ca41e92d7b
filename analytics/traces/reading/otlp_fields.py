"""The outer levels of an OTLP message: where its spans lie. What is in them is not looked at.

63 MiB of empty spans are 33 million: as OpenTelemetry's own messages they cost 14 s before the first could be refused
and several GiB, as a list of bytes 1.4 GB. Found one by one, where the one before ends, they cost nothing until they
are asked for, and nothing is copied. 0.5 us a field.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10
_MORE = 0x80
"""Set in each byte of a number but its last."""
_NONE = "this is no OTLP message"
_RUN = 4_096
"""Fields that are counted at a time."""


class Part(NamedTuple):
    """A field of bytes, or a whole message: its number (0: of the whole), and where it lies."""

    number: int
    start: int
    end: int


def whole(data: bytes) -> Part:
    return Part(0, 0, len(data))


def fields(data: bytes, within: Part) -> Iterator[Part]:
    """Its fields of bytes in their order, as far as they are asked for; others are passed over. ValueError where it is
    no message."""
    at, end = within.start, within.end
    while at < end:
        tag, at = data[at], at + 1
        if tag >= _MORE:
            tag, at = _varint(data, at - 1, end)
        kind = tag & 7
        if kind == _LEN:
            size, start = (data[at], at + 1) if at < end and data[at] < _MORE else _varint(data, at, end)
            at = start + size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_I64, _I32):
            at += 8 if kind == _I64 else 4
        else:
            raise ValueError(f"{_NONE}: a field is of wire type {kind}")
        if at > end or tag < 8:
            raise ValueError(f"{_NONE}: a field {'is longer than what it is in' if at > end else 'has no number'}")
        if kind == _LEN:
            yield Part(tag >> 3, start, at)


def count(data: bytes, within: Part, number: int, most: int) -> int:
    """How many fields of bytes of this number (1 to 15) it has. Long runs of empty ones are cheap; behind `most` others
    it counts no more."""
    run = bytes((number << 3 | _LEN, 0)) * _RUN
    found = walked = 0
    at = within.start
    while at < within.end and walked < most:
        if data.startswith(run, at, within.end):
            found, at = found + _RUN, at + len(run)
            continue
        some = list(islice(fields(data, Part(0, at, within.end)), _RUN))
        found, walked = found + sum(part.number == number for part in some), walked + len(some)
        if len(some) < _RUN:
            break
        at = some[-1].end
    return found


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    value = shift = 0
    for byte in data[at : min(at + _VARINT_BYTES_MAX, end)]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            return value, at
        shift += 7
    raise ValueError(f"{_NONE}: a number of it has no end")
