"""A launch's phases, who is late, and the earliest right answer, on a clock that the test moves."""

from __future__ import annotations

from coordinator.core.verdict.rows import Cause, Fault, Recommendation, Seen, Verdict
from coordinator.launches.monitor import HOLD_MS, Answer, Kind, Monitor, Until
from coordinator.launches.sightings import Ended, LogRead, Past, Phase, StateSeen, TryFailed, Unheard

NOW = 1_000_000


def reading(
    cause: Cause = Cause.ENV_DEPENDENCY,
    recommendation: Recommendation = Recommendation.STOP,
    *,
    steps: int = 0,
    root: str = "r1",
    confidence: float = 0.9,
) -> Verdict:
    return Verdict(
        cause=cause,
        fault=Fault.JOB,
        recommendation=recommendation,
        confidence=confidence,
        summary=f"{cause} in words",
        advice="mend it",
        progress=Seen(lines=10, steps=steps),
        root=root,
    )


FINE = Verdict(
    cause=Cause.OK, fault=Fault.NOBODY, recommendation=Recommendation.OK, confidence=1.0, summary="nothing wrong"
)


def at(phase: Phase, ms: int, **more: str) -> StateSeen:
    return StateSeen(phase=phase, at_ms=NOW + ms, **more)


def answered(monitor: Monitor) -> tuple[Answer, str] | None:
    """The answer and what knew it."""
    return (monitor.outcome.answer, monitor.outcome.path) if monitor.outcome is not None else None


def stands(monitor: Monitor) -> Phase | None:
    return monitor.phase


def test_running_is_success_and_queued_is_submitted() -> None:
    """PENDING or QUEUED answers `submitted`; RUNNING answers `running`; neither answers the next."""
    submitted, running = Monitor(Until.SUBMITTED, NOW, None), Monitor(Until.RUNNING, NOW, None)
    for monitor in (submitted, running):
        monitor.see(at(Phase.QUEUED, 5))
    assert answered(submitted) == (Answer.RUNS, "states")
    assert answered(running) is None
    running.see(at(Phase.RUNNING, 900, where="n1"))
    assert answered(running) == (Answer.RUNS, "states")


def test_a_line_of_progress_is_success_where_the_state_is_not_known_yet() -> None:
    """The slow path may be the first that knows."""
    monitor = Monitor(Until.RUNNING, NOW, None)
    monitor.see(at(Phase.QUEUED, 0))
    remarks = monitor.see(LogRead(at_ms=NOW + 800, verdict=reading(Cause.OK, Recommendation.OK, steps=1)))
    assert [(remark.kind, remark.phase) for remark in remarks] == [(Kind.PHASE, Phase.PROGRESS)]
    assert answered(monitor) == (Answer.RUNS, "log")


def test_a_fatal_line_is_said_once_it_has_stood_for_a_moment() -> None:
    """Not before: a program that goes on takes it back."""
    monitor = Monitor(Until.RUNNING, NOW, None)
    monitor.see(at(Phase.STARTING, 0))
    monitor.see(LogRead(at_ms=NOW + 100, verdict=reading()))
    assert monitor.due_ms == NOW + 100 + HOLD_MS
    assert not monitor.pass_time(NOW + 99 + HOLD_MS)
    (remark,) = monitor.pass_time(NOW + 100 + HOLD_MS)
    assert (remark.kind, remark.verdict, remark.hint) == (Kind.EARLY, reading(), "mend it")
    assert answered(monitor) == (Answer.FAILED, "log")


def test_a_fatal_line_that_is_taken_back_is_not_said() -> None:
    """It went on: whatever the line was, it was not fatal."""
    monitor = Monitor(Until.FINISHED, NOW, None)
    monitor.see(at(Phase.STARTING, 0))
    monitor.see(LogRead(at_ms=NOW + 100, verdict=reading()))
    monitor.see(LogRead(at_ms=NOW + 600, verdict=FINE))
    assert monitor.due_ms is None
    assert not monitor.pass_time(NOW + 5_000)


def test_what_passes_by_itself_is_not_fatal() -> None:
    """A stock-out, a line that another try may mend, a reading that is not sure: only the end will tell."""
    monitor = Monitor(Until.RUNNING, NOW, None)
    for number, verdict in enumerate(
        (
            reading(Cause.CAPACITY),
            reading(Cause.EXTERNAL_SERVICE, Recommendation.RESTART),
            reading(Cause.UNKNOWN, Recommendation.UNKNOWN),
            reading(confidence=0.3),
        )
    ):
        monitor.see(LogRead(at_ms=NOW + number, verdict=verdict))
        assert not monitor.pass_time(NOW + 60_000)
    assert answered(monitor) is None


def test_the_result_of_the_process_is_the_truth() -> None:
    """`finished` says the early verdict at once and goes on; a success afterwards is a success, and says who erred."""
    monitor = Monitor(Until.FINISHED, NOW, None)
    monitor.see(at(Phase.RUNNING, 0))
    monitor.see(LogRead(at_ms=NOW + 100, verdict=reading()))
    assert [remark.kind for remark in monitor.pass_time(NOW + 2_000)] == [Kind.EARLY]
    assert answered(monitor) is None
    (remark,) = monitor.see(Ended(at_ms=NOW + 9_000, ok=True, words="completed", exit_code=0))
    assert answered(monitor) == (Answer.COMPLETED, "states")
    assert "completed; what was said before was wrong" in remark.text


