"""What a Place costs, and that what it saves itself is nothing that would have been found."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from coordinator.core import events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Decision, Grant, one_by_one, sends_one_by_one
from coordinator.core.decide import decide
from coordinator.core.ids import JobId, ProviderId, dotted
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.queue import lines as queue
from coordinator.core.queue import order, placement, rooms
from coordinator.core.queue.candidates import Candidates
from coordinator.core.queue.placement import Pass
from coordinator.core.queue.rooms import Room, Rooms, room_at
from coordinator.core.rows import Promises, Resources
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.jobspec import Arrangement, Isolation, RetryRule
from coordinator.core.work.live import Place, Want, Work
from tests.site import Site, a_job
from tests.treasury import Treasury
from tests.unit.core.test_placement import BIG, figures, joins

NAMES = "abcdef"


def granted(decision: Decision) -> list[tuple[str, int]]:
    found = [send.message for send in sends_one_by_one(decision.sends) if isinstance(send.message, Grant)]
    return [(dotted(grant.attempt_id), grant.rank) for grant in found]


class Walk(Site):
    """Every Place is decided beside one that goes on from an image, without candidates: both do the same."""

    expected: tuple[Decision, StateImage] | None = None

    def decide(self, event: events.AnyEvent, durable: bool = True) -> Decision:
        if not isinstance(event, events.Place):
            return super().decide(event, durable)
        fresh = state_of(image_of(self.state))
        expected = decide(fresh, event, self.policy)
        self.expected = (expected, image_of(fresh))
        return super().decide(event, durable)

    def write(self, decision: Decision) -> None:
        """Right after the decision, before anybody answers."""
        if self.expected is not None:
            (expected, image), self.expected = self.expected, None
            assert granted(expected) == granted(decision)
            assert list(one_by_one(expected.writes)) == list(one_by_one(decision.writes))
            assert image == image_of(self.state)
            remembers_no_other_room(self)
        super().write(decision)


def remembers_no_other_room(walk: Walk) -> None:
    """What is known of room for an ask is what is found by looking at the provider."""
    state = walk.state
    for (ask, arrangement), known in state.work.rooms.items():
        for provider in state.providers.values():
            expected = room_at(state, provider, ask, arrangement, walk.policy)
            assert expected == known.at(state, provider, walk.policy)


def step(walk: Walk, dice: Random) -> None:
    name = dice.choice(NAMES)
    agent = walk.agents[name]
    match dice.randrange(10):
        case 0 | 1:
            ask = Ask(cpus=dice.choice((1, 2, 3, 4)) * UNIT, memory=dice.choice((0, 4, 9)) * 10**9)
            nodes, limit = dice.choice((1, 1, 1, 2, 3)), dice.choice((None, 60_000, 90_000))
            rule = RetryRule(delay_ms=1_000, elsewhere=dice.random() < 0.5)
            more: dict[str, Any] = {"arrangement": dice.choice(list(Arrangement)), "priority": dice.choice((0, 0, 5))}
            walk.submit(
                a_job(asks=(ask,), nodes=nodes, tasks=dice.choice((1, 3)), time_limit_ms=limit, retry=rule, **more)
            )
        case 2 | 3 | 4:
            running = walk.running(name)
            if running and agent.conn is not None:
                attempt = dice.choice(running)
                rank = next(r for (i, r), _ in agent.held.items() if dotted(i) == attempt)
                walk.exits(attempt, dice.choice((0, 0, 1)), rank=rank)
        case 5:
            if agent.conn is not None:
                walk.breaks(name)
        case 6:
            if agent.conn is None:
                agent.offer = Resources(cpus=float(dice.choice((2, 4))), memory_gb=dice.choice((4.0, 16.0)))
                walk.back(name, rebooted=True)
        case 7:
            kind = dice.choice((events.ProviderDrain, events.ProviderResume))
            walk.decide(kind(at_ms=walk.now_ms, request_id=walk.request(), provider_id=ProviderId(name)))
        case 8:
            hazards = {name: dice.choice((0.3, 0.8, 0.9)) for name in NAMES if dice.random() < 0.8}
            figures(walk, hazards)
        case _:
            walk.run_to(walk.now_s + dice.choice((1, 5, 12)))


@pytest.mark.parametrize("seed", range(8))
def test_whoever_is_not_looked_at_again_would_not_have_been_chosen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers that join, leave, drain, shrink, grow and fail; jobs of many wants, of several nodes too."""
    monkeypatch.setattr(ClusterState, "check_invariants", lambda state: None)  # a smaller machine may come back
    walk, dice = Walk(*NAMES), Random(seed)
    for _ in range(300):
        step(walk, dice)
    assert walk.state.work.next_token > 8


