"""Suspicions in the truth: verdicts that blame a provider, sixteen of each at most."""

from __future__ import annotations

from coordinator.core.ids import ProviderId, TenantName
from coordinator.core.verdict.rows import Cause, SuspicionRow
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("provider_id", "attempt", "at_ms", "cause", "confidence", "line", "tenant")
_NAMES = ", ".join(COLUMNS)
ALL = f"SELECT {_NAMES} FROM suspicion"  # noqa: S608  read at start
OF_PROVIDER = f"SELECT {_NAMES} FROM suspicion WHERE provider_id = ? ORDER BY at_ms DESC, attempt DESC"  # noqa: S608  names of ours


def to_columns(row: SuspicionRow) -> Columns:
    return (row.provider_id, row.attempt, row.at_ms, row.cause._value_, row.confidence, row.text, row.tenant)


def from_columns(c: Columns) -> SuspicionRow:
    """Raises ValueError for a cause that nobody knows."""
    return SuspicionRow(
        provider_id=ProviderId(c[0]),
        attempt=c[1],
        at_ms=c[2],
        cause=Cause(c[3]),
        confidence=c[4],
        text=c[5],
        tenant=TenantName(c[6]),
    )


TABLE = Table(
    name="suspicion",
    columns=COLUMNS,
    put=upsert("suspicion", COLUMNS, ("provider_id", "attempt")),
    delete="DELETE FROM suspicion WHERE provider_id = ? AND attempt = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
