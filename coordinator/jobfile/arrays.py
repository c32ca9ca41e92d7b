"""How many tasks a step stands for: arrays and matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coordinator.core.work.jobspec import TASKS_MAX
from coordinator.jobfile.problems import shown
from coordinator.jobfile.table import Found, Table, is_plain

RANGES_MAX = 10_000
ITEM_CHARS_MAX = 4_096
AXES_MAX = 16
VALUES_MAX = 100_000
RESERVED = frozenset({"index", "item", "rank", "nodes"})
"""Placeholders that mean something already: no axis of a matrix is called so."""
_RANGE = re.compile(r"(\d{1,12})(?:-(\d{1,12})(?::(\d{1,12}))?)?", re.ASCII)
_AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_FORMS = 'write array = "1-1000", "0-99:2", "1,3,5-7", or a list of items'

Ranges = tuple[tuple[int, int, int], ...]
Matrix = tuple[tuple[str, tuple[str, ...]], ...]


def array(table: Table) -> tuple[Ranges, tuple[str, ...], int]:
    """Its ranges or its items, and how many places there are; 1 without an array."""
    found = table.find("array")
    if found is None:
        return (), (), 1
    match found.value:
        case str():
            ranges = _ranges(table, found)
            return ranges, (), sum((last - first) // stride + 1 for first, last, stride in ranges) or 1
        case list() | tuple():
            items = _items(table, found)
            return (), items, len(items) or 1
        case Mapping() if "file" in found.value:
            table.problems.add(
                found.path,
                "the coordinator cannot see your files",
                "coord submit reads the file; over HTTP send its lines as a list",
            )
        case _:
            table.wrong(found, "an array", _FORMS)
    return (), (), 1


def _ranges(table: Table, found: Found) -> Ranges:
    parts = str(found.value).split(",")
    ranges = []
    for part in parts[: RANGES_MAX + 1]:
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            bound = "how many run at a time is max_running; " if "%" in part else ""
            table.wrong(found, "an array", bound + _FORMS)
            return ()
        first = int(match[1])
        last, stride = int(match[2] or first), int(match[3] or 1)
        if last < first or stride < 1:
            table.problems.add(
                found.path, f"{shown(part.strip())} holds nothing", "write it from the lower end upwards"
            )
            return ()
        ranges.append((first, last, stride))
    if len(ranges) > RANGES_MAX:
        table.problems.add(found.path, f"it has {len(parts)} parts", f"at most {RANGES_MAX}; give a list of items")
        return ()
    return tuple(ranges)


def _items(table: Table, found: Found) -> tuple[str, ...]:
    items = []
    for i, value in enumerate(found.value):
        text = _text(value)
        if text is None or len(text) > ITEM_CHARS_MAX:
            table.wrong(Found(value, f"{found.path}[{i}]"), "an item", f"text or numbers, {ITEM_CHARS_MAX} characters")
            return ()
        items.append(text)
    if not items:
        table.problems.add(found.path, "the array has no items", _FORMS)
    return tuple(items)


def matrix(table: Table) -> tuple[Matrix, int]:
    """Its axes, and the product of their lengths."""
    axes = []
    product = 1
    for name, found in table.entries("matrix", AXES_MAX).items():
        if not _AXIS.fullmatch(name) or name in RESERVED:
            why = "means something already" if name in RESERVED else "is no name for an axis"
            table.problems.add(found.path, f"{shown(name)} {why}", "use letters, digits, _ and -")
            continue
        if not isinstance(found.value, list | tuple) or not 0 < len(found.value) <= VALUES_MAX:
            table.wrong(found, "the values of an axis", f"a list of 1 to {VALUES_MAX} texts or numbers")
            continue
        values = []
        for i, value in enumerate(found.value):
            text = _text(value)
            if text is None or len(text) > ITEM_CHARS_MAX:
                table.wrong(Found(value, f"{found.path}[{i}]"), "a value", "text or numbers")
            else:
                values.append(text)
        axes.append((name, tuple(values)))
        product *= max(1, len(values))
    return tuple(axes), product


def count(table: Table, places: int, product: int) -> int:
    """How many tasks that makes."""
    tasks = places * product
    if tasks > TASKS_MAX:
        at = table.at("array") if places > product else table.at("matrix")
        table.problems.add(at, f"that makes {tasks} tasks", f"a step has at most {TASKS_MAX}")
        return 1
    return tasks


def _text(value: object) -> str | None:
    """A scalar as the text that takes a placeholder's place; None for anything else."""
    match value:
        case str():
            return value if is_plain(value) else None
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if abs(value) < 10**18 else None
        case float():
            return repr(value)
        case _:
            return None
