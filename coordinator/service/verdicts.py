"""Asks what attempts died of, and posts the answers. Decides nothing: the core goes by exit codes when none comes.

Whoever follows logs is told which attempts run, so that most of a log is read before its attempt ends.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from coordinator.core import commands
from coordinator.core.events import AnyEvent
from coordinator.core.ids import AttemptId
from coordinator.core.rows import AttemptState
from coordinator.core.verdict.events import VerdictGiven
from coordinator.ports.attribution import Attribution, Followable, FollowerFigures, Judged, program_name
from coordinator.ports.clock import Clock
from coordinator.service.metrics import VERDICT_S
from coordinator.service.views import LiveViews

WANTED_MAX = 4_096
"""Verdicts that are awaited; the next attempt has none."""
TRIES = 2
"""A worker that died twice over one question is not asked a third time."""
PATIENCE_S = 600.0
"""A verdict that has not come by then is not awaited any more."""
TELL_S = 1.0
"""Between two tellings of what runs; what has run for less is not told of."""
LOOKED_AT_MAX = 4_096
"""Running attempts that are looked at for the oldest ones."""
LESSON_S = 10.0
"""One good run of a program in so long teaches what is usual."""
LESSONS_MAX = 1_024


class _Wanted(NamedTuple):
    note: commands.VerdictWanted
    began_s: float
    tries: int


class VerdictCounters:
    """What became of the questions."""

    def __init__(self) -> None:
        self.given = 0
        self.none: Counter[str] = Counter()
        """Questions without a verdict, by why."""
        self.corrected = 0
        self.seconds = [0] * (len(VERDICT_S) + 1)
        """From an attempt's end to its verdict: the n-th took at most VERDICT_S[n], the last one longer than all."""
        self.seconds_sum = 0.0


class Verdicts:
    """A ports.attribution.Hearer. `run` is its task; `post` takes events for the core."""

    def __init__(
        self,
        attribution: Attribution,
        views: LiveViews,
        clock: Clock,
        post: Callable[[AnyEvent], None],
        *,
        enabled: bool,
        active_max: int,
    ) -> None:
        self.counters = VerdictCounters()
        self.following = FollowerFigures()
        self._attribution, self._views, self._clock, self._post = attribution, views, clock, post
        self._enabled, self._active_max = enabled, active_max
        self._wanted: OrderedDict[AttemptId, _Wanted] = OrderedDict()
        self._lessons: OrderedDict[str, float] = OrderedDict()
        """Programs that taught lately, and when."""
        self._told: list[Followable] = []
        attribution.hear(self)
        views.listen(self._on_note, commands.VerdictWanted)

    @property
    def waiting(self) -> int:
        return len(self._wanted)

    # ---- questions

    def _on_note(self, note: commands.Note) -> None:
        if not isinstance(note, commands.VerdictWanted):
            return
        if note.state is AttemptState.COMPLETED:
            if self._enabled and self._teaches(note):
                self._attribution.judge(note)
        elif not self._enabled:
            self._give_none(note.attempt_id, "disabled", "verdicts are off")
        elif len(self._wanted) >= WANTED_MAX:
            self._give_none(note.attempt_id, "capacity", f"{WANTED_MAX} verdicts are awaited already")
        else:
            asked = self._attribution.judge(note)
            self._wanted[note.attempt_id] = _Wanted(note, self._clock.monotonic_s(), int(asked))

    def _teaches(self, note: commands.VerdictWanted) -> bool:
        """Whether this good run is to be read: one of its program in a while."""
        program, now_s = program_name(note.tenant, note.name, note.attempt_id), self._clock.monotonic_s()
        if now_s - self._lessons.get(program, -LESSON_S) < LESSON_S:
            return False
        self._lessons[program] = now_s
        self._lessons.move_to_end(program)
        while len(self._lessons) > LESSONS_MAX:
            self._lessons.popitem(last=False)
        return True

    def _give_none(self, attempt_id: AttemptId, counted: str, why: str) -> None:
        self.counters.none[counted] += 1
        self._post(VerdictGiven(at_ms=self._clock.now_ms(), attempt_id=attempt_id, verdict=None, why_none=why))

    # ---- ports.attribution.Hearer

    def began(self) -> None:
        """A new worker: it is told what runs, and asked again what was not answered."""
        self._told = []
        self._tell_running()
        for attempt_id, wanted in list(self._wanted.items()):
            if wanted.tries >= TRIES:
                del self._wanted[attempt_id]
                self._give_none(attempt_id, "failed", "the analytics worker died over it")
            else:
                asked = self._attribution.judge(wanted.note)
                self._wanted[attempt_id] = wanted._replace(tries=wanted.tries + int(asked))

    def judged(self, judged: Judged) -> None:
        wanted = self._wanted.pop(judged.attempt_id, None)
        if judged.correction:
            self.counters.corrected += 1
        elif wanted is None:
            return  # a lesson, or of a question that was given up
        elif judged.verdict is None:
            self._give_none(judged.attempt_id, "failed", judged.why_none)
            return
        else:
            took_s = self._clock.monotonic_s() - wanted.began_s
            self.counters.given += 1
            self.counters.seconds[bisect_left(VERDICT_S, took_s)] += 1
            self.counters.seconds_sum += took_s
        event = VerdictGiven(
            at_ms=self._clock.now_ms(), attempt_id=judged.attempt_id, verdict=judged.verdict, remark=judged.remark
        )
        self._post(event)

    def figures(self, figures: FollowerFigures) -> None:
        self.following = figures

    # ---- what runs

    async def run(self) -> None:
        """Tell what runs, again and again, until cancelled."""
        while self._enabled:
            await asyncio.sleep(TELL_S)
            self._tell_running()
            self._forget_old()

    def _tell_running(self) -> None:
        running = self._oldest() if self._enabled else []
        if running != self._told and self._attribution.follow(running):
            self._told = running

    def _oldest(self) -> list[Followable]:
        """The oldest running attempts, as many as may be followed. O(LOOKED_AT_MAX) at worst."""
        found: list[Followable] = []
        places = self._active_max
        before_ms = self._clock.now_ms() - int(TELL_S * 1_000)
        for view in islice(self._views.attempts.live(), LOOKED_AT_MAX):
            row = view.row
            if row.started_at_ms is None or row.started_at_ms > before_ms or len(row.ranks) > places:
                continue
            job = self._views.jobs.get(row.job_id)
            name = job.name if job is not None else ""
            found.append(Followable(row.attempt_id, len(row.ranks), program_name(view.tenant, name, row.attempt_id)))
            places -= len(row.ranks)
            if not places:
                break
        return found

    def _forget_old(self) -> None:
        before_s = self._clock.monotonic_s() - PATIENCE_S
        while self._wanted:
            attempt_id, wanted = next(iter(self._wanted.items()))
            if wanted.began_s > before_s:
                return
            del self._wanted[attempt_id]
            self.counters.none["failed"] += 1
