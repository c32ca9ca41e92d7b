"""Where alerts are delivered to, and which."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

SEVERITIES = ("warning", "critical")
"""Ordered: each is worse than the one before."""


class AlertSettings(Struct, frozen=True, kw_only=True):
    """Where alerts are delivered to, besides `coord alerts`, the API, the metric and the log."""

    webhook: str = ""
    """URL (http or https) that each beginning and end of an alert is posted to as JSON. Empty: none."""
    webhook_secret: Path | None = None
    """File (0600) with the secret that the posts are signed with: HMAC-SHA256, in X-Coord-Signature."""
    command: tuple[str, ...] = ()
    """Argument list of a program that is run for each, with the same JSON on its standard input. Empty: none."""
    severity: str = "warning"
    """The least that is delivered: warning or critical."""
    timeout_s: float = 10.0
    """Of one try; a command is killed then, with all that it started."""
    tries: int = 6
    """How often one delivery is tried."""
    retry_s: float = 1.0
    """Pause before the second try; each further one is three times as long, ten minutes at most."""
    queue_max: int = 256
    """Deliveries that wait, of each kind; beyond, the oldest is given up."""
