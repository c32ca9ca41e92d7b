"""Many seeds in parts of a bounded time: every one is tried, and each that fails is named."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable

PART_S_MAX = 19 * 60
"""A part is to end within twenty minutes, on a machine that is busy too."""
SHOWN_MAX = 20


def try_seeds(seeds: Iterable[int], violation_of: Callable[[int], str], told: Counter[str]) -> None:
    """Print one line of figures, and fail when a seed did or when time ran out before the last one."""
    until_s = time.monotonic() + PART_S_MAX
    failed: dict[int, str] = {}
    left = held = 0
    for seed in seeds:
        if time.monotonic() > until_s:
            left += 1
            continue
        violation = violation_of(seed)
        if violation:
            failed[seed] = violation
        else:
            held += 1
    shown = {str(seed): failed[seed][:300] for seed in sorted(failed)[:SHOWN_MAX]}
    print(json.dumps({"held": held, "failed": len(failed), "not_reached": left, "violations": shown, "worlds": told}))
    assert not failed, f"{len(failed)} of {held + len(failed)} seeds failed: {shown}"
    assert not left, f"{left} seeds were not reached within {PART_S_MAX} s"
