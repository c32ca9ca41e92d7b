"""Standing conditions of a running coordinator that are alerts: each is asked again and again, and ends by itself."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.ports.analytics import Analytics
from coordinator.service.alerts import Alerts, Probe
from coordinator.service.data.breaker import State
from coordinator.service.data.gate import Gate
from coordinator.service.engine import Engine
from coordinator.service.heartbeats import HeartbeatWriter
from coordinator.service.relay.relay import Relay
from coordinator.service.upkeep import LoopLag
from coordinator.timetext import to_text
from store.durable import DiskStore

LOG_LAG_ALERT_S = 2.0
"""Bytes of a log that waited so long for the disk are an alert: readers are promised them within 5 s."""
LAG_ALERT_MS = 500.0
"""The loop this late over ten seconds is an alert."""


def watch(
    alerts: Alerts,
    store: DiskStore,
    engine: Engine,
    heartbeats: HeartbeatWriter,
    relay: Relay,
    gate: Gate,
    analytics: Analytics,
    lag: LoopLag,
) -> None:
    """Have `alerts` ask each of them."""
    lost = Growth(lambda: heartbeats.counters.dropped_full + heartbeats.counters.dropped_store)

    def disk() -> str | None:
        since_ms = engine.full_since_ms
        return f"the data directory's disk takes no writes since {to_text(since_ms)}" if since_ms is not None else None

    def dropped() -> str | None:
        return f"{lost.amount} heartbeats were dropped of late" if lost.look() else None

    def worker() -> str | None:
        health = analytics.health()
        return None if health.up else f"the analytics worker is down: {health.last_error or 'it is being started'}"

    def shut() -> str | None:
        view = gate.view()
        return None if view.state is State.CLOSED else f"transfers of blobs are not let in: {view.why}"

    def slow() -> str | None:
        late_ms = lag.recent_ms()
        return f"the loop runs {late_ms:.0f} ms late" if late_ms > LAG_ALERT_MS else None

    def unread() -> str | None:
        return store.set_aside[-1] if store.set_aside else None

    for provider_id, until_ms in engine.state.work.quarantined.items():
        text = f"quarantined until {to_text(until_ms)}, since before the coordinator's start"
        alerts.fire("provider_quarantined", provider_id, text)
    alerts.probe("disk", "store", disk)
    alerts.probe("record_set_aside", "rows", unread)
    alerts.probe("heartbeat_loss", "store", dropped)
    alerts.probe("relay_saturated", "logs", saturation(relay))
    alerts.probe("staging_saturated", "transfers", shut)
    alerts.probe("analytics_down", "worker", lasting(worker))
    alerts.probe("loop_lag", "coordinator", slow)


def saturation(relay: Relay) -> Probe:
    """Whether logs do not reach the disk as fast as they come."""
    crowded = Growth(lambda: relay.counters.no_room)

    def probe() -> str | None:
        growing = crowded.look()
        if relay.failing:
            return f"the disk takes no logs; {relay.waiting_bytes} bytes wait here, the rest on the agents"
        if growing:
            return f"{crowded.amount} pieces of logs found no room of late and are sent again"
        lag_s = relay.counters.lag_seconds
        return f"logs reach the disk {lag_s:.1f} s late" if relay.waiting_bytes and lag_s > LOG_LAG_ALERT_S else None

    return probe


def lasting(ask: Probe, looks: int = 5) -> Probe:
    """A probe that speaks once `ask` has had something to say `looks` times in a row: a restart is no alert."""
    said = 0

    def probe() -> str | None:
        nonlocal said
        text = ask()
        said = said + 1 if text is not None else 0
        return text if said >= looks else None

    return probe


class Growth:
    """Whether a counter has grown lately, so that an alert stands while it does and some time after."""

    def __init__(self, count: Callable[[], int], quiet_looks: int = 30) -> None:
        self._count = count
        self._quiet_looks = quiet_looks
        self._seen = count()
        self._quiet = quiet_looks
        self.amount = 0

    def look(self) -> bool:
        """Called at every round of the alerts' probes."""
        now = self._count()
        if now > self._seen:
            self.amount = now - self._seen + (self.amount if self._quiet < self._quiet_looks else 0)
            self._seen, self._quiet = now, 0
        else:
            self._quiet = min(self._quiet + 1, self._quiet_looks)
        return self._quiet < self._quiet_looks
