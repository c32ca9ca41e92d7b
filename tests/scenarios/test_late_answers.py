"""Answers that had waited for us: what they say is true, and may be older than what was decided meanwhile."""

from __future__ import annotations

from coordinator.core import events
from coordinator.core.ids import ConnId, ProviderId
from coordinator.core.snapshot import Liveness
from tests.site import Site, a_job


def test_a_grant_that_is_answered_before_a_silence_was_seen_again_is_doubted_by_the_next_tick() -> None:
    """After a full disk a provider is suspect, and its leases are as the disk has them: the tick that doubts them may
    come after an answer that had waited."""
    site = Site("a")
    site.falls_silent("a")
    site.submit(a_job())
    site.state.providers[ProviderId("a")].phase = Liveness.SUSPECT
    row = site.attempt("1.0.0.1")
    conn = site.agents["a"].conn
    assert conn is not None and row.state.value == "leased"
    site.decide(
        events.AgentGranted(at_ms=site.now_ms, conn_id=ConnId(conn), attempt_id=row.attempt_id, rank=0, token=row.token)
    )
    assert ["staging"] == site.states()
    site.at(site.now_s + 1)
    site.tick()
    assert "in_doubt" == site.states()[0]
