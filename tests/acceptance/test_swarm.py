"""Many agents at once on one coordinator: for a while, and all back together after a kill."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coordinator.api_types.fleet import ProviderEntry
from coordinator.client import Client, every
from tests.acceptance.processes import Head, clean_environment, sessions_of, wait_for

ROOT = Path(__file__).parent.parent.parent
BARE_LOOP = """
import asyncio, uvloop
from coordinator.service.upkeep import LoopLag

async def tell():
    lag = LoopLag(0.1)
    async with asyncio.TaskGroup() as group:
        group.create_task(lag.run())
        while True:
            await asyncio.sleep(5)
            print(lag.recent_ms(), flush=True)

uvloop.run(tell())
"""
"""The coordinator's own probe in a process that does nothing else: what this machine does to any loop."""


class Swarm:
    """Light agents in a process of their own, from their enrolment to their report."""

    def __init__(self, directory: Path, head: Head, agents: int, seconds: float, interval_s: float) -> None:
        self.agents = agents
        argv = (sys.executable, "-m", "bench.swarm", head.url, str(head.data / "tokens" / "join.token"))
        asked = ("--agents", str(agents), "--seconds", str(seconds), "--interval", str(interval_s))
        self._log = directory / "swarm.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                (*argv, *asked), cwd=ROOT, stdout=subprocess.PIPE, stderr=log, env=clean_environment()
            )

    def report(self, within_s: float) -> dict[str, Any]:
        """Wait for the end, and return what the agents lived through."""
        out, _ = self.popen.communicate(timeout=within_s)
        assert out, self._log.read_text(errors="replace")[-2000:]
        told: dict[str, Any] = json.loads(out)
        return told

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()


@contextmanager
def bare_loop(log: Path) -> Iterator[Path]:
    """A loop with nothing to do; every five seconds it writes the worst lag of the last ten, in ms."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            (sys.executable, "-c", BARE_LOOP), cwd=ROOT, stdout=out, stderr=out, env=clean_environment()
        )
        try:
            yield log
        finally:
            process.kill()
            process.wait()


def rss_mb(pid: int) -> float:
    """Resident memory of one process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def metric(client: Client, name: str) -> float:
    """The sum over the labels of one metric."""
    lines = [line for line in client.metrics().splitlines() if line.startswith((name + " ", name + "{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def fleet(client: Client) -> list[ProviderEntry]:
    return [entry for listed in every(lambda page: client.providers(limit=500, page=page)) for entry in listed.entries]


def _live(directory: Path, agents: int, seconds: float, warm_s: float) -> dict[str, Any]:
    """Agents at 5 s for `seconds`; memory and lag are looked at from `warm_s` on."""
    with (
        Head(directory) as head,
        head.start() as client,
        bare_loop(directory / "bare.log") as bare,
        Swarm(directory, head, agents, seconds, 5.0) as swarm,
    ):
        wait_for(lambda: client.readyz().providers_online == agents, "all agents being online", 60)
        began = time.monotonic()
        rss: list[float] = []
        lag_ms: list[float] = []
        while swarm.popen.poll() is None and client.readyz().providers_online == agents:
            if time.monotonic() - began >= warm_s:
                rss.append(rss_mb(head.pid))
                lag_ms.append(client.readyz().loop_lag_ms)
            with suppress(subprocess.TimeoutExpired):
                swarm.popen.wait(5)
        told = swarm.report(60)
        assert (told["dropped"], told["gave_up"], told["reconnects"], told["errors"]) == (0, 0, 0, {})
        wait_for(lambda: metric(client, "coord_heartbeats_waiting") == 0, "the last heartbeats being stored")
        assert metric(client, "coord_heartbeats_stored_total") == told["sent"] == told["acked"]
        assert metric(client, "coord_heartbeats_dropped_total") == 0
        assert not [entry for entry in client.alerts().entries if entry.kind in ("heartbeat_loss", "disk")]
        for entry in (fleet(client)[0], fleet(client)[-1]):
            assert [row.disconnect_reason for row in sessions_of(client, entry.provider_id)] == ["clean_close"]
        bare_ms = [float(line) for line in bare.read_text().split()]
        figures = {
            "agents": agents,
            "seconds": told["seconds"],
            "heartbeats": told["sent"],
            "dropped": told["dropped"],
            "ack_p50_ms": told["ack_p50_ms"],
            "ack_p99_ms": told["ack_p99_ms"],
            "rss_first_mb": round(rss[0], 1),
            "rss_last_mb": round(rss[-1], 1),
            "loop_lag_ms": round(statistics.median(lag_ms), 1),
            "bare_loop_lag_ms": round(statistics.median(bare_ms), 1),
            "loop_lag_worst_ms": max(lag_ms),
            "bare_loop_lag_worst_ms": max(bare_ms),
        }
        print(json.dumps(figures))
        return figures


@pytest.mark.paced
def test_two_hundred_agents_for_a_minute_lose_nothing(tmp_path: Path) -> None:
    """Every heartbeat is acknowledged and stored, memory is flat, the loop is about as punctual as a bare one."""
    figures = _live(tmp_path, 200, 60, warm_s=15)
    assert figures["rss_last_mb"] <= figures["rss_first_mb"] + 8
    assert figures["loop_lag_ms"] <= figures["bare_loop_lag_ms"] + 100


@pytest.mark.soak
def test_a_thousand_agents_for_ten_minutes(tmp_path: Path) -> None:
    """The same, for so long that a leak would show."""
    figures = _live(tmp_path, 1_000, 600, warm_s=120)
    assert figures["rss_last_mb"] <= figures["rss_first_mb"] + 24
    assert figures["loop_lag_ms"] <= figures["bare_loop_lag_ms"] + 100


def _all_back(directory: Path, agents: int) -> float:
    """Kill the coordinator under a connected swarm; how long after it serves again all are registered."""
    with Head(directory) as head, head.start() as client, Swarm(directory, head, agents, 3_600, 5.0):
        wait_for(lambda: client.readyz().providers_online == agents, "all agents being online", 120)
        before = {entry.provider_id: entry.connected_at for entry in fleet(client)}
        head.kill()
        with head.start() as again:
            began = time.monotonic()
            worst: set[str] = set()

            def all_back() -> bool:
                counted = [entry.liveness for entry in fleet(again)]
                worst.update(counted)
                return counted.count("online") == agents

            wait_for(all_back, "all agents being back", 60)
            took_s = time.monotonic() - began
            assert worst <= {"awaited", "online"}, "an agent was counted as gone"
            after = fleet(again)
            # The same sessions go on: none was closed, none was doubled, and no failure can be charged to anybody.
            assert {entry.provider_id: entry.connected_at for entry in after} == before
            for entry in after[:: max(1, agents // 20)]:
                (session,) = sessions_of(again, entry.provider_id)
                assert session.disconnected_at is None
            charged = [row for row in again.reliability(limit=0).entries if row.failures_count or row.departures_count]
            assert charged == []
            print(json.dumps({"agents": agents, "all_back_s": round(took_s, 2), "lost": 0, "charged": 0}))
            return took_s


@pytest.mark.paced
def test_a_fleet_reconnects_after_a_kill_and_nobody_is_charged(tmp_path: Path) -> None:
    """Three hundred agents: all back in their sessions, none lost meanwhile."""
    assert _all_back(tmp_path, 300) < 20


@pytest.mark.soak
def test_two_thousand_agents_are_back_within_ten_seconds(tmp_path: Path) -> None:
    """From the first answer of the coordinator that was started again to the last agent's welcome."""
    assert _all_back(tmp_path, 2_000) < 10
