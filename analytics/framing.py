"""What parent and worker say to each other over pipes: length-prefixed MessagePack, one struct a frame."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from coordinator.core.commands import VerdictWanted
from coordinator.core.events import Curve, ProviderFigures
from coordinator.core.ids import Ms
from coordinator.ports.analytics import (
    AskAvailability,
    AskBacktest,
    AskFeatures,
    AskForecast,
    AskNetwork,
    AskReliability,
)
from coordinator.ports.attribution import Followable, FollowerFigures, Judged, LauncherAnswer, LauncherCall

HEADER_BYTES = 4
FRAME_BYTES_MAX = 128 * 1024 * 1024
"""Of an answer: a listing of 100,000 providers is about 90 MB."""
CHUNK_PROVIDERS = 2_000
"""Of published figures in one frame: decoding it holds the parent's loop for a few milliseconds."""

WorkerQuestion = AskReliability | AskFeatures | AskForecast | AskNetwork | AskAvailability | AskBacktest


# ---- to the worker


class Ask(Struct, frozen=True, tag="ask"):
    """Answer this. Answers may come in another order."""

    n: int
    question: WorkerQuestion


class Refresh(Struct, frozen=True, tag="refresh"):
    """Read what is new, compute and publish now; answered by Done when that is through."""

    n: int


class Ping(Struct, frozen=True, tag="ping"):
    """Say at once that you are there, whatever you are doing; answered by Pong."""


class Follow(Struct, frozen=True, tag="follow"):
    """These attempts run; it replaces what was said before."""

    running: tuple[Followable, ...]


class Judge(Struct, frozen=True, tag="judge"):
    """An attempt has ended; answered by a Verdicts, at times by a second one that corrects it."""

    wanted: VerdictWanted


class AskDesk(Struct, frozen=True, tag="ask_desk"):
    """A launcher's request; answered by Desked."""

    n: int
    call: LauncherCall


ToWorker = Ask | Refresh | Ping | Follow | Judge | AskDesk


# ---- to the parent


class Answered(Struct, frozen=True, tag="answered"):
    """The answer's JSON follows in a frame of its own, as it is."""

    n: int
    computed_at_ms: Ms


class Refused(Struct, frozen=True, tag="refused"):
    """A CoordError. `code` is a core.errors.Code."""

    n: int
    code: str
    message: str
    hint: str


class Done(Struct, frozen=True, tag="done"):
    """A refresh is through."""

    n: int


class Pong(Struct, frozen=True, tag="pong"):
    """The process is there. Each number changes with each piece of work; 0 while the thread waits for some."""

    reading: int
    slow: int
    following: int
    cpu_s: float
    """What the process has used since it began, all threads."""


class FiguresHead(Struct, frozen=True, tag="figures_head"):
    """Figures begin; FiguresPart frames follow, the last one says so."""

    at_ms: Ms
    computed_at_ms: Ms
    horizons_ms: tuple[Ms, ...]
    delays_ms: tuple[Ms, ...]
    fleet_stays: Curve
    fleet_returns: Curve


class FiguresPart(Struct, frozen=True, tag="figures_part"):
    """Some providers' figures."""

    providers: tuple[ProviderFigures, ...]
    last: bool


class Verdicts(Struct, frozen=True, tag="verdicts"):
    """What attempts died of."""

    judged: tuple[Judged, ...]


class Following(Struct, frozen=True, tag="following"):
    """How following logs goes."""

    figures: FollowerFigures


class Desked(Struct, frozen=True, tag="desked"):
    """What a launcher is told."""

    n: int
    answer: LauncherAnswer


ToParent = Answered | Refused | Done | Pong | FiguresHead | FiguresPart | Verdicts | Following | Desked

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_parent: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)


def frame(body: bytes) -> bytes:
    """The body behind its length."""
    return len(body).to_bytes(HEADER_BYTES, "little") + body


def encode(message: ToWorker | ToParent) -> bytes:
    """A whole frame."""
    return frame(_encoder.encode(message))


def for_worker(body: bytes) -> ToWorker:
    """What the parent said. Raises msgspec.DecodeError."""
    return _to_worker.decode(body)


def for_parent(body: bytes) -> ToParent:
    """What the worker said. Raises msgspec.DecodeError."""
    return _to_parent.decode(body)
