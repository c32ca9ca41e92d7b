"""A number and what it counts, for people."""

from __future__ import annotations


def count(number_of: int, one: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number_of} {one}" if number_of == 1 else f"{number_of} {one}s"
