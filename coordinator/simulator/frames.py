"""What goes over a link: the messages that matter to liveness and to work."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.commands import Message
from coordinator.core.events import HeldAttempt
from coordinator.core.ids import AttemptId, Ms
from coordinator.core.rows import ExitInfo, LeaseToken, Promises, Resources


class SaysHello(Struct, frozen=True, kw_only=True):
    process_id: str
    boot_id: str
    machine_id: str
    credential: str
    resume_key: str
    resources: Resources
    promises: Promises
    labels: dict[str, str]
    attempts: tuple[HeldAttempt, ...]


class Beats(Struct, frozen=True):
    seq: int
    attempts: tuple[AttemptId, ...] = ()
    renewed_seq: int = 0


class Pongs(Struct, frozen=True):
    """The answer to a ping."""


class SaysBye(Struct, frozen=True):
    draining: bool
    away_until_ms: Ms | None


class HasGranted(Struct, frozen=True):
    """The lease is stored."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken


class HasRefused(Struct, frozen=True):
    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    why: str


class IsIn(Struct, frozen=True):
    """It runs, or is frozen, or runs again."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    phase: str


class IsSoFar(Struct, frozen=True):
    """Its program says how far it is."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    fraction: float


class HasExited(Struct, frozen=True):
    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    exit: ExitInfo


class Closes(Struct, frozen=True):
    """The socket was closed or reset by the other end."""


class Acks(Struct, frozen=True):
    """Heartbeats up to `seq` were received."""

    seq: int


class Says(Struct, frozen=True):
    """A message of the core; a welcome goes with its fresh resume key."""

    message: Message
    resume_key: str = ""


OfWork = HasGranted | HasRefused | IsIn | IsSoFar | HasExited
Up = SaysHello | Beats | Pongs | SaysBye | OfWork | Closes
Down = Says | Acks | Closes
