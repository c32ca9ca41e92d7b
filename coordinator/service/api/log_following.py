"""Following a job's logs: several attempts at a time, each from where its reader is, new ones as they come.

The reader's position is told with each piece and is all that is needed to go on from there: which attempts are dealt
with, and how far each of the open ones was read. Nothing is sent twice and nothing is left out.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, attempt_of, dotted
from coordinator.core.rows import ENDED, LIVE_ATTEMPT, AttemptRow, AttemptState, JobRow
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.log_selection import Log, Selection, attempts_of, cut, start_of
from coordinator.service.api.pages import Number
from coordinator.service.api.streams import over
from coordinator.service.bells import heard
from coordinator.service.relay.reading import Piece, Start

OPEN_MAX = 32
"""Logs that one reader follows at a time; those that begin meanwhile wait for one of these to end."""
AUDIT_PAGE = 500
GATHER_S = 0.02
"""New attempts are looked for together: most of a thousand short ones have ended by then, and wrote nothing."""
_ID_CHARS_MAX = 6_000
_NOTHING = Start(0, 0)


class Position(Struct, array_like=True):
    """Where a reader is."""

    seen: Number
    """Attempts up to here are dealt with: the number of one, or the number of an audit row."""
    open: dict[str, Number] = {}
    """`STEP.TASK.ATTEMPT.RANK` -> the number of the next piece."""

    def text(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def position_of(text: str) -> Position:
    """What `text` told. CoordError(BAD_REQUEST) for what was never an id of such a stream."""
    try:
        if len(text) > _ID_CHARS_MAX:
            raise ValueError("too long")
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = msgspec.json.decode(raw, type=Position)
        if len(found.open) > 2 * OPEN_MAX or any(_log_id(name) is None for name in found.open):
            raise ValueError("no position")
        return found
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise CoordError(
            Code.BAD_REQUEST, "this Last-Event-ID is none of this stream", "send an id of it unchanged, or none"
        ) from None


class Shown(NamedTuple):
    """One piece, and where the reader is after it."""

    log: Log
    piece: Piece
    position: Position


class _Found(NamedTuple):
    """An attempt whose log is to be opened, and what `Position.seen` is then."""

    row: AttemptRow
    seen: int


class _Finder(Protocol):
    """Finds the attempts whose logs are to be opened, in a fixed order."""

    async def next(self) -> _Found | None:
        """The next one; None when there will be none any more. Waits until then."""
        ...


async def followed(
    deps: ApiDeps, job: JobRow, selection: Selection, position: Position | None
) -> AsyncGenerator[Shown, None]:
    """Every piece of the logs asked for, from `position` on (None: from their beginning, or tail), until the job (or
    its one task) has ended."""
    at = position if position is not None else Position(0, {})
    followers = _Followers(deps, selection, at)
    if position is not None:
        await followers.reopen()
    finder: _Finder
    if selection.task is not None:
        finder = _OneTask(deps, selection, selection.task, at.seen)
    else:
        if position is None and selection.tail is not None:
            at.seen = await _open_the_newest(deps, selection, followers)
        finder = _EveryTask(deps, selection, at.seen)
    try:
        async with aclosing(followers.run(finder)) as pieces:
            async for shown in pieces:
                yield shown
    finally:
        await followers.close()


def _log_id(name: str) -> tuple[int, int, int, int] | None:
    parts = name.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        return None
    step, task, attempt, rank = map(int, parts)
    return step, task, attempt, rank


def _name(log: Log) -> str:
    return f"{dotted(log.row.attempt_id[1:])}.{log.rank}"


# ---- the open ones


class _Reading:
    """One log that is followed."""

    def __init__(self, log: Log, start: Start, pieces: AsyncIterator[Piece]) -> None:
        self.log = log
        self.start = start
        self.pieces = pieces
        self.coming: asyncio.Future[Piece | None] = asyncio.ensure_future(anext(pieces, None))

    def go_on(self) -> None:
        self.coming = asyncio.ensure_future(anext(self.pieces, None))

    async def close(self) -> None:
        await over(self.coming)
        if isinstance(self.pieces, AsyncGenerator):
            await self.pieces.aclose()


class _Followers:
    """The logs that are open, and the search for the next one."""

    def __init__(self, deps: ApiDeps, selection: Selection, at: Position) -> None:
        self._deps = deps
        self._selection = selection
        self._at = at
        self._open: dict[str, _Reading] = {}
        self._search: asyncio.Future[_Found | None] | None = None

    @property
    def count(self) -> int:
        return len(self._open)

    async def reopen(self) -> None:
        """Go on with what was open."""
        for name, number in list(self._at.open.items()):
            found = _log_id(name)
            assert found is not None
            row = await self._deps.store.attempt((self._selection.job_id, *found[:3]))
            if row is None or found[3] >= len(row.ranks):
                del self._at.open[name]
            else:
                self._begin(Log(row, found[3]), Start(number, 0))

    async def open(self, row: AttemptRow) -> None:
        """Follow the ranks of this attempt that are asked for; those that are open already stay as they are."""
        for rank in self._selection.ranks(row):
            log = Log(row, rank)
            if _name(log) not in self._open:
                self._begin(log, await start_of(self._deps, log, self._selection))

    def _begin(self, log: Log, start: Start) -> None:
        self._at.open[_name(log)] = start.mark
        pieces = self._deps.relay.follow(log.row.attempt_id, log.rank, start.mark)
        self._open[_name(log)] = _Reading(log, start, pieces)

    async def run(self, finder: _Finder) -> AsyncGenerator[Shown, None]:
        """Pieces as they come, until the search is over and every log has ended."""
        searching = True
        while searching or self._open:
            if searching and self._search is None and len(self._open) < OPEN_MAX:
                self._search = asyncio.ensure_future(finder.next())
            waits: list[asyncio.Future[_Found | None] | asyncio.Future[Piece | None]]
            waits = [reading.coming for reading in self._open.values()]
            if self._search is not None:
                waits.append(self._search)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for name, reading in list(self._open.items()):
                if not reading.coming.done():
                    continue
                piece = reading.coming.result()
                if piece is None:
                    await self._end(name, reading)
                    continue
                self._at.open[name] = piece.number + 1
                if self._selection.stream in (None, piece.mark.stream):
                    yield Shown(reading.log, cut(piece, reading.start), self._at)
                reading.go_on()
            if self._search is not None and self._search.done():
                found, self._search = self._search.result(), None
                if found is None:
                    searching = False
                else:
                    await self.open(found.row)
                    self._at.seen = found.seen

    async def _end(self, name: str, reading: _Reading) -> None:
        """This log is complete. One whose attempt still lives was cut off by our own end: that is no end of it."""
        view = self._deps.views.attempts.get(reading.log.row.attempt_id)
        if view is not None and view.row.state in LIVE_ATTEMPT and view.row.ranks[reading.log.rank].exit is None:
            raise CoordError(Code.SHUTTING_DOWN, "the coordinator is stopping", "go on by Last-Event-ID")
        del self._open[name], self._at.open[name]
        await reading.close()

    async def close(self) -> None:
        if self._search is not None:
            await over(self._search)
        for reading in self._open.values():
            await reading.close()


# ---- the search


class _OneTask:
    """The attempts of one task, from its last one on (or the one that was asked for)."""

    def __init__(self, deps: ApiDeps, selection: Selection, task: tuple[int, int], seen: int) -> None:
        self._deps = deps
        self._selection = selection
        self._task = task
        self._seen = seen

    async def next(self) -> _Found | None:
        while True:
            change = self._deps.feed.next_change(self._selection.job_id)
            over = await self._is_over()
            rows = await attempts_of(self._deps, self._selection, self._task)
            new = [row for row in rows if row.attempt > self._seen]
            if new:
                row = new[0] if self._seen else new[-1]
                self._seen = row.attempt
                return _Found(row, row.attempt)
            if over:
                return None
            await heard(change)

    async def _is_over(self) -> bool:
        if self._selection.attempt is not None and self._seen >= self._selection.attempt:
            return True
        if await job_is_over(self._deps, self._selection):
            return True
        step, task = self._task
        rows = await self._deps.store.job_tasks(self._selection.job_id, 1, step, (step, task - 1))
        return bool(rows) and rows[0].task == task and rows[0].state in ENDED


async def job_is_over(deps: ApiDeps, selection: Selection) -> bool:
    """Whether the job has ended, or is gone."""
    row = deps.views.jobs.get(selection.job_id) or await deps.store.job(selection.job_id, None)
    return row is None or row.state in ENDED


class _EveryTask:
    """The attempts of a job in the order in which they were made, as its audit tells; those that a later one of the
    same task has followed are left out."""

    def __init__(self, deps: ApiDeps, selection: Selection, seen: int) -> None:
        self._deps = deps
        self._selection = selection
        self._seen = seen
        self._made: list[tuple[int, AttemptId]] = []
        """Audit rows that were read and not looked into yet, the next one last."""

    async def next(self) -> _Found | None:
        store, job_id = self._deps.store, self._selection.job_id
        while True:
            while self._made:
                seq, attempt_id = self._made.pop()
                row = await _latest(self._deps, attempt_id)
                if row is not None:
                    return _Found(row, seq)
            change = self._deps.feed.next_change(job_id)
            ended = await job_is_over(self._deps, self._selection)
            rows = await store.audit(limit=AUDIT_PAGE, job_id=job_id, entity="attempt", after=self._seen)
            if rows:
                self._seen = rows[-1].seq
                self._made = [(row.seq, attempt_of(row.subject)) for row in reversed(rows) if not row.before]
            elif ended:
                return None
            else:
                await heard(change)
                await asyncio.sleep(GATHER_S)


async def _latest(deps: ApiDeps, attempt_id: AttemptId) -> AttemptRow | None:
    """The attempt, when it lives or is the last one of its task and has written anything."""
    view = deps.views.attempts.get(attempt_id)
    row = view.row if view is not None else await deps.store.attempt(attempt_id)
    if row is None or row.state in LIVE_ATTEMPT:
        return row
    if all(rank.exit is not None and not rank.exit.out_bytes + rank.exit.err_bytes for rank in row.ranks):
        return None
    if row.state is AttemptState.COMPLETED:
        return row  # nothing is tried again after that
    job, step, task, number = attempt_id
    return row if await deps.store.attempt((job, step, task, number + 1)) is None else None


async def _open_the_newest(deps: ApiDeps, selection: Selection, followers: _Followers) -> int:
    """Open what lives now, or where nothing does what ended last. Returns the audit row that all of them lie before:
    whatever is made later is found behind it."""
    store, job_id = deps.store, selection.job_id
    newest = await store.audit(limit=1, job_id=job_id)
    if not newest:
        return 0
    seen, opened = newest[0].seq, 0
    job = deps.engine.state.work.jobs.get(job_id)
    alive = (
        [attempt.row.attempt_id for step in job.steps for task in step.tasks.values() for attempt in task.attempts]
        if job
        else []
    )
    for attempt_id in sorted(alive):
        made = await store.audit(limit=1, job_id=job_id, entity="attempt", subject=dotted(attempt_id), after=0)
        row = await store.attempt(attempt_id)
        if row is not None and made and made[0].seq <= seen:
            await followers.open(row)
            opened += 1
        if opened >= OPEN_MAX:
            return seen
    if opened:
        return seen
    for audit in await store.audit(limit=AUDIT_PAGE, job_id=job_id, entity="attempt", before=seen + 1):
        row = await _latest(deps, attempt_of(audit.subject))
        if row is not None and followers.count < OPEN_MAX:
            await followers.open(row)
    return seen
