"""Which of the things that happened it died of."""

from __future__ import annotations

from analytics.attribution.case import Case, Choice, Happening
from coordinator.core.verdict.rows import Cause, Role


def choose(case: Case) -> Choice:
    """The earliest root that was not refuted, else a cascade, else a lifecycle."""
    for role in (Role.ROOT, Role.CONFIRM, Role.CASCADE, Role.LIFECYCLE):
        found = [one for one in case.happenings if one.row.role is role and not one.refuted and not one.usual]
        if found:
            first = min(found, key=_when)
            return Choice(first.row.cause, first, confidence=0.7)
    ended_badly = case.end is not None and (case.end.code not in (0, None) or case.end.signal is not None)
    return Choice(Cause.UNKNOWN if ended_badly else Cause.OK, None, confidence=0.3)


def _when(one: Happening) -> tuple[int, int]:
    return (one.source, one.open.order)
