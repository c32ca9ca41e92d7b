"""Questions about ended attempts reach whoever follows logs; the core hears every answer, or that there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator.core.commands import AttemptChanged, VerdictWanted
from coordinator.core.events import AnyEvent
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TenantName
from coordinator.core.rows import AttemptRow, AttemptState, EndCause, ExitInfo, RankRow
from coordinator.core.verdict.events import VerdictGiven
from coordinator.core.verdict.rows import Cause, Fault, Recommendation, Verdict
from coordinator.ports.attribution import Followable, FollowerFigures, Hearer, Judged
from coordinator.service import metrics as m
from coordinator.service.metric_values import Metrics
from coordinator.service.verdict_measures import verdicts_source
from coordinator.service.verdicts import LESSON_S, TELL_S, WANTED_MAX, Verdicts
from coordinator.service.views import LiveViews

ATTEMPT: AttemptId = (JobId(7), 0, 0, 1)
VERDICT = Verdict(
    cause=Cause.DATA_ERROR, fault=Fault.DATA, recommendation=Recommendation.STOP, confidence=1, summary=""
)


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.ms: Ms = 1_000_000

    def now_ms(self) -> Ms:
        return self.ms

    def now_ns(self) -> int:
        return self.ms * 1_000_000

    def boot_ns(self) -> int:
        return self.ms * 1_000_000

    def monotonic_s(self) -> float:
        return self.ms / 1_000

    def wall_ms(self) -> Ms:
        return self.ms


class Followers:
    """ports.attribution.Attribution: notes what it is told while there is a worker."""

    def __init__(self) -> None:
        self.there = True
        self.running: list[list[Followable]] = []
        self.asked: list[AttemptId] = []

    def hear(self, hearer: Hearer) -> None:
        self.hearer = hearer

    def follow(self, running: Sequence[Followable]) -> bool:
        if self.there:
            self.running.append(list(running))
        return self.there

    def judge(self, wanted: VerdictWanted) -> bool:
        if self.there:
            self.asked.append(wanted.attempt_id)
        return self.there


class Rig:
    def __init__(self, *, enabled: bool = True, active_max: int = 64) -> None:
        self.clock, self.views, self.followers = Clock(), LiveViews(), Followers()
        self.posted: list[AnyEvent] = []
        self.verdicts = Verdicts(
            self.followers, self.views, self.clock, self.posted.append, enabled=enabled, active_max=active_max
        )

    def want(self, attempt: AttemptId = ATTEMPT, state: AttemptState = AttemptState.FAILED, name: str = "j") -> None:
        end = ExitInfo(cause=EndCause.EXITED, code=0 if state is AttemptState.COMPLETED else 1)
        note = VerdictWanted(
            attempt_id=attempt,
            tenant=TenantName("t"),
            name=name,
            step="s",
            state=state,
            exits=(end,),
            providers=(ProviderId("p"),),
        )
        self.views.apply([note])

    def answer(self, verdict: Verdict | None = VERDICT, **more: Any) -> None:
        self.verdicts.judged(Judged(attempt_id=ATTEMPT, verdict=verdict, **more))

    def given(self) -> VerdictGiven:
        (event,) = self.posted
        assert isinstance(event, VerdictGiven)
        return event

    def run(self, number: int, ranks: int = 1) -> AttemptId:
        """An attempt that begins to run now."""
        attempt: AttemptId = (JobId(number), 0, 0, 1)
        row = AttemptRow(
            job_id=attempt[0],
            step=0,
            task=0,
            attempt=1,
            state=AttemptState.RUNNING,
            created_at_ms=self.clock.ms,
            started_at_ms=self.clock.ms,
            ranks=(RankRow(provider_id=ProviderId("p")),) * ranks,
        )
        self.views.apply([AttemptChanged(row=row, tenant=TenantName("t"))])
        return attempt


def test_an_answer_is_posted_to_the_core_with_what_is_said_of_it() -> None:
    rig = Rig()
    rig.want()
    assert rig.followers.asked == [ATTEMPT]
    rig.clock.ms += 120
    rig.answer(remark="read at its end")
    event = rig.given()
    assert (event.attempt_id, event.verdict, event.remark) == (ATTEMPT, VERDICT, "read at its end")
    assert rig.verdicts.waiting == 0
    metrics = Metrics()
    metrics.source(verdicts_source(rig.verdicts))
    metrics.collect()
    assert metrics.value(m.VERDICTS, "given") == 1
    assert metrics.value(m.VERDICT_SECONDS) == 1
    assert sum(rig.verdicts.counters.seconds[:5]) == 1
    assert round(rig.verdicts.counters.seconds_sum, 6) == 0.12


def test_no_answer_is_said_with_why() -> None:
    rig = Rig()
    rig.want()
    rig.answer(None, why_none="its log was removed")
    assert (rig.given().verdict, rig.given().why_none) == (None, "its log was removed")


def test_a_question_without_a_worker_waits_for_one() -> None:
    """Nobody decides for the core: it goes by exit codes when its own time is over."""
    rig = Rig()
    rig.followers.there = False
    rig.want()
    assert (rig.posted, rig.verdicts.waiting) == ([], 1)
    rig.followers.there = True
    rig.verdicts.began()
    assert rig.followers.asked == [ATTEMPT]


def test_a_question_that_a_worker_died_over_is_asked_once_more_and_no_oftener() -> None:
    """It may be what it dies of."""
    rig = Rig()
    rig.want()
    rig.verdicts.began()
    assert rig.followers.asked == [ATTEMPT, ATTEMPT]
    rig.verdicts.began()
    assert rig.followers.asked == [ATTEMPT, ATTEMPT]
    assert "died" in rig.given().why_none
    assert rig.verdicts.waiting == 0


def test_without_following_every_question_is_answered_with_none_at_once() -> None:
    rig = Rig(enabled=False)
    rig.want()
    assert (rig.given().verdict, rig.given().why_none, rig.followers.asked) == (None, "verdicts are off", [])


def test_what_is_awaited_is_bounded() -> None:
    """The next one has none, at once."""
    rig = Rig()
    for task in range(WANTED_MAX):
        rig.want((JobId(7), 0, task, 1))
    assert rig.posted == []
    rig.want((JobId(8), 0, 0, 1))
    assert rig.given().attempt_id == (JobId(8), 0, 0, 1)
    assert rig.verdicts.waiting == WANTED_MAX


def test_a_correction_is_posted_after_the_first_answer() -> None:
    rig = Rig()
    rig.want()
    rig.answer()
    rig.answer(correction=True, remark="corrected by a full pass")
    assert [event.remark for event in rig.posted if isinstance(event, VerdictGiven)] == ["", "corrected by a full pass"]
    assert rig.verdicts.counters.corrected == 1


def test_one_good_run_of_a_program_in_a_while_teaches() -> None:
    """Ten thousand short tasks that go well cost one reading in ten seconds; nothing is posted of them."""
    rig = Rig()
    for task in range(100):
        rig.want((JobId(7), 0, task, 1), AttemptState.COMPLETED)
    rig.want((JobId(8), 0, 0, 1), AttemptState.COMPLETED, name="other")
    assert rig.followers.asked == [(JobId(7), 0, 0, 1), (JobId(8), 0, 0, 1)]
    rig.clock.ms += int(LESSON_S * 1_000)
    rig.want((JobId(7), 0, 200, 1), AttemptState.COMPLETED)
    assert len(rig.followers.asked) == 3
    rig.answer()
    assert rig.posted == []


def test_the_oldest_that_run_are_followed_as_many_as_there_are_places() -> None:
    """Those that have just begun may be over in a moment, and are not told of yet."""
    rig = Rig(active_max=4)
    first = rig.run(1)
    wide = rig.run(2, ranks=3)
    rig.run(3, ranks=2)
    last = rig.run(4)
    rig.verdicts.began()
    assert rig.followers.running == []
    rig.clock.ms += int(TELL_S * 1_000)
    rig.verdicts.began()
    assert [[one.attempt_id for one in told] for told in rig.followers.running] == [[first, wide]]
    assert last not in [one.attempt_id for one in rig.followers.running[0]]
    assert rig.followers.running[0][1].ranks == 3


def test_figures_of_the_worker_are_shown() -> None:
    rig = Rig()
    rig.verdicts.figures(FollowerFigures(followed=3, fallbacks={"missing": 2}, checked=5, divergent=1))
    metrics = Metrics()
    metrics.source(verdicts_source(rig.verdicts))
    metrics.collect()
    assert metrics.value(m.LOGS_FOLLOWED) == 3
    assert metrics.value(m.FALLBACKS, "missing") == 2
    assert metrics.value(m.CHECKS, "different") == 1
    assert metrics.value(m.CHECKS, "same") == 4
