"""The path of a job of which the coordinator recorded the causes: each segment says what was waited for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from analytics.traces.analysis import analyze
from analytics.traces.building import TraceBuilder
from analytics.traces.record import AttemptRecord, RunRecord, StepRecord, TaskRecord
from analytics.traces.recorded_path import walked_record
from analytics.traces.whatif import what_if
from coordinator.api_types.trace import IDLE, Outcome
from tests.unit.analytics.traces.runs import S, a_span, a_trace


def an_attempt(task: str, number: int, granted: float, ended: float | None, cause: str, **more: Any) -> AttemptRecord:
    """Seconds. It is staged after a quarter of a second and runs after half of one."""
    times = {
        name: None if value is None else round(value * S)
        for name, value in (("staging_ns", granted + 0.25), ("started_ns", granted + 0.5), ("ended_ns", ended))
    }
    for name in ("staging_ns", "started_ns", "exited_ns", "doubted_ns", "ready_ns"):
        if name in more:
            value = more.pop(name)
            times[name] = None if value is None else round(value * S)
    return AttemptRecord(
        task=task,
        attempt=number,
        providers=more.pop("providers", ("p",)),
        outcome=more.pop("outcome", Outcome.OK),
        cause=cause,
        granted_ns=round(granted * S),
        **times,  # type: ignore[arg-type]
        **more,
    )


def a_run(
    ended: float | None, *attempts: AttemptRecord, needs: tuple[tuple[str, str], ...] = (), **more: Any
) -> RunRecord:
    """Submitted at 1 s. Steps are those of the attempts' tasks."""
    tasks = sorted({one.task for one in attempts})
    steps = sorted({task.rpartition(".")[0] for task in tasks})
    return RunRecord(
        job_id=12,
        name="nightly",
        submitted_ns=S,
        ended_ns=None if ended is None else round(ended * S),
        looked_at_ns=round((ended if ended is not None else 99) * S),
        outcome=Outcome.OK if ended is not None else Outcome.UNFINISHED,
        steps=tuple(
            StepRecord(step=step, name=f"step{step[-1]}", needs=tuple(need for one, need in needs if one == step))
            for step in steps
        ),
        tasks=tuple(TaskRecord(task=task, step=task.rpartition(".")[0]) for task in tasks),
        attempts=attempts,
        **more,
    )


def told(record: RunRecord) -> list[tuple[str, str, float, float]]:
    path, _ = walked_record(record)
    assert path.end_ns - path.start_ns == path.makespan_ns == sum(path.by_kind.values())
    return [
        (
            segment.kind.value,
            f"{segment.task}#{segment.attempt}" if segment.task else "",
            segment.start_ns / S,
            segment.end_ns / S,
        )
        for segment in path.segments
    ]


def test_from_submission_to_end_a_dependency_and_its_child() -> None:
    record = a_run(
        10.5,
        an_attempt("12.0.0", 1, 1.5, 4, "submit", exited_ns=3.5),
        an_attempt("12.1.0", 1, 4.25, 10, "step 12.0"),
        needs=(("12.1", "12.0"),),
    )
    assert [
        ("dispatch", "12.0.0#1", 1, 1.5),
        ("dispatch", "12.0.0#1", 1.5, 1.75),
        ("staging", "12.0.0#1", 1.75, 2),
        ("run", "12.0.0#1", 2, 3.5),
        ("upload", "12.0.0#1", 3.5, 4),
        ("dispatch", "12.1.0#1", 4, 4.25),
        ("dispatch", "12.1.0#1", 4.25, 4.5),
        ("staging", "12.1.0#1", 4.5, 4.75),
        ("run", "12.1.0#1", 4.75, 10),
        ("settle", "", 10, 10.5),
    ] == told(record)


