"""Where a store lives between two starts, and small builders of its rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from coordinator.core.amounts import Ask, Share
from coordinator.core.commands import Ended, FirstLeases, Launched
from coordinator.core.ids import JobId, Ms, PoolName, ProviderId, ProviderKey, SessionId, TenantName, TokenId
from coordinator.core.rows import (
    AttemptRow,
    AttemptState,
    AuditRow,
    EndCause,
    EndReason,
    ExitInfo,
    JobRow,
    LeaseToken,
    Promises,
    ProviderRow,
    RankRow,
    Resources,
    Role,
    SessionRow,
    SpecRow,
    StepRow,
    TaskRow,
    TokenRow,
    WorkState,
)
from coordinator.core.work.jobspec import Isolation, JobSpec, OnLost, RetryRule, StepSpec, When
from coordinator.ports.store import HeartbeatRow, ImportedSession, Store
from store.durable import DiskStore
from store.layout import DataDir
from store.memory import MemoryStore
from store.settings import StoreSettings

T = TypeVar("T")
HOUR_MS: Ms = 3_600_000
DAY_MS: Ms = 24 * HOUR_MS
NOON_MS: Ms = 490_000 * HOUR_MS
"""The beginning of a whole hour, around which these tests take place."""
OURS = "ours"
"""Stands for this coordinator's id; a_session takes it from the store."""


class Home(Protocol):
    """A place whose store can be started again and again."""

    def run(self, story: Callable[[Any], Awaitable[T]]) -> T:
        """Start the store, tell it a story, stop it."""
        ...

    def damage_blob(self, tenant: str, digest: str, bad: bytes) -> None:
        """What lies under the digest is this from now on."""
        ...


class MemoryHome:
    """The twin lives on while nobody uses it."""

    def __init__(self, settings: StoreSettings | None = None) -> None:
        self._store = MemoryStore(settings=settings)

    def run(self, story: Callable[[Any], Awaitable[T]]) -> T:
        async def told() -> T:
            return await story(self._store)

        return asyncio.run(told())

    def damage_blob(self, tenant: str, digest: str, bad: bytes) -> None:
        place = TenantName(tenant), digest
        self._store.blob_files._blobs[place] = 0, bad


class DiskHome:
    """A data directory; every run opens it anew."""

    def __init__(self, path: Path, settings: StoreSettings | None = None) -> None:
        self.data = DataDir(path)
        self.settings = settings or StoreSettings()

    def run(self, story: Callable[[Any], Awaitable[T]]) -> T:
        async def told() -> T:
            store = await DiskStore.open(self.data, self.settings)
            try:
                return await story(store)
            finally:
                await store.close()

        return asyncio.run(told())

    def damage_blob(self, tenant: str, digest: str, bad: bytes) -> None:
        (self.data.blobs / tenant / digest[:2] / digest).write_bytes(bad)


def is_a_store(store: DiskStore | MemoryStore) -> Store:
    """For the type checker: both are what the service asks for."""
    return store


def a_provider(name: str = "a", key: int = 1, **given: Any) -> ProviderRow:
    return ProviderRow(
        provider_id=ProviderId(name),
        key=ProviderKey(key),
        machine_id=f"machine of {name}",
        pool=PoolName("default"),
        credential_id=TokenId(f"token of {name}"),
        enrolled_at_ms=NOON_MS,
        **given,
    )


def a_full_provider() -> ProviderRow:
    """A provider with something in every field."""
    return a_provider(
        "ü-1",
        7,
        labels={"zone": "näh 'quoted' \"\\ \U0001f600", "a": ""},
        resources=Resources(cpus=7.5, memory_gb=31.2, gpus=("A", "B")),
        boot_id="boot",
        agent_version="1.2",
        resume_digest="d1",
        resume_digest_unconfirmed="d2",
        drained_at_ms=NOON_MS + 1,
        drain_note="fan; DROP TABLE provider",
        away_until_ms=NOON_MS + 2,
        last_seen_ms=NOON_MS + 3,
        last_end=EndReason.STALE_HEARTBEAT,
        stay_began_ms=NOON_MS + 4,
        promises=Promises(work=True, isolation=Isolation.SANDBOX, kills_all=True, freezes_all=True, memory_limit=True),
        quarantined_until_ms=NOON_MS + 5,
        quarantine_why="five in a row: 'x'",
        quarantines=2,
    )


