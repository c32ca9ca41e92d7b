"""What the worker knows and can answer. Two threads use it: one that reads and publishes, one for long questions.

The first owns the warehouse; the second reads it through a cursor of its own and learns from the past.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from analytics import answers, snapshots
from analytics.figures import HORIZON_MAX_MS, HORIZONS_MS, Figures, Lessons
from analytics.framing import WorkerQuestion
from analytics.reliability.backtest import CUTS_MAX, backtest, cuts_between
from analytics.reliability.columns import LOST_AFTER_MS, WINDOW_MS, Fleet, Ints
from analytics.reliability.learning import FIT_MS, LOOKBACK_MS, PAST_MS, TRIAL_MS, Past
from analytics.warehouse import Synced, Truth, Warehouse
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.ports.analytics import (
    Answer,
    AskAvailability,
    AskBacktest,
    AskFeatures,
    AskForecast,
    AskNetwork,
    AskReliability,
)
from coordinator.timetext import to_text

FIGURES_MAX = 4
"""Past moments whose figures are kept."""
FRESH_S = 1.0
"""Figures younger than this, or than twenty times what computing them took, answer a question about now."""
HORIZONS_ASKED_MAX = 8
PAST_NEEDED_MS: Ms = PAST_MS + TRIAL_MS + 2 * WINDOW_MS + LOOKBACK_MS
"""How much history learning at a moment looks at."""


class Facts(Truth, Protocol):
    """What is read of the store beside sessions: `store.columns.TruthReader`."""

    def providers(self) -> Sequence[snapshots.Provider]: ...
    def keys(self) -> list[tuple[int, str]]: ...
    def hours(self, since_ms: int = 0) -> snapshots.Hours: ...


class Room:
    """Questions in, answers out. `answer` is for the reading thread, `answer_slowly` for the other one."""

    def __init__(
        self,
        warehouse: Path,
        views: Path,
        truth: Facts,
        memory: str = "512MB",
        threads: int = 2,
        *,
        now_ms: Callable[[], Ms] = lambda: time.time_ns() // 1_000_000,
        lost_after_ms: Ms = LOST_AFTER_MS,
    ) -> None:
        """`now_ms` is the coordinator's clock: a step of the wall clock must not move what "now" is."""
        self._truth = truth
        self._now_ms = now_ms
        self._warehouse = Warehouse(warehouse, views, truth, memory, threads, lost_after_ms)
        self._cursor = self._warehouse.cursor()
        self.rebuilt = self._warehouse.rebuilt
        """Why the warehouse was made anew; empty when it was not."""
        self.now: Figures | None = None
        self._took_s = 0.0
        self._known: OrderedDict[Ms, Figures] = OrderedDict()
        self._enrolled: list[tuple[str, Ms]] = []
        self._outages: tuple[Ints, Ints] | None = None
        self._lessons: Lessons = {}
        self._learnt_ms = 0
        self._past: Past | None = None
        self._learning = threading.Lock()

    # ---- the reading thread

    def sync(self) -> Synced:
        """Take over what changed in the store. History that came from elsewhere makes what was learnt void."""
        synced = self._warehouse.sync()
        self._enrolled = [(facts.provider_id, facts.enrolled_at_ms) for facts in self._truth.providers()]
        if synced.imported:
            self._known.clear()
            with self._learning:
                self._past, self._learnt_ms, self._lessons = None, 0, {}
        return synced

    def compute(self) -> Figures:
        """Figures as of now replace the last ones."""
        began = time.monotonic()
        now = self._now_ms()
        self._outages = self._warehouse.outages(now)
        fleet = self._warehouse.fleet(now, now - WINDOW_MS - LOOKBACK_MS, self._outages)
        lessons = self._lessons
        self.now = Figures(self._warehouse.ids, fleet, now, now, lambda: lessons)
        self._took_s = time.monotonic() - began
        return self.now

    def publish(self) -> None:
        """Replace the snapshots that SQL reads by the last figures, and prune what is too old."""
        assert self.now is not None
        self._warehouse.prune(self.now.at_ms)
        snapshots.publish(self._warehouse, self.now, self._truth)

    def wants_lesson(self) -> bool:
        """Whether the fleet's past has something new to teach."""
        return self._now_ms() - self._learnt_ms >= FIT_MS

    def fresh(self) -> Figures:
        """Figures about now: the last ones when they are young enough, else computed first."""
        if self.now is not None and self._now_ms() - self.now.computed_at_ms < max(FRESH_S, 20 * self._took_s) * 1000:
            return self.now
        if self.sync().rows == 0 and self.now is not None and self._now_ms() - self.now.computed_at_ms < 10_000:
            return self.now
        return self.compute()

    def is_slow(self, question: WorkerQuestion) -> bool:
        """Whether the other thread must answer: about the past, or a backtest."""
        match question:
            case AskBacktest():
                return True
            case _:
                return question.as_of_ms is not None

    def answer(self, question: WorkerQuestion) -> Answer:
        """Answer a question about now. Raises CoordError."""
        return self._say(question, self.fresh())

    # ---- the other thread

    def learn(self) -> None:
        """Fit and judge the blend on what is known now; served from the next figures on."""
        now = self._now_ms()
        with self._learning:
            lessons = self._lessons_at(now, now)
            self._learnt_ms = now
            self._lessons = lessons

    def _lessons_at(self, at_ms: Ms, known_ms: Ms) -> Lessons:
        """What the past teaches at `at_ms`. Cases that were made before are not made again."""
        since = at_ms - PAST_NEEDED_MS
        fleet = self._warehouse.fleet(known_ms, since, self._outages_now(), self._cursor)
        if self._past is None:
            self._past = Past(fleet, known_ms, since_ms=since)
        else:
            self._past.renew(fleet, known_ms, since)
        lessons = {h: self._past.lesson(at_ms, h) for h in HORIZONS_MS}
        self._past.rest()
        self._past.forget_before(at_ms)
        return lessons

    def _outages_now(self) -> tuple[Ints, Ints]:
        assert self._outages is not None, "figures are computed before anything is asked"
        return self._outages

    def answer_slowly(self, question: WorkerQuestion) -> Answer:
        """Answer a question about a past moment, or a backtest. Raises CoordError."""
        if isinstance(question, AskBacktest):
            return self._backtest(question)
        at_ms = question.as_of_ms
        assert at_ms is not None
        return self._say(question, self._as_of(at_ms))

    def _as_of(self, at_ms: Ms) -> Figures:
        now = self._now_ms()
        if at_ms > now:
            raise CoordError(
                Code.BAD_REQUEST,
                f"as of {to_text(at_ms)} was asked, and that is still to come",
                f"name a time up to now, {to_text(now)}",
            )
        known = self._known.pop(at_ms, None)
        if known is None:
            fleet = self._warehouse.fleet(at_ms, at_ms - PAST_NEEDED_MS, self._outages_now(), self._cursor)
            known = Figures(self._warehouse.ids, fleet, at_ms, now, lambda: _lessons_of(fleet, at_ms))
        self._known[at_ms] = known
        while len(self._known) > FIGURES_MAX:
            self._known.popitem(last=False)
        return known

    def _backtest(self, ask: AskBacktest) -> Answer:
        _check_backtest(ask)
        extent = self._warehouse.extent(self._cursor)
        now = self._now_ms()
        known_ms = now if extent.ours else min(extent.last_ms or now, now)
        to_ms = min(ask.to_ms, known_ms) if ask.to_ms is not None else known_ms
        first_ms = extent.first_ms if extent.first_ms is not None else to_ms
        from_ms = max(ask.from_ms, first_ms - ask.window_ms) if ask.from_ms is not None else first_ms
        cuts = cuts_between(from_ms, to_ms, ask.window_ms, ask.every_ms, min(ask.horizons_ms))
        note = ""
        if not cuts:
            days = (to_ms - from_ms) / 86_400_000
            need = (ask.window_ms + min(ask.horizons_ms)) / 86_400_000
            note = f"too little history: {days:.1f} of {need:.1f} days"
        elif len(cuts) > CUTS_MAX:
            note = f"only the last {CUTS_MAX} of {len(cuts)} cuts were made; name a longer step or a shorter time"
            cuts = cuts[-CUTS_MAX:]
        since = (cuts[0] if cuts else to_ms) - PAST_NEEDED_MS
        fleet = self._warehouse.fleet(to_ms, since, self._outages_now(), self._cursor)
        report = backtest(fleet, cuts, to_ms, ask.horizons_ms, ask.window_ms)
        return Answer(json=msgspec.json.encode(answers.backtest(report, ask, note)), computed_at_ms=now)

    # ---- both

    def _say(self, question: WorkerQuestion, figures: Figures) -> Answer:
        encode = msgspec.json.encode
        match question:
            case AskReliability():
                _check_horizon(question.horizon_ms)
                body = encode(answers.reliability(figures, self._enrolled_at(figures.at_ms), question))
            case AskFeatures(provider_id=name, time_zone=zone, suspicion=suspicion):
                row = self._known_provider(figures, name)
                grid = answers.grid_of(figures, row, zone)
                entry = answers.unseen(figures, name) if row is None else answers.features_of(figures, row, None, grid)
                body = encode(msgspec.structs.replace(entry, suspicion=suspicion))
            case AskForecast(provider_id=name, horizon_ms=horizon_ms):
                _check_horizon(horizon_ms)
                row = self._known_provider(figures, name)
                body = encode(answers.forecast_of(figures, row, horizon_ms) if row is not None else None)
            case AskNetwork():
                body = encode(answers.network(figures))
            case AskAvailability(provider_id=None, time_zone=zone):
                body = encode(answers.availability(figures, None, None, zone))
            case AskAvailability(provider_id=name, time_zone=zone):
                assert name is not None
                row = self._known_provider(figures, name)
                body = encode(answers.availability(figures, name, row, zone))
            case AskBacktest():
                raise AssertionError("a backtest is for the other thread")
        return Answer(json=body, computed_at_ms=figures.computed_at_ms)

    def _enrolled_at(self, at_ms: Ms) -> list[str]:
        return [name for name, since in self._enrolled if since <= at_ms]

    def _known_provider(self, figures: Figures, name: str) -> int | None:
        """Its row; None when it is enrolled and no session is known. NOT_FOUND when nothing is."""
        row = figures.code_of(name)
        if row is not None and figures.window.fleet.first_seen[row] >= 0:
            return row
        if any(name == known for known, since in self._enrolled if since <= figures.at_ms):
            return None
        raise CoordError(
            Code.NOT_FOUND,
            f"nothing is known of a provider {name!r} as of {to_text(figures.at_ms)}",
            "coord providers list shows who is enrolled; imported providers appear in coord query reliability",
        )

    def close(self) -> None:
        self._cursor.close()
        self._warehouse.close()


