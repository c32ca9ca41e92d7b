"""A progress bar on stderr for long work, drawn on a terminal alone."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TextIO

WIDTH = 30
EVERY_S = 0.05


class Bar:
    """`with Bar("importing", total, sys.stderr) as bar: ... bar.at(done)`. Cleared at the end."""

    def __init__(self, title: str, total: int, out: TextIO) -> None:
        self._title = title
        self._total = max(1, total)
        self._out = out
        self._shown = out.isatty()
        self._next_s = 0.0

    def at(self, done: int) -> None:
        """So much of the total is done. Cheap to call often."""
        now_s = time.monotonic()
        if not self._shown or (now_s < self._next_s and done < self._total):
            return
        self._next_s = now_s + EVERY_S
        share = min(1.0, done / self._total)
        full = round(WIDTH * share)
        rest = " waiting for the coordinator" if share >= 1 else ""
        self._out.write(f"\r{self._title} [{'#' * full}{'.' * (WIDTH - full)}] {100 * share:3.0f} %{rest}")
        self._out.flush()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()
