"""Placement alone: what a Place costs in the core, without a disk, and where the time goes.

    python -m bench.placement [--quick] [--profile]

`burst`: a fleet comes, and kinds x tenants lines of work wait for it; `full`: 100,000 jobs wait, the fleet is full, and
whatever ends lets the next one start: every Place is timed, in CPU time: it waits for nothing. `blocked`: the same with
large jobs of each tenant at the head that need more than is free. Agents are made up; nothing is written or sent.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import statistics
import sys
import time
from random import Random

from bench.decisions import KINDS, POLICY, POOLS, PROVIDERS, TENANTS, kind, offer, provider_row
from coordinator.core import events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Decision, Grant, sends_one_by_one
from coordinator.core.decide import decide
from coordinator.core.ids import ConnId, RequestId, TenantName
from coordinator.core.rows import EndCause, ExitInfo, PoolRow, Promises, Row, TenantRow
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import Isolation, JobSpec, StepSpec
from coordinator.service.tuning import tune_process

FLOORS = {"full_place_p99_ms": 100.0, "blocked_place_p99_ms": 100.0}
START_MS = 1_800_000_000_000


class Core:
    """A state and its clock."""

    def __init__(self, providers: int) -> None:
        rows: list[Row] = [PoolRow(name=provider_row(n).pool, created_at_ms=1) for n in range(len(POOLS))]
        rows += [TenantRow(name=TenantName(f"tenant-{n}"), created_at_ms=1) for n in range(TENANTS)]
        rows += [provider_row(n) for n in range(providers)]
        self.state = ClusterState.load("bench", rows, 1, providers + 1)
        self.now_ms = START_MS
        self.providers = providers
        self.granted: list[tuple[ConnId, Grant]] = []
        self.places: list[float] = []
        self.decide(events.Boot(at_ms=self.now_ms))

    def decide(self, event: events.AnyEvent) -> Decision:
        decision = decide(self.state, event, POLICY)
        self.granted += [
            (send.conn_id, send.message) for send in sends_one_by_one(decision.sends) if isinstance(send.message, Grant)
        ]
        return decision

    def connect(self, cpus: int) -> None:
        for number in range(self.providers):
            row = provider_row(number)
            self.decide(
                events.AgentHello(
                    at_ms=self.now_ms,
                    conn_id=ConnId(number + 1),
                    provider_id=row.provider_id,
                    machine_id=row.machine_id,
                    boot_id="boot",
                    process_id="process",
                    agent_version="1",
                    peer="",
                    fresh_resume_digest="digest",
                    resources=offer(number, cpus),
                    labels=row.labels,
                    promises=Promises(work=True, isolation=Isolation.UID),
                )
            )

    def submit(self, spec: JobSpec, tenant: int) -> None:
        name = TenantName(f"tenant-{tenant}")
        ask = events.JobSubmit(at_ms=self.now_ms, request_id=RequestId(1), tenant=name, by="token:bench", spec=spec)
        (reply,) = self.decide(ask).replies
        assert not isinstance(reply.result, Exception), reply.result

    def place(self) -> None:
        """Until nothing more can be placed."""
        while self.state.work.place_due:
            began_s = time.thread_time()
            decide_place = events.Place(at_ms=self.now_ms)
            decision = decide(self.state, decide_place, POLICY)
            self.places.append(time.thread_time() - began_s)
            self.granted += [
                (s.conn_id, s.message) for s in sends_one_by_one(decision.sends) if isinstance(s.message, Grant)
            ]

    def ends(self, conn_id: ConnId, grant: Grant) -> None:
        said = {"at_ms": self.now_ms, "conn_id": conn_id, "attempt_id": grant.attempt_id, "rank": grant.rank}
        self.decide(events.AgentGranted(**said, token=grant.token))  # type: ignore[arg-type]
        over = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=1)
        self.decide(events.AttemptExited(**said, token=grant.token, exit=over))  # type: ignore[arg-type]


def burst(quick: bool) -> dict[str, float]:
    """Everybody waits, and the fleet comes."""
    core, leases = Core(PROVIDERS // 10 if quick else PROVIDERS), 5_000 if quick else 100_000
    for number in range(KINDS):
        for tenant in range(TENANTS):
            core.submit(kind(number, leases // (KINDS * TENANTS)), tenant)
    core.connect(cpus=4 * leases // core.providers)
    core.place()
    assert len(core.granted) == leases, len(core.granted)
    took_s = sum(core.places)
    return {
        "burst_placed": leases,
        "burst_per_s": round(leases / took_s),
        "burst_us_a_lease": round(took_s / leases * 1e6, 1),
        "burst_place_max_ms": round(max(core.places) * 1e3, 1),
    }


def full(quick: bool, heads: bool = False) -> dict[str, float]:
    """Many jobs wait and the fleet is full: whatever ends lets the next one start."""
    jobs, ends = (2_000, 500) if quick else (100_000, 2_000)
    core, dice = Core(PROVIDERS // 10 if quick else PROVIDERS), Random(2)
    if heads:
        for tenant in range(TENANTS):
            for nodes in (1, 2, 8):
                asks = (Ask(cpus=4 * UNIT),)
                step = StepSpec(name="whole", command=("true",), asks=asks, nodes=nodes, time_limit_ms=7_200_000)
                core.submit(JobSpec(name="whole", steps=(step,)), tenant)
    for _ in range(jobs):
        core.submit(kind(dice.randrange(KINDS), 1), dice.randrange(TENANTS))
    core.connect(cpus=4)
    core.place()
    filled = len(core.places)
    held = list(core.granted)
    dice.shuffle(held)
    for number in range(min(ends, len(held))):
        core.now_ms += 20
        core.ends(*held[number])
        core.place()
    ms = statistics.quantiles(core.places[filled:], n=100)
    name = "blocked" if heads else "full"
    return {
        f"{name}_waiting": len(core.state.work.jobs),
        f"{name}_places": len(core.places) - filled,
        f"{name}_place_p50_ms": round(ms[49] * 1e3, 3),
        f"{name}_place_p99_ms": round(ms[98] * 1e3, 3),
        f"{name}_place_max_ms": round(max(core.places[filled:]) * 1e3, 3),
        f"{name}_first_max_ms": round(max(core.places[:filled]) * 1e3, 3),
    }


def main() -> int:
    quick = "--quick" in sys.argv[1:]
    tune_process()
    profile = cProfile.Profile()
    if "--profile" in sys.argv[1:]:
        profile.enable()
    figures = burst(quick) | full(quick) | full(quick, heads=True)
    if "--profile" in sys.argv[1:]:
        profile.disable()
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)
    ratios = {name: figures[name] for name in FLOORS}
    print(json.dumps({"figures": figures, "ratios": ratios, "floors": FLOORS, "n": {"runs": 1}}, indent=1))
    return 0 if quick or all(ratios[name] <= floor for name, floor in FLOORS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
