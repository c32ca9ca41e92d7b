"""Amounts of what is offered and asked for: whole numbers, so that what is free is exact.

cpus, gpus and named resources are counted in millionths of one, memory in bytes.
"""

from __future__ import annotations

from msgspec import Struct

UNIT = 1_000_000
"""One CPU, one GPU, one of a named resource."""


class Ask(Struct, frozen=True, gc=False, kw_only=True):
    """What one rank of a task needs: one of its step's alternatives. Hashable: equal asks are one class."""

    cpus: int = UNIT
    gpus: int = 0
    """Above one GPU whole ones and at most one share; a share is of a single GPU."""
    memory: int = 0
    """Bytes; 0: no limit is set, and none is reserved."""
    named: tuple[tuple[str, int], ...] = ()
    """Sorted by name."""


class Price(Struct, frozen=True, gc=False, kw_only=True):
    """What a pool's capacity costs: whole millionths of the installation's unit of account, for an hour."""

    cpu: int = 0
    """Of one CPU."""
    gpu: int = 0
    """Of one GPU."""
    memory: int = 0
    """Of 10^9 bytes."""


class Share(Struct, frozen=True, gc=False, kw_only=True):
    """What one rank holds on its provider: the ask, and which GPUs (index, millionths) were chosen for it."""

    ask: Ask
    gpus: tuple[tuple[int, int], ...] = ()
