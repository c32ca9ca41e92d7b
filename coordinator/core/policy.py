"""Every tunable of the core: its unit is in the name, its default and the reason stand here."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.ids import Ms


class Policy(Struct, frozen=True, gc=False, kw_only=True):
    """How patient the coordinator is. Deadlines that follow the heartbeat interval are given as a share."""

    heartbeat_interval_ms: Ms = 5_000
    """What an agent is told at least. Five seconds notice a loss within ten."""
    heartbeat_budget_per_s: float = 2_000.0
    """Heartbeats that the whole fleet may send in a second; a larger fleet is told a longer interval."""
    ping_after_intervals: float = 1.2
    """Silent for so many intervals (6 s): pinged, so that a dead socket shows itself."""
    suspect_after_intervals: float = 2.0
    """Silent for so many (10 s): suspect, no new work."""
    lost_after_ms: Ms = 30_000
    """Silent or gone for so long: lost. Also the gap that ends a stay. Never under six intervals."""
    challenge_ms: Ms = 5_000
    """How long an old connection has to answer when a second one claims its provider."""
    rejoin_ms: Ms = 60_000
    """After a start: how long sessions wait for their agents. Reconnects are spread over 10 s, capped at 30."""
    alive_every_ms: Ms = 5_000
    """How often `alive_at` is stored: the start of an outage is known to that."""
    beat_save_every_ms: Ms = 60_000
    """How often an open session's last heartbeat is written to the truth, should telemetry be lost."""
    tick_ms: Ms = 1_000
    """How often a tick is to come."""
    stall_ms: Ms = 2_500
    """A tick so late is a stall of our own: nobody is judged by it."""
    outage_ms: Ms = 10_000
    """A stall from this length on is stored as unobserved time."""
    wall_jump_ms: Ms = 2_000
    """The wall clock moving so far against the monotonic one is an alert."""
    providers_max: int = 100_000
    """Enrolled providers held in memory (about 1 kB each); further ones are refused."""
    tokens_max: int = 200_000
    """Tokens held in memory, agents' credentials included."""
    pools_max: int = 1_000
    forecast_stale_ms: Ms = 1_800_000
    """Figures older than this are not used for a provider: the age of its session alone is."""

    def interval_ms(self, connected: int) -> Ms:
        """The heartbeat interval that keeps `connected` agents within the budget, whole seconds."""
        needed_s = -(-connected // self.heartbeat_budget_per_s)
        return max(self.heartbeat_interval_ms, int(needed_s) * 1_000)

    def lost_ms(self, interval_ms: Ms) -> Ms:
        """How long a provider may be silent before it is lost, at this interval."""
        return max(self.lost_after_ms, 6 * interval_ms)
