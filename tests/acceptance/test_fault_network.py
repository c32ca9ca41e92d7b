"""An agent behind a network of its own that is cut in both directions, or in one: who notices, and what it costs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from coordinator.api_types import Features
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, liveness, sessions_of, wait_for, when_online

SETTINGS = ("--set", "policy.heartbeat_interval_ms=1s", "--set", "policy.lost_after_ms=10s", "--insecure-listen")
"""An agent lets go of a silent connection after five seconds and is back 2.5 later: before it counts as lost."""
OURS, THEIRS = "10.231.77.1", "10.231.77.2"


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Cable:
    """A pair of virtual interfaces between us and a network namespace; what crosses it can be dropped by direction."""

    def __init__(self) -> None:
        self.namespace = f"coord-{os.getpid()}"
        self._ours, self._theirs = f"co{os.getpid()}", f"ct{os.getpid()}"
        self._inside = ("ip", "netns", "exec", self.namespace)

    def __enter__(self) -> Cable:
        try:
            run("ip", "netns", "add", self.namespace)
            run("ip", "link", "add", self._ours, "type", "veth", "peer", "name", self._theirs, "netns", self.namespace)
            run("ip", "address", "add", f"{OURS}/30", "dev", self._ours)
            run("ip", "link", "set", self._ours, "up")
            run(*self._inside, "ip", "address", "add", f"{THEIRS}/30", "dev", self._theirs)
            run(*self._inside, "ip", "link", "set", self._theirs, "up")
            self.cut("output")
            self.mend()
        except OSError as refused:
            self.close()
            pytest.skip(f"no network of our own can be made here: {refused}")
        return self

    def cut(self, *hooks: str) -> None:
        """Drop what leaves the agent's side (`output`), what reaches it (`input`), or both; nobody is told."""
        run(*self._inside, "nft", "add", "table", "inet", "cut")
        for hook in hooks:
            chain = f"{{ type filter hook {hook} priority 0; policy drop; }}"
            run(*self._inside, "nft", "add", "chain", "inet", "cut", hook, chain)

    def mend(self) -> None:
        run(*self._inside, "nft", "delete", "table", "inet", "cut")

    def close(self) -> None:
        for argv in (("ip", "link", "delete", self._ours), ("ip", "netns", "delete", self.namespace)):
            subprocess.run(argv, capture_output=True, check=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@pytest.fixture
def cable() -> Iterator[Cable]:
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool}, which cuts a network, is not installed")
    with Cable() as cable:
        yield cable


def features_of(client: Client, sessions: int) -> Features:
    """The agent's features, once they speak of so many sessions."""

    def told() -> Features | None:
        features = client.liveness("far")
        return features if features.sessions_count == sessions else None

    return wait_for(told, f"features of {sessions} sessions", 30)


def test_a_cut_network_is_noticed_on_both_sides_and_costs_a_stay_only_when_it_lasts(
    cable: Cable, tmp_path: Path
) -> None:
    """Cut from coordinator to agent alone: the agent, unacknowledged, lets go of a connection that looks well from the
    other end, and is back within the same stay. Cut both ways: suspect, lost at its last heartbeat, and the agent has
    given its half-open connection up as well; a failure, and a new stay."""
    with Head(tmp_path, *SETTINGS, listen=f"{OURS}:0") as head, head.start() as client:
        agent = Agent(tmp_path, head, "far", "--insecure")
        agent.argv = ("ip", "netns", "exec", cable.namespace, *agent.argv)
        with agent:
            when_online(client, agent)

            cable.cut("input")
            wait_for(lambda: "half dead" in agent.text(), "the agent letting go")
            cable.mend()
            wait_for(lambda: len(sessions_of(client, "far")) == 2, "the next session", 30)
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
            wait_for(lambda: liveness(client)["far"] == "lost", "being lost", 30)
            ended = sessions_of(client, "far")[1]
            assert ended.disconnect_reason == "stale_heartbeat"
            cable.mend()
            wait_for(lambda: len(sessions_of(client, "far")) == 3, "the last session", 30)
            when_online(client, agent)
            assert sessions_of(client, "far")[1] == ended
            longer = features_of(client, 3)
            assert (longer.stays_count, longer.failures_count) == (2, 1)
