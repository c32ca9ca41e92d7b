"""Bodies of agents' uploads of traces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.errors import CoordError
from coordinator.core.rows import LeaseToken
from coordinator.wire_traces import PARTS_MAX, Part, encoded, split

TOKEN = LeaseToken(1, 7)


def a_part(data: bytes, attempt: str = "1.0.0.1") -> bytes:
    return encoded(Part(attempt=attempt, token=TOKEN, kind="spans", size=len(data)), data)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_what_was_put_together_comes_apart(pieces: list[bytes]) -> None:
    """Whatever bytes the parts have."""
    body = b"".join(a_part(piece, f"1.0.0.{number}") for number, piece in enumerate(pieces))
    found = [(part.attempt, bytes(data)) for part, data in split(body)]
    assert [(f"1.0.0.{number}", piece) for number, piece in enumerate(pieces)] == found


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"{}\n",
        a_part(b"abc")[:-1],
        a_part(b"abc") + b"{",
        b'{"attempt":"1","token":[1,1],"kind":"no","size":0}\n',
    ],
)
def test_what_is_no_row_of_parts_is_refused(body: bytes) -> None:
    """Cut, without a header, of a kind that is none."""
    with pytest.raises(CoordError):
        list(split(body))


def test_parts_are_counted() -> None:
    """Headers alone may not fill memory."""
    with pytest.raises(CoordError):
        list(split(a_part(b"") * (PARTS_MAX + 1)))
