"""Structs of what is answered when two traces are held against each other, or one is replayed with changes.

Units as in `api_types.trace`.
"""

from __future__ import annotations

from msgspec import Struct


class ComparedSide(Struct, frozen=True, kw_only=True):
    workflow_id: str
    makespan_ns: int
    tasks: int
    attempts: int
    slots: int


class ComparedTask(Struct, frozen=True, kw_only=True, gc=False):
    """Tasks of one name and key, in two runs."""

    name: str
    key: str
    a_seconds: float | None
    """From the first start to the last end, all attempts; None: not in that run."""
    b_seconds: float | None
    delta_seconds: float
    a_path_seconds: float
    """On the real path."""
    b_path_seconds: float
    a_attempts: int
    b_attempts: int


class ComparedKind(Struct, frozen=True, kw_only=True):
    kind: str
    a_ns: int
    b_ns: int
    delta_ns: int


class Comparison(Struct, frozen=True, kw_only=True):
    """Run b against run a: what the difference consists of. `kinds` sum to the difference of the makespans."""

    a: ComparedSide
    b: ComparedSide
    delta_ns: int
    delta_seconds: float
    kinds: tuple[ComparedKind, ...]
    tasks: tuple[ComparedTask, ...]
    """By how much they differ on the path, then in length; the greatest first."""
    notes: tuple[str, ...] = ()


class WhatIf(Struct, frozen=True, kw_only=True):
    """The recorded graph replayed: each task as soon as its parents' data and a slot are there, as it came then."""

    slots: int
    without: tuple[str, ...]
    recorded_ns: int
    unchanged_ns: int
    """What replaying the run as it was gives."""
    error_ns: int
    """`unchanged_ns - recorded_ns`: how far to trust this."""
    error_fraction: float
    predicted_ns: int
    saved_ns: int
    """`unchanged_ns - predicted_ns`."""
    recorded_slots: int
    notes: tuple[str, ...] = ()
