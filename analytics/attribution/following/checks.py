"""One in so many verdicts is compared with that of a full pass over the same log, when nobody waits for anything."""

from __future__ import annotations

import sys
from collections import deque
from typing import NamedTuple, Protocol

from analytics.attribution.engine import canonical
from analytics.attribution.following.attempt import FollowedAttempt
from analytics.attribution.following.stored import Gone
from analytics.attribution.following.tally import Tally
from coordinator.core.commands import VerdictWanted
from coordinator.core.ids import dotted
from coordinator.core.verdict.rows import Verdict

CHECKS_MAX = 16
"""Verdicts that wait for their full pass; others are not compared."""


class Tell(Protocol):
    """Says a verdict that mends an earlier one."""

    def __call__(self, wanted: VerdictWanted, verdict: Verdict, remark: str, *, correction: bool = False) -> None: ...


class _Check(NamedTuple):
    wanted: VerdictWanted
    attempt: FollowedAttempt
    """With nothing read yet."""
    upto: int
    expected: str


class Checks:
    """Those that wait. What differs is counted in `tally` and corrected by `tell`."""

    def __init__(self, one_in: int, tally: Tally, tell: Tell) -> None:
        self._one_in, self._tally, self._tell = one_in, tally, tell
        self._waiting: deque[_Check] = deque()
        self._verdicts = 0

    def judged(self, wanted: VerdictWanted, attempt: FollowedAttempt, verdict: Verdict) -> None:
        """A verdict was given on all of a log: one in so many is put in line."""
        self._verdicts += 1
        if self._verdicts % self._one_in == 0 and len(self._waiting) < CHECKS_MAX:
            self._waiting.append(_Check(wanted, attempt.fresh(), attempt.read_bytes, canonical(verdict)))

    def advance(self, slice_bytes: int) -> bool:
        """Go on with the first, and compare when it is through. -> whether there was one."""
        if not self._waiting:
            return False
        check = self._waiting[0]
        try:
            if check.attempt.advance(slice_bytes) and check.attempt.read_bytes < check.upto:
                return True
            verdict = check.attempt.judge(check.wanted)
        except Exception as error:  # nobody waits for it
            if not isinstance(error, Gone):
                sys.excepthook(*sys.exc_info())
            self._waiting.popleft()
            return True
        self._waiting.popleft()
        if check.attempt.read_bytes == check.upto:  # else its log is another now
            self._compare(check, verdict)
        return True

    def _compare(self, check: _Check, verdict: Verdict) -> None:
        self._tally.checked += 1
        if canonical(verdict) != check.expected:
            self._tally.divergent += 1
            sys.stderr.write(f"the verdict of {dotted(check.wanted.attempt_id)} differed from that of a full pass\n")
            self._tell(check.wanted, verdict, "corrected by a full pass over its log", correction=True)
