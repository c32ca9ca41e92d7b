"""`coord agent` as a command: where it finds what it needs, how it is spoken to, and how it ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from coordinator.client import Client
from tests.acceptance.cli_runs import Coord, Server
from tests.acceptance.processes import COORD, Process, wait_for


class Place(NamedTuple):
    server: Server
    client: Client
    coord: Coord
    directory: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("agents")
    with Server(directory) as server:
        yield Place(server, server.start(), Coord(server.data), directory)


def liveness(place: Place, who: str) -> str | None:
    return {entry.provider_id: entry.liveness for entry in place.client.providers().entries}.get(who)


class LocalAgent(Process):
    """`coord agent` with nothing but COORD_DATA and a state directory."""

    def __init__(self, place: Place, who: str, *arguments: str) -> None:
        self.state = place.directory / who
        argv = (*COORD, "agent", "--provider-id", who, "--state", str(self.state), *arguments)
        super().__init__(argv, place.directory / f"{who}.log", {"COORD_DATA": str(place.server.data)})

    def __enter__(self) -> LocalAgent:
        self.spawn()
        return self


def test_an_agent_beside_the_coordinator_needs_no_words(place: Place) -> None:
    """URL and join token come from the data directory; what was declared is shown; SIGTERM ends it with 0."""
    with LocalAgent(place, "local", "--cpus", "3.5", "--memory", "2GB", "--gpu", "H100", "--label", "a=b") as agent:
        wait_for(lambda: liveness(place, "local") == "online", "the agent being online")
        entry = place.client.provider("local")
        assert (entry.cpus, entry.memory_gb, entry.gpus, entry.labels) == (3.5, 2.0, ("H100",), {"a": "b"})
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert place.client.sessions("local").entries[0].disconnect_reason == "clean_close"
        assert place.server.token("join") not in agent.text()


def test_an_agent_is_told_to_go_and_come_back_through_its_state_directory(place: Place) -> None:
    """status, away, back and bye; being away is no failure, and is shown with its end."""
    with LocalAgent(place, "spoken", "--no-cpu-limit") as agent:
        wait_for(lambda: liveness(place, "spoken") == "online", "the agent being online")
        state = ("--state", str(agent.state))
        status = place.coord("agent", "status", *state, "-o", "json").json()
        assert status["provider_id"] == "spoken" and status["coordinator"] == place.server.url
        shown = place.coord("agent", "status", *state).out
        rows = ("kills all", "memory limit", "cpu limit", "0 parts sent")
        assert "spoken" in shown and all(name in shown for name in rows)
        promises = status["promises"]
        assert promises["cpu_limit"] is False
        entry = place.client.provider("spoken")
        assert promises["isolation"] == entry.isolation
        assert {name for name, made in promises.items() if made is True and name != "work"} == set(entry.promises)
        assert "isolation" in place.coord("providers", "show", "spoken").out
        assert place.coord("agent", "away", *state).code == 2
        assert place.coord("agent", "away", "--for", "2h", *state).code == 0
        wait_for(lambda: liveness(place, "spoken") == "away", "the agent being away")
        until = place.client.provider("spoken").away_until
        assert until is not None and until > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 7100))
        assert place.coord("agent", "back", *state).code == 0
        wait_for(lambda: liveness(place, "spoken") == "online", "the agent being back")
        assert place.coord("agent", "bye", *state).code == 0
        assert agent.wait() == 0
        gone = place.coord("agent", "status", *state)
        assert gone.code == 69 and "coord agent" in gone.err


@pytest.mark.parametrize(
    ("argv", "env", "code", "said"),
    [
        ((), {"COORD_DATA": "/nonexistent"}, 69, "--url"),
        (("--label", "nonsense"), {}, 78, "--label"),
        (("--memory", "much"), {}, 78, "--memory"),
        (("--cpus", "0"), {}, 2, "--cpus"),
        (("--provider-id", "no spaces"), {}, 78, "letters"),
        ((), {"COORD_JOIN_TOKEN": "coord-join-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, 77, "token"),
        ((), {"COORD_JOIN_TOKEN": "secret-nonsense"}, 78, "coord-join-"),
        (("--url", "http://192.0.2.1:7070"), {"COORD_JOIN_TOKEN": "coord-join-AAAAAAAAAAAAAAAA"}, 78, "insecure"),
    ],
)
def test_what_cannot_work_ends_it_with_the_reason(
    place: Place, tmp_path: Path, argv: tuple[str, ...], env: dict[str, str], code: int, said: str
) -> None:
    """The documented status, what to write, and never the secret."""
    done = place.coord("agent", "--state", str(tmp_path / "state"), *argv, env=env)
    assert done.code == code, done.err
    assert said in done.err and "Traceback" not in done.err
    assert "AAAAAAAA" not in done.err and "secret-nonsense" not in done.err


def test_a_second_agent_on_one_state_directory_is_refused(place: Place) -> None:
    """Status 73; the first goes on."""
    with LocalAgent(place, "twice") as agent:
        wait_for(lambda: liveness(place, "twice") == "online", "the agent being online")
        second = place.coord("agent", "--state", str(agent.state))
        assert second.code == 73 and str(agent.pid) in second.err
        assert liveness(place, "twice") == "online"
