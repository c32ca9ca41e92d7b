"""How patient the coordinator may be told to be: each wait is longer than the one before it."""

from __future__ import annotations

from coordinator.core.errors import Code, CoordError
from coordinator.core.policy import Policy

FREEZE_SHARE = 5 / 6
"""Of a lease's term: an agent that was not renewed for so long freezes its work."""
LOST_INTERVALS = 6
"""A provider may miss so many heartbeats before it is lost."""


def check(policy: Policy) -> None:
    """CoordError(BAD_CONFIG) when a provider would be given up before it was asked, or before it could answer."""
    least_ms = LOST_INTERVALS * policy.heartbeat_interval_ms
    if policy.lost_after_ms < least_ms:
        raise CoordError(
            Code.BAD_CONFIG,
            f"policy.lost_after_ms = {policy.lost_after_ms} is below {LOST_INTERVALS} heartbeat intervals: "
            f"policy.heartbeat_interval_ms = {policy.heartbeat_interval_ms}",
            f"set policy.lost_after_ms={least_ms} or more, or policy.heartbeat_interval_ms="
            f"{policy.lost_after_ms // LOST_INTERVALS} or less",
        )
    if policy.suspect_after_intervals < policy.ping_after_intervals:
        raise CoordError(
            Code.BAD_CONFIG,
            f"policy.suspect_after_intervals = {policy.suspect_after_intervals:g} is below "
            f"policy.ping_after_intervals = {policy.ping_after_intervals:g}: a provider is pinged before it is suspect",
            "raise the first or lower the second",
        )
    if policy.suspect_after_intervals * policy.heartbeat_interval_ms > policy.lost_after_ms:
        raise CoordError(
            Code.BAD_CONFIG,
            f"policy.suspect_after_intervals = {policy.suspect_after_intervals:g} of {policy.heartbeat_interval_ms} ms "
            f"is beyond policy.lost_after_ms = {policy.lost_after_ms}: a provider is suspect before it is lost",
            "lower the first or raise the second",
        )
    freeze_ms = policy.term_ms * FREEZE_SHARE
    if policy.suspect_after_intervals * policy.heartbeat_interval_ms >= freeze_ms:
        raise CoordError(
            Code.BAD_CONFIG,
            f"policy.term_ms = {policy.term_ms}: work would be frozen after {freeze_ms:.0f} ms of silence, before its "
            f"provider is suspect ({policy.suspect_after_intervals:g} intervals of {policy.heartbeat_interval_ms} ms)",
            "raise the first or lower the second",
        )
