"""Answers that other analyzers get wrong: each with the right one."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from analytics.traces.analysis import analyze
from analytics.traces.reading import read, read_bytes
from coordinator.api_types.trace import Outcome, Profile, SegmentKind
from tests.unit.analytics.traces.runs import S, a_span, a_task, a_trace

K = SegmentKind


def segments(profile: Profile) -> list[tuple[str, str, float, float]]:
    """(kind, task, start, end) in seconds."""
    return [
        (segment.kind.value, segment.task, segment.start_ns / S, segment.end_ns / S)
        for segment in profile.real_critical_path.segments
    ]


def test_a_lineage_cycle_is_reported_and_the_analysis_ends() -> None:
    """a -> b -> a: one edge is left out, the cycle is written out, everything else is answered."""
    trace = a_trace(
        [a_task("a", 0, 1, 1), a_task("b", 2, 3, 2), a_task("c", 4, 6, 3)], [("a", "b"), ("b", "a"), ("c", "b")]
    )
    profile = analyze(trace)
    assert ("a -> b -> a",) == profile.cycles
    assert ("a", "b", "c") == profile.critical_path.path
    assert 6 * S == profile.real_critical_path.makespan_ns
    assert any("cycles" in note for note in profile.notes)


def test_a_task_made_from_itself_is_a_cycle_of_one() -> None:
    profile = analyze(a_trace([a_task("a", 0, 1, 1)], [("a", "a")]))
    assert ("a -> a",) == profile.cycles
    assert [("run", "a", 0, 1)] == segments(profile)


def test_several_cycles_are_each_reported_once_and_none_is_left() -> None:
    edges = [("b", "a"), ("c", "b"), ("a", "c"), ("y", "x"), ("x", "y"), ("z", "y")]
    profile = analyze(a_trace([a_task(name, 0, 1, number) for number, name in enumerate("abcxyz", 1)], edges))
    assert ("a -> b -> c -> a", "x -> y -> x") == profile.cycles


def test_one_second_of_skew_makes_no_path_longer_than_the_run() -> None:
    """The child's clock is a second behind: it seems to start before its data. Times are moved, and that is said."""
    spans = [
        a_task("a", 0, 2, 1, provider="p"),
        a_span(2, "dump to storage", 1.5, 2, "a", kind="network", parent=1, provider="p"),
        a_task("b", 1.1, 3.1, 3, provider="q"),
    ]
    profile = analyze(a_trace(spans, [("b", "a")]))
    path = profile.real_critical_path
    assert path.makespan_ns == sum(path.by_kind.values())
    assert 4 * S <= path.makespan_ns <= 4.2 * S + 2 * profile.skew.bound_ns
    assert profile.skew.corrected
    assert (1, 900_000_000) == (profile.skew.violations, profile.skew.worst_ns)
    assert ["a", "b"] == [step.task for step in path.steps]
    assert any("clocks differ" in note for note in profile.notes)


def test_one_clock_that_contradicts_itself_is_said_and_moves_nothing() -> None:
    """On one provider no offset explains a child that starts before its data."""
    spans = [
        a_task("a", 0, 2, 1),
        a_span(2, "dump to storage", 1.5, 2, "a", kind="network", parent=1, provider="p"),
        a_task("b", 1.1, 3.1, 3),
    ]
    profile = analyze(a_trace(spans, [("b", "a")]))
    assert (False, False) == (profile.skew.corrected, profile.skew.consistent)
    assert 3.1 * S == profile.real_critical_path.makespan_ns
    assert any("no offsets of clocks" in note for note in profile.notes)


