"""Work as the store and the views would have it, written by hand: jobs, attempts and what they print.

The engine knows nothing of these: their numbers are far from those that it gives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
import msgspec

from coordinator.api_types.happenings import LogEvent
from coordinator.client.jobs import bytes_of
from coordinator.core.commands import AttemptChanged, Audited, JobChanged, Put
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TenantName, dotted
from coordinator.core.rows import (
    AttemptRow,
    AttemptState,
    AuditRow,
    Choice,
    EndCause,
    ExitInfo,
    JobRow,
    LeaseToken,
    RankRow,
    SpecRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.ports.logs import LogKey, LogWrite
from tests.unit.api.rig import ADMIN, Rig

AT: Ms = 1_800_000_000_000


class Work:
    """One job of one step, whose attempts come and go as a test says."""

    def __init__(self, rig: Rig, job_id: int = 1_000, tenant: str = "physics", tasks: int = 1) -> None:
        self.rig = rig
        self.seq = job_id * 1_000
        self.attempts: dict[AttemptId, AttemptRow] = {}
        self.lengths: dict[LogKey, int] = {}
        self.spec = JobSpec(name="w", steps=(StepSpec(name="main", command=("true",), tasks=tasks),))
        self.job = JobRow(
            job_id=JobId(job_id),
            tenant=TenantName(tenant),
            name="w",
            state=WorkState.RUNNING,
            submitted_at_ms=AT,
            by="token:x",
            tasks=tasks,
        )

    async def begin(self) -> None:
        """The job is there."""
        step = StepRow(job_id=self.job.job_id, step=0, state=WorkState.RUNNING)
        await self.rig.store.commit([Put(self.job), Put(SpecRow(job_id=self.job.job_id, spec=self.spec)), Put(step)])
        self.rig.views.apply([JobChanged(self.job)])

    async def queue_left(self, waited_s: float) -> None:
        """Its first lease is granted before one that stands ahead; it begins to run so long after its submission."""
        self.seq += 1
        lease = AttemptRow(
            job_id=self.job.job_id,
            step=0,
            task=9,
            attempt=1,
            state=AttemptState.LEASED,
            created_at_ms=AT,
            ranks=(RankRow(provider_id=ProviderId("p0")),),
            choice=Choice(among=2, run_ms=60_000, loss_ms=1_000, fit=0.5, backfilled=True),
        )
        began = AuditRow(
            seq=self.seq,
            wall_ns=(AT + int(waited_s * 1_000)) * 1_000_000,
            mono_ns=self.seq,
            entity="job",
            subject=str(self.job.job_id),
            before="pending",
            after="running",
            tenant=self.job.tenant,
            job_id=self.job.job_id,
        )
        self.rig.views.apply([AttemptChanged(row=lease, tenant=self.job.tenant), Audited(began)])

    async def start(self, task: int = 0, number: int = 1, ranks: int = 1) -> AttemptId:
        """An attempt begins to run."""
        row = AttemptRow(
            job_id=self.job.job_id,
            step=0,
            task=task,
            attempt=number,
            state=AttemptState.RUNNING,
            created_at_ms=AT,
            token=LeaseToken(1, self.seq),
            ranks=tuple(RankRow(provider_id=ProviderId(f"p{i}"), running=True) for i in range(ranks)),
        )
        state = TaskRow(job_id=row.job_id, step=0, task=task, state=WorkState.RUNNING, attempts=number)
        await self._put(row, state, before="")
        return row.attempt_id

    async def exit(self, attempt_id: AttemptId, state: AttemptState = AttemptState.COMPLETED) -> None:
        """It ended; its log is whole as it is."""
        row = self.attempts[attempt_id]
        ranks = []
        for rank, one in enumerate(row.ranks):
            lengths = [self.lengths.get(LogKey(attempt_id, rank, stream), 0) for stream in (0, 1)]
            info = ExitInfo(cause=EndCause.EXITED, code=0, out_bytes=lengths[0], err_bytes=lengths[1])
            ranks.append(msgspec.structs.replace(one, exit=info, released=True))
        over = msgspec.structs.replace(row, state=state, ranks=tuple(ranks))
        ended = WorkState.COMPLETED if state is AttemptState.COMPLETED else WorkState.PENDING
        task = TaskRow(job_id=row.job_id, step=0, task=row.task, state=ended, attempts=row.attempt)
        await self._put(over, task, before=row.state.value)

    async def end(self) -> None:
        """The job has completed."""
        self.job = msgspec.structs.replace(self.job, state=WorkState.COMPLETED, ended_at_ms=AT)
        await self.rig.store.commit([Put(self.job)])
        self.rig.views.apply([JobChanged(self.job)])

    async def _put(self, row: AttemptRow, task: TaskRow, before: str) -> None:
        self.seq += 1
        audit = AuditRow(
            seq=self.seq,
            wall_ns=AT * 1_000_000,
            mono_ns=self.seq,
            entity="attempt",
            subject=dotted(row.attempt_id),
            before=before,
            after=row.state.value,
            tenant=self.job.tenant,
            job_id=row.job_id,
        )
        self.attempts[row.attempt_id] = row
        await self.rig.store.commit([Put(row), Put(task), Put(audit)])
        self.rig.views.apply([Audited(audit), AttemptChanged(row=row, tenant=self.job.tenant)])

    async def prints(self, attempt_id: AttemptId, data: bytes, stream: int = 0, rank: int = 0, at_ms: Ms = AT) -> None:
        """Bytes of it are stored, and whoever follows is woken."""
        key = LogKey(attempt_id, rank, stream)
        offset = self.lengths.get(key, 0)
        await self.rig.deps.logs.append([LogWrite(key, offset, data, at_ms)])
        self.lengths[key] = offset + len(data)
        self.rig.views.apply([AttemptChanged(row=self.attempts[attempt_id], tenant=self.job.tenant)])


async def eventually(ask: Callable[[], bool], what: str) -> None:
    """Poll until `ask` says so; AssertionError names `what` after a minute."""
    until_s = time.monotonic() + 60
    while not ask():
        assert time.monotonic() < until_s, f"{what} did not happen"
        await asyncio.sleep(0.01)


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    id: str
    data: str

    @property
    def log(self) -> LogEvent:
        return msgspec.json.decode(self.data, type=LogEvent)

    @property
    def bytes(self) -> bytes:
        return bytes_of(self.log)


@asynccontextmanager
async def listening(
    rig: Rig, path: str, token: str = ADMIN, last_id: str | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    """An open event stream."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    async with rig.http.get(rig.url + path, headers=headers) as response:
        assert 200 == response.status, await response.text()
        assert "text/event-stream" == response.headers["Content-Type"]
        yield _events(response)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    found: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text:
            field, _, value = text.partition(": ")
            found[field] = value
        elif "data" in found:
            yield Event(found.get("event", ""), found["id"], found["data"])
            found = {}


async def whole(rig: Rig, path: str, token: str = ADMIN, last_id: str | None = None) -> list[Event]:
    """Every event of a stream that has an end, which is left out."""
    async with listening(rig, path, token, last_id) as events:
        found = [event async for event in events]
    assert "end" == found[-1].name
    return found[:-1]
