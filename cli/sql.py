"""`coord query sql`: read-only SQL over the documented views."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cli import output, terminal
from cli.options import FiniteRange, output_option, talks
from coordinator.api_types.operations import SqlAnswer

if TYPE_CHECKING:
    from coordinator.client import Client

NUMBERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "UBIGINT"})
Namer = Callable[[Any], str]


@click.command(short_help="Ask read-only SQL over the documented views.")
@click.argument("statement")
@click.option("--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True, help="Rows at most.")
@click.option("--timeout", type=FiniteRange(0.1, 300), default=30.0, show_default=True, help="In seconds.")
@output_option
@talks
def sql(client: Client, statement: str, limit: int, timeout: float, output: output.Format) -> None:
    """Ask read-only SQL (DuckDB's) over the documented views: docs/reference/views.md. `-` reads stdin.

    \b
    coord query sql "SELECT disconnect_reason, count(*) AS n FROM sessions GROUP BY ALL ORDER BY n DESC"
    coord query sql - -o csv < question.sql
    """
    text = sys.stdin.read() if statement == "-" else statement
    print_sql(client.sql(text, rows_max=limit, timeout_s=timeout), output)


def print_sql(answer: SqlAnswer, form: output.Format) -> None:
    """Rows of a query: its own columns are the table's."""
    rows = [dict(zip(answer.columns, values, strict=True)) for values in answer.entries]
    match form:
        case "json":
            output.print_json(answer)
        case "jsonl" | "csv" | "name":
            output.print_dicts(answer.columns, rows, form)
        case _:
            columns = [
                output.Column(title, _value_of(title), right=_is_number(kind))
                for title, kind in zip(answer.columns, answer.types, strict=True)
            ]
            fit = terminal.width(sys.stdout) if form == "table" and sys.stdout.isatty() else None
            output.print_table(rows, columns, sys.stdout, fit=fit)
    if answer.truncated:
        terminal.say(f"there were more than {len(rows)} rows: --limit shows more of them")


def _value_of(column: str) -> Namer:
    return lambda row: output.text_of(row[column])


def _is_number(kind: str) -> bool:
    return kind.split("(")[0] in NUMBERS
