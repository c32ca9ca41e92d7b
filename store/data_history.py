"""Blobs, artifacts, results and checkpoints, read from the truth on demand: the core keeps none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, OutputRow
from coordinator.core.ids import JobId, Ms, TenantName
from store import artifacts, blobs, checkpoints, holds, jobs, outputs
from store.readers import Readers
from store.row_reading import read_rows


class DataHistory:
    """What ports.store.Store answers about data. `report` is told of rows that cannot be read."""

    def __init__(self, readers: Readers, report: Callable[[str], None]) -> None:
        self._readers = readers
        self._report = report

    async def blobs(self, tenant: TenantName, digests: Sequence[str]) -> list[BlobRow]:
        if not digests:
            return []
        return await self._many("blob", blobs.AMONG, (tenant, msgspec.json.encode(sorted(set(digests))).decode()))

    async def blob_by_sha256(self, tenant: TenantName, sha256: str) -> BlobRow | None:
        found = await self._many("blob", blobs.BY_SHA256, (tenant, sha256))
        return found[0] if found else None

    async def list_blobs(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None
    ) -> list[BlobRow]:
        behind = _behind(tenant, after)
        if behind is None:
            return []
        return await self._many("blob", blobs.listing(tenant=tenant is not None), (*behind, limit))

    async def holders(self, tenant: TenantName, digest: str, limit: int) -> list[str]:
        return [holder for (holder,) in await self._readers.rows(holds.OF_BLOB, (tenant, digest, limit))]

    async def artifacts(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None, name: str = ""
    ) -> list[ArtifactRow]:
        behind = _behind(tenant, after)
        if behind is None:
            return []
        sql = artifacts.listing(tenant=tenant is not None, name=bool(name))
        return await self._many("artifact", sql, (*behind, *((jobs.pattern(name),) if name else ()), limit))

    async def artifact(self, tenant: TenantName, name: str) -> ArtifactRow | None:
        found = await self._many("artifact", artifacts.ONE, (tenant, name))
        return found[0] if found else None

    async def outputs(
        self, job_id: JobId, limit: int, step: int | None = None, after: tuple[int, int] | None = None
    ) -> list[OutputRow]:
        last_step, last_task = after if after is not None else (-1, -1)
        if step is None:
            return await self._many("output", outputs.listing(step=False), (job_id, last_step, last_task, limit))
        if last_step > step:
            return []
        last_task = last_task if last_step == step else -1
        return await self._many("output", outputs.listing(step=True), (job_id, step, last_task, limit))

    async def checkpoints(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[CheckpointRow]:
        sql = checkpoints.listing(step=step is not None, task=task is not None)
        return await self._many("checkpoint", sql, (job_id, *(n for n in (step, task) if n is not None), limit))

    async def unheld(self, touched_before_ms: Ms, limit: int) -> list[BlobRow]:
        return await self._many("blob", blobs.UNHELD, (touched_before_ms, limit))

    async def _many(self, table: str, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        return read_rows(table, await self._readers.rows(sql, parameters), self._report)


def _behind(tenant: TenantName | None, after: tuple[str, str] | None) -> tuple[str, str] | None:
    """Where a listing by (tenant, something) begins; None: a page of a tenant behind the one that is asked for."""
    if tenant is None or after is None or after[0] == tenant:
        return (tenant or "", "") if after is None else after
    return (tenant, "") if after[0] < tenant else None