def _lessons_of(fleet: Fleet, at_ms: Ms) -> Lessons:
    """What the fleet's past taught at a past moment."""
    past = Past(fleet, at_ms, since_ms=at_ms - PAST_NEEDED_MS)
    return {h: past.lesson(at_ms, h) for h in HORIZONS_MS}


def _check_horizon(horizon_ms: Ms | None) -> None:
    if horizon_ms is not None and not 0 < horizon_ms <= HORIZON_MAX_MS:
        raise CoordError(
            Code.BAD_REQUEST,
            f"a horizon of {horizon_ms / 1000:g} s was asked",
            "ask for more than 0 s, at most 14 days",
        )


def _check_backtest(ask: AskBacktest) -> None:
    if not 1 <= len(ask.horizons_ms) <= HORIZONS_ASKED_MAX:
        raise CoordError(Code.BAD_REQUEST, f"{len(ask.horizons_ms)} horizons were asked", "ask for 1 to 8")
    for horizon_ms in ask.horizons_ms:
        _check_horizon(horizon_ms)
    if ask.every_ms < 3_600_000 or not 86_400_000 <= ask.window_ms <= 60 * 86_400_000:
        raise CoordError(
            Code.BAD_REQUEST,
            f"a cut every {ask.every_ms / 1000:g} s with a window of {ask.window_ms / 1000:g} s was asked",
            "cuts are at least 1 h apart, a window is 1 to 60 days",
        )
