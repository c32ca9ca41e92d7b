"""The table of signatures: what a line means, if it means anything. Read once, never changed afterwards.

One row a signature, tab-separated, with a header; lines that begin with `#` and empty ones are skipped. Users' own rows
have the same form and are asked first. Patterns run in RE2 over bytes of one line: nothing in a log can hang them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import re2
from msgspec import Struct
from msgspec.structs import replace

from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import Cause, Recommendation, Role

ENGINE_VERSION = 1
"""Grows with every change of what the same bytes and the same table lead to."""
COLUMNS = ("id", "cause", "role", "action_first", "action_repeat", "pattern", "example", "note")
"""`where` may follow: a pattern over the frames of the traceback (`file:function`, one a line) that the line ends."""
ROWS_MAX = 1_000
PATTERN_CHARS_MAX = 1_000
PATTERN_MEMORY_BYTES = 1 << 20
UNION_MEMORY_BYTES = 64 << 20


class Match(Protocol):
    """What RE2 found, in bytes."""

    def start(self, group: int | str = 0) -> int: ...
    def end(self, group: int | str = 0) -> int: ...
    def group(self, group: int | str = 0) -> bytes | None: ...


class Pattern(Protocol):
    """A compiled pattern over bytes. No new line is ever part of a match."""

    def search(self, text: bytes, pos: int | None = None, endpos: int | None = None) -> Match | None: ...
    def finditer(self, text: bytes, pos: int | None = None, endpos: int | None = None) -> Iterator[Match]: ...


class Row(Struct, frozen=True, gc=False, kw_only=True):
    """One signature. `first` is what to do when it is met, `repeat` when the same was met before without progress."""

    id: str
    cause: Cause
    role: Role
    first: Recommendation
    repeat: Recommendation
    pattern: str
    example: str
    note: str
    where: str = ""
    order: int = 0
    """Its place among all rows: of several that match a line, the first one counts."""


class Rules:
    """Rows, and which of them knows a line."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = tuple(rows)
        self.by_id = {row.id: row for row in self.rows}
        self.digest = _digest(self.rows)
        self._set = re2.Set.SearchSet(_options(UNION_MEMORY_BYTES))
        self._where = {row.id: compiled(row.where, row.id) for row in self.rows if row.where}
        for row in self.rows:
            self._set.Add(row.pattern.encode())
        self._set.Compile()

    @classmethod
    def load(cls, extra: Path | None = None) -> Rules:
        """The table beside this file, and before it the rows of `extra`. CoordError(BAD_CONFIG) names file and line."""
        own = parse(Path(__file__).with_name("signatures.tsv"))
        users = parse(extra) if extra is not None else []
        taken = {row.id for row in users}
        rows = [*users, *(row for row in own if row.id not in taken)]
        return cls([_placed(row, order) for order, row in enumerate(rows)])

    def classify(self, text: bytes, frames: bytes = b"") -> Row | None:
        """The first row that knows this line (without its prefixes); `frames` of the traceback that it ends."""
        for number in sorted(self._set.Match(text) or ()):
            row = self.rows[int(number)]
            if not row.where or (frames and self._where[row.id].search(frames)):
                return row
        return None


def parse(path: Path) -> list[Row]:
    """Rows of a table. CoordError(BAD_CONFIG) with the number of the line that is wrong."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CoordError(Code.BAD_CONFIG, f"{path}: {error}", "name a readable table of signatures in UTF-8") from error
    columns: list[str] | None = None
    rows: list[Row] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split("\t")
        if columns is None:
            if tuple(cells[: len(COLUMNS)]) != COLUMNS:
                raise _bad(path, number, "the first line is not the header", "begin with: " + "<TAB>".join(COLUMNS))
            columns = cells
            continue
        row = _row(path, number, dict(zip(columns, cells, strict=False)))
        if row.id in seen:
            raise _bad(path, number, f"the id {row.id!a} is there twice", "give every row an id of its own")
        seen.add(row.id)
        rows.append(row)
        if len(rows) > ROWS_MAX:
            raise _bad(path, number, f"more than {ROWS_MAX} rows", "keep those that matter")
    return rows


def compiled(pattern: str, what: str) -> Pattern:
    """CoordError(BAD_CONFIG) for what RE2 does not take."""
    try:
        found: Pattern = re2.compile(pattern.encode(), _options(PATTERN_MEMORY_BYTES))
    except re2.error as error:
        raise CoordError(
            Code.BAD_CONFIG,
            f"the pattern of {what} is not one: {error.args[0]!s:.200}",
            "write it as RE2 takes it: no look-around, no back-references",
        ) from error
    return found


def _row(path: Path, number: int, cells: dict[str, str]) -> Row:
    missing = [name for name in COLUMNS if name not in cells]
    if missing:
        raise _bad(path, number, f"no {', '.join(missing)}", f"a row has {len(COLUMNS)} cells, parted by tabs")
    if not cells["id"] or len(cells["pattern"]) > PATTERN_CHARS_MAX or not cells["pattern"]:
        raise _bad(path, number, "no id, or no pattern", f"a pattern has 1 to {PATTERN_CHARS_MAX} characters")
    try:
        row = Row(
            id=cells["id"],
            cause=Cause(cells["cause"]),
            role=Role(cells["role"]),
            first=Recommendation(cells["action_first"]),
            repeat=Recommendation(cells["action_repeat"]),
            pattern=cells["pattern"],
            example=cells["example"],
            note=cells["note"],
            where=cells.get("where", ""),
        )
        for pattern in (row.pattern, row.where):
            compiled(pattern, row.id)
    except ValueError as error:
        raise _bad(path, number, str(error), "see docs/reference/causes.md") from error
    except CoordError as error:
        raise _bad(path, number, error.message, error.hint) from error
    return row


def _bad(path: Path, number: int, message: str, hint: str) -> CoordError:
    return CoordError(Code.BAD_CONFIG, f"{path}:{number}: {message}", hint)


def _placed(row: Row, order: int) -> Row:
    return replace(row, order=order)


def _digest(rows: Sequence[Row]) -> str:
    told = hashlib.blake2b(str(ENGINE_VERSION).encode(), digest_size=8)
    for row in rows:
        told.update("\x1f".join((row.id, row.cause, row.role, row.first, row.repeat, row.pattern, row.where)).encode())
        told.update(b"\x1e")
    return told.hexdigest()


def _options(memory_bytes: int) -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = memory_bytes
    options.never_nl = True
    options.log_errors = False
    return options
