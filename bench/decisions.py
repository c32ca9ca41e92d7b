"""Decisions without a spawn: matched, leased and durable, against the disk alone.

    python -m bench.decisions [--quick] [PART ...]

Every part is the real engine on a real store on disk; only the agents are made up: a thousand providers say hello and
nothing more. `burst`: 20 tenants with 50 kinds of requests wait when the fleet comes; the figure is leases durable per
second, from then to the last grant let go. Beside it in the same run a bare SQLite writer puts down as many bytes in as
many transactions. `single`: one job at a time, from its submission to its grant, in turns with a bare write and
fdatasync. `array`: a million tasks as one job. `queued`: capacity is freed under 100,000 waiting jobs, every Place is
timed.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Put, Write
from coordinator.core.ids import AttemptId, ConnId, PoolName, ProviderId, ProviderKey, TenantName, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    EndCause,
    ExitInfo,
    LeaseToken,
    PoolRow,
    Promises,
    ProviderRow,
    Resources,
    TenantRow,
)
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.service.engine import Engine, EngineSettings
from coordinator.service.recorder import Recorder
from coordinator.service.recovery import recover
from coordinator.service.tuning import tune_process
from coordinator.service.views import LiveViews
from store.durable import DiskStore
from store.layout import DataDir
from store.sqlite import Durability, open_writer

FLOORS = {"burst_per_s": 50_000, "single_to_fdatasync": 4.0, "array_accept_s": 1.0, "queued_place_p99_ms": 100.0}
PROVIDERS = 1_000
KINDS = 50
TENANTS = 20
AT_ONCE = 5
"""Attempts that end together, in `queued`: fewer may start in their place, never none."""
POOLS = ("cpu", "gpu", "big", "edge", "spare")
POLICY = Policy(
    heartbeat_interval_ms=600_000,
    lost_after_ms=3_600_000,
    grant_ms=3_600_000,
    launch_ms=3_600_000,
    unanswered_max=10**9,
)
"""Agents that are made up send no heartbeats and acknowledge nothing: nobody is to be judged by that."""


def provider_row(number: int) -> ProviderRow:
    return ProviderRow(
        provider_id=ProviderId(f"node-{number:04}"),
        key=ProviderKey(number + 1),
        machine_id=f"machine-{number}",
        pool=PoolName(POOLS[number % len(POOLS)]),
        credential_id=TokenId(f"agent-{number}"),
        enrolled_at_ms=1,
        labels={"zone": "abcd"[number % 4], "disk": "fast" if number % 2 else "slow"},
    )


def offer(number: int, cpus: int) -> Resources:
    gpus = ("gpu",) * 8 if POOLS[number % len(POOLS)] == "gpu" else ()
    return Resources(cpus=float(cpus), memory_gb=2.0 * cpus, gpus=gpus)


def kind(number: int, tasks: int) -> JobSpec:
    """One of the kinds of requests: they differ in what they ask, where they may go and how long they run."""
    ask = Ask(cpus=(1 + number % 2) * UNIT // 2, memory=(1 + number % 3) * 2**28)
    labels = ((), (("zone", "abcd"[number % 4]),), (("disk", "fast"),))[number % 3]
    pools = () if number % 4 else (PoolName(POOLS[number % 5]), PoolName(POOLS[(number + 2) % 5]))
    step = StepSpec(
        name="work",
        command=("true",),
        tasks=tasks,
        asks=(ask,),
        labels=labels,
        pools=pools,
        expected_ms=60_000 * (1 + number),
    )
    return JobSpec(name=f"kind-{number}", steps=(step,))


class Agents:
    """Takes what the engine tells its agents: counts grants, and wakes who waits for so many."""

    def __init__(self) -> None:
        self.granted: list[tuple[ConnId, AttemptId, LeaseToken]] = []
        self._awaited = 0
        self._reached = asyncio.Event()

    def send(self, conn_id: ConnId, message: commands.Message) -> None:
        if isinstance(message, commands.Grants):
            self.granted += [(conn_id, *lease) for lease in message.leases]
        elif isinstance(message, commands.Grant):
            self.granted.append((conn_id, message.attempt_id, message.token))
        if len(self.granted) >= self._awaited:
            self._reached.set()

    async def drained(self) -> None:
        """They say nothing by themselves."""

    async def grants(self, count: int) -> None:
        """Return when so many were let go in all."""
        self._awaited = count
        if len(self.granted) < count:
            self._reached.clear()
            await self._reached.wait()


class World:
    """An engine on a disk, tenants, and a fleet that is enrolled and not connected."""

    def __init__(self, data: DataDir, store: DiskStore, engine: Engine, providers: int) -> None:
        self.data, self.store, self.engine = data, store, engine
        self.agents = Agents()
        self.providers = providers
        engine.bind_links(self.agents)

    def connect(self, cpus: int) -> None:
        """Everybody says hello, in one turn of the engine."""
        for number in range(self.providers):
            hello = events.AgentHello(
                at_ms=self.engine.clock.now_ms(),
                conn_id=ConnId(number + 1),
                provider_id=ProviderId(f"node-{number:04}"),
                machine_id=f"machine-{number}",
                boot_id="boot",
                process_id="process",
                agent_version="1",
                peer="10.0.0.1:1",
                fresh_resume_digest="digest",
                resources=offer(number, cpus),
                labels=provider_row(number).labels,
                promises=Promises(work=True),
            )
            self.engine.post(hello)

    async def submit(self, spec: JobSpec, tenant: int) -> commands.Result:
        return await self.engine.call(
            lambda request_id: events.JobSubmit(
                at_ms=self.engine.clock.now_ms(),
                request_id=request_id,
                tenant=TenantName(f"tenant-{tenant}"),
                by="token:bench",
                spec=spec,
            )
        )

    def ends(self, conn_id: ConnId, attempt_id: AttemptId, token: LeaseToken) -> None:
        """The agent took it, and it is over."""
        now_ms = self.engine.clock.now_ms()
        named: dict[str, Any] = {
            "at_ms": now_ms,
            "conn_id": conn_id,
            "attempt_id": attempt_id,
            "rank": 0,
            "token": token,
        }
        self.engine.post(events.AgentGranted(**named))
        self.engine.post(events.AttemptExited(**named, exit=ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=1)))


@asynccontextmanager
async def a_world(directory: Path, providers: int) -> AsyncIterator[World]:
    data = DataDir(directory)
    store = await DiskStore.open(data)
    try:
        rows: list[Write] = [Put(PoolRow(name=PoolName(name), created_at_ms=1)) for name in POOLS]
        rows += [Put(TenantRow(name=TenantName(f"tenant-{number}"), created_at_ms=1)) for number in range(TENANTS)]
        rows += [Put(provider_row(number)) for number in range(providers)]
        await store.commit(rows)
        found = await recover(store, store.coordinator_id)
        tune_process()
        engine = Engine(store, found.clock, LiveViews(), POLICY, EngineSettings(), Recorder(data.recorder), found.state)
        engine.post(found.boot)
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.run())
            yield World(data, store, engine, providers)
            await engine.stop()
    finally:
        await store.close()


# ---- the parts


async def burst(directory: Path, quick: bool) -> dict[str, float]:
    """Everybody waits; the fleet comes; until the last grant has left."""
    leases = 5_000 if quick else 100_000
    async with a_world(directory / "burst", PROVIDERS // 10 if quick else PROVIDERS) as world:
        each = leases // (KINDS * TENANTS)
        for number in range(KINDS):
            await asyncio.gather(*(world.submit(kind(number, each), tenant) for tenant in range(TENANTS)))
        began_bytes, commits = written_bytes(), world.engine.counters.commits
        world.connect(cpus=4 * leases // world.providers)
        await asyncio.sleep(0)
        began_s, began_cpu_s, loop_cpu_s = time.perf_counter(), time.process_time(), time.thread_time()
        await world.agents.grants(leases)
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        loop_cpu_s = time.thread_time() - loop_cpu_s
        counters = world.engine.counters
        size, commits = written_bytes() - began_bytes, counters.commits - commits
        assert len({attempt_id for _, attempt_id, _ in world.agents.granted}) == leases
    bare_s = bare_writer(directory / "bare.sqlite", size, commits)
    return {
        "burst_leases": leases,
        "burst_per_s": round(leases / took_s),
        "burst_cpu_us_a_lease": round(cpu_s / leases * 1e6, 1),
        "burst_loop_cpu_us_a_lease": round(loop_cpu_s / leases * 1e6, 1),
        "burst_place_us_a_lease": round(counters.place_seconds_sum / leases * 1e6, 1),
        "burst_bytes_a_lease": round(size / leases),
        "burst_commits": commits,
        "bare_sqlite_s": round(bare_s, 3),
        "burst_s": round(took_s, 3),
    }


def written_bytes() -> int:
    """What this process has handed to the disk so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def bare_writer(path: Path, size: int, commits: int) -> float:
    """How long SQLite takes for as many bytes, as blobs, in as many durable transactions."""
    connection = open_writer(path, Durability.FULL)
    connection.execute("CREATE TABLE bare (n INTEGER PRIMARY KEY, data BLOB NOT NULL)")
    filling = Random(1).randbytes(size // max(commits, 1))
    began_s = time.perf_counter()
    for number in range(commits):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO bare VALUES (?, ?)", (number, filling))
        connection.execute("COMMIT")
    took_s = time.perf_counter() - began_s
    connection.close()
    return took_s


async def single(directory: Path, quick: bool) -> dict[str, float]:
    """An idle coordinator is handed one job after the other."""
    count = 50 if quick else 1_000
    leased: list[float] = []
    synced: list[float] = []
    bare = os.open(directory / "synced", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    async with a_world(directory / "single", PROVIDERS // 10 if quick else PROVIDERS) as world:
        world.connect(cpus=64)
        for number in range(count):
            spec = kind(number % KINDS, 1)
            began_s = time.perf_counter()
            submitted = asyncio.ensure_future(world.submit(spec, number % TENANTS))
            await world.agents.grants(number + 1)
            leased.append(time.perf_counter() - began_s)
            await submitted
            began_s = time.perf_counter()
            os.write(bare, b"x" * 4096)
            os.fdatasync(bare)
            synced.append(time.perf_counter() - began_s)
    os.close(bare)
    median_s, sync_s = statistics.median(leased), statistics.median(synced)
    return {
        "single_p50_ms": round(median_s * 1e3, 3),
        "single_p99_ms": round(statistics.quantiles(leased, n=100)[98] * 1e3, 3),
        "fdatasync_p50_ms": round(sync_s * 1e3, 3),
        "single_to_fdatasync": round(median_s / sync_s, 2),
        "single_n": count,
    }


async def array(directory: Path, quick: bool) -> dict[str, float]:
    """A million tasks in one job, while nobody can run it."""
    tasks = 10_000 if quick else 1_000_000
    async with a_world(directory / "array", 10) as world:
        await world.submit(kind(1, 10), 1)
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began_s = time.perf_counter()
        await world.submit(kind(1, tasks), 1)
        took_s = time.perf_counter() - began_s
        grew_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    return {"array_tasks": tasks, "array_accept_s": round(took_s, 4), "array_grew_kb": grew_kb}


async def queued(directory: Path, quick: bool) -> dict[str, float]:
    """Many jobs wait and the fleet is full: whatever ends lets the next one start."""
    jobs, ends = (2_000, 200) if quick else (100_000, 2_000)
    dice = Random(2)
    async with a_world(directory / "queued", PROVIDERS // 10 if quick else PROVIDERS) as world:
        for begin in range(0, jobs, 2_000):
            specs = [kind(dice.randrange(KINDS), 1) for _ in range(begin, min(jobs, begin + 2_000))]
            await asyncio.gather(*(world.submit(spec, dice.randrange(TENANTS)) for spec in specs))
        places: list[float] = []
        cpu: list[float] = []
        place: Callable[[], None] = world.engine._place

        def timed() -> None:
            began_s, began_cpu_s = time.perf_counter(), time.thread_time()
            place()
            places.append(time.perf_counter() - began_s)
            cpu.append(time.thread_time() - began_cpu_s)

        with patch.object(world.engine, "_place", timed):
            world.connect(cpus=4)
            at_rest = threading.Event()
            while not at_rest.is_set():
                before = len(places)
                await asyncio.sleep(0.2)
                if before == len(places) and not world.engine.state.work.place_due:
                    at_rest.set()
            filled = len(places)
            first_ms = max(places) * 1e3
            held = list(world.agents.granted)
            dice.shuffle(held)
            for begin in range(0, min(ends, len(held)), AT_ONCE):
                now, ending = len(world.agents.granted), held[begin : begin + AT_ONCE]
                for one in ending:
                    world.ends(*one)
                await world.agents.grants(now + 1)
        later = places[filled:]
        waiting = len(world.engine.state.work.jobs)
        later_cpu = cpu[filled:]
    ms = statistics.quantiles(later, n=100)
    return {
        "queued_jobs": waiting,
        "queued_places": len(later),
        "queued_place_p50_ms": round(ms[49] * 1e3, 3),
        "queued_place_p99_ms": round(ms[98] * 1e3, 3),
        "queued_place_max_ms": round(max(later) * 1e3, 3),
        "queued_place_cpu_p99_ms": round(statistics.quantiles(later_cpu, n=100)[98] * 1e3, 3),
        "queued_first_place_max_ms": round(first_ms, 3),
    }


PARTS: dict[str, Callable[[Path, bool], Coroutine[None, None, dict[str, float]]]] = {
    "burst": burst,
    "single": single,
    "array": array,
    "queued": queued,
}


def main() -> int:
    quick = "--quick" in sys.argv[1:]
    names = [name for name in sys.argv[1:] if name in PARTS] or list(PARTS)
    figures: dict[str, float] = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="coord-bench-") as directory:
            figures |= asyncio.run(PARTS[name](Path(directory), quick))
    ratios = {name: figures[name] for name in FLOORS if name in figures}
    print(json.dumps({"figures": figures, "ratios": ratios, "floors": FLOORS, "n": {"runs": 1}}, indent=1))
    held = [ratio >= FLOORS[name] if name == "burst_per_s" else ratio <= FLOORS[name] for name, ratio in ratios.items()]
    return 0 if quick or all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
