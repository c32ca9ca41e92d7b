"""A coordinator that is stopped or killed under real agents: which sessions go on, and what is charged to whom."""

from __future__ import annotations

import signal
from pathlib import Path

from coordinator.api_types.reliability import Features
from coordinator.client import Client
from coordinator.timetext import parse_time
from tests.acceptance.processes import Agent, Head, liveness, sessions_of, wait_for, when_online

SETTINGS = (
    *("--set", "policy.heartbeat_interval_ms=1s"),
    *("--set", "policy.alive_every_ms=1s"),
    *("--set", "policy.rejoin_ms=12s"),
)
"""Agents are back within 7.5 s of a restart (their first two waits): one that is not by then is gone."""


def test_who_comes_back_goes_on_and_who_does_not_ended_at_the_last_heartbeat(tmp_path: Path) -> None:
    """An orderly restart, then a kill -9 in which an agent dies too. The same agent process keeps its session over
    both. The dead one's ended at its last heartbeat (coordinator_restart), as a failure of nobody. The time in which
    nobody looked counts for and against nobody."""
    with (
        Head(tmp_path, *SETTINGS) as head,
        Agent(tmp_path, started(head), "stays") as stays,
        Agent(tmp_path, head, "goes") as goes,
    ):
        with head.client() as client:
            when_online(client, stays, goes)
            before = {who: sessions_of(client, who)[0] for who in ("stays", "goes")}
        head.signal(signal.SIGTERM)
        assert head.wait() == 0
        with head.start() as client:
            assert liveness(client) == {"stays": "awaited", "goes": "awaited"}
            when_online(client, stays, goes)
        head.kill()
        goes.signal_all(signal.SIGKILL)
        goes.wait()
        with head.start() as client:
            assert liveness(client) == {"stays": "awaited", "goes": "awaited"}
            when_online(client, stays)
            wait_for(lambda: liveness(client)["goes"] == "lost", "the end of the wait for the one that is gone")
            (kept,) = sessions_of(client, "stays")
            assert (kept.session_id, kept.connected_at) == (before["stays"].session_id, before["stays"].connected_at)
            assert kept.disconnected_at is None
            (ended,) = sessions_of(client, "goes")
            assert (ended.session_id, ended.disconnect_reason) == (before["goes"].session_id, "coordinator_restart")
            assert ended.disconnected_at is not None
            assert ended.disconnected_at == ended.last_heartbeat_at

            gone = wait_for(lambda: known_end(client.liveness("goes")), "features that know of the end")
            assert gone.disconnect_reasons == {"coordinator_restart": 1}
            assert (gone.failures_count, gone.departures_count) == (0, 0)
            lived_ms = parse_time(ended.disconnected_at) - parse_time(ended.connected_at)
            assert gone.online_seconds * 1_000 <= lived_ms
            faithful = client.liveness("stays")
            assert faithful.uptime_pct == 1.0
            assert (faithful.stays_count, faithful.departures_count) == (1, 0)
            dark_ms = unobserved_ms(client)
            assert dark_ms > 0
            since_ms = parse_time(faithful.as_of) - parse_time(kept.connected_at)
            assert abs(since_ms - dark_ms - faithful.observed_seconds * 1_000) <= 50


def known_end(features: Features) -> Features | None:
    return features if features.disconnect_reasons else None


def unobserved_ms(client: Client) -> int:
    """How long nobody looked, over all outages so far."""
    rows = client.sql("SELECT epoch_ms(ended_at) - epoch_ms(began_at) FROM outages").entries
    return sum(int(str(row[0])) for row in rows)


def started(head: Head) -> Head:
    """The head, ready for agents."""
    head.start().close()
    return head
