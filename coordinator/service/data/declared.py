"""Whether a result is what its step declared: each path is meant by one of its patterns, and each pattern means one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coordinator.core.data.events import Claim
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import dotted
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import task_values
from coordinator.globs import matches
from coordinator.runtimes.placeholders import fill

MATCHED_AT_ONCE = 16
"""Paths that are held against the patterns before the loop has its turn: both are a tenant's, and at the worst one
takes a millisecond or two."""


def patterns_of(state: ClusterState, claim: Claim) -> tuple[str, ...]:
    """What the step of this attempt declared, for its task. None of whoever does not hold the current token: that one
    the core refuses, and is told nothing of the job before."""
    attempt, job = state.work.attempts.get(claim.attempt_id), state.work.jobs.get(claim.attempt_id[0])
    if attempt is None or job is None or claim.token != attempt.row.token:
        return ()
    spec = job.steps[attempt.row.step].spec
    values = {**task_values(spec, attempt.row.task), "rank": "0", "nodes": str(len(attempt.row.ranks))}
    return tuple(fill(pattern, values) for pattern in spec.outputs)


async def check_declared(state: ClusterState, claim: Claim, paths: Sequence[str]) -> None:
    """CoordError(BAD_REQUEST) for a path that was not declared, and for a declaration without a file."""
    patterns = patterns_of(state, claim)
    if not patterns:
        return
    lacking = dict.fromkeys(patterns)
    for number, path in enumerate(paths):
        if number % MATCHED_AT_ONCE == 0:
            await asyncio.sleep(0)
        meant = [pattern for pattern in patterns if matches(pattern, path)]
        if not meant:
            raise CoordError(
                Code.BAD_REQUEST,
                f"{path[:200]!a} is no output that the step of {dotted(claim.attempt_id)} declares",
                "publish what the launch plan's outputs mean, and nothing else",
            )
        for pattern in meant:
            lacking.pop(pattern, None)
    if lacking:
        raise CoordError(
            Code.BAD_REQUEST,
            f"no file is what output {next(iter(lacking))[:200]!a} means",
            "publish every declared output, or end with cause output",
        )