def test_a_failed_end_brings_its_lines_once() -> None:
    """The verdict stands at the end, unless it was shown early already."""
    early, late = Monitor(Until.FINISHED, NOW, None), Monitor(Until.FINISHED, NOW, None)
    for monitor in (early, late):
        monitor.see(LogRead(at_ms=NOW, verdict=reading()))
    early.pass_time(NOW + HOLD_MS)
    end = Ended(at_ms=NOW + HOLD_MS, ok=False, words="failed, exit 1", exit_code=1)
    assert [remark.verdict for remark in early.see(end)] == [None]
    assert [remark.verdict for remark in late.see(end)] == [reading()]
    assert late.outcome is not None and late.outcome.exit_code == 1


def test_a_state_that_is_hopeless_is_a_failure_at_once() -> None:
    """Nobody waits a quarter of an hour for what can never start."""
    monitor = Monitor(Until.RUNNING, NOW, 900_000)
    remarks = monitor.see(at(Phase.QUEUED, 10, hopeless="no node has it", hint="ask for less"))
    assert [(remark.kind, remark.hint) for remark in remarks] == [(Kind.PHASE, ""), (Kind.EARLY, "ask for less")]
    assert answered(monitor) == (Answer.FAILED, "states")


def test_what_it_waits_for_is_said_when_it_changes() -> None:
    """Once each, with what to do."""
    monitor = Monitor(Until.RUNNING, NOW, None)
    said = [
        [remark.text for remark in monitor.see(at(Phase.QUEUED, ms, waits=waits)) if remark.kind is Kind.WAITS]
        for ms, waits in ((0, "no room"), (5_000, "no room"), (9_000, "others are first"))
    ]
    assert said == [["waits: no room"], [], ["waits: others are first"]]


def test_late_by_the_history_of_this_job() -> None:
    """Twice what nine of ten needed, and ten seconds more; said once a phase; with fewer than three launches never."""
    past = Past(took_ms={Phase.QUEUED: [20_000] * 9 + [90_000], Phase.STARTING: [100, 100]})
    monitor = Monitor(Until.RUNNING, NOW, None, past)
    monitor.see(at(Phase.QUEUED, 0))
    assert monitor.due_ms == NOW + 180_000
    (remark,) = monitor.pass_time(NOW + 180_000)
    assert (remark.kind, remark.phase) == (Kind.LATE, Phase.QUEUED)
    assert "late: queued for 180 s; nine of ten earlier launches needed 90.0 s" in remark.text
    assert not monitor.pass_time(NOW + 400_000)
    monitor.see(at(Phase.STARTING, 410_000))
    assert monitor.due_ms is None


def test_time_is_up() -> None:
    """Where it stands, and why, is the answer; never with `finished`."""
    monitor = Monitor(Until.RUNNING, NOW, 900_000)
    monitor.see(at(Phase.QUEUED, 0, waits="no room for it yet"))
    assert not monitor.pass_time(NOW + 899_999)
    monitor.pass_time(NOW + 900_000)
    assert monitor.outcome is not None and monitor.outcome.answer is Answer.LATE
    assert monitor.outcome.why == "not running in time: it is queued, no room for it yet"
    assert Monitor(Until.FINISHED, NOW, 900_000).due_ms is None


def test_a_further_try_begins_anew() -> None:
    """What the last one's log said is no more; the launch is not over."""
    monitor = Monitor(Until.FINISHED, NOW, None)
    monitor.see(at(Phase.RUNNING, 0))
    monitor.see(LogRead(at_ms=NOW + 10, verdict=reading()))
    monitor.see(TryFailed(at_ms=NOW + 20, why="exit 3"))
    assert stands(monitor) is Phase.QUEUED and monitor.due_ms is None
    monitor.see(at(Phase.RUNNING, 5_000))
    assert stands(monitor) is Phase.RUNNING


def test_the_log_of_a_try_that_is_over_says_nothing_of_the_next() -> None:
    """It may still be read when the next one has its place."""
    monitor = Monitor(Until.FINISHED, NOW, None)
    monitor.see(LogRead(at_ms=NOW, verdict=reading(), run="12.0.0.1"))
    monitor.see(TryFailed(at_ms=NOW + 20, why="exit 3"))
    monitor.see(LogRead(at_ms=NOW + 30, verdict=reading(), run="12.0.0.1"))
    assert monitor.due_ms is None
    monitor.see(LogRead(at_ms=NOW + 40, verdict=reading(), run="12.0.0.2"))
    assert monitor.due_ms == NOW + 40 + HOLD_MS


def test_sightings_that_come_twice_count_once() -> None:
    """By their key: a stream that was opened anew tells nothing anew."""
    monitor = Monitor(Until.FINISHED, NOW, None)
    failed = TryFailed(at_ms=NOW, why="exit 3", key="event 7")
    assert [len(monitor.see(failed)) for _ in range(3)] == [1, 0, 0]


def test_a_system_that_does_not_answer_is_said_once_a_silence() -> None:
    """It is asked again; the launch is not judged by it."""
    monitor = Monitor(Until.RUNNING, NOW, None)
    silent = Unheard(at_ms=NOW, why="connection refused")
    assert [len(monitor.see(silent)) for _ in range(3)] == [1, 0, 0]
    monitor.see(at(Phase.QUEUED, 100))
    assert len(monitor.see(silent)) == 1
    assert answered(monitor) is None
