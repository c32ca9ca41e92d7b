"""Lengths of time and shares as people read them, wherever they do: on terminals and on pages."""

from __future__ import annotations

S = 1_000_000_000
"""Nanoseconds."""
UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))


def two_units(whole_s: int) -> str:
    """`3d 4h`, `5m 12s`, `2m`, `40s`."""
    for unit_s, unit, next_s, below in UNITS:
        if whole_s >= unit_s:
            rest = whole_s % unit_s // next_s
            return f"{whole_s // unit_s}{unit} {rest}{below}" if rest else f"{whole_s // unit_s}{unit}"
    return f"{whole_s}s"


def long(length_ns: float) -> str:
    """To three figures: `412 ms`, `3.21 s`, `2m 5s`."""
    if length_ns < 0:
        return "-" + long(-length_ns)
    if length_ns < 1_000_000:
        return f"{length_ns / 1000:.3g} us" if length_ns else "0 s"
    if length_ns < 999_500_000:
        return f"{length_ns / 1_000_000:.3g} ms"
    if length_ns < 99_950_000_000:
        return f"{length_ns / S:.3g} s"
    return two_units(round(length_ns / S))


def part(length_ns: float, of_ns: float) -> str:
    """`41.2 %`."""
    return f"{100 * length_ns / of_ns:.1f} %" if of_ns else "-"
