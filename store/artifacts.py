"""Artifacts in the truth: blobs that people gave a name."""

from __future__ import annotations

from coordinator.core.data.rows import ArtifactRow
from coordinator.core.ids import Digest, TenantName
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("tenant", "name", "digest", "size", "created_at_ms", "by_whom", "executable")
_NAMES = ", ".join(COLUMNS)
ONE = f"SELECT {_NAMES} FROM artifact WHERE tenant = ? AND name = ?"  # noqa: S608  names are constants of ours


def listing(*, tenant: bool, name: bool) -> str:
    """(tenant, name, [pattern,] limit): artifacts of one tenant or of all by (tenant, name) rising, after that one."""
    conditions = ["tenant = ? AND name > ?" if tenant else "(tenant, name) > (?, ?)"] + ["name GLOB ?"] * name
    return f"SELECT {_NAMES} FROM artifact WHERE {' AND '.join(conditions)} ORDER BY tenant, name LIMIT ?"  # noqa: S608  names of ours


def to_columns(row: ArtifactRow) -> Columns:
    return (row.tenant, row.name, row.digest, row.size, row.created_at_ms, row.by, int(row.executable))


def from_columns(c: Columns) -> ArtifactRow:
    return ArtifactRow(
        tenant=TenantName(c[0]),
        name=c[1],
        digest=Digest(c[2]),
        size=c[3],
        created_at_ms=c[4],
        by=c[5],
        executable=bool(c[6]),
    )


TABLE = Table(
    name="artifact",
    columns=COLUMNS,
    put=upsert("artifact", COLUMNS, ("tenant", "name")),
    delete="DELETE FROM artifact WHERE tenant = ? AND name = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
