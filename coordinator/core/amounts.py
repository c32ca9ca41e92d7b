"""Amounts of what is offered and asked for: whole numbers, so that what is free is exact.

cpus, gpus and named resources are counted in millionths of one, memory in bytes.
"""

from __future__ import annotations

import re

from msgspec import Struct

UNIT = 1_000_000
"""One CPU, one GPU, one of a named resource, one unit of account."""
AMOUNT_MAX = 10**18
"""No amount is larger: sums of many of them still fit where 64 bits are the bound."""
_DECIMAL = re.compile(r"(\d{1,18})(?:\.(\d{1,6}))?", re.ASCII)


def decimal_text(amount: int) -> str:
    """Millionths as the decimal that they are: `12.5` for 12_500_000. Exact, without trailing zeros."""
    sign, whole = ("-", -amount) if amount < 0 else ("", amount)
    ones, rest = divmod(whole, UNIT)
    return f"{sign}{ones}.{rest:06d}".rstrip("0").rstrip(".") if rest else f"{sign}{ones}"


def millionths(text: str) -> int | None:
    """`12.5` as 12_500_000, exactly; None for what is negative, finer than a millionth, too large, or no decimal."""
    found = _DECIMAL.fullmatch(text)
    if found is None:
        return None
    amount = int(found[1]) * UNIT + int((found[2] or "").ljust(6, "0"))
    return amount if amount <= AMOUNT_MAX else None


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
