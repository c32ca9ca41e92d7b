"""Sessions become stays: what joins, what ends, what is not known."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.reliability.columns import as_of
from analytics.reliability.features import window_of
from analytics.reliability.intervals import Outages, cut
from analytics.reliability.stays import join
from tests.unit.analytics import naive
from tests.unit.analytics.histories import T0, D, H, M, Row, S, fleet, outages, rows


def joined(history: list[Row], at: int = T0 + D, cuts: list[tuple[int, int]] | None = None) -> list[tuple[int, int]]:
    """(start, end) of the stays as of `at`, in seconds since T0."""
    stays, _ = join(as_of(fleet(history, cuts), at), at)
    return [((int(a) - T0) // S, (int(b) - T0) // S) for a, b in zip(stays.start, stays.end, strict=True)]


def test_blip_of_two_seconds_ends_no_stay() -> None:
    """A session that is followed within lost_after is the same stay, counted as two sessions."""
    history = [Row(0, T0, T0 + H), Row(0, T0 + H + 2 * S, T0 + 2 * H)]
    stays, _ = join(as_of(fleet(history), T0 + D), T0 + D)
    assert [(0, 2 * 3600)] == joined(history)
    assert [2] == stays.sessions.tolist()


def test_gap_of_lost_after_begins_a_new_stay() -> None:
    """30 s end a stay, a millisecond less does not."""
    assert 2 == len(joined([Row(0, T0, T0 + H), Row(0, T0 + H + 30_000, T0 + 2 * H)]))
    assert 1 == len(joined([Row(0, T0, T0 + H), Row(0, T0 + H + 29_999, T0 + 2 * H)]))


def test_gap_counts_from_the_last_heartbeat() -> None:
    """The row's end is up to an interval after the last heartbeat; silence begins at the heartbeat."""
    first = Row(0, T0, T0 + H, beat=T0 + H - 5 * S, boot=1, ours=True)
    assert 2 == len(joined([first, Row(0, T0 + H + 25 * S, T0 + 2 * H, boot=1, ours=True)]))
    assert 1 == len(joined([first, Row(0, T0 + H + 24 * S, T0 + 2 * H, boot=1, ours=True)]))


def test_reboot_ends_a_stay_however_short_the_gap() -> None:
    """Two known boots are two stays, cut at the newcomer where the rows overlap; an unknown boot decides nothing."""
    first = Row(0, T0, T0 + H, boot=1)
    assert 2 == len(joined([first, Row(0, T0 + H + S, T0 + 2 * H, boot=2)]))
    assert [(0, 3595), (3595, 7200)] == joined([first, Row(0, T0 + H - 5 * S, T0 + 2 * H, boot=2)])
    assert 1 == len(joined([first, Row(0, T0 + H + S, T0 + 2 * H, boot=0)]))


def test_overlapping_sessions_are_united() -> None:
    """A session inside another adds nothing, and does not end what goes on around it."""
    assert [(0, 7200)] == joined([Row(0, T0, T0 + 2 * H), Row(0, T0 + M, T0 + 2 * M), Row(0, T0 + H, T0 + H + M)])


def test_outage_of_ours_is_no_gap() -> None:
    """What nobody observed is taken off the gap; for rows from elsewhere it is not."""
    cuts = [(T0 + H, T0 + 2 * H)]
    ours = [Row(0, T0, T0 + H, boot=1, ours=True), Row(0, T0 + 2 * H + 10 * S, T0 + 3 * H, boot=1, ours=True)]
    assert [(0, 3 * 3600)] == joined(ours, cuts=cuts)
    assert 2 == len(joined([row._replace(ours=False) for row in ours], cuts=cuts))


def test_as_of_knows_nothing_of_later() -> None:
    """Sessions that begin later do not exist, an end that comes later is open, its reason unknown."""
    history = [Row(0, T0, T0 + 2 * H), Row(0, T0 + 3 * H, T0 + 4 * H)]
    stays, _ = join(as_of(fleet(history), T0 + H), T0 + H)
    assert ([T0], [T0 + H], [True], [-1]) == tuple(
        column.tolist() for column in (stays.start, stays.end, stays.open, stays.reason)
    )


