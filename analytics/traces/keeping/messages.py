"""What the coordinator and the process that keeps traces say to each other: length-prefixed MessagePack over pipes."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from analytics.framing import frame
from coordinator.core.ids import JobId
from coordinator.ports.traces import AskTrace, Taken, TraceBody, TraceKind

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""Of one answer, and so of one frame."""


class TakeIn(Struct, frozen=True, tag="take_in"):
    """Answered by TakenIn."""

    n: int
    body: TraceBody


class OpenRows(Struct, frozen=True, tag="open_rows"):
    """Answered by Rows, the first of them."""

    n: int
    job_id: JobId
    kind: TraceKind


class MoreRows(Struct, frozen=True, tag="more_rows"):
    """The next of those that were opened as `rows`; answered by Rows."""

    n: int
    rows: int


class CloseRows(Struct, frozen=True, tag="close_rows"):
    """Nobody reads on. Not answered."""

    rows: int


class Analyze(Struct, frozen=True, tag="analyze"):
    """Answered by Analyzed."""

    n: int
    ask: AskTrace


ToKeeper = TakeIn | OpenRows | MoreRows | CloseRows | Analyze


class Began(Struct, frozen=True, tag="began"):
    """This upload is read, this analysis made, from now on."""

    n: int


class TakenIn(Struct, frozen=True, tag="taken_in"):
    n: int
    parts: tuple[Taken, ...]
    stored_bytes: int
    """Of all jobs together."""


class Rows(Struct, frozen=True, tag="rows"):
    """The lines follow in a frame of their own. `last`: there are no more, and nothing is open any more."""

    n: int
    last: bool


class Analyzed(Struct, frozen=True, tag="analyzed"):
    """The answer follows in a frame of its own."""

    n: int
    cached: bool
    policy: str
    took_s: float


class Refused(Struct, frozen=True, tag="refused"):
    """A CoordError. `code` is a core.errors.Code."""

    n: int
    code: str
    message: str
    hint: str


class Noticed(Struct, frozen=True, tag="noticed"):
    """Something that is kept is damaged, and was left out."""

    problem: str


FromKeeper = Began | TakenIn | Rows | Analyzed | Refused | Noticed

_encoder = msgspec.msgpack.Encoder()
_to_keeper: msgspec.msgpack.Decoder[ToKeeper] = msgspec.msgpack.Decoder(ToKeeper)
_from_keeper: msgspec.msgpack.Decoder[FromKeeper] = msgspec.msgpack.Decoder(FromKeeper)


def encode(message: ToKeeper | FromKeeper) -> bytes:
    """A whole frame."""
    return frame(_encoder.encode(message))


def for_keeper(body: bytes) -> ToKeeper:
    """What the coordinator said. Raises msgspec.DecodeError."""
    return _to_keeper.decode(body)


def from_keeper(body: bytes) -> FromKeeper:
    """What the process said. Raises msgspec.DecodeError."""
    return _from_keeper.decode(body)
