"""The table of signatures: what a line means, if it means anything. Read once, never changed afterwards.

One row a signature, tab-separated, with a header; lines that begin with `#` and empty ones are skipped. Users' own rows
have the same form and are asked first. Patterns run in RE2 over bytes of one line: nothing in a log can hang them.
Every pattern must require some text, so that a gate over whole blocks can tell which lines may matter at all.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import re2
from msgspec import Struct
from msgspec.structs import replace

from analytics.attribution.literals import CHARS_MIN, Required, required
from analytics.attribution.patterns import BadPattern, Pattern, compiled, spans_of
from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import Cause, Recommendation, Role

T = TypeVar("T", bound=StrEnum)

ENGINE_VERSION = 1
"""Grows with every change of what the same bytes and the same table lead to."""
COLUMNS = ("id", "cause", "role", "action_first", "action_repeat", "pattern", "example", "note")
"""`where` may follow: a pattern over the frames of the traceback (`file:function`, one a line) that the line ends."""
GUARD = "guard_"
"""Ids of rows begin so that say of lines which a later row would know: they mean nothing. They make no line matter."""
REMEDIES = frozenset({Recommendation.RESTART, Recommendation.RESTART_ELSEWHERE, Recommendation.STOP})
ROWS_MAX = 1_000
TABLE_BYTES_MAX = 1 << 20
PATTERN_CHARS_MAX = 1_000
GATE_CHARS_MAX = 1 << 20
"""Of what all patterns require together: the gate is one pattern made of it."""
HITS_MAX = 64
ASKED_MAX = 48
"""Bounds of the time that one line takes: of the examples none needs a third of it."""
REMEMBERED_MAX = 4_096
REMEMBERED_BYTES = 256
"""Lines whose row is remembered: the same ones come again and again, of many ranks."""


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
        self.rows = tuple(replace(row, order=order) for order, row in enumerate(rows))
        self.by_id = {row.id: row for row in self.rows}
        self.digest = _digest(self.rows)
        self._patterns = [compiled(row.pattern) for row in self.rows]
        self._where = [compiled(row.where) if row.where else None for row in self.rows]
        self._framed = [row.order for row in self.rows if row.where]
        self._required = [
            (row, need) for row in self.rows if not row.where and (need := required(row.pattern)) is not None
        ]
        self._texts = spans_of("|".join(_longest_first(need for _, need in self._required)))
        self._asking = _inverted(self._required)
        self._remembered: dict[bytes, Row | None] = {}
        self._gates: dict[tuple[str, ...], tuple[Pattern, Pattern]] = {}

    @classmethod
    def load(cls, extra: Path | None = None) -> Rules:
        """The table beside this file, and before it the rows of `extra`. CoordError(BAD_CONFIG) names file and line, or
        says that all rows together are too much."""
        own = parse(Path(__file__).with_name("signatures.tsv"))
        users = parse(extra) if extra is not None else []
        taken = {row.id for row in users}
        rows = [*users, *(row for row in own if row.id not in taken)]
        needs = [need for row in rows if not row.where and (need := required(row.pattern)) is not None]
        chars = sum(len(need.form) + sum(map(len, need.texts)) for need in needs)
        if chars > GATE_CHARS_MAX:
            raise CoordError(
                Code.BAD_CONFIG,
                f"{extra}: its patterns hold {chars} characters of text, and {GATE_CHARS_MAX} may be",
                "repeat less, and keep the rows that matter",
            )
        return cls(rows)

    def classify(self, text: bytes, frames: bytes = b"") -> Row | None:
        """The first row that knows this line (without its prefixes); `frames` of the traceback that it ends."""
        if frames or len(text) > REMEMBERED_BYTES:
            return self._classified(text, frames)
        if text not in self._remembered:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[text] = self._classified(text, frames)
        return self._remembered[text]

    def forget(self) -> None:
        """The lines that are remembered: at most REMEMBERED_MAX of REMEMBERED_BYTES."""
        self._remembered.clear()

    def named(self, row: Row, text: bytes) -> dict[str, bytes]:
        """What the named groups of the row's pattern hold: `node`, `rank`."""
        return self._patterns[row.order].named(text)

    def _classified(self, text: bytes, frames: bytes) -> Row | None:
        numbers = self._asked(text)
        for number in sorted([*numbers, *self._framed]) if frames else numbers:
            where = self._where[number]
            if self._patterns[number].find(text) is not None and (where is None or where.find(frames) is not None):
                return self.rows[number]
        return None

    def _asked(self, line: bytes) -> list[int]:
        """Rows of which the line holds a required text, in their order: at most ASKED_MAX, found by HITS_MAX texts."""
        numbers: set[int] = set()
        at = 0
        for _ in range(HITS_MAX):
            span = self._texts.find(line, at)
            if span is None:
                break
            numbers |= self._asking[line[span[0] : span[1]].lower()]
            at = span[0] + 1
        return sorted(numbers)[:ASKED_MAX]

    def gates(self, also: tuple[str, ...]) -> tuple[Pattern, Pattern]:
        """Both find every line that a row may know, and those that hold one of the patterns `also`: the first one finds
        few others, the second one more of them, and is as fast whatever the lines hold."""
        if also not in self._gates:
            telling = [(row, need) for row, need in self._required if not row.id.startswith(GUARD)]
            forms = dict.fromkeys(need.form for _, need in telling)
            texts = _longest_first(need for _, need in telling)
            self._gates[also] = (spans_of("|".join([*also, *forms])), spans_of("|".join([*also, *texts])))
        return self._gates[also]


