"""Shares: exact, GPUs by index, a part of one on the fullest that has room."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import AttemptId, JobId, ProviderId, TenantName
from coordinator.core.queue.capacity import Offer, hold, lacks, left_over, offer_of, release, share_of
from coordinator.core.rows import Resources
from coordinator.core.work.live import Load, Work

HALF = UNIT // 2
OFFER = Offer(cpus=4 * UNIT, memory=16 * 10**9, gpus=3, named={"licence": 2 * UNIT})
P = ProviderId("p")
T = TenantName("t")


def attempt(number: int) -> AttemptId:
    return JobId(1), 0, 0, number


def test_an_offer_is_in_the_units_of_an_ask() -> None:
    offer = offer_of(Resources(cpus=1.5, memory_gb=2.0, gpus=("x", "y"), named={"licence": 0.5}))
    assert Offer(cpus=1_500_000, memory=2 * 10**9, gpus=2, named={"licence": 500_000}) == offer


def test_what_does_not_fit_is_named() -> None:
    ask = Ask(cpus=5 * UNIT, memory=17 * 10**9, gpus=4 * UNIT, named=(("dongle", 1), ("licence", UNIT)))
    assert ["cpus", "memory", "gpus", "named:dongle"] == lacks(OFFER, Load(), ask)
    assert share_of(OFFER, Load(), ask) is None


def test_without_a_memory_limit_none_is_reserved() -> None:
    assert share_of(OFFER, Load(memory=16 * 10**9), Ask()) is not None


def test_one_and_a_half_gpus_are_a_whole_one_and_half_of_another() -> None:
    share = share_of(OFFER, Load(), Ask(gpus=UNIT + HALF))
    assert share is not None
    assert [HALF, UNIT] == sorted(amount for _, amount in share.gpus)
    assert 2 == len({index for index, _ in share.gpus})


def test_a_part_goes_to_the_gpu_that_is_shared_already() -> None:
    share = share_of(OFFER, Load(gpus=[0, HALF, UNIT]), Ask(gpus=HALF))
    assert share is not None and ((1, HALF),) == share.gpus


def test_a_whole_gpu_is_never_a_shared_one() -> None:
    assert share_of(OFFER, Load(gpus=[HALF, HALF, HALF]), Ask(gpus=UNIT)) is None


def test_a_share_of_one_gpu_is_not_put_together_from_two() -> None:
    assert share_of(OFFER, Load(gpus=[HALF, HALF, HALF]), Ask(gpus=HALF + 1)) is None


def test_the_better_fit_leaves_less() -> None:
    """GPUs are the dearest: who needs none goes to who has fewest left."""
    ask = Ask()
    full = left_over(OFFER, Load(gpus=[UNIT, UNIT, UNIT]), ask)
    assert full < left_over(OFFER, Load(cpus=3 * UNIT), ask) < left_over(OFFER, Load(), ask)


@given(
    st.lists(
        st.builds(
            Ask,
            cpus=st.integers(0, 2 * UNIT),
            gpus=st.sampled_from((0, HALF, UNIT // 3, UNIT, UNIT + HALF, 2 * UNIT)),
            memory=st.integers(0, 8 * 10**9),
            named=st.sampled_from(((), (("licence", UNIT),))),
        ),
        max_size=12,
    )
)
def test_whatever_is_granted_fits_and_goes_back_to_nothing(asks: list[Ask]) -> None:
    """No sum of shares exceeds the offer, no GPU more than one; released, nothing remains."""
    work = Work()
    held = []
    for number, ask in enumerate(asks):
        share = share_of(OFFER, work.loads.get(P, Load()), ask)
        if share is not None:
            assert ask.gpus == sum(amount for _, amount in share.gpus)
            hold(work, P, attempt(number), 0, share, T)
            held.append((number, share))
    load = work.loads.get(P, Load())
    assert load.cpus <= OFFER.cpus and load.memory <= OFFER.memory and all(g <= UNIT for g in load.gpus)
    assert load.named.get("licence", 0) <= 2 * UNIT
    for number, share in held:
        release(work, P, attempt(number), 0, share)
    assert {} == work.loads
