"""Blobs in the truth: which bytes a tenant has stored. Whether anybody holds one is kept by triggers of the schema."""

from __future__ import annotations

from coordinator.core.data.rows import BlobRow
from coordinator.core.ids import Digest, TenantName
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("tenant", "digest", "size", "created_at_ms", "touched_ms", "sha256")
_NAMES = ", ".join(COLUMNS)
_OF_BLOB = ", ".join(f"blob.{name}" for name in COLUMNS)
AMONG = f"""
SELECT {_OF_BLOB} FROM json_each(?2) AS wanted CROSS JOIN blob ON blob.tenant = ?1 AND blob.digest = wanted.value
"""  # noqa: S608  names are constants of ours; likewise below
"""(tenant, JSON array of digests): those that it has; a seek each."""
ONE = "SELECT size FROM blob WHERE tenant = ? AND digest = ?"
BY_SHA256 = f"""
SELECT {_NAMES} FROM blob INDEXED BY blob_of_sha256 WHERE tenant = ? AND sha256 = ? AND sha256 <> ''
"""  # noqa: S608  names of ours
UNHELD = f"""
SELECT {_NAMES} FROM blob INDEXED BY blob_unheld
 WHERE held = 0 AND touched_ms < ? ORDER BY touched_ms, tenant, digest LIMIT ?
"""  # noqa: S608  names of ours
"""(touched_before_ms, limit): what nobody holds, the longest untouched first. The index has those alone."""


def listing(*, tenant: bool) -> str:
    """(tenant, digest, limit): blobs of one tenant or of all by (tenant, digest) rising, after that one."""
    condition = "tenant = ? AND digest > ?" if tenant else "(tenant, digest) > (?, ?)"
    return f"SELECT {_NAMES} FROM blob WHERE {condition} ORDER BY tenant, digest LIMIT ?"  # noqa: S608  names of ours


def to_columns(row: BlobRow) -> Columns:
    return (row.tenant, row.digest, row.size, row.created_at_ms, row.touched_ms, row.sha256)


def from_columns(c: Columns) -> BlobRow:
    return BlobRow(
        tenant=TenantName(c[0]),
        digest=Digest(c[1]),
        size=c[2],
        created_at_ms=c[3],
        touched_ms=c[4],
        sha256=c[5],
    )


TABLE = Table(
    name="blob",
    columns=COLUMNS,
    put=upsert("blob", COLUMNS, ("tenant", "digest")),
    delete="DELETE FROM blob WHERE tenant = ? AND digest = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
