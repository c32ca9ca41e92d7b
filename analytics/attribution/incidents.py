"""What was recognised so far: bounded, whatever the log; what is kept depends on the bytes alone."""

from __future__ import annotations

from msgspec import Struct

from analytics.attribution.case import Happening, Line
from analytics.attribution.rules import Row

REFUTED_STEPS = 3
"""So many lines of progress later the program has gone on working."""
KINDS_MAX = 160


class Kind(Struct, gc=False, array_like=True):
    """One signature (and class of exception)."""

    row: str
    exception: str
    usual: bool
    count: int
    first: Line
    open: Line
    last: Line
    ranks: int
    """One bit a rank."""


class Incidents(Struct, array_like=True):
    """All kinds, by what makes them one."""

    kinds: dict[str, Kind] = {}

    def add(self, row: Row, line: Line, exception: str, usual: bool) -> None:
        key = f"{row.id}\x1f{exception}\x1f{usual:d}"
        bit = 1 << line.rank if line.rank is not None and line.rank < RANKS_KEPT else 0
        kind = self.kinds.get(key)
        if kind is None:
            if len(self.kinds) < KINDS_MAX:
                self.kinds[key] = Kind(row.id, exception, usual, 1, line, line, line, bit)
            return
        if line.steps - kind.last.steps >= REFUTED_STEPS:
            kind.open = line
        kind.count, kind.last, kind.ranks = kind.count + 1, line, kind.ranks | bit


RANKS_KEPT = 2_048


def happening(kind: Kind, row: Row, source: int, steps: int, lines: int) -> Happening:
    """As it looks at the end."""
    ranks = tuple(rank for rank in range(kind.ranks.bit_length()) if kind.ranks >> rank & 1)
    after = steps - kind.last.steps
    return Happening(
        row=row,
        exception=kind.exception,
        usual=kind.usual,
        count=kind.count,
        first=kind.first,
        open=kind.open,
        last=kind.last,
        ranks=ranks,
        ranks_more=False,
        steps_after=after,
        lines_after=lines - kind.last.order - 1,
        refuted=after >= REFUTED_STEPS,
        source=source,
    )
