"""Whether a worker hangs, judged by the pace of whoever watches it.

The watcher looks at even steps of time. A step that took more than twice as long says that the watcher stood still
itself (a suspended machine, a stopped process): it counts for nothing, and nobody is killed for it.
"""

from __future__ import annotations

LATE = 2.0
"""A step that took so many times its length was no step."""
STILL = 0.01
"""Who uses no more than this share of a core stands still: answering whether it is there takes less."""


class Watch:
    """One worker's life signs: when it was heard, and how long its threads are at what they do."""

    def __init__(self, step_s: float, silent_s: float, stuck_s: float, still_s: float) -> None:
        """It hangs when nothing is heard of it for `silent_s`, a thread makes no progress for `stuck_s`, or one is at
        work for `still_s` in which the process has used no CPU."""
        self._step_s, self._silent_s, self._stuck_s, self._still_after_s = step_s, silent_s, stuck_s, still_s
        self._quiet_s = 0.0
        self._at: tuple[int, ...] = ()
        self._busy_s: list[float] = []
        self._cpu_s = 0.0
        self._still_s = 0.0

    def heard(self) -> None:
        """It said something."""
        self._quiet_s = 0.0

    def at_work(self, *at: int, cpu_s: float) -> None:
        """What each of the threads is at: another number than the last is other work; 0 is none. `cpu_s`: what the
        process has used so far."""
        if not any(at) or cpu_s - self._cpu_s > STILL * self._step_s:
            self._still_s = 0.0
        self._cpu_s = cpu_s
        known = zip(self._at, self._busy_s, at, strict=True) if self._at else ((0, 0.0, now) for now in at)
        self._busy_s = [0.0 if now == 0 or now != before else busy for before, busy, now in known]
        self._at = at

    def step(self, took_s: float) -> str:
        """Time went by. Why the worker has to be ended; empty while it has not."""
        if took_s > LATE * self._step_s:
            return ""
        self._quiet_s += took_s
        self._busy_s = [busy + took_s if at else 0.0 for busy, at in zip(self._busy_s, self._at, strict=True)]
        if self._quiet_s >= self._silent_s:
            return f"nothing was heard of it for {self._quiet_s:.0f} s"
        longest = max(self._busy_s, default=0.0)
        if longest >= self._stuck_s:
            return f"one of its threads was at the same work for {longest:.0f} s"
        self._still_s = self._still_s + took_s if longest else 0.0
        if self._still_s >= self._still_after_s:
            return f"one of its threads was at work for {self._still_s:.0f} s that used no CPU"
        return ""
