"""Reading stored logs: from any arrival on, as they grow, and from the end backwards.

A reader holds a position and no queue: whatever it has not read is in the file. Bound of one: about READ_BYTES.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from coordinator.core.ids import AttemptId
from coordinator.core.rows import LIVE_ATTEMPT
from coordinator.ports.logs import LogKey, LogMark, Logs
from coordinator.service.bells import Bell, heard
from coordinator.service.relay.custody import Custody
from coordinator.service.relay.settings import RelaySettings
from coordinator.wire import STREAMS

MARKS = 256
"""Arrivals looked up at a time."""
READ_BYTES = 1024 * 1024
"""Read at a time, where more than one arrival is."""
TAIL_MARKS = 32
"""Looked at together, going backwards: 8 MB at most are held."""
TAIL_BYTES_MAX = 64 * 1024 * 1024
"""How far back the last lines are looked for."""


class Piece(NamedTuple):
    """One arrival: `data` of `mark.stream`. Reading goes on at `number + 1`."""

    number: int
    mark: LogMark
    data: bytes


class Start(NamedTuple):
    """Where to begin: at arrival number `mark`, without its first `skip` bytes."""

    mark: int
    skip: int


class Reader:
    """Followers of attempts' logs, woken when something was stored or the attempt changed."""

    def __init__(self, logs: Logs, custody: Custody, settings: RelaySettings) -> None:
        self.followers = 0
        self._logs = logs
        self._custody = custody
        self._settings = settings
        self._bells: dict[tuple[AttemptId, int], tuple[Bell, int]] = {}
        """Of each log that is followed, and by how many."""
        self._closed = False

    def wake(self, attempt_id: AttemptId, rank: int) -> None:
        """Something of this rank's log was stored, or its attempt changed."""
        found = self._bells.get((attempt_id, rank))
        if found is not None:
            found[0].ring()

    def close(self) -> None:
        """End every follower."""
        self._closed = True
        for bell, _ in self._bells.values():
            bell.ring()

    async def stored(self, attempt_id: AttemptId, rank: int, from_mark: int = 0) -> AsyncIterator[Piece]:
        number = from_mark
        while pieces := await self._read(attempt_id, rank, number):
            for piece in pieces:
                yield piece
            number = pieces[-1].number + 1

    async def follow(self, attempt_id: AttemptId, rank: int, from_mark: int = 0) -> AsyncIterator[Piece]:
        where = (attempt_id, rank)
        bell, others = self._bells.get(where, (Bell(), 0))
        self._bells[where] = bell, others + 1
        self.followers += 1
        number = from_mark
        try:
            while not self._closed:
                ring = bell.next()
                patience_s = await self._patience_s(attempt_id, rank)
                pieces = await self._read(attempt_id, rank, number)
                for piece in pieces:
                    yield piece
                if pieces:
                    number = pieces[-1].number + 1
                elif patience_s == 0.0 or not await heard(ring, patience_s):
                    return
        finally:
            self.followers -= 1
            left = self._bells[where][1] - 1
            if left:
                self._bells[where] = bell, left
            else:
                del self._bells[where]

    async def _patience_s(self, attempt_id: AttemptId, rank: int) -> float | None:
        """How long to wait for more: None for ever, 0 not at all."""
        view = await self._custody.view(attempt_id)
        if view is None or rank >= len(view.row.ranks):
            return 0.0
        ended = view.row.ranks[rank].exit
        if ended is not None and not view.fenced:
            for stream, promised in enumerate((ended.out_bytes, ended.err_bytes)):
                if await self._logs.length(LogKey(attempt_id, rank, stream)) < promised:
                    return self._settings.tail_patience_s
            return 0.0
        return None if view.row.state in LIVE_ATTEMPT else 0.0

    async def _read(self, attempt_id: AttemptId, rank: int, number: int) -> list[Piece]:
        """The next arrivals, at least one where there is one."""
        marks = await self._logs.marks(attempt_id, rank, number, MARKS)
        total = 0
        for count, mark in enumerate(marks):
            total += mark.length
            if total > READ_BYTES and count:
                marks = marks[:count]
                break
        spans = [await self._span(LogKey(attempt_id, rank, s), marks) for s in range(len(STREAMS))]
        pieces = []
        for offset, mark in enumerate(marks):
            first, data = spans[mark.stream]
            at = mark.offset - first
            pieces.append(Piece(number + offset, mark, data[at : at + mark.length]))
        return pieces

    async def _span(self, key: LogKey, marks: Sequence[LogMark]) -> tuple[int, bytes]:
        """Everything of one stream between its first and last of these arrivals: they adjoin."""
        own = [mark for mark in marks if mark.stream == key.stream]
        if not own:
            return 0, b""
        first = min(mark.offset for mark in own)
        return first, await self._logs.read(key, first, max(mark.offset + mark.length for mark in own) - first)

    async def tail_lines(self, attempt_id: AttemptId, rank: int, lines: int, stream: int | None = None) -> Start:
        """Read backwards until so many line ends were met, or TAIL_BYTES_MAX went by."""
        upper = await self._logs.marks_count(attempt_id, rank)
        if lines <= 0:
            return Start(upper, 0)
        left, seen, last = lines, 0, True
        while upper > 0 and seen < TAIL_BYTES_MAX:
            lower = max(0, upper - TAIL_MARKS)
            pieces = await self._block(attempt_id, rank, lower, upper)
            for piece in reversed(pieces):
                if stream is not None and piece.mark.stream != stream:
                    continue
                data, seen = piece.data, seen + len(piece.data)
                end = len(data)
                if last and data:
                    end, last = end - data.endswith(b"\n"), False
                while (at := data.rfind(b"\n", 0, end)) >= 0:
                    left, end = left - 1, at
                    if left == 0:
                        return Start(piece.number, at + 1)
            upper = lower
        return Start(upper, 0)

    async def _block(self, attempt_id: AttemptId, rank: int, lower: int, upper: int) -> list[Piece]:
        found: list[Piece] = []
        while lower < upper:
            pieces = [p for p in await self._read(attempt_id, rank, lower) if p.number < upper]
            if not pieces:
                break
            found += pieces
            lower = pieces[-1].number + 1
        return found
