"""What is made of the sightings: one launch's phases, who is late, and the earliest right answer. Pure: time is given.

The fast path and the slow one both come here. A launch has succeeded as soon as either knows that it runs, and failed
as soon as a state or a line is fatal; the process's own end is the truth, whatever was said before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.ids import Ms
from coordinator.core.verdict.rows import Cause, Recommendation, Verdict
from coordinator.launches.sightings import Ended, LogRead, Past, Phase, Sighting, StateSeen, TryFailed, Unheard

HOLD_MS: Ms = 1_000
"""A fatal line counts when nothing took it back for so long: many a program prints a traceback and goes on."""
CONFIDENT = 0.5
"""Below this a reading of the log is no news."""
LATE_FACTOR = 2
LATE_LEAST_MS: Ms = 10_000
LAUNCHES_LEAST = 3
"""A phase is late when it takes twice as long as nine of ten earlier ones, and ten seconds longer; of fewer launches
than these nothing is concluded."""
KEYS_MAX = 65_536
_NEVER = frozenset({Cause.CAPACITY, Cause.PREEMPTION, Cause.OK, Cause.UNKNOWN, Cause.LAUNCHER_SUMMARY_ONLY})
"""Waiting helps, or nothing is known."""
_OFTEN_TRIED_AGAIN = frozenset({Cause.EXTERNAL_SERVICE, Cause.NETWORK_FABRIC})
"""What programs try again by themselves: fatal only where a restart would not help either."""


class Until(StrEnum):
    SUBMITTED = "submitted"
    RUNNING = "running"
    FINISHED = "finished"


_REACHED = {Until.SUBMITTED: Phase.SUBMITTED, Until.RUNNING: Phase.RUNNING}


class Kind(StrEnum):
    """What a remark is about."""

    PHASE = "phase"
    LATE = "late"
    WAITS = "waits"
    AGAIN = "again"
    AWAY = "away"
    EARLY = "early"
    """The early verdict."""
    END = "end"


@dataclass(frozen=True, kw_only=True)
class Remark:
    """One thing to tell the person who watches. `text` is a line without escapes: it holds what others wrote."""

    kind: Kind
    at_ms: Ms
    text: str
    phase: Phase | None = None
    verdict: Verdict | None = None
    hint: str = ""


class Answer(StrEnum):
    RUNS = "runs"
    COMPLETED = "completed"
    FAILED = "failed"
    LATE = "late"
    """Time was up first."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    answer: Answer
    at_ms: Ms
    why: str
    path: str
    """What knew: `states` or `log`; `time` for neither."""
    exit_code: int | None = None


