"""From columns to rows, past those that are damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from store.truth import TABLES


def read_row(table: str, columns: tuple[Any, ...], set_aside: list[str]) -> Any:
    """The row that these columns are; None, and a line in `set_aside`, where they are none."""
    try:
        return TABLES[table].from_columns(columns)
    except (ValueError, TypeError) as error:
        set_aside.append(f"{table} {_named(table, columns)} cannot be read: {error}")
        return None


def read_rows(table: str, found: Iterable[tuple[Any, ...]], report: Callable[[str], None]) -> list[Any]:
    """Those of the rows that can be read; `report` is told of the others."""
    set_aside: list[str] = []
    rows = [read_row(table, columns, set_aside) for columns in found]
    for problem in set_aside:
        report(problem)
    return [row for row in rows if row is not None]


def _named(table: str, columns: tuple[Any, ...]) -> str:
    """As people know the row: `12.0.7` for a task."""
    key = _KEYS.get(table)
    return f"{columns[0]!a}" if key is None else ".".join(map(str, columns[:key]))


_KEYS = {"step": 2, "task": 3, "attempt": 4, "bundle": 3, "output": 3, "checkpoint": 4, "verdict": 4, "suspicion": 2}
"""Columns of the key, where it has several; of a bundle it names the last task."""
