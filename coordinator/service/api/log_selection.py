"""Which logs of a job are asked for, and from where on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, Ms
from coordinator.core.rows import AttemptRow, AttemptState, JobRow
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.query import nearest, shown
from coordinator.service.api.scope import task_of
from coordinator.service.relay.reading import Piece, Start
from coordinator.timetext import parse_duration
from coordinator.wire import STREAMS

RANKS_MAX = 32
"""Ranks of one attempt that are shown together; others are asked for by their number."""
LINES_MAX = 100_000
TAIL_MS_MAX = 400 * 24 * 3_600_000
TASKS_PAGE = 200


class LogsQuery(Struct, frozen=True, kw_only=True):
    tail: Annotated[str, Meta(description="only the end: a number of lines (100) or a time (1m)")] | None = None
    follow: Annotated[bool, Meta(description="go on with what is written, until the job (or the task) has ended")] = (
        False
    )
    task: Annotated[str, Meta(description="STEP.TASK: this task alone")] | None = None
    attempt: Annotated[int, Meta(ge=1, description="this attempt of it, not the last one")] | None = None
    rank: Annotated[int, Meta(ge=0, le=65_535, description="this rank alone")] | None = None
    stream: Annotated[str, Meta(description="stdout or stderr alone")] | None = None


class Tail(NamedTuple):
    """How much of each log's end. One of both."""

    lines: int | None
    length_ms: Ms | None


class Selection(NamedTuple):
    """What is asked for of a job."""

    job_id: JobId
    task: tuple[int, int] | None
    """None: every task."""
    attempt: int | None
    """None: the last one of each task."""
    rank: int | None
    stream: int | None
    """Index into STREAMS."""
    tail: Tail | None

    def ranks(self, row: AttemptRow) -> tuple[int, ...]:
        """Which ranks of this attempt."""
        if self.rank is not None:
            return (self.rank,) if self.rank < len(row.ranks) else ()
        return tuple(range(min(len(row.ranks), RANKS_MAX)))


class Log(NamedTuple):
    """One rank's log: both of its streams, as they came."""

    row: AttemptRow
    rank: int


def selection_of(job: JobRow, query: LogsQuery) -> Selection:
    """What `query` asks for. CoordError(BAD_REQUEST) names the parameter that is wrong."""
    task = task_of(query.task) if query.task is not None else None
    if task is None and job.tasks == 1:
        task = (0, 0)
    if query.attempt is not None and task is None:
        raise CoordError(Code.BAD_REQUEST, "attempt is of one task", "name it: task=STEP.TASK")
    return Selection(job.job_id, task, query.attempt, query.rank, _stream(query.stream), _tail(query.tail))


def _stream(text: str | None) -> int | None:
    if text is None:
        return None
    if text in STREAMS:
        return STREAMS.index(text)
    near = nearest(text, STREAMS)
    raise CoordError(
        Code.BAD_REQUEST,
        f"stream={shown(text)} is none" + (f" (did you mean {near}?)" if near else ""),
        f"there are: {', '.join(STREAMS)}",
    )


def _tail(text: str | None) -> Tail | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= LINES_MAX:
        return Tail(int(text), None)
    try:
        length_ms = parse_duration(text)
    except ValueError:
        length_ms = -1
    if 0 <= length_ms <= TAIL_MS_MAX:
        return Tail(None, length_ms)
    raise CoordError(
        Code.BAD_REQUEST,
        f"tail={shown(text)} is not taken",
        f"give a number of lines, at most {LINES_MAX}, or a time, as 30s 5m 8h 7d",
    )


async def start_of(deps: ApiDeps, log: Log, selection: Selection) -> Start:
    """Where to begin with this log."""
    tail = selection.tail
    if tail is None:
        return Start(0, 0)
    if tail.lines is not None:
        return await deps.relay.tail_lines(log.row.attempt_id, log.rank, tail.lines, selection.stream)
    assert tail.length_ms is not None
    since_ms = deps.engine.clock.now_ms() - tail.length_ms
    return Start(await deps.logs.since(log.row.attempt_id, log.rank, since_ms), 0)


def cut(piece: Piece, start: Start) -> Piece:
    """The piece without what lies before `start`."""
    if piece.number != start.mark or not start.skip:
        return piece
    mark = piece.mark
    kept = piece.data[start.skip :]
    return Piece(piece.number, mark._replace(offset=mark.offset + start.skip, length=len(kept)), kept)


async def attempts_of(deps: ApiDeps, selection: Selection, task: tuple[int, int]) -> list[AttemptRow]:
    """The attempts of this task that are asked for, all that there are without `attempt`."""
    rows = await deps.store.job_attempts(selection.job_id, 20_000, *task)
    return [row for row in rows if selection.attempt in (None, row.attempt)]


async def stored_logs(deps: ApiDeps, selection: Selection) -> AsyncGenerator[Log, None]:
    """The logs that are asked for, by task and rank, of each task the last attempt; one that was taken back never ran,
    and hides nothing."""
    if selection.task is not None:
        rows = await attempts_of(deps, selection, selection.task)
        for row in ([row for row in rows if row.state is not AttemptState.TAKEN_BACK] or rows)[-1:]:
            for rank in selection.ranks(row):
                yield Log(row, rank)
        return
    after = None
    while tasks := await deps.store.job_tasks(selection.job_id, TASKS_PAGE, None, after):
        for task in tasks:
            number = task.attempts
            last = await deps.store.attempt((*task.task_id, number))
            while last is not None and last.state is AttemptState.TAKEN_BACK and number > 1:
                number -= 1
                last = await deps.store.attempt((*task.task_id, number))
            if last is not None:
                for rank in selection.ranks(last):
                    yield Log(last, rank)
        after = tasks[-1].step, tasks[-1].task
