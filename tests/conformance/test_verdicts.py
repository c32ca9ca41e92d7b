"""Verdicts and suspicions come back as they were put, and go when their time has come."""

from __future__ import annotations

from typing import Any

from coordinator.core.commands import Delete, Put
from coordinator.core.ids import JobId, ProviderId, TenantName
from coordinator.core.rows import WorkState
from coordinator.core.verdict.rows import (
    HISTORY_MAX,
    Benign,
    Cause,
    Evidence,
    Fault,
    Incident,
    Recommendation,
    Role,
    Seen,
    SuspicionRow,
    Verdict,
    VerdictRow,
)
from coordinator.ports.store import Store
from tests.conformance.homes import DAY_MS, NOON_MS, Home, a_job, a_spec, a_step

LINE = Evidence(
    role=Role.ROOT, signature="xid", text="Xid \x1b[31m 79 ü'\"\n", offset=2**50, line=9, rank=3, source="1/stderr"
)


def a_verdict_row(job: int = 1, step: int = 0, task: int = 0, attempt: int = 1, **given: Any) -> VerdictRow:
    verdict = Verdict(
        cause=Cause.GPU_HARDWARE,
        fault=Fault.PROVIDER,
        recommendation=Recommendation.RESTART_ELSEWHERE,
        confidence=0.1 + 0.2,
        summary="a GPU fell off the bus",
        advice="none",
        avoid_providers=("a", "ü"),
        evidence=(LINE, Evidence(role=Role.EXIT, signature="exit", text="exit 1")),
        incidents=(
            Incident(
                cause=Cause.NCCL_TIMEOUT,
                role=Role.CASCADE,
                signature="n",
                count=9,
                first_offset=1,
                first_line=2,
                last_line=3,
                ranks=(0, 1),
            ),
        ),
        progress=Seen(lines=5, steps=2, first_step=1, last_step=2, checkpoints=1, restored=True),
        benign=(Benign(signature="b", why="w", count=1, text="t", first_line=1),),
        root="r",
        rules="d",
    )
    values = {"at_ms": NOON_MS, "late": True, "verdict": verdict, "remark": "what's missing", **given}
    return VerdictRow(job_id=JobId(job), step=step, task=task, attempt=attempt, **values)


def a_suspicion(provider: str = "a", attempt: str = "1.0.0.1", at_ms: int = NOON_MS) -> SuspicionRow:
    return SuspicionRow(
        provider_id=ProviderId(provider),
        attempt=attempt,
        at_ms=at_ms,
        cause=Cause.GPU_HARDWARE,
        confidence=0.1 + 0.2,
        text="Xid 79 ü'\n",
        tenant=TenantName("physics"),
    )


def test_verdicts_come_back_and_only_suspicions_are_read_at_a_start(home: Home) -> None:
    row, first = a_verdict_row(1, 2, 3, 4), a_suspicion()

    async def write(store: Store) -> None:
        await store.commit([Put(a_verdict_row(1, 2, 3, 4, late=False, remark="")), Put(first)])
        await store.commit([Put(row), Put(a_suspicion(attempt="1.0.0.2", at_ms=NOON_MS + 5)), Put(a_suspicion("ü"))])

    async def read(store: Store) -> None:
        assert row == await store.verdict((JobId(1), 2, 3, 4))
        assert None is await store.verdict((JobId(1), 2, 3, 5))
        assert [a_suspicion(attempt="1.0.0.2", at_ms=NOON_MS + 5), first] == await store.suspicions(ProviderId("a"))
        loaded = [row for row in (await store.load()).rows if isinstance(row, VerdictRow | SuspicionRow)]
        assert 3 == len(loaded) and {a_suspicion("ü"), first} <= set(loaded)
        await store.commit([Delete("suspicion", (ProviderId("a"), "1.0.0.1"))])
        assert ["1.0.0.2"] == [row.attempt for row in await store.suspicions(ProviderId("a"))]
        assert [a_suspicion("ü")] == await store.suspicions(ProviderId("ü"))

    home.run(write)
    home.run(read)


def test_a_start_knows_the_last_verdicts_of_every_job_that_goes_on(home: Home) -> None:
    """As many as a job remembers, by their time; of jobs that have ended none."""

    async def write(store: Store) -> None:
        for job, state in ((1, WorkState.RUNNING), (2, WorkState.FAILED), (3, WorkState.PENDING)):
            ended_ms = NOON_MS if state is WorkState.FAILED else None
            await store.commit([Put(a_job(job, state, ended_at_ms=ended_ms)), Put(a_spec(job)), Put(a_step(job))])
        count = HISTORY_MAX + 5
        given = [a_verdict_row(1, 0, task, at_ms=NOON_MS + (count - task)) for task in range(count)]
        again = a_verdict_row(1, 0, count - 1, at_ms=NOON_MS + 99, provider_id=ProviderId("a"), saved=True, run=2)
        await store.commit([Put(row) for row in (*given, again, a_verdict_row(2), a_verdict_row(3, 1))])

    async def read(store: Store) -> None:
        found = [row for row in (await store.load()).rows if isinstance(row, VerdictRow)]
        told = sorted((row for row in found if row.job_id == 1), key=lambda row: row.at_ms)[-HISTORY_MAX:]
        assert [*range(HISTORY_MAX - 2, -1, -1), HISTORY_MAX + 4] == [row.task for row in told]
        assert ("a", True, 2, NOON_MS + 99) == (told[-1].provider_id, told[-1].saved, told[-1].run, told[-1].at_ms)
        assert [3] == [row.job_id for row in found if row.job_id != 1]

    home.run(write)
    home.run(read)


def test_verdicts_of_a_job_are_listed_and_looked_up_by_attempt(home: Home) -> None:
    keys = [(step, task, attempt) for step in range(2) for task in (0, 2, 10) for attempt in (1, 2, 10)]

    async def ask(store: Store) -> None:
        await store.commit([Put(a_verdict_row(1, *key)) for key in reversed(keys)])
        await store.commit([Put(a_verdict_row(2)), Put(a_verdict_row(12))])

        def told(rows: list[VerdictRow]) -> list[tuple[int, int, int]]:
            assert all(row.job_id == 1 for row in rows)
            return [(row.step, row.task, row.attempt) for row in rows]

        assert keys[::-1] == told(await store.verdicts(JobId(1), 99))
        assert keys[:-5:-1] == told(await store.verdicts(JobId(1), 4))
        wanted = [(1, 10, 2), (0, 0, 1), (0, 1, 1), (5, 0, 1)]
        assert [(0, 0, 1), (1, 10, 2)] == told(await store.verdicts_among(JobId(1), wanted))
        assert [] == await store.verdicts_among(JobId(1), [])
        assert [] == await store.verdicts(JobId(3), 9)

    home.run(ask)


def test_verdicts_go_with_their_job(home: Home) -> None:
    async def ask(store: Store) -> None:
        for job in (1, 2):
            ended = NOON_MS if job == 1 else NOON_MS + 90 * DAY_MS
            rows = (a_job(job, WorkState.FAILED, ended_at_ms=ended), a_spec(job), a_step(job, state=WorkState.FAILED))
            await store.commit([Put(row) for row in (*rows, a_verdict_row(job), a_verdict_row(job, 0, 1))])
        await store.maintain(NOON_MS + 91 * DAY_MS)
        assert [] == await store.verdicts(JobId(1), 9)
        assert 2 == len(await store.verdicts(JobId(2), 9))

    home.run(ask)