def test_a_tail_behind_the_ready_data_counts_once() -> None:
    """a's data is ready at 2, a itself ends at 5; b starts at 2: the path is 2 s of a and then b, not 5 s of a."""
    spans = [
        a_task("a", 0, 5, 1, provider="p"),
        a_span(2, "dump to storage", 1, 2, "a", kind="network", parent=1),
        a_task("b", 2, 6, 3, provider="q"),
    ]
    profile = analyze(a_trace(spans, [("b", "a")]))
    assert 6 * S == profile.real_critical_path.makespan_ns
    assert [("run", "a", 0, 1), ("upload", "a", 1, 2), ("run", "b", 2, 6)] == segments(profile)
    waits = profile.critical_path.active_wait_breakdown
    assert ((2.0, 4.0), (0.0, 0.0), 6.0) == (
        waits.active_seconds,
        waits.wait_seconds,
        profile.critical_path.critical_path_seconds,
    )


def test_every_attempt_counts_not_only_the_first() -> None:
    """Two failures and a success: each is on the path with its backoff, and in the task's own length."""
    spans = [
        a_task("a", 0, 1, 1, status="ERROR"),
        a_task("a", 3, 4, 2, status="ERROR"),
        a_task("a", 8, 10, 3),
    ]
    profile = analyze(a_trace(spans))
    assert [
        ("failed_run", "a", 0, 1),
        ("backoff", "a", 1, 3),
        ("failed_run", "a", 3, 4),
        ("backoff", "a", 4, 8),
        ("run", "a", 8, 10),
    ] == segments(profile)
    assert [1, 2, 3] == [entry.attempt for entry in profile.attempts]
    assert [Outcome.FAILED, Outcome.FAILED, Outcome.OK] == [entry.outcome for entry in profile.attempts]
    assert 10.0 == profile.per_data_id[0].duration_seconds
    usage = profile.usage
    assert (2 * S, 2 * S, 6 * S) == (usage.useful_ns, usage.failed_ns, usage.idle_why["backoff"])


def test_a_compute_span_without_a_batch_counts() -> None:
    spans = [a_task("a", 0, 4, 1), a_span(2, "model load", 0, 3, "a", kind="compute", parent=1)]
    assert (3.0,) == analyze(a_trace(spans)).e2e_breakdown.hardware_summary.total_seconds


def test_what_lies_within_counts_as_work_once() -> None:
    """A `run` of 10 s, in it what the program says: 4 s, of which 1 s is a span further in; then two threads at once,
    3 s each, one of which outlives the run by a second. 13 s of work: 10, the 2 in which both threads ran, 1 behind."""
    spans = [
        a_task("a", 0, 10, 1),
        a_span(2, "run", 0, 10, "a", kind="compute", parent=1),
        a_span(3, "step", 1, 5, "a", kind="compute", parent=2),
        a_span(4, "plain", 2, 5, "a", parent=3),
        a_span(5, "forward", 3, 4, "a", kind="compute", parent=4),
        a_span(6, "thread", 8, 11, "a", kind="compute", parent=2),
        a_span(7, "thread", 7, 10, "a", kind="compute", parent=2),
        a_span(8, "fetch", 0, 2, "a", kind="network", parent=2),
        a_span(9, "part", 0, 1, "a", kind="network", parent=8),
        a_span(10, "part", 0, 2, "a", kind="network", parent=8),
    ]
    profile = analyze(a_trace(spans))
    both, summary = profile.work_and_wall, profile.e2e_breakdown.hardware_summary
    assert (13.0, 11.0, 3.0, 2.0) == (
        both.compute_work_seconds,
        both.compute_wall_seconds,
        both.network_work_seconds,
        both.network_wall_seconds,
    )
    assert {"run": 10.0, "step": 4.0, "forward": 1.0, "thread": 6.0} == dict(
        zip(summary.event_type, summary.total_seconds, strict=True)
    )


