"""Tokens in the truth: their digests, never their text."""

from __future__ import annotations

from coordinator.core.ids import PoolName, ProviderId, TokenId
from coordinator.core.rows import Role, TokenRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "token_id",
    "role",
    "digest",
    "created_at_ms",
    "note",
    "expires_at_ms",
    "revoked_at_ms",
    "provider_id",
    "pool",
    "tenant",
)
ALL = f"SELECT {', '.join(COLUMNS)} FROM token"  # noqa: S608  names of ours
"""Every token: read at start, bounded by Policy.tokens_max."""


def to_columns(row: TokenRow) -> Columns:
    return (
        row.token_id,
        row.role.value,
        row.digest,
        row.created_at_ms,
        row.note,
        row.expires_at_ms,
        row.revoked_at_ms,
        row.provider_id,
        row.pool,
        row.tenant,
    )


def from_columns(c: Columns) -> TokenRow:
    """Raises ValueError for a role that is not known."""
    return TokenRow(
        token_id=TokenId(c[0]),
        role=Role(c[1]),
        digest=c[2],
        created_at_ms=c[3],
        note=c[4],
        expires_at_ms=c[5],
        revoked_at_ms=c[6],
        provider_id=ProviderId(c[7]) if c[7] is not None else None,
        pool=PoolName(c[8]) if c[8] is not None else None,
        tenant=c[9],
    )


TABLE = Table(
    name="token",
    columns=COLUMNS,
    put=upsert("token", COLUMNS, ("token_id",)),
    delete="DELETE FROM token WHERE token_id = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
