"""What an agent is told to run: one rank of one attempt, with nothing left to decide.

Made by `coordinator.runtimes` from a step and a placement; agents carry it out without knowing the runtime.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.ids import Ms
from coordinator.core.work.jobspec import Isolation, LogFull


class Limits(Struct, frozen=True, gc=False, kw_only=True):
    """What the rank may use. 0: no bound."""

    cpus: int = 0
    """Millionths of a CPU."""
    memory: int = 0
    """Bytes."""
    log_bytes: int = 0
    """Of each stream."""


class CheckpointPlan(Struct, frozen=True, gc=False, kw_only=True):
    """What is saved of the rank, and how often."""

    path: str = ""
    """Relative to the working directory; empty: COORD_CHECKPOINT_DIR."""
    every_ms: Ms | None = None
    """None: when the program takes one."""
    signal: str = ""
    grace_ms: Ms = 60_000
    restore: bool = False
    """There is one to resume from: it is asked for, with the inputs."""


class LaunchPlan(Struct, frozen=True, gc=False, kw_only=True):
    """One rank, ready to be started. The agent adds its own endpoint, directories and the attempt's token to `env`."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    directory: str = ""
    """Empty: the attempt's own directory."""
    stdin: str = ""
    """What it reads there, as text; empty: nothing."""
    gpus: tuple[int, ...] = ()
    """Indexes on the provider, for CUDA_VISIBLE_DEVICES."""
    limits: Limits = Limits()
    time_limit_ms: Ms | None = None
    grace_ms: Ms = 10_000
    isolation: Isolation = Isolation.NONE
    """At least so much; the agent gives what it announced."""
    tenant: str = ""
    """Whose it is: attempts of one tenant may share a user id."""
    log_full: LogFull = LogFull.TRUNCATE
    inputs: bool = False
    """There are some: the agent asks for their list, and has them in place before it starts the program."""
    outputs: tuple[str, ...] = ()
    """Globs. The rank's end is reported together with them."""
    passed_on: tuple[str, ...] = ()
    """Globs of those of them that later steps take: copies are kept in the agent's cache, if there is room."""
    checkpoint: CheckpointPlan | None = None
    stall_ms: Ms | None = None
