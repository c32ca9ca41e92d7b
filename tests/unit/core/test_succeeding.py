"""Ends that come together: what is decided, written and said is what each by itself would lead to."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask, Price
from coordinator.core.decide import decide
from coordinator.core.ids import AttemptId, ConnId, JobId, PoolName
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken, Promises, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import CheckpointRule, RetryRule
from coordinator.service.recorder import Recorder, replay
from tests.builders import sent
from tests.site import Site, a_job, a_step

End = tuple[AttemptId, int, LeaseToken, ExitInfo]
DONE = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=3)
SHORT: dict[str, Any] = {"expected_ms": 100}


def a_site(*names: str, heard: bool = False, **policy: Any) -> Site:
    """Its agents launch what they are told; that it runs is heard of, or only its end."""
    site = Site(*names, promises=Promises(work=True, prefetch=8, data=True), policy=Policy(**policy))
    for agent in site.agents.values():
        agent.grants = "answers" if heard else "begins unheard"
    return site


def ends_of(site: Site, name: str, exit: ExitInfo = DONE) -> list[End]:
    """All that this one holds, in its order, as if all of it ended now."""
    return [(h.attempt_id, h.rank, h.token, exit) for h in site.agents[name].held.values() if h.exit is None]


def copy_of(state: ClusterState) -> ClusterState:
    image = msgspec.msgpack.encode(image_of(state))
    return state_of(msgspec.msgpack.decode(image, type=StateImage))


def both_ways(site: Site, conn: int, ended: list[End]) -> tuple[commands.Decision, ClusterState]:
    """Decided together, on a copy; it was checked that one by one would have led to the same."""
    together, single = copy_of(site.state), copy_of(site.state)
    at_ms, conn_id = site.now_ms, ConnId(conn)
    words = tuple(
        events.AttemptExited(at_ms=at_ms, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, exit=exit)
        for attempt_id, rank, token, exit in ended
    )
    expected = decide(single, events.AgentSaid(at_ms=at_ms, said=words), site.policy)
    event = events.AttemptsEnded(at_ms=at_ms, conn_id=conn_id, ended=tuple(ended))
    decision = decide(together, event, site.policy)
    assert list(commands.one_by_one(decision.writes)) == list(commands.one_by_one(expected.writes))
    assert list(commands.sends_one_by_one(decision.sends)) == list(commands.sends_one_by_one(expected.sends))
    assert told(decision, of_verdicts=True) == told(expected, of_verdicts=True)
    assert told(decision, of_verdicts=False) == told(expected, of_verdicts=False)
    assert image_of(together) == image_of(single)
    together.check_invariants()
    return decision, together


def told(decision: commands.Decision, *, of_verdicts: bool) -> list[commands.Note]:
    """What of it is asked of analytics, which nobody asks between other things; or all else, in its order."""
    notes = commands.notes_one_by_one(decision.notes)
    return [note for note in notes if isinstance(note, commands.VerdictWanted) is of_verdicts]


def priced(site: Site, price: Price) -> None:
    """From now on what runs there costs so much."""
    site.decide(events.PoolPrice(at_ms=site.now_ms, request_id=site.request(), name=PoolName("default"), price=price))


def groups(decision: commands.Decision) -> list[int]:
    """How many ends each write of several has."""
    return [len(write.attempts) for write in decision.writes if isinstance(write, commands.Ended)]


def begun(site: Site, name: str = "a") -> Site:
    """The first end of a step has it begin: that one is over."""
    first = ends_of(site, name)[0]
    site.exits(".".join(map(str, first[0])))
    return site


def unheard(site: Site) -> list[End]:
    """Ends of those of which nobody knows yet that they have begun."""
    attempts = site.state.work.attempts
    return [end for end in ends_of(site, "a") if attempts[end[0]].row.started_at_ms is None]


def test_ends_of_one_step_are_one_write_and_one_answer() -> None:
    """Those in line behind have their turns one after the other, each by the end of one."""
    site = a_site("a")
    site.submit(a_job(tasks=30, **SHORT))
    begun(site)
    decision, state = both_ways(site, 1, unheard(site))
    assert [9] == groups(decision)
    assert [9] == [len(m.leases) for _, m in sent(decision, commands.Settlements)]
    puts = [type(write.row).__name__ for write in decision.writes if isinstance(write, commands.Put)]
    assert sorted(puts) == ["JobRow", "StepRow"]
    assert 10 == state.work.jobs[JobId(1)].row.completed


def test_turns_are_given_by_the_end_before() -> None:
    """Who waited in line is told of the very attempt whose end let it begin."""
    site = a_site("a", heard=True)
    site.submit(a_job(tasks=9, **SHORT))
    running = [end for end in ends_of(site, "a") if site.state.work.attempts[end[0]].row.started_at_ms is not None]
    assert len(running) == 2
    _, state = both_ways(site, 1, running)
    turned = [a.turned_by for a in state.work.attempts.values() if a.turned_by]
    assert turned == [f"slot {'.'.join(map(str, end[0]))}" for end in running]


def test_the_first_end_has_the_step_begin_and_the_last_one_ends_it() -> None:
    """The job too; and what waited for the step has its turn."""
    site = a_site("a")
    site.submit(a_job(a_step("one", tasks=3, **SHORT), a_step("two", needs=(0,), tasks=2)))
    decision, state = both_ways(site, 1, ends_of(site, "a"))
    assert [2] == groups(decision)
    job = state.work.jobs[JobId(1)]
    assert job.steps[0].row.state is WorkState.COMPLETED and job.steps[1].ready
    assert job.steps[1].unblocked_by == "step 1.0" and state.work.place_due
    site = a_site("a")
    site.submit(a_job(tasks=3, **SHORT))
    begun(site)
    _, state = both_ways(site, 1, ends_of(site, "a"))
    assert not state.work.jobs and state.work.recent[JobId(1)].state is WorkState.COMPLETED


def test_what_wrote_something_is_read_and_what_wrote_nothing_is_not() -> None:
    site = a_site("a")
    site.submit(a_job(tasks=9, **SHORT))
    begun(site)
    ended = unheard(site)
    ended[3] = (*ended[3][:3], msgspec.structs.replace(DONE, out_bytes=7))
    decision, _ = both_ways(site, 1, ended)
    assert [len(ended)] == groups(decision)
    assert [ended[3][0]] == [note.attempt_id for note in decision.notes if isinstance(note, commands.VerdictWanted)]


def test_who_is_told_of_late_began_when_it_did() -> None:
    """What runs may be told of a moment after it began: its time, and what it is charged, count from its beginning.
    Nobody began before it was leased, whatever its agent says."""
    for ran_ms, began_s in ((0, 5), (20, 4.98), (60_000, 0)):
        site = a_site("a")
        priced(site, Price(cpu=3_600_000))  # a millionth a millisecond
        site.submit(a_job())
        (held,) = site.agents["a"].held.values()
        leased_ms = site.now_ms
        site.run_to(site.now_s + 5)
        named: dict[str, Any] = {"attempt_id": held.attempt_id, "rank": 0, "token": held.token}
        told = events.AttemptPhase(at_ms=site.now_ms, conn_id=ConnId(1), phase="running", ran_ms=ran_ms, **named)
        site.decide(told)
        row = site.state.work.attempts[held.attempt_id].row
        assert row.started_at_ms == leased_ms + round(began_s * 1_000) == site.task().started_at_ms
        exit = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=ran_ms + 30)
        site.run_to(site.now_s + 1)
        site.decide(events.AttemptExited(at_ms=site.now_ms, conn_id=ConnId(1), exit=exit, **named))
        account = site.state.work.accounts.of(site.job().tenant)
        assert account.row.cost == min(ran_ms + 30, 6_000)


def test_what_costs_money_is_charged_one_by_one() -> None:
    """Its ledger has a row for each, and the account is moved by each."""
    site = a_site("a")
    priced(site, Price(cpu=3_600_000))
    site.submit(a_job(tasks=9, **SHORT))
    begun(site)
    ended = ends_of(site, "a", msgspec.structs.replace(DONE, ran_ms=1_000))
    site.at(site.now_s + 2)
    decision, _ = both_ways(site, 1, ended)
    assert not groups(decision)
    ledger = [w.row for w in decision.writes if isinstance(w, commands.Put) and type(w.row).__name__ == "LedgerRow"]
    assert len(ledger) == len(ended)


def test_a_recording_of_ends_together_is_decided_again_as_it_was(tmp_path: Path) -> None:
    site = a_site("a")
    site.submit(a_job(tasks=30, **SHORT))
    begun(site)
    recorder = Recorder(tmp_path)
    recorder.begin(site.state, site.policy)
    event = events.AttemptsEnded(at_ms=site.now_ms, conn_id=ConnId(1), ended=tuple(unheard(site)))
    recorder.note(event, decide(site.state, event, site.policy))
    path = recorder.dump("a test")
    assert path is not None
    told: list[commands.Decision] = []
    outcome = replay(path, lambda event, decision: told.append(decision))
    assert outcome.events == 1 and outcome.diverged_at is None and outcome.failed_at is None
    assert [9] == groups(told[0])


def some_day(dice: Random) -> tuple[Site, list[str]]:
    """A few steps of all kinds; some run, of some only the end will be heard."""
    names = ["a", "b", "c"]
    site = a_site(*names, heard=dice.random() < 0.5)
    if dice.random() < 0.2:
        priced(site, Price(cpu=dice.randrange(1, 10**9)))
    for _ in range(dice.randrange(1, 5)):
        more = dice.choice(
            (
                {},
                {"tasks": 12, **SHORT},
                {"tasks": 12, **SHORT},
                {"tasks": 40, **SHORT, "asks": (Ask(cpus=UNIT // 10),)},
                {"tasks": 3, "array": ((1, 3, 1),), "max_fails": 0},
                {"nodes": 2},
                {"tasks": 6, "max_running": 2, **SHORT},
                {"tasks": 2, "checkpoint": CheckpointRule(path="state")},
                {"tasks": 2, "outputs": ("result",)},
                {"tasks": 5, "retry": RetryRule(delay_ms=0), **SHORT},
            )
        )
        if dice.random() < 0.3:
            site.submit(a_job(a_step("one", **more), a_step("two", tasks=3, needs=(0,))))
        else:
            site.submit(a_job(**more))
    return site, names


ENDS = (
    *[DONE] * 12,
    msgspec.structs.replace(DONE, ran_ms=60_000, cpu_ms=7, memory_max=9),
    msgspec.structs.replace(DONE, err_bytes=3),
    ExitInfo(cause=EndCause.EXITED, code=1, ran_ms=2),
    ExitInfo(cause=EndCause.SIGNALLED, signal=9),
    ExitInfo(cause=EndCause.STOPPED),
    ExitInfo(cause=EndCause.AGENT, code=0),
    ExitInfo(cause=EndCause.STAGE, code=0),
)


@pytest.mark.parametrize("seed", range(120))
def test_whatever_ends_together_counts_as_if_it_had_ended_one_by_one(seed: int) -> None:
    """Repeated, of others, with tokens that are not theirs, after a loss, of what was cancelled or never granted, by
    who is not known any more."""
    dice = Random(seed)
    site, names = some_day(dice)
    plain = dice.random() < 0.4
    for _ in range(4):
        name = dice.choice(names)
        ended = [(*end[:3], DONE if plain else dice.choice(ENDS)) for end in ends_of(site, name)]
        if dice.random() < 0.3:
            ended = ended[: dice.randrange(len(ended) + 1)]
        if ended and dice.random() < 0.4:
            ended = [*ended, *dice.sample(ended, min(2, len(ended)))]
            dice.shuffle(ended)
        if ended and dice.random() < 0.3:
            attempt_id, rank, token, exit = dice.choice(ended)
            strange = (attempt_id, dice.choice((rank, 1, 7)), LeaseToken(token.generation, token.number + 1), exit)
            ended.insert(dice.randrange(len(ended)), strange)
            ended.append(((JobId(99), 0, 0, 1), 0, token, exit))
        if ended and dice.random() < 0.2:
            site.cancel(dice.choice(ended)[0][0])
        if dice.random() < 0.2:
            site.at(site.now_s + dice.choice((12, 40)))
            site.decide(events.Tick(at_ms=site.now_ms))
        conn = (site.agents[name].conn or 0) if dice.random() < 0.9 else 77
        both_ways(site, conn, ended)
        site.decide(events.AttemptsEnded(at_ms=site.now_ms, conn_id=ConnId(conn), ended=tuple(ended)))


def test_days_bring_ends_of_every_kind() -> None:
    """The worlds above hold what they are meant to: many that end together, in both states, and many that do not."""
    together, single, states = 0, 0, set()
    for seed in range(120):
        site, names = some_day(Random(seed))
        for name in names:
            decision, _ = both_ways(site, site.agents[name].conn or 0, ends_of(site, name))
            together += sum(groups(decision))
            states |= {(w.before.value, w.attempts[0].prefetched) for w in decision.writes if type(w) is commands.Ended}
            single += len(sent(decision, commands.Settled))
    assert together > 500 and single > 300
    assert states == {("staging", False), ("staging", True), ("running", False)}
