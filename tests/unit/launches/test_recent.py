"""The lines around one line of a log that is not kept as a whole."""

from __future__ import annotations

import pytest

from coordinator.launches.recent import AFTER, BEFORE, KEPT_BYTES, Recent

LINES = [b"line %d\n" % number for number in range(20)]


def offset_of(number: int) -> int:
    return sum(map(len, LINES[:number]))


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("number", [0, 2, 10, 18, 19])
def test_the_lines_around_one(number: int, size: int) -> None:
    """However the log came in pieces; at its ends there are fewer."""
    recent, whole = Recent(), b"".join(LINES)
    for at in range(0, len(whole), size):
        recent.add(whole[at : at + size])
    shown = [line.decode().rstrip() for line in LINES[max(0, number - BEFORE) : number + AFTER + 1]]
    assert recent.around(offset_of(number)) == shown


def test_what_is_not_kept_is_not_shown() -> None:
    """A log that goes on costs no more memory; its first lines are gone, its last are where they were."""
    recent = Recent()
    for _ in range(40):
        recent.add(b"x" * (KEPT_BYTES // 8 - 1) + b"\n")
    recent.add(b"the last\n")
    assert recent.around(0) == []
    assert recent.around(40 * (KEPT_BYTES // 8))[-1] == "the last"
    assert recent.around(10**12) == []