def test_capacity_that_is_freed_is_ranked_once_for_each_shape_and_nobody_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 40 shapes that fit nowhere and 6 providers, one that is freed costs 40 looks, not 240."""
    site = Site(*NAMES)
    for _ in NAMES:
        site.submit(a_job(asks=(Ask(cpus=2 * UNIT),)))
    for number in range(40):
        site.submit(a_job(asks=(Ask(cpus=2 * UNIT + number),)))
    ranked: list[ProviderId] = []
    judged: list[ProviderId] = []
    real_at, real_judge = Rooms.at, Candidates._judge

    def looks(self: Rooms, state: ClusterState, provider: Provider, policy: Policy) -> Room | None:
        ranked.append(provider.row.provider_id)
        return real_at(self, state, provider, policy)

    def judges(self: Candidates, state: ClusterState, provider: Provider) -> None:
        judged.append(provider.row.provider_id)
        real_judge(self, state, provider)

    monkeypatch.setattr(Rooms, "at", looks)
    monkeypatch.setattr(Candidates, "_judge", judges)
    site.exits("1.0.0.1")
    assert 41 >= len(ranked) and 1 == len(set(ranked)) and not judged
    site.submit(a_job(asks=(Ask(cpus=3 * UNIT),)))
    assert len(NAMES) == len(judged), "those that were judged were judged again"


def test_room_that_is_freed_is_worked_out_once_for_all_shapes_that_ask_for_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """40 shapes differ in how long they run: what one that is freed has for them is one figure. What no shape asks for
    any more is forgotten, and so is who is not enrolled any more."""
    site, once, ask = Site(*NAMES), Ask(cpus=2 * UNIT, memory=1), Ask(cpus=2 * UNIT)
    for _ in NAMES:
        site.submit(a_job(asks=(once,)))
    for number in range(40):
        site.submit(a_job(asks=(ask,), expected_ms=3_600_000 * (number + 1)))
    worked_out: list[ProviderId] = []
    real = rooms.room_at

    def works_out(
        state: ClusterState, provider: Provider, ask: Ask, arrangement: Arrangement, policy: Policy
    ) -> Room | None:
        worked_out.append(provider.row.provider_id)
        return real(state, provider, ask, arrangement, policy)

    monkeypatch.setattr(rooms, "room_at", works_out)
    assert len([shape for shape in site.state.work.candidates if shape.asks == (ask,)]) > 10
    site.exits("1.0.0.1")
    assert 1 <= len(worked_out) <= 3, "freed, given away, and kept for the next one"
    assert [once, ask] == [known for known, _ in site.state.work.rooms]
    site.run_to(site.now_s + placement.UNUSED_MS // 1_000 + 60)
    assert [ask] == [known for known, _ in site.state.work.rooms]
    gone = events.ProviderForget(at_ms=site.now_ms, request_id=site.request(), provider_id=ProviderId(NAMES[0]))
    (left,) = site.state.work.rooms.values()
    assert {*NAMES} == left.known.keys()
    site.decide(gone)
    assert {*NAMES[1:]} == left.known.keys()


def test_many_wants_at_once_are_judged_in_several_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of jobs that are all different holds nobody up, and each is judged in the end."""
    monkeypatch.setattr(placement, "JUDGED_MAX", 12)
    site = Site(*NAMES)
    for number in range(10):
        site.submit(a_job(asks=(Ask(cpus=3 * UNIT),), time_limit_ms=60_000 + number))
    site.submit(a_job())
    assert ["11.0.0.1"] == [text for name in NAMES for text in site.running(name)]


