"""What a table of the truth is to the writer: three statements, and the way from row to columns and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from store.sqlite import sqlite3

Columns = tuple[Any, ...]
CHUNK_VALUES = 3_072
"""Of one statement: the writer asks for the GIL after each, and waits for it beside a busy event loop."""
CHUNK_ROWS = (512, 64, 8)
"""Rows of one statement, of those that hold no more values than that; what is left goes one by one."""


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


@lru_cache(maxsize=256)
def of_rows(put: str, columns: int, rows: int) -> str:
    """The statement `put` for so many rows at once."""
    one = f"({', '.join('?' * columns)})"
    assert put.count(one) == 1
    return put.replace(one, ", ".join([one] * rows))


def put_rows(connection: sqlite3.Connection, put: str, rows: Sequence[Columns]) -> None:
    """Put them all, within the caller's transaction; no two of them have the same key."""
    columns, begin, count = len(rows[0]), 0, len(rows)
    for chunk in CHUNK_ROWS:
        if chunk * columns > CHUNK_VALUES and chunk > CHUNK_ROWS[-1]:
            continue
        while count - begin >= chunk:
            together = of_rows(put, columns, chunk)
            connection.execute(together, tuple(chain.from_iterable(rows[begin : begin + chunk])))
            begin += chunk
    if begin < count:
        connection.executemany(put, rows[begin:])


def one_column(key: object) -> Columns:
    return (key,)


def several_columns(key: tuple[object, ...]) -> Columns:
    return tuple(key)