def a_session(
    number: int,
    began_ms: Ms = NOON_MS,
    ended_ms: Ms | None = None,
    provider: str = "a",
    coordinator: str = "another",
    **given: Any,
) -> SessionRow:
    return SessionRow(
        session_id=SessionId(number),
        provider_id=ProviderId(provider),
        connected_at_ms=began_ms,
        coordinator_id=coordinator,
        disconnected_at_ms=ended_ms,
        disconnect_reason=EndReason.READ_ERROR if ended_ms is not None else None,
        **given,
    )


def a_token(name: str = "t1", **given: Any) -> TokenRow:
    return TokenRow(token_id=TokenId(name), role=Role.READ_ONLY, digest=f"digest {name}", created_at_ms=1, **given)


def a_beat(at_ms: Ms, key: int = 1, n: int = 0, **given: Any) -> HeartbeatRow:
    values: dict[str, Any] = dict.fromkeys(HeartbeatRow._fields[4:])
    values |= {"observed_at_ms": at_ms, "key": ProviderKey(key), "n": n, "status": 1, **given}
    return HeartbeatRow(**values)


def imported(
    line: int, provider: str, began_ms: Ms, ended_ms: Ms | None = None, reason: EndReason | None = None
) -> ImportedSession:
    """A line of an import; one with an end has a reason."""
    if ended_ms is not None and reason is None:
        reason = EndReason.READ_ERROR
    return ImportedSession(line, provider, began_ms, ended_ms, reason)


# ---- work


def a_job(number: int = 1, state: WorkState = WorkState.PENDING, tenant: str = "default", **given: Any) -> JobRow:
    values: dict[str, Any] = {
        "name": f"job {number}",
        "submitted_at_ms": NOON_MS,
        "by": "token:t1",
        "tasks": 1,
        **given,
    }
    return JobRow(job_id=JobId(number), tenant=TenantName(tenant), state=state, **values)


def a_spec(number: int = 1, steps: int = 1) -> SpecRow:
    made = tuple(StepSpec(name=f"s{step}", command=("true",)) for step in range(steps))
    return SpecRow(job_id=JobId(number), spec=JobSpec(name=f"job {number}", steps=made))


def a_step(job: int = 1, step: int = 0, state: WorkState = WorkState.PENDING, **given: Any) -> StepRow:
    return StepRow(job_id=JobId(job), step=step, state=state, **given)


def a_task(job: int = 1, step: int = 0, task: int = 0, state: WorkState = WorkState.PENDING, **given: Any) -> TaskRow:
    return TaskRow(job_id=JobId(job), step=step, task=task, state=state, **given)


def a_rank(provider: str = "a", **given: Any) -> RankRow:
    return RankRow(provider_id=ProviderId(provider), **given)


def an_attempt(
    job: int = 1,
    step: int = 0,
    task: int = 0,
    attempt: int = 1,
    state: AttemptState = AttemptState.RUNNING,
    token: int = 1,
    **given: Any,
) -> AttemptRow:
    values: dict[str, Any] = {"created_at_ms": NOON_MS, "ranks": (a_rank(),), **given}
    return AttemptRow(
        job_id=JobId(job), step=step, task=task, attempt=attempt, state=state, token=LeaseToken(1, token), **values
    )


def an_audit(seq: int, entity: str = "job", subject: str = "1", at_ms: Ms = NOON_MS, **given: Any) -> AuditRow:
    return AuditRow(
        seq=seq, wall_ns=at_ms * 1_000_000, mono_ns=seq, entity=entity, subject=subject, after="pending", **given
    )


def first_leases(tasks: int, *, job: int = 1, step: int = 0, task: int = 0, seq: int = 1) -> FirstLeases:
    """So many tasks, leased for the first time together, from this one on."""
    numbers = range(task, task + tasks)
    staged = [a_task(job, step, n, WorkState.STAGING, attempts=1, waits_for="submit") for n in numbers]
    leased = [
        an_attempt(job, step, n, 1, AttemptState.LEASED, token=seq + n, reason="placed on a", unblocked_by="submit")
        for n in numbers
    ]
    return FirstLeases(
        tenant=TenantName("default"),
        seq=seq,
        wall_ns=NOON_MS * 1_000_000,
        mono_ns=7,
        tasks=staged,
        attempts=leased,
        ids=[row.attempt_id for row in leased],
    )


def launched(leases: FirstLeases, tasks: Sequence[int], *, seq: int) -> Launched:
    """So many of these, whose agent holds them now."""
    ranks = (replace(leases.attempts[0].ranks[0], acked=True, launched=True),)
    return Launched(
        tenant=leases.tenant,
        seq=seq,
        wall_ns=leases.wall_ns + 1,
        mono_ns=8,
        attempts=[
            replace(leases.attempts[number], state=AttemptState.STAGING, ranks=ranks, reason="held") for number in tasks
        ],
        ids=[leases.ids[number] for number in tasks],
    )


