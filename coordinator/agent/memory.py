"""The interpreter's collector of cycles, in processes that make none to speak of."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
"""New objects until it looks: messages and rows hold no cycles, and at the default of 700 it looks at each turn's."""


def collect_seldom() -> None:
    """Have it look seldom, and never at what is loaded now. Called once, when this process is about to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
