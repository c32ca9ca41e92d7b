"""Checkpoints: numbered over attempts, the last ones kept, damaged ones skipped; what they save counts."""

from __future__ import annotations

import math
from typing import Any

from coordinator.core import commands, events
from coordinator.core.data.answers import CheckpointTaken
from coordinator.core.data.rows import CheckpointRow
from coordinator.core.data.saving import segment_ms
from coordinator.core.errors import Code
from coordinator.core.ids import Ms, ProviderId, attempt_of
from coordinator.core.policy import Policy
from coordinator.core.rows import EndCause, ExitInfo
from coordinator.core.work.jobspec import CheckpointRule, JobSpec, OnLost
from tests.builders import START_MS, refusal, sent
from tests.depot import Depot, digest_of, outcome
from tests.site import a_job

HOUR_MS = 3_600_000


def a_saver(every_ms: Ms | None = 60_000, *, keep: int = 2, auto: bool = False, **more: Any) -> JobSpec:
    rule = CheckpointRule(every_ms=every_ms, keep=keep, auto=auto)
    told: dict[str, Any] = {"checkpoint": rule, "on_lost": OnLost(mode="retry")}
    return a_job(**(told | more))


def kept(depot: Depot) -> list[int]:
    return sorted(row.number for row in depot.all(CheckpointRow) if not row.damaged)


def test_the_last_ones_are_kept() -> None:
    """What falls out is held by nobody, and collected when its grace time is over; what others name stays."""
    depot = Depot("a")
    depot.submit(a_saver(keep=2))
    for number, text in enumerate(("v1", "v2", "v3"), start=1):
        depot.at(number * 10)
        assert depot.save("1.0.0.1", "same", text).row.number == number
    assert kept(depot) == [2, 3] and depot.task().checkpoints == (2, 3)
    assert set(depot.holds()) == {"checkpoint:1.0.0.2", "checkpoint:1.0.0.3"}
    depot.at(25 * 3_600)
    assert set(depot.sweep()) == {digest_of("v1"), digest_of("same+v1")}


def test_what_gave_way_goes_soon_unless_somebody_has_use_for_it() -> None:
    """A day of checkpoints would fill any disk. What the newer ones share stays; so does what was referred to since."""
    depot = Depot("a")
    depot.submit(a_saver(keep=1))
    depot.save("1.0.0.1", "same", "v1")
    gave_way = depot.known(map(digest_of, ("same", "v1", "same+v1")))
    depot.at(600)
    depot.save("1.0.0.1", "same", "v2", let_go=gave_way)
    depot.at(2_000)
    assert depot.sweep() == []
    (named,) = depot.known([digest_of("v1")])
    depot.touch(named)
    depot.at(600 + 3_700)
    assert depot.sweep() == [digest_of("same+v1")]
    depot.at(2_000 + 25 * 3_600)
    assert depot.sweep() == [digest_of("v1")]


def test_a_repetition_is_the_same_one() -> None:
    depot = Depot("a")
    depot.submit(a_saver())
    depot.save("1.0.0.1", "v1")
    again = depot.saved(depot.claim("1.0.0.1"), "v1")
    found = outcome(again)
    assert isinstance(found, CheckpointTaken) and found.row.number == 1 and found.next_ms == 60_000
    assert again.writes == []
    depot.restart(10)
    depot.back("a")
    found = outcome(depot.saved(depot.claim("1.0.0.1"), "v1"))
    assert isinstance(found, CheckpointTaken) and found.row.number == 1


def test_a_checkpoint_names_only_what_is_stored() -> None:
    depot = Depot("a")
    depot.submit(a_saver())
    claim = depot.claim("1.0.0.1")
    assert refusal(depot.saved(claim, "v1")).code is Code.INCOMPLETE
    assert kept(depot) == [] and depot.task().checkpoint == 0
    depot.submit(a_job())
    assert refusal(depot.saved(depot.claim("2.0.0.1"), "v1")).code is Code.BAD_REQUEST


