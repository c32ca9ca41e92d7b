"""Follows the logs of attempts that run, and says what those died of that have ended. Never decides anything.

Work comes in slices: `answer` for whoever waits for a verdict, `read_on` for logs that grow and for what was kept back
to be checked. It reads files that others write, and costs whoever writes them nothing.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from analytics.attribution.engine import Rules, canonical
from analytics.attribution.following.attempt import FollowedAttempt, ranks_of
from analytics.attribution.following.checks import Checks
from analytics.attribution.following.places import Places
from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.shelf import Shelf
from analytics.attribution.following.stored import READ_BYTES, Gone
from analytics.attribution.following.tally import Tally
from analytics.attribution.following.usual import Usual
from coordinator.core.commands import VerdictWanted
from coordinator.core.ids import AttemptId, Ms
from coordinator.core.rows import AttemptState
from coordinator.core.verdict.rows import Verdict
from coordinator.ports.attribution import Followable, FollowerFigures, Judged, program_name

SLICE_BYTES = 128 * 1024
"""Read at a time where nobody waits: an answer may have to wait for that."""
LOOK_S = 0.2
"""Between two looks at logs that did not grow."""
WAIT_S = 0.01
"""The same while an attempt has ended and the end of its log is awaited."""
WAITING_MAX = 4_096
"""Ended attempts that wait for their verdict; the next one has none."""
PATIENCE_MS: Ms = 1_500
"""The end of a log is awaited so long where nobody says until when."""
MARGIN_MS: Ms = 400
"""An answer is given so long before the coordinator goes by exit codes alone."""
HOPELESS_BYTES = 48 * 1024 * 1024
"""All of a log is there, and more of it is unread than can be read in time: nobody is kept waiting for it."""
REST_MS: Ms = 30_000
"""A log whose end was not there in time is awaited so long still, to mend the verdict."""
OPEN_MAX = 64
"""Attempts whose end is read at a time."""
LESSON_BYTES_MAX = 16 * 1024 * 1024
"""Of a good run, still to be read when it has ended: one with more teaches nothing."""
GIVEN_UP_MAX = 1_024
WHY_MAX = 300
SWEEP_S = 600.0
STALE_S = 3_600.0
"""A kept state that nobody asked for in so long goes."""
USUAL_KEY = "usual"


class _Question(NamedTuple):
    wanted: VerdictWanted
    attempt: FollowedAttempt
    until_ms: Ms
    remark: str
    given: Verdict | None
    """What was said when the end of its log was not there in time."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the answer."""
        return self.given is None and self.wanted.state is not AttemptState.COMPLETED


