"""What this agent does for the traces of attempts: what a program is told of its trace, what it posts and leaves, and
the agent's own spans. All of it goes into one spool, and on its way behind everything else.

Off (`agent.trace`): programs are told of no trace, nothing is kept, and the endpoint says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from coordinator import wire
from coordinator.agent import channel, grounds, trace_left, trace_rows
from coordinator.agent.asking import Asking, Whose
from coordinator.agent.log import logger
from coordinator.agent.logship import Key
from coordinator.agent.places import place_at
from coordinator.agent.standing import Standing
from coordinator.agent.trace_rows import PROGRAM, Row
from coordinator.agent.trace_spool import Full, TraceSpool
from coordinator.core.ids import attempt_of, dotted
from coordinator.core.work.traceids import run_span_id, trace_id, traceparent
from coordinator.wire_traces import ContentType, Encoding, Part

FLUSH_S = 0.5
"""Spans of the agent are put together so long."""
LOOK_S = 0.05
"""Attempts that end within so long are looked after together: a thread for each would cost as much as it does."""
ROWS_MAX = 20_000
"""Of the agent's own that wait for that; more are counted as dropped."""
EXPORTER = "OTEL_EXPORTER_OTLP_"
_MS = 1_000_000
_ELSEWHERE = ("ENDPOINT", "HEADERS")


class Tracing:
    """`run` is a task of the daemon. `work` is where programs have their directories."""

    def __init__(self, asking: Asking, state: Path, work: Path, standing: Standing, *, on: bool) -> None:
        self.on = on
        self.spool = TraceSpool(state, asking.traces)
        self._work = str(work)
        self._standing = standing
        self._live: set[Key] = set()
        """Whose end this daemon will see."""
        self._rows: dict[Whose, list[Row]] = {}
        self._waiting = 0
        self._ended: dict[Key, channel.Now] = {}
        """Whose trace directories are to be looked into: of those that left nothing at all the keeper knows it."""
        self._news = asyncio.Event()
        self.over: Callable[[Key], None] = lambda key: None
        """Told when the directories of one are not needed any more."""

    # ---- programs

    def environment(self, launch: wire.Launch, url: str, secret: str) -> tuple[tuple[str, str], ...]:
        """What a program is told of its trace. A job that speaks to an exporter of its own goes on to: our token is for
        our endpoint alone."""
        given = dict(launch.plan.env)
        coordinator_id = self._standing.coordinator_id
        if not self.on or not coordinator_id:
            return ()
        attempt_id = attempt_of(launch.attempt)
        parent = traceparent(trace_id(coordinator_id, attempt_id[0]), run_span_id(launch.attempt, launch.rank))
        said = [] if "TRACEPARENT" in given else [("TRACEPARENT", parent)]
        if any(name.startswith(EXPORTER) and name.endswith(_ELSEWHERE) for name in given):
            return tuple(said)
        if f"{EXPORTER}PROTOCOL" not in given:
            said.append((f"{EXPORTER}PROTOCOL", "http/protobuf"))
        whose = f"data_id={dotted(attempt_id[:3])},coord.attempt={attempt_id[3]},coord.rank={launch.rank}"
        own = given.get("OTEL_RESOURCE_ATTRIBUTES", "")
        return (
            *said,
            (f"{EXPORTER}ENDPOINT", url),
            (f"{EXPORTER}HEADERS", f"Authorization=Bearer%20{secret}"),
            ("OTEL_RESOURCE_ATTRIBUTES", f"{own},{whose}" if own else whose),
        )

    async def post(self, whose: Whose, body: bytes, media: ContentType, encoding: Encoding) -> None:
        """Keep what a program posted. On return it is on the disk. Raises Full."""
        self.spool.put(
            Part(
                attempt=whose.attempt,
                rank=whose.rank,
                token=whose.token,
                kind="otlp",
                content_type=media,
                encoding=encoding,
                size=len(body),
            ),
            body,
        )
        await self.spool.written()

    # ---- attempts

    def on_now(self, now: channel.Now, uploads: bool) -> None:
        """It stands so. When the program of one ran is told where there is more to tell of it on this machine's clock:
        what it posted, what was brought and is brought (`uploads`). Of the others the coordinator knows it as well."""
        if not self.on:
            return
        key = now.attempt, now.rank
        if now.phase != "exited":
            self._live.add(key)
            return
        whose = Whose(now.attempt, now.rank, now.token)
        told = uploads or whose in self._rows or self.spool.knows(key)
        if told and key in self._live and now.exit is not None and now.exit.ran_ms:
            end_ns = time.time_ns() // _MS * _MS  # as its run is known, and as the coordinator tells of it
            said = {"coord.exit.cause": str(now.exit.cause)}
            row = Row(PROGRAM, PROGRAM, end_ns - now.exit.ran_ms * _MS, end_ns, "marker", said)
            self.traced(whose, row)
        self._live.discard(key)
        if not now.untouched and key not in self._ended:
            self._ended[key] = now
            self._news.set()

    def holds(self, key: Key) -> bool:
        """Whether its directories are still to be looked into."""
        return key in self._ended

    def drop(self, key: Key) -> None:
        """It is forgotten here."""
        self._live.discard(key)
        self.spool.forget(key)

    def traced(self, whose: Whose, row: Row) -> None:
        """Something was done for it."""
        if not self.on:
            return
        if self._waiting >= ROWS_MAX:
            self.spool.dropped += 1
            return
        self._rows.setdefault(whose, []).append(row)
        self._waiting += 1

    # ---- tasks

    async def run(self) -> None:
        """Collect and send, for ever."""
        if not self.on:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self.spool.run())
            group.create_task(self._flush_forever())
            while True:
                await self._news.wait()
                await asyncio.sleep(LOOK_S)
                self._news.clear()
                ended = list(self._ended.values())
                for now in await asyncio.to_thread(self._left_something, ended):
                    await self._collect(now)
                for now in ended:
                    del self._ended[now.attempt, now.rank]
                    self.over((now.attempt, now.rank))
                if self._ended:
                    self._news.set()

    def _left_something(self, ended: list[channel.Now]) -> list[channel.Now]:
        return [now for now in ended if not trace_left.is_empty(f"{self._place_of(now)}/trace")]

    def _place_of(self, now: channel.Now) -> str:
        return f"{self._work}/{now.directory.rpartition('/')[2]}"

    async def _collect(self, now: channel.Now) -> None:
        """What its program left."""
        ground = grounds.part(place_at(now.directory, self._work), "COORD_TRACE_DIR")
        pieces = trace_left.left(ground, now.attempt, now.user)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                part = Part(attempt=now.attempt, rank=now.rank, token=now.token, kind=piece.kind, size=len(piece.data))
                self.spool.put(part, piece.data)
                await self.spool.written()
        except Full as error:
            logger.warning("traces that %s left are dropped: %s", now.attempt, error)

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._rows and self._standing.coordinator_id:
                self._flush()

    def _flush(self) -> None:
        coordinator_id, provider = self._standing.coordinator_id, self._standing.provider_id
        rows, self._rows, self._waiting = self._rows, {}, 0
        for whose, some in rows.items():
            trace = trace_id(coordinator_id, attempt_of(whose.attempt)[0])
            data = trace_rows.encoded(some, whose.attempt, whose.rank, provider, trace, self._standing.offset)
            part = Part(attempt=whose.attempt, rank=whose.rank, token=whose.token, kind="otlp", size=len(data))
            try:
                self.spool.put(part, data)
            except Full:
                logger.debug("spans of %s are dropped", whose.attempt)
