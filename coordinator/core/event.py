"""What every event has."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.ids import Ms


class Event(Struct, frozen=True, gc=False, kw_only=True, tag_field="event"):
    """Something that happened at `at_ms`."""

    at_ms: Ms
    wall_ns: int = 0
    """Observed clock in nanoseconds when it was decided; 0: `at_ms` says it. Stamped by the engine."""
    mono_ns: int = 0
    """CLOCK_BOOTTIME then."""
