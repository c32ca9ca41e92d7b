"""The relay over the in-memory twin of the stored logs, with connections that remember what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from coordinator.core import commands
from coordinator.core.amounts import Ask, Share
from coordinator.core.ids import AttemptId, ConnId, JobId, ProviderId, TenantName
from coordinator.core.rows import AttemptRow, AttemptState, EndCause, ExitInfo, LeaseToken, RankRow
from coordinator.ports.logs import LogKey, LogWrite
from coordinator.service.clock import ObservedClock
from coordinator.service.relay.relay import Relay
from coordinator.service.relay.settings import RelaySettings
from coordinator.service.views import LiveViews
from coordinator.wire import LogChunk
from store.memory import MemoryStore
from store.memory_logs import MemoryLogs

ATTEMPT: AttemptId = (JobId(1), 0, 0, 1)
OUT = LogKey(ATTEMPT, 0, 0)
ERR = LogKey(ATTEMPT, 0, 1)
TOKEN = LeaseToken(1, 5)


def an_attempt(
    attempt_id: AttemptId = ATTEMPT,
    state: AttemptState = AttemptState.RUNNING,
    *,
    providers: Sequence[str] = ("a",),
    out_bytes: int | None = None,
    err_bytes: int = 0,
) -> AttemptRow:
    """A row whose ranks have exited with that much of a log, where `out_bytes` says so."""
    ended = None
    if out_bytes is not None:
        ended = ExitInfo(cause=EndCause.EXITED, code=0, out_bytes=out_bytes, err_bytes=err_bytes)
    job, step, task, number = attempt_id
    return AttemptRow(
        job_id=job,
        step=step,
        task=task,
        attempt=number,
        state=state,
        created_at_ms=0,
        ranks=tuple(RankRow(provider_id=ProviderId(p), share=Share(ask=Ask()), exit=ended) for p in providers),
        token=TOKEN,
    )


def a_chunk(offset: int, data: bytes, key: LogKey = OUT, token: LeaseToken = TOKEN) -> LogChunk:
    return LogChunk(key.attempt_id, key.rank, key.stream, token, offset, data)


class GatedLogs(MemoryLogs):
    """Appends wait for the test while `gate` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[list[LogWrite]] = []

    async def append(self, writes: Sequence[LogWrite]) -> dict[LogKey, int]:
        self.batches.append(list(writes))
        await self.gate.wait()
        return await super().append(writes)


class Connection:
    """A source of log bytes, as a link is one."""

    def __init__(self, conn: int, provider: str = "a") -> None:
        self.conn_id = ConnId(conn)
        self.provider_id: ProviderId | None = ProviderId(provider)
        self.acks: list[tuple[LogKey, int]] = []
        self.stopped: list[tuple[AttemptId, LeaseToken]] = []
        self.holds = 0
        self.held_ever = 0

    def acknowledge_log(self, attempt_id: AttemptId, rank: int, stream: int, offset: int) -> None:
        self.acks.append((LogKey(attempt_id, rank, stream), offset))

    def stop_attempt(self, attempt_id: AttemptId, token: LeaseToken, why: str) -> None:
        self.stopped.append((attempt_id, token))

    def hold(self) -> None:
        self.holds += 1
        self.held_ever += 1

    def release(self) -> None:
        self.holds -= 1

    def acked(self, key: LogKey = OUT) -> int:
        """The last offset that was acknowledged; -1 before the first."""
        return next((offset for known, offset in reversed(self.acks) if known == key), -1)


class Rig:
    """A running relay."""

    def __init__(self, settings: RelaySettings) -> None:
        self.logs = GatedLogs()
        self.store = MemoryStore("head")
        self.views = LiveViews()
        self.relay = Relay(self.logs, self.store, self.views, ObservedClock(), settings)

    def changed(self, row: AttemptRow, fenced: bool = False) -> None:
        """A durable change of an attempt."""
        self.views.apply([commands.AttemptChanged(row=row, tenant=TenantName("default"), fenced=fenced)])

    async def stored(self, key: LogKey = OUT) -> bytes:
        return await self.logs.read(key, 0, 2**40)


@asynccontextmanager
async def a_relay(settings: RelaySettings | None = None) -> AsyncIterator[Rig]:
    """One running attempt on provider `a`, and the relay at work."""
    rig = Rig(settings or RelaySettings(retry_s=0.01, stop_s=0.2))
    rig.changed(an_attempt())
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(rig.relay.run())
        try:
            yield rig
        finally:
            rig.logs.gate.set()
            await rig.relay.close()


def with_relay(test: Callable[[Rig], Awaitable[None]], settings: RelaySettings | None = None) -> None:
    async def main() -> None:
        async with a_relay(settings) as rig:
            await test(rig)

    asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    """Let the others take their turns until it is so."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is watched are plain numbers of the code under test
            await asyncio.sleep(0.001)
