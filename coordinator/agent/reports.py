"""What the coordinator hears of an attempt, within the bounds of the wire, whatever the keeper measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import msgspec

from coordinator import wire
from coordinator.agent.held import Held
from coordinator.core.rows import EndCause, ExitInfo

TEXT_MAX = 1_000
HeldPhase = Literal["leased", "staging", "running", "frozen", "uploading", "exited"]
_UNRECORDED = ExitInfo(cause=EndCause.AGENT, text="its end was not recorded")
_ENCODER = msgspec.json.Encoder()


def exit_of(end: ExitInfo | None) -> wire.Exit:
    """How it ended."""
    info = end or _UNRECORDED
    return wire.Exit(
        cause=info.cause,
        code=info.code if info.code is not None and 0 <= info.code <= 255 else None,
        signal=info.signal if info.signal is not None and 1 <= info.signal <= 128 else None,
        text=info.text[:TEXT_MAX],
        ran_ms=max(0, info.ran_ms),
        lived_ms=max(0, info.lived_ms),
        out_bytes=max(0, info.out_bytes),
        err_bytes=max(0, info.err_bytes),
        dropped_bytes=max(0, info.dropped_bytes),
        memory_max=max(0, info.memory_max),
        cpu_ms=max(0, info.cpu_ms),
    )


def _without_words(end: ExitInfo | None) -> wire.Exit:
    return msgspec.structs.replace(exit_of(end), text="")


def _without_figures(end: ExitInfo | None) -> wire.Exit:
    told = exit_of(end)
    return wire.Exit(
        cause=told.cause, code=told.code, signal=told.signal, out_bytes=told.out_bytes, err_bytes=told.err_bytes
    )


def held_attempts(book: Sequence[Held], room: int) -> tuple[wire.HeldAttempt, ...]:
    """The attempts of a hello, in `room` bytes of JSON: where ends in full do not fit, without their words, and then
    without what only people want to know."""
    for end_of in (exit_of, _without_words, _without_figures):
        said = tuple(_held(held, end_of) for held in book[: wire.ATTEMPTS_MAX])
        if len(_ENCODER.encode(said)) <= room:
            break
    return said


def _held(held: Held, end_of: Callable[[ExitInfo | None], wire.Exit]) -> wire.HeldAttempt:
    now = held.now
    end = end_of(held.exit) if held.phase == "exited" else None
    phase = cast("HeldPhase", held.phase)
    return wire.HeldAttempt(attempt=now.attempt, rank=now.rank, token=now.token, phase=phase, exit=end)
