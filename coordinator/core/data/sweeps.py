"""Sweeps: what nobody holds is removed, two sweeps apart from whoever looked before.

SweepBegin, then the store is asked what nobody holds, then SweepEnd with its answer. Whatever is referred to between
the two is spared; what is removed is remembered for two sweeps, so that nobody refers to it by an older look.
"""

from __future__ import annotations

from coordinator.core.commands import Decision, Reply
from coordinator.core.data.answers import Swept
from coordinator.core.data.blobs import remove
from coordinator.core.data.events import SweepBegin, SweepEnd
from coordinator.core.data.live import Blob, Sweep
from coordinator.core.errors import Code, CoordError
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState


def on_begin(state: ClusterState, event: SweepBegin, out: Decision) -> None:
    """One that did not come to its end is forgotten."""
    state.data.sweep = Sweep()
    out.replies.append(Reply(event.request_id, None))


def on_end(state: ClusterState, event: SweepEnd, policy: Policy, out: Decision) -> None:
    data, sweep = state.data, state.data.sweep
    if sweep is None:
        raise CoordError(Code.CONFLICT, "no sweep has begun since the last one ended", "begin one first")
    data.sweep = None
    gone: dict[Blob, None] = {}
    for row in event.candidates if not sweep.spoiled else ():
        key = (row.tenant, row.digest)
        newest = data.recent.get(key, row)
        young = newest.touched_ms > state.now_ms - policy.blob_grace_ms
        missed = key in gone or any(key in victims for victims in data.victims)
        if len(gone) < policy.sweep_max and key not in sweep.referred and not young and not missed:
            remove(state, newest, out)
            gone[key] = None
    data.victims = (gone, data.victims[0])
    out.replies.append(Reply(event.request_id, Swept(gone=tuple(gone))))
