"""Patterns of a job file in the one form that the rest of us knows; `coordinator.globs` says what they match."""

from __future__ import annotations

from coordinator.core.errors import Code, CoordError
from coordinator.manifest import check_path

DEEP = "**"


def normal(pattern: str) -> str:
    """`pattern` without `./` before it; `dir/` becomes `dir/**`, all beneath it.

    CoordError(BAD_REQUEST) for what cannot be a path beneath a directory, and for `**` beside other characters.
    """
    plain = pattern
    while plain.startswith("./"):
        plain = plain[2:].lstrip("/")
    if plain.endswith("/"):
        plain = plain.rstrip("/") + "/" + DEEP
    check_path(plain)
    for part in plain.split("/"):
        if DEEP in part and part != DEEP:
            raise CoordError(
                Code.BAD_REQUEST, f"{pattern[:80]!a}: ** stands beside other characters", "write it alone: dir/**/*.pt"
            )
    return plain
