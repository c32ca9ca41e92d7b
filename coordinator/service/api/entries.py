"""Rows and views as the structs of answers. Pure."""

from __future__ import annotations

from coordinator import wire
from coordinator.api_types.access import TokenEntry
from coordinator.api_types.fleet import (
    DuplicateClaim,
    HeartbeatEntry,
    HourEntry,
    PoolEntry,
    ProviderEntry,
    SessionEntry,
)
from coordinator.api_types.operations import CheckAnswer
from coordinator.api_types.tenants import PriceEntry
from coordinator.core.fleet.providers import DEFAULT_POOL
from coordinator.core.ids import Ms, PoolName
from coordinator.core.rows import PoolRow, Promises, SessionRow, TokenRow
from coordinator.core.snapshot import ProviderView
from coordinator.ports.store import CheckReport, HeartbeatRow, HourRow
from coordinator.service.api.money import price_entry
from coordinator.timetext import optional_text, to_text

PROMISES = ("kills_all", "freezes_all", "memory_limit", "cpu_limit")


def provider_entry(
    view: ProviderView,
    heartbeat: tuple[Ms, wire.Heartbeat] | None,
    score: float | None,
    forecast_8h: float | None,
    now_ms: Ms,
) -> ProviderEntry:
    """One provider now."""
    beat = heartbeat[1] if heartbeat is not None else None
    began_ms = view.stay_began_at_ms
    claim = view.duplicate
    return ProviderEntry(
        provider_id=view.provider_id,
        pool=view.pool,
        liveness=view.liveness.value,
        drained=view.drained,
        drain_note=view.drain_note,
        away_until=optional_text(view.away_until_ms),
        quarantined_until=optional_text(view.quarantined_until_ms),
        quarantine_why=view.quarantine_why,
        isolation=str(view.promises.isolation) if view.promises.work else None,
        promises=promises_of(view.promises),
        connected_at=optional_text(view.connected_at_ms),
        last_heartbeat_at=optional_text(last_heartbeat_ms(view, heartbeat)),
        stay_seconds=max(0, now_ms - began_ms) / 1_000 if began_ms is not None else None,
        score=score,
        forecast_8h=forecast_8h,
        cpus=view.resources.cpus,
        memory_gb=view.resources.memory_gb,
        gpus=view.resources.gpus,
        labels=view.labels,
        agent_version=view.agent_version,
        machine_id=view.machine_id,
        peer=view.peer,
        enrolled_at=to_text(view.enrolled_at_ms),
        duplicate=DuplicateClaim(at=to_text(claim.at_ms), peer=claim.peer, holder_peer=claim.holder_peer)
        if claim is not None
        else None,
        heartbeat=heartbeat_now(*heartbeat) if heartbeat is not None else None,
        clock_offset_ms=beat.clock_offset_ms if beat is not None else None,
        clock_bound_ms=beat.clock_bound_ms if beat is not None else None,
    )


def promises_of(promises: Promises) -> tuple[str, ...]:
    """The names of those that are made."""
    return tuple(name for name in PROMISES if promises.work and getattr(promises, name))


def last_heartbeat_ms(view: ProviderView, heartbeat: tuple[Ms, wire.Heartbeat] | None) -> Ms | None:
    """The later of what is published and what was just received: views change less often than hearts beat."""
    known = [ms for ms in (view.last_heartbeat_at_ms, heartbeat[0] if heartbeat is not None else None) if ms]
    return max(known, default=None)


def heartbeat_now(observed_ms: Ms, beat: wire.Heartbeat) -> HeartbeatEntry:
    """The newest heartbeat, as it came."""
    return HeartbeatEntry(
        observed_at=to_text(observed_ms),
        status=beat.status,
        memory_pressure=beat.memory_pressure,
        cpu_usage=beat.cpu_usage,
        thermal_state=beat.thermal_state,
        memory_available_gb=beat.memory_available_gb,
        gpu_memory_active_gb=beat.gpu_memory_active_gb,
        gpu_memory_cache_gb=beat.gpu_memory_cache_gb,
        backend_state=beat.backend_state,
        active_model=beat.active_model,
        capacity=beat.capacity,
    )


def heartbeat_entry(row: HeartbeatRow) -> HeartbeatEntry:
    """One stored heartbeat."""
    return HeartbeatEntry(
        observed_at=to_text(row.observed_at_ms),
        status=wire.STATUSES[row.status],
        memory_pressure=row.memory_pressure,
        cpu_usage=row.cpu_usage,
        thermal_state=_thermal(row.thermal_state),
        memory_available_gb=row.memory_available_gb,
        gpu_memory_active_gb=row.gpu_memory_active_gb,
        gpu_memory_cache_gb=row.gpu_memory_cache_gb,
        backend_state=row.backend_state,
        active_model=row.active_model,
        capacity=row.capacity,
    )


def hour_entry(row: HourRow) -> HourEntry:
    """One hour's rollup."""
    return HourEntry(
        hour=to_text(row.hour_ms),
        count=row.heartbeats,
        mean_memory_pressure=row.mean_memory_pressure,
        mean_cpu_usage=row.mean_cpu_usage,
        worst_thermal_state=_thermal(row.worst_thermal_state),
        mean_memory_available_gb=row.mean_memory_available_gb,
    )


def _thermal(index: int | None) -> str | None:
    return None if index is None else wire.THERMALS[index]


def session_entry(row: SessionRow, now_ms: Ms, last_heartbeat_ms: Ms | None = None) -> SessionEntry:
    """One session; `last_heartbeat_ms` is a newer one than the row has, of a session that is open here."""
    ended_ms = row.disconnected_at_ms
    heard_ms = last_heartbeat_ms if last_heartbeat_ms is not None else row.last_heartbeat_at_ms
    return SessionEntry(
        session_id=row.session_id,
        provider_id=row.provider_id,
        connected_at=to_text(row.connected_at_ms),
        disconnected_at=optional_text(ended_ms),
        disconnect_reason=row.disconnect_reason.value if row.disconnect_reason is not None else None,
        last_heartbeat_at=optional_text(heard_ms),
        coordinator_id=row.coordinator_id,
        duration_seconds=max(0, (ended_ms if ended_ms is not None else now_ms) - row.connected_at_ms) / 1_000,
        requests_served=row.requests_served,
        tokens_generated=row.tokens_generated,
    )


def check_answer(report: CheckReport) -> CheckAnswer:
    """What a check of the data directory found."""
    return CheckAnswer(
        files=report.files,
        rows=report.rows,
        segments=report.segments,
        problems=report.problems,
        blobs=report.blobs,
        unread=report.unread,
        ownerless=report.ownerless,
    )


def token_entry(row: TokenRow) -> TokenEntry:
    """A token without its text, and without what is kept of it."""
    return TokenEntry(
        token_id=row.token_id,
        role=row.role.value,
        note=row.note,
        created_at=to_text(row.created_at_ms),
        expires_at=optional_text(row.expires_at_ms),
        revoked_at=optional_text(row.revoked_at_ms),
        provider_id=row.provider_id,
        pool=row.pool,
        tenant=row.tenant,
    )


def pool_entry(name: PoolName, row: PoolRow | None, providers: int) -> PoolEntry:
    """A pool; the default one is there without a row, and nobody made it."""
    made = row is not None and name != DEFAULT_POOL
    return PoolEntry(
        name=name,
        note=row.note if row is not None else "",
        created_at=to_text(row.created_at_ms) if row is not None and made else None,
        providers=providers,
        price=price_entry(row.price) if row is not None else PriceEntry(),
    )
