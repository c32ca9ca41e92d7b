"""Two references for equal nodes: plain first come first served, and EASY backfill (Lifka 1995; Mu'alem and Feitelson
2001). Small and without a scheduler of ours: who starts when, by the jobs' own time limits."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple


class Asked(NamedTuple):
    """One job: times in ms, `nodes` whole ones."""

    at_ms: int
    run_ms: int
    limit_ms: int
    nodes: int


def starts(jobs: Sequence[Asked], nodes: int, *, backfill: bool) -> list[int]:
    """When each job starts. `jobs` by the time of their submission; none is wider than `nodes`.

    Without `backfill` nobody passes the head of the queue. With it, whoever stands behind may start now if it delays
    the head's reservation by no time limit: it ends before, or it takes nodes that the head leaves over.
    """
    found = [0] * len(jobs)
    free, next_job = nodes, 0
    queue: list[int] = []
    ends: list[tuple[int, int]] = []
    """(real end, job) of those that run."""
    running: dict[int, int] = {}
    """Job: the end by its time limit."""
    while next_job < len(jobs) or queue:
        arrival = [jobs[next_job].at_ms] if next_job < len(jobs) else []
        now = min([*arrival, *(end for end, _ in ends[:1])])
        while ends and ends[0][0] <= now:
            _, done = heappop(ends)
            free += jobs[done].nodes
            del running[done]
        while next_job < len(jobs) and jobs[next_job].at_ms <= now:
            queue.append(next_job)
            next_job += 1
        begun = []
        while queue and jobs[queue[0]].nodes <= free:
            begun.append(queue.pop(0))
            free -= jobs[begun[-1]].nodes
            running[begun[-1]] = now + jobs[begun[-1]].limit_ms
        if backfill and queue:
            begun += _behind(jobs, queue, running, free, now)
            free = nodes - sum(jobs[number].nodes for number in running)
        for number in begun:
            found[number] = now
            heappush(ends, (now + jobs[number].run_ms, number))
    return found


def _behind(jobs: Sequence[Asked], queue: list[int], running: dict[int, int], free: int, now: int) -> list[int]:
    """Those that start now behind the head, which has its reservation: when, and what it leaves over then."""
    begun: list[int] = []
    room = free
    for end in sorted(running, key=running.__getitem__):
        room += jobs[end].nodes
        if room >= jobs[queue[0]].nodes:
            reserved_ms = running[end]
            break
    over = room - jobs[queue[0]].nodes
    for number in list(queue[1:]):
        job = jobs[number]
        if job.nodes > free:
            continue
        before = now + job.limit_ms <= reserved_ms
        if not before and job.nodes > over:
            continue
        if not before:
            over -= job.nodes
        free -= job.nodes
        queue.remove(number)
        running[number] = now + job.limit_ms
        begun.append(number)
        if not free:
            break
    return begun