def test_a_merged_batch_counts_once() -> None:
    """Two tasks were computed together: 3 s of work, not 6; the second is a member of the first's attempt."""
    spans = [
        a_task("a", 0, 4, 1, batch_id="a"),
        a_span(2, "generation", 0, 3, "a", kind="compute", parent=1, batch_id="a"),
        a_span(3, "queuing for execution", 0, 0, "b", kind="marker", parent=1, batch_id="a"),
        a_span(4, "dump to storage", 3, 3.5, "b", kind="network", parent=1, batch_id="a"),
        a_task("c", 3.5, 5, 5, provider="q"),
    ]
    profile = analyze(a_trace(spans, [("c", "b")]))
    assert (3.0,) == profile.e2e_breakdown.hardware_summary.total_seconds
    assert [("b",)] == [entry.merged for entry in profile.attempts if entry.merged]
    # The path's own breakdown has the batch's common work, though b is what is on it.
    assert ("b", "c") == profile.critical_path.path
    assert (3.0,) == profile.critical_path.hardware_summary.total_seconds
    assert [("run", "a", 0, 3), ("run", "b", 3, 3.5), ("run", "c", 3.5, 5)] == segments(profile)


def test_overlapping_compute_spans_are_six_seconds_of_work_in_three_of_wall() -> None:
    spans = [
        a_task("a", 0, 3, 1),
        a_span(2, "left", 0, 3, "a", kind="compute", parent=1),
        a_span(3, "right", 0, 3, "a", kind="compute", parent=1),
    ]
    told = analyze(a_trace(spans)).work_and_wall
    assert (6.0, 3.0) == (told.compute_work_seconds, told.compute_wall_seconds)


LINE = (
    '{{"name": "{name}", "context": {{"trace_id": "0x{trace:032x}", "span_id": "0x{span:016x}"}}, "parent_id": null, '
    '"start_time": "{start}", "end_time": "{end}", "status": {{"status_code": "OK"}}, '
    '"attributes": {{"data_id": "{task}", "flowmesh.type": "compute"}}}}\n'
)


def lines(*rows: tuple[str, int, str, str, str]) -> str:
    return "".join(
        LINE.format(trace=7, name=name, span=span, task=task, start=start, end=end)
        for name, span, task, start, end in rows
    )


