"""Pods with parts of GPUs on nodes that differ: our scheduler, plain first come first served, EASY backfill.

    python -m bench.shared_gpus NODES.csv PODS.csv [--every 8] [--load 0.9] [--jobs N]

Of the nodes every eighth, of the pods those that ran for a day at most, brought to a load of what is scarcer. The
references choose the fullest node that has room, by the core's own arithmetic of shares; limits are the true run times.
Without files it makes some. Prints JSON: waits, bounded slowdown, and how busy GPUs were until the last submission.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from pathlib import Path
from random import Random

from bench.schedules import figures
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.ids import PoolName, ProviderId
from coordinator.core.queue.capacity import Offer, add_share, left_over, offer_of, share_of
from coordinator.core.rows import Resources
from coordinator.core.work.live import Load
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import Fleet, Machine, of_nodes
from coordinator.simulator.history.openb import read_nodes, read_pods
from coordinator.simulator.history.workload import HOUR_MS, Job, Workload, loaded, told

WORST = 0.5
"""Our mean wait may be so many times that of plain first come first served at most."""
LONGEST_MS = 24 * HOUR_MS


Kind = tuple[Ask, tuple[PoolName, ...]]
"""What a job asks for, and where it may run."""


class Place:
    """One node as the references see it."""

    def __init__(self, machine: Machine) -> None:
        self.pool, self.offer, self.load = machine.pool, offer_of(machine.resources), Load()
        self.runs: dict[int, tuple[int, Share]] = {}
        """Job: its end by its limit, and what it holds."""
        self.known: dict[Kind, int | None] = {}
        """When there is room for one of a kind, as long as nothing begins or ends here."""

    def able(self, job: Job) -> bool:
        return not job.pools or self.pool in job.pools

    def room_at(self, job: Job, now: int) -> int | None:
        """When there is room for it, by the limits of those that run here; None: never."""
        kind = job.ask, job.pools
        if kind not in self.known:
            self.known[kind] = self._room_at(job)
        found = self.known[kind]
        return max(now, found) if found is not None else None

    def _room_at(self, job: Job) -> int | None:
        if not self.able(job) or share_of(self.offer, Load(), job.ask) is None:
            return None
        load = Load(cpus=self.load.cpus, memory=self.load.memory, gpus=list(self.load.gpus))
        when = 0
        for end, share in sorted(self.runs.values(), key=lambda run: run[0]):
            if share_of(self.offer, load, job.ask) is not None:
                break
            add_share(load, share, -1)
            when = end
        return when


class Reference:
    """One queue, in the order of submission. With `backfill` whoever stands behind a blocked head and delays it not may
    start."""

    def __init__(self, fleet: Fleet, jobs: Sequence[Job], *, backfill: bool) -> None:
        self.places = [Place(machine) for machine in fleet.machines.values()]
        self.jobs, self.backfill = jobs, backfill
        self.began = [0] * len(jobs)
        self.waiting: dict[Kind, list[int]] = {}
        """By kind, in the order of submission."""
        self.ends: list[tuple[int, int, Place]] = []
        self.kept: tuple[int, Place, int] | None = None
        """The head, its place and when it starts there at the latest."""

    def run(self) -> list[int]:
        """When each job starts."""
        next_job = 0
        while next_job < len(self.jobs) or self.waiting:
            arrival = [self.jobs[next_job].at_ms] if next_job < len(self.jobs) else []
            now = min([*arrival, *(end for end, _, _ in self.ends[:1])])
            freed: list[Place] = []
            while self.ends and self.ends[0][0] <= now:
                _, number, place = heappop(self.ends)
                add_share(place.load, place.runs.pop(number)[1], -1)
                place.known.clear()
                freed.append(place)
            fresh = next_job
            while next_job < len(self.jobs) and self.jobs[next_job].at_ms <= now:
                job = self.jobs[next_job]
                self.waiting.setdefault((job.ask, job.pools), []).append(next_job)
                next_job += 1
            self._serve(now, freed, fresh)
        return self.began

    def _serve(self, now: int, freed: list[Place], fresh: int) -> None:
        """In the order of submission. Who waited already (below `fresh`) can only be served by what came free, a new
        one by anybody. What one of a kind did not find none of the same kind finds in this moment: places only fill.
        The head's place is open to those that end before the head starts: these may find what a longer one did not."""
        turns = [(numbers[0], 0, kind) for kind, numbers in self.waiting.items()]
        heapify(turns)
        full: dict[tuple[Kind, bool], bool] = {}
        """By kind, and whether they are new: whether the head's place has no room for them either."""
        begun: dict[Kind, set[int]] = {}
        blocked = False
        while turns:
            number, at, kind = turns[0]
            job, numbers, new = self.jobs[number], self.waiting[kind], number >= fresh
            no_room = full.get((kind, new))
            if no_room:
                at = len(numbers) if new else bisect_left(numbers, fresh)
            else:
                at += 1
                if no_room is None or (self.kept is not None and now + job.run_ms <= self.kept[2]):
                    first_time = not new and not blocked and (self.kept is None or self.kept[0] != number)
                    among = self.places if new or first_time else freed
                    place = self._best(job, among, now, blocked)
                    if place is not None:
                        begun.setdefault(kind, set()).add(number)
                        self._start(number, place, now)
                    else:
                        full[kind, new] = not blocked or self._is_full(job, among, now)
                        if not blocked and not self.backfill:
                            break
                        if not blocked:
                            self._keep(number, now)
                            blocked = True
            if at < len(numbers):
                heapreplace(turns, (numbers[at], at, kind))
            else:
                heappop(turns)
        for kind, started in begun.items():
            left = [number for number in self.waiting[kind] if number not in started]
            if left:
                self.waiting[kind] = left
            else:
                del self.waiting[kind]

    def _is_full(self, job: Job, among: Sequence[Place], now: int) -> bool:
        """Behind the head there was no room for it: nor would there be for a shorter one."""
        if self.kept is None or now + job.run_ms <= self.kept[2]:
            return True
        place = self.kept[1]
        return place not in among or share_of(place.offer, place.load, job.ask) is None

    def _best(self, job: Job, among: Sequence[Place], now: int, blocked: bool) -> Place | None:
        """The fullest place that has room."""
        found: tuple[tuple[int, int, int], int, Place] | None = None
        for order, place in enumerate(among):
            if not place.able(job) or share_of(place.offer, place.load, job.ask) is None:
                continue
            if blocked and self.kept is not None and place is self.kept[1] and now + job.run_ms > self.kept[2]:
                continue
            key = left_over(place.offer, place.load, job.ask)
            if found is None or key < found[0]:
                found = key, order, place
        return found[2] if found is not None else None

    def _keep(self, head: int, now: int) -> None:
        times = [(when, n) for n, p in enumerate(self.places) if (when := p.room_at(self.jobs[head], now)) is not None]
        when, n = min(times)
        self.kept = head, self.places[n], when

    def _start(self, number: int, place: Place, now: int) -> None:
        job = self.jobs[number]
        share = share_of(place.offer, place.load, job.ask)
        assert share is not None
        add_share(place.load, share, 1)
        place.known.clear()
        place.runs[number] = now + job.run_ms, share
        self.began[number] = now
        heappush(self.ends, (now + job.run_ms, number, place))


