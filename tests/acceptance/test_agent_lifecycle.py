"""`coord agent` against `coord serve`, both as processes: what the coordinator knows of an agent's life and deaths."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.agent.control import AgentControl
from coordinator.agent.exits import Exit
from coordinator.agent.standing import AgentStatus
from coordinator.api_types.fleet import ProviderEntry, SessionEntry
from coordinator.client import Client
from coordinator.core.errors import CoordError
from tests.acceptance.processes import Agent, Head, wait_for


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One coordinator for all agents of this file."""
    with Head(tmp_path_factory.mktemp("head")) as head:
        head.start().close()
        yield head


@pytest.fixture
def client(head: Head) -> Iterator[Client]:
    with head.client() as client:
        yield client


def when_online(client: Client, agent: Agent) -> ProviderEntry:
    """The provider, once it is connected and has sent a heartbeat."""

    def online() -> ProviderEntry | None:
        try:
            entry = client.provider(agent.provider_id)
        except CoordError:
            return None
        return entry if entry.liveness == "online" and entry.heartbeat is not None else None

    return wait_for(online, f"{agent.provider_id} coming online\n{agent.text()}")


def sessions(client: Client, agent: Agent) -> list[SessionEntry]:
    """Newest first."""
    return list(client.sessions(agent.provider_id).entries)


def status(agent: Agent) -> AgentStatus:
    """As soon as the daemon answers."""

    def ask() -> AgentStatus | None:
        try:
            return AgentControl(agent.state, timeout_s=1.0).status()
        except CoordError:
            return None

    return wait_for(ask, "the control socket answering")


def test_an_agent_is_measured_for_real_and_leaves_in_order(head: Head, client: Client, tmp_path: Path) -> None:
    """Resources and heartbeat are this machine's, the clocks agree; SIGTERM ends a session as clean_close."""
    with Agent(tmp_path, head, "measured", "--label", "room=b12", "--cpus", "3") as agent:
        entry = when_online(client, agent)
        assert entry.cpus == 3.0
        assert entry.memory_gb == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, rel=0.5)
        assert entry.labels == {"room": "b12"}
        assert entry.heartbeat is not None
        assert entry.heartbeat.memory_available_gb is not None
        assert entry.heartbeat.memory_available_gb > 0
        assert entry.heartbeat.memory_pressure is not None
        wait_for(lambda: status(agent).clock_bound_ms is not None, "an acknowledgement")
        now = status(agent)
        assert abs(now.clock_offset_ms or 0.0) <= (now.clock_bound_ms or 0.0) + 5.0
        os.kill(agent.pid, signal.SIGTERM)
        assert agent.wait() == Exit.STOPPED
        assert [row.disconnect_reason for row in sessions(client, agent)] == ["clean_close"]


def test_a_killed_daemon_costs_a_session_not_the_provider(head: Head, client: Client, tmp_path: Path) -> None:
    """kill -9 of the daemon: within seconds it is online again by the same keeper, one session open, none doubled."""
    with Agent(tmp_path, head, "resilient") as agent:
        when_online(client, agent)
        before = status(agent)
        os.kill(before.daemon_pid, signal.SIGKILL)
        wait_for(lambda: len(sessions(client, agent)) == 2, "the second session")
        newest, oldest = sessions(client, agent)
        assert newest.disconnected_at is None
        assert oldest.disconnect_reason in ("read_error", "superseded")
        after = status(agent)
        assert (after.process_id, after.keeper_pid) == (before.process_id, before.keeper_pid)
        when_online(client, agent)


@pytest.mark.alone
def test_a_killed_keeper_is_noticed_at_once(head: Head, client: Client, tmp_path: Path) -> None:
    """kill -9 of the keeper: the daemon goes within two seconds, and the session ends as a failure."""
    with Agent(tmp_path, head, "headless") as agent:
        when_online(client, agent)
        pid = status(agent).daemon_pid
        os.kill(agent.pid, signal.SIGKILL)
        began = time.monotonic()
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the daemon's end")
        assert time.monotonic() - began < 2.0
        wait_for(lambda: sessions(client, agent)[0].disconnect_reason == "read_error", "the end of the session")


def test_a_forgotten_provider_ends_its_agent(head: Head, client: Client, tmp_path: Path) -> None:
    """`providers forget`: status FORGOTTEN, and the log says what to do to come back."""
    with Agent(tmp_path, head, "unwanted") as agent:
        when_online(client, agent)
        client.forget("unwanted")
        assert agent.wait() == Exit.FORGOTTEN
        assert "remove the state directory" in agent.text()


def test_a_revoked_credential_ends_its_agent(head: Head, client: Client, tmp_path: Path) -> None:
    """Its open connection is cut, it stops with REFUSED, and starting it again is refused at the door."""
    with Agent(tmp_path, head, "revoked") as agent:
        when_online(client, agent)
        tokens = client.tokens(role="agent", limit=100).entries
        client.revoke_token(next(token.token_id for token in tokens if token.provider_id == "revoked"))
        assert agent.wait() == Exit.REFUSED
    with Agent(tmp_path, head, "revoked") as again:
        assert again.wait() == Exit.REFUSED


def test_a_second_agent_with_one_identity_is_refused_and_shown(head: Head, client: Client, tmp_path: Path) -> None:
    """A copied state directory on this machine: the first keeps its session, the second says why it waits."""
    with Agent(tmp_path, head, "twin") as first:
        when_online(client, first)
        (tmp_path / "copy").mkdir()
        second = Agent(tmp_path / "copy", head, "twin")
        second.state.mkdir(mode=0o700)
        shutil.copy(first.state / "identity.json", second.state / "identity.json")
        with second:
            wait_for(lambda: "duplicate (4409)" in second.text(), "the refusal")
            entry = client.provider("twin")
            assert entry.duplicate is not None
            assert entry.liveness == "online"
            rows = sessions(client, first)
            assert len(rows) == 1
            assert rows[0].disconnected_at is None


def test_away_and_drain_are_told_to_each_other(head: Head, client: Client, tmp_path: Path) -> None:
    """A drain by an admin reaches the agent; an agent that says it is away is shown so, and comes back when asked."""
    with Agent(tmp_path, head, "commuter") as agent:
        when_online(client, agent)
        client.drain("commuter", note="new disk")
        wait_for(lambda: status(agent).drain_note == "new disk", "the drain reaching the agent")
        client.resume("commuter")
        wait_for(lambda: not status(agent).draining, "the end of the drain reaching the agent")
        control = AgentControl(agent.state)
        control.away(int(time.time() * 1000) + 3_600_000)
        wait_for(lambda: client.provider("commuter").liveness == "away", "being away")
        assert client.provider("commuter").away_until is not None
        assert sessions(client, agent)[0].disconnect_reason == "draining"
        wait_for(lambda: status(agent).phase == "away", "the agent being away")
        control.back()
        wait_for(lambda: client.provider("commuter").liveness == "online", "coming back")


def test_a_restarted_coordinator_goes_on_with_the_session(tmp_path: Path) -> None:
    """kill -9 of the coordinator: the agent is back within ten seconds as the same process, in the same session."""
    with Head(tmp_path) as head, head.start() as client, Agent(tmp_path, head, "steady") as agent:
        when_online(client, agent)
        before = sessions(client, agent)
        process_id = status(agent).process_id
        head.kill()
        with head.start() as again:
            when_online(again, agent)
            after = sessions(again, agent)
        assert [row.session_id for row in after] == [row.session_id for row in before]
        assert after[0].disconnected_at is None
        assert status(agent).process_id == process_id
