"""What following logs may take."""

from __future__ import annotations

from msgspec import Struct


class AttributionSettings(Struct, frozen=True, kw_only=True):
    """Whether attempts' logs are followed and judged, and by what table."""

    enabled: bool = True
    """False: no verdicts; exit codes alone decide."""
    active_max: int = 64
    """Logs (one a rank) that are followed at a time; what is beyond is read when its attempt has ended."""
    check_one_in: int = 100
    """One in so many verdicts is compared with a fresh full pass, which wins."""
    signatures: str = ""
    """A file with rows of your own, beside the table that comes along."""
    progressive: str = "all_explicit"
    """Of launchers' files: a POST starts what its intent says, or nothing with `off`."""
    launchers_root: str = ""
    """The directory whose logs launchers may name at /logs, with an admin's token. Empty: no such routes."""
