"""One way to print a listing: `-o table|wide|json|jsonl|csv|name`.

JSON is the HTTP answer itself, field for field; tables are for people and may change. Nothing but the result
goes to stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TextIO

import msgspec
from msgspec import Struct

from cli import terminal

Format = Literal["table", "wide", "json", "jsonl", "csv", "name"]
FORMATS: tuple[Format, ...] = ("table", "wide", "json", "jsonl", "csv", "name")
CELL_LEAST = 8
"""Characters that a text keeps, however narrow the terminal is."""
GAP = 2
"""Spaces between two columns."""


class Column(NamedTuple):
    """One column of a table: `show` gives the text of an entry's cell."""

    title: str
    show: Callable[[Any], str]
    wide: bool = False
    """Only with `-o wide`."""
    right: bool = False
    colour: Callable[[Any], str] | None = None
    """An SGR code for the cell (`32`), or an empty string."""
    spare: bool = False
    """Left away first where the terminal is too narrow; `-o wide` has it."""
    whole: bool = False
    """A sentence that is never cut: the terminal wraps it."""
    explained: str = ""
    """The title with `-o wide`, where there is room for one that explains itself."""
    full: Callable[[Any], str] | None = None
    """The cell with `-o wide`: all of what is cut short elsewhere."""


def listing(
    answer: Struct,
    columns: Sequence[Column],
    output: Format,
    *,
    name: Callable[[Any], str],
    entries: Sequence[Struct] | None = None,
    empty: str = "nothing to show",
) -> None:
    """Print a listing. `answer` is the HTTP answer; its `entries` are the rows unless given."""
    rows: Sequence[Struct] = entries if entries is not None else answer.entries  # type: ignore[attr-defined]
    out = sys.stdout
    if output == "json":
        print_json(answer)
    elif output == "jsonl":
        for row in rows:
            out.write(terminal.safe_json(msgspec.json.encode(row).decode()) + "\n")
    elif output == "csv":
        _csv(rows, out)
    elif output == "name":
        for row in rows:
            out.write(terminal.safe(name(row)) + "\n")
    elif not rows:
        terminal.say(empty)
    else:
        if output == "wide":
            print_table(rows, titled(columns, output), out)
        else:
            shown = [column for column in columns if not column.wide]
            print_table(rows, shown, out, fit=terminal.width(out) if out.isatty() else None)


def titled(columns: Sequence[Column], output: Format) -> list[Column]:
    """With `wide` under titles that explain themselves, and uncut."""
    if output != "wide":
        return list(columns)
    return [one._replace(title=one.explained or one.title, show=one.full or one.show) for one in columns]


def single(entry: Struct, output: Format, *, name: str) -> None:
    """Print one thing in a format that is not for people."""
    match output:
        case "json":
            print_json(entry)
        case "jsonl":
            sys.stdout.write(terminal.safe_json(msgspec.json.encode(entry).decode()) + "\n")
        case "csv":
            _csv([entry], sys.stdout)
        case _:
            sys.stdout.write(terminal.safe(name) + "\n")


def print_json(answer: object) -> None:
    """An answer as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
    sys.stdout.write(terminal.safe_json(text) + "\n")


def print_table(rows: Sequence[Any], columns: Sequence[Column], out: TextIO, *, fit: int | None = None) -> None:
    """Columns as wide as their longest cell, two spaces apart; within `fit` characters, if that is given: spare
    columns are left away first, then the longest texts are cut."""
    colourful = terminal.has_colour(out)
    cells = [[terminal.safe(column.show(row)) for column in columns] for row in rows]
    widths = [
        max(len(column.title), max((len(line[at]) for line in cells), default=0)) for at, column in enumerate(columns)
    ]
    if fit is not None:
        kept, widths = fitted(columns, widths, fit)
        columns = [columns[at] for at in kept]
        cells = [[_cut(line[at], widths[n]) for n, at in enumerate(kept)] for line in cells]
    dim, off = ("\x1b[1m", "\x1b[0m") if colourful else ("", "")
    head = "  ".join(_pad(c.title, w, c.right) for c, w in zip(columns, widths, strict=True)).rstrip()
    out.write(f"{dim}{head}{off}\n")
    for row, line in zip(rows, cells, strict=True):
        parts = []
        for column, text, wide in zip(columns, line, widths, strict=True):
            padded = _pad(text, wide, column.right)
            code = column.colour(row) if colourful and column.colour is not None else ""
            parts.append(f"\x1b[{code}m{padded}\x1b[0m" if code else padded)
        out.write("  ".join(parts).rstrip() + "\n")


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """One thing's properties, a line each; those without a value are left out."""
    shown = [(name, terminal.safe(value)) for name, value in facts if value not in ("", "-")]
    wide = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name:<{wide}}  {value}\n")


def fitted(columns: Sequence[Column], widths: Sequence[int], fit: int) -> tuple[list[int], list[int]]:
    """Which columns stay, and how wide each is, so that a line has at most `fit` characters."""
    kept = list(range(len(columns)))

    def over() -> int:
        return sum(wide[at] for at in kept) + GAP * (len(kept) - 1) - fit

    wide = list(widths)
    while over() > 0 and (spare := [at for at in kept if columns[at].spare]):
        kept.remove(spare[-1])
    texts = [at for at in kept if not columns[at].right and not columns[at].whole]
    while over() > 0 and texts:
        longest = max(texts, key=lambda at: wide[at])
        if wide[longest] <= max(CELL_LEAST, len(columns[longest].title)):
            texts.remove(longest)
        else:
            wide[longest] -= 1
    return kept, [wide[at] for at in kept]


def _cut(text: str, wide: int) -> str:
    return text[: wide - 1] + "…" if len(text) > wide else text


def _pad(text: str, wide: int, right: bool) -> str:
    return f"{text:>{wide}}" if right else f"{text:<{wide}}"


def _csv(rows: Sequence[Struct], out: TextIO) -> None:
    import csv

    writer = csv.writer(out, lineterminator="\n")
    if not rows:
        return
    fields = rows[0].__struct_fields__
    writer.writerow(fields)
    show = terminal.safe if out.isatty() else str
    for row in rows:
        writer.writerow([show(_cell(getattr(row, field))) for field in fields])


def _cell(value: object) -> str:
    """A value of a CSV file: no text from outside becomes a formula of whoever opens it in a spreadsheet."""
    from coordinator.csvtext import cell

    return cell(value) if isinstance(value, str) else text_of(value)


def print_dicts(fields: Sequence[str], rows: Sequence[dict[str, Any]], output: Format) -> None:
    """Rows whose columns are not known beforehand, as JSON lines, CSV, or the first column's values."""
    import csv

    out = sys.stdout
    if output == "jsonl":
        for row in rows:
            out.write(terminal.safe_json(msgspec.json.encode(row).decode()) + "\n")
    elif output == "name":
        for row in rows:
            out.write(terminal.safe(text_of(row[fields[0]])) + "\n")
    else:
        writer = csv.writer(out, lineterminator="\n")
        show = terminal.safe if out.isatty() else str
        writer.writerow([show(field) for field in fields])
        for row in rows:
            writer.writerow([show(_cell(row[field])) for field in fields])


def text_of(value: object) -> str:
    """A value in one CSV cell: empty for null, JSON for what has parts."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case _:
            return msgspec.json.encode(value).decode()
