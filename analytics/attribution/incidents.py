"""What was recognised so far: bounded, whatever the log; what is kept depends on the bytes alone."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from analytics.attribution.case import Happening, Line, Place
from analytics.attribution.rules import Row, Rules
from coordinator.core.verdict.rows import Role

REFUTED_STEPS = 3
"""So many lines of progress later the program has gone on working."""
APART_BYTES = 64 * 1024
"""So much of another stream may have been written before a line that it came behind: it was held back on its way."""
LAST_LINES = 8
KINDS_MAX = 144
EVICTED = 32
"""So many go at once, when there are too many."""
EXCEPTIONS_MAX = 8
"""Classes of exceptions of one signature that are told apart; the others are one kind."""
RANKS_KEPT = 2_048
_WORTH = {Role.ROOT: 3, Role.CONFIRM: 2, Role.LIFECYCLE: 1, Role.CASCADE: 1}


class Now(Struct, frozen=True, gc=False):
    """How far streams have come: lines of progress, and bytes, of each."""

    steps: tuple[int, ...]
    at: tuple[int, ...]

    def since(self, place: Place, *, own: bool = False) -> int:
        """Lines of progress that were written after a line: those of its own stream, and those of another one where
        enough came of that (never, if only `own` ones are asked for)."""
        after = self.steps[place.stream] - place.own_steps
        others = sum(self.steps) - place.steps - after
        far = sum(self.at) - self.at[place.stream] - place.apart > APART_BYTES
        return after + (others if far and not own else 0)


class Kind(Struct, array_like=True):
    """One signature and class of exception."""

    row: str
    exception: str
    usual: bool
    summary: bool
    count: int
    first: Place
    open: Line
    last: Place
    ranks: bytes
    """One bit a rank, as a number in little-endian order."""
    ranks_more: bool


class Incidents(Struct, array_like=True):
    """All kinds, by what makes them one."""

    kinds: dict[str, Kind] = {}

    def add(
        self,
        row: Row,
        line: Line,
        exception: str,
        rules: Rules,
        now: Now,
        *,
        usual: bool = False,
        summary: bool = False,
    ) -> None:
        """One more line that `row` knows."""
        key = f"{row.id}\x1f{exception}\x1f{usual:d}{summary:d}"
        if exception and key not in self.kinds and self._exceptions(row.id) >= EXCEPTIONS_MAX:
            exception, key = "", f"{row.id}\x1f\x1f{usual:d}{summary:d}"
        place = Place(*(getattr(line, name) for name in Place.__struct_fields__))
        kind = self.kinds.get(key)
        if kind is None:
            kind = Kind(row.id, exception, usual, summary, 0, place, line, place, b"", False)
            self.kinds[key] = kind
        elif row.role is not Role.BENIGN and now.since(kind.last) >= REFUTED_STEPS:
            kind.open = line
        kind.count += 1
        kind.last = place
        if line.rank is not None:
            _set_rank(kind, line.rank)
        if len(self.kinds) > KINDS_MAX:
            self._evict(rules, now)

    def _exceptions(self, row: str) -> int:
        return sum(kind.row == row and bool(kind.exception) for kind in self.kinds.values())

    def _evict(self, rules: Rules, now: Now) -> None:
        """What can least be the primary goes: harmless before refuted before what follows before roots; of equals the
        latest, since the earliest root counts."""

        def worth(key: str) -> tuple[bool, bool, int, int]:
            kind = self.kinds[key]
            role = rules.by_id[kind.row].role
            refuted = now.since(kind.last) >= REFUTED_STEPS
            return (role in _WORTH and not kind.usual, not refuted, _WORTH.get(role, 0), -kind.open.order)

        for key in sorted(self.kinds, key=worth)[:EVICTED]:
            del self.kinds[key]


def happening(
    kind: Kind, row: Row, source: int, now: Now, numbers: Sequence[int], finished: Place | None, *, failed: bool
) -> Happening:
    """As it looks at the end: `numbers` are the lines of each stream, at `finished` it said that it was through.

    Where the program `failed` by itself, what its stream said last is not refuted by another stream.
    """
    last_words = failed and numbers[kind.last.stream] - kind.last.number < LAST_LINES
    after = now.since(kind.last, own=last_words)
    through = finished is not None and finished.order > kind.last.order
    if last_words and finished is not None and finished.stream != kind.last.stream:
        through = False
    return Happening(
        row=row,
        exception=kind.exception,
        usual=kind.usual,
        summary=kind.summary,
        count=kind.count,
        first=kind.first,
        open=kind.open,
        last=kind.last,
        ranks=ranks_of(kind.ranks),
        ranks_more=kind.ranks_more,
        steps_after=after,
        lines_after=sum(numbers) - kind.last.order - 1,
        refuted=after >= REFUTED_STEPS or through,
        source=source,
    )


def with_rank(ranks: bytes, rank: int) -> bytes:
    """The set with one more."""
    bits = int.from_bytes(ranks, "little") | 1 << rank
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def ranks_of(ranks: bytes) -> tuple[int, ...]:
    bits = int.from_bytes(ranks, "little")
    return tuple(rank for rank in range(bits.bit_length()) if bits >> rank & 1)


def _set_rank(kind: Kind, rank: int) -> None:
    if rank >= RANKS_KEPT:
        kind.ranks_more = True
    elif rank >= len(kind.ranks) * 8 or not kind.ranks[rank >> 3] >> (rank & 7) & 1:
        kind.ranks = with_rank(kind.ranks, rank)
