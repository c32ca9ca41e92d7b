"""What a desk may take, and how patient it is."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from analytics.attribution.desk.contract import PROGRESSIVE_POLICIES
from analytics.attribution.following.settings import AttributionSettings
from coordinator.core.errors import Code, CoordError


class DeskSettings(Struct, frozen=True, kw_only=True):
    """Of launchers' files."""

    progressive: str = "all_explicit"
    """`off`: a POST starts nothing."""
    active_max: int = 64
    """Files that are followed at a time; the next is analysed at its end."""
    jobs_max: int = 10_000
    """Paths that are remembered; the one that was asked for longest ago makes room, else a POST is refused."""
    idle_s: float = 3_600.0
    """A file that neither grew nor was asked for so long is not followed any more."""
    poll_s: float = 0.5
    """Between two looks at files that do not grow."""
    settle_s: float = 0.0
    """At the end a file must have been quiet for so long, where its lines come through a funnel."""
    check_one_in: int = 50
    """One in so many progressive verdicts is compared with a full pass, which wins."""
    patience_s: float = 300.0
    """`wait=true` waits so long; then the answer is TIMEOUT."""
    threads: int = 2
    """Analyses at a time."""
    waiting_max: int = 64
    """Analyses that wait for a thread; the next is refused."""

    @classmethod
    def of(cls, given: AttributionSettings, **more: Any) -> DeskSettings:
        """What the settings of [attribution] say of it, and `more`. CoordError(BAD_CONFIG)."""
        progressive = given.progressive.strip().lower()
        return cls(progressive=progressive, active_max=given.active_max, check_one_in=given.check_one_in, **more)

    def __post_init__(self) -> None:
        if self.progressive not in PROGRESSIVE_POLICIES:
            words = " or ".join(PROGRESSIVE_POLICIES)
            raise CoordError(
                Code.BAD_CONFIG, f"the progressive policy {self.progressive!a} is not known", f"it is {words}"
            )