def test_a_lost_provider_its_lease_the_backoff_and_the_slot_are_named() -> None:
    """An attempt ran until its provider fell silent; its lease had to run out; then a retry backed off, then waited
    for the slot of another task's attempt."""
    lost = an_attempt("12.0.0", 1, 1.5, 40, "submit", doubted_ns=20, outcome=Outcome.LOST, providers=("gone",))
    failed = an_attempt("12.0.0", 2, 40.5, 45, "lease 12.0.0.1", outcome=Outcome.FAILED)
    other = an_attempt("12.0.1", 1, 46, 60, "slot 12.0.0.2")
    last = an_attempt("12.0.0", 3, 60.5, 70, "slot 12.0.1.1", ready_ns=55)
    record = a_run(70, lost, failed, other, last)
    kinds = [(kind, task) for kind, task, _, _ in told(record)]
    assert [
        ("dispatch", "12.0.0#1"),
        ("dispatch", "12.0.0#1"),
        ("staging", "12.0.0#1"),
        ("lost_run", "12.0.0#1"),
        ("lost", "12.0.0#1"),
        ("dispatch", "12.0.0#2"),
        ("dispatch", "12.0.0#2"),
        ("staging", "12.0.0#2"),
        ("failed_run", "12.0.0#2"),
        ("dispatch", "12.0.1#1"),
        ("dispatch", "12.0.1#1"),
        ("staging", "12.0.1#1"),
        ("run", "12.0.1#1"),
        ("dispatch", "12.0.0#3"),
        ("dispatch", "12.0.0#3"),
        ("staging", "12.0.0#3"),
        ("run", "12.0.0#3"),
    ] == kinds
    path, _ = walked_record(record)
    assert [("submit", None), ("lease", "12.0.0"), ("slot", "12.0.0"), ("slot", "12.0.1")] == [
        (step.cause, step.from_task) for step in path.steps
    ]
    assert 20 * S == path.by_kind["lost"]
    assert not any(segment.inferred for segment in path.segments)


def test_a_backoff_lasts_until_the_task_asks_again() -> None:
    """What came behind it was waiting for a decision, not backing off."""
    record = a_run(
        20,
        an_attempt("12.0.0", 1, 1, 5, "submit", outcome=Outcome.FAILED),
        an_attempt("12.0.0", 2, 12, 20, "backoff", ready_ns=11),
    )
    assert [("backoff", "12.0.0#2", 5, 11), ("dispatch", "12.0.0#2", 11, 12)] == told(record)[3:5]


def test_what_nobody_in_the_job_held_is_a_wait_of_its_own_kind() -> None:
    """A limit, a provider that had to come, a verdict, another job's slot, and what was not recorded."""
    expected = {
        "limit max_running": "limit",
        "limit quota cpus,gpus": "limit",
        "limit": "limit",
        "provider worker-3": "provider",
        "verdict": "verdict",
        "slot 99.0.0.1": "queue",
        "": "unknown",
    }
    for cause, kind in expected.items():
        record = a_run(
            20, an_attempt("12.0.0", 1, 1, 5, "submit", outcome=Outcome.FAILED), an_attempt("12.0.0", 2, 12, 20, cause)
        )
        assert (kind, "12.0.0#2", 5, 12) == told(record)[3], cause
        path, _ = walked_record(record)
        assert {cause} == {segment.cause for segment in path.segments if segment.attempt == 2}


def test_a_limit_of_a_first_attempt_begins_where_its_step_was_free() -> None:
    record = a_run(
        20,
        an_attempt("12.0.0", 1, 1, 5, "submit"),
        an_attempt("12.1.0", 1, 12, 20, "limit"),
        needs=(("12.1", "12.0"),),
    )
    assert ("limit", "12.1.0#1", 5, 12) in told(record)


