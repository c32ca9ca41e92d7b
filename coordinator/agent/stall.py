"""Whether a program still gets on: the clock behind `stall_after`.

A sign of life is a report of progress or a checkpoint; of a program that has made neither, a byte of output. Time in
which it was frozen does not count: it could not get on.
"""

from __future__ import annotations

import math


class StallClock:
    """Of one attempt that runs. Times are seconds on CLOCK_BOOTTIME."""

    def __init__(self, limit_s: float, now_s: float) -> None:
        self._limit_s = limit_s
        self._sign_s = now_s
        self._reports = False
        """It makes reports or checkpoints: output is no sign of life any more."""
        self._frozen_s: float | None = None

    def reported(self, now_s: float) -> None:
        """It said how far it is, or saved its state."""
        self._reports = True
        self._sign_s = now_s

    def wrote(self, now_s: float) -> None:
        """It wrote output."""
        if not self._reports:
            self._sign_s = now_s

    def frozen(self, frozen: bool, now_s: float) -> None:
        """Whether it is."""
        if frozen and self._frozen_s is None:
            self._frozen_s = now_s
        elif not frozen and self._frozen_s is not None:
            self._sign_s += now_s - max(self._frozen_s, self._sign_s)
            self._frozen_s = None

    def due_s(self) -> float:
        """When it has stalled unless something happens; infinite: it cannot, it is frozen."""
        return math.inf if self._frozen_s is not None else self._sign_s + self._limit_s

    def why(self) -> str:
        """Said of its end."""
        what = "report of progress nor checkpoint" if self._reports else "report, checkpoint nor output"
        return f"stalled: no {what} for {self._limit_s:g} s"
