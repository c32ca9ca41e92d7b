"""Figures as of any past moment, from sessions in memory: what the worker would have published then."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from analytics.figures import HORIZONS_MS, Figures, Lessons
from analytics.reliability.columns import NONE, REASONS, Fleet, fleet_of, sessions_of
from analytics.reliability.learning import FIT_MS, LOOKBACK_MS, PAST_MS, TRIAL_MS, Past
from coordinator.core.events import FiguresPublished
from coordinator.core.ids import Ms


class PastSession(Struct, frozen=True, gc=False):
    """One session of a provider; an end of None: it was still open when the history was written."""

    provider_id: str
    began_ms: Ms
    ended_ms: Ms | None
    reason: str = ""
    """Why it ended, as rows.EndReason; empty: not known."""


class PastFigures:
    """Asked for moments that never go back, it says what was known at each, and learns as the worker does."""

    def __init__(self, sessions: Iterable[PastSession]) -> None:
        """O(sessions)."""
        rows = list(sessions)
        self._ids = sorted({row.provider_id for row in rows})
        codes = {name: code for code, name in enumerate(self._ids)}
        reasons = {name: code for code, name in enumerate(REASONS)}
        self._fleet: Fleet = fleet_of(
            sessions_of(
                [codes[row.provider_id] for row in rows],
                [row.began_ms for row in rows],
                [-1 if row.ended_ms is None else row.ended_ms for row in rows],
                reason=[reasons.get(row.reason, NONE) for row in rows],
            ),
            len(self._ids),
        )
        self._past: Past | None = None
        self._lessons: Lessons = {}
        self._learnt_ms: Ms | None = None

    def at(self, at_ms: Ms) -> FiguresPublished:
        """What would have been published at `at_ms`; nothing that came later is looked at. A fit every FIT_MS."""
        return self.known(at_ms).published()

    def known(self, at_ms: Ms) -> Figures:
        """The same with what it rests on."""
        if self._learnt_ms is None or at_ms - self._learnt_ms >= FIT_MS:
            self._learn(at_ms)
        lessons = self._lessons
        return Figures(self._ids, self._fleet, at_ms, at_ms, lambda: lessons)

    def _learn(self, at_ms: Ms) -> None:
        since_ms = at_ms - PAST_MS - TRIAL_MS - LOOKBACK_MS
        if self._past is None:
            self._past = Past(self._fleet, at_ms, since_ms=since_ms)
        else:
            self._past.renew(self._fleet, at_ms, since_ms)
        self._lessons = {horizon: self._past.lesson(at_ms, horizon) for horizon in HORIZONS_MS}
        self._past.rest()
        self._past.forget_before(at_ms)
        self._learnt_ms = at_ms