def test_the_next_attempt_is_told_to_restore() -> None:
    """Numbers go on, and what was restored is told once."""
    depot = Depot("a", "b")
    depot.submit(a_saver())
    depot.save("1.0.0.1", "v1")
    first = depot.attempt("1.0.0.1").ranks[0].provider_id
    depot.falls_silent(first)
    depot.run_to(60)
    launches = [m for d in depot.decisions for _, m in sent(d, commands.Launch)]
    assert [(m.restore, m.checkpoint_every_ms) for m in launches] == [(False, 60_000), (True, 60_000)]
    for _ in range(2):
        outcome(depot.restore("1.0.0.2", 1))
    assert depot.attempt("1.0.0.2").restored == 1
    assert [row.after for row in depot.audits("checkpoint", "1.0.0.1")] == ["published", "restored"]
    assert depot.save("1.0.0.2", "v2").row.number == 2
    assert refusal(depot.restore("1.0.0.2", 9)).code is Code.NOT_FOUND


def test_a_damaged_one_is_left_out() -> None:
    depot = Depot("a")
    depot.submit(a_saver())
    depot.save("1.0.0.1", "v1")
    depot.save("1.0.0.1", "v2")
    for _ in range(2):
        outcome(depot.damage("1.0.0.1", 2))
    assert depot.task().checkpoints == (1,) and kept(depot) == [1]
    assert [row.damaged for row in depot.all(CheckpointRow) if row.number == 2] == ["a digest is off"]
    assert depot.save("1.0.0.1", "v2").row.number == 3
    outcome(depot.damage("1.0.0.1", 1))
    outcome(depot.damage("1.0.0.1", 3))
    assert depot.task().checkpoints == () and depot.task().saved_ms is None


def test_all_of_them_go_when_the_task_completes_and_stay_when_it_fails() -> None:
    depot = Depot("a")
    depot.submit(a_saver(tasks=2))
    depot.save("1.0.0.1", "v1")
    depot.exits("1.0.0.1")
    assert depot.all(CheckpointRow) == [] and depot.holds() == {} and depot.task().checkpoints == ()
    depot.save("1.0.1.1", "w1")
    depot.cancel(1)
    assert depot.task(task=1).state.value == "cancelled" and depot.task(task=1).checkpoints == (1,)
    depot.retry(1)
    assert [m.restore for d in depot.decisions for _, m in sent(d, commands.Launch)] == [False, False, True]
    assert depot.states(task=1) == ["cancelled", "running"] and depot.task(task=1).checkpoints == (1,)


def test_what_is_saved_is_not_lost() -> None:
    """The work that a loss costs is counted from the last checkpoint."""
    depot = Depot("a", "b")
    depot.submit(a_saver())
    depot.run_to(100)
    depot.save("1.0.0.1", "v1", age_ms=10_000)
    assert depot.task().saved_ms == START_MS + 90_000
    depot.run_to(130)
    depot.falls_silent(depot.attempt("1.0.0.1").ranks[0].provider_id)
    depot.run_to(200)
    assert depot.attempt("1.0.0.1").lost_ms == 45_000, "from 90 s to one interval after its last heartbeat at 130 s"
    depot.exits("1.0.0.2", 3, ran_ms=5_000)
    assert depot.attempt("1.0.0.2").lost_ms == 5_000


def test_what_broke_off_is_lost_up_to_that_moment() -> None:
    """Whether its lease runs out or its agent comes back without it."""
    for back in (False, True):
        depot = Depot("a")
        depot.submit(a_saver())
        depot.run_to(100)
        depot.save("1.0.0.1", "v1")
        depot.at(102)
        depot.breaks("a")
        if back:
            depot.at(104)
            depot.back("a", empty=True, process="p2")
        depot.run_to(180)
        assert depot.attempt("1.0.0.1").lost_ms == 2_000


def test_whoever_was_killed_and_came_back_within_its_lease_lost_what_it_did_until_then() -> None:
    """Its last state is sent after the return, which is no life of its program: that ended when it was heard of last,
    and a state of before counts as old as it is."""
    for more in (True, False):
        depot = Depot("a")
        depot.submit(a_saver())
        depot.run_to(100)
        depot.save("1.0.0.1", "v1")
        depot.at(103)
        depot.breaks("a")
        depot.at(106)
        held = depot.agents["a"].held[attempt_of("1.0.0.1"), 0]
        held.phase = "uploading"
        depot.back("a", process="p2")
        depot.run_to(120)
        if more:
            depot.save("1.0.0.1", "v2", age_ms=18_000)
        depot.exits("1.0.0.1", cause=EndCause.AGENT, ran_ms=0)
        assert depot.attempt("1.0.0.1").lost_ms == (1_000 if more else 3_000)


