"""What the views of a trace are written on: a stream of known width and height, and how long things took."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TextIO

from cli import output, terminal
from coordinator.lengths import S, long

HEIGHT_PLAIN = 50
"""Lines of what is no terminal: as much as one looks at."""


class Sheet(NamedTuple):
    """Where a view is written. `limit`: so many rows of a table at most, 0 for all."""

    out: TextIO
    width: int
    height: int
    limit: int = 40
    tty: bool = False

    @classmethod
    def on(cls, out: TextIO, *, height: int | None = None, limit: int = 40) -> Sheet:
        tty = out.isatty()
        lines = shutil.get_terminal_size((80, HEIGHT_PLAIN)).lines - 1 if tty else HEIGHT_PLAIN
        return cls(out, max(40, terminal.width(out)), max(8, height or lines), limit, tty)

    @property
    def colourful(self) -> bool:
        return terminal.has_colour(self.out)

    @property
    def blocks(self) -> bool:
        """Whether block characters can be written."""
        try:
            "█▁…".encode(self.out.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def line(self, text: str = "") -> None:
        """One line; text from outside in it is made harmless."""
        self.raw(terminal.safe(text))

    def raw(self, text: str) -> None:
        """A line that is harmless already, with colours of ours."""
        self.out.write(text.rstrip() + "\n")

    def title(self, text: str) -> None:
        """A heading, with an empty line above."""
        self.raw("")
        self.raw(self.painted(terminal.safe(text), "1"))

    def painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if code and self.colourful else text

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        shown = [(name, value) for name, value in facts if value]
        wide = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{name:<{wide}}  {value}")

    def table(self, rows: Sequence[Any], columns: Sequence[output.Column], *, more: str = "", cut: bool = True) -> None:
        """The first rows (`cut`: no more than the limit), and how many were left away."""
        shown = rows[: self.limit] if cut and self.limit else rows
        if not shown:
            return
        output.print_table(shown, columns, self.out, fit=self.width if self.tty else None)
        if len(shown) < len(rows):
            self.line(f"... {len(rows) - len(shown)} more{more}; --limit 0 has all")


def long_s(length_s: float) -> str:
    """Seconds of an answer, so."""
    return long(round(length_s * S))


def bar(share: float, width: int, *, blocks: bool) -> str:
    """A share from 0 to 1 as a bar of so many characters."""
    full = min(width, max(0, round(share * width)))
    if not full and share > 0:
        return "▏" if blocks else "."
    return ("█" if blocks else "#") * full


def clock(time_ns: int) -> str:
    """`2026-11-22 04:31:05.250 UTC`; a trace may be of any year, or begin at 0."""
    from datetime import UTC, datetime, timedelta

    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)
    except OverflowError:
        return f"{time_ns} ns"
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03d} UTC"
