"""What a new checkpoint lets go of: blobs that only those had that it makes one too many."""

from __future__ import annotations

import asyncio
from collections.abc import Set

from coordinator import manifest
from coordinator.core.data.answers import Admitted
from coordinator.core.data.rows import BlobRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest
from coordinator.ports.blobs import BlobStore
from coordinator.ports.store import Store

CHECKPOINTS_MAX = 1_000
"""Of one task, the newest: those that are kept stand among the damaged ones, whose rows stay."""


async def giving_way(store: Store, blobs: BlobStore, found: Admitted, fresh: Set[Digest]) -> tuple[BlobRow, ...]:
    """Their rows, but for those of `fresh`, which the new one has. What cannot be read is left to its grace time."""
    task, rule = found.task, found.step.checkpoint
    over = task.checkpoints[: len(task.checkpoints) + 1 - max(1, rule.keep)] if rule is not None else ()
    if not over:
        return ()
    digests: set[Digest] = set()
    for row in await store.checkpoints(task.job_id, CHECKPOINTS_MAX, task.step, task.task):
        if row.number in over:
            try:
                raw = await blobs.read(found.tenant, row.manifest, manifest.BYTES_MAX)
                listed = await asyncio.to_thread(manifest.decode, raw)
            except CoordError as error:
                if error.code is Code.STORE_BROKEN:
                    raise
                continue
            digests |= {row.manifest, *(entry.digest for entry in listed.files)}
    gone = sorted(digests - fresh)
    return tuple(await store.blobs(found.tenant, gone)) if gone else ()
