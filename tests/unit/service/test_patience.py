"""How long a peer may take over a body."""

from __future__ import annotations

from coordinator.service.data.patience import Patience


def test_who_moves_fast_enough_is_never_over_it() -> None:
    """At the least rate exactly, for hours."""
    patience, now_s = Patience(30.0, 1_000, 0.0), 0.0
    while now_s < 7_200:
        now_s += 10
        assert now_s <= patience.until_s
        patience.moved(10_000, now_s)


def test_who_moves_nothing_or_a_trickle_is_over_it_soon() -> None:
    """A pause of `stall_s` ends it, and so does half the rate, however fast it was before."""
    silent = Patience(30.0, 1_000, 0.0)
    assert 130.0 == silent.moved(10**9, 100.0)
    trickle, now_s = Patience(30.0, 1_000, 0.0), 0.0
    trickle.moved(10**9, now_s)
    while now_s <= trickle.until_s:
        now_s += 1
        trickle.moved(500, now_s)
    assert 55 <= now_s <= 65


def test_the_time_that_we_take_ourselves_is_not_the_peers() -> None:
    """It has all of its patience again."""
    patience = Patience(30.0, 1_000, 0.0)
    assert 330.0 == patience.held_up(300.0)
