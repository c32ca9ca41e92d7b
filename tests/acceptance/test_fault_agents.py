"""Agents that are killed and agents that stand still: when their sessions ended, and what is charged for it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.api_types.fleet import SessionEntry
from coordinator.api_types.reliability import Features
from coordinator.client import Client
from coordinator.timetext import parse_time
from tests.acceptance.processes import Agent, Head, liveness, sessions_of, wait_for, when_online

QUICK = ("--set", "policy.heartbeat_interval_ms=1s", "--set", "policy.lost_after_ms=6s")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A coordinator with an interval of a second, which gives an agent up after six."""
    with Head(tmp_path_factory.mktemp("head"), *QUICK) as head:
        head.start().close()
        yield head


@pytest.fixture
def client(head: Head) -> Iterator[Client]:
    with head.client() as client:
        yield client


def features_when(client: Client, who: str, sessions: int) -> Features:
    """The provider's features, once they speak of so many sessions."""

    def told() -> Features | None:
        features = client.liveness(who)
        return features if features.sessions_count == sessions else None

    return wait_for(told, f"features of {sessions} sessions of {who}")


def ended_after_its_last_beat(row: SessionEntry, interval_ms: int) -> bool:
    """Whether the session ended where the last heartbeat and one interval put it, to the millisecond."""
    assert row.disconnected_at is not None and row.last_heartbeat_at is not None
    return parse_time(row.disconnected_at) == parse_time(row.last_heartbeat_at) + interval_ms


def test_keeper_and_daemon_killed_together_end_a_session_not_a_stay(head: Head, client: Client, tmp_path: Path) -> None:
    """kill -9 of both: read_error at once; started again it is a new session of the same stay, and nobody failed."""
    with Agent(tmp_path, head, "killed") as agent:
        when_online(client, agent)
        agent.signal_all(signal.SIGKILL)
        wait_for(lambda: sessions_of(client, "killed")[0].disconnect_reason == "read_error", "the end")
        agent.wait()
        agent.spawn()
        when_online(client, agent)
        first, second = sessions_of(client, "killed")
        assert first.disconnected_at is not None and first.disconnected_at <= second.connected_at
        assert second.disconnected_at is None
        features = features_when(client, "killed", 2)
        assert (features.stays_count, features.failures_count) == (1, 0)
        assert features.disconnect_reasons == {"read_error": 1}


def test_an_agent_that_stands_still_ended_when_it_was_last_heard(head: Head, client: Client, tmp_path: Path) -> None:
    """SIGSTOP of keeper and daemon: suspect, lost; the session ended one interval after its last heartbeat, not when
    it was noticed. Continued, it comes back by itself in a new session and a new stay, and the failure is counted."""
    with Agent(tmp_path, head, "stopped") as agent:
        when_online(client, agent)
        daemon = agent.daemon_pid()
        agent.signal_all(signal.SIGSTOP)
        wait_for(lambda: liveness(client)["stopped"] == "suspect", "being suspect")
        assert sessions_of(client, "stopped")[0].disconnected_at is None
        wait_for(lambda: liveness(client)["stopped"] == "lost", "being lost")
        (row,) = sessions_of(client, "stopped")
        assert row.disconnect_reason == "stale_heartbeat"
        assert ended_after_its_last_beat(row, 1_000)
        agent.resume(daemon)
        when_online(client, agent)
        assert sessions_of(client, "stopped")[0] == row
        assert sessions_of(client, "stopped")[1].disconnected_at is None
        assert agent.daemon_pid() == daemon, "the daemon was replaced for having been stopped"
        features = features_when(client, "stopped", 2)
        assert (features.stays_count, features.failures_count) == (2, 1)
        assert features.disconnect_reasons == {"stale_heartbeat": 1}
        assert features.last_failure_at == row.disconnected_at


@pytest.mark.soak
def test_an_agent_stopped_for_a_minute(tmp_path: Path) -> None:
    """The same with everything as it is by default: lost after 30 s, back after 60."""
    with Head(tmp_path) as head, head.start() as client, Agent(tmp_path, head, "stopped") as agent:
        when_online(client, agent)
        daemon = agent.daemon_pid()
        agent.signal_all(signal.SIGSTOP)
        stopped = time.monotonic()
        wait_for(lambda: liveness(client)["stopped"] == "suspect", "being suspect")
        suspect_s = time.monotonic() - stopped
        wait_for(lambda: liveness(client)["stopped"] == "lost", "being lost")
        lost_s = time.monotonic() - stopped
        (row,) = sessions_of(client, "stopped")
        assert row.disconnect_reason == "stale_heartbeat"
        assert ended_after_its_last_beat(row, 5_000)
        wait_for(lambda: time.monotonic() - stopped >= 60, "the minute", 61)
        agent.resume(daemon)
        resumed = time.monotonic()
        when_online(client, agent)
        back_s = time.monotonic() - resumed
        features = features_when(client, "stopped", 2)
        assert (features.stays_count, features.failures_count) == (2, 1)
        figures = {"suspect_s": suspect_s, "lost_s": lost_s, "back_s": back_s}
        print(json.dumps({"stopped_s": 60, **{name: round(value, 1) for name, value in figures.items()}}))
