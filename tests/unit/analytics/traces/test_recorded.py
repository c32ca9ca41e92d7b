"""What the coordinator's own rows say of a run: jobs that were played on the virtual clock, stored, and read back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from analytics.traces.analysis import analyze
from analytics.traces.exports import otlp
from analytics.traces.reading import read_bytes
from analytics.traces.recorded import Recorded, Recorder
from coordinator.api_types.trace import Outcome, Profile, SegmentKind
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Put
from coordinator.core.ids import JobId
from coordinator.core.rows import AttemptState, Row, WorkState
from coordinator.core.work.jobspec import RetryRule
from coordinator.core.work.traceids import job_of, run_span_id, trace_id
from store.durable import DiskStore
from store.layout import DataDir
from tests.conformance import homes
from tests.site import Site, a_job, a_step

ALL = (Ask(cpus=2 * UNIT),)
"""Both CPUs of a provider."""
COORDINATOR = "c1"


def recorded(site: Site, path: Path, job: int = 1) -> Recorded:
    """What is read of this job, from a database that holds what the site wrote."""

    async def store() -> Path:
        data = DataDir(path)
        disk = await DiskStore.open(data)
        try:
            await disk.commit([Put(row) for row in site.rows.values()])
        finally:
            await disk.close()
        return data.truth

    recorder = Recorder(asyncio.run(store()), COORDINATOR)
    found = recorder.read(JobId(job), site.now_ms * 1_000_000)
    assert found is not None and recorder.read(JobId(99), 0) is None and recorder.version(JobId(99)) is None
    return found


def profile_of(found: Recorded) -> Profile:
    return analyze(found.trace, record=found.record)


def a_retried_graph() -> Site:
    """Two steps; the first fails once and backs off, another job holds the slot before the second."""
    site = Site("a")
    rule = RetryRule(delay_ms=4_000)
    site.submit(a_job(a_step("x", asks=ALL, retry=rule), a_step("y", asks=ALL, needs=(0,))))
    site.run_to(3)
    site.exits("1.0.0.1", 1, ran_ms=2_900)
    site.run_to(20)
    site.submit(a_job(asks=ALL, priority=5))
    site.exits("1.0.0.2", ran_ms=9_000)
    site.run_to(26)
    site.exits("2.0.0.1", ran_ms=5_000)
    site.run_to(31)
    site.exits("1.1.0.1", ran_ms=5_000)
    return site


def test_the_path_of_a_stored_run_sums_to_its_wall_time(tmp_path: Path) -> None:
    """And names the failed run, the backoff, and the slot of another job."""
    site = a_retried_graph()
    found = recorded(site, tmp_path)
    job = site.job()
    assert job.ended_at_ms is not None
    path = profile_of(found).real_critical_path
    assert (job.ended_at_ms - job.submitted_at_ms) * 1_000_000 == path.makespan_ns
    assert path.makespan_ns == sum(segment.end_ns - segment.start_ns for segment in path.segments)
    kinds = [segment.kind for segment in path.segments]
    assert {SegmentKind.FAILED_RUN, SegmentKind.BACKOFF, SegmentKind.RUN} <= set(kinds)
    assert any(segment.cause == "slot 2.0.0.1" for segment in path.segments)
    assert not any(segment.inferred for segment in path.segments)


def test_a_loss_and_the_wait_for_its_lease_are_on_the_path(tmp_path: Path) -> None:
    """The provider of a run falls silent for good; its replacement waits for the end of the lease."""
    site = Site("a", "b")
    site.submit(a_job(asks=ALL))
    first = site.attempt("1.0.0.1").ranks[0].provider_id
    site.run_to(5)
    site.breaks(next(name for name in ("a", "b") if site.provider(name).row.provider_id == first))
    site.run_to(50)
    site.exits("1.0.0.2", ran_ms=1_000)
    found = recorded(site, tmp_path)
    again = analyze(read_bytes("spans", b"".join(otlp.pieces(found.trace))).trace)
    assert [Outcome.LOST, Outcome.OK] == [entry.outcome for entry in again.attempts], "also where only its spans are"
    path = profile_of(found).real_critical_path
    told = [(segment.kind, segment.attempt) for segment in path.segments if segment.end_ns > segment.start_ns]
    assert ((SegmentKind.LOST_RUN, 1) in told and (SegmentKind.LOST, 2) in told) or (SegmentKind.LOST, 1) in told, told
    assert any(segment.cause == "lease 1.0.0.1" for segment in path.segments)
    job = site.job()
    assert job.ended_at_ms is not None
    assert sum(s.end_ns - s.start_ns for s in path.segments) == (job.ended_at_ms - job.submitted_at_ms) * 1_000_000


def test_the_record_has_what_the_rows_have(tmp_path: Path) -> None:
    found = recorded(a_retried_graph(), tmp_path)
    record = found.record
    assert ("1.0", "1.1") == tuple(step.step for step in record.steps) and ("1.0",) == record.steps[1].needs
    assert [
        ("1.0.0", 1, Outcome.FAILED, "submit"),
        ("1.0.0", 2, Outcome.OK, "backoff"),
        ("1.1.0", 1, Outcome.OK, "slot 2.0.0.1"),
    ] == [(one.task, one.attempt, one.outcome, one.cause) for one in record.attempts]
    assert 1 == record.slots and Outcome.OK == record.outcome
    for one in record.attempts:
        times = (one.granted_ns, one.staging_ns, one.started_ns, one.exited_ns, one.ended_ns)
        known = [time for time in times if time is not None]
        assert len(known) == 4 and known == sorted(known)


def test_leases_that_are_stored_as_one_row_are_in_the_record(tmp_path: Path) -> None:
    """Of a job that goes on: those that nothing became of yet, beside one whose task and attempt have rows."""
    rows: list[Row] = [homes.a_job(1, WorkState.RUNNING), homes.a_spec(1), homes.a_step(1, 0)]
    leases = homes.first_leases(9)
    over: list[Row] = [
        homes.a_task(1, 0, 3, WorkState.COMPLETED),
        homes.an_attempt(1, 0, 3, state=AttemptState.COMPLETED),
    ]

    async def store() -> Path:
        disk = await DiskStore.open(DataDir(tmp_path))
        try:
            await disk.commit([*map(Put, rows), leases, *map(Put, over)])
        finally:
            await disk.close()
        return disk.data.truth

    found = Recorder(asyncio.run(store()), COORDINATOR).read(JobId(1), homes.NOON_MS * 1_000_000)
    assert found is not None
    names = [f"1.0.{number}" for number in range(9)]
    assert names == [one.task for one in found.record.tasks] == [one.task for one in found.record.attempts]
    assert ["1.0.3"] == [one.task for one in found.record.tasks if one.outcome is Outcome.OK]


def test_the_spans_are_those_of_every_attempt(tmp_path: Path) -> None:
    """Ids that follow from the job; programs' own spans find the span of what ran."""
    trace = recorded(a_retried_graph(), tmp_path).trace
    spans = trace.spans
    names = [trace.names[code] for code in spans.name]
    assert 3 == names.count("task") == names.count("run") and 1 == names.count("job")
    assert [trace_id(COORDINATOR, 1).hex()] == trace.traces
    assert 1 == job_of(bytes.fromhex(trace.traces[0]), COORDINATOR)
    assert int.from_bytes(run_span_id("1.0.0.2", 0), "big") in spans.span.tolist()
    parents = set(spans.parent.tolist()) - {0}
    assert parents <= set(spans.span.tolist()), "nobody is an orphan"
    edges = [
        (trace.data_ids[d], trace.data_ids[s]) for d, s in zip(trace.lineage.data, trace.lineage.source, strict=True)
    ]
    assert [("1.1.0", "1.0.0")] == edges


