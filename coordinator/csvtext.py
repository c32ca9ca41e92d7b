"""Text as a cell of a CSV file that somebody may open in a spreadsheet: a name of ours never becomes a formula."""

from __future__ import annotations

_STARTS = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """`text`, with an apostrophe before it where a spreadsheet would calculate it. Plain numbers stay as they are."""
    if text.startswith(_STARTS) and not _is_number(text):
        return "'" + text
    return text


def _is_number(text: str) -> bool:
    digits = text[1:].replace(".", "", 1)
    return text[0] == "-" and digits.isascii() and digits.isdigit()
