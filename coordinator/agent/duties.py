"""What is owed to an attempt beyond running it: its outputs, its checkpoints, the watch for stalls.

Known from the order to launch; kept in the attempt's directory, so that the next daemon goes on with it. Not synced:
without it an end is reported without its outputs, which no coordinator takes for a success.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from coordinator import wire
from coordinator.core.rows import LeaseToken
from coordinator.core.work.launch_plan import CheckpointPlan, LaunchPlan

NAME = "duties.json"
BYTES_MAX = 1 << 20


class Duties(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one rank, under one token. An attempt that nothing is owed to has none."""

    attempt: str
    rank: int
    token: LeaseToken
    directory: str = ""
    """As the plan names it."""
    outputs: tuple[str, ...] = ()
    passed_on: tuple[str, ...] = ()
    """Globs of those that later steps take."""
    tenant: str = ""
    checkpoint: CheckpointPlan | None = None
    stall_ms: int | None = None
    grace_ms: int = 10_000
    explicit: bool = False
    """The program has said itself when its state is whole: nobody guesses any more."""


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Duties)


def duties_of(launch: wire.Launch) -> Duties | None:
    """What this order asks for. Outputs and checkpoints are those of rank 0."""
    plan: LaunchPlan = launch.plan
    first = launch.rank == 0
    outputs, checkpoint = (plan.outputs, plan.checkpoint) if first else ((), None)
    if not outputs and checkpoint is None and plan.stall_ms is None:
        return None
    return Duties(
        attempt=launch.attempt,
        rank=launch.rank,
        token=launch.token,
        directory=plan.directory,
        outputs=outputs,
        passed_on=plan.passed_on if outputs else (),
        tenant=plan.tenant,
        checkpoint=checkpoint,
        stall_ms=plan.stall_ms,
        grace_ms=plan.grace_ms,
    )


def write(directory: str, duties: Duties) -> None:
    """Keep it. Appears whole. OSError when there is no room."""
    path = Path(directory, NAME)
    part = path.with_suffix(".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(_ENCODER.encode(duties))
    part.rename(path)


def read(directory: str, attempt: str, rank: int, token: LeaseToken) -> Duties | None:
    """What was kept for this attempt; directories are used again, so another's may lie there."""
    try:
        with Path(directory, NAME).open("rb") as file:
            found = _DECODER.decode(file.read(BYTES_MAX))
    except (OSError, msgspec.DecodeError):
        return None
    return found if (found.attempt, found.rank, found.token) == (attempt, rank, token) else None
