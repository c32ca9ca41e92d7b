"""How the processes of a rank ended, as their agent saw it. `rows` has these too: readers import them from there."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from coordinator.core.ids import Ms


class EndCause(StrEnum):
    """How the processes of a rank came to their end."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    """Its time limit."""
    OOM = "oom"
    """Its memory limit."""
    LOG_FULL = "log_full"
    STALLED = "stalled"
    """It made no progress for longer than it said it might."""
    OUTPUT = "output"
    """It succeeded, and what it declared as an output is not there or cannot be stored."""
    START = "start"
    """It could not be started."""
    STAGE = "stage"
    """What it needs could not be brought to the provider: not the program's failure."""
    STOPPED = "stopped"
    """We told the agent to."""
    EXPIRED = "expired"
    """Its lease was not renewed for so long that its agent gave it up."""
    AGENT = "agent"
    """Its agent or machine died with it."""


class ExitInfo(Struct, frozen=True, gc=False, kw_only=True):
    """The end of one rank, as its agent saw it."""

    cause: EndCause
    code: int | None = None
    """Exit status, where it exited by itself; of `stage` 28 (ENOSPC: no room on the provider), 2 (ENOENT: what it needs
    is not there for anybody), or none."""
    signal: int | None = None
    text: str = ""
    """For people: why it could not be started, who killed it."""
    ran_ms: Ms = 0
    """On the agent's monotonic clock."""
    lived_ms: Ms = 0
    """The same of one that outlived its agent, until the next one killed it: its work was lost later than its agent
    was. Nobody watched it, so it is not charged for this."""
    out_bytes: int = 0
    err_bytes: int = 0
    """Length of the streams as they will be stored, marks of gaps included."""
    dropped_bytes: int = 0
    """Beyond a log's bound."""
    memory_max: int = 0
    """Bytes, where the agent could measure it."""
    cpu_ms: int = 0
