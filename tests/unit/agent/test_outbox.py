"""What goes into frames, and that none is larger than the coordinator takes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from coordinator import wire
from coordinator.agent.connection import HELLO_SPARE_BYTES
from coordinator.agent.held import Held
from coordinator.agent.outbox import PENDING_MAX, Outbox, Overfull
from coordinator.agent.reports import exit_of, held_attempts
from coordinator.core.rows import EndCause, ExitInfo
from tests.unit.agent.keeper_side import TOKEN, a_now

WORDY = ExitInfo(cause=EndCause.START, text="\x00" * 5_000, code=700, signal=0, ran_ms=-5, out_bytes=2**40)
"""An end that the wire has no room for: too long, out of range, and six bytes a character as JSON."""


def test_messages_share_frames_within_both_bounds(tmp_path: Path) -> None:
    """64 messages at most, 288 kB at most, in their order; one alone is no array."""

    async def go() -> None:
        box, frames = Outbox(), list[str]()
        done = asyncio.Event()

        async def send(frame: str) -> None:
            frames.append(frame)
            done.set()

        small = [wire.Granted(attempt=f"1.0.{n}.1", token=TOKEN) for n in range(130)]
        for message in small:
            box.put(message)
        now = a_now(tmp_path, "exited", exit=WORDY)
        large = [wire.Exited(attempt=f"2.0.{n}.1", token=TOKEN, exit=exit_of(now.exit)) for n in range(100)]
        for end in large:
            box.put(end)
        task = asyncio.ensure_future(box.run(send))
        async with asyncio.timeout(60):
            await done.wait()
        box.put(wire.Pong())
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        assert max(len(frame) for frame in frames) <= wire.FRAME_BYTES_MAX
        assert msgspec.json.decode(frames[-1], type=wire.FromAgent) == wire.Pong()
        many = [msgspec.json.decode(frame, type=list[wire.FromAgent]) for frame in frames[:-1]]
        assert max(map(len, many)) == wire.FRAME_MESSAGES_MAX
        assert [message for part in many for message in part] == [*small, *large]

    asyncio.run(go())


def test_a_peer_that_reads_nothing_is_given_up() -> None:
    """What waits for it is bounded: the next connection's hello says it all again."""

    async def go() -> None:
        box = Outbox()
        for n in range(PENDING_MAX + 1):
            box.put(wire.Granted(attempt=f"1.0.{n}.1", token=TOKEN))

        async def send(frame: str) -> None:
            raise AssertionError("nothing is sent")

        with pytest.raises(Overfull):
            await box.run(send)

    asyncio.run(go())


def test_a_hello_of_everything_that_may_be_held_fits_into_a_frame(tmp_path: Path) -> None:
    """1,024 attempts with the longest names and the wordiest ends: words are left away, attempts never."""
    names = [f"{10**14 + n}.{10**8}.{10**8}.{10**8}" for n in range(wire.ATTEMPTS_MAX)]
    now = a_now(tmp_path, "exited", exit=WORDY)
    book = [Held(now=msgspec.structs.replace(now, attempt=name, rank=65_535)) for name in names]
    bare = wire.Hello(versions=(1, 2), provider_id="p" * 128, machine_id="m" * 128, labels={"l" * 128: "v" * 128})
    room = wire.FRAME_BYTES_MAX - len(msgspec.json.encode(bare)) - HELLO_SPARE_BYTES
    hello = msgspec.structs.replace(bare, attempts=held_attempts(book, room))
    encoded = msgspec.json.encode(hello)
    assert len(encoded) <= wire.FRAME_BYTES_MAX
    decoded = msgspec.json.decode(encoded, type=wire.Hello)
    assert [one.attempt for one in decoded.attempts] == names
    last = decoded.attempts[-1].exit
    assert last is not None
    (few,) = held_attempts(book[:1], room)
    first = few.exit
    assert first is not None
    assert (first.cause, first.code, first.signal, first.ran_ms) == (EndCause.START, None, None, 0)
    assert len(first.text) == 1_000
    assert (last.out_bytes, last.text) == (2**40, "")
