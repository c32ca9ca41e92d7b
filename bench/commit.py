"""A commit of 512 leases: attempts, their tasks and the audit of both, against a bare write and fdatasync.

    python -m bench.commit [--quick]

Each commit grants a window of 512 attempts of one job, as a turn of placement does; a second kind settles the same
number. The bare side appends as many bytes as the commit added to the write-ahead log and syncs them once. Both take
turns on the same disk.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from pathlib import Path

from bench.judging import judged
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.commands import Put, Write
from coordinator.core.ids import JobId, ProviderId, TenantName, dotted
from coordinator.core.rows import (
    AttemptRow,
    AttemptState,
    AuditRow,
    EndCause,
    ExitInfo,
    JobRow,
    LeaseToken,
    RankRow,
    Row,
    SpecRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.work.jobspec import JobSpec, StepSpec
from store.durable import DiskStore
from store.layout import DataDir

FLOORS = {"grant_cpu_s": 0.010}
"""A commit of 512 grants costs at most so many seconds of CPU: what it takes beside waiting for the disk."""
WINDOW = 512
ROUNDS = 40
AGENTS = 64
NOW_MS = 1_800_000_000_000


class Ledger:
    """Makes the rows that the core would, with numbers that only grow."""

    def __init__(self) -> None:
        self.seq = 0

    def audit(self, entity: str, subject: str, before: str, after: str, provider: str | None = None) -> AuditRow:
        self.seq += 1
        return AuditRow(
            seq=self.seq,
            wall_ns=NOW_MS * 1_000_000 + self.seq,
            mono_ns=self.seq,
            entity=entity,
            subject=subject,
            before=before,
            after=after,
            why="placed: the best of 64 providers that fit",
            unblocked_by="submit",
            tenant="default",
            job_id=JobId(1),
            provider_id=ProviderId(provider) if provider else None,
        )

    def granted(self, task: int) -> list[Row]:
        """What placement writes for one task."""
        agent = f"node-{task % AGENTS}"
        names = dotted((1, 0, task)), dotted((1, 0, task, 1))
        return [
            TaskRow(job_id=JobId(1), step=0, task=task, state=WorkState.STAGING, attempts=1),
            attempt(task, AttemptState.LEASED),
            self.audit("task", names[0], "pending", "staging"),
            self.audit("attempt", names[1], "", "leased", agent),
        ]

    def settled(self, task: int) -> list[Row]:
        """What its exit writes."""
        agent = f"node-{task % AGENTS}"
        names = dotted((1, 0, task)), dotted((1, 0, task, 1))
        return [
            TaskRow(
                job_id=JobId(1),
                step=0,
                task=task,
                state=WorkState.COMPLETED,
                attempts=1,
                started_at_ms=NOW_MS,
                ended_at_ms=NOW_MS + 9,
                exit_code=0,
            ),
            attempt(task, AttemptState.COMPLETED, ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=9, out_bytes=5)),
            self.audit("task", names[0], "running", "completed"),
            self.audit("attempt", names[1], "running", "completed", agent),
        ]


def attempt(task: int, state: AttemptState, ended: ExitInfo | None = None, job: int = 1) -> AttemptRow:
    rank = RankRow(
        provider_id=ProviderId(f"node-{task % AGENTS}"),
        share=Share(ask=Ask(cpus=UNIT, memory=2**31)),
        acked=ended is not None,
        launched=ended is not None,
        running=ended is not None,
        released=ended is not None,
        exit=ended,
    )
    return AttemptRow(
        job_id=JobId(job),
        step=0,
        task=task,
        attempt=1,
        state=state,
        created_at_ms=NOW_MS,
        ranks=(rank,),
        token=LeaseToken(1, task + 1),
        term_ms=30_000,
        unblocked_by="submit",
        forecast=0.97,
        started_at_ms=NOW_MS if ended else None,
        ended_at_ms=NOW_MS + 9 if ended else None,
    )


def a_job(tasks: int, number: int = 1, state: WorkState = WorkState.RUNNING, key: str = "") -> list[Row]:
    """A job of one step, with its specification."""
    step = StepSpec(name="work", command=("python", "train.py", "--index", "{index}"), tasks=tasks)
    return [
        JobRow(
            job_id=JobId(number),
            tenant=TenantName(f"tenant-{number % 20}"),
            name=f"sweep-{number % 300}",
            state=state,
            submitted_at_ms=NOW_MS,
            by="token:t1",
            tasks=tasks,
            idempotency_key=key,
            ended_at_ms=NOW_MS + number if state is WorkState.COMPLETED else None,
        ),
        SpecRow(job_id=JobId(number), spec=JobSpec(name="sweep", steps=(step,))),
        StepRow(job_id=JobId(number), step=0, state=state, cursor=tasks),
    ]


def puts(rows: list[Row]) -> list[Write]:
    return [Put(row) for row in rows]


async def commit_rounds(data: DataDir, rounds: int) -> dict[str, list[float]]:
    spent: dict[str, list[float]] = {name: [] for name in ("grant", "grant_cpu", "settle", "settle_cpu", "bare")}
    store = await DiskStore.open(data)
    bare = os.open(data.path / "bare", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    filling = random.Random(1).randbytes(8 * 1024 * 1024)
    ledger = Ledger()
    try:
        await store.commit(puts(a_job(rounds * WINDOW)))
        for number in range(rounds):
            tasks = range(number * WINDOW, (number + 1) * WINDOW)
            for kind, rows in (
                ("grant", [row for task in tasks for row in ledger.granted(task)]),
                ("settle", [row for task in tasks for row in ledger.settled(task)]),
            ):
                writes = puts(rows)
                began, cpu = time.perf_counter(), time.process_time()
                await store.commit(writes)
                spent[kind].append(time.perf_counter() - began)
                spent[f"{kind}_cpu"].append(time.process_time() - cpu)
            began = time.perf_counter()
            os.write(bare, filling[:1_000_000])  # about what such a commit appends to the log
            os.fdatasync(bare)
            spent["bare"].append(time.perf_counter() - began)
    finally:
        os.close(bare)
        await store.close()
    return spent


def measure(directory: Path, quick: bool) -> dict[str, object]:
    rounds = 4 if quick else ROUNDS
    spent = asyncio.run(commit_rounds(DataDir(directory / "data"), rounds))
    median = {kind: statistics.median(times) for kind, times in spent.items()}
    return {
        "figures": {
            "window": WINDOW,
            **{f"{kind}_ms": round(seconds * 1_000, 2) for kind, seconds in median.items()},
            "leases_per_s": round(WINDOW / median["grant"]),
        },
        "ratios": {"grant_cpu_s": round(median["grant_cpu"], 4)},
        "floors": FLOORS,
        "n": {kind: len(times) for kind, times in spent.items()},
    }


if __name__ == "__main__":
    sys.exit(judged(measure, FLOORS, at_most=FLOORS))
