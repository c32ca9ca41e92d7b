"""What goes over a link: the few messages that matter to liveness."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.commands import Message
from coordinator.core.ids import Ms


class SaysHello(Struct, frozen=True):
    process_id: str
    boot_id: str
    machine_id: str
    credential: str
    resume_key: str


class Beats(Struct, frozen=True):
    seq: int


class Pongs(Struct, frozen=True):
    """The answer to a ping."""


class SaysBye(Struct, frozen=True):
    draining: bool
    away_until_ms: Ms | None


class Closes(Struct, frozen=True):
    """The socket was closed or reset by the other end."""


class Acks(Struct, frozen=True):
    """Heartbeats were received."""


class Says(Struct, frozen=True):
    """A message of the core; a welcome goes with its fresh resume key."""

    message: Message
    resume_key: str = ""


Up = SaysHello | Beats | Pongs | SaysBye | Closes
Down = Says | Acks | Closes
