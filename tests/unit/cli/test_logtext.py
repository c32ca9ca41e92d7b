"""What a program writes reaches a terminal whole, and does nothing to it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from cli.logtext import Harmless

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def shown(*pieces: bytes) -> str:
    harmless = Harmless()
    return "".join(harmless.feed(piece) for piece in pieces) + harmless.feed(b"", final=True)


def test_escapes_are_shown_and_do_nothing() -> None:
    """Clearing the screen, a title, C1, and text that runs backwards."""
    assert shown(b"\x1b[2Jhi\x1b]0;title\x07") == "\\x1b[2Jhi\\x1b]0;title\\x07"
    assert shown("\x9b31m \u202eback".encode()) == "\\x9b31m \\u202eback"


def test_tabs_lines_and_every_script_stay() -> None:
    assert shown("a\tb\nünïcödé 漢字 🎉\n".encode()) == "a\tb\nünïcödé 漢字 🎉\n"


def test_a_carriage_return_overwrites_nothing() -> None:
    """The states of a progress bar stand below each other; the line end of Windows is one line end."""
    assert shown(b" 10 %\r 20 %\r\n", b"x\r", b"\ny\r", b"z") == " 10 %\n 20 %\nx\ny\nz"


def test_bytes_that_are_no_text_are_shown_as_what_they_are() -> None:
    assert shown(b"\xff\xfe ok") == "\\xff\\xfe ok"


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_nothing_dangerous_comes_through_however_it_is_cut(pieces: list[bytes]) -> None:
    """Cut anywhere, in the middle of a character too, the text is the same and harmless."""
    text = shown(*pieces)
    assert UNSAFE.search(text) is None
    assert text == shown(b"".join(pieces))
