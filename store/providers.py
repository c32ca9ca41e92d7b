"""Providers in the truth, and whose heartbeats each key ever stood for."""

from __future__ import annotations

import msgspec

from coordinator.core.ids import PoolName, ProviderId, ProviderKey, TokenId
from coordinator.core.rows import EndReason, Promises, ProviderRow, Resources
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "provider_id",
    "key",
    "machine_id",
    "pool",
    "credential_id",
    "enrolled_at_ms",
    "labels",
    "resources",
    "boot_id",
    "agent_version",
    "resume_digest",
    "resume_digest_unconfirmed",
    "drained_at_ms",
    "drain_note",
    "away_until_ms",
    "last_seen_ms",
    "last_end",
    "stay_began_ms",
    "promises",
    "quarantined_until_ms",
    "quarantine_why",
    "quarantines",
)
ALL = f"SELECT {', '.join(COLUMNS)} FROM provider"  # noqa: S608  names of ours
"""Every enrolled provider: read at start, bounded by Policy.providers_max."""
REMEMBER_KEY = "INSERT INTO provider_key (key, provider_id) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
KEYS_FROM = "SELECT key FROM provider_key WHERE key >= ? ORDER BY key LIMIT ?"
PRUNE_KEYS = """
DELETE FROM provider_key WHERE key BETWEEN ? AND ?
   AND NOT EXISTS (SELECT 1 FROM provider WHERE provider.key = provider_key.key)
   AND NOT EXISTS (SELECT 1 FROM session WHERE session.provider_id = provider_key.provider_id)
"""
"""A key of a provider that was forgotten and whose last session was pruned: nothing is left that it names."""

_json = msgspec.json.Encoder(order="deterministic")
_labels = msgspec.json.Decoder(dict[str, str])
_resources = msgspec.json.Decoder(Resources)
_promises = msgspec.json.Decoder(Promises)


def to_columns(row: ProviderRow) -> Columns:
    return (
        row.provider_id,
        row.key,
        row.machine_id,
        row.pool,
        row.credential_id,
        row.enrolled_at_ms,
        _json.encode(row.labels).decode(),
        _json.encode(row.resources).decode(),
        row.boot_id,
        row.agent_version,
        row.resume_digest,
        row.resume_digest_unconfirmed,
        row.drained_at_ms,
        row.drain_note,
        row.away_until_ms,
        row.last_seen_ms,
        row.last_end.value if row.last_end is not None else None,
        row.stay_began_ms,
        _json.encode(row.promises).decode(),
        row.quarantined_until_ms,
        row.quarantine_why,
        row.quarantines,
    )


def from_columns(c: Columns) -> ProviderRow:
    """Raises ValueError (msgspec's errors are) for columns that cannot be a provider."""
    return ProviderRow(
        provider_id=ProviderId(c[0]),
        key=ProviderKey(c[1]),
        machine_id=c[2],
        pool=PoolName(c[3]),
        credential_id=TokenId(c[4]),
        enrolled_at_ms=c[5],
        labels=_labels.decode(c[6]),
        resources=_resources.decode(c[7]),
        boot_id=c[8],
        agent_version=c[9],
        resume_digest=c[10],
        resume_digest_unconfirmed=c[11],
        drained_at_ms=c[12],
        drain_note=c[13],
        away_until_ms=c[14],
        last_seen_ms=c[15],
        last_end=EndReason(c[16]) if c[16] is not None else None,
        stay_began_ms=c[17],
        promises=_promises.decode(c[18]),
        quarantined_until_ms=c[19],
        quarantine_why=c[20],
        quarantines=c[21],
    )


TABLE = Table(
    name="provider",
    columns=COLUMNS,
    put=upsert("provider", COLUMNS, ("provider_id",)),
    delete="DELETE FROM provider WHERE provider_id = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
