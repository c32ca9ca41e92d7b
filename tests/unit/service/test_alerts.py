"""Alerts: folded, resolved by themselves, bounded, and every kind is in the docs."""

from __future__ import annotations

from pathlib import Path

from coordinator.core import commands
from coordinator.service.alerts import ALERTS_MAX, KEPT_MS, KINDS, QUIET_MS, Alerts

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "alerts.md"


class Clock:
    """Milliseconds in the test's hand."""

    now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


def test_repeats_of_one_alert_are_folded() -> None:
    """One entry, its count rises, its beginning stays."""
    clock = Clock()
    alerts = Alerts(clock)
    alerts.on_note(commands.Warned(kind="clock_jump", subject="coordinator", text="first"))
    clock.now_ms += 1_000
    alerts.on_note(commands.Warned(kind="clock_jump", subject="coordinator", text="second"))
    (entry,) = alerts.entries()
    assert (2, "second") == (entry.count, entry.text)
    assert entry.since < entry.last
    assert 1 == alerts.active()["clock_jump"]


def test_what_happened_once_is_over_after_a_quiet_while_and_then_forgotten() -> None:
    """It stands until QUIET_MS after its last repeat, is shown as resolved for KEPT_MS, then goes."""
    clock = Clock()
    alerts = Alerts(clock)
    alerts.fire("duplicate_provider", "a", "two of them")
    clock.now_ms += QUIET_MS
    alerts.check()
    assert alerts.entries()[0].resolved_at is None
    clock.now_ms += 1
    alerts.check()
    assert alerts.entries()[0].resolved_at is not None
    clock.now_ms += KEPT_MS + 1
    alerts.check()
    assert [] == alerts.entries()


def test_a_standing_condition_ends_when_its_probe_says_so_and_comes_back_anew() -> None:
    """A probe's alert stands as long as the probe has something to say, however long that is."""
    clock = Clock()
    alerts = Alerts(clock)
    wrong: list[str | None] = ["no writes"]
    alerts.probe("disk", "store", lambda: wrong[0])
    alerts.check()
    clock.now_ms += 10 * QUIET_MS
    alerts.check()
    assert 1 == alerts.active()["disk"]
    wrong[0] = None
    alerts.check()
    assert 0 == alerts.active()["disk"]
    wrong[0] = "again"
    alerts.check()
    (entry,) = alerts.entries()
    assert (1, None) == (entry.count, entry.resolved_at)


def test_alerts_are_bounded_and_resolved_ones_go_first() -> None:
    """One more than the bound removes the oldest resolved one, not a standing one."""
    clock = Clock()
    alerts = Alerts(clock)
    for number in range(ALERTS_MAX):
        alerts.fire("duplicate_provider", f"p{number}", "x")
        clock.now_ms += 1
    alerts.resolve("duplicate_provider", "p500")
    alerts.fire("duplicate_provider", "one more", "x")
    subjects = {entry.subject for entry in alerts.entries()}
    assert ALERTS_MAX == len(subjects)
    assert "p500" not in subjects and "p0" in subjects


def test_every_kind_of_alert_is_documented() -> None:
    """docs/reference/alerts.md has a row for each kind, with its severity, and none for another."""
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert {kind: facts.severity for kind, facts in KINDS.items()} == {r[1].strip(" `"): r[2].strip() for r in rows}
