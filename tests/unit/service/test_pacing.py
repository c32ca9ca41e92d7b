"""One direction of a shared link, on a virtual clock."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.service.data.pacing import FairLink, Piece

MB = 1_000_000


def run(link: FairLink, demand: dict[str, int], seconds: float, piece: int = MB) -> Counter[str]:
    """What each tenant moves when it always has `demand` pieces in line."""
    now_s, moved = 0.0, Counter[str]()
    waiting: Counter[str] = Counter()
    while now_s < seconds:
        for tenant, count in demand.items():
            while waiting[tenant] < count:
                link.ask(tenant, piece)
                waiting[tenant] += 1
        for gone in link.advance(now_s):
            moved[gone.tenant] += gone.size
            waiting[gone.tenant] -= 1
        now_s = max(now_s + 0.001, min(link.next_s(now_s), now_s + 0.05))
    return moved


def test_ten_times_the_demand_gets_no_more_of_the_link() -> None:
    """Two tenants at 10:1 demand: each gets its share within 10 %, the link is used to 95 % at least."""
    link = FairLink(100 * MB, 0.0)
    for tenant in ("much", "little"):
        link.know(tenant, 1.0, 0.0, 0.0)
    moved = run(link, {"much": 10, "little": 1}, 20.0)
    total = sum(moved.values())
    assert total >= 0.95 * 100 * MB * 20
    assert abs(moved["much"] / total - 0.5) < 0.05


def test_weights_share_the_link() -> None:
    """Three to one, within 5 %."""
    link = FairLink(50 * MB, 0.0)
    link.know("three", 3.0, 0.0, 0.0)
    link.know("one", 1.0, 0.0, 0.0)
    moved = run(link, {"three": 4, "one": 4}, 20.0)
    assert abs(moved["three"] / sum(moved.values()) - 0.75) < 0.0375


def test_who_is_alone_has_the_whole_link() -> None:
    """Shares are of what others want too: an idle tenant costs nobody anything."""
    link = FairLink(10 * MB, 0.0)
    for tenant in ("alone", *map(str, range(50))):
        link.know(tenant, 1.0, 0.0, 0.0)
    assert run(link, {"alone": 1}, 10.0)["alone"] >= 98 * MB


def test_a_rate_of_its_own_bounds_a_tenant_and_leaves_the_rest_to_others() -> None:
    """The capped one gets its rate and the burst, the other one all the rest."""
    link = FairLink(100 * MB, 0.0)
    link.know("capped", 1.0, 10 * MB, 0.0)
    link.know("free", 1.0, 0.0, 0.0)
    moved = run(link, {"capped": 5, "free": 5}, 10.0)
    assert moved["capped"] <= 10 * MB * 10 + 2 * MB + MB
    assert moved["free"] >= 85 * MB * 10


def test_a_burst_over_one_second_is_a_fifth_more_than_the_rate() -> None:
    """After an idle hour one second moves at most 120 % and a piece."""
    link = FairLink(100 * MB, 0.0)
    link.know("t", 1.0, 0.0, 0.0)
    link.advance(3_600.0)
    moved, now_s = 0, 3_600.0
    while now_s < 3_601.0:
        link.ask("t", MB)
        moved += sum(piece.size for piece in link.advance(now_s))
        now_s += 0.001
    assert 115 * MB <= moved <= 122 * MB


def test_who_was_away_has_not_saved_anything_up() -> None:
    """A tenant that comes after an hour does not push the other one aside."""
    link = FairLink(10 * MB, 0.0)
    for tenant in ("steady", "late"):
        link.know(tenant, 1.0, 0.0, 0.0)
    run(link, {"steady": 1}, 30.0)
    moved: Counter[str] = Counter()
    pieces: list[Piece] = [link.ask(tenant, MB) for _ in range(50) for tenant in ("steady", "late")]
    now_s = 30.0
    while now_s < 34.0:
        moved.update(piece.tenant for piece in link.advance(now_s))
        now_s += 0.01
    assert pieces
    assert abs(moved["steady"] - moved["late"]) <= 2


def test_what_is_forgotten_leaves_its_place_free() -> None:
    """A transfer that was cut does not hold up the one behind it."""
    link = FairLink(MB, 0.0)
    link.know("t", 1.0, 0.0, 0.0)
    first, second, third = (link.ask("t", MB) for _ in range(3))
    assert link.advance(0.0) == [first]
    link.forget(second)
    assert (link.waiting_bytes, link.behind("t")) == (MB, MB)
    assert link.advance(link.next_s(0.0)) == [third]
    assert link.waiting_bytes == 0


def test_an_unbounded_link_holds_nobody_up() -> None:
    """Rate 0: every piece goes with the next advance."""
    link = FairLink(0, 0.0)
    link.know("t", 1.0, 0.0, 0.0)
    pieces = [link.ask("t", 1 << 30) for _ in range(3)]
    assert link.advance(0.0) == pieces
    assert link.next_s(0.0) == float("inf")


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 5 * MB), st.floats(0, 0.5), st.booleans(), st.booleans()),
        max_size=60,
    )
)
def test_bytes_are_counted_exactly_and_never_faster_than_the_rate(
    asked: list[tuple[str, int, float, bool, bool]],
) -> None:
    """Whatever comes, is spilled or is forgotten: counts return to zero, and the rate holds but for one piece."""
    link, now_s = FairLink(2 * MB, 0.0), 0.0
    for tenant in "abc":
        link.know(tenant, 1.0, 0.0, 0.0)
    went = 0
    for tenant, size, wait_s, spilled, forgotten in asked:
        now_s += wait_s
        piece = link.ask(tenant, size)
        went += sum(one.size for one in link.advance(now_s))
        if not piece.gone and spilled:
            link.spill(piece)
        if forgotten:
            link.forget(piece)
        assert went <= 2 * MB * (now_s + 0.2) + 5 * MB
    for _ in range(10_000):
        if (at_s := link.next_s(now_s)) == float("inf"):
            break
        now_s = at_s
        link.advance(now_s)
    else:
        pytest.fail("something waits for ever")
    assert (link.waiting_bytes, link.spilled_bytes) == (0, 0)
