"""Settings of the interpreter that a process with a busy loop and writer threads needs. Called once, at start."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 0.0005
"""A thread that wants the GIL gets it after so long. With the default of 5 ms a writer thread beside a busy
loop starves: it needs the GIL again after every statement."""
YOUNG_OBJECTS = 50_000
"""New objects until the cyclic collector looks. Rows and messages hold no cycles; at the default of 700 it
looks at every batch of them many times, for nothing."""


def tune_process() -> None:
    """Have threads switch soon, and the cyclic collector look seldom and never at what is loaded now.

    To be called after the state was loaded: everything that lives then is taken out of the collector's sight.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