class Follower:
    """See the module. `say` is told of every verdict; `now_ms` is the coordinator's clock. For one thread at a
    time."""

    def __init__(
        self,
        root: Path,
        shelf: Shelf,
        rules: Rules,
        settings: AttributionSettings,
        places: Places,
        say: Callable[[Judged], None],
        now_ms: Callable[[], Ms],
    ) -> None:
        self.tally = Tally()
        self._root, self._shelf, self._rules = root, shelf, rules
        self._places, self._say, self._now_ms = places, say, now_ms
        self._usual = Usual()
        self._running: dict[AttemptId, FollowedAttempt] = {}
        self._questions: OrderedDict[AttemptId, _Question] = OrderedDict()
        self._line: deque[VerdictWanted] = deque()
        """Asked, and not begun."""
        self._checks = Checks(settings.check_one_in, self.tally, self._tell)
        self._given_up: OrderedDict[AttemptId, None] = OrderedDict()
        """Following these failed."""
        self._looked_s = self._swept_s = 0.0
        kept = shelf.get(USUAL_KEY)
        if kept is not None:
            self._usual.restore(kept)

    # ---- what is said to it

    def follow(self, running: Sequence[Followable]) -> None:
        """These run, the oldest first. Who is followed already keeps its place."""
        named = {one.attempt_id for one in running} | {wanted.attempt_id for wanted in self._line}
        for attempt_id in [key for key in self._running if key not in named]:
            # It has ended, and is asked about in a moment, or nobody will: what was read of it is kept.
            self._running[attempt_id].save(self._shelf)
            self._leave(attempt_id)
            self.tally.cancelled += 1
        for attempt_id, ranks, program in running:
            if attempt_id in self._running or attempt_id in self._questions or attempt_id in self._given_up:
                continue
            if self._places.take(ranks):
                self._running[attempt_id] = self._begun(attempt_id, range(ranks), program)
                self.tally.started += 1
        self._looked_s = 0.0

    def ask(self, wanted: VerdictWanted) -> None:
        """What did it die of? Answered by one `say`, at times by a second one that corrects it."""
        asked = self._questions.get(wanted.attempt_id)
        if asked is not None:  # it was lost, and came back with its end
            self._questions[wanted.attempt_id] = asked._replace(
                wanted=wanted, until_ms=self._until_ms(wanted), given=None
            )
            return
        if len(self._line) + len(self._questions) >= WAITING_MAX:
            self.tally.fallbacks["capacity"] += 1
            text = f"{WAITING_MAX} verdicts wait already"
            self._say(Judged(attempt_id=wanted.attempt_id, verdict=None, why_none=text))
            return
        self._line.append(wanted)

    def figures(self) -> FollowerFigures:
        followed = sum(len(attempt.ranks) for attempt in self._running.values())
        return self.tally.figures(followed, len(self._questions) + len(self._line))

    # ---- the work

    def answer(self) -> float | None:
        """A slice of work that somebody waits for. -> how long nothing is to be done: 0.0, there is more; None, nobody
        waits any more."""
        began = time.perf_counter()
        try:
            self._open()
            if self._advance_questions(awaited=True):
                return 0.0
            return WAIT_S if any(question.is_awaited for question in self._questions.values()) else None
        finally:
            self.tally.busy_s += time.perf_counter() - began

    def read_on(self) -> float | None:
        """A slice of work that nobody waits for. -> the same; None, until something is said."""
        began = time.perf_counter()
        try:
            return self._read_on()
        finally:
            self.tally.busy_s += time.perf_counter() - began

    def _read_on(self) -> float | None:
        if self._advance_questions(awaited=False):
            return 0.0
        now = time.monotonic()
        if self._running and now - self._looked_s >= LOOK_S:
            if self._advance_running():
                return 0.0
            self._looked_s = now
        if self._checks.advance(SLICE_BYTES):
            return 0.0
        if now - self._swept_s >= SWEEP_S:
            self._swept_s = now
            self._shelf.sweep(STALE_S, keep=USUAL_KEY)
        return LOOK_S if self._running or self._questions else None

    # ---- attempts that have ended

    def _open(self) -> None:
        """Begin with those that wait in line, as many as may be under way."""
        while self._line and len(self._questions) < OPEN_MAX:
            wanted = self._line.popleft()
            attempt = self._running.get(wanted.attempt_id)
            remark = ""
            if attempt is None:
                ranks = ranks_of(wanted.exits, max(len(wanted.exits), len(wanted.providers)))
                attempt = self._begun(wanted.attempt_id, ranks, program_of(wanted))
                remark = self._fell_back(attempt) if wanted.state is not AttemptState.COMPLETED else ""
            else:
                self._leave(wanted.attempt_id)
                self.tally.saved_s += attempt.spent_s
            if wanted.state is AttemptState.COMPLETED and attempt.missing(wanted.exits) > LESSON_BYTES_MAX:
                attempt.forget(self._shelf)
                continue  # nobody waits, and others teach the same
            self.tally.left(attempt.missing(wanted.exits))
            self._questions[wanted.attempt_id] = _Question(wanted, attempt, self._until_ms(wanted), remark, None)

    def _until_ms(self, wanted: VerdictWanted) -> Ms:
        """When it is answered with what is there."""
        return wanted.until_ms - MARGIN_MS if wanted.until_ms is not None else self._now_ms() + PATIENCE_MS

    def _fell_back(self, attempt: FollowedAttempt) -> str:
        """Count why nothing of it had been read before its end; what is to be said of that."""
        if attempt.resumed:
            return ""
        if attempt.attempt_id in self._given_up:
            self._given_up.pop(attempt.attempt_id)
            self.tally.fallbacks["failed"] += 1
            return "read at its end: following it had failed"
        if self._places.taken + len(attempt.ranks) > self._places.count:
            self.tally.fallbacks["capacity"] += 1
            return f"read at its end: {self._places.taken} logs were followed already"
        self.tally.fallbacks["stale" if attempt.replays() else "missing"] += 1
        return ""

    def _advance_questions(self, *, awaited: bool) -> bool:
        """Go on with one of those that somebody waits for, or of the others. -> whether anything was to be done."""
        for attempt_id in [key for key, question in self._questions.items() if question.is_awaited is awaited]:
            question = self._questions[attempt_id]
            self._questions.move_to_end(attempt_id)
            try:
                if self._went_on(question):
                    return True
            except Gone:
                self.tally.cancelled += 1
                self._drop(question, "its log was removed")
                return True
            except Exception as error:  # of one log: the others are judged all the same, and it is said
                sys.excepthook(*sys.exc_info())
                self.tally.failed += 1
                self._drop(question, f"judging it failed: {error!r}"[:WHY_MAX])
                return True
        return False

    def _went_on(self, question: _Question) -> bool:
        """A slice of one. -> whether there was anything to do."""
        wanted, attempt = question.wanted, question.attempt
        read = attempt.advance(READ_BYTES if question.is_awaited else SLICE_BYTES)
        self.tally.read_bytes += read
        self._count_replays(attempt)
        if attempt.has(wanted.exits):
            self._answer(question)
            return True
        attempt.save(self._shelf)
        over = self._now_ms() >= question.until_ms
        if question.is_awaited:
            left = attempt.behind()
            hopeless = left > HOPELESS_BYTES and left >= attempt.missing(wanted.exits)
            if over and not read and attempt.read_beyond_index(wanted.exits):
                self._answer(question)
            elif over or hopeless:
                self._answer_early(question)
            return over or read > 0
        if read:
            self._questions[wanted.attempt_id] = question._replace(until_ms=self._now_ms() + REST_MS)
        elif over:
            self._close(question)  # the rest never came
        return over or read > 0

    def _answer_early(self, question: _Question) -> None:
        """Not all of its log was read, and somebody waits. Where the end of it lies there, that is what tells."""
        wanted, attempt = question.wanted, question.attempt
        if attempt.behind():
            verdict = attempt.judge_ends(wanted)
            remark = f"by the end of its log alone: {attempt.missing(wanted.exits)} bytes were still to be read"
        else:
            verdict = attempt.judge(wanted)
            remark = f"the last {attempt.missing(wanted.exits)} bytes of its log had not arrived"
        self._tell(wanted, verdict, _joined(question.remark, remark))
        until_ms = self._now_ms() + REST_MS
        self._questions[wanted.attempt_id] = question._replace(given=verdict, until_ms=until_ms)

    def _answer(self, question: _Question) -> None:
        """All of its log was read."""
        wanted, attempt, given = question.wanted, question.attempt, question.given
        if wanted.state is AttemptState.COMPLETED:
            self._usual.learn(program_of(wanted), attempt.fingerprints())
            self._shelf.put(USUAL_KEY, self._usual.save())
            self.tally.completed += 1
            self._close(question)
            return
        verdict = attempt.judge(wanted)
        if given is None:
            self._tell(wanted, verdict, question.remark)
        elif canonical(given) != canonical(verdict):
            self._tell(wanted, verdict, "made again when all of its log was read", correction=True)
        self._checks.judged(wanted, attempt, verdict)
        self._close(question)

    def _close(self, question: _Question) -> None:
        del self._questions[question.wanted.attempt_id]
        question.attempt.forget(self._shelf)

    def _drop(self, question: _Question, why: str) -> None:
        self._close(question)
        if question.is_awaited:
            self._say(Judged(attempt_id=question.wanted.attempt_id, verdict=None, why_none=why))

    def _tell(self, wanted: VerdictWanted, verdict: Verdict, remark: str, *, correction: bool = False) -> None:
        self.tally.completed += not correction
        self._say(Judged(attempt_id=wanted.attempt_id, verdict=verdict, remark=remark, correction=correction))

    # ---- attempts that run

    def _begun(self, attempt_id: AttemptId, ranks: Sequence[int], program: str) -> FollowedAttempt:
        attempt = FollowedAttempt(self._root, attempt_id, ranks, self._rules, self._usual.of(program))
        attempt.restore(self._shelf)
        return attempt

    def _advance_running(self) -> bool:
        """Read a slice of one of them. -> whether there was anything to read."""
        for attempt_id in list(self._running):
            attempt = self._running[attempt_id]
            try:
                read = attempt.advance(SLICE_BYTES)
                attempt.save(self._shelf)
            except Gone:
                self.tally.cancelled += 1
                self._leave(attempt_id)
                continue
            except Exception:  # of one log: it is read once more when its attempt has ended
                sys.excepthook(*sys.exc_info())
                self.tally.failed += 1
                self._give_up(attempt)
                self._leave(attempt_id)
                continue
            self.tally.read_bytes += read
            self._count_replays(attempt)
            if read:
                self._running[attempt_id] = self._running.pop(attempt_id)  # the last in line now
                return True
        return False

    def _give_up(self, attempt: FollowedAttempt) -> None:
        attempt.forget(self._shelf)
        self._given_up[attempt.attempt_id] = None
        while len(self._given_up) > GIVEN_UP_MAX:
            self._given_up.popitem(last=False)

    def _count_replays(self, attempt: FollowedAttempt) -> None:
        self.tally.replays.update(attempt.replays())

    def _leave(self, attempt_id: AttemptId) -> None:
        """Its place is free."""
        self._places.free(len(self._running.pop(attempt_id).ranks))


def program_of(wanted: VerdictWanted) -> str:
    """What the good runs of a program are kept under."""
    return program_name(wanted.tenant, wanted.name, wanted.attempt_id)


def _joined(first: str, second: str) -> str:
    return f"{first}; {second}" if first else second
