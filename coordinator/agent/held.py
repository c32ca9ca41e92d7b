"""One attempt in the daemon's book, and how people are shown it."""

from __future__ import annotations

from msgspec import Struct

from coordinator.agent import channel
from coordinator.agent.clock import boot_s
from coordinator.agent.logship import Key
from coordinator.core.rows import ExitInfo

LIVE = ("leased", "staging", "running", "frozen", "uploading")
"""Phases of a lease that is to be renewed."""
AT_WORK = ("staging", "running", "frozen", "uploading")
RUNNING = ("running", "frozen")
"""Phases with processes."""


class AttemptStatus(Struct, frozen=True, kw_only=True):
    """One attempt in the answer of `coord agent status`."""

    attempt: str
    rank: int
    phase: str
    freeze_in_s: float | None
    """Until it is frozen unless its lease is renewed."""
    log_bytes: int
    log_stored: int
    exit: str = ""
    problem: str = ""
    """What is wrong with its checkpoints."""


class Held(Struct, kw_only=True):
    """One attempt, as the keeper said last, and how far the coordinator knows it."""

    now: channel.Now
    said: str = ""
    """The phase that was said last on this connection."""
    again_s: float = 0.0
    """When it is said again."""
    answered: bool = False
    """Of a lease: launch or stop came."""
    launching: bool = False
    """It was ordered to run; to the keeper that is said once."""
    staging: bool = False
    """It was ordered to run, and what it needs is being brought; to the keeper it is leased."""
    uploading: bool = False
    """Its program has ended, and its outputs are being sent; to the keeper it has exited."""
    verdict: ExitInfo | None = None
    """How it ended, if that is not what the keeper says: its program succeeded, its outputs did not."""
    settled: bool = False
    freeze_at_s: float = 0.0
    """As it was renewed last, whether the keeper has heard of it or not."""

    @property
    def phase(self) -> str:
        """How it stands for the coordinator and for people."""
        if self.staging and self.now.phase == "leased":
            return "staging"
        if self.uploading and self.now.phase == "exited":
            return "uploading"
        return self.now.phase

    @property
    def exit(self) -> ExitInfo | None:
        """How it ended."""
        return self.verdict or self.now.exit

    @property
    def key(self) -> Key:
        return self.now.attempt, self.now.rank


def status_of(held: Held, log_stored: int, problem: str) -> AttemptStatus:
    """How it stands now."""
    now = held.now
    return AttemptStatus(
        attempt=now.attempt,
        rank=now.rank,
        phase=held.phase,
        freeze_in_s=held.freeze_at_s - boot_s() if now.phase in ("leased", "running") else None,
        log_bytes=now.out_bytes + now.err_bytes,
        log_stored=log_stored,
        exit=str(held.exit.cause) if held.exit is not None else "",
        problem=problem,
    )
