"""A disk as the core must expect it: commits are all or nothing, may be refused, and survive a kill or not.

Telemetry is the lossy kind: what a heartbeat told it in the last seconds may be gone after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.core.commands import Delete, Put, Write
from coordinator.core.events import LastBeat
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.rows import ProviderRow, Row, SessionRow, row_key
from coordinator.core.state import ClusterState

TELEMETRY_LAG = 2
"""Seconds of heartbeats that a kill may take."""


class Disk:
    """The rows as of the last commit."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, object], Row] = {}
        self.full = False
        self._next_session_id = 1
        self._next_key = 1
        self._beats: dict[ProviderId, tuple[Ms, Ms]] = {}
        """Per provider the last heartbeat that is surely stored, and the last one that was received."""

    def commit(self, writes: Sequence[Write]) -> None:
        """Make all of `writes` durable, in order."""
        for write in writes:
            match write:
                case Put(row=row):
                    self.rows[row_key(row)] = row
                    if isinstance(row, SessionRow):
                        self._next_session_id = max(self._next_session_id, row.session_id + 1)
                    elif isinstance(row, ProviderRow):
                        self._next_key = max(self._next_key, row.key + 1)
                case Delete(table=table, key=key):
                    self.rows.pop((table, key), None)

    def beat(self, provider_id: ProviderId, received_ms: Ms, lag_ms: Ms) -> None:
        """Telemetry of one heartbeat: sure once the next one is `lag_ms` younger."""
        if self.full:
            return
        sure, last = self._beats.get(provider_id, (received_ms, received_ms))
        self._beats[provider_id] = (last if received_ms - last >= lag_ms else sure, received_ms)

    def load(self, coordinator_id: str) -> ClusterState:
        """The state that the durable rows tell of."""
        rows = [r for r in self.rows.values() if not isinstance(r, SessionRow) or r.disconnected_at_ms is None]
        return ClusterState.load(coordinator_id, rows, self._next_session_id, self._next_key)

    def last_beats(self, state: ClusterState, torn: bool) -> tuple[LastBeat, ...]:
        """What telemetry knows after a kill of those with an open session; not the last seconds when `torn`."""
        return tuple(
            LastBeat(provider_id=provider_id, at_ms=self._beats[provider_id][0 if torn else 1])
            for provider_id, provider in state.providers.items()
            if provider.session is not None and provider_id in self._beats
        )
