"""Runs that were simulated, so that it is known why each task began when it did: the path must say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analytics.traces.analysis import analyze
from analytics.traces.reading import read
from analytics.traces.whatif import what_if
from coordinator.api_types.trace import Profile
from tests.unit.analytics.traces.runs import SHAPES, generated

KNOBS: dict[str, tuple[object, ...]] = {
    "plain": (),
    "retries": ("--retry", 0.15),
    "merges": ("--merge", 0.4),
    "late children": ("--async-rate", 0.3),
    "retries, merges, late children": ("--retry", 0.1, "--merge", 0.3, "--async-rate", 0.2),
}
Step = tuple[str, str, str | None]


def told(profile: Profile) -> list[Step]:
    """The path as truth.json has it: a task once, with what its first attempt had waited for."""
    return [
        (step.task, step.cause, step.from_task) for step in profile.real_critical_path.steps if step.cause != "retry"
    ]


def true(truth: dict[str, Any]) -> list[Step]:
    words = {"dep": "dependency"}
    return [(step["task"], words.get(step["cause"], step["cause"]), step["from"]) for step in truth["true_path"]]


def tiles(profile: Profile) -> None:
    """No gap, no overlap, whole numbers, and the sum is the makespan."""
    path = profile.real_critical_path
    cursor = path.start_ns
    for segment in path.segments:
        assert (cursor, True) == (segment.start_ns, segment.end_ns > segment.start_ns)
        cursor = segment.end_ns
    assert path.end_ns == cursor
    assert path.makespan_ns == sum(path.by_kind.values()) == path.end_ns - path.start_ns


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("knobs", KNOBS)
def test_the_path_is_the_true_one(tmp_path: Path, shape: str, knobs: str) -> None:
    """Tasks, causes and who was waited for are those of the simulation, and the makespan to the microsecond."""
    truth = generated(tmp_path, "--tasks", 150, "--workers", 6, "--shape", shape, "--seed", 7, *KNOBS[knobs])
    epoch_ns = truth["epoch_ns"]
    profile = analyze(read([tmp_path]).trace, submitted_ns=epoch_ns)
    tiles(profile)
    assert true(truth) == told(profile)
    assert 0 <= truth["makespan_ns"] - profile.real_critical_path.makespan_ns < 1_000
    attempts = {step["task"]: step["attempts"] for step in truth["true_path"] if "attempts" in step}
    on_path = {entry.task: entry.attempt for entry in profile.attempts if entry.critical}
    assert attempts == {task: number for task, number in on_path.items() if task in attempts}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_missing_spans_a_doubtful_step_is_said_to_be_one(tmp_path: Path, shape: str, seed: int) -> None:
    """Where spans were lost the path is the true one; where it is not, the first step that differs rests on data whose
    time was lost, and the notes say so."""
    truth = generated(
        tmp_path, "--tasks", 150, "--workers", 6, "--shape", shape, "--seed", seed, "--missing", 0.1, "--merge", 0.2
    )
    trace = read([tmp_path]).trace
    profile = analyze(trace, submitted_ns=truth["epoch_ns"])
    tiles(profile)
    ours, theirs = told(profile)[::-1], true(truth)[::-1]
    if ours == theirs:
        return
    at = next(number for number, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1])
    dumped = {
        trace.data_ids[code]
        for code, name in zip(trace.spans.data.tolist(), trace.spans.name.tolist(), strict=True)
        if trace.names[name] == "dump to storage"
    }
    assert {ours[at][2], theirs[at][2]} - dumped
    assert any("not recorded when their data was ready" in note for note in profile.notes)


SKEWED = [(shape, seed) for shape in SHAPES for seed in (1, 2, 4) if (shape, seed) != ("layered", 2)]
"""(In the one that is left out the clocks contradict no cause: nobody can see from its spans that they differ.)"""


@pytest.mark.parametrize(("shape", "seed"), SKEWED)
def test_with_skew_the_answer_is_within_the_bound_that_it_states(tmp_path: Path, shape: str, seed: int) -> None:
    """Clocks that are off by up to 250 ms: it is said, corrected, and the makespan is off by no more than the bound of
    its two ends; the path differs from the true one only where two causes lie within that of one another."""
    truth = generated(tmp_path, "--tasks", 150, "--workers", 6, "--shape", shape, "--seed", seed, "--skew-ms", 250)
    profile = analyze(read([tmp_path]).trace)
    tiles(profile)
    skew = profile.skew
    assert skew.violations > 0
    assert skew.corrected and skew.consistent
    assert any("clocks differ" in note for note in profile.notes)
    first = truth["true_path"][0]["start_ns"]
    true_length = truth["makespan_ns"] - first
    assert abs(profile.real_critical_path.makespan_ns - true_length) <= 2 * skew.bound_ns + 20_000_000
    # Offsets are told up to one that all clocks have in common: differences lie within what is stated.
    real = truth["skew_ns"]
    for one in skew.offsets:
        for other in skew.offsets:
            ahead = real[one.provider] - real[other.provider]
            assert abs((one.offset_ns - other.offset_ns) - ahead) <= 2 * skew.bound_ns
    ours, theirs = told(profile)[::-1], true(truth)[::-1]
    if ours == theirs:
        return
    at = next(number for number, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1])
    ends = {entry.task: entry.end_ns for entry in profile.attempts}
    mine, real_one = ours[at][2], theirs[at][2]
    if mine is not None and real_one is not None and ours[at][0] == theirs[at][0]:
        assert abs(ends[mine] - ends[real_one]) <= 2 * skew.bound_ns + 1_000_000


def test_nobody_is_accused_of_skew_without_cause(tmp_path: Path) -> None:
    """A run with good clocks is left as it is, and nothing is said of clocks."""
    generated(tmp_path, "--tasks", 300, "--shape", "layered", "--workers", 8, "--retry", 0.1, "--merge", 0.2)
    profile = analyze(read([tmp_path]).trace)
    assert (False, 0, ()) == (profile.skew.corrected, profile.skew.bound_ns, profile.skew.offsets)
    assert profile.notes == ()


@pytest.mark.parametrize("shape", SHAPES)
def test_what_tasks_read_stands_for_lineage_that_is_not_there(tmp_path: Path, shape: str) -> None:
    """A file of spans alone, where reads name whose data they brought: the same path as with the lineage beside it."""
    truth = generated(tmp_path, "--tasks", 200, "--shape", shape, "--workers", 8, "--retry", 0.1)
    profile = analyze(read([tmp_path / "spans.jsonl"]).trace, submitted_ns=truth["epoch_ns"])
    assert told(profile) == true(truth)
    assert any("stands for it" in note for note in profile.notes)
    assert not any("stands for it" in note for note in analyze(read([tmp_path]).trace).notes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("knobs", [(), ("--skew-ms", 250), ("--retry", 0.15, "--merge", 0.4)])
def test_a_replay_of_the_unchanged_run_takes_as_long_as_the_run(
    tmp_path: Path, shape: str, knobs: tuple[object, ...]
) -> None:
    """What-if sees the times that the analysis sees, moved where clocks differ (of a chain by skewed clocks the replay
    once lost two fifths): the makespan is the same one, and the replay misses it by no more than a hundredth. Fewer
    slots are never quicker."""
    generated(tmp_path, "--tasks", 150, "--workers", 6, "--shape", shape, "--seed", 4, *knobs)
    trace = read([tmp_path]).trace
    profile, answer = analyze(trace), what_if(trace, slots=3)
    assert profile.real_critical_path.makespan_ns == answer.recorded_ns
    assert abs(answer.error_fraction) < 0.01
    assert answer.predicted_ns >= answer.unchanged_ns * 0.99
    assert what_if(trace, without=[profile.drag[0].task]).saved_ns > 0