def parse(path: Path) -> list[Row]:
    """Rows of a table. CoordError(BAD_CONFIG) with the number of the line that is wrong."""
    try:
        if path.stat().st_size > TABLE_BYTES_MAX:
            raise CoordError(
                Code.BAD_CONFIG, f"{path} has more than {TABLE_BYTES_MAX} bytes", "keep the rows that matter"
            )
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CoordError(Code.BAD_CONFIG, f"{path}: {why}", "name a readable table of signatures in UTF-8") from error
    columns: list[str] | None = None
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.removesuffix("\r").split("\t")
        if columns is None:
            if tuple(cells[: len(COLUMNS)]) != COLUMNS:
                raise _bad(path, number, "the first line is not the header", "begin with: " + "<TAB>".join(COLUMNS))
            columns = cells
            continue
        try:
            row = _row(dict(zip(columns, cells, strict=False)))
        except ValueError as error:
            raise _bad(path, number, str(error), "docs/reference/causes.md tells what a row holds") from error
        if row.id in rows:
            raise _bad(path, number, f"the id {row.id!a} is there twice", "give every row an id of its own")
        if len(rows) == ROWS_MAX:
            raise _bad(path, number, f"more than {ROWS_MAX} rows", "keep those that matter")
        rows[row.id] = row
    if columns is None:
        raise _bad(path, 1, "there is no header", "begin with: " + "<TAB>".join(COLUMNS))
    return list(rows.values())


def _row(cells: dict[str, str]) -> Row:
    """ValueError says what is wrong with it."""
    missing = [name for name in COLUMNS if name not in cells]
    if missing:
        raise ValueError(f"no {', '.join(missing)}: a row has {len(COLUMNS)} cells, parted by tabs")
    row = Row(
        id=cells["id"],
        cause=_one_of(Cause, "cause", cells),
        role=_one_of(Role, "role", cells),
        first=_one_of(Recommendation, "action_first", cells),
        repeat=_one_of(Recommendation, "action_repeat", cells),
        pattern=cells["pattern"],
        example=cells["example"],
        note=cells["note"],
        where=cells.get("where", ""),
    )
    if not row.id or not row.pattern or max(len(row.pattern), len(row.where)) > PATTERN_CHARS_MAX:
        raise ValueError(f"a row has an id, and a pattern of 1 to {PATTERN_CHARS_MAX} characters")
    for pattern in (row.pattern, row.where):
        try:
            compiled(pattern)
        except BadPattern as error:
            raise ValueError(f"RE2 does not take {pattern[:80]!a}: {error!s:.200}") from error
    if not row.where and required(row.pattern) is None:
        raise ValueError(f"nothing of {CHARS_MIN} characters is in every line that {row.pattern[:80]!a} matches")
    if compiled(row.pattern).find(row.example.encode()) is None:
        raise ValueError(f"the pattern {row.pattern[:80]!a} does not match the example {row.example[:80]!a}")
    _check_meaning(row)
    return row


def _check_meaning(row: Row) -> None:
    """ValueError where role, cause and actions say different things."""
    harmless = row.role in (Role.BENIGN, Role.PROGRESS)
    if harmless != (row.cause is Cause.OK):
        said = "is for benign and progress rows alone" if row.cause is Cause.OK else "says that something failed"
        raise ValueError(f"the role is {row.role}, and the cause {row.cause} {said}")
    if harmless and not row.first is row.repeat is Recommendation.OK:
        raise ValueError(f"the role is {row.role}, so both actions are OK")
    if not harmless and not {row.first, row.repeat} <= REMEDIES:
        raise ValueError(f"the role is {row.role}, so both actions are of {', '.join(sorted(REMEDIES))}")


def _one_of(kinds: type[T], column: str, cells: dict[str, str]) -> T:
    """ValueError says what could stand there."""
    try:
        return kinds(cells[column])
    except ValueError:
        near = difflib.get_close_matches(cells[column][:64], list(kinds), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}"
        raise ValueError(f"{cells[column][:64]!a} is no {column}: {hint}") from None


def _longest_first(needs: Iterable[Required]) -> list[str]:
    """Patterns of the required texts: of those that begin at one place the longest is found."""
    texts: dict[str, bool] = {}
    for need in needs:
        for text in need.texts:
            texts[text] = texts.get(text, False) or need.folds
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    return [f"(?i:{re2.escape(text)})" if texts[text] else re2.escape(text) for text in ordered]


def _inverted(required_by: Sequence[tuple[Row, Required]]) -> dict[bytes, frozenset[int]]:
    """By text, in small letters: the rows that require it, or one that it begins with."""
    asking: dict[bytes, set[int]] = {}
    for row, need in required_by:
        for text in need.texts:
            asking.setdefault(text.lower().encode(), set()).add(row.order)
    inverted: dict[bytes, frozenset[int]] = {}
    for held in asking:
        begun = (asking.get(held[:size], set()) for size in range(1, len(held) + 1))
        inverted[held] = frozenset[int]().union(*begun)
    return inverted


def _bad(path: Path, number: int, message: str, hint: str) -> CoordError:
    return CoordError(Code.BAD_CONFIG, f"{path}:{number}: {message}", hint)


def _digest(rows: Sequence[Row]) -> str:
    told = hashlib.blake2b(str(ENGINE_VERSION).encode(), digest_size=8)
    for row in rows:
        told.update("\x1f".join((row.id, row.cause, row.role, row.first, row.repeat, row.pattern, row.where)).encode())
        told.update(b"\x1e")
    return told.hexdigest()
