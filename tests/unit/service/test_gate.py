"""The gate of transfers and its breaker."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.errors import Code, CoordError
from coordinator.service.data.breaker import Breaker, State
from coordinator.service.data.gate import SPILLED_PIECES_MAX, Gate, GateSettings

MB = 1_000_000


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def a_gate(hand: Hand, **settings: float) -> Gate:
    return Gate(GateSettings(**settings), lambda _tenant: 1.0, hand)  # type: ignore[arg-type]


def test_the_breaker_opens_when_saturation_lasts_and_lets_one_in_to_see() -> None:
    """closed -> open -> half-open -> closed; a probe that fails doubles the pause."""
    breaker = Breaker(after_s=10.0, pause_s=15.0, pause_max_s=40.0)
    breaker.saturated("full", 0.0)
    breaker.saturated("full", 9.0)
    assert breaker.state is State.CLOSED
    breaker.saturated("full", 10.0)
    assert (breaker.state, breaker.opened) == (State.OPEN, 1)
    assert breaker.admit("a", 12.0) == 13.0
    assert breaker.admit("probe", 25.0) == 0.0
    assert breaker.admit("b", 25.0) > 0
    breaker.saturated("still full", 26.0)
    assert breaker.admit("c", 55.0) > 0
    assert breaker.admit("probe", 56.0) == 0.0
    breaker.went_well("b", 57.0)
    assert breaker.admit("d", 57.0) > 0  # only the probe's end counts
    breaker.went_well("probe", 58.0)
    assert (breaker.state, breaker.admit("d", 58.0)) == (State.CLOSED, 0.0)


def test_saturation_that_passes_opens_nothing() -> None:
    """Two short ones far apart are no long one."""
    breaker = Breaker(after_s=10.0, pause_s=15.0, pause_max_s=40.0)
    breaker.saturated("full", 0.0)
    breaker.relieved()
    breaker.saturated("full", 11.0)
    assert breaker.state is State.CLOSED


def test_a_probe_that_gives_up_by_itself_leaves_its_place_to_the_next() -> None:
    """A client that hangs up must not keep the breaker half open for ever."""
    breaker = Breaker(after_s=0.0, pause_s=1.0, pause_max_s=1.0)
    breaker.saturated("full", 0.0)
    assert breaker.admit("a", 2.0) == 0.0
    breaker.gave_up("a")
    assert breaker.admit("b", 2.0) == 0.0


def test_a_probe_that_takes_its_time_keeps_nobody_out_for_ever() -> None:
    """A body of a byte a second is no failure and comes to no end: what was not refused meanwhile shows enough."""
    breaker = Breaker(after_s=10.0, pause_s=15.0, pause_max_s=15.0)
    breaker.saturated("full", 0.0)
    breaker.saturated("full", 10.0)
    assert breaker.admit("slow", 25.0) == 0.0
    assert breaker.admit("other", 34.0) > 0
    assert breaker.admit("other", 35.0) == 0.0
    assert breaker.state is State.CLOSED


def test_bodies_of_a_byte_each_are_bounded_by_their_number() -> None:
    """They would fill memory before they fill the spill area; another tenant's go on, and each costs the same."""

    async def check() -> None:
        gate = a_gate(Hand(), tenant_bytes_per_s=10)
        await gate.ingress("tiny", "up", MB)
        with pytest.raises(CoordError) as refused:
            for _ in range(SPILLED_PIECES_MAX + 2):
                await gate.ingress("tiny", "up", 1)
        assert refused.value.code is Code.TOO_FAST
        await gate.ingress("other", "else", 1)
        gate.drop("up")
        assert gate.view().spilled_bytes == 0
        await gate.ingress("tiny", "up", 1)

    asyncio.run(check())