def test_one_given_ahead_waited_for_who_ran_before_it_there() -> None:
    """It had its lease long before: the path goes through the attempt that stood in front of it."""
    record = a_run(
        20,
        an_attempt("12.0.0", 1, 1, 10, "submit"),
        an_attempt("12.0.1", 1, 1, 20, "submit", started_ns=10.5, prefetched=True),
    )
    assert [("staging", "12.0.1#1", 10, 10.5), ("run", "12.0.1#1", 10.5, 20)] == told(record)[-2:]
    path, on_path = walked_record(record)
    assert {("12.0.0", 1), ("12.0.1", 1)} == on_path
    assert {"slot 12.0.0.1"} == {segment.cause for segment in path.segments if segment.task == "12.0.1"}


def test_of_tasks_that_ended_together_the_last_by_its_number_is_told() -> None:
    """All else being equal 12.0.10 comes behind 12.0.9, as it does where spans are all there is."""
    record = a_run(20, *(an_attempt(f"12.0.{number}", 1, 1, 20, "submit") for number in range(11)))
    record = structs.replace(record, tasks=tuple(sorted(record.tasks, key=lambda one: int(one.task.split(".")[2]))))
    assert {("12.0.10", 1)} == walked_record(record)[1]


def test_a_replacement_that_was_reserved_in_doubt_begins_with_the_end_of_the_lease() -> None:
    """It was leased while the first one might still run: that time is the first one's loss."""
    record = a_run(
        30,
        an_attempt("12.0.0", 1, 1, 20, "submit", doubted_ns=10, outcome=Outcome.LOST),
        an_attempt("12.0.0", 2, 12, 30, "lease 12.0.0.1", staging_ns=20.25, started_ns=20.5),
    )
    assert [
        ("lost", "12.0.0#1", 10, 20),
        ("dispatch", "12.0.0#2", 20, 20.25),
        ("staging", "12.0.0#2", 20.25, 20.5),
        ("run", "12.0.0#2", 20.5, 30),
    ] == told(record)[3:]


@pytest.mark.parametrize(("late_s", "told"), [(0.01, False), (0.5, True)])
def test_an_agent_that_hears_of_the_end_a_little_later_is_no_remark(late_s: float, told: bool) -> None:
    """Its span of the last upload outlives the task's by some ms in each job."""
    record = a_run(5, an_attempt("12.0.0", 1, 1, 5, "submit"))
    spans = [
        a_span(1, "task", 1, 5, "12.0.0"),
        a_span(2, "publish outputs", 4, 5 + late_s, "12.0.0", parent=1),
    ]
    profile = analyze(a_trace(spans), record=record)
    assert 1 == profile.counts.late_children
    assert told == any("ended after" in note for note in profile.notes)


def test_a_running_job_is_told_until_it_was_looked_at() -> None:
    record = a_run(None, an_attempt("12.0.0", 1, 1.5, None, "submit", outcome=Outcome.UNFINISHED))
    path, _ = walked_record(record)
    assert (False, 98 * S) == (path.finished, path.makespan_ns)
    assert ("run", "12.0.0#1", 2, 99) == told(record)[-1]


def test_a_job_without_attempts_is_one_unknown_wait() -> None:
    assert [("unknown", "", 1, 7)] == told(a_run(7))


def test_the_profile_takes_causes_names_and_slots_from_the_record() -> None:
    """Two ranks hold two slots; a slot that was never used is idle all the time."""
    record = a_run(
        11,
        an_attempt("12.0.0", 1, 1, 6, "submit", providers=("p", "q")),
        an_attempt("12.1.0", 1, 6, 11, "step 12.0"),
        needs=(("12.1", "12.0"),),
        slots=3,
    )
    profile = analyze(TraceBuilder().finish(), record=record)
    assert [("12.0.0", "submit", "step0", False), ("12.1.0", "step 12.0", "step1", False)] == [
        (entry.task, entry.cause, entry.name, entry.inferred) for entry in profile.attempts
    ]
    usage = profile.usage
    assert (3, "recorded", 30 * S, 10 * S) == (
        usage.slots,
        usage.slots_basis,
        usage.capacity_ns,
        usage.idle_why["never_used"],
    )
    assert usage.capacity_ns == usage.useful_ns + usage.staging_ns + usage.idle_ns
    assert [("12.0.0", 5 * S), ("12.1.0", 5 * S)] == sorted((one.task, one.drag_ns) for one in profile.drag)
    assert "12" == profile.workflow_id
    answer = what_if(a_trace([]), record, slots=1, without=["step1"])
    assert (10 * S, 0, 5 * S) == (answer.recorded_ns, answer.error_ns, answer.saved_ns)


