"""What readers are told of a provider: the view of it as it stands, published once it is durable."""

from __future__ import annotations

from coordinator.core.commands import Decision, ProviderChanged
from coordinator.core.snapshot import ProviderView
from coordinator.core.state import Provider


def view_of(provider: Provider) -> ProviderView:
    """What readers see of this provider."""
    row, session = provider.row, provider.session
    return ProviderView(
        provider_id=row.provider_id,
        key=row.key,
        pool=row.pool,
        liveness=provider.phase,
        enrolled_at_ms=row.enrolled_at_ms,
        labels=row.labels,
        resources=row.resources,
        agent_version=row.agent_version,
        machine_id=row.machine_id,
        boot_id=row.boot_id,
        peer=provider.peer,
        session_id=session.row.session_id if session else None,
        connected_at_ms=session.row.connected_at_ms if session else None,
        last_heartbeat_at_ms=(session.last_beat_ms if session else None) or row.last_seen_ms,
        stay_began_at_ms=row.stay_began_ms if session else None,
        drained=row.drained_at_ms is not None,
        drain_note=row.drain_note,
        away_until_ms=row.away_until_ms,
        quarantined_until_ms=row.quarantined_until_ms,
        quarantine_why=row.quarantine_why,
        promises=row.promises,
        duplicate=provider.duplicate,
    )


def changed(out: Decision, provider: Provider) -> None:
    out.notes.append(ProviderChanged(view_of(provider)))
