"""An agent behind a network of its own that is cut in both directions, or in one: who notices, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.api_types.reliability import Features
from coordinator.client import Client
from tests.acceptance.cable import Cable, FarAgent
from tests.acceptance.processes import Head, liveness, sessions_of, wait_for, when_online

pytestmark = pytest.mark.paced  # seconds decide here: suspect after ten
SETTINGS = ("--set", "policy.heartbeat_interval_ms=1s", "--set", "policy.lost_after_ms=10s", "--insecure-listen")
"""An agent lets go of a silent connection after five seconds and is back 2.5 later: before it counts as lost."""


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as cable:
        yield cable


def features_of(client: Client, sessions: int) -> Features:
    """The agent's features, once they speak of so many sessions."""

    def told() -> Features | None:
        features = client.liveness("far")
        return features if features.sessions_count == sessions else None

    return wait_for(told, f"features of {sessions} sessions")


def test_a_cut_network_is_noticed_on_both_sides_and_costs_a_stay_only_when_it_lasts(
    cable: Cable, tmp_path: Path
) -> None:
    """Cut from coordinator to agent alone: the agent, unacknowledged, lets go of a connection that looks well from the
    other end, and is back within the same stay. Cut both ways: suspect, lost at its last heartbeat, and the agent has
    given its half-open connection up as well; a failure, and a new stay."""
    with (
        Head(tmp_path, *SETTINGS, listen=f"{cable.ours}:0") as head,
        head.start() as client,
        FarAgent(tmp_path, head, "far", cable) as agent,
    ):
        when_online(client, agent)

        cable.cut("input")
        wait_for(lambda: "half dead" in agent.text(), "the agent letting go")
        cable.mend()
        wait_for(lambda: len(sessions_of(client, "far")) == 2, "the next session")
        when_online(client, agent)
        first, second = sessions_of(client, "far")
        assert first.disconnect_reason in ("read_error", "superseded")
        assert first.disconnected_at is not None and first.disconnected_at <= second.connected_at
        brief = features_of(client, 2)
        assert (brief.stays_count, brief.failures_count) == (1, 0)

        noticed = agent.text().count("half dead")
        cable.cut("input", "output")
        wait_for(lambda: liveness(client)["far"] == "suspect", "being suspect")
        wait_for(lambda: agent.text().count("half dead") > noticed, "the agent letting go")
        wait_for(lambda: liveness(client)["far"] == "lost", "being lost")
        ended = sessions_of(client, "far")[1]
        assert ended.disconnect_reason == "stale_heartbeat"
        cable.mend()
        wait_for(lambda: len(sessions_of(client, "far")) == 3, "the last session")
        when_online(client, agent)
        assert sessions_of(client, "far")[1] == ended
        longer = features_of(client, 3)
        assert (longer.stays_count, longer.failures_count) == (2, 1)
