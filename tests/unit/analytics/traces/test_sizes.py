"""Runs that are large in one respect: what is said of them takes time in proportion (processor time: the machine may be
busy)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from analytics.traces.analysis import analyze
from analytics.traces.record import AttemptRecord, RunRecord, StepRecord, TaskRecord
from analytics.traces.recorded_path import walked_record
from analytics.traces.whatif import what_if
from coordinator.api_types.trace import Outcome
from tests.unit.analytics.traces.runs import S, a_span, a_task, a_trace

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


def test_a_chain_of_100000_tasks_is_its_own_path() -> None:
    """Each is on the path with the one before it as its cause; the replay takes as long."""
    count = 100_000
    trace = a_trace(
        [a_task(f"t{number}", number, number + 1, number + 1) for number in range(count)],
        [(f"t{number}", f"t{number - 1}") for number in range(1, count)],
    )
    took, profile = seconds(lambda: analyze(trace))
    path = profile.real_critical_path
    assert (count, count, count * S) == (len(path.steps), len(path.segments), path.makespan_ns)
    assert "t99998" == path.steps[-1].from_task
    assert 0 == what_if(trace, slots=5).error_ns
    assert took < 8


def test_a_fan_out_of_100000_tasks_is_one_of_them_on_the_path() -> None:
    """The one that ended last stands between the first task and the one that waited for all; on five slots they would
    take as long as their work divided by five."""
    count = 100_000
    tasks = range(1, count + 1)
    trace = a_trace(
        [
            a_task("first", 0, 1, count + 1),
            *(a_task(f"t{number}", 1, 2 + number / count, number, provider=f"p{number % 50}") for number in tasks),
            a_task("last", 4, 5, count + 2),
        ],
        [(f"t{number}", "first") for number in tasks] + [("last", f"t{number}") for number in tasks],
    )
    took, profile = seconds(lambda: analyze(trace))
    assert ["first", "t100000", "last"] == [step.task for step in profile.real_critical_path.steps]
    assert 5 * S == profile.real_critical_path.makespan_ns
    assert abs(what_if(trace, slots=5).predicted_ns - 30_003 * S) < S
    assert took < 8


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
