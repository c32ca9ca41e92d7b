"""Alerts: what an operator should look at. Repeats are folded; an alert ends by itself when its cause does.

Standing conditions (a full disk, a slow loop) are probes that are asked again and again; what merely
happened (a clock step, a second agent under one identity) stands until it has been quiet for a while, unless the
core says itself when it is over.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping

from msgspec import Struct

from coordinator.api_types.operations import AlertEntry
from coordinator.core import commands
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.timetext import optional_text, to_text

log = logging.getLogger("coord.alerts")

ALERTS_MAX = 1_000
QUIET_MS = 15 * 60 * 1_000
"""What happened once stands for so long after its last repeat."""
KEPT_MS = 24 * 3_600 * 1_000
"""A resolved alert is shown for so long."""


class Kind(Struct, frozen=True, kw_only=True):
    """How bad a kind of alert is, and what to do about it."""

    severity: str
    hint: str
    calmed: bool = False
    """The core says when it is over: a quiet while is no end of it."""


KINDS: Mapping[str, Kind] = {
    "disk": Kind(severity="critical", hint="free space on the data directory's disk; what was acknowledged is safe"),
    "heartbeat_loss": Kind(
        severity="warning", hint="the telemetry disk is slower than the fleet; see coord_heartbeats_*"
    ),
    "clock_jump": Kind(severity="warning", hint="check the time service (NTP) of the head node; no deadline moved"),
    "duplicate_provider": Kind(severity="warning", hint="give each machine an identity of its own: enrol it anew"),
    "record_set_aside": Kind(severity="warning", hint="run coord db check, then restore a backup if it names damage"),
    "analytics_down": Kind(severity="warning", hint="figures are old until the worker is back; see the server's log"),
    "loop_lag": Kind(severity="warning", hint="the head node is overloaded; heartbeats are read late"),
    "retry_storm": Kind(
        severity="critical", hint="look at the job's last failures (coord job show, coord logs); cancel it, or mend it"
    ),
    "straggler": Kind(
        severity="warning",
        hint="look at its log and its provider; cancel that task, or wait: it is not restarted by itself",
        calmed=True,
    ),
    "provider_quarantined": Kind(
        severity="warning",
        hint="job after job failed there: look at the machine, then resume it, or wait until it ends",
        calmed=True,
    ),
    "pool_exhausted": Kind(severity="warning", hint="work waits for capacity; add a provider, or see coord job why"),
    "quota_90": Kind(
        severity="warning",
        hint="raise the limit (coord tenant set), or let it end what it runs: more than this is refused or waits",
        calmed=True,
    ),
    "budget": Kind(
        severity="critical",
        hint="its budget of this month is used up: nothing new of it starts until it is raised or the month is over",
        calmed=True,
    ),
    "usage_drift": Kind(
        severity="warning",
        hint="a job cost more, or less, than it was estimated: give its expected_runtime, or its estimate",
    ),
    "relay_saturated": Kind(
        severity="warning", hint="logs come faster than the disk takes them; none is lost, readers see them late"
    ),
    "staging_saturated": Kind(
        severity="warning",
        hint="coord transfers shows who moves most; raise throttle.*, or make room on the disk",
    ),
}
"""Every kind there is (docs/reference/alerts.md)."""

Probe = Callable[[], str | None]
"""What is wrong right now, or None."""


class Change(Struct, frozen=True, kw_only=True):
    """An alert began, or is over: what is delivered."""

    status: str
    """`firing` or `resolved`."""
    entry: AlertEntry


Tell = Callable[[Change], None]


class _Alert(Struct):
    kind: str
    subject: str
    text: str
    since_ms: Ms
    last_ms: Ms
    count: int
    resolved_ms: Ms | None = None
    acked_ms: Ms | None = None
    acked_by: str = ""

    @property
    def alert_id(self) -> str:
        """Names this one, since it began: when it comes back it is another one."""
        return hashlib.sha256(f"{self.kind}\n{self.subject}\n{self.since_ms}".encode()).hexdigest()[:12]


class Alerts:
    """At most ALERTS_MAX, the oldest resolved ones go first. Used from the loop's thread alone."""

    def __init__(self, now_ms: Callable[[], Ms]) -> None:
        self._now_ms = now_ms
        self._alerts: dict[tuple[str, str], _Alert] = {}
        self._probes: list[tuple[str, str, Probe]] = []
        self._tellers: list[Tell] = []

    def on_note(self, note: commands.Note) -> None:
        """A listener for LiveViews."""
        match note:
            case commands.Warned(kind=kind, subject=subject, text=text):
                self.fire(kind, subject, text)
            case commands.Calmed(kind=kind, subject=subject):
                self.resolve(kind, subject)
            case _:
                pass

    def tell(self, teller: Tell) -> None:
        """Have `teller` called when an alert begins and when it is over. It must not block, await or raise."""
        self._tellers.append(teller)

    def probe(self, kind: str, subject: str, ask: Probe) -> None:
        """Have `check` ask this condition."""
        self._probes.append((kind, subject, ask))

    def fire(self, kind: str, subject: str, text: str) -> None:
        """Something happened, once more or for the first time."""
        assert kind in KINDS, f"alert kind {kind} is not declared"
        now = self._now_ms()
        alert = self._alerts.get((kind, subject))
        if alert is None or alert.resolved_ms is not None:
            self._make_room()
            alert = _Alert(kind=kind, subject=subject, text=text, since_ms=now, last_ms=now, count=1)
            self._alerts[kind, subject] = alert
            log.warning("alert %s on %s: %s", kind, subject, text)
            self._tell("firing", alert)
        else:
            alert.text, alert.last_ms, alert.count = text, now, alert.count + 1

    def resolve(self, kind: str, subject: str) -> None:
        """Its cause is gone."""
        alert = self._alerts.get((kind, subject))
        if alert is not None and alert.resolved_ms is None:
            alert.resolved_ms = self._now_ms()
            log.info("alert %s on %s is over", kind, subject)
            self._tell("resolved", alert)

    def acknowledge(self, alert_id: str, by: str) -> AlertEntry:
        """Keep who looks after it; the first one stays. CoordError(NOT_FOUND) when there is none of this id."""
        for alert in self._alerts.values():
            if alert.alert_id == alert_id:
                if alert.acked_ms is None:
                    alert.acked_ms, alert.acked_by = self._now_ms(), by
                    log.info("alert %s on %s was acknowledged by %s", alert.kind, alert.subject, by)
                return _entry(alert)
        raise CoordError(Code.NOT_FOUND, f"there is no alert {alert_id}", "coord alerts shows those there are")

    def _tell(self, status: str, alert: _Alert) -> None:
        change = Change(status=status, entry=_entry(alert))
        for teller in self._tellers:
            teller(change)

    def check(self) -> None:
        """Ask every probe, end what has been quiet, forget what is long over. Called every second or so."""
        now = self._now_ms()
        standing = set()
        for kind, subject, ask in self._probes:
            standing.add((kind, subject))
            text = ask()
            if text is None:
                self.resolve(kind, subject)
            else:
                self.fire(kind, subject, text)
        for key, alert in list(self._alerts.items()):
            if alert.resolved_ms is not None:
                if now - alert.resolved_ms > KEPT_MS:
                    del self._alerts[key]
            elif key not in standing and not KINDS[alert.kind].calmed and now - alert.last_ms > QUIET_MS:
                self.resolve(*key)

    def _make_room(self) -> None:
        if len(self._alerts) < ALERTS_MAX:
            return
        oldest = min(self._alerts.values(), key=lambda a: (a.resolved_ms is None, a.last_ms))
        del self._alerts[oldest.kind, oldest.subject]

    def active(self) -> dict[str, int]:
        """How many alerts stand, by kind."""
        counts = dict.fromkeys(KINDS, 0)
        for alert in self._alerts.values():
            if alert.resolved_ms is None:
                counts[alert.kind] += 1
        return counts

    def entries(self) -> list[AlertEntry]:
        """Standing ones first, then the newest."""
        ordered = sorted(self._alerts.values(), key=lambda a: (a.resolved_ms is not None, -a.last_ms))
        return [_entry(alert) for alert in ordered]


def _entry(alert: _Alert) -> AlertEntry:
    return AlertEntry(
        kind=alert.kind,
        severity=KINDS[alert.kind].severity,
        subject=alert.subject,
        since=to_text(alert.since_ms),
        last=to_text(alert.last_ms),
        count=alert.count,
        text=alert.text,
        hint=KINDS[alert.kind].hint,
        resolved_at=optional_text(alert.resolved_ms),
        id=alert.alert_id,
        acknowledged_at=optional_text(alert.acked_ms),
        acknowledged_by=alert.acked_by,
    )