def test_the_same_file_twice_changes_nothing(tmp_path: Path) -> None:
    """Totals are those of one, and how many rows were repeated is told."""
    text = lines(
        ("task", 1, "a", "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"),
        ("work", 2, "a", "2026-01-01T00:00:00Z", "2026-01-01T00:00:04Z"),
    )
    (tmp_path / "one.jsonl").write_text(text)
    (tmp_path / "two.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    once = analyze(read([tmp_path / "one.jsonl"]).trace)
    twice = analyze(read([tmp_path / "one.jsonl", tmp_path / "two.jsonl.gz"]).trace)
    assert once.e2e_breakdown == twice.e2e_breakdown
    assert once.real_critical_path == twice.real_critical_path
    assert (0, 2) == (once.counts.duplicates, twice.counts.duplicates)


def test_naive_and_aware_times_may_be_mixed() -> None:
    """A time that names no zone is UTC; one of another zone is converted."""
    text = lines(
        ("task", 1, "a", "2026-01-01T00:00:00", "2026-01-01T01:00:01+01:00"),
        ("task", 2, "b", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02.5"),
    )
    reading = read_bytes("spans", text.encode())
    assert (2, 0) == (reading.rows, reading.rejected)
    profile = analyze(reading.trace)
    assert 2_500_000_000 == profile.real_critical_path.makespan_ns
    assert ("2026-01-01T00:00:01Z", "2026-01-01T00:00:02.500000Z") == (
        profile.per_data_id[1].start_time,
        profile.per_data_id[1].end_time,
    )


def test_a_parent_that_failed_gave_no_data() -> None:
    """It blocks nobody: the child's wait is counted from the parent that has data."""
    spans = [
        a_task("good", 0, 1, 1, provider="p"),
        a_task("bad", 0, 3, 2, provider="q", status="ERROR"),
        a_task("child", 4, 5, 3, provider="r"),
    ]
    profile = analyze(a_trace(spans, [("child", "good"), ("child", "bad")]))
    child = next(entry for entry in profile.per_data_id if entry.data_id == "child")
    assert ("good", 3.0, ("bad", "good")) == (
        child.blocking_parent_data_id,
        child.queuing_delay_seconds,
        child.parent_data_ids,
    )
    assert ("good", "child") == profile.critical_path.path


def test_no_parent_with_data_blocks_nothing() -> None:
    spans = [a_task("bad", 0, 3, 2, provider="q", status="ERROR"), a_task("child", 4, 5, 3, provider="r")]
    child = analyze(a_trace(spans, [("child", "bad")])).per_data_id[1]
    assert (None, 0.0) == (child.blocking_parent_data_id, child.queuing_delay_seconds)


def test_touching_siblings_are_both_there() -> None:
    """One ends where the next begins: neither is dropped, and together they are the time at work."""
    spans = [
        a_task("a", 0, 4, 1),
        a_span(2, "one", 0, 2, "a", kind="compute", parent=1),
        a_span(3, "two", 2, 4, "a", kind="compute", parent=1),
    ]
    profile = analyze(a_trace(spans))
    assert {"one": 2 * S, "two": 2 * S} == {inner.name: inner.self_ns for inner in profile.path_inside}
    assert ("one", "two") == profile.e2e_breakdown.hardware_summary.event_type


def test_a_start_at_zero_is_a_start() -> None:
    profile = analyze(a_trace([a_task("a", 0, 1, 1), a_task("b", 1, 2, 2)]))
    assert (0, 2 * S) == (profile.real_critical_path.start_ns, profile.real_critical_path.end_ns)
    assert "1970-01-01T00:00:00Z" == profile.per_data_id[0].start_time


def test_orphans_are_counted_and_belong_to_their_task() -> None:
    """A span whose parent is not there is still of the attempt that ran then."""
    spans = [
        a_task("a", 0, 1, 1, status="ERROR"),
        a_task("a", 2, 4, 2),
        a_span(3, "work", 2.5, 3.5, "a", kind="compute", parent=99),
    ]
    profile = analyze(a_trace(spans))
    assert 1 == profile.counts.orphans
    assert {"work": S} == {inner.name: inner.self_ns for inner in profile.path_inside if inner.name == "work"}


def test_several_roots_are_several_tasks() -> None:
    profile = analyze(a_trace([a_task("a", 0, 1, 1, provider="p"), a_task("b", 0, 2, 2, provider="q")]))
    assert (2, ("a", "b")) == (profile.counts.roots, profile.data_ids)
    assert [("run", "b", 0, 2)] == segments(profile)


def test_spans_without_any_task_are_tasks_by_their_roots() -> None:
    """A trace of another system: each root is a task of its name, what lies in it is its own."""
    spans = [
        a_span(1, "request", 0, 3, None),
        a_span(2, "query", 1, 2, None, parent=1),
        a_span(3, "request", 4, 5, None),
    ]
    profile = analyze(a_trace(spans))
    assert ("request", "request#2") == profile.data_ids
    assert {"request": 3 * S, "query": S} == {inner.name: inner.self_ns for inner in profile.path_inside}
    assert 5 * S == profile.real_critical_path.makespan_ns


def test_a_late_asynchronous_child_does_not_prolong_the_run() -> None:
    """It ended after its task: that is counted and said; the path ends with the last task."""
    spans = [a_task("a", 0, 2, 1), a_span(2, "upload traces", 1.9, 9, "a", kind="network", parent=1)]
    profile = analyze(a_trace(spans))
    assert 2 * S == profile.real_critical_path.makespan_ns
    assert 1 == profile.counts.late_children
    assert any("ended after the span" in note for note in profile.notes)


def test_a_ring_of_parents_ends() -> None:
    """Spans that are their own ancestors are roots, and counted."""
    spans = [
        a_span(1, "x", 0, 1, "a", parent=2),
        a_span(2, "y", 0, 1, "a", parent=1),
        a_span(3, "z", 0, 1, "a", parent=3),
    ]
    profile = analyze(a_trace(spans))
    assert (3, 3) == (profile.counts.orphans, profile.counts.roots)


def test_a_running_job_is_answered_as_far_as_it_came() -> None:
    spans = [
        a_task("a", 0, 2, 1, provider="p"),
        a_span(2, "task", 2, None, "b", provider="p"),
        a_span(3, "step", 2, 6, "b", parent=2),
    ]
    profile = analyze(a_trace(spans, [("b", "a")]))
    path = profile.real_critical_path
    assert (False, 6 * S) == (path.finished, path.makespan_ns)
    assert (None, Outcome.UNFINISHED) == (profile.per_data_id[1].end_time, profile.attempts[1].outcome)
    assert (1, 4 * S) == (profile.counts.unfinished, profile.usage.unfinished_ns)


def test_an_attempt_that_never_ended_and_was_followed_was_lost() -> None:
    profile = analyze(a_trace([a_span(1, "task", 0, None, "a", provider="p"), a_task("a", 5, 7, 2, provider="q")]))
    assert [Outcome.LOST, Outcome.OK] == [entry.outcome for entry in profile.attempts]


def test_stacked_diamonds_are_one_path() -> None:
    """2^40 ways through: the answer has each task once."""
    spans, edges, top, at = [a_task("t000", 0, 1, 1)], [], "t000", 1
    for level in range(40):
        left, right, bottom = (f"t{3 * level + n:03d}" for n in (1, 2, 3))
        spans += [
            a_task(left, at, at + 1, 3 * level + 2, provider="p"),
            a_task(right, at, at + 2, 3 * level + 3, provider="q"),
            a_task(bottom, at + 2, at + 3, 3 * level + 4, provider="p"),
        ]
        edges += [(left, top), (right, top), (bottom, left), (bottom, right)]
        top, at = bottom, at + 3
    profile = analyze(a_trace(spans, edges))
    assert 81 == len(profile.critical_path.path) == len(profile.real_critical_path.steps)
    assert 121 * S == profile.real_critical_path.makespan_ns


@pytest.mark.parametrize("count", [0, 1])
def test_nearly_nothing_is_answered(count: int) -> None:
    """No spans, or one that has no length: no division by zero, no path."""
    profile = analyze(a_trace([a_task("a", 5, 5, 1)][:count]))
    assert (count, 0) == (profile.event_count, profile.real_critical_path.makespan_ns)
    assert () == profile.real_critical_path.segments


def test_attempts_that_claim_one_number_are_counted() -> None:
    """The first says it is number 2, the second says nothing: they are 1 and 2, not twice 2."""
    profile = analyze(a_trace([a_task("a", 0, 1, 1, attempt=2, status="ERROR"), a_task("a", 2, 3, 2)]))
    assert [1, 2] == [entry.attempt for entry in profile.attempts]
    assert {"task": 2 * S} == {inner.name: inner.self_ns for inner in profile.path_inside}


def test_files_that_do_not_say_what_was_made_from_what_are_told_so() -> None:
    """Causes are slots and times then; a note says which rows are missing. None where there is a single task."""
    spans = [a_task("a", 0, 1, 1), a_task("b", 2, 3, 2)]
    (note,) = analyze(a_trace(spans)).notes
    assert "slots and times alone" in note and "source_data_id" in note
    assert () == analyze(a_trace(spans, [("b", "a")])).notes
    assert () == analyze(a_trace(spans[:1])).notes


def test_spans_that_name_no_task_are_told_so() -> None:
    """As plain OpenTelemetry or Jaeger files have them: each outermost span stands for a task."""
    notes = analyze(a_trace([a_span(1, "GET /", 0, 1, None), a_span(2, "GET /", 2, 3, None)])).notes
    assert 2 == len(notes) and "attribute data_id" in notes[0] and "rows of lineage" in notes[1]
