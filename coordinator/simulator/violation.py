"""What a world ends with when the core was wrong."""

from __future__ import annotations


class Violation(Exception):
    """Something that must never happen did."""
