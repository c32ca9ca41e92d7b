"""The Standard Workload Format (Chapin et al. 1999; version 2.2): 18 numbers a line, `;` a remark, -1 for unknown.

What is taken of a line, and what is made of what is not known, is in docs/explanation/placement.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.simulator.history.workload import AT_MAX_MS, RUN_MAX_MS, Job, Workload, may_grow

FIELDS = 18
SUBMIT, RUN, PROCS_USED, PROCS_ASKED, TIME_ASKED, MEMORY_ASKED, STATUS, USER, GROUP = 1, 3, 4, 7, 8, 9, 10, 11, 12
PARTS = frozenset({2, 3, 4})
"""Status of a line that tells of a part of a job whose whole has a line of its own."""
KB = 1_000


class Gather(StrEnum):
    """Whose a job is."""

    USER = "user"
    GROUP = "group"
    ONE = "one"
    """Everything is one tenant's: nothing is shared out, what is left is the order of the queue."""


def read_swf(lines: Iterable[str], cpus_a_node: float, gather: Gather) -> Workload:
    """The jobs of a log that ran, by the time of their submission. CoordError(BAD_IMPORT) names a line that is none.

    A job of P processors takes ceil(P / `cpus_a_node`) nodes.
    """
    jobs: list[Job] = []
    left_out: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition(";")[0].strip()
        if not text:
            continue
        found = _job(_numbers(number, text), cpus_a_node, gather)
        if isinstance(found, str):
            left_out[found] = left_out.get(found, 0) + 1
        else:
            may_grow(jobs)
            jobs.append(found)
    jobs.sort(key=lambda job: job.at_ms)
    return Workload(jobs=tuple(jobs), left_out=left_out)


def _numbers(number: int, text: str) -> list[float]:
    hint = f"a line of a workload is {FIELDS} numbers, see docs/explanation/placement.md"
    parts = text.split()
    if len(parts) != FIELDS:
        raise CoordError(Code.BAD_IMPORT, f"line {number} of the workload has {len(parts)} fields", hint)
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise CoordError(Code.BAD_IMPORT, f"line {number} of the workload: {error}", hint) from None
    if not all(map(math.isfinite, numbers)):
        raise CoordError(Code.BAD_IMPORT, f"line {number} of the workload has a number that is none", hint)
    return numbers


def _job(line: list[float], cpus_a_node: float, gather: Gather) -> Job | str:
    """The job, or why it is left out."""
    procs = int(line[PROCS_ASKED] if line[PROCS_ASKED] > 0 else line[PROCS_USED])
    if int(line[STATUS]) in PARTS:
        return "parts of jobs whose whole has a line of its own"
    if line[SUBMIT] < 0:
        return "no time of submission"
    if line[SUBMIT] * 1_000 > AT_MAX_MS:
        return "submitted after more than a hundred years"
    if line[RUN] <= 0:
        return "never ran, or for an unknown time"
    if line[RUN] * 1_000 > RUN_MAX_MS:
        return "ran for more than ten years"
    if procs <= 0:
        return "no number of processors"
    each = max(1, min(procs, int(cpus_a_node)))
    run_ms = round(line[RUN] * 1_000)
    asked_ms = max(run_ms, round(min(line[TIME_ASKED] * 1_000, RUN_MAX_MS))) if line[TIME_ASKED] > 0 else None
    memory = round(line[MEMORY_ASKED] * KB * each) if line[MEMORY_ASKED] > 0 else 0
    return Job(
        at_ms=round(line[SUBMIT] * 1_000),
        run_ms=run_ms,
        ask=Ask(cpus=each * UNIT, memory=memory),
        nodes=-(-procs // each),
        tenant=_tenant(line, gather),
        limit_ms=asked_ms,
        told_ms=asked_ms,
    )


def _tenant(line: list[float], gather: Gather) -> TenantName:
    match gather:
        case Gather.USER:
            return TenantName(f"user-{int(line[USER])}" if line[USER] >= 0 else "user-unknown")
        case Gather.GROUP:
            return TenantName(f"group-{int(line[GROUP])}" if line[GROUP] >= 0 else "group-unknown")
        case Gather.ONE:
            return TenantName("default")
