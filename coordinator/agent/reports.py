"""What the coordinator hears of an attempt, within the bounds of the wire, whatever the keeper measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from coordinator import wire
from coordinator.agent import channel
from coordinator.core.rows import EndCause, ExitInfo

TEXT_MAX = 1_000
HELLO_TEXTS_MAX = 32 * 1024
"""Of all ends in a hello together, in characters; beyond it an end is said without its words. A frame holds 1,024
attempts then, also if every character of these takes six bytes."""
HeldPhase = Literal["leased", "staging", "running", "frozen", "exited"]
_UNRECORDED = ExitInfo(cause=EndCause.AGENT, text="its end was not recorded")


def exit_of(now: channel.Now, text_max: int = TEXT_MAX) -> wire.Exit:
    """How it ended."""
    info = now.exit or _UNRECORDED
    return wire.Exit(
        cause=info.cause,
        code=info.code if info.code is not None and 0 <= info.code <= 255 else None,
        signal=info.signal if info.signal is not None and 1 <= info.signal <= 128 else None,
        text=info.text[: min(text_max, TEXT_MAX)],
        ran_ms=max(0, info.ran_ms),
        out_bytes=max(0, info.out_bytes),
        err_bytes=max(0, info.err_bytes),
        dropped_bytes=max(0, info.dropped_bytes),
        memory_max=max(0, info.memory_max),
        cpu_ms=max(0, info.cpu_ms),
    )


def held_attempts(nows: Sequence[channel.Now]) -> tuple[wire.HeldAttempt, ...]:
    """The attempts of a hello."""
    said = []
    room = HELLO_TEXTS_MAX
    for now in nows[: wire.ATTEMPTS_MAX]:
        end = exit_of(now, room) if now.phase == "exited" else None
        room -= len(end.text) if end is not None else 0
        phase = cast("HeldPhase", now.phase)
        said.append(wire.HeldAttempt(attempt=now.attempt, rank=now.rank, token=now.token, phase=phase, exit=end))
    return tuple(said)
