"""What a coordinator starts from, read from both databases: everything live, nothing of history."""

from __future__ import annotations

from coordinator.core.events import LastBeat
from coordinator.core.ids import Ms, ProviderId, ProviderKey
from coordinator.core.rows import Meta, MetaRow, ProviderRow, Row, SessionRow
from coordinator.ports.store import Loaded
from store import accounts, heartbeats, meta, pools, providers, sessions, suspicions, tenants, tokens, uploads, verdicts
from store.heartbeats import hour_of
from store.live_work import live_work
from store.row_reading import read_row
from store.sqlite import sqlite3

LOOK_BACK_MS: Ms = 300_000
"""How far before the last `alive_at` telemetry is searched for last heartbeats. The truth has every open
session's heartbeat up to a minute old, so whoever is silent for longer than this is known from there."""


def load_truth(
    connection: sqlite3.Connection, coordinator_id: str, counters: dict[str, int]
) -> tuple[Loaded, list[str]]:
    """(what to start from but for the last heartbeats, rows that could not be read and were set aside)."""
    rows: list[Row] = []
    set_aside: list[str] = []
    for table, sql, parameters in (
        ("meta", meta.ALL, ()),
        ("pool", pools.ALL, ()),
        ("tenant", tenants.ALL, ()),
        ("account", accounts.ALL, ()),
        ("upload", uploads.ALL, ()),
        ("suspicion", suspicions.ALL, ()),
        ("verdict", verdicts.OF_LIVE, ()),
        ("token", tokens.ALL, ()),
        ("provider", providers.ALL, ()),
        ("session", sessions.OPEN, (coordinator_id,)),
    ):
        for columns in connection.execute(sql, parameters):
            row = read_row(table, columns, set_aside)
            if row is not None:
                rows.append(row)
    rows += live_work(connection, set_aside)
    loaded = Loaded(
        rows=rows,
        next_session_id=counters["session_id"] + 1,
        next_key=counters["key"] + 1,
        last_beats=(),
        next_job_id=counters["job_id"] + 1,
        next_token=counters["token"] + 1,
        next_audit=counters["audit"] + 1,
        next_ledger=counters["ledger"] + 1,
    )
    return loaded, set_aside


def last_beats(connection: sqlite3.Connection, loaded: Loaded) -> tuple[LastBeat, ...]:
    """From telemetry: the last heartbeat of each provider with an open session, where it is newer."""
    keys: dict[ProviderKey, ProviderRow] = {}
    seen: dict[str, Ms] = {}
    alive_at_ms: Ms | None = None
    for row in loaded.rows:
        match row:
            case ProviderRow():
                keys[row.key] = row
            case SessionRow():
                seen[row.provider_id] = row.last_heartbeat_at_ms or 0
            case MetaRow(name=Meta.ALIVE_AT_MS):
                alive_at_ms = int(row.value)
            case _:
                pass
    if not seen:
        return ()
    hours = heartbeats.unsealed_hours(name for (name,) in connection.execute(heartbeats.TABLES))
    if not hours:
        return ()
    since_ms = alive_at_ms - LOOK_BACK_MS if alive_at_ms is not None else hours[-1]
    found: dict[ProviderId, Ms] = {}
    for hour_ms in hours:
        if hour_ms >= hour_of(since_ms):
            for key, at_ms in connection.execute(heartbeats.last_beats(hour_ms), (since_ms,)):
                provider = keys.get(key)
                if provider is not None and at_ms > seen.get(provider.provider_id, at_ms):
                    found[provider.provider_id] = max(at_ms, found.get(provider.provider_id, 0))
    return tuple(LastBeat(provider_id=name, at_ms=at) for name, at in sorted(found.items()))
