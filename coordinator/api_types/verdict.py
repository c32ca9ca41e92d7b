"""The struct of the HTTP answer that is a whole verdict."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.units import Timestamp
from coordinator.core.verdict.rows import Verdict


class VerdictEntry(Struct, frozen=True, kw_only=True):
    """What an attempt died of, as its log tells it."""

    attempt: str
    """`JOB.STEP.TASK.ATTEMPT`."""
    at: Timestamp
    """When it came."""
    late: bool
    """It came when the rules for exit codes had decided, or corrects one that came before it."""
    remark: str
    """How it was made, where that was not as it should be."""
    verdict: Verdict
