"""What a table of the truth is to the writer: three statements, and the way from row to columns and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Columns = tuple[Any, ...]


class Table(NamedTuple):
    """One noun's SQL. `to_columns` and `from_columns` are inverse, in the order of `columns`."""

    name: str
    columns: tuple[str, ...]
    put: str
    delete: str
    to_columns: Callable[[Any], Columns]
    from_columns: Callable[[Columns], Any]
    key_columns: Callable[[Any], Columns]
    """The parameters of `delete` for a key as rows.row_key has it."""


def upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """INSERT that replaces the values of a row with the same key. Not REPLACE, which would also remove
    another row that holds the same value in a unique column."""
    places = ", ".join("?" * len(columns))
    values = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) "  # noqa: S608  names are constants of ours
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {values}"
    )


def one_column(key: object) -> Columns:
    return (key,)


def several_columns(key: tuple[object, ...]) -> Columns:
    return tuple(key)
