"""Acknowledgements that come together: what is decided, written and said is what each by itself would lead to."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from coordinator.core import commands, events
from coordinator.core.decide import decide
from coordinator.core.ids import AttemptId, ConnId, JobId
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.rows import LeaseToken, Promises
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import CheckpointRule
from tests.builders import sent
from tests.site import Site, a_job

Held = tuple[AttemptId, int, LeaseToken]
SHORT: dict[str, Any] = {"expected_ms": 100}


def a_site(*names: str, **policy: Any) -> Site:
    """Its agents say nothing of what they are granted."""
    site = Site(*names, promises=Promises(work=True, prefetch=8, data=True), policy=Policy(**policy))
    for agent in site.agents.values():
        agent.hears = False
    return site


def granted(site: Site, name: str) -> list[Held]:
    """All that this one was granted, in its order."""
    conn = site.agents[name].conn
    found = [m for d in site.decisions for to, m in sent(d, commands.Grant) if to == conn]
    return [(m.attempt_id, m.rank, m.token) for m in found]


def copy_of(state: ClusterState) -> ClusterState:
    image = msgspec.msgpack.encode(image_of(state))
    return state_of(msgspec.msgpack.decode(image, type=StateImage))


def both_ways(site: Site, conn: int, held: list[Held]) -> tuple[commands.Decision, ClusterState]:
    """Decided together, on a copy; it was checked that one by one would have led to the same."""
    together, single = copy_of(site.state), copy_of(site.state)
    at_ms, conn_id = site.now_ms, ConnId(conn)
    words = tuple(
        events.AgentGranted(at_ms=at_ms, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token)
        for attempt_id, rank, token in held
    )
    expected = decide(single, events.AgentSaid(at_ms=at_ms, said=words), site.policy)
    event = events.LeasesHeld(at_ms=at_ms, conn_id=conn_id, held=tuple(held))
    decision = decide(together, event, site.policy)
    assert list(commands.one_by_one(decision.writes)) == list(commands.one_by_one(expected.writes))
    assert list(commands.sends_one_by_one(decision.sends)) == list(commands.sends_one_by_one(expected.sends))
    assert list(commands.notes_one_by_one(decision.notes)) == list(commands.notes_one_by_one(expected.notes))
    assert image_of(together) == image_of(single)
    together.check_invariants()
    return decision, together


def test_leases_of_one_step_are_launched_with_one_write_and_one_order() -> None:
    """And what stands in line behind them with another: it differs in when it is looked at."""
    site = a_site("a")
    site.submit(a_job(tasks=30, **SHORT))
    held = granted(site, "a")
    assert len(held) == 10
    decision, _ = both_ways(site, 1, held)
    assert [2, 8] == [len(w.attempts) for w in decision.writes if isinstance(w, commands.Launched)]
    assert [2, 8] == [len(m.leases) for _, m in sent(decision, commands.Launches)]
    assert not [w for w in decision.writes if isinstance(w, commands.Put)]


def test_who_keeps_checkpoints_is_launched_by_itself() -> None:
    """Each is told from which one it resumes."""
    site = a_site("a")
    site.submit(a_job(tasks=2, checkpoint=CheckpointRule(path="state")))
    decision, _ = both_ways(site, 1, granted(site, "a"))
    assert len(sent(decision, commands.Launch)) == 2 and not sent(decision, commands.Launches)


def test_of_two_nodes_the_last_word_launches_both() -> None:
    site = a_site("a", "b")
    site.submit(a_job(tasks=1, nodes=2))
    conn = {name: agent.conn or 0 for name, agent in site.agents.items()}
    both_ways(site, conn["a"], granted(site, "a"))
    for attempt_id, rank, token in granted(site, "a"):
        said = {"conn_id": ConnId(conn["a"]), "attempt_id": attempt_id, "rank": rank, "token": token}
        site.decide(events.AgentGranted(at_ms=site.now_ms, **said))  # type: ignore[arg-type]
    decision, _ = both_ways(site, conn["b"], granted(site, "b"))
    assert len(sent(decision, commands.Launch)) == 2


def test_answers_let_a_place_that_waited_for_them_go_on() -> None:
    site = a_site("a", unanswered_max=1)
    site.submit(a_job(tasks=4))
    assert site.state.work.paused
    _, state = both_ways(site, 1, granted(site, "a"))
    assert state.work.place_due and not state.work.paused


def some_day(dice: Random) -> tuple[Site, list[str]]:
    """A few steps of all kinds, some of them cancelled or launched already."""
    names = ["a", "b", "c"]
    site = a_site(*names)
    for _ in range(dice.randrange(1, 5)):
        more = dice.choice(
            (
                {},
                {"tasks": 12, **SHORT},
                {"tasks": 3, "array": ((1, 3, 1),)},
                {"nodes": 2},
                {"tasks": 2, "checkpoint": CheckpointRule(path="state")},
            )
        )
        site.submit(a_job(**more))
    return site, names


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_said_together_counts_as_if_it_was_said_one_by_one(seed: int) -> None:
    """Repeated, of others, with tokens that are not theirs, of what was never granted, by who is not known any more."""
    dice = Random(seed)
    site, names = some_day(dice)
    said: list[Held] = []
    for name in names:
        said += granted(site, name)
    if said and dice.random() < 0.3:
        site.cancel(dice.choice(said)[0][0])
    for _ in range(3):
        name = dice.choice(names)
        held = granted(site, name)
        if dice.random() < 0.5:
            held = [*held, *dice.sample(held, min(2, len(held)))]
            dice.shuffle(held)
        if said and dice.random() < 0.5:
            attempt_id, rank, token = dice.choice(said)
            held.append((attempt_id, dice.choice((rank, 1, 7)), LeaseToken(token.generation, token.number + 1)))
            held.append((attempt_id, 0, token))
            held.append(((JobId(99), 0, 0, 1), 0, token))
        if dice.random() < 0.2:
            site.at(site.now_s + 12)
            site.decide(events.Tick(at_ms=site.now_ms))
        conn = (site.agents[name].conn or 0) if dice.random() < 0.9 else 77
        both_ways(site, conn, held)
        event = events.LeasesHeld(at_ms=site.now_ms, conn_id=ConnId(conn), held=tuple(held))
        site.decide(event)


def test_days_bring_every_kind_of_lease() -> None:
    """The worlds above hold what they are meant to: leases of one rank and of two, in line, with checkpoints."""
    kinds = set()
    for seed in range(40):
        site, _ = some_day(Random(seed))
        for attempt in site.state.work.attempts.values():
            spec = site.state.work.jobs[attempt.row.job_id].steps[0].spec
            kinds.add((len(attempt.row.ranks), attempt.row.prefetched, spec.checkpoint is not None))
    assert kinds >= {(1, False, False), (1, True, False), (1, False, True), (2, False, False)}
