"""What may be written to a terminal, and how wide it is.

Text from outside (labels, peers, notes, error messages) passes `safe` before it is shown: nobody who names a
provider moves somebody else's cursor.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import TextIO

# C0 and C1 controls, DEL, and the characters that reorder or hide text (bidi, zero width, line separators).
_UNSAFE = "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
WIDTH_PLAIN = 80
"""Columns of what is no terminal, and of one that does not say."""


def safe(text: str) -> str:
    """`text` on one line, with every control or reordering character shown as its escape."""
    return text if text.isprintable() else re.sub(_UNSAFE, _escaped, text)


def safe_json(text: str) -> str:
    r"""JSON text with those characters as \u escapes: the same JSON, harmless where it is shown."""
    return re.sub(_UNSAFE, lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def has_colour(stream: TextIO) -> bool:
    """Colour is for terminals that know it, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int:
    """Columns to fill."""
    return shutil.get_terminal_size((WIDTH_PLAIN, 24)).columns if stream.isatty() else WIDTH_PLAIN


def complain(message: str, hint: str = "") -> None:
    """An error for people, on stderr: what was asked and what is, then what to do."""
    red, dim, off = ("\x1b[31m", "\x1b[2m", "\x1b[0m") if has_colour(sys.stderr) else ("", "", "")
    lines = [safe(line) for line in message.splitlines() or [""]]
    print(f"{red}coord:{off} " + "\n       ".join(lines), file=sys.stderr)
    if hint:
        print(f"{dim}       {safe(hint)}{off}", file=sys.stderr)


def say(text: str) -> None:
    """A remark beside the result, on stderr."""
    print(text, file=sys.stderr, flush=True)
