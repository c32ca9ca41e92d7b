"""Builders of small histories, and strategies for random ones. Times in seconds for people, ms inside."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from analytics.reliability.columns import NONE, REASONS, Fleet, fleet_of, sessions_of

T0 = 1_700_000_000_000 - 1_700_000_000_000 % 86_400_000
"""A midnight in UTC, a Tuesday."""
S, M, H, D = 1_000, 60_000, 3_600_000, 86_400_000


class Row(NamedTuple):
    """One session. `end` -1: open."""

    provider: int
    start: int
    end: int = -1
    reason: str = "read_error"
    beat: int = -1
    boot: int = 0
    ours: bool = False


def fleet(rows: list[Row], outages: list[tuple[int, int]] | None = None, providers: int | None = None) -> Fleet:
    """A fleet of these rows in this order."""
    n = providers if providers is not None else max((row.provider for row in rows), default=-1) + 1
    sessions = sessions_of(
        [row.provider for row in rows],
        [row.start for row in rows],
        [row.end for row in rows],
        [row.beat for row in rows],
        [NONE if row.end < 0 else REASONS.index(row.reason) for row in rows],
        [row.boot for row in rows],
        [row.ours for row in rows],
    )
    cuts = outages or []
    return fleet_of(sessions, n, ([a for a, _ in cuts], [b for _, b in cuts]))


def every(provider: int, length: int, gap: int, start: int, until: int, reason: str = "read_error") -> list[Row]:
    """Sessions of one length with one gap between them."""
    return [Row(provider, at, at + length, reason) for at in range(start, until - length + 1, length + gap)]


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Up to 25 sessions of 3 providers within three days: overlaps, blips, zero lengths, boots, all reasons."""
    out: list[Row] = []
    times = st.one_of(
        st.integers(0, 60).map(lambda k: k * H),
        st.integers(0, 3 * D // S).map(lambda k: k * S),
        st.integers(0, 3 * D),
    )
    lengths = st.one_of(st.just(0), st.integers(0, 40).map(lambda k: k * S), st.integers(0, D), st.just(4 * H))
    for _ in range(draw(st.integers(0, 25))):
        start = T0 + draw(times)
        ours = draw(st.booleans())
        closed = draw(st.integers(0, 5)) > 0
        end = start + draw(lengths) if closed else -1
        beat = max(start, end - draw(st.integers(0, 5)) * S) if ours and closed else -1
        boot = draw(st.integers(1, 2)) if ours else 0
        out.append(Row(draw(st.integers(0, 2)), start, end, draw(st.sampled_from(REASONS)), beat, boot, ours))
        if draw(st.booleans()) and closed:
            gap = draw(st.sampled_from((0, S, 29_999, 30_000, 30_001, 5 * M)))
            out.append(Row(out[-1].provider, end + gap, end + gap + draw(lengths), "read_error", -1, boot, ours))
    return out


outages = st.lists(
    st.tuples(st.integers(0, 3 * D // S), st.integers(1, 8 * H // S)).map(
        lambda pair: (T0 + pair[0] * S, T0 + (pair[0] + pair[1]) * S)
    ),
    max_size=12,
)


def seconds(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    """Milliseconds since T0 as seconds."""
    return [float(value - T0) / 1000 for value in values]
