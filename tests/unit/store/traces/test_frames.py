"""A table comes back from bytes as it was; whatever is damaged is noticed before it is believed."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from store.traces.frames import BLOCK_ROWS, BadFrame, Frame, Read, encode, frames


def reading(data: bytes) -> Read:
    return lambda at, size: data[at : at + size]


def a_frame(rows: int = 3, note: int = 7) -> bytes:
    columns = {"start": np.arange(rows, dtype=np.int64), "span": np.arange(rows, dtype=np.uint64) + (1 << 63)}
    strings = {"names": ["", "töne", "a\nb"]}
    blobs = {"details": [b"x" * (i % 5) for i in range(rows)]}
    return b"".join(encode(rows, columns, strings, blobs, {"n": note}))


@pytest.mark.parametrize("rows", [0, 1, 3, BLOCK_ROWS, 2 * BLOCK_ROWS + 1])
def test_everything_comes_back(rows: int) -> None:
    """Columns, strings, blobs and the note, however many rows."""
    frame = Frame(reading(a_frame(rows)), 0)
    frame.check()
    assert (rows, {"n": 7}) == (frame.rows, dict(frame.note))
    assert list(range(rows)) == frame.column("start", np.int64).tolist()
    assert [(1 << 63) + i for i in range(rows)] == frame.column("span", np.uint64).tolist()
    assert ["", "töne", "a\nb"] == frame.strings("names")
    assert [b"x" * (i % 5) for i in range(rows)] == [one for block in frame.blobs("details") for one in block]


def test_frames_lie_one_behind_the_other() -> None:
    """As many as were appended, each at a multiple of eight bytes."""
    data = a_frame(1, 1) + a_frame(2, 2) + a_frame(0, 3)
    found = [one for one in frames(reading(data), len(data)) if isinstance(one, Frame)]
    assert [1, 2, 3] == [frame.note["n"] for frame in found]
    assert [0] == list({frame.end % 8 for frame in found})


def test_any_flipped_byte_is_noticed() -> None:
    """Not one byte of head or parts can change unseen; those between parts mean nothing."""
    whole = a_frame(5)
    dice = Random(1)
    noticed = 0
    for at in [*range(200), *(dice.randrange(200, len(whole)) for _ in range(300))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << dice.randrange(8)
        try:
            frame = Frame(reading(bytes(damaged)), 0)
            frame.check()
        except BadFrame:
            noticed += 1
        else:
            assert 0 == whole[at], f"byte {at} changed unseen"
    assert noticed > 400


def test_a_torn_end_is_no_frame_and_hides_none() -> None:
    """A write that a crash cut anywhere leaves the frames before it readable."""
    first, second = a_frame(4, 1), a_frame(4, 2)
    for cut in range(1, len(second), 7):
        data = first + second[:cut]
        found = list(frames(reading(data), len(data)))
        assert 1 == sum(isinstance(one, Frame) for one in found)
        assert isinstance(found[-1], BadFrame)


def test_damage_in_the_middle_hides_only_itself() -> None:
    """The frame behind one whose head is damaged is found by its beginning."""
    first, second, third = a_frame(4, 1), bytearray(a_frame(4, 2)), a_frame(4, 3)
    second[20] ^= 255
    data = first + bytes(second) + third
    found = list(frames(reading(data), len(data)))
    assert [1, None, 3] == [one.note["n"] if isinstance(one, Frame) else None for one in found]


def test_a_column_is_only_what_it_was_written_as() -> None:
    """Another type or another name is refused, not cast."""
    frame = Frame(reading(a_frame()), 0)
    with pytest.raises(BadFrame):
        frame.column("start", np.int32)
    with pytest.raises(BadFrame):
        frame.column("names", np.int64)
    with pytest.raises(BadFrame):
        frame.strings("nothing")
