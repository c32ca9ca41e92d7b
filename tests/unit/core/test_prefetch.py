"""Leases ahead: short tasks stand in line behind short ones, hold nothing until their turn, and cost nobody a loss."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.decide import decide
from coordinator.core.ids import AttemptId, ProviderId, attempt_of, dotted
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.queue import placement
from coordinator.core.rows import EndCause, ExitInfo, Promises
from coordinator.core.work.jobspec import OnLost
from coordinator.core.work.live import Load
from tests.site import OFFER, TENANT, Site, a_job
from tests.unit.core.test_decide import plain

AHEAD = Promises(work=True, prefetch=8)
SHORT: dict[str, Any] = {"expected_ms": 100}


def a_site(*names: str, promises: Promises = AHEAD, **policy: Any) -> Site:
    """Two CPUs each."""
    return Site(*(names or ("a",)), promises=promises, policy=Policy(**policy))


def load(site: Site, name: str = "a") -> Load:
    return site.state.work.loads[ProviderId(name)]


def in_line(site: Site, name: str = "a") -> list[str]:
    return [dotted(attempt_id) for attempt_id, _ in load(site, name).behind]


def run_all(site: Site, job: int = 1) -> None:
    """Until the job has ended: whatever runs exits, oldest first."""
    while f"{site.job(job).state}" not in ("completed", "failed", "cancelled"):
        running = [attempt for name in site.agents for attempt in site.running(name)]
        assert running, f"nothing runs: {site.job(job).reason}"
        site.exits(min(running, key=attempt_of), ran_ms=100)
        site.state.check_invariants()


def test_short_tasks_are_lined_up_behind_short_ones() -> None:
    """As many as the agent takes, in the order of their tokens; each holds its share as one before it ends."""
    site = a_site()
    site.submit(a_job(tasks=30, **SHORT))
    assert ["1.0.0.1", "1.0.1.1"] == site.running("a")
    assert [f"1.0.{task}.1" for task in range(2, 10)] == in_line(site)
    assert 2 * UNIT == load(site).cpus
    site.exits("1.0.0.1")
    assert ["1.0.1.1", "1.0.2.1"] == site.running("a")
    assert 2 * UNIT == load(site).cpus
    assert "1.0.2.1" not in in_line(site) and "1.0.10.1" in in_line(site)
    run_all(site)
    assert site.job().completed == 30


def test_whoever_waits_is_told_once_of_each_provider_what_keeps_it() -> None:
    """One that is busy, has more lined up and is drained is one provider: the gravest is named."""
    site = a_site()
    site.submit(a_job(tasks=30, **SHORT))
    waiting = a_job(name="later", tasks=1, **SHORT)
    site.submit(waiting)
    assert "1 of 1 providers could run it, 0 now: 1 busy, with more lined up" == site.explain(2).steps[0].text
    site.decide(events.ProviderDrain(at_ms=site.now_ms, request_id=site.request(), provider_id=ProviderId("a")))
    assert site.explain(2).steps[0].text.endswith("0 now: 1 drained")


def test_what_is_lined_up_is_bounded_by_the_work_that_it_is() -> None:
    """Half a second of work for each place that comes free: tasks of 200 ms, two for each CPU."""
    site = a_site(promises=Promises(work=True, prefetch=512))
    site.submit(a_job(tasks=100, expected_ms=200))
    assert len(in_line(site)) == 4


def test_long_tasks_wait_in_the_queue() -> None:
    """Neither are they given ahead, nor is anything given ahead behind them."""
    site = a_site()
    site.submit(a_job(tasks=2, expected_ms=60_000))
    site.submit(a_job(tasks=9, **SHORT))
    assert not in_line(site)
    site.exits("1.0.0.1")
    assert ["1.0.1.1", "2.0.0.1"] == site.running("a")
    assert len(in_line(site)) == 5  # behind the short one alone


def test_a_step_shows_itself_to_be_short() -> None:
    """It said nothing: the median of the runs that completed tells."""
    site = a_site()
    site.submit(a_job(tasks=50))
    for attempt in ("1.0.0.1", "1.0.1.1", "1.0.2.1"):
        assert not in_line(site)
        site.exits(attempt, ran_ms=3)
    assert len(in_line(site)) == 8
    run_all(site)


def test_an_agent_that_takes_none_ahead_is_given_none() -> None:
    """One version older, or one that promises none; likewise ranks of several, and whoever asks for GPUs."""
    site = a_site(promises=Promises(work=True))
    site.submit(a_job(tasks=9, **SHORT))
    assert not in_line(site)
    pair = a_site("a", "b")
    pair.submit(a_job(tasks=9, nodes=2, **SHORT))
    assert not in_line(pair) and not in_line(pair, "b")


def test_nothing_else_is_placed_where_some_stand_in_line() -> None:
    """The room that comes free there is theirs, also where another task would fit into less."""
    site = a_site()
    site.submit(a_job(tasks=2, asks=(Ask(cpus=UNIT * 3 // 4),), **SHORT))
    site.submit(a_job(tasks=2, asks=(Ask(cpus=UNIT),), **SHORT))
    site.submit(a_job(tasks=1, asks=(Ask(cpus=UNIT // 4),), expected_ms=3_600_000))
    assert ["2.0.0.1", "2.0.1.1"] == in_line(site)
    assert ["1.0.0.1", "1.0.1.1"] == site.running("a")
    site.exits("1.0.0.1")
    assert "2.0.0.1" in site.running("a") and "3.0.0.1" not in site.running("a")
    site.exits("1.0.1.1")
    site.exits("2.0.0.1")
    site.exits("2.0.1.1")
    assert ["3.0.0.1"] == site.running("a")


def test_who_stands_ahead_in_the_queue_is_not_kept_out_by_those_in_line() -> None:
    """A job that needs the whole provider gets it when those that stand in line have run: none is lined up any more."""
    site = a_site()
    site.submit(a_job(tasks=200, **SHORT))
    site.submit(replace(a_job(asks=(Ask(cpus=2 * UNIT),), expected_ms=60_000), priority=5))
    for _ in range(20):
        if "2.0.0.1" in site.running("a"):
            break
        site.exits(min(site.running("a"), key=attempt_of), ran_ms=100)
    assert ["2.0.0.1"] == site.running("a")


def test_one_that_waits_too_long_is_called_back_uncharged() -> None:
    """Those before it last longer than expected: it goes back into the queue, and to whoever has room."""
    site = a_site("a", "b")
    site.falls_silent("b")
    site.run_to(11)
    site.submit(a_job(tasks=4, **SHORT))
    assert ["1.0.2.1", "1.0.3.1"] == in_line(site)
    site.back("b")
    site.run_to(20)
    assert ["1.0.2.2", "1.0.3.2"] == site.running("b")
    assert ["taken_back", "running"] == site.states(task=2)
    assert (0, 0) == (site.task(task=2).losses, site.task(task=2).failures)


def test_one_that_began_as_it_was_called_back_goes_on() -> None:
    """The order crosses its start: it is ended only if it has not begun."""
    site = a_site()
    site.submit(a_job(tasks=3, **SHORT))
    agent = site.agents["a"]
    agent.held[attempt_of("1.0.0.1"), 0].phase = "exited"  # not said yet
    started = agent.turn(site.now_ms)
    assert started is not None
    site.run_to(6)
    assert ["staging"] == site.states(task=2)
    site.decide(started)
    assert ["running"] == site.states(task=2)


def test_a_drain_calls_back_what_was_given_ahead() -> None:
    """What runs goes on; what stands in line is not begun there."""
    site = a_site()
    site.submit(a_job(tasks=9, **SHORT))
    site.decide(events.ProviderDrain(at_ms=site.now_ms, request_id=site.request(), provider_id=ProviderId("a")))
    assert not in_line(site)
    assert ["1.0.0.1", "1.0.1.1"] == site.running("a")
    assert site.step().cursor == 9 and site.task(task=5).state == "pending"


def test_a_loss_charges_nobody_that_had_not_begun() -> None:
    """Lost with its provider while it stood in line: `retry.losses` is not touched; of those that ran it is."""
    site = a_site("a", "b")
    site.falls_silent("b")
    site.run_to(11)
    site.submit(a_job(tasks=4, on_lost=OnLost(mode="retry"), **SHORT))
    site.run_to(12)
    site.breaks("a")
    site.back("b")
    site.run_to(80)
    site.state.check_invariants()
    assert [1, 1, 0, 0] == [site.task(task=task).losses for task in range(4)]
    assert ["lost", "taken_back"] == site.states(task=2)  # called back from behind those that are slow, and only once
    run_all(site)
    assert site.job().completed == 4


def test_cancelled_ones_leave_the_line() -> None:
    """All of them, and those that run: nothing is left there."""
    site = a_site()
    site.submit(a_job(tasks=20, **SHORT))
    site.cancel(1)
    assert "cancelled" == site.job().state
    assert ProviderId("a") not in site.state.work.loads
    assert site.state.work.behind == {}


def test_one_that_runs_before_the_end_of_another_is_heard_of_holds_nothing_twice() -> None:
    """The report of an end was lost: whoever took its room is in line until it is said again."""
    site = a_site()
    site.submit(a_job(tasks=3, **SHORT))
    agent = site.agents["a"]
    first = agent.held[attempt_of("1.0.0.1"), 0]
    first.phase = "exited"
    started = agent.turn(site.now_ms)
    assert started is not None
    site.decide(started)
    site.state.check_invariants()
    assert ["1.0.2.1"] == in_line(site) and 2 * UNIT == load(site).cpus
    first.phase = "running"
    site.exits("1.0.0.1")
    site.state.check_invariants()
    assert [] == in_line(site) and 2 * UNIT == load(site).cpus


def test_max_running_counts_those_in_line() -> None:
    """They may begin at any time, without a word."""
    site = a_site()
    site.submit(a_job(tasks=20, max_running=4, **SHORT))
    assert (2, 2) == (len(site.running("a")), len(in_line(site)))


def test_an_agent_that_comes_back_goes_on_with_its_line() -> None:
    """The ends of its hello count before what runs in their room; what it does not name was never there."""
    site = a_site()
    site.submit(a_job(tasks=9, **SHORT))
    site.breaks("a")
    site.exits("1.0.0.1")
    site.back("a")
    site.state.check_invariants()
    assert ["1.0.1.1", "1.0.2.1"] == site.running("a")
    assert 2 * UNIT == load(site).cpus
    site.breaks("a")
    site.back("a", empty=True, process="p2")
    site.state.check_invariants()
    run_all(site)
    assert site.job().completed == 9


def ended(ran_ms: int) -> ExitInfo:
    return ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=ran_ms)


def same(site: Site, copy: Any) -> None:
    """Both decide alike from here on."""
    copy.check_invariants()
    assert image_of(site.state) == image_of(copy)
    for seconds in range(1, 30):
        for event in (
            events.Tick(at_ms=site.now_ms + 1_000 * seconds),
            events.Place(at_ms=site.now_ms + 1_000 * seconds),
        ):
            assert plain(decide(site.state, event, site.policy)) == plain(decide(copy, event, site.policy))
            assert image_of(site.state) == image_of(copy)


def test_a_line_is_the_same_in_an_image() -> None:
    """Who holds its share already, and who does not, follows from the rows and from what is offered."""
    site = a_site()
    site.submit(a_job(tasks=9, **SHORT))
    held: AttemptId = attempt_of("1.0.0.1")
    agent = site.agents["a"]
    agent.hears = False
    site.decide(
        agent.ends(agent.held[held, 0], ended(100), site.now_ms)
    )  # its successor holds its share, and nobody has said that it runs
    assert 2 * UNIT == load(site).cpus and "1.0.2.1" not in in_line(site)
    packed = msgspec.msgpack.encode(image_of(site.state))
    same(site, state_of(msgspec.msgpack.decode(packed, type=StateImage)))


def test_a_line_is_the_same_after_a_restart() -> None:
    """Loaded from the rows, and the agent comes back with all of it."""
    site = a_site()
    site.submit(a_job(tasks=9, **SHORT))
    for agent in site.agents.values():
        agent.conn = None
    before = (in_line(site), load(site).cpus)
    site.restart(site.now_s + 2)
    assert before == (in_line(site), load(site).cpus)
    site.back("a")
    site.state.check_invariants()
    run_all(site)
    assert site.job().completed == 9


def test_one_that_ended_unseen_has_a_start() -> None:
    """Its run was over before it was said to run: when it began follows from how long it took."""
    site = a_site()
    site.agents["a"].hears = False
    site.submit(a_job())
    site.agents["a"].hears = True
    for order in [send for decision in site.decisions for send in decision.sends if send.conn_id == 1]:
        if isinstance(order.message, commands.Grant):
            agent = site.agents["a"]
            granted = agent.hear(order.message, site.now_ms)
            assert granted is not None
            agent.hears = False
            site.decide(granted)
            agent.hears = True
            site.at(site.now_s + 1)
            site.decide(agent.ends(agent.held[attempt_of("1.0.0.1"), 0], ended(30), site.now_ms))
            break
    assert (
        site.now_ms - 30
        == site.attempt("1.0.0.1").started_at_ms
        == site.task().started_at_ms
        == site.job().started_at_ms
    )


def test_no_more_is_granted_than_agents_answer() -> None:
    """A disk that takes seconds must not have grants run out while they wait for it: an answer makes room for more."""
    site = a_site(promises=Promises(work=True), unanswered_max=3)
    site.agents["a"].grants = "ignores"
    site.agents["a"].offer = replace(OFFER, cpus=8.0)
    site.breaks("a")
    site.back("a")
    site.submit(a_job(tasks=8))
    leased = [attempt for attempt in site.state.work.attempts.values() if attempt.row.token.number]
    assert 3 == len(leased) == len(site.state.work.unanswered)
    assert not site.state.work.place_due
    site.agents["a"].grants = "answers"
    row = leased[0].row
    share = row.ranks[0].share
    order = commands.Grant(attempt_id=row.attempt_id, rank=0, token=row.token, term_ms=row.term_ms, share=share)
    answer = site.agents["a"].hear(order, site.now_ms)
    assert answer is not None
    site.decide(answer)
    assert 6 == len(site.running("a")) and 2 == len(site.state.work.unanswered)


def test_nothing_is_granted_while_answers_are_late() -> None:
    """Those that wait for a slow disk are answered before more join them; then it goes on by itself."""
    site = a_site(promises=Promises(work=True), unanswered_late_max=1, placements_max=2)
    agent = site.agents["a"]
    agent.offer = replace(OFFER, cpus=8.0)
    site.breaks("a")
    site.back("a")
    agent.hears = False  # what it says is still on its way
    site.submit(a_job(tasks=2))
    site.at(site.now_s + 3)
    site.submit(a_job(tasks=2))
    assert 2 == len(site.state.work.unanswered) and site.state.work.paused
    agent.hears = True
    for attempt in [site.state.work.attempts[name] for name in site.state.work.unanswered]:
        row = attempt.row
        share = row.ranks[0].share
        order = commands.Grant(attempt_id=row.attempt_id, rank=0, token=row.token, term_ms=row.term_ms, share=share)
        answer = agent.hear(order, site.now_ms)
        assert answer is not None
        site.decide(answer)
    assert 4 == len(site.running("a"))


def day_of(seed: int) -> list[tuple[list[object], list[object], list[object]]]:
    """What is decided while a few agents work through short tasks of one kind: some of them take more ahead, some end
    sooner, one leaves."""
    dice = Random(seed)
    names = ("a", "b", "c")[: 1 + seed % 3]
    site = a_site(*names, prefetch_ms=dice.choice((200, 500)), placements_max=dice.choice((5, 512)))
    for _ in range(3):
        site.submit(a_job(tasks=dice.randrange(1, 40), max_running=dice.choice((None, None, 7)), **SHORT))
    for _ in range(60):
        running = [attempt for name in site.agents for attempt in site.running(name)]
        if not running:
            break
        site.at(site.now_s + 0.03)
        site.exits(dice.choice(running), ran_ms=dice.choice((1, 30)))
    return [(list(it.writes), list(it.sends), list(it.notes)) for it in site.decisions]


def test_leases_ahead_that_are_made_together_are_those_that_are_made_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same rows, orders and notes, at the same providers, in the same order."""
    ahead = 0
    for seed in range(9):
        together = day_of(seed)
        with monkeypatch.context() as patched:
            patched.setattr(placement, "FRESH", None)  # no place in a line is one of a task that was never launched
            single = day_of(seed)
        assert single == together
        sends = [send.message for _, sends, _ in together for send in sends if isinstance(send, commands.Send)]
        ahead += sum(isinstance(message, commands.Grant) and message.prefetched for message in sends)
    assert ahead > 200


def test_leases_ahead_leave_as_one_write_and_one_message() -> None:
    site = a_site()
    for agent in site.agents.values():
        agent.hears = False
    asked = events.JobSubmit(
        at_ms=site.now_ms, request_id=site.request(), tenant=TENANT, by="t", spec=a_job(tasks=30, **SHORT)
    )
    decide(site.state, asked, site.policy)
    decision = decide(site.state, events.Place(at_ms=site.now_ms), site.policy)
    ahead = [write for write in decision.writes if isinstance(write, commands.FirstLeases)]
    assert [(len(write.tasks), write.attempts[0].prefetched) for write in ahead][-1] == (8, True)
    grants = [send.message for send in decision.sends if isinstance(send.message, commands.Grants)]
    assert [(len(message.leases), message.prefetched) for message in grants][-1] == (8, True)
