"""The wall clock of the head node set back an hour and forward a day, while it runs and across a restart."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from coordinator.api_types.reliability import Features
from coordinator.client import Client
from coordinator.timetext import parse_time
from tests.acceptance.processes import Agent, Head, liveness, sessions_of, wait_for, when_online
from tests.unit.agent.agents import alive

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = pytest.mark.skipif(
    not LIBRARIES, reason="libfaketime, which moves the wall clock of one process, is not installed"
)
SETTINGS = ("--set", "policy.heartbeat_interval_ms=1s", "--set", "policy.lost_after_ms=6s")
HOUR_S, DAY_S = 3_600, 86_400


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """libfaketime leaves shared memory behind when a process is killed, some versions though told to use none."""
    yield
    for left in Path("/dev/shm").glob("*faketime_*_*"):
        if left.name.rpartition("_")[2].isdigit() and not alive(int(left.name.rpartition("_")[2])):
            left.unlink(missing_ok=True)


class WallClock:
    """The wall clock of a process, as libfaketime shows it. Every other clock is the machine's own."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "wall-clock"
        self.moved_s = 0
        self.move(0)

    def move(self, by_s: int) -> None:
        """A step from what it shows now."""
        self.moved_s += by_s
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{self.moved_s:+d}\n")
        fresh.replace(self._file)

    def environment(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


def jumps(client: Client) -> list[str]:
    return [entry.text for entry in client.alerts().entries if entry.kind == "clock_jump"]


def told_of(client: Client, step_s: int) -> bool:
    """Whether an alert says that the wall clock was moved so far."""
    return any(f"moved by {step_s:+.1f} s" in text for text in jumps(client))


def more_beats(client: Client, count: int) -> bool:
    return len(beats_ms(client)) >= count


def beats_ms(client: Client) -> list[int]:
    """When the agent's heartbeats were observed, oldest first."""
    return [parse_time(entry.observed_at) for entry in client.heartbeats("w1", limit=500).entries][::-1]


def test_a_step_of_the_wall_clock_moves_nothing_but_an_alert(tmp_path: Path) -> None:
    """-1 h and then +25 h (a day ahead) under a connected agent: each is an alert that says how far; the session goes
    on and is as long as it was; heartbeats keep their order and pace; figures are of our own time."""
    wall = WallClock(tmp_path)
    with (
        Head(tmp_path, *SETTINGS, env=wall.environment()) as head,
        head.start() as client,
        Agent(tmp_path, head, "w1") as agent,
    ):
        when_online(client, agent)
        began_s, first = time.monotonic(), sessions_of(client, "w1")[0]
        for step_s in (-HOUR_S, DAY_S + HOUR_S):
            wall.move(step_s)
            wait_for(partial(told_of, client, step_s), "the alert")
            wait_for(partial(more_beats, client, len(beats_ms(client)) + 2), "two more heartbeats")
            assert liveness(client) == {"w1": "online"}
        lasted_s = time.monotonic() - began_s + 5
        (session,) = sessions_of(client, "w1")
        assert (session.session_id, session.disconnected_at) == (first.session_id, None)
        assert session.duration_seconds is not None and session.duration_seconds <= lasted_s
        observed = beats_ms(client)
        gaps_ms = [later - earlier for earlier, later in itertools.pairwise(observed)]
        assert all(0 <= gap_ms < 60_000 for gap_ms in gaps_ms), gaps_ms  # two may arrive at one moment
        features = wait_for(lambda: features_after(client, observed[-1] - 10_000), "figures of now")
        assert abs(parse_time(features.as_of) - observed[-1]) < 60_000
        assert features.uptime_pct == 1.0 and features.online_seconds <= lasted_s
        assert client.readyz().figures_age_s is not None
        assert 0 <= (client.readyz().figures_age_s or 0.0) < 60


def features_after(client: Client, since_ms: int) -> Features | None:
    """The agent's features, once they are of `since_ms` or later."""
    features = client.liveness("w1")
    return features if parse_time(features.as_of) >= since_ms else None


def test_a_step_across_a_restart_makes_no_session_longer_and_no_time_decrease(tmp_path: Path) -> None:
    """Set back an hour while the coordinator is down: times go on from the last one stored, so does the session. Set
    forward a day: it ends at its last heartbeat, as nobody's failure, and another begins in the same stay. Both are
    alerts at once, and the agent was never lost."""
    wall = WallClock(tmp_path)
    with Head(tmp_path, *SETTINGS, env=wall.environment()) as head:
        head.start().close()
        began_s = time.monotonic()
        with Agent(tmp_path, head, "w1") as agent:
            with head.client() as client:
                when_online(client, agent)
                wait_for(partial(more_beats, client, 1), "a stored heartbeat")
                first = sessions_of(client, "w1")[0]
            head.kill()
            wall.move(-HOUR_S)
            with head.start() as client:
                wait_for(lambda: jumps(client), "the alert")
                assert liveness(client)["w1"] in ("awaited", "online")
                when_online(client, agent)
                (session,) = sessions_of(client, "w1")
                assert (session.session_id, session.disconnected_at) == (first.session_id, None)
                assert session.duration_seconds is not None
                assert 0 <= session.duration_seconds <= time.monotonic() - began_s + 5
                wait_for(partial(more_beats, client, len(beats_ms(client)) + 1), "a stored heartbeat")
                before = beats_ms(client)
            head.kill()
            wall.move(DAY_S + HOUR_S)
            with head.start() as client:
                wait_for(lambda: any("moved by +864" in text for text in jumps(client)), "the alert")
                assert liveness(client)["w1"] in ("awaited", "online")
                when_online(client, agent)
                ended, goes_on = sessions_of(client, "w1")
                lasted_s = time.monotonic() - began_s + 5
                assert (ended.session_id, ended.disconnect_reason) == (first.session_id, "coordinator_restart")
                assert ended.disconnected_at == ended.last_heartbeat_at
                assert ended.duration_seconds is not None and ended.duration_seconds <= lasted_s
                assert goes_on.duration_seconds is not None and goes_on.duration_seconds <= lasted_s
                after = beats_ms(client)
                assert after[: len(before)] == before
                assert after == sorted(after)
                features = wait_for(lambda: features_after(client, parse_time(goes_on.connected_at)), "figures")
                assert (features.stays_count, features.failures_count, features.departures_count) == (1, 0, 0)
                assert features.online_seconds <= lasted_s
                assert features.observed_seconds - features.online_seconds <= 5.0  # from its last beat to our last