def test_who_outlived_its_agent_lost_what_it_did_until_the_next_one_killed_it() -> None:
    """Its last state is of after the break of its connection: what counts is how long it ran, as its agent found. It
    is told within a hello, or when that state is sent."""
    for sends in (True, False):
        depot = Depot("a")
        depot.submit(a_saver())
        began_s = depot.now_s
        depot.run_to(100)
        depot.save("1.0.0.1", "v1")
        depot.at(103)
        depot.breaks("a")
        depot.at(106)
        held = depot.agents["a"].held[attempt_of("1.0.0.1"), 0]
        lived_ms = int((105 - began_s) * 1_000)
        end = ExitInfo(cause=EndCause.AGENT, lived_ms=lived_ms)
        if sends:
            held.phase = "uploading"
            depot.back("a", process="p2")
            depot.save("1.0.0.1", "v2", age_ms=1_500)
            depot.run_to(120)
            depot.exits("1.0.0.1", cause=EndCause.AGENT, ran_ms=0, lived_ms=lived_ms)
        else:
            held.phase, held.exit = "exited", end
            depot.back("a", process="p2")
        assert depot.attempt("1.0.0.1").lost_ms == (500 if sends else 5_000)


def test_a_term_grows_with_what_is_unsaved() -> None:
    """`auto`: a checkpoint lets it shrink again."""
    depot = Depot("a")
    depot.submit(a_saver(on_lost=OnLost(mode="auto")))
    depot.run_to(700)
    assert depot.agents["a"].terms[depot.attempt("1.0.0.1").attempt_id] == 60_000
    depot.save("1.0.0.1", "v1")
    depot.run_to(720)
    assert depot.agents["a"].terms[depot.attempt("1.0.0.1").attempt_id] == 30_000


def test_what_was_saved_this_moment_is_not_waited_for() -> None:
    """`auto`: nothing is at stake, so another provider is looked for at once."""
    depot = Depot("a", "b")
    depot.submit(a_saver(on_lost=OnLost(mode="auto"), expected_ms=600_000))
    depot.submit(a_saver(on_lost=OnLost(mode="auto"), expected_ms=600_000))
    depot.run_to(500)
    saver = depot.attempt("1.0.0.1").ranks[0].provider_id
    depot.save("1.0.0.1", "v1")
    depot.falls_silent(saver)
    depot.run_to(515)
    task = depot.state.work.task((depot.job(1).job_id, 0, 0))
    assert task is not None and (task.wanted or len(task.attempts) == 2)


def test_a_drain_asks_for_a_checkpoint() -> None:
    depot = Depot("a")
    depot.submit(a_saver())
    depot.submit(a_job())
    drain = events.ProviderDrain(at_ms=depot.now_ms, request_id=depot.request(), provider_id=ProviderId("a"))
    (saves,) = [m for _, m in sent(depot.decide(drain), commands.SaveState)]
    assert saves.attempt_id == depot.attempt("1.0.0.1").attempt_id and "drained" in saves.why


def test_auto_is_youngs_interval_within_bounds() -> None:
    """sqrt(2 x cost x MTBF), by the measured cost and the provider's hazard."""
    depot = Depot("a")
    depot.submit(a_saver(None, auto=True))
    launch = next(m for d in depot.decisions for _, m in sent(d, commands.Launch))
    # without any history as likely as not to stay for an hour: MTBF = 3600 s / ln 2 = 5194 s; a first cost of 15 s
    assert launch.checkpoint_every_ms is not None and abs(launch.checkpoint_every_ms - 394_730) < 10
    for cost_ms, expected_ms in ((1, 10_000), (20, 14_415), (20_000, 455_840), (900_000, 9_000_000)):
        depot = Depot("a")
        depot.submit(a_saver(None, auto=True))
        taken = depot.save("1.0.0.1", "v1", cost_ms=cost_ms)
        assert taken.next_ms is not None and abs(taken.next_ms - expected_ms) < 100, cost_ms


