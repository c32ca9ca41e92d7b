"""What to do about what it died of."""

from __future__ import annotations

from analytics.attribution.case import Case, Choice, Decision
from coordinator.core.verdict.rows import Cause, Fault, Recommendation


def decide(case: Case, choice: Choice) -> Decision:
    """The default of the signature; its `repeat` when the same cause was met before without progress."""
    if choice.primary is None:
        ok = choice.cause is Cause.OK
        return Decision(
            Fault.NOBODY if ok else Fault.UNKNOWN,
            Recommendation.OK if ok else Recommendation.UNKNOWN,
            choice.confidence,
            "nothing wrong was found" if ok else "the log does not say why it ended",
            "",
        )
    row = choice.primary.row
    again = any(past.cause is choice.cause and not past.progressed for past in case.history)
    action = row.repeat if again else row.first
    elsewhere = action is Recommendation.RESTART_ELSEWHERE
    avoid = case.where[choice.primary.source : choice.primary.source + 1] if elsewhere else ()
    return Decision(Fault.UNKNOWN, action, choice.confidence, f"{choice.cause.value}: {row.note}", row.note, avoid)
