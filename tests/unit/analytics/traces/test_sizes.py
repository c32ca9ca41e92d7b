"""Runs that are large in one respect: what is said of them takes time in proportion (processor time: the machine may be
busy)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from analytics.traces.analysis import analyze
from analytics.traces.record import AttemptRecord, RunRecord, StepRecord, TaskRecord
from analytics.traces.recorded_path import walked_record
from coordinator.api_trace import Outcome
from tests.unit.analytics.traces.runs import a_span, a_task, a_trace

T = TypeVar("T")
MS = 1_000_000


def seconds(of: Callable[[], T]) -> tuple[float, T]:
    begun = time.process_time()
    made = of()
    return time.process_time() - begun, made


def test_a_long_line_at_one_provider_is_walked_in_one_go() -> None:
    """50,000 short tasks were given ahead to one provider of eight slots: who ran before whom is looked up, not
    searched for among all (which took 25 s)."""
    count = 50_000
    attempts = []
    for number in range(count):
        begun = number // 8 * 10 * MS
        attempts.append(
            AttemptRecord(
                task=f"12.0.{number}",
                attempt=1,
                providers=("p",),
                outcome=Outcome.OK,
                cause="submit",
                granted_ns=max(begun - 15 * MS, 0),
                staging_ns=max(begun - 14 * MS, 0),
                started_ns=begun + MS,
                ended_ns=begun + 10 * MS,
                prefetched=True,
            )
        )
    end_ns = count // 8 * 10 * MS
    record = RunRecord(
        job_id=12,
        name="many",
        submitted_ns=0,
        ended_ns=end_ns,
        looked_at_ns=end_ns,
        outcome=Outcome.OK,
        steps=(StepRecord(step="12.0", name="many"),),
        tasks=tuple(TaskRecord(task=one.task, step="12.0") for one in attempts),
        attempts=tuple(attempts),
    )
    took, (path, on_path) = seconds(lambda: walked_record(record))
    assert count // 8 == len(path.steps) == len(on_path)
    assert end_ns == sum(path.by_kind.values())
    assert took < 4


def test_a_batch_of_100000_tasks_is_one_attempt() -> None:
    """All of them are named, each once; adding one at a time to a tuple took as long as the square of their number."""
    count = 100_000
    spans = [a_task("lead", 0, 2, 1, batch_id="lead")]
    spans += [
        a_span(number + 2, "dump to storage", 1, 1.5, f"m{number}", kind="network", parent=1, batch_id="lead")
        for number in range(count)
    ]
    trace = a_trace(spans)
    took, profile = seconds(lambda: analyze(trace))
    assert [count] == [len(entry.merged) for entry in profile.attempts]
    assert took < 4
