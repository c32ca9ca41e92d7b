"""What let an attempt go at last: of all that held its task back, the one that was over last.

Recorded at dispatch; `AuditRow.unblocked_by` has the words. A task could be placed from some moment on (its submission,
the end of a step before it, of a backoff, of a limit). Was it looked at in vain after that, something that came free
since is what it waited for: what its own provider got free last, else what anybody did.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.ids import Ms, ProviderId
from coordinator.core.work.live import Line, Step, Task, Work


def own_cause(step: Step, task: Task | None) -> tuple[Ms, str]:
    """From when on it could have been placed, had there been room, and what let it. No task: the step's next one."""
    ready = step.unblocked_ms, step.unblocked_by
    if task is None:
        return ready
    own = task.since_ms, task.row.waits_for
    return ready if ready[1].startswith("limit") and ready[0] > own[0] else own


def cause_of(work: Work, line: Line, step: Step, task: Task | None, providers: Iterable[ProviderId]) -> str:
    """Of an attempt that is placed there now, and stood in this line. O(providers)."""
    since_ms, own = own_cause(step, task)
    if not line.held_by and line.number > work.blocked_to:
        return own
    in_vain = line.held_ms >= since_ms
    if in_vain and line.held_by.startswith("quota"):
        return f"limit {line.held_by}"
    since_ms += not in_vain  # at that very moment: what let it go may have freed it, too
    for latest in (max((work.freed[who] for who in providers if who in work.freed), default=None), work.freed_last()):
        if latest is not None and latest[0] >= since_ms:
            return latest[1]
    return own
