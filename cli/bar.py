"""How far a job's tasks are, as a line that is drawn again and again: on a terminal alone."""

from __future__ import annotations

import shutil
from types import TracebackType
from typing import TextIO

from coordinator.api_types.work import Counts

WIDTH = 30


class Bar:
    """`draw` puts it below whatever was printed; `clear` before anything else is."""

    def __init__(self, title: str, out: TextIO) -> None:
        self._title = title
        self._out = out
        self.shown = out.isatty()
        self._drawn = ""

    def draw(self, counts: Counts) -> None:
        """The bar for these counts."""
        text = line(self._title, counts)[: shutil.get_terminal_size((80, 24)).columns - 1]
        if not self.shown or text == self._drawn:
            return
        self._out.write(f"\r\x1b[K{text}")
        self._out.flush()
        self._drawn = text

    def clear(self) -> None:
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._drawn = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()


def line(title: str, counts: Counts) -> str:
    """`job 12 [####----......] 4/10 done, 2 run, 1 failed`: # is done, - runs, x went wrong."""
    total = max(1, counts.tasks)
    ends = [round(WIDTH * done / total) for done in _sums(counts)]
    drawn = "".join(mark * (end - begin) for mark, begin, end in zip("#x-", (0, *ends), ends, strict=False))
    said = [f"{counts.completed}/{counts.tasks} done"]
    said += [f"{number} {word}" for number, word in ((counts.running, "run"), (counts.failed, "failed"),
                                                     (counts.cancelled, "cancelled")) if number]  # fmt: skip
    return f"{title} [{drawn:.<{WIDTH}}] {', '.join(said)}"


def _sums(counts: Counts) -> tuple[int, int, int]:
    wrong = counts.completed + counts.failed + counts.cancelled
    return counts.completed, wrong, wrong + counts.running