def made() -> tuple[Fleet, Workload]:
    """Twelve nodes of two kinds; pods that want parts of a GPU, whole ones, or none."""
    dice = Random(5)
    kinds = (Resources(cpus=64, memory_gb=256, gpus=("T4",) * 8), Resources(cpus=32, memory_gb=128))
    fleet = of_nodes({ProviderId(f"n{n:02d}"): Machine(resources=kinds[int(n % 3 == 0)]) for n in range(12)})
    jobs = []
    for n in range(600):
        gpus = dice.choice((0, 300_000, 500_000, UNIT, 2 * UNIT, 8 * UNIT))
        ask = Ask(cpus=dice.choice((1, 4, 8)) * UNIT, gpus=gpus)
        jobs.append(Job(at_ms=n * 60_000, run_ms=int(dice.expovariate(1 / 3_600_000)) + 1_000, ask=ask))
    return fleet, Workload(jobs=tuple(jobs))


def able(offers: Sequence[tuple[str, Offer]], job: Job) -> bool:
    """Some node could run it."""
    return any(
        (not job.pools or pool in job.pools) and share_of(offer, Load(), job.ask) is not None for pool, offer in offers
    )


def busy(fleet: Fleet, jobs: Sequence[Job], began: Sequence[int]) -> float:
    """Share of the GPU hours between the first and the last submission that were held."""
    first, last = jobs[0].at_ms, jobs[-1].at_ms
    held = sum(
        max(0, min(start + job.run_ms, last) - start) * job.ask.gpus for job, start in zip(jobs, began, strict=True)
    )
    return held / UNIT / HOUR_MS / fleet.capacity(first, last)[1]


def main() -> int:
    """Exit status 1 when our mean wait is more than WORST times that of plain first come first served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nodes", nargs="?", type=Path)
    parser.add_argument("pods", nargs="?", type=Path)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--jobs", type=int, help="only the first")
    parser.add_argument("--quick", action="store_true", help="without files")
    given = parser.parse_args()
    if given.nodes is None or given.pods is None:
        fleet, work = made()
    else:
        with given.nodes.open() as file:
            every = list(read_nodes(csv.DictReader(file)).machines.items())[:: given.every]
        fleet = of_nodes(dict(every))
        with given.pods.open() as file:
            work = read_pods(csv.DictReader(file))
    offers = [(machine.pool, offer_of(machine.resources)) for machine in fleet.machines.values()]
    kinds = {(job.ask, job.pools): job for job in work.jobs}
    fitting = {kind for kind, job in kinds.items() if able(offers, job)}
    jobs = tuple(j for j in work.jobs if j.run_ms <= LONGEST_MS and (j.ask, j.pools) in fitting)[: given.jobs]
    jobs = loaded(told(Workload(jobs=jobs), 1.0), fleet, 0, given.load).jobs
    found = {}
    for name, backfill in (("first_come", False), ("easy", True)):
        began = Reference(fleet, jobs, backfill=backfill).run()
        found[name] = {**figures(jobs, began, len(fleet.machines)), "gpus_busy": round(busy(fleet, jobs, began), 4)}
    spent = time.process_time()
    [(_, books)] = compare(fleet, jobs, ["fit"], None, HOUR_MS)
    began = [books.records[number].started_ms or 0 for number in sorted(books.records)]
    found["coord"] = {**figures(jobs, began, len(fleet.machines)), "gpus_busy": round(busy(fleet, jobs, began), 4)}
    found["coord"]["cpu_ms_a_job"] = round((time.process_time() - spent) * 1_000 / len(jobs), 2)
    for figure in found.values():
        del figure["utilisation"]  # of whole nodes: nobody holds one here
    met = found["coord"]["wait_mean_s"] <= WORST * max(found["first_come"]["wait_mean_s"], 1.0)
    gpus = sum(len(machine.resources.gpus) for machine in fleet.machines.values())
    report = {
        "bench": "shared_gpus",
        "n": {"jobs": len(jobs), "nodes": len(fleet.machines), "gpus": gpus, "load": given.load},
        "figures": found,
        "floors": {"wait_mean_to_first_come_at_most": WORST},
    }
    print(json.dumps(report, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
