"""Sessions and heartbeats in the twin: the same answers as store.history gives, and the same is let go of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from statistics import fmean

from coordinator.core.ids import Ms, ProviderId, ProviderKey
from coordinator.core.rows import OutageRow, Row, SessionRow
from coordinator.ports.store import HeartbeatRow, HourRow
from store.heartbeats import HOUR_MS, hour_of
from store.history import END_OF_TIME_MS
from store.imports import IMPORT_ID
from store.settings import StoreSettings


def sessions(
    rows: Iterable[SessionRow], provider_id: ProviderId, since_ms: Ms, limit: int, before: tuple[Ms, int] | None
) -> list[SessionRow]:
    found = [
        row
        for row in rows
        if row.provider_id == provider_id
        and (row.disconnected_at_ms is None or row.disconnected_at_ms >= since_ms or row.connected_at_ms >= since_ms)
        and (before is None or (row.connected_at_ms, row.session_id) < before)
    ]
    found.sort(key=lambda row: (row.connected_at_ms, row.session_id), reverse=True)
    return found[:limit]


def heartbeats(
    beats: Iterable[HeartbeatRow], key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None
) -> list[HeartbeatRow]:
    before = END_OF_TIME_MS if before_ms is None else before_ms
    found = [row for row in beats if row.key == key and since_ms <= row.observed_at_ms < before]
    found.sort(key=lambda row: (row.observed_at_ms, row.n), reverse=True)
    return found[:limit]


def hours(rows: Iterable[HourRow], key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None) -> list[HourRow]:
    before = END_OF_TIME_MS if before_ms is None else before_ms
    found = [row for row in rows if row.key == key and hour_of(since_ms) <= row.hour_ms < before]
    found.sort(key=lambda row: row.hour_ms, reverse=True)
    return found[:limit]


def rolled_up(beats: Iterable[HeartbeatRow]) -> Iterator[HourRow]:
    """The hours of these."""
    by_hour: dict[tuple[Ms, int], list[HeartbeatRow]] = defaultdict(list)
    for beat in beats:
        by_hour[hour_of(beat.observed_at_ms), beat.key].append(beat)
    for (hour_ms, key), those in by_hour.items():
        yield HourRow(
            key=ProviderKey(key),
            hour_ms=hour_ms,
            heartbeats=len(those),
            mean_memory_pressure=_mean(beat.memory_pressure for beat in those),
            mean_cpu_usage=_mean(beat.cpu_usage for beat in those),
            worst_thermal_state=max((b.thermal_state for b in those if b.thermal_state is not None), default=None),
            mean_memory_available_gb=_mean(beat.memory_available_gb for beat in those),
        )


def beats_from_ms(now_ms: Ms, settings: StoreSettings) -> Ms:
    """Heartbeats from there on stay. As on disk: only whole, sealed hours are removed."""
    sealed_to = hour_of(now_ms - HOUR_MS - settings.seal_after_ms) + HOUR_MS
    return min(hour_of(now_ms - settings.heartbeats_keep_ms), sealed_to)


def outlived(rows: Iterable[Row], old_ms: Ms, settings: StoreSettings) -> list[Row]:
    """Sessions and outages that ended too long ago; those from elsewhere by the newest of them."""
    known = list(rows)
    imported = [
        row.disconnected_at_ms or 0 for row in known if isinstance(row, SessionRow) and row.coordinator_id == IMPORT_ID
    ]
    import_old_ms = max(imported, default=0) - settings.history_keep_ms
    return [row for row in known if _is_outlived(row, old_ms, import_old_ms)]


def _is_outlived(row: Row, old_ms: Ms, import_old_ms: Ms) -> bool:
    match row:
        case SessionRow(coordinator_id=source, disconnected_at_ms=int(ended_ms)):
            return ended_ms < (import_old_ms if source == IMPORT_ID else old_ms)
        case OutageRow(ended_at_ms=ended_ms):
            return ended_ms < old_ms
        case _:
            return False


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
