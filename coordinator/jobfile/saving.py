"""What a step leaves behind and what saves it on the way: outputs, checkpoints, and the watch for stalls."""

from __future__ import annotations

import signal

from coordinator.core.errors import CoordError
from coordinator.core.work.jobspec import CheckpointRule
from coordinator.jobfile.inputs import beneath_there
from coordinator.jobfile.model import CHECKPOINT
from coordinator.jobfile.patterns import normal
from coordinator.jobfile.problems import shown
from coordinator.jobfile.table import Table
from coordinator.jobfile.values import length, length_of
from coordinator.timetext import DAY_MS, HOUR_MS, SECOND_MS

OUTPUTS_MAX = 256
"""Patterns, not files."""
KEEP_MAX = 100
SIGNALS = frozenset(one.name.removeprefix("SIG") for one in signal.Signals)
ASKING = SIGNALS - {"KILL", "STOP"}
"""Those that a program can hear."""


def outputs(table: Table) -> tuple[str, ...]:
    """The patterns, each once, in the form that `globs.matches` takes."""
    patterns = []
    for found in table.texts("outputs", OUTPUTS_MAX, "a list of patterns") or ():
        try:
            patterns.append(normal(found.value))
        except CoordError as error:
            table.problems.add(found.path, error.message, error.hint)
    return tuple(dict.fromkeys(patterns))


def checkpoint(table: Table) -> CheckpointRule | None:
    """How its state is saved; None: it is not."""
    found = table.find("checkpoint")
    if found is None:
        return None
    if isinstance(found.value, str):
        table.wrong(found, "a table", f"write checkpoint = {{ every = {shown(found.value)} }}")
        return None
    beneath = table.table("checkpoint")
    if beneath is None:
        return None
    beneath.only(CHECKPOINT, "checkpoint")
    plain = CheckpointRule()
    place = beneath.find("path")
    every = beneath.find("every")
    auto = every is not None and every.value == "auto"
    keep = beneath.integer("keep", 1, KEEP_MAX, "a number of checkpoints")
    grace_ms = length(beneath, "grace", 0, HOUR_MS)
    return CheckpointRule(
        path=(beneath_there(beneath, place) or "") if place is not None else "",
        every_ms=length_of(beneath, every, SECOND_MS, 30 * DAY_MS) if every is not None and not auto else None,
        auto=auto,
        keep=plain.keep if keep is None else keep,
        signal=_signal(beneath),
        grace_ms=plain.grace_ms if grace_ms is None else grace_ms,
    )


def _signal(table: Table) -> str:
    found = table.find("signal")
    if found is None:
        return ""
    name = found.value.removeprefix("SIG") if isinstance(found.value, str) else ""
    if name in ASKING:
        return name
    near = table.problems.nearest(name, ASKING) if name else None
    table.wrong(found, "a signal that a program can hear", f"did you mean {near}?" if near else "USR1 or USR2")
    return ""


def stall_ms(table: Table) -> int | None:
    """How long it may make no progress; None: for ever."""
    return length(table, "stall_after", SECOND_MS, 30 * DAY_MS)