class Monitor:
    """One launch. Feed it sightings in the order they come, and `pass_time` when `due_ms` has come."""

    def __init__(self, until: Until, began_ms: Ms, within_ms: Ms | None, past: Past | None = None) -> None:
        self.outcome: Outcome | None = None
        """The answer that was asked for: nothing more is to be watched."""
        self.early: Outcome | None = None
        """What was said first, where the end is waited for."""
        self.phase: Phase | None = None
        self.began_ms: dict[Phase, Ms] = {}
        """When each phase of this try began."""
        self._until = until
        self._within_ms = began_ms + within_ms if within_ms is not None and until is not Until.FINISHED else None
        known = (past or Past()).took_ms.items()
        self._past = {phase: _nine_of_ten(took) for phase, took in known if len(took) >= LAUNCHES_LEAST}
        self._seen: dict[str, None] = {}
        self._waits = ""
        self._away = False
        self._late: set[Phase] = set()
        self._fatal: tuple[Ms, Verdict] | None = None
        """Since when the log says that it dies, and of what."""
        self._read: Verdict | None = None
        """What the log of this try amounts to."""
        self._run = ""
        """The try whose log was read last."""
        self._over: set[str] = set()
        """The try before this one; its log may still be read when this one begins."""
        self._told = ""
        """The root of the verdict that was shown."""
        self._words = ""

    def see(self, sighting: Sighting) -> list[Remark]:
        """What is new about it, for people."""
        if self.outcome is not None or self._is_repeated(sighting):
            return []
        remarks: list[Remark] = []
        if self._away and not isinstance(sighting, Unheard | LogRead):
            self._away = False
        match sighting:
            case StateSeen():
                self._on_state(sighting, remarks)
            case LogRead():
                self._on_log(sighting, remarks)
            case TryFailed():
                self._on_again(sighting, remarks)
            case Ended():
                self._on_end(sighting, remarks)
            case Unheard():
                if not self._away:
                    remarks.append(Remark(kind=Kind.AWAY, at_ms=sighting.at_ms, text=f"no answer: {sighting.why}"))
                self._away = True
        return remarks

    def pass_time(self, now_ms: Ms) -> list[Remark]:
        """What follows from time alone."""
        remarks: list[Remark] = []
        if self.outcome is not None:
            return remarks
        if self._fatal is not None and now_ms >= self._fatal[0] + HOLD_MS:
            verdict = self._fatal[1]
            self._decide_early(Answer.FAILED, now_ms, verdict.summary, "log", remarks, verdict=verdict)
        if self.outcome is None and (late_ms := self._late_ms()) is not None and now_ms >= late_ms:
            self._say_late(now_ms, remarks)
        if self.outcome is None and self._within_ms is not None and now_ms >= self._within_ms:
            why = f"not {self._until} in time: {self._standing()}"
            self.outcome = Outcome(answer=Answer.LATE, at_ms=now_ms, why=why, path="time")
            remarks.append(Remark(kind=Kind.END, at_ms=now_ms, text=why))
        return remarks

    @property
    def due_ms(self) -> Ms | None:
        """When time alone will have something to say."""
        fatal_ms = self._fatal[0] + HOLD_MS if self._fatal is not None else None
        due = [ms for ms in (fatal_ms, self._late_ms(), self._within_ms) if ms is not None]
        return min(due) if due and self.outcome is None else None

    # ---- the fast path

    def _on_state(self, seen: StateSeen, remarks: list[Remark]) -> None:
        self._words = seen.words or self._words
        if self.phase is None or seen.phase > self.phase:
            self._reach(seen.phase, seen.at_ms, seen.where, seen.words, remarks)
        if seen.hopeless:
            self._decide_early(Answer.FAILED, seen.at_ms, seen.hopeless, "states", remarks, hint=seen.hint)
        elif seen.waits and seen.waits != self._waits:
            self._waits = seen.waits
            remarks.append(Remark(kind=Kind.WAITS, at_ms=seen.at_ms, text=f"waits: {seen.waits}", hint=seen.hint))

    def _reach(self, phase: Phase, at_ms: Ms, where: str, words: str, remarks: list[Remark]) -> None:
        before = self.phase
        took = f" after {(at_ms - self.began_ms[before]) / 1000:.1f} s" if before is not None else ""
        self.phase = phase
        self.began_ms[phase] = at_ms
        self._waits = ""
        text = phase.word + (f" on {where}" if where else "") + (f" ({words})" if words else "") + took
        remarks.append(Remark(kind=Kind.PHASE, at_ms=at_ms, text=text, phase=phase))
        wanted = _REACHED.get(self._until)
        if wanted is not None and phase >= wanted:
            self.outcome = _runs(phase, at_ms)
        elif wanted is None and self.early is None and phase >= Phase.RUNNING:
            self.early = _runs(phase, at_ms)

    # ---- the slow path

    def _on_log(self, read: LogRead, remarks: list[Remark]) -> None:
        if read.run in self._over:
            return
        self._run = read.run
        verdict = self._read = read.verdict
        if verdict.progress.steps and self.phase is not Phase.PROGRESS:
            self._reach(Phase.PROGRESS, read.at_ms, "", "", remarks)
        if not _is_fatal(verdict):
            self._fatal = None
        elif self._fatal is None or self._fatal[1].root != verdict.root:
            self._fatal = (read.at_ms, verdict)

    # ---- ends

    def _on_again(self, failed: TryFailed, remarks: list[Remark]) -> None:
        remarks.append(Remark(kind=Kind.AGAIN, at_ms=failed.at_ms, text=f"it is tried again: {failed.why}"))
        self.phase, self.began_ms, self._late, self._fatal = Phase.QUEUED, {Phase.QUEUED: failed.at_ms}, set(), None
        self._read = None
        self._over = {self._run} if self._run else set()

    def _on_end(self, end: Ended, remarks: list[Remark]) -> None:
        answer = Answer.COMPLETED if end.ok else Answer.FAILED
        verdict = None if end.ok or self._read is None or self._read.cause is Cause.OK else self._read
        if verdict is not None and verdict.root == self._told:
            verdict = None  # shown before, with its lines
        text = end.words
        if end.ok and self.early is not None and self.early.answer is Answer.FAILED:
            text += f"; what was said before was wrong: {self.early.why}"
        hint = verdict.advice if verdict is not None else ""
        self.outcome = Outcome(answer=answer, at_ms=end.at_ms, why=end.words, path="states", exit_code=end.exit_code)
        remarks.append(Remark(kind=Kind.END, at_ms=end.at_ms, text=text, verdict=verdict, hint=hint))

    def _decide_early(
        self,
        answer: Answer,
        at_ms: Ms,
        why: str,
        path: str,
        remarks: list[Remark],
        *,
        verdict: Verdict | None = None,
        hint: str = "",
    ) -> None:
        """It is going to fail. Said once; the end is waited for only where that was asked for."""
        self._fatal = None
        if self.early is not None and self.early.answer is Answer.FAILED:
            return
        hint = hint or (verdict.advice if verdict is not None else "")
        outcome = Outcome(answer=answer, at_ms=at_ms, why=why, path=path)
        remarks.append(Remark(kind=Kind.EARLY, at_ms=at_ms, text=why, verdict=verdict, hint=hint))
        self.early = outcome
        self._told = verdict.root if verdict is not None else ""
        if self._until is not Until.FINISHED:
            self.outcome = outcome

    # ---- time

    def _late_ms(self) -> Ms | None:
        phase = self.phase
        if phase is None or phase in self._late or phase >= Phase.RUNNING or phase not in self._past:
            return None
        usual_ms = self._past[phase]
        return self.began_ms[phase] + max(LATE_FACTOR * usual_ms, usual_ms + LATE_LEAST_MS)

    def _say_late(self, now_ms: Ms, remarks: list[Remark]) -> None:
        assert self.phase is not None
        self._late.add(self.phase)
        so_far_s = (now_ms - self.began_ms[self.phase]) / 1000
        usual_s = self._past[self.phase] / 1000
        text = f"late: {self.phase.word} for {so_far_s:.0f} s; nine of ten earlier launches needed {usual_s:.1f} s"
        remarks.append(Remark(kind=Kind.LATE, at_ms=now_ms, text=text, phase=self.phase))

    def _standing(self) -> str:
        if self.phase is None:
            return "nothing was heard of it"
        reason = self._waits or self._words
        return f"it is {self.phase.word}" + (f", {reason}" if reason else "")

    def _is_repeated(self, sighting: Sighting) -> bool:
        key = getattr(sighting, "key", "")
        if not key:
            return False
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > KEYS_MAX:
            del self._seen[next(iter(self._seen))]
        return False


def _runs(phase: Phase, at_ms: Ms) -> Outcome:
    path = "log" if phase is Phase.PROGRESS else "states"
    return Outcome(answer=Answer.RUNS, at_ms=at_ms, why=phase.word, path=path)


def _is_fatal(verdict: Verdict) -> bool:
    """Whether these lines mean that it dies. What passes by itself is its own to settle: only its end will tell."""
    if verdict.cause in _NEVER or verdict.confidence < CONFIDENT:
        return False
    if verdict.cause in _OFTEN_TRIED_AGAIN:
        return verdict.recommendation is Recommendation.STOP
    return verdict.recommendation in (Recommendation.STOP, Recommendation.RESTART, Recommendation.RESTART_ELSEWHERE)


def _nine_of_ten(took_ms: list[Ms]) -> Ms:
    ordered = sorted(took_ms)
    return ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