def test_a_run_that_goes_on_is_told_until_now(tmp_path: Path) -> None:
    site = Site("a")
    site.submit(a_job(asks=ALL))
    site.run_to(7)
    found = recorded(site, tmp_path)
    assert (None, site.now_ms * 1_000_000) == (found.record.ended_ns, found.record.looked_at_ns)
    path = profile_of(found).real_critical_path
    assert path.makespan_ns == sum(segment.end_ns - segment.start_ns for segment in path.segments) == 7 * 10**9


def test_the_path_of_dependencies_of_a_run_that_goes_on_has_what_runs_until_now(tmp_path: Path) -> None:
    """A step that has ended, and one that runs since: 3 s, and 17 up to now. Its task's length is told so, too."""
    site = Site("a")
    site.submit(a_job(a_step("x", asks=ALL), a_step("y", asks=ALL, needs=(0,))))
    site.run_to(3)
    site.exits("1.0.0.1", ran_ms=2_900)
    site.run_to(20)
    profile = profile_of(recorded(site, tmp_path))
    path = profile.critical_path
    assert (("1.0.0", "1.1.0"), 20.0) == (path.path, path.critical_path_seconds)
    assert not profile.real_critical_path.finished
    (running,) = (one for one in profile.per_data_id if one.data_id == "1.1.0")
    assert (None, 17.0) == (running.end_time, running.duration_seconds)
    assert 20.0 == profile.e2e_breakdown.workflow_duration_seconds


def test_large_steps_depend_through_a_joint(tmp_path: Path) -> None:
    """Edges grow with the tasks, not with their product."""
    site = Site(*(f"p{number}" for number in range(10)))
    site.submit(a_job(a_step("x", tasks=20), a_step("y", tasks=20, needs=(0,))))
    for task in range(20):
        site.exits(f"1.0.{task}.1", ran_ms=10)
    for task in range(20):
        site.exits(f"1.1.{task}.1", ran_ms=10)
    found = recorded(site, tmp_path)
    assert 40 == len(found.trace.lineage)
    (last,) = {entry.parent_data_ids for entry in profile_of(found).per_data_id if entry.data_id == "1.1.0"}
    assert 20 == len(last) or ("1.0",) == last
