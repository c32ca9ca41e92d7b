"""Patterns over the paths of files: of outputs that a step declares, and of those that another step wants.

`*` and `?` stand for characters within one part of a path, `[abc]`, `[a-z]` and `[!abc]` for one of them, and a part
`**` for any number of parts, none included (at least one when it is the last). Everything else is literal; a name that
begins with a dot is nothing special. Matching costs at most (length of the pattern) x (length of the path): the regular
expressions that parts become never go back behind a star (one of five plain stars took seconds over 200 characters).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from coordinator.core.errors import Code, CoordError

PATTERN_CHARS_MAX = 1_024
Test = Callable[[str], bool]
Part = Test | None
_STAR: Part = None
"""Any parts."""


class Pattern:
    """Compiled: one entry a part, `_STAR` or its test."""

    def __init__(self, text: str) -> None:
        parts = text.removeprefix("./").split("/")
        if not text or len(text) > PATTERN_CHARS_MAX or any(part in ("", ".", "..") for part in parts):
            raise CoordError(
                Code.BAD_REQUEST,
                f"{text[:80]!a} means no files beneath a directory",
                "write it relative, without empty parts, . or ..",
            )
        self._parts: list[Part] = [_STAR if part == "**" else _test_of(part) for part in parts]
        if self._parts[-1] is _STAR:
            self._parts.append(_test_of("*"))

    def matches(self, path: str) -> bool:
        return _matches(self._parts, path.split("/"))


def matches(pattern: str, path: str) -> bool:
    """Whether `pattern` means `path`, both relative, with `/` between parts. CoordError(BAD_REQUEST) for no pattern."""
    return compiled(pattern).matches(path)


def is_literal(pattern: str) -> bool:
    """Whether it can mean one path alone, itself."""
    return not any(character in pattern for character in "*?[")


@lru_cache(maxsize=1_024)
def compiled(pattern: str) -> Pattern:
    """CoordError(BAD_REQUEST) for what names nothing beneath a directory."""
    return Pattern(pattern)


def _matches(wanted: Sequence[Part], found: Sequence[str]) -> bool:
    """Whether the parts of `wanted` cover `found` in their order. It is enough to go back to the last star: whatever
    an earlier one could have taken besides, the later one can take too."""
    w = f = 0
    star, taken = -1, 0
    while f < len(found):
        part = wanted[w] if w < len(wanted) else _nothing
        if part is None:
            star, taken = w, f
            w += 1
        elif part(found[f]):
            w += 1
            f += 1
        elif star >= 0:
            taken += 1
            w, f = star + 1, taken
        else:
            return False
    return all(part is _STAR for part in wanted[w:])


def _nothing(_name: str) -> bool:
    """Behind the end of a pattern."""
    return False


def _test_of(part: str) -> Test:
    """Whether a name is meant by one part of a pattern. A `[` without its `]` is literal.

    A star takes as little as lets what follows it match, and is never asked again (an atomic group): with that the
    last star alone may have to look further, and the time stays within length times length.
    """
    if not any(character in part for character in "*?["):
        return part.__eq__
    runs, i = [""], 0
    while i < len(part):
        character, i = part[i], i + 1
        end = part.find("]", i + (part[i : i + 1] == "!") + 1) if character == "[" else -1
        if character == "*":
            runs.append("")
        elif character == "?":
            runs[-1] += "."
        elif end > 0:
            runs[-1] += _one_of(part[i:end])
            i = end + 1
        else:
            runs[-1] += re.escape(character)
    first, *others = runs
    last = f".*{others.pop()}" if others else ""
    found = re.compile(first + "".join(f"(?>.*?{run})" for run in others if run) + last, re.DOTALL)
    return lambda name: found.fullmatch(name) is not None


def _one_of(members: str) -> str:
    """Of `abc`, `a-z`, or none of them after a `!`. A range that ends before it begins holds nothing."""
    unwanted = members.startswith("!")
    members = members.removeprefix("!")
    ranges, i = "", 0
    while i < len(members):
        is_range = members[i + 1 : i + 2] == "-" and i + 2 < len(members)
        low, high = members[i], members[i + 2] if is_range else members[i]
        ranges += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
        i += 3 if is_range else 1
    if not ranges:
        return "." if unwanted else "(?!)"
    return f"[{'^' if unwanted else ''}{ranges}]"
