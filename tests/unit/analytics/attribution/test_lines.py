"""Bytes into lines: LF alone ends one, long ones are looked at in part, and pieces make no difference."""

from __future__ import annotations

import random

import pytest

from analytics.attribution.lines import BLOCK_BYTES, HALF_BYTES, LINE_BYTES, Partial


def lines_of(data: bytes, sizes: list[int] | None = None) -> list[tuple[bytes, int]]:
    """Every line with where it begins; the last one without its LF, if it has none."""
    partial = Partial()
    found = []
    pieces = [data]
    if sizes is not None:
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        pieces = [data[end - size : end] for end, size in zip(ends, sizes, strict=True)] + [data[ends[-1] :]]
    for piece in pieces:
        for block, begin in partial.blocks(piece):
            for line in block.split(b"\n")[:-1]:
                found.append((line, begin))
                begin += len(line) + 1
    if partial.size:
        found.append((partial.text(), partial.begin))
    assert partial.consumed == len(data)
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\nb", [(b"a", 0), (b"b", 2)]),
        (b"\n\n", [(b"", 0), (b"", 1)]),
        (b"a\rb\r\nc\n", [(b"a\rb\r", 0), (b"c", 5)]),
        (b"\x00\x85\x0b\x1c\xe2\x80\xa8\n", [(b"\x00\x85\x0b\x1c\xe2\x80\xa8", 0)]),
    ],
)
def test_line_feeds_alone_end_lines(data: bytes, expected: list[tuple[bytes, int]]) -> None:
    """CR, NUL and the line ends of other alphabets are content."""
    assert expected == lines_of(data)
    assert expected == lines_of(data, [1] * len(data) if data else None)


def test_of_a_long_line_its_two_ends_are_looked_at() -> None:
    """Exactly as long as allowed: all of it; one byte more: its beginning and its end, parted by a CR."""
    whole = bytes(random.Random(1).choices(range(32, 127), k=LINE_BYTES))
    assert [(whole, 0), (b"next", LINE_BYTES + 1)] == lines_of(whole + b"\nnext")
    longer = whole + b"!"
    looked_at = longer[:HALF_BYTES] + b"\r" + longer[-HALF_BYTES:]
    assert [(looked_at, 0), (b"next", LINE_BYTES + 2)] == lines_of(longer + b"\nnext")
    assert [(looked_at, 0)] == lines_of(longer)


@pytest.mark.parametrize("seed", range(20))
def test_pieces_make_no_difference(seed: int) -> None:
    """Lines of 0 to 40,000 bytes, in pieces from 1 byte to more than a block."""
    chance = random.Random(seed)
    data = b""
    for _ in range(chance.randint(1, 40)):
        size = chance.choice((0, 3, 80, LINE_BYTES - 1, LINE_BYTES, LINE_BYTES + 1, 40_000))
        data += bytes(chance.choices(b"ab\r\x00\xff", k=size)) + chance.choice((b"\n", b"\r\n", b""))
    sizes = [chance.choice((1, 7, 5_000, 16_384, 70_000)) for _ in range(60)]
    assert lines_of(data) == lines_of(data, sizes)


def test_a_line_without_end_takes_no_memory() -> None:
    """64 MB of one line in pieces: twice what is looked at is kept at most."""
    partial = Partial()
    piece = b"x" * (1 << 20)
    for _ in range(64):
        assert [] == list(partial.blocks(piece))
    assert len(partial.kept) <= LINE_BYTES
    assert 64 << 20 == partial.consumed
    ((block, begin),) = partial.blocks(b"end\n")
    assert begin == 0
    assert block == b"x" * HALF_BYTES + b"\r" + b"x" * (HALF_BYTES - 3) + b"end\n"


def test_blocks_are_bounded() -> None:
    """However much comes at once."""
    sizes = [len(block) for block, _ in Partial().blocks(b"line\n" * 1_000_000)]
    assert 5_000_000 == sum(sizes)
    assert max(sizes) <= BLOCK_BYTES + LINE_BYTES + 1
