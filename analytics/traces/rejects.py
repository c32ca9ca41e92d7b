"""Rows of uploads that were not kept: how many of which body, where the first of them stood, and why. A body that is
sent twice is told of once."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from coordinator.api_types.trace import BadRow

REJECTS_MAX = 32
"""Bodies of one job that are told of."""
WHY_CHARS_MAX = 300


def reject(source: str, body: bytes, rows: int, line: int, why: str) -> str:
    """As `Trace.rejects` has it. `line`: of the first of them, 0 where it has none."""
    words = " ".join(why.split())[:WHY_CHARS_MAX]
    return f"{source}\t{zlib.crc32(body):08x}\t{rows}\t{line}\t{words}"


def merged(rejects: Iterable[str]) -> list[str]:
    """Each once, in the order of the alphabet, the first REJECTS_MAX: the same whichever were merged before."""
    return sorted(set(rejects))[:REJECTS_MAX]


def told(rejects: Sequence[str]) -> tuple[int, tuple[BadRow, ...]]:
    """How many rows these are together, and of each body the first one."""
    total, bad = 0, []
    for text in rejects:
        source, _, rows, line, why = text.split("\t", 4)
        total += int(rows)
        bad.append(BadRow(source=source, line=int(line), why=why))
    return total, tuple(bad)