def test_stay_cut_by_an_outage_is_censored_and_one_that_went_on_has_a_hole() -> None:
    """An ending in the dark is no leaving; time at risk excludes the dark either way."""
    cuts = [(T0 + 2 * H, T0 + 3 * H)]
    history = [
        Row(0, T0, T0 + 2 * H + M, boot=1, ours=True),
        Row(1, T0, T0 + 4 * H, boot=1, ours=True),
        Row(2, T0, T0 + 4 * H),
    ]
    window = window_of(as_of(fleet(history, cuts), T0 + D), T0 + D)
    e = window.exposures
    assert [
        (0, 0, 7200, False),
        (1, 0, 7200, False),
        (1, 10_800, 14_400, True),
        (2, 0, 14_400, True),
    ] == list(zip(e.provider.tolist(), e.enter.tolist(), e.exit.tolist(), e.event.tolist(), strict=True))
    assert [7200, 3 * 3600, 4 * 3600] == (window.online_ms // 1000).tolist()


def test_restart_of_ours_and_supersession_are_no_leavings() -> None:
    """Endings that say nothing about the provider censor; draining and clean closes are leavings, not failures."""
    reasons = ("coordinator_restart", "superseded", "clean_close", "draining", "read_error", "agent_restart")
    history = [Row(i, T0, T0 + H, reason) for i, reason in enumerate(reasons)]
    stays, _ = join(as_of(fleet(history), T0 + D), T0 + D)
    assert [False, False, True, True, True, True] == stays.left.tolist()
    assert [False, False, False, False, True, True] == stays.failed.tolist()


@settings(max_examples=250, deadline=None)
@given(rows(), outages, st.integers(0, 80).map(lambda k: T0 + k * H), st.randoms(use_true_random=False))
def test_stays_and_time_online_equal_the_slow_reference(
    history: list[Row], cuts: list[tuple[int, int]], at: int, shuffle: random.Random
) -> None:
    """Whatever the history, its order and the moment: columns say what plain loops say."""
    expected = naive.settle(naive.stays(history, at, cuts), at, cuts)
    mixed = history[:]
    shuffle.shuffle(mixed)
    known = as_of(fleet(mixed, cuts, providers=3), at)
    stays, _ = join(known, at)
    found = list(
        zip(*(column.tolist() for column in stays[:4]), stays.left.tolist(), stays.failed.tolist(), strict=True)
    )
    assert [(s.provider, s.start, s.end, s.open, s.left, s.failed) for s in expected] == found
    assert [s.sessions for s in expected] == stays.sessions.tolist()

    window = window_of(known, at, 2 * D)
    online = [naive.online_ms(history, p, at, 2 * D, cuts) for p in range(3)]
    assert online == window.online_ms.tolist()
    risks = naive.exposures(expected, at, 2 * D, cuts)
    e = window.exposures
    assert [(r.provider, r.enter, r.exit, r.event) for r in risks] == list(
        zip(e.provider.tolist(), e.enter.tolist(), e.exit.tolist(), e.event.tolist(), strict=True)
    )


@settings(max_examples=200, deadline=None)
@given(outages, st.lists(st.tuples(st.integers(0, 3 * D), st.integers(0, D)), max_size=8))
def test_outages_cut_exactly_what_they_cover(cuts: list[tuple[int, int]], spans: list[tuple[int, int]]) -> None:
    """Pieces and outages together are the interval: nothing is lost, nothing is counted twice."""
    disjoint = naive.disjoint(cuts)
    dark = Outages(np.array([a for a, _ in disjoint], np.int64), np.array([b for _, b in disjoint], np.int64))
    begin = np.array([T0 + a for a, _ in spans], np.int64)
    end = np.array([T0 + a + n for a, n in spans], np.int64)
    hidden = dark.within(begin, end)
    assert [naive.unseen(int(a), int(b), cuts) for a, b in zip(begin, end, strict=True)] == hidden.tolist()
    pieces = cut(begin, end, np.ones(len(begin), np.bool_), dark)
    left = np.bincount(pieces.row, weights=pieces.end - pieces.begin, minlength=len(begin))
    assert (end - begin - hidden).tolist() == left.astype(np.int64).tolist()
