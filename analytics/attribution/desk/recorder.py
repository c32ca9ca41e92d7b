"""The flight recorder's dumps that belong to a log: where they are, under the same root, and what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import re2

from analytics.attribution.desk.contract import Refused
from analytics.attribution.desk.rooted import Root
from analytics.attribution.flight_recorder import dumps, parting
from coordinator.core.errors import Code, CoordError

HEAD_BYTES = 1 << 20
"""Of a log, in which its program says where its dumps go."""
DIRECTORY = "checkpoints"
_SAID = re2.compile(rb"TORCH_FR_DUMP_TEMP_FILE=([^\s'\"]+)")


def find(root: Root, log: str) -> str | None:
    """A prefix or a directory with at least one dump, that the log names or that lies beside it as is usual:
    `checkpoints/` there, or next to the `logs/` that it is under."""
    said = _named(root, log)
    beside = Path(log).parent
    usual = [beside, *(place.parent for place in beside.parents if place.name == "logs")]
    if beside.name == "logs":
        usual.append(beside.parent)
    for where in (said, *(str(place / DIRECTORY) for place in usual)):
        if where is None:
            continue
        try:
            real = root.place(where)
        except Refused:
            continue
        if dumps.present(real):
            return real
    return None


def _named(root: Root, log: str) -> str | None:
    try:
        fd = root.open(log)
    except OSError:
        return None
    try:
        found = _SAID.search(os.pread(fd, HEAD_BYTES, 0))
    finally:
        os.close(fd)
    return found[1].decode(errors="replace") if found is not None else None


def analyse(root: Root, where: str) -> dict[str, Any] | None:
    """`fr_analysis` of the dumps at a resolved path; None where there are none (any more)."""
    try:
        said = parting.analyse(dumps.load(where, lambda path: _opened(root, path)))
    except (CoordError, Refused):
        return None
    return answer(said)


def _opened(root: Root, path: str) -> int:
    """One dump that leads elsewhere is refused alone."""
    try:
        return root.open(root.place(path))
    except Refused as refused:
        raise CoordError(Code.FORBIDDEN, refused.body.message) from None


def answer(said: parting.Parting) -> dict[str, Any]:
    """With the two fields that launchers read first."""
    return {
        "analysis_text": parting.table(said),
        "hanging_ranks": f"hanging ranks: {list(said.missing_ranks)}",
        **msgspec.to_builtins(said),
    }
