"""The same jobs on the same nodes: our scheduler, plain first come first served, EASY backfill. Estimates = limits.

    python -m bench.schedules LOG.swf.gz [--nodes 128] [--load 0.8] [--told 1] [--jobs N] [--quick]

Prints JSON: waits, bounded slowdown, utilisation. Without a log it makes one (power-of-two widths, a day's rhythm), so
that it runs anywhere; the figures that are kept name the log.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.easy import Asked, starts
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import alike
from coordinator.simulator.history.report import SHORT_MS, quantile
from coordinator.simulator.history.swf import Gather, read_swf
from coordinator.simulator.history.workload import HOUR_MS, Job, Workload, moved, told

WORST = 1.2
"""Our mean wait may be so many times EASY's at most."""


def made(nodes: int, count: int) -> Workload:
    """Widths in powers of two, lengths from seconds to hours, more by day than by night."""
    dice = Random(7)
    jobs, at = [], 0.0
    for _ in range(count):
        day = 1.0 + 0.8 * math.sin(2 * math.pi * at / (24 * HOUR_MS))
        at += dice.expovariate(1.0) * 300_000 / day
        wide = 2 ** dice.randint(0, int(math.log2(nodes)))
        jobs.append(Job(at_ms=int(at), run_ms=int(1_000 * math.exp(dice.gauss(5.5, 1.8))) + 1_000, nodes=wide))
    return Workload(jobs=tuple(jobs))


def loaded(work: Workload, nodes: int, load: float) -> tuple[Job, ...]:
    """The same jobs, so close together that they ask for `load` of the nodes."""
    length_ms = work.jobs[-1].at_ms - work.jobs[0].at_ms
    return moved(work, 0, work.hours() * HOUR_MS / (load * nodes) / length_ms).jobs


def figures(jobs: Sequence[Job], began: Sequence[int], nodes: int) -> dict[str, float]:
    waits = sorted((start - job.at_ms) / 1_000 for job, start in zip(jobs, began, strict=True))
    slow = [
        max(1.0, (start - job.at_ms + job.run_ms) / max(job.run_ms, SHORT_MS))
        for job, start in zip(jobs, began, strict=True)
    ]
    end_ms = max(start + job.run_ms for job, start in zip(jobs, began, strict=True))
    busy = sum(job.run_ms * job.nodes for job in jobs) / (nodes * (end_ms - jobs[0].at_ms))
    return {
        "wait_mean_s": round(sum(waits) / len(waits), 1),
        "wait_p50_s": round(quantile(waits, 0.5), 1),
        "wait_p95_s": round(quantile(waits, 0.95), 1),
        "wait_max_s": round(waits[-1], 1),
        "slowdown_mean": round(sum(slow) / len(slow), 2),
        "utilisation": round(busy, 4),
        "makespan_h": round((end_ms - jobs[0].at_ms) / HOUR_MS, 1),
    }


def measured(jobs: tuple[Job, ...], nodes: int) -> dict[str, dict[str, float]]:
    """By scheduler."""
    fleet = alike(f"{nodes}x1")
    assert fleet is not None
    asked = [Asked(job.at_ms, job.run_ms, job.limit_ms or job.run_ms, job.nodes) for job in jobs]
    found = {
        "first_come": figures(jobs, starts(asked, nodes, backfill=False), nodes),
        "easy": figures(jobs, starts(asked, nodes, backfill=True), nodes),
    }
    began = time.process_time()
    [(_, books)] = compare(fleet, jobs, ["fit"], None, HOUR_MS)
    records = [books.records[number] for number in sorted(books.records)]
    assert all(record.started_ms is not None for record in records), "a job never started"
    found["coord"] = figures(jobs, [record.started_ms or 0 for record in records], nodes)
    found["coord"]["cpu_ms_a_job"] = round((time.process_time() - began) * 1_000 / len(jobs), 2)
    return found


def main() -> int:
    """Exit status 1 when our mean wait is WORST times EASY's or more."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log", nargs="?", type=Path, help="a workload in SWF, plain or gzip")
    parser.add_argument("--nodes", type=int, default=128)
    parser.add_argument("--load", type=float, action="append", help="repeatable")
    parser.add_argument("--told", type=float, action="append", help="limits: so many times the run time; repeatable")
    parser.add_argument("--jobs", type=int, help="only the first")
    parser.add_argument("--quick", action="store_true", help="a made-up log of 300 jobs")
    given = parser.parse_args()
    if given.log is None:
        work = made(given.nodes, 300 if given.quick else 3_000)
    else:
        with gzip.open(given.log, "rt") if given.log.suffix == ".gz" else given.log.open() as file:
            work = read_swf(file, 1.0, Gather.ONE)
    work = Workload(jobs=tuple(job for job in work.jobs if job.nodes <= given.nodes)[: given.jobs])
    results = []
    for load in given.load or [0.8]:
        for factor in given.told or [1.0]:
            jobs = loaded(told(work, factor), given.nodes, load)
            results.append({"load": load, "limits": factor, **measured(jobs, given.nodes)})
    met = all(r["coord"]["wait_mean_s"] <= WORST * max(r["easy"]["wait_mean_s"], 1.0) for r in results)
    name = given.log.name if given.log is not None else "made up"
    report = {
        "bench": "schedules",
        "n": {"jobs": len(work.jobs), "nodes": given.nodes, "log": name},
        "figures": results,
        "floors": {"wait_mean_to_easy_at_most": WORST},
    }
    print(json.dumps(report, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