def test_auto_divides_what_is_left_of_a_run_that_is_known() -> None:
    """Not by the interval alone: a checkpoint shortly before the end saves nothing, and a run that is short beside the
    losses takes none. By the job's word or its program's; past that the interval counts again."""
    hazard, minute_ms = math.log(2) / HOUR_MS, 60_000
    for rest_ms in (minute_ms, 10 * minute_ms, HOUR_MS, 3 * HOUR_MS, 24 * HOUR_MS):
        for cost_ms in (100, 5_000, 30_000, 300_000):
            each = segment_ms(rest_ms, cost_ms, hazard, Policy())
            taken = 1 if each > rest_ms else round(rest_ms / each)
            least = {
                n: mean_ms(rest_ms, n, cost_ms, hazard) for n in range(1, 3 + rest_ms // max(10_000, 10 * cost_ms))
            }
            allowed = {n: ms for n, ms in least.items() if n == 1 or rest_ms / n >= max(10_000, 10 * cost_ms)}
            allowed = {n: ms for n, ms in allowed.items() if rest_ms / n <= 4 * HOUR_MS}
            assert least[taken] <= min(allowed.values()) * 1.0001, (rest_ms, cost_ms, taken)
    assert segment_ms(HOUR_MS, 30_000, 0.0, Policy()) > HOUR_MS
    assert segment_ms(24 * HOUR_MS, 30_000, 0.0, Policy()) == 4 * HOUR_MS, "no less often than that"
    assert segment_ms(HOUR_MS, 30_000, hazard / 100, Policy()) > HOUR_MS, "few leave"


def test_auto_knows_what_is_left_by_the_job_or_its_program() -> None:
    """An hour is expected, and likely to be lost: it is divided evenly; what was said later counts; past the end the
    interval does."""
    depot = Depot("a")
    depot.submit(a_saver(None, auto=True, expected_ms=HOUR_MS))
    launch = next(m for d in depot.decisions for _, m in sent(d, commands.Launch))
    hazard = math.log(2) / HOUR_MS
    assert launch.checkpoint_every_ms == segment_ms(HOUR_MS, 15_000, hazard, depot.policy)
    depot.run_to(1_800)
    taken = depot.save("1.0.0.1", "v1", cost_ms=20_000)
    assert (
        taken.next_ms is not None and abs(taken.next_ms - segment_ms(HOUR_MS // 2, 20_000, hazard, depot.policy)) < 500
    )
    depot.run_to(3_700)
    taken = depot.save("1.0.0.1", "v2", cost_ms=20_000)
    assert taken.next_ms is not None and abs(taken.next_ms - 455_840) < 100


def mean_ms(rest_ms: Ms, segments: int, cost_ms: Ms, hazard: float) -> float:
    """How long such a run takes on average, each segment begun anew after a loss."""
    each = rest_ms / segments
    return ((segments - 1) * math.expm1(hazard * (each + cost_ms)) + math.expm1(hazard * each)) / hazard


def test_a_replacement_that_is_reserved_warms_its_cache() -> None:
    """It may ask what to fetch, and nothing else, under no token."""
    depot = Depot("a", "b")
    depot.submit(a_saver())
    depot.save("1.0.0.1", "v1")
    depot.falls_silent(depot.attempt("1.0.0.1").ranks[0].provider_id)
    depot.run_to(15)
    assert depot.states() == ["in_doubt", "reserved"]
    warmed = [m for d in depot.decisions for _, m in sent(d, commands.Warm)]
    assert [m.attempt_id for m in warmed] == [depot.attempt("1.0.0.2").attempt_id]
    claim = depot.claim("1.0.0.2")
    assert depot.admitted(claim).task.checkpoints == (1,)
    assert refusal(depot.open("z", claim=claim)).code is Code.STALE_TOKEN
    assert refusal(depot.saved(claim, "v1")).code is Code.STALE_TOKEN


def test_one_that_waited_for_the_network_is_not_taken_for_expensive() -> None:
    """`auto` would hardly save any more after an outage of an hour; real growth counts within a few checkpoints."""
    depot = Depot("a")
    depot.submit(a_saver(None, auto=True))
    depot.save("1.0.0.1", "v0", cost_ms=2_000)
    usual_ms = depot.save("1.0.0.1", "v1", cost_ms=2_000).next_ms
    held_up_ms = depot.save("1.0.0.1", "v2", cost_ms=3_600_000).next_ms
    assert usual_ms is not None and held_up_ms is not None and held_up_ms < 1.5 * usual_ms
    for number in range(20):
        depot.save("1.0.0.1", f"w{number}", cost_ms=60_000)
    cost_ms = depot.task().checkpoint_cost_ms
    assert cost_ms is not None and cost_ms > 55_000