def test_bytes_beyond_the_rate_are_spilled_within_bounds_and_paid_for_before_publication() -> None:
    """A burst is taken, more than the spill area is refused with a time, and `settled` waits for the payment."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        gate = Gate(GateSettings(ingress_bytes_per_s=40 * MB, spill_bytes_max=40 * MB), lambda _tenant: 1.0, loop.time)
        began_s = loop.time()
        with pytest.raises(CoordError) as refused:
            for _ in range(8):
                await gate.ingress("t", "up", 9 * MB)
        assert refused.value.code is Code.TOO_FAST
        assert refused.value.retry_after_s is not None
        assert gate.view().spilled_bytes >= 9 * MB
        async with asyncio.timeout(60):
            await gate.settled("up")
        assert gate.view().spilled_bytes == 0
        assert loop.time() - began_s >= 0.2  # at least 27 MB were taken: a burst of 8 and a piece more are free

    asyncio.run(check())


def test_an_upload_that_is_dropped_makes_room_in_the_spill_area() -> None:
    """Its bytes are not paid for, and hold nobody up."""

    async def check() -> None:
        gate = a_gate(Hand(), ingress_bytes_per_s=MB, spill_bytes_max=20 * MB)
        for _ in range(3):
            await gate.ingress("t", "up", 3 * MB)
        assert gate.view().spilled_bytes == 6 * MB
        gate.drop("up")
        assert gate.view().spilled_bytes == 0

    asyncio.run(check())


def test_one_tenant_cannot_fill_the_spill_area_for_all() -> None:
    """Half of it is the most that is one tenant's."""

    async def check() -> None:
        gate = a_gate(Hand(), ingress_bytes_per_s=MB, spill_bytes_max=20 * MB)
        with pytest.raises(CoordError):
            for _ in range(20):
                await gate.ingress("greedy", "a", MB)
        await gate.ingress("modest", "b", MB)

    asyncio.run(check())


def test_refusing_for_long_opens_the_breaker_and_every_new_transfer_is_told() -> None:
    """Saturated for ten seconds: no transfer begins until the pause is over."""

    async def check() -> None:
        hand = Hand()
        gate = a_gate(hand, ingress_bytes_per_s=1, spill_bytes_max=10)
        for at_s in range(13):
            hand.s = float(at_s)
            with pytest.raises(CoordError):
                for _ in range(3):
                    await gate.ingress("t", "up", 9)
        assert gate.view().state is State.OPEN
        with pytest.raises(CoordError, match="saturated"):
            gate.admit("next")
        hand.s = 40.0
        gate.admit("probe")
        gate.went_well("probe")
        assert gate.view().state is State.CLOSED

    asyncio.run(check())


@pytest.mark.alone
def test_one_tenant_that_sends_too_fast_shuts_nobody_else_out() -> None:
    """Refused for as long as it likes: the breaker is for what several of them bring."""

    async def check() -> None:
        hand = Hand()
        gate = a_gate(hand, ingress_bytes_per_s=10, spill_bytes_max=20_000)
        await gate.ingress("modest", "m", 10)

        async def pushed(*tenants: str, until_s: int) -> None:
            while hand.s < until_s:
                hand.s += 1.0
                for tenant in tenants:
                    with pytest.raises(CoordError):
                        for _ in range(30):
                            await gate.ingress(tenant, tenant, 1_000)

        await pushed("greedy", until_s=60)
        assert gate.view().state is State.CLOSED
        gate.admit("modest's next")
        await gate.ingress("modest", "m", 10)
        await pushed("greedy", "modest", until_s=90)
        assert gate.view().state is State.OPEN

    asyncio.run(check())


@pytest.mark.alone
def test_downloads_share_the_link_evenly_whoever_asks_more() -> None:
    """Ten readers of one tenant beside one of another: half each, with real waiting."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        gate = Gate(GateSettings(egress_bytes_per_s=200 * MB), lambda _tenant: 1.0, loop.time)
        moved = {"much": 0, "little": 0}
        end_s = loop.time() + 1.0

        async def read(tenant: str) -> None:
            while loop.time() < end_s:
                await gate.egress(tenant, MB)
                moved[tenant] += MB

        async with asyncio.TaskGroup() as group:
            for tenant in ["much"] * 10 + ["little"]:
                group.create_task(read(tenant))
        total = sum(moved.values())
        assert total >= 0.7 * 200 * MB
        assert abs(moved["much"] / total - 0.5) < 0.1

    asyncio.run(check())


def test_a_reader_that_is_cut_while_it_waits_holds_nobody_up() -> None:
    """Its piece leaves the line."""

    async def check() -> None:
        hand = Hand()
        gate = a_gate(hand, egress_bytes_per_s=MB)
        await gate.egress("t", 10 * MB)
        cut = asyncio.ensure_future(gate.egress("t", MB))
        await asyncio.sleep(0)
        cut.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cut
        assert gate.view().waiting_out_bytes == 0

    asyncio.run(check())
