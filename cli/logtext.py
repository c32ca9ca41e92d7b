"""A program's output on its way to a terminal: every line of it, and nothing that moves the cursor or hides text.

What a job writes is written by anybody. Control characters, escape sequences and the characters that reorder text are
shown as their escapes; tabs and line feeds stay. A pipe gets the bytes themselves and never comes through here.
"""

from __future__ import annotations

import codecs
import re

from cli import terminal

_LINE_END = re.compile(r"\r+\n?")


class Harmless:
    """Bytes in pieces, harmless text out. A carriage return becomes a line feed: no line overwrites another."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._held = ""
        self.at_line_start = True

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The text of these bytes; what may yet become one character, or one line end, is held back."""
        text = self._held + self._decode(data, final)
        self._held = ""
        if text.endswith("\r") and not final:
            text, self._held = text.rstrip("\r"), "\r"  # several are one line end
        shown = "".join(
            piece if piece in ("\n", "\t") else terminal.safe(piece)
            for piece in re.split(r"([\n\t])", _LINE_END.sub("\n", text))
        )
        if shown:
            self.at_line_start = shown.endswith("\n")
        return shown