def ended(begun: Launched, which: range, *, seq: int) -> Ended:
    """So many of these, which have succeeded, with their tasks."""
    rows = [begun.attempts[number] for number in which]
    (rank,) = rows[0].ranks
    exit = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=3, out_bytes=7)
    over = replace(rank, released=True, exit=exit)
    return Ended(
        tenant=begun.tenant,
        seq=seq,
        wall_ns=begun.wall_ns + 1,
        mono_ns=9,
        before=AttemptState.STAGING,
        task_before=WorkState.STAGING,
        tasks=[
            a_task(row.job_id, row.step, row.task, WorkState.COMPLETED, attempts=1, exit_code=0, ended_at_ms=NOON_MS)
            for row in rows
        ],
        attempts=[
            replace(row, state=AttemptState.COMPLETED, ranks=(over,), reason="", ended_at_ms=NOON_MS) for row in rows
        ],
        ids=[row.attempt_id for row in rows],
    )


def some_full_work() -> tuple[JobRow, SpecRow, StepRow, TaskRow, AttemptRow]:
    """A live job with something in every field of every row."""
    text = "näh 'quoted' \"\\ \U0001f600 \x00 ; DROP TABLE job"
    step = StepSpec(
        name="train",
        command=("python", text, "{lr}"),
        tasks=6,
        array=((1, 10, 2), (20, 20, 1)),
        items=(text, ""),
        matrix=(("lr", ("0.1", "1e-3")), ("seed", ("1",))),
        when=When.FINISHED,
        asks=(Ask(cpus=500_000, gpus=250_000, memory=2**40, named=(("licence", 1),)), Ask()),
        nodes=2,
        pools=(PoolName("gpu"),),
        labels=(("zone", text),),
        isolation=Isolation.UID,
        min_score=0.5,
        time_limit_ms=1,
        env=(("A", text),),
        stdin=text,
        retry=RetryRule(on=("exit:75", "timeout"), never=("oom",), factor=1.5, elsewhere=True),
        on_lost=OnLost(mode="wait", wait_ms=600_000),
        max_fails=3,
        max_running=4,
    )
    job = a_job(
        41,
        WorkState.RUNNING,
        "físicã",
        name=text,
        tasks=6,
        completed=1,
        failed=2,
        cancelled=3,
        started_at_ms=NOON_MS + 1,
        reason=text,
        cancelling="asked for",
        retries=2,
        idempotency_key="k" * 64,
        body_digest="d" * 64,
    )
    task = a_task(
        41,
        0,
        5,
        WorkState.RUNNING,
        attempts=3,
        failures=1,
        losses=1,
        not_before_ms=NOON_MS + 2,
        failed_on=(ProviderId("ü-1"), ProviderId("b")),
        straggler=True,
        started_at_ms=NOON_MS + 3,
        exit_code=-1,
        reason=text,
        waits_for="slot 12.0.3.1",
    )
    done = ExitInfo(
        cause=EndCause.SIGNALLED,
        code=None,
        signal=9,
        text=text,
        ran_ms=7,
        out_bytes=2**52,
        err_bytes=1,
        dropped_bytes=2,
        memory_max=2**45,
        cpu_ms=3,
    )
    share = Share(ask=Ask(named=(("licence", 1),)), gpus=((0, 250_000), (3, 1_000_000)))
    attempt = an_attempt(
        41,
        0,
        5,
        3,
        AttemptState.IN_DOUBT,
        token=77,
        ranks=(
            a_rank("ü-1", share=share, acked=True, launched=True, running=True, released=True, exit=done),
            a_rank("b", acked=True),
        ),
        term_ms=900_000,
        started_at_ms=NOON_MS + 3,
        ended_at_ms=NOON_MS + 4,
        doubted_at_ms=NOON_MS + 5,
        lease_over_ms=NOON_MS + 6,
        reason=text,
        unblocked_by="submit",
        forecast=0.1 + 0.2,
    )
    spec = SpecRow(job_id=JobId(41), spec=JobSpec(name=text, steps=(step,), deadline_ms=NOON_MS + 9))
    return (
        job,
        spec,
        a_step(41, 0, WorkState.RUNNING, cursor=6, completed=1, failed=2, cancelled=3, reason=text),
        task,
        attempt,
    )
