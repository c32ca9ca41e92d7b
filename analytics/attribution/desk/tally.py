"""What a desk has done, counted; how long ends took."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

POSTS = ("accepted", "ignored", "rejected")
ANALYSES = ("started", "unsupported", "failed", "cancelled", "completed")
FALLBACKS = ("missing", "disabled", "failed", "unsupported", "stale", "capacity")
KEPT = 1_024
"""Ends whose times are kept."""


class Tally:
    """Counters since the start. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._posts: Counter[str] = Counter()
        self._analyses: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._replays: Counter[str] = Counter()
        self._checked = self._divergent = 0
        self._ends: deque[tuple[float, int, float]] = deque(maxlen=KEPT)
        """Seconds from the end to the verdict, bytes that were left at the end, seconds that had been spent before."""

    def post(self, what: str) -> None:
        with self._lock:
            self._posts[what] += 1

    def analysis(self, what: str) -> None:
        with self._lock:
            self._analyses[what] += 1

    def fallback(self, why: str) -> None:
        with self._lock:
            self._fallbacks[why] += 1

    def replay(self, why: str) -> None:
        with self._lock:
            self._replays[why] += 1

    def checked(self, same: bool) -> None:
        with self._lock:
            self._checked += 1
            self._divergent += not same

    def end(self, seconds: float, left_bytes: int, saved_s: float) -> None:
        with self._lock:
            self._ends.append((seconds, left_bytes, saved_s))

    def figures(self) -> dict[str, Any]:
        """As `GET /stats` has them."""
        with self._lock:
            ends = list(self._ends)
            return {
                "progressive_posts": {name: self._posts[name] for name in POSTS},
                "progressive_analyses": {name: self._analyses[name] for name in ANALYSES},
                "fallbacks": {name: self._fallbacks[name] for name in FALLBACKS},
                "replays": dict(self._replays),
                "checks": {"checked": self._checked, "divergent": self._divergent},
                "ends": {
                    "count": len(ends),
                    "seconds": _quantiles([end[0] for end in ends]),
                    "left_bytes": _quantiles([float(end[1]) for end in ends]),
                    "saved_seconds": _quantiles([end[2] for end in ends]),
                    "saved_seconds_sum": round(sum(end[2] for end in ends), 6),
                },
            }


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Of those that were kept; None where there are none."""
    if not values:
        return {"p50": None, "p90": None, "p99": None}
    ordered = sorted(values)
    return {f"p{q}": round(ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 6) for q in (50, 90, 99)}
