"""Questions about data, asked of the twin's rows: the same answers as store.data_history gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, HoldRow, OutputRow
from coordinator.core.ids import JobId, Ms, TenantName
from coordinator.core.rows import Row
from store.jobs import pattern


def blobs(rows: Iterable[Row], tenant: TenantName, digests: Sequence[str]) -> list[BlobRow]:
    """See ports.store.Store.blobs."""
    wanted = set(digests)
    found = [row for row in rows if isinstance(row, BlobRow) and row.tenant == tenant and row.digest in wanted]
    return sorted(found, key=_place)


def blob_by_sha256(rows: Iterable[Row], tenant: TenantName, sha256: str) -> BlobRow | None:
    """See ports.store.Store.blob_by_sha256."""
    return next(
        (row for row in rows if isinstance(row, BlobRow) and row.tenant == tenant and row.sha256 == sha256 != ""), None
    )


def list_blobs(
    rows: Iterable[Row], tenant: TenantName | None, limit: int, after: tuple[str, str] | None
) -> list[BlobRow]:
    """See ports.store.Store.list_blobs."""
    found = [
        row
        for row in rows
        if isinstance(row, BlobRow) and tenant in (None, row.tenant) and (after is None or _place(row) > after)
    ]
    return sorted(found, key=_place)[:limit]


def holders(rows: Iterable[Row], tenant: TenantName, digest: str, limit: int) -> list[str]:
    """See ports.store.Store.holders."""
    found = [row.holder for row in rows if isinstance(row, HoldRow) and row.tenant == tenant and digest in row.digests]
    return sorted(found)[:limit]


def artifacts(
    rows: Iterable[Row], tenant: TenantName | None, limit: int, after: tuple[str, str] | None, name: str
) -> list[ArtifactRow]:
    """See ports.store.Store.artifacts."""
    found = [
        row
        for row in rows
        if isinstance(row, ArtifactRow)
        and tenant in (None, row.tenant)
        and (after is None or (row.tenant, row.name) > after)
        and (not name or fnmatchcase(row.name, pattern(name)))
    ]
    return sorted(found, key=lambda row: (row.tenant, row.name))[:limit]


def outputs(
    rows: Iterable[Row], job_id: JobId, limit: int, step: int | None, after: tuple[int, int] | None
) -> list[OutputRow]:
    """See ports.store.Store.outputs."""
    found = [
        row
        for row in rows
        if isinstance(row, OutputRow)
        and row.job_id == job_id
        and step in (None, row.step)
        and (after is None or (row.step, row.task) > after)
    ]
    return sorted(found, key=lambda row: (row.step, row.task))[:limit]


def checkpoints(
    rows: Iterable[Row], job_id: JobId, limit: int, step: int | None, task: int | None
) -> list[CheckpointRow]:
    """See ports.store.Store.checkpoints."""
    found = [
        row
        for row in rows
        if isinstance(row, CheckpointRow)
        and row.job_id == job_id
        and step in (None, row.step)
        and task in (None, row.task)
    ]
    return sorted(found, key=lambda row: (row.step, row.task, -row.number))[:limit]


def unheld(rows: Iterable[Row], touched_before_ms: Ms, limit: int) -> list[BlobRow]:
    """See ports.store.Store.unheld."""
    rows = list(rows)
    held = {(row.tenant, digest) for row in rows if isinstance(row, HoldRow) for digest in row.digests}
    old = (row for row in rows if isinstance(row, BlobRow) and row.touched_ms < touched_before_ms)
    found = [row for row in old if _place(row) not in held]
    return sorted(found, key=lambda row: (row.touched_ms, *_place(row)))[:limit]


def _place(row: BlobRow) -> tuple[str, str]:
    return row.tenant, row.digest
