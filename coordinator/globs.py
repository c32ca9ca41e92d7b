"""Patterns over the paths of files: of outputs that a step declares, and of those that another step wants.

`*` and `?` stand for characters within one part of a path, `[abc]`, `[a-z]` and `[!abc]` for one of them, and a part
`**` for any number of parts, none included (at least one when it is the last). Everything else is literal; a name that
begins with a dot is nothing special. Matching costs at most (length of the pattern) x (length of the path): a regular
expression made of five stars took seconds over two hundred characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from coordinator.core.errors import Code, CoordError

PATTERN_CHARS_MAX = 1_024
_STAR = object()
"""Within a part: any characters. As a part: any parts."""
Test = Callable[[str], bool]


class Pattern:
    """Compiled: one entry a part, `_STAR` or the tests of its characters."""

    def __init__(self, text: str) -> None:
        parts = text.removeprefix("./").split("/")
        if not text or len(text) > PATTERN_CHARS_MAX or any(part in ("", ".", "..") for part in parts):
            raise CoordError(
                Code.BAD_REQUEST,
                f"{text[:80]!a} means no files beneath a directory",
                "write it relative, without empty parts, . or ..",
            )
        self._parts: list[Any] = [_STAR if part == "**" else _characters(part) for part in parts]
        if self._parts[-1] is _STAR:
            self._parts.append([_STAR])

    def matches(self, path: str) -> bool:
        return _matches(self._parts, path.split("/"), lambda part, name: _matches(part, name, _is))


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


def _matches(wanted: Sequence[Any], found: Sequence[str], one: Callable[[Any, str], bool]) -> bool:
    """Whether the entries of `wanted` cover `found` in their order. It is enough to go back to the last star: whatever
    an earlier one could have taken besides, the later one can take too."""
    w = f = 0
    star, taken = -1, 0
    while f < len(found):
        if w < len(wanted) and wanted[w] is _STAR:
            star, taken = w, f
            w += 1
        elif w < len(wanted) and one(wanted[w], found[f]):
            w += 1
            f += 1
        elif star >= 0:
            taken += 1
            w, f = star + 1, taken
        else:
            return False
    return all(entry is _STAR for entry in wanted[w:])


def _is(test: Test, character: str) -> bool:
    return test(character)


def _characters(part: str) -> list[Any]:
    """The tests of one part. A `[` without its `]` is literal."""
    tests: list[Any] = []
    i = 0
    while i < len(part):
        character, i = part[i], i + 1
        end = part.find("]", i + (part[i : i + 1] == "!") + 1) if character == "[" else -1
        if character == "*":
            tests.append(_STAR)
        elif character == "?":
            tests.append(_any)
        elif end > 0:
            tests.append(_one_of(part[i:end]))
            i = end + 1
        else:
            tests.append(character.__eq__)
    return tests


def _any(_character: str) -> bool:
    return True


def _one_of(members: str) -> Test:
    """Of `abc`, `a-z`, or none of them after a `!`."""
    wanted = not members.startswith("!")
    members = members.removeprefix("!")
    ranges: list[tuple[str, str]] = []
    i = 0
    while i < len(members):
        is_range = members[i + 1 : i + 2] == "-" and i + 2 < len(members)
        ranges.append((members[i], members[i + 2] if is_range else members[i]))
        i += 3 if is_range else 1
    return lambda character: any(low <= character <= high for low, high in ranges) is wanted