def test_a_full_step_is_fitted_without_a_look_at_all_of_its_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that back off, or wait for room that is not there, cost nothing when another one ends."""
    site = Site("a", policy=Policy(quarantine_failures=1_000))
    rule = RetryRule(limit=9, delay_ms=600_000, delay_max_ms=600_000)
    site.submit(a_job(tasks=60, max_running=2, retry=rule))
    for task in range(50):
        site.exits(f"1.0.{task}.1", 1)
    assert 50 == len(site.state.work.jobs[JobId(1)].steps[0].retry)
    moved: list[Place] = []
    real = queue._move

    def moves(work: Work, place: Place, before: Want | None, after: Want | None) -> None:
        moved.append(place)
        real(work, place, before, after)

    monkeypatch.setattr(queue, "_move", moves)
    site.exits("1.0.50.1", 0)
    assert len(moved) < 20


class CountedList(list[int]):
    """Counts what is taken out of its middle: each costs all that stands behind."""

    taken = 0

    def __delitem__(self, at: object) -> None:
        self.taken += 1
        super().__delitem__(at)  # type: ignore[arg-type]


def test_a_cancel_of_many_that_wait_to_be_tried_again_costs_each_of_them_once() -> None:
    site = Site("a", policy=Policy(quarantine_failures=1_000))
    site.submit(a_job(tasks=40, max_running=2, retry=RetryRule(limit=9, delay_ms=600_000)))
    for task in range(30):
        site.exits(f"1.0.{task}.1", 1)
    step = site.state.work.jobs[JobId(1)].steps[0]
    step.retry = counted = CountedList(step.retry)
    assert len(counted) == 30
    site.cancel(1)
    assert counted.taken == 0 and "cancelled" == site.job().state


@pytest.mark.parametrize("seed", range(100, 104))
def test_whoever_is_looked_at_later_is_so_from_an_image_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant with more lines than one Place looks at: what goes on from an image does the same."""
    monkeypatch.setattr(order, "LOOKS_MAX", 8)
    monkeypatch.setattr(order, "LOOKS_LEAST", 4)
    monkeypatch.setattr(ClusterState, "check_invariants", lambda state: None)
    walk, dice, later = Walk(*NAMES), Random(seed), 0
    for _ in range(150):
        step(walk, dice)
        later += bool(walk.state.work.later)
    assert later and walk.state.work.next_token > 8


def test_a_tenant_with_very_many_kinds_of_requests_holds_up_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 lines that nobody can serve a Place looks at 8; another tenant's job starts in that very Place, and the
    one line of the 100 that can be served has its turn within some ticks."""
    monkeypatch.setattr(order, "LOOKS_MAX", 8)
    monkeypatch.setattr(order, "LOOKS_LEAST", 4)
    site = Treasury(*NAMES[:2], promises=Promises(work=True, isolation=Isolation.SANDBOX))
    site.tenant("alpha")
    site.tenant("beta")
    places: list[int] = []
    real = Pass._serve

    def serves(self: Pass, want: Want, spot: Place) -> str:
        places[-1] += 1
        return real(self, want, spot)

    monkeypatch.setattr(Pass, "_serve", serves)
    for number in range(100):
        places.append(0)
        site.asks(a_job(asks=(Ask(cpus=6 * UNIT if number == 97 else 100 * UNIT + number),)), "alpha")
    joins(site, "z", BIG, isolation=Isolation.SANDBOX)
    site.asks(a_job(), "beta")
    assert ["101.0.0.1"] == [text for name in NAMES[:2] for text in site.running(name)]
    for second in range(1, 30):
        places.append(0)
        site.run_to(second)
    assert ["98.0.0.1"] == site.running("z")
    assert all(looks <= 5 * (8 + 1) for looks in places), places
