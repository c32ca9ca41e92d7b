"""How much longer an attempt should run: by what its program says of its progress, else by what its step expects."""

from __future__ import annotations

from coordinator.core.ids import Ms
from coordinator.core.queue.lines import horizon_ms
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import StepSpec
from coordinator.core.work.live import Attempt

FRACTION_MIN = 0.001
"""Less than this tells nothing of a length yet."""


def left_ms(state: ClusterState, attempt: Attempt) -> Ms | None:
    """What its progress says: as fast as until now. One that resumed did the first part before: it is as fast as since
    its first word. None: it says nothing yet."""
    told, began_ms = attempt.row.progress, attempt.row.started_at_ms
    if told is None or told.fraction is None or began_ms is None:
        return None
    from_ms, from_fraction = began_ms, 0.0
    if attempt.row.restored and attempt.paced is not None:
        from_ms, from_fraction = attempt.paced
    done, since_ms = told.fraction - from_fraction, told.at_ms - from_ms
    if done < FRACTION_MIN or since_ms <= 0:
        return None
    rest_ms = int(since_ms * (1.0 - told.fraction) / done)
    return max(0, rest_ms - (state.now_ms - told.at_ms))


def remaining_ms(state: ClusterState, attempt: Attempt, spec: StepSpec) -> Ms:
    """How long it should go on, whatever tells."""
    told_ms = left_ms(state, attempt)
    if told_ms is not None:
        return told_ms
    ran_ms = state.now_ms - (attempt.row.started_at_ms or state.now_ms)
    return max(0, horizon_ms(spec) - ran_ms)
