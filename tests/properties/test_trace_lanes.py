"""Rows of a timeline, for any spans: what is drawn on one row nests."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.traces.exports.lanes import nesting

TIMES = st.integers(0, 40)
SPANS = st.lists(st.tuples(TIMES, st.integers(0, 15), st.integers(0, 2), st.integers(-1, 30)), max_size=40)


def overlaps(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Neither apart nor one within the other."""
    (_, b), (c, d) = sorted((one, other), key=lambda span: (span[0], -span[1]))
    return c < b < d


@settings(max_examples=300, deadline=None)
@given(SPANS)
def test_spans_of_one_row_nest(spans: list[tuple[int, int, int, int]]) -> None:
    """Whatever overlaps whatever: two on one row are apart, or one lies within the other; none is left out."""
    starts = [start for start, _, _, _ in spans]
    ends = [start + length for start, length, _, _ in spans]
    slots = [slot for _, _, slot, _ in spans]
    parents = [parent if parent < len(spans) and parent != i else -1 for i, (_, _, _, parent) in enumerate(spans)]
    rows, order = nesting(starts, ends, slots, parents)
    assert sorted(order) == list(range(len(spans)))
    assert all(row >= 0 for row in rows)
    on: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i in range(len(spans)):
        on.setdefault((slots[i], rows[i]), []).append((starts[i], ends[i]))
    for those in on.values():
        assert not any(overlaps(a, b) for n, a in enumerate(those) for b in those[n + 1 :])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=20))
def test_spans_behind_one_another_take_one_row(gaps: list[tuple[int, int]]) -> None:
    """A slot that does one thing at a time is one row, touching spans too."""
    starts, ends, at = [], [], 0
    for gap, length in gaps:
        starts.append(at + gap)
        ends.append(at + gap + length)
        at += gap + length
    rows, order = nesting(starts, ends, [0] * len(gaps), [-1] * len(gaps))
    assert rows == [0] * len(gaps)
    assert list(order) == sorted(order)
