"""Every event of data to its function: one match, no detail."""

from __future__ import annotations

from typing import assert_never

from coordinator.core.commands import Decision
from coordinator.core.data import (
    artifacts,
    blobs,
    caches,
    checkpoints,
    events,
    meters,
    progress,
    refusals,
    results,
    staging,
    sweeps,
    uploads,
)
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState


def on_data(state: ClusterState, event: events.DataEvent, policy: Policy, out: Decision) -> None:
    """Decide it."""
    match event:
        case events.AttemptProgress():
            progress.on_progress(state, event, policy, out)
        case events.UploadOpen():
            uploads.on_open(state, event, policy, out)
        case events.UploadDone():
            uploads.on_done(state, event, out)
        case events.UploadDrop():
            uploads.on_drop(state, event, out)
        case events.BytesMoved():
            meters.on_moved(state, event, out)
            uploads.prolong(state, event.uploads, policy, out)
        case events.DataRefused():
            refusals.on_refused(state, event, out)
        case events.CacheTold():
            caches.on_cached(state, event, policy)
        case events.AttemptAsks():
            staging.on_asks(state, event, policy, out)
        case events.OutputsPublished():
            results.on_outputs(state, event, policy, out)
        case events.CheckpointPublished():
            checkpoints.on_published(state, event, policy, out)
        case events.CheckpointDamaged():
            checkpoints.on_damaged(state, event, out)
        case events.AttemptRestored():
            checkpoints.on_restored(state, event, out)
        case events.ArtifactPut():
            artifacts.on_put(state, event, policy, out)
        case events.ArtifactRemove():
            artifacts.on_remove(state, event, out)
        case events.BlobsTouch():
            blobs.on_touch(state, event, policy, out)
        case events.SweepBegin():
            sweeps.on_begin(state, event, out)
        case events.SweepEnd():
            sweeps.on_end(state, event, policy, out)
        case _:
            assert_never(event)