CAUSES = st.sampled_from(
    [
        "submit",
        "step 12.0",
        "step 12.1",
        "slot 12.0.0.1",
        "slot 12.1.1.2",
        "lease 12.0.1.1",
        "backoff",
        "limit",
        "",
        "slot x",
    ]
)
when = st.one_of(st.none(), st.integers(0, 40))


@st.composite
def attempts(draw: st.DrawFn) -> AttemptRecord:
    return AttemptRecord(
        task=draw(st.sampled_from(["12.0.0", "12.0.1", "12.1.0", "12.1.1"])),
        attempt=draw(st.integers(1, 3)),
        providers=tuple(draw(st.lists(st.sampled_from(["p", "q"]), max_size=2))),
        outcome=draw(st.sampled_from(list(Outcome))),
        cause=draw(CAUSES),
        granted_ns=draw(st.integers(0, 40)) * S,
        staging_ns=None if (at := draw(when)) is None else at * S,
        started_ns=None if (at := draw(when)) is None else at * S,
        exited_ns=None if (at := draw(when)) is None else at * S,
        doubted_ns=None if (at := draw(when)) is None else at * S,
        ended_ns=None if (at := draw(when)) is None else at * S,
        ready_ns=None if (at := draw(when)) is None else at * S,
        prefetched=draw(st.booleans()),
    )


@given(
    st.lists(attempts(), max_size=8, unique_by=lambda one: (one.task, one.attempt)),
    st.one_of(st.none(), st.integers(1, 45)),
)
@settings(max_examples=150, deadline=None)
def test_whatever_was_recorded_the_path_tiles(several: list[AttemptRecord], ended: int | None) -> None:
    """Times in any order, causes that point at one another: segments follow one another and sum to the whole, and the
    analysis answers."""
    record = a_run(ended, *several, needs=(("12.1", "12.0"),))
    path, _ = walked_record(record)
    cursor = path.start_ns
    for segment in path.segments:
        assert cursor == segment.start_ns < segment.end_ns
        cursor = segment.end_ns
    assert cursor == path.end_ns == max(round((99 if ended is None else ended) * S), S)
    profile = analyze(TraceBuilder().finish(), record=record)
    assert path == profile.real_critical_path
    assert profile.usage.capacity_ns - profile.usage.idle_ns >= 0


def test_an_idle_slot_says_whether_it_waited_for_a_loss_or_a_backoff() -> None:
    """The slot that takes a retry over was idle while the lost machine still had the lease, then for the backoff."""
    lost = an_attempt("12.0.0", 1, 1, 10, "submit", providers=("q",), outcome=Outcome.LOST)
    failed = structs.replace(lost, outcome=Outcome.FAILED)
    short = an_attempt("12.0.1", 1, 1, 4, "submit")
    later = an_attempt("12.0.0", 2, 15, 20, "backoff")
    for first, ready_ns, expected in (
        (lost, None, {"lost": 6, "dispatch": 5}),
        (lost, 13 * S, {"lost": 6, "backoff": 3, "dispatch": 2}),
        (failed, 15 * S, {"no_ready_task": 6, "backoff": 5}),
    ):
        record = a_run(20, short, first, structs.replace(later, ready_ns=ready_ns))
        usage = analyze(TraceBuilder().finish(), record=record).usage
        why = {key: ns for key, ns in usage.idle_why.items() if ns and key not in ("before_first", "after_last")}
        assert {key: s * S for key, s in expected.items()} == why
        assert usage.idle_ns == sum(usage.idle_why.values())
        assert usage.idle_why.keys() == IDLE.keys()
