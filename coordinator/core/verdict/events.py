"""What analytics says of an attempt that has ended."""

from __future__ import annotations

from coordinator.core.event import Event
from coordinator.core.ids import AttemptId
from coordinator.core.verdict.rows import Verdict


class VerdictGiven(Event, frozen=True, kw_only=True, tag="verdict_given"):
    """The answer to a VerdictWanted. None: there is none, and the rules for exit codes decide at once."""

    attempt_id: AttemptId
    verdict: Verdict | None
    why_none: str = ""
    remark: str = ""
    """How it was made, where that was not as it should be: for people."""
